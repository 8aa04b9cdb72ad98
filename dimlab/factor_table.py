"""Factors from a table of the user's: CSV or parquet, joined on row or file name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import naming
from dimlab.names import (
    FILE,
    ROW,
    SPLIT,
    places_among,
    spelled,
    split_of,
    splits_of_rows,
    without_zeros,
)
from dimlab.representation import Representation
from dimlab.tables import ending_of, factor_of, numbers_of, read_table, values_of


def join_factors(
    representation: Representation,
    path: str | os.PathLike[str],
    *,
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
        ``.csv`` or ``.parquet``. A column ``file`` names each sample's file, as the factor ``file``
        of the representation does (``image-folder`` has it), or a column ``row`` its place in the
        split, from 0. Where there is a column ``split``, only the rows of the representation's own
        split count (``val``, ``valid`` and ``eval`` mean validation, as in files of features).
        Every other column is a factor: floating ones and decimals are continuous, others
        categorical.
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
        If it cannot be read (parquet needs pyarrow), has neither column to join on, names a sample
        twice or not at all, lacks a value or has an infinite one, a column is unknown, known
        already, no number where one is needed or of dates or decimal commas, two words mean one
        split, or a period is not positive.

    Warns
    -----
    UserWarning
        If categories look alike or are numbers with decimal points, or columns can be neither
        numbers nor text.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> split = Representation(np.eye(3))
    >>> table = pd.DataFrame({"row": [2, 0, 1], "angle": [90.0, 0.0, 45.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table.to_csv(Path(folder) / "table.csv", index=False)
    ...     joined = join_factors(split, Path(folder) / "table.csv", periods={"angle": 360})
    >>> joined.factors["angle"].tolist(), joined.periods
    ([0.0, 45.0, 90.0], {'angle': 360.0})
    """
    return FactorTable.read(path).join(
        representation, split=split, continuous=continuous, periods=periods
    )


def as_continuous(
    representation: Representation,
    names: Sequence[str],
    periods: Mapping[str, float] | None = None,
) -> Representation:
    """Make factors continuous that hold whole numbers, or text of numbers.

    Parameters
    ----------
    representation : Representation
        N samples.
    names : sequence of str
        Factors.
    periods : mapping of str to float, optional
        Periods of those that wrap; others keep theirs.

    Returns
    -------
    Representation
        With these factors as floats.

    Raises
    ------
    ValueError
        If a factor holds anything else, or a period is not positive.

    Examples
    --------
    >>> split = Representation(np.eye(2), factors={"age": np.array([30, 41])})
    >>> as_continuous(split, ["age"]).factors["age"].tolist()
    [30.0, 41.0]
    """
    if not names:
        return representation
    import pandas as pd

    factors = {
        name: numbers_of(pd.Series(representation.factors[name], name=name)) for name in names
    }
    return replace(
        representation,
        factors={**representation.factors, **factors},
        periods={**representation.periods, **(periods or {})},
    )


