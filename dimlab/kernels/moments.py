"""Means and centred sums of products of rows: accumulated in blocks, mergeable, in float64.

Every sum is taken around its own block's mean and merged by the update of Chan, Golub and LeVeque
("Algorithms for computing the sample variance", The American Statistician 37, 1983), so data far
from zero lose no digits. Rows are dealt to a few *blocks* at random, by their number alone: leaving
one block out at a time gives the jackknife's intervals, whatever the batches were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from dimlab.devices import check_device
from dimlab.kernels.rounding import eps_of, stored_precision
from dimlab.refusals import Refusal, WrongType

# Counts (B,), means (B, V, D), sums of squared deviations (B, V, D) and of their products (B, D, D)
Arrays: TypeAlias = "tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]"

LARGEST = 1e140  # of an entry: float64 holds sums of its squares
_CHUNK = 1 << 24  # elements worked on together: 128 MB in float64
_DEALT = 4096  # rows that are dealt to the blocks together
_ROUNDING = 1e-11  # of a sum of squares: a difference that is no larger is rounding
_TILE = 256  # columns that fit a processor's cache


def accumulate(
    source: Any,
    *,
    n_blocks: int,
    seed: int,
    first_row: int,
    clusters: np.ndarray | None,
    device: str,
    precision: str | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Arrays, str]:
    """Add up the moments of rows, a chunk at a time; also return the precision of the rows."""
    total = _length(source)
    sums: _Sums | None = None
    row = first_row
    dealt = None if clusters is None else deal_clusters(clusters, n_blocks, seed)
    for views in _chunks(source):
        if sums is None:
            sums = _Sums(n_blocks, len(views), views[0].shape[1], device, precision)
        start, n_rows = row - first_row, len(views[0])
        if dealt is None:
            blocks = deal(row, n_rows, n_blocks, seed)
        else:
            blocks = dealt[start : start + n_rows]
        if len(blocks) < n_rows:
            raise Refusal("clusters must have one id a row; got fewer than there are rows.")
        sums.add(views, blocks, start)
        row += n_rows
        if progress is not None:
            progress(row - first_row, total)
    if sums is None:
        raise Refusal("source must hold at least one row; got none.")
    if dealt is not None and row - first_row < len(dealt):
        raise Refusal(
            f"clusters must have one id a row; got {len(dealt)} for {row - first_row} rows."
        )
    return sums.arrays(), sums.precision_found


def whole_of(arrays: Arrays) -> Arrays:
    """Merge the blocks into one."""
    counts, means, squares, scatters = arrays
    n = int(counts.sum())
    mean = np.einsum("b,bvd->vd", counts / n, means)
    deviations = means - mean  # (B, V, D)
    square = squares.sum(axis=0)
    square += np.einsum("b,bvd->vd", counts.astype(np.float64), deviations**2)
    scatter = scatters.sum(axis=0)
    scatter += (deviations[:, 0].T * counts) @ deviations[:, -1]
    return np.array([n]), mean[None], square[None], scatter[None]


def without_each(arrays: Arrays, whole: Arrays) -> Iterator[Arrays]:
    """Subtract each block that has rows from the whole (Efron and Stein, 1981)."""
    n, whole_mean, whole_squares, whole_scatter = (each[0] for each in whole)
    for count, mean, squares, scatter in zip(*arrays, strict=True):
        if count == 0:
            continue
        rest = n - int(count)
        kept_mean = (n * whole_mean - count * mean) / rest
        gap = mean - kept_mean
        shared = count * rest / n
        kept_scatter = whole_scatter - scatter
        kept_scatter -= np.outer(shared * gap[0], gap[-1])
        kept_squares = whole_squares - squares - shared * gap**2
        # what varies in this block alone does not vary without it: the rest is rounding
        gone = kept_squares <= _ROUNDING * whole_squares
        kept_squares[gone] = 0.0
        kept_scatter[gone[0]] = 0.0
        kept_scatter[:, gone[-1]] = 0.0
        yield np.array([rest]), kept_mean[None], kept_squares[None], kept_scatter[None]


def merged(states: Sequence[Arrays]) -> Arrays:
    """Merge moments of different rows, block by block."""
    counts = np.stack([each[0] for each in states])  # (S, B)
    n = counts.sum(axis=0)
    weights = counts / np.maximum(n, 1)
    means = sum(w[:, None, None] * each[1] for w, each in zip(weights, states, strict=True))
    squares, scatters = np.zeros_like(states[0][2]), np.zeros_like(states[0][3])
    for own_counts, own_means, own_squares, own_scatters in states:
        gap = own_means - means
        squares += own_squares + own_counts[:, None, None] * gap**2
        scatters += own_scatters
        scatters += np.einsum("b,bi,bj->bij", own_counts, gap[:, 0], gap[:, -1])
    return n, np.asarray(means), squares, scatters


def deal(first_row: int, n_rows: int, n_blocks: int, seed: int) -> np.ndarray:
    """Deal rows to blocks, (n_rows,): at random, evenly, and by the row's number alone."""
    hands = []
    for hand in range(first_row // _DEALT, -(-(first_row + n_rows) // _DEALT)):
        rng = np.random.default_rng([seed, hand])
        hands.append(rng.permutation(np.arange(_DEALT) % n_blocks))
    start = first_row % _DEALT
    return np.concatenate(hands)[start : start + n_rows]


def deal_clusters(clusters: np.ndarray, n_blocks: int, seed: int) -> np.ndarray:
    """Deal whole clusters (ids from 0) to blocks, (N,): at random, and evenly."""
    n_clusters = int(clusters.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(n_clusters) % n_blocks)[clusters]


class _Sums:
    """Running sums of all blocks, updated in place."""

    def __init__(
        self, n_blocks: int, n_views: int, n_dimensions: int, device: str, precision: str | None
    ) -> None:
        self.precision = precision
        self._found: str | None = None  # in the values so far: the finest type of all chunks
        self.counts = np.zeros(n_blocks, dtype=np.int64)
        self.means = np.zeros((n_blocks, n_views, n_dimensions))
        self.squares = np.zeros_like(self.means)
        kind = _Blas if device == "cpu" else _Torch
        self.products = kind((n_blocks, n_dimensions, n_dimensions), n_views == 1, device)

    def add(self, views: tuple[np.ndarray, ...], blocks: np.ndarray, row: int) -> None:
        if self.precision is None and (self._found is None or self._found != views[0].dtype.name):
            for view in views:
                found = stored_precision(view)
                self._found = min(self._found or found, found, key=eps_of)
        order = np.argsort(blocks, kind="stable")
        bounds = np.searchsorted(blocks[order], np.arange(len(self.counts) + 1))
        for block in range(len(self.counts)):
            rows = order[bounds[block] : bounds[block + 1]]
            if len(rows) == 0:
                continue
            whole = len(self.counts) == 1
            parts = [np.array(view if whole else view[rows], dtype=np.float64) for view in views]
            self._add_to(block, parts, rows + row)

    def _add_to(self, block: int, parts: list[np.ndarray], rows: np.ndarray) -> None:
        n, m = len(rows), int(self.counts[block])
        # from the first row on: what does not vary is exactly 0, what lies far from 0 loses nothing
        means = np.stack([part[0] for part in parts])
        for part, mean in zip(parts, means, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                part -= mean
                shift = part.mean(axis=0)
            if not np.isfinite(shift).all() or np.abs(mean + shift).max() > LARGEST:
                _refuse(part + mean, rows)
            part -= shift
            mean += shift
        gap = means - self.means[block]
        shared = n * m / (n + m)
        self.products.add(block, parts)
        if m:
            self.products.add_outer(block, gap, shared)
        self.squares[block] += np.stack([np.einsum("nd,nd->d", p, p) for p in parts])
        self.squares[block] += shared * gap**2
        self.means[block] += gap * (n / (n + m))
        self.counts[block] += n

    def arrays(self) -> Arrays:
        return self.counts, self.means, self.squares, self.products.finished()

    @property
    def precision_found(self) -> str:
        return self.precision or self._found or "float64"


class _Blas:
    """Products on the CPU, added in place; symmetric ones take half the work."""

    def __init__(self, shape: tuple[int, int, int], within: bool, device: str) -> None:
        self.scatters, self.within = np.zeros(shape), within

    def add(self, block: int, parts: list[np.ndarray]) -> None:
        from scipy.linalg.blas import dgemm, dsyrk

        # transposed, row-major arrays are what BLAS reads and writes without a copy; the upper
        # triangle of the transpose is the lower one of the block
        target = self.scatters[block].T
        if self.within:
            dsyrk(1.0, parts[0].T, beta=1.0, c=target, overwrite_c=1)
        else:
            a, b = parts
            dgemm(1.0, b.T, a.T, beta=1.0, c=target, trans_b=1, overwrite_c=1)

    def add_outer(self, block: int, gap: np.ndarray, weight: float) -> None:
        from scipy.linalg.blas import dger, dsyr

        target = self.scatters[block].T
        if self.within:
            dsyr(weight, gap[0], a=target, overwrite_a=1)
        else:
            dger(weight, gap[1], gap[0], a=target, overwrite_x=0, overwrite_y=0, overwrite_a=1)

    def finished(self) -> np.ndarray:
        if self.within:
            for scatter in self.scatters:
                _mirror(scatter)
        return self.scatters


def _mirror(matrix: np.ndarray) -> None:
    """Copy the lower triangle to the upper one, a few columns at a time."""
    n = len(matrix)
    for start in range(0, n, _TILE):
        stop = min(start + _TILE, n)
        corner = matrix[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T


class _Torch:
    """Products on any device of torch."""

    def __init__(self, shape: tuple[int, int, int], within: bool, device: str) -> None:
        import torch

        check_device(device)
        self.torch, self.device, self.within = torch, torch.device(device), within
        self.scatters = torch.zeros(shape, dtype=torch.float64, device=self.device)

    def add(self, block: int, parts: list[np.ndarray]) -> None:
        a, *others = (self.torch.from_numpy(part).to(self.device) for part in parts)
        self.scatters[block].addmm_(a.T, others[0] if others else a)

    def add_outer(self, block: int, gap: np.ndarray, weight: float) -> None:
        rows = self.torch.from_numpy(gap).to(self.device)
        self.scatters[block].addr_(rows[0], rows[-1], alpha=weight)

    def finished(self) -> np.ndarray:
        if self.within:
            self.scatters = (self.scatters + self.scatters.mT) / 2
        return self.scatters.cpu().numpy()


def _refuse(part: np.ndarray, rows: np.ndarray) -> None:
    bad = np.argwhere(~(np.abs(part) <= LARGEST))
    if len(bad) == 0:
        raise Refusal(
            f"features must be at most {LARGEST:g} in size; got values that sum to more. Divide "
            "them by a constant."
        )
    row, dimension = bad[0]
    value = part[row, dimension]
    if np.isfinite(value):
        raise Refusal(
            f"features must be at most {LARGEST:g} in size; got {value:g} in dimension "
            f"{dimension}, row {rows[row]}. Divide them by a constant."
        )
    raise Refusal(
        f"features must be finite; got {value} in dimension {dimension}, row {rows[row]}."
    )


def _length(source: Any) -> int:
    array = source[0] if isinstance(source, tuple) and source else source
    return len(array) if hasattr(array, "shape") else 0


def _chunks(source: Any) -> Iterator[tuple[np.ndarray, ...]]:
    """Chunks of one length, whatever the batches: views (1 or 2 arrays of shape (n, D))."""
    if isinstance(source, tuple) and len(source) not in (1, 2):
        raise Refusal(f"source must be one array, or two views; got {len(source)}.")
    whole = hasattr(source, "shape") or isinstance(source, tuple)
    if whole:
        source = [source]
    elif not isinstance(source, Iterable):
        raise WrongType(f"source must be rows or an iterable of them; got {type(source).__name__}.")
    waiting: list[tuple[np.ndarray, ...]] = []
    n_waiting, shape = 0, None
    for batch in source:
        views = tuple(_rows(each) for each in (batch if isinstance(batch, tuple) else (batch,)))
        if shape is None:
            shape = (len(views), views[0].shape[1])
            size = max(_DEALT, _CHUNK // views[0].shape[1])
        _check_batch(views, shape)
        start = 0
        while start < len(views[0]):
            stop = min(len(views[0]), start + size - n_waiting)
            pieces = (view[start:stop] for view in views)
            # a stream may fill the same buffer again
            waiting.append(tuple(pieces if whole else map(np.array, pieces)))
            n_waiting += stop - start
            start = stop
            if n_waiting == size:
                yield _joined(waiting)
                waiting, n_waiting = [], 0
    if n_waiting:
        yield _joined(waiting)


def _check_batch(views: tuple[np.ndarray, ...], shape: tuple[int, int]) -> None:
    if len(views) != shape[0] or len(views) > 2:
        raise Refusal(
            f"batches must all hold one array, or two views; got {len(views)} after {shape[0]}."
        )
    for view in views:
        if view.shape != (len(views[0]), shape[1]):
            raise Refusal(
                f"batches must have shape ({len(views[0])}, {shape[1]}); got {view.shape}."
            )


def _joined(pieces: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    if len(pieces) == 1:
        return pieces[0]
    return tuple(np.concatenate(each) for each in zip(*pieces, strict=True))


def _rows(batch: Any) -> np.ndarray:
    array = batch
    if hasattr(batch, "detach"):
        array = batch.detach()
        array = array.float() if array.is_floating_point() and array.element_size() < 4 else array
        array = array.cpu().numpy()
    array = np.asanyarray(array)
    if array.ndim != 2 or array.shape[1] == 0:
        raise Refusal(f"rows must have shape (n, D) with D >= 1; got {array.shape}.")
    if array.dtype.kind != "f":
        raise WrongType(f"rows must be floating; got {array.dtype}.")
    return array
