"""The training loop: regular step on both losses, then the meta step of the mask."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import torch
from torch import Tensor

from dimlab.mask import MaskTrace
from dimlab.training.augment import Augmentation, derived_seed
from dimlab.training.checkpoint import Checkpoint, build_network, mask_weights
from dimlab.training.config import TrainConfig
from dimlab.training.hypergradient import (
    Hypergradient,
    Weights,
    exact_hypergradient,
    without_running_statistics,
)
from dimlab.training.losses import barlow_twins_terms, nt_xent_loss

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet

# streams of randomness derived from the run's seed
_WEIGHTS, _ORDER, _VIEWS = 0, 1, 2

Record = dict[str, Any]


def train(
    config: TrainConfig,
    images: ImageSet,
    *,
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
        If there are fewer images than one batch, if ``resume`` is another run, or if a loss is not
        finite.

    Notes
    -----
    Each step draws two views of a batch, moves encoder and projectors by SGD on
    ``redundancy_weight * Barlow Twins + contrastive_weight * NT-Xent`` of the masked features, and
    then moves the mask logits by the exact hypergradient of NT-Xent through one plain SGD trial
    step from the updated weights, on the same views. Data order and views are functions of (seed,
    step): nothing is lost by stopping. Virtual forwards leave BatchNorm's running statistics alone.

    References
    ----------
    .. [1] Li et al., "MetaMask: Revisiting Dimensional Confounder for Self-Supervised Learning",
    NeurIPS 2022.
    """
    if config.batch_size > len(images):
        raise ValueError(
            f"batch_size must be at most the number of images, {len(images)}; "
            f"got {config.batch_size}."
        )
    if resume is not None and resume.config != config:
        raise ValueError("resume must be a checkpoint of the same configuration; got another one.")
    run = _Run(config, images, device, resume)
    with ExitStack() as stack:
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            log = stack.enter_context((Path(out) / "metrics.jsonl").open("w", encoding="utf-8"))
            run.write_metrics_to(log)
        for step in range(run.step, config.steps):
            record = run.advance(step)
            if sink is not None:
                sink(record)
    checkpoint = run.checkpoint()
    if out is not None:
        checkpoint.save(Path(out) / "checkpoint.pt")
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
    return _Run(config, images, "cpu", None).checkpoint()


