"""What no weights show of an encoder: asked for where projects differ, else assumed and said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from dimlab.io.blueprints import OPEN_CLIP, TIMM, usual_heads
from dimlab.io.files import Misnamed
from dimlab.io.layouts import OWN
from dimlab.io.matching import Match, Wanted
from dimlab.training.encoders import BUILT

_SOLO_LEARN = ("backbone.", "encoder.", "momentum_backbone.", "momentum_encoder.")
_MOCO_V3 = {384: 12, 768: 12, 1024: 16, 1280: 16}  # heads of its ViTs, by width


def settled(match: Match, wanted: Wanted) -> Match:
    """Settle what no weights show of how an encoder is built, or say what must be named."""
    blueprint = match.blueprint
    if match.doubt is not None or blueprint.module is not None or match.layout.name == "dimlab":
        found = match
    elif blueprint.name == "convnet":
        found = replace(match, doubt=None if wanted.encoder else _of_convnet(match))
    elif blueprint.name in BUILT:
        found = _of_resnet(match, wanted)
    elif "embed_dim" in dict(blueprint.options) and wanted.encoder is None:
        found = _of_vit(match, wanted)
    elif blueprint.name.startswith(OPEN_CLIP):
        found = _assuming(match, "features are the tower's output, as encode_image gives it")
    else:
        found = match
    if wanted.pool is not None and not blueprint.name.startswith(TIMM) and found.doubt is None:
        raise Misnamed(
            f"pool must be left out for {blueprint.name}, which pools in one way; got "
            f"{wanted.pool!r}."
        )
    return found


def _assuming(match: Match, *sentences: str) -> Match:
    return replace(match, assumed=sentences)


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
    whole = (
        f"{blueprint.name} as torchvision builds it: ReLU, strides in the 3 x 3 convolutions, no "
        f"dilation, no blur pooling (--encoder timm:{blueprint.name} --encoder-option "
        "output_stride=16, or aa_layer=blur)"
    )
    if not is_small:
        return _assuming(match, whole)
    pools = " and has no max-pooling behind it" if place.spelling.pools else ""
    more = ", --stem cifar-maxpool has the pooling" if pools else ""
    stem = f"the 3 x 3 stem pads by 1{pools} (--stem solo-learn pads by 2{more})"
    return _assuming(match, whole, stem)


def _of_vit(match: Match, wanted: Wanted) -> Match:
    """Ask for the heads of a ViT where projects differ, or say how many it is taken to have."""
    options: dict[str, Any] = dict(match.blueprint.options)
    width, assumed = options["embed_dim"], []
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
        changed = tuple((options | {"num_heads": heads}).items())
        blueprint = replace(match.blueprint, options=changed)
        match = replace(match, place=replace(match.place, blueprint=blueprint))
    if wanted.pool is None and not options["class_token"]:
        assumed.append("features are the mean of the patches, as there is no class token")
    elif wanted.pool is None and not options["fc_norm"]:
        assumed.append("features are the class token (--pool mean: the mean of the patches)")
    return _assuming(match, *assumed)


def _has_fixed_positions(match: Match) -> bool:
    """Whether the class token has no position, as in MoCo v3 and MAE, where none is learned."""
    position = match.opened.tensors.get(match.place.found.get("pos_embed", ""))
    return position is not None and position.ndim == 3 and not bool(position[0, 0].any())
