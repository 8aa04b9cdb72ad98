"""Planted factors: real images with a nuisance whose dependence on the label is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dimlab.images import SPLITS, ImageSet, labels_in
from dimlab.refusals import Refusal

_SHADE = 0.7  # of a coloured background, 1: white
_CONTRAST = 0.5  # of a grating, light to dark
_WAVES = 4  # of a grating, across the image
_CORNERS = 4


def coloured(images: ImageSet, *, correlation: float, seed: int = 0) -> ImageSet:
    """Give grey-scale images a background whose hue depends on the label with a chosen strength.

    Parameters
    ----------
    images : ImageSet
        C = 1, light on dark. The darker a pixel, the more of the colour it takes.
    correlation : float
        In [0, 1]. At 0 the hues are uniform whatever the label; at 1 every class has one hue.
    seed : int, default=0
        Seed of the hues, which differ between splits.

    Returns
    -------
    ImageSet
        C = 3, with the factor ``hue`` (radians, period 2 pi) besides the factors of
        the images. Its name records what was planted, and ``load_images`` accepts that name.

    Raises
    ------
    ValueError
        If the images have three channels or a hue already, the correlation lies outside
        [0, 1], or the seed is negative.

    Notes
    -----
    Class k of K has its own hue ``2 pi k / K``, and hues are drawn from a von Mises law around it
    whose mean resultant length is the correlation: ``E exp(i (hue - own hue)) = correlation``.

    References
    ----------
    Mardia and Jupp, "Directional Statistics", 2000, section 3.5.4.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> planted = coloured(digits("test"), correlation=0.8)
    >>> planted
    ImageSet('digits+hue:0.8:0.8', test, 359 images of 3 x 28 x 28, 10 classes)
    >>> own = 2 * np.pi * planted.labels / 10
    >>> round(np.cos(planted.factors["hue"] - own).mean().item(), 1)
    0.8
    """
    if images.images.shape[1] != 1:
        raise Refusal(
            f"images must be grey-scale, (N, 1, H, W), to be coloured; got {images.images.shape}."
        )
    rng = _generator(images, correlation, seed, "hue")
    own = 2 * np.pi * _labels(images) / images.n_classes
    hue = (own + _around_zero(len(images), correlation, rng)) % (2 * np.pi)
    # three cosines a third of a turn apart: no hue is brighter than another
    turns = 2 * np.pi / 3 * np.arange(3)
    colour = _SHADE * (0.5 + 0.5 * np.cos(hue[:, None] - turns))
    coloured_images = _behind(images.images, colour[:, :, None, None])
    return _with(images, coloured_images, "hue", hue, correlation, seed, period=2 * np.pi)


def textured(images: ImageSet, *, correlation: float, seed: int = 0) -> ImageSet:
    """Give images a striped background whose orientation depends on the label.

    Parameters
    ----------
    images : ImageSet
        Light on dark: a pixel takes the stripes in as far as it is dark.
    correlation : float
        In [0, 1], as in `coloured`, of the doubled angle; class k of K has the angle ``pi k / K``.
    seed : int, default=0
        Draws the orientations; other ones for each split.

    Returns
    -------
    ImageSet
        With the factor ``orientation`` (radians, period pi).

    Raises
    ------
    ValueError
        If the images have an orientation already, the correlation leaves [0, 1], or the seed is
        negative.

    References
    ----------
    Mardia and Jupp, "Directional Statistics", 2000, section 3.5.4.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> planted = textured(digits("test"), correlation=0.5)
    >>> apart = planted.factors["orientation"] - np.pi * planted.labels / 10
    >>> round(np.cos(2 * apart).mean().item(), 1), planted.periods["orientation"] == np.pi
    (0.5, True)
    """
    rng = _generator(images, correlation, seed, "orientation")
    own = np.pi * _labels(images) / images.n_classes
    orientation = (own + _around_zero(len(images), correlation, rng) / 2) % np.pi
    height, width = images.images.shape[2:]
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = y / height - 0.5, x / width - 0.5
    cosine, sine = (each(orientation)[:, None, None] for each in (np.cos, np.sin))
    stripes = 0.5 + 0.5 * np.cos(2 * np.pi * _WAVES * (cosine * x + sine * y))
    textured_images = _behind(images.images, _CONTRAST * stripes[:, None])
    return _with(
        images, textured_images, "orientation", orientation, correlation, seed, period=np.pi
    )


def patched(images: ImageSet, *, correlation: float, seed: int = 0) -> ImageSet:
    """Put a white square into one corner of every image, a corner that depends on the label.

    Parameters
    ----------
    images : ImageSet
        Grey-scale or colour.
    correlation : float
        In [0, 1]: the square is in the class's own corner (class modulo 4) with this probability,
        else in any. It is Cramer's V between the two where classes take corners equally often.
    seed : int, default=0
        Draws the corners, which differ between splits.

    Returns
    -------
    ImageSet
        With the factor ``corner``: 0 top left, 1 top right, 2 bottom left, 3 bottom right. The
        square's side is a seventh of the image's shorter side, in pixels.

    Raises
    ------
    ValueError
        If the images have a corner already, the correlation leaves [0, 1], or the seed is negative.

    References
    ----------
    Cramer, "Mathematical Methods of Statistics", 1946, chapter 21, p. 282.

    Examples
    --------
    >>> blank = ImageSet(np.zeros((2, 1, 7, 7), np.uint8), np.array([1, 4]), name="blank")
    >>> planted = patched(blank, correlation=1.0)
    >>> planted.factors["corner"].tolist(), planted.images[:, 0, 0, [0, -1]].tolist()
    ([1, 0], [[0, 255], [255, 0]])
    """
    rng = _generator(images, correlation, seed, "corner")
    own = _labels(images) % _CORNERS
    follows = rng.random(len(images)) < correlation
    corner = np.where(follows, own, rng.integers(0, _CORNERS, len(images)))
    height, width = images.images.shape[2:]
    side = max(1, min(height, width) // 7)
    patched_images = np.array(images.images)
    for each in range(_CORNERS):
        rows = slice(0, side) if each < 2 else slice(height - side, height)
        columns = slice(0, side) if each % 2 == 0 else slice(width - side, width)
        patched_images[corner == each, :, rows, columns] = 255
    return _with(images, patched_images, "corner", corner, correlation, seed)


PLANTS = {"hue": coloured, "orientation": textured, "corner": patched}


def check_plants(text: str) -> list[tuple[str, float, float, int]]:
    """Read ``FACTOR:CORRELATION[:IN TEST[:SEED]]``, joined by ``+``: what is to be planted."""
    # The test split's correlation is 0 by default: what a shortcut is worth shows there.
    found: list[tuple[str, float, float, int]] = []
    for part in text.split("+"):
        factor, *numbers = part.split(":")
        try:
            if factor not in PLANTS or not 1 <= len(numbers) <= 3:
                raise ValueError
            train, test = float(numbers[0]), float(numbers[1]) if len(numbers) > 1 else 0.0
            seed = int(numbers[2]) if len(numbers) > 2 else 0
            if not (0 <= train <= 1 and 0 <= test <= 1 and seed >= 0):
                raise ValueError
            if factor in [each for each, *_ in found]:
                raise ValueError
        except ValueError:
            raise Refusal(
                f"data must end in +FACTOR:CORRELATION[:IN TEST[:SEED]] with a factor of "
                f"{', '.join(PLANTS)}, each once, and correlations in [0, 1]; got {part!r}."
            ) from None
        found.append((factor, train, test, seed))
    return found


def plant(images: ImageSet, text: str) -> ImageSet:
    """Plant what stands behind the name of a data set, as `check_plants` reads it."""
    name = f"{images.name}+{text}"
    for factor, train, test, seed in check_plants(text):
        correlation = test if images.split == "test" else train
        images = PLANTS[factor](images, correlation=correlation, seed=seed)
    return replace(images, name=name)


def _generator(images: ImageSet, correlation: float, seed: int, factor: str) -> np.random.Generator:
    if not 0 <= correlation <= 1:
        raise Refusal(f"correlation must lie in [0, 1]; got {correlation}.")
    if seed < 0:
        raise Refusal(f"seed must be >= 0; got {seed}.")
    split = SPLITS.index(images.split) if images.split in SPLITS else len(SPLITS)
    return np.random.default_rng([seed, split, *factor.encode()])


def _around_zero(n: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Draw angles around 0 whose mean resultant length is the correlation."""
    from scipy.optimize import brentq
    from scipy.special import ive

    if correlation == 1:
        return np.zeros(n)
    concentration = 0.0
    if correlation > 0:
        limit = 1.0 / (1 - correlation)  # above the root: A(k) > 1 - 1 / k for k >= 1
        concentration = brentq(lambda k: ive(1, k) / ive(0, k) - correlation, 0.0, 1.0 + limit)
    return rng.vonmises(0.0, concentration, size=n)


