"""What labels may be: classes, real values, or several labels a sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from dimlab.checks import labels_of
from dimlab.refusals import Refusal, WrongType

CLASSES, VALUES, MULTILABEL = "classes", "values", "multilabel"
KINDS = (CLASSES, VALUES, MULTILABEL)
NAMES = {CLASSES: "classes", VALUES: "real values", MULTILABEL: "several labels a sample"}
SCORES = {  # the first one of each kind is the default
    CLASSES: ("accuracy", "balanced_accuracy", "log_loss"),
    VALUES: ("r2",),
    MULTILABEL: ("mean_average_precision", "mean_average_precision_micro"),
}
VIEW_RETRIEVAL, NEIGHBOURHOOD = "view_retrieval", "neighbourhood"
UNLABELLED = (VIEW_RETRIEVAL, NEIGHBOURHOOD)  # scores that need no labels


def score_in_words(score: str) -> str:
    """Name a score as people write it: R^2, mean average precision."""
    return "R^2" if score == "r2" else score.replace("_", " ")


def kind_of(labels: np.ndarray) -> str:
    """Tell classes (N,), real values (N,) or (N, T) and 0/1 labels (N, T) apart."""
    if labels.dtype.kind == "f":
        return VALUES
    return CLASSES if labels.ndim == 1 else MULTILABEL


def target_of(labels: Any, n_samples: int) -> np.ndarray:
    """Return class ids (N,) int64, real values (N,) or (N, T) float64, or 0/1 labels (N, T)."""
    array = np.asarray(labels)
    if array.dtype.kind != "f" and array.ndim != 2:
        return labels_of(array, n_samples)
    if array.ndim not in (1, 2) or len(array) != n_samples or array.size == 0:
        raise Refusal(
            f"labels must have shape ({n_samples},) or ({n_samples}, T) to match features; got "
            f"{array.shape}."
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            row = np.flatnonzero(~np.isfinite(array.reshape(n_samples, -1)).all(axis=1))[0]
            raise Refusal(f"labels must be finite; got {array[row]} in row {row}.")
        return array.astype(np.float64)
    if array.dtype.kind not in "iub":
        raise WrongType(f"labels must be class ids, class names or numbers; got {array.dtype}.")
    if not np.isin(array, (0, 1)).all():
        raise Refusal(
            "labels of shape (N, T) must be 0 or 1 (several labels a sample) or floating (real "
            f"values); got {array.max()}."
        )
    return array.astype(np.int64)


def as_kind(labels: np.ndarray, kind: str | None, classes: np.ndarray) -> np.ndarray:
    """Read checked labels as another kind of target; ``classes`` (K,) become labels 0 or 1."""
    if kind is None or kind == kind_of(labels):
        return labels
    if kind not in KINDS:
        raise Refusal(f"target_kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}.")
    if kind == VALUES:
        return labels.astype(np.float64)
    if kind == MULTILABEL and labels.dtype.kind == "f":
        return target_of(as_whole(labels).reshape(len(labels), -1), len(labels))
    if kind == MULTILABEL:
        return (labels[:, None] == classes).astype(np.int64)
    if labels.ndim == 2:
        if not (labels.sum(axis=1) == 1).all() or not np.isin(labels, (0, 1)).all():
            raise Refusal(
                "labels of shape (N, T) must be one-hot to be read as classes; got rows with "
                "several labels, or none."
            )
        return labels.argmax(axis=1)
    return labels_of(as_whole(labels), len(labels))


def as_whole(values: np.ndarray) -> np.ndarray:
    """Return whole floats as int64, or refuse those with fractions."""
    whole = values.astype(np.int64)
    if not (whole == values).all():
        raise Refusal(
            f"labels must be whole numbers to be read as classes; got {values[whole != values][0]}."
        )
    return whole


def class_labels(labels: np.ndarray | None, what: str) -> np.ndarray:
    """Return labels that are classes, or say that something needs them."""
    if labels is None:
        raise Refusal(f"{what} needs labels: build the Representation with labels=(N,) class ids.")
    if kind_of(labels) != CLASSES:
        raise Refusal(f"{what} needs labels that are classes; got {NAMES[kind_of(labels)]}.")
    return labels


def score_of(score: str | None, kind: str) -> str:
    """Return a score that suits a kind of target: by default its first one."""
    known = [*(name for names in SCORES.values() for name in names), *UNLABELLED]
    if score is not None and score not in known:
        raise Refusal(f"score must be one of {', '.join(map(repr, known))}; got {score!r}.")
    if score is not None and score not in SCORES[kind]:
        raise Refusal(
            f"score must be one of {', '.join(map(repr, SCORES[kind]))} for labels that are "
            f"{NAMES[kind]}; got {score!r}."
        )
    return score or SCORES[kind][0]
