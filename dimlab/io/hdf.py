"""HDF5 files of arrays: plain ones, those with one group a sample, and AnnData's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dimlab.io.arrays import Arrays
from dimlab.io.files import DAMAGED, check_fits, reason_of
from dimlab.io.nested import arrays_in, of_named_vectors
from dimlab.io.tables import ending_of
from dimlab.refusals import Refusal

_SPARSE = ("csr_matrix", "csc_matrix")  # as AnnData calls them


def read_hdf(path: Path, file: BinaryIO) -> Arrays:
    """Read the datasets of an open HDF5 file; of an AnnData file X, obsm and obs."""
    try:
        import h5py
    except ImportError as error:
        raise Refusal(
            f'{path.name} needs h5py to be read; got none. Run pip install "dimlab[h5]", or save a '
            ".npz."
        ) from error
    is_anndata = ending_of(path) == ".h5ad"
    try:
        with h5py.File(file, "r") as tree:
            names: list[str] = []
            tree.visit(names.append)  # which follows no links out of the file
            nodes = {name: tree[name] for name in names if not is_anndata or _is_of_samples(name)}
            sizes = (each.nbytes for each in nodes.values() if isinstance(each, h5py.Dataset))
            check_fits(path, sum(sizes))
            return _of_anndata(nodes) if is_anndata else _plain(path, nodes)
    except DAMAGED as error:
        if isinstance(error, Refusal):
            raise
        raise Refusal(
            f"{path.name} must be a complete HDF5 file; got a damaged one ({reason_of(error)})."
        ) from error


def _is_group(node: Any) -> bool:
    return isinstance(node, Mapping)


def _values(node: Any, name: str) -> Any:
    """Return the numbers or text of a dataset."""
    import h5py

    if node.external or node.is_virtual:
        raise Refusal(f"{name!r} must stand in the file; got a reference.")
    if h5py.check_string_dtype(node.dtype):
        text = node.asstr()[()]
        return np.asarray(text, dtype=np.str_) if node.shape else str(text)
    if node.dtype.kind in "OV":
        raise Refusal(f"{name!r} must hold numbers or text.")
    return node[()]


def _plain(path: Path, nodes: Mapping[str, Any]) -> Arrays:
    """Name the arrays of groups within groups; a group may be a sample, with what it holds."""
    root: dict[str, Any] = {}
    unusable: dict[str, str] = {}
    for name, node in nodes.items():
        *above, last = name.split("/")
        inside = root
        for each in above:
            inside = inside[each]
        try:
            inside[last] = _attributes(node) if _is_group(node) else _values(node, name)
        except Refusal as error:
            unusable[name.replace("/", ".")] = str(error)
    found = of_named_vectors(arrays_in(path, root))
    found.unusable |= unusable
    return found


def _attributes(group: Any) -> dict[str, Any]:
    """Return what a group says of itself in single values, such as the label of a sample."""
    plain = (str, int, float, np.integer, np.floating)
    return {name: each for name, each in group.attrs.items() if isinstance(each, plain)}


# AnnData ------------------------------------------------------------------------------------------


def _is_of_samples(name: str) -> bool:
    return name.split("/")[0] in ("X", "obsm", "obs")


def _of_anndata(nodes: Mapping[str, Any]) -> Arrays:
    """Return X, obsm and the columns of obs; X holds no features where obsm does."""
    found = Arrays({})
    parts = {f"obsm.{name}": each for name, each in nodes.get("obsm", {}).items()}
    parts |= {("X.matrix" if parts else "X"): nodes["X"]} if "X" in nodes else {}
    parts |= _columns(nodes["obs"]) if "obs" in nodes else {}
    for name, node in parts.items():
        try:
            found[name] = _element(node, name)
        except Refusal as error:
            found.unusable[name] = str(error)
    return found


def _columns(obs: Any) -> dict[str, Any]:
    """Return the columns of a table, and its index, which is called id."""
    index = str(obs.attrs.get("_index", "_index"))
    return {
        "obs.id" if name == index else f"obs.{name}": each
        for name, each in obs.items()
        if name != "__categories"
    }


def _element(node: Any, name: str) -> np.ndarray:
    """Return an array as one of the encodings of AnnData holds it."""
    if not _is_group(node):
        values = np.asarray(_values(node, name))
        known = node.parent.get("__categories", {})  # as AnnData wrote them before 0.8
        short = node.name.rsplit("/", 1)[-1]
        return _of_codes(values, known[short], name) if short in known else values
    if "codes" in node and "categories" in node:
        return _of_codes(_element(node["codes"], name), node["categories"], name)
    kind = str(node.attrs.get("encoding-type", ""))
    if kind in _SPARSE:
        raise Refusal(
            f"{name!r} must be a dense matrix; got a sparse one ({kind}). Use what a model made of "
            "it, in obsm, or save X.toarray()."
        )
    if kind == "dataframe":
        columns = [_element(node[each], name) for each in node.attrs["column-order"]]
        if any(each.dtype.kind not in "fiub" for each in columns):
            raise Refusal(f"{name!r} must hold columns of numbers; got text.")
        return np.stack(columns, axis=1)
    if "values" in node and "mask" in node:
        if np.any(node["mask"]):
            raise _gap(name)
        return np.asarray(_values(node["values"], name))
    raise Refusal(f"{name!r} must hold numbers or text; got {kind or 'a group'}.")


def _of_codes(codes: np.ndarray, categories: Any, name: str) -> np.ndarray:
    known = _element(categories, name)
    if codes.size and (codes.min() < 0 or codes.max() >= len(known)):
        raise _gap(name)
    return known[codes]


def _gap(name: str) -> Refusal:
    return Refusal(f"{name!r} must be there for every row; got a gap.")
