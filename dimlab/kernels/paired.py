"""Intervals and tests for proportions and paired outcomes, vectorised over groups."""

from __future__ import annotations

import numpy as np

_N_HALVINGS = 60  # an interval of length 2 shrinks below 2e-18


def wilson_interval(
    successes: np.ndarray | float,
    n: np.ndarray | float,
    *,
    level: float = 0.95,
    quantile: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a proportion.

    Parameters
    ----------
    successes : float or ndarray
        Number of successes, 0 <= successes <= n.
    n : float or ndarray
        Number of trials, > 0.
    level : float, default=0.95
        Confidence level.
    quantile : float, optional
        In place of the normal quantile of the level.

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
    z2 = (normal_quantile(level) if quantile is None else quantile) ** 2
    p = np.asarray(successes, dtype=np.float64) / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n) / (1 + z2 / n)
    low = np.where(p == 0, 0.0, np.clip(centre - half, 0, 1))
    return low, np.where(p == 1, 1.0, np.clip(centre + half, 0, 1))


def tango_interval(
    only_first: np.ndarray | float,
    only_second: np.ndarray | float,
    n: np.ndarray | float,
    *,
    level: float = 0.95,
    quantile: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tango's score interval of a difference of paired proportions, first minus second.

    Parameters
    ----------
    only_first, only_second : float or ndarray
        Discordant counts: pairs in which only the first, or only the second, is a success.
    n : float or ndarray
        Number of pairs, > 0, concordant ones included.
    level : float, default=0.95
        Confidence level.
    quantile : float, optional
        In place of the normal quantile of the level.

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
    z = normal_quantile(level) if quantile is None else quantile
    return -tango_upper_bound(c, b, n, z), tango_upper_bound(b, c, n, z)


def tango_upper_bound(b: np.ndarray, c: np.ndarray, n: np.ndarray | float, z: float) -> np.ndarray:
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


def normal_quantile(level: float) -> float:
    """Two-sided quantile of the normal distribution."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))
