"""Attribution and erasure beside labels that are real values, or several labels a sample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import kstest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dimlab import Representation, ablate, attribute, erase
from dimlab.kernels.effects import Label, expand, orthonormal, without_class_means
from dimlab.kernels.permutation import _Tests
from dimlab.probes._factors import Factors, centred_features
from dimlab.result import verdict_of

KINDS = ["values", "labels"]
PENALTY = 1e-3


def world(kind, seed, n=400, follows=0.8, **more):
    """0 carries the label (not linearly), 1 the factor, 2 both, 3 nothing, 4 is constant.

    The factor goes with the label by a correlation of ``follows``.
    """
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(n, 2))
    labels = value if kind == "values" else (value > 0).astype(int)
    told = value**2 + value if kind == "values" else labels
    site = follows * value[:, 0] + np.sqrt(1 - follows**2) * rng.normal(size=n)
    features = 0.5 * rng.normal(size=(n, 5))
    features[:, 0] += told @ [1.0, -2.0]
    features[:, 1] += site
    features[:, 2] += 3 * told[:, 0] + site
    features[:, 4] = 3.0
    return Representation(features, labels=labels, factors={"site": site, **more})


def design(kind, labels):
    """Covariates by hand: a spline of each real value, or the labels themselves."""
    return np.hstack([expand(each) for each in labels.T]) if kind == "values" else labels


def residual(kind, labels, rows):
    known = design(kind, labels)
    return rows - LinearRegression().fit(known, rows).predict(known)


@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_that_goes_with_the_label_is_told_from_it(kind):
    found = attribute(world(kind, 0), world(kind, 1), n_permutations=199)
    assert found.verdicts() == ["label", "nuisance", "mixed", "neither", "dead"]
    assert found.effect[0, 0] < 0.02 < 0.4 < found.effect[1, 0]
    assert found.erasure.score == ("r2" if kind == "values" else "mean_average_precision")
    one = world(kind, 1)
    single = Representation(one.features, labels=one.labels[:, 0] + 0.0, factors=one.factors)
    assert attribute(single, single, n_permutations=99, erased=None).flagged[1]


@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_those_of_nested_fits_out_of_fold_beside_the_label(kind):
    rng = np.random.default_rng(2)
    site = rng.integers(0, 3, 150)
    given = world(kind, 3, n=150, camera=site)
    known = Factors.of(given, given.labels, ["camera"])
    features, within, _ = centred_features(given, known.label)
    folds = known.deal(5, rng)
    found = known.effects(features, within, folds)
    covariates, camera = design(kind, given.labels), np.eye(3)[site][:, 1:]
    errors = {}
    for name, columns in (
        ("label", covariates), ("both", np.hstack([covariates, camera])), ("camera", camera)
    ):  # fmt: skip
        errors[name] = np.zeros(5)
        for fold in range(5):
            mine, rest = folds == fold, folds != fold
            fit = LinearRegression().fit(columns[rest], given.features[rest])
            errors[name] += ((given.features[mine] - fit.predict(columns[mine])) ** 2).sum(axis=0)
    living = slice(0, 4)
    for value, (large, small) in (
        (found.given_label[:, 0], ("label", "both")), (found.of_label, ("camera", "both"))
    ):  # fmt: skip
        expected = np.clip(1 - errors[small] / np.where(errors[large] > 0, errors[large], 1), 0, 1)
        assert_allclose(value[living], expected[living], atol=1e-8)
    assert np.isnan(found.given_label[4]).all()


def test_f_given_covariates_is_that_of_nested_regressions_of_permuted_residuals():
    """Freedman and Lane by hand, beside the label alone and beside another factor too."""
    rng = np.random.default_rng(23)
    cells, x = np.zeros(60, dtype=int), rng.normal(size=(60, 7))
    x[:, 3:5] += x[:, :2]
    x[:, 5:] += x[:, :2]
    blocks = [orthonormal(without_class_means(x[:, b], cells)) for b in ([0, 1, 2], [3, 4], [5, 6])]
    *columns, label = blocks
    features = without_class_means(rng.normal(size=(60, 4)) + x[:, :1], cells)
    joint = orthonormal(np.hstack([label, *columns]))
    moved = rng.permutation(60)
    tests = _Tests.of(joint, columns, [0, 1], features, 59, label)
    back = joint[np.argsort(moved)]
    found = tests.statistics((back.T @ features)[None], (back.T @ joint)[None])[:, :, 0]

    def left(design, y):
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    for kind in range(2):
        for f in range(2):
            others = [np.ones((60, 1)), label] + ([columns[1 - f]] if kind else [])
            rest, whole = np.hstack(others), np.hstack([*others, columns[f]])
            residuals = left(rest, features)[moved]
            errors = [(left(d, residuals) ** 2).sum(axis=0) for d in (rest, whole)]
            rank = columns[f].shape[1]
            expected = (errors[0] - errors[1]) / rank / (errors[1] / (60 - whole.shape[1]))
            assert_allclose(found[kind, f], expected, rtol=1e-9)


def test_p_values_are_uniform_where_a_factor_only_goes_with_the_label():
    rng = np.random.default_rng(5)
    found = []
    for seed in range(6):
        given = world("values", seed, n=120)
        told = given.labels**2 @ rng.normal(size=(2, 30))
        rows = told + rng.normal(size=told.shape)
        null = Representation(rows, labels=given.labels, factors=given.factors)
        result = attribute(null, null, n_permutations=99, erased=None, seed=seed)
        found.append(result.p_value[:, 0])
    assert kstest(np.concatenate(found), "uniform").pvalue > 0.001
    assert np.mean(np.concatenate(found) <= 0.05) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_clusters_share_a_fold_and_are_tested_as_wholes(kind):
    given = world(kind, 4, n=240)
    patient = np.repeat(np.arange(40), 6)
    constant = np.random.default_rng(0).normal(size=40)[patient]
    rows = given.features + np.outer(constant, [0, 0, 0, 2.0, 0])
    factors = {**given.factors, "age": constant, "patient": patient}
    split = Representation(rows, labels=given.labels, factors=factors)
    found = attribute(
        split, split, factors=["site", "age"], clusters="patient", n_permutations=199, erased=None
    )
    assert found.found[:, 0].tolist() == [False, True, True, False, False]
    assert found.found[:, 1].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", ["ridge", "knn"])
def test_what_the_task_keeps_is_the_score_of_a_reader_without_the_dimensions(kind, reader):
    train, test = world(kind, 6), world(kind, 7, n=200)
    found = erase(train, test, factor="site", n_removed=2, n_random=2, reader=reader)
    ablation = ablate(train, test, groups=[found.dimensions], reader=reader)
    place = found.ways.index("dimensions")
    expected = [ablation.full_score, ablation.scores[0]]
    if reader == "knn":  # what is removed is set to its mean, on both sides
        rows = [split.features.copy() for split in (train, test)]
        for each in rows:
            each[:, found.dimensions] = train.features[:, found.dimensions].mean(axis=0)
        filled = [
            Representation(each, labels=split.labels)
            for each, split in zip(rows, (train, test), strict=True)
        ]
        expected[1] = ablate(*filled, groups=[[0]], reader=reader).full_score
    assert_allclose(found.accuracy[[0, place], 0], expected, rtol=1e-8)
    name = "r2" if kind == "values" else "mean_average_precision"
    frame = found.to_frame()
    assert {name, f"{name}_change"} <= set(frame.columns)
    assert "accuracy" not in frame.columns
    assert_allclose(frame[name], found.accuracy[:, 0])
    assert name in found.summary()["splits"]["test"]["LEACE"]
    assert name in found.sweep


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_factors_given_the_label_are_those_of_scikit_learn(kind):
    train, test = world(kind, 8), world(kind, 9, n=200)
    found = erase(train, test, factor="site", n_removed=1, n_random=2)
    model = make_pipeline(StandardScaler(), Ridge(alpha=PENALTY * len(train)))
    predicted = model.fit(train.features, train.labels).predict(test.features)
    scored = r2_score if kind == "values" else average_precision_score
    assert_allclose(found.accuracy[0, 0], scored(test.labels, predicted), rtol=1e-8)
    sides = []
    for split in (train, test):
        site = residual(kind, split.labels, split.factors["site"][:, None])
        sides.append((residual(kind, split.labels, split.features), site))
    (x, y), (rows, truth) = sides
    scale = x[:, :4].std(axis=0)
    ridge = Ridge(alpha=PENALTY * len(train), fit_intercept=False).fit(x[:, :4] / scale, y)
    left = (truth[:, 0] - ridge.predict(rows[:, :4] / scale).ravel()) ** 2
    expected = 1 - left.sum() / (truth**2).sum()
    assert_allclose(found.factor_r_squared_given_label[0, 0], expected, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_taking_out_a_factor_that_changes_sides_helps_and_leaves_the_label(kind):
    rng = np.random.default_rng(0)

    def side(seed, follows):
        given = world(kind, seed, n=600, follows=follows)
        noisy = np.column_stack(
            [given.labels + 2 * rng.normal(size=(600, 2)), given.factors["site"]]
        )
        return Representation(noisy, labels=given.labels, factors=given.factors)

    found = erase(side(1, 0.8), side(2, -0.8), factor="site", n_random=3)
    assert found.dimensions.tolist() == [2]
    assert verdict_of(found).answer == "yes"
    words = "R^2" if kind == "values" else "mean average precision"
    assert words in found.summary()["in_words"][0]
    assert words in verdict_of(found).because


def test_the_label_as_covariates_explains_what_least_squares_does():
    rng = np.random.default_rng(0)
    rows, values = rng.normal(size=(80, 3)) + 1e3, rng.normal(size=(80, 2))
    values[:, 1] = 5.0  # constant: nothing to adjust for
    label = Label.of(values)
    expected = rows - LinearRegression().fit(expand(values[:, 0]), rows).predict(
        expand(values[:, 0])
    )
    assert_allclose(label.without(rows), expected, atol=1e-9)
    assert label.n_parameters == 5
    some = slice(10, 30)
    assert_allclose(rows[some] - label.fitted(label.fit(rows), some), expected[some], atol=1e-9)
