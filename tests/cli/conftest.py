"""What commands read: a short run on digits with a planted hue, and features with a shortcut."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dimlab.representation import Representation

MASK = [0.1, 0.2, 0.9, 0.5, 0.6, 0.5]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a run of four steps, whose checkpoints at 0, 2 and 4 are kept."""
    from dimlab.datasets import load_images
    from dimlab.training.config import TrainConfig
    from dimlab.training.loop import train

    folder = tmp_path_factory.mktemp("run")
    config = replace(
        TrainConfig.small(), n_dimensions=16, steps=4, batch_size=32, checkpoint_every=2,
        keep_checkpoints=True, trace_every=1,
    )  # fmt: skip
    train(config, load_images("digits+hue:0.8", "train"), out=folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(run):
    return run / "checkpoint.pt"


def split_of(name, n=240):
    """Dimensions 0 and 1 carry x, 2 and its copy 3 the label; in test x is not the label's."""
    rng = np.random.default_rng(len(name))
    labels = np.arange(n) % 2
    correlation = 0.8 if name == "train" else 0.0
    x = correlation * (2 * labels - 1) + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    features = rng.normal(size=(n, 6)) + np.outer(labels, [0, 0, 2, 0, 0, 0])
    features[:, :2] += 2 * x[:, None]
    features[:, 3] = features[:, 2] + 0.01 * rng.normal(size=n)
    return Representation(
        features, labels=labels, factors={"x": x},
        views=features + 0.3 * rng.normal(size=(2, n, 6)),
        view_factors={"shift": rng.normal(size=(2, n))}, meta={"split": name, "mask": MASK},
    )  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Write train and test; return the arguments that name them."""
    for name in ("train", "test"):
        split_of(name).save(tmp_path / f"{name}.safetensors")
    return "test.safetensors", "--train", "train.safetensors", "--quiet"


@pytest.fixture
def found(dimlab):
    """Run a command that succeeds, with ``--json``; return what it prints."""

    def call(*arguments):
        code, out, err = dimlab(*arguments, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=pytest.fail)

    return call


@pytest.fixture
def refused(dimlab):
    """Run a command that is refused in one sentence; return the exit code and the sentence."""

    def call(*arguments):
        code, out, err = dimlab(*arguments)
        assert (out, len(err.splitlines())) == ("", 1), err
        assert err.startswith(f"dimlab {arguments[0]}: ")
        return code, err

    return call
