"""Write files whole or not at all; read them within limits and without running code from them.

A file from elsewhere may be cut short, damaged or made to harm. The readers here refuse it in one
sentence, and compare what it claims with what it holds, and with the memory of this machine, before
memory is spent on it.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import mmap
import os
import pickle
import re
import shutil
import struct
import tempfile
import time
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from dimlab.io.harmless import NotPlain
from dimlab.refusals import Refusal, WrongType

_OF_ARRAYS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".csv", ".jsonl", ".parquet", ".h5")
DAMAGED = (  # what libraries raise when they read noise
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError),
    *(LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(Warning, pickle.UnpicklingError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)
_ABANDONED = 3600.0  # seconds without a write, after which a temporary folder belongs to nobody
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Misnamed(Refusal):
    """A name given by the user of something that the file does not hold; the file is sound."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` when the block ends without error."""
    path = Path(path)
    with _staging(path.parent, path.name, named=path) as staging:
        temporary = staging / path.name
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)


def write_files(
    folder: str | os.PathLike[str],
    contents: Mapping[str, bytes],
    *,
    outdated: Callable[[], Mapping[str, str]] | None = None,
) -> dict[str, Path]:
    """Replace files of a folder one by one, in order: the last is the manifest of the others."""
    # All are on the disk before the first is replaced, so a full disk changes nothing; a process
    # that is killed between two of them leaves the old manifest, which does not fit the new files.
    # `outdated` names old files, with their `digest`, that are removed unless they have changed.
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "results"), _staging(folder, "results", named=folder) as staging:
        for name, content in contents.items():
            if (folder / name).is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
            (staging / name).write_bytes(content)
            _flush(staging / name)
        old = dict(outdated() if outdated is not None else {})
        *others, manifest = contents
        for name in others:
            os.replace(staging / name, folder / name)
        for name in old.keys() - contents.keys():
            with suppress(OSError):
                path = folder / name
                if not path.is_symlink() and digest(path.read_bytes()) == old[name]:
                    path.unlink()
        os.replace(staging / manifest, folder / manifest)
    return {name: folder / name for name in contents}


@contextmanager
def locked(
    folder: str | os.PathLike[str], what: str, *, refusal: str | None = None
) -> Iterator[None]:
    """Hold ``.<what>.lock`` in a folder; wait for its holder, or raise with ``refusal``."""
    from filelock import FileLock, Timeout

    if not os.access(folder, os.W_OK):
        yield
        return
    lock = FileLock(Path(folder) / f".{what}.lock")
    try:
        lock.acquire(timeout=-1 if refusal is None else 0)
    except Timeout:
        raise OSError(refusal) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            os.unlink(lock.lock_file)  # filelock discards a lock on a file without a name
        lock.release()


def digest(content: bytes | mmap.mmap) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _staging(folder: Path, name: str, *, named: Path) -> Iterator[Path]:
    """Yield a temporary folder; errors of the disk name the file or folder that the user knows."""
    # a folder, because libraries write temporary files of their own, which go with it
    prefix = f".{name}."
    for each in folder.glob(f"{glob.escape(prefix)}*.tmp"):  # of killed processes
        with suppress(OSError):
            newest = max(part.stat().st_mtime for part in (each, *each.iterdir()))
            if time.time() - newest > _ABANDONED:
                shutil.rmtree(each)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=prefix, suffix=".tmp") as staging:
            yield Path(staging)
    except OSError as error:
        place = str(error.filename or folder / prefix)
        if error.errno is not None and place.startswith(str(folder / prefix)):
            error.filename, error.filename2 = str(named), None
        raise


def _flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before a sentence about its content."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if path.name in str(error):
            raise
        kind = type(error) if isinstance(error, Refusal) else Refusal
        raise kind(f"{path.name}: {error}") from error


def reason_of(error: BaseException) -> str:
    """Return what a library says in one short line without a full stop."""
    said = " ".join(str(error).split())[:150]
    return said.rstrip(".") or type(error).__name__


def mapped(file: BinaryIO) -> mmap.mmap | bytes:
    """Map an open file, so that its hash is that of what was read."""
    file.seek(0, 2)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""


