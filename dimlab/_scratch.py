"""Features while they are encoded: in memory, or in a folder from which a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimlab.io.files import replacing
from dimlab.processes import World
from dimlab.training.distributed import all_gather

SHARD = 4096  # rows, after which what is in a folder is on the disk


class Store:
    """Features (S, N, D) of S transforms of N images, of which a process writes its own rows."""

    def __init__(
        self, folder: Path | None, key: str, n_sets: int, n_samples: int, world: World
    ) -> None:
        self.folder, self.key, self.world = folder, key, world
        self.n_sets, self.n_samples, self.mine = n_sets, n_samples, world.rows(n_samples)
        self.done = self._flushed = 0  # rows of this process
        self.features: np.ndarray | None = None
        self.kept = np.ones(self.mine.stop - self.mine.start, dtype=bool)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._resume()

    def _path(self, name: str) -> Path:
        return Path(self.folder or ".") / f"{name}-{self.world.rank}-of-{self.world.size}"

    def _resume(self) -> None:
        """Go on behind the last shard that a process wrote whole with the same inputs."""
        progress = self._path("progress").with_suffix(".json")
        if not progress.is_file():
            return
        found = json.loads(progress.read_text(encoding="utf-8"))
        if found["key"] == self.key:
            self.features = np.load(self._path("features").with_suffix(".npy"), mmap_mode="r+")
            self.done = self._flushed = found["done"]
            self.kept[found["left_out"]] = False

    def put(
        self, kept: np.ndarray, features: Sequence[Tensor], check: Callable[[int], None]
    ) -> None:
        """Write the next rows, of which only those that are ``kept`` (B,) have features."""
        start, self.done = self.done, self.done + len(kept)
        self.kept[start : self.done] = kept
        if features and self.features is None:
            self._open(features[0].shape[1], check)
        if self.features is not None:
            for own, block in zip(self.features, features, strict=False):
                own[start : self.done][kept] = block.float().cpu().numpy()
        if self.done - self._flushed >= SHARD:
            self.flush()

    def _open(self, width: int, check: Callable[[int], None]) -> None:
        shape = (self.n_sets, len(self.kept), width)
        if self.folder is None:
            check(width)
            self.features = np.zeros(shape, np.float32)
            return
        path = self._path("features").with_suffix(".npy")
        self.features = np.lib.format.open_memmap(path, "w+", np.float32, shape)

    def flush(self) -> None:
        """Put what is done on the disk, then say so."""
        if self.folder is None or not isinstance(self.features, np.memmap):
            return
        self.features.flush()
        self._flushed = self.done
        left_out = np.flatnonzero(~self.kept).tolist()
        state = {"key": self.key, "done": self.done, "left_out": left_out}
        with replacing(self._path("progress").with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")

    def whole(self, device: str) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the features of all processes, (S, N, D), and which of the images were kept."""
        self.flush()
        if self.world.size == 1:
            return self.features, self.kept
        width = torch.tensor(0 if self.features is None else self.features.shape[2]).to(device)
        torch.distributed.all_reduce(width, torch.distributed.ReduceOp.MAX)
        own = self.features
        if own is None:
            own = np.zeros((self.n_sets, len(self.kept), int(width)), np.float32)
        sets = [
            all_gather(torch.from_numpy(np.array(each)).to(device), self.n_samples, self.world)
            for each in own
        ]
        kept = torch.from_numpy(self.kept.astype(np.float32)).to(device)
        whole = all_gather(kept, self.n_samples, self.world).cpu().numpy() > 0
        return np.stack([each.cpu().numpy() for each in sets]), whole
