"""Linear readers without one column at a time: the logits ``L_ik - u_id v_dk`` of every column d.

With N rows, D columns and K classes there are N D K such logits, and almost none of them is formed.

Predictions. A row keeps its prediction unless a class can make up the lead: no logit moves by more,
beside that of the winner, than ``u_id`` times the distance of ``v_d`` of the winner from the end of
the range of ``v_d`` that the sign of ``u_id`` picks. Else the classes with the largest logits are
compared, and all classes only where the next one could pass them too.

Log-losses. ``log sum_k p_ik exp(-u_id v_dk)``, with p the softmax of row i: the exponential is a
polynomial in ``u_id v_dk`` (Chebyshev's on the range of exponents, ``v_d`` centred at the middle of
its range), whose sum takes only the products of p with the powers of ``v_d``. Its remainder has a
bound; where it is not below rounding the sum itself is taken, and so it is everywhere where that
costs less.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from dimlab.kernels.blocks import CACHED, blocks
from dimlab.kernels.downdate import first_largest, log_losses, tied_within

if TYPE_CHECKING:
    from torch import Tensor

_ELEMENTS = 1 << 22
_COMPARED = 9  # classes with the largest logits: 99.7 % of all pairs need no other
_SAFE_EXPONENT = 300.0  # exponentials of these neither overflow nor vanish together
_TERMS = (4, 8, 12, 14, 16, 18, 20)
_REMAINDER = 1e-15  # of the sum, relative; rounding adds as much, times exp(2 limit)
# Nanoseconds, measured, of a (row, column): an exponential, an exponential of a gathered row, one
# term of the polynomial, and what each class adds to it.
_DENSE, _GATHERED, _TERM, _PER_CLASS = 4.0, 9.0, 4.0, 0.1


def leave_out_predictions(logits: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Predictions (N, D) of the logits ``logits[:, k] - u[:, d] v[d, k]`` of every d."""
    (n_rows, n_classes), n_columns = logits.shape, u.shape[1]
    slack = tied_within(logits)
    full = first_largest(logits.T, slack)
    predicted = np.repeat(full[:, None], n_columns, axis=1)
    if n_classes == 1:
        return predicted
    n_compared = min(_COMPARED, n_classes)
    by_size = np.argpartition(-logits, min(n_compared, n_classes - 1), axis=1)
    compared = np.sort(by_size[:, :n_compared], axis=1)  # ascending: ties go to the lower class
    beyond = np.full(n_rows, -np.inf)
    if n_classes > n_compared:
        beyond = logits[np.arange(n_rows), by_size[:, n_compared]]
    ranked = np.partition(logits, -2, axis=1)[:, -2:]
    lead = ranked[:, 1] - ranked[:, 0] - slack
    low, high = v.min(axis=1), v.max(axis=1)
    by_class = np.ascontiguousarray(v.T)
    for part in blocks(n_rows, CACHED // n_columns):
        mine, winner = u[part], by_class[full[part]]
        gain = np.maximum(mine * (winner - low), mine * (winner - high)) * (1 + 1e-12)
        row, column = np.nonzero(gain >= lead[part, None])
        for piece in blocks(len(row), _ELEMENTS // n_compared):
            n, d = row[piece] + part.start, column[piece]
            scores = logits[n[:, None], compared[n]] - u[n, d][:, None] * v[d[:, None], compared[n]]
            found = first_largest(scores.T, slack[n])
            predicted[n, d] = compared[n, found]
            # ties within the slack reach over as many slacks as classes are compared
            reach = np.maximum(-u[n, d] * low[d], -u[n, d] * high[d])
            margin = scores.max(axis=1) - (n_compared + 1) * slack[n]
            margin -= 1e-12 * np.abs(u[n, d]) * (high[d] - low[d])
            unsure = beyond[n] + reach >= margin
            n, d = n[unsure], d[unsure]
            for some in blocks(len(n), _ELEMENTS // n_classes):
                i, j = n[some], d[some]
                without = logits[i] - u[i, j][:, None] * v[j]
                predicted[i, j] = first_largest(without.T, slack[i])
    return predicted


def leave_out_losses(
    logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Log-losses (N, D) of the logits ``logits[:, k] - u[:, d] v[d, k]`` of every d."""
    # All of a row by the same arithmetic: what changes nothing differs by exactly 0 from u = 0.
    n_classes = logits.shape[1]
    radius = (v.max(axis=1) - v.min(axis=1)) / 2
    sizes = np.abs(u) * radius
    costs: dict[int | None, float] = {None: _DENSE * n_classes}
    for n_terms in _TERMS:
        beyond = np.count_nonzero(sizes > _limit(n_terms)) / max(sizes.size, 1)
        polynomial = n_terms * (_TERM + _PER_CLASS * n_classes)
        costs[n_terms] = polynomial + beyond * _GATHERED * n_classes
    best = min(costs, key=costs.__getitem__)
    if best is None:
        return _summed(logits, u, v, truth)
    return _expanded(logits, u, v, truth, best)


@cache
def _limit(n_terms: int) -> float:
    """Largest exponent up to which the remainder after so many terms is below rounding."""
    # of sum_k p_k exp(-x_k), |x_k| <= z: Chebyshev's remainder, of a sum of at least exp(-z)
    from scipy.special import ive

    orders = np.arange(n_terms + 1, n_terms + 10)
    low, high = 0.0, 10.0
    for _ in range(60):
        z = (low + high) / 2
        remainder = 2 * ive(orders, z).sum() * math.exp(2 * z)
        low, high = (z, high) if remainder < _REMAINDER else (low, z)
    return low


@cache
def _polynomial(n_terms: int) -> list[float]:
    """Coefficients of x^0, x^1, ... near exp(-x) for exponents up to the limit."""
    # exp(-z t) = I_0(z) + 2 sum_n (-1)^n I_n(z) T_n(t), Abramowitz and Stegun, 9.6.34
    from numpy.polynomial.chebyshev import cheb2poly
    from scipy.special import iv

    limit, orders = _limit(n_terms), np.arange(n_terms + 1)
    of_t = cheb2poly(np.where(orders > 0, 2, 1) * (-1.0) ** orders * iv(orders, limit))
    return list(of_t / limit**orders)


def _expanded(
    logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray, n_terms: int
) -> np.ndarray:
    """Log-losses (N, D) by a polynomial, and by all exponentials beyond the limit."""
    import torch

    centre, radius = (v.max(axis=1) + v.min(axis=1)) / 2, (v.max(axis=1) - v.min(axis=1)) / 2
    shares = torch.from_numpy(logits).log_softmax(dim=1)
    full = -shares[torch.arange(len(logits)), torch.from_numpy(truth)].numpy()
    shares = shares.exp_()
    loss = np.empty(u.shape)
    apart = torch.from_numpy(np.ascontiguousarray((v - centre[:, None]).T))
    own = np.ascontiguousarray(v.T) - centre
    limit, (constant, *coefficients) = _limit(n_terms), _polynomial(n_terms)
    for part in blocks(len(u), CACHED // u.shape[1]):
        mine = torch.from_numpy(np.ascontiguousarray(u[part]))
        power, factor = apart.clone(), mine.clone()
        total = torch.full_like(mine, constant - 1)
        for coefficient in coefficients:
            total.addcmul_(factor, shares[part] @ power, value=coefficient)
            factor.mul_(mine)
            power.mul_(apart)
        loss[part] = full[part, None] + u[part] * own[truth[part]] + total.log1p_().numpy()
        row, column = np.nonzero(np.abs(u[part]) * radius > limit)
        for piece in blocks(len(row), _ELEMENTS // logits.shape[1]):
            n, d = row[piece] + part.start, column[piece]
            without = logits[n] - u[n, d][:, None] * v[d]
            loss[n, d] = log_losses(without.T, truth[n])
    return loss


def _summed(logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Log-losses (N, D) by all N D K exponentials."""
    import torch

    n_classes, n_columns = logits.shape[1], u.shape[1]
    loss = np.empty(u.shape)
    shifted = torch.from_numpy(logits - logits.max(axis=1, keepdims=True))
    weights = torch.from_numpy(np.ascontiguousarray(v.T))
    own = torch.from_numpy(truth)
    for part in blocks(len(u), CACHED // n_columns):
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
