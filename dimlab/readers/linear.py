"""What ridge and logistic regression share: standardised features, and frozen weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dimlab.kernels.downdate import (
    first_largest,
    group_logits,
    leave_out_losses,
    leave_out_predictions,
    log_losses,
    tied_within,
)
from dimlab.kernels.rounding import eps_of, spread_floor
from dimlab.readers.base import Named, Outcomes, class_codes
from dimlab.refusals import Refusal

_TINY = 1e-140  # a spread whose square float64 does not hold well


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Mean and biased standard deviation (D,) of each column; 0 where a column is constant."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, precision: str | None = None) -> Standardiser:
        """Measure the columns of features (N, D), stored in a precision: by default their own."""
        eps = eps_of(precision or np.asarray(features).dtype.name)
        features = np.asarray(features, dtype=np.float64)
        mean = features.mean(axis=0)
        scale = features.std(axis=0)
        low, high = features.min(axis=0), features.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        tiny = np.flatnonzero(scale < _TINY)
        if len(tiny):  # their squares are lost, unless what varies is made larger first
            centred = features[:, tiny] - mean[tiny]
            largest = np.abs(centred).max(axis=0)
            varies = (largest > 0) & (features[:, tiny].max(axis=0) > features[:, tiny].min(axis=0))
            tiny, centred, largest = tiny[varies], centred[:, varies], largest[varies]
            scale[tiny] = largest * np.sqrt(np.mean((centred / largest) ** 2, axis=0))
        scale[(low == high) | (scale <= spread_floor(size, eps))] = 0.0
        return cls(mean, scale)

    @property
    def constant(self) -> np.ndarray:
        """Dimensions that do not vary, ascending."""
        return np.flatnonzero(self.scale == 0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardise features (N, D) in float64."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        return np.divide(centred, self.scale, out=np.zeros_like(centred), where=self.scale > 0)


class Linear(Named):
    """A linear map of standardised features: ``weights`` (D, K) and ``intercept`` (K,)."""

    standardise: Standardiser
    weights: np.ndarray
    intercept: np.ndarray

    def _scores(self, features: np.ndarray) -> np.ndarray:
        return self.standardise(features) @ self.weights + self.intercept

    def predict_filled(
        self,
        features: np.ndarray,
        groups: Sequence[np.ndarray],
        *,
        fill: str,
        target: np.ndarray,
    ) -> Outcomes:
        """Read rows (N, D) of known classes (N,) with the train mean or zero for each group."""
        logits, columns = self.predict(features), self.standardise(features)
        if fill == "zero":
            columns -= self.standardise(np.zeros((1, columns.shape[1])))
        truth, temperature = class_codes(target, self.classes), self._temperature()
        alone = alone_in(groups)
        if alone is not None:
            return collect_singles(
                logits, columns[:, alone], self.weights[alone], truth, temperature
            )
        factors = ((columns[:, group], self.weights[group]) for group in groups)
        return collect(logits, group_logits(logits, factors), truth, len(groups), temperature)

    def _temperature(self) -> float:
        """Return what the scores are divided by to be a probability's logarithm."""
        return 1.0


def check_penalty(penalty: float) -> None:
    """Refuse a penalty that is not positive."""
    if not (np.isfinite(penalty) and penalty > 0):
        raise Refusal(f"penalty must be > 0; got {penalty:g}.")


def alone_in(groups: Sequence[np.ndarray]) -> np.ndarray | slice | None:
    """Return the dimensions (G,) that are removed one by one, or None where groups are larger."""
    if len(groups) == 0 or any(len(group) != 1 for group in groups):
        return None
    dimensions = np.concatenate(groups)
    in_order = np.array_equal(dimensions, np.arange(len(groups)))
    return slice(0, len(groups)) if in_order else dimensions  # a slice copies nothing


def collect(
    logits: np.ndarray,
    parts: Iterable[tuple[slice, np.ndarray]],
    truth: np.ndarray,
    n_groups: int,
    temperature: float,
) -> Outcomes:
    """Collect outcomes from logits (N, K), and those (K, N, b) without blocks of groups."""
    ablated = np.empty((len(logits), n_groups), dtype=np.int64)
    loss, slack = np.empty(ablated.shape), tied_within(logits)
    for part, without in parts:
        ablated[:, part] = first_largest(without, slack[:, None])
        loss[:, part] = log_losses(without / temperature, truth)
    full_loss = log_losses(logits.T / temperature, truth)
    return Outcomes(first_largest(logits.T, slack), ablated, full_loss, loss)


def collect_singles(
    logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray, temperature: float
) -> Outcomes:
    """Collect outcomes of the logits ``logits - u_d v_d`` for each dimension d."""
    calibrated, weights = logits / temperature, v / temperature
    # by the same arithmetic as the rest: what changes nothing has a difference of exactly 0
    full_loss = leave_out_losses(
        calibrated, np.zeros((len(u), 1)), np.zeros((1, v.shape[1])), truth
    )
    return Outcomes(
        first_largest(logits.T, tied_within(logits)),
        leave_out_predictions(logits, u, v),
        full_loss[:, 0],
        leave_out_losses(calibrated, u, weights, truth),
    )
