"""Forward passes that remember what a later tangent needs: forward mode without a second forward.

``torch.func.jvp`` runs the function again, and takes BatchNorm's tangent apart into some fifteen
elementwise passes. Here the tangent replays the activations of a forward pass that was needed
anyway. Per layer, with y the output, x the input and a dot for the tangent:

- convolution: ``y. = conv(x, w.) + conv(x., w)``;
- BatchNorm: the Jacobian in x is symmetric but for the scale of each channel, so that ``x. -> y.``
  is BatchNorm's *backward* pass; then ``+ gamma. xhat + beta.``;
- ReLU: the kernel of its backward pass;
- sums, means and reshapes are linear: the tangent goes through them as the value does;
- anything else: ``torch.func.jvp`` of that one operation.

Any module will do, in training mode: one that ``torch.fx`` cannot trace is replayed as a whole by
``torch.func.jvp``. A forward pass gives the module's own output and gradients bit for bit on a CPU.

A tangent that nobody reads again is overwritten: on a CPU, touching new memory costs more than the
arithmetic of an elementwise pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dimlab.refusals import Refusal

Weights = dict[str, Tensor]
Values = dict[str, Any]
Saved = tuple[Any, ...]  # what one operation keeps for its tangent

_LINEAR_MODULES = (nn.Identity, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten)
_LINEAR_METHODS = ("mean", "sum", "flatten", "view", "reshape", "contiguous", "permute")
_LINEAR_FUNCTIONS = (torch.mean, torch.sum, torch.flatten)
_RELU_FUNCTIONS = (torch.relu, torch.relu_, functional.relu)
_SUMS = ("mean", "sum", torch.mean, torch.sum, nn.AdaptiveAvgPool2d)  # they add many values up
_ADD_FUNCTIONS = (operator.add, torch.add, operator.iadd)


@dataclass(eq=False)
class Tape:
    """What one forward pass left for its tangent: activations and weights, by reference."""

    saved: dict[str, Saved] = field(default_factory=dict)
    versions: list[tuple[Tensor, int]] = field(default_factory=list)  # of the weights


class TangentProgram:
    """A module as a list of operations that runs forward and is replayed along a direction."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._operations, self._output = _compiled(module)
        last: dict[str, int] = {}
        for index, operation in enumerate(self._operations):
            last |= dict.fromkeys(operation.inputs, index)
        # a value is let go behind the operation that reads it last
        self._done_with: list[list[str]] = [[] for _ in self._operations]
        fresh = {each.name for each in self._operations if each.makes_new}
        for name, index in last.items():
            if name != self._output:
                self._done_with[index].append(name)
                if name in fresh:
                    self._operations[index].overwrites |= {name}

    def run(
        self,
        weights: Weights,
        images: Tensor,
        *,
        update_statistics: bool = False,
        remember: bool = True,  # else the tape is empty
    ) -> tuple[Tensor, Tape]:
        """Return features (B, D) of images (B, C, H, W), differentiable in weights, and a tape."""
        tape, values = Tape(), {_INPUT: images}
        for operation, done in zip(self._operations, self._done_with, strict=True):
            result, saved = operation.run(values, weights, update_statistics)
            values[operation.name] = result
            if remember:
                tape.saved[operation.name] = saved
            for name in done:
                del values[name]
        if remember:
            tape.versions = [(each.detach(), each._version) for each in weights.values()]
        return values[self._output], tape

    @torch.no_grad()
    def tangent(self, tape: Tape, direction: Weights) -> Tensor:
        """Return d/de features(theta + e direction) (B, D) at e = 0 and the tape's theta."""
        # weights that the direction does not name stand still; a tape may be replayed again
        if not tape.saved:
            raise Refusal("tape must be that of a pass with remember=True; got an empty one.")
        if any(weight._version != version for weight, version in tape.versions):
            raise Refusal(
                "tape must be replayed before its weights move; got weights that were changed in "
                "place. Run the pass with copies of them."
            )
        tangents: Values = {_INPUT: None}
        for operation, done in zip(self._operations, self._done_with, strict=True):
            tangents[operation.name] = operation.tangent(
                tangents, tape.saved[operation.name], direction
            )
            for name in done:
                del tangents[name]
        if tangents[self._output] is None:
            raise Refusal(
                "direction must name a parameter of the module; got "
                f"{', '.join(direction) or 'nothing'}."
            )
        return tangents[self._output]


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


_INPUT = "<input>"


@dataclass(eq=False)
class _Operation:
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
class _Convolution(_Operation):
    module: nn.Conv2d
    path: str
    makes_new = True

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        x, weight = values[self.inputs[0]], weights[f"{self.path}.weight"]
        bias = weights.get(f"{self.path}.bias")
        return self._convolve(x, weight, bias), (x.detach(), weight.detach())

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        x, weight = saved
        dx = tangents[self.inputs[0]]
        dw, db = direction.get(f"{self.path}.weight"), direction.get(f"{self.path}.bias")
        if dw is not None and dw.stride() != weight.stride():
            dw = torch.empty_like(weight).copy_(dw)  # the same memory format as the activations
        if dw is None and dx is None:
            # a bias alone moves every pixel alike
            return None if db is None else self._convolve(x, torch.zeros_like(weight), db)
        along_weights = None if dw is None else self._convolve(x, dw, db)
        if dx is None:
            return along_weights
        along_input = self._convolve(dx, weight, db if dw is None else None)
        return along_input if along_weights is None else along_input.add_(along_weights)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer = self.module
        return functional.conv2d(
            x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )


