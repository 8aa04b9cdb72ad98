"""Tables of anyone's: text with a row of names on top, whatever separates its columns, or parquet.

What cannot be told is refused in one sentence: another encoding, decimal commas, no row of names.
A column becomes numbers or text in one place, `values_of`.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import DAMAGED, check_fits, reason_of
from dimlab.names import FILES, NAMES, one_spelling, word_of

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}  # the ending's own first
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1 << 26  # bytes of a row of names, at most
# No text can be read in two ways by these patterns, so a long one takes no longer than its length.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_OTHER_NUMBER = re.compile(  # decimal commas, thousands apart, per cent, a typographic minus
    r"[-+\u2212]?(\d*,\d+|\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+,\d+"
    r"|\d{1,3}([ '\u2019\u00a0\u202f]\d{3})+([.,]\d*)?|\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?(\s?%)?"
)
_BLANK = "Unnamed: "  # as pandas calls what has no name
NOT_THERE = ("na", "n/a", "#n/a", "<na>", "nan", "null", "?", "none", "nil", "-", ".")
_DATES = (datetime.date, datetime.time, datetime.timedelta)
_DAY = 86_400e9  # nanoseconds
_GAPS = NOT_THERE[:7]  # none, - and . may be classes among numbers


def ending_of(path: Path) -> str:
    """Return the ending of a file's name in lower case.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    str
        With its dot.

    Examples
    --------
    >>> ending_of(Path("Labels.CSV"))
    '.csv'
    """
    return path.suffix.lower()


def read_table(path: Path, *, missing: Sequence[str] = ("",), index: bool = False) -> Any:
    """Read a table with a row of names on top.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv`` or ``.parquet``. Commas, semicolons or tabs separate the columns of text:
        those that the row of names has most of.
    missing : sequence of str
        What stands for no value in text.
    index : bool, default=False
        Whether a pandas index without a name is a column ``index``, where it is more than a count
        of rows. One with a name always is a column.

    Returns
    -------
    pandas.DataFrame
        Its columns have different names, all text, without spaces around them. What is called as
        names of rows are and has zeros before whole numbers is text. Columns of parquet
        that can be neither numbers nor text are not read: ``attrs["unread"]`` says of what type
        each is.

    Raises
    ------
    ImportError
        If it is parquet and there is no pyarrow.
    ValueError
        If it cannot be read, or names no columns or one twice.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # columns of mixed types, rows of other lengths
            if ending_of(path) == ".parquet":
                frame = _read_parquet(path, index)
            else:
                frame = _read_text(path, missing)
    except ImportError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be text in UTF-8; got another encoding. Save it as CSV UTF-8."
        ) from error
    except DAMAGED as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path} must"):
            raise  # a sentence already
        raise ValueError(f"{path} must be a readable table; got: {reason_of(error)}.") from error
    frame.columns = [str(each).strip() for each in frame.columns]
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ValueError(f"{path} must name its columns differently; got {twice!r} twice.")
    return frame


def values_of(column: Any) -> np.ndarray:
    """Give the values of a column as numbers, whatever type they come in, else as text.

    Parameters
    ----------
    column : pandas.Series of shape (N,)
        Of any dtype but lists.

    Returns
    -------
    ndarray of shape (N,)
        Floats, integers, booleans or text. Decimals without digits after the point and categories
        of whole numbers are integers; other decimals are floats. Missing floats are NaN.

    Raises
    ------
    ValueError
        If a value is missing; if they are neither numbers nor text, as dates; or text that holds
        numbers otherwise than with a decimal point, or gaps among numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> values_of(pd.Series([Decimal("1.5"), Decimal("2.0")])).tolist()
    [1.5, 2.0]
    >>> values_of(pd.Series([3, 1], dtype="category")).tolist()
    [3, 1]
    """
    import pandas as pd

    name = column.name
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return whole_or_text(column.to_numpy())
    gone = column.isna().to_numpy()
    if gone.any():
        row = int(np.flatnonzero(gone)[0])
        raise ValueError(f"column {name!r} must be there for every row; got none in row {row}.")
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
        raise ValueError(
            f"column {name!r} must hold numbers or text; got dates. Write them as numbers, such as "
            "days."
        )
    odd = [kind.__name__ for kind in kinds if not issubclass(kind, (Decimal, int, float, str))]
    if odd or any(issubclass(kind, str) for kind in kinds):
        got = odd[0] if odd else "text among numbers"
        raise ValueError(f"column {name!r} must hold numbers or text; got {got}.")
    if not all(map(_is_whole, values)):
        return values.astype(np.float64)
    integers = [int(each) for each in values]
    fits = all(abs(each) < 2**63 for each in integers)
    return np.array(integers) if fits else np.array([str(each) for each in integers])


