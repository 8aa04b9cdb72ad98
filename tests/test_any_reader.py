"""A reader is a name, an object of dimlab.readers, a scikit-learn classifier, or anybody's own."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

import dimlab
from dimlab import examine, readers
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.confirm_harmful import confirm_harmful, split_and_confirm
from dimlab.probes.erase import erase
from dimlab.probes.evaluate import evaluate
from dimlab.probes.random_masks import random_masks
from dimlab.readers import KNN, Logistic, Outcomes, Ridge
from dimlab.readers.linear import FILLS
from dimlab.representation import Representation
from tests.references import filled_with

PAGE = Path(__file__).parent.parent / ".docs" / "readers.md"
PROBES = {
    "ablate": ablate,
    "cumulate": lambda *pair, **more: ablate_cumulatively(*pair, order="worst-first", **more),
    "masks": lambda *pair, **more: random_masks(*pair, drop=[0.5], n_masks=3, **more),
    "confirm": lambda *pair, **more: confirm_harmful(*pair, n_splits=2, **more),
    "evaluate": lambda *pair, reader, **more: evaluate(*pair, readers=[reader], **more),
    "erase": lambda *pair, **more: erase(*pair, factor="f", n_random=2, n_bootstrap=20, **more),
}


def split(seed, n=90, d=5):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = rng.normal(size=(n, d)) * [1, 2, 0.5, 1, 3][:d] + 1.5 * np.eye(3, d)[labels]
    return Representation(features, labels=2 + 3 * labels, factors={"f": features[:, 3]})


@pytest.fixture(scope="module")
def splits():
    return split(0), split(1, n=60)


class Nearest:
    """A reader of this test's own: the nearest mean of a class."""

    def fit(self, features, target):
        self.means = np.array([features[target == c].mean(axis=0) for c in np.unique(target)])
        return self

    def predict(self, features):
        return -((features[:, None] - self.means) ** 2).sum(axis=2)


class Quick(Nearest):
    """The same with a fast way: the squared distances without a group are a difference."""

    asked = 0

    def predict_without(self, features, groups, *, target):
        type(self).asked += 1
        apart = -((features[:, None] - self.means) ** 2)
        without = (apart.sum(axis=2) - apart[..., group].sum(axis=2) for group in groups)
        return Outcomes.of_scores(apart.sum(axis=2), without, target, len(groups))


@pytest.mark.parametrize("reader", [Nearest(), Quick(), DecisionTreeClassifier(random_state=0)])
@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_every_probe_takes_anybodys_reader(probe, reader, splits):
    result = probe(*splits, reader=reader)
    name = type(reader).__name__
    assert name in (result.reader if isinstance(result.reader, tuple) else [result.reader])
    assert not hasattr(reader, "means")  # a copy was fitted, never the object itself
    assert not hasattr(reader, "classes_")


@pytest.mark.parametrize("reader", [Nearest(), Quick(), KNN(k=3), RidgeClassifier()])
def test_a_report_is_measured_with_it(reader, splits):
    results = examine(*splits, reader=reader, n_permutations=99)
    name = results["ablation"].reader
    assert name == results["harmful"].reader != "ridge"
    usual = ["knn", "ridge"]
    assert list(results["evaluation"].reader) == usual + [name] * (name not in usual)


def test_a_fast_way_is_taken_and_answers_as_refits_do(splits):
    Quick.asked = 0
    quick, slow = (ablate(*splits, reader=each(), score="log_loss") for each in (Quick, Nearest))
    assert Quick.asked >= 1
    np.testing.assert_allclose(quick.scores, slow.scores, atol=1e-9)
    np.testing.assert_allclose(quick.full_score, slow.full_score, atol=1e-9)
    filled = ablate(*splits, reader=Quick(), refit=False, fill="zero")  # it has no way for these
    fitted = Nearest().fit(splits[0].features, splits[0].labels)
    zeroed = splits[1].features * (np.arange(5) != 1)
    right = fitted.predict(zeroed).argmax(axis=1) == (splits[1].labels - 2) // 3
    assert filled.scores[1] == right.mean()


@pytest.mark.parametrize(
    ("name", "reader"), [("knn", KNN()), ("ridge", Ridge()), ("logistic", Logistic())]
)
@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_a_name_and_its_object_are_the_same_reader(probe, name, reader, splits):
    named, made = (probe(*splits, reader=each).to_frame() for each in (name, reader))
    assert named.equals(made)


ORACLES = {  # the same classifiers, by scikit-learn
    "knn": (KNN(k=7, temperature=1e12), KNeighborsClassifier(7, metric="cosine"), 1e-9),
    "ridge": (
        Ridge(penalty=0.1),
        make_pipeline(StandardScaler(), RidgeClassifier(alpha=0.1 * 90, solver="cholesky")),
        1e-9,
    ),
    "logistic": (
        Logistic(penalty=2.0),
        make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-8, max_iter=5000)),
        0.02,
    ),
}


