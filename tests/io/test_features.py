"""Files of features that other tools wrote: the right array, the right labels, or a sentence."""

import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from dimlab.given import aligned
from dimlab.io.features import FeatureFile, load_features
from dimlab.io.source import open_source
from dimlab.representation import Representation
from tests.io.writing import save

N, D = 12, 3
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
LABELS = np.arange(N) % 3
NAMES = np.array(["cat", "dog", "owl"])[LABELS]
SITE = np.linspace(0, 1, N)


def table(features="embedding_", label="labels", names=False):
    frame = pd.DataFrame({f"{features}{d}": FEATURES[:, d] for d in reversed(range(D))})
    frame.insert(0, "filenames", [f"{row}.png" for row in range(N)])
    frame[label] = NAMES if names else LABELS
    frame["site"] = SITE
    return frame


def writers():
    arrays = {"embeddings": FEATURES, "targets": LABELS, "site": SITE}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {
        "a.npz": lambda path: np.savez(path, **arrays),
        "b.npz": lambda path: np.savez_compressed(path, X=FEATURES, y=NAMES, site=SITE),
        "a.pt": lambda path: torch.save(tensors, path),
        "b.pt": lambda path: torch.save({"data": {"x": tensors["embeddings"],
                                                  "label": NAMES.tolist()},
                                         "site": tensors["site"], "epoch": 3}, path),
        "a.safetensors": lambda path: save_file(arrays, path),
        "a.csv": lambda path: table().to_csv(path, index=False),
        "b.csv": lambda path: table("f.", "class", names=True).to_csv(path),
        "a.tsv": lambda path: table().to_csv(path, index=False, sep="\t"),
    }  # fmt: skip


@pytest.mark.parametrize("name", writers())
def test_every_container_gives_the_same_features_labels_and_factors(name, tmp_path):
    writers()[name](tmp_path / name)
    found = load_features(tmp_path / name)
    np.testing.assert_allclose(found.features, FEATURES, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_allclose(found.factors["site"], SITE)
    assert set(found.factors) <= {"site", "filenames", "Unnamed: 0"}
    assert open_source(tmp_path / name).kind == "features"
    layout = FeatureFile.read(tmp_path / name).layouts()[0]
    assert layout.shape == (N, D)
    assert layout.in_words().startswith("features 12 x 3 under")
    if name in ("b.npz", "b.pt", "b.csv"):
        assert found.meta["class_names"] == ["cat", "dog", "owl"]
    if name.endswith("csv"):
        assert found.factors["filenames"].tolist()[:2] == ["0.png", "1.png"]


def test_parquet_with_a_column_of_lists(tmp_path):
    frame = pd.DataFrame({"embedding": list(FEATURES), "label": NAMES})
    frame.to_parquet(tmp_path / "a.parquet")
    found = load_features(tmp_path / "a.parquet")
    np.testing.assert_allclose(found.features, FEATURES)
    np.testing.assert_array_equal(found.labels, LABELS)


def test_a_lone_array(tmp_path):
    np.save(tmp_path / "a.npy", FEATURES)
    torch.save(torch.from_numpy(FEATURES), tmp_path / "a.pt")
    torch.save((torch.from_numpy(FEATURES), torch.from_numpy(LABELS)), tmp_path / "pair.pt")
    for path in tmp_path.iterdir():
        found = load_features(path)
        np.testing.assert_array_equal(found.features, FEATURES)
        assert (found.labels is not None) == (path.stem == "pair")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8", "int64", "bool"])
def test_other_types_are_cast_to_float32(dtype, tmp_path):
    whole = torch.arange(6).reshape(3, 2).to(getattr(torch, dtype))
    torch.save({"features": whole}, tmp_path / "a.pt")
    found = load_features(tmp_path / "a.pt").features
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole.float().numpy())


def test_views_come_either_way_round(tmp_path):
    views = np.stack([FEATURES, FEATURES + 1])
    for name, array in (("vnd", views), ("nvd", views.swapaxes(0, 1))):
        np.savez(tmp_path / f"{name}.npz", features=FEATURES, views=array)
        np.testing.assert_array_equal(load_features(tmp_path / f"{name}.npz").views, views)


