"""Random masks: the best of many is judged by samples that did not choose it."""

import json
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from dimlab.cuts import random_half
from dimlab.probes.random_masks import _judge, null_maxima, random_masks
from dimlab.representation import Representation
from tests import worlds
from tests.reading import fit_knn, fit_ridge


def world(seed, n=300, d=8):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = rng.normal(size=(n, d)) + 1.2 * np.eye(3, d)[labels]
    return Representation(features, labels=labels)


def drowned(seed, n=800):
    """A faint useful dimension and a loud useless one, the last."""
    informative = worlds.informative_world(np.random.default_rng(seed), n=n)
    return Representation(informative.features * [1, 1, 0.03, 1, 1, 8], labels=informative.labels)


@pytest.mark.parametrize("reader", ["ridge", "knn"])
def test_every_mask_is_a_reader_fitted_on_what_it_keeps(reader):
    train, test = world(0), world(1)
    found = random_masks(train, test, reader=reader, drop=(0.25, 0.6), n_masks=5)
    assert found.n_dropped.tolist() == [2, 5]
    np.testing.assert_array_equal((~found.masks).sum(axis=2), [[2] * 5, [5] * 5])
    fit = fit_ridge if reader == "ridge" else fit_knn
    for mask, score in zip(found.masks.reshape(-1, 8), found.scores.ravel(), strict=True):
        expected = fit(train.features[:, mask], train.labels)
        np.testing.assert_allclose(score, expected.accuracy(test.features[:, mask], test.labels))


def test_a_loud_useless_dimension_lets_masks_win_on_the_other_half():
    train, test = (drowned(seed) for seed in (0, 1))
    found = random_masks(train, test, reader="knn", drop=(1 / 6,), n_masks=40)
    assert found.ci_low[0] > 0
    assert not found.masks[0, found.best[0], -1]
    assert found.summary()["verdict"].startswith("Some masks help")


@pytest.mark.long
def test_in_the_null_world_the_naive_gain_is_bias_and_the_honest_one_is_not():
    """Test labels are permuted: no mask is better than another."""
    naive, honest, low = [], [], []
    for seed in range(20):
        test = world(seed + 100)
        labels = np.random.default_rng(seed).permutation(test.labels)
        test = Representation(test.features, labels=labels)
        found = random_masks(world(seed), test, drop=(0.5,), n_masks=60, seed=seed)
        naive.append(found.naive_gain[0])
        honest.append(found.gain[0])
        low.append(found.ci_low[0])
    assert np.mean(naive) > 0.02  # what a look at the best of 60 reports
    assert abs(np.mean(honest)) < 3 * np.std(honest) / np.sqrt(20)
    assert np.mean(np.array(low) > 0) <= 0.15


def test_the_mask_that_one_half_chooses_is_judged_on_the_other():
    """By hand: mask 0 is best on the first half, mask 1 on the second half and over both."""
    half = np.arange(40) < 20
    right = np.zeros((40, 3), dtype=bool)
    right[:12, 0] = right[:10, 1] = True
    right[20:24, 0] = right[20:36, 1] = True
    found = _judge(right, np.arange(40) % 2 == 0, half, None, np.random.default_rng(0))
    assert found["best"] == 0
    np.testing.assert_allclose(found["gain"], (4 - 10) / 20)
    np.testing.assert_allclose(found["naive_gain"], (26 - 20) / 40)


def test_the_null_permutes_within_samples_only():
    # two samples that every mask reads rightly, one that no mask does, one that half of them do:
    # the best of four equal masks has 3 of 4 in every draw
    right = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(null_maxima(right, np.random.default_rng(0), 50), 0.75)


def test_the_null_has_the_maximum_of_independent_columns():
    # ten samples, one right mask each among two: the larger of Binomial(10, 1/2) and 10 minus it
    right = np.tile([[True, False]], (10, 1))
    draws = null_maxima(right, np.random.default_rng(1), 4000) * 10
    heads = np.arange(11)
    expected = (np.maximum(heads, 10 - heads) * binom.pmf(heads, 10, 0.5)).sum()
    assert abs(draws.mean() - expected) < 4 * draws.std() / np.sqrt(4000)


def test_the_null_is_that_of_every_permutation_alike():
    right = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    orders = [sorted(set(permutations(row))) for row in right.tolist()]
    largest = [np.sum(rows, axis=0).max() for rows in product(*orders)]
    expected = np.bincount(largest, minlength=5) / len(largest)
    draws = null_maxima(right, np.random.default_rng(2), 20_000) * 4
    found = np.bincount(np.rint(draws).astype(int), minlength=5)
    possible = expected > 0
    assert found[~possible].sum() == 0
    assert chisquare(found[possible], 20_000 * expected[possible]).pvalue > 1e-3


def test_the_selection_bias_is_measured_from_the_mean_of_the_masks():
    """Half of the dimensions say less than all of them, so the full reader is another mean."""
    train, test = world(0), world(1, n=150)
    found = random_masks(train, test, drop=(0.75,), n_masks=12)
    predicted = [
        fit_ridge(train.features[:, mask], train.labels).predict(test.features[:, mask])
        for mask in found.masks[0]
    ]
    right = np.array(predicted).T == test.labels[:, None]
    assert right.mean() < found.full_score - 0.05
    rng = np.random.default_rng(3)
    largest = [rng.permuted(right, axis=1).mean(axis=0).max() for _ in range(400)]
    np.testing.assert_allclose(found.selection_bias[0], np.mean(largest) - right.mean(), atol=0.006)


