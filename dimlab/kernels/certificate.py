"""Which rows could be a neighbour without a group of dimensions, by proof rather than by scoring.

Let every row outside the candidates have a similarity of at most ``a`` with a query. Without one
dimension it is at most ``(a - q v) / sqrt((1 - q^2) (1 - v^2))``, q and v being the
normalised values of query and row. Rows for which that stays below the k-th similarity found
cannot enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimlab.kernels.rows import Groups, Rows

UNITS = 1e10  # similarities are compared as whole numbers of 1e-10
SLACK = 1e-9  # above the rounding errors of the float64 bounds
_ELEMENTS = 1 << 22


@dataclass(frozen=True, eq=False)
class Search:
    """Similarities of one block with the whole bank, and their error bound."""

    query: Tensor  # (B,) query rows
    unit: Tensor  # (B, D) float64
    matrix: Tensor  # (B, N); candidates are -inf
    candidates: Tensor  # (B, m), ascending
    ceiling: Tensor  # (B,) no other row's similarity is above
    error: float
    roundoff: float
    bank_unit: Tensor  # (N, D), in the precision of the search


@dataclass(eq=False)
class Best:
    """Neighbours found so far, as whole numbers of 1e-10, for each (query, group)."""

    rows: Tensor  # (B, G, k)
    scores: Tensor  # (B, G, k) float64

    @property
    def threshold(self) -> Tensor:
        """Similarity below which no row can enter, (B, G)."""
        return (self.scores[..., -1] - 1.0) / UNITS


def certify(
    bank: Rows, groups: Groups, search: Search, best: Best
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Prove where no other row can enter; for single dimensions also where those that could lie.

    Returns
    -------
    certified : Tensor of shape (B, G), bool
    first, last : Tensor of shape (B, D), int64, or None
        In order of the dimension's values only rows before ``first`` and from ``last`` on can
        enter.
    """
    ceiling, threshold = search.ceiling.unsqueeze(1), best.threshold
    usable = (ceiling > 0) & (threshold > 0)
    if groups.indices is not None:
        removed = groups.sum(search.unit.square()).clamp(0, 1)
        reach = _largest_removed(bank, groups)
        bound = ceiling + removed.sqrt() * reach.sqrt()
        kept = ((1 - removed).clamp(min=0) * (1 - reach).clamp(min=0)).sqrt()
        return usable & (bound < threshold * kept), None, None
    # (a - q v) < t c sqrt(1 - v^2) on an interval of v: between the roots of a quadratic.
    q, tc2 = search.unit, threshold.square() * (1 - search.unit.square())
    leading = (q.square() + tc2).clamp(min=1e-300)
    discriminant = leading - ceiling.square()
    usable &= discriminant > 0
    half = (tc2 * discriminant.clamp(min=0)).sqrt()
    values, order = bank.by_value
    # float32 values are off by less than 6e-8
    low = ((ceiling * q - half) / leading + 2e-7).T.contiguous().to(values.dtype)
    high = ((ceiling * q + half) / leading - 2e-7).T.contiguous().to(values.dtype)
    first = torch.searchsorted(values, low, right=True).T
    last = torch.searchsorted(values, high).T
    first = torch.where(usable, first, len(bank))
    last = torch.where(usable, torch.maximum(last, first), len(bank))
    return (first == 0) & (last == order.shape[1]), first, last


def _largest_removed(bank: Rows, groups: Groups) -> Tensor:
    """Largest share of a row's energy within each group, (G,), never too small."""
    largest = torch.zeros(len(groups), dtype=torch.float64, device=bank.device)
    step = max(1, _ELEMENTS // max(bank.n_dimensions, len(groups)))
    for start in range(0, len(bank), step):
        squares = bank.unit(slice(start, start + step)).square_()
        largest = torch.maximum(largest, groups.sum(squares).amax(0))
    return (largest + SLACK).clamp(max=1.0) * (largest > 0)


def enter_at_the_ends(
    bank: Rows,
    search: Search,
    best: Best,
    pair: Tensor,
    dimension: Tensor,
    first: Tensor,
    last: Tensor,
    counts: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with an extreme value of the dimension that may enter: (query of block, group, row)."""
    which = torch.repeat_interleave(counts)
    offset = torch.arange(len(which), device=counts.device) - (counts.cumsum(0) - counts)[which]
    low, high = first[pair, dimension], last[pair, dimension]
    position = offset + torch.where(offset < low[which], 0, (high - low)[which])
    _, order = bank.by_value
    row = order.view(-1)[dimension[which] * len(bank) + position].long()
    value = search.bank_unit.view(-1)[row * bank.n_dimensions + dimension[which]]
    similarity = search.matrix.view(-1)[pair[which] * len(bank) + row]
    q = search.unit[pair, dimension]
    scale = best.threshold[pair, dimension] * (1 - q.square()).clamp(min=0).sqrt()
    margin = 32 * search.roundoff
    kept = (1 - margin - value.square()).clamp_(min=0).sqrt_()
    dtype = value.dtype
    upper = similarity - q.to(dtype)[which] * value + (search.error + margin)
    enters = (upper >= scale.to(dtype)[which] * kept).nonzero()[:, 0]
    return pair[which[enters]], dimension[which[enters]], row[enters]


def may_enter(search: Search, best: Best, groups: Groups, pair: Tensor, group: Tensor) -> Tensor:
    """Rows whose upper bound reaches the threshold, (P, N) bool."""
    q, bank_unit = search.unit[pair], search.bank_unit
    dtype = bank_unit.dtype
    if groups.indices is None:
        q = q.gather(1, group.unsqueeze(1))
        x = bank_unit.T[group]
        product, energy, largest = q.to(dtype) * x, x.square(), 1
    else:
        members = groups.members[group].to(dtype)
        removed = q.to(dtype) * members
        product, energy = removed @ bank_unit.T, members @ bank_unit.T.square()
        q, largest = q * members, bank_unit.shape[1]
    margin = 2 * (largest + 16) * search.roundoff
    kept_query = (1 - q.square().sum(1)).clamp_(min=0).sqrt_()
    scale = (best.threshold[pair, group] * kept_query).to(dtype).unsqueeze(1)
    # Where the threshold is negative a longer remainder makes a row harder to exclude.
    kept = (1 - energy - torch.where(scale > 0, margin, -margin)).clamp_(0, 1).sqrt_()
    return search.matrix[pair] - product + (search.error + margin) >= scale * kept
