"""Attribution: planted truth, calibration, and an oracle that fits every fold with scikit-learn."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import f as f_law
from scipy.stats import false_discovery_control, kstest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from dimlab.basis import fit_basis
from dimlab.kernels.effects import (
    expand,
    f_statistics,
    orthonormal,
    out_of_fold_errors,
    without_class_means,
)
from dimlab.kernels.permutation import _pooled, _shuffled, _Tests, permutation_p_values
from dimlab.mask import MaskTrace
from dimlab.probes._effects import _view_invariance
from dimlab.probes._factors import Factors, centred_features
from dimlab.probes.ablate import ablate
from dimlab.probes.attribute import attribute
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.report import verdicts_of
from dimlab.representation import Representation
from tests import worlds


def split(rng, n=400, **factors):
    labels = np.arange(n) % 3
    return Representation(rng.normal(size=(n, 4)), labels=labels, factors=factors)


# Columns of factors --------------------------------------------------------------------------


def harrell(x, knots):
    """Truncated powers of a restricted cubic spline, as in his section 2.4.5."""

    def cube(t):
        return np.maximum(x - t, 0) ** 3

    t, last, end = knots[:-2], knots[-2], knots[-1]
    curves = [
        cube(each)
        - (cube(last) * (end - each) - cube(end) * (last - each)) / (end - last)
        for each in t
    ]  # fmt: skip
    return np.column_stack([x, *curves])


def test_a_spline_is_harrells_with_five_knots_and_linear_tails():
    x = np.random.default_rng(0).exponential(size=500)
    columns = expand(x)
    assert columns.shape == (500, 4)
    expected = harrell(x, np.quantile(x, [0.05, 0.275, 0.5, 0.725, 0.95]))
    fit = LinearRegression().fit(columns, expected)
    np.testing.assert_allclose(fit.predict(columns), expected, atol=1e-9)
    assert np.linalg.matrix_rank(expected - expected.mean(axis=0)) == 4


@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_frequent_values_leave_four_columns(share):
    rng = np.random.default_rng(1)
    x = np.where(rng.random(2000) < share, 0.0, rng.uniform(0.2, 1, size=2000))
    for values in (x, -x, np.where(rng.random(2000) < 0.5, x, 2.0), np.round(5 * x)):
        columns = expand(values)
        assert columns.shape == (2000, 4)
        singular = np.linalg.svd(orthonormal(columns - columns.mean(axis=0)))[1]
        assert len(singular) == 4
    constant = (x == 0).astype(float)  # the jump from the frequent value to the rest is in the span
    fit = LinearRegression().fit(expand(x), constant)
    assert fit.score(expand(x), constant) > 0.7


def test_few_different_values_have_a_column_less_than_there_are():
    for n in range(1, 7):
        x = np.random.default_rng(n).integers(0, n, size=300).astype(float)
        assert expand(x).shape[1] == min(n - 1, 4)
        if 1 < n <= 5:
            onehot = np.eye(n)[x.astype(int)]
            fit = LinearRegression().fit(expand(x), onehot)
            np.testing.assert_allclose(fit.predict(expand(x)), onehot, atol=1e-9)


def test_a_periodic_factor_spans_two_harmonics_and_has_no_seam():
    angle = np.linspace(0, 4.0, 50)
    columns = expand(angle, 4.0)
    np.testing.assert_allclose(columns[0], columns[-1], atol=1e-12)
    for wave in (np.cos(np.pi * angle + 0.3), np.sin(2 * 2 * np.pi * angle / 4)):
        fit = LinearRegression().fit(columns, wave)
        np.testing.assert_allclose(fit.predict(columns), wave, atol=1e-10)


def test_categories_and_degenerate_factors():
    np.testing.assert_array_equal(expand(np.array([True, False, True])), [[1], [0], [1]])
    assert expand(np.full(9, 2.0)).shape == (9, 0)
    two = expand(np.array([0.0, 1.0] * 20))
    assert np.linalg.matrix_rank(two) == 1


def test_skewed_factors_keep_their_four_columns():
    """File sizes are like this: truncated powers would be collinear to the last digit."""
    rng = np.random.default_rng(18)
    u = rng.normal(size=3000)
    features = np.column_stack([u > 0, 3 * (np.abs(u) < 0.3)]) + 0.2 * rng.normal(size=(3000, 2))
    for spread in (1, 3, 5):
        world = Representation(
            features, labels=np.arange(3000) % 2, factors={"size": np.exp(spread * u)}
        )
        found = attribute(world, world, n_permutations=20, erased=None)
        assert found.effect[0, 0] > 0.55, spread
        assert found.effect[1, 0] > 0.05, spread
        assert Factors.of(world, world.labels, None).columns[0].shape[1] == 4


@pytest.mark.parametrize("seed", range(3))
def test_bounded_functions_of_a_factor_of_heavy_tails_are_found(seed):
    """Tails are not continued beyond the rows that they were fitted to."""
    rng = np.random.default_rng(seed)
    x = rng.standard_cauchy(size=1000)
    rank = x.argsort().argsort() / 1000
    features = np.column_stack([rank, np.arctan(x), rank + 0.3 * rng.normal(size=1000)])
    for size in (1.0, 1e200, 1e-200):
        world = Representation(features, labels=np.arange(1000) % 2, factors={"x": size * x})
        found = attribute(world, world, n_permutations=30, erased=None)
        assert found.effect[:2].min() > 0.9
        np.testing.assert_allclose(found.effect[2, 0], 0.48, atol=0.06)
        assert found.verdicts() == ["nuisance"] * 3


def test_effects_are_right_though_the_class_explains_nearly_all():
    rng = np.random.default_rng(19)
    labels, x = np.arange(2000) % 4, rng.normal(size=2000)
    noise = 0.7 * x + rng.normal(size=2000)
    features = np.column_stack([labels + scale * noise for scale in (1.0, 1e-7, 1e-10)])
    world = Representation(features, labels=labels, factors={"x": x})
    found = attribute(world, world, n_permutations=5, erased=None)
    np.testing.assert_allclose(found.effect[:, 0], 0.49 / 1.49, atol=0.05)
    np.testing.assert_allclose(found.effect[:2, 0], found.effect[0, 0], atol=1e-3)


def test_q_values_are_adjusted_over_all_factors_and_dimensions_together():
    rng = np.random.default_rng(20)
    x, y = rng.normal(size=(2, 300))
    features = np.column_stack([x, x, x, rng.normal(size=(300, 5))]) + rng.normal(size=(300, 8))
    world = Representation(features, labels=np.arange(300) % 3, factors={"x": x, "y": y})
    found = attribute(world, world, n_permutations=200, erased=None)
    # what explains nothing out of fold is not found
    p, q = np.where(found.effect > 0, found.p_value, 1.0), found.q_value
    np.testing.assert_allclose(q.ravel(), false_discovery_control(p.ravel()))
    assert np.abs(q - false_discovery_control(p, axis=0)).max() > 0.01


def test_a_factor_of_samples_is_tested_on_the_mean_of_all_views():
    """Each view alone hardly shows the factor; which view comes first does not matter."""
    rng = np.random.default_rng(21)
    x = rng.normal(size=80)
    shown = np.stack([x, rng.normal(size=80)], axis=1)
    views = shown + 10.0 * rng.normal(size=(50, 80, 2))
    p_values = []
    for each in (views, views[::-1]):
        rows = Representation(each[0], labels=np.arange(80) % 2, factors={"x": x}, views=each)
        found = attribute(rows, rows.per_view(), n_permutations=99, erased=None)
        p_values.append(found.p_value[:, found.factors.index("x")])
    assert p_values[0][0] <= 2 / 99
    np.testing.assert_array_equal(*p_values)


# Oracles -------------------------------------------------------------------------------------


def test_out_of_fold_errors_are_those_of_fits_without_each_fold():
    rng = np.random.default_rng(1)
    design, features = rng.normal(size=(60, 3)), rng.normal(size=(60, 5))
    folds = rng.permutation(np.arange(60) % 4)
    folds[:5] = -1  # in every train part
    models = [np.array([0, 1, 2]), np.array([2])]
    expected = np.zeros((2, 5))
    for fold in range(4):
        mine = folds == fold
        for model, columns in enumerate(models):
            x = design[:, columns]
            fit = LinearRegression(fit_intercept=False).fit(x[~mine], features[~mine])
            expected[model] += ((features[mine] - fit.predict(x[mine])) ** 2).sum(axis=0)
    np.testing.assert_allclose(out_of_fold_errors(features, design, folds, models), expected)


def test_intercepts_of_classes_are_those_of_columns_that_say_the_class():
    """A class is missing from the first fold, another from every train part of its own."""
    rng = np.random.default_rng(7)
    design, features = rng.normal(size=(80, 4)), rng.normal(size=(80, 5))
    codes, folds = np.arange(80) % 3, rng.permutation(np.arange(80) % 4)
    codes[folds == 0], codes[5], folds[:4] = np.arange(80)[folds == 0] % 2, 3, -1
    design[:, 0] += codes
    models = [np.array([], dtype=int), np.array([0, 1, 3]), np.array([2])]
    with_classes = np.hstack([np.eye(4)[codes], design])
    columns = [np.concatenate([np.arange(4), 4 + each]) for each in models]
    np.testing.assert_allclose(
        out_of_fold_errors(features, design, folds, models, codes=codes),
        out_of_fold_errors(features, with_classes, folds, columns),
        rtol=1e-9,
    )


def test_f_is_that_of_two_nested_regressions():
    rng = np.random.default_rng(2)
    codes, x = np.arange(90) % 3, rng.normal(size=(90, 2))
    y = rng.normal(size=(90, 4)) + codes[:, None] + x[:, :1]
    onehot = np.eye(3)[codes]
    errors = [
        ((y - LinearRegression(fit_intercept=False).fit(d, y).predict(d)) ** 2).sum(axis=0)
        for d in (onehot, np.hstack([onehot, x]))
    ]
    expected = (errors[0] - errors[1]) / 2 / (errors[1] / (90 - 5))
    columns = orthonormal(without_class_means(x, codes))
    found = f_statistics(without_class_means(y, codes), columns, 3)
    np.testing.assert_allclose(found, expected)


def test_permutation_p_values_are_near_those_of_the_f_law():
    rng = np.random.default_rng(3)
    codes, x = np.arange(200) % 4, rng.normal(size=(200, 2))
    y = rng.normal(size=(200, 30)) + 0.15 * x[:, :1]
    columns = orthonormal(without_class_means(x, codes))
    within = without_class_means(y, codes)
    single = columns[:, :1]
    found = permutation_p_values(within, [columns, single], codes, 500, rng).given_label
    for f, (each, rank) in enumerate(((columns, 2), (single, 1))):
        expected = f_law.sf(f_statistics(within, each, 4), rank, 200 - 4 - rank)
        np.testing.assert_allclose(found[:, f], expected, atol=0.02)


def test_p_values_are_shares_of_all_permutations_within_cells():
    """Two cells of three rows: 36 permutations, of which those as good as the observed count."""
    rng, codes = np.random.default_rng(22), np.repeat([0, 1], 3)
    for _ in range(3):
        scale = np.array([5.0, 5, 5, 0.3, 0.3, 0.3])  # mixed, the cells would not be alike
        y, x = (without_class_means((scale * rng.normal(size=6))[:, None], codes) for _ in range(2))
        columns = orthonormal(x)
        orders = [
            [*first, *second]
            for first in permutations(range(3))
            for second in permutations(range(3, 6))
        ]
        f = np.array([f_statistics(y, columns[order], 2)[0] for order in orders])
        expected = (f >= f[0] * (1 - 1e-9)).mean()
        found = permutation_p_values(y, [columns], codes, 8000, rng).given_label
        np.testing.assert_allclose(found[0, 0], expected, atol=0.018)


def test_dimensions_whose_rows_are_alike_within_clusters_share_a_null_with_others():
    """Dimensions 0-1 drift within clusters as the factor does, 2-3 do not: no effect of either."""
    rng, p_values = np.random.default_rng(23), []
    clusters = np.repeat(np.arange(20), 6)
    time = np.tile(np.arange(6) - 2.5, 20)[:, None]
    for _ in range(60):
        drift = rng.normal(size=(20, 5))[clusters] * time
        rows = rng.normal(size=(120, 5)) + drift * [2, 2, 0, 0, 2]
        rows = without_class_means(rows, clusters)
        found = permutation_p_values(
            rows[:, :4], [orthonormal(rows[:, 4:])], clusters, 60, rng, clusters=clusters
        )
        p_values.append(found.given_label[:, 0])
    means = np.reshape(p_values, (-1, 2, 2)).mean(axis=(0, 2))
    np.testing.assert_allclose(means, 0.5, atol=0.09)


def test_the_effect_of_a_known_share_is_found():
    rng = np.random.default_rng(4)
    labels, x = np.arange(20_000) % 2, rng.normal(size=20_000)
    shares = np.array([0.0, 0.1, 0.5, 0.9])
    features = np.sqrt(shares) * x[:, None] + np.sqrt(1 - shares) * rng.normal(size=(20_000, 4))
    world = Representation(features + 3 * labels[:, None], labels=labels, factors={"x": x})
    found = attribute(world, world, n_permutations=20)
    np.testing.assert_allclose(found.effect[:, 0], shares, atol=0.02)
    # the label's share of what the factor leaves: variance 9/4 beside 1 - share
    np.testing.assert_allclose(found.label_effect, 2.25 / (2.25 + 1 - shares), atol=0.02)


# Planted truth -------------------------------------------------------------------------------


@pytest.mark.slow
def test_nuisance_dimensions_are_found_duplicates_grouped_and_dead_ones_named():
    nuisance = np.zeros(64)
    nuisance[worlds.NUISANCE] = 1
    copies = np.full(64, -1)
    copies[worlds.SIGNAL] = np.arange(8)
    copies[worlds.DUPLICATE] = np.repeat(np.arange(8), 2)
    ours, naive, named, grouped = [], [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        train = worlds.confounded_dimensions_world(rng, 0.8)
        test = worlds.confounded_dimensions_world(rng, 0.0)
        found = attribute(train, test, n_permutations=50, seed=seed)
        alive = ~found.dead
        np.testing.assert_array_equal(np.flatnonzero(found.dead), [60, 61, 62, 63])
        ours.append(roc_auc_score(nuisance[alive], found.nuisance_score[alive]))
        factor = train.factors["nuisance"]
        plain = [abs(np.corrcoef(train.features[:, d], factor)[0, 1]) for d in range(60)]
        naive.append(roc_auc_score(nuisance[:60], plain))
        named.append(set(np.flatnonzero(found.flagged)) >= set(range(9, 16)))
        # signals correlate by 0.7 through the class: a closer cut tells copies from relatives
        group = find_redundancy(test, cut=0.85, n_blocks=2).group
        grouped.append(adjusted_rand_score(copies[copies >= 0], group[copies >= 0]))
    assert np.median(ours) >= 0.95
    assert np.median(naive) < np.median(ours) - 0.1
    assert np.mean(named) >= 0.9
    assert np.median(grouped) >= 0.95


def test_on_a_clean_control_little_is_flagged():
    flagged = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        test = worlds.confounded_dimensions_world(rng, 0.0, clean=True)
        flagged.append(attribute(test, test, n_permutations=50, seed=seed).flagged.any())
    assert np.mean(flagged) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 20)


@pytest.mark.parametrize("kind", ["gaussian", "relu"])
def test_p_values_are_uniform_without_effects(kind):
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.choice(3, size=300, p=[0.7, 0.2, 0.1])
        features = rng.normal(size=(300, 6)) + labels[:, None]
        features = np.maximum(features, 0) if kind == "relu" else features
        x = rng.normal(size=300) + 2 * labels  # follows the label, and nothing else
        world = Representation(features, labels=labels, factors={"x": x})
        p += attribute(world, world, n_permutations=100, seed=seed).p_value.ravel().tolist()
    assert kstest(p, "uniform").pvalue > 0.01


def test_a_factor_that_merely_follows_the_label_explains_nothing():
    rng = np.random.default_rng(5)
    labels = np.arange(600) % 2
    x = 2.0 * labels + rng.normal(size=600)
    features = np.column_stack([labels * 4 + rng.normal(size=600), x + rng.normal(size=600)])
    found = attribute(*[Representation(features, labels=labels, factors={"x": x})] * 2)
    assert abs(np.corrcoef(features[:, 0], x)[0, 1]) > 0.5  # it does correlate
    assert found.effect[0, 0] < 0.02
    assert found.effect[1, 0] > 0.3
    assert found.verdicts() == ["label", "mixed"] or found.verdicts() == ["label", "nuisance"]


def test_a_factor_that_the_label_determines_is_not_identifiable():
    rng = np.random.default_rng(6)
    base = split(rng)
    factors = {
        "copy": base.labels.astype(float),
        "constant": np.ones(400),
        "free": rng.normal(size=400),
    }
    world = Representation(base.features, labels=base.labels, factors=factors)
    found = attribute(world, world, n_permutations=20)
    np.testing.assert_array_equal(found.identifiable, [False, False, True])
    assert np.isnan(found.effect[:, :2]).all()
    assert np.isfinite(found.effect[:, 2]).all()
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary["factors"]["copy"]["identifiable"] is False


def test_circular_factors_are_treated_as_circular():
    """A peak across the seam of the angle: two harmonics see it, four spline columns less."""
    rng = np.random.default_rng(7)
    angle = rng.uniform(0, 2 * np.pi, size=2000)
    features = np.column_stack([np.cos(angle), np.sin(2 * angle)]) + rng.normal(size=(2000, 2))
    labels = np.arange(2000) % 2
    wraps = Representation(
        features, labels=labels, factors={"hue": angle}, periods={"hue": 2 * np.pi}
    )
    line = Representation(features, labels=labels, factors={"hue": angle})
    found, flat = (attribute(each, each, n_permutations=20) for each in (wraps, line))
    np.testing.assert_allclose(found.effect[:, 0], 1 / 3, atol=0.05)
    assert found.kinds == ("periodic",)
    assert flat.kinds == ("continuous",)
    assert flat.effect[1, 0] < found.effect[1, 0] - 0.05
    turned = Representation(
        features, labels=labels, factors={"hue": (angle + 2.5) % (2 * np.pi)},
        periods={"hue": 2 * np.pi},
    )  # fmt: skip
    again = attribute(turned, turned, n_permutations=20)
    np.testing.assert_allclose(again.effect, found.effect, atol=1e-9)


def test_unequal_classes_do_not_inflate_effects():
    rng = np.random.default_rng(8)
    effects = []
    for _ in range(20):
        labels = rng.choice(5, size=500, p=[0.9, 0.05, 0.02, 0.02, 0.01])
        world = Representation(
            rng.normal(size=(500, 5)) + labels[:, None],
            labels=labels,
            factors={"x": labels + 0.5 * rng.normal(size=500)},
        )
        effects.append(attribute(world, world, n_permutations=1).effect.mean())
    assert np.mean(effects) < 0.003


# Factors beside each other ---------------------------------------------------------------------


def followed(rng, n=400, relu=False, kind="continuous"):
    """Dimensions 0-3 carry ``true``, which ``follower`` merely follows; 4-5 carry ``follower``."""
    labels = np.arange(n) % 3
    true = rng.normal(size=n)
    follower = 0.75 * true + 0.66 * rng.normal(size=n)
    if kind == "square":
        follower = true**2 + rng.normal(size=n)
    if kind == "category":
        follower = np.digitize(follower, [-0.8, 0.0, 0.8])
    signal = np.column_stack([np.outer(true, [1, -1, 0.7, 1.4]), np.zeros((n, 2))])
    features = signal + labels[:, None] + rng.normal(size=(n, 6))
    if kind == "continuous":
        features[:, 4:] += 0.8 * follower[:, None]
    features = np.maximum(features, 0) if relu else features
    factors = {"true": true, "follower": follower}
    return Representation(features, labels=labels, factors=factors)


def test_partial_f_is_that_of_nested_regressions_of_permuted_residuals():
    """Freedman and Lane by hand: permuted residuals are fitted with and without the factor."""
    rng = np.random.default_rng(23)
    codes, x = np.arange(60) % 3, rng.normal(size=(60, 5))
    x[:, 3:] += x[:, :2]
    columns = [
        orthonormal(without_class_means(x[:, block], codes)) for block in ([0, 1, 2], [3, 4])
    ]
    features = without_class_means(rng.normal(size=(60, 4)) + x[:, :1], codes)
    moved = np.concatenate([np.flatnonzero(codes == k)[rng.permutation(20)] for k in range(3)])
    order = np.argsort(np.concatenate([np.flatnonzero(codes == k) for k in range(3)]))
    moved = moved[order]
    joint = orthonormal(np.hstack(columns))
    tests = _Tests.of(joint, columns, [0, 1], features, 57, features[:, :0])
    back = joint[moved]
    found = tests.statistics((back.T @ features)[None], (back.T @ joint)[None])[1, :, 0]

    def left(design, y):
        return y - design @ np.linalg.lstsq(design, y, rcond=None)[0]

    onehot = np.eye(3)[codes]
    for f in range(2):
        rest = np.hstack([onehot, columns[1 - f]])
        residual = np.empty_like(features)
        residual[moved] = left(rest, features)
        errors = [
            (left(d, residual) ** 2).sum(axis=0) for d in (rest, np.hstack([rest, columns[f]]))
        ]
        rank = columns[f].shape[1]
        expected = (errors[0] - errors[1]) / rank / (errors[1] / (57 - 5))
        np.testing.assert_allclose(found[f], expected, rtol=1e-9)


def test_partial_effects_are_those_of_nested_fits_out_of_fold():
    rng = np.random.default_rng(24)
    world = followed(rng, n=150)
    known = Factors.of(world, world.labels, None)
    folds = known.deal(5, rng)
    features, within, _ = centred_features(world, known.label)
    found = known.effects(features, within, folds)
    errors = {}
    for name, blocks in (("none", []), ("true", [0]), ("follower", [1]), ("both", [0, 1])):
        design = np.hstack([np.eye(3)[known.codes], *(known.columns[f] for f in blocks)])
        errors[name] = np.zeros(6)
        for fold in range(5):
            mine = np.flatnonzero(folds == fold)
            rest = np.flatnonzero(folds != fold)
            fit = LinearRegression(fit_intercept=False).fit(design[rest], features[rest])
            held, start = design[mine].copy(), 3
            for f in blocks:
                values = known.values[f]
                for end in (rest[values[rest].argmin()], rest[values[rest].argmax()]):
                    sign = 1 if values[end] == values[rest].max() else -1
                    beyond = sign * values[mine] > sign * values[end]
                    held[beyond, start : start + 4] = known.columns[f][end]
                start += 4
            errors[name] += ((features[mine] - fit.predict(held)) ** 2).sum(axis=0)
    expected = np.column_stack(
        [1 - errors["true"] / errors["none"], 1 - errors["follower"] / errors["none"]]
    )
    np.testing.assert_allclose(found.given_label, np.clip(expected, 0, 1), atol=1e-8)
    expected = np.column_stack(
        [1 - errors["both"] / errors["follower"], 1 - errors["both"] / errors["true"]]
    )
    np.testing.assert_allclose(found.given_all, np.clip(expected, 0, 1), atol=1e-8)


@pytest.mark.parametrize("kind", ["continuous", "square", "category"])
def test_a_factor_that_follows_another_one_is_found_through_it(kind):
    rng = np.random.default_rng(25)
    world = followed(rng, n=1500, kind=kind)
    found = attribute(world, world, n_permutations=40, erased=None)
    words = found.words()
    assert (words[:4, 0] == "own").all()
    assert set(words[:4, 1].tolist()) <= {"through true", ""}
    if kind == "continuous":
        assert words.tolist() == [["own", "through true"]] * 4 + [["through follower", "own"]] * 2
        np.testing.assert_array_equal(found.leading, [0, 0, 0, 0, 1, 1])
        assert found.summary()["factors"]["follower"]["n_through"] == {"true": 4}
    assert found.leading_factor == "true"
    table = found.tables()["effects"]
    assert table["word"].tolist() == words.ravel().tolist()
    np.testing.assert_array_equal(table["partial_effect"], found.partial_effect.ravel())


def test_a_single_factor_has_the_same_effect_beside_no_other():
    rng = np.random.default_rng(26)
    world = split(rng, x=rng.normal(size=400), flat=np.ones(400))
    found = attribute(world, world, n_permutations=30, erased=None)
    np.testing.assert_allclose(found.partial_effect[:, 0], found.effect[:, 0], atol=1e-12)
    np.testing.assert_allclose(found.partial_p_value[:, 0], found.p_value[:, 0], atol=0.2)
    assert found.determined == ()  # a constant is no copy of the label


def test_factors_that_nothing_tells_apart_are_named_and_undecided():
    rng = np.random.default_rng(27)
    x = rng.normal(size=400)
    base = split(rng, celsius=x, fahrenheit=32 + 1.8 * x, other=rng.normal(size=400))
    features = (
        base.features + np.outer(x, [2, 0, 0, 0]) + np.outer(base.factors["other"], [0, 2, 0, 0])
    )
    world = Representation(features, labels=base.labels, factors=base.factors)
    found = attribute(world, world, n_permutations=60, erased=None)
    np.testing.assert_array_equal(found.separate, [False, False, True])
    np.testing.assert_array_equal(found.identifiable, True)
    for each in (found.partial_effect, found.partial_p_value, found.partial_q_value):
        np.testing.assert_array_equal(np.isnan(each), [[True, True, False]] * 4)
    assert found.verdicts()[:2] == ["undecided", "nuisance"]
    assert found.leading_factor == "other"
    reasons = found.summary()["factors"]
    assert "above all fahrenheit" in reasons["celsius"]["reason"]
    assert "above all celsius" in reasons["fahrenheit"]["reason"]
    assert reasons["other"]["reason"] == ""


def test_a_factor_that_the_label_determines_leaves_the_verdict_undecided():
    rng = np.random.default_rng(28)
    base = split(rng, site=np.arange(400) % 3 > 0, free=rng.normal(size=400))
    features = base.features + np.outer(base.labels, [2, 0, 0, 0])
    world = Representation(features, labels=base.labels, factors=base.factors)
    found = attribute(world, world, n_permutations=30, erased=None)
    assert found.determined == ("site",)
    assert found.verdicts()[0] == "undecided"
    (answer,) = verdicts_of({"attribution": found})
    assert answer.answer == "undecided"
    assert "determines site" in answer.because
    without = attribute(world, world, factors=["free"], n_permutations=30, erased=None)
    assert without.verdicts()[0] == "label"


def test_effects_are_never_nothing_beside_a_q_that_calls_them_found():
    """Weak effects in many rows: significant F, and next to nothing out of fold."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        world = split(rng, n=300, x=rng.normal(size=300), y=rng.normal(size=300))
        features = world.features + 0.25 * np.outer(world.factors["x"], [1, 1, 1, 1])
        world = Representation(features, labels=world.labels, factors=world.factors)
        found = attribute(world, world, n_permutations=60, erased=None)
        for effect, q in (
            (found.effect, found.q_value),
            (found.partial_effect, found.partial_q_value),
        ):
            assert (effect[q <= 0.05] > 0).all()
        assert (found.effect[found.own] >= 0.01).all()


