"""Means of class means of paired outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.kernels.balanced import balanced_change, balanced_interval, balanced_test
from dimlab.kernels.paired import paired_interval, tango_interval

SHARES = [0.8, 0.15, 0.03, 0.01, 0.01]


def changes(rng, classes, more, fewer, n_worlds):
    u = rng.random((len(classes), n_worlds))
    more, fewer = np.array(more)[classes, None], np.array(fewer)[classes, None]
    return (u < more).astype(np.int8) - (u >= 1 - fewer)


def test_distances_are_added_as_squares_by_hand():
    classes = np.repeat([4, 7], [10, 90])
    change = np.repeat([1, 0, -1, 0], [2, 8, 1, 89])[:, None]
    low, high = balanced_interval(change, classes, level=0.9)
    first, second = tango_interval(2, 0, 10, level=0.9), tango_interval(0, 1, 90, level=0.9)
    estimate = (2 / 10 - 1 / 90) / 2
    below = np.hypot(2 / 10 - first[0], -1 / 90 - second[0]) / 2
    above = np.hypot(first[1] - 2 / 10, second[1] + 1 / 90) / 2
    np.testing.assert_allclose([low[0], high[0]], [estimate - below, estimate + above])
    np.testing.assert_allclose(balanced_change(change, classes), estimate)


def test_one_class_gives_tango():
    change = np.random.default_rng(0).choice([-1, 0, 1], size=(50, 3))
    clusters = np.arange(50) // 3
    classes = np.zeros(50, int)
    np.testing.assert_allclose(balanced_interval(change, classes), paired_interval(change))
    np.testing.assert_allclose(
        balanced_interval(change, classes, clusters), paired_interval(change, clusters)
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), clustered=st.booleans(), level=st.sampled_from([0.8, 0.9999]))
def test_intervals_hold_their_estimate_and_have_width(seed, clustered, level):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, size=rng.integers(2, 40))
    shares = rng.dirichlet([0.3, 0.3, 0.3])
    change = rng.choice([-1, 0, 1], size=(len(classes), 3), p=shares)
    clusters = rng.integers(0, 5, size=len(classes)) if clustered else None
    low, high = balanced_interval(change, classes, clusters, level=level)
    estimate = balanced_change(change, classes)
    assert (low <= estimate + 1e-12).all()
    assert (estimate <= high + 1e-12).all()
    assert ((-1 <= low) & (low < high) & (high <= 1)).all()
    p = balanced_test(change, classes, clusters, rng, 99)
    assert ((0 < p) & (p <= 1)).all()
    low, high = balanced_interval(change, classes, clusters)
    assert ((low > 0) | (high < 0))[p <= 0.05].all()


def test_rows_count_by_the_size_of_their_class():
    # Class 0 loses 9 of 10 rows, class 1 wins 12 of 990: the plain sum would favour class 1.
    classes = np.repeat([0, 1], [10, 990])
    change = np.zeros((1000, 1), np.int8)
    change[:9], change[10:22] = 1, -1
    assert balanced_test(change, classes, None, np.random.default_rng(0), 1999)[0] < 0.01
    assert balanced_change(change, classes) > 0.4


def test_a_class_that_lost_rarely_while_another_won_often_rejects_no_mean_of_zero():
    """Flips alone reject in a sixth of these worlds: few lost rows of a small class."""
    rng = np.random.default_rng(1)
    classes = np.repeat(np.arange(5), [800, 150, 30, 10, 10])
    change = changes(rng, classes, [0, 0, 0, 0.3, 0], [0.3, 0, 0, 0, 0], 200)
    assert (balanced_test(change, classes, None, rng, 499) <= 0.05).mean() <= 0.05


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    ("more", "fewer"),
    [([0.2] * 5, [0.2] * 5), ([0.1] * 5, [0.03] * 5), ([0.01, 0.02, 0.1, 0.3, 0.3], [0.02] * 5)],
)
def test_rare_classes_are_covered(fixed, more, fewer):
    rng = np.random.default_rng(2)
    truth = np.mean(np.subtract(more, fewer))
    inside = []
    for _ in range(8):
        classes = np.repeat(np.arange(5), (1000 * np.array(SHARES)).astype(int))
        if not fixed:
            classes = np.r_[np.arange(5), rng.choice(5, p=SHARES, size=995)]
        low, high = balanced_interval(changes(rng, classes, more, fewer, 50), classes)
        inside.append((low <= truth) & (truth <= high))
    assert np.mean(inside) >= 0.925


def test_a_cluster_with_rows_of_several_classes_correlates_them():
    """Rows of a cluster all change alike: its classes are no independent evidence."""
    rng = np.random.default_rng(3)
    classes, clusters = np.tile(np.arange(5), 40), np.repeat(np.arange(40), 5)
    change = np.repeat(rng.choice([-1, 0, 1], size=(40, 300), p=[0.2, 0.6, 0.2]), 5, axis=0)
    low, high = balanced_interval(change, classes, clusters)
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.985
    low, high = balanced_interval(change, classes)
    assert ((low <= 0) & (high >= 0)).mean() < 0.8


def test_p_values_go_on_below_what_the_draws_resolve():
    classes = np.repeat([0, 1], 200)
    change = np.repeat([1, 0], [60, 340])[:, None] * np.array([[1, -1]])
    p = balanced_test(change, classes, None, np.random.default_rng(4), 199)
    np.testing.assert_allclose(p[0], p[1])
    assert p[0] < 1e-9


def test_nothing_changed_gives_p_of_one():
    change = np.zeros((20, 2), int)
    p = balanced_test(change, np.arange(20) % 3, None, np.random.default_rng(5), 99)
    np.testing.assert_array_equal(p, 1.0)
