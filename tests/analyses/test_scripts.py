"""Every script at its small size, the command line's manners, and the table against the results."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimlab.image_set import ImageSet
from dimlab.planted import plant
from dimlab.study import Study, judged, main
from dimlab.study.analysis import EXPECTED, RESULTS, SEARCH, Analysis, disagreements
from dimlab.study.verdict_table import BEGIN, verdict_table, with_table
from dimlab.training.loop import train


class Stopped(Exception):
    """The runs have been looked at."""


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "analyses"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def called(name, *arguments, folder):
    command = [sys.executable, FOLDER / f"{name}.py", *arguments, "--out", folder]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_the_claims_are_these():
    assert NAMES == [
        "mask_suppresses_nuisance", "metamask_beats_baselines", "redundancy_shrinks",
        "risk_bound_orders", "second_order_matters", "some_dimensions_hurt", "wider_is_not_better",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_what_it_claims_and_what_would_refute_it(name):
    analysis = importlib.import_module(f"analyses.{name}")
    for words in ("Claim:", "Effect:", "Refuted by:", "stated\nbeforehand", "Departures from"):
        assert words.replace("\n", " ") in " ".join(analysis.__doc__.split()), words
    assert f"beforehand: {analysis.SMALLEST:g}" in " ".join(analysis.__doc__.split())
    sizes = analysis.SMALL, analysis.MEDIUM, analysis.PAPER
    assert [each.size for each in sizes] == ["small", "medium", "paper"]
    assert [len(each.seeds) for each in sizes] == [3, 5, 5]
    assert analysis.PAPER.config.encoder == "resnet18"


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_takes_every_run_of_the_paper(name, monkeypatch):
    """Colour images of CIFAR-10's size, the official configuration, one step, a shallow network."""
    analysis = importlib.import_module(f"analyses.{name}")
    rng = np.random.default_rng(0)

    def images(data, split):
        pixels = rng.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
        whole = ImageSet(pixels, np.arange(24) % 10, name="cifar10", split=split)
        return plant(whole, data.partition("+")[2]) if "+" in data else whole

    def table(self, runs, measure, *, along=False):
        assert {run.config.encoder for run in runs} == {"resnet18"}
        distinct = {run.config.method + run.config.hypergradient: run for run in runs}
        for run in distinct.values():
            few = {"encoder": "convnet", "steps": 1, "batch_size": 8, "redundancy_width": 16}
            few |= {"n_dimensions": 8, "hidden": 16, "contrastive_width": 16}
            config = replace(run.config, **few)
            assert train(config, images(run.data, "train")).step == 1
        raise Stopped

    monkeypatch.setattr(Study, "table", table)
    with pytest.raises(Stopped):
        analysis.run(analysis.PAPER)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_small_size_reproduces_what_is_expected(name, tmp_path):
    done = called(name, "--small", "--quiet", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "undecided: " in done.stdout
    assert "reproduces" in done.stderr
    result = json.loads((tmp_path / f"{name}-small.json").read_text())
    assert result["verdict"]["answer"] == "undecided"
    assert (tmp_path / f"{name}-small.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_whole(name):
    for folder, size in ((EXPECTED, "small"), (RESULTS, "medium")):
        path = FOLDER / folder / f"{name}.json"
        if size == "medium" and not path.is_file():
            continue  # not run yet: the README says so
        kept = json.loads(path.read_text())
        assert (kept["script"], kept["size"]) == (f"{name}.py", size)
        assert {row["seed"] for row in kept["rows"]} == set(kept["seeds"])
        again = importlib.import_module(f"analyses.{name}")
        study = getattr(again, size.upper())
        assert kept["config"] == study.config.to_dict()
        assert kept["claim"] == again.CLAIM


@pytest.mark.parametrize("path", sorted((FOLDER / RESULTS).glob("*.json")), ids=lambda p: p.stem)
def test_verdicts_are_what_their_rows_give(path):
    import pandas as pd

    if path.name == SEARCH:
        return
    kept = json.loads(path.read_text())
    analysis = importlib.import_module(f"analyses.{kept['script'].removesuffix('.py')}")
    verdict = analysis.judge(pd.DataFrame(kept["rows"])).to_dict()
    assert disagreements(kept, {"verdict": verdict}) == []
    assert verdict["answer"] == kept["verdict"]["answer"]
    assert path.with_suffix(".svg").is_file()


def test_the_table_is_made_of_the_results():
    """`python -m dimlab.study analyses` writes it."""
    text = (FOLDER / "README.md").read_text()
    assert with_table(text, verdict_table(FOLDER)) == text


def test_a_result_that_changes_makes_the_table_stale(tmp_path):
    verdict = judged("a > b", [0.1, 0.2], smallest_effect=0.01, unit="accuracy")
    result = {
        "claim": "a > b", "script": "a.py", "size": "medium", "seeds": [0, 1], "data": "digits",
        "seconds": 60.0, "verdict": verdict.to_dict(),
        "environment": {"processor": "", "machine": "x86_64", "torch": "2"},
    }  # fmt: skip
    (tmp_path / RESULTS).mkdir()
    path = tmp_path / RESULTS / "a.json"
    path.write_text(json.dumps(result))
    before = verdict_table(tmp_path)
    assert "| [a > b](a.py) | **undecided** | +0.1500 [-0.4853, +0.7853] accuracy |" in before
    assert "`python analyses/a.py --medium`" in before
    other = judged("a > b", [0.1, 0.1], smallest_effect=0.01, unit="accuracy").to_dict()
    path.write_text(json.dumps(result | {"verdict": other}))
    assert verdict_table(tmp_path) != before


def test_the_search_stands_below_the_verdicts(tmp_path):
    tried = [
        {"accuracy": accuracy, "mask_learning_rate": rate}
        for accuracy, rate in ((0.9, 1.0), (0.8, 2.0), (0.5, 8.0))
    ]
    search = {
        "split": "validation", "data": "digits", "steps": 1000, "seed": 7, "seconds": 120.0,
        "environment": {"processor": "", "machine": "x86_64", "torch": "2"},
        "families": {
            "joint": {"chosen": {"mask_learning_rate": 1.0, "meta_batch": "same"},
                      "seconds_per_step": 0.25, "tried": tried},
            "simclr": {"chosen": {}, "seconds_per_step": 0.1, "tried": [{"accuracy": 0.7}]},
        },
    }  # fmt: skip
    (tmp_path / RESULTS).mkdir()
    (tmp_path / RESULTS / SEARCH).write_text(json.dumps(search))
    table = verdict_table(tmp_path)
    assert "| joint | mask_learning_rate 1, meta_batch same | 0.9000 | 0.8000 | 0.5000 |" in table
    assert " | 0.2500 | -1.00 |" in table
    assert "| simclr |  | 0.7000 | 0.7000 | 0.7000 | 0.1000 |  |" in table
    assert "after 1,000 steps, seed 7" in table


def test_a_text_without_marks_is_refused():
    with pytest.raises(ValueError, match=r"^README.md must have the marks .*; got none\.$"):
        with_table("nothing", "| |")
    assert with_table(f"a {BEGIN} old <!-- end of verdicts --> b", "new").count("new") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--small", "--seeds", "0"], 2, "error: seeds must be >= 1; got 0."),
        (["--small", "--jobs", "0"], 2, "error: jobs must be >= 1; got 0."),
        (["--small", "--data", "nosuch"], 2, "nosuch"),
        (["--small", "--medium"], 2, "not allowed with"),
        ([], 2, "required"),
        (["--small", "--minutes", "1e-9"], 1, "0 of 15 runs are done and kept in"),
        (["--small", "--minutes", "0"], 2, "error: minutes must be > 0; got 0."),
        (["--small", "--minutes", "nan"], 2, "error: minutes must be > 0; got nan."),
        (["--small", "--device", "nosuch"], 2, "error: device must be cpu, cuda or cuda:N"),
        (["--search", "--data", "digits"], 2, "error: search must come without --data, as other"),
        (["--small", "--keep", "--seeds", "1"], 2, "error: keep must come without --seeds, as"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, code, said, capsys, tmp_path):
    from analyses import redundancy_shrinks as analysis

    sizes = analysis.SMALL, analysis.MEDIUM, analysis.PAPER
    asked = [*arguments, "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(analysis.CLAIM, analysis.run, analysis.judge, *sizes, arguments=asked)
    error = capsys.readouterr().err
    assert stopped.value.code == code
    assert said in error
    assert "Traceback" not in error


def test_medium_without_a_search_asks_for_it(tmp_path):
    study = Study.medium()
    analysis = Analysis(tmp_path / "a.py", "a > b", None, None, {"medium": study})
    with pytest.raises(FileNotFoundError, match=r"search must be done first; got no .*search.json"):
        analysis.of_size("medium")


def test_what_is_not_reproduced_is_named_with_exit_code_3(tmp_path, capsys, monkeypatch):
    """A changed number is caught; the same one is not; other seeds are not compared."""
    import pandas as pd

    script = tmp_path / "a.py"
    script.write_text("")
    monkeypatch.setattr(sys.modules[__name__], "__file__", str(script))
    value = [0.1]

    def run(study):
        rows = {"seed": list(study.seeds), "x": [value[0] + seed / 100 for seed in study.seeds]}
        return pd.DataFrame(rows | {"train_seconds": 0.0, "measure_seconds": 0.0})

    def judge(table):
        return judged("x > 0", table["x"], smallest_effect=0.01, unit="x")

    def code(*arguments):
        sizes = Study.small(), Study.medium(), Study.paper()
        asked = [*arguments, "--out", str(tmp_path / "o")]
        with pytest.raises(SystemExit) as stopped:
            main("x > 0", run, judge, *sizes, arguments=asked)
        return stopped.value.code

    assert code("--small", "--keep") == 0
    assert (tmp_path / EXPECTED / "a.json").is_file()
    assert code("--small") == 0
    value[0] = 0.2
    assert code("--small") == 3
    assert "x > 0: +0.2100 is not within 3 standard errors (0.0058) of +0.1100." in (
        capsys.readouterr().err
    )
    assert code("--small", "--seeds", "2") == 0


def test_sizes_may_be_changed():
    study = Study.small("digits+hue:0.8", steps=3)
    assert (study.data, study.config.steps) == ("digits+hue:0.8", 3)
    assert replace(study, seeds=(1,)).seeds == (1,)
