"""Intervals and tests of means of paired differences, vectorised over groups.

The null hypothesis is a mean of 0, not symmetry around 0. Flipping signs, studentised or not, tests
symmetry: the sum of squares is the same for all signs, so the studentised mean is a monotone
function of the plain one. With 2 % of rows far on one side, and a mean of 0, that rejects far too
often. The bootstrap-t keeps the skewness, so it is used for the p-value too (Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993, section 12.5; Hall, Annals of Statistics 16, 1988).

On each side of the mean the interval takes the larger of the quantiles of the bootstrap and of
Student's t, and the p-value the larger tail. Alone, the bootstrap-t covers 0.88 where 5 % of 400
rows differ to either side, and Student's t covers 0.92 where 2 % of rows are heavy. Together they
cover 0.95 and more in both, with intervals at most 1.3 times those of an oracle.

A tail with fewer than 10 draws goes on as Student's t, scaled to meet the bootstrap's there. A
p-value is at least ``2 / 2^m`` for m differing rows, as that of any sign flips; where this exceeds
one minus the level, the interval contains 0. Where bootstrap samples have no spread, the interval
is at least as long as a score interval of the number of differing rows, times their root mean
square.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.paired import cluster_sums, normal_quantile

if TYPE_CHECKING:
    from torch import Tensor

FEW_DIFFERENCES = 20  # rows that differ, below which a mean's distribution is hardly known
LARGEST_SKEWNESS = 3.0
_ELEMENTS = 1 << 22
_SUMMED = 256  # rows whose signed sum float32 holds exactly
_ROWS = 1024  # rows that are squared together
FEWEST_DRAWS = 199  # fewer bootstrap samples tell nothing of a tail of 2.5 %
RESOLVED = 10  # draws in a tail that are trusted
_DECIMALS = 10  # of studentised means: equal ones count as equal


@dataclass(frozen=True, eq=False)
class StudentisedMeans:
    """Means of G columns with bootstrap-t intervals and the p-values that these invert."""

    mean: np.ndarray  # (G,)
    error: np.ndarray  # (G,) standard errors of the means
    n_different: np.ndarray  # (G,) int rows, or clusters, that differ from 0
    # (G,) of rows, or of clusters' sums less what their size accounts for; 0 without spread
    skewness: np.ndarray
    n_units: int  # rows, or clusters
    # (B, G) studentised means of bootstrap samples around the mean, ascending; infinite where a
    # sample has no spread. No row where there are too few draws: then Student's t alone
    drawn: np.ndarray = field(repr=False)
    # (G,) size that the sum of a differing row, or cluster, is taken to have, over N
    least: np.ndarray = field(repr=False)

    @classmethod
    def of(
        cls,
        differences: np.ndarray,
        clusters: np.ndarray | None,
        rng: np.random.Generator,
        n_draws: int,
        *,
        scale: float = 1.0,
    ) -> StudentisedMeans:
        """Draw bootstrap samples of the rows, or whole clusters, of differences (N, G)."""
        # In a column without any difference, one is taken to have the size ``scale``.
        n_rows = len(differences)
        sums = cluster_sums(differences, clusters)
        sizes = cluster_sums(np.ones(n_rows), clusters)
        n_units = len(sums)
        mean = differences.mean(axis=0)
        total, squares, cubes = (np.zeros(sums.shape[1]) for _ in range(3))
        for rows in blocks(n_units, _ROWS):
            some = sums[rows]
            total += (some**2).sum(axis=0)
            around = some - sizes[rows, None] * mean
            squares += (around**2).sum(axis=0)
            cubes += (around**3).sum(axis=0)
        squares = np.where(squares <= 1e-24 * total, 0.0, squares)  # what rounding leaves of none
        n_different = np.count_nonzero(sums, axis=0)
        spread = np.sqrt(squares / n_units)
        skewness = np.divide(
            cubes / n_units, spread**3, out=np.zeros_like(spread), where=spread > 0
        )
        typical = np.sqrt(np.divide(total, n_different, out=np.zeros_like(mean), where=total > 0))
        return cls(
            mean,
            np.sqrt(squares * n_units / max(1, n_units - 1)) / n_rows,
            n_different,
            skewness,
            n_units,
            _studentised(sums, sizes, mean, rng, n_draws),
            np.where(n_different > 0, typical, scale * n_rows / n_units) / n_rows,
        )

    @property
    def unreliable(self) -> np.ndarray:
        """Columns with fewer than 20 differing rows or a skewness beyond 3; (G,) bool."""
        return (self.n_different < FEW_DIFFERENCES) | (np.abs(self.skewness) > LARGEST_SKEWNESS)

    @property
    def p_value(self) -> np.ndarray:
        """Two-sided p-value of a mean of 0; (G,)."""
        from scipy.stats import t

        studentised = np.divide(
            self.mean, self.error, out=np.zeros_like(self.mean), where=self.error > 0
        )
        tail = t.sf(np.abs(studentised), max(1, self.n_units - 1))
        if len(self.drawn):
            above = _upper_tail(self.drawn, studentised, self.n_units - 1)
            below = _upper_tail(-self.drawn[::-1], -studentised, self.n_units - 1)
            tail = np.maximum(tail, np.minimum(above, below))
        tail = np.maximum(tail, 0.5 ** self.n_different.astype(np.float64))
        return np.where(self.error > 0, np.minimum(1.0, 2 * tail), self._without_spread)

    @property
    def _without_spread(self) -> np.ndarray:
        """p-values where all rows are equal: 1 for zeros, else by the score interval's length."""
        from scipy.stats import norm

        m = np.maximum(self.n_different, 1).astype(np.float64)
        length = np.abs(self.mean) / self.least  # at which the score interval reaches 0
        tail = np.maximum(0.5**m, norm.sf(length / np.sqrt(m + length)))
        return np.where(self.mean == 0, 1.0, 2 * tail)

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Bounds (G,) of each mean; they exclude 0 where the p-value is at most ``1 - level``."""
        from scipy.stats import t

        tail = (1 - level) / 2
        student = float(t.isf(tail, max(1, self.n_units - 1)))
        below = above = np.full(len(self.mean), student)
        if len(self.drawn):
            below = np.maximum(student, _quantile(self.drawn, tail, self.n_units - 1))
            above = np.maximum(student, _quantile(-self.drawn[::-1], tail, self.n_units - 1))
        z = normal_quantile(level)
        # Upper bound of a Poisson mean by its score: what the unseen may add.
        counted = z**2 / 2 + z * np.sqrt(self.n_different + z**2 / 4)
        if self.n_units > 1:
            none = self.n_different == 0
            counted = np.where(none, z**2 * self.n_units / (self.n_units + z**2), counted)
        bounds = []
        for side, quantile, order in ((-1, below, self.drawn), (1, above, -self.drawn[::-1])):
            distance = np.where(np.isfinite(quantile), quantile, student) * self.error
            if len(order):
                widest = np.where(np.isfinite(order), order, 0.0).max(axis=0) * self.error
                unseen = np.maximum(np.maximum(distance, widest), counted * self.least)
                distance = np.where(np.isfinite(quantile), distance, unseen)
            distance = np.where(self.error > 0, distance, counted * self.least)
            bounds.append(self.mean + side * distance)
        kept = self.p_value > 1 - level
        low = np.where(kept, np.minimum(bounds[0], 0.0), bounds[0])
        return low, np.where(kept, np.maximum(bounds[1], 0.0), bounds[1])


def _studentised(
    sums: np.ndarray, sizes: np.ndarray, mean: np.ndarray, rng: np.random.Generator, n_draws: int
) -> np.ndarray:
    """Studentised means of bootstrap samples of units around the mean, each column ascending."""
    n_units, n_groups = sums.shape
    if n_draws < FEWEST_DRAWS:
        return np.empty((0, n_groups))
    equal = bool((sizes == sizes[0]).all())
    drawn = np.empty((n_draws, n_groups))
    for part in blocks(n_draws, _ELEMENTS // n_units):
        counts = drawn_counts(rng, part.stop - part.start, n_units).astype(np.float64)
        total, squares, crossed = (np.zeros((len(counts), n_groups)) for _ in range(3))
        for rows in blocks(n_units, _ROWS):
            weights = counts[:, rows]
            around = sums[rows] - sizes[rows, None] * mean
            total += weights @ around
            if not equal:
                crossed += weights @ (around * sizes[rows, None])
            squares += weights @ np.square(around, out=around)
        if equal:
            crossed = total * sizes[0]
        n_rows = (counts @ sizes)[:, None]
        shift = total / n_rows
        variance = squares - 2 * shift * crossed + shift**2 * (counts @ sizes**2)[:, None]
        # What rounding leaves of no spread is none.
        variance[variance <= 1e-13 * squares] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[part] = np.where(total == 0, 0.0, total / np.sqrt(variance))
    drawn *= np.sqrt((n_units - 1) / n_units) if n_units > 1 else 1.0
    drawn.sort(axis=0)
    return drawn.round(_DECIMALS)


def drawn_counts(rng: np.random.Generator, n_draws: int, n_units: int) -> np.ndarray:
    """How often each bootstrap draw takes each unit, (n_draws, n_units) int64."""
    drawn = rng.integers(0, n_units, size=(n_draws, n_units))
    drawn += np.arange(n_draws)[:, None] * n_units
    counts = np.bincount(drawn.ravel(), minlength=n_draws * n_units)
    return counts.reshape(n_draws, n_units)


def _trusted(n_draws: int) -> float:
    """Tail probability below which Student's t goes on for the draws."""
    return RESOLVED / (n_draws + 1)


