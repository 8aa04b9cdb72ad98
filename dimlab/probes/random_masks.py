"""Random masks: what a reader scores with some dimensions thrown away at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.cuts import random_half
from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.paired import cluster_sums, paired_interval, paired_test_one_sided
from dimlab.probes._contributions import difference
from dimlab.probes._reading import How, ReaderLike, Reads, Task, check_least, reads
from dimlab.refusals import Refusal
from dimlab.result import column, entries, entry, per, scalar
from dimlab.targets import score_of

NEEDS: tuple[set[str], ...] = ({"labels", "train"},)
_N_DRAWS = 1_000
_TOGETHER = 1 << 18  # entries drawn at once, in the cache; what a seed gives depends on it
_LEVEL = 0.95


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MaskedScores(Reads):
    """Score of a refitted reader under random masks, with and without selection bias.

    References
    ----------
    Tango, Statistics in Medicine 17, 1998; those of `random_masks`, which measures it.

    Examples
    --------
    >>> from dimlab import Representation
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1 + np.arange(40) / 400, np.zeros(40)])
    >>> split = Representation(features, labels=labels)
    >>> scores = random_masks(split, split, drop=[0.5], n_masks=20)  # one of the two is kept
    >>> sorted(set(scores.scores[0].tolist())), scores.to_frame()["best_gain"].tolist()
    ([0.5, 1.0], [0.0])
    >>> scores.summary()["verdict"][:24]
    'No mask is shown to help'
    """

    HEADLINE = ("reader", "n_masks", "full_score", "n_dimensions")

    @entry
    def n_masks(self) -> int:
        """M, the masks of each rate."""
        return self.scores.shape[1]

    score: str = scalar("What the reader was scored by.", default="accuracy")
    full_score: float = scalar("Score with all dimensions, on all test samples.")
    drop: np.ndarray = per("rate", "Share of the dimensions that the masks of each rate remove.")
    n_dropped: np.ndarray = per("rate", "Dimensions removed: exactly so many in each mask.")
    masks: np.ndarray = per("rate", "True where a dimension is kept; bool.", shape="(R, M, D)")
    scores: np.ndarray = per("rate", "Score under each mask, on all test samples.", shape="(R, M)")

    @column
    def mean_score(self) -> np.ndarray:
        """Mean score of the masks of each rate, (R,)."""
        return self.scores.mean(axis=1)

    best: np.ndarray = per(
        "rate", "The mask that is best on half A of the test samples.", column=False
    )
    gain: np.ndarray = per(
        "rate",
        "Score of that mask less that of all dimensions on half B, which did not choose it.",
        column="best_gain",
    )
    ci_low: np.ndarray = per("rate", "Lower end of the 95 % interval of the gain.")
    ci_high: np.ndarray = per("rate", "Upper end of it.")
    p_value: np.ndarray = per(
        "rate", "One-sided p-value, that this gain is not positive.", column=False
    )
    q_value: np.ndarray = per(
        "rate", "The same, adjusted after Benjamini and Hochberg over the rates."
    )
    naive_gain: np.ndarray = per(
        "rate",
        "Score of the best mask on all test samples less that of all dimensions: chosen and "
        "judged on the same samples, as a look at the largest of many scores does.",
    )
    naive_gain_over_mean: np.ndarray = per(
        "rate", "The same less the mean of all masks of its rate."
    )
    null_gain: np.ndarray = per(
        "rate",
        "95 % quantile of `naive_gain_over_mean` where the masks of a rate differ by chance only.",
    )
    selection_bias: np.ndarray = per(
        "rate", "How far the best of so many equal masks lies above their mean, on average."
    )

    @entries
    def of_rates(self) -> dict[str, np.ndarray]:
        """The rates and their gains."""
        return {
            "drop": self.drop,
            "best_gain": self.gain,
            "naive_gain": self.naive_gain,
            "naive_gain_over_mean": self.naive_gain_over_mean,
            "null_gain": self.null_gain,
        }

    @entry
    def verdict(self) -> str:
        """Whether some masks help, in words."""
        helps = self.drop[self.q_value <= 1 - _LEVEL]
        if len(helps):
            rates = ", ".join(f"{rate:g}" for rate in helps)
            return (
                "Some masks help, on samples that did not choose them (q <= 0.05), at the rates "
                f"{rates}."
            )
        return (
            "No mask is shown to help: on samples that did not choose it, the best mask of no "
            "rate gains with q <= 0.05."
        )


@reads
def random_masks(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    reader: ReaderLike = "ridge",
    drop: Sequence[float] = (0.1, 0.25, 0.5, 0.75),
    n_masks: int = 500,
    **how: Unpack[How],
) -> MaskedScores:
    """Score a reader under random masks; judge the best on samples that did not choose it.

    Parameters
    ----------
    drop : sequence of float, default=(0.1, 0.25, 0.5, 0.75)
        Shares of the dimensions to remove, in (0, 1); each rounded to a whole number from 1 to D-1.
    n_masks : int, default=500
        M, masks a rate, >= 2.

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
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    The experiment of [1]_ looks at the best of many random masks, which lies above the rest even
    where all are equal. Here half A of the test samples (stratified) chooses, half B judges. Null:
    for each test sample the outcomes of its masks are permuted among them, 1,000 draws of the
    maximum. ``null_gain`` is their 95 % quantile, ``selection_bias`` their mean, both less the mean
    of all masks, which permuting leaves as it is. The mean may lie far from the full reader:
    compare ``null_gain`` with ``naive_gain_over_mean``. With clusters, halves hold whole clusters,
    whose rows are permuted together. Of scores other than accuracy the maximum is drawn from the
    normal law that sums of many permuted rows follow.

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 50)
    >>> features = rng.normal(size=(100, 4)) + labels[:, None]
    >>> split = Representation(features, labels=labels)
    >>> random_masks(split, split, drop=[0.5], n_masks=6).n_dropped.tolist()
    [2]
    """
    train, test = as_representations(train=train, test=test).values()
    from scipy.stats import false_discovery_control

    rates = np.atleast_1d(np.asarray(drop, dtype=np.float64))
    if rates.ndim != 1 or len(rates) == 0 or not ((rates > 0) & (rates < 1)).all():
        raise Refusal(f"drop must hold shares in (0, 1); got {np.ravel(rates).tolist()}.")
    check_least(2, n_masks=n_masks)
    n_dimensions = train.n_dimensions
    if n_dimensions < 2 or len(test) < 2:
        raise Refusal(
            "random_masks needs at least 2 dimensions and 2 test samples; got "
            f"{n_dimensions} and {len(test)}."
        )
    task = Task.of("random_masks", train, test, reader, refit=True, **how)
    task = task.holding(25 * len(test) * n_masks * len(rates))
    rng, clusters = np.random.default_rng(task.run.seed), task.test.clusters
    n_dropped = np.clip(np.rint(rates * n_dimensions), 1, n_dimensions - 1).astype(np.int64)
    removed = [rng.permutation(n_dimensions)[:count] for count in n_dropped for _ in range(n_masks)]
    masks = np.ones((len(removed), n_dimensions), dtype=bool)
    for mask, group in zip(masks, removed, strict=True):
        mask[group] = False
    score = score_of(None, task.kind)
    full, right = task.judged(score, removed)
    half = random_half(task.test.strata, rng, clusters=clusters)
    if half.all() or not half.any():  # classes with one sample or cluster fall to either side
        half[0 if clusters is None else clusters == clusters[0]] ^= True
    judged = [
        _judge(right[:, part : part + n_masks], full, half, clusters, rng)
        for part in range(0, len(removed), n_masks)
    ]
    columns: dict[str, Any] = {
        name: np.array([each[name] for each in judged]) for name in judged[0]
    }
    return MaskedScores(
        **task.said,
        drop=rates,
        n_dropped=n_dropped,
        masks=masks.reshape(len(rates), n_masks, n_dimensions),
        score=score,
        full_score=float(full.mean()),
        scores=right.mean(axis=0).reshape(len(rates), n_masks),
        **columns,
        q_value=false_discovery_control(columns["p_value"]),
    )


def _judge(
    right: np.ndarray,
    full: np.ndarray,
    half: np.ndarray,
    clusters: np.ndarray | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Judge the masks of one rate: what rows add to scores (N, M), ``full`` and ``half`` (N,)."""
    best = int(right[half].mean(axis=0).argmax())
    change = difference(right[~half, best], full[~half])
    others = None if clusters is None else clusters[~half]
    low, high = paired_interval(change, others)
    largest = null_maxima(right, rng, _N_DRAWS, clusters)
    scores = right.mean(axis=0)
    return {
        "best": best,
        "gain": change.mean(),
        "ci_low": float(low),
        "ci_high": float(high),
        "p_value": float(paired_test_one_sided(change, others)),
        "naive_gain": scores.max() - full.mean(),
        "naive_gain_over_mean": scores.max() - scores.mean(),
        "null_gain": np.quantile(largest, _LEVEL) - scores.mean(),
        "selection_bias": largest.mean() - scores.mean(),
    }


