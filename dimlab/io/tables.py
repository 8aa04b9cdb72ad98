"""Tables: read with typed columns, and joined to samples by one key or in their order.

The key is explicit: ``on=`` names it, or both sides call it ``filename``, ``file`` or ``image_id``,
or the table counts the samples in a column ``row``. Nothing else is tried.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dimlab.checks import factors_of, periods_of
from dimlab.columns import NUMBER, factor_of, numbers_of, refuse_gaps, values_of
from dimlab.io.files import DAMAGED, Misnamed, check_fits, json_of, listed, naming, reason_of
from dimlab.names import ROW, SPLIT, places_among, spelled, split_of, splits_of_rows
from dimlab.refusals import Refusal
from dimlab.representation import Representation

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow")
KEYS = ("filename", "file", "image_id")
_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}  # the ending's own first
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 1 << 26  # bytes of a row of names, at most
_ZERO = re.compile(rb'(?:^|[,;\t"])\s*[-+]?0\d', re.MULTILINE)  # before another digit
_REMEDY = (
    "Pass on= (--on COLUMN) to name a key that both have, or by_order=True (--by-order) if the "
    "rows are in the order of the samples."
)


def ending_of(path: Path) -> str:
    """Return the ending of a file's name in lower case, with its dot."""
    return path.suffix.lower()


def read_table(path: Path, file: BinaryIO, *, index: bool = False) -> Any:
    """Read an open table with a row of names on top as a DataFrame."""
    # Whole numbers with zeros before them are text. `index` makes a column of an index of pandas'
    # that has no name and is no count; `attrs["unread"]` says which columns are neither.
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # columns of mixed types, rows of other lengths
            if ending_of(path) in (".parquet", ".arrow"):
                frame = _read_arrow(path, file, index)
            elif ending_of(path) in (".jsonl", ".ndjson"):
                file.seek(0)
                frame = pd.read_json(file, lines=True, dtype=False)  # text stays text
            else:
                frame = _read_text(path, file)
    except ImportError as error:
        raise Refusal(
            f"{path.name} needs pyarrow to be read; got none. Run pip install "
            '"dimlab[parquet]", or write a .csv.'
        ) from error
    except UnicodeDecodeError as error:
        raise Refusal(
            f"{path} must be text in UTF-8; got another encoding. Save it as CSV UTF-8."
        ) from error
    except pd.errors.EmptyDataError as error:
        raise Refusal(f"{path} must be a readable table; got a file without columns.") from error
    except DAMAGED as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path} must"):
            raise  # a sentence already
        raise Refusal(f"{path} must be a readable table; got: {reason_of(error)}.") from error
    frame.columns = [str(each).strip() for each in frame.columns]
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise Refusal(f"{path} must name its columns differently; got {twice!r} twice.")
    return frame


def _read_text(path: Path, file: BinaryIO) -> Any:
    """Read a table of text whose row of names shows what separates its columns."""
    import pandas as pd

    def read(**options: Any) -> Any:
        file.seek(0)
        return pd.read_csv(file, **plain, **options)

    plain: dict[str, Any] = {
        "sep": _separator(path, file), "keep_default_na": False, "skipinitialspace": True,
    }  # fmt: skip
    top = read(header=None, nrows=1, dtype=str, index_col=False)
    names = [str(each).strip() for each in top.iloc[0]]
    _check_names(path, names)
    plain |= {"header": 0, "names": list(range(len(names))), "index_col": False}
    plain["na_values"] = ["", "nan", "NaN"]
    frame = read(low_memory=False)
    whole = [place for place in frame if frame[place].dtype.kind in "iu"]
    file.seek(0)
    if whole and _ZERO.search(file.read()):
        text = read(usecols=whole, dtype=str)
        for place in whole:
            if text[place].str.fullmatch(r"\s*[-+]?0\d+\s*").any():
                frame[place] = text[place]
    kept = [place for place in frame if names[place] or frame[place].notna().any()]
    frame = frame[kept]  # without what follows a separator at the end of each row
    frame.columns = [names[place] or f"Unnamed: {place}" for place in kept]  # as pandas has it
    return frame


