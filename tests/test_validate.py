"""Validation: shares by hand, and broken measures are noticed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from dimlab import _claims, _validate, planted_world, probes, validate
from dimlab._claims import STUDIES, Claims, Study
from dimlab.kernels.paired import wilson_interval
from dimlab.result import verdict_of

SMALL = {"n_samples": 100, "n_dimensions": 16}


def graded(run, n_worlds, **how):
    """Grade what a function of (worlds so far, is planted, truth) claims."""
    seen = iter(range(10_000))

    def look(world, seed):
        return run(next(seen), bool(world.planted), world.mask("needed").astype(float))

    study = Study("", "made up", look, {"needed": 4}, **how)
    (row,) = _validate._graded(study, n_worlds, (100, 16), 0, lambda: None)
    return row


def validated(monkeypatch, probe, changed, n_worlds=10, **how):
    """Validate a probe that was changed after it measured."""
    measure = getattr(_claims, probe)
    monkeypatch.setattr(_claims, probe, lambda *a, **k: changed(measure(*a, **k)))
    return validate(probes=[probe], n_worlds=n_worlds, **SMALL, **how)


def test_every_probe_is_graded():
    assert {study.probe for study in STUDIES} == {*probes.__all__}
    names = [name for study in STUDIES for name in np.atleast_1d(study.names)]
    assert len(set(names)) == len(names)


def test_shares_by_hand():
    """Half of what is planted is found, one unit of noise is claimed in each planted world."""

    def run(n, planted, truth):
        claimed = np.zeros(16, bool)
        if planted:
            claimed[np.flatnonzero(truth)[:2]] = claimed[np.flatnonzero(truth == 0)[0]] = True
        claimed[0] |= not planted and n % 4 == 0
        return Claims(claimed, claimed.astype(float), truth)

    row = graded(run, 10)  # calls: planted 0 to 9, noise 10 to 19, planted again 20, 21
    assert (row["recall"], row["false_discoveries"]) == (0.5, pytest.approx(1 / 3))
    assert row["false_draws"] == 0.2  # calls 12 and 16
    assert row["false_units"] == pytest.approx(2 / 160)
    assert [row["false_draws_low"], row["false_draws_high"]] == pytest.approx(
        np.ravel(wilson_interval(2, 10))
    )
    assert row["recall_low"] < 0.5 < row["recall_high"]
    # of (found, missed) x (noise, noise claimed): 1, 1/2 ... as ties count half
    assert row["area"] == pytest.approx((2 * (11 + 1 / 2) + 2 * (11 / 2)) / (4 * 12))
    assert (row["reseeding"], row["claims_changed"]) == (0, 0)
    worlds = [np.array([n < 3]) for n in range(10)]
    assert _validate._excess(worlds, 0.05) == pytest.approx(binom.sf(2, 10, 0.05))
    assert _validate._excess(worlds, 0.3) == 1
    assert _validate._excess(worlds, 0.0) == 0


def test_what_is_neither_counts_nowhere():
    def run(n, planted, truth):
        truth = np.where(np.arange(16) < 8, np.nan, 0.0)
        truth[15] = planted
        return Claims(np.arange(16) < 8, np.zeros(16), truth)

    row = graded(run, 4)
    assert (row["recall"], row["false_draws"], row["false_units"]) == (0, 0, 0)
    assert np.isnan(row["false_discoveries"])
    assert row["area"] == 0.5


@pytest.mark.parametrize(("factor", "noticed"), [(1.0, False), (0.5, True)])
def test_halved_p_values_are_noticed(factor, noticed):
    def run(n, planted, truth):
        p_value = factor * np.random.default_rng(n).random(16)
        return Claims(truth == 1, truth, truth, p_value)

    assert (graded(run, 60)["q_excess"] < 1e-3) == noticed


@pytest.mark.slow
def test_halved_p_values_of_a_probe_are_noticed(monkeypatch):
    found = validated(
        monkeypatch,
        "attribute",
        lambda each: replace(each, p_value=each.p_value / 2, q_value=each.q_value / 2),
        n_worlds=25,
    )
    assert found.verdicts() == ["too many false claims"]
    assert verdict_of(found).answer == "no"


def test_an_exchanged_sign_is_noticed(monkeypatch):
    def exchanged(each):
        return replace(each, importance=-each.importance)

    found = validated(monkeypatch, "confirm_harmful", exchanged)
    assert found.area[0] < 0.05
    assert found.verdicts() == ["misses most"]
    assert found.failing == {"confirm_harmful: harmful": "misses most"}
    assert "do not: confirm_harmful" in verdict_of(found).because


@pytest.mark.slow
def test_copies_that_are_never_found_and_dead_ones_that_are_none_are_noticed(monkeypatch):
    def blind(each):
        dead = np.arange(len(each)) == 0  # whatever it is
        return replace(each, duplicates=(), dead=each.dead | dead)

    found = validated(monkeypatch, "find_redundancy", blind)
    assert found.verdicts()[:3] == ["too many false claims", "misses most", "holds"]
    assert verdict_of(found).answer == "no"


@pytest.mark.slow
def test_rules_hold_exactly():
    found = validate(probes=["decompose", "profile", "find_redundancy"], **SMALL)
    assert found.verdicts() == ["holds"] * 6
    np.testing.assert_array_equal(found.recall, 1)
    np.testing.assert_array_equal(found.false_draws, 0)
    np.testing.assert_allclose(found.reseeding, 0, atol=1e-12)
    assert verdict_of(found).answer == "yes"


@pytest.mark.long
def test_all_measures_hold():
    found = validate(n_worlds=20)
    assert set(found.failing.values()) <= {"undecided"}
    assert len(found.failing) <= 2


def test_the_largest_score_of_many_masks_is_seen_to_fail():
    found = validate(probes=["random_masks"], n_worlds=4, **SMALL)
    assert found.contrast.tolist() == [False, True]
    assert found.false_draws[1] == 1 > found.false_draws[0]
    assert found.verdicts()[1] == "too many false claims"
    assert "largest score of random masks" not in found.failing


def test_measures_of_others_are_graded_by_their_highest_scores():
    def means(train, test):
        return np.ptp([test.features[test.labels == k].mean(axis=0) for k in range(4)], axis=0)

    def drawn(train, test, seed):
        return np.random.default_rng(seed).normal(size=train.n_dimensions)

    def decided(train, test):
        return means(train, test) > 1

    measures = {"means": means, "drawn": drawn, "decided": decided}
    found = validate(measures, n_worlds=10, **SMALL)
    assert found.measure == tuple(measures)
    assert found.recall[0] > 0.9
    assert found.recall[1] < 0.5 < found.recall[2]
    np.testing.assert_allclose(found.reseeding, [0, 1, 0], atol=0.3)
    assert found.claims_changed[1] > 0
    np.testing.assert_array_equal(np.isnan(found.false_draws), [True, True, False])
    np.testing.assert_array_equal(np.isnan(found.q_excess), [True, True, False])
    greedy = validate({"all": lambda train, test: np.ones(16, bool)}, n_worlds=4, **SMALL)
    assert (greedy.recall[0], greedy.verdicts()) == (1, ["too many false claims"])
    dead = validate({"spread": lambda train, test: -test.features.std(axis=0)}, planted="dead",
                    n_worlds=10, **SMALL)  # fmt: skip
    assert (dead.recall[0], dead.area[0], dead.planted) == (1, 1, ("4 needed, 2 dead",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_worlds": 1}, "n_worlds must be >= 2; got 1"),
        ({"n_samples": 50}, "n_samples must be >= 100; got 50"),
        ({"n_dimensions": 200}, "n_samples must be >= 400; got 300"),
        ({"n_dimensions": 8}, "n_dimensions must be >= 16; got 8"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"probes": ["nothing"]}, "probes must be some of evaluate, .*; got 'nothing'"),
        ({"probes": []}, "must name something"),
        ({"planted": "gold"}, "planted must be one of needed, .*; got 'gold'"),
        ({"measures": {"x": lambda train, test: 1.0}}, "one number or boolean a dimension, \\(24,"),
        ({"measures": {"x": lambda train, test: ["a"] * 24}}, "got <U1 of shape"),
    ],
)
def test_errors_are_sentences(given, message):
    with pytest.raises(ValueError, match=message):
        validate(**given)


def test_planted_dimensions_are_what_they_are_called():
    world = planted_world(n_samples=4000, seed=3)
    assert {kind: len(places) for kind, places in world.planted.items()} == {
        "needed": 4, "harmful": 1, "shortcut": 1, "nuisance": 2, "dead": 1, "copy": 2,
        "sum": 4, "group": 3, "outlier": 1, "shared": 2,
    }  # fmt: skip
    assert len(np.unique(np.concatenate([*world.planted.values()]))) == 21
    for split, sign in ((world.train, 1), (world.test, -1)):
        x, labels, factor = split.features, split.labels, split.factors["nuisance"]
        correlation = np.nan_to_num(np.corrcoef(x[:, x.std(axis=0) > 0].T))
        living = np.flatnonzero(x.std(axis=0) > 0)
        np.testing.assert_allclose(x.std(axis=0)[living], 1, atol=0.05)

        def of(kind, living=living):
            return np.flatnonzero(np.isin(living, world.planted[kind]))

        assert living.tolist() == np.flatnonzero(~world.mask("dead")).tolist()
        np.testing.assert_allclose(correlation[np.ix_(of("copy"), of("copy"))], [[1, -1], [-1, 1]])
        related = x[:, world.planted["sum"]] - x[:, world.planted["sum"]].mean(axis=0)
        assert np.linalg.matrix_rank(related) == 3
        grouped = correlation[np.ix_(of("group"), of("group"))]
        np.testing.assert_allclose(grouped[np.triu_indices(3, 1)], 0.8, atol=0.03)
        assert x[:, world.planted["outlier"]].mean() == pytest.approx(8, abs=0.1)
        harm = np.corrcoef(x[:, world.planted["harmful"][0]], labels)[0, 1]
        assert sign * harm > 0.8
        shortcut = np.corrcoef(x[:, world.planted["shortcut"][0]], labels)[0, 1]
        assert shortcut == pytest.approx(0.9 if sign > 0 else 0, abs=0.05)
        assert np.corrcoef(factor, labels)[0, 1] == pytest.approx(0.6, abs=0.05)
        for d in world.planted["nuisance"]:
            residual = factor - 0.6 * (labels - labels.mean()) / labels.std()
            assert np.corrcoef(x[:, d], residual)[0, 1] == pytest.approx(0.5, abs=0.05)
        agree = [np.corrcoef(*split.views[:, :, d])[0, 1] for d in living]
        kept = np.isin(living, [*world.planted["shared"], *world.planted["needed"]])
        assert np.min(np.array(agree)[kept]) > 0.85
        assert np.max(np.abs(np.array(agree)[~kept])) < 0.1
    again = planted_world(n_samples=4000, seed=3)
    np.testing.assert_array_equal(again.test.features, world.test.features)
    assert planted_world(seed=4).planted["dead"].tolist() != world.planted["dead"].tolist()


@pytest.mark.parametrize(("target", "shape"), [("values", (50,)), ("labels", (50, 3))])
def test_other_targets_depend_on_what_is_needed_alone(target, shape):
    world = planted_world({"needed": 3}, n_samples=50, n_dimensions=5, target=target)
    assert world.train.labels.shape == shape
    large = planted_world({"needed": 3}, n_samples=4000, n_dimensions=5, target=target)
    y = large.test.labels.reshape(4000, -1)
    strongest = np.abs(np.corrcoef(large.test.features.T, y.T)[:5, 5:]).max(axis=1)
    assert (
        strongest[large.mask("needed")].min() > 0.4 > 0.1 > strongest[~large.mask("needed")].max()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planted": {"gold": 1}}, "kinds of needed, .*; got 'gold'"),
        ({"planted": {"dead": -1}}, "numbers >= 0; got -1 of dead"),
        ({"planted": {"sum": 9}}, "n_dimensions must be >= 36, what is planted; got 32"),
        ({"target": "words"}, "target must be one of classes, values, labels; got 'words'"),
        ({"n_samples": 5}, "n_samples must be >= 20; got 5"),
        ({"seed": -2}, "seed must be >= 0; got -2"),
    ],
)
def test_worlds_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        planted_world(**given)


def test_the_command_says_what_comes_next(dimlab):
    chosen = "--n-samples", 100, "--n-dimensions", 16, "--probes", "profile", "--quiet"
    code, out, err = dimlab("validate", *chosen)
    assert (code, err) == (0, "")
    assert "Do the measures find what is there, and claim nothing else? yes." in out
    assert out.rstrip().endswith("It runs every probe on features of your own.")
    code, out, _ = dimlab("validate", *chosen, "--n-worlds", 2, "--out", "o")
    assert "0 of 1 hold; undecided: profile: outlier." in out
    following = "Next: dimlab validate --probes profile --n-samples 100 --n-dimensions 16 --quiet"
    assert following in out  # with ten worlds, the default
    code, out, _ = dimlab("report", "--check", "o")
    assert (code, "matches its record" in " ".join(out.split())) == (0, True)
    code, out, _ = dimlab("validate", *chosen, "--n-worlds", 2, "--json")
    assert json.loads(out)["failing"] == {"profile: outlier": "undecided"}
    code, _, err = dimlab("validate", "--probes", "nothing", "--quiet")
    assert (code, err.count("\n")) == (2, 1)
