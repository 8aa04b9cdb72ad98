"""How alike two representations of the same samples are, as a whole and dimension by dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.kernels.rows import Rows

_ELEMENTS = 1 << 22


def centred_products(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred products (D, E) of features (N, D) and (N, E), and squared row norms (N,) of both."""
    x_mean, y_mean = (each.mean(axis=0, dtype=np.float64) for each in (x, y))
    # ratios are all that counts: fourth powers neither overflow nor vanish
    x_size, y_size = (float(np.abs(each).max()) or 1.0 for each in (x, y))
    product = np.zeros((x.shape[1], y.shape[1]))
    squares = np.empty((2, len(x)))
    for rows in blocks(len(x), _ELEMENTS // max(x.shape[1], y.shape[1])):
        a, b = (x[rows] - x_mean) / x_size, (y[rows] - y_mean) / y_size
        product += a.T @ b
        squares[0, rows] = np.einsum("nd,nd->n", a, a)
        squares[1, rows] = np.einsum("nd,nd->n", b, b)
    return product, squares[0], squares[1]


def hilbert_schmidt(
    product: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray, *, debiased: bool
) -> float:
    """Hilbert-Schmidt independence criterion of two linear kernels, up to a factor."""
    # Song et al., "Feature selection via dependence maximization", JMLR 13, 2012. The unbiased
    # estimate sets the kernels' diagonals to 0 and U-centres them; for centred features its four
    # sums follow from the D x E product and the rows' norms, so no N x N kernel is formed (N >= 4).
    energy = float(np.einsum("ij,ij->", product, product))
    if not debiased:
        return energy
    n = len(x_squares)
    both = float(x_squares @ y_squares)
    apart = float(x_squares.sum() * y_squares.sum())
    total = energy - both + apart / ((n - 1) * (n - 2)) - 2 * both / (n - 2)
    return total / (n * (n - 3))


def nuclear_similarity(product: np.ndarray, x_squares: np.ndarray, y_squares: np.ndarray) -> float:
    """Largest correlation of two centred feature matrices that a rotation of one can reach."""
    # 1 for a rotated and scaled copy; 1 less its square is the Procrustes disparity.
    size = float(np.sqrt(x_squares.sum() * y_squares.sum()))
    return min(1.0, float(np.linalg.svd(product, compute_uv=False).sum()) / size)


def sentence_of_gallery(n_candidates: int) -> str:
    """Say among how many candidates a view is searched, which a rate depends on."""
    return (
        f"View retrieval: each view is searched among {n_candidates:,} (chance: "
        f"{1 / n_candidates:.2%}); rates compare only at equal numbers, see retrieval_at."
    )


def retrieval_at(gallery: int, n_closer: np.ndarray, n_candidates: int) -> np.ndarray:
    """Rates (Q,) of view retrieval in a smaller gallery, drawn without replacement."""
    # ``n_closer`` (Q,) of the N candidates are closer to each of Q rows than the right one.
    from scipy.stats import hypergeom

    if not 1 <= gallery <= n_candidates:
        raise Refusal(f"gallery must lie in 1..{n_candidates}; got {gallery}.")
    return np.asarray(hypergeom.pmf(0, n_candidates - 1, n_closer, gallery - 1))


def matched_dimensions(correlation: np.ndarray) -> np.ndarray:
    """Partners (D,) of an exact one-to-one matching by absolute correlation (D, E); -1: none."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-np.abs(np.nan_to_num(correlation)))
    partner = np.full(len(correlation), -1, dtype=np.int64)
    partner[rows] = columns
    return partner


class CosineShares(NamedTuple):
    """Shares of the cosine similarity that each of D dimensions has, over rows with a direction."""

    n_rows: int  # with a direction: rows of zeros have none
    share: np.ndarray  # (D,) mean of x_d^2 / |x|^2
    spread: np.ndarray  # (D,) standard deviation of it over rows
    direction: np.ndarray  # (D,) sum of x_d / |x|

    @classmethod
    def of(cls, rows: Rows) -> CosineShares:
        """Measure rows, in blocks of them."""
        n_rows = int((rows.factor > 0).sum())
        share, squares, direction = np.zeros((3, rows.n_dimensions))
        for part in blocks(len(rows), _ELEMENTS // rows.n_dimensions):
            unit = rows.unit(part).numpy()
            direction += unit.sum(axis=0)
            energy = unit**2
            share += energy.sum(axis=0)
            squares += (energy**2).sum(axis=0)
        share /= max(1, n_rows)
        spread = np.sqrt(np.maximum(squares / max(1, n_rows) - share**2, 0))
        return cls(n_rows, share, spread, direction)
