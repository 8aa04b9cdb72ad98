"""Means of paired differences: tests of a mean of 0, and intervals that agree with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, t

from dimlab.kernels.means import StudentisedMeans, _order_statistic, bootstrap_sums, sign_flip_test


def means_of(x, clusters=None, *, n_draws=999, seed=0, **options):
    rng = np.random.default_rng(seed)
    return StudentisedMeans.of(x, clusters, rng, n_draws, **options)


def rare(rng, share, n, n_worlds):
    """Rows that mostly do not differ; the others are exponential, with a mean of 1."""
    return np.where(rng.random((n, n_worlds)) < share, rng.exponential(1, (n, n_worlds)), 0.0)


def heavy(rng, n, n_worlds):
    """Two per cent of rows lose 3 to 6 nats, the others gain what makes the mean 0."""
    lose = rng.random((n, n_worlds)) < 0.02
    gain = -0.09 / 0.98 + rng.normal(0, 0.05, (n, n_worlds))
    return np.where(lose, rng.uniform(3, 6, (n, n_worlds)), gain)


# Studentised means -----------------------------------------------------------------------------


def test_mean_and_error_are_those_of_the_rows():
    x = np.random.default_rng(0).normal(1.0, 2.0, size=(50, 3))
    means = means_of(x)
    np.testing.assert_allclose(means.mean, x.mean(axis=0))
    np.testing.assert_allclose(means.error, x.std(axis=0, ddof=1) / np.sqrt(50))


def test_drawn_means_are_studentised_by_hand():
    x = np.random.default_rng(1).exponential(size=(12, 2))
    means = means_of(x, n_draws=200)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 12, size=(200, 12))
    drawn = x[rows]
    expected = (drawn.mean(axis=1) - x.mean(axis=0)) / (drawn.std(axis=1, ddof=1) / np.sqrt(12))
    np.testing.assert_allclose(means.drawn, np.sort(expected, axis=0), atol=1e-9)


def test_drawn_clusters_of_unequal_size_have_a_ratio_for_a_mean():
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(9), rng.integers(1, 5, size=9))
    x = rng.normal(size=(len(clusters), 1)) + rng.normal(size=9)[clusters, None]
    means = means_of(x, clusters, n_draws=200)
    sums = np.bincount(clusters, x[:, 0])
    sizes = np.bincount(clusters)
    rest = sums - sizes * x.mean()
    np.testing.assert_allclose(means.error, np.sqrt(9 / 8 * (rest**2).sum()) / len(x))
    expected = []
    for units in np.random.default_rng(0).integers(0, 9, size=(200, 9)):
        mean = sums[units].sum() / sizes[units].sum()
        error = np.sqrt(9 / 8 * ((sums - sizes * mean)[units] ** 2).sum()) / sizes[units].sum()
        expected.append((mean - x.mean()) / error)
    np.testing.assert_allclose(means.drawn[:, 0], np.sort(expected), atol=1e-9)


def test_copies_of_rows_in_clusters_of_their_own_change_nothing():
    x = np.random.default_rng(3).exponential(size=(40, 3)) - 0.8
    once = means_of(x)
    copied = means_of(np.repeat(x, 4, axis=0), np.repeat(np.arange(40), 4))
    np.testing.assert_allclose(copied.interval(), once.interval(), rtol=1e-9)
    np.testing.assert_allclose(copied.p_value, once.p_value, rtol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 60),
    kind=st.sampled_from(["normal", "rare", "zeros", "equal", "signs"]),
    level=st.sampled_from([0.5, 0.95, 0.9995]),
    n_draws=st.sampled_from([1, 400]),
    clustered=st.booleans(),
)
def test_intervals_hold_the_mean_have_width_and_agree_with_the_p_value(
    seed, n, kind, level, n_draws, clustered
):
    rng = np.random.default_rng(seed)
    x = {
        "normal": lambda: rng.normal(0.3, 1, size=(n, 4)),
        "rare": lambda: rare(rng, 0.1, n, 4),
        "zeros": lambda: np.zeros((n, 4)),
        "equal": lambda: np.full((n, 4), 0.1),
        "signs": lambda: rng.choice([-1.0, 0.0, 1.0], size=(n, 4)),
    }[kind]()
    clusters = rng.integers(0, 2 + n // 3, size=n) if clustered else None
    means = means_of(x, clusters, n_draws=n_draws)
    low, high = means.interval(level)
    assert np.isfinite([low, high]).all()
    assert (low <= means.mean).all()
    assert (means.mean <= high).all()
    assert (low < high).all()
    assert ((0 < means.p_value) & (means.p_value <= 1)).all()
    np.testing.assert_array_equal(means.p_value <= 1 - level, (low > 0) | (high < 0))
    mirrored = means_of(-x, clusters, n_draws=n_draws)
    np.testing.assert_allclose(mirrored.p_value, means.p_value, rtol=1e-6)
    np.testing.assert_allclose(mirrored.interval(level), (-high, -low), rtol=1e-6, atol=1e-12)


def test_an_interval_reaches_further_on_the_side_of_the_long_tail():
    x = np.random.default_rng(0).exponential(size=(60, 1)) ** 2 * [1, -1]  # skewed to each side
    means = StudentisedMeans.of(x, None, np.random.default_rng(1), 999)
    low, high = means.interval()
    longer = np.array([high[0] - means.mean[0], means.mean[1] - low[1]])
    shorter = np.array([means.mean[0] - low[0], high[1] - means.mean[1]])
    assert (longer > 1.5 * shorter).all()


def test_a_column_of_zeros_is_certain_of_nothing():
    means = means_of(np.zeros((50, 1)), scale=2.0)
    z2 = norm.ppf(0.975) ** 2
    np.testing.assert_allclose(means.interval()[1], 2.0 * z2 / (50 + z2))  # as Tango's, twice
    assert means.p_value[0] == 1.0
    assert means.unreliable[0]


def test_fewer_than_six_differing_rows_never_reject_at_5_per_cent():
    x = np.zeros((500, 7))
    for m in range(7):
        x[:m, m] = 1.0
    means = means_of(x)
    assert (means.p_value >= np.minimum(1.0, 2 * 0.5 ** np.arange(7))).all()
    assert (means.interval()[0][:6] <= 0).all()


def test_few_differences_and_skewness_are_said():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 4))
    x[19:, 0] = 0.0
    x[20:, 1] = 0.0
    x[:20, 1] = np.resize([1.0, -1.0], 20)
    x[:, 2] = rng.exponential(size=400) ** 3
    assert means_of(x).unreliable.tolist() == [True, False, True, False]
    np.testing.assert_allclose(
        means_of(x).skewness[2], ((x[:, 2] - x[:, 2].mean()) ** 3).mean() / x[:, 2].std() ** 3
    )


def test_tails_finer_than_the_draws_follow_student():
    x = np.random.default_rng(5).normal(size=(300, 40))
    means = means_of(x + 0.35)  # some six standard errors
    expected = 2 * t.sf(np.abs(means.mean / means.error), 299)
    ratio = np.log(means.p_value) / np.log(expected)
    assert means.p_value.max() < 1e-3
    assert (means.p_value >= expected * (1 - 1e-9)).all()  # the larger tail
    assert 0.6 < np.median(ratio) <= 1.0


def test_the_p_value_falls_as_the_mean_leaves_zero():
    x = np.random.default_rng(6).exponential(size=(200, 1)) - 1
    shifts = np.linspace(-0.6, 0.6, 241)
    p = means_of(x + shifts).p_value
    centre = int(p.argmax())
    assert (np.diff(p[: centre + 1]) >= -1e-12).all()
    assert (np.diff(p[centre:]) <= 1e-12).all()


def test_of_evenly_spaced_draws_the_k_th_has_k_parts_below_it():
    """Of 39 draws at 1/40, 2/40, ... the value with a tail of p above it is 1 - p."""
    draws = np.arange(1, 40)[:, None] / 40
    for tail in (0.5, 0.25, 0.1, 0.33):
        np.testing.assert_allclose(_order_statistic(draws, tail), 1 - tail)


def test_too_few_draws_leave_student_alone():
    x = np.random.default_rng(7).exponential(size=(100, 2))
    means = means_of(x, n_draws=50)
    half = t.ppf(0.975, 99) * means.error
    np.testing.assert_allclose(means.interval(), (means.mean - half, means.mean + half))


@pytest.mark.parametrize("clustered", [False, True])
def test_heavy_rows_on_one_side_do_not_reject_a_mean_of_zero(clustered):
    x = heavy(np.random.default_rng(8), 400, 300)
    clusters = None
    if clustered:
        x, clusters = np.repeat(x, 2, axis=0), np.repeat(np.arange(400), 2)
    assert (means_of(x, clusters).p_value <= 0.05).mean() <= 0.05
    few = heavy(np.random.default_rng(8), 100, 100)
    flips = sign_flip_test(few, np.random.default_rng(9), 499)  # a test of symmetry
    assert (flips <= 0.05).mean() > 0.15


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_intervals_of_rarely_active_dimensions_cover(share):
    x = rare(np.random.default_rng(10), share, 600, 400)
    low, high = means_of(x).interval()
    assert 0.93 <= ((low <= share) & (share <= high)).mean() <= 0.985
    oracle = 3.92 * np.sqrt((2 * share - share**2) / 600)
    assert np.median(high - low) < 1.25 * oracle


@pytest.mark.long
@pytest.mark.parametrize("n", [400, 1000])
@pytest.mark.parametrize("kind", ["heavy", "rare", "both sides", "normal", "t3", "lognormal"])
def test_means_cover_and_hold_their_level(kind, n):
    rng = np.random.default_rng([n, len(kind)])
    shape = (n, 1200)
    active = rng.random(shape) < 0.05
    x, mean = {
        "heavy": lambda: (heavy(rng, *shape), 0.0),
        "rare": lambda: (rare(rng, 0.05, *shape), 0.05),
        "both sides": lambda: (np.where(active, rng.standard_t(4, shape), 0.0), 0.0),
        "normal": lambda: (rng.normal(size=shape), 0.0),
        "t3": lambda: (rng.standard_t(3, shape), 0.0),
        "lognormal": lambda: (rng.lognormal(size=shape), np.exp(0.5)),
    }[kind]()
    means = means_of(x, seed=n)
    low, high = means.interval()
    assert ((low <= mean) & (mean <= high)).mean() >= 0.935
    assert np.median(high - low) < 2 * 3.92 * means.mean.std()
    if mean == 0:
        assert (means.p_value <= 0.05).mean() <= 0.06


def test_draws_do_not_depend_on_blocks(monkeypatch):
    x = np.random.default_rng(11).normal(size=(30, 2))
    whole = means_of(x, n_draws=300).drawn
    monkeypatch.setattr("dimlab.kernels.means._ELEMENTS", 1500)
    monkeypatch.setattr("dimlab.kernels.means._ROWS", 7)
    np.testing.assert_allclose(means_of(x, n_draws=300).drawn, whole, atol=1e-9)


def test_bootstrap_sums_draw_whole_clusters():
    clusters = np.repeat(np.arange(5), 4)
    sums = bootstrap_sums(np.ones((20, 1)), np.random.default_rng(0), 50, clusters)
    np.testing.assert_array_equal(sums, 20.0)
    ids = bootstrap_sums(np.eye(5)[clusters], np.random.default_rng(0), 50, clusters)
    np.testing.assert_array_equal(ids % 4, 0.0)


# Flipped signs ---------------------------------------------------------------------------------


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
