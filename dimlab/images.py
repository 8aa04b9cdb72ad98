"""Images of one split, with their labels and whatever else is known of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.checks import factors_of, labels_of, periods_of, rows_of
from dimlab.decoding import decode
from dimlab.refusals import Refusal, WrongType

SPLITS = ("train", "validation", "test")
_ROWS = 4096  # hashed at a time
CROPS = ("centre", "squash")
_FACTS = ("sources", "fixed", "rounds_down", "resampler")  # of a recipe, which nobody asks for
UNROUNDED = "torch-float"
RESAMPLERS = {  # who resizes an image, and what becomes of its pixels
    "": "",
    "torch": "as torchvision resizes tensors",
    UNROUNDED: "as torchvision resizes tensors, not rounded to whole numbers",
}
INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's ids
NORMALISATIONS = {  # means and deviations of R, G and B in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def means_of(normalisation: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return means and deviations that a normalisation names, or spells; None for ``none``."""
    if normalisation == "none":
        return None
    if normalisation in NORMALISATIONS:
        return NORMALISATIONS[normalisation]
    try:
        means, deviations = (
            [float(each) for each in part.split(",")] for part in normalisation.split("/")
        )
    except ValueError:
        means, deviations = [], []
    if len(means) != len(deviations) or len(means) not in (1, 3) or min(deviations) <= 0:
        raise Refusal(
            f"normalisation must be one of none, {', '.join(NORMALISATIONS)}, or means and "
            f"deviations as 0.5,0.5,0.5/0.2,0.2,0.2; got {normalisation!r}."
        )
    return means, deviations


def normalisation_of(means: Sequence[float], deviations: Sequence[float]) -> str:
    """Return the name of means and deviations, or their spelling, as `means_of` reads it."""
    for name, known in NORMALISATIONS.items():
        if np.allclose(known, (means, deviations), atol=5e-4):
            return name
    parts = (",".join(f"{each:.9g}" for each in part) for part in (means, deviations))
    return "/".join(parts)


