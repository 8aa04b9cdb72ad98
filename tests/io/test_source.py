"""What a file is, that it is opened once, and layouts of checkpoints from outside the package."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dimlab.datasets import digits
from dimlab.io.layouts import layouts
from dimlab.io.source import open_source
from dimlab.io.weights import load_encoder
from dimlab.mask import MaskTrace
from dimlab.moments import Moments
from dimlab.representation import Representation
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint():
    config = replace(TrainConfig.small(), n_dimensions=8, steps=3, batch_size=16, trace_every=1)
    return train(config, digits("train"))


@pytest.fixture
def files(checkpoint, tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("checkpoint.pt")
    labels = np.arange(90) % 3
    for name in ("train", "test"):
        features = rng.normal(size=(90, 5)) + np.outer(labels, [2, 0, 0, 0, 0])
        split = Representation(features, labels=labels, factors={"x": features[:, 1]})
        split.save(f"{name}.safetensors")
        np.savez(f"{name}.npz", features=features, labels=labels, x=features[:, 1])
    return tmp_path


def test_a_file_is_told_by_what_it_holds(checkpoint, files):
    Moments.of(np.eye(4)).save("moments.safetensors")
    MaskTrace(np.arange(2), np.full((2, 4), 0.5)).save("trace.npz")
    save_file({"conv1.weight": torch.ones(2)}, "weights.safetensors")
    torch.save({"state_dict": {"conv1.weight": torch.ones(2, 2)}}, "weights.pt")
    torch.save({"emb": torch.ones(3, 2)}, "features.pt")
    np.save("features.npy", np.ones((3, 2)))
    Path("features.csv").write_text("f_0,f_1\n1,2\n3,4\n")
    save_file({"b": torch.ones(3, 2)}, "other.pth")  # the ending does not tell
    for path in Path().iterdir():
        kind = {"train": "features", "test": "features", "other": "features"}
        source = open_source(path)
        assert source.kind == kind.get(path.stem, path.stem), path
        assert source.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_source(Path("checkpoint.pt")).value.config == checkpoint.config
    assert open_source(Path("checkpoint.pt"), as_weights=True).kind == "weights"
    (files / "empty.pt").touch()
    with pytest.raises(ValueError, match="must be a torch or safetensors file; got an empty one"):
        open_source(Path("empty.pt"))
    with pytest.raises(FileNotFoundError, match=r"features must be a file; got none\.npz"):
        open_source(Path("none.npz"))


COUNTING = """
import collections, json, os, sys
opened = collections.Counter()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        reads = not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        opened[os.path.basename(arguments[0])] += reads
sys.addaudithook(hook)
import dimlab.cli, dimlab.datasets
load = dimlab.datasets.load_images
def counted(name, split, **options):
    opened["split " + split] += 1
    return load(name, split, **options)
dimlab.datasets.load_images = counted
import safetensors  # its reader, not Python, opens what it maps
map_file = safetensors.safe_open
def mapping(path, **options):
    opened["mapped " + os.path.basename(path)] += 1
    return map_file(path, **options)
safetensors.safe_open = mapping
try:
    dimlab.cli.run()
finally:
    open("opened.json", "w").write(json.dumps(opened))
"""
SAFETENSORS = ("test.safetensors", "--train", "train.safetensors")
TABLE = ("--factors", "table.csv", "--labels", "table.csv:scanner")
NPZ = ("test.npz", "--train", "train.npz")


LONG = [
    ("ablate", *NPZ, "--reader", "ridge", "--groups", "groups.json"),
    ("report", "checkpoint.pt", "--permutations", "5", "--max-queries", "100"),
    ("evaluate", "checkpoint.pt", "--max-queries", "100"),
    ("attribute", "checkpoint.pt", "--permutations", "5", "--views", "2", "--reader", "none"),
    ("report", *SAFETENSORS, "--permutations", "5"),
    ("report", *NPZ, "--permutations", "5"),
    ("attribute", *NPZ, *TABLE, "--permutations", "5"),
    ("attribute", *SAFETENSORS, "--permutations", "5"),
    ("evaluate", *NPZ),
]


@pytest.mark.parametrize(
    "command",
    [
        ("ablate", "checkpoint.pt", "--reader", "ridge"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in LONG),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_command_opens_each_file_once_and_loads_each_split_once(files, command):
    rows = "".join(f"{row},{row % 3},{row % 7}\n" for row in range(90))
    Path("table.csv").write_text(f"row,label,scanner\n{rows}")
    Path("groups.json").write_text("[[0, 1], [2]]")
    call = [sys.executable, "-c", COUNTING, *command, "--quiet", "--out", "o"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    opened = json.loads(Path("opened.json").read_text())
    named = [each for each in command if each in os.listdir()]
    splits = {name: count for name, count in opened.items() if name[:6] in ("split ", "mapped")}
    assert {name: opened[name] for name in named} == dict.fromkeys(named, 1)
    assert set(splits.values()) <= {1}
    assert bool(splits) == ("checkpoint.pt" in named or "test.safetensors" in named)


class Elsewhere(nn.Module):
    """An encoder that dimlab does not know."""

    n_dimensions = 6

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(28 * 28, 6)

    def forward(self, images):
        return self.first(images.flatten(1)).relu()


PLUGIN = """
import torch
from dimlab.io.layouts import Layout, Spelling
from tests.io.test_source import Elsewhere

