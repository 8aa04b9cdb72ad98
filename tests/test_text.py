"""Text and numbers leave dimlab as they are: readable on every stream, strict as JSON."""

import io
import json
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console

from dimlab import terminal
from dimlab.result import Result, numbers_of, scalar
from dimlab.text import fitted, json_text, make_streams_readable, visible

HOSTILE = (
    "$x_$", "cost_$", "_site", "[bold]b[/bold]", "[/]", ":cat:", "<i>&\"q'", " ", "=1+1", "^_^",
    "a%s {} {0} \\n \\frac", "猫", "😀", "two\nlines", "tab\tbell\a", "red\x1b[31m",
    "half \ud83d", "turn\u202eed", "l" * 300,
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_can_be_seen_stays_and_the_rest_is_escaped(name):
    shown = visible(name)
    assert "\x1b" not in shown
    assert shown.encode("utf-8")
    assert visible(shown) == shown
    if name.isprintable():
        assert shown == name
    else:
        assert shown.encode("ascii", "backslashreplace").decode("unicode_escape") == name


def test_long_lines_keep_both_ends():
    name = "beginning" + "-" * 300 + "end\nsecond"
    first, second = fitted(name, 20).split("\n")
    assert (len(first), second) == (20, "second")
    assert first.startswith("beginning")
    assert first.endswith("end")
    assert fitted("x" * 20, 20) == "x" * 20


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "utf-16"])
def test_streams_of_every_encoding_take_every_text(monkeypatch, encoding):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    make_streams_readable()
    for name in (*HOSTILE, "R² ≥ 0.5 – μ → …", "é"):
        for stream in streams:
            print(name, file=stream)
    terminal.print_sentences(["R² ≥ 0.5"])
    written = []
    for stream in streams:
        stream.flush()
        written.append(stream.buffer.getvalue().decode(encoding))
    assert all(name in written[1] for name in HOSTILE if name.isascii())
    if encoding == "ascii":
        assert "R^2 >= 0.5 - \\u03bc -> ..." in written[0]
        assert "- R^2 >= 0.5" in written[0]
    if encoding in ("latin-1", "cp1252"):
        assert "R² >= 0.5" in written[0]
        assert "é" in written[1]


def test_streams_of_notebooks_are_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    make_streams_readable()
    print("R²")
    assert stream.getvalue() == "R²\n"


def test_json_is_strict_whatever_it_holds():
    value = {
        "inf": np.inf, "nan": np.float32("nan"), "array": np.array([1.5, -np.inf]), "≥": "猫\ud83d",
        "n": np.int64(3), "yes": np.True_, "pair": (1, None), 5: {},
    }  # fmt: skip
    text = json_text(value)
    assert text.isascii()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "inf": None, "nan": None, "array": [1.5, None], "≥": "猫\ud83d", "n": 3, "yes": True,
        "pair": [1, None], "5": {},
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"object is not JSON serializable$"):
        json_text([object()])


def test_infinities_are_raw_only_where_that_is_asked_for():
    @dataclass(frozen=True, eq=False, repr=False)
    class Numbers(Result):
        """Numbers."""

        values: list = scalar("Values.")

    numbers = Numbers([np.inf, -np.inf, np.nan, 1, 0.5, None])
    assert numbers_of(numbers) == {"values": [np.inf, -np.inf, None, 1, 0.5, None]}
    assert numbers.summary() == {"values": [None, None, None, 1, 0.5, None]}


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\ud83d" not in name])
def test_the_terminal_shows_names_as_they_are(monkeypatch, name):
    import pandas as pd

    stream = io.StringIO()
    monkeypatch.setattr(
        terminal, "console",
        lambda make=terminal.console: _to(make(), stream),
    )  # fmt: skip
    frame = pd.DataFrame({"factor": [name], name: [1.0]})
    terminal.print_table(frame, title=f"Of {name}")
    terminal.print_sentences([f"Of {name}."])
    terminal.print_summary({"factor": name, name: {name: 1.0}, "worst": np.inf}, as_json=False)
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert "\a" not in shown
    # in a head, a cell, a title, a sentence, a value and two keys; some of them may have two lines
    assert shown.count(visible(name, keep="")) >= (2 if "\n" in name else 7)
    assert "worst  infinite" in shown


@pytest.mark.parametrize(("width", "n_columns"), [(12, 1), (38, 2), (69, 4), (70, 5), (200, 5)])
def test_tables_of_every_width_leave_out_columns_and_never_digits(width, n_columns):
    import pandas as pd

    stream, effects = io.StringIO(), [0.123456, -1e-7, np.nan]
    frame = pd.DataFrame({
        "factor": [f"a-long-folder/epoch-{n:03d}" for n in range(3)], "largest effect": effects,
        "interval": ["0.12 [-0.30, +0.45]", "", "1.5"], "q": [0.5, 1e-12, 0.0],
        "verdict": ["nuisance", "through another factor", "neither"],
    })  # fmt: skip
    made, left_out = terminal.table(frame, formats={"largest effect": "+.7f"}, width=width)
    _to(terminal.console(), stream, width).print(made)
    shown = stream.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert len(made.columns) == n_columns
    assert left_out.startswith("No room for: ") == (n_columns < 5)
    assert list(made.columns[0].cells) == list(frame["factor"])  # wrapped, never shortened
    if n_columns > 1:
        assert all(f"{effect:+.7f}" in shown for effect in effects)
    if n_columns > 2:
        assert all(interval in shown for interval in frame["interval"])


def _to(console: Console, stream, width=1000) -> Console:
    console.file, console.width = stream, width
    return console
