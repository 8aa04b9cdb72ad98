"""Figures of results: each draws on the axes it is given, and computes no more than a sort."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.baselines import BaselineComparison
    from dimlab.mask import MaskTrace
    from dimlab.probes.ablate import Ablation
    from dimlab.probes.evaluate import Evaluation
    from dimlab.training.checkpoint import Checkpoint

__all__ = [
    "plot_ablation",
    "plot_baseline_comparison",
    "plot_checkpoint",
    "plot_evaluation",
    "plot_mask_trace",
]

# Okabe and Ito's palette: told apart by colour-blind readers
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_LEVEL = 0.05


def plot_ablation(result: Ablation, *, ax: Axes | None = None) -> Axes:
    """Show the importance of every dimension, most needed first; below zero it hurts.

    Parameters
    ----------
    result : Ablation
        From `ablate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Points are importances, vertical lines their 95 % intervals; coloured where q <= 0.05.
    """
    ax = _axes(ax)
    order = np.argsort(-result.importance, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    importance, q_value = result.importance[order], result.q_value[order]
    colours = np.where(q_value > _LEVEL, GREY, np.where(importance > 0, BLUE, ORANGE))
    ax.vlines(
        ranks,
        result.ci_low[order],
        result.ci_high[order],
        colors=colours.tolist(),
        alpha=0.45,
        lw=1,
    )
    ax.scatter(ranks, importance, c=colours, s=9, zorder=3)
    ax.axhline(0, color="black", lw=0.8)
    for colour, text in (
        (BLUE, "needed (q ≤ 0.05)"),
        (ORANGE, "harmful (q ≤ 0.05)"),
        (GREY, "undecided"),
    ):
        ax.scatter([], [], c=colour, s=12, label=text)
    ax.legend(frameon=False, fontsize="small")
    unit = "dimension" if all(len(group) == 1 for group in result.groups) else "group"
    ax.set_xlabel(f"{unit}s, ranked by importance")
    ax.set_ylabel(f"importance ({result.score.replace('_', ' ')} lost)")
    ax.set_title(f"Leave one {unit} out, {result.reader} reader", loc="left")
    ax.set_xlim(0, len(ranks) + 1)
    return ax


def plot_evaluation(result: Evaluation, *, ax: Axes | None = None) -> Axes:
    """Accuracy of each reader on the features: unmasked, masked, and with control masks.

    Parameters
    ----------
    result : Evaluation
        From `evaluate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One row a reader and mask; horizontal lines are 95 % intervals.
    """
    ax = _axes(ax)
    frame = result.to_frame()
    rows = np.arange(len(frame))[::-1]
    for index, row in zip(rows, frame.itertuples(), strict=True):
        colour = {"none": BLUE, "learned": ORANGE}.get(row.mask, GREY)
        ax.hlines(index, row.ci_low, row.ci_high, color=colour, lw=1.5, alpha=0.6)
        ax.plot([row.accuracy], [index], "o", color=colour, ms=5)
    ax.set_yticks(rows, [f"{row.reader}, mask: {row.mask}" for row in frame.itertuples()])
    ax.set_xlabel("accuracy (share of test samples)")
    ax.set_title("Readers of the features, with 95 % intervals", loc="left")
    ax.grid(axis="x", lw=0.4)
    return ax


def plot_mask_trace(trace: MaskTrace, *, ax: Axes | None = None) -> Axes:
    """Weight of every dimension over training: one line a dimension, and the mean.

    Parameters
    ----------
    trace : MaskTrace
        A checkpoint's history.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Coloured lines: the three dimensions that end highest and the three that end lowest.
    """
    ax = _axes(ax)
    order = np.argsort(trace.weights[-1], kind="stable")
    ax.plot(trace.steps, trace.weights, color=GREY, lw=0.5, alpha=0.5, rasterized=True)
    ends = [(order[:3], ORANGE, "three lowest"), (order[::-1][:3], BLUE, "three highest")]
    for dimensions, colour, text in ends if len(order) >= 6 else []:
        for number, dimension in enumerate(dimensions):
            label = f"{text} (dim. {', '.join(str(d) for d in dimensions)})" if not number else None
            ax.plot(trace.steps, trace.weights[:, dimension], color=colour, lw=1.3, label=label)
    ax.plot(trace.steps, trace.weights.mean(axis=1), color="black", lw=1.3, ls="--", label="mean")
    ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("training step")
    ax.set_ylabel("mask weight")
    ax.set_title("The mask while it learns", loc="left")
    return ax


def plot_checkpoint(result: Checkpoint, *, ax: Axes | None = None) -> Axes:
    """Loss terms over training, each divided by its first recorded value.

    Parameters
    ----------
    result : Checkpoint
        A run.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One line a loss term.
    """
    ax = _axes(ax)
    metrics = result.to_frame()
    terms = {"contrastive": ORANGE, "invariance": BLUE, "redundancy": GREEN}
    for name, colour in terms.items():
        if name in metrics:
            relative = metrics[name] / metrics[name].iloc[0]
            ax.plot(metrics["step"], relative, color=colour, label=name)
    ax.axhline(1, color=GREY, lw=0.6)
    ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("training step")
    ax.set_ylabel("loss term / its first value")
    ax.set_title("Loss terms", loc="left")
    return ax


def plot_baseline_comparison(result: BaselineComparison, *, ax: Axes | None = None) -> Axes:
    """Accuracy without training and with it; every point is one seed, grey masks are controls.

    Parameters
    ----------
    result : BaselineComparison
        From `evaluate_baselines`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One row a source, reader and mask; horizontal lines are 95 % intervals.
    """
    ax = _axes(ax)
    frame = result.to_frame()
    names = frame["reader"] + ", " + frame["source"]
    names += np.where(frame["mask"] == "none", "", ", mask: " + frame["mask"])
    order = frame.assign(name=names).sort_values("reader", kind="stable")
    labels = list(dict.fromkeys(order["name"]))
    for row in order.itertuples():
        height = len(labels) - 1 - labels.index(row.name)
        control = row.mask not in ("none", "learned")
        colour = GREY if control else {"trained": ORANGE}.get(row.source, BLUE)
        ax.hlines(height, row.ci_low, row.ci_high, color=colour, lw=1.5, alpha=0.5)
        ax.plot([row.accuracy], [height], "o", color=colour, ms=4)
    ax.set_yticks(range(len(labels)), labels[::-1], fontsize="small")
    ax.set_xlabel("accuracy (share of test samples)")
    ax.set_title("With and without training, with 95 % intervals", loc="left")
    ax.grid(axis="x", lw=0.4)
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()
