"""Folders and files of transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.third_party.cases import CASES, SIZE, Case, Made, case, moved

CLS = "features are the class token (--pool mean"
POOLER = "features are pooler_output"
MEAN = "features are the mean of patches"
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_VIT = _SMALL | {"intermediate_size": 64, "image_size": SIZE, "patch_size": 16}


def of_transformers(config: str, model: str, values: dict, take: Callable[[Any], Any], **how: Any):
    """A folder of `save_pretrained`, whose features are a part of the model's own output."""

    def make(path: Path, **save: Any) -> Made:
        import transformers

        made = moved(getattr(transformers, model)(getattr(transformers, config)(**values)))
        made.save_pretrained(path, **save)
        return Made(path, lambda images: take(made(pixel_values=images)), values["image_size"])

    name = how.pop("name", f"folder of {model}")
    CASES.append(Case(name, "transformers", make, **how))
    return make


def first(found: Any) -> torch.Tensor:
    return found.last_hidden_state[:, 0]


def pooler(found: Any) -> torch.Tensor:
    return found.pooler_output.flatten(1)


def patches(n_before: int) -> Callable[[Any], torch.Tensor]:
    return lambda found: found.last_hidden_state[:, n_before:].mean(1)


vit = of_transformers("ViTConfig", "ViTModel", _VIT, first, assumes=(CLS,))
of_transformers(
    "ViTConfig",
    "ViTModel",
    _VIT,
    pooler,
    flags={"pool": "pooler"},
    name="folder of ViTModel, pooler",
)
of_transformers(
    "ViTConfig",
    "ViTModel",
    _VIT | {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    first,
    assumes=(CLS,),
    name="folder of ViTModel with ReLU and another epsilon",
)
of_transformers(
    "ViTConfig",
    "ViTModel",
    _VIT,
    patches(1),
    flags={"pool": "mean"},
    name="folder of ViTModel, mean",
)
of_transformers("DeiTConfig", "DeiTModel", _VIT, patches(2), flags={"pool": "mean"})
of_transformers("Dinov2Config", "Dinov2Model", _VIT, pooler, assumes=(POOLER,))
of_transformers(
    "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", _VIT, pooler, assumes=(POOLER,)
)
of_transformers(
    "Dinov2WithRegistersConfig",
    "Dinov2WithRegistersModel",
    _VIT,
    patches(5),
    flags={"pool": "mean"},
    name="folder of Dinov2WithRegistersModel, mean",
)
of_transformers(
    "DINOv3ViTConfig",
    "DINOv3ViTModel",
    _VIT | {"num_register_tokens": 4},
    pooler,
    assumes=(POOLER,),
)
of_transformers(
    "DINOv3ViTConfig",
    "DINOv3ViTModel",
    _VIT | {"num_register_tokens": 4},
    patches(5),
    flags={"pool": "mean"},
    name="folder of DINOv3ViTModel, mean",
)
of_transformers("ViTMAEConfig", "ViTMAEModel", _VIT | {"mask_ratio": 0.0}, first, assumes=(CLS,))
of_transformers("BeitConfig", "BeitModel", _VIT, pooler, assumes=(POOLER,))
of_transformers("Data2VecVisionConfig", "Data2VecVisionModel", _VIT, first, assumes=(CLS,))
of_transformers("IJepaConfig", "IJepaModel", _VIT, patches(0), assumes=(MEAN,))
of_transformers("CLIPVisionConfig", "CLIPVisionModel", _VIT, pooler, assumes=(POOLER,))
of_transformers(
    "CLIPVisionConfig",
    "CLIPVisionModel",
    _VIT,
    patches(1),
    flags={"pool": "mean"},
    name="folder of CLIPVisionModel, mean",
)
of_transformers(
    "CLIPVisionConfig",
    "CLIPVisionModelWithProjection",
    _VIT | {"projection_dim": 24},
    lambda found: found.image_embeds,
    flags={"pool": "projection"},
)
of_transformers("SiglipVisionConfig", "SiglipVisionModel", _VIT, pooler, assumes=(POOLER,))
of_transformers(
    "ResNetConfig",
    "ResNetModel",
    {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "image_size": SIZE},
    pooler,
    assumes=(POOLER,),
)
of_transformers(
    "ConvNextConfig",
    "ConvNextModel",
    {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "image_size": SIZE},
    pooler,
    assumes=(POOLER,),
)
of_transformers(
    "ConvNextV2Config",
    "ConvNextV2Model",
    {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "image_size": SIZE},
    pooler,
    assumes=(POOLER,),
)
of_transformers(
    "SwinConfig",
    "SwinModel",
    {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": SIZE},
    pooler,
    assumes=(POOLER,),
)
of_transformers(
    "Swinv2Config",
    "Swinv2Model",
    {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": SIZE},
    pooler,
    assumes=(POOLER,),
)


def sized(config: str, model: str, take: Callable[[Any], Any], **how: Any) -> None:
    """A folder of an encoder of small images, whose position embeddings are interpolated."""

    def make(path: Path) -> Made:
        import transformers

        made = moved(getattr(transformers, model)(getattr(transformers, config)(**_VIT)))
        made.save_pretrained(path)

        def features(images: torch.Tensor) -> torch.Tensor:
            return take(made(pixel_values=images, interpolate_pos_encoding=True))

        return Made(path, features, 96)

    name = f"folder of {model}, larger images"
    CASES.append(Case(name, "transformers", make, flags={"image_size": 96}, **how))


sized("ViTConfig", "ViTModel", first, assumes=(CLS,))
sized("CLIPVisionConfig", "CLIPVisionModel", pooler, assumes=(POOLER,))
_NEXT = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "image_size": SIZE}
of_transformers("DINOv3ConvNextConfig", "DINOv3ConvNextModel", _NEXT, pooler, assumes=(POOLER,))
of_transformers(
    "DINOv3ConvNextConfig",
    "DINOv3ConvNextModel",
    _NEXT,
    pooler,
    flags={"pool": "mean"},
    name="folder of DINOv3ConvNextModel, mean",
    refuses="whose 5 tokens are no square of patches",
)


def whole_of(
    model: str,
    part: Callable[[Any], nn.Module],
    take: Callable,
    config: str,
    values: dict,
    **how: Any,
) -> None:
    """A folder of a model with more than an encoder of images: heads, decoders, text towers."""

    def make(path: Path) -> Made:
        import transformers

        made = moved(getattr(transformers, model)(getattr(transformers, config)(**values)))
        made.save_pretrained(path)
        tower = part(made)
        return Made(path, lambda images: take(tower(pixel_values=images)))

    name = how.pop("name", f"folder of {model}")
    CASES.append(Case(name, "transformers", make, **how))


class _Projecting(nn.Module):
    """The image tower of a CLIP, and its projection."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden = self.made.vision_model(pixel_values=pixel_values).pooler_output
        return self.made.visual_projection(hidden)


def _mae(made: Any) -> nn.Module:
    made.vit.config.mask_ratio = made.vit.embeddings.config.mask_ratio = 0.0
    return made.vit


_TEXT = _SMALL | {"intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 16}
_TWO = {"vision_config": _VIT, "text_config": _TEXT}
whole_of("ViTForImageClassification", lambda m: m.vit, first, "ViTConfig", _VIT, assumes=(CLS,))
whole_of("ViTForMaskedImageModeling", lambda m: m.vit, first, "ViTConfig", _VIT, assumes=(CLS,))
whole_of(
    "Dinov2ForImageClassification",
    lambda m: m.dinov2,
    pooler,
    "Dinov2Config",
    _VIT,
    assumes=(POOLER,),
)
whole_of(
    "CLIPModel",
    lambda m: m.vision_model,
    pooler,
    "CLIPConfig",
    _TWO | {"projection_dim": 24},
    assumes=(POOLER,),
)
whole_of("SiglipModel", lambda m: m.vision_model, pooler, "SiglipConfig", _TWO, assumes=(POOLER,))
whole_of(
    "ResNetForImageClassification",
    lambda m: m.resnet,
    pooler,
    "ResNetConfig",
    {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    assumes=(POOLER,),
)
whole_of(
    "ViTMAEForPreTraining",
    _mae,
    first,
    "ViTMAEConfig",
    _VIT
    | {
        "decoder_hidden_size": 32,
        "decoder_num_attention_heads": 4,
        "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 64,
    },
    assumes=(CLS,),
)


@case("folder in several shards", "transformers", assumes=(CLS,))
def _sharded(path: Path) -> Made:
    made = vit(path, max_shard_size="20KB")
    assert (path / "model.safetensors.index.json").is_file()
    return made


@case("one file of a folder", "transformers", assumes=(CLS,))
def _one_file(path: Path) -> Made:
    made = vit(path)
    return Made(path / "model.safetensors", made.features)


@case("folder with pytorch_model.bin", "transformers", assumes=(CLS,))
def _bin(path: Path) -> Made:
    import safetensors.torch

    made = vit(path)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    torch.save(weights, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return made


@case(
    "weights of ViTModel without their config.json",
    "transformers",
    refuses="config.json must lie beside it",
)
def _alone(path: Path) -> Made:
    made = vit(path)
    (path / "config.json").unlink()
    return Made(path / "model.safetensors", made.features)


@case(
    "folder of ViTModel without its last layer",
    "transformers",
    refuses=r"must hold every weight of ViTModel",
)
def _partial(path: Path) -> Made:
    import safetensors.torch

    made = vit(path)
    weights = safetensors.torch.load_file(path / "model.safetensors")
    kept = {key: each for key, each in weights.items() if "layer.1." not in key}
    safetensors.torch.save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return made


@case("folder of BertModel", "transformers", refuses="takes input_ids")
def _bert(path: Path) -> Made:
    import transformers

    moved(transformers.BertModel(transformers.BertConfig(**_TEXT))).save_pretrained(path)
    return Made(path, nn.Identity())


@case("folder of TimmWrapperModel", "transformers, timm", assumes=(POOLER,))
def _wrapper(path: Path) -> Made:
    import transformers

    config = transformers.TimmWrapperConfig(architecture="resnet18", model_args={})
    made = moved(transformers.TimmWrapperModel(config))
    made.save_pretrained(path)
    return Made(path, lambda images: made(pixel_values=images).pooler_output)


@case(
    "folder of a CLIP in SentenceTransformer",
    "sentence-transformers, transformers",
    assumes=(POOLER,),
)
def _sentence_transformer(path: Path) -> Made:
    made = next(e for e in CASES if e.name == "folder of CLIPModel").make(path / "0_CLIP")
    module = {
        "idx": 0,
        "name": "0",
        "path": "0_CLIP",
        "type": "sentence_transformers.models.CLIPModel",
    }
    (path / "modules.json").write_text(json.dumps([module]))
    return Made(path, made.features)


def prepared(name: str, processor: dict[str, Any] | str, **how: Any) -> None:
    """A folder whose preprocessor_config.json is that of a class of transformers, or minimal."""

    def make(path: Path) -> Made:
        import transformers

        made = vit(path)
        if isinstance(processor, str):
            getattr(transformers, f"{processor}ImageProcessorPil")().save_pretrained(path)
        else:
            (path / "preprocessor_config.json").write_text(json.dumps(processor))
        return made

    CASES.append(Case(name, "transformers", make, **how))


OTHERWISE = "must prepare images as dimlab does"
_TYPE = {"image_processor_type": "ViTImageProcessor"}
prepared("folder with a processor that pads", "MobileViT", refuses="which pads")
prepared("folder with a processor that normalises twice", "EfficientNet", refuses=OTHERWISE)
prepared("folder with a processor of its own sizes", "Levit", refuses=OTHERWISE)
prepared(
    "folder with a processor by the longest edge",
    _TYPE | {"size": {"longest_edge": SIZE}},
    refuses=OTHERWISE,
)
prepared(
    "folder with a processor of no squares",
    _TYPE | {"size": {"height": SIZE, "width": 96}},
    refuses=OTHERWISE,
)
prepared("folder with a processor that says its class alone", _TYPE, assumes=(CLS,))
prepared(
    "folder with a processor of an unknown class",
    {"image_processor_type": "OwnImageProcessor", "size": SIZE},
    assumes=(CLS, "not by OwnImageProcessor, which cannot be built"),
)
