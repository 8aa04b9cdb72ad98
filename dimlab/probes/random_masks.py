"""Random masks: what a reader scores with some dimensions thrown away at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.cuts import random_half
from dimlab.kernels.paired import tango_interval
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import Reading, basis_of, caution_of, coded, sample_of
from dimlab.representation import Representation

_N_DRAWS = 1_000
_TOGETHER = 1 << 18  # entries drawn at once, in the cache; what a seed gives depends on it
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class MaskedScores:
    """Accuracy of a refitted reader under random masks, with and without selection bias.

    Parameters
    ----------
    reader : str
        Which reader.
    drop : ndarray of shape (R,)
        Share of dimensions that the masks of each rate remove.
    n_dropped : ndarray of shape (R,), int
        Number of dimensions removed: exactly so many in each mask.
    masks : ndarray of shape (R, M, D), bool
        True where a dimension is kept.
    full_score : float
        Accuracy in [0, 1] with all dimensions, on all test samples.
    scores : ndarray of shape (R, M)
        Accuracy under each mask, on all test samples.
    best : ndarray of shape (R,), int
        The mask that is best on half A of the test samples.
    gain, ci_low, ci_high : ndarray of shape (R,)
        Accuracy of that mask less that of all dimensions on half B, which did not choose it, with
        Tango's 95 % interval.
    naive_gain : ndarray of shape (R,)
        Accuracy of the best mask on all test samples less that of all dimensions: chosen and
        judged on the same samples, as a look at the largest of many scores does.
    null_gain : ndarray of shape (R,)
        95 % quantile of the naive gain of masks that differ by chance only.
    selection_bias : ndarray of shape (R,)
        How far the best of so many equal masks lies above their mean, on average.
    n_train, n_test, n_dimensions : int
        Sizes.
    basis : str
        Basis that the dimensions belong to.
    sample : str
        Which part of the test split was used; empty: all of it.
    caution : str
        What keeps the scores from meaning what they usually do; empty: nothing.

    References
    ----------
    Tango, Statistics in Medicine 17, 1998; those of `random_masks`, which measures it.

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.zeros(40)])  # the second says nothing
    >>> split = Representation(features, labels=labels)
    >>> scores = random_masks(split, split, drop=[0.5], n_masks=20)  # one of the two is kept
    >>> sorted(set(scores.scores[0].tolist())), scores.to_frame()["best_gain"].tolist()
    ([0.5, 1.0], [0.0])
    >>> scores.summary()["verdict"][:24]
    'No mask is shown to help'
    """

    reader: str
    drop: np.ndarray
    n_dropped: np.ndarray
    masks: np.ndarray
    full_score: float
    scores: np.ndarray
    best: np.ndarray
    gain: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    naive_gain: np.ndarray
    null_gain: np.ndarray
    selection_bias: np.ndarray
    n_train: int
    n_test: int
    n_dimensions: int
    basis: str = "axes"
    sample: str = ""
    caution: str = ""

    def to_frame(self) -> Any:
        """Return one row a rate.

        Returns
        -------
        pandas.DataFrame
            ``drop, n_dropped, mean_score, best_gain, ci_low, ci_high, naive_gain, null_gain,
            selection_bias``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "drop": self.drop,
                "n_dropped": self.n_dropped,
                "mean_score": self.scores.mean(axis=1),
                "best_gain": self.gain,
                "ci_low": self.ci_low,
                "ci_high": self.ci_high,
                "naive_gain": self.naive_gain,
                "null_gain": self.null_gain,
                "selection_bias": self.selection_bias,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done, sizes, ``full_score``, the rates, and a ``verdict`` in words.
        """
        helps = self.drop[self.ci_low > 0]
        verdict = (
            "Some masks help, on samples that did not choose them, at the rates "
            + ", ".join(f"{rate:g}" for rate in helps)
            + "."
            if len(helps)
            else "No mask is shown to help: on samples that did not choose it, no rate's best mask "
            "gains more than its interval."
        )
        return {
            "reader": self.reader,
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            **({"caution": self.caution} if self.caution else {}),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_masks": self.scores.shape[1],
            "full_score": self.full_score,
            "drop": self.drop.tolist(),
            "best_gain": self.gain.tolist(),
            "naive_gain": self.naive_gain.tolist(),
            "null_gain": self.null_gain.tolist(),
            "verdict": verdict,
        }


def random_masks(
    train: Representation,
    test: Representation,
    *,
    reader: str = "ridge",
    drop: Sequence[float] = (0.1, 0.25, 0.5, 0.75),
    n_masks: int = 500,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> MaskedScores:
    """Score a reader under random masks; judge the best on samples that did not choose it.

    Parameters
    ----------
    train, test : Representation
        Labelled splits of the same D dimensions.
    reader : {"ridge", "knn", "logistic"}, default="ridge"
        Fitted again on what every mask keeps. kNN searches anew for each mask.
    drop : sequence of float, default=(0.1, 0.25, 0.5, 0.75)
        Shares of the dimensions to remove, in (0, 1); each rounded to a whole number from 1 to D-1.
    n_masks : int, default=500
        M, masks a rate, >= 2.
    k, temperature, penalty, device, memory
        As in `ablate`.
    seed : int, default=0
        Draws masks, halves and the null.
    progress : callable, optional
        Called as ``progress(done, total)`` during the long part.

    Returns
    -------
    MaskedScores
        One entry a rate.

    Raises
    ------
    ValueError
        As `ablate`, if a rate is outside (0, 1), there are fewer than 2 masks, 2 dimensions or 2
        test samples.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    The experiment of [1]_ looks at the best of many random masks, which lies above the rest even
    where all are equal. Here half A of the test samples (stratified) chooses, half B judges. Null:
    for each test sample the outcomes of its masks are permuted among them, 1,000 draws of the
    maximum. ``null_gain`` is their 95 % quantile, ``selection_bias`` their mean, less the mean of
    all masks.

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 50)
    >>> features = rng.normal(size=(100, 4)) + labels[:, None]
    >>> split = Representation(features, labels=labels)
    >>> random_masks(split, split, drop=[0.5], n_masks=6).n_dropped.tolist()
    [2]
    """
    reading = Reading.of(
        reader, refit=True, k=k, temperature=temperature, penalty=penalty, seed=seed,
        device=device, memory=memory,
    )  # fmt: skip
    rates = _checked_rates(drop)
    n_dimensions = train.n_dimensions
    if n_masks < 2:
        raise ValueError(f"n_masks must be >= 2; got {n_masks}.")
    if n_dimensions < 2 or len(test) < 2:
        raise ValueError(
            "random_masks needs at least 2 dimensions and 2 test samples; got "
            f"{n_dimensions} and {len(test)}."
        )
    _, bank, queries = coded(train, test, "random_masks")
    foresee(
        f"random_masks {reader}",
        Shapes(
            len(train), len(test), n_dimensions, n_masks * len(rates), len(rates), budget=memory
        ),
        device=device if reader == "knn" else "cpu",
    )
    truth, rng = queries[1], np.random.default_rng(seed)
    n_dropped = np.clip(np.rint(rates * n_dimensions), 1, n_dimensions - 1).astype(np.int64)
    removed = [rng.permutation(n_dimensions)[:count] for count in n_dropped for _ in range(n_masks)]
    outcomes = reading.outcomes(bank, queries, [removed], progress)[0]
    full, right = outcomes.full == truth, outcomes.ablated == truth[:, None]
    masks = np.ones((len(removed), n_dimensions), dtype=bool)
    for mask, group in zip(masks, removed, strict=True):
        mask[group] = False
    half = random_half(truth, rng)
    half[0] = half[0] if 0 < half.sum() < len(half) else ~half[0]
    judged = [
        _judge(right[:, part : part + n_masks], full, half, rng)
        for part in range(0, len(removed), n_masks)
    ]
    columns = {name: np.array([each[name] for each in judged]) for name in judged[0]}
    return MaskedScores(
        reader=reader,
        drop=rates,
        n_dropped=n_dropped,
        masks=masks.reshape(len(rates), n_masks, n_dimensions),
        full_score=float(full.mean()),
        scores=right.mean(axis=0).reshape(len(rates), n_masks),
        **columns,
        n_train=len(train),
        n_test=len(test),
        n_dimensions=n_dimensions,
        basis=basis_of(train),
        sample=sample_of(test),
        caution=caution_of(test, None),
    )


def _checked_rates(drop: Sequence[float]) -> np.ndarray:
    rates = np.atleast_1d(np.asarray(drop, dtype=np.float64))
    if rates.ndim != 1 or len(rates) == 0 or not ((rates > 0) & (rates < 1)).all():
        raise ValueError(f"drop must hold shares in (0, 1); got {np.ravel(rates).tolist()}.")
    return rates


def _judge(
    right: np.ndarray, full: np.ndarray, half: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Judge the masks of one rate; ``right`` (N, M), ``full`` and ``half`` (N,), bool."""
    best = int(right[half].mean(axis=0).argmax())
    mine, theirs = right[~half, best], full[~half]
    n_only_mask, n_only_full = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
    low, high = tango_interval(n_only_mask, n_only_full, len(mine))
    largest = null_maxima(right, rng, _N_DRAWS)
    return {
        "best": best,
        "gain": (n_only_mask - n_only_full) / len(mine),
        "ci_low": float(low),
        "ci_high": float(high),
        "naive_gain": right.mean(axis=0).max() - full.mean(),
        "null_gain": np.quantile(largest, _LEVEL) - full.mean(),
        "selection_bias": largest.mean() - right.mean(),
    }


