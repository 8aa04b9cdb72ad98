"""Figures of what dimensions share, and of the features themselves."""

from __future__ import annotations

import os
import re
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
    is_narrow,
    name_points,
    nothing_found,
    titled,
)
from dimlab.refusals import Refusal
from dimlab.targets import CLASSES, kind_of
from dimlab.text import fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.probes.compare import Comparison
    from dimlab.probes.correlate import Correlation
    from dimlab.probes.decompose import Spectrum
    from dimlab.probes.find_redundancy import Redundancy
    from dimlab.representation import Representation


_COPY = 1 - 1e-6  # correlations from here on are of exact copies
_LEVELS = 65  # colours of the matrix: more are not told apart, and make large pictures


def plot_correlation(result: Correlation, *, ax: Axes | None = None) -> Axes:
    """Show the correlation of every dimension with every other, in cluster order.

    Parameters
    ----------
    result : Correlation
        From `correlate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Blue: two dimensions rise together; red: one falls as the other rises; white: neither.
        Blocks along the diagonal are groups that say the same. Dead dimensions are grey and last.
        The scale says where colours end before 1.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, correlate
    >>> x = np.arange(8.0) - 3.5
    >>> correlation = correlate(Representation(np.column_stack([x, x**2, -x])), n_draws=0)
    >>> axes = plot_correlation(correlation, ax=Figure().subplots())
    >>> neighbours = np.abs(np.diagonal(axes.images[0].get_array(), 1))
    >>> sorted(neighbours.round(6).tolist())  # x and -x are side by side
    [0.0, 1.0]
    """
    from matplotlib import colormaps

    ax = axes_or_current(ax)
    matrix = result.matrix[np.ix_(result.order, result.order)]
    n = len(matrix)
    others = np.abs(matrix[~np.eye(n, dtype=bool)])
    known = others[~np.isnan(others)]
    limit = max(0.1, float(np.quantile(known, 0.999)) if len(known) else 1.0)
    largest = float(known.max(initial=0.0))
    if largest > _COPY:  # copies keep a colour of their own
        limit = 1.0
    image = ax.imshow(
        matrix, cmap=colormaps["RdBu"].resampled(_LEVELS), vmin=-limit, vmax=limit,
        interpolation="antialiased", interpolation_stage="data", rasterized=True,
    )  # fmt: skip
    count_in_whole_numbers(ax.xaxis, ax.yaxis)
    ax.set_facecolor("#C8C8C8")
    clipped = limit < np.nanmax(np.abs(matrix), initial=0.0)
    said = f"correlation (one colour beyond ±{limit:.2g})" if clipped else "correlation"
    colour_bar(image, ax, said, extend="both" if clipped else "neither")
    cross = result.kind == "cross-view"
    unit = "dimensions in cluster order"
    ax.set_xlabel(f"second view, {unit}" if cross else unit)
    ax.set_ylabel(f"first view, {unit}" if cross else unit)
    rms = f"off-diagonal rms {result.off_diagonal_rms:.3g}"
    band = result.null_band.get("off_diagonal_rms")
    if band:
        rms += f"; independent: at most {band[1]:.3g}"
    ax.set_title(titled(f"{result.kind.capitalize()} correlation\n{rms}", result), loc="left")
    return as_written(ax)


