"""Formulas of singular values: closed forms, laws, and what packages publish."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress

from dimlab.kernels import spectra

RANKS = [spectra.entropy_rank, spectra.participation_ratio, spectra.stable_rank]
positive = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_k_equal_values_have_rank_k(rank, k):
    values = np.concatenate([np.full(k, 2.5), np.zeros(4)])
    np.testing.assert_allclose(rank(values), k, rtol=1e-12)


def test_halving_values_by_hand():
    """8 .. 1/4 sum to 15.75, their squares to 85.3125, the fourth powers to 4369.06640625."""
    values = np.array([8, 4, 2, 1, 0.5, 0.25])
    shares = values / 15.75
    np.testing.assert_allclose(
        np.log(spectra.entropy_rank(values)), -(shares * np.log(shares)).sum()
    )
    assert round(spectra.entropy_rank(values), 2) == 3.69
    np.testing.assert_allclose(spectra.participation_ratio(values), 85.3125**2 / 4369.06640625)
    np.testing.assert_allclose(spectra.stable_rank(values), 85.3125 / 64)
    assert spectra.condition_number(values) == 32.0
    assert spectra.condition_number(np.array([1.0, 0.0])) == np.inf


@given(positive, st.floats(1e-3, 1e3))
def test_ranks_do_not_depend_on_scale_and_are_ordered(values, scale):
    values = np.sort(values)[::-1]
    found = [rank(values) for rank in RANKS]
    np.testing.assert_allclose([rank(scale * values) for rank in RANKS], found, rtol=1e-9)
    # Renyi entropies fall with their order: of shares of squares 2 and infinity
    assert 1 - 1e-9 <= found[2] <= found[1] + 1e-9 <= len(values) + 2e-9
    assert found[0] <= len(values) + 1e-9


def test_what_is_added_to_shares_can_exceed_the_rank():
    values = np.concatenate([np.ones(8), np.zeros(504)])
    assert spectra.entropy_rank(values) == pytest.approx(8)
    assert spectra.entropy_rank(values, added=1e-5) > 8.4  # peers.md: 8.44 on rank 8


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.3])
def test_an_exact_power_law_is_found_in_any_range(exponent):
    values = 7 * np.arange(1, 60) ** (-exponent / 2)
    for ranks in ((1, 59), (11, 40), (5, 6)):
        np.testing.assert_allclose(spectra.power_law(values, ranks), (exponent, 1.0), rtol=1e-9)


def test_the_power_law_is_scipys_regression():
    values = np.sort(np.random.default_rng(0).exponential(size=50))[::-1]
    fit = linregress(np.log(np.arange(4, 41)), np.log(values[3:40] ** 2))
    found = spectra.power_law(values, (4, 40))
    np.testing.assert_allclose(found, (-fit.slope, fit.rvalue**2), rtol=1e-10)


def test_lidar_of_known_covariances_is_the_rank_of_their_ratio():
    within, between = np.diag([4.0, 1.0, 1.0]), np.diag([4.0, 1.0, 1.0])
    found = spectra.discriminant_rank(within, between, added=0.0, delta=0.0)
    np.testing.assert_allclose(found, 3, rtol=1e-12)
    found = spectra.discriminant_rank(within, np.diag([1.0, 0, 0]), added=0.0, delta=1e-4)
    np.testing.assert_allclose(found, 1, rtol=1e-12)


def test_lidar_does_not_depend_on_the_axes():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 9))
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    plain = spectra.discriminant_rank(a @ a.T, b @ b.T, added=0.0, delta=1e-4)
    turned = spectra.discriminant_rank(q @ a @ a.T @ q.T, q @ b @ b.T @ q.T, added=0.0, delta=1e-4)
    np.testing.assert_allclose(turned, plain, rtol=1e-9)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], []])
@pytest.mark.parametrize("rank", [*RANKS, spectra.condition_number])
def test_undefined_ranks_raise(rank, values):
    with pytest.raises(
        ValueError, match="singular_values must be finite, not negative and not all"
    ):
        rank(np.array(values))


@pytest.mark.parametrize("ranks", [(0, 3), (2, 2), (1, 6), (3, 1)])
def test_bad_ranges_raise(ranks):
    with pytest.raises(ValueError, match=r"^fit_range must be two ranks in 1\.\.5"):
        spectra.power_law(np.array([5.0, 4, 3, 2, 1, 0]), ranks)
