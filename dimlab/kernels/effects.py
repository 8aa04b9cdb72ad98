"""What a factor explains of every dimension beyond the label: out of fold, and against chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

SPLINE_FREEDOM = 4  # columns of a continuous factor
_KNOTS_APART = 1e-9  # of the range: nearer quartiles count as one
HARMONICS = 2  # of a factor that wraps
_TOGETHER = 1 << 24  # elements of permuted columns that are multiplied at once
_SAME = 1e-6  # of a statistic: above the rounding of a null that is kept in float32
_RANK = 1e-9  # of the largest singular value: what less a column adds is nothing

Progress = Callable[[int, int], None]


def expand(values: np.ndarray, period: float | None = None) -> np.ndarray:
    """Columns that span smooth functions of a factor, the constant left out.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Floating: continuous; anything else: categorical.
    period : float, optional
        Of a continuous factor that wraps.

    Returns
    -------
    ndarray of shape (N, P), float64
        Natural cubic spline of 4 degrees of freedom, knots at the quartiles; with a period, sines
        and cosines of two harmonics; one column a category but the first.

    Examples
    --------
    >>> expand(np.array(["a", "b", "c", "b"])).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    if values.dtype.kind != "f":
        codes = np.unique(values, return_inverse=True)[1]
        return np.eye(codes.max() + 1)[codes][:, 1:]
    if period is not None:
        angle = 2 * np.pi * values[:, None] / period * np.arange(1, HARMONICS + 1)
        return np.hstack([np.cos(angle), np.sin(angle)])
    return _natural_spline(values)


def _natural_spline(values: np.ndarray) -> np.ndarray:
    """Cardinal splines of all knots but the first; fewer columns where quartiles coincide.

    Each is 1 at its knot and 0 at the others, so the columns are far from collinear however skewed
    the values are.
    """
    from scipy.interpolate import CubicSpline

    low, high = float(values.min()), float(values.max())
    spread = high - low
    if not spread > 0:
        return np.zeros((len(values), 0))
    x = (values - low) / spread
    knots = np.unique(np.quantile(x, np.linspace(0, 1, SPLINE_FREEDOM + 1)))
    if len(knots) < 2 or np.diff(knots).min() < _KNOTS_APART:
        ends = np.append(knots[:-1][np.diff(knots) >= _KNOTS_APART], 1.0)
        knots = np.unique(np.concatenate([[0.0], ends]))
    return CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(x)[:, 1:]


def without_class_means(columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Take each class's mean off, column by column.

    Parameters
    ----------
    columns : ndarray of shape (N, P), floating
        Any columns.
    codes : ndarray of shape (N,), int
        Class indices from 0, every class with a sample.

    Returns
    -------
    ndarray of shape (N, P), float64
        What the label does not explain.
    """
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), columns.shape[1]))
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ordered = columns[order].astype(np.float64)
    sums = np.add.reduceat(ordered, starts, axis=0)
    ordered -= np.repeat(sums / counts[:, None], counts, axis=0)
    left = np.empty_like(ordered)
    left[order] = ordered
    return left


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the same, without those that rounding makes.

    Parameters
    ----------
    columns : ndarray of shape (N, P), float64
        P may be 0.

    Returns
    -------
    ndarray of shape (N, R)
        R <= P.
    """
    if columns.shape[1] == 0:
        return columns
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, values > _RANK * max(float(values[0]), 1e-300)]


