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


def sentence_of_gallery(n_candidates: int) -> str:
    """Say among how many candidates a view is searched, which a rate depends on.

    Parameters
    ----------
    n_candidates : int
        First views that a second view is searched among: the gallery.

    Returns
    -------
    str
        One sentence, with what chance finds.
    """
    return (
        f"View retrieval: each view is searched among {n_candidates:,} (chance: "
        f"{1 / n_candidates:.2%}); rates compare only at equal numbers, see retrieval_at."
    )


def retrieval_at(gallery: int, n_closer: np.ndarray, n_candidates: int) -> np.ndarray:
    """Find the rate of view retrieval that a smaller gallery would give.

    Parameters
    ----------
    gallery : int
        Candidates to search among, the right one included, in 1..N.
    n_closer : ndarray of shape (Q,), int
        For each query, how many of the N candidates are closer than the right one.
    n_candidates : int
        N.

    Returns
    -------
    ndarray of shape (Q,)
        Probability that none of ``gallery - 1`` others, drawn without replacement, is closer.

    Raises
    ------
    ValueError
        If the gallery is larger than N, or empty.

    Examples
    --------
    >>> retrieval_at(2, np.array([0, 1, 4]), 5).tolist()
    [1.0, 0.75, 0.0]
    """
    from scipy.stats import hypergeom

    if not 1 <= gallery <= n_candidates:
        raise ValueError(f"gallery must lie in 1..{n_candidates}; got {gallery}.")
    return np.asarray(hypergeom.pmf(0, n_candidates - 1, n_closer, gallery - 1))


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
