"""What each test row adds to a score, whatever the target is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimlab.kernels.scores import precision_contributions, r2_contributions


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each of N test rows adds to a score, whose value is their mean."""

    full: np.ndarray  # (N,) with all dimensions
    ablated: np.ndarray  # (N, G) without each group
    certified_share: float | None = None  # as of `Outcomes`; not counted


def difference(more: np.ndarray, less: np.ndarray) -> np.ndarray:
    """Subtract what rows add to a score: of accuracies -1, 0 or 1, in a byte."""
    return more.astype(np.int8) - less if more.dtype == bool else more - less


def contributions_of(predicted: np.ndarray, target: np.ndarray, score: str) -> np.ndarray:
    """Contributions (N, G) to a score of predictions (N, G, T) of a target (N, T)."""
    if score == "r2":
        return r2_contributions(predicted, target)
    return precision_contributions(predicted, target, micro=score.endswith("micro"))
