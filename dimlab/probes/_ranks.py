"""Singular values of rows and of moments, effective ranks by every definition, and LiDAR."""

from __future__ import annotations

import warnings

import numpy as np

from dimlab.kernels.correlation import dead_dimensions
from dimlab.kernels.jackknife import Estimates, Scale
from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.kernels.spectra import DEFINITIONS, discriminant_rank, entropy_rank
from dimlab.moments import Moments
from dimlab.probes._moments import Deal, caution_of_rank, estimates, refuse_few
from dimlab.refusals import Refusal
from dimlab.representation import Representation

ALIKE = "the means of the samples' views are all the same."
_EPS = float(np.finfo(np.float64).eps)
_LIDAR_DELTA, _LIDAR_ADDED = 1e-4, 1e-7
_CHUNK = 1 << 22


def effective_rank(features: np.ndarray, *, definition: str = "rankme") -> float:
    """Return the effective rank of features, or their RankMe, by a named published definition.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        N >= 2 rows.
    definition : str, default="rankme"
        ``"roy-vetterli"``: exponential of the entropy of normalised singular values [1]_.
        ``"rankme"``: the same with 1e-7 added to each share [2]_. ``"stable-pretraining"``: with
        1e-5, which can exceed the rank (the package's later releases centre first).
        ``"centred"``: of singular values of centred columns. ``"covariance"`` and ``"ssrlib"``: of
        the eigenvalues of their covariance. ``"reptrix"``: the same with 1e-7 added.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        If the definition is unknown, the shape is not (N, D), N < 2, a value is not finite, or all
        features are zero (constant, where centred).
    TypeError
        If the features are not floating.

    Warns
    -----
    UserWarning
        If N <= D.

    References
    ----------
    .. [1] Roy & Vetterli, "The effective rank", EUSIPCO 2007.
    .. [2] Garrido et al., "RankMe", ICML 2023.

    Examples
    --------
    >>> rows = np.vstack([np.eye(3), -np.eye(3)])
    >>> round(effective_rank(rows, definition="covariance"), 6)
    3.0
    """
    if definition not in DEFINITIONS:
        raise Refusal(
            f"definition must be one of {', '.join(map(repr, DEFINITIONS))}; got {definition!r}."
        )
    known = features if isinstance(features, Representation) else Representation(features)
    rows = known.features
    refuse_few(len(rows), 2, "effective_rank")
    caution = caution_of_rank(*rows.shape)
    if caution:
        warnings.warn(caution, UserWarning, stacklevel=2)
    centred, power, added = DEFINITIONS[definition]
    return entropy_rank(singular_values_of_rows(rows, centred, known.eps) ** power, added=added)


def lidar(views: np.ndarray, *, delta: float = 1e-4, added: float = 1e-7) -> float:
    """LiDAR of views: effective rank of what tells samples apart, beside what tells views apart.

    Parameters
    ----------
    views : ndarray of shape (V, N, D), floating
        V >= 2 encodings of each of N >= 2 samples.
    delta : float, default=1e-4
        Added to the diagonal of the covariance within samples, > 0.
    added : float, default=1e-7
        Added to the shares of the eigenvalues, >= 0.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        If the shape is not (V, N, D) with V, N >= 2, a number is out of its range, or the samples'
        means do not differ.

    Notes
    -----
    Between: covariance of the samples' means, over N - 1. Within: of the views around them, over
    N (V - 1), plus ``delta``. No sample's views need be many, but with V = 2 the covariance within
    has at most N degrees of freedom: N should well exceed D.

    References
    ----------
    .. [1] Thilak et al., "LiDAR", ICLR 2024.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> samples = rng.normal(size=(2000, 5))
    >>> views = samples + 0.1 * rng.normal(size=(2, 2000, 5))
    >>> round(lidar(views), 1)
    5.0
    """
    views = np.asarray(views)
    if views.ndim != 3 or len(views) < 2 or views.shape[1] < 2:
        raise Refusal(f"views must have shape (V, N, D) with V, N >= 2; got {views.shape}.")
    if not delta > 0 or not added >= 0:
        raise Refusal(f"delta must be > 0 and added >= 0; got {delta} and {added}.")
    between, within = _view_moments(views, 1, 0)
    found = _lidar(between.whole(), within[0], len(views), delta, added)
    if found is None:
        raise Refusal(f"views must differ between samples; got others: {ALIKE}")
    return found


