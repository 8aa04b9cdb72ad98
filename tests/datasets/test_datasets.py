"""Data sets are read exactly, split the same way every time, and refused where damaged."""

import gzip
import hashlib
import io
import itertools
import os
import pickle
import random
import subprocess
import sys
import tarfile
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits  # early: the first import draws from random

from dimlab import datasets
from dimlab.datasets import download, load_images, official, own
from dimlab.datasets.splits import rows_of
from dimlab.images import SPLITS, ImageSet


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty cache, and a mirror that has nothing."""
    monkeypatch.setenv("DIMLAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("DIMLAB_MIRROR", (tmp_path / "no-mirror").as_uri())


def image_set(n_images=6, **changes):
    images = np.arange(n_images * 12, dtype=np.uint8).reshape(n_images, 3, 2, 2)
    labels = np.arange(n_images) % 3
    return ImageSet(images, labels, **{"name": "planted", **changes})


# ImageSet


def test_an_image_set_keeps_what_it_is_given():
    factors = {"hue": np.linspace(0, 1, 6), "site": np.array(list("abcabc"))}
    images = image_set(factors=factors, periods={"hue": 1}, split="test", class_names=list("xyz"))
    assert (len(images), images.n_classes, images.name, images.folder) == (6, 3, "planted", "")
    assert (images.class_names, images.periods) == (("x", "y", "z"), {"hue": 1.0})
    assert images.labels.dtype == np.int64
    assert repr(images) == "ImageSet('planted', test, 6 images of 3 x 2 x 2, 3 classes)"
    assert image_set(factors=None, periods=None).factors == {}


def test_n_classes_counts_names_where_there_are_any():
    assert image_set().take([0]).n_classes == 1
    assert image_set(class_names=list("xyz")).take([0]).n_classes == 3


@pytest.mark.parametrize("rows", [[4, 1, 1], np.array([0, 1, 0, 0, 1, 0], bool)])
def test_take_takes_everything_that_belongs_to_an_image(rows):
    images = image_set(factors={"hue": np.arange(6.0)}, folder="/data", split="train")
    taken = images.take(rows)
    for name in ("images", "labels"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(images, name)[rows])
    np.testing.assert_array_equal(taken.factors["hue"], np.arange(6.0)[rows])
    assert (taken.folder, taken.split, taken.name) == ("/data", "train", "planted")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must be a list of at least one index"),
        ([0.5], "got float64 of shape"),
        (np.ones(5, bool), r"a mask of shape \(6,\); got bool of shape \(5,\)"),
        ([0, 6], r"rows must lie in \[0, 6\); got 0..6"),
        ([-1], r"rows must lie in \[0, 6\); got -1..-1"),
    ],
)
def test_take_refuses_rows_that_are_not_there(rows, message):
    with pytest.raises(ValueError, match=message):
        image_set().take(rows)


def test_the_hash_is_that_of_the_labels_and_nothing_else():
    images = image_set()
    by_hand = b"".join(int(n).to_bytes(8, "little") for n in (6, 0, 1, 2, 0, 1, 2))
    assert images.labels_hash == hashlib.sha256(by_hand).hexdigest()
    assert replace(images, images=255 - images.images).labels_hash == images.labels_hash
    assert replace(images, labels=np.int32([0, 1, 2, 0, 1, 2])).labels_hash == images.labels_hash
    assert replace(images, labels=images.labels[::-1]).labels_hash != images.labels_hash
    assert images.take(range(5)).labels_hash != images.labels_hash


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((6, 3, 2, 2))}, TypeError, "images must be uint8; got float64. Scale"),
        ({"images": np.zeros((6, 2, 2), np.uint8)}, ValueError, r"\(N, C, H, W\).*got \(6, 2, 2\)"),
        ({"images": np.zeros((6, 2, 2, 2), np.uint8)}, ValueError, r"1 or 3; got \(6, 2, 2, 2\)"),
        ({"images": np.zeros((0, 3, 2, 2), np.uint8)}, ValueError, r"N >= 1.*got \(0, 3, 2, 2\)"),
        ({"labels": np.zeros(5, int)}, ValueError, r"shape \(6,\) to match images; got \(5,\)\."),
        ({"labels": np.zeros(6)}, TypeError, "labels must be integers .*; got float64"),
        ({"labels": np.zeros(6, bool)}, TypeError, "labels must be integers .*; got bool"),
        ({"labels": np.arange(6) - 1}, ValueError, "labels must be >= 0; got -1"),
        ({"factors": {"hue": np.zeros(5)}}, ValueError, r"factors\['hue'\] must .* got \(5,\)"),
        ({"factors": {"hue": [None] * 6}}, TypeError, r"factors\['hue'\] must be .* got object"),
        ({"factors": {"hue": [0, 1, np.nan, 0, 0, 0]}}, ValueError, "finite; got nan in row 2"),
        ({"factors": {"hue": [0, 1, 0, 0, 0, np.inf]}}, ValueError, "finite; got inf in row 5"),
        ({"periods": {"hue": 1.0}}, ValueError, "must name continuous factors; got 'hue'"),
        ({"factors": {"a": range(6)}, "periods": {"a": 1}}, ValueError, "continuous .* got 'a'"),
        ({"factors": {"a": np.ones(6)}, "periods": {"a": 0}}, ValueError, r"\['a'\] must be > 0"),
        ({"class_names": ["x", "y"]}, ValueError, "class_names must name 3 classes .*; got 2"),
        ({"split": "val"}, ValueError, "split must be train, validation, test or ''; got 'val'"),
    ],
)
def test_an_image_set_refuses_what_does_not_fit(changes, error, message):
    with pytest.raises(error, match=message):
        replace(image_set(), **changes)


# names


def test_the_list_of_data_sets_is_the_functions():
    for name, function in zip(datasets.NAMES, datasets.__all__, strict=True):
        assert callable(getattr(datasets, function))
        assert name == function.replace("_", "-")


@pytest.mark.parametrize("name", ["image-folder", "image_folder"])
def test_a_name_may_have_hyphens_or_underscores(name):
    with pytest.raises(ValueError, match="image-folder needs data_dir"):
        load_images(name, "train")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cifar-10", "Did you mean cifar10"), ("imagenet", "got 'imagenet'"), ("ImageSet", "got")],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(ValueError, match=rf"one of cifar10, .*fashion-mnist, .*stl10; .*{hint}"):
        load_images(name, "train")


@pytest.mark.parametrize("name", datasets.NAMES)
def test_an_unknown_split_is_refused(name):
    with pytest.raises(ValueError, match="split must be train, validation or test; got 'val'"):
        load_images(name, "val")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "stl10", "image-folder"])
def test_a_folder_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_dir must be an existing folder; .*absent"):
        load_images(name, "train", data_dir=tmp_path / "absent")


def test_importing_costs_no_heavy_library():
    heavy = {"torch", "pandas", "scipy", "sklearn", "matplotlib", "pooch", "PIL", "rich"}
    code = f"import sys, dimlab.datasets; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# splits


def splits_of(function, **options):
    return {split: function(split, **options) for split in SPLITS}


def reference_split(labels, fraction, seed):
    """The written rule, one row at a time."""
    keys = np.random.PCG64(seed).random_raw(len(labels))
    held = []
    for label in set(labels):
        drawn = sorted((keys[row], row) for row in range(len(labels)) if labels[row] == label)
        n_rows = int(np.floor(fraction * len(drawn) + 0.5))
        if len(drawn) > 1:
            held += [row for _, row in drawn[: max(n_rows, 1)]]
    return sorted(held)


@pytest.mark.filterwarnings("ignore:.*classes with a single one")
@pytest.mark.parametrize("seed", range(5))
def test_the_split_is_the_written_rule(seed):
    labels = np.random.default_rng(seed).integers(0, 7, 200)
    labels[0] = 9  # a class of one image is never held out
    test = reference_split(labels, 0.2, seed=1)
    rest = np.setdiff1d(np.arange(200), test)
    validation = rest[reference_split(labels[rest], 0.1, seed=0)]
    np.testing.assert_array_equal(rows_of(labels, "test"), test)
    np.testing.assert_array_equal(rows_of(labels, "validation"), validation)
    np.testing.assert_array_equal(rows_of(labels, "train"), np.setdiff1d(rest, validation))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_it_is_said_that_a_split_lacks_the_classes_with_one_image(split):
    labels = np.append(np.arange(40) % 4, [4, 5])
    with pytest.warns(UserWarning, match=rf"^{split} has no image of .* \(2\): they stay in train"):
        rows = rows_of(labels, split)
    assert set(labels[rows]) == {0, 1, 2, 3}
    assert {4, 5} < set(labels[rows_of(labels, "train")])


def test_the_split_does_not_move_with_the_global_generator():
    state = np.random.get_state()  # noqa: NPY002 - the state that must not matter
    drawn = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        drawn.append(rows_of(np.arange(100) % 4, "test"))
    np.random.set_state(state)  # noqa: NPY002
    np.testing.assert_array_equal(*drawn)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="validation must hold at least one image; got none of 3"):
        rows_of(np.arange(3), "validation")


# digits


def test_digits_are_scikit_learns_in_three_disjoint_stratified_parts():
    bunch = load_digits()
    splits = splits_of(datasets.digits, image_size=8)
    assert [len(images) for images in splits.values()] == [1293, 145, 359]
    images = np.concatenate([each.images for each in splits.values()])
    labels = np.concatenate([each.labels for each in splits.values()])
    rows = np.lexsort(np.column_stack([images.reshape(len(images), -1), labels]).T)
    expected = np.round(bunch.data * 255 / 16)
    order = np.lexsort(np.column_stack([expected, bunch.target]).T)
    np.testing.assert_array_equal(images.reshape(-1, 64)[rows], expected[order])
    np.testing.assert_array_equal(labels[rows], bunch.target[order])
    for each, share in zip(splits.values(), (0.72, 0.08, 0.2), strict=True):
        counts = np.bincount(each.labels)
        np.testing.assert_allclose(counts, share * np.bincount(bunch.target), atol=1)


def test_digits_are_resized_bilinearly():
    small, large = (datasets.digits("validation", image_size=size) for size in (8, 28))
    assert large.images.shape == (145, 1, 28, 28)
    place = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)  # centres of pixels, by hand
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(8)))
    expected = weights @ small.images[:, 0].astype(float) @ weights.T
    np.testing.assert_allclose(large.images[:, 0], expected, atol=1.01)  # rounded twice


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="image_size must be >= 1; got 0"):
        datasets.digits("test", image_size=0)


# Fashion-MNIST


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(monkeypatch, rng):
    """What small files hold, {part: (images, labels)}, and their contents {name: bytes}."""
    sizes, arrays, contents, md5s = {"train": 60, "test": 20}, {}, {}, {}
    records = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = rng.integers(0, 256, (sizes[part], 28, 28))
        labels = np.arange(sizes[part]) % 10
        md5s[part] = hashlib.md5(labels.astype(np.uint8).tobytes()).hexdigest()
        arrays[part] = images, labels
        names = f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"
        for name, array in zip(names, arrays[part], strict=True):
            contents[name] = gzip.compress(idx(array), mtime=0)
        hashes = [hashlib.md5(contents[name]).hexdigest() for name in names]
        records[part] = tuple(
            download.RemoteFile(name, "http://127.0.0.1:1/", md5)
            for name, md5 in zip(names, hashes, strict=True)
        )
    monkeypatch.setattr(official, "_FASHION_SIZES", sizes)
    monkeypatch.setattr(official, "_FASHION_LABELS", md5s)
    monkeypatch.setattr(official, "_FASHION_FILES", records)
    monkeypatch.setattr(official, "_DEBIAN", Path("/nowhere"))
    return arrays, contents


def write_files(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def assert_official_splits(splits, train, test):
    """Train and validation are disjoint, in order, and together train; test is test."""
    np.testing.assert_array_equal(splits["test"].images, test[0])
    np.testing.assert_array_equal(splits["test"].labels, test[1])
    rows = {image.tobytes(): row for row, image in enumerate(train[0])}
    found = {
        split: [rows[image.tobytes()] for image in splits[split].images]
        for split in ("train", "validation")
    }
    assert sorted(found["train"] + found["validation"]) == list(range(len(train[0])))
    for split in ("train", "validation"):
        assert found[split] == sorted(found[split])
        np.testing.assert_array_equal(splits[split].labels, train[1][found[split]])


@pytest.mark.parametrize("layout", ["plain", "gz", "sub-folder", "Debian", "cache", "mirror"])
def test_fashion_mnist_is_read_back_from_wherever_it_is(fashion, tmp_path, monkeypatch, layout):
    arrays, contents = fashion
    if layout == "plain":
        contents = {name.removesuffix(".gz"): gzip.decompress(c) for name, c in contents.items()}
    folders = {
        "sub-folder": tmp_path / "fashion-mnist",
        "cache": tmp_path / "cache" / "fashion-mnist",
        "mirror": tmp_path / "mirror",
    }
    folder = folders.get(layout, tmp_path / "data")
    write_files(folder, contents)
    monkeypatch.setenv("DIMLAB_MIRROR", (tmp_path / "mirror").as_uri())
    data_dir = None
    if layout == "Debian":
        monkeypatch.setattr(official, "_DEBIAN", folder)
    elif layout == "sub-folder":
        data_dir = tmp_path
    elif layout in ("plain", "gz"):
        data_dir = folder
    splits = splits_of(datasets.fashion_mnist, data_dir=data_dir)
    (train_images, train_labels), (test_images, test_labels) = arrays["train"], arrays["test"]
    train, test = (train_images[:, None], train_labels), (test_images[:, None], test_labels)
    assert_official_splits(splits, train=(train[0].astype(np.uint8), train[1]), test=test)
    for split, images in splits.items():
        assert images.folder == str(folders["cache"] if layout == "mirror" else folder)
        assert (images.name, images.split, images.n_classes) == ("fashion-mnist", split, 10)
        again = load_images(images.name, split, data_dir=images.folder)
        assert again.labels_hash == images.labels_hash


def test_what_is_missing_in_data_dir_is_looked_for_elsewhere(fashion, tmp_path, monkeypatch):
    write_files(tmp_path / "debian", fashion[1])
    monkeypatch.setattr(official, "_DEBIAN", tmp_path / "debian")
    (tmp_path / "data").mkdir()
    images = datasets.fashion_mnist("test", data_dir=tmp_path / "data", image_size=14)
    assert images.folder == str(tmp_path / "debian")
    assert images.images.shape == (20, 1, 14, 14)


def test_mnist_is_not_taken_for_fashion_mnist(fashion, tmp_path):
    contents = dict(fashion[1])
    contents["t10k-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(20)[::-1] % 10))
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match=r"must hold the labels of Fashion-MNIST; got others"):
        datasets.fashion_mnist("test", data_dir=tmp_path)


def test_a_count_of_labels_that_does_not_match_is_refused(fashion, tmp_path):
    contents = dict(fashion[1])
    contents["t10k-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.arange(19) % 10))
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match=r"t10k-labels.*must hold 20 labels; got 19 labels"):
        datasets.fashion_mnist("test", data_dir=tmp_path)


def test_what_is_nowhere_is_asked_for(fashion, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte.gz is not in .*/nowhere"):
        datasets.fashion_mnist("test", data_dir=tmp_path)
    assert os.listdir(tmp_path / "cache" / "fashion-mnist") == []


def fingerprint(image):
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


HAS_FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz").exists()


@pytest.mark.skipif(not HAS_FASHION, reason="the package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    splits = splits_of(datasets.fashion_mnist)
    for (split, images), size in zip(splits.items(), (54_000, 6_000, 10_000), strict=True):
        assert images.images.shape == (size, 1, 28, 28), split
        np.testing.assert_array_equal(np.bincount(images.labels), size // 10)
    # first labels of the official files, from the data set's own repository
    assert splits["test"].labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    with gzip.open(splits["train"].folder + "/train-images-idx3-ubyte.gz") as file:
        official = np.frombuffer(file.read(), np.uint8, offset=16).reshape(60_000, -1)
    parts = [*splits["train"].images, *splits["validation"].images]
    assert sorted(map(fingerprint, parts)) == sorted(map(fingerprint, official))


# CIFAR


def cifar(monkeypatch, rng, name):
    """Small CIFAR in the official layout: {member: bytes} and {part: (images, labels, coarse)}."""
    kind = {"cifar10": official._CIFAR10, "cifar100": official._CIFAR100}[name]
    sizes, arrays, contents = {"train": 100, "test": 20}, {}, {}
    for part, n_images in sizes.items():
        images = rng.integers(0, 256, (n_images, 3, 32, 32)).astype(np.uint8)
        labels, coarse = np.arange(n_images) % 10, np.arange(n_images) % 10 // 5
        arrays[part] = images, labels, coarse
        names = kind.batches[part]
        for batch, rows in zip(names, np.split(np.arange(n_images), len(names)), strict=True):
            content = {"data": images[rows].reshape(-1, 3072)}
            content[f"{kind.label}s"] = labels[rows].tolist()
            if name == "cifar100":
                content["coarse_labels"] = coarse[rows].tolist()
            contents[f"{kind.inner}/{batch}"] = pickle.dumps(content, 2)
    meta = {f"{kind.label}_names": [f"class {i}" for i in range(10)]}
    contents[f"{kind.inner}/{kind.meta}"] = pickle.dumps(meta, 2)
    patched = replace(kind, sizes=sizes, remote=replace(kind.remote, md5=md5_of_tar(contents)))
    monkeypatch.setattr(official, f"_{name.upper()}", patched)
    return patched, contents, arrays


def tar_of(contents):
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def md5_of_tar(contents):
    return hashlib.md5(tar_of(contents)).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["extracted", "inside", "sub-folder", "archive", "mirror"])
def test_cifar_is_read_back_from_wherever_it_is(tmp_path, monkeypatch, rng, name, layout):
    kind, contents, arrays = cifar(monkeypatch, rng, name)
    folder = {"sub-folder": tmp_path / "data" / name}.get(layout, tmp_path / "data")
    if layout in ("archive", "mirror"):
        contents = {kind.remote.name: tar_of(contents)}
    write_files(folder, contents)
    data_dir = {"mirror": None, "inside": folder / kind.inner}.get(layout, tmp_path / "data")
    if layout == "mirror":
        monkeypatch.setenv("DIMLAB_MIRROR", folder.as_uri())
        folder = tmp_path / "cache" / name
    splits = splits_of(getattr(datasets, name), data_dir=data_dir)
    assert_official_splits(splits, arrays["train"], arrays["test"])
    for split, images in splits.items():
        assert (images.name, images.folder, images.class_names[3]) == (name, str(folder), "class 3")
        again = load_images(name, split, data_dir=images.folder, image_size=16)
        assert again.images.shape[1:] == (3, 16, 16)
        assert again.labels_hash == images.labels_hash
        expected = {"coarse_label"} if name == "cifar100" else set()
        assert set(images.factors) == expected
        for coarse in images.factors.values():
            np.testing.assert_array_equal(coarse, images.labels // 5)
    written = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert written == sorted(Path(member).name for member in contents)  # nothing was extracted


def test_an_archive_with_another_md5_is_refused(tmp_path, monkeypatch, rng):
    kind, contents, _ = cifar(monkeypatch, rng, "cifar10")
    whole = tar_of(contents)
    write_files(tmp_path, {kind.remote.name: whole[: len(whole) // 2]})
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz must have md5 .*; got .* Delete"):
        datasets.cifar10("test", data_dir=tmp_path)


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_hostile_batch_is_not_run(tmp_path, monkeypatch, rng):
    _, contents, _ = cifar(monkeypatch, rng, "cifar10")
    batch = "cifar-10-batches-py/test_batch"
    contents[batch] = pickle.dumps({"data": Hostile(tmp_path / "canary"), "labels": [1]}, 2)
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match=r"test_batch must hold only numbers.*asks for .*mkdir"):
        datasets.cifar10("test", data_dir=tmp_path)
    assert not (tmp_path / "canary").exists()
    pickle.loads(contents[batch])  # control: it would have worked
    assert (tmp_path / "canary").exists()


PIXELS = np.zeros((20, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [1]}, r"test_batch must hold data of shape \(n, 3072\); got NoneType"),
        ({"data": [1], "labels": [1]}, "got list"),
        ({"data": PIXELS[:, 1:], "labels": [1]}, r"got \(20, 3071\)"),
        ({"data": PIXELS, "labels": [1] * 19}, r"hold 20 labels \(class ids\); got 19\."),
        ({"data": PIXELS, "labels": ["a"] * 20}, "must hold 20 labels .*; got other values"),
        ({"data": PIXELS}, "cifar-10-batches-py must hold labels and label_names; got none"),
        ({"data": PIXELS[:19], "labels": [1] * 19}, "must hold 20 test images; got 19"),
        ({"data": PIXELS, "labels": [10] * 20}, "class_names must name 11 classes .*; got 10"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(tmp_path, monkeypatch, rng, batch, message):
    _, contents, _ = cifar(monkeypatch, rng, "cifar10")
    contents["cifar-10-batches-py/test_batch"] = pickle.dumps(batch, 2)
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match=message):
        datasets.cifar10("test", data_dir=tmp_path)


def test_a_missing_batch_is_named(tmp_path, monkeypatch, rng):
    _, contents, _ = cifar(monkeypatch, rng, "cifar10")
    del contents["cifar-10-batches-py/data_batch_3"]
    write_files(tmp_path, contents)
    with pytest.raises(ValueError, match="must hold cifar-10-batches-py/data_batch_3; got no such"):
        datasets.cifar10("train", data_dir=tmp_path)


# STL-10


@pytest.fixture
def stl(monkeypatch, rng):
    sizes, arrays, contents = {"train": 40, "test": 10}, {}, {}
    for part, n_images in sizes.items():
        images = rng.integers(0, 256, (n_images, 3, 96, 96)).astype(np.uint8)
        labels = np.arange(n_images) % 10
        arrays[part] = images, labels
        down_the_columns = b"".join(plane.tobytes(order="F") for each in images for plane in each)
        contents[f"stl10_binary/{part}_X.bin"] = down_the_columns
        contents[f"stl10_binary/{part}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
    names = "airplane bird car cat deer dog horse monkey ship truck"
    contents["stl10_binary/class_names.txt"] = names.replace(" ", "\n").encode()
    monkeypatch.setattr(official, "_STL10_SIZES", sizes)
    monkeypatch.setattr(official, "_STL10", replace(official._STL10, md5=md5_of_tar(contents)))
    return arrays, contents


@pytest.mark.parametrize("layout", ["extracted", "archive"])
def test_stl10_is_read_back(stl, tmp_path, layout):
    arrays, contents = stl
    if layout == "archive":
        contents = {"stl10_binary.tar.gz": tar_of(contents)}
    write_files(tmp_path, contents)
    splits = splits_of(datasets.stl10, data_dir=tmp_path)
    assert_official_splits(splits, arrays["train"], arrays["test"])
    assert splits["test"].class_names[:2] == ("airplane", "bird")
    assert splits["test"].folder == str(tmp_path)
    assert datasets.stl10("test", data_dir=tmp_path, image_size=32).images.shape == (10, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_X.bin", bytes(100), "test_X.bin must hold 276480 bytes; got 100"),
        ("test_y.bin", bytes(9), "test_y.bin must hold 10 bytes; got 9"),
        ("test_y.bin", bytes(range(10)), r"test_y.bin must hold labels 1\.\.10; got 0\.\.9"),
    ],
)
def test_a_wrong_stl10_file_is_refused(stl, tmp_path, name, content, message):
    write_files(tmp_path, {**stl[1], f"stl10_binary/{name}": content})
    with pytest.raises(ValueError, match=message):
        datasets.stl10("test", data_dir=tmp_path)


# folders of images


@contextmanager
def terminal_as_stderr(monkeypatch):
    """What is written to stderr, which is a terminal: pytest's own capture replaces a fixture's."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    state = random.getstate()  # rich draws ids for its styles
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    yield sys.stderr
    random.setstate(state)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_classes(root, rng, n_images=10, classes=("ant", "bee")):
    """PNGs of 32 px; {class: [pixels, ...]} in the order of their names."""
    written = {}
    for class_name in classes:
        pixels = rng.integers(0, 256, (n_images, 32, 32, 3)).astype(np.uint8)
        written[class_name] = list(pixels)
        for number, image in enumerate(pixels):
            write_png(root / class_name / f"{number:02d}.png", image)
    return written


