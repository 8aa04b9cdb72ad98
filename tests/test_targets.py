"""Labels may be classes, real values or several labels a sample: every reader and probe of them."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dimlab import (
    Representation,
    ablate,
    ablate_cumulatively,
    bound_risk,
    confirm_harmful,
    evaluate,
    examine,
    load_features,
    random_masks,
)
from dimlab.probes.random_masks import null_maxima
from dimlab.readers import Logistic
from dimlab.readers.linear import FILLS
from dimlab.targets import CLASSES, MULTILABEL, VALUES, kind_of, target_of
from tests.references import filled_with

PENALTY = 1e-3
KINDS = ["one value", "three values", "labels"]


def labelled(kind, seed, n=120, d=5):
    """Dimension 0 tells most, dimension 1 less, the rest nothing; the last is constant."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    features[:, -1] = 0.7
    value = 2 * features[:, 0] + features[:, 1] + 0.5 * rng.normal(size=n)
    if kind == "one value":
        return Representation(features, labels=value)
    more = np.column_stack([value, -value + rng.normal(size=n), features[:, 1]])
    labels = more if kind == "three values" else (more > 0.5).astype(int)
    return Representation(features, labels=labels)


@pytest.fixture(params=KINDS)
def pair(request):
    return labelled(request.param, 0), labelled(request.param, 1, n=80)


def score_by_sklearn(labels, predicted):
    if labels.dtype.kind == "f":
        return r2_score(labels, predicted)
    return average_precision_score(labels, predicted)


def without(split, dimension):
    return np.delete(split.features, dimension, axis=1)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0, 1, 1], CLASSES),
        ([True, False, True], CLASSES),
        (["a", "b", "a"], CLASSES),
        ([0.0, 1.0, 2.0], VALUES),
        (np.ones((3, 2)), VALUES),
        ([[0, 1], [1, 1], [0, 0]], MULTILABEL),
        ([[True, False], [True, True], [False, False]], MULTILABEL),
    ],
)
def test_the_type_of_labels_says_what_they_are(labels, kind):
    assert kind_of(Representation(np.eye(3), labels=labels).labels) == kind


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, np.nan, 1.0], "labels must be finite; got nan in row 1."),
        ([[0, 2], [1, 1], [0, 0]], "labels of shape (N, T) must be 0 or 1"),
        (np.ones((2, 2)), "labels must have shape (3,) or (3, T) to match features; got (2, 2)."),
        (np.array([[1j, 0], [0, 0], [0, 0]]), "must be class ids, class names or numbers"),
        (np.ones((3, 0)), "got (3, 0)"),
    ],
)
def test_labels_that_are_nothing_of_these_are_refused(labels, said):
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        target_of(labels, 3)


def test_labels_of_any_kind_are_kept_by_rows_views_and_files(tmp_path):
    for kind in KINDS:
        split = labelled(kind, 0, n=6)
        assert_array_equal(split.take([4, 2]).labels, split.labels[[4, 2]])
        loaded = Representation.load(split.save(tmp_path / "x.safetensors"))
        assert loaded.labels.dtype == split.labels.dtype
        assert_array_equal(loaded.labels, split.labels)
        stacked = Representation(split.features, labels=split.labels, views=split.features[None])
        assert_array_equal(stacked.per_view().labels, split.labels)


def test_ridge_without_each_dimension_equals_a_refit_by_scikit_learn(pair):
    train, test = pair
    found = ablate(train, test, reader="ridge", penalty=PENALTY, groups=[[0], [1], [2], [0, 1]])
    model = make_pipeline(StandardScaler(), SklearnRidge(alpha=PENALTY * len(train)))
    fitted = model.fit(train.features, train.labels)
    expected = score_by_sklearn(test.labels, fitted.predict(test.features))
    assert_allclose(found.full_score, expected, rtol=1e-10)
    for group, score in zip(found.groups, found.scores, strict=True):
        fitted = model.fit(without(train, group), train.labels)
        expected = score_by_sklearn(test.labels, fitted.predict(without(test, group)))
        assert_allclose(score, expected, rtol=1e-9)


def test_any_estimator_is_really_fitted_again_and_agrees(pair):
    train, test = pair
    model = make_pipeline(StandardScaler(), SklearnRidge(alpha=PENALTY * len(train)))
    if train.labels.dtype.kind == "i":
        model = MultiOutputClassifier(LogisticRegression())
        fitted = model.fit(without(train, 0), train.labels)
        shares = np.column_stack([each[:, 1] for each in fitted.predict_proba(without(test, 0))])
        expected = average_precision_score(test.labels, shares)
        assert_allclose(ablate(train, test, reader=model).scores[0], expected)
        return
    groups = [[0], [1], [2, 3]]
    ours, theirs = (ablate(train, test, reader=each, groups=groups) for each in ("ridge", model))
    for name in ("scores", "importance", "ci_low", "ci_high", "p_value"):
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-9)


