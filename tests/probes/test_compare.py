"""Comparison: similarities against oracles, matched dimensions, paired intervals."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import procrustes

from dimlab import BaselineComparison, Evaluation
from dimlab.kernels.similarity import retrieval_at
from dimlab.probes.compare import STATISTICS, compare
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.representation import Representation
from tests import references, worlds


def related(rng, n=200, d=6, noise=0.5):
    x = rng.normal(size=(n, d)) * np.arange(1, d + 1)
    return x, x @ rng.normal(size=(d, d + 2)) + noise * rng.normal(size=(n, d + 2))


def pair(a, b, **more):
    return {"a": Representation(a, **more), "b": Representation(b, **more)}


# Similarity ----------------------------------------------------------------------------------


def test_cka_is_the_kernel_formula_written_out():
    x, y = related(np.random.default_rng(0), n=60)
    found = compare(pair(x + 3, y - 100))
    for debiased, matrix in ((True, found.cka), (False, found.cka_biased)):
        expected = references.kernel_alignment(x, y, debiased=debiased)
        np.testing.assert_allclose(matrix[0, 1], expected, rtol=1e-9)
        np.testing.assert_allclose(np.diagonal(matrix), 1, rtol=1e-12)
        np.testing.assert_array_equal(matrix, matrix.T)


def test_debiased_cka_is_zero_for_unrelated_features_and_the_plain_one_is_not():
    rng = np.random.default_rng(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [compare(pair(*rng.normal(size=(2, 60, 100)))) for _ in range(12)]
    assert str(caught[0].message).startswith("a: N = 60 samples do not exceed D = 100")
    values = np.array([each.cka[0, 1] for each in found])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(12)
    assert min(each.cka_biased[0, 1] for each in found) > 0.5


def test_procrustes_is_scipys_disparity():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(80, 5))
    y = x @ rng.normal(size=(5, 5)) + rng.normal(size=(80, 5))
    found = compare(pair(x, y)).procrustes
    np.testing.assert_allclose(1 - found[0, 1] ** 2, procrustes(x, y)[2], rtol=1e-9)


def test_a_rotated_and_scaled_copy_is_the_same_to_both():
    rng = np.random.default_rng(3)
    x, _ = related(rng)
    found = compare(pair(x, 7 * x @ worlds.random_rotation(rng, 6) + 2))
    np.testing.assert_allclose(found.cka, 1, rtol=1e-9)
    np.testing.assert_allclose(found.procrustes, 1, rtol=1e-9)
    np.testing.assert_allclose(found.difference[1, :1], 0, atol=0.2)  # but for the mean
    assert np.nanmean(found.match["b"]) < 0.95  # its dimensions are others


# Matching ------------------------------------------------------------------------------------


def test_permuted_dimensions_are_matched_whatever_sign_and_scale():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 9))
    order = rng.permutation(9)
    y = (x * rng.choice([-2.0, 0.1], size=9))[:, order] + 0.01 * rng.normal(size=(400, 9))
    found = compare(pair(x, y))
    np.testing.assert_array_equal(found.partner["b"], order)
    assert found.match["b"].min() > 0.9
    assert found.match_null["b"] < 0.2
    frame = found.matches()
    np.testing.assert_array_equal(frame["partner"], order)


@pytest.mark.parametrize("d", [4, 16])
def test_unrelated_dimensions_beside_matched_ones_pass_the_null_rarely(d):
    """In 95 % of the worlds none of them does, however many there are."""
    passed, missed = [], 0
    for seed in range(100):
        x, y = np.random.default_rng(seed).standard_t(5, size=(2, 100, d))
        y[:, : d // 2] = 0.8 * x[:, : d // 2] + 0.6 * y[:, : d // 2]
        found = compare(pair(x, y), seed=seed, n_blocks=2)
        beyond = found.match["b"] > found.match_null["b"]
        passed.append(beyond[d // 2 :].any())
        missed += (~beyond[: d // 2]).sum()
        np.testing.assert_array_equal(found.matches()["beyond_chance"], beyond)
    assert np.mean(passed) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)
    assert missed == 0
    summary = found.summary()["representations"]["b"]
    assert summary["n_matched_beyond_chance"] == beyond.sum()
    assert summary["match_null"] == found.match_null["b"]
    assert np.nanmax(found.match["b"][d // 2 :]) > 0.1  # the best of many is never 0


def test_clusters_raise_the_null_of_matching_and_widen_intervals():
    rng = np.random.default_rng(20)
    ids = np.repeat(np.arange(30), 8)
    x, y = (np.repeat(each, 8, axis=0) for each in rng.normal(size=(2, 30, 5)))
    x, y = (each + 0.1 * rng.normal(size=each.shape) for each in (x, y))
    naive = compare(pair(x, y))
    found = compare(pair(x, y, factors={"patient": ids}), clusters="patient")
    assert found.match_null["b"] > 1.5 * naive.match_null["b"]
    assert (found.match["b"] < found.match_null["b"]).mean() > 0.5 > naive.match_null["b"]
    width = [(each.corrected_high - each.corrected_low)[1, :5] for each in (found, naive)]
    assert (width[0] > width[1]).all()
    assert "blocks of clusters" in found.summary()["intervals"]
    again = compare(pair(x, y), clusters=ids)
    np.testing.assert_array_equal(again.corrected_low, found.corrected_low)
    with pytest.raises(ValueError, match=r"^clusters must have shape"):
        compare(pair(x, y), clusters=ids[:4])


def test_differences_lie_in_their_intervals_and_the_same_rows_have_none():
    rng = np.random.default_rng(21)
    x = rng.normal(size=(200, 6)) * np.arange(1, 7)
    found = compare({"a": Representation(x), "b": Representation(x), "c": Representation(x[:150])})
    low, value, high = found.difference_low, found.difference, found.difference_high
    assert (low[1:, :5] <= value[1:, :5]).all()
    assert (value[1:, :5] <= high[1:, :5]).all()
    np.testing.assert_allclose(value[1, :5], 0, atol=1e-12)
    assert ((high - low)[1, :5] < 0.6 * (high - low)[2, :5]).all()
    # by hand, two independent samples with symmetric intervals: half-widths add as squares do
    column = STATISTICS.index("mean_redundancy")
    halves = (found.corrected_high - found.corrected_low)[[0, 2], column] / 2
    np.testing.assert_allclose((high - low)[2, column] / 2, np.hypot(*halves))


def test_surplus_dimensions_have_no_partner():
    x, y = related(np.random.default_rng(6))
    found = compare(pair(x, y))
    assert (found.partner["b"] == -1).sum() == 2
    assert np.isnan(found.match["b"]).sum() == 2
    assert len(set(found.partner["b"])) == 7


def test_many_samples_are_matched_on_some(monkeypatch):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(900, 5))
    monkeypatch.setattr("dimlab.probes.compare._MOST_MATCHED", 300)
    found = compare(pair(x, x[:, ::-1]))
    np.testing.assert_array_equal(found.partner["b"], [4, 3, 2, 1, 0])


# Statistics ----------------------------------------------------------------------------------


def test_statistics_and_intervals_are_those_of_the_probes():
    rng = np.random.default_rng(8)
    x, y = related(rng, n=500)
    views = np.stack([x, x + rng.normal(size=x.shape)])
    found = compare({"a": Representation(x, views=views), "b": Representation(y)})
    spectrum = decompose(Representation(y))
    correlation = correlate(Representation(y), n_draws=0)
    row = dict(zip(STATISTICS, found.values[1], strict=True))
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        np.testing.assert_allclose(row[name], getattr(spectrum, name), rtol=1e-9)
        column = STATISTICS.index(name)
        np.testing.assert_allclose(found.corrected[1, column], spectrum.corrected[name], rtol=1e-6)
        bounds = found.corrected_low[1, column], found.corrected_high[1, column]
        np.testing.assert_allclose(bounds, spectrum.corrected_intervals[name], rtol=1e-6)
        assert found.doubtful[1, column] == (name in spectrum.doubtful)
    np.testing.assert_allclose(row["off_diagonal_rms"], correlation.off_diagonal_rms)
    column = STATISTICS.index("off_diagonal_rms")
    bounds = found.corrected_low[1, column], found.corrected_high[1, column]
    np.testing.assert_allclose(bounds, correlation.off_diagonal_rms_interval)
    np.testing.assert_allclose(row["mean_redundancy"], correlation.redundancy.mean())
    assert np.isnan(row["mean_diagonal"])
    cross = correlate(Representation(x, views=views), n_draws=0)
    np.testing.assert_allclose(found.values[0, -1], cross.diagonal.mean())


def test_paired_intervals_of_differences_are_narrower_and_cover():
    """Two noisy copies of the same samples: their ranks differ little, and go up and down alike."""
    scales = np.arange(1, 9) ** -0.5
    truth = _rank(np.append(scales[:-1], scales[-1] / 2)) - _rank(scales)
    covered, widths = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(400, 8)) * scales
        y = np.column_stack([x[:, :-1], x[:, -1] * 0.5])
        found = compare(pair(x, y), seed=seed)
        low, high = found.difference_low[1, 0], found.difference_high[1, 0]
        covered += low <= truth <= high
        unpaired = np.hypot(*(found.corrected_high[:, 0] - found.corrected_low[:, 0]))
        widths.append((high - low) / unpaired)
    assert 88 <= covered <= 100
    assert np.median(widths) < 0.6


def _rank(values):
    shares = values / values.sum()
    return np.exp(-(shares * np.log(shares)).sum())


def test_heavy_tails_make_every_statistic_doubtful():
    rng = np.random.default_rng(23)
    x, y = rng.standard_t(2, size=(300, 4)), rng.normal(size=(300, 4)) * [4, 2, 1, 0.5]
    found = compare(pair(y, x))
    assert found.doubtful[1].all()
    assert not found.doubtful[0].any()
    assert found.difference_doubtful[1].all()
    other = compare(pair(x, y))  # the reference's tails
    assert not other.doubtful[1].any()
    assert other.difference_doubtful[1].all()
    assert found.summary()["representations"]["b"]["doubtful"] == list(STATISTICS)


def test_other_samples_are_not_paired_and_have_no_similarity():
    rng = np.random.default_rng(9)
    x, y = related(rng)
    for other in (
        Representation(y[:150], labels=np.arange(150) % 2),
        Representation(y, labels=np.arange(200) % 3),
        Representation(y),
    ):
        found = compare({"a": Representation(x, labels=np.arange(200) % 2), "b": other})
        np.testing.assert_array_equal(found.paired, [True, False])
        assert np.isnan(found.cka[0, 1])
        assert found.partner == {}
        assert np.isfinite(found.difference_low[1, :5]).all()
    assert len(found.matches()) == 0
    json.dumps(found.summary(), allow_nan=False)


def test_the_reference_can_be_chosen_and_has_no_difference():
    x, y = related(np.random.default_rng(10))
    found = compare(pair(x, y), reference="b")
    np.testing.assert_array_equal(found.difference[1, :5], 0)
    assert np.isnan(found.difference_low[1]).all()
    np.testing.assert_allclose(found.difference[0], found.corrected[0] - found.corrected[1])
    assert list(found.partner) == ["a"]


def test_dead_dimensions_are_counted_and_left_out():
    x, y = related(np.random.default_rng(11))
    with_dead = np.column_stack([y, np.full(200, 3.0)])
    found = compare(pair(x, with_dead))
    np.testing.assert_array_equal(found.n_dead, [0, 1])
    plain = compare(pair(x, y))
    column = STATISTICS.index("mean_redundancy")
    np.testing.assert_allclose(found.values[1, column], plain.values[1, column])
    np.testing.assert_allclose(found.cka, plain.cka, rtol=1e-9)


def test_frames_and_summary_agree():
    x, y = related(np.random.default_rng(12))
    seen = []
    found = compare(pair(x, y), progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (5, 5)
    frame = found.to_frame()
    assert len(frame) == 2 * len(STATISTICS)
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    for row in frame.dropna(subset=["value"]).itertuples():
        np.testing.assert_allclose(
            summary["representations"][row.representation][row.statistic], row.value
        )
    np.testing.assert_allclose(
        found.similarities()["cka"], [summary["representations"]["b"]["cka"]]
    )


def test_bad_arguments_are_refused_in_one_sentence():
    x, y = related(np.random.default_rng(13))
    with pytest.raises(ValueError, match=r"^representations must be two or more; got 1\.$"):
        compare({"a": Representation(x)})
    with pytest.raises(ValueError, match=r"^reference must be one of 'a', 'b'; got 'c'\.$"):
        compare(pair(x, y), reference="c")
    with pytest.raises(ValueError, match=r"^n_blocks must be >= 2; got 1\.$"):
        compare(pair(x, y), n_blocks=1)
    with pytest.raises(ValueError, match=r"^compare needs at least 4 samples; got 3 in 'b'\.$"):
        compare(pair(x, y[:3]))
    with pytest.raises(ValueError, match=r"^representation must vary in some dimension"):
        compare(pair(x, np.ones((200, 2))))


@pytest.mark.parametrize("scale", [1e-120, 1e100])
def test_extreme_scales_change_no_similarity(scale):
    x, y = related(np.random.default_rng(14))
    plain, other = compare(pair(x, y)), compare(pair(x * scale, y))
    np.testing.assert_allclose(other.cka, plain.cka, rtol=1e-9)
    np.testing.assert_allclose(other.procrustes, plain.procrustes, rtol=1e-9)


@pytest.mark.parametrize("reference", ["a", "b"])
def test_named_rows_give_the_same_comparison_in_any_order(reference):
    rng = np.random.default_rng(16)
    x, y = related(rng)
    labels, order = np.arange(200) % 3, rng.permutation(200)
    named = pair(x, y, labels=labels, factors={"file": np.array([f"{i}.png" for i in range(200)])})
    shuffled = {"a": named["a"], "b": named["b"].take(order), "c": Representation(x[order])}
    plain = compare(named, reference="a")
    found = compare(shuffled, reference=reference)
    np.testing.assert_allclose(found.cka[:2, :2], plain.cka, rtol=1e-9)
    np.testing.assert_allclose(found.procrustes[:2, :2], plain.procrustes, rtol=1e-9)
    other = "ab".replace(reference, "")
    summary = found.summary()["representations"]
    assert summary[other]["paired_by"] == "row names"
    assert summary[reference]["paired_by"] is None
    assert not summary["c"]["paired"]  # it has neither labels nor names
    unnamed = compare(pair(x, y))
    assert unnamed.paired_by == ("", "order")
    if reference == "a":
        np.testing.assert_array_equal(found.partner["b"], plain.partner["b"])
        np.testing.assert_allclose(found.difference_low[1], plain.difference_low[1])


def test_rows_of_other_names_are_not_compared():
    x, y = related(np.random.default_rng(17))
    a = Representation(x, factors={"file": np.arange(200).astype(str)})
    b = Representation(y, factors={"file": np.arange(1, 201).astype(str)})
    with pytest.raises(ValueError, match=r"1 of 200 in factor 'file' of a alone, such as '0'"):
        compare({"a": a, "b": b})
    assert not compare({"a": a, "b": b.take(np.arange(100))}).paired[1]


def test_files_that_name_their_rows_are_paired_by_name(dimlab):
    import pandas as pd

    x = np.random.default_rng(18).normal(size=(60, 3))
    frame = pd.DataFrame(x).add_prefix("embedding_").assign(id=np.arange(60))
    frame.to_csv("a.csv", index=False)
    frame.sample(frac=1, random_state=1).to_csv("b.csv", index=False)
    code, out, err = dimlab("compare", "a.csv", "b.csv", "--blocks", 4)
    assert (code, err) == (0, "")
    assert "1.0000" in out
    assert "b: rows paired with those of a by row names." in out


def test_any_name_will_do():
    x, y = related(np.random.default_rng(15))
    found = compare({"reference": Representation(x), "intervals": Representation(y)})
    assert set(found.summary()["representations"]) == {"reference", "intervals"}
    assert found.summary()["reference"] == "reference"


def test_retrieval_in_a_smaller_gallery_is_the_mean_over_its_draws():
    rng = np.random.default_rng(22)
    distance = rng.normal(size=(9, 9)) - 1.5 * np.eye(9)
    right = np.diagonal(distance)[:, None]
    closer = (distance < right).sum(axis=1)
    found = retrieval_at(4, closer, 9).mean()
    hits = []
    for query in range(9):
        others = np.delete(distance[query], query)
        for chosen in itertools.combinations(others, 3):
            hits.append(distance[query, query] < min(chosen))
    np.testing.assert_allclose(found, np.mean(hits))
    np.testing.assert_allclose(retrieval_at(9, closer, 9), closer == 0)
    with pytest.raises(ValueError, match=r"^gallery must lie in 1\.\.9; got 10\.$"):
        retrieval_at(10, closer, 9)


def test_view_retrieval_states_its_gallery_and_is_compared_at_equal_ones():
    one = Evaluation(
        reader=("view-retrieval",), mask=("none",), n_correct=np.array([7]), n_test=20, n_train=50,
        n_dimensions=8,
    )  # fmt: skip
    assert "searched among 20 (chance: 5.00%)" in " ".join(one.summary()["notes"])
    other = replace(one, n_test=10)
    with pytest.raises(ValueError, match=r"^evaluations must be of the same test samples.*10, 20"):
        BaselineComparison(evaluations=(("raw pixels", 0, one), ("trained", 0, other)))


def test_the_ends_of_a_difference_pair_opposite_sides():
    """Zou's interval of two independent values whose intervals are not symmetric, by hand."""
    rng = np.random.default_rng(24)
    x, y = rng.normal(size=(150, 5)), rng.normal(size=(90, 5)) * [3, 1, 1, 1, 1]
    found = compare({"a": Representation(x), "b": Representation(y)})
    column = STATISTICS.index("participation_ratio")
    values = found.corrected[:, column]
    low, high = found.corrected_low[:, column], found.corrected_high[:, column]
    difference = values[1] - values[0]
    below = np.hypot(values[1] - low[1], high[0] - values[0])
    above = np.hypot(high[1] - values[1], values[0] - low[0])
    np.testing.assert_allclose(found.difference_low[1, column], difference - below)
    np.testing.assert_allclose(found.difference_high[1, column], difference + above)
    assert abs(below - above) > 0.05