def out_of_fold_errors(
    features: np.ndarray, design: np.ndarray, folds: np.ndarray, models: Sequence[np.ndarray]
) -> np.ndarray:
    """Squared error of every dimension when each fold is predicted from the others.

    Parameters
    ----------
    features : ndarray of shape (N, D), float64
        What is predicted, centred.
    design : ndarray of shape (N, P), float64
        Predictors of all models, the constant included where it is wanted.
    folds : ndarray of shape (N,), int
        Fold of each sample, from 0.
    models : sequence of S ndarray of int
        Columns of the design that each model has.

    Returns
    -------
    ndarray of shape (S, D)
        Sums over all samples; least squares of smallest norm where predictors are collinear.

    Notes
    -----
    One pass over the data: a fold's error is ``h'h - 2 w'X'h + w'X'X w``, floored at 0.
    """
    parts = [np.flatnonzero(folds == fold) for fold in range(folds.max() + 1)]
    n_dimensions = features.shape[1]
    grams = np.empty((len(parts), design.shape[1], design.shape[1]))
    moments = np.empty((len(parts), design.shape[1], n_dimensions))
    squares = np.empty((len(parts), n_dimensions))
    for fold, rows in enumerate(parts):
        own, predicted = design[rows], features[rows]
        grams[fold], moments[fold] = own.T @ own, own.T @ predicted
        squares[fold] = np.einsum("nd,nd->d", predicted, predicted)
    gram, moment = grams.sum(axis=0), moments.sum(axis=0)
    error = np.zeros((len(models), n_dimensions))
    for model, columns in enumerate(models):
        square = np.ix_(columns, columns)
        for fold in range(len(parts)):
            own_gram, own_moment = grams[fold][square], moments[fold][columns]
            weights = np.linalg.pinv(gram[square] - own_gram, hermitian=True, rcond=1e-10) @ (
                moment[columns] - own_moment
            )
            explained = np.einsum("pd,pd->d", weights, 2 * own_moment - own_gram @ weights)
            error[model] += np.maximum(squares[fold] - explained, 0)
    return error


