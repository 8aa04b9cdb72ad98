"""Containers of arrays: what a file claims is held against its size before memory is spent on it.

A file that comes from anywhere may be cut, damaged or made to harm. Each reader here refuses it in
one sentence, runs no code of it, and never allocates what the file could not fill.
"""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

DAMAGED = (  # what reading noise can raise
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError),
    *(LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(Warning, pickle.UnpicklingError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)
DTYPES = {  # of safetensors, as far as numpy has them
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # numpy has none: its bits, for `widened`
_TYPES: dict[str, Any] = {**DTYPES, "BF16": BFLOAT16}
_FREE = 1 << 28  # bytes that any file may unpack to
_RATIO = 100  # what a larger one may unpack to, times its own size
_HEADER = 100_000_000  # bytes: safetensors' own limit
_STEP = 1 << 20  # bytes read at a time
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Misnamed(ValueError):
    """A name that a user gave, of something that a file does not hold: the file is not to blame."""


def check_unpacked(path: Path, n_bytes: int) -> None:
    """Refuse a file that would take far more memory than disk.

    Parameters
    ----------
    path : Path
        The file.
    n_bytes : int
        What it unpacks to.

    Raises
    ------
    ValueError
        If that is more than 256 MiB and more than 100 times the file's size.
    """
    size = path.stat().st_size
    if n_bytes > max(_FREE, _RATIO * size):
        raise ValueError(
            f"{path.name} must unpack to at most {_RATIO} times its size; got {n_bytes} bytes in a "
            f"file of {size}. Save it uncompressed if it is yours."
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its content.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    None

    Raises
    ------
    ValueError, TypeError
        With the sentence that was raised, behind the name where it is not there.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        if path.name in str(error):
            raise
        kind = next(each for each in (Misnamed, ValueError, TypeError) if isinstance(error, each))
        raise kind(f"{path.name}: {error}") from error


def read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read every array into memory; a file that could run code is refused.

    Parameters
    ----------
    path : Path
        A numpy ``.npz``.

    Returns
    -------
    arrays : dict of str to ndarray
        By their names. Checksums are verified.
    metadata : dict
        Empty: the format has none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, holds Python objects, or claims more than it could hold.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a .npz file; got nothing there.")
    arrays = {}
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(path) as archive:
            warnings.simplefilter("ignore")  # numpy's about headers of Python 2
            n_bytes = _claimed(archive)
            if n_bytes <= max(_FREE, _RATIO * path.stat().st_size):
                for entry in archive.infolist():
                    if entry.filename.endswith(".npy"):
                        arrays[entry.filename[: -len(".npy")]] = _member(archive, entry)
    except DAMAGED as error:
        raise ValueError(
            f"{path.name} must be a complete .npz file of numbers and text; got a damaged one, or "
            f"Python objects ({reason_of(error)})."
        ) from error
    check_unpacked(path, n_bytes)
    return arrays, {}


def check_stored(path: Path, *, checksums: bool = False) -> None:
    """Refuse a zip file that does not hold its members whole and as they are, as torch writes them.

    Parameters
    ----------
    path : Path
        The file.
    checksums : bool, default=False
        Verify those too.

    Raises
    ------
    ValueError
        If it is damaged, or a member is packed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _claimed(archive)
            packed = [each.filename for each in archive.infolist() if each.compress_type]
            damaged = packed[0] if packed else archive.testzip() if checksums else None
    except DAMAGED as error:
        raise ValueError(
            f"{path.name} must be a complete torch file; got a damaged one ({reason_of(error)})."
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path.name} must hold its parts whole and unpacked; got {damaged!r} otherwise."
        )


def _claimed(archive: zipfile.ZipFile) -> int:
    """Bytes that the members unpack to, of which each could hold as many."""
    entries = archive.infolist()
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if entry.compress_type not in _PLAIN or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename!r} is packed in a way that numpy and torch are not")
        if stored and entry.file_size != entry.compress_size:
            raise ValueError(f"{entry.filename!r} has two sizes")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("a name stands twice")
    return sum(entry.file_size for entry in entries)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Array of a member; allocated only when its header fits the member's size."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version if version[0] < 3 else (2, 0)]
        shape, is_fortran, dtype = read_header(file)
        check_claim(shape, dtype, entry.file_size - file.tell())
        flat = np.empty(math.prod(shape), dtype)
        if flat.nbytes:
            _fill(file, flat.view(np.uint8).data)
        if file.read(1):  # at the end the checksum is verified
            raise ValueError(f"{entry.filename!r} is longer than its header says")
    check_text(flat)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def check_claim(shape: tuple[int, ...], dtype: np.dtype, n_bytes: int) -> None:
    """Refuse a header of numpy's that does not fit what follows it.

    Parameters
    ----------
    shape, dtype : tuple of int and dtype
        What the header says.
    n_bytes : int
        What follows.

    Raises
    ------
    ValueError
        If they differ, or the dtype is of Python objects.
    """
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    claimed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != n_bytes:
        raise ValueError(f"shape {shape} of {dtype} takes {claimed} bytes, and there are {n_bytes}")


def check_text(array: np.ndarray) -> None:
    """Refuse text of characters that there are none of, which Python cannot even show.

    Parameters
    ----------
    array : ndarray
        Of any dtype.

    Raises
    ------
    ValueError
        If it is of text, and holds such.
    """
    if array.dtype.kind == "V" and array.dtype.names:
        raise ValueError("an array of records")
    if array.dtype.kind != "U" or array.nbytes == 0:
        return
    codes = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
    if (codes > 0x10FFFF).any() or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise ValueError("text with characters that there are none of")


def _fill(file: Any, buffer: memoryview) -> None:
    start = 0
    while start < len(buffer):
        piece = file.read(min(_STEP, len(buffer) - start))
        if not piece:
            raise EOFError("a member is cut short")
        buffer[start : start + len(piece)] = piece
        start += len(piece)


def map_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Memory-map every tensor: safetensors' own numpy reader would copy the features.

    Parameters
    ----------
    path : Path
        A safetensors file.

    Returns
    -------
    arrays : dict of str to ndarray
        Read-only memory maps; of bfloat16 its bits, as `widened` takes them.
    metadata : dict of str to str
        What the header holds beside them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or cut short, its tensors overlap or leave gaps, or one is of a type that
        numpy lacks.
    MemoryError
        If the process may not address as much.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a .safetensors file; got nothing there.")
    broken = f"{path.name} must be a complete safetensors file; got a damaged or truncated one."
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER):
            raise ValueError(broken)
        raw = file.read(length)
    start = 8 + length
    try:
        header = json.loads(raw)
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(each, str) for pair in metadata.items() for each in pair):
            raise ValueError(broken)
        for name, entry in header.items():
            if entry["dtype"] not in _TYPES:  # the refusal below says so
                broken = (
                    f"{path.name} must hold tensors of {', '.join(DTYPES)} or BF16; got "
                    f"{str(entry['dtype'])[:20]} for {name!r}. Save it in float32."
                )
        laid = sorted(header, key=lambda name: (header[name]["data_offsets"][0], name))
        spans = [_span(header[name]) for name in laid]
        ends = [0, *(end for _, end in spans)]
        if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != size - start:
            raise ValueError(broken)
        arrays = {name: _mapped(path, header[name], start) for name in header}
    except DAMAGED as error:
        check_memory(path, error)
        raise ValueError(broken) from error
    return arrays, metadata


def check_memory(path: Path, error: BaseException) -> None:
    """Say of a file that could not be mapped for lack of memory that it is not damaged.

    Parameters
    ----------
    path : Path
        The file.
    error : BaseException
        What mapping it raised.

    Raises
    ------
    MemoryError
        If that was for lack of memory.
    """
    lacks = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if lacks or isinstance(error, MemoryError):
        raise MemoryError(
            f"{path.name} must fit into the memory that this process may address; got "
            f"{path.stat().st_size / 1e9:.3g} GB, and less is left (ulimit -v)."
        ) from error


def widened(array: np.ndarray) -> np.ndarray:
    """Give bfloat16 as float32, and other arrays as they are.

    Parameters
    ----------
    array : ndarray of any shape
        As `map_safetensors` gives it.

    Returns
    -------
    ndarray of the same shape
        In memory, if it was bfloat16.

    Examples
    --------
    >>> widened(np.array([0x3FC0], "<u2").view(BFLOAT16)).tolist()
    [1.5]
    """
    if array.dtype != BFLOAT16:
        return array
    return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)


def _span(entry: Mapping[str, Any]) -> tuple[int, int]:
    begin, end = entry["data_offsets"]
    numbers = [begin, end, *entry["shape"]]
    if not all(type(each) is int and each >= 0 for each in numbers):
        raise ValueError("an offset or a shape that is none")
    check_claim(tuple(entry["shape"]), np.dtype(_TYPES[entry["dtype"]]), end - begin)
    return begin, end


def _mapped(path: Path, entry: Mapping[str, Any], start: int) -> np.ndarray:
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if begin == end:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start + begin, shape=shape)


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file in place, without a temporary file of its own.

    Parameters
    ----------
    path : path
        The file, which may be there.
    tensors : mapping of str to ndarray
        Of types that the format has.
    metadata : mapping of str to str
        What the header holds beside them.

    Raises
    ------
    TypeError
        If a tensor is of another type.
    OSError
        If the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.safetensors"
    ...     write_safetensors(path, {"a": np.arange(3.0)}, {"by": "hand"})
    ...     arrays, metadata = map_safetensors(path)
    >>> arrays["a"].tolist(), metadata
    ([0.0, 1.0, 2.0], {'by': 'hand'})
    """
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # wide ones first, so that each is aligned
    laid = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    end = 0
    for name in laid:
        begin, end = end, end + tensors[name].nbytes
        kind = names.get(tensors[name].dtype)
        if kind is None:
            raise TypeError(f"{name} must be of {', '.join(DTYPES)}; got {tensors[name].dtype}.")
        header[name] = {
            "dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [begin, end],
        }  # fmt: skip
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in laid:
            file.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


def reason_of(error: BaseException) -> str:
    """Return one short line of whatever a library says.

    Parameters
    ----------
    error : BaseException
        What it raised.

    Returns
    -------
    str
        Without a full stop at the end.
    """
    said = " ".join(str(error).split())[:150]
    return said.rstrip(".") or type(error).__name__


def json_of(text: str | bytes) -> Any:
    """Read JSON; nesting that Python cannot follow is an error like any other.

    Parameters
    ----------
    text : str or bytes
        What is there.

    Returns
    -------
    object
        What it says.

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists within lists too deep to be read") from error
