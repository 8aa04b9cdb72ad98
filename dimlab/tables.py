"""Tables of anyone's: text with a row of names on top, whatever separates its columns, or parquet.

What cannot be told is refused in one sentence: another encoding, decimal commas, no row of names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimlab.containers import DAMAGED, check_unpacked, reason_of

_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}  # the ending's own first
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1 << 26  # bytes of a row of names, at most
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = r"\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*"
_BLANK = "Unnamed: "  # as pandas calls what has no name
NOT_THERE = ("na", "n/a", "#n/a", "<na>", "nan", "null", "?", "none", "nil", "-", ".")
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
        Its columns have different names, all text, without spaces around them. Columns of parquet
        that can be neither numbers nor text are not read: ``attrs["unread"]`` says of what type
        each is.

    Raises
    ------
    ImportError
        If it is parquet and there is no pyarrow.
    ValueError
        If it cannot be read, names no columns or one twice, or writes decimal commas.
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


def first_gap(column: Any) -> int | None:
    """Find the first word for a missing number in a column that holds numbers otherwise.

    Parameters
    ----------
    column : pandas.Series of shape (N,)
        Of Python's objects, none of them missing.

    Returns
    -------
    int or None
        Its row; None for numbers alone, and for text, where ``NA`` may be a name.

    Examples
    --------
    >>> import pandas as pd
    >>> first_gap(pd.Series(["0", "NA", "2"])), first_gap(pd.Series(["EU", "NA"]))
    (1, None)
    """
    import pandas as pd

    gone = pd.to_numeric(column.astype(str), errors="coerce").isna().to_numpy()
    if not gone.any() or gone.all():
        return None
    words = column[gone].astype(str).str.strip().str.lower()
    return int(gone.argmax()) if words.isin(_GAPS).all() else None


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
    frame = pd.read_csv(
        path, header=0, names=names, na_values=list(missing), low_memory=False, index_col=False,
        **plain,
    )  # fmt: skip
    blank = [each for each in frame.columns if each.startswith(_BLANK)]
    if any(frame[each].isna().all() for each in blank):  # a separator at the end of each row
        frame = frame.drop(columns=[each for each in blank if frame[each].isna().all()])
    if separator != ",":
        _check_decimals(path, frame)
    return frame


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


def _check_decimals(path: Path, frame: Any) -> None:
    for name in frame.columns:
        column = frame[name]
        if column.dtype.kind in "fiub" or not len(column):
            continue
        known = column.dropna().astype(str)
        if len(known) and known.str.fullmatch(_DECIMAL_COMMA).all():
            raise ValueError(
                f"{path} must write numbers with decimal points; got {known.iloc[0]!r} in column "
                f"{name!r}. Save it with points."
            )


def _read_parquet(path: Path, index: bool) -> Any:
    """Read a table; what its columns take is known before they are unpacked."""
    import pandas as pd
    from pyarrow import ArrowException, parquet

    try:
        found = parquet.read_metadata(path)
        groups = [found.row_group(number) for number in range(found.num_row_groups)]
        unpacked = sum(max(group.total_byte_size, 0) for group in groups)
        check_unpacked(path, max(unpacked, 8 * found.num_rows * found.num_columns))
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
