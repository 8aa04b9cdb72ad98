"""Pixels of image files are those of transformers', timm's and open_clip's own transforms."""

import numpy as np
import pytest
from PIL import Image

from dimlab.images import Recipe, means_of
from dimlab.io.blueprints import recipe_of_open_clip, recipe_of_timm
from dimlab.io.processors import proved, recipe_of_transformers, whole
from tests.third_party.cases import others_warn, package

pytestmark = others_warn
SQUARE, SHORT = {"height": 64, "width": 64}, {"shortest_edge": 73}
PROCESSORS = {
    "ViT": {"size": SQUARE},
    "CLIP": {"size": {"shortest_edge": 64}, "crop_size": SQUARE},
    "Bit": {"size": SHORT, "crop_size": SQUARE, "do_center_crop": True},
    "ConvNext": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    "Siglip": {"size": SQUARE},
    "Beit": {"size": SQUARE, "do_center_crop": False},
    "DeiT": {"size": {"height": 73, "width": 73}, "crop_size": SQUARE},
    "DINOv3ViT": {"size": SQUARE},
}
ONLY_TENSORS = ("DINOv3ViT",)  # rescaled before they are resized


@pytest.fixture(params=[(150, 231), (300, 177), (64, 64)], ids=str)
def image(request):
    height, width = request.param
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(recipe: Recipe, image: Image.Image) -> np.ndarray:
    found = np.asarray(recipe.apply(image)).astype(np.float64).transpose(2, 0, 1) / 255
    means, deviations = means_of(recipe.normalisation)
    return (found - np.array(means)[:, None, None]) / np.array(deviations)[:, None, None]


@pytest.mark.parametrize("by", ["", "Pil"], ids=["torchvision", "Pillow"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_transformers(kind, by, image):
    transformers = package("transformers")
    made = getattr(transformers, f"{kind}ImageProcessor{'' if kind in ONLY_TENSORS else by}")
    processor = made(**PROCESSORS[kind])
    expected = processor(images=image, return_tensors="np")["pixel_values"][0]
    recipe = recipe_of_transformers(whole(processor), "preprocessor_config.json")
    recipe, unsure = proved(processor, recipe, "x")
    assert unsure == ""
    np.testing.assert_allclose(pixels(recipe, image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_timm(name, image):
    timm = package("timm")
    config = timm.get_pretrained_cfg(name).to_dict()
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config({}, pretrained_cfg=config)
    )
    recipe = recipe_of_timm(config, "timm")
    expected = transform(image).numpy()
    np.testing.assert_allclose(pixels(recipe, image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_open_clip(mode, image):
    open_clip = package("open_clip")
    config = {"size": 64, "resize_mode": mode, "interpolation": "bicubic",
              "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.4, 0.5)}  # fmt: skip
    transform = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**config), is_train=False
    )
    recipe = recipe_of_open_clip(config, "open_clip_config.json")
    np.testing.assert_allclose(pixels(recipe, image), transform(image).numpy(), rtol=0, atol=1e-5)
