"""Cumulative ablation: every point is a reader fitted on what is left."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dimlab.kernels.paired import tango_interval
from dimlab.probes.ablate_cumulatively import ORDERS, _rows_needed, ablate_cumulatively
from dimlab.representation import Representation
from tests import worlds
from tests.reading import fit_knn, fit_logistic, fit_ridge


def world(seed, n=240, d=6):
    """Three useful dimensions of falling strength, the rest noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = rng.normal(size=(n, d)) + 2.5 * np.eye(3, d)[labels] * [1, 0.8, 0.6, 0, 0, 0][:d]
    return Representation(features, labels=labels)


def chance(train, test):
    """Share of the class that train's shares favour."""
    return np.mean(test.labels == np.bincount(train.labels).argmax())


@pytest.mark.parametrize("reader", ["ridge", "knn", "logistic"])
def test_every_point_is_a_reader_fitted_on_what_is_left(reader):
    train, test = world(0), world(1)
    order = np.array([3, 0, 5, 1, 4, 2])
    found = ablate_cumulatively(train, test, order=order, reader=reader)
    np.testing.assert_array_equal(found.n_removed, np.arange(7))
    fit = {"ridge": fit_ridge, "knn": fit_knn, "logistic": fit_logistic}[reader]
    settings = {"penalty": fit_logistic(train.features, train.labels).penalty}
    for gone, score in enumerate(found.scores[:-1]):
        kept = np.sort(order[gone:])
        more = settings if reader == "logistic" else {}
        expected = fit(train.features[:, kept], train.labels, **more)
        np.testing.assert_allclose(score, expected.accuracy(test.features[:, kept], test.labels))
    np.testing.assert_allclose(found.scores[-1], chance(train, test))


@pytest.mark.parametrize("n", [30, 5000])
def test_blocks_of_rows_and_wide_splits_do_not_matter(n):
    rng = np.random.default_rng(2)
    train = Representation(rng.normal(size=(25, 40)), labels=np.arange(25) % 2)
    test = Representation(rng.normal(size=(n, 40)), labels=np.arange(n) % 2)
    order = rng.permutation(40)
    found = ablate_cumulatively(train, test, order=order, n_points=5)
    for gone, score in zip(found.n_removed[:-1], found.scores, strict=False):
        kept = order[gone:]
        expected = fit_ridge(train.features[:, kept], train.labels)
        np.testing.assert_allclose(score, expected.accuracy(test.features[:, kept], test.labels))


@pytest.mark.parametrize(
    ("order", "reader"),
    [
        *itertools.product(["best-first", "worst-first"], ["ridge", "knn"]),
        ("greedy-forward", "ridge"),
        ("greedy-backward", "ridge"),
    ],
)
def test_orders_put_the_useful_dimensions_where_they_belong(order, reader):
    found = ablate_cumulatively(
        world(0, 900), world(1, 900), order=order, reader=reader, margin=0.05
    )
    useful = found.order[:3] if order == "best-first" else found.order[3:]
    assert set(useful.tolist()) == {0, 1, 2}
    if order != "best-first":
        assert found.n_dispensable >= 3
        assert found.order[-1] in (0, 1)


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_sees_the_test_split(order):
    one = ablate_cumulatively(world(0), world(1), order=order)
    two = ablate_cumulatively(world(0), world(2), order=order)
    np.testing.assert_array_equal(one.order, two.order)
    assert sorted(one.order.tolist()) == list(range(6))


def test_random_orders_are_averaged():
    train, test = world(0), world(1)
    found = ablate_cumulatively(train, test, order="random", n_random=7, seed=5)
    rng = np.random.default_rng(5)
    each = [ablate_cumulatively(train, test, order=rng.permutation(6)).scores for _ in range(7)]
    np.testing.assert_allclose(found.scores, np.mean(each, axis=0))
    assert (found.ci_low <= found.scores).all()
    assert (found.scores <= found.ci_high).all()
    assert found.n_orders == 7


