import numpy as np
import pytest

from dimlab.clusters import (
    cluster_ids,
    cluster_ids_of_pair,
    n_repeated_rows,
    warning_of_copies,
)
from dimlab.representation import Representation


def split_of(patients, rng):
    return Representation(rng.normal(size=(len(patients), 3)), factors={"patient": patients})


def test_names_arrays_and_pairs_say_the_same(rng):
    train = split_of(np.array(["b", "a", "b"]), rng)
    test = split_of(np.array(["c", "c", "a", "d"]), rng)
    named = cluster_ids_of_pair(train, test, "patient")
    given = cluster_ids_of_pair(train, test, (train.factors["patient"], test.factors["patient"]))
    for a, b in zip(named, given, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(named[0], [0, 1, 0])
    np.testing.assert_array_equal(named[1], [0, 0, 1, 2])
    alone = cluster_ids_of_pair(train, test, np.array([5, 5, 2, 9]))
    assert alone[0] is None
    np.testing.assert_array_equal(alone[1], [0, 0, 1, 2])


def test_clusters_of_one_row_each_are_no_clusters(rng):
    split = split_of(np.arange(4), rng)
    assert cluster_ids(split, "patient") is None
    assert cluster_ids(split, None) is None


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ("hospital", "one of 'patient'; got 'hospital'"),
        (np.zeros(3), "to match features; got"),
        (np.zeros(4), "at least two clusters"),
        (np.array([0.0, np.nan, 1.0, 1.0]), "no missing values"),
    ],
)
def test_what_cannot_be_clusters_is_refused(rng, clusters, message):
    with pytest.raises(ValueError, match=message):
        cluster_ids(split_of(np.array([0, 0, 1, 1]), rng), clusters)


def test_a_tuple_of_three_is_refused(rng):
    split = split_of(np.array([0, 0, 1, 1]), rng)
    with pytest.raises(ValueError, match="pair of arrays"):
        cluster_ids_of_pair(split, split, (None, None, None))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_rows_are_counted_as_unique_counts_them(rng, dtype):
    features = rng.integers(0, 2, size=(500, 7)).astype(dtype)
    features[::2][features[::2] == 0] *= -1.0  # -0.0 equals 0.0
    assert n_repeated_rows(features) == 500 - len(np.unique(features, axis=0))
    assert n_repeated_rows(rng.normal(size=(500, 7)).astype(dtype)) == 0


def test_rows_that_are_sorted_otherwise_are_no_copies(rng):
    row = rng.normal(size=6)
    assert n_repeated_rows(np.array([row, row[::-1], -row, row * 2])) == 0


def test_copies_are_warned_of_above_one_percent(rng):
    features = rng.normal(size=(200, 3))
    features[1] = features[0]
    features[2] = features[0]
    assert warning_of_copies(Representation(features), None) is None
    features[3] = features[0]
    assert "clusters=" in warning_of_copies(Representation(features), None)
    assert warning_of_copies(Representation(features), np.arange(200) // 4) is None
