"""Pictures of a mask's state, as PNG bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from dimlab._explore.state import MaskState
from dimlab.figures.house import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (5.4, 3.0)  # inches
_MOST_CLASSES = 16  # shown one by one
_LEAST_CHANGE = 0.02  # the axis of changes never shows less
_STRIP = (1024, 64)  # pixels, at least that wide
_TALL = 96  # pixels of a shown image


def draw_classes(state: MaskState, full: MaskState, classes: np.ndarray) -> Figure:
    """Draw how the ridge's accuracy within each class differs from that of all dimensions."""
    change = state.ridge_per_class - full.ridge_per_class
    known = np.flatnonzero(~np.isnan(change))
    largest = known[np.argsort(-np.abs(change[known]), kind="stable")[:_MOST_CLASSES]]
    shown = np.sort(largest)
    figure, ax = _axes()
    place = np.arange(len(shown))
    colours = np.where(change[shown] < 0, ORANGE, BLUE)
    ax.bar(place, change[shown], color=colours.tolist(), width=0.7)
    ax.axhline(0, color="black", lw=0.8)
    limit = max(float(np.abs(change[shown]).max(initial=0)) * 1.1, _LEAST_CHANGE)
    ax.set_ylim(-limit, limit)
    labels = [f"{classes[c]}\n{state.ridge_per_class[c]:.2f}" for c in shown]
    ax.set_xticks(place, labels, fontsize="x-small" if len(shown) > 10 else "small")
    some = f" ({len(shown)} of {len(known)}, largest changes)" if len(shown) < len(known) else ""
    title = "Ridge within each class, against all dimensions"
    _name(ax, f"class, and its accuracy now{some}", "change of accuracy", title)
    return figure


def draw_spectrum(state: MaskState, full: MaskState) -> Figure:
    """Draw the singular values of the kept test features beside those of all, log-log."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, ax = _axes()
    for values, colour, name in (
        (full.singular_values, GREY, "all dimensions"),
        (state.singular_values, BLUE, f"the {int(state.kept.sum())} kept"),
    ):
        values = values[values > 0]
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.8, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):  # plain numbers draw much faster than powers
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    low, high = ax.get_ylim()
    if high < 100 * low:  # a power of ten or two would be all that is labelled
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    _name(ax, "rank", "singular value", "Spectrum of the test features")
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    return figure


def as_png(figure: Figure) -> bytes:
    """Render a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def strip_of(scores: np.ndarray, kept: np.ndarray) -> bytes:
    """Render scores (D,) as a PNG of bars, one a dimension; removed ones in orange, NaN a gap."""
    wide = max(1, -(-_STRIP[0] // len(scores)))
    filled = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = min(float(filled.min()), 0.0), max(float(filled.max()), 0.0)
    row = np.arange(_STRIP[1])[:, None]
    zero = (_STRIP[1] - 1) * high / (high - low or 1.0)  # pixels from the top
    end = (_STRIP[1] - 1) * (high - filled) / (high - low or 1.0)
    bar = (row >= np.minimum(zero, end) - 1) & (row <= np.maximum(zero, end) + 1)
    bar[:, np.isnan(scores)] = False
    colours = np.where(kept[:, None], _rgb(BLUE), _rgb(ORANGE))  # (D, 3)
    picture = np.where(bar[..., None], colours, np.where(kept[:, None], 255, [252, 232, 222]))
    pixels = np.repeat(picture.astype(np.uint8), wide, axis=1)
    if wide > 2:
        pixels[:, wide - 1 :: wide] = 255  # a gap between bars
    return _encoded(pixels)


def tiles_of(images: np.ndarray) -> bytes:
    """Render images (n, C, H, W), uint8, side by side, enlarged by a whole factor."""
    factor = max(1, _TALL // images.shape[2])
    grey = images if images.shape[1] == 3 else np.repeat(images, 3, axis=1)
    large = grey.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    framed = np.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=204)
    return _encoded(np.concatenate(list(framed), axis=1))


def _axes() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE)
    figure.subplots_adjust(left=0.14, right=0.98, top=0.9, bottom=0.25)  # measuring text is slow
    return figure, figure.add_subplot()


def _name(ax: Axes, x: str, y: str, title: str) -> None:
    ax.set_xlabel(x, fontsize="small")
    ax.set_ylabel(y, fontsize="small")
    ax.set_title(title, loc="left", fontsize="medium")


def _rgb(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def _encoded(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
