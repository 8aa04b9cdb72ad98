"""Commands on files whose names, factors and folders are anything, on streams of any encoding."""

import csv
import io
import json
import os
import subprocess
import sys

import html5lib
import numpy as np
import pytest

from dimlab import cli
from dimlab.representation import Representation
from dimlab.text import visible

FACTORS = ("$x_$", "_site", "[bold]b[/bold]", "<i>&\"q'", "猫 :cat: {} %s", "\x1b[31mred\nline")
ENCODINGS = ("ascii", "latin-1", "cp1252")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Train and test of the same stem in two folders; a dimension a factor."""
    whole = tmp_path_factory.mktemp("odd $x_$ [b] <i>")
    for seed, part in enumerate(("a$1$", "b_猫")):
        rng = np.random.default_rng(seed)
        labels = np.arange(90) % 2
        factors = {name: rng.normal(size=90) for name in FACTORS}
        features = rng.normal(size=(90, len(FACTORS) + 1)) + 0.5
        features[:, :-1] += 3 * np.column_stack(list(factors.values()))
        features[:, -1] += 2 * labels
        (whole / part).mkdir()
        Representation(features, labels=labels, factors=factors).save(
            whole / part / "[x]_$.safetensors"
        )
    return whole


@pytest.fixture
def printed(monkeypatch, tmp_path):
    """Run a command on streams of an encoding; returns exit code and what both streams got."""
    monkeypatch.chdir(tmp_path)

    def call(encoding, *arguments):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["dimlab", *map(str, arguments)])
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as exit_info:
                cli.run()
            texts = []
            for stream in streams:
                stream.flush()
                texts.append(stream.buffer.getvalue().decode(encoding))
        return exit_info.value.code, *texts

    return call


def sources(folder):
    test, train = (folder / part / "[x]_$.safetensors" for part in ("a$1$", "b_猫"))
    return test, "--train", train


def test_attribution_of_any_factors_in_any_encoding(printed, folder, tmp_path):
    arguments = ("attribute", *sources(folder), "--permutations", "19", "--reader", "none")
    for encoding in ("ascii", "latin-1"):
        out = ("--erase", "_site", "--out", "o") if encoding == "ascii" else ("--erase", "none")
        code, shown, _ = printed(encoding, *arguments, *out)
        assert code == 0
        assert "\x1b" not in shown
        for name in FACTORS:
            assert (
                visible(name, keep="").encode(encoding, "backslashreplace").decode(encoding)
                in shown
            )
    with (tmp_path / "o" / "attribute.csv").open(encoding="utf-8", newline="") as file:
        leading = {row["leading_factor"] for row in csv.DictReader(file)}
    assert set(FACTORS) <= leading
    gate = "factors.猫 :cat: {} %s.largest_effect > 0.5"
    asked = ("--erase", "none", "--json", "--fail-if", gate)
    code, shown, said = printed("ascii", *arguments, *asked)
    assert set(json.loads(shown)["factors"]) == set(FACTORS)
    assert (code, "gate met: factors.\\u732b :cat: {} %s.largest_effect is 0." in said) == (3, True)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_measures_and_errors_in_any_encoding(printed, folder, encoding):
    test = folder / "b_猫" / "[x]_$.safetensors"
    for command in (("redundancy",), ("decompose",), ("inspect",), ("ablate", "--reader", "ridge")):
        code, shown, said = printed(encoding, *command, test)
        assert (code, bool(shown)) == (0, True), said
    code, shown, said = printed(encoding, "ablate", folder / "b_猫" / "≥[/].npz")
    assert (code, shown) == (2, "")
    assert "[/].npz" in said
    assert "Unicode" not in said


def test_representations_of_any_names_are_compared_and_drawn(printed, folder, tmp_path):
    test, _, train = sources(folder)
    code, _, said = printed("utf-8", "compare", test, train, "--out", "o")
    assert code == 0, said
    names = [str(test), str(train)]
    assert json.loads((tmp_path / "o" / "compare.json").read_text())["reference"] == names[0]
    assert (tmp_path / "o" / "compare.svg").stat().st_size > 1000


@pytest.mark.slow
def test_a_report_of_files_of_one_stem_and_any_names_is_one_folder(printed, folder, tmp_path):
    test, _, train = sources(folder)
    code, _, said = printed(
        "ascii", "report", test, train, "--out", "r", "--permutations", "19", "--train", train
    )
    assert code == 0, said
    assert not [each for each in (tmp_path / "r").iterdir() if each.is_dir()]
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    words = " ".join(tree.itertext())
    for name in ("$x_$", "_site", "[bold]b[/bold]", "<i>&\"q'", "猫 :cat: {} %s", str(test)):
        assert name in words
    targets = {each.get("href")[1:] for each in tree.iter("a")}
    assert targets <= {each.get("id") for each in tree.iter()}


@pytest.mark.slow
def test_a_terminal_without_a_locale_gets_everything(folder, tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    answer = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "dimlab", "attribute",
         *map(str, sources(folder)), "--permutations", "19", "--reader", "none", "--out", "o"],
        capture_output=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert b"\\u732b :cat: {} %s" in answer.stdout
    assert (tmp_path / "o" / "attribute.svg").is_file()
