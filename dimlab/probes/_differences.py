"""Statistics of several representations with their intervals, and differences between them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dimlab.kernels.correlation import (
    chance_of,
    dead_dimensions,
    effective_samples,
    off_diagonal_rms,
    redundancy_of,
    replicate_of,
    rooted,
)
from dimlab.kernels.jackknife import corrected_interval, jackknife_deviations, jackknife_interval
from dimlab.kernels.reliability import block_kurtosis, doubtful_statistics, is_heavy
from dimlab.kernels.spectra import entropy_rank, participation_ratio, stable_rank
from dimlab.moments import Moments
from dimlab.probes._moments import n_units, replicates
from dimlab.probes._ranks import singular_values_of
from dimlab.probes.decompose import SCALES
from dimlab.refusals import Refusal
from dimlab.representation import Representation

STATISTICS = (
    "effective_rank",
    "participation_ratio",
    "stable_rank",
    "off_diagonal_rms",
    "mean_redundancy",
    "mean_diagonal",
)
COLUMNS = (
    "values", "corrected", "corrected_low", "corrected_high", "difference", "difference_low",
    "difference_high", "doubtful", "difference_doubtful",
)  # fmt: skip


class Sampled(NamedTuple):
    """Statistics of one representation: (M,) arrays, deviations (B, M)."""

    values: np.ndarray
    corrected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    deviations: np.ndarray  # their products summed over blocks: covariances
    doubtful: np.ndarray
    n_dead: int


def sampled(
    split: Representation, ids: np.ndarray | None, n_blocks: int, seed: int, device: str
) -> Sampled:
    """Statistics of one representation, with intervals."""
    rows = split.features
    moments_of = partial(
        Moments.of, n_blocks=n_blocks, seed=seed, clusters=ids, device=device,
        precision=split.precision,
    )  # fmt: skip
    moments = moments_of(rows)
    dead = dead_dimensions(moments)
    live = np.flatnonzero(~dead)
    if len(live) == 0:
        raise Refusal("representations must vary in some dimension; got a constant one.")
    n_effective = moments.n if ids is None else effective_samples((rows,), ids)

    def numbers(each: Moments) -> np.ndarray:
        values = singular_values_of(each, centred=False)
        matrix, _ = replicate_of(each, dead)
        left = n_effective * (each.n / moments.n)
        beyond = off_diagonal_rms(matrix[np.ix_(live, live)]) ** 2 - chance_of(live, left)
        redundancy = redundancy_of(matrix, live, left)[live].mean()
        ranks = (entropy_rank(values), participation_ratio(values), stable_rank(values))
        return np.array([*ranks, beyond, redundancy])

    counts, full, without = replicates(moments, numbers)
    agreement, agreements = np.array([np.nan]), np.full((len(counts), 1), np.nan)
    if split.views is not None and len(split.views) > 1:
        pairs = moments_of((split.views[0], split.views[1]))
        varying = np.flatnonzero(~dead_dimensions(pairs))
        _, agreement, agreements = replicates(
            pairs, lambda each: np.array([_mean_diagonal(each, varying)])
        )
    units = n_units(moments, ids)
    kurtosis = block_kurtosis(moments)
    doubtful: tuple[str, ...] = STATISTICS
    if not is_heavy(kurtosis, units):
        doubtful = doubtful_statistics(
            singular_values_of(moments, centred=False),
            n_rows=units,
            n_dimensions=moments.n_dimensions,
            kurtosis=kurtosis,
        )
    values, corrected, low, high, deviations = _with_intervals(
        np.concatenate([full, agreement]),
        np.concatenate([without, agreements], axis=1),
        counts,
        moments.n_dimensions,
    )
    marked = np.isin(STATISTICS, doubtful)
    return Sampled(values, corrected, low, high, deviations, marked, int(dead.sum()))


def _with_intervals(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray, n_dimensions: int
) -> tuple[np.ndarray, ...]:
    """Values, corrected ones, their intervals as the probes give them, and deviations (B, M)."""
    values, corrected = full.copy(), full.copy()
    low, high = jackknife_interval(full, without, counts, corrected=False)
    deviations = jackknife_deviations(full, without, counts)[1]
    for place, name in enumerate(STATISTICS):
        one = slice(place, place + 1)
        if name in SCALES:
            corrected[one], low[one], high[one] = corrected_interval(
                full[one], without[:, one], counts, scale=SCALES[name], lowest=1.0,
                highest=n_dimensions,
            )  # fmt: skip
        elif name == "off_diagonal_rms":
            for each in (values, corrected, low, high):
                each[place] = rooted(each[place])
    return values, corrected, low, high, deviations


def _mean_diagonal(pairs: Moments, varying: np.ndarray) -> float:
    """Mean correlation of each dimension that varies with itself in the other view."""
    norms = np.sqrt(pairs.squares[0][:, varying])
    products = np.diagonal(pairs.scatters[0])[varying]
    if len(varying) == 0:
        return float("nan")
    sizes = norms.prod(axis=0)  # 0 where some block alone varied: no agreement is left
    return float(np.divide(products, sizes, out=np.zeros_like(sizes), where=sizes > 0).mean())


def differences(sampled: list[Sampled], base: int, paired: np.ndarray) -> dict[str, Any]:
    """Values, intervals and differences to the reference, each (S, M)."""
    rows = []
    reference = sampled[base]
    for index, each in enumerate(sampled):
        correlation = np.zeros(len(STATISTICS))
        if paired[index]:
            sizes = [np.sqrt((x.deviations**2).sum(axis=0)) for x in (each, reference)]
            products = (each.deviations * reference.deviations).sum(axis=0)
            sizes = sizes[0] * sizes[1]
            correlation = np.divide(products, sizes, out=correlation, where=sizes > 0)
        difference = each.corrected - reference.corrected
        low, high = _difference_interval(each, reference, np.clip(correlation, -1, 1))
        if index == base:
            low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
        bounds = (each.corrected, each.low, each.high)
        either = each.doubtful | (reference.doubtful & (index != base))
        rows.append((each.values, *bounds, difference, low, high, each.doubtful, either))
    return dict(zip(COLUMNS, map(np.stack, zip(*rows, strict=True)), strict=True))


def _difference_interval(
    one: Sampled, other: Sampled, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval (M,) of a difference from those of both values, which need not be symmetric."""
    # Zou's where both are symmetric. Errors that go together are on the same side of their values:
    # the share of them that does is taken off on that side.
    difference = one.corrected - other.corrected
    shared = np.abs(correlation)

    def width(mine: np.ndarray, same: np.ndarray, opposite: np.ndarray) -> np.ndarray:
        apart = mine**2 + opposite**2
        together = np.where(correlation > 0, mine - same, mine + opposite) ** 2
        return np.sqrt((1 - shared) * apart + shared * together)

    with np.errstate(invalid="ignore"):
        own = one.corrected - one.low, one.high - one.corrected
        theirs = other.corrected - other.low, other.high - other.corrected
        below, above = width(own[0], *theirs), width(own[1], *theirs[::-1])
    return difference - below, difference + above
