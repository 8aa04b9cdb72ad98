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
    UNDECIDED,
    axes_or_current,
    count_in_whole_numbers,
    finished,
    heat_map,
    name_points,
    named_groups,
    nothing_found,
    several,
    titled,
    unit_of,
)
from dimlab.targets import score_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.probes.ablate import Ablation
    from dimlab.probes.ablate_cumulatively import CumulativeAblation
    from dimlab.probes.ablate_retrieval import RetrievalAblation
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.random_masks import MaskedScores


_MANY = 150  # dimensions
_ORDERS = (BLUE, ORANGE, GREEN, GREY)  # of truncation
_ZERO = "#B5B5B5"


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
        Dots above the line: the reader loses without this dimension; below the line: it is better
        without it. Coloured and numbered where q <= 0.05; grey is undecided. Bars: 95 % intervals;
        hollow dots: log-losses that rest on few differing rows, or very skewed ones.

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
    unit = unit_of(result)
    rough = result.log_loss_unreliable if result.score == "log_loss" else None
    axes = _with_importances(axes_or_current(ax), result, rough)
    lost = f"importance ({score_in_words(result.score)} lost)"
    title = titled(f"Leave one {unit} out, {result.reader} reader", result)
    return finished(axes, f"{unit}s, ranked by importance", lost, title)


def plot_retrieval_ablation(result: RetrievalAblation, *, ax: Axes | None = None) -> Axes:
    """Show what queries no longer find without every dimension, most needed first.

    Parameters
    ----------
    result : RetrievalAblation
        From `ablate_retrieval`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Dots above the line: less is found without this dimension; below the line: more. Coloured
        and numbered where q <= 0.05; grey is undecided. Bars: 95 % intervals over queries; hollow
        dots: fewer than 20 queries change, or they are very skewed.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import ablate_retrieval
    >>> corpus = np.array([[1.0, 0.1], [-1.0, 0.1], [0.9, -0.2], [-0.9, -0.2]])
    >>> found = ablate_retrieval(corpus, corpus[:2], [[0, 2], [1, 3]], score="recall@2")
    >>> axes = plot_retrieval_ablation(found, ax=Figure().subplots())
    >>> axes.collections[1].get_offsets()[:, 1].tolist(), axes.get_ylabel()
    ([1.0, 0.0], 'importance (recall@2 lost)')
    """
    unit = unit_of(result)
    axes = _with_importances(axes_or_current(ax), result, result.unreliable)
    title = titled(f"Leave one {unit} out, retrieval", result)
    lost = f"importance ({result.score} lost)"
    return finished(axes, f"{unit}s, ranked by importance", lost, title)


def plot_retrieval_ablation_truncation(
    result: RetrievalAblation, *, ax: Axes | None = None
) -> Axes:
    """Show what queries find when only some dimensions are kept, by the way they are chosen.

    Parameters
    ----------
    result : RetrievalAblation
        From `ablate_retrieval`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        The dashed line is the score of all dimensions. Where the bar of a point, a 95 % interval of
        the loss, meets the line, the dimensions that are left may do as well. The order by
        importance was measured on other queries than those that are scored.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import ablate_retrieval
    >>> corpus = np.array([[1.0, 0.1], [-1.0, 0.1], [0.9, -0.2], [-0.9, -0.2]])
    >>> found = ablate_retrieval(corpus, corpus[:2], [[0, 2], [1, 3]], score="recall@2")
    >>> axes = plot_retrieval_ablation_truncation(found, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['all dimensions', 'most important', 'first', 'principal axes', 'random']
    """
    ax = axes_or_current(ax)
    title = titled("Keep some dimensions, retrieval", result)
    if len(result.orders) == 0:
        return nothing_found(ax, "No dimensions were left out together.", title)
    words = {"importance": "most important", "pca": "principal axes"}
    names = dict.fromkeys(result.orders.tolist())
    for place, (name, colour) in enumerate(zip(names, _ORDERS, strict=False)):
        own = result.orders == name
        x = result.n_kept[own] * 1.04 ** (place - 1.5)  # bars beside each other
        score, high, low = result.kept_score[own], result.loss_low[own], result.loss_high[own]
        loss = result.loss[own]
        ax.errorbar(
            x, score, np.maximum([low - loss, loss - high], 0), fmt="o-", ms=3, lw=1.2,
            elinewidth=0.8, color=colour, label=words.get(name, name),
        )  # fmt: skip
    ax.axhline(result.full_score, color="black", lw=0.8, ls="--", label="all dimensions")
    ax.set_xscale("log", base=2)
    points = np.unique(result.n_kept)
    named = [int(points[-1])]  # from all dimensions down, those that have room
    apart = max(1.9, (points[-1] / points[0]) ** (1 / 7))
    for each in points[::-1]:
        if apart * each <= named[-1]:
            named.append(int(each))
    ax.set_xticks(named, [str(each) for each in named])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize="small")
    return finished(ax, "dimensions kept", result.score, title)


