"""Links of a mask with other measurements: rank correlations, their intervals, and controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

CONTROLS = ("constant", "random", "permuted", "inverted")
LEARNED = "learned"
EXPECTED_SIGNS = {"importance": 1, "redundancy": -1, "nuisance": -1}
WORDS = {
    "importance": "ablation importance",
    "redundancy": "redundancy (R^2 on the other dimensions)",
    "nuisance": "nuisance attribution",
}
SLACK = 1e-12  # a draw that only reorders equal ranks must count as equal
_CONSTANT = "all weights are equal"
_TAIL = 0.025
_FEWEST = 4  # dimensions: below, ranks say nothing and the width of the interval has no formula
_ELEMENTS = 1 << 21


@dataclass(frozen=True)
class MaskLink:
    """Rank correlation over dimensions of one mask with one other measurement of them."""

    link: str  # importance, redundancy (R^2 on the other dimensions) or nuisance
    mask: str  # learned, or a control: constant, random, permuted, inverted
    correlation: float  # Spearman's; the mean over draws for random and permuted; NaN: undefined
    ci_low: float  # of the 95 % interval; for random and permuted the central 95 % of the draws
    ci_high: float
    p_value: float  # two-sided, from permutations over dimensions; NaN where a row has draws
    n_dimensions: int  # for which the measurement exists
    expected_sign: int  # 1 or -1, which the claim of the paper asks of the learned mask
    reason: str = ""  # why the correlation is undefined

    COLUMNS: ClassVar = (
        *("link", "mask", "correlation", "ci_low", "ci_high", "p_value", "n_dimensions"),
        *("expected_sign", "verdict", "reason"),
    )

    def row(self) -> dict[str, Any]:
        """Return the numbers and the verdict by name."""
        return {name: getattr(self, name) for name in self.COLUMNS}

    @property
    def verdict(self) -> str:
        """``agrees``, ``contradicts`` or ``undecided`` by the interval; ``undefined``."""
        if self.reason:
            return "undefined"
        ends = sorted((self.expected_sign * self.ci_low, self.expected_sign * self.ci_high))
        if ends[0] > 0:
            return "agrees"
        return "contradicts" if ends[1] < 0 else "undecided"

    def in_words(self) -> str:
        """Say in one sentence what was found, or why there are no numbers."""
        name = WORDS[self.link]
        if self.reason:
            return f"{name}: undefined, {self.reason}."
        side = "positive" if self.expected_sign > 0 else "negative"
        return (
            f"{name}: {self.verdict} (Spearman {self.correlation:+.2f}, 95 % interval "
            f"{self.ci_low:+.2f} to {self.ci_high:+.2f}, p = {self.p_value:.2g}, "
            f"{self.n_dimensions} dimensions; the claim expects a {side} one)."
        )


def linked(
    name: str,
    weights: np.ndarray,
    values: np.ndarray,
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> list[MaskLink]:
    """One measurement against the learned mask and its controls."""
    known = np.flatnonzero(np.isfinite(values))
    # in an order of their own, so that the draws do not depend on how dimensions are numbered
    known = known[np.lexsort((values[known], weights[known]))]
    mine, other = weights[known], values[known]
    reason = _undefined(name, mine, other)
    nothing = (np.nan, np.nan, np.nan, np.nan)
    # draws of its own: they do not depend on what else was linked
    streams = [np.random.default_rng([seed, use]) for use in range(4)]
    rows = {mask: nothing for mask in (LEARNED, *CONTROLS)}
    reasons = {mask: reason for mask in rows}
    reasons["constant"] = reason or _CONSTANT
    if not reason:
        null = _correlations_with(other, _permutations(mine, n_permutations, streams[0]))
        random = _correlations_with(other, _redraws(mine, n_permutations, streams[1]))
        counts = _resamples(len(mine), n_bootstrap, streams[2])
        for mask, each in ((LEARNED, mine), ("inverted", _inverted(mine, streams[3]))):
            correlation = float(_spearman(each, other, np.ones((1, len(mine))))[0])
            p_value = (1 + np.sum(np.abs(null) >= abs(correlation) - SLACK)) / (1 + len(null))
            interval = _interval(correlation, _spearman(each, other, counts), len(mine))
            rows[mask] = (correlation, *interval, float(p_value))
        if len(random) == 0:
            reasons["random"] = "no draw had weights that differ"
        rows["random"], rows["permuted"] = (*_band(random), np.nan), (*_band(null), np.nan)
    return [
        MaskLink(
            name,
            mask,
            *numbers,
            n_dimensions=len(known),
            expected_sign=EXPECTED_SIGNS[name],
            reason=reasons[mask],
        )
        for mask, numbers in rows.items()
    ]


def _undefined(name: str, mine: np.ndarray, other: np.ndarray) -> str:
    """Say why there is no correlation; empty: there is one."""
    if len(mine) < _FEWEST:
        return f"{len(mine)} dimensions have a number, and it takes {_FEWEST}"
    if mine[0] == mine[-1]:
        return _CONSTANT
    return f"{WORDS[name]} is the same for all dimensions" if np.ptp(other) == 0 else ""


def _inverted(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give the largest of ascending weights to the first, and so on; equal ones in random order."""
    order = np.lexsort((rng.random(len(weights)), weights))
    found = np.empty_like(weights)
    found[order] = weights[::-1]
    return found


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(values) - (len(values) + 1) / 2


