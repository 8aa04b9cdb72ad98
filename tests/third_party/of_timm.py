"""Files and folders of timm."""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.third_party.cases import AS_TORCHVISION, CASES, SIZE, Case, Made, case, moved, saved

OWN_ARGUMENTS = "built with timm's own arguments"
HEADS, TOKEN = "heads, as most ViTs of width", "features are the class token"
AS_TIMM = "pre-norm blocks, GELU, LayerNorm with eps 1e-06"
NO_CLASS = "positions are of {} x {} patches, and of no other token"
PATCHES = "features are the mean of the patches, as there is no class token"


def of_timm(
    name: str,
    case_name: str,
    options: dict | None = None,
    size: int = SIZE,
    wrap: Callable[[dict], Any] = dict,
    **how: Any,
) -> None:
    """A torch file of a model of timm's, whose features are its own without its classifier."""

    def make(path: Path) -> Made:
        import timm

        given = dict(options or {})
        if "norm_layer" in given:
            given["norm_layer"] = partial(nn.LayerNorm, eps=0.01)
        if "block_fn" in given:
            given["block_fn"] = getattr(timm.models.vision_transformer, given["block_fn"])
        made = moved(timm.create_model(name, num_classes=0, **given))
        path.mkdir(exist_ok=True)
        return Made(saved(made, path / "a.pth", wrap), made, size)

    CASES.append(Case(case_name, "timm", make, **how))


