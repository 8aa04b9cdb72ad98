"""Measures of rankings: by hand, against the textbook, and against trec_eval."""

import numpy as np
import pytest

from dimlab.kernels.ranking import MEASURES, Judgements
from tests import references


def judgements(grades, k):
    """Judgements of a matrix of grades (Q, N)."""
    query, row = np.nonzero(grades)
    n_queries, n_rows = grades.shape
    return Judgements.of(
        query, row, grades[query, row], n_queries=n_queries, n_rows=n_rows, k=k
    )  # fmt: skip


def world(seed, n_queries=40, n_rows=30):
    """Grades 0 to 3, some below; each query has a relevant row. A ranking of each query."""
    rng = np.random.default_rng(seed)
    grades = rng.choice([-1, 0, 0, 0, 1, 2, 3], size=(n_queries, n_rows))
    grades[np.arange(n_queries), rng.integers(0, n_rows, n_queries)] = 2
    ranked = np.stack([rng.permutation(n_rows) for _ in range(n_queries)])
    return grades, ranked


def test_by_hand():
    # relevant: rows 0 (grade 3) and 2 (grade 1); the ranking is 1, 2, 0
    found = judgements(np.array([[3, 0, 1, 0]]), k=3)
    rows = np.array([[[1, 2, 0]]])
    ideal = 3 / 1 + 1 / np.log2(3)
    expected = (1 / np.log2(3) + 3 / np.log2(4)) / ideal
    query = np.array([0])
    np.testing.assert_allclose(found.score("ndcg", query, rows), [[expected]], rtol=1e-15)
    assert found.score("recall", query, rows).tolist() == [[1.0]]
    assert found.score("mrr", query, rows).tolist() == [[0.5]]
    missed = np.array([[[1, 3, 1]]])
    for measure in MEASURES:
        assert found.score(measure, query, missed).tolist() == [[0.0]]


@pytest.mark.parametrize("k", [1, 3, 10, 30])
@pytest.mark.parametrize("measure", MEASURES)
def test_equals_the_textbook(measure, k):
    grades, ranked = world(k)
    found = judgements(grades, k).score(measure, np.arange(len(grades)), ranked[:, None, :k])
    expected = [
        getattr(references, measure)(ranking.tolist(), own.tolist(), k)
        for ranking, own in zip(ranked, grades, strict=True)
    ]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-13)
    assert np.mean(expected) > 0.02


@pytest.mark.parametrize("k", [1, 5, 10])
def test_equals_trec_eval(k):
    """Needs pytrec_eval-terrier, which .ci/run does not install."""
    trec = pytest.importorskip("pytrec_eval", reason="pytrec_eval is an outside oracle")
    grades, ranked = world(k + 100)
    qrels = {
        str(q): {str(row): int(grade) for row, grade in enumerate(own) if grade > 0}
        for q, own in enumerate(grades)
    }
    run = {
        str(q): {str(row): float(-place) for place, row in enumerate(ranking)}
        for q, ranking in enumerate(ranked)
    }
    names = {"ndcg": f"ndcg_cut_{k}", "recall": f"recall_{k}"}
    for measure, name in names.items():
        evaluated = trec.RelevanceEvaluator(qrels, {f"{name.rpartition('_')[0]}.{k}"}).evaluate(run)
        found = judgements(grades, k).score(measure, np.arange(len(grades)), ranked[:, None, :k])
        expected = [evaluated[str(q)][name] for q in range(len(grades))]
        np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)
    run = {q: dict(sorted(own.items(), key=lambda each: -each[1])[:k]) for q, own in run.items()}
    evaluated = trec.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    found = judgements(grades, k).score("mrr", np.arange(len(grades)), ranked[:, None, :k])
    expected = [evaluated[str(q)]["recip_rank"] for q in range(len(grades))]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_equal_rankings_have_equal_scores_to_the_last_bit():
    grades, ranked = world(0)
    alone = judgements(grades, 7).score("ndcg", np.arange(40), ranked[:, None, :7])
    beside = judgements(grades, 7).score("ndcg", np.arange(40), ranked[:, None, :7].repeat(9, 1))
    assert (beside == alone).all()
    best = np.argsort(-grades, axis=1, kind="stable")[:, None, :7]
    assert (judgements(grades, 7).score("ndcg", np.arange(40), best) == 1.0).all()
