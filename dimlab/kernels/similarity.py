"""How alike two representations of the same samples are, as a whole and dimension by dimension."""

from __future__ import annotations

import numpy as np

_ELEMENTS = 1 << 22


def centred_products(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred cross-product of two feature matrices, and squared norms of their centred rows.

    Parameters
    ----------
    x, y : ndarray of shape (N, D), (N, E), floating
        Features of the same samples, memory-mapped or not.

    Returns
    -------
    product : ndarray of shape (D, E), float64
        Sum over samples of the outer products, both features divided by their largest entry.
    x_squares, y_squares : ndarray of shape (N,), float64
        Squared norm of each row.
    """
    x_mean, y_mean = (each.mean(axis=0, dtype=np.float64) for each in (x, y))
    # ratios are all that counts: fourth powers neither overflow nor vanish
    x_size, y_size = (float(np.abs(each).max()) or 1.0 for each in (x, y))
    product = np.zeros((x.shape[1], y.shape[1]))
    squares = np.empty((2, len(x)))
    step = max(1, _ELEMENTS // max(x.shape[1], y.shape[1]))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        a, b = (x[rows] - x_mean) / x_size, (y[rows] - y_mean) / y_size
        product += a.T @ b
        squares[0, rows] = np.einsum("nd,nd->n", a, a)
        squares[1, rows] = np.einsum("nd,nd->n", b, b)
    return product, squares[0], squares[1]


def hilbert_schmidt(
    product: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray, *, debiased: bool
) -> float:
    """Hilbert-Schmidt independence criterion of two linear kernels.

    Parameters
    ----------
    product, x_squares, y_squares
        From ``centred_products``.
    debiased : bool
        The unbiased estimate, 0 on average for independent features (N >= 4), or the plain one,
        which grows with D / N.

    Returns
    -------
    float
        Up to a factor that cancels in CKA.

    Notes
    -----
    The unbiased estimate sets the kernels' diagonals to 0 and U-centres them. For centred features
    its four sums follow from the D x E product and the rows' norms, so no N x N kernel is formed.

    References
    ----------
    Song et al., "Feature selection via dependence maximization", JMLR 13, 2012.
    """
    energy = float(np.einsum("ij,ij->", product, product))
    if not debiased:
        return energy
    n = len(x_squares)
    both = float(x_squares @ y_squares)
    apart = float(x_squares.sum() * y_squares.sum())
    total = energy - both + apart / ((n - 1) * (n - 2)) - 2 * both / (n - 2)
    return total / (n * (n - 3))


def nuclear_similarity(product: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray) -> float:
    """Largest correlation of two centred feature matrices that a rotation of one can reach.

    Parameters
    ----------
    product, x_squares, y_squares
        From ``centred_products``.

    Returns
    -------
    float
        In [0, 1]; 1 for a rotated and scaled copy. 1 less its square is the Procrustes disparity.
    """
    size = float(np.sqrt(x_squares.sum() * y_squares.sum()))
    return min(1.0, float(np.linalg.svd(product, compute_uv=False).sum()) / size)


def matched_dimensions(correlation: np.ndarray) -> np.ndarray:
    """Match dimensions one to one so that the summed absolute correlation is largest.

    Parameters
    ----------
    correlation : ndarray of shape (D, E)
        NaN counts as 0.

    Returns
    -------
    ndarray of shape (D,), int64
        Partner of each row's dimension; -1 where E < D leaves none.

    Notes
    -----
    The assignment problem, solved exactly.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-np.abs(np.nan_to_num(correlation)))
    partner = np.full(len(correlation), -1, dtype=np.int64)
    partner[rows] = columns
    return partner
