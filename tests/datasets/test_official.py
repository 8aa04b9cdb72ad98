"""Published data sets are read exactly from wherever they are, and refused where damaged."""

import gzip
import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits  # early: the first import draws from random

from dimlab import datasets
from dimlab.datasets import download, load_images, official
from tests.datasets.files import (
    assert_official_splits,
    idx,
    md5_of,
    splits_of,
    tar_of,
    write_files,
)


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


@pytest.mark.parametrize(
    ("labels", "message"),
    [  # those of MNIST, whose files have the same names; too few
        (np.arange(20)[::-1] % 10, r"must hold the labels of Fashion-MNIST; got others"),
        (np.arange(19) % 10, r"t10k-labels.*must hold 20 labels; got 19 labels"),
    ],
)
def test_other_labels_are_not_taken_for_those_of_fashion_mnist(fashion, tmp_path, labels, message):
    write_files(tmp_path, fashion[1] | {"t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels))})
    with pytest.raises(ValueError, match=message):
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
    patched = replace(kind, sizes=sizes, remote=replace(kind.remote, md5=md5_of(tar_of(contents))))
    monkeypatch.setattr(official, f"_{name.upper()}", patched)
    return patched, contents, arrays


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
    batch = pickle.dumps({"data": Hostile(tmp_path / "canary"), "labels": [1]}, 2)
    write_files(tmp_path, contents | {"cifar-10-batches-py/test_batch": batch})
    with pytest.raises(ValueError, match=r"test_batch must hold only numbers.*asks for .*mkdir"):
        datasets.cifar10("test", data_dir=tmp_path)
    assert not (tmp_path / "canary").exists()


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
    monkeypatch.setattr(official, "_STL10", replace(official._STL10, md5=md5_of(tar_of(contents))))
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
