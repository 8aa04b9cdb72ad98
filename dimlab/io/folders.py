"""Folders of transformers, timm and open_clip: weights beside what says how to build them."""

from __future__ import annotations

import inspect
import json
import math
import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dimlab.images import Recipe
from dimlab.io.blueprints import (
    NOT_OPTIONS,
    OPEN_CLIP,
    TIMM,
    package,
    recipe_of_open_clip,
    recipe_of_timm,
    silenced,
)
from dimlab.io.files import Misnamed, mapped
from dimlab.io.processors import processor_of, proved, recipe_of_transformers, whole
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.io.places import Wanted

_WEIGHTS = {  # names of weights by package, the safest first
    "transformers": ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                     "pytorch_model.bin.index.json"),
    "timm": ("model.safetensors", "pytorch_model.bin"),
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
}  # fmt: skip
_NAMED = re.compile(
    r"(open_clip_)?(pytorch_)?model(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
)
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
_OF_COCA = "features are pooled and projected, and not normalised as CoCa's encode_image does it"
_HEADS = ("pooler.", "head.")  # parts of a model that only its own pooling uses


@dataclass(frozen=True, eq=False)
class EncoderFolder:
    """A folder with weights and the configuration that says how to build them."""

    path: Path
    package: str  # transformers, timm or open_clip
    config: Mapping[str, Any]
    weights: tuple[Path, ...]

    @property
    def encoder(self) -> str:
        """Name of the encoder, for a package that builds it by name."""
        if self.package == "timm":
            return f"{TIMM}{self.config['architecture']}"
        return f"{OPEN_CLIP}local-dir:{self.path}"

    def wanted(self, asked: Wanted) -> Wanted:
        """Return what a person asks for, completed by what the folder records."""
        encoder = asked.encoder or self.encoder
        options = tuple(self._options(asked).items())
        return replace(asked, encoder=encoder, options=options, is_recorded=not asked.encoder)

    def _options(self, wanted: Wanted) -> dict[str, Any]:
        """Return the options of the constructor: recorded ones, and those of a person over them."""
        recorded = dict(self.config.get("model_args") or {}) if self.package == "timm" else {}
        for each in NOT_OPTIONS:
            recorded.pop(each, None)
        if self.package == "timm" and self.config.get("global_pool") and wanted.pool is None:
            recorded.setdefault("global_pool", self.config["global_pool"])
        if "img_size" in recorded and isinstance(recorded["img_size"], list):
            recorded["img_size"] = tuple(recorded["img_size"])
        return recorded | dict(wanted.options)

    @property
    def content(self) -> tuple[mmap.mmap | bytes, ...]:
        """The configuration and every file of weights."""
        found: list[mmap.mmap | bytes] = [json.dumps(self.config, sort_keys=True).encode()]
        for each in self.weights:
            with each.open("rb") as file:
                found.append(mapped(file))
        return tuple(found)

    def recipe(self) -> Recipe:
        """Return what the folder says of the images that its encoder takes."""
        if self.package == "timm":
            return recipe_of_timm(self.config.get("pretrained_cfg") or {}, "config.json")
        if self.package == "open_clip":
            size = (self.config.get("model_cfg") or {}).get("vision_cfg", {}).get("image_size")
            given = {"size": size} | dict(self.config.get("preprocess_cfg") or {})
            return recipe_of_open_clip(given, "open_clip_config.json")
        name, found = self.processor
        return recipe_of_transformers(found, name) if found is not None else Recipe()

    @property
    def processor(self) -> tuple[str, dict[str, Any] | None]:
        """What a folder of transformers says of its image processor, and the file that does."""
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (self.path / name).is_file():
                found = _json_in(self.path / name)
                return name, found.get("image_processor", found)
        return "", None


def folder_at(path: Path) -> EncoderFolder | None:
    """Return the folder that a path names, or that a file of weights lies in; None for others."""
    if path.is_file() and _NAMED.fullmatch(path.name):
        folder = path.parent
    elif path.is_dir():
        folder = path
    else:
        return None
    if (folder / "modules.json").is_file():  # sentence-transformers keeps its model in the first
        modules = _json_in(folder / "modules.json")
        first = modules[0] if isinstance(modules, list) and modules else {}
        folder = folder / str(first.get("path", "")) if isinstance(first, dict) else folder
    for name, kinds in (
        ("open_clip_config.json", {"model_cfg": "open_clip"}),
        ("config.json", {"model_type": "transformers", "architecture": "timm"}),
    ):
        config = _json_in(folder / name) if (folder / name).is_file() else None
        for key, kind in kinds.items():
            if isinstance(config, dict) and key in config:
                return EncoderFolder(folder, kind, config, _weights_in(folder, kind))
    return None


