"""The figure of a judgement."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import GREEN, GREY, ORANGE, as_written, axes_or_current
from study.judgement import Judgement

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_judgement(judgement: Judgement, *, ax: Axes | None = None) -> Axes:
    """Draw effects in units of the smallest effect of interest: seeds, mean and 95 % interval.

    The judgement is the first row, its parts are the rows below. Lines stand at 0 and at 1, the
    smallest effect of interest; the axis is linear between -2 and 2 and logarithmic beyond. Green
    holds, red fails, grey is undecided.
    """
    ax = axes_or_current(ax)
    ax.set_xscale("symlog", linthresh=2, linscale=1)
    shown = [judgement, *judgement.parts]
    colours = {"holds": GREEN, "fails": ORANGE, "undecided": GREY}
    for row, each in enumerate(shown):
        unit, colour = each.smallest_effect, colours[each.answer]
        seeds = np.array(each.differences) / unit
        ax.scatter(seeds, np.full(len(seeds), row + 0.22), s=9, color=colour, alpha=0.6, lw=0)
        ax.plot(each.effect / unit, row, "o", ms=5, color=colour)
        if np.isfinite(each.ci_high):
            ax.plot([each.ci_low / unit, each.ci_high / unit], [row, row], color=colour, lw=1.8)
    for place in (0, 1):
        ax.axvline(place, color=GREY, lw=0.6, ls="--" if place else "-", zorder=0)
    low, high = ax.get_xlim()
    ax.set_xticks(sorted({0, 1, *(tick for tick in ax.get_xticks() if low <= tick <= high)}))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    few = len(shown) <= 4
    names = [fill(f"{each.claim} ({each.answer})", 42 if few else 58) for each in shown]
    size = "small" if few else "x-small"
    ax.set_yticks(range(len(shown)), names, fontsize=size)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_xlabel("effect / smallest effect of interest")
    ax.set_title(f"Verdict over {judgement.n_seeds} seeds: {judgement.answer}", loc="left")
    return as_written(ax)