def _with_importances(
    ax: Axes, result: Ablation | RetrievalAblation, rough: np.ndarray | None
) -> Axes:
    """Draw importances with their intervals, ranked; ``rough`` (G,) ones are hollow."""
    order = np.argsort(-result.importance, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    importance, decided = result.importance[order], result.q_value[order] <= LEVEL
    needed, harmful = decided & (importance > 0), decided & (importance < 0)
    colours = np.select([needed, harmful], [BLUE, ORANGE], GREY)
    low, high = result.ci_low[order], result.ci_high[order]
    if result.fcr_low is not None and result.fcr_high is not None:
        wider = result.fcr_low[order], result.fcr_high[order]
        low, high = (np.where(np.isnan(w), b, w) for w, b in zip(wider, (low, high), strict=True))
    ax.axhline(0, color=_ZERO, lw=1, zorder=0)  # dots on it are seen
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
    size = 14 if len(ranks) <= _MANY else 4
    ax.scatter(ranks, importance, c=colours, s=size, lw=0, zorder=3, rasterized=len(ranks) > 500)
    if rough is not None:
        rough = rough[order]
        ax.scatter(
            ranks[rough], importance[rough], c="white", s=size / 4, lw=0, zorder=4,
            rasterized=len(ranks) > 500,
        )  # fmt: skip
        if rough.any():
            ax.scatter([], [], c="white", ec=GREY, s=12, label="few or very skewed differences")
    for colour, text, chosen in (
        (BLUE, "needed", needed), (ORANGE, "harmful", harmful), (GREY, "undecided", ~decided),
    ):  # fmt: skip
        level = "" if colour == GREY else ", q ≤ 0.05"
        ax.scatter([], [], c=colour, s=12, label=f"{text} ({chosen.sum()}{level})")
    ax.set_xlim(0, len(ranks) + 1)
    count_in_whole_numbers(ax.xaxis)
    names = [named_groups(result)[g] for g in order]
    for found in (np.flatnonzero(needed), np.flatnonzero(harmful)[::-1]):
        name_points(ax, ranks[found], importance[found], [names[place] for place in found])
    ax.legend(
        fontsize="small", framealpha=0.9, edgecolor="none",
        loc="upper right" if high.max() >= -low.min() else "lower left",  # where no dots are
    )  # fmt: skip
    return ax


def plot_ablation_per_class(result: Ablation, *, ax: Axes | None = None) -> Axes:
    """Show which classes lose, or gain, without the dimensions that matter to some class.

    Parameters
    ----------
    result : Ablation
        From `ablate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Blue: the class is read worse without this dimension; red: better. Only what is decided has
        a colour: effects of q <= 0.05 within a class; where classes were not tested, those of the
        dimensions of q <= 0.05. The (at most 40) dimensions of the largest such effects are shown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, ablate
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> axes = plot_ablation_per_class(ablate(split, split, reader="ridge"), ax=Figure().subplots())
    >>> axes.collections[0].get_array().round(2).tolist()  # both classes need dimension 0
    [[0.45], [0.45]]
    """
    ax = axes_or_current(ax)
    title = titled(f"Effect within each class, {result.reader} reader", result)
    if not len(result.classes):
        said = f"Scored by {score_in_words(result.score)}: there are no classes to look at apart."
        return nothing_found(ax, said, title)
    known = np.flatnonzero(~np.isnan(result.per_class).all(axis=0))
    decided = np.broadcast_to(result.q_value[:, None] <= LEVEL, result.per_class.shape)
    if result.per_class_q is not None and not np.isnan(result.per_class_q).all():
        decided = result.per_class_q <= LEVEL
    effect = np.where(decided, result.per_class, np.nan)[:, known]
    largest = np.nan_to_num(np.abs(effect)).max(axis=1)
    chosen = np.sort(np.argsort(-largest, kind="stable")[: min(40, int((largest > 0).sum()))])
    unit = unit_of(result)
    if not len(chosen):
        return nothing_found(ax, f"No class is shown to lose or gain without any {unit}.", title)
    limit = float(largest.max())
    names = named_groups(result)
    classes = result.classes if result.class_names is None else result.class_names
    heat_map(
        ax, np.ma.masked_invalid(effect[chosen].T), [names[g] for g in chosen],
        [str(each) for each in classes[known]], cmap="RdBu", vmin=-limit, vmax=limit,
        label=f"importance ({score_in_words(result.score)} lost); grey: undecided",
    )  # fmt: skip
    ax.set_facecolor(UNDECIDED)
    return finished(ax, unit, "class", title)


def plot_cumulative_ablation(result: CumulativeAblation, *, ax: Axes | None = None) -> Axes:
    """Score while dimensions leave one after the other; the band is a 95 % interval.

    Parameters
    ----------
    result : CumulativeAblation
        From `ablate_cumulatively`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Where the line is below the dashed one, the reader loses without so many dimensions; the
        band is its 95 % interval.

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
    count_in_whole_numbers(ax.xaxis)
    return finished(ax, f"{unit_of(result)}s removed", score_in_words(result.score), title)


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
        Dots left of the line: better without this dimension. Below the dashed line (q <= 0.05), on
        samples that did not choose it, the harm is confirmed; those are coloured and named.

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
    if result.n_test_needed and not len(result.confirmed):
        text = f"undecided: at least {result.n_test_needed} samples are needed"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center")
    ax.axvline(0, color=_ZERO, lw=1, zorder=0)
    ax.axhline(LEVEL, color="black", lw=0.8, ls="--")
    ax.set_yscale("log")
    ax.set_ylim(min(0.01, float(q_value.min()) / 3), 1.6)
    ax.set_xlim(*ax.get_xlim())
    shown = [result.groups[group] for group in result.confirmed]
    names = [" ".join(map(str, each[:4])) + (" ..." if len(each) > 4 else "") for each in shown]
    name_points(ax, result.importance[result.confirmed], q_value[result.confirmed], names, most=10)
    ax.legend(frameon=False, fontsize="small")
    found = several(len(result.confirmed), unit_of(result)) if len(result.confirmed) else "none"
    return finished(
        ax,
        f"importance ({score_in_words(result.score)} lost)",
        "aggregated q-value on held-out halves",
        titled(f"Confirmed as harmful: {found}, {result.reader} reader", result),
    )


def plot_masked_scores(result: MaskedScores, *, ax: Axes | None = None) -> Axes:
    """Score under random masks of each size, against all dimensions and against chance alone.

    Parameters
    ----------
    result : MaskedScores
        From `random_masks`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Orange: the best mask of one half, judged on the other half, with its 95 % interval. It is a
        real gain only above both the line and the green bar, which is what the best of equal masks
        reaches by chance. Grey: all masks, judged on all samples.

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
    gained = f"{score_in_words(result.score)} gained on all dimensions"
    return finished(ax, "share of dimensions removed", gained, title)
