"""How `erase` works: which dimensions and directions go, and what readers behind a map tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dimlab.basis import Basis
from dimlab.kernels.blocks import blocks
from dimlab.kernels.effects import Label, f_statistics, orthonormal
from dimlab.kernels.erasure import (
    Removal,
    RidgeMoments,
    first_of_tied,
    least_squares_eraser,
    without_directions,
)
from dimlab.kernels.means import bootstrap_sums
from dimlab.kernels.paired import cluster_quantile, paired_interval
from dimlab.probes._contributions import contributions_of, difference
from dimlab.probes._factors import IDENTIFIABLE, Factors, centred_features, kind_of
from dimlab.probes._reading import Task
from dimlab.readers.base import Split
from dimlab.readers.ridge import Ridge
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.targets import CLASSES

NOTHING = "nothing"
DIMENSIONS, RANDOM_DIMENSIONS = "dimensions", "random dimensions"
DIRECTIONS, RANDOM_DIRECTIONS = "directions", "random directions"
LEACE, LEACE_GIVEN_LABEL = "LEACE", "LEACE given label"
_LEVEL = 0.95
_FOLDS = 5
_EXTREME = 100  # of two: squares of features beyond are not trusted to float64
_SIGNIFICANT = 0.05
_ELEMENTS = 1 << 22  # of predictions at once
_DECIMALS = 10  # of effects that are put in order
_OF_SWEEP = 5  # draws of the random ways at each size of the sweep


Map = Removal | np.ndarray | None  # a linear map, the dimensions that are kept, or all of them


class Order(NamedTuple):
    """Dimensions by falling effect on train, of which the first are named."""

    order: np.ndarray
    chosen: np.ndarray


class Job(NamedTuple):
    """One removal: of dimensions, of directions, or by LEACE."""

    way: str
    chosen: np.ndarray
    of_sweep: bool = False


def jobs_of(
    orders: Mapping[str, Order],
    pools: Mapping[str, int],
    n_random: int,
    sweeps: bool,
    rng: np.random.Generator,
) -> list[Job]:
    """List all removals of so many of the pools, those of the sweep last."""
    nothing = np.array([], dtype=np.int64)
    heads, rest = [Job(NOTHING, nothing)], [Job(NOTHING, nothing, of_sweep=True)]

    def removed(way: str, chosen: np.ndarray, n_draws: int, of_sweep: bool) -> list[Job]:
        drawn = [rng.permutation(pools[way])[: len(chosen)] for _ in range(n_draws)]
        return [
            Job(way, chosen, of_sweep),
            *(Job(f"random {way}", each, of_sweep) for each in drawn),
        ]

    for way, (order, chosen) in orders.items():
        if len(chosen):
            heads += removed(way, chosen, n_random, of_sweep=False)
        size = 1
        while sweeps and size < pools[way]:
            rest += removed(way, order[:size], min(n_random, _OF_SWEEP), of_sweep=True)
            size *= 2
    heads += [Job(LEACE, nothing), Job(LEACE_GIVEN_LABEL, nothing)]
    return heads + (rest if sweeps else [])


def by_effect(
    train: Representation,
    target: np.ndarray,
    factor: str,
    n_removed: int | None,
    clusters: np.ndarray | None,
    rng: np.random.Generator,
) -> Order:
    """Order dimensions by the factor's effect on train; name those that carry it, not the label."""
    from scipy.stats import f as f_law
    from scipy.stats import false_discovery_control

    factors = Factors.of(train, target, [factor], clusters)
    if not factors.identifiable[0]:
        raise Refusal(
            f"factor must vary within classes of train, or it cannot be told from the label; got "
            f"{factor!r}, of whose variance {factors.left_given_label[0]:.2%} is left."
        )
    features, within, _ = centred_features(train, factors.label)
    found = factors.effects(features, within, factors.deal(_FOLDS, rng))
    effect, label_effect = np.nan_to_num(found.given_label[:, 0]), np.nan_to_num(found.of_label)
    order = np.argsort(-effect.round(_DECIMALS), kind="stable")
    if n_removed is not None:
        return Order(order, order[: min(n_removed, len(order) - 1)])
    p_value = np.ones(len(order))
    for level in factors.levels(within):  # at most one: rows, or clusters, that a factor is told by
        given, columns = level.label, level.columns[level.tested[0]]
        features, columns = (each - given @ (given.T @ each) for each in (level.features, columns))
        columns = orthonormal(columns) if given.shape[1] else columns
        n_given, rank = int(level.cells.max()) + 1 + given.shape[1], columns.shape[1]
        statistic = f_statistics(features, columns, n_given)
        p_value = f_law.sf(statistic, rank, len(level.cells) - n_given - rank)
    q_value = false_discovery_control(np.where(np.isnan(p_value), 1.0, p_value))
    carries = (q_value <= _SIGNIFICANT) & (effect >= IDENTIFIABLE) & (effect >= label_effect)
    # those that carry more of the label may stand between: they come later
    order = np.concatenate([order[carries[order]], order[~carries[order]]])
    return Order(order, order[: min(int(carries.sum()), len(order) - 1)])


