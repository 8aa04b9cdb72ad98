"""The command that writes the page: from a checkpoint, from features, from several, and again."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dimlab.representation import Representation


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory):
    from dimlab.datasets import digits
    from dimlab.training.config import TrainConfig
    from dimlab.training.loop import train

    folder = tmp_path_factory.mktemp("run")
    config = replace(TrainConfig.small(), n_dimensions=16, steps=4, batch_size=32, trace_every=1)
    train(config, digits("train"), out=folder)
    return folder / "checkpoint.pt"


def test_a_checkpoint_becomes_one_page_with_verdicts_first(dimlab, checkpoint_path, tmp_path):
    arguments = ("report", checkpoint_path, "--permutations", 5, "--max-queries", 200)
    code, out, err = dimlab(*arguments)
    assert (code, err) == (0, "")
    assert "Are the features collapsed?" in out
    assert "Open report/report.html" in out
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.index("Verdicts") < html.index("n_test") < html.index("All dimensions")
    provenance = json.loads((tmp_path / "report" / "provenance.json").read_text())
    assert provenance["command"].startswith("dimlab report ")
    assert any("SHA-256" in key for key in provenance)
    code, out, err = dimlab("report", "report", "--out", "again")
    assert (code, err) == (0, "")
    assert "nothing measured" in out
    assert (tmp_path / "again" / "report.html").read_text() == html
    assert dimlab("report", "again", "--out", "png", "--format", "png")[0] == 0
    assert (tmp_path / "png" / "ablation.png").is_file()


def test_features_alone_make_a_page_and_several_are_compared(dimlab, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    for name in ("train", "one", "two"):
        features = rng.normal(size=(150, 6)) + np.outer(labels, [2, 0, 0, 0, 0, 0])
        Representation(features, labels=labels).save(tmp_path / f"{name}.safetensors")
    code, out, err = dimlab(
        "report", "one.safetensors", "two.safetensors", "--train", "train.safetensors"
    )
    assert (code, err) == (0, "")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"comparison.svg", "one-ablation.csv", "two-redundancy.json"} <= names
    assert "mask" not in out  # there is none


def test_a_npz_of_features_and_labels_makes_a_page_in_one_command(dimlab, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    for name in ("train", "test"):
        features = rng.normal(size=(150, 6)) + np.outer(labels, [2, 0, 0, 0, 0, 0])
        np.savez(tmp_path / f"{name}.npz", features=features, labels=labels)
        Representation(features, labels=labels).save(tmp_path / f"{name}.safetensors")
    code, out, err = dimlab("report", "test.npz", "--train", "train.npz")
    assert (code, err) == (0, "")
    same = dimlab("report", "test.safetensors", "--train", "train.safetensors", "--out", "same")
    assert same[0] == 0
    assert same[1].replace("same/", "report/") == out
    assert (tmp_path / "report" / "ablation.csv").read_text() == (
        tmp_path / "same" / "ablation.csv"
    ).read_text()
    code, _, err = dimlab("report", "test.npz", "--out", "halves")  # one file is enough
    assert (code, "test.npz names no split: 75 of its 150 samples are train" in err) == (0, True)
    code, _, err = dimlab("ablate", "test.npz", "--masked", "--train", "train.npz")
    assert (code, "masked must be left out for a file of features" in err) == (2, True)
    assert dimlab("correlate", "test.npz", "--within", "--draws", 5)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere.pt"], 2, "checkpoint must be a file; got nowhere.pt"),
        (["nowhere.pt", "--format", "gif"], 2, "format must be one of svg, png, pdf; got 'gif'."),
        (["."], 2, "folder must hold a report of dimlab"),
    ],
)
def test_report_refuses_in_one_sentence(dimlab, arguments, code, sentence):
    found, out, err = dimlab("report", *arguments)
    assert (found, out) == (code, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
