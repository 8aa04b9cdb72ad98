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
    """Rows (N,) bool to hold out of train: a share of every class, the first in the order."""
    # Of a class of n samples the number nearest to share * n is held out: at least one of two or
    # more and at most half, so a class with one sample stays in train. Clusters (ids from 0) are
    # taken in turn where that brings the classes' numbers closer to those; a class with one cluster
    # stays in train.
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
    """Draw half of the rows (N,) bool of every class."""
    # An odd row, or a class with one sample, falls to either side; whole clusters halve the classes
    # as well as their sizes allow.
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
    """Fold (N,) of each row from 0, every class dealt evenly; -1: in every train part."""
    # -1 where a class would otherwise have all of its rows in one fold. Whole clusters go, as they
    # come, to the fold that has fewest of their classes.
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
    """Exchange rows of a random draw (n,) so that no class is lost from it."""
    # One row of each class that was missing takes the place of one of the class drawn most often;
    # where n is smaller than the number of classes some stay missing.
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
    """Count the classes of which a cut holds out no row."""
    return len(np.unique(labels)) - len(np.unique(labels[held]))


def _members(
    codes: np.ndarray, clusters: np.ndarray, order: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Give each cluster with its classes and their counts, in order of first appearance."""
    n_classes = int(codes.max()) + 1
    pairs, counts = np.unique(clusters * n_classes + codes, return_counts=True)
    starts = np.searchsorted(pairs // n_classes, np.arange(int(clusters.max()) + 2))
    ids, first = np.unique(clusters[order], return_index=True)
    for cluster in ids[np.argsort(first)].tolist():
        part = slice(starts[cluster], starts[cluster + 1])
        yield cluster, pairs[part] % n_classes, counts[part]
