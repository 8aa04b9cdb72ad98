"""Figures at the size that reports show: no text overlaps, leaves the figure, or is tiny."""

import io
import re
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator

from dimlab import datasets, figures
from dimlab._locate import locate
from dimlab._prune import prune
from dimlab._validate import validate
from dimlab.answers import dimension_table
from dimlab.baselines import evaluate_baselines
from dimlab.figures.house import figure_of, house_style
from dimlab.mask import DimensionMask, MaskTrace
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.ablate_retrieval import ablate_retrieval
from dimlab.probes.attribute import attribute
from dimlab.probes.bound_risk import bound_risk
from dimlab.probes.compare import compare
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.erase import erase
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.find_suspects import find_suspects
from dimlab.probes.follow import follow
from dimlab.probes.profile import profile
from dimlab.probes.random_masks import random_masks
from dimlab.report import plots_of
from dimlab.representation import Representation
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train

SMALLEST = 6.0  # points
COUNTS = re.compile("(dimension|direction|group|sample|training step)")  # beginnings of labels
PIXELS = 12  # on a phone, where a page of 375 px leaves 343 px to a figure


def texts_of(figure):
    """Text that is really drawn: (words, box in pixels, size in points, rotation)."""
    renderer = figure.canvas.get_renderer()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high))
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {tick.label1, tick.label2}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            box = text.get_window_extent(renderer)
            if box.width > 0:
                yield text.get_text(), box, text.get_fontsize(), text.get_rotation()