class Read(NamedTuple):
    """What readers make of one split behind one map."""

    errors: np.ndarray  # (N, 2): squared errors of the factor, plain and given the label
    spread: np.ndarray  # (N, 2): squared deviations of the targets
    right: np.ndarray  # (N,) whether the task's class is read correctly, or what adds to its score

    @property
    def r_squared(self) -> np.ndarray:
        """Plain and given the label, (2,)."""
        return _r_squared(self.errors.sum(axis=0), self.spread.sum(axis=0))


class Judged(NamedTuple):
    """Rows of one split that are read, and what is to be read."""

    features: np.ndarray  # (N, D)
    mean: np.ndarray  # (D,) of train
    label: Label
    explained: tuple[np.ndarray, np.ndarray]  # what the label does of this split's features
    truth: np.ndarray
    targets: np.ndarray  # (N, T)
    targets_within: np.ndarray
    spread: np.ndarray  # as of `Read`

    def centred(self, rows: slice) -> np.ndarray:
        """Return rows less the means of train, in float64."""
        return self.features[rows].astype(np.float64) - self.mean

    def within(self, rows: slice) -> np.ndarray:
        """Return rows less what the label explains of them, in float64."""
        return self.features[rows].astype(np.float64) - self.label.fitted(self.explained, rows)


