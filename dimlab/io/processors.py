"""How a folder of transformers says that images become pixels, and the proof that it is so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dimlab.images import INTERPOLATIONS, RESAMPLERS, Recipe, means_of, normalisation_of
from dimlab.refusals import Refusal

_EQUAL, _CLOSE = 1e-4, 0.05  # of normalised pixels: rounding to whole ones lies between them
_OF_TENSORS = ("bilinear", "bicubic")


def processor_of(transformers: Any, config: Mapping[str, Any]) -> Any:
    """Build the image processor that transformers takes itself; None where that cannot be."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    stem = kind.removesuffix("Fast")
    names = [kind, stem, f"{stem}Pil"] if stem else []
    if config.get("resample") not in (None, *map(INTERPOLATIONS.index, _OF_TENSORS)):
        names.reverse()  # torchvision resizes tensors in no other way
    for name in names:
        try:
            return getattr(transformers, name).from_dict(dict(config))
        except Exception:  # of any kind: no such class, or one that needs torchvision
            continue
    return None


def whole(processor: Any) -> dict[str, Any]:
    """Return the configuration of a processor; what it does not say it does not do."""
    steps = ("do_resize", "do_rescale", "do_normalize", "do_center_crop")
    return dict.fromkeys(steps, False) | processor.to_dict()


def proved(processor: Any, recipe: Recipe, name: str) -> tuple[Recipe, str]:
    """Return a recipe with whoever resizes as a processor does, and what is not proved of it.

    A processor that prepares an image otherwise than the recipe does is refused.
    """
    from PIL import Image

    rows, columns = np.mgrid[:300, :400]
    waves = [np.sin(rows / 40 + place) * np.cos(columns / (50 + 9 * place)) for place in range(3)]
    texture = (rows * columns % 41)[..., None]  # where every rounding shows
    image = Image.fromarray((108 + 90 * np.stack(waves, axis=2) + texture).astype(np.uint8))
    try:
        own = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
    except Exception as error:  # of any kind
        own = np.empty(0)
        reason = f"which fails on one ({' '.join(str(error).split())[:100]})"
    else:
        reason = f"whose pixels {own.shape} are others"
    usual = recipe.over(Recipe.of_torchvision("usual"))
    means, deviations = means_of(usual.normalisation or "none") or ((0.0,), (1.0,))
    scale = max(1.0, 0.2 / min(deviations))  # pixels may go in as 0 to 255
    differences = {}
    for each in RESAMPLERS if usual.interpolation in _OF_TENSORS else ("",):
        found = replace(usual, resampler=each).apply(image).transpose(2, 0, 1) / 255
        found = (found - np.reshape(means, (-1, 1, 1))) / np.reshape(deviations, (-1, 1, 1))
        differences[each] = np.abs(found - own).max() if found.shape == own.shape else np.inf
    best = min(differences, key=lambda each: differences[each])
    if differences[best] > _CLOSE * scale:
        raise Refusal(
            f"{name} must prepare images as dimlab does: resized, cut to a square and normalised; "
            f"got {type(processor).__name__}, {reason}. Build the model with transformers, and "
            "call encode_loader(model, loader) with a loader of what its processor gives."
        )
    exact = differences[best] <= _EQUAL * scale
    return replace(recipe, resampler=best), "" if exact else (
        f"pixels are within {differences[best]:.2g} of those of {type(processor).__name__}, which "
        "rounds otherwise"
    )


def recipe_of_transformers(processor: Mapping[str, Any], source: str) -> Recipe:
    """Read an image processor's configuration."""
    size, crop = processor.get("size"), processor.get("crop_size")
    does_crop = processor.get("do_center_crop", crop is not None) and crop is not None
    short, share = _short_side(size), processor.get("crop_pct")
    is_square = isinstance(size, int) and not does_crop
    is_square |= isinstance(size, dict) and "height" in size
    resize = short if processor.get("do_resize", True) else None
    final = _short_side(crop) if does_crop else resize
    if share is not None and short is not None and processor.get("do_resize", True):
        is_square = short >= 384  # ConvNeXt's: squashed, or resized and cropped
        resize = short if is_square else int(short / share)
        final = short
    values: dict[str, Any] = {"size": final, "resize": resize, "rounds_down": True}
    if resize is not None and final is not None and resize < final:
        raise Refusal(
            f"{source} must resize to at least what it crops; got {resize} and {final}, which pads."
        )
    if final is not None:
        values["crop"] = "squash" if is_square else "centre"
    if isinstance(processor.get("resample"), int):
        values["interpolation"] = INTERPOLATIONS[int(processor["resample"])]
    values["normalisation"] = _normalisation(processor)
    return Recipe.of(source, **values)


def _short_side(size: Any) -> int | None:
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return int(size) if isinstance(size, (int, float)) else None


def _normalisation(processor: Mapping[str, Any]) -> str | None:
    """Return what pixels in [0, 1] go through."""
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    scale = 255 * float(factor)  # of pixels in [0, 1]
    means, deviations = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", True) or means is None or deviations is None:
        means, deviations = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    means = [means] * 3 if isinstance(means, float) else means
    deviations = [deviations] * 3 if isinstance(deviations, float) else deviations
    means = [each / scale for each in means]
    deviations = [each / scale for each in deviations]
    if means == [0.0] * len(means) and deviations == [1.0] * len(deviations):
        return "none"
    return normalisation_of(means, deviations)
