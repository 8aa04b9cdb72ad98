"""Encoders from checkpoints that any tool wrote: loaded whole and proved, or refused."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dimlab.images import Recipe
from dimlab.io.assumptions import settled
from dimlab.io.blueprints import TIMM, Blueprint, build_timm, options_in, recipe_of, silenced
from dimlab.io.files import Misnamed
from dimlab.io.folders import EncoderFolder, Tower, folder_at, tower_of
from dimlab.io.layouts import OPTIONAL
from dimlab.io.matching import find_encoder
from dimlab.io.places import Match, Wanted
from dimlab.io.refusing import check_partial, refusal, refusal_of_tower
from dimlab.io.unpickle import Opened, open_weights
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
    recipe : Recipe
        What the file, its folder and the encoder say of the images that it takes.

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
    >>> loaded.recipe.in_words()
    'image size 32 (CIFAR stem), resize 32, centre crop, bilinear'
    >>> print(loaded.assumed[1].partition(" (")[0])
    the 3 x 3 stem has stride 1, pads by 1 and has no max-pooling behind it
    """

    module: nn.Module = field(repr=False)
    inspection: Inspection
    n_dimensions: int
    mask: DimensionMask | None = None
    recipe: Recipe = Recipe()

    @property
    def assumed(self) -> list[str]:
        """What no weights show and nobody has said, each with the flag that changes it.

        Returns
        -------
        list of str
            Sentences; they are warnings, too, when the encoder is loaded.
        """
        return list(self.inspection.facts.get("assumed", ()))


