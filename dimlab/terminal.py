"""What the command line shows: tables on stdout, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

Advance = Callable[[int, int], None]


def console() -> Console:
    """Return the console for results: plain and wide enough for a table when stdout is no terminal.

    Returns
    -------
    rich.console.Console
        Writes to the current stdout.
    """
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False, soft_wrap=False)


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
    with _bar(TextColumn("{task.description}"), quiet=quiet) as bar:
        task = bar.add_task(text, total=None)
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


def table(frame: Any, *, title: str, formats: dict[str, str] | None = None) -> Table:
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

    Returns
    -------
    rich.table.Table
        Numbers are right-aligned.
    """
    formats = formats or {}
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in frame.columns:
        numeric = frame[name].dtype.kind in "ifu"
        shown.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    for row in frame.itertuples(index=False):
        cells = zip(frame.columns, row, strict=True)
        shown.add_row(*(format(value, formats.get(name, "")) for name, value in cells))
    return shown
