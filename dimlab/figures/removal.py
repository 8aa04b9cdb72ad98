"""Figures of what removing dimensions does to a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import (
    BLUE,
    GREEN,
    GREY,
    LEVEL,
    ORANGE,
    as_written,
    axes_or_current,
    finished,
    heat_map,
    titled,
    unit_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.probes.ablate import Ablation
    from dimlab.probes.ablate_cumulatively import CumulativeAblation
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.random_masks import MaskedScores


_MANY = 150  # dimensions


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
        Points are importances with 95 % intervals, coloured where q <= 0.05. Hollow: log-losses
        that rest on few differing rows, or very skewed ones.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, ablate
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> axes = plot_ablation(ablate(split, split, reader="ridge"), ax=Figure().subplots())
    >>> axes.collections[1].get_offsets()[:, 1].round(2).tolist(), axes.get_ylabel()
    ([0.45, 0.0], 'importance (accuracy lost)')
    """
    ax = axes_or_current(ax)
    order = np.argsort(-result.importance, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    importance, q_value = result.importance[order], result.q_value[order]
    colours = np.where(q_value > LEVEL, GREY, np.where(importance > 0, BLUE, ORANGE))
    low, high = result.ci_low[order], result.ci_high[order]
    if result.fcr_low is not None and result.fcr_high is not None:
        wider = result.fcr_low[order], result.fcr_high[order]
        low, high = (np.where(np.isnan(w), b, w) for w, b in zip(wider, (low, high), strict=True))
    if len(ranks) <= _MANY:
        ax.vlines(ranks, low, high, colors=colours.tolist(), alpha=0.45, lw=1)
    else:  # lines closer than pixels would make a pattern of their own
        edges = np.repeat(ranks, 2) + np.tile([-0.5, 0.5], len(ranks))
        for colour in (GREY, BLUE, ORANGE):
            ax.fill_between(
                edges, np.repeat(low, 2), np.repeat(high, 2),
                where=np.repeat(colours == colour, 2), color=colour, alpha=0.35, lw=0,
                rasterized=True,
            )  # fmt: skip
    size = 9 if len(ranks) <= _MANY else 3
    ax.scatter(ranks, importance, c=colours, s=size, lw=0, zorder=3, rasterized=len(ranks) > 500)
    if result.score == "log_loss" and result.log_loss_unreliable is not None:
        rough = result.log_loss_unreliable[order]
        ax.scatter(
            ranks[rough], importance[rough], c="white", s=size / 4, lw=0, zorder=4,
            rasterized=len(ranks) > 500,
        )  # fmt: skip
        if rough.any():
            ax.scatter([], [], c="white", ec=GREY, s=12, label="few or very skewed differences")
    ax.axhline(0, color="black", lw=0.8)
    for colour, text in (
        (BLUE, "needed (q ≤ 0.05)"),
        (ORANGE, "harmful (q ≤ 0.05)"),
        (GREY, "undecided"),
    ):
        ax.scatter([], [], c=colour, s=12, label=text)
    ax.legend(fontsize="small", framealpha=0.9, edgecolor="none", loc="upper right")
    unit = unit_of(result)
    ax.set_xlabel(f"{unit}s, ranked by importance")
    ax.set_ylabel(f"importance ({result.score.replace('_', ' ')} lost)")
    ax.set_title(titled(f"Leave one {unit} out, {result.reader} reader", result), loc="left")
    ax.set_xlim(0, len(ranks) + 1)
    return as_written(ax)


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
        largest effect within any class. No class is tested by itself.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, ablate
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> axes = plot_ablation_per_class(ablate(split, split, reader="ridge"), ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()], axes.collections[0].get_array().shape
    (['0', '1'], (2, 2))
    """
    ax = axes_or_current(ax)
    known = np.flatnonzero(~np.isnan(result.per_class).all(axis=0))
    effect = result.per_class[:, known]
    chosen = np.sort(np.argsort(-np.abs(effect).max(axis=1), kind="stable")[:40])
    limit = float(np.abs(effect[chosen]).max()) or 0.01
    single = all(len(group) == 1 for group in result.groups)
    names = [str(result.groups[g][0]) if single else f"g{g}" for g in chosen]
    heat_map(
        ax, effect[chosen].T, names, [str(c) for c in result.classes[known]], cmap="RdBu",
        vmin=-limit, vmax=limit, label=f"importance ({result.score.replace('_', ' ')} lost)",
    )  # fmt: skip
    title = titled(f"Effect within each class, {result.reader} reader", result)
    return finished(ax, unit_of(result), "class", title)


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

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, ablate_cumulatively
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> curve = ablate_cumulatively(split, split, order=[1, 0])
    >>> axes = plot_cumulative_ablation(curve, ax=Figure().subplots())
    >>> axes.lines[0].get_ydata().tolist(), axes.get_xlabel()
    ([1.0, 1.0, 0.5], 'dimensions removed')
    """
    ax = axes_or_current(ax)
    ax.fill_between(result.n_removed, result.ci_low, result.ci_high, color=BLUE, alpha=0.2, lw=0)
    ax.plot(result.n_removed, result.scores, color=BLUE, lw=1.5, label=result.order_name)
    ax.axhline(result.full_score, color="black", lw=0.8, ls="--", label="all dimensions")
    ax.legend(frameon=False, fontsize="small")
    title = titled(f"Cumulative ablation, {result.reader} reader", result)
    return finished(ax, f"{unit_of(result)}s removed", "accuracy (share of test samples)", title)


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

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import HarmfulDimensions
    >>> found = HarmfulDimensions(
    ...     reader="knn", refit=True, full_score=0.8, importance=np.array([0.1, -0.05]),
    ...     selected_share=np.array([0.0, 1.0]), q_aggregated=np.array([1.0, 0.01]),
    ...     groups=(np.array([4]), np.array([7])), n_splits=20, n_train=100, n_test=100,
    ...     n_dimensions=8,
    ... )
    >>> axes = plot_harmful_dimensions(found, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.texts], axes.get_yscale()  # the confirmed one is named
    (['7'], 'log')
    """
    ax = axes_or_current(ax)
    confirmed = result.q_aggregated <= LEVEL
    q_value = np.maximum(result.q_aggregated, 1e-12)
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
    if result.n_test_needed and not len(result.confirmed):
        text = f"undecided: at least {result.n_test_needed} samples are needed"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center")
    ax.axvline(0, color="black", lw=0.8)
    ax.axhline(LEVEL, color="black", lw=0.8, ls="--")
    ax.set_yscale("log")
    ax.set_ylim(min(0.01, float(q_value.min()) / 3), 1.6)
    ax.legend(frameon=False, fontsize="small")
    return finished(
        ax,
        "importance (accuracy lost)",
        "aggregated q-value on held-out halves",
        titled(f"Confirmed harm, {result.reader} reader", result),
    )


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

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, random_masks
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> scores = random_masks(split, split, drop=[0.5], n_masks=20)
    >>> axes = plot_masked_scores(scores, ax=Figure().subplots())
    >>> sorted(set(axes.collections[0].get_offsets()[:, 1].round(2).tolist()))  # gains
    [-0.45, 0.0]
    """
    ax = axes_or_current(ax)
    rng = np.random.default_rng(0)
    for place, scores in enumerate(result.scores):
        jitter = rng.uniform(-0.25, 0.25, size=len(scores))
        label = "a mask (chosen and judged alike)" if place == 0 else None
        ax.scatter(
            place + jitter, scores - result.full_score, s=5, c=GREY, alpha=0.4, lw=0, label=label,
            rasterized=True,
        )  # fmt: skip
    places = np.arange(len(result.drop))
    by_chance = result.scores.mean(axis=1) + result.null_gain - result.full_score
    ax.hlines(
        by_chance, places - 0.3, places + 0.3, color=GREEN, lw=2,
        label="best of equal masks by chance, 95 %",
    )  # fmt: skip
    errors = np.stack([result.gain - result.ci_low, result.ci_high - result.gain])
    ax.errorbar(
        places, result.gain, errors, fmt="o", ms=5, color=ORANGE, capsize=3,
        label="best of half A, judged on half B",
    )  # fmt: skip
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(places, [f"{rate:g}" for rate in result.drop])
    ax.legend(frameon=False, fontsize="small")
    title = titled(f"Random masks, {result.reader} reader", result)
    return finished(ax, "share of dimensions removed", "accuracy gained on all dimensions", title)
