"""What all figures share: one style, colours told apart by colour-blind readers, size, axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
FACTORS = (ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "black")
LEVEL = 0.05
SIZE = 7.5, 4.2  # inches, in reports


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the style of dimlab's reports; matplotlib's own settings come back afterwards."""
    import matplotlib as mpl
    import seaborn as sns

    style: Any = {**sns.plotting_context("paper", font_scale=1.1), **sns.axes_style("ticks")}
    style |= {"svg.hashsalt": "dimlab", "figure.dpi": 100, "axes.titlesize": "medium"}
    # matplotlib brings this font: the same result gives the same picture on every machine
    style |= {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}
    with mpl.rc_context(style):
        yield


def figure_of(plot: Callable[..., Axes], result: Any) -> Figure:
    """Draw a result as reports show it, on a figure that pyplot knows nothing of."""
    import seaborn as sns
    from matplotlib.figure import Figure

    with house_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        sns.despine(ax=plot(result, ax=figure.subplots()))
    return figure


def picture_of(plot: Callable[..., Axes], result: Any, figure_format: str) -> bytes:
    """Draw a result as reports show it, as the bytes of a file: the same for the same result."""
    import io

    buffer = io.BytesIO()
    # no time of day
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with house_style():
        figure_of(plot, result).savefig(
            buffer, format=figure_format, metadata=metadata.get(figure_format), dpi=150
        )
    return buffer.getvalue()


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


def unit_of(result: Any) -> str:
    """Say what is left out at a time: a dimension, a direction of another basis, or a group."""
    if any(len(group) > 1 for group in result.groups):
        return "group"
    return "dimension" if result.basis == "axes" else "direction"
