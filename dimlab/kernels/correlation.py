"""Correlation matrices from moments, and their null distributions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.rounding import spread_floor
from dimlab.moments import Moments

_POWER_TOLERANCE = 1e-12
_ELEMENTS = 1 << 22
_SMALLEST = 1e-300  # avoids a division by zero for a column of zeros


def dead_dimensions(moments: Moments) -> np.ndarray:
    """Dimensions (D,) bool that do not vary, in some view."""
    whole = moments.whole()
    deviation = np.sqrt(whole.squares[0] / whole.n)
    return (deviation <= spread_floor(np.abs(whole.means[0]), moments.eps)).any(axis=0)


def correlation_of(moments: Moments, dead: np.ndarray) -> np.ndarray:
    """Pearson correlations (D, D), of pairs the first view's rows with the second's columns."""
    # NaN in the rows and columns of dead dimensions; within a view the diagonal is exactly 1.
    whole = moments.whole()
    norms = np.sqrt(whole.squares[0])
    norms = np.where(dead | (norms == 0), np.nan, norms)
    matrix = whole.scatters[0] / norms[0][:, None] / norms[-1]
    np.clip(matrix, -1, 1, out=matrix)
    if not moments.has_views:
        np.fill_diagonal(matrix, np.where(dead, np.nan, 1.0))
    return matrix


def redundancy_of(
    matrix: np.ndarray, live: np.ndarray, n_samples: float | np.ndarray
) -> np.ndarray:
    """Mean squared correlation (D,) of each dimension with the others, less what chance gives."""
    # (mean_{j != d} C_dj^2 - 1/(N-1)) / (1 - 1/(N-1)): 0 on average without dependence, 1 for
    # copies. NaN for dimensions left out, or where there is no other. N may be a matrix of
    # effective numbers.
    found = np.full(len(matrix), np.nan)
    if len(live) < 2:
        return found
    mean = _mean_of_others(matrix[np.ix_(live, live)] ** 2)
    chance = chances_of(live, n_samples)
    found[live] = (mean - chance) / (1 - chance)
    return found


def chances_of(live: np.ndarray, n_samples: float | np.ndarray) -> np.ndarray:
    """Mean squared correlation (n,) of each of two or more dimensions with independent others."""
    return _mean_of_others(_chance(n_samples, live))


def chance_of(live: np.ndarray, n_samples: float | np.ndarray) -> float:
    """Mean squared correlation of different dimensions without dependence; NaN for a single one."""
    if len(live) < 2:
        return float("nan")
    return float(chances_of(live, n_samples).mean())


def rooted(mean_square: Any) -> Any:
    """Root of mean squares beyond chance; 0 where they are negative."""
    return np.sqrt(np.maximum(mean_square, 0.0))


def effective_samples(views: tuple[np.ndarray, ...], clusters: np.ndarray) -> np.ndarray:
    """Effective number of independent rows (D, D) for each correlation of rows in clusters."""
    # N / (1 + (m - 1) a_j a_k), where m is the mean size of a row's cluster and a_j the correlation
    # of dimension j between two rows of a cluster; at least 2. Of independent dimensions whose rows
    # are equally correlated within clusters it makes E r^2 = 1 / (effective number - 1). Donner and
    # Klar, "Design and Analysis of Cluster Randomization Trials", 2000.
    sizes = np.bincount(clusters)
    n = len(clusters)
    typical = float((sizes**2).sum() / n)
    together, starts = np.argsort(clusters, kind="stable"), np.cumsum(sizes) - sizes
    within = []
    for view in views:
        rows = view[together] / (np.abs(view).max(axis=0).astype(np.float64) + _SMALLEST)
        rows -= rows.mean(axis=0)
        squares = np.einsum("nd,nd->d", rows, rows)
        sums = (np.add.reduceat(rows, starts, axis=0) ** 2).sum(axis=0)
        share = np.divide(sums, squares, out=np.ones_like(sums), where=squares > 0)
        within.append(np.clip((share - 1) / (typical - 1), 0.0, 1.0))
    inflation = 1 + (typical - 1) * np.outer(within[0], within[-1])
    return np.maximum(n / inflation, 2.0)


def _mean_of_others(pairs: np.ndarray) -> np.ndarray:
    """Mean of each row of (n, n) pairs, its diagonal left out."""
    return (pairs.sum(axis=1) - np.diagonal(pairs)) / (len(pairs) - 1)


def _chance(n_samples: float | np.ndarray, live: np.ndarray) -> np.ndarray:
    """Mean squared correlation of each pair of independent dimensions, (n, n)."""
    if isinstance(n_samples, np.ndarray):
        return 1 / (n_samples[np.ix_(live, live)] - 1)
    return np.full((len(live), len(live)), 1 / (n_samples - 1))


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
    views: tuple[np.ndarray, ...],
    n_draws: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Draw correlation matrices (D, D) of the same values with all dependence destroyed."""
    # Two views: the rows of the second are permuted together, so that what depends within a view
    # stays. One: every column is permuted by itself. With clusters (ids from 0), whole ones.
    import torch

    unit = [standardised(view) for view in views]
    if clusters is not None:  # rows of a cluster lie together
        together = np.argsort(clusters, kind="stable")
        unit, clusters = [each[together] for each in unit], clusters[together]
    if len(unit) == 2:
        a, b = (torch.from_numpy(each) for each in unit)
        for _ in range(n_draws):
            order = torch.from_numpy(permutation_of(len(b), clusters, rng))
            yield (a.T @ b[order]).numpy()
        return
    columns = np.ascontiguousarray(unit[0].T)  # a column's values lie together
    for _ in range(n_draws):
        if clusters is None:
            rng.permuted(columns, axis=1, out=columns)
        else:
            for column in columns:
                column[:] = column[permutation_of(len(column), clusters, rng)]
        rows = torch.from_numpy(columns)
        matrix = (rows @ rows.T).numpy()
        np.fill_diagonal(matrix, 1.0)
        yield matrix


