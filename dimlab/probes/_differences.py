"""Statistics of several representations with their intervals, and differences between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dimlab.kernels.jackknife import Estimates, jackknife, jackknife_deviations
from dimlab.kernels.reliability import doubtful_statistics, is_heavy
from dimlab.kernels.spectra import entropy_rank, participation_ratio, stable_rank
from dimlab.moments import Moments
from dimlab.probes._moments import PLAIN, RANKS, ROOT, Deal, Rows, bounded, replicates
from dimlab.probes._ranks import singular_values_of
from dimlab.representation import Representation

STATISTICS = (*RANKS, "off_diagonal_rms", "mean_redundancy", "mean_diagonal")
COLUMNS = (
    *("values", "corrected", "corrected_low", "corrected_high"),
    *("difference", "difference_low", "difference_high", "doubtful", "difference_doubtful"),
)


class Sampled(NamedTuple):
    """Statistics of one representation, (M,) each."""

    found: Estimates
    deviations: np.ndarray  # (B, M): their products summed over blocks are covariances
    doubtful: np.ndarray
    n_dead: int


def sampled(split: Representation, deal: Deal) -> Sampled:
    """Statistics of one representation, with intervals."""
    rows = Rows.of(split, "compare", deal)
    moments, live = rows.moments, rows.live

    def numbers(each: Moments) -> np.ndarray:
        values = singular_values_of(each, centred=False)
        _, redundancy, beyond, _ = rows.dependence(each)
        ranks = (entropy_rank(values), participation_ratio(values), stable_rank(values))
        return np.array([*ranks, beyond, redundancy[live].mean()])

    full, without, counts = replicates(moments, numbers)
    agreement, agreements = np.array([np.nan]), np.full((len(counts), 1), np.nan)
    if split.views is not None and len(split.views) > 1:
        pairs = Rows.of(split, "compare", deal, pairs=True)
        agreement, agreements, _ = replicates(
            pairs.moments, lambda each: np.array([_mean_diagonal(each, ~pairs.dead)])
        )
    full = np.concatenate([full, agreement])
    without = np.concatenate([without, agreements], axis=1)
    doubtful: tuple[str, ...] = STATISTICS
    if not is_heavy(rows.kurtosis, rows.n_units):
        doubtful = doubtful_statistics(
            singular_values_of(moments, centred=False),
            n_rows=rows.n_units,
            n_dimensions=moments.n_dimensions,
            kurtosis=rows.kurtosis,
        )
    ranks = [bounded(scale, moments.n_dimensions) for scale in RANKS.values()]
    return Sampled(
        jackknife(full, without, counts, [*ranks, ROOT, PLAIN, PLAIN]),
        jackknife_deviations(full, without, counts)[1],
        np.isin(STATISTICS, doubtful),
        int(rows.dead.sum()),
    )


def _mean_diagonal(pairs: Moments, varies: np.ndarray) -> float:
    """Mean correlation of each dimension that varies with itself in the other view."""
    if not varies.any():
        return float("nan")
    products = np.diagonal(pairs.scatters[0])[varies]
    sizes = np.sqrt(pairs.squares[0][:, varies]).prod(axis=0)
    # the size is 0 where some block alone varied: no agreement is left
    return float(np.divide(products, sizes, out=np.zeros_like(sizes), where=sizes > 0).mean())


def differences(sampled: list[Sampled], base: int, paired: np.ndarray) -> dict[str, Any]:
    """Values, intervals and differences to the reference, each (S, M)."""
    rows, reference = [], sampled[base]
    for index, each in enumerate(sampled):
        correlation = np.zeros(len(STATISTICS))
        if paired[index]:
            products = (each.deviations * reference.deviations).sum(axis=0)
            sizes = [np.sqrt((x.deviations**2).sum(axis=0)) for x in (each, reference)]
            size = sizes[0] * sizes[1]
            correlation = np.divide(products, size, out=correlation, where=size > 0).clip(-1, 1)
        difference = each.found.corrected - reference.found.corrected
        low, high = _difference_interval(each.found, reference.found, correlation)
        if index == base:
            low = high = np.full_like(difference, np.nan)
        either = each.doubtful | (reference.doubtful & (index != base))
        rows.append((*each.found, difference, low, high, each.doubtful, either))
    return dict(zip(COLUMNS, map(np.stack, zip(*rows, strict=True)), strict=True))


def _difference_interval(
    one: Estimates, other: Estimates, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval (M,) of a difference from those of both values, which need not be symmetric."""
    # Zou's where both are symmetric. Errors that go together are on the same side of their values:
    # the share of them that does is taken off on that side.
    shared = np.abs(correlation)

    def width(mine: np.ndarray, same: np.ndarray, opposite: np.ndarray) -> np.ndarray:
        apart = mine**2 + opposite**2
        together = np.where(correlation > 0, mine - same, mine + opposite) ** 2
        return np.sqrt((1 - shared) * apart + shared * together)

    with np.errstate(invalid="ignore"):
        difference = one.corrected - other.corrected
        own = one.corrected - one.low, one.high - one.corrected
        theirs = other.corrected - other.low, other.high - other.corrected
        return difference - width(own[0], *theirs), difference + width(own[1], *theirs[::-1])
