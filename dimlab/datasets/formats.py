"""Read the files that data sets come in. Nothing is ever extracted, and no pickle is ever run."""

from __future__ import annotations

import io
import math
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import DAMAGED, reason_of
from dimlab.refusals import Refusal

_CHUNK = 1 << 18  # bytes
_LARGEST = 1 << 28  # bytes of a member: the largest official one is STL-10's test_X.bin
_MOST_OPERATIONS = 1 << 19  # of a pickle: the largest official batch takes less than half


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the (N, H, W) images or (N,) labels of an IDX file, plain or gzipped, as uint8."""
    header = b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
    size = math.prod(shape)
    try:
        payload = _unpacked(path, len(header) + size + 1)
    except zlib.error as error:
        raise Refusal(
            f"{path.name} must be a gzip file; got a damaged one ({error}). Download {path} again."
        ) from error
    if payload[:4] != header[:4]:
        got = f"magic number {payload[:4].hex() or 'of an empty file'}, not {header[:4].hex()}"
    elif payload[: len(header)] != header:
        counts = np.frombuffer(payload[4 : len(header)].ljust(4 * len(shape), b"\0"), ">u4")
        got = _contents(tuple(counts.tolist()))
    elif len(payload) != len(header) + size:
        n_items = (len(payload) - len(header)) // math.prod(shape[1:])
        is_short = len(payload) < len(header) + size
        got = f"{n_items} (the file is cut short)" if is_short else "more bytes than that"
    else:
        return np.frombuffer(payload, np.uint8, offset=len(header)).reshape(shape)
    raise Refusal(f"{path.name} must hold {_contents(shape)}; got {got}. Download {path} again.")


def _contents(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} labels"
    return f"{shape[0]} images of {' x '.join(map(str, shape[1:]))}"


def _unpacked(path: Path, n_bytes: int) -> bytes:
    # not gzip.open: of a file cut short, a decompressor returns what there is to be counted
    with path.open("rb") as file:
        if path.suffix != ".gz":
            return file.read(n_bytes)
        # deflate never takes more room than this, and no more is unpacked than the shape needs
        packed = file.read(n_bytes + n_bytes // 8 + _CHUNK)
        return zlib.decompressobj(wbits=31).decompress(packed, n_bytes)


def read_members(source: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of files in an extracted folder or a ``.tar.gz`` archive, by name."""
    contents: dict[str, bytes] = {}
    sizes = {}
    if source.is_dir():
        there = [name for name in names if (source / name).is_file()]
        sizes = {name: (source / name).stat().st_size for name in there}
        if all(size <= _LARGEST for size in sizes.values()):
            contents = {name: (source / name).read_bytes() for name in sizes}
    else:
        try:
            with tarfile.open(source, "r|gz") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if name in names and member.isfile() and (file := archive.extractfile(member)):
                        sizes[name] = member.size
                        if member.size > _LARGEST:
                            break
                        contents[name] = file.read()
                    if len(contents) == len(names):
                        break
        except (tarfile.TarError, *DAMAGED) as error:
            raise Refusal(
                f"{source.name} must be a whole tar.gz archive; got a damaged one "
                f"({reason_of(error)}). Delete {source} and download it again."
            ) from error
    missing = [name for name in names if name not in contents]
    if missing and sizes.get(missing[0], 0) > _LARGEST:
        raise Refusal(
            f"{source} must hold files of at most {_LARGEST} bytes; got {sizes[missing[0]]} for "
            f"{missing[0]}. Download it again."
        )
    if missing:
        raise Refusal(f"{source} must hold {missing[0]}; got no such file. Download it again.")
    return contents


class _Inert:
    """Stands in for every class a pickle may name: keeps what it is given and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Operations(dict[int, Any]):
    """Operations of a pickle, which may not go on for ever: a byte may stand for 60."""

    left = _MOST_OPERATIONS

    def __getitem__(self, key: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Refusal(f"more than {_MOST_OPERATIONS} operations")
        return super().__getitem__(key)


# in Python: the one in C allocates what a damaged byte claims, before it looks whether it is there
class _Unpickler(pickle._Unpickler):
    _ADMITTED = (  # what an array of bytes is made of, as numpy 1 and numpy 2 name it
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        "_codecs.encode",
    )
    _REFUSED = b"\x8f\x90\x91\x96\x97\x98"  # sets, bytearrays and buffers

    def __init__(self, payload: bytes) -> None:
        super().__init__(io.BytesIO(payload), encoding="latin1")
        own = {"s": _Unpickler.load_setitem, "u": _Unpickler.load_setitems}
        own["d"] = _Unpickler.load_dict
        operations = {**pickle._Unpickler.dispatch, **{ord(code): own[code] for code in own}}
        for code in self._REFUSED:
            del operations[code]
        # of this pickle alone, though the class that it extends has one for all
        self.dispatch: Any = _Operations(operations)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if f"{module}.{name}" not in self._ADMITTED:
            raise PermissionError(f"{module}.{name}")
        return _Inert

    stack: list[Any]
    pop_mark: Any

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes, int)):  # tuples of tuples take for ever to hash
                raise Refusal("a key that is no text")
            self.stack[-1][key] = value


def read_pickle(name: str, payload: bytes) -> dict[str, Any]:
    """Return the plain values and uint8 arrays of a pickled dict; nothing in it is run."""
    try:
        content = _Unpickler(payload).load()
        return {
            str(key): _array(value) if isinstance(value, _Inert) else value
            for key, value in content.items()
        }
    except PermissionError as error:
        raise Refusal(
            f"{name} must hold only numbers, text and uint8 arrays; got a pickle that asks for "
            f"{error}, which was not run. Do not trust this file: delete it."
        ) from error
    except DAMAGED as error:
        raise Refusal(
            f"{name} must be a whole pickled dict; got a damaged one ({reason_of(error)}). "
            "Download it again."
        ) from error


def _array(pickled: _Inert) -> np.ndarray:
    _, shape, dtype, is_fortran, data = pickled.state
    if dtype.arguments[0] not in ("u1", "|u1"):
        raise Refusal(f"an array of {dtype.arguments[0]!r} in place of bytes")
    text = data.arguments[0] if isinstance(data, _Inert) else data
    values = np.frombuffer(text.encode("latin1") if isinstance(text, str) else text, np.uint8)
    return values.reshape(shape, order="F" if is_fortran else "C")
