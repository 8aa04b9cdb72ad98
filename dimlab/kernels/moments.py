"""Means and centred sums of products of rows: accumulated in blocks, mergeable, in float64.

Every sum is taken around its own block's mean and merged by the update of Chan, Golub and LeVeque,
so data far from zero lose no digits. Rows are dealt to a few *blocks* at random, by their number
alone: leaving one block out at a time gives the jackknife's intervals, whatever the batches were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.atomic import replacing
from dimlab.containers import map_safetensors, write_safetensors
from dimlab.devices import check_device
from dimlab.kernels.rounding import PRECISIONS, coarser, eps_of, stored_precision

FORMAT = "dimlab-moments-1"
N_BLOCKS = 20
_CHUNK = 1 << 24  # elements worked on together: 128 MB in float64
_DEALT = 4096  # rows that are dealt to the blocks together
_LARGEST = 1e140  # of an entry: float64 holds sums of its squares
_ROUNDING = 1e-11  # of a sum of squares: what less a difference is nothing
_MOST_ROWS = 1 << 48  # in a state that is read: float64 counts them exactly
_STORED = {"counts": "int64", "means": "float64", "squares": "float64", "scatters": "float64"}
_TILE = 256  # columns that fit a processor's cache

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of rows, or of pairs of rows that are two views of one sample.

    Build it with ``Moments.of``; states of other rows ``merge``; ``save`` and ``load`` keep one.

    Parameters
    ----------
    counts : ndarray of shape (B,), int64
        Rows in each block.
    means : ndarray of shape (B, V, D), float64
        Means; V = 1, or 2 for pairs.
    squares : ndarray of shape (B, V, D), float64
        Sums of squared deviations from the block's mean.
    scatters : ndarray of shape (B, D, D), float64
        Sums of products of deviations; for pairs of the first view's (rows) with the second's.
    meta : mapping of str to str, optional
        What is known of the rows, as ``basis``.
    precision : {"float16", "bfloat16", "float32", "float64"}, default="float64"
        Floating type that the rows were rounded to: thresholds of rounding follow it.

    Raises
    ------
    ValueError
        If a shape does not fit the means, or V is neither 1 nor 2.

    References
    ----------
    .. [1] Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American
       Statistician 37, 1983.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 1.0]])
    >>> moments = Moments.of(rows, n_blocks=3)
    >>> moments.n, moments.n_dimensions, moments.n_blocks, moments.has_views
    (3, 2, 3, False)
    >>> moments.mean.tolist(), moments.covariance.round(2).tolist()
    ([[3.0, 1.0]], [[2.67, 0.67], [0.67, 0.67]])
    >>> sum(moments.n - rest.n for rest in moments.without_each())  # each row is left out once
    3
    >>> Moments.of(rows.astype(np.float32), precision="float32").eps
    1.1920928955078125e-07
    """

    counts: np.ndarray
    means: np.ndarray
    squares: np.ndarray
    scatters: np.ndarray
    meta: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float64"

    def __post_init__(self) -> None:
        if self.means.ndim != 3:
            raise ValueError(f"means must have shape (B, V, D); got {self.means.shape}.")
        n_blocks, n_views, n_dimensions = self.means.shape
        expected = {
            "counts": (n_blocks,),
            "squares": (n_blocks, n_views, n_dimensions),
            "scatters": (n_blocks, n_dimensions, n_dimensions),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} must have shape {shape} to match means; got {found}.")
        if n_views not in (1, 2):
            raise ValueError(f"means must have shape (B, V, D) with V of 1 or 2; got V={n_views}.")

    @classmethod
    def of(
        cls,
        source: Any,
        *,
        n_blocks: int = N_BLOCKS,
        seed: int = 0,
        first_row: int = 0,
        clusters: np.ndarray | None = None,
        device: str = "cpu",
        precision: str | None = None,
        progress: Progress | None = None,
    ) -> Moments:
        """Accumulate the moments of rows, never holding more than a chunk of them.

        Parameters
        ----------
        source : ndarray, Tensor, tuple of two of them, or iterable of either
            Rows (N, D), memory-mapped or not; a tuple of two arrays is two views of the same
            samples. An iterable gives batches of rows, or of pairs, of any sizes.
        n_blocks : int, default=20
            B, blocks that the rows are dealt to, >= 1. The state takes 8 B D^2 bytes.
        seed : int, default=0
            Deals the rows.
        first_row : int, default=0
            Number of the first row, where the source is a part of more: small parts that all begin
            at 0 have their rows in the same few blocks.
        clusters : ndarray of shape (N,), int, optional
            Cluster of each row, from 0: rows of one cluster go to one block. By default every row
            is dealt by itself.
        device : str, default="cpu"
            Where the products are taken.
        precision : {"float16", "bfloat16", "float32", "float64"}, optional
            What the rows were rounded to; by default it is read off the values.
        progress : callable, optional
            Called with (rows done, rows in all; 0 where that is not known).

        Returns
        -------
        Moments
            The same to rounding for any division into batches.

        Raises
        ------
        ValueError
            If there are no rows, shapes differ, a value is NaN, infinite or beyond 1e140 in size,
            ``n_blocks`` < 1, there is not one cluster id a row, or the device is not there.
        TypeError
            If the rows are not floating.

        Examples
        --------
        >>> rows = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 1.0]])
        >>> whole, streamed = Moments.of(rows), Moments.of(iter([rows[:1], rows[1:]]))
        >>> whole.mean[0].tolist(), np.allclose(whole.covariance, streamed.covariance)
        ([3.0, 1.0], True)
        """
        if n_blocks < 1:
            raise ValueError(f"n_blocks must be >= 1; got {n_blocks}.")
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
                raise ValueError("clusters must have one id a row; got fewer than there are rows.")
            sums.add(views, blocks, start)
            row += n_rows
            if progress is not None:
                progress(row - first_row, total)
        if sums is None:
            raise ValueError("source must hold at least one row; got none.")
        if dealt is not None and row - first_row < len(dealt):
            raise ValueError(
                f"clusters must have one id a row; got {len(dealt)} for {row - first_row} rows."
            )
        return sums.moments()

    @classmethod
    def empty(cls, n_blocks: int, n_views: int, n_dimensions: int) -> Moments:
        """Moments of no rows, which others merge with.

        Parameters
        ----------
        n_blocks, n_views, n_dimensions : int
            B, V (1, or 2 for pairs) and D.

        Returns
        -------
        Moments
            All zero.

        Raises
        ------
        ValueError
            If V is neither 1 nor 2.

        Examples
        --------
        >>> rows = Moments.of(np.array([[1.0, 0.0], [3.0, 2.0]]), n_blocks=4)
        >>> Moments.empty(4, 1, 2).merge(rows).mean
        array([[2., 1.]])
        """
        means = np.zeros((n_blocks, n_views, n_dimensions))
        scatters = np.zeros((n_blocks, n_dimensions, n_dimensions))
        return cls(np.zeros(n_blocks, dtype=np.int64), means, np.zeros_like(means), scatters)

    @property
    def n(self) -> int:
        """Number of rows, or of pairs."""
        return int(self.counts.sum())

    @property
    def n_dimensions(self) -> int:
        """Number of dimensions, D."""
        return self.means.shape[2]

    @property
    def n_blocks(self) -> int:
        """Number of blocks, B."""
        return len(self.counts)

    @property
    def has_views(self) -> bool:
        """Whether these are moments of pairs."""
        return self.means.shape[1] == 2

    def whole(self) -> Moments:
        """Merge the blocks into one.

        Returns
        -------
        Moments
            With B = 1.

        Raises
        ------
        ValueError
            If there are no rows: their mean is undefined.

        Examples
        --------
        >>> moments = Moments.of(np.array([[1.0], [2.0], [6.0]]), n_blocks=3)
        >>> moments.whole().means.tolist(), moments.whole().squares.round(9).tolist()
        ([[[3.0]]], [[[14.0]]])
        """
        return self._whole

    @cached_property
    def _whole(self) -> Moments:  # asked for by every measure: added up once
        n = self.n
        if n == 0:
            raise ValueError("moments must be of at least one row; got none.")
        if self.n_blocks == 1:
            return self
        weights = self.counts / n
        mean = np.einsum("b,bvd->vd", weights, self.means)
        deviations = self.means - mean  # (B, V, D)
        squares = self.squares.sum(axis=0)
        squares += np.einsum("b,bvd->vd", self.counts.astype(np.float64), deviations**2)
        scatter = self.scatters.sum(axis=0)
        scatter += (deviations[:, 0].T * self.counts) @ deviations[:, -1]
        return Moments(
            np.array([n]), mean[None], squares[None], scatter[None], precision=self.precision
        )

    def of_blocks(self, blocks: Sequence[int] | np.ndarray) -> Moments:
        """Merge some of the blocks into one.

        Parameters
        ----------
        blocks : sequence of int
            Which ones, in [0, B), at least one.

        Returns
        -------
        Moments
            With B = 1.

        Raises
        ------
        ValueError
            If there are no rows in them.

        Examples
        --------
        >>> moments = Moments.of(np.arange(8.0)[:, None], n_blocks=2)
        >>> moments.of_blocks([0]).n, moments.of_blocks([0, 1]).mean.round(9).tolist()
        (4, [[3.5]])
        """
        index = np.asarray(blocks)
        counts, means, squares = (x[index] for x in (self.counts, self.means, self.squares))
        return Moments(
            counts, means, squares, self.scatters[index], precision=self.precision
        ).whole()

    def without_each(self) -> Iterator[Moments]:
        """Give the moments without the first block, without the second, and so on.

        Yields
        ------
        Moments
            With B = 1, by subtraction from the whole; one for each block that has rows.

        References
        ----------
        Efron and Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981.
        """
        whole = self.whole()
        n = whole.n
        for count, mean, squares, scatter in zip(
            self.counts, self.means, self.squares, self.scatters, strict=True
        ):
            if count == 0:
                continue
            rest = n - int(count)
            kept_mean = (n * whole.means[0] - count * mean) / rest
            gap = mean - kept_mean
            shared = count * rest / n
            kept_scatter = whole.scatters[0] - scatter
            kept_scatter -= np.outer(shared * gap[0], gap[-1])
            kept_squares = whole.squares[0] - squares - shared * gap**2
            # what varies in this block alone does not vary without it: the rest is rounding
            gone = kept_squares <= _ROUNDING * whole.squares[0]
            kept_squares[gone] = 0.0
            kept_scatter[gone[0]] = 0.0
            kept_scatter[:, gone[-1]] = 0.0
            yield Moments(
                np.array([rest]),
                kept_mean[None],
                kept_squares[None],
                kept_scatter[None],
                precision=self.precision,
            )

    @property
    def mean(self) -> np.ndarray:
        """Mean of each view, shape (V, D)."""
        return self.whole().means[0]

    @property
    def covariance(self) -> np.ndarray:
        """Biased covariance, shape (D, D): within, or of the first view with the second."""
        return self.whole().scatters[0] / self.n

    @property
    def eps(self) -> float:
        """Distance from 1 to the next number of the type that the rows were rounded to."""
        return eps_of(self.precision)

    def merge(self, *others: Moments) -> Moments:
        """Merge with the moments of other rows, block by block.

        Parameters
        ----------
        *others : Moments
            Of other rows of the same dimensions, views and number of blocks.

        Returns
        -------
        Moments
            As if all rows had been accumulated together, up to rounding.

        Raises
        ------
        ValueError
            If the shapes, or what is known of the rows, differ.

        Examples
        --------
        >>> rows = np.arange(12.0).reshape(6, 2) ** 2
        >>> merged = Moments.of(rows[:2]).merge(Moments.of(rows[2:]))
        >>> np.allclose(merged.covariance, np.cov(rows.T, bias=True))
        True
        """
        for other in others:
            if other.means.shape != self.means.shape:
                raise ValueError(
                    "moments must agree in blocks, views and dimensions to merge, "
                    f"{self.means.shape}; got {other.means.shape}."
                )
            if dict(other.meta) != dict(self.meta):
                raise ValueError(
                    f"moments must be of the same kind to merge, {dict(self.meta)}; got "
                    f"{dict(other.meta)}."
                )
        states = (self, *others)
        counts = np.stack([each.counts for each in states])  # (S, B)
        n = counts.sum(axis=0)
        weights = counts / np.maximum(n, 1)
        means = sum(w[:, None, None] * each.means for w, each in zip(weights, states, strict=True))
        squares, scatters = np.zeros_like(self.squares), np.zeros_like(self.scatters)
        for each in states:
            gap = each.means - means
            squares += each.squares + each.counts[:, None, None] * gap**2
            scatters += each.scatters
            scatters += np.einsum("b,bi,bj->bij", each.counts, gap[:, 0], gap[:, -1])
        filled = [each.precision for each in states if each.n] or [self.precision]
        precision = reduce(coarser, filled)
        return Moments(n, np.asarray(means), squares, scatters, self.meta, precision)

    def over_ranks(self) -> Moments:
        """Merge the states of all processes of torch.distributed; each gets the whole.

        Returns
        -------
        Moments
            This state itself where there is only one process.

        Notes
        -----
        Two sums over ranks, counts with means and then deviations from the common mean, so that
        nothing is lost to cancellation. Every process must have accumulated its own rows, with the
        same number of blocks.

        Examples
        --------
        >>> moments = Moments.of(np.array([[1.0], [2.0]]))
        >>> moments.over_ranks() is moments
        True
        """
        import torch
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return self
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"

        def summed(*arrays: np.ndarray) -> list[np.ndarray]:
            flat = np.concatenate([each.astype(np.float64).ravel() for each in arrays])
            tensor = torch.from_numpy(flat).to(device)
            dist.all_reduce(tensor)
            ends = np.cumsum([each.size for each in arrays])[:-1]
            parts = np.split(tensor.cpu().numpy(), ends)
            return [part.reshape(each.shape) for part, each in zip(parts, arrays, strict=True)]

        counts = self.counts.astype(np.float64)[:, None, None]
        n, weighted = summed(counts, counts * self.means)
        means = weighted / np.maximum(n, 1)
        gap = self.means - means
        squares, scatters = summed(
            self.squares + counts * gap**2,
            self.scatters + np.einsum("b,bi,bj->bij", self.counts, gap[:, 0], gap[:, -1]),
        )
        counts_of_all = np.rint(n[:, 0, 0]).astype(np.int64)
        return Moments(counts_of_all, means, squares, scatters, self.meta, self.precision)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.safetensors`` file, to be loaded and merged later.

        Parameters
        ----------
        path : path
            Must end in ``.safetensors``.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ValueError
            If the name has another ending.
        TypeError
            If the arrays were put there by hand and are of another type.

        Examples
        --------
        >>> import tempfile
        >>> moments = Moments.of(np.array([[1.0], [2.0]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = moments.save(Path(folder) / "moments.safetensors")
        ...     Moments.is_state(path), Moments.load(path).mean.tolist()
        (True, [[1.5]])
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"path must end in .safetensors; got {path.name!r}.")
        with replacing(path) as temporary:
            tensors = {name: getattr(self, name) for name in _STORED}
            known = {**self.meta, "format": FORMAT, "precision": self.precision}
            write_safetensors(temporary, tensors, known)
        return path

    @staticmethod
    def is_state(path: str | os.PathLike[str]) -> bool:
        """Say whether a file is a state that ``save`` wrote, by its header alone.

        Parameters
        ----------
        path : path
            Any file.

        Returns
        -------
        bool
            False too for what is no safetensors file.
        """
        try:
            return map_safetensors(Path(path))[1].get("format") == FORMAT
        except (ValueError, OSError):
            return False

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read a state that ``save`` wrote.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        Moments
            The state.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not such a state, or is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"moments must be a file; got {path}, which is not there.")
        try:
            arrays, metadata = map_safetensors(path)
            meta = {key: value for key, value in metadata.items() if key != "format"}
            precision = meta.pop("precision", "float32")  # which states before 0.7 do not say
            if precision not in PRECISIONS:
                raise ValueError("an unknown precision")
            if any(arrays[name].dtype != dtype for name, dtype in _STORED.items()):
                raise TypeError("numbers of another type")
            numbers = {name: np.array(arrays[name]) for name in _STORED}
            state = cls(**numbers, meta=meta, precision=precision)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path.name} must be a state of moments that dimlab saved; got something else."
            ) from error
        parts = (state.means, state.squares, state.scatters)
        if not all(np.isfinite(each).all() for each in parts) or (state.counts < 0).any():
            raise ValueError(f"{path.name} must hold finite moments; got NaN or infinity.")
        large = [
            *(np.abs(state.means) > _LARGEST, state.counts > _MOST_ROWS),
            *(state.squares > _LARGEST**2, np.abs(state.scatters) > _LARGEST**2),
        ]
        if (state.squares < 0).any() or any(each.any() for each in large):
            raise ValueError(
                f"{path.name} must hold moments of rows of at most {_LARGEST:g} in size; got other "
                "numbers."
            )
        return state