def plot_spectrum(result: Spectrum, *, ax: Axes | None = None) -> Axes:
    """Singular values by rank, on logarithmic axes, with the power law and the effective rank.

    Parameters
    ----------
    result : Spectrum
        From `decompose`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        A line that falls late: many directions are in use; early: the features have collapsed onto
        few. Green: the effective rank, dotted without the bias of few samples, with its 95 %
        interval.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, decompose
    >>> rows = np.vstack([np.diag([2.0, 1.0, 1.0]), -np.diag([2.0, 1.0, 1.0])])
    >>> axes = plot_spectrum(decompose(Representation(rows)), ax=Figure().subplots())
    >>> axes.lines[0].get_ydata().round(6).tolist(), axes.get_xscale(), axes.get_yscale()
    ([1.0, 0.5, 0.5], 'log', 'log')
    """
    ax = axes_or_current(ax)
    shown = result.singular_values[result.singular_values > 0] / result.singular_values[0]
    ranks = np.arange(1, len(shown) + 1)
    ax.loglog(ranks, shown, color=BLUE, lw=1.5, marker="." if len(shown) < 30 else None)
    first, last = result.power_law_range
    if last:
        fitted = np.arange(first, last + 1)
        slope = -result.power_law_exponent / 2
        level = np.log(shown[fitted - 1]).mean() - slope * np.log(fitted).mean()
        ax.loglog(
            fitted, np.exp(level + slope * np.log(fitted)), color=ORANGE, lw=1.2, ls="--",
            label=f"power law of squares, exponent {result.power_law_exponent:.2f}",
        )  # fmt: skip
    ax.axvline(
        result.effective_rank, color=GREEN, lw=1.2,
        label=f"effective rank {result.effective_rank:.1f}",
    )  # fmt: skip
    low, high = result.corrected_intervals["effective_rank"]
    if np.isfinite([low, high]).all():
        doubtful = ", doubtful" if "effective_rank" in result.doubtful else ""
        label = f"without bias {result.corrected['effective_rank']:.1f}"
        ax.axvline(result.corrected["effective_rank"], color=GREEN, lw=1.2, ls=":", label=label)
        label = f"its 95 % interval: {low:.1f} to {high:.1f}{doubtful}"
        ax.axvspan(low, high, color=GREEN, alpha=0.25, lw=0.5, label=label)
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    ax.set_xlabel("rank of the singular value")
    ax.set_ylabel("singular value / largest")
    of = "centred" if result.centred else "uncentred"
    size = f"{result.n_samples:,} samples x {result.n_dimensions:,} dimensions"
    ax.set_title(titled(f"Spectrum of {of} features\n{size}", result), loc="left")
    return as_written(ax)


def plot_redundancy(result: Redundancy, *, ax: Axes | None = None) -> Axes:
    """Show how much of each dimension the others explain, and which dimensions are redundant.

    Parameters
    ----------
    result : Redundancy
        From `find_redundancy`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One dot a dimension, the most explained first: at 1 the others say all that it says, at 0
        nothing of it. Orange: redundant; black: an exact copy; blue: says something of its own.
        Dashed: how high the largest dot comes by chance.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, find_redundancy
    >>> features = np.random.default_rng(0).normal(size=(200, 4))
    >>> features[:, 3] = 1 - 2 * features[:, 0]  # a copy in other units
    >>> axes = plot_redundancy(find_redundancy(Representation(features)), ax=Figure().subplots())
    >>> axes.get_title(loc="left")
    'Redundancy: 2 of 4 dimensions repeat others (2 exact copies), 0 dead'
    """
    ax = axes_or_current(ax)
    alive, copies = ~result.dead, int(result.is_duplicate.sum())
    title = f"Redundancy: {int(result.is_redundant.sum())} of {int(alive.sum())} dimensions "
    title += "repeat others"
    title += f" ({copies} exact copies)" if copies else ""  # no copy is alone
    title += f", {int(result.dead.sum())} dead"
    explained = result.adjusted_r_squared
    chance, null = result.r_squared_null, np.isfinite(result.r_squared_null)
    if null:  # which is one of plain values
        explained = result.r_squared
    known = np.flatnonzero(alive & np.isfinite(explained))
    if not len(known):
        groups = sorted((group for group in result.groups if len(group) > 1), key=len)[::-1]
        named = [", ".join(map(str, group[:6])) + ", ..." * (len(group) > 6) for group in groups]
        said = "; ".join(named[:4]) or "none"
        sentence = f"Too few samples to say what the others explain. Redundant groups: {said}."
        return nothing_found(ax, sentence, titled(title, result))
    order = known[np.argsort(-explained[known], kind="stable")]
    places = np.arange(1, len(order) + 1)
    copy, repeats = result.is_duplicate[order], result.is_redundant[order]
    looks = (
        (copy, "black", "exact copy"),
        (repeats & ~copy, ORANGE, "redundant"),
        (~repeats & ~copy, BLUE, "says something of its own"),
    )
    for chosen, colour, words in looks:
        if chosen.any():
            ax.scatter(
                places[chosen], explained[order][chosen], s=16, c=colour, lw=0, zorder=3,
                label=f"{words} ({chosen.sum()})", rasterized=len(order) > 500,
            )  # fmt: skip
    if null:
        label = "the largest, if all were independent (95 %)"
        ax.axhline(chance, color=GREY, lw=1, ls="--", label=label)
    ax.set_xlim(0, len(order) + 1)
    count_in_whole_numbers(ax.xaxis)
    ax.set_ylim(-0.04, 1.08)
    shown = np.flatnonzero(repeats | copy)
    name_points(
        ax, places[shown], explained[order][shown], [str(d) for d in order[shown]], above=True
    )
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    of = "R²" if null else "adjusted R²"
    label = f"explained by the others ({of})"
    return finished(ax, "dimensions, the most explained first", label, titled(title, result))


