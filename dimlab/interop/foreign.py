"""Networks that dimlab does not build, told by their keys: said by name, never loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dimlab.interop.layouts import Shape

REMEDY = (
    "Encode with the package that built it and encode_loader(module, loader), or name a model of "
    "timm's with these keys: --encoder timm:NAME."
)
_FAMILIES = (  # what it is, and a key that only it has
    ("a CLIP, or a tower of one", r"(transformer\.resblocks\.\d+\.|attnpool\.\w+_proj\.)"),
    ("a ConvNeXt", r"stages\.\d+\.(blocks\.\d+\.conv_dw|\d+\.dwconv)\."),
    ("a ConvNeXt", r"features\.\d+\.\d+\.layer_scale$"),
    ("a Swin transformer", r"relative_position_bias_table$"),
    ("a Swin transformer", r"layers\.\d+\.blocks\.\d+\.norm1\."),
    ("a vision transformer of transformers", r"embeddings\.patch_embeddings\.projection\."),
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
_FRAMES = 5  # sizes of a convolution over frames, rows and columns


def looks_like(shapes: Mapping[str, Shape]) -> str | None:
    """Name the family of a network that dimlab does not build.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Keys of the file, without wrappers.

    Returns
    -------
    str or None
        In words, with a key that tells it; None for what is not known.

    Examples
    --------
    >>> looks_like({"visual.attnpool.q_proj.weight": (8, 8)})
    "a CLIP, or a tower of one (by 'visual.attnpool.q_proj.weight')"
    >>> looks_like({"layer1.0.conv1.weight": (128, 64, 1, 1),
    ...             "layer1.0.conv2.weight": (128, 4, 3, 3)})
    "a ResNeXt of 32 groups (by 'layer1.0.conv2.weight')"
    """
    for key, shape in shapes.items():
        if key.endswith("patch_embed.proj.weight") and len(shape) == _FRAMES:
            return f"a transformer of video, whose patches have three sides (by {key!r})"
        groups = _groups(key, shapes)
        if groups > 1:
            return f"a ResNeXt of {groups} groups (by {key!r})"
    for name, pattern in _FAMILIES:
        known = re.compile(rf"(^|\.){pattern}")
        found = next((key for key in shapes if known.search(key)), None)
        if found is not None:
            return f"{name} (by {found!r})"
    return None


def _groups(key: str, shapes: Mapping[str, Shape]) -> int:
    """Count the groups of a block's second convolution: its inputs in the first's outputs."""
    before = shapes.get(key.replace("conv2.weight", "conv1.weight"), ())
    if not _INNER.match(key) or len(shapes[key]) != 4 or len(before) != 4:
        return 1
    return before[0] // max(shapes[key][1], 1) if before[0] == shapes[key][0] else 1
