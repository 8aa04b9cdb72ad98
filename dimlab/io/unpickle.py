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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dimlab.io.files import DAMAGED, check_fits, reason_of
from dimlab.refusals import Refusal

FLAG = "trust_pickle=True (--trust-pickle)"
_VERSIONS = (
    *("pytorch-lightning_version", "torch_version", "version", "mmengine_version"),
    *("mmcv_version", "torch", "dimlab", "python", "numpy"),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")
_MOST, _DEEPEST = 1 << 22, 200  # containers of a file that can be walked through


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
    """Refuse what is no file; of a folder of one checkpoint in parts say how it becomes one."""
    if path.is_file():
        return
    parts = [e.name for e in path.iterdir() if _SHARD.search(e.name)] if path.is_dir() else []
    if parts:
        raise Refusal(
            f"checkpoint must be one file; got {path}, a folder with {len(parts)} parts of one, as "
            f"{min(parts)}. Load it with the package that wrote it, and save "
            "module.state_dict() in one file."
        )
    what = "which is a folder" if path.is_dir() else "which is not there"
    raise FileNotFoundError(f"checkpoint must be a file; got {path}, {what}.")


def is_safetensors(file: BinaryIO) -> bool:
    """Whether an open file begins as safetensors do."""
    file.seek(0)
    return file.read(9)[8:] == b"{"


def read_weights(path: Path, file: BinaryIO, *, trust_pickle: bool = False) -> Any:
    """Read an open torch file of anyone's; ``trust_pickle`` runs code that it asks for."""
    file.seek(0)
    head = file.read(8)
    if head[:2] not in (b"PK", b"\x80\x02", b"\x80\x04") and path.suffix != ".tar":
        what = f"one that begins with {head!r}" if head else "an empty one"
        raise Refusal(f"{path.name} must be a torch or safetensors file; got {what}.")
    _refuse_script(path, file)
    try:
        return read_torch(path, file)
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        asked = _asked_for(file)
        if not trust_pickle:
            raise Refusal(
                f"{path.name} must hold only tensors and plain containers; got a pickle that asks "
                f"for {asked}, and dimlab runs no code from a file. If you trust who wrote it, "
                f"pass {FLAG}."
            ) from error
        return _load_trusted(path, file, asked)


def open_safetensors(path: Path) -> Opened:
    """Map the tensors of a safetensors file; ``values`` is the text beside them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Opened("safetensors", tensors, dict(file.metadata() or {}))
    except (SafetensorError, *DAMAGED) as error:
        raise Refusal(
            f"{path.name} must be a complete safetensors file; got a damaged or truncated one."
        ) from error


def _refuse_script(path: Path, file: BinaryIO) -> None:
    """Say of a compiled program that it is one."""
    try:
        if not zipfile.is_zipfile(file):  # which refuses some damage itself
            return
        with zipfile.ZipFile(file) as archive:
            parts = {name.partition("/")[2].partition("/")[0] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # whoever reads it says what is wrong
    if {"code", "constants.pkl"} <= parts:
        raise Refusal(
            f"{path.name} must hold only tensors and plain containers; got a TorchScript program. "
            f"Save its weights: torch.save(torch.jit.load({path.name!r}).state_dict(), "
            f"'weights.pth')."
        )


def _load_trusted(path: Path, file: BinaryIO, asked: str) -> Any:
    warnings.warn(
        f"{path.name} asked for {asked}, and was trusted: code in it was run.",
        UserWarning,
        stacklevel=4,
    )
    try:
        return _loaded(path, file, weights_only=False)
    except ImportError as error:
        raise Refusal(
            f"{path.name} needs the package {error.name!r}, which its pickle asks for. Install it."
        ) from error
    except Exception as error:  # code of the file may raise anything
        raise _failing(path, error) from error


def _failing(path: Path, error: BaseException) -> Refusal:
    return Refusal(
        f"{path.name} must be a complete torch file; got one whose pickle fails "
        f"({reason_of(error)})."
    )


def _asked_for(file: BinaryIO) -> str:
    """Say what a pickle asks for beyond tensors, without running it."""
    try:
        file.seek(0)
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # an old format, which torch does not list
        names = []
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "Python objects"


def opened(path: Path, payload: Any) -> Opened:
    """Name the tensors and values in nested mappings, lists and (trusted) modules."""
    try:
        if hasattr(payload, "state_dict") and callable(payload.state_dict):
            payload = payload.state_dict()  # a whole module, trusted
    except Exception as error:  # code of the file, or of a class that has changed since
        raise _failing(path, error) from error
    if isinstance(payload, (list, tuple)):
        payload = dict(enumerate(payload))
    check_nesting(path, payload)
    if not isinstance(payload, Mapping):
        raise Refusal(
            f"{path.name} must hold a mapping of names to tensors; got {type(payload).__name__}."
        )
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    containers: list[str] = []
    try:
        nodes = list(_walk(payload, ""))
    except Exception as error:  # code of a module within
        raise _failing(path, error) from error
    for name, value in nodes:
        if isinstance(value, Mapping):
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


def _walk(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Nodes of nested mappings, lists, modules and plain objects, with dotted names."""
    if isinstance(tree, torch.nn.Module):  # trusted by now
        tree = tree.state_dict()
    if isinstance(tree, Mapping):
        yield name, tree
        inner: Any = tree.items()
    elif isinstance(tree, (list, tuple)) and any(
        isinstance(each, (Tensor, Mapping)) for each in tree
    ):
        inner = enumerate(tree)
    elif type(tree).__name__ == "Namespace":  # hyper-parameters of old scripts, trusted by now
        inner = vars(tree).items()
    else:
        yield name, tree
        return
    for key, value in inner:
        yield from _walk(value, f"{name}.{key}" if name else str(key))


def read_torch_file(path: Path) -> Any:
    """Read tensors and plain containers from a torch file of anyone's, all tensors on the CPU."""
    with opened_file(path) as file:
        return read_torch(path, file)


def opened_file(path: Path) -> BinaryIO:
    """Open a file that must be there."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must be a file; got {path}, which is not there.")
    return path.open("rb")


def read_torch(path: Path, file: BinaryIO) -> Any:
    """Read a torch file that is already open."""
    if _is_archive(file):
        check_archive(path, file)
    try:
        _refuse_bytearrays(file)
        payload = _loaded(path, file, weights_only=True)
        n_bytes = sum(each.numel() * each.element_size() for each in _tensors_in(payload))
    except pickle.UnpicklingError as error:
        raise Refusal(
            f"{path.name} must hold only tensors and plain containers; got a pickle that asks "
            "for more, and dimlab runs no code from a file. Save its tensors again."
        ) from error
    except DAMAGED as error:
        raise Refusal(f"{path.name} must be a complete torch file; got a damaged one.") from error
    check_fits(path, n_bytes)
    check_nesting(path, payload)
    return payload


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
    same = place if os.path.exists(place) else path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # every refusal is one sentence of our own
        if is_archive:
            return torch.load(same, map_location="cpu", weights_only=weights_only, mmap=True)
        return torch.load(file, map_location="cpu", weights_only=weights_only)


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
    if damaged is not None:
        raise Refusal(
            f"{path.name} must hold its parts whole and unpacked; got {damaged!r} otherwise."
        )


def _refuse_bytearrays(file: BinaryIO) -> None:
    """Refuse what torch lets through: a ``bytearray(n)`` takes n bytes, whatever the file has."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for module in (b"builtins", b"__builtin__"):
            if content.find(b"c" + module + b"\nbytearray\n") >= 0:
                raise pickle.UnpicklingError("bytearray")


def _tensors_in(payload: Any) -> Iterator[Tensor]:
    """Yield each tensor of nested containers, once for each that holds it."""
    waiting, seen = [payload], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (dict, list, tuple)) and id(each) not in seen:
            seen.add(id(each))
            waiting += each.values() if isinstance(each, dict) else each


def check_nesting(path: Path, payload: Any) -> None:
    """Refuse containers that nobody could walk through: in themselves, too deep, or too many."""
    # sixty containers, each twice within the next, are a small file and a walk through 2^60
    found: dict[int, tuple[int, int]] = {}  # containers that a walk meets in one, and its depth
    waiting: list[tuple[Any, bool]] = [([payload], False)]
    begun: set[int] = set()
    while waiting:
        each, is_done = waiting.pop()
        inner = each.values() if isinstance(each, dict) else each
        parts = [part for part in inner if isinstance(part, (dict, list, tuple))]
        if not is_done:
            if id(each) not in begun:
                begun.add(id(each))
                waiting += [(each, True), *((part, False) for part in parts)]
            continue
        known = [found.get(id(part), (0, _DEEPEST)) for part in parts]  # not yet: it holds itself
        size = len(parts) + sum(n for n, _ in known)
        depth = 1 + max((depth for _, depth in known), default=0)
        if size > _MOST or depth > _DEEPEST:
            raise Refusal(
                f"{path.name} must hold at most {_MOST} containers, at most {_DEEPEST} deep; got "
                "more, or one within itself."
            )
        found[id(each)] = size, depth
