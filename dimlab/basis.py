"""Other bases of feature space: a claim about dimensions holds in the basis it was made in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.given import RepresentationLike, as_representation
from dimlab.kernels.rounding import coarser, eigenvalue_floor, eps_of
from dimlab.kernels.spectra import principal_axes
from dimlab.refusals import Refusal
from dimlab.representation import Representation

KINDS = ("pca", "whiten", "varimax", "ica")
_STABLE = 0.9  # correlation of a direction's scores between two halves of train
_ICA_ROWS = 20_000
_DECIMALS = 10  # entries that agree to so many are equal
_ITERATIONS = 1000
_SWEEPS = 100
_SMALL_ANGLE = 1e-7


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions of feature space, fitted on one split; every probe runs on what it returns.

    Parameters
    ----------
    kind : {"pca", "whiten", "varimax", "ica"}
        How the directions were found.
    directions : ndarray of shape (D, R), float64
        One column a direction.
    offset : ndarray of shape (D,), float64
        Subtracted first: the train mean for ``whiten`` and ``ica``, zeros for the rest.
    variances : ndarray of shape (R,), float64
        Variance of the train rows along each direction; 0 for one that carries the mean alone.
    stability : ndarray of shape (R,), float64
        Agreement of two fits on disjoint halves of train, in [0, 1]; see `fit_basis`.
    n_dropped : int
        Directions that were left out: train does not vary along them.
    precision : str, default="float64"
        What the train features were rounded to.
    level : float, default=0
        Mean of the train rows along the direction of variance 0, if there is one.
    rounding : float, default=0
        Largest distance of a train row from it, which is rounding.

    References
    ----------
    Those of `fit_basis`, which makes it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> mixed = Representation(rng.normal(size=(400, 2)) * [3.0, 1.0] + [5.0, 0.0])
    >>> basis = fit_basis(mixed, "whiten")
    >>> basis.apply(mixed).features.std(axis=0).round(6).tolist()
    [1.0, 1.0]
    >>> basis.centred, basis.stable.tolist(), basis.summary()["n_stable"]
    (True, [True, True], 2)
    """

    kind: str
    directions: np.ndarray
    offset: np.ndarray
    variances: np.ndarray
    stability: np.ndarray
    n_dropped: int
    precision: str = "float64"
    level: float = 0.0
    rounding: float = 0.0

    def __repr__(self) -> str:
        """Return one line: how the directions were found, and how many there are."""
        n_dimensions, n_directions = self.directions.shape
        return (
            f"Basis({self.kind!r}, {n_directions:,} directions of {n_dimensions:,} dimensions, "
            f"{int(self.stable.sum()):,} of them stable)"
        )

    @property
    def centred(self) -> bool:
        """Whether the train mean is subtracted; cosine similarities then differ from the axes'."""
        return self.kind in ("whiten", "ica")

    @property
    def stable(self) -> np.ndarray:
        """Directions that two halves of train agree on: stability of at least 0.9; (R,) bool."""
        return self.stability >= _STABLE

    def apply(self, representation: RepresentationLike) -> Representation:
        """Express a representation in this basis.

        Parameters
        ----------
        representation : Representation or array
            Of the D dimensions that the basis was fitted on.

        Returns
        -------
        Representation
            Features (N, R) and views in float64; labels and factors unchanged;
            ``meta["basis"]`` names the basis. Along a direction of variance 0, which carries the
            mean, a row that differs from the train mean by rounding alone has exactly that value.

        Raises
        ------
        ValueError
            If the representation has other dimensions, or is in another basis already.
        """
        representation = as_representation(representation)
        if representation.n_dimensions != len(self.directions):
            raise Refusal(
                f"representation must have the {len(self.directions)} dimensions that the basis "
                f"was fitted on; got {representation.n_dimensions}."
            )
        _refuse_other_basis(representation)
        views = representation.views
        return representation._trusted(
            features=self._scores(representation.features),
            views=None if views is None else np.stack([self._scores(view) for view in views]),
            meta={
                **representation.meta,
                "basis": self.kind,
                "precision": coarser(representation.precision, self.precision),
            },
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            ``kind``, ``centred``, ``n_directions``, ``n_dropped``, ``n_stable`` and, ``in_words``,
            what the basis does to a full score and whether its directions mean anything.
        """
        words = (
            "centred: the full score of a kNN reader is not that of the axes"
            if self.centred
            else "orthogonal, not centred: the full score of a kNN reader is that of the axes"
        )
        n_stable = int(self.stable.sum())
        if n_stable == 0:
            words += "; no direction is the same in two halves of train: the basis is arbitrary"
        return {
            "kind": self.kind,
            "centred": self.centred,
            "n_directions": self.directions.shape[1],
            "n_dropped": self.n_dropped,
            "n_stable": n_stable,
            "in_words": words,
        }

    def _scores(self, features: np.ndarray) -> np.ndarray:
        rows = features.astype(np.float64)
        scores = (rows - self.offset) @ self.directions
        for place in np.flatnonzero(self.variances == 0):
            # every entry may be off by half a unit in its last digit, in a row and in the mean
            bound = eps_of(self.precision) * (np.abs(rows) @ np.abs(self.directions[:, place]))
            distance = np.abs(scores[:, place] - self.level)
            scores[distance <= np.maximum(bound, self.rounding), place] = self.level
        return scores


def fit_basis(
    train: RepresentationLike, kind: str, *, n_directions: int | None = None, seed: int = 0
) -> Basis:
    """Find directions of feature space in which to ablate, on the train split.

    Parameters
    ----------
    train : Representation or array
        N >= 4 samples of D dimensions, in the axes' own basis.
    kind : {"pca", "whiten", "varimax", "ica"}
        ``pca``: eigenvectors of the covariance, largest variance first. ``whiten``: the same,
        centred and scaled to unit variance. ``varimax``: the leading principal axes, rotated so
        that few of the D dimensions load on each [1]_. ``ica``: independent components, FastICA
        with the log-cosh contrast [2]_ on the leading principal axes.
    n_directions : int, optional
        Keep the principal axes of largest variance only. By default all along which train varies.
    seed : int, default=0
        Seed of FastICA's start and of the halves for ``stability``.

    Returns
    -------
    Basis
        With ``apply``, which every probe's input goes through.

    Raises
    ------
    ValueError
        If the kind is unknown, there are fewer than 4 rows, the features do not vary at all,
        ``n_directions`` is out of range, or the representation is in a fitted basis already.

    Notes
    -----
    Directions whose eigenvalue is no more than rounding, at most ``max(D eps64 lambda_max, 4 (1 +
    sqrt(D / N))^2 eps^2 / 12 max_d mean x_d^2)`` with the eps of the precision that train is stored
    in, are dropped and counted. ``pca``
    and ``varimax`` rotate and do not centre; where the mean leaves the directions that are kept,
    one more carries it, so that cosine similarities stay those of the axes.

    ``stability``: the basis is fitted on two disjoint halves of train as well, and each direction
    is matched with the one of either half whose scores correlate best with its own. The stability
    is the absolute correlation of the two matches, on all train rows. Sampling noise alone picks
    the directions of isotropic data, and their stability is low.

    References
    ----------
    .. [1] Kaiser, "The varimax criterion for analytic rotation in factor analysis", 1958.
    .. [2] Hyvarinen, "Fast and robust fixed-point algorithms for independent component analysis",
       1999.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sources = rng.uniform(-1, 1, size=(500, 2)) * [3.0, 1.0]
    >>> mixed = Representation(sources @ np.array([[0.6, 0.8], [-0.8, 0.6]]))
    >>> basis = fit_basis(mixed, "pca")
    >>> basis.directions.T.round(1).tolist()  # the wide source first
    [[0.6, 0.8], [0.8, -0.6]]
    """
    train = as_representation(train, "train")
    if kind not in KINDS:
        raise Refusal(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    _refuse_other_basis(train)
    if len(train) < 4:
        raise Refusal(f"train must have at least 4 rows for a basis; got {len(train)}.")
    rng = np.random.default_rng(seed)
    features = train.features.astype(np.float64)
    offset, directions, variances, n_dropped = _fit(features, kind, n_directions, seed, train.eps)
    centred = features - features.mean(axis=0)
    covariance = centred.T @ centred / len(features)
    rows = rng.permutation(len(features))
    matches = []
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        try:
            other = _fit(features[np.sort(half)], kind, n_directions, seed, train.eps)[1]
        except ValueError:  # a half may vary along fewer directions
            other = np.zeros((len(offset), 1))
        matches.append(_best_matches(covariance, directions, other))
    stability = np.abs(_correlations(covariance, matches[0], matches[1]))
    level = rounding = 0.0
    for place in np.flatnonzero(variances == 0):
        level = float(features.mean(axis=0) @ directions[:, place])
        rounding = float(np.abs(features @ directions[:, place] - level).max())
    return Basis(
        kind, directions, offset, variances, stability, n_dropped, train.precision, level, rounding
    )


def _refuse_other_basis(representation: Representation) -> None:
    known = representation.meta.get("basis")
    if known is not None:
        raise Refusal(
            f"representation must be in the axes' own basis; got one in the basis {known!r}."
        )


def _fit(
    features: np.ndarray, kind: str, n_directions: int | None, seed: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Offset (D,), directions (D, R), variances (R,) and the number of directions dropped."""
    mean = features.mean(axis=0)
    centred = features - mean
    eigenvalues, vectors = principal_axes(centred)
    size = float(np.einsum("nd,nd->d", features, features).max() / len(features))
    n_rows, n_columns = features.shape
    floor = eigenvalue_floor(float(eigenvalues[0]), size, n_rows, n_columns, eps)
    n_axes = int((eigenvalues > floor).sum())
    if eigenvalues[0] <= 0 or n_axes == 0:
        raise Refusal("train must vary in some dimension; got only equal rows.")
    n_kept = n_axes if n_directions is None else n_directions
    if not 1 <= n_kept <= n_axes:
        raise Refusal(f"n_directions must lie in 1..{n_axes}; got {n_directions}.")
    variances, axes = eigenvalues[:n_kept], vectors[:, :n_kept]
    axes = axes * _signs(axes)
    n_dropped = len(mean) - n_axes
    if kind == "whiten":
        return mean, axes / np.sqrt(variances), np.ones(n_kept), n_dropped
    if kind == "ica":
        unmixing = _independent((centred @ axes) / np.sqrt(variances), seed)
        return mean, axes / np.sqrt(variances) @ unmixing, np.ones(n_kept), n_dropped
    if kind == "varimax":
        rotation = _varimax(axes * np.sqrt(variances))
        axes = axes @ rotation
        variances = variances @ rotation**2
    if n_directions is None and n_dropped:
        left = mean - axes @ (axes.T @ mean)
        if np.linalg.norm(left) > max(eps, np.sqrt(len(mean)) * 1e-12) * np.linalg.norm(mean):
            axes = np.column_stack([axes, left / np.linalg.norm(left)])
            variances, n_dropped = np.append(variances, 0.0), n_dropped - 1
    return np.zeros_like(mean), axes, variances, n_dropped


def _signs(axes: np.ndarray) -> np.ndarray:
    """Signs that make the largest entry of each column positive, the first of equal ones."""
    largest = np.abs(axes).round(_DECIMALS).argmax(axis=0)
    return np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)