def test_numbered_columns_are_ordered_by_number_not_by_text(tmp_path):
    wide = np.arange(24.0).reshape(2, 12)
    frame = pd.DataFrame(wide, columns=[f"f{d}" for d in range(12)])
    frame = frame[sorted(frame.columns)]  # f0, f1, f10, f11, f2, ...
    frame.to_csv(tmp_path / "a.csv", index=False)
    np.testing.assert_array_equal(load_features(tmp_path / "a.csv").features, wide)
    frame.drop(columns="f7").to_csv(tmp_path / "gap.csv", index=False)
    with pytest.raises(ValueError, match="must be numbered without gaps; got 11 of 'f', and none"):
        load_features(tmp_path / "gap.csv")


@pytest.mark.parametrize("style", ["{split}_{what}", "{what}_{split}", "nested", "column"])
def test_splits_of_one_file(style, tmp_path):
    half = N // 2
    parts = {"train": slice(0, half), "test": slice(half, N)}
    if style == "nested":
        path = tmp_path / "a.pt"
        nested = {
            split: {"features": torch.from_numpy(FEATURES[rows]), "labels": NAMES[rows].tolist()}
            for split, rows in parts.items()
        }
        torch.save(nested, path)
    elif style == "column":
        split = ["train"] * half + ["test"] * half
        path = save(tmp_path / "a.csv", embedding=FEATURES, labels=NAMES, split=split)
    else:
        arrays = {}
        for split, rows in parts.items():
            arrays[style.format(split=split, what="features")] = FEATURES[rows]
            arrays[style.format(split=split, what="labels")] = NAMES[rows]
        path = save(tmp_path / "a.npz", **arrays)
    assert set(FeatureFile.read(path).splits) == {"train", "test"}
    for split, rows in parts.items():
        found = load_features(path, split=split)
        np.testing.assert_allclose(found.features, FEATURES[rows], rtol=1e-6)
        np.testing.assert_array_equal(found.labels, LABELS[rows])
        assert found.meta["split"] == split
    with pytest.raises(ValueError, match=r"split must be one of .*train.*; got none"):
        load_features(path)
    with pytest.raises(ValueError, match=r"split must be one of .*; got validation"):
        load_features(path, split="validation")
    with pytest.raises(ValueError, match="split must be train, validation or test; got 'dev'"):
        load_features(path, split="dev")


