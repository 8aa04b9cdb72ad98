"""Evaluation: how well readers of the features do, with and without the learned mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike
from dimlab.kernels.paired import paired_interval, proportion_interval, wilson_interval
from dimlab.kernels.similarity import sentence_of_gallery
from dimlab.mask import DimensionMask
from dimlab.probes._reading import (
    ReaderLike,
    Reading,
    Rows,
    coded,
    documented,
    plain,
    said_of_rows,
)
from dimlab.readers import KNN
from dimlab.readers import __all__ as NAMED
from dimlab.readers.base import Progress, Run, Split, classify
from dimlab.representation import Representation

READERS = ("knn", "ridge", "logistic")  # by default
VIEW_RETRIEVAL = "view-retrieval"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracy of readers under a mask and its controls, one row a (reader, mask).

    Parameters
    ----------
    reader : tuple of str
        ``"knn"``, ``"ridge"``, ``"logistic"`` or ``"view-retrieval"``.
    mask : tuple of str
        ``"none"``, ``"learned"``, ``"constant"``, ``"permuted"`` or ``"inverted"``.
    n_correct : ndarray of shape (R,), int64
        Test samples read correctly.
    n_test, n_train, n_dimensions : int
        Sizes.
    intervals : ndarray of shape (R, 2), or None
        95 % bounds of the accuracies where rows come in clusters; None: Wilson's of the counts.
    changes : ndarray of shape (R, 3), or None
        Accuracy less that of the same reader without a mask, on the same samples, with Tango's 95 %
        bounds; NaN where there is no mask. None: not measured.
    sample : str
        Which part of the test split was used; empty: all of it.
    clusters : mapping of str to int
        ``n_clusters`` and the size of the ``largest``, of test rows; empty: rows are independent.
    caution : str
        What keeps the accuracies from meaning what they usually do; empty: nothing.

    References
    ----------
    Those of `evaluate`, which measures it.

    Examples
    --------
    >>> evaluation = Evaluation(
    ...     ("knn", "knn"), ("none", "learned"), np.array([80, 90]), n_test=100, n_train=500,
    ...     n_dimensions=8,
    ... )
    >>> evaluation.accuracy.tolist(), evaluation.summary()["accuracy"]
    ([0.8, 0.9], {'knn': {'none': 0.8, 'learned': 0.9}})
    >>> evaluation.to_frame()[["ci_low", "ci_high"]].round(3).values.tolist()[0]
    [0.711, 0.867]
    """

    reader: tuple[str, ...]
    mask: tuple[str, ...]
    n_correct: np.ndarray
    n_test: int
    n_train: int
    n_dimensions: int
    intervals: np.ndarray | None = None
    changes: np.ndarray | None = None
    sample: str = ""
    clusters: Mapping[str, int] = field(default_factory=dict)
    caution: str = ""

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of test samples read correctly, in [0, 1], shape (R,)."""
        return self.n_correct / self.n_test

    def to_frame(self) -> Any:
        """Return one row a (reader, mask).

        Returns
        -------
        pandas.DataFrame
            ``reader, mask, accuracy, ci_low, ci_high, n_test``; the bounds are Wilson's, 95 %.
            Where there is a mask, also ``change, change_low, change_high``: what it changes.
        """
        import pandas as pd

        low, high = (
            wilson_interval(self.n_correct, self.n_test)
            if self.intervals is None
            else self.intervals.T
        )
        columns: dict[str, Any] = {
            "reader": self.reader,
            "mask": self.mask,
            "accuracy": self.accuracy,
            "ci_low": low,
            "ci_high": high,
            "n_test": self.n_test,
        }
        if self.changes is not None:
            names = ("change", "change_low", "change_high")
            columns |= dict(zip(names, self.changes.T, strict=True))
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Sizes, ``accuracy`` and, where there is a mask, ``change`` with its bounds (both nested:
            reader, then mask), and ``notes``, a list of sentences.
        """
        accuracy: dict[str, dict[str, float]] = {}
        for reader, mask, value in zip(self.reader, self.mask, self.accuracy, strict=True):
            accuracy.setdefault(reader, {})[mask] = float(value)
        notes = ["Intervals: Wilson, 95 %, over test samples, given the train split."]
        if self.clusters:
            notes[0] = (
                "Intervals: Wilson, 95 %, over clusters of test samples, given the train split."
            )
        if VIEW_RETRIEVAL in self.reader:
            notes.append(sentence_of_gallery(self.n_test))
        if "learned" in self.mask:
            notes.append(
                "Ridge and logistic standardise every dimension, so a mask changes them only where "
                "a weight is 0; kNN feels every weight."
            )
        changes: dict[str, dict[str, Any]] = {}
        if self.changes is not None:
            for place in np.flatnonzero(~np.isnan(self.changes[:, 0])).tolist():
                mine = changes.setdefault(self.reader[place], {})
                mine[self.mask[place]] = plain(self.changes[place].tolist())
            notes.append("Change: accuracy less that without a mask, Tango's interval, 95 %.")
        return {
            **said_of_rows(self),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "accuracy": accuracy,
            **({"change": changes} if changes else {}),
            "notes": notes,
        }


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
        If it would not fit into the memory that is free; the sentence says what would.

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
    masks: dict[str, DimensionMask | None] = {"none": None}
    if mask is not None:
        permuted = mask.permuted(np.random.default_rng(seed))
        masks |= {"learned": mask, "constant": mask.constant()}
        masks |= {"permuted": permuted, "inverted": mask.inverted()}
    has_views = test.views is not None and len(test.views) >= 2 and len(test) >= 2
    rows: list[tuple[str, Reading | None]] = [*zip(_names(readings), readings, strict=True)]
    rows += [(VIEW_RETRIEVAL, None)] if has_views else []
    jobs = [(reader, name) for reader, _ in rows for name in masks]
    right = np.empty((len(test), len(jobs)), dtype=bool)
    for done, (reading, name) in enumerate((each, name) for _, each in rows for name in masks):
        fit, judge = _masked(train, masks[name]), _masked(test, masks[name])
        if reading is None:
            right[:, done] = _retrieved(judge, device)
        else:
            fitted = reading.fit(Split(fit.features, bank.codes))
            right[:, done] = classify(fitted, judge.features) == queries.codes
        if progress is not None:
            progress(done + 1, len(jobs))
    names, mask_names = zip(*jobs, strict=True)
    changes = None
    if mask is not None:
        without = np.arange(len(jobs)) // len(masks) * len(masks)
        change = right.astype(np.int8) - right[:, without]
        changes = np.stack([change.mean(axis=0), *paired_interval(change, split_rows.test)], axis=1)
        changes[without] = np.nan
    return Evaluation(
        names, mask_names, right.sum(axis=0), len(test), len(train), train.n_dimensions,
        intervals=np.stack(proportion_interval(right, split_rows.test), axis=1),
        changes=changes, **split_rows.said,
    )  # fmt: skip


def _check_readers(readers: Sequence[ReaderLike]) -> None:
    """Refuse readers that are not a list of some, or of unknown names."""
    known = [name.lower() for name in NAMED]
    unknown = [each for each in readers if isinstance(each, str) and each not in known]
    if unknown or isinstance(readers, str) or len(readers) == 0:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"readers must be some of {listed}; got {readers!r}.")


def _names(readings: Sequence[Reading]) -> list[str]:
    """Name each reader; readers of the same name are told apart by their settings."""
    names = [reading.name for reading in readings]
    return [
        repr(reading.reader) if names.count(name) > 1 else name
        for name, reading in zip(names, readings, strict=True)
    ]


def _masked(representation: Representation, mask: DimensionMask | None) -> Representation:
    return representation if mask is None else representation.masked(mask)


def _retrieved(test: Representation, device: str) -> np.ndarray:
    """Whether each second view finds the first view of its sample, the nearest by cosine; (N,)."""
    views, identity = test.views, np.arange(len(test))
    if views is None:
        return np.zeros(len(test), dtype=bool)
    reader = KNN(1, run=Run(device=device)).fit(views[0], identity)
    return reader.classify(views[1]) == identity
