"""Labels of another file: each sample has its own, in any order, or a sentence says why not."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from dimlab.images import ImageSet
from dimlab.interop.features import load_features
from dimlab.interop.joining import match
from dimlab.representation import Representation

N, D = 12, 4
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
FILES = np.array([f"img{row}.png" for row in range(N)])
CLASSES = np.array([f"c{row % 3}" for row in range(N)])
ORDER = np.random.default_rng(1).permutation(N)


def features_file(path, files=FILES, key="filenames"):
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    if files is not None:
        frame.insert(0, key, files)
    frame.to_csv(path, index=False)
    return path


def labels_file(path, key, files=FILES, order=ORDER, label="label", **options):
    frame = pd.DataFrame({key: files, label: CLASSES}).iloc[order]
    frame.to_csv(path, **{"index": False} | options)
    return path


def assert_joined(found):
    np.testing.assert_array_equal(np.array(found.meta["class_names"])[found.labels], CLASSES)


@pytest.mark.parametrize(
    "key",
    ["filename", "file_name", "File Name", "FILENAMES", "path", "image", "image_id", "image_path",
     "img", "name", "id", "key", "sample_id", "slide"],
)  # fmt: skip
def test_a_column_that_names_rows_joins_them_whatever_it_is_called(key, tmp_path):
    features = features_file(tmp_path / "a.csv")
    shuffled = labels_file(tmp_path / "y.csv", key)
    assert_joined(load_features(features, labels=shuffled))
    only = labels_file(tmp_path / "y.csv", key, label="species")
    assert_joined(load_features(features, labels=f"{only}:species" if key == "slide" else only))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("patient_id", "patient_id"), ("case", "case"), ("barcode", "Barcode"), ("frame", "frame")],
)
@pytest.mark.parametrize("values", [np.arange(N) + 1000, np.arange(N) * 7 % N])
def test_whole_numbers_of_one_name_on_both_sides_name_rows(ours, theirs, values, tmp_path):
    features = features_file(tmp_path / "a.csv", values, ours)
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", theirs, values)))
    other = labels_file(tmp_path / "y.csv", theirs, values + 5000)
    with pytest.raises(ValueError, match=r"y.csv must name its rows as a.csv names its own; got"):
        load_features(features, labels=other)


@pytest.mark.parametrize(
    ("ours", "values"),
    [
        ("site_id", np.arange(N) % 4), ("is_valid", np.ones(N, int)), ("patient_id", np.arange(N)),
        ("steroid", np.arange(N) % 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("theirs", ["id", "image_id", "item_number"])
def test_numbers_of_another_name_never_name_rows(ours, values, theirs, tmp_path):
    features = features_file(tmp_path / "a.csv", values, ours)
    path = labels_file(tmp_path / "y.csv", theirs, np.arange(N))
    if theirs == "item_number":  # in its order, as it always was
        assert_joined(
            load_features(features, labels=labels_file(path, theirs, np.arange(N), range(N)))
        )
        return
    with pytest.raises(ValueError, match=r"y.csv must name its rows as a.csv names its own"):
        load_features(features, labels=path)


def test_a_number_never_stands_in_for_a_name_that_is_missing(tmp_path):
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    frame.assign(filename=FILES, code=np.arange(N) + 7).to_csv(tmp_path / "a.csv", index=False)
    named = pd.DataFrame(
        {"filename": FILES, "code": np.roll(np.arange(N) + 7, 1), "label": CLASSES}
    )
    named.loc[3, "filename"] = "another.png"
    named.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"got none for 1 of them, such as filename img3.png"):
        load_features(tmp_path / "a.csv", labels=tmp_path / "y.csv")


@pytest.mark.parametrize("key", ["patient_id", "slide"])
@pytest.mark.parametrize("fault", ["blank", "twice", "unknown"])
def test_names_that_nearly_fit_are_never_read_in_their_order(key, fault, tmp_path):
    values = np.arange(N) + 1000
    values = values if key == "patient_id" else np.char.add("s", values.astype(str))
    features = features_file(tmp_path / "a.csv", values, key)
    frame = pd.DataFrame({key: values, "label": CLASSES}).iloc[ORDER].astype({key: object})
    unknown = 7 if key == "patient_id" else "s7"
    frame.iloc[5, 0] = {"blank": None, "twice": frame.iloc[4, 0], "unknown": unknown}[fault]
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"must (name|be there for every|have a) row|must name"):
        load_features(features, labels=tmp_path / "y.csv")


def test_names_of_several_rows_show_whether_the_order_is_the_same(tmp_path):
    patients = np.arange(N) // 3 + 100
    features = features_file(tmp_path / "a.csv", patients, "patient_id")
    in_order = labels_file(tmp_path / "y.csv", "patient_id", patients, range(N))
    assert_joined(load_features(features, labels=in_order))
    shuffled = labels_file(tmp_path / "y.csv", "patient_id", patients)
    with pytest.raises(
        ValueError, match=r"y.csv must name each row of a.csv once, or be in its ord"
    ):
        load_features(features, labels=shuffled)
    few = pd.DataFrame({"patient_id": [100, 101, 102, 103], "label": list("abcd")})
    few.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(
        ValueError, match=r"y.csv must have a row for each of the 12 samples; got 4"
    ):
        load_features(features, labels=tmp_path / "y.csv")
    other = pd.DataFrame({"patient_id": np.arange(N) % 5, "label": CLASSES})
    other.to_csv(tmp_path / "y.csv", index=False)
    with pytest.warns(
        UserWarning, match=r"in their order, though these differ: 'patient_id' '0' in"
    ):
        assert_joined(load_features(features, labels=tmp_path / "y.csv"))


@pytest.mark.parametrize("other", ["id", "index", "row", "image_id"])
@pytest.mark.parametrize("fault", ["blank", "twice", "unknown"])
def test_nothing_stands_in_for_names_of_files_that_nearly_fit(other, fault, tmp_path):
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    frame.assign(filename=FILES, **{other: range(N)}).to_csv(tmp_path / "a.csv", index=False)
    frame = pd.DataFrame({"filename": FILES, "label": CLASSES}).iloc[ORDER]
    frame.iloc[5, 0] = {"blank": None, "twice": frame.iloc[4, 0], "unknown": "typo.png"}[fault]
    frame.assign(**{other: range(N)}).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"filename"):
        load_features(tmp_path / "a.csv", labels=tmp_path / "y.csv")


def test_a_column_that_fits_excuses_none_of_its_name_on_the_other_side(tmp_path):
    """Ours `file` fits their `caption`; their `file` nearly fits our `name`."""
    ours = {"file": FILES, "name": np.char.add("n", FILES)}
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    frame.assign(**ours).to_csv(tmp_path / "a.csv", index=False)
    frame = pd.DataFrame({"file": ours["name"], "label": CLASSES, "caption": np.roll(FILES, 1)})
    frame.loc[3, "file"] = "another.png"
    frame.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"got none for 1 of them, such as file nimg3.png"):
        load_features(tmp_path / "a.csv", labels=tmp_path / "y.csv")


def test_two_names_that_send_samples_to_different_rows_are_refused(tmp_path):
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    ids = {"id": np.arange(N) + 50, "image_id": np.arange(N) + 90}
    frame.assign(**ids).to_csv(tmp_path / "a.csv", index=False)
    ids["image_id"] = np.roll(ids["image_id"], 1)
    pd.DataFrame({**ids, "label": CLASSES}).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(ValueError, match=r"got 'id' and 'image_id', which name different samples"):
        load_features(tmp_path / "a.csv", labels=tmp_path / "y.csv")


def test_the_last_number_of_several_is_no_ending(tmp_path):
    uids = np.array([f"1.2.840.{row}.1" for row in range(N)])
    features = features_file(tmp_path / "a.csv", uids, "uid")
    path = labels_file(tmp_path / "y.csv", "uid", np.array([each[:-1] + "2" for each in uids]))
    with pytest.raises(ValueError, match=r"y.csv must name its rows as a.csv names its own"):
        load_features(features, labels=path)


def test_names_beside_labels_of_the_one_split_are_of_that_split(tmp_path):
    features = features_file(tmp_path / "a.csv")
    np.savez(tmp_path / "y.npz", labels_test=CLASSES[ORDER], filenames=FILES[ORDER])
    assert_joined(load_features(features, labels=tmp_path / "y.npz"))


def test_what_is_no_column_of_names_is_no_reason_to_refuse(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    np.savez(tmp_path / "y.npz", labels=CLASSES, names=np.array(["cat", "dog", "owl"]))
    assert_joined(load_features(features, labels=tmp_path / "y.npz"))
    pytest.importorskip("pyarrow")
    images = [{"bytes": b"x", "path": None}] * N
    pd.DataFrame({"image": images, "label": CLASSES}).to_parquet(tmp_path / "y.parquet")
    assert_joined(load_features(features, labels=tmp_path / "y.parquet"))


def test_columns_of_one_name_go_before_others_that_fit_by_chance(tmp_path):
    features = features_file(tmp_path / "a.csv", np.arange(N) + 1, "image_id")
    frame = pd.DataFrame({"image_id": np.arange(N) + 1, "label": CLASSES}).iloc[ORDER]
    frame.insert(0, "id", np.random.default_rng(2).permutation(N) + 1)  # of the annotation
    frame.to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))


@pytest.mark.parametrize(
    ("ours", "theirs", "agree"),
    [
        ("test/{}.png", "train/{}.png", False),
        ("siteA/x/{}.png", "siteB/x/{}.png", False),
        ("/data/test/{}.png", "test/{}.png", True),
        ("./test/{}.png", "/data/test/{}.jpg", True),
        ("test/{}.png", "{}", True),
        ("/home/me/cat/{}.png", "/data/you/cat/{}.png", True),
        ("/home/me/test/{}.png", "/home/me/train/{}.png", False),
        ("/data/test/images/{}.png", "/data/train/images/{}.png", False),
        ("/mnt/a/test/images/{}.png", "/data/train/images/{}.png", False),
        ("../data/cat/{}.png", "/home/you/data/cat/{}.png", True),
        ("C:\\d\\cat\\{}.png", "/mnt/c/d/cat/{}.png", True),
        ("s3://b/cat/{}.png", "/mnt/b/cat/{}.png", True),
    ],
)
def test_names_in_other_folders_are_of_other_samples(ours, theirs, agree, tmp_path):
    features = features_file(tmp_path / "a.csv", np.array([ours.format(row) for row in range(N)]))
    named = np.array([theirs.format(row) for row in range(N)])
    path = labels_file(tmp_path / "y.csv", "file", named)
    if agree:
        assert_joined(load_features(features, labels=path))
    else:
        with pytest.raises(ValueError, match=r"y.csv must name its rows as a.csv names its own"):
            load_features(features, labels=path)


def test_numbers_of_folds_in_a_file_of_labels_are_no_splits(tmp_path):
    features = features_file(tmp_path / "a.csv")
    frame = pd.DataFrame({"file": FILES, "label": CLASSES, "split": np.arange(N) % 2}).iloc[ORDER]
    frame.to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))


def test_labels_that_name_no_split_are_those_of_features_that_name_none(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    np.savez(tmp_path / "y.npz", labels=CLASSES, labels_val=CLASSES[ORDER])
    assert_joined(load_features(features, labels=tmp_path / "y.npz"))


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


@pytest.mark.parametrize("ending", ["npz", "pt", "parquet", "tsv", "semicolons"])
def test_every_container_of_labels_is_joined_by_name(ending, tmp_path):
    features, path = features_file(tmp_path / "a.csv"), tmp_path / f"y.{ending}"
    arrays = {"files": FILES[ORDER], "labels": CLASSES[ORDER]}
    if ending == "npz":
        np.savez(path, **arrays)
    elif ending == "pt":
        torch.save({name: array.tolist() for name, array in arrays.items()}, path)
    elif ending == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame({"labels": arrays["labels"]}, index=pd.Index(FILES[ORDER], name="file")
                     ).to_parquet(path)  # fmt: skip
    elif ending == "tsv":
        labels_file(path, "filename", sep="\t")
    else:
        path = labels_file(tmp_path / "y.csv", "filename", sep=";")
    assert_joined(load_features(features, labels=path))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FILES, np.char.add("photos/", FILES)),
        (np.char.add("photos/", FILES), FILES),
        (FILES, np.array([name[:-4] for name in FILES])),
        (FILES, np.char.add(FILES, " ")),
        (np.arange(N), np.arange(N)),
        (np.arange(N), np.array([f"{row:05d}.jpg" for row in range(N)])),
        (
            np.array([f"é{row}" for row in range(N)]),
            np.array([f"e\u0301{row}" for row in range(N)]),
        ),
    ],
    ids=["folder there", "folder here", "no ending", "space", "whole", "padded", "accent"],
)
def test_names_are_the_same_without_folder_ending_or_zeros(ours, theirs, tmp_path):
    features = features_file(tmp_path / "a.csv", ours)
    assert_joined(load_features(features, labels=labels_file(tmp_path / "y.csv", "id", theirs)))


def test_names_are_not_shortened_where_that_makes_them_equal(tmp_path):
    ours = np.array([f"{'ab'[row % 2]}/{row // 2}.png" for row in range(N)])
    features = features_file(tmp_path / "a.csv", ours)
    path = labels_file(tmp_path / "y.csv", "file", np.array([name[2:] for name in ours]))
    with pytest.raises(
        ValueError, match=r"y.csv must name its rows as a.csv names its own; got 'fi"
    ):
        load_features(features, labels=path)
    assert match(np.array(["a.png", "a.jpg"]), np.array(["a", "b"])) is None


@pytest.mark.parametrize("key", ["filename", "image_id", "name", "id", "Unnamed: 0"])
def test_names_on_the_label_side_alone_are_refused(key, tmp_path):
    files = ORDER if key == "Unnamed: 0" else FILES
    order = range(N) if key == "Unnamed: 0" else ORDER
    features = features_file(tmp_path / "a.csv", None)
    path = labels_file(tmp_path / "y.csv", key, files, order)
    sentence = (
        f"y.csv must name its rows as a.csv names its own; got {key!r} there, such as "
        f"{str(np.asarray(files)[list(order)][0])!r}, and no names in a.csv. Name both alike, or "
        f"take {key!r} out of y.csv if its rows are in the order of a.csv."
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_features(features, labels=path)


def test_other_names_on_both_sides_are_refused(tmp_path):
    features = features_file(tmp_path / "a.csv")
    path = labels_file(tmp_path / "y.csv", "image_id", np.array([f"x{row}" for row in range(N)]))
    with pytest.raises(
        ValueError, match=r"and 'filenames' in a.csv, such as 'img0.png'. Name both"
    ):
        load_features(features, labels=path)
    missing = labels_file(tmp_path / "y.csv", "filename", order=ORDER[ORDER < 10])
    with pytest.raises(ValueError, match=r"got none for 2 of them, such as filename img10.png"):
        load_features(features, labels=missing)
    twice = labels_file(tmp_path / "y.csv", "filename", order=[*ORDER, 0])
    with pytest.raises(ValueError, match=r"one row a sample; got filename img0.png more than once"):
        load_features(features, labels=twice)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("key", ["id", "row", "index", "Unnamed: 0"])
def test_a_count_of_rows_in_order_names_nothing(first, key, tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    path = labels_file(tmp_path / "y.csv", key, np.arange(N) + first, range(N))
    assert_joined(load_features(features, labels=path))


def test_labels_without_names_are_joined_in_order_and_that_is_said(tmp_path):
    features = features_file(tmp_path / "a.csv")
    np.save(tmp_path / "y.npy", CLASSES)
    with pytest.warns(UserWarning, match=r"y.npy does not name its rows: .* \(filenames\)"):
        assert_joined(load_features(features, labels=tmp_path / "y.npy"))
    np.save(tmp_path / "y.npy", CLASSES[1:])
    with pytest.raises(
        ValueError, match=r"y.npy must have a row for each of the 12 samples; got 11"
    ):
        load_features(features, labels=tmp_path / "y.npy")
    pd.DataFrame({"label": CLASSES[1:]}).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(
        ValueError, match=r"got 11 rows. The first line names the columns, and is no"
    ):
        load_features(features, labels=tmp_path / "y.csv")


def test_names_that_repeat_are_classes_not_names_of_rows(tmp_path):
    features = features_file(tmp_path / "a.csv", None)
    pd.DataFrame({"name": CLASSES}).to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))


@pytest.mark.parametrize("key", ["filename", "id", "Unnamed: 0", "index"])
@pytest.mark.parametrize("named", [True, False])
def test_names_of_which_one_is_missing_do_not_leave_the_order_to_chance(key, named, tmp_path):
    features = features_file(tmp_path / "a.csv", FILES if named else None)
    for files in (FILES, np.arange(N)):
        frame = pd.DataFrame({key: files, "label": CLASSES}).astype({key: object}).iloc[ORDER]
        frame.iloc[2, 0] = None
        frame.to_csv(tmp_path / "y.csv", index=False)
        with pytest.raises(ValueError, match=f"column '{key}' must be there for every row; got no"):
            load_features(features, labels=tmp_path / "y.csv")
    np.savez(tmp_path / "y.npz", labels=CLASSES, **{key: FILES[1:]})
    with pytest.raises(ValueError, match=f"'{key}' must name 12 rows of labels; got 11 names"):
        load_features(features, labels=tmp_path / "y.npz")


@pytest.mark.parametrize("shown", [FILES, np.char.add("photos/", FILES)])
def test_an_index_of_files_without_a_name_is_a_name_of_rows(shown, tmp_path):
    frame = pd.DataFrame({"label": CLASSES}, index=shown).iloc[ORDER]
    frame.to_csv(tmp_path / "y.csv")
    assert_joined(load_features(features_file(tmp_path / "a.csv"), labels=tmp_path / "y.csv"))
    with pytest.raises(ValueError, match=r"y.csv must name its rows as b.csv names its own"):
        load_features(features_file(tmp_path / "b.csv", None), labels=tmp_path / "y.csv")
    frame.iloc[1:].rename_axis("slide").to_csv(tmp_path / "y.csv")
    with pytest.raises(ValueError, match=r"must (have a row for each|name its rows as)"):
        load_features(tmp_path / "a.csv", labels=tmp_path / "y.csv")


def test_a_count_is_not_taken_for_the_number_of_something_else(tmp_path):
    features = features_file(tmp_path / "a.csv", ORDER, "id")
    path = labels_file(tmp_path / "y.csv", "sample", np.arange(N), range(N))
    with pytest.warns(UserWarning, match=r"though these have names \(id\)"):
        assert_joined(load_features(features, labels=path))


def test_names_in_one_column_and_whole_floats_are_names(tmp_path):
    np.savez(tmp_path / "y.npz", files=FILES[ORDER, None], labels=CLASSES[ORDER])
    assert_joined(load_features(features_file(tmp_path / "a.csv"), labels=tmp_path / "y.npz"))
    path = labels_file(tmp_path / "y.csv", "id", 1.0 * np.arange(N))
    features = features_file(tmp_path / "b.csv", np.arange(N), "id")
    assert_joined(load_features(features, labels=path))


def test_two_columns_of_files_must_agree(tmp_path):
    features = features_file(tmp_path / "a.csv")
    frame = pd.DataFrame({"filename": FILES, "path": np.char.add("d/", FILES), "label": CLASSES})
    frame.iloc[ORDER].to_csv(tmp_path / "y.csv", index=False)
    assert_joined(load_features(features, labels=tmp_path / "y.csv"))
    frame.assign(path=FILES[ORDER]).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(
        ValueError, match=r"y.csv must name each row once; got 'filename' and 'path'"
    ):
        load_features(features, labels=tmp_path / "y.csv")


def test_an_index_of_pandas_names_rows(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({f"embedding_{d}": FEATURES[:, d] for d in range(D)})
    path = labels_file(tmp_path / "y.csv", "filename")
    for name in ("file", None):
        frame.set_index(pd.Index(FILES, name=name)).to_parquet(tmp_path / "a.parquet")
        assert_joined(load_features(tmp_path / "a.parquet", labels=path))
    assert load_features(features_file(tmp_path / "n.csv", np.arange(N))).factors[
        "file"
    ].tolist() == list(map(str, range(N)))


def test_dimlab_s_own_features_are_joined_by_the_names_they_keep(tmp_path):
    own = Representation(FEATURES, factors={"image_id": FILES}).save(tmp_path / "own.safetensors")
    assert_joined(load_features(own, labels=labels_file(tmp_path / "y.csv", "filename")))


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
        load_features(features, labels=tmp_path / "y.npz")
    found = load_features(features, labels=f"{tmp_path}/y.npz:sex")
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
            load_features(features, labels=tmp_path / "y.csv")
    np.save(tmp_path / "y.npy", np.arange(N).astype(np.uint64) + 2**63)
    with pytest.raises(ValueError, match=r"labels must be < 2\*\*63; got 9223372036854775819"):
        load_features(features, labels=tmp_path / "y.npy")
    for make in (
        lambda labels: Representation(FEATURES[:1], labels=labels),
        lambda labels: ImageSet(np.zeros((1, 1, 8, 8), np.uint8), labels, name="blank"),
    ):
        with pytest.raises(ValueError, match=r"labels must be < 2\*\*63; got 9223372036854775808"):
            make(np.array([2**63], dtype=np.uint64))
