"""The losses of one batch as functions of weights, features and mask: what every step descends.

Every loss is this rank's share; every gradient that a method of `Objective` returns is summed over
the ranks. BatchNorm's running statistics move only where ``update_statistics`` says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dimlab.processes import World
from dimlab.refusals import Refusal
from dimlab.training import losses
from dimlab.training._operations import without_running_statistics
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import Batch, sum_over_ranks
from dimlab.training.encoders import mask_weights
from dimlab.training.tangent import TangentProgram, Tape

Weights = dict[str, Tensor]
Views = tuple[Tensor, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Pass:
    """Features (B, D) of both views of a batch, and the tapes that a later tangent replays."""

    features: Views
    tapes: tuple[Tape, Tape]

    def detached(self) -> Pass:
        """Return the pass without the encoder's graph, which costs memory."""
        return Pass((self.features[0].detach(), self.features[1].detach()), self.tapes)


@dataclass(frozen=True, eq=False)
class HeadGradient:
    """Gradients of a loss in features and projector weights, differentiable in the logits."""

    mask_logits: Tensor  # (D,), a leaf
    features: tuple[Tensor | None, ...]  # (B, D) by view; None where the loss ignores a view
    weights: Weights  # only those that the loss depends on


class Objective:
    """The losses of two views, for given weights and mask logits s of shape (D,)."""

    # ``network`` has ``encoder``, ``contrastive`` and ``redundancy``, in training mode; weights are
    # passed in under the names of its parameters; ``which`` is the loss, contrastive or total
    def __init__(
        self, network: nn.ModuleDict, config: TrainConfig, world: World | None = None
    ) -> None:
        self.network, self.config = network, config
        self.world = world or World()
        self._batch = Batch(config.batch_size, self.world)
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
        """Encode both views (B, C, H, W); without ``remember`` no tangent can be asked for."""
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
        """Return this rank's shares of a loss's terms, for unmasked features (B, D) by view."""
        config = self.config
        masked = features
        if config.method == "metamask":
            mask = mask_weights(mask_logits, config.mask)
            masked = (features[0] * mask, features[1] * mask)
        terms: Terms = {}
        redundancy_sees = masked if config.masked_heads == "both" else features
        if which == "total" and config.method != "simclr":
            z_a, z_b = self._project("redundancy", weights, redundancy_sees, update_statistics)
            terms["invariance"], terms["redundancy"] = losses.barlow_twins_terms(
                z_a, z_b, unbiased=config.barlow_statistics == "unbiased", batch=self._batch
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
        """Return this rank's share of the loss ``which``; running statistics stay."""
        return self.value(self.terms(weights, features, mask_logits, which), which)

    def gradients(
        self, loss: Tensor, weights: Weights, mask_logits: Tensor, *, retain_graph: bool = False
    ) -> tuple[Weights, Tensor]:
        """Return a loss's gradients in the weights that it reaches and in the logits (D,)."""
        wanted = [*weights.values(), mask_logits]
        *found, in_logits = self._differentiated(loss, wanted, retain_graph)
        reached = _reached(weights, found)
        return reached, torch.zeros_like(mask_logits) if in_logits is None else in_logits

    def weight_gradients(self, loss: Tensor, weights: Weights) -> Weights:
        """Return a loss's gradients in the weights that it reaches."""
        return _reached(weights, self._differentiated(loss, list(weights.values()), False))

    def _differentiated(
        self, loss: Tensor, wanted: list[Tensor], retain_graph: bool
    ) -> list[Tensor | None]:
        found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=retain_graph)
        sum_over_ranks([each for each in found if each is not None], self.world)
        return list(found)

    def head_gradient(
        self,
        weights: Weights,
        features: Views,
        mask_logits: Tensor,
        which: str,
        *,
        update_statistics: bool = False,
        keep_graph: bool = True,  # for a slope
    ) -> HeadGradient:
        """Differentiate this rank's share of a loss down to the features (B, D), and no further."""
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
        return HeadGradient(s, found[:2], _reached(heads, found[2:]))

    def through_encoder(self, heads: HeadGradient, passed: Pass, weights: Weights) -> Weights:
        """Return the detached gradient in all weights reached; ``passed`` still has its graph."""
        encoder = {name: each for name, each in weights.items() if name.startswith("encoder.")}
        found = torch.autograd.grad(
            passed.features,
            list(encoder.values()),
            [None if each is None else each.detach() for each in heads.features],
            allow_unused=True,
        )
        # the sum over ranks is in place, and the graph still needs the projectors' own values
        own = {name: each.detach().clone() for name, each in heads.weights.items()}
        gradient = own | _reached(encoder, found)
        sum_over_ranks(list(gradient.values()), self.world)
        return gradient

    def slope(self, passed: Pass, heads: HeadGradient, direction: Weights) -> Tensor:
        """Return the exact d_s <grad_theta L(theta, s), direction> (D,); uses up heads' graph."""
        # The encoder is differentiated in forward mode only, the projectors twice in reverse mode.
        # Reverse over forward mode would give wrong numbers: torch 2.13 differentiates BatchNorm's
        # tangent with the batch's statistics held constant.
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
        temperature, batch = self.config.temperature, self._batch
        if self.contrastive is losses.nt_xent_loss:
            return losses.nt_xent_share(z_a, z_b, temperature, batch)
        given = {"temperature": temperature} if self._takes_temperature else {}
        # any other loss is computed of all rows by every rank alike
        return self.contrastive(batch.gather(z_a), batch.gather(z_b), **given) / self.world.size

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


def _reached(weights: Weights, gradients: Sequence[Tensor | None]) -> Weights:
    """Return gradients by the names of their weights, without those that are None."""
    pairs = zip(weights, gradients, strict=True)
    return {name: gradient for name, gradient in pairs if gradient is not None}


def _resolved(loss: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(loss):
        return loss
    if loss not in losses.__all__:
        raise Refusal(
            f"contrastive must be the function itself to train with it; got {loss!r}. "
            "Pass dataclasses.replace(config, contrastive=your_loss)."
        )
    return getattr(losses, loss)