def permutation_of(
    n_rows: int, clusters: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """Permute rows, or whole clusters (ids ascending) in random order, each in its own order."""
    if clusters is None:
        return rng.permutation(n_rows)
    rank = rng.permutation(int(clusters.max()) + 1)
    return np.argsort(rank[clusters], kind="stable")


def independent_correlations(
    n_samples: int, n_dimensions: int, n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Draw correlation matrices of N samples of D independent Gaussian dimensions."""
    # Bartlett's decomposition: the cost does not grow with N.
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
    """Draw cross-view correlations of N samples of two independent Gaussian views."""
    # The limiting law of permuted rows for large N, given the correlations within each view.
    import torch

    a, b = (torch.from_numpy(_root(each)) for each in within)
    for _ in range(n_draws):
        noise = rng.normal(size=a.shape) / np.sqrt(n_samples - 1)
        yield (a @ torch.from_numpy(noise) @ b).numpy()


def _root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def standardised(view: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Columns (N, D) of mean 0 and norm 1, in float64; zeros where rounding is all that varies."""
    mean, norms = view.mean(axis=0, dtype=np.float64), np.zeros(view.shape[1])
    parts = list(blocks(len(view), _ELEMENTS // view.shape[1]))
    size = np.abs(view).max(axis=0).astype(np.float64)
    scale = np.where(size > 0, size, 1.0)  # squares neither overflow nor vanish
    for part in parts:
        rows = (view[part] - mean) / scale
        norms += np.einsum("nd,nd->d", rows, rows)
    norms = scale * np.sqrt(norms)
    varies = norms > np.sqrt(len(view)) * spread_floor(size, eps)
    columns = np.zeros(view.shape)
    for part in parts:
        np.divide(view[part] - mean, norms, out=columns[part], where=varies)
    return columns
