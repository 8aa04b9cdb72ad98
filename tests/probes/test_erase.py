"""Erasure: closed forms against refits, planted shortcuts, and what must not be claimed."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from dimlab.basis import fit_basis
from dimlab.kernels.effects import Label
from dimlab.kernels.erasure import (
    Removal,
    RidgeMoments,
    least_squares_eraser,
    without_directions,
)
from dimlab.kernels.means import bootstrap_sums
from dimlab.probes.erase import erase
from dimlab.representation import Representation
from tests import worlds
from tests.reading import fit_knn, fit_logistic, fit_ridge


def shortcut(seed, correlation, n=3000):
    """Two classes; dimensions 0-1 read the class weakly, 2-3 the nuisance, 4-7 nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    sign = 2.0 * labels - 1
    x = correlation * sign + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    features = rng.normal(size=(n, 8))
    features[:, :2] += 0.7 * sign[:, None]
    features[:, 2:4] += 2.0 * x[:, None]
    return Representation(
        features, labels=labels, factors={"x": x, "kind": np.where(x > 0, "up", "down")}
    )


# Maps ----------------------------------------------------------------------------------------


def random_moments(rng, d=7, t=2):
    root = rng.normal(size=(d, d))
    return root @ root.T, rng.normal(size=(d, t))


def test_leace_is_the_closed_form_of_the_constrained_problem():
    """min tr (A-I) S (A-I)' with A C = 0, by Lagrange: I - C (C' S^-1 C)^-1 C' S^-1."""
    for seed in range(20):
        covariance, cross = random_moments(np.random.default_rng(seed))
        solved = np.linalg.solve(covariance, cross)
        expected = np.eye(7) - cross @ np.linalg.solve(cross.T @ solved, solved.T)
        found = least_squares_eraser(covariance, cross).matrix
        np.testing.assert_allclose(found, expected, atol=1e-8)
        np.testing.assert_allclose(found @ cross, 0, atol=1e-9)


def test_leace_leaves_what_does_not_covary_and_works_where_features_are_collinear():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 6))
    concept = features @ rng.normal(size=6) + rng.normal(size=500)
    centred, concept = features - features.mean(axis=0), concept - concept.mean()
    eraser = least_squares_eraser(centred.T @ centred / 500, (centred.T @ concept / 500)[:, None])
    left = eraser.of_rows(centred)
    np.testing.assert_allclose(left, centred @ eraser.matrix.T, atol=1e-9)
    fit = LinearRegression().fit(left, concept)
    assert fit.score(left, concept) < 1e-10
    assert LinearRegression().fit(centred, concept).score(centred, concept) > 0.3
    assert eraser.rank == 1
    np.testing.assert_allclose(np.trace(eraser.matrix), 5, atol=1e-6)


def test_no_scale_hides_a_direction_from_leace():
    rng = np.random.default_rng(0)
    for scale in (1e-8, 1e6, 1e8):
        units = np.array([scale, 1.0, 1.0, 1 / scale])
        root = rng.normal(size=(4, 4))
        covariance, cross = root @ root.T, rng.normal(size=(4, 1))
        plain = least_squares_eraser(covariance, cross).matrix
        eraser = least_squares_eraser(covariance * np.outer(units, units), units[:, None] * cross)
        found = eraser.matrix
        np.testing.assert_allclose(found / np.outer(units, 1 / units), plain, atol=1e-6)
        left = found @ (units[:, None] * cross)
        assert np.abs(left / units[:, None]).max() < 1e-6 * np.abs(cross).max()


def test_extreme_units_change_nothing():
    train, test = shortcut(19, 0.5, n=300), shortcut(20, 0.0, n=300)
    plain = erase(train, test, factor="x").to_frame()
    for unit in (1e160, 1e-160):
        moved = [
            Representation(each.features * unit, labels=each.labels, factors=each.factors)
            for each in (train, test)
        ]
        found = erase(*moved, factor="x").to_frame()
        np.testing.assert_allclose(
            found.iloc[:, 3:].to_numpy(), plain.iloc[:, 3:].to_numpy(), atol=1e-6
        )


