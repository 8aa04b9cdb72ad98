"""Images of one split, with their labels and whatever else is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property

import numpy as np

from dimlab.checks import factors_of, labels_of, periods_of, rows_of

SPLITS = ("train", "validation", "test")
_ROWS = 4096  # hashed at a time


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images of one split, with their labels and whatever else is known of them.

    Parameters
    ----------
    images : ndarray of shape (N, C, H, W), uint8
        Pixels, 0..255. N >= 1; C is 1 (grey) or 3 (RGB).
    labels : ndarray of shape (N,), integer
        Class ids >= 0, stored as int64.
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

    images: np.ndarray
    labels: np.ndarray
    _: KW_ONLY
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    periods: Mapping[str, float] = field(default_factory=dict)
    name: str
    split: str = ""
    folder: str = ""
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.dtype != np.uint8:
            raise TypeError(
                f"images must be uint8; got {images.dtype}. Scale [0, 1] with "
                "np.round(255 * images).astype(np.uint8)."
            )
        if images.ndim != 4 or images.size == 0 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images must have shape (N, C, H, W) with N >= 1 and C 1 or 3; got {images.shape}."
            )
        if self.split not in ("", *SPLITS):
            raise ValueError(f"split must be train, validation, test or ''; got {self.split!r}.")
        put = object.__setattr__
        put(self, "images", images)
        put(self, "labels", labels_of(self.labels, len(images), of="images"))
        put(self, "factors", factors_of(self.factors, (len(images),), of="images"))
        put(self, "periods", periods_of(self.periods, [self.factors]))
        put(self, "class_names", tuple(str(name) for name in self.class_names))
        if self.class_names and len(self.class_names) <= self.labels.max():
            raise ValueError(
                f"class_names must name {self.labels.max() + 1} classes to match labels; "
                f"got {len(self.class_names)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        split = f"{self.split}, " if self.split else ""
        count = f"{len(self)} images of {shape}, {self.n_classes} classes"
        return f"ImageSet({self.name!r}, {split}{count})"

    @property
    def n_classes(self) -> int:
        """K, the number of classes: of ``class_names``, else the largest label plus 1."""
        return len(self.class_names) or int(self.labels.max()) + 1

    @property
    def labels_hash(self) -> str:
        """SHA-256 (hexadecimal) of N and the labels, by which a checkpoint knows its data again."""
        counted = np.concatenate([[len(self)], self.labels]).astype("<i8")
        return hashlib.sha256(counted.tobytes()).hexdigest()

    @cached_property
    def images_hash(self) -> str:
        """SHA-256 (hexadecimal) of the shape and the pixels, read a few rows at a time."""
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
        index = rows_of(rows, len(self))
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            factors={name: values[index] for name, values in self.factors.items()},
        )
