"""Intervals and tests of proportions and paired outcomes, of rows and of clusters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from dimlab.kernels.paired import (
    cluster_sums,
    design_effect,
    mcnemar,
    mcnemar_one_sided,
    paired_interval,
    paired_test,
    paired_test_one_sided,
    proportion_interval,
    tango_interval,
    wilson_interval,
)
from tests import references


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "expected", "decimals"),
    [
        # R package ratesci, R/pairbinci.R (counts 1, 1, 7, 12): "abline(v=c(-0.517,-0.026))",
        # "check using PropCIs: scoreci.mp(7,1,21,0.95)".
        (1, 7, 21, 0.95, (-0.517, -0.026), 3),
        # R package PropCIs, scoreci.mp(25, 28, 618, 0.90), which estimates (28 - 25) / 618.
        (28, 25, 618, 0.90, (-0.0148, 0.0247), 4),
    ],
)
def test_tango_equals_numbers_published_elsewhere(b, c, n, level, expected, decimals):
    bounds = tango_interval(b, c, n, level=level)
    np.testing.assert_array_equal(np.round(bounds, decimals), expected)


@pytest.mark.parametrize(
    ("b", "c", "n"),
    [(1, 7, 21), (0, 0, 30), (5, 0, 30), (0, 3, 200), (12, 9, 100), (40, 20, 160), (2, 2, 4)],
)
def test_tango_inverts_the_score_test_under_the_constrained_likelihood(b, c, n):
    expected = references.paired_score_bounds(b, c, n, norm.ppf(0.975))
    np.testing.assert_allclose(tango_interval(b, c, n), expected, atol=2e-6)


def test_tango_at_the_edges():
    np.testing.assert_allclose(tango_interval(9, 0, 9)[1], 1.0)
    np.testing.assert_allclose(tango_interval(0, 9, 9)[0], -1.0)
    # No discordant pair: (n t)^2 = z^2 n t (1 - t), so t = z^2 / (n + z^2).
    z2 = norm.ppf(0.975) ** 2
    np.testing.assert_allclose(tango_interval(0, 0, 50)[1], z2 / (50 + z2), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 300))
def test_tango_holds_the_estimate_has_width_and_mirrors(data, n):
    b = data.draw(st.integers(0, n))
    c = data.draw(st.integers(0, n - b))
    low, high = tango_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert high - low > 0
    np.testing.assert_allclose(tango_interval(c, b, n), (-high, -low))


@pytest.mark.parametrize(
    ("p_b", "p_c", "n", "least"),
    [(0.05, 0.05, 600, 0.93), (0.06, 0.02, 500, 0.93), (0.01, 0.004, 300, 0.93)],
)
def test_tango_covers(p_b, p_c, n, least):
    rng = np.random.default_rng(0)
    draws = rng.multinomial(n, [p_b, p_c, 1 - p_b - p_c], size=4000)
    low, high = tango_interval(draws[:, 0], draws[:, 1], n)
    coverage = ((low <= p_b - p_c) & (p_b - p_c <= high)).mean()
    assert coverage >= least - 3 * np.sqrt(0.05 * 0.95 / 4000)
    if n * (p_b + p_c) >= 20:
        assert coverage <= 0.97 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_wilson_equals_scipy():
    for k, n in [(0, 7), (7, 7), (3, 10), (480, 500)]:
        expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson_interval(k, n), expected, atol=1e-12)


def test_mcnemar_is_the_exact_binomial_test():
    b, c = np.meshgrid(np.arange(12), np.arange(12))
    expected = [
        binomtest(int(i), int(i + j)).pvalue if i + j else 1.0
        for i, j in zip(b.flat, c.flat, strict=True)
    ]
    np.testing.assert_allclose(mcnemar(b, c).ravel(), expected, rtol=1e-9)
    assert mcnemar(0, 0) == 1.0
    np.testing.assert_allclose(mcnemar(6, 0), 2 / 2**6)  # six fair coins, both extremes


def patients(rng, n_patients, size, p, n_worlds):
    """Changes whose probabilities vary between patients; (rows, worlds) and the patient ids."""
    strength = (1 - 0.3) / 0.3
    draws = rng.gamma(np.array([*p, 1 - sum(p)]) * strength, 1, (n_patients, n_worlds, 3)) + 1e-300
    shares = np.repeat(draws / draws.sum(axis=-1, keepdims=True), size, axis=0)
    u = rng.random(shares.shape[:2])
    change = (u < shares[..., 0]).astype(np.int8) - (u >= 1 - shares[..., 1])
    return change, np.repeat(np.arange(n_patients), size)


def test_cluster_sums_add_rows_of_any_order():
    values = np.arange(12).reshape(6, 2)
    expected = [values[[1, 5]].sum(axis=0), values[[0, 3]].sum(axis=0), values[[2, 4]].sum(axis=0)]
    np.testing.assert_array_equal(cluster_sums(values, np.array([3, 1, 9, 3, 9, 1])), expected)
    np.testing.assert_array_equal(cluster_sums(values, None), values)


def test_the_design_effect_is_the_ratio_of_variances_by_hand():
    change = np.array([1, 1, 0, 0, -1, 0, 0])
    clusters = np.array([0, 0, 0, 1, 1, 2, 2])
    mean = 1 / 7
    between = 3 / 2 * ((2 - 3 * mean) ** 2 + (-1 - 2 * mean) ** 2 + (0 - 2 * mean) ** 2)
    np.testing.assert_allclose(design_effect(change, clusters), between / (3 - 7 * mean**2))
    assert design_effect(np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1])) == 1.0  # never below
    for value in (0, 1, -1):
        assert design_effect(np.full(6, value), np.arange(6) // 3) == 3.0


def test_copies_count_once():
    rng = np.random.default_rng(0)
    change = rng.choice([-1, 0, 0, 0, 1], size=(300, 5))
    copied, clusters = np.repeat(change, 4, axis=0), np.repeat(np.arange(300), 4)
    np.testing.assert_allclose(
        paired_interval(copied, clusters), paired_interval(change), atol=1e-3
    )
    np.testing.assert_allclose(paired_test(copied, clusters), paired_test(change), rtol=1e-9)
    right = change > 0
    np.testing.assert_allclose(
        proportion_interval(np.repeat(right, 4, axis=0), clusters),
        proportion_interval(right),
        atol=1e-3,
    )


def test_without_clusters_these_are_the_textbook_ones():
    change = np.random.default_rng(1).choice([-1, 0, 0, 1], size=(60, 4))
    more, fewer = (change > 0).sum(axis=0), (change < 0).sum(axis=0)
    np.testing.assert_array_equal(paired_interval(change), tango_interval(more, fewer, 60))
    np.testing.assert_array_equal(paired_test(change), mcnemar(more, fewer))
    one_sided = mcnemar_one_sided(more, fewer)
    np.testing.assert_array_equal(paired_test_one_sided(change), one_sided)
    np.testing.assert_array_equal(proportion_interval(change > 0), wilson_interval(more, 60))


def test_where_nothing_changes_the_interval_is_that_of_whole_clusters():
    low, high = paired_interval(np.zeros((40, 1), int), np.arange(40) // 4)
    z2 = t.ppf(0.975, 9) ** 2
    np.testing.assert_allclose([-low, high], z2 / (10 + z2), atol=1e-9)
    assert paired_test(np.zeros((40, 1), int), np.arange(40) // 4) == 1.0
    low, high = proportion_interval(np.ones((40, 1), bool), np.arange(40) // 4)
    np.testing.assert_allclose([low[0], high[0]], [10 / (10 + z2), 1.0])


@pytest.mark.parametrize("seed", range(6))
def test_flips_of_clusters_are_all_sign_vectors(seed):
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 9, size=40)
    change = (-1) ** seed * rng.choice([-1, 0, 1, 1], size=40)
    sums = cluster_sums(change, clusters)
    flipped = np.array(list(itertools.product([-1, 1], repeat=len(sums)))) @ sums
    expected = (np.abs(flipped) >= abs(sums.sum())).mean()
    np.testing.assert_allclose(paired_test(change, clusters), expected, rtol=1e-9)
    expected = (flipped >= sums.sum()).mean()
    np.testing.assert_allclose(paired_test_one_sided(change, clusters), expected, rtol=1e-9)


def test_clusters_of_one_row_give_mcnemar_far_into_the_tail():
    change = np.repeat([1, -1, 0], [80, 5, 40])[:, None]
    np.testing.assert_allclose(paired_test(change, np.arange(125)), mcnemar(80, 5), rtol=1e-9)
    pairs = np.repeat(np.r_[np.ones(60, int), 0], 2)
    many = paired_test(pairs, np.arange(122) // 2)
    np.testing.assert_allclose(many, 2.0**-59)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(2, 60), level=st.sampled_from([0.8, 0.95, 0.9999]))
def test_intervals_of_clusters_hold_their_estimate_and_have_width(data, n, level):
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    change = rng.choice([-1, 0, 1], size=n, p=data.draw(st.permutations([0.0, 0.3, 0.7])))
    clusters = rng.integers(0, data.draw(st.integers(1, n)), size=n)
    low, high = paired_interval(change, clusters, level=level)
    assert -1 <= low <= change.mean() <= high <= 1
    assert low < high
    low, high = proportion_interval(change > 0, clusters, level=level)
    assert 0 <= low <= (change > 0).mean() <= high <= 1
    assert low < high
    assert 0 < paired_test_one_sided(change, clusters) <= 1


@pytest.mark.parametrize(("p", "size"), [((0.1, 0.1), 10), ((0.3, 0.2), 10), ((0.08, 0.03), 5)])
def test_patients_with_many_images_are_covered(p, size):
    change, clusters = patients(np.random.default_rng(2), 40, size, p, 400)
    low, high = paired_interval(change, clusters)
    truth = p[0] - p[1]
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.985
    low, high = tango_interval((change > 0).sum(axis=0), (change < 0).sum(axis=0), len(change))
    assert ((low <= truth) & (truth <= high)).mean() < 0.85  # rows taken to be independent


def test_patients_hold_the_level_of_the_test():
    change, clusters = patients(np.random.default_rng(3), 40, 10, (0.1, 0.1), 300)
    assert (paired_test(change, clusters) <= 0.05).mean() <= 0.06
    assert (paired_test(change) <= 0.05).mean() > 0.2
    change, clusters = patients(np.random.default_rng(4), 40, 10, (0.25, 0.05), 100)
    assert (paired_test(change, clusters) <= 0.05).mean() > 0.7  # and it has power
