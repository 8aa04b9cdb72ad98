"""The second-order part of the mask's gradient at a checkpoint, exactly and as it is official."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dimlab.refusals import Refusal
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.hypergradient import exact_hypergradient, finite_difference_hypergradient
from dimlab.training.loop import trial_of

if TYPE_CHECKING:
    from dimlab.images import ImageSet


@dataclass(frozen=True)
class SecondOrder:
    """The second-order part of the hypergradient at one point of a run."""

    step: int
    share: float  # norm of the second-order part over that of the direct part
    cosine: float  # between the two parts
    turn: float  # sine of the angle by which the mask's step turns without the second-order part
    error: float  # norm of (finite difference - exact) over that of the exact second-order part
    agreement: float  # cosine between the finite difference and the exact second-order part


def second_order_at(
    checkpoint: Checkpoint, images: ImageSet, *, radius: float = 0.01, device: str = "cpu"
) -> SecondOrder:
    """Measure both second-order parts at a run's next step; ``images`` are its training images."""
    if checkpoint.config.method != "metamask":
        raise Refusal(f"method must be 'metamask'; got {checkpoint.config.method!r}.")
    n_steps = checkpoint.config.n_steps(checkpoint.data["n_images"])
    if checkpoint.step >= n_steps:
        raise Refusal(
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
