"""Tables of anyone's are read whatever separates their columns; what cannot be told is refused."""

import datetime
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from dimlab import datasets
from dimlab.columns import notations_of, numbers_of, values_of
from dimlab.io.features import FeatureFile, load_features
from dimlab.io.tables import as_continuous, join_factors, read_table
from dimlab.representation import Representation
from tests.io.writing import save

N, D = 12, 4
FEATURES = np.random.default_rng(0).normal(size=(N, D))
LABELS = np.arange(N) % 3


def table(**columns):
    frame = pd.DataFrame(FEATURES, columns=[f"embedding_{d}" for d in range(D)])
    return frame.assign(labels=LABELS, **columns)


def written(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding, newline="")
    return path


def opened(path):
    with path.open("rb") as file:
        return read_table(path, file)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".CSV"])
@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
def test_commas_semicolons_and_tabs_separate_columns(separator, ending, tmp_path):
    text = "\ufeff" + table().to_csv(index=False).replace(",", separator)
    found = load_features(written(tmp_path / f"a{ending}", text))
    np.testing.assert_allclose(found.features, FEATURES)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.factors == {}


def test_a_quoted_separator_is_none(tmp_path):
    path = written(tmp_path / "a.csv", '"a;b;c",d\n1,2\n')
    assert list(opened(path).columns) == ["a;b;c", "d"]


def test_a_separator_at_the_end_of_each_row_makes_no_column(tmp_path):
    path = written(tmp_path / "a.csv", "embedding_0,embedding_1,labels,\n1,2,0,\n3,4,1,\n")
    assert load_features(path).features.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0.1,0.2,0.3,0\n0.4,0.5,0.6,1\n", "must name its columns in its first line; got numbers"),
        ("7,3,3\n1,2,3\n", "must name its columns in its first line; got numbers there (7)"),
        ("a, a\n1,2\n", "must name its columns differently; got 'a' twice"),
        ("a\0b,c\n1,2\n", "must be a readable table; got bytes that are no text"),
        ("", "must be a readable table; got a file without columns"),
    ],
)
def test_what_cannot_be_told_is_refused(text, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        opened(written(tmp_path / "a.csv", text))


@pytest.mark.parametrize(
    ("encoding", "what"), [("utf-16", "UTF-16"), ("latin-1", "another encoding")]
)
def test_other_encodings_are_refused(encoding, what, tmp_path):
    path = written(tmp_path / "a.csv", table(site="é").to_csv(index=False), encoding)
    with pytest.raises(
        ValueError, match=f"must be text in UTF-8; got {what}. Save it as CSV UTF-8"
    ):
        load_features(path)


def test_packed_tables_are_refused(tmp_path):
    table().to_csv(tmp_path / "a.csv.gz", index=False)
    with pytest.raises(ValueError, match=r"must be a file that is not packed; got a.csv.gz"):
        load_features(tmp_path / "a.csv.gz")


@pytest.mark.parametrize("dimension", [0, 2, 3])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("NA", "features must be finite; got 'NA' in column 'embedding_{}', row 3"),
        ("None", "features must be finite; got 'None' in column 'embedding_{}', row 3"),
        ("3,5", "features must be numbers; got '3,5' in column 'embedding_{}', row 3. Write them"),
        ("cat", "features must be numbers; got 'cat' in column 'embedding_{}', row 3"),
        ("", "features must be finite; got nan in dimension {}, row 3"),
        (True, "features must be numbers; got 'True' in column 'embedding_{}', row 0"),
    ],
)
def test_a_column_of_features_that_is_no_number_is_no_factor(value, sentence, dimension, tmp_path):
    frame = table().astype({f"embedding_{dimension}": object})
    rows = slice(None) if value is True else 3
    frame.loc[rows, f"embedding_{dimension}"] = value
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=re.escape(sentence.format(dimension))):
        load_features(tmp_path / "a.csv")


def test_numbers_that_are_large_are_numbers(tmp_path):
    path = written(tmp_path / "a.csv", f"e_0,e_1\n1,{10**29}\n1,3\n")
    assert load_features(path).features.tolist() == [[1, 1e29], [1, 3]]