def test_q_values_are_over_all_dimensions_and_factors():
    rng = np.random.default_rng(29)
    x, y = rng.normal(size=(2, 300))
    base = split(rng, n=300, x=x, y=y)
    features = base.features + np.outer(x, [2, 1, 0.3, 0])
    world = Representation(features, labels=base.labels, factors=base.factors)
    found = attribute(world, world, n_permutations=60, erased=None)
    for p, q, effect in (
        (found.p_value, found.q_value, found.effect),
        (found.partial_p_value, found.partial_q_value, found.partial_effect),
    ):
        expected = false_discovery_control(np.where(effect > 0, p, 1).ravel()).reshape(4, 2)
        np.testing.assert_allclose(q, expected)


def test_variances_that_follow_a_factor_make_no_partial_effect():
    """Only its spread depends on the factor: a plain F calls most such dimensions found."""
    rng = np.random.default_rng(34)
    other, x = rng.normal(size=(2, 500))
    labels = np.arange(500) % 2
    features = (1 + x[:, None] ** 2) * rng.normal(size=(500, 80))
    world = Representation(features, labels=labels, factors={"other": other, "x": x})
    known = Factors.of(world, labels, None)
    (level,) = known.levels(centred_features(world, known.label)[1])
    found = permutation_p_values(level.features, level.columns, level.cells, 40, rng)
    assert np.mean(found.given_all[:, 1] <= 0.05) < 0.15
    assert np.mean(found.given_label[:, 1] <= 0.05) > 0.3


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", ["square", "category"])
@pytest.mark.long
def test_partial_p_values_hold_their_level_where_a_factor_acts_through_another(kind, relu):
    p, power = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        world = followed(rng, n=400, relu=relu, kind=kind)
        known = Factors.of(world, world.labels, None)
        within = centred_features(world, known.label)[1]
        (level,) = known.levels(within)
        found = permutation_p_values(level.features, level.columns, level.cells, 60, rng).given_all
        p.append(found[:4, 1])
        power.append(found[:4, 0] <= 0.05)
    assert np.mean(power) > 0.95
    # dimensions share the factor, so 60 worlds count little more than once each
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


