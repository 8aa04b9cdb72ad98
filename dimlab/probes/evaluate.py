"""Evaluation: how well readers of the features do, with and without the learned mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike
from dimlab.kernels.paired import paired_interval, proportion_interval, wilson_interval
from dimlab.kernels.similarity import sentence_of_gallery
from dimlab.mask import DimensionMask
from dimlab.probes._reading import (
    ReaderLike,
    Reading,
    Reads,
    Rows,
    coded,
    documented,
)
from dimlab.readers import KNN
from dimlab.readers import __all__ as NAMED
from dimlab.readers.base import Progress, Run, Split, classify
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import column, detail, entries, entry, per

NEEDS: tuple[set[str], ...] = ({"labels", "train"},)
READERS = ("knn", "ridge", "logistic")  # by default
VIEW_RETRIEVAL = "view-retrieval"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Evaluation(Reads):
    """Accuracy of readers under a mask and its controls, one row a (reader, mask).

    References
    ----------
    Those of `evaluate`, which measures it.

    Examples
    --------
    >>> evaluation = Evaluation(
    ...     reader=("knn", "knn"), mask=("none", "learned"), n_correct=np.array([80, 90]),
    ...     n_test=100, n_train=500, n_dimensions=8,
    ... )
    >>> evaluation.accuracy.tolist(), evaluation.summary()["accuracy"]
    ([0.8, 0.9], {'knn': {'none': 0.8, 'learned': 0.9}})
    >>> evaluation.to_frame()[["ci_low", "ci_high"]].round(3).values.tolist()[0]
    [0.711, 0.867]
    """

    ROWS = "row"

    reader: tuple[str, ...] = per(  # type: ignore[assignment]
        "row", "Name of a reader, or `view-retrieval`."
    )
    mask: tuple[str, ...] = per("row", "`none`, `learned`, `constant`, `permuted` or `inverted`.")
    n_correct: np.ndarray = per("row", "Test samples read correctly; int64.", column=False)
    intervals: np.ndarray | None = detail(
        "95 % bounds of the accuracies where rows come in clusters, of shape (R, 2); None: "
        "Wilson's of the counts.",
        default=None,
    )
    changes: np.ndarray | None = detail(
        "Accuracy less that of the same reader without a mask, on the same samples, with Tango's "
        "95 % bounds, of shape (R, 3); NaN where there is no mask. None: not measured.",
        default=None,
    )

    @column
    def numbers(self) -> dict[str, Any]:
        """Columns from ``accuracy`` to ``change_high``; the last three where there is a mask."""
        if self.intervals is None:
            low, high = wilson_interval(self.n_correct, self.n_test)
        else:
            low, high = self.intervals.T
        named = {"accuracy": self.accuracy, "ci_low": low, "ci_high": high, "n_test": self.n_test}
        if self.changes is not None:
            names = ("change", "change_low", "change_high")
            named |= dict(zip(names, self.changes.T, strict=True))
        return named

    @entries
    def nested(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Entries ``accuracy`` and, where there is a mask, ``change``: by reader, then by mask."""
        found: dict[str, dict[str, dict[str, Any]]] = {"accuracy": {}}
        for place, (reader, mask) in enumerate(zip(self.reader, self.mask, strict=True)):
            found["accuracy"].setdefault(reader, {})[mask] = float(self.accuracy[place])
            if self.changes is not None and not np.isnan(self.changes[place, 0]):
                found.setdefault("change", {}).setdefault(reader, {})[mask] = self.changes[place]
        return found

    @entry
    def notes(self) -> list[str]:
        """What the intervals are over, and what a mask cannot change."""
        units = "clusters of test samples" if self.clusters else "test samples"
        notes = [f"Intervals: Wilson, 95 %, over {units}, given the train split."]
        if VIEW_RETRIEVAL in self.reader:
            notes.append(sentence_of_gallery(self.n_test))
        if "learned" in self.mask:
            notes.append(
                "Ridge and logistic standardise every dimension, so a mask changes them only where "
                "a weight is 0; kNN feels every weight."
            )
        if self.changes is not None:
            notes.append("Change: accuracy less that without a mask, Tango's interval, 95 %.")
        return notes

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of test samples read correctly, in [0, 1], shape (R,)."""
        return self.n_correct / self.n_test


@documented
def evaluate(
    train: Representation,
    test: Representation,
    *,
    mask: DimensionMask | None = None,
    readers: Sequence[ReaderLike] = READERS,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    clusters: ClustersLike = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Read the classes of ``test`` with readers fitted on ``train``, under a mask and its controls.

    Parameters
    ----------
    test : Representation
        Labelled rows of the same D dimensions. With two or more views, it is also asked whether the
        nearest first view of each second view is that of the same sample, if there are two samples.
    mask : DimensionMask, optional
        Multiplies the features of both splits. Its controls: the mean weight everywhere, the
        weights on other dimensions, and one minus the weights.
    readers : sequence of str or object
        At least one of ``"knn"``, ``"ridge"`` and ``"logistic"``, objects of `dimlab.readers` and
        scikit-learn classifiers, which read the features as they are.
    seed : int, default=0
        Draws the permuted mask and the logistic reader's held-out rows.

    Returns
    -------
    Evaluation
        Counts and accuracies of each (reader, mask).

    Raises
    ------
    ValueError
        If labels are missing, D or the basis differs, a reader is unknown or none is named, a
        number is out of its range, the mask has another number of dimensions, or test has a class
        that train lacks, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    Ridge and logistic regression standardise every dimension, so a mask without zeros cannot change
    them beyond rounding; they are read all the same, which shows it.

    A mask and no mask are compared on the same samples, by Tango's interval; two intervals of
    single accuracies that overlap say nothing about their difference. With clusters both intervals
    have the variance between whole clusters.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927;
    Tango, Statistics in Medicine 17, 1998; Obuchowski, Statistics in Medicine 17, 1998.

    Examples
    --------
    >>> split = Representation(np.eye(4), labels=np.array([0, 1, 2, 3]))
    >>> evaluate(split, split, readers=["knn"], k=1).accuracy
    array([1.])
    """
    _check_readers(readers)
    readings = [
        Reading.of(reader, k=k, temperature=temperature, penalty=penalty, seed=seed, device=device)
        for reader in readers
    ]
    _, bank, queries = coded(train, test, "evaluate")
    split_rows = Rows.of(train, test, clusters)
    copies = 10 * train.features.size if mask is not None else 0
    readings = [reading.within("evaluate", train, copies) for reading in readings]
    masks = _masks(mask, seed)
    has_views = test.views is not None and len(test.views) >= 2 and len(test) >= 2
    rows: list[tuple[str, Reading | None]] = [*zip(_names(readings), readings, strict=True)]
    rows += [(VIEW_RETRIEVAL, None)] if has_views else []
    names = [(reader, name) for reader, _ in rows for name in masks]
    right = np.empty((len(test), len(names)), dtype=bool)
    for done, (reading, name) in enumerate((each, name) for _, each in rows for name in masks):
        fit, judge = _masked(train, masks[name]), _masked(test, masks[name])
        if reading is None:
            right[:, done] = _retrieved(judge, device)
        else:
            fitted = reading.fit(Split(fit.features, bank.codes))
            right[:, done] = classify(fitted, judge.features) == queries.codes
        if progress is not None:
            progress(done + 1, len(names))
    changes = None
    if mask is not None:
        without = np.arange(len(names)) // len(masks) * len(masks)
        change = right.astype(np.int8) - right[:, without]
        changes = np.stack([change.mean(axis=0), *paired_interval(change, split_rows.test)], axis=1)
        changes[without] = np.nan
    return Evaluation(
        reader=tuple(reader for reader, _ in names),
        mask=tuple(name for _, name in names),
        n_correct=right.sum(axis=0),
        intervals=np.stack(proportion_interval(right, split_rows.test), axis=1),
        changes=changes,
        **split_rows.said,
    )


