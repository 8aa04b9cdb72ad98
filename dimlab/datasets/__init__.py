"""Data sets of images, each in the three splits train, validation and test.

``__all__`` is the list of dimlab's own and nothing else: ``--data NAME`` looks there. The test
split is the official one. Validation is a stratified 10 % of the official train split, always the
same rows; "train" is the other 90 %. Where there is no official test split, a stratified 20 % is
held out as one.

Another package adds a data set by an entry point of the group ``dimlab.datasets``: a function
``name(split, folder) -> ImageSet``, where ``folder`` is the user's ``data_dir``, or None::

    [project.entry-points."dimlab.datasets"]
    satellites = "my_package.images:satellites"
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

from dimlab import outside
from dimlab.datasets.arrow import huggingface
from dimlab.datasets.folders import image_folder
from dimlab.datasets.official import cifar10, cifar100, digits, fashion_mnist, stl10
from dimlab.datasets.own import npz
from dimlab.datasets.splits import official_part, resized
from dimlab.datasets.tables import table
from dimlab.images import ImageSet
from dimlab.planted import check_plants, plant
from dimlab.refusals import Refusal, WrongType

__all__ = [
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "huggingface",
    "image_folder",
    "npz",
    "stl10",
    "table",
]

GROUP = "dimlab.datasets"  # of entry points
_BY_NAME = {name.replace("_", "-"): name for name in __all__ if name != "table"} | {"csv": "table"}
NAMES = tuple(sorted(_BY_NAME))
_READ = {  # what says how files are read, beside the size
    "image-folder": {"depth", "workers", "skip_bad"},
    "huggingface": {"image_column", "label_column", "workers", "skip_bad"},
    "csv": {"image_column", "label_column", "workers", "skip_bad"},
}


def load_images(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,  # None or "": the usual places
    image_size: int | None = None,  # None: the data set's own
    **reading: Any,  # how files are read; None is the usual way
) -> ImageSet:
    """Load a split of the data set of that name; ``+hue:0.8`` behind the name plants a factor."""
    known, planted = check_name(name, reading)
    folder = data_dir or None
    given = given_of(reading)
    if known in NAMES:
        given = {key: each for key, each in given.items() if key in _READ.get(known, ())}
        size = {} if image_size is None else {"image_size": image_size}
        load = globals()[_BY_NAME[known]]
        images: ImageSet = load(split, data_dir=folder, **size, **given)
    else:
        images = resized(_from_outside(known, split, folder), image_size)
    return plant(images, planted) if planted else images


def given_of(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a user says of how files are read; 0 is said, None and False are the usual."""
    return {key: each for key, each in reading.items() if not (each is None or each is False)}


def check_name(name: str, reading: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """Split a data set's name, with hyphens, from the factors to plant in it; check all."""
    known, plus, planted = name.partition("+")
    known = known.replace("_", "-")
    if known not in NAMES:
        everything = (*NAMES, *_outside())
        if known not in everything:
            close = difflib.get_close_matches(known, everything, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise Refusal(f"data must be one of {', '.join(everything)}; got {name!r}.{hint}")
    given = set(given_of(reading or {})) - {"workers", "skip_bad"}
    for key in sorted(given - _READ.get(known, set())):
        has = ", ".join(each for each in _READ if key in _READ[each])
        raise Refusal(f"{key} must be left out for {known}; it belongs to {has or 'no data set'}.")
    if plus:
        check_plants(planted)
    return known, planted


def _outside() -> dict[str, EntryPoint]:
    """Return the data sets that other packages add, by name."""
    return {name.replace("_", "-"): each for name, each in outside.added(GROUP).items()}


def _from_outside(name: str, split: str, folder: Any) -> ImageSet:
    """Load a data set that another package adds, so that its name and folder find it again."""
    official_part(split)
    entry = _outside()[name]
    images = outside.loaded(entry)(split, folder)
    if not isinstance(images, ImageSet) or images.split not in ("", split):
        raise WrongType(
            f"{entry.value} must return an ImageSet of the split {split}; got {images!r}."
        )
    where = images.folder or ("" if folder is None else os.path.abspath(folder))
    return replace(images, name=name, split=split, folder=where)
