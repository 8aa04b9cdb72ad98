"""Results on disk, whole: what was measured is drawn again without being measured again."""

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

from dimlab.atomic import replacing
from dimlab.containers import DAMAGED, json_of, read_npz

FORMAT = "dimlab-result-1"
SUFFIX = ".result.npz"
HOUSE = ("dimlab.probes.", "dimlab.baselines", "dimlab.mask", "dimlab.locate")


def save_result(path: str | os.PathLike[str], result: Any) -> Path:
    """Write a result with all its arrays.

    Parameters
    ----------
    path : path
        Ends in ``.result.npz``. Replaced only by a whole new file.
    result : result
        A frozen dataclass of dimlab's, such as `Ablation`.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    TypeError
        If the result, or a part of it, is nothing that dimlab makes.
    ValueError
        If the name has another ending.

    Examples
    --------
    >>> import tempfile
    >>> from dimlab.mask import MaskTrace
    >>> trace = MaskTrace(np.arange(2), np.array([[0.5, 0.5], [0.4, 0.6]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_result(save_result(Path(folder) / "trace.result.npz", trace)).weights[1].tolist()
    [0.4, 0.6]
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"path must end in {SUFFIX}; got {path.name!r}.")
    content = result_bytes(result)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def result_bytes(result: Any) -> bytes:
    """Return what `save_result` writes.

    Parameters
    ----------
    result : result
        A frozen dataclass of dimlab's.

    Returns
    -------
    bytes
        A ``.npz``; the same result gives the same bytes.

    Raises
    ------
    TypeError
        If the result, or a part of it, is nothing that dimlab makes.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps({"format": FORMAT, "result": _to_tree(result, arrays)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {"tree": np.array(tree), **arrays}.items():
            # without the time of day: the same result gives the same bytes
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def load_result(path: str | os.PathLike[str]) -> Any:
    """Read a result that `save_result` wrote; no code in the file is ever run.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    result
        Equal to the one saved.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or of another version of dimlab.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"result must be a file; got {path}, which is not there.")
    try:
        arrays, _ = read_npz(path)
        tree = json_of(str(arrays.pop("tree")))
        if tree["format"] != FORMAT:
            raise ValueError(tree["format"])
        return _from_tree(tree["result"], arrays)
    except DAMAGED as error:
        raise ValueError(
            f"{path.name} must be a whole result of this version of dimlab; got a damaged or other "
            "one. Measure it again."
        ) from error


def _to_tree(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a value; arrays are set aside under the names that stand in their places."""
    if is_dataclass(value) and not isinstance(value, type):
        if not type(value).__module__.startswith(HOUSE):
            raise TypeError(f"result must be made by dimlab; got {type(value).__name__}.")
        named = {each.name: getattr(value, each.name) for each in fields(value)}
        return {
            "class": f"{type(value).__module__}:{type(value).__name__}",
            "fields": {name: _to_tree(each, arrays) for name, each in named.items()},
        }
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.generic):
        return _to_tree(value.item(), arrays)
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_to_tree(each, arrays) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_tree(k, arrays), _to_tree(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"result must hold arrays, numbers and text; got {type(value).__name__}.")


def _from_tree(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "class" in tree:
        module, _, name = tree["class"].partition(":")
        if not module.startswith(HOUSE):
            raise ValueError(module)
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise ValueError(name)
        return kind(**{key: _from_tree(each, arrays) for key, each in tree["fields"].items()})
    if "array" in tree:
        return arrays[tree["array"]]
    if "tuple" in tree:
        return tuple(_from_tree(each, arrays) for each in tree["tuple"])
    if "list" in tree:
        return [_from_tree(each, arrays) for each in tree["list"]]
    return {_from_tree(k, arrays): _from_tree(v, arrays) for k, v in tree["dict"]}