@dataclass(frozen=True)
class Recipe:
    """How image files become the pixels that an encoder takes; None is what nobody has said.

    The image is resized with antialiasing, by Pillow, as torchvision's and timm's transforms do for
    Pillow's images, or by one of the other `RESAMPLERS`. Then its centre is cropped.
    """

    size: int | None = None  # side of the square that is cropped
    resize: int | None = None  # of the short side before that, or of both for "squash"
    crop: str | None = None  # one of `CROPS`
    interpolation: str | None = None  # one of `INTERPOLATIONS`
    normalisation: str | None = None  # as `means_of` reads it
    fixed: bool = False  # whether the encoder takes no other size
    rounds_down: bool = False  # half a pixel beside the crop, as in transformers; else to even
    resampler: str = ""  # one of `RESAMPLERS`
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)  # of each, in words

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            value = getattr(self, name)
            if value is not None and value < 1:
                label = {"size": "image_size"}.get(name, name)
                raise Refusal(f"{label} must be >= 1; got {value}.")
        if self.size is not None and self.resize is not None and self.resize < self.size:
            raise Refusal(f"resize must be at least image_size, {self.size}; got {self.resize}.")
        for name, known in (("crop", CROPS), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in (None, *known):
                raise Refusal(
                    f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}."
                )
        if self.normalisation is not None:
            means_of(self.normalisation)

    @classmethod
    def of(cls, source: str, **values: Any) -> Recipe:
        """Return a recipe whose values all come from one source, in words."""
        known = [name for name, value in values.items() if value is not None]
        return cls(**values, sources=dict.fromkeys(known, source))

    @classmethod
    def of_torchvision(cls, source: str, size: int = 224, **values: Any) -> Recipe:
        """Return torchvision's recipe for ImageNet: 256 to 224, or the same share of a size."""
        usual: dict[str, Any] = {"crop": "centre", "interpolation": "bilinear"}
        return cls.of(source, size=size, resize=size * 256 // 224, **(usual | values))

    @classmethod
    def of_own(cls, source: str, size: int = 32) -> Recipe:
        """Return the recipe of dimlab's own encoders: the whole short side is kept."""
        return cls.of(source, size=size, resize=size, crop="centre", interpolation="bilinear")

    def over(self, other: Recipe) -> Recipe:
        """Return this recipe, completed by another one where it says nothing."""
        names = [each.name for each in fields(self) if each.name not in _FACTS]
        values = {name: getattr(self, name) for name in names}
        missing = [name for name in names if values[name] is None]
        values |= {name: getattr(other, name) for name in missing}
        if "resize" in missing and other.size and other.resize and self.size is not None:
            values["resize"] = self.size * other.resize // other.size  # the same share is cropped
        elif "size" in missing and self.resize is not None and other.size is not None:
            values["size"] = min(other.size, self.resize)
        sources = {**other.sources, **self.sources}
        facts = {name: getattr(self, name) or getattr(other, name) for name in _FACTS[1:]}
        return Recipe(**values, **facts, sources=sources)

    def to_dict(self) -> dict[str, Any]:
        """Return what is done to the pixels of files, ready for JSON."""
        return {name: getattr(self, name) for name in ("size", "resize", "crop", "interpolation")}

    def in_words(self) -> str:
        """Say what is done, and behind each change of the source where that is from."""
        crop = {"centre": "centre crop", "squash": "squashed to a square"}
        parts = {
            "size": f"image size {self.size}",
            "resize": f"resize {self.resize}",
            "crop": crop.get(self.crop or "", ""),
            "interpolation": " ".join(
                filter(None, (self.interpolation, RESAMPLERS[self.resampler]))
            ),
            "normalisation": f"normalisation {self.normalisation}",
        }
        said, before = [], ""
        for name, words in parts.items():
            if getattr(self, name) is None:
                continue
            source = self.sources.get(name, "")
            said.append(f"{words} ({source})" if source not in ("", before) else words)
            before = source or before
        return ", ".join(said)

    def apply(self, image: Any) -> np.ndarray:
        """Return the pixels (H, W) or (H, W, C) of a Pillow image, resized and cropped."""
        width, height = image.size
        size, resize = self.size, self.resize or self.size
        pixels = np.asarray(image)
        if resize is not None:
            short = min(width, height)
            sides = (int(resize * width / short), int(resize * height / short))
            wanted = (resize, resize) if self.crop == "squash" else sides
            if wanted != image.size:
                pixels = self._resized(image, wanted)
        if size is None or pixels.shape[:2] == (size, size):
            return pixels
        beside = ((side - size) / 2 for side in pixels.shape[:2])
        top, left = (math.floor(each) if self.rounds_down else round(each) for each in beside)
        return pixels[top : top + size, left : left + size]

    def _resized(self, image: Any, sides: tuple[int, int]) -> np.ndarray:
        """Resize a Pillow image to a width and a height."""
        from PIL import Image

        mode = self.interpolation or "bilinear"
        if not self.resampler:
            return np.asarray(image.resize(sides, Image.Resampling[mode.upper()]))
        import torch

        pixels = np.array(image)
        planes = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None]
        planes = planes.float() if self.resampler == UNROUNDED else planes
        found = torch.nn.functional.interpolate(
            planes, sides[::-1], mode=mode, antialias=True, align_corners=False
        )[0]
        return found.permute(1, 2, 0).numpy().reshape(*sides[::-1], *pixels.shape[2:])


