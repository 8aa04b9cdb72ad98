"""Groups of redundant dimensions, collinearity, and subsets that represent the rest."""

from __future__ import annotations

import numpy as np

from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.moments import Moments

_CLOSE = 1e-12  # rounding of a correlation
_COMPONENT = 1e-8  # of a unit eigenvector: a dimension with a smaller one is not involved


def redundant_groups(
    features: np.ndarray, *, cut: float = 0.9, precision: str | None = None
) -> list[np.ndarray]:
    """Group dimensions by average linkage on the distance 1 - |Pearson correlation|."""
    from dimlab.kernels.correlation import correlation_of, dead_dimensions

    moments = Moments.of(features, n_blocks=1, precision=precision)
    dead = dead_dimensions(moments)
    return groups_of(group_ids(correlation_of(moments, dead), cut))


def linkage_of(correlation: np.ndarray) -> np.ndarray:
    """SciPy's average linkage of D >= 2 dimensions on 1 - |correlation|; NaN counts as 0."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.abs(np.nan_to_num((correlation + correlation.T) / 2))
    np.clip(distance, 0, 1, out=distance)
    np.fill_diagonal(distance, 0.0)
    return linkage(squareform(distance, checks=False), method="average")


def group_ids(correlation: np.ndarray, cut: float) -> np.ndarray:
    """Group ids (D,): groups merge while their mean absolute correlation is at least the cut."""
    from scipy.cluster.hierarchy import fcluster

    if len(correlation) == 1:
        return np.zeros(1, dtype=np.int64)
    ids = fcluster(linkage_of(correlation), t=1 - cut + _CLOSE, criterion="distance")
    first = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first[1]))
    return rank[first[2]]


def leaf_order(correlation: np.ndarray) -> np.ndarray:
    """Permutation (D,) in which dimensions that correlate stand together."""
    from scipy.cluster.hierarchy import leaves_list

    if len(correlation) == 1:
        return np.zeros(1, dtype=np.int64)
    return leaves_list(linkage_of(correlation)).astype(np.int64)


def relative_size(moments: Moments, live: np.ndarray) -> np.ndarray:
    """Mean square of each dimension that varies, in units of its variance; (d,)."""
    whole = moments.whole()
    return 1 + whole.n * whole.means[0, 0, live] ** 2 / whole.squares[0, 0, live]


def correlation_noise(moments: Moments, live: np.ndarray) -> float:
    """Largest eigenvalue of a correlation matrix that rounding to the storage explains."""
    mean_square = float(relative_size(moments, live).max())
    return eigenvalue_floor(0.0, mean_square, moments.n, len(live), moments.eps)


def variance_inflation(correlation: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Variance inflation factors (D,): 1 / (1 - R^2) of each dimension on all others."""
    # Infinite exactly where some eigenvector whose eigenvalue counts as zero (up to D eps
    # lambda_max, or the noise) has a component of more than 1e-8; else the diagonal of the pseudo-
    # inverse.
    eigenvalues, vectors = np.linalg.eigh(correlation)
    floor = len(correlation) * np.finfo(np.float64).eps * eigenvalues[-1]
    null = eigenvalues <= max(floor, noise)
    involved = (np.abs(vectors[:, null]) > _COMPONENT).any(axis=1)
    kept = vectors[:, ~null]
    diagonal = np.einsum("dk,k,dk->d", kept, 1 / eigenvalues[~null], kept)
    return np.where(involved, np.inf, np.maximum(diagonal, 1.0))


def inflation_by_chance(n_samples: float, n_dimensions: int) -> float:
    """Median variance inflation factor of independent dimensions; NaN where N <= D."""
    # R^2 of a Gaussian dimension on D - 1 others is Beta((D - 1) / 2, (N - D) / 2).
    from scipy.stats import beta

    if n_samples <= n_dimensions:
        return float("nan")
    if n_dimensions < 2:
        return 1.0
    left = (n_samples - n_dimensions) / 2, (n_dimensions - 1) / 2
    return 1 / float(beta.median(*left))  # of 1 - R^2


def largest_r_squared_by_chance(n_samples: float, n_dimensions: int, level: float = 0.95) -> float:
    """Quantile of the largest R^2 of D independent Gaussian dimensions; NaN where N <= D."""
    # By Bonferroni's inequality, so that none is larger with at least this probability.
    from scipy.stats import beta

    if n_samples <= n_dimensions:
        return float("nan")
    tail = (1 - level) / n_dimensions
    return float(beta.isf(tail, (n_dimensions - 1) / 2, (n_samples - n_dimensions) / 2))


def largest_correlation_by_chance(n_samples: int, n_dimensions: int, level: float = 0.95) -> float:
    """Quantile of the largest |r| of D >= 2 independent Gaussian dimensions."""
    from scipy.stats import beta

    if n_samples < 3:
        return 1.0
    n_pairs = n_dimensions * (n_dimensions - 1) / 2
    return float(np.sqrt(beta.isf((1 - level) / n_pairs, 0.5, (n_samples - 2) / 2)))


def pivot_order(covariance: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Order (D,) of pivoted QR, and the share (D,) of the trace that the first ones explain."""
    # A pivoted Cholesky factorisation of the covariance takes the pivots of a QR factorisation of
    # the centred rows: after k steps the rest of the diagonal is what is left unexplained. Where no
    # more than the floor is left, the rest explains nothing.
    from scipy.linalg.lapack import dpstrf

    scale = float(np.diagonal(covariance).max())
    least = max(len(covariance) * np.finfo(np.float64).eps, floor / scale)
    factor, pivots, rank, _ = dpstrf(covariance / scale, tol=least, lower=1)
    order = pivots.astype(np.int64) - 1
    lower = np.tril(factor)
    lower[:, rank:] = 0.0
    gained = np.einsum("ij,ij->j", lower, lower)
    share = np.cumsum(gained) / (np.trace(covariance) / scale)
    share[rank - 1 :] = 1.0  # the rest is rounding
    return order, np.minimum(share, 1.0)


def groups_of(ids: np.ndarray) -> list[np.ndarray]:
    """Index arrays of equal ids (D,), in order of their lowest dimension."""
    first: dict[int, list[int]] = {}
    for dimension, group in enumerate(ids.tolist()):
        first.setdefault(group, []).append(dimension)
    return [np.array(members) for members in first.values()]
