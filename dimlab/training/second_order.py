"""The second-order part of the mask's gradient at a checkpoint, exactly and as it is official."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dimlab.training.checkpoint import Checkpoint
from dimlab.training.hypergradient import exact_hypergradient, finite_difference_hypergradient
from dimlab.training.loop import trial_of

if TYPE_CHECKING:
    from dimlab.image_set import ImageSet


@dataclass(frozen=True)
class SecondOrder:
    """What the second-order part is at one point of a run.

    Parameters
    ----------
    step : int
        Steps taken so far.
    share : float
        Norm of the second-order part over the norm of the direct part.
    cosine : float
        Between the two parts.
    turn : float
        Sine of the angle between the direct part and the whole: how far leaving the second-order
        part out turns the mask's step.
    error : float
        Norm of (finite difference - exact) over the norm of the exact second-order part; it comes
        from ReLUs of the contrastive projector that change sign between the two points.
    agreement : float
        Cosine between the finite difference and the exact second-order part.
    """

    step: int
    share: float
    cosine: float
    turn: float
    error: float
    agreement: float


def second_order_at(
    checkpoint: Checkpoint, images: ImageSet, *, radius: float = 0.01, device: str = "cpu"
) -> SecondOrder:
    """Measure the second-order part where a run stands, on the batch of its next step.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of a run with ``method="metamask"`` and any hypergradient, before its last step.
    images : ImageSet
        Its training images.
    radius : float, default=0.01
        Of the finite difference; 0.01 is the official code's.
    device : str, default="cpu"
        Where to compute.

    Returns
    -------
    SecondOrder
        Both ways of taking it, at the same weights, mask, views and learning rate.

    Raises
    ------
    ValueError
        If the method is another, the run is over (its learning rate is 0, and the part with it),
        the images are others, or the radius is not positive, or the device is not there.

    References
    ----------
    Li et al., "MetaMask", NeurIPS 2022; the official code has the finite difference only.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from dimlab import TrainConfig
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.loop import untrained
    >>> config = replace(TrainConfig.small(), batch_size=16, n_dimensions=4, precision="float64")
    >>> images = digits("validation", image_size=8)
    >>> found = second_order_at(untrained(config, images), images, radius=1e-6)
    >>> found.step, found.share > 0, found.error < 1e-4
    (0, True, True)
    """
    if checkpoint.config.method != "metamask":
        raise ValueError(f"method must be 'metamask'; got {checkpoint.config.method!r}.")
    n_steps = checkpoint.config.n_steps(checkpoint.data["n_images"])
    if checkpoint.step >= n_steps:
        raise ValueError(
            f"checkpoint must be one before the last step, {n_steps}; got step "
            f"{checkpoint.step}. Train with keep_checkpoints=True and take an earlier one."
        )
    trial = trial_of(checkpoint, images, device=device)
    exact = exact_hypergradient(copy.copy(trial))
    other = finite_difference_hypergradient(copy.copy(trial), radius=radius).second_order.double()
    direct, second = exact.direct.double(), exact.second_order.double()
    return SecondOrder(
        checkpoint.step,
        _ratio(second.norm(), direct.norm()),
        _cosine(second, direct),
        math.sqrt(max(0.0, 1 - _cosine(direct + second, direct) ** 2)),
        _ratio((other - second).norm(), second.norm()),
        _cosine(other, second),
    )


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _cosine(left: Tensor, right: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0, eps=0.0))
