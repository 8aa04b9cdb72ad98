"""Suspects: planted shortcuts are found without a name, and nothing is where there is none."""

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from dimlab import Representation, find_suspects
from dimlab.kernels.effects import Label
from dimlab.kernels.erasure import Removal
from dimlab.probes._reading import Task
from dimlab.probes.find_suspects import _Behind, _in_order, _parts, _taken, _Tried, verdict
from dimlab.readers import KNN, Ridge
from dimlab.readers.base import Split
from dimlab.refusals import Refusal

STAMP = [64, 65, 66, 67]


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def stamped(digits, rows, follows, rng):
    """Digits with four further columns that follow the class in a share of the rows."""
    images, labels = digits[0][rows], digits[1][rows]
    told = np.where(rng.random(len(rows)) < follows, labels, rng.integers(0, 10, len(rows)))
    angle = 2 * np.pi * told / 10 + 0.2 * rng.normal(size=len(rows))
    stamp = [f(k * angle) for k in (1, 2) for f in (np.cos, np.sin)]
    return Representation(np.column_stack([images, *(8 + 8 * s for s in stamp)]), labels=labels)


@pytest.fixture(scope="module")
def splits(digits):
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(digits[1]))
    return stamped(digits, rows[:600], 0.97, rng), stamped(digits, rows[600:], 0.0, rng)


@pytest.fixture(scope="module")
def found(splits):
    return find_suspects(*splits)


def accuracy(train, test):
    return (Ridge().fit(train.features, train.labels).classify(test.features) == test.labels).mean()


def test_a_planted_shortcut_is_found_and_its_removal_helps(splits, found):
    train, test = splits
    assert found.confirmed
    assert found.p_value < 1e-6
    assert (found.association > 0.2).all()
    assert (found.association_q <= 0.05).all()
    # the four columns lie in the span of what is removed far more than any other
    assert found.taken[STAMP].mean() > 5 * np.delete(found.taken, STAMP).mean()
    removed = accuracy(found.remove(train), found.remove(test))
    assert accuracy(train, test) < 0.72
    assert removed > 0.86
    named = {int(d) for each in found.to_frame()["dimensions"] for d in each.split()}
    assert set(STAMP) <= named


def test_scores_are_those_of_a_reader_fitted_again_on_the_rest(splits, found):
    train, test = splits
    confirming = _parts(Split(test.features, test.labels), np.random.default_rng(0))[2]
    for count in range(len(found) + 1):
        left, judged = (found.remove(each, count) for each in (train, test))
        reader = Ridge().fit(left.features, left.labels)
        right = (reader.classify(judged.features) == judged.labels)[confirming]
        expected = found.score[count - 1] if count else found.full_score
        assert right.mean() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(found.gain, found.score - found.full_score, atol=1e-15)
    assert (found.gain_low <= found.gain).all()
    assert (found.gain <= found.gain_high).all()


def test_the_ridge_in_closed_form_is_the_one_fitted_again(splits):
    train, test = (each[:300] for each in splits)
    rng = np.random.default_rng(1)
    patterns = rng.normal(size=(train.n_dimensions, 3)) * train.features.std(axis=0)[:, None]
    task = Task.of("find_suspects", train, test, "ridge")
    behind = _Behind(task)
    directions = _in_order(patterns)
    mapped = [
        behind.joint.rows_behind(each.features, Removal(directions, directions))
        for each in (train, test)
    ]
    np.testing.assert_array_equal(
        behind.predicted(patterns), Ridge().fit(mapped[0], train.labels).classify(mapped[1])
    )


