"""Blocks on several threads: their order, their failures, and what is left behind."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dimlab.kernels.neighbours import find_neighbours
from dimlab.kernels.rows import Groups, Rows
from dimlab.kernels.threads import on_threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts_from_two_threads_of_one_core(two_threads):
    both = threading.Barrier(2, timeout=60)  # broken unless two parts run at once

    def square(part):
        both.wait()
        return part**2, torch.get_num_threads()

    assert list(on_threads(square, range(6))) == [(part**2, 1) for part in range(6)]
    assert torch.get_num_threads() == 2


def test_a_failure_is_raised_and_the_number_of_threads_is_what_it_was(two_threads):
    def fail(part):
        if part == 2:
            raise ValueError("part 2")
        return part

    found = on_threads(fail, range(5))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="part 2"):
        next(found)
    assert torch.get_num_threads() == 2
    abandoned = on_threads(fail, range(2))
    next(abandoned)
    abandoned.close()
    assert torch.get_num_threads() == 2


def test_a_search_finds_the_same_with_one_thread_and_with_two(two_threads):
    rng = np.random.default_rng(0)
    train, test = (Rows.of(rng.normal(size=(n, 8)).astype("f4"), "cpu") for n in (500, 70))
    groups = Groups.of(None, 8, torch.device("cpu"))

    def neighbours():
        found = list(find_neighbours(train, test, groups, k=3, block=16))
        assert [each.start for each in found] == [0, 16, 32, 48, 64]
        return torch.cat([each.rows for each in found])

    several = neighbours()
    torch.set_num_threads(1)
    torch.testing.assert_close(several, neighbours(), rtol=0, atol=0)


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_leave_the_core_unless_the_user_says_otherwise(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    code = "import os, dimlab; print(os.environ['OMP_WAIT_POLICY'])"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert ran.stdout.strip() == expected
