"""Options that many commands share: their names, their help and what they refuse."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dimlab.cli.derive import INPUT, OUTPUT, Option, at_least, numbers_in, one_of, options_of
from dimlab.cli.gates import Gate
from dimlab.cli.inputs import PIXELS, reading
from dimlab.devices import check_device
from dimlab.images import CROPS, SPLITS
from dimlab.io.files import json_of
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.io.source import Source
    from dimlab.representation import Representation

_LARGEST = 1 << 31  # no dimension has such a number


def as_folder(out: Path) -> Path:
    """Refuse a path that cannot be a folder, before anything is read or computed."""
    there = next(each for each in (out, *out.absolute().parents) if _is_there(each))
    inside = "which" if there == out else f"and {there}"
    if not there.is_dir():
        what = "a file" if there.is_file() else "no folder"
        raise Refusal(f"out must be a folder, or become one; got {out}, {inside} is {what}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Refusal(f"out must be a folder; got {out}, {inside} may not be written.")
    return out


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # such as a name that is too long
        raise Refusal(f"out must be a folder; got {path}: {error.strerror}.") from error
    return True


def _known_memory(memory: float) -> float:
    if not (memory > 0 and math.isfinite(memory)):
        raise Refusal(f"memory must be > 0 and finite; got {memory:g}.")
    return memory


def _known_device(name: str) -> str:
    check_device(name)
    return name


def _known_format(name: str) -> str:
    from dimlab.report import check_format

    if name != "svg":  # the default costs no import
        check_format(name)
    return name


known_split = one_of("split", SPLITS)


def _known_basis(name: str) -> str:
    from dimlab.basis import KINDS

    return one_of("basis", KINDS)(name)


def _known_data(name: str) -> str:
    from dimlab.datasets import check_name

    check_name(name)
    return name


def known_reader(name: str) -> str:
    """Refuse a name that no reader has."""
    from dimlab.readers import as_reader

    as_reader(name)
    return name


def _known_readers(text: str) -> list[str]:
    return [known_reader(name) for name in text.split(",")]


def _gates(texts: list[str]) -> list[Gate]:
    return [Gate.of(each) for each in texts]


def _periods(texts: list[str]) -> list[tuple[str, float]]:
    """Read ``NAME=NUMBER`` pairs."""
    periods = []
    for each in texts:
        name, equals, text = each.partition("=")
        if not equals:
            raise Refusal(f"period must be COLUMN=NUMBER; got {each!r}.")
        period = numbers_in("period", text)[0]
        if not 0 < period < math.inf:
            raise Refusal(f"period must be a number > 0; got {text}.")
        periods.append((name, period))
    return periods


@dataclass(frozen=True)
class Groups:
    """What ``--groups`` says: lists of dimensions, or the redundant ones that train has."""

    source: Source | None
    cut: float | None = None

    @classmethod
    def of(cls, text: str) -> Groups:
        """Read ``redundant``, ``redundant:CUT`` or a JSON file."""
        kind, _, cut = text.partition(":")
        if kind == "redundant":
            return cls(None, cut=numbers_in("groups", cut)[0] if cut else None)
        path = Path(text)
        if not path.is_file():
            raise FileNotFoundError(
                f"groups must be 'redundant' or a JSON file; got {text}, which is not there."
            )
        from dimlab.io.source import open_table

        with reading():
            return cls(open_table(path, _lists_in))

    def among(self, train: Representation) -> Any:
        """Return the groups as probes take them."""
        if self.source is not None:
            return self.source.value
        from dimlab.probes.find_redundancy import find_redundancy

        chosen: dict[str, Any] = {} if self.cut is None else {"cut": self.cut}
        return list(find_redundancy(train, **chosen).groups)


def _lists_in(path: Path, file: BinaryIO) -> Any:
    try:
        found = json_of(file.read())
    except ValueError as error:
        raise Refusal(f"{path} must hold JSON; got {error}.") from error
    if not isinstance(found, list):
        raise Refusal(f"{path} must hold a list of groups; got {type(found).__name__}.")
    ids = bool(found) and not any(isinstance(each, list) for each in found)
    for each in [found] if ids else found:
        whole = isinstance(each, list) and all(type(i) is int and abs(i) < _LARGEST for i in each)
        if not whole:
            raise Refusal(f"{path} must hold lists of dimensions; got {str(each)[:40]!r}.")
    return np.array(found) if ids else found


def _input(flag: str, kind: Any, text: str, default: Any = None, **more: Any) -> Option:
    name = {"--features": "array", "--factors": "table"}
    plain = name.get(flag, flag.removeprefix("--").replace("-", "_"))
    return Option(plain, flag, kind, text, default, INPUT, **more)


FILE = Option(
    "source", "", Path,
    "A checkpoint, or features: .safetensors, .npz, .npy, .csv, .tsv, .jsonl, .ndjson, .parquet, "
    ".arrow, .h5, .hdf5, .h5ad, .pt, .pth, .ckpt, .bin or .tar.",
    ..., INPUT, metavar="FILE",
)  # fmt: skip
FILES = replace(
    FILE, name="sources", type=list[Path], metavar="FILE...",
    help=f"{FILE.help} Several are measured beside each other.",
)  # fmt: skip
PARTS = replace(
    FILES, help=f"{FILE.help} Several files of features, or of moments, are parts of one "
    "representation.",
)  # fmt: skip
_INPUTS = (
    _input("--train", Path, "Train features, where FILE holds features. By default they are the "
           "train split of FILE, or half of a FILE that names no split."),
    _input("--features", str, "Name of the array of features in FILE, where it is unusual."),
    _input("--labels", str, "Name of the labels in FILE, or a file of them (labels.csv:COLUMN)."),
    _input("--on", str, "Column that names the samples in FILE and in the file of labels or "
           "factors; filename, file or image_id by default, where both have it."),
    _input("--by-order", bool, "Rows of the file of labels or factors are in the order of the "
           "samples.", False),
    _input("--data", str, "Data set to encode; the checkpoint's own by default.",
           read=_known_data),
    _input("--data-dir", Path, "Folder (or file) of the data set."),
    _input("--image-size", int, "Side in pixels of the square that the encoder takes; by default "
           "its own.", read=at_least("image-size", 1)),
    _input("--resize", int, "Length in pixels of the short side before the centre is cropped; by "
           "default the encoder's own.", read=at_least("resize", 1)),
    _input("--crop", str, "How an image becomes a square: centre or squash.",
           read=one_of("crop", CROPS)),
    _input("--depth", int, "Levels of folders that name a class: 1, or 2 for group/class; 0 for no "
           "labels.", read=at_least("depth", 0)),
    _input("--image-column", str, "Column of the images in tables, where it is unusual."),
    _input("--label-column", str, "Column of the labels in tables, where it is unusual."),
    _input("--workers", int, "Processes that decode images; by default one a core.",
           read=at_least("workers", 0)),
    _input("--skip-bad", bool, "Leave out images that cannot be read, and count them.", False),
    _input("--split", str, "Split of the checkpoint's data to measure.", "test",
           read=known_split),
    _input("--views", int, "Augmented views of every image to encode.", 0,
           read=at_least("views", 0)),
    _input("--basis", str, "Basis to measure in, fitted on train: pca, whiten, varimax or ica.",
           read=_known_basis),
    _input("--masked", bool, "Multiply the features by the learned mask.", False),
    _input("--max-queries", int, "Test samples to use, drawn at random; all by default.",
           read=at_least("max-queries", 1)),
    _input("--max-train", int, "Train samples to use, drawn at random from each class; all by "
           "default.", read=at_least("max-train", 1)),
    _input("--factors", Path, "Table (.csv, .tsv, .jsonl, .parquet) of more factors, with a column "
           "that names the samples (--on) or counts them (row), and perhaps split."),
    _input("--continuous", str, "Factors of whole numbers that are continuous, separated by "
           "commas."),
    _input("--period", list[str], "Period of a factor that wraps, as angle=360; repeatable.",
           read=_periods),
    _input("--in-distribution", Path, "Held-out features like train; a checkpoint's validation "
           "split by default."),
    _input("--save-moments", Path, "File (.safetensors) in which to keep the moments, to merge "
           "them later."),
)  # fmt: skip
INPUTS = {each.name: each for each in _INPUTS}
DATA = f"data data_dir {' '.join(PIXELS)}"  # names of all that says what is encoded
# what many probes take, in the same words for all; the rest is said by the probe's own docstring
COMMON = {
    "reader": "Probe classifier that reads the features: knn, ridge or logistic.",
    "readers": "Readers (probe classifiers), separated by commas: knn, ridge, logistic.",
    "refit": "Fit the reader again without the group, or keep its weights frozen.",
    "score": "accuracy, balanced_accuracy or log_loss of classes; r2 of real values; "
    "mean_average_precision (or mean_average_precision_micro) of several labels a sample; without "
    "labels view_retrieval or neighbourhood.",
    "groups": "JSON file of lists of dimensions (or of one id each), or 'redundant': those that "
    "dimlab redundancy finds on train ('redundant:0.9' for another cut).",
    "k": "Neighbours that vote for the kNN reader.",
    "temperature": "Temperature of the kNN reader's votes.",
    "penalty": "Penalty of the ridge reader, times the number of train samples.",
    "clusters": "Factor that says which rows belong together, such as patient; rows are "
    "independent by default.",
    "n_blocks": "Blocks of samples behind the intervals; memory grows with them.",
    "n_bootstrap": "Bootstrap samples behind the intervals.",
    "n_permutations": "Permutations behind the p-values of factors.",
    "seed": "Seed of all randomness.",
    "device": "Where to compute: cpu, cuda, cuda:1.",
    "memory": "Memory in GB that the kNN search may take beside the features.",
}
_READ: dict[str, Callable[[Any], Any]] = {
    "device": _known_device, "memory": _known_memory, "seed": at_least("seed", 0),
    "groups": Groups.of, "reader": known_reader, "readers": _known_readers,
}  # fmt: skip
SEED = Option("seed", "--seed", int, COMMON["seed"], 0, read=at_least("seed", 0))
DEVICE = Option("device", "--device", str, COMMON["device"], "cpu", read=_known_device)
QUIET = Option("quiet", "--quiet", bool, "Show no progress on stderr.", False, OUTPUT)
OUT = Option("out", "--out", Path, "Folder for tables (CSV), JSON and figures.", None, OUTPUT,
             read=as_folder)  # fmt: skip
FORMAT = Option("figure_format", "--format", str, "Format of figures: svg, png or pdf.", "svg",
                OUTPUT, read=_known_format)  # fmt: skip
JSON = Option("as_json", "--json", bool, "Print JSON instead of tables.", False, OUTPUT)
FAIL_IF = Option("fail_if", "--fail-if", list[str], "Exit with code 3 where a number of the JSON "
                 "meets this, or is not defined, as 'n_harmful > 0'; repeatable.", None, OUTPUT,
                 read=_gates, metavar="GATE")  # fmt: skip
OUTPUTS = (OUT, FORMAT, JSON, FAIL_IF, QUIET)


def measured_by(
    function: Callable[..., Any],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    leave_out: Iterable[str] = (),
) -> list[Option]:
    """Return the options of a function's arguments; ``changes`` by argument for this command."""
    made = []
    for each in options_of(function, leave_out):
        if each.name in COMMON:
            each = replace(each, help=COMMON[each.name], read=_READ.get(each.name, each.read))
        made.append(replace(each, **(changes or {}).get(each.name, {})))
    return made
