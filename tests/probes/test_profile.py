"""Profiles: planted outliers are named by their rule, and every number is the textbook's."""

import json

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from dimlab import Representation, dimension_table, find_redundancy, profile
from dimlab.probes.profile import hubness_without_each
from dimlab.result import verdict_of


def planted(seed, n=400, d=60):
    """7 and 41 are far from zero, 20 is large, 31 is 0, 32 is 2, 33 is sparse, 40 no outlier."""
    features = np.random.default_rng(seed).normal(size=(n, d))
    features[:, 7] += 8
    features[:, 20] *= 9
    features[:, 40] *= 4
    features[:, 41] = 0.1 * features[:, 41] - 0.8
    features[:, 31] = 0
    features[:, 32] = 2
    features[features[:, 33] < 1.5, 33] = 0
    return features


def brute_force_hubness(features, k):
    """Skewness of how often each row is among the k nearest others; ties to the lower row."""
    norms = np.sqrt((features**2).sum(axis=1))
    products = features @ features.T
    scale = np.outer(norms, norms)
    similarities = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    similarities = np.round(similarities, 10)
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    counts = np.bincount(nearest.ravel(), minlength=len(features))
    return 0.0 if counts.std() == 0 else skew(counts)


@pytest.mark.parametrize("seed", range(4))
def test_planted_outliers_are_found_and_nothing_else(seed):
    found = profile(planted(seed))
    assert set(found.outliers) == {7, 20, 32, 41}
    assert np.flatnonzero(found.dead).tolist() == [31, 32]
    assert min(found.share[[7, 20]]) > 10 / 60 > found.share[33]
    assert found.mean_over_deviation[32] == np.inf
    assert np.isnan(found.mean_over_deviation[31])
    answer = verdict_of(found)
    assert (answer.answer, answer.dimensions) == ("yes", (7, 20, 32, 41))
    json.dumps(found.summary(), allow_nan=False)


@pytest.mark.parametrize("seed", range(4))
def test_no_dimension_of_a_normal_or_uniform_world_is_an_outlier(seed):
    rng = np.random.default_rng(seed)
    for features in (rng.normal(size=(300, 64)), rng.random((300, 64)).astype("f4")):
        found = profile(features, n_rows=0)
        assert found.n_outliers == 0
        assert verdict_of(found).answer == "no"


