"""Data sets that a program holds: Hugging Face's, torch's, and loaders of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.images import ImageFiles, ImageSet
from dimlab.refusals import Refusal

INPUTS = (
    *("image", "images", "img", "pixel_values", "inputs", "input", "x", "data"),
    *("views", "crops", "pixels"),
)
TARGETS = ("label", "labels", "target", "targets", "fine_label", "y", "class", "classes")


def parts_of(item: Any) -> tuple[Any, Any]:
    """Take the image and the label, or None, out of an item or batch of any usual shape."""
    if isinstance(item, Mapping):
        image = next((item[name] for name in INPUTS if name in item), None)
        label = next((item[name] for name in TARGETS if name in item), None)
        if image is None:
            raise Refusal(
                f"items must have one of the keys {', '.join(INPUTS)}; got "
                f"{', '.join(map(str, item))}. Rename one, or yield pairs of image and label."
            )
        return image, label
    if isinstance(item, (tuple, list)):
        return (item[0] if item else None), (item[1] if len(item) > 1 else None)
    return item, None


@dataclass
class _Items:
    """The images of a data set's items."""

    dataset: Any

    def __getitem__(self, row: int) -> Any:
        image = parts_of(self.dataset[row])[0]
        if isinstance(image, Mapping):  # Hugging Face's, not decoded
            return image.get("bytes") or image.get("path")
        return image


def as_images(given: Any, *, split: str = "") -> ImageSet:
    """Return images as an `ImageSet`: Hugging Face's and torch's data sets, and their loaders.

    Labels of torch's data sets come from ``targets``, else every item is read once for them.
    """
    if isinstance(given, ImageSet):
        return given
    if isinstance(given, ImageFiles):
        return ImageSet(given, name="files", split=split)
    if hasattr(given, "batch_sampler") and hasattr(given, "dataset"):
        given = given.dataset
    if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        raise Refusal(
            "images must be an ImageSet, or a data set of Hugging Face or torch with a length; got "
            f"{type(given).__name__}. Pass a loader of tensors to encode_loader."
        )
    name = type(given).__name__
    if isinstance(given, tuple) and getattr(given[0] if given else None, "ndim", 0) == 4:
        raise Refusal(
            "images must be one data set; got a tuple of arrays. Pass ImageSet(images, labels, "
            "name='own')."
        )
    if isinstance(given, Mapping):
        first = next(iter(given), "train")
        raise Refusal(
            f"images must be of one split; got a {name} of {', '.join(map(str, given))}. Pass "
            f"images[{first!r}]."
        )
    class_names: Sequence[str] = ()
    if hasattr(given, "features") and hasattr(given, "cast_column"):
        given, labels, class_names = _of_hugging_face(given)
    else:
        labels = _targets_of(given)
        class_names = tuple(map(str, getattr(given, "classes", ())))
    if labels is not None and labels.dtype.kind != "U" and (labels < 0).all():
        labels = None  # hidden, as Hugging Face's of test splits are
    if labels is not None and labels.dtype.kind == "U":
        found, labels = np.unique(labels, return_inverse=True)
        class_names = found.tolist()
    elif labels is not None and len(class_names) <= labels.max(initial=-1):
        class_names = ()
    names = np.array([f"image {row}" for row in range(len(given))])
    files = ImageFiles(_Items(given), names)
    return ImageSet(files, labels, name=name, split=split, class_names=class_names)


def labels_of(found: Any, n_samples: int) -> np.ndarray:
    """Return class ids or names, one a sample."""
    try:
        labels = np.asarray(found.cpu() if hasattr(found, "cpu") else found)
    except (TypeError, ValueError) as error:
        raise Refusal(
            f"labels must be class ids or names, one a sample; got {type(found).__name__}: "
            f"{error}. Leave them out."
        ) from error
    labels = labels[:, 0] if labels.shape == (n_samples, 1) else labels
    is_whole = labels.dtype.kind in "iubU"
    if labels.dtype.kind == "f" and np.isfinite(labels).all():
        is_whole = bool((labels == np.round(labels)).all())
        labels = labels.astype(np.int64) if is_whole else labels
    if labels.shape != (n_samples,) or not is_whole:
        remedy = "Leave them out." if labels.ndim else (
            "Let a loader make batches: torch.utils.data.DataLoader(dataset, batch_size=64)."
        )  # fmt: skip
        raise Refusal(
            f"labels must be class ids or names, one a sample; got {labels.dtype} of shape "
            f"{labels.shape} for {n_samples} samples. {remedy}"
        )
    return labels


def _of_hugging_face(given: Any) -> tuple[Any, np.ndarray | None, Sequence[str]]:
    """Return a data set of image and label that gives files as they are, and its labels."""
    kinds = {name: type(each).__name__ for name, each in given.features.items()}
    image = [name for name, kind in kinds.items() if kind == "Image"]
    label = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if not label:
        label = [name for name in kinds if name in TARGETS][:1]
    if len(image) != 1 or len(label) > 1:
        raise Refusal(
            "images must have one column of images and at most one ClassLabel; got "
            f"{', '.join(kinds)}. Call .select_columns first."
        )
    feature = given.features[image[0]]
    plain = given.with_format(None).cast_column(image[0], type(feature)(decode=False))
    plain = plain.rename_column(image[0], "image") if image[0] != "image" else plain
    labels = labels_of(plain[label[0]][:], len(plain)) if label else None
    names = getattr(given.features[label[0]], "names", ()) if label else ()
    return plain.select_columns(["image"]), labels, names


def _targets_of(dataset: Any) -> np.ndarray | None:
    image, first = parts_of(dataset[0])
    kind = str(getattr(image, "dtype", "uint8")).removeprefix("torch.")
    if kind != "uint8":
        raise Refusal(
            f"images must be Pillow images or arrays of uint8; got {kind} of shape "
            f"{tuple(image.shape)}. Leave out the transforms that make them (ToTensor, Normalize), "
            "or encode a loader of them with encode_loader."
        )
    known = getattr(dataset, "targets", None)
    is_changed = getattr(dataset, "target_transform", None) is not None
    if known is not None and len(known) == len(dataset) and not is_changed:
        return labels_of(known, len(dataset))
    if first is None:
        return None
    return labels_of([parts_of(dataset[row])[1] for row in range(len(dataset))], len(dataset))
