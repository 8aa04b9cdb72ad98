"""Probes: functions of representations that return small frozen results, one file a probe.

``__all__`` is the only list of probes. Each name is the module, and the function in it.
"""

__all__ = [
    "ablate",
    "ablate_cumulatively",
    "attribute",
    "bound_risk",
    "compare",
    "confirm_harmful",
    "correlate",
    "decompose",
    "erase",
    "evaluate",
    "find_redundancy",
    "follow",
    "random_masks",
]
