import os
import random
import sys
import tempfile
from pathlib import Path

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:  # before torch is loaded: threads of two processes wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import matplotlib as mpl
import numpy as np
import pytest
import rich.progress  # noqa: F401 - the first import of these two draws from Python's random
import sklearn.datasets  # noqa: F401
import torch

from dimlab import cli

mpl.use("agg")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Plain ``pytest`` takes a process a core; who names files, or says ``-n``, has their way."""
    options = config.option
    alone = IS_WORKER or options.usepdb or options.collectonly
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and not alone and getattr(options, "numprocesses", 0) is None:
        options.numprocesses, options.dist = "auto", "worksteal"
        options.maxprocesses = options.maxprocesses or 8


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


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package of one module, with entry points; return the folder that it is in."""
    names = []

    def install(name, text, entries):
        folder = tmp_path / "site"
        about = folder / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (folder / f"{name}.py").write_text(text)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(entries)
        monkeypatch.syspath_prepend(folder)
        names.append(name)
        return folder

    yield install
    for name in names:
        sys.modules.pop(name, None)


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
