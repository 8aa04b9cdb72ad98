"""Intervals and tests of the mean of class means of paired outcomes: balanced accuracy.

The interval is MOVER's (Zou and Donner, Statistics in Medicine 27, 2008): the distance from the
estimate to its lower bound is the root of the summed squares of the classes' distances to theirs,
over the number of classes, and so for the upper bound. With clusters the counts of each class are
divided by its design effect; a cluster with rows of several classes correlates them, and both
distances grow by the root of the ratio of the variances with and without that correlation.

The p-value is the larger of two. The first flips the signs of rows, or of whole clusters, each
weighted by one over the size of its class; with fewer than 10 draws as far out, the normal tail of
the flipped sum. It holds its level for few changed rows, but only if each class is symmetric around
0. The second is that of a normal (clusters: Student's t) estimate whose distance to 0 is measured
by the 95 % interval. It needs a mean of 0 alone: classes may change in opposite directions. So
p <= 0.05 implies that the interval excludes 0.
"""

from __future__ import annotations

import numpy as np

from dimlab.kernels.means import RESOLVED, sign_flip_test
from dimlab.kernels.paired import cluster_quantile, cluster_sums, design_effect, tango_interval


def balanced_change(change: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean over classes (N,) of the mean change (N, G) within each: (G,)."""
    each = [change[classes == code].mean(axis=0) for code in np.unique(classes)]
    return np.mean(each, axis=0)


def balanced_interval(
    change: np.ndarray,
    classes: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (G,) around `balanced_change`, from the Tango intervals of the classes."""
    below, above = _distances(change, classes, clusters, level)
    estimate = balanced_change(change, classes)
    return np.maximum(estimate - below, -1.0), np.minimum(estimate + above, 1.0)


def balanced_test(
    change: np.ndarray,
    classes: np.ndarray,
    clusters: np.ndarray | None,
    rng: np.random.Generator,
    n_draws: int,
) -> np.ndarray:
    """Two-sided p-values (G,) that the mean of class means does not change."""
    from scipy.stats import norm, t

    estimate = balanced_change(change, classes)
    codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)[1:]
    weighted = change / (len(sizes) * sizes[codes])[:, None]
    sums = cluster_sums(weighted, clusters)
    flipped = sign_flip_test(sums, rng, n_draws)
    spread = np.sqrt((sums**2).sum(axis=0))
    ratio = np.divide(np.abs(estimate), spread, out=np.zeros_like(spread), where=spread > 0)
    flipped = np.where(
        flipped * (n_draws + 1) < 1 + RESOLVED, np.minimum(flipped, 2 * norm.sf(ratio)), flipped
    )
    below, above = _distances(change, classes, clusters, 0.95)
    distance = np.where(estimate > 0, below, above)
    ratio = cluster_quantile(clusters, 0.95) * np.abs(estimate) / distance
    if clusters is None:
        tail = norm.sf(ratio)
    else:
        tail = t.sf(ratio, max(1, len(sums) - 1))
    return np.where(spread > 0, np.minimum(1.0, np.maximum(flipped, 2 * tail)), 1.0)


def _distances(
    change: np.ndarray, classes: np.ndarray, clusters: np.ndarray | None, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the mean of class means down to its lower and up to its upper bound."""
    codes = np.unique(classes)
    z = cluster_quantile(clusters, level)
    more, fewer, size = (np.empty((len(codes), change.shape[1])) for _ in range(3))
    for place, code in enumerate(codes):
        some = change[classes == code]
        more[place], fewer[place] = (some > 0).sum(axis=0), (some < 0).sum(axis=0)
        size[place] = len(some)
        if clusters is not None:
            effect = design_effect(some, clusters[classes == code])
            for each in (more, fewer, size):
                each[place] /= effect
    estimate = (more - fewer) / size
    # Most classes of most groups have the same counts: each bound is found once.
    (b, c, n), where = np.unique(
        np.stack([more, fewer, size]).reshape(3, -1), axis=1, return_inverse=True
    )
    low, high = (
        bound[where.ravel()].reshape(estimate.shape)
        for bound in tango_interval(b, c, n, quantile=z)
    )
    below, above = (
        np.sqrt((each**2).sum(axis=0)) / len(codes) for each in (estimate - low, high - estimate)
    )
    if clusters is not None:
        wider = _correlated(change, classes, clusters)
        below, above = below * wider, above * wider
    return below, above


def _correlated(change: np.ndarray, classes: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Root of the ratio of variances with and without correlation between classes, at least 1."""
    codes = np.unique(classes)
    units = np.unique(clusters, return_inverse=True)[1]
    together = np.zeros((int(units.max()) + 1, change.shape[1]))
    apart = np.zeros(change.shape[1])
    for code in codes:
        rows = classes == code
        around = (change[rows] - change[rows].mean(axis=0)) / rows.sum()
        sums = cluster_sums(around, units[rows])
        together[np.unique(units[rows])] += sums
        apart += (sums**2).sum(axis=0)
    together_squared = (together**2).sum(axis=0)
    ratio = np.divide(together_squared, apart, out=np.ones_like(apart), where=apart > 0)
    return np.sqrt(np.maximum(1.0, ratio))
