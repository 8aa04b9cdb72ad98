"""Find, download, check and read the files that data sets come in.

Nothing is ever extracted or left half-written: a download appears under its name only when it is
whole and its md5 fits, and members of an archive are read in memory. No pickle is ever run.
"""

from __future__ import annotations

import http.client
import io
import logging
import math
import os
import pickle
import sys
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import DAMAGED, reason_of

TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 18  # bytes
_LARGEST = 1 << 28  # bytes of a member: the largest official one is STL-10's test_X.bin
_MOST_OPERATIONS = 1 << 21  # of a pickle: the largest official batch takes a tenth
_SCHEMES = ("http://", "https://", "file://")


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded, and how to recognise it.

    Parameters
    ----------
    name : str
        File name.
    base : str
        URL of the folder that holds it.
    md5 : str
        Hexadecimal md5 of the file.

    Examples
    --------
    >>> RemoteFile("a.gz", "https://example.org/data/", "0" * 32).url
    'https://example.org/data/a.gz'
    """

    name: str
    base: str
    md5: str

    @property
    def url(self) -> str:
        """Address of the file; ``DIMLAB_MIRROR``, where set, replaces the official folder."""
        base = os.environ.get("DIMLAB_MIRROR") or self.base
        if not base.startswith(_SCHEMES):
            raise ValueError(f"DIMLAB_MIRROR must start with {', '.join(_SCHEMES)}; got {base!r}.")
        return f"{base.rstrip('/')}/{self.name}"


def cache_folder() -> Path:
    """Folder that downloads go to: ``DIMLAB_DATA`` where set, else the system's cache for dimlab.

    Returns
    -------
    Path
        Absolute; it need not exist yet.
    """
    import pooch

    chosen = os.environ.get("DIMLAB_DATA") or pooch.os_cache("dimlab")
    return Path(chosen).expanduser().absolute()


def find_files(names: Sequence[str], folders: Sequence[Path]) -> list[Path] | None:
    """Files of these names in the first folder that holds them all.

    Parameters
    ----------
    names : sequence of str
        File names; one that ends in ``.gz`` is also found without that ending.
    folders : sequence of Path
        Where to look, in this order. Files of two folders are never mixed.

    Returns
    -------
    list of Path or None
        One path a name; None where no folder has every file.
    """
    for folder in folders:
        found = []
        for name in names:
            paths = (folder / name, folder / name.removesuffix(".gz"))
            found += [path for path in paths if path.is_file()][:1]
        if len(found) == len(names):
            return found
    return None


def check_md5(path: Path, md5: str) -> None:
    """Refuse a file whose content is not the official one.

    Parameters
    ----------
    path : Path
        File to look at.
    md5 : str
        Hexadecimal md5 it must have.

    Raises
    ------
    ValueError
        If it has another.
    """
    import pooch

    found = pooch.file_hash(str(path), alg="md5")
    if found != md5:
        raise ValueError(
            f"{path.name} must have md5 {md5}; got {found}. Delete {path} and download it again."
        )


def fetch(remote: RemoteFile, folder: Path, *, searched: Sequence[Path] = ()) -> Path:
    """Download a file into a folder, unless it is there and has the right md5.

    The file gets its name, by one atomic rename, once its md5 is known to fit; whatever else
    happens, nothing of it stays behind. Processes may fetch the same file at the same time.
    Progress is shown on stderr where that is a terminal.

    Parameters
    ----------
    remote : RemoteFile
        What to download. The environment variable ``DIMLAB_MIRROR`` replaces the official base URL;
        the md5 is demanded all the same.
    folder : Path
        Where the file goes; made if need be.
    searched : sequence of Path
        Folders already searched, named in the error.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If it cannot be downloaded, or what comes is not the official file.
    ValueError
        If ``DIMLAB_MIRROR`` is no URL.
    """
    import pooch

    url = remote.url
    # not setLevel: pooch's logger caches what it is enabled for, and threads would undo each other
    silence = logging.Filter("nothing in pooch")
    pooch.get_logger().addFilter(silence)
    try:
        path = pooch.retrieve(url, f"md5:{remote.md5}", remote.name, folder, downloader=_download)
        return Path(path)
    except ValueError:
        reason = "what came has another md5"
    except (OSError, http.client.HTTPException) as error:
        said = str(error).removeprefix("<urlopen error ").removesuffix(">")
        reason = said or type(error).__name__
    finally:
        pooch.get_logger().removeFilter(silence)
    places = ", ".join(str(place) for place in dict.fromkeys([*searched, folder]))
    raise FileNotFoundError(
        f"{remote.name} is not in {places}, and downloading {url} failed ({reason}). Put the file "
        f"with md5 {remote.md5} into {folder}, or set DIMLAB_MIRROR to the base URL of a mirror."
    )


def _download(url: str, output_file: str, _pooch: object) -> None:
    # not pooch's own downloader: it undoes a Content-Encoding of gzip, and so changes the md5
    request = urllib.request.Request(url, headers={"User-Agent": "dimlab"})
    try:
        with (
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,
            open(output_file, "wb") as output,
        ):
            total = int(response.headers.get("Content-Length") or 0)
            n_bytes = 0
            with progress(url.rsplit("/", 1)[-1], total) as advance:
                while chunk := response.read(_CHUNK):
                    n_bytes += output.write(chunk)
                    advance(len(chunk))
    except urllib.error.HTTPError as error:
        error.close()
        raise
    if n_bytes < total:
        raise ConnectionError(f"the connection was cut after {n_bytes} of {total} bytes")
    os.chmod(output_file, 0o644)  # temporary files are private; a cache may be shared


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress bar on stderr, where that is a terminal; nothing elsewhere.

    Parameters
    ----------
    what : str
        What is being done.
    total : int
        Number of steps; 0 means unknown.

    Yields
    ------
    callable
        Call it with the number of steps just done.
    """
    if not sys.stderr.isatty():
        yield lambda n_steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda n_steps: bar.advance(task, n_steps)


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Array of bytes in an IDX file, plain or gzipped.

    Parameters
    ----------
    path : Path
        The file; ``.gz`` is unpacked in memory, and never more of it than `shape` asks for.
    shape : tuple of int
        What it must hold: ``(N, H, W)`` images or ``(N,)`` labels.

    Returns
    -------
    ndarray of that shape, uint8

    Raises
    ------
    ValueError
        If the file is damaged, cut short, too long, or holds another shape.
    """
    header = b"\0\0\x08" + bytes([len(shape)]) + np.array(shape, ">u4").tobytes()
    size = math.prod(shape)
    try:
        payload = _unpacked(path, len(header) + size + 1)
    except zlib.error as error:
        raise ValueError(
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
    raise ValueError(f"{path.name} must hold {_contents(shape)}; got {got}. Download {path} again.")


def _contents(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} labels"
    return f"{shape[0]} images of {' x '.join(map(str, shape[1:]))}"


def _unpacked(path: Path, n_bytes: int) -> bytes:
    # not gzip.open: of a file cut short, a decompressor returns what there is to be counted
    with path.open("rb") as file:
        if path.suffix != ".gz":
            return file.read(n_bytes)
        # deflate never takes more room than this: what lies behind is not needed
        packed = file.read(n_bytes + n_bytes // 8 + _CHUNK)
        return zlib.decompressobj(wbits=31).decompress(packed, n_bytes)


def read_members(source: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of files in an extracted folder or a tar archive.

    Parameters
    ----------
    source : Path
        Folder, or ``.tar.gz`` file. An archive is read in memory and never extracted.
    names : sequence of str
        Paths inside it, with forward slashes.

    Returns
    -------
    dict of str to bytes
        One entry a name.

    Raises
    ------
    ValueError
        If the archive is damaged or cut short, or a file is missing.
    """
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
            raise ValueError(
                f"{source.name} must be a whole tar.gz archive; got a damaged one "
                f"({reason_of(error)}). Delete {source} and download it again."
            ) from error
    missing = [name for name in names if name not in contents]
    if missing and sizes.get(missing[0], 0) > _LARGEST:
        raise ValueError(
            f"{source} must hold files of at most {_LARGEST} bytes; got {sizes[missing[0]]} for "
            f"{missing[0]}. Download it again."
        )
    if missing:
        raise ValueError(f"{source} must hold {missing[0]}; got no such file. Download it again.")
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
            raise ValueError(f"more than {_MOST_OPERATIONS} operations")
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
                raise ValueError("a key that is no text")
            self.stack[-1][key] = value


