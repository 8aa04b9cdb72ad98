"""Behind redundancy: what others explain of a dimension, copies, pivots, chance and stability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dimlab.kernels import collinearity, correlation
from dimlab.kernels.reliability import is_heavy
from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.moments import Moments
from dimlab.probes._moments import Rows
from dimlab.readers.base import Progress

_COPY = 1e-6  # distance of |correlation| from 1 up to which dimensions are affine copies
_N_HALVINGS = 10
_AMPLE = 20  # samples a dimension from which R^2 by chance is small
_N_NULL = 19  # permutations: the largest of so many is a 95 % quantile
_LEVEL = 0.95
_PERMUTED = 1e11  # products up to which rows are permuted: some 10 seconds


def explained(rows: Rows, matrix: np.ndarray) -> dict[str, Any]:
    """Say what the others explain of every dimension; NaN where rows are too few."""
    names = ("variance_inflation_factor", "r_squared", "adjusted_r_squared")
    factor, share, adjusted = (np.full(len(matrix), np.nan) for _ in names)
    live, n_live = rows.live, len(rows.live)
    n_rows = np.full(n_live, float(rows.moments.n))
    if isinstance(rows.n_effective, np.ndarray):
        n_rows = 1 + 1 / correlation.chances_of(live, rows.n_effective)
    if rows.moments.n > n_live:
        noise = collinearity.correlation_noise(rows.moments, live)
        factor[live] = collinearity.variance_inflation(matrix[np.ix_(live, live)], noise)
        share[live] = 1 - 1 / factor[live]
        free = np.where(n_rows > n_live, n_rows - n_live, np.nan)
        adjusted[live] = 1 - (1 - share[live]) * (n_rows - 1) / free
    null = collinearity.inflation_by_chance(float(np.median(n_rows)), n_live)
    found = dict(zip(names, (factor, share, adjusted), strict=True))
    return {**found, "variance_inflation_null": null}


def by_chance(rows: Rows, cut: float, seed: int) -> dict[str, Any]:
    """Say what R^2 and groups would be of independent dimensions, and the cut beyond chance."""
    n, d, ids = rows.moments.n, len(rows.live), rows.ids
    if d < 2 or (ids is None and n >= _AMPLE * d):
        return {"r_squared_null": np.nan, "shared_null": np.nan, "null_law": "", "cut": cut}
    rng = np.random.default_rng(seed)
    odd = ids is not None or is_heavy(rows.kurtosis, n)
    draws: Iterable[np.ndarray] = ()
    r_squared = collinearity.largest_r_squared_by_chance(n, d)
    largest = collinearity.largest_correlation_by_chance(n, d)
    law = "the Beta distribution of R^2 of independent Gaussian dimensions"
    # The largest correlation depends on the tails more than R^2 does: rectified features reach up
    # to twice what Gaussian ones do.
    matters = odd or 2 * largest > cut
    permuted = bool(rows.arrays) and matters and 2.0 * _N_NULL * n * d**2 <= _PERMUTED
    if permuted:
        features = rows.arrays[0][:, rows.live]
        draws = correlation.permuted_correlations((features,), _N_NULL, rng, ids)
        shuffled = f"{_N_NULL} independent permutations of every column"
        shuffled += ", whole clusters at a time" if ids is not None else ""
        law = shuffled if odd else f"{law}; groups by {shuffled}"
    elif largest > cut:
        draws = correlation.independent_correlations(n, d, _N_NULL, rng)
    explained, reached, shared = [], [], [0.0]
    for matrix in draws:
        groups = np.bincount(collinearity.group_ids(matrix, cut))
        shared.append(float(groups[groups > 1].sum()))
        reached.append(float(np.abs(matrix - np.eye(d)).max()))
        if odd and n > d:
            explained.append(float((1 - 1 / collinearity.variance_inflation(matrix)).max()))
    return {
        "r_squared_null": max(explained, default=r_squared),
        "shared_null": max(shared),
        "null_law": law,
        "cut": max(cut, min(1.0, max(reached) if permuted else largest)),
    }


def copies(
    rows: Rows, matrix: np.ndarray
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
    """Find groups of affine copies, and chains of them with the least correlation within."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    live = rows.live
    size = np.abs(matrix[np.ix_(live, live)])
    # Rounding to the storage precision adds up to eps^2 / 12 of a column's mean square to its
    # variance, which takes half as much off the correlation of two copies.
    noise = rows.moments.eps**2 / 12 * collinearity.relative_size(rows.moments, live)
    same = size >= 1 - np.maximum(_COPY, noise[:, None] + noise)
    ids = connected_components(csr_array(same), directed=False)[1]
    copies, chains, weakest = [], [], []
    for members in (each for each in collinearity.groups_of(ids) if len(each) > 1):
        inside = np.ix_(members, members)
        if same[inside].all():
            copies.append(live[members])
            continue
        first, second = np.nonzero(np.triu(same[inside], 1))
        copies += list(live[np.column_stack([members[first], members[second]])])
        chains.append(live[members])
        weakest.append(float(size[inside].min()))
    return tuple(copies), tuple(chains), np.array(weakest)


def pivots(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Pivot order of all dimensions, dead ones last, and the variance explained so far."""
    moments, live = rows.moments, rows.live
    covariance = moments.covariance[np.ix_(live, live)]
    size = float((np.diagonal(covariance) + moments.mean[0, live] ** 2).max())
    floor = eigenvalue_floor(0.0, size, moments.n, len(live), moments.eps)
    order, share = collinearity.pivot_order(covariance, floor)
    dead = np.flatnonzero(rows.dead)
    return np.concatenate([live[order], dead]), np.concatenate([share, np.ones(len(dead))])


def stability(
    rows: Rows, group: np.ndarray, cut: float, seed: int, progress: Progress | None
) -> tuple[float, np.ndarray]:
    """Agreement of the groups with those of random halves of the samples, in all and by group."""
    from sklearn.metrics import adjusted_rand_score

    members = collinearity.groups_of(group)
    overlaps, scores = np.zeros(len(members)), []
    for done, half in enumerate(_halves(rows.moments, seed)):
        other = collinearity.group_ids(correlation.correlation_of(half, rows.dead), cut)
        scores.append(adjusted_rand_score(group, other))
        overlaps += [_best_overlap(each, other) for each in members]
        if progress is not None:
            progress(done + 1, 2 * _N_HALVINGS)
    if not scores:
        return float("nan"), np.full(len(members), np.nan)
    return float(np.mean(scores)), overlaps / len(scores)


def _halves(moments: Moments, seed: int) -> Iterator[Moments]:
    """Moments of random halves of the blocks; none where there are too few blocks or samples."""
    occupied = np.flatnonzero(moments.counts)
    if len(occupied) < 2 or moments.n < 6:
        return
    rng = np.random.default_rng(seed)
    for _ in range(_N_HALVINGS):
        shuffled = rng.permutation(occupied)
        for chosen in np.array_split(shuffled, 2):
            yield moments[chosen].whole()


def _best_overlap(members: np.ndarray, other: np.ndarray) -> float:
    """Largest Jaccard index of a group with any group of another grouping."""
    inside = np.bincount(other[members], minlength=other.max() + 1)
    sizes = np.bincount(other, minlength=other.max() + 1)
    return float((inside / (len(members) + sizes - inside)).max())
