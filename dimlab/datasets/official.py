"""Data sets that others published, and the digits that scikit-learn brings along."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.datasets import download
from dimlab.datasets.download import RemoteFile, folders_of
from dimlab.datasets.formats import read_idx, read_members, read_pickle
from dimlab.datasets.splits import official_part, part_of, resized
from dimlab.images import ImageSet
from dimlab.io.files import naming
from dimlab.refusals import Refusal


def digits(
    split: str, *, data_dir: str | os.PathLike[str] | None = None, image_size: int = 28
) -> ImageSet:
    """Handwritten digits: the 1,797 images that scikit-learn brings along, never downloaded.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        1,293, 145 or 359 images; there is no official test split.
    data_dir : path, optional
        Not used: there are no files.
    image_size : int, default=28
        Height and width in pixels; the originals have 8 and are resized bilinearly.

    Returns
    -------
    ImageSet
        One channel, grey levels 0..16 scaled to 0..255.

    Raises
    ------
    ValueError
        If the split is unknown or image_size < 1.

    References
    ----------
    Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI repository, 1998.

    Examples
    --------
    >>> digits("validation")
    ImageSet('digits', validation, 145 images of 1 x 28 x 28, 10 classes)
    >>> sum(len(digits(split)) for split in ("train", "validation", "test"))
    1797
    """
    official_part(split)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    names = tuple("0123456789")
    whole = ImageSet(images, bunch.target, name="digits", split=split, class_names=names)
    return resized(part_of(whole, split), image_size)


_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_FILES = {
    "train": (
        RemoteFile("train-images-idx3-ubyte.gz", _ZALANDO, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        RemoteFile("train-labels-idx1-ubyte.gz", _ZALANDO, "25c81989df183df01b3e8a0aad5dffbe"),
    ),
    "test": (
        RemoteFile("t10k-images-idx3-ubyte.gz", _ZALANDO, "bef4ecab320f06d8554ea6380940ec79"),
        RemoteFile("t10k-labels-idx1-ubyte.gz", _ZALANDO, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
}
_FASHION_SIZES = {"train": 60_000, "test": 10_000}
# MNIST's files have the same names, sizes and headers: md5 of the labels tells them apart
_FASHION_LABELS = {
    "train": "3236f6424fc25388b2834cb19942cf7e",
    "test": "8dea97a4e78c1bd1b5a6e8efbb870b6e",
}
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def fashion_mnist(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """Fashion-MNIST (Xiao et al. 2017): grey images of clothes, 28 px, 10 classes.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        54,000, 6,000 or 10,000 images.
    data_dir : path, optional
        Folder that holds the four IDX files, gzipped or not, or has them in ``fashion-mnist``. Next
        come Debian's package dataset-fashion-mnist, the cache (``DIMLAB_DATA``) and the download.
    image_size : int, optional
        Height and width in pixels; None leaves 28.

    Returns
    -------
    ImageSet
        One channel.

    Raises
    ------
    ValueError
        If the split is unknown, image_size < 1, or a file is damaged or of another data set.
    FileNotFoundError
        If data_dir is no folder, or the files are nowhere and cannot be downloaded.

    References
    ----------
    Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747, 2017.

    Examples
    --------
    >>> fashion_mnist("val")
    Traceback (most recent call last):
        ...
    dimlab.refusals.Refusal: split must be train, validation or test; got 'val'.
    """
    part = official_part(split)
    remotes, n_images = _FASHION_FILES[part], _FASHION_SIZES[part]
    cache = download.cache_folder() / "fashion-mnist"
    folders = [*folders_of(data_dir, "fashion-mnist"), _DEBIAN, cache]
    paths = download.find_files([remote.name for remote in remotes], folders)
    if paths is None:
        paths = [download.fetch(remote, cache, searched=folders) for remote in remotes]
    labels = read_idx(paths[1], (n_images,))
    if hashlib.md5(labels.tobytes()).hexdigest() != _FASHION_LABELS[part]:
        raise Refusal(
            f"{paths[1]} must hold the labels of Fashion-MNIST; got others (MNIST's files have the "
            "same names)."
        )
    images = read_idx(paths[0], (n_images, 28, 28))[:, None]
    whole = ImageSet(
        images,
        labels,
        name="fashion-mnist",
        split=split,
        folder=str(paths[0].parent),
        class_names=_FASHION_CLASSES,
    )
    return resized(part_of(whole, split, part), image_size)


@dataclass(frozen=True)
class _Cifar:
    name: str
    remote: RemoteFile
    inner: str  # folder in the archive
    batches: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    meta: str
    label: str  # key of the labels in a batch; "coarse_labels" may stand beside it


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_SIZES = {"train": 50_000, "test": 10_000}
_CIFAR10 = _Cifar(
    "cifar10",
    RemoteFile("cifar-10-python.tar.gz", _TORONTO, "c58f30108f718f92721af3b95e74349a"),
    "cifar-10-batches-py",
    {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
    _CIFAR_SIZES,
    "batches.meta",
    "label",
)
_CIFAR100 = _Cifar(
    "cifar100",
    RemoteFile("cifar-100-python.tar.gz", _TORONTO, "eb9058c3a382ffc7106e4002c42a8d85"),
    "cifar-100-python",
    {"train": ("train",), "test": ("test",)},
    _CIFAR_SIZES,
    "meta",
    "fine_label",
)


def cifar10(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009): RGB images of 32 px, 10 classes.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        45,000, 5,000 or 10,000 images.
    data_dir : path, optional
        Folder that holds ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``, or has them in
        ``cifar10``. Next come the cache (``DIMLAB_DATA``) and the download.
    image_size : int, optional
        Height and width in pixels; None leaves 32.

    Returns
    -------
    ImageSet
        Three channels. The pickles are read without running anything they ask for.

    Raises
    ------
    ValueError
        If the split is unknown, image_size < 1, or a file is damaged or not what it should be.
    FileNotFoundError
        If data_dir is no folder, or the files are nowhere and cannot be downloaded.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Examples
    --------
    >>> cifar10("test", data_dir="no such folder")  # nothing is downloaded in its place
    Traceback (most recent call last):
        ...
    FileNotFoundError: data_dir must be an existing folder; got '...no such folder'.
    """
    return resized(_cifar(_CIFAR10, split, data_dir), image_size)


