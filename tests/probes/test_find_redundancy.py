"""Redundancy: VIF in closed form, planted groups, dead and duplicate dimensions, the subset."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import qr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score

from dimlab.kernels.collinearity import (
    inflation_by_chance,
    largest_correlation_by_chance,
    largest_r_squared_by_chance,
    variance_inflation,
)
from dimlab.kernels.correlation import independent_correlations
from dimlab.moments import Moments
from dimlab.probes.ablate import ablate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.readers import KNN
from dimlab.report import verdicts_of
from dimlab.representation import Representation
from tests import worlds
from tests.reading import fit_knn, fit_ridge

# Closed forms and oracles --------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.0, 0.3, -0.9, 0.9999])
def test_two_dimensions_with_correlation_r(r):
    """VIF is 1 / (1 - r^2) for both, and 1 for a third that is orthogonal to them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3))
    q, _ = np.linalg.qr(rows - rows.mean(0))
    features = np.column_stack([q[:, 0], r * q[:, 0] + np.sqrt(1 - r * r) * q[:, 1], q[:, 2]])
    found = find_redundancy(Representation(features + 5.0))
    expected = [1 / (1 - r * r)] * 2 + [1]
    np.testing.assert_allclose(found.variance_inflation_factor, expected, rtol=1e-9)
    np.testing.assert_allclose(found.r_squared, [r * r, r * r, 0], atol=1e-9)


def test_equicorrelated_dimensions():
    """Diagonal of the inverse of (1-r) I + r 11': (1 + (D-2) r) / ((1-r) (1 + (D-1) r))."""
    world = worlds.equicorrelated_world(np.random.default_rng(1), 60_000, 6, 0.5)
    expected = (1 + 4 * 0.5) / (0.5 * (1 + 5 * 0.5))
    found = find_redundancy(world)
    np.testing.assert_allclose(found.variance_inflation_factor, expected, rtol=0.03)


def test_r_squared_is_that_of_a_regression_on_the_others():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 7)) @ rng.normal(size=(7, 7)) + 3
    found = find_redundancy(Representation(features))
    for d in range(7):
        others = np.delete(features, d, axis=1)
        expected = LinearRegression().fit(others, features[:, d]).score(others, features[:, d])
        np.testing.assert_allclose(found.r_squared[d], expected, rtol=1e-9)
        np.testing.assert_allclose(
            found.variance_inflation_factor[d], 1 / (1 - expected), rtol=1e-8
        )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_exact_sums_are_infinite_and_only_they(dtype):
    rng = np.random.default_rng(3)
    features = np.round(rng.normal(size=(300, 6)) * 64).astype(dtype)  # sums are exact
    features[:, 4] = features[:, 1] + features[:, 2]
    found = find_redundancy(Representation(features))
    np.testing.assert_array_equal(
        np.isinf(found.variance_inflation_factor), [False, True, True, False, True, False]
    )
    np.testing.assert_array_equal(found.r_squared[[1, 2, 4]], 1)
    rest = find_redundancy(Representation(features[:, [0, 1, 2, 3, 5]]))
    np.testing.assert_allclose(
        found.variance_inflation_factor[[0, 3, 5]], rest.variance_inflation_factor[[0, 3, 4]]
    )


def test_what_adds_little_to_an_exact_sum_is_explained_by_it_all_the_same():
    """The third is the first plus a thousandth of the second: each follows from the other two."""
    rng = np.random.default_rng(31)
    x = rng.normal(size=(500, 4))
    features = np.column_stack([x, x[:, 0] + 1e-3 * x[:, 1]])
    found = find_redundancy(Representation(features))
    np.testing.assert_array_equal(np.isinf(found.variance_inflation_factor), [1, 1, 0, 0, 1])


