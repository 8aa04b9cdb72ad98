"""Slices of an axis: temporary arrays stay small, whatever the size of the whole."""

from __future__ import annotations

from collections.abc import Iterator

CACHED = 1 << 17  # elements of arrays that a processor's cache holds


def blocks(length: int, step: int) -> Iterator[slice]:
    """Give slices of at most ``step`` rows, and at least one, that cover all rows in order."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
