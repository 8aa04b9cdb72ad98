"""What every command owes a shell: help with an example, gates, plain text, a stable JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dimlab import cli
from dimlab.cli.gates import Gate, GateMet
from dimlab.representation import Representation

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


SUMMARY = {
    "a": 2, "b": {"c": 0.5}, "none": None, "inf": np.inf, "low": -np.inf, "nan": np.nan,
    "yes": True, "reader": "knn", "many": [1, 2],
    "factors": {"site 1, <b>": {"effect": 0.5}, "v1.2": {"n": 3}, "v1": {"2": {"m": 1}}, "": 7},
}  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "met"),
    [
        ("a > 1", True), ("a>=2", True), ("a<2", False), ("a <= 2", True), ("a == 2", True),
        ("a != 2", False), ("b.c > 0", True), ("yes == 1", True), ("a < -1e-3", False),
        ("inf > 100", True), ("inf>=1e308", True), ("inf < 100", False), ("inf == inf", True),
        ("inf != 5", True), ("low < -100", True), ("low > 0", False), ("a < inf", True),
        ("factors.site 1, <b>.effect > 0.4", True), ("factors.v1.2.n == 3", True),
        ("factors.v1.2.m == 1", True), ("factors. == 7", True),
    ],
)  # fmt: skip
def test_gates_compare_as_written(gate, met):
    if met:
        with pytest.raises(GateMet, match=r"^gate met: "):
            Gate.of(gate).check(SUMMARY)
    else:
        Gate.of(gate).check(SUMMARY)


@pytest.mark.parametrize("key", ["none", "nan", "none.of.these"])
@pytest.mark.parametrize("sign", [">", "<", "==", "!=", ">=", "<="])
def test_a_gate_on_a_number_that_is_not_defined_never_passes(key, sign):
    with pytest.raises(GateMet, match=f"^gate not passed: {key} is not defined for this result"):
        Gate.of(f"{key} {sign} 0").check(SUMMARY)


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ("foo > 1", "must name a number of the JSON, one of a, b, none, inf.*; got 'foo'"),
        ("b.d > 1", "must name a number of the JSON, one of c; got 'b.d'"),
        ("a.b > 1", "must name a number of the JSON, one of nothing; got 'a.b'"),
        ("reader > 1", "must name a number; got 'reader', which is not one"),
        ("many > 1", "must name a number; got 'many', which is not one"),
    ],
)
def test_a_gate_must_name_a_number(gate, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gate.of(gate).check(SUMMARY)


@pytest.mark.parametrize("gate", ["a", "a > ", "> 1", "a > b", "a > nan", "a = 1", "a => 1", ""])
def test_a_gate_is_key_sign_number(gate):
    with pytest.raises(ValueError, match=r"^fail-if must be KEY > NUMBER .*; got "):
        Gate.of(gate)


def test_gates_see_infinite_numbers_of_which_json_has_null(dimlab, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.save(tmp_path / "twice.npy", np.column_stack([x, x[:, 0]]))
    for limit in ("> 100", ">= inf", "!= 3"):
        code, out, err = dimlab(
            "decompose", "twice.npy", "--json", "--quiet", "--fail-if", f"condition_number {limit}"
        )
        assert (code, "gate met: condition_number is inf, " in err) == (3, True)
        assert json.loads(out, parse_constant=pytest.fail)["condition_number"] is None
    code, out, _ = dimlab("decompose", "twice.npy", "--fail-if", "condition_number < 100")
    assert code == 0
    assert "condition_number  infinite" in out
    code, _, err = dimlab("decompose", "twice.npy", "--fail-if", "power_law_exponent > 100")
    assert (code, "gate not passed: power_law_exponent is not defined" in err) == (3, True)


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


def refused(dimlab, *arguments):
    """Exit code and the one line on stderr."""
    code, out, err = dimlab(*arguments)
    assert (out, len(err.splitlines())) == ("", 1), err
    return code, err


@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - {"explore"}))
def test_out_must_be_a_folder_before_anything_is_read(dimlab, tmp_path, command):
    (tmp_path / "taken").write_text("mine")
    files = () if command in ("demo", "train") else ("nowhere.pt",)
    for out, sentence in (
        ("taken", "out must be a folder, or become one; got taken, which is a file."),
        ("taken/deeper", f"got taken/deeper, and {tmp_path / 'taken'} is a file."),
        ("x" * 300, f"out must be a folder; got {'x' * 300}: File name too long."),
    ):
        code, err = refused(dimlab, command, *files, "--out", out)
        assert (code, sentence in err) == (2, True), err
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("memory", ["nan", "inf", "0", "-1"])
def test_memory_must_be_some(dimlab, features, memory):
    for command in ("ablate", "confirm", "cumulate", "random-masks"):
        code, err = refused(dimlab, command, *features, "--memory", memory)
        assert code == 2
        assert err == f"dimlab {command}: memory must be > 0 and finite; got {memory}.\n"


def test_data_is_no_option_of_features(dimlab, features):
    test, *_ = features
    for command in ("ablate", "decompose", "correlate", "redundancy", "bound", "attribute"):
        code, err = refused(dimlab, command, test, "--data", "digits")
        assert (code, "data must be left out for a file of features, as test.saf" in err) == (
            2,
            True,
        )
    code, err = refused(dimlab, "compare", *features[::2], "--data", "digits")
    assert (code, "as test.safetensors, train.safetensors is; got 'digits'" in err) == (2, True)


def test_a_name_that_no_file_holds_is_a_misuse(dimlab, tmp_path):
    np.savez("a.npz", x=np.eye(4), y=[0, 1, 0, 1])
    (tmp_path / "y.csv").write_text("file,kind\na,0\n")
    for option, value, sentence in (
        ("--labels", "nosuch", "labels must be a file, or one of 'y' (4,); got 'nosuch'."),
        ("--features", "nosuch", "features must be one of 'x' (4, 4); got 'nosuch'."),
        ("--labels", "no.npy", "labels must be a file, or the name of an array of a.npz; got no."),
        ("--labels", "y.csv:nosuch", "columns of y.csv must be among file, kind; got 'nosuch'."),
    ):
        code, err = refused(dimlab, "ablate", "a.npz", option, value)
        assert (code, sentence in err) == (2, True), err
    code, err = refused(dimlab, "ablate", "a.npz", "--labels", "y.csv")  # what is there is at fault
    assert (code, "y.csv must name its rows as a.npz names its own" in err) == (1, True), err


def test_inspect_refuses_what_the_probes_refuse(dimlab, tmp_path):
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "a.csv").write_text("embedding_0,embedding_1\n1,2\n3,NA\n")
    for name in ("cut.npz", "objects.npy", "a.csv"):
        for command in ("inspect", "decompose"):
            code, err = refused(dimlab, command, name)
            assert (code, name in err) == (1, True), err
    np.savez("two.npz", a=np.eye(2), b=np.eye(2))
    code, out, _ = dimlab("inspect", "two.npz", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "arrays")
