"""What every command owes a shell: help, exit codes, one sentence on errors, gates, any text."""

import csv
import functools
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dimlab import __version__, cli, terminal
from dimlab.cli import idle
from dimlab.cli.gates import Gate, GateMet
from dimlab.representation import Representation
from dimlab.text import visible

# Help --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_says_what_it_does_in_panels_and_with_an_example(dimlab, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    code, out, err = dimlab(command, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 60
    words = " ".join(out.split())
    assert f" {command} [OPTIONS]" in words
    assert f"xample: dimlab {command}" in words or command == "demo"
    assert "\nOutput:\n" in out
    assert "\nInput:\n" in out or command in ("demo", "validate")
    assert "[default: " in out or command == "inspect"  # by default it is told nothing


def test_dimlab_alone_shows_help_and_its_version(dimlab):
    code, out, err = dimlab()
    assert (code, err) == (0, "")
    for command in cli.COMMANDS:
        assert f"\n  {command} " in out
    assert out == dimlab("--help")[1]
    assert dimlab("--version") == (0, f"dimlab {__version__}\n", "")


def test_python_m_works_and_help_costs_no_torch():
    code = (
        "import sys; from dimlab import cli; all(map(cli.command, cli.COMMANDS)); "
        "print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    for arguments, shown in (
        (("-m", "dimlab", "ablate", "-h"), "Remove each"),
        (("-c", code), "set()"),
    ):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert (done.returncode, shown in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"), [("dimlab rep", "report"), ("dimlab ablate --rea", "--reader")]
)
def test_a_shell_completes_commands_and_options(typed, offered):
    asked = {"_DIMLAB_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(typed.count(" "))
    answer = subprocess.run(
        [Path(sys.executable).with_name("dimlab")],
        capture_output=True, text=True, check=True, env={**os.environ, **asked},
    )  # fmt: skip
    assert answer.stdout.split() == [offered]


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("ablate nowhere.pt", "checkpoint must be a file; got nowhere.pt"),
        ("ablate x.safetensors", "must be a file; got x.safetensors"),
        ("ablate", "Missing argument"),
        ("ablate x.pt --nonsense", "No such option"),
        ("ablate x.pt --k many", "--k"),
        ("nonsense", "No such command"),
        ("train --data digit", "digits"),
        ("train --steps 0", "steps must be >= 1; got 0"),
        ("train --encoder vgg", "encoder must be one of"),
        ("train --preset huge", "preset must be one of 'small', 'medium', 'official'; got 'huge'."),
        ("train --config none.toml", "config must be a TOML file"),
        ("train --batch-size 5000 --out r", "batch_size must be at most"),
        ("train --data digits+hue:7 --steps 1", "data must end in +FACTOR:CORRELATION"),
        ("train --set nonsense=1", "set must be FIELD=VALUE with a field of TrainConfig; got 'non"),
        ("train --set steps", "set must be FIELD=VALUE"),
        ("train --set nesterov=maybe", "nesterov must be bool; got 'maybe'"),
        ("train --set warmup_steps=few", "warmup_steps must be int; got 'few'"),
        ("report nowhere.pt", "checkpoint must be a file; got nowhere.pt"),
        ("report .", "folder must hold a report of dimlab"),
        # before the file, which is not there, is opened
        ("ablate none.pt --reader svm", "reader must be one of 'knn', 'ridge', 'logistic'; got "),
        ("evaluate none.pt --readers knn,svm", "reader must be one of"),
        ("attribute none.pt --reader tree", "reader must be one of"),
        ("attribute none.pt --seed -1", "seed must be >= 0; got -1."),
        ("attribute none.pt --seed x", "--seed must be a valid integer. See --help."),
        ("attribute none.pt --permutations 0", "n_permutations must be >= 1; got 0."),
        ("confirm none.pt --basis svd", "basis must be one of 'pca', 'whiten', 'varimax'"),
        ("confirm none.pt --n-splits 0", "n_splits must be >= 1; got 0."),
        ("correlate none.npy --draws -1", "n_draws must be >= 0; got -1."),
        ("ablate none.pt --max-queries 0", "max-queries must be >= 1; got 0"),
        ("evaluate none.pt --max-train -1", "max-train must be >= 1; got -1"),
        ("ablate none.pt --memory nan", "memory must be > 0 and finite; got nan."),
        ("confirm none.pt --memory 0", "memory must be > 0 and finite; got 0."),
        ("ablate none.pt --groups none.json", "groups must be 'redundant' or a JSON file; got no"),
        ("ablate none.pt --groups redundant:x", "groups must be numbers"),
        ("random-masks none.pt --drop a", "drop must be numbers separated by commas; got 'a'."),
        ("bound none.pt --negatives 4.5", "negatives must be whole numbers"),
        ("locate none.pt --dimensions 1.5", "dimensions must be whole numbers"),
        ("locate none.pt --dimensions a", "dimensions must be numbers"),
        ("attribute none.pt --period a", "period must be COLUMN=NUMBER; got 'a'."),
        ("attribute none.pt --period a=0", "period must be a number > 0; got 0."),
        ("erase none.pt --factor x --directions axes", "basis must be one of"),
        ("decompose none.pt --split foo", "split must be one of 'train', 'validation', 'test'"),
        ("encode none.pt --split foo", "split must be one of 'train', 'validation', 'test'"),
        ("encode none.pt --layer head", "layer must be one of"),
        ("decompose none.pt --views -1", "views must be >= 0; got -1."),
        ("ablate none.pt --data digit", "digits"),
        ("ablate none.pt --device tpu", "device must"),
        ("ablate none.pt --format gif", "format must be one of svg, png, pdf; got 'gif'."),
        ("ablate none.pt --fail-if full_score", "fail-if must be KEY > NUMBER"),
        ("ablate none.pt --fail-if n_foo>1", "fail-if must name a number of the JSON, one of"),
    ],
)  # fmt: skip
def test_misuse_is_one_sentence_and_exit_code_2(refused, arguments, sentence):
    code, err = refused(*arguments.split())
    assert code == 2
    assert sentence in err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_out_must_be_a_folder_before_anything_is_read(refused, tmp_path, command):
    (tmp_path / "taken").write_text("mine")
    named = () if command in ("demo", "train") else ("nowhere.pt",)
    named += ("--factor", "x") if command == "erase" else ()
    for out, sentence in (
        ("taken", "out must be a folder, or become one; got taken, which is a file."),
        ("taken/deeper", f"got taken/deeper, and {tmp_path / 'taken'} is a file."),
        ("x" * 300, f"out must be a folder; got {'x' * 300}: File name too long."),
    ):
        code, err = refused(command, *named, "--out", out)
        assert (code, sentence in err) == (2, True), err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_corrupt_or_hostile_file_is_exit_code_1(refused, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 30)
    (tmp_path / "bad.json").write_text("[[0, 2")
    np.savez(tmp_path / "good.npz", x=np.eye(4), y=[0, 1, 0, 1])
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "a.csv").write_text("embedding_0,embedding_1\n1,2\n3,NA\n")
    for command, *named in (
        ("ablate", "bad.pt"), ("ablate", "bad.safetensors"),
        ("ablate", "good.npz", "--groups", "bad.json"),
        *((each, file) for each in ("inspect", "decompose") for file in
          ("cut.npz", "objects.npy", "a.csv")),
    ):  # fmt: skip
        code, err = refused(command, *named)
        assert (code, named[-1] in err) == (1, True), err
    assert not (tmp_path / "canary").exists()