# Clusters ----------------------------------------------------------------------------------------


def patients(rng, kind, n_patients=40, n_images=10):
    """Features with a random effect of each patient, or that drift along a video."""
    size = (n_patients, n_images)
    patient = np.repeat(np.arange(n_patients), n_images)
    shared, own = rng.normal(size=(n_patients, 1, 6)), rng.normal(size=(*size, 6))
    labels = np.broadcast_to(rng.integers(0, 2, size=(n_patients, 1)), size)
    factor = np.broadcast_to(rng.normal(size=(n_patients, 1)), size)
    if kind == "labels vary":
        labels = rng.integers(0, 2, size=size)
    if kind == "copies":
        own[:] = 0
    if kind == "frames":
        own, factor = np.cumsum(own, axis=1), np.cumsum(rng.normal(size=size), axis=1)
    if kind == "images":
        factor = rng.normal(size=size)
    features = (2 * shared + own).reshape(len(patient), 6) + labels.reshape(-1, 1)
    factors = {"factor": factor.ravel(), "patient": patient}
    return Representation(features, labels=labels.ravel(), factors=factors)


CLUSTERED = ["patients", "labels vary", "copies", "frames", "images"]


@pytest.mark.parametrize("kind", CLUSTERED)
def test_clusters_share_a_fold_and_are_counted_once(kind):
    world = patients(np.random.default_rng(30), kind)
    found = attribute(world, world, clusters="patient", n_permutations=50, erased=None)
    assert found.factors == ("factor",)  # the clusters' name is none
    assert found.n_clusters == 40
    assert not found.flagged.any()
    given = attribute(
        world, world, factors=["factor"], clusters=world.factors["patient"], n_permutations=50,
        erased=None,
    )  # fmt: skip
    np.testing.assert_allclose(given.p_value, found.p_value)
    known = Factors.of(world, world.labels, ["factor"], "patient")
    folds = known.deal(5, np.random.default_rng(0)).reshape(40, 10)
    assert (folds == folds[:, :1]).all()


