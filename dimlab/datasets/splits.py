"""Which rows a split has, and at which size: always the same rows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from dimlab.cuts import held_out, n_classes_kept
from dimlab.images import SPLITS, ImageSet, Recipe, fit
from dimlab.names import splits_of_rows
from dimlab.refusals import Refusal


def official_part(split: str) -> str:
    """Return the official part, train or test, that a split is of."""
    if split not in SPLITS:
        raise Refusal(f"split must be train, validation or test; got {split!r}.")
    return "test" if split == "test" else "train"


def part_of(images: ImageSet, split: str, parts: np.ndarray | str | None = None) -> ImageSet:
    """Return the images of a split, as `rows_of` says."""
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    return replace(images.take(rows_of(labels, split, parts)), split=split)


def rows_of(labels: np.ndarray, split: str, parts: np.ndarray | str | None = None) -> np.ndarray:
    """Return the rows of a split; ``parts`` says which are officially train, validation or test."""
    if parts is not None and not isinstance(parts, str):
        parts = _with_a_test(parts)
    part = np.full(len(labels), "train" if parts is None else parts, dtype="U10")
    if parts is None:
        part[_held_out(labels, 0.2, 1, "test" if split == "test" else "")] = "test"
    if "validation" not in part:
        train = np.flatnonzero(part == "train")
        named = "validation" if split == "validation" else ""
        part[train[_held_out(labels[train], 0.1, 0, named)]] = "validation"
    rows = np.flatnonzero(part == split)
    if len(rows) == 0:
        raise Refusal(f"{split} must hold at least one image; got none of {len(labels)}.")
    return rows


def _with_a_test(parts: np.ndarray) -> np.ndarray:
    """Let validation stand for test where there is none, and say so."""
    if "test" in parts or "validation" not in parts:
        return parts
    warnings.warn(
        "assumed: the validation images are the test split, as there is no other; validation is "
        "cut from train.",
        UserWarning,
        stacklevel=4,
    )
    return np.where(parts == "validation", "test", parts)


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


def checked_parts(parts: np.ndarray, n_images: int) -> np.ndarray:
    """Return the split of each image in one vocabulary, and refuse other words."""
    if parts.shape != (n_images,):
        raise Refusal(f"split must have shape ({n_images},) to match images; got {parts.shape}.")
    parts = splits_of_rows(parts, "split")
    unknown = [part for part in np.unique(parts).tolist() if part not in SPLITS]
    if unknown:
        raise Refusal(f"split must hold train, validation or test; got {unknown[0]!r}.")
    return parts


def resized(images: ImageSet, image_size: int | None) -> ImageSet:
    """Resize images on the short side (bilinearly) and crop their centre to a square."""
    return fit(images, Recipe() if image_size is None else Recipe.of_own("", image_size))
