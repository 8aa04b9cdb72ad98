"""Stand-ins for the few classes beside tensors that files of weights and features really hold.

Torch's restricted unpickler calls these instead of the classes that a pickle names, so that numpy
and pathlib never see what a file asks of them.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from dimlab.refusals import Refusal


class NotPlain(Exception):
    """What an array holds beside numbers and text, in words."""


class DType:
    """A ``numpy.dtype`` of numbers, text or Python objects; never of records."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.names or self.dtype.subdtype or self.dtype.kind not in "fiubcSUO":
            raise Refusal(f"an array of {self.dtype}")

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """A ``numpy.ndarray``; ``array`` is what was stored."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, raw = state
        if kind.dtype.kind == "O":
            flat = np.empty(len(raw), dtype=object)
            flat[:] = list(raw)
        else:
            flat = np.frombuffer(raw, kind.dtype)
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


def _array(*_: Any) -> Array:
    return Array()


def _scalar(kind: DType, raw: bytes = b"") -> Any:
    return np.frombuffer(raw, kind.dtype)[0].item()  # numpy refuses objects


def _path(*parts: str) -> str:
    return "/".join(map(str, parts))


def _mapping(*_: Any) -> dict[Any, Any]:
    return {}


_LIGHTNING = ("pytorch_lightning.utilities.parsing", "lightning.fabric.utilities.data",
              "lightning_fabric.utilities.data")  # fmt: skip
_NAMES: dict[Callable[..., Any], tuple[str, ...]] = {
    DType: ("numpy.dtype",),
    Array: ("numpy.ndarray",),
    _array: ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    _scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _path: tuple(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
    Namespace: ("argparse.Namespace", "types.SimpleNamespace"),
    OrderedDict: tuple(f"{module}.AttributeDict" for module in _LIGHTNING),
    _mapping: ("collections.defaultdict",),
    **{kind: (f"builtins.{kind.__name__}",) for kind in (dict, list, int, float)},
}
ALLOWED: list[Any] = [(stand_in, name) for stand_in, names in _NAMES.items() for name in names]
_BY_NAME = {name: stand_in for stand_in, name in ALLOWED}


class _Restricted(pickle.Unpickler):
    """Calls stand-ins only."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a harmless class."""
        if f"{module}.{name}" not in _BY_NAME:
            raise NotPlain(
                f"Python objects that ask for {module}.{name}, and dimlab runs no code from a "
                "file. Save text as array.astype(str)"
            )
        return _BY_NAME[f"{module}.{name}"]


def read_objects(file: Any) -> Any:
    """Read the pickle of an array of Python objects: text, numbers, arrays and plain containers."""
    try:
        return _Restricted(file).load()
    except (NotPlain, MemoryError):
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise Refusal(f"a pickle that fails ({type(error).__name__})") from error
