"""Ablation: equal to doing it by hand, with honest intervals."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, false_discovery_control, kstest, norm, t
from sklearn.metrics import balanced_accuracy_score, log_loss

from dimlab.basis import fit_basis
from dimlab.kernels.blocks import blocks
from dimlab.kernels.paired import mcnemar, paired_test, tango_interval
from dimlab.probes._importance import train_blocks
from dimlab.probes.ablate import Ablation, ablate
from dimlab.readers.base import Split
from dimlab.readers.linear import FILLS, ROWS, Standardiser
from dimlab.representation import Representation
from dimlab.result import verdict_of
from tests import references, worlds
from tests.reading import fit_knn, fit_logistic, fit_ridge

CONFIGURATIONS = [
    {"reader": "knn"},
    {"reader": "ridge"},
    {"reader": "ridge", "refit": False},
    {"reader": "ridge", "refit": False, "fill": "zero"},
    {"reader": "logistic"},
    {"reader": "logistic", "fill": "zero"},
]


def noisy(rng, n=150, d=6, n_classes=3, shift=0.8):
    """Classes that overlap, so that removing a dimension changes some predictions."""
    labels = rng.choice([1, 4, 6, 9][:n_classes], size=n)
    features = rng.normal(size=(n, d))
    for place, label in enumerate(np.unique(labels)):
        features[labels == label, place % d] += 2 * shift
    return Representation(features, labels=labels)


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    return noisy(rng), noisy(rng, n=90)


def without(representation, group):
    kept = np.setdiff1d(np.arange(representation.n_dimensions), group)
    return representation.features[:, kept]


# By hand -------------------------------------------------------------------------------------


def test_knn_by_hand():
    """Four rows in the plane; without dimension 0 the first two look like the others."""
    train = Representation(
        np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]),
        labels=np.array([0, 0, 1, 1]),
    )
    ablation = ablate(train, train, k=1)
    # Without dimension 0: (0.1,), (-0.1,), (0.1,), (-0.1,): the lower row, class 0, wins.
    assert ablation.full_score == 1.0
    np.testing.assert_array_equal(ablation.scores, [0.5, 1.0])
    np.testing.assert_array_equal(ablation.importance, [0.5, 0.0])
    np.testing.assert_array_equal(ablation.per_class, [[0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_array_equal(ablation.p_value, [0.5, 1.0])  # two coins, both tails


def test_frozen_ridge_by_hand():
    """Two dimensions that agree on train share the weight; test sets them against each other."""
    train = Representation(np.array([[1.0, 1.0], [3.0, 3.0]]), labels=np.array([0, 1]))
    test = Representation(np.array([[1.0, 3.5], [3.0, 2.9]]), labels=np.array([0, 1]))
    frozen = ablate(train, test, reader="ridge", refit=False, fill="mean")
    # z = (-1, 1.5), (1, .9), equal weights. Full: classes 1, 1. Without 0: 1, 1. Without 1: 0, 1.
    assert frozen.full_score == 0.5
    np.testing.assert_array_equal(frozen.scores, [0.5, 1.0])
    zero = ablate(train, test, reader="ridge", refit=False, fill="zero")
    # Raw zero is z = -2: without 0: -2 + 1.5, -2 + .9 -> 0, 0. Without 1: -3, -1 -> 0, 0.
    np.testing.assert_array_equal(zero.scores, [0.5, 0.5])


def test_knn_log_loss_by_hand():
    """k = 1, K = 2: the vote's class has probability 2/3 after Laplace, the other 1/3."""
    train = Representation(
        np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]),
        labels=np.array([0, 0, 1, 1]),
    )
    ablation = ablate(train, train, k=1, score="log_loss")
    np.testing.assert_allclose(ablation.full_score, np.log(3 / 2))
    np.testing.assert_allclose(ablation.scores[0], (np.log(3 / 2) + np.log(3)) / 2)
    np.testing.assert_allclose(ablation.importance, [np.log(2) / 2, 0.0], atol=1e-15)


# Planted worlds ------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_without_the_only_informative_dimension_there_is_chance(configuration):
    rng = np.random.default_rng(1)
    train, test = worlds.informative_world(rng), worlds.informative_world(rng, n=600)
    ablation = ablate(train, test, **configuration)
    assert ablation.full_score > 0.99
    others = np.arange(6) != 2
    assert abs(ablation.scores[2] - 0.5) < 4 * np.sqrt(0.25 / 600)
    np.testing.assert_allclose(ablation.scores[others], ablation.full_score, atol=0.02)
    assert ablation.needed.tolist() == [2]
    assert ablation.ci_low[2] > 0.4


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_of_a_duplicated_pair_either_can_go_but_not_both(reader):
    rng = np.random.default_rng(2)
    train, test = worlds.duplicated_world(rng), worlds.duplicated_world(rng)
    ablation = ablate(train, test, reader=reader, groups=[[0], [1], [0, 1], [2, 3]])
    np.testing.assert_allclose(ablation.importance[[0, 1, 3]], 0, atol=0.02)
    assert ablation.importance[2] > 0.35


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_rotation_moves_importance_and_kNN_keeps_its_full_score(configuration):
    rng = np.random.default_rng(3)
    rotation = worlds.random_rotation(rng, 6)
    train, test = worlds.informative_world(rng), worlds.informative_world(rng)
    turned = [Representation(r.features @ rotation, labels=r.labels) for r in (train, test)]
    straight, rotated = ablate(train, test, **configuration), ablate(*turned, **configuration)
    if configuration["reader"] == "knn":
        np.testing.assert_allclose(rotated.full_score, straight.full_score, atol=1e-12)
    assert straight.importance.max() > 0.4
    assert rotated.importance.max() < straight.importance.max()


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "log_loss"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS[1:])
def test_a_constant_dimension_has_importance_exactly_zero(configuration, score):
    rng = np.random.default_rng(4)
    train, test = worlds.useless_world(rng), worlds.useless_world(rng)
    ablation = ablate(train, test, score=score, **configuration)
    assert ablation.importance[4] == 0.0
    assert ablation.p_value[4] == 1.0
    np.testing.assert_array_equal(ablation.per_class[4], 0.0)
    assert ablation.summary()["constant_dimensions"] == [4]