def test_directions_go_and_the_other_scores_stay():
    rng = np.random.default_rng(1)
    train = Representation(rng.uniform(size=(300, 5)) @ rng.normal(size=(5, 5)))
    for kind in ("pca", "whiten", "varimax", "ica"):
        basis = fit_basis(train, kind)
        back = np.linalg.pinv(basis.directions)
        map_ = without_directions(basis.directions, back, np.array([1, 3]))
        centred = train.features - train.features.mean(axis=0)
        before, after = centred @ basis.directions, map_.of_rows(centred) @ basis.directions
        np.testing.assert_allclose(after[:, [1, 3]], 0, atol=1e-9)
        np.testing.assert_allclose(after[:, [0, 2, 4]], before[:, [0, 2, 4]], atol=1e-9)


def test_a_ridge_behind_a_map_is_one_fitted_on_mapped_features():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 6)) * [1, 3, 0.1, 5, 1, 0] + 2
    targets = features[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(200, 3))
    moments = RidgeMoments.of(features, targets)
    removal = Removal(*rng.normal(size=(2, 6, 2)))
    assert np.abs(removal.matrix).max() <= removal.largest
    kept = np.array([1, 2, 3, 5])
    of_kept = np.diag([0, 1, 1, 1, 0, 1])
    for map_, dense in ((None, np.eye(6)), (kept, of_kept), (removal, removal.matrix)):
        mapped = (features - moments.mean) @ dense.T
        scale = mapped.std(axis=0)
        scaled = mapped / np.where(scale > 1e-12, scale, 1)
        scaled[:, scale <= 1e-12] = 0
        fit = Ridge(alpha=0.05 * 200).fit(scaled, targets)
        weights = moments.weights_behind(map_, 0.05)
        found = (features - moments.mean) @ weights + moments.target_mean
        np.testing.assert_allclose(found, fit.predict(scaled), atol=1e-9)


@pytest.mark.parametrize("n_at_once", [1 << 22, 60])
def test_moments_given_classes_are_those_of_columns_that_say_them_in_any_blocks(
    n_at_once, monkeypatch
):
    monkeypatch.setattr("dimlab.kernels.erasure._ELEMENTS", n_at_once)
    monkeypatch.setattr("dimlab.kernels.effects._ELEMENTS", n_at_once)
    rng = np.random.default_rng(3)
    codes = rng.permutation(np.arange(90) % 4)
    features, targets = rng.normal(size=(90, 5)) + codes[:, None], rng.normal(size=(90, 2))
    onehot = np.eye(4)[codes]
    means = onehot @ np.linalg.lstsq(onehot, np.hstack([features, targets]), rcond=None)[0]
    pairs = (
        ({"codes": codes}, features, np.hstack([targets, onehot])),
        ({"within": Label.of(codes)}, features - means[:, :5], targets - means[:, 5:]),
    )
    for given, x, y in pairs:
        found, expected = RidgeMoments.of(features, targets, **given), RidgeMoments.of(x, y)
        for name in ("gram", "cross", "mean", "target_mean"):
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), atol=1e-12, err_msg=name
            )


def test_bootstrap_sums_are_sums_of_drawn_rows():
    columns = np.stack([np.ones(50), np.arange(50.0)], axis=1)
    sums = bootstrap_sums(columns, np.random.default_rng(0), 4000)
    np.testing.assert_array_equal(sums[:, 0], 50)
    np.testing.assert_allclose(sums[:, 1].mean(), 1225, rtol=0.01)
    np.testing.assert_allclose(sums[:, 1].std(), np.sqrt(50) * np.arange(50).std(), rtol=0.05)


# The probe -----------------------------------------------------------------------------------


