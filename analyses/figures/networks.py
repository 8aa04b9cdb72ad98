"""Networks of 64 dimensions: self-supervised ones trained here, supervised ones of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dimlab import TrainConfig
from dimlab.training.checkpoint import Checkpoint
from figures.place import NotYet, Place
from study import Study
from study.natural import curve
from study.sweep import Run

WIDTH = 64
FAMILIES = ("simclr", "both", "lookahead", "official", "barlow-twins")
SUPERVISED = {"ResNet-20": "resnet20-12fca82f.th", "ResNet-56": "resnet56-4bfd9763.th"}
NATURAL = Study.natural()


def narrow_runs(family: str, study: Study | None = None) -> list[Run]:
    """Return the runs of a family with 64 dimensions and default hyper-parameters.

    ``official`` has the official hyper-parameters with the network, the batch and the steps of the
    others.
    """
    # a study of its own: nothing that a search chooses, or waits for
    given = study or NATURAL
    study = replace(NATURAL, config=given.config, seeds=given.seeds)
    if family != "official":
        return study.runs(family, n_dimensions=WIDTH)
    scaled = ("encoder", "hidden", "contrastive_width", "redundancy_width", "steps", "batch_size",
              "checkpoint_every", "keep_checkpoints", "trace_every")  # fmt: skip
    config = replace(
        TrainConfig.official(), **{name: getattr(study.config, name) for name in scaled},
        n_dimensions=WIDTH, epochs=0, schedule="step", validate_every=0,
    )  # fmt: skip
    return [
        Run(replace(config, seed=seed), study.data_name, {"family": family, "seed": seed})
        for seed in study.seeds
    ]


def trained(place: Place, families: Mapping[str, str]) -> tuple[dict[str, Checkpoint], list[str]]:
    """Return the first seed's network of each family by its name, and the names still missing."""
    found, left = {}, []
    for family, name in families.items():
        try:
            found[name] = place.checkpoint(narrow_runs(family)[0])
        except NotYet:
            left.append(name)
    if not found:
        raise NotYet("needs a run of 64 dimensions; python -m study.natural makes them.")
    return found, left


def run(study: Study) -> Any:
    """Ask for the runs and for their accuracy along training, as a script does."""
    runs = [each for family in FAMILIES for each in narrow_runs(family, study)]
    return study.table(runs, curve, along=True)


class _Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.stride, self.added = (1, 0) if width_in == width else (2, width - width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        half = self.added // 2
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, half, self.added - half))
        x = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(x)) + shortcut).relu()


class CifarResNet(nn.Module):
    """The network of He et al. (CVPR 2016, section 4.2) for CIFAR-10, without its classifier."""

    def __init__(self, n_blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        width_in = 16
        for number, width in enumerate((16, 32, 64), start=1):
            blocks = [_Block(width_in if each == 0 else width, width) for each in range(n_blocks)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            width_in = width

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 64)."""
        x = self.bn1(self.conv1(x)).relu()
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dim=(2, 3))


def supervised(path: Path) -> CifarResNet:
    """Load a network that others trained with labels."""
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): each for name, each in weights.items()}
    weights = {name: each for name, each in weights.items() if not name.startswith("linear.")}
    n_blocks = len({name.split(".")[1] for name in weights if name.startswith("layer1.")})
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced
        network = CifarResNet(n_blocks)
    network.load_state_dict(weights)
    return network.eval()