def test_directions_are_those_of_a_canonical_correlation(splits):
    """Within classes, the activation along a direction goes with the predicted class, and best."""
    train, test = splits
    rng = np.random.default_rng(2)
    features, labels = test.features[:, 60:], test.labels
    predicted = rng.integers(0, 10, len(labels))
    features = features + 4 * np.outer(np.cos(predicted), np.arange(8) == 3)
    behind = _Behind(Task.of("find_suspects", train, test, "ridge"))
    within = type(behind.within).of(features, np.empty((len(labels), 0)), within=Label.of(labels))
    split = Split(features, labels)
    every = np.ones(len(labels), dtype=bool)
    tried = _Tried.of(split, predicted, every, within, 3)
    centred = features - np.stack([features[labels == c].mean(axis=0) for c in range(10)])[labels]
    told = np.eye(10)[predicted]
    told -= np.stack([told[labels == c].mean(axis=0) for c in range(10)])[labels]
    # the textbook: singular values of whitened cross-covariance
    root = np.linalg.inv(np.linalg.cholesky(centred.T @ centred / len(labels))).T
    _, size, _ = np.linalg.svd(root.T @ (centred.T @ told) / len(labels))
    activations = centred @ tried.functionals
    np.testing.assert_allclose(activations.std(axis=0), 1, atol=1e-9)
    covariance = np.einsum("np,np->p", activations, told @ tried.loadings.T) / len(labels)
    np.testing.assert_allclose(covariance, size[:3], rtol=1e-9)
    # a pattern is the covariance of the features with the activation
    np.testing.assert_allclose(tried.patterns, centred.T @ activations / len(labels), atol=1e-8)


def test_directions_are_orthonormal_and_span_what_was_chosen_in_order(found):
    size = len(found)
    np.testing.assert_allclose(found.directions.T @ found.directions, np.eye(size), atol=1e-12)
    patterns = np.random.default_rng(0).normal(size=(6, 3))
    directions = _in_order(patterns)
    for count in (1, 2, 3):
        own = directions[:, :count]
        np.testing.assert_allclose(own @ own.T @ patterns[:, :count], patterns[:, :count])
    assert (directions[np.abs(directions).argmax(axis=0), range(3)] > 0).all()


def test_removal_leaves_the_mean_of_train_and_everything_else_as_it_was(splits, found):
    train, test = splits
    views = np.stack([test.features, test.features + 1])
    given = Representation(test.features, labels=test.labels, views=views)
    left = found.remove(given)
    np.testing.assert_allclose(
        left.features @ found.directions,
        np.tile(train.features.mean(axis=0) @ found.directions, (len(test), 1)),
        atol=1e-9,
    )
    other = np.linalg.svd(found.directions)[0][:, len(found) :]
    np.testing.assert_allclose(left.features @ other, test.features @ other, atol=1e-9)
    np.testing.assert_allclose(left.views[0], left.features, atol=1e-9)
    np.testing.assert_array_equal(left.labels, given.labels)
    assert found.remove(given, 0).features == pytest.approx(given.features)
    with pytest.raises(Refusal, match=r"^n_suspects must lie in \[0, \d\]; got 99\.$"):
        found.remove(given, 99)
    with pytest.raises(Refusal, match="must have 68 dimensions in the basis axes"):
        found.remove(given.features[:, :5])


def test_shares_are_taken_in_units_of_the_deviations():
    deviation = np.array([1.0, 100.0, 3.0, 0.0])
    across = np.array([[1.0], [100.0], [0.0], [0.0]]) / np.hypot(1, 100)
    np.testing.assert_allclose(_taken(across, deviation), [0.5, 0.5, 0, 0], atol=1e-12)
    both = np.eye(4)[:, :2]
    np.testing.assert_allclose(_taken(both, deviation), [1, 1, 0, 0], atol=1e-12)


def test_without_a_shortcut_nothing_is_confirmed(digits):
    rng = np.random.default_rng(0)
    for seed in range(5):
        rows = rng.permutation(len(digits[1]))
        splits = (stamped(digits, half, 0.0, rng) for half in (rows[:500], rows[500:]))
        found = find_suspects(*splits, seed=seed)
        assert not found.confirmed
        assert found.score_without == found.full_score
        assert verdict(found).answer in ("no", "undecided")
        assert not verdict(found).dimensions