def read_pickle(name: str, payload: bytes) -> dict[str, Any]:
    """Plain values and uint8 arrays in a pickled dict, without running anything it asks for.

    Parameters
    ----------
    name : str
        What to call the file in an error.
    payload : bytes
        A pickle by Python 2 or 3.

    Returns
    -------
    dict of str to object
        Numbers, strings, lists and uint8 arrays.

    Raises
    ------
    ValueError
        If it is damaged, is no dict, or names anything but uint8 arrays.

    Examples
    --------
    >>> read_pickle("batch", pickle.dumps({"labels": [3, 1]}, protocol=2))
    {'labels': [3, 1]}
    """
    try:
        content = _Unpickler(payload).load()
        return {
            str(key): _array(value) if isinstance(value, _Inert) else value
            for key, value in content.items()
        }
    except PermissionError as error:
        raise ValueError(
            f"{name} must hold only numbers, text and uint8 arrays; got a pickle that asks for "
            f"{error}, which was not run. Do not trust this file: delete it."
        ) from error
    except DAMAGED as error:
        raise ValueError(
            f"{name} must be a whole pickled dict; got a damaged one ({reason_of(error)}). "
            "Download it again."
        ) from error


def _array(pickled: _Inert) -> np.ndarray:
    _, shape, dtype, is_fortran, data = pickled.state
    if dtype.arguments[0] not in ("u1", "|u1"):
        raise ValueError(f"an array of {dtype.arguments[0]!r} in place of bytes")
    text = data.arguments[0] if isinstance(data, _Inert) else data
    values = np.frombuffer(text.encode("latin1") if isinstance(text, str) else text, np.uint8)
    return values.reshape(shape, order="F" if is_fortran else "C")
