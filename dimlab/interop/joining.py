"""Labels of another file find their samples: by name where rows have names, else in their order.

Rows that have names are never joined in their order: a label file in another order would give each
sample the label of another one, and nothing would look wrong.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimlab.factor_table import places
from dimlab.interop.arrays import (
    TABLES,
    Arrays,
    by_split,
    columns_of,
    numbers_and_text,
    plain,
    read_table,
    shapes_of,
    split_column,
    text_of,
)
from dimlab.interop.classes import LABELS, class_ids
from dimlab.io.files import Misnamed, naming
from dimlab.names import COUNTS, FILES, NAMES, ROW, SPLIT_WORDS, tidied, without_zeros, word_of
from dimlab.representation import Representation
from dimlab.tables import ending_of

_RANKS = ("file", "name", "count", "text", "number")  # of what may name rows, the likeliest first
_ROOT = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")  # of a path that begins at one
_ENDING = re.compile(r"\.(?=\d*[A-Za-z])[A-Za-z0-9]{1,5}$")  # not the last number of several

Keys = dict[str, np.ndarray]


def keys_of(arrays: Mapping[str, np.ndarray], n_rows: int, *, without: str | None = None) -> Keys:
    """Find what may name rows: files, other names, counts, and any text.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of a file.
    n_rows : int
        N.
    without : str, optional
        An array that is something else.

    Returns
    -------
    dict of str to ndarray of shape (N,)
        Integers or text; files first, then other names, counts, text.
    """
    found = [
        (name, _flat(array))
        for name, array in arrays.items()
        if name != without and array.shape in ((n_rows,), (n_rows, 1)) and _kind(name, _flat(array))
    ]
    return dict(sorted(found, key=lambda each: _RANKS.index(_kind(*each))))


def _flat(array: np.ndarray) -> np.ndarray:
    """Text as text, whole floats as integers, one axis."""
    array = text_of(array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array)
    if array.dtype.kind != "f" or not (np.abs(array.astype(np.float64)) < 2.0**53).all():
        return array
    whole = array.astype(np.int64)
    return whole if (whole == array).all() else array


def _kind(name: str, array: np.ndarray) -> str:
    """Say what a column may name rows by, numbers of anything last; empty: by nothing."""
    word = word_of(name)
    if array.dtype.kind not in "iuUS":
        return ""
    is_text = array.dtype.kind in "US"
    if word in FILES:
        return "file"
    if word in NAMES or (word in COUNTS and is_text):
        return "name"
    if word in COUNTS:
        return "count"
    return "" if word == "split" else "text" if is_text else "number"


def _lost(arrays: Arrays, n_rows: int, name: str, keys: Keys) -> tuple[int, str] | None:
    """Say of a column that is called as names of rows are why it cannot name them; None: none is.

    With its rank. A value that is missing makes floats of whole numbers, and nothing of text; what
    is no such column, as pictures or names of classes, is lost only where the samples have names.
    """
    words = dict.fromkeys(map(word_of, keys), _RANKS.index("text"))
    for rank, usual in enumerate((FILES, NAMES, COUNTS)):
        words |= dict.fromkeys(usual, rank)
    named = any(_kind(*each) in ("file", "name") for each in keys.items())
    found = []
    for each, sentence in arrays.unusable.items():
        if word_of(each) in words and (named or "must be there for every row" in sentence):
            found.append((words[word_of(each)], sentence))
    for each, array in arrays.items():
        if each == name or array.ndim != 1 or word_of(each) not in words:
            continue
        rank = words[word_of(each)]
        if len(array) != n_rows and (named or 2 * len(array) > n_rows):
            sentence = f"{each!r} must name {n_rows} rows of labels; got {len(array)} names."
            found.append((rank, sentence))
        elif array.dtype.kind == "f" and np.isnan(array).any():
            row = int(np.flatnonzero(np.isnan(array))[0])
            sentence = f"column {each!r} must be there for every row; got none in row {row}."
            found.append((rank, sentence))
    return min(found, default=None, key=lambda each: each[0])


def with_labels(found: Representation, where: str, keys: Keys, source: str) -> Representation:
    """Take labels from another file.

    Parameters
    ----------
    found : Representation
        N samples.
    where : str
        The file, or ``file:column``.
    keys : dict of str to ndarray
        What may name the samples, as `keys_of` finds it.
    source : str
        Name of the features' file.

    Returns
    -------
    Representation
        With its labels, by name where rows have names, else row by row.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no labels or several, or its rows have names that are not those of the samples.
    Misnamed
        If it has no such column, or none is named where there are several.

    Warns
    -----
    UserWarning
        If the samples have names and the labels have none.
    """
    path, column = Path(where), None
    if not path.is_file() and ":" in where:
        name, column = where.rsplit(":", 1)
        path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"labels must be a file, or the name of an array of {source}; got {path}, which is "
            "not there."
        )
    with naming(path):
        arrays = _of_split(_read(path), str(found.meta.get("split", "")), path, source)
        name = _labels_name(arrays, column, path)
        n_rows = len(arrays[name])
        known = keys_of(arrays, n_rows, without=name)
        sides = _Sides(keys, known, len(found), n_rows, source, path.name)
        values = arrays[name][_rows(sides, _lost(arrays, n_rows, name, keys))]
        classes, class_names = class_ids(values, [values], name)
    meta = {key: value for key, value in found.meta.items() if key != "class_names"}
    meta |= {"class_names": class_names} if class_names is not None else {}
    return replace(found, labels=classes, meta=meta)


def _read(path: Path) -> Arrays:
    if ending_of(path) not in TABLES:
        return numbers_and_text(path)
    frame = read_table(path)
    return columns_of(frame, list(frame.columns))


def _of_split(arrays: Arrays, split: str, path: Path, source: str) -> Arrays:
    """Rows of the features' own split, where the file tells splits apart."""
    try:
        by_column = split_column(arrays) is not None
    except ValueError:
        if split:
            raise
        # numbers, as of folds: of no matter where the features name no split
        arrays = arrays.without("split")
        by_column = False
    parts = by_split(arrays, vectors=ending_of(path) not in TABLES)
    labelled = any(plain(name) in LABELS for part in parts.values() for name in part)
    if "" in parts or not (by_column or labelled):
        return arrays
    if split in parts:
        return parts[split]
    whole = any(plain(name) in LABELS for name in arrays)  # besides those of a split
    if not split and (by_column or whole):
        return arrays
    if split or len(parts) > 1:
        raise ValueError(
            f"{path.name} must hold labels of the split of {source}, {split or 'which names none'}"
            f"; got {', '.join(parts)}."
        )
    return next(iter(parts.values()))


