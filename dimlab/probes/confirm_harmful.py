"""Confirmation of harm: chosen on one half of the test samples, tested on the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike
from dimlab.cuts import random_half
from dimlab.kernels.paired import aggregate_p_values, mcnemar_one_sided, paired_test_one_sided
from dimlab.probes._reading import (
    GroupsLike,
    ReaderLike,
    Reading,
    Rows,
    basis_of,
    checked_groups,
    coded,
    documented,
    said_of_rows,
)
from dimlab.readers.base import Progress
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
    q_aggregated : ndarray of shape (G,)
        One-sided, from the halves that did not choose, adjusted in each run and aggregated over
        runs.
    groups : tuple of ndarray of shape (n,), int
        Dimensions of each of the G groups.
    n_splits, n_train, n_test, n_dimensions : int
        Sizes; every split is used both ways.
    n_test_needed : int
        Where a removal that mended all test samples that are misread would still not be confirmed:
        the samples that it takes, at the same share of misread ones. 0 elsewhere.
    basis : str
        Basis that the dimensions belong to.
    sample : str
        Which part of the test split was used; empty: all of it.
    clusters : mapping of str to int
        ``n_clusters`` and the size of the ``largest``, of test rows; empty: rows are independent.
    caution : str
        What keeps the scores from meaning what they usually do; empty: nothing.

    References
    ----------
    Those of `confirm_harmful`, which finds them.

    Examples
    --------
    >>> found = HarmfulDimensions(
    ...     reader="knn", refit=True, full_score=0.8, importance=np.array([0.1, -0.05]),
    ...     selected_share=np.array([0.0, 1.0]), q_aggregated=np.array([1.0, 0.01]),
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
    q_aggregated: np.ndarray
    groups: tuple[np.ndarray, ...]
    n_splits: int
    n_train: int
    n_test: int
    n_dimensions: int
    n_test_needed: int = 0
    basis: str = "axes"
    sample: str = ""
    clusters: Mapping[str, int] = field(default_factory=dict)
    caution: str = ""

    def __len__(self) -> int:
        return len(self.q_aggregated)

    @property
    def confirmed(self) -> np.ndarray:
        """Groups with q <= 0.05, smallest q first; (n,) int."""
        order = np.lexsort((self.importance, self.q_aggregated))
        return order[self.q_aggregated[order] <= _SIGNIFICANT]

    def to_frame(self) -> Any:
        """Return one row a group.

        Returns
        -------
        pandas.DataFrame
            ``group``, ``dimensions`` (separated by spaces), ``importance``, ``selected_share``,
            ``q_aggregated``, ``confirmed``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "group": np.arange(len(self)),
                "dimensions": [" ".join(map(str, group.tolist())) for group in self.groups],
                "importance": self.importance,
                "selected_share": self.selected_share,
                "q_aggregated": self.q_aggregated,
                "confirmed": self.q_aggregated <= _SIGNIFICANT,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done, sizes, ``full_score``, ``n_confirmed``, ``confirmed`` (lists of
            dimensions), ``n_test_needed`` (0 where there are enough) and a ``verdict`` in words.
        """
        confirmed = [self.groups[group].tolist() for group in self.confirmed]
        if confirmed:
            verdict = f"{len(confirmed)} of {len(self)} confirmed as harmful (q <= {_SIGNIFICANT})."
        elif self.n_test_needed:
            verdict = (
                f"undecided: at least {self.n_test_needed} samples are needed. Of the "
                f"{self.n_test} test samples {round((1 - self.full_score) * self.n_test)} are "
                "misread, so few that even a removal that mended them all would not be confirmed."
            )
        else:
            verdict = (
                f"None of {len(self)} is confirmed as harmful: that does not show that none is."
            )
        return {
            "reader": self.reader,
            "refit": self.refit,
            "basis": self.basis,
            **said_of_rows(self),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_groups": len(self),
            "n_splits": self.n_splits,
            "full_score": self.full_score,
            "n_confirmed": len(confirmed),
            "confirmed": confirmed,
            "n_test_needed": self.n_test_needed,
            "verdict": verdict,
        }


@documented
def confirm_harmful(
    train: Representation,
    test: Representation,
    *,
    reader: ReaderLike = "knn",
    groups: GroupsLike | None = None,
    refit: bool | None = None,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    clusters: ClustersLike = None,
    n_splits: int = 20,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> HarmfulDimensions:
    """Find dimensions that hurt a reader, and confirm them on samples that did not choose them.

    Parameters
    ----------
    refit : bool, optional
        As in `ablate`.
    n_splits : int, default=20
        Stratified random halvings of ``test``, >= 1.
    seed : int, default=0
        Draws the halves and the logistic reader's held-out rows.

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
    for this train split and reader. With clusters, halves hold whole clusters and the test flips
    the signs of whole clusters.

    Only a sample that is misread can be mended, so few misread samples can confirm nothing. Where a
    removal that mended them all would not reach 0.05 on the same halves, the verdict is undecided.
    It takes 14 misread samples at least: 7 on a side have p = 2^-7, which the adjustment for the
    choice of the quantile multiplies by 4.

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
    chosen = checked_groups(groups, train.n_dimensions)
    reading = reading.within("confirm_harmful", train, 36 * len(test) * len(chosen))
    rows = Rows.of(train, test, clusters)
    outcomes = reading.outcomes(bank, queries, chosen, progress)
    right = outcomes.full == queries[1]
    change = right[:, None].astype(np.int8) - (outcomes.ablated == queries[1][:, None])
    halves = (queries[1], np.random.default_rng(seed), n_splits, rows.test)
    q_aggregated, share = split_and_confirm(change, *halves)
    # the same halves, and a removal after which nothing is misread
    halves = (queries[1], np.random.default_rng(seed), n_splits, rows.test)
    best, _ = split_and_confirm(right[:, None].astype(np.int8) - 1, *halves)
    return HarmfulDimensions(
        reader=reading.name,
        refit=reading.refit,
        full_score=float(right.mean()),
        importance=change.mean(axis=0),
        selected_share=share,
        q_aggregated=q_aggregated,
        groups=tuple(chosen),
        n_splits=n_splits,
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        n_test_needed=0 if best[0] <= _SIGNIFICANT else _samples_needed(~right, rows.test),
        basis=basis_of(train),
        **rows.said,
    )