class _Run:
    """The mutable state of one run."""

    def __init__(
        self, config: TrainConfig, images: ImageSet, device: str, resume: Checkpoint | None
    ) -> None:
        self.config, self.device = config, device
        self.pixels = torch.from_numpy(np.array(images.images)).to(device)
        n_channels, *size = images.images.shape[1:]
        self.augmentation = Augmentation(config, n_channels, (size[0], size[1]))
        self.data = {
            "name": images.name,
            "folder": images.folder,
            "split": images.split,
            "labels_hash": images.labels_hash,
            "n_images": len(images),
            "shape": list(images.images.shape[1:]),
            "n_classes": images.n_classes,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, _WEIGHTS))
            self.network = build_network(config, n_channels).to(device)
        starts_at_one = config.mask == "raw" or config.method != "metamask"
        encoder: Any = self.network["encoder"]
        self.mask_logits = torch.full((encoder.n_dimensions,), float(starts_at_one), device=device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.mask_optimiser = torch.optim.SGD(
            [self.mask_logits],
            lr=config.mask_learning_rate,
            momentum=config.mask_momentum,
            weight_decay=config.mask_weight_decay,
        )
        self.step = 0
        self.metrics: list[Record] = []
        self.trace: list[tuple[int, np.ndarray, float, float]] = [(0, self._mask_now(), 0.0, 0.0)]
        if resume is not None:
            self._restore(resume)
        self.network.train()
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.log: TextIO | None = None

    def _restore(self, checkpoint: Checkpoint) -> None:
        for key in ("name", "labels_hash", "shape"):
            if checkpoint.data[key] != self.data[key]:
                raise ValueError(
                    f"images must be those of the resumed run ({checkpoint.data['name']}); "
                    f"got another {key}."
                )
        self.network.load_state_dict(checkpoint.network)
        self.mask_logits.copy_(checkpoint.mask_logits)
        self.optimiser.load_state_dict(checkpoint.optimisers["network"])
        self.mask_optimiser.load_state_dict(checkpoint.optimisers["mask"])
        self.step = checkpoint.step
        self.metrics = list(checkpoint.metrics)
        trace = checkpoint.trace
        norms = trace.direct_norm, trace.second_order_norm
        if norms[0] is None or norms[1] is None:
            raise ValueError("resume must have the hypergradient's norms in its trace; got none.")
        self.trace = [
            (int(step), weights, float(direct), float(second))
            for step, weights, direct, second in zip(
                trace.steps, trace.weights, norms[0], norms[1], strict=True
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

    def advance(self, step: int) -> Record:
        """Take step number ``step`` (from 0) and return its record."""
        started = time.perf_counter()
        self._set_rates(step)
        views = self._views(step)
        drawn = time.perf_counter()
        record = self._regular_step(views, step)
        regular = time.perf_counter()
        if self.config.method == "metamask":
            hypergradient = self._meta_step(views)
            record["direct_norm"] = hypergradient.direct.norm().item()
            record["second_order_norm"] = hypergradient.second_order.norm().item()
        self.step = step + 1
        now = time.perf_counter()
        weights = mask_weights(self.mask_logits, self.config.mask)
        record |= {
            "mask_mean": float(weights.mean()),
            "mask_std": float(weights.std(correction=0)),
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "mask_learning_rate": self.mask_optimiser.param_groups[0]["lr"],
            "data_seconds": drawn - started,
            "regular_seconds": regular - drawn,
            "meta_seconds": now - regular,
            "seconds": now - started,
        }
        if step == 0 or self.step % self.config.trace_every == 0 or self.step == self.config.steps:
            self._trace(record)
        return record

    def _trace(self, record: Record) -> None:
        weights = self._mask_now()
        norms = record.get("direct_norm", 0.0), record.get("second_order_norm", 0.0)
        self.metrics.append(record)
        self.trace.append((self.step, weights, *norms))
        self._write(record, weights)

    def _set_rates(self, step: int) -> None:
        config = self.config
        scale = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        if step < config.warmup_steps:
            scale *= (step + 1) / config.warmup_steps
        self.optimiser.param_groups[0]["lr"] = config.learning_rate * scale
        self.mask_optimiser.param_groups[0]["lr"] = config.mask_learning_rate * scale

    def _views(self, step: int) -> tuple[Tensor, Tensor]:
        config = self.config
        per_epoch = len(self.pixels) // config.batch_size
        epoch, position = divmod(step, per_epoch)
        if self.order[0] != epoch:
            rng = np.random.default_rng(derived_seed(config.seed, _ORDER, epoch))
            self.order = (epoch, torch.from_numpy(rng.permutation(len(self.pixels))))
        rows = self.order[1][position * config.batch_size : (position + 1) * config.batch_size]
        batch = self.pixels[rows.to(self.device)].float() / 255
        views = []
        for view in range(2):
            drawn = self.augmentation.draw(
                len(batch), derived_seed(config.seed, _VIEWS, step, view)
            )
            views.append(self.augmentation.apply(batch, drawn, slice(None)))
        return views[0], views[1]

    def _regular_step(self, views: tuple[Tensor, Tensor], step: int) -> Record:
        config = self.config
        features = [self.network["encoder"](view) for view in views]
        if config.method == "metamask":
            weights = mask_weights(self.mask_logits, config.mask)
            features = [h * weights for h in features]
        record: Record = {"step": step + 1}
        loss = torch.zeros((), device=self.device)
        if config.method != "simclr":
            z_a, z_b = (self.network["redundancy"](h) for h in features)
            invariance, redundancy = barlow_twins_terms(z_a, z_b)
            loss = loss + config.redundancy_weight * (
                invariance + config.off_diagonal_weight * redundancy
            )
            record |= {"invariance": invariance.item(), "redundancy": redundancy.item()}
        if config.method != "barlow-twins":
            z_a, z_b = (self.network["contrastive"](h) for h in features)
            contrastive = nt_xent_loss(z_a, z_b, temperature=config.temperature)
            loss = loss + config.contrastive_weight * contrastive
            record["contrastive"] = contrastive.item()
        record["loss"] = loss.item()
        if not math.isfinite(record["loss"]):
            raise ValueError(
                f"loss must stay finite; got {record['loss']} at step {step + 1}. "
                "Lower learning_rate or raise temperature."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return record

    def _meta_step(self, views: tuple[Tensor, Tensor]) -> Hypergradient:
        config = self.config
        encoder, projector = self.network["encoder"], self.network["contrastive"]

        def encode(weights: Weights, images: Tensor) -> Tensor:
            return torch.func.functional_call(encoder, weights, (images,))

        def head_loss(weights: Weights, h_a: Tensor, h_b: Tensor, s: Tensor) -> Tensor:
            mask = mask_weights(s, config.mask)
            z_a, z_b = (
                torch.func.functional_call(projector, weights, (h * mask,)) for h in (h_a, h_b)
            )
            return nt_xent_loss(z_a, z_b, temperature=config.temperature)

        with without_running_statistics(encoder, projector):
            hypergradient = exact_hypergradient(
                encode,
                head_loss,
                dict(encoder.named_parameters()),
                dict(projector.named_parameters()),
                self.mask_logits,
                views,
                learning_rate=self.optimiser.param_groups[0]["lr"],
            )
        self.mask_logits.grad = hypergradient.total
        self.mask_optimiser.step()
        return hypergradient

    def checkpoint(self) -> Checkpoint:
        """Return the state as a checkpoint on the CPU, detached from the run."""
        steps, weights, direct, second = zip(*self.trace, strict=True)
        trace = MaskTrace(
            np.array(steps),
            np.stack(weights),
            direct_norm=np.array(direct),
            second_order_norm=np.array(second),
        )
        return Checkpoint(
            config=self.config,
            data=dict(self.data),
            step=self.step,
            network=_copied(self.network.state_dict()),
            mask_logits=self.mask_logits.detach().cpu().clone(),
            trace=trace,
            metrics=tuple(self.metrics),
            optimisers={
                "network": _copied(self.optimiser.state_dict()),
                "mask": _copied(self.mask_optimiser.state_dict()),
            },
            versions=_versions(),
        )

    def _mask_now(self) -> np.ndarray:
        return mask_weights(self.mask_logits, self.config.mask).cpu().numpy().copy()


def _copied(value: Any) -> Any:
    """Copy tensors to the CPU through dicts and lists; everything else is plain already."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _versions() -> dict[str, str]:
    from dimlab import __version__

    return {
        "dimlab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
    }