def parts_of(figure):
    """Ticks between whole numbers on axes that count: (what the axis counts, place)."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            words = axis.get_label_text()
            named = isinstance(axis.get_major_locator(), FixedLocator)
            if axis.get_scale() == "linear" and COUNTS.match(words) and not named:
                low, high = sorted(axis.get_view_interval())
                inside = [tick for tick in axis.get_ticklocs() if low <= tick <= high]
                yield from ((words, tick) for tick in inside if tick % 1)


def faults_of(figure, smallest=SMALLEST):
    """What is wrong with the layout of a figure that has been drawn, in words."""
    found = [f"tick {tick} of {words!r} is no whole number" for words, tick in parts_of(figure)]
    width, height = figure.get_size_inches() * figure.dpi
    texts = list(texts_of(figure))
    for place, (words, box, size, rotation) in enumerate(texts):
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1:
            found.append(f"{words!r} leaves the figure")
        if size < smallest:
            found.append(f"{words!r} has {size:.1f} points")
        for other, second, _, turned in texts[place + 1 :]:
            if rotation % 90 or turned % 90:
                continue  # slanted labels lie side by side though their boxes meet
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            down = min(box.y1, second.y1) - max(box.y0, second.y0)
            if across > 1 and down > 1:
                found.append(f"{words!r} and {other!r} overlap")
    return found


def drawn(plot, result, *, narrow=False):
    with house_style():
        figure = figure_of(plot, result, narrow=narrow)
        FigureCanvasAgg(figure)
        figure.savefig(io.BytesIO(), dpi=100)  # lays the figure out
    return figure


def split(n_dimensions, seed):
    """Ten classes, a hue in half of the dimensions, another factor in a tenth, two views."""
    weights, rng = np.random.default_rng(99), np.random.default_rng(seed)
    n = n_dimensions + 400
    labels, hue, brightness = rng.integers(0, 10, n), rng.uniform(0, 2 * np.pi, n), rng.random(n)
    n_latent = min(n_dimensions // 2, 100)
    latent = rng.normal(size=(n, n_latent)) * np.arange(1, n_latent + 1) ** -0.4
    features = 2 * latent @ weights.normal(size=(n_latent, n_dimensions)) / np.sqrt(n_latent)
    classes = weights.normal(size=(10, n_dimensions)) * (weights.random(n_dimensions) < 0.4)
    features += 0.25 * np.sqrt(64 / n_dimensions) * classes[labels]
    features += 0.4 * rng.normal(size=features.shape)
    carry = weights.random(n_dimensions)
    features += np.outer(np.cos(hue), carry * (carry > 0.5))
    features += np.outer(brightness, 3 * (carry < 0.1))
    return Representation(
        features.astype(np.float32),
        labels=labels,
        factors={
            "hue": hue, "brightness": brightness, "crop centre, horizontal": rng.random(n),
            "site": rng.integers(0, 4, n),
        },
        periods={"hue": 2 * np.pi},
        views=(features + 0.5 * rng.normal(size=(2, *features.shape))).astype(np.float32),
    )  # fmt: skip


def tiled(attribution, times):
    """The same effects on so many times more dimensions: what a figure shows, not how it is got."""
    d = len(attribution)
    arrays = {
        each.name: np.concatenate([getattr(attribution, each.name)] * times)
        for each in fields(attribution)
        if np.shape(getattr(attribution, each.name))[:1] == (d,)
    }
    return replace(attribution, **arrays)


def results_at(n_dimensions):
    """A result of every kind; those whose figures show dimensions are of so many."""
    few = split(64, 1), split(64, 2)
    bank, queries = (split(n_dimensions, 1), split(n_dimensions, 2)) if n_dimensions > 64 else few
    walk = np.random.default_rng(0).normal(size=(41, n_dimensions)) * 0.1
    trace = MaskTrace(np.arange(0, 401, 10), 1 / (1 + np.exp(-np.cumsum(walk, axis=0))))
    mask = DimensionMask(trace.weights[-1])
    ablation = ablate(bank, queries, reader="ridge", n_bootstrap=50)
    redundancy = find_redundancy(queries, n_blocks=2)
    attribution = tiled(attribute(*few, n_permutations=50), n_dimensions // 64)
    found = {"ablation": ablation, "redundancy": redundancy, "attribution": attribution}
    names = [f"runs/epoch-{epoch:03d}/checkpoint.pt" for epoch in range(8)]
    return [
        ablation,
        ablate_cumulatively(bank, queries, order="worst-first", reader="ridge"),
        confirm_harmful(bank, queries, reader="ridge"),
        random_masks(*few, n_masks=20),
        ablate_retrieval(
            queries,
            queries.features[:100],
            np.column_stack([np.arange(100)] * 2),
            n_splits=2,
            score="ndcg@3",
            n_random=1,
        ),
        correlate(queries, n_draws=3, n_blocks=2),
        decompose(queries, n_blocks=2),
        redundancy,
        profile(queries.features * np.where(np.arange(n_dimensions) % 20, 1, 9), n_rows=0),
        attribution,
        dimension_table(found),
        prune(bank, queries, keep=[0, 1, 2, 3], max_loss=0.01),
        trace,
        follow(trace, **found, n_bootstrap=50, n_permutations=50),
        bound_risk(queries, mask=mask, n_bootstrap=20, n_permuted=5),
        erase(*few, factor="hue"),
        find_suspects(*misled(n_dimensions)),
        evaluate(*few, mask=DimensionMask(trace.weights[-1, :64]), readers=("knn", "ridge")),
        compare({name: few[1] for name in names}, n_blocks=2),
        queries,
    ]


def misled(n_dimensions):
    """Splits in which a dimension follows the class in train, and not in test."""
    rng = np.random.default_rng(0)
    for follows in (0.95, 0.0):
        labels = rng.integers(0, 2, 1000)
        told = np.where(rng.random(1000) < follows, labels, rng.integers(0, 2, 1000))
        features = rng.normal(size=(1000, n_dimensions))
        features[:, 0] += labels
        features[:, 1] += 4 * told
        yield features, labels


def check(results, *, narrow):
    seen = set()
    for result in results:
        for plot in plots_of(result).values():
            figure = drawn(plot, result, narrow=narrow)
            smallest = 72 * figure.get_figwidth() * PIXELS / 343 - 1e-9 if narrow else SMALLEST
            assert faults_of(figure, smallest) == [], plot.__name__
            seen.add(plot.__name__)
    return seen


on_both = pytest.mark.parametrize(
    "narrow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["report", "phone"]
)


@pytest.mark.slow
@pytest.mark.parametrize("n_dimensions", [512, pytest.param(1536, marks=pytest.mark.long)])
def test_no_figure_is_crowded_at_many_dimensions(n_dimensions):
    results = results_at(n_dimensions)
    for narrow in (False, True):
        assert len(check(results, narrow=narrow)) == 27


@pytest.mark.slow
@on_both
def test_no_figure_is_crowded_at_64_dimensions(narrow):
    images = datasets.digits("train").take(range(200))
    checkpoint = train(replace(TrainConfig.small(), n_dimensions=16, steps=4), images)
    table = pd.DataFrame({"width": [64, 128, 64, 128], "accuracy": [0.5, 0.6, 0.52, 0.61]})
    table["method"] = ["simclr", "simclr", "barlow-twins", "barlow-twins"]
    results = [
        *results_at(64),
        checkpoint,
        evaluate_baselines([checkpoint], images, images),
        locate(checkpoint, images, [0, 1, 2, 3]),
        validate(n_samples=100, n_dimensions=16, n_worlds=2),
    ]
    seen = check(results, narrow=narrow)
    assert faults_of(drawn(figures.plot_projector_widths, table, narrow=narrow)) == []
    assert seen | {"plot_projector_widths"} == set(figures.__all__)


@pytest.mark.parametrize("narrow", [False, True])
def test_large_groups_of_few_samples_fit_into_a_sentence(narrow):
    """Hundreds of dimensions in a group: the first are named, and nothing collapses."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(12, 2)), 40, axis=1) + 0.1 * rng.normal(size=(12, 80))
    with pytest.warns(UserWarning, match="do not exceed"):
        found = find_redundancy(Representation(features), n_blocks=2)
    assert max(map(len, found.groups)) >= 40
    assert faults_of(drawn(figures.plot_redundancy, found, narrow=narrow)) == []


@pytest.mark.parametrize("narrow", [False, True])
def test_axes_that_count_have_whole_numbers_though_they_count_few(narrow):
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    few = Representation(rng.normal(size=(60, 4)) + np.outer(labels, [3, 0, 0, 0]), labels=labels)
    trace = MaskTrace(np.array([0, 1, 2]), rng.random((3, 4)))
    for result in (
        ablate(few, few, reader="ridge"),
        ablate_cumulatively(few, few, order=[3, 2, 1, 0], reader="ridge"),
        correlate(few, n_draws=0),
        find_redundancy(few, n_blocks=2),
        trace,
        follow(trace),
    ):
        for plot in plots_of(result).values():
            assert [*parts_of(drawn(plot, result, narrow=narrow))] == [], plot.__name__


def test_the_check_of_layouts_finds_faults():
    def crowded(result, *, ax):
        ax.set_ylabel("dimensions")
        ax.set_xticks([0.5, 0.51], ["first label", "second label"])
        ax.text(0.9, 0.5, result, transform=ax.transAxes, in_layout=False)
        ax.text(0.1, 0.1, "tiny", fontsize=3)
        return ax

    faults = faults_of(drawn(crowded, "a text that is much too long to fit"))
    assert any("no whole number" in fault for fault in faults)
    assert any("overlap" in fault for fault in faults)
    assert any("leaves" in fault for fault in faults)
    assert any("3.0 points" in fault for fault in faults)
