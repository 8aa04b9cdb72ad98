"""How tools lay out checkpoints: one table, which other packages extend with entry points.

A row says where the encoder's keys lie, what stands before them, and how they are spelled. Packages
add rows through the entry point group ``dimlab.weights``: each entry point is a `Layout`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from dimlab import outside
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
OPTIONAL = "num_batches_tracked"  # absent from old files; evaluation mode never reads it
ENTRY_POINTS = "dimlab.weights"
_WRAPPERS = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")


def unwrapped(key: str) -> str:
    """Return a key without what torch.compile, FSDP and activation checkpointing put into it."""
    return _WRAPPERS.sub("", key)


@dataclass(frozen=True)
class Spelling:
    """How a tool writes the encoder's own keys."""

    name: str
    parts: Mapping[str, str] = field(default_factory=dict)  # other names of a key's first part
    words: Mapping[str, str] = field(default_factory=dict)  # and of its later parts
    stem_relu: bool = True  # whether a ReLU follows a ResNet's first BatchNorm
    pools: bool = True  # whether its stem may have a max-pooling

    def of(self, key: str) -> str:
        """Return the file's spelling of a key of the encoder."""
        first, *rest = key.split(".")
        others = (self.words.get(each, each) for each in rest)
        return ".".join([self.parts.get(first, first), *others])


def _numbered(layer1: int) -> dict[str, str]:
    return {"conv1": "0", "bn1": "1"} | {f"layer{n}": str(layer1 + n - 1) for n in (1, 2, 3, 4)}


