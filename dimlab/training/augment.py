"""Augmentation: two random views of a batch, and the parameters that made them.

The parameters of all samples are drawn together and then applied to any rows of them, so that views
depend neither on the batch size of encoding nor on how a batch is divided among processes.

Every step follows torchvision's ``RandomResizedCrop``, ``ColorJitter`` and ``RandomGrayscale``,
which the official code uses. Crops are resized bilinearly without aligned corners. Brightness
multiplies, contrast scales about the mean of the grey image, saturation blends with the grey image,
hue is turned; each result is clipped to [0, 1]. One draw per sample decides whether it is jittered
at all. The four operations come in a random order, drawn once per batch (torchvision: once per
image). Saturation, hue and ``grey`` need three channels. Without these, contrast scales about the
mean over all channels, so that a grey image gets the view of its copy with R = G = B.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimlab.images import means_of
from dimlab.refusals import Refusal
from dimlab.training.config import TrainConfig

_WHOLE_BATCH = ("forward_input_shape", "order")  # parameters without a row a sample
# parts of the jitter, in kornia's order, and the factors that change nothing
_JITTER = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}

VERSION = 2
"""Raised when a configuration and a seed give other views, so that runs from before and after are
told apart. 1: on images without three channels brightness was added and contrast multiplied; crops
were resized with aligned corners."""


def derived_seed(seed: int, *path: int) -> int:
    """Return the seed in [0, 2**63) of one stream of a run: independent for each path."""
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def check_normalisation(normalisation: str, n_channels: int) -> None:
    """Refuse means and deviations of R, G and B for images of other channels."""
    if len((means_of(normalisation) or [()])[0]) == 3 != n_channels:
        raise Refusal(
            f"normalisation must be 'none' for images without three channels; got "
            f"{normalisation!r} for C = {n_channels}. Use dataclasses.replace(config, "
            "normalisation='none')."
        )


def normalised(images: Tensor, normalisation: str) -> Tensor:
    """Return images (B, C, H, W) in [0, 1] as the network takes them."""
    check_normalisation(normalisation, images.shape[1])
    known = means_of(normalisation)
    if known is None:
        return images
    mean, deviation = (images.new_tensor(each).view(-1, 1, 1) for each in known)
    return (images - mean) / deviation


class Augmentation:
    """The random augmentation of a configuration, drawn for a whole batch from one seed."""

    def __init__(self, config: TrainConfig, n_channels: int, size: tuple[int, int]) -> None:
        import kornia.augmentation as augmentation

        strength = config.jitter_strength
        spread = (max(0.0, 1 - strength), 1 + strength)
        self._steps: dict[str, Any] = {
            "crop": augmentation.RandomResizedCrop(
                size, scale=(config.crop_scale, 1.0), align_corners=False
            ),
            "flip": augmentation.RandomHorizontalFlip(p=config.flip),
            # ColorJitter is torchvision's; RandomBrightness and RandomContrast are not
            "jitter": augmentation.ColorJitter(
                spread, spread, spread, strength / 4, p=config.jitter
            ),
        }
        if n_channels == 3:
            self._steps["grey"] = augmentation.RandomGrayscale(p=config.grey)
        self._shape = (n_channels, *size)

    def draw(self, n_samples: int, seed: int) -> dict[str, dict[str, Tensor]]:
        """Return the parameters of one view of N images by step, one row per sample."""
        # without three channels, brightness and contrast take the place of jitter
        shape = torch.Size((n_samples, *self._shape))
        with torch.random.fork_rng(devices=[]):  # kornia draws from torch's global generator
            torch.manual_seed(seed)
            drawn = {name: step.forward_parameters(shape) for name, step in self._steps.items()}
        if self._shape[0] == 3:
            return drawn
        jitter = drawn.pop("jitter")
        for index in jitter["order"].tolist():
            name = list(_JITTER)[index]
            if name in ("brightness", "contrast"):
                drawn[name] = jitter | _neutral(jitter, but=name)
        return drawn

    def apply(self, images: Tensor, drawn: dict[str, dict[str, Tensor]], rows: slice) -> Tensor:
        """Apply drawn parameters to images (B, C, H, W) in [0, 1], the samples ``rows``."""
        with torch.random.fork_rng(devices=[]):  # kornia touches the generator even here
            for name, drawn_params in drawn.items():
                params = {
                    key: value if key in _WHOLE_BATCH else value[rows]
                    for key, value in drawn_params.items()
                }
                images = self._steps["jitter" if name in _JITTER else name](images, params=params)
        return images

    def factors(self, drawn: dict[str, dict[str, Tensor]]) -> dict[str, np.ndarray]:
        """Return the drawn parameters as named factors of shape (N,)."""
        # crop_x and crop_y are the centre as a share of the side, crop_scale is one of the area;
        # brightness multiplies the image, contrast its distance from its mean
        corners = drawn["crop"]["src"].double().numpy()  # (N, 4, 2), inclusive pixel corners
        height, width = self._shape[1:]
        sides = corners[:, 2] - corners[:, 0] + 1
        centre = (corners[:, 0] + corners[:, 2] + 1) / 2
        factors: dict[str, np.ndarray] = {
            "crop_x": centre[:, 0] / width,
            "crop_y": centre[:, 1] / height,
            "crop_scale": sides.prod(1) / (height * width),
            "flip": _applied(drawn["flip"]),
        }
        for name, neutral in _JITTER.items():
            params = drawn.get("jitter", drawn.get(name))
            if params is not None:
                value = params[f"{name}_factor"].double().numpy()
                factors[name] = np.where(_applied(params), value, neutral)
        if "grey" in drawn:
            factors["grey"] = _applied(drawn["grey"])
        return factors


def _applied(params: dict[str, Tensor]) -> np.ndarray:
    return params["batch_prob"].numpy() > 0.5


def _neutral(jitter: dict[str, Tensor], *, but: str) -> dict[str, Tensor]:
    """Return factors of all parts of the jitter but one that leave an image as it is."""
    return {
        f"{name}_factor": torch.full_like(jitter[f"{name}_factor"], neutral)
        for name, neutral in _JITTER.items()
        if name != but
    }
