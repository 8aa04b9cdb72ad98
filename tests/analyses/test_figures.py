"""Figures and tables of no single claim: what is kept, and how it is measured."""

import importlib
import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from dimlab.training.config import TrainConfig
from figures import NAMES, encoders, masks, networks, protocol, strips, widths
from figures.__main__ import PAGE, drawn, main, page
from figures.networks import CifarResNet, narrow_runs, run, supervised
from figures.place import RESULTS, NotYet, Place
from study import OutOfTime, Study
from study.sweep import trained
from tests import worlds

KEPT = sorted((RESULTS / "figures").glob("*.json"))
FIGURES = Path(encoders.__file__).parent
TINY = replace(
    TrainConfig.small(), steps=8, batch_size=16, hidden=16, contrastive_width=8,
    redundancy_width=16, checkpoint_every=4, keep_checkpoints=True, trace_every=2,
)  # fmt: skip


def random_network(n_blocks):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CifarResNet(n_blocks)


def test_what_is_kept_is_what_is_shown():
    """`python -m figures --redraw` writes the page."""
    assert {path.stem for path in KEPT} <= set(NAMES)
    assert page(RESULTS) == (FIGURES / PAGE).read_text()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_picture_is_drawn_of_the_kept_numbers(path, tmp_path):
    drawn(path.stem, json.loads(path.read_text()), tmp_path / "a.svg")
    made = json.loads((RESULTS / "redundancy_shrinks.json").read_text())["environment"]
    if made["matplotlib"] != metadata.version("matplotlib"):
        pytest.skip("another matplotlib draws other bytes")
    assert (tmp_path / "a.svg").read_bytes() == path.with_suffix(".svg").read_bytes()


@pytest.mark.parametrize(("n_blocks", "n_parameters"), [(3, 269_722), (9, 853_018)])
def test_a_supervised_network_has_the_published_size(n_blocks, n_parameters, tmp_path):
    """Parameters of He et al.'s ResNet-20 and ResNet-56 with their classifiers of 650."""
    network = random_network(n_blocks)
    assert sum(each.numel() for each in network.parameters()) + 650 == n_parameters
    path = tmp_path / "a.th"
    weights = {f"module.{name}": each for name, each in network.state_dict().items()}
    weights |= {"module.linear.weight": torch.zeros(10, 64), "module.linear.bias": torch.zeros(10)}
    torch.save({"best_prec1": 1.0, "state_dict": weights}, path)
    images = torch.linspace(0, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network.eval()(images)
        assert torch.equal(supervised(path)(images), expected)
    assert expected.shape == (2, 64)


def test_the_official_run_differs_only_in_size():
    (scaled,) = {each.config for each in narrow_runs("official")[:1]}
    official = TrainConfig.official().to_dict()
    changed = {name for name, value in scaled.to_dict().items() if value != official[name]}
    assert changed == {
        "encoder", "n_dimensions", "hidden", "contrastive_width", "redundancy_width", "steps",
        "epochs", "batch_size", "schedule", "validate_every", "checkpoint_every", "trace_every",
        "keep_checkpoints", "seed",
    }  # fmt: skip
    keys = [each.key for family in networks.FAMILIES for each in narrow_runs(family)]
    assert len(set(keys)) == 5 * len(networks.FAMILIES)


def test_readings_of_a_run_along_training():
    points = [(1, 0.2, 0.5), (2, 0.4, 0.6), (3, 0.3, 0.7), (4, 0.35, 0.65)]
    row = {
        "points": [dict(zip(("at", "validation", "test"), each, strict=True)) for each in points]
    }
    assert protocol.readings(row) == {"last": 0.65, "validation": 0.6, "best": 0.7}


def test_a_figure_without_its_runs_says_what_makes_them(tmp_path, capsys):
    results = tmp_path / "results"
    assert main(["strips", "--results", str(results)], page_folder=tmp_path) == 0
    assert capsys.readouterr().err.startswith("strips needs --data-dir, the .npz file")
    with pytest.raises(SystemExit):
        main(["nosuch", "--results", str(results)], page_folder=tmp_path)
    with pytest.raises(NotYet, match=r"^needs the run .* \(family simclr, seed 0\); python -m"):
        Place(runs=tmp_path).checkpoint(narrow_runs("simclr")[0])
    assert (tmp_path / PAGE).read_text() == page(results)


def test_widths_stand_for_themselves():
    kept = widths.measure(Place())
    assert list(kept["tables"]) == ["fashion-mnist"] or not kept["left"]
    means = widths.means(kept["tables"]["fashion-mnist"])
    assert f"{means.index[-1]} {means.iloc[-1]:.4f}" in widths.caption(kept)[1]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Images of two colours, networks that were trained for eight steps, and a random ResNet."""
    path, rng = tmp_path / "tiny.npz", np.random.default_rng(0)
    labels = np.arange(600) % 10
    pixels = rng.integers(0, 120, (600, 3, 8, 8), dtype=np.uint8)
    pixels[:, 0] += (labels * 12).astype(np.uint8)[:, None, None]
    split = np.where(np.arange(600) < 450, "train", "test")
    np.savez(path, images=pixels, labels=labels, split=split)
    monkeypatch.setattr(networks, "NATURAL", replace(Study.natural(), config=TINY, seeds=(0,)))
    monkeypatch.setattr(networks, "WIDTH", 12)
    monkeypatch.setattr(masks, "N_MASKS", 20)
    monkeypatch.setattr(strips, "N_SHOWN", 20)
    place = Place(path, tmp_path / "runs", tmp_path, tmp_path / "results")
    study = replace(networks.NATURAL, data_dir=path, folder=place.runs)
    for family in ("simclr", "both"):
        (each,) = narrow_runs(family, study)
        trained(study, each, place.runs / each.key, place.images)
    for file in networks.SUPERVISED.values():
        weights = {f"module.{name}": each for name, each in random_network(1).state_dict().items()}
        torch.save({"state_dict": weights}, tmp_path / file)
    return place


@pytest.mark.slow
@worlds.rows_repeat  # networks of eight steps
@pytest.mark.parametrize("name", ["strips", "masks", "protocol", "encoders"])
def test_a_figure_is_made_of_what_is_trained(name, tiny, tmp_path):
    tiny.results.mkdir()
    module = importlib.import_module(f"figures.{name}")
    kept = json.loads(json.dumps(module.measure(tiny), allow_nan=False))
    drawn(name, kept, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert all(text[-1] == "." for text in module.caption(kept))
    if name == "encoders":
        assert [row["network"] for row in kept["rows"]] == [
            "SimCLR", "SimCLR + Barlow Twins", "ResNet-20", "ResNet-56",
        ]  # fmt: skip
        assert kept["left"] == ["Barlow Twins", "MetaMask (lookahead)"]
        assert len(module.table(kept)) == 2 + 4
    if name == "protocol":
        assert [[each["at"] for each in row["points"]] for row in kept["rows"]] == [[0, 4, 8]] * 2
    if name == "strips":
        assert np.array(kept["rows"][0]["features"]).shape == (20, 12)


def test_the_study_asks_for_networks_of_64_dimensions(tmp_path):
    study = replace(Study.natural(), rows=tmp_path / "none.jsonl")
    with pytest.raises(OutOfTime, match=r"^0 of 25 runs are finished"):
        run(study)