def _labels_name(arrays: Arrays, column: str | None, path: Path) -> str:
    """Name of the labels: as it was said, one of the usual ones, or the only one that is no key."""
    if column is not None:
        arrays.check(column)
        if column not in arrays:
            known = ", ".join(each for each in arrays if word_of(each) != "split") or "none"
            raise Misnamed(f"columns of {path.name} must be among {known}; got {column!r}.")
        return column
    for word in LABELS:
        for name in (*arrays, *arrays.unusable):
            if plain(name) == word:
                arrays.check(name)
                return name
    values = [
        name
        for name, array in arrays.items()
        if word_of(name) != "split" and not _names(name, array)
    ]
    if len(values) == 1:
        return values[0]
    if len(arrays) == 1:
        return next(iter(arrays))
    for name in arrays.unusable if not values else ():
        arrays.check(name)
    if ending_of(path) in TABLES:
        raise Misnamed(
            f"labels must name a column of {path.name}, one of {', '.join(values) or 'none'}; "
            f"got nothing. Write {path.name}:COLUMN."
        )
    raise Misnamed(
        f"labels must name an array of {path.name}, one of {shapes_of(arrays, values)}; got "
        f"nothing. Write {path.name}:NAME."
    )


def _names(name: str, array: np.ndarray) -> bool:
    """Whether a column is called as names of rows are, and tells rows apart."""
    array = _flat(array)
    if array.ndim != 1:
        return False
    kind = _kind(name, array)
    return kind in ("file", "count") or (kind == "name" and _is_unique(array))