@pytest.mark.parametrize("first", [0, 1, 2])
def test_columns_are_numbered_from_0_or_1(first, tmp_path):
    frame = table().rename(columns={f"embedding_{d}": f"PC{d + first}" for d in range(D)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    if first < 2:
        np.testing.assert_allclose(load_features(tmp_path / "a.csv").features, FEATURES)
        return
    with pytest.raises(ValueError, match="must be numbered from 0 or 1; got 'PC' from 2 on"):
        load_features(tmp_path / "a.csv")


def test_broken_features_are_not_passed_over_for_a_smaller_matrix(tmp_path):
    frame = pd.DataFrame(FEATURES, columns=[f"f_{d}" for d in range(D)]).astype({"f_3": object})
    frame.loc[1, "f_3"] = "NA"
    frame = frame.assign(site1=1.0, site2=2.0)
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match="got 'NA' in column 'f_3', row 1"):
        load_features(tmp_path / "a.csv")
    with pytest.warns(UserWarning, match="left out, as column 'f_3' must be there for every row"):
        found = load_features(tmp_path / "a.csv", features="site")
    assert found.features.tolist() == [[1, 2]] * N
    unrelated = table(note_1=1.0, note_2="text")
    unrelated.to_csv(tmp_path / "b.csv", index=False)
    np.testing.assert_allclose(load_features(tmp_path / "b.csv").features, FEATURES)


def parquet(path, frame):
    frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (["a", None] * 6, "column 'other' must be there for every row; got none in row 1"),
        ([b"\xff"] * N, "column 'other' must hold numbers or text; got binary"),
        ([["a"], ["b", "c"]] * 6, "column 'other' must hold numbers or text; got list"),
        (
            [{"bytes": b"x", "path": "a"}] * N,
            "column 'other' must hold numbers or text; got struct",
        ),
        ([[1.0], [1.0, 2.0]] * 6, "column 'other' must hold lists of one length; got 2 lengths"),
        ([0.5, np.nan] * 6, "'other' must be finite; got NaN or infinity"),
    ],
)
def test_an_unrelated_column_is_left_out_and_no_reason_to_refuse(column, sentence, tmp_path):
    path = parquet(tmp_path / "a.parquet", table(other=column))
    with pytest.warns(UserWarning, match=re.escape(f"a.parquet: left out, as {sentence}")):
        found = load_features(path)
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.factors == {}
    if "finite" not in sentence:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            load_features(path, labels="other")


@pytest.mark.parametrize("kind", ["Float32", "Float64", "float16"])
def test_nullable_columns_are_numbers(kind, tmp_path):
    frame = table().astype({f"embedding_{d}": kind for d in range(D)})
    path = parquet(tmp_path / "a.parquet", frame)
    np.testing.assert_allclose(load_features(path).features, FEATURES, rtol=1e-2)
    if kind == "float16":
        return
    frame.loc[3, "embedding_3"] = pd.NA
    with pytest.raises(ValueError, match="features must be finite; got nan in dimension 3, row 3"):
        load_features(parquet(tmp_path / "b.parquet", frame))


def test_a_label_that_is_null_is_named(tmp_path):
    frame = table().astype({"labels": "Int64"})
    frame.loc[11, "labels"] = pd.NA
    path = parquet(tmp_path / "a.parquet", frame)
    with pytest.raises(ValueError, match="must be there for every row; got none in row 11"):
        load_features(path)


def test_bfloat16_and_batches_are_read(tmp_path):
    import torch
    from safetensors.torch import save_file

    whole = torch.from_numpy(FEATURES).float()
    save_file(
        {"features": whole.bfloat16(), "labels": torch.from_numpy(LABELS)},
        tmp_path / "a.safetensors",
    )
    found = load_features(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found.features, whole.bfloat16().float())
    torch.save([whole[:5], whole[5:10], whole[10:]], tmp_path / "a.pt")
    np.testing.assert_array_equal(load_features(tmp_path / "a.pt").features, whole)
    torch.save([whole, whole[:, :2]], tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"features must name one of the arrays of b.pt"):
        load_features(tmp_path / "b.pt")
    torch.save(
        {"features": whole.to("meta"), "labels": torch.from_numpy(LABELS)}, tmp_path / "c.pt"
    )
    with pytest.raises(ValueError, match="'features' must be a tensor of plain values; got a meta"):
        load_features(tmp_path / "c.pt")


def test_what_cannot_be_read_is_not_said_to_be_arrays(tmp_path):
    for name in ("a.npz", "a.csv", "a.npy"):
        (tmp_path / name).write_bytes(b'a,b\n1,2,3\n"x')
        with pytest.raises(ValueError, match=f"{name} must be"):
            FeatureFile.read(tmp_path / name).layouts()
    np.savez(tmp_path / "b.npz", x=np.ones(3))
    assert FeatureFile.read(tmp_path / "b.npz").layouts() == ()


# Columns that are numbers are numbers, or are refused -----------------------------------------

VALUES = np.random.default_rng(1).uniform(20, 90, N).round(1)


def decimals(places):
    return pa.array([Decimal(f"{each:.{places}f}") for each in VALUES], pa.decimal128(20, places))


