"""Records of where a result is from, and comparisons of such a record with what is here."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.io.files import digest, json_of, mapped
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.representation import Representation

NAME = "provenance.json"
RECORD = f".{NAME}"  # of a single result, behind its name
WRITTEN = "written"
_PACKAGES = {"numpy": "numpy", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}
_HASH = " (SHA-256)"
_KEY = re.compile(r"(file|labels of data set|images of data set) (.*) \(SHA-256\)", re.DOTALL)
_TRAINED, _FOLDER = "trained with, ", "folder of data set "


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
    with path.open("rb") as file:
        return digest(mapped(file))


def hash_of_rows(rows: np.ndarray) -> str:
    """Return the SHA-256 of an array's values (N, ...) in memory order, hexadecimal."""
    found = hashlib.sha256()
    for start in range(0, len(rows), 4096):
        found.update(np.ascontiguousarray(rows[start : start + 4096]).tobytes())
    return found.hexdigest()


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
        f"file {path}{_HASH}": each for path, each in files.items() if each is not None
    }
    for name, split in splits.items():
        known[f"features of {name}{_HASH}"] = hash_of_rows(split.features)
        if split.labels is not None:
            stored = "<f8" if split.labels.dtype.kind == "f" else "<i8"
            known[f"labels of {name}{_HASH}"] = hash_of_rows(np.asarray(split.labels, stored))
    for name, each in (data or {}).items():
        own = each["data"]
        known[f"labels of data set {own['name']}, {own['split']}{_HASH}"] = own["labels_hash"]
        if own.get("folder"):
            known[f"{_FOLDER}{own['name']}"] = str(own["folder"])
        trained = ", ".join(f"{key} {value}" for key, value in each["versions"].items())
        if trained:  # another tool's checkpoint does not say
            known[f"{_TRAINED}{name}"] = trained
    for (name, split_name), found in (images or {}).items():
        known[f"images of data set {name}, {split_name}{_HASH}"] = found
    return {
        "command": shlex.join(["dimlab", *sys.argv[1:]]),
        "files": ", ".join(map(str, files)),
        **known,
        "seed": seed,
        "device": device,
        **environment(),
        "definitions": "docstrings of the probes (help(dimlab.ablate) and so on)",
    }


# Comparing a record with what is here -------------------------------------------------------------


def records_in(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Find the records in a folder by the names of their results; first the report's, ``""``."""
    found = {each.name.removesuffix(RECORD): each for each in Path(folder).glob(f"?*{RECORD}")}
    records = {"": Path(folder) / NAME, **dict(sorted(found.items()))}
    records = {name: path for name, path in records.items() if path.is_file()}
    if not records:
        raise FileNotFoundError(
            f"folder must hold a report of dimlab, with {NAME}, or results with records of their "
            f"own; got {folder}, which holds none."
        )
    return records


def check_provenance(path: Path) -> dict[str, Any]:
    """Compare the hashes and versions of a record with what is here, ready for JSON."""
    try:
        recorded = dict(json_of(path.read_bytes()))
        written = dict(recorded.pop(WRITTEN, {}))
    except (ValueError, TypeError) as error:
        raise Refusal(
            f"{path} must be whole; got a damaged file. Run the command again."
        ) from error
    if "dimlab" not in recorded:
        raise Refusal(f"{path} must be written by dimlab; got one without its version.")
    points = [_point(name, then, _hash_at(path.parent / name)) for name, then in written.items()]
    points += [*_read(recorded, path.parent.parent), *_versions(recorded)]
    same, rounding, other = (
        [each["text"] for each in points if each["state"] == state]
        for state in ("same", "rounding", "other")
    )
    answer = f"matches its record: {len(same)} hashes and versions are the same"
    if rounding:
        answer = f"can be reproduced up to rounding: {'; '.join(rounding)}"
    if other:
        answer = f"does not match its record: {'; '.join(other)}"
    answers = {"reproducible": not other, "answer": f"{answer}."}
    return {**answers, "points": points, "command": str(recorded.get("command", ""))}


def _point(name: str, then: Any, now: str | None) -> dict[str, str]:
    """Compare a hash with that of what is here, None where it is not there."""
    if then == now:
        return {"name": name, "state": "same", "text": "the same"}
    text = f"{name} is not there" if now is None else f"{name} has changed"
    return {"name": name, "state": "other", "text": text}


def _hash_at(path: Path) -> str | None:
    return hash_of_file(path) if path.is_file() else None


def _read(recorded: Mapping[str, Any], beside: Path) -> Iterator[dict[str, str]]:
    """Compare what was read: files here or beside the folder, labels and images of data sets."""
    from dimlab.datasets import load_images

    load = cache(load_images)
    for found in filter(None, map(_KEY.fullmatch, recorded)):
        then, kind, name = recorded[found[0]], found[1], found[2]
        if kind == "file":
            yield _point(name, then, _hash_at(Path(name)) or _hash_at(beside / name))
            continue
        data, _, split = name.rpartition(", ")
        try:
            images = load(data, split, data_dir=recorded.get(f"{_FOLDER}{data}"))
        except (ValueError, TypeError, OSError) as error:
            yield {"name": found[0], "state": "other", "text": f"data set {data}: {error}"}
            continue
        what = "images" if kind.startswith("images") else "labels"
        yield _point(f"data set {data}, {what} of {split},", then, getattr(images, f"{what}_hash"))


def _versions(recorded: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Compare versions and machine: another dimlab may define a number otherwise, others round."""
    here = environment()
    here.pop("matplotlib")  # figures alone depend on it
    for name in (each for each in here if each in recorded):
        then, now = recorded[name], here[name]
        other = "other" if name == "dimlab" else "rounding"
        text = f"{name} is {now} here, {then} in the record"
        yield {"name": name, "state": "same" if then == now else other, "text": text}