def _varimax(loadings: np.ndarray) -> np.ndarray:
    """Rotation (R, R) that maximises the variance of the squared loadings (D, R) by column."""
    # Kaiser's planar rotations, many disjoint pairs of columns at once: every one raises the
    # criterion. (The shorter fixed-point iteration can swing between two rotations.)
    n_rows, n_axes = loadings.shape
    # columns of one array, so that both turn together
    turned = np.vstack([loadings, np.eye(n_axes)])
    for _ in range(_SWEEPS):
        largest = 0.0
        for i, j in _rounds(n_axes):
            x, y = turned[:n_rows, i], turned[:n_rows, j]
            u, v = x**2 - y**2, 2 * x * y
            a, b = u.sum(axis=0), v.sum(axis=0)
            sine = 2 * (u * v).sum(axis=0) - 2 * a * b / n_rows
            cosine = (u**2 - v**2).sum(axis=0) - (a**2 - b**2) / n_rows
            angle = np.arctan2(sine, cosine) / 4
            x, y = turned[:, i], turned[:, j]
            turned[:, i] = np.cos(angle) * x + np.sin(angle) * y
            turned[:, j] = np.cos(angle) * y - np.sin(angle) * x
            largest = max(largest, float(np.abs(angle).max()))
        if largest < _SMALL_ANGLE:
            break
    left, _, right = np.linalg.svd(turned[n_rows:])
    return left @ right