class Readings:
    """Readers of the factor and of the task, fitted on train behind any linear map."""

    def __init__(
        self,
        task: Task,
        targets: np.ndarray,
        judged: list[tuple[Split, np.ndarray]],
        space: Basis | None,
        penalty: float,
        score: str,
    ) -> None:
        features, own, precision = task.train.features, task.train.target, task.run.precision
        self._n_targets, self._score = targets.shape[1], score
        self._of_classes = task.kind == CLASSES
        given: dict[str, Any] = {"codes": own} if self._of_classes else {}
        joint = targets if self._of_classes else np.hstack([targets, own])
        self._joint = RidgeMoments.of(features, joint, precision, **given)
        self._within = RidgeMoments.of(features, targets, precision, within=Label.of(own))
        self._penalty = penalty
        self._space = space
        self._back = None if space is None else np.linalg.pinv(space.directions)
        self._weights: list[np.ndarray] = []
        self._own: list[np.ndarray] = []
        self._predicted: list[list[np.ndarray]] = []  # of readers other than ridge
        self._judged = [self._prepared(side, values) for side, values in judged]
        reader = task.reader
        self.in_closed_form = isinstance(reader, Ridge) and reader.penalty == penalty
        self._task = task if self.in_closed_form else task.settled()

    def _prepared(self, side: Split, values: np.ndarray) -> Judged:
        label = Label.of(side.target)
        within, deviation = label.without(values), values - values.mean(axis=0)
        spread = np.column_stack([(deviation**2).sum(axis=1), (within**2).sum(axis=1)])
        known = side.features, self._joint.mean, label, label.fit(side.features)
        return Judged(*known, side.target, values, within, spread)

    def map_of(self, job: Job) -> Map:
        """Return the map that takes off what a job removes, as train has it."""
        if job.way == NOTHING:
            return None
        if job.way in (LEACE, LEACE_GIVEN_LABEL):
            moments = self._within if job.way == LEACE_GIVEN_LABEL else self._joint
            cross = moments.cross[:, : self._n_targets] / moments.n_samples
            return least_squares_eraser(moments.gram / moments.n_samples, cross)
        if job.way in (DIMENSIONS, RANDOM_DIMENSIONS) or self._space is None or self._back is None:
            return np.setdiff1d(np.arange(len(self._joint.mean)), job.chosen)
        return without_directions(self._space.directions, self._back, job.chosen)

    def fit_behind(self, job: Job) -> int:
        """Fit all readers behind one more map; return how many directions it takes off."""
        map_ = self.map_of(job)
        self._weights.append(self._joint.weights_behind(map_, self._penalty))
        self._own.append(self._within.weights_behind(map_, self._penalty))
        if not self.in_closed_form:
            train = self._task.train
            mapped = train._replace(features=self._joint.rows_behind(train.features, map_))
            fitted = self._task.aside(mapped, mapped).fit()
            wide = (each.features.astype(np.float64) for each in self._judged)
            seen = (self._joint.rows_behind(each, map_) for each in wide)
            read = fitted.classify if self._of_classes else fitted.predict
            self._predicted.append([np.asarray(read(each)) for each in seen])
        return map_.rank if isinstance(map_, Removal) else len(job.chosen)

    def read(self) -> list[list[Read]]:
        """Read every split behind every map: one list a map, one entry a split."""
        of_splits = [self._read(place, judged) for place, judged in enumerate(self._judged)]
        return [list(each) for each in zip(*of_splits, strict=True)]

    def _read(self, place: int, judged: Judged) -> list[Read]:
        """Read one split behind all maps at once, in blocks of rows."""
        n_maps, n_targets, n_rows = len(self._weights), self._n_targets, len(judged.truth)
        weights, own = np.hstack(self._weights), np.hstack(self._own)
        errors = np.empty((n_maps, n_rows, 2))
        right = np.empty((n_maps, n_rows), dtype=bool if self._of_classes else float)
        for rows in blocks(n_rows, _ELEMENTS // (weights.shape[1] + own.shape[1])):
            logits = (judged.centred(rows) @ weights).reshape(
                -1, n_maps, weights.shape[1] // n_maps
            )
            logits += self._joint.target_mean
            within = (judged.within(rows) @ own).reshape(-1, n_maps, n_targets)
            for each, (values, found) in enumerate(
                ((judged.targets, logits[..., :n_targets]), (judged.targets_within, within))
            ):
                errors[:, rows, each] = ((values[rows, None] - found) ** 2).sum(axis=2).T
            if self._of_classes and not self._predicted:
                right[:, rows] = first_of_tied(logits[..., n_targets:]).T == judged.truth[rows]
        if self._of_classes and self._predicted:
            right = np.array([each[place] == judged.truth for each in self._predicted])
        elif not self._of_classes:
            for m in range(n_maps):
                found = self._predicted[m][place] if self._predicted else self._values(m, judged)
                right[m] = contributions_of(found[:, None], judged.truth, self._score)[:, 0]
        return [Read(errors[m], judged.spread, right[m]) for m in range(n_maps)]

    def _values(self, map_: int, judged: Judged) -> np.ndarray:
        """Return what the ridge reader behind a map makes of the task's targets, (N, T)."""
        weights = self._weights[map_][:, self._n_targets :]
        parts = blocks(len(judged.truth), _ELEMENTS // judged.features.shape[1])
        found = np.vstack([judged.centred(rows) @ weights for rows in parts])
        return found + self._joint.target_mean[self._n_targets :]


def in_common_units(
    train: Representation, judged: dict[str, Representation]
) -> tuple[Representation, dict[str, Representation]]:
    """Divide each split's features by one power of two, so that squares stay within float64."""
    size = float(max(np.abs(each.features).max() for each in (train, *judged.values())))
    exponent = int(np.floor(np.log2(size))) if size > 0 else 0
    if abs(exponent) < _EXTREME:
        return train, judged

    def scaled(split: Representation) -> Representation:
        features = np.ldexp(split.features.astype(np.float64), -exponent)
        meta = {**split.meta, "precision": split.precision}
        return replace(split, features=features, views=None, view_factors={}, meta=meta)

    return scaled(train), {name: scaled(split) for name, split in judged.items()}


def targets_of(
    splits: Mapping[str, Representation], factor: str
) -> tuple[str, dict[str, np.ndarray]]:
    """Columns of the factor that a reader is to tell, of every split: (N, T)."""
    kind = ""
    for name, split in splits.items():
        if factor not in split.factors:
            known = ", ".join(map(repr, split.factors)) or "none"
            raise Refusal(
                f"factor must be in every split; got {factor!r}, where {name} has {known}."
            )
        if split.meta.get("per_view"):
            raise Refusal(
                f"{name} must have one row a sample, or intervals would be too narrow; got stacked "
                "views. Pass the representation that per_view() was called on."
            )
        other = kind_of(split, factor)
        kind = kind or other
        if other != kind:
            raise Refusal(f"{name} must have {factor!r} as a {kind} factor; got {other}.")
        values = split.factors[factor]
        if (values == values[0]).all():
            raise Refusal(
                f"{name} must vary in {factor!r}, or there is nothing to read; got one value."
            )
        if kind == "categorical":
            unknown = np.setdiff1d(values, splits["train"].factors[factor])
            if len(unknown):
                raise Refusal(
                    f"{name} must have the categories of {factor!r} that train has; got "
                    f"{unknown[0]!s}."
                )
    own, periods = splits["train"].factors[factor], splits["train"].periods

    def columns(values: np.ndarray) -> np.ndarray:
        if kind == "categorical":
            return (values[:, None] == np.unique(own)).astype(np.float64)
        if kind == "periodic":
            angle = 2 * np.pi * values / periods[factor]
            return np.stack([np.cos(angle), np.sin(angle)], axis=1)
        size = float(np.abs(own).max())
        centre, spread = float((own / size).mean() * size), float((own / size).std() * size)
        return ((values - centre) / spread)[:, None]

    return kind, {name: columns(split.factors[factor]) for name, split in splits.items()}


def _r_squared(errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """One minus error over spread, clipped at 0; 0 where there is nothing to tell."""
    return np.clip(1 - errors / np.where(spread > 0, spread, np.inf), 0, 1) * (spread > 0)


def of_heads(
    heads: list[tuple[Job, int, list[Read]]],
    clusters: list[np.ndarray | None],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Values and changes of the named ways, and of the random ones together."""
    by_way: dict[str, list[tuple[int, list[Read]]]] = {}
    for job, taken, read in heads:
        by_way.setdefault(job.way, []).append((taken, read))
    n_splits, n_ways = len(heads[0][2]), len(by_way)
    r_squared, lost = np.empty((n_ways, n_splits, 2)), np.zeros((n_ways, n_splits, 2, 3))
    accuracy, change = np.empty((n_ways, n_splits)), np.zeros((n_ways, n_splits, 3))
    base = heads[0][2]
    for s in range(n_splits):
        single = [w for w, drawn in enumerate(by_way.values()) if len(drawn) == 1]
        columns = [base[s].spread]
        for w, drawn in enumerate(by_way.values()):
            reads = [read[s] for _, read in drawn]
            values = np.array([read.r_squared for read in reads])
            rights = np.array([read.right.mean() for read in reads])
            r_squared[w, s], accuracy[w, s] = values.mean(axis=0), rights.mean()
            lost[w, s, :, 0] = base[s].r_squared - values.mean(axis=0)
            change[w, s, 0] = rights.mean() - base[s].right.mean()
            if w in single:
                columns.append(reads[0].errors)
            if w == 0:  # nothing against itself
                change[w, s, 1:] = np.nan
            elif w in single:
                gained = difference(reads[0].right, base[s].right)
                change[w, s, 1:] = np.ravel(paired_interval(gained, clusters[s]))
            else:
                tail = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
                lost[w, s, :, 1:] = np.quantile(base[s].r_squared - values, tail, axis=0).T
                change[w, s, 1:] = np.quantile(rights - base[s].right.mean(), tail)
        sums = bootstrap_sums(np.hstack(columns), rng, n_bootstrap, clusters[s])
        spread, errors = sums[:, :2], sums[:, 2:].reshape(n_bootstrap, -1, 2)
        drawn_values = _r_squared(errors, spread[:, None])
        falls = np.quantile(
            drawn_values[:, :1] - drawn_values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0
        )
        if clusters[s] is not None:  # as Student's quantile is to the normal one
            wider = cluster_quantile(clusters[s], _LEVEL) / cluster_quantile(None, _LEVEL)
            falls = lost[single, s, :, 0] + wider * (falls - lost[single, s, :, 0])
        lost[single, s, :, 1:] = np.moveaxis(falls, 0, -1)
        lost[0, s, :, 1:] = np.nan
    return {
        "ways": tuple(by_way),
        "n_removed": np.array([drawn[0][0] for drawn in by_way.values()]),
        "factor_r_squared": r_squared[..., 0],
        "factor_r_squared_given_label": r_squared[..., 1],
        "accuracy": accuracy,
        "factor_lost": lost[:, :, 0],
        "given_label_lost": lost[:, :, 1],
        "accuracy_change": change,
    }


def of_sweep(
    rest: list[tuple[Job, int, list[Read]]], splits: list[str], score: str
) -> dict[str, np.ndarray]:
    """One entry a (way, size, split); of random ways the mean."""
    together: dict[tuple[str, int, str], list[tuple[float, float, float]]] = {}
    for job, taken, reads in rest:
        for split, read in zip(splits, reads, strict=True):
            values = (*read.r_squared.tolist(), float(read.right.mean()))
            together.setdefault((job.way, taken, split), []).append(values)
    means = np.array([np.mean(values, axis=0) for values in together.values()]).reshape(-1, 3)
    keys = list(together)
    return {
        "way": np.array([way for way, _, _ in keys]),
        "n_removed": np.array([count for _, count, _ in keys], dtype=np.int64),
        "split": np.array([split for _, _, split in keys]),
        "factor_r_squared": means[:, 0],
        "given_label_r_squared": means[:, 1],
        score: means[:, 2],
    }
