"""Files of torchvision, open_clip and of scripts that train their models."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.third_party.cases import AS_TORCHVISION, CASES, SIZE, Case, Made, moved, saved

STEM = "the 3 x 3 stem has stride 1, pads by 1"


def of_torchvision(
    name: str,
    case_name: str,
    options: dict | None = None,
    change: Callable[[Any], Any] | None = None,
    wrap: Callable[[dict], Any] = dict,
    **how: Any,
) -> None:
    """A torch file of a model of torchvision's, with its classifier."""

    def make(path: Path) -> Made:
        import torchvision

        made = getattr(torchvision.models, name)(weights=None, **(options or {}))
        if change is not None:
            change(made)
        made, size = moved(made), getattr(made, "image_size", SIZE)
        path.mkdir(exist_ok=True)
        saved(made, path / "a.pth", wrap)
        made.fc = nn.Identity()
        return Made(
            path / "a.pth", made, size, made.conv1.weight.shape[1] if hasattr(made, "conv1") else 3
        )

    CASES.append(Case(case_name, "torchvision", make, **how))


def _stem(kernel: int, stride: int, padding: int, pool: nn.Module | None = None):
    def change(made: Any) -> None:
        made.conv1 = nn.Conv2d(3, 64, kernel, stride, padding, bias=False)
        made.maxpool = made.maxpool if pool is None else pool

    return change


def _eps(eps: float) -> Callable[[nn.Module], None]:
    def change(made: nn.Module) -> None:
        for each in made.modules():
            if isinstance(each, (nn.BatchNorm2d, nn.LayerNorm)):
                each.eps = eps

    return change


def _inside(prefix: str, **beside: Any) -> Callable[[dict], Any]:
    return lambda state: {"state_dict": {f"{prefix}{k}": v for k, v in state.items()}} | beside


_NONE = nn.Identity()
of_torchvision("resnet18", "file of resnet18", assumes=(AS_TORCHVISION,))
of_torchvision("resnet50", "file of resnet50", assumes=(AS_TORCHVISION,))
_TWO_HEADS = {"aux.weight": torch.ones(3, 512), "jigsaw.weight": torch.ones(4, 512)}
of_torchvision(
    "resnet18",
    "file of resnet18 with further heads",
    wrap=lambda state: state | _TWO_HEADS,
    refuses="are aux, jigsaw, pass --allow-partial aux --allow-partial jigsaw",
)
of_torchvision(
    "resnet18",
    "file of resnet18 with further heads, allowed",
    wrap=lambda state: state | _TWO_HEADS,
    flags={"allow_partial": ["aux", "jigsaw"]},
    assumes=(AS_TORCHVISION,),
)
of_torchvision("wide_resnet50_2", "file of wide_resnet50_2", assumes=(AS_TORCHVISION,))
of_torchvision(
    "resnet50",
    "file of resnet50 with dilation",
    wrong=True,
    options={"replace_stride_with_dilation": [False, True, True]},
    assumes=("no dilation",),
)
of_torchvision(
    "resnet18",
    "file of resnet18 with another epsilon",
    change=_eps(1e-2),
    wrong=True,
    assumes=("BatchNorm with eps 1e-05",),
)
of_torchvision(
    "resnet18",
    "file of resnet18 with another epsilon, said",
    change=_eps(1e-2),
    flags={"encoder_option": ["norm_eps=0.01"]},
    assumes=("as torchvision builds it",),
)
of_torchvision(
    "resnet18",
    "file of a ResNet without max-pooling",
    wrong=True,
    change=_stem(7, 2, 3, _NONE),
    assumes=("max-pooling behind the stem",),
)
of_torchvision(
    "resnet18",
    "file of a ResNet without max-pooling, said",
    change=_stem(7, 2, 3, _NONE),
    flags={"stem": "imagenet-unpooled"},
    assumes=(AS_TORCHVISION,),
)
of_torchvision(
    "resnet18",
    "file of a ResNet for CIFAR",
    change=_stem(3, 1, 1, _NONE),
    assumes=(AS_TORCHVISION, STEM),
)
of_torchvision(
    "resnet18",
    "file of a ResNet for CIFAR with a max-pooling",
    wrong=True,
    change=_stem(3, 1, 1),
    assumes=(AS_TORCHVISION, "has no max-pooling behind it"),
)
of_torchvision(
    "resnet18",
    "file of a ResNet for CIFAR with a max-pooling, said",
    change=_stem(3, 1, 1),
    flags={"stem": "cifar-maxpool"},
    assumes=(AS_TORCHVISION,),
)
of_torchvision(
    "resnet18",
    "file of a ResNet with stride 2 in a stem of 3 x 3",
    wrong=True,
    change=_stem(3, 2, 1),
    assumes=(AS_TORCHVISION, "stride 1"),
)
of_torchvision(
    "resnet18",
    "solo-learn's ResNet for CIFAR",
    change=_stem(3, 1, 2, _NONE),
    wrap=lambda state: {
        "state_dict": {f"backbone.{k}": v for k, v in state.items() if "fc" not in k}
        | {"classifier.weight": torch.ones(10, 512), "classifier.bias": torch.ones(10)},
        "pytorch-lightning_version": "2.1.0",
        "hyper_parameters": {},
    },
    refuses="stem must be named",
)
of_torchvision("resnext50_32x4d", "file of resnext50_32x4d", refuses="a ResNeXt of 32 groups")
of_torchvision("vit_b_16", "file of vit_b_16", refuses="a vision transformer of torchvision")
of_torchvision("convnext_tiny", "file of convnext_tiny", refuses="a ConvNeXt")
of_torchvision("swin_t", "file of swin_t", refuses="a Swin transformer")
of_torchvision("densenet121", "file of densenet121", refuses="a DenseNet")
of_torchvision(
    "resnet50",
    "MoCo's encoder_q",
    wrap=_inside("module.encoder_q.", arch="resnet50"),
    assumes=(AS_TORCHVISION,),
)