def _is_whole(value: Decimal | float) -> bool:
    """Whether a number is written without a decimal point."""
    if not isinstance(value, Decimal):
        return isinstance(value, int)
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0


def factor_of(values: np.ndarray, name: str) -> np.ndarray:
    """Give the values of a column as a factor, and say what may not be meant.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Numbers or text.
    name : str
        Of the column.

    Returns
    -------
    ndarray of shape (N,)
        Text in one spelling; whole numbers beyond int64 as text.

    Raises
    ------
    ValueError
        If text holds numbers with gaps or in another notation.

    Warns
    -----
    UserWarning
        If categories look alike, or are numbers with decimal points.

    Examples
    --------
    >>> factor_of(np.array(["front ", "rear "]), "camera").tolist()
    ['front', 'rear']
    """
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
    """Give whole numbers beyond int64 as text, which keeps all digits, and others as they are.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Of any dtype.

    Returns
    -------
    ndarray of shape (N,)
        Of another dtype only where some number is 2**63 or more.
    """
    too_large = values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max
    return values.astype(np.str_) if too_large else values


def numbers_of(column: Any) -> np.ndarray:
    """Give the values of a column that the user calls continuous as floats.

    Parameters
    ----------
    column : pandas.Series of shape (N,)
        Numbers, text of numbers, or dates.

    Returns
    -------
    ndarray of shape (N,), float64
        Of dates the days since 1970-01-01, of durations days.

    Raises
    ------
    ValueError
        If a value is missing or no number.

    Examples
    --------
    >>> import pandas as pd
    >>> numbers_of(pd.Series(["0007", "1.5"])).tolist()
    [7.0, 1.5]
    >>> numbers_of(pd.Series(pd.to_datetime(["1970-01-02 12:00"]))).tolist()
    [1.5]
    """
    import pandas as pd

    gone = column.isna().to_numpy()
    if gone.any():
        row = int(np.flatnonzero(gone)[0])
        raise ValueError(
            f"column {column.name!r} must be there for every row; got none in row {row}."
        )
    days = column
    if column.dtype.kind == "O":
        numbers = pd.to_numeric(column.astype(object), errors="coerce")
        if not numbers.isna().any():
            return np.asarray(numbers.to_numpy(dtype=np.float64))
        days = pd.to_datetime(column.astype(str), format="ISO8601", errors="coerce", utc=True)
        if days.isna().any():
            neither = (numbers.isna() & days.isna()).to_numpy()
            row = int((neither if neither.any() else numbers.isna().to_numpy()).argmax())
            raise ValueError(
                f"column {column.name!r} must hold numbers; got {str(column.iloc[row])[:40]!r} in "
                f"row {row}."
            )
    if days.dtype.kind == "m":
        return np.asarray(days.to_numpy() / np.timedelta64(1, "D"))
    if days.dtype.kind == "M":
        return days.to_numpy(dtype="datetime64[ns]").astype(np.int64) / _DAY
    return column.to_numpy(dtype=np.float64)


def notations_of(values: np.ndarray) -> dict[str, int] | None:
    """Find in which ways text writes numbers.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Of a column.

    Returns
    -------
    dict of str to int, or None
        The first row of each of ``plain``, ``other`` and ``gap`` that there is: numbers as 1000.5
        or otherwise, and words for none. None where any value is none of these, all are gaps, or it
        is no text.

    Examples
    --------
    >>> notations_of(np.array(["0", "NA", "2,5"]))
    {'plain': 0, 'gap': 1, 'other': 2}
    >>> notations_of(np.array(["EU", "NA"])) is None
    True
    """
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
    if _NUMBER.fullmatch(word):
        return "plain"
    if word.lower() in ("", *_GAPS):
        return "gap"
    return "other" if _OTHER_NUMBER.fullmatch(word) else None


def check_numbers_in_text(values: np.ndarray, what: str) -> None:
    """Refuse text that is numbers with gaps, or in a notation that can be read in two ways.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Of a column; what is no text passes.
    what : str
        Says which.

    Raises
    ------
    ValueError
        If it holds such.
    """
    found = notations_of(values) or {}
    if "other" in found:
        got = str(values[found["other"]])[:40]
        raise ValueError(
            f"{what} must write numbers with decimal points and nothing else, as 1000.5; got "
            f"{got!r} in row {found['other']}. Save it so."
        )
    if "gap" in found:
        got = str(values[found["gap"]])
        raise ValueError(f"{what} must be there for every row; got {got!r} in row {found['gap']}.")


