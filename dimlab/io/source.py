"""What a file is: looked at and opened once, at the door, and passed on as a value."""

from __future__ import annotations

import glob
import hashlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dimlab.io.arrays import (
    ENDINGS,
    TABLES,
    TORCH,
    Arrays,
    is_usual,
    plain,
    read_arrays,
)
from dimlab.io.blueprints import TIMM
from dimlab.io.features import FeatureFile
from dimlab.io.files import as_arrays, mapped
from dimlab.io.folders import folder_at
from dimlab.io.nested import arrays_in
from dimlab.io.tables import ending_of
from dimlab.io.unpickle import (
    Opened,
    check_file,
    is_safetensors,
    open_safetensors,
    opened,
    read_weights,
)
from dimlab.mask import MaskTrace, trace_in
from dimlab.moments import FORMAT as MOMENTS
from dimlab.moments import moments_in
from dimlab.training.checkpoint import checkpoint_in, has_format

Kind = Literal["checkpoint", "features", "moments", "table", "trace", "weights"]
Content = tuple[Kind, Any]
ARRAYS = {*ENDINGS} - {".safetensors", *TORCH}  # endings of files that hold no weights


@dataclass(frozen=True, eq=False)
class Source:
    """A file and what it holds, by its kind."""

    path: Path
    kind: Kind
    value: Any  # Checkpoint, FeatureFile, Moments, MaskTrace, Opened, EncoderFolder; None: fetched
    content: tuple[mmap.mmap | bytes, ...] = field(default=(), repr=False)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the bytes that were read, hexadecimal; None for what is no file."""
        found = hashlib.sha256()
        for each in self.content:
            found.update(each)
        return None if self.value is None else found.hexdigest()


def open_source(
    path: Path,
    *,
    trust_pickle: bool = False,
    own: bool = True,
    as_weights: bool = False,
    as_features: bool = False,
) -> Source:
    """Open a file and tell what it is."""
    # own=False takes checkpoints of dimlab as named tensors, as_weights and as_features whatever
    # there is
    if str(path).startswith(TIMM):
        return Source(path, "weights", None)
    folder = None if as_features else folder_at(path)
    if folder is not None:
        return Source(path, "weights", folder, folder.content)
    if not as_weights and _holds_arrays(path):
        arrays, content = read_arrays(path)
        return Source(path, *_in_arrays(path, arrays), tuple(content))
    check_file(path)
    with path.open("rb") as file:
        kind: Kind
        if ending_of(path) == ".safetensors" or is_safetensors(file):
            found = open_safetensors(path)
            kind, value = ("weights", found) if as_weights else _in_safetensors(path, found)
        else:
            payload = read_weights(path, file, trust_pickle=trust_pickle)
            if as_weights:
                kind, value = "weights", opened(path, payload)
            elif own and has_format(payload):
                kind, value = "checkpoint", checkpoint_in(path, file, payload)
            else:
                kind, value = _in_torch(path, payload, as_features)
        return Source(path, kind, value, (mapped(file),))


def _holds_arrays(path: Path) -> bool:
    """Whether a name is of arrays that are no weights: by its ending, or as it means shards."""
    if path.is_dir():
        return any(any(path.glob(f"{folder}data-*.arrow")) for folder in ("", "*/"))
    endings = {ending_of(path), ending_of(path.with_suffix(""))}  # perhaps packed
    is_pattern = not path.is_file() and glob.has_magic(str(path))
    return is_pattern or ending_of(path) in ARRAYS or bool(endings & set(TABLES))


def open_table(path: Path, read: Callable[[Path, BinaryIO], Any]) -> Source:
    """Open a file of labels or factors; ``read`` gives its value."""
    if not path.is_file():
        raise FileNotFoundError(f"table must be a file; got {path}, which is not there.")
    with path.open("rb") as file:
        return Source(path, "table", read(path, file), (mapped(file),))


def _in_arrays(path: Path, arrays: Arrays) -> Content:
    """Tell a mask's trace from features."""
    if {"steps", "weights"} <= set(arrays) <= set(MaskTrace.__dataclass_fields__):
        return "trace", trace_in(path, arrays)
    return "features", FeatureFile.of(path, arrays)


def _in_safetensors(path: Path, found: Opened) -> Content:
    """Tell moments, weights and features apart."""
    if any(plain(name) in ("weight", "bias") for name in found.tensors):
        return "weights", found
    arrays = as_arrays(path, found.tensors)
    if found.values.get("format") == MOMENTS:
        return "moments", moments_in(path, arrays, found.values)
    return "features", FeatureFile.of(path, Arrays(arrays), found.values)


def _in_torch(path: Path, payload: Any, as_features: bool) -> Content:
    """Tell features from weights: names of weights, names of features, or a plain matrix."""
    arrays = arrays_in(path, payload)
    if as_features or set(arrays) == {""}:  # a tensor alone is no weights
        return "features", FeatureFile.of(path, arrays)
    if not has_format(payload) and not any(plain(name) in ("weight", "bias") for name in arrays):
        named = any(is_usual(name) for name in (*arrays, *arrays.unusable))
        if named or _are_features(path, arrays):
            return "features", FeatureFile.of(path, arrays)
    return "weights", opened(path, payload)


def _are_features(path: Path, arrays: Arrays) -> bool:
    try:
        return len(FeatureFile.of(path, arrays).layouts()) > 0
    except ValueError:  # tensors that are no arrays: weights, perhaps
        return False