def _labels(images: ImageSet) -> np.ndarray:
    return labels_in(images, "for a factor to follow")


def _behind(images: Any, background: np.ndarray) -> np.ndarray:
    """Blend a background in [0, 1] into images, as far as each pixel is dark."""
    pixels = np.asarray(images) / np.float32(255)
    blended = pixels + (1 - pixels) * background.astype(np.float32)
    return np.round(255 * blended).astype(np.uint8)


def _with(
    images: ImageSet,
    pixels: np.ndarray,
    factor: str,
    values: np.ndarray,
    correlation: float,
    seed: int,
    period: float | None = None,
) -> ImageSet:
    if factor in images.factors:
        raise Refusal(f"images must not have the factor {factor!r} yet; got one.")
    return replace(
        images,
        images=pixels,
        factors={**images.factors, factor: values},
        periods={**images.periods, **({} if period is None else {factor: period})},
        name=f"{images.name}+{factor}:{_spelled(images, float(correlation), seed)}",
    )


def _spelled(images: ImageSet, correlation: float, seed: int) -> str:
    """Return the text that plants the same factor again in this split."""
    text = repr(correlation)
    if images.split == "test":
        text = f"{text}:{text}" if correlation else "0.0"
    elif seed:
        text += ":0.0"
    if seed:
        text += f":{seed}" if text.count(":") else f":0.0:{seed}"
    return text
