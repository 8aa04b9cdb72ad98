"""The file of a result: a tree of names and numbers in JSON, and the arrays beside it."""

from __future__ import annotations

import importlib
import io
import json
import os
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import DAMAGED, json_of, read_npz, replacing
from dimlab.refusals import Refusal, WrongType

FORMAT = "dimlab-result-1"
SUFFIX = ".result.npz"
OURS = (
    "dimlab.probes.", "dimlab.baselines", "dimlab.mask", "dimlab._locate", "dimlab.answers"
)  # fmt: skip
LOADED: dict[str, type] = {}  # classes of results, those of other packages too, by `path_of`


def save_result(path: str | os.PathLike[str], result: Any) -> Path:
    """Write a result of dimlab's to a file that ends in ``.result.npz``."""
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise Refusal(f"path must end in {SUFFIX}; got {path.name!r}.")
    content = result_bytes(result)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def result_bytes(result: Any) -> bytes:
    """Return what `save_result` writes: the same result gives the same bytes."""
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps({"format": FORMAT, "result": _to_tree(result, arrays)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {"tree": np.array(tree), **arrays}.items():
            # a fixed date, so that the time of day does not change the bytes
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def load_result(path: str | os.PathLike[str]) -> Any:
    """Read a result that `save_result` wrote; no code in the file is ever run."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"result must be a file; got {path}, which is not there.")
    try:
        arrays = read_npz(path)
        tree = json_of(str(arrays.pop("tree")))
        if tree["format"] != FORMAT:
            raise Refusal(tree["format"])
        return _from_tree(tree["result"], arrays)
    except DAMAGED as error:
        raise Refusal(
            f"{path.name} must be a whole result of this version of dimlab; got a damaged or other "
            "one. Measure it again."
        ) from error


def path_of(kind: type) -> str:
    """Return the name under which a file knows a class."""
    return f"{kind.__module__}:{kind.__name__}"


def _class_named(name: str) -> type:
    """Find a class of results that is loaded, or one of dimlab's own."""
    if name in LOADED:
        return LOADED[name]
    module, _, own = name.partition(":")
    if not module.startswith(OURS):
        raise Refusal(module)
    kind = getattr(importlib.import_module(module), own)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise Refusal(name)
    return kind


def _to_tree(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a value into JSON; arrays are set aside under the names that stand in their places."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        if not (path_of(kind) in LOADED or kind.__module__.startswith(OURS)):
            raise WrongType(f"result must be made by dimlab; got {kind.__name__}.")
        named = {each.name: _to_tree(getattr(value, each.name), arrays) for each in fields(value)}
        return {"class": path_of(kind), "fields": named}
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        return _to_tree(value.item(), arrays)
    if isinstance(value, (tuple, list)):
        kind_name = "tuple" if isinstance(value, tuple) else "list"
        return {kind_name: [_to_tree(each, arrays) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_tree(k, arrays), _to_tree(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise WrongType(f"result must hold arrays, numbers and text; got {type(value).__name__}.")


def _from_tree(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "class" in tree:
        named = {key: _from_tree(each, arrays) for key, each in tree["fields"].items()}
        return _class_named(tree["class"])(**named)
    if "array" in tree:
        return arrays[tree["array"]]
    if "tuple" in tree:
        return tuple(_from_tree(each, arrays) for each in tree["tuple"])
    if "list" in tree:
        return [_from_tree(each, arrays) for each in tree["list"]]
    return {_from_tree(k, arrays): _from_tree(v, arrays) for k, v in tree["dict"]}
