"""Figures of what dimensions carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.figures.house import (
    BLUE,
    FACTORS,
    GREEN,
    GREY,
    ORANGE,
    as_written,
    axes_or_current,
    finished,
    heat_map,
    is_narrow,
    legend_of,
    name_points,
    nothing_found,
    several,
    titled,
)
from dimlab.targets import score_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab._locate import Localisation
    from dimlab.probes.attribute import Attribution
    from dimlab.probes.erase import Erasure


_UNDECIDED = "#C9C9C9"
_MOSAIC, _UPRIGHT = 2.0, 0.8  # width / height of a mosaic of tiles, and on a phone


def plot_attribution(result: Attribution, *, ax: Axes | None = None) -> Axes:
    """Show what each dimension carries: its largest nuisance effect against the label's.

    Parameters
    ----------
    result : Attribution
        From `attribute`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One dot a dimension. Above the dotted line: it carries a factor more than the label, and is
        a nuisance; below: it carries the label more. Coloured like the factor that it carries (blue
        and grey: none; pale: undecided); the largest nuisances are numbered.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, attribute
    >>> labels, size = np.arange(90) % 2, np.arange(90) % 3
    >>> features = np.column_stack([size, labels]) + np.sin(np.arange(180.0)).reshape(90, 2)
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribution = attribute(split, split, n_permutations=99, erased=None)
    >>> axes = plot_attribution(attribution, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_legend().get_texts()]
    ['size (1)', 'the label alone (1)', 'neither (0)']
    """
    ax = axes_or_current(ax)
    verdicts = np.array(result.verdicts())
    nuisance = np.nan_to_num(result.nuisance_score)
    label_effect = np.nan_to_num(result.label_effect)
    leading = np.where(result.flagged, result.leading, -1)
    counts = np.bincount(leading[leading >= 0], minlength=len(result.factors))
    leaders = [int(f) for f in np.argsort(-counts, kind="stable") if counts[f]]
    named = leaders if len(leaders) <= len(FACTORS) else leaders[: len(FACTORS) - 1]
    looks = [(leading == f, result.factors[f], FACTORS[n]) for n, f in enumerate(named)]
    others = np.isin(leading, leaders[len(named) :])
    looks += [(others, "another factor", FACTORS[-1])] if others.any() else []
    looks += [(verdicts == "label", "the label alone", BLUE)]
    looks += [(verdicts == "neither", "neither", GREY)]
    undecided = verdicts == "undecided"
    looks += [(undecided, "undecided", _UNDECIDED)] if undecided.any() else []
    drawn = []
    for chosen, words, colour in looks:
        dots = ax.scatter(
            label_effect[chosen], nuisance[chosen], s=12, c=colour, alpha=0.8, lw=0, zorder=3,
            rasterized=len(nuisance) > 500,
        )  # fmt: skip
        drawn.append((dots, f"{words} ({chosen.sum()})"))
    limit = max(0.05, float(nuisance.max()), float(label_effect.max()))
    ax.plot([0, limit], [0, limit], color="black", lw=0.8, ls=":")
    ax.set_xlim(-0.02 * limit, 1.05 * limit)
    ax.set_ylim(-0.03 * limit, 1.08 * limit)
    top = np.argsort(-nuisance, kind="stable")
    top = top[result.flagged[top]][:40]
    name_points(ax, label_effect[top], nuisance[top], [str(d) for d in top])
    legend_of(
        ax, drawn, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0),
        title="carries most of", title_fontsize="small", alignment="left",
    )  # fmt: skip
    ax.set_xlabel("effect of the label, given the factors (share of error)")
    ax.set_ylabel("largest effect of a factor,\ngiven the label (share of error)")
    title = f"What dimensions carry beside the label: {several(len(result.factors), 'factor')}"
    ax.set_title(titled(title + ", q ≤ 0.05", result), loc="left")
    return as_written(ax)


def plot_attribution_effects(result: Attribution, *, ax: Axes | None = None) -> Axes:
    """Effect of every factor on the dimensions that carry most of any.

    Parameters
    ----------
    result : Attribution
        From `attribute`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Yellow: the dimension carries much of the row's factor, dark blue: nothing of it. A dot: it
        carries that factor even where all others are known (q <= 0.05). White: not identifiable.
        The (at most 40) dimensions of the largest nuisance score are shown.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, attribute
    >>> labels, size = np.arange(90) % 2, np.arange(90) % 3
    >>> features = np.column_stack([size, labels]) + np.sin(np.arange(180.0)).reshape(90, 2)
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribution = attribute(split, split, n_permutations=99, erased=None)
    >>> axes = plot_attribution_effects(attribution, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()], axes.collections[0].get_array().shape
    (['size'], (1, 2))
    """
    ax = axes_or_current(ax)
    order = np.argsort(-np.nan_to_num(result.nuisance_score, nan=-1.0), kind="stable")[:40]
    total = np.where(result.own, result.effect, 0.0).sum(axis=0)
    rows = np.argsort(-total, kind="stable")
    shown = result.effect[np.ix_(order, rows)].T
    top = max(float(np.nanmax(shown, initial=0.0)), 1e-6)
    notes = ["" if each else " (not identifiable)" for each in result.identifiable]
    names = [f"{result.factors[f]}{notes[f]}" for f in rows]
    heat_map(
        ax, np.ma.masked_invalid(shown), order, names, cmap="cividis", vmin=0, vmax=top,
        label="effect given the label (share of error)",
    )  # fmt: skip
    y, x = np.nonzero(result.own[np.ix_(order, rows)].T)
    # dark on light and light on dark
    dots = np.where(shown[y, x] > 0.6 * top, "black", "white")
    ax.scatter(x + 0.5, y + 0.5, s=5, c=dots, lw=0)
    ax.invert_yaxis()
    title = titled("Effects of factors (dot: q ≤ 0.05, others known)", result)
    return finished(ax, "dimension, largest nuisance score first", None, title)


def plot_erasure(result: Erasure, *, ax: Axes | None = None) -> Axes:
    """Show what each way of removal leaves of the factor, and what becomes of the task.

    Parameters
    ----------
    result : Erasure
        From `erase`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        One row a way of removal. Orange, as far left as possible: what a reader still finds of the
        factor. Blue, as far right as possible: how often it reads the class right. Lines: 95 %
        intervals; hollow: samples in distribution.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, erase
    >>> labels, size = np.arange(90) % 2, np.arange(90) % 3
    >>> features = np.column_stack([size, labels]) + np.sin(np.arange(180.0)).reshape(90, 2)
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> erasure = erase(split, split, factor="size", n_random=2)
    >>> axes = plot_erasure(erasure, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()][:2]
    ['nothing removed', 'its 1 dimension']
    """
    ax = axes_or_current(ax)
    falls, changes = result.factor_lost, result.accuracy_change
    found = (result.factor_r_squared, falls[..., 0] - falls[..., 2], falls[..., 0] - falls[..., 1])
    right = (result.accuracy, changes[..., 1] - changes[..., 0], changes[..., 2] - changes[..., 0])
    what = (
        "right classes (accuracy"
        if result.score == "accuracy"
        else f"task ({score_in_words(result.score)}"
    )
    looks = (
        (found, ORANGE, f"{result.factor} still found (R², 0: gone)", -0.13),
        (right, BLUE, f"{what}, {result.reader} reader)", 0.13),
    )
    rows = np.arange(len(result.ways)) * (1.0 if len(result.splits) == 1 else 1.4)
    drawn: list[tuple[Any, str]] = []
    for (value, low, high), colour, words, beside in looks:
        for s in range(len(result.splits)):
            height = rows + beside + 0.5 * s
            ends = np.nan_to_num(low[:, s]), np.nan_to_num(high[:, s])
            ax.hlines(height, value[:, s] + ends[0], value[:, s] + ends[1], color=colour, lw=1.5)
            face = "white" if s else colour
            (dots,) = ax.plot(value[:, s], height, "o", ms=6, color=colour, mfc=face)
            drawn += [] if s else [(dots, words)]
            ax.axvline(value[0, s], color=colour, lw=0.8, ls=":", zorder=0)
    ax.set_yticks(
        rows, [_way(way, int(n)) for way, n in zip(result.ways, result.n_removed, strict=True)]
    )
    ax.set_ylim(rows[-1] + (1.0 if len(result.splits) > 1 else 0.6), -0.6)
    lowest = min(0.0, float(np.nanmin(result.accuracy)))  # R^2 may be negative
    ax.set_xlim(lowest - 0.03, 1.03)
    ax.grid(axis="x", lw=0.4)
    legend_of(
        ax, drawn, frameon=False, fontsize="small", loc="upper center",
        bbox_to_anchor=(0.4, -0.14), ncols=2,
    )  # fmt: skip
    hollow = "\nfilled: test; hollow: in distribution" if len(result.splits) > 1 else ""
    title = f"What remains of {result.factor}, and of the task{hollow}"
    return finished(ax, "share, 0 to 1", None, title)


def _way(way: str, n_removed: int) -> str:
    """Name a way of removal with the number of dimensions or directions that it takes out."""
    if way in ("dimensions", "directions"):
        return f"its {several(n_removed, way[:-1])}"
    if way in ("random dimensions", "random directions"):
        return f"{n_removed} {way}" if n_removed != 1 else f"1 {way[:-1]}"
    return "nothing removed" if way == "nothing" else way


def plot_erasure_sweep(result: Erasure, *, ax: Axes | None = None) -> Axes:
    """Show how the factor goes, and what becomes of the task, as more and more is removed.

    Parameters
    ----------
    result : Erasure
        From `erase`, with the ridge reader; others have no sweep.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        From left to right, 1, 2, 4, ... of the factor's dimensions (solid) or directions (dashed)
        are removed. Orange: what is still found of the factor; blue: how often the class is right.
        Pale: as many random ones.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Representation, erase
    >>> labels, size = np.arange(90) % 2, np.arange(90) % 3
    >>> features = np.column_stack([size, labels]) + np.sin(np.arange(180.0)).reshape(90, 2)
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> erasure = erase(split, split, factor="size", n_random=2)
    >>> plot_erasure_sweep(erasure, ax=Figure().subplots()).get_xlabel()
    'dimensions or directions removed'
    """
    ax = axes_or_current(ax)
    title = f"Removing {result.factor} step by step"
    sweep = result.sweep
    if not len(sweep["way"]):
        sentence = f"Only the ridge reader is followed step by step; this one is {result.reader}."
        return nothing_found(ax, sentence, title)
    words = score_in_words(result.score)
    task = "right classes" if result.score == "accuracy" else f"task ({words})"
    values = (
        ("factor_r_squared", ORANGE, f"{result.factor} found (R²)"),
        (result.score, BLUE, task),
    )
    drawn = []
    for way, style, alpha in (
        ("random dimensions", "-", 0.3), ("random directions", "--", 0.3),
        ("dimensions", "-", 1.0), ("directions", "--", 1.0),
    ):  # fmt: skip
        if way not in sweep["way"]:
            continue
        mine = (sweep["split"] == result.splits[0]) & np.isin(sweep["way"], [way, "nothing"])
        order = np.argsort(sweep["n_removed"][mine], kind="stable")
        for name, colour, words in values:
            (line,) = ax.plot(
                sweep["n_removed"][mine][order], sweep[name][mine][order], color=colour, ls=style,
                lw=1.5, alpha=alpha, marker=".",
            )  # fmt: skip
            drawn.append((line, f"{words}, {way}"))
    ax.set_xscale("symlog", base=2, linthresh=1)
    numbers = np.unique(sweep["n_removed"])
    ax.set_xticks(numbers, [str(number) for number in numbers])
    ax.minorticks_off()
    ax.set_ylim(min(0.0, float(sweep[result.score].min())) - 0.03, 1.03)
    legend_of(
        ax, drawn, frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5)
    )
    return finished(ax, "dimensions or directions removed", "share, 0 to 1", title)


def plot_localisation(result: Localisation, *, ax: Axes | None = None) -> Axes:
    """Show the images that drive each dimension most, and where in them: covered, and by gradient.

    Parameters
    ----------
    result : Localisation
        From `locate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Blue: what the dimension looks at, as covering the place lowers its activation; orange:
        covering raises it; green: where the activation depends on the pixels. One row a dimension,
        at most the first six, with scales of its own.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Localisation
    >>> maps = np.ones((2, 1, 1, 8, 8), np.float32)  # of one dimension and one image
    >>> found = Localisation(
    ...     np.array([3]), np.array([[5]]), np.array([[4.0]]), *maps, np.array([[np.nan]]),
    ...     np.zeros((1, 1, 1, 8, 8), np.uint8), np.array([[1]]), (), np.array([1.0]),
    ...     np.array([1.5]), patch=2, stride=1, fill="mean", n_samples=20,
    ... )
    >>> axes = plot_localisation(found, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_xticklabels()][:2], len(axes.images)
    (['image', 'occlusion: fall of the activation'], 1)
    """
    from matplotlib.colors import LinearSegmentedColormap

    ax = axes_or_current(ax)
    n_shown = min(len(result), 6)
    n_images = min(result.rows.shape[1], 6 if n_shown <= 3 else 4)
    narrow = is_narrow(ax)
    height, width = result.occlusion.shape[2:]
    n_across = _tiles_across(n_shown, n_images, height / width, _UPRIGHT if narrow else _MOSAIC)
    fall = LinearSegmentedColormap.from_list("fall", [ORANGE, "white", BLUE])
    slope = LinearSegmentedColormap.from_list("slope", ["white", GREEN, "#00281D"])
    rows = []
    for place in range(n_shown):
        pixels = np.moveaxis(result.images[place, :n_images], 1, -1) / 255
        images = np.broadcast_to(pixels, (*pixels.shape[:-1], 3))
        occlusion = result.occlusion[place, :n_images]
        gradient = result.gradient[place, :n_images]
        limit = float(np.abs(occlusion).max()) or 1.0
        parts = [
            images,
            fall((occlusion / limit + 1) / 2)[..., :3],
            slope(gradient / (float(gradient.max()) or 1.0))[..., :3],
        ]
        rows.append(parts)
    mosaic, x, y = _mosaic(rows, n_across)
    ax.imshow(mosaic, interpolation="nearest", rasterized=True)
    heads = ["image", "occlusion: fall of the activation", "input gradient, absolute"]
    if narrow:
        heads = ["image", "occlusion", "gradient"]
    ax.set_xticks(x, heads)
    ax.xaxis.tick_top()
    shown = result.activations[:n_shown, :n_images]
    names = [
        f"dim. {dimension}" + ("" if narrow else f"\n{each[-1]:.3g} to {each[0]:.3g}")
        for dimension, each in zip(result.dimensions[:n_shown], shown, strict=True)
    ]
    ax.set_yticks(y, names)
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_color("none")
    ax.set_xlabel(
        "blue: covering the place lowers the activation; orange: raises it\n"
        "darker green: larger gradient; every dimension has scales of its own",
        fontsize="small",
    )
    some = f"\nfirst {n_shown} of {len(result)} dimensions" if n_shown < len(result) else ""
    cover = f"{result.patch} x {result.patch} {'black' if result.fill == 'zero' else 'mean'} pixels"
    ax.set_title(f"Images of largest activation, covered by {cover}{some}", loc="left")
    return as_written(ax)


def _tiles_across(n_dimensions: int, n_images: int, ratio: float, shape: float) -> int:
    """How many of n images stand side by side so that tiles are largest; ratio: height / width."""

    def side(n_across: int) -> float:
        n_down = n_dimensions * -(-n_images // n_across)
        return min(shape / (3 * n_across), 1 / (ratio * n_down))

    return max(range(1, n_images + 1), key=side)


def _mosaic(
    rows: list[list[np.ndarray]], n_across: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay out groups of tiles (n, H, W, 3), each in rows of n_across; the centres of the groups."""
    n, height, width, _ = rows[0][0].shape
    thin = max(1, round(width / 28))
    down, across = height + thin, width + thin
    group_down, group_across = -(-n // n_across) * down + 2 * thin, n_across * across + 4 * thin
    tops, lefts = np.arange(len(rows)) * group_down, np.arange(len(rows[0])) * group_across
    shape = len(rows) * group_down - 3 * thin, len(rows[0]) * group_across - 5 * thin
    board = np.zeros((*shape, 4))
    for top, groups in zip(tops, rows, strict=True):
        for left, tiles in zip(lefts, groups, strict=True):
            right, bottom = left + n_across * across - thin, top + -(-n // n_across) * down - thin
            board[top:bottom, left:right] = (0.8, 0.8, 0.8, 1.0)
            for number, tile in enumerate(tiles):
                y, x = top + number // n_across * down, left + number % n_across * across
                board[y : y + height, x : x + width, :3] = tile
    centre_y, centre_x = (group_down - 3 * thin - 1) / 2, (group_across - 5 * thin - 1) / 2
    return board, lefts + centre_x, tops + centre_y