def test_the_pivots_are_those_of_scipys_qr():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(150, 9)) @ rng.normal(size=(9, 9)) + 2
    found = find_redundancy(Representation(features))
    centred = features - features.mean(0)
    _, triangle, pivots = qr(centred, mode="economic", pivoting=True)
    np.testing.assert_array_equal(found.order, pivots)
    total = (centred**2).sum()
    for k in (1, 4, 8):  # what a least-squares map of the first k explains
        basis = centred[:, pivots[:k]]
        fitted = basis @ np.linalg.lstsq(basis, centred, rcond=None)[0]
        np.testing.assert_allclose(found.kept_variance[k - 1], (fitted**2).sum() / total, rtol=1e-9)
    np.testing.assert_allclose(triangle[0, 0] ** 2 / 150, features.var(axis=0).max())


# Planted worlds ------------------------------------------------------------------------------


def test_planted_groups_are_recovered():
    scores, stable = [], []
    for seed in range(20):
        world, group = worlds.grouped_world(np.random.default_rng(seed))
        found = find_redundancy(world, seed=seed)
        scores.append(adjusted_rand_score(group, found.group))
        stable.append(found.stability)
    assert np.median(scores) >= 0.95
    assert np.median(stable) >= 0.95


def test_independent_dimensions_are_in_no_group():
    rng = np.random.default_rng(5)
    found = find_redundancy(Representation(rng.normal(size=(1000, 60))))
    np.testing.assert_array_equal(found.group, np.arange(60))
    assert found.stability == 1
    assert found.duplicates == ()
    assert found.summary()["n_shared_groups"] == 0


def test_a_group_at_the_cut_is_unstable_and_a_tight_one_is_not():
    rng = np.random.default_rng(6)
    tight, loose = rng.normal(size=(2, 300, 1))
    noise = rng.normal(size=(300, 4))
    features = np.hstack([tight, tight, loose, loose]) + noise * [0.1, 0.1, 0.98, 0.98]
    found = find_redundancy(Representation(features))  # |r| of about 0.99, and of about 0.5
    assert found.group_stability[found.group[0]] == 1
    assert found.group_stability[found.group[2]] < 0.95


def test_dead_and_duplicate_dimensions_are_all_named():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, 10)).astype("f4")
    x[:, 3], x[:, 8] = 0, 2.5
    x[:, 5] = -3 * x[:, 1] + 1
    x[:, 9] = x[:, 1]
    found = find_redundancy(Representation(x))
    np.testing.assert_array_equal(np.flatnonzero(found.dead), [3, 8])
    assert [group.tolist() for group in found.duplicates] == [[1, 5, 9]]
    np.testing.assert_array_equal(np.flatnonzero(found.is_duplicate), [1, 5, 9])
    assert np.isnan(found.variance_inflation_factor[[3, 8]]).all()
    np.testing.assert_allclose(found.mean[[3, 8]], [0, 2.5], rtol=1e-15)
    assert len(found.subset) == 6  # one of the copies and the rest: 8 live less 2
    assert not np.isin([3, 8], found.subset).any()
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["dead_dimensions"] == [3, 8]
    assert summary["duplicates"] == [[1, 5, 9]]
    assert (summary["n_dead"], summary["n_duplicate"]) == (2, 3)
    frame = found.to_frame()
    assert frame["duplicate"].sum() == 3
    assert frame["group_size"][1] == 3


# Chains of copies ----------------------------------------------------------------------------


def test_a_chain_of_copies_is_listed_as_pairs_and_as_a_group_with_its_weakest_link():
    rng = np.random.default_rng(20)
    a, u, v, w = rng.normal(size=(4, 20_000))
    step = np.sqrt(2 * 0.9e-6)  # correlation 1 - 0.9e-6
    chain = np.column_stack([a, a + step * u, a + step * (u + v)])
    x = np.column_stack([w, chain, 2 - 3 * w])
    found = find_redundancy(Representation(x))
    assert sorted(map(tuple, found.duplicates)) == [(0, 4), (1, 2), (2, 3)]
    for members in found.duplicates:
        assert np.abs(np.corrcoef(x[:, members].T)).min() >= 1 - 1e-6
    assert [members.tolist() for members in found.chains] == [[1, 2, 3]]
    np.testing.assert_allclose(1 - found.weakest, 1.8e-6, rtol=0.05)
    summary = found.summary()
    assert summary["chains"] == [{"dimensions": [1, 2, 3], "weakest": found.weakest[0]}]
    assert summary["n_duplicate"] == 5