OWN = Recipe.of_own("usual for dimlab's own encoders")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images that are decoded when they are asked for: an array (N, 3, H, W) never held whole.

    It is a map-style data set for torch too. An encoder completes the recipe where nobody has said
    what to do (`dimlab.encode`).
    """

    contents: Any  # contents[row]: a path, bytes, a Pillow image or an array
    names: np.ndarray  # (N,) text: how messages call the images
    recipe: Recipe = Recipe()  # what the user said
    workers: int | None = None  # processes that decode; None: by the number of images and of cores
    skip_bad: bool = False  # leave out what cannot be read
    rows: np.ndarray | None = None  # of the contents; None: all

    ndim = 4

    @classmethod
    def of(
        cls,
        contents: Any,
        names: np.ndarray,
        *,
        image_size: int | None,
        resize: int | None,
        crop: str | None,
        workers: int | None,
        skip_bad: bool,
    ) -> ImageFiles:
        """Return files that are read as a user says."""
        if workers is not None and workers < 0:
            raise Refusal(f"workers must be >= 0; got {workers}.")
        recipe = Recipe.of("as asked", size=image_size, resize=resize, crop=crop)
        return cls(contents, names, recipe, workers, skip_bad)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (N, 3, H, W) of the array."""
        size = self.recipe.over(OWN).size or 0
        return len(self), 3, size, size

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8; float32, still 0..255, where the recipe does not round."""
        return np.dtype(np.float32 if self.recipe.resampler == UNROUNDED else np.uint8)

    def _content(self, row: int) -> Any:
        return self.contents[row if self.rows is None else int(self.rows[row])]

    def read(self, row: int) -> np.ndarray:
        """Return the pixels (3, H, W) of one image; ValueError names a file that is damaged."""
        return decode(self._content(row), str(self.names[row]), self.recipe.over(OWN))

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return pixels as an array does: of one row, or (B, 3, H, W) of several."""
        if isinstance(rows, (int, np.integer)):
            return self.read(range(len(self))[rows])
        chosen = np.arange(len(self))[rows]
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, row in enumerate(chosen.tolist()):
            found[place] = self.read(row)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all pixels, as ``np.asarray`` asks for them."""
        return np.asarray(self[:], dtype)

    def take(self, rows: np.ndarray) -> ImageFiles:
        """Return these images only."""
        index = rows if self.rows is None else self.rows[rows]
        return replace(self, names=self.names[rows], rows=index)

    def digest(self) -> str:
        """Return a hash of the files' contents, whatever the recipe."""
        whole = hashlib.sha256()
        for row in range(len(self)):
            content = self._content(row)
            if isinstance(content, str):  # a file that is not there counts as an empty one
                content = Path(content).read_bytes() if Path(content).is_file() else b""
            elif not isinstance(content, bytes):
                content = np.ascontiguousarray(content).tobytes()
            whole.update(hashlib.sha256(content).digest())
        return whole.hexdigest()


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images of one split, with their labels and whatever else is known of them.

    Parameters
    ----------
    images : ndarray of shape (N, C, H, W), uint8, or ImageFiles
        Pixels, 0..255. N >= 1; C is 1 (grey) or 3 (RGB). Files are decoded when they are needed:
        ``np.asarray(images.images)`` holds all of them.
    labels : ndarray of shape (N,), integer, optional
        Class ids >= 0, stored as int64; None where nobody knows them.
    factors : mapping of str to ndarray of shape (N,), optional
        What else is known of each image. Floating: continuous; integer, bool or str: categorical.
    periods : mapping of str to float, optional
        Period of each continuous factor that wraps, as ``{"hue": 2 * np.pi}``.
    name : str
        Name of the data set, as the command line spells it.
    split : str
        "train", "validation", "test", or "" where that has no meaning.
    folder : str
        What to pass as ``data_dir`` to read the same files again; "" where there are none.
    class_names : sequence of str
        One name a class, or empty.
    reading : mapping
        What else to pass to read the same files again, such as ``{"depth": 2}``.

    Raises
    ------
    TypeError
        If the images are not uint8, the labels not integers, or a factor of another type.
    ValueError
        If a shape does not fit the images, or a value is out of its range.

    Examples
    --------
    >>> blank = ImageSet(np.zeros((2, 1, 8, 8), np.uint8), np.array([0, 2]), name="blank")
    >>> blank
    ImageSet('blank', 2 images of 1 x 8 x 8, 3 classes)
    >>> blank.n_classes
    3
    >>> blank.labels_hash == hashlib.sha256(np.array([2, 0, 2], "<i8").tobytes()).hexdigest()
    True
    """

    images: np.ndarray | ImageFiles
    labels: np.ndarray | None = None
    _: KW_ONLY
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    periods: Mapping[str, float] = field(default_factory=dict)
    name: str
    split: str = ""
    folder: str = ""
    class_names: Sequence[str] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images = self.images
        if not isinstance(images, ImageFiles):
            images = np.asarray(images)
        if images.dtype != np.uint8 and not isinstance(images, ImageFiles):
            raise WrongType(
                f"images must be uint8; got {images.dtype}. Scale [0, 1] with "
                "np.round(255 * images).astype(np.uint8)."
            )
        if images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
            raise Refusal(
                f"images must have shape (N, C, H, W) with N >= 1 and C 1 or 3; got {images.shape}."
            )
        if self.split not in ("", *SPLITS):
            raise Refusal(f"split must be train, validation, test or ''; got {self.split!r}.")
        put = object.__setattr__
        put(self, "images", images)
        if self.labels is not None:
            put(self, "labels", labels_of(self.labels, len(images), of="images"))
        put(self, "factors", factors_of(self.factors, (len(images),), of="images"))
        put(self, "periods", periods_of(self.periods, [self.factors]))
        put(self, "class_names", tuple(str(name) for name in self.class_names))
        n_classes = 0 if self.labels is None else int(self.labels.max()) + 1
        if self.class_names and len(self.class_names) < n_classes:
            raise Refusal(
                f"class_names must name {n_classes} classes to match labels; "
                f"got {len(self.class_names)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        split = f"{self.split}, " if self.split else ""
        classes = "no labels" if self.labels is None else f"{self.n_classes} classes"
        count = f"{len(self)} images of {shape}, {classes}"
        return f"ImageSet({self.name!r}, {split}{count})"

    @property
    def n_classes(self) -> int:
        """K: the number of ``class_names``, else the largest label plus 1; 0 without labels."""
        if self.labels is None:
            return 0
        return len(self.class_names) or int(self.labels.max()) + 1

    @property
    def labels_hash(self) -> str:
        """SHA-256 (hexadecimal) of N and the labels, by which a checkpoint knows its data again."""
        labels = np.array([]) if self.labels is None else self.labels
        counted = np.concatenate([[len(self)], labels]).astype("<i8")
        return hashlib.sha256(counted.tobytes()).hexdigest()

    @cached_property
    def images_hash(self) -> str:
        """SHA-256 (hexadecimal) of the shape and the pixels, or of the files as they are."""
        if isinstance(self.images, ImageFiles):
            return self.images.digest()
        digest = hashlib.sha256(np.asarray(self.images.shape, "<i8").tobytes())
        for start in range(0, len(self), _ROWS):
            digest.update(np.ascontiguousarray(self.images[start : start + _ROWS]).data)
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | np.ndarray) -> ImageSet:
        """Return these images only, in this order.

        Parameters
        ----------
        rows : sequence of int or ndarray of bool of shape (N,)
            Images to keep, at least one.

        Returns
        -------
        ImageSet
            With the labels and factors of the same images.

        Raises
        ------
        ValueError
            If a row is no integer or out of range, or none is left.

        Examples
        --------
        >>> blank = ImageSet(np.zeros((3, 1, 8, 8), np.uint8), np.array([0, 1, 1]), name="blank")
        >>> blank.take(blank.labels == 1)
        ImageSet('blank', 2 images of 1 x 8 x 8, 2 classes)
        """
        index, images = rows_of(rows, len(self)), self.images
        return replace(
            self,
            images=images.take(index) if isinstance(images, ImageFiles) else images[index],
            labels=None if self.labels is None else self.labels[index],
            factors={name: values[index] for name, values in self.factors.items()},
        )


def is_lazy(images: ImageSet) -> bool:
    """Whether the images are files, which are decoded when they are needed."""
    return isinstance(images.images, ImageFiles)


def asked_of(images: ImageSet) -> Recipe:
    """Return what the user said of how files become pixels; nothing for arrays."""
    return images.images.recipe if isinstance(images.images, ImageFiles) else Recipe()


def fit(images: ImageSet, recipe: Recipe) -> ImageSet:
    """Return images as a recipe says: files when they are decoded, arrays resized now."""
    pixels = images.images
    if isinstance(pixels, ImageFiles):
        return replace(images, images=replace(pixels, recipe=recipe))
    size = recipe.size
    if size is None or pixels.shape[2:] == (size, size):
        return replace(images, images=np.ascontiguousarray(pixels))
    if recipe.resampler == UNROUNDED:  # arrays hold whole numbers
        names = np.array([f"image {row}" for row in range(len(images))])
        return replace(images, images=ImageFiles(pixels, names, recipe))
    from PIL import Image

    resized = np.empty((*pixels.shape[:2], size, size), np.uint8)
    for row, image in enumerate(pixels):
        for channel, plane in enumerate(image):
            made = Image.fromarray(np.ascontiguousarray(plane))
            resized[row, channel] = recipe.apply(made)
    return replace(images, images=resized)


def labels_in(images: ImageSet, purpose: str) -> np.ndarray:
    """Return the labels, which a purpose needs."""
    if images.labels is None:
        raise Refusal(f"images must have labels {purpose}; got none.")
    return images.labels
