"""Mask evolution: movement, order, entropy, and what the final weights go with."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.stats import kstest, rankdata, spearmanr
from scipy.stats import t as student

from dimlab import figures
from dimlab.figures import house
from dimlab.mask import DimensionMask, MaskTrace
from dimlab.probes._links import MaskLink, _inverted, _redraws, _spearman
from dimlab.probes.ablate import ablate
from dimlab.probes.attribute import attribute
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.follow import follow
from dimlab.representation import Representation

FEW = {"n_bootstrap": 200, "n_permutations": 199}
SIGNS = {"importance": 1, "redundancy": -1, "nuisance": -1}
ARGUMENT = {"importance": "ablation", "redundancy": "redundancy", "nuisance": "attribution"}
MASKS = ["learned", "constant", "random", "permuted", "inverted"]


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    labels, brightness = rng.integers(0, 2, 80), rng.normal(size=80)
    features = rng.normal(size=(80, 6))
    features[:, 0] += 3 * labels
    features[:, 1] += 3 * brightness
    features[:, 2] = features[:, 3] + 0.1 * rng.normal(size=80)
    return Representation(features, labels=labels, factors={"brightness": brightness})


@pytest.fixture(scope="module")
def real(split):
    """One result of each kind, of the probes themselves."""
    return {
        "ablation": ablate(split, split, reader="ridge"),
        "redundancy": find_redundancy(split),
    }


@dataclass(frozen=True)
class Nuisance:
    """As much of an attribution as a mask is compared with."""

    nuisance_score: np.ndarray
    dead: np.ndarray
    basis: str = "axes"

    @property
    def n_dimensions(self):
        return len(self.dead)


@pytest.fixture
def results(real):
    """Results of each kind with planted numbers, NaN where a dimension is dead."""

    def make(**values):
        made = {}
        for name, planted in values.items():
            planted = np.asarray(planted, dtype=np.float64)
            dead, size = np.isnan(planted), len(planted)
            if name == "importance":
                made["ablation"] = replace(
                    real["ablation"],
                    importance=planted,
                    groups=tuple(np.arange(size)[:, None]),
                    n_dimensions=size,
                )
            elif name == "redundancy":
                made["redundancy"] = replace(
                    real["redundancy"],
                    r_squared=planted,
                    dead=dead,
                    group=np.arange(size),
                )
            else:
                made["attribution"] = Nuisance(planted, dead)
        return made

    return make


def trace_to(final, start=0.5):
    final = np.asarray(final, dtype=np.float64)
    return MaskTrace(np.array([0, 10]), np.stack([np.full(len(final), start), final]))


def link_of(evolution, name, mask="learned"):
    return next(each for each in evolution.links if (each.link, each.mask) == (name, mask))


def numbers(link):
    return [link.correlation, link.ci_low, link.ci_high, link.p_value]


# Eighths, so that every difference is exact.
HAND = MaskTrace(np.array([0, 10, 20]), np.array([[4, 4, 4], [6, 7, 3], [7, 6, 1]]) / 8)


def test_movement_by_hand():
    evolution = follow(HAND)
    np.testing.assert_array_equal(evolution.change, np.array([3, 2, -3]) / 8)
    # |6-4| + |7-6|, |7-4| + |6-7|, |3-4| + |1-3|
    np.testing.assert_array_equal(evolution.path, np.array([3, 4, 3]) / 8)
    np.testing.assert_array_equal(evolution.movers, [0, 2, 1])
    np.testing.assert_array_equal(evolution.final_rank, [1, 2, 3])
    # sorted final weights 1, 6, 7: quantile q lies at place 2 q between them
    expected = np.array([1, 1.5, 3.5, 6, 6.5, 6.9, 7]) / 8
    np.testing.assert_allclose(evolution.quantiles[2], expected)
    np.testing.assert_array_equal(evolution.quantiles[0], np.full(7, 0.5))


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        # deviations from the end in eighths: 3 2 3, then 1 1 2, then 0; the largest is 3
        (0.1, [20, 20, 20]),  # 0.3
        (0.4, [10, 10, 20]),  # 1.2
        (0.7, [10, 0, 10]),  # 2.1
        (0.0, [20, 20, 20]),
    ],
)
def test_settled_by_hand(tolerance, expected):
    np.testing.assert_array_equal(follow(HAND, tolerance=tolerance).settled, expected)


def test_a_weight_that_leaves_again_has_not_settled():
    weights = np.array([[0.5, 0.0], [1.0, 0.5], [0.0, 0.5], [1.0, 0.5], [1.0, 0.5]])
    settled = follow(MaskTrace(np.array([0, 2, 5, 9, 11]), weights)).settled
    np.testing.assert_array_equal(settled, [9, 2])


def test_rank_stability_and_entropy_by_hand():
    evolution = follow(HAND)
    # 6 7 3 against 7 6 1: the first pair is in the other order, two pairs are in the same
    np.testing.assert_allclose(evolution.rank_stability, [np.nan, 1 / 3, 1])
    # shares of 7, 6, 1 eighths: 1/2, 3/7, 1/14
    last = np.log(2) / 2 + 3 / 7 * np.log(7 / 3) + np.log(14) / 14
    np.testing.assert_allclose(evolution.entropy[[0, 2]], [np.log(3), last])
    np.testing.assert_allclose(evolution.effective_number[2], np.exp(last))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_weights_count_as_many_as_they_are(n):
    evolution = follow(trace_to(np.full(n, 0.25)))
    np.testing.assert_allclose(evolution.effective_number, n)
    assert np.isnan(evolution.rank_stability).all()


def test_one_weight_counts_as_one_and_none_as_nothing():
    evolution = follow(MaskTrace(np.arange(2), np.array([[0.0, 0.3, 0.0], [0.0, 0.0, 0.0]])))
    np.testing.assert_array_equal(evolution.effective_number, [1, np.nan])
    assert evolution.summary()["entropy_end"] is None


def tau_by_counting(a, b):
    concordant = discordant = untied_a = untied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        product = (a[i] - a[j]) * (b[i] - b[j])
        concordant += product > 0
        discordant += product < 0
        untied_a += a[i] != a[j]
        untied_b += b[i] != b[j]
    return (concordant - discordant) / np.sqrt(untied_a * untied_b)


def spearman_by_counting(a, b):
    ranks = [
        [sum(other < x for other in v) + (sum(other == x for other in v) + 1) / 2 for x in v]
        for v in (a, b)
    ]
    return np.corrcoef(ranks)[0, 1]


@pytest.mark.parametrize("size", [2, 3, 11, 40])
def test_rank_stability_is_tau_b(rng, size):
    weights = np.floor(5 * rng.random((6, size))) / 8  # with ties
    weights[:, 0], weights[:, 1] = 0.0, 1.0  # never all equal
    expected = [tau_by_counting(row, weights[-1]) for row in weights]
    np.testing.assert_allclose(follow(MaskTrace(np.arange(6), weights)).rank_stability, expected)


@pytest.mark.parametrize("levels", [3, 10**6])
def test_links_are_spearmans_correlations(rng, results, levels):
    final, values = np.floor(levels * rng.random((2, 30))) / levels
    evolution = follow(trace_to(final), **results(importance=values), **FEW)
    found = link_of(evolution, "importance").correlation
    assert found == pytest.approx(spearman_by_counting(final, values))
    assert found == pytest.approx(spearmanr(final, values).statistic)


def test_resampled_correlations_are_those_of_repeated_dimensions(rng):
    a, b = np.sort(np.floor(6 * rng.random(20))), np.floor(4 * rng.random(20))
    counts = rng.multinomial(20, np.full(20, 1 / 20), size=30)
    expected = [spearmanr(np.repeat(a, c), np.repeat(b, c)).statistic for c in counts]
    np.testing.assert_allclose(_spearman(a, b, counts), expected)


def test_random_masks_are_drawn_from_the_values_and_ranked_anew(rng):
    weights = np.array([0.1, 0.1, 0.5, 0.8, 0.9])
    ranks = np.concatenate(list(_redraws(weights, 4000, rng)))
    values = weights[np.random.default_rng(0).integers(5, size=(4000, 5))]
    np.testing.assert_allclose(ranks, rankdata(values, axis=1) - 3)


@pytest.mark.parametrize(("name", "sign"), SIGNS.items())
@pytest.mark.parametrize(("claimed", "verdict"), [(True, "agrees"), (False, "contradicts")])
def test_a_monotone_mask_is_found_on_either_side(rng, results, name, sign, claimed, verdict):
    values = rng.normal(size=40)
    direction = sign if claimed else -sign
    final = 1 / (1 + np.exp(-3 * direction * values))
    evolution = follow(trace_to(final), **results(**{name: values}), **FEW)
    learned, inverted = (link_of(evolution, name, mask) for mask in ("learned", "inverted"))
    assert learned.correlation == pytest.approx(direction)
    assert learned.verdict == verdict
    assert learned.expected_sign == sign
    assert learned.p_value == 1 / 200  # no permutation comes near
    assert learned.n_dimensions == 40
    # an interval all the same: from half a step short of 1, with the standard error at 1
    near = np.arctanh(1 - 6 / (40**3 - 40)) - student.ppf(0.975, 38) * np.sqrt(1.5 / 37)
    bounds = np.sort(np.abs([learned.ci_low, learned.ci_high]))
    np.testing.assert_allclose(1 - bounds, [1 - np.tanh(near), 0], atol=1e-12)
    assert learned.ci_low <= learned.correlation <= learned.ci_high
    assert inverted.verdict == {"agrees": "contradicts", "contradicts": "agrees"}[verdict]
    assert evolution.verdicts == {name: verdict}
    for mask in ("random", "permuted"):
        assert link_of(evolution, name, mask).verdict == "undecided"


def test_the_inverted_mask_has_exactly_the_opposite_correlation(rng, results):
    evolution = follow(trace_to(rng.random(50)), **results(importance=rng.normal(size=50)), **FEW)
    learned, inverted = (link_of(evolution, "importance", m) for m in ("learned", "inverted"))
    flipped = [-learned.correlation, -learned.ci_high, -learned.ci_low, learned.p_value]
    np.testing.assert_allclose(numbers(inverted), flipped, rtol=1e-12)


def test_inverting_equal_weights_keeps_the_values(rng):
    weights = np.array([0.0, 0.0, 0.0, 0.4, 0.4, 0.9])
    drawn = np.stack([_inverted(weights, rng) for _ in range(200)])
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(weights, (200, 1)))
    np.testing.assert_array_equal(drawn[:, 5], np.zeros(200))
    np.testing.assert_allclose(drawn[:, :3].mean(axis=0), np.full(3, 1.7 / 3), atol=0.05)


def test_independent_p_values_are_uniform(results):
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        given = results(importance=np.round(rng.normal(size=30), 1))
        evolution = follow(
            trace_to(rng.random(30)), **given, seed=seed, n_bootstrap=2, n_permutations=199
        )
        found.append(link_of(evolution, "importance").p_value)
    assert kstest(found, "uniform").pvalue > 0.01


def test_the_p_value_is_the_share_of_all_orders(results):
    final, values = np.array([0.1, 0.3, 0.2, 0.9, 0.6]), np.array([1.0, 2.0, 2.0, 5.0, 4.0])
    all_orders = [
        abs(spearman_by_counting(final, values[list(order)]))
        for order in itertools.permutations(range(5))
    ]
    exact = np.mean(np.array(all_orders) >= abs(spearman_by_counting(final, values)) - 1e-12)
    evolution = follow(trace_to(final), **results(importance=values), n_permutations=20_000)
    assert link_of(evolution, "importance").p_value == pytest.approx(exact, abs=0.007)


def test_intervals_cover_the_true_correlation(results):
    true, hits = 6 / np.pi * np.arcsin(0.6 / 2), []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a, e = rng.normal(size=(2, 32))
        given = results(importance=0.6 * a + 0.8 * e)
        evolution = follow(
            trace_to(1 / (1 + np.exp(-a))), **given, seed=seed, n_bootstrap=200, n_permutations=1
        )
        link = link_of(evolution, "importance")
        hits.append(link.ci_low <= true <= link.ci_high)
    assert 0.92 < np.mean(hits) < 0.99


def test_controls_have_the_band_of_the_null(rng, results):
    evolution = follow(trace_to(rng.random(101)), **results(importance=rng.normal(size=101)))
    for mask in ("random", "permuted"):  # without ties the null's variance is 1 / (D - 1)
        link = link_of(evolution, "importance", mask)
        np.testing.assert_allclose(link.correlation, 0, atol=0.004)
        np.testing.assert_allclose([-link.ci_low, link.ci_high], 0.196, rtol=0.05)
        assert np.isnan(link.p_value)
    constant = link_of(evolution, "importance", "constant")
    assert constant.verdict == "undefined"
    assert np.isnan(numbers(constant)).all()
    assert [link.mask for link in evolution.links] == MASKS


def test_numbering_of_dimensions_does_not_matter(rng, results):
    weights = np.round(rng.random((5, 24)), 1)  # with ties
    weights[0] = 0.5
    values = {"importance": np.round(rng.normal(size=24), 1), "redundancy": rng.random(24)}
    values["redundancy"][:4] = np.nan
    order, steps = rng.permutation(24), np.arange(5)
    one = follow(MaskTrace(steps, weights), **results(**values), **FEW)
    moved = {name: value[order] for name, value in values.items()}
    two = follow(MaskTrace(steps, weights[:, order]), **results(**moved), **FEW)
    assert repr(one.links) == repr(two.links)
    for name in ("change", "path", "settled"):
        np.testing.assert_array_equal(getattr(one, name)[order], getattr(two, name))
    for name in ("quantiles", "rank_stability", "entropy"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name))


def test_only_the_order_of_the_weights_makes_links(rng, results):
    final, given = rng.random(30), results(importance=rng.normal(size=30))
    one = follow(trace_to(final), **given, **FEW)
    two = follow(trace_to(np.exp(3 * final) - 7), **given, **FEW)  # a raw mask, negative in part
    assert repr(one.links) == repr(two.links)


def test_a_link_does_not_depend_on_the_others(rng, results):
    values = {name: rng.normal(size=20) for name in SIGNS}
    trace = trace_to(rng.random(20))
    together = follow(trace, **results(**values), **FEW)
    alone = follow(trace, **results(nuisance=values["nuisance"]), **FEW)
    assert repr(together.links[-5:]) == repr(alone.links)


def test_settling_has_no_scale(rng):
    weights = rng.random((9, 6))
    one = follow(MaskTrace(np.arange(9), weights))
    two = follow(MaskTrace(np.arange(9), 4 * weights))
    np.testing.assert_array_equal(one.settled, two.settled)
    np.testing.assert_array_equal(4 * one.path, two.path)


@pytest.mark.parametrize("name", ["redundancy", "nuisance"])
def test_dead_dimensions_are_left_out(rng, results, name):
    final, values = rng.random(30), rng.random(30)
    dead = np.arange(30) % 5 == 0
    without = follow(trace_to(final[~dead]), **results(**{name: values[~dead]}), **FEW)
    values[dead] = np.nan
    evolution = follow(trace_to(final), **results(**{name: values}), **FEW)
    assert repr(evolution.links) == repr(without.links)
    assert link_of(evolution, name).n_dimensions == 24
    frame = evolution.to_frame()
    assert frame.iloc[:, -1].isna().to_numpy().tolist() == dead.tolist()


def test_a_dead_dimension_is_left_out_whatever_its_number(results):
    given = results(redundancy=np.arange(6) / 10)["redundancy"]
    given = replace(given, dead=np.arange(6) == 2)
    evolution = follow(trace_to(np.arange(6) / 8), redundancy=given, **FEW)
    assert link_of(evolution, "redundancy").n_dimensions == 5


def test_groups_of_an_ablation_may_come_in_any_order(rng, results):
    final, values, order = rng.random(8), rng.normal(size=8), rng.permutation(8)
    given = results(importance=values[order])["ablation"]
    given = replace(given, groups=tuple(order[:, None]))
    np.testing.assert_array_equal(follow(trace_to(final), ablation=given).importance, values)


def test_a_mask_that_never_moved_says_so(results):
    trace = MaskTrace(np.array([0, 5, 9]), np.full((3, 6), 0.5))
    given = results(importance=np.arange(6), redundancy=np.arange(6) / 6, nuisance=np.ones(6))
    evolution = follow(trace, **given, **FEW)
    assert evolution.moved is False
    assert np.isnan(evolution.settled).all()
    assert evolution.movement() == (
        "The mask did not move: no weight changed between steps 0 and 9."
    )
    assert {link.verdict for link in evolution.links} == {"undefined"}
    summary = evolution.summary()
    assert summary["movers"] == []
    assert summary["median_settled_step"] is None
    assert summary["largest_change"] == 0
    assert summary["verdicts"][0] == "ablation importance: undefined, all weights are equal."


def test_one_record_says_nothing_of_movement(rng, results):
    final = rng.random(30)
    trace = MaskTrace(np.array([400]), final[None])
    evolution = follow(trace, **results(importance=final), **FEW)
    assert evolution.movement() == (
        "Nothing can be said of movement: there is one record, of step 400."
    )
    np.testing.assert_array_equal(evolution.path, np.zeros(30))
    np.testing.assert_array_equal(evolution.rank_stability, [1])
    assert evolution.verdicts == {"importance": "agrees"}


def test_other_kinds_of_movement_have_sentences_too():
    there_and_back = MaskTrace(np.arange(3), np.array([[0.5, 0.5], [0.7, 0.1], [0.5, 0.5]]))
    assert follow(there_and_back).movement() == (
        "The mask moved between steps 0 and 2, but every weight ended where it began."
    )
    np.testing.assert_array_equal(follow(there_and_back).settled, [2, 2])
    alike = follow(trace_to([0.75, 0.75])).movement()
    assert alike.endswith("by 0.25 at most (dimension 0), all alike: it prefers no dimension.")
    apart = follow(trace_to([0.75, 0.0, 0.5])).movement()
    assert apart == (
        "The mask moved: between steps 0 and 10 its weights changed by 0.25 on average and by 0.5 "
        "at most (dimension 1); their standard deviation over dimensions ended at 0.31."
    )


def test_a_raw_mask_may_be_negative(results):
    final = np.array([-2.0, -1.0, 0.0, 1.0, 4.0])
    evolution = follow(trace_to(final), **results(importance=final**3), **FEW)
    assert link_of(evolution, "importance").correlation == pytest.approx(1)
    shares = np.array([2, 1, 1, 4]) / 8
    np.testing.assert_allclose(evolution.entropy[-1], -(shares * np.log(shares)).sum())
    np.testing.assert_array_equal(evolution.final_rank, [5, 4, 3, 2, 1])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones(6), "ablation importance is the same for all dimensions"),
        ([1.0, 2.0, 3.0, *[np.nan] * 3], "3 dimensions have a number, and it takes 4"),
    ],
)
def test_a_link_without_variation_is_undefined_and_says_why(rng, results, values, reason):
    evolution = follow(trace_to(rng.random(6)), **results(importance=values), **FEW)
    assert {link.verdict for link in evolution.links} == {"undefined"}
    assert link_of(evolution, "importance").reason == reason
    assert evolution.summary()["verdicts"] == [f"ablation importance: undefined, {reason}."]


def test_a_random_mask_that_never_varies_is_undefined(results):
    given = results(importance=[1, 2, 3, 4])
    for seed in range(20):
        draws = {"n_permutations": 1, "n_bootstrap": 2, "seed": seed}
        evolution = follow(trace_to([0, 0, 0, 1]), **given, **draws)
        json.dumps(evolution.summary(), allow_nan=False)
        if link_of(evolution, "importance", "random").reason:
            break
    assert link_of(evolution, "importance", "random").reason == "no draw had weights that differ"
    assert link_of(evolution, "importance").verdict != "undefined"


@pytest.mark.parametrize(
    ("sign", "low", "high", "verdict"),
    [
        (1, 0.1, 0.5, "agrees"),
        (-1, 0.1, 0.5, "contradicts"),
        (1, -0.5, -0.1, "contradicts"),
        (-1, -0.5, -0.1, "agrees"),
        (1, -0.1, 0.5, "undecided"),
        (-1, 0.0, 0.5, "undecided"),
    ],
)
def test_verdicts_by_hand(sign, low, high, verdict):
    link = MaskLink("importance", "learned", 0.0, low, high, 0.5, 9, sign)
    assert link.verdict == verdict
    assert replace(link, reason="why").verdict == "undefined"


def test_results_of_the_probes_themselves_are_linked(split, real):
    rng = np.random.default_rng(0)
    real = {**real, "attribution": attribute(split, split, n_permutations=19)}
    evolution = follow(trace_to(rng.random(6)), **real, **FEW)
    frame = evolution.to_frame()
    np.testing.assert_array_equal(frame["importance"], real["ablation"].importance)
    np.testing.assert_array_equal(frame["r_squared"], real["redundancy"].r_squared)
    np.testing.assert_array_equal(frame["nuisance_score"], real["attribution"].nuisance_score)
    assert list(evolution.verdicts) == list(SIGNS)


def test_the_tables_hold_the_numbers(rng, results):
    trace = MaskTrace(
        np.array([0, 3, 9]),
        rng.random((3, 12)),
        direct_norm=rng.random(3),
        second_order_norm=rng.random(3),
        gradient_share=rng.random((3, 12)),
    )
    evolution = follow(trace, **results(importance=rng.normal(size=12)), **FEW)
    frame, tables = evolution.to_frame(), evolution.tables()
    assert list(frame.columns) == [
        *("dimension", "first_weight", "last_weight", "change", "path", "settled_step"),
        *("final_rank", "importance"),
    ]
    np.testing.assert_array_equal(frame["last_weight"], trace.weights[-1])
    np.testing.assert_array_equal(frame["settled_step"], evolution.settled)
    steps = tables["steps"]
    np.testing.assert_array_equal(steps["step"], trace.steps)
    quantiles = steps[["q0", "q5", "q25", "q50", "q75", "q95", "q100"]]
    np.testing.assert_array_equal(quantiles, evolution.quantiles)
    np.testing.assert_allclose(steps["std_weight"], trace.spread)
    np.testing.assert_array_equal(steps["direct_norm"], trace.direct_norm)
    np.testing.assert_array_equal(evolution.gradient_share, trace.gradient_share)
    links = tables["links"]
    assert list(links.columns) == [
        *("link", "mask", "correlation", "ci_low", "ci_high", "p_value", "n_dimensions"),
        *("expected_sign", "verdict", "reason"),
    ]
    assert links["mask"].tolist() == MASKS
    assert len(follow(trace).tables()["links"]) == 0
    assert len(evolution) == 3


def test_the_summary_is_json(rng, results):
    values = {name: rng.random(20) for name in SIGNS}
    evolution = follow(trace_to(rng.random(20)), **results(**values), **FEW)
    summary = json.loads(json.dumps(evolution.summary(), allow_nan=False))
    assert len(summary["movers"]) == 10
    assert summary["movers"] == evolution.movers[:10].tolist()
    assert (
        summary["links"]["nuisance"]["inverted"]["correlation"] == evolution.links[-1].correlation
    )
    assert summary["links"]["redundancy"]["constant"]["reason"] == "all weights are equal"
    assert [text.split(":")[0] for text in summary["verdicts"]] == [
        "ablation importance",
        "redundancy (R^2 on the other dimensions)",
        "nuisance attribution",
    ]
    assert "the claim expects a negative one" in summary["verdicts"][2]
    alone = follow(HAND).summary()
    assert alone["links"] == {}
    assert alone["verdicts"] == ["No other measurement was given to compare the mask with."]


def test_the_same_seed_gives_the_same_numbers(rng, results):
    given, trace = results(importance=rng.normal(size=20)), trace_to(rng.random(20))
    one, two, other = (follow(trace, **given, **FEW, seed=seed) for seed in (3, 3, 4))
    assert repr(one.links) == repr(two.links)
    assert repr(one.links) != repr(other.links)


def test_masks_of_any_run_can_be_followed():
    masks = {200: DimensionMask(np.array([0.75, 0.5])), 0: np.array([0.5, 0.5])}
    np.testing.assert_array_equal(follow(MaskTrace.of_masks(masks)).change, [0.25, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 1.0}, r"^tolerance must lie in \[0, 1\); got 1\.$"),
        ({"tolerance": -0.1}, r"^tolerance must lie in \[0, 1\); got -0\.1\.$"),
        ({"n_bootstrap": 1}, r"^n_bootstrap must be >= 2; got 1\.$"),
        ({"n_permutations": 0}, r"^n_permutations must be >= 1; got 0\.$"),
        ({"seed": -1}, r"^seed must be >= 0; got -1\.$"),
    ],
)
def test_bad_numbers_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        follow(HAND, **arguments)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_an_empty_trace_is_refused(shape):
    trace = MaskTrace(np.arange(shape[0]), np.zeros(shape))
    with pytest.raises(ValueError, match=r"^trace must hold at least one weight; got shape \("):
        follow(trace)


@pytest.mark.parametrize(("name", "argument"), ARGUMENT.items())
def test_results_that_do_not_fit_are_refused(results, name, argument):
    given = results(**{name: np.arange(5) / 5})[argument]
    sentence = rf"^{argument} must have 3 dimensions to match trace; got 5\.$"
    with pytest.raises(ValueError, match=sentence):
        follow(HAND, **{argument: given})
    sentence = rf"^{argument} must be in the basis of the axes, which a mask weighs; got pca\.$"
    with pytest.raises(ValueError, match=sentence):
        follow(HAND, **{argument: replace(given, basis="pca")})


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0], [1]], [[0], [1], [1]]])
def test_an_ablation_of_groups_is_refused(results, groups):
    given = results(importance=np.zeros(3))["ablation"]
    given = replace(given, groups=tuple(np.array(group) for group in groups))
    sentence = (
        rf"^ablation must be of every single dimension; got {len(groups)} groups of 3 dimensions\. "
        r"Call ablate without groups\.$"
    )
    with pytest.raises(ValueError, match=sentence):
        follow(HAND, ablation=given)


# Figures show what the frames say.


@pytest.fixture
def evolution(rng, results):
    weights = rng.random((4, 9))
    trace = MaskTrace(np.array([0, 1, 10, 30]), weights)
    redundancy = [np.nan, *rng.random(8)]
    return follow(trace, **results(importance=rng.normal(size=9), redundancy=redundancy), **FEW)


@pytest.fixture
def ax():
    return Figure().subplots()


def test_heat_map_shows_every_weight_at_its_step(evolution, ax):
    assert figures.plot_mask_evolution(evolution, ax=ax) is ax
    (mesh,) = ax.collections
    frame = evolution.to_frame().sort_values("final_rank")
    expected = evolution.weights[:, frame["dimension"]].T
    np.testing.assert_array_equal(mesh.get_array(), expected)
    np.testing.assert_array_equal(mesh.get_coordinates()[0, :, 0], [0, 0.5, 5.5, 20, 30])
    assert ax.get_ylim() == (9.5, 0.5)  # the largest final weight on top
    assert mesh.get_rasterized()
    assert mesh.get_cmap().name == "cividis"
    assert ax.get_xlabel() == "training step"
    assert ax.figure.axes[1].get_ylabel() == "mask weight"


def test_heat_map_of_a_negative_mask_is_centred_at_zero(ax):
    figures.plot_mask_evolution(follow(trace_to([-3.0, 1.0, 2.0])), ax=ax)
    (mesh,) = ax.collections
    assert mesh.get_clim() == (-3, 3)
    assert mesh.get_cmap().name == "RdBu"


def test_heat_map_of_a_mask_at_rest_says_so(ax):
    figures.plot_mask_evolution(follow(trace_to([0.5, 0.5])), ax=ax)
    assert ax.get_title(loc="left") == "The mask while it learns: it did not move"
    assert ax.collections[0].get_clim() == (0, 1)


def test_quantile_figure_shows_bands_median_and_movers(evolution, ax):
    assert figures.plot_mask_evolution_quantiles(evolution, ax=ax) is ax
    steps = evolution.tables()["steps"]
    for band, (low, high) in zip(ax.collections, (("q5", "q95"), ("q25", "q75")), strict=True):
        corners = band.get_paths()[0].vertices
        for step, bottom, top in steps[["step", low, high]].to_numpy():
            heights = corners[corners[:, 0] == step, 1]
            np.testing.assert_allclose([heights.min(), heights.max()], [bottom, top])
    median, *movers = ax.lines
    np.testing.assert_array_equal(median.get_ydata(), steps["q50"])
    assert len(movers) == 6
    for line, dimension in zip(movers, evolution.movers, strict=False):
        np.testing.assert_array_equal(line.get_ydata(), evolution.weights[:, dimension])
        assert line.get_label().startswith(f"dim. {dimension} (")
    assert len({line.get_color() for line in movers}) == 6
    assert len(ax.get_legend().get_texts()) == 9
    assert ax.get_ylabel() == "mask weight"


def test_quantile_figure_of_one_record_and_of_a_mask_at_rest(rng, ax):
    one = follow(MaskTrace(np.array([7]), rng.random((1, 5))))
    figures.plot_mask_evolution_quantiles(one, ax=ax)
    assert ax.get_xticks().tolist() == [7]
    assert len(ax.lines) == 1
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), np.repeat(one.quantiles[0, 3], 2))
    figures.plot_mask_evolution(one, ax=(second := Figure().subplots()))
    assert second.get_xticks().tolist() == [7]
    figures.plot_mask_evolution_quantiles(
        follow(trace_to([0.5, 0.5])), ax=(third := Figure().subplots())
    )
    assert third.get_title(loc="left").endswith("the mask did not move")


def test_link_figure_shows_every_row(evolution, ax):
    assert figures.plot_mask_evolution_links(evolution, ax=ax) is ax
    frame = evolution.tables()["links"]
    labels = [f"{row.link}, mask: {row.mask}" for row in frame.itertuples()]
    assert [text.get_text() for text in ax.get_yticklabels()] == labels
    known = frame[frame["verdict"] != "undefined"]
    ends = [collection.get_segments()[0][:, 0] for collection in ax.collections]
    np.testing.assert_allclose(ends, known[["ci_low", "ci_high"]])
    zero, *points = ax.lines
    assert zero.get_linestyle() == "--"
    np.testing.assert_array_equal(zero.get_xdata(), [0, 0])
    np.testing.assert_allclose([p.get_xdata()[0] for p in points], known["correlation"])
    heights = dict(zip(labels, ax.get_yticks(), strict=True))
    for point, row in zip(points, known.itertuples(), strict=True):
        assert point.get_ydata()[0] == heights[f"{row.link}, mask: {row.mask}"]
        colour = house.ORANGE if row.mask == "learned" else house.GREY
        assert to_hex(point.get_color()) == colour.lower()
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("undefined") == 2
    claims = [
        f"claim: {side}\n{evolution.verdicts[name]}"
        for name, side in zip(("importance", "redundancy"), ("> 0 →", "< 0 ←"), strict=True)
    ]
    assert [text for text in texts if text.startswith("claim")] == claims
    assert "Spearman" in ax.get_xlabel()


def test_link_figure_without_links_or_numbers(results, ax):
    figures.plot_mask_evolution_links(follow(HAND), ax=ax)
    assert [text.get_text() for text in ax.texts] == follow(HAND).summary()["verdicts"]
    still = follow(trace_to(np.full(5, 0.5)), **results(importance=np.arange(5)))
    figures.plot_mask_evolution_links(still, ax=(other := Figure().subplots()))
    assert [text.get_text() for text in other.texts].count("undefined") == 5
    assert other.get_xlim() == (-1.05, 1.05)
