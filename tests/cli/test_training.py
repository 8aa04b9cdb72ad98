"""`dimlab train`, `encode` and `demo`: what they start from, continue with, assume and write."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimlab.representation import Representation
from dimlab.result_file import load_result
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig

SMALL = {"batch_size": 16, "n_dimensions": 8, "hidden": 8, "redundancy_width": 8}
FEW = ["--steps", 2, *(x for name, value in SMALL.items() for x in ("--set", f"{name}={value}"))]


def config_in(folder):
    return load_checkpoint(folder / "checkpoint.pt").config


def test_train_then_ablate_with_nothing_else(dimlab, refused, tmp_path):
    code, out, err = dimlab("train", "--steps", 2, "--batch-size", 16)
    assert (code, err) == (0, "")
    assert "checkpoint" in out
    path = tmp_path / "runs" / "digits-convnet-metamask-seed0" / "checkpoint.pt"
    code, out, err = dimlab("ablate", path)
    assert (code, err) == (0, "")
    assert "No dimensions are needed at q <= 0.05" in out
    assert "lowest estimates, undecided" in out
    code, err = refused("train", "--steps", 2, "--batch-size", 16)
    assert (code, "out must be a folder without a checkpoint.pt" in err) == (2, True)


def test_digits_train_small_whatever_is_planted_in_them(dimlab, tmp_path):
    arguments = ("--data", "digits+hue:0.8", "--steps", 2, "--batch-size", 16, "--out", "r")
    assert dimlab("train", *arguments)[0] == 0
    assert config_in(tmp_path / "r") == replace(TrainConfig.small(), steps=2, batch_size=16)


def test_an_interrupted_run_is_resumed_bit_for_bit(dimlab, tmp_path, monkeypatch):
    from dimlab.training.step import Stepper

    command = ["train", "--steps", 4, "--batch-size", 16, "--set", "checkpoint_every=2"]
    assert dimlab(*command, "--out", "whole")[0] == 0
    taken, take = [], Stepper.take

    def interrupted(self, *arguments, **options):
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, *arguments, **options)

    monkeypatch.setattr(Stepper, "take", interrupted)
    code, _, err = dimlab(*command, "--out", "cut", "--resume")  # nothing there: it starts
    assert code == 1
    assert err.startswith("dimlab train: stopped after step 2 of 4; cut/checkpoint.pt")
    assert "--resume" in err
    assert dimlab(*command, "--out", "cut", "--resume")[0] == 0
    whole, cut = (load_checkpoint(tmp_path / run / "checkpoint.pt") for run in ("whole", "cut"))
    for name, value in whole.network.items():
        np.testing.assert_array_equal(cut.network[name], value)


def test_a_run_goes_on_with_its_own_configuration(dimlab, refused, tmp_path):
    """Only what is said anew may contradict it: not the defaults, nor those of a preset."""
    changed = ["--hypergradient", "lookahead", "--set", "crop_scale=0.7", "--seed", 3]
    assert dimlab("train", "--data", "digits+hue:0.5", *FEW, *changed, "--out", "r")[0] == 0
    for again in ([], ["--data", "digits+hue:0.5"], ["--steps", 2, "--seed", 3]):
        code, _, err = dimlab("train", "--out", "r", "--resume", *again)
        assert (code, err) == (0, ""), again
    config = config_in(tmp_path / "r")
    assert (config.hypergradient, config.crop_scale, config.seed) == ("lookahead", 0.7, 3)
    assert load_checkpoint(tmp_path / "r" / "checkpoint.pt").data["name"] == "digits+hue:0.5"
    for other, said in (
        (["--hypergradient", "exact"], "hypergradient = 'lookahead' instead of 'exact'"),
        (["--preset", "medium"], "instead of"),
        (["--seed", 0], "seed = 3 instead of 0"),
        (["--learning-rate", 9], "same configuration; got one with learning_rate"),
    ):
        code, err = refused("train", "--out", "r", "--resume", *other)
        assert (code, said in err) == (2, True), err
        assert "Go on with its own configuration, or begin another run in another folder." in err


def test_fields_come_from_options_a_file_and_a_preset(dimlab, tmp_path):
    (tmp_path / "run.toml").write_text("seed = 5\n")
    fields = ["--set", "nesterov=true", "--set", "mask_momentum=0.5"]
    fields += ["--set", "contrastive=vicreg_loss"]
    for more, seed in (([], 0), (["--config", "run.toml"], 5), (["--seed", 2], 2)):
        assert dimlab("train", *FEW, *fields, *more, "--out", f"r{seed}")[0] == 0
        config = config_in(tmp_path / f"r{seed}")
        assert (config.seed, config.nesterov, config.mask_momentum) == (seed, True, 0.5)
        assert config.contrastive == "vicreg_loss"


def test_training_is_watched(dimlab, tmp_path):
    watched = ("--validate-every", 1, "--set", "trace_every=1", "--tensorboard")
    code, _, err = dimlab("train", *FEW, "--out", "r", *watched)
    assert (code, err) == (0, "")
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(lines[-1])["knn_accuracy"] <= 1
    events = [file for file in (tmp_path / "r").iterdir() if file.name.startswith("events.out")]
    assert [each.stat().st_size > 500 for each in events] == [True]


def test_a_new_run_leaves_no_checkpoint_of_the_old_one(dimlab, tmp_path):
    flags = [*FEW[2:], "--out", "run", "--set", "keep_checkpoints=true"]
    flags += ["--set", "checkpoint_every=1"]
    assert dimlab("train", "--steps", 3, *flags)[0] == 0
    assert dimlab("train", "--steps", 1, *flags, "--overwrite")[0] == 0
    kept = sorted(path.stem[-1] for path in (tmp_path / "run").glob("checkpoint-*.pt"))
    assert kept == ["0", "1"]


@pytest.mark.parametrize("said", [False, True])
def test_grey_images_are_trained_on_with_the_official_preset(said, dimlab, tmp_path):
    """Its normalisation is of three channels: left out and said, refused where it is asked for."""
    few = [*FEW, "--encoder", "convnet", "--set", "validate_every=0"]
    if said:
        few += ["--set", "normalisation=imagenet"]
    code, _, err = dimlab("train", "--preset", "official", *few, "--out", "r")
    if said:
        assert code == 2
        assert "normalisation must be 'none' for images without three channels" in err
        return
    assert (code, err) == (
        0,
        "assumed: normalisation none, as imagenet, the preset's, is of three channels and the "
        "images have 1\n",
    )
    expected = replace(
        TrainConfig.official(), encoder="convnet", normalisation="none", validate_every=0, steps=2,
        **SMALL,
    )  # fmt: skip
    assert config_in(tmp_path / "r") == expected
    assert dimlab("train", "--out", "r", "--resume", "--preset", "official", *few)[0] == 0


def test_other_data_than_those_of_training_is_refused(refused, checkpoint, tmp_path):
    known = load_checkpoint(checkpoint)
    replace(known, data={**known.data, "labels_hash": "0" * 64}).save(tmp_path / "strange.pt")
    code, err = refused("ablate", "strange.pt")
    assert (code, "labels with another hash" in err) == (1, True)


def test_features_without_labels_say_what_to_do(refused, tmp_path):
    Representation(np.eye(4)).save(tmp_path / "a.safetensors")
    code, err = refused("ablate", "a.safetensors", "--train", "a.safetensors")
    said = "labels must stand in a.safetensors or be named; got none. Pass --labels FILE"
    assert (code, said in err) == (2, True)


@pytest.mark.long
def test_the_demo_makes_a_report(dimlab, tmp_path):
    code, out, err = dimlab("demo", "--out", "d")
    assert (code, err) == (0, "")
    story = [
        "The problem, known in advance",
        "Found: ",
        "Removed: ",
        "One answer",
        "The learned mask",
    ]
    assert [out.count(f"- {sentence}") for sentence in story] == [1] * 5
    assert out.index("report.html") < out.index("Next, features of your own")
    erasure = load_result(tmp_path / "d" / "attribution.result.npz").erasure
    gain = erasure.accuracy_change[erasure.ways.index("directions"), 0]
    assert gain[1] > 0  # what was promised is shown
    assert "report.html" in out
    summary = json.loads((tmp_path / "d" / "mask_evolution.json").read_text())
    assert summary["std_weight"] > 0.05  # TrainConfig.small()'s promise
    assert json.loads((tmp_path / "d" / "provenance.json").read_text())["elapsed_seconds"] > 0


@pytest.mark.long
def test_fashion_mnist_trains_and_its_checkpoint_is_ablated(dimlab):
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Fashion-MNIST is not there: install Debian's dataset-fashion-mnist")
    code, _, err = dimlab("train", "--data", "fashion-mnist", "--steps", 5, "--out", "r")
    assert (code, err) == (0, "")
    code, out, err = dimlab("ablate", "r/checkpoint.pt", "--max-queries", 300, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["n_train"] == 54_000


@pytest.mark.long
def test_torchrun_trains_and_encodes_as_one_process_does(tmp_path):
    command = ["train", "--steps", "3", "--batch-size", "15", "--set", "precision=float64"]
    several = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for launcher, out in (([], "one"), (several, "two")):
        encode = ["encode", f"{out}/checkpoint.pt", "--split", "test", "--views", "1"]
        for arguments in ([*command, "--out", out], [*encode, "--out", out]):
            done = subprocess.run(
                [sys.executable, *launcher, "-m", "dimlab", *arguments], cwd=tmp_path,
                capture_output=True, text=True, timeout=200,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(tmp_path / out / "checkpoint.pt") for out in ("one", "two"))
    assert two.versions["processes"] == "2"
    for name, value in one.network.items():
        np.testing.assert_allclose(two.network[name], value, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(two.mask_logits, one.mask_logits, rtol=1e-9, atol=1e-12)
    features = [Representation.load(tmp_path / out / "test.safetensors") for out in ("one", "two")]
    np.testing.assert_allclose(features[1].features, features[0].features, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(features[1].views, features[0].views, rtol=1e-4, atol=1e-6)
