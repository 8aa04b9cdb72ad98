"""What other packages add through entry points: probes, readers, data sets, checkpoint layouts."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dimlab.refusals import Refusal


def added(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group, such as ``dimlab.probes``, by name; none is loaded."""
    return {each.name: each for each in entry_points(group=group)}


def loaded(point: EntryPoint) -> Any:
    """Return what an entry point names."""
    try:
        return point.load()
    except Exception as error:
        raise Refusal(
            f"entry point {point.name} of {point.group} must be importable; got "
            f"{type(error).__name__}: {error}. Repair or uninstall the package {point.value}."
        ) from error
