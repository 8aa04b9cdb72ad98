"""Several gloo processes with different rows have the moments of one."""

import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from dimlab.moments import Moments
from dimlab.processes import World


def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 901, 5)) + 1000.0


def accumulate(rank, size, folder):
    """Be one process: its own rows, of features and of pairs, and a state with empty blocks."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    try:
        a, b = rows()
        mine = World(rank, size).rows(len(a))
        single = Moments.of(a[mine], first_row=mine.start).over_ranks()
        pairs = Moments.of((a[mine], b[mine]), first_row=mine.start).over_ranks()
        few = Moments.of(a[rank : rank + 1], first_row=rank).over_ranks()
        for name, state in (("single", single), ("pairs", pairs), ("few", few)):
            state.save(os.path.join(folder, f"{name}-{rank}.safetensors"))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("size", [pytest.param(size, marks=pytest.mark.slow) for size in (2, 3)])
def test_processes_with_different_rows_equal_one(tmp_path, size):
    torch.multiprocessing.spawn(accumulate, args=(size, str(tmp_path)), nprocs=size, join=True)
    a, b = rows()
    expected = {
        "single": Moments.of(a),
        "pairs": Moments.of((a, b)),
        "few": Moments.of(a[:size]),
    }
    for name, whole in expected.items():
        for rank in range(size):
            found = Moments.load(tmp_path / f"{name}-{rank}.safetensors")
            np.testing.assert_array_equal(found.counts, whole.counts)
            for part in ("means", "squares", "scatters"):
                x, y = getattr(found, part), getattr(whole, part)
                np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10 * np.abs(y).max())


def test_one_process_needs_no_collective():
    state = Moments.of(rows()[0])
    assert state.over_ranks() is state
