"""Torch and safetensors files of anyone's become named tensors; no code in them is run unasked.

A file is opened once: the zip archive, the pickle and the tensors are read through the same open
file, and tensors are memory-mapped where the format allows it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dimlab.io.files import (
    DAMAGED,
    check_fits,
    in_folder,
    is_distributed,
    open_tensors,
    reason_of,
)
from dimlab.io.harmless import ALLOWED, Array
from dimlab.refusals import Refusal

FLAG = "trust_pickle=True (--trust-pickle)"
_VERSIONS = (
    *("pytorch-lightning_version", "torch_version", "version", "mmengine_version"),
    *("mmcv_version", "torch", "dimlab", "python", "numpy"),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")
_MOST, _DEEPEST = 1 << 20, 200  # containers of a file, one within the other
_INNER = (Tensor, Mapping, list, tuple, np.ndarray, Array, Namespace)


@dataclass(frozen=True, eq=False)
class Opened:
    """Tensors of a file (nested names joined by dots), and the numbers and text beside them."""

    kind: str  # torch or safetensors
    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)
    containers: tuple[str, ...] = ("",)  # names of the mappings; "" is the file itself

    @property
    def marks(self) -> set[str]:
        """Every name in the file, and everything that stands before a dot."""
        names = {*self.tensors, *self.values, *self.containers}
        return names | {name[:at] for name in names for at, each in enumerate(name) if each == "."}

    @property
    def versions(self) -> dict[str, str]:
        """Versions that the file records of the software that wrote it."""
        last = {name.rsplit(".", 1)[-1]: value for name, value in self.values.items()}
        return {name: str(last[name]) for name in _VERSIONS if isinstance(last.get(name), str)}


def fault_of(tensor: Tensor, *, counts: bool = False) -> str | None:
    """Say what keeps a tensor from being dense floating point of 16, 32 or 64 bit (or a count)."""
    if tensor.is_quantized:
        return "quantised numbers"
    if tensor.layout is not torch.strided:
        return "a sparse tensor"
    if tensor.is_meta:
        return "a shape without values (meta)"
    if tensor.dtype in _FLOATS or (counts and tensor.dtype in _WHOLE):
        return None
    return str(tensor.dtype).removeprefix("torch.")


def open_weights(path: Path, *, trust_pickle: bool = False) -> Opened:
    """Open a file of weights, told by its content; ``trust_pickle`` runs code that it asks for."""
    check_file(path)
    with path.open("rb") as file:
        if is_safetensors(file):
            return open_safetensors(path)
        return opened(path, read_weights(path, file, trust_pickle=trust_pickle))


def check_file(path: Path) -> None:
    """Refuse a path that is no file; explain how a checkpoint in parts becomes one file."""
    if path.is_file():
        return
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoint must be a file; got {path}, which is not there.")
    if is_distributed(path):
        raise Refusal(f"checkpoint must be one file; got {in_folder(path)}")
    parts = [each.name for each in path.iterdir() if _SHARD.search(each.name)]
    if parts:
        raise Refusal(
            f"checkpoint must be one file; got {path}, a folder with {len(parts)} parts of one, as "
            f"{min(parts)}. Load it with the package that wrote it, and save "
            "module.state_dict() in one file."
        )
    raise FileNotFoundError(f"checkpoint must be a file; got {in_folder(path)}")


def is_safetensors(file: BinaryIO) -> bool:
    """Whether an open file begins as safetensors do."""
    file.seek(0)
    return file.read(9)[8:] == b"{"


def open_safetensors(path: Path) -> Opened:
    """Map the tensors of a safetensors file; ``values`` is the text beside them."""
    return Opened("safetensors", *open_tensors(path))


def read_weights(path: Path, file: BinaryIO, *, trust_pickle: bool = False) -> Any:
    """Read an open torch file of anyone's; ``trust_pickle`` runs code that it asks for."""
    file.seek(0)
    head = file.read(8)
    if head[:2] not in (b"PK", b"\x80\x02", b"\x80\x04") and path.suffix != ".tar":
        what = f"one that begins with {head.decode('latin-1')!r}" if head else "an empty one"
        raise Refusal(f"{path.name} must be a torch or safetensors file; got {what}.")
    return read_torch(path, file, trust_pickle=trust_pickle)


def opened_file(path: Path) -> BinaryIO:
    """Open a file that must be there."""
    check_file(path)
    return path.open("rb")


def read_torch(path: Path, file: BinaryIO, *, trust_pickle: bool | None = None) -> Any:
    """Read an open torch file; None says that the user cannot be offered to trust it."""
    if _is_archive(file):
        check_archive(path, file)
    try:
        _refuse_bytearrays(file)
        payload = _loaded(path, file, weights_only=True)
    except pickle.UnpicklingError as error:
        asked = _asked_for(file)
        if trust_pickle:
            return _load_trusted(path, file, asked)
        offer = "Save its tensors again." if trust_pickle is None else (
            f"If you trust who wrote it, pass {FLAG}."
        )  # fmt: skip
        raise Refusal(
            f"{path.name} must hold only tensors and plain containers; got a pickle that asks for "
            f"{asked}, and dimlab runs no code from a file. {offer}"
        ) from error
    except DAMAGED as error:
        raise Refusal(
            f"{path.name} must be a complete torch file; got a damaged one ({reason_of(error)})."
        ) from error
    tensors = [each for _, each in walk(path, payload) if isinstance(each, Tensor)]
    check_fits(path, sum(each.numel() * each.element_size() for each in tensors))
    return payload