# What chance explains ------------------------------------------------------------------------


def verdict(found):
    return verdicts_of({"redundancy": found})[0]


def test_adjusted_r_squared_is_the_textbooks_and_zero_for_independent_dimensions():
    rng = np.random.default_rng(21)
    x = rng.normal(size=(60, 9))
    found = find_redundancy(Representation(x))
    others = np.column_stack([np.ones(60), x[:, 1:]])
    rest = x[:, 0] - others @ np.linalg.lstsq(others, x[:, 0], rcond=None)[0]
    expected = 1 - (rest @ rest / (60 - 9)) / x[:, 0].var(ddof=1)
    np.testing.assert_allclose(found.adjusted_r_squared[0], expected)
    means = [
        find_redundancy(Representation(rng.normal(size=(60, 30)))).adjusted_r_squared.mean()
        for _ in range(4)
    ]
    assert abs(np.mean(means)) < 0.06
    collinear = find_redundancy(Representation(np.column_stack([x, x[:, 0] + x[:, 1]])))
    np.testing.assert_array_equal(collinear.adjusted_r_squared[[0, 1, 9]], 1)


def test_variance_inflation_of_independent_dimensions_stands_beside_it():
    found = find_redundancy(Representation(np.random.default_rng(22).normal(size=(150, 128))))
    summary = found.summary()
    assert summary["median_variance_inflation_factor"] > 5
    np.testing.assert_allclose(
        summary["median_variance_inflation_factor"], summary["variance_inflation_null"], rtol=0.15
    )
    assert summary["n_redundant"] == 0
    assert "independent Gaussian" in summary["null_law"]
    ample = find_redundancy(Representation(np.random.default_rng(23).normal(size=(400, 4))))
    assert np.isnan(ample.r_squared_null)
    assert ample.null_law == ""


def test_the_law_of_the_largest_r_squared_of_independent_gaussian_dimensions():
    rng = np.random.default_rng(30)
    draws = [
        1 - 1 / variance_inflation(each) for each in independent_correlations(30, 12, 300, rng)
    ]
    beyond = np.max(draws, axis=1) > largest_r_squared_by_chance(30, 12)
    assert 0.01 <= beyond.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    median = 1 / (1 - np.median(draws))
    np.testing.assert_allclose(inflation_by_chance(30, 12), median, rtol=0.05)


def test_the_largest_r_squared_of_heavy_tails_is_found_by_permutation(monkeypatch):
    monkeypatch.setattr("dimlab.probes._redundancy._N_HALVINGS", 1)
    beyond, by_law = [], []
    for seed in range(40):
        x = np.random.default_rng(seed).standard_t(1.5, size=(30, 12))
        found = find_redundancy(Representation(x), n_blocks=4, seed=seed)
        beyond.append(found.r_squared.max() > found.r_squared_null)
        by_law.append(found.r_squared.max() > largest_r_squared_by_chance(30, 12))
        assert "permutations of every column" in found.null_law
    assert np.mean(beyond) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)
    assert np.mean(by_law) > 0.2  # the law of Gaussian dimensions would not do


def test_redundant_dimensions_are_counted_by_groups_and_by_what_explains_them():
    rng = np.random.default_rng(24)
    half = rng.normal(size=(700, 100)) @ rng.normal(size=(100, 200))
    found = find_redundancy(Representation(half))
    assert len(found.groups) == 200  # no two dimensions correlate strongly
    assert (verdict(found).answer, found.is_redundant.sum()) == ("yes", 200)
    few = rng.normal(size=(700, 32))
    few[:, 1], few[:, 3], few[:, 4] = 2 - few[:, 0], few[:, 5] + few[:, 6], 7.0
    found = find_redundancy(Representation(few))
    np.testing.assert_array_equal(np.flatnonzero(found.is_redundant), [0, 1, 3, 5, 6])
    assert verdict(found).answer == "yes"
    assert found.to_frame()["redundant"].sum() == 5