def _masks(mask: DimensionMask | None, seed: int) -> dict[str, DimensionMask | None]:
    """Return the mask with its controls, behind no mask at all."""
    if mask is None:
        return {"none": None}
    return {
        "none": None,
        "learned": mask,
        "constant": mask.constant(),
        "permuted": mask.permuted(np.random.default_rng(seed)),
        "inverted": mask.inverted(),
    }


def _check_readers(readers: Sequence[ReaderLike]) -> None:
    """Refuse readers that are not a list of some, or of unknown names."""
    known = [name.lower() for name in NAMED]
    unknown = [each for each in readers if isinstance(each, str) and each not in known]
    if unknown or isinstance(readers, str) or len(readers) == 0:
        listed = ", ".join(map(repr, known))
        raise Refusal(f"readers must be some of {listed}; got {readers!r}.")


def _names(readings: Sequence[Reading]) -> list[str]:
    """Name each reader; readers of the same name are told apart by their settings."""
    names = [reading.name for reading in readings]
    return [
        repr(reading.reader) if names.count(name) > 1 else name
        for name, reading in zip(names, readings, strict=True)
    ]


def _masked(representation: Representation, mask: DimensionMask | None) -> Representation:
    """Return the representation behind a mask."""
    return representation if mask is None else representation.masked(mask)


def _retrieved(test: Representation, device: str) -> np.ndarray:
    """Whether each second view finds the first view of its sample, nearest by cosine; (N,) bool."""
    views, identity = test.views, np.arange(len(test))
    if views is None:
        return np.zeros(len(test), dtype=bool)
    reader = KNN(1, run=Run(device=device)).fit(views[0], identity)
    return reader.classify(views[1]) == identity