def test_a_harmful_dimension_is_found():
    """A loud noise dimension drowns the class: kNN is better off without it."""
    rng = np.random.default_rng(5)

    def loud(n):
        world = worlds.informative_world(rng, n=n)
        features = world.features * [1, 1, 0.03, 1, 1, 8]
        return Representation(features, labels=world.labels)

    ablation = ablate(loud(400), loud(600))
    assert ablation.harmful[0] == 5
    assert ablation.needed.tolist() == [2]
    assert ablation.importance[5] < 0
    assert ablation.ci_high[5] < 0
    assert ablation.summary()["most_harmful"][0] == [5]


def test_in_the_null_world_few_dimensions_are_significant():
    """Test labels permuted: the p-values reject no more often than they say."""
    rng = np.random.default_rng(6)
    rejected = []
    for _ in range(12):
        train, test = noisy(rng, n=120), noisy(rng, n=150)
        null = Representation(test.features, labels=rng.permutation(test.labels))
        rejected.append(ablate(train, null).p_value <= 0.05)
    assert np.mean(rejected) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 72)
    assert (ablate(train, noisy(rng, n=600)).p_value <= 0.05).any()  # and with labels it does


def test_sign_flip_p_values_of_log_loss_are_uniform_in_the_null_world():
    rng = np.random.default_rng(7)
    p = []
    for _ in range(40):
        train, test = noisy(rng, n=80), noisy(rng, n=80)
        # The same reader on both sides of a coin: losses of two equally useless noise readers.
        null = Representation(rng.normal(size=test.features.shape), labels=test.labels)
        p.append(ablate(train, null, reader="ridge", penalty=100.0, score="log_loss").p_value[5])
    assert kstest(p, "uniform").pvalue > 0.01


# Oracles -------------------------------------------------------------------------------------


@worlds.rows_repeat
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["gaussian", "relu", "integers", "zeros"]),
    k=st.integers(1, 30),
    temperature=st.sampled_from([0.05, 1.0]),
)
def test_knn_equals_brute_force(seed, kind, k, temperature):
    rng = np.random.default_rng(seed)
    bank, queries = rng.normal(size=(30, 4)), rng.normal(size=(8, 4))
    if kind == "relu":
        bank, queries = np.maximum(bank - 0.3, 0), np.maximum(queries - 0.3, 0)
    if kind == "integers":
        bank, queries = np.round(bank), np.round(queries)
    if kind == "zeros":
        bank[::4], queries[::3] = 0, 0
    labels = rng.choice([1, 4, 6], size=30)
    labels[:3] = [1, 4, 6]
    truth = rng.choice([1, 4, 6], size=8)
    truth[:2] = [1, 4]  # rows of one class alone are a warning
    groups = [np.array([0]), np.array([1]), np.array([2, 3]), np.arange(4)]
    train, test = Representation(bank, labels=labels), Representation(queries, labels=truth)
    ablation = ablate(train, test, groups=groups, k=k, temperature=temperature)
    expected = references.knn_ablation(bank, labels, queries, groups, k=k, temperature=temperature)
    np.testing.assert_array_equal(ablation.scores, (expected == truth[:, None]).mean(axis=0))


def test_knn_per_class_and_full_score_equal_brute_force(splits):
    train, test = splits
    ablation = ablate(train, test)
    data = train.features, train.labels, test.features
    full = references.knn_ablation(*data, [np.array([], int)], k=5)[:, 0] == test.labels
    each = references.knn_ablation(*data, [np.array([d]) for d in range(6)], k=5)
    right = each == test.labels[:, None]
    assert ablation.full_score == full.mean()
    for place, label in enumerate(ablation.classes):
        rows = test.labels == label
        lost = full[rows].mean() - right[rows].mean(axis=0)
        np.testing.assert_allclose(ablation.per_class[:, place], lost, atol=1e-12)
    p_value = [
        [
            binomtest(int((full & ~right[:, g])[rows].sum()), int((full ^ right[:, g])[rows].sum()))
            .pvalue
            if (full ^ right[:, g])[rows].any() else 1.0
            for rows in (test.labels == label for label in ablation.classes)
        ]
        for g in range(right.shape[1])
    ]  # fmt: skip
    expected = false_discovery_control(np.ravel(p_value)).reshape(np.shape(p_value))
    np.testing.assert_allclose(ablation.per_class_q, expected, atol=1e-12)
    only_full = (full[:, None] & ~right).sum(axis=0)
    only_ablated = (~full[:, None] & right).sum(axis=0)
    low, high = tango_interval(only_full, only_ablated, len(test))
    np.testing.assert_allclose([ablation.ci_low, ablation.ci_high], [low, high])
    np.testing.assert_allclose(ablation.p_value, mcnemar(only_full, only_ablated))
    np.testing.assert_allclose(ablation.q_value, false_discovery_control(ablation.p_value))


@pytest.mark.parametrize("penalty", [1e-3, 1.0])
@pytest.mark.parametrize("n", [150, 5])
def test_ridge_equals_an_honest_refit(splits, penalty, n):
    """Wherever the refit's margin exceeds 1e-9; elsewhere either class will do, and is counted."""
    train, test = splits
    wide = np.hstack([train.features, train.features**2, np.ones((150, 1))])[:n]
    wide_test = np.hstack([test.features, test.features**2, np.zeros((90, 1))])
    labels = train.labels[:n].copy()
    labels[:3] = [1, 4, 6]
    groups = [*np.arange(13)[:, None], np.array([0, 5, 12]), np.arange(7), np.arange(13)]
    ablation = ablate(
        Representation(wide, labels=labels),
        Representation(wide_test, labels=test.labels),
        reader="ridge",
        penalty=penalty,
        groups=groups,
    )
    classes = np.unique(labels)
    for g, group in enumerate(groups):
        kept = np.setdiff1d(np.arange(13), group)
        logits = references.ridge_logits(wide[:, kept], labels, wide_test[:, kept], penalty)
        top = np.sort(logits, axis=1)
        clear = top[:, -1] - top[:, -2] > 1e-9
        right = classes[logits.argmax(axis=1)] == test.labels
        n_right = ablation.scores[g] * len(test)
        assert right[clear].sum() <= n_right + 1e-6
        assert n_right <= right[clear].sum() + (~clear).sum() + 1e-6
        if len(kept):
            assert clear.all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("reader", "fit"), [("ridge", fit_ridge), ("logistic", fit_logistic)])
