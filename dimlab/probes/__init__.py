"""Probes: functions of representations that return small frozen results, one file a probe.

``__all__`` is the only list of dimlab's own, in the order of a report. Each name is the module, and
the function in it. Other packages add theirs by entry points of the group ``dimlab.probes``, each
the name of a function, ``cohere = "their_package.cohere:cohere"``. Beside the function a module has
``NEEDS``, alternatives of what must be there (``labels``, ``views``, ``factors``, ``trace``,
``train``), and perhaps ``verdict(result)``, which answers one question or returns None.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

from dimlab import outside

__all__ = [  # noqa: RUF022 (in the order of a report)
    "evaluate",
    "ablate",
    "ablate_cumulatively",
    "random_masks",
    "confirm_harmful",
    "ablate_retrieval",
    "correlate",
    "decompose",
    "find_redundancy",
    "profile",
    "attribute",
    "erase",
    "find_suspects",
    "follow",
    "bound_risk",
    "compare",
]

OUTSIDE = "dimlab.probes"  # group of the entry points


def outside_probes() -> dict[str, EntryPoint]:
    """Return the entry points of the probes of other packages, by name; none is loaded."""
    return {name: each for name, each in outside.added(OUTSIDE).items() if name not in __all__}


def probe_named(name: str) -> Callable[..., Any]:
    """Return a probe of dimlab or of another package."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.{name}"), name)
    return outside.loaded(outside_probes()[name])


def needs_of(probe: Callable[..., Any]) -> tuple[set[str], ...]:
    """Return the alternatives of what a probe needs; one that does not say needs nothing."""
    return getattr(import_module(probe.__module__), "NEEDS", (set(),))
