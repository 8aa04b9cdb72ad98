"""Cuts keep every class in train, draw whole clusters and stay balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.cli.samples import halves, sampled_train
from dimlab.cuts import deal_folds, held_out, keep_every_class, n_classes_kept, random_half
from dimlab.representation import Representation

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(np.array)
SEEDS = st.integers(0, 1000)


def clusters_of(labels, rng, n_clusters):
    """Ids from 0 of random clusters, all of which occur."""
    return np.unique(rng.integers(0, n_clusters, len(labels)), return_inverse=True)[1]


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS, share=st.sampled_from([0.1, 0.2, 0.5]))
def test_the_number_held_out_of_each_class_is_the_nearest_that_leaves_it_in_train(
    labels, seed, share
):
    held = held_out(labels, share, np.random.default_rng(seed).permutation(len(labels)))
    for label in np.unique(labels):
        size, count = (labels == label).sum(), held[labels == label].sum()
        assert count == (0 if size == 1 else np.clip(int(share * size + 0.5), 1, size // 2))
    assert n_classes_kept(labels, held) == (np.unique(labels, return_counts=True)[1] == 1).sum()


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS, share=st.sampled_from([0.1, 0.2, 0.5]), n=st.integers(1, 12))
def test_whole_clusters_are_held_out_and_no_class_leaves_train(labels, seed, share, n):
    rng = np.random.default_rng(seed)
    clusters = clusters_of(labels, rng, n)
    held = held_out(labels, share, rng.permutation(len(labels)), clusters=clusters)
    for cluster in np.unique(clusters):
        assert len(np.unique(held[clusters == cluster])) == 1
    np.testing.assert_array_equal(np.unique(labels[~held]), np.unique(labels))


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS, n=st.integers(2, 12), n_folds=st.integers(2, 5))
def test_a_fold_holds_whole_clusters_and_never_all_of_a_class(labels, seed, n, n_folds):
    rng = np.random.default_rng(seed)
    for clusters in (None, clusters_of(labels, rng, n)):
        folds = deal_folds(labels, n_folds, rng, clusters=clusters)
        for label in np.unique(labels):
            own = folds[labels == label]
            assert (own == -1).all() or len(np.unique(own)) > 1
            if clusters is None and len(own) > 1:  # dealt in turn
                counts = np.bincount(own, minlength=n_folds)
                assert counts.max() - counts.min() <= 1
        if clusters is not None:
            known = folds >= 0
            for cluster in np.unique(clusters):
                assert len(np.unique(folds[known & (clusters == cluster)])) <= 1


@pytest.mark.parametrize("size", [1, 3, 8])
def test_clusters_of_one_class_are_halved_evenly_and_each_is_as_likely_in_either_half(size):
    labels = np.repeat(np.arange(2), 10 * size)
    clusters = np.repeat(np.arange(20), size)
    rng = np.random.default_rng(0)
    halves = np.array([random_half(labels, rng, clusters=clusters) for _ in range(300)])
    for label in (0, 1):
        np.testing.assert_array_equal(halves[:, labels == label].sum(axis=1), 5 * size)
    drawn = halves[:, ::size].mean(axis=0)
    assert np.abs(drawn - 0.5).max() < 4 * np.sqrt(0.25 / 300)
    held = held_out(labels, 0.2, rng.permutation(len(labels)), clusters=clusters)
    np.testing.assert_array_equal(np.bincount(labels[held]), 2 * size)


def test_an_odd_cluster_falls_to_either_half():
    rng, clusters = np.random.default_rng(0), np.repeat([0, 1, 2], 4)
    drawn = [random_half(np.zeros(12, int), rng, clusters=clusters).sum() for _ in range(200)]
    assert set(drawn) == {4, 8}
    assert abs(np.mean(drawn) - 6) < 4 * 2 / np.sqrt(200)


def test_mixed_clusters_of_unequal_size_are_cut_as_evenly_as_they_allow():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), rng.integers(1, 15, 60))
    labels = rng.integers(0, 3, len(clusters))
    share = len(labels) / 3
    for _ in range(20):
        half = random_half(labels, rng, clusters=clusters)
        assert np.abs(np.bincount(labels[half]) / share - 0.5).max() < 0.1
        held = held_out(labels, 0.2, rng.permutation(len(labels)), clusters=clusters)
        assert np.abs(np.bincount(labels[held]) / share - 0.2).max() < 0.1


def test_a_class_of_two_clusters_is_judged_by_the_smaller_one():
    clusters = np.repeat([0, 1], [12, 8])
    held = held_out(np.zeros(20, dtype=int), 0.2, np.arange(20), clusters=clusters)
    np.testing.assert_array_equal(held, clusters == 1)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, seed=SEEDS, count=st.integers(1, 40))
def test_a_draw_keeps_every_class_that_has_room_in_it(labels, seed, count):
    order = np.random.default_rng(seed).permutation(len(labels))
    kept = keep_every_class(labels, order[:count], order[count:])
    assert len(np.unique(kept)) == len(kept) == min(count, len(labels))
    assert len(np.unique(labels[kept])) == min(len(np.unique(labels)), len(kept))
    if len(np.unique(labels[order[:count]])) == len(np.unique(labels)):
        np.testing.assert_array_equal(kept, order[:count])


@pytest.mark.parametrize("seed", range(6))
def test_a_file_cut_in_two_leaves_classes_of_one_sample_in_train_and_says_so(seed):
    labels = np.array([0, 1, 2, 2, 2, 3, 3, 4, 5, 5])
    whole = Representation(np.eye(10), labels=labels)
    train, test = halves(whole, seed=seed)
    assert set(train.labels) == set(range(6))
    assert sorted(test.labels) == [2, 3, 5]
    assert test.meta["sample"] == (
        f"3 of 10 samples, the others are train (seed {seed}); 3 classes with one sample are in "
        "train only"
    )
    assert len(halves(Representation(np.eye(5)), seed=seed)[1]) == 2
    with pytest.raises(ValueError, match=r"class of at least 2 samples .*; got 10 classes of one"):
        halves(Representation(np.eye(10), labels=np.arange(10)), seed=seed)


def test_drawn_train_samples_hold_every_class_or_are_refused():
    labels = np.append(np.zeros(95, int), np.arange(1, 6))
    train = Representation(np.ones((100, 1)), labels=labels)
    for seed in range(5):
        few, _ = sampled_train(train, train, 6, seed=seed)
        assert sorted(few.labels) == list(range(6))
    with pytest.raises(ValueError, match=r"^max-train must be >= 6, the number of classes of tr"):
        sampled_train(train, train, 5, seed=0)
