"""What a factor explains of every dimension beyond the label: out of fold, and against chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.rounding import eps_of, spread_floor

_ELEMENTS = 1 << 22  # of rows that are summed together
KNOTS = np.array([0.05, 0.275, 0.5, 0.725, 0.95])  # quantiles of a continuous factor's values
_COUNTED = 0.22  # largest share of one value where knots would coincide: they lie 0.225 apart
_APART = 1e-7  # of the span of the knots: values nearer than that count as equal
HARMONICS = 2  # of a factor that wraps
_RANK = 1e-9  # directions below this share of the largest singular value are rounding


def expand(values: np.ndarray, period: float | None = None) -> np.ndarray:
    """Columns (N, P) that span smooth functions of a factor (N,), the constant left out."""
    # A floating factor: a restricted cubic spline of 4 columns (fewer than 5 different values: one
    # column less than there are values), or with a period sines and cosines of two harmonics; else
    # one column a category but the first. The knots are the 5, 27.5, 50, 72.5 and 95 % quantiles,
    # the tails linear (Harrell, "Regression Modeling Strategies", 2nd edition, section 2.4). Where
    # values are so frequent that knots would coincide, their copies beyond a share of 22 % are not
    # counted, which moves the knots to the next different values.
    if values.dtype.kind != "f":
        codes = np.unique(values, return_inverse=True)[1]
        return np.eye(codes.max() + 1)[codes][:, 1:]
    if period is not None:
        angle = 2 * np.pi * values[:, None] / period * np.arange(1, HARMONICS + 1)
        return np.hstack([np.cos(angle), np.sin(angle)])
    return _restricted_spline(values)


def _restricted_spline(values: np.ndarray) -> np.ndarray:
    """Columns whose tails are flat, then one that slopes in each tail alone."""
    # So the columns are far from collinear however far the tails reach.
    from scipy.interpolate import CubicSpline

    scale = np.abs(values).max(initial=0.0)
    x = values.astype(np.float64) / (scale if scale > 0 else 1.0)
    knots = _knots(x)
    if len(knots) < 3:
        return x[:, None] if len(knots) == 2 else np.zeros((len(x), 0))
    low, high = knots[[0, -1]]
    spline = CubicSpline((knots - low) / (high - low), np.eye(len(knots)), bc_type="natural")
    slopes = spline([0.0, 1.0], 1)
    flat = np.linalg.svd(slopes)[2][2:].T
    flat = orthonormal(flat - flat.mean(axis=0), _APART)  # without the constant, also flat
    columns = spline((x.clip(low, high) - low) / (high - low))
    columns = columns @ np.hstack([flat, np.linalg.pinv(slopes) * (high - low)])
    columns[:, -2] += np.minimum(x - low, 0)
    columns[:, -1] += np.maximum(x - high, 0)
    return columns


def _knots(x: np.ndarray) -> np.ndarray:
    """Quantiles of values, or the next different ones; all values where there are fewer."""
    knots = np.quantile(x, KNOTS)
    span = knots[-1] - knots[0] or x.max() - x.min()
    if not span > 0:
        return x[:1]
    grid = _APART * span
    near = (x - knots[0]).clip(-span, 2 * span)  # knots lie among these
    different, counts = np.unique(np.round(near / grid), return_counts=True)
    different = knots[0] + different * grid
    if len(different) <= len(KNOTS):
        return different
    if np.diff(knots).min() > grid:
        return knots
    largest = np.sort(counts)[::-1]
    for n in range(1, len(KNOTS)):  # the n most frequent values are cut to a share of 22 % each
        cut = _COUNTED * largest[n:].sum() / (1 - n * _COUNTED)
        if cut >= largest[n]:
            break
    cumulated = np.minimum(counts, cut).cumsum()
    return different[np.searchsorted(cumulated, KNOTS * cumulated[-1])]


def class_means(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean of the rows (N, P) of each class, (K, P), in float64."""
    return class_sums(rows, codes, int(codes.max()) + 1) / np.bincount(codes)[:, None]


