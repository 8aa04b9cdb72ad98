"""What ridge and logistic regression share: standardised features, and frozen weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.downdate import first_largest, log_losses, tied_within
from dimlab.kernels.rank_one import leave_out_losses, leave_out_predictions
from dimlab.kernels.rounding import eps_of, spread_floor
from dimlab.readers.base import Named, Outcomes, class_codes, places
from dimlab.refusals import Refusal

FILLS = ("mean", "zero", "shuffle", "noise")  # what stands in for columns in a frozen reader
OF_ALL_ROWS = FILLS[2:]  # what stands in for those of a row depends on which rows there are
ROWS = 4096  # that are standardised together: no second copy of the features is held
_SUMMED = 4096  # rows whose squares are summed together: the last bits of a scale depend on it
_ELEMENTS = 1 << 22  # of weights and logits without a block of groups


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Mean and biased standard deviation (D,) of each column; 0 where a column is constant."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, precision: str | None = None) -> Standardiser:
        """Measure the columns of features (N, D), stored in a precision: by default their own."""
        eps = eps_of(precision or features.dtype.name)
        mean = features.mean(axis=0, dtype=np.float64)
        low, high = (each.astype(np.float64) for each in (features.min(0), features.max(0)))
        # squares in units of a power of two near the largest deviation stay within float64
        spread = np.maximum(high - mean, mean - low)
        unit = np.exp2(np.floor(np.log2(np.where(spread > 0, spread, 1.0))))
        squares = np.zeros(len(mean))
        for rows in blocks(len(features), _SUMMED):
            squares += (((features[rows] - mean) / unit) ** 2).sum(axis=0)
        scale = unit * np.sqrt(squares / len(features))
        size = np.maximum(np.abs(low), np.abs(high))
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

    def stand_in(self, fill: str, features: np.ndarray, rows: slice, seed: int) -> np.ndarray:
        """Return what some rows have (B, D), or all of them (1, D), in place of their columns."""
        if fill == "shuffle":  # one order for all columns: those of a group stay together
            order = np.random.default_rng([seed, 31]).permutation(len(features))
            return features[order[rows]]
        if fill == "noise":  # of train's mean and standard deviation; a block has its own draws
            rng = np.random.default_rng([seed, 32, rows.start])
            return rng.normal(self.mean, self.scale, (rows.stop - rows.start, len(self.mean)))
        return self.mean[None] if fill == "mean" else np.zeros((1, len(self.mean)))


class Linear(Named):
    """A linear map of standardised features: ``weights`` (D, K) and ``intercept`` (K,)."""

    standardise: Standardiser
    weights: np.ndarray
    intercept: np.ndarray

    def _scores(self, features: np.ndarray) -> np.ndarray:
        scores = np.empty((len(features), self.weights.shape[1]))
        for rows in blocks(len(features), ROWS):
            scores[rows] = self.standardise(features[rows]) @ self.weights + self.intercept
        return scores

    def predict_filled(
        self,
        features: np.ndarray,
        groups: Sequence[np.ndarray],
        *,
        fill: str,
        target: np.ndarray,
    ) -> Outcomes:
        """Read rows (N, D) of known classes (N,) with something else in place of each group."""
        truth = class_codes(target, self.classes)
        own = self._own_weights, self._standing_in(fill, features)
        return self._less(features, groups, truth, lambda columns: columns, *own)

    def values_filled(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, fill: str
    ) -> np.ndarray:
        """Return predictions (N, G, T) with something else in place of each group."""
        own = self._own_weights, self._standing_in(fill, features)
        return self._values_less(features, groups, *own)

    def _own_weights(self, group: np.ndarray) -> np.ndarray:
        """Weights (D, K) of a group, and zeros elsewhere."""
        weights = np.zeros_like(self.weights)
        weights[group] = self.weights[group]
        return weights

    def _standing_in(self, fill: str, features: np.ndarray) -> Callable[[slice], np.ndarray]:
        """Return what gives standardised values that stand in for those of some rows."""
        seed, standardise = self.run.seed, self.standardise
        return lambda rows: standardise(standardise.stand_in(fill, features, rows, seed))

    def _values_less(
        self,
        features: np.ndarray,
        groups: Sequence[np.ndarray],
        lost: Callable[[np.ndarray], np.ndarray],
        instead: Callable[[slice], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return predictions (N, G, T) less what each group adds to them."""
        n_dimensions, n_targets = self.weights.shape
        found = np.empty((len(features), len(groups), n_targets))
        size = _ELEMENTS // (max(n_dimensions, ROWS) * n_targets)
        for part in blocks(len(groups), size):
            taken = np.concatenate([lost(group) for group in groups[part]], axis=1)
            for rows in blocks(len(features), ROWS):
                columns = self.standardise(features[rows])
                full = columns @ self.weights + self.intercept
                if instead is not None:
                    columns -= instead(rows)
                less = (columns @ taken).reshape(len(columns), -1, n_targets)
                found[rows, part] = full[:, None] - less
        return found

    def _less(
        self,
        features: np.ndarray,
        groups: Sequence[np.ndarray],
        truth: np.ndarray,
        factors: Callable[[np.ndarray], np.ndarray],
        lost: Callable[[np.ndarray], np.ndarray],
        instead: Callable[[slice], np.ndarray] | None = None,
    ) -> Outcomes:
        """Read rows with what each group adds to the logits taken off them, in blocks of rows."""
        # Of standardised columns Z, less what stands in for them: a dimension d takes off the
        # product of column d of factors(Z) (N, D) and its weights, a group g Z @ lost(g), (D, K).
        # All is read as without a group of nothing, so what changes nothing differs by exactly 0.
        n_rows, (n_dimensions, n_classes) = len(features), self.weights.shape
        predicted = places((n_rows, 1 + len(groups)), n_classes)
        loss, temperature = np.broadcast_to(np.nan, predicted.shape), 1.0
        if self.run.losses:
            loss, temperature = np.empty(predicted.shape), self._temperature()
        singles = len(groups) > 0 and all(len(group) == 1 for group in groups)
        alone = np.concatenate(groups) if singles else None
        groups = [np.array([], dtype=np.int64), *groups]
        size = (
            len(groups) if alone is not None else _ELEMENTS // (max(n_dimensions, ROWS) * n_classes)
        )
        for part in blocks(len(groups), size):
            if alone is not None:
                taken = np.vstack([np.zeros((1, n_classes)), self.weights[alone]])
            else:
                taken = np.stack([lost(group) for group in groups[part]], axis=2)
            for rows in blocks(n_rows, ROWS):
                columns = self.standardise(features[rows])
                logits = columns @ self.weights + self.intercept
                if instead is not None:
                    columns -= instead(rows)
                if alone is not None:
                    u = np.column_stack([np.zeros(len(columns)), factors(columns)[:, alone]])
                    predicted[rows] = leave_out_predictions(logits, u, taken)
                    if self.run.losses:
                        given = logits / temperature, u, taken / temperature
                        loss[rows] = leave_out_losses(*given, truth[rows])
                    continue
                less = columns @ taken.reshape(n_dimensions, -1)
                less = less.reshape(len(columns), n_classes, -1).transpose(1, 0, 2)
                without = logits.T[:, :, None] - less
                predicted[rows, part] = first_largest(without, tied_within(logits)[:, None])
                if self.run.losses:
                    loss[rows, part] = log_losses(without / temperature, truth[rows])
        return Outcomes(predicted[:, 0], predicted[:, 1:], loss[:, 0], loss[:, 1:])

    def _temperature(self) -> float:
        """Return what the scores are divided by to be a probability's logarithm."""
        return 1.0


def check_penalty(penalty: float) -> None:
    """Refuse a penalty that is not positive."""
    if not (np.isfinite(penalty) and penalty > 0):
        raise Refusal(f"penalty must be > 0; got {penalty:g}.")