def test_frozen_readers_see_the_fill(splits, reader, fit, fill):
    train, test = splits
    shifted = [Representation(r.features + 0.5, labels=r.labels) for r in (train, test)]
    fitted = fit(shifted[0].features, shifted[0].labels)
    how = {"refit": False, "fill": fill, "groups": [[0], [1, 2], [5]], "seed": 3}
    ablation = ablate(*shifted, reader=reader, **how)
    for score, group in zip(ablation.scores, ablation.groups, strict=True):
        filled = references.filled_with(fill, shifted[0].features, shifted[1].features, group, 3)
        assert score == fitted.accuracy(filled, test.labels)


def test_zero_tells_of_the_fill_where_a_dimension_has_a_large_mean():
    """An outlier dimension of noise: zero says that it is needed, values of its own size do not."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    features = rng.normal(size=(600, 4)) + np.outer(labels, [2, 0, 0, 0]) + [0, 0, 0, 60]
    train, test = (
        Representation(features[r], labels=labels[r]) for r in np.arange(600).reshape(2, -1)
    )
    found = {fill: ablate(train, test, reader="ridge", refit=False, fill=fill) for fill in FILLS}
    assert found["zero"].needed.tolist() == [0, 3]
    for fill in ("mean", "shuffle", "noise"):
        assert found[fill].needed.tolist() == [0]
        assert abs(found[fill].importance[3]) < 0.02


def test_rows_of_many_blocks_are_filled_alike_by_every_reader():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS + 100, 2)) + 1
    columns = Standardiser.fit(features)
    for fill in ("shuffle", "noise"):
        parts = [columns.stand_in(fill, features, rows, 5) for rows in blocks(len(features), ROWS)]
        whole = np.vstack(parts)
        np.testing.assert_allclose(whole.mean(axis=0), features.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(whole.std(axis=0), features.std(axis=0), atol=0.05)
        assert (whole != features).any(axis=1).mean() > 0.99
        assert (np.sort(whole, axis=0) == np.sort(features, axis=0)).all() == (fill == "shuffle")


def test_the_two_fills_differ(splits):
    train, test = (Representation(r.features + 2.0, labels=r.labels) for r in splits)
    mean = ablate(train, test, reader="ridge", refit=False, fill="mean")
    zero = ablate(train, test, reader="ridge", refit=False, fill="zero")
    assert np.abs(mean.scores - zero.scores).max() > 0.05


def test_logistic_refits_really_refit(splits, capsys):
    train, test = splits
    groups = [[0], [1, 2], [5], list(range(6))]
    ablation = ablate(train, test, reader="logistic", refit=True, groups=groups)
    assert "4 logistic refits, at most about" in capsys.readouterr().err
    penalty = fit_logistic(train.features, train.labels).penalty
    for score, group in zip(ablation.scores[:3], groups[:3], strict=True):
        refit = fit_logistic(without(train, group), train.labels, penalty=penalty)
        expected = refit.accuracy(without(test, group), test.labels)
        np.testing.assert_allclose(score, expected, atol=1.5 / len(test))  # two stopping points
    majority = np.bincount(train.labels).argmax()
    assert ablation.scores[3] == (test.labels == majority).mean()


@worlds.rows_repeat
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("groups", [None, [[0], [1], [0, 1]]])
def test_what_rounding_leaves_of_a_class_does_not_predict_it(groups, refit):
    labels = np.arange(40) % 2
    features = np.column_stack([2.0 * labels - 1, np.ones(40)])  # the second says nothing
    split = Representation(features, labels=labels)
    ablation = ablate(split, split, reader="ridge", groups=groups, refit=refit)
    assert ablation.scores[:2].tolist() == [0.5, 1.0]  # equal classes: always the lower one
    assert (ablation.scores[2:] == 0.5).all()


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_a_group_of_all_dimensions_is_defined(splits, reader):
    train, test = splits
    ablation = ablate(train, test, reader=reader, groups=[list(range(6))])
    if reader == "ridge":
        expected = np.bincount(train.labels).argmax()
    else:  # all similarities are 0: the first five rows vote
        expected = np.bincount(train.labels[:5]).argmax()
    assert ablation.scores[0] == (test.labels == expected).mean()


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_balanced_accuracy_equals_scikit_learn(splits, reader):
    train, test = splits
    rows = np.concatenate([np.flatnonzero(test.labels != 4), np.flatnonzero(test.labels == 4)[:5]])
    test = test.take(rows)
    fit = fit_knn if reader == "knn" else fit_ridge
    ablation = ablate(train, test, reader=reader, score="balanced_accuracy")
    for d in range(6):
        predicted = fit(without(train, [d]), train.labels).predict(without(test, [d]))
        expected = balanced_accuracy_score(test.labels, predicted)
        np.testing.assert_allclose(ablation.scores[d], expected)
    assert (ablation.ci_high - ablation.ci_low > 0).all()
    assert (ablation.ci_low <= ablation.importance).all()
    assert (ablation.importance <= ablation.ci_high).all()


def test_balanced_accuracy_without_a_changed_outcome_still_has_width():
    rng = np.random.default_rng(8)
    train, test = worlds.informative_world(rng), worlds.informative_world(rng)
    train, test = (r.select([2, 0]) for r in (train, test))
    scaled = [Representation(r.features * [1, 1e-3], labels=r.labels) for r in (train, test)]
    ablation = ablate(*scaled, score="balanced_accuracy")
    assert ablation.importance[1] == 0
    # Per class n = 200 and no discordant pair: z^2 / (n + z^2), root of summed squares over two.
    expected = 1.959964**2 / (200 + 1.959964**2) * np.sqrt(2) / 2
    np.testing.assert_allclose([-ablation.ci_low[1], ablation.ci_high[1]], expected, rtol=1e-5)


@worlds.rows_repeat
def test_balanced_accuracy_is_tested_with_every_class_alike():
    """Without dimension 2 ten rows of 20 of one class are lost, and ten of 380 of the other won."""
    train = Representation(np.array([[1.0, 0, 0], [0, 1, 1]]), labels=np.array([0, 1]))
    changed, common, rare = [0.6, 0, 1], [1.0, 0, 0], [0.0, 1, 1]
    features = np.array([changed] * 20 + [common] * 370 + [rare] * 10)
    labels = np.array([1] * 10 + [0] * 380 + [1] * 10)
    found = ablate(train, Representation(features, labels=labels), k=1, score="balanced_accuracy")
    np.testing.assert_allclose(found.importance[2], (10 / 20 - 10 / 380) / 2)
    assert found.p_value[2] < 0.01
    assert found.ci_low[2] > 0


def test_knn_log_loss_equals_scikit_learn_on_smoothed_shares(splits):
    train, test = splits
    ablation = ablate(train, test, score="log_loss", temperature=0.3)
    for d in (0, 4):
        kept = np.arange(6) != d
        shares = [
            [
                references.knn_share(train.features[:, kept], train.labels, q[kept], 5, 0.3, c)
                for c in ablation.classes
            ]
            for q in test.features
        ]
        probability = (np.array(shares) * 5 + 1) / (5 + 3)
        expected = log_loss(test.labels, probability, labels=ablation.classes)
        np.testing.assert_allclose(ablation.scores[d], expected, atol=1e-9)
    np.testing.assert_allclose(ablation.importance, ablation.scores - ablation.full_score)


def test_the_ridge_temperature_minimises_the_loss_of_honest_leave_one_out_logits():
    rng = np.random.default_rng(9)
    train, test = noisy(rng, n=60), noisy(rng, n=80)
    ablation = ablate(train, test, reader="ridge", score="log_loss", penalty=0.1)
    reader = fit_ridge(train.features, train.labels, penalty=0.1)
    z = reader.standardise(train.features)
    one_hot = (train.labels[:, None] == reader.classes).astype(float)
    held_out = np.empty_like(one_hot)
    for i in range(60):  # solved again without sample i; the standardisation stays
        kept = np.arange(60) != i
        rows = np.hstack([z[kept], np.ones((59, 1))])
        ridge = np.diag([*[0.1 * 60] * 6, 0.0])
        weights = np.linalg.solve(rows.T @ rows + ridge, rows.T @ one_hot[kept])
        held_out[i] = np.append(z[i], 1) @ weights
    temperatures = np.exp(np.linspace(-4, 1, 4001))
    scores = held_out.T[:, None, :] / temperatures[:, None]  # (K, temperatures, samples)
    own = scores[np.searchsorted(reader.classes, train.labels), :, np.arange(60)]
    losses = np.log(np.exp(scores).sum(axis=0)).mean(axis=1) - own.mean(axis=0)
    best = temperatures[int(np.argmin(losses))]
    expected = softmax_loss(reader.logits(test.features) / best, test.labels, reader.classes)
    np.testing.assert_allclose(ablation.full_score, expected, rtol=1e-3)
    uncalibrated = softmax_loss(reader.logits(test.features), test.labels, reader.classes)
    assert ablation.full_score < 0.95 * uncalibrated


def softmax_loss(logits, labels, classes):
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return log_loss(labels, probability, labels=classes)


@pytest.mark.long
@pytest.mark.parametrize("score", ["balanced_accuracy", "log_loss"])
def test_bootstrap_intervals_cover(score, monkeypatch):
    """The importance over a large test split is inside about 95 % of small ones' intervals."""
    monkeypatch.setattr("dimlab.probes._importance._N_SIGN_FLIPS", 9)
    rng = np.random.default_rng(10)
    train = noisy(rng, n=120, shift=0.5)
    truth = ablate(train, noisy(rng, n=30_000, shift=0.5), reader="ridge", score=score, refit=False)
    inside = []
    for seed in range(60):
        each = ablate(
            train,
            noisy(rng, n=300, shift=0.5),
            reader="ridge",
            score=score,
            refit=False,
            n_bootstrap=400,
            seed=seed,
        )
        above = each.ci_low[:3] <= truth.importance[:3]
        inside.append(above & (truth.importance[:3] <= each.ci_high[:3]))
    assert 0.88 < np.mean(inside) <= 1.0


# Laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_permuting_the_dimensions_permutes_the_answer(splits, configuration, seed):
    order = np.random.default_rng(seed).permutation(6)
    straight = ablate(*splits, **configuration)
    permuted = ablate(*(r.select(order) for r in splits), **configuration)
    for name in ("scores", "importance", "ci_low", "ci_high", "p_value", "q_value", "per_class"):
        expected = getattr(straight, name)[order]
        np.testing.assert_allclose(getattr(permuted, name), expected, atol=1e-12)


@pytest.mark.parametrize("configuration", CONFIGURATIONS[:3])
@pytest.mark.parametrize("exponent", [-40, 3, 60])
def test_powers_of_two_change_nothing(splits, configuration, exponent):
    scaled = [Representation(r.features * 2.0**exponent, labels=r.labels) for r in splits]
    expected = ablate(*splits, **configuration).scores
    np.testing.assert_array_equal(ablate(*scaled, **configuration).scores, expected)


@pytest.mark.parametrize("score", ["accuracy", "log_loss"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_groups_of_one_are_the_dimensions(splits, configuration, score):
    alone = ablate(*splits, score=score, **configuration)
    grouped = ablate(*splits, score=score, groups=[[d] for d in range(6)], **configuration)
    np.testing.assert_allclose(grouped.scores, alone.scores, atol=1e-12)
    np.testing.assert_allclose(grouped.ci_low, alone.ci_low, atol=1e-12)


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "log_loss"])
@pytest.mark.parametrize("reader", ["knn", "ridge", "logistic"])
def test_importance_is_what_is_lost(splits, reader, score):
    ablation = ablate(*splits, reader=reader, score=score)
    sign = -1 if score == "log_loss" else 1
    np.testing.assert_allclose(
        ablation.importance, sign * (ablation.full_score - ablation.scores), atol=1e-15
    )
    assert ablation.importance[:3].min() > 0  # the class dimensions are needed, by any score
    assert (ablation.ci_low <= ablation.importance).all()
    assert (ablation.importance <= ablation.ci_high).all()


def test_the_same_seed_gives_the_same_numbers_and_another_moves_only_the_inference(splits):
    first, again = (ablate(*splits, score="log_loss", seed=3) for _ in range(2))
    other = ablate(*splits, score="log_loss", seed=4)
    np.testing.assert_array_equal(first.ci_low, again.ci_low)
    np.testing.assert_array_equal(first.p_value, again.p_value)
    np.testing.assert_array_equal(first.scores, other.scores)
    assert np.abs(first.ci_low - other.ci_low).max() > 0


