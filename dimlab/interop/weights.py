"""Encoders from checkpoints that other tools wrote: loaded whole and proved, or refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dimlab.containers import Misnamed
from dimlab.interop.families import TIMM, Blueprint, build_timm
from dimlab.interop.inspecting import Inspection, mask_of, of_match
from dimlab.interop.layouts import OPTIONAL
from dimlab.interop.matching import Match, check_names, find_encoder
from dimlab.interop.opening import Opened, open_weights
from dimlab.interop.refusing import check_partial, refusal
from dimlab.mask import DimensionMask


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder with the weights of a file.

    Parameters
    ----------
    module : nn.Module
        Maps images (B, C, H, W) to features (B, D), in evaluation mode.
    inspection : Inspection
        What the file is, and what of it was taken.
    n_dimensions : int
        D.
    mask : DimensionMask or None
        The mask beside it, of D weights.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from dimlab.training.encoders import build_encoder
    >>> weights = build_encoder("resnet18").state_dict()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": weights}, f"{folder}/a.pth")
    ...     loaded = load_encoder(f"{folder}/a.pth", allow_untrained=True)
    >>> loaded.n_dimensions, loaded.inspection.facts["layout"], loaded.mask
    (512, 'container', None)
    """

    module: nn.Module
    inspection: Inspection
    n_dimensions: int
    mask: DimensionMask | None = None


def load_encoder(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    stem: str | None = None,
    layout: str | None = None,
    branch: str | None = None,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    trust_pickle: bool = False,
) -> LoadedEncoder:
    """Load an encoder from a checkpoint of any common tool, and prove that all of it was there.

    Parameters
    ----------
    path : path
        A torch or safetensors file; or ``timm:NAME``, whose pretrained weights timm fetches.
    encoder : str, optional
        ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``,
        ``wide_resnet50_2``, ``wide_resnet101_2`` or ``timm:NAME``, told by the shapes by default;
        ``convnet`` must be named where dimlab did not write the file.
    stem : {"cifar", "imagenet", "solo-learn"}, optional
        First layers of a ResNet; told by the shapes, and by what stands beside it, by default.
    layout : str, optional
        How the file is laid out, a name in ``dimlab.interop.layouts.NAMES``.
    branch : str, optional
        Which of several copies: ``teacher``, ``student``, ``ema``, ``online``, ``momentum``, or a
        part of the prefix. By default the one that its authors evaluate.
    allow_partial : sequence of str
        Keys of the encoder, or what they begin with, that may be missing, of another shape, or
        beyond it; they keep the values of a fresh encoder.
    allow_untrained : bool, default=False
        Accept weights that show no sign of training; for ``timm:NAME`` random ones, where no
        pretrained ones can be had.
    trust_pickle : bool, default=False
        Run code that a torch file asks for. Only for files whose author you trust.

    Returns
    -------
    LoadedEncoder
        In evaluation mode, on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Misnamed
        If a branch, or a key that may be missing, is not there.
    ValueError
        If a name is unknown, the file cannot be read or asks for code, holds no known encoder or
        two, anything of the encoder is missing, of another shape, beyond it or no finite floating
        point, nothing shows that it was trained, or what no weights show must be named.

    Warns
    -----
    UserWarning
        If a pickle was trusted, weights of the encoder stay random as allowed, its stem is taken
        for solo-learn's, or timm could fetch none.

    Notes
    -----
    Running statistics of 0 and 1 in any BatchNorm are the sign of an untrained network, and so is a
    convolution of zeros; where there is no BatchNorm, all normalisation weights at 1 and biases at
    0. Shapes do not tell everything: a stem of 3 x 3 is taken to have stride 1, a padding of 1 and
    no pooling, and a bottleneck its stride in the 3 x 3 convolution, as in torchvision. solo-learn
    pads its stem for CIFAR by 2: a file of Lightning's with ``backbone`` or ``encoder``,
    ``projector`` and ``classifier`` is taken for one of its, and one without ``projector`` must be
    told ``stem``.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from dimlab.training.encoders import build_encoder
    >>> source = build_encoder("resnet18").train()
    >>> images = torch.rand(8, 3, 32, 32)
    >>> features = source(images)  # moves the running statistics
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     moco = {f"module.encoder_q.{key}": each for key, each in source.state_dict().items()}
    ...     torch.save({"state_dict": moco}, f"{folder}/moco.pth.tar")
    ...     loaded = load_encoder(f"{folder}/moco.pth.tar")
    >>> torch.equal(loaded.module(images), source.eval()(images))
    True
    """
    if os.fspath(path).startswith(TIMM):
        return _of_timm(os.fspath(path), allow_untrained)
    path = Path(path)
    check_names(encoder, stem, layout)
    opened = open_weights(path, trust_pickle=trust_pickle)
    match = _found(path, opened, encoder=encoder, stem=stem, layout=layout, branch=branch)
    check_partial(match, opened, allow_partial)
    reason = refusal(
        path.name, opened, match, allow_partial=allow_partial, allow_untrained=allow_untrained
    )
    if reason is not None:
        raise ValueError(reason)
    inspection = of_match(path, opened, match, loads="yes")
    module = match.blueprint.build()
    if match.guess is not None:
        warnings.warn(f"{path.name}: {match.guess}", UserWarning, stacklevel=2)
    weights = {key: opened.tensors[name] for key, name in match.candidate.found.items()}
    for key in weights:
        if key.endswith(OPTIONAL):
            weights[key] = weights[key].reshape(())  # some tools keep a list of one count
    left = [key for key in match.blueprint.shapes() if key not in weights and OPTIONAL not in key]
    if left:
        warnings.warn(
            f"{path.name}: {len(left)} weights of {match.blueprint.name} stay random, as allowed: "
            f"{left[0]}{', ...' if len(left) > 1 else ''}.",
            UserWarning,
            stacklevel=2,
        )
    module.load_state_dict(weights, strict=False)  # what is missing was allowed by name
    n_dimensions = _width(module)
    mask = mask_of(opened, n_dimensions)
    return LoadedEncoder(
        module, inspection, n_dimensions, None if mask is None else mask.mask()
    )  # fmt: skip


def _found(path: Path, opened: Opened, **known: str | None) -> Match:
    """Find the encoder, and name the file where it is to blame."""
    try:
        return find_encoder(opened, **known)
    except Misnamed:
        raise
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _of_timm(name: str, allow_untrained: bool) -> LoadedEncoder:
    """Build a model of timm's with the weights that timm can fetch; without them on request."""
    why, is_trained = "timm fetched its pretrained weights.", "yes"
    try:
        module = build_timm(name, pretrained=True)
    except (OSError, RuntimeError) as error:  # offline, or nobody has published any
        reason = " ".join(str(error).split())[:160].rstrip(".")
        if not allow_untrained:
            raise ValueError(
                f"{name} must have weights that timm can fetch; got: {reason}. Name a file and "
                f"encoder={name!r}, or pass allow_untrained=True for random weights."
            ) from error
        why, is_trained = f"Random weights, as timm could not fetch any: {reason}.", "no"
        warnings.warn(f"{name} has random weights: {reason}.", UserWarning, stacklevel=3)
        module = Blueprint(name).build()
    facts = {"encoder": name, "layout": "timm", "trained": is_trained, "why": why}
    return LoadedEncoder(module.eval(), Inspection(name, "checkpoint", facts), _width(module))


def _width(module: nn.Module) -> int:
    known = getattr(module, "n_dimensions", None) or getattr(module, "num_features", None)
    if not isinstance(known, int):
        raise ValueError(
            f"encoder must say how wide its features are; got {type(module).__name__}."
        )
    return known