def _separator(path: Path, file: BinaryIO) -> str:
    """Return what the row of names has most of; the file's own ending decides between equals."""
    file.seek(0)
    line = file.readline(_HEAD)
    if line.startswith(_UTF_16):
        raise Refusal(f"{path} must be text in UTF-8; got UTF-16. Save it as CSV UTF-8.")
    if b"\0" in line:
        raise Refusal(f"{path} must be a readable table; got bytes that are no text.")
    unquoted = re.sub(rb'"[^"]*"', b"", line)
    return max(_SEPARATORS[ending_of(path)], key=lambda each: unquoted.count(each.encode()))


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse a first row of numbers; whole ones may count columns."""
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    whole = sorted({int(name) for name in numbers if name.isascii() and name.isdigit()})
    if len(numbers) * 2 < len(names) or not numbers:
        return
    if len(whole) == len(numbers):  # numbered columns, perhaps with gaps, beside other columns
        if len(numbers) < len(names) or whole[-1] - whole[0] < len(whole):
            return
    raise Refusal(
        f"{path} must name its columns in its first line; got numbers there ({numbers[0]}). Write "
        "a line such as embedding_0,embedding_1,label on top."
    )


def _read_arrow(path: Path, file: BinaryIO, index: bool) -> Any:
    """Read parquet or Arrow; what the columns take is known before they are unpacked."""
    import pandas as pd
    from pyarrow import ArrowException, ipc, parquet

    try:
        if ending_of(path) == ".parquet":
            opened = parquet.ParquetFile(file)
            found, schema = opened.metadata, opened.schema_arrow
            groups = [found.row_group(number) for number in range(found.num_row_groups)]
            unpacked = sum(max(group.total_byte_size, 0) for group in groups)
            check_fits(path, max(unpacked, 8 * found.num_rows * found.num_columns))
        else:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            batches = ipc.open_file(file) if is_file else ipc.open_stream(file)
            schema = batches.schema
        unread = {each.name: str(each.type) for each in schema if not _is_plain(each.type)}
        columns = [name for name in schema.names if name not in unread]
        if ending_of(path) == ".parquet":
            table = opened.read(columns=columns if unread else None)
        else:
            table = batches.read_all().select(columns)
        table.validate(full=True)  # damaged offsets point anywhere, and text need not be UTF-8
        frame = table.to_pandas()
    except ArrowException as error:  # not all of them are ValueErrors
        raise Refusal(reason_of(error)) from error
    names = [each for each in frame.index.names if each is not None]
    counts = isinstance(frame.index, pd.RangeIndex) and frame.index.step == 1
    clash = set(map(str, names)) & set(map(str, frame.columns)) or "index" in frame.columns
    kept = len(names) == frame.index.nlevels or (index and not counts)
    frame = frame.reset_index(drop=bool(clash) or not kept)
    frame.attrs["unread"] = unread
    return _with_class_names(frame, schema)


def _with_class_names(frame: Any, schema: Any) -> Any:
    """Write out the classes of columns that datasets of Hugging Face store as numbers."""
    recorded = json_of((schema.metadata or {}).get(b"huggingface", b"{}"))
    for name, kind in recorded.get("info", {}).get("features", {}).items():
        names = kind.get("names") if isinstance(kind, dict) else None
        if not names or name not in frame or frame[name].dtype.kind not in "iu":
            continue
        codes = frame[name].to_numpy()
        if codes.size and codes.min() >= 0 and codes.max() < len(names):  # -1 is no class
            frame[name] = np.array(names, dtype=object)[codes]
    return frame


def _is_plain(kind: Any) -> bool:
    """Whether a column can be numbers or text, or a list of numbers a row."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
    nested = types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    return not (nested or types.is_fixed_size_binary(kind))


def join(
    representation: Representation,
    table: Mapping[str, np.ndarray],
    *,
    on: str | None = None,
    by_order: bool = False,
    name: str = "table",
) -> np.ndarray:
    """Return the (N,) rows of a table's (M,) columns that belong to the samples, one each."""
    n_rows, n_samples = max(map(len, table.values()), default=0), len(representation)
    if on is not None and by_order:
        raise Refusal(f"on and by_order must not both be given; got {on!r} and by_order.")
    if n_rows == 0 or (by_order and n_rows != n_samples):
        raise Refusal(
            f"{name} must have a row for each of the {n_samples} samples; got {n_rows} rows."
        )
    if by_order:
        return np.arange(n_samples)
    key = _key(representation, table, on, name)
    keys = _names_in(table[key], key, name)
    if key == ROW and key not in representation.factors:
        if keys.dtype.kind not in "iu":
            raise Refusal(f"column 'row' of {name} must hold whole numbers; got {keys.dtype}.")
        if n_rows > n_samples:
            raise Refusal(
                f"{name} must have a row for each of the {n_samples} samples; got {n_rows} rows. "
                "A column 'split' tells splits apart."
            )
        wanted = np.arange(n_samples)
    else:
        wanted = _names_in(representation.factors[key], key, "the samples")
    for names, whose in ((keys, name), (wanted, "the samples")):
        different, counts = np.unique(spelled(names), return_counts=True)
        twice = different[counts > 1]
        if len(twice):
            raise Refusal(
                f"{whose} must have one row for each {key!r}; got {_examples(twice[:1])} more than "
                "once. A column 'split' tells splits apart."
            )
    rows = places_among(wanted, keys)
    if rows is None:
        lacking = wanted[~np.isin(spelled(wanted), spelled(keys))]
        raise Refusal(
            f"{name} must have a row for each of the {n_samples} samples, by {key!r}; got none for "
            f"{len(lacking)} of them: {_examples(lacking)}. It has {_examples(keys)}. Name both "
            f"alike. {_REMEDY}"
        )
    return rows