def _json_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # bytes that are no UTF-8 are a ValueError
        raise Refusal(f"{path.name} must be readable JSON; got: {error}.") from error


def _weights_in(folder: Path, kind: str) -> tuple[Path, ...]:
    """Return the files of weights, all shards of them."""
    name = next((each for each in _WEIGHTS[kind] if (folder / each).is_file()), None)
    if name is None:
        wanted = " or ".join(each for each in _WEIGHTS[kind] if "index" not in each)
        raise Refusal(
            f"{folder.name} must hold {wanted} beside its configuration; got neither. Save the "
            f"model with {kind} again."
        )
    if not name.endswith(".index.json"):
        return (folder / name,)
    shards = sorted(set(_json_in(folder / name).get("weight_map", {}).values()))
    lost = [each for each in shards if not (folder / str(each)).is_file()]
    if lost or not shards:
        what = f"without {lost[0]}" if lost else "which names none"
        raise Refusal(f"{folder.name} must hold every part that {name} names; got it {what}.")
    return tuple(folder / str(each) for each in shards)


class Tower(nn.Module):
    """A package's encoder: images (B, C, H, W) to features (B, D), or a sentence why not."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module: Any = module
        self.name = name
        self.assumed: tuple[str, ...] = ()

    def sized(self, image_size: int | None) -> Tower:
        """Interpolate position embeddings to another size, as the package itself does."""
        built_for = getattr(getattr(self.module, "patch_embed", None), "img_size", None)
        if image_size is None or built_for == (image_size, image_size):
            return self
        if hasattr(self.module, "set_input_size"):
            change = self.module.set_input_size
            if "window_ratio" in inspect.signature(change).parameters:
                self.assumed = (
                    f"windows grow with images of {image_size} pixels, as timm's set_input_size "
                    f"does it (--encoder-option img_size={image_size} keeps them as they are)",
                )
            try:
                change(img_size=(image_size, image_size))
            except (AssertionError, ValueError, TypeError) as error:
                raise self._refused((image_size, image_size), error) from error
        return self

    def embed(self, images: Tensor) -> Tensor:
        """Return features as the package gives them."""
        return self.module(images)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features."""
        try:
            found = self.embed(images)
        except (AssertionError, ValueError) as error:
            raise self._refused(images.shape[-2:], error) from error
        if isinstance(found, tuple) and self.name.startswith(OPEN_CLIP):
            found, self.assumed = found[0], (_OF_COCA,)  # and tokens stand behind it
        if not isinstance(found, Tensor):
            raise Refusal(
                f"encoder must give one tensor a batch; {self.name} gave {type(found).__name__}. "
                "Encode with encode_loader(module, loader, select=0), or another part."
            )
        return found.flatten(1)

    def _refused(self, size: Sequence[int], error: Exception) -> Misnamed:
        reason = " ".join(str(error).split())[:160].rstrip(".")
        return Misnamed(
            f"images must be of a size that {self.name} takes; got {size[0]} x {size[1]}: {reason}."
        )


# transformers -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FolderTower:
    """What transformers made of a folder, and what it lacks."""

    folder: EncoderFolder
    name: str
    module: Tower
    n_dimensions: int
    recipe: Recipe
    assumed: tuple[str, ...]
    missing: tuple[str, ...]  # keys of the encoder that the file does not have
    unexpected: tuple[str, ...]  # and keys of the file within the encoder's own parts
    beside: tuple[str, ...]  # other keys of the file: decoders, text towers, heads

    @property
    def lacks(self) -> str | None:
        """A sentence without its subject, where anything is missing or beyond the encoder."""
        if not self.missing and not self.unexpected:
            return None
        what = [f"{len(self.missing)} missing"] if self.missing else []
        what += [f"{len(self.unexpected)} without a place in it"] if self.unexpected else []
        first = (*self.missing, *self.unexpected)[0]
        other = ""
        if self.missing and all(each.startswith(_HEADS) for each in self.missing):
            other = " Pass pool='cls' or 'mean' (--pool cls), which need none of them."
        return (
            f"must hold every weight of {type(self.module.module).__name__}, as its config.json "
            f"describes it; got {', '.join(what)}: {first}.{other}"
        )


