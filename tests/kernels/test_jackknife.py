"""Jackknife intervals: the mean's own t interval, unequal blocks, bias, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from dimlab.kernels.jackknife import Scale, jackknife, jackknife_deviations

LOG, RECIPROCAL = (np.log, np.exp), (np.reciprocal, np.reciprocal)


def test_blocks_of_one_give_the_t_interval_of_a_mean():
    x = np.random.default_rng(0).normal(size=15)
    without = np.array([[np.delete(x, i).mean()] for i in range(15)])
    *_, low, high = jackknife(np.array([x.mean()]), without, np.ones(15), Scale())
    half = t.ppf(0.975, 14) * x.std(ddof=1) / np.sqrt(15)
    np.testing.assert_allclose([low[0], high[0]], [x.mean() - half, x.mean() + half])


def test_a_bias_in_proportion_to_1_over_n_is_taken_off():
    """The biased variance's jackknife estimate is the unbiased one, exactly."""
    x = np.random.default_rng(1).normal(size=12)
    without = np.array([[np.delete(x, i).var()] for i in range(12)])
    *_, low, high = jackknife(np.array([x.var()]), without, np.ones(12), Scale())
    np.testing.assert_allclose((low[0] + high[0]) / 2, x.var(ddof=1))


@pytest.mark.parametrize("counts", [np.full(20, 30), np.array([10] * 10 + [50] * 10)])
def test_it_covers_a_mean_with_blocks_of_any_sizes(counts):
    rng, covered = np.random.default_rng(2), 0
    block = np.repeat(np.arange(20), counts)
    for _ in range(400):
        x = rng.exponential(size=len(block))
        without = np.array([[x[block != b].mean()] for b in range(20)])
        *_, low, high = jackknife(np.array([x.mean()]), without, counts, Scale())
        covered += low[0] <= 1 <= high[0]
    assert 0.92 <= covered / 400 <= 0.98


def test_the_interval_of_a_mean_is_centred_at_it_for_blocks_of_any_sizes():
    """Pseudo-values are the blocks' own means, whose squares weigh 1 / (n / count - 1)."""
    rng, counts = np.random.default_rng(5), np.array([3, 20, 7, 50, 11])
    block = np.repeat(np.arange(5), counts)
    x = rng.exponential(size=len(block))
    without = np.array([[x[block != b].mean()] for b in range(5)])
    *_, low, high = jackknife(np.array([x.mean()]), without, counts, Scale())
    apart = np.array([x[block == b].mean() for b in range(5)]) - x.mean()
    half = t.ppf(0.975, 4) * np.sqrt(np.mean(apart**2 / (len(x) / counts - 1)))
    np.testing.assert_allclose([low[0], high[0]], [x.mean() - half, x.mean() + half])


def test_what_is_not_finite_has_no_interval():
    without = np.array([[1.0, np.nan], [2.0, 1.0], [3.0, 1.0]])
    *_, low, high = jackknife(np.array([2.0, 1.0]), without, np.ones(3), Scale())
    np.testing.assert_array_equal(np.isnan([low, high]), [[False, True]] * 2)


def test_an_interval_around_the_plain_value_contains_it():
    x = np.random.default_rng(3).exponential(size=12)
    without = np.array([[np.delete(x, i).var()] for i in range(12)])
    full = np.array([x.var()])
    *_, low, high = jackknife(full, without, np.ones(12), Scale(corrected=False))
    np.testing.assert_allclose((low + high) / 2, full)
    shifted = jackknife(full, without, np.ones(12), Scale())
    np.testing.assert_allclose(high - low, shifted.high - shifted.low)


def test_deviations_of_means_give_their_covariance():
    x = np.random.default_rng(4).normal(size=(12, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    without = np.array([np.delete(x, i, axis=0).mean(axis=0) for i in range(12)])
    mean, deviations = jackknife_deviations(x.mean(axis=0), without, np.ones(12))
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(deviations.T @ deviations, np.cov(x.T) / 12)


def test_ranks_are_at_least_one():
    scale = Scale(*RECIPROCAL, lowest=1.0)
    found = jackknife(np.array([1.5]), np.array([[1.1], [3.0], [1.0]]), np.ones(3), scale)
    assert found.low[0] >= 1
    assert found.high[0] == np.inf
    assert found.low[0] <= found.corrected[0] <= found.high[0]


def test_every_statistic_is_estimated_on_its_own_scale():
    rng = np.random.default_rng(7)
    full, without = np.ones(3), rng.lognormal(sigma=0.1, size=(5, 3))
    scales = [Scale(), Scale(*LOG, lowest=0.5), Scale()]
    together = np.array(jackknife(full, without, np.ones(5), scales))
    for place, scale in enumerate(scales):
        one = slice(place, place + 1)
        alone = jackknife(full[one], without[:, one], np.ones(5), scale)
        np.testing.assert_array_equal(together[:, one], np.array(alone))


@pytest.mark.parametrize("ways", [(), LOG, RECIPROCAL])
def test_a_corrected_value_lies_in_its_interval_on_every_scale(ways):
    rng = np.random.default_rng(5)
    for _ in range(50):
        full = rng.lognormal(size=3)
        without = full * rng.lognormal(sigma=0.4, size=(4, 3))
        scale = Scale(*ways, lowest=0.5, highest=2)
        _, value, low, high = jackknife(full, without, np.array([3, 5, 5, 9]), scale)
        assert (low <= value).all()
        assert (value <= high).all()
        assert ((low >= 0.5) & (high <= 2)).all()


def test_an_interval_beyond_what_is_possible_moves_to_its_end_and_keeps_its_width():
    full, without = np.array([3.2]), np.array([[3.21], [3.2], [3.19]])
    free = jackknife(full, without, np.ones(3), Scale())
    _, value, low, high = jackknife(full, without, np.ones(3), Scale(highest=3.0))
    assert free.low[0] > 3
    assert value[0] == high[0] == 3
    np.testing.assert_allclose(3 - low, free.corrected - free.low)


def test_a_reciprocal_whose_bias_falls_as_1_over_n_is_corrected_exactly():
    x = np.random.default_rng(6).normal(size=12)
    without = np.array([[1 / np.delete(x, i).var()] for i in range(12)])
    scale = Scale(*RECIPROCAL, lowest=0.0)
    found = jackknife(np.array([1 / x.var()]), without, np.ones(12), scale)
    np.testing.assert_allclose(found.corrected, 1 / x.var(ddof=1))
