"""Samples are drawn from a split, or a split is cut in halves; ``meta["sample"]`` says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimlab.cuts import held_out, keep_every_class, n_classes_kept
from dimlab.names import spelled
from dimlab.pairing import row_names
from dimlab.refusals import Refusal
from dimlab.targets import CLASSES, kind_of

if TYPE_CHECKING:
    from dimlab.representation import Representation


def sampled(test: Representation, max_queries: int | None, *, seed: int) -> Representation:
    """Draw at most ``max_queries`` test samples, and keep their order."""
    if max_queries is None or max_queries >= len(test):
        return test
    note = f"{max_queries} of {len(test)} test samples, drawn with seed {seed}"
    rows = in_order_of_names(test)[drawn(len(test), max_queries, seed=seed)]
    test = test.take(np.sort(rows))
    return test._trusted(meta={**test.meta, "sample": note})


def sampled_train(
    train: Representation, test: Representation, max_train: int | None, *, seed: int
) -> tuple[Representation, Representation]:
    """Draw at most ``max_train`` train samples, a share of each class; test carries the note."""
    if max_train is None or max_train >= len(train):
        return train, test
    classes = None if train.labels is None or kind_of(train.labels) != CLASSES else train.labels
    n_classes = 0 if classes is None else len(np.unique(classes))
    if max_train < n_classes:
        raise Refusal(
            f"max-train must be >= {n_classes}, the number of classes of train; got {max_train}."
        )
    note = f"{max_train} of {len(train)} train samples, drawn with seed {seed}"
    known = test.meta.get("sample")
    test = test._trusted(meta={**test.meta, "sample": f"{known}; {note}" if known else note})
    return train.take(drawn(len(train), max_train, classes, seed=seed)), test


def drawn(n_samples: int, count: int, labels: np.ndarray | None = None, *, seed: int) -> np.ndarray:
    """Draw rows (count,), ascending; with labels (N,) a share of each class, at least one row."""
    rng = np.random.default_rng(seed)
    if labels is None:
        return np.sort(rng.choice(n_samples, count, replace=False))
    shuffled = rng.permutation(n_samples)
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    every = (np.arange(count) * n_samples + n_samples // 2) // count  # evenly spaced
    return np.sort(keep_every_class(labels, shuffled[every], np.delete(shuffled, every)))


def halves(whole: Representation, *, seed: int) -> tuple[Representation, Representation]:
    """Split a representation into train and test by class, whatever the order of its rows."""
    if len(whole) < 2:
        raise Refusal(f"features must have at least 2 samples; got {len(whole)}.")
    order = in_order_of_names(whole)[np.random.default_rng(seed).permutation(len(whole))]
    labels = whole.labels
    if labels is None or kind_of(labels) != CLASSES:
        labels = np.zeros(len(whole), dtype=np.int64)
    judged = held_out(labels, 0.5, order)
    if not judged.any():
        raise Refusal(
            "labels must have a class of at least 2 samples to be cut in train and test; got "
            f"{len(whole)} classes of one. Pass --train FILE."
        )
    test = whole.take(np.flatnonzero(judged))
    n_kept = n_classes_kept(labels, judged)
    note = f"{len(test)} of {len(whole)} samples, the others are train (seed {seed})"
    note += f"; {n_kept} classes with one sample are in train only" if n_kept else ""
    return (
        whole.take(np.flatnonzero(~judged)),
        test._trusted(meta={**test.meta, "sample": note}),
    )


def in_order_of_names(representation: Representation) -> np.ndarray:
    """Return the rows (N,) sorted by their names if all names differ, else as they are."""
    for _, names in row_names(representation).values():
        different, first = np.unique(spelled(names), return_index=True)
        if len(different) == len(names):
            return first
    return np.arange(len(representation))
