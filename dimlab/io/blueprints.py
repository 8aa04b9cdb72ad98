"""The encoders that weights may belong to: their keys and shapes, and who builds each."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dimlab.images import Recipe, normalisation_of
from dimlab.io.files import Misnamed
from dimlab.io.layouts import Layout, Shape
from dimlab.refusals import Refusal
from dimlab.training.encoders import BUILT, build_encoder

TIMM, OPEN_CLIP = "timm:", "open_clip:"
NORM_EPS = "norm_eps"  # an option of every encoder: that of its normalisation layers
POOLS = ("cls", "mean", "pooler", "projection")
EXTRAS = {"timm": "timm", "open_clip": "open-clip", "transformers": "hf"}  # of each package
NEEDS_TIMM = 'needs the package timm: pip install "dimlab[timm]"'
NOT_OPTIONS = ("num_classes", "in_chans", "pretrained")  # of a constructor, which shapes tell
_STEMS = {3: "cifar", 7: "imagenet"}
_ANCHOR = "patch_embed.proj.weight"
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_HEADS = {  # of a ViT at its usual widths
    192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16,
}  # fmt: skip
_UNSAID = {  # options that the weights tell
    *("mlp_ratio", "qkv_bias", "qk_norm", "init_values", "class_token", "no_embed_class"),
    *("pre_norm", "fc_norm", "dynamic_img_size", "mlp_layer", "act_layer", "patch_size"),
}
_ANY_VIT = "vit_base_patch16_224"  # every part of it can be changed by an option of timm's


@dataclass(frozen=True)
class Blueprint:
    """An encoder to be built: by dimlab, timm or open_clip, or the module of a layout's own."""

    name: str
    in_channels: int = 3
    stem: str | None = None
    stem_relu: bool = True
    width: int = 128  # D of the convnet
    options: tuple[tuple[str, Any], ...] = ()  # of the package's constructor
    module: nn.Module | None = field(default=None, repr=False)
    layout: Layout | None = field(default=None, repr=False, compare=False)

    def build(self) -> nn.Module:
        """Build it in evaluation mode, without a draw from the global generator."""
        if self.module is not None:
            return self.module.eval()
        options = dict(self.options)
        eps = options.pop(NORM_EPS, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.name.startswith(TIMM):
                module = build_timm(self.name, in_chans=self.in_channels, **options)
            elif self.name.startswith(OPEN_CLIP):
                module = _build_open_clip(self.name, **options)
            else:
                module = build_encoder(
                    self.name,
                    in_channels=self.in_channels,
                    stem=self.stem or "imagenet",
                    stem_relu=self.stem_relu,
                    n_dimensions=self.width,
                )
        if eps is not None:
            layers: list[Any] = list(module.modules())
            for each in layers:
                if isinstance(getattr(each, "eps", None), float):
                    vars(each)["eps"] = float(eps)
        return module.eval()

    @property
    def is_foreign(self) -> bool:
        """Whether another package builds it."""
        return self.name.startswith((TIMM, OPEN_CLIP))

    def shapes(self) -> dict[str, Shape]:
        """Return keys and shapes of its weights."""
        return dict(_shapes(self))

    def in_words(self) -> str:
        """Say what it is."""
        if self.module is not None:
            return self.name
        parts = [f"{self.stem} stem"] if self.stem else []
        parts += [] if self.stem_relu else ["no stem ReLU"]
        parts += [f"{self.in_channels} channel" + "s" * (self.in_channels != 1)]
        parts += [f"{key} {value}" for key, value in self.options if key not in _UNSAID]
        return f"{self.name} ({', '.join(parts)})"


@cache
def _shapes(blueprint: Blueprint) -> tuple[tuple[str, Shape], ...]:
    try:
        with torch.device("meta"):
            module = blueprint.build()
    except (NotImplementedError, RuntimeError):  # a package that computes as it builds
        module = blueprint.build()
    return tuple((key, tuple(each.shape)) for key, each in module.state_dict().items())


def blueprint_at(
    name: str, shapes: Mapping[str, Shape], found: Mapping[str, str], stem: str | None = None
) -> Blueprint:
    """Read channels, stem and width of one of `BUILT` from the shapes of the keys found."""
    first = shapes.get(found.get("conv1.weight", ""), ())
    channels = first[1] if len(first) == 4 and first[1] else 3
    if name == "convnet":
        last = shapes.get(found.get("conv3.weight", ""), (128,))[0]
        return Blueprint(name, channels, width=last if last >= 4 and last % 4 == 0 else 128)
    seen = _STEMS.get(first[2] if len(first) == 4 else 0, "imagenet")
    return Blueprint(name, channels, stem or seen)


# Vision transformers with timm's names, which DINO, DINOv2, MAE, MoCo v3 and I-JEPA use as well ---


def vit_prefixes(shapes: Mapping[str, Shape]) -> list[str]:
    """Find where vision transformers with timm's names lie."""
    found = [
        key.removesuffix(_ANCHOR)
        for key, shape in shapes.items()
        if key.endswith(_ANCHOR) and len(shape) == 4 and min(shape) > 0
    ]
    return [each for each in found if any(key.startswith(f"{each}blocks.0.") for key in shapes)]


def vit_at(
    prefix: str,
    shapes: Mapping[str, Shape],
    pool: str | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Blueprint:
    """Read a vision transformer off its shapes: all but the number of heads, which has none."""
    inner = {key[len(prefix) :]: each for key, each in shapes.items() if key.startswith(prefix)}
    width, channels, patch, _ = inner[_ANCHOR]
    depth = 1 + max(int(key.split(".")[1]) for key in inner if re.match(r"blocks\.\d+\.", key))
    has_class, registers = "cls_token" in inner, inner.get("reg_token", (1, 0))[1]
    side, beyond = _grid(inner.get("pos_embed", ()), (0, 1, 1 + registers), patch, given)
    first, second = (inner.get(f"blocks.0.mlp.fc{n}.weight", (4 * width, 0)) for n in (1, 2))
    is_mean = pool == "mean" or (pool is None and (not has_class or "fc_norm.weight" in inner))
    has_scale = "blocks.0.ls1.gamma" in inner
    options: dict[str, Any] = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": _HEADS.get(width, max(width // 64, 1)),
        "patch_size": patch,
        "mlp_ratio": (first[0] + 0.5) / width,  # survives being cut to a whole number
        "qkv_bias": "blocks.0.attn.qkv.bias" in inner,
        "qk_norm": "blocks.0.attn.q_norm.weight" in inner,
        "init_values": 1e-5 if has_scale else None,
        "class_token": has_class,
        "reg_tokens": registers,
        "no_embed_class": (has_class or registers > 0) and beyond == 0 and side > 0,
        "pre_norm": "norm_pre.weight" in inner,
        "fc_norm": "fc_norm.weight" in inner,
        "global_pool": "avg" if is_mean else "token",
        "dynamic_img_size": True,
    }
    options |= {"img_size": side * patch} if side else {}
    if len(second) == 2 and second[1] * 2 == first[0] and has_timm():  # a gated MLP
        layers: Any = importlib.import_module("timm.layers")
        options |= {"mlp_layer": layers.SwiGLUPacked, "act_layer": nn.SiLU}
    options |= given
    family = "dinov2" if has_scale else "224"
    name = f"vit_{_SIZES.get(width)}_patch{patch}_{'reg4_' * (registers == 4)}{family}"
    is_known = width in _SIZES
    if not is_known or (has_timm() and not importlib.import_module("timm").is_model(name)):
        name = _ANY_VIT
    return Blueprint(TIMM + name, channels, options=tuple(options.items()))


def _grid(
    position: Shape, beyond: Sequence[int], patch: int, given: Mapping[str, Any]
) -> tuple[int, int]:
    """Return the side of a square grid of patches, and how many tokens stand beside it."""
    sides = given.get("img_size")
    if isinstance(sides, (list, tuple)) and len(position) == 3:  # as a person says
        n_patches = math.prod(each // patch for each in sides)
        return math.isqrt(n_patches), position[1] - n_patches
    for each in beyond if len(position) == 3 else ():
        side = math.isqrt(max(position[1] - each, 0))
        if side and side * side == position[1] - each:
            return side, each
    return 0, 0


def usual_heads(width: int) -> int | None:
    """Return the number of heads that ViTs of a usual width have."""
    return _HEADS.get(width)


def in_timm_s_names(inner: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Rewrite a ViT's tensors from DINOv2's official names to timm's; None if they have those."""
    found = {}
    for key, each in inner.items():
        short = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key)  # in chunks of blocks
        short = re.sub(r"\.mlp\.w12\.", ".mlp.fc1.", re.sub(r"\.mlp\.w3\.", ".mlp.fc2.", short))
        found["reg_token" if short == "register_tokens" else short] = each
    if found.keys() == inner.keys():
        return None
    if "register_tokens" in inner and {"cls_token", "pos_embed"} <= inner.keys():
        position = inner["pos_embed"]  # timm adds the class token's position to the token
        found |= {"cls_token": inner["cls_token"] + position[:, :1], "pos_embed": position[:, 1:]}
    return found


# Packages that build encoders --------------------------------------------------------------------


def full_name(name: str) -> str:
    """Return an encoder's name with ``timm:`` where it is one of timm's; refuse unknown ones."""
    if name in BUILT or name.startswith((TIMM, OPEN_CLIP)):
        return name
    if name.startswith(("vit_", "deit")):
        return TIMM + name
    raise Misnamed(
        f"encoder must be one of {', '.join(BUILT)}, timm:NAME or open_clip:NAME; got {name!r}."
    )


def package(name: str, what: str) -> Any:
    """Import a package that an extra of dimlab brings, or say which one."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # beside another torch than torchvision was built for, many kinds
        reason = "" if isinstance(error, ImportError) and error.name == name else (
            f" It is there, but fails: {' '.join(str(error).split())[:120]}"
        )  # fmt: skip
        extra = EXTRAS[name]
        raise Refusal(
            f'{what} needs the package {name}: pip install "dimlab[{extra}]".{reason}'
        ) from error


def has_timm() -> bool:
    """Whether timm can be imported."""
    if importlib.util.find_spec("timm") is None:
        return False
    try:
        package("timm", "encoder")
    except ValueError:
        return False
    return True


def check_name(name: str) -> None:
    """Refuse a model that its package, where it is there, does not know."""
    if name.startswith(TIMM) and has_timm():
        timm, short = package("timm", name), name.removeprefix(TIMM)
        if not timm.is_model(short):
            close = timm.list_models(f"*{short.split('_')[0]}*")[:3]
            known = f" Close ones: {', '.join(close)}." if close else ""
            raise Misnamed(f"encoder must be a model of timm; got {name!r}.{known}")
    if name.startswith(OPEN_CLIP) and importlib.util.find_spec("open_clip") is not None:
        known_models = package("open_clip", name).list_models()
        short = name.removeprefix(OPEN_CLIP)
        if short not in known_models and not short.startswith("local-dir:"):
            close = [each for each in known_models if each.startswith(short[:5])][:3]
            raise Misnamed(
                f"encoder must be a model of open_clip; got {name!r}. Close ones: "
                f"{', '.join(close or known_models[:3])}."
            )


def build_timm(name: str, **options: Any) -> nn.Module:
    """Build a model of timm without its classifier: images (B, C, H, W) to features (B, D)."""
    if not has_timm():
        raise Refusal(f"encoder {name!r} {NEEDS_TIMM}.")
    check_name(name)
    timm = package("timm", name)
    try:
        return timm.create_model(name.removeprefix(TIMM), num_classes=0, **options)
    except (TypeError, AssertionError, ValueError, KeyError) as error:
        raise _of_options(name, error) from error


def _build_open_clip(name: str, **options: Any) -> nn.Module:
    """Build the image tower of a model of open_clip."""
    open_clip = package("open_clip", f"encoder {name!r}")
    check_name(name)
    try:
        with silenced(""):
            return open_clip.create_model(
                name.removeprefix(OPEN_CLIP), load_weights=False, **options
            ).visual
    except NotImplementedError:
        raise
    except (TypeError, AssertionError, ValueError, KeyError, RuntimeError) as error:
        raise _of_options(name, error) from error


def _of_options(name: str, error: Exception) -> Misnamed:
    reason = " ".join(str(error).split())[:160].rstrip(".")
    return Misnamed(
        f"encoder_option must hold arguments that {name} takes; got {type(error).__name__}: "
        f"{reason or 'without a reason'}."
    )


@contextmanager
def silenced(logger: str) -> Iterator[None]:
    """Keep a package's log off the terminal: what matters is said in sentences of our own."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        found.setLevel(level)


def options_in(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Read options NAME=VALUE of a package's constructor; values are JSON, or else text."""
    found: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    for each in () if found else given:
        name, equals, text = each.partition("=")
        if not name.isidentifier() or not equals:
            raise Refusal(f"encoder_option must be NAME=VALUE; got {each!r}.")
        try:
            found[name] = json.loads(text.lower() if text in ("True", "False") else text)
            if isinstance(found[name], list):  # timm takes sizes as tuples
                found[name] = tuple(found[name])
        except json.JSONDecodeError:
            found[name] = text
    eps = found.get(NORM_EPS, 1.0)
    if type(eps) not in (int, float) or not 0 < eps < math.inf:
        raise Refusal(f"encoder_option {NORM_EPS} must be a number > 0, as 1e-6; got {eps}.")
    return found


def recipe_of(blueprint: Blueprint, module: nn.Module) -> Recipe:
    """Return what an encoder itself says of the images that it takes."""
    options = dict(blueprint.options)
    size = Recipe()
    if "img_size" in options:
        side = options["img_size"]
        side = side if isinstance(side, int) else side[0]
        size = Recipe.of("position embedding", size=side)
    if "embed_dim" in options:  # told by its shapes, whatever timm's namesake was trained with
        return size.over(Recipe.of_torchvision("vision transformer", size.size or 224))
    if blueprint.name.startswith(TIMM):
        found = getattr(module, "pretrained_cfg", None) or {}
        return size.over(recipe_of_timm(found, "timm's pretrained_cfg"))
    if blueprint.name.startswith(OPEN_CLIP):
        return recipe_of_open_clip(getattr(module, "preprocess_cfg", {}), "open_clip")
    if blueprint.module is not None:
        return Recipe()
    if str(blueprint.stem).startswith("imagenet"):
        return Recipe.of_torchvision("ImageNet stem")
    return Recipe.of_own("CIFAR stem" if blueprint.stem else "convnet")


def _square(sides: Sequence[int], source: str) -> int:
    """Return the side of a square; dimlab prepares no other images."""
    if len({int(each) for each in sides}) != 1:
        raise Refusal(
            f"{source} must take square images; got {' x '.join(map(str, sides))}. Encode others "
            "with encode_loader(module, loader)."
        )
    return int(sides[0])


def recipe_of_timm(config: Mapping[str, Any], source: str) -> Recipe:
    """Read timm's ``pretrained_cfg``."""
    if not config.get("input_size"):
        return Recipe()
    size, share = _square(config["input_size"][-2:], source), config.get("crop_pct") or 0.875
    if config.get("crop_mode") == "border":
        raise Refusal(
            f"{source} must cut images to a square or squash them; got crop_mode 'border', which "
            "pads them. Set crop_mode to 'center' or 'squash' there."
        )
    return Recipe.of(
        source,
        size=size,
        resize=math.floor(size / share),
        crop="squash" if config.get("crop_mode") == "squash" else "centre",
        interpolation=config.get("interpolation") or "bicubic",
        normalisation=normalisation_of(config["mean"], config["std"]),
    )


def recipe_of_open_clip(config: Mapping[str, Any], source: str) -> Recipe:
    """Read open_clip's ``preprocess_cfg``."""
    if not config.get("size"):
        return Recipe()
    size = config["size"] if isinstance(config["size"], int) else _square(config["size"], source)
    mode = config.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash"):
        raise Refusal(
            f"{source} must cut images to a square or squash them; got resize_mode {mode!r}, which "
            "pads them. Set resize_mode to 'shortest' or 'squash' there."
        )
    return Recipe.of(
        source,
        size=size,
        resize=size,
        crop="squash" if mode == "squash" else "centre",
        interpolation=config.get("interpolation"),
        normalisation=normalisation_of(config["mean"], config["std"]),
    )