def null_maxima(right: np.ndarray, rng: np.random.Generator, n_draws: int) -> np.ndarray:
    """Draw the accuracy of the best of M masks whose outcomes are permuted within every sample.

    Parameters
    ----------
    right : ndarray of shape (N, M), bool
        Whether each mask is right about each sample.
    rng : numpy.random.Generator
        Draws the permutations.
    n_draws : int
        Number of maxima.

    Returns
    -------
    ndarray of shape (n_draws,)
        Shares of the N samples.
    """
    n_masks = right.shape[1]
    n_right = right.sum(axis=1)
    always = int((n_right == n_masks).sum())
    # samples that all masks agree on are the same in every draw
    split = n_right[(n_right > 0) & (n_right < n_masks)]
    largest = np.zeros(n_draws, dtype=np.int64)
    at_once = max(1, _TOGETHER // max(1, len(split)))
    integers = np.uint16 if n_masks <= np.iinfo(np.uint16).max else np.uint32
    for first in range(0, n_draws if len(split) else 0, at_once):
        best = largest[first : first + at_once]
        # a permutation, column after column: right with the share that is left of those to come
        left = np.tile(split.astype(integers), (len(best), 1))
        for n_to_come in range(n_masks, 0, -1):
            is_right = rng.integers(n_to_come, size=left.shape, dtype=integers) < left
            left -= is_right
            np.maximum(best, np.count_nonzero(is_right, axis=1), out=best)
    return (always + largest) / len(right)