def _order_statistic(ordered: np.ndarray, tail: float) -> np.ndarray:
    """Upper quantile of each ascending column; the k-th of B values has k / (B + 1) below it."""
    place = (1 - tail) * (len(ordered) + 1) - 1
    first = min(max(int(place), 0), len(ordered) - 1)
    second = min(first + 1, len(ordered) - 1)
    low, high = ordered[first], ordered[second]
    share = min(max(place - first, 0.0), 1.0)
    with np.errstate(invalid="ignore"):  # infinite ones are kept as they are
        between = low + share * (high - low)
    return low if share == 0 else np.where(low == high, low, between)


def _scaled(ordered: np.ndarray, degrees: int) -> np.ndarray:
    """How much wider each column's upper tail is than Student's, where draws still tell."""
    from scipy.stats import t

    tail = _trusted(len(ordered))
    return np.maximum(_order_statistic(ordered, tail) / float(t.isf(tail, max(1, degrees))), 0.0)


def _quantile(ordered: np.ndarray, tail: float, degrees: int) -> np.ndarray:
    """Upper quantile of each ascending column, by Student's t where draws are too few."""
    from scipy.stats import t

    if tail >= _trusted(len(ordered)):
        return _order_statistic(ordered, tail)
    return _scaled(ordered, degrees) * float(t.isf(tail, max(1, degrees)))