def test_the_band_of_random_orders_holds_95_percent_of_them():
    train, test = world(0), world(1)
    found = ablate_cumulatively(train, test, order="random", n_random=40, seed=5)
    rng = np.random.default_rng(5)
    each = [ablate_cumulatively(train, test, order=rng.permutation(6)).scores for _ in range(40)]
    low, high = np.quantile(each, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([found.ci_low, found.ci_high], [low, high])


def test_dimensions_are_ranked_on_rows_that_the_reader_was_not_fitted_on():
    """A single neighbour of a row of train is that row itself: there nothing is ever lost."""
    rng = np.random.default_rng(6)
    splits = []
    for _ in range(2):
        labels = np.arange(300) % 2
        features = rng.normal(size=(300, 5))
        features[:, 0] += 6.0 * labels
        splits.append(Representation(features, labels=labels))
    found = ablate_cumulatively(*splits, order="worst-first", reader="knn", k=1, n_points=2)
    assert found.order[-1] == 0


def test_groups_leave_together_and_what_is_in_none_stays():
    train, test = world(0), world(1)
    found = ablate_cumulatively(train, test, order=[1, 0], groups=[[0, 3], [1, 2]])
    expected = fit_ridge(train.features[:, [0, 3, 4, 5]], train.labels)
    np.testing.assert_allclose(
        found.scores[1], expected.accuracy(test.features[:, [0, 3, 4, 5]], test.labels)
    )
    last = fit_ridge(train.features[:, [4, 5]], train.labels)
    np.testing.assert_allclose(
        found.scores[2], last.accuracy(test.features[:, [4, 5]], test.labels)
    )


def test_duplicates_leave_the_curve_of_groups_where_it_was():
    train, test = world(0), world(1)
    twice = [Representation(np.hstack([r.features] * 2), labels=r.labels) for r in (train, test)]
    groups = [[d, d + 6] for d in range(6)]
    order = [5, 4, 3, 2, 1, 0]
    for reader in ("knn", "ridge"):
        once = ablate_cumulatively(train, test, order=order, reader=reader, penalty=1e-9)
        both = ablate_cumulatively(*twice, order=order, groups=groups, reader=reader, penalty=1e-7)
        np.testing.assert_allclose(once.scores, both.scores, atol=0.005)


def equal_dimensions(rng, n, d=20):
    """Two classes, told apart a little by every dimension alike."""
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, d)) + 0.35 * (2 * labels - 1)[:, None]
    return Representation(features, labels=labels)


@pytest.mark.parametrize(
    ("loss_high", "expected"),
    [
        ([0, 0.01, 0.005, 0.0], 3),  # the margin itself is within
        ([0, 0.005, 0.02, 0.0], 1),  # the first failure ends it
        ([0, 0.02, 0.0, 0.02], 0),
        ([0.04, 0.0, 0.0, 0.0], 3),  # nothing removed is no loss
    ],
)
def test_dispensable_is_what_stays_within_the_margin_until_the_first_failure(loss_high, expected):
    found = ablate_cumulatively(world(0, 60, 3), world(1, 60, 3), order=[0, 1, 2])
    assert replace(found, loss_high=np.array(loss_high)).n_dispensable == expected


@worlds.rows_repeat
def test_few_samples_show_nothing_dispensable_and_say_how_many_would():
    rng = np.random.default_rng(0)
    found = ablate_cumulatively(
        equal_dimensions(rng, 400), equal_dimensions(rng, 30), order="random"
    )
    assert found.n_dispensable == 0
    summary = found.summary()
    assert summary["n_test_needed"] >= 381
    assert re.search(
        r"margin of 0\.01\. That margin needs \d+ test samples", summary["dispensable"]
    )
    # nothing is read at all: nothing is lost, from the number of samples on that shows it
    useless = Representation(np.zeros((400, 3)), labels=np.arange(400) % 2)
    for n, expected in ((380, 0), (381, 3)):
        curve = ablate_cumulatively(useless, useless.take(np.arange(n)), order=[0, 1, 2])
        assert (curve.n_dispensable, curve.n_test_needed) == (expected, 381)
    wider = ablate_cumulatively(useless, useless, order=[0, 1, 2], margin=0.05)
    assert (wider.n_test_needed, wider.summary()["margin"]) == (73, 0.05)
    assert "n_test_needed" not in wider.summary()


@pytest.mark.parametrize(("worse", "better", "margin"), [(5, 5, 0.01), (12, 8, 0.02), (0, 9, 0.01)])
def test_the_samples_needed_are_the_fewest_that_show_a_loss_of_that_kind(worse, better, margin):
    lost = np.repeat([1, -1, 0], [worse, better, 1000 - worse - better])
    needed = _rows_needed(lost, None, margin)
    for n in (needed - 1, needed):
        high = tango_interval(worse * n / 1000, better * n / 1000, n)[1]
        assert (high <= margin) == (n == needed)
    copies = _rows_needed(np.repeat(lost, 4), np.repeat(np.arange(1000), 4), margin)
    assert 3.99 * needed < copies < 4.02 * needed


