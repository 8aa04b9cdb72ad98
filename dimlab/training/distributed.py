"""Several processes, one batch: collectives that every kind of differentiation goes through.

Each rank's loss is its share: the shares add up to the loss of the whole batch, and every rank
differentiates its own. Gradients of replicated weights, of the mask, and inner products with
tangents are therefore *summed* over ranks, never averaged. On one rank each of these sums is the
identity.

torch's functional all-reduce drops forward-mode tangents, ``SyncBatchNorm`` refuses a CPU, and
``DistributedDataParallel`` averages and knows no hypergradient: none of them is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dimlab.processes import World
from dimlab.refusals import Refusal


class _AllReduce(torch.autograd.Function):
    """Sum over ranks, whose derivatives of every kind are sums over ranks again."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _AllReduce.apply(gradient)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        # without this sum the tangents of the other ranks' samples are lost, and nothing says so
        return _AllReduce.apply(tangent)


def all_reduce(x: Tensor, world: World) -> Tensor:
    """Return the sum of a tensor over ranks, differentiable in reverse and in forward mode."""
    return x if world.size == 1 else _AllReduce.apply(x)


def all_gather(x: Tensor, n_samples: int, world: World) -> Tensor:
    """Return the (n_samples, ...) rows of all ranks in order, differentiable as `all_reduce`."""
    # a sum of parts that are zero elsewhere: parts may differ in length, and one collective is
    # differentiated, not two; it moves at most twice the bytes of a gather
    if world.size == 1:
        return x
    mine = world.rows(n_samples)
    before = x.new_zeros((mine.start, *x.shape[1:]))
    behind = x.new_zeros((n_samples - mine.stop, *x.shape[1:]))
    return all_reduce(torch.cat([before, x, behind]), world)


@dataclass(frozen=True)
class Batch:
    """The rows of a whole batch, of which each rank of a world has its part."""

    n_samples: int
    world: World = World()

    @property
    def rows(self) -> slice:
        """Return this rank's rows."""
        return self.world.rows(self.n_samples)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over ranks."""
        return all_reduce(x, self.world)

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows of all ranks."""
        return all_gather(x, self.n_samples, self.world)

    def mean(self, z: Tensor) -> Tensor:
        """Return the mean (P,) of z (b, P) over the rows of all ranks."""
        return z.mean(0) if self.world.size == 1 else self.sum(z.sum(0)) / self.n_samples

    def variance(self, z: Tensor, centred: Tensor, *, correction: int) -> Tensor:
        """Return the variance (P,) of z over the rows of all ranks; ``centred`` is z - mean."""
        if self.world.size == 1:
            return z.var(0, correction=correction)
        return self.sum(centred.square().sum(0)) / (self.n_samples - correction)


@torch.no_grad()
def sum_over_ranks(tensors: Iterable[Tensor], world: World) -> None:
    """Sum tensors over ranks in place, a collective for each data type."""
    if world.size == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for same in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in same])
        dist.all_reduce(flat)
        for tensor, part in zip(same, flat.split([each.numel() for each in same]), strict=True):
            tensor.copy_(part.view_as(tensor))


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm with training statistics over all ranks' rows, and the layer's own state dict."""

    def __init__(self, layer: _BatchNorm, world: World) -> None:
        super().__init__(
            layer.num_features,
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        )
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.world = world
        self.train(layer.training)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise Refusal(f"x must have at least two axes; got shape {tuple(x.shape)}.")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, ...) by the statistics of all ranks, or in evaluation as usual."""
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = (1, -1) + (1,) * (x.ndim - 2)
        wide = x if x.dtype == torch.float64 else x.float()
        count = all_reduce(wide.new_tensor(float(x.numel() // x.shape[1])), self.world)
        if count.item() < 2:
            raise Refusal("batch must have more than one value per channel; got one.")
        # the mean first, then the mean squared distance from it: a difference of large sums would
        # lose digits; ordinary operations can be differentiated in any order
        mean = all_reduce(wide.sum(axes), self.world) / count
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes), self.world) / count
        if self.track_running_stats:
            self._update(mean.detach(), variance.detach() * count / (count - 1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        count: Any = self.num_batches_tracked
        running_mean: Any = self.running_mean
        running_var: Any = self.running_var
        count.add_(1)
        rate = 1.0 / float(count) if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean.dtype), rate)
        running_var.lerp_(variance.to(running_var.dtype), rate)


def make_statistics_global(network: nn.Module, world: World) -> None:
    """Make every BatchNorm inside a network one over all ranks, in place."""
    if world.size > 1:
        for name, child in network.named_children():
            if isinstance(child, _BatchNorm):
                setattr(network, name, GlobalBatchNorm(child, world))
            else:
                make_statistics_global(child, world)
