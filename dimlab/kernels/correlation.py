"""Correlation matrices from moments, and what they are where nothing depends on anything."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dimlab.kernels.moments import Moments
from dimlab.kernels.rounding import spread_floor

_POWER_TOLERANCE = 1e-12
_ELEMENTS = 1 << 22


def dead_dimensions(moments: Moments) -> np.ndarray:
    """Which dimensions do not vary, in some view.

    Parameters
    ----------
    moments : Moments
        Of rows or of pairs.

    Returns
    -------
    ndarray of shape (D,), bool
        True where the standard deviation is at most ``max(1e-12, 2 eps)`` of the mean's size, eps
        that of the precision that the rows were stored in.
    """
    whole = moments.whole()
    deviation = np.sqrt(whole.squares[0] / whole.n)
    return (deviation <= spread_floor(np.abs(whole.means[0]), moments.eps)).any(axis=0)


def correlation_of(moments: Moments, dead: np.ndarray) -> np.ndarray:
    """Pearson correlation of every dimension with every other, (D, D).

    Parameters
    ----------
    moments : Moments
        Of rows: symmetric, with a diagonal of 1. Of pairs: the first view's dimensions (rows) with
        the second's.
    dead : ndarray of shape (D,), bool
        Dimensions whose row and column are NaN.

    Returns
    -------
    ndarray of shape (D, D)
        In [-1, 1], or NaN.
    """
    whole = moments.whole()
    norms = np.sqrt(whole.squares[0])
    norms = np.where(dead | (norms == 0), np.nan, norms)
    matrix = whole.scatters[0] / norms[0][:, None] / norms[-1]
    np.clip(matrix, -1, 1, out=matrix)
    if not moments.has_views:
        np.fill_diagonal(matrix, np.where(dead, np.nan, 1.0))
    return matrix


def replicate_of(moments: Moments, dead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations without some samples, where a dimension may not vary any more.

    Parameters
    ----------
    moments : Moments
        Without some samples.
    dead : ndarray of shape (D,), bool
        Dimensions that do not vary in all samples.

    Returns
    -------
    matrix : ndarray of shape (D, D)
        Correlations; 0 for a dimension that varied in the missing samples only.
    gone : ndarray of shape (D,), bool
        These dimensions.
    """
    gone = (moments.whole().squares[0] == 0).any(axis=0) & ~dead
    matrix = correlation_of(moments, dead)
    if gone.any():
        matrix[np.ix_(gone, ~dead)] = 0.0
        matrix[np.ix_(~dead, gone)] = 0.0
    return matrix, gone


def redundancy_of(matrix: np.ndarray, live: np.ndarray, n_samples: int) -> np.ndarray:
    """Mean squared correlation of each dimension with the others, less what chance gives.

    Parameters
    ----------
    matrix : ndarray of shape (D, D)
        Correlations.
    live : ndarray of int
        Dimensions that vary; the others are left out.
    n_samples : int
        N, >= 3.

    Returns
    -------
    ndarray of shape (D,)
        (mean_{j != d} C_dj^2 - 1/(N-1)) / (1 - 1/(N-1)): 0 on average without dependence, 1 for
        copies. NaN for the dimensions left out, or where there is no other.
    """
    found = np.full(len(matrix), np.nan)
    if len(live) < 2:
        return found
    squares = matrix[np.ix_(live, live)] ** 2
    mean = (squares.sum(axis=1) - np.diagonal(squares)) / (len(live) - 1)
    chance = 1 / (n_samples - 1)
    found[live] = (mean - chance) / (1 - chance)
    return found


def off_diagonal_rms(matrix: np.ndarray) -> float:
    """Root mean square of the entries off the diagonal; NaN for a single dimension."""
    n = len(matrix)
    if n < 2:
        return float("nan")
    total = np.einsum("ij,ij->", matrix, matrix) - np.einsum("ii,ii->", matrix, matrix)
    return float(np.sqrt(max(float(total), 0.0) / (n * (n - 1))))


