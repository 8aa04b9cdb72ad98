"""Text of the widget: lists of dimensions, readouts, and the code that reproduces a view."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import numpy as np

from dimlab._explore.state import Explorer
from dimlab.refusals import Refusal

_SPAN = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def parse_spans(name: str, text: str) -> set[int]:
    """Read dimensions and ranges of them, both ends included, as 3, 17, 40-60; empty: none."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _SPAN.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last >= 10**7:
            raise Refusal(
                f"{name} must list dimensions and ranges, such as 3, 17, 40-60; got {part!r}."
            )
        found.update(range(first, last + 1))
    return found


def spans_of(dimensions: Iterable[int] | np.ndarray) -> str:
    """Write dimensions as `parse_spans` reads them."""
    index = np.unique(np.asarray(list(dimensions), dtype=np.int64))
    runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1) if len(index) else []
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def code_of(explorer: Explorer) -> str:
    """Write Python that gives an explorer's numbers by the public functions, and its view again."""
    listed = ", ".join(map(str, explorer.removed.tolist()))
    removed = f"removed = [{listed}]"
    if len(removed) > 88:
        removed = "removed = [\n" + textwrap.indent(textwrap.fill(listed, 84), "    ") + ",\n]"
    settings = f"k={explorer.k}, temperature={explorer.temperature}, penalty={explorer.penalty}"
    return f"""\
# train and test are the two representations that the view was made of
from dimlab import decompose, evaluate, explore

{removed}
kept = [d for d in range(train.n_dimensions) if d not in set(removed)]
settings = dict({settings})
scores = evaluate(
    train.select(kept), test.select(kept), readers=["knn", "ridge"], **settings
)
spectrum = decompose(test.select(kept))
print(scores.to_frame())
print("effective rank", spectrum.effective_rank)
view = explore(train, test, removed=removed, **settings)
view
"""