def singular_values_of_rows(features: np.ndarray, centred: bool, eps: float) -> np.ndarray:
    """Singular values (min(N, D),) of the rows themselves; 0 below what rounding hides."""
    largest = float(np.abs(features).max())
    rows = features.astype(np.float64) / (largest or 1.0)  # squares neither overflow nor vanish
    n, d = rows.shape
    squares = np.einsum("nd,nd->d", rows, rows)
    if centred:
        rows -= rows[0].copy()  # what does not vary is exactly 0 from here on
        rows -= rows.mean(axis=0)
    values = np.linalg.svd(rows, compute_uv=False)
    floor = eigenvalue_floor(float(values[0]) ** 2 / n, float(squares.max()) / n, n, d, eps)
    hidden = float(np.sqrt(n * floor))
    if centred:
        hidden = max(hidden, 8 * _EPS * float(np.sqrt(squares.sum())))  # the rounding of means
    return _not_all_zero(np.where(values > hidden, largest * values, 0.0), centred)


def singular_values_of(moments: Moments, centred: bool) -> np.ndarray:
    """Return the singular values (D,) of the rows, descending; 0 where rounding hides them."""
    whole = moments.whole()
    gram, mean = whole.scatters[0], whole.means[0, 0]
    scale = float((np.diagonal(gram) + whole.n * mean**2).max())
    if not centred:
        gram = gram + whole.n * np.outer(mean, mean)
    values = np.linalg.eigvalsh(gram)[::-1]
    n_dimensions = len(mean)
    if values[0] <= 64 * n_dimensions * _EPS**2 * scale:
        return _not_all_zero(np.zeros_like(values), centred)
    n = whole.n
    floor = eigenvalue_floor(float(values[0]) / n, scale / n, n, n_dimensions, moments.eps)
    return np.sqrt(np.where(values > n * floor, values, 0.0))


def _not_all_zero(values: np.ndarray, centred: bool) -> np.ndarray:
    if values.any():
        return values
    what = "vary" if centred else "have an entry that is not zero"
    raise Refusal(f"features must {what}; got none, whose ranks are undefined.")


def _view_moments(
    views: np.ndarray, n_blocks: int, seed: int, ids: np.ndarray | None = None
) -> tuple[Moments, np.ndarray]:
    """Moments of the samples' means, and summed squares (B, D, D) of the views around them."""
    _, n_samples, n_dimensions = views.shape
    step = max(1, _CHUNK // n_dimensions)
    slices = [slice(start, start + step) for start in range(0, n_samples, step)]

    def means(part: slice) -> np.ndarray:
        return views[:, part].mean(axis=0, dtype=np.float64)

    between = Moments.of(
        (means(part) for part in slices), n_blocks=n_blocks, seed=seed, clusters=ids
    )
    within = np.zeros((n_blocks, n_dimensions, n_dimensions))
    for view in views:
        around = Moments.of(
            (view[part].astype(np.float64) - means(part) for part in slices),
            n_blocks=n_blocks,
            seed=seed,
            clusters=ids,
        )
        mean = around.means[:, 0]
        within += around.scatters
        within += np.einsum("b,bi,bj->bij", around.counts, mean, mean)
    return between, within


def _lidar(
    between: Moments, within: np.ndarray, n_views: int, delta: float, added: float
) -> float | None:
    """LiDAR from moments of one block and squares (D, D); None where samples do not differ."""
    if dead_dimensions(between).all():
        return None
    n = between.n
    return discriminant_rank(
        within / (n * (n_views - 1)), between.scatters[0] / (n - 1), added=added, delta=delta
    )


def lidar_with_interval(views: np.ndarray, deal: Deal, ids: np.ndarray | None) -> Estimates | None:
    """LiDAR, its corrected value and the interval of that; None where samples do not differ."""
    between, within = _view_moments(views, deal.n_blocks, deal.seed, ids)
    blocks = iter(np.flatnonzero(between.counts))
    total = within.sum(axis=0)

    def number(mean: Moments) -> np.ndarray:
        rest = total if mean.n == between.n else total - within[next(blocks)]
        value = _lidar(mean, rest, len(views), _LIDAR_DELTA, _LIDAR_ADDED)
        return np.array([np.nan if value is None else value])

    scale = Scale(lowest=1.0, highest=float(between.n_dimensions))
    found = estimates(between, number, [scale])
    return None if np.isnan(found.value[0]) else found
