"""Intervals and tests of paired outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from dimlab.kernels.paired import (
    mcnemar,
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
