"""Readers and spectrum of the kept dimensions, fast enough to follow a slider.

Ridge and spectrum are exact: both are made of products of columns, so a mask only chooses a block
of a D x D matrix. Nearest neighbours are voted on twice: at once among candidates, the nearest rows
of the full space, whose similarities under any mask follow in float64; and exactly, in blocks that
can be given up. Each answer depends on the mask alone, never on the masks before it. Everything
is torch's arithmetic: two libraries' threads, taking turns, wait for each other (3 times as long).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dimlab.kernels.blocks import blocks
from dimlab.kernels.downdate import RidgeSystem, first_largest
from dimlab.kernels.neighbours import count_votes, decide, total_votes
from dimlab.kernels.rows import Rows

_BLOCK = 256
_UNITS = 1e10  # similarities are compared to 10 decimals
_SMALL = 1024  # columns up to which more threads do not help a factorisation
_LEAST_KEPT = 1e-3  # share of a row's energy below which kept entries are summed themselves


def masked_ridge(
    system: RidgeSystem, intercept: np.ndarray, columns: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """Predict (N,) with a ridge that is solved again on the kept columns alone."""
    index = np.flatnonzero(kept)
    weights = np.zeros_like(system.weights)
    with _one_thread(len(index)):
        factor = torch.linalg.cholesky(torch.from_numpy(system.matrix[np.ix_(index, index)]))
        solved = torch.cholesky_solve(torch.from_numpy(system.moments[index]), factor)
    weights[index] = solved.numpy()
    logits = (torch.from_numpy(columns) @ torch.from_numpy(weights)).numpy() + intercept
    return first_largest(logits.T)


def masked_singular_values(gram: np.ndarray, kept: np.ndarray, n_rows: int) -> np.ndarray:
    """Singular values of the kept columns, from the products (D, D) of all columns."""
    # Squares below D eps times the largest are 0: the products cannot tell them from it.
    index = np.flatnonzero(kept)
    with _one_thread(len(index)):
        squares = torch.linalg.eigvalsh(torch.from_numpy(gram[np.ix_(index, index)]))
    descending = squares.numpy()[::-1]
    hidden = len(gram) * np.finfo(np.float64).eps * max(float(descending[0]), 0.0)
    return np.sqrt(np.where(descending > hidden, descending, 0.0))[: min(n_rows, len(index))]


@dataclass(frozen=True, eq=False)
class CandidateVotes:
    """Votes among the train rows that are nearest to each test row in some space."""

    test: Tensor  # (B, D) normalised rows
    train: Tensor  # (N, D) normalised rows
    classes: Tensor  # (N,) int64 class index of each train row
    n_classes: int
    k: int
    temperature: float
    candidates: Tensor  # (B, m) int64 train rows that may vote, ascending
    pattern: Tensor  # (B, N) sparse CSR: where the candidates stand; its values are zeros
    dots: Tensor  # (B, m) similarities of all dimensions
    # (B,), (N,) squared norms of the normalised rows: 1, or 0 for a row of zeros
    energies: tuple[Tensor, Tensor]

    @classmethod
    def of(
        cls,
        train_features: np.ndarray,
        codes: np.ndarray,
        test_features: np.ndarray,
        *,
        k: int,
        temperature: float,
        n_candidates: int,
    ) -> CandidateVotes:
        """Find candidates of test rows (B, D) among train rows (N, D) of classes ``codes``."""
        train, test = (
            Rows.of(each, "cpu").unit(slice(None)) for each in (train_features, test_features)
        )
        m = min(len(train), max(k, n_candidates))
        candidates = torch.empty((len(test), m), dtype=torch.int64)  # to be filled by `near`
        whole = cls(
            *(test, train, torch.from_numpy(codes), int(codes.max()) + 1, k, temperature),
            *(candidates, train, train, (_energy(test), _energy(train))),
        )
        return whole.near(np.ones(train.shape[1], dtype=bool), lambda: False) or whole

    def near(self, kept: np.ndarray, cancelled: Callable[[], bool]) -> CandidateVotes | None:
        """Return votes among the rows nearest in the kept dimensions; None where cancelled."""
        index = torch.from_numpy(np.flatnonzero(kept))
        train = torch.nn.functional.normalize(self.train[:, index], dim=1).float()
        candidates = torch.empty_like(self.candidates)
        for part in blocks(len(self.test), _BLOCK):
            if cancelled():
                return None
            similarities = self.test[part][:, index].float() @ train.T  # ranked, not compared
            best = torch.topk(similarities, candidates.shape[1], dim=1).indices
            candidates[part] = best.sort(dim=1).values
        pattern = _pattern(candidates, len(train))
        dots = _products(pattern, self.test, self.train)
        return replace(self, candidates=candidates, pattern=pattern, dots=dots)

    def similarities(self, kept: np.ndarray) -> Tensor:
        """Cosine similarities (B, m) of the kept dimensions, float64; 0 to a row of zeros."""
        # What is removed is subtracted where that is less to sum and enough is left of every row.
        if 2 * kept.sum() > len(kept):
            removed, *energies = self._sums(~kept)
            q, x = (whole - lost for whole, lost in zip(self.energies, energies, strict=True))
            if min(_least(q, self.energies[0]), _least(x, self.energies[1])) >= _LEAST_KEPT:
                return self._cosines(self.dots - removed, q, x)
        return self._cosines(*self._sums(kept))

    def predict(self, kept: np.ndarray) -> np.ndarray:
        """Return the class index (B,) that the k best candidates vote for."""
        scores = self.similarities(kept).mul_(_UNITS).round_()
        m = scores.shape[1]
        # Candidates ascend: the position makes keys unique and prefers the lower row of equal ones.
        keys = scores * (1 << (m - 1).bit_length()) + torch.arange(m - 1, -1, -1)
        chosen = torch.topk(keys, self.k, dim=1).indices
        totals = count_votes(
            self.classes[self.candidates.gather(1, chosen)],
            scores.gather(1, chosen) / _UNITS,
            n_classes=self.n_classes,
            temperature=self.temperature,
        )
        return decide(totals).numpy()

    def _sums(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Sum products and squares over some dimensions: (B, m), (B,), (N,)."""
        index = torch.from_numpy(np.flatnonzero(chosen))
        test, train = self.test[:, index], self.train[:, index]
        return _products(self.pattern, test, train), _energy(test), _energy(train)

    def _cosines(self, dots: Tensor, query: Tensor, row: Tensor) -> Tensor:
        norms = (query.unsqueeze(1) * row[self.candidates]).sqrt_()
        return torch.where(norms > 0, dots / norms, 0.0)


