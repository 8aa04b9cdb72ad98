"""Evaluation of readers under a mask and its controls."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from scipy.stats import binomtest

from dimlab.kernels.paired import tango_interval
from dimlab.mask import DimensionMask
from dimlab.probes.evaluate import evaluate
from dimlab.representation import Representation
from tests import references, worlds
from tests.reading import fit_knn, fit_logistic, fit_ridge

MASKS = ["none", "learned", "constant", "permuted", "inverted"]


@pytest.fixture(scope="module")
def splits():
    """A world whose class is in dimension 2, and loud noise elsewhere."""
    rng = np.random.default_rng(0)

    def loud(n):
        world = worlds.informative_world(rng, n=n)
        return Representation(world.features * [1, 1, 0.03, 1, 1, 8], labels=world.labels)

    return loud(300), loud(400)


@pytest.fixture
def mask():
    return DimensionMask(np.array([0.1, 0.1, 1.0, 0.1, 0.1, 0.0]))


def table(evaluation):
    frame = evaluation.to_frame()
    return {(row.reader, row.mask): row for row in frame.itertuples()}


def test_a_good_mask_helps_knn_and_its_controls_do_not(splits, mask):
    rows = table(evaluate(*splits, mask=mask, readers=["knn"]))
    assert [name for _, name in rows] == MASKS
    assert rows["knn", "learned"].accuracy > 0.95
    assert rows["knn", "none"].accuracy < 0.85
    assert rows["knn", "inverted"].accuracy < rows["knn", "none"].accuracy
    assert rows["knn", "constant"].accuracy == rows["knn", "none"].accuracy  # scale is nothing


def test_every_row_is_a_reader_fitted_on_masked_train(splits, mask):
    train, test = splits
    rows = table(evaluate(train, test, mask=mask, seed=3))
    assert list(rows) == [(r, m) for r in ("knn", "ridge", "logistic") for m in MASKS]
    weights = {
        "none": np.ones(6),
        "learned": mask.weights,
        "constant": np.full(6, mask.weights.mean()),
        "permuted": np.random.default_rng(3).permutation(mask.weights),
        "inverted": 1 - mask.weights,
    }
    for name, w in weights.items():
        logistic = partial(fit_logistic, seed=3)
        for reader, fit in (("knn", fit_knn), ("ridge", fit_ridge), ("logistic", logistic)):
            fitted = fit(train.features * w, train.labels)
            expected = fitted.accuracy(test.features * w, test.labels)
            assert rows[reader, name].accuracy == expected


def test_standardising_readers_do_not_feel_a_mask_without_zeros(splits):
    positive = DimensionMask(np.array([0.5, 0.25, 1.0, 0.125, 0.5, 0.25]))
    rows = table(evaluate(*splits, mask=positive))
    for reader in ("ridge", "logistic"):
        assert rows[reader, "learned"].accuracy == rows[reader, "none"].accuracy
    assert rows["knn", "learned"].accuracy != rows["knn", "none"].accuracy
    notes = evaluate(*splits, mask=positive, readers=["knn"]).summary()["notes"]
    assert any("only where a weight is 0" in note for note in notes)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_mask_of_zeros_or_ones_has_controls_too(splits, weight):
    train, test = splits
    mask = DimensionMask(np.full(6, weight))
    rows = table(evaluate(train, test, mask=mask, readers=["ridge", "knn"]))
    dark, bright = ("learned", "inverted") if weight == 0 else ("inverted", "learned")
    assert rows["ridge", bright].accuracy == rows["ridge", "none"].accuracy
    assert rows["knn", bright].accuracy == rows["knn", "none"].accuracy
    # All features zero: the first five rows vote; ridge takes the largest (first) class.
    first = np.bincount(train.labels[:5]).argmax()
    assert rows["knn", dark].accuracy == (test.labels == first).mean()
    assert rows["ridge", dark].accuracy == (test.labels == 0).mean()


def test_bounds_are_wilsons(splits):
    frame = evaluate(*splits, readers=["ridge"]).to_frame()
    n_correct = round(frame["accuracy"][0] * 400)
    expected = binomtest(n_correct, 400).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose([frame["ci_low"][0], frame["ci_high"][0]], expected)
    assert list(frame.columns) == ["reader", "mask", "accuracy", "ci_low", "ci_high", "n_test"]


def test_a_mask_is_compared_with_none_on_the_same_samples(splits, mask):
    train, test = splits
    found = evaluate(train, test, mask=mask, readers=["knn", "ridge"])
    frame = found.to_frame().set_index(["reader", "mask"])
    right = {
        name: fit_knn(train.features * w, train.labels).predict(test.features * w) == test.labels
        for name, w in (("none", np.ones(6)), ("learned", mask.weights))
    }
    only = (right["learned"] & ~right["none"]).sum(), (~right["learned"] & right["none"]).sum()
    expected = [right["learned"].mean() - right["none"].mean(), *tango_interval(*only, 400)]
    row = frame.loc[("knn", "learned")]
    np.testing.assert_allclose(row[["change", "change_low", "change_high"]].tolist(), expected)
    np.testing.assert_allclose(found.summary()["change"]["knn"]["learned"], expected)
    assert "none" not in found.summary()["change"]["ridge"]
    assert frame.loc["knn"]["change"].isna().tolist() == [True, False, False, False, False]
    assert "change" not in evaluate(train, test, readers=["knn"]).to_frame()


@worlds.rows_repeat
def test_copies_are_no_further_samples_where_clusters_are_named(splits, mask):
    train, test = splits
    ids = np.repeat(np.arange(len(test)), 4)
    copies = test.take(ids)
    once, plain, named = (
        evaluate(train, each, mask=mask, readers=["ridge", "knn"], clusters=clusters)
        for each, clusters in ((test, None), (copies, None), (copies, ids))
    )
    for low, high in (("ci_low", "ci_high"), ("change_low", "change_high")):
        widths = [(f[high] - f[low]).dropna() for f in (e.to_frame() for e in (once, plain, named))]
        np.testing.assert_allclose(widths[2], widths[0], rtol=0.03)
        assert (widths[1] < 0.6 * widths[0]).all()
    assert named.summary()["clusters"] == {"n_clusters": 400, "largest": 4}
    assert named.summary()["notes"][0].startswith("Intervals: Wilson, 95 %, over clusters of test")
    assert "repeat another row exactly" in plain.summary()["caution"]


def test_view_retrieval_counts_second_views_that_find_their_first(mask):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 6))
    views = features + 0.7 * rng.normal(size=(2, 60, 6))
    views[0, 7] = views[0, 3]  # a tie: the lower sample wins
    split = Representation(features, labels=np.arange(60) % 2, views=views)
    rows = table(evaluate(split, split, mask=mask, readers=["knn"]))
    for name, weights in (("none", np.ones(6)), ("learned", mask.weights)):
        found = [references.nearest(views[0] * weights, v * weights, 1)[0][0] for v in views[1]]
        expected = (np.array(found) == np.arange(60)).mean()
        assert rows["view-retrieval", name].accuracy == expected
    assert 0.1 < rows["view-retrieval", "none"].accuracy < 1.0


def test_without_a_second_view_there_is_no_retrieval(splits):
    train, test = splits
    single = Representation(test.features, labels=test.labels, views=test.features[None])
    assert evaluate(train, single, readers=["knn"]).reader == ("knn",)


def test_the_summary_is_json(splits, mask):
    evaluation = evaluate(*splits, mask=mask, readers=["knn", "ridge"])
    summary = json.loads(json.dumps(evaluation.summary(), allow_nan=False))
    assert list(summary["accuracy"]) == ["knn", "ridge"]
    assert summary["accuracy"]["knn"]["learned"] == evaluation.accuracy[1]
    assert summary["n_test"] == 400
    assert len(evaluation) == 10


def test_progress_is_reported_to_the_end(splits, mask):
    seen = []
    evaluate(*splits, mask=mask, readers=["knn"], progress=lambda *step: seen.append(step))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_a_budget_changes_the_blocks_and_not_the_answer(splits):
    plain, blocked = (evaluate(*splits, memory=memory) for memory in (None, 0.004))
    np.testing.assert_array_equal(plain.n_correct, blocked.n_correct)
    with pytest.raises(ValueError, match=r"^memory must be at least .* GB for 300 train rows of 6"):
        evaluate(*splits, readers=["knn"], memory=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"readers": ["tree"]}, r"^reader must be one of 'knn', 'ridge', 'logistic'; got 'tree'"),
        ({"readers": []}, r"^readers must be a list of .*; got \[\]\.$"),
        ({"readers": "knn"}, r"^readers must be a list of .*; got 'knn'\.$"),
        ({"k": 301}, r"^k must be an integer in 1\.\.300"),
        ({"temperature": 0}, r"^temperature must be > 0; got 0\.$"),
        ({"penalty": 0}, r"^penalty must be > 0; got 0\.$"),
        ({"mask": DimensionMask(np.ones(3))}, r"^mask must have 6 weights to match features"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*splits, **arguments)


def test_unusable_splits_are_refused(splits):
    train, test = splits
    with pytest.raises(ValueError, match=r"^evaluate needs labels: build the Representation"):
        evaluate(train, Representation(test.features))
    turned = Representation(test.features, labels=test.labels, meta={"basis": "pca"})
    with pytest.raises(ValueError, match=r"^test must be in the basis of train, axes; got pca\."):
        evaluate(train, turned)
    with pytest.raises(ValueError, match=r"^test must have 6 dimensions to match train; got 2"):
        evaluate(train, test.select([0, 1]))
    strange = Representation(test.features, labels=test.labels + 5)
    with pytest.raises(ValueError, match=r"^test labels must be classes that train has; got cl"):
        evaluate(train, strange)
