"""Judgements: the rule by hand, at its borders, and over many worlds whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from study import Judgement, best_of, check_whole, judged, paired


def answer_of(differences, smallest_effect=0.01):
    return judged("a > b", differences, smallest_effect=smallest_effect, unit="accuracy")


def test_interval_by_hand():
    verdict = answer_of([0.01, 0.02, 0.03])
    # Student's t at 2 degrees of freedom, 97.5 %: 4.302653
    half = 4.302653 * 0.01 / np.sqrt(3)
    assert verdict.effect == pytest.approx(0.02)
    assert verdict.ci_low == pytest.approx(0.02 - half, abs=1e-7)
    assert verdict.ci_high == pytest.approx(0.02 + half, abs=1e-7)
    assert verdict.standard_error == pytest.approx(0.01 / np.sqrt(3))


@pytest.mark.parametrize(
    ("differences", "answer"),
    [
        ([0.020, 0.021, 0.022], "holds"),
        ([0.005, 0.0051, 0.0052], "fails"),  # above 0, yet smaller than anyone cares for
        ([-0.02, -0.021, -0.022], "fails"),
        ([0.0, 0.0, 0.0], "fails"),
        ([0.01, 0.01, 0.01], "holds"),
        ([0.1, -0.1, 0.05], "undecided"),
        ([0.5], "undecided"),
    ],
)
def test_answers(differences, answer):
    assert answer_of(differences).answer == answer


def test_seeds_that_would_decide_do_decide():
    rng = np.random.default_rng(0)
    few = np.array([0.035, -0.02, 0.02, 0.01])
    verdict = answer_of(few)
    assert verdict.answer == "undecided"
    for n_seeds, decided in ((verdict.n_needed, True), (verdict.n_needed - 1, False)):
        # as many values of exactly this mean and spread
        values = rng.normal(size=n_seeds)
        values = (values - values.mean()) / values.std(ddof=1) * few.std(ddof=1) + few.mean()
        assert (answer_of(values).answer != "undecided") == decided


@pytest.mark.parametrize("truth", [0.0, 0.01])
def test_a_wrong_answer_is_as_rare_as_promised(truth):
    """No effect is called one in 2.5 % of worlds; the smallest effect is denied in 2.5 %."""
    rng = np.random.default_rng(1)
    wrong = "holds" if truth == 0 else "fails"
    worlds = truth + 0.01 * rng.normal(size=(2000, 5))
    share = np.mean([answer_of(world).answer == wrong for world in worlds])
    assert share <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 2000)


def test_a_small_study_decides_nothing_and_verdicts_survive_json():
    part = answer_of([0.02, 0.021])
    verdict = judged("c", [0.1, 0.11], smallest_effect=0.01, unit="x", parts=[part])
    assert Judgement.from_dict(verdict.to_dict()) == verdict
    quiet = verdict.never_decided()
    assert (quiet.answer, quiet.parts[0].answer, quiet.effect) == ("undecided",) * 2 + (
        verdict.effect,
    )


@pytest.mark.parametrize(
    ("differences", "smallest_effect", "sentence"),
    [
        ([], 0.1, "differences must be finite numbers, at least one; got"),
        ([float("nan")], 0.1, "differences must be finite"),
        ([0.1], 0.0, "smallest_effect must be > 0; got 0.0"),
    ],
)
def test_refusals(differences, smallest_effect, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        answer_of(differences, smallest_effect)


@pytest.mark.parametrize(
    ("left", "right"), [(0.29, 0.28), (0.85, 0.84), (0.03, 0.02), (0.57, 0.56), (1.01, 1.0)]
)
def test_an_effect_at_the_smallest_one_holds_however_floats_were_subtracted(left, right):
    assert answer_of([left - right] * 5).answer == "holds"
    # as near to 0 as floats leave what is nothing
    assert answer_of([0.1 + 0.2 - 0.3] * 5).answer == "fails"


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_answers_do_not_depend_on_the_unit(scale):
    for differences, answer in (([0.02, 0.021, 0.022], "holds"), ([0.008, 0.0081, 0.009], "fails")):
        scaled = [scale * each for each in differences]
        assert answer_of(scaled, smallest_effect=scale * 0.01).answer == answer


@pytest.fixture
def whole():
    rows = {"family": ["a", "b"] * 2, "budget": "steps", "seed": [0, 0, 1, 1], "knn": 0.5}
    return pd.DataFrame(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_number_that_is_not_finite_is_refused_where_it_stands(whole, value):
    check_whole(whole, "family", measured=["knn"])
    whole["knn"] = [0.5, 0.5, 0.5, value]
    check_whole(whole, "family")  # not read
    sentence = r"^table must have a finite knn in every row; got (nan|inf) in that of b with seed 1"
    with pytest.raises(ValueError, match=sentence):
        check_whole(whole, "family", measured=["knn"])
    with pytest.raises(ValueError, match=sentence):  # a mean would be that of the other seeds
        best_of(whole, "knn", ["a", "b"])


def test_kinds_that_are_missing_or_unknown_are_named(whole):
    labels = ("budget", "family")
    kinds = [("steps", "a"), ("steps", "b")]
    check_whole(whole, *labels, kinds=kinds, further=False)
    with pytest.raises(ValueError, match=r"^table must have the family c; got only a; b\.$"):
        check_whole(whole, "family", kinds="abc")
    with pytest.raises(ValueError, match=r"^table must have the family c; got only a; b\.$"):
        best_of(whole, "knn", ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^table must have no budget, family but steps, a; got "):
        check_whole(whole, *labels, kinds=kinds[:1], further=False)
    with pytest.raises(ValueError, match=r"^table must have family, ridge and seed; got no ridge"):
        check_whole(whole, "family", measured=["ridge"])


def test_pairs_are_subtracted_seed_by_seed_and_the_best_leads_in_words():
    rows = {"family": ["b", "a"] * 2, "seed": [1, 1, 0, 0], "knn": [0.25, 0.75, 0.25, 0.5]}
    table = pd.DataFrame(rows)
    assert paired(table, "knn", "a", "b") == [0.25, 0.5]
    words = "+0.3750 above b, standard error 0.1250 over seeds"
    assert best_of(table, "knn", ["b", "a"]) == ("a", words)
    with pytest.raises(ValueError, match=r"^table must have 'a' and 'b' with the same seeds, once"):
        paired(table.iloc[1:], "knn", "a", "b")