def plot_redundancy_subset(result: Redundancy, *, ax: Axes | None = None) -> Axes:
    """Show how much the first few dimensions keep of what all dimensions hold.

    Parameters
    ----------
    result : Redundancy
        From `find_redundancy`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        A line that is high on the left: few dimensions are enough. The marked point is the shortest
        subset that keeps what was asked for. Dimensions join in the order in which each adds most.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, find_redundancy
    >>> features = np.random.default_rng(0).normal(size=(200, 4))
    >>> features[:, 3] = 1 - 2 * features[:, 0]  # a copy in other units
    >>> found = find_redundancy(Representation(features))
    >>> axes = plot_redundancy_subset(found, ax=Figure().subplots())
    >>> axes.get_title(loc="left")
    '3 of 4 dimensions keep 99 % of the variance'
    """
    ax = axes_or_current(ax)
    kept, what = result.kept_variance, "variance"
    if result.kept_accuracy is not None:
        kept, what = result.kept_accuracy, f"accuracy of a {result.reader} reader"
    known, n = np.flatnonzero(~np.isnan(kept)), len(result.subset)
    ax.plot(known + 1, kept[known], color=BLUE, lw=1.5)
    if n:
        ax.plot([n, n], [0, kept[n - 1]], color=ORANGE, lw=1, ls=":")
        ax.plot([n], [kept[n - 1]], "o", color=ORANGE, ms=6)
    ax.set_xlim(0, len(kept) + 1)
    count_in_whole_numbers(ax.xaxis)
    ax.set_ylim(0, 1.04)
    share = "share of the variance kept" if result.kept_accuracy is None else what
    title = f"{n} of {len(kept)} dimensions keep {result.keep:.0%} of the {what}".replace("%", " %")
    return finished(ax, "dimensions, those that add most first", share, titled(title, result))