def test_float32_features_are_cast_not_searched_in_float32():
    rng = np.random.default_rng(11)
    train, test = noisy(rng, n=200), noisy(rng, n=50)
    single = [Representation(r.features.astype("f4"), labels=r.labels) for r in (train, test)]
    cast = [Representation(r.features.astype("f8"), labels=r.labels) for r in single]
    np.testing.assert_array_equal(ablate(*single).scores, ablate(*cast).scores)


# The value -----------------------------------------------------------------------------------


def test_the_frame_has_one_row_a_dimension(splits):
    ablation = ablate(*splits)
    frame = ablation.to_frame()
    assert list(frame.columns) == [
        "group",
        "dimension",
        "score",
        "importance",
        "ci_low",
        "ci_high",
        "p_value",
        "q_value",
        "fcr_low",
        "fcr_high",
        "log_loss_importance",
        "log_loss_p_value",
        "log_loss_unreliable",
    ]
    np.testing.assert_array_equal(frame["dimension"], np.arange(6))
    np.testing.assert_array_equal(frame["score"], ablation.scores)
    np.testing.assert_array_equal(frame["ci_high"], ablation.ci_high)


def test_the_frame_of_groups_lists_their_dimensions(splits):
    ablation = ablate(*splits, groups=[[3, 1, 3], [5]])
    assert ablation.to_frame()["dimensions"].tolist() == ["1 3", "5"]
    assert len(ablation) == 2


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_the_summary_is_json_and_says_what_intervals_condition_on(splits, reader):
    ablation = ablate(*splits, reader=reader)
    summary = json.loads(json.dumps(ablation.summary(), allow_nan=False))
    assert summary["n_needed"] == len(ablation.needed) > 0
    assert summary["n_harmful"] == 0
    assert summary["most_needed"][0] == [int(ablation.importance.argmax())]
    assert "given the train split" in summary["intervals"]
    assert (summary["certified_share"] is not None) == (reader == "knn")


def test_needed_and_harmful_read_q_not_p():
    values = np.array([0.2, -0.1, 0.3, -0.4, 0.0])
    q = np.array([0.01, 0.04, 0.06, 0.05, 0.01])
    ablation = Ablation(
        reader="knn", refit=True, fill=None, score="accuracy", full_score=0.5,
        scores=0.5 - values, importance=values, ci_low=values - 1, ci_high=values + 1,
        p_value=q / 10, q_value=q, per_class=np.zeros((5, 2)),
        groups=tuple(np.arange(5)[:, None]), classes=np.arange(2), constant=np.array([], int),
        n_train=9, n_test=9, n_dimensions=5, log_loss_importance=values, log_loss_p_value=q,
    )  # fmt: skip
    assert ablation.needed.tolist() == [0]
    assert ablation.harmful.tolist() == [3, 1]