def test_frozen_weights_see_the_fill_in_place_of_a_dimension(pair):
    train, test = pair
    model = make_pipeline(StandardScaler(), SklearnRidge(alpha=PENALTY * len(train)))
    model.fit(train.features, train.labels)
    for fill in FILLS:
        found = ablate(train, test, reader="ridge", refit=False, fill=fill, seed=2)
        for dimension in range(4):
            changed = filled_with(fill, train.features, test.features, [dimension], 2)
            expected = score_by_sklearn(test.labels, model.predict(changed))
            assert_allclose(found.scores[dimension], expected, rtol=1e-9)


def test_neighbours_without_each_dimension_equal_brute_force(pair):
    train, test = pair
    found = ablate(train, test, reader="knn", k=4, temperature=0.5)
    for dimension, score in enumerate(found.scores):
        rows = [without(each, dimension) for each in (train, test)]
        unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
        similarity = unit[1] @ unit[0].T
        nearest = np.argsort(-similarity.round(10), axis=1, kind="stable")[:, :4]
        votes = np.exp(np.take_along_axis(similarity, nearest, axis=1) / 0.5)
        votes /= votes.sum(axis=1, keepdims=True)
        values = train.labels.reshape(len(train), -1)[nearest]
        predicted = (votes[:, :, None] * values).sum(axis=1).round(10)  # equal shares are tied
        expected = score_by_sklearn(test.labels, predicted.reshape(test.labels.shape))
        assert_allclose(score, expected, rtol=1e-8)


@pytest.mark.parametrize("reader", ["ridge", "knn"])
def test_the_dimensions_that_tell_are_needed_and_no_other(pair, reader):
    found = ablate(*pair, reader=reader)
    if reader == "ridge":  # a constant column has no weight
        assert set(found.needed.tolist()) == {0, 1}
        assert found.importance[4] == 0
        assert found.p_value[4] == 1
    assert found.needed[0] == 0
    assert (found.ci_low <= found.importance).all()
    assert (found.importance <= found.ci_high).all()
    assert found.per_class.shape == (5, 0)
    assert found.log_loss_importance is None
    assert "log_loss_importance" not in found.to_frame()


def test_intervals_over_train_are_wider(pair):
    of_test, of_both = (ablate(*pair, reader="ridge", resample=r) for r in ("test", "train"))
    wide, narrow = (each.ci_high - each.ci_low for each in (of_both, of_test))
    assert (wide[:4] >= narrow[:4]).all()


def test_a_group_alone_is_scored_by_a_reader_of_it(pair):
    train, test = pair
    for reader in ("knn", "ridge"):
        found = ablate(train, test, reader=reader, groups=[[0], [1, 2]], alone=True)
        for group, score in zip(found.groups, found.alone_score, strict=True):
            rest = np.setdiff1d(np.arange(5), group)
            others = ablate(train, test, reader=reader, groups=[rest])
            assert_allclose(score, others.scores[0], rtol=1e-9)
    model = make_pipeline(StandardScaler(), SklearnRidge(alpha=PENALTY * len(train)))
    for group, score in zip(([0], [1, 2]), found.alone_score, strict=True):
        predicted = model.fit(train.features[:, group], train.labels).predict(
            test.features[:, group]
        )
        assert_allclose(score, score_by_sklearn(test.labels, predicted), rtol=1e-9)


@pytest.mark.parametrize("reader", ["ridge", "knn"])
def test_dimensions_that_leave_in_turn_are_scored_as_by_ablation_of_groups(pair, reader):
    curve = ablate_cumulatively(*pair, order=[2, 3, 1, 0, 4], reader=reader)
    gone = [np.array([2, 3, 1, 0, 4])[:n] for n in range(1, 5)]
    groups = ablate(*pair, groups=gone, reader=reader)
    assert_allclose(curve.scores[1:5], groups.scores, rtol=1e-8)
    assert_allclose(curve.full_score, groups.full_score, rtol=1e-10)
    assert list(curve.to_frame())[2] == groups.score


def test_orders_from_train_leave_the_useful_dimensions_to_the_end(pair):
    for order in ("worst-first", "greedy-backward"):
        found = ablate_cumulatively(*pair, order=order, reader="ridge")
        assert set(found.order[-2:].tolist()) == {0, 1}
        assert found.n_dispensable == 3
        assert "within the margin" in found.dispensable


