"""Formulas of singular values, which the training and the probes wing share."""

from __future__ import annotations

import numpy as np

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


def entropy_rank(singular_values: np.ndarray, *, added: float = 0.0) -> float:
    """Exponential of the entropy of normalised singular values: the effective rank.

    Parameters
    ----------
    singular_values : ndarray of shape (R,)
        Not negative.
    added : float, default=0.0
        Added to every share after normalising, zeros included, as RankMe does.

    Returns
    -------
    float
        In [1, R] where nothing is added; k for k equal values and R - k zeros.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or all are zero.

    References
    ----------
    .. [1] Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Examples
    --------
    >>> round(entropy_rank(np.array([2.0, 2.0, 2.0, 0.0])), 6)
    3.0
    """
    values = _checked(singular_values)
    shares = values / values.sum() + added
    shares = shares[shares > 0]
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return rank if added else min(max(rank, 1.0), float(len(shares)))  # but for rounding it is


def participation_ratio(singular_values: np.ndarray) -> float:
    """Squared sum of squared singular values over the sum of their fourth powers.

    Parameters
    ----------
    singular_values : ndarray of shape (R,)
        Not negative.

    Returns
    -------
    float
        In [1, R]; k for k equal values and R - k zeros.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or all are zero.

    Examples
    --------
    >>> participation_ratio(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    energy = (_checked(singular_values) / np.max(singular_values)) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum())


def stable_rank(singular_values: np.ndarray) -> float:
    """Sum of squared singular values over the largest of them squared.

    Parameters
    ----------
    singular_values : ndarray of shape (R,)
        Not negative.

    Returns
    -------
    float
        In [1, R].

    Raises
    ------
    ValueError
        If a value is negative or not finite, or all are zero.

    Examples
    --------
    >>> stable_rank(np.array([2.0, 1.0, 1.0]))
    1.5
    """
    values = _checked(singular_values)
    return float(((values / values.max()) ** 2).sum())


def condition_number(singular_values: np.ndarray) -> float:
    """Largest singular value over the smallest; infinite where one is zero.

    Parameters
    ----------
    singular_values : ndarray of shape (R,)
        Not negative.

    Returns
    -------
    float
        In [1, inf].

    Raises
    ------
    ValueError
        If a value is negative or not finite, or all are zero.

    Examples
    --------
    >>> condition_number(np.array([4.0, 2.0, 1.0]))
    4.0
    """
    values = _checked(singular_values)
    smallest = float(values.min())
    return float(values.max()) / smallest if smallest > 0 else float("inf")


def power_law(singular_values: np.ndarray, ranks: tuple[int, int]) -> tuple[float, float]:
    """Exponent of the decay of the squared singular values with their rank, and the fit's R^2.

    Parameters
    ----------
    singular_values : ndarray of shape (R,)
        Descending, positive within the range.
    ranks : tuple of int
        First and last rank of the fit, counted from 1; at least two ranks.

    Returns
    -------
    exponent, r_squared : float
        ``value^2`` falls as ``rank^-exponent``; least squares of logarithms.

    Raises
    ------
    ValueError
        If the range is not within the positive values.

    Examples
    --------
    >>> exponent, r_squared = power_law(np.arange(1, 30) ** -0.75, (2, 20))
    >>> round(exponent, 6), round(r_squared, 6)
    (1.5, 1.0)
    """
    first, last = ranks
    n_positive = int((singular_values > 0).sum())
    if not 1 <= first < last <= n_positive:
        raise ValueError(
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
    """LiDAR: effective rank of the between-sample covariance, seen after whitening the within.

    Parameters
    ----------
    within, between : ndarray of shape (D, D)
        Covariance of views around their sample's mean, and of the samples' means.
    added : float
        Added to every share after normalising.
    delta : float
        Added to the diagonal of ``within``.

    Returns
    -------
    float
        Exponential of the entropy of the eigenvalues' shares.

    Raises
    ------
    ValueError
        If ``between`` is zero.
    """
    eigenvalues, vectors = np.linalg.eigh(within)
    scale = 1 / np.sqrt(np.maximum(eigenvalues, 0) + delta)
    whitened = scale[:, None] * (vectors.T @ between @ vectors) * scale
    values = np.maximum(np.linalg.eigvalsh(whitened), 0)
    return entropy_rank(values, added=added)


def _checked(singular_values: np.ndarray) -> np.ndarray:
    values = np.asarray(singular_values, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise ValueError(
            "singular_values must be finite, not negative and not all zero; "
            f"got {values.min(initial=0)} to {values.max(initial=0)}."
        )
    return values
