"""Evaluation: how well readers of the features do, with and without the learned mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.paired import paired_interval, proportion_interval, wilson_interval
from dimlab.kernels.similarity import sentence_of_gallery
from dimlab.mask import DimensionMask
from dimlab.probes._contributions import contributions_of, difference
from dimlab.probes._reading import (
    How,
    ReaderLike,
    Reads,
    Task,
    reads,
)
from dimlab.processes import shared
from dimlab.readers import KNN
from dimlab.readers.base import Run, running
from dimlab.refusals import Refusal
from dimlab.result import column, detail, entries, entry, per, scalar
from dimlab.targets import CLASSES, VALUES, score_in_words, score_of

NEEDS: tuple[set[str], ...] = ({"labels", "train"},)
READERS = ("knn", "ridge", "logistic")  # by default
VIEW_RETRIEVAL = "view-retrieval"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Evaluation(Reads):
    """Score of readers under a mask and its controls, one row a (reader, mask).

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
    score: str = scalar("What the readers were scored by.", default="accuracy")
    n_correct: np.ndarray | None = per(
        "row", "Test samples read correctly; int64. None of other scores.", column=False,
        default=None,
    )  # fmt: skip
    scores: np.ndarray | None = detail(
        "Scores (R,) other than accuracy; None: the score is the share of samples read correctly.",
        default=None,
    )
    intervals: np.ndarray | None = detail(
        "95 % bounds of the scores, of shape (R, 2); None: Wilson's of the counts.", default=None
    )
    changes: np.ndarray | None = detail(
        "Score less that of the same reader without a mask, on the same samples, with 95 % bounds "
        "(Tango's of accuracies), of shape (R, 3); NaN where there is no mask. None: not measured.",
        default=None,
    )

    @column
    def numbers(self) -> dict[str, Any]:
        """Columns from the score to ``change_high``; the last three where there is a mask."""
        if self.intervals is None and self.n_correct is not None:
            low, high = wilson_interval(self.n_correct, self.n_test)
        else:
            low, high = np.asarray(self.intervals).T
        named = {self.score: self.accuracy, "ci_low": low, "ci_high": high, "n_test": self.n_test}
        if self.changes is not None:
            names = ("change", "change_low", "change_high")
            named |= dict(zip(names, self.changes.T, strict=True))
        return named

    @entries
    def nested(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Entries of the score and, where there is a mask, ``change``: by reader, then by mask."""
        found: dict[str, dict[str, dict[str, Any]]] = {self.score: {}}
        for place, (reader, mask) in enumerate(zip(self.reader, self.mask, strict=True)):
            found[self.score].setdefault(reader, {})[mask] = float(self.accuracy[place])
            if self.changes is not None and not np.isnan(self.changes[place, 0]):
                found.setdefault("change", {}).setdefault(reader, {})[mask] = self.changes[place]
        return found

    @entry
    def notes(self) -> list[str]:
        """What the intervals are over, and what a mask cannot change."""
        units = "clusters of test samples" if self.clusters else "test samples"
        kind = "Wilson" if self.scores is None else "Student's t"
        notes = [f"Intervals: {kind}, 95 %, over {units}, given the train split."]
        if VIEW_RETRIEVAL in self.reader:
            notes.append(sentence_of_gallery(self.n_test))
        if "learned" in self.mask:
            notes.append(
                "Ridge and logistic standardise every dimension, so a mask changes them only where "
                "a weight is 0; kNN feels every weight."
            )
        if self.changes is not None:
            kind = "Tango" if self.scores is None else "Student"
            notes.append(
                f"Change: {score_in_words(self.score)} less that without a mask, {kind}'s "
                "interval, 95 %."
            )
        return notes

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of test samples read correctly, in [0, 1], or another score, shape (R,)."""
        if self.scores is not None or self.n_correct is None:
            return np.asarray(self.scores)
        share: np.ndarray = self.n_correct / self.n_test
        return share


@reads
def evaluate(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    mask: DimensionMask | None = None,
    readers: Sequence[ReaderLike] | None = None,
    **how: Unpack[How],
) -> Evaluation:
    """Read the classes of ``test`` with readers fitted on ``train``, under a mask and its controls.

    Parameters
    ----------
    test : Representation, or pair of features and labels
        Labelled rows of the same D dimensions. With two or more views of at least two samples,
        view retrieval is scored beside accuracies: how often the first view nearest to a second
        view is that of the same sample.
    mask : DimensionMask, optional
        Multiplies the features of both splits. Its controls: the mean weight everywhere, the
        weights on other dimensions, and one minus the weights.
    readers : sequence of str or object
        At least one of ``"knn"``, ``"ridge"`` and ``"logistic"``, objects of `dimlab.readers` and
        scikit-learn estimators, which read the features as they are. By default those of the three
        that read such labels.

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
    if isinstance(readers, str) or (readers is not None and len(readers) == 0):
        raise Refusal(f"readers must be a list of at least one reader; got {readers!r}.")
    task = Task.of("evaluate", train, test, readers[0] if readers else "knn", **how)
    readers = readers or (READERS[:2] if task.kind == VALUES else READERS)
    copies = 0 if mask is None else 10 * train.features.size
    tasks = [task.read_by(reader).holding(copies) for reader in readers]
    kinds = [task.reader.name for task in tasks]
    names = [  # readers of the same name are told apart by their settings
        repr(task.reader) if kinds.count(kind) > 1 else kind
        for kind, task in zip(kinds, tasks, strict=True)
    ]
    of_classes, score = task.kind == CLASSES, score_of(None, task.kind)
    if of_classes and test.views is not None and len(test.views) >= 2 and len(test) >= 2:
        names.append(VIEW_RETRIEVAL)
    masks: dict[str, DimensionMask | None] = {"none": None}
    if mask is not None:
        rng = np.random.default_rng(task.run.seed)
        masks |= {"learned": mask, "constant": mask.constant()}
        masks |= {"permuted": mask.permuted(rng), "inverted": mask.inverted()}
    right = np.empty((len(test), len(names), len(masks)), dtype=bool if of_classes else float)
    for place, weights in enumerate(masks.values()):
        fit, judge = (each if weights is None else each.masked(weights) for each in (train, test))
        for row, name in enumerate(names):
            if name == VIEW_RETRIEVAL and judge.views is not None:
                right[:, row, place] = _retrieved(judge.views, task.run)
            else:
                fitted = running(tasks[row].reader, tasks[row].run)
                fitted = fitted.fit(fit.features, task.train.target)
                right[:, row, place] = (
                    _over_rows(fitted.classify, judge.features) == task.test.target
                    if of_classes
                    else contributions_of(
                        _over_rows(fitted.predict, judge.features)[:, None], task.test.target, score
                    )[:, 0]
                )
            if task.run.progress is not None:
                task.run.progress(place * len(names) + row + 1, len(names) * len(masks))
    changes = None
    if mask is not None:
        change = difference(right, right[:, :, :1]).reshape(len(test), -1)
        bounds = paired_interval(change, task.test.clusters)
        changes = np.stack([change.mean(axis=0), *bounds], axis=1)
        changes[:: len(masks)] = np.nan
    columns = right.reshape(len(test), -1)
    return Evaluation(
        **{**task.said, "reader": tuple(np.repeat(names, len(masks)).tolist())},
        mask=tuple(masks) * len(names),
        score=score,
        n_correct=columns.sum(axis=0) if of_classes else None,
        scores=None if of_classes else columns.mean(axis=0),
        intervals=np.stack(proportion_interval(columns, task.test.clusters), axis=1),
        changes=changes,
    )


def _over_rows(read: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> np.ndarray:
    """Return what is read off each row, of which processes take shares."""
    return shared(len(features), lambda rows: [np.asarray(read(features[rows]))])[0]


def _retrieved(views: np.ndarray, run: Run) -> np.ndarray:
    """Whether each second view finds the first view of its sample, nearest by cosine; (N,) bool."""
    identity = np.arange(views.shape[1])
    return _over_rows(KNN(1, run=run).fit(views[0], identity).classify, views[1]) == identity
