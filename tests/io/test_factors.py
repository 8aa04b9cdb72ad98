"""Factors from tables: joined on what names a sample, refused where they would be guessed."""

import numpy as np
import pandas as pd
import pytest

from dimlab.io.features import load_features
from dimlab.io.tables import FactorTable, join_factors
from dimlab.representation import Representation
from tests.io.writing import save


def covers(representation, path):
    with path.open("rb") as file:
        return FactorTable.read(path, file).covers(
            representation, representation.meta.get("split", "")
        )


@pytest.fixture
def representation():
    return Representation(
        np.eye(3), labels=np.array([0, 1, 1]), factors={"file": np.array(["b", "a", "c"])},
        meta={"split": "test"},
    )  # fmt: skip


def write(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_rows_are_joined_in_any_order_and_keep_their_kinds(representation, tmp_path):
    path = write(
        tmp_path, "row,age,site,size,old\n2,30,x,0.5,True\n0,10,y,1.5,False\n1,20,x,2,True\n"
    )
    found = join_factors(representation, path)
    np.testing.assert_array_equal(found.factors["age"], [10, 20, 30])
    assert {name: value.dtype.kind for name, value in found.factors.items()} == {
        "file": "U", "age": "i", "site": "U", "size": "f", "old": "b",
    }  # fmt: skip
    found = join_factors(representation, path, continuous=["age"], periods={"size": 2.0})
    assert found.factors["age"].dtype == np.float64
    assert found.periods == {"size": 2.0}
    np.testing.assert_array_equal(found.labels, representation.labels)


def test_file_names_win_and_other_files_do_not_matter(representation, tmp_path):
    path = write(tmp_path, "file,x\nz,9.5\na,1.5\nb,2.5\nc,3.5\n")
    np.testing.assert_array_equal(join_factors(representation, path).factors["x"], [2.5, 1.5, 3.5])
    assert covers(representation, path)
    other = Representation(np.eye(3), factors={"file": np.array(["b", "a", "q"])})
    assert not covers(other, path)


def test_one_table_may_hold_all_splits(representation, tmp_path):
    path = write(tmp_path, "split,row,x\ntrain,0,9.5\ntest,1,1.5\ntest,0,0.5\ntest,2,2.5\n")
    np.testing.assert_array_equal(join_factors(representation, path).factors["x"], [0.5, 1.5, 2.5])
    assert covers(representation, path)
    assert not covers(Representation(np.eye(3), meta={"split": "validation"}), path)
    assert not covers(representation, write(tmp_path, "row,x\n0,1\n1,2\n2,3\n", "rows.csv"))


def test_na_is_a_category_and_nothing_is_missing(representation, tmp_path):
    path = write(tmp_path, "row,country\n0,NA\n1,DE\n2,null\n")
    found = join_factors(representation, path).factors["country"]
    assert found.tolist() == ["NA", "DE", "null"]


def test_parquet_reads_as_csv_does(representation, tmp_path):
    frame = pd.DataFrame({"row": [0, 1, 2], "x": [0.5, 1.5, 2.5], "site": ["p", "q", "p"]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = join_factors(representation, tmp_path / "t.parquet")
    np.testing.assert_array_equal(found.factors["x"], [0.5, 1.5, 2.5])
    assert found.factors["site"].tolist() == ["p", "q", "p"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n1\n2\n3\n", r"^t\.csv must share a column .* in a column row, from 0; got 'x' there"),
        (
            "row,x\n0,1\n1,2\n",
            r"^t\.csv must have a row for each .* 'row'; got none for 1 of",
        ),
        ("row,x\n0,1\n1,2\n2,3\n3,4\n", r"^t\.csv must have a row for each of the 3 .* 4 rows"),
        ("row,x\n0,1\n1,2\n1,3\n", r"^t\.csv must have one row for each 'row'; got '1' more"),
        (
            "row,x\n0,1\n1,\n2,3\n",
            r"^t\.csv: column 'x' must be there .* got none in row 1\.$",
        ),
        ("row,x\n0.5,1\n1,2\n2,3\n", r"^column 'row' of t\.csv must hold whole numbers"),
        (
            "row,file\n0,1\n1,2\n2,3\n",
            r"^t\.csv must have .* 'file'; got none for 3 of them: 'b', 'a'",
        ),
        ("row,x\n", r"^t\.csv must have a row for each of the 3 samples; got 0 rows\.$"),
        ("", r"must be a readable table; got a file without columns"),
        ('row,x\n0,"1\n1,2', r"must be a readable table"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(representation, tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        join_factors(representation, write(tmp_path, text))


def test_bad_requests_are_refused_in_one_sentence(representation, tmp_path):
    path = write(tmp_path, "row,x,s\n0,1,a\n1,2,b\n2,3,c\n")
    with pytest.raises(ValueError, match=r"^columns of t\.csv must be among 'x', 's'; got 'y'\.$"):
        join_factors(representation, path, continuous=["y"])
    with pytest.raises(ValueError, match=r"^t\.csv: column 's' must hold numbers; got 'a'"):
        join_factors(representation, path, continuous=["s"])
    with pytest.raises(ValueError, match=r"^columns of t\.csv must be new; got 'x'"):
        join_factors(join_factors(representation, path), path)
    with pytest.raises(FileNotFoundError, match=r"^factors must be a table; got"):
        join_factors(representation, tmp_path / "no.csv")
    with pytest.raises(
        ValueError, match=r"^factors must be one of \.csv, .* \.arrow; got 't\.txt'\.$"
    ):
        join_factors(representation, write(tmp_path, "row", "t.txt"))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "whole.parquet"])
def test_zeros_before_the_names_of_files_keep_no_row_from_its_sample(name, tmp_path):
    names = np.array([f"{row:04d}" for row in range(50)])
    order = np.random.default_rng(0).permutation(50)
    keys = order if name.startswith("whole") else names[order]
    path = save(tmp_path / name, file=keys, site=order % 7)
    for ours in (names, names.astype(int)):
        split = Representation(np.eye(50), factors={"file": ours})
        found = join_factors(split, path).factors["site"]
        np.testing.assert_array_equal(found, np.arange(50) % 7)
        assert covers(split, path)


@pytest.mark.parametrize("name", ["split", "Split"])
@pytest.mark.parametrize(
    ("words", "splits"),
    [
        (("train", "val"), ("train", "validation")), (("Train", "Test"), ("train", "test")),
        (("TRAINING", "valid "), ("train", "validation")),
        (("training", "testing"), ("train", "test")), (("train", "eval"), ("train", "validation")),
        (("fold 1", "fold 2"), ("fold 1", "fold 2")),
    ],
)  # fmt: skip
def test_the_words_for_splits_are_those_of_files_of_features(name, words, splits, tmp_path):
    rows = np.tile(np.arange(3), 2)
    frame = pd.DataFrame({"row": rows, name: np.repeat(words, 3), "dose": np.arange(6) / 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for place, split in enumerate(splits):
        known = Representation(np.eye(3), meta={"split": split})
        found = join_factors(known, tmp_path / "t.csv").factors
        assert list(found) == ["dose"]
        np.testing.assert_array_equal(found["dose"], [[0, 0.5, 1], [1.5, 2, 2.5]][place])
        assert covers(known, tmp_path / "t.csv")
        alias = Representation(np.eye(3), meta={"split": words[place]})
        again = join_factors(alias, tmp_path / "t.csv").factors["dose"]
        np.testing.assert_array_equal(again, found["dose"])
        if split.startswith("fold"):
            continue
        frame.assign(e_0=1.0, e_1=2.0).to_csv(tmp_path / "x.csv", index=False)
        assert load_features(tmp_path / "x.csv", split=split).meta["split"] == split
        np.savez(tmp_path / "x.npz", **{f"X_{each.strip()}": np.eye(3) for each in words})
        assert load_features(tmp_path / "x.npz", split=split).meta["split"] == split


def test_two_words_for_one_split_are_refused(tmp_path):
    frame = pd.DataFrame({"row": np.tile(np.arange(3), 2), "split": np.repeat(["val", "eval"], 3)})
    frame.assign(e_0=1.0, e_1=2.0).to_csv(tmp_path / "t.csv", index=False)
    sentence = "must have one word for each split; got 'eval' and 'val', which both mean validation"
    with pytest.raises(ValueError, match=sentence):
        join_factors(Representation(np.eye(3), meta={"split": "val"}), tmp_path / "t.csv")
    with pytest.raises(ValueError, match=sentence):
        load_features(tmp_path / "t.csv", split="validation")
    np.savez(tmp_path / "t.npz", X_val=np.eye(3), valid_X=np.eye(3))
    with pytest.raises(ValueError, match="must be named once for each split; got two called 'X'"):
        load_features(tmp_path / "t.npz")


def test_categories_that_look_alike_are_one_or_are_named(representation, tmp_path):
    path = write(tmp_path, "row,site,kind\n0,A ,x\n1,A,X\n2,A,x\n")
    with pytest.warns(UserWarning, match="taken as one") as told:
        found = join_factors(representation, path).factors
    assert [str(each.message) for each in told] == [
        "'site' holds 'A' and 'A ', which are taken as one.",
    ]
    assert (found["site"].tolist(), found["kind"].tolist()) == (["A"] * 3, ["x", "X", "x"])
