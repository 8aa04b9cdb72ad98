"""What readers and spectrum are under a mask that changes often."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dimlab.kernels.downdate import refuse_ill_conditioned
from dimlab.kernels.masking import (
    CandidateVotes,
    exact_votes,
    masked_ridge,
    masked_singular_values,
)
from dimlab.kernels.spectra import entropy_rank
from dimlab.probes._reading import coded
from dimlab.readers import KNN, Ridge
from dimlab.readers.base import Run
from dimlab.readers.knn import check_k
from dimlab.refusals import Refusal
from dimlab.representation import Representation

_N_CANDIDATES = 64
_PRODUCTS = 10_000 * _N_CANDIDATES * 512  # what a step may cost; more test rows than that: a sample


@dataclass(frozen=True, eq=False)
class MaskState:
    """What readers and spectrum are on the kept dimensions."""

    kept: np.ndarray  # (D,) bool
    ridge_accuracy: float  # on test, fitted again on the kept dimensions
    ridge_per_class: np.ndarray  # (K,) within each class; NaN for a class that test lacks
    knn_accuracy: float  # of votes among candidates only: an approximation of `Explorer.exact_knn`
    n_knn_rows: int  # test rows that it is judged on
    singular_values: np.ndarray  # (min(N, d),) of the kept test features, not centred, descending
    effective_rank: float  # exponential of the entropy of their shares; NaN where all are 0


class Explorer:
    """Accuracies and spectrum under a mask that changes often; what `explore` shows."""

    def __init__(
        self,
        train: Representation,
        test: Representation,
        *,
        k: int = 5,
        temperature: float = 1.0,
        penalty: float = 1e-3,
        n_candidates: int = _N_CANDIDATES,
        seed: int = 0,
    ) -> None:
        self.classes, self._bank, self._queries = coded(train, test, "explore")
        check_k(k, len(train))
        KNN(k, temperature)  # refuses a temperature
        self.train, self.test = train, test
        self.k, self.temperature, self.penalty = k, temperature, penalty
        run = Run(precision=train.precision)
        self._ridge = Ridge(penalty, run=run).fit(self._bank.features, self._bank.target)
        refuse_ill_conditioned(self._ridge.system, penalty)
        self._columns = self._ridge.standardise(test.features)
        self._scale = float(np.abs(test.features).max()) or 1.0  # squares cannot overflow
        rows = test.features.astype(np.float64) / self._scale
        self._gram = rows.T @ rows
        self._rows = self._sample(n_candidates, np.random.default_rng(seed))
        self._votes = self._candidates(n_candidates)
        self.kept = np.ones(train.n_dimensions, dtype=bool)

    @property
    def removed(self) -> np.ndarray:
        """Dimensions that are removed, ascending."""
        return np.flatnonzero(~self.kept)

    def remove(self, dimensions: Iterable[int] | np.ndarray) -> None:
        """Remove these dimensions, not all of them, and keep all others."""
        self.kept = self.checked(dimensions)

    def checked(self, dimensions: Iterable[int] | np.ndarray) -> np.ndarray:
        """Return which dimensions are kept without these, (D,) bool, or raise as `remove` does."""
        index = np.asarray(list(dimensions))
        if index.size and (index.ndim != 1 or index.dtype.kind not in "iu"):
            raise Refusal(f"removed must be a list of dimensions; got {index.tolist()!r}.")
        index = index.astype(np.int64)
        outside = index[(index < 0) | (index >= self.train.n_dimensions)]
        if len(outside):
            raise Refusal(f"removed must lie in [0, {self.train.n_dimensions}); got {outside[0]}.")
        kept = np.ones(self.train.n_dimensions, dtype=bool)
        kept[index] = False
        if not kept.any():
            raise Refusal(
                f"removed must leave at least one dimension; got all {self.train.n_dimensions}."
            )
        return kept

    def state(self) -> MaskState:
        """Return ridge and spectrum of the kept dimensions, as if computed anew, and kNN."""
        kept, truth = self.kept, self._queries[1]
        read = masked_ridge(self._ridge.system, self._ridge.intercept, self._columns, kept)
        counts = np.bincount(truth, minlength=len(self.classes))
        right = np.bincount(truth[read == truth], minlength=len(self.classes))
        per_class = np.divide(right, counts, out=np.full(len(counts), np.nan), where=counts > 0)
        values = self._scale * masked_singular_values(self._gram, kept, len(truth))
        return MaskState(
            kept=kept,
            ridge_accuracy=float((read == truth).mean()),
            ridge_per_class=per_class,
            knn_accuracy=float((self._votes.predict(kept) == truth[self._rows]).mean()),
            n_knn_rows=len(self._votes.candidates),
            singular_values=values,
            effective_rank=entropy_rank(values) if values[0] > 0 else float("nan"),
        )

    def exact_knn(self, cancelled: Callable[[], bool] = lambda: False) -> float | None:
        """Return the exact kNN accuracy on the kept dimensions, or None where cancelled."""
        kept, (queries, truth, _) = self.kept, self._queries
        read = exact_votes(
            self._bank[0][:, kept],
            self._bank[1],
            queries[:, kept],
            k=self.k,
            temperature=self.temperature,
            cancelled=cancelled,
        )
        return None if read is None else float((read == truth).mean())

    def choose_candidates(
        self, cancelled: Callable[[], bool] = lambda: False
    ) -> CandidateVotes | None:
        """Return candidates by the kept dimensions, for `use_candidates`; None where cancelled."""
        # candidates that were near in removed dimensions would still carry what those knew
        return self._votes.near(self.kept, cancelled)

    def use_candidates(self, chosen: CandidateVotes) -> None:
        """Judge kNN by these candidates from now on."""
        self._votes = chosen

    def _sample(self, n_candidates: int, rng: np.random.Generator) -> np.ndarray:
        n_test, n_dimensions = self.test.features.shape
        n_candidates = min(max(n_candidates, self.k), len(self.train))
        n_rows = max(1, _PRODUCTS // (n_candidates * n_dimensions))
        if n_rows >= n_test:
            return np.arange(n_test)
        return np.sort(rng.choice(n_test, n_rows, replace=False))

    def _candidates(self, n_candidates: int) -> CandidateVotes:
        if n_candidates < self.k:
            raise Refusal(f"n_candidates must be >= k, which is {self.k}; got {n_candidates}.")
        return CandidateVotes.of(
            *self._bank[:2],
            self._queries[0][self._rows],
            k=self.k,
            temperature=self.temperature,
            n_candidates=n_candidates,
        )