def test_a_planted_shortcut_is_named_and_its_removal_helps_where_it_does_not_hold():
    train = shortcut(0, 0.8)
    result = erase(train, shortcut(1, 0.0), factor="x", in_distribution=shortcut(2, 0.8))
    np.testing.assert_array_equal(np.sort(result.dimensions), [2, 3])
    assert len(result.directions) == 1  # both lie along one principal axis
    frame = result.to_frame().set_index(["split", "way"])
    for way in ("dimensions", "directions", "LEACE", "LEACE given label"):
        row = frame.loc[("test", way)]
        # random pairs of 8 meet a nuisance dimension now and then, but rarely both
        assert row["factor_lost"] > 0.5
        assert row["factor_lost_low"] < row["factor_lost"] < row["factor_lost_high"]
        assert row["accuracy_change_low"] > 0.02, way
    random = frame.loc[("test", "random dimensions")]
    assert random["factor_lost"] < 0.2
    assert abs(random["accuracy_change"]) < 0.1
    own = frame.loc[("in distribution", "dimensions")]
    assert own["accuracy_change_high"] < 0  # there the shortcut paid
    # LEACE takes along what of the label goes with the factor, unless told not to
    lost = frame["accuracy"].loc["in distribution"]
    assert lost["LEACE given label"] > lost["LEACE"] + 0.02
    np.testing.assert_allclose(frame.loc[("test", "LEACE given label"), "given_label_r_squared"], 0,
                               atol=0.01)  # fmt: skip
    assert frame["n_removed"].loc["test"].to_dict() == {
        "nothing": 0, "dimensions": 2, "random dimensions": 2, "directions": 1,
        "random directions": 1, "LEACE": 1, "LEACE given label": 1,
    }  # fmt: skip


@pytest.mark.parametrize("reader", ["ridge", "knn", "logistic"])
def test_accuracies_are_those_of_readers_of_what_is_left(reader):
    train, test = shortcut(3, 0.5, n=400), shortcut(4, 0.0, n=300)
    result = erase(train, test, factor="x", reader=reader, n_removed=2, n_random=2, k=7)
    fit = {
        "ridge": fit_ridge,
        "knn": lambda *split: fit_knn(*split, k=7),
        "logistic": lambda *split: fit_logistic(
            *split, penalty=fit_logistic(train.features, train.labels).penalty
        ),
    }[reader]
    expected = [fit(train.features, train.labels).accuracy(test.features, test.labels)]
    left = []
    for split in (train, test):
        features = split.features.copy()
        features[:, result.dimensions] = train.features[:, result.dimensions].mean(axis=0)
        left.append(features)
    expected.append(fit(left[0], train.labels).accuracy(left[1], test.labels))
    np.testing.assert_allclose(result.accuracy[:2, 0], expected, atol=1e-12)


def test_intervals_contain_their_estimates_and_those_of_random_ways_too():
    train, test = shortcut(3, 0.5, n=600), shortcut(4, 0.0, n=600)
    found = erase(train, test, factor="x")
    for name in ("factor_lost", "given_label_lost", "accuracy_change"):
        value, low, high = np.moveaxis(getattr(found, name), -1, 0)
        known = ~np.isnan(low)
        assert known.any(axis=1)[1:].all()  # every way but the first
        assert (low[known] <= value[known] + 1e-12).all(), name
        assert (value[known] <= high[known] + 1e-12).all(), name
    # two directions of eight hold the factor: drawing some loses a part of it, never wins any
    random = [way for way, drawn in enumerate(found.ways) if "random" in drawn]
    assert random
    assert (found.factor_lost[random][..., 2] > 0.05).all()


def test_r_squared_is_that_of_scikit_learn():
    train, test = shortcut(5, 0.6, n=500), shortcut(6, 0.0, n=400)
    result = erase(train, test, factor="x", penalty=1e-3)
    scale = train.features.std(axis=0)
    fit = Ridge(alpha=0.5).fit(train.features / scale, train.factors["x"])
    expected = fit.score(test.features / scale, test.factors["x"])
    np.testing.assert_allclose(result.factor_r_squared[0, 0], expected, rtol=1e-9)
    centred = []
    for split in (train, test):
        both = np.column_stack([split.features, split.factors["x"]])
        for label in (0, 1):
            both[split.labels == label] -= both[split.labels == label].mean(axis=0)
        centred.append(both)
    scale = centred[0][:, :8].std(axis=0)
    fit = Ridge(alpha=0.5, fit_intercept=False).fit(centred[0][:, :8] / scale, centred[0][:, 8])
    expected = fit.score(centred[1][:, :8] / scale, centred[1][:, 8])
    np.testing.assert_allclose(result.factor_r_squared_given_label[0, 0], expected, rtol=1e-9)


