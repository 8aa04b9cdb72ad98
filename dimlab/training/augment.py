"""Augmentation: two random views of a batch, and the parameters that made them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dimlab.training.config import TrainConfig

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # means, deviations of R, G, B
_WHOLE_BATCH = ("forward_input_shape", "order")  # parameters without a row a sample


def derived_seed(seed: int, *path: int) -> int:
    """Seed of one named stream of a run: independent for each path, the same on every machine.

    Parameters
    ----------
    seed : int
        The run's seed.
    *path : int
        Which stream, and which step of it.

    Returns
    -------
    int
        In [0, 2**63).
    """
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def normalised(images: Tensor, normalisation: str) -> Tensor:
    """Network input of images in [0, 1].

    Parameters
    ----------
    images : Tensor of shape (B, C, H, W), floating
        In [0, 1].
    normalisation : {"none", "imagenet"}
        Field of the configuration.

    Returns
    -------
    Tensor of shape (B, C, H, W)
        The images, or (image - mean) / deviation of each channel of ImageNet.

    Raises
    ------
    ValueError
        If ``imagenet`` meets images that have not three channels.
    """
    if normalisation == "none":
        return images
    if images.shape[1] != 3:
        raise ValueError(
            "normalisation must be 'none' for images without three channels; got 'imagenet' for "
            f"C = {images.shape[1]}."
        )
    mean, deviation = (images.new_tensor(each).view(3, 1, 1) for each in _IMAGENET)
    return (images - mean) / deviation


class Augmentation:
    """The random augmentation of a configuration, drawn for a whole batch from one seed.

    Parameters
    ----------
    config : TrainConfig
        Its fields ``crop_scale, flip, jitter, jitter_strength, grey``.
    n_channels, size : int
        C and the side (or (H, W)) of the images.

    Notes
    -----
    The parameters of all N samples are drawn together and applied to any rows of them, so views
    depend neither on the batch size of encoding nor on how a batch is cut into shards. kornia draws
    from torch's global generator: it is seeded inside a fork, nobody else's randomness moves.
    """

    def __init__(self, config: TrainConfig, n_channels: int, size: tuple[int, int]) -> None:
        import kornia.augmentation as augmentation

        strength = config.jitter_strength
        steps: dict[str, Any] = {
            "crop": augmentation.RandomResizedCrop(size, scale=(config.crop_scale, 1.0)),
            "flip": augmentation.RandomHorizontalFlip(p=config.flip),
        }
        spread = (max(0.0, 1 - strength), 1 + strength)
        if n_channels == 3:
            steps["jitter"] = augmentation.ColorJitter(
                spread, spread, spread, strength / 4, p=config.jitter
            )
            steps["grey"] = augmentation.RandomGrayscale(p=config.grey)
        else:
            # saturation and hue need three channels
            steps["brightness"] = augmentation.RandomBrightness(spread, p=config.jitter)
            steps["contrast"] = augmentation.RandomContrast(spread, p=config.jitter)
        self._steps = steps
        self._shape = (n_channels, *size)

    def draw(self, n_samples: int, seed: int) -> dict[str, dict[str, Tensor]]:
        """Draw the parameters of one view of n_samples images.

        Parameters
        ----------
        n_samples : int
            N.
        seed : int
            Same seed, same parameters.

        Returns
        -------
        dict
            Parameters by step, one row a sample.
        """
        shape = torch.Size((n_samples, *self._shape))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return {name: step.forward_parameters(shape) for name, step in self._steps.items()}

    def apply(self, images: Tensor, drawn: dict[str, dict[str, Tensor]], rows: slice) -> Tensor:
        """Apply drawn parameters to the images of these rows.

        Parameters
        ----------
        images : Tensor of shape (B, C, H, W), floating
            In [0, 1]; the images of ``rows``.
        drawn : dict
            What `draw` returned.
        rows : slice
            Which of the drawn samples the images are.

        Returns
        -------
        Tensor of shape (B, C, H, W)
            In [0, 1].
        """
        with torch.random.fork_rng(devices=[]):  # kornia touches the generator even here
            for name, step in self._steps.items():
                params = {
                    key: value if key in _WHOLE_BATCH else value[rows]
                    for key, value in drawn[name].items()
                }
                images = step(images, params=params)
        return images

    def factors(self, drawn: dict[str, dict[str, Tensor]]) -> dict[str, np.ndarray]:
        """Return the drawn parameters as named factors, one value a sample.

        Parameters
        ----------
        drawn : dict
            What `draw` returned.

        Returns
        -------
        dict of str to ndarray of shape (N,)
            ``crop_x, crop_y`` (centre, as a share of the side), ``crop_scale`` (share of the area),
            ``flip`` and ``grey`` (bool), ``brightness, contrast, saturation`` (factor, 1 where not
            applied), ``hue`` (turn, 0 where not applied).
        """
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
        for name in ("brightness", "contrast", "saturation", "hue"):
            params = drawn.get("jitter", drawn.get(name))
            if params is None or f"{name}_factor" not in params:
                continue
            value = params[f"{name}_factor"].double().numpy()
            factors[name] = np.where(_applied(params), value, 0.0 if name == "hue" else 1.0)
        if "grey" in drawn:
            factors["grey"] = _applied(drawn["grey"])
        return factors


def _applied(params: dict[str, Tensor]) -> np.ndarray:
    return params["batch_prob"].numpy() > 0.5
