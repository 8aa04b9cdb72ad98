"""What a file is: looked at and opened once, at the door, and passed on as a value."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from dimlab.io.arrays import FEATURES, TABLES, Arrays, arrays_in, plain, read_arrays
from dimlab.io.blueprints import TIMM
from dimlab.io.features import FeatureFile
from dimlab.io.files import as_arrays
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


@dataclass(frozen=True, eq=False)
class Source:
    """A file and what it holds, by its kind."""

    path: Path
    kind: Kind
    value: Any  # Checkpoint, FeatureFile, Moments, MaskTrace or Opened; None: timm fetches it
    content: mmap.mmap | bytes = field(default=b"", repr=False)

    @cached_property
    def digest(self) -> str | None:
        """SHA-256 of the bytes that were read, hexadecimal; None for what is no file."""
        return None if self.value is None else hashlib.sha256(self.content).hexdigest()


def open_source(
    path: Path, *, trust_pickle: bool = False, own: bool = True, as_weights: bool = False
) -> Source:
    """Open a file and tell what it is."""
    # own=False takes checkpoints of dimlab as named tensors, as_weights whatever there is
    if str(path).startswith(TIMM):
        return Source(path, "weights", None)
    ending = ending_of(path)
    is_table = ending in TABLES or ending_of(path.with_suffix("")) in TABLES  # perhaps packed
    if not as_weights and (is_table or ending in (".npz", ".npy")):
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing there"
            raise FileNotFoundError(f"features must be a file; got {path}, {what}.")
        with path.open("rb") as file:
            kind, value = _in_arrays(path, read_arrays(path, file))
            return Source(path, kind, value, _content(file))
    check_file(path)
    with path.open("rb") as file:
        if ending == ".safetensors" or is_safetensors(file):
            found = open_safetensors(path)
            kind, value = ("weights", found) if as_weights else _in_safetensors(path, found)
        else:
            payload = read_weights(path, file, trust_pickle=trust_pickle)
            if as_weights:
                kind, value = "weights", opened(path, payload)
            elif own and has_format(payload):
                kind, value = "checkpoint", checkpoint_in(path, file, payload)
            else:
                kind, value = _in_torch(path, payload)
        return Source(path, kind, value, _content(file))


def open_table(path: Path, read: Callable[[Path, BinaryIO], Any]) -> Source:
    """Open a file of labels or factors; ``read`` gives its value."""
    if not path.is_file():
        raise FileNotFoundError(f"factors must be a table; got {path}, which is not there.")
    with path.open("rb") as file:
        return Source(path, "table", read(path, file), _content(file))


def _content(file: BinaryIO) -> mmap.mmap | bytes:
    """Map an open file, so that its hash is that of what was read."""
    file.seek(0, 2)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""


def _in_arrays(path: Path, arrays: Arrays) -> Content:
    """Tell a mask's trace from features."""
    if {"steps", "weights"} <= set(arrays) <= set(MaskTrace.__dataclass_fields__):
        return "trace", trace_in(path, arrays)
    return "features", FeatureFile.of(path, arrays)


def _in_safetensors(path: Path, found: Opened) -> Content:
    """Tell moments, weights and features apart."""
    if any(plain(name) in ("weight", "bias") for name in found.tensors):
        return "weights", found
    arrays: dict[str, np.ndarray] = as_arrays(path, found.tensors)
    if found.values.get("format") == MOMENTS:
        return "moments", moments_in(path, arrays, found.values)
    return "features", FeatureFile.of(path, Arrays(arrays), found.values)


def _in_torch(path: Path, payload: Any) -> Content:
    """Tell features from weights: names of weights, names of features, or a plain matrix."""
    arrays = arrays_in(payload)
    if not has_format(payload) and not any(plain(name) in ("weight", "bias") for name in arrays):
        named = any(plain(name) in FEATURES for name in (*arrays, *arrays.unusable))
        if named or _are_features(path, arrays):
            return "features", FeatureFile.of(path, arrays)
    return "weights", opened(path, payload)


def _are_features(path: Path, arrays: Arrays) -> bool:
    try:
        return len(FeatureFile.of(path, arrays).layouts()) > 0
    except ValueError:  # tensors that are no arrays: weights, perhaps
        return False
