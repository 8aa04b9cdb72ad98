"""What all figures share: colours told apart by colour-blind readers, and how axes are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
LEVEL = 0.05


def axes_or_current(ax: Axes | None) -> Axes:
    """Draw on the axes given, or on the current ones of pyplot."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()


def titled(title: str, result: Any) -> str:
    """Name the basis and the sample wherever they are not the axes and all of test."""
    basis = "" if result.basis == "axes" else f", {result.basis} basis"
    return title + basis + (f"\n{result.sample}" if result.sample else "")