def _permutations(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> Iterator[Any]:
    """Centred ranks of permuted weights, in blocks of rows."""
    ranks = _centred_ranks(weights)
    for size in _block_sizes(n_draws, len(ranks)):
        yield rng.permuted(np.broadcast_to(ranks, (size, len(ranks))), axis=1)


def _redraws(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> Iterator[Any]:
    """Centred ranks of values drawn with replacement from the weights, in blocks of rows."""
    level = np.unique(weights, return_inverse=True)[1]
    n_levels = level[-1] + 1  # the weights ascend
    for size in _block_sizes(n_draws, len(level)):
        drawn = level[rng.integers(len(level), size=(size, len(level)))]
        cells = drawn + n_levels * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * n_levels).reshape(size, n_levels)
        # the mean rank of the equal values, less that of all
        middle = np.cumsum(counts, axis=1) - (counts - 1) / 2 - (len(level) + 1) / 2
        yield np.take_along_axis(middle, drawn, axis=1)


def _resamples(n: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each dimension is in each bootstrap sample, (n_draws, n)."""
    shares = np.full(n, 1 / n)
    return np.concatenate(
        [
            rng.multinomial(n, shares, size=size).astype(np.int32)
            for size in _block_sizes(n_draws, n)
        ]
    )


def _block_sizes(n_draws: int, n: int) -> list[int]:
    step = max(1, _ELEMENTS // n)
    return [min(step, n_draws - start) for start in range(0, n_draws, step)]


def _correlations_with(other: np.ndarray, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Spearman's correlation of rows of centred ranks with one vector; constant rows left out."""
    target = _centred_ranks(other)
    target /= np.linalg.norm(target)
    found = []
    for ranks in blocks:
        norms = np.sqrt(np.einsum("ij,ij->i", ranks, ranks))
        found.append((ranks @ target)[norms > 0] / norms[norms > 0])
    return np.concatenate(found)


def _spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation for each row of counts of dimensions; constant rows are left out."""
    found = []
    step = max(1, _ELEMENTS // len(first))
    for start in range(0, len(counts), step):
        some = counts[start : start + step].astype(np.float64)
        a, b = _weighted_ranks(first, some), _weighted_ranks(second, some)
        weighted = some * a
        squares = np.einsum("ij,ij->i", weighted, a) * np.einsum("ij,ij,ij->i", some, b, b)
        there = squares > 0
        found.append(np.einsum("ij,ij->i", weighted, b)[there] / np.sqrt(squares[there]))
    return np.clip(np.concatenate(found), -1, 1)


def _weighted_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Centred mean ranks of values of which each is there so many times."""
    order = np.argsort(values, kind="stable")
    is_first = np.diff(values[order], prepend=np.nan) != 0
    of_level = np.add.reduceat(counts[:, order], np.flatnonzero(is_first), axis=1)
    middle = np.cumsum(of_level, axis=1) - (of_level - 1) / 2
    level = np.empty(len(order), dtype=np.int64)
    level[order] = np.cumsum(is_first) - 1
    return middle[:, level] - (counts.sum(axis=1, keepdims=True) + 1) / 2


def _interval(correlation: float, resampled: np.ndarray, n: int) -> tuple[float, float]:
    """Fisher's z and its standard error over resamples, back on the scale of the correlation."""
    from scipy.stats import t

    end = 1 - 6 / (n**3 - n)  # half a step short of 1: a swap of neighbours costs 12 / (n^3 - n)
    z = np.arctanh(np.clip(resampled, -end, end))
    error = float(z.std(ddof=1)) if len(z) > 1 else 0.0
    if error <= SLACK:  # a perfect order: every resample has it too
        error = float(np.sqrt((1 + correlation**2 / 2) / (n - 3)))
    middle = np.arctanh(np.clip(correlation, -end, end))
    reach = float(t.ppf(1 - _TAIL, n - 2)) * error
    low, high = np.tanh([middle - reach, middle + reach])
    return min(float(low), correlation), max(float(high), correlation)


def _band(draws: np.ndarray) -> tuple[float, float, float]:
    """Mean and central 95 % of draws."""
    if len(draws) == 0:
        return (np.nan, np.nan, np.nan)
    low, high = np.quantile(draws, [_TAIL, 1 - _TAIL])
    return float(draws.mean()), float(low), float(high)
