"""What all figures share: one style, colours told apart by colour-blind readers, size, words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.text import fitted, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
FACTORS = (ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "black")
LEVEL = 0.05
SIZE = 7.5, 4.2  # inches, in reports
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


def figure_of(plot: Callable[..., Axes], result: Any) -> Figure:
    """Draw a result as reports show it, on a figure that pyplot knows nothing of."""
    import seaborn as sns
    from matplotlib.figure import Figure

    with house_style():
        figure = Figure(figsize=SIZE, layout="constrained")
        sns.despine(ax=plot(result, ax=figure.subplots()))
    return figure


def picture_of(
    plot: Callable[..., Axes], result: Any, figure_format: str, *, dpi: int = 150
) -> bytes:
    """Draw a result as reports show it, as the bytes of a file: the same for the same result."""
    import io

    buffer = io.BytesIO()
    # no time of day
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with house_style():
        figure_of(plot, result).savefig(
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


def heat_map(
    ax: Axes, values: np.ndarray, columns: Any, rows: Sequence[str], **options: Any
) -> None:
    """Draw values (R, C) as colours beside their scale; at most some twenty columns are named."""
    label = options.pop("label")
    mesh = ax.pcolormesh(values, rasterized=True, linewidth=0, **options)
    ax.figure.colorbar(mesh, ax=ax, label=label)
    every = max(1, len(columns) // 20)
    ax.set_xticks(np.arange(len(columns))[::every] + 0.5, columns[::every], rotation=90)
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)


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
