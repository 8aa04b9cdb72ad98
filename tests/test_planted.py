"""Planted factors: the dependence that was asked for, on real pixels, named so that it loads."""

import numpy as np
import pytest
from scipy.stats.contingency import association

from dimlab import datasets
from dimlab.datasets import digits
from dimlab.images import ImageSet
from dimlab.planted import check_plants, coloured, patched, plant, textured


def blank(n=20_000, n_classes=8, n_channels=1):
    return ImageSet(
        np.zeros((n, n_channels, 7, 7), np.uint8), np.arange(n) % n_classes, name="blank"
    )


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8, 0.99, 1.0])
def test_hue_has_the_mean_resultant_length_that_was_asked_for(correlation):
    images = coloured(blank(), correlation=correlation)
    gap = images.factors["hue"] - 2 * np.pi * images.labels / 8
    np.testing.assert_allclose(np.exp(1j * gap).mean(), correlation, atol=0.02)
    assert images.periods == {"hue": 2 * np.pi}
    assert 0 <= images.factors["hue"].min() <= images.factors["hue"].max() < 2 * np.pi


def test_orientation_has_it_for_the_doubled_angle():
    images = textured(blank(), correlation=0.6)
    gap = 2 * (images.factors["orientation"] - np.pi * images.labels / 8)
    np.testing.assert_allclose(np.exp(1j * gap).mean(), 0.6, atol=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_corner_has_it_as_cramers_v(correlation):
    images = patched(blank(), correlation=correlation)
    table = np.zeros((4, 4), int)
    np.add.at(table, (images.labels % 4, images.factors["corner"]), 1)
    np.testing.assert_allclose(association(table), correlation, atol=0.02)


def test_the_background_has_the_hue_and_white_stays_white():
    grey = ImageSet(
        np.array([0, 255], np.uint8).reshape(1, 1, 1, 2).repeat(50, 0),
        np.zeros(50, int),
        name="two",
    )
    images = coloured(grey, correlation=0.0)
    dark, white = images.images[:, :, 0, 0] / 255.0, images.images[:, :, 0, 1]
    np.testing.assert_array_equal(white, 255)
    # the first harmonic over the three channels is the hue
    angle = np.angle((dark * np.exp(2j * np.pi / 3 * np.arange(3))).sum(axis=1)) % (2 * np.pi)
    np.testing.assert_allclose(np.exp(1j * (angle - images.factors["hue"])), 1, atol=0.02)
    assert dark.mean(axis=1).std() < 0.005  # no hue is brighter than another


def test_stripes_run_as_the_orientation_says():
    images = textured(
        ImageSet(np.zeros((4, 1, 32, 32), np.uint8), np.zeros(4, int), name="blank"),
        correlation=0.0,
    )
    for pixels, angle in zip(images.images[:, 0], images.factors["orientation"], strict=True):
        power = np.abs(np.fft.fft2(pixels - pixels.mean()))
        row, column = np.unravel_index(power.argmax(), power.shape)
        found = np.arctan2((row + 16) % 32 - 16, (column + 16) % 32 - 16)
        assert abs(np.angle(np.exp(2j * (found - angle)))) < 0.5


def test_a_square_stands_in_its_corner_and_nothing_else_changes():
    images = patched(blank(40, n_channels=3), correlation=0.3)
    corners = images.images[:, :, [0, 0, 6, 6], [0, 6, 0, 6]]
    expected = 255 * np.eye(4)[images.factors["corner"]]
    np.testing.assert_array_equal(corners, np.repeat(expected[:, None], 3, axis=1))
    assert images.images.sum() == 40 * 3 * 255


def test_draws_repeat_by_seed_and_differ_by_split():
    base = digits("test").take(range(50))
    train = ImageSet(base.images, base.labels, name="digits", split="train")
    hue = [
        coloured(images, correlation=0.2, seed=seed).factors["hue"]
        for images, seed in ((base, 0), (base, 0), (base, 1), (train, 0))
    ]
    np.testing.assert_array_equal(hue[0], hue[1])
    for other in hue[2:]:
        assert np.abs(other - hue[0]).min() > 0


def test_the_name_of_what_was_planted_loads_it():
    for split, correlation in (("train", 0.8), ("validation", 0.8), ("test", 0.0)):
        by_name = datasets.load_images("digits+hue:0.8", split)
        by_hand = coloured(digits(split), correlation=correlation)
        np.testing.assert_array_equal(by_name.images, by_hand.images)
        assert by_name.name == "digits+hue:0.8"
    assert coloured(digits("train"), correlation=0.8).name == by_name.name
    for split in ("train", "test"):
        for correlation, seed in ((0.5, 3), (0.812345678, 0), (0.0, 0), (0.0, 2)):
            seeded = textured(digits(split), correlation=correlation, seed=seed)
            again = datasets.load_images(seeded.name, split)
            np.testing.assert_array_equal(again.images, seeded.images)
    two = plant(digits("test"), "corner:1:1+hue:0.5:0.25")
    assert sorted(two.factors) == ["corner", "hue"]
    np.testing.assert_array_equal(two.factors["corner"], two.labels % 4)


def test_bad_requests_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^correlation must lie in \[0, 1\]; got 1\.5\.$"):
        coloured(blank(4), correlation=1.5)
    with pytest.raises(ValueError, match=r"^seed must be >= 0; got -1\.$"):
        patched(blank(4), correlation=0.5, seed=-1)
    with pytest.raises(ValueError, match=r"^images must be grey-scale, .* got \(4, 3, 7, 7\)\.$"):
        coloured(blank(4, n_channels=3), correlation=0.5)
    with pytest.raises(ValueError, match=r"^images must not have the factor 'corner' yet"):
        patched(plant(blank(4), "corner:1"), correlation=1)
    for text in (
        "hue",
        "hue:2",
        "hue:a",
        "glow:0.5",
        "hue:0.5:0.5:-1",
        "hue:1:1:1:1",
        "hue:0.5+",
        "",
        "hue:0.5+hue:0.2",
    ):
        with pytest.raises(ValueError, match=r"^data must end in \+FACTOR:CORRELATION"):
            check_plants(text)
        with pytest.raises(ValueError, match=r"^data must end in"):
            datasets.check_name(f"digits+{text}")
