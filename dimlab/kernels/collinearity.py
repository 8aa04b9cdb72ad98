"""Which dimensions say the same, which are sums of others, and which few stand for all."""

from __future__ import annotations

import numpy as np

from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.moments import Moments

_CLOSE = 1e-12  # rounding of a correlation
_COMPONENT = 1e-8  # of a unit eigenvector: a dimension with a smaller one is not involved


def redundant_groups(
    features: np.ndarray, *, cut: float = 0.9, precision: str | None = None
) -> list[np.ndarray]:
    """Group dimensions that are strongly correlated with each other.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        Rows of one split.
    cut : float, default=0.9
        Groups are merged while the mean absolute correlation between them is at least this.
    precision : str, optional
        What the features were rounded to; by default it is read off the values.

    Returns
    -------
    list of ndarray of int
        Every dimension stands in one group; groups in order of their lowest dimension. A dimension
        that does not vary is a group of its own.

    Notes
    -----
    Average linkage on the distance 1 - |Pearson correlation|.

    Examples
    --------
    >>> x = np.array([[0.0, 0.0, 1.0], [1.0, -2.0, 0.0], [2.0, -4.0, 1.0], [3.0, -6.0, 0.0]])
    >>> [group.tolist() for group in redundant_groups(x)]
    [[0, 1], [2]]
    """
    from dimlab.kernels.correlation import correlation_of, dead_dimensions

    moments = Moments.of(features, n_blocks=1, precision=precision)
    dead = dead_dimensions(moments)
    return groups_of(group_ids(correlation_of(moments, dead), cut))


def linkage_of(correlation: np.ndarray) -> np.ndarray:
    """Average linkage of D >= 2 dimensions on the distance 1 - |correlation|.

    Parameters
    ----------
    correlation : ndarray of shape (D, D)
        NaN counts as 0. Where it is not symmetric, the mean of both entries counts.

    Returns
    -------
    ndarray of shape (D - 1, 4)
        SciPy's tree.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = 1 - np.abs(np.nan_to_num((correlation + correlation.T) / 2))
    np.clip(distance, 0, 1, out=distance)
    np.fill_diagonal(distance, 0.0)
    return linkage(squareform(distance, checks=False), method="average")


def group_ids(correlation: np.ndarray, cut: float) -> np.ndarray:
    """Group dimensions while the mean absolute correlation between groups is at least the cut.

    Parameters
    ----------
    correlation : ndarray of shape (D, D)
        NaN counts as 0.
    cut : float
        In (0, 1].

    Returns
    -------
    ndarray of shape (D,), int64
        Group of each dimension, numbered in order of their lowest dimension.
    """
    from scipy.cluster.hierarchy import fcluster

    if len(correlation) == 1:
        return np.zeros(1, dtype=np.int64)
    ids = fcluster(linkage_of(correlation), t=1 - cut + _CLOSE, criterion="distance")
    first = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first[1]))
    return rank[first[2]]


def leaf_order(correlation: np.ndarray) -> np.ndarray:
    """Order dimensions so that those which correlate stand together.

    Parameters
    ----------
    correlation : ndarray of shape (D, D)
        As in ``linkage_of``.

    Returns
    -------
    ndarray of shape (D,), int64
        A permutation: the leaves of the tree.
    """
    from scipy.cluster.hierarchy import leaves_list

    if len(correlation) == 1:
        return np.zeros(1, dtype=np.int64)
    return leaves_list(linkage_of(correlation)).astype(np.int64)


def relative_size(moments: Moments, live: np.ndarray) -> np.ndarray:
    """Mean square of each dimension that varies, in units of its variance; (d,)."""
    whole = moments.whole()
    return 1 + whole.n * whole.means[0, 0, live] ** 2 / whole.squares[0, 0, live]


def correlation_noise(moments: Moments, live: np.ndarray) -> float:
    """Largest eigenvalue of a correlation matrix that rounding to the storage precision explains.

    Parameters
    ----------
    moments : Moments
        Of the rows.
    live : ndarray of int
        Dimensions that vary: those of the matrix.

    Returns
    -------
    float
        ``eigenvalue_floor`` of the standardised dimensions.
    """
    mean_square = float(relative_size(moments, live).max())
    return eigenvalue_floor(0.0, mean_square, moments.n, len(live), moments.eps)


def variance_inflation(correlation: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Variance inflation factor of every dimension: 1 / (1 - R^2) of it on all others.

    Parameters
    ----------
    correlation : ndarray of shape (D, D)
        Symmetric, without NaN.
    noise : float, default=0
        An eigenvalue that is no larger counts as zero, as one up to D eps lambda_max does.

    Returns
    -------
    ndarray of shape (D,)
        At least 1; infinite exactly where some eigenvector whose eigenvalue counts as zero has a
        component of more than 1e-8; else the diagonal of the pseudo-inverse.
    """
    eigenvalues, vectors = np.linalg.eigh(correlation)
    floor = len(correlation) * np.finfo(np.float64).eps * eigenvalues[-1]
    null = eigenvalues <= max(floor, noise)
    involved = (np.abs(vectors[:, null]) > _COMPONENT).any(axis=1)
    kept = vectors[:, ~null]
    diagonal = np.einsum("dk,k,dk->d", kept, 1 / eigenvalues[~null], kept)
    return np.where(involved, np.inf, np.maximum(diagonal, 1.0))


