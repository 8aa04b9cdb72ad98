"""Where the jackknife's intervals are known to cover less than they say, by simulation.

The limits come from worlds with known spectra (Gaussian, Student t, lognormal, sparse and
elliptical ones; 200 to 5,000 rows, 16 to 64 dimensions): within them intervals of ranks cover their
value in 0.90 to 1.00 of the cases, beyond them in as few as 0.76.
"""

from __future__ import annotations

import numpy as np

from dimlab.moments import Moments

HEAVY = 3.8  # mean kurtosis of the dimensions; a Gaussian has 3
_ROWS_OF_HEAVY = 250  # times the kurtosis: rows from which heavy tails do no harm
AMPLE = 8  # rows a dimension from which ranks are known well
_AMPLE_TAIL = 30  # rows a dimension from which an exponent is
_APART = 2.0  # standard errors between singular values that are told apart

RANKS = ("effective_rank", "entropy", "participation_ratio", "stable_rank", "lidar")


def block_kurtosis(moments: Moments) -> float:
    """Mean kurtosis of the dimensions, from how much their squares differ between blocks."""
    # 3 for Gaussian rows. Larger too where the rows of a block are alike, as in clusters. NaN for a
    # single block.
    occupied = moments.counts > 0
    n_blocks = int(occupied.sum())
    if n_blocks < 2:
        return float("nan")
    counts = moments.counts[occupied, None]
    whole = moments.whole()
    varies = whole.squares[0, -1] > 0
    gaps = moments.means[occupied, -1] - whole.means[0, -1]
    squares = moments.squares[occupied, -1] / counts + gaps**2
    scale = np.where(varies, whole.squares[0, -1] / whole.n, 1.0)
    excess = (counts * (squares / scale - 1) ** 2).sum(axis=0) / (n_blocks - 1)
    return 1.0 + float(excess[varies].mean()) if varies.any() else float("nan")


def is_heavy(kurtosis: float, n_rows: int) -> bool:
    """Whether rows of this kurtosis are too few for the jackknife."""
    return kurtosis > HEAVY and n_rows < _ROWS_OF_HEAVY * kurtosis


def caution_of_tails(kurtosis: float, n_units: int, clustered: bool) -> str:
    """Say why the jackknife's intervals may be too short; empty where they are known to hold."""
    if not is_heavy(kurtosis, n_units):
        return ""
    if clustered:
        return (
            "Few clusters: squares differ between blocks of them as with a kurtosis of "
            f"{kurtosis:.1f} (independent Gaussian rows: 3), and intervals may cover less than "
            f"95 % with {n_units} clusters."
        )
    return (
        f"Tails are heavy: the dimensions' mean kurtosis is {kurtosis:.1f} (Gaussian: 3), and "
        f"intervals may cover less than 95 % with {n_units} rows, those of ranks as little as 75 %."
    )


def doubtful_statistics(
    singular_values: np.ndarray,
    *,
    n_rows: int,
    n_dimensions: int,
    kurtosis: float,
    fitted: tuple[int, int] | None = None,
) -> tuple[str, ...]:
    """Name the statistics of a spectrum whose intervals may cover less than 95 %."""
    # Ranks where rows are few or tails heavy. The stable rank also where the largest singular value
    # is not apart from the next, the condition number where the smallest is not: the bias of values
    # that lie close together falls more slowly than the jackknife assumes. The exponent where rows
    # are few, or where the fitted values fall by less than twice as much as a sample's values do if
    # those of the population are equal (Marchenko and Pastur).
    few = n_rows < AMPLE * n_dimensions or is_heavy(kurtosis, n_rows)
    found = set(RANKS) if few else set()
    squares = singular_values[singular_values > 0] ** 2
    error = np.sqrt(max(kurtosis - 1, 2.0) / n_rows)
    if len(squares) > 1 and 1 - squares[1] / squares[0] <= _APART * error:
        found.add("stable_rank")
    if few or len(squares) < 2 or squares[-2] / squares[-1] - 1 <= _APART * error:
        found.add("condition_number")
    share = n_dimensions / n_rows * max(kurtosis / 3, 1.0)
    if fitted is None or few or share * _AMPLE_TAIL > 1 or _is_flat(squares, fitted, share):
        found.add("power_law_exponent")
    return tuple(sorted(found))


def _is_flat(squares: np.ndarray, fitted: tuple[int, int], share: float) -> bool:
    """Whether fitted squares fall by little more than chance makes equal ones fall."""
    first, last = fitted
    middle = (first + last) // 2
    # The whole range needs twice what chance gives. Its lower half needs half as much again: a few
    # large values before a plateau of equal ones are no power law.
    whole, half = np.log(squares[[first - 1, middle - 1]] / squares[last - 1])
    return bool(whole <= 2 * _by_chance(share) or half <= 1.5 * _by_chance(share / 2))


def _by_chance(share: float) -> float:
    """Return by how much the log of a sample's squares falls where the population's are equal."""
    return float(2 * np.log((1 + np.sqrt(share)) / (1 - np.sqrt(share))))
