"""Where a result is from, as it is recorded beside it, and whether that can be had here once more.

Probes agree to 1e-9 for any thread count; other processors and versions of packages change
roundings. Another version of dimlab may define a number otherwise: that is not reproducing it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.devices import check_device
from dimlab.io.files import json_of
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.representation import Representation

NAME = "provenance.json"
RECORD = f".{NAME}"  # of a single result, behind its name
WRITTEN = "written"
SAME, OTHER, GONE, CHANGED, UNKNOWN, NOTE = "same", "other", "gone", "changed", "unknown", "note"
_PACKAGES = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}
_ROUNDING = ("machine", "processor", "threads", "platform")
_HASH = " (SHA-256)"
_KEY = re.compile(r"(file|labels of data set|images of data set) (.*) \(SHA-256\)", re.DOTALL)
_TRAINED, _FOLDER = "trained with, ", "folder of data set "
_TEXTS = ("command", "files", "device")
_BYTES = 1 << 22


def environment() -> dict[str, Any]:
    """Name versions, machine and threads: what rounding depends on."""
    from dimlab import __version__

    return {
        "dimlab": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(package) for name, package in _PACKAGES.items()},
        "matplotlib": metadata.version("matplotlib"),  # figures alone depend on it
        "platform": sys.platform,
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": int(importlib.import_module("torch").get_num_threads()),
    }


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:  # no Linux
        pass
    return platform.processor() or platform.machine()


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BYTES):
            digest.update(block)
    return digest.hexdigest()


def hash_of_rows(rows: np.ndarray) -> str:
    """Return the SHA-256 of an array's values (N, ...) in memory order, hexadecimal."""
    digest = hashlib.sha256()
    for start in range(0, len(rows), 4096):
        digest.update(np.ascontiguousarray(rows[start : start + 4096]).tobytes())
    return digest.hexdigest()


def provenance_of(
    files: Mapping[Path, str | None],
    splits: Mapping[str, Representation],
    *,
    seed: int,
    device: str,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    images: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, Any]:
    """Record command, hashes of files, features and labels, seed and versions, ready for JSON."""
    # `files`: as named on the command line, with hashes of what was read (None for folders);
    # `data`: by checkpoint, its data and the versions that trained it; `images`: hashes by data set
    # and split
    known: dict[str, Any] = {
        f"file {path}{_HASH}": digest for path, digest in files.items() if digest is not None
    }
    for name, split in splits.items():
        known[f"features of {name}{_HASH}"] = hash_of_rows(split.features)
        if split.labels is not None:
            known[f"labels of {name}{_HASH}"] = hash_of_rows(np.asarray(split.labels, "<i8"))
    for name, each in (data or {}).items():
        own = each["data"]
        known[f"labels of data set {own['name']}, {own['split']}{_HASH}"] = own["labels_hash"]
        if own.get("folder"):
            known[f"{_FOLDER}{own['name']}"] = str(own["folder"])
        trained = ", ".join(f"{key} {value}" for key, value in each["versions"].items())
        if trained:  # another tool's checkpoint does not say
            known[f"{_TRAINED}{name}"] = trained
    for (name, split_name), digest in (images or {}).items():
        known[f"images of data set {name}, {split_name}{_HASH}"] = digest
    return {
        "command": shlex.join(["dimlab", *sys.argv[1:]]),
        "files": ", ".join(map(str, files)),
        **known,
        "seed": seed,
        "device": device,
        **environment(),
        "definitions": "docstrings of the probes (help(dimlab.ablate) and so on)",
    }


# Whether a result can be had here once more -------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One thing that a result depends on, then and here."""

    name: str
    # other: numbers agree up to rounding at best; gone: the result cannot be had; changed: a file
    # is not what was written; unknown: it was not recorded; note: nothing depends on it here
    state: str
    text: str


@dataclass(frozen=True)
class Reproducibility:
    """Whether a result can be had here once more, and why; ``command`` is what to run again."""

    points: tuple[Point, ...]
    command: str

    @property
    def can(self) -> bool:
        """Whether what is here can, at least up to rounding."""
        return not any(point.state in (GONE, CHANGED, UNKNOWN) for point in self.points)

    @property
    def answer(self) -> str:
        """One sentence."""
        changed = [each.text for each in self.points if each.state == CHANGED]
        if changed:
            rest = tuple(each for each in self.points if each.state != CHANGED)
            whole = Reproducibility(rest, self.command).answer
            return f"is not what was written: {'; '.join(changed)}; what was written {whole}"
        for state, words in (
            (GONE, "cannot be reproduced here"),
            (UNKNOWN, "cannot be said to be reproducible here"),
            (OTHER, "can be reproduced here up to rounding"),
        ):
            said = [
                f"{each.name} {each.text}" if state == OTHER else each.text
                for each in self.points
                if each.state == state
            ]
            if said:
                return f"{words}: {'; '.join(said)}."
        return "can be reproduced here."

    def summary(self) -> dict[str, Any]:
        """Return ``reproducible``, ``answer``, ``points`` and ``command``, ready for JSON."""
        points = [vars(point) for point in self.points]
        answer = {"reproducible": self.can, "answer": self.answer}
        return {**answer, "points": points, "command": self.command}


def records_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the records of a folder by the names of their results; first the report's, ``""``."""
    found = {each.name.removesuffix(RECORD): each for each in Path(folder).glob(f"?*{RECORD}")}
    records = {"": Path(folder) / NAME, **dict(sorted(found.items()))}
    records = {name: path for name, path in records.items() if path.is_file()}
    if not records:
        raise FileNotFoundError(
            f"folder must hold a report of dimlab, with {NAME}, or results with records of their "
            f"own; got {folder}, without one."
        )
    return records