@pytest.mark.parametrize("reader", ORACLES)
def test_fast_paths_answer_as_scikit_learn_really_refitted(reader, splits):
    fast, slow, off = ORACLES[reader]
    groups = [[0], [1], [2], [3], [4], [0, 1], [2, 3, 4]]
    refit = {"refit": True, "groups": groups}
    fast, slow = (ablate(*splits, reader=each, **refit) for each in (fast, slow))
    np.testing.assert_allclose(fast.scores, slow.scores, atol=off)
    np.testing.assert_allclose(fast.full_score, slow.full_score, atol=off)
    assert np.abs(slow.importance).max() > 0.1
    if reader == "logistic":
        np.testing.assert_allclose(fast.log_loss_importance, slow.log_loss_importance, atol=0.01)


@pytest.mark.parametrize("probe", ["cumulate", "masks", "evaluate"])
def test_the_other_probes_agree_with_the_same_oracle(probe, splits):
    fast, slow, _ = ORACLES["ridge"]
    fast, slow = (PROBES[probe](*splits, reader=each) for each in (fast, slow))
    if probe == "cumulate":
        order = fast.order
        fast, slow = (
            ablate_cumulatively(*splits, order=order, reader=each) for each in ORACLES["ridge"][:2]
        )
        np.testing.assert_allclose(fast.scores, slow.scores, atol=1e-9)
    elif probe == "masks":
        np.testing.assert_allclose(fast.scores, slow.scores, atol=1e-9)
    else:
        np.testing.assert_array_equal(fast.n_correct, slow.n_correct)


def test_features_go_into_an_estimator_as_they_are(splits):
    """A tree does not mind units; nearest neighbours by Euclidean distance do."""
    train, test = splits
    model = KNeighborsClassifier(3)
    expected = model.fit(train.features, train.labels).score(test.features, test.labels)
    assert ablate(*splits, reader=KNeighborsClassifier(3)).full_score == expected


def test_scores_of_an_estimator_are_probabilities_decisions_or_predictions(splits):
    train, test = splits
    fit = train.features, train.labels
    proba = ablate(*splits, reader=LogisticRegression(), score="log_loss", groups=[[0]])
    expected = log_loss(test.labels, LogisticRegression().fit(*fit).predict_proba(test.features))
    np.testing.assert_allclose(proba.full_score, expected)
    decided = ablate(*splits, reader=LinearSVC(random_state=0), score="log_loss", groups=[[0]])
    scores = log_softmax(
        LinearSVC(random_state=0).fit(*fit).decision_function(test.features), axis=1
    )
    own = scores[np.arange(60), (test.labels - 2) // 3]
    np.testing.assert_allclose(decided.full_score, -own.mean())

    class Bare(DummyClassifier):
        predict_proba = property()  # there is none

    with pytest.warns(UserWarning, match=r"^Bare has neither predict_proba nor decision_function"):
        bare = ablate(*splits, reader=Bare(), score="log_loss", groups=[[0]])
    np.testing.assert_allclose(bare.full_score, -np.log([1 / 2, 1 / 4, 1 / 4]).mean())


def test_two_classes_have_one_decision():
    rng = np.random.default_rng(3)
    labels = np.arange(80) % 2
    both = Representation(rng.normal(size=(80, 2)) + labels[:, None], labels=labels)
    found = ablate(both, both, reader=LinearSVC(random_state=0), score="log_loss")
    d = LinearSVC(random_state=0).fit(both.features, labels).decision_function(both.features)
    np.testing.assert_allclose(found.full_score, np.log1p(np.exp(-np.where(labels, d, -d))).mean())


def test_refits_say_what_they_take_and_report_progress(splits, capsys):
    seen = []
    ablate(*splits, reader=Perceptron(), progress=lambda *step: seen.append(step))
    assert "5 Perceptron refits, at most about 0 s." in capsys.readouterr().err
    assert seen == [(each, 5) for each in range(1, 6)]


@pytest.mark.slow
def test_many_refits_are_shared_among_processes_and_answer_the_same(splits, monkeypatch):
    model = DecisionTreeClassifier(random_state=0)
    alone = ablate(*splits, reader=model)
    monkeypatch.setattr("dimlab.readers.estimator._WORTH_PROCESSES", 0.0)
    np.testing.assert_array_equal(ablate(*splits, reader=model).scores, alone.scores)


def test_a_frozen_estimator_sees_the_fill(splits):
    train, test = splits
    model = DecisionTreeClassifier(random_state=0)
    fitted = DecisionTreeClassifier(random_state=0).fit(train.features, train.labels)
    for fill in FILLS:
        found = ablate(*splits, reader=model, refit=False, fill=fill)
        for d, score in enumerate(found.scores):
            filled = filled_with(fill, train.features, test.features, [d], 0)
            assert score == fitted.score(filled, test.labels)
        assert (found.refit, found.fill) == (False, fill)


def test_readers_of_one_name_are_told_apart_by_their_settings(splits):
    found = evaluate(*splits, readers=[KNN(1), KNN(9), "ridge"])
    assert found.reader == ("KNN(k=1, temperature=1.0)", "KNN(k=9, temperature=1.0)", "ridge")


def test_a_pipeline_is_named_by_its_steps(splits):
    found = evaluate(*splits, readers=[make_pipeline(StandardScaler(), RidgeClassifier())])
    assert found.reader == ("StandardScaler + RidgeClassifier",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"reader": 7}, TypeError, r"^reader must be a name or an object with fit and predict; go"),
        ({"reader": KNN}, TypeError, r"^reader must be a name or an object .*; got <class"),
        ({"reader": KMeans(2)}, TypeError, r"^reader must be a classifier or a regressor; got KM"),
        ({"reader": KNN(3), "k": 4}, ValueError, r"^k=4 must be set on the reader itself; got knn"),
        ({"reader": KNN(3), "refit": False}, ValueError, r"^refit must be True for reader 'knn'"),
        ({"reader": RidgeClassifier(), "resample": "train"}, ValueError, r"^resample must be 'te"),
    ],
)
def test_bad_readers_are_refused_in_one_sentence(arguments, error, message, splits):
    with pytest.raises(error, match=message):
        ablate(*splits, **arguments)


