"""Labels: ids of class names, labels of another file, the same ids in every split."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dimlab.columns import refuse_gaps
from dimlab.io.arrays import (
    ENDINGS,
    TABLES,
    Arrays,
    by_split,
    flat_text,
    in_table,
    numbers_and_text_in,
    plain,
    read_file,
    read_rows,
    shapes_of,
    split_column,
    text_of,
)
from dimlab.io.files import Misnamed, listed, naming
from dimlab.io.tables import KEYS, ending_of, join
from dimlab.names import COUNTS, FILES, LABELS, NAMES, ROW, one_spelling, spelled, word_of
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.targets import target_of

_NO_CLASSES = ("split", *FILES, *NAMES, *COUNTS)  # what names rows, or splits


def with_labels(
    found: Representation,
    where: str,
    source: str,
    *,
    on: str | None = None,
    by_order: bool = False,
    read: Callable[[Path], Arrays] | None = None,
) -> Representation:
    """Take labels from another file (``file`` or ``file:column``), by a key or in their order."""
    path, column = Path(where), None
    if not path.is_file() and ":" in where:
        name, column = where.rsplit(":", 1)
        path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"labels must be a file, or the name of an array of {source}; got {path}, which is "
            f"{'a folder' if path.is_dir() else 'not there'}."
        )
    with naming(path):
        arrays = _of_split((read or read_labels)(path), found, path, source)
        name = _labels_name(arrays, column, on, path)
        columns = {each: flat_text(array) for each, array in arrays.items()}
        shape = (len(columns[name]),)
        table = {each: array for each, array in columns.items() if array.shape == shape}
        alone = on is None and not arrays.unusable and set(arrays) == {name}
        keys = {on} if on is not None else {ROW, *KEYS} & {ROW, *found.factors}
        for each in keys if not (by_order or alone) else ():
            arrays.check(each)
        rows = join(found, table, on=on, by_order=by_order or alone, name=path.name)
        classes, class_names = label_values(arrays[name][rows], [arrays[name]], name)
    meta = {key: value for key, value in found.meta.items() if key != "class_names"}
    meta |= {"class_names": class_names} if class_names is not None else {}
    return found._trusted(labels=target_of(classes, len(found)), meta=meta)


def read_labels(path: Path, file: BinaryIO | None = None) -> Arrays:
    """Read a file of labels (open as ``file``); numbered columns of a table stay columns."""
    if file is None:
        with path.open("rb") as file:
            return read_labels(path, file)
    if ending_of(path) in TABLES:
        return in_table(read_rows(path, file), apart=True)
    if ending_of(path) not in ENDINGS:
        raise Refusal(f"labels must be a file of {', '.join(ENDINGS)}; got {path.name!r}.")
    return numbers_and_text_in(path, read_file(path, file))


def _of_split(arrays: Arrays, found: Representation, path: Path, source: str) -> Arrays:
    """Return the rows of the features' own split, where the file tells splits apart."""
    split = str(found.meta.get("split", ""))
    try:
        by_column = split_column(arrays) is not None
    except Refusal:
        if split:
            raise
        # numbers, as of folds: of no matter where the features name no split
        arrays, by_column = arrays.without("split"), False
    parts = by_split(arrays, vectors=ending_of(path) not in TABLES)
    if split in parts or "" in parts:
        return parts[split] if split in parts else parts[""]
    of_none = by_column or any(plain(name) in LABELS for name in arrays)
    of_splits = by_column or any(plain(name) in LABELS for each in parts.values() for name in each)
    if not of_splits or (not split and of_none):
        return arrays
    if not split and len(parts) == 1:
        return next(iter(parts.values()))
    raise Refusal(
        f"{path.name} must hold labels of the split of {source}, {split or 'which names none'}; "
        f"got {', '.join(parts)}."
    )


def _labels_name(arrays: Arrays, column: str | None, on: str | None, path: Path) -> str:
    """Return the name of the labels: as said, a usual one, or the only one that names no rows."""
    if column is not None:
        arrays.check(column)
        if column not in arrays:
            known = listed(each for each in arrays if word_of(each) != "split") or "none"
            raise Misnamed(f"columns of {path.name} must be among {known}; got {column!r}.")
        return column
    usual = usual_labels(arrays)
    if usual is not None:
        return usual
    values = [name for name in arrays if word_of(name) not in _NO_CLASSES and name != on]
    if len(values) == 1 or len(arrays) == 1:
        return [*values, *arrays][0]
    for name in arrays.unusable if not values else ():
        arrays.check(name)
    what, known = "an array", shapes_of(arrays, values)
    if ending_of(path) in TABLES:
        what, known = "a column", listed(values) or "none"
    raise Misnamed(
        f"labels must name {what} of {path.name}, one of {known}; got nothing. Write "
        f"{path.name}:NAME."
    )


def usual_labels(arrays: Arrays, n_samples: int | None = None) -> str | None:
    """Return what is called as labels are, of ``n_samples``; what cannot be used is refused."""
    for word in LABELS:
        for name in (*arrays, *arrays.unusable):
            fits = n_samples is None or name not in arrays or len(arrays[name]) == n_samples
            if plain(name) == word and fits:
                arrays.check(name)
                return name
    return None


def is_file_of_labels(labels: str | os.PathLike[str] | None) -> bool:
    """Say whether labels name another file, rather than an array."""
    if labels is None:
        return False
    name = os.fspath(labels)
    return Path(name).is_file() or ending_of(Path(name.rsplit(":", 1)[0])) in ENDINGS


def label_values(
    values: np.ndarray, every: list[np.ndarray], name: str
) -> tuple[np.ndarray, list[str] | None]:
    """Turn labels into class ids with their names, real values, or several labels a sample."""
    # `every`: those of all splits, which decide together what they are
    if values.dtype.kind in "US":
        whole = one_spelling(np.concatenate([text_of(each) for each in every]), name)
        names = np.unique(whole)
        return np.searchsorted(names, spelled(text_of(values))), [str(each) for each in names]
    if values.ndim == 2 and values.shape[1] > 1:
        if not all(np.isin(each, (0, 1)).all() for each in every):
            return _real(values, name), None
        if all((each.sum(axis=1) == 1).all() for each in every):
            return values.argmax(axis=1), None
        _assume(name, "several labels a sample (a matrix of 0 and 1)")
        return values.astype(np.int64), None
    flat = values.reshape(-1) if values.shape == (len(values), 1) else values
    if flat.dtype.kind == "f":
        refuse_gaps(np.isnan(flat), f"labels {name!r}")
        if all(_are_whole(each) for each in every):
            return flat.astype(np.int64), None
        return _real(flat, name), None
    return flat.astype(np.int64) if flat.dtype.kind == "b" else flat, None


def _are_whole(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return len(known) == values.size and bool(
        (np.abs(known) < 2.0**63).all() and (known == np.floor(known)).all()
    )


def _real(values: np.ndarray, name: str) -> np.ndarray:
    _assume(name, "real values (--target classes reads whole numbers as classes)")
    return values.astype(np.float64)


def _assume(name: str, what: str) -> None:
    warnings.warn(f"assumed: labels {name!r} are {what}.", UserWarning, stacklevel=3)
