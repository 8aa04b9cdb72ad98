"""The encoders that weights may belong to: their keys and shapes, and how they are built."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from dimlab.io.layouts import Layout, Shape
from dimlab.refusals import Refusal
from dimlab.training.encoders import BUILT, build_encoder

TIMM = "timm:"
NEEDS_TIMM = 'needs the package timm: pip install "dimlab[timm]"'
_STEMS = {3: "cifar", 7: "imagenet"}
_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
_ANCHOR = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Blueprint:
    """An encoder to be built: one of `BUILT`, ``timm:NAME``, or the module of a layout's own."""

    name: str
    in_channels: int = 3
    stem: str | None = None
    stem_relu: bool = True
    width: int = 128  # D of the convnet
    image_size: int | None = None  # where the encoder takes only one
    module: nn.Module | None = field(default=None, repr=False)
    layout: Layout | None = field(default=None, repr=False, compare=False)

    def build(self) -> nn.Module:
        """Build it in evaluation mode, without a draw from the global generator."""
        if self.module is not None:
            return self.module.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.name.startswith(TIMM):
                sized = {} if self.image_size is None else {"img_size": self.image_size}
                return build_timm(self.name, in_chans=self.in_channels, **sized).eval()
            return build_encoder(
                self.name,
                in_channels=self.in_channels,
                stem=self.stem or "imagenet",
                stem_relu=self.stem_relu,
                n_dimensions=self.width,
            ).eval()

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
        parts += [f"images of {self.image_size}"] if self.image_size else []
        return f"{self.name} ({', '.join(parts)})"


@cache
def _shapes(blueprint: Blueprint) -> tuple[tuple[str, Shape], ...]:
    if blueprint.name.startswith(TIMM):
        module = blueprint.build()
    else:
        with torch.device("meta"):
            module = blueprint.build()
    return tuple((key, tuple(each.shape)) for key, each in module.state_dict().items())


def width_of(module: nn.Module) -> int:
    """Return the number of dimensions D that an encoder says it has."""
    known = getattr(module, "n_dimensions", None) or getattr(module, "num_features", None)
    if not isinstance(known, int):
        raise Refusal(
            f"encoder must have an attribute n_dimensions or num_features; got "
            f"{type(module).__name__}."
        )
    return known


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


def vit_prefixes(shapes: Mapping[str, Shape]) -> list[str]:
    """Find where vision transformers with timm's names lie."""
    found = [
        key.removesuffix(_ANCHOR)
        for key, shape in shapes.items()
        if key.endswith(_ANCHOR) and len(shape) == 4 and min(shape) > 0
    ]
    return [each for each in found if any(key.startswith(f"{each}blocks.0.") for key in shapes)]


def vit_at(prefix: str, shapes: Mapping[str, Shape]) -> Blueprint:
    """Tell timm's name of a vision transformer by its width, its patches and its parts."""
    width, channels, patch, _ = shapes[f"{prefix}{_ANCHOR}"]
    position = shapes.get(f"{prefix}pos_embed", ())
    side = math.isqrt(position[1]) if len(position) == 3 else 0  # a class token: one more
    size, family = _WIDTHS.get(width, f"width {width}"), "224"
    if f"{prefix}blocks.0.ls1.gamma" in shapes:
        registers = any(f"{prefix}{name}" in shapes for name in ("reg_token", "register_tokens"))
        family = "reg4_dinov2" if registers else "dinov2"
    name = f"{TIMM}vit_{size}_patch{patch}_{family}"
    if has_timm() and not importlib.import_module("timm").is_model(name.removeprefix(TIMM)):
        raise Refusal(
            f"encoder must be named for a ViT of width {width} with patches of {patch}, as "
            "timm:vit_small_patch16_224; got none, and timm has no usual one."
        )
    return Blueprint(name, channels, image_size=side * patch if side else None)


def full_name(name: str) -> str:
    """Return an encoder's name with ``timm:`` where it is one of timm's; refuse unknown ones."""
    if name in BUILT or name.startswith(TIMM):
        return name
    if name.startswith(("vit_", "deit")):
        return TIMM + name
    raise Refusal(f"encoder must be one of {', '.join(BUILT)}, or timm:NAME; got {name!r}.")


def has_timm() -> bool:
    """Whether timm can be imported."""
    if importlib.util.find_spec("timm") is None:
        return False
    try:
        importlib.import_module("timm")
    except Exception:  # beside another torch than torchvision was built for it breaks in many ways
        return False
    return True


def check_timm(name: str) -> None:
    """Refuse a model that timm, where it is there, does not know."""
    if not name.startswith(TIMM) or not has_timm():
        return
    timm: Any = importlib.import_module("timm")
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        close = timm.list_models(f"*{short.split('_')[0]}*")[:3]
        known = f" Close ones: {', '.join(close)}." if close else ""
        raise Refusal(f"encoder must be a model of timm; got {name!r}.{known}")


def build_timm(name: str, **options: Any) -> nn.Module:
    """Build a model of timm without its classifier: images (B, C, H, W) to features (B, D)."""
    if not has_timm():
        raise Refusal(f"encoder {name!r} {NEEDS_TIMM}.")
    check_timm(name)
    timm: Any = importlib.import_module("timm")
    return timm.create_model(name.removeprefix(TIMM), num_classes=0, **options)
