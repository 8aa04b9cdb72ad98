"""What every probe that reads is asked for, and what its results say: one place for all of them."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from dimlab.clusters import ClustersLike, cluster_ids_of_pair, warning_of_copies
from dimlab.devices import check_budget, check_device, hold
from dimlab.kernels.collinearity import groups_of
from dimlab.moments import Moments
from dimlab.readers.base import (
    Outcomes,
    Progress,
    Run,
    Split,
    as_reader,
    check_classes,
    class_codes,
    filled_scores,
    name_of,
    running,
)
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, scalar

FILLS = ("mean", "zero")
AXES = "axes"
_DEFAULTS = {"k": 5, "temperature": 1.0, "penalty": 1e-3}

GroupsLike = Sequence[Sequence[int] | np.ndarray] | np.ndarray
ReaderLike = Any  # a name, an object of dimlab.readers, or a scikit-learn classifier
Function = TypeVar("Function", bound=Callable[..., Any])

# What the arguments that several probes share mean, in the order of their signatures.
SHARED = {
    "train": """Representation
    Labelled rows that the reader is fitted on.""",
    "test": """Representation
    Labelled rows of the same D dimensions, that it is scored on.""",
    "reader": """str or object
    A probe classifier: ``"knn"`` (votes of the k nearest train rows by cosine similarity),
    ``"ridge"`` (regression of one-hot classes) or ``"logistic"`` (multinomial logistic regression;
    both standardise the features on train), an object of `dimlab.readers`, or a scikit-learn
    classifier, which is cloned, really fitted again on the features as they are, and slow.""",
    "groups": """sequence of index arrays, or ndarray of shape (D,) of int, optional
    Dimensions removed together, or one group id a dimension; by default each dimension alone.""",
    "k": """int
    kNN: neighbours that vote, 1 <= k <= N_train.""",
    "temperature": """float
    kNN: > 0; a vote is ``exp((s - s_max) / temperature)``.""",
    "penalty": """float
    Ridge: > 0; ``penalty * N_train * I`` is added.""",
    "clusters": """str, ndarray of shape (N_test,), or pair of ndarray, optional
    Rows that belong together: a factor's name that both splits have, one value a test row, or
    values of train and of test. By default rows are independent.""",
    "device": """str
    Where kNN searches.""",
    "memory": """float, optional
    GB that the probe may take beside its inputs: kNN's search is blocked to what its outcomes
    leave. It changes the time, not the result.""",
    "progress": """callable, optional
    Called as ``progress(done, total)`` during the long part.""",
}


def documented(function: Function, shared: Mapping[str, str] = SHARED) -> Function:
    """Insert what shared arguments mean into a docstring that leaves them out, in their order."""
    text = inspect.cleandoc(function.__doc__ or "")
    head, mark, rest = text.partition("Parameters\n----------\n")
    own, end, tail = rest.partition("\n\nReturns\n-------")
    blocks = re.split(r"\n(?=\S)", own.rstrip())
    entries = {block.partition(" : ")[0].split(", ")[0]: block for block in blocks}
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in entries:
            found.append(entries[name])
        elif name in shared:
            kind, _, meaning = shared[name].partition("\n")
            if parameter.default not in (None, inspect.Parameter.empty):
                kind += f", default={json.dumps(parameter.default)}"
            found.append(f"{name} : {kind}\n{meaning}")
    whole = head + mark + "\n".join(found) + end + tail
    function.__doc__ = textwrap.indent(whole, "    ").lstrip() + "\n    "
    return function


@dataclass(frozen=True)
class Reading:
    """A reader that is not fitted, and what becomes of a group: `Reading.of` checks both."""

    reader: Any
    name: str
    refit: bool
    fill: str | None

    @classmethod
    def of(
        cls,
        reader: ReaderLike,
        *,
        refit: bool | None = None,
        fill: str | None = None,
        k: int = 5,
        temperature: float = 1.0,
        penalty: float = 1e-3,
        seed: int = 0,
        device: str = "cpu",
        memory: float | None = None,
    ) -> Reading:
        """Check the settings as far as that can be done without data."""
        settings = {"k": k, "temperature": temperature, "penalty": penalty}
        if not isinstance(reader, str):  # its own settings stand; others beside it are refused
            settings = {name: each for name, each in settings.items() if each != _DEFAULTS[name]}
        check_budget(memory)
        check_device(device)
        run = Run(device=device, memory=memory, seed=seed)
        made = as_reader(reader, run=run, **settings)
        name = name_of(made)
        if fill is not None:
            check_choice("fill", fill, FILLS)
        if refit is False and not getattr(made, "FREEZES", True):
            raise Refusal(
                f"refit must be True for reader {name!r}, which has no weights; got False."
            )
        refit = getattr(made, "REFITS", True) if refit is None else bool(refit)
        if refit and fill is not None:
            raise Refusal(
                "fill must be left out where the reader is refitted (pass refit=False to freeze "
                f"it); got {fill!r}."
            )
        return cls(made, name, refit, None if refit else fill or "mean")

    def within(self, probe: str, train: Representation, n_bytes: float) -> Reading:
        """Refuse ``n_bytes`` of outcomes that do not fit; the reader may take what is left."""
        held = n_bytes + getattr(self.reader, "BYTES", 8) * train.features.size
        sizes = f"{len(train)} train rows of {train.n_dimensions} dimensions"
        remedy = "Pass fewer rows (--max-queries, --max-train)."
        run = getattr(self.reader, "run", Run())
        left = hold(held, probe, sizes, remedy, memory=run.memory)
        return replace(self, reader=running(self.reader, replace(run, memory=left)))

    def fit(self, train: Split) -> Any:
        """Fit a copy of the reader."""
        return self._running(train).fit(train.features, train.codes)

    def chosen(self, train: Split) -> Reading:
        """Return the reading whose reader has the settings that it would choose on train."""
        if not hasattr(self.reader, "chosen"):
            return self
        reader = self._running(train).chosen(train.features, train.codes)
        return replace(self, reader=reader)

    def _running(self, train: Split) -> Any:
        """Return a copy of the reader that knows what the train features were rounded to."""
        run = getattr(self.reader, "run", Run())
        return running(self.reader, replace(run, precision=train.precision))

    def outcomes(
        self,
        train: Split,
        test: Split,
        groups: Sequence[np.ndarray],
        progress: Progress | None = None,
        *,
        fitted: Any = None,
    ) -> Outcomes:
        """Read ``test`` with everything and without each group, by a reader fitted on ``train``."""
        fitted = self.fit(train) if fitted is None else fitted
        fitted = running(fitted, replace(getattr(fitted, "run", Run()), progress=progress))
        features, codes = test.features, test.codes
        if self.fill is None:
            found: Outcomes = fitted.predict_without(features, groups, target=codes)
        elif hasattr(fitted, "predict_filled"):
            found = fitted.predict_filled(features, groups, fill=self.fill, target=codes)
        else:
            means = train.features.mean(axis=0)
            values = means if self.fill == "mean" else np.zeros_like(means)
            without = filled_scores(fitted, features, groups, values)
            scores = np.asarray(fitted.predict(features))
            found = Outcomes.of_scores(scores, without, codes, len(groups))
        return found


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a name that is not among those allowed."""
    if value not in allowed:
        raise Refusal(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


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
    train: Representation, test: Representation, what: str
) -> tuple[np.ndarray, Split, Split]:
    """Return the classes of train, and both splits with labels as indices into them."""
    train_labels, test_labels = labelled(train, test, what)
    bases = basis_of(train), basis_of(test)
    if bases[0] != bases[1]:
        raise Refusal(
            f"test must be in the basis of train, {bases[0]}; got {bases[1]}. Apply the same Basis "
            "to both."
        )
    check_classes("train", train_labels)
    classes, codes = np.unique(train_labels, return_inverse=True)
    truth = class_codes(test_labels, classes)
    return (
        classes,
        Split(train.features, codes, train.precision),
        Split(test.features, truth, test.precision),
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """Clusters of the rows of two splits, ids from 0 or None; build it with ``Rows.of``."""

    train: np.ndarray | None
    test: np.ndarray | None
    said: dict[str, Any]

    @classmethod
    def of(cls, train: Representation, test: Representation, clusters: ClustersLike) -> Rows:
        """Resolve clusters, count them, and warn of what keeps scores from meaning what they do."""
        train_ids, test_ids = cluster_ids_of_pair(train, test, clusters)
        sizes = None if test_ids is None else np.bincount(test_ids)
        counted = None if sizes is None else {"n_clusters": len(sizes), "largest": int(sizes.max())}
        caution = caution_of(test, test_ids)
        if caution:
            warnings.warn(caution, UserWarning, stacklevel=3)
        said = {
            "basis": basis_of(train),
            "sample": sample_of(test),
            "clusters": counted,
            "caution": caution,
            "n_train": len(train),
            "n_test": len(test),
            "n_dimensions": train.n_dimensions,
        }
        return cls(train_ids, test_ids, said)


def caution_of(test: Representation, clusters: np.ndarray | None) -> str:
    """Say what keeps the accuracy on test from meaning what it usually does; empty if nothing."""
    found = [] if (copies := warning_of_copies(test, clusters)) is None else [copies]
    if test.labels is not None and (test.labels == test.labels[0]).all():
        found.append(
            f"All test samples are of class {test.labels[0]}: a reader that always answers it has "
            "accuracy 1, so no score here shows what the features tell. Test on several classes."
        )
    return " ".join(found)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Reads(Result):
    """What every result of a reader says: which reader, of which rows."""

    reader: str = scalar("Name of the reader, a probe classifier.")
    basis: str = scalar(
        "Basis that the dimensions belong to; `axes` where none was fitted.", default="axes"
    )
    sample: str = scalar(
        "Which part of the test split was used; empty: all of it.", optional=True, default=""
    )
    clusters: dict[str, int] | None = scalar(
        "`n_clusters` and the size of the `largest`, of test rows; None: rows are independent.",
        optional=True,
        default=None,
    )
    caution: str = scalar(
        "What keeps the scores from meaning what they usually do; empty: nothing.",
        optional=True,
        default="",
    )
    n_train: int = scalar("Train rows.")
    n_test: int = scalar("Test rows.")
    n_dimensions: int = scalar(
        "D, the number of dimensions; 0 in results of 0.6 that did not record it.",
        optional=True,
        default=0,
    )


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
