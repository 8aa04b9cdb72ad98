"""Writing files so that a reader sees the old ones or the new ones, never half of them."""

from __future__ import annotations

import errno
import glob
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"
_SETTLED = 10.0  # seconds without a write, after which a temporary file that is not locked is stale


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write; it takes the place of ``path`` when the block ends well.

    Parameters
    ----------
    path : path
        The file to write or replace. Its folder must exist.

    Yields
    ------
    Path
        The temporary file, ``.<name>.<random>.tmp``. After an error it is removed and the old file
        stands. What a killed process leaves of it is removed by whoever writes the same file next.

    Raises
    ------
    OSError
        If the disk refuses, with the name of the file.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    _sweep(path)
    handle: int | None
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    temporary = Path(name)
    try:
        _lock(handle)  # says that somebody is at work on it
        yield temporary
        os.fsync(handle)
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
        os.close(handle)  # Windows renames no open file
        handle = None
        os.replace(temporary, path)
    except OSError as error:
        # an error without a number is a sentence already: a name would take its place
        if error.errno is not None and error.filename in (None, name, temporary):
            error.filename = str(path)
        raise
    finally:
        if handle is not None:
            os.close(handle)
        temporary.unlink(missing_ok=True)


@contextmanager
def holding(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder, so that files that belong together are written, or read, together.

    Parameters
    ----------
    folder : path
        Which must exist. Whoever else holds it is waited for.

    Yields
    ------
    None

    Notes
    -----
    The lock is advisory, on the folder itself: it leaves no file behind, and ends with the process.
    Where a file system has no locks, nothing is held.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


@contextmanager
def claiming(path: str | os.PathLike[str], refusal: str) -> Iterator[TextIO]:
    """Open a text file to be written by nobody else while the block runs; its content stands.

    Parameters
    ----------
    path : path
        The file, made if missing. Its folder must exist.
    refusal : str
        What to say where somebody else has it.

    Yields
    ------
    TextIO
        At its end; ``truncate(0)`` empties it. A file that is still empty at the end is removed.

    Raises
    ------
    OSError
        With the refusal, and nothing is touched; or if the disk refuses.

    Notes
    -----
    The lock is advisory, on the file itself, and ends with the process, however that ends. Where a
    file system has no locks, nobody is refused.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with claiming(f"{folder}/log", "log must be free; got one in use.") as log:
    ...         is_claimed(f"{folder}/log")
    ...     is_claimed(f"{folder}/log"), os.listdir(folder)
    True
    (False, [])
    """
    path = Path(path)
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            if not _try_lock(file.fileno(), alone=True):
                raise OSError(refusal)
            if _is_at(file.fileno(), path):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # whoever had it before has removed it meanwhile
    with file:
        try:
            yield file
        finally:
            file.flush()
            if os.fstat(file.fileno()).st_size == 0:
                with suppress(OSError):  # Windows removes no open file
                    path.unlink()  # before anybody else can have it


def is_claimed(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is somebody's, by `claiming`; nothing is made or changed.

    Parameters
    ----------
    path : path
        It need not be there.

    Returns
    -------
    bool
        True while the other's block runs.

    Raises
    ------
    OSError
        If it is there and cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _try_lock(handle, alone=False)
    finally:
        os.close(handle)


def write_together(
    folder: str | os.PathLike[str], contents: Mapping[str, bytes]
) -> dict[str, Path]:
    """Write files that belong together: all are whole on the disk before the first gets its name.

    Parameters
    ----------
    folder : path
        Made if missing.
    contents : mapping of str to bytes
        By file name, in the order in which they get their names.

    Returns
    -------
    dict of str to Path
        The files, by name.

    Raises
    ------
    OSError
        If the disk refuses; the old files stand.

    Notes
    -----
    Processes that write into one folder wait for each other: at the end, all of its files are of
    one of them.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_together(folder, {"a.csv": b"1", "a.json": b"[1]"})
    ...     sorted(files), files["a.csv"].read_bytes()
    (['a.csv', 'a.json'], b'1')
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder), ExitStack() as stack:
        for name in reversed(list(contents)):  # the last one entered gets its name first
            temporary = stack.enter_context(replacing(folder / name))
            with temporary.open("wb") as file:
                file.write(contents[name])
                file.flush()
                os.fsync(file.fileno())
    return {name: folder / name for name in contents}


def _sweep(path: Path) -> None:
    """Remove what killed processes left of this file."""
    for each in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
        try:
            handle = os.open(each, os.O_RDONLY)
        except OSError:  # somebody else was faster, or may not be disturbed
            continue
        try:
            settled = time.time() - os.fstat(handle).st_mtime > _SETTLED
            if settled and _lock(handle):
                each.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(handle)


def _lock(handle: int, *, wait: bool = False) -> bool:
    """Lock an open file for oneself, and say whether that went well."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _try_lock(handle: int, *, alone: bool) -> bool:
    """Lock an open file until it is closed, alone or with others; not where somebody else has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:  # any other one: the file system has no locks
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
