"""Planted truth: images with a nuisance of chosen strength, and features with known dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dimlab.images import SPLITS, ImageSet, labels_in
from dimlab.refusals import Refusal
from dimlab.representation import Representation

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


KINDS = {  # of dimensions in a planted world: how many by default, and of each how many dimensions
    "needed": (4, 1), "harmful": (1, 1), "shortcut": (1, 1), "nuisance": (2, 1), "dead": (1, 1),
    "copy": (1, 2), "sum": (1, 4), "group": (1, 3), "outlier": (1, 1), "shared": (2, 1),
}  # fmt: skip
TARGETS = ("classes", "values", "labels")
_N_CLASSES = 4


@dataclass(frozen=True, eq=False)
class PlantedWorld:
    """Two splits of features, and which of their dimensions are what.

    Parameters
    ----------
    train, test : Representation
        N samples each of the same D dimensions, with labels, the factor ``nuisance`` and two views.
    planted : mapping of str to ndarray of shape (n,), int
        Dimensions by what they were made to be, as `planted_world` lists them, ascending. The other
        dimensions are independent Gaussian noise. All that vary have variance 1 in the population.

    Examples
    --------
    >>> world = planted_world({"dead": 2}, n_samples=20, n_dimensions=5)
    >>> np.flatnonzero(world.mask("dead")).tolist() == world.planted["dead"].tolist()
    True
    """

    train: Representation
    test: Representation
    planted: Mapping[str, np.ndarray]

    def mask(self, kind: str) -> np.ndarray:
        """Say of each dimension whether it is of a kind.

        Parameters
        ----------
        kind : str
            As `planted_world` lists them.

        Returns
        -------
        ndarray of shape (D,), bool
            All False where nothing of the kind is planted.
        """
        return np.isin(np.arange(self.train.n_dimensions), self.planted.get(kind, ()))


def planted_world(
    planted: Mapping[str, int] | None = None,
    *,
    n_samples: int = 400,
    n_dimensions: int = 32,
    target: str = "classes",
    seed: int = 0,
) -> PlantedWorld:
    """Draw features in which it is known what each dimension is.

    Parameters
    ----------
    planted : mapping of str to int, optional
        How many are planted of each kind; by default some of every kind. An empty mapping: noise.

        - ``needed``: follows the label; without it a reader loses.
        - ``harmful``: follows the label in train, and its opposite in test; its views are noise of
          2 standard deviations.
        - ``shortcut``: follows the label in train, and labels of other samples in test.
        - ``nuisance``: follows the factor ``nuisance``, which correlates with the label.
        - ``dead``: does not vary.
        - ``copy``: pairs of affine copies.
        - ``sum``: a sum of three others; all four count, as each follows from the rest.
        - ``group``: three dimensions that correlate by 0.8.
        - ``outlier``: its mean is 8 standard deviations from 0.
        - ``shared``: noise that the two views of a sample have in common (correlation 0.9), as
          they have what is needed; the views of all other dimensions are independent.
    n_samples : int, default=400
        Samples of each split, >= 20.
    n_dimensions : int, default=32
        Dimensions in all, >= 1; places are drawn at random.
    target : {"classes", "values", "labels"}, default="classes"
        What labels are: four equally frequent classes, real values, or three labels a sample. With
        nothing needed they are independent of all features.
    seed : int, default=0
        Seed of everything.

    Returns
    -------
    PlantedWorld
        Splits and places.

    Raises
    ------
    ValueError
        If a kind or the target is unknown, a number is out of range, or more is planted than there
        are dimensions.

    Examples
    --------
    >>> world = planted_world({"needed": 2, "copy": 1}, n_samples=50, n_dimensions=8)
    >>> world.test.shape, {kind: len(places) for kind, places in world.planted.items()}
    ((50, 8), {'needed': 2, 'copy': 2})
    >>> first, second = world.test.features[:, world.planted["copy"]].T
    >>> round(float(np.corrcoef(first, second)[0, 1]), 6)
    -1.0
    """
    counts = {kind: n for kind, (n, _) in KINDS.items()} if planted is None else dict(planted)
    for kind, n in counts.items():
        if kind not in KINDS:
            raise Refusal(f"planted must name kinds of {', '.join(KINDS)}; got {kind!r}.")
        if n < 0:
            raise Refusal(f"planted must hold numbers >= 0; got {n} of {kind}.")
    if target not in TARGETS:
        raise Refusal(f"target must be one of {', '.join(TARGETS)}; got {target!r}.")
    n_planted = sum(n * KINDS[kind][1] for kind, n in counts.items())
    least = {"n_samples": (n_samples, 20), "n_dimensions": (n_dimensions, 1), "seed": (seed, 0)}
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise Refusal(f"{name} must be >= {smallest}; got {value}.")
    if n_planted > n_dimensions:
        raise Refusal(f"n_dimensions must be >= {n_planted}, what is planted; got {n_dimensions}.")
    places = iter(np.random.default_rng([seed, 0]).permutation(n_dimensions))
    at = {
        kind: np.array([next(places) for _ in range(n * KINDS[kind][1])], dtype=np.int64)
        for kind, n in counts.items()
        if n
    }
    train, test = (_drawn(at, n_samples, n_dimensions, target, seed, sign) for sign in (1, -1))
    return PlantedWorld(train, test, {kind: np.sort(each) for kind, each in at.items()})


def _drawn(
    at: Mapping[str, np.ndarray], n: int, d: int, target: str, seed: int, sign: int
) -> Representation:
    """Draw a split; harmful dimensions follow the label with the sign."""
    rng = np.random.default_rng([seed, 2 + sign])
    of = {kind: at.get(kind, np.zeros(0, np.int64)) for kind in KINDS}
    features, views = rng.normal(size=(n, d)), rng.normal(size=(2, n, d))
    needed = of["needed"]
    if target == "classes":
        labels: np.ndarray = rng.permutation(np.arange(n) % _N_CLASSES)
        shift = 2.0 * (labels[:, None] == np.arange(len(needed)) % _N_CLASSES)
        features[:, needed] = (features[:, needed] + shift) / np.sqrt(1.75)
    else:
        of_label = np.arange(len(needed)) % 3 == np.arange(3)[:, None]
        labels = features[:, needed] @ of_label.T + 0.7 * rng.normal(size=(n, 3))
        labels = labels.sum(axis=1) if target == "values" else (labels > 0).astype(np.int64)
    score = labels if labels.ndim == 1 else labels.sum(axis=1)
    score = (score - score.mean()) / score.std()
    nuisance = 0.6 * score + 0.8 * rng.normal(size=n)
    misleading = score
    if sign < 0 and len(of["shortcut"]):
        misleading = score[rng.permutation(n)]
    for kind, slope, follows in (
        ("harmful", sign * 1.5, score), ("nuisance", 0.8, nuisance), ("shortcut", 2.0, misleading)
    ):  # fmt: skip
        moved = features[:, of[kind]] + slope * follows[:, None]
        features[:, of[kind]] = moved / np.sqrt(1 + slope**2)
    first, second = np.split(of["copy"], 2)
    features[:, second] = 1.0 - features[:, first]
    *terms, total = np.split(of["sum"], 4)
    features[:, total] = sum(features[:, each] for each in terms) / np.sqrt(3)
    for group in of["group"].reshape(-1, 3):
        features[:, group] = (
            np.sqrt([0.8]) * rng.normal(size=(n, 1)) + np.sqrt(0.2) * features[:, group]
        )
    features[:, of["outlier"]] += 8.0
    views[:, :, of["harmful"]] *= 2.0
    shared = np.concatenate([needed, of["shared"]])
    views[:, :, shared] = np.sqrt(0.9) * features[:, shared] + np.sqrt(0.1) * views[:, :, shared]
    features[:, of["dead"]] = np.arange(1.0, 1 + len(of["dead"]))
    views[:, :, of["dead"]] = np.arange(1.0, 1 + len(of["dead"]))
    return Representation(features, labels=labels, factors={"nuisance": nuisance}, views=views)
