"""Exact nearest neighbours by cosine similarity, with and without each group of dimensions.

Rows are compared by their similarity in float64, rounded to 10 decimals; equal ones are taken in
order of train row. One product of all test rows with train serves every group: its best rows are
the candidates, whose similarities without each group follow in float64 by subtraction. A bound on
what any other row can reach then says, for each (test row, group), whether a row outside the
candidates could be a neighbour; only rows that could are scored as well. The answer is that of
brute force, whatever the block size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dimlab.kernels.blocks import blocks
from dimlab.kernels.certificate import (
    SLACK,
    UNITS,
    Best,
    Limits,
    Reach,
    Search,
    certify,
    listed_may_enter,
    listed_rows,
    plan,
    scanned_may_enter,
)
from dimlab.kernels.rows import WELL_CONDITIONED, Groups, Rows, pair_similarities
from dimlab.kernels.threads import on_threads
from dimlab.refusals import Refusal

_ELEMENTS = 1 << 22
_CACHED = 1 << 18  # elements of arrays that a processor's cache holds
_N_CANDIDATES = 32
_MOST = 1 << 19  # candidates: score and position share the 53 bits of a float64
_TEMPORARY = 256  # bytes of temporary arrays for each of _ELEMENTS, where no budget is given
_NUMBERS = 40  # bytes of what is known of each train row
_FEW = 1024  # rows that may have to be scored again before a search of its own is cheaper


@dataclass(frozen=True, eq=False)
class NeighbourBlock:
    """Neighbours of a block of B test rows without each of G groups."""

    start: int  # test rows start .. stop - 1
    stop: int
    rows: Tensor  # (B, G, k) int64 train rows, nearest first
    similarities: Tensor  # (B, G, k) their cosine similarities, rounded to 10 decimals
    n_certified: int  # (test row, group) pairs whose candidates were proved sufficient
    n_searched: int  # pairs that needed a search of their own
    n_looked_at: int  # rows looked at beyond the candidates


def find_neighbours(
    train: Rows,
    test: Rows,
    groups: Groups,
    *,
    k: int,
    n_candidates: int | None = None,
    block: int | None = None,
    memory: float | None = None,
) -> Iterator[NeighbourBlock]:
    """Find the k nearest train rows of every test row without each group, in blocks."""
    for (found,) in find_neighbours_without(
        train, test, [groups], k=k, n_candidates=n_candidates, block=block, memory=memory
    ):
        yield found


def find_with_and_without(
    train: Rows,
    test: Rows,
    groups: Sequence[np.ndarray] | None,
    *,
    k: int,
    memory: float | None = None,
) -> Iterator[tuple[NeighbourBlock, ...]]:
    """Find neighbours with all dimensions and, if there are groups, without each of them."""
    # groups None: each dimension by itself; one search serves both
    sets = [[np.array([], dtype=np.int64)], None if groups is None else list(groups)]
    parts = [
        Groups.of(each, train.n_dimensions, train.device)
        for each in sets
        if each is None or len(each)
    ]
    yield from find_neighbours_without(train, test, parts, k=k, memory=memory)


def find_neighbours_without(
    train: Rows,
    test: Rows,
    parts: Sequence[Groups],
    *,
    k: int,
    n_candidates: int | None = None,
    block: int | None = None,
    memory: float | None = None,
) -> Iterator[tuple[NeighbourBlock, ...]]:
    """Find neighbours without each group of several sets of groups, from one search."""
    # n_candidates, block and memory (in GB) change the time and the space, never the result
    if not 1 <= k <= min(len(train), _MOST):
        raise Refusal(f"k must lie in 1..{min(len(train), _MOST)}; got {k}.")
    m = min(len(train), _MOST, max(k, n_candidates or max(4 * k, _N_CANDIDATES)))
    block = block or _rows_at_once(train, max(map(len, parts)), k, m, memory)
    reaches = [Reach.of(train, groups) if m < len(train) else None for groups in parts]

    def found_in(rows: slice) -> tuple[NeighbourBlock, ...]:
        query = torch.arange(rows.start, rows.stop, device=train.device)
        search = _search(train, test, query, k, m)
        return tuple(
            _find_block(train, test, groups, reach, search, k)
            for groups, reach in zip(parts, reaches, strict=True)
        )

    yield from on_threads(found_in, list(blocks(len(test), block)))


def _rows_at_once(train: Rows, n_groups: int, k: int, m: int, memory: float | None) -> int:
    """How many test rows a thread searches for together, with m candidates each, within GB."""
    n_train, n_dimensions = len(train), train.n_dimensions
    each = 8 * n_train + 40 * m * max(n_dimensions, n_groups) + 16 * k * n_groups
    if memory is None:
        return min(256, max(1, _TEMPORARY * _ELEMENTS // (each * torch.get_num_threads())))
    fixed = _NUMBERS * n_train
    if fixed + each > memory * 1e9:
        raise Refusal(
            f"memory must be at least {(fixed + each) / 1e9:.2g} GB for {n_train} train rows "
            f"of {n_dimensions} dimensions; got {memory:g}. Read fewer train rows."
        )
    return min(256, max(1, int((memory * 1e9 - fixed) // (each * torch.get_num_threads()))))


def _find_block(
    train: Rows, test: Rows, groups: Groups, reach: Reach | None, search: Search, k: int
) -> NeighbourBlock:
    query = search.query
    best = _best_candidates(train, test, groups, search, k)
    n_pairs, looked_at, searched = best.scores[..., 0].numel(), 0, 0
    n_certified = n_pairs
    empty = _emptied(test, groups, query)
    if reach is not None:
        limits = Limits.of(groups, search, best, reach)
        pending = ~(certify(groups, search, reach, limits) | empty)
        n_certified -= int(pending.sum())
        if n_certified < n_pairs:
            others = _Others(train, test, groups, search, best)
            looked_at, searched = others.look(reach, limits, pending)
    # Similar to nothing: all scores are 0 already, and the candidates need not be the first rows.
    best.rows[empty] = torch.arange(k, device=train.device)
    start, similarities = int(query[0]), best.scores / UNITS
    stop = start + len(query)
    return NeighbourBlock(start, stop, best.rows, similarities, n_certified, searched, looked_at)


def _emptied(test: Rows, groups: Groups, query: Tensor) -> Tensor:
    """Which test rows have no non-zero entry left without each group, (B, G)."""
    nonzero = (test.raw[query] != 0).double()
    return test.n_nonzero[query].unsqueeze(1) - groups.sum(nonzero) == 0


def _search(train: Rows, test: Rows, query: Tensor, k: int, m: int) -> Search:
    unit = test.unit(query)
    exact = torch.get_float32_matmul_precision() == "highest"
    for dtype in (torch.float32, torch.float64) if exact else (torch.float64,):
        roundoff = torch.finfo(dtype).eps / 2
        error = (train.n_dimensions + 8) * roundoff
        error /= 1 - error  # rounded factors and any order of summation
        matrix = train.similarities(unit.to(dtype))
        values, candidates = torch.topk(matrix, m, dim=1)
        spread = (values[:, k - 1] - values[:, -1]).median()
        if m == len(train) or spread > 4 * error:
            break  # float32 tells the neighbours of most test rows from others
    matrix.scatter_(1, candidates, -torch.inf)
    ceiling = values[:, -1].double() + error + SLACK
    candidates = candidates.sort(dim=1).values
    return Search(query, unit, matrix, candidates, ceiling, error, roundoff)


def _best_candidates(train: Rows, test: Rows, groups: Groups, search: Search, k: int) -> Best:
    m = search.candidates.shape[1]
    q = search.unit.unsqueeze(1)
    x = train.unit(search.candidates)
    products = q * x
    numerator = products.sum(-1, keepdim=True) - groups.sum(products)
    kept_test = 1.0 - groups.sum(q.square())
    kept_row = 1.0 - groups.sum(x.square_())
    unsafe = (kept_row < WELL_CONDITIONED) | (kept_test < WELL_CONDITIONED)
    similarities = numerator.div_(kept_row.mul_(kept_test).clamp_(min=1e-300).sqrt_())
    pair, position, group = unsafe.nonzero(as_tuple=True)
    if len(pair):  # little is left: subtraction cancels, so sum the kept entries
        row = search.candidates[pair, position]
        similarities[pair, position, group] = pair_similarities(
            test, train, groups, search.query[pair], row, group
        )
    scores = similarities.transpose(1, 2).mul(UNITS).round_()
    ranks = torch.arange(m - 1, -1, -1, device=scores.device)
    # Candidates ascend: the position makes keys unique and prefers the lower row of equal ones.
    keys = scores * (1 << (m - 1).bit_length()) + ranks
    chosen = torch.topk(keys, k, dim=-1).indices
    rows = search.candidates.unsqueeze(1).expand(-1, len(groups), -1).gather(2, chosen)
    return Best(rows, scores.gather(2, chosen))


@dataclass(eq=False)
class _Others:
    """Rows beside the candidates that may enter the best of a block of test rows."""

    # They wait in one array until there are enough to score together: thousands of small ones
    # between large temporary ones would keep the allocator from ever using the same memory twice.

    train: Rows
    test: Rows
    groups: Groups
    search: Search
    best: Best
    waiting: Tensor = field(init=False)  # (3, capacity): pairs, groups, rows
    n_waiting: int = 0

    def __post_init__(self) -> None:
        self.waiting = torch.empty((3, _MOST), dtype=torch.int64, device=self.train.device)

    def look(self, reach: Reach, limits: Limits, pending: Tensor) -> tuple[int, int]:
        """Score what could still enter and let it; return the rows looked at, pairs searched."""
        train, groups, search = self.train, self.groups, self.search
        again = pending & (2 * groups.sizes > train.n_dimensions)
        limits = limits.where(pending & ~again)
        strategy = plan(search, reach, limits)
        looked_at = 0
        limits_of_listed = limits.where(~strategy.scanned)
        step = max(1, _CACHED // max(len(groups), train.n_dimensions))
        for position in strategy.scale.isfinite().nonzero()[:, 0].tolist():
            rows = listed_rows(search, reach, strategy, position)
            looked_at += len(rows)
            for part in rows.split(step):
                enters = listed_may_enter(search, train, groups, limits_of_listed, position, part)
                row, group = enters.nonzero(as_tuple=True)
                if len(row) > _FEW:
                    crowded = enters.sum(0) > _FEW // 2
                    again[position] |= crowded & (groups.sizes > 0)
                    limits_of_listed.scale[position, again[position]] = torch.inf
                    kept = ~again[position, group]
                    row, group = row[kept], group[kept]
                self._add(torch.full_like(row, position), group, part[row])
        step = max(1, _CACHED // len(train))
        for group_id in strategy.scanned.any(0).nonzero()[:, 0].tolist():
            pairs = strategy.scanned[:, group_id].nonzero()[:, 0]
            looked_at += len(pairs) * len(train)
            for part in pairs.split(step):
                enters = scanned_may_enter(search, train, groups, limits, part, group_id)
                pair, row = enters.nonzero(as_tuple=True)
                if len(row) > _FEW and groups.sizes[group_id] > 0:
                    crowded = enters.sum(1) > _FEW
                    again[part, group_id] = crowded
                    kept = ~crowded[pair]
                    pair, row = pair[kept], row[kept]
                self._add(part[pair], torch.full_like(row, group_id), row)
        self._flush()
        for group_id in again.any(0).nonzero()[:, 0].tolist():
            chosen = again[:, group_id].nonzero()[:, 0]
            self._search_again(chosen, group_id)
        return looked_at, int(again.sum())

    def _add(self, pair: Tensor, group: Tensor, row: Tensor) -> None:
        for some in zip(*(each.split(_MOST) for each in (pair, group, row)), strict=True):
            if self.n_waiting + len(some[0]) > _MOST:
                self._flush()
            place = slice(self.n_waiting, self.n_waiting + len(some[0]))
            for kept, each in zip(self.waiting, some, strict=True):
                kept[place] = each
            self.n_waiting = place.stop

    def _flush(self) -> None:
        if self.n_waiting:
            self._enter(*self.waiting[:, : self.n_waiting])
        self.n_waiting = 0

    def _search_again(self, pair: Tensor, group_id: int) -> None:
        """Search the kept dimensions alone: the group carried most of what made rows similar."""
        train, best = self.train, self.best
        kept = torch.ones(train.n_dimensions, dtype=torch.bool, device=train.device)
        kept[self.groups[group_id]] = False
        if not bool(kept.any()):
            return  # every test row is empty
        inner_train = Rows.of(train.raw[:, kept], train.device)
        inner_test = Rows.of(self.test.raw[self.search.query[pair]][:, kept], train.device)
        nothing = Groups([kept.new_zeros(0, dtype=torch.int64)], int(kept.sum()), train.device)
        k = best.rows.shape[-1]
        for found in find_neighbours(inner_train, inner_test, nothing, k=k):
            part = pair[found.start : found.stop]
            best.rows[part, group_id] = found.rows[:, 0]
            best.scores[part, group_id] = (found.similarities[:, 0] * UNITS).round_()

    def _enter(self, pair: Tensor, group: Tensor, row: Tensor) -> None:
        """Score rows (E,) exactly and merge them with the best of their (test row, group)."""
        best, groups = self.best, self.groups
        k, query = best.rows.shape[-1], self.search.query[pair]
        similarity = pair_similarities(self.test, self.train, groups, query, row, group)
        scores = similarity.mul_(UNITS).round_()
        cell = pair * len(groups) + group
        cells, inverse = torch.unique(cell, return_inverse=True)
        better = scores >= best.scores.view(-1, k)[cells, -1][inverse]
        cell, row, scores = cell[better], row[better], scores[better]
        cells = torch.unique(cell)
        cell = torch.cat([cell, cells.repeat_interleave(k)])
        row = torch.cat([row, best.rows.view(-1, k)[cells].view(-1)])
        scores = torch.cat([scores, best.scores.view(-1, k)[cells].view(-1)])
        order = row.argsort()
        for key in (-scores, cell):  # the last key is the first criterion
            order = order[key[order].argsort(stable=True)]
        sizes = torch.unique_consecutive(cell[order], return_counts=True)[1]
        starts = sizes.cumsum(0) - sizes
        chosen = order[(starts.unsqueeze(1) + torch.arange(k, device=row.device)).view(-1)]
        best.rows.view(-1, k)[cells] = row[chosen].view(-1, k)
        best.scores.view(-1, k)[cells] = scores[chosen].view(-1, k)


def total_votes(
    train: Rows,
    test: Rows,
    classes: Tensor,
    *,
    k: int,
    n_classes: int,
    temperature: float,
    memory: float | None = None,
) -> Iterator[Tensor]:
    """Give the votes (B, K) of the nearest train rows, of classes (N,), for blocks of test rows."""
    nothing = Groups.of([np.array([], dtype=np.int64)], train.n_dimensions, train.device)
    for found in find_neighbours(train, test, nothing, k=k, memory=memory):
        yield count_votes(
            classes[found.rows[:, 0]],
            found.similarities[:, 0],
            n_classes=n_classes,
            temperature=temperature,
        )


def count_votes(
    classes: Tensor, similarities: Tensor, *, n_classes: int, temperature: float
) -> Tensor:
    """Sum the votes of k neighbours, (..., k) and nearest first, for each class: (..., K)."""
    votes = torch.exp((similarities - similarities[..., :1]) / temperature)
    totals = votes.new_zeros(*votes.shape[:-1], n_classes)
    for neighbour in range(votes.shape[-1]):
        part = slice(neighbour, neighbour + 1)
        totals.scatter_add_(-1, classes[..., part], votes[..., part])
    return totals


def decide(totals: Tensor) -> Tensor:
    """Class of the largest total (..., K), the lower index of those equal to 10 decimals of it."""
    shares = totals / totals.amax(-1, keepdim=True)
    return torch.round(shares, decimals=10).argmax(-1)


def vote(
    classes: Tensor, similarities: Tensor, truth: Tensor, *, n_classes: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Predictions (B, G) by neighbours (B, G, k), and the vote share of each row's true class."""
    n_test, n_groups, k = classes.shape
    truth = truth.repeat_interleave(n_groups)
    classes, similarities = classes.reshape(-1, k), similarities.reshape(-1, k)
    predicted = torch.empty_like(truth)
    share = torch.empty(len(truth), dtype=torch.float64, device=truth.device)
    for part in blocks(len(truth), _ELEMENTS // max(k, n_classes)):
        totals = count_votes(
            classes[part], similarities[part], n_classes=n_classes, temperature=temperature
        )
        predicted[part] = decide(totals)
        own = totals.gather(1, truth[part].unsqueeze(1))[:, 0]
        share[part] = own / totals.sum(1)
    return predicted.view(n_test, n_groups), share.view(n_test, n_groups)


def weighted_mean(
    values: Tensor, rows: Tensor, similarities: Tensor, *, temperature: float
) -> Tensor:
    """Mean (B, G, T) of the values (N, T) of neighbours (B, G, k), weighted by their votes."""
    votes = torch.exp((similarities - similarities[..., :1]) / temperature)
    votes /= votes.sum(-1, keepdim=True)
    found = values.new_zeros(*rows.shape[:-1], values.shape[1])
    for neighbour in range(rows.shape[-1]):
        found += votes[..., neighbour, None] * values[rows[..., neighbour]]
    return found
