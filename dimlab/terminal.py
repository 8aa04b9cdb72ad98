"""What the command line shows: tables on stdout, progress on stderr."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dimlab.text import fitted, json_text, raw_numbers, visible

if TYPE_CHECKING:
    from dimlab.probes.ablate import Ablation

Advance = Callable[[int, int], None]
_GAP = 2  # characters between the columns of a table
_SHORTEST = 12  # characters of a column of text
_NUMBERS = re.compile(r"([-+\d.,e%\[\] ]|inf|nan)*")


class _Console(Console):
    """Shows anyone's text as it is: brackets and colons are no markup, controls are escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def console() -> Console:
    """Return the console for results: plain and wide enough for a table when stdout is no terminal.

    Returns
    -------
    rich.console.Console
        Writes to the current stdout, and text as it is.
    """
    return _Console(
        width=None if sys.stdout.isatty() else 100, markup=False, emoji=False, highlight=False
    )


@contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show a progress line on stderr while the block runs; nothing where stderr is no terminal.

    Parameters
    ----------
    text : str
        What is being done.
    quiet : bool, default=False
        Show nothing.

    Yields
    ------
    callable
        ``advance(done, total)``.
    """
    with _bar(TextColumn("{task.description}", markup=False), quiet=quiet) as bar:
        task = bar.add_task(visible(text), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def training_progress(
    n_steps: int, batch_size: int, *, quiet: bool = False
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show losses, images a second and time left on stderr while the block trains.

    Parameters
    ----------
    n_steps, batch_size : int
        Steps of the run, images a step.
    quiet : bool, default=False
        Show nothing.

    Yields
    ------
    callable
        The ``sink`` of `dimlab.train`.
    """
    with _bar(
        TextColumn("{task.description}"), TextColumn("{task.fields[losses]}"), quiet=quiet
    ) as bar:
        task = bar.add_task("training", total=n_steps, losses="")

        def show(record: dict[str, Any]) -> None:
            named = [
                f"{name} {record[name]:.4g}"
                for name in ("contrastive", "invariance", "redundancy")
                if name in record
            ]
            speed = f"{batch_size / record['seconds']:.0f} images/s"
            bar.update(task, completed=record["step"], losses=", ".join([*named, speed]))

        yield show


