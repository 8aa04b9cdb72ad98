"""What no weights show of an encoder: asked for where projects differ, else assumed and said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from dimlab.io.blueprints import NORM_EPS, TIMM, Blueprint, usual_heads
from dimlab.io.files import Misnamed
from dimlab.io.layouts import OWN
from dimlab.io.places import Match, Wanted
from dimlab.training.encoders import BUILT

_SOLO_LEARN = ("backbone.", "encoder.", "momentum_backbone.", "momentum_encoder.")
_MOCO_V3 = {384: 12, 768: 12, 1024: 16, 1280: 16}  # heads of its ViTs, by width


def settled(match: Match, wanted: Wanted) -> Match:
    """Settle what no weights show of how an encoder is built, or say what must be named."""
    blueprint = match.blueprint
    is_vit = "embed_dim" in dict(blueprint.options) and wanted.encoder is None
    if match.doubt is not None:
        return match
    _check_options(blueprint, wanted)
    if not blueprint.is_foreign and wanted.options:
        match = _built_with(match, wanted.options)
    if blueprint.module is not None or match.layout.name == "dimlab":
        return match
    if blueprint.name == "convnet":
        return replace(match, doubt=None if wanted.encoder else _of_convnet(match))
    if blueprint.name in BUILT:
        return _of_resnet(match, wanted)
    return _of_vit(match, wanted) if is_vit else _of_named(match, wanted)


def _check_options(blueprint: Blueprint, wanted: Wanted) -> None:
    """Refuse what an encoder that dimlab builds cannot be asked for."""
    name = blueprint.name
    if wanted.pool is not None and not name.startswith(TIMM):
        raise Misnamed(
            f"pool must be left out for {name}, which pools in one way; got {wanted.pool!r}."
        )
    if wanted.pool not in (None, "cls", "mean"):
        raise Misnamed(f"pool must be cls or mean for {name}; got {wanted.pool!r}.")
    if wanted.stem is not None and blueprint.stem is None:
        raise Misnamed(f"stem must be left out for {name}, which is built without it; got "
                       f"{wanted.stem!r}.")  # fmt: skip
    others = [each for each, _ in wanted.options if each != NORM_EPS]
    if not blueprint.is_foreign and others:
        raise Misnamed(
            f"encoder_option must be {NORM_EPS} for {name}, which dimlab builds; got {others[0]}. "
            f"Pass --encoder timm:{name}."
        )


def _built_with(match: Match, options: tuple[tuple[str, Any], ...]) -> Match:
    """Build the encoder with other arguments, which no weights show."""
    blueprint = replace(match.blueprint, options=options)
    return replace(match, place=replace(match.place, blueprint=blueprint))


def _assuming(match: Match, *sentences: str) -> Match:
    return replace(match, assumed=sentences)


def _of_named(match: Match, wanted: Wanted) -> Match:
    """Say that a package's own arguments are taken, where no folder records the right ones."""
    name = match.blueprint.name
    if wanted.is_recorded:
        return match
    if name.startswith(TIMM):
        told = {*dict(wanted.options), "img_size"}  # told by a person, or by the shapes
        told |= {"global_pool", "fc_norm"} if wanted.pool is not None else set()
        options = [f"{key}={v}" for key, v in match.blueprint.options if key not in told]
        recorded = f"{', '.join(options)}, as its training recorded, and " if options else ""
        return _assuming(
            match,
            f"{name} is built with {recorded}timm's own arguments for this "
            "name: heads, activation, strides, pooling (--encoder-option NAME=VALUE)",
        )
    said = "" if "force_quick_gelu" in dict(wanted.options) else ", its activation among them"
    flag = "--encoder-option force_quick_gelu=true for OpenAI's" if said else "--encoder NAME"
    return _assuming(
        match,
        f"{name} is built with open_clip's own arguments for this name{said} ({flag})",
        "features are the tower's output, as encode_image(normalize=False) gives it",
    )


def _of_convnet(match: Match) -> str | None:
    """Ask for the name of a small network, unless dimlab's projectors stand beside it."""
    beside = match.place.prefix.removesuffix("encoder.")
    projectors = tuple(f"{beside}{each}." for each in ("contrastive", "redundancy"))
    if any(each.startswith(projectors) for each in match.opened.tensors):
        return None
    return (
        "encoder must be named, as these are the shapes of dimlab's convnet and of many other "
        "small networks, whose strides and pooling no weights show; got none. Pass "
        "encoder='convnet' (--encoder convnet) if dimlab built it, else encode with "
        "encode_loader(module, loader)."
    )


