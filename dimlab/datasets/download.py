"""Find files of data sets, or download them: whole, checked, and under one atomic rename."""

from __future__ import annotations

import http.client
import logging
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dimlab.refusals import Refusal

TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 18  # bytes
_SCHEMES = ("http://", "https://", "file://")


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded from the folder ``base``, and the md5 that it must have."""

    name: str
    base: str
    md5: str

    @property
    def url(self) -> str:
        """Return its address; ``DIMLAB_MIRROR``, where set, replaces the official folder."""
        base = os.environ.get("DIMLAB_MIRROR") or self.base
        if not base.startswith(_SCHEMES):
            raise Refusal(f"DIMLAB_MIRROR must start with {', '.join(_SCHEMES)}; got {base!r}.")
        return f"{base.rstrip('/')}/{self.name}"


def cache_folder() -> Path:
    """Return the folder of downloads: ``DIMLAB_DATA``, or else the system's cache for dimlab."""
    import pooch

    chosen = os.environ.get("DIMLAB_DATA") or pooch.os_cache("dimlab")
    return Path(chosen).expanduser().absolute()


def find_files(names: Sequence[str], folders: Sequence[Path]) -> list[Path] | None:
    """Return one path per name, with or without ``.gz``, in the first folder that holds all."""
    for folder in folders:
        found = []
        for name in names:
            paths = (folder / name, folder / name.removesuffix(".gz"))
            found += [path for path in paths if path.is_file()][:1]
        if len(found) == len(names):
            return found
    return None


def check_md5(path: Path, md5: str) -> None:
    """Refuse a file whose content is not the official one."""
    import pooch

    found = pooch.file_hash(str(path), alg="md5")
    if found != md5:
        raise Refusal(
            f"{path.name} must have md5 {md5}; got {found}. Delete {path} and download it again."
        )


def fetch(remote: RemoteFile, folder: Path, *, searched: Sequence[Path] = ()) -> Path:
    """Download a file into a folder, unless it is there with the right md5; return its path."""
    # pooch renames the file into place once its md5 fits, and removes the temporary file on errors:
    # processes may fetch the same file at the same time
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
    """Show a bar of ``total`` steps (0: unknown) on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda n_steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda n_steps: bar.advance(task, n_steps)


def folders_of(data_dir: str | os.PathLike[str] | None, name: str, inner: str = "") -> list[Path]:
    """Return the user's folders to search; ``data_dir`` may be the ``inner`` one itself."""
    if data_dir is None:
        return []
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"data_dir must be an existing folder; got {str(folder)!r}.")
    return [folder / name, folder, *([folder.parent] if folder.name == inner else [])]
