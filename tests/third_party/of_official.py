"""Official files of methods, in their authors' names, made of timm's models."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from tests.third_party.of_timm import (
    AS_TIMM,
    HEADS,
    NO_CLASS,
    OWN_ARGUMENTS,
    PATCHES,
    TINY,
    TOKEN,
    of_timm,
)


def official(
    case_name: str, model: str, options: dict, wrap: Callable[[dict], Any], **how: Any
) -> None:
    """A ViT of timm's whose weights are kept as the authors of a method keep them."""
    of_timm(model, case_name, options, wrap=wrap, **how)


def _dinov2(state: dict) -> dict:
    found = copy.copy(state)
    if "reg_token" in found:
        found["register_tokens"] = found.pop("reg_token")
        zero = torch.zeros_like(found["cls_token"])
        found["pos_embed"] = torch.cat([zero, found["pos_embed"]], 1)
    return found | {"mask_token": torch.ones(1, found["cls_token"].shape[-1])}


def _fixed(position: torch.Tensor) -> torch.Tensor:
    position[:, 0] = 0  # of the module too
    return position


def _moco_v3(state: dict) -> dict:
    state = state | {"head.0.weight": torch.ones(4, 384)}
    state["pos_embed"] = _fixed(state["pos_embed"])
    return {
        "arch": "vit_small",
        "state_dict": {
            **{f"module.base_encoder.{k}": v for k, v in state.items()},
            **{f"module.momentum_encoder.{k}": v + 1 for k, v in state.items()},
            "module.predictor.0.weight": torch.ones(4, 4),
        },
    }


def _ijepa(state: dict) -> dict:
    state = {f"module.{key}": each for key, each in state.items()}
    return {
        "encoder": {key: each + 1 for key, each in state.items()},
        "target_encoder": state,
        "predictor": {"module.predictor_pos_embed": torch.ones(1, 16, 8)},
        "epoch": 1,
    }


official(
    "DINO: teacher and student",
    "vit_small_patch16_224",
    TINY,
    lambda state: {
        "student": {f"module.backbone.{k}": v + 1 for k, v in state.items()},
        "teacher": {f"backbone.{k}": v for k, v in state.items()},
        "epoch": 1,
    },
    assumes=(AS_TIMM, HEADS, TOKEN),
)
official(
    "DINOv2",
    "vit_small_patch14_dinov2",
    {"img_size": 56, "depth": 2},
    _dinov2,
    size=56,
    assumes=(AS_TIMM, HEADS, TOKEN),
)
official(
    "DINOv2 with registers",
    "vit_small_patch14_reg4_dinov2",
    {"img_size": 56, "depth": 2},
    _dinov2,
    size=56,
    assumes=(AS_TIMM, HEADS, NO_CLASS.format(4, 4), TOKEN),
)
official(
    "MoCo v3",
    "vit_small_patch16_224",
    TINY | {"num_heads": 12},
    _moco_v3,
    assumes=(AS_TIMM, "12 heads, as MoCo v3's", TOKEN),
)
official(
    "MoCo v3 without its prefix",
    "vit_small_patch16_224",
    TINY | {"num_heads": 12},
    lambda state: state | {"pos_embed": _fixed(state["pos_embed"])},
    refuses="12 in MoCo v3 and 6 elsewhere",
)
official(
    "MoCo v3 without its prefix, said",
    "vit_small_patch16_224",
    TINY | {"num_heads": 12},
    lambda state: state | {"pos_embed": _fixed(state["pos_embed"])},
    flags={"encoder_option": ["num_heads=12"]},
    assumes=(AS_TIMM, TOKEN),
)
official(
    "MAE",
    "vit_tiny_patch16_224",
    TINY,
    lambda state: {"model": state | {"mask_token": torch.ones(1, 1, 8)}},
    assumes=(AS_TIMM, HEADS, TOKEN),
)
official(
    "I-JEPA",
    "vit_tiny_patch16_224",
    TINY | {"class_token": False, "global_pool": "avg", "fc_norm": False},
    _ijepa,
    assumes=(AS_TIMM, HEADS, PATCHES),
)


def _dinov3(state: dict) -> dict:
    found = {}
    for key, each in state.items():
        name = key.replace("reg_token", "storage_tokens")
        for number in (1, 2):
            name = name.replace(f"gamma_{number}", f"ls{number}.gamma")
        if key.endswith("q_bias"):  # the bias of the keys is masked
            values = state[key.replace("q_bias", "v_bias")]
            found[name.replace("q_bias", "qkv.bias")] = torch.cat([each, 0 * each, values])
            found[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(each))
        elif not key.endswith(("k_bias", "v_bias")):
            found[name] = each
    return found | {"rope_embed.periods": torch.ones(16), "mask_token": torch.ones(1, 384)}


_QKV = "vit_small_patch16_dinov3_qkvb"
official("DINOv3", _QKV, {"depth": 2}, _dinov3, refuses="looks like a DINOv3 .* Name it, as")
official(
    "DINOv3, named",
    _QKV,
    {"depth": 2},
    _dinov3,
    flags={"encoder": f"timm:{_QKV}", "encoder_option": ["depth=2"]},
    assumes=(OWN_ARGUMENTS,),
)
official(
    "DINOv3, named as one without biases",
    _QKV,
    {"depth": 2},
    _dinov3,
    flags={"encoder": f"timm:{_QKV.removesuffix('_qkvb')}", "encoder_option": ["depth=2"]},
    refuses=f"Name the model that has them: --encoder timm:{_QKV}",
)
