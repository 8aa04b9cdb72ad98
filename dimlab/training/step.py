"""One training step: the regular update of the network, and the meta update of the mask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dimlab.processes import World
from dimlab.refusals import Refusal
from dimlab.training.config import TrainConfig
from dimlab.training.distributed import sum_over_ranks
from dimlab.training.encoders import mask_weights
from dimlab.training.hypergradient import (
    Hypergradient,
    Trial,
    exact_hypergradient,
    finite_difference_hypergradient,
    first_order_hypergradient,
    leaves_of,
    lookahead_hypergradient,
)
from dimlab.training.objective import Objective, Pass, Terms, Views, Weights

Record = dict[str, Any]

# raised when the same configuration, start and views train to other weights or another mask
VERSION = 1

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_UNROLLED = ("exact", "finite_difference", "first_order")  # modes with a trial step of their own


@dataclass(frozen=True, eq=False)
class _Regular:
    """The forward pass of a regular step."""

    views: Views
    weights: Weights
    mask_logits: Tensor
    passed: Pass
    terms: Terms
    loss: Tensor


@dataclass(frozen=True, eq=False)
class _Taken:
    """A regular step that was taken: what `lookahead` looks back at."""

    passed: Pass
    weights: Weights
    mask_logits: Tensor
    learning_rate: float  # times c


class Stepper:
    """Network, mask logits (D,) and their optimisers: everything that one step moves, in place."""

    def __init__(
        self,
        network: nn.ModuleDict,
        mask_logits: Tensor,
        config: TrainConfig,
        world: World | None = None,
    ) -> None:
        self.network, self.mask_logits, self.config = network, mask_logits, config
        self.world = world or World()
        self.objective = Objective(network, config, self.world)
        self.weights: Weights = dict(network.named_parameters())
        self.optimiser = _optimiser(self.weights, config)
        self.mask_optimiser = torch.optim.SGD(
            [mask_logits],
            lr=config.mask_learning_rate,
            momentum=config.mask_momentum,
            weight_decay=config.mask_weight_decay,
        )
        self.mode = config.hypergradient if config.method == "metamask" else "none"
        self._early = self.mode in _UNROLLED and config.meta_position == "before"
        self._norms: Record = {}  # of the mask's last move
        self._taken: _Taken | None = None
        self._outer: tuple[Weights, Tensor] = {}, mask_logits  # of `_backward_apart`

    def set_rates(self, scale: float) -> None:
        """Set both learning rates to their peaks times ``scale``."""
        self.optimiser.param_groups[0]["lr"] = self.config.learning_rate * scale
        self.mask_optimiser.param_groups[0]["lr"] = self.config.mask_learning_rate * scale

    def take(
        self,
        views: Views,
        next_views: Callable[[], Views],
        *,
        step: int = 0,
        traced: bool = False,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Record:
        """Take step number ``step`` on views (B, C, H, W), and return its record."""
        # Where the loss is not finite, only BatchNorm's running statistics have moved; where the
        # hypergradient is not finite, the mask has not moved.
        clock = _Clock(self.mask_logits.device)
        moves, judged = (
            self.mode != "none" and each % self.config.meta_every == self.config.meta_every - 1
            for each in (step, step + 1)
        )
        lookahead = self.mode == "lookahead" and (moves or judged)
        early = self._early and moves
        regular = self._forward(views, apart=lookahead, remember=early or (lookahead and judged))
        record = self._terms_of(regular)
        if watch is not None:
            watch(regular.passed.features[0].detach())
        if traced and "contrastive" in regular.terms:
            record["gradient_share"] = self._gradient_share(regular)
        hypergradient: Hypergradient | None = None
        if lookahead:
            self._backward_apart(regular)
        else:
            regular.loss.backward(retain_graph=early)
            sum_over_ranks(self._gradients().values(), self.world)
        clock.lap("regular")
        if lookahead:
            hypergradient = self._look_back(regular, judged=judged)
        elif self.mode == "joint" and moves:
            hypergradient = self._joint(regular)
        elif early:
            hypergradient = self._unrolled(views, next_views, regular)
        clock.lap("meta")
        self._update(record)
        clock.lap("regular")
        if self.mode in _UNROLLED and moves and not early:
            hypergradient = self._unrolled(views, next_views, None)
        if hypergradient is not None:
            self._update_mask(hypergradient)
        clock.lap("meta")
        return record | self._norms | self._state_of_mask_and_rates() | clock.seconds

    def _forward(self, views: Views, *, apart: bool, remember: bool) -> _Regular:
        # lookahead looks back at these weights when the live ones have moved on
        weights = self.weights
        if apart:
            weights = leaves_of({name: each.clone() for name, each in weights.items()})
        s = self.mask_logits.detach().clone()
        s.requires_grad_(apart or self.mode == "joint")
        passed = self.objective.forward(weights, views, update_statistics=True, remember=remember)
        terms = self.objective.terms(weights, passed.features, s, "total", update_statistics=True)
        return _Regular(views, weights, s, passed, terms, self.objective.value(terms, "total"))

    def _terms_of(self, regular: _Regular) -> Record:
        named = {**regular.terms, "loss": regular.loss}
        values = torch.stack([value.detach().double() for value in named.values()])
        sum_over_ranks([values], self.world)
        record = dict(zip(named, values.tolist(), strict=True))
        if not math.isfinite(record["loss"]):
            raise FloatingPointError(f"loss must stay finite; got {record['loss']}")
        self.optimiser.zero_grad(set_to_none=True)
        return record

    def _gradient_share(self, regular: _Regular) -> Tensor:
        gradients = torch.autograd.grad(
            regular.terms["contrastive"], regular.passed.features, retain_graph=True
        )
        share = torch.cat(gradients).abs().sum(0) / (2 * self.config.batch_size)
        sum_over_ranks([share], self.world)
        return share

    def _gradients(self) -> Weights:
        return {name: p.grad for name, p in self.weights.items() if p.grad is not None}

    def _update(self, record: Record) -> None:
        limit = self.config.clip_norm
        if limit > 0:
            record["gradient_norm"] = torch.nn.utils.clip_grad_norm_(
                list(self.weights.values()), limit
            ).item()
            if self.mode == "lookahead" and record["gradient_norm"] > limit:
                raise Refusal(
                    "hypergradient='lookahead' must unroll steps that clipping leaves alone; got a "
                    f"gradient of norm {record['gradient_norm']:.4g}. Raise clip_norm or use "
                    "'exact'."
                )
        self.optimiser.step()

    def _update_mask(self, hypergradient: Hypergradient) -> None:
        total = hypergradient.total
        if not total.isfinite().all():
            raise FloatingPointError("hypergradient must stay finite; got a NaN or an infinity")
        self.mask_logits.grad = total.to(self.mask_logits.dtype)
        self.mask_optimiser.step()
        self._norms = {
            "direct_norm": hypergradient.direct.norm().item(),
            "second_order_norm": hypergradient.second_order.norm().item(),
            "hypergradient_cosine": hypergradient.cosine,
        }

    def _joint(self, regular: _Regular) -> Hypergradient:
        gradient = regular.mask_logits.grad
        nothing = torch.zeros_like(regular.mask_logits)
        if gradient is None:
            return Hypergradient(nothing, nothing)
        sum_over_ranks([gradient], self.world)
        return Hypergradient(gradient, nothing)

    def _unrolled(
        self, views: Views, next_views: Callable[[], Views], shared: _Regular | None
    ) -> Hypergradient:
        trial = self.trial(views, next_views, shared)
        if self.mode == "finite_difference":
            return finite_difference_hypergradient(
                trial, radius=self.config.finite_difference_radius
            )
        return (exact_hypergradient if self.mode == "exact" else first_order_hypergradient)(trial)

    def trial(
        self, views: Views, next_views: Callable[[], Views], shared: _Regular | None = None
    ) -> Trial:
        """Return the trial step from here, with the forward pass of ``shared``; nothing moves."""
        config, learning_rate = self.config, self.optimiser.param_groups[0]["lr"]
        passed, gradient = None, None
        if shared is not None:
            passed = shared.passed.detached()
            if config.trial_loss == "total":
                gradient = {name: each.clone() for name, each in self._gradients().items()}
            else:
                loss = shared.terms["contrastive"]
                gradient = self.objective.weight_gradients(loss, self.weights)
        drift = None
        if config.trial_step == "optimiser" and config.optimiser == "sgd":
            drift = self._drift()
            learning_rate *= _momentum_factor(config)
        return Trial(
            self.objective, self.weights, self.mask_logits,
            views, views if config.meta_batch == "same" else next_views(),
            learning_rate, config.trial_loss, config.outer_loss,
            drift=drift, passed=passed, gradient=gradient,
            moves_statistics=config.meta_moves_statistics,
        )  # fmt: skip

    def _drift(self) -> Weights:
        """Return what SGD adds to the gradient: weight decay, and what its buffer still holds."""
        config, drift = self.config, {}
        held = config.momentum**2 if config.nesterov else config.momentum
        for name, weight in self.weights.items():
            drift[name] = config.weight_decay * weight.detach()
            buffer = self.optimiser.state[weight].get("momentum_buffer")
            if buffer is not None:
                drift[name] = drift[name] + held / _momentum_factor(config) * buffer
        return drift

    def _backward_apart(self, regular: _Regular) -> None:
        """Leave the regular gradient in ``.grad``, the outer loss's in ``self._outer``."""
        config, objective = self.config, self.objective
        weights, s = regular.weights, regular.mask_logits
        if config.outer_loss == "total":
            self._outer = gradient, _ = objective.gradients(regular.loss, weights, s)
        else:
            self._outer = v, _ = objective.gradients(
                regular.terms["contrastive"], weights, s, retain_graph=True
            )
            rest = {name: term for name, term in regular.terms.items() if name != "contrastive"}
            gradient = objective.weight_gradients(objective.value(rest, "total"), weights)
            for name, each in v.items():
                share = config.contrastive_weight * each
                gradient[name] = gradient[name] + share if name in gradient else share
        for name, each in gradient.items():
            self.weights[name].grad = each

    def _look_back(self, regular: _Regular, *, judged: bool) -> Hypergradient | None:
        """Judge the step before this one by this batch; None where it is not remembered."""
        taken, (v, direct) = self._taken, self._outer
        self._taken = None
        if judged:  # by the next step
            self._taken = _Taken(
                regular.passed.detached(),
                {name: weight.detach() for name, weight in regular.weights.items()},
                regular.mask_logits.detach(),
                self.optimiser.param_groups[0]["lr"] * _momentum_factor(self.config),
            )
        if taken is None:
            return None
        return lookahead_hypergradient(
            self.objective,
            taken.passed,
            taken.weights,
            taken.mask_logits,
            v,
            direct,
            learning_rate=taken.learning_rate,
        )

    def _state_of_mask_and_rates(self) -> Record:
        weights = mask_weights(self.mask_logits, self.config.mask).detach().double()
        levels = torch.tensor(_QUANTILES, dtype=weights.dtype, device=weights.device)
        quantiles = weights.quantile(levels).tolist()
        return {
            "mask_mean": weights.mean().item(),
            "mask_std": weights.std(correction=0).item(),
            **{
                f"mask_q{round(100 * level):02d}": value
                for level, value in zip(_QUANTILES, quantiles, strict=True)
            },
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "mask_learning_rate": self.mask_optimiser.param_groups[0]["lr"],
        }

    def state(self) -> dict[str, Any]:
        """Return what a later run needs to go on: optimisers, and the step to look back at."""
        state: dict[str, Any] = {
            "network": self.optimiser.state_dict(),
            "mask": self.mask_optimiser.state_dict(),
        }
        if self.config.meta_every > 1:
            state["norms"] = self._norms
        if self._taken is not None:
            state["taken"] = {
                "weights": self._taken.weights,
                "mask_logits": self._taken.mask_logits,
                "learning_rate": self._taken.learning_rate,
            }
        return state

    def restore(self, state: dict[str, Any], last_views: Callable[[], Views]) -> None:
        """Take up a state; ``last_views`` makes the views of the step that was taken last."""
        self.optimiser.load_state_dict(state["network"])
        self.mask_optimiser.load_state_dict(state["mask"])
        self._norms = dict(state.get("norms", {}))
        taken = state.get("taken")
        if taken is not None:
            device = self.mask_logits.device
            weights = {
                name: weight.to(device).requires_grad_()
                for name, weight in taken["weights"].items()
            }
            self._taken = _Taken(
                self.objective.forward(weights, last_views()).detached(),
                {name: weight.detach() for name, weight in weights.items()},
                taken["mask_logits"].to(device),
                taken["learning_rate"],
            )


class _Clock:
    """Seconds by part, with the device's queue emptied at every lap."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = time.perf_counter()
        self.seconds = {"regular_seconds": 0.0, "meta_seconds": 0.0}

    def lap(self, part: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[f"{part}_seconds"] += now - self._last
        self._last = now


def _optimiser(weights: Weights, config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimiser == "adamw":
        return torch.optim.AdamW(
            weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        weights.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )


def _momentum_factor(config: TrainConfig) -> float:
    """How often the gradient stands in one step of SGD: c."""
    return 1 + config.momentum if config.nesterov else 1.0
