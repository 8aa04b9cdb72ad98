"""Scores of real values and of rankings, as means of one contribution a row.

The contributions are the score plus the influence of each row on it, so that their mean is the
score, and their variance over rows gives its standard error.
"""

from __future__ import annotations

import numpy as np

_TIED = 1e-9  # share of the largest score


def r2_contributions(predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Contributions (N, G) to R^2, the mean over T targets, of predictions (N, G, T)."""
    # R^2 = 1 - E / V with E the mean squared error and V the variance of the target: the influence
    # of a row is that of its error on E, less (1 - R^2) times that of its deviation on V
    around = (values - values.mean(axis=0)) ** 2
    variance = around.mean(axis=0)
    error = (predicted - values[:, None, :]) ** 2 / variance
    unexplained = error.mean(axis=0)
    deviation = around / variance - 1
    whole = 1 - error + deviation[:, None, :] * unexplained
    contributions: np.ndarray = whole.mean(axis=2)
    return contributions


def precision_contributions(
    scores: np.ndarray, labels: np.ndarray, *, micro: bool = False
) -> np.ndarray:
    """Contributions (N, G) to the mean average precision of scores (N, G, T) of labels (N, T)."""
    # macro: the mean over labels that some row has; micro: all (row, label) pairs in one ranking
    # scores that differ by rounding are equal, as those of a reader without any column are
    n_rows, n_groups, n_labels = scores.shape
    unit = _TIED * np.abs(scores).max(axis=(0, 2) if micro else 0, keepdims=True)
    scores = np.rint(scores / np.where(unit > 0, unit, 1.0))
    if micro:
        flat = scores.transpose(0, 2, 1).reshape(n_rows * n_labels, n_groups)
        found = _precision(flat, labels.reshape(-1))
        return found.reshape(n_rows, n_labels, n_groups).mean(axis=1)
    known = np.flatnonzero(labels.any(axis=0))
    total = np.zeros((n_rows, n_groups))
    for label in known:
        total += _precision(scores[:, :, label], labels[:, label])
    return total / max(1, len(known))


def _precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Contributions (M, G) to the average precision of one label (M,), ranked by scores (M, G)."""
    # With n_i entries, t_i of them positive, scored at least as high as entry i, the average
    # precision is the mean of t_i / n_i over positives. The influence of an entry is what leaving
    # it out changes, times M - 1: every positive that is not ranked above it has one entry fewer.
    n_entries = len(scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    positive = labels[order].astype(np.float64)
    place = np.arange(n_entries)[:, None]
    new = np.ones(scores.shape, dtype=bool)
    new[1:] = ranked[1:] != ranked[:-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)  # of equal scores
    ends = np.ones(scores.shape, dtype=bool)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, place, n_entries)[::-1], axis=0)[::-1]
    n = last + 1.0
    t = np.take_along_axis(np.cumsum(positive, axis=0), last, axis=0)
    n_positive = positive.sum(axis=0)
    fewer = np.maximum(n - 1, 1)
    present, less, lost = (positive * each for each in (t / n, t / fewer, (t - 1) / fewer))
    precision = present.sum(axis=0) / n_positive
    above = np.take_along_axis(np.cumsum(present, axis=0) - present, first, axis=0)

    def not_above(terms: np.ndarray) -> np.ndarray:
        from_here = np.cumsum(terms[::-1], axis=0)[::-1]
        return np.take_along_axis(from_here, first, axis=0)

    without_negative = (above + not_above(less)) / n_positive
    without_positive = (above + not_above(lost) - lost) / np.maximum(n_positive - 1, 1)
    without = np.where(positive > 0, without_positive, without_negative)
    without = np.where((positive > 0) & (n_positive == 1), precision, without)
    influence = (n_entries - 1) * (precision - without)
    influence += precision - influence.mean(axis=0)
    contributions = np.empty_like(influence)
    np.put_along_axis(contributions, order, influence, axis=0)
    return contributions
