"""Which spreads and eigenvalues are no more than rounding, given how the features were stored."""

from __future__ import annotations

from typing import Any

import numpy as np

_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_LEAST = 1e-12  # of a column's size: sums in float64 are not exact below it
_HIDDEN_BITS = {  # lowest bits of a word that are zero where a coarser type was widened to it
    "float32": (("bfloat16", 16), ("float16", 13)),
    "float64": (("bfloat16", 45), ("float16", 42), ("float32", 29)),
}
_USED = 0.4  # share of non-zero entries that must use the last bit of the coarser type
_BLOCK = 1 << 20  # elements looked at together
_FIRST = 1 << 12  # elements that tell most float32 features from widened ones

PRECISIONS = tuple(_EPS)


def eps_of(precision: str) -> float:
    """Distance from 1 to the next number of a floating type, by the type's name."""
    return _EPS[precision]


def coarser(one: str, other: str) -> str:
    """Return the type of the two that keeps fewer digits."""
    return max(one, other, key=eps_of)


def stored_precision(features: np.ndarray) -> str:
    """Name the type that features (N, D) were rounded to before they were widened."""
    # A coarser type than the array's own counts only if every entry is one of its numbers and at
    # least two fifths of the non-zero entries use its last bit: whole and other short numbers do
    # not.
    own = features.dtype.name
    candidates = [*_HIDDEN_BITS[own]]
    n_used, n_filled = dict.fromkeys(_EPS, 0), 0
    start, step = 0, max(1, _FIRST // features.shape[1])
    words = np.dtype(f"u{features.dtype.itemsize}")
    while start < len(features) and candidates:
        block = np.ascontiguousarray(features[start : start + step]).view(words)
        used = int(np.bitwise_or.reduce(block, axis=None))
        candidates = [(name, n) for name, n in candidates if used % (1 << n) == 0]
        for name, n_bits in candidates:
            n_used[name] += int(np.count_nonzero(block & words.type(1 << n_bits)))
        n_filled += int(np.count_nonzero(block))
        start, step = start + step, max(1, _BLOCK // features.shape[1])
    for name, _ in candidates:
        if n_used[name] >= max(1.0, _USED * n_filled):
            return name
    return own


def spread_floor(size: Any, eps: float) -> Any:
    """Largest standard deviation of a column of this magnitude that counts as constant."""
    # The size of the mean serves as the magnitude: the two differ only in columns that vary.
    return max(_LEAST, 2 * eps) * size


def eigenvalue_floor(
    largest: float, mean_square: float, n_samples: int, n_dimensions: int, eps: float
) -> float:
    """Largest eigenvalue of second moments that counts as zero."""
    # Rounding to a precision adds independent errors of variance at most eps^2 x^2 / 12 to the
    # entries x. The largest eigenvalue of the second moments of N rows of D independent errors is
    # about (1 + sqrt(D / N))^2 times their variance; the factor 4 leaves room for errors that are
    # not independent. mean_square is the largest of a column, not centred.
    noise = 4 * (1 + np.sqrt(n_dimensions / n_samples)) ** 2 * eps**2 / 12 * mean_square
    return float(max(n_dimensions * _EPS["float64"] * largest, noise))
