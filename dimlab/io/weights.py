"""Encoders from checkpoints that any tool wrote: loaded whole and proved, or refused."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dimlab.io.blueprints import TIMM, Blueprint, build_timm, width_of
from dimlab.io.files import Misnamed
from dimlab.io.layouts import OPTIONAL, REMEDY, branch_of, looks_like, unwrapped
from dimlab.io.matching import Match, check_names, find_encoder
from dimlab.io.unpickle import Opened, fault_of, open_weights
from dimlab.mask import DimensionMask
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.io.inspecting import Inspection


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
        How the file is laid out, the name of a row of ``dimlab.io.layouts.layouts()``.
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
    told ``stem``. Packages add layouts through the entry point group ``dimlab.weights``.

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
    return encoder_of(
        path, opened, encoder=encoder, stem=stem, layout=layout, branch=branch,
        allow_partial=allow_partial, allow_untrained=allow_untrained,
    )  # fmt: skip


def encoder_of(
    path: Path,
    opened: Opened,
    *,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    **known: str | None,
) -> LoadedEncoder:
    """Build the encoder of a file that is already open, as `load_encoder` says."""
    from dimlab.io.inspecting import find_mask, of_match

    try:
        match = find_encoder(opened, **known)
    except Misnamed:
        raise
    except ValueError as error:  # names the file where it is to blame
        raise Refusal(f"{path.name}: {error}") from error
    check_partial(match, opened, allow_partial)
    reason = refusal(path.name, opened, match, allow_partial, allow_untrained)
    if reason is not None:
        raise Refusal(reason)
    inspection = of_match(path, opened, match, loads="yes")
    module = match.blueprint.build()
    if match.guess is not None:
        warnings.warn(f"{path.name}: {match.guess}", UserWarning, stacklevel=3)
    weights = {key: opened.tensors[name] for key, name in match.place.found.items()}
    for key in weights:
        if key.endswith(OPTIONAL):
            weights[key] = weights[key].reshape(())  # some tools keep a list of one count
    left = [key for key in match.blueprint.shapes() if key not in weights and OPTIONAL not in key]
    if left:
        warnings.warn(
            f"{path.name}: {len(left)} weights of {match.blueprint.name} stay random, as allowed: "
            f"{left[0]}{', ...' if len(left) > 1 else ''}.",
            UserWarning,
            stacklevel=3,
        )
    module.load_state_dict(weights, strict=False)  # what is missing was allowed by name
    width, mask = width_of(module), find_mask(opened)
    fits = mask is not None and len(mask.values) == width
    return LoadedEncoder(module, inspection, width, mask.mask() if mask and fits else None)


def _of_timm(name: str, allow_untrained: bool) -> LoadedEncoder:
    """Build a model of timm's with the weights that timm can fetch; without them on request."""
    from dimlab.io.inspecting import Inspection

    why, is_trained = "timm fetched its pretrained weights.", "yes"
    try:
        module = build_timm(name, pretrained=True)
    except (OSError, RuntimeError) as error:  # offline, or nobody has published any
        reason = " ".join(str(error).split())[:160].rstrip(".")
        if not allow_untrained:
            raise Refusal(
                f"{name} must have weights that timm can fetch; got: {reason}. Name a file and "
                f"encoder={name!r}, or pass allow_untrained=True for random weights."
            ) from error
        why, is_trained = f"Random weights, as timm could not fetch any: {reason}.", "no"
        warnings.warn(f"{name} has random weights: {reason}.", UserWarning, stacklevel=3)
        module = Blueprint(name).build()
    facts = {"encoder": name, "layout": "timm", "trained": is_trained, "why": why}
    return LoadedEncoder(module.eval(), Inspection(name, "checkpoint", facts), width_of(module))


# Why an encoder is not loaded --------------------------------------------------------------------


def refusal(
    name: str,
    opened: Opened,
    match: Match,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
) -> str | None:
    """Say in a sentence why an encoder cannot be loaded from a file; None where it can be."""
    if match.doubt is not None:
        return f"{name}: {match.doubt}"
    place = match.place
    for each in match.unexpected:
        key = unwrapped(each)[len(place.prefix) :]
        if key in place.found:
            return (
                f"{name} must hold each weight once; got {place.found[key]} and {each}. Leave one "
                "out."
            )
    beyond = [unwrapped(each)[len(place.prefix) :] for each in match.unexpected]
    lacks = [
        key
        for key in [*place.missing, *place.mismatched, *beyond]
        if not any(_allows(each, key) for each in allow_partial)
    ]
    if lacks:
        return _of_keys(name, opened, match, lacks)
    unsound = _unsound(name, opened, match)
    if unsound is not None:
        return unsound
    weights = {key: opened.tensors[each] for key, each in place.found.items()}
    state = trained(weights)
    if state in ("no", "in part") and not allow_untrained:
        empty = _empty(weights)
        got = f"{'' if state == 'no' else 'some '}normalisation layers that no image has moved"
        if empty:
            got = f"only zeros in {place.found[empty[0]]}"
        return (
            f"{name} must hold trained weights; got {got}. Pass allow_untrained=True "
            "(--allow-untrained) to take them all the same."
        )
    return None