@dataclass(frozen=True, eq=False)
class FactorTable:
    """A table of factors, read once; see `join_factors` for its columns.

    Parameters
    ----------
    name : str
        Of the file.
    frame : pandas.DataFrame
        What it holds.
    """

    name: str
    frame: Any

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> FactorTable:
        """Read a table.

        Parameters
        ----------
        path : path
            ``.csv`` or ``.parquet``.

        Returns
        -------
        FactorTable
            All rows.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it cannot be read.
        """
        return cls(Path(path).name, _read(Path(path)))

    @property
    def columns(self) -> list[str]:
        """Columns that are factors: all but ``row``, ``file`` and ``split``."""
        return [each for each in self.frame.columns if each not in (ROW, FILE, self._split_column)]

    @property
    def _split_column(self) -> str | None:
        names = [each for each in self.frame.columns if each.lower() == SPLIT]
        return SPLIT if SPLIT in names else next(iter(names), None)

    def _rows_of(self, split: str) -> np.ndarray:
        """Which rows are of a split, (M,) bool."""
        with naming(Path(self.name)):
            column = values_of(self.frame[self._split_column])
            return splits_of_rows(column, str(self._split_column)) == split_of(split)

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuse names that are no columns.

        Parameters
        ----------
        names : sequence of str
            Columns that are asked for.

        Raises
        ------
        ValueError
            If there is no such factor.
        """
        for each in names:
            if each not in self.columns:
                known = ", ".join(map(repr, self.columns)) or "none"
                raise ValueError(f"columns of {self.name} must be among {known}; got {each!r}.")

    def covers(self, representation: Representation, split: str) -> bool:
        """Whether the table can say anything of a split: by file name, or by its split.

        Parameters
        ----------
        representation : Representation
            Samples of one split.
        split : str
            Which.

        Returns
        -------
        bool
            Without a column ``split``, row numbers are those of one split, and which is not known.
        """
        if self._split_column is not None:
            return bool(self._rows_of(split).any())
        if FILE not in self.frame or FILE not in representation.factors:
            return False
        named = representation.factors[FILE], self.frame[FILE].to_numpy().astype(np.str_)
        ours, theirs = (spelled(each, without_zeros) for each in named)
        return bool(np.isin(ours, theirs).all())

    def join(
        self,
        representation: Representation,
        *,
        split: str | None = None,
        continuous: Sequence[str] = (),
        periods: Mapping[str, float] | None = None,
    ) -> Representation:
        """Add the columns as factors, as `join_factors` does.

        Parameters
        ----------
        representation, split, continuous, periods : Representation, str, sequence and mapping
            As in `join_factors`.

        Returns
        -------
        Representation
            With the factors, and everything else unchanged.

        Raises
        ------
        ValueError
            As `join_factors`.
        """
        name, frame = self.name, self.frame
        split = representation.meta.get("split", "") if split is None else split
        if self._split_column is not None and split:
            frame = frame[self._rows_of(split)]
        for each, kind in self.frame.attrs.get("unread", {}).items():
            warnings.warn(
                f"{name}: left out, as column {each!r} must hold numbers or text; got {kind[:40]}.",
                UserWarning,
                stacklevel=3,
            )
        key, wanted = _key(frame, representation, name)
        taken = places(frame[key].to_numpy(), wanted, key, name)
        periods = dict(periods or {})
        self.check_columns([*continuous, *periods])
        factors = {}
        for each in self.columns:
            if each in representation.factors:
                raise ValueError(
                    f"columns of {name} must be new; got {each!r}, which is a factor already. "
                    "Rename it."
                )
            with naming(Path(name)):
                column, numeric = frame[each].iloc[taken], each in continuous or each in periods
                factors[each] = numbers_of(column) if numeric else _values(column)
        with naming(Path(name)):
            return replace(
                representation,
                factors={**representation.factors, **factors},
                periods={**representation.periods, **periods},
            )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"factors must be a .csv or .parquet file; got {path}, not there.")
    if ending_of(path) not in (".csv", ".parquet"):
        raise ValueError(f"factors must be a .csv or .parquet file; got {path.name!r}.")
    try:
        return read_table(path)
    except ImportError as error:
        raise ValueError(
            "factors must be a .csv file unless pyarrow is installed; got a .parquet one. Run pip "
            'install "dimlab[parquet]".'
        ) from error


def _key(frame: Any, representation: Representation, name: str) -> tuple[str, np.ndarray]:
    """Column to join on, and its value for each sample."""
    if FILE in frame and FILE in representation.factors:
        return FILE, np.asarray(representation.factors[FILE])
    if ROW in frame:
        return ROW, np.arange(len(representation))
    columns = [each for each in frame.columns if each != SPLIT]
    remedy = "the representation has no file names" if FILE in frame else "it has neither"
    raise ValueError(
        f"{name} must have a column 'row' (place in the split, from 0), or 'file' where the "
        f"representation has file names; got {', '.join(map(repr, columns))}: {remedy}."
    )


def places(keys: np.ndarray, wanted: np.ndarray, key: str, name: str) -> np.ndarray:
    """Find the row of a table for each sample.

    Parameters
    ----------
    keys : ndarray of shape (M,)
        Of the table's rows.
    wanted : ndarray of shape (N,)
        Of the samples.
    key, name : str
        Names of the column and of the file; a column ``row`` counts the samples.

    Returns
    -------
    ndarray of shape (N,), int
        Rows.

    Raises
    ------
    ValueError
        If a sample has no row or several, or ``row`` is no count.
    """
    if len(keys) == 0:
        raise ValueError(f"{name} must have a row for each of the {len(wanted)} samples; got none.")
    if key == ROW and keys.dtype.kind not in "iu":
        raise ValueError(f"column 'row' of {name} must hold whole numbers; got {keys.dtype}.")
    if key != ROW:
        keys, wanted = spelled(keys.astype(np.str_)), spelled(wanted)
    different, counts = np.unique(keys, return_counts=True)
    if len(different) < len(keys):
        raise ValueError(
            f"{name} must have one row a sample; got {key} {different[counts > 1][0]} more than "
            "once. A column 'split' tells splits apart."
        )
    rows = places_among(wanted, keys)
    if rows is None:
        missing = wanted[~np.isin(wanted, keys)]
        raise ValueError(
            f"{name} must have a row for each of the {len(wanted)} samples; got none for "
            f"{len(missing)} of them, such as {key} {missing[0]}."
        )
    if key == ROW and len(keys) > len(wanted):
        raise ValueError(
            f"{name} must have a row for each of the {len(wanted)} samples; got {len(keys)} rows. "
            "A column 'split' tells splits apart."
        )
    return rows


def _values(column: Any) -> np.ndarray:
    """Values of a factor, none of them missing."""
    try:
        values = values_of(column)
    except ValueError as error:
        try:
            numbers_of(column)
        except ValueError:
            raise error from None
        raise ValueError(f"{error} Or call it continuous: --continuous {column.name}.") from error
    if values.dtype.kind == "f" and np.isnan(values).any():
        return numbers_of(column)  # which says where
    return factor_of(values, str(column.name))