def test_numbers_are_those_of_the_textbook():
    features = planted(9)
    found = profile(features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(found.share, (unit**2).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.share.sum(), 1)
    living = ~found.dead
    expected = (features.mean(0) / np.where(living, features.std(0), 1))[living]
    np.testing.assert_allclose(found.mean_over_deviation[living], expected, rtol=1e-10)
    np.testing.assert_allclose(found.kurtosis[living], kurtosis(features[:, living]), rtol=1e-9)
    assert np.isnan(found.kurtosis[~living]).all()
    np.testing.assert_array_equal(found.sparsity, (features == 0).mean(axis=0))
    similarities = unit @ unit.T
    pairs = similarities[~np.eye(400, dtype=bool)]
    np.testing.assert_allclose(found.mean_cosine, pairs.mean(), rtol=1e-10)
    np.testing.assert_allclose(found.cosine.sum(), found.mean_cosine, rtol=1e-12)
    among = np.array([unit[i, 7] * unit[j, 7] for i in range(60) for j in range(60) if i != j])
    np.testing.assert_allclose(profile(features[:60]).cosine[7], among.mean(), rtol=1e-10)


def test_shares_by_hand_and_rows_of_zeros_have_none():
    found = profile(np.array([[3.0, 4.0], [4.0, -3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found.share, [0.5, 0.5])
    np.testing.assert_allclose(found.cosine, [0.48, -0.48])
    np.testing.assert_allclose(found.sparsity, [1 / 3, 1 / 3])
    # a share of both is (9 + 16) / 50 = 1/2; its standard error over two rows is 0.14
    assert ((found.share_low == 0) & (found.share_high == 1)).all()


@pytest.mark.parametrize("kind", ["normal", "tied", "copies", "outlier"])
def test_hubness_equals_brute_force_with_and_without_each_dimension(kind):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 7))
    if kind == "tied":
        features = rng.integers(-1, 2, size=(80, 7)).astype(float)
    if kind == "copies":
        features = features[rng.integers(0, 10, 80)]
    if kind == "outlier":
        features[:, 2] += 20
    found = hubness_without_each(features, 4)
    np.testing.assert_allclose(found[0], brute_force_hubness(features, 4), atol=1e-12)
    for d in range(7):
        expected = brute_force_hubness(np.delete(features, d, axis=1), 4)
        np.testing.assert_allclose(found[1 + d], expected, atol=1e-12)


def test_an_outlier_makes_hubs_and_its_removal_unmakes_them():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(300, 30))
    features[:, 3] = rng.exponential(4, size=300)  # near the mean direction lie the hubs
    found = profile(features)
    change = found.hubness - found.hubness_without
    assert np.abs(np.delete(change, 3)).max() < abs(change[3])


def test_few_rows_are_drawn_for_hubness_and_none_if_asked():
    features = planted(3)
    found = profile(features, n_rows=50, k=3)
    assert (found.n_rows, found.k) == (50, 3)
    assert found.hubness != profile(features, n_rows=50, k=3, seed=1).hubness
    without = profile(features, n_rows=0)
    assert np.isnan(without.hubness)
    assert without.summary()["hubness"] is None
    np.testing.assert_array_equal(without.share, found.share)


def test_intervals_of_shares_cover_the_population():
    rng = np.random.default_rng(4)
    scale = np.array([2.0, 1, 1, 0.5])
    population = rng.normal(size=(100_000, 4)) * scale
    truth = (population**2 / (population**2).sum(axis=1, keepdims=True)).mean(axis=0)
    covered = []
    for _ in range(100):
        found = profile(rng.normal(size=(100, 4)) * scale, n_rows=0)
        covered.append((found.share_low <= truth) & (truth <= found.share_high))
    assert 0.92 <= np.mean(covered) <= 0.98


def test_huge_and_tiny_values_stay_within_range():
    features = planted(5)
    for scale in (1e-200, 1e200):
        found = profile(features * scale, n_rows=0)
        np.testing.assert_allclose(found.share, profile(features, n_rows=0).share, rtol=1e-9)


def test_a_table_of_answers_marks_outliers_and_dead_dimensions():
    features = planted(6)
    table = dimension_table(find_redundancy(features), profile(features, n_rows=0))
    assert np.flatnonzero(table.outlier).tolist() == [7, 20, 32, 41]
    assert table.summary()["outliers"] == [7, 20, 32, 41]
    assert table.kind[[31, 32]].tolist() == ["dead", "dead"]
    alone = dimension_table(profile(features, n_rows=0))
    assert alone.kind[[31, 32, 0]].tolist() == ["dead", "dead", "undecided"]
    assert "outliers" not in dimension_table(find_redundancy(features)).summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"k must be >= 1; got 0\."),
        ({"n_rows": -1}, r"n_rows must be >= 0; got -1\."),
        ({"memory": 0.0}, r"memory must be > 0"),
        ({"device": "tpu"}, r"device must be cpu"),
        ({"representation": np.ones((1, 3))}, r"representation must have at least 2 rows; got 1\."),
    ],
)
def test_bad_requests_are_refused(change, message):
    given = {"representation": planted(0), **change}
    with pytest.raises(ValueError, match=message):
        profile(given.pop("representation"), **given)


def test_any_input_gives_the_same():
    features = planted(7).astype("f4")
    one = profile(features, n_rows=100)
    two = profile(Representation(features), memory=0.05, n_rows=100)
    for name in ("share", "hubness_without", "kurtosis"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
