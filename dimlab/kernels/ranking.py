"""Measures of rankings, from the grades of their first k rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MEASURES = ("ndcg", "recall", "mrr")


@dataclass(frozen=True, eq=False)
class Judgements:
    """Grades of pairs of a query and a corpus row; a row that is not judged has grade 0."""

    keys: np.ndarray  # (P,) int64, ascending: query times corpus rows, plus row
    grades: np.ndarray  # (P,) float64, positive
    n_rows: int  # of the corpus
    n_relevant: np.ndarray  # (Q,) int64 rows of a positive grade, of each query
    ideal: np.ndarray  # (Q,) discounted gain of the best ranking, cut at k
    k: int

    @classmethod
    def of(
        cls, query: np.ndarray, row: np.ndarray, grade: np.ndarray, *, n_queries: int, n_rows: int,
        k: int,
    ) -> Judgements:  # fmt: skip
        """Sort pairs (P,), which differ, and rank each query's grades as well as can be."""
        kept = grade > 0
        query, row, grade = query[kept], row[kept], grade[kept].astype(np.float64)
        n_relevant = np.bincount(query, minlength=n_queries)
        best = np.lexsort((-grade, query))
        place = np.arange(len(query)) - (np.cumsum(n_relevant) - n_relevant)[query[best]]
        gains = np.zeros((n_queries, k))
        first = place < k
        gains[query[best][first], place[first]] = grade[best][first]
        keys = query.astype(np.int64) * n_rows + row
        order = np.argsort(keys)
        ideal = _discounted(gains)
        return cls(keys[order], grade[order], n_rows, n_relevant, ideal, k)

    def grades_of(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Grades (B, G, k) of the rows that are ranked for each query (B,)."""
        keys = query[:, None, None] * self.n_rows + rows
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.grades[place], 0.0)

    def score(self, measure: str, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Score (B, G) of the k rows (B, G, k) that are ranked first, for queries with an ideal."""
        grades = self.grades_of(query, rows)
        if measure == "ndcg":
            return _discounted(grades) / self.ideal[query, None]
        if measure == "recall":
            return np.count_nonzero(grades, axis=-1) / self.n_relevant[query, None]
        first = (grades > 0).argmax(axis=-1)
        found = np.take_along_axis(grades, first[..., None], axis=-1)[..., 0] > 0
        return np.where(found, 1 / (1.0 + first), 0.0)


def _discounted(gains: np.ndarray) -> np.ndarray:
    """Sum gains (..., k) divided by log2(1 + rank), rank by rank: equal rankings, equal sums."""
    total = np.zeros(gains.shape[:-1])
    for rank in range(gains.shape[-1]):
        total += gains[..., rank] / np.log2(rank + 2)
    return total
