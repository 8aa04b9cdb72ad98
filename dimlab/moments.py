"""First and second moments of rows: accumulated in blocks, merged, saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import read_safetensors, save_safetensors
from dimlab.kernels import moments as kernel
from dimlab.kernels.rounding import PRECISIONS, coarser, eps_of
from dimlab.refusals import Refusal

FORMAT = "dimlab-moments-1"
N_BLOCKS = 20
_MOST_ROWS = 1 << 48  # in a state that is read: float64 counts them exactly
_STORED = {"counts": "int64", "means": "float64", "squares": "float64", "scatters": "float64"}

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
    >>> moments.whole().n_blocks, moments[[0, 1]].n, moments.over_ranks() is moments
    (1, 2, True)
    >>> first, second = Moments.of(rows[:2]), Moments.of(rows[2:])
    >>> Moments.empty(20, 1, 2).merge(first, second).mean.tolist()
    [[3.0, 1.0]]
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
            raise Refusal(f"means must have shape (B, V, D); got {self.means.shape}.")
        n_blocks, n_views, n_dimensions = self.means.shape
        expected = {
            "counts": (n_blocks,),
            "squares": (n_blocks, n_views, n_dimensions),
            "scatters": (n_blocks, n_dimensions, n_dimensions),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise Refusal(f"{name} must have shape {shape} to match means; got {found}.")
        if n_views not in (1, 2):
            raise Refusal(f"means must have shape (B, V, D) with V of 1 or 2; got V={n_views}.")

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
            raise Refusal(f"n_blocks must be >= 1; got {n_blocks}.")
        arrays, found = kernel.accumulate(
            source,
            n_blocks=n_blocks,
            seed=seed,
            first_row=first_row,
            clusters=clusters,
            device=device,
            precision=precision,
            progress=progress,
        )
        return cls(*arrays, precision=found)

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

    def __repr__(self) -> str:
        """Return one line: how many rows or pairs, dimensions and blocks."""
        rows = "pairs" if self.has_views else "samples"
        return (
            f"Moments({self.n:,} {rows} of {self.n_dimensions:,} dimensions, {self.n_blocks:,} "
            f"blocks, {self.precision})"
        )

    def whole(self) -> Moments:
        """Merge the blocks into one; refuse where there are no rows, whose mean is undefined.

        Returns
        -------
        Moments
            With B = 1.
        """
        return self._whole

    @cached_property
    def _whole(self) -> Moments:  # asked for by every measure: added up once
        if self.n == 0:
            raise Refusal("moments must be of at least one row; got none.")
        if self.n_blocks == 1:
            return self
        return Moments(*kernel.whole_of(self._arrays), precision=self.precision)

    @property
    def _arrays(self) -> kernel.Arrays:
        return self.counts, self.means, self.squares, self.scatters

    def __getitem__(self, blocks: Sequence[int] | np.ndarray) -> Moments:
        """Return the moments of some of the blocks."""
        arrays: dict[str, Any] = {name: getattr(self, name)[blocks] for name in _STORED}
        return replace(self, **arrays)

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
        for arrays in kernel.without_each(self._arrays, whole._arrays):
            yield Moments(*arrays, precision=self.precision)

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
        """
        for other in others:
            if other.means.shape != self.means.shape:
                raise Refusal(
                    "moments must agree in blocks, views and dimensions to merge, "
                    f"{self.means.shape}; got {other.means.shape}."
                )
            if dict(other.meta) != dict(self.meta):
                raise Refusal(
                    f"moments must be of the same kind to merge, {dict(self.meta)}; got "
                    f"{dict(other.meta)}."
                )
        states = (self, *others)
        arrays = kernel.merged([each._arrays for each in states])
        filled = [each.precision for each in states if each.n] or [self.precision]
        return Moments(*arrays, self.meta, reduce(coarser, filled))

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
        OSError
            If the disk refuses.

        Examples
        --------
        >>> import tempfile
        >>> moments = Moments.of(np.array([[1.0], [2.0]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = moments.save(Path(folder) / "moments.safetensors")
        ...     Moments.load(path).mean.tolist()
        [[1.5]]
        """
        tensors = {name: getattr(self, name) for name in _STORED}
        known = {**self.meta, "format": FORMAT, "precision": self.precision}
        return save_safetensors(path, tensors, known)

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
        return moments_in(Path(path), *read_safetensors(Path(path)))


def moments_in(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> Moments:
    """Return the state that was saved in a file, given what was read from it."""
    try:
        meta = {key: value for key, value in metadata.items() if key != "format"}
        precision = meta.pop("precision", "float32")  # which states before 0.7 do not say
        if precision not in PRECISIONS:
            raise Refusal("an unknown precision")
        if any(arrays[name].dtype != dtype for name, dtype in _STORED.items()):
            raise TypeError("numbers of another type")
        numbers = {name: np.array(arrays[name]) for name in _STORED}
        state = Moments(**numbers, meta=meta, precision=precision)
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(
            f"{path.name} must be a state of moments that dimlab saved; got something else."
        ) from error
    parts = (state.means, state.squares, state.scatters)
    if not all(np.isfinite(each).all() for each in parts) or (state.counts < 0).any():
        raise Refusal(f"{path.name} must hold finite moments; got NaN or infinity.")
    large = [
        *(np.abs(state.means) > kernel.LARGEST, state.counts > _MOST_ROWS),
        *(state.squares > kernel.LARGEST**2, np.abs(state.scatters) > kernel.LARGEST**2),
    ]
    if (state.squares < 0).any() or any(each.any() for each in large):
        raise Refusal(
            f"{path.name} must hold moments of rows of at most {kernel.LARGEST:g} in size; got "
            "other numbers."
        )
    return state
