"""Every command of the README: accepted as it stands, and run on small files of the same kinds.

The set-up lines are run by ``.ci/run``, those of the tour and of the coloured images by
``.assets/make.py`` (the tour in tests/test_readme.py); the rest is run here. Images of digits stand
in the place of Fashion-MNIST and CIFAR-10, and trainings take two steps.
"""

import glob
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dimlab import Representation, cli, coloured, datasets
from dimlab.training.encoders import build_encoder

README = (Path(__file__).parent.parent / "README.md").read_text()
SMALL = {"steps": 2, "batch_size": 16, "trace_every": 1, "n_dimensions": 48}
SMALL |= {"hidden": 32, "redundancy_width": 32}
FEW = [each for name, value in SMALL.items() for each in ("--set", f"{name}={value}")]
TORCHRUN = "torchrun --nproc-per-node 2 -m dimlab "
STAND_IN = """
from dataclasses import replace
from dimlab import datasets

def fashion_mnist(split, *, data_dir=None):
    return replace(datasets.digits(split).take(range(100)), name="fashion-mnist")

datasets.fashion_mnist = fashion_mnist
"""


def commands(*, of=README):
    """Each line of shell without its comment, by the title of its section."""
    found = {}
    for section in re.split(r"^##+ ", of, flags=re.M)[1:]:
        title = section.partition("\n")[0]
        for block in re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines():
                found.setdefault(title, []).append(re.split(r"\s#", line)[0].strip())
    return {title: [line for line in lines if line] for title, lines in found.items()}


def ours():
    return [line for lines in commands().values() for line in lines if "dimlab " in line]


def arguments_of(line):
    line = re.sub(r"--dimensions [\d,]+", "--dimensions 43,24", line)  # the short runs have few
    return shlex.split(line.removeprefix(TORCHRUN).removeprefix("dimlab "))


def test_no_line_of_shell_is_forgotten():
    every = [line for lines in commands().values() for line in lines]
    assert len(every) > 40
    others = [line for line in every if not line.startswith(("dimlab ", TORCHRUN))]
    assert others == [
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install -e . && dimlab demo",
        'pip install -e ".[dev]" && pytest',
    ]


@pytest.mark.parametrize("line", [line for line in ours() if not line.startswith("pip ")])
def test_a_command_is_accepted_as_it_stands(line):
    """Its name, its options and the types of their values."""
    name, *arguments = arguments_of(line)
    command = cli.command(name)
    assert command.make_context(name, list(arguments)).params  # refuses what it does not know


def test_an_option_that_there_is_not_would_be_noticed():
    with pytest.raises(Exception, match="No such option"):
        test_a_command_is_accepted_as_it_stands("dimlab train --data digits --set-all steps=3")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Stand-ins for the data sets, and the files that the README's commands read."""
    kinds = {
        "fashion_mnist": lambda split: datasets.digits(split),
        "cifar10": lambda split: coloured(datasets.digits(split, image_size=32), correlation=0.0),
    }
    for name, load in kinds.items():

        def stand_in(split, *, data_dir=None, load=load, name=name):
            some = load(split).take(range(100))
            return replace(some, name=name.replace("_", "-"), factors={}, periods={})

        monkeypatch.setattr(datasets, name, stand_in)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, n in (("train", 160), ("test", 100)):
        Path("features").mkdir(exist_ok=True)
        labels = np.arange(n) % 3
        features = rng.normal(size=(n, 6)) + labels[:, None]
        whole = Representation(features, labels=labels)
        whole.save(f"features/{name}.safetensors")
        columns = {f"embedding_{d}": features[:, d] for d in range(6)}
        table = pd.DataFrame({**columns, "label": labels, "scanner": rng.normal(size=n)})
        table.to_parquet("features.parquet" if name == "test" else "train.parquet")
    for name in ("a", "b", "big", "part-1", "part-2"):
        whole.save(f"{name}.safetensors")
    scanners = {"row": np.arange(n), "split": "test", "angle": rng.uniform(0, 360, n)}
    pd.DataFrame({**scanners, "scanner": rng.integers(0, 2, n)}).to_csv("scanners.csv")
    np.savez("embeddings.npz", features=features, labels=labels)
    pd.DataFrame({**columns, "species": labels}).to_csv("embeddings.csv")
    np.save("z.npy", features)
    np.save("y.npy", labels)
    for epoch in range(3):
        mask = torch.linspace(-epoch, epoch, 6)
        torch.save({"state_dict": {"auto_mask.mask": mask}}, f"epoch-{epoch}.ckpt")
    with torch.random.fork_rng(), torch.no_grad():
        encoder = build_encoder("resnet18", stem="imagenet").train()
        encoder(torch.rand(4, 3, 32, 32))  # images have moved its statistics
    weights = {f"module.encoder_q.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({"arch": "resnet18", "state_dict": weights}, "moco.pth.tar")
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            Path(f"photos/{split}/{kind}").mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(f"photos/{split}/{kind}/{i}.png")


MADE_ELSEWHERE = ("A five-minute tour", "From features that you have", "Set-up")


@pytest.mark.slow
def test_its_commands_run_in_their_order(dimlab, world):
    """Training first: the page shows what its checkpoints are good for before."""
    sections = commands()
    titles = ["Training", *(title for title in sections if title != "Training")]
    for title in titles:
        for line in sections[title] if title not in MADE_ELSEWHERE else []:
            if line.startswith(TORCHRUN):
                continue  # below, in processes of its own
            arguments = [
                each
                for argument in arguments_of(line)
                for each in (sorted(glob.glob(argument)) or [argument])
            ]
            code, _, err = dimlab(*arguments, *(FEW if arguments[0] == "train" else []))
            assert code == 0, f"{line}\n{err}"


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in ours() if line.startswith(TORCHRUN)])
def test_its_commands_run_in_several_processes(line, world, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(STAND_IN)
    paths = [str(tmp_path), str(Path(datasets.__file__).parents[1])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    few = FEW if " train " in line else []
    done = subprocess.run(
        [*launcher, *shlex.split(line)[1:], *few], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
