"""What every command owes a shell: help with an example, gates, plain text, a stable JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dimlab import cli
from dimlab.representation import Representation
from dimlab.terminal import Gate, GateMet

# what scripts may rely on; adding keys is free, losing one is not
JSON_KEYS = {
    "ablate": {
        "reader", "refit", "fill", "score", "basis", "n_train", "n_test", "n_dimensions",
        "n_groups", "full_score", "n_needed", "n_harmful", "most_needed", "most_harmful",
        "certified_share", "constant_dimensions", "intervals",
    },
    "confirm": {"reader", "n_splits", "full_score", "n_confirmed", "confirmed", "verdict"},
    "cumulate": {"reader", "n_test", "n_dimensions"},
    "random-masks": {"reader", "n_test", "n_dimensions", "full_score"},
    "attribute": {
        "n_test", "n_dimensions", "basis", "n_permutations", "leading_factor", "factors",
        "most_nuisance", "verdicts", "effect", "mutual_information", "erasure",
    },
    "erase": {
        "factor", "kind", "reader", "directions_of", "n_train", "n_test", "n_random", "dimensions",
        "directions", "splits", "in_words",
    },
}  # fmt: skip
MEASURED = {
    "correlate": {"kind", "n_samples", "off_diagonal_rms"},
    "decompose": {"effective_rank", "n_samples", "n_dimensions"},
    "redundancy": {"n_groups", "basis"},
    "bound": {"risk", "terms", "held", "proved", "inferred", "assumption", "verdict", "permuted"},
}


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        labels = np.arange(120) % 3
        x = rng.normal(size=120)
        signal = rng.normal(size=(120, 4)) + np.outer(labels, [3, 0, 0, 0])
        signal[:, 1] += 2 * x
        views = signal + 0.3 * rng.normal(size=(2, 120, 4))
        Representation(signal, labels=labels, factors={"x": x}, views=views).save(
            tmp_path / f"{name}.safetensors"
        )
    return tmp_path / "test.safetensors", "--train", tmp_path / "train.safetensors"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_says_what_it_does_with_an_example(dimlab, command):
    code, out, err = dimlab(command, "--help")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert f" {command} [OPTIONS]" in words
    assert f"xample: dimlab {command}" in words or command == "demo"
    assert "[default: " in out or command == "inspect"  # by default it is told nothing


@pytest.mark.parametrize("command", JSON_KEYS)
def test_json_keeps_its_keys(dimlab, features, command):
    extra = ["--factor", "x"] if command == "erase" else []
    extra += ["--reader", "ridge"] if command not in ("attribute", "erase") else []
    code, out, _ = dimlab(command, *features, *extra, "--json", "--quiet")
    assert code == 0
    assert JSON_KEYS[command] <= set(json.loads(out))


@pytest.mark.parametrize("command", MEASURED)
def test_json_of_measures_keeps_its_keys(dimlab, features, command):
    code, out, _ = dimlab(command, features[0], "--json", "--quiet")
    assert code == 0
    assert MEASURED[command] <= set(json.loads(out))


def test_a_gate_that_is_met_exits_with_3_after_everything_is_written(dimlab, features, tmp_path):
    arguments = ("ablate", *features, "--reader", "ridge", "--json", "--out", "o")
    code, out, err = dimlab(*arguments, "--fail-if", "full_score < 0.99")
    assert code == 3
    assert err.startswith("dimlab ablate: gate met: full_score is 0.")
    assert json.loads(out)["reader"] == "ridge"
    assert (tmp_path / "o" / "ablate.csv").is_file()
    code, _, err = dimlab(*arguments, "--fail-if", "full_score < 0.1", "--fail-if", "n_needed>99")
    assert (code, err) == (0, "")
    code, _, err = dimlab(
        "attribute", *features, "--json", "--fail-if", "factors.x.largest_effect > 0.5"
    )
    assert code == 3
    for gate, sentence in (
        ("full_score", "fail-if must be KEY > NUMBER"),
        ("n_foo > 1", "fail-if must name a number of the JSON, one of reader, refit"),
        ("reader > 1", "fail-if must name a number; got 'reader', which is not one."),
    ):
        code, _, err = dimlab(*arguments, "--fail-if", gate)
        assert code == 2
        assert sentence in err


@pytest.mark.parametrize(
    ("gate", "met"),
    [("a > 1", True), ("a>=2", True), ("a<2", False), ("a <= 2", True), ("a == 2", True),
     ("a != 2", False), ("b.c > 0", True), ("none > 0", False)],
)  # fmt: skip
def test_gates_compare_as_written(gate, met):
    summary = {"a": 2, "b": {"c": 0.5}, "none": None}
    if met:
        with pytest.raises(GateMet, match="gate met"):
            Gate.of(gate).check(summary)
    else:
        Gate.of(gate).check(summary)


def test_output_without_a_terminal_is_plain(features, tmp_path):
    for environment in ({"NO_COLOR": "1"}, {"COLUMNS": "40"}):
        output = subprocess.run(
            [sys.executable, "-m", "dimlab", "ablate", *map(str, features), "--reader", "ridge"],
            capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment},
        )  # fmt: skip
        assert output.returncode == 0
        assert "\x1b" not in output.stdout + output.stderr


@pytest.mark.parametrize(
    ("typed", "offered"), [("dimlab rep", "report"), ("dimlab ablate --rea", "--reader")]
)
def test_a_shell_completes_commands_and_options(typed, offered):
    asked = {
        "_DIMLAB_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    answer = subprocess.run(
        [Path(sys.executable).with_name("dimlab")],
        capture_output=True, text=True, check=True, env={**os.environ, **asked},
    )  # fmt: skip
    assert answer.stdout.split() == [offered]


def test_help_fits_a_narrow_terminal():
    answer = subprocess.run(
        [sys.executable, "-m", "dimlab", "ablate", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "52"},
    )  # fmt: skip
    assert max(map(len, answer.stdout.splitlines())) <= 52


def test_figures_come_in_the_format_asked_for(dimlab, features, tmp_path):
    arguments = ("ablate", *features, "--reader", "ridge", "--out", "o")
    assert dimlab(*arguments, "--format", "png")[0] == 0
    assert (tmp_path / "o" / "ablate.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = dimlab(*arguments, "--format", "gif")
    assert (code, "format must be one of svg, png, pdf; got 'gif'." in err) == (2, True)
