"""Which rows a split has, and at which size: always the same rows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from dimlab.cuts import held_out, n_classes_kept
from dimlab.images import SPLITS, ImageSet
from dimlab.refusals import Refusal


def official_part(split: str) -> str:
    """Return the official part, train or test, that a split is of."""
    if split not in SPLITS:
        raise Refusal(f"split must be train, validation or test; got {split!r}.")
    return "test" if split == "test" else "train"


def rows_of(labels: np.ndarray, split: str, parts: np.ndarray | str | None = None) -> np.ndarray:
    """Return the rows of a split; ``parts`` says which are officially train, validation or test."""
    part_of = np.full(len(labels), "train" if parts is None else parts, dtype="U10")
    if parts is None:
        part_of[_held_out(labels, 0.2, 1, "test" if split == "test" else "")] = "test"
    if "validation" not in part_of:
        train = np.flatnonzero(part_of == "train")
        named = "validation" if split == "validation" else ""
        part_of[train[_held_out(labels[train], 0.1, 0, named)]] = "validation"
    rows = np.flatnonzero(part_of == split)
    if len(rows) == 0:
        raise Refusal(f"{split} must hold at least one image; got none of {len(labels)}.")
    return rows


def _held_out(labels: np.ndarray, share: float, seed: int, split: str) -> np.ndarray:
    """Return whether each row is held out of train, (N,) bool: always the same rows."""
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


def check_size(image_size: int) -> None:
    """Refuse a size below one pixel."""
    if image_size < 1:
        raise Refusal(f"image_size must be >= 1; got {image_size}.")


def resized(images: ImageSet, image_size: int | None) -> ImageSet:
    """Resize images on the short side (bilinearly) and crop their centre to a square."""
    from PIL import Image, ImageOps

    if image_size is None or images.images.shape[2:] == (image_size, image_size):
        return replace(images, images=np.ascontiguousarray(images.images))
    check_size(image_size)
    pixels = np.empty((*images.images.shape[:2], image_size, image_size), np.uint8)
    for row, image in enumerate(images.images):
        for channel, plane in enumerate(image):
            fitted = ImageOps.fit(
                Image.fromarray(np.ascontiguousarray(plane)),
                (image_size, image_size),
                Image.Resampling.BILINEAR,
            )
            pixels[row, channel] = np.asarray(fitted)
    return replace(images, images=pixels)
