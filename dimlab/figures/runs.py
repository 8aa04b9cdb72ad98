"""Figures of runs: losses and accuracies."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.figures.house import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    as_written,
    axes_or_current,
    count_in_whole_numbers,
    finished,
    legend_of,
)
from dimlab.refusals import Refusal
from dimlab.targets import score_in_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from dimlab._validate import Validation
    from dimlab.baselines import BaselineComparison
    from dimlab.probes.evaluate import Evaluation
    from dimlab.training.checkpoint import Checkpoint


def plot_checkpoint(result: Checkpoint, *, ax: Axes | None = None) -> Axes:
    """Loss terms over training, each divided by its first recorded value, on a logarithmic axis.

    Parameters
    ----------
    result : Checkpoint
        A run.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        A line that falls: training lowers this loss term; a line at 1: it does not.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from matplotlib.figure import Figure
    >>> from dimlab import TrainConfig
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
    >>> metrics = ({"step": 1, "contrastive": 4.0}, {"step": 2, "contrastive": 2.0})
    >>> axes = plot_checkpoint(replace(checkpoint, metrics=metrics), ax=Figure().subplots())
    >>> axes.lines[0].get_label(), axes.lines[0].get_ydata().tolist()
    ('contrastive', [1.0, 0.5])
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax = axes_or_current(ax)
    metrics = result.to_frame()
    terms = {"contrastive": ORANGE, "invariance": BLUE, "redundancy": GREEN}
    for name, colour in terms.items():
        if name in metrics:
            relative = metrics[name] / metrics[name].iloc[0]
            ax.plot(metrics["step"], relative, color=colour, label=name)
    ax.axhline(1, color=GREY, lw=0.6)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high / low < 30:  # a decade or less has hardly a tick of its own
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if set(terms) & set(metrics):  # an untrained network has none
        ax.legend(frameon=False, fontsize="small")
    count_in_whole_numbers(ax.xaxis)
    return finished(ax, "training step", "loss term / its first value", "Loss terms")


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
        Further right is better. Blue: no mask; orange: the learned mask, which has learned
        something only if it lies right of the grey control masks. Lines are 95 % intervals.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import Evaluation
    >>> evaluation = Evaluation(
    ...     reader=("knn", "knn"), mask=("none", "learned"), n_correct=np.array([80, 90]),
    ...     n_test=100, n_train=500, n_dimensions=8,
    ... )
    >>> axes = plot_evaluation(evaluation, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()], axes.lines[1].get_xdata().tolist()
    (['knn, mask: none', 'knn, mask: learned'], [0.9])
    """
    ax = axes_or_current(ax)
    frame = result.to_frame()
    frame["name"] = frame["reader"] + ", mask: " + frame["mask"]
    frame["colour"] = [{"none": BLUE, "learned": ORANGE}.get(mask, GREY) for mask in frame["mask"]]
    _accuracies(frame.rename(columns={result.score: "accuracy"}), ax)
    if result.scores is not None:
        ax.set_xlabel(score_in_words(result.score))
    ax.set_title("Readers of the features, with 95 % intervals", loc="left")
    return as_written(ax)


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
        Further right is better. Training helps where orange lies right of blue: raw pixels and the
        untrained encoder. Grey: control masks. One point a seed; lines are 95 % intervals.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import BaselineComparison, Evaluation
    >>> known = {"reader": ("knn",), "mask": ("none",), "n_test": 100, "n_train": 500}
    >>> read = [Evaluation(n_correct=np.array([n]), n_dimensions=8, **known) for n in (70, 90)]
    >>> parts = (("raw pixels", 0, read[0]), ("trained", 0, read[1]))
    >>> comparison = BaselineComparison(evaluations=parts)
    >>> axes = plot_baseline_comparison(comparison, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()], axes.texts[-1].get_text()
    (['knn, raw pixels', 'knn, trained'], '0.900')
    """
    ax = axes_or_current(ax)
    frame = result.to_frame()
    names = frame["reader"] + ", " + frame["source"]
    frame["name"] = names + np.where(frame["mask"] == "none", "", ", mask: " + frame["mask"])
    frame["colour"] = np.where(frame["source"] == "trained", ORANGE, BLUE)
    frame.loc[~frame["mask"].isin(["none", "learned"]), "colour"] = GREY
    _accuracies(frame.sort_values("reader", kind="stable"), ax)
    ax.set_title("With and without training, with 95 % intervals", loc="left")
    return as_written(ax)


