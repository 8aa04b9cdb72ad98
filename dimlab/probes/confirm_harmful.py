"""Confirmation of harm: chosen on one half of the test samples, tested on the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.cuts import random_half
from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.paired import aggregate_p_values, mcnemar_one_sided, paired_test_one_sided
from dimlab.probes._contributions import difference
from dimlab.probes._importance import SIGNIFICANT
from dimlab.probes._reading import (
    GroupsLike,
    How,
    ReaderLike,
    ReadsGroups,
    Task,
    check_least,
    reads,
)
from dimlab.result import Verdict, column, entries, entry, per, scalar
from dimlab.targets import CLASSES, score_in_words, score_of

NEEDS: tuple[set[str], ...] = ({"labels", "train"},)
_CHOSEN = 0.05  # one-sided p on the half that chooses
_N_NAMED = 12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class HarmfulDimensions(ReadsGroups):
    """Dimensions without which a reader does better, on samples that did not choose them.

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

    NAME = "harmful"
    EFFECT = "importance", "q_aggregated"
    HEADLINE = ("reader", "n_groups", "n_confirmed", "full_score")

    refit: bool = scalar("Whether the reader was fitted again without each group.")

    n_splits: int = scalar("Halvings of test; every one is used both ways.")
    score: str = scalar("What the reader was scored by.", default="accuracy")
    full_score: float = scalar("Score with all dimensions, on all test samples.")

    @column
    def group(self) -> dict[str, Any]:
        """Columns ``group`` and ``dimensions``, which are separated by spaces."""
        return {"group": np.arange(len(self)), "dimensions": self._named()}

    importance: np.ndarray = per(
        "group",
        "Score lost without each group, on all test samples; negative: better without.",
    )
    selected_share: np.ndarray = per(
        "group", "Share, in [0, 1], of the runs whose first half chose the group."
    )
    q_aggregated: np.ndarray = per(
        "group",
        "One-sided q-value from the halves that did not choose, adjusted in each run and "
        "aggregated over runs.",
    )

    @column
    def mark(self) -> dict[str, np.ndarray]:
        """Column ``confirmed``."""
        return {"confirmed": self.q_aggregated <= SIGNIFICANT}

    @entries
    def found(self) -> dict[str, Any]:
        """Entries ``n_confirmed`` and ``confirmed``, lists of dimensions."""
        named = [self.groups[group].tolist() for group in self.confirmed]
        return {"n_confirmed": len(named), "confirmed": named}

    n_test_needed: int = scalar(
        "Where a removal that mended all test samples that are misread would still not be "
        "confirmed: the samples that it takes, at the same share of misread ones. 0 elsewhere.",
        default=0,
    )

    @entry
    def verdict(self) -> str:
        """Whether groups are confirmed, in words."""
        if len(self.confirmed):
            count = len(self.confirmed)
            return f"{count} of {len(self)} confirmed as harmful (q <= {SIGNIFICANT})."
        if self.n_test_needed:
            return (
                f"undecided: at least {self.n_test_needed} samples are needed. Of the "
                f"{self.n_test} test samples {round((1 - self.full_score) * self.n_test)} are "
                "misread, so few that even a removal that mended them all would not be confirmed."
            )
        return f"None of {len(self)} is confirmed as harmful: that does not show that none is."

    @property
    def confirmed(self) -> np.ndarray:
        """Groups with q <= 0.05, smallest q first; (n,) int."""
        order = np.lexsort((self.importance, self.q_aggregated))
        return order[self.q_aggregated[order] <= SIGNIFICANT]


def verdict(harmful: HarmfulDimensions) -> Verdict:
    """Say whether dimensions are harmful."""
    confirmed = [harmful.groups[group].tolist() for group in harmful.confirmed]
    named = ", ".join(" ".join(map(str, group)) for group in confirmed[:_N_NAMED])
    text = (
        f"{len(confirmed)} of {len(harmful)} confirmed ({harmful.reader} reader, "
        f"{score_in_words(harmful.score)} {harmful.full_score:.4f} with all)"
        + (f": {named}." if confirmed else ".")
    )
    undecided = not confirmed and harmful.n_test_needed > 0
    return Verdict(
        "Are dimensions harmful, confirmed on samples that did not choose them?",
        "yes" if confirmed else "undecided" if undecided else "no",
        " ".join(filter(None, [harmful.verdict if undecided else text, harmful.caution])),
        "Yes: the removal of some dimension helps with q <= 0.05 on held-out halves; undecided: so "
        "few samples are misread that none could; else no, which does not show that none is.",
        tuple(sorted({dimension for group in confirmed for dimension in group})),
    )


