"""How exact the mask's gradient is as training computes it, against float64."""

from dataclasses import replace

import pytest
import torch

from dimlab.datasets import digits
from dimlab.training import run
from dimlab.training.config import TrainConfig
from dimlab.training.hypergradient import exact_hypergradient
from dimlab.training.loop import train, trial_of, untrained
from dimlab.training.run import memory_format

CONFIG = replace(TrainConfig.medium(), n_dimensions=64, batch_size=128)


@pytest.fixture(scope="module")
def images():
    return digits("train", image_size=20)


@pytest.fixture(scope="module")
def trained(images):
    return train(replace(CONFIG, steps=6), images)


def error(checkpoint, images, precision):
    """Of the whole gradient, at one set of weights, mask and views."""
    whole = []
    for each in (precision, "float64"):
        same = replace(checkpoint, config=replace(CONFIG, precision=each), versions={})
        whole.append(exact_hypergradient(trial_of(same, images)).total.double())
    return float((whole[0] - whole[1]).norm() / whole[1].norm())


def test_on_a_cpu_float32_is_laid_out_so_that_it_loses_little(images, trained, monkeypatch):
    """Channels-last would lose more than ten times as much: BatchNorm adds up one by one there."""
    found = [error(each, images, "float32") for each in (untrained(CONFIG, images), trained)]
    assert max(found) < 0.01
    monkeypatch.setattr(run, "memory_format", lambda device, precision: torch.channels_last)
    other = [error(each, images, "float32") for each in (untrained(CONFIG, images), trained)]
    assert sum(other) > 5 * sum(found)


def test_bfloat16_stays_within_the_stated_bounds(images, trained):
    assert 1e-3 < error(trained, images, "bfloat16") < 0.3
    assert error(untrained(CONFIG, images), images, "bfloat16") < 1.5


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "float32", torch.contiguous_format),
        ("cpu", "float64", torch.contiguous_format),
        ("cpu", "bfloat16", torch.channels_last),
        ("cuda", "float32", torch.channels_last),
    ],
)
def test_the_layout_is_that_of_the_device_and_the_precision(device, precision, expected):
    assert memory_format(torch.device(device), precision) == expected
