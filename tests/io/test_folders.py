"""Folders of transformers, timm and open_clip: told by their configuration, whole or refused."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dimlab import encode
from dimlab.images import ImageFiles, ImageSet, Recipe, fit
from dimlab.io.blueprints import options_in, recipe_of_open_clip, recipe_of_timm
from dimlab.io.folders import Tower, folder_at
from dimlab.io.inspecting import inspect_file
from dimlab.io.places import Wanted
from dimlab.io.processors import processor_of, proved, recipe_of_transformers, whole
from dimlab.io.weights import load_encoder

VIT = {"model_type": "vit", "hidden_size": 8}
TIMM = {"architecture": "resnet18", "num_classes": 3, "global_pool": "max",
        "model_args": {"img_size": [64, 64], "num_classes": 3},
        "pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 0.9, "mean": [0.5] * 3,
                           "std": [0.5] * 3}}  # fmt: skip


def folder(path, config, *weights, name="config.json"):
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(config if isinstance(config, str) else json.dumps(config))
    for each in weights:
        (path / each).write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    ("config", "name", "weights", "package"),
    [
        (VIT, "config.json", "model.safetensors", "transformers"),
        (VIT, "config.json", "pytorch_model.bin", "transformers"),
        (TIMM, "config.json", "model.safetensors", "timm"),
        ({"model_cfg": {}}, "open_clip_config.json", "open_clip_pytorch_model.bin", "open_clip"),
    ],
)
def test_a_folder_is_told_by_its_configuration(tmp_path, config, name, weights, package):
    path = folder(tmp_path / "a", config, weights, name=name)
    for named in (path, path / weights):
        found = folder_at(named)
        assert found is not None
        assert (found.package, found.weights) == (package, (path / weights,))
    assert found.content[1][:] == b"weights"


def test_other_folders_and_files_are_none(tmp_path):
    assert folder_at(tmp_path) is None
    assert folder_at(tmp_path / "model.safetensors") is None
    assert folder_at(folder(tmp_path / "a", {"lr": 0.1}, "model.safetensors")) is None
    path = folder(tmp_path / "b", VIT, "model.safetensors", "other.pth")
    assert folder_at(path / "other.pth") is None


def test_sentence_transformers_keeps_its_model_within(tmp_path):
    folder(tmp_path, [{"path": "0_CLIP"}], name="modules.json")
    inner = folder(tmp_path / "0_CLIP", VIT, "model.safetensors")
    found = folder_at(tmp_path)
    assert found is not None
    assert found.path == inner


@pytest.mark.parametrize(
    ("config", "index", "sentence"),
    [
        (VIT, None, r"a must hold model.safetensors or pytorch_model.bin beside its configuration"),
        ("{", None, r"config.json must be readable JSON; got: "),
        (VIT, {"weight_map": {"a": "part.safetensors"}}, r"got it without part.safetensors"),
        (VIT, {"weight_map": {}}, r"got it which names none"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path, config, index, sentence):
    path = folder(tmp_path / "a", config)
    if index is not None:
        folder(path, index, name="model.safetensors.index.json")
    for read in (load_encoder, inspect_file):
        with pytest.raises(ValueError, match=sentence):
            read(path)


def test_all_shards_are_the_folder_s(tmp_path):
    path = folder(tmp_path, VIT, "one.safetensors", "two.safetensors")
    weights = {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    folder(path, {"weight_map": weights}, name="model.safetensors.index.json")
    found = folder_at(path)
    assert found is not None
    assert [each.name for each in found.weights] == ["one.safetensors", "two.safetensors"]


def test_what_timm_records_is_asked_for_unless_a_person_says_otherwise(tmp_path):
    found = folder_at(folder(tmp_path, TIMM, "model.safetensors"))
    assert found is not None
    wanted = found.wanted(Wanted())
    assert (wanted.encoder, wanted.is_recorded) == ("timm:resnet18", True)
    assert dict(wanted.options) == {"img_size": (64, 64), "global_pool": "max"}
    other = found.wanted(Wanted("timm:resnet34", pool="mean", options=(("img_size", 32),)))
    assert (other.encoder, other.is_recorded) == ("timm:resnet34", False)
    assert dict(other.options) == {"img_size": 32}
    assert found.recipe().in_words() == (
        "image size 96 (config.json), resize 106, centre crop, bicubic, normalisation half"
    )


def test_a_folder_of_timm_s_that_pads_is_refused_with_what_to_change(tmp_path):
    def folder_with(crop_mode):
        config = TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_mode": crop_mode}}
        return folder_at(folder(tmp_path, config, "model.safetensors"))

    with pytest.raises(ValueError, match=r"'border', .* Set crop_mode to 'center' or 'squash'"):
        folder_with("border").recipe()
    for mode, words in (("center", "centre crop"), ("squash", "squashed to a square")):
        assert words in folder_with(mode).recipe().in_words()


SQUARE, SHORT = {"height": 64, "width": 64}, {"shortest_edge": 73}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("processor", "words"),
    [
        ({"size": SQUARE, "resample": 2, **HALF},
         "image size 64, resize 64, squashed to a square, bilinear, normalisation half"),
        ({"size": SHORT, "crop_size": 64, "resample": 3, "do_normalize": False},
         "image size 64, resize 73, centre crop, bicubic, normalisation none"),
        ({"size": 64, "do_center_crop": False, "crop_size": SQUARE, **HALF},
         "image size 64, resize 64, squashed to a square, normalisation half"),
        ({"size": SHORT, "crop_pct": 0.5, **HALF},
         "image size 73, resize 146, centre crop, normalisation half"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.5, **HALF},
         "image size 384, resize 384, squashed to a square, normalisation half"),
        ({"size": SQUARE, "do_resize": False, **HALF}, "normalisation half"),
        ({"do_rescale": False, "do_normalize": False},
         "normalisation 0,0,0/0.00392156863,0.00392156863,0.00392156863"),
    ],
)  # fmt: skip
def test_processors_of_transformers(processor, words):
    found = recipe_of_transformers(processor, "p.json")
    assert found.in_words().replace(" (p.json)", "") == words


def test_a_crop_beyond_the_resized_image_is_refused():
    with pytest.raises(ValueError, match=r"must resize to at least what it crops; got 32 and 64"):
        recipe_of_transformers({"size": 32, "crop_size": 64}, "p.json")


def test_transformers_crops_half_a_pixel_lower_than_torchvision():
    image = Image.fromarray(np.arange(7, dtype=np.uint8)[:, None].repeat(4, 1))
    rows = [np.asarray(Recipe(size=4, resize=4, rounds_down=each).apply(image))[0, 0]
            for each in (False, True)]  # fmt: skip
    assert rows == [2, 1]  # 1.5 rows stand above


def test_a_processor_that_normalises_is_proved():
    made = Processor()
    made.steps = [lambda pixels: (pixels - 0.5) / 0.5]
    recipe = recipe_of_transformers(whole(made) | {"do_normalize": True, **HALF}, "p.json")
    assert proved(made, recipe, "f") == (recipe, "")


@pytest.mark.parametrize(("kind", "resampler"), [("uint8", "torch"), ("float32", "torch-float")])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_processor_of_tensors_is_followed_to_its_rounding(kind, resampler, mode):
    made = Processor()

    def resized(images):  # as the image processors of torchvision do, before or after they rescale
        pixels = torch.tensor(np.array(images)).permute(2, 0, 1)[None].to(getattr(torch, kind))
        found = torch.nn.functional.interpolate(pixels, (64, 64), mode=mode, antialias=True)
        return found[0].permute(1, 2, 0).numpy() / np.float32(255)

    made.resized = resized
    read = recipe_of_transformers(whole(made), "p.json")
    recipe, unsure = proved(made, replace(read, interpolation=mode), "f")
    assert (recipe.resampler, unsure) == (resampler, "")
    assert f"{mode} as torchvision resizes tensors" in recipe.in_words()
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 90, 70), np.uint8)
    pixels = resized(image[0].transpose(1, 2, 0)).transpose(2, 0, 1)
    files = ImageFiles(image, np.array(["a"]), recipe)
    for given in (files, image):  # of files, and of arrays in memory
        split = encode(nn.Flatten(), fit(ImageSet(given, name="one"), recipe))
        np.testing.assert_allclose(split.features[0], pixels.ravel(), rtol=0, atol=1e-6)


def test_what_is_no_tensor_is_refused_but_for_coca_s_pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)), images

    images = torch.arange(96.0).reshape(2, 3, 4, 4)
    tower = Tower(Pair(), "open_clip:coca_base")
    torch.testing.assert_close(tower(images), images.mean((2, 3)))
    assert "not normalised as CoCa's encode_image does it" in tower.assumed[0]
    with pytest.raises(ValueError, match="encoder must give one tensor a batch; timm:x gave tuple"):
        Tower(Pair(), "timm:x")(images)


def test_recipes_of_timm_and_open_clip():
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"input_size": (3, 64, 64), "crop_mode": "squash", "crop_pct": 1.0, **half}
    squashed = "resize 64, squashed to a square, bicubic, normalisation half"
    assert recipe_of_timm(config, "t").in_words() == f"image size 64 (t), {squashed}"
    config = {"size": [64, 64], "resize_mode": "squash", "interpolation": "bicubic", **half}
    assert recipe_of_open_clip(config, "o").in_words() == f"image size 64 (o), {squashed}"
    assert recipe_of_timm({}, "t") == recipe_of_open_clip({}, "o") == Recipe()


@pytest.mark.parametrize(
    ("read", "config", "sentence"),
    [
        (recipe_of_timm, {"input_size": (3, 64, 96)}, "t must take square images; got 64 x 96"),
        (recipe_of_open_clip, {"size": [64, 96]}, "t must take square images; got 64 x 96"),
        (recipe_of_open_clip, {"size": 64, "resize_mode": "longest"}, "'longest', which pads"),
    ],
)
def test_recipes_that_make_no_squares_are_refused(read, config, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(config, "t")


class Processor:
    """As those of transformers are: made of a configuration, and called with an image."""

    steps = ()

    @classmethod
    def from_dict(cls, config):
        if "broken" in config:
            raise OSError("torchvision is not there")
        return cls()

    def to_dict(self):
        return {"size": SQUARE, "do_resize": True, "resample": 2, "do_rescale": True}

    def resized(self, images):
        return np.asarray(images.resize((64, 64), Image.Resampling.BILINEAR)) / 255

    def __call__(self, images, return_tensors):
        pixels = self.resized(images)
        for step in self.steps:
            pixels = step(pixels)
        return {"pixel_values": pixels.transpose(2, 0, 1)[None]}


def test_a_processor_is_built_by_the_name_of_its_class():
    package = SimpleNamespace(OwnImageProcessorPil=Processor)
    for name in ("OwnImageProcessor", "OwnImageProcessorFast", "OwnFeatureExtractor"):
        key = "feature_extractor_type" if name.endswith("Extractor") else "image_processor_type"
        assert isinstance(processor_of(package, {key: name}), Processor)
    assert processor_of(package, {"image_processor_type": "OtherImageProcessor"}) is None
    broken = {"image_processor_type": "OwnImageProcessor", "broken": 1}
    assert processor_of(package, broken) is processor_of(package, {}) is None


@pytest.mark.parametrize(
    "step",
    [
        lambda pixels: pixels[..., ::-1],  # BGR
        lambda pixels: (pixels - 0.5) / 0.5,
        lambda pixels: pixels[:32],
        lambda pixels: pixels * 255,
        lambda pixels: np.roll(pixels, 2, axis=0),
    ],
)
def test_a_processor_that_does_more_is_refused(step):
    made = Processor()
    recipe = recipe_of_transformers(whole(made), "p.json")
    assert proved(made, recipe, "f")[1] == ""
    made.steps = [lambda pixels: np.round(pixels * 255 + 0.6) / 255]
    assert "of Processor, which rounds otherwise" in proved(made, recipe, "f")[1]
    made.steps = [step]
    with pytest.raises(ValueError, match=r"f must prepare images as dimlab does.*got Processor, w"):
        proved(made, recipe, "f")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["num_heads"], "encoder_option must be NAME=VALUE; got 'num_heads'"),
        (["norm_eps=0"], "encoder_option norm_eps must be a number > 0"),
        (["norm_eps=small"], "encoder_option norm_eps must be a number > 0"),
    ],
)
def test_options_that_are_none(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        options_in(given)


def test_options_are_json_or_text():
    given = ["a=1", "b=0.5", "c=True", "d=blur", "e=[1, 2]"]
    assert options_in(given) == {"a": 1, "b": 0.5, "c": True, "d": "blur", "e": (1, 2)}
