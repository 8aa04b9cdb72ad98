"""Nothing is lost: killed, stopped, diverged and out of disk."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dimlab._encode import encode
from dimlab.datasets import digits
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import TrainingStopped, train
from tests.reading import fit_knn
from tests.training.test_loop import TINY, assert_same_network

CONFIG = replace(TINY, steps=9, checkpoint_every=2, trace_every=1)

TRAIN = """
import os, signal, sys
from dataclasses import replace
from dimlab.datasets import digits
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train
from tests.training.test_interruptions import CONFIG
folder, hypergradient, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
path = os.path.join(folder, "checkpoint.pt")
resume = load_checkpoint(path) if os.path.exists(path) else None
def sink(record):
    if record["step"] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
config = replace(CONFIG, hypergradient=hypergradient)
train(config, digits("train").take(range(64)), out=folder, resume=resume, sink=sink)
"""


@pytest.fixture(scope="module")
def images():
    return digits("train").take(range(64))


def train_elsewhere(folder, hypergradient, kill_at):
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder), hypergradient, str(kill_at)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "hypergradient", ["exact", pytest.param("lookahead", marks=pytest.mark.long)]
)
def test_a_killed_run_goes_on_bit_for_bit(hypergradient, tmp_path):
    kill_at = int(np.random.default_rng().integers(3, 9))  # any step will do
    whole = train_elsewhere(tmp_path / "whole", hypergradient, 0)
    assert whole.returncode == 0, whole.stderr
    killed = train_elsewhere(tmp_path / "killed", hypergradient, kill_at)
    assert killed.returncode == -signal.SIGKILL
    half = load_checkpoint(tmp_path / "killed" / "checkpoint.pt")
    assert half.step == (kill_at - 1) // 2 * 2  # the sink is told before the checkpoint is written
    resumed = train_elsewhere(tmp_path / "killed", hypergradient, 0)
    assert resumed.returncode == 0, resumed.stderr
    checkpoints = [load_checkpoint(tmp_path / run / "checkpoint.pt") for run in ("whole", "killed")]
    assert_same_network(*checkpoints)
    np.testing.assert_array_equal(checkpoints[0].trace.weights, checkpoints[1].trace.weights)
    states = [c.optimisers["network"]["state"][0]["momentum_buffer"] for c in checkpoints]
    torch.testing.assert_close(*states, rtol=0, atol=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(number, images, tmp_path):
    def sink(record):
        if record["step"] == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(
        TrainingStopped, match=r"stopped after step 3 of 9; .*checkpoint.pt \(step 3"
    ):
        train(CONFIG, images, out=tmp_path, sink=sink)
    assert signal.getsignal(number) is before
    half = load_checkpoint(tmp_path / "checkpoint.pt")
    assert half.step == 3
    resumed = train(CONFIG, images, out=tmp_path, resume=half)
    assert_same_network(resumed, train(CONFIG, images))


def test_a_signal_without_a_folder_says_that_nothing_was_saved(images):
    def sink(record):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStopped, match="stopped after step 1 of 9; nothing was saved"):
        train(CONFIG, images, sink=sink)


def test_a_diverging_run_names_step_seed_and_last_good_checkpoint(images, tmp_path):
    wild = replace(CONFIG, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(
        ValueError, match=r"hypergradient must stay finite; .* at step 1 .*: none yet"
    ):
        train(wild, images)
    wild = replace(wild, hypergradient="none")
    with pytest.raises(ValueError, match="loss must stay finite; got") as caught:
        train(wild, images, out=tmp_path)
    found = re.search(r"at step (\d+) \(views of seed (\d+)\).*\(step (\d+)\)", str(caught.value))
    step, _, saved = map(int, found.groups())
    assert saved == step - 1 == load_checkpoint(tmp_path / "checkpoint.pt").step


def test_a_full_disk_is_reported_before_the_first_step(images, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"out must have room for 2 checkpoints, .* MB; got"):
        train(CONFIG, images, out=tmp_path, sink=steps.append)
    assert steps == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_reported_before_the_first_step(images, tmp_path):
    (tmp_path / "file").write_text("in the way")
    steps = []
    with pytest.raises(OSError, match="file"):
        train(CONFIG, images, out=tmp_path / "file" / "run", sink=steps.append)
    assert steps == []


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path):
    code = TRAIN.replace(
        "def sink(record):",
        "import resource\ndef sink(record):\n"
        "    if record['step'] == 3:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))",
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "exact", "0"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "checkpoint.pt must be written whole; got an error from the disk" in done.stderr
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 2
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_resuming_with_other_versions_is_reported(images):
    start = train(replace(CONFIG, steps=1), images)
    other = replace(start, config=CONFIG, versions={**start.versions, "threads": "999"})
    with pytest.warns(UserWarning, match="resumed with another threads: not bit for bit"):
        train(CONFIG, images, resume=other)


def test_all_training_images_vote_where_the_bank_has_no_limit(images):
    """Against a reader of all training features; half of them find less."""
    config = replace(CONFIG, steps=1, validate_every=1)
    validation = digits("validation")
    found = {}
    for size in (0, 32, len(images)):
        records = []
        checkpoint = train(
            replace(config, validation_bank=size), images, validation=validation,
            sink=records.append,
        )  # fmt: skip
        found[size] = records[-1]["knn_accuracy"]
    bank, queries = (encode(checkpoint, each) for each in (images, validation))
    expected = fit_knn(bank.features, bank.labels, k=5).accuracy(queries.features, queries.labels)
    assert found[0] == found[len(images)] == pytest.approx(expected, abs=1e-9)
    assert found[32] < found[0]


def test_validation_is_measured_and_moves_nothing(images):
    config = replace(CONFIG, validate_every=1, batch_size=32)  # two steps an epoch
    records = []
    watched = train(config, images, validation=digits("validation"), sink=records.append)
    plain = train(replace(config, validate_every=0), images)
    assert_same_network(watched, plain)
    due = [record["step"] for record in records if "knn_accuracy" in record]
    assert due == [2, 4, 6, 8, 9]
    last = records[-1]
    assert 0.2 < last["knn_accuracy"] <= 1
    assert 0.2 < last["knn_accuracy_masked"] <= 1
    assert 1 <= last["effective_rank"] <= 16
    assert [m["step"] for m in watched.metrics if "knn_accuracy" in m] == due


def test_validation_that_is_missing_or_of_another_shape_is_refused(images):
    with pytest.raises(ValueError, match="validate_every must be 0 without validation images"):
        train(replace(CONFIG, validate_every=1), images)
    other = replace(images, images=images.images[:, :, :20])
    with pytest.raises(ValueError, match=r"validation must have images of shape \(1, 28, 28\)"):
        train(replace(CONFIG, validate_every=1), images, validation=other)


def test_the_record_has_quantiles_cosine_and_seconds(images):
    records = []
    train(CONFIG, images, sink=records.append)
    for record in records:
        quantiles = [record[f"mask_q{level}"] for level in ("05", "25", "50", "75", "95")]
        assert quantiles == sorted(quantiles)
        assert -1 <= record["hypergradient_cosine"] <= 1
        parts = record["data_seconds"] + record["regular_seconds"] + record["meta_seconds"]
        assert 0 < parts <= record["seconds"]


def test_gradient_share_is_traced(images):
    trace = train(CONFIG, images).trace
    assert trace.gradient_share.shape == trace.weights.shape
    assert (trace.gradient_share[1:].sum(axis=1) > 0).all()
    assert TrainConfig.small().trace_every == 5