def deal(first_row: int, n_rows: int, n_blocks: int, seed: int) -> np.ndarray:
    """Deal rows to blocks: at random, evenly, and by the row's number alone.

    Parameters
    ----------
    first_row, n_rows : int
        Which rows.
    n_blocks : int
        B.
    seed : int
        Of the deal.

    Returns
    -------
    ndarray of shape (n_rows,), int64
        Block of each row; of every full 4,096 rows each block gets as many, give or take one.
    """
    hands = []
    for hand in range(first_row // _DEALT, -(-(first_row + n_rows) // _DEALT)):
        rng = np.random.default_rng([seed, hand])
        hands.append(rng.permutation(np.arange(_DEALT) % n_blocks))
    start = first_row % _DEALT
    return np.concatenate(hands)[start : start + n_rows]


def deal_clusters(clusters: np.ndarray, n_blocks: int, seed: int) -> np.ndarray:
    """Deal whole clusters to blocks: at random, and as many to each, give or take one.

    Parameters
    ----------
    clusters : ndarray of shape (N,), int
        Cluster of each row, from 0.
    n_blocks : int
        B; blocks stay empty where there are fewer clusters.
    seed : int
        Of the deal.

    Returns
    -------
    ndarray of shape (N,), int64
        Block of each row.
    """
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
            if not np.isfinite(shift).all() or np.abs(mean + shift).max() > _LARGEST:
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

    def moments(self) -> Moments:
        precision = self.precision or self._found or "float64"
        products = self.products.finished()
        return Moments(self.counts, self.means, self.squares, products, precision=precision)


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
    bad = np.argwhere(~(np.abs(part) <= _LARGEST))
    if len(bad) == 0:
        raise ValueError(
            f"features must be at most {_LARGEST:g} in size; got values that sum to more. Divide "
            "them by a constant."
        )
    row, dimension = bad[0]
    value = part[row, dimension]
    if np.isfinite(value):
        raise ValueError(
            f"features must be at most {_LARGEST:g} in size; got {value:g} in dimension "
            f"{dimension}, row {rows[row]}. Divide them by a constant."
        )
    raise ValueError(
        f"features must be finite; got {value} in dimension {dimension}, row {rows[row]}."
    )


def _length(source: Any) -> int:
    array = source[0] if isinstance(source, tuple) and source else source
    return len(array) if hasattr(array, "shape") else 0


def _chunks(source: Any) -> Iterator[tuple[np.ndarray, ...]]:
    """Chunks of one length, whatever the batches: views (1 or 2 arrays of shape (n, D))."""
    if isinstance(source, tuple) and len(source) not in (1, 2):
        raise ValueError(f"source must be one array, or two views; got {len(source)}.")
    whole = hasattr(source, "shape") or isinstance(source, tuple)
    if whole:
        source = [source]
    elif not isinstance(source, Iterable):
        raise TypeError(f"source must be rows or an iterable of them; got {type(source).__name__}.")
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
        raise ValueError(
            f"batches must all hold one array, or two views; got {len(views)} after {shape[0]}."
        )
    for view in views:
        if view.shape != (len(views[0]), shape[1]):
            raise ValueError(
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
        raise ValueError(f"rows must have shape (n, D) with D >= 1; got {array.shape}.")
    if array.dtype.kind != "f":
        raise TypeError(f"rows must be floating; got {array.dtype}.")
    return array
