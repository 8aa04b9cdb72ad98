"""Confirmation of harm: chosen on one half of the test samples, tested on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.cuts import random_half
from dimlab.kernels.paired import aggregate_p_values, mcnemar_one_sided
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import (
    GroupsLike,
    Reading,
    basis_of,
    caution_of,
    checked_groups,
    coded,
    sample_of,
    singles,
)
from dimlab.representation import Representation

_CHOSEN = 0.05  # one-sided p on the half that chooses
_SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class HarmfulDimensions:
    """Dimensions without which a reader does better, on samples that did not choose them.

    Parameters
    ----------
    reader : str
        Which reader.
    refit : bool
        Whether it was fitted again without each group.
    full_score : float
        Accuracy with all dimensions, on all test samples.
    importance : ndarray of shape (G,)
        Accuracy lost without each group, on all test samples; negative: better without.
    selected_share : ndarray of shape (G,)
        Share, in [0, 1], of the runs whose first half chose the group.
    q_value : ndarray of shape (G,)
        One-sided, from the halves that did not choose, aggregated over runs.
    groups : tuple of ndarray of shape (n,), int
        Dimensions of each of the G groups.
    n_splits, n_train, n_test, n_dimensions : int
        Sizes; every split is used both ways.
    basis : str
        Basis that the dimensions belong to.
    sample : str
        Which part of the test split was used; empty: all of it.
    caution : str
        What keeps the scores from meaning what they usually do; empty: nothing.

    References
    ----------
    Those of `confirm_harmful`, which finds them.

    Examples
    --------
    >>> found = HarmfulDimensions(
    ...     reader="knn", refit=True, full_score=0.8, importance=np.array([0.1, -0.05]),
    ...     selected_share=np.array([0.0, 1.0]), q_value=np.array([1.0, 0.01]),
    ...     groups=(np.array([0]), np.array([1])), n_splits=20, n_train=100, n_test=100,
    ...     n_dimensions=2,
    ... )
    >>> found.confirmed.tolist(), found.to_frame()["confirmed"].tolist()
    ([1], [False, True])
    >>> found.summary()["verdict"]
    '1 of 2 confirmed as harmful (q <= 0.05).'
    """

    reader: str
    refit: bool
    full_score: float
    importance: np.ndarray
    selected_share: np.ndarray
    q_value: np.ndarray
    groups: tuple[np.ndarray, ...]
    n_splits: int
    n_train: int
    n_test: int
    n_dimensions: int
    basis: str = "axes"
    sample: str = ""
    caution: str = ""

    def __len__(self) -> int:
        return len(self.q_value)

    @property
    def confirmed(self) -> np.ndarray:
        """Groups with q <= 0.05, smallest q first; (n,) int."""
        order = np.lexsort((self.importance, self.q_value))
        return order[self.q_value[order] <= _SIGNIFICANT]

    def to_frame(self) -> Any:
        """Return one row a group.

        Returns
        -------
        pandas.DataFrame
            ``group``, ``dimensions`` (separated by spaces), ``importance``, ``selected_share``,
            ``q_value``, ``confirmed``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "group": np.arange(len(self)),
                "dimensions": [" ".join(map(str, group.tolist())) for group in self.groups],
                "importance": self.importance,
                "selected_share": self.selected_share,
                "q_value": self.q_value,
                "confirmed": self.q_value <= _SIGNIFICANT,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done, sizes, ``full_score``, ``n_confirmed``, ``confirmed`` (lists of
            dimensions) and a ``verdict`` in words.
        """
        confirmed = [self.groups[group].tolist() for group in self.confirmed]
        verdict = (
            f"{len(confirmed)} of {len(self)} confirmed as harmful (q <= {_SIGNIFICANT})."
            if confirmed
            else f"None of {len(self)} is confirmed as harmful: that does not show that none is."
        )
        return {
            "reader": self.reader,
            "refit": self.refit,
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            **({"caution": self.caution} if self.caution else {}),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_groups": len(self),
            "n_splits": self.n_splits,
            "full_score": self.full_score,
            "n_confirmed": len(confirmed),
            "confirmed": confirmed,
            "verdict": verdict,
        }


def confirm_harmful(
    train: Representation,
    test: Representation,
    *,
    reader: str = "knn",
    groups: GroupsLike | None = None,
    refit: bool | None = None,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    n_splits: int = 20,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> HarmfulDimensions:
    """Find dimensions that hurt a reader, and confirm them on samples that did not choose them.

    Parameters
    ----------
    train, test : Representation
        Labelled splits of the same D dimensions. The reader is fitted on ``train`` alone.
    reader, refit, k, temperature, penalty, device, memory
        As in `ablate`.
    groups : sequence of index arrays, or ndarray of shape (D,) of int, optional
        Dimensions removed together; by default each dimension alone.
    n_splits : int, default=20
        Stratified random halvings of ``test``, >= 1.
    seed : int, default=0
        Draws the halves and the logistic reader's held-out rows.
    progress : callable, optional
        Called as ``progress(done, total)`` during the long part.

    Returns
    -------
    HarmfulDimensions
        q-values, and how often each group was chosen.

    Raises
    ------
    ValueError
        As `ablate`, and if ``n_splits`` is not positive.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    In each half the groups with a one-sided exact McNemar p <= 0.05 for harm are chosen; they are
    tested the same way on the other half and adjusted among themselves [1]_. Both halves choose in
    turn, in ``n_splits`` halvings. A group's p-values (1 where it was not chosen) are aggregated by
    the smallest of their quantiles, adjusted for the choice of the quantile [2]_. The result holds
    for this train split and reader.

    References
    ----------
    .. [1] Benjamini and Hochberg, JRSS B 57, 1995.
    .. [2] Meinshausen, Meier & Buehlmann, JASA 104, 2009.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 200)
    >>> def split():
    ...     noise = rng.normal(size=(400, 6)) * [0.3, 0.3, 2, 2, 2, 2]
    ...     signal = np.outer(2 * labels - 1, [0.5, 0.5, 0, 0, 0, 0])
    ...     return Representation(noise + signal, labels=labels)
    >>> confirm_harmful(split(), split(), groups=[[0, 1], [2, 3, 4, 5]]).confirmed.tolist()
    [1]
    """
    reading = Reading.of(
        reader, refit=refit, k=k, temperature=temperature, penalty=penalty, seed=seed,
        device=device, memory=memory,
    )  # fmt: skip
    if n_splits < 1:
        raise ValueError(f"n_splits must be >= 1; got {n_splits}.")
    _, bank, queries = coded(train, test, "confirm_harmful")
    chosen = None if groups is None else checked_groups(groups, train.n_dimensions)
    n_groups = train.n_dimensions if chosen is None else len(chosen)
    foresee(
        f"confirm_harmful {reading.in_memory}",
        Shapes(len(train), len(test), train.n_dimensions, n_groups, budget=memory),
        device=device if reader == "knn" else "cpu",
    )
    outcomes = reading.outcomes(bank, queries, [chosen], progress)[0]
    right = outcomes.full == queries[1]
    change = right[:, None].astype(np.int8) - (outcomes.ablated == queries[1][:, None])
    q_value, share = split_and_confirm(change, queries[1], np.random.default_rng(seed), n_splits)
    return HarmfulDimensions(
        reader=reader,
        refit=reading.refit,
        full_score=float(right.mean()),
        importance=change.mean(axis=0),
        selected_share=share,
        q_value=q_value,
        groups=tuple(singles(train.n_dimensions) if chosen is None else chosen),
        n_splits=n_splits,
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        basis=basis_of(train),
        sample=sample_of(test),
        caution=caution_of(test, None),
    )


def split_and_confirm(
    change: np.ndarray, truth: np.ndarray, rng: np.random.Generator, n_splits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose on one half, test on the other, both ways and many times.

    Parameters
    ----------
    change : ndarray of shape (N, G), int8
        1: right only with the group; -1: right only without; 0: no difference.
    truth : ndarray of shape (N,), int
        Classes, kept in balance between the halves.
    rng : numpy.random.Generator
        Draws the halves.
    n_splits : int
        Number of halvings.

    Returns
    -------
    q_value, selected_share : ndarray of shape (G,)
        Aggregated q-values, and how often each group was chosen.
    """
    halves = [random_half(truth, rng) for _ in range(n_splits)]
    members = np.stack([side for half in halves for side in (half, ~half)]).astype(np.float32)
    worse = np.rint(members @ (change > 0).astype(np.float32)).astype(np.int64)
    better = np.rint(members @ (change < 0).astype(np.float32)).astype(np.int64)
    p_value = mcnemar_one_sided(better, worse)  # (2 n_splits, G)
    other = np.arange(len(p_value)) ^ 1  # the other half of the same split
    selected = p_value <= _CHOSEN
    tested = np.ones_like(p_value)
    for run, names in enumerate(selected):
        if names.any():
            tested[run, names] = _adjusted(p_value[other[run], names])
    return aggregate_p_values(tested), selected.mean(axis=0)


def _adjusted(p_values: np.ndarray) -> np.ndarray:
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values)