def _load_trusted(path: Path, file: BinaryIO, asked: str) -> Any:
    warnings.warn(
        f"{path.name} asked for {asked}, and was trusted: code in it was run.",
        UserWarning,
        stacklevel=5,
    )
    try:
        payload = _loaded(path, file, weights_only=False)
        if callable(getattr(payload, "state_dict", None)):
            payload = payload.state_dict()
        for _ in walk(path, payload):  # classes of the file run code when they are asked, too
            pass
        return payload
    except Refusal:
        raise
    except ImportError as error:
        raise Refusal(
            f"{path.name} needs the package {error.name!r}, which its pickle asks for. Install it."
        ) from error
    except Exception as error:  # code of the file may raise anything
        raise Refusal(
            f"{path.name} must be a complete torch file; got one whose pickle fails "
            f"({reason_of(error)})."
        ) from error


def _asked_for(file: BinaryIO) -> str:
    """Say what a pickle asks for beyond what is allowed, without running it."""
    try:
        file.seek(0)
        with torch.serialization.safe_globals(ALLOWED):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # an old format, which torch does not list
        names = []
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "Python objects"


def _is_archive(file: BinaryIO) -> bool:
    """Whether an open file begins as torch tells a zip archive."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head == b"PK\x03\x04"


def _loaded(path: Path, file: BinaryIO, *, weights_only: bool) -> Any:
    """Call torch.load on an open file, mapped: no tensor can reach beyond what the file holds."""
    is_archive = _is_archive(file)
    place = f"/dev/fd/{file.fileno()}"  # torch maps named files only; this is the open one's
    source = (place if os.path.exists(place) else path) if is_archive else file
    with warnings.catch_warnings(), torch.serialization.safe_globals(ALLOWED):
        warnings.simplefilter("ignore")  # every refusal is one sentence of our own
        return torch.load(source, map_location="cpu", weights_only=weights_only, mmap=is_archive)


def check_archive(path: Path, file: BinaryIO, *, checksums: bool = False) -> None:
    """Refuse a zip archive whose members are packed, stand twice, or are damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise zipfile.BadZipFile("a name stands twice")
            packed = [
                entry.filename
                for entry in entries
                if entry.compress_type or entry.flag_bits & 1
                or entry.file_size != entry.compress_size
            ]  # fmt: skip
            damaged = packed[0] if packed else archive.testzip() if checksums else None
    except DAMAGED as error:
        raise Refusal(
            f"{path.name} must be a complete torch file; got a damaged one ({reason_of(error)})."
        ) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise Refusal(
            f"{path.name} must hold only tensors and plain containers; got a TorchScript program. "
            f"Save its weights: torch.save(torch.jit.load({path.name!r}).state_dict(), "
            "'weights.pth')."
        )
    if damaged is not None:
        raise Refusal(
            f"{path.name} must hold its parts whole and unpacked; got {damaged!r} otherwise."
        )


def _refuse_bytearrays(file: BinaryIO) -> None:
    """Refuse ``bytearray(n)``, which torch allows: it takes n bytes, whatever the file's size."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for module in (b"builtins", b"__builtin__"):
            if content.find(b"c" + module + b"\nbytearray\n") >= 0:
                raise pickle.UnpicklingError("bytearray")


def opened(path: Path, payload: Any) -> Opened:
    """Name the tensors and values in nested mappings, lists and trusted modules."""
    nodes = list(walk(path, payload))
    if not isinstance(payload, (Mapping, list, tuple)):
        raise Refusal(
            f"{path.name} must hold a mapping of names to tensors; got {type(payload).__name__}."
        )
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    containers = [""]
    for name, value in nodes:
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        if isinstance(value, (Mapping, Namespace)) and name:
            containers.append(name)
        elif isinstance(value, Tensor):
            if name in tensors:
                raise Refusal(
                    f"{path.name} must name its tensors differently; got two called {name!r}, one "
                    "of them with the dots in its own name. Save the state dict alone."
                )
            tensors[name] = value.detach()
        elif isinstance(value, (bool, int, float, str)):
            values[name] = value
    return Opened("torch", tensors, values, tuple(containers))


def walk(
    path: Path, payload: Any, together: Callable[[Any], Any] = lambda node: node
) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of nested containers, with dotted names; ``together`` may replace each."""
    # sixty containers, each twice within the next, are a small file and a walk through 2^60
    waiting, n_containers = [("", payload, 0)], 0
    while waiting:
        name, node, depth = waiting.pop()
        node = together(unwrapped(node))
        yield name, node
        if isinstance(node, (Mapping, Namespace)):
            inner = list((node if isinstance(node, Mapping) else vars(node)).items())
        elif isinstance(node, (list, tuple)) and any(isinstance(each, _INNER) for each in node):
            inner = list(enumerate(node))
        else:
            continue
        n_containers += 1
        if n_containers > _MOST or depth > _DEEPEST:
            raise Refusal(
                f"{path.name} must hold at most {_MOST} containers, at most {_DEEPEST} deep; got "
                "more, or one within itself."
            )
        waiting += [
            (f"{name}.{key}" if name else str(key), each, depth + 1) for key, each in inner[::-1]
        ]


def unwrapped(node: Any) -> Any:
    """Return what a stand-in, a trusted module or an array of Python objects holds."""
    if isinstance(node, torch.nn.Module):  # trusted by now
        return node.state_dict()
    if isinstance(node, Array):
        node = node.array
    return node.tolist() if isinstance(node, np.ndarray) and node.dtype.hasobject else node
