"""Retrieval: rankings without groups of dimensions, harm on held-out queries, truncation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dimlab.cuts import random_half
from dimlab.kernels.means import StudentisedMeans
from dimlab.kernels.ranking import MEASURES, Judgements
from dimlab.kernels.spectra import principal_axes
from dimlab.processes import shared
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal

_DECIMALS = 10  # of importances that put dimensions in order


def measure_named(score: str) -> tuple[str, int]:
    """Return the measure and the k of a score such as ``ndcg@10``."""
    found = re.fullmatch(rf"({'|'.join(MEASURES)})@([1-9]\d{{0,8}})", str(score).lower())
    if found is None:
        known = ", ".join(f"'{each}@10'" for each in MEASURES)
        raise Refusal(f"score must be one of {known}, with any number >= 1; got {score!r}.")
    return found[1], int(found[2])


def checked_pairs(relevance: Any, n_queries: int, n_rows: int) -> np.ndarray:
    """Return different pairs (P, 3) of query row, corpus row and grade."""
    pairs = np.asarray(relevance)
    if pairs.ndim != 2 or pairs.shape[1] not in (2, 3) or pairs.dtype.kind not in "iu":
        raise Refusal(
            "relevance must be whole numbers of shape (n, 2) or (n, 3): query row, corpus row and "
            f"grade; got {pairs.dtype} of shape {pairs.shape}."
        )
    pairs = pairs.astype(np.int64)
    if pairs.shape[1] == 2:
        pairs = np.column_stack([pairs, np.ones(len(pairs), dtype=np.int64)])
    for column, (name, size) in enumerate((("query", n_queries), ("corpus", n_rows))):
        rows = pairs[:, column]
        if len(rows) and (rows.min() < 0 or rows.max() >= size):
            raise Refusal(
                f"relevance must name {name} rows in [0, {size}); got {rows.min()}..{rows.max()}."
            )
    pairs = np.unique(pairs, axis=0)
    same = (np.diff(pairs[:, :2], axis=0) == 0).all(axis=1)
    if same.any():
        query, row, _ = pairs[:-1][same][0]
        raise Refusal(
            f"relevance must grade each pair once; got two grades for query row {query} and "
            f"corpus row {row}."
        )
    if not (pairs[:, 2] > 0).any():
        raise Refusal("relevance must hold at least one pair of a grade > 0; got none.")
    return pairs


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Queries that something is relevant to, the corpus, and how rankings are scored."""

    corpus: np.ndarray  # (N, D)
    queries: np.ndarray  # (Q, D)
    judgements: Judgements
    measure: str
    device: str
    memory: float | None
    progress: Progress | None

    @classmethod
    def of(
        cls, corpus: np.ndarray, queries: np.ndarray, pairs: np.ndarray, score: str, **how: Any
    ) -> tuple[Retrieval, np.ndarray]:
        """Take the queries with a relevant row; also return which those are, (Q,) int."""
        measure, k = measure_named(score)
        judged, query = np.unique(pairs[pairs[:, 2] > 0, 0], return_inverse=True)
        row, grade = pairs[pairs[:, 2] > 0, 1:].T
        judgements = Judgements.of(
            query.reshape(-1), row, grade, n_queries=len(judged), n_rows=len(corpus),
            k=min(k, len(corpus)),
        )  # fmt: skip
        return cls(corpus, queries[judged], judgements, measure, **how), judged

    def scores(
        self, groups: Sequence[np.ndarray], rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, float | None]:
        """Score queries with all dimensions and without each group, (Q, 1 + G); share certified."""
        from dimlab.kernels.neighbours import find_with_and_without
        from dimlab.kernels.rows import Rows

        rows = np.arange(len(self.queries)) if rows is None else rows
        bank = Rows.of(self.corpus, self.device)

        def scored(share: slice) -> list[np.ndarray]:
            own = rows[share]
            asked = Rows.of(self.queries[own], self.device)
            found = np.empty((len(own), 1 + len(groups)))
            n_certified = np.zeros(len(own), dtype=np.int64)  # of a block, at its first row
            for blocks in find_with_and_without(
                bank, asked, groups, k=self.judgements.k, memory=self.memory
            ):
                part = slice(blocks[0].start, blocks[0].stop)
                for place, block in zip((slice(0, 1), slice(1, None)), blocks, strict=False):
                    ranked = block.rows.cpu().numpy()
                    found[part, place] = self.judgements.score(self.measure, own[part], ranked)
                n_certified[part.start] = blocks[-1].n_certified
                if self.progress is not None:
                    self.progress(part.stop, len(own))
            return [found, n_certified]

        found, n_certified = shared(len(rows), scored)
        certified = int(n_certified.sum()) / (len(rows) * len(groups)) if len(groups) else None
        return found, certified

    def with_columns(
        self, columns: np.ndarray, rows: np.ndarray | None = None, *, rotated: Any = None
    ) -> np.ndarray:
        """Score queries by some dimensions alone, or by some directions of ``rotated``; (Q,)."""
        corpus, queries = (self.corpus, self.queries) if rotated is None else rotated
        kept = replace(self, corpus=corpus[:, columns], queries=queries[:, columns], progress=None)
        return kept.scores([], rows)[0][:, 0]


