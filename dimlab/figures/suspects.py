"""The figure of suspects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import (
    GREEN,
    GREY,
    axes_or_current,
    finished,
    legend_of,
    nothing_found,
    several,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.probes.find_suspects import Suspects

_MOST_TICKS = 10


def plot_suspects(result: Suspects, *, ax: Axes | None = None) -> Axes:
    """Show the accuracy on samples that chose nothing, as suspect directions are removed.

    Parameters
    ----------
    result : Suspects
        From `find_suspects`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Dots above the dashed line: the reader is better without these directions. Green: the
        removal of all of them is confirmed to help; grey: it is not. Bars: 95 % intervals of the
        change.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import find_suspects
    >>> labels = np.arange(400) % 2
    >>> features = np.random.default_rng(0).normal(size=(400, 3)) + labels[:, None]
    >>> axes = plot_suspects(find_suspects((features, labels), (features, labels)),
    ...                      ax=Figure().subplots())
    >>> axes.get_title(loc="left"), len(axes.texts)
    ('Suspect directions removed, ridge reader', 1)
    """
    ax = axes_or_current(ax)
    title = titled(f"Suspect directions removed, {result.reader} reader", result)
    if not len(result):
        what = (
            "Too few samples are misread to find any."
            if result.n_test_needed
            else f"No removal of {several(result.n_tried, 'direction')} tried helps the reader."
        )
        return nothing_found(ax, what, title)
    step = 1 + np.arange(len(result))
    line = ax.axhline(result.full_score, color=GREY, linestyle="--", linewidth=1)
    bars = [result.gain - result.gain_low, result.gain_high - result.gain]
    colour, name = (GREEN, "confirmed") if result.confirmed else (GREY, "not confirmed")
    dots = ax.errorbar(
        step, result.score, yerr=bars, fmt="o", color=colour, capsize=3, linewidth=1.5
    )
    ax.set_xticks(step[:: -(-len(step) // _MOST_TICKS)])
    ax.set_xlim(0.5, len(result) + 0.5)
    legend_of(ax, [(line, "with all directions"), (dots, name)], loc="best")
    return finished(ax, "directions removed", "accuracy on other samples", title)
