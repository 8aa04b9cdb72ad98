"""What the probes of unlabelled rows share: moments in blocks, clusters, and the jackknife."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.devices import hold
from dimlab.kernels.correlation import (
    chance_of,
    correlation_of,
    dead_dimensions,
    effective_samples,
    off_diagonal_rms,
    redundancy_of,
    rooted,
)
from dimlab.kernels.jackknife import Estimates, Scale, jackknife
from dimlab.kernels.reliability import block_kurtosis
from dimlab.moments import Moments
from dimlab.probes._arguments import Function, documented
from dimlab.probes._reading import OfSample, basis_of, sample_of
from dimlab.processes import World, alike, sharing_world
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import detail

PLAIN = Scale(corrected=False)  # chance is taken off already
ROOT = Scale(back=rooted, corrected=False)
FISHER = Scale(lambda r: np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)), np.tanh, corrected=False)
LOG = Scale(np.log, np.exp, lowest=1.0)
RECIPROCAL = Scale(np.reciprocal, np.reciprocal, lowest=1.0)
# The statistics whose bias falls as 1 / N, so that the jackknife takes it off.
RANKS = {"effective_rank": LOG, "participation_ratio": RECIPROCAL, "stable_rank": RECIPROCAL}

_SHARED = {
    "n_blocks": """int
    Blocks of the jackknife, >= 2; ignored for moments, which have theirs.""",
    "clusters": """str or ndarray of shape (N,), optional
    Which rows belong together (name of a factor, or one value a row): they are drawn, permuted,
    assigned to blocks and left out together. By default rows are independent.""",
    "seed": """int
    Deals samples to blocks, and draws what is drawn.""",
    "device": """str
    Where the moments are taken.""",
    "progress": """callable, optional
    Called as ``progress(done, total)`` during the long part.""",
}


def documented_of_rows(function: Function) -> Function:
    """Insert what the arguments of these probes mean into a docstring that leaves them out."""
    return documented(function, _SHARED)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OfRows(OfSample):
    """What every result of one representation says of its rows."""

    clustered: bool = detail(
        "Whether rows were taken to be independent between clusters only.", default=False
    )


class Deal(NamedTuple):
    """How rows are dealt to the blocks of the jackknife, and where their moments are taken."""

    n_blocks: int
    clusters: str | np.ndarray | None
    seed: int
    device: str
    progress: Progress | None = None


@dataclass(frozen=True)
class Rows:
    """Rows of a probe, or moments of them: `Rows.of` checks what it is given."""

    moments: Moments
    ids: np.ndarray | None  # (N,) cluster of each row; None: rows are independent
    arrays: tuple[np.ndarray, ...]  # the features, or two views; empty where moments were given
    source: Representation | Moments

    @classmethod
    def of(
        cls,
        source: Representation | Moments,
        probe: str,
        deal: Deal,
        *,
        matrices: int = 0,
        pairs: bool = False,
        least: int = 2,
        fewest_blocks: int = 2,
    ) -> Rows:
        """Take moments of the features, or of ``pairs`` of views where there are any."""
        # ``matrices`` of D x D numbers for each block are what the probe holds at once
        if deal.n_blocks < fewest_blocks:
            raise Refusal(f"n_blocks must be >= {fewest_blocks}; got {deal.n_blocks}.")
        if isinstance(source, Moments):
            if deal.clusters is not None:
                raise Refusal(
                    "clusters must be left out for moments, whose rows are dealt to blocks "
                    "already; got some. Give the rows, or clusters= to Moments.of."
                )
            if source.has_views and not pairs:
                raise Refusal(
                    "representation must be moments of single rows; got moments of pairs of "
                    "views. Accumulate one view."
                )
            refuse_few(source.n, least, probe)
            return cls(source, None, (), source)
        refuse_few(len(source), least, probe)
        what = f"{deal.n_blocks} blocks of moments"
        size = matrices * deal.n_blocks * source.n_dimensions**2
        hold(size, probe, what, "Pass fewer (--blocks).")
        ids = cluster_ids(source, deal.clusters)
        arrays: tuple[np.ndarray, ...] = (source.features,)
        if pairs and source.views is not None and len(source.views) > 1:
            arrays = (source.views[0], source.views[1])
        # clusters are dealt to blocks all together
        world = sharing_world() if ids is None else World()
        rows = world.rows(len(source))

        def accumulated() -> Moments:
            if rows.start == rows.stop:  # fewer rows than processes
                return Moments.empty(deal.n_blocks, len(arrays), source.n_dimensions)
            return Moments.of(
                tuple(each[rows] for each in arrays),
                n_blocks=deal.n_blocks,
                seed=deal.seed,
                first_row=rows.start,
                clusters=ids,
                device=deal.device,
                precision=source.precision,
                progress=deal.progress,
            )

        moments = alike(accumulated)
        return cls(moments if world.size == 1 else moments.over_ranks(), ids, arrays, source)

    @property
    def n_units(self) -> int:
        """Number of clusters, or of rows where they are independent."""
        return self.moments.n if self.ids is None else int(self.ids.max()) + 1

    @cached_property
    def kurtosis(self) -> float:
        """Mean kurtosis of the dimensions, as far as it shows between blocks."""
        return block_kurtosis(self.moments)

    @cached_property
    def dead(self) -> np.ndarray:
        """Dimensions that do not vary, (D,)."""
        return dead_dimensions(self.moments)

    @cached_property
    def live(self) -> np.ndarray:
        """Indices of the dimensions that vary, of which there must be one."""
        if self.dead.all():
            raise Refusal("representation must vary in some dimension; got only constant ones.")
        return np.flatnonzero(~self.dead)

    @cached_property
    def n_effective(self) -> float | np.ndarray:
        """Number of independent rows that say as much, (D, D) for each pair in clusters."""
        if self.ids is None or not self.arrays:
            return float(self.moments.n)
        return effective_samples(self.arrays, self.ids)

    @property
    def said(self) -> dict[str, Any]:
        """Fields of a result that say what its rows are."""
        return {
            "basis": basis_of(self.source),
            "sample": sample_of(self.source),
            "clustered": self.ids is not None,
        }

    def dependence(self, some: Moments) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        """Correlations, redundancy and mean square beyond chance of some rows, and what is gone."""
        # A dimension that the other rows alone moved, which is gone, has the correlation 0.
        gone = (some.whole().squares[0] == 0).any(axis=0) & ~self.dead
        matrix = correlation_of(some, self.dead)
        matrix[np.ix_(gone, ~self.dead)] = 0.0
        matrix[np.ix_(~self.dead, gone)] = 0.0
        left = self.n_effective * (some.n / self.moments.n)
        beyond = off_diagonal_rms(matrix[np.ix_(self.live, self.live)]) ** 2
        redundancy = redundancy_of(matrix, self.live, left)
        return matrix, redundancy, beyond - chance_of(self.live, left), gone


def refuse_few(n_samples: int, least: int, what: str) -> None:
    """Refuse fewer samples than a probe needs."""
    if n_samples < least:
        raise Refusal(f"{what} needs at least {least} samples; got {n_samples}.")


def in_blocks(clustered: bool, n_blocks: int | str = "") -> str:
    """Say what the jackknife leaves out in turn."""
    blocks = f"{n_blocks} blocks".lstrip()
    return f"95 %, jackknife over {blocks} of {'clusters' if clustered else 'samples'}"


def caution_of_rank(n_samples: int, n_dimensions: int) -> str:
    """Say why ranks of so few samples are biased; empty where they are not."""
    if n_samples > n_dimensions:
        return ""
    return (
        f"N = {n_samples} samples do not exceed D = {n_dimensions} dimensions: no rank can exceed "
        "N, and every rank here is biased downwards. Use more samples."
    )


def bounded(scale: Scale, n_dimensions: int) -> Scale:
    """Return the scale of a statistic that cannot exceed the number of dimensions."""
    return replace(scale, highest=float(n_dimensions))


def replicates(
    moments: Moments, statistics: Callable[[Moments], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return S statistics of all rows, (B, S) without each block, and counts (B,) of blocks."""
    # NaN where there are fewer than two blocks or too few samples, or where the statistics are
    # undefined without some block, which they say by a `ValueError`.
    counts = moments.counts[moments.counts > 0]
    full = statistics(moments.whole())
    unknown = np.full((max(2, len(counts)), len(full)), np.nan)
    if len(counts) < 2 or moments.n - counts.max() < 3:
        return full, unknown, np.ones(len(unknown))
    try:
        return full, np.stack([statistics(each) for each in moments.without_each()]), counts
    except Refusal:  # without some block nothing varies
        return full, unknown, counts


def estimates(
    moments: Moments, statistics: Callable[[Moments], np.ndarray], scales: Sequence[Scale]
) -> Estimates:
    """Estimate S statistics of rows, each on its scale."""
    return jackknife(*replicates(moments, statistics), scales)
