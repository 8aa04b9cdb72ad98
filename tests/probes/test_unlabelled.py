"""Ablation without labels: finding a sample's other view, and keeping the neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dimlab import MaskTrace, Representation, ablate, examine, follow

VIEWS, NEIGHBOURHOOD = "view_retrieval", "neighbourhood"


def viewed(seed=0, n=80, d=6):
    """Both views agree but for noise; dimension 3 differs wildly, and the last one is constant."""
    rng = np.random.default_rng(seed)
    features, scale = rng.normal(size=(n, d)), np.full(d, 0.4)
    scale[[3, -1]] = 3, 0
    features[:, -1] = 0
    return Representation(features, views=features + scale * rng.normal(size=(2, n, d)))


def nearest(bank, queries, k):
    bank, queries = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-300)
        for each in (bank, queries)
    )
    return np.argsort(-(queries @ bank.T).round(10), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("decimals", [15, 0], ids=["apart", "tied"])
def test_view_retrieval_without_each_dimension_equals_brute_force(decimals):
    split = viewed()
    views = split.views.round(decimals)
    views[..., 4] += 1e-3 * np.arange(80)  # no row repeats another one
    found = ablate(None, Representation(views[0], views=views), score=VIEWS)
    own = np.arange(len(split))
    assert_allclose(found.full_score, (nearest(*views, 1)[:, 0] == own).mean())
    for dimension in range(6):
        left = np.delete(views, dimension, axis=2)
        expected = (nearest(*left, 1)[:, 0] == own).mean()
        assert_allclose(found.scores[dimension], expected)
    groups = ablate(None, Representation(views[0], views=views), score=VIEWS, groups=[[0, 3, 4]])
    left = np.delete(views, [0, 3, 4], axis=2)
    assert_allclose(groups.scores, (nearest(*left, 1)[:, 0] == own).mean())


def test_a_dimension_that_differs_between_views_does_harm_and_a_stable_one_is_needed():
    split = viewed(n=400, d=12)
    found = ablate(None, split, score=VIEWS)
    assert_allclose(found.full_score, (nearest(*split.views, 1)[:, 0] == np.arange(400)).mean())
    assert found.harmful.tolist() == [3]
    assert set(found.needed.tolist()) == {*range(11)} - {3}
    assert found.importance[11] == 0
    assert found.constant.tolist() == [11]
    assert found.reader == "knn"
    assert 0 <= found.certified_share <= 1


@pytest.mark.parametrize("k", [1, 4])
def test_the_share_of_neighbours_that_stay_equals_brute_force(k):
    rng = np.random.default_rng(1)
    train, test = (Representation(rng.normal(size=(n, 5)) * [3, 1, 1, 1, 1]) for n in (60, 40))
    found = ablate(train, test, score=NEIGHBOURHOOD, k=k)
    assert found.full_score == 1
    whole = nearest(train.features, test.features, k)
    for dimension in range(5):
        left = [np.delete(each.features, dimension, axis=1) for each in (train, test)]
        shared = [len(set(a) & set(b)) / k for a, b in zip(whole, nearest(*left, k), strict=True)]
        assert_allclose(found.scores[dimension], np.mean(shared))
    assert found.importance.argmax() == 0


def test_labels_change_nothing_where_none_are_needed():
    split = viewed()
    named = Representation(
        split.features, labels=["a", "b"] * 40, views=split.views, factors={"s": np.arange(80) // 2}
    )
    for with_labels, without in ((named, split),):
        a, b = (ablate(None, each, score=VIEWS) for each in (with_labels, without))
        np.testing.assert_array_equal(a.importance, b.importance)
    clustered = ablate(None, named, score=VIEWS, clusters="s")
    assert clustered.n_clusters == 40


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"score": VIEWS, "reader": "ridge"}, "reader must be left out for score='view_retrieval'"),
        ({"score": VIEWS, "alone": True}, "alone must be left out"),
        ({"score": NEIGHBOURHOOD, "fill": "mean"}, "fill must be left out"),
        ({"score": NEIGHBOURHOOD}, "score='neighbourhood' needs train"),
        ({}, "train must be given for a reader"),
    ],
)
def test_what_has_no_meaning_without_a_reader_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        ablate(None, viewed(), **given)


def test_views_are_needed_for_view_retrieval():
    bare = Representation(np.eye(3))
    with pytest.raises(ValueError, match="score='view_retrieval' needs two views of each of at le"):
        ablate(None, bare, score=VIEWS)


def test_an_examination_without_labels_ablates_the_retrieval_of_views():
    found = examine(None, viewed())
    assert found["ablation"].score == VIEWS
    assert "ablate" not in found.not_measured


def test_mask_weights_are_compared_with_what_dimensions_do_for_view_retrieval():
    found = ablate(None, viewed(n=200, d=12), score=VIEWS)
    weights = 0.5 + 2 * found.importance
    trace = MaskTrace(np.array([0, 10]), np.stack([np.full(12, 0.5), weights]))
    links = follow(trace, ablation=found, n_permutations=50, n_bootstrap=50).links
    learned = [each for each in links if each.mask == "learned"]
    assert [each.correlation for each in learned] == [pytest.approx(1.0)]


def test_the_command_needs_no_labels(dimlab, tmp_path):
    split = viewed()
    split.save(tmp_path / "test.safetensors")
    viewed(1).save(tmp_path / "train.safetensors")
    for score in (VIEWS, NEIGHBOURHOOD):
        files = "test.safetensors", "--train", "train.safetensors"
        code, out, err = dimlab("ablate", *files, "--score", score, "--out", score)
        assert code == 0, err
        assert f"score  {score}" in out
    code, _, err = dimlab("ablate", *files)
    assert code == 2
    assert "labels must stand in" in err
