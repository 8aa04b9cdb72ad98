"""Where measurements find images and trained networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimlab.datasets import load_images
from dimlab.images import ImageSet
from dimlab.training.checkpoint import Checkpoint, load_checkpoint
from study.sweep import Run

RESULTS = Path(__file__).resolve().parents[1] / "results"


class NotYet(Exception):
    """Something that a figure needs is not there yet; the message says what to do."""


@dataclass(frozen=True)
class Place:
    """The ``.npz`` file of CIFAR-10, the folder of runs, that of encoders, and kept results."""

    data_dir: Path | None = None
    runs: Path = Path("runs/natural")
    encoders: Path | None = None
    results: Path = RESULTS
    loaded: dict[str, ImageSet] = field(default_factory=dict)

    def images(self, split: str) -> ImageSet:
        """Return a split of CIFAR-10, which is loaded once."""
        if self.data_dir is None:
            raise NotYet("needs --data-dir, the .npz file that natural.md tells how to make.")
        if split not in self.loaded:
            self.loaded[split] = load_images("npz", split, data_dir=self.data_dir)
        return self.loaded[split]

    def some(self, split: str, most: int) -> ImageSet:
        """Return at most so many images of a split, the same ones on every call."""
        images = self.images(split)
        chosen = np.random.default_rng(0).permutation(len(images))[:most]
        return images.take(np.sort(chosen))

    def checkpoint(self, run: Run) -> Checkpoint:
        """Return a finished run's network."""
        path = self.runs / run.key / "checkpoint.pt"
        kept = load_checkpoint(path) if path.is_file() else None
        if kept is None or kept.step != run.config.n_steps(kept.data["n_images"]):
            named = ", ".join(f"{name} {value}" for name, value in run.labels.items())
            raise NotYet(f"needs the run {run.key} ({named}); python -m study.natural makes it.")
        return kept
