"""Correlation: closed forms, nulls that hold at their level, dead dimensions, streams."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from dimlab.kernels.correlation import (
    effective_samples,
    gaussian_correlations,
    independent_correlations,
    largest_singular_value,
    off_diagonal_rms,
    permuted_correlations,
)
from dimlab.kernels.jackknife import Scale, jackknife
from dimlab.kernels.moments import deal
from dimlab.moments import Moments
from dimlab.probes.correlate import correlate
from dimlab.representation import Representation
from dimlab.training.losses import cross_correlation
from tests import worlds


def two_views(rng, n=500, d=6, noise=0.5, mean=0.0):
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + mean
    views = np.stack([x + noise * rng.normal(size=x.shape) for _ in range(2)])
    return Representation(x, views=views)


# By hand and closed forms ----------------------------------------------------------------------


def test_by_hand():
    """Columns (1, 0, -1), (1, -2, 1) are orthogonal; the third is minus the first."""
    features = np.array([[1.0, 1.0, -1.0], [0.0, -2.0, 0.0], [-1.0, 1.0, 1.0]])
    found = correlate(Representation(features), n_draws=0)
    np.testing.assert_allclose(found.matrix, [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-15)
    # mean squares 1/2, 0, 1/2; chance is 1 / (N - 1) = 1/2
    np.testing.assert_allclose(found.redundancy, [0, -1, 0], atol=1e-15)
    np.testing.assert_allclose(found.off_diagonal_rms_plain, np.sqrt(2 / 6))
    assert found.off_diagonal_rms == 0  # 1/3 is less than chance gives
    assert found.top_pairs(2).round(12).values.tolist() == [[0, 2, -1], [0, 1, 0]]
    assert found.largest_entry == pytest.approx(1)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_identical_views_have_a_diagonal_of_one(mean):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 5)) + mean).astype("f4")
    found = correlate(Representation(x, views=np.stack([x, x])), n_draws=0)
    assert found.kind == "cross-view"
    np.testing.assert_allclose(found.diagonal, 1, atol=1e-12)
    np.testing.assert_array_equal(found.diagonal_low, 1)
    # negative control: other noise in each view
    assert (correlate(two_views(rng, mean=mean), n_draws=0).diagonal < 0.999).all()


@pytest.mark.parametrize("r", [0.2, 0.8])
def test_equicorrelated_dimensions(r):
    world = worlds.equicorrelated_world(np.random.default_rng(1), 40_000, 8, r)
    found = correlate(world, n_draws=0)
    np.testing.assert_allclose(found.off_diagonal_rms, r, atol=0.02)
    np.testing.assert_allclose(found.singular_values[0], 1 + 7 * r, atol=0.1)
    np.testing.assert_allclose(found.singular_values[1:], 1 - r, atol=0.05)
    np.testing.assert_allclose(found.redundancy, r**2, atol=0.03)
    assert (found.redundancy_low < r**2).mean() > 0.7
    assert (found.redundancy_high > r**2).mean() > 0.7


@pytest.mark.parametrize(("n", "d"), [(50, 10), (50, 40), (2000, 10)])
def test_redundancy_is_zero_without_dependence_whatever_the_sizes(n, d):
    rng = np.random.default_rng(2)
    means = [
        correlate(Representation(rng.normal(size=(n, d))), n_draws=0).redundancy.mean()
        for _ in range(30)
    ]
    assert abs(np.mean(means)) < 4 * np.std(means) / np.sqrt(30) + 1e-4
    raw = 1 / (n - 1)  # what the mean square itself would say
    assert abs(np.mean(means)) < 0.3 * raw + 1e-4


# Oracles -------------------------------------------------------------------------------------


def test_the_matrix_is_numpys_and_that_of_the_training_loss():
    representation = two_views(np.random.default_rng(3), mean=3.0)
    a, b = representation.views
    d = a.shape[1]
    found = correlate(representation, n_draws=0)
    np.testing.assert_allclose(found.matrix, np.corrcoef(a.T, b.T)[:d, d:], atol=1e-12)
    loss = cross_correlation(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(found.matrix, loss, atol=1e-4)  # the loss adds BatchNorm's eps
    within = correlate(representation, within=True, n_draws=0)
    assert within.kind == "within-view"
    np.testing.assert_allclose(within.matrix, np.corrcoef(representation.features.T), atol=1e-12)
    values = np.linalg.svd(found.matrix, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, values)


def test_lanczos_finds_the_largest_singular_value():
    rng = np.random.default_rng(4)
    for d in (5, 80, 150):
        matrix = rng.normal(size=(d, d))
        np.testing.assert_allclose(
            largest_singular_value(matrix), np.linalg.norm(matrix, 2), rtol=1e-4
        )


# Laws ----------------------------------------------------------------------------------------


def test_independent_correlations_have_the_mean_determinant_of_wisharts_law():
    """E |R| of N rows of D independent Gaussians is prod_i (1 - i / (N - 1)), i = 1 .. D - 1."""
    rng = np.random.default_rng(7)
    for n, d in ((8, 5), (30, 12)):
        draws = list(independent_correlations(n, d, 3000, rng))
        expected = np.prod(1 - np.arange(1, d) / (n - 1))
        np.testing.assert_allclose(np.mean(np.linalg.det(draws)), expected, rtol=0.06)
        off = np.stack(draws)[:, ~np.eye(d, dtype=bool)]
        np.testing.assert_allclose((off**2).mean(), 1 / (n - 1), rtol=0.03)


def test_affine_changes_of_a_dimension_change_signs_only():
    rng = np.random.default_rng(5)
    representation = two_views(rng)
    scale, shift = np.array([2, -3, 0.5, 1, -1, 9]), rng.normal(size=6)
    moved = Representation(
        representation.features * scale + shift, views=representation.views * scale + shift
    )
    plain, other = correlate(representation, n_draws=0), correlate(moved, n_draws=0)
    sign = np.sign(scale)
    np.testing.assert_allclose(other.matrix, plain.matrix * np.outer(sign, sign), atol=1e-10)
    np.testing.assert_allclose(other.redundancy, plain.redundancy, atol=1e-10)


def test_permuted_dimensions_permute_everything():
    rng = np.random.default_rng(6)
    representation, order = two_views(rng), rng.permutation(6)
    plain = correlate(representation, n_draws=5)
    other = correlate(representation.select(order), n_draws=5)
    for name in ("diagonal", "redundancy", "diagonal_low", "redundancy_high"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name)[order], atol=1e-10)
    np.testing.assert_allclose(other.matrix, plain.matrix[np.ix_(order, order)], atol=1e-12)


def test_streams_and_merged_states_equal_the_whole():
    representation = two_views(np.random.default_rng(7), n=900, mean=1000.0)
    a, b = representation.views
    whole = correlate(representation, n_draws=0)
    streamed = correlate(Moments.of(zip(np.array_split(a, 7), np.array_split(b, 7), strict=True)))
    np.testing.assert_allclose(streamed.matrix, whole.matrix, atol=1e-10)
    np.testing.assert_allclose(streamed.diagonal_low, whole.diagonal_low, atol=1e-9)
    assert streamed.null_band == {}
    assert "no rows" in streamed.null_law
    merged = Moments.of((a[:100], b[:100])).merge(Moments.of((a[100:], b[100:])))
    np.testing.assert_allclose(correlate(merged, n_draws=0).matrix, whole.matrix, atol=1e-10)


def test_the_cluster_order_brings_groups_together():
    world, group = worlds.grouped_world(np.random.default_rng(8), n_dimensions=40)
    found = correlate(world, n_draws=0)
    assert sorted(found.order) == list(range(40))
    n_changes = (np.diff(group[found.order]) != 0).sum()
    assert n_changes == group.max()  # every group in one piece


# Nulls ---------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("kind", ["cross-view", "within-view", "moments"])
def test_null_bands_hold_at_their_level(kind):
    """On worlds without dependence each band holds its number in about 95 % of the cases."""
    inside = np.zeros(3)
    n_worlds = 200
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(6, 6))
        a, b = rng.exponential(size=(2, 60, 6))
        if kind == "cross-view":  # dependent within each view, not between them
            source = Representation(a, views=np.stack([a @ mixing, b @ mixing]))
        else:
            source = Representation(a) if kind == "within-view" else Moments.of(a)
        found = correlate(source, n_draws=100, seed=seed)
        low, high = found.null_band["off_diagonal_rms"]
        inside += [
            low <= found.off_diagonal_rms <= high,
            found.singular_values[0] <= found.null_band["largest_singular_value"][1],
            found.largest_entry <= found.null_band["largest_entry"][1],
        ]
    assert (inside / n_worlds >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / n_worlds)).all()
    if kind != "moments":  # Gaussian columns stand in for exponential ones there
        assert (inside < n_worlds).all()


def test_dependence_lies_outside_the_null_bands():
    found = correlate(two_views(np.random.default_rng(9)), n_draws=50)
    assert found.null_band["off_diagonal_rms"][0] == 0
    for name, value in (
        ("off_diagonal_rms", found.off_diagonal_rms),
        ("largest_singular_value", found.singular_values[0]),
        ("largest_entry", found.largest_entry),
    ):
        assert value > 2 * found.null_band[name][1]
    assert found.marchenko_pastur_edge is None


def test_the_marchenko_pastur_edge_bounds_independent_dimensions():
    rng = np.random.default_rng(10)
    found = correlate(Representation(rng.normal(size=(800, 200))), n_draws=10)
    np.testing.assert_allclose(found.marchenko_pastur_edge, (1 + np.sqrt(200 / 799)) ** 2)
    np.testing.assert_allclose(found.singular_values[0], found.marchenko_pastur_edge, rtol=0.05)


def test_the_laws_at_large_n_are_those_of_permutations():
    rng = np.random.default_rng(11)
    mixing = rng.normal(size=(8, 8))
    a, b = (rng.normal(size=(2000, 8)) @ mixing for _ in range(2))
    within = np.corrcoef(a.T), np.corrcoef(b.T)

    def size(draws):
        found = [(off_diagonal_rms(each), np.linalg.norm(each, 2)) for each in draws]
        return np.quantile(found, [0.1, 0.5, 0.9], axis=0)

    crossed = size(permuted_correlations((a, b), 400, rng))
    np.testing.assert_allclose(
        size(gaussian_correlations(within, 2000, 400, rng)), crossed, rtol=0.12
    )
    alone = size(permuted_correlations((a,), 400, rng))
    np.testing.assert_allclose(size(independent_correlations(2000, 8, 400, rng)), alone, rtol=0.05)
    few = size(independent_correlations(6, 8, 400, rng))
    np.testing.assert_allclose(
        few, size(permuted_correlations((rng.normal(size=(6, 8)),), 400, rng)), rtol=0.1
    )


def test_long_nulls_are_drawn_from_the_law_at_large_n(monkeypatch):
    representation = two_views(np.random.default_rng(12), n=2000)
    short = [correlate(representation, within=within) for within in (False, True)]
    monkeypatch.setattr("dimlab.probes.correlate._PERMUTED", 0.0)
    for within, permuted in zip((False, True), short, strict=True):
        found = correlate(representation, within=within)
        assert "law of permutations at large N" in found.null_law
        for name, band in permuted.null_band.items():
            np.testing.assert_allclose(found.null_band[name], band, rtol=0.25, atol=0.01)


# Chance and clusters ------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(100, 16), (60, 40)])
def test_the_rms_beyond_chance_of_independent_dimensions_is_in_its_interval_with_zero(n, d):
    """The plain value is about 1 / sqrt(N - 1) there, whatever the sample says of 0."""
    inside = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = correlate(Representation(rng.normal(size=(n, d))), n_draws=0, seed=seed)
        low, high = found.off_diagonal_rms_interval
        assert low <= found.off_diagonal_rms <= high
        inside.append(low == 0)
        np.testing.assert_allclose(found.off_diagonal_rms_plain, 1 / np.sqrt(n - 1), rtol=0.2)
    assert np.mean(inside) >= 0.85


def test_the_rms_beyond_chance_is_the_populations():
    """Correlation 0.3 of every pair: without the 1/(N - 1) of chance the mean square is 0.09."""
    found = [
        correlate(worlds.equicorrelated_world(np.random.default_rng(seed), 40, 8, 0.3), n_draws=0)
        for seed in range(60)
    ]
    squares = np.array([each.off_diagonal_rms**2 for each in found])
    plain = np.array([each.off_diagonal_rms_plain**2 for each in found])
    np.testing.assert_allclose(plain - squares, 1 / 39, atol=0.02)
    assert abs(squares.mean() - 0.09) < 3 * squares.std() / np.sqrt(60) + 0.005


def clustered(rng, n_clusters=40, size=10, d=6, share=0.7):
    """Independent dimensions whose rows are alike within clusters."""
    shared = np.repeat(rng.normal(size=(n_clusters, d)), size, axis=0)
    own = rng.normal(size=(n_clusters * size, d))
    return np.sqrt(share) * shared + np.sqrt(1 - share) * own


def test_rows_in_clusters_count_as_fewer():
    rng = np.random.default_rng(30)
    ids = np.repeat(np.arange(40), 10)
    copies = np.repeat(rng.normal(size=(40, 5)), 10, axis=0)
    np.testing.assert_allclose(effective_samples((copies,), ids), 40)
    apart = effective_samples((rng.normal(size=(400, 5)),), ids)
    assert apart.min() > 330
    some = effective_samples((clustered(rng, share=0.5),), ids)
    np.testing.assert_allclose(some.mean(), 400 / (1 + 9 / 4), rtol=0.2)
    dead = copies.copy()
    dead[:, 2] = 0.0
    assert np.isfinite(effective_samples((dead,), ids)).all()


def test_clusters_are_permuted_whole_and_take_off_what_they_add():
    """40 clusters of 10 rows: without them the null is far too narrow, and the rms above 0."""
    ids = np.repeat(np.arange(40), 10)
    beyond, apart, redundancy, plain = [], [], [], []
    for seed in range(25):
        world = Representation(clustered(np.random.default_rng(seed)), factors={"patient": ids})
        found = correlate(world, clusters="patient", n_draws=39, seed=seed)
        naive = correlate(world, n_draws=39, seed=seed)
        for results, each in ((beyond, found), (apart, naive)):
            results.append(each.singular_values[0] > each.null_band["largest_singular_value"][1])
        redundancy.append(found.redundancy.mean())
        plain.append(naive.redundancy.mean())
    assert np.mean(beyond) <= 0.2
    assert np.mean(apart) > 0.8
    assert abs(np.mean(redundancy)) < 4 * np.std(redundancy) / 5 + 0.001
    assert np.mean(plain) > 0.008
    assert "whole clusters" in found.null_law
    assert found.summary()["intervals"].endswith("blocks of clusters.")


def test_clusters_of_two_views_and_of_moments():
    rng = np.random.default_rng(31)
    representation = two_views(rng, n=120)
    ids = np.repeat(np.arange(30), 4)
    found = correlate(representation, clusters=ids, n_draws=5)
    naive = correlate(representation, n_draws=5)
    np.testing.assert_allclose(found.matrix, naive.matrix, rtol=1e-9)
    assert (found.diagonal_low != naive.diagonal_low).all()
    with pytest.raises(ValueError, match=r"^clusters must be left out for moments"):
        correlate(Moments.of(representation.features), clusters=ids)
    with pytest.raises(ValueError, match=r"^clusters must have shape \(120,\) to match features"):
        correlate(representation, clusters=ids[:5])


def test_heavy_tails_are_marked():
    rng = np.random.default_rng(32)
    heavy = correlate(Representation(rng.standard_t(3, size=(500, 6))), n_draws=0)
    assert heavy.caution.startswith("Tails are heavy")
    assert heavy.summary()["caution"] == heavy.caution
    assert correlate(Representation(rng.normal(size=(500, 6))), n_draws=0).caution == ""
    few = correlate(
        Representation(clustered(rng)), n_draws=0, clusters=np.repeat(np.arange(40), 10)
    )
    assert few.caution.startswith("Few clusters")


# Dead dimensions -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, -7e5])
def test_a_constant_dimension_is_a_result_and_in_no_aggregate(value):
    rng = np.random.default_rng(13)
    representation = two_views(rng)
    views = representation.views.copy()
    views[1, :, 2] = value  # in one view only
    with pytest.warns(UserWarning, match=r"^1 of 6 dimensions do not vary and are left out\.$"):
        found = correlate(Representation(views[0], views=views), n_draws=5)
    alive = [0, 1, 3, 4, 5]
    expected = correlate(representation.select(alive), n_draws=5)
    np.testing.assert_array_equal(np.flatnonzero(found.dead), [2])
    assert np.isnan(found.matrix[2]).all()
    assert np.isnan(found.matrix[:, 2]).all()
    assert np.isnan(found.redundancy[2])
    np.testing.assert_allclose(found.off_diagonal_rms, expected.off_diagonal_rms)
    np.testing.assert_allclose(found.redundancy[alive], expected.redundancy)
    np.testing.assert_allclose(found.singular_values, expected.singular_values)
    np.testing.assert_allclose(
        found.null_band["off_diagonal_rms"], expected.null_band["off_diagonal_rms"], rtol=1e-4
    )
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert (summary["n_dead"], summary["dead_dimensions"]) == (1, [2])
    assert found.order[-1] == 2
    frame = found.to_frame()
    assert frame["dead"].tolist() == [False, False, True, False, False, False]
    assert frame["partner"][2] == -1
    assert 2 not in found.top_pairs(100)[["first", "second"]].to_numpy()


# The value and errors ------------------------------------------------------------------------


def test_the_frame_names_the_strongest_partner():
    found = correlate(two_views(np.random.default_rng(14)), n_draws=0)
    frame = found.to_frame()
    others = np.abs(found.matrix - np.diag(np.diagonal(found.matrix)))
    np.testing.assert_array_equal(frame["partner"], others.argmax(axis=1))
    np.testing.assert_allclose(frame["partner_correlation"].abs(), others.max(axis=1))
    assert (found.diagonal_low < found.diagonal).all()
    assert (found.diagonal < found.diagonal_high).all()
    low, high = found.off_diagonal_rms_interval
    assert low < found.off_diagonal_rms < high
    pairs = found.top_pairs(1000)
    assert len(pairs) == 30  # both orders, across views
    assert (np.diff(pairs["correlation"].abs()) <= 0).all()


def test_a_single_dimension_has_no_others():
    found = correlate(Representation(np.random.default_rng(0).normal(size=(20, 1))))
    assert np.isnan(found.redundancy).all()
    assert np.isnan(found.off_diagonal_rms)
    assert found.null_band == {}
    json.dumps(found.summary(), allow_nan=False)


def test_progress_counts_draws_and_the_seed_decides_them():
    seen = []
    representation = two_views(np.random.default_rng(15))
    bands = [
        correlate(
            representation, n_draws=20, seed=seed, progress=lambda *n: seen.append(n)
        ).null_band
        for seed in (0, 0, 1)
    ]
    assert seen[19] == (20, 20)
    assert bands[0] == bands[1] != bands[2]


def test_bad_arguments_are_refused_in_one_sentence():
    rng = np.random.default_rng(16)
    representation = two_views(rng)
    for arguments, message in (
        ({"n_draws": -1}, r"^n_draws must be >= 0; got -1\.$"),
        ({"n_blocks": 1}, r"^n_blocks must be >= 2; got 1\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            correlate(representation, **arguments)
    with pytest.raises(ValueError, match=r"^correlate needs at least 3 samples; got 2\.$"):
        correlate(representation.take([0, 1]))
    with pytest.raises(ValueError, match=r"^representation must vary in some dimension"):
        correlate(Representation(np.ones((9, 2))))
    with pytest.raises(ValueError, match=r"^representation must be moments of single rows"):
        correlate(Moments.of(tuple(representation.views)), within=True)
    with pytest.raises(ValueError, match=r"^n must be >= 1; got 0\.$"):
        correlate(representation, n_draws=0).top_pairs(0)


def test_no_warning_leaves_the_probe():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        correlate(two_views(np.random.default_rng(17)), n_draws=3)


def test_a_dimension_active_in_one_sample_spoils_no_interval():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        features = np.maximum(rng.normal(size=(300, 6)), 0).astype("f4")
        features[:, 0] = 0
        features[rng.integers(300), 0] = 1.3
        found = correlate(Representation(features), n_draws=0)
        assert np.isfinite(found.off_diagonal_rms_interval).all()
        assert np.isfinite(found.redundancy_low[1:]).all()
        assert np.isnan(found.redundancy_low[0])  # one sample says nothing of its spread


@pytest.mark.parametrize("scale", [1e-100, 1e60, 1e100])
def test_extreme_scales_change_nothing(scale):
    representation = two_views(np.random.default_rng(18), n=100)
    moved = Representation(representation.features * scale, views=representation.views * scale)
    plain, other = correlate(representation, n_draws=5), correlate(moved, n_draws=5)
    np.testing.assert_allclose(other.matrix, plain.matrix, atol=1e-12)
    for name, band in plain.null_band.items():
        np.testing.assert_allclose(other.null_band[name], band, rtol=1e-4)


def test_chance_is_that_of_the_rows_left_in_every_replicate():
    """Deleting a block leaves fewer rows, of which chance makes larger correlations."""
    rng = np.random.default_rng(33)
    rows, block = rng.normal(size=(30, 4)), deal(0, 30, 5, 0)

    def beyond(x):
        matrix = np.corrcoef(x.T)
        return ((matrix**2).sum() - 4) / 12 - 1 / (len(x) - 1)

    without = np.array([[beyond(rows[block != b])] for b in range(5)])
    full, scale = np.array([beyond(rows)]), Scale(corrected=False)
    *_, low, high = jackknife(full, without, np.bincount(block), scale)
    found = correlate(Representation(rows), n_draws=0, n_blocks=5)
    expected = np.sqrt(np.maximum([low[0], high[0]], 0))
    np.testing.assert_allclose(found.off_diagonal_rms_interval, expected)