def _read_text(path: Path, missing: Sequence[str]) -> Any:
    import pandas as pd

    separator = _separator(path)
    plain: dict[str, Any] = {"sep": separator, "keep_default_na": False, "skipinitialspace": True}
    top = pd.read_csv(path, header=None, nrows=1, dtype=str, index_col=False, **plain)
    names = [str(each).strip() for each in top.iloc[0]]
    _check_names(path, names)
    names = [name or f"{_BLANK}{place}" for place, name in enumerate(names)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} must name its columns differently; got {twice!r} twice.")
    called = {name for name in names if word_of(name) in (*FILES, *NAMES)}
    frame = pd.read_csv(
        path, header=0, names=names, na_values=list(missing), low_memory=False, index_col=False,
        dtype=dict.fromkeys(called, str), **plain,
    )  # fmt: skip
    blank = [each for each in frame.columns if each.startswith(_BLANK)]
    if any(frame[each].isna().all() for each in blank):  # a separator at the end of each row
        frame = frame.drop(columns=[each for each in blank if frame[each].isna().all()])
    for each in called & set(frame.columns):
        frame[each] = _named(frame[each])
    return frame


def _named(column: Any) -> Any:
    """Names of rows as the file writes them: 0001 is no number."""
    import pandas as pd

    known = column.dropna()
    if known.str.fullmatch(r"\s*0\d+\s*").any() and known.str.fullmatch(r"\s*\d+\s*").all():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().sum() > column.isna().sum() else numbers


def _separator(path: Path) -> str:
    """Find what the row of names has most of; the file's own ending decides between equals."""
    with path.open("rb") as file:
        line = file.readline(_HEAD)
    if line.startswith(_UTF_16):
        raise ValueError(f"{path} must be text in UTF-8; got UTF-16. Save it as CSV UTF-8.")
    if b"\0" in line:
        raise ValueError(f"{path} must be a readable table; got bytes that are no text.")
    unquoted = re.sub(rb'"[^"]*"', b"", line)
    return max(_SEPARATORS[ending_of(path)], key=lambda each: unquoted.count(each.encode()))


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse a first row of numbers; whole ones may count columns."""
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    whole = {int(name) for name in numbers if name.isascii() and name.isdigit()}
    counted = len(whole) == len(numbers) and max(whole, default=0) - min(whole, default=0) < max(
        1, len(whole)
    )
    if not numbers or len(numbers) * 2 < len(names) or counted:
        return
    if len(whole) == len(numbers) < len(names):  # numbered columns with gaps: whoever reads them
        return
    raise ValueError(
        f"{path} must name its columns in its first line; got numbers there ({numbers[0]}). Write "
        "a line such as embedding_0,embedding_1,label on top."
    )


def _read_parquet(path: Path, index: bool) -> Any:
    """Read a table; what its columns take is known before they are unpacked."""
    import pandas as pd
    from pyarrow import ArrowException, parquet

    try:
        found = parquet.read_metadata(path)
        groups = [found.row_group(number) for number in range(found.num_row_groups)]
        unpacked = sum(max(group.total_byte_size, 0) for group in groups)
        check_fits(path, max(unpacked, 8 * found.num_rows * found.num_columns))
        schema = parquet.read_schema(path)
        unread = {each.name: str(each.type) for each in schema if not _is_plain(each.type)}
        columns = [name for name in schema.names if name not in unread] if unread else None
        frame = pd.read_parquet(path, columns=columns)
    except ArrowException as error:  # not all of them are ValueErrors
        raise ValueError(reason_of(error)) from error
    frame = _with_index(frame, index)
    frame.attrs["unread"] = unread
    return frame


def _is_plain(kind: Any) -> bool:
    """Whether a column can be numbers or text, or a list of numbers a row."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
    nested = types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    return not (nested or types.is_fixed_size_binary(kind))


def _with_index(frame: Any, unnamed: bool) -> Any:
    """Make columns of what pandas took for an index."""
    import pandas as pd

    names = [each for each in frame.index.names if each is not None]
    counts = isinstance(frame.index, pd.RangeIndex) and frame.index.step == 1
    if set(map(str, names)) & set(map(str, frame.columns)) or "index" in frame.columns:
        return frame.reset_index(drop=True)
    if len(names) == frame.index.nlevels or (unnamed and not counts):
        return frame.reset_index()
    return frame.reset_index(drop=True)
