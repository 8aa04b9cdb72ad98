"""Every command of the README and the pages: accepted as it stands, and run on small files.

The set-up lines are run by ``.ci/run`` and the tour by tests/test_readme.py; the rest is run here.
Images of digits stand in the place of Fashion-MNIST and CIFAR-10, and trainings take two steps.
"""

import glob
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dimlab import Representation, cli, coloured, datasets
from dimlab.training.encoders import build_encoder
from tests.pages import SHELL

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


EVERY = list(dict.fromkeys(line for lines in SHELL.values() for line in lines))
OURS = [line for line in EVERY if line.startswith(("dimlab ", TORCHRUN))]


def arguments_of(line):
    line = re.sub(r"--dimensions [\d,]+", "--dimensions 43,24", line)  # the short runs have few
    return shlex.split(line.removeprefix(TORCHRUN).removeprefix("dimlab "))


def test_no_line_of_shell_is_forgotten():
    assert len(OURS) > 40
    assert [line for line in EVERY if line not in OURS] == [
        "python3 -m venv .venv && . .venv/bin/activate",
        "pip install -e . && dimlab demo",
        'pip install -e ".[dev]" && pytest',
        'pip install -e ".[docs]" && sphinx-build -W .docs .docs/_build',
    ]


@pytest.mark.parametrize("line", OURS)
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
    """Stand-ins for the data sets, and the files that the commands read."""
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
        np.savez(f"{name}.npz", features=features, labels=labels)
        columns = {f"embedding_{d}": features[:, d] for d in range(6)}
        table = pd.DataFrame({**columns, "label": labels, "scanner": rng.normal(size=n)})
        table.to_parquet("features.parquet" if name == "test" else "train.parquet")
    for name in ("a", "b", "big", "part-1", "part-2"):
        whole.save(f"{name}.safetensors")
    scanners = {"row": np.arange(n), "split": "test", "angle": rng.uniform(0, 360, n)}
    pd.DataFrame({**scanners, "scanner": rng.integers(0, 2, n)}).to_csv("scanners.csv")
    np.savez("corpus.npz", features=rng.normal(size=(40, 6)))
    np.savez("queries.npz", features=rng.normal(size=(20, 6)))
    Path("qrels.tsv").write_text("".join(f"{row}\t{2 * row}\t1\n" for row in range(20)))
    for name, ids in (("corpus", "d"), ("queries", "q")):
        vectors = np.load(f"{name}.npz")["features"].tolist()
        lines = [json.dumps({"id": f"{ids}{row}", "vector": v}) for row, v in enumerate(vectors)]
        Path(f"{name}.jsonl").write_text("\n".join(lines))
    Path("qrels.txt").write_text("".join(f"q{row} 0 d{2 * row} 1\n" for row in range(20)))
    np.savez("embeddings.npz", features=features, labels=labels)
    pd.DataFrame({**columns, "species": labels}).to_csv("embeddings.csv")
    for number in range(2):
        np.save(f"features-{number}.npy", features[number::2])
    with h5py.File("cells.h5ad", "w") as file:
        file["obsm/X_model"], file["obs/cell_type"] = features, labels
    torch.save(
        {f"{row}.png": torch.tensor(each) for row, each in enumerate(features)}, "vectors.pt"
    )
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
    paths = sorted(Path("photos").glob("*/*/*.png"))
    rows = [(str(path), path.parent.name, path.parts[1]) for path in paths]
    frame = pd.DataFrame(rows, columns=["path", "label", "split"])
    frame.to_csv("photos.csv", index=False)
    Path("photos-hf").mkdir()
    frame["image"] = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    for split, part in frame.groupby("split"):
        part[["image", "label"]].to_parquet(f"photos-hf/{split}.parquet")


@pytest.mark.slow
def test_commands_run_in_their_order(dimlab, world):
    """Training first: other pages use its checkpoints."""
    pages = sorted(SHELL, key=lambda page: page != ".docs/training.md")
    lines = dict.fromkeys(line for page in pages for line in SHELL[page])
    for line in lines:
        if line not in OURS or line in SHELL[".docs/tour.md"] or line.startswith(TORCHRUN):
            continue  # the tour: in test_readme; several processes: below
        arguments = [
            each
            for argument in arguments_of(line)
            for each in (sorted(glob.glob(argument)) or [argument])
        ]
        code, _, err = dimlab(*arguments, *(FEW if arguments[0] == "train" else []))
        assert code == 0, f"{line}\n{err}"


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in OURS if line.startswith(TORCHRUN)])
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