def test_a_mistake_of_ours_is_exit_code_1_with_its_traceback_in_a_file(refused, tmp_path, files):
    from dimlab.probes import decompose as module

    def boom(*_, **__):
        return np.zeros(3).reshape(2)

    for mistake in (boom, lambda *_, **__: {}["nothing"], lambda *_, **__: int("three")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(tmp_path))
            patch.setattr("tempfile.tempdir", None)
            patch.setattr(module, "decompose", functools.wraps(module.decompose)(mistake))
            patch.setattr("dimlab.cli.door.command", cli.command.__wrapped__)
            code, err = refused("decompose", files[0], "--quiet")
        assert code == 1
        assert err.startswith("dimlab decompose: internal error, ")
        log = Path(err.rpartition("the traceback is in ")[2].rstrip(").\n"))
        assert "Traceback (most recent call last)" in log.read_text()
        assert "dimlab decompose test.safetensors" in log.read_text()
        log.unlink()


def test_options_that_make_no_sense_for_features(refused, files):
    test, *_ = files
    for command in ("ablate", "decompose", "correlate", "redundancy", "bound", "attribute"):
        code, err = refused(command, test, "--data", "digits")
        assert (code, "data must be left out for a file of features, as test" in err) == (2, True)
    for command in ("ablate", "redundancy"):
        code, err = refused(command, test, "--masked")
        assert (code, "masked must be left out for a file of features" in err) == (2, True)
    code, err = refused("compare", *files[::2], "--data", "digits")
    assert (code, "as test.safetensors, train.safetensors is; got 'digits'" in err) == (2, True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("redundancy FILE --train train.safetensors", "train must be left out without --basis, w"),
        ("decompose FILE --workers 3", "workers must be left out for a file of features, as test"),
        ("compare FILE --crop squash", "crop must be left out for a file of features, as test"),
        ("decompose FILE --split train", "split must be left out for test.safetensors, which do"),
        ("ablate PAIR --reader ridge --k 9", "k must be left out unless the reader is knn; got 9."),
        ("evaluate PAIR --readers knn --penalty 2", "penalty must be left out unless the reader"),
        ("confirm PAIR --format png", "format must be left out without --out; got 'png'."),
        ("cumulate PAIR --random-orders 3", "random-orders must be left out unless --order is r"),
        ("correlate FILE --within --views 3", "views must be left out with --within; got 3."),
        ("attribute PAIR --erase none --in-distribution FILE", "in-distribution must be left out"),
        ("profile FILE --rows 0 --k 3", "k must be left out with --rows 0; got 3."),
        ("follow FILE --sigmoid", "sigmoid must be left out without --key; got True."),
        ("report . --reader knn", "reader must be left out for the folder of a report, of which"),
        ("ablate RUN --labels x.csv", "labels must be left out for checkpoint.pt, which has train"),
    ],
)  # fmt: skip
def test_options_that_can_do_nothing_are_refused(refused, files, request, call, said):
    run = request.getfixturevalue("checkpoint") if "RUN" in call else ""
    call = call.replace("PAIR", "FILE --train train.safetensors")
    words = [{"RUN": str(run), "FILE": files[0]}.get(each, each) for each in call.split()]
    code, err = refused(*words)
    assert (code, err.startswith(f"dimlab {words[0]}: {said}")) == (2, True), err


