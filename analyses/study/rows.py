"""Finished runs in one file that is committed, a JSON line each: none of them is trained again.

A line has ``key`` (`study.sweep.Run.key`: configuration, data, versions of the augmentation and of
the training step), ``labels``, ``seed``, ``config`` (the fields that differ from the default),
``data``, ``images`` (a hash of the images), ``seconds`` (CPU time of one thread), ``versions`` and
``environment``, and ``measures``: the rows that each function of a script measured.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dimlab.io.files import locked, replacing

MOST_BYTES = 20_000  # of a line


def measure_name(measure: Callable[..., Any]) -> str:
    """Return the script and the function that measure, however the script was started."""
    return f"{Path(inspect.getfile(measure)).stem}.{measure.__name__}"


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the finished runs by their keys; none where there is no file."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Append a finished run; the file is replaced whole, so that no line is ever half-written."""
    line = json.dumps(_plain(row))
    if len(line) > MOST_BYTES:
        raise ValueError(
            f"a row must have at most {MOST_BYTES:,} bytes; got {len(line):,} for {row['key']}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent, path.name):
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        if row["key"] in read_rows(path):
            raise ValueError(f"key must be one of no finished run; got {row['key']}, in {path}.")
        with replacing(path) as whole:
            whole.write_text(f"{before}{line}\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return plain values, numbers with eight digits; what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return float(f"{number:.8g}") if math.isfinite(number) else None
