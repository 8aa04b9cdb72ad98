"""P-values of factors by permutation, given the label alone and given all other factors too.

Given the label: the F statistic of a factor's columns; a permutation within cells (rows that share
an intercept, such as a class) leaves their means alone, so permuted columns are still orthonormal
and without means. Given all others, or a label that is no class, by Freedman and Lane: residuals of
the model without the factor are permuted, and the F of the factor is computed again. Permuting
takes residuals to be equally spread wherever the factor stands. Where they are wider at its large
values, as behind a ReLU, F is divided by how much the sandwich estimate of its mean exceeds the
plain one.

Let S be an orthonormal basis of all columns and P a permutation. All that both tests need are
``(P S)'h`` and ``(P S)'S``: one large product a permutation serves all factors. Float64: a value
of the null that equals an observed one counts, whatever the rounding. A factor's null is that of
all dimensions together, which studentising allows.

With clusters rows stay where they are, and the columns change sign, those of a cluster together; no
cell may reach into two clusters. Each dimension's F is then divided by its mean under the null,
since dimensions differ in how alike the rows of a cluster are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.effects import f_ratio, orthonormal

_TOGETHER = 1 << 24  # elements of permuted columns that are multiplied at once
_SAME = 1e-6  # of a statistic: above the rounding of a null that is kept in float32
_ROWS = 4096
_LEAST = 0.05  # lower limit of one minus a leverage
_OWN = 1e-3  # columns of a smaller norm, orthogonal to all other factors, count as zero

Progress = Callable[[int, int], None]
Over = Callable[[int, Callable[[slice], Sequence[np.ndarray]]], Sequence[np.ndarray]]


def alone(length: int, compute: Callable[[slice], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
    """Compute everything here."""
    return compute(slice(0, length))


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
    label: np.ndarray | None = None,
    over: Over = alone,
) -> PValues:
    """P-value of each dimension's F, the factors' columns permuted within cells."""
    # Features (N, D), each factor's orthonormal columns and those (N, C) of a ``label`` that is no
    # class come without the means of cells; factors that are not ``tested`` are only adjusted for.
    # ``over`` computes shares of the permutations.
    import torch

    n_rows, n_dimensions = features.shape
    tested = range(len(columns)) if tested is None else tested
    label = features[:, :0] if label is None else label
    joint = orthonormal(np.hstack([label, *columns]))
    total = np.einsum("nd,nd->d", features, features, dtype=np.float64)
    alive = total > 0
    kept = features if alive.all() else np.ascontiguousarray(features[:, alive])
    tests = _Tests.of(joint, columns, tested, kept, n_rows - int(cells.max()) - 1, label)
    observed = tests.statistics((joint.T @ kept)[None], np.eye(joint.shape[1])[None])[:, :, 0]
    if clusters is None:
        for kind in range(0 if label.shape[1] else 1, 2):
            observed[kind] /= tests.inflation(kind, joint, kept, cells)
    source, targets = torch.from_numpy(joint), torch.from_numpy(kept)
    strata = [np.flatnonzero(cells == cell) for cell in range(int(cells.max()) + 1)]
    width = max(1, joint.shape[1] * max(n_rows, 4 * kept.shape[1]))

    def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw the rows that come to each place, or the signs of rows, (N, count)."""
        if clusters is None:
            return _shuffled(strata, n_rows, count, rng)
        return rng.choice([-1.0, 1.0], size=(count, int(clusters.max()) + 1)).T[clusters]

    def statistics(share: slice) -> list[np.ndarray]:
        own = copy.deepcopy(rng)
        for before in blocks(share.start, _TOGETHER // n_rows):
            drawn(own, before.stop - before.start)
        n_draws = share.stop - share.start
        found = np.empty((n_draws, *observed.shape[:2], kept.shape[1]), dtype=np.float32)
        for part in blocks(n_draws, _TOGETHER // width):
            count = part.stop - part.start
            draws = torch.from_numpy(drawn(own, count))
            moved = source[draws] if clusters is None else source[:, None, :] * draws[:, :, None]
            moved = moved.reshape(n_rows, -1).T
            products, among = (
                (moved @ each).numpy().reshape(count, joint.shape[1], -1)
                for each in (targets, source)
            )
            found[part] = np.moveaxis(tests.statistics(products, among), 2, 0)
            if progress is not None:
                progress(share.start + part.stop, n_permutations)
        states[share.stop] = own.bit_generator.state
        return [found]

    states: dict[int, Any] = {}  # of the generator, after so many permutations
    null = np.ascontiguousarray(np.moveaxis(over(n_permutations, statistics)[0], 0, 2))
    if n_permutations in states:
        rng.bit_generator.state = states[n_permutations]
    else:  # another process drew the last ones
        for before in blocks(n_permutations, _TOGETHER // n_rows):
            drawn(rng, before.stop - before.start)
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
class _Test:
    """F of a factor's columns beside others, after Freedman and Lane."""

    own: np.ndarray  # (P, R): the factor's part that is orthogonal to the others, in joint columns
    model: np.ndarray  # (P, M): the factor and the others
    others: np.ndarray  # (P, D): what the model without the factor makes of the dimensions
    left: np.ndarray  # (D,): squares that it leaves
    freedom: int  # that the model leaves

    @classmethod
    def of(
        cls,
        own: np.ndarray,
        model: np.ndarray,
        products: np.ndarray,
        total: np.ndarray,
        freedom: int,
    ) -> _Test:
        """Fit the model to the products (P, D) of joint columns with dimensions."""
        inside, effect = model.T @ products, own.T @ products
        left = total - _squares(inside) + _squares(effect)
        return cls(own, model, model @ inside - own @ effect, left, freedom - model.shape[1])

    def statistic(self, moved: np.ndarray, among: np.ndarray) -> np.ndarray:
        """F (B, D) of permuted columns, from (B, P, D) and (B, P, P)."""
        rank = self.own.shape[1]
        if rank == 0 or self.freedom <= 0:
            return np.full((len(moved), moved.shape[2]), np.nan)
        # Permuting residuals back is permuting columns: P'e = moved - among @ others
        residual = moved - among @ self.others if self.model.shape[1] > rank else moved
        left = self.left - _squares(self.model.T @ residual)
        return f_ratio(_squares(self.own.T @ residual), left, rank, self.freedom + rank)


@dataclass(frozen=True, eq=False)
class _Tests:
    """Both tests of T factors, from products with the P joint columns."""

    given_label: list[_Test]
    given_all: list[_Test]
    products: np.ndarray  # (P, D): joint columns with the dimensions
    total: np.ndarray  # (D,)

    @classmethod
    def of(
        cls,
        joint: np.ndarray,
        columns: Sequence[np.ndarray],
        tested: Sequence[int],
        features: np.ndarray,
        freedom: int,
        label: np.ndarray,
    ) -> _Tests:
        """Find each factor among the joint columns, beside the label, and beside all others."""
        given, inside = joint.T @ label, [joint.T @ each for each in columns]
        products, total = joint.T @ features, np.einsum("nd,nd->d", features, features)

        def beside(factor: np.ndarray, others: np.ndarray, model: np.ndarray) -> _Test:
            if others.shape[1] == 0:
                return _Test.of(factor, factor, products, total, freedom)
            own = orthonormal(factor - others @ (others.T @ factor), _OWN)
            return _Test.of(own, model, products, total, freedom)

        marginal, partial = [], []
        for f in tested:
            marginal.append(beside(inside[f], given, orthonormal(np.hstack([given, inside[f]]))))
            others = orthonormal(np.hstack([given, *inside[:f], *inside[f + 1 :]]))
            partial.append(beside(inside[f], others, np.eye(len(products))))
        return cls(marginal, partial, products, total)

    def statistics(self, moved: np.ndarray, among: np.ndarray) -> np.ndarray:
        """F of permuted columns, from (B, P, D) and (B, P, P), as (2, T, B, D)."""
        found = np.empty((2, len(self.given_all), len(moved), moved.shape[2]))
        for kind, tests in enumerate((self.given_label, self.given_all)):
            for place, test in enumerate(tests):
                found[kind, place] = test.statistic(moved, among)
        return found

    def inflation(
        self, kind: int, joint: np.ndarray, features: np.ndarray, cells: np.ndarray
    ) -> np.ndarray:
        """Mean of F under unequal over that under equal variances, >= 1, (T, D)."""
        # Squared residuals are divided by one minus their leverage (HC2).
        tests = (self.given_label, self.given_all)[kind]
        found = np.empty((len(tests), features.shape[1]))
        for place, test in enumerate(tests):
            basis, fitted = joint @ test.model, test.model.T @ self.products
            leverage = _squares(basis.T) + 1 / np.bincount(cells)[cells]
            own = _squares((joint @ test.own).T) / np.maximum(1 - leverage, _LEAST)
            spread = np.zeros(features.shape[1])
            for rows in blocks(len(features), _ROWS):
                spread += own[rows] @ (features[rows] - basis[rows] @ fitted) ** 2
            rank = max(test.own.shape[1], 1)
            plain = rank * (self.total - _squares(fitted)) / max(test.freedom, 1)
            found[place] = np.maximum(spread / np.where(plain > 0, plain, np.inf), 1.0)
        return found


def _squares(values: np.ndarray) -> np.ndarray:
    """Sum squares over the last axis but one."""
    return np.einsum("...pd,...pd->...d", values, values)