def null_maxima(
    right: np.ndarray, rng: np.random.Generator, n_draws: int, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Draw scores of the best of M masks, outcomes (N, M) permuted within rows or clusters."""
    if right.dtype.kind == "f":
        # sums of many permuted rows are normal: of equal variance and correlation, and of one sum
        sums = cluster_sums(right, clusters)
        n_masks = right.shape[1]
        spread = np.sqrt(sums.var(axis=1).sum() * n_masks / (n_masks - 1))
        z = rng.standard_normal((n_draws, n_masks))
        largest: np.ndarray = sums.sum() / n_masks + spread * (z.max(axis=1) - z.mean(axis=1))
        return largest / len(right)
    if clusters is not None:
        sums = cluster_sums(right, clusters).astype(np.int32)
        moved = sums[sums.max(axis=1) > sums.min(axis=1)]
        fixed = sums[:, 0].sum() - moved[:, 0].sum()
        draws = [rng.permuted(moved, axis=1).sum(axis=0).max() for _ in range(n_draws)]
        return (fixed + np.array(draws)) / len(right)
    n_masks = right.shape[1]
    n_right = right.sum(axis=1)
    always = int((n_right == n_masks).sum())
    # samples that all masks agree on are the same in every draw
    split = n_right[(n_right > 0) & (n_right < n_masks)]
    counts = np.zeros(n_draws, dtype=np.int64)
    at_once = max(1, _TOGETHER // max(1, len(split)))
    integers = np.uint16 if n_masks <= np.iinfo(np.uint16).max else np.uint32
    for first in range(0, n_draws if len(split) else 0, at_once):
        best = counts[first : first + at_once]
        # a permutation, column after column: right with the share that is left of those to come
        left = np.tile(split.astype(integers), (len(best), 1))
        for n_to_come in range(n_masks, 0, -1):
            is_right = rng.integers(n_to_come, size=left.shape, dtype=integers) < left
            left -= is_right
            np.maximum(best, np.count_nonzero(is_right, axis=1), out=best)
    return (always + counts) / len(right)
