"""Where a result is from, as it is recorded, and whether that can be had here once more."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.io.files import json_of

if TYPE_CHECKING:
    from dimlab.representation import Representation

NAME = "provenance.json"
RECORD = f".{NAME}"  # of a single result, behind its name
SAME, OTHER, GONE, CHANGED, UNKNOWN, NOTE = "same", "other", "gone", "changed", "unknown", "note"
WRITTEN = "written"
_PACKAGES = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}
_SHOWN = {**_PACKAGES, "matplotlib": "matplotlib"}  # figures alone depend on the last
_FILE, _SPLIT, _DATA, _HASH = "file ", "features of ", "labels of data set ", " (SHA-256)"
_IMAGES = "images of data set "
_LABELS, _TRAINED, _FOLDER = "labels of ", "trained with, ", "folder of data set "
_ROUNDING = ("machine", "processor", "threads", "platform")
_BYTES = 1 << 22


@dataclass(frozen=True)
class Point:
    """One thing that a result depends on, then and here.

    Parameters
    ----------
    name : str
        What it is.
    state : {"same", "other", "gone", "changed", "unknown", "note"}
        ``other``: numbers agree up to rounding at best; ``gone``: the result cannot be had;
        ``changed``: a file of the result is not what was written; ``unknown``: it was not recorded;
        ``note``: nothing depends on it here.
    text : str
        What was recorded and what is here.
    """

    name: str
    state: str
    text: str


@dataclass(frozen=True)
class Reproducibility:
    """Whether a result can be had here once more, and why.

    Parameters
    ----------
    points : tuple of Point
        Everything that was looked at.
    command : str
        What to run again; empty where it was not recorded.

    Examples
    --------
    >>> Reproducibility((Point("seed", "same", "0"),), "dimlab report a.pt").answer
    'can be reproduced here.'
    >>> Reproducibility((Point("a.pt", "gone", "a.pt is not there"),), "").answer
    'cannot be reproduced here: a.pt is not there.'
    >>> Reproducibility((Point("a.csv", "changed", "a.csv was changed since"),), "").answer
    'is not what was written: a.csv was changed since; what was written can be reproduced here.'
    """

    points: tuple[Point, ...]
    command: str

    @property
    def can(self) -> bool:
        """Whether what is here can, at least up to rounding."""
        return not any(point.state in (GONE, CHANGED, UNKNOWN) for point in self.points)

    @property
    def answer(self) -> str:
        """One sentence."""
        states: dict[str, list[Point]] = {}
        for point in self.points:
            states.setdefault(point.state, []).append(point)
        if CHANGED in states:
            said = "; ".join(each.text for each in states[CHANGED])
            rest = tuple(point for point in self.points if point.state != CHANGED)
            whole = Reproducibility(rest, self.command).answer
            return f"is not what was written: {said}; what was written {whole}"
        if GONE in states:
            return f"cannot be reproduced here: {'; '.join(each.text for each in states[GONE])}."
        if UNKNOWN in states:
            said = "; ".join(each.text for each in states[UNKNOWN])
            return f"cannot be said to be reproducible here: {said}."
        if OTHER in states:
            said = "; ".join(f"{each.name} {each.text}" for each in states[OTHER])
            return f"can be reproduced here up to rounding: {said}."
        return "can be reproduced here."

    def summary(self) -> dict[str, Any]:
        """Return answer, points and command, ready for JSON.

        Returns
        -------
        dict
            ``reproducible``, ``answer``, ``points`` and ``command``.
        """
        return {
            "reproducible": self.can,
            "answer": self.answer,
            "points": [vars(point) for point in self.points],
            "command": self.command,
        }


def environment() -> dict[str, Any]:
    """Name versions, machine and threads: what rounding depends on.

    Returns
    -------
    dict
        Ready for JSON.

    Examples
    --------
    >>> sorted(set(environment()) & {"dimlab", "threads", "torch"})
    ['dimlab', 'threads', 'torch']
    """
    from dimlab import __version__

    return {
        "dimlab": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(package) for name, package in _SHOWN.items()},
        "platform": sys.platform,
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": int(importlib.import_module("torch").get_num_threads()),
    }


def provenance_of(
    files: Sequence[Path],
    splits: Mapping[str, Representation],
    *,
    seed: int,
    device: str,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    images: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, Any]:
    """Record where a result is from.

    Parameters
    ----------
    files : sequence of Path
        What was named on the command line and read; folders are left out.
    splits : mapping of str to Representation
        What was measured, by names such as ``test, a``.
    seed : int
        Of all randomness.
    device : str
        Where it was computed.
    data : mapping of str to mapping, optional
        By checkpoint: its ``data``, and ``versions`` that trained it, empty if not known.
    images : mapping of (str, str) to str, optional
        Hashes of the images that were encoded, by data set and split.

    Returns
    -------
    dict
        Ready for JSON: the command, hashes of files, of features and labels, seed, versions.
    """
    known: dict[str, Any] = {}
    for path in dict.fromkeys(files):
        if path.is_file():
            known[f"{_FILE}{path}{_HASH}"] = hash_of_file(path)
    for name, split in splits.items():
        known[f"{_SPLIT}{name}{_HASH}"] = hash_of_rows(split.features)
        if split.labels is not None:
            known[f"{_LABELS}{name}{_HASH}"] = hash_of_rows(np.asarray(split.labels, "<i8"))
    for name, each in (data or {}).items():
        own = each["data"]
        known[f"{_DATA}{own['name']}, {own['split']}{_HASH}"] = own["labels_hash"]
        if own.get("folder"):
            known[f"{_FOLDER}{own['name']}"] = str(own["folder"])
        trained = ", ".join(f"{key} {value}" for key, value in each["versions"].items())
        if trained:  # another tool's checkpoint does not say
            known[f"{_TRAINED}{name}"] = trained
    for (name, split_name), digest in (images or {}).items():
        known[f"{_IMAGES}{name}, {split_name}{_HASH}"] = digest
    return {
        "command": shlex.join(["dimlab", *sys.argv[1:]]),
        "files": ", ".join(map(str, files)),
        **known,
        "seed": seed,
        "device": device,
        **environment(),
        "definitions": "docstrings of the probes (help(dimlab.ablate) and so on)",
    }


def records_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Find what records where results are from: a report's record, and those of single results.

    Parameters
    ----------
    folder : path
        Of a report, or of single results.

    Returns
    -------
    dict of str to Path
        By the name of the result, that of the report being empty; the report first.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("ablate.provenance.json", "provenance.json"):
    ...         _ = Path(folder, name).write_text("{}")
    ...     list(records_in(folder))
    ['', 'ablate']
    """
    found = {each.name.removesuffix(RECORD): each for each in Path(folder).glob(f"?*{RECORD}")}
    report = {"": Path(folder) / NAME}
    records = {**report, **dict(sorted(found.items()))}
    records = {name: path for name, path in records.items() if path.is_file()}
    if not records:
        raise FileNotFoundError(
            f"folder must hold a report of dimlab, with {NAME}, or results with records of their "
            f"own; got {folder}, without one."
        )
    return records


