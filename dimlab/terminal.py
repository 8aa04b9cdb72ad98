"""What the command line shows: tables on stdout, progress on stderr."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dimlab.text import in_words, json_text, visible

Advance = Callable[[int, int], None]
_PIPED = 10_000  # columns of output that goes into a file or a pipe, where nothing is cut
_GAP = 2  # characters between the columns of a table
_SHORTEST = 20  # characters of a word that is never broken
_NUMBERS = re.compile(r"([-+\d.,e%\[\] ]|inf|nan)*")


class _Console(Console):
    """Shows any text as it is: brackets and colons are no markup, and controls are escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def console() -> Console:
    """Return the console for results; what is piped is plain text without a limit of width."""
    width = None if sys.stdout.isatty() else _PIPED
    return _Console(width=width, markup=False, emoji=False, highlight=False)


@contextmanager
def progress(text: str, *, quiet: bool = False, unit: str = "") -> Iterator[Advance]:
    """Show a progress line while the block runs, if stderr is a terminal; yield ``advance``.

    With a ``unit`` it says how many are done a second.
    """
    started = time.perf_counter()
    with _bar("{task.description}", "{task.fields[count]}", quiet=quiet) as bar:
        task = bar.add_task(visible(text), total=None, count="")

        def advance(done: int, total: int) -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            speed = f", {rate:.0f} {unit}/s" if unit else ""
            count = f"{done}/{total}{speed}" if total else f"{done}{speed}"
            bar.update(task, completed=done, total=total, count=count)

        yield advance


@contextmanager
def training_progress(
    n_steps: int, batch_size: int, *, quiet: bool = False
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show losses, images a second and time left while the block trains; yield the sink."""
    with _bar("training", "{task.fields[losses]}", "{task.fields[count]}", quiet=quiet) as bar:
        task = bar.add_task("training", total=n_steps, losses="", count=f"0/{n_steps}")

        def show(record: dict[str, Any]) -> None:
            names = ("contrastive", "invariance", "redundancy")
            named = [f"{name} {record[name]:.4g}" for name in names if name in record]
            speed, step = f"{batch_size / record['seconds']:.0f} images/s", record["step"]
            losses = ", ".join([*named, speed])
            bar.update(task, completed=step, losses=losses, count=f"{step}/{n_steps}")

        yield show


def _bar(*texts: str, quiet: bool) -> Progress:
    return Progress(
        *(TextColumn(each, markup=False) for each in texts[:-1]),
        BarColumn(bar_width=20),
        TextColumn(texts[-1]),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def table(
    frame: Any, *, formats: dict[str, str] | None = None, width: int = _PIPED
) -> tuple[Table, str]:
    """Make a table of a data frame, with ``formats`` of numbers by column.

    Numbers are never shortened. Where there is no room for all columns, text is wrapped, and the
    last columns are left out, which the second value says.
    """
    formats = formats or {}
    columns = {
        _cell(name): [_cell(_written(value, formats.get(name, ""))) for value in frame[name]]
        for name in frame.columns
    }
    shown = _that_fit(columns, width)
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    wide = sum(max(map(cell_len, [name, *columns[name]])) + _GAP for name in shown) - _GAP
    for name, heading in zip(shown, frame.columns, strict=False):
        numbers = all(map(_NUMBERS.fullmatch, columns[name]))  # which are never wrapped
        made.add_column(
            name.replace(" ", "\n") if numbers and wide > width else name,
            justify="right" if frame[heading].dtype.kind in "ifu" else "left",
            no_wrap=numbers, overflow="fold",
        )  # fmt: skip
    for cells in zip(*(columns[name] for name in shown), strict=True):
        made.add_row(*cells)
    left_out = ", ".join(list(columns)[len(shown) :])
    return made, f"No room for: {left_out} (--out and --json have all)." if left_out else ""


def _that_fit(columns: dict[str, list[str]], width: int) -> list[str]:
    """Return the first columns, as many as a line has room for; at least one."""
    used = -_GAP
    fit: list[str] = []
    for name, cells in columns.items():
        numbers = all(map(_NUMBERS.fullmatch, cells))
        whole = cells if numbers else " ".join(cells).split()
        longest = max(map(cell_len, [*whole, *name.split(" ")]))
        used += _GAP + (longest if numbers else min(longest, _SHORTEST))
        if fit and used > width:
            break
        fit.append(name)
    return fit


def _written(value: Any, form: str) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return format(value, form)


def _cell(text: Any) -> str:
    """Keep the text of a cell on its line, whatever it holds."""
    return visible(str(text), keep="")


def print_table(frame: Any, *, title: str, formats: dict[str, str] | None = None) -> None:
    """Print a data frame as a table under a title."""
    shown = console()
    made, left_out = table(frame, formats=formats, width=shown.width)
    shown.print(title)
    shown.print(made)
    if left_out:
        shown.print(left_out)


def print_rows(
    result: Any,
    title: str,
    *,
    names: dict[str, str] | None = None,
    by: list[str] | None = None,
    ascending: bool | list[bool] = True,
    count: int = 12,
) -> None:
    """Print the first rows of a result in the order of columns, or rows spread over all of it."""
    # `names`: the columns that come first, and how they are called here
    frame = result.to_frame()
    if by is not None:
        frame = frame.sort_values(by, ascending=ascending, kind="stable").head(count)
    elif len(frame) > count:
        frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, count).round().astype(int))]
    names = names or {}
    frame = frame[[*names, *frame.columns.drop(list(names))]].rename(columns=names)
    numbers = dict.fromkeys(frame.select_dtypes("float").columns, ".4g")
    sample = result.summary().get("sample")
    print_table(frame, title=title + (f" ({sample})" if sample else ""), formats=numbers)


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, each on a line of its own."""
    shown = console()
    shown.print()
    for sentence in sentences:
        shown.print(f"- {sentence}")
    shown.print()


def with_bounds(frame: Any, name: str, low: str, high: str, form: str = ".4g") -> list[str]:
    """Write a column with its bounds as one text a row, "value [low, high]"; NaN is left empty."""
    texts = []
    for value, a, b in frame[[name, low, high]].itertuples(index=False, name=None):
        bounds = f" [{a:{form}}, {b:{form}}]" if np.isfinite([a, b]).all() else ""
        texts.append("" if np.isnan(value) else f"{value:{form}}{bounds}")
    return texts


def intervals(frame: Any, **forms: str) -> Any:
    """Write every column that has ``<name>_low`` and ``<name>_high`` as one text with them."""
    for name in frame.columns:
        low, high = f"{name}_low", f"{name}_high"
        if low in frame and high in frame:
            texts = with_bounds(frame, name, low, high, forms.get(name, ".4g"))
            frame = frame.assign(**{name: texts}).drop(columns=[low, high])
    return frame


def print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print a summary, a line an entry that is not empty, or as JSON."""
    if as_json:
        print(json_text(summary))
        return
    shown = console()
    for key, value in summary.items():
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            continue
        shown.print(Text.assemble((visible(key), "bold"), "  ", visible(in_words(value))))
