"""The losses of one batch as functions of weights, features and mask: what every step descends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dimlab.training import losses
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import (
    World,
    barlow_twins_terms_share,
    generic_share,
    nt_xent_share,
    sum_over_ranks,
)
from dimlab.training.encoders import mask_weights
from dimlab.training.tangent import TangentProgram, Tape, without_running_statistics

Weights = dict[str, Tensor]
Views = tuple[Tensor, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Pass:
    """Features (B, D) of both views of a batch, and the tapes that a later tangent replays."""

    features: Views
    tapes: tuple[Tape, Tape]


@dataclass(frozen=True, eq=False)
class HeadGradient:
    """First derivatives of a loss in features and projector weights, differentiable in the logits.

    Parameters
    ----------
    mask_logits : Tensor of shape (D,)
        s, a leaf.
    features : tuple of Tensor of shape (B, D)
        By view; None where the loss does not depend on one.
    weights : dict of str to Tensor
        Of the projector weights that the loss reaches.
    """

    mask_logits: Tensor
    features: tuple[Tensor | None, ...]
    weights: Weights


class Objective:
    """The losses of two views, for given weights and mask logits.

    Parameters
    ----------
    network : nn.ModuleDict
        With ``encoder``, ``contrastive`` and ``redundancy``, in training mode. Weights are always
        passed in, under the names of ``network.named_parameters()``.
    config : TrainConfig
        Its losses, their weights, and where the mask goes.
    world : World, optional
        The processes that share a batch. Every loss is this rank's share; every gradient that a
        method returns is summed over the ranks.

    Raises
    ------
    ValueError
        If the configuration names a loss that dimlab does not have.
    """

    def __init__(
        self, network: nn.ModuleDict, config: TrainConfig, world: World | None = None
    ) -> None:
        self.network, self.config = network, config
        self.world = world or World()
        self.encoder = TangentProgram(network["encoder"])
        self.contrastive = _resolved(config.contrastive)
        self._takes_temperature = "temperature" in inspect.signature(self.contrastive).parameters

    def forward(
        self,
        weights: Weights,
        views: Views,
        *,
        update_statistics: bool = False,
        remember: bool = True,
    ) -> Pass:
        """Encode both views.

        Parameters
        ----------
        weights : dict of str to Tensor
            Of the encoder at least.
        views : tuple of Tensor of shape (B, C, H, W)
            Two views of this rank's part of the batch.
        update_statistics : bool, default=False
            Whether the encoder's running statistics move.
        remember : bool, default=True
            Whether a tangent will be asked for.

        Returns
        -------
        Pass
            Features, differentiable in the weights, and tapes.
        """
        encoder = _part(weights, "encoder")
        with self._precision(views[0]):
            (h_a, tape_a), (h_b, tape_b) = (
                self.encoder.run(
                    encoder, view, update_statistics=update_statistics, remember=remember
                )
                for view in views
            )
        return Pass((self._wide(h_a), self._wide(h_b)), (tape_a, tape_b))

    def terms(
        self,
        weights: Weights,
        features: Views,
        mask_logits: Tensor,
        which: str,
        *,
        update_statistics: bool = False,
    ) -> Terms:
        """Return the terms that the loss ``which`` adds up, this rank's shares.

        Parameters
        ----------
        weights : dict of str to Tensor
            Of the projectors at least.
        features : tuple of Tensor of shape (B, D)
            Unmasked.
        mask_logits : Tensor of shape (D,)
            s.
        which : {"contrastive", "total"}
            Which loss.
        update_statistics : bool, default=False
            Whether the running statistics of both projectors move.

        Returns
        -------
        dict of str to Tensor of shape ()
            ``contrastive``, ``invariance``, ``redundancy``: those that there are.
        """
        config, world = self.config, self.world
        masked = features
        if config.method == "metamask":
            mask = mask_weights(mask_logits, config.mask)
            masked = (features[0] * mask, features[1] * mask)
        terms: Terms = {}
        redundancy_sees = masked if config.masked_heads == "both" else features
        if which == "total" and config.method != "simclr":
            z_a, z_b = self._project("redundancy", weights, redundancy_sees, update_statistics)
            terms["invariance"], terms["redundancy"] = barlow_twins_terms_share(
                z_a,
                z_b,
                config.batch_size,
                world,
                unbiased=config.barlow_statistics == "unbiased",
            )
        elif update_statistics:
            with torch.no_grad():
                self._project("redundancy", weights, redundancy_sees, True)
        if which == "contrastive" or config.method != "barlow-twins":
            z_a, z_b = self._project("contrastive", weights, masked, update_statistics)
            terms["contrastive"] = self._contrastive_share(z_a, z_b)
        return terms

    def value(self, terms: Terms, which: str) -> Tensor:
        """Add up terms: the bare contrastive term, or the weighted regular loss."""
        config = self.config
        if which == "contrastive":
            return terms["contrastive"]
        total = torch.zeros((), device=next(iter(terms.values())).device)
        if "invariance" in terms:
            barlow = terms["invariance"] + config.off_diagonal_weight * terms["redundancy"]
            total = total + config.redundancy_weight * barlow
        if "contrastive" in terms:
            total = total + config.contrastive_weight * terms["contrastive"]
        return total

    def loss(self, weights: Weights, features: Views, mask_logits: Tensor, which: str) -> Tensor:
        """Return this rank's share of the loss ``which``; running statistics stand still."""
        return self.value(self.terms(weights, features, mask_logits, which), which)

    def gradients(
        self,
        loss: Tensor,
        weights: Weights,
        mask_logits: Tensor | None = None,
        *,
        retain_graph: bool = False,
    ) -> tuple[Weights, Tensor | None]:
        """Gradient of a loss, summed over ranks; weights that it does not reach are left out."""
        wanted = [*weights.values(), *([] if mask_logits is None else [mask_logits])]
        found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=retain_graph)
        sum_over_ranks([each for each in found if each is not None], self.world)
        by_name = {
            name: gradient
            for name, gradient in zip(weights, found, strict=False)
            if gradient is not None
        }
        return by_name, None if mask_logits is None else found[-1]

    def head_gradient(
        self,
        weights: Weights,
        features: Views,
        mask_logits: Tensor,
        which: str,
        *,
        update_statistics: bool = False,
        keep_graph: bool = True,
    ) -> HeadGradient:
        """Differentiate a loss down to the features.

        Parameters
        ----------
        weights : dict of str to Tensor
            Of the projectors at least.
        features : tuple of Tensor of shape (B, D)
            Unmasked; what lies behind them is not differentiated.
        mask_logits : Tensor of shape (D,)
            s.
        which : {"contrastive", "total"}
            Which loss.
        update_statistics : bool, default=False
            Whether the running statistics of both projectors move.
        keep_graph : bool, default=True
            Whether a slope will be asked for.

        Returns
        -------
        HeadGradient
            Of this rank's share.
        """
        heads = {
            name: weight.detach().requires_grad_()
            for name, weight in weights.items()
            if not name.startswith("encoder.")
        }
        h = tuple(each.detach().requires_grad_() for each in features)
        s = mask_logits.detach().requires_grad_()
        terms = self.terms(heads, (h[0], h[1]), s, which, update_statistics=update_statistics)
        found = torch.autograd.grad(
            self.value(terms, which),
            [*h, *heads.values()],
            create_graph=keep_graph,
            allow_unused=True,
        )
        reached = {
            name: each for name, each in zip(heads, found[2:], strict=True) if each is not None
        }
        return HeadGradient(s, found[:2], reached)

    def through_encoder(self, heads: HeadGradient, passed: Pass, weights: Weights) -> Weights:
        """Go on from the features: the gradient in all weights that the loss reaches.

        Parameters
        ----------
        heads : HeadGradient
            Of the loss.
        passed : Pass
            The forward pass that the features come from, with its graph.
        weights : dict of str to Tensor
            Those that the pass is differentiable in.

        Returns
        -------
        dict of str to Tensor
            Summed over ranks, detached.
        """
        encoder = {name: each for name, each in weights.items() if name.startswith("encoder.")}
        found = torch.autograd.grad(
            passed.features,
            list(encoder.values()),
            [None if each is None else each.detach() for each in heads.features],
            allow_unused=True,
        )
        # the sum over ranks is in place, and the graph still needs the projectors' own values
        own = {name: each.detach().clone() for name, each in heads.weights.items()}
        gradient = own | {
            name: each for name, each in zip(encoder, found, strict=True) if each is not None
        }
        sum_over_ranks(list(gradient.values()), self.world)
        return gradient

    def slope(self, passed: Pass, heads: HeadGradient, direction: Weights) -> Tensor:
        """d_s <grad_theta L(theta, s), direction>, exactly, shape (D,).

        Parameters
        ----------
        passed : Pass
            The forward pass at theta.
        heads : HeadGradient
            Of L there; its graph is used up.
        direction : dict of str to Tensor
            A direction in weight space; missing names are zero.

        Returns
        -------
        Tensor of shape (D,)
            Summed over ranks.

        Notes
        -----
        The encoder is only ever differentiated in forward mode, along ``direction``. The projectors
        are differentiated twice in reverse mode. (Reverse over *forward* mode gives wrong numbers:
        torch 2.13 differentiates BatchNorm's tangent with the batch's statistics held constant.)
        """
        encoder_direction = _part(direction, "encoder")
        with self._precision(passed.features[0]):
            along = [
                self._wide(self.encoder.tangent(tape, encoder_direction)) for tape in passed.tapes
            ]
        pairs = [
            *zip(heads.features, along, strict=True),
            *((each, direction.get(name)) for name, each in heads.weights.items()),
        ]
        product = torch.stack(
            [(g * d).sum() for g, d in pairs if g is not None and d is not None]
        ).sum()
        slope = torch.autograd.grad(product, heads.mask_logits)[0]
        sum_over_ranks([slope], self.world)
        return slope

    def _project(
        self, head: str, weights: Weights, features: Views, update_statistics: bool
    ) -> Views:
        projector = self.network[head]
        still = nullcontext() if update_statistics else without_running_statistics(projector)
        part = _part(weights, head)
        with still:
            z_a, z_b = (torch.func.functional_call(projector, part, (h,)) for h in features)
        return z_a, z_b

    def _contrastive_share(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        n_samples, temperature = self.config.batch_size, self.config.temperature
        if self.contrastive is losses.nt_xent_loss:
            return nt_xent_share(z_a, z_b, n_samples, self.world, temperature=temperature)
        given = {"temperature": temperature} if self._takes_temperature else {}
        return generic_share(
            lambda a, b: self.contrastive(a, b, **given), z_a, z_b, n_samples, self.world
        )

    def _wide(self, features: Tensor) -> Tensor:
        return features.float() if self.config.precision == "bfloat16" else features

    def _precision(self, like: Tensor) -> Any:
        """Give the encoder's context: the projectors are cheap, and stay in float32."""
        if self.config.precision != "bfloat16":
            return nullcontext()
        # the cache would hand out bf16 copies of weights that have moved since
        return torch.autocast(like.device.type, dtype=torch.bfloat16, cache_enabled=False)


def _part(weights: Weights, part: str) -> Weights:
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }


def _resolved(loss: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(loss):
        return loss
    if loss not in losses.__all__:
        raise ValueError(
            f"contrastive must be the function itself to train with it; got {loss!r}. "
            "Pass dataclasses.replace(config, contrastive=your_loss)."
        )
    return getattr(losses, loss)
