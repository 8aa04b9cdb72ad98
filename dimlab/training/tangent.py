"""Forward passes that remember what a later tangent needs: forward mode without a second forward.

``torch.func.jvp`` runs the function again, and takes BatchNorm's tangent apart into some fifteen
elementwise passes. Here the tangent replays the activations of a forward pass that was needed
anyway. Per layer, with y the output, x the input and a dot for the tangent:

- convolution: ``y. = conv(x, w.) + conv(x., w)``, and a linear layer in the same way;
- BatchNorm: the Jacobian in x is symmetric but for the scale of each channel, so that ``x. -> y.``
  is BatchNorm's *backward* pass; then ``+ gamma. xhat + beta.``;
- ReLU and GELU: the kernel of their backward pass;
- sums, means and reshapes are linear: the tangent goes through them as the value does;
- anything else: ``torch.func.jvp`` of that one operation. Attention runs forward in whatever kernel
  torch chooses, and its tangent by the formula: the fused kernels have no forward mode.

Any module will do, in training mode: one that ``torch.fx`` cannot trace is replayed as a whole by
``torch.func.jvp``. What is drawn, as by dropout, is drawn again alike. A forward pass gives the
module's own output and gradients bit for bit on a CPU.

A tangent that nobody reads again is overwritten: on a CPU, touching new memory costs more than the
arithmetic of an elementwise pass.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dimlab.refusals import Refusal
from dimlab.training._operations import (
    Gelu,
    Given,
    LinearMap,
    Norm,
    Operation,
    Other,
    Product,
    Relu,
    Saved,
    Sum,
    Values,
    Weights,
)

_LINEAR_MODULES = (nn.Identity, nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten)
_LINEAR_METHODS = (
    *("mean", "sum", "flatten", "view", "reshape", "contiguous", "permute", "transpose"),
    *("unflatten", "expand", "unbind"),
)
_LINEAR_FUNCTIONS = (torch.mean, torch.sum, torch.flatten, operator.getitem)
_RELU_FUNCTIONS = (torch.relu, torch.relu_, functional.relu)
_SUMS = ("mean", "sum", torch.mean, torch.sum, nn.AdaptiveAvgPool2d)  # they add many values up
_ADD_FUNCTIONS = (operator.add, torch.add, operator.iadd)
_INPUT = "<input>"


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


class _Tracer(fx.Tracer):
    """Tracer that looks into no BatchNorm, whoever wrote it."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, _BatchNorm) or super().is_leaf_module(module, path)


def _compiled(module: nn.Module) -> tuple[list[Operation], str]:
    """Return the operations in order and the name of the output."""
    whole = Other("whole", (_INPUT,), _caller(module), module, "")
    try:
        graph = _Tracer().trace(module)
    except Exception:  # tracing raises whatever the module's control flow makes of a stand-in
        return [whole], whole.name
    try:
        return _translated(module, graph)
    except NotImplementedError:
        return [whole], whole.name


def _translated(module: nn.Module, graph: fx.Graph) -> tuple[list[Operation], str]:
    operations: list[Operation] = []
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


def _operation(module: nn.Module, node: fx.Node, inputs: tuple[str, ...]) -> Operation:
    name, target = node.name, node.target
    if node.op == "call_module":
        path = str(target)
        layer = module.get_submodule(path)
        if type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.padding_mode == "zeros"):
            return Product(name, inputs, layer, path)
        if type(layer) is nn.BatchNorm1d or type(layer) is nn.BatchNorm2d:
            return Norm(name, inputs, layer, path)
        if type(layer) is nn.ReLU:
            return Relu(name, inputs, layer.inplace)
        if type(layer) is nn.GELU:
            return Gelu(name, inputs, layer.approximate)
        if type(layer) in _LINEAR_MODULES:
            return LinearMap(name, inputs, layer, type(layer) in _SUMS)
        return Other(name, inputs, _caller(layer), layer, path)
    if node.op == "get_attr":
        value = attrgetter(str(target))(module)
        if not isinstance(value, Tensor) or (
            isinstance(value, nn.Parameter) and target not in dict(module.named_parameters())
        ):
            raise NotImplementedError("a parameter that another layer has too")
        return Given(name, inputs, value, str(target))
    plain = len(node.args) == len(inputs) and not node.kwargs
    if node.op == "call_function" and target in _RELU_FUNCTIONS:
        in_place = target is torch.relu_ or node.kwargs.get("inplace", (*node.args, False)[1])
        return Relu(name, inputs, bool(in_place))
    if node.op == "call_function" and target in _ADD_FUNCTIONS and plain and len(inputs) == 2:
        return Sum(name, inputs)
    linear = target in (_LINEAR_METHODS if node.op == "call_method" else _LINEAR_FUNCTIONS)
    if linear and len(inputs) == 1:
        return LinearMap(name, inputs, _bound(node), target in _SUMS)
    call = _bound(node)
    return Other(name, inputs, lambda _, *given: call(*given), None, "")


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
