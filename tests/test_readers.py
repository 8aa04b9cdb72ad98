"""Readers of frozen features."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from dimlab.readers import Logistic, logistic
from dimlab.readers.base import class_codes
from dimlab.readers.linear import Standardiser
from tests import references, worlds
from tests.reading import fit_knn, fit_logistic, fit_ridge


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    labels = rng.choice([2, 5, 11], size=300)  # ids with gaps
    centres = {2: [2, 0, 0, 0, 0], 5: [0, 2, 0, 0, 0], 11: [0, 0, 2, 1, 0]}
    features = np.array([centres[c] for c in labels]) + rng.normal(size=(300, 5))
    return (features[:200], labels[:200]), (features[200:], labels[200:])


FITTERS = [fit_knn, fit_ridge, fit_logistic]


@pytest.mark.parametrize("fit", FITTERS)
def test_readers_read_and_keep_class_ids(fit, split):
    train, test = split
    reader = fit(*train)
    predicted = reader.predict(test[0])
    assert set(predicted) == {2, 5, 11}
    assert predicted.dtype == np.int64
    assert reader.accuracy(*test) == (predicted == test[1]).mean() > 0.6


@pytest.mark.parametrize("fit", FITTERS)
def test_readers_are_at_chance_in_a_useless_world(fit):
    rng = np.random.default_rng(1)
    train, test = worlds.useless_world(rng, 400), worlds.useless_world(rng, 800)
    accuracy = fit(train.features, train.labels).accuracy(test.features, test.labels)
    assert abs(accuracy - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 800)


def test_knn_by_hand():
    # Angles 0, 10, 90 degrees; the query at 4: nearest are classes 7, 3, 3.
    angles = np.deg2rad([0, 10, 90])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = np.array([[np.cos(np.deg2rad(4)), np.sin(np.deg2rad(4))]])
    labels = np.array([7, 3, 3])
    assert fit_knn(bank, labels, k=1).predict(query) == [7]
    # Votes: 1 for class 7; for class 3 exp(cos 6 - cos 4) = 0.997 more than nothing: 7 wins at k=2.
    assert fit_knn(bank, labels, k=2).predict(query) == [7]
    assert fit_knn(bank, labels, k=3).predict(query) == [3]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 12), temperature=st.sampled_from([0.01, 1, 10]))
def test_knn_equals_the_loops(seed, k, temperature):
    rng = np.random.default_rng(seed)
    bank = rng.integers(-2, 3, size=(12, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(4, 3)).astype(np.float32)
    labels = rng.integers(0, 3, size=12)
    expected = [references.knn_class(bank, labels, q, k, temperature) for q in queries]
    reader = fit_knn(bank, labels, k=k, temperature=temperature)
    np.testing.assert_array_equal(reader.predict(queries), expected)


def test_knn_with_more_than_a_few_candidates_equals_the_loops():
    rng = np.random.default_rng(2)
    bank, queries = rng.normal(size=(700, 6)), rng.normal(size=(20, 6))
    labels = rng.integers(0, 4, size=700)
    for k in (1, 5, 100, 700):
        expected = [references.knn_class(bank, labels, q, k, 0.1) for q in queries]
        reader = fit_knn(bank, labels, k=k, temperature=0.1)
        np.testing.assert_array_equal(reader.predict(queries), expected)


@pytest.mark.parametrize("penalty", [1e-4, 1e-3, 10.0])
@pytest.mark.parametrize("n", [200, 20])
def test_ridge_logits_equal_augmented_least_squares(split, penalty, n):
    (features, labels), (test, _) = split
    wide = np.hstack([features, features**2, np.sin(features), np.ones((200, 1))])[:n]
    wide_test = np.hstack([test, test**2, np.sin(test), np.full((100, 1), 7.0)])
    reader = fit_ridge(wide, labels[:n], penalty=penalty)
    expected = references.ridge_logits(wide, labels[:n], wide_test, penalty)
    np.testing.assert_allclose(reader.logits(wide_test), expected, atol=1e-9)


def test_ridge_by_hand():
    # z = -1, 1; targets -+1/2: the slope is (2 * 1/2) / (2 + 2 penalty) = 1 / (2 + 2 penalty).
    reader = fit_ridge(np.array([[0.0], [4.0]]), np.array([0, 1]), penalty=1.0)
    np.testing.assert_allclose(reader.weights, [[-0.25, 0.25]])
    np.testing.assert_allclose(reader.logits(np.array([[4.0], [2.0]])), [[0.25, 0.75], [0.5, 0.5]])
    assert reader.predict(np.array([[2.0]])) == [0]  # a tie goes to the lower class


def test_a_constant_column_counts_as_zero_whatever_test_holds():
    features = np.array([[1e8 + 0.1, 0.0], [1e8 + 0.1, 1.0], [1e8 + 0.1, 2.0]])
    reader = fit_ridge(features, np.array([0, 0, 1]))
    np.testing.assert_array_equal(reader.standardise.constant, [0])
    np.testing.assert_array_equal(reader.weights[0], 0.0)
    moved = features - [5e7, 0]
    np.testing.assert_array_equal(reader.logits(moved), reader.logits(features))


def test_standard_deviations_are_biased():
    standardise = Standardiser.fit(np.array([[0.0], [2.0]]))
    np.testing.assert_array_equal(standardise.scale, [1.0])


@pytest.mark.parametrize("fit", [fit_ridge, fit_logistic])
@pytest.mark.parametrize("seed", range(5))
def test_linear_readers_ignore_the_scale_and_offset_of_dimensions(fit, seed, split):
    (features, labels), (test, _) = split
    rng = np.random.default_rng(seed)
    scale, offset = 2.0 ** rng.integers(-5, 6, size=5), rng.integers(-3, 4, size=5)
    logits = fit(features, labels).logits(test)
    moved = fit(features * scale + offset, labels).logits(test * scale + offset)
    np.testing.assert_allclose(moved, logits, atol=1e-6)


@pytest.mark.parametrize("fit", FITTERS)
def test_predictions_do_not_depend_on_the_order_of_dimensions(fit, split):
    train, (test, _) = split
    order = np.random.default_rng(3).permutation(5)
    expected = fit(*train).predict(test)
    np.testing.assert_array_equal(
        fit(train[0][:, order], train[1]).predict(test[:, order]), expected
    )


def penalised_minimum(z, codes, n_classes, penalty):
    """Weights that minimise the documented objective, by scipy."""

    def objective(parameters):
        weights, intercept = parameters[:-n_classes].reshape(-1, n_classes), parameters[-n_classes:]
        logits = z @ weights + intercept
        loss = (logsumexp(logits, axis=1) - logits[np.arange(len(z)), codes]).sum()
        error = softmax(logits, axis=1) - np.eye(n_classes)[codes]
        slope = np.concatenate([(z.T @ error + penalty * weights).ravel(), error.sum(axis=0)])
        return loss + penalty / 2 * (weights**2).sum(), slope

    start = np.zeros((z.shape[1] + 1) * n_classes)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 0})
    return found.x[:-n_classes].reshape(-1, n_classes)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("penalty", [0.3, 20.0])
def test_logistic_minimises_the_documented_objective(n_classes, penalty):
    rng = np.random.default_rng(n_classes)
    labels = rng.integers(0, n_classes, 240)
    features = (rng.normal(size=(240, 4)) + np.eye(n_classes, 4)[labels]) * [1, 3, 0.1, 1] + 5
    reader = fit_logistic(features, 7 + 2 * labels, penalty=penalty)
    z = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = penalised_minimum(z, labels, n_classes, penalty)
    np.testing.assert_allclose(reader.weights, expected, atol=1e-3)
    # scikit-learn's parametrisation coincides, except that it penalises two classes twice
    inverse = (2 if n_classes == 2 else 1) / penalty
    model = LogisticRegression(C=inverse, tol=1e-8, max_iter=5000).fit(z, labels)
    logits = reader.logits(features)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability, model.predict_proba(z), atol=1e-3)


def test_logistic_chooses_a_penalty_that_does_not_overfit():
    rng = np.random.default_rng(4)
    labels = np.arange(120) % 2
    features = rng.normal(size=(120, 60))
    features[:, 0] += labels
    test_labels = np.arange(2000) % 2
    test = rng.normal(size=(2000, 60))
    test[:, 0] += test_labels
    chosen = fit_logistic(features, labels)
    weak = fit_logistic(features, labels, penalty=1e-2)

    def loss(reader):
        logits = reader.logits(test)
        probability = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        return log_loss(test_labels, probability)

    assert loss(chosen) < 0.75 < loss(weak)


def test_a_logistic_reader_that_has_not_settled_says_so(monkeypatch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6)) * [1, 1, 1, 1, 1, 1e-3] + rng.normal(size=(200, 1))
    labels = rng.integers(0, 3, 200)
    monkeypatch.setattr(logistic, "_MAX_ITERATIONS", 3)
    with pytest.warns(UserWarning, match=r"^the logistic reader had not settled after 3 iter.*\.$"):
        fit_logistic(features, labels, penalty=1e-6)
    # a candidate that has not settled loses or wins by its held-out loss, without a word
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_logistic(features, labels)
    assert len(caught) == 1


def test_logistic_equals_scikit_learn(split):
    (features, labels), (test, _) = split
    reader = fit_logistic(features, labels, penalty=2.0)
    model = LogisticRegression(C=0.5, tol=1e-8, max_iter=5000).fit(
        reader.standardise(features), labels
    )
    np.testing.assert_allclose(
        reader.logits(test), model.decision_function(reader.standardise(test)), atol=1e-2
    )


def test_a_warm_start_ends_at_the_same_place(split):
    (features, labels), (test, truth) = split
    cold = fit_logistic(features[:, :4], labels, penalty=1.0)
    whole = Logistic(1.0).fit(features, labels)
    warm = whole.predict_without(test, [np.array([4])], target=truth)
    np.testing.assert_array_equal(cold.classes[warm.ablated[:, 0]], cold.predict(test[:, :4]))
    logits = cold.logits(test[:, :4])
    loss = logsumexp(logits, axis=1) - logits[np.arange(100), class_codes(truth, cold.classes)]
    np.testing.assert_allclose(warm.ablated_loss[:, 0], loss, atol=1e-2)


def test_logistic_with_one_sample_a_class_takes_a_penalty_of_one():
    assert fit_logistic(np.eye(3), np.array([0, 1, 2])).penalty == 1.0


@pytest.mark.parametrize("k", [0, 5, 2.0, True])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=r"^k must be an integer in 1\.\.4, the number of train"):
        fit_knn(np.eye(4), np.arange(4), k=k)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"^temperature must be > 0; got"):
        fit_knn(np.eye(4), np.arange(4), k=1, temperature=temperature)


@pytest.mark.parametrize("fit", [fit_ridge, fit_logistic])
@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan])
def test_a_penalty_that_is_not_positive_is_refused(fit, penalty):
    with pytest.raises(ValueError, match=r"^penalty must be > 0; got"):
        fit(np.eye(4), np.arange(4), penalty=penalty)


@pytest.mark.parametrize("fit", FITTERS)
def test_misshapen_input_is_refused(fit):
    with pytest.raises(ValueError, match=r"^labels must be integers of shape \(4,\) to match"):
        fit(np.eye(4), np.arange(3))
    with pytest.raises(ValueError, match=r"^features must be floating with shape \(N, D\)"):
        fit(np.zeros(4), np.arange(4))
    reader = fit(np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2)
    with pytest.raises(ValueError, match=r"^features must have shape \(N, 4\) as those of train"):
        reader.predict(np.eye(3))
    with pytest.raises(ValueError, match=r"^test labels must be classes that train has; got cl"):
        reader.predict_without(np.eye(4), [], target=np.array([0, 1, 1, 9]))


@pytest.mark.parametrize("fit", FITTERS)
def test_one_class_is_nothing_to_fit_on(fit):
    with pytest.raises(
        ValueError, match=r"^labels must hold at least two classes, .*; got only cl"
    ):
        fit(np.eye(3), np.array([4, 4, 4]))


def test_class_codes_are_places_among_the_classes():
    codes = class_codes(np.array([11, 2, 5]), np.array([2, 5, 11]))
    np.testing.assert_array_equal(codes, [2, 0, 1])


@pytest.mark.parametrize("size", [1e-165, 1e-150, 1e-100, 1.0, 1e100])
def test_ridge_does_not_depend_on_the_size_of_features(size):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 4)) + np.eye(3, 4)[labels]
    expected = fit_ridge(features, labels).predict(features)
    np.testing.assert_array_equal(
        fit_ridge(size * features, labels).predict(size * features), expected
    )
    features[:, 3] = 1.0  # a constant stays one
    assert fit_ridge(size * features, labels).standardise.constant.tolist() == [3]


def test_names_of_0_6_still_import():
    from dimlab import join_factors
    from dimlab.factor_table import join_factors as old
    from dimlab.readers import fit_logistic

    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    assert old is join_factors
    same = fit_logistic(x, y, penalty=2.0), Logistic(penalty=2.0).fit(x, y)
    np.testing.assert_array_equal(same[0].weights, same[1].weights)