def test_a_noisy_dimension_is_confirmed_as_harmful_to_neighbours():
    def split(seed, n):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(-np.pi, np.pi, size=n)
        features = np.column_stack([np.cos(angle), np.sin(angle), 1.5 * rng.normal(size=n)])
        return Representation(features, labels=np.sin(angle) + 0.1 * rng.normal(size=n))

    found = confirm_harmful(split(0, 200), split(1, 600), reader="knn")
    assert found.confirmed.tolist() == [2]
    assert found.score == "r2"
    assert found.n_test_needed == 0


def test_the_best_of_random_masks_is_judged_on_rows_that_did_not_choose_it(pair):
    found = random_masks(*pair, drop=[0.2], n_masks=30)
    kept = found.masks[0, :, 0]
    assert found.scores[0][~kept].max() < found.full_score  # dimension 0 is needed
    groups = [np.flatnonzero(~mask) for mask in found.masks[0]]
    assert_allclose(found.scores[0], ablate(*pair, reader="ridge", groups=groups).scores)
    assert found.ci_low[0] <= found.gain[0] <= found.ci_high[0]


def test_the_normal_null_of_the_best_mask_is_that_of_permuted_rows():
    rng = np.random.default_rng(0)
    right = rng.random((400, 30)) < rng.random((400, 1))
    permuted = null_maxima(right, rng, 2000)
    normal = null_maxima(right.astype(float), rng, 20_000)
    assert_allclose(np.quantile(normal, [0.5, 0.95]), np.quantile(permuted, [0.5, 0.95]), rtol=3e-3)
    assert_allclose(normal.std(), permuted.std(), rtol=0.1)


def test_evaluation_has_the_scores_of_scikit_learn(pair):
    train, test = pair
    found = evaluate(train, test)
    several = found.score == "mean_average_precision"
    assert found.reader == ("knn", "ridge", "logistic")[: 3 if several else 2]
    model = make_pipeline(StandardScaler(), SklearnRidge(alpha=PENALTY * len(train)))
    predicted = model.fit(train.features, train.labels).predict(test.features)
    assert_allclose(found.accuracy[1], score_by_sklearn(test.labels, predicted), rtol=1e-9)
    frame = found.to_frame()
    assert (frame["ci_low"] < frame[found.score]).all()
    assert (frame[found.score] < frame["ci_high"]).all()
    assert found.n_correct is None


def test_micro_and_macro_precision_differ_and_are_named():
    pair = labelled("labels", 0), labelled("labels", 1)
    macro, micro = (
        ablate(*pair, reader="ridge", score=f"mean_average_precision{each}")
        for each in ("", "_micro")
    )
    assert macro.full_score != micro.full_score
    assert micro.score == "mean_average_precision_micro"


def test_the_kind_can_be_said():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 3))
    ids = np.digitize(features[:, 0], [-0.5, 0.5])
    as_ids, as_floats = (Representation(features, labels=each) for each in (ids, ids * 1.0))

    def full(split, kind=None):
        return ablate(split, split, reader="ridge", target_kind=kind).full_score

    assert full(as_ids, "values") == full(as_floats)
    assert full(as_floats, "classes") == full(as_ids)
    matrix = Representation(features, labels=(ids[:, None] == np.arange(3)).astype(int))
    assert full(as_ids, "multilabel") == full(matrix)
    assert full(matrix, "classes") == full(as_ids)
    with pytest.raises(ValueError, match="target_kind must be one of 'classes'"):
        full(as_ids, "numbers")
    with pytest.raises(ValueError, match="must be whole numbers to be read as classes; got"):
        full(Representation(features, labels=ids + 0.5), "classes")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"reader": "logistic"},
            "reader 'logistic' reads classes and several labels a sample; got labels that are real",
        ),
        ({"score": "accuracy"}, "score must be one of 'r2' for labels that are real values"),
        ({"score": "f1"}, "score must be one of 'accuracy', 'balanced_accuracy'"),
        ({"reader": LogisticRegression()}, "reader must be a regressor for labels that are real"),
    ],
)
def test_what_does_not_suit_real_values_is_refused(change, said):
    pair = labelled("one value", 0), labelled("one value", 1)
    with pytest.raises(ValueError, match=re.escape(said)):
        ablate(*pair, **change)


def test_a_regressor_reads_no_classes_and_kinds_are_not_mixed():
    train, test = labelled("one value", 0), labelled("labels", 0)
    classes = Representation(train.features, labels=(train.labels > 0).astype(int))
    with pytest.raises(ValueError, match="reader must be a classifier for labels that are classes"):
        ablate(classes, classes, reader=SklearnRidge())
    with pytest.raises(ValueError, match="one kind in train and test; got real values and several"):
        ablate(train, test)
    constant = Representation(train.features, labels=np.ones(len(train)))
    with pytest.raises(ValueError, match="labels of test must vary"):
        ablate(train, constant)


