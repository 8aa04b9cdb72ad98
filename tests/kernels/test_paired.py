"""Intervals and tests of paired outcomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm

from dimlab.kernels.paired import (
    bootstrap_interval,
    mcnemar,
    sign_flip_test,
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


def test_sign_flips_of_three_numbers_by_hand():
    # |sum| of +-1 +-1 +-1: 3 in 2 of 8 sign vectors, else 1.
    p = sign_flip_test(np.ones((3, 1)), np.random.default_rng(0), 9999)
    np.testing.assert_allclose(p, 0.25, atol=0.02)
    assert sign_flip_test(np.zeros((5, 1)), np.random.default_rng(0), 99)[0] == 1.0


def test_sign_flips_agree_with_the_exact_test_on_signs():
    differences = np.repeat([1.0, -1.0, 0.0], [14, 5, 30])[:, None]
    p = sign_flip_test(differences, np.random.default_rng(1), 9999)
    expected = 2 * binom.cdf(5, 19, 0.5)
    np.testing.assert_allclose(p, expected, atol=4 * np.sqrt(expected / 9999))


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_sign_flips_in_float32_count_as_float64_does(precision, scale):
    # 600 rows: more than are summed together; heavy tails, and columns of equal sizes (ties)
    rng = np.random.default_rng(5)
    heavy = rng.standard_t(2, size=(600, 6)) * 10.0 ** rng.integers(-4, 4, size=(600, 1))
    differences = scale * np.hstack([heavy, rng.choice([-1.0, 0.0, 1.0], size=(600, 3)), 0 * heavy])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        p = sign_flip_test(differences, np.random.default_rng(6), 500)
    finally:
        torch.set_float32_matmul_precision(before)
    signs = 2.0 * np.random.default_rng(6).integers(0, 2, size=(500, 600), dtype=np.int8) - 1
    far = np.abs(differences.sum(axis=0)) - 1e-12 * np.abs(differences).sum(axis=0)
    count = (np.abs(signs @ differences) >= far).sum(axis=0)
    np.testing.assert_array_equal(p, (1 + count) / 501)


def test_sign_flip_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(2)
    p = sign_flip_test(rng.normal(size=(60, 400)), rng, 999)
    assert 0.02 < (p <= 0.05).mean() < 0.09
    shifted = sign_flip_test(rng.normal(0.5, size=(60, 400)), rng, 999)
    assert (shifted <= 0.05).mean() > 0.8  # and it has power


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    rng = np.random.default_rng(3)
    x = rng.normal(0.3, 2.0, size=(2000, 3))
    low, high = bootstrap_interval(x, np.zeros(2000, int), rng, 2000)
    half = 1.96 * x.std(0) / np.sqrt(2000)
    np.testing.assert_allclose(low, x.mean(0) - half, atol=0.015)
    np.testing.assert_allclose(high, x.mean(0) + half, atol=0.015)


def test_bootstrap_over_strata_weighs_every_stratum_alike():
    # Stratum 0 (90 rows) is 0 throughout, stratum 1 (10 rows) is 1: the statistic is always 1/2.
    strata = np.repeat([0, 1], [90, 10])
    low, high = bootstrap_interval(
        strata[:, None].astype(float), strata, np.random.default_rng(4), 200
    )
    np.testing.assert_allclose([low, high], 0.5)


def test_bootstrap_draws_rows_with_replacement_alike_for_all_groups(monkeypatch):
    x = np.random.default_rng(5).normal(size=(30, 1))
    both = np.hstack([x, 2 * x])
    whole = bootstrap_interval(both, np.zeros(30, int), np.random.default_rng(0), 100)
    np.testing.assert_allclose(whole[0][1], 2 * whole[0][0])
    monkeypatch.setattr("dimlab.kernels.paired._ELEMENTS", 100)
    blocked = bootstrap_interval(both, np.zeros(30, int), np.random.default_rng(0), 100)
    np.testing.assert_allclose(whole, blocked, rtol=1e-12)
