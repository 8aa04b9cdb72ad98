"""One row for each dimension, with what every result says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dimlab.result import Result, axis_of, name_of, titles_of


def dimensions_of(results: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """Join what the results say of each dimension into a row; also return titles of columns."""
    import pandas as pd

    frames: dict[type, Any] = {}  # of each class the first
    for result in results.values():
        if type(result) in frames or getattr(result, "basis", "axes") != "axes":
            continue
        frame = result.to_frame()
        if "dimension" in frame and frame["dimension"].is_unique:
            frames[type(result)] = frame.set_index("dimension")
        elif isinstance(result, Result) and axis_of(result) == "dimension":
            frames[type(result)] = frame
    size = max(map(len, frames.values()), default=0)
    columns: dict[str, Any] = {"dimension": np.arange(size)}
    titles = {"dimension": "index of the dimension"}
    for kind, frame in frames.items():
        said = titles_of(kind) if issubclass(kind, Result) else {}
        shown = getattr(kind, "DIMENSIONS", None)
        if shown is None:
            shown = [
                (f"{name_of(kind)}_{each}" if each in columns else each, each, said.get(each, each))
                for each in frame
            ]
        for name, column, title in shown:
            if column in frame and len(frame) == size:
                columns[name], titles[name] = frame[column].to_numpy(), title
    return (pd.DataFrame(columns), titles) if len(titles) > 1 else (pd.DataFrame(), {})
