"""Risk bound: the inequality that is proved, the form that is inferred, and their intervals."""

from __future__ import annotations

import dataclasses
import itertools
import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.stats import kstest

import dimlab.kernels.risk
from dimlab.figures import plot_risk_bound
from dimlab.kernels.left_out import left_out_terms
from dimlab.kernels.risk import draw_negatives, risk_terms, scaled_units
from dimlab.mask import DimensionMask
from dimlab.probes.bound_risk import FIXED, SWEPT, bound_risk
from dimlab.representation import Representation
from tests import references, worlds

MASKS = ("none", "learned", "constant", "permuted", "inverted")
E = np.e


@pytest.fixture(autouse=True)
def one_thread():
    """Small products: on a busy machine two threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def world(rng, n=60, n_dimensions=5, n_classes=3, noise=0.3, labels=None, spread=1.0):
    """Classes with a centre each, and two noisy views of every sample."""
    labels = np.arange(n) % n_classes if labels is None else labels
    centres = rng.normal(size=(labels.max() + 1, n_dimensions))
    samples = centres[labels] + spread * rng.normal(size=(len(labels), n_dimensions))
    views = samples + noise * rng.normal(size=(2, *samples.shape))
    return Representation(samples, labels=labels, views=views)


def of_views(first, second, labels):
    views = np.array([first, second], dtype=np.float64)
    return Representation(views[0], labels=np.array(labels), views=views)


def quick(representation, **settings):
    return bound_risk(representation, **{"n_negatives": [3, 8], "n_bootstrap": 20} | settings)


def own(bound, term):
    """A term of the sample itself, in which every row helps to make the mean of its class."""
    return bound.of(term, bound.in_sample)


def by_reference(representation, bound, seed=0):
    n = len(representation)
    numbers = bound.n_negatives.tolist()
    negatives = draw_negatives(n, n, numbers[-1], np.random.default_rng([seed, 2]))
    return references.risk_bound_terms(
        *representation.views[:2], representation.labels, negatives, numbers, bound.temperature
    )


def assert_like_reference(bound, expected, row=0, tolerance=1e-10):
    found = {term: own(bound, term)[row] for term in FIXED}
    for term in SWEPT:
        values = own(bound, term)[row].tolist()
        found |= dict(zip(((term, m) for m in bound.n_negatives.tolist()), values, strict=True))
    assert found.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(
            found[term], value, rtol=tolerance, atol=tolerance, err_msg=str(term)
        )


def columns_of(bound):
    """Every array of the result."""
    fields = dataclasses.fields(bound)
    values = {field.name: getattr(bound, field.name) for field in fields}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


# By hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_two_samples_of_two_classes_by_hand(temperature):
    # mu_k = f_k = e_k, so V = 0 and J = 0; f.f+ = 0.6 and 1; f+_1 - mu_1 = (-0.4, 0.8), squared
    # 0.8, so V+ = 0.4. f+_1 lies nearer e_2: one of two views agrees. All products times s = 1 / t.
    s = 1 / temperature
    # Every row stands there twice, which changes no mean.
    split = of_views([[2, 0], [0, 3]] * 2, [[0.6, 0.8], [0, 5]] * 2, [7, 9] * 2)
    bound = quick(split, temperature=temperature)
    spread = np.log((np.exp(s) + 1) / 2)
    expected = {
        "cross_entropy": -s + spread,
        "nce_limit": -0.8 * s + spread,
        "jensen_gap": 0.0,
        "view_variance": 0.4 * s,
        "gap": 0.2 * s,
        "gap_bound": np.sqrt(0.4) * s,
        "class_variance": 0.0,
        "between_share": 1.0,
        "mean_cross_entropy": -s + np.log(np.exp(s) + 1),
        "width": 0.0,
        "view_agreement": 0.5,
    }
    for term, value in expected.items():
        np.testing.assert_allclose(own(bound, term)[0], value, atol=1e-14, err_msg=term)


def test_a_spread_class_has_the_variance_and_the_jensen_gap_of_its_points():
    # Class 0: (1, 0) and (-1, 0), mu_0 = 0, each 1 away: V = (1 + 1 + 0 + 0) / 4. Its anchors see
    # all means at product 0, but mean_j exp(f.f_j) = (e + 1/e + 1 + 1) / 4 = cosh(1/2)^2.
    rows = [[1, 0], [-1, 0], [0, 1], [0, 1]]
    bound = quick(of_views(rows, rows, [0, 0, 1, 1]))
    np.testing.assert_allclose(own(bound, "class_variance"), [0.5])
    np.testing.assert_allclose(own(bound, "jensen_gap"), [np.log(np.cosh(0.5))])
    np.testing.assert_allclose(own(bound, "width"), [2 * np.sqrt(0.5) + 0.25])
    # of the population: without a row, the mean of its class of two is the other row
    np.testing.assert_allclose(bound.dimension_variance, [[1.0, 0.0]], atol=1e-16)
    # total variance: 1 - |mean|^2 = 1 - 1/4
    np.testing.assert_allclose(own(bound, "between_share"), [1 - 0.5 / 0.75])


def test_equal_samples_make_every_part_of_the_inferred_form_log_m():
    # every product is 1: L_NCE(M) = -1 + log(M e), CE + log(M/K) = -1 + log(K e) + log(M/K)
    rows = np.ones((6, 3))
    bound = quick(of_views(rows, rows, [0, 1, 0, 1, 0, 1]))
    for term in SWEPT:
        np.testing.assert_allclose(own(bound, term), [np.log([3, 8])], atol=1e-12)
    assert bound.held.all()


@pytest.mark.parametrize("size", [0, 1])
def test_the_between_share_of_nothing_is_undefined(size):
    rows = np.ones((4, 3))
    bound = quick(of_views(size * rows, rows, [0, 1, 0, 1]))
    assert np.isnan(own(bound, "between_share")).all()
    assert bound.summary()["terms"]["none"]["between_share"] is None


# Against the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.05, 0.01, 5.0])
def test_every_term_is_that_of_the_definitions(rng, temperature):
    labels = np.array([4, 0, 2, 0, 0, 4, 2, 2, 0, 0, 4, 9, 9, 0, 2, 0, 0, 4, 0])
    split = world(rng, labels=labels, n_dimensions=4)
    bound = quick(split, temperature=temperature, n_negatives=[1, 2, 7, 30], seed=3)
    assert_like_reference(bound, by_reference(split, bound, seed=3))


def test_rows_of_zeros_stay_zero_and_the_inequality_holds(rng):
    split = world(rng, n=12)
    views = split.views.copy()
    views[0, 3] = views[1, 5] = 0
    views[:, 7] = 0
    split = dataclasses.replace(split, views=views)
    bound = quick(split)
    assert_like_reference(bound, by_reference(split, bound))
    assert own(bound, "gap")[0] <= own(bound, "gap_bound")[0]


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_rows_of_extreme_size_are_normalised(rng, size):
    split = world(rng, n=12)
    other = quick(dataclasses.replace(split, views=split.views * size))
    np.testing.assert_allclose(other.values, quick(split).values, rtol=1e-12, atol=1e-12)


def test_a_mask_multiplies_the_views(rng):
    split = world(rng, n=15, n_dimensions=4)
    weights = np.array([0.9, 0.2, 0.0, 0.5])
    bound = quick(split, mask=DimensionMask(weights), seed=5)
    assert bound.masks == MASKS
    permuted = np.random.default_rng(5).permutation(weights)
    for name, each in (("learned", weights), ("permuted", permuted), ("inverted", 1 - weights)):
        masked = dataclasses.replace(split, views=split.views * each)
        row = bound.masks.index(name)
        assert_like_reference(bound, by_reference(masked, bound, seed=5), row)
    assert own(bound, "class_variance")[1] != own(bound, "class_variance")[0]


def test_drawn_negatives_are_reweighted_to_first_order(rng):
    n, numbers = 9, [2, 5]
    split = world(rng, n=n)
    f, g = (scaled_units(view, np.ones(5), 0.4) for view in split.views)
    terms = risk_terms(f, g, split.labels, numbers, np.random.default_rng(1))
    drawn = draw_negatives(n, n, 5, np.random.default_rng(1))
    for counts in rng.multinomial(n, np.full(n, 1 / n), size=3):
        for row, m in enumerate(numbers):
            expected = 0.0
            for i in range(n):
                exponentials = np.exp([f[i] @ f[j] for j in drawn[i, :m]])
                expected += counts[i] * np.log(exponentials.sum()) / n
                for j, share in zip(drawn[i, :m], exponentials / exponentials.sum(), strict=True):
                    expected += (counts[j] - 1) * (share - 1 / m) / n
            np.testing.assert_allclose(terms.negatives[row] @ counts / n, expected, rtol=1e-12)


# The inequality that is proved ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_the_proved_inequality_holds_on_any_sample(seed):
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 6))
    n = int(rng.integers(n_classes, 50))
    shares = rng.dirichlet(np.full(n_classes, rng.choice([0.3, 10])))
    labels = np.concatenate([np.arange(n_classes), rng.choice(n_classes, n - n_classes, p=shares)])
    labels = np.append(labels, labels[-1])  # some class has two rows
    noise, spread = rng.choice([0.0, 0.01, 1.0, 30.0], size=2)
    split = world(rng, n_dimensions=int(rng.integers(1, 8)), noise=noise, labels=labels,
                  spread=spread)  # fmt: skip
    temperature = float(rng.choice([0.01, 0.07, 0.5, 1.0, 4.0]))
    mask = DimensionMask(rng.uniform(size=split.n_dimensions))
    bound = quick(split, temperature=temperature, mask=mask, n_bootstrap=2)
    slack = 1e-12 * max(1, 1 / temperature)
    assert (own(bound, "jensen_gap") >= -slack).all()
    assert (own(bound, "gap") <= own(bound, "gap_bound") + slack).all()


def test_classes_that_are_points_leave_no_room(rng):
    points = worlds.random_rotation(rng, 4)[:3]
    labels = np.arange(30) % 3
    bound = quick(of_views(points[labels], points[labels], labels))
    for term in ("class_variance", "view_variance", "gap", "jensen_gap"):
        np.testing.assert_allclose(own(bound, term), 0, atol=1e-14)
    np.testing.assert_allclose(own(bound, "lower"), own(bound, "upper"), atol=1e-7)
    np.testing.assert_allclose(own(bound, "nce_limit"), own(bound, "cross_entropy"), atol=1e-14)


def test_the_proved_inequality_is_sharp_where_views_leave_along_the_anchor():
    # mu_y = f = e_1, f+ = -e_1: E f.(mu_y - f+) = 2 = |f| |f+ - mu_y|
    rows = np.tile([1.0, 0.0], (4, 1))
    bound = quick(of_views(rows, -rows, [0, 1, 0, 1]), temperature=0.5)
    np.testing.assert_allclose(own(bound, "gap"), [4.0])
    np.testing.assert_allclose(own(bound, "gap_bound"), [4.0])


def test_a_program_that_breaks_the_theorem_says_so(rng, monkeypatch):
    right = dimlab.kernels.risk.risk_terms

    def wrong(*arguments, **settings):
        terms = right(*arguments, **settings)
        return dataclasses.replace(terms, view_within=terms.view_within * 0)

    monkeypatch.setattr(dimlab.kernels.risk, "risk_terms", wrong)
    message = r"^bound_risk: J = .* at most 0 with mask 'none'\. This is a theorem, so dimlab is"
    with pytest.raises(ArithmeticError, match=message):
        quick(world(rng))


# The form that is inferred -------------------------------------------------------------------


def test_a_violation_of_the_inferred_form_is_reported_and_not_raised():
    # Two classes, a point each, shares 0.9 and 0.1: V = 0, and L_NCE(M) - log M goes to
    # -1 + 0.9 log(0.9 e + 0.1) + 0.1 log(0.1 e + 0.9) = -0.14, but CE - log K = -1 + log((e+1)/2)
    # = -0.38: below the lower bound.
    labels = np.repeat([0, 1], [90, 10])
    rows = np.eye(2)[labels]
    bound = quick(of_views(rows, rows, labels), n_negatives=[4096])
    limit = -1 + 0.9 * np.log(0.9 * E + 0.1) + 0.1 * np.log(0.1 * E + 0.9)
    np.testing.assert_allclose(own(bound, "nce") - np.log(4096), [[limit]], atol=0.01)
    np.testing.assert_allclose(own(bound, "middle") - np.log(4096), [[np.log((E + 1) / 2) - 1]])
    assert not bound.held.any()
    summary = bound.summary()
    assert summary["held"] == {"none": []}
    assert any("by mask: none 0" in sentence for sentence in summary["verdict"])
    assert bound.to_frame()["held"].tolist() == [False]


def test_many_negatives_reach_the_limit_that_is_proved(rng):
    split = world(rng, n=80)
    bound = quick(split, n_negatives=[4, 4096])
    excess = own(bound, "nce")[0] - np.log([4, 4096]) - own(bound, "nce_limit")[0]
    assert abs(excess[1]) < 2e-3  # standard error of log-means: 0.5 / sqrt(80 * 4096) = 1e-3
    assert excess[0] < -0.01  # the mean of a log is below the log of the mean


def test_fewer_negatives_are_the_first_of_more(rng):
    split = world(rng)
    several = quick(split, n_negatives=(64, 5, 5))
    assert several.n_negatives.tolist() == [5, 64]
    alone = quick(split, n_negatives=64)
    np.testing.assert_allclose(own(several, "nce")[:, 1:], own(alone, "nce"), rtol=1e-14)


@pytest.mark.parametrize(
    ("counts", "balanced"),
    [([20, 20, 20], True), ([22, 20, 18], True), ([23, 20, 17], False), ([44, 8, 8], False)],
)
def test_classes_out_of_balance_are_marked(rng, counts, balanced):
    bound = quick(world(rng, labels=np.repeat(np.arange(3), counts)))
    assert bound.balanced == balanced
    start = "met: classes" if balanced else "not met: classes are equally likely (class shares run"
    assert bound.summary()["assumption"].startswith(start)


def test_every_output_says_that_the_form_is_inferred(rng):
    bound = quick(world(rng))
    assert "not its verbatim theorem" in bound.summary()["inferred"]
    assert "O(M^-1/2) term is dropped" in bound.summary()["inferred"]
    assert "not the paper's own theorem" in type(bound).rows.__doc__
    terms = bound.tables()["terms"]
    assert set(terms["term"][~terms["inferred"]]) == {*FIXED[:6], "view_agreement"}
    assert "inferred form" in plot_risk_bound(bound, ax=plt.figure().subplots()).get_title("left")
    plt.close("all")


# Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_rotation_and_a_scale_change_nothing(seed):
    rng = np.random.default_rng(seed)
    split = world(rng)
    rotation = worlds.random_rotation(rng, 5)
    scale = np.exp(rng.normal(size=(2, 60, 1)))  # of every row its own
    bound = quick(split, temperature=0.2)
    turned = quick(dataclasses.replace(split, views=split.views @ rotation * scale),
                   temperature=0.2)  # fmt: skip
    for name in ("values", "ci_low", "ci_high"):
        np.testing.assert_allclose(getattr(turned, name), getattr(bound, name), atol=1e-10)
    assert np.abs(turned.dimension_variance - bound.dimension_variance).max() > 0.01


def test_names_of_classes_change_nothing(rng):
    split = world(rng)
    other = quick(dataclasses.replace(split, labels=np.array([8, 1, 5])[split.labels]))
    np.testing.assert_allclose(other.values, quick(split).values, atol=1e-12)


def test_the_order_of_samples_changes_only_what_is_drawn(rng):
    split = world(rng)
    moved, bound = quick(split.take(rng.permutation(60))), quick(split)
    np.testing.assert_allclose(
        moved.values[:, : len(FIXED)], bound.values[:, : len(FIXED)], atol=1e-12
    )
    assert (moved.of("nce") != bound.of("nce")).all()


def test_a_constant_mask_is_no_mask_exactly(rng):
    bound = quick(world(rng), mask=DimensionMask(rng.uniform(size=5)))
    row = MASKS.index("constant")
    for name in ("values", "ci_low", "ci_high", "dimension_variance"):
        np.testing.assert_array_equal(getattr(bound, name)[row], getattr(bound, name)[0])
    for name in ("difference", "difference_low", "difference_high"):
        assert not getattr(bound, name)[[0, row]].any()
        assert getattr(bound, name)[1].any()
    sentences = bound.summary()["verdict"]
    constant = quick(world(rng), mask=DimensionMask(np.full(5, 0.3)))
    assert not constant.difference[:2].any()
    assert any("did not change" in each for each in constant.summary()["verdict"])
    assert not any("did not change" in each for each in sentences)


def test_masks_of_ones_and_of_zeros_have_controls(rng):
    bright, dark = (quick(world(rng), mask=DimensionMask(np.full(5, w))) for w in (1.0, 0.0))
    np.testing.assert_array_equal(bright.values[1], bright.values[0])
    assert (bright.of("class_variance")[4], dark.of("class_variance")[1]) == (0, 0)
    assert json.dumps(dark.summary(), allow_nan=False)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_change_nothing(rng, block):
    split = world(rng, n=64, n_classes=5)
    f, g = (scaled_units(view, np.ones(5), 0.1) for view in split.views)

    def terms(size):
        return risk_terms(f, g, split.labels, [3, 17], np.random.default_rng(4), block=size)

    expected = dataclasses.asdict(terms(None))
    for name, value in dataclasses.asdict(terms(block)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_temperature_of_a_thousandth_neither_overflows_nor_vanishes(rng):
    bound = quick(world(rng, n=40), temperature=1e-3, mask=DimensionMask(rng.uniform(size=5)))
    for name, value in columns_of(bound).items():
        assert np.isfinite(value).all(), name
    # products with itself, exp(1000), are all that is left of the mean over j
    floor = 1000 - np.log(40) - own(bound, "nce_limit")
    assert (floor < 1000).all()


def test_single_precision_views_are_measured_in_double(rng):
    split = world(rng)
    single = dataclasses.replace(split, views=split.views.astype(np.float32))
    double = dataclasses.replace(split, views=single.views.astype(np.float64))
    np.testing.assert_array_equal(quick(single).values, quick(double).values)


# Intervals -----------------------------------------------------------------------------------


@pytest.mark.long
def test_intervals_cover_what_other_samples_give():
    n, wanted = 120, ["cross_entropy", "nce_limit", "jensen_gap", "class_variance", "width"]
    mask = DimensionMask(np.array([1.0, 1.0, 0.2]))
    centres = np.random.default_rng(9).normal(size=(3, 3))

    def measured(seed, n_bootstrap):
        rng = np.random.default_rng(seed)
        labels = rng.integers(3, size=n)
        samples = centres[labels] + rng.normal(size=(n, 3))
        views = samples + 0.3 * rng.normal(size=(2, n, 3))
        split = Representation(samples, labels=labels, views=views)
        return bound_risk(split, mask=mask, n_negatives=16, n_bootstrap=n_bootstrap, seed=seed)

    bounds = [measured(1000 + seed, 100) for seed in range(60)]
    many = np.mean([measured(seed, 2).values for seed in range(250)], axis=0)
    low, high = (np.stack([getattr(b, name) for b in bounds]) for name in ("ci_low", "ci_high"))
    covered = ((low <= many) & (many <= high)).mean(axis=0)
    columns = [bounds[0].terms.index(term) for term in [*wanted, "nce", "lower", "upper"]]
    # 60 samples at 95 %: below 0.84 happens once in 2000 times
    assert covered[:2, columns].min() >= 0.84, covered[:2, columns]
    assert covered[:2, columns].mean() <= 0.985
    low, high = (
        np.stack([getattr(b, f"difference_{name}")[1] for b in bounds]) for name in ("low", "high")
    )
    covered = ((low <= many[1] - many[0]) & (many[1] - many[0] <= high)).mean(axis=0)
    assert covered[columns].min() >= 0.84, covered[columns]


def test_draws_are_moved_because_resampling_shrinks_classes(rng):
    # five samples a class: a draw's V is some 20 % below the sample's, beyond its spread
    labels = np.arange(200) % 40
    split = world(rng, labels=labels)
    bound = quick(split, n_bootstrap=100)
    column = bound.terms.index("class_variance")
    assert bound.ci_low[0, column] < bound.of("class_variance")[0] < bound.ci_high[0, column]


def test_more_samples_narrow_the_intervals(rng):
    few, many = (quick(world(rng, n=n), n_bootstrap=100) for n in (60, 960))
    column = few.terms.index("class_variance")
    ratio = (few.ci_high - few.ci_low)[0, column] / (many.ci_high - many.ci_low)[0, column]
    assert 2 < ratio < 8  # 4, give or take


def test_paired_differences_are_narrower_than_two_intervals(rng):
    bound = quick(world(rng, n=300), mask=DimensionMask([1, 1, 1, 1, 0.9]), n_bootstrap=100)
    column = bound.terms.index("class_variance")
    paired = (bound.difference_high - bound.difference_low)[1, column]
    assert paired < 0.5 * (bound.ci_high - bound.ci_low)[1, column]
    np.testing.assert_allclose(bound.difference[1], bound.values[1] - bound.values[0])
    np.testing.assert_allclose(bound.learned_difference[0], bound.difference[1])
    np.testing.assert_allclose(bound.learned_low[0], bound.difference_low[1])
    assert not bound.learned_high[1].any()


def test_negatives_drawn_in_blocks_are_those_drawn_at_once():
    whole = draw_negatives(20, 7, 5, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    blocks = [draw_negatives(rows, 7, 5, rng) for rows in (3, 1, 16)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert set(whole.ravel().tolist()) == set(range(7))


def test_the_seed_decides_everything(rng):
    split, mask = world(rng), DimensionMask(rng.uniform(size=5))
    first, again, other = (quick(split, mask=mask, seed=seed) for seed in (1, 1, 2))
    for name, value in columns_of(first).items():
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)
    assert (first.of("nce")[0] != other.of("nce")[0]).all()
    assert (first.ci_low[0] != other.ci_low[0]).sum() > 10


# The population ------------------------------------------------------------------------------


def test_a_row_is_left_out_of_the_means_that_it_is_compared_with(rng):
    """Against loops over rows: class means and mean exponentials without each row's cluster."""
    labels = np.array([0, 0, 1, 1, 1, 0, 2, 2, 0, 1, 0, 2])
    clusters = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7])
    split = world(rng, labels=labels, n_dimensions=4)
    for ids in (None, clusters):
        f, g = (scaled_units(view, np.ones(4), 0.5) for view in split.views)
        found = left_out_terms(f, g, labels, ids)
        units = np.arange(12) if ids is None else ids
        own, priors, means = [], [], []
        for i in range(12):
            others = units != units[i]
            logits, exponentials, weights = [], [], []
            for k in range(3):
                rows = others & (labels == k)
                sizes = [np.sum(rows & (units == c)) for c in np.unique(units[rows])]
                for values, into in ((f @ f[i], logits), (np.exp(f @ f[i]), exponentials)):
                    apart = values[rows] - values[rows].mean()
                    sums = np.array([apart[units[rows] == c].sum() for c in np.unique(units[rows])])
                    n = len(sizes)
                    variance = (sums**2).sum() / rows.sum() ** 2 * n / (n - 1) if n > 1 else 0.0
                    into.append((values[rows].mean(), variance))
                weights.append((labels == k).mean())
            own.append(logits[labels[i]][0])
            mean, variance = np.array(logits).T
            softmax = weights * np.exp(mean) / (weights @ np.exp(mean))
            priors.append(np.log(weights @ np.exp(mean)) - softmax * (1 - softmax) @ variance / 2)
            mean, variance = np.array(exponentials).T
            whole = np.dot(weights, mean)
            means.append(np.log(whole) + np.square(weights) @ variance / whole**2 / 2)
        expected = {
            "own": np.mean(own), "log_prior": np.mean(priors), "log_mean": np.mean(means),
            "pair": np.mean((f * g).sum(axis=1)),
            "within": np.mean((f * f).sum(axis=1) - own),
        }  # fmt: skip
        for name, value in expected.items():
            np.testing.assert_allclose(found.values[name], value, rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(found.within_dimensions.sum(), found.values["within"])


def test_squared_distances_are_unbiased_in_small_classes():
    """Means over all samples of three rows of a class from four: the distance of the four."""
    rows = np.random.default_rng(0).normal(size=(6, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    within = []
    for pick in itertools.product(range(3), repeat=3):  # three draws of each of two classes of 3
        for other in itertools.product(range(3, 6), repeat=3):
            f = rows[[*pick, *other]]
            found = left_out_terms(f, f, np.repeat([0, 1], 3), None).values
            within.append(1 - found["own"])
    expected = np.mean(
        [1 - np.sum(rows[:3].mean(axis=0) ** 2), 1 - np.sum(rows[3:].mean(axis=0) ** 2)]
    )
    np.testing.assert_allclose(np.mean(within), expected, rtol=1e-12)


def test_influences_are_what_a_little_more_weight_of_a_row_adds():
    """Many rows: a row that is there once more moves a value by its influence over N."""
    rng = np.random.default_rng(3)
    split = world(rng, n=240)
    f, g = (scaled_units(view, np.ones(5), 0.5) for view in split.views)
    found = left_out_terms(f, g, split.labels, None)
    for name in (
        "own",
        "pair",
        "log_mean",
        "log_prior",
        "log_uniform",
        "within",
        "total",
        "view_within",
    ):
        jackknifed = []
        for i in range(60):
            rest = np.delete(np.arange(240), i)
            value = left_out_terms(f[rest], g[rest], split.labels[rest], None).values[name]
            jackknifed.append(239 * (found.values[name] - value))
        assert np.corrcoef(jackknifed, found.influence[name][:60])[0, 1] > 0.98, name
        ratio = np.std(found.influence[name][:60]) / np.std(jackknifed)
        np.testing.assert_allclose(ratio, 1, atol=0.15, err_msg=name)


def population(rng, n_rows, n_dimensions, per_cluster=1):
    """Ten classes; rows of a cluster share half of what they differ by."""
    centres = np.random.default_rng(5).normal(size=(10, n_dimensions)) * 0.7
    labels = np.repeat(np.arange(10), n_rows)
    clusters = np.arange(len(labels)) // per_cluster
    shared = rng.normal(size=(clusters.max() + 1, n_dimensions))[clusters]
    samples = centres[labels] + np.sqrt(0.5) * shared
    samples += np.sqrt(0.5) * rng.normal(size=samples.shape)
    views = samples + 0.3 * rng.normal(size=(2, *samples.shape))
    return Representation(samples, labels=labels, views=views), clusters


COVERED = (
    "cross_entropy", "nce_limit", "jensen_gap", "view_variance", "class_variance",
    "between_share", "mean_cross_entropy", "width", "nce", "lower", "middle", "upper",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("n_rows", "per_cluster"), [(10, 1), (20, 1), (10, 2)])
def test_intervals_cover_the_population_with_few_rows_a_class(n_rows, per_cluster):
    settings = {"n_negatives": [16], "n_bootstrap": 100}
    large, _ = population(np.random.default_rng(1), 300, 16)
    truth = bound_risk(large, **(settings | {"n_bootstrap": 2})).values[0]
    covered = []
    for seed in range(60):
        split, clusters = population(np.random.default_rng(seed), n_rows, 16, per_cluster)
        found = bound_risk(split, clusters=clusters, seed=seed, **settings)
        covered.append((found.ci_low[0] <= truth) & (truth <= found.ci_high[0]))
        assert ((found.ci_low <= found.values) & (found.values <= found.ci_high)).all()
    columns = [found.terms.index(term) for term in COVERED]
    # 60 samples at 95 %: below 0.84 happens once in 2000 times
    assert np.mean(covered, axis=0)[columns].min() >= 0.84
    assert np.mean(covered, axis=0)[columns].mean() >= 0.93


def test_copies_are_no_further_samples_where_they_are_clusters(rng):
    split = world(rng, n=60)
    copied = split.take(np.repeat(np.arange(60), 4))
    alone, four = quick(split), quick(copied, clusters=np.repeat(np.arange(60), 4))
    columns = [
        alone.terms.index(term) for term in ("cross_entropy", "class_variance", "jensen_gap")
    ]
    for name in ("values", "ci_low", "ci_high"):
        np.testing.assert_allclose(
            getattr(four, name)[0, columns], getattr(alone, name)[0, columns], rtol=1e-9
        )
    assert (four.n_clusters, four.n_samples) == (60, 240)
    assert four.caution == ""
    assert "clusters=" in quick(copied).summary()["caution"]


def test_a_class_of_one_row_is_left_out_and_said(rng):
    split = world(rng, labels=np.append(np.arange(30) % 3, 3))
    found = quick(split)
    assert found.n_estimated == 30
    assert "1 of 31 rows are left out" in found.summary()["intervals"]
    assert np.isfinite(found.values).all()
    with pytest.raises(ValueError, match=r"^labels must have a class of at least two samples; got"):
        quick(world(rng, labels=np.arange(5)))
    with pytest.raises(
        ValueError, match=r"^labels must have a class of at least two clusters; got"
    ):
        quick(split, clusters=np.append(np.arange(30) % 3, 3))


# The result ----------------------------------------------------------------------------------


def signal_and_noise(rng, n_dimensions=6):
    """The class is in the first two dimensions, the rest is noise that views share."""
    labels = np.arange(300) % 4
    centres = np.zeros((4, n_dimensions))
    centres[:, :2] = [[3, 0], [-3, 0], [0, 3], [0, -3]]
    return world_of(rng, centres[labels], labels)


def world_of(rng, centres, labels):
    samples = centres + rng.normal(size=centres.shape)
    views = samples + 0.2 * rng.normal(size=(2, *samples.shape))
    return Representation(samples, labels=labels, views=views, meta={"sample": "half of test"})


def test_the_verdict_is_yes_for_a_mask_that_keeps_the_signal(rng):
    mask = DimensionMask([1.0] * 2 + [0.2] * 10)
    bound = quick(signal_and_noise(rng, 12), mask=mask)
    verdict = bound.summary()["verdict"]
    assert bound.p_value("class_variance") <= 0.05
    for start in (
        "The class variance V fell under the mask: ",
        "The width of the inferred bounds",
        "The risk itself, CE_p, fell under the mask: ",
        "V under the learned mask is lower than under 9",
        "CE_p under the learned mask is lower than under the inverted one: ",
    ):
        assert any(sentence.startswith(start) for sentence in verdict), start
    assert "tighter under the mask, more so than under the controls" in verdict[-1]
    assert verdict[-1].endswith("and the risk itself fell.")
    assert "the loss that they are drawn around rose" in verdict[-1]


def test_permuted_masks_have_the_terms_of_the_probe(rng):
    world, mask = signal_and_noise(rng), DimensionMask([1, 0.9, 0.5, 0.3, 0.2, 0.1])
    bound = quick(world, mask=mask, n_permuted=3, temperature=0.5, seed=4)
    draws = np.random.default_rng([4, 3])
    for place in range(3):
        other = quick(world, mask=mask.permuted(draws), temperature=0.5)
        row = other.masks.index("learned")
        found = bound.permuted_variance[place], bound.permuted_cross_entropy[place]
        expected = own(other, "class_variance")[row], own(other, "cross_entropy")[row]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.long
def test_masks_that_know_nothing_stand_anywhere_among_their_permutations():
    """A random mask is exchangeable with its permutations: p-values are uniform."""
    p, special = [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        mask = DimensionMask(rng.uniform(0.2, 0.8, size=12))
        bound = quick(signal_and_noise(rng, 12), mask=mask, n_bootstrap=2, seed=seed)
        p.append(bound.p_value("class_variance"))
        special += "more so than under the controls" in bound.summary()["verdict"][-1]
    assert kstest(p, "uniform").pvalue > 0.01
    assert special <= 40 * 0.05 + 2.5 * np.sqrt(40 * 0.05 * 0.95)


def test_the_upper_bound_holds_at_low_temperatures_where_views_agree():
    """With f+ = f and many dimensions all that is left is |f| sqrt(V): scaled wrongly, it fails."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 1000))
    views = np.stack([features, features])
    split = Representation(features, labels=np.arange(60) % 3, views=views)
    for temperature in (1.0, 0.5, 0.2):
        bound = quick(split, temperature=temperature, n_negatives=[4096])
        assert own(bound, "middle")[0, 0] <= own(bound, "upper")[0, 0]


def test_the_verdict_is_no_for_a_mask_that_keeps_the_noise(rng):
    bound = quick(signal_and_noise(rng), mask=DimensionMask([0.2, 0.2, 1, 1, 1, 1]))
    verdict = bound.summary()["verdict"]
    assert any(each.startswith("The class variance V rose under the mask") for each in verdict)
    assert any(each.startswith("The risk itself, CE_p, rose") for each in verdict)
    assert verdict[-1] == "So the inferred bounds are not shown to be tighter under the mask."


def test_a_smaller_variance_with_a_larger_risk_is_no_good_news(rng):
    # a loud common direction makes all rows alike: V falls, and with it what tells classes apart
    labels = np.arange(300) % 4
    centres = np.zeros((4, 6))
    centres[:, :2] = [[3, 0], [-3, 0], [0, 3], [0, -3]]
    centres[:, 5] = 8
    split = world_of(rng, centres[labels], labels)
    bound = quick(split, mask=DimensionMask([0.1, 0.1, 0.1, 0.1, 0.1, 1.0]))
    verdict = bound.summary()["verdict"]
    assert any(each.startswith("The class variance V fell") for each in verdict)
    assert any(each.startswith("The risk itself, CE_p, rose") for each in verdict)
    assert verdict[-1].endswith("but they bound another risk, and that is not shown to be smaller.")


def test_without_a_mask_there_is_nothing_to_compare(rng):
    bound = quick(world(rng))
    assert bound.masks == ("none",)
    assert bound.summary()["verdict"][-1] == "No mask was given, so there is nothing to compare."
    assert list(bound.tables()) == ["terms", "dimensions"]
    assert np.isnan(bound.learned_difference).all()


def test_frame_and_tables_hold_every_term(rng):
    bound = quick(world(rng), mask=DimensionMask(rng.uniform(size=5)))
    frame = bound.to_frame()
    assert frame["mask"].tolist() == np.repeat(MASKS, 2).tolist()
    assert frame["n_negatives"].tolist() == [3, 8] * 5
    for term in SWEPT:
        np.testing.assert_array_equal(frame[term], bound.of(term).ravel())
        np.testing.assert_array_equal(
            frame[f"{term}_ci_high"], bound.of(term, bound.ci_high).ravel()
        )
    np.testing.assert_array_equal(frame["width"], np.repeat(bound.of("width"), 2))
    np.testing.assert_allclose(frame["upper"] - frame["lower"], frame["width"])
    held = (frame["lower"] <= frame["middle"]) & (frame["middle"] <= frame["upper"])
    np.testing.assert_array_equal(frame["held"], held)
    tables = bound.tables()
    terms = tables["terms"].set_index(["mask", "term"])
    assert len(terms) == 5 * (len(FIXED) + 2 * len(SWEPT))
    assert (
        terms.loc[("inverted", "class_variance"), "value"].item() == (bound.of("class_variance")[4])
    )
    assert terms.loc[("none", "nce"), "n_negatives"].tolist() == [3, 8]
    assert terms["n_negatives"].isna().sum() == 5 * len(FIXED)
    assert (terms["ci_low"] <= terms["ci_high"]).all()
    within = tables["dimensions"].groupby("mask", sort=False)["class_variance"].sum()
    np.testing.assert_allclose(within, bound.of("class_variance"))
    assert set(tables["controls"]["mask"]) == {*MASKS} - {"learned"}


def test_the_summary_is_json(rng):
    bound = bound_risk(signal_and_noise(rng), mask=DimensionMask(rng.uniform(size=6)))
    summary = json.loads(json.dumps(bound.summary(), allow_nan=False))
    assert summary["n_negatives"] == [16, 64, 256, 1024, 4096]
    assert list(summary["risk"]["cross_entropy"]) == list(MASKS)
    assert summary["risk"]["cross_entropy"]["learned"] == bound.of("cross_entropy")[1]
    assert summary["terms"]["permuted"]["width"] == bound.of("width")[3]
    sizes = [summary[name] for name in ("n_samples", "n_dimensions", "n_classes", "n_views")]
    assert sizes == [300, 6, 4, 2]
    assert (summary["basis"], summary["sample"]) == ("axes", "half of test")
    assert summary["temperature"] == 1.0


def test_progress_is_reported_to_the_end(rng):
    seen = []
    mask = DimensionMask(rng.uniform(size=5))
    quick(world(rng), mask=mask, progress=lambda *step: seen.append(step))
    assert seen == [(60 * done, 240) for done in (1, 2, 3, 4)]  # a constant mask is no mask


@pytest.mark.parametrize("masked", [True, False])
def test_the_figure_shows_the_frame(rng, masked):
    mask = DimensionMask(rng.uniform(size=5)) if masked else None
    bound = quick(world(rng), mask=mask, n_negatives=[2, 16, 128])
    middle = bound.values.copy()
    middle[0, bound.terms.index("middle")] += 9  # outside at the smallest M
    bound = dataclasses.replace(bound, values=middle)
    ax = plot_risk_bound(bound, ax=plt.figure().subplots())
    frame = bound.to_frame().set_index("mask")
    log_m = np.log([2, 16, 128])
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    words = {"none": "risk, no mask"}
    if masked:
        words |= {name: f"risk, {name} mask" for name in ("learned", "permuted", "inverted")}
    assert {label for label in lines if not label.startswith("_")} == set(words.values())
    for name, label in words.items():
        np.testing.assert_allclose(lines[label], frame.loc[name, "middle"] - log_m)
    bands = [each for each in ax.collections if str(each.get_label()).startswith("between")]
    for band, name in zip(bands, ["none", "learned"][: 1 + masked], strict=True):
        corners = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose(corners.min(), (frame.loc[name, "lower"] - log_m).min())
        np.testing.assert_allclose(corners.max(), (frame.loc[name, "upper"] - log_m).max())
    open_marks = [each for each in ax.collections if each.get_label() == "outside the bounds"]
    assert len(open_marks) == 1
    assert ax.get_title("left").startswith("Risk bound, inferred form")
    plt.close("all")


# Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_negatives": 0}, r"^n_negatives must be an integer >= 1, or at least one of .*; got 0"),
        ({"n_negatives": []}, r"^n_negatives must be an integer >= 1, .*; got \[\]\.$"),
        ({"n_negatives": [2.5]}, r"^n_negatives must be an integer >= 1, .*; got \[2\.5\]\.$"),
        ({"n_negatives": "16"}, r"^n_negatives must be an integer >= 1, .*; got '16'\.$"),
        ({"temperature": 0}, r"^temperature must lie in \[1e-06, 1e\+06\]; got 0\.$"),
        ({"temperature": np.nan}, r"^temperature must lie in .*; got nan\.$"),
        ({"n_bootstrap": 1}, r"^n_bootstrap must be an integer >= 2; got 1\.$"),
        ({"n_bootstrap": 2.5}, r"^n_bootstrap must be an integer >= 2; got 2\.5\.$"),
        ({"seed": -1}, r"^seed must be an integer >= 0; got -1\.$"),
        (
            {"mask": DimensionMask(np.ones(3))},
            r"^mask must have 5 weights to match features; got 3",
        ),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(rng, arguments, message):
    with pytest.raises(ValueError, match=message):
        bound_risk(world(rng), **arguments)


def test_unusable_representations_are_refused(rng):
    split = world(rng)
    with pytest.raises(ValueError, match=r"^bound_risk needs labels: build the Representation wi"):
        bound_risk(dataclasses.replace(split, labels=None))
    for views in (None, split.views[:1]):
        with pytest.raises(ValueError, match=r"^bound_risk needs two views .*encode\(\.\.\., n_vi"):
            bound_risk(dataclasses.replace(split, views=views))
    alone = dataclasses.replace(split, labels=np.full(60, 4))
    with pytest.raises(ValueError, match=r"^labels must have at least 2 classes; got class 4 alo"):
        bound_risk(alone)


def test_an_unknown_term_is_refused(rng):
    with pytest.raises(ValueError, match=r"^term must be one of 'cross_entropy', .*; got 'risk'"):
        quick(world(rng)).of("risk")
