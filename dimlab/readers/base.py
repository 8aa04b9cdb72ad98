"""What a reader must do, and what it may do besides.

A reader must ``fit(features, target)`` and ``predict(features)``. Without anything else it is
really fitted again without each group of dimensions. It may have, where it knows a faster way to
the same answer:

- ``predict_without(features, groups, *, target)``: the outcomes of refits without each group;
- ``predict_filled(features, groups, *, fill, target)``: those of the fitted reader, which sees the
  train mean, zeros, other rows' values or noise in place of each group;
- ``predict_in_turn(features, groups, counts)``: predictions after more and more groups have left;
- ``chosen(features, target)``: the reader with the hyper-parameters that it chooses on these rows.

The target may also be real values (N, T), or T labels a row, 0 or 1: then ``predict`` returns one
column a target, and the fast ways are ``values_without(features, groups)`` and
``values_filled(features, groups, *, fill)``, which return predictions (N, G, T).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from dimlab import outside
from dimlab.kernels.downdate import first_largest, log_losses
from dimlab.refusals import Refusal, WrongType
from dimlab.targets import KINDS, NAMES, kind_of

Progress = Callable[[int, int], None]


class Split(NamedTuple):
    """Features (N, D), class indices (N,) or another target (N, T), and cluster ids (N,) if any."""

    features: np.ndarray
    target: np.ndarray
    clusters: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Split:
        """Return some rows, by index or as a mask."""
        clusters = None if self.clusters is None else self.clusters[rows]
        return Split(self.features[rows], self.target[rows], clusters)

    @property
    def strata(self) -> np.ndarray:
        """Class indices (N,), which cuts keep in balance; zeros where the target is another one."""
        return self.target if self.target.ndim == 1 else np.zeros(len(self.target), dtype=np.int64)

    def columns(self, dimensions: np.ndarray) -> Split:
        """Return some dimensions."""
        return self._replace(features=np.ascontiguousarray(self.features[:, dimensions]))


@dataclass(frozen=True)
class Run:
    """How a reader computes, which changes no answer; a probe says it for the whole call."""

    device: str = "cpu"  # of a kNN search
    memory: float | None = None  # GB that a kNN search may take
    seed: int = 0  # draws held-out rows
    precision: str | None = None  # what the train features were rounded to
    progress: Progress | None = None
    losses: bool = True  # whether log-losses are asked for beside predictions


class Reader(Protocol):
    """What reads features. A probe fits copies of it, never the object itself."""

    def fit(self, features: np.ndarray, target: np.ndarray) -> Any:
        """Fit on features (N, D) and class ids (N,), and return the fitted reader."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return scores (N, K), one column a class, ascending; their softmax is a probability."""


class RemovesExactly(Protocol):
    """A fitted reader that knows a fast way to what refits without each group would answer."""

    def predict_without(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, target: np.ndarray
    ) -> Outcomes:
        """Read features (N, D) of known classes (N,) without each of G groups of dimensions."""
        # with the classes, because scores (N, G, K) would not fit into memory


