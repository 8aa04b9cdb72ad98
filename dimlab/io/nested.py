"""Arrays in nested containers of files: batches, one record a sample, named vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimlab.io.arrays import Arrays, plain
from dimlab.io.harmless import Array
from dimlab.io.unpickle import walk
from dimlab.names import FEATURES, LABELS, SPLIT_WORDS

_FEWEST = 2  # parts that are put together
_NO_SAMPLES = (*FEATURES, *LABELS, "weight", "bias", "running_mean", "running_var")


def arrays_in(path: Path, payload: Any) -> Arrays:
    """Name the tensors, and lists of numbers or text, in nested containers."""
    found = Arrays({})
    for name, node in walk(path, payload, _together):
        if isinstance(node, Tensor):
            if node.layout is not torch.strided or node.is_quantized or node.is_meta:
                kind = "quantised" if node.is_quantized else "meta" if node.is_meta else "sparse"
                found.unusable[name] = (
                    f"{name!r} must be a tensor of plain values; got a {kind} one."
                )
                continue
            found[name] = _as_array(node)
        elif isinstance(node, np.ndarray):
            found[name] = node
        elif isinstance(node, (list, tuple)) and node and _is_flat(node):
            found[name] = np.asarray(node)
        elif isinstance(node, (list, tuple)) and node and not _has_parts(node):
            odd = next(each for each in node if not isinstance(each, (str, int, float)))
            found.unusable[name] = f"{name!r} must hold numbers or text; got {type(odd).__name__}."
    is_nested = isinstance(payload, Mapping) and any(
        isinstance(each, (Mapping, list)) and str(name).lower() not in SPLIT_WORDS
        for name, each in payload.items()
    )
    return of_named_vectors(found) if isinstance(payload, Mapping) and not is_nested else found


def _as_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as numpy has it; half precision, which numpy lacks in part, as float32."""
    values = tensor.detach().resolve_conj().cpu()
    narrow = values.is_floating_point() and values.dtype not in (torch.float32, torch.float64)
    return np.asarray((values.float() if narrow else values).numpy())


def _is_flat(node: Any) -> bool:
    return all(isinstance(each, (str, int, float)) for each in node)


def _has_parts(node: Any) -> bool:
    return any(isinstance(each, (Tensor, Mapping, list, tuple, np.ndarray)) for each in node)


def _together(node: Any) -> Any:
    """Put batches, records and vectors of a list together, where they fit; else leave it."""
    if isinstance(node, Mapping) and len(node) >= _FEWEST:
        return _of_named_records(node)
    if not isinstance(node, list) or len(node) < _FEWEST:
        return node
    if all(isinstance(each, Mapping) and each and set(each) == set(node[0]) for each in node):
        columns = {name: [_plain(each[name]) for each in node] for name in node[0]}
        in_batches = any(_ndim(column[0]) == 2 for column in columns.values())
        joined = {name: _joined(column, in_batches) for name, column in columns.items()}
        return node if any(each is None for each in joined.values()) else joined
    parts = [_plain(each) for each in node]
    found = _joined(parts, _ndim(parts[0]) == 2) if _ndim(parts[0]) else None
    return node if found is None else found


def _of_named_records(node: Mapping[Any, Any]) -> Any:
    """Return records by the names of their samples as columns; else the mapping as it is."""
    rows = list(node.values())
    names = [name for name in rows[0] if plain(str(name)) in FEATURES] if (
        isinstance(rows[0], Mapping) and {*node}.isdisjoint(SPLIT_WORDS)
    ) else []  # fmt: skip
    if not names or not all(isinstance(e, Mapping) and _ndim(_plain(e.get(names[0]))) == 1
                            for e in rows):  # fmt: skip
        return node
    found = _together(rows)
    return found | {"file": [str(name) for name in node]} if isinstance(found, dict) else node


def _plain(each: Any) -> Any:
    """Return an array of numbers for what walking would unpack one for."""
    each = each.array if isinstance(each, Array) else each
    is_plain = isinstance(each, Tensor) and each.layout is torch.strided
    return _as_array(each) if is_plain and not (each.is_quantized or each.is_meta) else each


def _ndim(each: Any) -> int:
    return each.ndim if isinstance(each, np.ndarray) else 0


def _joined(parts: list[Any], in_batches: bool) -> Any:
    """Concatenate batches, or stack one value a sample; None where they do not fit."""
    if all(isinstance(each, (str, int, float)) for each in parts):
        return None if in_batches else parts
    if in_batches and all(isinstance(each, list) and _is_flat(each) for each in parts):
        return [value for each in parts for value in each]
    if not all(isinstance(each, np.ndarray) or np.isscalar(each) for each in parts):
        return None
    arrays = [np.asarray(each) for each in parts]
    shapes = {each.shape[1:] if in_batches else each.shape for each in arrays}
    if len(shapes) > 1 or len({each.dtype for each in arrays}) > 1 or (
        in_batches and not all(each.ndim for each in arrays)
    ):  # fmt: skip
        return None
    return np.concatenate(arrays) if in_batches else np.stack(arrays)


def of_named_vectors(found: Arrays) -> Arrays:
    """Make one matrix of a file that maps the name of each sample to its vector."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in found.items():
        first, _, rest = name.partition(".")
        split = first if rest and first.lower() in SPLIT_WORDS else ""
        groups.setdefault(split, {})[rest if split else name] = array
    for vectors in groups.values():
        shapes = {each.shape for each in vectors.values()}
        size = next(iter(shapes)) if len(shapes) == 1 else ()
        if len(vectors) < _FEWEST or len(size) != 1 or size[0] < _FEWEST:
            return found
        if any(plain(name) in _NO_SAMPLES for name in vectors):
            return found
        if any(each.dtype.kind != "f" for each in vectors.values()):
            return found
    made = found.like({})
    for split, vectors in groups.items():
        prefix = f"{split}." if split else ""
        made[f"{prefix}features"] = np.stack(list(vectors.values()))
        made[f"{prefix}file"] = np.array(list(vectors))
    if made:
        n_samples = sum(map(len, groups.values()))
        made.assumed = f"each of its {n_samples} vectors is a sample, and its name a factor 'file'"
    return made