def chw(pixels):
    return np.stack(pixels).transpose(0, 3, 1, 2)


def test_a_folder_is_read_back_in_disjoint_stratified_parts(tmp_path, rng):
    written = write_classes(tmp_path, rng)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").touch()
    splits = splits_of(datasets.image_folder, data_dir=tmp_path)
    assert [len(images) for images in splits.values()] == [14, 2, 4]
    rows = {image.tobytes(): i for i, image in enumerate(chw(written["ant"] + written["bee"]))}
    found = [rows[image.tobytes()] for images in splits.values() for image in images.images]
    assert sorted(found) == list(range(20))
    for split, images in splits.items():
        assert images.labels.tolist() == [rows[image.tobytes()] // 10 for image in images.images]
        assert (images.class_names, images.folder) == (("ant", "bee"), str(tmp_path))
        again = load_images("image-folder", split, data_dir=images.folder)
        np.testing.assert_array_equal(again.images, images.images)


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_official_folders_are_the_splits(tmp_path, rng, validation):
    train = write_classes(tmp_path / "train", rng)
    test = write_classes(tmp_path / "test", rng, n_images=3, classes=["bee"])
    splits = {"test": datasets.image_folder("test", data_dir=tmp_path)}
    np.testing.assert_array_equal(splits["test"].images, chw(test["bee"]))
    assert splits["test"].labels.tolist() == [1, 1, 1]
    if validation:
        held = write_classes(tmp_path / validation, rng, n_images=2)
        images = datasets.image_folder("validation", data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(held["ant"] + held["bee"]))
        images = datasets.image_folder("train", data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(train["ant"] + train["bee"]))
    else:
        splits = splits_of(datasets.image_folder, data_dir=tmp_path)
        official = chw(train["ant"] + train["bee"]), np.repeat([0, 1], 10)
        assert_official_splits(splits, official, (chw(test["bee"]), [1, 1, 1]))


def test_folders_of_splits_may_be_called_as_in_tables_and_classes_as_anything(tmp_path, rng):
    train = write_classes(tmp_path / "Training", rng)
    test = write_classes(tmp_path / "testing", rng, n_images=3)
    held = write_classes(tmp_path / "eval", rng, n_images=2)
    for split, written in (("train", train), ("validation", held), ("test", test)):
        images = datasets.image_folder(split, data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(written["ant"] + written["bee"]))
    write_classes(tmp_path / "classes", rng, classes=["valid", "eval", "training"])
    images = datasets.image_folder("test", data_dir=tmp_path / "classes")
    assert images.class_names == ("eval", "training", "valid")


@pytest.mark.parametrize("is_wide", [True, False])
def test_an_image_is_cropped_to_its_centre_and_resized(tmp_path, rng, is_wide):
    pixels = rng.integers(0, 256, (40, 100, 3)).astype(np.uint8)
    upright = pixels if is_wide else pixels.swapaxes(0, 1)
    for name in "ab":
        for number in range(2):
            write_png(tmp_path / name / f"{number}.png", upright)
    images = datasets.image_folder("test", data_dir=tmp_path, image_size=16)
    assert images.images.shape == (2, 3, 16, 16)
    # by hand: 100 x 40 becomes 40 x 16, of which the middle 16 columns stay
    short = Image.fromarray(pixels).resize((40, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(short, float)[:, 12:28].transpose(2, 0, 1)
    for image in images.images:
        read = image if is_wide else image.swapaxes(1, 2)
        np.testing.assert_allclose(read, expected, atol=1.01)  # rounding between the two axes


def test_every_8_bit_mode_becomes_rgb_without_a_warning(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 7, np.uint8))
    palette = grey.convert("P")
    palette.info["transparency"] = bytes(4)
    for number, image in enumerate([grey, grey.convert("RGBA"), grey.convert("LA"), palette]):
        (tmp_path / "a").mkdir(exist_ok=True)
        image.save(tmp_path / "a" / f"{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in SPLITS:
            images = datasets.image_folder(split, data_dir=tmp_path, image_size=4)
            np.testing.assert_array_equal(images.images, 7)


def test_many_files_show_their_progress_on_a_terminal(tmp_path, monkeypatch):
    write_png(tmp_path / "a.png", np.zeros((2, 2, 3)))
    monkeypatch.setattr(own, "_read_image", lambda path, size: 0)
    for n_files, is_shown in ((2000, False), (2001, True)):
        with terminal_as_stderr(monkeypatch) as terminal:
            own._read_images([tmp_path / "a.png"] * n_files, 1)
        assert ("reading images" in terminal.getvalue()) is is_shown


def empty_class(root):
    (root / "cat").mkdir()


def no_class(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def truncated(root):
    path = root / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:1500])


def no_image(root):
    (root / "bee" / "03.png").write_bytes(b"<html>404</html>")


def deep(root):
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(root / "bee" / "03.png")


def folder_in_class(root):
    (root / "bee" / "more").mkdir()


def link_to_file(root):
    write_png(root.parent / "outside.png", np.zeros((32, 32, 3)))
    (root / "bee" / "99.png").symlink_to(root.parent / "outside.png")


def link_to_folder(root):
    write_png(root.parent / "outside" / "0.png", np.zeros((32, 32, 3)))
    (root / "cat").symlink_to(root.parent / "outside")


def link_to_split(root):
    (root.parent / "outside").mkdir()
    (root / "train").symlink_to(root.parent / "outside")
    (root / "test").mkdir()


def train_alone(root):
    (root / "train").mkdir()


def two_validations(root):
    for name in ("train", "test", "val", "validation"):
        (root / name).mkdir()


def unknown_class(root):
    for path in ("train/ant", "test/bee"):
        write_png(root / path / "0.png", np.zeros((32, 32, 3)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, "cat must hold at least one image; got none"),
        (no_class, "data must hold one folder a class; got none"),
        (truncated, r"bee/03.png must be a whole image .*truncated"),
        (no_image, r"bee/03.png must be a whole image of 8 bits a channel; .*cannot identify"),
        (deep, r"bee/03.png must be a whole image of 8 bits a channel; .*mode I;16"),
        (folder_in_class, "bee must hold images, not folders; got 'more'"),
        (link_to_file, r"bee/99.png must not lead out of .*data; got a link to .*outside.png"),
        (link_to_folder, "cat must not lead out of .*data; got a link to .*outside"),
        (link_to_split, "train must not lead out of .*data; got a link to .*outside"),
        (train_alone, "data must hold train and test, and one .*; got train"),
        (two_validations, "one of validation and val at most; got test, train, val, validation"),
        (unknown_class, "test must hold classes of train only; got 'bee'"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path, rng, damage, message):
    root = tmp_path / "data"
    write_classes(root, rng)
    splits_of(datasets.image_folder, data_dir=root)  # control: whole before
    damage(root)
    with pytest.raises(ValueError, match=message):
        splits_of(datasets.image_folder, data_dir=root)


def test_a_link_inside_the_folder_is_followed(tmp_path, rng):
    write_classes(tmp_path / "data", rng)
    (tmp_path / "data" / "cow").symlink_to(tmp_path / "data" / "ant")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in ("data", "link"):
        images = datasets.image_folder("train", data_dir=tmp_path / root)
        assert images.class_names == ("ant", "bee", "cow")


def test_a_folder_needs_a_size_of_one_or_more(tmp_path, rng):
    write_classes(tmp_path, rng, n_images=2)
    with pytest.raises(ValueError, match="image_size must be >= 1; got 0"):
        datasets.image_folder("train", data_dir=tmp_path, image_size=0)


# npz


def arrays_of(n_images=20, shape=(3, 4, 4), **more):
    images = np.arange(n_images * int(np.prod(shape))).reshape(n_images, *shape) % 256
    return {"images": images.astype(np.uint8), "labels": np.arange(n_images) % 2, **more}


def test_npz_is_read_back_with_its_factors(tmp_path):
    part = np.repeat(["train", "validation", "test"], [12, 5, 3])
    hue, site = np.linspace(0, 6, 20), np.array(["a", "b"] * 10)
    arrays = arrays_of(
        hue=hue, period_hue=2 * np.pi, site=site, split=part, class_names=["even", "odd"]
    )
    np.savez(tmp_path / "planted.npz", **arrays)
    for split in SPLITS:
        images = datasets.npz(split, data_dir=tmp_path / "planted.npz")
        np.testing.assert_array_equal(images.images, arrays["images"][part == split])
        np.testing.assert_array_equal(images.labels, arrays["labels"][part == split])
        np.testing.assert_array_equal(images.factors["hue"], hue[part == split])
        np.testing.assert_array_equal(images.factors["site"], site[part == split])
        assert set(images.factors) == {"hue", "site"}
        assert images.periods == {"hue": 2 * np.pi}
        assert (images.class_names, images.name) == (("even", "odd"), "npz")
        again = load_images("npz", split, data_dir=images.folder, image_size=2)
        assert again.labels_hash == images.labels_hash
        assert again.images.shape[1:] == (3, 2, 2)


@pytest.mark.parametrize("parts", [None, ["train", "test"]])
def test_npz_is_split_where_it_does_not_say_how(tmp_path, parts):
    more = {} if parts is None else {"split": np.repeat(parts, [15, 5])}
    np.savez(tmp_path / "a.npz", **arrays_of(row=np.arange(20), **more))
    splits = splits_of(datasets.npz, data_dir=tmp_path / "a.npz")
    rows = {split: images.factors["row"].tolist() for split, images in splits.items()}
    assert sorted(itertools.chain(*rows.values())) == list(range(20))
    if parts is not None:
        assert rows["test"] == [15, 16, 17, 18, 19]
    assert len(rows["validation"]) == 2


def test_npz_knows_the_words_for_splits_that_tables_know(tmp_path):
    words = np.repeat(["Training", "val", "TEST "], [12, 5, 3])
    np.savez(tmp_path / "a.npz", **arrays_of(row=np.arange(20), split=words))
    splits = splits_of(datasets.npz, data_dir=tmp_path / "a.npz")
    rows = [images.factors["row"].tolist() for images in splits.values()]
    assert rows == [[*range(12)], [*range(12, 17)], [17, 18, 19]]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 5), None), ((4, 5, 3), (2, 0, 1)), ((3, 4, 5), (0, 1, 2)), ((4, 5, 1), (2, 0, 1))],
)
def test_npz_images_may_have_channels_last_or_none(tmp_path, shape, axes):
    arrays = arrays_of(shape=shape, split=["test"] * 20)
    np.savez(tmp_path / "a.npz", **arrays)
    images = datasets.npz("test", data_dir=tmp_path / "a.npz").images
    for image, original in zip(images, arrays["images"], strict=True):
        expected = original[None] if axes is None else original.transpose(axes)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((20, 4, 4))}, TypeError, "images must be uint8; got float64. Scale"),
        ({"images": np.zeros((20, 3, 4, 3), np.uint8)}, ValueError, "can be read either way"),
        ({"images": np.zeros((20, 2, 4, 4), np.uint8)}, ValueError, "C 1 or 3"),
        ({"labels": np.zeros(19, int)}, ValueError, r"\(20,\) to match images; got \(19,\)"),
        ({"box": np.zeros((20, 4))}, ValueError, r"factors\['box'\] must have shape \(20,\)"),
        ({"period_hue": np.ones(2)}, ValueError, r"period_hue must be one number; .*\(2,\)"),
        ({"period_hue": 1.0}, ValueError, "must name continuous factors; got 'hue'"),
        ({"split": ["test"] * 19}, ValueError, r"split must have shape \(20,\) .* got \(19,\)"),
        ({"split": ["dev"] * 20}, ValueError, "must hold train, validation or test; got 'dev'"),
        ({"split": np.arange(20)}, ValueError, "split must say train, validation or test for each"),
        ({"split": ["train"] * 20}, ValueError, "test must hold at least one image; got none"),
        ({"hue": [None] * 20}, ValueError, r"a.npz must be a complete .npz file.*Python objects"),
    ],
)
def test_npz_arrays_that_do_not_fit_are_refused(tmp_path, changes, error, message):
    np.savez(tmp_path / "a.npz", **arrays_of(**{}) | changes)
    with pytest.raises(error, match=message):
        datasets.npz("test", data_dir=tmp_path / "a.npz")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(200))
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "b.npy", np.zeros(3))
    for content in (whole[:-200], b"", b"PK", (tmp_path / "b.npy").read_bytes()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npz must be a complete .npz file of numbers"):
            datasets.npz("test", data_dir=tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(whole)
    assert len(datasets.npz("test", data_dir=tmp_path / "a.npz")) == 40


def test_npz_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="npz needs data_dir"):
        load_images("npz", "test")
    with pytest.raises(FileNotFoundError, match=r"data_dir must be an .npz file; got .*absent"):
        datasets.npz("test", data_dir=tmp_path / "absent.npz")
    np.savez(tmp_path / "a.npz", images=arrays_of()["images"])
    with pytest.raises(ValueError, match="must hold images and labels; got no labels"):
        datasets.npz("test", data_dir=tmp_path / "a.npz")