def largest_singular_value(matrix: np.ndarray) -> float:
    """Largest singular value of a square matrix, by Lanczos where it is large."""
    from scipy.sparse.linalg import ArpackNoConvergence, svds

    if len(matrix) < 64:
        return float(np.linalg.norm(matrix, 2))
    start = np.random.default_rng(0).normal(size=len(matrix)).astype(matrix.dtype)
    try:
        found = svds(matrix, k=1, v0=start, tol=_POWER_TOLERANCE, return_singular_vectors=False)
        return float(found[0])
    except ArpackNoConvergence:
        return float(np.linalg.norm(matrix, 2))


def permuted_correlations(
    views: tuple[np.ndarray, ...], n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw correlation matrices of the same values with all dependence destroyed.

    Parameters
    ----------
    views : tuple of one or two ndarray of shape (N, D)
        Dimensions that vary. Two views: the rows of the second are permuted together, so that what
        depends within a view stays. One: every column is permuted by itself.
    n_draws : int
        Number of matrices.
    rng : numpy.random.Generator
        Draws the permutations.

    Yields
    ------
    ndarray of shape (D, D), float64
        Correlations.
    """
    import torch

    unit = [_standardised(view) for view in views]
    if len(unit) == 2:
        a, b = (torch.from_numpy(each) for each in unit)
        for _ in range(n_draws):
            order = torch.from_numpy(rng.permutation(len(b)))
            yield (a.T @ b[order]).numpy()
        return
    columns = np.ascontiguousarray(unit[0].T)  # a column's values lie together
    for _ in range(n_draws):
        rng.permuted(columns, axis=1, out=columns)
        rows = torch.from_numpy(columns)
        matrix = (rows @ rows.T).numpy()
        np.fill_diagonal(matrix, 1.0)
        yield matrix


def independent_correlations(
    n_samples: int, n_dimensions: int, n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw correlation matrices of N samples of D independent Gaussian dimensions.

    Parameters
    ----------
    n_samples, n_dimensions : int
        N >= 2 and D.
    n_draws : int
        Number of matrices.
    rng : numpy.random.Generator
        Draws them.

    Yields
    ------
    ndarray of shape (D, D), float64
        Correlations. By Bartlett's decomposition the cost does not grow with N.
    """
    freedom = n_samples - 1
    for _ in range(n_draws):
        if freedom < n_dimensions:
            rows = rng.normal(size=(n_dimensions, freedom))
        else:
            rows = np.tril(rng.normal(size=(n_dimensions, n_dimensions)), -1)
            chi = rng.chisquare(freedom - np.arange(n_dimensions))
            np.fill_diagonal(rows, np.sqrt(chi))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows @ rows.T


def gaussian_correlations(
    within: tuple[np.ndarray, np.ndarray],
    n_samples: int,
    n_draws: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Draw cross-view correlations of N samples of two Gaussian views that share nothing.

    Parameters
    ----------
    within : tuple of ndarray of shape (D, D)
        Correlation matrices within each view.
    n_samples : int
        N.
    n_draws : int
        Number of matrices.
    rng : numpy.random.Generator
        Draws them.

    Yields
    ------
    ndarray of shape (D, D), float64
        The law of permuted rows for N without end; the cost does not grow with N.
    """
    import torch

    a, b = (torch.from_numpy(_root(each)) for each in within)
    for _ in range(n_draws):
        noise = rng.normal(size=a.shape) / np.sqrt(n_samples - 1)
        yield (a @ torch.from_numpy(noise) @ b).numpy()


def _root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def _standardised(view: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and norm 1, float64: no sum of theirs depends on who adds it up."""
    mean, norms = view.mean(axis=0, dtype=np.float64), np.zeros(view.shape[1])
    step = max(1, _ELEMENTS // view.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(view), step)]
    scale = np.abs(view).max(axis=0).astype(np.float64)  # squares neither overflow nor vanish
    for part in parts:
        rows = (view[part] - mean) / scale
        norms += np.einsum("nd,nd->d", rows, rows)
    columns = np.empty(view.shape)
    for part in parts:
        columns[part] = (view[part] - mean) / (scale * np.sqrt(norms))
    return columns
