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


@pytest.mark.slow
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


def test_a_comparison_that_cannot_be_made_takes_nothing_else_along(dimlab, monkeypatch):
    from dimlab.cli import reporting
    from dimlab.probes.decompose import decompose

    def examined(loading, source, *others):
        names = np.char.add(source.stem, np.arange(60).astype(str))
        features = np.random.default_rng(0).normal(size=(60, 2))
        split = Representation(features, factors={"file": names})
        return {"spectrum": decompose(split)}, None, split

    monkeypatch.setattr(reporting, "_examined", examined)
    code, out, err = dimlab("report", "one.npz", "two.npz")
    assert (code, "the comparison is left out: names of rows must be the same" in err) == (0, True)
    assert "Open report/report.html" in out


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


def _report(dimlab, tmp_path, *options):
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    for name in ("train", "test"):
        features = rng.normal(size=(150, 6)) + np.outer(labels, [2, 0, 0, 0, 0, 0])
        Representation(features, labels=labels).save(tmp_path / f"{name}.safetensors")
    found = dimlab("report", "test.safetensors", "--train", "train.safetensors", *options)
    assert found[0] == 0, found[2]
    return json.loads((tmp_path / "report" / "provenance.json").read_text())


def test_check_says_whether_a_report_can_be_reproduced_here(dimlab, tmp_path):
    recorded = _report(dimlab, tmp_path)
    assert {"file test.safetensors (SHA-256)", "file train.safetensors (SHA-256)"} <= set(recorded)
    for split in ("test", "train"):
        assert {f"features of {split}, test (SHA-256)", f"labels of {split}, test (SHA-256)"} <= (
            set(recorded)
        )
    assert {"threads", "processor", "machine", "platform", "torch", "seed"} <= set(recorded)
    code, out, err = dimlab("report", "--check", "report")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "report can be reproduced here."
    assert "- train.safetensors: same, has the content recorded" in out
    command = "dimlab report test.safetensors --train train.safetensors"
    assert out.splitlines()[-1] == f"Run again: {command}"
    code, out, _ = dimlab("report", "report", "--check", "--json")
    assert (code, json.loads(out)["reproducible"], json.loads(out)["command"]) == (0, True, command)


def _changed(tmp_path, **values):
    path = tmp_path / "report" / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_check_names_other_versions_as_roundings(dimlab, tmp_path):
    recorded = _report(dimlab, tmp_path)
    _changed(tmp_path, numpy="1.0", threads=99)
    code, out, err = dimlab("report", "--check", "report")
    assert (code, err) == (0, "")
    assert out.startswith(
        f"report can be reproduced here up to rounding: numpy {recorded['numpy']} here, 1.0 then; "
        f"threads {recorded['threads']} here, 99 then."
    )


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "train.safetensors").unlink(), "train.safetensors is not there"),
        (
            lambda folder: (folder / "test.safetensors").write_bytes(b"another"),
            "test.safetensors differs",
        ),
        (lambda folder: _changed(folder, dimlab="0.0.1"), "pip install dimlab==0.0.1"),
        (lambda folder: _changed(folder, device="cuda:99"), "device cuda:99 is not there"),
    ],
)
def test_check_exits_with_3_where_it_cannot(dimlab, tmp_path, spoil, sentence):
    _report(dimlab, tmp_path)
    spoil(tmp_path)
    code, out, err = dimlab("report", "--check", "report")
    assert code == 3
    assert out.splitlines()[0].startswith("report cannot be reproduced here: ")
    assert sentence in " ".join(out.split())
    assert len(err.splitlines()) == 1
    code, out, _ = dimlab("report", "--check", "report", "--json")
    assert (code, json.loads(out)["reproducible"]) == (3, False)


def test_a_report_of_old_says_what_it_did_not_record(dimlab, tmp_path):
    recorded = _report(dimlab, tmp_path)
    old = {key: value for key, value in recorded.items() if not key.startswith("file ")}
    (tmp_path / "report" / "provenance.json").write_text(json.dumps(old))
    code, out, _ = dimlab("report", "--check", "report")
    assert (
        code,
        "no hash of test.safetensors, train.safetensors was recorded" in " ".join(out.split()),
    ) == (3, True)


@pytest.mark.slow
def test_check_of_a_checkpoint_looks_at_its_data_and_training(dimlab, checkpoint_path, tmp_path):
    assert dimlab("report", checkpoint_path, "--permutations", 5, "--max-queries", 200)[0] == 0
    code, out, _ = dimlab("report", "--check", "report")
    words = " ".join(out.split())
    assert (code, "data set digits: same, labels of train have the hash recorded" in words) == (
        0, True,
    )  # fmt: skip
    assert "would be trained again bit for bit" in words
    key = "labels of data set digits, train (SHA-256)"
    _changed(tmp_path, **{key: "0" * 64})
    code, out, _ = dimlab("report", "--check", "report")
    assert (code, "data set digits has other labels of train" in " ".join(out.split())) == (3, True)


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (None, 2, "folder must hold a report of dimlab, with provenance.json"),
        ("{", 1, "must be whole; got a damaged file"),
        ("[1]", 1, "must be whole; got a damaged file"),
        ('{"a": 1}', 1, "must be written by dimlab; got one without its version"),
    ],
)
def test_check_refuses_what_is_no_report(dimlab, tmp_path, text, code, sentence):
    (tmp_path / "report").mkdir()
    if text is not None:
        (tmp_path / "report" / "provenance.json").write_text(text)
    found, out, err = dimlab("report", "--check", "report")
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert sentence in err


def test_a_report_drawn_again_keeps_its_provenance(dimlab, tmp_path):
    recorded = _report(dimlab, tmp_path)
    assert dimlab("report", "report", "--out", "again")[0] == 0
    assert json.loads((tmp_path / "again" / "provenance.json").read_text()) == recorded
    code, out, _ = dimlab("report", "--check", "again")
    assert (code, out.splitlines()[0]) == (0, "again can be reproduced here.")


def test_report_prints_json_of_its_verdicts(dimlab, tmp_path):
    _report(dimlab, tmp_path)
    code, out, _ = dimlab(
        "report", "test.safetensors", "--train", "train.safetensors", "--json", "--quiet"
    )
    assert (code, json.loads(out)["report"]) == (0, "report/report.html")
    assert {"question", "answer", "because"} <= set(json.loads(out)["verdicts"][0])