def build(shapes):
    return Elsewhere() if any(key.endswith("first.weight") for key in shapes) else None

RENAMED = Spelling("acme's names", {"conv1": "begin"}, {"downsample": "side"})
NETS = Layout("acme-net", "Acme keeps its network under acme.", r"acme\\.", build=build)
RESNETS = Layout("acme-resnet", "Acme calls the first convolution begin.", r"acme\\.", ("weights",),
                 spellings=(RENAMED,))
BROKEN = 3
"""


@pytest.fixture
def package(installed):
    """Install a package whose entry points add layouts."""

    def install(*names):
        points = "\n".join(f"{name} = acme_layouts:{name}" for name in names)
        installed("acme_layouts", PLUGIN, f"[dimlab.weights]\n{points}\n")
        layouts.cache_clear()

    yield install
    layouts.cache_clear()


def test_a_layout_from_outside_the_package_builds_its_own_encoder(package, tmp_path, dimlab):
    package("NETS")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Elsewhere()
    state = {f"acme.{key}": each for key, each in module.state_dict().items()}
    torch.save(state | {"acme.head.weight": torch.ones(2, 6)}, tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth")
    images = torch.from_numpy(digits("test").images[:20]).float() / 255
    with torch.inference_mode():
        expected = module(images)
        torch.testing.assert_close(loaded.module(images), expected, rtol=0, atol=0)
    common = ("--data", "digits", "--split", "test", "--quiet")
    code, _, err = dimlab("encode", "a.pth", *common)
    assert (code, "Acme keeps its network under acme." in err) == (0, True), err
    found = Representation.load("test.safetensors").features[:20]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    code, out, err = dimlab("decompose", "a.pth", *common, "--json")
    assert (code, json.loads(out)["n_dimensions"]) == (0, 6), err
    facts = loaded.inspection.facts
    assert (facts["layout"], facts["encoder"], loaded.n_dimensions) == ("acme-net", "acme-net", 6)
    del state["acme.first.bias"]
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"every weight of acme-net; got 1 of 2 under 'acme\.'"):
        load_encoder(tmp_path / "b.pth")


def test_a_layout_from_outside_the_package_spells_keys_its_own_way(package, tmp_path, dimlab):
    from dimlab.training.encoders import build_encoder

    package("RESNETS")
    with torch.random.fork_rng(devices=[]):
        module = build_encoder("resnet18", in_channels=1).train()
        module(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    renamed = {
        f"acme.{key.replace('downsample', 'side').replace('conv1', 'begin', key[:5] == 'conv1')}": e
        for key, e in module.state_dict().items()
    }
    torch.save({"weights": renamed}, tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth", layout="acme-resnet")
    assert loaded.inspection.facts["layout"] == "acme-resnet"
    assert "Spelled as acme's names." in loaded.inspection.facts["why"]
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module.eval()(images)
        torch.testing.assert_close(loaded.module(images), expected, rtol=0, atol=0)
    code, out, err = dimlab("inspect", "a.pth", "--json")
    assert (code, json.loads(out)["layout"]) == (0, "acme-resnet"), err


def test_an_entry_point_that_is_no_layout_is_named(package, tmp_path):
    package("BROKEN")
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "a.pth")
    sentence = "entry point BROKEN of dimlab.weights must be a dimlab.io.layouts.Layout; got int"
    with pytest.raises(ValueError, match=sentence):
        load_encoder(tmp_path / "a.pth")
    layouts.cache_clear()
