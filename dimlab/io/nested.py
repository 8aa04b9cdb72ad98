"""Arrays in nested containers of files: batches, one record a sample, named vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimlab.io.arrays import Arrays, of_named_vectors, plain
from dimlab.io.harmless import Array
from dimlab.io.unpickle import unwrapped, walk
from dimlab.names import FEATURES, SPLIT_WORDS

_FEWEST = 2  # parts that are put together


def arrays_in(path: Path, payload: Any) -> Arrays:
    """Name the tensors, and lists of numbers or text, in nested containers."""
    found, payload = Arrays({}), unwrapped(payload)
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
    rows = _tuples_by_place(node)
    if all(isinstance(each, Mapping) and each and set(each) == set(rows[0]) for each in rows):
        columns = {name: [_plain(each[name]) for each in rows] for name in rows[0]}
        in_batches = any(_ndim(column[0]) == 2 for column in columns.values())
        joined = {name: _joined(column, in_batches) for name, column in columns.items()}
        return node if any(each is None for each in joined.values()) else joined
    parts = [_plain(each) for each in node]
    is_arrays = isinstance(parts[0], np.ndarray)
    found = _joined(parts, parts[0].ndim == 2) if is_arrays else None
    return node if found is None else found


def _tuples_by_place(node: list[Any]) -> list[Any]:
    """Return pairs of a vector, or of a batch, and its labels as mappings; else the list."""
    firsts = [_plain(each[0]) for each in node if isinstance(each, tuple) and each]
    if len(firsts) < len(node) or {_ndim(each) for each in firsts} not in ({1}, {2}):
        return node
    sizes = [len(each) for each in firsts]
    is_cut = len(node) > _FEWEST and len({*sizes[:-1]}) == 1 and sizes[-1] <= sizes[0]
    if firsts[0].ndim > 1 and not is_cut:
        return node  # perhaps one tuple a split
    return [{str(place): part for place, part in enumerate(each)} for each in node]


def _of_named_records(node: Mapping[Any, Any]) -> Any:
    """Return records by the names of their samples as columns; else the mapping as it is."""
    rows = list(node.values())
    is_named = isinstance(rows[0], Mapping) and {*node}.isdisjoint(SPLIT_WORDS)
    names = [name for name in rows[0] if plain(str(name)) in FEATURES] if is_named else []
    if not names or not all(isinstance(each, Mapping) for each in rows):
        return node
    vectors = [_vector(_plain(each.get(names[0]))) for each in rows]
    if any(each is None for each in vectors):
        return node
    found = _together(
        [{**row, names[0]: vector} for row, vector in zip(rows, vectors, strict=True)]
    )
    return found | {"file": [str(name) for name in node]} if isinstance(found, dict) else node


def _vector(each: Any) -> np.ndarray | None:
    """Return a vector, or the only row of a matrix; None of anything else."""
    if _ndim(each) == 2 and len(each) == 1:
        return each[0]
    return each if _ndim(each) == 1 else None


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