def inflation_by_chance(n_samples: float, n_dimensions: int) -> float:
    """Median variance inflation factor of independent dimensions; NaN where N <= D.

    Parameters
    ----------
    n_samples : float
        N.
    n_dimensions : int
        D.

    Returns
    -------
    float
        R^2 of a Gaussian dimension on D - 1 others follows a Beta distribution with (D - 1) / 2
        and (N - D) / 2.
    """
    from scipy.stats import beta

    if n_samples <= n_dimensions:
        return float("nan")
    if n_dimensions < 2:
        return 1.0
    left = (n_samples - n_dimensions) / 2, (n_dimensions - 1) / 2
    return 1 / float(beta.median(*left))  # of 1 - R^2


def largest_r_squared_by_chance(n_samples: float, n_dimensions: int, level: float = 0.95) -> float:
    """Quantile of the largest R^2 of independent Gaussian dimensions; NaN where N <= D.

    Parameters
    ----------
    n_samples : float
        N.
    n_dimensions : int
        D >= 2.
    level : float, default=0.95
        Probability that none is larger, at least: by Bonferroni's inequality.

    Returns
    -------
    float
        In (0, 1).
    """
    from scipy.stats import beta

    if n_samples <= n_dimensions:
        return float("nan")
    tail = (1 - level) / n_dimensions
    return float(beta.isf(tail, (n_dimensions - 1) / 2, (n_samples - n_dimensions) / 2))


def pairs_by_chance(n_samples: int, n_dimensions: int, cut: float) -> float:
    """Count the pairs of independent Gaussian dimensions that reach a correlation, on average.

    Parameters
    ----------
    n_samples, n_dimensions : int
        N and D.
    cut : float
        In (0, 1].

    Returns
    -------
    float
        At most D (D - 1) / 2.
    """
    from scipy.stats import beta

    n_pairs = n_dimensions * (n_dimensions - 1) / 2
    if n_samples < 3:
        return n_pairs
    return n_pairs * float(beta.sf(cut**2, 0.5, (n_samples - 2) / 2))


def pivot_order(covariance: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Order dimensions by pivoted QR, and say how much of all the first ones explain.

    Parameters
    ----------
    covariance : ndarray of shape (D, D)
        Symmetric, positive semi-definite, not zero.
    floor : float, default=0
        Variance that is no more than rounding: dimensions of which so little is left explain
        nothing more.

    Returns
    -------
    order : ndarray of shape (D,), int64
        Each time the dimension of which the ones before explain least; ties go by LAPACK.
    share : ndarray of shape (D,)
        Share of the trace that a linear map of the first 1, 2, ... D of them explains.

    Notes
    -----
    A pivoted Cholesky factorisation of the covariance takes the pivots of a QR factorisation of the
    centred rows: after k steps the rest of the diagonal is what is left unexplained.
    """
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
    """Turn one group id a dimension into index arrays, in order of their lowest dimension.

    Parameters
    ----------
    ids : ndarray of shape (D,), int
        Any integers; equal ones belong together.

    Returns
    -------
    list of ndarray of int
        Dimensions of each group, ascending.

    Examples
    --------
    >>> [group.tolist() for group in groups_of(np.array([7, 3, 7]))]
    [[0, 2], [1]]
    """
    first: dict[int, list[int]] = {}
    for dimension, group in enumerate(ids.tolist()):
        first.setdefault(group, []).append(dimension)
    return [np.array(members) for members in first.values()]
