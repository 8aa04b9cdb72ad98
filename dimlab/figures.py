"""Figures of results: each draws on the axes it is given, and computes no more than a sort."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dimlab.baselines import BaselineComparison
    from dimlab.locate import Localisation
    from dimlab.mask import MaskTrace
    from dimlab.probes.ablate import Ablation
    from dimlab.probes.ablate_cumulatively import CumulativeAblation
    from dimlab.probes.attribute import Attribution
    from dimlab.probes.bound_risk import RiskBound
    from dimlab.probes.compare import Comparison
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.correlate import Correlation
    from dimlab.probes.decompose import Spectrum
    from dimlab.probes.erase import Erasure
    from dimlab.probes.evaluate import Evaluation
    from dimlab.probes.find_redundancy import Redundancy
    from dimlab.probes.follow import MaskEvolution
    from dimlab.probes.random_masks import MaskedScores
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint

__all__ = [
    "plot_ablation",
    "plot_ablation_per_class",
    "plot_attribution",
    "plot_attribution_effects",
    "plot_baseline_comparison",
    "plot_checkpoint",
    "plot_comparison",
    "plot_correlation",
    "plot_cumulative_ablation",
    "plot_erasure",
    "plot_evaluation",
    "plot_harmful_dimensions",
    "plot_localisation",
    "plot_mask_evolution",
    "plot_mask_evolution_links",
    "plot_mask_evolution_quantiles",
    "plot_mask_trace",
    "plot_masked_scores",
    "plot_projector_widths",
    "plot_redundancy",
    "plot_representation",
    "plot_risk_bound",
    "plot_spectrum",
]

# Okabe and Ito's palette: told apart by colour-blind readers
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_LEVEL = 0.05
_MOSAIC = 2.0  # width / height of a mosaic of tiles


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
        An image, blue: positive, red: negative. Its colours end at the 99.9 % quantile of the
        absolute off-diagonal entries, or at 0.1; dead dimensions are grey and last.
    """
    ax = _axes(ax)
    matrix = result.matrix[np.ix_(result.order, result.order)]
    n = len(matrix)
    others = np.abs(matrix[~np.eye(n, dtype=bool)])
    known = others[~np.isnan(others)]
    limit = max(0.1, float(np.quantile(known, 0.999)) if len(known) else 1.0)
    image = ax.imshow(
        matrix, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="antialiased", rasterized=True
    )
    ax.set_facecolor("#C8C8C8")
    ax.figure.colorbar(image, ax=ax, label="correlation", extend="both" if limit < 1 else "neither")
    cross = result.kind == "cross-view"
    unit = "dimensions in cluster order"
    ax.set_xlabel(f"second view, {unit}" if cross else unit)
    ax.set_ylabel(f"first view, {unit}" if cross else unit)
    rms = f"off-diagonal rms {result.off_diagonal_rms:.3g}"
    band = result.null_band.get("off_diagonal_rms")
    if band:
        rms += f"; independent: {band[0]:.3g} to {band[1]:.3g}"
    ax.set_title(_titled(f"{result.kind.capitalize()} correlation\n{rms}", result), loc="left")
    return ax


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
        A line of singular values over the largest; values that rounding hides are left out.
    """
    ax = _axes(ax)
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
    low, high = result.intervals["effective_rank"]
    if np.isfinite([low, high]).all():
        ax.axvspan(low, high, color=GREEN, alpha=0.2, lw=0)
    ax.axvline(
        result.effective_rank, color=GREEN, lw=1.2,
        label=f"effective rank {result.effective_rank:.1f}",
    )  # fmt: skip
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    ax.set_xlabel("rank of the singular value")
    ax.set_ylabel("singular value / largest")
    of = "centred" if result.centred else "uncentred"
    size = f"{result.n_samples:,} samples x {result.n_dimensions:,} dimensions"
    ax.set_title(_titled(f"Spectrum of {of} features\n{size}", result), loc="left")
    return ax


def plot_redundancy(result: Redundancy, *, ax: Axes | None = None) -> Axes:
    """Show what the others explain of each dimension, and what the first few explain of all.

    Parameters
    ----------
    result : Redundancy
        From `find_redundancy`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Blue: R^2 of every dimension on the others, largest first. Orange: variance (or accuracy)
        that the first dimensions of the pivot order keep; dotted where the subset ends.
    """
    ax = _axes(ax)
    ranked = np.sort(result.r_squared[~result.dead])[::-1]
    ax.plot(
        np.arange(1, len(ranked) + 1), ranked, color=BLUE, lw=1.5,
        label="R² of a dimension on the others, ranked",
    )  # fmt: skip
    kept, what = result.kept_variance, "variance kept by the first n"
    if result.kept_accuracy is not None:
        kept, what = result.kept_accuracy, f"accuracy of a {result.reader} reader of the first n"
    known = np.flatnonzero(~np.isnan(kept))
    ax.plot(known + 1, kept[known], color=ORANGE, lw=1.5, label=what)
    ax.axvline(
        len(result.subset), color=ORANGE, lw=1, ls=":",
        label=f"{len(result.subset)} keep {result.keep:.0%} of it",
    )  # fmt: skip
    ax.set_ylim(0, 1.02)
    ax.legend(frameon=True, framealpha=1, edgecolor="none", fontsize="small", loc="lower right")
    ax.set_xlabel("dimensions")
    ax.set_ylabel("share")
    shared = sum(len(group) > 1 for group in result.groups)
    counts = f"{int(result.dead.sum())} dead, {int(result.is_duplicate.sum())} duplicate"
    title = f"Redundancy: {counts}, {shared} groups of |r| ≥ {result.cut:g}"
    ax.set_title(_titled(title, result), loc="left")
    return ax


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
        One point a representation, in the order given; orange: the reference.

    Raises
    ------
    ValueError
        If there is no such statistic.
    """
    if statistic not in result.statistics:
        known = ", ".join(map(repr, result.statistics))
        raise ValueError(f"statistic must be one of {known}; got {statistic!r}.")
    ax = _axes(ax)
    column = result.statistics.index(statistic)
    value = result.values[:, column]
    places = np.arange(len(value))
    colours = [ORANGE if name == result.reference else BLUE for name in result.names]
    ax.vlines(
        places, result.ci_low[:, column], result.ci_high[:, column], colors=colours, lw=1.5,
        alpha=0.6,
    )  # fmt: skip
    ax.plot(places, value, color=GREY, lw=0.8, zorder=1)
    ax.scatter(places, value, c=colours, s=25, zorder=3)
    long = max(map(len, result.names)) > 12 or len(result.names) > 6
    ax.set_xticks(
        places, result.names, rotation=30 if long else 0, ha="right" if long else "center"
    )
    ax.set_xlim(-0.5, len(value) - 0.5)
    ax.set_ylabel(statistic.replace("_", " "))
    ax.set_title(f"Comparison with {result.reference} (orange), 95 % intervals", loc="left")
    return ax


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
        Blue: no mask; orange: the learned one. Bands from lower to upper bound; lines are the risk
        that they bound, their markers filled where it lies between. Grey: the risk under controls.
        All less log M, with which they grow. This is the form inferred for the paper, not its
        verbatim theorem.
    """
    ax = _axes(ax)
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
    ax.set_title(_titled(title, result), loc="left")
    return ax


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
        An image of ``n_rows`` rows and D / 3 columns; one or two last dimensions are left out.

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
    """
    if n_rows < 1:
        raise ValueError(f"n_rows must be >= 1; got {n_rows}.")
    n_triples = representation.n_dimensions // 3
    if n_triples == 0:
        raise ValueError(
            f"representation must have at least 3 dimensions; got {representation.n_dimensions}."
        )
    ax = _axes(ax)
    labels = representation.labels
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
    if labels is not None:
        edges = np.flatnonzero(np.diff(labels[rows])) + 0.5
        ax.hlines(edges, -0.5, n_triples - 0.5, color="white", lw=0.8)
    ax.set_xlabel("dimensions, three to a pixel")
    ax.set_ylabel("samples" if labels is None else "samples, grouped by class")
    ax.set_title("Dimensions as colours: grey where three neighbours agree", loc="left")
    return ax


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
    """
    for name in ("width", "accuracy"):
        if name not in table.columns:
            raise ValueError(f"table must have a column {name!r}; got {', '.join(table.columns)}.")
    ax = _axes(ax)
    parts = table.groupby("method", sort=False) if "method" in table.columns else [("", table)]
    palette = cycle((BLUE, ORANGE, GREEN, GREY, "black"))
    for (name, part), colour in zip(parts, palette, strict=False):
        ax.scatter(part["width"], part["accuracy"], s=14, color=colour, alpha=0.6, lw=0)
        mean = part.groupby("width")["accuracy"].mean()
        ax.plot(mean.index, mean, color=colour, lw=1.5, label=str(name) or None)
    ax.set_xscale("log", base=2)
    widths = np.unique(table["width"])
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    if "method" in table.columns:
        ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("projector width (dimensions)")
    ax.set_ylabel("accuracy (share of test samples)")
    ax.set_title("Accuracy against projector width", loc="left")
    return ax


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
        One point a dimension that is not dead, coloured by verdict; the largest nuisances are
        named. Above the dotted line a factor explains more than the label does.
    """
    ax = _axes(ax)
    verdicts = np.array(result.verdicts())
    nuisance = np.nan_to_num(result.nuisance_score)
    label_effect = np.nan_to_num(result.label_effect)
    colours = {"nuisance": ORANGE, "mixed": GREEN, "label": BLUE, "neither": GREY}
    for word, colour in colours.items():
        chosen = verdicts == word
        ax.scatter(
            label_effect[chosen], nuisance[chosen], s=12, c=colour, alpha=0.8, lw=0,
            label=f"{word} ({chosen.sum()})", rasterized=len(nuisance) > 500,
        )  # fmt: skip
    limit = max(0.05, float(nuisance.max()), float(label_effect.max()))
    named: list[tuple[float, float]] = []
    for d in np.argsort(-nuisance, kind="stable")[:40]:
        x, y = label_effect[d], nuisance[d]
        crowded = any(abs(y - b) < limit / 16 and abs(x - a) < limit / 4 for a, b in named)
        if not result.flagged[d] or crowded or len(named) == 5:
            continue
        named.append((x, y))
        ax.annotate(
            f"{d}: {result.factors[result.leading[d]]}", (x, y), xytext=(5, 2),
            textcoords="offset points", fontsize="x-small",
        )  # fmt: skip
    ax.plot([0, limit], [0, limit], color="black", lw=0.8, ls=":")
    ax.set_xlim(-0.02 * limit, 1.25 * limit)
    ax.set_ylim(-0.03 * limit, 1.08 * limit)
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    ax.set_xlabel("effect of the label, given the factors (share of error)")
    ax.set_ylabel("largest effect of a factor,\ngiven the label (share of error)")
    title = f"What dimensions carry: {len(result.factors)} factors, q ≤ 0.05"
    ax.set_title(_titled(title, result), loc="left")
    return ax


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
        A heat map: one row a factor, those of larger effects first; one column for each of the (at
        most 40) dimensions of largest nuisance score, largest first. A dot: q <= 0.05. White: not
        identifiable.
    """
    ax = _axes(ax)
    order = np.argsort(-np.nan_to_num(result.nuisance_score, nan=-1.0), kind="stable")[:40]
    total = np.nansum(np.where(result.q_value <= _LEVEL, result.effect, 0.0), axis=0)
    rows = np.argsort(-total, kind="stable")
    shown = result.effect[np.ix_(order, rows)].T
    top = max(float(np.nanmax(shown, initial=0.0)), 1e-6)
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(shown), cmap="cividis", vmin=0, vmax=top, rasterized=True, linewidth=0
    )
    ax.figure.colorbar(mesh, ax=ax, label="effect given the label (share of error)")
    y, x = np.nonzero((result.q_value[np.ix_(order, rows)].T <= _LEVEL) & (shown > 0))
    # dark on light and light on dark
    dots = np.where(shown[y, x] > 0.6 * top, "black", "white")
    ax.scatter(x + 0.5, y + 0.5, s=5, c=dots, lw=0)
    every = max(1, len(order) // 20)
    ax.set_xticks(np.arange(len(order))[::every] + 0.5, order[::every], rotation=90)
    notes = ["" if each else " (not identifiable)" for each in result.identifiable]
    names = [f"{result.factors[f]}{notes[f]}" for f in rows]
    ax.set_yticks(np.arange(len(rows)) + 0.5, names)
    ax.invert_yaxis()
    ax.set_xlabel("dimension, largest nuisance score first")
    ax.set_title(_titled("Effects of factors (dot: q ≤ 0.05)", result), loc="left")
    return ax


def plot_erasure(result: Erasure, *, ax: Axes | None = None) -> Axes:
    """Show what is left of the factor, and what becomes of the task, after each way of removal.

    Parameters
    ----------
    result : Erasure
        From `erase`.
    ax : Axes, optional
        Where to draw; the current axes by default.

    Returns
    -------
    Axes
        Points are ways of removal with 95 % intervals (filled: test, open: in distribution); lines
        lead over 1, 2, 4, ... dimensions or directions removed. To the left the factor is gone;
        upwards the task is read better.
    """
    ax = _axes(ax)
    looks = {
        "nothing": ("black", "o"), "dimensions": (BLUE, "s"), "random dimensions": (GREY, "s"),
        "directions": (ORANGE, "D"), "random directions": (GREY, "D"), "LEACE": (GREEN, "^"),
        "LEACE given label": (GREEN, "v"),
    }  # fmt: skip
    sweep = result.sweep
    for s, split in enumerate(result.splits):
        for way in ("random dimensions", "random directions", "dimensions", "directions"):
            if not len(sweep["way"]):
                continue
            mine = (sweep["split"] == split) & np.isin(sweep["way"], [way, "nothing"])
            order = np.argsort(sweep["n_removed"][mine], kind="stable")
            ax.plot(
                sweep["factor_r_squared"][mine][order], sweep["accuracy"][mine][order],
                color=looks[way][0], lw=0.9, ls="-" if s == 0 else "--", alpha=0.6, zorder=1,
            )  # fmt: skip
        for w, way in enumerate(result.ways):
            colour, marker = looks[way]
            x, y = result.factor_r_squared[w, s], result.accuracy[w, s]
            falls, changes = result.factor_lost[w, s], result.accuracy_change[w, s]
            count = f" ({result.n_removed[w]})" if result.n_removed[w] else ""
            ax.errorbar(
                x, y,
                xerr=np.nan_to_num([[falls[2] - falls[0]], [falls[0] - falls[1]]]).clip(0),
                yerr=np.nan_to_num([[changes[0] - changes[1]], [changes[2] - changes[0]]]).clip(0),
                fmt=marker, ms=5, color=colour, mfc=colour if s == 0 else "white", elinewidth=1,
                label=f"{way}{count}" if s == 0 else None, zorder=3,
            )  # fmt: skip
    ax.set_xlim(-0.05, 1.05)
    ax.legend(
        frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5),
        title="without", title_fontsize="small",
    )  # fmt: skip
    ax.set_xlabel(f"R² of {result.factor} that a refitted reader still finds")
    ax.set_ylabel(f"accuracy of a refitted {result.reader} reader")
    splits = "filled: test" + ("; open: in distribution" if len(result.splits) > 1 else "")
    bars = "bars: 95 % (random: of the draws)"
    ax.set_title(
        f"Taking {result.factor} out (directions: {result.basis})\n{splits}; {bars}", loc="left"
    )
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
        A heat map: one row a dimension; columns meet halfway between records. A mask with negative
        weights has colours centred at 0 (blue: positive, red: negative).
    """
    ax = _axes(ax)
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
    if len(steps) == 1:
        ax.set_xticks(result.steps)
    ax.figure.colorbar(mesh, ax=ax, label="mask weight")
    ax.set_xlabel("training step")
    ax.set_ylabel("dimension, by rank of its final weight")
    moved = "" if result.moved or len(result) == 1 else ": it did not move"
    ax.set_title(f"The mask while it learns{moved}", loc="left")
    return ax


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
        Grey bands: central 90 % and 50 % of the dimensions; dashed: the median; coloured: the at
        most six dimensions of the largest change.
    """
    ax = _axes(ax)
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
    ax.set_xlabel("training step")
    ax.set_ylabel("mask weight")
    moved = "" if result.moved or len(result) == 1 else ": the mask did not move"
    ax.set_title(f"Spread of the weights and largest changes{moved}", loc="left")
    return ax


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
        One row a measurement and mask, orange: the learned one. Horizontal lines: 95 % intervals;
        for random and permuted masks the central 95 % of the draws.
    """
    ax = _axes(ax)
    ax.set_title("What the final mask goes with", loc="left")
    if not result.links:
        ax.text(
            0.5, 0.5, "No other measurement was given to compare the mask with.",
            ha="center", va="center", transform=ax.transAxes,
        )  # fmt: skip
        ax.set_axis_off()
        return ax
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
        One image of tiles. Each row: a dimension, at most the first six; its images (of more than
        three dimensions the first four), their occlusion maps and their gradient maps, each kind on
        one scale a dimension. Blue: covering the place lowers the activation; orange: it raises it.
        The darker green, the larger the gradient.
    """
    from matplotlib.colors import LinearSegmentedColormap

    ax = _axes(ax)
    n_shown = min(len(result), 6)
    n_images = min(result.rows.shape[1], 6 if n_shown <= 3 else 4)
    height, width = result.occlusion.shape[2:]
    n_across = _tiles_across(n_shown, n_images, height / width)
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
    ax.set_xticks(x, heads)
    ax.xaxis.tick_top()
    shown = result.activations[:n_shown, :n_images]
    names = [
        f"dim. {dimension}\n{each[-1]:.3g} to {each[0]:.3g}"
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
    return ax


def _tiles_across(n_dimensions: int, n_images: int, ratio: float) -> int:
    """How many of n images stand side by side so that tiles are largest; ratio: height / width."""

    def side(n_across: int) -> float:
        n_down = n_dimensions * -(-n_images // n_across)
        return min(_MOSAIC / (3 * n_across), 1 / (ratio * n_down))

    return max(range(1, n_images + 1), key=side)


def _mosaic(
    rows: list[list[np.ndarray]], n_across: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay out groups of tiles (n, H, W, 3), each in rows of n_across; the centres of the groups.

    Gaps are grey within a group, and transparent and wider between groups.
    """
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


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()
