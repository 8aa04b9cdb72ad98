"""The command that writes the page: from a checkpoint, from features, from several, and again."""

import json

import numpy as np
import pytest

from dimlab.representation import Representation

FEW = ("--permutations", 5, "--quiet")


@pytest.mark.slow
def test_a_checkpoint_becomes_one_page_with_answers_first(dimlab, checkpoint, tmp_path):
    code, out, err = dimlab("report", checkpoint, *FEW, "--max-queries", 200)
    assert (code, err) == (0, "")
    assert "Are the features collapsed?" in out
    assert "Open report/report.html" in out
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.index("<h2>Answers") < html.index("<h2>Verdicts") < html.index("n_test")
    first, number = out.splitlines()[0].split(":")[0].split(" (")
    assert first in ("dead", "harmful", "nuisance", "redundant", "keep", "undecided")
    assert int(number.rstrip(")")) > 0
    assert dimlab("report", "--check", "report")[0] == 0
    code, out, err = dimlab("report", "report", "--out", "again")
    assert (code, err, "nothing measured" in out) == (0, "", True)
    assert (tmp_path / "again" / "report.html").read_text() == html
    assert dimlab("report", "again", "--out", "png", "--format", "png")[0] == 0
    assert (tmp_path / "png" / "ablation.png").is_file()


@pytest.mark.slow
def test_a_report_of_features_is_recorded_checked_and_drawn_again(dimlab, files, tmp_path):
    code, out, err = dimlab("report", *files, "--permutations", 5)
    assert (code, err) == (0, "")
    recorded = json.loads((tmp_path / "report" / "provenance.json").read_text())
    for kind in ("features of test, test", "labels of train, test", "file train.safetensors"):
        assert f"{kind} (SHA-256)" in recorded
    code, out, err = dimlab("report", "--check", "report")
    assert (code, err) == (0, "")
    assert out.startswith("report matches its record: ")
    command = f"dimlab report {' '.join(files)} --permutations 5"
    assert out.splitlines()[-1] == f"Run again: {command}"
    code, out, _ = dimlab("report", "report", "--check", "--json")
    assert (code, json.loads(out)["reproducible"], json.loads(out)["command"]) == (0, True, command)
    assert dimlab("decompose", files[0], "--out", "report")[0] == 0  # beside it
    assert dimlab("report", "report", "--out", "again")[0] == 0
    for name in ("report", "again"):
        code, out, _ = dimlab("report", "--check", name)
        answers = [line for line in out.splitlines() if " matches its record: " in line]
        assert (code, answers[0].partition(" ")[0]) == (0, name)
        assert len(answers) == 1 + (name == "report")
    assert json.loads((tmp_path / "again" / "provenance.json").read_text())["command"] == command


@pytest.mark.long
def test_arrays_make_the_page_that_features_make_and_several_are_compared(dimlab, files, tmp_path):
    for name in ("train", "test"):
        own = Representation.load(tmp_path / f"{name}.safetensors")
        plain = Representation(np.array(own.features), labels=np.array(own.labels))
        plain.save(tmp_path / f"plain-{name}.safetensors")
        np.savez(tmp_path / f"{name}.npz", features=own.features, labels=own.labels)
    code, out, err = dimlab("report", "test.npz", "--train", "train.npz", *FEW, "--json")
    assert (code, err) == (0, "")
    assert {"question", "answer", "because"} <= set(json.loads(out)["verdicts"][0])
    pair = ("plain-test.safetensors", "plain-train.safetensors")
    code, out, err = dimlab("report", *pair, "--train", pair[1], *FEW, "--out", "both")
    assert (code, err) == (0, "")
    names = {path.name for path in (tmp_path / "both").iterdir()}
    assert {"comparison.svg", "plain-test-ablation.csv", "plain-train-redundancy.json"} <= names
    table = (tmp_path / "report" / "ablation.csv").read_text()
    assert (tmp_path / "both" / "plain-test-ablation.csv").read_text() == table
    assert "mask" not in out  # there is none
    code, _, err = dimlab("report", "test.npz", *FEW, "--out", "halves")  # one file is enough
    assert (code, "test.npz names no split: 120 of its 240 samples are train" in err) == (0, True)


def test_a_comparison_that_cannot_be_made_takes_nothing_else_along(dimlab, monkeypatch):
    from dimlab._examine import Examination
    from dimlab.cli import reporting
    from dimlab.probes.decompose import decompose

    def examined(loading, source, *others):
        names = np.char.add(source.stem, np.arange(60).astype(str))
        features = np.random.default_rng(0).normal(size=(60, 2))
        split = Representation(features, factors={"file": names})
        found = Examination()
        found["spectrum"] = decompose(split)
        return found, None, split

    monkeypatch.setattr(reporting, "_examined", examined)
    code, out, err = dimlab("report", "one.npz", "two.npz")
    assert (code, "the comparison is left out: names of rows must be the same" in err) == (0, True)
    assert "Open report/report.html" in out


@pytest.mark.long
def test_a_smaller_report_over_a_larger_one_leaves_nothing_of_it_and_all_of_mine(
    dimlab, files, tmp_path
):
    assert dimlab("report", *files, "--permutations", 5, "--out", "o")[0] == 0
    first = {each.name for each in (tmp_path / "o").iterdir()}
    assert {"ablation.csv", "ablation.result.npz", "attribution.svg", "verdicts.json"} <= first
    for name in ("notes.txt", "ablation-mine.csv"):
        (tmp_path / "o" / name).write_text("mine")
    (tmp_path / "o" / "harmful.csv").write_text("edited")
    assert dimlab("decompose", files[0], "--quiet", "--out", "o")[0] == 0
    bare = Representation(np.random.default_rng(1).normal(size=(80, 5)))
    bare.save(tmp_path / "bare.safetensors")
    for out in ("o", "alone"):
        assert dimlab("report", "bare.safetensors", *FEW, "--out", out)[0] == 0
    mine = {"notes.txt", "ablation-mine.csv", "harmful.csv"}
    own = {each.name for each in (tmp_path / "o").glob("decompose*")}
    alone = {each.name for each in (tmp_path / "alone").iterdir()}
    assert {each.name for each in (tmp_path / "o").iterdir()} == alone | mine | own
    assert len(first - alone) > 10  # control: that much had to leave
    kept = [(tmp_path / "o" / name).read_text() for name in sorted(mine)]
    assert kept == ["mine", "edited", "mine"]
