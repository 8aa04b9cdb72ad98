"""From image files to pixels: what the recipe says is what torchvision and timm do, by hand."""

import numpy as np
import pytest
from PIL import Image

from dimlab.images import NORMALISATIONS, Recipe, means_of, normalisation_of


@pytest.fixture
def picture(rng):
    def make(width, height):
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        return Image.fromarray(pixels)

    return make


def by_hand(image, size, resize, method, squash=False):
    """Resize(resize) and CenterCrop(size) of torchvision's documentation, written anew."""
    width, height = image.size
    if squash:
        wanted = (resize, resize)
    elif width <= height:
        wanted = (resize, int(resize * height / width))
    else:
        wanted = (int(resize * width / height), resize)
    resized = np.asarray(image.resize(wanted, method))
    top = round((resized.shape[0] - size) / 2.0)
    left = round((resized.shape[1] - size) / 2.0)
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("sides", [(500, 375), (64, 101), (37, 37), (40, 300)])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (32, 32), (56, 63)])
@pytest.mark.parametrize("method", ["bilinear", "bicubic", "lanczos"])
def test_pixels_are_those_of_resize_and_centre_crop(picture, sides, size, resize, method):
    image = picture(*sides)
    known = Image.Resampling[method.upper()]
    for crop in ("centre", "squash"):
        recipe = Recipe(size=size, resize=resize, crop=crop, interpolation=method)
        expected = by_hand(image, size, resize, known, squash=crop == "squash")
        np.testing.assert_array_equal(np.asarray(recipe.apply(image)), expected)


def test_what_is_not_said_comes_from_the_next_source():
    stem = Recipe.of_torchvision("ImageNet stem")
    assert stem.in_words() == ("image size 224 (ImageNet stem), resize 256, centre crop, bilinear")
    flags = Recipe.of("--image-size", size=112)
    both = flags.over(Recipe.of("config.json", normalisation="half")).over(stem)
    assert (both.size, both.resize, both.normalisation) == (112, 128, "half")
    assert both.in_words() == (
        "image size 112 (--image-size), resize 128 (ImageNet stem), centre crop, bilinear, "
        "normalisation half (config.json)"
    )
    assert Recipe.of("--resize", resize=128).over(stem).size == 128
    assert Recipe.of("--resize", resize=300).over(stem) == Recipe(224, 300, "centre", "bilinear")
    assert Recipe().over(stem) == stem


def test_images_without_a_recipe_stay_as_they_are(picture):
    image = picture(30, 20)
    np.testing.assert_array_equal(Recipe().apply(image), np.asarray(image))


@pytest.mark.parametrize("name", sorted(NORMALISATIONS))
def test_normalisations_are_named_or_spelled(name):
    assert normalisation_of(*means_of(name)) == name
    spelled = normalisation_of([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert means_of(spelled) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert means_of("none") is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"size": 0}, "image_size must be >= 1; got 0"),
        ({"resize": 0}, "resize must be >= 1; got 0"),
        ({"size": 224, "resize": 200}, "resize must be at least image_size, 224; got 200"),
        ({"crop": "middle"}, "crop must be one of centre, squash; got 'middle'"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, .*; got 'cubic'"),
        ({"normalisation": "unit"}, "normalisation must be one of none, imagenet, clip, half, or"),
        ({"normalisation": "0.5/0"}, "normalisation must be one of"),
    ],
)
def test_values_out_of_range_are_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        Recipe(**values)