def _of_resnet(match: Match, wanted: Wanted) -> Match:
    """Ask for solo-learn's stem, or say what a ResNet is taken to be."""
    blueprint, place = match.blueprint, match.place
    is_small = blueprint.stem == "cifar" and wanted.stem is None
    head = match.opened.tensors.get("state_dict.classifier.weight")
    # Lightning keeps a torchvision ResNet and a linear classifier as solo-learn does
    may_be_solo_learn = (
        is_small
        and match.layout.name == "lightning"
        and place.spelling is OWN
        and match.prefix in _SOLO_LEARN
        and head is not None
        and tuple(head.shape[1:]) == list(blueprint.shapes().values())[-2]  # the last variances
    )
    if may_be_solo_learn:
        return replace(match, doubt=(
            "stem must be named, as an encoder beside a classifier in a Lightning file may be "
            "solo-learn's, whose 3 x 3 stem pads by 2, and no weights show it; got none. Pass "
            "stem='solo-learn' or stem='cifar' (--stem solo-learn, --stem cifar: pads by 1)."
        ))  # fmt: skip
    eps = "" if wanted.options else f", BatchNorm with eps 1e-05 (--encoder-option {NORM_EPS}=1e-3)"
    is_pooled = blueprint.stem == "imagenet" and wanted.stem is None and not place.spelling.parts
    pooled = ", max-pooling behind the stem (--stem imagenet-unpooled has none)" * is_pooled
    whole = (
        f"{blueprint.name} as torchvision builds it: ReLU{pooled}, strides in the 3 x 3 "
        "convolutions, no dilation, no blur pooling, features that are the mean of all pixels"
        f"{eps}; --encoder timm:{blueprint.name} has --encoder-option output_stride=16, "
        "act_layer=silu, global_pool=max"
    )
    if not is_small:
        return _assuming(match, whole)
    pools = " and has no max-pooling behind it" if place.spelling.pools else ""
    more = ", --stem cifar-maxpool has the pooling" if pools else ""
    stem = f"the 3 x 3 stem has stride 1, pads by 1{pools} (--stem solo-learn pads by 2{more})"
    return _assuming(match, whole, stem)


def _of_vit(match: Match, wanted: Wanted) -> Match:
    """Ask for the heads of a ViT where projects differ, or say how many it is taken to have."""
    options: dict[str, Any] = dict(match.blueprint.options)
    width, assumed = options["embed_dim"], [_blocks(options, dict(wanted.options))]
    if options["pre_norm"]:
        return replace(match, doubt=(
            "encoder must be named, as these are the shapes of CLIP's vision transformers, whose "
            "activation (GELU or QuickGELU) no weights show; got none. Pass encoder="
            "'timm:vit_base_patch16_clip_224' or 'timm:vit_base_patch16_clip_quickgelu_224' "
            "(--encoder NAME), or the model of that size."
        ))  # fmt: skip
    if "num_heads" not in dict(wanted.options):
        is_moco_v3 = re.search(r"(^|\.)(base|momentum)_encoder\.$", match.place.prefix)
        heads = _MOCO_V3.get(width) if is_moco_v3 else usual_heads(width)
        is_fixed = width == 384 and not is_moco_v3 and _has_fixed_positions(match)
        if heads is None or is_fixed:
            why = "12 in MoCo v3 and 6 elsewhere" if is_fixed else "which is no usual one"
            return replace(match, doubt=(
                f"num_heads must be given for a ViT of width {width}, {why}, as no weights show "
                "it; got none. Pass encoder_option=['num_heads=N'] (--encoder-option num_heads=N)."
            ))  # fmt: skip
        who = "MoCo v3's" if is_moco_v3 else "most ViTs"
        assumed.append(f"{heads} heads, as {who} of width {width} have (--encoder-option "
                       "num_heads=N)")  # fmt: skip
        match = _built_with(match, tuple((options | {"num_heads": heads}).items()))
    given = dict(wanted.options)
    is_other = "pos_embed" in match.place.mismatched and not match.unexpected
    if is_other and "img_size" not in options:
        count = match.opened.tensors[match.place.mismatched["pos_embed"]].shape[1]
        return replace(match, doubt=(
            f"img_size must be given, as the file's {count} positions are no square of patches; "
            "got none. Pass encoder_option=['img_size=[HEIGHT,WIDTH]'] (--encoder-option "
            "img_size=[HEIGHT,WIDTH])."
        ))  # fmt: skip
    if options["no_embed_class"] and given.keys().isdisjoint(("img_size", "no_embed_class")):
        side = options["img_size"] // options["patch_size"]
        assumed.append(
            f"positions are of {side} x {side} patches, and of no other token "
            "(--encoder-option img_size=[HEIGHT,WIDTH] for images that are no squares)"
        )
    if wanted.pool is not None or "global_pool" in given:
        return _assuming(match, *assumed)
    other = "(--encoder-option global_pool=max)"
    if not options["class_token"]:
        assumed.append(f"features are the mean of the patches, as there is no class token {other}")
    elif options["fc_norm"]:
        assumed.append(f"features are the mean of the patches, behind which fc_norm stands {other}")
    else:
        assumed.append("features are the class token (--pool mean: the mean of the patches)")
    return _assuming(match, *assumed)


def _blocks(options: dict[str, Any], given: dict[str, Any]) -> str:
    """Say what the blocks of a ViT are taken to be, but for what a person says of them."""
    is_gated = "mlp_layer" in options
    words = {"act_layer": "SwiGLU" if is_gated else "GELU", NORM_EPS: "LayerNorm with eps 1e-06"}
    flags = {"act_layer": "act_layer=quick_gelu", NORM_EPS: f"{NORM_EPS}=1e-5"}
    said = [each for name, each in words.items() if name not in given]
    changed = [each for name, each in flags.items() if name not in given]
    remedy = f" (--encoder-option {', '.join(changed)})" if changed else ""
    return ", ".join(["a ViT as timm builds it: pre-norm blocks", *said,
                      f"patches that do not overlap{remedy}"])  # fmt: skip


def _has_fixed_positions(match: Match) -> bool:
    """Whether the class token has no position, as in MoCo v3 and MAE, where none is learned."""
    position = match.opened.tensors.get(match.place.found.get("pos_embed", ""))
    return position is not None and position.ndim == 3 and not bool(position[0, 0].any())