def test_probes_of_classes_say_so():
    split = labelled("one value", 0)
    views = np.stack([split.features, split.features])
    whole = Representation(split.features, labels=split.labels, views=views)
    with pytest.raises(ValueError, match="bound_risk needs labels that are classes; got real val"):
        bound_risk(whole, n_negatives=5, temperature=0.5)


def test_an_examination_measures_what_real_values_allow_and_says_the_rest(pair):
    train, test = pair
    found = examine(train, test, reader="ridge")
    assert {"ablation", "evaluation", "harmful"} & set(found)
    assert not {"attribute", "bound_risk"} & set(found)


def written(folder, kind):
    for name, seed in (("train", 0), ("test", 1)):
        split = labelled(kind, seed)
        np.savez(folder / f"{name}.npz", features=split.features, labels=split.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_read_such_labels_from_files_and_say_what_they_took_them_for(
    kind, tmp_path, dimlab
):
    written(tmp_path, kind)
    for command in ("ablate --reader ridge --out .", "evaluate", "cumulate"):
        name, *more = shlex.split(command)
        code, out, err = dimlab(name, "test.npz", "--train", "train.npz", *more)
        assert code == 0, err
        assert "assumed: labels 'labels' are" in err
        assert ("r2" if "value" in kind else "mean_average_precision") in out
    table = pd.read_csv(tmp_path / "ablate.csv")
    assert table.loc[table["q_value"] <= 0.05, "dimension"].tolist() == [0, 1]


def test_target_on_the_command_line_overrides_the_type(tmp_path, dimlab):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3))
    np.savez(tmp_path / "f.npz", features=features, labels=np.digitize(features[:, 0], [-1, 0, 1]))
    code, out, err = dimlab("ablate", "f.npz", "--reader", "ridge", "--target", "values", "--json")
    assert code == 0, err
    assert '"score": "r2"' in out
    code, _, err = dimlab("ablate", "f.npz", "--target", "numbers")
    assert code == 2
    assert "target_kind must be one of 'classes', 'values'" in err


def test_splits_of_a_file_decide_together_what_labels_are(tmp_path):
    table = pd.DataFrame(
        {"x0": [0.1, 0.2, 0.3, 0.4], "x1": [1.0, 2.0, 3.0, 5.0], "label": [1.0, 2.0, 0.5, 1.5],
         "split": ["train", "train", "test", "test"]}
    )  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match="assumed: labels 'label' are real values"):
        train = load_features(tmp_path / "t.csv", split="train")
    assert train.labels.tolist() == [1.0, 2.0]
    assert train.labels.dtype.kind == "f"


def test_logistic_reads_several_labels_one_against_the_rest(capsys):
    train, test = labelled("labels", 0), labelled("labels", 1, n=80)
    reader = Logistic(penalty=2.0)
    model = MultiOutputClassifier(LogisticRegression(C=1.0, tol=1e-8, max_iter=2000))
    model = make_pipeline(StandardScaler(), model).fit(train.features, train.labels)
    shares = np.stack([each[:, 1] for each in model.predict_proba(test.features)], axis=1)
    fitted = reader.fit(train.features, train.labels)
    assert_allclose(fitted.predict(test.features), np.log(shares / (1 - shares)), atol=2e-3)
    found = ablate(train, test, reader=reader)
    assert_allclose(found.full_score, average_precision_score(test.labels, shares), atol=2e-3)
    assert (found.refit, found.needed[0]) == (False, 0)
    refitted = ablate(train, test, reader=reader, refit=True, groups=[[0], [1, 2], list(range(5))])
    for group, score in zip(refitted.groups[:2], refitted.scores, strict=False):
        rest = [np.delete(each.features, group, axis=1) for each in (train, test)]
        own = Logistic(penalty=2.0).fit(rest[0], train.labels).predict(rest[1])
        assert_allclose(score, average_precision_score(test.labels, own), atol=2e-3)
    assert_allclose(refitted.scores[2], test.labels.mean(), rtol=1e-9)  # nothing is told
    assert "logistic refits" in capsys.readouterr().err
    assert Logistic().chosen(train.features, train.labels).penalty > 0
    never = train.labels.copy()
    never[:, 1] = 0  # of a label that no train row has, one answer for all
    answers = Logistic().fit(train.features, never).predict(test.features)
    assert (np.ptp(answers, axis=0) > 0).tolist() == [True, False, True]