def read_record(path: Path) -> dict[str, Any]:
    """Read a record: hashes, texts and numbers by name, and hashes of the files beside it."""
    try:
        recorded = json_of(path.read_bytes())
        written = recorded.get(WRITTEN, {})
        texts = [
            v for k, v in recorded.items() if k in _TEXTS or k.startswith(_FOLDER) or _HASH in k
        ]
        if not all(isinstance(each, str) for each in (*texts, *written.values())):
            raise ValueError
        if any(Path(name).name != name for name in written):
            raise ValueError
    except (ValueError, AttributeError, OSError) as error:
        raise Refusal(
            f"{path} must be whole; got a damaged file. Run the command again."
        ) from error
    if "dimlab" not in recorded:
        raise Refusal(f"{path} must be written by dimlab; got one without its version.")
    return recorded


def check_provenance(record: str | os.PathLike[str]) -> Reproducibility:
    """Compare a record with what is here; files are looked for here and beside the folder."""
    recorded = read_record(Path(record))
    points = [*_written(recorded, Path(record)), *_read(recorded, Path(record).parent.parent)]
    points += [*_device(str(recorded.get("device", "cpu"))), *_versions(recorded)]
    return Reproducibility(tuple(dict.fromkeys(points)), recorded.get("command", ""))


def _written(recorded: Mapping[str, Any], path: Path) -> Iterator[Point]:
    """Compare the files of the result with those that were written."""
    if WRITTEN not in recorded:
        yield Point("results", NOTE, "hashes of the result's own files were not recorded")
        return
    others = [each for each in records_in(path.parent).values() if each != path]
    newer = [pair for each in others for pair in read_record(each).get(WRITTEN, {}).items()]
    now = {name: _hash_at(path.parent / name) for name in recorded[WRITTEN]}
    for name, then in recorded[WRITTEN].items():
        if now[name] is None:
            yield Point(name, NOTE, f"{name} was written, and is not there")
        elif now[name] != then and (name, now[name]) in newer:
            yield Point(name, NOTE, f"{name} is of another result, written since")
        elif now[name] != then:
            yield Point(name, CHANGED, f"{name} was changed since it was written")
    same = sum(now[name] == then for name, then in recorded[WRITTEN].items())
    if same:
        yield Point("results", SAME, f"{same} of {len(now)} files as written")


def _hash_at(path: Path) -> str | None:
    return hash_of_file(path) if path.is_file() else None


def _read(recorded: Mapping[str, Any], beside: Path) -> Iterator[Point]:
    """Compare the files, and the labels and images of data sets, that were read."""
    from dimlab.datasets import load_images

    keys = [found for found in map(_KEY.fullmatch, recorded) if found]
    kinds, load = {each[1] for each in keys}, cache(load_images)
    if recorded.get("files") and "file" not in kinds:
        text = f"no hash of {recorded['files']} was recorded; run the command again"
        yield Point("files", UNKNOWN, text)
    if kinds == {"file", "labels of data set"}:
        yield Point("images", NOTE, "images were not recorded, labels alone")
    for key in keys:
        then, name = recorded[key[0]], key[2]
        if key[1] == "file":
            found = {_hash_at(Path(name)), _hash_at(beside / name)} - {None}
            same = f"has the content recorded ({then[:12]})"
            other = f"{name} differs" if found else f"{name} is not there"
        else:
            data, _, split = name.rpartition(", ")
            what, name, found = key[1].split()[0], f"data set {data}", set()
            same, other = f"{what} of {split} have the hash recorded", f"{name} has other {what}"
            try:
                images = load(data, split, data_dir=recorded.get(f"{_FOLDER}{data}"))
                found = {images.images_hash if what == "images" else images.labels_hash}
                other += f" of {split}"
            except (ValueError, OSError) as error:
                other = f"{name}: {str(error).rstrip('.')}"
        yield Point(name, SAME, same) if then in found else Point(name, GONE, other)


def _device(device: str) -> Iterator[Point]:
    """Say whether the device is there."""
    try:
        check_device(device)
        yield Point("device", SAME, device)
    except ValueError:
        yield Point("device", GONE, f"device {device} is not there")


def _versions(recorded: Mapping[str, Any]) -> Iterator[Point]:
    """Compare versions and machine, and say whether training again would give the same bits."""
    here = environment()
    for name in ("dimlab", "python", *_PACKAGES, "matplotlib", *_ROUNDING):
        then, now = recorded.get(name), here[name]
        text = f"{now} here, {then} then"
        if name not in recorded or then == now:
            yield Point(name, *((SAME, str(now)) if name in recorded else (NOTE, "not recorded")))
        elif name == "dimlab":
            yield Point(name, GONE, f"{name} is {text}; pip install dimlab=={then}")
        else:  # figures alone depend on matplotlib
            yield Point(name, NOTE if name == "matplotlib" else OTHER, text)
    for key in (key for key in recorded if key.startswith(_TRAINED)):
        known = dict(each.split(" ", 1) for each in str(recorded[key]).split(", ") if " " in each)
        other = [
            f"{name} {here[name]} here, {then} then"
            for name, then in known.items()
            if name in here and str(here[name]) != then
        ]
        text = "would be trained again bit for bit on the machine that trained it"
        if other:
            text = f"would not be trained again bit for bit: {'; '.join(other)}"
        yield Point(f"checkpoint {key.removeprefix(_TRAINED)}", NOTE, text)