def _samples_needed(misread: np.ndarray, clusters: np.ndarray | None) -> int:
    """Find from how many samples on enough are misread to confirm a removal that mends them all."""
    n = len(misread)
    n_misread = int(misread.sum()) if clusters is None else len(np.unique(clusters[misread]))
    # on each side so many that McNemar's p of mending them all, aggregated over runs, is small
    on_a_side = next(
        count for count in range(1, 64)
        if aggregate_p_values(np.full((2, 1), 0.5**count))[0] <= _SIGNIFICANT
    )  # fmt: skip
    return max(n + 1, int(np.ceil(n * 2 * on_a_side / max(1, n_misread))))


def split_and_confirm(
    change: np.ndarray,
    truth: np.ndarray,
    rng: np.random.Generator,
    n_splits: int,
    clusters: np.ndarray | None = None,
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
    clusters : ndarray of shape (N,), int, optional
        Rows that belong together.

    Returns
    -------
    q_aggregated, selected_share : ndarray of shape (G,)
        Aggregated q-values, and how often each group was chosen.
    """
    halves = [random_half(truth, rng, clusters=clusters) for _ in range(n_splits)]
    members = np.stack([side for half in halves for side in (half, ~half)])
    if clusters is None:
        weights = members.astype(np.float32)
        worse = np.rint(weights @ (change > 0).astype(np.float32)).astype(np.int64)
        better = np.rint(weights @ (change < 0).astype(np.float32)).astype(np.int64)
        p_value = mcnemar_one_sided(better, worse)  # (2 n_splits, G)
    else:
        p_value = np.stack(
            [paired_test_one_sided(-change[side], clusters[side]) for side in members]
        )
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
