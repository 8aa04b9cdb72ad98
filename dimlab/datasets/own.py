"""Images of the user's own: folders of files, and one ``.npz`` file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from dimlab.columns import factor_of
from dimlab.datasets.download import folders_of, progress
from dimlab.datasets.splits import check_size, official_part, resized, rows_of
from dimlab.images import SPLITS, ImageSet
from dimlab.io.files import DAMAGED, naming, read_npz
from dimlab.names import split_of, splits_of_rows
from dimlab.refusals import Refusal

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
    official_part(split)
    if data_dir is None:
        raise Refusal("image-folder needs data_dir: pass the folder of the class folders.")
    check_size(image_size)
    root = folders_of(data_dir, "")[0]
    parts = _folder_parts(root)
    class_names = _sub_folders(parts.get("train", root), root)
    if not class_names:
        raise Refusal(f"{parts.get('train', root)} must hold one folder a class; got none.")
    paths: list[Path] = []
    labels: list[int] = []
    part_of: list[str] = []
    for part, folder in (parts or {"": root}).items():
        for path in _image_paths(folder, class_names, root):
            paths.append(path)
            labels.append(class_names.index(path.parent.name))
            part_of.append(part)
    rows = rows_of(np.array(labels), split, np.array(part_of) if parts else None)
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
        raise Refusal(
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
            raise Refusal(f"{folder} must hold classes of train only; got {class_name!r}.")
        inside = _sub_folders(folder / class_name, root)
        if inside:
            raise Refusal(
                f"{folder / class_name} must hold images, not folders; got {inside[0]!r}."
            )
        files = [path for path in (folder / class_name).iterdir() if not path.name.startswith(".")]
        found = sorted(path for path in files if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise Refusal(f"{folder / class_name} must hold at least one image; got none.")
        for path in found:
            _refuse_way_out(path, root)
        paths += found
    return paths


def _refuse_way_out(path: Path, root: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        raise Refusal(f"{path} must not lead out of {root}; got a link to {path.resolve()}.")


def _read_images(paths: Sequence[Path], size: int) -> np.ndarray:
    from PIL import Image

    images = np.empty((len(paths), 3, size, size), np.uint8)
    many = len(paths) > 2000
    quiet = nullcontext(lambda n_steps: None)
    bar = progress("reading images", len(paths)) if many else quiet
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
                raise Refusal(f"mode {image.mode}")
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
            return np.asarray(square).transpose(2, 0, 1)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise Refusal(
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
    official_part(split)
    if data_dir is None:
        raise Refusal("npz needs data_dir: pass an .npz file with images and labels.")
    path = Path(data_dir).expanduser().absolute()
    arrays = _npz_arrays(path)
    with naming(path):
        return resized(_npz_split(arrays, split, str(path)), image_size)


def _npz_split(arrays: dict[str, np.ndarray], split: str, folder: str) -> ImageSet:
    parts = arrays.pop("split", None)
    class_names = arrays.pop("class_names", np.array([])).ravel().tolist()
    periods = {name: arrays.pop(name) for name in list(arrays) if name.startswith("period_")}
    scalars = {name.removeprefix("period_"): period for name, period in periods.items()}
    for name, period in scalars.items():
        if period.shape != () or period.dtype.kind not in "fiu":
            raise Refusal(f"period_{name} must be one number; got shape {period.shape}.")
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
    return whole.take(rows_of(whole.labels, split, parts))


def _checked_parts(parts: np.ndarray, n_images: int) -> np.ndarray:
    if parts.shape != (n_images,):
        raise Refusal(f"split must have shape ({n_images},) to match images; got {parts.shape}.")
    parts = splits_of_rows(parts, "split")
    unknown = [part for part in np.unique(parts).tolist() if part not in SPLITS]
    if unknown:
        raise Refusal(f"split must hold train, validation or test; got {unknown[0]!r}.")
    return parts


def _npz_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"data_dir must be an .npz file; got {str(path)!r}, which is none.")
    arrays = read_npz(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise Refusal(f"{path} must hold images and labels; got no {' and no '.join(missing)}.")
    return arrays


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3):
        if images.shape[1] in (1, 3):
            raise Refusal(
                "images must have their channels in one place, (N, H, W, C) or (N, C, H, W); "
                f"got {images.shape}, which can be read either way."
            )
        return images.transpose(0, 3, 1, 2)
    return images
