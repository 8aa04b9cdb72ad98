"""Encoders, mask and projectors: plain modules, state-dict keys as torchvision and timm have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from dimlab.refusals import Refusal

_LAYERS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
    "wide_resnet101_2": (3, 4, 23, 3),
}
_BASIC = ("resnet18", "resnet34")
BUILT = ("convnet", *_LAYERS)  # all that can be built, for weights that others trained
VITS = {"vit_tiny": (192, 3), "vit_small": (384, 6)}  # width and heads
NAMES = (*BUILT[:4], *VITS)  # those that dimlab trains
STEMS = {  # kernel, stride and padding of the first convolution
    "cifar": (3, 1, 1),
    "cifar-maxpool": (3, 1, 1),
    "imagenet": (7, 2, 3),
    "imagenet-unpooled": (7, 2, 3),
    "solo-learn": (3, 1, 2),  # solo-learn's for CIFAR
}
POOLED = ("cifar-maxpool", "imagenet")  # stems with a max-pooling behind them


class Encoder(nn.Module):
    """What the built-in encoders have in common: they know D."""

    n_dimensions: int


def build_encoder(
    name: str,
    *,
    in_channels: int = 3,
    stem: str = "cifar",
    stem_relu: bool = True,  # False in the official MetaMask backbone, which has lost this ReLU
    n_dimensions: int = 128,  # of the convnet; a ResNet has 512 or 2048, a ViT its width
    initialisation: str = "kaiming",  # of a ResNet's convolutions: normal, or torch's default
) -> Encoder:
    """Build an encoder of `BUILT` or `NAMES`: images (B, C, H, W) to pooled features (B, D)."""
    if in_channels < 1:
        raise Refusal(f"in_channels must be >= 1; got {in_channels}.")
    if name == "convnet":
        return convnet(in_channels, n_dimensions)
    if name in VITS:
        return vit(*VITS[name], in_channels, 16 if stem == "imagenet" else 4)
    if name not in _LAYERS:
        known = dict.fromkeys((*BUILT, *NAMES))
        raise Refusal(f"encoder must be one of {', '.join(known)}; got {name!r}.")
    return resnet(name, in_channels, stem, stem_relu, initialisation)


def build_projector(widths: Sequence[int]) -> nn.Sequential:
    """Build a projector (D, hidden, ..., P) of Linear, BatchNorm and, but for the last, ReLU."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mask_weights(mask_logits: Tensor, mask: str) -> Tensor:
    """Return the mask weights (D,) of logits, or of a raw mask, which stays as it is."""
    return mask_logits.sigmoid() if mask == "sigmoid" else mask_logits


class convnet(Encoder):
    """Three strided 3x3 convolutions with BatchNorm and ReLU, mean-pooled: quick on a CPU."""

    def __init__(self, in_channels: int, n_dimensions: int) -> None:
        super().__init__()
        if n_dimensions < 4 or n_dimensions % 4:
            raise Refusal(f"n_dimensions must be a positive multiple of 4; got {n_dimensions}.")
        narrow, middle = n_dimensions // 4, n_dimensions // 2
        self.conv1 = nn.Conv2d(in_channels, narrow, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, middle, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, n_dimensions, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_dimensions)
        self.n_dimensions = n_dimensions

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, D)."""
        x = torch.relu_(self.bn1(self.conv1(images)))
        x = torch.relu_(self.bn2(self.conv2(x)))
        x = torch.relu_(self.bn3(self.conv3(x)))
        return x.mean((2, 3))


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(n_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu_(out + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, n_in: int, width: int, stride: int, widening: int = 1) -> None:
        super().__init__()
        n_out = width * self.expansion
        width *= widening  # of a wide ResNet only inside the block
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _downsample(n_in, n_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu_(out + (x if self.downsample is None else self.downsample(x)))


def _downsample(n_in: int, n_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and n_in == n_out:
        return None
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class resnet(Encoder):
    """ResNet (He et al. 2016) without its classifier; keys are torchvision's without ``fc``."""

    # a wide one (Zagoruyko & Komodakis 2016) has 3x3 convolutions of twice the width; the stride
    # of a bottleneck is in its 3x3 convolution, as in torchvision and timm
    def __init__(
        self,
        name: str,
        in_channels: int,
        stem: str,
        stem_relu: bool = True,
        initialisation: str = "kaiming",
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise Refusal(f"stem must be one of {', '.join(STEMS)}; got {stem!r}.")
        block: Any = _BasicBlock if name in _BASIC else _Bottleneck
        wide = {"widening": 2} if name.startswith("wide_") else {}
        self.conv1 = nn.Conv2d(in_channels, 64, *STEMS[stem], bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True) if stem_relu else nn.Identity()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem in POOLED else nn.Identity()
        n_in, self.layers = 64, list[nn.Module]()  # a plain list: the keys are layer1 to layer4
        for number, depth in enumerate(_LAYERS[name], start=1):
            width, blocks = 32 * 2**number, []
            for index in range(depth):
                blocks.append(block(n_in, width, 2 if number > 1 and index == 0 else 1, **wide))
                n_in = width * block.expansion
            self.layers.append(nn.Sequential(*blocks))
            self.add_module(f"layer{number}", self.layers[-1])
        self.n_dimensions = n_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and initialisation == "kaiming":
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, D)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for layer in self.layers:
            x = layer(x)
        return x.mean((2, 3))


class vit(Encoder):
    """Vision transformer (Dosovitskiy et al. 2021) with the mean over patches as features."""

    # Positions are sines and cosines of row and column (Vaswani et al. 2017), as in MoCo v3: images
    # may have any size. Keys are timm's without ``cls_token``, ``pos_embed`` and ``head``.
    def __init__(
        self, width: int, n_heads: int, in_channels: int, patch: int, depth: int = 12
    ) -> None:
        super().__init__()
        self.n_dimensions, self.patch = width, patch
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_channels, width, patch, patch)})
        self.blocks = nn.Sequential(*(_Block(width, n_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, D)."""
        x = with_positions(self.patch_embed["proj"](images))
        return self.norm(self.blocks(x)).mean(1)


@fx.wrap
def with_positions(x: Tensor) -> Tensor:
    """Add its place to each patch of x (B, D, H, W), and line them up: (B, H W, D)."""
    width, (rows, columns) = x.shape[1] // 4, x.shape[2:]
    rates = 10_000.0 ** -(torch.arange(width, device=x.device, dtype=torch.float64) / width)
    waves = []
    for axis, size in enumerate((rows, columns)):
        angles = torch.arange(size, device=x.device, dtype=torch.float64)[:, None] * rates
        wave = torch.cat([angles.sin(), angles.cos()], 1)
        wave = wave[:, None] if axis == 0 else wave[None]
        waves.append(wave.expand(rows, columns, -1))
    places = torch.cat(waves, 2).flatten(0, 1).to(x.dtype)
    return x.flatten(2).transpose(1, 2) + places


class _Block(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = _Attention(width, n_heads)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, 4 * width))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return self.proj(y.transpose(1, 2).flatten(2))
