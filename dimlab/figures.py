"""Figures of results: each draws on the axes it is given, and computes no more than a sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.baselines import BaselineComparison
    from dimlab.mask import MaskTrace
    from dimlab.probes.ablate import Ablation
    from dimlab.probes.ablate_cumulatively import CumulativeAblation
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.evaluate import Evaluation
    from dimlab.probes.random_masks import MaskedScores
    from dimlab.training.checkpoint import Checkpoint

__all__ = [
    "plot_ablation",
    "plot_ablation_per_class",
    "plot_baseline_comparison",
    "plot_checkpoint",
    "plot_cumulative_ablation",
    "plot_evaluation",
    "plot_harmful_dimensions",
    "plot_mask_trace",
    "plot_masked_scores",
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
    ax.set_title(_titled(f"Leave one {unit} out, {result.reader} reader", result), loc="left")
    ax.set_xlim(0, len(ranks) + 1)
    return ax


def plot_ablation_per_class(result: Ablation, *, ax: Axes | None = None) -> Axes:
    """Show the importance of the dimensions that matter most to some class, by class.

    Parameters
    ----------
    result : Ablation
        From `ablate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        A heat map: one row a class of test, one column for each of the (at most 40) groups of the
        largest effect within any class, by index; red: harmful, blue: needed.
    """
    ax = _axes(ax)
    known = np.flatnonzero(~np.isnan(result.per_class).all(axis=0))
    effect = result.per_class[:, known]
    chosen = np.sort(np.argsort(-np.abs(effect).max(axis=1), kind="stable")[:40])
    limit = max(float(np.abs(effect[chosen]).max()), 1e-6)
    mesh = ax.pcolormesh(
        effect[chosen].T, cmap="RdBu", vmin=-limit, vmax=limit, rasterized=True, linewidth=0
    )
    ax.figure.colorbar(mesh, ax=ax, label=f"importance ({result.score.replace('_', ' ')} lost)")
    single = all(len(group) == 1 for group in result.groups)
    names = [str(result.groups[g][0]) if single else f"g{g}" for g in chosen]
    every = max(1, len(chosen) // 20)
    ax.set_xticks(np.arange(len(chosen))[::every] + 0.5, names[::every], rotation=90)
    ax.set_yticks(np.arange(len(known)) + 0.5, [str(c) for c in result.classes[known]])
    ax.set_xlabel("dimension" if single else "group")
    ax.set_ylabel("class")
    ax.set_title(_titled(f"Effect within each class, {result.reader} reader", result), loc="left")
    return ax


def plot_cumulative_ablation(result: CumulativeAblation, *, ax: Axes | None = None) -> Axes:
    """Accuracy while dimensions leave one after the other; the band is a 95 % interval.

    Parameters
    ----------
    result : CumulativeAblation
        From `ablate_cumulatively`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One line; dashed: accuracy with all dimensions.
    """
    ax = _axes(ax)
    ax.fill_between(result.n_removed, result.ci_low, result.ci_high, color=BLUE, alpha=0.2, lw=0)
    ax.plot(result.n_removed, result.scores, color=BLUE, lw=1.5, label=result.order_name)
    ax.axhline(result.full_score, color="black", lw=0.8, ls="--", label="all dimensions")
    ax.legend(frameon=False, fontsize="small")
    single = all(len(group) == 1 for group in result.groups)
    ax.set_xlabel(f"{'dimensions' if single else 'groups'} removed")
    ax.set_ylabel("accuracy (share of test samples)")
    ax.set_title(_titled(f"Cumulative ablation, {result.reader} reader", result), loc="left")
    return ax


def plot_harmful_dimensions(result: HarmfulDimensions, *, ax: Axes | None = None) -> Axes:
    """Show the importance of every group against its confirmed q-value; below zero it hurts.

    Parameters
    ----------
    result : HarmfulDimensions
        From `confirm_harmful`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One point a group; coloured and named where q <= 0.05.
    """
    ax = _axes(ax)
    confirmed = result.q_value <= _LEVEL
    q_value = np.maximum(result.q_value, 1e-12)
    ax.scatter(result.importance[~confirmed], q_value[~confirmed], c=GREY, s=12, label="undecided")
    ax.scatter(
        result.importance[confirmed], q_value[confirmed], c=ORANGE, s=18, label="harmful (q ≤ 0.05)"
    )
    for group in result.confirmed[:10]:
        name = " ".join(map(str, result.groups[group][:4].tolist()))
        ax.annotate(
            name + (" ..." if len(result.groups[group]) > 4 else ""),
            (result.importance[group], q_value[group]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="small",
        )
    ax.axvline(0, color="black", lw=0.8)
    ax.axhline(_LEVEL, color="black", lw=0.8, ls="--")
    ax.set_yscale("log")
    ax.set_ylim(min(0.01, float(q_value.min()) / 3), 1.6)
    ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("importance (accuracy lost)")
    ax.set_ylabel("q-value on held-out halves")
    ax.set_title(_titled(f"Confirmed harm, {result.reader} reader", result), loc="left")
    return ax


def plot_masked_scores(result: MaskedScores, *, ax: Axes | None = None) -> Axes:
    """Accuracy under random masks of each size, against all dimensions and against chance alone.

    Parameters
    ----------
    result : MaskedScores
        From `random_masks`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Grey points: masks, judged on all samples. Orange: the best mask of one half, on the other
        half, with its 95 % interval. Green bar: what the best of equal masks reaches by chance.
    """
    ax = _axes(ax)
    rng = np.random.default_rng(0)
    for place, scores in enumerate(result.scores):
        jitter = rng.uniform(-0.25, 0.25, size=len(scores))
        label = "a mask (chosen and judged alike)" if place == 0 else None
        ax.scatter(
            place + jitter, scores - result.full_score, s=5, c=GREY, alpha=0.4, lw=0, label=label,
            rasterized=True,
        )  # fmt: skip
    places = np.arange(len(result.drop))
    ax.hlines(
        result.null_gain, places - 0.3, places + 0.3, color=GREEN, lw=2,
        label="best of equal masks, 95 %",
    )  # fmt: skip
    errors = np.stack([result.gain - result.ci_low, result.ci_high - result.gain])
    ax.errorbar(
        places, result.gain, errors, fmt="o", ms=5, color=ORANGE, capsize=3,
        label="best of half A, judged on half B",
    )  # fmt: skip
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(places, [f"{rate:g}" for rate in result.drop])
    ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("share of dimensions removed")
    ax.set_ylabel("accuracy gained on all dimensions")
    ax.set_title(_titled(f"Random masks, {result.reader} reader", result), loc="left")
    return ax


def _titled(title: str, result: Any) -> str:
    """Name the basis and the sample wherever they are not the axes and all of test."""
    basis = "" if result.basis == "axes" else f", {result.basis} basis"
    return title + basis + (f"\n{result.sample}" if result.sample else "")


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
