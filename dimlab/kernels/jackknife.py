"""Intervals of any statistic of rows, from its values without one block of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Scales on which a statistic's bias is in proportion to 1 / N, and the way back.
SCALES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "identity": (np.asarray, np.asarray),
    "log": (np.log, np.exp),
    "reciprocal": (np.reciprocal, np.reciprocal),
}


def jackknife_deviations(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate statistics by the delete-a-block jackknife, blocks of any sizes.

    Parameters
    ----------
    full : ndarray of shape (S,)
        The statistics of all rows.
    without : ndarray of shape (B, S)
        The same without each block, B >= 2.
    counts : ndarray of shape (B,), int
        Rows in each block.

    Returns
    -------
    corrected : ndarray of shape (S,)
        The jackknife's estimates, without a bias in proportion to 1 / N.
    deviations : ndarray of shape (B, S)
        Their products, summed over the blocks, are the estimates' variances and covariances.

    References
    ----------
    Busing, Meijer & van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 9,
    1999.
    """
    n_blocks, n = len(counts), counts.sum()
    ratio = (n / counts)[:, None]
    with np.errstate(invalid="ignore"):
        corrected = n_blocks * full - ((1 - counts / n)[:, None] * without).sum(axis=0)
        pseudo = ratio * full - (ratio - 1) * without
        return corrected, (pseudo - corrected) / np.sqrt((ratio - 1) * n_blocks)


def jackknife_interval(
    full: np.ndarray,
    without: np.ndarray,
    counts: np.ndarray,
    *,
    corrected: bool = True,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of statistics by the delete-a-block jackknife, blocks of any sizes.

    Parameters
    ----------
    full, without, counts
        As in ``jackknife_deviations``.
    corrected : bool, default=True
        Around the jackknife's bias-corrected estimate, which is then the value to report; or
        around ``full``, for statistics that are not biased.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    low, high : ndarray of shape (S,)
        Student's t interval, B - 1 degrees of freedom. NaN where a value is not finite.

    Examples
    --------
    >>> x = np.arange(20.0)
    >>> without = np.array([[np.delete(x, i).mean()] for i in range(20)])
    >>> low, high = jackknife_interval(np.array([x.mean()]), without, np.ones(20))
    >>> print(f"{low[0]:.3f} {high[0]:.3f}")  # the mean's own t interval
    6.731 12.269
    """
    from scipy.stats import t

    estimate, deviations = jackknife_deviations(full, without, counts)
    with np.errstate(invalid="ignore"):
        half = t.ppf(0.5 + level / 2, len(counts) - 1) * np.sqrt((deviations**2).sum(axis=0))
        centre = estimate if corrected else np.where(np.isfinite(half), full, np.nan)
        return centre - half, centre + half


def corrected_interval(
    full: np.ndarray,
    without: np.ndarray,
    counts: np.ndarray,
    *,
    scale: str = "identity",
    lowest: float = -np.inf,
    highest: float = np.inf,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias-corrected values of statistics with the 95 % intervals that contain them.

    Parameters
    ----------
    full, without, counts
        As in ``jackknife_deviations``; positive where the scale is not ``"identity"``.
    scale : {"identity", "log", "reciprocal"}
        Scale on which the jackknife is taken.
    lowest, highest : float
        Possible values of the statistics; estimates and bounds beyond them are moved there.

    Returns
    -------
    corrected, low, high : ndarray of shape (S,)
        NaN where a value is not finite. An estimate beyond what is possible is moved to the end of
        that, together with its interval, so that no width is 0.

    Examples
    --------
    >>> full, without = np.array([1.5]), np.array([[1.4], [1.7], [1.45]])
    >>> found = corrected_interval(full, without, np.ones(3), scale="reciprocal", lowest=1.0)
    >>> [round(float(each[0]), 2) for each in found]
    [1.49, 1.0, 2.94]
    """
    there, back = SCALES[scale]
    if scale != "identity":
        lowest = max(lowest, 0.0)
    with np.errstate(divide="ignore"):
        bounds = np.sort(there(np.array([lowest, highest], dtype=np.float64)))
        moved, rest = there(full), there(without)
    estimate, _ = jackknife_deviations(moved, rest, counts)
    low, high = jackknife_interval(moved, rest, counts)
    # an estimate beyond what is possible is moved to the end, and its interval with it
    inside = np.clip(estimate, *bounds)
    low, high = (np.clip(each + (inside - estimate), *bounds) for each in (low, high))
    if scale == "reciprocal":
        low, high = high, low
    known = np.isfinite(moved) & np.isfinite(rest).all(axis=0)
    with np.errstate(divide="ignore", over="ignore"):
        found = [np.where(known, back(each), np.nan) for each in (inside, low, high)]
    return found[0], found[1], found[2]
