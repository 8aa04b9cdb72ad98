"""The loop: what it must equal, what it must not touch, and what it writes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.datasets import ImageSet, digits
from dimlab.io.inspecting import inspect_file
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train, untrained

TINY = replace(TrainConfig.small(), n_dimensions=16, steps=6, batch_size=16, trace_every=2)


@pytest.fixture(scope="module")
def images():
    return digits("train").take(range(64))


def assert_same_network(a, b):
    assert a.network.keys() == b.network.keys()
    for name, value in a.network.items():
        torch.testing.assert_close(b.network[name], value, rtol=0, atol=0)


def test_with_a_frozen_mask_of_ones_metamask_is_simclr_plus_barlow_twins_bit_for_bit(images):
    frozen = replace(TINY, mask="raw", mask_learning_rate=0.0)
    masked = train(frozen, images)
    plain = train(replace(frozen, method="simclr+barlow-twins"), images)
    # the meta step was taken: its gradients are there, and not zero
    assert (masked.trace.second_order_norm[1:] > 0).all()
    assert plain.trace.direct_norm.max() == 0
    assert masked.mask_logits.eq(1).all()
    assert_same_network(masked, plain)
    for key, state in masked.optimisers["network"]["state"].items():
        other = plain.optimisers["network"]["state"][key]["momentum_buffer"]
        torch.testing.assert_close(state["momentum_buffer"], other, rtol=0, atol=0)
    # negative control: a mask that moves changes the network
    moving = train(replace(frozen, mask_learning_rate=5.0), images)
    assert not torch.equal(
        moving.network["encoder.conv1.weight"], plain.network["encoder.conv1.weight"]
    )


def test_same_seed_same_checkpoint_and_another_seed_another(images):
    first, second = train(TINY, images), train(TINY, images)
    assert_same_network(first, second)
    np.testing.assert_array_equal(first.trace.weights, second.trace.weights)
    other = train(replace(TINY, seed=1), images)
    assert not torch.equal(
        first.network["encoder.conv1.weight"], other.network["encoder.conv1.weight"]
    )


class Pulled(Exception):
    """The plug, at some step."""


def pull_the_plug_at(step):
    def sink(record):
        if record["step"] == step:
            raise Pulled

    return sink


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hypergradient": "lookahead", "outer_loss": "total"},
        {"hypergradient": "joint", "optimiser": "adamw", "learning_rate": 1e-3, "clip_norm": 0.1},
        {"meta_position": "before", "meta_batch": "held-out", "trial_step": "optimiser"},
        {"hypergradient": "lookahead", "meta_every": 4},  # killed between step and judgement
        {"hypergradient": "exact", "meta_every": 2},
    ],
)
def test_resuming_equals_not_stopping(changes, images, tmp_path):
    config = replace(TINY, checkpoint_every=3, **changes)
    whole = train(config, images, out=tmp_path / "whole")
    with pytest.raises(Pulled):
        train(config, images, out=tmp_path / "cut", sink=pull_the_plug_at(5))
    half = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert half.step == 3
    resumed = train(config, images, out=tmp_path / "cut", resume=half)
    assert_same_network(whole, resumed)
    torch.testing.assert_close(resumed.mask_logits, whole.mask_logits, rtol=0, atol=0)
    np.testing.assert_array_equal(resumed.trace.weights, whole.trace.weights)
    np.testing.assert_array_equal(resumed.trace.gradient_share, whole.trace.gradient_share)
    np.testing.assert_array_equal(resumed.trace.steps, [0, 1, 2, 4, 6])
    lines = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "cut")]
    first, second = ([json.loads(line)["mask"] for line in text.splitlines()] for text in lines)
    assert first == second


@pytest.mark.parametrize("schedule", ["step", "epoch"])
def test_epochs_are_the_steps_of_the_images_at_hand(schedule, images, tmp_path):
    """Four batches an epoch, rates of the whole run, resumed in the middle of an epoch."""
    by_epochs = replace(TINY, steps=0, epochs=2, schedule=schedule, checkpoint_every=3)
    expected = train(replace(by_epochs, steps=8, epochs=0), images)
    with pytest.raises(Pulled):
        train(by_epochs, images, out=tmp_path, sink=pull_the_plug_at(5))
    half = load_checkpoint(tmp_path / "checkpoint.pt")
    assert half.step == 3
    found = train(by_epochs, images, out=tmp_path, resume=half)
    assert found.step == expected.step == 8
    assert_same_network(expected, found)
    rates = [record["learning_rate"] for record in found.metrics]
    assert rates == [record["learning_rate"] for record in expected.metrics]
    assert train(by_epochs, images.take(range(35))).step == 4  # two whole batches an epoch
    with pytest.raises(ValueError, match="warmup_steps must be fewer than the run has, 8; got 8"):
        train(replace(by_epochs, warmup_steps=8), images)


def test_the_mask_moves_and_training_lowers_the_loss(images):
    checkpoint = train(replace(TINY, steps=40, trace_every=1), images)
    losses = [record["loss"] for record in checkpoint.metrics]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    np.testing.assert_array_equal(checkpoint.trace.weights[0], np.full(16, 0.5, np.float32))
    assert checkpoint.trace.summary()["moved"]


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("simclr", {"contrastive"}),
        ("barlow-twins", {"invariance", "redundancy"}),
        ("simclr+barlow-twins", {"contrastive", "invariance", "redundancy"}),
        ("metamask", {"contrastive", "invariance", "redundancy"}),
    ],
)
def test_every_method_logs_its_terms_and_they_add_up(method, terms, images):
    config = replace(TINY, method=method, steps=2, trace_every=1)
    for record in train(config, images).metrics:
        assert terms == {"contrastive", "invariance", "redundancy"} & record.keys()
        barlow = record.get("invariance", 0) + config.off_diagonal_weight * record.get(
            "redundancy", 0
        )
        total = config.redundancy_weight * barlow
        total += config.contrastive_weight * record.get("contrastive", 0)
        assert record["loss"] == pytest.approx(total, rel=1e-5)
        assert ("direct_norm" in record) == (method == "metamask")


def test_metrics_file_holds_losses_rates_seconds_and_the_mask(images, tmp_path):
    checkpoint = train(TINY, images, out=tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    for record, weights in zip(records, checkpoint.trace.weights[1:], strict=True):
        np.testing.assert_allclose(record["mask"], weights, atol=1e-6)
        assert {"learning_rate", "mask_learning_rate", "seconds", "meta_seconds"} <= record.keys()
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert [file.name for file in (tmp_path / "run").iterdir() if file.name.startswith(".")] == []


def test_rates_warm_up_and_fall_to_zero(images):
    seen = []
    config = replace(TINY, steps=8, warmup_steps=2)
    train(config, images, sink=lambda record: seen.append(record["learning_rate"]))
    cosine = [0.5 * (1 + np.cos(np.pi * step / 8)) for step in range(8)]
    expected = config.learning_rate * np.array(cosine) * np.minimum(1, [0.5] + [1] * 7)
    np.testing.assert_allclose(seen, expected)


def test_batch_norm_moves_twice_a_step_and_virtual_forwards_do_not_count(images):
    checkpoint = train(TINY, images)
    assert checkpoint.network["encoder.bn1.num_batches_tracked"].item() == 2 * TINY.steps


def test_untrained_is_where_training_starts(images):
    start = untrained(TINY, images)
    assert (start.step, len(start.metrics)) == (0, 0)
    barely = train(replace(TINY, steps=1, learning_rate=1e-30, weight_decay=0.0), images)
    torch.testing.assert_close(
        barely.network["encoder.conv1.weight"], start.network["encoder.conv1.weight"]
    )


def test_colour_images_and_a_resnet_train(rng):
    pixels = rng.integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(8) % 2, name="noise")
    config = replace(TINY, encoder="resnet18", batch_size=4, steps=1)
    checkpoint = train(config, images)
    assert checkpoint.mask_logits.shape == (512,)
    assert np.isfinite(checkpoint.metrics[-1]["loss"])


@pytest.mark.slow
def test_a_vit_trains_with_a_meta_step_every_second_step_and_is_found_again(rng, tmp_path):
    pixels = rng.integers(0, 256, (6, 3, 12, 8)).astype(np.uint8)
    config = TrainConfig(
        encoder="vit_tiny", batch_size=6, steps=4, hidden=8, contrastive_width=4,
        redundancy_width=4, hypergradient="lookahead", outer_loss="total", meta_every=2,
    )  # fmt: skip
    checkpoint = train(config, ImageSet(pixels, np.arange(6) % 2, name="noise"), out=tmp_path)
    assert checkpoint.mask.weights.shape == (192,)
    assert (checkpoint.mask.weights != 0.5).all()
    # an optimiser that keeps a copy of the weights is no second encoder
    assert inspect_file(tmp_path / "checkpoint.pt").facts["loads"] == "yes"


def test_a_batch_larger_than_the_data_is_refused(images):
    with pytest.raises(
        ValueError, match=r"batch_size must be at most the number of images, 64; got 65"
    ):
        train(replace(TINY, batch_size=65), images)


def test_grey_images_are_not_normalised_as_colour_ones_and_nothing_is_begun(images, tmp_path):
    with pytest.raises(ValueError, match=r"got 'imagenet' for C = 1\. Use dataclasses\.replace"):
        train(replace(TINY, normalisation="imagenet"), images, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_resuming_another_run_is_refused(images):
    checkpoint = train(replace(TINY, steps=1), images)
    with pytest.raises(ValueError, match="resume must be a checkpoint of the same configuration"):
        train(TINY, images, resume=checkpoint)
    other = digits("test").take(range(64))
    with pytest.raises(ValueError, match="images must be those of the resumed run"):
        train(replace(TINY, steps=1), other, resume=checkpoint)
