"""Delete-a-block jackknife intervals of any statistic of rows."""

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
    """Bias-corrected statistics (S,), and deviations (B, S) whose products sum to covariances."""
    # Busing, Meijer and van der Leeden, "Delete-m jackknife for unequal m", Statistics and
    # Computing 9, 1999; ``counts`` (B,) are the rows of each of B >= 2 blocks.
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
    """Student's t interval (S,) of statistics (S,), from those without each block (B, S)."""
    # Around the bias-corrected estimate, which is then the value to report, or around ``full`` for
    # statistics that are not biased. NaN where a value is not finite.
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
    """Bias-corrected values (S,) of statistics with the 95 % intervals that contain them."""
    # On a scale where the bias is in proportion to 1 / N. An estimate beyond what is possible is
    # moved to the end of that, together with its interval, so that no width is 0.
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
