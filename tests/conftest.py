import os
import random
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import rich.progress  # noqa: F401 - the first import of these two draws from Python's random
import sklearn.datasets  # noqa: F401
import torch

from dimlab import cli

mpl.use("agg")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    """A folder in memory, where there is one: thousands of files need no disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path_factory.mktemp("files")
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="dimlab-tests-") as folder:
        yield Path(folder)


@pytest.fixture
def dimlab(monkeypatch, capsys, tmp_path):
    """Run ``dimlab ...`` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dimlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.run()
        captured = capsys.readouterr()
        return exit_info.value.code, captured.out, captured.err

    return call


@pytest.fixture(autouse=True)
def nobody_changes_global_state():
    """A library may not move other people's random numbers, dtype, threads or figure style."""
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name in before if before[name] != after[name]]
    assert not changed, f"the test changed global state: {', '.join(changed)}"


def _global_state():
    return {
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": np.random.get_state()[1].tobytes(),  # noqa: NPY002 - watched, not used
        "random": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "rcParams": {k: v for k, v in mpl.rcParams.items() if k != "backend"},
    }
