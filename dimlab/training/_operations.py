"""Operations of an encoder that run forward, and whose tangents replay what they kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from dimlab.refusals import Refusal

Weights = dict[str, Tensor]
Values = dict[str, Any]
Saved = tuple[Any, ...]  # what one operation keeps for its tangent


@contextmanager
def without_running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics still while those of the batch are used."""
    norms = [
        layer
        for module in modules
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    for layer in norms:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in norms:
            layer.track_running_stats = True


@dataclass(eq=False)
class Operation:
    """One line of the program; a tangent of None is zero."""

    name: str
    inputs: tuple[str, ...]
    overwrites: frozenset[str] = field(default=frozenset(), init=False)  # tangents it may reuse
    makes_new: ClassVar[bool] = False  # whether its tangent is no view of another one

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        raise NotImplementedError

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        raise NotImplementedError


@dataclass(eq=False)
class Product(Operation):
    """A convolution or a linear layer: linear in its input and in its weights."""

    module: nn.Module
    path: str
    makes_new = True

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        x, weight = values[self.inputs[0]], weights[f"{self.path}.weight"]
        bias = weights.get(f"{self.path}.bias")
        return self._apply(x, weight, bias), (x.detach(), weight.detach())

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        x, weight = saved
        dx = tangents[self.inputs[0]]
        dw, db = direction.get(f"{self.path}.weight"), direction.get(f"{self.path}.bias")
        if dw is not None and dw.stride() != weight.stride():
            dw = torch.empty_like(weight).copy_(dw)  # the same memory format as the activations
        if dw is None and dx is None:
            # a bias alone moves every pixel alike
            return None if db is None else self._apply(x, torch.zeros_like(weight), db)
        along_weights = None if dw is None else self._apply(x, dw, db)
        if dx is None:
            return along_weights
        along_input = self._apply(dx, weight, db if dw is None else None)
        return along_input if along_weights is None else along_input.add_(along_weights)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer: Any = self.module
        if isinstance(layer, nn.Linear):
            return functional.linear(x, weight, bias)
        return functional.conv2d(
            x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )


@dataclass(eq=False)
class Norm(Operation):
    module: _BatchNorm
    path: str
    makes_new = True

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        layer: Any = self.module
        x = values[self.inputs[0]]
        mean, variance, momentum = None, None, 0.0
        if update and layer.track_running_stats:
            layer.num_batches_tracked.add_(1)
            mean, variance = layer.running_mean, layer.running_var
            momentum = layer.momentum
            if momentum is None:
                momentum = 1.0 / float(layer.num_batches_tracked)
        if x.numel() == x.shape[1]:
            raise Refusal(
                f"batch must have more than one value per channel; got shape {tuple(x.shape)}."
            )
        gamma = weights.get(f"{self.path}.weight")
        y, batch_mean, inverse_deviation = torch.native_batch_norm(
            x, gamma, weights.get(f"{self.path}.bias"), mean, variance, True, momentum, layer.eps
        )
        kept = None if gamma is None else gamma.detach()
        return y, (x.detach(), kept, batch_mean.detach(), inverse_deviation.detach())

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        x, gamma, mean, inverse_deviation = saved
        dx = tangents[self.inputs[0]]
        dgamma, dbeta = (direction.get(f"{self.path}.{name}") for name in ("weight", "bias"))
        along_x, along_weights = dx is not None, dgamma is not None or dbeta is not None
        if not (along_x or along_weights):
            return None
        # per channel, y. = stretch x. + scale x + shift
        scale = torch.zeros_like(mean) if dgamma is None else dgamma * inverse_deviation
        shift = -scale * mean if dbeta is None else dbeta - scale * mean
        if not along_x:
            return torch.addcmul(_by_channel(shift, x), x, _by_channel(scale, x))
        if x.is_cuda or x.dtype not in (torch.float32, torch.float64):
            # one kernel, and wide enough sums: half precision cannot hold scale x + shift
            dy = self._backward(dx, x, gamma, mean, inverse_deviation, [True, False, False])[0]
            if along_weights:
                dy.add_(_by_channel(shift, x)).addcmul_(x, _by_channel(scale, x))
            return dy
        _, product, total = self._backward(
            dx, x, gamma, mean, inverse_deviation, [False, True, True]
        )
        count = x.numel() // x.shape[1]
        stretch = inverse_deviation if gamma is None else gamma * inverse_deviation
        along_deviation = stretch * inverse_deviation * product / count
        scale = scale - along_deviation
        shift = shift + along_deviation * mean - stretch * total / count
        dy = dx if self.inputs[0] in self.overwrites else dx.clone()
        dy.mul_(_by_channel(stretch, x)).addcmul_(x, _by_channel(scale, x))
        return dy.add_(_by_channel(shift, x))

    def _backward(
        self,
        dy: Tensor,
        x: Tensor,
        gamma: Tensor | None,
        mean: Tensor,
        inverse_deviation: Tensor,
        wanted: list[bool],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.aten.native_batch_norm_backward(
            dy, x, gamma, None, None, mean, inverse_deviation, True, self.module.eps, wanted
        )


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).view((1, -1) + (1,) * (x.ndim - 2))


@dataclass(eq=False)
class Relu(Operation):
    in_place: bool
    makes_new = True

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        x = values[self.inputs[0]]
        y = torch.relu_(x) if self.in_place else torch.relu(x)
        return y, (y.detach(),)

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        dx = tangents[self.inputs[0]]
        if dx is None:
            return None
        backward = torch.ops.aten.threshold_backward
        if self.inputs[0] in self.overwrites:
            return backward.grad_input(dx, saved[0], 0, grad_input=dx)
        return backward(dx, saved[0], 0)


@dataclass(eq=False)
class Gelu(Operation):
    """Its tangent is the kernel of its backward pass too."""

    approximate: str
    makes_new = True

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        x = values[self.inputs[0]]
        return functional.gelu(x, approximate=self.approximate), (x.detach(),)

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        dx = tangents[self.inputs[0]]
        backward = torch.ops.aten.gelu_backward
        return None if dx is None else backward(dx, saved[0], approximate=self.approximate)


@dataclass(eq=False)
class Sum(Operation):
    """A sum of two; where one is constant, the tangent is that of the other, not a new one."""

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        return values[self.inputs[0]] + values[self.inputs[1]], ()

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        a, b = (tangents[name] for name in self.inputs)
        if a is None or b is None:
            return b if a is None else a
        return a.add_(b) if self.inputs[0] in self.overwrites else a + b


@dataclass(eq=False)
class LinearMap(Operation):
    """A linear map without weights."""

    function: Callable[[Any], Tensor]
    sums: bool

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        return self.function(self._wide(values[self.inputs[0]])), ()

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        dx = tangents[self.inputs[0]]
        return None if dx is None else self.function(self._wide(dx))

    def _wide(self, x: Tensor) -> Tensor:
        """Widen half-precision values that are added up: their mean has more digits."""
        return x.float() if self.sums and x.dtype in (torch.bfloat16, torch.float16) else x


@dataclass(eq=False)
class Given(Operation):
    """A parameter or a buffer that is used without its layer."""

    value: Tensor
    path: str

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        return weights.get(self.path, self.value), ()

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        return direction.get(self.path)


@dataclass(eq=False)
class Other(Operation):
    """Any operation, by torch's own forward mode; with a module, its weights move too."""

    # Numbers among the inputs, such as a shape, are constants; inputs and results may be tuples.

    function: Callable[..., Tensor]  # of the weights and the inputs
    module: nn.Module | None
    path: str

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        mine = self._mine(weights)
        given = [values[name] for name in self.inputs]
        before = _random_state(given)
        with self._still(not update):
            result = self.function(mine, *given)
        drew = any(
            not torch.equal(*pair) for pair in zip(before, _random_state(given), strict=True)
        )
        kept = {name: weight.detach() for name, weight in mine.items()}
        given = tree_map(lambda each: each.detach() if _moves(each) else each, given)
        moves = any(map(_moves, tree_leaves(result)))
        return result, (kept, given, before if drew else None, moves)

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        weights, given, state, moves = saved
        mine = self._mine(direction)
        if not moves or not (mine or any(tangents[name] is not None for name in self.inputs)):
            return None
        weights_along = {
            name: mine.get(name, torch.zeros_like(weight)) for name, weight in weights.items()
        }
        leaves, shape = tree_flatten(given)
        places = [place for place, each in enumerate(leaves) if _moves(each)]
        known = [
            direction
            for name, value in zip(self.inputs, given, strict=True)
            for direction in _along(tangents[name], value)
        ]
        along = [
            torch.zeros_like(leaves[place]) if each is None else each.to(leaves[place].dtype)
            for place, each in zip(places, (known[place] for place in places), strict=True)
        ]

        def function(weights: Weights, *moving: Tensor) -> Any:
            whole = list(leaves)
            for place, each in zip(places, moving, strict=True):
                whole[place] = each
            return self.function(weights, *tree_unflatten(whole, shape))

        primals = (weights, *(leaves[place] for place in places))
        with self._still(True), sdpa_kernel(SDPBackend.MATH), _drawing_again(state):
            return torch.func.jvp(function, primals, (weights_along, *along))[1]

    def _mine(self, weights: Weights) -> Weights:
        if self.module is None:
            return {}
        prefix = f"{self.path}." if self.path else ""
        found = ((f"{prefix}{name}", name) for name, _ in self.module.named_parameters())
        return {name: weights[full] for full, name in found if full in weights}

    def _still(self, still: bool) -> Any:
        if self.module is None or not still:
            return nullcontext()
        return without_running_statistics(self.module)


def _moves(value: Any) -> bool:
    """Whether a value can have a tangent."""
    return isinstance(value, Tensor) and value.is_floating_point()


def _along(tangent: Any, value: Any) -> list[Any]:
    """Return the tangents of a value's leaves, None where there is none."""
    n_leaves = len(tree_leaves(value))
    if tangent is None:
        return [None] * n_leaves
    return [tangent] if isinstance(tangent, Tensor) else list(tangent)


def _random_state(given: Sequence[Any]) -> list[Tensor]:
    """Return the states of the generators that an operation on these values may draw from."""
    devices = {each.device for each in tree_leaves(given) if isinstance(each, Tensor)}
    found = [torch.cuda.get_rng_state(each) for each in devices if each.type == "cuda"]
    return [torch.get_rng_state(), *found]


@contextmanager
def _drawing_again(state: list[Tensor] | None) -> Iterator[None]:
    """Draw what was drawn from a state of the generators; they are left as they are."""
    if state is None:
        yield
        return
    devices = [torch.cuda.current_device()] if len(state) > 1 else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(state[0])
        if devices:
            torch.cuda.set_rng_state(state[1])
        yield