def test_categorical_and_periodic_factors_have_their_own_targets():
    train, test = shortcut(7, 0.5), shortcut(8, 0.0)
    result = erase(train, test, factor="kind")
    assert result.kind == "categorical"
    assert 0.3 < result.factor_r_squared[0, 0] < 0.8
    rng = np.random.default_rng(9)
    angle = rng.uniform(0, 4, size=(2, 800))
    halves = []
    for each in angle:
        features = rng.normal(size=(800, 4))
        features[:, 0] += 3 * np.cos(np.pi * each / 2)
        features[:, 1] += 3 * np.sin(np.pi * each / 2)
        halves.append(
            Representation(
                features, labels=np.arange(800) % 2, factors={"hue": each}, periods={"hue": 4.0}
            )
        )
    result = erase(*halves, factor="hue")
    # each of cosine and sine has variance 1/2, that of the noise is 1/9 of the amplitude's square
    np.testing.assert_allclose(result.factor_r_squared[0, 0], 0.5 / (0.5 + 1 / 9), atol=0.03)
    np.testing.assert_array_equal(np.sort(result.dimensions), [0, 1])
    assert result.ways[-2:] == ("LEACE", "LEACE given label")
    assert result.n_removed[-1] == 2


def test_nothing_is_named_where_nothing_carries_the_factor():
    rng = np.random.default_rng(10)
    halves = [
        Representation(
            rng.normal(size=(500, 5)), labels=np.arange(500) % 2,
            factors={"x": rng.normal(size=500)},
        )
        for _ in range(2)
    ]  # fmt: skip
    result = erase(*halves, factor="x")
    assert result.ways == ("nothing", "LEACE", "LEACE given label")
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert summary["dimensions"] == []
    assert summary["in_words"][0].startswith("No dimensions carry more of x than of the label")


def test_it_is_said_where_there_was_nothing_to_read():
    rng = np.random.default_rng(21)
    halves = [
        Representation(
            rng.normal(size=(500, 5)), labels=np.arange(500) % 2,
            factors={"x": rng.normal(size=500)},
        )
        for _ in range(2)
    ]  # fmt: skip
    words = erase(*halves, factor="x").summary()["in_words"]
    assert words[-1].startswith("A linear reader of train tells x from no features of test")


def test_the_sweep_begins_with_nothing_and_falls():
    result = erase(shortcut(11, 0.5), shortcut(12, 0.0), factor="x")
    sweep = result.tables()["sweep"]
    named = sweep[(sweep["way"] == "dimensions") & (sweep["split"] == "test")]
    assert named["n_removed"].tolist() == [1, 2, 4]
    first = sweep[sweep["way"] == "nothing"]["factor_r_squared"].iloc[0]
    np.testing.assert_allclose(first, result.factor_r_squared[0, 0])
    two = named[named["n_removed"] == 2]["factor_r_squared"].iloc[0]
    np.testing.assert_allclose(two, result.factor_r_squared[1, 0])
    knn = erase(
        shortcut(11, 0.5, 300), shortcut(12, 0.0, 300), factor="x", reader="knn", n_random=1
    )
    assert knn.tables()["sweep"].empty


