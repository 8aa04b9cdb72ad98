"""Columns of a table as arrays: numbered ones together, lists as rows of a matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dimlab.columns import NOT_THERE, values_of
from dimlab.names import FEATURES, word_of
from dimlab.refusals import Refusal

_NUMBERED = re.compile(r"^(.*?)[_.\-\[ ]?(\d{1,9})\]?$")
_SCALAR = re.compile(r"\b(?:np|numpy)\.\w+\(([^()]*)\)")  # as numpy writes numbers in lists
_LIST = re.compile(
    r"(?:(?:np\.|torch\.)?(?:array|tensor)\()?[\[({]([^\[\](){}]*)[\])}](?:,[^()]*)?\)?", re.DOTALL
)
_MANY = re.compile(r"[-+\d.eE]+(?: [-+\d.eE]+)+")  # two numbers or more
_FEWEST = 2  # numbered columns that make a matrix
_LISTS = (list, tuple, np.ndarray)

Families = dict[str, tuple[list[str], np.ndarray]]


def gathered(frame: Any) -> tuple[Families, dict[str, str]]:
    """Numbered columns by their common name as (N, D), and why others are none."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for column in frame.columns:
        match = _NUMBERED.match(column)
        if match:
            numbered.setdefault(match[1], []).append((int(match[2]), column))
    found: Families = {}
    broken: dict[str, str] = {}
    for name, family in numbered.items():
        columns = [column for _, column in sorted(family)]
        short = name.rstrip("_.-[ ")
        has_numbers = any(frame[each].dtype.kind in "fiu" for each in columns)
        if len(family) < _FEWEST or not (has_numbers or short.lower() in FEATURES):
            continue
        try:
            _check_numbers(name, sorted(family))
            found[short] = columns, np.stack([_numbers(frame[each]) for each in columns], axis=1)
        except Refusal as error:
            broken[short] = str(error)
    return found, broken


def _check_numbers(name: str, family: list[tuple[int, str]]) -> None:
    """Refuse columns that are not numbered from 0 or 1 without gaps, once each."""
    numbers = [number for number, _ in family]
    for (number, column), (following, other) in pairwise(family):
        if number == following:
            raise Refusal(f"columns must be numbered once each; got {column!r} and {other!r}.")
    if numbers[0] > 1:
        raise Refusal(f"columns must be numbered from 0 or 1; got {name!r} from {numbers[0]} on.")
    gap = next((n + 1 for n in numbers[:-1] if n + 1 not in numbers), None)
    if gap is not None:
        raise Refusal(
            f"columns must be numbered without gaps; got {len(numbers)} of {name!r}, and none for "
            f"{name}_{gap}."
        )


def _numbers(column: Any) -> np.ndarray:
    """Numbers of a column; what is none is named."""
    import pandas as pd

    kind = column.dtype.kind
    if kind in "fiu":
        if isinstance(column.dtype, np.dtype):
            return np.asarray(column.to_numpy())
        narrow = "f8" if kind != "f" and column.isna().any() else f"{kind}{column.dtype.itemsize}"
        gap = {"na_value": np.nan} if narrow[0] == "f" else {}
        return np.asarray(column.to_numpy(dtype=narrow, **gap))
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna().to_numpy() | (kind in "bM")
    if not wrong.any():
        return np.asarray(numbers.to_numpy(dtype=np.float64))
    row = int(np.flatnonzero(wrong)[0])
    value = column.iloc[row]
    said = f"got {str(value)[:40]!r} in column {column.name!r}, row {row}"
    if column.isna().iloc[row] or str(value).strip().lower() in NOT_THERE:
        raise Refusal(f"features must be finite; {said}.")
    points = " Write them as 1000.5." if re.fullmatch(r"[-+\d., ]+", str(value)) else ""
    raise Refusal(f"features must be numbers; {said}.{points}")


def columns_of(frame: Any, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Columns as arrays, each by itself, and why others are none."""
    found: dict[str, np.ndarray] = {}
    unusable = {
        name: f"column {name!r} must hold numbers or text; got {kind[:40]}."
        for name, kind in frame.attrs.get("unread", {}).items()
    }
    for name in names:
        try:
            found[name] = _column(frame[name])
        except Refusal as error:
            unusable[name] = str(error)
    return found, unusable


def _column(column: Any) -> np.ndarray:
    """Values of a column; one of lists, or of text that writes lists, is a matrix."""
    if not isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiu":
        return _numbers(column)
    first = column.iloc[0] if len(column) else None
    if isinstance(first, _LISTS) and column.notna().all():
        return _stacked(column.to_list(), column.name)
    if isinstance(first, str):
        rows = _lists_in(column)
        if rows is not None:
            return _stacked(rows, column.name)
    return values_of(column)


def _lists_in(column: Any) -> list[list[str]] | None:
    """Return the numbers of lists that are written as text; None for other text.

    Brackets, ``array(...)`` and ``tensor(...)`` tell a list, and so does a name as features have.
    """
    rows = [_SCALAR.sub(r"\1", str(each)).strip() for each in column]
    found = [_LIST.fullmatch(each) for each in rows]
    if all(found):
        rows = [each[1] for each in found if each]
    elif word_of(column.name) not in FEATURES:
        return None
    parts = [re.split(r"[,;|\s]+", each.strip(" ,;|")) for each in rows]
    is_listed = all(found) or all(_MANY.fullmatch(" ".join(each)) for each in parts)
    return parts if is_listed else None


def _stacked(values: list[Any], name: Any) -> np.ndarray:
    """Stack lists of numbers of one length."""
    lengths = {len(each) if isinstance(each, _LISTS) else -1 for each in values}
    if any("..." in each for each in values if isinstance(each, list)):
        raise Refusal(
            f"column {name!r} must hold whole lists; got some that were cut short (...). Save the "
            "array itself, as .npy or .parquet."
        )
    if len(lengths) != 1:
        raise Refusal(f"column {name!r} must hold lists of one length; got {len(lengths)} lengths.")
    try:
        return np.stack([np.asarray(each, dtype=np.float64) for each in values])
    except (ValueError, TypeError) as error:
        raise Refusal(f"column {name!r} must hold lists of numbers.") from error
