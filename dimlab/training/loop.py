"""The run: batches and views in order, a step on each, and nothing lost on the way."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from torch import Tensor

from dimlab.devices import check_device
from dimlab.io.files import locked
from dimlab.mask import MaskTrace
from dimlab.training.augment import (
    VERSION,
    Augmentation,
    check_normalisation,
    derived_seed,
    normalised,
)
from dimlab.training.checkpoint import Checkpoint, build_network
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import World, all_reduce, current_world, make_statistics_global
from dimlab.training.encoders import mask_weights
from dimlab.training.hypergradient import Trial
from dimlab.training.monitor import Monitor
from dimlab.training.step import Record, Stepper, Views

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet

METRICS = "metrics.jsonl"
_LOCK = "training"
# streams of randomness derived from the run's seed
_WEIGHTS, _ORDER, _VIEWS = 0, 1, 2
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
_NORMS = ("direct_norm", "second_order_norm")


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """Layout of weights and activations: convolutions run faster on channels-last ones.

    Not in float32 on a CPU: there torch's BatchNorm sums over channels-last activations one by one,
    with 10 to 130 times the rounding error of contiguous ones, and the mask's gradient is off by
    some percent. In bfloat16 the rounding of the activations themselves is larger.
    """
    exact_on_cpu = device.type == "cpu" and precision != "bfloat16"
    return torch.contiguous_format if exact_on_cpu else torch.channels_last


class TrainingStopped(InterruptedError):
    """A signal stopped the run after a whole step; the message says where it can be resumed."""


def train(
    config: TrainConfig,
    images: ImageSet,
    *,
    validation: ImageSet | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: Checkpoint | None = None,
    sink: Callable[[Record], None] | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """Train an encoder, and with ``method="metamask"`` its dimensional mask.

    Parameters
    ----------
    config : TrainConfig
        Every knob of the run.
    images : ImageSet
        Training images; the labels are not looked at, their hash is recorded.
    validation : ImageSet, optional
        Held-out images for ``config.validate_every``; never the test split.
    out : path, optional
        Folder for ``metrics.jsonl`` (one line a traced step) and ``checkpoint.pt``; made if
        missing.
    resume : Checkpoint, optional
        Continue this run from its step; its configuration and images must be these.
    sink : callable, optional
        Called with the record of every step (losses, rates, seconds): a progress bar, a tracker.
    device : str, default="cpu"
        Where to train.

    Returns
    -------
    Checkpoint
        Weights, mask and trace after the last step.

    Raises
    ------
    ValueError
        If there are fewer images than one batch, if ``resume`` is another run, if
        ``validate_every`` is set without validation images, if grey images are to be normalised as
        ImageNet's, or if a loss is not finite, or the device is not there.
    OSError
        If another run trains into the folder, it cannot be written, or the disk has no room for
        two checkpoints and those to be kept; before the first step, and nothing is touched.
    TrainingStopped
        After SIGTERM or Ctrl-C, when the step is finished and saved.
    KeyboardInterrupt
        At the second Ctrl-C, in the middle of a step.

    Warns
    -----
    UserWarning
        If a run is resumed with other versions, threads or processes: not bit for bit the same.

    Notes
    -----
    Each step draws two views of a batch, moves encoder and projectors on
    ``redundancy_weight * Barlow Twins + contrastive_weight * NT-Xent`` of the masked features, and
    moves the mask logits by the hypergradient that the configuration names. Data order and views
    are functions of (seed, step): a resumed run is the uninterrupted one bit for bit on the same
    machine, thread count and versions. Under ``torchrun`` every process takes its part of each
    batch, and the results are those of one process up to rounding.

    References
    ----------
    .. [1] Li et al., "MetaMask: Revisiting Dimensional Confounder for Self-Supervised Learning",
       NeurIPS 2022.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from dimlab.datasets import digits
    >>> config = replace(TrainConfig.small(), steps=2, batch_size=16, n_dimensions=4)
    >>> checkpoint = train(config, digits("validation", image_size=8))
    >>> checkpoint.step, checkpoint.trace.steps.tolist(), checkpoint.trace.weights[0].tolist()
    (2, [0, 1, 2], [0.5, 0.5, 0.5, 0.5])
    >>> bool((checkpoint.trace.travelled > 0).all())  # every weight left its start
    True
    """
    check_device(device)
    _check(config, images, validation, resume)
    world = current_world()
    run = _Run(config, images, device, resume, world)
    monitor = Monitor(config, images, validation) if validation and config.validate_every else None
    folder = Path(out) if out is not None and world.rank == 0 else None
    with ExitStack() as stack:
        _prepare(folder, out, run, stack)
        stop = stack.enter_context(_signals())
        if folder is not None and run.step == 0:
            for stale in folder.glob("checkpoint-*.pt"):  # of the run that this one replaces
                stale.unlink()
            if config.keep_checkpoints:
                run.keep(folder)
        for step in range(run.step, run.n_steps):
            record = run.advance(step, monitor, folder)
            if sink is not None:
                sink(record)
            if _anyone(bool(stop), run) and run.step < run.n_steps:
                raise TrainingStopped(run.stopped(folder))
            if folder is not None and run.step % config.checkpoint_every == 0:
                run.save(folder)
                if config.keep_checkpoints:
                    run.keep(folder)
    checkpoint = run.checkpoint()
    if folder is not None:
        checkpoint.save(folder / "checkpoint.pt")
        if config.keep_checkpoints and run.n_steps % config.checkpoint_every:
            run.keep(folder)
    return checkpoint


def untrained(config: TrainConfig, images: ImageSet) -> Checkpoint:
    """Return the run's starting point: the network that `train` begins with, at step 0.

    Parameters
    ----------
    config : TrainConfig
        The configuration; its seed makes the weights.
    images : ImageSet
        The training images.

    Returns
    -------
    Checkpoint
        With ``step = 0``.
    """
    return _Run(config, images, "cpu", None, World()).checkpoint()


def trial_of(checkpoint: Checkpoint, images: ImageSet, *, device: str = "cpu") -> Trial:
    """Return the trial step that a run stands before: the one that its mask would be judged by.

    Parameters
    ----------
    checkpoint : Checkpoint
        Before its last step.
    images : ImageSet
        Its training images.
    device : str, default="cpu"
        Where to step.

    Returns
    -------
    Trial
        At the checkpoint's weights and mask, with the views and the learning rate of its next step.

    Raises
    ------
    ValueError
        If the images are others.
    """
    run = _Run(checkpoint.config, images, device, checkpoint, World())
    return run.trial()


class _Run:
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
        self.trace: list[tuple[int, np.ndarray, dict[str, float], np.ndarray]] = [
            (0, self._mask_now(), {}, nothing)
        ]
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.log: TextIO | None = None
        self.saved = "none yet"
        if resume is not None:
            self._restore(resume)

    def _restore(self, checkpoint: Checkpoint) -> None:
        for key in ("name", "labels_hash", "shape"):
            if checkpoint.data[key] != self.data[key]:
                raise ValueError(
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
            raise ValueError("resume must have the hypergradient's norms in its trace; got none.")
        share = (
            np.zeros_like(trace.weights) if trace.gradient_share is None else (trace.gradient_share)
        )
        self.trace = [
            (int(step), weights, dict(zip(_NORMS, map(float, norms), strict=True)), each)
            for step, weights, *norms, each in zip(
                trace.steps,
                trace.weights,
                trace.direct_norm,
                trace.second_order_norm,
                share,
                strict=True,
            )
        ]

    def write_metrics_to(self, log: TextIO) -> None:
        """Write one JSON line a traced step to this file: those so far, then each new one."""
        self.log = log
        weights_at = {step: weights for step, weights, _, _ in self.trace}
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
            raise ValueError(
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
        norms = {name: record.get(name, 0.0) for name in _NORMS}
        shares = (
            np.zeros(len(weights), np.float32) if share is None else share.float().cpu().numpy()
        )
        self.metrics.append(record)
        self.trace.append((self.step, weights, norms, shares))
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
        """Two views of this rank's part of batch number ``step``."""
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
        steps, weights, norms, share = zip(*self.trace, strict=True)
        trace = MaskTrace(
            np.array(steps),
            np.stack(weights),
            gradient_share=np.stack(share),
            **{name: np.array([each.get(name, 0.0) for each in norms]) for name in _NORMS},
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

    def _mask_now(self) -> np.ndarray:
        return mask_weights(self.mask_logits, self.config.mask).float().cpu().numpy().copy()


def _check(
    config: TrainConfig, images: ImageSet, validation: ImageSet | None, resume: Checkpoint | None
) -> None:
    if config.batch_size > len(images):
        raise ValueError(
            f"batch_size must be at most the number of images, {len(images)}; "
            f"got {config.batch_size}."
        )
    if not config.warmup_steps < config.n_steps(len(images)):
        raise ValueError(
            f"warmup_steps must be fewer than the run has, {config.n_steps(len(images))}; "
            f"got {config.warmup_steps}."
        )
    check_normalisation(config.normalisation, images.images.shape[1])
    if config.validate_every and validation is None:
        raise ValueError(
            "validate_every must be 0 without validation images; "
            f"got {config.validate_every}. Pass validation=."
        )
    if resume is not None and resume.config.to_dict() != config.to_dict():
        ours, theirs = config.to_dict(), resume.config.to_dict()
        name = next(name for name in ours if ours[name] != theirs[name])
        raise ValueError(
            f"resume must be a checkpoint of the same configuration; got one with "
            f"{name} = {theirs[name]!r} instead of {ours[name]!r}. Go on with its own "
            "configuration, or begin another run in another folder."
        )


def check_free(folder: str | os.PathLike[str]) -> None:
    """Raise OSError where another run trains into a folder, which need not exist."""
    if Path(folder).is_dir():
        with locked(folder, _LOCK, refusal=_taken(folder)):
            pass


def _taken(folder: str | os.PathLike[str]) -> str:
    return (
        f"out must be a folder that no other run trains into; got {os.fspath(folder)}, where one "
        "is at work. Stop that one, wait for it, or pass another --out."
    )


def _prepare(
    folder: Path | None, out: str | os.PathLike[str] | None, run: _Run, stack: ExitStack
) -> None:
    """Claim the folder for this run, see that there is room, and begin its log, before any step.

    Rank 0 alone has the folder; where it fails, all ranks do.
    """
    refused: OSError | None = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder, _LOCK, refusal=_taken(folder)))
            _check_room(folder, run)
            log = stack.enter_context((folder / METRICS).open("w", encoding="utf-8"))
            run.write_metrics_to(log)
        except OSError as error:
            refused = error
    if _anyone(refused is not None, run):
        raise refused or OSError(
            f"out must be a folder that rank 0 can begin in; got {out}, and rank 0 says why not."
        )


def _check_room(folder: Path, run: _Run) -> None:
    """Write a checkpoint on trial: an unwritable folder or a full disk shows now, not later."""
    trial = folder / f".room-{os.getpid()}.pt"
    try:
        size = run.checkpoint().save(trial).stat().st_size
        free = shutil.disk_usage(folder).free
    finally:
        trial.unlink(missing_ok=True)
    count = 2
    if run.config.keep_checkpoints:
        count += 2 + (run.n_steps - run.step) // run.config.checkpoint_every
    if free < count * size:
        raise OSError(
            f"out must have room for {count} checkpoints, {count * size / 1e6:.0f} MB; "
            f"got {free / 1e6:.0f} MB free in {folder}."
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C instead of dying in mid-step; the second Ctrl-C does interrupt."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may handle signals
        return

    def note(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _anyone(mine: bool, run: _Run) -> bool:
    """Whether it is so on any rank (has caught a signal, say): all must leave at the same step."""
    if run.world.size == 1:
        return mine
    return all_reduce(torch.tensor(float(mine), device=run.device), run.world).item() > 0


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