def test_a_class_and_its_name_in_the_list_are_a_reader(splits, monkeypatch):
    class Nearby(Nearest):
        SETTINGS = ()

    monkeypatch.setattr(readers, "Nearby", Nearby, raising=False)
    monkeypatch.setattr(readers, "__all__", [*readers.__all__, "Nearby"])
    found, own = (ablate(*splits, reader=each) for each in ("nearby", Nearest()))
    np.testing.assert_array_equal(found.scores, own.scores)
    with pytest.raises(ValueError, match=r"'logistic', 'nearby'; got 'tree'"):
        ablate(*splits, reader="tree")
    assert dimlab.readers is readers


def test_a_classifier_without_a_seed_gets_that_of_the_probe(splits):
    """A stratified dummy's predictions are drawn: by the seed, not by NumPy's global generator."""
    model, options = DummyClassifier(strategy="stratified"), {"groups": [[0]]}
    for reader in (model, make_pipeline(StandardScaler(), model)):
        found = [
            ablate(*splits, reader=reader, seed=each, **options).full_score for each in range(4)
        ]
        for seed, score in enumerate(found):
            given = clone(model).set_params(random_state=seed)
            assert ablate(*splits, reader=given, **options).full_score == score
        assert len(set(found)) > 1
    assert model.random_state is None


PIPELINE = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))


def test_confirmed_harm_is_that_of_a_loop_over_refits(splits):
    train, test = splits
    right = [
        clone(PIPELINE).fit(np.delete(train.features, d, 1), train.labels)
        .predict(np.delete(test.features, d, 1)) == test.labels
        for d in range(5)
    ]  # fmt: skip
    full = clone(PIPELINE).fit(train.features, train.labels).predict(test.features) == test.labels
    change = full[:, None].astype(np.int8) - np.array(right).T
    draws = np.random.default_rng(5)
    q, share = split_and_confirm(change, (test.labels - 2) // 3, draws, 6)
    found = confirm_harmful(*splits, reader=PIPELINE, n_splits=6, seed=5)
    np.testing.assert_array_equal(found.q_aggregated, q)
    np.testing.assert_array_equal(found.selected_share, share)
    np.testing.assert_allclose(found.importance, change.mean(axis=0))


def test_the_task_behind_an_erasure_is_that_of_a_refit(splits):
    """Dimensions are set to their train mean; LEACE takes off what covaries with the factor."""
    train, test = splits
    found = erase(*splits, factor="f", n_removed=2, n_random=1, n_bootstrap=1, reader=PIPELINE)
    mean = train.features.mean(axis=0)
    x, factor = train.features - mean, train.factors["f"] - train.factors["f"].mean()
    whiten = np.linalg.inv(np.real(sqrtm(x.T @ x / 90)))
    direction = whiten @ (x.T @ factor)
    direction /= np.linalg.norm(direction)
    leace = np.eye(5) - np.linalg.inv(whiten) @ np.outer(direction, direction) @ whiten
    zero = np.eye(5)
    zero[found.dimensions] = 0
    for way, map_ in (("nothing", np.eye(5)), ("dimensions", zero), ("LEACE", leace)):
        rows = [(each.features - mean) @ map_.T + mean for each in (train, test)]
        expected = clone(PIPELINE).fit(rows[0], train.labels).score(rows[1], test.labels)
        assert found.accuracy[found.ways.index(way), 0] == expected, way


def test_copies_of_readers_do_not_warn(splits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ablate(*splits, reader=LogisticRegression(max_iter=500), groups=[[0]])


def test_the_page_on_readers_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec("\n".join(blocks), {})
    assert capsys.readouterr().out.startswith("Ablation(reader='NearestMean', score='accuracy'")
