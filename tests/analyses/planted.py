"""Planted images, and networks whose features are what a test says: no training at all.

Every image has one colour, so that centre taps alone make the convolutions a linear map of three
sources, ReLU behind it: ``features = relu(weights @ sources + bias)``.
"""

from dataclasses import replace

import numpy as np
import torch

from dimlab.images import ImageSet
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained
from study import Study

SIDE = 8
CONFIG = replace(
    TrainConfig.small(), steps=4, batch_size=16, n_dimensions=16, jitter=1.0, jitter_strength=0.4,
    grey=0.0, crop_scale=1.0, checkpoint_every=2,
)  # fmt: skip


def images_of(sources, labels, split, **factors):
    """Images whose three channels are the sources, in [0, 1]."""
    pixels = np.round(255 * np.clip(sources, 0, 1)).astype(np.uint8)
    pixels = np.repeat(pixels[:, :, None, None], SIDE, axis=2).repeat(SIDE, axis=3)
    return ImageSet(pixels, labels, factors=factors, name="planted", split=split)


def drawn(split, size=600):
    """A generator of the split's own, labels of two classes, and independent sources."""
    rng = np.random.default_rng(["train", "validation", "test"].index(split))
    return rng, rng.integers(0, 2, size), rng.random((size, 3))


def network_with(checkpoint, weights, bias):
    """The checkpoint, its encoder replaced by ``relu(weights @ sources + bias)``."""
    network = {name: torch.zeros_like(each) for name, each in checkpoint.network.items()}
    for name, each in checkpoint.network.items():
        if not name.startswith("encoder."):
            network[name] = each  # projectors are left as they were drawn
        elif name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
            network[name] = torch.ones_like(each)
    for layer in ("conv1", "conv2"):
        taps = network[f"encoder.{layer}.weight"]
        taps[range(3), range(3), 1, 1] = 1.0
    network["encoder.conv3.weight"][:, :3, 1, 1] = torch.tensor(weights, dtype=torch.float32)
    network["encoder.bn3.bias"] += torch.tensor(bias, dtype=torch.float32)
    return replace(checkpoint, network=network)


def trainer_of(world):
    """A trainer that trains nothing: ``world(config, rng)`` gives weights, bias and mask logits."""

    def planted(config, images, *, out, resume=None, device="cpu"):
        rng = np.random.default_rng([config.seed, len(config.method), len(config.hypergradient)])
        weights, bias, logits = world(config, rng)
        start = network_with(untrained(config, images), weights, bias)
        logits = start.mask_logits if logits is None else torch.tensor(logits, dtype=torch.float32)
        out.mkdir(parents=True, exist_ok=True)
        for step in range(0, config.steps + 1, config.checkpoint_every):
            done = replace(start, step=step, mask_logits=logits)
            if config.keep_checkpoints:
                done.save(out / f"checkpoint-{step:07d}.pt")
        done.save(out / "checkpoint.pt")
        return done

    return planted


def judged_in(analysis, world, images, folder, *, seeds=5, chosen=None, **changes):
    """The analysis's verdict on a planted world, end to end through ``run``."""
    study = Study(
        images, replace(CONFIG, **changes), range(seeds), "medium", folder=folder,
        trainer=trainer_of(world), chosen=chosen or {},
    )  # fmt: skip
    return analysis.judge(analysis.run(study))
