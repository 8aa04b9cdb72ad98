"""The layout of figures on a phone: letters are 12 px high on a page of 375 px."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

SIZE = 3.57, 4.4  # inches: 343 px, which margins of 16 px leave of 375 px
LETTERS = 9.0  # points: 12 px
_ACROSS, _DOWN, _NAMES, _IN_LEGEND = 44, 40, 22, 40  # characters of a line
_LINE = 0.17  # inches between the lines of names on the vertical axis
STYLE: dict[str, Any] = {
    "font.size": LETTERS, "axes.titlesize": LETTERS, "axes.labelsize": LETTERS,
    "xtick.labelsize": LETTERS, "ytick.labelsize": LETTERS, "legend.fontsize": LETTERS,
    "legend.title_fontsize": LETTERS,
}  # fmt: skip


def refit(figure: Figure) -> None:
    """Lay out a figure that was drawn at `SIZE`: lines are broken, legends go below the axes."""
    from matplotlib.text import Text

    for ax in figure.axes:
        _break_lines(ax)
        _move_title(ax, figure)
        _move_legend(ax, figure)
        _thin_out(ax)
    for text in figure.findobj(Text):
        text.set_fontsize(max(LETTERS, float(text.get_fontsize())))


def _break_lines(ax: Axes) -> None:
    """Break what is written along the axes; names that take several lines make a figure higher."""
    from matplotlib.ticker import FixedLocator

    for axis in (ax.xaxis, ax.yaxis):
        axis.set_tick_params(which="both", labelsize=LETTERS)
    ax.yaxis.label.set_text(_broken(ax.yaxis.label, _DOWN))
    names = [label.get_text() for label in ax.get_yticklabels()]
    if not isinstance(ax.yaxis.get_major_locator(), FixedLocator) or not any(names):
        ax.xaxis.label.set_text(_broken(ax.xaxis.label, _ACROSS - 6))
        return
    lines = [textwrap.fill(name, _NAMES, break_on_hyphens=False) for name in names]
    longest = max(len(part) for line in lines for part in line.split("\n"))
    ax.xaxis.label.set_text(_broken(ax.xaxis.label, _ACROSS - longest))
    ax.set_yticks(ax.get_yticks(), lines)
    n_lines = len(lines) * max(1 + line.count("\n") for line in lines)
    figure = ax.get_figure(root=True)
    if figure is not None:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, max(height, 2.1 + _LINE * n_lines))


def _broken(text: Text, width: int) -> str:
    lines = text.get_text().splitlines()
    return "\n".join(textwrap.fill(line, width) for line in lines)


def _move_title(ax: Axes, figure: Figure) -> None:
    """Set the title over the whole figure, so that it begins where the names of the axis begin."""
    title = ax.set_title(ax.get_title(loc="left"), loc="left")
    if title.get_text():
        moved = figure.suptitle(_broken(title, _ACROSS), x=0.01, ha="left", fontsize=LETTERS)
        moved.set_parse_math(title.get_parse_math())
        title.set_text("")


def _move_legend(ax: Axes, figure: Figure) -> None:
    """Set the legend below the axes, in two columns where its words are short."""
    legend = ax.get_legend()
    if legend is None:
        return
    words = [textwrap.fill(text.get_text(), _IN_LEGEND) for text in legend.get_texts()]
    head = legend.get_title().get_text()
    below = figure.legend(
        [each for each in legend.legend_handles if each is not None], ["-"] * len(words),
        loc="outside lower left", frameon=False,
        ncols=2 if max(map(len, words), default=0) <= _IN_LEGEND // 2 - 3 else 1,
        title=head or None, alignment="left",
    )  # fmt: skip
    for text, word in zip(below.get_texts(), words, strict=True):
        text.set_text(word)
        text.set_parse_math(False)
    legend.remove()


def _thin_out(ax: Axes) -> None:
    """Leave out names and numbers on the horizontal axis that would lie on each other."""
    from matplotlib.ticker import AutoLocator, FixedLocator

    if isinstance(ax.xaxis.get_major_locator(), AutoLocator):
        ax.locator_params(axis="x", nbins=4)  # of numbers with up to six characters
    labels = [(label.get_text(), label.get_rotation()) for label in ax.get_xticklabels()]
    if not isinstance(ax.xaxis.get_major_locator(), FixedLocator) or not any(
        name for name, _ in labels
    ):
        return
    upright = [len(name) if not turned else 2 for name, turned in labels]
    room = 34  # characters beside each other
    every = int(np.ceil((sum(upright) + len(labels)) / room))
    if every > 1:
        ax.set_xticks(ax.get_xticks()[::every], [name for name, _ in labels[::every]])
