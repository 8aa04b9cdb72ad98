"""Samples that are drawn: of every class its share, the same for any order of named rows."""

import numpy as np

from dimlab.cli.samples import drawn, halves, sampled, sampled_train
from dimlab.representation import Representation


def test_train_samples_are_drawn_by_class_and_noted():
    labels = np.arange(150) % 3
    train = Representation(np.random.default_rng(0).normal(size=(150, 6)), labels=labels)
    few, noted = sampled_train(train, train, 30, seed=3)
    assert np.bincount(few.labels).tolist() == [10, 10, 10]
    rows = [np.flatnonzero((train.features == row).all(1))[0] for row in few.features]
    assert rows == sorted(set(rows))
    assert noted.meta["sample"] == "30 of 150 train samples, drawn with seed 3"
    again, _ = sampled_train(train, train, 30, seed=3)
    np.testing.assert_array_equal(again.features, few.features)
    other, _ = sampled_train(train, train, 30, seed=4)
    assert (other.features != few.features).any()
    assert sampled_train(train, train, 150, seed=3) == (train, train)


def test_every_class_keeps_its_share_of_a_skewed_train():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    np.random.default_rng(0).shuffle(labels)
    rows = drawn(1000, 50, labels, seed=1)
    assert np.bincount(labels[rows]).tolist() == [35, 10, 5]
    assert len(set(rows.tolist())) == 50
    assert len(drawn(1000, 1000, labels, seed=1)) == 1000


def test_named_rows_are_drawn_alike_in_any_order_of_the_rows():
    rng = np.random.default_rng(0)
    names = np.array([f"{row}.png" for row in range(60)])
    whole = Representation(
        rng.normal(size=(60, 2)), labels=np.arange(60) % 3, factors={"file": names}
    )
    shuffled = whole.take(rng.permutation(60))
    drawings = [[*halves(each, seed=1), sampled(each, 20, seed=2)] for each in (whole, shuffled)]
    for ours, theirs in zip(*drawings, strict=True):
        assert set(ours.factors["file"]) == set(theirs.factors["file"])