def test_the_same_call_gives_the_same_numbers():
    pair = shortcut(13, 0.5, n=500), shortcut(14, 0.0, n=500)
    first, second = (erase(*pair, factor="x", seed=3).to_frame() for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


@worlds.rows_repeat
def test_copies_are_no_further_samples_where_clusters_are_named():
    train, test = shortcut(0, 0.8, n=600), shortcut(1, -0.8, n=300)
    ids = np.repeat(np.arange(300), 4)
    copies = Representation(
        test.features[ids], labels=test.labels[ids], factors={"x": test.factors["x"][ids]}
    )
    once, plain, named = (
        erase(train, each, factor="x", n_random=2, n_bootstrap=400, clusters=clusters)
        for each, clusters in ((test, None), (copies, None), (copies, ids))
    )
    for name in ("factor_lost", "given_label_lost", "accuracy_change"):
        widths = [np.diff(getattr(each, name)[:, 0, 1:])[1, 0] for each in (once, plain, named)]
        assert widths[1] < 0.65 * widths[0], name
        np.testing.assert_allclose(widths[2], widths[0], rtol=0.15, err_msg=name)
    assert named.summary()["clusters"] == {"n_clusters": 300, "largest": 4}
    assert "repeat another row exactly" in plain.summary()["caution"]


def test_a_factor_of_few_train_clusters_is_not_told_by_their_many_rows():
    """A factor that is one number a patient, and dimensions that have patients' own shifts."""
    named = np.zeros(2)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(24), 25)
        shift, age = rng.normal(size=(24, 6)), rng.normal(size=24)
        split = Representation(
            shift[patient] + 0.3 * rng.normal(size=(600, 6)),
            labels=rng.integers(0, 2, 600),
            factors={"age": age[patient], "patient": patient},
        )
        for place, clusters in enumerate((None, "patient")):
            found = erase(split, split, factor="age", n_random=1, n_bootstrap=2, clusters=clusters)
            named[place] += len(found.dimensions)
    assert named[0] > 20  # nearly all of 48
    assert named[1] <= 3
    with pytest.raises(ValueError, match=r"^clusters must name a factor .* in_distribution is giv"):
        erase(split, split, factor="age", in_distribution=split, clusters=patient)
    both = erase(
        split, split, factor="age", in_distribution=split, clusters="patient", n_random=1,
        n_bootstrap=20,
    )  # fmt: skip
    np.testing.assert_allclose(
        both.accuracy_change[-1, 0], both.accuracy_change[-1, 1], err_msg="the same split twice"
    )


def test_a_split_may_lack_a_class():
    train, test = shortcut(15, 0.5, n=400), shortcut(16, 0.0, n=400)
    one = test.take(np.flatnonzero(test.labels == 1))
    with pytest.warns(UserWarning, match=r"^All test samples are of class 1"):
        assert np.isfinite(erase(train, one, factor="x").accuracy).all()


def test_bad_arguments_are_refused_in_one_sentence():
    train, test = shortcut(17, 0.5, n=200), shortcut(18, 0.0, n=200)
    for arguments, message in (
        ({"factor": "y"}, r"^factor must be in every split; got 'y', where train has 'x', 'kind'"),
        ({"factor": "x", "reader": "tree"}, r"^reader must be one of"),
        ({"factor": "x", "basis": "axes"}, r"^basis must be one of"),
        ({"factor": "x", "n_removed": 8}, r"^n_removed must lie in 1\.\.7, to leave a dimension"),
        ({"factor": "x", "n_random": 0}, r"^n_random must be >= 1; got 0\.$"),
        ({"factor": "x", "n_bootstrap": 0}, r"^n_bootstrap must be >= 1; got 0\.$"),
        ({"factor": "x", "penalty": 0.0}, r"^penalty must be > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            erase(train, test, **arguments)
    bare = Representation(test.features, factors=test.factors)
    with pytest.raises(ValueError, match=r"^erase needs labels"):
        erase(train, bare, factor="x")
    codes = Representation(test.features, labels=test.labels, factors={"x": np.arange(200) % 3})
    with pytest.raises(ValueError, match=r"^test must have 'x' as a continuous factor; got categ"):
        erase(train, codes, factor="x")
    flat = Representation(test.features, labels=test.labels, factors={"x": np.ones(200)})
    with pytest.raises(ValueError, match=r"^test must vary in 'x', or there is nothing to read"):
        erase(train, flat, factor="x")
    other = {"kind": np.where(np.arange(200) % 2, "up", "left")}
    with pytest.raises(
        ValueError, match=r"^test must have the categories of 'kind' .* got left\.$"
    ):
        erase(
            train, Representation(test.features, labels=test.labels, factors=other), factor="kind"
        )
    follows = Representation(
        train.features, labels=train.labels, factors={"x": train.labels.astype(float)}
    )
    with pytest.raises(ValueError, match=r"^factor must vary within classes of train"):
        erase(follows, follows, factor="x")
    views = Representation(
        test.features, labels=test.labels, factors=test.factors, views=test.features[None]
    ).per_view()
    with pytest.raises(ValueError, match=r"^test must have one row a sample"):
        erase(train, views, factor="x")