def check_provenance(record: str | os.PathLike[str]) -> Reproducibility:
    """Say whether what a record is of can be had here once more.

    Parameters
    ----------
    record : path
        Of a report or a single result, as `records_in` finds it.

    Returns
    -------
    Reproducibility
        Files are looked for where the command named them, seen from here or from beside the folder.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is damaged, or not of dimlab.

    Notes
    -----
    Probes agree to 1e-9 for any thread count; other processors and versions of packages change
    roundings. Another version of dimlab may define a number otherwise: that is not reproducing it.

    Examples
    --------
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recorded = provenance_of([], {}, seed=0, device="cpu") | {"command": "dimlab demo"}
    ...     _ = Path(folder, NAME).write_text(json.dumps(recorded))
    ...     found = check_provenance(Path(folder, NAME))
    >>> found.can, found.command
    (True, 'dimlab demo')
    """
    path = Path(record)
    if not path.is_file():
        raise FileNotFoundError(f"record must be a file; got {path}, which is not there.")
    try:
        recorded = json_of(path.read_bytes())
        if not _is_plain(recorded):
            raise ValueError
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} must be whole; got a damaged file. Run the command again."
        ) from error
    if "dimlab" not in recorded:
        raise ValueError(f"{path} must be written by dimlab; got one without its version.")
    points = [
        *_results(recorded, path),
        *_files(recorded, path.parent),
        *_data_sets(recorded),
        _device(recorded),
        *_versions(recorded),
    ]
    return Reproducibility(tuple(points), recorded.get("command", ""))