def test_progress_is_reported_to_the_end(splits):
    seen = []
    ablate(*splits, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (90, 90)


def test_a_class_that_test_lacks_is_nan_per_class(splits):
    train, test = splits
    ablation = ablate(train, test.take(test.labels != 4), score="balanced_accuracy")
    np.testing.assert_array_equal(np.isnan(ablation.per_class), [[False, True, False]] * 6)
    np.testing.assert_array_equal(np.isnan(ablation.per_class_q), [[False, True, False]] * 6)
    loss = ablate(train, test, score="log_loss")
    assert np.isnan(loss.per_class_q).all()  # nothing is tested within a class


# Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reader": "tree"}, r"^reader must be one of 'knn', 'ridge', 'logistic'; got 'tree'\.$"),
        ({"score": "f1"}, r"^score must be one of 'accuracy', .*; got 'f1'\.$"),
        ({"fill": "max"}, r"^fill must be one of 'mean', 'zero', 'shuffle', 'noise'; got 'max'\.$"),
        ({"refit": False}, r"^refit must be True for reader 'knn', .*; got False\.$"),
        (
            {"fill": "noise"},
            r"^fill must be left out for reader 'knn', .*'noise'\.$",
        ),
        ({"reader": "ridge", "fill": "zero"}, r"^fill must be left out .*; got 'zero'\.$"),
        ({"reader": "logistic", "refit": True, "fill": "zero"}, r"^fill must be left out"),
        ({"k": 0}, r"^k must be an integer in 1\.\.150, .*; got 0\.$"),
        ({"k": 151}, r"^k must be an integer in 1\.\.150, .*; got 151\.$"),
        ({"temperature": 0.0}, r"^temperature must be > 0; got 0\.$"),
        ({"penalty": -1.0}, r"^penalty must be > 0; got -1\.$"),
        ({"n_bootstrap": 0}, r"^n_bootstrap must be >= 1; got 0\.$"),
        ({"resample": "both"}, r"^resample must be one of 'test', 'train'; got 'both'\.$"),
        (
            {"resample": "train"},
            r"^resample must be 'test' unless reader is 'ridge', .* 'knn'",
        ),
        (
            {"resample": "train", "reader": "ridge", "score": "balanced_accuracy"},
            r"^resample must be 'test' unless .*; got 'train' with reader 'ridge', bal",
        ),
        ({"clusters": "patient"}, r"^clusters must name a factor of every split, one of none; got"),
        ({"groups": []}, r"^groups must hold at least one group; got none\.$"),
        ({"groups": [[0], []]}, r"^groups\[1\] must be a list of at least one dimension; got"),
        ({"groups": [[0.5]]}, r"^groups\[0\] must be a list of at least one dimension; got"),
        ({"groups": [[0, 6]]}, r"^groups\[0\] must lie in \[0, 6\); got 0\.\.6\.$"),
        ({"groups": [[-1]]}, r"^groups\[0\] must lie in \[0, 6\); got -1\.\.-1\.$"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        ablate(*splits, **arguments)


def test_missing_labels_are_refused(splits):
    train, test = splits
    bare = Representation(test.features)
    message = r"^ablate needs labels: build the Representation .*, or pass score='view_ret"
    with pytest.raises(ValueError, match=message):
        ablate(train, bare)
    with pytest.raises(ValueError, match=message):
        ablate(Representation(train.features), test)


def test_splits_of_different_width_are_refused(splits):
    train, test = splits
    with pytest.raises(ValueError, match=r"^test must have 6 dimensions to match train; got 2\.$"):
        ablate(train, test.select([0, 1]))


def test_a_class_that_train_lacks_is_refused(splits):
    train, test = splits
    labels = test.labels.copy()
    labels[3] = 77
    with pytest.raises(ValueError, match=r"^test labels must be .* train has; got class 77\.$"):
        ablate(train, Representation(test.features, labels=labels))


def test_a_penalty_too_small_for_the_closed_form_is_refused(splits):
    twice = [Representation(np.tile(r.features, 2), labels=r.labels) for r in splits]
    with pytest.raises(ValueError, match=r"^penalty must be at least .*; got 1e-14\.$"):
        ablate(*twice, reader="ridge", penalty=1e-14)
    frozen = ablate(*twice, reader="ridge", penalty=1e-9, refit=False)  # needs no closed form
    assert frozen.full_score > 0.5


def test_no_warning_leaves_the_probe(splits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for configuration in CONFIGURATIONS:
            ablate(*splits, score="log_loss", **configuration)


# Redundancy, bases, memory ---------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_redundancy_that_hides_a_group_is_said(reader):
    rng = np.random.default_rng(0)

    def split(n):
        labels = np.arange(n) % 2
        signal = (2 * labels - 1) * 2.0 + rng.normal(size=n)
        copies = signal[:, None] + 1e-3 * rng.normal(size=(n, 3))
        return Representation(np.hstack([copies, rng.normal(size=(n, 4))]), labels=labels)

    ablation = ablate(split(300), split(300), reader=reader)
    assert [group.tolist() for group in ablation.hidden_groups] == [[0, 1, 2]]
    assert "Ablate groups" in ablation.summary()["warning"]
    assert len(set(ablation.needed.tolist()) & {0, 1, 2}) == 0
    # negative control: without the copies the dimension is needed, and nothing is hidden
    once = [each.select([0, 3, 4, 5, 6]) for each in (split(300), split(300))]
    ablation = ablate(*once, reader=reader)
    assert 0 in ablation.needed
    assert ablation.hidden_groups == ()
    assert "warning" not in ablation.summary()


def test_among_many_groups_of_copies_of_noise_none_is_said_to_hide():
    """Forty groups a world, each a test: at 5 % a test most worlds would name some."""
    n_named = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        train, test = (
            Representation(np.repeat(rng.normal(size=(n, 40)), 2, axis=1), labels=np.arange(n) % 2)
            for n in (80, 1500)
        )
        n_named += len(ablate(train, test, reader="ridge").hidden_groups)
    assert n_named <= 1


@pytest.mark.parametrize("reader", ["knn", "ridge"])
def test_duplicating_every_dimension_leaves_the_importance_of_groups(splits, reader):
    # a ridge of copies has half the penalty: none to speak of is left of either
    twice = [Representation(np.hstack([r.features] * 2), labels=r.labels) for r in splits]
    groups = [[d, d + 6] for d in range(6)]
    settings = {"penalty": 1e-7} if reader == "ridge" else {}
    once = ablate(*splits, reader=reader, **settings)
    both = ablate(*twice, reader=reader, groups=groups, **settings)
    np.testing.assert_allclose(both.importance, once.importance, atol=1e-9)
    assert np.abs(once.importance).max() > 0.05  # there is something to leave


def test_the_log_loss_beside_accuracy_is_that_of_the_log_loss_score(splits):
    beside = ablate(*splits, reader="ridge")
    own = ablate(*splits, reader="ridge", score="log_loss")
    np.testing.assert_allclose(beside.log_loss_importance, own.importance, atol=1e-12)
    assert np.abs(beside.log_loss_p_value - own.p_value).max() < 0.03  # other signs
    np.testing.assert_array_equal(own.log_loss_p_value, own.p_value)


@pytest.mark.parametrize("kind", ["pca", "varimax"])
def test_in_a_rotated_basis_the_full_score_stays_and_the_basis_is_named(splits, kind):
    basis = fit_basis(splits[0], kind)
    rotated = [basis.apply(each) for each in splits]
    for reader in ("knn", "ridge"):
        ablation = ablate(*rotated, reader=reader)
        assert ablation.basis == ablation.summary()["basis"] == kind
        if reader == "knn":
            assert ablation.full_score == ablate(*splits, reader=reader).full_score
    assert ablate(*splits).summary()["basis"] == "axes"
    with pytest.raises(ValueError, match=rf"^test must be in the basis of train, {kind}; got axes"):
        ablate(rotated[0], splits[1])


def test_a_memory_budget_changes_nothing_but_refuses_the_impossible(splits):
    whole, tight = ablate(*splits), ablate(*splits, memory=3e-4)
    np.testing.assert_array_equal(whole.scores, tight.scores)
    with pytest.raises(ValueError, match=r"^memory must be at least .* GB for 150 train rows"):
        ablate(*splits, memory=1e-6)


# Selection, clusters, alone, variation of train --------------------------------------------------


def test_only_what_q_finds_is_called_needed_or_harmful():
    """No dimension is better or worse in the null world; the lowest ones are called undecided."""
    rng = np.random.default_rng(20)
    train, test = noisy(rng, n=120), noisy(rng, n=150)
    null = Representation(test.features, labels=rng.permutation(test.labels))
    summary = ablate(train, null).summary()
    assert summary["most_needed"] == summary["most_harmful"] == []
    assert 0 < len(summary["lowest_undecided"]) + len(summary["highest_undecided"]) <= 6
    found = ablate(train, test)
    named = [d for (d,) in found.summary()["most_needed"]]
    assert named == found.needed.tolist() != []
    assert set(found.undecided.tolist()) == set(range(6)) - set(named)
    lowest = found.importance[found.undecided]
    assert (np.diff(lowest) >= 0).all()


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "log_loss"])
def test_intervals_beside_chosen_groups_allow_for_the_choice(splits, score):
    ablation = ablate(splits[0], noisy(np.random.default_rng(28), n=250), score=score)
    chosen = ablation.q_value <= 0.05
    assert 0 < chosen.sum() < 6
    assert (ablation.fcr_low[chosen] <= ablation.ci_low[chosen]).all()
    assert (ablation.fcr_high[chosen] >= ablation.ci_high[chosen]).all()
    assert np.isnan([ablation.fcr_low[~chosen], ablation.fcr_high[~chosen]]).all()
    frame = ablation.to_frame()
    np.testing.assert_array_equal(frame["fcr_low"], ablation.fcr_low)


def test_the_level_beside_chosen_groups_is_that_of_benjamini_and_yekutieli():
    rng = np.random.default_rng(21)
    train, test = worlds.informative_world(rng), worlds.informative_world(rng, n=600)
    ablation = ablate(train, test, reader="ridge")
    (found,) = np.flatnonzero(ablation.q_value <= 0.05)  # one of six
    change = round(ablation.importance[found] * 600)
    discordant = ablation.per_class[found]
    assert change > 0
    assert len(discordant) == 2
    right = fit_ridge(train.features, train.labels).predict(test.features) == test.labels
    without = fit_ridge(np.delete(train.features, found, 1), train.labels)
    left = without.predict(np.delete(test.features, found, 1)) == test.labels
    expected = tango_interval((right & ~left).sum(), (left & ~right).sum(), 600, level=1 - 0.05 / 6)
    np.testing.assert_allclose([ablation.fcr_low[found], ablation.fcr_high[found]], expected)


@pytest.mark.long
def test_chosen_null_dimensions_are_rarely_missed_by_their_intervals():
    """Of 40 dimensions that change nothing on average, those chosen would always exclude 0."""
    rng = np.random.default_rng(22)
    missed = []
    for _ in range(60):
        train, test = noisy(rng, n=120), noisy(rng, n=400)
        wide = [np.hstack([r.features, rng.normal(size=(len(r), 34))]) for r in (train, test)]
        null = Representation(wide[1], labels=rng.permutation(test.labels))
        found = ablate(Representation(wide[0], labels=train.labels), null, reader="ridge")
        missed.append(((found.fcr_low > 0) | (found.fcr_high < 0)).any())
    assert np.mean(missed) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "log_loss"])
