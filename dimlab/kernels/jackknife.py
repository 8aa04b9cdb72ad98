"""Intervals of any statistic of rows, from its values without one block of them at a time."""

from __future__ import annotations

import numpy as np


def jackknife_interval(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of statistics by the delete-a-block jackknife, blocks of any sizes.

    Parameters
    ----------
    full : ndarray of shape (S,)
        The statistics of all rows.
    without : ndarray of shape (B, S)
        The same without each block, B >= 2.
    counts : ndarray of shape (B,), int
        Rows in each block.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    low, high : ndarray of shape (S,)
        Student's t interval, B - 1 degrees of freedom, around the jackknife's estimate. That is
        corrected for a bias in proportion to 1 / N, so where a statistic is biased the interval
        need not hold ``full``. NaN where a value is not finite.

    References
    ----------
    Busing, Meijer & van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9,
    1999.

    Examples
    --------
    >>> x = np.arange(20.0)
    >>> without = np.array([[np.delete(x, i).mean()] for i in range(20)])
    >>> low, high = jackknife_interval(np.array([x.mean()]), without, np.ones(20))
    >>> print(f"{low[0]:.3f} {high[0]:.3f}")  # the mean's own t interval
    6.731 12.269
    """
    from scipy.stats import t

    n_blocks, n = len(counts), counts.sum()
    ratio = (n / counts)[:, None]
    with np.errstate(invalid="ignore"):
        estimate = n_blocks * full - ((1 - counts / n)[:, None] * without).sum(axis=0)
        pseudo = ratio * full - (ratio - 1) * without
        variance = ((pseudo - estimate) ** 2 / (ratio - 1)).mean(axis=0)
        half = t.ppf(0.5 + level / 2, n_blocks - 1) * np.sqrt(variance)
        return estimate - half, estimate + half


def rank_interval(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of ranks whose reciprocal has a bias in proportion to 1 / N.

    Parameters
    ----------
    full, without, counts, level
        As in ``jackknife_interval``; ranks >= 1.

    Returns
    -------
    low, high : ndarray of shape (S,)
        Reciprocals of the interval of the reciprocal: at least 1, infinite where that reaches 0.
    """
    low, high = jackknife_interval(1 / full, 1 / without, counts, level=level)
    with np.errstate(divide="ignore"):
        return 1 / np.minimum(high, 1.0), 1 / np.maximum(low, 0.0)