class _Pooled(Tower):
    """A model of transformers, pooled."""

    def __init__(self, module: nn.Module, name: str, pool: str | None) -> None:
        super().__init__(module, name)
        weights = dict(module.named_parameters())
        self.has_class = any(key.endswith(_CLASS_TOKENS) for key in weights)
        self.n_before = sum(key.endswith((*_CLASS_TOKENS, "distillation_token")) for key in weights)
        self.n_before += sum(
            v.shape[1] for k, v in weights.items() if k.endswith("register_tokens")
        )
        self.is_berts = any(key.startswith("pooler.dense") for key in weights)
        self.arguments = tuple(inspect.signature(module.forward).parameters)
        self.pool = pool

    def outputs(self, images: Tensor) -> Any:
        """Return what transformers gives, with position embeddings for images of any size."""
        config, more = self.module.config, dict[str, Any]()
        if config.model_type == "vit_mae":  # draws an order of patches, unless it is given one
            side = _side(config.patch_size)
            n_patches = (images.shape[-2] // side) * (images.shape[-1] // side)
            more["noise"] = torch.arange(n_patches, device=images.device).expand(len(images), -1)
        size = _side(getattr(config, "image_size", None))
        if size not in (None, images.shape[-1]) and "interpolate_pos_encoding" in self.arguments:
            more["interpolate_pos_encoding"] = True
        return self.module(pixel_values=images, **more)

    def embed(self, images: Tensor) -> Tensor:
        """Return pooled features of images."""
        found = self.outputs(images)
        if self.pool in ("pooler", "projection"):
            return found.pooler_output if self.pool == "pooler" else found.image_embeds
        hidden = found.last_hidden_state
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        return hidden[:, 0] if self.pool == "cls" else hidden[:, self.n_before :].mean(1)

    def assume(self, images: Tensor) -> str:
        """Choose how to pool, where nobody has said it, and say so; refuse what cannot be."""
        found = self.outputs(images)
        pooler = getattr(found, "pooler_output", None)
        self.has_class &= getattr(found, "last_hidden_state", images).ndim == 3  # no map
        if self.pool == "cls" and not self.has_class:
            raise Misnamed(f"pool must be mean or pooler for {self.name}, without a class token.")
        if self.pool == "pooler" and pooler is None:
            raise Misnamed(f"pool must be cls or mean for {self.name}, without a pooler.")
        self._check_mean(found)
        if self.pool is not None:
            return ""
        others = ["cls"] * self.has_class + ["mean"] + ["pooler"] * (pooler is not None)
        # BERT's pooler is left at random by self-supervised training
        self.pool = "pooler" if pooler is not None and not self.is_berts else others[0]
        self._check_mean(found)
        words = {"pooler": "pooler_output", "cls": "the class token", "mean": "the mean of patches"}
        other = ", ".join(f"--pool {each}" for each in others if each != self.pool)
        return f"features are {words[self.pool]}" + (f" ({other})" if other else "")

    def _check_mean(self, found: Any) -> None:
        """Refuse a mean of tokens where some of them are no patches of a square image."""
        tokens = getattr(found, "last_hidden_state", None)
        if self.pool != "mean" or tokens is None or tokens.ndim != 3:
            return
        count = tokens.shape[1] - self.n_before
        if math.isqrt(count) ** 2 != count:
            raise Misnamed(
                f"pool must be cls or pooler for {self.name}, whose {count} tokens are no square "
                "of patches; got 'mean'."
            )


def _side(size: Any) -> Any:
    """Return one side of a size that may be given as two."""
    return size[0] if isinstance(size, (list, tuple)) and size else size


def tower_of(folder: EncoderFolder, wanted: Wanted, image_size: int | None) -> FolderTower:
    """Load a folder of transformers with its own classes, and find out what it lacks."""
    wanted.check_left_out(f"{folder.path.name}, whose config.json says what it is")
    transformers = package("transformers", f"{folder.path.name}, a folder of transformers,")
    model, info, config = _loaded(transformers, folder, wanted.pool)
    recipe, unsure = _recipe_of(transformers, folder, getattr(config, "image_size", None))
    if image_size is not None:
        recipe = Recipe.of("--image-size", size=image_size).over(recipe)
    size, name = recipe.size or 224, folder.path.name
    zeros = torch.zeros(1, getattr(config, "num_channels", 3), size, size)
    module = _Pooled(model.eval(), f"{name} ({type(model).__name__})", wanted.pool)
    try:
        with torch.inference_mode():
            assumed = module.assume(zeros)
            width = module(zeros).shape[1]
    except Misnamed:
        raise
    except Exception as error:  # of any kind: it takes no plain images
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise (Refusal if image_size is None else Misnamed)(
            f"{name} must map images alone to features; got {type(model).__name__}, which fails on "
            f"one of {size} x {size}: {reason}."
        ) from error
    own = {key.split(".")[0] for key, _ in model.named_children()}
    before = f"{model.base_model_prefix}."
    beyond = [key.removeprefix(before) for key in sorted(info["unexpected_keys"])]
    within = tuple(
        key for key in beyond if key.split(".")[0] in own and not key.endswith("mask_token")
    )
    missing = tuple(
        key for key in sorted(info["missing_keys"])
        if not (module.pool in ("cls", "mean") and key.startswith(_HEADS))
    )  # fmt: skip
    said = tuple(each for each in (assumed, unsure) if each)
    return FolderTower(
        folder, name, module, width, recipe, said, missing, within,
        tuple(key for key in beyond if key not in within),
    )  # fmt: skip


def _recipe_of(transformers: Any, folder: EncoderFolder, image_size: Any) -> tuple[Recipe, str]:
    """Return the recipe of a folder's image processor, proved with it; or what is not proved."""
    name, found = folder.processor
    side = _side(image_size)
    if found is None:
        return Recipe.of("config.json", size=side), ""
    with silenced("transformers"):
        processor = processor_of(transformers, found)
    recipe = recipe_of_transformers(found if processor is None else whole(processor), name)
    size = recipe.size or side
    kept = size if recipe.resize is None else None  # images of that size stay as they are
    recipe = recipe.over(Recipe.of("config.json", size=size, resize=kept))
    kind = found.get("image_processor_type") or found.get("feature_extractor_type")
    if processor is not None:
        with silenced("transformers"):
            return proved(processor, recipe, folder.path.name)
    if kind:
        return recipe, f"images become pixels as {name} says, not by {kind}, which cannot be built"
    return recipe, ""


def _loaded(
    transformers: Any, folder: EncoderFolder, pool: str | None
) -> tuple[Any, dict[str, Any], Any]:
    """Build the model of images that a configuration describes, with the weights beside it."""
    what = f"{folder.path.name} must hold an encoder of images that transformers builds"
    quiet = transformers.utils.logging
    shows_bars = quiet.is_progress_bar_enabled()
    try:
        quiet.disable_progress_bar()
        with silenced("transformers"):
            known = {"trust_remote_code": False, "local_files_only": True}
            whole = transformers.AutoConfig.from_pretrained(folder.path, **known)
            config = getattr(whole, "vision_config", whole)
            kind = transformers.MODEL_MAPPING.get(type(config), None)
            kind = kind[0] if isinstance(kind, (list, tuple)) else kind
            if kind is None or kind.main_input_name != "pixel_values":
                reads = (
                    "for which its AutoModel has no class"
                    if kind is None
                    else f"which takes {kind.main_input_name}"
                )
                raise Refusal(f"{what}; got {config.model_type}, {reads}.")
            if pool == "projection":
                projecting = getattr(transformers, f"{kind.__name__}WithProjection", None)
                if projecting is None:
                    raise Misnamed(
                        f"pool must be cls, mean or pooler for {folder.path.name}, as transformers "
                        f"has no projection behind a {kind.__name__}; got 'projection'."
                    )
                kind, config = projecting, _with_projection(whole, config)
            if config.model_type == "vit_mae":
                config.mask_ratio = 0.0  # features are of all patches
            with torch.random.fork_rng(devices=[]):
                model, info = kind.from_pretrained(
                    folder.path, config=config, dtype=torch.float32, output_loading_info=True,
                    local_files_only=True,
                )  # fmt: skip
    except Refusal:
        raise
    except Exception as error:  # of any kind: transformers reads what the folder says
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise Refusal(f"{what}; got: {type(error).__name__}, {reason}.") from error
    finally:
        if shows_bars:
            quiet.enable_progress_bar()
    return model, info, config


def _with_projection(whole: Any, config: Any) -> Any:
    """Return the configuration of a tower with the width of the projection of both."""
    if hasattr(whole, "projection_dim"):
        config.projection_dim = whole.projection_dim
    return config
