"""Linear readers without each group of columns, from one factorisation, in float64.

The ridge weights ``W = M Z'Y`` with ``M = (Z'Z + penalty N I)^-1`` become, without the columns g,
``W - M[:, g] M[g, g]^-1 W[g, :]``: what is left solves the smaller system exactly. The logits of
every reader without a group are then ``L - U_g V_g`` with |g| columns ``U_g``, refitted or
frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS = 1 << 22
_CACHED = 1 << 17  # elements of arrays that a processor's cache holds
_SAFE_EXPONENT = 300.0  # exponentials of these neither overflow nor vanish together
# Rounding times the condition number stays below 1e-8.
_LARGEST_CONDITION = 1e-8 / np.finfo(np.float64).eps
_TIED = 1e-9  # of a sample's largest logit: a lead that is rounding, and would follow the truth


@dataclass(frozen=True, eq=False)
class RidgeSystem:
    """A ridge regression, solved.

    Parameters
    ----------
    inverse : ndarray of shape (D, D)
        ``(Z'Z + penalty N I)^-1``.
    weights : ndarray of shape (D, K)
        Coefficients of the standardised columns.
    condition : float
        Condition number of the system.
    matrix : ndarray of shape (D, D)
        ``Z'Z + penalty N I``.
    moments : ndarray of shape (D, K)
        ``Z'Y``.
    """

    inverse: np.ndarray
    weights: np.ndarray
    condition: float
    matrix: np.ndarray
    moments: np.ndarray


def solve_ridge(standardised: np.ndarray, targets: np.ndarray, *, penalty: float) -> RidgeSystem:
    """Solve ``(Z'Z + penalty N I) W = Z'Y`` and keep the inverse.

    Parameters
    ----------
    standardised : ndarray of shape (N, D), float64
        Z. Columns of zeros get coefficients of exactly 0.
    targets : ndarray of shape (N, K), float64
        Y, centred.
    penalty : float
        > 0.

    Returns
    -------
    RidgeSystem
        The inverse, the weights and the condition number.
    """
    gram = standardised.T @ standardised
    gram[np.diag_indices_from(gram)] += penalty * len(standardised)
    eigenvalues, vectors = np.linalg.eigh(gram)
    smallest = max(eigenvalues[0], penalty * len(standardised) * 0.5)
    inverse = (vectors / np.maximum(eigenvalues, smallest)) @ vectors.T
    zero = ~standardised.any(axis=0)
    moments = standardised.T @ targets
    weights = inverse @ moments
    weights[zero] = 0.0
    inverse[zero] = inverse[:, zero] = 0.0
    inverse[zero, zero] = 1.0 / (penalty * len(standardised))
    condition = float(eigenvalues[-1] / smallest)
    return RidgeSystem(inverse, weights, condition, gram, moments)


def refuse_ill_conditioned(system: RidgeSystem, penalty: float) -> None:
    """Raise where the closed form without a group could be off by more than 1e-8.

    Parameters
    ----------
    system : RidgeSystem
        The solved system.
    penalty : float
        The penalty it was solved with, for the message.

    Raises
    ------
    ValueError
        If rounding, amplified by the condition number, may reach 1e-8.
    """
    if system.condition > _LARGEST_CONDITION:
        at_least = penalty * system.condition / _LARGEST_CONDITION
        raise ValueError(
            f"penalty must be at least {at_least:.1g} for these features, or rounding spoils the "
            f"closed form; got {penalty:g}."
        )


def removed_weights(system: RidgeSystem, group: np.ndarray) -> np.ndarray:
    """Change of the ridge weights when columns are removed and the rest solved again.

    Parameters
    ----------
    system : RidgeSystem
        The full solution.
    group : ndarray of int
        Columns that leave.

    Returns
    -------
    ndarray of shape (D, K)
        What is subtracted from the weights; those of the group itself become 0.
    """
    block = system.inverse[np.ix_(group, group)]
    change = system.inverse[:, group] @ np.linalg.solve(block, system.weights[group])
    change[group] = system.weights[group]
    return change


def resolved_group_logits(
    logits: np.ndarray, columns: np.ndarray, system: RidgeSystem, groups: list[np.ndarray]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits of a ridge that is solved again without each group, in blocks of groups.

    Parameters
    ----------
    logits : ndarray of shape (N, K)
        Full logits.
    columns : ndarray of shape (N, D)
        Test rows, standardised as the train rows.
    system : RidgeSystem
        The full solution.
    groups : list of ndarray of int
        Columns that leave together.

    Yields
    ------
    part : slice
        Groups of this block.
    without : ndarray of shape (K, N, b)
        Their logits, class first.
    """
    n_samples, n_classes = logits.shape
    step = max(1, _ELEMENTS // (n_samples * n_classes))
    for start in range(0, len(groups), step):
        part = slice(start, min(start + step, len(groups)))
        changes = np.stack([removed_weights(system, group) for group in groups[part]], axis=2)
        change = columns @ changes.reshape(columns.shape[1], -1)  # (N, K b)
        change = change.reshape(n_samples, n_classes, -1).transpose(1, 0, 2)
        yield part, logits.T[:, :, None] - change


def nested_logits(
    columns: np.ndarray, system: RidgeSystem, order: np.ndarray
) -> Iterator[np.ndarray]:
    """Ridge logits on the first 0, 1, 2, ... D columns of an order, each as if solved alone.

    Parameters
    ----------
    columns : ndarray of shape (N, D)
        Test rows, standardised as the train rows.
    system : RidgeSystem
        The full solution.
    order : ndarray of shape (D,), int
        A permutation of the columns.

    Yields
    ------
    ndarray of shape (N, K)
        Logits without the intercept; the same array, added to in place.

    Notes
    -----
    Leading blocks of a Cholesky factor are the factors of leading blocks: with ``A = L L'`` in this
    order the logits on n columns are ``sum_{j < n} t_j y_j`` with ``T = X L'^-1``, ``y = L^-1 b``.
    """
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
    """Columns in the order in which a greedy search takes them, by the penalised train loss.

    Parameters
    ----------
    system : RidgeSystem
        The full solution.
    backward : bool
        Remove from all, each time the column that raises the loss least; else add to none, each
        time the one that lowers it most. Equal ones go by index.

    Returns
    -------
    ndarray of shape (D,), int64
        Backward: first the column that was removed first. Forward: first the one added first.

    Notes
    -----
    Without column d the minimum rises by ``|w_d|^2 / M_dd``; with it, it falls by ``|c_d|^2 / s_d``
    (c: moments of the residual, s: Schur complement). Each step is a rank-one update.
    """
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


def single_removal_factors(columns: np.ndarray, system: RidgeSystem) -> np.ndarray:
    """Return u (N_test, D) for each single column: v is then the row of weights."""
    return (columns @ system.inverse) / np.diagonal(system.inverse)


def group_logits(
    logits: np.ndarray, factors: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits without each group, one by one, from the factors (u, v) of each group.

    Parameters
    ----------
    logits : ndarray of shape (N, K)
        Full logits.
    factors : iterable of (ndarray of shape (N, |g|), ndarray of shape (|g|, K))
        One pair a group.

    Yields
    ------
    part : slice
        One group.
    without : ndarray of shape (K, N, 1)
        Its logits, class first.
    """
    for group, (u, v) in enumerate(factors):
        yield slice(group, group + 1), (logits - u @ v).T[:, :, None]


def leave_out_predictions(logits: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Predict from the logits ``logits[:, k] - u[:, d] v[d, k]`` of every d, never storing all.

    Parameters
    ----------
    logits : ndarray of shape (N, K)
        Full logits.
    u : ndarray of shape (N, D)
        What of each sample leaves with each dimension.
    v : ndarray of shape (D, K)
        How much it weighs for each class.

    Returns
    -------
    ndarray of shape (N, D), int64
        Index of the largest logit, the first of equal ones; see `tied_within`.

    Notes
    -----
    A sample whose largest logit leads by more than ``|u_d| (max_k v_dk - min_k v_dk)`` keeps its
    prediction; only the others' logits are formed.
    """
    n_samples, n_groups = u.shape
    slack = tied_within(logits)
    full = first_largest(logits.T, slack)
    predicted = np.repeat(full[:, None], n_groups, axis=1)
    if logits.shape[1] == 1:
        return predicted
    ranked = np.partition(logits, -2, axis=1)[:, -2:]
    lead = ranked[:, 1] - ranked[:, 0] - slack
    spread = (v.max(axis=1) - v.min(axis=1)) * (1 + 1e-12)
    step = max(1, _CACHED // n_groups)
    for start in range(0, n_samples, step):
        part = slice(start, start + step)
        row, dimension = np.nonzero(np.abs(u[part]) * spread >= lead[part, None])
        for some in _pieces(len(row), logits.shape[1]):
            n, d = row[some] + start, dimension[some]
            without = (logits[n] - u[n, d][:, None] * v[d]).T
            predicted[n, d] = first_largest(without, slack[n])
    return predicted


def _pieces(length: int, width: int) -> Iterator[slice]:
    step = max(1, _ELEMENTS // width)
    for start in range(0, length, step):
        yield slice(start, start + step)


def leave_out_losses(
    logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Log-loss of the logits ``logits[:, k] - u[:, d] v[d, k]`` of every d, never storing all.

    Parameters
    ----------
    logits, u, v
        As in ``leave_out_predictions``, divided by the softmax's temperature.
    truth : ndarray of shape (N,), int
        Class index of each sample.

    Returns
    -------
    ndarray of shape (N, D), float64
        Negative log-probability of the sample's class, in nats.
    """
    import torch

    (n_samples, n_classes), n_groups = logits.shape, u.shape[1]
    loss = np.empty((n_samples, n_groups))
    shifted = torch.from_numpy(logits - logits.max(axis=1, keepdims=True))
    weights = torch.from_numpy(np.ascontiguousarray(v.T))
    own = torch.from_numpy(truth)
    step = max(1, _CACHED // n_groups)
    for start in range(0, n_samples, step):
        part = slice(start, start + step)
        full, columns = shifted[part], torch.from_numpy(np.ascontiguousarray(u[part]))

        def without(k: int, full: Tensor = full, columns: Tensor = columns) -> Tensor:
            return torch.addcmul(full[:, k : k + 1], columns, weights[k], value=-1)

        largest = torch.zeros(())
        if float(columns.abs().max()) * float(weights.abs().max()) > _SAFE_EXPONENT:
            largest = without(0)
            for k in range(1, n_classes):
                largest = torch.maximum(largest, without(k))
        total = without(0).sub_(largest).exp_()
        for k in range(1, n_classes):
            total += without(k).sub_(largest).exp_()
        mine = torch.addcmul(full.gather(1, own[part, None]), columns, weights[own[part]], value=-1)
        loss[part] = total.log_().add_(largest).sub_(mine).numpy()
    return loss


def tied_within(logits: np.ndarray) -> np.ndarray:
    """Lead of one class over another that counts as none once something was subtracted.

    Parameters
    ----------
    logits : ndarray of shape (N, K)
        Full logits.

    Returns
    -------
    ndarray of shape (N,)
        1e-9 of each sample's largest absolute logit. Where all that tells classes apart has left,
        the reader that is left gives every class the same; what the subtraction leaves of the
        difference is rounding, with the sign of the truth.
    """
    return _TIED * np.abs(logits).max(axis=1)


def first_largest(scores: np.ndarray, slack: np.ndarray | None = None) -> np.ndarray:
    """Index along the first axis of the largest value, the first of equal ones.

    Parameters
    ----------
    scores : ndarray of shape (K, ...)
        Class first: K running maxima read the memory in order, where ``argmax`` jumps.
    slack : ndarray that broadcasts to shape (...), optional
        Values that lead by no more count as equal; by default 0.

    Returns
    -------
    ndarray of shape (...), int64
        Class indices.
    """
    best = scores[0].copy()
    winner = np.zeros(best.shape, dtype=np.int64)
    for index in range(1, len(scores)):
        better = scores[index] > (best if slack is None else best + slack)
        winner[better] = index
        np.maximum(best, scores[index], out=best)
    return winner


def log_losses(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Negative log-probability of each sample's class under a softmax over the first axis.

    Parameters
    ----------
    scores : ndarray of shape (K, N, ...)
        Logits, class first.
    truth : ndarray of shape (N,), int
        Class index of each sample.

    Returns
    -------
    ndarray of shape (N, ...), float64
        Losses >= 0, in nats.
    """
    largest = scores.max(axis=0)
    normaliser = np.log(np.exp(scores - largest).sum(axis=0)) + largest
    return normaliser - scores[truth, np.arange(len(truth))]
