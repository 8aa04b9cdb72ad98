"""Erasure: what a reader of a factor, and the task, lose when the factor is taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dimlab.basis import KINDS, Basis, fit_basis
from dimlab.clusters import ClustersLike, cluster_ids
from dimlab.kernels.effects import f_statistics, without_class_means
from dimlab.kernels.erasure import (
    Removal,
    RidgeMoments,
    least_squares_eraser,
    without_directions,
)
from dimlab.kernels.means import bootstrap_sums
from dimlab.kernels.paired import cluster_quantile, paired_interval
from dimlab.probes._factors import IDENTIFIABLE, Factors, centred_features, kind_of
from dimlab.probes._reading import (
    AXES,
    ReaderLike,
    Reading,
    Rows,
    basis_of,
    check_choice,
    coded,
    documented,
    plain,
    said_of_rows,
)
from dimlab.readers.base import Progress, Split, classify
from dimlab.readers.linear import check_penalty
from dimlab.readers.ridge import Ridge
from dimlab.representation import Representation

NOTHING = "nothing"
DIMENSIONS, RANDOM_DIMENSIONS = "dimensions", "random dimensions"
DIRECTIONS, RANDOM_DIRECTIONS = "directions", "random directions"
LEACE, LEACE_GIVEN_LABEL = "LEACE", "LEACE given label"
_LEVEL = 0.95
_READABLE = 0.01  # R^2 of a factor that a reader finds at all
_FOLDS = 5
_EXTREME = 100  # of two: squares of features beyond are not trusted to float64
_SIGNIFICANT = 0.05
_ELEMENTS = 1 << 22  # of predictions at once
_TIED = 1e-9  # lead of a class's one-hot reading that is rounding once what told them apart is out
_DECIMALS = 10  # of effects that are put in order
_OF_SWEEP = 5  # draws of the random ways at each size of the sweep


@dataclass(frozen=True, eq=False)
class Erasure:
    """What remains of a factor and of the task after each of W ways of removal, on S splits.

    Parameters
    ----------
    factor, kind : str
        The factor; ``continuous``, ``periodic`` or ``categorical``.
    ways : tuple of str
        ``nothing``, then by the factor's ``dimensions``, as many ``random dimensions``, its
        ``directions`` in a fitted basis, as many ``random directions``, ``LEACE`` (all that a
        linear reader of train finds) and ``LEACE given label`` (all that it finds within classes).
    n_removed : ndarray of shape (W,), int
        Dimensions or directions taken out: the rank of what the map takes off.
    dimensions, directions : ndarray of shape (n,), int
        Which were named, of largest effect on train first.
    splits : tuple of str
        ``test``, and ``in distribution`` where one was given.
    factor_r_squared, factor_r_squared_given_label : ndarray of shape (W, S)
        R^2 of a ridge reader of the factor, clipped at 0; of random ways the mean over draws.
    accuracy : ndarray of shape (W, S)
        Of a task reader fitted again on train after the removal.
    factor_lost, given_label_lost, accuracy_change : ndarray of shape (W, S, 3)
        Fall of the factor's R^2 and rise of accuracy against ``nothing``, with 95 % bounds:
        bootstrap over test samples for R^2, Tango's for accuracy, of random ways the central 95 %
        of the draws; ``nothing`` has none.
    sweep : dict of str to ndarray of shape (n,)
        One entry a (way, size, split): ``way, n_removed, split, factor_r_squared,
        given_label_r_squared, accuracy``. Empty where the task reader is not ridge.
    reader, basis : str
        Task reader; basis of the directions.
    n_train : int
        Train samples.
    n_test : tuple of int
        Samples of each split.
    n_random : int
        Draws of the random ways.
    sample : str
        Which part of the test split was used; empty: all of it.
    clusters : mapping of str to int
        ``n_clusters`` and the size of the ``largest``, of test rows; empty: rows are independent.
    caution : str
        What keeps the accuracies on test from meaning what they usually do; empty: nothing.

    References
    ----------
    Tango, Statistics in Medicine 17, 1998; those of `erase`, which measures it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, size = np.arange(200) % 2, rng.normal(size=200)
    >>> features = rng.normal(size=(200, 3)) + np.outer(size, [3, 0, 0])
    >>> features += np.outer(labels, [0, 4, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> erasure = erase(split, split, factor="size", n_random=3)
    >>> frame = erasure.to_frame().set_index("way")
    >>> frame["factor_r_squared"].round(1)[["nothing", "dimensions", "LEACE"]].tolist()
    [0.9, 0.0, 0.0]
    >>> erasure.summary()["in_words"][0][:34], list(erasure.tables())
    ('Without 1 dimensions (test) R^2 of', ['sweep'])
    """

    factor: str
    kind: str
    ways: tuple[str, ...]
    n_removed: np.ndarray
    dimensions: np.ndarray
    directions: np.ndarray
    splits: tuple[str, ...]
    factor_r_squared: np.ndarray
    factor_r_squared_given_label: np.ndarray
    accuracy: np.ndarray
    factor_lost: np.ndarray
    given_label_lost: np.ndarray
    accuracy_change: np.ndarray
    sweep: Mapping[str, np.ndarray]
    reader: str
    basis: str
    n_train: int
    n_test: tuple[int, ...]
    n_random: int
    sample: str = ""
    clusters: Mapping[str, int] = field(default_factory=dict)
    caution: str = ""

    def to_frame(self) -> Any:
        """Return one row a (split, way).

        Returns
        -------
        pandas.DataFrame
            ``split, way, n_removed, factor_r_squared, factor_lost, factor_lost_low,
            factor_lost_high, given_label_r_squared, given_label_lost, given_label_lost_low,
            given_label_lost_high, accuracy, accuracy_change, accuracy_change_low,
            accuracy_change_high``.
        """
        import pandas as pd

        rows = []
        for s, split in enumerate(self.splits):
            for w, way in enumerate(self.ways):
                row = {"split": split, "way": way, "n_removed": int(self.n_removed[w])}
                for name, value, change in (
                    ("factor", self.factor_r_squared, self.factor_lost),
                    ("given_label", self.factor_r_squared_given_label, self.given_label_lost),
                ):
                    row[f"{name}_r_squared"] = value[w, s]
                    row |= _bounds(f"{name}_lost", change[w, s])
                row["accuracy"] = self.accuracy[w, s]
                row |= _bounds("accuracy_change", self.accuracy_change[w, s])
                rows.append(row)
        return pd.DataFrame(rows)

    def tables(self) -> dict[str, Any]:
        """Return the sweep over the number of dimensions and directions removed.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``sweep``, empty where the task reader is not ridge.
        """
        import pandas as pd

        return {"sweep": pd.DataFrame(dict(self.sweep))}

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was removed; for each split and way the R^2 of the factor and the accuracy with
            their changes ``[value, low, high]``; sentences that say what follows.
        """
        splits = {}
        for s, split in enumerate(self.splits):
            splits[split] = {
                way: {
                    "factor_r_squared": float(self.factor_r_squared[w, s]),
                    "factor_lost": plain(self.factor_lost[w, s].tolist()),
                    "accuracy": float(self.accuracy[w, s]),
                    "accuracy_change": plain(self.accuracy_change[w, s].tolist()),
                }
                for w, way in enumerate(self.ways)
            }
        return {
            "factor": self.factor,
            "kind": self.kind,
            "reader": self.reader,
            "directions_of": self.basis,
            **said_of_rows(self),
            "n_train": self.n_train,
            "n_test": list(self.n_test),
            "n_random": self.n_random,
            "dimensions": self.dimensions.tolist(),
            "directions": self.directions.tolist(),
            "splits": splits,
            "in_words": self._in_words(),
        }

    def _in_words(self) -> list[str]:
        sentences = []
        for way, control in ((DIMENSIONS, RANDOM_DIMENSIONS), (DIRECTIONS, RANDOM_DIRECTIONS)):
            if way not in self.ways:
                sentences.append(
                    f"No {way} carry more of {self.factor} than of the label on train: none "
                    "removed."
                )
                continue
            w, c = self.ways.index(way), self.ways.index(control)
            for s, split in enumerate(self.splits):
                lost, change = self.factor_lost[w, s], self.accuracy_change[w, s]
                sentences.append(
                    f"Without {self.n_removed[w]} {way} ({split}) R^2 of {self.factor} falls by "
                    f"{lost[0]:.3f} [{lost[1]:.3f}, {lost[2]:.3f}] (random ones "
                    f"{self.factor_lost[c, s, 0]:.3f}), accuracy changes by {change[0]:+.4f} "
                    f"[{change[1]:+.4f}, {change[2]:+.4f}] (random ones "
                    f"{self.accuracy_change[c, s, 0]:+.4f})."
                )
        for s, split in enumerate(self.splits):
            if self.factor_r_squared[0, s] < _READABLE:
                sentences.append(
                    f"A linear reader of train tells {self.factor} from no features of {split} "
                    "(R^2 below 0.01 before any removal): what falls by removal says nothing."
                )
        return sentences


@documented
def erase(
    train: Representation,
    test: Representation,
    *,
    factor: str,
    in_distribution: Representation | None = None,
    n_removed: int | None = None,
    basis: str = "pca",
    reader: ReaderLike = "ridge",
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    clusters: ClustersLike = None,
    n_random: int = 20,
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Erasure:
    """Take a factor out of the features in three ways and measure what is lost, and what gained.

    Parameters
    ----------
    train : Representation
        Labelled rows with the factor, on which everything is chosen and fitted.
    test : Representation
        Labelled rows of the same D dimensions with the factor, which may depend on the label
        otherwise: on them everything is judged.
    factor : str
        Its name.
    in_distribution : Representation, optional
        Held-out samples like train, to be judged beside ``test``.
    n_removed : int, optional
        Dimensions, and directions, to remove: those of largest effect on train. By default all
        whose effect of the factor is at least 0.01 and that of the label, with q <= 0.05 (F test).
    basis : {"pca", "whiten", "varimax", "ica"}, default="pca"
        Directions to choose from, fitted on train.
    reader : str or object, default="ridge"
        Task reader, as in `ablate`, fitted again after each removal.
    penalty : float, default=1e-3
        Ridge, and the reader of the factor: > 0.
    clusters : str, ndarray of shape (N_test,), or pair of ndarray, optional
        Which rows belong together: a factor that every split has, values of the test rows, or of
        train and test rows; with ``in_distribution`` a factor. By default rows are independent.
    n_random : int, default=20
        Draws of as many random dimensions and directions, >= 1.
    n_bootstrap : int, default=1000
        Samples of the bootstrap, >= 1.
    seed : int, default=0
        Deals folds; draws dimensions, directions and bootstrap samples.

    Returns
    -------
    Erasure
        Three ways beside each other, and beside as many random dimensions and directions.

    Raises
    ------
    ValueError
        If labels are missing, D or the basis differs, a split lacks the factor or has it in another
        kind, the factor follows from the label, clusters are arrays beside ``in_distribution``, a
        name is unknown, or a number is out of its range, or the device is not there.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    The factor's targets are its value (continuous), cosine and sine (periodic) or one column a
    category. Its reader is ridge, fitted again behind every removal; *given label* it is fitted and
    judged on features and targets without class means, so it cannot read the factor off the label.
    R^2 is one minus squared error over variance on the judged split, and clipped at 0.

    LEACE [1]_ is the smallest linear change after which no linear reader of train does better than
    a constant: the upper bound of what linear removal can do, and it takes along what of the label
    goes with the factor. *Given label* uses moments within classes, and leaves that.

    Bounds condition on train and on what was chosen there. With clusters, folds and bootstrap
    samples hold whole clusters, Tango's interval has the variance between them, and the factor is
    tested on means of train clusters unless it varies within them.

    References
    ----------
    .. [1] Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, size = np.arange(300) % 2, rng.normal(size=300)
    >>> features = rng.normal(size=(300, 4)) + np.outer(size, [3, 0, 0, 0])
    >>> features += np.outer(labels, [0, 3, 0, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> result = erase(split, split, factor="size")
    >>> result.dimensions.tolist()
    [0]
    >>> bool(result.factor_lost[1, 0, 0] > 0.8)
    True
    """
    check_penalty(penalty)
    of_task = penalty if isinstance(reader, str) else 1e-3  # an object has its own
    reading = Reading.of(
        reader, k=k, temperature=temperature, penalty=of_task, seed=seed, device=device
    )
    check_choice("basis", basis, KINDS)
    settings = (("n_random", n_random, 1), ("n_bootstrap", n_bootstrap, 1), ("seed", seed, 0))
    for name, value, least in settings:
        if value < least:
            raise ValueError(f"{name} must be >= {least}; got {value}.")
    if n_removed is not None and not 1 <= n_removed < train.n_dimensions:
        raise ValueError(
            f"n_removed must lie in 1..{train.n_dimensions - 1}, to leave a dimension; got "
            f"{n_removed}."
        )
    reading = reading.within("erase", train, 33 * train.features.size + 26 * test.features.size)
    judged = {"test": test}
    rows = Rows.of(train, test, clusters)
    ids = [rows.test]
    if in_distribution is not None:
        if not (clusters is None or isinstance(clusters, str)):
            raise ValueError(
                "clusters must name a factor of every split where in_distribution is given; got "
                "arrays. Add them to factors= of each Representation."
            )
        judged["in distribution"] = in_distribution
        ids.append(cluster_ids(in_distribution, clusters))
    train, judged = _in_common_units(train, judged)
    kind, targets = _targets_of({"train": train, **judged}, factor)
    coded_splits = [coded(train, split, "erase") for split in judged.values()]
    codes = coded_splits[0][1][1]
    rng = np.random.default_rng(seed)
    orders = {DIMENSIONS: _by_effect(train, factor, n_removed, rows.train, rng)}
    space = fit_basis(train, basis, seed=seed) if basis_of(train) == AXES else None
    if space is not None:
        orders[DIRECTIONS] = _by_effect(space.apply(train), factor, n_removed, rows.train, rng)
    readings = _Readings(
        (train.features, codes, targets["train"]),
        [
            (split.features, truth, targets[name])
            for (name, split), (_, _, (_, truth, _)) in zip(
                judged.items(), coded_splits, strict=True
            )
        ],
        reading, penalty, train.precision,
    )  # fmt: skip
    jobs = _jobs(orders, space, train.n_dimensions, n_random, readings.in_closed_form, rng)
    back = np.zeros((0, 0)) if space is None else np.linalg.pinv(space.directions)
    taken = []
    for done, job in enumerate(jobs):
        map_ = job.map_of(readings, space, back)
        readings.fit_behind(map_)
        taken.append(map_.rank if isinstance(map_, Removal) else len(job.chosen))
        if progress is not None:
            progress(done + 1, len(jobs))
    done_jobs = list(zip(jobs, taken, readings.read(), strict=True))
    none = np.array([], dtype=np.int64)
    return Erasure(
        factor=factor,
        kind=kind,
        dimensions=orders[DIMENSIONS].chosen,
        directions=orders[DIRECTIONS].chosen if space is not None else none,
        splits=tuple(judged),
        **_of_heads([each for each in done_jobs if not each[0].of_sweep], ids, n_bootstrap, rng),
        sweep=_of_sweep([each for each in done_jobs if each[0].of_sweep], list(judged)),
        reader=reading.name,
        basis=basis if space is not None else basis_of(train),
        n_train=len(train),
        n_test=tuple(map(len, judged.values())),
        n_random=n_random,
        **rows.said,
    )


@dataclass(frozen=True, eq=False)
class _Order:
    """Dimensions by falling effect on train, of which the first ``count`` are named."""

    order: np.ndarray
    count: int

    @property
    def chosen(self) -> np.ndarray:
        return self.order[: self.count]


@dataclass(frozen=True, eq=False)
class _Job:
    """One removal: of dimensions, of directions, or by LEACE."""

    way: str
    chosen: np.ndarray
    of_sweep: bool = False

    def map_of(
        self, readings: _Readings, space: Basis | None, back: np.ndarray
    ) -> Removal | np.ndarray | None:
        if self.way == NOTHING:
            return None
        if self.way in (LEACE, LEACE_GIVEN_LABEL):
            return readings.eraser(given_label=self.way == LEACE_GIVEN_LABEL)
        if self.way in (DIMENSIONS, RANDOM_DIMENSIONS) or space is None:
            return np.setdiff1d(np.arange(readings.n_dimensions), self.chosen)
        return without_directions(space.directions, back, self.chosen)


def _jobs(
    orders: Mapping[str, _Order],
    space: Basis | None,
    n_dimensions: int,
    n_random: int,
    sweeps: bool,
    rng: np.random.Generator,
) -> list[_Job]:
    """List all removals, those of the sweep last."""
    nothing = np.array([], dtype=np.int64)
    heads, rest = [_Job(NOTHING, nothing)], [_Job(NOTHING, nothing, of_sweep=True)]
    for way, order in orders.items():
        pool = n_dimensions if way == DIMENSIONS or space is None else space.directions.shape[1]
        if order.count:
            heads.append(_Job(way, order.chosen))
            heads += [
                _Job(f"random {way}", rng.permutation(pool)[: order.count]) for _ in range(n_random)
            ]
        size = 1
        while sweeps and size < pool:
            rest.append(_Job(way, order.order[:size], of_sweep=True))
            rest += [
                _Job(f"random {way}", rng.permutation(pool)[:size], of_sweep=True)
                for _ in range(min(n_random, _OF_SWEEP))
            ]
            size *= 2
    heads += [_Job(LEACE, nothing), _Job(LEACE_GIVEN_LABEL, nothing)]
    return heads + (rest if sweeps else [])


def _by_effect(
    train: Representation,
    factor: str,
    n_removed: int | None,
    clusters: np.ndarray | None,
    rng: np.random.Generator,
) -> _Order:
    """Order dimensions by the factor's effect on train; name those that carry it, not the label."""
    from scipy.stats import f as f_law
    from scipy.stats import false_discovery_control

    if train.labels is None:
        raise ValueError("erase needs labels: build the Representation with labels=(N,) class ids.")
    factors = Factors.of(train, train.labels, [factor], clusters)
    if not factors.identifiable[0]:
        raise ValueError(
            f"factor must vary within classes of train, or it cannot be told from the label; got "
            f"{factor!r}, of whose variance {factors.left_given_label[0]:.2%} is left."
        )
    features, within, _ = centred_features(train, factors.codes)
    found = factors.effects(features, within, factors.deal(_FOLDS, rng))
    effect, label_effect = np.nan_to_num(found.given_label[:, 0]), np.nan_to_num(found.of_label)
    order = np.argsort(-effect.round(_DECIMALS), kind="stable")
    if n_removed is not None:
        return _Order(order, min(n_removed, len(order) - 1))
    p_value = np.ones(len(order))
    for level in factors.levels(within):  # at most one: rows, or clusters, that a factor is told by
        columns = level.columns[level.tested[0]]
        n_cells, rank = int(level.cells.max()) + 1, columns.shape[1]
        statistic = f_statistics(level.features, columns, n_cells)
        p_value = f_law.sf(statistic, rank, len(level.cells) - n_cells - rank)
    q_value = false_discovery_control(np.where(np.isnan(p_value), 1.0, p_value))
    carries = (q_value <= _SIGNIFICANT) & (effect >= IDENTIFIABLE) & (effect >= label_effect)
    # those that carry more of the label may stand between: they come later
    order = np.concatenate([order[carries[order]], order[~carries[order]]])
    return _Order(order, min(int(carries.sum()), len(order) - 1))


class _Read:
    """What readers make of one split behind one map."""

    def __init__(self, errors: np.ndarray, spread: np.ndarray, right: np.ndarray) -> None:
        self.errors = errors  # (N, 2): squared errors of the factor, plain and given the label
        self.spread = spread  # (N, 2): squared deviations of the targets
        self.right = right  # (N,) bool: task samples read correctly

    @property
    def r_squared(self) -> np.ndarray:
        """Plain and given the label, (2,)."""
        return _r_squared(self.errors.sum(axis=0), self.spread.sum(axis=0))


class _Readings:
    """Readers of the factor and of the task, fitted on train behind any linear map."""

    def __init__(
        self,
        train: tuple[np.ndarray, np.ndarray, np.ndarray],
        judged: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
        reading: Reading,
        penalty: float,
        precision: str,
    ) -> None:
        features, codes, targets = train
        self.n_dimensions = features.shape[1]
        self._n_targets = targets.shape[1]
        onehot = np.eye(int(codes.max()) + 1)[codes]
        self._joint = RidgeMoments.of(features, np.hstack([targets, onehot]), precision)
        self._within = RidgeMoments.of(
            without_class_means(features, codes), without_class_means(targets, codes), precision
        )
        self._penalty = penalty
        self._weights: list[np.ndarray] = []
        self._own: list[np.ndarray] = []
        self._predicted: list[list[np.ndarray]] = []  # of readers other than ridge
        self._judged = []
        for rows, truth, values in judged:
            own = np.unique(truth, return_inverse=True)[1]
            within = without_class_means(values, own)
            deviation = values - values.mean(axis=0)
            spread = np.column_stack([(deviation**2).sum(axis=1), (within**2).sum(axis=1)])
            centred = rows.astype(np.float64) - self._joint.mean
            self._judged.append(
                (centred, without_class_means(rows, own), truth, values, within, spread)
            )
        task = reading.reader
        self.in_closed_form = isinstance(task, Ridge) and task.penalty == penalty
        self._train = Split(features, codes, precision)
        self._reading = reading if self.in_closed_form else reading.chosen(self._train)

    def eraser(self, *, given_label: bool) -> Removal:
        """Map that LEACE gives on train."""
        moments = self._within if given_label else self._joint
        cross = moments.cross[:, : self._n_targets]
        return least_squares_eraser(moments.gram / moments.n_samples, cross / moments.n_samples)

    def fit_behind(self, map_: Removal | np.ndarray | None) -> None:
        """Fit all readers behind one more map."""
        self._weights.append(self._joint.weights_behind(map_, self._penalty))
        self._own.append(self._within.weights_behind(map_, self._penalty))
        if self.in_closed_form:
            return
        mapped = self._train._replace(features=self._mapped(self._train.features, map_))
        fitted = self._reading.fit(mapped)
        self._predicted.append(
            [
                classify(fitted, self._mapped(each[0] + self._joint.mean, map_))
                for each in self._judged
            ]
        )

    def read(self) -> list[list[_Read]]:
        """Read every split behind every map, all maps at once in blocks of rows."""
        n_maps, n_targets = len(self._weights), self._n_targets
        weights, own = np.hstack(self._weights), np.hstack(self._own)
        found: list[list[_Read]] = [[] for _ in range(n_maps)]
        for place, (centred, within, truth, values, values_within, spread) in enumerate(
            self._judged
        ):
            errors = np.empty((n_maps, len(truth), 2))
            right = np.empty((n_maps, len(truth)), dtype=bool)
            step = max(1, _ELEMENTS // (weights.shape[1] + own.shape[1]))
            for start in range(0, len(truth), step):
                rows = slice(start, start + step)
                logits = (centred[rows] @ weights).reshape(-1, n_maps, weights.shape[1] // n_maps)
                logits += self._joint.target_mean
                gap = values[rows, None] - logits[..., :n_targets]
                errors[:, rows, 0] = (gap**2).sum(axis=2).T
                gap = values_within[rows, None] - (within[rows] @ own).reshape(
                    -1, n_maps, n_targets
                )
                errors[:, rows, 1] = (gap**2).sum(axis=2).T
                task = logits[..., n_targets:]
                first = (task >= task.max(axis=2, keepdims=True) - _TIED).argmax(axis=2)
                right[:, rows] = first.T == truth[rows]
            for each in range(n_maps):
                correct = self._predicted[each][place] == truth if self._predicted else right[each]
                found[each].append(_Read(errors[each], spread, correct))
        return found

    def _mapped(self, features: np.ndarray, map_: Removal | np.ndarray | None) -> np.ndarray:
        if map_ is None:
            return features
        if isinstance(map_, np.ndarray):
            left = np.tile(self._joint.mean, (len(features), 1))
            left[:, map_] = features[:, map_]
            return left
        mapped = map_.of_rows(features - self._joint.mean) + self._joint.mean
        gone = ~self._joint.left_by(map_)[1]  # what is left of them is the rounding of the map
        mapped[:, gone] = self._joint.mean[gone]
        return mapped


def _in_common_units(
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


def _targets_of(
    splits: Mapping[str, Representation], factor: str
) -> tuple[str, dict[str, np.ndarray]]:
    """Columns of the factor that a reader is to tell, of every split: (N, T)."""
    for name, split in splits.items():
        if factor not in split.factors:
            known = ", ".join(map(repr, split.factors)) or "none"
            raise ValueError(
                f"factor must be in every split; got {factor!r}, where {name} has {known}."
            )
        if split.meta.get("per_view"):
            raise ValueError(
                f"{name} must have one row a sample, or intervals would be too narrow; got stacked "
                "views. Pass the representation that per_view() was called on."
            )
    kinds = {name: kind_of(split, factor) for name, split in splits.items()}
    kind = kinds["train"]
    for name, other in kinds.items():
        if other != kind:
            raise ValueError(f"{name} must have {factor!r} as a {kind} factor; got {other}.")
    for name, split in splits.items():
        values = split.factors[factor]
        if (
            values.min() == values.max()
            if values.dtype.kind in "fiu"
            else len(np.unique(values)) == 1
        ):
            raise ValueError(
                f"{name} must vary in {factor!r}, or there is nothing to read; got one value."
            )
    if kind == "categorical":
        known_values = np.unique(splits["train"].factors[factor])
        for name, split in splits.items():
            unknown = [
                each for each in np.unique(split.factors[factor]) if each not in known_values
            ]
            if unknown:
                raise ValueError(
                    f"{name} must have the categories of {factor!r} that train has; got "
                    f"{unknown[0]!s}."
                )
        return kind, {
            name: (split.factors[factor][:, None] == known_values).astype(np.float64)
            for name, split in splits.items()
        }
    own = splits["train"].factors[factor]
    if kind == "continuous":
        size = float(np.abs(own).max())
        centre, spread = float((own / size).mean() * size), float((own / size).std() * size)
        return kind, {
            name: ((split.factors[factor] - centre) / spread)[:, None]
            for name, split in splits.items()
        }
    period = splits["train"].periods[factor]
    return kind, {
        name: np.stack(
            [f(2 * np.pi * split.factors[factor] / period) for f in (np.cos, np.sin)], axis=1
        )
        for name, split in splits.items()
    }


def _r_squared(errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """One minus error over spread, clipped at 0; 0 where there is nothing to tell."""
    return np.clip(1 - errors / np.where(spread > 0, spread, np.inf), 0, 1) * (spread > 0)


def _of_heads(
    heads: list[tuple[_Job, int, list[_Read]]],
    clusters: list[np.ndarray | None],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Values and changes of the named ways, and of the random ones together."""
    by_way: dict[str, list[tuple[int, list[_Read]]]] = {}
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
                gained = reads[0].right.astype(np.int8) - base[s].right
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


def _of_sweep(
    rest: list[tuple[_Job, int, list[_Read]]], splits: list[str]
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
        "accuracy": means[:, 2],
    }


def _bounds(name: str, triple: np.ndarray) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), triple.tolist(), strict=True))