def test_every_option_that_can_be_idle_is_one_of_a_command():
    known = {each.name for name in cli.COMMANDS for each in cli.command(name).params}
    assert {name for names, _, _ in idle._IDLE for name in names.split()} <= known


def test_a_name_that_no_file_holds_is_a_misuse(refused, tmp_path):
    np.savez("a.npz", x=np.eye(4), y=[0, 1, 0, 1])
    (tmp_path / "y.csv").write_text("file,kind\na,0\n")
    for option, value, sentence in (
        ("--labels", "nosuch", "labels must be a file, or one of 'y' (4,); got 'nosuch'."),
        ("--features", "nosuch", "features must be one of 'x' (4, 4); got 'nosuch'."),
        ("--labels", "no.npy", "labels must be a file, or the name of an array of a.npz; got no."),
        ("--labels", "y.csv:nosuch", "columns of y.csv must be among file, kind; got 'nosuch'."),
    ):
        code, err = refused("ablate", "a.npz", option, value)
        assert (code, sentence in err) == (2, True), err


# Gates -------------------------------------------------------------------------------------------

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
        *((each, "^fail-if must be KEY > NUMBER .*; got ")
          for each in ("a", "a > ", "> 1", "a > b", "a > nan", "a = 1", "a => 1", "")),
    ],
)  # fmt: skip
def test_a_gate_must_name_a_number(gate, sentence):
    with pytest.raises(ValueError, match=sentence):
        Gate.of(gate).check(SUMMARY)


def test_a_gate_that_is_met_exits_with_3_after_everything_is_written(dimlab, files, tmp_path):
    arguments = ("ablate", *files, "--reader", "ridge", "--json", "--out", "o")
    code, out, err = dimlab(*arguments, "--fail-if", "full_score < 0.99")
    assert code == 3
    assert err.startswith("dimlab ablate: gate met: full_score is 0.")
    assert json.loads(out)["reader"] == "ridge"
    assert (tmp_path / "o" / "ablate.csv").is_file()
    code, _, err = dimlab(*arguments, "--fail-if", "full_score < 0.1", "--fail-if", "n_needed>99")
    assert (code, err) == (0, "")
    gate = ("--fail-if", "factors.x.largest_effect > 0.5", "--erase", "none", "--reader", "none")
    assert dimlab("attribute", *files, "--json", "--permutations", 19, *gate)[0] == 3


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
    assert (code, "condition_number  infinite" in out) == (0, True)
    code, _, err = dimlab("decompose", "twice.npy", "--fail-if", "power_law_exponent > 100")
    assert (code, "gate not passed: power_law_exponent is not defined" in err) == (3, True)


