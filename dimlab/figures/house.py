"""What all figures share: one style, colours told apart by colour-blind readers, size, words."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.figures import phone
from dimlab.text import fitted, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
UNDECIDED = "#E3E3E3"  # of areas
FACTORS = (ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "black")
LEVEL = 0.05
SIZE = 7.5, 4.2  # inches, in reports
NARROW = 5.0  # inches: a figure less wide has its scale of colours below, and fewer names
# of names that matplotlib's own font cannot write, where one of these is installed
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "Arial Unicode MS", "Noto Sans", "Noto Sans Symbols2", "Symbola",
)  # fmt: skip
_BESIDE, _ABOVE = 430, 1000  # points x characters of a line beside the axes, and along them


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the style of dimlab's reports; matplotlib's own settings come back afterwards."""
    import matplotlib as mpl
    import seaborn as sns

    style: Any = {**sns.plotting_context("paper", font_scale=1.1), **sns.axes_style("ticks")}
    style |= {"svg.hashsalt": "dimlab", "figure.dpi": 100, "axes.titlesize": "medium"}
    # matplotlib brings this font: the same result gives the same picture on every machine, but for
    # characters that it lacks
    fonts = ["DejaVu Sans", *(name for name in _MORE_FONTS if name in _installed())]
    style |= {"font.family": "sans-serif", "font.sans-serif": fonts}
    with mpl.rc_context(style), warnings.catch_warnings():
        # a box stands for it; tables and page have the name as text
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


@lru_cache(maxsize=1)
def _installed() -> frozenset[str]:
    from matplotlib.font_manager import fontManager

    return frozenset(each.name for each in fontManager.ttflist)


def figure_of(plot: Callable[..., Axes], result: Any, *, narrow: bool = False) -> Figure:
    """Draw a result as reports show it, or narrow as phones do, on a figure that pyplot lacks."""
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure

    style: Any = phone.STYLE if narrow else {}
    with house_style(), mpl.rc_context(style):
        figure = Figure(figsize=phone.SIZE if narrow else SIZE, layout="constrained")
        ax = plot(result, ax=figure.subplots())
        sns.despine(ax=ax)
        if not ax.axison:  # a sentence needs less room than a drawing
            n_lines = max((text.get_text().count("\n") for text in ax.texts), default=0) + 1
            figure.set_figheight(0.8 + 0.2 * n_lines)
        if narrow:
            phone.refit(figure)
    return figure


def is_narrow(ax: Axes) -> bool:
    """Whether axes stand on a figure as narrow as a phone."""
    return bool(ax.figure.bbox.width < NARROW * ax.figure.dpi)


def colour_bar(mappable: Any, ax: Axes, label: str, **options: Any) -> None:
    """Draw the scale of colours beside the axes, below them where the figure is narrow."""
    from matplotlib.ticker import MaxNLocator

    looks: dict[str, Any] = {"location": "right", "shrink": 0.94}
    if is_narrow(ax):
        looks = {"location": "bottom", "ticks": MaxNLocator(4)}
    ax.figure.colorbar(mappable, ax=ax, label=label, **looks, **options)


def picture_of(
    plot: Callable[..., Axes],
    result: Any,
    figure_format: str,
    *,
    dpi: int = 150,
    narrow: bool = False,
) -> bytes:
    """Draw a result as reports show it, as the bytes of a file: the same for the same result."""
    import io

    buffer = io.BytesIO()
    # no time of day
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with house_style():
        figure_of(plot, result, narrow=narrow).savefig(
            buffer, format=figure_format, metadata=metadata.get(figure_format), dpi=dpi
        )
    return buffer.getvalue()


def axes_or_current(ax: Axes | None) -> Axes:
    """Draw on the axes given, or on the current ones of pyplot."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()


def finished(ax: Axes, x: str | None, y: str | None, title: str) -> Axes:
    """Name the axes and the figure, where a name is given, and let the words stand as written."""
    if x is not None:
        ax.set_xlabel(x)
    if y is not None:
        ax.set_ylabel(y)
    ax.set_title(title, loc="left")
    return as_written(ax)


def count_in_whole_numbers(*axes: Axis) -> None:
    """Let the ticks of axes that count stand at whole numbers; ticks that were given stay."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        locator = axis.get_major_locator()
        if isinstance(locator, MaxNLocator):
            locator.set_params(integer=True)