def listed(names: Iterable[Any]) -> str:
    """Name the first five of several files, columns or arrays, and say how many there are."""
    said = [str(getattr(each, "name", each)) for each in names]
    return ", ".join(said[:5]) + (f", ... ({len(said)} in all)" if len(said) > 5 else "")


def is_distributed(path: Path) -> bool:
    """Whether a folder is a checkpoint that several processes of torch wrote."""
    return (path / ".metadata").is_file() or any(path.glob("*.distcp"))


def in_folder(path: Path) -> str:
    """Say what lies in a folder, and how its files are named or become one."""
    if is_distributed(path):
        return (
            f"{path}, a torch distributed checkpoint (DCP). Run "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
            f"({str(path)!r}, 'weights.pt')."
        )
    there = [each.name for each in sorted(path.iterdir())]
    ending = next((Path(each).suffix for each in there if each.endswith(_OF_ARRAYS)), "")
    pattern = f" Name one of its files, or a pattern such as '{path}/*{ending}'." if ending else ""
    what = f"a folder of {listed(there)}" if there else "an empty folder"
    return f"{path}, which is {what}.{pattern}"


def json_of(text: str | bytes) -> Any:
    """Read JSON; nesting that Python cannot follow is a ValueError like any other damage."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Refusal("lists within lists too deep to be read") from error


def check_fits(path: Path, n_bytes: int) -> None:
    """Refuse a file whose content would take more bytes than this process may hold."""
    limit = _memory()
    if n_bytes > limit:
        raise Refusal(
            f"{path.name} must fit into memory when it is read; got {n_bytes / 1e9:.3g} GB of "
            f"content, and this process may hold {limit / 1e9:.3g} GB."
        )


def _memory() -> int:
    """Return the bytes of the machine, or what the process may address where that is less."""
    try:
        import resource

        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, AttributeError, ValueError, OSError):  # Windows
        return 1 << 36
    return machine if allowed == resource.RLIM_INFINITY else min(machine, allowed)


@contextmanager
def _refusing_damage(path: Path, what: str) -> Iterator[None]:
    """Turn whatever reading noise raises into one sentence."""
    from safetensors import SafetensorError

    try:
        yield
    except MemoryError as error:
        raise MemoryError(
            f"{path.name} must fit into the memory that this process may address; got "
            f"{path.stat().st_size / 1e9:.3g} GB, and less is left (ulimit -v)."
        ) from error
    except NotPlain as error:
        raise Refusal(f"{path.name} must be a complete {what}; got {error}.") from error
    except (SafetensorError, *DAMAGED) as error:
        raise Refusal(
            f"{path.name} must be a complete {what}; got a damaged one ({reason_of(error)})."
        ) from error


def read_npz(
    path: Path, file: BinaryIO | None = None, objects: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """Read every array of an ``.npz`` (open as ``file``), with checksums.

    ``objects`` reads the pickle of an array of Python objects; without it they are refused.
    """
    if file is None:
        with _opened(path, ".npz") as file:
            return read_npz(path, file)
    what = ".npz file of numbers and text"
    with _refusing_damage(path, what), zipfile.ZipFile(file) as archive:
        n_bytes = _claimed(archive)
    check_fits(path, n_bytes)
    with _refusing_damage(path, what), warnings.catch_warnings(), zipfile.ZipFile(file) as archive:
        warnings.simplefilter("ignore")  # numpy's about headers of Python 2
        return {
            entry.filename.removesuffix(".npy"): _member(archive, entry, objects)
            for entry in archive.infolist()
            if entry.filename.endswith(".npy")
        }


def read_npy(
    path: Path, file: BinaryIO | None = None, objects: Callable[[Any], Any] | None = None
) -> Any:
    """Map the array of an ``.npy`` (open as ``file``), read-only; ``objects`` as `read_npz`."""
    if file is None:
        with _opened(path, ".npy") as file:
            return read_npy(path, file)
    what = ".npy file of numbers or text"
    with _refusing_damage(path, what), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(0)
        shape, is_fortran, dtype = _header_of(file, objects)
        if dtype.hasobject and objects is not None:
            return objects(file)
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        array = np.memmap(file, dtype, "r", file.tell(), shape, order)
        _check_text(array)
        return array


def _opened(path: Path, ending: str) -> BinaryIO:
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be an existing {ending} file; got no such file.")
    return path.open("rb")


def _header_of(file: Any, objects: Any = None) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order and type of an array that follows in a file."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version if version[0] < 3 else (2, 0)]
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject and objects is None:
        raise NotPlain(
            "an array of Python objects, which may hold code. Save text as array.astype(str)"
        )
    return shape, is_fortran, dtype


def _claimed(archive: zipfile.ZipFile) -> int:
    """Return the bytes that the members unpack to, each of a size that its kind allows."""
    entries = archive.infolist()
    for entry in entries:
        stored = entry.compress_type == zipfile.ZIP_STORED
        if entry.compress_type not in _PLAIN or entry.flag_bits & 1:
            raise Refusal(f"{entry.filename!r} is packed in a way that numpy and torch are not")
        if stored and entry.file_size != entry.compress_size:
            raise Refusal(f"{entry.filename!r} has two sizes")
    if len({entry.filename for entry in entries}) < len(entries):
        raise Refusal("a name stands twice")
    return sum(entry.file_size for entry in entries)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, objects: Any) -> Any:
    """Read an array whose header fits the member's size, so that nothing more is allocated."""
    with archive.open(entry) as file:
        shape, _, dtype = _header_of(file, objects)
        if dtype.hasobject:
            found = objects(file)
            file.read(1)
            return found
        claimed, there = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
        if min(shape, default=0) < 0 or claimed != there:
            raise Refusal(f"shape {shape} of {dtype} takes {claimed} bytes; there are {there}")
    with archive.open(entry) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at the end the checksum is verified
    _check_text(array)
    return array


