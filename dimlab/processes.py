"""Several processes that measure the same rows: each computes its share, and all get the whole.

Every process makes the same calls. The long loops over rows go through `shared`, everything else
is computed by each process alike; without other processes nothing is done or imported for them.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dimlab.io.files import replacing
from dimlab.refusals import Refusal

Found = TypeVar("Found")

_STEP = 4096  # rows of a block that is kept in a folder, unless a loop says another number
_WORTH_KEEPING = 1.0  # seconds; what took less is computed again
_BYTES = 1 << 28  # that are sent at once


@dataclass(frozen=True)
class World:
    """The processes that share all rows, and which of them this is."""

    rank: int = 0
    size: int = 1

    def rows(self, n_samples: int) -> slice:
        """Return the rows of a batch that are this rank's; parts differ by at most one row."""
        length, longer = divmod(n_samples, self.size)
        start = self.rank * length + min(self.rank, longer)
        return slice(start, start + length + (self.rank < longer))


def current_world() -> World:
    """Return the world that torch.distributed knows of; one process where it knows none."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


_store: Any = None  # where the processes of a launcher meet


@contextmanager
def joined(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes that ``torchrun`` started; yield the world and this process's device."""
    global _store
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(), device
        return
    import torch
    import torch.distributed as dist

    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    _store, rank, size = next(dist.rendezvous("env://"))
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=size)
    try:
        yield current_world(), device
        # a process that leaves first would abort the others' last collectives
        wait_for_all(current_world())
    finally:
        dist.destroy_process_group()


def wait_for_all(world: World) -> None:
    """Wait until every process is here."""
    if world.size > 1:
        import torch.distributed as dist

        dist.barrier()


def says_why() -> bool:
    """Whether this process is the first to fail, and so the one that says why."""
    if _store is None:
        return True
    try:
        return bool(_store.add("dimlab/failed", 1) == 1)
    except RuntimeError:  # the process that kept the store has gone, and has said it
        return False


@dataclass(eq=False)
class _Sharing:
    """The processes that share rows, and the folder that keeps what each of them has finished."""

    world: World
    folder: Callable[[], Path] | None = None
    n_calls: int = 0

    def own(
        self, length: int, compute: Callable[[slice], Sequence[np.ndarray]], step: int
    ) -> list[np.ndarray]:
        """Compute this process's rows, in blocks where they are kept."""
        rows = self.world.rows(length)
        n_rows = rows.stop - rows.start
        if n_rows == 0:  # fewer rows than processes: one row tells what the arrays are like
            rows = slice(0, 1)
        if self.folder is None:
            parts = [list(compute(rows))]
        else:
            folder = self.folder()
            parts = [
                self._kept(folder, slice(start, min(start + step, rows.stop)), compute)
                for start in range(rows.start, rows.stop, step)
            ]
        if len(parts) == 1:
            return [each[:n_rows] for each in parts[0]]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _kept(
        self, folder: Path, rows: slice, compute: Callable[[slice], Sequence[np.ndarray]]
    ) -> list[np.ndarray]:
        """Read what a killed run has finished, or compute it and keep it."""
        path = folder / f"{self.n_calls}-of-{self.world.size}-{rows.start}-{rows.stop}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as arrays:
                return [arrays[name] for name in arrays.files]
        began = time.perf_counter()
        found = list(compute(rows))
        if time.perf_counter() - began >= _WORTH_KEEPING:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                np.savez(temporary, *found)
        return found

    def agreed(self, compute: Callable[[], Found], told: Callable[[Found], Any]) -> Found:
        """Compute, and fail in every process with what one of them fails with."""
        failure: Exception | None = None
        try:
            found = compute()
            said: Any = told(found)
        except Exception as error:
            said = failure = error
        if self.world.size > 1:
            everyone = _gathered(said, self.world)
            failure = failure or next((e for e in everyone if isinstance(e, Exception)), None)
            if failure is None and any(each != said for each in everyone):
                failure = Refusal(
                    "processes must make the same calls on the same rows; got arrays of different "
                    "kinds. Give every process the same files and options."
                )
        if failure is not None:
            raise failure
        return found


_sharing: ContextVar[_Sharing | None] = ContextVar("sharing", default=None)