def _accuracies(frame: pd.DataFrame, ax: Axes) -> None:
    """Draw one line a name, readers apart from each other, the mean in figures at the right."""
    grouped = frame.groupby("name", sort=False)
    names, readers = list(grouped.groups), list(dict.fromkeys(frame["reader"]))
    heights = [
        place + 0.7 * readers.index(part["reader"].iloc[0])
        for place, (_, part) in enumerate(grouped)
    ]
    for height, (_, part) in zip(heights, grouped, strict=True):
        for row in part.itertuples():
            ax.hlines(height, row.ci_low, row.ci_high, color=row.colour, lw=1.5, alpha=0.6)
            ax.plot([row.accuracy], [height], "o", color=row.colour, ms=4.5)
        ax.text(
            1.01, height, f"{part['accuracy'].mean():.3f}", color=part["colour"].iloc[0],
            va="center", fontsize="small", transform=ax.get_yaxis_transform(),
        )  # fmt: skip
    ax.set_yticks(heights, names, fontsize="small" if len(names) <= 24 else "x-small")
    ax.set_ylim(heights[-1] + 0.7, -0.7)
    ax.set_xlabel("accuracy (share of test samples)")
    ax.grid(axis="x", lw=0.4)


def plot_validation(result: Validation, *, ax: Axes | None = None) -> Axes:
    """Show what each measure finds of what was planted, and how often it claims what is not there.

    Parameters
    ----------
    result : Validation
        From `validate`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Blue dots, the recall, should lie at the right; orange squares, false claims in worlds of
        noise, at the black tick of their level or left of it. Lines are 95 % intervals. Behind a
        name stands the verdict, unless the measure holds.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from dimlab import validate
    >>> found = validate(probes=["profile"], n_worlds=3, n_dimensions=16)
    >>> axes = plot_validation(found, ax=Figure().subplots())
    >>> [text.get_text() for text in axes.get_yticklabels()]
    ['profile: outlier (undecided)']
    """
    ax = axes_or_current(ax)
    places = np.arange(len(result))
    found = np.column_stack([result.recall, result.recall_low, result.recall_high])
    wrong = result.false_claims
    for (value, low, high), colour, marker, shift, text in (
        (found.T, BLUE, "o", -0.15, "found of what was planted"),
        (wrong[:, :3].T, ORANGE, "s", 0.15, "claimed in worlds of noise"),
    ):
        ax.hlines(places + shift, low, high, color=colour, lw=1.2, alpha=0.5)
        ax.plot(value, places + shift, marker, color=colour, ms=3.5, label=text)
    ax.plot(wrong[:, 3], places + 0.15, "|", color="black", ms=7, label="at most")
    names = [
        name if said == "holds" else f"{name} ({said})"
        for name, said in zip(result.measure, result.verdicts(), strict=True)
    ]
    ax.set_yticks(places, names, fontsize="small" if len(names) <= 12 else "x-small")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.02, 1.02)
    ax.legend(
        frameon=False, fontsize="small", ncols=3, loc="upper center", bbox_to_anchor=(0.3, -0.18)
    )
    title = (
        f"{result.n_holding} of {result.n_measures} measures hold, {result.n_worlds} worlds each"
    )
    return finished(ax, "share of what was planted, or of worlds of noise", None, title)


def plot_projector_widths(table: Any, *, ax: Axes | None = None) -> Axes:
    """Accuracy against projector width, every seed a point, as in Figure 1(b) of MetaMask.

    Parameters
    ----------
    table : DataFrame
        Columns ``width`` and ``accuracy``, and ``method`` where there are several; one row a run.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Points are runs, lines means over the runs of a width.

    Raises
    ------
    ValueError
        If a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> table = pd.DataFrame({"width": [64, 64, 128], "accuracy": [0.5, 0.7, 0.8]})
    >>> axes = plot_projector_widths(table, ax=Figure().subplots())
    >>> axes.lines[0].get_ydata().round(6).tolist(), axes.get_xscale()
    ([0.6, 0.8], 'log')
    """
    for name in ("width", "accuracy"):
        if name not in table.columns:
            raise Refusal(f"table must have a column {name!r}; got {', '.join(table.columns)}.")
    ax = axes_or_current(ax)
    parts = table.groupby("method", sort=False) if "method" in table.columns else [("", table)]
    palette = cycle((BLUE, ORANGE, GREEN, GREY, "black"))
    lines = []
    for (name, part), colour in zip(parts, palette, strict=False):
        ax.scatter(part["width"], part["accuracy"], s=14, color=colour, alpha=0.6, lw=0)
        mean = part.groupby("width")["accuracy"].mean()
        (line,) = ax.plot(mean.index, mean, color=colour, lw=1.5)
        lines.append((line, str(name)))
    ax.set_xscale("log", base=2)
    widths = np.unique(table["width"])
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    if "method" in table.columns:
        legend_of(ax, lines, frameon=False, fontsize="small")
    title = "Accuracy against projector width"
    return finished(ax, "projector width (dimensions)", "accuracy (share of test samples)", title)
