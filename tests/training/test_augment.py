import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.training.augment import Augmentation, derived_seed
from dimlab.training.config import TrainConfig


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4])
def test_views_do_not_depend_on_how_the_batch_is_cut(n_channels, rng):
    images = torch.from_numpy(rng.random((11, n_channels, 12, 12), dtype=np.float32))
    augmentation = Augmentation(TrainConfig(), n_channels, (12, 12))
    drawn = augmentation.draw(11, seed=5)
    whole = augmentation.apply(images, drawn, slice(0, 11))
    cuts = [slice(0, 1), slice(1, 5), slice(5, 11)]
    parts = [augmentation.apply(images[rows], drawn, rows) for rows in cuts]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert not torch.allclose(whole, images, atol=0.05)


def test_same_seed_same_view_and_another_seed_another():
    augmentation = Augmentation(TrainConfig(), 1, (8, 8))
    first, again, other = (augmentation.draw(4, seed)["crop"]["src"] for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_without_randomness_the_view_is_the_image(rng):
    config = replace(TrainConfig(), crop_scale=1.0, flip=0.0, jitter=0.0, grey=0.0)
    images = torch.from_numpy(rng.random((5, 3, 8, 8), dtype=np.float32))
    augmentation = Augmentation(config, 3, (8, 8))
    drawn = augmentation.draw(5, seed=0)
    factors = augmentation.factors(drawn)
    kept = factors["crop_scale"] == 1  # the aspect ratio is random still
    assert not factors["flip"].any()
    assert (factors["hue"] == 0).all()
    assert (factors["brightness"] == 1).all()
    view = augmentation.apply(images, drawn, slice(None))
    torch.testing.assert_close(view[kept], images[kept], atol=1e-5, rtol=0)


def test_factors_are_the_parameters_that_made_the_view(rng):
    config = replace(TrainConfig(), flip=0.5, jitter=0.0)
    images = torch.from_numpy(rng.random((16, 1, 10, 10), dtype=np.float32))
    augmentation = Augmentation(config, 1, (10, 10))
    drawn = augmentation.draw(16, seed=3)
    factors = augmentation.factors(drawn)
    view = augmentation.apply(images, drawn, slice(None))
    unflipped = augmentation.apply(
        images, {**drawn, "flip": {**drawn["flip"], "batch_prob": torch.zeros(16)}}, slice(None)
    )
    assert 0 < factors["flip"].sum() < 16
    for sample, flipped in enumerate(factors["flip"]):
        expected = unflipped[sample].flip(-1) if flipped else unflipped[sample]
        torch.testing.assert_close(view[sample], expected)
    assert (factors["crop_scale"] > 0.25).all()
    assert (factors["crop_scale"] <= 1).all()


# torchvision's documented formulas, by hand ------------------------------------------------------

STILL = {"crop_scale": 1.0, "flip": 0.0, "jitter": 0.0, "grey": 0.0}
WEIGHTS = np.array([0.299, 0.587, 0.114])  # of R, G and B in grey (ITU-R 601-2, as PIL)


def grey_of(image):
    return np.tensordot(WEIGHTS, image, 1) if len(image) == 3 else image.mean(axis=0)


def turned(image, turn):
    def hue_moved(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)

    return np.apply_along_axis(hue_moved, 0, image)


OPERATIONS = {
    "brightness": lambda image, factor: factor * image,
    "contrast": lambda image, factor: factor * image + (1 - factor) * grey_of(image).mean(),
    "saturation": lambda image, factor: factor * image + (1 - factor) * grey_of(image),
    "hue": turned,
}


def resized(image, size):
    """Bilinear between pixel centres: output i lies at (i + 1/2) n / size - 1/2 of the input."""
    for axis in (1, 2):
        n, n_out = image.shape[axis], size[axis - 1]
        at = np.clip((np.arange(n_out) + 0.5) * n / n_out - 0.5, 0, n - 1)
        below = np.floor(at).astype(int)
        share = (at - below).reshape(-1, *[1] * (2 - axis))
        low, high = (image.take(np.minimum(each, n - 1), axis) for each in (below, below + 1))
        image = (1 - share) * low + share * high
    return image


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))  # other orders of the operations
def test_jitter_is_the_formula_of_its_factors(n_channels, seed, rng):
    config = replace(TrainConfig(), **STILL | {"jitter": 0.8, "jitter_strength": 0.7})
    images = rng.random((20, n_channels, 6, 5))
    augmentation = Augmentation(config, n_channels, (6, 5))
    drawn = augmentation.draw(20, seed)
    drawn["crop"]["src"][:] = torch.tensor([[0, 0], [4, 0], [4, 5], [0, 5]])  # the whole image
    order = [list(OPERATIONS)[i] for i in drawn.get("jitter", drawn.get("brightness"))["order"]]
    factors = augmentation.factors(drawn)
    views = augmentation.apply(torch.from_numpy(images), drawn, slice(None)).numpy()
    for row, image in enumerate(images):
        for name in order:
            if name in factors:
                image = OPERATIONS[name](image, factors[name][row]).clip(0, 1)
        np.testing.assert_allclose(views[row], image, atol=1e-5, rtol=0)
    assert set(factors) >= {"brightness", "contrast"}
    assert ("saturation" in factors) == (n_channels == 3)