def effects_given_label(
    features: np.ndarray,
    within: np.ndarray,
    codes: np.ndarray,
    columns: Sequence[np.ndarray],
    folds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each dimension's error that a factor takes off given the label, and the reverse.

    Parameters
    ----------
    features : ndarray of shape (N, D), float64
        Centred.
    within : ndarray of shape (N, D), float64
        The same without class means: what models with the label are fitted to, since they take off
        any constant of a class, and no digits are lost where classes lie far apart.
    codes : ndarray of shape (N,), int
        Class indices from 0.
    columns : sequence of F ndarray of shape (N, P_f)
        Columns of each factor, well conditioned.
    folds : ndarray of shape (N,), int
        Fold of each sample, from 0.

    Returns
    -------
    effect : ndarray of shape (D, F)
        ``1 - RSS(h ~ label + factor) / RSS(h ~ label)``, out of fold, clipped at 0; NaN where the
        label leaves nothing.
    label_effect : ndarray of shape (D,)
        ``1 - RSS(h ~ label + all factors) / RSS(h ~ all factors)``.
    """
    n_classes = int(codes.max()) + 1
    design = np.hstack([np.eye(n_classes)[codes], np.ones((len(codes), 1)), *columns])
    label, constant = np.arange(n_classes), np.array([n_classes])
    ends = n_classes + 1 + np.cumsum([0, *(each.shape[1] for each in columns)])
    blocks = [np.arange(low, high) for low, high in pairwise(ends)]
    models = [label, *(np.concatenate([label, block]) for block in blocks)]
    error = out_of_fold_errors(within, design, folds, [*models, np.concatenate([label, *blocks])])
    without_label = out_of_fold_errors(
        features, design, folds, [np.concatenate([constant, *blocks])]
    )[0]
    base, rest = (np.where(each > 0, each, np.nan) for each in (error[0], without_label))
    effect = np.clip(1 - error[1:-1] / base, 0, 1).T
    return effect, np.clip(1 - error[-1] / rest, 0, 1)


def f_statistics(features: np.ndarray, columns: np.ndarray, n_classes: int) -> np.ndarray:
    """F statistic of columns for every dimension, beyond the label.

    Parameters
    ----------
    features : ndarray of shape (N, D)
        Without class means.
    columns : ndarray of shape (N, R)
        Orthonormal, without class means.
    n_classes : int
        K, intercepts that were taken off.

    Returns
    -------
    ndarray of shape (D,)
        NaN for a dimension that does not vary within classes.
    """
    total = np.einsum("nd,nd->d", features, features, dtype=np.float64)
    return _f(columns.T @ features, total, len(features) - n_classes)


def _f(products: np.ndarray, total: np.ndarray, freedom: int) -> np.ndarray:
    """F from products (..., R, D) of orthonormal columns with the dimensions."""
    rank = products.shape[-2]
    explained = np.einsum("...rd,...rd->...d", products, products, dtype=np.float64)
    left = np.maximum(total - explained, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (explained / rank) / (left / (freedom - rank))


def permutation_p_values(
    features: np.ndarray,
    columns: Sequence[np.ndarray],
    codes: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    samples: np.ndarray | None = None,
) -> np.ndarray:
    """P-value of each dimension's F, the factors permuted within classes.

    Parameters
    ----------
    features : ndarray of shape (N, D)
        Without class means.
    columns : sequence of F ndarray of shape (N, R_f)
        Each factor's columns, orthonormal and without class means, R_f >= 1.
    codes : ndarray of shape (N,), int
        Class indices.
    n_permutations : int
        Permutations, each the same for all dimensions and factors.
    rng : numpy.random.Generator
        Draws them.
    progress : callable, optional
        Called with (permutations done, in all).
    samples : ndarray of shape (N,), int, optional
        Ids from 0 of the samples that rows are views of. Samples are then permuted, each with the
        factors of all its views, among those of its class with as many views; and each dimension's
        F is divided by its mean under permutation, since dimensions differ in how much views share.

    Returns
    -------
    ndarray of shape (D, F)
        ``(1 + values of the null at least as large) / (1 + values of the null)``; a factor's null
        is that of all dimensions together, which studentising allows. NaN for a dimension that does
        not vary within classes.

    Notes
    -----
    A permutation within classes leaves class means alone, so the permuted columns are still
    orthonormal and without class means: one product a permutation is all it takes, in float64:
    a value of the null that is equal to an observed one counts, whatever the rounding.
    """
    import torch

    n_samples, n_classes = len(features), int(codes.max()) + 1
    total = np.einsum("nd,nd->d", features, features, dtype=np.float64)
    ends = np.cumsum([0, *(each.shape[1] for each in columns)])
    joined = np.hstack(columns)
    products = joined.T @ features
    observed = np.column_stack(
        [_f(products[low:high], total, n_samples - n_classes) for low, high in pairwise(ends)]
    )
    alive = total > 0
    total = total[alive]
    kept = torch.from_numpy(np.ascontiguousarray(features[:, alive], dtype=np.float64))
    source = torch.from_numpy(np.asarray(joined, dtype=np.float64))
    strata = _exchangeable(codes, samples)
    null = np.empty((len(columns), n_permutations, int(alive.sum())), dtype=np.float32)
    step = max(1, _TOGETHER // source.numel())
    for start in range(0, n_permutations, step):
        count = min(step, n_permutations - start)
        shuffled = np.empty((count, n_samples), dtype=np.int64)
        for own in shuffled:
            for rows in strata:
                own[rows] = rows[rng.permutation(len(rows))]
        moved = source[torch.from_numpy(shuffled.T.copy())]
        products = (moved.reshape(n_samples, -1).T @ kept).numpy()
        products = products.reshape(count, source.shape[1], -1)
        for f, (low, high) in enumerate(pairwise(ends)):
            null[f, start : start + count] = _f(products[:, low:high], total, n_samples - n_classes)
        if progress is not None:
            progress(start + count, n_permutations)
    if samples is not None:
        typical = null.mean(axis=1, keepdims=True)
        typical[~(typical > 0)] = 1.0
        null /= typical
        observed[alive] /= typical[:, 0].T
    p_value = np.full(observed.shape, np.nan)
    for f, draws in enumerate(null):
        values = np.sort(draws, axis=None)
        least = (observed[alive, f] * (1 - _SAME)).astype(np.float32)
        at_least = len(values) - np.searchsorted(values, least, side="left")
        p_value[alive, f] = (1 + at_least) / (1 + len(values))
    return p_value


def _exchangeable(codes: np.ndarray, samples: np.ndarray | None) -> list[np.ndarray]:
    """Rows (n, V) of the n samples of V views that may change places, for each class and V."""
    samples = np.arange(len(codes)) if samples is None else samples
    order = np.argsort(samples, kind="stable")
    counts = np.bincount(samples)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    classes = codes[order[starts]]
    return [
        order[starts[chosen][:, None] + np.arange(count)]
        for count in np.unique(counts)
        for code in np.unique(classes[counts == count])
        for chosen in [np.flatnonzero((counts == count) & (classes == code))]
    ]