def places(shape: tuple[int, ...], n_classes: int) -> np.ndarray:
    """Room for places among K classes, in the smallest type: a byte, or two, a prediction."""
    return np.empty(shape, dtype=np.min_scalar_type(n_classes - 1))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Predictions and losses of N rows with all dimensions, and without each of G groups."""

    full: np.ndarray  # (N,) places among the classes, in the type of `places`
    ablated: np.ndarray  # (N, G)
    full_loss: np.ndarray  # (N,) negative log-probabilities of the row's class, in nats; NaN unless
    ablated_loss: np.ndarray  # (N, G) they are asked for
    certified_share: float | None = None  # kNN: pairs settled without looking beyond candidates

    def as_parts(self, losses: bool) -> list[np.ndarray]:
        """Return arrays with one entry a row, from which `of_parts` makes the same again."""
        found = [self.full, self.ablated]
        if losses:
            found += [self.full_loss, self.ablated_loss]
        if self.certified_share is not None:
            n_certified = np.zeros(len(self.full), dtype=np.int64)  # of the part, at its first row
            n_certified[:1] = round(self.certified_share * self.ablated.size)
            found.append(n_certified)
        return found

    @classmethod
    def of_parts(cls, parts: Sequence[np.ndarray]) -> Outcomes:
        """Put together what `as_parts` gave of several parts of the rows."""
        full, ablated, *more = parts
        share = int(more.pop().sum()) / ablated.size if len(more) % 2 else None
        full_loss, loss = more or (np.broadcast_to(np.nan, each.shape) for each in (full, ablated))
        return cls(full, ablated, full_loss, loss, share)

    @classmethod
    def of_scores(
        cls, scores: np.ndarray, without: Iterable[np.ndarray], target: np.ndarray, n_groups: int
    ) -> Outcomes:
        """Collect outcomes from scores (N, K) with everything, and without each group in turn."""
        ablated = places((len(scores), n_groups), scores.shape[1])
        loss = np.empty(ablated.shape)
        for group, each in enumerate(without):
            ablated[:, group] = first_largest(each.T)
            loss[:, group] = log_losses(each.T, target)
        return cls(first_largest(scores.T), ablated, log_losses(scores.T, target), loss)


@dataclass(eq=False)
class Named:
    """What the readers of this package share: rows are checked, and class ids become places."""

    SETTINGS: ClassVar[tuple[str, ...]] = ()  # arguments of probes that it takes
    HOLDS: ClassVar[tuple[int, int]] = 0, 0  # bytes for each entry of train, and of D x D
    REFITS: ClassVar[bool] = True  # without a group, unless it is asked to be frozen
    FREEZES: ClassVar[bool] = True
    SLOW: ClassVar[bool] = False  # without a group it is really fitted again
    KINDS: ClassVar[tuple[str, ...]] = KINDS  # of targets that it reads
    name: ClassVar[str]

    run: Run = field(default_factory=Run, repr=False, kw_only=True)
    classes: np.ndarray = field(init=False, repr=False)

    def fit(self, features: np.ndarray, target: np.ndarray) -> Any:
        """Fit on floating features (N, D) and class ids (N,), or another target (N, T)."""
        check_kind(self, kind_of(np.asarray(target)))
        features, self.classes, codes = checked_rows(features, target)
        self._train = features, codes
        self._fit(features, codes)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return scores (N, K) of rows (N, D), one column a class, ascending."""
        self._check_width(features)
        return self._scores(features)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Return the predicted class id (N,) of rows (N, D), the lower one of equal scores."""
        self._check_width(features)
        return self.classes[self._places(features)]

    def predict_without(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, target: np.ndarray
    ) -> Outcomes:
        """Read rows (N, D) of known classes (N,) as refits without each group would."""
        self._check_width(features)
        return self._without(features, list(groups), class_codes(target, self.classes))

    def values_without(self, features: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Return predictions (N, G, T) of T targets as refits without each group would."""
        self._check_width(features)
        return self._values_without(features, list(groups))

    def _check_width(self, features: np.ndarray) -> None:
        n_dimensions = self._train[0].shape[1]
        if np.ndim(features) != 2 or np.shape(features)[1] != n_dimensions:
            raise Refusal(
                f"features must have shape (N, {n_dimensions}) as those of train; got "
                f"{np.shape(features)}."
            )

    def _places(self, features: np.ndarray) -> np.ndarray:
        """Return the place (N,) of each row's class among the classes."""
        return first_largest(self._scores(features).T)

    def _fit(self, features: np.ndarray, codes: np.ndarray) -> None:
        raise NotImplementedError

    def _scores(self, features: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _without(
        self, features: np.ndarray, groups: list[np.ndarray], truth: np.ndarray
    ) -> Outcomes:
        raise NotImplementedError

    def _values_without(self, features: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
        raise NotImplementedError


def as_reader(reader: Any, *, run: Run | None = None, **settings: Any) -> Any:
    """Turn a name or object into a reader not fitted yet, which takes the settings it knows."""
    import dimlab.readers as package
    from dimlab.readers.estimator import AnyReader

    run = run or Run()
    if isinstance(reader, str):
        classes = {name.lower(): getattr(package, name) for name in package.__all__}
        added = {} if reader in classes else outside.added("dimlab.readers")
        if reader in added:
            found = outside.loaded(added[reader])
            reader = found() if isinstance(found, type) else found
        elif reader not in classes:
            known = ", ".join(map(repr, [*classes, *added]))
            raise Refusal(f"reader must be one of {known}; got {reader!r}.")
        else:
            made = {  # all of them, so that a setting out of range is refused whoever reads
                name: each(**{key: settings[key] for key in each.SETTINGS if key in settings})
                for name, each in classes.items()
            }
            reader = made[reader]
        settings = {}
    if isinstance(reader, type) or not (hasattr(reader, "fit") and hasattr(reader, "predict")):
        shown = " ".join(repr(reader).split())[:60]
        raise WrongType(f"reader must be a name or an object with fit and predict; got {shown}.")
    if settings:
        given = ", ".join(f"{name}={value:g}" for name, value in settings.items())
        raise Refusal(f"{given} must be set on the reader itself; got {name_of(reader)} beside.")
    return running(reader, run) if isinstance(reader, Named) else AnyReader(reader, run)


def running(reader: Any, run: Run) -> Any:
    """Return a copy of a reader that computes as a run says."""
    copied = copy.copy(reader)
    copied.run = run
    return copied


def name_of(reader: Any) -> str:
    """Name a reader for people: knn, LogisticRegression, StandardScaler + RidgeClassifier."""
    if isinstance(reader, str):
        return reader
    named = getattr(reader, "name", None)
    if isinstance(named, str):
        return named
    steps = getattr(reader, "steps", None)
    if isinstance(steps, list):
        return " + ".join(type(step).__name__ for _, step in steps)
    return type(reader).__name__


def check_kind(reader: Any, kind: str) -> None:
    """Refuse a kind of target that a reader does not read."""
    if kind not in getattr(reader, "KINDS", KINDS):
        read = " and ".join(NAMES[each] for each in reader.KINDS)
        raise Refusal(
            f"reader {reader.name!r} reads {read}; got labels that are {NAMES[kind]}. Use 'ridge' "
            "or 'knn', or a scikit-learn estimator."
        )


def check_classes(name: str, labels: np.ndarray) -> None:
    """Refuse train rows of one class, whose readers give one answer whatever the features."""
    if labels.min() == labels.max():
        raise Refusal(
            f"{name} must hold at least two classes, or a reader has nothing to tell apart; got "
            f"only class {labels[0]}. Fit it on rows of all classes."
        )


def class_codes(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the place (N,) of each label among ascending class ids (K,)."""
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise Refusal(f"test labels must be classes that train has; got class {unknown[0]}.")
    return codes


def checked_rows(
    features: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return train features (N, D), class ids (K,) and class indices (N,), or refuse them."""
    # of another target the ids are none, and the target (N, T) stands for the indices
    features, target = np.asarray(features), np.asarray(target)
    if features.ndim != 2 or features.size == 0 or features.dtype.kind != "f":
        raise Refusal(
            f"features must be floating with shape (N, D), both >= 1; got {features.dtype} "
            f"{features.shape}."
        )
    if target.ndim == 2 and len(target) == len(features) and target.dtype.kind in "if":
        return features, np.array([], dtype=np.int64), target
    if target.shape != (len(features),) or target.dtype.kind not in "iu":
        raise Refusal(
            f"labels must be integers of shape ({len(features)},) to match features; got "
            f"{target.dtype} {target.shape}."
        )
    check_classes("labels", target)
    classes, codes = np.unique(target.astype(np.int64), return_inverse=True)
    return features, classes, codes