STORAGES = {  # the same numbers, as databases, pandas and Arrow store them
    "decimal": (decimals(1), VALUES),
    "decimal256": (pa.array(map(Decimal, map(str, VALUES)), pa.decimal256(50, 3)), VALUES),
    "decimal without places": (decimals(0), VALUES.round().astype(int)),
    "half": (pa.array(VALUES.astype(np.float16)), VALUES.astype(np.float16)),
    "dictionary of floats": (pa.array(VALUES).dictionary_encode(), VALUES),
    "dictionary of text": (pa.array(["a", "b"] * 6).dictionary_encode(), ["a", "b"] * 6),
    "unsigned": (pa.array(np.arange(N), pa.uint64()), np.arange(N)),
    "past int64": (pa.array([2**64 - 1 - row for row in range(N)], pa.uint64()),
                   [str(2**64 - 1 - row) for row in range(N)]),
}  # fmt: skip


@pytest.mark.parametrize("storage", STORAGES)
def test_numbers_of_parquet_are_numbers_in_every_reader(storage, tmp_path):
    column, expected = STORAGES[storage]
    features = {f"embedding_{d}": FEATURES[:, d] for d in range(D)}
    pq.write_table(pa.table({**features, "age": column}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"row": np.arange(N), "age": column}), tmp_path / "f.parquet")
    joined = join_factors(Representation(FEATURES), tmp_path / "f.parquet").factors["age"]
    found = load_features(tmp_path / "a.parquet").factors["age"]
    expected = np.asarray(expected)
    for each in (joined, found):
        assert each.dtype.kind == ("i" if expected.dtype.kind == "u" else expected.dtype.kind)
        np.testing.assert_array_equal(each, expected)
    if expected.dtype.kind != "U" or storage == "past int64":
        path = tmp_path / "f.parquet"
        found = join_factors(Representation(FEATURES), path, continuous=["age"]).factors["age"]
        np.testing.assert_array_equal(found, expected.astype(np.float64))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1.5, 2.5], dtype="category"), np.array([1.5, 2.5])),
        (pd.Series([7, 3], dtype="category"), np.array([7, 3])),
        (pd.Series([7, 3], dtype="Int64"), np.array([7, 3])),
        (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
        (pd.Series([0.5, 1.5], dtype="Float32"), np.array([0.5, 1.5], np.float32)),
        (pd.Series([1, 2.5], dtype=object), np.array([1, 2.5])),
        (pd.Series([Decimal(3), 2], dtype=object), np.array([3, 2])),
        (pd.Series([10**29, 1], dtype=object), np.array([str(10**29), "1"])),
        (pd.Series(["1", "2"]), np.array(["1", "2"])),
    ],
)
def test_the_dtype_of_a_column_of_pandas_changes_no_meaning(column, expected):
    found = values_of(column)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype.kind == expected.dtype.kind


