"""Scores of real values and of rankings: each row's contribution, and that they add up."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score, r2_score

from dimlab.kernels.paired import student_interval
from dimlab.kernels.scores import precision_contributions, r2_contributions


@pytest.mark.parametrize("n_targets", [1, 3])
def test_contributions_to_r2_have_its_value_as_mean(rng, n_targets):
    values = rng.normal(size=(50, n_targets)) * [1, 5, 0.1][:n_targets]
    predicted = values[:, None] + rng.normal(size=(50, 4, n_targets))
    found = r2_contributions(predicted, values).mean(axis=0)
    assert_allclose(found, [r2_score(values, predicted[:, g]) for g in range(4)])


def test_contributions_to_r2_are_its_derivatives_by_the_weights_of_rows(rng):
    values = rng.normal(size=(20, 2))
    predicted = values[:, None] + rng.normal(size=(20, 1, 2))
    full = r2_score(values, predicted[:, 0])
    derivative = []
    for row in range(20):
        weights = np.ones(20)
        weights[row] += 1e-6
        derivative.append((r2_score(values, predicted[:, 0], sample_weight=weights) - full) / 1e-6)
    found = r2_contributions(predicted, values)[:, 0]
    assert_allclose(found, full + 20 * np.array(derivative), atol=1e-3)


@pytest.mark.parametrize("decimals", [15, 0], ids=["apart", "tied"])
@pytest.mark.parametrize("micro", [False, True], ids=["macro", "micro"])
def test_contributions_to_average_precision_have_its_value_as_mean(rng, decimals, micro):
    scores = rng.normal(size=(60, 3, 4)).round(decimals)
    labels = (rng.random((60, 4)) < 0.3).astype(int)
    found = precision_contributions(scores, labels, micro=micro).mean(axis=0)
    average = "micro" if micro else "macro"
    expected = [average_precision_score(labels, scores[:, g], average=average) for g in range(3)]
    assert_allclose(found, expected)


@pytest.mark.parametrize("decimals", [15, 0], ids=["apart", "tied"])
def test_influence_on_average_precision_is_that_of_leaving_a_row_out(rng, decimals):
    scores = rng.normal(size=(40, 2, 1)).round(decimals)
    labels = (rng.random((40, 1)) < 0.3).astype(int)
    kept = ~np.eye(40, dtype=bool)
    for g in range(2):
        full = average_precision_score(labels, scores[:, g])
        without = np.array([average_precision_score(labels[k], scores[k, g]) for k in kept])
        influence = 39 * (full - without)
        found = precision_contributions(scores, labels)[:, g]
        assert_allclose(found, full + influence - influence.mean())


def test_labels_that_no_row_has_are_left_out_and_a_single_one_counts(rng):
    scores = rng.normal(size=(10, 1, 3))
    labels = np.zeros((10, 3), dtype=int)
    labels[scores[:, 0, 0].argsort()[-2], 0] = 1  # the second of ten
    labels[:4, 1] = 1
    both = precision_contributions(scores, labels).mean()
    of_second = average_precision_score(labels[:, 1], scores[:, 0, 1])
    assert_allclose(both, (0.5 + of_second) / 2)


def test_scores_that_differ_by_rounding_are_tied(rng):
    labels = (np.arange(20)[:, None] % 3 == 0).astype(int)
    noise = 0.3 + 1e-15 * rng.normal(size=(20, 1, 1))
    assert_allclose(precision_contributions(noise, labels).mean(), labels.mean())


@pytest.mark.long
@pytest.mark.parametrize("score", ["r2", "precision"])
def test_intervals_of_differences_cover_the_population(score):
    rng, n, covered, draws = np.random.default_rng(0), 200, 0, 400

    def difference(n):
        signal, noise = rng.normal(size=(n, 2)), rng.normal(size=n)
        values = signal.sum(axis=1) + noise
        predicted = np.stack([signal.sum(axis=1), signal[:, 0]], axis=1)[:, :, None]
        if score == "r2":
            found = r2_contributions(predicted, values[:, None])
        else:
            found = precision_contributions(predicted, (values[:, None] > 1).astype(int))
        return found[:, 0] - found[:, 1]

    truth = difference(200_000).mean()
    for _ in range(draws):
        low, high = student_interval(difference(n))
        covered += low <= truth <= high
    assert covered / draws >= 0.92
