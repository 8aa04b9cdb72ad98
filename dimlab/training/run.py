"""The state of one run: everything that a step moves, and what is kept of it."""

from __future__ import annotations

import json
import math
import platform
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from torch import Tensor

from dimlab.mask import MaskTrace
from dimlab.refusals import Refusal
from dimlab.training.augment import VERSION, Augmentation, derived_seed, normalised
from dimlab.training.checkpoint import Checkpoint, build_network
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import World, all_reduce, make_statistics_global
from dimlab.training.encoders import mask_weights
from dimlab.training.hypergradient import Trial
from dimlab.training.monitor import Monitor
from dimlab.training.step import Record, Stepper, Views

if TYPE_CHECKING:
    from dimlab.images import ImageSet

# streams of randomness derived from the run's seed
_WEIGHTS, _ORDER, _VIEWS = 0, 1, 2
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
        self.pixels = torch.from_numpy(np.array(images.images)).to(device)
        n_channels, *size = images.images.shape[1:]
        self.augmentation = Augmentation(config, n_channels, (size[0], size[1]))
        self.data, self.n_steps = _described(images), config.n_steps(len(images))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, _WEIGHTS))
            network = build_network(config, n_channels)
        network.to(self.device, self.dtype)
        layout = memory_format(self.device, config.precision)
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
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.log: TextIO | None = None
        self.saved = "none yet"
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
            taken = self.stepper.take(views, lambda: self._views(step + 1), traced=traced)
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
        per_epoch = len(self.pixels) // config.batch_size
        position, end = step, self.n_steps
        if config.schedule == "epoch":
            position, end = step // per_epoch, -(-self.n_steps // per_epoch)
        scale = 0.5 * (1 + math.cos(math.pi * position / end))
        return scale * min(1.0, (step + 1) / max(1, config.warmup_steps))

    def _views(self, step: int) -> Views:
        """Return two views of this rank's part of batch number ``step``."""
        config = self.config
        per_epoch = len(self.pixels) // config.batch_size
        epoch, position = divmod(step, per_epoch)
        if self.order[0] != epoch:
            rng = np.random.default_rng(derived_seed(config.seed, _ORDER, epoch))
            self.order = (epoch, torch.from_numpy(rng.permutation(len(self.pixels))))
        rows = self.order[1][position * config.batch_size : (position + 1) * config.batch_size]
        part = self.world.rows(config.batch_size)
        batch = self.pixels[rows[part].to(self.device)].to(self.dtype) / 255
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


def _described(images: ImageSet) -> dict[str, Any]:
    return {
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