@worlds.rows_repeat
def test_copies_of_rows_widen_intervals_only_where_clusters_are_named():
    train, test = world(0), world(1)
    copies = test.take(np.repeat(np.arange(len(test)), 4))
    once, plain, named = (
        ablate_cumulatively(train, each, order=[3, 4, 5, 0, 1, 2], clusters=clusters)
        for each, clusters in (
            (test, None), (copies, None), (copies, np.repeat(np.arange(len(test)), 4)),
        )
    )  # fmt: skip
    for low, high in (("ci_low", "ci_high"), ("loss_low", "loss_high")):
        widths = [getattr(each, high) - getattr(each, low) for each in (once, plain, named)]
        np.testing.assert_allclose(widths[2], widths[0], rtol=0.05)
        assert (widths[1] < 0.6 * widths[0]).all()
    assert named.summary()["clusters"] == {"n_clusters": 240, "largest": 4}
    assert "caution" not in named.summary()
    assert "clusters" not in plain.summary()
    assert plain.summary()["caution"].startswith("720 of 960 test rows repeat another row exactly")


def test_rows_that_rank_dimensions_are_whole_clusters_of_train():
    train, test = world(0), world(1)
    clusters = (np.arange(240) // 4, np.arange(240) // 4)
    found = ablate_cumulatively(train, test, order="worst-first", clusters=clusters)
    assert sorted(found.order.tolist()) == list(range(6))
    one_each = (np.arange(240) % 3, np.arange(240))  # every class is one cluster of train
    with pytest.raises(ValueError, match=r"^train must have classes of at least 2 rows, or clus"):
        ablate_cumulatively(train, test, order="worst-first", clusters=one_each)
    labels = np.append(train.labels, 3)
    alone = Representation(np.vstack([train.features, np.ones(6)]), labels=labels)
    summary = ablate_cumulatively(alone, test, order="best-first").summary()
    assert "1 classes were too small to be judged by" in summary["order_from"]


@pytest.mark.long
def test_what_is_called_dispensable_costs_no_more_than_the_margin():
    """Twenty equal dimensions: every one is needed, however few samples fail to show it."""
    rng = np.random.default_rng(0)
    beyond, called = 0, []
    for seed in range(30):
        train, test, many = (
            equal_dimensions(rng, n) for n in (400, [30, 300, 1500][seed % 3], 5000)
        )
        found = ablate_cumulatively(train, test, order="worst-first", seed=seed)
        curve = ablate_cumulatively(train, many, order=found.order)
        beyond += curve.scores[0] - curve.scores[found.n_dispensable] > 0.01
        called.append(found.n_dispensable)
    assert np.mean(called[::3]) == 0  # of 30 test samples
    assert beyond <= 3


def test_frame_and_summary():
    found = ablate_cumulatively(world(0), world(1), order="worst-first")
    frame = found.to_frame()
    assert frame["group"].tolist() == [-1, *found.order.tolist()]
    np.testing.assert_allclose(frame["accuracy"], found.scores)
    assert (frame["ci_low"] < frame["accuracy"]).all()
    summary = json.loads(json.dumps(found.summary()))
    assert summary["order_from"] == "the train split alone; the test split only scores."
    assert summary["n_groups"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "up"}, r"^order must be one of 'worst-first', .*; got 'up'\.$"),
        ({"order": [0, 1]}, r"^order must be a permutation of the 6 groups; got \[0, 1\]\.$"),
        (
            {"order": "greedy-forward", "reader": "knn"},
            r"^order='greedy-forward' must go with reader='ridge' .*; got reader='knn'",
        ),
        ({"order": "random", "n_random": 0}, r"^n_random must be >= 1; got 0\.$"),
        ({"order": "random", "margin": 0.0}, r"^margin must lie in \(0, 1\); got 0\.$"),
        ({"order": "random", "margin": 1.0}, r"^margin must lie in \(0, 1\); got 1\.$"),
        ({"order": "random", "n_points": 1}, r"^n_points must be >= 2; got 1\.$"),
        (
            {"order": [0, 1], "groups": [[0, 1], [1, 2]]},
            r"^groups must not share dimensions .*; got dimension 1 twice\.$",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        ablate_cumulatively(world(0), world(1), **arguments)
