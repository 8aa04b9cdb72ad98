"""Writing files so that a reader sees the old ones or the new ones, never half of them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"
_JOURNAL = f".together{TEMPORARY}"
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
    with _beside(Path(path)) as (temporary, settle):
        yield temporary
        settle()
        os.replace(temporary, path)


@contextmanager
def _beside(
    path: Path, *, journal: Path | None = None
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Give a temporary file, and what brings it to the disk; it is gone at the end, if it is there.

    A journal that is there at the end keeps it.
    """
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    temporary, handles = Path(name), [handle]

    def settle() -> None:
        os.fsync(handle)
        temporary.chmod(0o666 & ~_umask())  # mkstemp's files are private
        if fcntl is None:
            os.close(handles.pop())  # Windows renames no open file

    try:
        _lock(handle)  # says that somebody is at work on it
        yield temporary, settle
    except OSError as error:
        # an error without a number is a sentence already: a name would take its place
        if error.errno is not None and error.filename in (None, name, temporary):
            error.filename = str(path)
        raise
    finally:
        for each in handles:
            os.close(each)
        if journal is None or not journal.exists():
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
    Where a file system has no locks, nothing is held. What a killed process had begun to put in
    place (`write_together`) is put in place first.
    """
    if fcntl is None:
        _go_on(Path(folder))
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=True)
        _go_on(Path(folder))
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
    folder: str | os.PathLike[str],
    contents: Mapping[str, bytes],
    *,
    outdated: Callable[[], Mapping[str, str]] | None = None,
) -> dict[str, Path]:
    """Write files that belong together: the folder has all the old ones, then all the new ones.

    Parameters
    ----------
    folder : path
        Made if missing.
    contents : mapping of str to bytes
        By file name, in the order in which they get their names.
    outdated : callable, optional
        Asked when the folder is held: old files that are to go, by name, with the `digest` of their
        contents. One with another content is somebody else's, and stays.

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
    one of them. When the new files are whole on the disk, a journal (``.together.tmp``) says which
    get which names; a process that is killed behind that point leaves the rest to whoever holds the
    folder next, one that is killed before it leaves the old files.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_together(folder, {"a.csv": b"1", "a.json": b"[1]"})
    ...     sorted(files), files["a.csv"].read_bytes()
    ...     old = {"a.json": digest(b"[1]"), "a.csv": digest(b"of mine")}
    ...     _ = write_together(folder, {"b.csv": b"2"}, outdated=lambda: old)
    ...     sorted(os.listdir(folder))
    (['a.csv', 'a.json'], b'1')
    ['a.csv', 'b.csv']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / _JOURNAL
    with holding(folder), ExitStack() as stack:
        moves: dict[str, str] = {}
        for name, content in contents.items():
            temporary, settle = stack.enter_context(_beside(folder / name, journal=journal))
            if (folder / name).is_dir():  # while there is a way back
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
            temporary.write_bytes(content)
            settle()
            moves[temporary.name] = name
        leaving = dict(outdated() if outdated is not None else {})
        leaving = {name: each for name, each in leaving.items() if name not in contents}
        with replacing(journal) as begun:
            begun.write_text(json.dumps({"moves": moves, "leaving": leaving}), encoding="utf-8")
        try:
            _put_in_place(folder, moves, leaving)
        except KeyboardInterrupt:
            _put_in_place(folder, moves, leaving)
            raise
    return {name: folder / name for name in contents}


def digest(content: bytes) -> str:
    """Return what tells one content of a file from another.

    Parameters
    ----------
    content : bytes
        All of it.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    return hashlib.sha256(content).hexdigest()


def _go_on(folder: Path) -> None:
    """Put in place what a killed process left in the folder, its journal says under which names."""
    try:
        found = json.loads((folder / _JOURNAL).read_text(encoding="utf-8"))
        moves, leaving = dict(found["moves"]), dict(found["leaving"])
        for name in (*moves.values(), *leaving):
            if not name or Path(name).name != name or name.startswith("."):
                raise ValueError(name)
        for temporary, name in moves.items():
            if not (temporary.startswith(f".{name}.") and temporary.endswith(TEMPORARY)):
                raise ValueError(temporary)
            if Path(temporary).name != temporary:
                raise ValueError(temporary)
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        moves, leaving = {}, {}  # nobody of dimlab wrote it
    _put_in_place(folder, moves, leaving)


def _put_in_place(folder: Path, moves: Mapping[str, str], leaving: Mapping[str, str]) -> None:
    """Give files their names, remove what leaves, then the journal; what is done stays done."""
    refused: OSError | None = None
    for temporary, name in moves.items():
        try:
            os.replace(folder / temporary, folder / name)
        except FileNotFoundError:  # it has its name already
            continue
        except OSError as error:
            refused = error
    for name, known in leaving.items():
        try:
            if not (folder / name).is_symlink() and digest((folder / name).read_bytes()) == known:
                (folder / name).unlink()
        except OSError:  # it has gone, or is no file
            continue
    (folder / _JOURNAL).unlink(missing_ok=True)
    if refused is not None:
        raise refused


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