@pytest.mark.parametrize(
    ("name", "other"),
    [("cat", "cat "), ("cat", "cat\u00a0"), ("s\u00e9r\u00e9", "se\u0301re\u0301")],
)
@pytest.mark.parametrize("container", ["a.csv", "a.npz", "a.pt", "a.parquet"])
def test_names_of_classes_in_two_spellings_are_one_class(name, other, container, tmp_path):
    save(tmp_path / container, x=FEATURES, y=[name, "dog", other] * (N // 3))
    with pytest.warns(UserWarning, match="which are taken as one"):
        found = load_features(tmp_path / container)
    assert found.meta["class_names"] == sorted([name, "dog"])
    np.testing.assert_array_equal(found.labels == found.labels[1], np.arange(N) % 3 == 1)


def test_classes_that_differ_in_case_or_width_alone_are_two_and_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=FEATURES, y=np.array(["cat", "Cat", "dog"] * 4))
    with pytest.warns(UserWarning, match="holds 'Cat' and 'cat', which are taken as two"):
        assert len(load_features(tmp_path / "a.npz").meta["class_names"]) == 3
    train, test = (
        Representation(FEATURES, labels=LABELS % 2, meta={"class_names": names})
        for names in (["cat", "dog"], ["Cat", "dog "])
    )
    with (
        pytest.warns(UserWarning, match="holds 'Cat' and 'cat', which are taken as two"),
        pytest.warns(UserWarning, match="holds 'dog' and 'dog ', which are taken as one"),
    ):
        train, test = aligned(train, test)
    assert (train.labels[1], test.labels[1]) == (2, 2)
    assert train.meta["class_names"] == test.meta["class_names"] == ["Cat", "cat", "dog"]


def test_a_class_that_one_split_lacks_keeps_its_id():
    train = Representation(np.eye(3), labels=[0, 1, 2], meta={"class_names": ["a", "b", "c"]})
    test = Representation(np.eye(2), labels=[0, 1], meta={"class_names": ["a", "c"]})
    assert aligned(train, test)[1].labels.tolist() == [0, 2]
    with pytest.raises(ValueError, match="class names in all splits, or class ids in all"):
        aligned(train, Representation(np.eye(2), labels=[0, 1]))


def test_one_hot_and_whole_floats_are_classes_and_fractions_are_real_values(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES, labels=np.eye(3)[LABELS])
    np.testing.assert_array_equal(load_features(tmp_path / "a.npz").labels, LABELS)
    np.savez(tmp_path / "b.npz", features=FEATURES, labels=LABELS.astype(float))
    np.testing.assert_array_equal(load_features(tmp_path / "b.npz").labels, LABELS)
    np.savez(tmp_path / "c.npz", features=FEATURES, labels=SITE)
    with pytest.warns(UserWarning, match="^assumed: labels 'labels' are real values"):
        found = load_features(tmp_path / "c.npz")
    np.testing.assert_array_equal(found.labels, SITE)


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ({"a": FEATURES, "b": FEATURES}, {}, "features must name one of the arrays of a.npz, 'a'"),
        ({"a": SITE}, {}, "a.npz must hold features (N, D); got 'a' (12,)"),
        ({"a": FEATURES}, {"features": "b"}, "features must be one of 'a' (12, 3); got 'b'"),
        ({"a": FEATURES}, {"labels": "b"}, "labels must be a file, or one of nothing; got 'b'"),
        ({"a": np.array([[1.0, np.nan]])}, {}, "features must be finite; got nan in dimension 1"),
        ({"a": FEATURES + 1j}, {}, "'a' must hold real numbers or text; got complex64"),
        ({"features": FEATURES, "labels": LABELS - 1}, {}, "labels must be >= 0; got -1"),
    ],
)
def test_what_is_not_plain_is_refused(arrays, options, sentence, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_features(tmp_path / "a.npz", **options)


@pytest.mark.parametrize("name", ["Split", "SPLIT"])
@pytest.mark.parametrize("form", [np.asarray, lambda a: a.astype("S"), lambda a: a[:, None]])
def test_a_column_of_splits_is_one_however_it_is_written(name, form, tmp_path):
    split = np.array(["train", "test"])[np.arange(len(FEATURES)) % 2]
    np.savez(tmp_path / "a.npz", features=FEATURES, labels=LABELS, **{name: form(split)})
    found = load_features(tmp_path / "a.npz", split="test")
    np.testing.assert_array_equal(found.features, FEATURES[1::2])
    assert found.factors == {}
    np.savez(tmp_path / "b.npz", features=FEATURES, labels=LABELS, split=np.arange(len(FEATURES)))
    with pytest.raises(ValueError, match="split must say train, validation or test for each row"):
        load_features(tmp_path / "b.npz")


def test_an_array_called_as_of_a_split_does_not_replace_features(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES, labels=LABELS, logits_val=FEATURES[:, :2])
    with pytest.warns(UserWarning, match="left out, as other arrays are .* 'logits_val'"):
        found = load_features(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.labels is not None
    np.savez(tmp_path / "b.npz", X=FEATURES, y=LABELS, X_test=FEATURES[:4], y_test=LABELS[:4])
    with pytest.raises(ValueError, match="features must all name their split, or none; got 'X' of"):
        load_features(tmp_path / "b.npz", split="test")
    parts = {"x_train": FEATURES, "x_test": FEATURES[:4]}
    np.savez(tmp_path / "c.npz", **parts, centres=FEATURES[:2], classes=np.array(["cat", "dog"]))
    assert load_features(tmp_path / "c.npz", split="test").labels is None
    np.savez(tmp_path / "c.npz", **parts, labels=LABELS)
    with pytest.warns(UserWarning, match="left out, as 'labels' must name its split, as other"):
        load_features(tmp_path / "c.npz", split="test")
    with pytest.warns(UserWarning, match="left out"):
        assert len(load_features(tmp_path / "c.npz", features="x_train")) == N
    np.savez(tmp_path / "f.npz", x_test=FEATURES, y_test=LABELS, y_train=LABELS[:3])
    for options in ({}, {"features": "x_test"}):
        found = load_features(tmp_path / "f.npz", **options)
        np.testing.assert_array_equal(found.labels, LABELS)
    np.savez(tmp_path / "d.npz", test_features=FEATURES, labels=LABELS, site=SITE)
    found = load_features(tmp_path / "d.npz", split="test")
    np.testing.assert_array_equal(found.labels, LABELS)
    assert (found.meta["split"], list(found.factors)) == ("test", ["site"])
    np.savez(tmp_path / "e.npz", backbone=FEATURES, logits_test=FEATURES[:, :2])
    with pytest.raises(ValueError, match=r"features must name one of the arrays of e.npz"):
        load_features(tmp_path / "e.npz")
    with pytest.warns(UserWarning, match="left out"):
        found = load_features(tmp_path / "e.npz", features="backbone")
    np.testing.assert_array_equal(found.features, FEATURES)


def test_labels_are_never_the_features(dimlab, tmp_path):
    n = len(FEATURES)
    one_hot = torch.eye(3)[torch.from_numpy(LABELS)]
    for ending in ("pt", "npz"):
        for tokens in (torch.zeros(n, 8, 4), torch.zeros(n, 4, 1, 1)):
            save(tmp_path / f"a.{ending}", embeddings=tokens, labels=one_hot)
            shape = tuple(tokens.shape)
            sentence = f"features must have shape (N, D); got 'embeddings' of shape {shape}"
            with pytest.raises(ValueError, match=re.escape(sentence)):
                load_features(tmp_path / f"a.{ending}")
            code, out, err = dimlab("decompose", f"a.{ending}")
            assert (code, out) == (1, "")
            assert sentence in err
    both = {"pooled": FEATURES, "hidden": np.zeros((n, 5, 4)), "labels": LABELS}
    np.savez(tmp_path / "p.npz", **both)
    with pytest.warns(UserWarning, match="left out"):
        np.testing.assert_array_equal(load_features(tmp_path / "p.npz").features, FEATURES)
    np.savez(tmp_path / "b.npz", labels=one_hot)
    with pytest.raises(
        ValueError, match=r"features must name one of the arrays of b.npz, 'labels'"
    ):
        load_features(tmp_path / "b.npz")
    assert load_features(tmp_path / "b.npz", features="labels").n_dimensions == 3
    whole = torch.from_numpy(FEATURES)
    labels = torch.from_numpy(LABELS)[:, None]
    for odd, kind in ((whole.to_sparse(), "sparse"), (whole.cfloat(), "complex64")):
        torch.save({"features": odd, "labels": labels}, tmp_path / "c.pt")
        with pytest.raises(ValueError, match=f"'features' must .*{kind}"):
            load_features(tmp_path / "c.pt")


def test_longer_floats_and_those_of_another_byte_order_are_kept(tmp_path):
    exact = 16_777_217.0 + np.arange(12).reshape(4, 3)
    for kind in (">f8", np.longdouble):
        np.savez(tmp_path / "a.npz", features=exact.astype(kind))
        found = load_features(tmp_path / "a.npz").features
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, exact)
    np.savez(tmp_path / "a.npz", features=exact.astype(">f4"))
    assert load_features(tmp_path / "a.npz").features.dtype == np.float32


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    np.savez(tmp_path / "a.npz", features=FEATURES, centres=np.ones(5))
    with pytest.warns(UserWarning, match=r"left out, as they do not fit 12 samples: 'centres' \(5"):
        found = load_features(tmp_path / "a.npz")
    assert found.factors == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.xls", "features must be a file of .safetensors, .npz"),
        ("none.npz", "features must be a file; got"),
        ("a.csv", "a.csv must be a readable table"),
        ("a.npy", "a.npy must be a complete .npy file"),
        ("a.pt", "a.pt must be a complete torch file"),
    ],
)
def test_files_that_cannot_be_read(name, sentence, tmp_path):
    if name != "none.npz":
        (tmp_path / name).write_bytes(b'a,b\n1,2,3\n"x')
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        load_features(tmp_path / name)


