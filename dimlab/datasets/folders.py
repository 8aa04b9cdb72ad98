"""Folders of images of the user's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimlab.datasets.download import folders_of
from dimlab.datasets.splits import official_part, part_of
from dimlab.decoding import SUFFIXES
from dimlab.images import SPLITS, ImageFiles, ImageSet
from dimlab.io.files import Misnamed
from dimlab.names import split_of
from dimlab.refusals import Refusal

_PLAIN = (*SPLITS, "val")  # names of folders that are splits, in any case; others may be classes


def image_folder(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None,
    image_size: int | None = None,
    resize: int | None = None,
    crop: str | None = None,
    depth: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
) -> ImageSet:
    """Image files of your own, in one sub-folder a class, or without classes.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        Holds the class folders; or the folders train and test, and perhaps validation (or val, or
        another word for them that `split_of` knows), each with class folders. Where there is a
        validation but no test, validation is the test split. A folder of images alone has no
        labels. Names that begin with a dot and files that are no images do not count.
    image_size : int, optional
        Height and width in pixels; by default what the encoder takes (`dimlab.encode`), and 32
        where there is none.
    resize : int, optional
        Length of the short side before the centre is cropped; by default that of the encoder, or
        image_size.
    crop : {"centre", "squash"}, optional
        How the square is made: its centre is cut out, or both sides are resized. By default as the
        encoder's record says, else the centre.
    depth : int, optional
        Levels of folders that name a class: 1 for ``class/image``, 2 for ``group/class/image``, 0
        for no classes. Images below the last level belong to its class. By default 1, or 0 where
        there are no folders, and images below the last level are refused.
    workers : int, optional
        Processes that decode images; by default one a core, and none for few images.
    skip_bad : bool, default=False
        Leave out images that cannot be read, with a warning that counts them.

    Returns
    -------
    ImageSet
        Three channels, decoded when they are needed, and turned as their EXIF orientation says;
        classes and files in the order of their names. The factor ``file`` holds each file's path
        within data_dir.

    Raises
    ------
    ValueError
        If the split is unknown or empty, a number is out of range, data_dir is missing, a folder
        holds no class or a class no image, or a link leads back to a folder above it; when it is
        decoded, if an image cannot be read.
    FileNotFoundError
        If data_dir is no folder.

    Warns
    -----
    UserWarning
        If validation stands for test, or images beside class folders are left out.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (8, 4), "red").save(Path(folder) / name)
    ...     images = image_folder("test", data_dir=folder, image_size=4)
    ...     pixels = images.images[0]
    >>> images, images.class_names, pixels[:, 0, 0].tolist()
    (ImageSet('image-folder', test, 2 images of 3 x 4 x 4, 2 classes), ('cat', 'dog'), [255, 0, 0])
    """
    official_part(split)
    if data_dir is None:
        raise Misnamed("image-folder needs data_dir: pass the folder of the class folders.")
    if depth is not None and depth < 0:
        raise Refusal(f"depth must be >= 0; got {depth}.")
    root = folders_of(data_dir, "")[0]
    parts = _folder_parts(root)
    walk = _Walk(root, depth)
    found = {part: list(walk.images(folder)) for part, folder in (parts or {"": root}).items()}
    class_names = sorted({name for name, _ in found.get("train", found.get("", []))} - {""})
    _check_classes(found, class_names, parts, root)
    names = [name for part in found.values() for name, _ in part]
    ids = {name: number for number, name in enumerate(class_names)}
    labels = np.array([ids.get(name, 0) for name in names], dtype=np.int64)
    files = np.array([path for part in found.values() for _, path in part])
    whole = ImageSet(
        ImageFiles.of(
            Paths(root, files), files, image_size=image_size, resize=resize, crop=crop,
            workers=workers, skip_bad=skip_bad,
        ),
        labels if class_names else None,
        factors={"file": files},
        name="image-folder",
        folder=str(root),
        class_names=class_names,
        reading={} if depth is None else {"depth": depth},
    )  # fmt: skip
    sizes = [len(each) for each in found.values()]
    return part_of(whole, split, np.repeat(list(found), sizes) if parts else None)


@dataclass(frozen=True)
class Paths:
    """The paths of images, below a folder."""

    root: Path
    files: np.ndarray

    def __getitem__(self, row: int) -> str:
        return os.path.join(self.root, self.files[row])


def _folder_parts(root: Path) -> dict[str, Path]:
    """Return the folders of splits, train first; none where the folders are classes."""
    named = [path for path in sorted(root.iterdir()) if path.is_dir()]
    named = [path for path in named if split_of(path.name) in SPLITS]
    parts = [split_of(path.name) for path in named]
    plain = [split_of(each.name) for each in named if each.name.lower() in _PLAIN]
    complete = {"train", "test"} <= set(parts) or ("train" in plain and "validation" in parts)
    if (plain and not complete) or (complete and len(set(parts)) < len(parts)):
        alone = f" Pass data_dir={str(named[0])!r} (--data-dir) to use it alone."
        raise Refusal(
            f"{root} must hold train and test, or train and val, and one of validation and val at "
            f"most; got {', '.join(path.name for path in named)}.{alone if len(named) == 1 else ''}"
        )
    found = dict(zip(parts, named, strict=True)) if complete else {}
    return {part: found[part] for part in ("train", "test", "validation") if part in found}


@dataclass(frozen=True)
class _Walk:
    """How classes and images are found below a folder."""

    root: Path
    depth: int | None

    def images(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield the class of each image and its path within the root, in the order of names."""
        files, folders = self._listed(folder)
        depth = (1 if folders else 0) if self.depth is None else self.depth
        yield from self._below(files, folders, "", depth)

    def _below(
        self, files: Sequence[str], folders: Sequence[os.DirEntry[str]], name: str, depth: int
    ) -> Iterator[tuple[str, str]]:
        if depth == 0:
            yield from ((name, file) for file in files)
        elif files:
            warnings.warn(
                f"{len(files)} images beside folders of classes are left out, such as {files[0]}.",
                UserWarning,
                stacklevel=4,
            )
        for each in folders:
            inner_files, inner = self._listed(Path(each.path))
            deeper = f"{name}/{each.name}".lstrip("/") if depth else name
            is_class = depth == 1
            if is_class and self.depth is None and inner:
                raise Refusal(
                    f"{each.path} must hold images, not folders; got {inner[0].name!r}. Pass "
                    f"depth=2 (--depth 2) for classes such as {deeper}/{inner[0].name}, or depth=1 "
                    "to take all images below each class."
                )
            images = list(self._below(inner_files, inner, deeper, max(depth - 1, 0)))
            if is_class and not images:
                raise Refusal(f"{each.path} must hold at least one image; got none.")
            yield from images

    def _listed(self, folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
        """Return paths of images within the root, and folders, in the order of their names."""
        with os.scandir(folder) as there:
            entries = sorted(
                (each for each in there if not each.name.startswith(".")),
                key=lambda each: each.name,
            )
        links = [Path(each.path) for each in entries if each.is_symlink() and each.is_dir()]
        for each in links:
            if each.resolve() in {above.resolve() for above in each.parents}:
                raise Refusal(f"{each} must not lead back to a folder above it; got a link.")
        start = len(str(self.root).rstrip(os.sep)) + 1
        files = [
            each.path[start:].replace(os.sep, "/")
            for each in entries
            if os.path.splitext(each.name)[1].lower() in SUFFIXES and each.is_file()
        ]
        return files, [each for each in entries if each.is_dir()]


def _check_classes(
    found: dict[str, list[tuple[str, str]]],
    class_names: Sequence[str],
    parts: dict[str, Path],
    root: Path,
) -> None:
    train = parts.get("train", root)
    if not found.get("train", found.get("")):
        raise Refusal(f"{train} must hold images, or one folder a class; got none.")
    for part, images in found.items():
        unknown = {name for name, _ in images} - {*class_names, *([] if class_names else [""])}
        if unknown:
            got = min(unknown)
            raise Refusal(
                f"{parts[part]} must hold classes of train only; got "
                f"{repr(got) if got else 'images without a class'}."
            )
