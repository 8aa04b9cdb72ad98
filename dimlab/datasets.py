"""Data sets of images, each in the three splits train, validation and test.

``__all__`` is the list of data sets and nothing else: ``--data NAME`` looks there. To add one,
write a function that returns an `ImageSet` and add its name.

The test split is the official one. Validation is a stratified 10 % of the official train split,
always the same rows; "train" is the other 90 %. Where there is no official test split, a stratified
20 % is held out as one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab import archives
from dimlab.archives import RemoteFile
from dimlab.cuts import held_out, n_classes_kept
from dimlab.image_set import SPLITS, ImageSet
from dimlab.io.files import DAMAGED, naming, read_npz
from dimlab.names import split_of, splits_of_rows
from dimlab.planted import check_plants, coloured, patched, plant, textured  # noqa: F401
from dimlab.tables import factor_of

__all__ = ["cifar10", "cifar100", "digits", "fashion_mnist", "image_folder", "npz", "stl10"]

NAMES = tuple(name.replace("_", "-") for name in __all__)


def load_images(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """Images of a data set given by name.

    Parameters
    ----------
    name : str
        One of `NAMES`; underscores do as well as hyphens. With ``+hue:0.8`` behind it a background
        hue is planted, see `planted.check_plants`.
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path, optional
        Where the files are; an `ImageSet` remembers it as ``folder``. None or "": the usual places.
    image_size : int, optional
        Height and width in pixels. None: what is usual for the data set.

    Returns
    -------
    ImageSet
        Whatever the function of that name returns.

    Raises
    ------
    ValueError
        If there is no data set of that name, what is to be planted cannot be read, and whenever
        its function does.
    FileNotFoundError
        If its files are neither found nor downloaded.

    Examples
    --------
    >>> load_images("digits", "test", image_size=8)
    ImageSet('digits', test, 359 images of 1 x 8 x 8, 10 classes)
    """
    known, planted = check_name(name)
    size = {} if image_size is None else {"image_size": image_size}
    images: ImageSet = globals()[known.replace("-", "_")](split, data_dir=data_dir or None, **size)
    return plant(images, planted) if planted else images


def check_name(name: str) -> tuple[str, str]:
    """Part the name of a data set from what is to be planted in it.

    Parameters
    ----------
    name : str
        As in `load_images`.

    Returns
    -------
    tuple of str
        One of `NAMES`, and what `planted.check_plants` reads (empty: nothing).

    Raises
    ------
    ValueError
        If there is no data set of that name, or what is to be planted cannot be read.
    """
    known, plus, planted = name.partition("+")
    known = known.replace("_", "-")
    if known not in NAMES:
        close = difflib.get_close_matches(known, NAMES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"data must be one of {', '.join(NAMES)}; got {name!r}.{hint}")
    if plus:
        check_plants(planted)
    return known, planted


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
    _check_split(split)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    names = tuple("0123456789")
    whole = ImageSet(images, bunch.target, name="digits", split=split, class_names=names)
    return _resized(whole.take(_rows(whole.labels, split)), image_size)


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
    ValueError: split must be train, validation or test; got 'val'.
    """
    part = _check_split(split)
    remotes, n_images = _FASHION_FILES[part], _FASHION_SIZES[part]
    cache = archives.cache_folder() / "fashion-mnist"
    folders = [*_folders(data_dir, "fashion-mnist"), _DEBIAN, cache]
    paths = archives.find_files([remote.name for remote in remotes], folders)
    if paths is None:
        paths = [archives.fetch(remote, cache, searched=folders) for remote in remotes]
    labels = archives.read_idx(paths[1], (n_images,))
    if hashlib.md5(labels.tobytes()).hexdigest() != _FASHION_LABELS[part]:
        raise ValueError(
            f"{paths[1]} must hold the labels of Fashion-MNIST; got others (MNIST's files have the "
            "same names)."
        )
    images = archives.read_idx(paths[0], (n_images, 28, 28))[:, None]
    whole = ImageSet(
        images,
        labels,
        name="fashion-mnist",
        split=split,
        folder=str(paths[0].parent),
        class_names=_FASHION_CLASSES,
    )
    return _resized(whole.take(_rows(whole.labels, split, part)), image_size)


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
    return _resized(_cifar(_CIFAR10, split, data_dir), image_size)


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
    return _resized(_cifar(_CIFAR100, split, data_dir), image_size)


