"""Formulas of singular values, which the training and the probes wing share."""

from __future__ import annotations

import numpy as np


def entropy_rank(singular_values: np.ndarray) -> float:
    """Exponential of the entropy of normalised singular values: the effective rank.

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

    References
    ----------
    .. [1] Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Examples
    --------
    >>> round(entropy_rank(np.array([2.0, 2.0, 2.0, 0.0])), 6)
    3.0
    """
    values = np.asarray(singular_values, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise ValueError(
            "singular_values must be finite, not negative and not all zero; "
            f"got {values.min(initial=0)} to {values.max(initial=0)}."
        )
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
