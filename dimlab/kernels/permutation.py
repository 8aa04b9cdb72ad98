"""P-values of factors by permutation, given the label alone and given all other factors too.

Given the label: the F statistic of a factor's columns; a permutation within cells (rows that share
an intercept, such as a class) leaves their means alone, so permuted columns are still orthonormal
and without means. Given all others, by Freedman and Lane: the residuals of the model without the
factor are permuted, and the F of the factor beside all others is computed again. Permuting takes
residuals to be equally spread wherever the factor stands. Where they are wider at its large values,
as behind a ReLU, F is divided by how much the sandwich estimate of its mean exceeds the plain one.

Let S be an orthonormal basis of all columns and P a permutation. All that both tests need are
``(P S)'h`` and ``(P S)'S``: one large product a permutation serves all factors. Float64: a value
of the null that equals an observed one counts, whatever the rounding. A factor's null is that of
all dimensions together, which studentising allows.

With clusters rows stay where they are, and the columns change sign, those of a cluster together; no
cell may reach into two clusters. Each dimension's F is then divided by its mean under the null,
since dimensions differ in how alike the rows of a cluster are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.effects import f_ratio, orthonormal

_TOGETHER = 1 << 24  # elements of permuted columns that are multiplied at once
_SAME = 1e-6  # of a statistic: above the rounding of a null that is kept in float32
_ROWS = 4096
_LEAST = 0.05  # lower limit of one minus a leverage
_OWN = 1e-3  # columns of a smaller norm, orthogonal to all other factors, count as zero

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class PValues:
    """P-values of T tested factors on D dimensions."""

    # NaN: the dimension does not vary, nothing of the factor is left, or there are too few rows
    given_label: np.ndarray  # (D, T) given the label alone
    given_all: np.ndarray  # (D, T) given all other factors too
    smallest: np.ndarray  # (T,) no p-value given the label could have been smaller


def permutation_p_values(
    features: np.ndarray,
    columns: Sequence[np.ndarray],
    cells: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    *,
    tested: Sequence[int] | None = None,
    clusters: np.ndarray | None = None,
) -> PValues:
    """P-value of each dimension's F, the factors' columns permuted within cells."""
    # Features (N, D) and each factor's orthonormal columns come without the means of cells; factors
    # that are not ``tested`` are only adjusted for.
    import torch

    n_rows, n_dimensions = features.shape
    tested = range(len(columns)) if tested is None else tested
    joint = orthonormal(np.hstack(columns))
    total = np.einsum("nd,nd->d", features, features, dtype=np.float64)
    alive = total > 0
    kept = features if alive.all() else np.ascontiguousarray(features[:, alive])
    tests = _Tests.of(joint, columns, tested, kept, n_rows - int(cells.max()) - 1)
    observed = tests.statistics((joint.T @ kept)[None], np.eye(joint.shape[1])[None])[:, :, 0]
    if clusters is None:
        observed[1] /= tests.inflation(joint, kept, cells)
    source, targets = torch.from_numpy(joint), torch.from_numpy(kept)
    strata = [np.flatnonzero(cells == cell) for cell in range(int(cells.max()) + 1)]
    null = np.empty((*observed.shape[:2], n_permutations, kept.shape[1]), dtype=np.float32)
    width = max(1, joint.shape[1] * max(n_rows, 4 * kept.shape[1]))
    for part in blocks(n_permutations, _TOGETHER // width):
        count = part.stop - part.start
        if clusters is None:
            moved = source[torch.from_numpy(_shuffled(strata, n_rows, count, rng))]
        else:
            signs = rng.choice([-1.0, 1.0], size=(count, int(clusters.max()) + 1)).T
            moved = source[:, None, :] * torch.from_numpy(signs[clusters])[:, :, None]
        moved = moved.reshape(n_rows, -1).T
        products, among = (
            (moved @ each).numpy().reshape(count, joint.shape[1], -1) for each in (targets, source)
        )
        null[:, :, part] = tests.statistics(products, among)
        if progress is not None:
            progress(part.stop, n_permutations)
    if clusters is not None:
        typical = null.mean(axis=2, dtype=np.float64)
        typical[~(typical > 0)] = 1.0
        null /= typical[:, :, None].astype(np.float32)
        observed = observed / typical
    p_value = np.full((2, len(tested), n_dimensions), np.nan)
    smallest = np.ones((2, len(tested)))
    for kind in range(2):
        for place in range(len(tested)):
            p_value[kind, place, alive], smallest[kind, place] = _pooled(
                observed[kind, place], null[kind, place]
            )
    return PValues(p_value[0].T, p_value[1].T, smallest[0])


def _pooled(observed: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, float]:
    """P-values (D,) under the pooled null (B, D) of all dimensions, and the smallest possible."""
    values = np.sort(null, axis=None)
    least = (observed * (1 - _SAME)).astype(np.float32)
    at_least = len(values) - np.searchsorted(values, least, side="left")
    p_value = (1.0 + at_least) / (1 + len(values))
    same = (np.abs(null - observed) <= 2 * _SAME * np.abs(observed)).all(axis=1).sum()
    smallest = (1 + same) / (1 + len(null)) if same else 1 / (1 + len(values))
    p_value[np.isnan(observed)] = np.nan
    return np.maximum(p_value, smallest), float(smallest)


def _shuffled(
    strata: list[np.ndarray], n_rows: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Row that comes to each place, within strata, (N, count)."""
    shuffled = np.empty((count, n_rows), dtype=np.int64)
    for own in shuffled:
        for rows in strata:
            own[rows] = rows[rng.permutation(len(rows))]
    return shuffled.T.copy()