@pytest.mark.parametrize("n_channels", [1, 4])
def test_brightness_scales_mean_and_spread_and_contrast_only_the_spread(n_channels, rng):
    """Drawn between 1 - strength and 1 + strength, where nothing is clipped."""
    config = replace(TrainConfig(), **STILL | {"jitter": 1.0, "jitter_strength": 0.3})
    augmentation = Augmentation(config, n_channels, (8, 8))
    image = torch.from_numpy(rng.uniform(0.4, 0.6, (1, n_channels, 8, 8))).repeat(50, 1, 1, 1)
    drawn = augmentation.draw(50, seed=2)
    drawn["crop"]["src"][:] = torch.tensor([[0, 0], [7, 0], [7, 7], [0, 7]])
    factors = augmentation.factors(drawn)
    for name, other in (("brightness", "contrast"), ("contrast", "brightness")):
        alone = {step: params for step, params in drawn.items() if step != other}
        view = augmentation.apply(image, alone, slice(None))
        mean = view.mean((1, 2, 3)) / image.mean((1, 2, 3))
        spread = view.std((1, 2, 3)) / image.std((1, 2, 3))
        expected = factors[name] if name == "brightness" else np.ones(50)
        np.testing.assert_allclose(mean, expected, rtol=1e-6)
        np.testing.assert_allclose(spread, factors[name], rtol=1e-6)


@pytest.mark.parametrize("strength", [0.2, 1.0])  # the second one clips
def test_a_grey_image_gets_the_view_of_its_copy_in_colour(strength, rng):
    config = replace(TrainConfig(), jitter_strength=strength, crop_scale=0.3)
    grey = torch.from_numpy(rng.random((40, 1, 9, 9)))
    of_one, of_three = (Augmentation(config, n_channels, (9, 9)) for n_channels in (1, 3))
    for seed in range(4):
        view = of_one.apply(grey, of_one.draw(40, seed), slice(None))
        copy = of_three.apply(grey.expand(-1, 3, -1, -1), of_three.draw(40, seed), slice(None))
        torch.testing.assert_close(view.expand(-1, 3, -1, -1), copy, atol=2e-6, rtol=0)


def test_colour_turns_grey_by_the_weights_of_its_channels(rng):
    config = replace(TrainConfig(), **STILL | {"grey": 1.0})
    images = rng.random((3, 3, 4, 4))
    augmentation = Augmentation(config, 3, (4, 4))
    drawn = augmentation.draw(3, seed=0)
    drawn["crop"]["src"][:] = torch.tensor([[0, 0], [3, 0], [3, 3], [0, 3]])
    views = augmentation.apply(torch.from_numpy(images), drawn, slice(None)).numpy()
    for image, view in zip(images, views, strict=True):
        np.testing.assert_allclose(view, np.tile(grey_of(image), (3, 1, 1)), atol=1e-6)


def test_a_crop_is_resized_between_pixel_centres(rng):
    config = replace(TrainConfig(), **STILL | {"crop_scale": 0.1})
    images = rng.random((30, 1, 11, 8))
    augmentation = Augmentation(config, 1, (11, 8))
    drawn = augmentation.draw(30, seed=1)
    views = augmentation.apply(torch.from_numpy(images), drawn, slice(None)).numpy()
    corners = drawn["crop"]["src"].long().numpy()
    for image, view, corner in zip(images, views, corners, strict=True):
        (left, top), (right, bottom) = corner[0], corner[2] + 1
        expected = resized(image[:, top:bottom, left:right], (11, 8))
        np.testing.assert_allclose(view, expected, atol=1e-6)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_what_is_drawn_has_the_stated_laws(n_channels):
    """One draw a sample decides on the whole jitter; factors are uniform within their ranges."""
    from scipy.stats import kstest

    config = replace(TrainConfig(), jitter=0.7, jitter_strength=0.4, crop_scale=0.1, grey=0.2)
    augmentation = Augmentation(config, n_channels, (64, 64))
    factors = augmentation.factors(augmentation.draw(4000, seed=0))
    jittered = factors["brightness"] != 1
    assert abs(jittered.mean() - 0.7) < 0.025
    np.testing.assert_array_equal(jittered, factors["contrast"] != 1)
    spread = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    for name in spread.keys() & factors.keys():
        centre = 0.0 if name == "hue" else 1.0
        law = (centre - spread[name], 2 * spread[name])
        assert kstest(factors[name][jittered], "uniform", law).pvalue > 0.001, name
    assert abs(np.corrcoef(factors["brightness"], factors["contrast"])[0, 1]) < 0.06
    assert abs(factors["flip"].mean() - config.flip) < 0.03
    area = factors["crop_scale"][factors["crop_scale"] < 0.7]  # any aspect ratio fits
    assert kstest(area, "uniform", (0.1, 0.6)).statistic < 0.03
    if n_channels == 3:
        assert abs(factors["grey"].mean() - 0.2) < 0.025


def test_streams_of_one_seed_are_distinct_and_repeatable():
    seeds = {derived_seed(0, *path) for path in [(0,), (1,), (0, 0), (0, 1), (1, 0), (2, 5, 1)]}
    assert len(seeds) == 6
    assert derived_seed(7, 1, 2) == derived_seed(7, 1, 2)