def test_rows_change_places_within_classes_alone():
    codes = np.random.default_rng(40).integers(0, 3, size=50)
    strata = [np.flatnonzero(codes == k) for k in range(3)]
    moved = _shuffled(strata, 50, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(codes[moved], np.repeat(codes[:, None], 20, axis=1))
    np.testing.assert_array_equal(np.sort(moved, axis=0), np.tile(np.arange(50)[:, None], 20))
    assert (moved != np.arange(50)[:, None]).mean() > 0.8


def test_a_value_of_the_null_that_equals_the_observed_one_counts():
    null = np.tile(np.float32([1 / 3, 0.0]), (9, 1))
    p_value, smallest = _pooled(np.array([1 / 3 * (1 + 1e-7), 1.0]), null)
    np.testing.assert_allclose(p_value, [10 / 19, 1 / 19])
    np.testing.assert_allclose(smallest, 1 / 19)


@pytest.mark.parametrize("kind", ["patients", "labels vary"])
def test_a_factor_of_clusters_is_tested_on_the_means_of_their_rows(kind):
    world = patients(np.random.default_rng(41), kind)
    known = Factors.of(world, world.labels, ["factor"], "patient")
    within = without_class_means(world.features, world.labels)
    (level,) = known.levels(within)
    means = within.reshape(40, 10, 6).mean(axis=1)
    codes = world.labels[::10] if kind == "patients" else np.zeros(40, dtype=int)
    np.testing.assert_allclose(level.features, without_class_means(means, codes), atol=1e-12)
    np.testing.assert_array_equal(level.cells, codes)


@pytest.mark.long
@pytest.mark.parametrize("kind", CLUSTERED)
def test_p_values_hold_their_level_with_clusters(kind):
    p, naive = [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        world = patients(rng, kind)
        for clusters, into in (("patient", p), (None, naive)):
            known = Factors.of(world, world.labels, ["factor"], clusters)
            (level,) = known.levels(centred_features(world, known.label)[1])
            into += permutation_p_values(
                level.features, level.columns, level.cells, 60, rng, clusters=level.clusters
            ).given_label.ravel().tolist()  # fmt: skip
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)
    if kind != "images":
        assert np.mean(np.array(naive) <= 0.05) > 0.3


def test_effects_between_and_within_clusters_are_found():
    rng = np.random.default_rng(31)
    for kind in ("patients", "images", "labels vary"):
        world = patients(rng, kind, n_patients=60)
        features = world.features + np.outer(world.factors["factor"], [6, 0, 0, 0, 0, 0])
        world = Representation(features, labels=world.labels, factors=world.factors)
        found = attribute(world, world, clusters="patient", n_permutations=100, erased=None)
        np.testing.assert_array_equal(np.flatnonzero(found.flagged), [0])


def test_erasure_rests_on_the_same_clusters():
    world = patients(np.random.default_rng(35), "patients")
    settings = {"factors": ["factor"], "n_permutations": 5, "erased": "factor"}
    found = attribute(world, world, clusters="patient", **settings)
    assert found.erasure.clusters["n_clusters"] == 40


def test_few_clusters_say_what_their_p_values_cannot_fall_below():
    rng = np.random.default_rng(32)
    site = np.repeat([0.0, 1.0], 3)
    world = patients(rng, "patients", n_patients=6, n_images=40)
    factors = {"site": np.repeat(site, 40), "factor": rng.normal(size=240)}
    features = world.features + 50 * np.outer(factors["site"], np.ones(6))
    world = Representation(features, labels=np.arange(240) % 2, factors=factors)
    found = attribute(
        world, world, clusters=np.repeat(np.arange(6), 40), n_permutations=400, erased=None
    )
    # 20 ways to choose 3 of 6 patients, of which 2 give the same F; 64 signs, of which 2
    np.testing.assert_allclose(found.smallest_p_value, [1 / 10, 1 / 32], atol=0.03)
    np.testing.assert_allclose(found.p_value[:, 0], found.smallest_p_value[0])
    assert not found.flagged.any()
    assert "no p-value lies below" in found.summary()["factors"]["site"]["reason"]


def test_copies_of_rows_are_a_caution_unless_they_are_clusters():
    world = patients(np.random.default_rng(33), "copies")
    settings = {"factors": ["factor"], "n_permutations": 5, "erased": None}
    found = attribute(world, world, **settings)
    assert "clusters=" in found.summary()["caution"]
    known = attribute(world, world, clusters="patient", **settings)
    assert "caution" not in known.summary()


# Laws ----------------------------------------------------------------------------------------


def test_scale_and_shift_of_dimensions_and_names_of_classes_change_nothing():
    rng = np.random.default_rng(9)
    world = split(rng, x=rng.normal(size=400), c=rng.integers(0, 3, 400))
    moved = Representation(
        world.features * [1e-6, -3, 1e5, 1] + 7, labels=world.labels * 5 + 2, factors=world.factors
    )
    plain, other = attribute(world, world), attribute(moved, moved)
    np.testing.assert_allclose(other.effect, plain.effect, atol=1e-7)
    np.testing.assert_allclose(other.p_value, plain.p_value, atol=1e-3)
    np.testing.assert_allclose(other.label_effect, plain.label_effect, atol=1e-7)


def test_q_values_and_frames():
    rng = np.random.default_rng(10)
    world = split(rng, x=rng.normal(size=400), c=rng.integers(0, 3, 400))
    seen = []
    found = attribute(world, world, n_permutations=40, progress=lambda *n: seen.append(n))
    assert seen[-1][0] == seen[-1][1]
    assert (found.q_value >= found.p_value - 1e-15).all()
    frame, effects = found.to_frame(), found.tables()["effects"]
    np.testing.assert_allclose(frame["nuisance_score"], found.effect.max(axis=1))
    np.testing.assert_allclose(effects["effect"].to_numpy().reshape(4, 2), found.effect)
    assert frame["leading_factor"].tolist() == [("x", "c")[i] for i in found.effect.argmax(axis=1)]
    only = attribute(world, world, factors=["c"], n_permutations=5)
    assert only.factors == ("c",)
    json.dumps(found.summary(), allow_nan=False)


def test_bad_arguments_are_refused_in_one_sentence():
    rng = np.random.default_rng(11)
    world = split(rng, x=rng.normal(size=400))
    for arguments, message in (
        ({"factors": ["y"]}, r"^factors must be among 'x'; got 'y'\.$"),
        ({"n_folds": 1}, r"^n_folds must be >= 2; got 1\.$"),
        ({"n_permutations": 0}, r"^n_permutations must be >= 1; got 0\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            attribute(world, world, **arguments)
    with pytest.raises(ValueError, match=r"^attribute needs factors: build the Representation"):
        attribute(world, split(rng))
    with pytest.raises(ValueError, match=r"^attribute needs labels"):
        attribute(world, Representation(world.features, factors=world.factors))
    with pytest.raises(ValueError, match=r"^attribute needs more than \d+ samples for 1 factors"):
        attribute(world, world.take(range(9)))
    with pytest.raises(ValueError, match=r"^n_folds must be at most the number of clusters, 4"):
        attribute(world, world, clusters=np.arange(400) % 4)


# Views ---------------------------------------------------------------------------------------


def encoded_views(rng, n=300, invariance=0.95, **factors):
    """Two views a sample whose features agree; factors of each sample, and one of each view."""
    shared = rng.normal(size=(n, 5))
    own = rng.normal(size=(2, n, 5))
    shift = rng.uniform(size=(2, n))
    views = np.sqrt(invariance) * shared + np.sqrt(1 - invariance) * own
    return Representation(
        shared,
        labels=np.arange(n) % 3,
        factors={"decoy": rng.normal(size=n), "category": rng.integers(0, 3, n), **factors},
        views=views,
        view_factors={"crop_x": shift},
    )


@pytest.mark.long
def test_views_of_a_sample_are_no_further_samples():
    """A decoy that both views share would look like twice as many samples as there are."""
    p = []
    for seed in range(40):
        stacked = encoded_views(np.random.default_rng(seed)).per_view()
        found = attribute(stacked, stacked, n_permutations=100, seed=seed)
        assert found.factors == ("decoy", "category", "crop_x")
        p += found.p_value.T.tolist()
    for each in range(3):
        assert kstest(np.ravel(p[each::3]), "uniform").pvalue > 0.01


@pytest.mark.long
def test_factors_that_views_nearly_share_are_calibrated():
    """Scanner, session, size: rows of one sample carry nearly the same value."""
    p = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = encoded_views(rng)
        shared = rng.normal(size=300) + 0.05 * rng.normal(size=(2, 300))
        half = np.sqrt(0.5) * (rng.normal(size=300) + rng.normal(size=(2, 300)))
        world = Representation(
            base.features, labels=base.labels, views=base.views,
            view_factors={"scanner": shared, "half": half},
        ).per_view()  # fmt: skip
        found = attribute(world, world, n_permutations=100, seed=seed, erased=None)
        p += found.p_value.T.tolist()
    for each in range(2):
        assert kstest(np.ravel(p[each::2]), "uniform").pvalue > 0.01


def test_samples_may_have_unequal_numbers_of_views():
    stacked = encoded_views(np.random.default_rng(20)).per_view()
    some = stacked.take(np.arange(450))
    found = attribute(some, some, n_permutations=20)
    assert np.isfinite(found.p_value).all()


def test_factors_of_views_are_found_in_views():
    rng = np.random.default_rng(12)
    base = encoded_views(rng)
    views = base.views.copy()
    views[:, :, 3] += 4 * base.view_factors["crop_x"]
    moved = Representation(
        base.features, labels=base.labels, factors=base.factors, views=views,
        view_factors=base.view_factors,
    )  # fmt: skip
    stacked = moved.per_view()
    found = attribute(stacked, stacked, n_permutations=500)
    assert found.leading_factor == "crop_x"
    np.testing.assert_array_equal(np.flatnonzero(found.flagged), [3])
    assert found.erasure is None  # views are no samples to judge on
    expected = [np.corrcoef(views[0, :, d], views[1, :, d])[0, 1] for d in range(5)]
    np.testing.assert_allclose(found.view_invariance, expected)
    unstacked = attribute(moved, moved, n_permutations=5)
    np.testing.assert_allclose(unstacked.view_invariance, expected)


def test_a_row_of_the_table_does_not_contradict_itself():
    rng = np.random.default_rng(22)
    for seed in range(5):
        base = split(rng, n=120, x=rng.normal(size=120), y=rng.integers(0, 6, 120))
        features = base.features + np.outer(base.factors["x"], [0.5, 0.3, 0.2, 0])
        world = Representation(features, labels=base.labels, factors=base.factors)
        frame = attribute(world, world, n_permutations=200, seed=seed, erased=None).to_frame()
        named = frame["verdict"].isin(["nuisance", "mixed"])
        assert (frame["q_value"][named] <= 0.05).all()


def test_folds_hold_all_views_of_a_sample():
    stacked = encoded_views(np.random.default_rng(13), n=50).per_view()
    known = Factors.of(stacked, stacked.labels, None)
    folds = known.deal(5, np.random.default_rng(0))
    np.testing.assert_array_equal(folds[:50], folds[50:])
    np.testing.assert_array_equal(np.bincount(folds), 20)
    levels = known.levels(without_class_means(stacked.features, known.codes))
    assert [level.factors for level in levels] == [[0, 1], [2]]


def test_names_of_files_are_no_factors():
    rng = np.random.default_rng(14)
    names = np.array([f"{i}.png" for i in range(400)])
    world = split(rng, file=names, x=rng.normal(size=400))
    assert attribute(world, world, n_permutations=5).factors == ("x",)
    with pytest.raises(ValueError, match=r"^factors must have at most half as many categories"):
        attribute(world, world, factors=["file"])
    with pytest.raises(ValueError, match=r"^factors must be named once; got x, x\.$"):
        attribute(world, world, factors=["x", "x"])


def test_whole_numbers_never_vanish_nor_become_categories_without_a_sentence():
    rng = np.random.default_rng(15)
    whole = {
        "age": 20 + rng.permutation(400) % 60,
        "time": rng.permutation(400),
        "site": rng.integers(0, 3, 400),
    }
    world = split(rng, **whole, x=rng.normal(size=400))
    found = attribute(world, world, n_permutations=5, erased=None)
    assert found.factors == ("age", "site", "x")
    assert found.notes == {
        "age": "taken as categories: 60 different whole numbers. As floating numbers it is "
        "continuous (dimlab attribute --continuous age).",
        "time": "left out: 400 different whole numbers in 400 samples. As floating numbers it is "
        "continuous (dimlab attribute --continuous time).",
    }
    assert found.summary()["notes"] == found.notes
    with pytest.raises(ValueError, match=r"got 'time', 400 different .* --continuous time\)\.$"):
        attribute(world, world, factors=["time"])
    alone = split(rng, time=whole["time"])
    with pytest.raises(ValueError, match=r"'time' is left out: .* --continuous time\)\.$"):
        attribute(alone, alone)
    remedied = {name: whole[name].astype(float) for name in ("age", "time")}
    remedied = split(rng, **remedied)
    again = attribute(remedied, remedied, n_permutations=5, erased=None)
    assert (again.kinds, again.notes) == (("continuous", "continuous"), {})


@pytest.mark.parametrize("n_views", [1, 2, 3])
def test_categories_are_counted_against_samples_whatever_the_number_of_views(n_views):
    base = encoded_views(np.random.default_rng(16), n=60, file=np.arange(60).astype(str))
    stacked = replace(base, views=base.views[[0] * n_views], view_factors={}).per_view()
    known = Factors.of(stacked, stacked.labels, None)
    assert known.names == ("decoy", "category")
    assert known.notes == {"file": "left out: 60 different values in 60 samples."}


def test_factors_of_the_user_s_called_view_and_sample_are_factors():
    own = {"view": np.arange(300) % 3 == 1, "sample": np.random.default_rng(1).normal(size=300)}
    stacked = encoded_views(np.random.default_rng(17), **own).per_view()
    known = Factors.of(stacked, stacked.labels, None)
    assert known.names == ("decoy", "category", "view", "sample", "crop_x")
    np.testing.assert_array_equal(known.clusters, np.tile(np.arange(300), 2))
    np.testing.assert_array_equal(known.values[3], np.tile(own["sample"], 2))
    assert _view_invariance(stacked).min() > 0.9


# What stands beside --------------------------------------------------------------------------


def test_mutual_information_of_gaussians_for_the_leading_pairs_alone():
    """Correlation r of two Gaussians is -log(1 - r^2) / 2 nats."""
    rng = np.random.default_rng(15)
    x, correlation = rng.normal(size=6000), np.linspace(0.2, 0.9, 15)
    features = correlation * x[:, None] + np.sqrt(1 - correlation**2) * rng.normal(size=(6000, 15))
    world = Representation(features, labels=np.arange(6000) % 2, factors={"x": x})
    found = attribute(world, world, n_permutations=1, erased=None).mutual_information[:, 0]
    np.testing.assert_array_equal(np.isnan(found), np.arange(15) < 5)
    np.testing.assert_allclose(found[5:], -np.log(1 - correlation[5:] ** 2) / 2, atol=0.06)
    bits = Representation(features, labels=world.labels, factors={"x": (x > 0).astype(int)})
    found = attribute(bits, bits, n_permutations=1, erased=None).mutual_information[:, 0]
    assert 0.2 < found[14] < np.log(2)


def test_importance_mask_and_gradient_stand_beside_the_effects():
    rng = np.random.default_rng(16)
    base = split(rng, x=rng.normal(size=400))
    world = Representation(
        base.features, labels=base.labels, factors=base.factors, meta={"mask": [0.1, 0.2, 0.3, 0.4]}
    )
    ablation = ablate(world, world, reader="ridge")
    share = rng.uniform(size=(3, 4))
    trace = MaskTrace(np.arange(3), rng.uniform(size=(3, 4)), gradient_share=share)
    found = attribute(world, world, n_permutations=5, ablation=ablation, trace=trace)
    frame = found.to_frame()
    np.testing.assert_array_equal(frame["importance"], ablation.importance)
    np.testing.assert_array_equal(frame["mask_weight"], trace.weights[-1])
    expected = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(frame["gradient_share"], expected)
    np.testing.assert_allclose(frame["gradient_share"].sum(), 1)
    plain = attribute(world, world, n_permutations=5).to_frame()
    np.testing.assert_array_equal(plain["mask_weight"], [0.1, 0.2, 0.3, 0.4])
    assert not {"importance", "gradient_share", "view_invariance"} & set(plain)
    with pytest.raises(ValueError, match=r"^ablation must have one group for each of the 4 dimen"):
        attribute(world, world, ablation=ablate(world, world, reader="ridge", groups=[[0, 1]]))
    with pytest.raises(ValueError, match=r"^trace must be of the 4 dimensions of test"):
        attribute(world, world, trace=MaskTrace(np.arange(1), np.ones((1, 3))))


def test_the_leading_factor_is_erased_unless_told_otherwise():
    rng = np.random.default_rng(17)
    base = split(rng, x=rng.normal(size=400), y=rng.normal(size=400))
    features = base.features.copy()
    features[:, 0] += 2 * base.factors["x"]
    features[:, 1] += 0.7 * base.factors["y"]
    world = Representation(features, labels=base.labels, factors=base.factors)
    found = attribute(world, world, n_permutations=20)
    assert found.leading_factor == "x" == found.erasure.factor
    assert found.parts() == {"erasure": found.erasure}
    assert found.summary()["erasure"]["dimensions"] == [0]
    assert attribute(world, world, n_permutations=20, erased="y").erasure.factor == "y"
    assert attribute(world, world, n_permutations=20, erased=None).erasure is None
    bare = Representation(features, labels=base.labels)
    assert attribute(bare, world, n_permutations=20).erasure is None
    json.dumps(found.summary(), allow_nan=False)


# Rotated worlds ------------------------------------------------------------------------------


def largest_angle(planted, found):
    """Cosine of the largest principal angle between the spans of two sets of columns."""
    q, p = np.linalg.qr(planted)[0], np.linalg.qr(found)[0]
    return float(np.linalg.svd(q.T @ p, compute_uv=False).min())


def cosine_in_basis(seed, kind, gaussian):
    """How near the two directions of largest nuisance score come to the planted plane."""
    rng = np.random.default_rng(seed)
    world, planted = worlds.rotated_sources_world(rng, gaussian=gaussian)
    basis = fit_basis(world, kind, seed=seed)
    turned = basis.apply(world)
    found = attribute(turned, turned, n_permutations=50, erased=None, seed=seed)
    assert found.basis == kind
    best = np.argsort(-found.nuisance_score)[:2]
    back = np.linalg.pinv(basis.directions).T[:, best]
    axes = attribute(world, world, n_permutations=1, erased=None).nuisance_score
    on_axes = largest_angle(planted, np.eye(12)[:, np.argsort(-axes)[:2]])
    return largest_angle(planted, back), on_axes, basis


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pca", "ica"])
def test_a_rotated_nuisance_is_found_in_a_fitted_basis(kind):
    found = [cosine_in_basis(seed, kind, gaussian=False) for seed in range(20)]
    assert np.median([cosine for cosine, _, _ in found]) >= 0.95
    assert np.median([on_axes for _, on_axes, _ in found]) < 0.7  # no pair of axes is near
    assert np.median([basis.stable.mean() for _, _, basis in found]) >= 0.5


@pytest.mark.slow
def test_where_nothing_tells_directions_apart_the_tool_says_so():
    found = [cosine_in_basis(seed, "pca", gaussian=True) for seed in range(20)]
    assert np.median([cosine for cosine, _, _ in found]) < 0.95
    assert np.median([basis.stable.mean() for _, _, basis in found]) < 0.1
