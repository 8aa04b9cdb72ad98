"""Classes of samples: ids of names, labels from other files, the same ids in every split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimlab.factor_table import FILE, ROW, FactorTable
from dimlab.interop.arrays import ENDINGS, TABLES, numbers_and_text, plain, read_table, shapes_of
from dimlab.representation import Representation

LABELS = ("labels", "label", "targets", "target", "y", "classes", "class", "class_id")
FILES = (FILE, "filename", "filenames", "files", "path", "paths", "image_path", "image")


def aligned(*splits: Representation) -> list[Representation]:
    """Give the same class the same id in each split, where classes have names.

    Parameters
    ----------
    *splits : Representation
        Their ``meta["class_names"]`` are compared.

    Returns
    -------
    list of Representation
        Ids follow the alphabetical order of all names.

    Raises
    ------
    ValueError
        If some have class names and others have labels without.

    Examples
    --------
    >>> train = Representation(np.eye(2), labels=[0, 1], meta={"class_names": ["cat", "dog"]})
    >>> test = Representation(np.eye(2), labels=[0, 0], meta={"class_names": ["dog"]})
    >>> [each.labels.tolist() for each in aligned(train, test)]
    [[0, 1], [1, 1]]
    """
    named = [each.meta.get("class_names") for each in splits if each.labels is not None]
    if all(names is None for names in named) or all(names == named[0] for names in named):
        return list(splits)
    known = [names for names in named if names is not None]
    if len(known) < len(named):
        raise ValueError(
            "labels must be class names in all files, or class ids in all; got both kinds."
        )
    names = sorted({name for each in known for name in each})
    return [
        each
        if each.labels is None
        else replace(
            each,
            labels=np.searchsorted(names, each.meta["class_names"])[each.labels],
            meta={**each.meta, "class_names": names},
        )
        for each in splits
    ]


def text_of(array: np.ndarray) -> np.ndarray:
    """Return text as text, bytes decoded; other arrays as they are."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def is_file_of_labels(labels: str | os.PathLike[str] | None) -> bool:
    """Say whether labels name another file, rather than an array."""
    if labels is None:
        return False
    name = os.fspath(labels)
    return Path(name).is_file() or Path(name.rsplit(":", 1)[0]).suffix in ENDINGS


def class_ids(
    values: np.ndarray, every: list[np.ndarray], name: str
) -> tuple[np.ndarray, list[str] | None]:
    """Class ids, and the names of the classes where they have any."""
    if values.dtype.kind in "US":
        names = np.unique(np.concatenate([text_of(each) for each in every]))
        return np.searchsorted(names, text_of(values)), [str(each) for each in names]
    if values.ndim == 2 and values.shape[1] > 1:
        if not np.isin(values, (0, 1)).all() or not (values.sum(axis=1) == 1).all():
            raise ValueError(
                f"labels must be one class a sample; got {name!r} of shape {values.shape}, which "
                "is not one-hot."
            )
        return values.argmax(axis=1), None
    flat = values.reshape(-1) if values.shape == (len(values), 1) else values
    if flat.dtype.kind == "f":
        whole = flat.astype(np.int64) if np.isfinite(flat).all() else None
        if whole is None or not (whole == flat).all():
            raise ValueError(
                f"labels must be class ids or class names; got numbers with fractions in {name!r}. "
                "A continuous target is a factor: rename it, or name the labels."
            )
        return whole, None
    return flat.astype(np.int64) if flat.dtype.kind == "b" else flat, None


def with_labels(found: Representation, where: str) -> Representation:
    """Take labels from another file: joined by file name or row number, or row by row."""
    path, column = Path(where), None
    if not path.is_file() and ":" in where:
        name, column = where.rsplit(":", 1)
        path = Path(name)
    if path.suffix in TABLES:
        values = _joined(found, path, column)
    else:
        arrays = numbers_and_text(path)
        vectors = [name for name, array in arrays.items() if len(array) == len(found)]
        known = [name for word in LABELS for name in vectors if plain(name) == word] or vectors
        if column is not None:
            known = [name for name in vectors if name == column]
        if not known:
            raise ValueError(
                f"{path.name} must hold one label for each of the {len(found)} samples; got "
                f"{shapes_of(arrays)}."
            )
        values = arrays[known[0]]
    classes, names = class_ids(values, [values], path.name)
    meta = {key: value for key, value in found.meta.items() if key != "class_names"}
    meta |= {"class_names": names} if names is not None else {}
    return replace(found, labels=classes, meta=meta)


def _joined(found: Representation, path: Path, column: str | None) -> np.ndarray:
    frame = read_table(path)
    frame = frame.rename(
        columns={each: FILE for each in frame.columns if plain(each) in FILES}
        | {each: ROW for each in frame.columns if plain(each) == ROW}
    )
    values = [each for each in frame.columns if each not in (FILE, ROW, "split")]
    if column is None:
        known = [each for word in LABELS for each in values if plain(each) == word]
        if not known and len(values) != 1:
            raise ValueError(
                f"labels must name a column of {path.name}, one of {', '.join(values) or 'none'}; "
                f"got nothing. Write {path.name}:COLUMN."
            )
        column = known[0] if known else values[0]
    if column not in values:
        raise ValueError(
            f"columns of {path.name} must be among {', '.join(values) or 'none'}; got {column!r}."
        )
    if FILE not in found.factors or FILE not in frame:
        if ROW not in frame:
            frame = frame.assign(row=np.arange(len(frame)))
        frame = frame[[each for each in frame.columns if each != FILE]]
    keys = [each for each in frame.columns if each in (FILE, ROW, "split")]
    table = FactorTable(path.name, frame[[*keys, column]].rename(columns={column: "label of it"}))
    return table.join(found).factors["label of it"]