def test_a_shortcut_that_holds_on_test_as_well_is_not_found(digits):
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(digits[1]))
    splits = (stamped(digits, half, 0.97, rng) for half in (rows[:600], rows[600:]))
    assert not find_suspects(*splits).confirmed


def test_where_few_samples_are_misread_the_answer_is_open(digits):
    labels = np.arange(400) % 4
    features = np.eye(4)[labels] + 0.01 * np.random.default_rng(0).normal(size=(400, 4))
    found = find_suspects((features, labels), (features, labels))
    assert (found.n_suspects, found.n_tried, found.n_misread) == (0, 0, 0)
    assert found.n_test_needed == 400 * 5
    assert verdict(found).answer == "undecided"
    assert "about 2,000 test samples are needed" in verdict(found).because


def test_other_readers_are_fitted_again_behind_each_removal(splits):
    train, test = splits[0][:400], splits[1][:600]
    found = find_suspects(train, test, reader=KNN(k=3), max_directions=2)
    assert found.reader == "knn"
    assert found.n_tried == 2
    if len(found):
        left = found.remove(train, 1), found.remove(test, 1)
        reader = KNN(k=3).fit(left[0].features, left[0].labels)
        confirming = _parts(Split(test.features, test.labels), np.random.default_rng(0))[2]
        right = (reader.classify(left[1].features) == test.labels)[confirming]
        assert right.mean() == pytest.approx(found.score[0], abs=2 / confirming.sum())


def test_whole_clusters_go_to_one_part(splits):
    train, test = splits
    clusters = np.arange(len(test)) // 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = find_suspects(train, test, clusters=(np.arange(len(train)), clusters))
    assert sum(found.part_sizes) == len(test)
    ids = np.unique(clusters, return_inverse=True)[1]
    parts = _parts(Split(test.features, test.labels, ids), np.random.default_rng(0))
    assert np.stack(parts).sum(axis=0).tolist() == [1] * len(test)
    for part in parts:
        assert set(np.bincount(ids, weights=part)) <= {0.0, 3.0, float((ids == ids[-1]).sum())}
    assert found.confirmed


def test_what_does_not_fit_is_said(splits):
    train, test = splits
    with pytest.raises(Refusal, match=r"^max_directions must be >= 1; got 0\.$"):
        find_suspects(train, test, max_directions=0)
    values = [(each.features, each.features[:, 3]) for each in splits]
    with pytest.raises(Refusal, match="find_suspects needs labels that are classes; got real"):
        find_suspects(*values)


def test_the_figure_has_a_dot_for_each_direction_or_a_sentence(found, digits):
    ax = found.plot(ax=Figure().subplots())
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), found.score)
    assert ax.lines[0].get_ydata()[0] == found.full_score
    none = find_suspects(*(Representation(digits[0][s::2], labels=digits[1][s::2]) for s in (0, 1)))
    text = none.plot(ax=Figure().subplots()).texts[0].get_text()
    assert text.replace("\n", " ").endswith(("helps the reader.", "misread to find any."))


@pytest.mark.long
@pytest.mark.parametrize(
    ("n_train", "n_test", "d", "k"), [(5000, 1000, 32, 10), (300, 1000, 64, 4), (2000, 600, 16, 4)]
)
def test_by_chance_alone_few_are_confirmed(n_train, n_test, d, k):
    n_confirmed, n_draws = 0, 100
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        means, scale = rng.normal(size=(k, d)) * 1.6 / np.sqrt(d), rng.gamma(2, 0.5, d)

        def split(n, rng=rng, means=means, scale=scale):
            labels = rng.integers(0, k, n)
            return rng.normal(size=(n, d)) * scale + means[labels], labels

        n_confirmed += find_suspects(split(n_train), split(n_test), seed=seed).confirmed
    assert n_confirmed <= 10  # more have probability 0.011 at the level of 0.05