class _Sides:
    """Names of the samples, and of the rows of labels, that may be numbers of anything."""

    def __init__(
        self, ours: Keys, theirs: Keys, n_samples: int, n_rows: int, source: str, file: str
    ) -> None:
        self.ours, self.theirs = ours, theirs
        self.n_samples, self.n_rows = n_samples, n_rows
        self.source, self.file = source, file
        self.texts = [
            {name: _as_text(array) for name, array in side.items()} for side in (ours, theirs)
        ]
        self.short = _Shortened()
        self._unique: dict[str, bool] = {}

    def rank(self, theirs: str) -> int:
        """How likely a column of the labels names rows; 0 is likeliest."""
        return _RANKS.index(_kind(theirs, self.theirs[theirs]))

    def pairs(self) -> list[tuple[str, str]]:
        """Columns of both sides that may name the same, the likeliest first.

        A count is that of another count alone. A number of anything is that of a number which is
        called the same and tells rows apart on both sides, and an id of one that is called the
        same, or counts files.
        """
        found = []
        for place, (theirs, array) in enumerate(self.theirs.items()):
            for ours, other in self.ours.items():
                kinds = {_kind(theirs, array), _kind(ours, other)}
                same = word_of(theirs) == word_of(ours)
                numbers = "U" not in (array.dtype.kind, other.dtype.kind)
                if "number" in kinds and not (same and _is_unique(array) and _is_unique(other)):
                    continue
                if numbers and not same and "file" not in kinds and kinds != {"count"}:
                    continue
                if kinds == {"count"} or "count" not in kinds:
                    found.append(((not same, self.rank(theirs), place), theirs, ours))
        return [(theirs, ours) for _, theirs, ours in sorted(found, key=lambda each: each[0])]

    def numbers(self) -> list[tuple[str, str]]:
        """Pairs of which one is a number of anything."""
        return [
            (theirs, ours)
            for theirs, ours in self.pairs()
            if "number" in (_kind(theirs, self.theirs[theirs]), _kind(ours, self.ours[ours]))
        ]

    def is_unique(self, theirs: str) -> bool:
        """Whether a column of the labels tells rows apart."""
        if theirs not in self._unique:
            self._unique[theirs] = _is_unique(self.theirs[theirs])
        return self._unique[theirs]

    def match(self, theirs: str, ours: str) -> np.ndarray | None:
        """Row of each sample, by a column of each side."""
        if not self.is_unique(theirs):
            return None
        return _matched(self.texts[0][ours], self.texts[1][theirs], self.short)

    def nearly(self, theirs: str, ours: str) -> bool:
        """Whether two columns that are called as names are, or alike, name some rows alike."""
        kinds = {_kind(theirs, self.theirs[theirs]), _kind(ours, self.ours[ours])}
        alike = word_of(theirs) == word_of(ours) and _tells(self.theirs[theirs])
        if not (kinds <= {"file", "name"} or (alike and kinds == {"text"})):
            return False
        return self.overlap(theirs, ours) > 0

    def overlap(self, theirs: str, ours: str) -> int:
        """How many samples are named in a column: as they are, or half of them in short."""
        wanted, keys = self.texts[0][ours], self.texts[1][theirs]
        count = int(np.isin(wanted, keys).sum())
        if count:
            return count
        short = self.short(_without_ending, wanted), self.short(_without_ending, keys)
        shortened = int(np.isin(short[0], short[1]).sum())
        return shortened if 2 * shortened >= len(wanted) else 0


def _rows(sides: _Sides, lost: tuple[int, str] | None) -> np.ndarray:
    """Row of the labels for each sample; refused where names of rows are lost and others fail.

    Nothing less likely stands in for names that nearly fit, or are lost.
    """
    matches: dict[tuple[str, str], np.ndarray] = {}
    near: list[tuple[str, str]] = []
    known: tuple[set[str], set[str]] = set(), set()  # columns of labels and of samples
    for theirs, ours in sides.pairs():
        rank = sides.rank(theirs)
        if rank > 1 and any(sides.rank(each) < rank for each, _ in matches):
            continue
        both_files = word_of(theirs) in FILES and word_of(ours) in FILES
        if not both_files and (theirs in known[0] or ours in known[1]):
            continue  # they fit already, or are of a column of their own name
        found = sides.match(theirs, ours)
        if found is not None:
            matches[theirs, ours] = found
        elif sides.nearly(theirs, ours):
            near.append((theirs, ours))
        else:
            continue
        if found is not None or word_of(theirs) == word_of(ours):
            known[0].add(theirs)
            known[1].add(ours)
    if matches:
        best = next(iter(matches))
        rank = sides.rank(best[0])
        if lost is not None and lost[0] < rank:
            raise ValueError(lost[1])
        fit = [set(side) for side in zip(*matches, strict=True)]
        for theirs, ours in near:
            if sides.rank(theirs) <= rank and theirs not in fit[0] and ours not in fit[1]:
                _refuse([theirs], [ours], sides)
        _check_agreement(matches, sides)
        return matches[best]
    if lost is not None:
        raise ValueError(lost[1])
    numbers = sides.numbers()
    keys = [name for name, array in sides.theirs.items() if _names(name, array)]
    keys += [name for name in sides.theirs if name not in keys and _overlap(name, sides)]
    named = [name for name, array in sides.ours.items() if _kind(name, array) in ("file", "name")]
    keys += [theirs for theirs, _ in numbers if theirs not in keys]
    named += [ours for _, ours in numbers if ours not in named]
    in_order = sides.n_rows == sides.n_samples and all(
        _is_count(sides.theirs[name]) for name in keys
    )
    rows = [name for name in keys if word_of(name) == ROW]
    if keys and not in_order and rows and (len(rows) == len(keys) or not named):
        return places(sides.theirs[rows[0]], np.arange(sides.n_samples), ROW, sides.file)
    if keys and not in_order:
        _refuse(keys, named, sides)
    if sides.n_rows != sides.n_samples:
        short = sides.n_rows + 1 == sides.n_samples and ending_of(Path(sides.file)) in TABLES
        hint = " The first line names the columns, and is none of them." if short else ""
        raise ValueError(
            f"{sides.file} must have a row for each of the {sides.n_samples} samples; got "
            f"{sides.n_rows} rows.{hint}"
        )
    _check_order(sides)
    if named:
        warnings.warn(
            f"{sides.file} does not name its rows: its labels are those of the rows of "
            f"{sides.source} in their order, though these have names ({named[0]}).",
            UserWarning,
            stacklevel=4,
        )
    return np.arange(sides.n_samples)