_SHORTCUT = {"downsample": "shortcut"}
OWN = Spelling("the encoder's own names")
LIGHTLY = Spelling(
    "Sequential of conv1, bn1, layer1 to layer4, which leaves out the stem's ReLU (a function call "
    "in lightly's ResNet); shortcut for downsample", _numbered(2), _SHORTCUT, stem_relu=False,
)  # fmt: skip
SPELLINGS = (
    OWN,
    Spelling("Sequential of conv1, bn1, relu, maxpool, layer1 to layer4", _numbered(4)),
    Spelling(
        "Sequential of conv1, bn1, relu, layer1 to layer4, which leaves out the max-pooling",
        _numbered(3), pools=False,
    ),
    Spelling("names with shortcut for downsample", words=_SHORTCUT),
    LIGHTLY,
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A row of the table: where a tool keeps an encoder in its checkpoints, and how it names it."""

    name: str
    why: str
    prefix: str = ""  # regular expression of all that may stand before the encoder's keys
    containers: tuple[str, ...] = ("*",)  # dotted names of mappings; "": the file itself, "*": any
    marks: tuple[str, ...] = ()  # one of them must be a key of the file, where there are any
    spellings: tuple[Spelling, ...] = SPELLINGS
    # from the file's keys and shapes, an encoder that dimlab does not know, or None: it maps images
    # (B, C, H, W) to features (B, D), and has an attribute n_dimensions
    build: Callable[[Mapping[str, Shape]], nn.Module | None] | None = None
    first: str | None = None  # the branch that its authors evaluate, where `RULE` names another


_CONTAINERS = (
    *("state_dict", "model", "net", "encoder", "backbone", "network", "module", "weights"),
    *("model_state_dict", "model_state", "net_state_dict", "encoder_state_dict"),
)
_PART = r"((model|net|network|encoder|backbone|trunk|feature_extractor|resnet|f)\.)"
_EMA = ("state_dict_ema", "model_ema", "ema", "ema_model", "ema_state_dict", "model_ema_state_dict")

_TABLE = (
    Layout("dimlab", "dimlab train keeps the encoder under network.encoder, beside the mask's "
           "logits.", r"encoder\.", ("network",), ("mask_logits",), (OWN,)),
    Layout("metamask", "The official MetaMask code keeps its mask under auto_mask.mask, its "
           "backbone also under resnet_simsiam, and the virtual step's copy under resnet_simsiam_.",
           r"(backbone|resnet_simsiam_?\.backbone)\.", ("state_dict",),
           ("state_dict.auto_mask.mask", "state_dict.resnet_simsiam_"), (LIGHTLY,)),
    Layout("vissl", "VISSL keeps the trunk under classy_state_dict.base_model.model.trunk.",
           r"(_feature_blocks\.|base_model\._feature_blocks\.)?",
           ("classy_state_dict.base_model.model.trunk", "base_model.model.trunk"), (), (OWN,)),
    Layout("ijepa", "I-JEPA keeps an encoder, a predictor, and the moving average of the encoder, "
           "which its authors evaluate.", r"(module\.)?", ("target_encoder", "encoder"),
           ("predictor.module.predictor_pos_embed", "predictor.predictor_pos_embed"), (OWN,),
           first="momentum"),
    Layout("moco", "MoCo keeps the trained encoder under encoder_q and its moving average under "
           "encoder_k; others call them online and target.",
           rf"(module\.)?(model\.)?(encoder_[qk]|base_encoder|(momentum|online|target)_\w+)\.{_PART}*",
           ("state_dict", "model", "")),
    Layout("dino", "DINO keeps a teacher, which its authors evaluate, and a student.",
           r"(module\.)?((teacher|student)(_backbone)?\.)?(module\.)?(model\.)?(backbone\.)?",
           ("teacher", "student", "state_dict", "model", ""),
           ("teacher", "student", "state_dict.teacher", "state_dict.teacher_backbone")),
    Layout("ema", "The file keeps a moving average (EMA) of the weights.",
           rf"(module\.)*((ema|model_ema|ema_model|ema_backbone)\.)?(module\.)*{_PART}*",
           marks=_EMA + tuple(f"state_dict.{each}" for each in _EMA)),
    Layout("openmmlab", "OpenMMLab keeps meta beside state_dict, and backbone, neck, head.",
           r"(module\.)?(backbone|encoder|momentum_encoder\.module\.0)\.", ("state_dict",),
           ("meta",), (OWN,)),
    Layout("lightning", "Lightning keeps state_dict beside its version, hyper-parameters and loop "
           "state.", r"([A-Za-z]\w*\.){0,4}", ("state_dict",),
           ("pytorch-lightning_version", "hyper_parameters", "global_step")),
    Layout("ddp", "DistributedDataParallel puts module. before every key.",
           rf"(module\.)+{_PART}*", ("", *_CONTAINERS)),
    Layout("container", "A training script keeps the weights under one key of a dict.",
           rf"{_PART}*", _CONTAINERS),
    Layout("bare", "The file is the encoder's state dict itself.", rf"{_PART}*", ("",)),
    Layout("other", "No tool is known by this prefix: its keys and shapes alone tell.", r".*"),
)  # fmt: skip


@cache
def layouts() -> tuple[Layout, ...]:
    """Return all rows, those of other packages first."""
    added = []
    for each in outside.added(ENTRY_POINTS).values():
        found = outside.loaded(each)
        if not isinstance(found, Layout):
            raise Refusal(
                f"entry point {each.name} of {ENTRY_POINTS} must be a dimlab.io.layouts.Layout; "
                f"got {type(found).__name__}. Repair or uninstall the package {each.value}."
            )
        added.append(found)
    return (*added, *_TABLE)


def layout_of(
    container: str, prefix: str, spelling: Spelling, marks: set[str], built_by: Layout | None = None
) -> Layout:
    """Return the first row that fits the place of an encoder in a file with these keys."""
    return next(
        each
        for each in layouts()
        if (each is built_by or built_by is None is each.build)
        and ("*" in each.containers or container in each.containers)
        and re.fullmatch(each.prefix, prefix)
        and spelling in each.spellings
        and (not each.marks or not marks.isdisjoint(each.marks))
    )


BRANCHES = {  # from the one taken first; a prefix without any of these words is online
    "teacher": {"teacher", "teacher_backbone", "teacher_encoder"},
    "ema": {*_EMA, "ema_backbone", "ema_encoder", "averaged_model"},
    "online": {"encoder_q", "online", "online_encoder", "online_network", "base_encoder"},
    "student": {"student", "student_backbone", "student_encoder"},
    "momentum": {"encoder_k", "momentum_encoder", "momentum_backbone", "backbone_momentum"}
    | {"target", "target_encoder", "target_network", "momentum", "encoder_momentum"},
    "trial": {"resnet_simsiam_"},
}
RULE = "the branch that its authors evaluate: teacher, moving average, online, student, momentum"


def branch_of(prefix: str) -> str:
    """Say which of several copies of an encoder, a key of `BRANCHES`, stands under a prefix."""
    parts = {part.removesuffix("_state_dict") for part in prefix.split(".")}
    parts |= set(prefix.split("."))
    return next((name for name, words in BRANCHES.items() if words & parts), "online")


# What tensors are for, by their names ------------------------------------------------------------

ROLES = ("encoder", "projector", "head", "mask", "optimiser", "alias", "other")
MASKS = r"(^|\.)(auto_mask\.mask|mask_logits)$"
_PATTERNS = (  # the first that fits anywhere in a key; whole parts of it
    ("optimiser", r"(^|\.)(optimi[sz]er\w*|optim|lr_scheduler\w*|scaler|loss_scaler\w*)\."),
    ("mask", MASKS),
    ("head",
     r"(^|\.)(predict(or|ion)\w*|prototypes?|\w*classifier|\w*probe|online_linear\w*|linear)(\.|$)"),
    ("projector",
     r"(^|\.)(\w*proj(ector|ection)\w*|neck|contrastive|redundancy|\w*mlp_head)(\.|$)"),
    ("projector", r"(^|\.)module\.bn\.|(^|\.)(cl|bl)_mlp\."),
    ("head", r"(^|\.)(fc|\w*head\w*|linear)(\.|$)"),
)  # fmt: skip
_BESIDE = re.compile(  # what training keeps beside an encoder, and no image passes through
    r"queue\w*|memory_bank\w*|center|n_averaged|initted|steps?|epoch|logit_scale|temperature"
    r"|\w*loss\w*|criterion\w*|decoder\w*|mask_token|masked_embed|num_batches_tracked"
)


def role_of(key: str) -> str:
    """Say what a tensor that is not the encoder's is for, one of `ROLES`, by its name."""
    return next((role for role, pattern in _PATTERNS if re.search(pattern, key)), "other")


def is_known_beside(key: str) -> bool:
    """Whether a tensor under an encoder's prefix is known, by its first part, to be none of it."""
    first = key.split(".")[0]
    known = role_of(f"{first}.") != "other" or role_of(key) == "mask"
    return known or _BESIDE.fullmatch(first) is not None


# Networks that dimlab does not build, told by a key: said by name, never loaded ------------------

REMEDY = (
    "Build it with the package or the code that defines it, and call encode_loader(module, "
    "loader), or name a model of timm's with these keys: --encoder timm:NAME."
)
REMEDIES = {
    "a DINOv3": "Name it, as --encoder timm:vit_small_patch16_dinov3_qkvb.",
    "a CLIP": (
        "Name it, as --encoder open_clip:ViT-B-32, or open_clip:ViT-B-32-quickgelu for OpenAI's: "
        "no weights show the activation."
    ),
    "a vision transformer of transformers": "Name its folder: config.json must lie beside it.",
    "a ResNet of transformers": "Name its folder: config.json must lie beside it.",
}
_FAMILIES = (
    ("a DINOv3", r"(storage_tokens|rope_embed\.periods)$"),
    ("a CLIP", r"(transformer\.resblocks\.\d+\.|attnpool\.\w+_proj\.)"),
    ("a ConvNeXt", r"stages\.\d+\.(blocks\.\d+\.conv_dw|\d+\.dwconv)\."),
    ("a ConvNeXt", r"features\.\d+\.\d+\.layer_scale$"),
    ("a Swin transformer", r"(layers|features)\.[\w.]*relative_position_bias_table$"),
    ("a BEiT or EVA", r"blocks\.\d+\.attn\.(relative_position_bias_table|q_bias)$"),
    ("a Swin transformer", r"layers\.\d+\.blocks\.\d+\.norm1\."),
    (
        "a vision transformer of transformers",
        r"embeddings\.(patch_embeddings\.(projection\.)?|patch_embedding\.)(weight|bias)$",
    ),
    ("a ResNet of transformers", r"embedder\.embedder\.convolution\."),
    ("a vision transformer of torchvision", r"encoder\.layers\.encoder_layer_\d+\."),
    ("a DenseNet", r"denseblock\d+\.denselayer\d+\."),
    ("an EfficientNet or MobileNet of timm", r"blocks\.\d+\.\d+\.(conv_dw|conv_pw)\."),
    ("an EfficientNet or MobileNet", r"features\.\d+\.(\d+\.block|conv)\.\d+\."),
    ("a RegNet", r"(trunk_output\.block\d|s1\.b1\.conv1\.)"),
    ("a ResNet of detectron2", r"(stem\.conv1\.norm|res2\.0\.conv1)\."),
    ("a ResNet with squeeze-and-excitation", r"layer\d\.\d+\.se(_module|_layer)?\."),
    ("a VGG or AlexNet", r"features\.0\.weight$"),
)
_INNER = re.compile(r"^(.*\.)?\d+\.0\.conv2\.weight$|^(.*\.)?layer1\.0\.conv2\.weight$")


def remedy_of(family: str) -> str:
    """Say what to do with a network of a family that `looks_like` names."""
    return next((each for name, each in REMEDIES.items() if family.startswith(name)), REMEDY)


def looks_like(shapes: Mapping[str, Shape]) -> str | None:
    """Name the family of a network that dimlab does not build, with a key that tells it."""
    for key, shape in shapes.items():
        if key.endswith("patch_embed.proj.weight") and len(shape) == 5:  # over frames too
            return f"a transformer of video, whose patches have three sides (by {key!r})"
        before = shapes.get(key.replace("conv2.weight", "conv1.weight"), ())
        if _INNER.match(key) and len(shape) == len(before) == 4 and before[0] == shape[0]:
            groups = before[0] // max(shape[1], 1)  # inputs of a block's second convolution
            if groups > 1:
                return f"a ResNeXt of {groups} groups (by {key!r})"
    for name, pattern in _FAMILIES:
        known = re.compile(rf"(^|\.){pattern}")
        found = next((key for key in shapes if known.search(key)), None)
        if found is not None:
            return f"{name} (by {found!r})"
    return None
