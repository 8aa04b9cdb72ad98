"""Checkpoints: plain dicts of tensors and JSON, safe to load."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from dimlab.io.files import json_of, naming, replacing
from dimlab.io.unpickle import check_archive, opened_file, read_torch
from dimlab.mask import DimensionMask, MaskTrace
from dimlab.refusals import Refusal
from dimlab.result import Result
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import build_encoder, build_projector, mask_weights

FORMAT = 1
_LAST_OF = ("loss", "contrastive", "invariance", "redundancy")
_DATA_KEYS = ("name", "folder", "split", "labels_hash", "n_images", "shape", "n_classes")


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint(Result):
    """A training run at one step: configuration, data, weights, mask, trace and optimisers.

    Parameters
    ----------
    config : TrainConfig
        The run's configuration.
    data : dict
        ``name, folder, split, labels_hash, n_images, shape (C, H, W), n_classes`` of the training
        images.
    step : int
        Steps taken; 0 is an untrained network.
    network : dict of str to Tensor of any shape
        State dict with the parts ``encoder.``, ``contrastive.`` and ``redundancy.`` (the two
        projectors).
    mask_logits : Tensor of shape (D,), floating
        Logits of a sigmoid mask, or the raw mask; all ones where the method has no mask.
    trace : MaskTrace
        History of the mask weights.
    metrics : tuple of dict
        One record a traced step, as in ``metrics.jsonl``.
    optimisers : dict
        State dicts of the optimisers, ``network`` and ``mask``.
    versions : dict of str to str
        Python, torch, numpy, dimlab, its augmentation, and the thread count that bit-for-bit
        equality needs.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
    >>> checkpoint.has_mask, set(checkpoint.mask.weights.tolist())
    (True, {0.5})
    >>> checkpoint.encoder()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 64])
    >>> checkpoint
    Checkpoint(method='metamask', encoder='convnet', data='digits, 145 images', step=0,
               mask_moved=False)
    >>> checkpoint.summary()["data"], len(checkpoint.to_frame())
    ('digits, 145 images', 0)
    """

    config: TrainConfig
    data: dict[str, Any]
    step: int
    network: dict[str, Tensor]
    mask_logits: Tensor
    trace: MaskTrace
    metrics: tuple[dict[str, Any], ...] = ()
    optimisers: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    HEADLINE = ("method", "encoder", "data", "step", "mask_moved")

    @property
    def has_mask(self) -> bool:
        """Whether the run learned a mask."""
        return self.config.method == "metamask"

    @property
    def mask(self) -> DimensionMask:
        """The mask as weights in [0, 1].

        A raw mask that left [0, 1] is given as |weight| / max |weight|: cosine similarities see
        neither a common scale nor, on both sides, a sign.
        """
        weights = mask_weights(self.mask_logits, self.config.mask).double().numpy()
        if weights.min() < 0 or weights.max() > 1:
            weights = np.abs(weights) / np.abs(weights).max()
        return DimensionMask(weights)

    def encoder(self) -> nn.Module:
        """Build the encoder with these weights, in evaluation mode.

        Returns
        -------
        nn.Module
            Maps images (B, C, H, W), normalised as in training (without that: in [0, 1]), to
            features (B, D).

        Raises
        ------
        ValueError
            As `build_network`.
        """
        return self.build_network()["encoder"].eval()

    def build_network(self) -> nn.ModuleDict:
        """Build encoder and projectors with these weights.

        Returns
        -------
        nn.ModuleDict
            With ``encoder``, ``contrastive`` and ``redundancy``.

        Raises
        ------
        ValueError
            If the weights do not fit the configuration.

        Examples
        --------
        >>> from dimlab.datasets import digits
        >>> from dimlab.training.loop import untrained
        >>> checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
        >>> network = checkpoint.build_network()
        >>> network["redundancy"](network["encoder"](torch.zeros(2, 1, 8, 8))).shape
        torch.Size([2, 128])
        """
        n_channels = self.data["shape"][0]
        try:
            with torch.device("meta"):  # before memory is spent on what may not fit
                build_network(self.config, n_channels).load_state_dict(self.network, assign=True)
            with torch.random.fork_rng(devices=[]):  # the fresh weights are about to be replaced
                network = build_network(self.config, n_channels)
            network.load_state_dict(self.network)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise Refusal(
                f"network must fit the configuration {self.config.encoder!r}; got: {reason}."
            ) from error
        return network

    def to_frame(self) -> Any:
        """Return the run's metrics, one row a traced step.

        Returns
        -------
        pandas.DataFrame
            Loss terms (nats for NT-Xent), hypergradient norms, mask mean and deviation, learning
            rates and seconds; no rows for an untrained network.
        """
        import pandas as pd

        return pd.DataFrame(self.metrics)

    def summary(self) -> dict[str, Any]:
        """Return what was trained, on what, the last losses, and how far the mask moved.

        Returns
        -------
        dict
            Ready for JSON: ``method, encoder, data, step``, the loss terms of the last traced step,
            ``mask_weight_std``, ``mask_largest_change`` and ``mask_moved``.
        """
        last = self.metrics[-1] if self.metrics else {}
        moved = self.trace.summary()
        return {
            "method": self.config.method,
            "encoder": self.config.encoder,
            "data": f"{self.data['name']}, {self.data['n_images']} images",
            "step": self.step,
            **{name: last[name] for name in _LAST_OF if name in last},
            "mask_weight_std": moved["std_weight"],
            "mask_largest_change": moved["largest_change"],
            "mask_moved": moved["moved"],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the checkpoint atomically: temporary file, fsync, rename.

        Parameters
        ----------
        path : path
            The file to write; an older one is replaced only by a complete new one.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        OSError
            If the folder is not there or the disk is full; an older file stands.

        Examples
        --------
        >>> import tempfile
        >>> from dimlab.datasets import digits
        >>> from dimlab.training.loop import untrained
        >>> checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = checkpoint.save(Path(folder) / "checkpoint.pt")
        ...     path.name, Checkpoint.load(path).step
        ('checkpoint.pt', 0)
        """
        trace = {
            each.name: torch.from_numpy(np.ascontiguousarray(getattr(self.trace, each.name)))
            for each in fields(MaskTrace)
            if getattr(self.trace, each.name) is not None
        }
        payload = {
            "format": FORMAT,
            "config": self.config.to_json(),
            "data": json.dumps(self.data),
            "step": self.step,
            "network": self.network,
            "mask_logits": self.mask_logits,
            "trace": trace,
            "metrics": json.dumps(self.metrics),
            "optimisers": self.optimisers,
            "versions": json.dumps(self.versions),
        }
        path = Path(path)
        with replacing(path) as temporary:
            try:
                torch.save(payload, temporary)
            except RuntimeError as error:  # torch's writer hides why: the disk
                raise OSError(
                    f"{path} must be written whole; got an error from the disk: no space left?"
                ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Read a checkpoint, as `load_checkpoint` does.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        Checkpoint
            All tensors on the CPU.
        """
        return load_checkpoint(path)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint that `Checkpoint.save` wrote; no code in the file is ever run.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Checkpoint
        All tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, asks for more than tensors and plain containers, or is no dimlab
        checkpoint of this format.

    Examples
    --------
    >>> import tempfile
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = load_checkpoint(checkpoint.save(Path(folder) / "checkpoint.pt"))
    >>> loaded.config == checkpoint.config, torch.equal(loaded.mask_logits, torch.zeros(64))
    (True, True)
    """
    path = Path(path)
    with opened_file(path) as file:
        return checkpoint_in(path, file, read_torch(path, file))


def checkpoint_in(path: Path, file: BinaryIO, payload: Any) -> Checkpoint:
    """Return the checkpoint that an open file holds, given what was read from it."""
    if not has_format(payload):
        raise Refusal(
            f"{path.name} must be a checkpoint written by dimlab train; got another kind of file."
        )
    if payload["format"] != FORMAT:
        raise Refusal(
            f"{path.name} must have format {FORMAT}; got {payload['format']!r}. "
            "Use the version of dimlab that wrote it."
        )
    check_archive(path, file, checksums=True)
    try:
        with naming(path):
            return _from_payload(payload)
    except (KeyError, AttributeError, TypeError, OverflowError) as error:
        raise Refusal(
            f"{path.name} must be a complete dimlab checkpoint; got a damaged part ({error})."
        ) from error


def has_format(payload: Any) -> bool:
    """Whether what a torch file holds names a format, as dimlab's own checkpoints do."""
    return isinstance(payload, dict) and "format" in payload


def _from_payload(payload: dict[str, Any]) -> Checkpoint:
    texts = {name: json_of(payload[name]) for name in ("config", "data", "metrics", "versions")}
    logits, network = payload["mask_logits"], dict(payload["network"])
    _check_data(texts["data"])
    if not all(isinstance(each, Tensor) for each in (logits, *network.values())):
        raise TypeError("weights that are no tensors")
    if logits.ndim != 1 or not logits.is_floating_point() or not logits.isfinite().all():
        raise Refusal("mask_logits must be a vector of finite numbers; got something else.")
    if not isinstance(payload["step"], int) or payload["step"] < 0:
        raise Refusal(f"step must be an integer >= 0; got {payload['step']!r}.")
    trace = MaskTrace(**{name: value.numpy() for name, value in payload["trace"].items()})
    if trace.weights.shape[1] != len(logits) or trace.steps.dtype.kind not in "iu":
        raise Refusal(
            f"trace must be of {len(logits)} weights, as mask_logits is; got {trace.weights.shape}."
        )
    return Checkpoint(
        config=TrainConfig.from_dict(texts["config"]),
        data=texts["data"],
        step=payload["step"],
        network=network,
        mask_logits=logits,
        trace=trace,
        metrics=tuple(dict(each) for each in texts["metrics"]),
        optimisers=dict(payload["optimisers"]),
        versions=dict(texts["versions"]),
    )


def _check_data(data: Any) -> None:
    """Refuse a record of the training images that does not say what it must."""
    missing = [key for key in _DATA_KEYS if key not in data]
    if missing:
        raise KeyError(f"data has no {missing[0]!r}")
    numbers = [data["n_images"], data["n_classes"] + 1, *data["shape"]]  # no class: no labels
    texts = [data[name] for name in ("name", "folder", "split", "labels_hash")]
    whole = all(type(each) is int and each > 0 for each in numbers)
    if len(data["shape"]) != 3 or not whole or not all(isinstance(each, str) for each in texts):
        raise Refusal("data must say of what name, split, shape and count it is; got no such.")


def build_network(config: TrainConfig, n_channels: int) -> nn.ModuleDict:
    """Build encoder and both projectors with fresh weights from torch's current generator."""
    encoder = build_encoder(
        config.encoder,
        in_channels=n_channels,
        stem=config.stem,
        stem_relu=config.stem_relu,
        n_dimensions=config.n_dimensions,
        initialisation=config.initialisation,
    )
    width, hidden = encoder.n_dimensions, config.hidden
    return nn.ModuleDict(
        {
            "encoder": encoder,
            "contrastive": build_projector((width, hidden, config.contrastive_width)),
            "redundancy": build_projector((width, hidden, hidden, config.redundancy_width)),
        }
    )
