"""The state of one run: everything that a step moves, and what is kept of it."""

from __future__ import annotations

import json
import math
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from dimlab.decoding import Batch, batches
from dimlab.images import ImageFiles, ImageSet, Recipe, asked_of, fit
from dimlab.mask import MaskTrace
from dimlab.processes import World
from dimlab.refusals import Refusal
from dimlab.training.augment import VERSION, Augmentation, derived_seed, normalised
from dimlab.training.checkpoint import Checkpoint, build_network
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import all_reduce, make_statistics_global
from dimlab.training.encoders import mask_weights
from dimlab.training.hypergradient import Trial
from dimlab.training.live import DimensionMonitor
from dimlab.training.monitor import Monitor
from dimlab.training.step import Record, Stepper, Views

# streams of randomness derived from the run's seed
_WEIGHTS, _ORDER, _VIEWS = 0, 1, 2
_AHEAD = 1 << 40  # batches that may follow one
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
# step, mask weights (D,), norms of the two parts of the hypergradient, gradient share (D,)
_Traced = tuple[int, np.ndarray, float, float, np.ndarray]


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Return the layout of weights and activations; convolutions prefer channels-last."""
    # On a CPU, torch's float32 BatchNorm sums over channels-last activations one by one. The
    # rounding error is 10 to 130 times that of contiguous ones, and the mask's gradient is off by
    # some percent. In bfloat16 the rounding of the activations themselves is larger.
    exact_on_cpu = device.type == "cpu" and precision != "bfloat16"
    return torch.contiguous_format if exact_on_cpu else torch.channels_last


class Run:
    """The mutable state of one run."""

    def __init__(
        self,
        config: TrainConfig,
        images: ImageSet,
        device: str,
        resume: Checkpoint | None,
        world: World,
    ) -> None:
        self.config, self.device, self.world = config, torch.device(device), world
        self.dtype = _DTYPES[config.precision]
        images = fit_for(config, images, resume)
        self.n_images, n_channels, *size = images.images.shape
        self.order = _Order(config, self.n_images, world.rows(config.batch_size))
        self.pixels = _Pixels(images.images, self.order, self.device)
        self.augmentation = Augmentation(config, n_channels, (size[0], size[1]))
        self.data, self.n_steps = _described(images), config.n_steps(len(images))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, _WEIGHTS))
            network = build_network(config, n_channels)
        network.to(self.device, self.dtype)
        layout = memory_format(self.device, config.precision)
        # torch's types lack the argument
        self.network = network.to(memory_format=layout)  # type: ignore[call-overload]
        make_statistics_global(self.network, world)
        starts_at_one = config.mask == "raw" or config.method != "metamask"
        encoder: Any = self.network["encoder"]
        self.mask_logits = torch.full(
            (encoder.n_dimensions,), float(starts_at_one), device=self.device, dtype=self.dtype
        )
        self.network.train()
        self.stepper = Stepper(self.network, self.mask_logits, config, world)
        self.step = 0
        self.metrics: list[Record] = []
        nothing = np.zeros(encoder.n_dimensions, dtype=np.float32)
        self.trace: list[_Traced] = [(0, self._mask_now(), 0.0, 0.0, nothing)]
        self.log: TextIO | None = None
        self.saved = "none yet"
        self.watch: DimensionMonitor | None = None
        if resume is not None:
            self._restore(resume)

    def _restore(self, checkpoint: Checkpoint) -> None:
        for key in ("name", "labels_hash", "shape"):
            if checkpoint.data[key] != self.data[key]:
                raise Refusal(
                    f"images must be those of the resumed run ({checkpoint.data['name']}); "
                    f"got another {key}."
                )
        if checkpoint.versions and checkpoint.versions != _versions(self.world):
            now = _versions(self.world)
            changed = sorted(key for key in now if checkpoint.versions.get(key) != now[key])
            warnings.warn(
                f"resumed with another {', '.join(changed)}: not bit for bit the same run.",
                stacklevel=4,
            )
        self.network.load_state_dict(checkpoint.network)
        self.mask_logits.copy_(checkpoint.mask_logits)
        self.step = checkpoint.step
        self.stepper.restore(checkpoint.optimisers, lambda: self._views(self.step - 1))
        self.metrics = list(checkpoint.metrics)
        trace = checkpoint.trace
        if trace.direct_norm is None or trace.second_order_norm is None:
            raise Refusal("resume must have the hypergradient's norms in its trace; got none.")
        share = trace.gradient_share
        self.trace = list(
            zip(
                trace.steps.tolist(),
                trace.weights,
                trace.direct_norm.tolist(),
                trace.second_order_norm.tolist(),
                np.zeros_like(trace.weights) if share is None else share,
                strict=True,
            )
        )

    def write_metrics_to(self, log: TextIO) -> None:
        """Write one JSON line a traced step to this file: those so far, then each new one."""
        self.log = log
        weights_at = {step: weights for step, weights, *_ in self.trace}
        for record in self.metrics:
            self._write(record, weights_at[record["step"]])

    def _write(self, record: Record, weights: np.ndarray) -> None:
        if self.log is not None:
            mask = [round(float(weight), 7) for weight in weights]
            self.log.write(json.dumps({**record, "mask": mask}) + "\n")
            self.log.flush()

    def advance(self, step: int, monitor: Monitor | None, folder: Path | None) -> Record:
        """Take step number ``step`` (from 0) and return its record."""
        started = time.perf_counter()
        self.stepper.set_rates(self._scale(step))
        views = self._views(step)
        data_seconds = time.perf_counter() - started
        due = monitor is not None and monitor.is_due(step + 1)
        traced = due or (
            step == 0 or (step + 1) % self.config.trace_every == 0 or step + 1 == self.n_steps
        )
        try:
            taken = self.stepper.take(
                views, lambda: self._views(step + 1), step=step, traced=traced, watch=self._watched
            )
        except FloatingPointError as error:
            raise Refusal(
                f"{error} at step {step + 1} (views of seed "
                f"{derived_seed(self.config.seed, _VIEWS, step, 0)}). Last good checkpoint: "
                f"{self.saved}. Lower learning_rate or raise temperature."
            ) from error
        self.step = step + 1
        share = taken.pop("gradient_share", None)
        record = {"step": self.step, **taken, "data_seconds": data_seconds}
        record["seconds"] = time.perf_counter() - started
        if monitor is not None and due:
            record |= monitor.measure(self.network, self._mask_now())
        if traced:
            self._trace(record, share)
        return record

    def _watched(self, features: Tensor) -> None:
        """Show the features of a batch to who watches them."""
        if self.watch is not None:
            learned = self.config.method == "metamask"
            self.watch(features, mask=self._mask_now if learned else None)

    def trial(self) -> Trial:
        """Return the trial step from here; nothing moves."""
        self.stepper.set_rates(self._scale(self.step))
        return self.stepper.trial(self._views(self.step), lambda: self._views(self.step + 1))

    def _trace(self, record: Record, share: Tensor | None) -> None:
        weights = self._mask_now()
        norms = record.get("direct_norm", 0.0), record.get("second_order_norm", 0.0)
        nothing = np.zeros(len(weights), np.float32)
        shares = nothing if share is None else share.float().cpu().numpy()
        self.metrics.append(record)
        self.trace.append((self.step, weights, *norms, shares))
        self._write(record, weights)

    def _scale(self, step: int) -> float:
        config = self.config
        per_epoch = self.n_images // config.batch_size
        position, end = step, self.n_steps
        if config.schedule == "epoch":
            position, end = step // per_epoch, -(-self.n_steps // per_epoch)
        scale = 0.5 * (1 + math.cos(math.pi * position / end))
        return scale * min(1.0, (step + 1) / max(1, config.warmup_steps))

    def _views(self, step: int) -> Views:
        """Return two views of this rank's part of batch number ``step``."""
        config = self.config
        part, batch = self.order.part, self.pixels.at(step).to(self.dtype) / 255
        views = []
        for view in range(2):
            drawn = self.augmentation.draw(
                config.batch_size, derived_seed(config.seed, _VIEWS, step, view)
            )
            augmented = self.augmentation.apply(batch, drawn, part)
            views.append(normalised(augmented, config.normalisation))
        return views[0], views[1]

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt``; the one before it stands until this one is whole."""
        path = folder / "checkpoint.pt"
        self.checkpoint().save(path)
        self.saved = f"{path} (step {self.step})"

    def keep(self, folder: Path) -> None:
        """Write the state under the name of its step, for good."""
        self.checkpoint().save(folder / f"checkpoint-{self.step:07d}.pt")

    def stopped(self, folder: Path | None) -> str:
        """Save where that is possible, and say how to go on."""
        if folder is None:
            return f"stopped after step {self.step} of {self.n_steps}; nothing was saved."
        self.save(folder)
        return (
            f"stopped after step {self.step} of {self.n_steps}; {self.saved} is complete. "
            "Go on with --resume."
        )

    def checkpoint(self) -> Checkpoint:
        """Return the state as a checkpoint on the CPU, detached from the run."""
        steps, weights, direct, second_order, share = zip(*self.trace, strict=True)
        trace = MaskTrace(
            np.array(steps),
            np.stack(weights),
            direct_norm=np.array(direct),
            second_order_norm=np.array(second_order),
            gradient_share=np.stack(share),
        )
        return Checkpoint(
            config=self.config,
            data=dict(self.data),
            step=self.step,
            network=_copied(self.network.state_dict()),
            mask_logits=self.mask_logits.detach().cpu().clone(),
            trace=trace,
            metrics=tuple(self.metrics),
            optimisers=_copied(self.stepper.state()),
            versions=_versions(self.world),
        )

    def anyone(self, mine: bool) -> bool:
        """Return whether it is so on any rank: all ranks must leave at the same step."""
        if self.world.size == 1:
            return mine
        return all_reduce(torch.tensor(float(mine), device=self.device), self.world).item() > 0

    def _mask_now(self) -> np.ndarray:
        return mask_weights(self.mask_logits, self.config.mask).float().cpu().numpy().copy()


class _Order:
    """Rows of this rank's part of each batch, in an order that the seed and the epoch decide."""

    def __init__(self, config: TrainConfig, n_images: int, part: slice) -> None:
        self.seed, self.size, self.n_images, self.part = (
            config.seed, config.batch_size, n_images, part,
        )  # fmt: skip
        self._drawn: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __call__(self, step: int) -> np.ndarray:
        """Return the rows of batch number ``step``."""
        epoch, position = divmod(step, self.n_images // self.size)
        if self._drawn[0] != epoch:
            rng = np.random.default_rng(derived_seed(self.seed, _ORDER, epoch))
            self._drawn = (epoch, rng.permutation(self.n_images))
        rows = self._drawn[1][position * self.size : (position + 1) * self.size]
        return rows[self.part]


class _Pixels:
    """Pixels (b, C, H, W) uint8 of each batch: on the device, or decoded ahead of the run."""

    def __init__(self, images: Any, order: _Order, device: torch.device) -> None:
        self.files, self.order, self.device = images, order, device
        self.whole: Tensor | None = None
        if not isinstance(images, ImageFiles):
            self.whole = torch.from_numpy(np.array(images)).to(device)
        self.read: dict[int, Tensor] = {}  # the last two batches: a step looks at the next one
        self.stream: Iterator[Batch] = iter(())
        self.next = -1

    def at(self, step: int) -> Tensor:
        """Return the pixels of batch number ``step``."""
        if self.whole is not None:
            return self.whole[torch.from_numpy(self.order(step)).to(self.device)]
        if step not in self.read:
            if step != self.next:
                steps = range(step, step + _AHEAD)
                self.stream = batches(self.files, self.order, steps, replace_bad=True)
            _, pixels, faults = next(self.stream)
            for each in faults.values():
                warnings.warn(f"{each} Another image takes its place.", UserWarning, stacklevel=2)
            self.read = {number: self.read[number] for number in self.read if number == step - 1}
            self.read[step], self.next = pixels.to(self.device), step + 1
        return self.read[step]


def fit_for(config: TrainConfig, images: ImageSet, resume: Checkpoint | None) -> ImageSet:
    """Return images as they are trained on: as asked, as in a resumed run, else as is usual."""
    if not isinstance(images.images, ImageFiles):
        return images
    usual = Recipe.of_own("usual for dimlab's own encoders")
    if config.stem == "imagenet" and config.encoder != "convnet":
        usual = Recipe.of_torchvision("ImageNet stem")
    recorded = (resume.data.get("recipe") or {}) if resume is not None else {}
    before = Recipe.of("the resumed run", **recorded)
    return fit(images, asked_of(images).over(before).over(usual))


def _described(images: ImageSet) -> dict[str, Any]:
    files: dict[str, Any] = {}
    if isinstance(images.images, ImageFiles):
        files = {"recipe": asked_of(images).to_dict(), "reading": dict(images.reading)}
    return {
        **files,
        "name": images.name,
        "folder": images.folder,
        "split": images.split,
        "labels_hash": images.labels_hash,
        "n_images": len(images),
        "shape": list(images.images.shape[1:]),
        "n_classes": images.n_classes,
    }


def _copied(value: Any) -> Any:
    """Copy tensors to the CPU through dicts and lists; everything else is plain already."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _versions(world: World) -> dict[str, str]:
    from dimlab import __version__

    return {
        "dimlab": __version__,
        "augmentation": str(VERSION),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
        "processes": str(world.size),
    }