def _is_plain(recorded: Any) -> bool:
    """Whether a record holds texts and numbers, and names of files beside it with their hashes."""
    if not isinstance(recorded, dict):
        return False
    written = recorded.get(WRITTEN, {})
    texts = [
        value
        for key, value in recorded.items()
        if key in ("command", "files", "device") or key.endswith(_HASH) or key.startswith(_FOLDER)
    ]
    return (
        isinstance(written, dict)
        and all(Path(name).name == name for name in written)
        and all(isinstance(each, str) for each in (*texts, *written.values()))
    )


def _results(recorded: Mapping[str, Any], path: Path) -> Iterator[Point]:
    """Whether the files of the result are those that were written."""
    if WRITTEN not in recorded:
        yield Point("results", NOTE, "hashes of the result's own files were not recorded")
        return
    newer = _written_by_others(path)
    same = 0
    for name, digest in recorded[WRITTEN].items():
        place = path.parent / name
        if not place.is_file():
            yield Point(name, NOTE, f"{name} was written, and is not there")
            continue
        now = hash_of_file(place)
        if now == digest:
            same += 1
        elif now in newer.get(name, ()):
            yield Point(name, NOTE, f"{name} is of another result that was written since")
        else:
            yield Point(name, CHANGED, f"{name} was changed since it was written")
    if same:
        yield Point("results", SAME, f"{same} of {len(recorded[WRITTEN])} files as written")


def _written_by_others(path: Path) -> dict[str, set[str]]:
    """Hashes of files that other records of the same folder list, by name."""
    found: dict[str, set[str]] = {}
    for other in records_in(path.parent).values():
        try:
            listed = json_of(other.read_bytes())
        except (ValueError, OSError):
            continue
        if other != path and _is_plain(listed):
            for name, digest in listed.get(WRITTEN, {}).items():
                found.setdefault(name, set()).add(digest)
    return found


def _files(recorded: Mapping[str, Any], folder: Path) -> Iterator[Point]:
    hashes = {_between(key, _FILE): str(value) for key, value in recorded.items()}
    hashes.pop("", None)
    if not hashes and recorded.get("files"):
        yield Point(
            "files", UNKNOWN, f"no hash of {recorded['files']} was recorded; run the command again"
        )
    for name, digest in hashes.items():
        places = [Path(name), *([] if Path(name).is_absolute() else [folder.parent / name])]
        there = [place for place in places if place.is_file()]
        if not there:
            yield Point(name, GONE, f"{name} is not there")
        elif any(hash_of_file(place) == digest for place in there):
            yield Point(name, SAME, f"has the content recorded ({digest[:12]})")
        else:
            now = hash_of_file(there[0])
            yield Point(name, GONE, f"{name} differs ({now[:12]}, recorded {digest[:12]})")


