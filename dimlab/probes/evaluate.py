"""Evaluation: how well readers of the features do, with and without the learned mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.paired import paired_interval, proportion_interval, wilson_interval
from dimlab.kernels.similarity import sentence_of_gallery
from dimlab.mask import DimensionMask
from dimlab.probes._reading import How, ReaderLike, Reads, Task, reads
from dimlab.readers import KNN
from dimlab.readers.base import Run, running
from dimlab.refusals import Refusal
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

    reader: tuple[str, ...] = per(  # type: ignore[assignment] # one a row
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


@reads
def evaluate(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    mask: DimensionMask | None = None,
    readers: Sequence[ReaderLike] = READERS,
    **how: Unpack[How],
) -> Evaluation:
    """Read the classes of ``test`` with readers fitted on ``train``, under a mask and its controls.

    Parameters
    ----------
    test : Representation, or pair of features and labels
        Labelled rows of the same D dimensions. With two or more views of at least two samples,
        view retrieval is scored too: how often the first view nearest to a second view is that of
        the same sample.
    mask : DimensionMask, optional
        Multiplies the features of both splits. Its controls: the mean weight everywhere, the
        weights on other dimensions, and one minus the weights.
    readers : sequence of str or object
        At least one of ``"knn"``, ``"ridge"`` and ``"logistic"``, objects of `dimlab.readers` and
        scikit-learn classifiers, which read the features as they are.

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
    Ridge and logistic regression standardise every dimension, so a mask without zeros changes
    their accuracy by rounding at most. They are evaluated all the same, as a check.

    A mask and no mask are compared on the same samples, by Tango's interval; two intervals of
    single accuracies that overlap say nothing about their difference. With clusters both intervals
    have the variance between whole clusters.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927;
    Tango, Statistics in Medicine 17, 1998; Obuchowski, Statistics in Medicine 17, 1998.

    Examples
    --------
    >>> from dimlab import Representation
    >>> split = Representation(np.eye(4), labels=np.array([0, 1, 2, 3]))
    >>> evaluate(split, split, readers=["knn"], k=1).accuracy
    array([1.])
    """
    train, test = as_representations(train=train, test=test).values()
    if isinstance(readers, str) or len(readers) == 0:
        raise Refusal(f"readers must be a list of at least one reader; got {readers!r}.")
    task = Task.of("evaluate", train, test, readers[0], **how)
    copies = 0 if mask is None else 10 * train.features.size
    tasks = [task.read_by(reader).holding(copies) for reader in readers]
    kinds = [task.reader.name for task in tasks]
    names = [  # readers of the same name are told apart by their settings
        repr(task.reader) if kinds.count(kind) > 1 else kind
        for kind, task in zip(kinds, tasks, strict=True)
    ]
    if test.views is not None and len(test.views) >= 2 and len(test) >= 2:
        names.append(VIEW_RETRIEVAL)
    masks: dict[str, DimensionMask | None] = {"none": None}
    if mask is not None:
        rng = np.random.default_rng(task.run.seed)
        masks |= {"learned": mask, "constant": mask.constant()}
        masks |= {"permuted": mask.permuted(rng), "inverted": mask.inverted()}
    right = np.empty((len(test), len(names), len(masks)), dtype=bool)
    for place, weights in enumerate(masks.values()):
        fit, judge = (each if weights is None else each.masked(weights) for each in (train, test))
        for row, name in enumerate(names):
            if name == VIEW_RETRIEVAL and judge.views is not None:
                right[:, row, place] = _retrieved(judge.views, task.run)
            else:
                fitted = running(tasks[row].reader, tasks[row].run)
                fitted = fitted.fit(fit.features, task.train.codes)
                right[:, row, place] = fitted.classify(judge.features) == task.test.codes
            if task.run.progress is not None:
                task.run.progress(place * len(names) + row + 1, len(names) * len(masks))
    changes = None
    if mask is not None:
        change = (right.astype(np.int8) - right[:, :, :1]).reshape(len(test), -1)
        bounds = paired_interval(change, task.test.clusters)
        changes = np.stack([change.mean(axis=0), *bounds], axis=1)
        changes[:: len(masks)] = np.nan
    columns = right.reshape(len(test), -1)
    return Evaluation(
        **{**task.said, "reader": tuple(np.repeat(names, len(masks)).tolist())},
        mask=tuple(masks) * len(names),
        n_correct=columns.sum(axis=0),
        intervals=np.stack(proportion_interval(columns, task.test.clusters), axis=1),
        changes=changes,
    )


def _retrieved(views: np.ndarray, run: Run) -> np.ndarray:
    """Whether each second view finds the first view of its sample, nearest by cosine; (N,) bool."""
    identity = np.arange(views.shape[1])
    return KNN(1, run=run).fit(views[0], identity).classify(views[1]) == identity
