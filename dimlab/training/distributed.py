"""Several processes, one batch: collectives that every kind of differentiation goes through.

Rank r's loss is its share, the shares add up to the loss of the whole batch, and every rank
differentiates its own share. So gradients of replicated weights, of the mask, and inner products
with tangents are *summed* over ranks, never averaged.

torch's functional all-reduce drops forward-mode tangents, ``SyncBatchNorm`` refuses a CPU, and
``DistributedDataParallel`` averages and knows no hypergradient: none of them is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from dimlab.training.losses import BATCH_NORM_EPS, barlow_twins_terms, nt_xent_loss


@dataclass(frozen=True)
class World:
    """The processes that share every batch, and which of them this is.

    Parameters
    ----------
    rank : int, default=0
        This process.
    size : int, default=1
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    def rows(self, n_samples: int) -> slice:
        """Rows of a batch that are this rank's; parts differ by at most one row."""
        length, longer = divmod(n_samples, self.size)
        start = self.rank * length + min(self.rank, longer)
        return slice(start, start + length + (self.rank < longer))


def current_world() -> World:
    """Return the world that torch.distributed knows of; one process where it knows none.

    Returns
    -------
    World
        Rank and size.

    Examples
    --------
    >>> current_world()
    World(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes that ``torchrun`` started; without it, do nothing.

    Parameters
    ----------
    device : str
        ``cpu`` joins through gloo, ``cuda`` through nccl, each process on a GPU of its own.

    Yields
    ------
    tuple of World and str
        The world, and this process's device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(), device
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield current_world(), device
        # a process that leaves first would abort the others' last collectives
        wait_for_all(current_world())
    finally:
        dist.destroy_process_group()


def wait_for_all(world: World) -> None:
    """Wait until every process is here; alone, do nothing.

    Parameters
    ----------
    world : World
        The processes.
    """
    if world.size > 1:
        dist.barrier()


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
    """Sum of a tensor over ranks, differentiable in reverse and in forward mode.

    Parameters
    ----------
    x : Tensor
        Of the same shape on every rank.
    world : World
        The processes.

    Returns
    -------
    Tensor
        The same on every rank.
    """
    return x if world.size == 1 else _AllReduce.apply(x)


def all_gather(x: Tensor, n_samples: int, world: World) -> Tensor:
    """Rows of all ranks in order, differentiable in reverse and in forward mode.

    Parameters
    ----------
    x : Tensor of shape (b, ...)
        This rank's rows, ``world.rows(n_samples)`` of the whole.
    n_samples : int
        Rows of all ranks.
    world : World
        The processes.

    Returns
    -------
    Tensor of shape (n_samples, ...)
        The same on every rank.

    Notes
    -----
    A sum of parts that are zero elsewhere: parts may be of unequal length, and there is one
    collective to differentiate, not two. It moves at most twice the bytes of a true gather.
    """
    if world.size == 1:
        return x
    mine = world.rows(n_samples)
    before = x.new_zeros((mine.start, *x.shape[1:]))
    behind = x.new_zeros((n_samples - mine.stop, *x.shape[1:]))
    return all_reduce(torch.cat([before, x, behind]), world)


@torch.no_grad()
def sum_over_ranks(tensors: Iterable[Tensor], world: World) -> None:
    """Sum tensors over ranks in place, a collective for each data type.

    Parameters
    ----------
    tensors : iterable of Tensor
        The same shapes in the same order on every rank.
    world : World
        The processes.
    """
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
    """BatchNorm whose training statistics are those of all ranks' rows.

    Parameters
    ----------
    layer : nn.modules.batchnorm._BatchNorm
        Its parameters and buffers are shared: the state dict is the same.
    world : World
        The processes.

    Raises
    ------
    ValueError
        In training, if all ranks together have a single value per channel.

    Notes
    -----
    Mean first, then the mean squared distance from it: two collectives a pass, and no digits lost
    to a difference of large sums. Made of ordinary operations, so that it can be differentiated
    in any order.
    """

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
            raise ValueError(f"x must have at least two axes; got shape {tuple(x.shape)}.")

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
            raise ValueError("batch must have more than one value per channel; got one.")
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
    """Make every BatchNorm inside a network one over all ranks.

    Parameters
    ----------
    network : nn.Module
        Changed in place; parameters, buffers and their names stay.
    world : World
        The processes; with one process nothing is done.
    """
    if world.size > 1:
        for name, child in network.named_children():
            if isinstance(child, _BatchNorm):
                setattr(network, name, GlobalBatchNorm(child, world))
            else:
                make_statistics_global(child, world)


def barlow_twins_terms_share(
    z_a: Tensor, z_b: Tensor, n_samples: int, world: World, *, unbiased: bool = False
) -> tuple[Tensor, Tensor]:
    """Return this rank's share of the two terms of the whole batch's Barlow Twins loss.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (b, P)
        Projections of this rank's rows.
    n_samples : int
        Rows of all ranks.
    world : World
        The processes.
    unbiased : bool, default=False
        Which deviations; see `cross_correlation`.

    Returns
    -------
    tuple of Tensor of shape ()
        The terms divided by the number of ranks.

    Raises
    ------
    ValueError
        If the shapes differ or there are fewer than two rows in all.
    """
    if world.size == 1:
        return barlow_twins_terms(z_a, z_b, unbiased=unbiased)
    _check_share(z_a, z_b, n_samples, world)
    both = torch.cat([z_a, z_b], dim=1)
    centred = both - all_reduce(both.sum(0), world) / n_samples
    squares = all_reduce(centred.square().sum(0), world)
    if unbiased:
        standardised = centred / (squares / (n_samples - 1)).sqrt()
    else:
        standardised = centred / (squares / n_samples + BATCH_NORM_EPS).sqrt()
    first, second = standardised.chunk(2, dim=1)
    correlation = all_reduce(first.T @ second, world) / n_samples
    on_diagonal = correlation.diagonal()
    invariance = (on_diagonal - 1).square().sum()
    redundancy = correlation.square().sum() - on_diagonal.square().sum()
    return invariance / world.size, redundancy / world.size


def nt_xent_share(
    z_a: Tensor, z_b: Tensor, n_samples: int, world: World, *, temperature: float
) -> Tensor:
    """Return this rank's share of NT-Xent: its own rows against everybody's.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (b, P)
        Projections of this rank's rows.
    n_samples : int
        Rows of all ranks, B.
    world : World
        The processes.
    temperature : float
        Divides the cosine similarities, > 0.

    Returns
    -------
    Tensor of shape ()
        Sum over this rank's 2b rows, divided by 2B.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two rows in all, or the temperature is not
        positive.
    """
    if world.size == 1:
        return nt_xent_loss(z_a, z_b, temperature=temperature)
    _check_share(z_a, z_b, n_samples, world)
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0; got {temperature}.")
    mine = torch.cat([functional.normalize(z, dim=1) for z in (z_a, z_b)])
    parts = all_gather(torch.stack(mine.chunk(2), dim=1), n_samples, world)  # (B, 2, P)
    everybody = torch.cat([parts[:, 0], parts[:, 1]])
    rows = torch.arange(n_samples, device=mine.device)[world.rows(n_samples)]
    itself = torch.cat([rows, rows + n_samples])
    partner = torch.cat([rows + n_samples, rows])
    similarities = mine @ everybody.T / temperature  # (2b, 2B)
    others = torch.arange(2 * n_samples, device=mine.device) != itself[:, None]
    similarities = similarities.masked_fill(~others, float("-inf"))
    return functional.cross_entropy(similarities, partner, reduction="sum") / (2 * n_samples)


def generic_share(
    loss: Callable[[Tensor, Tensor], Tensor],
    z_a: Tensor,
    z_b: Tensor,
    n_samples: int,
    world: World,
) -> Tensor:
    """Return this rank's share of any loss: gathered, and computed by every rank alike.

    Parameters
    ----------
    loss : callable
        ``loss(z_a, z_b) -> scalar``.
    z_a, z_b : Tensor of shape (b, P)
        Projections of this rank's rows.
    n_samples : int
        Rows of all ranks.
    world : World
        The processes.

    Returns
    -------
    Tensor of shape ()
        The loss divided by the number of ranks.
    """
    gathered = (all_gather(z, n_samples, world) for z in (z_a, z_b))
    return loss(*gathered) / world.size


def _check_share(z_a: Tensor, z_b: Tensor, n_samples: int, world: World) -> None:
    rows = world.rows(n_samples)
    if z_a.ndim != 2 or z_a.shape != z_b.shape or len(z_a) != rows.stop - rows.start:
        raise ValueError(
            f"z_a and z_b must both have shape ({rows.stop - rows.start}, P), rank {world.rank}'s "
            f"part of {n_samples} rows; got {tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )
    if n_samples < 2:
        raise ValueError(f"n_samples must be >= 2; got {n_samples}.")