def test_a_few_redundant_dimensions_are_named_beside_the_dead_ones():
    rng = np.random.default_rng(25)
    x = rng.normal(size=(900, 40))
    x[:, 7], x[:, 9] = x[:, 3], 1.0
    found = verdict(find_redundancy(Representation(x)))
    assert found.answer == "no"
    assert "2 of 39 dimensions" in found.because
    assert ": 3, 7. 1 is dead: 9." in found.because


def test_too_few_samples_are_judged_by_groups_alone():
    rng = np.random.default_rng(26)
    x = rng.normal(size=(40, 30))
    with pytest.warns(UserWarning, match=r"^N = 40 samples do not exceed the 60 dimensions"):
        found = find_redundancy(Representation(np.hstack([x, -x])))
    assert np.isnan(found.r_squared).all()
    assert np.isnan(found.variance_inflation_null)
    assert verdict(found).answer == "yes"
    assert "By groups alone: N = 40 samples" in verdict(found).because
    json.dumps(found.summary(), allow_nan=False)
    with pytest.warns(UserWarning, match="do not exceed"):
        free = find_redundancy(Representation(rng.normal(size=(12, 40))))
    assert free.shared_null > 4
    assert verdict(free).answer == "undecided"  # no group beyond chance, which reaches far
    assert "as high as chance reaches with 12 samples" in verdict(free).because


@pytest.mark.filterwarnings("ignore:N = :UserWarning")
@pytest.mark.parametrize(("n", "d"), [(8, 20), (12, 80), (20, 20), (50, 80), (200, 20)])
def test_noise_of_few_samples_has_no_groups_and_copies_among_it_are_found(n, d, monkeypatch):
    """At the level of 5 %, whatever the tails; rectified ones reach farther than Gaussian ones."""
    monkeypatch.setattr("dimlab.probes._redundancy._N_HALVINGS", 1)
    grouped = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, d)) if seed % 2 else np.maximum(rng.normal(size=(n, d)), 0)
        found = find_redundancy(Representation(x), n_blocks=2, seed=seed)
        grouped.append(found.is_redundant.any())
        assert verdict(found).answer != "yes"
    assert sum(grouped) <= 3  # P(more | level 5 %) = 0.002
    x[:, [3, 9]] = 2 - 3 * x[:, [0, 7]]
    found = find_redundancy(Representation(x), n_blocks=2)
    for pair in ([0, 3], [7, 9]):
        assert any(np.array_equal(group, pair) for group in found.groups)


def test_clusters_count_as_the_rows_that_they_are_worth():
    rng = np.random.default_rng(27)
    ids = np.repeat(np.arange(60), 8)
    x = np.repeat(rng.normal(size=(60, 20)), 8, axis=0) + 0.1 * rng.normal(size=(480, 20))
    world = Representation(x, factors={"patient": ids}, labels=ids % 2)
    naive, found = find_redundancy(world), find_redundancy(world, clusters="patient")
    assert naive.adjusted_r_squared.mean() > 0.25
    assert abs(found.adjusted_r_squared.mean()) < 0.1
    assert found.variance_inflation_null > 1.2 * naive.variance_inflation_null
    assert "whole clusters" in found.null_law
    assert found.r_squared_null > 0.4  # of 60 rows; of 480 independent ones some 0.1
    assert not found.is_redundant.any()
    np.testing.assert_allclose(find_redundancy(world, clusters=ids).stability, found.stability)
    # a reader is fitted on some clusters and judged on others: labels by cluster teach it nothing
    naive = find_redundancy(world, reader="knn")
    found = find_redundancy(world, reader="knn", clusters="patient")
    assert naive.kept_accuracy[-1] > 0.95
    assert found.kept_accuracy[-1] < 0.8
    with pytest.raises(ValueError, match=r"^clusters must be left out for moments"):
        find_redundancy(Moments.of(x), clusters=ids)


def test_a_dimension_with_a_small_share_in_a_sum_is_involved():
    rng = np.random.default_rng(28)
    x = rng.normal(size=(300, 4))
    x[:, 3] = x[:, 0] + 1e-3 * x[:, 1]  # so dimension 1 is 1000 times a difference
    found = find_redundancy(Representation(x))
    np.testing.assert_array_equal(
        np.isinf(found.variance_inflation_factor), [True, True, False, True]
    )


