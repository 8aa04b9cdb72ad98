"""A file of weights becomes named tensors, read from the disk only where they are looked at."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimlab.containers import reason_of
from dimlab.training.checkpoint import check_nesting, read_torch_file

_DAMAGED = (  # what reading noise as a torch file can raise
    *(RuntimeError, EOFError, OSError, ValueError, KeyError),
    *(IndexError, AttributeError, TypeError, AssertionError),
)
_VERSIONS = (
    *("pytorch-lightning_version", "torch_version", "version", "mmengine_version"),
    *("mmcv_version", "torch", "dimlab", "python", "numpy"),
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")
FLAG = "trust_pickle=True (--trust-pickle)"


@dataclass(frozen=True, eq=False)
class Opened:
    """Tensors of a file, and what stands beside them.

    Parameters
    ----------
    kind : str
        ``torch`` or ``safetensors``.
    tensors : dict of str to Tensor of any shape
        Nested names are joined by dots.
    values : dict of str
        Numbers and text beside them, named in the same way.
    containers : tuple of str
        Names of the mappings; the empty one is the file itself.
    """

    kind: str
    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)
    containers: tuple[str, ...] = ("",)

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
    """Say what keeps a tensor from being read as plain numbers.

    Parameters
    ----------
    tensor : Tensor of any shape
        Of a file.
    counts : bool, default=False
        Whether integers will do.

    Returns
    -------
    str or None
        What it is instead; None for dense floating point of 16, 32 or 64 bit.

    Examples
    --------
    >>> fault_of(torch.ones(2)), fault_of(torch.ones(2, device="meta"))
    (None, 'a shape without values (meta)')
    >>> fault_of(torch.ones(2, dtype=torch.int8)), fault_of(torch.tensor(3), counts=True)
    ('int8', None)
    """
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
    """Open a file of weights, whatever its ending.

    Parameters
    ----------
    path : Path
        A torch file or a safetensors file.
    trust_pickle : bool, default=False
        Run code of a torch file that asks for more than tensors and plain containers.

    Returns
    -------
    Opened
        Tensors on the CPU, memory-mapped where the format allows it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another kind, in parts, damaged, names a tensor twice, or asks for code and is
        not trusted.
    """
    if not path.is_file():
        if path.is_dir():
            _refuse_shards(path)
        what = "which is a folder" if path.is_dir() else "which is not there"
        raise FileNotFoundError(f"checkpoint must be a file; got {path}, {what}.")
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return _open_safetensors(path)
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x04") or path.suffix == ".tar":
        return _open_torch(path, trust_pickle)
    what = "an empty one" if not head else f"one that begins with {head[:8]!r}"
    raise ValueError(f"{path.name} must be a torch or safetensors file; got {what}.")


def _refuse_shards(path: Path) -> None:
    """Say of a folder of one checkpoint in parts how it becomes a file."""
    parts = [each.name for each in path.iterdir() if _SHARD.search(each.name)]
    if parts:
        raise ValueError(
            f"checkpoint must be one file; got {path}, a folder with {len(parts)} parts of one, as "
            f"{min(parts)}. Load it with the package that wrote it, and save "
            "module.state_dict() in one file."
        )


def _open_safetensors(path: Path) -> Opened:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Opened("safetensors", tensors, dict(file.metadata() or {}))
    except (SafetensorError, *_DAMAGED) as error:
        raise ValueError(
            f"{path.name} must be a complete safetensors file; got a damaged or truncated one."
        ) from error


def _refuse_script(path: Path) -> None:
    """Say of a compiled program that it is one."""
    try:
        if not zipfile.is_zipfile(path):  # which refuses some damage itself
            return
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2].partition("/")[0] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # whoever reads it says what is wrong
    if {"code", "constants.pkl"} <= parts:
        raise ValueError(
            f"{path.name} must hold only tensors and plain containers; got a TorchScript program. "
            f"Save its weights: torch.save(torch.jit.load({path.name!r}).state_dict(), "
            f"'weights.pth')."
        )


def _open_torch(path: Path, trust_pickle: bool) -> Opened:
    _refuse_script(path)
    try:
        payload = read_torch_file(path)
    except ValueError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        asked = _asked_for(path)
        if not trust_pickle:
            raise ValueError(
                f"{path.name} must hold only tensors and plain containers; got a pickle that asks "
                f"for {asked}, and dimlab runs no code from a file. If you trust who wrote it, "
                f"pass {FLAG}."
            ) from error
        payload = _load_trusted(path, asked)
    return _opened(payload, path)


def _load_trusted(path: Path, asked: str) -> Any:
    warnings.warn(
        f"{path.name} asked for {asked}, and was trusted: code in it was run.",
        UserWarning,
        stacklevel=5,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # every refusal is one sentence of our own
            is_zip = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=False, mmap=is_zip)
    except ImportError as error:
        raise ValueError(
            f"{path.name} needs the package {error.name!r}, which its pickle asks for. Install it."
        ) from error
    except Exception as error:  # code of the file may raise anything
        raise _failing(path, error) from error


def _failing(path: Path, error: BaseException) -> ValueError:
    return ValueError(
        f"{path.name} must be a complete torch file; got one whose pickle fails "
        f"({reason_of(error)})."
    )


def _asked_for(path: Path) -> str:
    """Say what a pickle asks for beyond tensors, without running it."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an old format, which torch does not list
        names = []
    if not names:
        return "Python objects"
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _opened(payload: Any, path: Path) -> Opened:
    try:
        if hasattr(payload, "state_dict") and callable(payload.state_dict):
            payload = payload.state_dict()  # a whole module, trusted
    except Exception as error:  # code of the file, or of a class that has changed since
        raise _failing(path, error) from error
    if isinstance(payload, (list, tuple)):
        payload = dict(enumerate(payload))
    check_nesting(path, payload)
    if not isinstance(payload, Mapping):
        raise ValueError(
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
                raise ValueError(
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