def class_sums(rows: np.ndarray, codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Sum of the rows (N, P) of each class, (K, P), in float64; of no class where K is 0."""
    sums = np.zeros((n_classes, rows.shape[1]))
    for part in blocks(len(rows) if n_classes else 0, _ELEMENTS // max(1, rows.shape[1])):
        order = np.argsort(codes[part], kind="stable")
        present, starts = np.unique(codes[part][order], return_index=True)
        sums[present] += np.add.reduceat(rows[part][order].astype(np.float64), starts, axis=0)
    return sums


def without_class_means(columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Subtract the class means from columns (N, P), in float64."""
    return columns - class_means(columns, codes)[codes]


@dataclass(frozen=True, eq=False)
class Label:
    """What effects are given: an intercept a class, or covariates beside one intercept."""

    codes: np.ndarray  # (N,) class indices from 0; zeros where the label is no class
    columns: np.ndarray  # (N, C) covariates, orthonormal and of mean 0; none where it is

    @classmethod
    def of(cls, target: np.ndarray) -> Label:
        """Take classes (N,), real values (N, T), each as a spline, or T labels 0 or 1 (N, T)."""
        if target.ndim == 1:
            return cls(np.unique(target, return_inverse=True)[1], np.empty((len(target), 0)))
        each = [target] if target.dtype.kind != "f" else [expand(values) for values in target.T]
        return cls(np.zeros(len(target), dtype=np.int64), orthonormal(varying(np.hstack(each))))

    @property
    def n_parameters(self) -> int:
        """Intercepts and covariates."""
        return int(self.codes.max()) + 1 + self.columns.shape[1]

    def fit(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return intercepts (K, P) and weights (C, P) of least squares on rows (N, P)."""
        means = class_means(rows, self.codes)
        if self.columns.shape[1] == 0:
            return means, np.empty((0, rows.shape[1]))
        return means, self.columns.T @ (rows - means)

    def fitted(self, fit: tuple[np.ndarray, np.ndarray], rows: slice) -> np.ndarray:
        """Return what a fit makes of some rows, (B, P)."""
        found: np.ndarray = fit[0][self.codes[rows]]
        return found + self.columns[rows] @ fit[1] if len(fit[1]) else found

    def without(self, rows: np.ndarray) -> np.ndarray:
        """Subtract from rows (N, P) what the label explains of them, in float64."""
        return rows - self.fitted(self.fit(rows), slice(None))


def varying(columns: np.ndarray) -> np.ndarray:
    """Centre columns (N, P) and make them of norm 1; leave out what does not vary."""
    centred = columns - columns.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    largest = np.maximum(np.abs(columns).max(axis=0, initial=0.0), 1e-300)
    varies = size > np.sqrt(len(columns)) * spread_floor(largest, eps_of("float64"))
    return centred[:, varies] / size[varies]


def orthonormal(columns: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Orthonormal basis (N, R) of the span of columns, without directions that are rounding."""
    if columns.shape[1] == 0:
        return columns
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > max(_RANK * float(values[0]), 1e-300, least)]


class _Sums(NamedTuple):
    """Sums over rows of products of a design (N, P), of features (N, D) and of classes (N, K)."""

    gram: np.ndarray  # (P, P)
    moments: np.ndarray  # (P, D)
    counts: np.ndarray  # (K,)
    of_design: np.ndarray  # (K, P)
    of_features: np.ndarray  # (K, D)
    squares: np.ndarray  # (D,)

    @classmethod
    def of(
        cls, design: np.ndarray, features: np.ndarray, codes: np.ndarray, n_classes: int
    ) -> _Sums:
        features = features.astype(np.float64)
        numbers = np.bincount(codes, minlength=n_classes)[:n_classes].astype(np.float64)
        of_design, of_features = (class_sums(each, codes, n_classes) for each in (design, features))
        squares = np.einsum("nd,nd->d", features, features)
        gram, moments = design.T @ design, design.T @ features
        return cls(gram, moments, numbers, of_design, of_features, squares)

    def changed_by(self, other: _Sums, sign: int) -> _Sums:
        """Return the sums with those of further rows, or without those of some of them."""
        return _Sums(*(one + sign * another for one, another in zip(self, other, strict=True)))


def out_of_fold_errors(
    features: np.ndarray,
    design: np.ndarray,
    folds: np.ndarray,
    models: Sequence[np.ndarray],
    ordered: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    codes: np.ndarray | None = None,
) -> np.ndarray:
    """Squared errors (S, D) of S models when each fold is predicted from the others."""
    # One pass over the data: a fold's error is h'h - 2 w'X'h + w'X'X w, floored at 0. Each model is
    # a set of columns of the design (N, P); with class indices ``codes`` (N,) it also has an
    # intercept a class, which is eliminated, so that a thousand classes cost no more than ten. Rows
    # of fold -1 are in every train part and never predicted. ``ordered`` holds values and the
    # columns that are functions of them: these are not extrapolated, a value beyond those of the
    # other folds is read as the nearest of these.
    n_classes = 0 if codes is None else int(codes.max()) + 1
    codes = np.zeros(len(features), dtype=np.int64) if codes is None else codes
    fitted, held = [], []
    for fold in range(folds.max() + 1):
        rows = np.flatnonzero(folds == fold)
        fitted.append(_Sums.of(design[rows], features[rows], codes[rows], n_classes))
        within = _without_extrapolation(design, ordered, rows, np.flatnonzero(folds != fold))
        held.append(
            fitted[-1]
            if within is None
            else _Sums.of(within, features[rows], codes[rows], n_classes)
        )
    kept = np.flatnonzero(folds < 0)
    whole = _Sums.of(design[kept], features[kept], codes[kept], n_classes)
    for each in fitted:
        whole = whole.changed_by(each, 1)
    error = np.zeros((len(models), features.shape[1]))
    for model, columns in enumerate(models):
        for own, seen in zip(fitted, held, strict=True):
            error[model] += _error(whole.changed_by(own, -1), seen, columns)
    return error


def _error(others: _Sums, seen: _Sums, columns: np.ndarray) -> np.ndarray:
    """Squared error (D,) in rows seen of the fit to other rows of some columns and intercepts."""
    square, share = np.ix_(columns, columns), 1 / np.maximum(others.counts, 1)[:, None]
    crossed = others.of_design[:, columns]
    gram = others.gram[square] - crossed.T @ (share * crossed)
    moments = others.moments[columns] - crossed.T @ (share * others.of_features)
    weights = np.linalg.pinv(gram, hermitian=True, rcond=1e-10) @ moments
    intercepts = share * (others.of_features - crossed @ weights)
    left = 2 * seen.moments[columns] - seen.gram[square] @ weights
    explained = np.einsum("pd,pd->d", weights, left)
    left = 2 * (seen.of_features - seen.of_design[:, columns] @ weights)
    explained += np.einsum("kd,kd->d", intercepts, left - seen.counts[:, None] * intercepts)
    return np.maximum(seen.squares - explained, 0)


def _without_extrapolation(
    design: np.ndarray,
    ordered: Sequence[tuple[np.ndarray, np.ndarray]],
    rows: np.ndarray,
    others: np.ndarray,
) -> np.ndarray | None:
    """Rows of the design, values clipped to the range of the others; None: none is outside."""
    held = None
    for values, columns in ordered:
        own, theirs = values[rows], values[others]
        low, high = others[theirs.argmin()], others[theirs.argmax()]
        for beyond, end in ((own < values[low], low), (own > values[high], high)):
            if beyond.any():
                held = design[rows] if held is None else held
                held[np.ix_(beyond, columns)] = design[end, columns]
    return held


@dataclass(frozen=True, eq=False)
class Effects:
    """Shares of squared error out of fold, clipped at 0; NaN where nothing is left to explain."""

    given_label: np.ndarray  # (D, F) ``1 - RSS(h ~ label + factor) / RSS(h ~ label)``
    # (D, F) ``1 - RSS(h ~ label + all factors) / RSS(h ~ label + all other factors)``
    given_all: np.ndarray
    of_label: np.ndarray  # (D,) ``1 - RSS(h ~ label + all factors) / RSS(h ~ all factors)``


def effects(
    features: np.ndarray,
    within: np.ndarray,
    label: Label,
    columns: Sequence[np.ndarray],
    folds: np.ndarray,
    values: Sequence[np.ndarray | None],
) -> Effects:
    """Relative reduction of each dimension's error by each factor and by the label."""
    # ``within`` is ``features`` less what the label explains: what models with the label are fitted
    # to, since they take that off anyhow, and no digits are lost where classes lie far apart.
    design = np.hstack([np.ones((len(within), 1)), *columns, label.columns])
    ends = 1 + np.cumsum([0, *(each.shape[1] for each in columns)])
    blocks = [np.arange(low, high) for low, high in pairwise(ends)]
    ordered = [
        (each, block) for each, block in zip(values, blocks, strict=True) if each is not None
    ]
    every = np.concatenate(blocks)
    models = [every[:0], every, *blocks]
    if len(blocks) > 1:
        models += [np.setdiff1d(every, block) for block in blocks]
    covariates = np.arange(ends[-1], design.shape[1])
    models = [np.concatenate([each, covariates]) for each in models]
    error = out_of_fold_errors(within, design, folds, models, ordered, label.codes)
    constant = np.arange(ends[-1])
    without_label = out_of_fold_errors(features, design, folds, [constant], ordered)
    base, full, single = error[:1], error[1:2], error[2 : 2 + len(blocks)]
    return Effects(
        _share(single, base).T,
        _share(full, error[2 + len(blocks) :] if len(blocks) > 1 else base).T,
        _share(full, without_label)[0],
    )


def _share(error: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Relative reduction of the base error, in [0, 1]; NaN where that is zero."""
    return np.clip(1 - error / np.where(base > 0, base, np.nan), 0, 1)


def f_statistics(features: np.ndarray, columns: np.ndarray, n_classes: int) -> np.ndarray:
    """F statistic (D,) of orthonormal columns (N, R) beyond K class intercepts."""
    total = np.einsum("nd,nd->d", features, features, dtype=np.float64)
    products = columns.T @ features
    explained = np.einsum("rd,rd->d", products, products, dtype=np.float64)
    return f_ratio(explained, total - explained, columns.shape[1], len(features) - n_classes)


def f_ratio(explained: np.ndarray, left: np.ndarray, rank: int, freedom: int) -> np.ndarray:
    """F of what R orthonormal columns explain, ``freedom`` counting what they leave and R."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (explained / rank) / (np.maximum(left, 0) / (freedom - rank))
