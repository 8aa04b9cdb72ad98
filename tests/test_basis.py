"""Bases: planted directions are found again, rotations keep cosines, and noise is called noise."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from dimlab.basis import KINDS, fit_basis
from dimlab.representation import Representation
from tests.reading import fit_knn


def rotation(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def rotated_world(seed, n=2000, d=12):
    """Independent Laplace sources of distinct variances, rotated; (N, D) and the source axes."""
    rng = np.random.default_rng(seed)
    scales = np.sqrt(np.geomspace(8.0, 0.25, d))
    axes = rotation(rng, d)
    return Representation(rng.laplace(size=(n, d)) * scales @ axes.T), axes


def isotropic(seed, n=2000, d=12):
    return Representation(np.random.default_rng(seed).normal(size=(n, d)))


def largest_angle_cosine(a, b):
    return np.cos(subspace_angles(a, b).max())


@pytest.mark.parametrize("kind", ["pca", "ica"])
def test_a_planted_subspace_is_found_again(kind):
    cosines = []
    for seed in range(20):
        world, axes = rotated_world(seed)
        basis = fit_basis(world, kind, seed=seed)
        # the three directions of the basis that lie nearest to the planted three
        unit = basis.directions / np.linalg.norm(basis.directions, axis=0)
        share = ((axes[:, 4:7].T @ unit) ** 2).sum(axis=0)
        cosines.append(largest_angle_cosine(axes[:, 4:7], unit[:, np.argsort(-share)[:3]]))
    assert np.median(cosines) >= 0.95


@pytest.mark.parametrize("kind", ["pca", "whiten", "ica"])
def test_directions_of_isotropic_noise_are_called_arbitrary(kind):
    # varimax is left out: in the whole space it turns back to the axes, whatever the data
    assert fit_basis(isotropic(0), kind).stable.mean() < 0.2
    world, _ = rotated_world(0)  # negative control: structure is not called noise
    assert fit_basis(world, kind).stable.mean() > 0.8


def test_nothing_stable_is_said_in_words():
    assert "arbitrary" in fit_basis(isotropic(3, n=40, d=12), "ica").summary()["in_words"]


def test_pca_by_hand():
    # variance 4 along (3, 4) / 5, variance 1 along (4, -3) / 5, sum of squares over 4 rows
    rows = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]]) * np.sqrt(2)
    axes = np.array([[0.6, 0.8], [0.8, -0.6]])
    basis = fit_basis(Representation(rows @ axes + 5.0), "pca")
    np.testing.assert_allclose(np.abs(basis.directions.T @ axes.T), np.eye(2), atol=1e-12)
    np.testing.assert_allclose(basis.variances, [4.0, 1.0])


@pytest.mark.parametrize("kind", ["pca", "varimax"])
@pytest.mark.parametrize("flat", [False, True])
def test_rotations_keep_cosines_and_with_them_a_knn_reader(kind, flat):
    rng = np.random.default_rng(1)
    features = np.maximum(rng.normal(size=(300, 10)), 0)
    if flat:  # a constant, a copied and a dead dimension
        features[:, 3], features[:, 5], features[:, 7] = 2.0, features[:, 4], 0.0
    labels = rng.integers(0, 3, 300)
    train = Representation(features[:200], labels=labels[:200])
    test = Representation(features[200:], labels=labels[200:])
    basis = fit_basis(train, kind)
    a, b = basis.apply(train), basis.apply(test)
    inner = train.features @ test.features.T
    np.testing.assert_allclose(a.features @ b.features.T, inner, atol=1e-12)
    expected = fit_knn(train.features, train.labels).predict(test.features)
    found = fit_knn(a.features, a.labels).predict(b.features)
    np.testing.assert_array_equal(found, expected)
    assert basis.n_dropped == (2 if flat else 0)
    identity = np.eye(basis.directions.shape[1])
    np.testing.assert_allclose(basis.directions.T @ basis.directions, identity, atol=1e-10)


@pytest.mark.parametrize("kind", ["whiten", "ica"])
def test_whitened_scores_are_centred_uncorrelated_and_say_so(kind):
    world, _ = rotated_world(2)
    basis = fit_basis(world, kind)
    scores = basis.apply(world).features
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(scores.T @ scores / len(scores), np.eye(12), atol=1e-6)
    assert basis.centred
    assert "not that of the axes" in basis.summary()["in_words"]


def test_pca_scores_are_uncorrelated_in_order_of_variance():
    world, _ = rotated_world(4)
    scores = fit_basis(world, "pca").apply(world).features
    covariance = np.cov(scores.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_varimax_finds_the_axes_that_pca_mixes():
    # two groups of three dimensions that share a factor each, of equal variance: principal axes
    # are any mixture of the two factors, varimax's are the factors
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(4000, 2))
    features = factors[:, [0, 0, 0, 1, 1, 1]] + 0.1 * rng.normal(size=(4000, 6))
    basis = fit_basis(Representation(features), "varimax", n_directions=2)
    loading = (basis.directions**2).reshape(2, 3, 2).sum(axis=1)  # share of each group
    assert loading.max(axis=0).min() > 0.99
    assert set(loading.argmax(axis=0)) == {0, 1}


def test_views_and_what_belongs_to_the_samples_come_along():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(30, 4))
    whole = Representation(
        features, labels=np.arange(30) % 2, views=np.stack([features, 2 * features]),
        meta={"layer": "encoder"},
    )  # fmt: skip
    applied = fit_basis(whole, "pca").apply(whole)
    np.testing.assert_allclose(applied.views[0], applied.features)
    np.testing.assert_allclose(applied.views[1], 2 * applied.features)
    np.testing.assert_array_equal(applied.labels, whole.labels)
    assert applied.meta == {"layer": "encoder", "basis": "pca"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_basis(kind):
    world, _ = rotated_world(7, n=300, d=5)
    one, two = (fit_basis(world, kind, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one.directions, two.directions)
    np.testing.assert_array_equal(one.stability, two.stability)


def test_bad_arguments_are_refused_in_one_sentence():
    world, _ = rotated_world(8, n=50, d=4)
    with pytest.raises(ValueError, match=r"^kind must be one of 'pca', .*; got 'svd'\.$"):
        fit_basis(world, "svd")
    with pytest.raises(ValueError, match=r"^n_directions must lie in 1\.\.4; got 5\.$"):
        fit_basis(world, "pca", n_directions=5)
    with pytest.raises(ValueError, match=r"^train must have at least 4 rows for a basis; got 3\.$"):
        fit_basis(world.take(range(3)), "pca")
    with pytest.raises(ValueError, match=r"^train must vary in some dimension; got only equal"):
        fit_basis(Representation(np.ones((9, 3))), "pca")
    basis = fit_basis(world, "pca")
    with pytest.raises(
        ValueError, match=r"^representation must have the 4 dimensions .*; got 3\.$"
    ):
        basis.apply(world.select([0, 1, 2]))
    with pytest.raises(ValueError, match=r"must be in the axes' own basis; got .* 'pca'\.$"):
        basis.apply(basis.apply(world))
