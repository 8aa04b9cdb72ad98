"""Figures of a mask: how it moved, what it goes with, what it does to the risk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dimlab.figures.house import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    as_written,
    axes_or_current,
    colour_bar,
    count_in_whole_numbers,
    finished,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.mask import MaskTrace
    from dimlab.probes.bound_risk import RiskBound
    from dimlab.probes.follow import MaskEvolution


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
        Lines that part: the mask prefers some dimensions; lines that stay together: it prefers
        none. Coloured: the three dimensions that end highest and the three that end lowest.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import MaskTrace
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.5]]))
    >>> axes = plot_mask_trace(trace, ax=Figure().subplots())
    >>> len(axes.lines), axes.lines[-1].get_ydata().tolist()  # two dimensions and the mean
    (3, [0.5, 0.375])
    """
    ax = axes_or_current(ax)
    order = np.argsort(trace.weights[-1], kind="stable")
    ax.plot(trace.steps, trace.weights, color=GREY, lw=0.5, alpha=0.5, rasterized=True)
    ends = [(order[:3], ORANGE, "three lowest"), (order[::-1][:3], BLUE, "three highest")]
    for dimensions, colour, text in ends if len(order) >= 6 else []:
        for number, dimension in enumerate(dimensions):
            label = f"{text} (dim. {', '.join(str(d) for d in dimensions)})" if not number else None
            ax.plot(trace.steps, trace.weights[:, dimension], color=colour, lw=1.3, label=label)
    ax.plot(trace.steps, trace.weights.mean(axis=1), color="black", lw=1.3, ls="--", label="mean")
    ax.legend(frameon=False, fontsize="small")
    count_in_whole_numbers(ax.xaxis)
    return finished(ax, "training step", "mask weight", "The mask while it learns")


def plot_mask_evolution(result: MaskEvolution, *, ax: Axes | None = None) -> Axes:
    """Weight of every dimension over training, the largest final weights on top.

    Parameters
    ----------
    result : MaskEvolution
        From `follow`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One row a dimension, from left to right over training. Yellow: the mask lets it through;
        dark blue: it holds it back. Weights below 0, where there are any, are red.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import MaskTrace, follow
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> axes = plot_mask_evolution(follow(trace), ax=Figure().subplots())
    >>> axes.collections[0].get_array().tolist()  # the second dimension ends on top
    [[0.5, 0.75], [0.5, 0.25]]
    """
    ax = axes_or_current(ax)
    steps = np.asarray(result.steps, dtype=np.float64)
    inner = (steps[1:] + steps[:-1]) / 2
    ends = (steps[0], steps[-1]) if len(steps) > 1 else (steps[0] - 0.5, steps[0] + 0.5)
    shown = result.weights[:, np.argsort(result.final_rank)].T
    low, high = float(shown.min()), float(shown.max())
    signed = low < 0
    if signed:
        high = max(-low, high)
        low = -high
    elif low == high:  # a mask that prefers nothing is of one middle colour
        low, high = low - 0.5, high + 0.5
    mesh = ax.pcolormesh(
        [ends[0], *inner, ends[1]],
        np.arange(len(shown) + 1) + 0.5,
        shown,
        cmap="RdBu" if signed else "cividis",
        vmin=low,
        vmax=high,
        rasterized=True,
        linewidth=0,
    )
    ax.invert_yaxis()
    count_in_whole_numbers(ax.xaxis, ax.yaxis)
    if len(steps) == 1:
        ax.set_xticks(result.steps)
    colour_bar(mesh, ax, "mask weight")
    ax.set_xlabel("training step")
    ax.set_ylabel("dimension, by rank of its final weight")
    moved = "" if result.moved or len(result) == 1 else ": it did not move"
    ax.set_title(f"The mask while it learns{moved}", loc="left")
    return as_written(ax)