def exact_votes(
    train_features: np.ndarray,
    codes: np.ndarray,
    test_features: np.ndarray,
    *,
    k: int,
    temperature: float,
    cancelled: Callable[[], bool],
) -> np.ndarray | None:
    """Predict (B,) by exact nearest neighbours; None where cancelled between blocks."""
    train, test = Rows.of(train_features, "cpu"), Rows.of(test_features, "cpu")
    classes, n_classes = torch.from_numpy(codes), int(codes.max()) + 1
    votes = total_votes(train, test, classes, k=k, n_classes=n_classes, temperature=temperature)
    predicted: list[np.ndarray] = []
    while sum(map(len, predicted)) < len(test):
        if cancelled():
            return None
        predicted.append(decide(next(votes)).numpy())
    return np.concatenate(predicted)


@contextmanager
def _one_thread(n_columns: int) -> Iterator[None]:
    """Factorise a matrix this small with one thread."""
    # Two threads are no faster and meet so often that, on a busy machine, each meeting waits for
    # the scheduler: seconds instead of 12 ms.
    before = torch.get_num_threads()
    if n_columns <= _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pattern(candidates: Tensor, n_train: int) -> Tensor:
    n_test, m = candidates.shape
    with warnings.catch_warnings():  # torch calls its sparse rows a beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.arange(0, n_test * m + 1, m),
            candidates.reshape(-1),
            torch.zeros(n_test * m, dtype=torch.float64),
            size=(n_test, n_train),
            check_invariants=False,
        )


def _products(pattern: Tensor, test: Tensor, train: Tensor) -> Tensor:
    """Products of each test row (B, d) with its candidates among the train rows (N, d): (B, m)."""
    if test.shape[1] == 0:
        return pattern.values().view(len(test), -1).clone()
    found = torch.sparse.sampled_addmm(pattern, test, train.T, beta=0.0)
    return found.values().view(len(test), -1)


def _energy(rows: Tensor) -> Tensor:
    return torch.linalg.vecdot(rows, rows)


def _least(left: Tensor, whole: Tensor) -> float:
    """Smallest share that is left of any row that is not zero."""
    some = left[whole > 0]
    return float(some.min()) if len(some) else 1.0