@dataclass(eq=False)
class _Norm(_Operation):
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
class _Relu(_Operation):
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
class _Sum(_Operation):
    """A sum of two; where one is constant, the tangent is that of the other, not a new one."""

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        return values[self.inputs[0]] + values[self.inputs[1]], ()

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        a, b = (tangents[name] for name in self.inputs)
        if a is None or b is None:
            return b if a is None else a
        return a.add_(b) if self.inputs[0] in self.overwrites else a + b


@dataclass(eq=False)
class _Linear(_Operation):
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
class _Other(_Operation):
    """Any operation, by torch's own forward mode; with a module, its weights move too."""

    function: Callable[..., Tensor]  # of the weights and the inputs
    module: nn.Module | None
    path: str

    def run(self, values: Values, weights: Weights, update: bool) -> tuple[Tensor, Saved]:
        mine = self._mine(weights)
        given = [values[name] for name in self.inputs]
        with self._still(not update):
            result = self.function(mine, *given)
        kept = {name: weight.detach() for name, weight in mine.items()}
        return result, (kept, tuple(each.detach() for each in given))

    def tangent(self, tangents: Values, saved: Saved, direction: Weights) -> Tensor | None:
        weights, given = saved
        mine = self._mine(direction)
        if not mine and all(tangents[name] is None for name in self.inputs):
            return None
        weights_along = {
            name: mine.get(name, torch.zeros_like(weight)) for name, weight in weights.items()
        }
        along = tuple(
            torch.zeros_like(x) if tangents[name] is None else tangents[name].to(x.dtype)
            for name, x in zip(self.inputs, given, strict=True)
        )
        with self._still(True):
            return torch.func.jvp(self.function, (weights, *given), (weights_along, *along))[1]

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


class _Tracer(fx.Tracer):
    """Tracer that looks into no BatchNorm, whoever wrote it."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, _BatchNorm) or super().is_leaf_module(module, path)


def _compiled(module: nn.Module) -> tuple[list[_Operation], str]:
    """Return the operations in order and the name of the output."""
    whole = _Other("whole", (_INPUT,), _caller(module), module, "")
    try:
        graph = _Tracer().trace(module)
    except Exception:  # tracing raises whatever the module's control flow makes of a stand-in
        return [whole], whole.name
    try:
        return _translated(module, graph)
    except NotImplementedError:
        return [whole], whole.name


def _translated(module: nn.Module, graph: fx.Graph) -> tuple[list[_Operation], str]:
    operations: list[_Operation] = []
    names: dict[fx.Node, str] = {}
    output = ""
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = _INPUT
        elif node.op == "output":
            output = names[node.args[0]]
        else:
            names[node] = node.name
            inputs = tuple(names[each] for each in node.all_input_nodes)
            operations.append(_operation(module, node, inputs))
    return operations, output


def _operation(module: nn.Module, node: fx.Node, inputs: tuple[str, ...]) -> _Operation:
    name, target = node.name, node.target
    if node.op == "call_module":
        path = str(target)
        layer = module.get_submodule(path)
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            return _Convolution(name, inputs, layer, path)
        if type(layer) is nn.BatchNorm1d or type(layer) is nn.BatchNorm2d:
            return _Norm(name, inputs, layer, path)
        if type(layer) is nn.ReLU:
            return _Relu(name, inputs, layer.inplace)
        if type(layer) in _LINEAR_MODULES:
            return _Linear(name, inputs, layer, type(layer) in _SUMS)
        return _Other(name, inputs, _caller(layer), layer, path)
    if node.op == "get_attr":
        raise NotImplementedError("a parameter that is used without its layer")
    plain = len(node.args) == len(inputs) and not node.kwargs
    if node.op == "call_function" and target in _RELU_FUNCTIONS:
        in_place = target is torch.relu_ or node.kwargs.get("inplace", (*node.args, False)[1])
        return _Relu(name, inputs, bool(in_place))
    if node.op == "call_function" and target in _ADD_FUNCTIONS and plain and len(inputs) == 2:
        return _Sum(name, inputs)
    linear = target in (_LINEAR_METHODS if node.op == "call_method" else _LINEAR_FUNCTIONS)
    if linear and len(inputs) == 1:
        return _Linear(name, inputs, _bound(node), target in _SUMS)
    call = _bound(node)
    return _Other(name, inputs, lambda _, *given: call(*given), None, "")


def _caller(module: nn.Module) -> Callable[..., Tensor]:
    return lambda weights, *given: torch.func.functional_call(module, weights, given)


def _bound(node: fx.Node) -> Callable[..., Tensor]:
    """Make the node's call a function of its input nodes, in their order."""
    target: Any = node.target

    def call(*given: Tensor) -> Tensor:
        values = dict(zip(node.all_input_nodes, given, strict=True))
        arguments = fx.map_arg(node.args, values.__getitem__)
        options = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "call_method":
            return getattr(arguments[0], target)(*arguments[1:], **options)
        return target(*arguments, **options)

    return call
