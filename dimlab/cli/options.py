"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from dimlab.containers import json_of
from dimlab.devices import check_device
from dimlab.sources import reading
from dimlab.terminal import Gate
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.representation import Representation

_MOST = 1 << 31  # no dimension has such a number

Source = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of dimlab train.")]
Data = Annotated[
    str | None, typer.Option("--data", help="Data set; the checkpoint's own by default.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder (or file) of the data set.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for CSV, JSON and figure.", callback=lambda out: as_folder(out)
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="Where to compute: cpu, cuda, cuda:1.",
        callback=lambda name: _known_device(name),
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="Of figures: svg, png or pdf.", callback=lambda name: _known_format(name)
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="GATE",
        help="Exit with 3 where a number of the JSON meets it, or is not defined, as "
        "'n_harmful > 0'; repeatable.",
        callback=lambda gates: [str(Gate.of(each)) and each for each in gates or []],
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
K = Annotated[int, typer.Option("--k", help="Neighbours of the kNN reader.")]
Probed = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A checkpoint, or features: .safetensors, .npz, .npy, .pt, .csv, .tsv, .parquet.",
    ),
]
TrainFeatures = Annotated[
    Path | None,
    typer.Option(
        "--train",
        help="Train features, when FILE holds features; else half of a FILE that names no split.",
    ),
]
ArrayName = Annotated[
    str | None,
    typer.Option("--features", help="Name of the array of features in FILE, where it is unusual."),
]
LabelsOf = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="Name of the labels in FILE, or a file of them, joined by file name or row "
        "(labels.csv:COLUMN).",
    ),
]
Reader = Annotated[str, typer.Option(help="knn, ridge or logistic.")]
Masked = Annotated[bool, typer.Option("--masked", help="Multiply by the learned mask.")]
Temperature = Annotated[float, typer.Option(help="Temperature of the kNN votes.")]
Penalty = Annotated[float, typer.Option(help="Ridge penalty, times N_train.")]
MaxQueries = Annotated[
    int | None, typer.Option(help="Test samples to use, drawn at random; all by default.")
]
MaxTrain = Annotated[
    int | None,
    typer.Option(help="Train samples to use, drawn at random from each class; all by default."),
]
GroupsOf = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="JSON file of lists of dimensions (or of one id each), or 'redundant': those that "
        "dimlab redundancy finds on train ('redundant:0.9' for another cut).",
    ),
]
BasisName = Annotated[
    str | None, typer.Option("--basis", help="pca, whiten, varimax or ica, fitted on train.")
]
Measured = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="A checkpoint; features; or moments. Several files of features or moments are parts "
        "of one.",
    ),
]
Split = Annotated[str, typer.Option(help="Split of the checkpoint's data to measure.")]
FittedOn = Annotated[
    Path | None, typer.Option("--train", help="Train features, which --basis is fitted on.")
]
Views = Annotated[int, typer.Option("--views", help="Augmented views to encode of every image.")]
SaveMoments = Annotated[
    Path | None,
    typer.Option("--save-moments", help="Keep the moments (.safetensors), to merge later."),
]
# checkpoints of other tools
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet50_2, "
        "wide_resnet101_2, convnet or timm:NAME.",
    ),
]
Stem = Annotated[
    str | None, typer.Option("--stem", help="Of a ResNet: cifar, imagenet, solo-learn.")
]
LayoutName = Annotated[
    str | None, typer.Option("--layout", help="How the file is laid out, where it is not plain.")
]
Branch = Annotated[
    str | None,
    typer.Option("--branch", help="Which copy: teacher, student, ema, online, momentum."),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Run code that the file asks for. Know its author.")
]
AllowPartial = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-partial",
        help="Key of the encoder, or its beginning, that may be missing or differ; repeatable.",
    ),
]
AllowUntrained = Annotated[
    bool, typer.Option("--allow-untrained", help="Weights may show no sign of training.")
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        help="GB that the kNN search may take.",
        callback=lambda memory: _known_budget(memory),
    ),
]


def as_folder(out: Path | None) -> Path | None:
    """Refuse what cannot be a folder, before anything is read or computed.

    Parameters
    ----------
    out : Path or None
        What ``--out`` says; it may be there, or be made.

    Returns
    -------
    Path or None
        The same.

    Raises
    ------
    ValueError
        If it, or what it would lie in, is a file, or may not be written.
    """
    if out is None:
        return out
    there = next(each for each in (out, *out.absolute().parents) if _is_there(each))
    inside = "which" if there == out else f"and {there}"
    if not there.is_dir():
        what = "a file" if there.is_file() else "no folder"
        raise ValueError(f"out must be a folder, or become one; got {out}, {inside} is {what}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"out must be a folder; got {out}, {inside} may not be written.")
    return out


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"out must be a folder; got {path}: {error.strerror}.") from error
    return True


def _known_budget(memory: float | None) -> float | None:
    from dimlab.memory import check_budget

    check_budget(memory)
    return memory


def _known_device(name: str) -> str:
    check_device(name)
    return name


def _known_format(name: str) -> str:
    """Refuse an unknown format before anything long."""
    from dimlab.report import check_format

    if name != "svg":  # the default costs no import
        check_format(name)
    return name


@contextmanager
def cautions(command: str) -> Iterator[None]:
    """Show warnings of a probe as sentences on stderr.

    Parameters
    ----------
    command : str
        Whose they are.

    Yields
    ------
    None
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        say(f"dimlab {command}: caution: {each.message}")


def groups_in(text: str | None, train: Representation) -> Any:
    """Read groups of dimensions: none, the redundant ones of train, or those of a JSON file.

    Parameters
    ----------
    text : str or None
        What ``--groups`` says.
    train : Representation
        Whose redundant groups are found.

    Returns
    -------
    list or ndarray or None
        Groups as `ablate` takes them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    Unreadable
        If it holds no list.
    """
    if text is None:
        return None
    kind, _, cut = text.partition(":")
    if kind == "redundant":
        from dimlab.probes.find_redundancy import find_redundancy

        chosen: dict[str, Any] = {"cut": numbers_in("groups", cut)[0]} if cut else {}
        return list(find_redundancy(train, **chosen).groups)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(
            f"groups must be 'redundant' or a JSON file; got {text}, which is not there."
        )
    with reading():
        return _groups_of(path)


def _groups_of(path: Path) -> Any:
    try:
        found = json_of(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON; got {error}.") from error
    if not isinstance(found, list):
        raise ValueError(f"{path} must hold a list of groups; got {type(found).__name__}.")
    ids = bool(found) and not any(isinstance(each, list) for each in found)
    for each in [found] if ids else found:
        if not isinstance(each, list) or not all(type(i) is int and abs(i) < _MOST for i in each):
            raise ValueError(f"{path} must hold lists of dimensions; got {str(each)[:40]!r}.")
    return np.array(found) if ids else found


def numbers_in(name: str, text: str) -> list[float]:
    """Read numbers separated by commas.

    Parameters
    ----------
    name : str
        Of the option.
    text : str
        What it says.

    Returns
    -------
    list of float
        At least one.

    Raises
    ------
    ValueError
        If a part is no number.
    """
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} must be numbers separated by commas; got {text!r}.") from None
