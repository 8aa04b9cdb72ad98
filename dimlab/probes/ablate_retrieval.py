"""Ablation of retrieval: what queries find in a corpus without each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike, cluster_ids
from dimlab.devices import check_budget, check_device, hold
from dimlab.given import RepresentationLike, as_representation
from dimlab.kernels.means import StudentisedMeans
from dimlab.probes._arguments import documented
from dimlab.probes._importance import SIGNIFICANT, Decided, Importance, tested_fields
from dimlab.probes._reading import (
    GroupsLike,
    OfSample,
    basis_of,
    check_least,
    checked_groups,
    sample_of,
)
from dimlab.probes._retrieval import (
    Retrieval,
    checked_pairs,
    harm,
    points_of,
    truncated,
)
from dimlab.probes.confirm_harmful import split_and_confirm
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Verdict, column, detail, entries, entry, per, scalar

NEEDS: tuple[set[str], ...] = (set(),)

RelevanceLike = Any  # whole numbers (n, 2) or (n, 3)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RetrievalAblation(Decided, OfSample):
    """What queries no longer find in a corpus without each dimension, or each group of them.

    References
    ----------
    Those of `ablate_retrieval`, which measures it.

    Examples
    --------
    >>> corpus = np.array([[1.0, 0.1], [-1.0, 0.1], [0.9, -0.2], [-0.9, -0.2]])
    >>> found = ablate_retrieval(corpus, corpus[:2], [[0, 2], [1, 3]], score="recall@2")
    >>> found.full_score, found.scores.tolist(), found.importance.tolist()
    (1.0, [0.0, 1.0], [1.0, 0.0])
    >>> found.needed.tolist(), found.harmful.tolist(), found.undecided.tolist()
    ([], [], [1, 0])
    >>> found.confirmed.tolist(), len(found)
    ([], 2)
    >>> found.truncation()[["order", "n_kept", "score"]].head(4).values.tolist()
    [['importance', 1, 1.0], ['importance', 2, 1.0], ['first', 1, 1.0], ['first', 2, 1.0]]
    """

    EFFECT = "importance", "q_value"
    HEADLINE = ("score", "full_score", "n_queries", "n_needed", "n_harmful", "n_confirmed")
    TABLES = (("truncation", "truncation"),)
    DIMENSIONS = (
        ("retrieval_importance", "importance", "lost in retrieval without it"),
        ("retrieval_low", "ci_low", "95 % interval of that, low"),
        ("retrieval_high", "ci_high", "95 % interval of that, high"),
        ("retrieval_q", "q_value", "q-value of the importance in retrieval"),
    )

    score: str = scalar("What a ranking is scored by.")
    full_score: float = scalar("Mean score of the queries with all dimensions, in [0, 1].")
    n_corpus: int = scalar("Corpus rows.")
    n_queries: int = scalar("Queries that some corpus row is relevant to; the others are left out.")
    n_left_out: int = scalar("Queries that no corpus row is relevant to.")
    n_relevant: int = scalar("Pairs of a query and a corpus row that is relevant to it.")
    n_dimensions: int = scalar("D, the number of dimensions.")
    groups: tuple[np.ndarray, ...] = detail(
        "Dimensions of each of the G groups, each an array of shape (n,)."
    )

    @entry
    def n_groups(self) -> int:
        """G, the number of groups."""
        return len(self.groups)

    @column
    def group(self) -> dict[str, Any]:
        """Columns ``group`` and ``dimension``; ``dimensions`` where some group has several."""
        if all(len(group) == 1 for group in self.groups):
            named: dict[str, Any] = {"dimension": np.concatenate(self.groups)}
        else:
            named = {"dimensions": [" ".join(map(str, each.tolist())) for each in self.groups]}
        return {"group": np.arange(len(self)), **named}

    scores: np.ndarray = per("group", "Mean score without each group.", column="score")
    importance: np.ndarray = per(
        "group",
        "What is lost without the group, `full_score - scores`: positive, it is needed; negative, "
        "more is found without it.",
    )
    ci_low: np.ndarray = per(
        "group", "Lower end of the 95 % interval of the importance over queries, given the corpus."
    )
    ci_high: np.ndarray = per("group", "Upper end of that interval.")
    p_value: np.ndarray = per("group", "Two-sided p-value of the importance.")
    q_value: np.ndarray = per(
        "group", "The same, adjusted after Benjamini and Hochberg over the groups of this call."
    )
    fcr_low: np.ndarray = per(
        "group",
        "Lower end of an interval of level 1 - 0.05 R / G beside the R groups with q <= 0.05, "
        "which allows for their selection; NaN for the other groups.",
    )
    fcr_high: np.ndarray = per("group", "Upper end of that interval.")
    unreliable: np.ndarray = per(
        "group",
        "Whether fewer than 20 queries (or clusters) change their score or the changes have a "
        "skewness beyond 3, so that interval and p-value are rough.",
    )
    q_aggregated: np.ndarray = per(
        "group",
        "One-sided q-value of harm on halves of the queries that did not choose the group.",
    )
    selected_share: np.ndarray = per(
        "group", "Share, in [0, 1], of the halves that chose the group as harmful."
    )
    can_confirm: bool = detail(
        "Whether harm could be confirmed at all: whether enough queries miss something."
    )
    orders: np.ndarray = detail("How dimensions are chosen at each truncation, (P,) text.")
    n_kept: np.ndarray = detail("How many dimensions are kept there, (P,) int.")
    kept_score: np.ndarray = detail("Mean score there, (P,).")
    loss: np.ndarray = detail("What is lost there against all dimensions, (P,).")
    loss_low: np.ndarray = detail("Lower end of its 95 % interval over queries, (P,).")
    loss_high: np.ndarray = detail("Upper end of it, (P,).")
    margin: float = scalar("Largest loss that counts as none.")

    @entry
    def n_needed(self) -> int:
        """Groups with q <= 0.05 and positive importance."""
        return len(self.needed)

    @entry
    def n_harmful(self) -> int:
        """Groups with q <= 0.05 and negative importance."""
        return len(self.harmful)

    @entry
    def n_confirmed(self) -> int:
        """Groups whose harm is confirmed on held-out queries."""
        return len(self.confirmed)

    @entries
    def named(self) -> dict[str, Any]:
        """Dimensions of up to ten groups: most needed, most harmful, and those confirmed."""
        found = {"most_needed": self.needed, "most_harmful": self.harmful}
        found |= {"confirmed": self.confirmed}
        return {name: self._dimensions_of(each) for name, each in found.items()}

    @entry
    def enough(self) -> dict[str, int]:
        """Fewest dimensions kept from which on the loss lies within the margin, by order."""
        # from all dimensions downwards, until the first loss that may exceed the margin
        found: dict[str, int] = {}
        for name in dict.fromkeys(self.orders.tolist()):
            own = self.orders == name
            beyond = self.loss_high[own] > self.margin
            found[name] = int(self.n_kept[own][np.flatnonzero(beyond).max(initial=-1) + 1])
        return found

    certified_share: float | None = scalar(
        "Share of (query, group) pairs settled without a look beyond the candidates.", default=None
    )

    @property
    def confirmed(self) -> np.ndarray:
        """Groups whose harm held-out queries confirm (q <= 0.05), most harmful first; (n,) int."""
        return self._in_order(1, self.q_aggregated <= SIGNIFICANT)

    def truncation(self) -> Any:
        """Return the scores of the first dimensions of each order, and what they lose.

        Returns
        -------
        pandas.DataFrame or None
            Columns ``order``, ``n_kept``, ``score``, ``loss``, ``loss_low``, ``loss_high``; None
            where nothing was truncated.
        """
        import pandas as pd

        if len(self.orders) == 0:
            return None
        columns = {"order": self.orders, "n_kept": self.n_kept, "score": self.kept_score}
        return pd.DataFrame(
            columns | {"loss": self.loss, "loss_low": self.loss_low, "loss_high": self.loss_high}
        )

    def __len__(self) -> int:
        return len(self.groups)


def verdict(found: RetrievalAblation) -> Verdict:
    """Say whether dimensions harm retrieval."""
    dimensions = sorted({int(d) for group in found.confirmed for d in found.groups[group]})
    answer = "yes" if dimensions else "no" if found.can_confirm else "undecided"
    text = (
        f"{len(found.confirmed)} of {len(found)} confirmed ({found.score} {found.full_score:.4f} "
        f"with all, {found.n_queries} queries)."
    )
    if answer == "undecided":
        text = (
            f"So few of the {found.n_queries} queries miss something that even a removal that "
            "mended them all would not be confirmed."
        )
    return Verdict(
        "Do dimensions harm retrieval, confirmed on queries that did not choose them?",
        answer,
        " ".join(filter(None, [text, found.caution])),
        "Yes: more is found without some dimension, with q <= 0.05 on held-out halves of the "
        "queries; undecided: too few queries miss something; else no, which does not show that "
        "none does.",
        tuple(dimensions),
    )


@documented
def ablate_retrieval(
    corpus: RepresentationLike,
    queries: RepresentationLike,
    relevance: RelevanceLike,
    *,
    score: str = "ndcg@10",
    groups: GroupsLike | None = None,
    truncate: Sequence[int] | None = None,
    margin: float = 0.01,
    n_splits: int = 20,
    n_random: int = 5,
    n_bootstrap: int = 1000,
    clusters: ClustersLike = None,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> RetrievalAblation:
    """Score the retrieval of relevant corpus rows without each dimension, or each group of them.

    Parameters
    ----------
    corpus : Representation, or array
        What is searched: features (N, D) of any array type.
    queries : Representation, or array
        What is searched for: features (Q, D) of the same dimensions.
    relevance : ndarray of shape (n, 2) or (n, 3), int
        One row a judged pair: query row, corpus row and grade (1 if absent). Pairs that are not
        listed, or have a grade of 0 or less, are not relevant.
    score : str, default="ndcg@10"
        ``ndcg@k``, ``recall@k`` or ``mrr@k`` with any k >= 1: of the k corpus rows of largest
        cosine similarity.
    truncate : sequence of int, optional
        How many dimensions to keep on the curves of truncation; powers of two by default. An empty
        sequence leaves the curves out.
    margin : float, default=0.01
        In (0, 1): the largest loss of the score that counts as none for ``enough``.
    n_splits : int, default=20
        Random halvings of the queries that confirm harm, >= 1.
    n_random : int, default=5
        Random orders of truncation to average over, >= 1.
    n_bootstrap : int, default=1000
        Bootstrap samples of the queries, >= 1; fewer than 199 leave Student's t.
    clusters : str or ndarray of shape (Q,), optional
        Queries that belong together: a factor's name, or one value a query. By default queries are
        independent.

    Returns
    -------
    RetrievalAblation
        Scores, importance, intervals, p- and q-values of each group, confirmed harm, and curves of
        truncation.

    Raises
    ------
    ValueError
        If corpus and queries differ in D or in their basis, relevance is no such array or names
        rows that are not there, nothing is relevant, a pair has two grades, the score is unknown, a
        number is out of its range, a group is empty or out of range, ``memory`` is too little, or
        the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    A group leaves corpus and queries, and both are normalised again; a row that becomes all zero
    has similarity 0 to everything. Similarities are compared in float64 after rounding to 10
    decimals, and equal ones are taken in order of corpus row (trec_eval takes the larger document
    id first). One search serves all groups: a bound says for each query and group whether a row
    outside the candidates could enter the first k. The result is exactly that of brute force.

    nDCG [1]_: gain is the grade, the discount log2(1 + rank), and the ideal is over all relevant
    rows of the corpus, cut at k. Recall: share of the relevant rows among the first k. MRR: one
    over the rank of the first relevant row; 0 beyond k. Queries without a relevant row are left
    out and counted.

    Intervals are bootstrap-t over queries, no shorter than Student's t, and p-values those that
    they invert [2]_; both hold for this corpus. Harm is chosen on one half of the queries and
    tested on the other, in ``n_splits`` halvings both ways, as `confirm_harmful` does.

    Truncation keeps the dimensions of largest importance, as measured on the half of the queries
    that is not scored; the ``first`` ones, as for representations trained to be truncated [3]_; the
    leading principal axes of the corpus (``pca``, not centred); or ``random`` ones. ``enough`` is
    the fewest that may be kept: down from all, until the first loss whose upper bound exceeds the
    margin. Where groups are given, no order follows the importance.

    References
    ----------
    .. [1] Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20,
       2002.
    .. [2] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    .. [3] Kusupati et al., "Matryoshka representation learning", NeurIPS 2022.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> topics = rng.normal(size=(200, 3))
    >>> def encode(noise):  # three dimensions of meaning, and a fourth of noise
    ...     return np.column_stack([topics + 0.1 * rng.normal(size=topics.shape), noise])
    >>> corpus, queries = encode(np.zeros(200)), encode(2 * rng.normal(size=200))
    >>> same = np.column_stack([np.arange(200), np.arange(200)])
    >>> found = ablate_retrieval(corpus, queries, same, score="mrr@10")
    >>> sorted(found.needed.tolist()), found.summary()["enough"]["first"]
    ([0, 1, 2], 4)
    """
    corpus, queries = as_representation(corpus, "corpus"), as_representation(queries, "queries")
    _check_same_space(corpus, queries)
    check_budget(memory)
    check_device(device)
    pairs = checked_pairs(relevance, len(queries), len(corpus))
    how = {"device": device, "memory": memory, "progress": progress}
    task, judged = Retrieval.of(corpus.features, queries.features, pairs, score, **how)
    check_least(1, n_splits=n_splits, n_random=n_random, n_bootstrap=n_bootstrap)
    if not 0 < margin < 1:
        raise Refusal(f"margin must lie in (0, 1); got {margin:g}.")
    removed = checked_groups(groups, corpus.n_dimensions)
    points = points_of(truncate, corpus.n_dimensions)
    ids = cluster_ids(queries, clusters)  # type: ignore[arg-type]
    ids = None if ids is None else ids[judged]
    n, n_dimensions = corpus.shape
    hold(
        40 * len(judged) * (1 + len(removed)) + 16 * n * n_dimensions * (len(points) > 0),
        "ablate_retrieval",
        f"{len(judged)} queries and {n} corpus rows of {n_dimensions} dimensions",
        "Pass fewer queries (--max-queries).",
        memory=memory,
    )
    scores, certified = task.scores(removed)
    full = scores[:, 0]
    lost = full[:, None] - scores[:, 1:]
    rng = np.random.default_rng(seed)
    importance = Importance.of_means(lost, ids, rng, n_bootstrap)

    def confirmed(lost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        draws = np.random.default_rng([seed, 26])  # the same halves each time
        test = partial(harm, rng=draws, n_draws=n_bootstrap)
        together = np.zeros(len(lost), dtype=np.int64)
        return split_and_confirm(lost, together, draws, n_splits, ids, confirm=test)

    q_aggregated, share = confirmed(lost)
    by_importance = lost if groups is None else None
    curves = truncated(
        task, by_importance, full, points, seed=seed, n_random=n_random, clusters=ids
    )
    best = confirmed(full[:, None] - 1)[0]  # all missed things are found
    return RetrievalAblation(
        basis=basis_of(corpus),
        sample=sample_of(queries),
        score=score.lower(),
        full_score=float(full.mean()),
        n_corpus=n,
        n_queries=len(judged),
        n_left_out=len(queries) - len(judged),
        n_relevant=int((pairs[:, 2] > 0).sum()),
        n_dimensions=n_dimensions,
        groups=tuple(removed),
        scores=scores[:, 1:].mean(axis=0),
        **tested_fields(importance),
        unreliable=importance.unreliable,
        q_aggregated=q_aggregated,
        selected_share=share,
        can_confirm=bool(best[0] <= SIGNIFICANT),
        margin=margin,
        certified_share=certified,
        **_curves(curves, full, points, ids, rng, n_bootstrap),
    )


def _check_same_space(corpus: Representation, queries: Representation) -> None:
    if corpus.n_dimensions != queries.n_dimensions:
        raise Refusal(
            f"queries must have {corpus.n_dimensions} dimensions to match corpus; got "
            f"{queries.n_dimensions}."
        )
    bases = basis_of(corpus), basis_of(queries)
    if bases[0] != bases[1]:
        raise Refusal(
            f"queries must be in the basis of corpus, {bases[0]}; got {bases[1]}. Apply the same "
            "Basis to both."
        )


def _curves(
    curves: dict[str, np.ndarray], full: np.ndarray, points: np.ndarray,
    clusters: np.ndarray | None, rng: np.random.Generator, n_bootstrap: int,
) -> dict[str, Any]:  # fmt: skip
    """Compare the scores (Q, P) at each truncation, by order, with those of all dimensions."""
    kept = np.concatenate([np.empty((len(full), 0)), *curves.values()], axis=1)
    n_kept = np.tile(points, len(curves))
    lost = full[:, None] - kept
    # where most is lost, queries that lose nothing are the rare ones, and many draws have none
    most = 2 * lost.mean(axis=0) > full.mean()
    low, high = np.zeros((2, len(n_kept)))
    for chosen, n_draws in ((most, 0), (~most & (n_kept < points.max(initial=0)), n_bootstrap)):
        if chosen.any():
            means = StudentisedMeans.of(lost[:, chosen], clusters, rng, n_draws)
            low[chosen], high[chosen] = means.interval()
    return {
        "orders": np.repeat(np.array(list(curves), dtype=np.str_), len(points)),
        "n_kept": n_kept,
        "kept_score": kept.mean(axis=0),
        "loss": lost.mean(axis=0),
        "loss_low": low,
        "loss_high": high,
    }
