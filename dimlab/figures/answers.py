"""The figure of one answer a dimension."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import (
    BLUE,
    GREY,
    ORANGE,
    axes_or_current,
    finished,
    nothing_found,
    titled,
)
from dimlab.targets import score_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab._prune import Pruning
    from dimlab.answers import DimensionTable

_COLOURS = {
    "keep": BLUE, "redundant": "#9BB8CC", "nuisance": "#CC79A7", "harmful": ORANGE,
    "dead": "#3C3C3C", "undecided": "#F0F0F0",
}  # fmt: skip
_PER_ROW, _SHAPE = 64, 1.9  # columns of cells at most, and beside rows
_NUMBERED = 128  # dimensions, at most, whose cells hold their numbers


def plot_dimension_table(result: DimensionTable, *, ax: Axes | None = None) -> Axes:
    """Show the answer on every dimension as a coloured cell, in the order of the dimensions.

    Parameters
    ----------
    result : DimensionTable
        From `dimension_table`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One cell a dimension, in the order of reading. Blue ones are to be kept; on white ones
        nothing is shown, which is no leave to drop them. The legend counts each answer.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import DimensionTable
    >>> table = DimensionTable(
    ...     kind=np.array(["keep", "dead"]), about=np.array(["", ""]),
    ...     decided_by=np.array(["importance", "variance"]), value=np.array([0.1, 0.0]),
    ...     read=("Ablation",),
    ... )
    >>> plot_dimension_table(table, ax=Figure().subplots()).get_title(loc="left")
    'Answers: 1 of 2 dimensions to keep, 0 undecided'
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    ax = axes_or_current(ax)
    n_dimensions = len(result)
    per_row = min(_PER_ROW, math.ceil(math.sqrt(_SHAPE * n_dimensions)), n_dimensions)
    n_rows = -(-n_dimensions // per_row)
    cells = np.ones((n_rows * per_row, 3))
    cells[:n_dimensions] = [to_rgb(_COLOURS[kind]) for kind in result.kind]
    ax.imshow(cells.reshape(n_rows, per_row, 3), aspect="auto", interpolation="nearest")
    for edge in np.arange(per_row + 1) - 0.5:
        ax.axvline(edge, color="white", lw=0.8)
    for edge in np.arange(n_rows + 1) - 0.5:
        ax.axhline(edge, color="white", lw=0.8)
    if n_dimensions <= _NUMBERED:
        for d in range(n_dimensions):
            dark = result.kind[d] in ("keep", "dead", "harmful")
            ax.text(
                d % per_row, d // per_row, str(d), ha="center", va="center", fontsize="xx-small",
                color="white" if dark else "black",
            )  # fmt: skip
    shown = range(0, n_rows, math.ceil(n_rows / 12)) if n_rows > 1 else ()
    ax.set_yticks(shown, [str(row * per_row) for row in shown])
    ax.set_xticks([])
    counts = {kind: int((result.kind == kind).sum()) for kind in _COLOURS}
    handles = [
        Patch(facecolor=_COLOURS[kind], edgecolor=GREY, label=f"{kind} ({count})")
        for kind, count in counts.items()
        if count
    ]
    ax.legend(
        handles=handles, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.03)
    )
    title = (
        f"Answers: {counts['keep']} of {n_dimensions} dimensions to keep, "
        f"{counts['undecided']} undecided"
    )
    if result.basis != "axes":
        title += f", {result.basis} basis"
    return finished(ax, None, "first dimension of the row" if n_rows > 4 else "", title)


def plot_pruning(result: Pruning, *, ax: Axes | None = None) -> Axes:
    """Show the accuracy, or other score, that a smaller representation loses, with its bound.

    Parameters
    ----------
    result : Pruning
        From `prune`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        The dot is the loss on test, the bar its 95 % interval. Left of the solid line the smaller
        representation is better; the dashed line is the largest loss that was asked for.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import prune
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.ones(40), np.cos(np.arange(40))])
    >>> split = features, labels
    >>> plot_pruning(prune(split, split, keep=[0, 2]), ax=Figure().subplots()).get_xlabel()
    'accuracy lost (share of test samples)'
    """
    ax = axes_or_current(ax)
    title = titled(f"{result.n_kept} of {result.n_dimensions} kept", result)
    if np.isnan(result.loss):
        return nothing_found(ax, "Labels are needed to measure what is lost.", title)
    bounds = [[max(result.loss - result.loss_low, 0)], [max(result.loss_high - result.loss, 0)]]
    ax.errorbar([result.loss], [0], xerr=bounds, fmt="o", ms=7, capsize=5, color=BLUE)
    ax.axvline(0, color="black", lw=0.8)
    if result.max_loss is not None:
        ax.axvline(result.max_loss, color=ORANGE, lw=1, ls="--", label="largest loss asked for")
        ax.legend(frameon=False, fontsize="small")
    ax.set_yticks([])
    ax.set_ylim(-1, 1)
    words = score_in_words(result.scored_by)
    unit = " (share of test samples)" if result.scored_by == "accuracy" else ""
    return finished(ax, f"{words} lost{unit}", None, title)
