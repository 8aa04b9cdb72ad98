"""Linear readers without each group of columns, from one factorisation, in float64.

The ridge weights ``W = M Z'Y`` with ``M = (Z'Z + penalty N I)^-1`` become, without the columns g,
``W - M[:, g] M[g, g]^-1 W[g, :]``: what is left solves the smaller system exactly. The logits of
every reader without a group are then ``L - U_g V_g`` with |g| columns ``U_g``, refitted or
frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dimlab.refusals import Refusal

# Rounding times the condition number stays below 1e-8.
_LARGEST_CONDITION = 1e-8 / np.finfo(np.float64).eps
_TIED = 1e-9  # share of a sample's largest logit below which a lead is rounding


@dataclass(frozen=True, eq=False)
class RidgeSystem:
    """The solution of ``(Z'Z + penalty N I) W = Z'Y``."""

    inverse: np.ndarray  # (D, D) ``(Z'Z + penalty N I)^-1``
    weights: np.ndarray  # (D, K) coefficients of the standardised columns
    condition: float  # condition number of the system
    matrix: np.ndarray  # (D, D) ``Z'Z + penalty N I``
    moments: np.ndarray  # (D, K) ``Z'Y``


def solve_ridge(
    gram: np.ndarray, moments: np.ndarray, n_rows: int, *, penalty: float
) -> RidgeSystem:
    """Solve ``(Z'Z + penalty N I) W = Z'Y``, given Z'Z (D, D) and Z'Y (D, K) of centred Y."""
    zero = gram.diagonal() == 0
    matrix = gram.copy()
    matrix[np.diag_indices_from(matrix)] += penalty * n_rows
    eigenvalues, vectors = np.linalg.eigh(matrix)
    smallest = max(eigenvalues[0], penalty * n_rows * 0.5)
    inverse = (vectors / np.maximum(eigenvalues, smallest)) @ vectors.T
    weights = inverse @ moments
    weights[zero] = 0.0
    inverse[zero] = inverse[:, zero] = 0.0
    inverse[zero, zero] = 1.0 / (penalty * n_rows)
    condition = float(eigenvalues[-1] / smallest)
    return RidgeSystem(inverse, weights, condition, matrix, moments)


def refuse_ill_conditioned(system: RidgeSystem, penalty: float) -> None:
    """Raise where the closed form without a group could be off by more than 1e-8."""
    if system.condition > _LARGEST_CONDITION:
        at_least = penalty * system.condition / _LARGEST_CONDITION
        raise Refusal(
            f"penalty must be at least {at_least:.1g} for these features, or rounding spoils the "
            f"closed form; got {penalty:g}."
        )


def removed_weights(system: RidgeSystem, group: np.ndarray) -> np.ndarray:
    """Return what the weights (D, K) lose when columns leave and the rest is solved again."""
    block = system.inverse[np.ix_(group, group)]
    change = system.inverse[:, group] @ np.linalg.solve(block, system.weights[group])
    change[group] = system.weights[group]
    return change


def nested_logits(
    columns: np.ndarray, system: RidgeSystem, order: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield ridge logits (N, K) on the first 0, 1, ... D columns of an order, each solved."""
    # Leading blocks of a Cholesky factor are the factors of leading blocks: with A = L L' in this
    # order the logits on n columns are sum_{j < n} t_j y_j with T = X L'^-1, y = L^-1 b. The array
    # that is given is added to in place.
    from scipy.linalg import cholesky, solve_triangular

    lower = cholesky(system.matrix[np.ix_(order, order)], lower=True)
    y = solve_triangular(lower, system.moments[order], lower=True)
    t = solve_triangular(lower, columns[:, order].T, lower=True)
    logits = np.zeros((len(columns), y.shape[1]))
    yield logits
    for row, weight in zip(t, y, strict=True):
        logits += row[:, None] * weight
        yield logits


def greedy_order(system: RidgeSystem, *, backward: bool) -> np.ndarray:
    """Columns (D,) in the order of a greedy search by the penalised train loss."""
    # Backward removes, each time, the column that raises the loss least; forward adds the one that
    # lowers it most; equal ones go by index. Without column d the minimum rises by |w_d|^2 / M_dd;
    # with it, it falls by |c_d|^2 / s_d (c: moments of the residual, s: Schur complement).
    n_columns = len(system.matrix)
    order = np.empty(n_columns, dtype=np.int64)
    left = np.ones(n_columns, dtype=bool)
    matrix = (system.inverse if backward else system.matrix).copy()
    vectors = (system.weights if backward else system.moments).copy()
    for step in range(n_columns):
        gain = (vectors**2).sum(axis=1) / np.maximum(np.diagonal(matrix), 1e-300)
        best = gain[left].min() * (1 + _TIED) if backward else gain[left].max() * (1 - _TIED)
        chosen = int((left & (gain <= best if backward else gain >= best)).argmax())
        order[step], left[chosen] = chosen, False
        factor = matrix[:, chosen] / matrix[chosen, chosen]
        vectors -= factor[:, None] * vectors[chosen]
        matrix -= np.outer(factor, matrix[chosen])
    return order


def single_removal_factors(system: RidgeSystem, columns: np.ndarray) -> np.ndarray:
    """Return u (N_test, D) for each single column: v is then the row of weights."""
    return (columns @ system.inverse) / np.diagonal(system.inverse)


def tied_within(logits: np.ndarray) -> np.ndarray:
    """Largest lead (N,) between classes that counts as a tie after a subtraction."""
    # Where everything that distinguishes the classes is removed, the remaining reader gives every
    # class the same logit; the difference that the subtraction leaves is rounding, and its sign
    # follows the truth.
    return _TIED * np.abs(logits).max(axis=1)


def first_largest(scores: np.ndarray, slack: np.ndarray | None = None) -> np.ndarray:
    """Index of the largest score along the first axis (K, ...), the first of equal ones."""
    # K running maxima read the memory in order, where argmax jumps. Values that lead by no more
    # than the slack count as equal.
    best = scores[0].copy()
    winner = np.zeros(best.shape, dtype=np.int64)
    for index in range(1, len(scores)):
        better = scores[index] > (best if slack is None else best + slack)
        winner[better] = index
        np.maximum(best, scores[index], out=best)
    return winner


def log_losses(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Negative log-probability (N, ...) of each sample's class for logits (K, N, ...), in nats."""
    largest = scores.max(axis=0)
    normaliser = np.log(np.exp(scores - largest).sum(axis=0)) + largest
    return normaliser - scores[truth, np.arange(len(truth))]
