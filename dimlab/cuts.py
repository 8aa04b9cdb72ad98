"""Cuts of labelled rows: train and held-out rows, random halves, folds.

A cut into train and held-out rows keeps every class in train: what is never seen cannot be read.
Whole clusters go to one side where clusters are given.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def held_out(
    labels: np.ndarray, share: float, order: np.ndarray, *, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Choose rows to hold out of train, a share of every class.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Classes, or any strata.
    share : float
        In (0, 0.5].
    order : ndarray of shape (N,), int
        A random permutation of the rows, or any other order: the first of each class are held out.
    clusters : ndarray of shape (N,), int, optional
        Ids from 0 of rows that belong together.

    Returns
    -------
    ndarray of shape (N,), bool
        True where a row is held out.

    Notes
    -----
    Of a class of n samples the number nearest to ``share * n`` is held out: at least one of two or
    more and at most half, so a class with one sample stays in train. Clusters are taken in turn
    where that brings the classes' numbers closer to those; a class with one cluster stays in train.

    Examples
    --------
    >>> held_out(np.array([0, 0, 0, 0, 0, 1, 1, 2]), 0.2, np.arange(8)).nonzero()[0].tolist()
    [0, 5]
    >>> held_out(np.zeros(6, int), 0.5, np.arange(6), clusters=np.array([0, 0, 0, 0, 1, 2])) * 1
    array([0, 0, 0, 0, 1, 1])
    """
    _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    target = np.minimum(np.maximum((share * sizes + 0.5).astype(np.int64), 1), sizes // 2)
    if clusters is None:
        by_class = order[np.argsort(codes[order], kind="stable")]
        rank = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        held = np.zeros(len(codes), dtype=bool)
        held[by_class[rank < np.repeat(target, sizes)]] = True
        return held
    least = np.full(len(sizes), np.iinfo(np.int64).max)
    for _, own, counts in _members(codes, clusters, order):
        least[own] = np.minimum(least[own], counts)
    # half of the smallest cluster is too little to take it
    wanted, taken = np.where(least < sizes, np.maximum(target, least), 0), np.zeros_like(sizes)
    most = np.maximum(wanted, sizes // 2)
    chosen = np.zeros(int(clusters.max()) + 1, dtype=bool)
    for cluster, own, counts in _members(codes, clusters, order):
        after = taken[own] + counts
        closer = (np.abs(after - wanted[own]) - np.abs(taken[own] - wanted[own])).sum() < 0
        if closer and (after <= most[own]).all():
            chosen[cluster], taken[own] = True, after
    return chosen[clusters]


def random_half(
    labels: np.ndarray, rng: np.random.Generator, *, clusters: np.ndarray | None = None
) -> np.ndarray:
    """Draw half of the rows of every class; both halves are alike, and neither is train.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Classes, or any strata.
    rng : numpy.random.Generator
        Draws the half.
    clusters : ndarray of shape (N,), int, optional
        Ids from 0 of rows that belong together.

    Returns
    -------
    ndarray of shape (N,), bool
        True in the half drawn. An odd row, or a class with one sample, falls to either side; whole
        clusters halve the classes as well as their sizes allow.

    Examples
    --------
    >>> half = random_half(np.array([0, 0, 1, 1]), np.random.default_rng(0))
    >>> int(half[:2].sum()), int(half[2:].sum())
    (1, 1)
    """
    if clusters is None:
        chosen = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            chosen[rows[: int(len(rows) / 2 + rng.random())]] = True
        return chosen
    codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    ahead = np.zeros(len(sizes), dtype=np.int64)  # rows drawn, less rows not drawn
    drawn = np.zeros(int(clusters.max()) + 1, dtype=bool)
    for cluster, own, counts in _members(codes, clusters, rng.permutation(len(codes))):
        gap = np.abs(ahead[own] + counts).sum() - np.abs(ahead[own] - counts).sum()
        drawn[cluster] = gap < 0 or (gap == 0 and rng.random() < 0.5)
        ahead[own] += counts if drawn[cluster] else -counts
    return drawn[clusters]


def deal_folds(
    labels: np.ndarray,
    n_folds: int,
    rng: np.random.Generator,
    *,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """Deal the rows of every class to folds, in random order.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Classes, or any strata.
    n_folds : int
        Number of folds, >= 2.
    rng : numpy.random.Generator
        Shuffles the rows.
    clusters : ndarray of shape (N,), int, optional
        Ids from 0 of rows that belong together: whole clusters are dealt, each to the fold that
        has fewest of its classes.

    Returns
    -------
    ndarray of shape (N,), int64
        Fold from 0; -1 where the row's class would otherwise have all of its rows in one fold:
        such rows are in every train part and never held out.

    Examples
    --------
    >>> folds = deal_folds(np.array([0, 0, 0, 0, 1]), 2, np.random.default_rng(0))
    >>> sorted(folds[:4].tolist()), int(folds[4])
    ([0, 0, 1, 1], -1)
    """
    codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    shuffled = rng.permutation(len(codes))
    folds = np.empty(len(codes), dtype=np.int64)
    if clusters is None:
        folds[shuffled[np.argsort(codes[shuffled], kind="stable")]] = (
            np.arange(len(codes)) % n_folds
        )
    else:
        counted = np.zeros((n_folds, len(sizes)), dtype=np.int64)
        dealt = np.empty(int(clusters.max()) + 1, dtype=np.int64)
        for cluster, own, counts in _members(codes, clusters, shuffled):
            # of folds with as few of its classes the one with fewest rows
            few = np.lexsort((counted.sum(axis=1), counted[:, own] @ counts))
            dealt[cluster] = few[0]
            counted[few[0], own] += counts
        folds = dealt[clusters]
    in_fold = np.zeros((n_folds, len(sizes)), dtype=bool)
    in_fold[folds, codes] = True
    folds[in_fold.sum(axis=0)[codes] == 1] = -1
    return folds


def keep_every_class(labels: np.ndarray, chosen: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Exchange rows of a random draw so that no class is lost from it.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Classes of all rows.
    chosen : ndarray of shape (n,), int
        The rows drawn.
    others : ndarray of shape (N - n,), int
        The rest, in random order.

    Returns
    -------
    ndarray of shape (n,), int
        The draw, in which one row of each class that was missing takes the place of a row of the
        class drawn most often; where n is smaller than the number of classes some stay missing.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> keep_every_class(labels, np.array([0, 2, 3]), np.array([1, 4])).tolist()
    [0, 2, 4]
    """
    chosen = chosen.copy()
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes[chosen], minlength=len(classes))
    for missing in np.flatnonzero(counts == 0).tolist():
        most = int(counts.argmax())
        if counts[most] < 2:
            break
        place = np.flatnonzero(codes[chosen] == most)[-1]
        chosen[place] = others[codes[others] == missing][0]
        counts[[most, missing]] += [-1, 1]
    return chosen


def n_classes_kept(labels: np.ndarray, held: np.ndarray) -> int:
    """Count the classes of which a cut holds out no row.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Classes.
    held : ndarray of shape (N,), bool
        From `held_out`, or ``folds >= 0`` of `deal_folds`.

    Returns
    -------
    int
        Number of classes that are in train only.

    Examples
    --------
    >>> n_classes_kept(np.array([0, 0, 1]), np.array([True, False, False]))
    1
    """
    return len(np.unique(labels)) - len(np.unique(labels[held]))


def _members(
    codes: np.ndarray, clusters: np.ndarray, order: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Give each cluster with its class indices and their numbers, as they come in an order."""
    n_classes = int(codes.max()) + 1
    pairs, counts = np.unique(clusters * n_classes + codes, return_counts=True)
    starts = np.searchsorted(pairs // n_classes, np.arange(int(clusters.max()) + 2))
    ids, first = np.unique(clusters[order], return_index=True)
    for cluster in ids[np.argsort(first)].tolist():
        part = slice(starts[cluster], starts[cluster + 1])
        yield cluster, pairs[part] % n_classes, counts[part]
