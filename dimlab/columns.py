"""Columns of tables: which text means a number, and what becomes a number, a category or an error.

A column never changes its kind in silence: numbers in a notation that can be read in two ways, gaps
among numbers, and dates are refused in one sentence that says what to write instead.
"""

from __future__ import annotations

import datetime
import re
import warnings
from decimal import Decimal
from typing import Any

import numpy as np

from dimlab.names import one_spelling
from dimlab.refusals import Refusal

# No text can be read in two ways by these patterns, so a long one takes no longer than its length.
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_OTHER_NUMBER = re.compile(  # decimal commas, thousands apart, per cent, a typographic minus
    r"[-+\u2212]?(\d*,\d+|\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+,\d+"
    r"|\d{1,3}([ '\u2019\u00a0\u202f]\d{3})+([.,]\d*)?|\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?(\s?%)?"
)
NOT_THERE = ("na", "n/a", "#n/a", "<na>", "nan", "null", "?", "none", "nil", "-", ".")
_GAPS = NOT_THERE[:7]  # none, - and . may be classes among numbers
_DATES = (datetime.date, datetime.time, datetime.timedelta)
_DAY = 86_400e9  # nanoseconds


def values_of(column: Any) -> np.ndarray:
    """Return the (N,) values of a pandas column as numbers or text, none of them missing."""
    import pandas as pd

    name = column.name
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return whole_or_text(column.to_numpy())
    refuse_gaps(column.isna().to_numpy(), f"column {name!r}")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if column.dtype.kind in "fiub":
        return whole_or_text(column.to_numpy(dtype=f"{column.dtype.kind}{column.dtype.itemsize}"))
    values = column.to_numpy(dtype=object)
    kinds = set(map(type, values.tolist()))
    if all(issubclass(kind, str) for kind in kinds):
        text = values.astype(np.str_)
        check_numbers_in_text(text, f"column {name!r}")
        return text
    if column.dtype.kind in "mM" or any(issubclass(kind, _DATES) for kind in kinds):
        raise Refusal(
            f"column {name!r} must hold numbers or text; got dates. Write them as numbers, such as "
            "days."
        )
    odd = [kind.__name__ for kind in kinds if not issubclass(kind, (Decimal, int, float, str))]
    if odd or any(issubclass(kind, str) for kind in kinds):
        got = odd[0] if odd else "text among numbers"
        raise Refusal(f"column {name!r} must hold numbers or text; got {got}.")
    if not all(map(_is_whole, values)):
        return values.astype(np.float64)
    integers = [int(each) for each in values]
    fits = all(abs(each) < 2**63 for each in integers)
    return np.array(integers) if fits else np.array([str(each) for each in integers])


def refuse_gaps(gone: Any, what: str) -> None:
    """Refuse values if some of them are missing; ``gone`` (N,) says which."""
    if np.any(gone):
        raise Refusal(f"{what} must be there for every row; got none in row {np.argmax(gone)}.")


def _is_whole(value: Decimal | float) -> bool:
    """Whether a number is written without a decimal point."""
    if not isinstance(value, Decimal):
        return isinstance(value, int)
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0


def factor_of(values: np.ndarray, name: str) -> np.ndarray:
    """Return the (N,) values of a factor in one spelling; warn of numbers that are categories."""
    values = whole_or_text(values)
    check_numbers_in_text(values, f"column {name!r}")
    if notations_of(values) is not None and any(not each.strip().isdigit() for each in values):
        warnings.warn(
            f"column {name!r} holds numbers as text, which are taken as {len(np.unique(values))} "
            f"categories. Store them as numbers, or call them continuous (--continuous {name}).",
            UserWarning,
            stacklevel=3,
        )
    return one_spelling(values, name)


def whole_or_text(values: np.ndarray) -> np.ndarray:
    """Return whole numbers beyond int64 as text, which keeps all digits; others as they are."""
    too_large = values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max
    return values.astype(np.str_) if too_large else values


def numbers_of(column: Any) -> np.ndarray:
    """Return a (N,) column that the user calls continuous as floats; of dates, days since 1970."""
    import pandas as pd

    refuse_gaps(column.isna().to_numpy(), f"column {column.name!r}")
    days = column
    if column.dtype.kind == "O":
        numbers = pd.to_numeric(column.astype(object), errors="coerce")
        if not numbers.isna().any():
            return np.asarray(numbers.to_numpy(dtype=np.float64))
        days = pd.to_datetime(column.astype(str), format="ISO8601", errors="coerce", utc=True)
        if days.isna().any():
            neither = (numbers.isna() & days.isna()).to_numpy()
            row = int((neither if neither.any() else numbers.isna().to_numpy()).argmax())
            raise Refusal(
                f"column {column.name!r} must hold numbers; got {str(column.iloc[row])[:40]!r} in "
                f"row {row}."
            )
    if days.dtype.kind == "m":
        return np.asarray(days.to_numpy() / np.timedelta64(1, "D"))
    if days.dtype.kind == "M":
        return days.to_numpy(dtype="datetime64[ns]").astype(np.int64) / _DAY
    return column.to_numpy(dtype=np.float64)


def notations_of(values: np.ndarray) -> dict[str, int] | None:
    """Return the first row of each way (plain, other, gap) that text writes numbers in, or None."""
    found: dict[str, int] = {}
    if values.dtype.kind != "U" or (values.size and _notation(str(values[0])) is None):
        return None  # most text, at once
    for row in np.sort(np.unique(values, return_index=True)[1]).tolist():
        notation = _notation(str(values[row]))
        if notation is None:
            return None
        found.setdefault(notation, row)
    return found if set(found) - {"gap"} else None


def _notation(text: str) -> str | None:
    word = text.strip()
    if NUMBER.fullmatch(word):
        return "plain"
    if word.lower() in ("", *_GAPS):
        return "gap"
    return "other" if _OTHER_NUMBER.fullmatch(word) else None


def check_numbers_in_text(values: np.ndarray, what: str) -> None:
    """Refuse text that is numbers with gaps, or in a notation that can be read in two ways."""
    found = notations_of(values) or {}
    if "other" in found:
        got = str(values[found["other"]])[:40]
        raise Refusal(
            f"{what} must write numbers with decimal points and nothing else, as 1000.5; got "
            f"{got!r} in row {found['other']}. Save it so."
        )
    if "gap" in found:
        got = str(values[found["gap"]])
        raise Refusal(f"{what} must be there for every row; got {got!r} in row {found['gap']}.")
