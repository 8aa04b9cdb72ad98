"""What every probe of readers is asked, checked once: a reader, labelled rows, how to compute."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np

from dimlab.clusters import ClustersLike, cluster_ids_of_pair, warning_of_copies
from dimlab.devices import check_budget, check_device, hold
from dimlab.kernels.blocks import blocks
from dimlab.kernels.collinearity import groups_of
from dimlab.moments import Moments
from dimlab.probes._arguments import Function, documented
from dimlab.probes._contributions import Contributions, contributions_of
from dimlab.processes import is_sharing, shared
from dimlab.readers.base import (
    Outcomes,
    Progress,
    Run,
    Split,
    as_reader,
    check_classes,
    check_kind,
    class_codes,
    running,
)
from dimlab.readers.linear import FILLS, OF_ALL_ROWS
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, detail, entry, scalar
from dimlab.targets import CLASSES, NAMES, as_kind, kind_of

_ELEMENTS = 1 << 22  # of predictions of several groups that are held together
_GROUPS = 64  # of which the outcomes are kept together
AXES = "axes"
SETTINGS = {"k": 5, "temperature": 1.0, "penalty": 1e-3}

GroupsLike = Sequence[Sequence[int] | np.ndarray] | np.ndarray
ReaderLike = Any  # a name, an object of dimlab.readers, or a scikit-learn classifier


class How(TypedDict, total=False):
    """Arguments that every probe of readers takes; their defaults are those of `Task.of`."""

    target_kind: str | None
    k: int
    temperature: float
    penalty: float
    clusters: ClustersLike
    seed: int
    device: str
    memory: float | None
    progress: Progress | None


def reads(function: Function) -> Function:
    """Show the arguments of `How` in a function's signature, and document them."""
    given, shared = inspect.signature(function), inspect.signature(Task.of).parameters
    own = [each for each in given.parameters.values() if each.kind is not each.VAR_KEYWORD]
    whole = given.replace(parameters=[*own, *(shared[name] for name in How.__annotations__)])
    vars(function)["__signature__"] = whole
    return documented(function)