@contextmanager
def sharing() -> Iterator[World]:
    """Share the long loops of probes among the processes of ``torch.distributed``.

    Yields
    ------
    World
        ``rank`` and ``size``: which process this is, and of how many.

    Raises
    ------
    RuntimeError
        If ``torchrun`` started several processes that cannot reach each other.

    Notes
    -----
    Every process must make the same calls on the same rows inside the block; files that are mapped
    into memory take no memory of their own. Each computes its share of the rows, and each gets the
    whole result: predictions are those of one process, other numbers agree to rounding. Under
    ``torchrun`` the processes are joined where `torch.distributed` is not initialised. With one
    process nothing changes. Outside the block, probes compute everything themselves, so that one
    process of a training run may call them alone.

    Examples
    --------
    >>> from dimlab import ablate
    >>> rows, labels = np.array([[1.0, 0.1], [-1.0, 0.2], [1.5, 0.3], [-2.0, 0.1]]), [0, 1, 0, 1]
    >>> with sharing() as world:
    ...     result = ablate((rows, labels), (rows, labels), reader="knn", k=1)
    >>> world.size, result.scores.tolist()
    (1, [0.5, 1.0])
    """
    world = current_world()
    if world.size > 1:
        with sharing_in(world):
            yield world
        return
    with joined("cpu") as (world, _), sharing_in(world):
        yield world


@contextmanager
def sharing_in(world: World, folder: Callable[[], Path] | None = None) -> Iterator[None]:
    """Share loops in a world; what is finished is kept in a folder, where there is one."""
    alone = world.size == 1 and folder is None
    token = _sharing.set(None if alone else _Sharing(world, folder and cache(folder)))
    try:
        yield
    finally:
        _sharing.reset(token)


def is_sharing() -> bool:
    """Whether loops are shared here, or what they have finished is kept."""
    return _sharing.get() is not None


def n_processes_here() -> int:
    """Return how many processes a launcher such as ``torchrun`` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def sharing_world() -> World:
    """Return the processes that share loops here; one where none do."""
    at_work = _sharing.get()
    return World() if at_work is None else at_work.world


def shared(
    length: int, compute: Callable[[slice], Sequence[np.ndarray]], *, step: int | None = None
) -> list[np.ndarray]:
    """Compute arrays with one entry a row, of which each process takes some; all get the whole."""
    at_work = _sharing.get()
    if at_work is None or length == 0:
        return list(compute(slice(0, length)))
    at_work.n_calls += 1
    with sharing_in(World()):  # what a part calls is not shared again
        own = at_work.agreed(
            lambda: at_work.own(length, compute, step or _STEP),
            lambda found: [(length, each.dtype.str, each.shape[1:]) for each in found],
        )
    if at_work.world.size == 1:
        return own
    return [_whole(each, length, at_work.world) for each in own]


def summed(length: int, compute: Callable[[slice], Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Add up arrays over rows, of which each process takes some; all get the whole sums."""
    world = sharing_world()
    if world.size == 1:
        return list(compute(slice(0, length)))

    def of_ranks(ranks: slice) -> list[np.ndarray]:
        mine = World(ranks.start, world.size).rows(length)
        return [each[None] for each in compute(mine)]

    return [each.sum(axis=0) for each in shared(world.size, of_ranks)]


def alike(compute: Callable[[], Found]) -> Found:
    """Compute something of this process's own, and fail in all where one fails."""
    at_work = _sharing.get()
    return compute() if at_work is None else at_work.agreed(compute, lambda _: None)


def _gathered(said: Any, world: World) -> list[Any]:
    """Return what every process says, in the order of their ranks."""
    import torch.distributed as dist

    if isinstance(said, Exception):
        try:
            pickle.loads(pickle.dumps(said))
        except Exception:
            said = RuntimeError(f"{type(said).__name__}: {said}")
    everyone: list[Any] = [None] * world.size
    dist.all_gather_object(everyone, said)
    return everyone


def _whole(own: np.ndarray, length: int, world: World) -> np.ndarray:
    """Return the rows of all processes, in the order of their ranks, to the last bit."""
    import torch
    import torch.distributed as dist

    whole = np.empty((length, *own.shape[1:]), own.dtype)
    for rank in range(world.size):
        part = whole[World(rank, world.size).rows(length)]
        if rank == world.rank:
            part[:] = own
        for sent in torch.from_numpy(part.reshape(-1).view(np.uint8)).split(_BYTES):
            if dist.get_backend() == "nccl":
                there = sent.cuda()
                dist.broadcast(there, rank)
                sent.copy_(there)
            elif len(sent):
                dist.broadcast(sent, rank)
    return whole