def _cifar(kind: _Cifar, split: str, data_dir: str | os.PathLike[str] | None) -> ImageSet:
    part = _check_split(split)
    names = [f"{kind.inner}/{name}" for name in (*kind.batches[part], kind.meta)]
    contents, folder = _archived(kind.name, kind.remote, names, data_dir)
    *batches, meta = (archives.read_pickle(name, contents[name]) for name in names)
    class_names = meta.get(f"{kind.label}_names", ())
    if not isinstance(class_names, list) or not all(isinstance(each, str) for each in class_names):
        class_names = ()
    keys = [key for key in (f"{kind.label}s", "coarse_labels") if key in batches[0]]
    if not class_names or keys[:1] != [f"{kind.label}s"]:
        raise ValueError(
            f"{kind.inner} must hold {kind.label}s and {kind.label}_names; got none. "
            "Download it again."
        )
    pixels = [_cifar_pixels(name, batch, keys) for name, batch in zip(names, batches, strict=False)]
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    if len(images) != kind.sizes[part]:
        raise ValueError(
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
    return whole.take(_rows(whole.labels, split, part))


def _cifar_pixels(name: str, batch: Mapping[str, Any], keys: Sequence[str]) -> np.ndarray:
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
        got = getattr(pixels, "shape", type(pixels).__name__)
        raise ValueError(f"{name} must hold data of shape (n, 3072); got {got}.")
    for key in keys:
        labels = batch.get(key, ())
        # not as an array: lists within lists may stand for more numbers than there is room for
        plain = isinstance(labels, list) and all(type(each) is int for each in labels)
        if not plain or len(labels) != len(pixels) or not 0 <= min(labels) <= max(labels) < 100:
            got = f"{len(labels)}" if plain and len(labels) != len(pixels) else "other values"
            raise ValueError(f"{name} must hold {len(pixels)} {key} (class ids); got {got}.")
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
    ValueError: split must be train, validation or test; got 'unlabeled'.
    """
    part = _check_split(split)
    files = (f"{part}_X.bin", f"{part}_y.bin", "class_names.txt")
    names = [f"stl10_binary/{name}" for name in files]
    contents, folder = _archived("stl10", _STL10, names, data_dir)
    pixels, labels = (np.frombuffer(contents[name], np.uint8) for name in names[:2])
    sizes = (_STL10_SIZES[part] * 3 * 96 * 96, _STL10_SIZES[part])
    for name, size in zip(names, sizes, strict=False):
        n_bytes = len(contents[name])
        if n_bytes != size:
            raise ValueError(f"{name} must hold {size} bytes; got {n_bytes}. Download it again.")
    if labels.min() < 1 or labels.max() > 10:
        raise ValueError(f"{names[1]} must hold labels 1..10; got {labels.min()}..{labels.max()}.")
    with naming(folder / "stl10_binary"):
        whole = ImageSet(
            pixels.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2),  # the files go down the columns
            labels.astype(np.int64) - 1,
            name="stl10",
            split=split,
            folder=str(folder),
            class_names=contents[names[2]].decode("utf-8", "replace").split(),
        )
    return _resized(whole.take(_rows(whole.labels, split, part)), image_size)


_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# whatever a file is called: Pillow would run Ghostscript for one that begins as PostScript does
_PILLOW = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def image_folder(
    split: str, *, data_dir: str | os.PathLike[str] | None, image_size: int = 32
) -> ImageSet:
    """Images of your own, one sub-folder a class.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        Holds the class folders; or the folders train and test, and perhaps validation (or val, or
        another word for them that `split_of` knows), each with class folders. Names that begin with
        a dot and files that are no images do not count.
    image_size : int, default=32
        Height and width in pixels: resized on the short side (bilinearly), centre cropped.

    Returns
    -------
    ImageSet
        Three channels; classes and files in the order of their names. The factor ``file`` holds
        each file's path within data_dir.

    Raises
    ------
    ValueError
        If the split is unknown or empty, image_size < 1, data_dir is missing, a folder holds no
        class or a class no image, an image cannot be read, or a link leads out of data_dir.
    FileNotFoundError
        If data_dir is no folder.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 4), "red").save(Path(folder) / name)
    ...     images = image_folder("test", data_dir=folder, image_size=4)
    >>> images, images.class_names, images.images[0, :, 0, 0].tolist()
    (ImageSet('image-folder', test, 2 images of 3 x 4 x 4, 2 classes), ('cat', 'dog'), [255, 0, 0])
    """
    _check_split(split)
    if data_dir is None:
        raise ValueError("image-folder needs data_dir: pass the folder of the class folders.")
    _check_size(image_size)
    root = _folders(data_dir, "")[0]
    parts = _folder_parts(root)
    class_names = _sub_folders(parts.get("train", root), root)
    if not class_names:
        raise ValueError(f"{parts.get('train', root)} must hold one folder a class; got none.")
    paths: list[Path] = []
    labels: list[int] = []
    part_of: list[str] = []
    for part, folder in (parts or {"": root}).items():
        for path in _image_paths(folder, class_names, root):
            paths.append(path)
            labels.append(class_names.index(path.parent.name))
            part_of.append(part)
    rows = _rows(np.array(labels), split, np.array(part_of) if parts else None)
    return ImageSet(
        _read_images([paths[row] for row in rows], image_size),
        np.array(labels)[rows],
        factors={"file": np.array([paths[row].relative_to(root).as_posix() for row in rows])},
        name="image-folder",
        split=split,
        folder=str(root),
        class_names=class_names,
    )


def _folder_parts(root: Path) -> dict[str, Path]:
    named = [path for path in sorted(root.iterdir()) if path.is_dir()]
    named = [path for path in named if split_of(path.name) in SPLITS]
    parts = [split_of(path.name) for path in named]
    plain = any(path.name in (*SPLITS, "val") for path in named)  # others may be classes
    complete = {"train", "test"} <= set(parts)
    if (plain and not complete) or (complete and len(set(parts)) < len(parts)):
        raise ValueError(
            f"{root} must hold train and test, and one of validation and val at most; "
            f"got {', '.join(path.name for path in named)}."
        )
    found = dict(zip(parts, named, strict=True)) if complete else {}
    return {part: found[part] for part in ("train", "test", "validation") if part in found}


def _sub_folders(folder: Path, root: Path) -> list[str]:
    _refuse_way_out(folder, root)
    paths = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(path.name for path in paths)


def _image_paths(folder: Path, class_names: Sequence[str], root: Path) -> list[Path]:
    paths = []
    for class_name in _sub_folders(folder, root):
        if class_name not in class_names:
            raise ValueError(f"{folder} must hold classes of train only; got {class_name!r}.")
        inside = _sub_folders(folder / class_name, root)
        if inside:
            raise ValueError(
                f"{folder / class_name} must hold images, not folders; got {inside[0]!r}."
            )
        files = [path for path in (folder / class_name).iterdir() if not path.name.startswith(".")]
        found = sorted(path for path in files if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise ValueError(f"{folder / class_name} must hold at least one image; got none.")
        for path in found:
            _refuse_way_out(path, root)
        paths += found
    return paths


def _refuse_way_out(path: Path, root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path} must not lead out of {root}; got a link to {path.resolve()}.")


def _read_images(paths: Sequence[Path], size: int) -> np.ndarray:
    from PIL import Image

    images = np.empty((len(paths), 3, size, size), np.uint8)
    many = len(paths) > 2000
    quiet = nullcontext(lambda n_steps: None)
    bar = archives.progress("reading images", len(paths)) if many else quiet
    with bar as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about metadata and palettes
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for row, path in enumerate(paths):
            images[row] = _read_image(path, size)
            advance(1)
    return images


def _read_image(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=_PILLOW) as image:
            if image.mode[0] in "IF":  # conversion to RGB would cut off everything above 255
                raise ValueError(f"mode {image.mode}")
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
            return np.asarray(square).transpose(2, 0, 1)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} must be a whole image of 8 bits a channel; got a file that cannot be read "
            f"as one ({error})."
        ) from error


def npz(
    split: str, *, data_dir: str | os.PathLike[str] | None, image_size: int | None = None
) -> ImageSet:
    """Images of your own in one ``.npz`` file, with any factors.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        The file. It holds ``images`` (N, H, W), (N, H, W, C) or (N, C, H, W) uint8; ``labels``
        (N,); perhaps ``split`` (N,) of "train", "validation", "test", and ``class_names`` (K,).
        Every other array, of shape (N,), is a factor; a scalar ``period_hue``: ``hue`` wraps.
    image_size : int, optional
        Height and width in pixels; None leaves what is there.

    Returns
    -------
    ImageSet
        With the factors.

    Raises
    ------
    TypeError
        If the images are not uint8, the labels not integers, or a factor of another type.
    ValueError
        If the split is unknown or empty, image_size < 1, data_dir is missing, the file is damaged
        or needs pickle, or an array is missing or of the wrong shape.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile
    >>> arrays = {"images": np.zeros((3, 8, 8), np.uint8), "labels": np.array([0, 1, 1])}
    >>> arrays |= {"split": np.array(["train", "test", "test"]), "hue": np.array([0.1, 0.2, 0.3])}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder) / "own.npz", **arrays, period_hue=1.0)
    ...     images = npz("test", data_dir=Path(folder) / "own.npz")
    >>> images.images.shape, images.factors["hue"].tolist(), images.periods
    ((2, 1, 8, 8), [0.2, 0.3], {'hue': 1.0})
    """
    _check_split(split)
    if data_dir is None:
        raise ValueError("npz needs data_dir: pass an .npz file with images and labels.")
    path = Path(data_dir).expanduser().absolute()
    arrays = _npz_arrays(path)
    with naming(path):
        return _resized(_npz_split(arrays, split, str(path)), image_size)


def _npz_split(arrays: dict[str, np.ndarray], split: str, folder: str) -> ImageSet:
    parts = arrays.pop("split", None)
    class_names = arrays.pop("class_names", np.array([])).ravel().tolist()
    periods = {name: arrays.pop(name) for name in list(arrays) if name.startswith("period_")}
    scalars = {name.removeprefix("period_"): period for name, period in periods.items()}
    for name, period in scalars.items():
        if period.shape != () or period.dtype.kind not in "fiu":
            raise ValueError(f"period_{name} must be one number; got shape {period.shape}.")
    whole = ImageSet(
        _channels_first(arrays.pop("images")),
        arrays.pop("labels"),
        factors={name: factor_of(each, name) for name, each in arrays.items()},
        periods={name: float(period) for name, period in scalars.items()},
        name="npz",
        split=split,
        folder=folder,
        class_names=class_names,
    )
    if parts is not None:
        parts = _checked_parts(parts, len(whole))
    return whole.take(_rows(whole.labels, split, parts))


def _checked_parts(parts: np.ndarray, n_images: int) -> np.ndarray:
    if parts.shape != (n_images,):
        raise ValueError(f"split must have shape ({n_images},) to match images; got {parts.shape}.")
    parts = splits_of_rows(parts, "split")
    unknown = [part for part in np.unique(parts).tolist() if part not in SPLITS]
    if unknown:
        raise ValueError(f"split must hold train, validation or test; got {unknown[0]!r}.")
    return parts


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"data_dir must be an .npz file; got {str(path)!r}, which is none.")
    arrays = read_npz(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise ValueError(f"{path} must hold images and labels; got no {' and no '.join(missing)}.")
    return arrays


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        if images.shape[1] in (1, 3):
            raise ValueError(
                "images must have their channels in one place, (N, H, W, C) or (N, C, H, W); "
                f"got {images.shape}, which can be read either way."
            )
        return images.transpose(0, 3, 1, 2)
    return images


def _check_split(split: str) -> str:
    """Official part that the split is in."""
    if split not in SPLITS:
        raise ValueError(f"split must be train, validation or test; got {split!r}.")
    return "test" if split == "test" else "train"


def _rows(labels: np.ndarray, split: str, parts: np.ndarray | str | None = None) -> np.ndarray:
    """Rows of a split; `parts` says which rows are officially train, validation or test."""
    part_of = np.full(len(labels), "train" if parts is None else parts, dtype="U10")
    if parts is None:
        part_of[_held_out(labels, 0.2, 1, "test" if split == "test" else "")] = "test"
    if "validation" not in part_of:
        train = np.flatnonzero(part_of == "train")
        named = "validation" if split == "validation" else ""
        part_of[train[_held_out(labels[train], 0.1, 0, named)]] = "validation"
    rows = np.flatnonzero(part_of == split)
    if len(rows) == 0:
        raise ValueError(f"{split} must hold at least one image; got none of {len(labels)}.")
    return rows


def _held_out(labels: np.ndarray, share: float, seed: int, split: str) -> np.ndarray:
    """Whether each row is held out of train, (N,) bool: always the same rows."""
    # raw bits: numpy promises their stream for ever, that of a Generator's methods it does not
    order = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    held = held_out(labels, share, order)
    n_kept = n_classes_kept(labels, held)
    if split and n_kept and held.any():
        warnings.warn(
            f"{split} has no image of classes with a single one ({n_kept}): they stay in train.",
            UserWarning,
            stacklevel=4,
        )
    return held


def _check_size(image_size: int) -> None:
    if image_size < 1:
        raise ValueError(f"image_size must be >= 1; got {image_size}.")


def _resized(images: ImageSet, image_size: int | None) -> ImageSet:
    """Images resized on the short side (bilinearly) and centre cropped to a square."""
    from PIL import Image, ImageOps

    if image_size is None or images.images.shape[2:] == (image_size, image_size):
        return replace(images, images=np.ascontiguousarray(images.images))
    _check_size(image_size)
    resized = np.empty((*images.images.shape[:2], image_size, image_size), np.uint8)
    for row, image in enumerate(images.images):
        for channel, plane in enumerate(image):
            fitted = ImageOps.fit(
                Image.fromarray(np.ascontiguousarray(plane)),
                (image_size, image_size),
                Image.Resampling.BILINEAR,
            )
            resized[row, channel] = np.asarray(fitted)
    return replace(images, images=resized)


def _folders(data_dir: str | os.PathLike[str] | None, name: str, inner: str = "") -> list[Path]:
    """Folders of the user's to search for a data set; data_dir may be the `inner` one itself."""
    if data_dir is None:
        return []
    folder = Path(data_dir).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"data_dir must be an existing folder; got {str(folder)!r}.")
    return [folder / name, folder, *([folder.parent] if folder.name == inner else [])]


def _archived(
    name: str, remote: RemoteFile, members: Sequence[str], data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, bytes], Path]:
    """Contents of the members of an extracted folder or an archive, and the folder it is in."""
    inner = members[0].split("/")[0]
    cache = archives.cache_folder() / name
    folders = [*_folders(data_dir, name, inner), cache]
    for folder in folders:
        if (folder / inner).is_dir():
            return archives.read_members(folder, members), folder
        archive = folder / remote.name
        if archive.is_file():
            archives.check_md5(archive, remote.md5)
            return archives.read_members(archive, members), folder
    return archives.read_members(archives.fetch(remote, cache, searched=folders), members), cache