# open_clip ----------------------------------------------------------------------------------------

OUTPUT = "features are the tower's output"
TOWER = "built with open_clip's own arguments"


def of_open_clip(
    name: str, case_name: str, *, folder: bool = False, is_quick: bool = False, **how: Any
) -> None:
    """A whole CLIP: a torch file of it, or a folder as open_clip pushes it."""

    def make(path: Path) -> Made:
        import open_clip

        model = open_clip.create_model(name, load_weights=False, force_quick_gelu=is_quick)
        made, size = moved(model), model.visual.image_size
        path.mkdir(exist_ok=True)
        if folder:
            pushing = importlib.import_module("open_clip.push_to_hf_hub")
            config = open_clip.get_model_config(name) | {"quick_gelu": is_quick}
            tokenizer = SimpleNamespace(save_pretrained=lambda path: None)
            pushing.save_for_hf(made, tokenizer, config, path, safe_serialization=True)
        else:
            saved(made, path / "a.pt", _inside("module.", epoch=1))
        named = path if folder else path / "a.pt"
        return Made(named, made.encode_image, size if isinstance(size, int) else size[0])

    CASES.append(Case(case_name, "open-clip-torch", make, **how))


of_open_clip(
    "RN50", "file of RN50, named", flags={"encoder": "open_clip:RN50"}, assumes=(TOWER, OUTPUT)
)
of_open_clip(
    "ViT-S-32",
    "file of ViT-S-32, named",
    flags={"encoder": "open_clip:ViT-S-32"},
    assumes=(TOWER, OUTPUT),
)
of_open_clip("ViT-S-32", "file of ViT-S-32", refuses="open_clip:ViT-B-32-quickgelu for OpenAI's")
of_open_clip(
    "ViT-S-32",
    "file of ViT-S-32 with QuickGELU, named",
    is_quick=True,
    flags={"encoder": "open_clip:ViT-S-32"},
    assumes=(TOWER, OUTPUT),
    wrong=True,
)
of_open_clip(
    "ViT-S-32",
    "file of ViT-S-32 with QuickGELU, said",
    is_quick=True,
    flags={"encoder": "open_clip:ViT-S-32", "encoder_option": ["force_quick_gelu=true"]},
    assumes=(TOWER, OUTPUT),
)
of_open_clip("ViT-S-32", "folder of ViT-S-32", folder=True)
of_open_clip("ViT-S-32", "folder of ViT-S-32 with QuickGELU", folder=True, is_quick=True)
