"""Options come from signatures and docstrings: ours, and those of probes outside the package."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from typer.testing import CliRunner

from dimlab import cli
from dimlab.cli.derive import described, field_options, numbers_in, options_of
from dimlab.cli.options import COMMON, FILE
from dimlab.io.arrays import ENDINGS
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, per, scalar

# options that mean something else in some command, by what differs there
ELSEWHERE = {
    "--seed": {"train"},  # none: the preset's
    "--data": {"train"},
    "--out": {"train", "encode", "demo", "report"},  # other folders by default
    "--split": {"encode"},  # repeatable
    "--views": {"correlate", "encode"},
    "--stem": {"train"},
    "--encoder": {"train"},
    "--reader": {
        *("ablate", "confirm", "cumulate", "random-masks", "report", "erase"),  # defaults
        *("redundancy", "attribute", "prune"),  # what it is for
    },
    "--fill": {"locate"},
    "--temperature": {"bound"},
    "--factor": {"erase"},  # one
    "--max-queries": {"locate", "ablate-retrieval"},
    "--score": {"ablate-retrieval"},  # of rankings
    "--margin": {"ablate-retrieval"},
    "--keep": {"prune"},  # dimensions
    "--k": {"profile"},  # of hubness
    "--n-splits": {"ablate-retrieval"},
    "--random-orders": {"ablate-retrieval"},
    "--groups": {"ablate-retrieval"},  # redundant on the corpus
    "--clusters": {"ablate-retrieval"},  # of queries
    "--bootstrap": {"bound", "follow"},
    "--permutations": {"follow"},
    "--random": {"erase"},
}


def parameters(name):
    return {each.opts[0]: each for each in cli.command(name).params}


def test_an_option_is_the_same_in_every_command():
    known = {}
    for name in cli.COMMANDS:
        for flag, each in parameters(name).items():
            if not flag.startswith("--") or name in ELSEWHERE.get(flag, ()):
                continue
            here = each.bare_type(), each.multiple, str(each.default), each.help
            assert known.setdefault(flag, here) == here, (name, flag)
    assert len(known) > 50


def test_every_option_says_what_it_is_in_a_sentence():
    for name in cli.COMMANDS:
        for flag, each in parameters(name).items():
            assert each.help, (name, flag)
            assert each.help[0].isupper() or each.help.split()[0].rstrip(",") in each.help, flag
            assert each.help.endswith("."), (name, flag, each.help)
            assert "`" not in each.help, (name, flag)


def test_rare_options_stand_apart_where_there_are_many():
    panels = {flag: each.rich_help_panel for flag, each in parameters("ablate").items()}
    assert panels["--memory"] == panels["--seed"] == "Advanced"
    assert panels["--groups"] == panels["--reader"] == "What to measure"
    assert panels["--train"] == "Input"
    assert panels["--json"] == "Output"
    assert "Advanced" not in {each.rich_help_panel for each in cli.command("demo").params}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_at_most_twelve_options_stand_outside_the_advanced_ones(name):
    shown = {flag: each for flag, each in parameters(name).items() if flag.startswith("-")}
    shown.pop("--help", None)
    usual = [flag for flag, each in shown.items() if each.rich_help_panel != "Advanced"]
    assert len(usual) <= 12, usual


def test_the_help_of_a_file_names_all_endings_that_are_read():
    said = set(re.findall(r"\.\w+", FILE.help))
    assert said == set(ENDINGS)
    for name in ("ablate", "compare", "decompose"):
        text = CliRunner().invoke(cli.app, [name, "--help"]).output
        assert all(ending in text for ending in ENDINGS), name
        assert re.search(rf"Usage: .*{name} \[OPTIONS\] FILE(\.\.\.)?$", text, re.M), text


def probe(
    train: Representation,
    test: Representation,
    *,
    width: int = 3,
    scale: float | None = None,
    kinds: Sequence[str] = ("a", "b"),
    names: Sequence[str] = (),
    rates: "Sequence[float]" = (0.5, 1),
    order: "str | Sequence[int] | np.ndarray" = "up",
    both: bool = True,
    quickly: bool = False,
    clusters: "str | np.ndarray | None" = None,
    weights: np.ndarray | None = None,
    progress: Callable | None = None,
):
    """Measure something.

    Parameters
    ----------
    train, test : Representation
        Splits.
    width : int, default=3
        How wide, >= 2; not too wide.
        As wide as that. More of it.
    kinds : sequence of {"a", "b"}
        Which kinds.
    order : {"up", "down"} or sequence of int
        In which ``order``. Or not.
    clusters, scale
        As in `ablate`.
    penalty : float
        Of another function.

    Returns
    -------
    None
    """


def test_types_defaults_and_help_are_read():
    found = {each.name: each for each in options_of(probe)}
    assert list(found) == [
        "width", "scale", "kinds", "names", "rates", "order", "both", "quickly", "clusters",
    ]  # fmt: skip
    assert found["width"].help == "How wide, >= 2; not too wide."
    assert found["order"].help == "In which order. One of: up, down."
    assert found["both"].flag == "--both/--no-both"
    assert [found[each].default for each in ("rates", "kinds", "names")] == ["0.5,1", "a,b", None]
    assert found["rates"].read("1,2.5") == [1, 2.5]
    assert found["order"].read("2, 0,1") == [2, 0, 1]
    assert described(probe, "clusters")[1].startswith("Rows that belong together")


@dataclass
class Settings:
    """Settings."""

    n_rows: int = 1
    """How many ``rows``, >= 0; few
    of them. More of it."""
    hidden: str = "no"
    """Has no option."""
    rate: float = 0.5
    """How fast."""


def test_options_of_fields_say_what_stands_beneath_them():
    rows, rate = field_options(Settings, ["rate", "n_rows"])
    assert (rows.flag, rows.type, rows.default) == ("--rows", int, None)
    assert rows.help == "How many rows, >= 0; few of them."
    assert (rate.flag, rate.type, rate.help) == ("--rate", float, "How fast.")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("width", 1, "width must be >= 2; got 1."),
        ("order", "left", "order must be one of 'up', 'down'; got 'left'."),
        ("kinds", "a,c", "kinds must be one of 'a', 'b'; got 'c'."),
        ("rates", "x", "rates must be numbers separated by commas; got 'x'."),
    ],
)
def test_values_are_refused_at_the_door(name, value, sentence):
    option = next(each for each in options_of(probe) if each.name == name)
    with pytest.raises(ValueError, match=r"must") as refused:
        option.read(value)
    assert str(refused.value) == sentence


def test_whole_numbers_are_whole():
    assert numbers_in("dimensions", "1,2", "int") == [1, 2]
    for text in ("1.5", "inf", "nan"):
        with pytest.raises(ValueError, match=r"^dimensions must be whole numbers"):
            numbers_in("dimensions", text, "int")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cohesion(Result):
    """How close the samples of a class lie in each dimension."""

    n_test: int = scalar("Number of samples.")
    share: float = scalar("What was asked for.")
    spread: np.ndarray = per("dimension", "Mean spread within the classes.")


def cohere(
    train: Representation, test: Representation, *, share: float = 0.5, clusters: str | None = None
) -> Cohesion:
    """Measure how close the samples of a class lie in each dimension.

    Parameters
    ----------
    train, test : Representation
        Labelled splits.
    share : float, default=0.5
        Share of the samples to look at, in (0, 1].
    clusters : str, optional
        Factor of rows that belong together.

    Returns
    -------
    Cohesion
        One spread a dimension.
    """
    if not 0 < share <= 1:
        raise Refusal(f"share must be in (0, 1]; got {share}.")
    if share == 0.25:
        raise ValueError("a mistake, which no user made")
    return Cohesion(n_test=len(test), share=share, spread=test.features.std(axis=0))


@pytest.fixture
def outside(tmp_path, monkeypatch, installed):
    """Install a package whose entry point is the probe above."""
    import sys

    monkeypatch.setitem(sys.modules, "cohesion", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "__name__", "cohesion")
    installed("cohesion_entry", "", "[dimlab.probes]\ncohere = cohesion:cohere\n")
    features = np.random.default_rng(0).normal(size=(40, 3))
    whole = Representation(features, labels=np.arange(40) % 2)
    return whole.save(tmp_path / "features.safetensors")


def test_a_probe_of_another_package_is_a_command(outside, dimlab, tmp_path):
    from dimlab.cli.door import app

    shell = CliRunner()
    text = shell.invoke(app, ["cohere", "--help"]).output
    assert "Measure how close the samples of a class lie in each dimension." in text
    words = " ".join(text.split())
    assert "--share <float> Share of the samples to look at, in (0, 1]. [default: 0.5]" in words
    assert COMMON["clusters"] in words
    assert "cohere" in shell.invoke(app, ["--help"]).output
    called = ["cohere", str(outside), "--share", "0.75", "--json", "--quiet"]
    done = shell.invoke(app, called)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"n_test": 20, "share": 0.75}
    code, out, err = dimlab("cohere", outside, "--out", "o")
    assert (code, "Cohesion" in out, "wrote o/cohere.csv" in out) == (0, True, True), err
    assert {each.name for each in (tmp_path / "o").iterdir()} == {
        "cohere.csv", "cohere.json", "cohere.provenance.json",
    }  # fmt: skip
    code, _, err = dimlab("cohere", outside, "--fail-if", "n_tests > 3")
    assert (code, "one of n_test, share; got 'n_tests'" in err) == (2, True)
    code, _, err = dimlab("cohere", outside, "--share", 2)
    assert (code, err.splitlines()[-1]) == (2, "dimlab cohere: share must be in (0, 1]; got 2.0.")
    code, _, err = dimlab("cohere", outside, "--share", 0.25)
    assert (code, "internal error, ValueError: a mistake" in err) == (1, True)
