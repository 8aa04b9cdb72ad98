"""Nearest neighbours by cosine similarity, which vote."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dimlab.readers.base import Named, Outcomes, places
from dimlab.refusals import Refusal

_LONG = 10.0  # seconds from which on the time of a search is foretold


@dataclass(eq=False)
class KNN(Named):
    """A vote of the k nearest train rows by cosine similarity.

    Parameters
    ----------
    k : int, default=5
        Number of neighbours that vote, 1 <= k <= N_train.
    temperature : float, default=1.0
        > 0. Each neighbour votes ``exp((s - s_max) / temperature)``.
    run : Run, optional
        Device, memory and seed; a probe sets them from its own arguments.

    Raises
    ------
    ValueError
        If the temperature is not positive.

    Notes
    -----
    Similarities of the float64 casts are compared after rounding to 10 decimals; equal ones are
    taken in order of train row; a row of zeros has similarity 0 to everything. Votes are compared
    after rounding to 10 decimals of the largest, and the lower class id wins.

    References
    ----------
    Wu, Xiong, Yu and Lin, "Unsupervised feature learning via non-parametric instance
    discrimination", CVPR 2018, for votes weighted by similarity.

    Examples
    --------
    >>> reader = KNN(k=1).fit(np.eye(2), np.array([3, 8]))
    >>> reader.classify(np.array([[0.1, 1.0]]))
    array([8])
    >>> reader.predict(np.array([[0.1, 1.0]])).shape
    (1, 2)
    >>> without = reader.predict_without(np.eye(2), [np.array([1])], target=np.array([3, 8]))
    >>> without.full.tolist(), without.ablated.tolist()
    ([0, 1], [[0], [0]])
    """

    SETTINGS: ClassVar = ("k", "temperature")
    FREEZES: ClassVar = False  # it has no weights
    name: ClassVar = "knn"

    k: int = 5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise Refusal(f"temperature must be > 0; got {self.temperature:g}.")

    def _fit(self, features: np.ndarray, codes: np.ndarray) -> None:
        """Prepare the train rows."""
        from dimlab.kernels.rows import Rows

        check_k(self.k, len(features))
        self._bank = Rows.of(features, self.run.device)

    def _scores(self, features: np.ndarray) -> np.ndarray:
        """Return the logarithm (N, K) of each class's share of votes, smoothed after Laplace."""
        # of another target, the mean of the neighbours that votes weigh, (N, T)
        if len(self.classes) == 0:
            return self._values_without(features, [np.array([], dtype=np.int64)])[:, 0]
        totals = np.concatenate([each.cpu().numpy() for each in self._totals(features)])
        shares = np.round(totals / totals.max(axis=1, keepdims=True), 10)
        shares /= shares.sum(axis=1, keepdims=True)
        smoothed: np.ndarray = np.log((shares * self.k + 1) / (self.k + len(self.classes)))
        return smoothed

    def _without(
        self, features: np.ndarray, groups: list[np.ndarray], truth: np.ndarray
    ) -> Outcomes:
        """Let the neighbours without each group vote; exactly what brute force gives."""
        import torch

        from dimlab.kernels.neighbours import find_with_and_without, vote
        from dimlab.kernels.rows import Rows

        bank, queries = self._bank, Rows.of(features, self.run.device)
        n_rows, n_groups, n_classes = len(queries), len(groups), len(self.classes)
        codes = torch.from_numpy(self._train[1]).to(bank.device)
        own = torch.from_numpy(truth).to(bank.device)
        predicted = places((n_rows, 1 + n_groups), n_classes)
        loss = np.empty(predicted.shape)
        n_certified, began = 0, time.perf_counter()
        search = find_with_and_without(bank, queries, groups, k=self.k, memory=self.run.memory)
        for blocks in search:
            rows = slice(blocks[0].start, blocks[0].stop)
            if 0 < rows.start == rows.stop - rows.start:  # the first block prepares the bank too
                self._foretell(time.perf_counter() - began, rows.start, n_rows, n_groups)
            began = time.perf_counter() if rows.start == 0 else began
            for place, found in zip((slice(0, 1), slice(1, None)), blocks, strict=False):
                winners, share = vote(
                    codes[found.rows],
                    found.similarities,
                    own[rows],
                    n_classes=n_classes,
                    temperature=self.temperature,
                )
                predicted[rows, place] = winners.cpu().numpy()
                share_of_k = share.cpu().numpy() * self.k
                loss[rows, place] = -np.log((share_of_k + 1) / (self.k + n_classes))
            n_certified += blocks[-1].n_certified
            if self.run.progress is not None:
                self.run.progress(rows.stop, n_rows)
        certified = float(n_certified / (n_rows * n_groups)) if groups else None
        return Outcomes(predicted[:, 0], predicted[:, 1:], loss[:, 0], loss[:, 1:], certified)

    def _values_without(self, features: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
        """Average the targets of the neighbours without each group, weighted by their votes."""
        import torch

        from dimlab.kernels.neighbours import find_neighbours, weighted_mean
        from dimlab.kernels.rows import Groups, Rows

        bank, queries = self._bank, Rows.of(features, self.run.device)
        values = torch.from_numpy(self._train[1]).to(bank.device, torch.float64)
        found = np.empty((len(queries), len(groups), values.shape[1]))
        parts = Groups.of(groups, bank.n_dimensions, bank.device)
        for block in find_neighbours(bank, queries, parts, k=self.k, memory=self.run.memory):
            means = weighted_mean(
                values, block.rows, block.similarities, temperature=self.temperature
            )
            found[block.start : block.stop] = means.cpu().numpy()
        return found

    def _totals(self, features: np.ndarray) -> Iterator[Any]:
        """Give the summed votes (B, K) of blocks of rows, a tensor."""
        import torch

        from dimlab.kernels.neighbours import total_votes
        from dimlab.kernels.rows import Rows

        return total_votes(
            self._bank,
            Rows.of(features, self.run.device),
            torch.from_numpy(self._train[1]).to(self._bank.device),
            k=self.k,
            n_classes=len(self.classes),
            temperature=self.temperature,
            memory=self.run.memory,
        )

    def _foretell(self, seconds: float, n_done: int, n_rows: int, n_groups: int) -> None:
        """Say on stderr what a long search will take, judged by its second block."""
        whole = seconds / n_done * n_rows
        if whole >= _LONG:
            print(
                f"kNN, {n_rows:,} test x {len(self._bank):,} train rows without each of "
                f"{n_groups:,} groups: about {whole:.0f} s.",
                file=sys.stderr,
            )


def check_k(k: int, n_rows: int) -> None:
    """Refuse a number of neighbours outside 1 .. n_rows."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_rows:
        raise Refusal(f"k must be an integer in 1..{n_rows}, the number of train rows; got {k}.")