def test_the_accuracy_of_the_subset_is_that_of_rows_that_were_not_fitted():
    """Labels that no dimension knows; on the rows that it was fitted on a reader is right."""
    rng = np.random.default_rng(29)
    world = Representation(rng.normal(size=(120, 40)), labels=rng.permutation(np.arange(120) % 2))
    found = find_redundancy(world, reader="ridge")
    assert abs(found.kept_accuracy[-1] - 0.5) < 0.2


# Laws ----------------------------------------------------------------------------------------


def test_scale_shift_and_order_of_dimensions_do_not_matter():
    rng = np.random.default_rng(8)
    world, _ = worlds.grouped_world(rng, n_dimensions=30)
    scale, shift, order = rng.choice([-4.0, 0.5, 3.0], 30), rng.normal(size=30), rng.permutation(30)
    plain = find_redundancy(world)
    moved = find_redundancy(Representation((world.features * scale + shift)[:, order]))
    np.testing.assert_allclose(
        moved.variance_inflation_factor, plain.variance_inflation_factor[order], rtol=1e-9
    )
    assert adjusted_rand_score(moved.group, plain.group[order]) == 1


def test_groups_are_numbered_by_their_lowest_dimension_and_fit_ablate():
    world, _ = worlds.grouped_world(np.random.default_rng(9), n_dimensions=12)
    found = find_redundancy(world)
    first = [group[0] for group in found.groups]
    assert first == sorted(first)
    labels = np.arange(1000) % 2
    split = Representation(world.features, labels=labels)
    assert len(ablate(split, split, reader="ridge", groups=found.groups)) == len(found.groups)


