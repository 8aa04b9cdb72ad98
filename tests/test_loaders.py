"""Any module and any loader: what comes out is the module's own output, whatever its shape."""

import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dimlab import encode_loader
from dimlab.datasets import huggingface

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"  # beside the checkout
N, D = 6, 4


class Tower(nn.Module):
    """Gives what vision towers give: tokens, a pooled vector, a map."""

    def forward(self, pixels):
        tokens = pixels.flatten(1)[:, : 5 * D].view(-1, 5, D)
        return tokens, tokens[:, 0] * 2


class Output(OrderedDict):
    """As transformers' ModelOutput: a mapping with attributes."""

    __getattr__ = OrderedDict.__getitem__


def output_of(pixels):
    tokens, pooled = Tower()(pixels)
    return Output(last_hidden_state=tokens, pooler_output=pooled)


def as_object(pixels):
    return SimpleNamespace(**output_of(pixels))


@pytest.fixture
def pixels():
    return torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def check(split, expected):
    np.testing.assert_allclose(split.features, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("module", [output_of, as_object])
def test_a_part_of_the_output_is_selected_by_name(module, pixels):
    tokens, pooled = Tower()(pixels)
    check(encode_loader(module, [pixels], select="pooler_output"), pooled)
    check(encode_loader(module, [pixels], select=lambda found: found.pooler_output), pooled)
    split = encode_loader(module, [pixels], select="last_hidden_state", pool="cls")
    check(split, tokens[:, 0])
    with pytest.raises(ValueError, match=r"select must name .* 'pooler_output'; got 'nothing'"):
        encode_loader(module, [pixels], select="nothing")


def test_tuples_are_selected_by_place_and_a_lone_part_needs_no_name(pixels):
    tokens, pooled = Tower()(pixels)
    check(encode_loader(Tower(), [pixels], select=1), pooled)
    check(encode_loader(Tower(), [pixels], select=0, pool="patches"), tokens[:, 1:].mean(1))
    check(encode_loader(lambda batch: {"feats": pooled}, [pixels]), pooled)
    check(encode_loader(lambda batch: (pooled,), [pixels]), pooled)


def test_maps_and_tokens_are_pooled_as_asked(pixels):
    tokens, _ = Tower()(pixels)
    check(encode_loader(nn.Identity(), [pixels], pool="mean"), pixels.mean((2, 3)))
    last = pixels.permute(0, 2, 3, 1)
    check(encode_loader(nn.Identity(), [last], pool="mean-last"), pixels.mean((2, 3)))
    check(encode_loader(lambda batch: tokens, [pixels], pool="mean"), tokens.mean(1))
    one = pixels[:, :, :1, :1]
    check(encode_loader(nn.Identity(), [one]), one.flatten(1))
    with pytest.raises(ValueError, match="pool must be one of cls, mean, patches"):
        encode_loader(nn.Identity(), [pixels], pool="max")


@pytest.mark.parametrize(
    "module",
    [
        Tower(),
        output_of,
        nn.Identity(),
        lambda batch: batch.permute(0, 2, 3, 1),
        lambda batch: batch.flatten(2).mT,
    ],
)
def test_what_an_error_proposes_works(module, pixels):
    """Each remedy in turn, until there are features: none may fail in another way."""
    ways = {}
    for _ in range(3):
        try:
            split = encode_loader(module, [pixels], **ways)
            break
        except ValueError as error:
            found = re.search(r"Pass (pool|select)=('?)(.*?)\2 to encode_loader", str(error))
            value = int(found[3]) if found[3].isdigit() else found[3]
            assert found[1] not in ways
            ways[found[1]] = value
    assert ways
    assert split.features.shape[0] == N
    assert split.features.ndim == 2


def test_a_map_with_channels_last_is_not_taken_for_one_with_channels_first(pixels):
    last = pixels.permute(0, 2, 3, 1)  # (6, 4, 4, 3)
    with pytest.raises(ValueError, match=r"got \(6, 4, 4, 3\) for pool='mean'.*pool='mean-last'"):
        encode_loader(nn.Identity(), [last], pool="mean")


@pytest.mark.parametrize("names", [("img", "label"), ("pixel_values", "labels"), ("image", "y")])
def test_mappings_with_the_usual_keys(names, pixels):
    batch = dict(zip(names, (pixels, torch.arange(N)), strict=True)) | {"file": ["a"] * N}
    split = encode_loader(nn.Flatten(), [batch])
    check(split, pixels.flatten(1))
    assert split.labels.tolist() == list(range(N))
    assert encode_loader(nn.Flatten(), [{"img": pixels, "fine_label": [1] * N}]).labels[0] == 1


def test_keys_that_nobody_knows_are_named_and_the_remedy_works(pixels):
    batch = {"photo": pixels, "animal": torch.arange(N)}
    with pytest.raises(ValueError, match=r"got photo, animal\. Rename one, or yield pairs"):
        encode_loader(nn.Flatten(), [batch])
    pairs = [(each["photo"], each["animal"]) for each in [batch]]
    assert encode_loader(nn.Flatten(), pairs).labels.tolist() == list(range(N))


def test_tuples_of_any_length_and_lists_of_views(pixels):
    labels, flipped = torch.arange(N), pixels.flip(3)
    for batch in ((pixels, labels, torch.ones(N), ["a"] * N), [pixels, labels], (pixels, labels)):
        assert encode_loader(nn.Flatten(), [batch]).views is None
    for batch in (([pixels, flipped], labels, ["a"] * N), [pixels, flipped, labels]):
        split = encode_loader(nn.Flatten(), [batch])
        check(split, pixels.flatten(1))
        np.testing.assert_allclose(split.views[1], flipped.flatten(1).numpy())
        assert split.labels.tolist() == list(range(N))
    assert encode_loader(nn.Flatten(), [(pixels, flipped)]).views.shape == (2, N, 48)
    with pytest.raises(ValueError, match=r"must yield views in each batch or in none; .* 1 of 2"):
        encode_loader(nn.Flatten(), [(pixels, flipped), pixels])


def test_whole_numbers_are_scaled_and_half_precision_is_remembered(pixels):
    whole = (pixels * 255).round().to(torch.uint8)
    check(encode_loader(nn.Flatten(), [whole]), whole.flatten(1).float() / 255)
    last = whole.permute(0, 2, 3, 1)
    check(encode_loader(nn.Flatten(), [last]), whole.flatten(1).float() / 255)
    check(encode_loader(nn.Flatten(), [(whole.numpy(), [1] * N)]), whole.flatten(1).float() / 255)
    with torch.random.fork_rng(devices=[]):
        half = nn.Linear(48, D).bfloat16()
    split = encode_loader(nn.Sequential(nn.Flatten(), half), [pixels])
    assert (split.precision, split.features.dtype.name) == ("bfloat16", "float32")
    with torch.inference_mode():
        check(split, half(pixels.flatten(1).bfloat16()).float())


class Block(nn.Module):
    """A block of the CIFAR ResNets of He et al. (2016) with shortcuts that pad (option A)."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - width_in) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        short = x[:, :, :: self.stride, :: self.stride]
        short = nn.functional.pad(short, (0, 0, 0, 0, self.pad, self.pad))
        return (y + short).relu()


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            width, stride = widths[stage], 1 if stage == 1 else 2
            blocks = [Block(widths[stage - 1], width, stride)]
            blocks += [Block(width, width, 1) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_an_architecture_of_one_s_own_is_built_loaded_and_encoded():
    """The file's authors give the architecture, the README of the data the accuracy."""
    path = SHARED / "encoders" / "resnet20-12fca82f.th"
    saved = torch.load(path, weights_only=True, map_location="cpu")
    with torch.random.fork_rng(devices=[]):
        network = ResNet20()
    weights = {key.removeprefix("module."): each for key, each in saved["state_dict"].items()}
    network.load_state_dict(weights)
    images = huggingface("test", data_dir=SHARED / "cifar10", image_size=32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def batches():
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            pixels = torch.from_numpy(images.images[rows]).float() / 255
            normal = (pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
            yield normal, torch.from_numpy(images.labels[rows])

    split = encode_loader(network, batches())
    with torch.inference_mode():
        answers = network.linear(torch.from_numpy(split.features)).argmax(1).numpy()
    assert (answers == split.labels).mean() == pytest.approx(0.8103, abs=1e-3)
    assert split.features.shape == (10_000, 64)