@reads
def confirm_harmful(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    reader: ReaderLike = "knn",
    groups: GroupsLike | None = None,
    refit: bool | None = None,
    n_splits: int = 20,
    **how: Unpack[How],
) -> HarmfulDimensions:
    """Find dimensions that hurt a reader, and confirm them on samples that did not choose them.

    Parameters
    ----------
    refit : bool, optional
        As in `ablate`.
    n_splits : int, default=20
        Stratified random halvings of ``test``, >= 1.

    Returns
    -------
    HarmfulDimensions
        q-values, and how often each group was chosen.

    Raises
    ------
    ValueError
        As `ablate`, and if ``n_splits`` is not positive.
    MemoryError
        If what must be held does not fit into the memory that is free.

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
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1], 200)
    >>> def split():
    ...     noise = rng.normal(size=(400, 6)) * [0.3, 0.3, 2, 2, 2, 2]
    ...     signal = np.outer(2 * labels - 1, [0.5, 0.5, 0, 0, 0, 0])
    ...     return Representation(noise + signal, labels=labels)
    >>> confirm_harmful(split(), split(), groups=[[0, 1], [2, 3, 4, 5]]).confirmed.tolist()
    [1]
    """
    train, test = as_representations(train=train, test=test).values()
    check_least(1, n_splits=n_splits)
    task = Task.of("confirm_harmful", train, test, reader, refit=refit, groups=groups, **how)
    task = task.holding(36 * len(test) * len(task.groups))
    judged, score = task.test, score_of(None, task.kind)
    right, without = task.judged(score, task.groups)
    change = difference(right[:, None], without)

    def confirmed(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(task.run.seed)  # the same halves each time
        return split_and_confirm(change, judged.strata, rng, n_splits, judged.clusters)

    q_aggregated, share = confirmed(change)
    undecided = False
    if task.kind == CLASSES:
        mended = right[:, None].astype(np.int8) - 1  # by a removal after which nothing is misread
        undecided = confirmed(mended)[0][0] > SIGNIFICANT
    return HarmfulDimensions(
        **task.said,
        refit=task.refit,
        score=score,
        full_score=float(right.mean()),
        importance=change.mean(axis=0),
        selected_share=share,
        q_aggregated=q_aggregated,
        groups=tuple(task.groups),
        n_splits=n_splits,
        n_test_needed=_samples_needed(~right, judged.clusters) if undecided else 0,
    )


def _samples_needed(misread: np.ndarray, clusters: np.ndarray | None) -> int:
    """Find from how many samples on enough are misread to confirm a removal that mends them all."""
    n = len(misread)
    n_misread = int(misread.sum()) if clusters is None else len(np.unique(clusters[misread]))
    # on each side so many that McNemar's p of mending them all, aggregated over runs, is small
    on_a_side = next(
        count for count in range(1, 64)
        if aggregate_p_values(np.full((2, 1), 0.5**count))[0] <= SIGNIFICANT
    )  # fmt: skip
    return max(n + 1, int(np.ceil(n * 2 * on_a_side / max(1, n_misread))))


def split_and_confirm(
    change: np.ndarray,
    truth: np.ndarray,
    rng: np.random.Generator,
    n_splits: int,
    clusters: np.ndarray | None = None,
    *,
    confirm: Callable[..., np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose groups on one half and test them on the other: q-values (G,), share of runs (G,)."""
    # `change` (N, G): 1 where a row is right only with the group, -1 where only without, or what
    # another score loses; halves keep the classes (N,) in balance, and runs go both ways in many
    # halvings. `confirm` gives p-values of rows and their clusters; by default it is the test that
    # chooses. A half may have no row.
    from scipy.stats import false_discovery_control

    halves = [random_half(truth, rng, clusters=clusters) for _ in range(n_splits)]
    members = np.stack([side for half in halves for side in (half, ~half)])
    if clusters is None and change.dtype.kind != "f":
        weights = members.astype(np.float32)
        worse = np.rint(weights @ (change > 0).astype(np.float32)).astype(np.int64)
        better = np.rint(weights @ (change < 0).astype(np.float32)).astype(np.int64)
        p_value = mcnemar_one_sided(better, worse)  # (2 n_splits, G)
    else:
        p_value = np.stack(
            [
                paired_test_one_sided(-change[side], None if clusters is None else clusters[side])
                if side.any()
                else np.ones(change.shape[1])
                for side in members
            ]
        )
    other = np.arange(len(p_value)) ^ 1  # the other half of the same split
    selected = p_value <= _CHOSEN
    tested = np.ones_like(p_value)
    for run, names in enumerate(selected):
        if names.any():
            found = p_value[other[run], names]
            if confirm is not None and members[other[run]].any():
                side = members[other[run]]
                own = None if clusters is None else clusters[side]
                found = confirm(change[side][:, names], own)
            tested[run, names] = false_discovery_control(found)
    return aggregate_p_values(tested), selected.mean(axis=0)