def _key(
    representation: Representation, table: Mapping[str, np.ndarray], on: str | None, name: str
) -> str:
    """Return the name of the column that both sides are joined by."""
    ours, theirs = list(representation.factors), [each for each in table if each.lower() != SPLIT]
    if on is not None:
        sides = (theirs, f"a column of {name}"), ([*ours, ROW], "a factor of the samples too")
        for known, whose in sides:
            if on not in known:
                raise Misnamed(
                    f"on must name {whose}, one of {listed(map(repr, known)) or 'none'}; got "
                    f"{on!r}."
                )
        return on
    both = [each for each in KEYS if each in ours and each in theirs]
    if both or ROW in theirs:
        return [*both, ROW][0]
    raise Refusal(
        f"{name} must share a column {', '.join(KEYS)} with the samples, or count them in a column "
        f"row, from 0; got {listed(map(repr, theirs))} there, and "
        f"{listed(map(repr, ours)) or 'nothing'} with the samples. {_REMEDY}"
    )


def _names_in(values: np.ndarray, key: str, whose: str) -> np.ndarray:
    """Return (M,) names of rows as whole numbers or text; none may be missing."""
    gone = np.isnan(values) if values.dtype.kind == "f" else values == ""
    refuse_gaps(gone, f"column {key!r} of {whose}")
    exact = values.dtype.kind == "f" and (np.abs(values) < 2.0**53).all()
    fits = exact and (values == np.floor(values)).all()
    return values.astype(np.int64) if fits else values


def _examples(names: np.ndarray) -> str:
    """Return the first five of some names."""
    return ", ".join(repr(str(each)[:60]) for each in names[:5])


