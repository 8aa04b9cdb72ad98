"""Images that a table of the user's own lists, with labels and factors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.columns import factor_of
from dimlab.datasets.folders import Paths
from dimlab.datasets.splits import checked_parts, official_part, part_of
from dimlab.images import ImageFiles, ImageSet
from dimlab.io.files import DAMAGED, Misnamed, listed, reason_of
from dimlab.names import FILES, SPLIT, word_of
from dimlab.refusals import Refusal

LABELS = ("label", "labels", "class", "target", "finelabel")


def table(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None,
    image_size: int | None = None,
    resize: int | None = None,
    crop: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
) -> ImageSet:
    r"""Image files of your own that a CSV file lists, with labels and factors.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        The table (``.csv`` or ``.tsv``), with a column ``path`` (or ``file``, ``filename``,
        ``image``), perhaps ``label`` and ``split``. Paths are relative to the table. Every other
        column is a factor.
    image_size, resize, crop, workers, skip_bad
        As in `image_folder`.
    image_column : str, optional
        Name of the column of images, where it is unusual.
    label_column : str, optional
        Name of the column of labels, where it is unusual. Whole numbers are class ids, text names
        classes.

    Returns
    -------
    ImageSet
        Three channels, decoded when they are needed.

    Raises
    ------
    ValueError
        If the split is unknown or empty, a column is missing or has gaps, or a number is out of
        range; when it is decoded, if an image cannot be read.
    FileNotFoundError
        If there is no such table.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8), "red").save(Path(folder) / "a.png")
    ...     text = "path,label,split,site\na.png,cat,train,north\na.png,dog,test,south\n"
    ...     _ = (Path(folder) / "photos.csv").write_text(text)
    ...     images = table("test", data_dir=Path(folder) / "photos.csv")
    >>> images, images.class_names, images.factors["site"].tolist()
    (ImageSet('csv', test, 1 images of 3 x 32 x 32, 2 classes), ('cat', 'dog'), ['south'])
    """
    official_part(split)
    if data_dir is None:
        raise Misnamed("csv needs data_dir: pass a table of paths and labels.")
    path = Path(data_dir).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"data_dir must be a table; got {str(path)!r}, which is not there.")
    stamp = path.stat()
    frame = _read(path, (stamp.st_mtime_ns, stamp.st_size))
    columns = {str(name): np.asarray(frame[name], dtype=np.str_) for name in frame.columns}
    image = column_named(path.name, columns, image_column, FILES, "image_column")
    label = column_named(path.name, columns, label_column, LABELS, "label_column")
    if image is None or len(frame) == 0 or "" in columns[image]:
        got = "no such column" if image is None else "a row without"
        raise Misnamed(
            f"{path.name} must name an image in every row; got {got}. Pass image_column "
            f"(--image-column), one of {listed(columns)}."
        )
    names = columns.pop(image)
    labels, class_names = classes_of(columns.pop(label), label) if label else (None, ())
    parts = next((columns.pop(name) for name in list(columns) if word_of(name) == SPLIT), None)
    factors = {name: _numbers(each, name) for name, each in columns.items() if (each != "").any()}
    whole = ImageSet(
        ImageFiles.of(
            Paths(path.parent, names), names, image_size=image_size, resize=resize, crop=crop,
            workers=workers, skip_bad=skip_bad,
        ),
        labels,
        factors={"file": names} | factors,
        name="csv",
        folder=str(path),
        class_names=class_names,
        reading=given(image_column=image_column, label_column=label_column),
    )  # fmt: skip
    return part_of(whole, split, None if parts is None else checked_parts(parts, len(names)))


@lru_cache(maxsize=1)
def _read(path: Path, stamp: tuple[int, int]) -> Any:
    """Read a table once for all of its splits; another stamp is that of a changed file."""
    import pandas as pd

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except DAMAGED as error:
        raise Refusal(f"{path.name} must be a table of text; got {reason_of(error)}.") from error


def _numbers(text: np.ndarray, name: str) -> np.ndarray:
    """Return a column of text as numbers where all of it is plain numbers."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(text), errors="coerce")
    zeros = any(re.match(r"-?0\d", each) for each in text.tolist())  # 007 is a name
    if numbers.isna().any() or zeros:
        return factor_of(text, name)
    return factor_of(numbers.to_numpy(), name)


def classes_of(values: np.ndarray, name: str) -> tuple[np.ndarray, Sequence[str]]:
    """Return class ids and names of labels: whole numbers are ids, text names classes."""
    if values.dtype.kind == "U" and (values == "").any():
        row = int(np.flatnonzero(values == "")[0])
        raise Refusal(f"column {name!r} must hold a label in every row; got none in row {row}.")
    if values.dtype.kind == "U" and all(re.fullmatch(r"0|[1-9]\d*", e) for e in values.tolist()):
        values = values.astype(np.int64)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind in "iu":
        if values.min() < 0:
            raise Refusal(f"column {name!r} must hold class ids >= 0; got {values.min()}.")
        return values, ()
    if values.dtype.kind != "U":
        raise Refusal(
            f"column {name!r} must hold class ids or names of classes; got {values.dtype}. Pass "
            "label_column (--label-column)."
        )
    class_names, labels = np.unique(values, return_inverse=True)
    return labels, class_names.tolist()


def column_named(
    file: str, columns: Iterable[str], asked: str | None, usual: Sequence[str], option: str
) -> str | None:
    """Return the column that is asked for, or the only one with a usual name, or None."""
    there = list(columns)
    found = [each for each in there if word_of(each) in usual] if asked is None else [asked]
    flag = f"{option} (--{option.replace('_', '-')})"
    if not set(found) <= set(there):
        raise Misnamed(f"{flag} must be a column of {file}, {listed(there)}; got {asked!r}.")
    if len(found) > 1:
        raise Misnamed(
            f"{flag} must name one column of {file}, which has {listed(found)}; got nothing."
        )
    return found[0] if found else None


def given(**options: str | None) -> dict[str, str]:
    """Return the options that are given."""
    return {name: each for name, each in options.items() if each is not None}
