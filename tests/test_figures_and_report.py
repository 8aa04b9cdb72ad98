"""Figures show what the frames say; the report is whole, harmless and repeatable."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dimlab import figures
from dimlab.basis import fit_basis
from dimlab.datasets import digits
from dimlab.mask import MaskTrace
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.attribute import attribute
from dimlab.probes.compare import compare
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.random_masks import random_masks
from dimlab.report import write_report, write_result
from dimlab.representation import Representation
from dimlab.result_file import load_result
from dimlab.text import in_words
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, 8))
    features[:, 2] += 4 * labels
    whole = Representation(features, labels=labels)
    return whole.take(range(60)), whole.take(range(60, 90))


@pytest.fixture
def trace(rng):
    return MaskTrace(np.array([0, 5, 9]), rng.random((3, 8)))


@pytest.fixture
def ax():
    return Figure().subplots()


def test_ablation_figure_shows_the_ranked_importances(pair, ax):
    result = ablate(*pair, reader="ridge")
    assert figures.plot_ablation(result, ax=ax) is ax
    points = np.asarray(ax.collections[1].get_offsets())
    np.testing.assert_allclose(points[:, 1], np.sort(result.importance)[::-1])
    lines = np.array([segment[:, 1] for segment in ax.collections[0].get_segments()])
    order = np.argsort(-result.importance, kind="stable")
    chosen = result.q_value <= 0.05
    assert chosen.any()
    low = np.where(chosen, result.fcr_low, result.ci_low)  # those chosen allow for the choice
    high = np.where(chosen, result.fcr_high, result.ci_high)
    np.testing.assert_allclose(lines[:, 0], low[order])
    np.testing.assert_allclose(lines[:, 1], high[order])
    assert ax.get_ylabel() == "importance (accuracy lost)"
    assert "ranked" in ax.get_xlabel()


def test_mask_figure_shows_every_weight(trace, ax):
    figures.plot_mask_trace(trace, ax=ax)
    drawn = np.array([line.get_ydata() for line in ax.lines[:8]])
    np.testing.assert_allclose(drawn, trace.weights.T)
    assert ax.get_xlabel() == "training step"


def test_evaluation_figure_shows_every_reader(pair, ax):
    result = evaluate(*pair, readers=("knn", "ridge"))
    figures.plot_evaluation(result, ax=ax)
    np.testing.assert_allclose([line.get_xdata()[0] for line in ax.lines], result.accuracy)


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="results must hold at least one result; got none"):
        write_report(tmp_path, {})


def test_result_files_are_readable_by_others(trace, tmp_path):
    files = write_result(tmp_path / "new", "trace", trace)
    assert {path.suffix for path in files.values()} == {".csv", ".json", ".svg", ".npz"}
    assert all(path.stat().st_mode & 0o400 for path in files.values())


def test_a_result_is_kept_whole_beside_its_figures_and_only_once(attribution, tmp_path):
    files = write_result(tmp_path / "a", "attribute", attribution)
    again = write_result(tmp_path / "b", "attribute", load_result(files["result"]))
    assert [path.name for path in (tmp_path / "a").glob("*.npz")] == ["attribute.result.npz"]
    for kind, path in files.items():
        assert path.read_bytes() == again[kind].read_bytes(), kind


def test_values_in_words():
    assert in_words(True) == "yes"
    assert in_words(None) == "none"
    assert in_words(1 / 3) == "0.3333"
    assert in_words([]) == "none"
    assert in_words(list(range(20))).endswith("... (20 in all)")
    assert in_words({"a": 0.5}) == "a: 0.5"


# Figures of the ablation engine ----------------------------------------------------------------


@pytest.fixture(scope="module")
def two_splits():
    rng = np.random.default_rng(1)

    def split(n):
        labels = np.arange(n) % 3
        features = rng.normal(size=(n, 8)) + 2 * np.eye(3, 8)[labels]
        return Representation(features, labels=labels)

    return split(150), split(120)


def test_per_class_heat_map_colours_only_what_is_decided(ax, two_splits):
    result = ablate(*two_splits, reader="ridge")
    figures.plot_ablation_per_class(result, ax=ax)
    mesh = ax.collections[0]
    decided = result.per_class_q <= 0.05
    rows = np.flatnonzero(decided.any(axis=1))
    assert 0 < decided[rows].mean() < 1
    expected = np.where(decided, result.per_class, np.nan)[rows].T
    np.testing.assert_array_equal(mesh.get_array().filled(np.nan), expected)
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert ax.get_ylabel() == "class"


def test_classes_are_called_by_their_names(ax, two_splits):
    names = np.array(["cat", "dog", "eel"])
    train, test = (replace(each, labels=names[each.labels]) for each in two_splits)
    result = ablate(train, test, reader="ridge")
    figures.plot_ablation_per_class(result, ax=ax)
    assert [each.get_text() for each in ax.get_yticklabels()] == ["cat", "dog", "eel"]
    without = ablate(*two_splits, reader="ridge")
    assert without.class_names.tolist() == ["0", "1", "2"]
    np.testing.assert_array_equal(without.per_class, result.per_class)


def test_where_no_class_is_decided_a_sentence_stands_in_place_of_colours(ax, two_splits):
    result = ablate(*two_splits, reader="ridge", groups=[[6], [7]])
    figures.plot_ablation_per_class(result, ax=ax)
    assert not ax.collections
    said = "No class is shown to lose or gain without any dimension."
    assert " ".join(ax.texts[0].get_text().split()) == said


def test_decided_dimensions_are_numbered(ax, two_splits):
    result = ablate(*two_splits, reader="ridge")
    figures.plot_ablation(result, ax=ax)
    numbers = {int(text.get_text()) for text in ax.texts}
    assert numbers
    assert numbers <= {*result.needed.tolist(), *result.harmful.tolist()}


def test_cumulative_curve_is_the_frame(ax, two_splits):
    result = ablate_cumulatively(*two_splits, order="best-first")
    figures.plot_cumulative_ablation(result, ax=ax)
    frame = result.to_frame()
    np.testing.assert_allclose(ax.lines[0].get_xdata(), frame["n_removed"])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), frame["accuracy"])
    assert ax.get_xlabel() == "dimensions removed"


def test_confirmed_harm_stands_apart(ax, two_splits):
    result = confirm_harmful(*two_splits, groups=[[0, 1], [5, 6, 7]])
    figures.plot_harmful_dimensions(result, ax=ax)
    shown = np.concatenate([each.get_offsets().data for each in ax.collections])
    np.testing.assert_allclose(np.sort(shown[:, 0]), np.sort(result.importance))
    assert ax.get_yscale() == "log"


def test_random_masks_show_the_judged_gain_not_the_chosen_one(ax, two_splits):
    result = random_masks(*two_splits, drop=(0.25, 0.5), n_masks=9)
    figures.plot_masked_scores(result, ax=ax)
    judged = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(judged.get_ydata(), result.gain)


def test_titles_name_basis_and_sample(ax, two_splits):
    basis = fit_basis(two_splits[0], "pca")
    train, test = (basis.apply(each) for each in two_splits)
    test = replace(test, meta={**test.meta, "sample": "120 of 500"})
    figures.plot_ablation(ablate(train, test, reader="ridge"), ax=ax)
    title = "Leave one direction out, ridge reader, pca basis\n120 of 500"
    assert ax.get_title(loc="left") == title


# Redundancy ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(200, 9)) @ rng.normal(size=(9, 9))
    features[:, 4] = 2.0
    views = np.stack([features, features + rng.normal(size=features.shape)])
    return Representation(features, views=views, labels=np.arange(200) % 4)


def test_correlation_figure_is_the_matrix_in_cluster_order(mixed, ax):
    with pytest.warns(UserWarning, match="do not vary"):
        result = correlate(mixed, within=True, n_draws=10)
    assert figures.plot_correlation(result, ax=ax) is ax
    image = ax.images[0]
    expected = result.matrix[np.ix_(result.order, result.order)]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), expected)
    low, high = image.get_clim()
    assert low == -high  # zero is white
    assert image.get_rasterized()
    assert ax.get_xlabel() == ax.get_ylabel() == "dimensions in cluster order"
    assert "independent: " in ax.get_title(loc="left")


def test_spectrum_figure_shows_values_law_and_rank(mixed, ax):
    result = decompose(mixed)
    figures.plot_spectrum(result, ax=ax)
    values, law, rank, corrected = ax.lines
    assert corrected.get_xdata()[0] == result.corrected["effective_rank"]
    shown = result.singular_values[result.singular_values > 0]
    np.testing.assert_allclose(values.get_ydata(), shown / shown[0])
    slope = np.polyfit(np.log(law.get_xdata()), np.log(law.get_ydata()), 1)[0]
    np.testing.assert_allclose(slope, -result.power_law_exponent / 2)
    assert rank.get_xdata()[0] == result.effective_rank
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_redundancy_figure_shows_what_the_others_explain(mixed, ax):
    result = find_redundancy(mixed)
    figures.plot_redundancy(result, ax=ax)
    heights = np.concatenate([dots.get_offsets().data[:, 1] for dots in ax.collections])
    expected = np.sort(result.adjusted_r_squared[~result.dead])
    np.testing.assert_allclose(np.sort(heights), expected)
    assert "1 dead" in ax.get_title(loc="left")


def test_redundancy_without_enough_samples_is_a_sentence_that_names_the_groups(mixed, ax):
    with pytest.warns(UserWarning, match="by groups alone"):
        result = find_redundancy(mixed.take(range(8)), n_blocks=2)
    figures.plot_redundancy(result, ax=ax)
    assert not ax.collections
    assert ax.texts[0].get_text().startswith("Too few samples to say")


@pytest.mark.parametrize("reader", [None, "ridge"])
def test_subset_figure_shows_what_the_first_dimensions_keep(mixed, ax, reader):
    result = find_redundancy(mixed, reader=reader)
    figures.plot_redundancy_subset(result, ax=ax)
    line, _, point = ax.lines
    kept = result.kept_variance if reader is None else result.kept_accuracy
    np.testing.assert_allclose(line.get_ydata(), kept)
    assert point.get_xdata()[0] == len(result.subset)
    assert ax.get_title(loc="left").startswith(f"{len(result.subset)} of 9 dimensions keep 99 %")


def test_exact_copies_keep_a_colour_of_their_own_and_a_clipped_scale_says_so(mixed):
    features = mixed.features[:, [0, 1, 2, 3, 5, 6, 7]]
    copied = np.column_stack([features, 3 * features[:, 0]])
    both = (correlate(Representation(each), n_draws=0) for each in (features, copied))
    limits, labels = [], []
    for each in both:
        ax = Figure().subplots()
        figures.plot_correlation(each, ax=ax)
        limits.append(ax.images[0].get_clim()[1])
        labels.append(ax.figure.axes[1].get_ylabel())
    assert limits[0] < limits[1] == 1.0
    assert labels == [f"correlation (one colour beyond ±{limits[0]:.2g})", "correlation"]


def test_comparison_figure_shows_one_statistic(mixed, ax):
    result = compare({"a": mixed, "b": mixed.select(range(6))})
    figures.plot_comparison(result, statistic="stable_rank", ax=ax)
    column = result.statistics.index("stable_rank")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), result.corrected[:, column])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"^statistic must be one of 'effective_rank', .*'x'\.$"):
        figures.plot_comparison(result, statistic="x", ax=ax)


def test_colour_strips_are_grey_where_neighbours_agree(ax):
    rng = np.random.default_rng(2)
    same = np.repeat(rng.normal(size=(40, 1)), 3, axis=1) * [1, 5, 0.1]
    world = Representation(np.hstack([same, rng.normal(size=(40, 4))]), labels=np.arange(40) % 4)
    figures.plot_representation(world, n_rows=8, ax=ax)
    pixels = np.asarray(ax.images[0].get_array())
    assert pixels.shape == (8, 2, 3)  # the seventh dimension is left out
    assert np.ptp(pixels[:, 0], axis=1).max() < 1e-9
    assert np.ptp(pixels[:, 1], axis=1).max() > 0.2
    # two samples of each class, the first ones, in order of class
    rows = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    shown = world.features[rows, 0]
    z = (shown - shown.mean()) / shown.std()
    np.testing.assert_allclose(pixels[:, 0, 0], (np.clip(z, -2, 2) + 2) / 4)
    for arguments, message in (
        ({"n_rows": 0}, r"^n_rows must be >= 1; got 0\.$"),
        ({"representation": world.select([0, 1])}, r"at least 3 dimensions; got 2\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.plot_representation(**{"representation": world, "ax": ax} | arguments)


def test_projector_widths_show_every_run_and_the_mean(ax):
    table = pd.DataFrame(
        {"method": ["a"] * 4, "width": [8, 8, 16, 16], "accuracy": [0.5, 0.7, 0.8, 0.9]}
    )
    figures.plot_projector_widths(table, ax=ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.6, 0.85])
    points = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 1], table["accuracy"])
    figures.plot_projector_widths(table.drop(columns="method"), ax=Figure().subplots())
    with pytest.raises(ValueError, match=r"^table must have a column 'width'; got method, acc"):
        figures.plot_projector_widths(table.drop(columns="width"), ax=ax)


def test_other_tables_stand_beside_the_frame(tmp_path, mixed):
    files = write_result(tmp_path, "spectrum", decompose(mixed))
    written = pd.read_csv(files["statistics"])
    assert files["statistics"].name == "spectrum-statistics.csv"
    assert "lidar" in set(written["statistic"])
    assert files["svg"].is_file()


@pytest.mark.slow
def test_a_correlation_figure_of_2048_dimensions_is_light_and_quick(tmp_path):
    rng = np.random.default_rng(3)
    world = Representation(rng.normal(size=(2500, 2048)).astype("f4"))
    result = correlate(world, n_draws=0, n_blocks=2)
    files = write_result(tmp_path, "correlate", result)
    assert files["svg"].stat().st_size < 1_000_000


# Figures of attribution ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attribution():
    rng = np.random.default_rng(7)
    labels = np.arange(300) % 3
    x, y = rng.normal(size=(2, 300))
    features = rng.normal(size=(300, 6)) + np.outer(labels, [0, 2, 0, 1, 0, 0])
    features += np.outer(x, [2, 0, 0, 1, 0, 0])
    factors = {"x": x, "y": y, "flat": np.zeros(300)}
    split = Representation(features, labels=labels, factors=factors)
    return attribute(split, split, n_permutations=50, in_distribution=split)


def test_attribution_figure_has_a_point_a_dimension(attribution, ax):
    figures.plot_attribution(attribution, ax=ax)
    points = np.concatenate([np.asarray(each.get_offsets()) for each in ax.collections])
    expected = np.stack([attribution.label_effect, attribution.nuisance_score], axis=1)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0))
    assert ax.texts[0].get_text() == "0"  # the largest nuisance, by its index
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    leads = attribution.flagged & (attribution.leading == 0)
    assert labels[0] == f"x ({leads.sum()})"
    drawn = np.asarray(ax.collections[0].get_offsets())[:, 1]
    np.testing.assert_allclose(drawn, attribution.nuisance_score[leads])
    assert sum(int(label.split("(")[-1][:-1]) for label in labels) == len(attribution)
    assert "given the label" in ax.get_ylabel()


def test_effects_figure_shows_factors_by_dimensions(attribution, ax):
    figures.plot_attribution_effects(attribution, ax=ax)
    mesh = ax.collections[0].get_array()
    order = np.argsort(-attribution.nuisance_score, kind="stable")
    np.testing.assert_allclose(mesh[0].data, attribution.effect[order, 0])
    assert mesh.mask[2].all()  # what cannot be told from the label stays white
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "x", "y", "flat (not identifiable)",
    ]  # fmt: skip


def test_erasure_figure_shows_every_way_with_bounds_around_it(attribution, ax):
    result = attribution.erasure
    figures.plot_erasure(result, ax=ax)
    drawn = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    by_split = [*result.factor_r_squared.T, *result.accuracy.T]
    np.testing.assert_array_equal(drawn, by_split)
    for line, values in zip(ax.collections, by_split, strict=True):
        ends = np.array([segment[:, 0] for segment in line.get_segments()])
        assert (ends[:, 0] <= values + 1e-12).all()
        assert (ends[:, 1] >= values - 1e-12).all()
    lost = result.factor_lost[1, 0]  # in the way 'dimensions' on test
    np.testing.assert_allclose(
        ax.collections[0].get_segments()[1][:, 0],
        result.factor_r_squared[1, 0] + lost[0] - lost[[2, 1]],
    )
    assert ax.get_yticklabels()[0].get_text() == "nothing removed"
    assert ax.get_legend().get_texts()[0].get_text().startswith("x still found")


def test_erasure_sweep_follows_the_table(attribution, ax):
    result = attribution.erasure
    figures.plot_erasure_sweep(result, ax=ax)
    sweep = result.tables()["sweep"]
    mine = sweep[(sweep["split"] == "test") & sweep["way"].isin(["dimensions", "nothing"])]
    lines = {
        text.get_text(): line
        for text, line in zip(ax.get_legend().get_texts(), ax.lines, strict=True)
    }
    shown = lines["right classes, dimensions"]
    np.testing.assert_array_equal(np.sort(shown.get_ydata()), np.sort(mine["accuracy"].to_numpy()))
    figures.plot_erasure_sweep(
        replace(result, reader="knn", sweep={"way": np.array([])}), ax=(none := Figure().subplots())
    )
    assert "this one is knn" in " ".join(none.texts[0].get_text().split())


def test_results_within_results_are_written_too(attribution, tmp_path):
    files = write_result(tmp_path, "attribute", attribution)
    assert {path.name for path in files.values()} == {path.name for path in tmp_path.iterdir()}
    assert {"attribute-erasure.svg", "attribute-effects.svg", "attribute-effects.csv"} <= {
        path.name for path in files.values()
    }


def test_losses_are_relative_to_the_first_and_an_untrained_run_has_none(ax):
    images = digits("validation", image_size=8)
    checkpoint = untrained(TrainConfig.small(), images)
    figures.plot_checkpoint(checkpoint, ax=ax)  # and no warning that there is nothing to name
    assert ax.get_legend() is None
    metrics = ({"step": 1, "contrastive": 4.0}, {"step": 9, "contrastive": 1.0})
    other = figures.plot_checkpoint(replace(checkpoint, metrics=metrics), ax=Figure().subplots())
    np.testing.assert_array_equal(other.lines[0].get_xdata(), [1, 9])
    np.testing.assert_array_equal(other.lines[0].get_ydata(), [1.0, 0.25])
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["contrastive"]
