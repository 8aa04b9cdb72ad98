"""Pruning: what is planted as superfluous goes, what is kept is exported, the loss is bounded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load

from dimlab import Representation, ablate, fit_basis, load_features, prune
from dimlab.result import verdict_of


def planted(seed, n=800):
    """0 and 1 carry the label, 2 copies 1, 3 is dead, 4 and 5 are noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    features = rng.normal(size=(n, 6))
    features[:, 0] += 4 * (labels == 0)
    features[:, 1] += 4 * (labels == 1)
    features[:, 2], features[:, 3] = -2 * features[:, 1], 0.5
    return Representation(features, labels=labels, factors={"site": rng.normal(size=n)})


TRAIN, TEST = planted(0), planted(1)


def test_what_is_planted_as_superfluous_is_dropped_and_nothing_else():
    found = prune(TRAIN, TEST, drop_dead=True, drop_duplicates=True)
    assert found.why.tolist() == ["", "", "copy of 1", "dead", "", ""]
    found = prune(TRAIN, TEST, drop_dead=True, drop_duplicates=True, max_loss=0.02)
    assert found.why[4:].tolist() == ["dispensable"] * 2
    assert found.kept.tolist() == [0, 1]
    assert found.loss_low <= found.loss <= found.loss_high <= 0.02
    assert verdict_of(found).answer == "no"


def test_the_loss_is_that_of_ablating_what_is_dropped():
    found = prune(TRAIN, TEST, keep=[1, 4], reader="knn")
    expected = ablate(TRAIN, TEST, groups=[[0, 2, 3, 5]], reader="knn")
    assert found.full_score == expected.full_score
    assert (found.score, found.loss) == (expected.scores[0], expected.importance[0])
    assert (found.loss_low, found.loss_high) == (expected.ci_low[0], expected.ci_high[0])
    assert verdict_of(found).answer == "yes"
    open_still = replace(found, loss_low=-0.01, loss_high=0.02)
    assert verdict_of(open_still).answer == "undecided"
    assert verdict_of(replace(open_still, max_loss=0.02)).answer == "no"
    assert set(found.why[[0, 2, 3, 5]]) == {"not named"}
    nothing = prune(TRAIN, TEST, keep=range(6))
    assert (nothing.loss, nothing.loss_low, nothing.loss_high) == (0, 0, 0)
    assert nothing.score == nothing.full_score


def test_features_and_layer_are_those_that_are_kept():
    found = prune(TRAIN, TEST, keep=[4, 1])
    smaller = found.apply(TEST)
    np.testing.assert_array_equal(smaller.features, TEST.features[:, [1, 4]])
    assert smaller.factors.keys() == TEST.factors.keys()
    rows = torch.from_numpy(TEST.features.astype("f4"))
    np.testing.assert_array_equal(found.module()(rows), smaller.features.astype("f4"))
    assert not found.module().weight.requires_grad


def test_directions_are_the_leading_principal_axes():
    found = prune(TRAIN, TEST, directions=3)
    basis = fit_basis(TRAIN, "pca")
    expected = basis.apply(TEST).features[:, :3]
    np.testing.assert_allclose(found.apply(TEST).features, expected, rtol=1e-12)
    rows = torch.from_numpy(TEST.features.astype("f4"))
    np.testing.assert_allclose(found.module()(rows), expected, atol=1e-5)
    assert found.apply(TEST).meta["basis"] == "pca"
    lost = ablate(basis.apply(TRAIN), basis.apply(TEST), reader="ridge", groups=[[3, 4]])
    if basis.directions.shape[1] == 5:
        assert found.loss == lost.importance[0]
    assert found.kept.tolist() == list(range(6))


@pytest.mark.parametrize("kind", ["values", "labels"])
def test_the_loss_of_other_labels_is_in_their_score_and_is_called_so(kind):
    sides = []
    for split in (TRAIN, TEST):
        told = 2 * split.features[:, :2] + split.factors["site"][:, None]
        labels = told if kind == "values" else (told > told.mean(axis=0)).astype(int)
        sides.append(replace(split, labels=labels))
    found = prune(*sides, drop_dead=True, drop_duplicates=True, max_loss=0.05)
    assert found.kept.tolist() == [0, 1]
    assert found.loss_low <= found.loss <= found.loss_high <= 0.05
    said = verdict_of(found)
    word = "R^2" if kind == "values" else "mean average precision"
    assert said.question == f"Does the smaller representation lose {word}?"
    assert "accuracy" not in said.because
    assert found.plot(ax=Figure().subplots()).get_xlabel() == f"{word} lost"
    classes = replace(TRAIN, labels=TRAIN.labels.astype(float))
    read = prune(classes, classes, keep=[0, 1], target_kind="classes")
    assert (read.scored_by, read.full_score) == (
        "accuracy",
        prune(TRAIN, TRAIN, keep=[0]).full_score,
    )


def test_without_labels_nothing_is_said_of_a_loss():
    found = prune(TRAIN.features, TEST.features, drop_dead=True)
    assert np.isnan(found.loss)
    assert verdict_of(found) is None
    assert found.summary()["loss"] is None


def test_a_bound_that_few_samples_cannot_reach_drops_nothing():
    found = prune(TRAIN, TEST[:60], max_loss=0.005)
    assert found.summary()["n_kept"] == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"must say what is dropped, or directions alone; got none of them\."),
        ({"directions": 2, "drop_dead": True}, r"got both\."),
        ({"directions": 9}, r"directions must lie in 1\.\.\d; got 9\."),
        ({"keep": []}, r"keep must be at least one whole number; got \[\]\."),
        ({"keep": [6]}, r"keep must lie in \[0, 6\); got 6\.\.6\."),
        ({"keep": [3], "drop_dead": True}, r"keep must leave at least one dimension; got none\."),
        ({"max_loss": 0.0}, r"margin must lie in \(0, 1\)"),
    ],
)
def test_bad_requests_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        prune(TRAIN, TEST, **given)


def test_a_loss_needs_labels_and_a_representation_its_dimensions():
    with pytest.raises(ValueError, match="max_loss must come with labels"):
        prune(TRAIN.features, TEST.features, max_loss=0.1)
    with pytest.raises(ValueError, match="representation must have 6 dimensions; got 5"):
        prune(TRAIN, TEST, drop_dead=True).apply(TEST.features[:, :5])


def test_the_command_writes_smaller_features_and_a_layer(dimlab, tmp_path):
    for name, split in (("train", TRAIN), ("test", TEST)):
        split.save(tmp_path / f"{name}.safetensors")
    code, out, err = dimlab(
        "prune", "test.safetensors", "--train", "train.safetensors", "--drop-dead",
        "--drop-duplicates", "--max-loss", "0.02", "--out", "o", "--quiet",
    )  # fmt: skip
    assert code == 0, err
    assert "Does the smaller representation lose accuracy? no." in out
    smaller = load_features(tmp_path / "o" / "pruned-test.safetensors")
    np.testing.assert_array_equal(smaller.features, TEST.features[:, :2])
    weight = load((tmp_path / "o" / "prune-layer.safetensors").read_bytes())["weight"]
    np.testing.assert_array_equal(weight, np.eye(6, dtype="f4")[:2])
    assert (tmp_path / "o" / "prune.csv").is_file()
    code, _, err = dimlab("prune", "test.safetensors", "--train", "train.safetensors", "--quiet")
    assert (code, "must say what is dropped" in err) == (2, True)