def plot_comparison(
    result: Comparison, *, statistic: str = "effective_rank", ax: Axes | None = None
) -> Axes:
    """Compare a statistic of several representations, with 95 % intervals.

    Parameters
    ----------
    result : Comparison
        From `compare`.
    statistic : str, default="effective_rank"
        One of ``result.statistics``.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One point a representation with its 95 % interval; points whose lines lie apart differ.
        Orange: the reference. Hollow: the interval may cover less than 95 %.

    Raises
    ------
    ValueError
        If there is no such statistic.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, compare
    >>> features = np.random.default_rng(0).normal(size=(300, 3))
    >>> both = {"three": Representation(features), "one": Representation(features[:, :1])}
    >>> axes = plot_comparison(compare(both), ax=Figure().subplots())
    >>> axes.lines[0].get_ydata().round(1).tolist(), axes.get_ylabel()
    ([3.0, 1.0], 'effective rank')
    """
    if statistic not in result.statistics:
        known = ", ".join(map(repr, result.statistics))
        raise Refusal(f"statistic must be one of {known}; got {statistic!r}.")
    ax = axes_or_current(ax)
    column = result.statistics.index(statistic)
    value = result.corrected[:, column]
    places = np.arange(len(value))
    colours = [ORANGE if name == result.reference else BLUE for name in result.names]
    ax.vlines(
        places, result.corrected_low[:, column], result.corrected_high[:, column],
        colors=colours, lw=1.5,
        alpha=0.6,
    )  # fmt: skip
    ax.plot(places, value, color=GREY, lw=0.8, zorder=1)
    filled = np.where(result.doubtful[:, column], "white", colours)
    ax.scatter(places, value, c=filled, edgecolors=colours, s=25, zorder=3)
    names = _told_apart(result.names)
    long = max(map(len, names)) * len(names) > (30 if is_narrow(ax) else 75)
    every = -(-len(names) // 40)
    ax.set_xticks(
        places[::every], names[::every], ha="right" if long else "center",
        rotation=(90 if is_narrow(ax) else 30) if long else 0,
        rotation_mode="anchor" if long else None,
    )  # fmt: skip
    ax.set_xlim(-0.5, len(value) - 0.5)
    ax.set_ylabel(statistic.replace("_", " "))
    reference = names[result.names.index(result.reference)]
    lines = "without the bias of few samples; lines: 95 % intervals"
    if result.doubtful[:, column].any():
        lines += "\nhollow: the interval may cover less"
    ax.set_title(f"Comparison with {reference} (orange)\n{lines}", loc="left")
    return as_written(ax)


def _told_apart(names: tuple[str, ...]) -> list[str]:
    """Leave out the folders and file names that all names share, and the middle of long ones."""
    between = f"([/{re.escape(os.sep)}])"
    parts = [re.split(between, name) for name in names]  # folders and what separates them
    first = last = 0
    if len(names) > 1:
        shortest = min(map(len, parts))
        while first < shortest - 2 and len({each[first] for each in parts}) == 1:
            first += 2
        while last < shortest - first - 2 and len({each[-1 - last] for each in parts}) == 1:
            last += 2
    short = ["".join(each[first : len(each) - last]) for each in parts]
    cut = [fitted(name, 24) for name in short]
    return cut if len(set(cut)) == len(set(short)) else short


def plot_representation(
    representation: Representation, *, n_rows: int = 64, ax: Axes | None = None
) -> Axes:
    """Show samples as strips of colour: three neighbouring dimensions are red, green and blue.

    Parameters
    ----------
    representation : Representation
        Features; with labels, the samples are grouped by class.
    n_rows : int, default=64
        Samples shown, the first of each class in turn, >= 1.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Grey: three neighbouring dimensions say the same; coloured: they differ. One row a sample,
        ``n_rows`` in all, and D / 3 columns; one or two last dimensions are left out.

    Raises
    ------
    ValueError
        If ``n_rows`` < 1 or D < 3.

    Notes
    -----
    After Figure 1(a) of [1]_. Each dimension is standardised over the samples shown and cut off at
    two deviations, so dimensions that say the same give grey and decoupled ones give colours. Which
    dimensions are neighbours is arbitrary: look at it, do not measure by it (`correlate` measures).

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation
    >>> features = np.random.default_rng(0).normal(size=(5, 7))
    >>> features[:, 1:3] = features[:, :1]  # the first three agree
    >>> axes = plot_representation(Representation(features), n_rows=4, ax=Figure().subplots())
    >>> colours = axes.images[0].get_array()
    >>> colours.shape, (np.ptp(colours, axis=2).max(axis=0) > 0.2).tolist()  # grey, coloured
    ((4, 2, 3), [False, True])
    """
    if n_rows < 1:
        raise Refusal(f"n_rows must be >= 1; got {n_rows}.")
    n_triples = representation.n_dimensions // 3
    if n_triples == 0:
        raise Refusal(
            f"representation must have at least 3 dimensions; got {representation.n_dimensions}."
        )
    ax = axes_or_current(ax)
    labels = representation.labels
    if labels is not None and kind_of(labels) != CLASSES:
        labels = None
    rows = np.arange(min(n_rows, len(representation)))
    if labels is not None:
        order = np.argsort(labels, kind="stable")
        _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
        turn = np.empty(len(labels), dtype=np.int64)
        turn[order] = np.arange(len(labels)) - np.repeat(first, counts)
        rows = np.sort(np.argsort(turn, kind="stable")[: len(rows)])
        rows = rows[np.argsort(labels[rows], kind="stable")]
    shown = representation.features[rows].astype(np.float64)
    deviation = shown.std(axis=0)
    shown = (shown - shown.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    colours = (np.clip(shown, -2, 2) + 2) / 4
    ax.imshow(
        colours[:, : 3 * n_triples].reshape(len(rows), n_triples, 3),
        aspect="auto", interpolation="nearest", rasterized=True,
    )  # fmt: skip
    count_in_whole_numbers(ax.xaxis, ax.yaxis)
    if labels is not None:
        edges = np.flatnonzero(np.diff(labels[rows])) + 0.5
        ax.hlines(edges, -0.5, n_triples - 0.5, color="white", lw=0.8)
    return finished(
        ax,
        "dimensions, three to a pixel",
        "samples" if labels is None else "samples, grouped by class",
        "Dimensions as colours: grey where three neighbours agree",
    )