def _data_sets(recorded: Mapping[str, Any]) -> Iterator[Point]:
    """Whether data sets have the labels, and those that were encoded the images, recorded."""
    from dimlab.datasets import load_images

    hashes = {
        **{(_between(key, _DATA), "labels"): value for key, value in recorded.items()},
        **{(_between(key, _IMAGES), "images"): value for key, value in recorded.items()},
    }
    known = [(data, what) for data, what in hashes if data]
    lost = set()
    for data in dict.fromkeys(data for data, _ in known):
        name, _, split = data.rpartition(", ")
        try:
            found = load_images(name, split, data_dir=recorded.get(f"{_FOLDER}{name}"))
        except (ValueError, OSError) as error:
            if name not in lost:
                yield Point(f"data set {name}", GONE, f"data set {name}: {str(error).rstrip('.')}")
            lost.add(name)
            continue
        for what in (what for each, what in known if each == data):
            here = found.labels_hash if what == "labels" else found.images_hash
            if here == hashes[data, what]:
                yield Point(f"data set {name}", SAME, f"{what} of {split} have the hash recorded")
            else:
                yield Point(
                    f"data set {name}", GONE, f"data set {name} has other {what} of {split}"
                )
    if known and not any(what == "images" for _, what in known):
        yield Point("images", NOTE, "images were not recorded, labels alone")


def _device(recorded: Mapping[str, Any]) -> Point:
    device = str(recorded.get("device", "cpu"))
    if not device.startswith("cuda"):
        return Point("device", SAME, device)
    cuda = importlib.import_module("torch").cuda
    number = device.partition(":")[2] or "0"
    if cuda.is_available() and number.isdecimal() and int(number) < cuda.device_count():
        return Point("device", SAME, device)
    return Point("device", GONE, f"device {device} is not there")


def _versions(recorded: Mapping[str, Any]) -> Iterator[Point]:
    here = environment()
    for name in ("dimlab", "python", *_SHOWN, *_ROUNDING):
        if name not in recorded:
            if name != "matplotlib":
                yield Point(name, NOTE, "not recorded")
        elif recorded[name] == here[name]:
            yield Point(name, SAME, str(here[name]))
        elif name == "dimlab":
            yield Point(
                name, GONE,
                f"dimlab is {here[name]} here, and this is of {recorded[name]}; pip install "
                f"dimlab=={recorded[name]}",
            )  # fmt: skip
        elif name == "matplotlib":
            yield Point(name, NOTE, f"{here[name]} here, {recorded[name]} then: figures alone")
        else:
            yield Point(name, OTHER, f"{here[name]} here, {recorded[name]} then")
    for key, value in recorded.items():
        if key.startswith(_TRAINED):
            yield _training(key.removeprefix(_TRAINED), str(value), here)


def _training(name: str, recorded: str, here: Mapping[str, Any]) -> Point:
    """Whether training the checkpoint again would give its bits: beside the question, a note."""
    known = dict(each.split(" ", 1) for each in recorded.split(", ") if " " in each)
    other = [
        f"{key} {here[key]} here, {value} then"
        for key, value in known.items()
        if key in here and str(here[key]) != value
    ]
    if other:
        text = f"would not be trained again bit for bit: {'; '.join(other)}"
    else:
        text = "would be trained again bit for bit on the machine that trained it"
    return Point(f"checkpoint {name}", NOTE, text)


def _between(key: str, start: str) -> str:
    return key[len(start) : -len(_HASH)] if key.startswith(start) and key.endswith(_HASH) else ""


def hash_of_file(path: Path) -> str:
    """Hash a file's bytes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_of_rows(rows: np.ndarray) -> str:
    """Hash the rows of an array, a few at a time.

    Parameters
    ----------
    rows : ndarray of shape (N, ...)
        Memory-mapped or not.

    Returns
    -------
    str
        SHA-256 of the values in memory order, hexadecimal.
    """
    digest = hashlib.sha256()
    for start in range(0, len(rows), 4096):
        digest.update(np.ascontiguousarray(rows[start : start + 4096]).tobytes())
    return digest.hexdigest()


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