TINY = {"img_size": SIZE, "depth": 2}
of_timm("resnet18", "file of resnet18", assumes=(AS_TORCHVISION,))
of_timm(
    "resnet18",
    "file of resnet18, named",
    flags={"encoder": "timm:resnet18"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "resnet50",
    "file of resnet50 with dilation",
    {"output_stride": 16},
    wrong=True,
    assumes=("no dilation",),
)
of_timm(
    "resnet50",
    "file of resnet50 with dilation, said",
    {"output_stride": 16},
    flags={"encoder": "timm:resnet50", "encoder_option": ["output_stride=16"]},
    assumes=(OWN_ARGUMENTS,),
)
of_timm("resnetblur50", "file of resnetblur50", wrong=True, assumes=("no blur pooling",))
of_timm(
    "resnetblur50",
    "file of resnetblur50, named",
    flags={"encoder": "timm:resnetblur50"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "resnet18",
    "file of resnet18 with SiLU",
    {"act_layer": "silu"},
    wrong=True,
    assumes=(AS_TORCHVISION,),
)
of_timm(
    "resnet18",
    "file of resnet18 with SiLU, said",
    {"act_layer": "silu"},
    flags={"encoder": "timm:resnet18", "encoder_option": ["act_layer=silu"]},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "resnet18",
    "file of resnet18 with max pooling",
    {"global_pool": "max"},
    wrong=True,
    assumes=("features that are the mean of all pixels",),
)
of_timm("vit_tiny_patch16_224", "file of a ViT", TINY, assumes=(AS_TIMM, HEADS, TOKEN))
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with 6 heads",
    TINY | {"num_heads": 6},
    wrong=True,
    assumes=(AS_TIMM, "3 heads", TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with 6 heads, said",
    TINY | {"num_heads": 6},
    flags={"encoder_option": ["num_heads=6"]},
    assumes=(AS_TIMM, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with QuickGELU",
    TINY | {"act_layer": "quick_gelu"},
    wrong=True,
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with QuickGELU, said",
    TINY | {"act_layer": "quick_gelu"},
    flags={"encoder_option": ["act_layer=quick_gelu"]},
    assumes=("pre-norm blocks, LayerNorm", HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with another epsilon",
    TINY | {"norm_layer": "eps"},
    wrong=True,
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with another epsilon, said",
    TINY | {"norm_layer": "eps"},
    flags={"encoder_option": ["norm_eps=0.01"]},
    assumes=("pre-norm blocks, GELU, patches", HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with post-norm blocks",
    TINY | {"block_fn": "ResPostBlock"},
    wrong=True,
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_base_patch16_siglip_224",
    "file of a ViT with attention pooling",
    TINY,
    refuses="must hold every weight",
)
of_timm(
    "vit_base_patch16_clip_224",
    "file of CLIP's ViT",
    TINY,
    refuses="activation .GELU or QuickGELU.",
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a mean-pooled ViT",
    TINY | {"global_pool": "avg"},
    assumes=(AS_TIMM, HEADS, "behind which fc_norm stands"),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a mean-pooled ViT without fc_norm",
    TINY | {"global_pool": "avg", "fc_norm": False},
    wrong=True,
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a mean-pooled ViT without fc_norm, said",
    TINY | {"global_pool": "avg", "fc_norm": False},
    flags={"pool": "mean"},
    assumes=(AS_TIMM, HEADS),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT without class token",
    TINY | {"class_token": False, "global_pool": "avg", "fc_norm": False},
    assumes=(AS_TIMM, HEADS, PATCHES),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with registers",
    TINY | {"reg_tokens": 4},
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with registers, mean",
    TINY | {"reg_tokens": 4, "global_pool": "avg", "fc_norm": False},
    flags={"pool": "mean"},
    assumes=(AS_TIMM, HEADS),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT with LayerScale",
    TINY | {"init_values": 0.1},
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "deit3_small_patch16_224",
    "file of DeiT III",
    TINY,
    assumes=(AS_TIMM, HEADS, NO_CLASS.format(4, 4), TOKEN),
)
WIDE = {"img_size": (64, 96), "depth": 2, "dynamic_img_size": True}
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT for images of 64 x 96",
    WIDE,
    wrong=True,
    assumes=(AS_TIMM, HEADS, NO_CLASS.format(5, 5), TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT for images of 64 x 96, said",
    WIDE,
    flags={"encoder_option": ["img_size=[64,96]"]},
    assumes=(AS_TIMM, HEADS, TOKEN),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT for images of 64 x 128",
    WIDE | {"img_size": (64, 128)},
    refuses="img_size must be given, as the file's 33 positions are no square of patches",
)
of_timm(
    "deit_tiny_distilled_patch16_224",
    "file of a distilled DeiT, named",
    size=224,
    flags={"encoder": "timm:deit_tiny_distilled_patch16_224"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "convnext_atto",
    "file of a ConvNeXt, named",
    flags={"encoder": "timm:convnext_atto"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm("convnext_atto", "file of a ConvNeXt", refuses="looks like a ConvNeXt")
of_timm(
    "swin_tiny_patch4_window7_224",
    "file of a Swin, named",
    size=224,
    flags={"encoder": "timm:swin_tiny_patch4_window7_224"},
    assumes=(OWN_ARGUMENTS,),
)
SWIN = "swin_tiny_patch4_window7_224"
of_timm(
    SWIN,
    "file of a Swin for images of 448",
    {"img_size": 448},
    448,
    wrong=True,
    flags={"encoder": f"timm:{SWIN}", "image_size": 448},
    assumes=(OWN_ARGUMENTS, "windows grow with images of 448 pixels"),
)
of_timm(
    SWIN,
    "file of a Swin for images of 448, said",
    {"img_size": 448},
    448,
    flags={"encoder": f"timm:{SWIN}", "encoder_option": ["img_size=448"], "image_size": 448},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a ViT of another size, named",
    {"img_size": SIZE},
    flags={"encoder": "timm:vit_tiny_patch16_224"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of timm's training script",
    {"img_size": SIZE},
    wrap=lambda state: {"arch": "vit_tiny_patch16_224", "state_dict": state, "epoch": 3},
    assumes=(OWN_ARGUMENTS,),
)
of_timm(
    "efficientnet_lite0",
    "file of an EfficientNet, named",
    flags={"encoder": "timm:efficientnet_lite0"},
    assumes=(OWN_ARGUMENTS,),
)


of_timm(
    "vit_tiny_patch16_224",
    "file of a max-pooled ViT",
    TINY | {"class_token": False, "global_pool": "max", "fc_norm": False},
    wrong=True,
    assumes=(AS_TIMM, HEADS, PATCHES),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of a max-pooled ViT, said",
    TINY | {"class_token": False, "global_pool": "max", "fc_norm": False},
    flags={"encoder_option": ["global_pool=max"]},
    assumes=(AS_TIMM, HEADS),
)
of_timm(
    "vit_medium_patch16_reg4_gap_256",
    "file of a ViT with registers and no class token",
    TINY,
    assumes=(AS_TIMM, HEADS, NO_CLASS.format(4, 4), PATCHES),
)
of_timm(
    "eva02_tiny_patch14_224",
    "file of EVA-02",
    {"depth": 2},
    224,
    refuses="looks like a BEiT or EVA .* name a model of timm's with these keys",
)
of_timm(
    "eva02_tiny_patch14_224",
    "file of EVA-02, named",
    size=224,
    flags={"encoder": "timm:eva02_tiny_patch14_224"},
    assumes=(OWN_ARGUMENTS,),
)
of_timm("resnetv2_50", "file of a ResNetV2", refuses="call encode_loader.module, loader., or name")
of_timm(
    "resnet50",
    "file of timm's training script with --gp max",
    {"global_pool": "max", "output_stride": 16},
    wrap=lambda state: {
        "arch": "resnet50",
        "state_dict": state,
        "args": argparse.Namespace(gp="max", model_kwargs={"output_stride": 16, "in_chans": 3}),
    },
    assumes=("built with output_stride=16, global_pool=max, as its training recorded",),
)
of_timm(
    "vit_tiny_patch16_224",
    "file of timm's training script with --model-kwargs",
    TINY | {"num_heads": 6},
    wrap=lambda state: {
        "arch": "vit_tiny_patch16_224",
        "state_dict": state,
        "args": {"model_kwargs": TINY | {"num_heads": 6}},
    },
    assumes=("built with depth=2, num_heads=6, as its training recorded",),
)


@case(
    "file of a ViT, larger images",
    "timm",
    flags={"encoder": "timm:vit_tiny_patch16_224", "image_size": 96},
    assumes=(OWN_ARGUMENTS,),
)
def _sized(path: Path) -> Made:
    import timm

    made = moved(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=SIZE))
    path.mkdir()
    saved(made, path / "a.pth")
    made.set_input_size(img_size=(96, 96))
    return Made(path / "a.pth", made, 96)


def folder_of_timm(
    name: str, case_name: str, options: dict | None = None, size: int = SIZE, **how: Any
) -> None:
    """A folder of `save_for_hf`, whose config.json keeps the constructor's arguments."""

    def make(path: Path) -> Made:
        import timm
        from timm.models import save_for_hf

        made = moved(timm.create_model(name, num_classes=7, **(options or {})))
        save_for_hf(made, path, model_args=options)
        made.reset_classifier(
            0,
            **(
                {"global_pool": options["global_pool"]}
                if options and "global_pool" in options
                else {}
            ),
        )
        return Made(path, made, size)

    CASES.append(Case(case_name, "timm", make, **how))


folder_of_timm("resnet18", "folder of resnet18")
folder_of_timm(
    "vit_tiny_patch16_224",
    "folder of a ViT with arguments",
    TINY | {"num_heads": 6, "act_layer": "quick_gelu", "reg_tokens": 4},
)
folder_of_timm("vit_tiny_patch16_224", "folder of a mean-pooled ViT", TINY | {"global_pool": "avg"})


@case("checkpoint of timm's CheckpointSaver, EMA", "timm", assumes=(OWN_ARGUMENTS,))
def _saver(path: Path) -> Made:
    import timm
    from timm.utils import CheckpointSaver, ModelEmaV2

    path.mkdir()
    model = moved(timm.create_model("resnet26", num_classes=3))
    averaged = ModelEmaV2(moved(copy.deepcopy(model), seed=2))
    saver = CheckpointSaver(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        args=argparse.Namespace(model="resnet26", lr=0.1),
        model_ema=averaged,
        checkpoint_dir=str(path),
        recovery_dir=str(path),
    )
    saver.save_checkpoint(1, metric=0.5)
    averaged.module.reset_classifier(0)
    return Made(path / "last.pth.tar", averaged.module)
