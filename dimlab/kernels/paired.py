"""Intervals and tests of proportions and paired outcomes, vectorised over groups.

Functions with an argument ``clusters`` take None where rows are independent, or one id a row. With
ids, intervals use the variance between whole clusters: counts and N are divided by the design
effect, and Student's t with one degree of freedom fewer than clusters replaces the normal quantile
(simulated with 20 to 250 clusters this covers 0.94-0.99, the normal quantile 0.91-0.99). Tests flip
the signs of whole clusters.

Floating values are no counts: their means have Student's t intervals and tests.
"""

from __future__ import annotations

import math

import numpy as np

_RESOLVED = 1e-15  # probabilities that the transform of a distribution resolves
_N_HALVINGS = 60  # an interval of length 2 shrinks below 2e-18


def wilson_interval(
    successes: np.ndarray | float,
    n: np.ndarray | float,
    *,
    level: float = 0.95,
    quantile: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of Wilson's score interval of proportions, ``quantile`` in place of the level's."""
    # Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
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
    """Bounds of Tango's score interval of ``(only_first - only_second) / n`` over n pairs."""
    # Tango, Statistics in Medicine 17, 1998: every difference that the score test does not reject.
    # The variance takes the maximum-likelihood estimate of the discordant probabilities given that
    # difference, so the interval keeps a width, and about its level, where few pairs or none are
    # discordant.
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
    """Two-sided exact p-value of McNemar's test of discordant counts; 1 where there are none."""
    # Given their number, discordant pairs are tosses of a fair coin if neither side is better.
    from scipy.stats import binom

    b, c = np.asarray(only_first), np.asarray(only_second)
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(b, c), b + c, 0.5))


def mcnemar_one_sided(more: np.ndarray | int, fewer: np.ndarray | int) -> np.ndarray:
    """Exact p-value of McNemar's test against ``more`` being the likelier kind of pair."""
    from scipy.stats import binom

    more, fewer = np.asarray(more), np.asarray(fewer)
    return np.minimum(1.0, binom.sf(more - 1, more + fewer, 0.5))


def aggregate_p_values(p_values: np.ndarray, *, least_share: float = 0.05) -> np.ndarray:
    """One p-value a column (G,) from the p-values (R, G) of R dependent runs."""
    # Meinshausen, Meier and Buehlmann, JASA 104, 2009, eq. 2.3: min(1, (1 - log least) inf_gamma
    # Q(gamma)), Q(gamma) the gamma-quantile of p / gamma over the runs, gamma >= least_share.
    n_runs = len(p_values)
    first = max(1, int(np.ceil(least_share * n_runs - 1e-9)))
    ranked = np.sort(p_values, axis=0)[first - 1 :]
    share = np.arange(first, n_runs + 1)[:, None] / n_runs
    return np.minimum(1.0, (1 - np.log(least_share)) * (ranked / share).min(axis=0))


def normal_quantile(level: float) -> float:
    """Two-sided quantile of the normal distribution."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def cluster_sums(values: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """Sum values (N, ...) over each cluster: (C, ...) float64, in order of the ids."""
    if clusters is None:
        return np.asarray(values, dtype=np.float64)
    order = np.argsort(clusters, kind="stable")
    ordered = clusters[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    return np.add.reduceat(values[order], first, axis=0, dtype=np.float64)


def cluster_quantile(clusters: np.ndarray | None, level: float) -> float:
    """Two-sided quantile: normal, or Student's t with one degree of freedom fewer than clusters."""
    if clusters is None:
        return normal_quantile(level)
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, max(1, len(np.unique(clusters)) - 1)))


