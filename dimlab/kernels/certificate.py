"""Which rows could be a neighbour without a group of dimensions, by proof rather than by scoring.

Let q and x be a normalised test and train row, s their similarity, and q_g and x_g the parts that
leave. The row reaches a similarity t without the group only if

    s - q_g . x_g  >=  t sqrt(1 - |q_g|^2) sqrt(1 - |x_g|^2).

For one dimension and t >= 0 the difference of both sides is concave in the row's value: where no
value at either end of that dimension's range satisfies it with the largest s outside the
candidates, no row does. That is the certificate. Where it fails, the same inequality is looked at
row by row, first with the largest part that any group takes from a row, then group by group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimlab.kernels.blocks import blocks
from dimlab.kernels.rows import WELL_CONDITIONED, Groups, Rows

UNITS = 1e10  # similarities are compared as whole numbers of 1e-10
SLACK = 1e-9  # above the rounding errors of the float64 bounds
_ELEMENTS = 1 << 22
_SAMPLED = 2048  # rows from which the cost of a strategy is estimated


@dataclass(frozen=True, eq=False)
class Search:
    """Similarities of one block with all of train, and their error bound."""

    query: Tensor  # (B,) test rows
    unit: Tensor  # (B, D) float64
    matrix: Tensor  # (B, N); candidates are -inf
    candidates: Tensor  # (B, m), ascending
    ceiling: Tensor  # (B,) no other row's similarity is above
    error: float
    roundoff: float


@dataclass(eq=False)
class Best:
    """Neighbours found so far, as whole numbers of 1e-10, for each (test row, group)."""

    rows: Tensor  # (B, G, k)
    scores: Tensor  # (B, G, k) float64

    @property
    def threshold(self) -> Tensor:
        """Similarity below which no row can enter, (B, G)."""
        return (self.scores[..., -1] - 1.0) / UNITS


@dataclass(frozen=True, eq=False)
class Reach:
    """How much of the train rows lies within the groups, never too little; float64."""

    by_row: Tensor  # (N,) norm of the largest part that any group takes from the row
    by_group: Tensor  # (G,) largest share of a row's energy within the group
    low: Tensor  # (G,) smallest and largest value of a dimension that is a group of its own
    high: Tensor
    nonnegative: bool  # no entry is below zero

    @classmethod
    def of(cls, train: Rows, groups: Groups) -> Reach:
        """Measure all train rows (N, D) against G groups."""
        by_row = torch.zeros(len(train), dtype=torch.float64, device=train.device)
        by_group = torch.zeros(len(groups), dtype=torch.float64, device=train.device)
        high = torch.full_like(by_group, -1.0)
        low, single = -high, groups.indices is None
        nonnegative = True
        for part in blocks(len(train), _ELEMENTS // max(train.n_dimensions, len(groups))):
            unit = train.unit(part)
            if single:
                low = torch.minimum(low, unit.amin(0) - SLACK)
                high = torch.maximum(high, unit.amax(0) + SLACK)
            nonnegative = nonnegative and bool((unit >= 0).all())
            energy = groups.sum(unit.square_())
            by_row[part] = energy.amax(1)
            by_group = torch.maximum(by_group, energy.amax(0))
        by_group = (by_group + SLACK).clamp(max=1.0) * (by_group > 0)
        by_row = (by_row + SLACK).clamp_(max=1.0).sqrt_()
        return cls(by_row, by_group, low, high, nonnegative)


@dataclass(frozen=True, eq=False)
class Limits:
    """The inequality's constants for each (test row, group) that is to be looked at."""

    scale: Tensor  # (B, G) t sqrt(1 - |q_g|^2); inf where nothing is to be looked at
    part: Tensor  # (B, G) by how much -q_g . x_g can exceed 0, per unit of |x_g|

    @classmethod
    def of(cls, groups: Groups, search: Search, best: Best, reach: Reach) -> Limits:
        """Take the thresholds as they stand."""
        removed = groups.sum(search.unit.square()).clamp_(0, 1)
        kept = 1 - removed
        pair, group = (kept < WELL_CONDITIONED).nonzero(as_tuple=True)
        for some in torch.arange(len(pair)).split(max(1, _ELEMENTS // search.unit.shape[1])):
            # little is left of the test row: the difference is rounding, so sum the kept entries
            rows = groups.zero_(search.unit[pair[some]], group[some])
            kept[pair[some], group[some]] = rows.square_().sum(1)
        positive = reach.nonnegative & (search.unit >= 0).all(1, keepdim=True)
        part = torch.where(positive, 0.0, removed.sqrt() + SLACK)
        return cls(best.threshold * kept.sqrt(), part)

    def where(self, wanted: Tensor) -> Limits:
        """Look at these (B, G) only."""
        return Limits(
            torch.where(wanted, self.scale, torch.inf), torch.where(wanted, self.part, 0.0)
        )


def certify(groups: Groups, search: Search, reach: Reach, limits: Limits) -> Tensor:
    """Prove where no row outside the candidates can enter, (B, G) bool."""
    ceiling, scale = search.ceiling.unsqueeze(1), limits.scale
    usable = scale > 0
    if groups.indices is not None:
        kept = (1 - reach.by_group).sqrt()
        return usable & (ceiling + limits.part * reach.by_group.sqrt() < scale * kept)
    for end in (reach.low, reach.high):
        kept = (1 - end.square()).clamp(min=0).sqrt()
        usable &= ceiling - search.unit * end + SLACK < scale * kept
    return usable


@dataclass(frozen=True, eq=False)
class Plan:
    """Which pairs are looked at in all rows, and which rows are looked at for all other pairs."""

    scanned: Tensor  # (B, G) bool: pairs for which all rows are looked at
    scale: Tensor  # (B,) smallest scale of the other pairs; inf: there are none
    part: Tensor  # (B,) their largest part


def plan(search: Search, reach: Reach, limits: Limits) -> Plan:
    """Divide the pairs so that the fewest (row, group) have to be looked at."""
    # A test row's few groups of the lowest limits would put many rows on its list; for those all
    # rows are looked at instead. How many groups is estimated from a sample of the rows.
    n_rows, n_groups = search.matrix.shape[1], limits.scale.shape[1]
    typical = reach.by_row.median()
    ease = _least(limits.scale, limits.part, typical)
    order = ease.argsort(dim=1)
    scale, part = (each.gather(1, order) for each in (limits.scale, limits.part))
    scale = scale.flip(1).cummin(1).values.flip(1)  # of this pair and those behind it
    part = part.flip(1).cummax(1).values.flip(1)
    none = torch.full_like(scale[:, :1], torch.inf)
    scale, part = torch.cat([scale, none], 1), torch.cat([part, torch.zeros_like(none)], 1)
    stride = max(1, n_rows // _SAMPLED)
    sample, norms = search.matrix[:, ::stride].double(), reach.by_row[::stride]
    n_pending = limits.scale.isfinite().sum(1)
    options = [0, *(2**p for p in range(n_groups.bit_length())), n_groups]
    costs = []
    for option in options:
        option = min(option, n_groups)
        lowest = _least(scale[:, option, None], part[:, option, None], norms)
        n_listed = (sample >= lowest - search.error).sum(1) * stride
        costs.append(n_pending.clamp(max=option) * n_rows + n_listed * n_groups)
    best = torch.stack(costs).argmin(0)
    n_scanned = torch.tensor(options, device=best.device).clamp_(max=n_groups)[best]
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(n_groups, device=order.device).expand_as(order)
    )
    scanned = (rank < n_scanned.unsqueeze(1)) & limits.scale.isfinite()
    chosen = n_scanned.unsqueeze(1)
    return Plan(scanned, scale.gather(1, chosen)[:, 0], part.gather(1, chosen)[:, 0])


def _least(scale: Tensor, part: Tensor, norm: Tensor) -> Tensor:
    """Least similarity that a row can enter with whose largest part has this norm."""
    kept = (1 - norm.square()).clamp(min=0).sqrt()
    return torch.where(scale > 0, scale * kept, scale) - part * norm


def listed_rows(search: Search, reach: Reach, strategy: Plan, position: int) -> Tensor:
    """Rows that may enter for some pair of one test row that is not scanned."""
    dtype = search.matrix.dtype
    lowest = _least(strategy.scale[position], strategy.part[position], reach.by_row)
    margin = search.error + 8 * search.roundoff
    return (search.matrix[position] >= (lowest - margin).to(dtype)).nonzero()[:, 0]


def listed_may_enter(
    search: Search, train: Rows, groups: Groups, limits: Limits, position: int, rows: Tensor
) -> Tensor:
    """Whether each of these rows may enter for each group of one test row, (R, G) bool."""
    dtype = search.matrix.dtype
    q = search.unit[position].to(dtype)
    scale = limits.scale[position].to(dtype)
    x = train.unit(rows).to(dtype)
    product, energy = groups.sum(q * x), groups.sum(x.square_())
    return _reaches(search, search.matrix[position, rows], product, energy, scale, groups)


def scanned_may_enter(
    search: Search, train: Rows, groups: Groups, limits: Limits, pair: Tensor, group: int
) -> Tensor:
    """Whether each row of train may enter for these test rows without one group, (P, N) bool."""
    dtype = search.matrix.dtype
    columns = train.columns(dtype, groups[group])
    q = search.unit[pair][:, groups[group]].to(dtype)
    scale = limits.scale[pair, group, None].to(dtype)
    energy = columns.square().sum(0)
    return _reaches(search, search.matrix[pair], q @ columns, energy, scale, groups)


def _reaches(
    search: Search,
    similarity: Tensor,
    product: Tensor,
    energy: Tensor,
    scale: Tensor,
    groups: Groups,
) -> Tensor:
    """Evaluate the inequality with a margin for rounding; ``similarity`` is (R,) or (P, N)."""
    if product.shape != similarity.shape:
        similarity = similarity.unsqueeze(1)
    margin = 2 * (groups.largest + 16) * search.roundoff
    # Where the scale is negative a longer remainder makes a row harder to exclude.
    sign = torch.where(scale > 0, 1 - margin, 1 + margin)
    kept = (sign - energy).clamp_(0, 1).sqrt_()
    return product.add_(kept.mul_(scale)) <= similarity + (search.error + margin)