NOTATIONS = {
    "decimal commas": ["12,5", "3,25", "-0,5"],
    "commas here and there": ["12", "3,25", "7"],
    "thousands": ["1,234.5", "12.5", "999"],
    "ambiguous": ["1,234", "5,678", "9,012"],
    "thousands of Europe": ["1.234,5", "12,5", "1.000.000,25"],
    "thousands apart": ["1\u00a0234,5", "10 000", "12,5"],
    "thousands of Switzerland": ["1'234.5", "2'000", "3"],
    "per cent": ["12.5%", "3 %", "7%"],
    "typographic minus": ["\u22120.5", "0.5", "1.5"],
    "gaps among them": ["12,5", "NA", "3,5"],
}


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize(
    "container", ["quoted.csv", "semicolon.csv", "a.tsv", "a.parquet", "a.npz"]
)
def test_numbers_in_other_notations_are_refused_and_become_no_categories(
    notation, container, tmp_path
):
    text = NOTATIONS[notation] * (N // 3)
    path = save(tmp_path / container, x=FEATURES, dose=text)
    if container == "semicolon.csv":
        pd.read_csv(path, dtype=str, keep_default_na=False).to_csv(path, index=False, sep=";")
    with pytest.warns(UserWarning, match="left out, as .*dose' must write numbers with decimal"):
        assert load_features(path).factors == {}
    if container != "a.npz":
        factors = save(tmp_path / f"f{path.suffix}", row=np.arange(N), dose=text)
        with pytest.raises(ValueError, match="'dose' must write numbers with decimal points"):
            join_factors(Representation(FEATURES), factors)


@pytest.mark.parametrize(
    "words", [["1,2,3", "4"], ["a", "1,5"], ["v1.2", "1.3"], ["", ""], ["EU", "NA"], ["1-2", "3"]]
)
def test_other_text_is_text(words):
    assert notations_of(np.array(words)) is None
    np.testing.assert_array_equal(values_of(pd.Series(words)), words)


@pytest.mark.parametrize("container", ["a.parquet", "a.npz", "images.npz"])
def test_numbers_with_points_that_are_text_are_categories_with_a_warning(container, tmp_path):
    text = np.array([f"{each} " for each in VALUES])
    if container == "images.npz":
        images = np.zeros((N, 4, 4), np.uint8)
        np.savez(tmp_path / container, images=images, labels=LABELS, dose=text, split=["test"] * N)
        with pytest.warns(UserWarning, match="'dose' holds numbers as text"):
            found = datasets.npz("test", data_dir=tmp_path / container)
    else:
        save(tmp_path / container, x=FEATURES, dose=text)
        with pytest.warns(UserWarning, match=r"as 12 categories. .* \(--continuous dose\)\.$"):
            found = load_features(tmp_path / container)
    assert found.factors["dose"].tolist() == [str(each) for each in VALUES]
    if container != "images.npz":
        made = as_continuous(found, ["dose"]).factors["dose"]
        np.testing.assert_array_equal(made, VALUES)


def test_what_a_factor_table_cannot_hold_is_left_out_and_named(tmp_path):
    frame = pd.DataFrame({"row": np.arange(N), "x": VALUES, "raw": [b"x"] * N})
    path = parquet(tmp_path / "f.parquet", frame)
    with pytest.warns(UserWarning, match="left out, as column 'raw' must hold numbers or text"):
        assert set(join_factors(Representation(FEATURES), path).factors) == {"x"}


def test_durations_are_days_and_times_of_day_are_refused(tmp_path):
    path = tmp_path / "f.parquet"
    frame = pd.DataFrame({"row": np.arange(N), "t": pd.to_timedelta(np.arange(N) * 6, unit="h")})
    parquet(path, frame)
    found = join_factors(Representation(FEATURES), path, continuous=["t"]).factors["t"]
    np.testing.assert_array_equal(found, np.arange(N) / 4)
    parquet(path, frame.assign(t=[datetime.time(row) for row in range(N)]))
    with pytest.raises(ValueError, match=r"such as days\.$"):
        join_factors(Representation(FEATURES), path)


def test_dates_are_refused_and_are_days_where_they_are_continuous(tmp_path):
    when = pd.date_range("2020-01-01", periods=N, freq="36h")
    path = tmp_path / "f.parquet"
    for column in (pd.Series(when), pd.Series(when.date), pd.Series(when.tz_localize("UTC"))):
        pd.DataFrame({"row": np.arange(N), "when": column}).to_parquet(path)
        with pytest.raises(ValueError, match=r"got dates.* --continuous when"):
            join_factors(Representation(FEATURES), path)
        found = join_factors(Representation(FEATURES), path, continuous=["when"]).factors["when"]
        expected = 18262 + 1.5 * np.arange(N)
        exact = column.dtype.kind == "M"
        np.testing.assert_array_equal(found, expected if exact else np.floor(expected))
    assert numbers_of(pd.Series(["1970-01-03", "1970-01-01"])).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"'x' must hold numbers; got 'soon' in row 1\."):
        numbers_of(pd.Series(["1970-01-03", "soon"], name="x"))


@pytest.mark.parametrize("column", ["file", "filename", "image_id", "id"])
def test_names_of_rows_keep_their_zeros(column, tmp_path):
    names = [f"{row:02d}" for row in range(N)]  # 10 has none before it
    table(**{column: names}).to_csv(tmp_path / "a.csv", index=False)
    found = load_features(tmp_path / "a.csv").factors
    assert [each.tolist() for each in found.values()] == [names]
    table(**{column: range(N)}).to_csv(tmp_path / "b.csv", index=False)
    kind = next(iter(load_features(tmp_path / "b.csv").factors.values())).dtype.kind
    assert kind == ("U" if "file" in column else "i")


def test_a_long_run_of_digits_is_told_from_a_number_without_trying_every_place_of_a_point():
    """A pattern that can split the run anywhere would take hours for this one."""
    long = "9" * 200_000
    assert notations_of(np.array([long])) == {"plain": 0}
    assert notations_of(np.array([f"{long}x"])) is None


def not_utf_8(n):
    """Text whose bytes no encoding of Arrow allows, as a damaged file holds."""
    offsets = np.arange(n + 1, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"\xff" * n)]
    return pa.Array.from_buffers(pa.utf8(), n, buffers)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_text_that_is_not_utf_8_is_refused_when_it_is_read(tmp_path, suffix):
    table = pa.table({"file": not_utf_8(4), "x": np.arange(4.0)})
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(ValueError, match=r"t\.\w+ must be a readable table; got: .*UTF"):
        opened(path)


def test_class_names_of_images_that_are_not_utf_8_are_refused(tmp_path):
    pixels = pa.array([{"bytes": b"", "path": "a"}] * 4)
    pq.write_table(pa.table({"image": pixels, "label": not_utf_8(4)}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet must be a complete .parquet file"):
        datasets.huggingface("train", data_dir=tmp_path)