def design_effect(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """How many times clusters raise the variance of the mean of outcomes (N, ...): -1, 0 or 1."""
    # Obuchowski, Statistics in Medicine 17, 1998: variance between clusters over that of
    # independent rows, at least 1; the mean cluster size where all values are equal.
    n = len(values)
    total = values.sum(axis=0, dtype=np.int64)
    # whole numbers: n times the sum of squares around the mean, without rounding
    around = n * (values != 0).sum(axis=0, dtype=np.int64) - total**2
    sizes = cluster_sums(np.ones(n), clusters)
    sums = cluster_sums(values, clusters)
    shape = (-1,) + (1,) * (sums.ndim - 1)
    between = ((sums - sizes.reshape(shape) * (total / n)) ** 2).sum(axis=0)
    n_clusters = len(sizes)
    between *= n_clusters / max(1, n_clusters - 1)
    effect = np.divide(
        n * between, around, out=np.full(between.shape, n / n_clusters), where=around > 0
    )
    return np.maximum(1.0, effect)


def proportion_interval(
    successes: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of Wilson's interval of the share of successes (N, ...), at N / design effect."""
    if np.asarray(successes).dtype.kind == "f":
        return student_interval(successes, clusters, level=level)
    successes = np.asarray(successes, dtype=bool)
    n, count = len(successes), successes.sum(axis=0)
    effect = 1.0 if clusters is None else design_effect(successes, clusters)
    quantile = cluster_quantile(clusters, level)
    return wilson_interval(count / effect, n / effect, quantile=quantile)


def paired_interval(
    change: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of Tango's interval of the mean change (N, ...), -1, 0 or 1, at N / design effect."""
    change = np.asarray(change)
    if change.dtype.kind == "f":
        return student_interval(change, clusters, level=level)
    n, more, fewer = len(change), (change > 0).sum(axis=0), (change < 0).sum(axis=0)
    effect = 1.0 if clusters is None else design_effect(change, clusters)
    quantile = cluster_quantile(clusters, level)
    return tango_interval(more / effect, fewer / effect, n / effect, quantile=quantile)


def paired_test(change: np.ndarray, clusters: np.ndarray | None = None) -> np.ndarray:
    """Two-sided exact p-value that changes (N, ...) of 1 are as likely as those of -1."""
    # With clusters: if neither side is better, the signs of whole clusters' sums are fair coins.
    # The exact form of Durkalski et al., Statistics in Medicine 22, 2003; McNemar's for clusters of
    # one.
    if change.dtype.kind == "f":
        tail = student_tail(change, clusters)
        return 2 * np.minimum(tail, 1 - tail)
    if clusters is None:
        return mcnemar((change > 0).sum(axis=0), (change < 0).sum(axis=0))
    sums = cluster_sums(change, clusters)
    return np.minimum(1.0, 2 * _flip_tail(sums, np.abs(sums.sum(axis=0))))


def paired_test_one_sided(change: np.ndarray, clusters: np.ndarray | None = None) -> np.ndarray:
    """One-sided exact p-value: a change of 1 is likelier than one of -1."""
    if change.dtype.kind == "f":
        return student_tail(change, clusters)
    if clusters is None:
        return mcnemar_one_sided((change > 0).sum(axis=0), (change < 0).sum(axis=0))
    sums = cluster_sums(change, clusters)
    return _flip_tail(sums, sums.sum(axis=0))


def student_interval(
    values: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of Student's t interval of the mean of values (N, ...)."""
    from scipy.stats import t

    mean, error, n_units = _mean_and_error(values, clusters)
    half = float(t.ppf(0.5 + level / 2, max(1, n_units - 1))) * error
    return mean - half, mean + half


def student_tail(values: np.ndarray, clusters: np.ndarray | None = None) -> np.ndarray:
    """One-sided p-value that the mean of values (N, ...) is above 0; 1/2 for zeros."""
    from scipy.stats import t

    mean, error, n_units = _mean_and_error(values, clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(mean == 0, 0.0, mean / error)
    tail: np.ndarray = t.sf(ratio, max(1, n_units - 1))
    return tail


def _mean_and_error(
    values: np.ndarray, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean of values (N, ...), its standard error over rows or clusters, and their number."""
    sums, sizes = cluster_sums(values, clusters), cluster_sums(np.ones(len(values)), clusters)
    mean, n_units = values.mean(axis=0), len(sums)
    around = sums - sizes.reshape((-1,) + (1,) * (sums.ndim - 1)) * mean
    variance = (around**2).sum(axis=0) * n_units / max(1, n_units - 1)
    return mean, np.sqrt(variance) / len(values), n_units


def _flip_tail(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Probability that whole numbers (C, ...) with random signs add up to a total or more."""
    sizes = np.abs(sums).astype(np.int64).reshape(len(sums), -1)
    totals = np.asarray(total).astype(np.int64).reshape(-1)
    tails = [_tail_of(column, int(t)) for column, t in zip(sizes.T, totals, strict=True)]
    return np.array(tails).reshape(sums.shape[1:])


def _tail_of(sizes: np.ndarray, total: int) -> float:
    from scipy.stats import binom

    sizes, counts = np.unique(sizes[sizes > 0], return_counts=True)
    if len(sizes) == 0:
        return 1.0
    unit = math.gcd(*sizes.tolist())
    sizes, total = sizes // unit, total // unit
    largest = int(sizes @ counts)
    if len(sizes) == 1:  # coins: with `more` heads the sum is 2 more - n
        return float(binom.sf((largest + total) // 2 - 1, largest, 0.5))
    # The sum plus `largest`, halved, adds up the numbers whose coin shows heads: 0 .. largest.
    angle = np.pi / (largest + 1) * np.arange(largest + 1)
    size = np.prod([np.cos(angle * s) ** n for s, n in zip(sizes, counts, strict=True)], axis=0)
    shares = np.fft.fft(size * np.exp(1j * angle * largest)).real / (largest + 1)
    tail = float(shares[: (largest - total) // 2 + 1].sum())  # as likely as its mirror image
    return min(1.0, max(tail, 0.5 ** int(counts.sum()), _RESOLVED))