def check_partial(match: Match, opened: Opened, allow_partial: Sequence[str]) -> None:
    """Refuse to allow a key that neither the encoder has nor the file beside it."""
    prefix = match.place.prefix
    inside = [name for name in map(unwrapped, opened.tensors) if name.startswith(prefix)]
    known = [*match.blueprint.shapes(), *(name[len(prefix) :] for name in inside)]
    for each in allow_partial:
        if not any(_allows(each, key) for key in known):
            raise Misnamed(
                f"allow_partial must name keys of {match.blueprint.name}, or what they begin with; "
                f"got {each!r} (--allow-partial)."
            )


def _allows(allowed: str, key: str) -> bool:
    return key == allowed or key.startswith(f"{allowed.rstrip('.')}.")


def _of_keys(name: str, opened: Opened, match: Match, lacks: Sequence[str]) -> str:
    """Say which keys are missing, of another shape, or without a place, and what to do."""
    place, first = match.place, _first(opened, match, lacks[0])
    family = looks_like({unwrapped(k): tuple(v.shape) for k, v in opened.tensors.items()})
    if family is not None:
        return (
            f"{name} must hold an encoder that dimlab builds; got what looks like {family}, and "
            f"not all of {match.blueprint.name}: {first}. {REMEDY}"
        )
    counts = {
        "missing": len(place.missing),
        "of another shape": len(place.mismatched),
        "without a place in it": len(match.unexpected),
    }
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    other = ""
    if match.whole is not None:
        branch, prefix = branch_of(match.whole), match.whole.strip(".")
        chosen = branch if branch != place.branch else prefix
        other = (
            f" The copy under {prefix!r} is whole: branch={chosen!r} (--branch {chosen}) loads it."
        )
    return (
        f"{name} must hold every weight of {match.blueprint.name}; got {len(place.found)} of "
        f"{place.n_wanted} under {place.prefix!r}, {listed}: {first}.{other} Name another "
        f"--encoder, --stem, --layout or --branch, or pass --allow-partial {lacks[0]}."
    )


def _first(opened: Opened, match: Match, key: str) -> str:
    """Say what is wrong with a key."""
    place = match.place
    if key in place.mismatched:
        there = place.mismatched[key]
        shape = tuple(opened.tensors[there].shape)
        return f"{there} of shape {shape} instead of {match.blueprint.shapes()[key]}"
    if key in place.missing:
        inside = [each for each in opened.tensors if each.startswith(place.prefix)]
        free = [each for each in inside if each not in place.found.values()]
        close = difflib.get_close_matches(f"{place.prefix}{key}", free or inside, 1, 0.5)
        return f"none for {key}" + (f" (closest: {close[0]})" if close else "")
    return f"{place.prefix}{key}, which {match.blueprint.name} has no place for"


def _unsound(name: str, opened: Opened, match: Match) -> str | None:
    """Say which tensor holds no numbers that an encoder could compute with."""
    for key, where in match.place.found.items():
        tensor, counts = opened.tensors[where], key.endswith(OPTIONAL)
        fault = fault_of(tensor, counts=counts)
        if fault is not None:
            return (
                f"{name} must hold dense weights of 16, 32 or 64 bit floating point; got {fault} "
                f"in {where}. Save them from the module that was trained, as floating point."
            )
        if not bool(torch.isfinite(tensor).all()):
            return f"{name} must hold finite weights; got NaN or inf in {where}."
        if not counts and not bool(torch.isfinite(tensor.float()).all()):
            return f"{name} must hold weights within float32; got larger ones in {where}."
        if key.endswith("running_var") and bool((tensor < 0).any()):
            return f"{name} must hold running variances >= 0; got a negative one in {where}."
    return None


def trained(weights: Mapping[str, Tensor]) -> str:
    """Say whether weights were ever trained: ``yes``, ``no``, ``in part`` or ``unknown``."""
    # Not where a BatchNorm's running mean is 0 and its variance 1 (or 0), whatever the count of
    # batches says; without BatchNorm, where every normalisation has weight 1 and bias 0; or where a
    # convolution or matrix is 0.
    weights = {key: each for key, each in weights.items() if fault_of(each) is None}
    empty = _empty(weights)
    if empty:
        return "no" if len(empty) == len(_kernels(weights)) else "in part"
    layers = [key.removesuffix("running_mean") for key in weights if key.endswith("running_mean")]
    if layers:
        moved = [_moved(weights, layer) for layer in layers]
        return "yes" if all(moved) else "in part" if any(moved) else "no"
    lines = [key for key, each in weights.items() if key.endswith(".weight") and each.ndim == 1]
    norms = [key.removesuffix("weight") for key in lines]
    norms = [name for name in norms if f"{name}bias" in weights]
    if not norms:
        return "unknown"
    fresh = all(
        bool((weights[f"{name}weight"] == 1).all()) and not bool(weights[f"{name}bias"].any())
        for name in norms
    )
    return "no" if fresh else "yes"


def _moved(weights: Mapping[str, Tensor], layer: str) -> bool:
    """Whether a BatchNorm has seen an image in training."""
    mean, variance = weights[f"{layer}running_mean"], weights.get(f"{layer}running_var")
    if variance is None:
        return bool(mean.any())
    return bool(variance.any()) and bool(mean.any() or (variance != 1).any())


def _kernels(weights: Mapping[str, Tensor]) -> list[str]:
    return [key for key, each in weights.items() if key.endswith("weight") and each.ndim > 1]


def _empty(weights: Mapping[str, Tensor]) -> list[str]:
    """Keys of convolutions and matrices that are all zeros."""
    return [key for key in _kernels(weights) if not bool(weights[key].any())]
