"""Labels of another file: each sample has its own by one key, in any order, or a sentence."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from dimlab.images import ImageSet
from dimlab.io.features import load_features
from dimlab.representation import Representation
from tests.io.writing import save

N, D = 12, 4
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
FILES = np.array([f"img{row}.png" for row in range(N)])
CLASSES = np.array([f"c{row % 3}" for row in range(N)])
ORDER = np.random.default_rng(1).permutation(N)


def features_file(path, key="filename", files=FILES):
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    if key is not None:
        frame.insert(0, key, files)
    frame.to_csv(path, index=False)
    return path


def labels_file(path, key="filename", files=FILES, order=ORDER, label="label", **options):
    frame = pd.DataFrame({key: files, label: CLASSES}).iloc[order]
    frame.to_csv(path, **{"index": False} | options)
    return path


def assert_joined(found):
    np.testing.assert_array_equal(np.array(found.meta["class_names"])[found.labels], CLASSES)


@pytest.mark.parametrize("key", ["filename", "file", "image_id"])
def test_a_key_of_the_same_name_on_both_sides_joins_them(key, tmp_path):
    features = features_file(tmp_path / "a.csv", key)
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", key)))
    only = labels_file(tmp_path / "y.csv", key, label="species")
    assert_joined(load_features(features, labels=only))
    assert_joined(load_features(features, labels=f"{only}:species"))


@pytest.mark.parametrize("values", [FILES, np.arange(N) + 1000, np.arange(N) * 7 % N])
def test_on_names_any_other_key(values, tmp_path):
    features = features_file(tmp_path / "a.csv", "case", values)
    path = labels_file(tmp_path / "y.csv", "case", values)
    assert_joined(load_features(features, labels=path, on="case"))
    with pytest.raises(ValueError, match=r"y.csv must share a column .* Pass on= \(--on COLUMN\)"):
        load_features(features, labels=path)
    with pytest.raises(ValueError, match=r"on must name a column of y.csv, one of 'case', 'label'"):
        load_features(features, labels=path, on="nosuch")
    features_file(features, "other", values)
    with pytest.raises(
        ValueError, match="on must name a factor of the samples too, one of 'other', 'row'"
    ):
        load_features(features, labels=path, on="case")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("filename", "file"),
        ("file", "image_id"),
        ("path", "path"),
        ("id", "id"),
        (None, "filename"),
    ],
)
def test_another_name_is_no_key_and_nothing_is_guessed(ours, theirs, tmp_path):
    features = features_file(tmp_path / "a.csv", ours)
    path = labels_file(tmp_path / "y.csv", theirs)
    with pytest.raises(ValueError, match=r"must share a column .*by_order=True \(--by-order\)"):
        load_features(features, labels=path)
    in_order = labels_file(tmp_path / "z.csv", theirs, order=range(N))
    assert_joined(load_features(features, labels=in_order, by_order=True))


def test_a_near_miss_shows_five_examples_and_the_flag(tmp_path):
    features = features_file(tmp_path / "a.csv")
    path = labels_file(tmp_path / "y.csv", files=np.char.add("photos/", FILES), order=range(N))
    with pytest.raises(ValueError, match=r"got none for 12 of them") as refused:
        load_features(features, labels=path)
    said = str(refused.value)
    for row in range(5):
        assert f"'img{row}.png'" in said
        assert f"'photos/img{row}.png'" in said
    assert "'img5.png'" not in said
    assert "--by-order" in said
    missing = labels_file(tmp_path / "y.csv", order=ORDER[ORDER < 10])
    with pytest.raises(ValueError, match=r"got none for 2 of them: 'img10.png', 'img11.png'\."):
        load_features(features, labels=missing)
    twice = labels_file(tmp_path / "y.csv", order=[*ORDER, 0])
    with pytest.raises(ValueError, match=r"one row for each 'filename'; got 'img0.png' more than"):
        load_features(features, labels=twice)
    features_file(features, files=FILES[np.arange(N) // 2])
    with pytest.raises(ValueError, match=r"the samples must have one row for each 'filename'; got"):
        load_features(features, labels=labels_file(tmp_path / "y.csv"))


def test_rows_of_other_samples_do_not_matter(tmp_path):
    features = features_file(tmp_path / "a.csv")
    frame = pd.DataFrame({"filename": FILES, "label": CLASSES}).iloc[ORDER]
    more = pd.DataFrame({"filename": ["x.png", "y.png"], "label": ["c0", "c1"]})
    pd.concat([more, frame]).to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FILES, np.char.add(FILES, " ")),
        (np.arange(N), np.array([f"{row:05d}" for row in range(N)])),
        (
            np.array([f"é{row}" for row in range(N)]),
            np.array([f"é{row}" for row in range(N)]),
        ),
    ],
    ids=["blank", "zeros", "accent"],
)
def test_names_are_compared_trimmed_composed_and_without_zeros(ours, theirs, tmp_path):
    features = features_file(tmp_path / "a.csv", files=ours)
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", files=theirs)))


def test_order_is_meant_where_it_is_said_or_nothing_else_is_there(tmp_path):
    features = features_file(tmp_path / "a.csv")
    np.save(tmp_path / "y.npy", CLASSES)
    assert_joined(load_features(features, labels=tmp_path / "y.npy"))
    pd.DataFrame({"name": CLASSES}).to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))
    for classes in (CLASSES[1:], [*CLASSES, "c0"]):
        np.save(tmp_path / "y.npy", classes)
        with pytest.raises(ValueError, match=rf"a row for each of the 12 .*; got {len(classes)} r"):
            load_features(features, labels=tmp_path / "y.npy")
    pd.DataFrame({"label": CLASSES, "age": 1}).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"y.csv must share a column"):
        load_features(features, labels=tmp_path / "y.csv")
    assert_joined(load_features(features, labels=tmp_path / "y.csv", by_order=True))
    with pytest.raises(ValueError, match="on and by_order must not both be given; got 'label'"):
        load_features(features, labels=tmp_path / "y.csv", by_order=True, on="label")
    with pytest.raises(ValueError, match="must come with labels of another file; got labels=None"):
        load_features(features, by_order=True)


def test_a_column_row_counts_the_samples(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", "row", range(N))))
    path = labels_file(tmp_path / "y.csv", "row", np.arange(N) + 1)
    with pytest.raises(ValueError, match="by 'row'; got none for 1 of them: '0'"):
        load_features(features, labels=path)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_key_that_is_missing_somewhere_is_named(missing, tmp_path):
    features = features_file(tmp_path / "a.csv")
    frame = pd.DataFrame({"filename": FILES, "label": CLASSES}).astype({"filename": object})
    frame.iloc[2, 0] = missing
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match="'filename' must be there for every row; got none in row"):
        load_features(features, labels=tmp_path / "y.csv")


def test_numbers_of_folds_in_a_file_of_labels_are_no_splits(tmp_path):
    features = features_file(tmp_path / "a.csv")
    frame = pd.DataFrame({"filename": FILES, "label": CLASSES, "split": np.arange(N) % 2})
    frame.iloc[ORDER].to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))


def test_labels_that_name_no_split_are_those_of_features_that_name_none(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    np.savez(tmp_path / "y.npz", labels=CLASSES, labels_val=CLASSES[ORDER])
    assert_joined(load_features(features, labels=tmp_path / "y.npz", by_order=True))


@pytest.mark.parametrize("word", ["NA", "nan", "?", "null"])
def test_a_word_for_a_missing_number_is_no_class(word, tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    numbers = [str(row % 3) for row in range(N)]
    frame = pd.DataFrame({"label": [*numbers[:5], word, *numbers[6:]]})
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"must be there for every row; got .* in row 5"):
        load_features(features, labels=tmp_path / "y.csv")
    frame = pd.DataFrame({"label": [*"012-" * (N // 4)]})  # of characters
    frame.to_csv(tmp_path / "y.csv", index=False)
    assert load_features(features, labels=tmp_path / "y.csv").labels.max() == 3
    frame = pd.DataFrame({"label": ["EU", word if word == "NA" else "AS"] * (N // 2)})
    frame.to_csv(tmp_path / "y.csv", index=False)  # Namibia
    assert load_features(features, labels=tmp_path / "y.csv").labels.max() == 1


@pytest.mark.parametrize("ending", ["npz", "pt", "parquet", "tsv", "jsonl"])
def test_every_container_of_labels_is_joined_by_name(ending, tmp_path):
    features = features_file(tmp_path / "a.csv")
    path = save(tmp_path / f"y.{ending}", filename=FILES[ORDER], labels=CLASSES[ORDER])
    assert_joined(load_features(features, labels=path))
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", sep=";")))
    frame = pd.DataFrame({"filename": FILES, "label": CLASSES}).iloc[ORDER]
    frame.set_index("filename").to_parquet(tmp_path / "y.parquet")
    assert_joined(load_features(features, labels=tmp_path / "y.parquet"))


def test_dimlab_s_own_features_are_joined_by_the_names_they_keep(tmp_path):
    own = Representation(FEATURES, factors={"image_id": FILES}).save(tmp_path / "own.safetensors")
    assert_joined(load_features(own, labels=labels_file(tmp_path / "y.csv", "image_id")))


@pytest.mark.parametrize("style", ["names", "column"])
def test_labels_of_the_features_own_split_are_taken(style, tmp_path):
    own = Representation(FEATURES, meta={"split": "test"}).save(tmp_path / "own.safetensors")
    if style == "names":
        path = tmp_path / "y.npz"
        np.savez(path, y_train=CLASSES[ORDER], y_test=CLASSES)
    else:
        path = tmp_path / "y.csv"
        both = pd.DataFrame({"label": [*CLASSES[ORDER], *CLASSES]})
        both.assign(split=["train"] * N + ["Test"] * N).to_csv(path, index=False)
    assert_joined(load_features(own, labels=path))
    if style == "names":
        with pytest.raises(
            ValueError, match=r"the split of a.csv, which names none; got train, test"
        ):
            load_features(features_file(tmp_path / "a.csv", None), labels=path)


def test_which_labels_is_asked_where_several_would_do(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    np.savez(tmp_path / "y.npz", age=np.arange(N), sex=np.arange(N) % 2)
    with pytest.raises(
        ValueError, match=r"labels must name an array of y.npz, one of 'age' \(12,\)"
    ):
        load_features(features, labels=tmp_path / "y.npz", by_order=True)
    found = load_features(features, labels=f"{tmp_path}/y.npz:sex", by_order=True)
    np.testing.assert_array_equal(found.labels, np.arange(N) % 2)
    with pytest.raises(ValueError, match=r"columns of y.npz must be among age, sex; got 'no'"):
        load_features(features, labels=f"{tmp_path}/y.npz:no")
    with pytest.raises(
        FileNotFoundError, match="labels must be a file, or the name of an array of"
    ):
        load_features(features, labels=tmp_path / "none.npy")


def test_a_row_without_a_label_is_named(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    for values in ([None, *CLASSES[1:]], [np.nan, *range(1, N)]):
        pd.DataFrame({"label": values, "x": 1}).to_csv(tmp_path / "y.csv", index=False)
        with pytest.raises(ValueError, match=r"must be there for every row; got none in row 0"):
            load_features(features, labels=tmp_path / "y.csv", by_order=True)
    np.save(tmp_path / "y.npy", np.arange(N).astype(np.uint64) + 2**63)
    with pytest.raises(
        ValueError, match=re.escape("labels must be < 2**63; got 92233720368547758")
    ):
        load_features(features, labels=tmp_path / "y.npy")
    for make in (
        lambda labels: Representation(FEATURES[:1], labels=labels),
        lambda labels: ImageSet(np.zeros((1, 1, 8, 8), np.uint8), labels, name="blank"),
    ):
        with pytest.raises(ValueError, match=r"labels must be < 2\*\*63; got 9223372036854775808"):
            make(np.array([2**63], dtype=np.uint64))


def test_the_command_line_names_the_key_or_says_that_order_is_meant(dimlab, tmp_path):
    cases = np.array([f"s{row}" for row in range(80)])
    order = np.random.default_rng(3).permutation(80)
    features = np.random.default_rng(4).normal(size=(80, 3))
    np.savez(tmp_path / "a.npz", features=features, case=cases)
    frame = pd.DataFrame({"case": cases, "kind": np.arange(80) % 2, "dose": features[:, 0]})
    frame.iloc[order][["case", "kind"]].to_csv(tmp_path / "y.csv", index=False)
    frame.iloc[order][["case", "dose"]].to_csv(tmp_path / "f.csv", index=False)
    labels = ("a.npz", "--labels", "y.csv:kind", "--quiet")
    ablate = ("ablate", *labels, "--reader", "ridge", "--json")
    code, out, err = dimlab(*ablate)
    assert (code, out, "--on COLUMN" in err) == (1, "", True)
    assert dimlab(*ablate, "--on", "case")[0] == 0
    assert dimlab(*ablate, "--by-order")[0] == 0
    code, _, err = dimlab(*ablate, "--on", "nosuch")
    assert (code, "on must name a column of y.csv" in err) == (2, True)
    code, _, err = dimlab("decompose", "a.npz", "--on", "case")
    assert code == 2  # no such option: nothing is joined
    code, _, err = dimlab("ablate", "a.npz", "--labels", "case", "--by-order")
    assert (code, "by-order must come with --labels FILE or --factors FILE" in err) == (2, True)
    attribute = ("attribute", *labels, "--permutations", 19, "--json", "--factors", "f.csv")
    code, out, err = dimlab(*attribute, "--on", "case", "--erase", "none")
    assert code == 0, err
    assert "dose" in json.loads(out)["factors"]
