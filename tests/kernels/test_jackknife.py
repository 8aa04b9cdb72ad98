"""Jackknife intervals: the mean's own t interval, unequal blocks, bias, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from dimlab.kernels.jackknife import jackknife_interval, rank_interval


def test_blocks_of_one_give_the_t_interval_of_a_mean():
    x = np.random.default_rng(0).normal(size=15)
    without = np.array([[np.delete(x, i).mean()] for i in range(15)])
    low, high = jackknife_interval(np.array([x.mean()]), without, np.ones(15))
    half = t.ppf(0.975, 14) * x.std(ddof=1) / np.sqrt(15)
    np.testing.assert_allclose([low[0], high[0]], [x.mean() - half, x.mean() + half])


def test_a_bias_in_proportion_to_1_over_n_is_taken_off():
    """The biased variance's jackknife estimate is the unbiased one, exactly."""
    x = np.random.default_rng(1).normal(size=12)
    without = np.array([[np.delete(x, i).var()] for i in range(12)])
    low, high = jackknife_interval(np.array([x.var()]), without, np.ones(12))
    np.testing.assert_allclose((low[0] + high[0]) / 2, x.var(ddof=1))


@pytest.mark.parametrize("counts", [np.full(20, 30), np.array([10] * 10 + [50] * 10)])
def test_it_covers_a_mean_with_blocks_of_any_sizes(counts):
    rng, covered = np.random.default_rng(2), 0
    block = np.repeat(np.arange(20), counts)
    for _ in range(400):
        x = rng.exponential(size=len(block))
        without = np.array([[x[block != b].mean()] for b in range(20)])
        low, high = jackknife_interval(np.array([x.mean()]), without, counts)
        covered += low[0] <= 1 <= high[0]
    assert 0.92 <= covered / 400 <= 0.98


def test_what_is_not_finite_has_no_interval():
    without = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, 1.0]])
    low, high = jackknife_interval(np.array([2.0, 1.0]), without, np.ones(3))
    np.testing.assert_array_equal(np.isnan([low, high]), [[False, True]] * 2)


def test_ranks_are_at_least_one():
    low, high = rank_interval(np.array([1.5]), np.array([[1.1], [3.0], [1.0]]), np.ones(3))
    assert low[0] >= 1
    assert high[0] == np.inf
