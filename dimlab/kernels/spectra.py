"""Formulas of singular values, which the training and the probes wing share."""

from __future__ import annotations

import numpy as np

from dimlab.refusals import Refusal

# Formulas that are published as "effective rank" or "RankMe": whether the columns are centred,
# whether singular values (1) or their squares (2) are normalised, and what is added to each share.
DEFINITIONS: dict[str, tuple[bool, int, float]] = {
    "roy-vetterli": (False, 1, 0.0),
    "rankme": (False, 1, 1e-7),
    "stable-pretraining": (False, 1, 1e-5),
    "centred": (True, 1, 0.0),
    "covariance": (True, 2, 0.0),
    "ssrlib": (True, 2, 0.0),
    "reptrix": (True, 2, 1e-7),
}


def principal_axes(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (D,) of centred rows (N, D) and axes (D, D), one column each, the largest first."""
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    return variances[::-1], axes[:, ::-1]


def entropy_rank(singular_values: np.ndarray, *, added: float = 0.0) -> float:
    """Exponential of the entropy of normalised singular values (R,): the effective rank."""
    # Roy and Vetterli, "The effective rank", EUSIPCO 2007. ``added`` goes to every share, zeros
    # included, as RankMe does.
    values = _checked(singular_values)
    shares = values / values.sum() + added
    shares = shares[shares > 0]
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return rank if added else min(max(rank, 1.0), float(len(shares)))  # but for rounding it is


def participation_ratio(singular_values: np.ndarray) -> float:
    """Squared sum of squared singular values (R,) over the sum of their fourth powers."""
    energy = (_checked(singular_values) / np.max(singular_values)) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())


def stable_rank(singular_values: np.ndarray) -> float:
    """Sum of squared singular values (R,) over the largest of them squared."""
    values = _checked(singular_values)
    return float(((values / values.max()) ** 2).sum())


def condition_number(singular_values: np.ndarray) -> float:
    """Largest singular value of (R,) over the smallest; infinite where one is zero."""
    values = _checked(singular_values)
    smallest = float(values.min())
    return float(values.max()) / smallest if smallest > 0 else float("inf")


def power_law(singular_values: np.ndarray, ranks: tuple[int, int]) -> tuple[float, float]:
    """Exponent with which squared singular values fall with their rank, and the fit's R^2."""
    # Least squares of logarithms over ``ranks``, first and last, counted from 1.
    first, last = ranks
    n_positive = int((singular_values > 0).sum())
    if not 1 <= first < last <= n_positive:
        raise Refusal(
            f"fit_range must be two ranks in 1..{n_positive}, the second larger; got {ranks}."
        )
    x = np.log(np.arange(first, last + 1))
    y = 2 * np.log(singular_values[first - 1 : last])
    x -= x.mean()
    spread = y - y.mean()
    slope = (x @ spread) / (x @ x)
    total = spread @ spread
    return float(-slope), float(slope**2 * (x @ x) / total) if total > 0 else 1.0


def discriminant_rank(
    within: np.ndarray, between: np.ndarray, *, added: float, delta: float
) -> float:
    """LiDAR: effective rank of the covariance between samples, whitened by that within."""
    eigenvalues, vectors = np.linalg.eigh(within)
    scale = 1 / np.sqrt(np.maximum(eigenvalues, 0) + delta)
    whitened = scale[:, None] * (vectors.T @ between @ vectors) * scale
    values = np.maximum(np.linalg.eigvalsh(whitened), 0)
    return entropy_rank(values, added=added)


def _checked(singular_values: np.ndarray) -> np.ndarray:
    values = np.asarray(singular_values, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise Refusal(
            "singular_values must be finite, not negative and not all zero; "
            f"got {values.min(initial=0)} to {values.max(initial=0)}."
        )
    return values
