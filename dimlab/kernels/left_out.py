"""Terms of a risk bound for the population: no row enters the mean it is compared with.

A row's product with the mean of its class without it has the mean ``|mu|^2``, so squared distances
are exactly unbiased. Logarithms of sums are not: their bias is, to first order, half the variance
that the softmax gives to estimated means, or to the sum; it is taken off. Classes have the shares
of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dimlab.kernels.blocks import blocks

_ELEMENTS = 1 << 21  # elements of a temporary array; float64: 16 MiB


@dataclass(frozen=True, eq=False)
class LeftOutTerms:
    """Estimates of what `RiskTerms` measures, for the population that the sample is drawn from."""

    # ``own`` (E f.mu_y; class means leave out the row, or its whole cluster), ``pair``,
    # ``log_mean``, ``log_prior``, ``log_uniform``, ``within``, ``total``, ``view_within`` and
    # ``agreement``
    values: dict[str, float]
    # (N,) influence function: change of a value with a row's weight, times N; of mean about 0
    influence: dict[str, np.ndarray]
    within_dimensions: np.ndarray  # (D,) what each dimension contributes to ``within``
    # (N,) bool whether both views of a row are nearest to the mean of the same class
    agree: np.ndarray
    # (N,) bool: rows whose class has a row of another cluster; the values are means over these
    kept: np.ndarray


def left_out_terms(
    anchors: np.ndarray, positives: np.ndarray, codes: np.ndarray, clusters: np.ndarray | None
) -> LeftOutTerms:
    """Estimate the terms of a risk bound, leaving out each row's own cluster."""
    cells = _Cells(codes, np.arange(len(codes)) if clusters is None else clusters)
    own, kept = cells.means_of_others(anchors)
    rows, columns = _logarithms(anchors, positives, cells, kept)
    own_views, _ = cells.means_of_others(positives)
    with_own, squares = _dot(anchors, own), _dot(anchors, anchors)
    of_class = np.bincount(codes, with_own * kept) / np.maximum(np.bincount(codes, kept), 1)
    crossed = _dot(positives, own) + _dot(anchors, own_views)
    of_views = np.bincount(codes, crossed * kept / 2) / np.maximum(np.bincount(codes, kept), 1)
    rows["pair"] = _dot(anchors, positives)
    rows["own"] = 2 * with_own - of_class[codes]
    rows["within"] = squares - rows["own"]
    rows["view_within"] = _dot(positives, positives) - 2 * (crossed - of_views[codes]) + rows["own"]
    whole, parts = anchors.sum(axis=0), _sums(anchors, cells.clusters)
    sizes = np.bincount(cells.clusters)
    middle = (whole @ whole - _dot(parts, parts).sum()) / max(len(codes) ** 2 - (sizes @ sizes), 1)
    values = {name: float(each[kept].mean()) for name, each in rows.items()}
    values["total"] = float(squares.mean() - middle)
    influence = {
        name: np.where(kept, each - values[name], 0.0) * len(codes) / kept.sum()
        + columns.get(name, 0.0)
        for name, each in rows.items()
    }
    influence["total"] = squares - 2 * anchors @ whole / len(codes) + middle - values["total"]
    for name in ("within", "total", "view_within"):
        values[name] = max(values[name], 0.0)
    dimensions = (anchors * (anchors - own))[kept].mean(axis=0)
    return LeftOutTerms(values, influence, dimensions, rows["agreement"] > 0, kept)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Rows of one cluster and class, which enter the mean of a class together."""

    codes: np.ndarray
    clusters: np.ndarray

    # Cells ascend by class, so that sums over those of a class are sums of neighbours.

    @cached_property
    def _n_clusters(self) -> int:
        return int(self.clusters.max()) + 1

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.unique(self.codes * self._n_clusters + self.clusters, return_inverse=True)

    @cached_property
    def of_rows(self) -> np.ndarray:
        """Cell of each row, (N,)."""
        return self._pairs[1]

    @cached_property
    def classes(self) -> np.ndarray:
        """Class of each cell, (C,)."""
        return self._pairs[0] // self._n_clusters

    @cached_property
    def _starts(self) -> np.ndarray:
        """First cell of each class, (K,); no class is empty."""
        return np.flatnonzero(np.diff(self.classes, prepend=-1))

    def of_class(self, values: np.ndarray, axis: int = -1) -> np.ndarray:
        """Sum what cells have over those of each class, (..., C) to (..., K)."""
        return np.add.reduceat(values, self._starts, axis=axis, dtype=np.float64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Rows of each cell, (C,)."""
        return np.bincount(self.of_rows)

    @cached_property
    def counts(self) -> np.ndarray:
        """Rows of each class, (K,)."""
        return np.bincount(self.codes)

    def are_of(self, rows: slice) -> np.ndarray:
        """Whether a cell is of the cluster of a row, (rows, C)."""
        mine = self._pairs[0] % self._n_clusters
        return self.clusters[rows, None] == mine

    def means_of_others(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean of each row's class without its cluster, zeros if none is left; whether one is."""
        sums, left = (
            _sums(features, self.of_rows),
            self.counts[self.codes] - self.sizes[self.of_rows],
        )
        others = self.of_class(sums, axis=0)[self.codes] - sums[self.of_rows]
        means = others / np.maximum(left, 1)[:, None]
        return np.where(left[:, None] > 0, means, 0.0), left > 0

    def averages(
        self, sums: np.ndarray, mine: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class means of sums over cells (rows, C) without own clusters, variances, deviations."""
        # A class that lies in the row's own cluster alone has the mean NaN and the variance 0.
        left = np.where(mine, 0.0, sums)
        size = self.counts - self.of_class(mine * self.sizes)
        number = np.bincount(self.classes) - self.of_class(mine)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(size > 0, self.of_class(left) / size, np.nan)
            apart = left - np.nan_to_num(mean)[:, self.classes] * self.sizes
            apart = np.where(mine, 0.0, apart)
            variance = self.of_class(apart**2) / size**2 * number / (number - 1)
        return mean, np.where(number > 1, variance, 0.0), apart


def _logarithms(
    anchors: np.ndarray, positives: np.ndarray, cells: _Cells, kept: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logarithms of sums of each row with the agreement, and the influence of rows on them."""
    n_rows, n_classes = len(cells.codes), len(cells.counts)
    names = ("log_mean", "log_prior", "log_uniform")
    rows = {name: np.zeros(n_rows) for name in (*names, "agreement")}
    as_cells = {name: np.zeros(len(cells.sizes)) for name in names}
    as_classes = {name: np.zeros(n_classes) for name in names[:2]}
    sums = _sums(anchors, cells.of_rows)
    given = cells.counts / n_rows
    for block in blocks(n_rows, _ELEMENTS // n_rows):
        mine, counted = cells.are_of(block), kept[block, None]
        logits, variance, apart = cells.averages(anchors[block] @ sums.T, mine)
        seen = cells.averages(positives[block] @ sums.T, mine)[0]
        best = [np.nan_to_num(each, nan=-np.inf).argmax(axis=1) for each in (logits, seen)]
        rows["agreement"][block] = best[0] == best[1]
        largest = np.nanmax(logits, axis=1, keepdims=True, initial=-np.inf)
        largest[~np.isfinite(largest)] = 0.0
        for name, shares in (("log_prior", given), ("log_uniform", np.full(n_classes, 1.0))):
            share = np.where(np.isnan(logits), 0.0, shares)
            if name == "log_uniform":
                share = share / np.maximum(share.sum(axis=1, keepdims=True), 1)
            part = share * np.exp(np.nan_to_num(logits) - largest)
            whole = np.maximum(part.sum(axis=1, keepdims=True), 1e-300)
            softmax = part / whole
            bias = (softmax * (1 - softmax) * variance).sum(axis=1) / 2
            rows[name][block] = (np.log(whole) + largest)[:, 0] - bias
            as_cells[name] += ((softmax * counted)[:, cells.classes] * apart).sum(axis=0)
            if name == "log_prior":
                as_classes[name] += (softmax / given * counted).sum(axis=0)
        products = anchors[block] @ anchors.T
        products[cells.clusters[block, None] == cells.clusters] = -np.inf
        top = products.max(axis=1, keepdims=True)
        part = _sums(np.exp(products - top).T, cells.of_rows).T
        means, variance, apart = cells.averages(part, mine)
        share = np.where(np.isnan(means), 0.0, cells.counts)
        share = share / np.maximum(share.sum(axis=1, keepdims=True), 1)
        mean = np.maximum((share * np.nan_to_num(means)).sum(axis=1, keepdims=True), 1e-300)
        relative = (share**2 * variance).sum(axis=1, keepdims=True) / mean**2
        rows["log_mean"][block] = (np.log(mean) + top + relative / 2)[:, 0]
        as_cells["log_mean"] += ((share / mean * counted)[:, cells.classes] * apart).sum(axis=0)
        as_classes["log_mean"] += (np.nan_to_num(means) / mean * counted).sum(axis=0)
    scale = n_rows / kept.sum()
    columns = {}
    for name in names:
        each = as_cells[name] / cells.counts[cells.classes] / cells.sizes
        columns[name] = each[cells.of_rows] * scale
        if name in as_classes:
            columns[name] += as_classes[name][cells.codes] / kept.sum() - 1
    return rows, columns


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one, other)


def _sums(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Sum of the rows of each id from 0."""
    if len(ids) == int(ids.max()) + 1:
        return rows[np.argsort(ids)]
    order = np.argsort(ids, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(ids))[:-1]])
    return np.add.reduceat(rows[order], starts, axis=0)
