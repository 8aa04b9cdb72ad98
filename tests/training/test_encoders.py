"""Encoders: the keys of torchvision's and timm's ResNets, shapes, and errors."""

import pytest
import torch

from dimlab.training.encoders import (
    BUILT,
    STEMS,
    VITS,
    build_encoder,
    build_projector,
    with_positions,
)


def torchvision_keys(depths, convolutions):
    """State-dict keys of torchvision 0.26's ResNets less fc, as its layout documents them."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    keys = ["conv1.weight", *(f"bn1.{each}" for each in norm)]
    for layer, depth in enumerate(depths, start=1):
        for block in range(depth):
            name = f"layer{layer}.{block}"
            for number in range(1, convolutions + 1):
                keys.append(f"{name}.conv{number}.weight")
                keys += [f"{name}.bn{number}.{each}" for each in norm]
            if block == 0 and (layer > 1 or convolutions == 3):
                keys.append(f"{name}.downsample.0.weight")
                keys += [f"{name}.downsample.1.{each}" for each in norm]
    return keys


@pytest.mark.parametrize(
    ("name", "depths", "convolutions", "n_dimensions", "n_parameters"),
    [  # parameters: torchvision's published counts less those of fc
        ("resnet18", (2, 2, 2, 2), 2, 512, 11_689_512 - 513_000),
        ("resnet34", (3, 4, 6, 3), 2, 512, 21_797_672 - 513_000),
        ("resnet50", (3, 4, 6, 3), 3, 2048, 25_557_032 - 2_049_000),
        ("resnet101", (3, 4, 23, 3), 3, 2048, 44_549_160 - 2_049_000),
        ("resnet152", (3, 8, 36, 3), 3, 2048, 60_192_808 - 2_049_000),
        ("wide_resnet50_2", (3, 4, 6, 3), 3, 2048, 68_883_240 - 2_049_000),
        ("wide_resnet101_2", (3, 4, 23, 3), 3, 2048, 126_886_696 - 2_049_000),
    ],
)
def test_resnets_have_torchvisions_keys_and_counts(
    name, depths, convolutions, n_dimensions, n_parameters
):
    with torch.device("meta"):
        encoder = build_encoder(name, stem="imagenet")
    assert sorted(encoder.state_dict()) == sorted(torchvision_keys(depths, convolutions))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == n_parameters
    assert encoder.n_dimensions == n_dimensions


def test_stems_differ_in_resolution():
    images = torch.zeros(1, 3, 32, 32)
    cifar, imagenet = (build_encoder("resnet18", stem=stem) for stem in ("cifar", "imagenet"))
    assert cifar.conv1(images).shape[-1] == 32
    assert imagenet.maxpool(imagenet.conv1(images)).shape[-1] == 8
    unpooled = build_encoder("resnet18", stem="imagenet-unpooled")
    assert unpooled.maxpool(unpooled.conv1(images)).shape[-1] == 16
    # conv1 = Conv2d(3, 64, 3, stride=1, padding=2) and no pooling: solo-learn's methods/base.py
    padded = build_encoder("resnet18", stem="solo-learn")
    assert padded.maxpool(padded.conv1(images)).shape[-1] == 34


@pytest.mark.parametrize(
    ("name", "width", "n_parameters"),
    # timm's vit_tiny_patch16_224 and vit_small_patch16_224 have so many without class token,
    # position embedding and classifier
    [
        ("vit_tiny", 192, 5_717_416 - 193_000 - 198 * 192),
        ("vit_small", 384, 21_665_664 - 198 * 384),
    ],
)
def test_vits_have_timms_sizes_and_tell_places_apart(name, width, n_parameters):
    with torch.device("meta"):
        encoder = build_encoder(name, stem="imagenet")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == n_parameters
    assert encoder.n_dimensions == width
    assert {"patch_embed.proj.weight", "blocks.11.attn.qkv.bias", "blocks.0.mlp.fc1.weight"} <= {
        *encoder.state_dict()
    }
    places = with_positions(torch.zeros(1, 8, 3, 5))[0]
    assert places.shape == (15, 8)
    assert len(torch.unique(places, dim=0)) == 15


@pytest.mark.parametrize("size", [28, 32])
def test_convnet_maps_images_to_features(size):
    encoder = build_encoder("convnet", in_channels=1, n_dimensions=32)
    assert encoder(torch.zeros(3, 1, size, size)).shape == (3, 32)


def test_projector_ends_without_relu():
    layers = [type(layer).__name__ for layer in build_projector((8, 16, 4))]
    assert layers == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match=f"encoder must be one of {', '.join((*BUILT, *VITS))}; got 'vgg'"
    ):
        build_encoder("vgg")
    with pytest.raises(ValueError, match=f"stem must be one of {', '.join(STEMS)}; got 'x'"):
        build_encoder("resnet18", stem="x")
    with pytest.raises(ValueError, match="n_dimensions must be a positive multiple of 4; got 6"):
        build_encoder("convnet", n_dimensions=6)


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_convolutions_are_drawn_as_torchvision_or_as_torch_does():
    """Normal with variance 2 / fan_out, or uniform with variance 1 / (3 fan_in)."""
    found = {}
    for initialisation in ("kaiming", "torch"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = build_encoder("resnet18", initialisation=initialisation)
        first = encoder.conv1.weight.detach()
        found[initialisation] = encoder.layer3[1].conv1.weight.detach(), first
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.testing.assert_close(first, torch.nn.Conv2d(3, 64, 3, bias=False).weight.detach())
    inner, outer = (
        (each.std() / other.std()).item() for each, other in zip(*found.values(), strict=True)
    )
    assert inner == pytest.approx(6**0.5, rel=0.01)  # 256 channels in and out
    assert outer == pytest.approx((2 / (9 * 64) * 3 * 27) ** 0.5, rel=0.05)
    uniform = found["torch"][0]
    assert uniform.abs().max() <= (9 * 256) ** -0.5
    assert found["kaiming"][0].abs().max() > 4 * (2 / (9 * 256)) ** 0.5
