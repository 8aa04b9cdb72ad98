"""Ridge regression of one-hot classes, solved again without any group in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np

from dimlab.kernels.blocks import CACHED, blocks
from dimlab.kernels.downdate import (
    first_largest,
    greedy_order,
    nested_logits,
    refuse_ill_conditioned,
    removed_weights,
    single_removal_factors,
    solve_ridge,
    tied_within,
)
from dimlab.processes import summed
from dimlab.readers.base import Outcomes, places
from dimlab.readers.linear import ROWS, Linear, Standardiser, check_penalty

_CALIBRATED = 10_000  # train rows, at most, that the temperature is fitted on


@dataclass(eq=False)
class Ridge(Linear):
    """Ridge regression of one-hot classes, or values, on features standardised on train.

    Parameters
    ----------
    penalty : float, default=1e-3
        > 0; ``penalty * N * I`` is added to the matrix of the normal equations.
    run : Run, optional
        Device, memory and seed; a probe sets them from its own arguments.

    Raises
    ------
    ValueError
        If the penalty is not positive.

    Notes
    -----
    Everything is float64; standard deviations are biased; a column constant on train counts as
    all zero, on test too. Targets are centred, so the intercept is the share of each class and is
    not penalised. Log-losses are those of a softmax whose temperature minimises the log-loss of the
    leave-one-out scores of train (at most 10,000 rows of it).

    References
    ----------
    Hoerl and Kennard, "Ridge regression", Technometrics 1970.

    Examples
    --------
    >>> reader = Ridge().fit(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> reader.classify(np.array([[-0.2], [0.3]]))
    array([0, 1])
    >>> reader.predict(np.array([[0.0]])).round(6)
    array([[0.5, 0.5]])
    >>> rows = np.array([[-0.2], [0.3]])
    >>> options = {"target": np.array([0, 1])}
    >>> reader.predict_without(rows, [np.array([0])], **options).ablated.tolist()
    [[0], [0]]
    >>> reader.predict_filled(rows, [np.array([0])], fill="mean", **options).ablated.tolist()
    [[0], [0]]
    >>> reader.predict_in_turn(rows, [np.array([0])], np.array([0, 1])).tolist()
    [[0, 0], [1, 0]]
    >>> reader.greedy_order(backward=True).tolist()
    [0]
    >>> values = Ridge(penalty=1.0).fit(np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]]))
    >>> values.predict(rows).round(6).tolist()
    [[1.8], [2.3]]
    >>> values.values_without(rows, [np.array([0])]).round(6).tolist()
    [[[2.0]], [[2.0]]]
    >>> values.values_filled(rows, [np.array([0])], fill="mean").round(6).tolist()
    [[[2.0]], [[2.0]]]
    >>> values.values_in_turn(rows, [np.array([0])], np.array([1])).round(6).tolist()
    [[[2.0]], [[2.0]]]
    """

    SETTINGS: ClassVar = ("penalty",)
    HOLDS: ClassVar = 0, 48  # six square matrices, no copy of the features
    name: ClassVar = "ridge"

    penalty: float = 1e-3

    def __post_init__(self) -> None:
        check_penalty(self.penalty)

    def _fit(self, features: np.ndarray, codes: np.ndarray) -> None:
        """Solve the normal equations."""
        self.standardise = Standardiser.fit(features, self.run.precision)
        of_classes = codes.ndim == 1
        self.intercept = np.bincount(codes) / len(codes) if of_classes else codes.mean(axis=0)
        targets = np.eye(len(self.intercept)) - self.intercept

        def products(part: slice) -> list[np.ndarray]:
            gram = np.zeros((features.shape[1],) * 2)
            moments = np.zeros((features.shape[1], len(self.intercept)))
            some, given = features[part], codes[part]
            for rows in blocks(len(some), ROWS):
                columns = self.standardise(some[rows])
                gram += columns.T @ columns
                own = targets[given[rows]] if of_classes else given[rows] - self.intercept
                moments += columns.T @ own
            return [gram, moments]

        gram, moments = summed(len(features), products)
        self.system = solve_ridge(gram, moments, len(features), penalty=self.penalty)
        self.weights = self.system.weights
        vars(self).pop("_calibrated", None)

    def _without(
        self, features: np.ndarray, groups: list[np.ndarray], truth: np.ndarray
    ) -> Outcomes:
        """Solve again without each group, in closed form."""
        refuse_ill_conditioned(self.system, self.penalty)
        factors, lost = (
            partial(each, self.system) for each in (single_removal_factors, removed_weights)
        )
        return self._less(features, groups, truth, factors, lost)

    def _values_without(self, features: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
        refuse_ill_conditioned(self.system, self.penalty)
        return self._values_less(features, groups, partial(removed_weights, self.system))

    def predict_in_turn(
        self, features: np.ndarray, groups: Sequence[np.ndarray], counts: np.ndarray
    ) -> np.ndarray:
        """Read rows after the first groups have left, solved again each time.

        Parameters
        ----------
        features : ndarray of shape (N, D), floating
            Rows to read.
        groups : sequence of index arrays
            In the order in which they leave; no dimension twice.
        counts : ndarray of shape (P,), int
            How many are gone at each point.

        Returns
        -------
        ndarray of shape (N, P), unsigned
            Places of the predicted classes among the classes.

        Raises
        ------
        ValueError
            If rounding would spoil the closed form.
        """
        predicted = places((len(features), len(counts)), len(self.classes))
        for rows, place, scores, full in self._in_turn(features, groups, counts):
            predicted[rows, place] = first_largest(scores.T, tied_within(full))
        return predicted

    def values_in_turn(
        self, features: np.ndarray, groups: Sequence[np.ndarray], counts: np.ndarray
    ) -> np.ndarray:
        """Predict T targets after the first groups have left, solved again each time.

        Parameters
        ----------
        features : ndarray of shape (N, D), floating
            Rows to read.
        groups : sequence of index arrays
            In the order in which they leave; no dimension twice.
        counts : ndarray of shape (P,), int
            How many are gone at each point.

        Returns
        -------
        ndarray of shape (N, P, T), float64
            Predictions.

        Raises
        ------
        ValueError
            If rounding would spoil the closed form.
        """
        found = np.empty((len(features), len(counts), len(self.intercept)))
        for rows, place, scores, _ in self._in_turn(features, groups, counts):
            found[rows, place] = scores
        return found

    def _in_turn(
        self, features: np.ndarray, groups: Sequence[np.ndarray], counts: np.ndarray
    ) -> Iterator[tuple[slice, int, np.ndarray, np.ndarray]]:
        """Give rows, a point, their scores (B, K) there and those with all columns."""
        refuse_ill_conditioned(self.system, self.penalty)
        never = np.setdiff1d(np.arange(len(self.weights)), np.concatenate(list(groups)))
        kept_order = np.concatenate([never, *list(groups)[::-1]])
        n_gone = np.concatenate([[0], np.cumsum([len(group) for group in groups])])[counts]
        wanted = {int(len(kept_order) - gone): place for place, gone in enumerate(n_gone)}
        for rows in blocks(len(features), ROWS):
            columns = self.standardise(features[rows])
            full = columns @ self.weights + self.intercept
            for n_kept, logits in enumerate(nested_logits(columns, self.system, kept_order)):
                if n_kept in wanted:
                    yield rows, wanted[n_kept], logits + self.intercept, full

    def greedy_order(self, *, backward: bool) -> np.ndarray:
        """Order dimensions by a greedy search that follows the penalised loss of train.

        Parameters
        ----------
        backward : bool
            Remove what raises the loss least, from all; else add what lowers it most, to none.

        Returns
        -------
        ndarray of shape (D,), int64
            In the order in which the dimensions are taken.

        Raises
        ------
        ValueError
            If rounding would spoil the closed form.
        """
        refuse_ill_conditioned(self.system, self.penalty)
        return greedy_order(self.system, backward=backward)

    def _temperature(self) -> float:
        return self._calibrated

    @cached_property
    def _calibrated(self) -> float:
        """Temperature of the softmax of least log-loss on leave-one-out scores of train."""
        from scipy.optimize import minimize_scalar

        features, codes = self._train
        n_rows = len(features)
        rows = slice(None, None, -(-n_rows // _CALIBRATED))  # one number needs no more
        columns, codes = self.standardise(features[rows]), codes[rows]
        leverage = np.einsum("nd,nd->n", columns @ self.system.inverse, columns) + 1 / n_rows
        targets = np.eye(len(self.classes))[codes]
        residual = targets - columns @ self.weights - self.intercept
        held_out = targets - residual / np.maximum(1 - leverage, 1e-6)[:, None]
        own = float(held_out[np.arange(len(codes)), codes].mean())
        largest = float(held_out.max(axis=1).mean())
        held_out -= held_out.max(axis=1, keepdims=True)
        parts = list(blocks(len(codes), CACHED // held_out.shape[1]))

        def loss(log_temperature: float) -> float:
            inverse = float(np.exp(-log_temperature))
            sums = (np.exp(held_out[part] * inverse).sum(axis=1) for part in parts)
            whole = sum(float(np.log(each).sum()) for each in sums)
            return whole / len(codes) + (largest - own) * inverse

        found = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
        return float(np.exp(found.x))
