"""``dimlab evaluate`` of features and of other tools' encoders; drawing train samples."""

import json

import numpy as np
import pytest
import torch

from dimlab import DimensionMask
from dimlab.cli.samples import drawn, halves, sampled, sampled_train
from dimlab.probes.evaluate import evaluate
from dimlab.representation import Representation


def split_of(seed, n, **more):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = rng.normal(size=(n, 6)) + np.eye(6)[labels]
    views = features + 0.5 * rng.normal(size=(2, n, 6))
    return Representation(features, labels=labels, views=views, **more)


@pytest.fixture
def pair(tmp_path):
    weights = np.linspace(0, 1, 6).tolist()
    train, test = split_of(0, 150), split_of(1, 90, meta={"mask": weights, "split": "test"})
    train.save(tmp_path / "train.safetensors")
    test.save(tmp_path / "test.safetensors")
    return train, test


FILES = ("test.safetensors", "--train", "train.safetensors", "--quiet")


def test_features_are_read_as_python_reads_them(dimlab, pair, tmp_path):
    readers = ("knn", "ridge", "logistic")
    code, out, err = dimlab(
        "evaluate", *FILES, "--readers", ",".join(readers), "--k", 7, "--json", "--out", "o"
    )
    assert (code, err) == (0, "")
    expected = evaluate(*pair, mask=DimensionMask(np.linspace(0, 1, 6)), readers=readers, k=7)
    assert json.loads(out) == json.loads(json.dumps(expected.summary()))
    assert set(expected.summary()["accuracy"]) == {*readers, "view-retrieval"}
    assert {"evaluate.csv", "evaluate.json", "evaluate.svg", "evaluate.provenance.json"} <= {
        each.name for each in (tmp_path / "o").iterdir()
    }


def test_features_of_another_tool_are_halved(dimlab, tmp_path):
    whole = split_of(0, 120)
    np.savez(tmp_path / "a.npz", features=whole.features, labels=whole.labels)
    code, out, err = dimlab("evaluate", "a.npz")
    assert code == 0
    assert "60 of its 120 samples are train" in err
    assert ["knn", "none"] in [line.split()[:2] for line in out.splitlines() if line.strip()]


OWN = ("--data", "npz", "--data-dir", "own.npz")


@pytest.fixture
def pixels(tmp_path):
    """Thirty images of train and thirty of test, also in a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    split = np.repeat(["train", "test"], 30)
    np.savez(tmp_path / "own.npz", images=pixels, labels=np.arange(60) % 2, split=split)
    return pixels


def test_another_tool_s_encoder_is_read_with_data(dimlab, pixels, tmp_path):
    from dimlab.training.encoders import build_encoder

    with torch.random.fork_rng():
        source = build_encoder("resnet18", in_channels=1)
    source.train()(torch.from_numpy(pixels[:, None]).float() / 255)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pth")
    code, out, err = dimlab("evaluate", "a.pth", *OWN, "--max-train", 20, "--json", "--quiet")
    assert code == 0, err
    found = json.loads(out)
    assert (found["n_train"], found["n_test"], found["n_dimensions"]) == (20, 30, 512)
    assert {"knn", "ridge", "view-retrieval"} == set(found["accuracy"])


def test_flags_that_only_encode_has_are_said_to_be_its_own(dimlab, pixels, tmp_path):
    from dimlab.training.encoders import build_encoder

    with torch.random.fork_rng():
        source = build_encoder("resnet18", stem="cifar", in_channels=1)
    weights = source.state_dict()
    torch.save({"state_dict": weights}, tmp_path / "fresh.pth")
    code, out, err = dimlab("ablate", "fresh.pth", *OWN, "--quiet")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "(--allow-untrained)" in err
    ends = "That flag is dimlab encode's: encode {} with it first, and name the features.\n"
    assert err.endswith(ends.format("fresh.pth"))
    with torch.random.fork_rng():
        source.train()(torch.from_numpy(pixels[:8, None]).float() / 255)
    trained = {f"backbone.{name}": each for name, each in source.state_dict().items()}
    beside = {"projector.0.weight": torch.ones(8, 512), "classifier.weight": torch.ones(10, 512)}
    lightning = {"pytorch-lightning_version": "2.0", "global_step": 9, "epoch": 1}
    torch.save(lightning | {"state_dict": trained | beside}, tmp_path / "s.ckpt")
    code, _, err = dimlab("evaluate", "s.ckpt", *OWN, "--quiet")
    assert code == 0, err
    assert err.count("Taken for solo-learn's") == err.count(ends.format("s.ckpt")) > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("evaluate", *FILES, "--max-train", 0), "max-train must be >= 1; got 0."),
        (("ablate", *FILES, "--max-train", -1), "max-train must be >= 1; got -1."),
        (
            ("evaluate", "test.safetensors", "train.safetensors"),
            "files must be checkpoints of dimlab train where there are several; got "
            "test.safetensors among them. Evaluate it alone.",
        ),
        (("locate", "test.safetensors"), "must be a file of dimlab train; got features, test."),
        (("encode", "test.safetensors", "--data", "digits"), "must hold an encoder; got features"),
    ],
)
def test_misuse_is_one_sentence(dimlab, pair, arguments, sentence):
    code, out, err = dimlab(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err


def test_train_samples_are_drawn_by_class_and_noted(dimlab, pair):
    train, test = pair
    few, noted = sampled_train(train, test, 30, seed=3)
    assert np.bincount(few.labels).tolist() == [10, 10, 10]
    rows = [np.flatnonzero((train.features == row).all(1))[0] for row in few.features]
    assert rows == sorted(set(rows))
    assert noted.meta["sample"] == "30 of 150 train samples, drawn with seed 3"
    again, _ = sampled_train(train, test, 30, seed=3)
    np.testing.assert_array_equal(again.features, few.features)
    other, _ = sampled_train(train, test, 30, seed=4)
    assert (other.features != few.features).any()
    assert sampled_train(train, test, 150, seed=3) == (train, test)
    code, out, _ = dimlab(
        "ablate", *FILES, "--max-train", 30, "--max-queries", 20, "--seed", 3, "--json"
    )
    found = json.loads(out)
    assert (code, found["n_train"], found["n_test"]) == (0, 30, 20)
    assert found["sample"] == (
        "20 of 90 test samples, drawn with seed 3; 30 of 150 train samples, drawn with seed 3"
    )


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