def test_copies_of_test_rows_warn_and_as_clusters_count_once(splits, score):
    train, test = splits
    copies = test.take(np.repeat(np.arange(90), 4))
    with pytest.warns(UserWarning, match=r"^270 of 360 test rows repeat another row exactly"):
        naive = ablate(train, copies, score=score, reader="ridge")
    assert "clusters=" in naive.summary()["caution"]
    ablation = ablate(
        train, copies, score=score, reader="ridge", clusters=np.repeat(np.arange(90), 4)
    )
    once = ablate(train, test, score=score, reader="ridge")
    np.testing.assert_allclose(ablation.importance, once.importance, atol=1e-12)
    np.testing.assert_allclose(ablation.ci_low, once.ci_low, atol=0.03)
    np.testing.assert_allclose(ablation.ci_high, once.ci_high, atol=0.03)
    np.testing.assert_allclose(ablation.p_value, once.p_value, rtol=0.3, atol=0.02)
    length = naive.ci_high - naive.ci_low
    assert (ablation.ci_high - ablation.ci_low > 1.3 * length)[once.importance != 0].all()
    assert ablation.n_clusters == ablation.summary()["n_clusters"] == 90
    assert "clusters of test samples (90)" in ablation.summary()["intervals"]
    assert "caution" not in ablation.summary()