def _check_text(array: np.ndarray) -> None:
    """Refuse records, and text that is not valid Unicode, which Python cannot even show."""
    if array.dtype.kind == "V" and array.dtype.names:
        raise NotPlain("an array of records. Save each of its fields as an array")
    if array.dtype.kind != "U" or array.nbytes == 0:
        return
    codes = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}u4")
    if (codes > 0x10FFFF).any() or ((codes >= 0xD800) & (codes < 0xE000)).any():
        raise Refusal("text that is not valid Unicode")


def open_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Map every tensor of a safetensors file with torch, and read the text beside them."""
    from safetensors import safe_open

    # only torch's reader maps: the one for numpy copies
    with _refusing_damage(path, "safetensors file"), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors, dict(file.metadata() or {})


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map every tensor, read-only, and read the metadata; bfloat16 is widened to float32."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be an existing .safetensors file; got no such file.")
    tensors, metadata = open_tensors(path)
    return as_arrays(path, tensors), metadata


def as_arrays(path: Path, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return torch's tensors as read-only arrays; bfloat16 is widened to float32."""
    return {name: _as_array(path, name, each) for name, each in tensors.items()}


def _as_array(path: Path, name: str, tensor: Any) -> np.ndarray:
    """Return a tensor as a read-only array; numpy has no bfloat16."""
    try:
        array = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    except TypeError as error:
        raise Refusal(
            f"{path.name} must hold tensors of types that numpy has, or bfloat16; got "
            f"{tensor.dtype} for {name!r}. Save it in float32."
        ) from error
    array.flags.writeable = False
    return array


def save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> Path:
    """Write a ``.safetensors`` file; the same content gives the same bytes."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise Refusal(f"path must end in .safetensors; got {path.name!r}.")
    with replacing(path) as temporary:
        _write_safetensors(temporary, tensors, metadata)
    return path


def _write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "fiub" or tensor.dtype.itemsize > 8:
            raise WrongType(f"{name} must hold numbers of at most 64 bits; got {tensor.dtype}.")
    path.touch()
    mode = path.stat().st_mode  # the library makes files that only their owner can read
    try:
        laid = {
            name: np.ascontiguousarray(each).reshape(each.shape) for name, each in tensors.items()
        }
        save_file(laid, path, dict(metadata))
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    path.chmod(mode)
    with path.open("rb+") as file:  # the library writes the metadata in random order
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(metadata.items()))
        raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(raw) <= length:
            file.seek(8)
            file.write(raw.ljust(length))