@dataclass(frozen=True, eq=False)
class Task:
    """A reader that is not fitted yet, the rows and groups that it reads, and how it computes."""

    probe: str
    train: Split
    test: Split
    classes: np.ndarray
    groups: list[np.ndarray]
    of_rows: dict[str, Any]  # what results say of the rows
    settings: dict[str, Any]  # of readers that are named
    run: Run
    reader: Any = None
    refit: bool = True
    fill: str | None = None

    @classmethod
    def of(
        cls,
        probe: str,
        train: Representation,
        test: Representation,
        reader: ReaderLike,
        *,
        refit: bool | None = None,
        fill: str | None = None,
        groups: GroupsLike | None = None,
        target_kind: str | None = None,
        k: int = 5,
        temperature: float = 1.0,
        penalty: float = 1e-3,
        clusters: ClustersLike = None,
        seed: int = 0,
        device: str = "cpu",
        memory: float | None = None,
        progress: Progress | None = None,
    ) -> Task:
        """Check what a probe was given, and warn of what keeps scores from their usual meaning."""
        check_budget(memory)
        check_device(device)
        classes, fit, judge = coded(train, test, probe, target_kind)
        removed = checked_groups(groups, train.n_dimensions)
        train_ids, test_ids = cluster_ids_of_pair(train, test, clusters)
        caution = caution_of(test, test_ids)
        of_rows = {
            "basis": basis_of(train),
            "sample": sample_of(test),
            "clusters": counted(test_ids),
            "caution": caution,
            "n_train": len(train),
            "n_test": len(test),
            "n_dimensions": train.n_dimensions,
        }
        task = cls(
            probe, fit._replace(clusters=train_ids), judge._replace(clusters=test_ids), classes,
            removed, of_rows, {"k": k, "temperature": temperature, "penalty": penalty},
            Run(device, memory, seed, train.precision, progress),
        ).read_by(reader, refit, fill)  # fmt: skip
        if caution:
            warnings.warn(caution, UserWarning, stacklevel=3)
        return task

    def read_by(
        self, reader: ReaderLike, refit: bool | None = None, fill: str | None = None
    ) -> Task:
        """Return the task with another reader, and with what becomes of it without a group."""
        settings = self.settings
        if not isinstance(reader, str):  # its own settings stand; others beside it are refused
            settings = {name: each for name, each in settings.items() if each != SETTINGS[name]}
        made = as_reader(reader, run=self.run, **settings)
        check_kind(made, self.kind)
        if fill is not None:
            check_choice("fill", fill, FILLS)
        if not made.FREEZES and (refit is False or fill is not None):
            name, wanted = ("refit", "True") if fill is None else ("fill", "left out")
            raise Refusal(
                f"{name} must be {wanted} for reader {made.name!r}, which has no weights to freeze "
                f"and searches again (use ridge or logistic); got {fill or False!r}."
            )
        refit = made.REFITS if refit is None else bool(refit)
        if refit and fill is not None:
            raise Refusal(
                "fill must be left out where the reader is refitted (pass refit=False to freeze "
                f"it); got {fill!r}."
            )
        return replace(self, reader=made, refit=refit, fill=None if refit else fill or "mean")

    @property
    def kind(self) -> str:
        """Kind of the target."""
        return kind_of(self.train.target)

    @property
    def said(self) -> dict[str, Any]:
        """The fields of `Reads`."""
        return {"reader": self.reader.name, **self.of_rows}

    def holding(self, n_bytes: float) -> Task:
        """Refuse ``n_bytes`` of outcomes that do not fit; the reader may take what is left."""
        n_rows, n_dimensions = self.train.features.shape
        of_entry, of_square = self.reader.HOLDS
        held = n_bytes + (of_entry * n_rows + of_square * n_dimensions) * n_dimensions
        sizes = f"{n_rows} train rows of {n_dimensions} dimensions"
        remedy = "Pass fewer rows (--max-queries, --max-train)."
        left = hold(held, self.probe, sizes, remedy, memory=self.run.memory)
        run = replace(self.run, memory=left)
        return replace(self, run=run, reader=running(self.reader, run))

    def settled(self) -> Task:
        """Return the task with a reader whose settings are chosen on train once, for all refits."""
        if not hasattr(self.reader, "chosen"):
            return self
        reader = running(self.reader, self.run)
        return replace(self, reader=reader.chosen(self.train.features, self.train.target))

    def fit(self) -> Any:
        """Fit a copy of the reader on train."""
        return running(self.reader, self.run).fit(self.train.features, self.train.target)

    def outcomes(
        self,
        groups: list[np.ndarray] | None = None,
        *,
        fitted: Any = None,
        losses: bool = True,
    ) -> Outcomes:
        """Read test with everything and without each group, by default those of the call."""
        groups = self.groups if groups is None else groups
        run = replace(self.run, losses=losses)
        fitted = running(self.fit() if fitted is None else fitted, run)
        given, truth = self.test.features, self.test.target

        def read(rows: slice, removed: list[np.ndarray]) -> Outcomes:
            some, target = given[rows], truth[rows]
            found: Outcomes
            if self.fill is None:
                found = fitted.predict_without(some, removed, target=target)
            else:
                found = fitted.predict_filled(some, removed, fill=self.fill, target=target)
            return found

        if not is_sharing() or not groups:
            return read(slice(None), groups)
        if not self._of_groups:
            return Outcomes.of_parts(
                shared(len(truth), lambda rows: read(rows, groups).as_parts(losses))
            )
        whole = read(slice(None), [])

        def without(part: slice) -> list[np.ndarray]:
            found = read(slice(None), groups[part])
            return [found.ablated.T, found.ablated_loss.T][: 1 + losses]

        ablated, *loss = (each.T for each in shared(len(groups), without, step=_GROUPS))
        lost = loss[0] if loss else np.broadcast_to(np.nan, ablated.shape)
        return replace(whole, ablated=ablated, ablated_loss=lost)

    @property
    def _of_groups(self) -> bool:
        """Whether processes take shares of the groups: of refits, and where rows need all rows."""
        return self.reader.SLOW if self.fill is None else self.fill in OF_ALL_ROWS

    def values_of(self, fitted: Any, groups: list[np.ndarray]) -> np.ndarray:
        """Predict the targets of test without each group, (N, G, T)."""
        features = self.test.features

        def read(rows: slice, removed: list[np.ndarray]) -> np.ndarray:
            found: np.ndarray
            if self.fill is None:
                found = fitted.values_without(features[rows], removed)
            else:
                found = fitted.values_filled(features[rows], removed, fill=self.fill)
            return found

        if not self._of_groups:
            return shared(len(features), lambda rows: [read(rows, groups)])[0]
        of_groups = shared(
            len(groups), lambda part: [read(slice(None), groups[part]).swapaxes(0, 1)], step=_GROUPS
        )
        return of_groups[0].swapaxes(0, 1)

    def contributions(
        self, score: str, groups: list[np.ndarray] | None = None, *, fitted: Any = None
    ) -> Contributions:
        """Return what each test row adds to a score of real values or rankings."""
        groups = self.groups if groups is None else groups
        fitted = running(self.fit() if fitted is None else fitted, self.run)
        features, target = self.test.features, self.test.target

        def judged(some: list[np.ndarray]) -> np.ndarray:
            return contributions_of(self.values_of(fitted, some), target, score)

        nothing = [np.array([], dtype=np.int64)]
        full, found = None, np.empty((len(features), len(groups)))
        for part in blocks(len(groups), _ELEMENTS // target.size):
            # by the same arithmetic: what changes nothing differs by exactly 0
            some = judged(nothing + groups[part])
            full = some[:, 0] if full is None else full
            found[:, part] = full[:, None] - (some[:, :1] - some[:, 1:])
            if self.run.progress is not None and not self.reader.SLOW:
                self.run.progress(part.stop, len(groups))
        return Contributions(judged(nothing)[:, 0] if full is None else full, found)

    def judged(
        self, score: str, groups: list[np.ndarray], *, fitted: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what each row adds to accuracy, bool, or another score, (N,) and (N, G)."""
        if self.kind != CLASSES:
            found = self.contributions(score, groups, fitted=fitted)
            return found.full, found.ablated
        outcomes = self.outcomes(groups, fitted=fitted, losses=False)
        truth = self.test.target
        return outcomes.full == truth, outcomes.ablated == truth[:, None]

    def aside(self, train: Split, test: Split) -> Task:
        """Return the task on other rows or columns, without a word on its progress."""
        return replace(self, train=train, test=test, run=replace(self.run, progress=None))


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a name that is not among those allowed."""
    if value not in allowed:
        raise Refusal(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def check_least(least: int, **counts: int | None) -> None:
    """Refuse the first count that is given and too low."""
    for name, count in counts.items():
        if count is not None and count < least:
            raise Refusal(f"{name} must be >= {least}; got {count}.")


def labelled(
    train: Representation, test: Representation, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of two splits of the same dimensions, or say what is missing."""
    if train.n_dimensions != test.n_dimensions:
        raise Refusal(
            f"test must have {train.n_dimensions} dimensions to match train; got "
            f"{test.n_dimensions}."
        )
    if train.labels is None or test.labels is None:
        raise Refusal(f"{what} needs labels: build the Representation with labels=(N,) class ids.")
    return train.labels, test.labels


def coded(
    train: Representation, test: Representation, what: str, kind: str | None = CLASSES
) -> tuple[np.ndarray, Split, Split]:
    """Return the classes of train, and both splits with labels as indices into them."""
    # of another target no class, and the target as (N, T)
    given = labelled(train, test, what)
    if kind_of(given[0]) != kind_of(given[1]):
        raise Refusal(
            "labels must be of one kind in train and test; got "
            f"{' and '.join(NAMES[kind_of(each)] for each in given)}."
        )
    train_labels, test_labels = (as_kind(each, kind, np.unique(given[0])) for each in given)
    bases = basis_of(train), basis_of(test)
    if bases[0] != bases[1]:
        raise Refusal(
            f"test must be in the basis of train, {bases[0]}; got {bases[1]}. Apply the same Basis "
            "to both."
        )
    if kind_of(train_labels) != CLASSES:
        sides = tuple(each.reshape(len(each), -1) for each in (train_labels, test_labels))
        _check_targets(*sides)
        features = train.features, test.features
        fit, judge = (Split(x, y) for x, y in zip(features, sides, strict=True))
        return np.array([], dtype=np.int64), fit, judge
    check_classes("train", train_labels)
    classes, codes = np.unique(train_labels, return_inverse=True)
    truth = class_codes(test_labels, classes)
    return classes, Split(train.features, codes), Split(test.features, truth)


def _check_targets(train: np.ndarray, test: np.ndarray) -> None:
    """Refuse targets (N, T) of two widths, and those of which test could tell nothing."""
    if train.shape[1] != test.shape[1]:
        raise Refusal(
            f"labels of test must have {train.shape[1]} columns as those of train; got "
            f"{test.shape[1]}."
        )
    for name, each in (("train", train), ("test", test)):
        constant = np.flatnonzero(each.min(axis=0) == each.max(axis=0))
        if len(constant) == each.shape[1] or (len(constant) and each.dtype.kind == "f"):
            raise Refusal(
                f"labels of {name} must vary, or there is nothing to predict; got one value in "
                f"column {constant[0]}."
            )


def caution_of(test: Representation, clusters: np.ndarray | None) -> str:
    """Say what keeps the accuracy on test from meaning what it usually does; empty if nothing."""
    found = [warning_of_copies(test, clusters) or ""]
    if test.labels is not None and not np.ndim(test.labels[0]) and np.ptp(test.labels) == 0:
        found.append(
            f"All test samples are of class {test.labels[0]}: a reader that always answers it has "
            "accuracy 1, so no score here shows what the features tell. Test on several classes."
        )
    return " ".join(filter(None, found))


def counted(clusters: np.ndarray | None) -> dict[str, int] | None:
    """Count clusters as results say it; None where rows are independent."""
    sizes = None if clusters is None else np.bincount(clusters)
    return None if sizes is None else {"n_clusters": len(sizes), "largest": int(sizes.max())}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OfSample(Result):
    """What every result of features says of them."""

    basis: str = scalar("Basis of the dimensions; `axes` where none was fitted.", default=AXES)
    sample: str = scalar(
        "Which part of the split was used; empty: all of it.", optional=True, default=""
    )
    caution: str = scalar(
        "Why numbers may be biased, missing or mean something else than usual; empty: nothing.",
        optional=True,
        default="",
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Reads(OfSample):
    """What every result of a reader says: which reader, of which rows."""

    reader: str = scalar("Name of the reader, a probe classifier.")
    clusters: dict[str, int] | None = scalar(
        "`n_clusters` and the size of the `largest`, of test rows; None: rows are independent.",
        optional=True,
        default=None,
    )
    n_train: int = scalar("Train rows.")
    n_test: int = scalar("Test rows.")
    n_dimensions: int = scalar(
        "D, the number of dimensions; 0 in results of 0.6 that did not record it.",
        optional=True,
        default=0,
    )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ReadsGroups(Reads):
    """What results say that have one entry a group of dimensions."""

    groups: tuple[np.ndarray, ...] = detail(
        "Dimensions of each of the G groups, each an array of shape (n,)."
    )

    @entry
    def n_groups(self) -> int:
        """G, the number of groups."""
        return len(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def _named(self) -> list[str]:
        """Name the dimensions of each group, separated by spaces."""
        return [" ".join(map(str, group.tolist())) for group in self.groups]


def basis_of(representation: Representation | Moments) -> str:
    """Name the basis that a representation is in."""
    return str(representation.meta.get("basis", AXES))


def sample_of(test: Representation | Moments) -> str:
    """Say which part of the test split is used; empty where it is all of it."""
    return str(test.meta.get("sample", ""))


def checked_groups(groups: GroupsLike | None, n_dimensions: int) -> list[np.ndarray]:
    """Read groups given as index arrays, as one group id a dimension, or each dimension alone."""
    if groups is None:
        return list(np.arange(n_dimensions)[:, None])
    if isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "iu":
        if len(groups) != n_dimensions:
            raise Refusal(
                f"groups must have one id for each of the {n_dimensions} dimensions, or be a list "
                f"of index arrays; got {len(groups)} ids."
            )
        return groups_of(groups)
    if len(groups) == 0:
        raise Refusal("groups must hold at least one group; got none.")
    checked = []
    for position, group in enumerate(groups):
        index = np.asarray(group)
        if index.ndim != 1 or len(index) == 0 or index.dtype.kind not in "iu":
            raise Refusal(
                f"groups[{position}] must be a list of at least one dimension; got {group!r}."
            )
        if index.min() < 0 or index.max() >= n_dimensions:
            raise Refusal(
                f"groups[{position}] must lie in [0, {n_dimensions}); got "
                f"{index.min()}..{index.max()}."
            )
        checked.append(np.unique(index).astype(np.int64))
    return checked