def test_clusters_may_be_a_factor_and_hidden_groups_count_them(monkeypatch):
    seen = []
    rng = np.random.default_rng(23)

    def split(n):
        labels = np.arange(n) % 2
        signal = (2 * labels - 1) * 2.0 + rng.normal(size=n)
        features = np.hstack(
            [signal[:, None] + 1e-3 * rng.normal(size=(n, 2)), rng.normal(size=(n, 2))]
        )
        return Representation(features, labels=labels, factors={"patient": np.arange(n) // 10})

    from dimlab.probes import _importance as module

    def watched(change, clusters):
        seen.append(clusters)
        return paired_test(change, clusters)

    monkeypatch.setattr(module, "paired_test", watched)
    train, test = split(200), split(200)
    ablation = ablate(train, test, reader="ridge", clusters="patient")
    assert [group.tolist() for group in ablation.hidden_groups] == [[0, 1]]
    np.testing.assert_array_equal(seen[0], np.arange(200) // 10)


@pytest.mark.parametrize("reader", ["knn", "ridge", "logistic"])
def test_the_score_of_a_group_alone_is_that_of_a_reader_of_it(splits, reader):
    train, test = splits
    groups = [[0], [1, 2], list(range(6))]
    ablation = ablate(train, test, reader=reader, groups=groups, alone=True)
    fit = {"knn": fit_knn, "ridge": fit_ridge, "logistic": fit_logistic}[reader]
    for score, group in zip(ablation.alone_score, groups, strict=True):
        fitted = fit(train.features[:, group], train.labels)
        assert score == fitted.accuracy(test.features[:, group], test.labels)
    assert ablation.alone_score[2] == ablation.full_score
    np.testing.assert_array_equal(ablation.to_frame()["alone_score"], ablation.alone_score)
    assert ablate(train, test, reader=reader, groups=groups).alone_score is None


def test_rough_log_losses_are_said_beside_the_number():
    rng = np.random.default_rng(24)
    train, test = worlds.useless_world(rng), worlds.useless_world(rng)
    ablation = ablate(train, test, reader="ridge", score="log_loss")
    assert ablation.log_loss_unreliable[4]  # constant: no row differs
    assert not ablation.log_loss_unreliable[:4].all()
    assert ablation.ci_low[4] < 0 < ablation.ci_high[4]
    summary = ablation.summary()
    assert summary["n_log_loss_unreliable"] == ablation.log_loss_unreliable.sum()
    assert "fewer than 20 rows" in summary["p_values"]
    np.testing.assert_array_equal(
        ablation.to_frame()["log_loss_unreliable"], ablation.log_loss_unreliable
    )


def jackknifed(train, test, ids, score):
    """Delete-block jackknife by hand, over the blocks that ablate draws."""
    blocks = train_blocks(Split(train.features, train.labels, ids), 0)
    kept = [train.take(blocks != block) for block in range(blocks.max() + 1)]
    if score == "log_loss":
        options = {"reader": "ridge", "score": score, "n_bootstrap": 1}
        values = [ablate(some, test, **options).importance for some in kept]
        return np.sqrt((len(kept) - 1) * np.var(values, axis=0)), len(kept)
    changes = np.empty((len(kept), len(test), 6))
    for block, some in enumerate(kept):
        right = fit_ridge(some.features, some.labels).predict(test.features) == test.labels
        for d in range(6):
            fitted = fit_ridge(without(some, [d]), some.labels)
            left = fitted.predict(without(test, [d])) == test.labels
            changes[block, :, d] = right.astype(int) - left
    around = changes - changes.mean(axis=0)
    by_chance = around.var(axis=1, ddof=1) / len(test)
    variance = (around.mean(axis=1) ** 2 - by_chance).sum(axis=0)
    return np.sqrt((len(kept) - 1) / len(kept) * np.maximum(variance, 0)), len(kept)


@pytest.mark.parametrize("score", ["accuracy", "log_loss"])
@pytest.mark.parametrize("clustered", [False, True])
def test_variation_of_train_adds_a_jackknife_to_that_of_test(splits, score, clustered):
    train, test = splits
    ids = np.arange(150) // 10 if clustered else None  # fewer clusters than blocks
    clusters = (ids, np.arange(90)) if clustered else None
    options = {"reader": "ridge", "score": score, "clusters": clusters}
    given, both = (ablate(train, test, **options, resample=r) for r in ("test", "train"))
    spread, n_blocks = jackknifed(train, test, ids, score)
    assert n_blocks == (15 if clustered else 20)
    quantile, z = t.ppf(0.975, n_blocks - 1), norm.ppf(0.975)
    low = given.importance - quantile * np.hypot((given.importance - given.ci_low) / z, spread)
    high = given.importance + quantile * np.hypot((given.ci_high - given.importance) / z, spread)
    np.testing.assert_array_equal(both.importance, given.importance)
    assert (spread > 0).sum() > 2
    np.testing.assert_allclose([both.ci_low, both.ci_high], [low, high], rtol=1e-5)
    np.testing.assert_array_equal(both.p_value <= 0.05, (low > 0) | (high < 0))
    np.testing.assert_allclose(both.q_value, false_discovery_control(both.p_value))
    assert "train splits of this size" in both.summary()["intervals"]
    assert "given the train split" in given.summary()["intervals"]
    np.testing.assert_array_equal(both.log_loss_importance, given.log_loss_importance)


def test_blocks_of_train_share_classes_and_keep_clusters_whole():
    rng = np.random.default_rng(25)
    codes = rng.permutation(np.repeat([0, 1, 2], [100, 50, 1]))
    blocks = train_blocks(Split(codes, codes), 0)
    assert np.bincount(blocks[codes == 0]).tolist() == [5] * 20
    assert set(np.bincount(blocks[codes == 1], minlength=20).tolist()) == {2, 3}
    assert (blocks != train_blocks(Split(codes, codes), 1)).any()
    clusters = rng.integers(0, 40, size=151)
    of_clusters = train_blocks(Split(codes, codes, clusters), 0)
    assert all(len(np.unique(of_clusters[clusters == c])) == 1 for c in np.unique(clusters))
    assert np.ptp(np.bincount(of_clusters)) < 8


def test_a_class_of_one_train_row_stays_in_every_fit(splits):
    """Else the other classes would be numbered from 0 in the fit that lacks it."""
    train, test = splits
    labels = train.labels.copy()
    labels[0] = 0
    rare = Representation(train.features, labels=labels)
    ablation = ablate(rare, test, reader="ridge", resample="train")
    assert ablation.classes.tolist() == [0, 1, 4, 6]
    usual = ablate(train, test, reader="ridge", resample="train")
    lengths = (ablation.ci_high - ablation.ci_low) / (usual.ci_high - usual.ci_low)
    assert (lengths < 1.5).all()


@pytest.mark.long
@pytest.mark.parametrize("score", ["accuracy", "log_loss"])
def test_intervals_over_train_cover_the_mean_over_train_splits(score):
    """They hold the mean importance over train splits; those given one train split need not."""
    rng = np.random.default_rng(26)

    def world(n):
        return noisy(rng, n=n, d=5, shift=0.5)

    options = {"reader": "ridge", "score": score, "n_bootstrap": 200}
    big = world(8000)
    truth = np.mean([ablate(world(150), big, **options).importance for _ in range(30)], axis=0)
    inside, both, estimates, lengths = [], [], [], []
    for seed in range(30):
        splits = world(150), world(1000)
        found = ablate(*splits, **options, resample="train", seed=seed)
        given = ablate(*splits, **options, seed=seed)
        both.append((found.ci_low <= truth) & (truth <= found.ci_high))
        inside.append((given.ci_low <= truth) & (truth <= given.ci_high))
        estimates.append(found.importance)
        lengths.append(found.ci_high - found.ci_low)
    assert np.mean(both) >= 0.93
    assert np.mean(inside) < np.mean(both) - 0.02
    oracle = 2 * 1.96 * np.std(estimates, axis=0)
    assert (np.median(lengths, axis=0) < 2 * oracle).all()


@pytest.mark.long
@pytest.mark.parametrize("score", ["accuracy", "log_loss"])
def test_over_train_the_null_holds_its_level(score):
    rng = np.random.default_rng(27)
    p = []
    for seed in range(30):
        nulls = [
            Representation(r.features, labels=rng.permutation(r.labels))
            for r in (noisy(rng, n=150), noisy(rng, n=400))
        ]
        found = ablate(*nulls, reader="ridge", score=score, resample="train", seed=seed)
        p.append(found.p_value)
    assert (np.array(p) <= 0.05).mean() <= 0.06


def test_the_verdict_names_what_hurts_and_what_is_needed():
    """Dimension 1 misleads: it carries the label on train and its opposite on test."""
    rng, labels = np.random.default_rng(5), np.arange(300) % 2
    signs = 2 * labels - 1
    train, test = (
        Representation(
            rng.normal(size=(300, 4)) + np.outer(signs, [1.5, side, 0, 0]), labels=labels
        )
        for side in (1, -1)
    )
    for others, answer, tone in ((test, "yes", "bad"), (train, "no", "good")):
        found = verdict_of(ablate(train, others, reader="ridge"))
        assert (found.answer, found.tone) == (answer, tone)
    hurt = verdict_of(ablate(train, test, reader="ridge"))
    assert hurt.dimensions == (1,)
    assert "Of 4 dimensions, needed: 1 (0); harmful: 1 (1); undecided: 2." in hurt.because
    noise = Representation(rng.normal(size=(300, 4)), labels=labels)
    assert verdict_of(ablate(noise, noise.take(range(9)), reader="ridge")).tone == "open"