def _check_order(sides: _Sides) -> None:
    """Refuse rows in their order where columns of one name on both sides say that it is another."""
    for theirs, array in sides.theirs.items():
        for ours, other in sides.ours.items():
            kinds = _kind(theirs, array), _kind(ours, other)
            if word_of(theirs) != word_of(ours) or "count" in kinds:
                continue
            first, second = _each(_number, _as_text(array)), _each(_number, _as_text(other))
            apart = np.flatnonzero(first != second)
            if not len(apart):
                continue
            row = int(apart[0])
            got = (
                f"{theirs!r} {str(array[row])[:60]!r} in row {row}, where {sides.source} has "
                f"{str(other[row])[:60]!r}"
            )
            if _in_another_order(first, second):
                raise ValueError(
                    f"{sides.file} must name each row of {sides.source} once, or be in its order; "
                    f"got {got}. Name the rows alike in one column, without gaps."
                )
            warnings.warn(
                f"labels of {sides.file} are those of the rows of {sides.source} in their order, "
                f"though these differ: {got}.",
                UserWarning,
                stacklevel=5,
            )


def _in_another_order(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether columns of the same values differ as often as by chance, or about half of that."""
    if _tells(first) and _tells(second):
        return True
    values, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    shares = [np.bincount(each, minlength=len(values)) / len(first) for each in np.split(place, 2)]
    by_chance = float(shares[0] @ shares[1])
    return by_chance > 0 and bool(np.mean(first != second) > (1 - by_chance) / 2)


def _tells(array: np.ndarray) -> bool:
    """Whether a column tells most rows apart."""
    return 2 * len(np.unique(array)) > len(array)


def _check_agreement(matches: Mapping[tuple[str, str], np.ndarray], sides: _Sides) -> None:
    """Refuse two columns of names that send samples to different rows."""
    named = [
        pair
        for pair in matches
        if sides.rank(pair[0]) < _RANKS.index("count")
        and (word_of(pair[0]) == word_of(pair[1]) or all(word_of(each) in FILES for each in pair))
    ]
    for pair in named[1:]:
        if not np.array_equal(matches[pair], matches[named[0]]):
            raise ValueError(
                f"{sides.file} must name each row once; got {named[0][0]!r} and {pair[0]!r}, which "
                "name different samples. Take one of them out."
            )


def _refuse(keys: list[str], named: list[str], sides: _Sides) -> None:
    """Say of names that do not fit what both sides have."""
    most = max(keys, key=lambda name: _overlap(name, sides))
    for ours in named:
        if np.isin(_as_text(sides.ours[ours]), _as_text(sides.theirs[most])).any():
            places(_as_text(sides.theirs[most]), _as_text(sides.ours[ours]), most, sides.file)
    theirs = sides.theirs[keys[0]]
    example = f"{keys[0]!r} there, such as {str(theirs[0])[:60]!r}"
    if named:
        other = f"{named[0]!r} in {sides.source}, such as {str(sides.ours[named[0]][0])[:60]!r}"
    else:
        other = f"no names in {sides.source}"
    remedy = f"take {keys[0]!r} out of {sides.file} if its rows are in the order of {sides.source}"
    raise ValueError(
        f"{sides.file} must name its rows as {sides.source} names its own; got {example}, and "
        f"{other}. Name both alike, or {remedy}."
    )


def _overlap(theirs: str, sides: _Sides) -> int:
    """How many samples a column of names names, at most."""
    named = [
        ours
        for each, ours in sides.pairs()
        if each == theirs and _kind(ours, sides.ours[ours]) in ("file", "name")
    ]
    return max((sides.overlap(theirs, ours) for ours in named), default=0)


def match(wanted: np.ndarray, keys: np.ndarray) -> np.ndarray | None:
    """Find the row of each name: as it is, else tidied, without its folder, or without its ending.

    Parameters
    ----------
    wanted : ndarray of shape (N,), text or integer
        Names of samples.
    keys : ndarray of shape (M,), text or integer
        Names of rows.

    Returns
    -------
    ndarray of shape (N,) or None
        Rows; None unless every sample has exactly one. Names are shortened only where different
        ones stay different and no folders disagree, and whole numbers are compared by their value
        at last.

    Examples
    --------
    >>> match(np.array(["a/0.png", "a/1.png"]), np.array(["1", "0"])).tolist()
    [1, 0]
    >>> match(np.array(["a/0.png", "b/0.png"]), np.array(["0", "1"])) is None
    True
    """
    wanted, keys = _as_text(wanted), _as_text(keys)
    return _matched(wanted, keys, _Shortened()) if _is_unique(keys) else None


class _Shortened:
    """Shortens each column in each way once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def __call__(self, shorten: Callable[[str], str], names: np.ndarray) -> np.ndarray:
        key = shorten.__name__, id(names)  # whoever calls keeps the names
        if key not in self._known:
            self._known[key] = _each(shorten, names)
        return self._known[key]


def _matched(wanted: np.ndarray, keys: np.ndarray, short: _Shortened) -> np.ndarray | None:
    n_wanted = len(np.unique(wanted))
    for shorten in (None, _tidied, _without_folder, _without_ending, _number):
        ours, theirs = wanted, keys
        if shorten is not None:
            ours, theirs = short(shorten, wanted), short(shorten, keys)
            if len(np.unique(ours)) < n_wanted or not _is_unique(theirs):
                continue
        order = np.argsort(theirs, kind="stable")
        place = np.searchsorted(theirs[order], ours).clip(max=len(theirs) - 1)
        if (theirs[order][place] == ours).all() and (
            shorten in (None, _tidied) or _folders_agree(wanted, keys[order][place])
        ):
            return order[place]
    return None


def _folders_agree(names: np.ndarray, others: np.ndarray) -> bool:
    """Whether one folder of each pair ends the other: test/0.png is not train/0.png.

    Two roots, as of two machines, may differ above a folder that is the same.
    """
    roots = set()
    for pair in zip(names.tolist(), others.tolist(), strict=True):
        first, second = (_folders(each) for each in pair)
        shared = 0
        while shared < min(len(first), len(second)) and first[-1 - shared] == second[-1 - shared]:
            shared += 1
        if shared < min(len(first), len(second)):
            above = first[: len(first) - shared], second[: len(second) - shared]
            if not shared or not all(_ROOT.match(_tidied(each)) for each in pair):
                return False
            if above[0][0] == above[1][0] or _name_splits(*above):
                return False  # two folders of one tree, or of two splits
            roots.add((*above[0], "", *above[1]))
    return len(roots) < 2


def _name_splits(*folders: list[str]) -> bool:
    return any(each.lower() in SPLIT_WORDS for path in folders for each in path)


def _folders(name: str) -> list[str]:
    """Folders of a path, without drive, scheme and dots."""
    folders = _tidied(name).split("/")[:-1]
    return [each for each in folders if each not in ("", ".", "..") and each[-1] != ":"]


def _each(shorten: Callable[[str], str], names: np.ndarray) -> np.ndarray:
    different, place = np.unique(names, return_inverse=True)
    return np.array([shorten(name) for name in different.tolist()], dtype=np.str_)[place]


def _tidied(name: str) -> str:
    return tidied(name).replace("\\", "/")


def _without_folder(name: str) -> str:
    return _tidied(name).rstrip("/").rpartition("/")[2]


def _without_ending(name: str) -> str:
    return _ENDING.sub("", _without_folder(name))


def _number(name: str) -> str:
    """Take the zeros before a whole number away; what is none stays itself."""
    return without_zeros(_without_ending(name))


def _as_text(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "U" else array.astype(np.str_)


def _is_unique(array: np.ndarray) -> bool:
    return len(np.unique(array)) == len(array)


def _is_count(array: np.ndarray) -> bool:
    """Whether values are 0, 1, 2, ... or 1, 2, 3, ..."""
    if array.dtype.kind not in "iu":
        return False
    counted = np.arange(len(array))
    return bool((array == counted).all() or (array == counted + 1).all())
