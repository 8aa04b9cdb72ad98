"""Whatever names hold, every figure draws them as they were given, with all legend entries."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dimlab import Localisation, figures
from dimlab._prune import prune
from dimlab._validate import validate
from dimlab.answers import dimension_table
from dimlab.baselines import BaselineComparison
from dimlab.figures.house import figure_of, house_style, picture_of
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
from dimlab.text import visible

PLAIN = "name"
# what matplotlib would read as a formula, what begins no label, what no font has, what no XML may
ODD = '_$x_$%\\a{<&"😀猫\x1b[b]'


@pytest.fixture(scope="module")
def results():
    """A small result of every kind."""
    rng = np.random.default_rng(0)
    labels, factors = np.arange(90) % 3, {"a": rng.normal(size=90), "b": rng.normal(size=90)}
    features = rng.normal(size=(90, 6)) + np.outer(labels, [2, 0, 0, 0, 0, 0])
    features += 3 * np.outer(factors["a"], [0, 1, 0, 0, 0, 0])
    features += 3 * np.outer(factors["b"], [0, 0, 1, 0, 0, 0])
    views = np.stack([features, features + 0.1 * rng.normal(size=features.shape)])
    split = Representation(features, labels=labels, factors=factors, views=views)
    trace = MaskTrace(np.arange(3), rng.random((3, 6)))
    ablation = ablate(split, split, reader="ridge", n_bootstrap=20)
    evaluation = evaluate(split, split, readers=("ridge",))
    maps = np.ones((2, 1, 1, 8, 8), np.float32)
    return [
        ablation,
        ablate_cumulatively(split, split, order="worst-first", reader="ridge"),
        confirm_harmful(split, split, reader="ridge", n_splits=2),
        random_masks(split, split, n_masks=5),
        ablate_retrieval(split, split, [[0, 0], [1, 1]], n_splits=2, n_bootstrap=20),
        correlate(split, n_draws=2, n_blocks=2),
        decompose(split, n_blocks=2),
        find_redundancy(split, n_blocks=2),
        profile(split, n_rows=0),
        find_suspects(split, split),
        attribute(split, split, n_permutations=99, erased=None),
        dimension_table(ablation),
        prune(split, split, keep=[0, 1]),
        erase(split, split, factor="a", n_random=2),
        validate(probes=["profile"], n_samples=100, n_dimensions=16, n_worlds=2),
        trace,
        follow(trace, ablation=ablation, n_bootstrap=10, n_permutations=10),
        bound_risk(split, mask=DimensionMask(trace.weights[-1]), n_bootstrap=5, n_permuted=2),
        evaluation,
        BaselineComparison(
            evaluations=(("raw pixels", 0, evaluation), ("trained", 0, evaluation))
        ),
        compare({"a": split, "b": split}, n_blocks=2),
        split,
        Localisation(
            np.array([3]), np.array([[5]]), np.array([[4.0]]), *maps, np.array([[np.nan]]),
            np.zeros((1, 1, 1, 8, 8), np.uint8), np.array([[1]]), (), np.array([1.0]),
            np.array([1.5]), patch=2, stride=1, fill="mean", n_samples=20,
        ),
    ]  # fmt: skip


def renamed(result, name):
    """The same result of somebody who calls everything by that name, and numbers it."""
    if not is_dataclass(result):
        return result
    known = {each.name for each in fields(result)}
    if isinstance(result, BaselineComparison):
        parts = [(f"{name}{n}", seed, each) for n, (_, seed, each) in enumerate(result.evaluations)]
        return replace(result, evaluations=tuple(parts))
    changes = dict.fromkeys(known & {"sample", "factor", "claim"}, name)
    if "factors" in known and isinstance(result.factors, tuple):
        changes["factors"] = tuple(f"{name}{n}" for n in range(len(result.factors)))
    if isinstance(getattr(result, "class_names", None), np.ndarray):
        named = [f"{name}{n}" for n in range(len(result.class_names))]
        changes["class_names"] = np.array(named)
    if "names" in known:
        changes |= {"names": (f"{name}0", f"{name}1"), "reference": f"{name}0"}
    return replace(result, **changes)


def texts_of(plot, result):
    figure = Figure()
    plot(result, ax=figure.subplots())
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):  # as drawing writes them
            assert not [label for label in labels if read_as_a_formula(label)]
    texts = figure.findobj(Text)
    assert not [text for text in texts if read_as_a_formula(text)], plot.__name__
    return sorted(text.get_text() for text in texts if text.get_text())


def read_as_a_formula(text):
    return text.get_parse_math() and "$x_" in text.get_text()


def test_every_figure_draws_names_as_they_are(results):
    shown, seen, held = visible(ODD), set(), set()
    table = pd.DataFrame({"width": [64, 128] * 2, "accuracy": [0.5, 0.6, 0.7, 0.8]})
    drawn = [(plot, each) for each in results for plot in plots_of(each).values()]
    for plot, result in drawn:
        seen.add(plot.__name__)
        hostile = texts_of(plot, renamed(result, ODD))
        if any(shown in text for text in hostile):
            plain = texts_of(plot, renamed(result, PLAIN))
            assert hostile == sorted(text.replace(PLAIN, shown) for text in plain), plot.__name__
            held.add(plot.__name__)
    methods = [f"{ODD}0", f"{ODD}0", ODD, ODD]
    hostile = texts_of(figures.plot_projector_widths, table.assign(method=methods))
    assert {shown, f"{shown}0"} <= set(hostile)
    # a run's losses are named by dimlab, and to load the training costs seconds
    assert seen | {"plot_projector_widths", "plot_checkpoint"} == set(figures.__all__)
    assert held >= {
        "plot_ablation", "plot_attribution", "plot_attribution_effects", "plot_erasure",
        "plot_comparison", "plot_baseline_comparison", "plot_ablation_per_class",
    }  # fmt: skip


def test_legends_name_every_group_of_dots(results):
    attribution = next(each for each in results if type(each).__name__ == "Attribution")
    assert attribution.flagged[[1, 2]].all()
    axes = figures.plot_attribution(renamed(attribution, "_nolegend_"), ax=Figure().subplots())
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert {word[:11] for word in words[:-2]} == {"_nolegend_0", "_nolegend_1"}
    assert sum(int(word.split("(")[1][:-1]) for word in words) == len(attribution)


def test_what_the_user_wrote_on_the_axes_stays_mathematics(results):
    ax = Figure().subplots()
    own = ax.text(0.5, 0.5, "$R^2$")
    figures.plot_ablation(renamed(results[0], ODD), ax=ax)
    assert own.get_parse_math()
    figures.plot_ablation(results[0], ax=ax)
    ax.set_xlabel("$R^2$")
    assert ax.xaxis.label.get_parse_math()


def test_a_name_of_300_letters_leaves_room_for_the_figure(results):
    for result in results:
        for plot in plots_of(result).values():
            if plot.__name__ not in ("plot_attribution", "plot_attribution_effects"):
                continue
            with house_style():
                figure = figure_of(plot, renamed(result, "l" * 300))
                figure.draw_without_rendering()
            assert figure.axes[0].get_position().width > 0.25


def test_pictures_of_odd_names_are_whole_files(results):
    from xml.etree import ElementTree

    attribution = next(each for each in results if type(each).__name__ == "Attribution")
    for file_format, start in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        drawn = picture_of(figures.plot_attribution, renamed(attribution, ODD), file_format)
        assert drawn.startswith(start)
        if file_format == "svg":
            assert ElementTree.fromstring(drawn).tag.endswith("svg")