def heat_map(
    ax: Axes, values: np.ndarray, columns: Any, rows: Sequence[str], **options: Any
) -> None:
    """Draw values (R, C) as colours beside their scale; at most some twenty columns are named."""
    label = options.pop("label")
    mesh = ax.pcolormesh(values, rasterized=True, linewidth=0, **options)
    colour_bar(mesh, ax, label)
    every = max(1, len(columns) // (10 if is_narrow(ax) else 20))
    ax.set_xticks(np.arange(len(columns))[::every] + 0.5, columns[::every], rotation=90)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)


def name_points(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    names: Sequence[str],
    *,
    most: int = 6,
    above: bool = False,
) -> None:
    """Write names beside points, or above them, the first ones first, where they have room."""
    # the limits of the axes must stand; constrained layout leaves axes about this room, in points
    room = np.array([0.7, 0.5]) * 72 * ax.figure.bbox.size / ax.figure.dpi
    fraction = (ax.transData + ax.transAxes.inverted()).transform(np.column_stack([x, y]))
    placed: list[np.ndarray] = []
    for corner, name, at in zip(fraction * room, names, zip(x, y, strict=True), strict=True):
        box = np.array([corner, corner + np.array([8 + 6 * len(name), 11])])
        crowded = any((box[0] < b[1]).all() and (b[0] < box[1]).all() for b in placed)
        if crowded or len(placed) == most:
            continue
        placed.append(box)
        ax.annotate(
            name, at, xytext=(0, 4) if above else (4, 2), textcoords="offset points",
            ha="center" if above else "left", fontsize="small", zorder=2.5,  # below dots
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


def several(number: int, noun: str) -> str:
    """Write a number with its noun, as `1 factor` and `2 factors`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def named_groups(result: Any) -> list[str]:
    """Name what is left out at a time by its dimension, or groups of several by their number."""
    single = all(len(group) == 1 for group in result.groups)
    return [str(group[0]) if single else f"g{g}" for g, group in enumerate(result.groups)]


def as_written(ax: Axes) -> Axes:
    """Let the words of a finished figure stand as they were given; long lines lose their middle."""
    # a dollar sign begins no formula, and unseen characters are escaped; numbers on axes and text
    # within the axes stay as they are
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    numbers: set[Text] = set()
    for axis in (ax.xaxis, ax.yaxis):
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        labels = [label for tick in ticks for label in (tick.label1, tick.label2)]
        numbers |= {axis.get_offset_text(), *labels}
        given = axis.get_major_formatter()
        if isinstance(given, (FixedFormatter, FuncFormatter)):
            axis.set_major_formatter(_shortened(given, float(labels[0].get_fontsize())))
            if any("$" in label.get_text() for label in labels):
                for label in labels:
                    label.set_parse_math(False)
    legend = ax.get_legend()
    named = set() if legend is None else {*legend.findobj(Text)}
    for text in {*ax.findobj(Text)} - numbers - {*ax.texts}:
        words = text.get_text()
        if "$" in words:
            text.set_parse_math(False)
        room = _BESIDE if text in named else _ABOVE
        text.set_text(_line(words, room, float(text.get_fontsize())))
    return ax


def _shortened(given: Callable[..., Any], size: float) -> Callable[..., str]:
    return lambda x, pos=None: _line(str(given(x, pos)), _BESIDE, size)


def _line(text: str, room: int, size: float) -> str:
    return fitted(visible(text), max(16, int(room / size)))


def nothing_found(ax: Axes, sentence: str, title: str) -> Axes:
    """Say in a sentence that there is nothing to draw."""
    ax.text(0.5, 0.5, textwrap.fill(sentence, 38), ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_axis_off()
    return finished(ax, None, None, title)


def legend_of(ax: Axes, names: Sequence[tuple[Any, str]], **options: Any) -> Legend:
    """Name artists in a legend, whatever the names begin with."""
    legend = ax.legend([artist for artist, _ in names], ["-"] * len(names), **options)
    for text, (_, name) in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # matplotlib leaves out labels that begin with an underscore
    return legend


def titled(title: str, result: Any) -> str:
    """Name the basis and the sample wherever they are not the axes and all of test."""
    basis = "" if result.basis == "axes" else f", {result.basis} basis"
    return title + basis + (f"\n{result.sample}" if result.sample else "")


def unit_of(result: Any) -> str:
    """Say what is left out at a time: a dimension, a direction of another basis, or a group."""
    if any(len(group) > 1 for group in result.groups):
        return "group"
    return "dimension" if result.basis == "axes" else "direction"