def harm(
    lost: np.ndarray, clusters: np.ndarray | None, *, rng: np.random.Generator, n_draws: int
) -> np.ndarray:
    """One-sided p-values (G,) that queries lose (N, G) less than nothing on average."""
    means = StudentisedMeans.of(lost, clusters, rng, n_draws)
    return np.where(means.mean < 0, means.p_value / 2, 1.0)


def points_of(truncate: Sequence[int] | None, n_dimensions: int) -> np.ndarray:
    """Return how many dimensions are kept at each point, ascending; all of them come last."""
    if truncate is None:
        powers = 2 ** np.arange(n_dimensions.bit_length())
        chosen = powers[(64 * powers >= n_dimensions) & (powers < n_dimensions)]
        return np.append(chosen, n_dimensions)
    given = np.asarray(truncate)
    if len(given) == 0:
        return np.zeros(0, dtype=np.int64)
    if given.dtype.kind not in "iu" or given.min() < 1 or given.max() > n_dimensions:
        raise Refusal(f"truncate must be whole numbers in 1..{n_dimensions}; got {list(truncate)}.")
    return np.unique(np.append(given, n_dimensions))


def truncated(
    task: Retrieval, lost: np.ndarray | None, full: np.ndarray, points: np.ndarray, *, seed: int,
    n_random: int, clusters: np.ndarray | None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Score (Q, P) when only so many dimensions are kept, by each way to choose them."""
    # The order by importance comes from the half of the queries that it does not rank for.
    n_queries, n_dimensions = len(full), task.corpus.shape[1]
    if len(points) == 0:
        return {}
    rng = np.random.default_rng([seed, 64])
    everything = np.arange(n_queries)
    ways: dict[str, list[tuple[np.ndarray, np.ndarray, Any]]] = {}
    if lost is not None and n_queries > 1:
        half = random_half(np.zeros(n_queries, dtype=np.int64), rng, clusters=clusters)
        ways["importance"] = [
            (np.argsort(-lost[~side].mean(axis=0).round(_DECIMALS), kind="stable"),
             np.flatnonzero(side), None)
            for side in (half, ~half)
            if side.any() and not side.all()
        ]  # fmt: skip
    first = np.arange(n_dimensions)
    ways["first"] = [(first, everything, None)]
    axes = principal_axes(task.corpus - task.corpus.mean(axis=0, dtype=np.float64))[1]
    rotated = tuple(each.astype(np.float64) @ axes for each in (task.corpus, task.queries))
    ways["pca"] = [(first, everything, rotated)]
    ways["random"] = [(rng.permutation(n_dimensions), everything, None) for _ in range(n_random)]
    found = {}
    for name, orders in ways.items():
        total = np.zeros((n_queries, len(points)))
        n_orders = np.zeros((n_queries, 1))
        for order, rows, turned in orders:
            for place, count in enumerate(points):
                whole = count == n_dimensions
                total[rows, place] += (
                    full[rows]
                    if whole
                    else task.with_columns(np.sort(order[:count]), rows, rotated=turned)
                )
            n_orders[rows] += 1
        found[name] = total / n_orders
    return found