def plot_mask_evolution_quantiles(result: MaskEvolution, *, ax: Axes | None = None) -> Axes:
    """Spread of the weights over training, and the dimensions that changed most.

    Parameters
    ----------
    result : MaskEvolution
        From `follow`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        The wider the grey bands grow, the more the mask tells dimensions apart. Dashed: the median;
        coloured: at most six dimensions that changed most, with their change.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import MaskTrace, follow
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.5]]))
    >>> axes = plot_mask_evolution_quantiles(follow(trace), ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['central 90 %', 'central 50 %', 'median', 'dim. 0 (-0.25)']
    """
    ax = axes_or_current(ax)
    steps, quantiles = result.steps, result.quantiles.T
    if len(steps) == 1:  # a band needs two ends
        ax.set_xticks(steps)
        steps, quantiles = steps + np.array([-0.5, 0.5]), np.repeat(quantiles, 2, axis=1)
    for low, high, alpha, share in ((1, 5, 0.25, 90), (2, 4, 0.45, 50)):
        ax.fill_between(
            steps, quantiles[low], quantiles[high], color=GREY, alpha=alpha, lw=0,
            label=f"central {share} %",
        )  # fmt: skip
    ax.plot(steps, quantiles[3], color="black", lw=1.5, ls="--", label="median")
    palette = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
    movers = [d for d in result.movers[: len(palette)] if result.change[d] != 0]
    for dimension, colour in zip(movers, palette, strict=False):
        ax.plot(
            result.steps, result.weights[:, dimension], color=colour, lw=1.0,
            label=f"dim. {dimension} ({result.change[dimension]:+.2g})",
        )  # fmt: skip
    ax.legend(
        frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )  # fmt: skip
    count_in_whole_numbers(ax.xaxis)
    ax.set_xlabel("training step")
    ax.set_ylabel("mask weight")
    moved = "" if result.moved or len(result) == 1 else ": the mask did not move"
    ax.set_title(f"Spread of the weights and largest changes{moved}", loc="left")
    return as_written(ax)


