"""Named files are read, and what cannot be used is told from what was misnamed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dimlab.io.files import Misnamed
from dimlab.text import say, visible

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.mask import DimensionMask
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint


class Unreadable(Exception):
    """A file that is there but cannot be used: a failure, not a misuse."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a reader refuses into ``Unreadable``.

    Yields
    ------
    None

    Raises
    ------
    Unreadable
        With the sentence of the ``ValueError``.
    Misnamed
        As it was raised: a misuse.
    """
    try:
        yield
    except Misnamed:
        raise
    except ValueError as error:
        raise Unreadable(str(error)) from error


@contextmanager
def said_on_stderr() -> Iterator[None]:
    """Say warnings as sentences on stderr.

    Yields
    ------
    None
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        say(f"note: {each.message}")


def load_data(name: str, split: str, data_dir: Path | None) -> ImageSet:
    """Load a split of a data set.

    Parameters
    ----------
    name, split : str
        As ``dimlab.datasets`` knows them.
    data_dir : Path or None
        Where to look first.

    Returns
    -------
    ImageSet
        The images.

    Raises
    ------
    ValueError
        If there is no data set of that name, or what is to be planted cannot be read.
    Unreadable
        If its files cannot be read.
    """
    from dimlab import datasets
    from dimlab.image_set import SPLITS

    # misuses, where what cannot be read is a failure
    datasets.check_name(name)
    if split not in SPLITS:
        raise ValueError(f"split must be train, validation or test; got {split!r}.")
    with reading():
        return datasets.load_images(name, split, data_dir=data_dir)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Checkpoint
        A run.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it holds features.
    Unreadable
        If it is no checkpoint.
    """
    from dimlab.interop.features import holds_features
    from dimlab.training.checkpoint import load_checkpoint

    if holds_features(path) and path.is_file():
        raise ValueError(f"checkpoint must be a file of dimlab train; got features, {path.name}.")
    with reading():
        return load_checkpoint(path)


def is_own(source: Path) -> bool:
    """Say whether a file is a checkpoint that dimlab wrote, not another tool.

    Parameters
    ----------
    source : Path
        Any file.

    Returns
    -------
    bool
        True also for a file that is not there or cannot be read: whoever reads it says so.
    """
    from dimlab.io.unpickle import read_torch_file
    from dimlab.training.checkpoint import has_format

    if source.suffix == ".safetensors" or str(source).startswith("timm:"):
        return False
    try:
        return has_format(read_torch_file(source))
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def names_of(sources: list[Path]) -> list[str]:
    """Name files in short: the folder of a ``checkpoint.pt``, else the stem; paths if equal.

    Parameters
    ----------
    sources : list of Path
        Different files.

    Returns
    -------
    list of str
        Different names, with escapes for characters that cannot be seen or written.

    Raises
    ------
    ValueError
        If a file is named twice.

    Examples
    --------
    >>> names_of([Path("runs/a/checkpoint.pt"), Path("features.safetensors")])
    ['a', 'features']
    """
    short = [
        visible(each.resolve().parent.name if each.name == "checkpoint.pt" else each.stem, keep="")
        for each in sources
    ]
    paths = [visible(str(each), keep="") for each in sources]
    names = short if len(set(short)) == len(short) else paths
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"files must differ; got {name} twice.")
    return names


def stems_of(names: list[str]) -> list[str]:
    """Turn different names into different stems of files, whatever is in them.

    Parameters
    ----------
    names : list of str
        From `names_of`.

    Returns
    -------
    list of str
        Without folders, hidden files and what makes a file's name too long.

    Examples
    --------
    >>> stems_of(["../a/x.npz", "b/x.npz"]), stems_of(["a/x", "a-x"])
    (['a-x.npz', 'b-x.npz'], ['1-a-x', '2-a-x'])
    """
    stems = [re.sub(r"[/\\:]+", "-", name).strip(".-")[:50] for name in names]
    if len(set(stems)) == len(stems) and all(stems):
        return stems
    return [f"{place}-{stem}" for place, stem in enumerate(stems, 1)]


def mask_of(representation: Representation) -> DimensionMask | None:
    """Give the mask that the features' checkpoint learned.

    Parameters
    ----------
    representation : Representation
        From `encode`, or from a file of it.

    Returns
    -------
    DimensionMask or None
        None where none was learned.
    """
    from dimlab.mask import DimensionMask

    weights = representation.meta.get("mask")
    return None if weights is None else DimensionMask(np.array(weights))