# Text --------------------------------------------------------------------------------------------


def test_output_without_a_terminal_is_plain_and_whole(files, tmp_path, monkeypatch, capsys):
    from dimlab.terminal import print_sentences, print_table

    columns = {f"column {n}": ["a long text " * 9, "b"] for n in range(20)}
    for environment in ({"NO_COLOR": "1"}, {"COLUMNS": "40"}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        print_table(pd.DataFrame(columns), title="A title " * 30)
        print_sentences(["A sentence. " * 30])
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "No room" not in out
        assert out.count("A title " * 30) == out.count("A sentence. " * 30) == 1
        assert out.count("a long text " * 9) == 20


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_counts_only_what_is_known(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.progress("searching") as advance:
        advance(3, 8)
    with terminal.training_progress(4, 16) as sink:
        sink({"step": 2, "seconds": 0.1, "contrastive": 1.5})
    shown = sys.stderr.getvalue()
    assert "searching" in shown
    assert "None" not in shown
    assert ("3/8" in shown, "2/4" in shown, "160 images/s" in shown) == (True, True, True)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with terminal.progress("searching", quiet=True) as advance:
        advance(3, 8)
    assert sys.stderr.getvalue() == ""


FACTORS = ("$x_$", "_site", "[bold]b[/bold]", "<i>&\"q'", "猫 :cat: {} %s", "\x1b[31mred\nline")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Train and test of the same stem in two folders of odd names; a dimension a factor."""
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
    test, train = (whole / part / "[x]_$.safetensors" for part in ("a$1$", "b_猫"))
    return test, "--train", train


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


def test_attribution_of_any_factors_in_any_encoding(printed, odd, tmp_path):
    arguments = ("attribute", *odd, "--permutations", "19", "--reader", "none")
    for encoding in ("ascii", "latin-1"):
        out = ("--erase", "_site", "--out", "o") if encoding == "ascii" else ("--erase", "none")
        code, shown, _ = printed(encoding, *arguments, *out)
        assert code == 0
        assert "\x1b" not in shown
        for name in FACTORS:
            escaped = visible(name, keep="").encode(encoding, "backslashreplace")
            assert escaped.decode(encoding) in shown
    with (tmp_path / "o" / "attribute.csv").open(encoding="utf-8", newline="") as file:
        assert set(FACTORS) <= {row["leading_factor"] for row in csv.DictReader(file)}
    gate = "factors.猫 :cat: {} %s.largest_effect > 0.5"
    code, shown, said = printed("ascii", *arguments, "--erase", "none", "--json", "--fail-if", gate)
    assert set(json.loads(shown)["factors"]) == set(FACTORS)
    assert (code, "gate met: factors.\\u732b :cat: {} %s.largest_effect is 0." in said) == (3, True)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_measures_and_errors_in_any_encoding(printed, odd, encoding):
    for command in (("decompose",), ("inspect",), ("ablate", "--reader", "ridge")):
        code, shown, said = printed(encoding, *command, odd[2])
        assert (code, bool(shown)) == (0, True), said
    code, shown, said = printed(encoding, "ablate", odd[2].parent / "≥[/].npz")
    assert (code, shown) == (2, "")
    assert "[/].npz" in said
    assert "Unicode" not in said
    assert printed(encoding, "compare", odd[0], odd[2], "--out", "o")[0] == 0
    assert json.loads(Path("o/compare.json").read_text())["reference"] == str(odd[0])


@pytest.mark.slow
def test_a_report_of_files_of_one_stem_and_any_names_is_one_folder(printed, odd, tmp_path):
    import html5lib

    test, _, train = odd
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
def test_a_terminal_without_a_locale_gets_everything(odd, tmp_path):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    answer = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "dimlab", "attribute", *map(str, odd),
         "--permutations", "19", "--reader", "none", "--out", "o"],
        capture_output=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert b"\\u732b :cat: {} %s" in answer.stdout
    assert (tmp_path / "o" / "attribute.svg").is_file()


@pytest.mark.slow
def test_files_are_whole_though_nobody_reads_the_tables(files, tmp_path):
    """``| head`` closes the pipe before all is printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dimlab", "erase", *files, "--factor", "x", "--out", "o"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (1, "")
    assert (tmp_path / "o" / "erase.svg").is_file()