def plot_mask_evolution_links(result: MaskEvolution, *, ax: Axes | None = None) -> Axes:
    """Rank correlation of the mask, and of control masks, with other measurements.

    Parameters
    ----------
    result : MaskEvolution
        From `follow`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Orange: the learned mask. The claim holds where the dot and its whole line (the 95 %
        interval) lie on the side that the arrow points to. Grey: control masks, expected at 0.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from matplotlib.figure import Figure
    >>> from dimlab import MaskTrace, follow
    >>> from dimlab.probes.follow import MaskLink
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> link = MaskLink("importance", "learned", 0.8, 0.5, 0.95, 0.01, 32, expected_sign=1)
    >>> axes = plot_mask_evolution_links(
    ...     replace(follow(trace), links=(link,)), ax=Figure().subplots()
    ... )
    >>> axes.get_yticklabels()[0].get_text(), axes.texts[0].get_text().split()[-1]
    ('importance, mask: learned', 'agrees')
    """
    ax = axes_or_current(ax)
    ax.set_title("What the final mask goes with", loc="left")
    if not result.links:
        ax.text(
            0.5, 0.5, "No other measurement was given to compare the mask with.",
            ha="center", va="center", transform=ax.transAxes,
        )  # fmt: skip
        ax.set_axis_off()
        return as_written(ax)
    names = list(dict.fromkeys(link.link for link in result.links))
    rows = [place + 0.7 * names.index(link.link) for place, link in enumerate(result.links)]
    known = [link for link in result.links if not link.reason]
    ends = [abs(end) for link in known for end in (link.ci_low, link.ci_high)]
    ax.axvline(0, color="black", lw=0.8, ls="--", zorder=0)
    for row, link in zip(rows, result.links, strict=True):
        colour = ORANGE if link.mask == "learned" else GREY
        if link.mask == "learned":
            claim = "claim: > 0 →" if link.expected_sign > 0 else "claim: < 0 ←"
            ax.text(
                1.01, row, f"{claim}\n{link.verdict}", color=colour, va="center", fontsize="small",
                transform=ax.get_yaxis_transform(),
            )  # fmt: skip
        if link.reason:
            ax.text(
                0, row, "undefined", color=colour, ha="center", va="center", fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        ax.hlines(row, link.ci_low, link.ci_high, color=colour, lw=1.5, alpha=0.6)
        ax.plot([link.correlation], [row], "o", color=colour, ms=5)
    ax.set_yticks(rows, [f"{link.link}, mask: {link.mask}" for link in result.links])
    ax.tick_params(axis="y", labelsize="small")
    furthest = max([0.1, *ends]) if ends else 1.0
    ax.set_xlim(-min(1.05, 1.15 * furthest), min(1.05, 1.15 * furthest))
    ax.set_ylim(rows[-1] + 0.7, -0.7)
    ax.set_xlabel("Spearman correlation with the mask weights, over dimensions")
    ax.grid(axis="x", lw=0.4)
    return as_written(ax)


def plot_risk_bound(result: RiskBound, *, ax: Axes | None = None) -> Axes:
    """Risk between its inferred bounds, against the number of negatives, without and with a mask.

    Parameters
    ----------
    result : RiskBound
        From `bound_risk`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        The bound holds where the line of the risk lies in the band of its colour (filled markers),
        and is tighter where the band is narrower. All less log M. This is the form inferred for the
        paper, not its verbatim theorem.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, bound_risk
    >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    >>> split = Representation(rows, labels=np.array([0, 0, 1, 1]), views=np.stack([rows, rows]))
    >>> bound = bound_risk(split, n_negatives=[16, 64])
    >>> axes = plot_risk_bound(bound, ax=Figure().subplots())
    >>> risk = axes.lines[2].get_ydata()  # between the two bounds
    >>> bool((axes.lines[0].get_ydata() <= risk).all()), axes.get_xscale()
    (True, 'log')
    """
    ax = axes_or_current(ax)
    numbers = result.n_negatives
    lower, middle, upper = (
        result.of(term) - np.log(numbers) for term in ("lower", "middle", "upper")
    )
    styles = {"permuted": "--", "inverted": ":"}  # a constant mask is no mask
    for row, mask in enumerate(result.masks):
        if mask in styles:
            ax.plot(
                numbers, middle[row], color=GREY, lw=1, ls=styles[mask], zorder=1,
                label=f"risk, {mask} mask",
            )  # fmt: skip
    colours = {"none": (BLUE, "o", "no mask"), "learned": (ORANGE, "s", "learned mask")}
    for mask, (colour, marker, words) in colours.items():
        if mask not in result.masks:
            continue
        row = result.masks.index(mask)
        ax.fill_between(
            numbers, lower[row], upper[row], color=colour, alpha=0.15, lw=0,
            label=f"between bounds, {words}",
        )  # fmt: skip
        for bound in (lower, upper):
            ax.plot(numbers, bound[row], color=colour, lw=0.8, marker="_", ms=8)
        ax.plot(numbers, middle[row], color=colour, lw=1.5, label=f"risk, {words}")
        for held, face in ((True, colour), (False, "white")):
            chosen = result.held[row] == held
            ax.scatter(
                numbers[chosen], middle[row, chosen], s=30, marker=marker, zorder=3,
                facecolors=face, edgecolors=colour,
            )  # fmt: skip
    if not result.held[[mask in colours for mask in result.masks]].all():
        ax.scatter([], [], s=30, facecolors="white", edgecolors="black", label="outside the bounds")
    ax.set_xscale("log", base=2)
    ax.set_xticks(numbers, [f"{number:,}" for number in numbers])
    ax.minorticks_off()
    low, high = float(min(lower.min(), middle.min())), float(max(upper.max(), middle.max()))
    ax.set_ylim(low - 0.4 * (high - low) - 0.05, high + 0.06 * (high - low) + 0.05)
    ax.legend(frameon=False, fontsize="small", loc="lower center", ncols=2)
    ax.set_xlabel("negatives M")
    ax.set_ylabel("nats, less log M (risk: CE - log K)")
    title = f"Risk bound, inferred form (not the paper's own), temperature {result.temperature:g}"
    ax.set_title(titled(title, result), loc="left")
    return as_written(ax)
