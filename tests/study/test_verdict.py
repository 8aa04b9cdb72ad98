"""Verdicts: the rule by hand, at its borders, and over many worlds whose truth is known."""

import numpy as np
import pytest

from dimlab.study import Verdict, judged


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
    assert Verdict.from_dict(verdict.to_dict()) == verdict
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