def cifar100(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """CIFAR-100 (Krizhevsky 2009): RGB images of 32 px, 100 classes in 20 groups.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        45,000, 5,000 or 10,000 images.
    data_dir : path, optional
        Folder that holds ``cifar-100-python`` or ``cifar-100-python.tar.gz``, or has them in
        ``cifar100``. Next come the cache (``DIMLAB_DATA``) and the download.
    image_size : int, optional
        Height and width in pixels; None leaves 32.

    Returns
    -------
    ImageSet
        Three channels; the labels are the fine ones, the groups are the factor ``coarse_label``.

    Raises
    ------
    ValueError
        If the split is unknown, image_size < 1, or a file is damaged or not what it should be.
    FileNotFoundError
        If data_dir is no folder, or the files are nowhere and cannot be downloaded.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Examples
    --------
    >>> cifar100("test", data_dir="no such folder")  # nothing is downloaded in its place
    Traceback (most recent call last):
        ...
    FileNotFoundError: data_dir must be an existing folder; got '...no such folder'.
    """
    return resized(_cifar(_CIFAR100, split, data_dir), image_size)


def _cifar(kind: _Cifar, split: str, data_dir: str | os.PathLike[str] | None) -> ImageSet:
    part = official_part(split)
    names = [f"{kind.inner}/{name}" for name in (*kind.batches[part], kind.meta)]
    contents, folder = _archived(kind.name, kind.remote, names, data_dir)
    *batches, meta = (read_pickle(name, contents[name]) for name in names)
    class_names = meta.get(f"{kind.label}_names", ())
    if not isinstance(class_names, list) or not all(isinstance(each, str) for each in class_names):
        class_names = ()
    keys = [key for key in (f"{kind.label}s", "coarse_labels") if key in batches[0]]
    if not class_names or keys[:1] != [f"{kind.label}s"]:
        raise Refusal(
            f"{kind.inner} must hold {kind.label}s and {kind.label}_names; got none. "
            "Download it again."
        )
    pixels = [_cifar_pixels(name, batch, keys) for name, batch in zip(names, batches, strict=False)]
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    if len(images) != kind.sizes[part]:
        raise Refusal(
            f"{kind.inner} must hold {kind.sizes[part]} {part} images; got {len(images)}."
        )
    labels = {key: np.concatenate([batch[key] for batch in batches]) for key in keys}
    with naming(folder / kind.inner):
        whole = ImageSet(
            images,
            labels[keys[0]],
            factors={key.removesuffix("s"): labels[key] for key in keys[1:]},
            name=kind.name,
            split=split,
            folder=str(folder),
            class_names=class_names,
        )
    return part_of(whole, split, part)


def _cifar_pixels(name: str, batch: Mapping[str, Any], keys: Sequence[str]) -> np.ndarray:
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
        got = getattr(pixels, "shape", type(pixels).__name__)
        raise Refusal(f"{name} must hold data of shape (n, 3072); got {got}.")
    for key in keys:
        labels = batch.get(key, ())
        # not as an array: lists within lists may stand for more numbers than there is room for
        plain = isinstance(labels, list) and all(type(each) is int for each in labels)
        if not plain or len(labels) != len(pixels) or not 0 <= min(labels) <= max(labels) < 100:
            got = f"{len(labels)}" if plain and len(labels) != len(pixels) else "other values"
            raise Refusal(f"{name} must hold {len(pixels)} {key} (class ids); got {got}.")
    return pixels


_STANFORD = "http://ai.stanford.edu/~acoates/stl10/"
_STL10 = RemoteFile("stl10_binary.tar.gz", _STANFORD, "91f7769df0f17e558f3565bffb0c7dfb")
_STL10_SIZES = {"train": 5_000, "test": 8_000}


def stl10(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """STL-10 (Coates et al. 2011): RGB images of 96 px, 10 classes; the labelled part.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        4,500, 500 or 8,000 images.
    data_dir : path, optional
        Folder that holds ``stl10_binary`` or ``stl10_binary.tar.gz`` (2.6 GB: extracted, it is read
        much faster), or has them in ``stl10``. Next come the cache (``DIMLAB_DATA``), the download.
    image_size : int, optional
        Height and width in pixels; None leaves 96.

    Returns
    -------
    ImageSet
        Three channels; labels 0..9 for the files' 1..10.

    Raises
    ------
    ValueError
        If the split is unknown, image_size < 1, or a file is damaged or not what it should be.
    FileNotFoundError
        If data_dir is no folder, or the files are nowhere and cannot be downloaded.

    References
    ----------
    Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning",
    AISTATS 2011.

    Examples
    --------
    >>> stl10("unlabeled")  # only the labelled part
    Traceback (most recent call last):
        ...
    dimlab.refusals.Refusal: split must be train, validation or test; got 'unlabeled'.
    """
    part = official_part(split)
    files = (f"{part}_X.bin", f"{part}_y.bin", "class_names.txt")
    names = [f"stl10_binary/{name}" for name in files]
    contents, folder = _archived("stl10", _STL10, names, data_dir)
    pixels, labels = (np.frombuffer(contents[name], np.uint8) for name in names[:2])
    sizes = (_STL10_SIZES[part] * 3 * 96 * 96, _STL10_SIZES[part])
    for name, size in zip(names, sizes, strict=False):
        n_bytes = len(contents[name])
        if n_bytes != size:
            raise Refusal(f"{name} must hold {size} bytes; got {n_bytes}. Download it again.")
    if labels.min() < 1 or labels.max() > 10:
        raise Refusal(f"{names[1]} must hold labels 1..10; got {labels.min()}..{labels.max()}.")
    with naming(folder / "stl10_binary"):
        whole = ImageSet(
            pixels.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2),  # the files go down the columns
            labels.astype(np.int64) - 1,
            name="stl10",
            split=split,
            folder=str(folder),
            class_names=contents[names[2]].decode("utf-8", "replace").split(),
        )
    return resized(part_of(whole, split, part), image_size)


def _archived(
    name: str, remote: RemoteFile, members: Sequence[str], data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, bytes], Path]:
    """Return contents of an extracted folder or an archive, and the folder that it is in."""
    inner = members[0].split("/")[0]
    cache = download.cache_folder() / name
    folders = [*folders_of(data_dir, name, inner), cache]
    for folder in folders:
        if (folder / inner).is_dir():
            return read_members(folder, members), folder
        archive = folder / remote.name
        if archive.is_file():
            download.check_md5(archive, remote.md5)
            return read_members(archive, members), folder
    return read_members(download.fetch(remote, cache, searched=folders), members), cache
