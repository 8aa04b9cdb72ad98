"""Intervals and tests for proportions and paired outcomes, vectorised over groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_N_HALVINGS = 60  # an interval of length 2 shrinks below 2e-18
_ELEMENTS = 1 << 22
_SUMMED = 256  # rows whose signed sum float32 holds exactly


def wilson_interval(
    successes: np.ndarray | int, n: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    successes : int or ndarray of int
        Number of successes, 0 <= successes <= n.
    n : int
        Number of trials, >= 1.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    low, high : ndarray, same shape as ``successes``
        Bounds in [0, 1].

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Examples
    --------
    >>> low, high = wilson_interval(8, 10)
    >>> print(f"{low:.4f} {high:.4f}")
    0.4902 0.9433
    """
    z2 = _quantile(level) ** 2
    p = np.asarray(successes, dtype=np.float64) / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n) / (1 + z2 / n)
    low = np.where(p == 0, 0.0, np.clip(centre - half, 0, 1))
    return low, np.where(p == 1, 1.0, np.clip(centre + half, 0, 1))


def tango_interval(
    only_first: np.ndarray | int, only_second: np.ndarray | int, n: int, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Tango's score interval of a difference of paired proportions, first minus second.

    Parameters
    ----------
    only_first, only_second : int or ndarray of int
        Discordant counts: pairs in which only the first, or only the second, is a success.
    n : int
        Number of pairs, >= 1, concordant ones included.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    low, high : ndarray, broadcast shape of the counts
        Bounds in [-1, 1] around ``(only_first - only_second) / n``.

    Notes
    -----
    The interval holds every difference that the score test does not reject; the test's variance
    takes the maximum-likelihood estimate of the discordant probabilities given that difference.
    It keeps a positive width, and close to its level, where few pairs or none are discordant.

    References
    ----------
    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17, 1998.

    Examples
    --------
    >>> low, high = tango_interval(0, 0, 100)
    >>> print(f"{low:.4f} {high:.4f}")
    -0.0370 0.0370
    """
    b, c = np.broadcast_arrays(
        np.asarray(only_first, dtype=np.float64), np.asarray(only_second, dtype=np.float64)
    )
    high = _tango_bound(b, c, n, _quantile(level))
    return -_tango_bound(c, b, n, _quantile(level)), high


def _tango_bound(b: np.ndarray, c: np.ndarray, n: int, z: float) -> np.ndarray:
    """Upper bound of (b - c) / n by bisection: the score falls as the difference grows."""
    low, high = (b - c) / n, np.ones_like(b)
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        linear = (2 * n - b + c) * middle - b - c
        root = np.sqrt(np.maximum(linear**2 + 8 * n * c * middle * (1 - middle), 0))
        only_second = np.maximum((root - linear) / (4 * n), 0)
        variance = n * (2 * only_second + middle * (1 - middle))
        inside = (n * middle - (b - c)) ** 2 <= z**2 * variance
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(b == n, 1.0, (low + high) / 2)


def mcnemar(only_first: np.ndarray | int, only_second: np.ndarray | int) -> np.ndarray:
    """Two-sided exact p-value of McNemar's test.

    Parameters
    ----------
    only_first, only_second : int or ndarray of int
        Discordant counts.

    Returns
    -------
    ndarray
        p-values in (0, 1]; 1 where no pair is discordant.

    Notes
    -----
    Given their number, the discordant pairs are fair coin tosses if neither side is better; the
    p-value is twice the smaller tail, at most 1.

    References
    ----------
    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 1947.

    Examples
    --------
    >>> print(mcnemar(5, 0))
    0.0625
    """
    from scipy.stats import binom

    b, c = np.asarray(only_first), np.asarray(only_second)
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5))


def mcnemar_one_sided(more: np.ndarray | int, fewer: np.ndarray | int) -> np.ndarray:
    """One-sided exact p-value of McNemar's test: one kind of discordant pair is the likelier.

    Parameters
    ----------
    more, fewer : int or ndarray of int
        Discordant counts; the alternative is that the first kind is the likelier.

    Returns
    -------
    ndarray
        Probability of at least ``more`` heads in ``more + fewer`` fair tosses; 1 without any.

    References
    ----------
    McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 1947.

    Examples
    --------
    >>> print(mcnemar_one_sided(5, 0))
    0.03125
    """
    from scipy.stats import binom

    more, fewer = np.asarray(more), np.asarray(fewer)
    return np.minimum(1.0, binom.sf(more - 1, more + fewer, 0.5))


def aggregate_p_values(p_values: np.ndarray, *, least_share: float = 0.05) -> np.ndarray:
    """One p-value from those of many dependent runs, by the smallest of their adjusted quantiles.

    Parameters
    ----------
    p_values : ndarray of shape (R, G)
        One row a run; 1 where a run did not test.
    least_share : float, default=0.05
        Smallest share of runs that may decide (gamma_min in [1]_).

    Returns
    -------
    ndarray of shape (G,)
        ``min(1, (1 - log gamma_min) inf_gamma Q(gamma))``, where ``Q(gamma)`` is the
        gamma-quantile of ``p / gamma`` over the runs and gamma >= gamma_min.

    References
    ----------
    .. [1] Meinshausen, Meier & Buehlmann, "p-values for high-dimensional regression", JASA 104,
       2009, eq. 2.3.

    Examples
    --------
    >>> print(aggregate_p_values(np.full((40, 1), 0.01)).round(4))
    [0.04]
    """
    n_runs = len(p_values)
    first = max(1, int(np.ceil(least_share * n_runs - 1e-9)))
    ranked = np.sort(p_values, axis=0)[first - 1 :]
    share = np.arange(first, n_runs + 1)[:, None] / n_runs
    return np.minimum(1.0, (1 - np.log(least_share)) * (ranked / share).min(axis=0))


def sign_flip_test(differences: np.ndarray, rng: np.random.Generator, n_draws: int) -> np.ndarray:
    """Two-sided p-value that paired differences are symmetric around zero.

    Parameters
    ----------
    differences : ndarray of shape (N, G), float64
        One column a group, one row a sample.
    rng : numpy.random.Generator
        Draws the signs, the same for all groups.
    n_draws : int
        Number of random sign vectors.

    Returns
    -------
    ndarray of shape (G,)
        ``(1 + count of draws with a sum at least as far from 0) / (1 + n_draws)``; 1 for a column
        of zeros.
    """
    import torch

    observed = np.abs(differences.sum(axis=0))
    # A draw that only reorders the same numbers must count as equal.
    observed -= 1e-12 * np.abs(differences).sum(axis=0)
    numbers, error = _summed_without_rounding(differences)
    if torch.get_float32_matmul_precision() != "highest":  # the caller allows bfloat16 products
        numbers = numbers.double()
    sure, unsure = (torch.from_numpy(observed + each) for each in (error, -error))
    count = np.zeros(differences.shape[1], dtype=np.int64)
    n_samples, n_groups = differences.shape
    step = max(1, min(_ELEMENTS * 16 // n_samples, _ELEMENTS // n_groups))
    for start in range(0, n_draws, step):
        # whole words of four signs: what is left of a word would be lost between two blocks
        size = (min(step, n_draws - start), -(-n_samples // 4) * 4)
        signs = 2 * rng.integers(0, 2, size=size, dtype=np.int8)[:, :n_samples] - 1
        sums = torch.zeros(size[0], n_groups, dtype=torch.float64)
        for rows in _row_blocks(n_samples):
            sums += torch.from_numpy(signs[:, rows]).to(numbers.dtype) @ numbers[rows]
        sums.abs_()
        count += (sums >= sure).sum(dim=0).numpy()
        draws, groups = np.nonzero(((sums >= unsure) & (sums < sure)).numpy())
        for group in np.unique(groups):  # too close for float32
            chosen = signs[draws[groups == group]].astype(np.float64)
            count[group] += (np.abs(chosen @ differences[:, group]) >= observed[group]).sum()
    return (1 + count) / (1 + n_draws)


def _row_blocks(n_samples: int) -> list[slice]:
    return [slice(start, start + _SUMMED) for start in range(0, n_samples, _SUMMED)]


def _summed_without_rounding(differences: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Float32 near the differences whose signed sums over a block of rows are exact in float32.

    Each block of each column becomes whole multiples of a power of two, small enough that no sum
    of the block needs more than 24 bits. What was rounded away bounds the error, per column.
    """
    import torch

    single = np.empty(differences.shape, dtype=np.float32)
    error = np.zeros(differences.shape[1])
    for rows in _row_blocks(len(differences)):
        block = differences[rows]
        bound = np.abs(block).sum(axis=0)
        # one bit to spare for the rounding of the multiples themselves
        unit = np.exp2(np.ceil(np.log2(np.maximum(bound, 1e-30))) - 23)
        whole = np.rint(block / unit) * unit
        error += np.abs(block - whole).sum(axis=0)
        single[rows] = whole
    return torch.from_numpy(single), error


def bootstrap_interval(
    differences: np.ndarray,
    strata: np.ndarray,
    rng: np.random.Generator,
    n_draws: int,
    *,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a mean of paired differences, samples drawn with replacement.

    Parameters
    ----------
    differences : ndarray of shape (N, G), float64
        One column a group, one row a sample.
    strata : ndarray of shape (N,), int
        0 .. S-1; the statistic is the mean over strata of the stratum's mean. All 0: the plain
        mean. A stratum that a draw misses is left out of that draw.
    rng : numpy.random.Generator
        Draws the samples, the same for all groups.
    n_draws : int
        Number of bootstrap samples, >= 1.
    level : float, default=0.95
        Confidence level.

    Returns
    -------
    low, high : ndarray of shape (G,)
        Percentiles of the bootstrap statistics.
    """
    n_samples, n_groups = differences.shape
    membership = np.eye(int(strata.max()) + 1)[strata]
    statistics = np.empty((n_draws, n_groups))
    step = max(1, _ELEMENTS // n_samples)
    for start in range(0, n_draws, step):
        stop = min(start + step, n_draws)
        counts = rng.multinomial(n_samples, np.full(n_samples, 1 / n_samples), size=stop - start)
        sizes = counts @ membership
        weights = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        weights /= (sizes > 0).sum(axis=1, keepdims=True)
        statistics[start:stop] = (counts * (weights @ membership.T)) @ differences
    tail = (1 - level) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail], axis=0)
    return low, high


def bootstrap_sums(columns: np.ndarray, rng: np.random.Generator, n_draws: int) -> np.ndarray:
    """Column sums over samples drawn with replacement: what ratios of sums are made of.

    Parameters
    ----------
    columns : ndarray of shape (N, C), float64
        One row a sample.
    rng : numpy.random.Generator
        Draws the samples, the same for all columns.
    n_draws : int
        Number of bootstrap samples, >= 1.

    Returns
    -------
    ndarray of shape (n_draws, C)
        N drawn rows, added up.
    """
    n_samples = len(columns)
    sums = np.empty((n_draws, columns.shape[1]))
    for draw in range(n_draws):
        counts = np.bincount(rng.integers(0, n_samples, n_samples), minlength=n_samples)
        sums[draw] = counts @ columns
    return sums


def _quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))
