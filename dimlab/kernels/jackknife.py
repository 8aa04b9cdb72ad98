"""Delete-a-block jackknife of any statistic of rows: corrected values and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Where the interval of a statistic is symmetric, the way back, and what it cannot exceed."""

    there: Callable[[np.ndarray], np.ndarray] = np.asarray
    back: Callable[[np.ndarray], np.ndarray] = np.asarray
    corrected: bool = True  # the bias is in proportion to 1 / N on this scale, and taken off
    lowest: float = -np.inf
    highest: float = np.inf


class Estimates(NamedTuple):
    """S statistics, (S,) each: NaN where one is not finite, or without some block is not."""

    value: np.ndarray
    corrected: np.ndarray  # the value itself where the scale takes no bias off
    low: np.ndarray  # of the 95 % interval of the corrected value, which contains it
    high: np.ndarray


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


def jackknife(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray, scales: Scale | Sequence[Scale]
) -> Estimates:
    """Estimate statistics (S,) from those without each block (B, S), each on its scale."""
    scales = [scales] * len(full) if isinstance(scales, Scale) else scales
    found = np.empty((4, len(full)))
    for scale in set(scales):
        same = np.array([each == scale for each in scales])
        found[:, same] = _on(scale, full[same], without[:, same], counts)
    return Estimates(*found)


def _on(scale: Scale, full: np.ndarray, without: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Estimate statistics of one scale, by Student's t: the rows of `Estimates`."""
    from scipy.stats import t

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bounds = np.sort(scale.there(np.array([scale.lowest, scale.highest])))
        moved = scale.there(full)
        estimate, deviations = jackknife_deviations(moved, scale.there(without), counts)
        half = t.ppf(0.975, len(counts) - 1) * np.sqrt((deviations**2).sum(axis=0))
        # an estimate beyond what is possible is moved to the end, and its interval with it
        centre = np.clip(estimate if scale.corrected else moved, *bounds)
        ends = scale.back(np.clip([centre - half, centre + half], *bounds))
        low, high = np.where(np.isfinite(half), np.sort(ends, axis=0), np.nan)
        if not scale.corrected:
            value = scale.back(moved)
            return np.stack([value, value, low, high])
        return np.stack([full, np.where(np.isfinite(half), scale.back(centre), np.nan), low, high])