def test_the_null_gain_is_measured_from_the_mean_of_the_masks():
    """By hand: the null's quantile and mean, less the mean of the masks, not the full reader."""
    found = random_masks(world(0), world(1), drop=(0.25, 0.75), n_masks=30, seed=2)
    rng = np.random.default_rng(2)
    [rng.permutation(8) for _ in range(60)]
    random_half(world(1).labels, rng)
    for place in range(2):
        right = np.stack(
            [
                fit_ridge(world(0).features[:, mask], world(0).labels).predict(
                    world(1).features[:, mask]
                )
                == world(1).labels
                for mask in found.masks[place]
            ],
            axis=1,
        )
        largest = null_maxima(right, rng, 1000)
        scores = right.mean(axis=0)
        np.testing.assert_allclose(
            found.null_gain[place], np.quantile(largest, 0.95) - scores.mean(), atol=1e-12
        )
        np.testing.assert_allclose(found.selection_bias[place], largest.mean() - scores.mean())
        np.testing.assert_allclose(
            found.naive_gain_over_mean[place], scores.max() - scores.mean(), atol=1e-12
        )
        np.testing.assert_allclose(found.naive_gain[place], scores.max() - found.full_score)
    assert (found.null_gain > found.selection_bias).all()
    assert (found.selection_bias > 0).all()
    assert found.scores[1].mean() + found.null_gain[1] < found.full_score  # far below the full one


def test_whole_clusters_are_permuted_together():
    # two clusters of two rows, each right once under one of two masks: they agree or they do not
    right = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    draws = null_maxima(right, np.random.default_rng(0), 4000, np.array([0, 0, 1, 1]))
    assert set(draws.tolist()) == {0.5, 1.0}
    assert abs((draws == 1).mean() - 0.5) < 4 * np.sqrt(0.25 / 4000)
    same = np.repeat(np.random.default_rng(1).random((30, 6)) < 0.5, 4, axis=0)
    once = null_maxima(same[::4], np.random.default_rng(2), 4000)
    together = null_maxima(same, np.random.default_rng(3), 4000, np.repeat(np.arange(30), 4))
    assert abs(together.mean() - once.mean()) < 4 * once.std() * np.sqrt(2 / 4000)
    assert null_maxima(same, np.random.default_rng(4), 400).mean() < once.mean() - 0.03  # too low


@worlds.rows_repeat
def test_copies_of_rows_are_no_further_samples_where_clusters_are_named():
    test = world(1)
    ids = np.repeat(np.arange(300), 4)
    copies = test.take(ids)
    plain = random_masks(world(0), copies, drop=[0.5], n_masks=30)
    named = random_masks(world(0), copies, drop=[0.5], n_masks=30, clusters=ids)
    once = random_masks(world(0), test, drop=[0.5], n_masks=30)
    widths = [(each.ci_high - each.ci_low)[0] for each in (once, plain, named)]
    assert widths[1] < 0.65 * widths[0]
    assert 0.8 * widths[0] < widths[2] < 1.4 * widths[0]
    np.testing.assert_allclose(named.null_gain, once.null_gain, atol=0.01)
    assert named.summary()["clusters"] == {"n_clusters": 300, "largest": 4}
    assert "repeat another row exactly" in plain.summary()["caution"]


def test_two_clusters_are_a_half_each():
    test = Representation(world(1).features[:20], labels=np.repeat([0, 1], 10))
    for seed in range(4):  # of one class each: either side may get both
        found = random_masks(
            world(0), test, drop=[0.5], n_masks=3, seed=seed, clusters=np.repeat([0, 1], 10)
        )
        assert np.isfinite(found.gain).all()


@pytest.mark.long
def test_by_chance_alone_few_rates_are_said_to_help_and_few_masks_exceed_the_null():
    helps, exceeds = 0, []
    for seed in range(40):
        test = world(seed + 100, n=150)
        labels = np.random.default_rng(seed).permutation(test.labels)
        test = Representation(test.features, labels=labels)
        found = random_masks(world(seed), test, n_masks=40, seed=seed)
        helps += (found.q_value <= 0.05).any()
        exceeds.append(found.naive_gain_over_mean > found.null_gain)
    assert helps <= 4
    assert np.mean(exceeds) <= 0.07


def test_frame_summary_and_seeds():
    one, two = (random_masks(world(0), world(1), n_masks=4, seed=3) for _ in range(2))
    assert one.to_frame()["drop"].tolist() == [0.1, 0.25, 0.5, 0.75]
    assert one.to_frame().equals(two.to_frame())
    summary = json.loads(json.dumps(one.summary()))
    assert summary["n_masks"] == 4
    assert (one.naive_gain >= one.scores.mean(axis=1) - one.full_score).all()


def test_bad_arguments_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^drop must hold shares in \(0, 1\); got \[1\.0\]\.$"):
        random_masks(world(0), world(1), drop=[1.0])
    with pytest.raises(ValueError, match=r"^n_masks must be >= 2; got 1\.$"):
        random_masks(world(0), world(1), n_masks=1)
    with pytest.raises(ValueError, match=r"needs at least 2 dimensions and 2 test samples; got 1"):
        random_masks(world(0).select([0]), world(1).select([0]))
