"""Samples are drawn from a split, or a split is cut in halves, and its results say so."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dimlab.cuts import held_out, keep_every_class, n_classes_kept
from dimlab.names import spelled
from dimlab.pairing import row_names

if TYPE_CHECKING:
    from dimlab.representation import Representation


def check_drawn(name: str, count: int | None) -> None:
    """Refuse to draw nothing.

    Parameters
    ----------
    name : str
        The option's.
    count : int or None
        Its value; None: all.

    Raises
    ------
    ValueError
        If it is < 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"{name} must be >= 1; got {count}.")


def sampled(test: Representation, max_queries: int | None, *, seed: int) -> Representation:
    """Draw test samples, and note in ``meta["sample"]`` that they are not all.

    Parameters
    ----------
    test : Representation
        All of test.
    max_queries : int or None
        How many are wanted, at most; None: all.
    seed : int
        Draws them.

    Returns
    -------
    Representation
        In the order of test.

    Raises
    ------
    ValueError
        If ``max_queries`` < 1.
    """
    check_drawn("max-queries", max_queries)
    if max_queries is None or max_queries >= len(test):
        return test
    note = f"{max_queries} of {len(test)} test samples, drawn with seed {seed}"
    rows = in_order_of_names(test)[drawn(len(test), max_queries, seed=seed)]
    test = test.take(np.sort(rows))
    return replace(test, meta={**test.meta, "sample": note})


def sampled_train(
    train: Representation, test: Representation, max_train: int | None, *, seed: int
) -> tuple[Representation, Representation]:
    """Draw train samples, and note in ``meta["sample"]`` of test that they are not all.

    Parameters
    ----------
    train, test : Representation
        All of train; test, whose results carry the note.
    max_train : int or None
        How many are wanted, at most; None: all.
    seed : int
        Draws them.

    Returns
    -------
    tuple of Representation
        Train, in its order and with every class's share; test.

    Raises
    ------
    ValueError
        If ``max_train`` < 1, or smaller than the number of classes.
    """
    check_drawn("max-train", max_train)
    if max_train is None or max_train >= len(train):
        return train, test
    n_classes = 0 if train.labels is None else len(np.unique(train.labels))
    if max_train < n_classes:
        raise ValueError(
            f"max-train must be >= {n_classes}, the number of classes of train; got {max_train}."
        )
    note = f"{max_train} of {len(train)} train samples, drawn with seed {seed}"
    known = test.meta.get("sample")
    test = replace(test, meta={**test.meta, "sample": f"{known}; {note}" if known else note})
    return train.take(drawn(len(train), max_train, train.labels, seed=seed)), test


def drawn(n_samples: int, count: int, labels: np.ndarray | None = None, *, seed: int) -> np.ndarray:
    """Draw rows without replacement, of every class its share, and at least one, by labels.

    Parameters
    ----------
    n_samples : int
        N, how many there are.
    count : int
        How many are wanted, from 1 to N.
    labels : ndarray of shape (N,), optional
        Class ids.
    seed : int
        Draws them.

    Returns
    -------
    ndarray of shape (count,), int
        Rows in ascending order.

    Examples
    --------
    >>> labels = np.repeat([0, 1], [60, 30])
    >>> np.bincount(labels[drawn(90, 9, labels, seed=1)]).tolist()
    [6, 3]
    """
    rng = np.random.default_rng(seed)
    if labels is None:
        return np.sort(rng.choice(n_samples, count, replace=False))
    shuffled = rng.permutation(n_samples)
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    every = (np.arange(count) * n_samples + n_samples // 2) // count  # evenly spaced
    return np.sort(keep_every_class(labels, shuffled[every], np.delete(shuffled, every)))


def halves(whole: Representation, *, seed: int) -> tuple[Representation, Representation]:
    """Cut a representation in two, class by class, and note in ``meta["sample"]`` that it is.

    Of a class with an odd number of samples train has one more, so one with a single sample is in
    train alone; the note says how many such classes there are. Rows that have names fall on the
    same side in any order of the rows.

    Parameters
    ----------
    whole : Representation
        At least two samples.
    seed : int
        Deals them.

    Returns
    -------
    tuple of Representation
        Train and test, each in the order of the whole.

    Raises
    ------
    ValueError
        If there are fewer than two samples, or every class has one.
    """
    if len(whole) < 2:
        raise ValueError(f"features must have at least 2 samples; got {len(whole)}.")
    order = in_order_of_names(whole)[np.random.default_rng(seed).permutation(len(whole))]
    labels = np.zeros(len(whole), dtype=np.int64) if whole.labels is None else whole.labels
    judged = held_out(labels, 0.5, order)
    if not judged.any():
        raise ValueError(
            "labels must have a class of at least 2 samples to be cut in train and test; got "
            f"{len(whole)} classes of one. Pass --train FILE."
        )
    test = whole.take(np.flatnonzero(judged))
    n_kept = n_classes_kept(labels, judged)
    note = f"{len(test)} of {len(whole)} samples, the others are train (seed {seed})"
    note += f"; {n_kept} classes with one sample are in train only" if n_kept else ""
    return (
        whole.take(np.flatnonzero(~judged)),
        replace(test, meta={**test.meta, "sample": note}),
    )


def in_order_of_names(representation: Representation) -> np.ndarray:
    """Give the rows in the order of their names, so that what is drawn does not depend on theirs.

    Parameters
    ----------
    representation : Representation
        N rows.

    Returns
    -------
    ndarray of shape (N,), int
        Rows; 0, 1, 2, ... where they have no names, or some name repeats.
    """
    for _, names in row_names(representation).values():
        different, first = np.unique(spelled(names), return_index=True)
        if len(different) == len(names):
            return first
    return np.arange(len(representation))