def _upper_tail(ordered: np.ndarray, value: np.ndarray, degrees: int) -> np.ndarray:
    """Probability of at least a value under each ascending column: `_quantile` inverted."""
    from scipy.stats import t

    n_draws, value = len(ordered), value.round(_DECIMALS)
    below = (ordered < value).sum(axis=0)
    lower = np.take_along_axis(ordered, np.maximum(below - 1, 0)[None], axis=0)[0]
    upper = np.take_along_axis(ordered, np.minimum(below, n_draws - 1)[None], axis=0)[0]
    within = (below > 0) & (below < n_draws) & np.isfinite(upper) & np.isfinite(lower)
    lower, upper = np.where(within, lower, 0.0), np.where(within, upper, 1.0)
    share = np.where(within, (value - lower) / (upper - lower), 0.0)
    tail = 1 - (below + share) / (n_draws + 1)
    scale, trusted = _scaled(ordered, degrees), _trusted(n_draws)
    beyond = (tail < trusted) & np.isfinite(scale) & (scale > 0)
    far = t.sf(value / np.where(beyond, scale, 1.0), max(1, degrees))
    return np.where(beyond, np.minimum(far, trusted), tail)


def sign_flip_test(differences: np.ndarray, rng: np.random.Generator, n_draws: int) -> np.ndarray:
    """Two-sided p-values (G,) that differences (N, G) are symmetric around 0, by random signs."""
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
    for part in blocks(n_draws, min(_ELEMENTS * 16 // n_samples, _ELEMENTS // n_groups)):
        # whole words of four signs: what is left of a word would be lost between two blocks
        size = (part.stop - part.start, -(-n_samples // 4) * 4)
        signs = 2 * rng.integers(0, 2, size=size, dtype=np.int8)[:, :n_samples] - 1
        sums = torch.zeros(size[0], n_groups, dtype=torch.float64)
        for rows in blocks(n_samples, _SUMMED):
            sums += torch.from_numpy(signs[:, rows]).to(numbers.dtype) @ numbers[rows]
        sums.abs_()
        count += (sums >= sure).sum(dim=0).numpy()
        draws, groups = np.nonzero(((sums >= unsure) & (sums < sure)).numpy())
        for group in np.unique(groups):  # too close for float32
            chosen = signs[draws[groups == group]].astype(np.float64)
            count[group] += (np.abs(chosen @ differences[:, group]) >= observed[group]).sum()
    return (1 + count) / (1 + n_draws)


def _summed_without_rounding(differences: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Float32 near the differences whose signed sums over a block of rows are exact."""
    # Each block of each column becomes whole multiples of a power of two, small enough that no sum
    # of the block needs more than 24 bits. What was rounded away bounds the error, per column.
    import torch

    single = np.empty(differences.shape, dtype=np.float32)
    error = np.zeros(differences.shape[1])
    for rows in blocks(len(differences), _SUMMED):
        block = differences[rows]
        bound = np.abs(block).sum(axis=0)
        # one bit to spare for the rounding of the multiples themselves
        unit = np.exp2(np.ceil(np.log2(np.maximum(bound, 1e-30))) - 23)
        whole = np.rint(block / unit) * unit
        error += np.abs(block - whole).sum(axis=0)
        single[rows] = whole
    return torch.from_numpy(single), error


def bootstrap_sums(
    columns: np.ndarray,
    rng: np.random.Generator,
    n_draws: int,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """Column sums (n_draws, C) of rows, or whole clusters, drawn with replacement."""
    units = cluster_sums(columns, clusters)
    # one product a draw: a matrix of all counts may be larger than what they are drawn from
    draws = (drawn_counts(rng, 1, len(units))[0] for _ in range(n_draws))
    return np.stack([counts @ units for counts in draws])