def test_a_lower_cut_merges_more():
    world, _ = worlds.grouped_world(np.random.default_rng(10), n_dimensions=40)
    counts = [len(find_redundancy(world, cut=cut).groups) for cut in (0.05, 0.5, 0.8, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[3] == 40


def test_moments_give_the_same():
    world, _ = worlds.grouped_world(np.random.default_rng(11), n_dimensions=30)
    whole = find_redundancy(world)
    streamed = find_redundancy(Moments.of(np.array_split(world.features, 7)))
    np.testing.assert_allclose(
        streamed.variance_inflation_factor, whole.variance_inflation_factor, rtol=1e-9
    )
    np.testing.assert_array_equal(streamed.group, whole.group)
    np.testing.assert_array_equal(streamed.order, whole.order)
    np.testing.assert_allclose(streamed.group_stability, whole.group_stability)


# The subset ----------------------------------------------------------------------------------


def test_the_subset_is_the_shortest_that_keeps_the_share():
    rng = np.random.default_rng(12)
    features = rng.normal(size=(400, 8)) * [8, 4, 2, 1, 0.5, 0.25, 0.1, 0.1]
    for keep in (0.5, 0.9, 0.99, 1.0):
        found = find_redundancy(Representation(features), keep=keep)
        k = len(found.subset)
        assert found.kept_variance[k - 1] >= keep * (1 - 1e-12)
        assert k == 1 or found.kept_variance[k - 2] < keep
    assert k == 8


@pytest.mark.parametrize(("reader", "fit"), [("ridge", fit_ridge), ("knn", fit_knn)])
def test_the_subset_of_a_reader_keeps_its_accuracy_on_the_other_half(reader, fit):
    rng = np.random.default_rng(13)
    labels = np.arange(600) % 3
    features = np.hstack(
        [np.eye(3)[labels] * 2 + rng.normal(size=(600, 3)), rng.normal(size=(600, 5))]
    )
    split = Representation(features, labels=labels)
    found = find_redundancy(split, reader=reader, keep=0.97)
    k = len(found.subset)
    assert found.kept_accuracy[k - 1] >= 0.97 * found.kept_accuracy[-1]
    assert (found.kept_accuracy[: k - 1] < 0.97 * found.kept_accuracy[-1]).all()
    assert found.summary()["subset_keeps"] == f"0.97 of the accuracy of a {reader} reader"
    # the curve is that of readers fitted on half the samples: near one of all of them
    whole = fit(features[:300], labels[:300]).accuracy(features[300:], labels[300:])
    np.testing.assert_allclose(found.kept_accuracy[-1], whole, atol=0.12)


# Errors --------------------------------------------------------------------------------------


def test_the_subset_is_kept_for_any_reader(rng):
    labels = np.arange(80) % 2
    features = rng.normal(size=(80, 3)) + np.outer(labels, [5, 0, 0])
    split = Representation(features, labels=labels)
    found = find_redundancy(split, reader=KNN(k=5))
    np.testing.assert_array_equal(
        found.kept_accuracy, find_redundancy(split, reader="knn").kept_accuracy
    )
    assert found.summary()["subset_keeps"] == "0.99 of the accuracy of a knn reader"


def test_the_subset_of_a_reader_is_judged_on_rows_that_it_was_not_fitted_on():
    """Labels are drawn: a ridge of 50 dimensions repeats those of 60 rows, and no others."""
    rng = np.random.default_rng(12)
    noise = Representation(rng.normal(size=(120, 50)), labels=rng.permutation(np.arange(120) % 2))
    found = find_redundancy(noise, reader="ridge")
    assert 0.3 < np.nanmean(found.kept_accuracy) < 0.7


def test_bad_arguments_are_refused_in_one_sentence():
    rng = np.random.default_rng(14)
    x = rng.normal(size=(50, 4))
    for arguments, message in (
        ({"cut": 0.0}, r"^cut must lie in \(0, 1\]; got 0\.$"),
        ({"cut": 1.5}, r"^cut must lie in \(0, 1\]; got 1\.5\.$"),
        ({"keep": 0.0}, r"^keep must lie in \(0, 1\]; got 0\.$"),
        ({"n_blocks": 1}, r"^n_blocks must be >= 2; got 1\.$"),
        ({"reader": "ridge"}, r"^reader must come with a Representation that has labels; got no"),
    ):
        with pytest.raises(ValueError, match=message):
            find_redundancy(Representation(x), **arguments)
    with pytest.raises(ValueError, match=r"^reader must come with .*; got moments\.$"):
        find_redundancy(Moments.of(x), reader="knn")
    with pytest.raises(ValueError, match=r"^representation must vary in some dimension"):
        find_redundancy(Representation(np.ones((9, 2))))
    with pytest.raises(ValueError, match="got moments of pairs of views"):
        find_redundancy(Moments.of((x, x)))
    alone = Representation(x, labels=np.arange(50))
    with pytest.raises(ValueError, match=r"^labels must have a class of at least 2 samples"):
        find_redundancy(alone, reader="ridge")


def test_few_samples_have_no_stability():
    found = find_redundancy(Representation(np.random.default_rng(15).normal(size=(5, 2))))
    assert np.isnan(found.stability)
    assert found.summary()["stability"] is None


def test_copies_stay_together_at_a_cut_of_one():
    for seed in range(6):
        x = np.random.default_rng(seed).normal(size=(100, 3))
        found = find_redundancy(Representation(np.hstack([x, -3 * x + 1])), cut=1.0)
        np.testing.assert_array_equal(found.group, [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(("n", "d"), [(12, 30), (40, 20)])
def test_the_law_of_the_largest_correlation_of_independent_gaussian_dimensions(n, d):
    draws = independent_correlations(n, d, 400, np.random.default_rng(31))
    beyond = [
        np.abs(each - np.eye(d)).max() > largest_correlation_by_chance(n, d) for each in draws
    ]
    np.testing.assert_allclose(np.mean(beyond), 0.05, atol=3 * np.sqrt(0.05 * 0.95 / 400))


def test_few_rows_explain_nothing_beyond_chance():
    """One more row than dimensions: some adjusted R^2 are above 0.9, and mean nothing."""
    large = redundant = 0
    for seed in range(8):
        x = np.random.default_rng(seed).normal(size=(14, 13))
        found = find_redundancy(Representation(x), cut=1.0, n_blocks=2)
        large += (found.adjusted_r_squared >= 0.9).sum()
        redundant += found.is_redundant.sum()
    assert large >= 5
    assert redundant <= 2