class Called:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("called",)


def test_python_objects_that_ask_for_code_are_refused(tmp_path, monkeypatch):
    """Text, numbers and arrays in an array of objects are read; nothing else of a pickle is."""
    monkeypatch.chdir(tmp_path)
    code = np.array([Called(), "bee", "ant"], dtype=object)
    np.save("a.npy", code, allow_pickle=True)
    np.savez("b.npz", features=np.eye(3), labels=code)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match=r"ask for posix\.mkdir.*Save text as array\.astype"):
            load_features(tmp_path / name)
    assert not (tmp_path / "called").exists()
    np.savez(
        "b.npz", features=np.eye(3), labels=np.array(["ant", "bee", "ant"], object).astype(str)
    )
    assert load_features(tmp_path / "b.npz").labels.tolist() == [0, 1, 0]
    records = np.zeros(3, dtype=[("a", "i4")])
    np.savez(tmp_path / "c.npz", features=np.eye(3), records=records)
    with pytest.raises(ValueError, match=r"got an array of records\. Save each of its fields"):
        load_features(tmp_path / "c.npz")
    torch.save({"features": range(3)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="runs no code from a file"):
        load_features(tmp_path / "a.pt")


def test_weights_are_no_features(tmp_path):
    weights = {"conv1.weight": np.ones((4, 4)), "fc.bias": np.ones(4)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save({name: torch.from_numpy(w) for name, w in weights.items()}, tmp_path / "w.pt")
    assert open_source(tmp_path / "w.safetensors").kind != "features"
    assert open_source(tmp_path / "w.pt").kind != "features"


def test_dimlab_s_own_file_is_read_as_it_was_written(tmp_path):
    own = Representation(FEATURES, labels=LABELS, factors={"site": SITE}, meta={"split": "test"})
    path = own.save(tmp_path / "own.safetensors")
    found = load_features(path, split="test")
    assert found.meta == own.meta
    assert FeatureFile.read(path).splits == ("test",)
    with pytest.raises(ValueError, match=r"split must be test for own.safetensors; got 'train'"):
        load_features(path, split="train")


def test_the_command_line_reads_them(dimlab, tmp_path):
    rng = np.random.default_rng(3)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 5)) + 3 * np.eye(2, 5)[labels]
    np.savez("one.npz", foo=features, bar=np.array(["cat", "dog"])[labels])
    code, out, err = dimlab("ablate", "one.npz", "--labels", "bar", "--reader", "ridge", "--json")
    assert code == 0, err
    assert "one.npz names no split: 100 of its 200 samples are train" in err
    summary = json.loads(out)
    assert summary["n_train"] == summary["n_test"] == 100
    assert summary["full_score"] > 0.9
    code, _, err = dimlab("ablate", "one.npz")
    assert (code, "or the name of an array there (bar)" in err) == (2, True)
    np.savez("two.npz", train_x=features[:100], train_y=labels[:100], test_x=features[100:],
             test_y=labels[100:])  # fmt: skip
    code, out, err = dimlab("ablate", "two.npz", "--reader", "ridge", "--json")
    assert (code, "names no split" in err) == (0, False), err
    assert json.loads(out)["n_train"] == 100
    pd.DataFrame(features).add_prefix("e_").to_csv("bare.csv", index=False)
    code, out, err = dimlab("report", "bare.csv", "--out", "r")  # no labels: what needs none
    assert code == 0, err
    assert (tmp_path / "r" / "redundancy.csv").is_file()
    assert json.loads((tmp_path / "r" / "ablation.json").read_text())["score"] == "neighbourhood"
    assert not (tmp_path / "r" / "harmful.csv").exists()


def test_a_test_split_is_not_cut_in_halves(dimlab):
    Representation(FEATURES, labels=LABELS, meta={"split": "test"}).save("test.safetensors")
    code, _, err = dimlab("ablate", "test.safetensors")
    assert (code, "train must name the train features, as test.safetensors holds none" in err) == (
        2,
        True,
    )