@dataclass(frozen=True, eq=False)
class _Tests:
    """Both F statistics of T factors, from products with the P joint columns."""

    marginal: list[np.ndarray]  # (P, R_f): the factor, in the joint columns
    partial: list[np.ndarray]  # (P, R_f): its part that is orthogonal to all others
    products: np.ndarray  # (P, D): joint columns with the dimensions
    total: np.ndarray  # (D,)
    freedom: int

    @classmethod
    def of(
        cls,
        joint: np.ndarray,
        columns: Sequence[np.ndarray],
        tested: Sequence[int],
        features: np.ndarray,
        freedom: int,
    ) -> _Tests:
        """Find each factor among the joint columns, with and without what others share."""
        inside = [joint.T @ each for each in columns]
        total = np.einsum("nd,nd->d", features, features)
        partial = []
        for f in tested:
            others = orthonormal(np.hstack([joint.T[:, :0], *inside[:f], *inside[f + 1 :]]))
            partial.append(orthonormal(inside[f] - others @ (others.T @ inside[f]), _OWN))
        return cls([inside[f] for f in tested], partial, joint.T @ features, total, freedom)

    def statistics(self, moved: np.ndarray, among: np.ndarray) -> np.ndarray:
        """F of permuted columns, from (B, P, D) and (B, P, P), as (2, T, B, D)."""
        # Permuting residuals back is permuting columns: P'e = moved - among @ products for the
        # residuals e of the full model, to which each test adds back its own factor.
        n_joint = len(self.products)
        found = np.full((2, len(self.marginal), len(moved), moved.shape[2]), np.nan)
        rest = moved - among @ self.products
        residual = self.total - np.einsum("pd,pd->d", self.products, self.products)
        for place, (whole, own) in enumerate(zip(self.marginal, self.partial, strict=True)):
            explained = _squares(whole.T @ moved)
            if 0 < whole.shape[1] < self.freedom:
                found[0, place] = f_ratio(
                    explained, self.total - explained, whole.shape[1], self.freedom
                )
            if own.shape[1] == n_joint:  # there is no other factor
                found[1, place] = found[0, place]
            elif 0 < own.shape[1] and n_joint < self.freedom:
                effect = own.T @ self.products
                whole_rest = rest + among @ (own @ effect)
                left = residual + _squares(effect) - _squares(whole_rest)
                freedom = self.freedom - n_joint + own.shape[1]
                found[1, place] = f_ratio(_squares(own.T @ whole_rest), left, own.shape[1], freedom)
        return found

    def inflation(self, joint: np.ndarray, features: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Mean of the partial F under unequal over that under equal variances, >= 1, (T, D)."""
        # Squared residuals are divided by one minus their leverage (HC2).
        leverage = _squares(joint.T) + 1 / np.bincount(cells)[cells]
        own = np.column_stack([_squares((joint @ each).T) for each in self.partial])
        own /= np.maximum(1 - leverage, _LEAST)[:, None]
        spread = np.zeros((own.shape[1], features.shape[1]))
        for rows in blocks(len(features), _ROWS):
            spread += own[rows].T @ (features[rows] - joint[rows] @ self.products) ** 2
        ranks = np.array([[max(each.shape[1], 1)] for each in self.partial])
        freedom = max(self.freedom - len(self.products), 1)
        plain = ranks * (self.total - _squares(self.products)) / freedom
        return np.maximum(spread / np.where(plain > 0, plain, np.inf), 1.0)


def _squares(values: np.ndarray) -> np.ndarray:
    """Sum squares over the last axis but one."""
    return np.einsum("...pd,...pd->...d", values, values)
