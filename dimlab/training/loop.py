"""The training loop: checks, steps, checkpoints, and a clean end after a signal."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dimlab.datasets.objects import as_images
from dimlab.devices import check_device
from dimlab.images import ImageSet, asked_of, fit
from dimlab.io.files import locked
from dimlab.processes import World, current_world
from dimlab.refusals import Refusal
from dimlab.training.augment import check_normalisation
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.hypergradient import Trial
from dimlab.training.live import DimensionMonitor
from dimlab.training.monitor import Monitor
from dimlab.training.run import Run, fit_for
from dimlab.training.step import Record

METRICS = "metrics.jsonl"
_LOCK = "training"


class TrainingStopped(InterruptedError):
    """A signal stopped the run after a whole step; the message says where it can be resumed."""


def train(
    config: TrainConfig,
    images: Any,
    *,
    validation: Any = None,
    out: str | os.PathLike[str] | None = None,
    resume: Checkpoint | None = None,
    sink: Callable[[Record], None] | None = None,
    monitor: DimensionMonitor | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """Train an encoder, and with ``method="metamask"`` its dimensional mask.

    Parameters
    ----------
    config : TrainConfig
        All settings of the run.
    images : ImageSet, or a data set or loader of Hugging Face or torch
        Training images; their labels are not used, only the hash of the labels is recorded. Files
        are decoded when they are needed. Of a loader, its data set is used.
    validation : the same, optional
        Held-out images, labelled, for ``config.validate_every``; never the test split.
    out : path, optional
        Folder for ``metrics.jsonl`` (one line a traced step) and ``checkpoint.pt``; made if
        missing.
    resume : Checkpoint, optional
        Continue this run from its step; its configuration and images must be these.
    sink : callable, optional
        Called with the record of every step (losses, rates, seconds): a progress bar, a tracker.
    monitor : DimensionMonitor, optional
        Called with the features of each step's first view, and the mask if one is learned. Of
        several processes the first one's rows are monitored.
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
        If another run trains into the folder, the folder cannot be written, or the disk has no
        room for two checkpoints and those to be kept. This is checked before the first step.
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
    images = fit_for(config, as_images(images, split="train"), resume)
    if validation is not None:
        validation = fit(as_images(validation, split="validation"), asked_of(images))
    _check(config, images, validation, resume)
    world = current_world()
    run = Run(config, images, device, resume, world)
    judge = Monitor(config, images, validation) if validation and config.validate_every else None
    if world.rank == 0:
        run.watch = monitor
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
            record = run.advance(step, judge, folder)
            if sink is not None:
                sink(record)
            if run.anyone(bool(stop)) and run.step < run.n_steps:
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
    """Return the checkpoint that `train` begins with, at step 0; the seed makes its weights."""
    return Run(config, images, "cpu", None, World()).checkpoint()


def trial_of(checkpoint: Checkpoint, images: ImageSet, *, device: str = "cpu") -> Trial:
    """Return the trial step that a run stands before, with its views and learning rate."""
    return Run(checkpoint.config, images, device, checkpoint, World()).trial()


def _check(
    config: TrainConfig, images: ImageSet, validation: ImageSet | None, resume: Checkpoint | None
) -> None:
    if config.batch_size > len(images):
        raise Refusal(
            f"batch_size must be at most the number of images, {len(images)}; "
            f"got {config.batch_size}."
        )
    if not config.warmup_steps < config.n_steps(len(images)):
        raise Refusal(
            f"warmup_steps must be fewer than the run has, {config.n_steps(len(images))}; "
            f"got {config.warmup_steps}."
        )
    check_normalisation(config.normalisation, images.images.shape[1])
    if config.validate_every and validation is None:
        raise Refusal(
            "validate_every must be 0 without validation images; "
            f"got {config.validate_every}. Pass validation=."
        )
    if resume is not None and resume.config.to_dict() != config.to_dict():
        ours, theirs = config.to_dict(), resume.config.to_dict()
        name = next(name for name in ours if ours[name] != theirs[name])
        raise Refusal(
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
    folder: Path | None, out: str | os.PathLike[str] | None, run: Run, stack: ExitStack
) -> None:
    """Claim the folder, check that there is room, and begin its log, before any step."""
    # rank 0 alone has the folder; where it fails, all ranks do
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
    if run.anyone(refused is not None):
        raise refused or OSError(
            f"out must be a folder that rank 0 can begin in; got {out}, and rank 0 says why not."
        )


def _check_room(folder: Path, run: Run) -> None:
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
