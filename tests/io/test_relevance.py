"""Files of relevance judgements: every form gives the same pairs, and mistakes are named."""

import numpy as np
import pytest

from dimlab import Representation, load_relevance

CORPUS = Representation(np.eye(4), factors={"doc_id": np.array(["d1", "d2", "d3", "d4"])})
QUERIES = Representation(np.eye(4)[:3], factors={"id": np.array(["q1", "q2", "q3"])})
PAIRS = [[0, 2, 2], [0, 3, 0], [2, 0, 1]]
FORMS = {
    "qrels.txt": "q1 0 d3 2\nq1 0 d4 0\nq3 0 d1 1\n",
    "trec.tsv": "q1\tQ0\td3\t2\nq1\tQ0\td4\t0\n\nq3\tQ0\td1\t1\n",
    "beir.tsv": "query-id\tcorpus-id\tscore\nq1\td3\t2\nq1\td4\t0\nq3\td1\t1\n",
    "plain.tsv": "q1\td3\t2\nq1\td4\t0\nq3\td1\t1\n",
    "table.csv": '\ufeff"grade","qid","docid","by"\n2.0,q1,d3,me\n0,q1,d4,me\n1,q3,d1,me\n',
    "lines.jsonl": '{"query-id": "q1", "corpus-id": "d3", "score": 2}\n'
    '{"qid": "q1", "doc_id": "d4", "rel": 0}\n{"corpus-id": "d1", "query_id": "q3"}\n',
}


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pairs(tmp_path, name):
    path = written(tmp_path, name, FORMS[name])
    assert load_relevance(path, CORPUS, QUERIES).tolist() == PAIRS


def test_rows_without_names_are_named_by_their_numbers(tmp_path):
    path = written(tmp_path, "a.tsv", "0\t2\n2\t0\n")
    assert load_relevance(path, np.eye(4), np.eye(4)[:3]).tolist() == [[0, 2, 1], [2, 0, 1]]


def test_pairs_of_others_are_left_out_with_a_warning(tmp_path):
    path = written(tmp_path, "a.txt", "q1 0 d3 1\nq9 0 d3 1\nq1 0 d9 1\n")
    with pytest.warns(UserWarning, match=r"a\.txt: 2 of 3 pairs are left out"):
        assert load_relevance(path, CORPUS, QUERIES).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.parquet", "", r"relevance must be a file of \.tsv, .*; got 'a\.parquet'"),
        ("a.txt", "q1 0 d3 high\n", r"a\.txt must have whole numbers as grades; got 'high' in "),
        ("a.txt", "q1 0 d3 1.5\n", r"got '1\.5' in line 1"),
        ("a.txt", "q1\n", r"a\.txt must have 2 to 4 fields a line.*; got 1 in line 1"),
        ("a.csv", "qid,docid\nq1,d1,2\n", r"a\.csv must have 2 fields a line.*; got 3 in line 2"),
        ("a.jsonl", "{\n", r"a\.jsonl must hold one JSON object a line; got"),
        ("a.jsonl", '{"a": 1}\n', r"must name query-id and corpus-id in each object; got a in "),
        ("a.jsonl", "3\n", r"got no object in line 1"),
        ("a.txt", "x1 0 d3 1\n", r"ids of a\.txt must be among 'id' of queries \('q1', .*'x1'"),
        ("a.txt", "q1 0 d9 1\n", r"must be among 'doc_id' of corpus"),
        ("a.txt", "q1 0 d9 1\nq9 0 d1 1\n", r"must judge pairs of these queries and this corpus"),
    ],
)
def test_mistakes_are_named(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        load_relevance(written(tmp_path, name, text), CORPUS, QUERIES)


def test_ids_that_are_no_numbers_need_names(tmp_path):
    path = written(tmp_path, "a.txt", "q1 0 d3 1\n")
    with pytest.raises(ValueError, match=r"queries must name its rows, in an array such as 'id'"):
        load_relevance(path, CORPUS, np.eye(4))
    twice = Representation(np.eye(4), factors={"id": np.array(["q1", "q1", "q2", "q3"])})
    with pytest.raises(ValueError, match=r"names of rows must differ; got some twice in 'id'"):
        load_relevance(path, CORPUS, twice)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="relevance must be a file"):
        load_relevance(tmp_path / "no.tsv", CORPUS, QUERIES)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00q")
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        load_relevance(tmp_path / "a.txt", CORPUS, QUERIES)