def _rounds(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every pair of 0 .. n-1 once, in rounds of disjoint pairs."""
    players = np.arange(n + n % 2)
    for _ in range(len(players) - 1):
        i, j = players[: len(players) // 2], players[::-1][: len(players) // 2]
        real = (i < n) & (j < n)
        if real.any():
            yield i[real], j[real]
        players = np.concatenate([players[:1], players[-1:], players[1:-1]])


def _independent(whitened: np.ndarray, seed: int) -> np.ndarray:
    """Rotation (R, R) of whitened rows to independent components."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    rows = whitened
    if len(rows) > _ICA_ROWS:
        chosen = np.random.default_rng(seed).choice(len(rows), _ICA_ROWS, replace=False)
        rows = rows[np.sort(chosen)]
    model = FastICA(whiten=False, max_iter=_ITERATIONS, tol=1e-6, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stability says it better
        model.fit(rows)
    left, _, right = np.linalg.svd(model.components_.T)
    return left @ right  # exactly orthogonal, whatever the tolerance


def _best_matches(covariance: np.ndarray, directions: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Columns of ``other`` whose scores correlate best with those of each direction, (D, R)."""
    correlation = _unit(covariance, directions).T @ covariance @ _unit(covariance, other)
    return other[:, np.abs(correlation).round(_DECIMALS).argmax(axis=1)]


def _correlations(covariance: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the scores along each column of one with those along the other's."""
    product = (_unit(covariance, a) * (covariance @ _unit(covariance, b))).sum(axis=0)
    return product.clip(-1, 1)


def _unit(covariance: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Directions scaled to scores of variance 1; those along which nothing varies are zero."""
    deviation = np.sqrt(np.maximum((directions * (covariance @ directions)).sum(axis=0), 0))
    shown = deviation > 1e-12 * deviation.max()
    return np.divide(directions, deviation, out=np.zeros_like(directions), where=shown)
