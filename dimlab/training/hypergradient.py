"""The hypergradient of the mask: what one trial step of the network makes of it.

With L(theta, s) the contrastive loss of weights theta and mask logits s, and the trial step
theta'(s) = theta - lr * grad_theta L_in(theta, s), the mask descends along

    d L_out(theta'(s), s) / ds = direct + second order,
    direct       = d_s L_out(theta', s)              at theta' held fixed,
    second order = - lr * d_s <grad_theta L_in(theta, s), v>,    v = grad_theta L_out(theta', s).

The inner product is the derivative of L_in at theta in the direction v. It is taken in forward
mode: one tangent pass through the encoder, then through the projector alone, where it is
differentiated in s. The mask enters behind the encoder, so no convolution is ever differentiated
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]
Encode = Callable[[Weights, Tensor], Tensor]
HeadLoss = Callable[[Weights, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """The two parts of the mask's gradient, each of shape (D,)."""

    direct: Tensor
    second_order: Tensor

    @property
    def total(self) -> Tensor:
        """Gradient of the outer loss with respect to the mask logits, shape (D,)."""
        return self.direct + self.second_order


def exact_hypergradient(
    encode: Encode,
    head_loss: HeadLoss,
    encoder_weights: Weights,
    head_weights: Weights,
    mask_logits: Tensor,
    views: tuple[Tensor, Tensor],
    *,
    learning_rate: float,
) -> Hypergradient:
    """Gradient of the contrastive loss after one trial SGD step, with respect to the mask logits.

    Parameters
    ----------
    encode : callable
        ``encode(encoder_weights, images) -> features (B, D)``.
    head_loss : callable
        ``head_loss(head_weights, features_a, features_b, mask_logits) -> scalar``: mask, projector
        and loss.
    encoder_weights, head_weights : dict of str to Tensor
        theta, in two parts. Not changed.
    mask_logits : Tensor of shape (D,)
        s. Not changed.
    views : tuple of Tensor of shape (B, C, H, W)
        The two views of one batch; the outer loss is taken on the same batch.
    learning_rate : float
        lr of the trial step, >= 0.

    Returns
    -------
    Hypergradient
        Direct and second-order part.

    Raises
    ------
    ValueError
        If the learning rate is negative.

    Notes
    -----
    ``encode`` and ``head_loss`` must not move BatchNorm's running statistics: call under
    `without_running_statistics`. Exact for any smooth network; at a ReLU kink it is the one-sided
    derivative that autograd takes.

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022. The official code takes the second-order part by a
    finite difference.
    .. [2] Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 1994.
    """
    if not learning_rate >= 0:
        raise ValueError(f"learning_rate must be >= 0; got {learning_rate}.")
    logits = mask_logits.detach()

    def loss(encoder: Weights, head: Weights, s: Tensor) -> Tensor:
        return head_loss(head, encode(encoder, views[0]), encode(encoder, views[1]), s)

    weights = _leaves({**_prefixed("encoder", encoder_weights), **_prefixed("head", head_weights)})
    gradient = torch.autograd.grad(loss(*_parts(weights), logits), list(weights.values()))
    trial = _leaves(
        {
            name: weight.detach() - learning_rate * g
            for (name, weight), g in zip(weights.items(), gradient, strict=True)
        }
    )
    s = logits.clone().requires_grad_()
    direct, *outer = torch.autograd.grad(loss(*_parts(trial), s), [s, *trial.values()])
    direction = dict(zip(trial, outer, strict=True))
    slope = _directional_slope(encode, head_loss, weights, direction, logits, views)
    return Hypergradient(direct=direct, second_order=-learning_rate * slope)


def _directional_slope(
    encode: Encode,
    head_loss: HeadLoss,
    weights: Weights,
    direction: Weights,
    logits: Tensor,
    views: tuple[Tensor, Tensor],
) -> Tensor:
    """d_s <grad_theta L(theta, s), direction>: both modes through the head only."""
    encoder, head = _parts({name: weight.detach() for name, weight in weights.items()})
    encoder_direction, head_direction = _parts(direction)
    with torch.no_grad():
        (features_a, features_b), (tangent_a, tangent_b) = torch.func.jvp(
            lambda w: (encode(w, views[0]), encode(w, views[1])), (encoder,), (encoder_direction,)
        )[:2]

    def mask_gradient(w: Weights, a: Tensor, b: Tensor) -> Tensor:
        return torch.func.grad(lambda s: head_loss(w, a, b, s))(logits)

    # Forward over reverse. Reverse over forward gives wrong numbers: torch (2.13) differentiates
    # BatchNorm's tangent with the batch's statistics held constant.
    return torch.func.jvp(
        mask_gradient, (head, features_a, features_b), (head_direction, tangent_a, tangent_b)
    )[1]


@contextmanager
def without_running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics still while the batch's are used: virtual forwards.

    Parameters
    ----------
    *modules : nn.Module
        Modules in training mode.

    Yields
    ------
    None
        On leaving, every layer tracks again what it tracked before.
    """
    norms = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    for layer in norms:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in norms:
            layer.track_running_stats = True


def _prefixed(part: str, weights: Weights) -> Weights:
    return {f"{part}/{name}": weight for name, weight in weights.items()}


def _parts(weights: Weights) -> tuple[Weights, Weights]:
    split: dict[str, Weights] = {"encoder": {}, "head": {}}
    for name, weight in weights.items():
        part, _, rest = name.partition("/")
        split[part][rest] = weight
    return split["encoder"], split["head"]


def _leaves(weights: Weights) -> Weights:
    return {name: weight.detach().requires_grad_() for name, weight in weights.items()}