def _bar(*columns: Any, quiet: bool) -> Progress:
    return Progress(
        *columns,
        BarColumn(bar_width=20),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def table(
    frame: Any, *, title: str, formats: dict[str, str] | None = None, width: int = 100
) -> Table:
    """Make a table of a data frame.

    Parameters
    ----------
    frame : DataFrame
        One row a line.
    title : str
        Shown above.
    formats : dict of str to str, optional
        Format of a column's numbers, as ``{"importance": "+.4f"}``; the column names are the
        header.
    width : int, default=100
        Characters of a line.

    Returns
    -------
    rich.table.Table
        Numbers are right-aligned and never shortened: where there is no room, text is, and the last
        columns are left out, which is said below.
    """
    formats = formats or {}
    columns = [
        [_cell(name), *(_cell(format(value, formats.get(name, ""))) for value in frame[name])]
        for name in frame.columns
    ]
    widths = _widths(columns, width)
    left_out = ", ".join(column[0] for column in columns[len(widths) :])
    shown = Table(
        title=title, title_justify="left", box=None, pad_edge=False, caption_justify="left",
        caption=f"No room for: {left_out} (--out and --json have all)." if left_out else None,
    )  # fmt: skip
    for name, wide in zip(frame.columns, widths, strict=False):
        numeric = frame[name].dtype.kind in "ifu"
        shown.add_column(_cell(name), justify="right" if numeric else "left", width=wide)
    for cells in list(zip(*columns[: len(widths)], strict=True))[1:]:
        shown.add_row(*(_broken(cell, wide) for cell, wide in zip(cells, widths, strict=True)))
    return shown


def _broken(cell: str, width: int) -> str:
    """Leave out the middle of words that are longer than a column: ends tell names apart."""
    return re.sub(r"\S+", lambda word: fitted(word[0], width), cell)


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Share a line out among the first columns, as many as have room for their numbers and words.

    The first cell of a column is its head, of which a word a line is enough.
    """
    wanted = [max(map(cell_len, column)) for column in columns]
    given = []
    for column, most in zip(columns, wanted, strict=True):
        numbers = all(_NUMBERS.fullmatch(cell) for cell in column[1:])
        whole = [*column[0].split(), *(column[1:] if numbers else " ".join(column[1:]).split())]
        longest = max(map(cell_len, whole), default=0)
        given.append(min(most, longest if numbers else min(longest, _SHORTEST)))
    while len(given) > 1 and sum(given) + _GAP * (len(given) - 1) > width:
        given.pop()
    spare = max(0, width - sum(given) - _GAP * (len(given) - 1))
    order = sorted(range(len(given)), key=lambda place: wanted[place] - given[place])
    for done, place in enumerate(order):
        more = min(wanted[place] - given[place], spare // (len(order) - done))
        given[place] += more
        spare -= more
    return given


def _cell(text: Any) -> str:
    """Keep the text of a cell on its line, whatever it holds."""
    return visible(str(text), keep="")


def print_table(frame: Any, *, title: str, formats: dict[str, str] | None = None) -> None:
    """Print a data frame as a table.

    Parameters
    ----------
    frame, title, formats
        As in ``table``.
    """
    shown = console()
    shown.print(table(frame, title=title, formats=formats, width=shown.width))


def print_rows(
    result: Any,
    title: str,
    *,
    by: list[str] | None = None,
    ascending: bool | list[bool] = True,
    count: int = 12,
) -> None:
    """Print a result's table, or rows spread over it where it is long.

    Parameters
    ----------
    result : result
        With ``to_frame()`` and ``summary()``.
    title : str
        Shown above, with the sample where that is not all of test.
    by : list of str, optional
        Print the first rows in the order of these columns instead.
    ascending : bool or list of bool, default=True
        Of the columns in ``by``.
    count : int, default=12
        Rows, at most.
    """
    frame = result.to_frame()
    if by is not None:
        frame = frame.sort_values(by, ascending=ascending, kind="stable").head(count)
    elif len(frame) > count:
        frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, count).round().astype(int))]
    numbers = dict.fromkeys(frame.select_dtypes("float").columns, ".4g")
    sample = result.summary().get("sample")
    print_table(frame, title=title + (f" ({sample})" if sample else ""), formats=numbers)


def print_extremes(result: Ablation, count: int = 10) -> None:
    """Print the needed and the harmful groups of an ablation, and the lowest undecided ones.

    Parameters
    ----------
    result : Ablation
        From `dimlab.ablate`.
    count : int, default=10
        Rows of each table, at most.
    """
    frame = result.to_frame().drop(columns="group")
    rough = frame.pop("log_loss_unreliable") if "log_loss_unreliable" in frame else None
    short = {"p_value": "p", "q_value": "q", "log_loss_importance": "log_loss_lost"}
    frame = frame.rename(columns=short | {"log_loss_p_value": "its_p", "alone_score": "alone"})
    if rough is not None and rough.any():
        frame["rough"] = np.where(rough, "yes", "")
    bounds = ("ci_low", "ci_high", "fcr_low", "fcr_high")
    formats = dict.fromkeys(("importance", *bounds, "log_loss_lost"), "+.4f")
    formats |= {"score": ".4f", "alone": ".4f", "p": ".2g", "q": ".2g", "its_p": ".2g"}
    sample = f" ({result.sample})" if result.sample else ""
    unit = "groups" if "dimension" not in frame else "dimensions"
    unit = unit if unit == "groups" or result.basis == "axes" else f"{result.basis} directions"
    found = frame.drop(columns=list(bounds[:2])) if "fcr_low" in frame else frame
    rest = frame.drop(columns=[name for name in bounds[2:] if name in frame])
    lowest = result.undecided
    highest = lowest[::-1] if len(result.needed) == 0 else lowest[:0]
    for rows, name, shown in (
        (result.needed, f"most needed {unit}, q <= 0.05", found),
        (result.harmful, f"most harmful {unit}, q <= 0.05", found),
        (lowest, "lowest estimates, undecided", rest),
        (highest, "highest estimates, undecided", rest),
    ):
        if len(rows):
            some = shown.iloc[rows[:count]]
            print_table(some, title=f"\n{len(some)} {name}{sample}", formats=formats)
    said = [
        f"No {unit} {what} at q <= 0.05{sample}."
        for rows, what in ((result.needed, "are needed"), (result.harmful, "are harmful"))
        if len(rows) == 0
    ]
    if "rough" in frame:
        said.append("rough: fewer than 20 rows differ in log-loss, or they are very skewed.")
    if said:
        print_sentences(said)


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, each on lines of its own.

    Parameters
    ----------
    sentences : iterable of str
        What a result says in words.
    """
    shown = console()
    shown.print()
    for sentence in sentences:
        shown.print(f"- {sentence}")
    shown.print()


def with_bounds(frame: Any, name: str, low: str, high: str, form: str = ".4g") -> list[str]:
    """Write a column with its bounds as one text a row.

    Parameters
    ----------
    frame : DataFrame
        Has the three columns.
    name, low, high : str
        Their names.
    form : str, default=".4g"
        Format of the three numbers.

    Returns
    -------
    list of str
        ``value [low, high]``; the value alone where there are no bounds, nothing where it is NaN.
    """
    rows: Sequence[tuple[float, float, float]] = list(
        frame[[name, low, high]].itertuples(index=False, name=None)
    )
    return [
        ""
        if np.isnan(value)
        else format(value, form)
        + (f" [{a:{form}}, {b:{form}}]" if np.isfinite([a, b]).all() else "")
        for value, a, b in rows
    ]


class GateMet(Exception):
    """A number that a pipeline does not want."""


@dataclass(frozen=True)
class Gate:
    """A comparison of a number of a summary with a limit.

    Parameters
    ----------
    key : str
        Dotted, as ``factors.hue.largest_effect``.
    sign : str
        One of > >= < <= == !=.
    limit : float
        What it is compared with.
    """

    key: str
    sign: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Gate:
        """Read a gate.

        Parameters
        ----------
        text : str
            ``KEY SIGN NUMBER``.

        Returns
        -------
        Gate
            What it says.

        Raises
        ------
        ValueError
            If it says something else.

        Examples
        --------
        >>> Gate.of("n_harmful>0")
        Gate(key='n_harmful', sign='>', limit=0.0)
        """
        found = re.fullmatch(r"\s*(.*[^\s<>=!])\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*", text, re.DOTALL)
        try:
            limit = float(found[3]) if found else np.nan
        except ValueError:
            limit = np.nan
        if found is None or np.isnan(limit):
            raise ValueError(f"fail-if must be KEY > NUMBER (or >=, <, <=, ==, !=); got {text!r}.")
        return cls(found[1], found[2], limit)

    def check(self, summary: Mapping[str, Any]) -> None:
        """Raise where the summary meets the gate, or where that cannot be known.

        Parameters
        ----------
        summary : mapping
            Of a result, best with its infinite numbers as they are (`raw_numbers`).

        Raises
        ------
        GateMet
            If it does, or if the number is not defined (None, NaN): nothing passes unseen.
        ValueError
            If there is no such number.
        """
        found = _named(summary, self.key)
        if not found:
            known = ", ".join(_keys_beside(summary, self.key)) or "nothing"
            raise ValueError(
                f"fail-if must name a number of the JSON, one of {known}; got {self.key!r}."
            )
        value = found[0]
        asked = f"{self.key} {self.sign} {self.limit:g}"
        if value is None or value != value:
            raise GateMet(
                f"gate not passed: {self.key} is not defined for this result (null in the JSON), "
                f"so that {asked} cannot be decided."
            )
        if not isinstance(value, Real):
            raise ValueError(f"fail-if must name a number; got {self.key!r}, which is not one.")
        if _SIGNS[self.sign](value, self.limit):
            raise GateMet(f"gate met: {self.key} is {value}, {self.sign} {self.limit:g}.")


def _named(value: Any, key: str) -> list[Any]:
    """Find what a dotted key names: nothing or one; names may have dots of their own."""
    if value is None:  # what lies within something undefined is not defined
        return [value]
    for name in value if isinstance(value, Mapping) else ():
        if key == str(name):
            return [value[name]]
        if key.startswith(f"{name}."):
            found = _named(value[name], key[len(str(name)) + 1 :])
            if found:
                return found
    return []


def _keys_beside(value: Any, key: str) -> list[str]:
    """List the names among which the first unknown part of a dotted key stands."""
    names = list(value) if isinstance(value, Mapping) else []
    for name in names:
        if key.startswith(f"{name}."):
            return _keys_beside(value[name], key.removeprefix(f"{name}."))
    return [str(name) for name in names]


_SIGNS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@contextmanager
def presented(
    result: Any,
    name: str,
    out: Path | None,
    *,
    as_json: bool,
    fail_if: Sequence[str] | None = None,
    figure_format: str = "svg",
    shown: Sequence[str] = (),
    beside: Callable[[], Mapping[str, bytes]] | None = None,
    record: Callable[[], Mapping[str, Any]] | None = None,
) -> Iterator[bool]:
    """Write a result into a folder, if one is named; then let tables be printed; then its summary.

    Parameters
    ----------
    result : result
        With ``to_frame()`` and ``summary()``.
    name : str
        Stem of the files.
    out : Path or None
        The folder. Its files are whole before the first line is printed, which a closed pipe may
        refuse.
    as_json : bool
        Print JSON, and nothing else.
    fail_if : sequence of str, optional
        Gates, looked at when all is written and printed.
    figure_format : str, default="svg"
        Of the figures.
    shown : sequence of str
        Entries of the summary that a table shows; JSON has them all the same.
    beside : callable, optional
        Gives contents of further files, by ending; asked where a folder is named.
    record : callable, optional
        Gives where the result is from; asked where a folder is named.

    Yields
    ------
    bool
        Whether tables for people are wanted.

    Raises
    ------
    GateMet
        If the summary meets a gate.
    ValueError
        If a gate names no number of the summary.
    """
    from dimlab.report import write_result

    files = {}
    if out is not None:
        files = write_result(
            out, name, result, figure_format=figure_format,
            beside=None if beside is None else beside(),
            provenance=None if record is None else record(),
        )  # fmt: skip
    yield not as_json
    with raw_numbers():
        summary = whole = result.summary()
    if not as_json:
        if files:
            print(visible(" ".join(map(str, ("wrote", *files.values())))))
        summary = {key: value for key, value in summary.items() if key not in shown}
    print_summary(summary, as_json=as_json)
    for gate in fail_if or []:
        Gate.of(gate).check(whole)


def print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print a summary, a line an entry.

    Parameters
    ----------
    summary : dict
        Of a result; JSON has null for numbers that are not finite.
    as_json : bool
        Print it as JSON.
    """
    from dimlab.report import in_words

    if as_json:
        print(json_text(summary))
        return
    shown = console()
    for key, value in summary.items():
        shown.print(Text.assemble((visible(key), "bold"), "  ", visible(in_words(value))))