def load_encoder(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    stem: str | None = None,
    layout: str | None = None,
    branch: str | None = None,
    pool: str | None = None,
    encoder_option: Sequence[str] | Mapping[str, Any] = (),
    image_size: int | None = None,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    trust_pickle: bool = False,
) -> LoadedEncoder:
    """Load an encoder from a checkpoint of any common tool, and prove that all of it was there.

    Parameters
    ----------
    path : path
        A torch or safetensors file; a folder that ``save_pretrained`` of transformers wrote, or
        ``save_for_hf`` of timm or open_clip; or ``timm:NAME``, whose pretrained weights timm
        fetches.
    encoder : str, optional
        ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``,
        ``wide_resnet50_2``, ``wide_resnet101_2``, ``timm:NAME`` or ``open_clip:NAME``, told by the
        shapes or by the folder by default; ``convnet`` must be named where dimlab did not write
        the file.
    stem : {"cifar", "cifar-maxpool", "imagenet", "imagenet-unpooled", "solo-learn"}, optional
        First layers of a ResNet; told by the shapes, and by what stands beside it, by default.
    layout : str, optional
        How the file is laid out, the name of a row of ``dimlab.io.layouts.layouts()``.
    branch : str, optional
        Which of several copies: ``teacher``, ``student``, ``ema``, ``online``, ``momentum``, or a
        part of the prefix. By default the one that its authors evaluate.
    pool : {"cls", "mean", "pooler", "projection"}, optional
        Features of a transformer: class token, mean of the patch tokens, what the model's own
        pooling gives, or that behind CLIP's projection. By default what its authors use.
    encoder_option : sequence of str, or mapping, optional
        Arguments NAME=VALUE of the constructor of timm or open_clip, as ``num_heads=12``.
    image_size : int, optional
        Side of the images, where it is not the one that the encoder was trained on; position
        embeddings are interpolated as the encoder's package does.
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
        If a branch, or a key that may be missing, is not there, or an option does not apply.
    ValueError
        If a name is unknown, the file cannot be read or asks for code, holds no known encoder or
        two, anything of the encoder is missing, of another shape, beyond it or no finite floating
        point, nothing shows that it was trained, or what no weights show must be named.

    Warns
    -----
    UserWarning
        If something is assumed that no weights show, a pickle was trusted, weights of the encoder
        stay random as allowed, or timm could fetch none.

    Notes
    -----
    Running statistics of 0 and 1 in any BatchNorm are the sign of an untrained network, and so is a
    convolution of zeros; where there is no BatchNorm, all normalisation weights at 1 and biases at
    0. Shapes do not tell everything. A ResNet is taken to be torchvision's, and a stem of 3 x 3 to
    have stride 1, a padding of 1 and no pooling; a vision transformer to have the usual number of
    heads of its width. Each such assumption is a warning that names the argument to change it.
    Where known projects differ (solo-learn pads its stem for CIFAR by 2; OpenAI's CLIP has another
    activation than open_clip's) the argument is required. Packages add layouts through the entry
    point group ``dimlab.weights``.

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
    known: dict[str, Any] = {
        "encoder": encoder, "stem": stem, "layout": layout, "branch": branch, "pool": pool,
        "encoder_option": encoder_option, "image_size": image_size,
        "allow_partial": allow_partial, "allow_untrained": allow_untrained,
    }  # fmt: skip
    wanted = wanted_of(known)
    wanted.check()
    if os.fspath(path).startswith(TIMM):
        _check_nothing_missing(os.fspath(path), allow_partial)
        return _fetched(os.fspath(path), wanted, image_size, allow_untrained)
    path = Path(path)
    folder = folder_at(path)
    if folder is not None:
        return encoder_of(path, folder, trust_pickle=trust_pickle, **known)
    return encoder_of(path, open_weights(path, trust_pickle=trust_pickle), **known)


def wanted_of(known: Mapping[str, Any]) -> Wanted:
    """Return what a person says of the encoder in a file, out of arguments of `load_encoder`."""
    names = ("encoder", "stem", "layout", "branch", "pool")
    options = options_in(known.get("encoder_option") or ())
    named: dict[str, Any] = {each: known.get(each) for each in names}
    return Wanted(**named, options=tuple(options.items()))


def encoder_of(
    path: Path,
    opened: Opened | EncoderFolder,
    *,
    image_size: int | None = None,
    allow_partial: Sequence[str] = (),
    allow_untrained: bool = False,
    trust_pickle: bool = False,
    **known: Any,
) -> LoadedEncoder:
    """Build the encoder of a file or folder that is already open, as `load_encoder` says."""
    from dimlab.io.inspecting import find_mask, of_match, of_tower

    wanted, recipe = wanted_of(known), Recipe()
    if isinstance(opened, EncoderFolder):
        if opened.package == "transformers":
            _check_nothing_missing(path.name, allow_partial)
            tower = tower_of(opened, wanted, image_size)
            reason = refusal_of_tower(tower, allow_untrained)
            if reason is not None:
                raise Refusal(reason)
            inspection = of_tower(tower, loads="yes")
            _say(path.name, tower.assumed)
            return LoadedEncoder(tower.module, inspection, tower.n_dimensions, None, tower.recipe)
        path, recipe, wanted = opened.weights[0], opened.recipe(), opened.wanted(wanted)
        opened = open_weights(path, trust_pickle=trust_pickle)
    match = match_of(path.name, opened, wanted)
    check_partial(match, allow_partial)
    reason = refusal(path.name, match, allow_partial, allow_untrained)
    if reason is not None:
        raise Refusal(reason)
    module = match.blueprint.build()
    recipe = recipe.over(recipe_of(match.blueprint, module))
    weights = {key: match.opened.tensors[name] for key, name in match.place.found.items()}
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
    if match.unexpected:
        warnings.warn(
            f"{path.name}: {len(match.unexpected)} weights that {match.blueprint.name} has no "
            f"place for are left out, as allowed: {match.unexpected[0]}.",
            UserWarning,
            stacklevel=3,
        )
    module.load_state_dict(weights, strict=False)  # what is missing was allowed by name
    if image_size is not None:
        recipe = Recipe.of("--image-size", size=image_size).over(recipe)
    if match.blueprint.is_foreign:
        module = Tower(module, match.blueprint.name).sized(image_size)
    width = width_of(module, match.blueprint, recipe)
    if isinstance(module, Tower):
        match = replace(match, assumed=(*match.assumed, *module.assumed))
    _say(path.name, match.assumed)
    inspection, mask = of_match(path, match, loads="yes", recipe=recipe), find_mask(opened)
    fits = mask is not None and len(mask.values) == width
    return LoadedEncoder(module, inspection, width, mask.mask() if mask and fits else None, recipe)


def _check_nothing_missing(name: str, allow_partial: Sequence[str]) -> None:
    if allow_partial:
        raise Misnamed(
            f"allow_partial must be left out for {name}, which another package loads whole; got "
            f"{allow_partial[0]!r}."
        )


def match_of(name: str, opened: Opened, wanted: Wanted) -> Match:
    """Find the encoder in a file, and settle what no weights show."""
    try:
        return settled(find_encoder(opened, wanted), wanted)
    except Misnamed:
        raise
    except ValueError as error:  # names the file where it is to blame
        raise Refusal(f"{name}: {error}") from error


def _say(name: str, assumed: Sequence[str]) -> None:
    for each in assumed:
        warnings.warn(f"assumed: {each}, for {name}.", UserWarning, stacklevel=4)


def width_of(module: nn.Module, blueprint: Blueprint, recipe: Recipe) -> int:
    """Return the number of dimensions D of an encoder: as it says, or by an image of zeros."""
    known = getattr(module, "n_dimensions", None)
    if isinstance(known, int):
        return known
    if not blueprint.is_foreign:
        raise Refusal(f"encoder must have an attribute n_dimensions; got {type(module).__name__}.")
    size = recipe.size or 224
    with torch.inference_mode():
        return int(module(torch.zeros(1, blueprint.in_channels, size, size)).shape[1])


def _fetched(
    name: str, wanted: Wanted, image_size: int | None, allow_untrained: bool
) -> LoadedEncoder:
    """Build a model of timm's with the weights that timm can fetch; without them on request."""
    from dimlab.io.inspecting import Inspection

    why, is_trained = "timm fetched its pretrained weights.", "yes"
    wanted.check_left_out(f"{name}, which timm builds", ("pool", "encoder_option"))
    options = dict(wanted.options)
    if wanted.pool is not None:
        options["global_pool"] = {"cls": "token", "mean": "avg"}.get(wanted.pool, wanted.pool)
    blueprint = Blueprint(name, options=tuple(options.items()))
    try:
        with silenced("huggingface_hub"):
            module = build_timm(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:  # offline, or nobody has published any
        reason = " ".join(str(error).split())[:160].rstrip(".")
        if not allow_untrained:
            raise Refusal(
                f"{name} must have weights that timm can fetch; got: {reason}. Name a file and "
                f"encoder={name!r}, or pass allow_untrained=True for random weights."
            ) from error
        why, is_trained = f"Random weights, as timm could not fetch any: {reason}.", "no"
        warnings.warn(f"{name} has random weights: {reason}.", UserWarning, stacklevel=3)
        module = blueprint.build()
    facts = {"encoder": name, "layout": "timm", "trained": is_trained, "why": why}
    recipe = recipe_of(blueprint, module)
    if image_size is not None:
        recipe = Recipe.of("--image-size", size=image_size).over(recipe)
    module = Tower(module.eval(), name).sized(image_size)
    width = width_of(module, blueprint, recipe)
    return LoadedEncoder(module, Inspection(name, "checkpoint", facts), width, None, recipe)