def join_factors(
    representation: Representation,
    path: str | os.PathLike[str],
    *,
    on: str | None = None,
    by_order: bool = False,
    split: str | None = None,
    continuous: Sequence[str] = (),
    periods: Mapping[str, float] | None = None,
) -> Representation:
    """Add the columns of a table as factors.

    Parameters
    ----------
    representation : Representation
        N samples.
    path : path
        ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``. Where there is a column ``split``, only the
        rows of the representation's own split count (``val``, ``valid`` and ``eval`` mean
        validation). Every column but the key and the split is a factor: floating ones and decimals
        are continuous, others categorical.
    on : str, optional
        The key: a column of the table that is a factor of the representation too. By default it is
        ``filename``, ``file`` or ``image_id``, the first that both have, else a column ``row`` of
        the table, which counts the samples from 0. Names are compared after trimming, in composed
        letters (NFC), whole numbers also without the zeros before them.
    by_order : bool, default=False
        Whether the rows are in the order of the samples: then no key is needed.
    split : str, optional
        The representation's own split; ``meta["split"]`` by default.
    continuous : sequence of str
        Columns of integers, or of text of numbers, that are continuous all the same; of dates the
        days since 1970-01-01 count.
    periods : mapping of str to float, optional
        Periods of continuous columns that wrap, as ``{"angle": 360}``.

    Returns
    -------
    Representation
        With the factors, and everything else unchanged.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read (parquet needs pyarrow), has no key, names a sample twice or not at
        all, lacks a value or has an infinite one, a column is unknown, known already, no number
        where one is needed or of dates or decimal commas, two words mean one split, both ``on`` and
        ``by_order`` are given, or a period is not positive.

    Warns
    -----
    UserWarning
        If categories look alike or are numbers with decimal points, or columns can be neither
        numbers nor text.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> split = Representation(np.eye(3), factors={"file": np.array(["b", "a", "c"])})
    >>> table = pd.DataFrame({"file": ["a", "b", "c"], "angle": [90.0, 0.0, 45.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table.to_csv(Path(folder) / "table.csv", index=False)
    ...     joined = join_factors(split, Path(folder) / "table.csv", periods={"angle": 360})
    >>> joined.factors["angle"].tolist(), joined.periods
    ([0.0, 90.0, 45.0], {'angle': 360.0})
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"factors must be a table; got {path}, which is not there.")
    with path.open("rb") as file:
        table = FactorTable.read(path, file, on=on, by_order=by_order)
    return table.join(representation, split=split, continuous=continuous, periods=periods)


@dataclass(frozen=True, eq=False)
class FactorTable:
    """A table of factors, read once, and how it is joined; see `join_factors`."""

    name: str
    frame: Any
    on: str | None = None
    by_order: bool = False

    @classmethod
    def read(
        cls,
        path: Path,
        file: BinaryIO,
        *,
        on: str | None = None,
        by_order: bool = False,
    ) -> FactorTable:
        """Read an open table of factors."""
        if ending_of(path) not in ENDINGS:
            raise Refusal(f"factors must be one of {', '.join(ENDINGS)}; got {path.name!r}.")
        return cls(path.name, read_table(path, file), on, by_order)

    @property
    def columns(self) -> list[str]:
        """Columns that are factors: all but keys and the split."""
        keys = (ROW, "file", self.on, self._split_column)
        return [each for each in self.frame.columns if each not in keys]

    @property
    def _split_column(self) -> str | None:
        names = [each for each in self.frame.columns if each.lower() == SPLIT]
        return SPLIT if SPLIT in names else next(iter(names), None)

    def _of_split(self, split: str) -> Any:
        """Return the rows of a split, all where the table does not tell splits apart."""
        if self._split_column is None or not split:
            return self.frame
        with naming(Path(self.name)):
            column = values_of(self.frame[self._split_column])
            return self.frame[splits_of_rows(column, self._split_column) == split_of(split)]

    def covers(self, representation: Representation, split: str) -> bool:
        """Whether the table says something of every sample of a split, by its split or by a key."""
        if self._split_column is not None:
            return len(self._of_split(split)) > 0
        named = [each for each in (self.on, *KEYS) if each in self.frame]
        key = next((each for each in named if each in representation.factors), None)
        if self.by_order or key is None:  # rows of one split, and which is not known
            return False
        theirs = self.frame[key].dropna().to_numpy()
        return places_among(representation.factors[key], np.unique(theirs.astype(str))) is not None

    def join(
        self,
        representation: Representation,
        *,
        split: str | None = None,
        continuous: Sequence[str] = (),
        periods: Mapping[str, float] | None = None,
    ) -> Representation:
        """Add the columns as factors, as `join_factors` does."""
        name, periods = self.name, dict(periods or {})
        frame = self._of_split(representation.meta.get("split", "") if split is None else split)
        for each, kind in self.frame.attrs.get("unread", {}).items():
            warnings.warn(
                f"{name}: left out, as column {each!r} must hold numbers or text; got {kind[:40]}.",
                UserWarning,
                stacklevel=3,
            )
        for each in (*continuous, *periods):
            if each not in self.columns:
                known = listed(map(repr, self.columns)) or "none"
                raise Refusal(f"columns of {name} must be among {known}; got {each!r}.")
        keys = {each: _as_key(frame[each]) for each in frame.columns}
        taken = join(representation, keys, on=self.on, by_order=self.by_order, name=name)
        factors = {}
        with naming(Path(name)):
            for each in self.columns:
                if each in representation.factors and each in KEYS:
                    continue
                if each in representation.factors:
                    raise Refusal(
                        f"columns of {name} must be new; got {each!r}, which is a factor already. "
                        "Rename it."
                    )
                column, numeric = frame[each].iloc[taken], each in continuous or each in periods
                factors[each] = numbers_of(column) if numeric else _values(column)
            return _with_factors(representation, factors, periods)


def _as_key(column: Any) -> np.ndarray:
    """Return a (M,) column as it may name rows: numbers, or text."""
    if column.dtype.kind in "iufb" and isinstance(column.dtype, np.dtype):
        return np.asarray(column.to_numpy())
    return np.asarray(column.astype(object).where(column.notna(), "").astype(str).to_numpy(str))


def as_continuous(
    representation: Representation,
    names: Sequence[str],
    periods: Mapping[str, float] | None = None,
) -> Representation:
    """Make floats of factors that hold whole numbers or text of numbers, and add their periods."""
    if not names:
        return representation
    import pandas as pd

    factors = {
        name: numbers_of(pd.Series(representation.factors[name], name=name)) for name in names
    }
    return _with_factors(representation, factors, periods or {})


def _with_factors(
    representation: Representation, factors: dict[str, np.ndarray], periods: Mapping[str, float]
) -> Representation:
    """Add factors and their periods, which alone are checked."""
    factors = {**representation.factors, **factors_of(factors, (len(representation),))}
    known = [factors, representation.view_factors]
    periods = periods_of({**representation.periods, **periods}, known)
    return representation._trusted(factors=factors, periods=periods)


def _values(column: Any) -> np.ndarray:
    """Return the (N,) values of a factor, none of them missing."""
    try:
        values = values_of(column)
    except ValueError as error:
        try:
            numbers_of(column)
        except ValueError:
            raise error from None
        raise Refusal(f"{error} Or call it continuous: --continuous {column.name}.") from error
    if values.dtype.kind == "f":
        refuse_gaps(np.isnan(values), f"column {column.name!r}")
    return factor_of(values, str(column.name))
