"""Retrieval without each dimension: equal to brute force, and right about planted dimensions."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from dimlab import Representation, ablate_retrieval
from dimlab.probes._retrieval import harm, points_of
from dimlab.probes.confirm_harmful import split_and_confirm
from dimlab.result import verdict_of
from tests import references

QUICK = {"n_splits": 2, "n_bootstrap": 19, "truncate": []}


def similarities(corpus, queries, kept):
    """Cosine similarities of the kept columns, as they are compared."""
    x, q = corpus[:, kept], queries[:, kept]
    norms = np.sqrt((q**2).sum(1))[:, None] * np.sqrt((x**2).sum(1))
    return np.round(np.divide(q @ x.T, norms, out=np.zeros_like(norms), where=norms > 0), 10)


def brute_force(corpus, queries, grades, kept, score):
    """Scores (Q,) by ranking the whole corpus; ties in order of corpus row."""
    measure, _, k = score.partition("@")
    ranked = np.argsort(-similarities(corpus, queries, kept), axis=1, kind="stable")
    scored = getattr(references, measure)
    return np.array(
        [scored(r.tolist(), g.tolist(), int(k)) for r, g in zip(ranked, grades, strict=True)]
    )


def world(kind, seed=0, n=150, n_queries=25, d=9):
    """Corpus, queries and grades (Q, N) of graded and of unjudged pairs."""
    rng = np.random.default_rng(seed)
    corpus = rng.normal(size=(n, d))
    match kind:
        case "tied":
            corpus = rng.integers(-1, 2, size=(n, d)).astype(float)
        case "copies":
            corpus = corpus[rng.integers(0, 12, n)]
        case "relu":
            corpus = np.maximum(corpus - 0.5, 0)
        case "dominant":
            corpus[:, 3] *= 1e4
    source = rng.integers(0, n, n_queries)
    queries = corpus[source] + rng.choice([0, 1.0], size=(n_queries, d)) * rng.normal(size=d)
    grades = rng.choice([0, 0, 0, 0, 0, 1, 2], size=(n_queries, n))
    grades[np.arange(n_queries), source] = 3
    return corpus, queries, grades


def pairs_of(grades):
    query, row = np.nonzero(grades)
    return np.column_stack([query, row, grades[query, row]])


@pytest.mark.parametrize("kind", ["random", "tied", "copies", "relu", "dominant"])
@pytest.mark.parametrize("score", ["ndcg@10", "recall@40", "mrr@3"])
def test_every_dimension_equals_brute_force(kind, score):
    corpus, queries, grades = world(kind)
    found = ablate_retrieval(corpus, queries, pairs_of(grades), score=score, **QUICK)
    everything = np.arange(9)
    full = brute_force(corpus, queries, grades, everything, score)
    np.testing.assert_allclose(found.full_score, full.mean(), rtol=1e-12)
    for d in everything:
        own = brute_force(corpus, queries, grades, np.delete(everything, d), score)
        np.testing.assert_allclose(found.scores[d], own.mean(), rtol=1e-12)
        np.testing.assert_allclose(found.importance[d], (full - own).mean(), atol=1e-13)


@pytest.mark.parametrize("kind", ["random", "tied"])
def test_groups_equal_brute_force_and_nothing_left_is_found_in_order(kind):
    corpus, queries, grades = world(kind)
    groups = [[0, 4], [1, 2, 3], list(range(9))]
    found = ablate_retrieval(corpus, queries, pairs_of(grades), groups=groups, **QUICK)
    for group, score in zip(groups, found.scores, strict=True):
        kept = np.setdiff1d(np.arange(9), group)
        expected = brute_force(corpus, queries, grades, kept, "ndcg@10").mean()
        np.testing.assert_allclose(score, expected, rtol=1e-12)
    assert found.to_frame()["dimensions"].tolist() == ["0 4", "1 2 3", "0 1 2 3 4 5 6 7 8"]


N, N_QUERIES = 500, 150


def planted(seed, n=N, n_queries=N_QUERIES, noise=4.0):
    """Dimension 3 is noise in the queries alone, 5 is dead, 6 copies 0; each query has one row."""
    rng = np.random.default_rng(seed)
    corpus = rng.normal(size=(n, 8)) * [2, 1, 1, 0.3, 1, 0, 1, 1]
    queries = corpus[:n_queries] + 0.2 * rng.normal(size=(n_queries, 8))
    queries[:, 3] = noise * rng.normal(size=n_queries)
    corpus[:, 5] = queries[:, 5] = 0
    for each in (corpus, queries):
        each[:, 6] = each[:, 0]
    same = np.arange(n_queries)
    return corpus, queries, np.column_stack([same, same])


def test_planted_dimensions_are_told_apart():
    found = ablate_retrieval(*planted(0), truncate=[2, 4])
    assert found.needed.tolist()[:1] != [3]
    assert set(found.needed) >= {1, 2, 4, 7}
    assert found.harmful.tolist() == found.confirmed.tolist() == [3]
    assert (found.importance[5], found.p_value[5]) == (0, 1)
    assert found.ci_low[5] < 0 < found.ci_high[5]
    assert verdict_of(found).answer == "yes"
    assert verdict_of(found).dimensions == (3,)
    assert found.summary()["n_left_out"] == 0
    assert found.selected_share[3] == 1.0
    table = found.truncation().set_index(["order", "n_kept"])["score"]
    assert table["importance", 4] > table["random", 4]
    assert table["importance", 4] > table["first", 4]  # which keeps the noise
    json.dumps(found.summary(), allow_nan=False)


def test_truncation_keeps_the_first_the_leading_axes_or_what_other_queries_need():
    corpus, queries, relevance = planted(1)
    found = ablate_retrieval(corpus, queries, relevance, truncate=[3, 6], n_random=2)
    table = found.truncation().set_index(["order", "n_kept"])["score"]
    grades = np.zeros((N_QUERIES, N), dtype=int)
    grades[relevance[:, 0], relevance[:, 1]] = 1

    def expected(corpus, queries, kept):
        return brute_force(corpus, queries, grades, kept, "ndcg@10").mean()

    axes = np.linalg.svd(corpus - corpus.mean(axis=0))[2].T
    rotated = [each @ axes for each in (corpus, queries)]
    for count in (3, 6):
        kept = np.arange(count)
        np.testing.assert_allclose(table["first", count], expected(corpus, queries, kept))
        np.testing.assert_allclose(table["pca", count], expected(*rotated, kept), rtol=1e-9)
    np.testing.assert_allclose(table[:, 8], found.full_score, rtol=1e-14)
    # of one half the best dimensions of the other: never those of all queries by construction
    assert table["importance", 6] >= 0.98 * expected(corpus, queries, [0, 1, 2, 4, 6, 7])
    frame = found.truncation()
    assert ((frame["loss_low"] <= frame["loss"]) & (frame["loss"] <= frame["loss_high"])).all()


def test_enough_is_counted_down_from_all_dimensions_to_the_first_loss():
    corpus, queries, relevance = planted(2, noise=0.0)
    found = ablate_retrieval(corpus, queries, relevance, truncate=[2, 4, 6, 7], margin=0.05)
    frame = found.truncation()
    for name, n_kept in found.enough.items():
        own = frame[frame["order"] == name].set_index("n_kept")["loss_high"]
        assert (own[own.index >= n_kept] <= 0.05).all()
        below = own[own.index < n_kept]
        assert len(below) == 0 or below.iloc[-1] > 0.05
    assert found.enough["importance"] < 8
    by_hand = replace(
        found, orders=np.repeat(["a"], 4), n_kept=np.array([1, 2, 4, 8]), margin=0.01,
        loss_high=np.array([0.2, 0.004, 0.02, 0.0]),
    )  # fmt: skip
    assert by_hand.enough == {"a": 8}  # what 2 dimensions lose is no longer asked


def test_points_are_powers_of_two_and_all():
    assert points_of(None, 512).tolist() == [8, 16, 32, 64, 128, 256, 512]
    assert points_of(None, 768).tolist() == [16, 32, 64, 128, 256, 512, 768]
    assert points_of(None, 1).tolist() == [1]
    assert points_of([5, 2], 9).tolist() == [2, 5, 9]
    assert points_of([], 9).tolist() == []


def test_queries_without_a_relevant_row_are_left_out_and_counted():
    corpus, queries, relevance = planted(3)
    relevance = np.column_stack([relevance, np.ones(N_QUERIES, dtype=int)])
    fewer = relevance.copy()
    fewer[100:, 2] = np.where(np.arange(50) % 2, 0, -1)
    found = ablate_retrieval(corpus, queries, fewer, **QUICK)
    expected = ablate_retrieval(corpus, queries[:100], relevance[:100], **QUICK)
    assert (found.n_queries, found.n_left_out, found.n_relevant) == (100, 50, 100)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_no_dimension_is_called_harmful_where_nothing_is_to_be_found():
    """Relevance has nothing to do with the features: p-values are at most their level."""
    p_values, confirmed = [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        corpus, queries = rng.normal(size=(120, 12)), rng.normal(size=(150, 12))
        grades = rng.random((150, 120)) < 0.1
        grades[:, 0] = True
        found = ablate_retrieval(
            corpus, queries, pairs_of(grades.astype(int)), score="recall@20", truncate=[],
            n_splits=10, n_bootstrap=499,
        )  # fmt: skip
        p_values.append(found.p_value)
        confirmed += found.summary()["n_confirmed"]
    assert np.mean(np.concatenate(p_values) <= 0.05) <= 0.08
    assert confirmed == 0


def test_clusters_of_queries_widen_intervals():
    corpus, queries, relevance = planted(4)
    copies = np.repeat(np.arange(100), 3)
    queries, relevance = queries[copies], np.column_stack([np.arange(300), copies])
    alone = ablate_retrieval(corpus, queries, relevance, truncate=[])
    together = ablate_retrieval(corpus, queries, relevance, truncate=[], clusters=copies)
    np.testing.assert_array_equal(alone.importance, together.importance)
    wider = (together.ci_high - together.ci_low) / (alone.ci_high - alone.ci_low)
    assert (np.delete(wider, [5, 6]) > 1.3).all()
    assert together.q_aggregated[3] > alone.q_aggregated[3]


def test_halves_confirm_what_is_there_and_few_queries_confirm_nothing():
    rng = np.random.default_rng(0)
    lost = rng.normal(size=(400, 3)) * 0.1 + [0, -0.05, 0.05]

    def confirmed(lost):
        draws = np.random.default_rng(0)
        test = partial(harm, rng=draws, n_draws=499)
        return split_and_confirm(lost, np.zeros(len(lost), int), draws, 10, confirm=test)

    q_value, share = confirmed(lost)
    assert (q_value <= 0.05).tolist() == [False, True, False]
    assert share[1] > 0.9
    assert share[2] == 0
    few = np.zeros((400, 1))
    few[:6] = -1  # even on one side, 2^-6 times the adjustment for the choice of a quantile
    assert confirmed(few)[0][0] > 0.05
    assert confirmed(few[:1])[0].tolist() == [1.0]  # a half without a query says nothing
    corpus, _, relevance = planted(5)
    found = ablate_retrieval(corpus, corpus[:N_QUERIES], relevance, **QUICK)
    assert verdict_of(found).answer == "undecided"  # nothing is missed


def test_the_half_that_did_not_choose_is_what_another_test_confirms_on():
    rng = np.random.default_rng(0)
    lost = np.column_stack([np.arange(40.0) - 100, rng.normal(size=40)])
    seen = []

    def none(rows, clusters):
        seen.append(rows[:, 0])
        return np.ones(rows.shape[1])

    q_value, share = split_and_confirm(lost, np.zeros(40, int), rng, 1, confirm=none)
    assert (q_value == 1).all()
    assert share[0] == 1
    assert sorted(np.concatenate(seen)) == sorted(lost[:, 0])  # both ways: each row once


def test_arrays_tensors_and_precisions_give_the_same():
    corpus, queries, relevance = planted(6)
    one = ablate_retrieval(corpus.astype("f4"), queries.astype("f4"), relevance, **QUICK)
    two = ablate_retrieval(
        Representation(corpus.astype("f4")), queries.astype("f4"), relevance.tolist(), **QUICK
    )
    np.testing.assert_array_equal(one.scores, two.scores)
    small = ablate_retrieval(
        corpus.astype("f4"), queries.astype("f4"), relevance, memory=0.02, **QUICK
    )
    np.testing.assert_array_equal(one.scores, small.scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "ndcg"}, r"score must be one of 'ndcg@10', .*; got 'ndcg'\."),
        ({"score": "map@10"}, r"score must be one of .*; got 'map@10'\."),
        ({"score": "mrr@0"}, r"score must be one of"),
        ({"margin": 0}, r"margin must lie in \(0, 1\); got 0\."),
        ({"n_splits": 0}, r"n_splits must be >= 1; got 0\."),
        ({"truncate": [0]}, r"truncate must be whole numbers in 1\.\.8; got \[0\]\."),
        ({"truncate": [9]}, r"truncate must be"),
        ({"groups": []}, r"groups must hold at least one group"),
        (
            {"queries": np.ones((N_QUERIES, 7))},
            r"queries must have 8 dimensions .*; got 7",
        ),
        ({"relevance": np.ones((3, 4), int)}, r"relevance must be whole numbers of shape \(n, 2\)"),
        ({"relevance": np.ones((3, 2))}, r"relevance must be whole numbers .*; got float64"),
        ({"relevance": [[150, 0]]}, r"relevance must name query rows in \[0, 150\); got 150"),
        ({"relevance": [[0, -1]]}, r"relevance must name corpus rows in \[0, 500\); got -1"),
        ({"relevance": [[0, 1, 1], [0, 1, 2]]}, r"two grades for query row 0 and corpus row 1"),
        ({"relevance": [[0, 1, 0]]}, r"at least one pair of a grade > 0; got none"),
        ({"device": "tpu"}, r"device must be cpu, cuda or cuda:N"),
        ({"memory": -1.0}, r"memory must be > 0"),
        ({"clusters": "site"}, r"clusters must name a factor"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(change, message):
    corpus, queries, relevance = planted(0)
    given = {"corpus": corpus, "queries": queries, "relevance": relevance, **change}
    with pytest.raises(ValueError, match=message):
        ablate_retrieval(given.pop("corpus"), given.pop("queries"), given.pop("relevance"), **given)


def test_another_basis_of_one_side_is_refused():
    corpus, queries, relevance = planted(0)
    rotated = Representation(corpus, meta={"basis": "pca"})
    with pytest.raises(ValueError, match="queries must be in the basis of corpus, pca; got axes"):
        ablate_retrieval(rotated, queries, relevance)


def test_a_result_is_kept_whole(tmp_path):
    found = ablate_retrieval(*planted(0), truncate=[2])
    again = type(found).load(found.save(tmp_path / "a.result.npz"))
    assert again.summary() == found.summary()
    assert again.truncation().equals(found.truncation())
    assert ablate_retrieval(*planted(0), **QUICK).truncation() is None
