"""Every script at its small size, the command line's manners, and the table against the results."""

import importlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dimlab.images import ImageSet
from dimlab.planted import plant
from dimlab.training.augment import VERSION
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train
from study import Study, judged, main
from study.analysis import (
    EXPECTED,
    RESULTS,
    SEARCH,
    SIZES,
    Analysis,
    _agreement,
    _other_settings,
    judge_again,
)
from study.compare import disagreements
from study.figure import plot_judgement
from study.judgement import Judgement
from study.table import BEGIN, pages, verdict_table, with_table
from study.table import main as write_table
from tests.test_figure_layout import drawn, faults_of


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
    sizes = [getattr(analysis, size.upper()) for size in SIZES]
    assert [each.size for each in sizes] == ["small", "medium", "natural", "paper"]
    assert [len(each.seeds) for each in sizes] == [3, 5, 5, 5]
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
    monkeypatch.setattr(Study, "images", lambda study, split: images(study.data, split))
    with pytest.raises(Stopped):
        analysis.run(analysis.PAPER)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_small_size_reproduces_what_is_expected(name, tmp_path):
    # one process: CI tests two things at a time, and the start of others costs half as much again
    done = called(name, "--small", "--quiet", "--jobs", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "undecided: " in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith(("reproduces ", "agrees with ")), done.stderr
    result = json.loads((tmp_path / f"{name}-small.json").read_text())
    assert result["verdict"]["answer"] == "undecided"
    assert (tmp_path / f"{name}-small.svg").read_bytes().startswith(b"<?xml")


KEPT = [
    FOLDER / folder / f"{name}.json" for name in NAMES for folder in (EXPECTED, RESULTS)
]  # of every claim, or this fails


def of_path(path):
    kept = json.loads(path.read_text())
    module = importlib.import_module(f"analyses.{kept['script'].removesuffix('.py')}")
    sizes = {size: getattr(module, size.upper()) for size in SIZES}
    return kept, Analysis(Path(module.__file__), module.CLAIM, module.run, module.judge, sizes)


def close(found, kept):
    """Numbers as near as rows that were rounded to 8 places leave them, all else equal."""
    if isinstance(kept, dict):
        return set(found) == set(kept) and all(close(found[name], kept[name]) for name in kept)
    if isinstance(kept, (list, tuple)):
        return len(found) == len(kept) and all(map(close, found, kept))
    if isinstance(kept, float):
        return found == pytest.approx(kept, rel=0, abs=1e-6)
    return found == kept


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_kept_is_whole_and_its_verdict_is_what_its_rows_give(path):
    """Every field: answer, effect, interval, seeds that would decide, words, parts."""
    kept, analysis = of_path(path)
    size = "small" if path.parent.name == EXPECTED else "medium"
    assert (kept["script"], kept["size"], kept["claim"]) == (
        f"{path.stem}.py", size, analysis.claim,
    )  # fmt: skip
    assert TrainConfig.from_dict(kept["config"]) == analysis.sizes[size].config
    assert kept["seeds"] == list(analysis.sizes[size].seeds)
    assert {row["seed"] for row in kept["rows"]} == set(kept["seeds"])
    taken = sum(row["train_seconds"] + row["measure_seconds"] for row in kept["rows"])
    assert kept["seconds"] == pytest.approx(taken, abs=0.1)
    verdict = analysis.judged(pd.DataFrame(kept["rows"]), size).to_dict()
    assert close(json.loads(json.dumps(verdict)), kept["verdict"])
    if size == "medium":
        assert kept["chosen"] == analysis.of_size("medium").chosen


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_of_the_verdict_that_is_kept(name, tmp_path):
    path = FOLDER / RESULTS / f"{name}.json"
    kept, analysis = of_path(path)
    if kept["environment"]["matplotlib"] != metadata.version("matplotlib"):
        pytest.skip("another matplotlib draws other bytes")
    copy = replace(analysis, script=tmp_path / f"{name}.py")
    copy.kept("medium").parent.mkdir()
    copy.kept("medium").write_text(path.read_text())
    judge_again(copy, "medium")
    made = copy.kept("medium").with_suffix(".svg").read_bytes()
    assert made == path.with_suffix(".svg").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_no_words_of_a_kept_figure_overlap(name):
    kept, _ = of_path(FOLDER / RESULTS / f"{name}.json")
    assert faults_of(drawn(plot_judgement, Judgement.from_dict(kept["verdict"]))) == []


def test_a_number_that_is_changed_by_hand_is_caught():
    """In a verdict's field, or in a row that it rests on."""
    kept, analysis = of_path(FOLDER / RESULTS / "metamask_beats_baselines.json")
    changed = json.loads(json.dumps(kept["verdict"]))
    changed["parts"][0]["ci_high"] += 0.001
    assert not close(kept["verdict"], changed)
    rows = [dict(row) for row in kept["rows"]]
    for row in rows:
        if row["family"] == "lookahead":
            row["knn"] += 0.002
    verdict = analysis.judged(pd.DataFrame(rows), "medium").to_dict()
    assert not close(json.loads(json.dumps(verdict)), kept["verdict"])


def test_the_table_is_made_of_the_results():
    """`python analyses/study` writes it."""
    text = (FOLDER / "README.md").read_text()
    assert with_table(text, verdict_table(FOLDER)) == text
    made = pages(FOLDER)
    assert len(made) == len(NAMES) + 1
    assert {path: path.read_text() for path in made} == made


def test_the_page_is_short():
    """Answer first, at most 1,500 words; what is long stands on pages of its own."""
    assert len((FOLDER / "README.md").read_text().split()) <= 1500


def test_numbers_in_what_it_amounts_to_are_those_of_the_results():
    """What is written by hand."""

    def rows_of(name):
        return pd.DataFrame(json.loads((FOLDER / RESULTS / f"{name}.json").read_text())["rows"])

    def part_of(name, words):
        kept = json.loads((FOLDER / RESULTS / f"{name}.json").read_text())["verdict"]
        (part,) = (each for each in kept["parts"] if words in each["claim"])
        return part

    pages = [(FOLDER / name).read_text() for name in ("why.md", "running.md")]
    text = " ".join(" ".join(pages).split())
    part = part_of("redundancy_shrinks", "leaves as it was drawn")
    bounds = f"{part['effect']:+.4f} [{part['ci_low']:+.4f}, {part['ci_high']:+.4f}]"
    assert f"below the smallest effect even there ({bounds}, of interest from 0.02)" in text
    behind = rows_of("redundancy_shrinks").groupby("kind")["loss_redundancy"].mean()
    with_it, without = behind["loss added"], behind["no off-diagonal"]
    assert f"(redundancy {with_it:.2f}, and {without:.2f} without it)" in text
    random, learned = (
        part_of("risk_bound_orders", words)["effect"]
        for words in ("A random mask, never learned, has less", "classes than its weights permuted")
    )
    assert f"({random:+.3f} for {learned:+.3f})" in text
    first, _, last = (
        part_of("risk_bound_orders", "has a smaller risk than its weights permuted")["because"]
        .partition("(asked afterwards): ")[2].split("), ")
    )  # fmt: skip
    assert first.startswith("first-order ")
    assert first.endswith("(fails")
    assert last.startswith("lookahead ")
    assert last.endswith("(undecided).")
    table = rows_of("metamask_beats_baselines").query("budget == 'steps'")
    means = table.groupby("family")["validation"].mean().map("{:.4f}".format)
    assert means["both"] == means["frozen mask"]
    assert f"({means['simclr']}, and {means['both']} for both)" in text
    varied = json.loads((FOLDER / RESULTS / SEARCH).read_text())["varied"]["trial_step"]
    gain = np.subtract(*varied["accuracy"]["first-order"][::-1])
    verdict = judged("", gain, smallest_effect=0.01, unit="")
    assert (len(gain), verdict.answer) == (3, "undecided")
    assert f"{100 * gain.mean():.1f} points higher on validation in three seeds" in text


def test_the_answer_counts_the_verdicts():
    kept = [json.loads((FOLDER / RESULTS / f"{name}.json").read_text()) for name in NAMES]
    answers = [each["verdict"]["answer"] for each in kept]
    counts = [answers.count(each) for each in ("holds", "fails", "undecided")]
    assert counts == [1, 5, 1]
    assert {each["data"].partition("+")[0] for each in kept} == {"fashion-mnist"}
    said = "one of seven claims holds, five fail and one is undecided"
    assert said in " ".join((FOLDER / "README.md").read_text().split())


def test_a_result_that_changes_makes_the_table_stale(tmp_path):
    verdict = judged("a > b", [0.1, 0.2], smallest_effect=0.01, unit="accuracy")
    result = {
        "claim": "a > b", "script": "a.py", "size": "medium", "seeds": [0, 1], "data": "digits",
        "seconds": 60.0, "verdict": verdict.to_dict(), "augmentation": VERSION,
        "environment": {"processor": "", "machine": "x86_64", "torch": "2"},
    }  # fmt: skip
    (tmp_path / RESULTS).mkdir()
    path = tmp_path / RESULTS / "a.json"
    path.write_text(json.dumps(result))
    before = verdict_table(tmp_path)
    assert "| [a > b](a.py) | **undecided** | +0.1500 [-0.4853, +0.7853] accuracy |" in before
    assert "[all parts](results/a.md)" in before
    assert "`python analyses/a.py --medium`" in pages(tmp_path)[tmp_path / RESULTS / "a.md"]
    other = judged("a > b", [0.1, 0.1], smallest_effect=0.01, unit="accuracy").to_dict()
    path.write_text(json.dumps(result | {"verdict": other}))
    assert verdict_table(tmp_path) != before


def test_what_was_trained_with_another_augmentation_says_so_and_is_not_compared(tmp_path):
    """What was kept before versions had a number has the first one."""
    verdict = judged("a > b", [0.1, 0.2], smallest_effect=0.01, unit="accuracy")
    result = {
        "claim": "a > b", "script": "a.py", "size": "medium", "seeds": [0, 1], "data": "digits",
        "seconds": 60.0, "verdict": verdict.to_dict(), "config": {}, "chosen": {}, "rows": [],
        "environment": {"processor": "", "machine": "x86_64", "torch": "2"},
    }  # fmt: skip
    now = {**result, "augmentation": VERSION}
    (tmp_path / RESULTS).mkdir()
    path = tmp_path / RESULTS / "a.json"
    said = f"**Trained with version 1 of the augmentation** (now {VERSION}, see CHANGELOG.md)"
    for kept, outdated in ((now, False), (result, True), ({**result, "augmentation": 1}, True)):
        path.write_text(json.dumps(kept))
        assert (said in pages(tmp_path)[path.with_suffix(".md")]) == outdated
        assert ("**undecided** (to be run again)" in verdict_table(tmp_path)) == outdated
        assert _other_settings(kept, now) == ["augmentation"] * outdated


def test_the_search_has_a_page(tmp_path):
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
    search["varied"] = {
        "trial_step": {
            "values": ["plain", "optimiser"], "seeds": [7, 8], "environment": search["environment"],
            "accuracy": {"joint": [[0.5, 0.6], [0.6, 0.8]]},
        },
    }  # fmt: skip
    (tmp_path / RESULTS / SEARCH).write_text(json.dumps(search))
    (table,) = pages(tmp_path).values()
    assert "| joint | mask_learning_rate 1, meta_batch same | 0.9000 | 0.8000 | 0.5000 |" in table
    assert " | 0.2500 | -1.00 |" in table
    assert "| simclr |  | 0.7000 | 0.7000 | 0.7000 | 0.1000 |  |" in table
    assert "after 1,000 steps, seed 7" in table
    assert "joint 0.5500 with plain, 0.7000 with optimiser (+0.1500 [-0.4853, +0.7853])." in table


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
        (["--natural", "--data", "digits"], 2, "error: natural must come without --data and"),
        (["--search"], 2, "error: search must be done once; got "),
        (["--search", "--data", "digits"], 2, "error: search must come without --data, as other"),
        (["--small", "--keep", "--seeds", "1"], 2, "error: keep must come without --seeds, as"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, code, said, capsys, tmp_path):
    from analyses import redundancy_shrinks as analysis

    sizes = [getattr(analysis, size.upper()) for size in SIZES]
    asked = [*arguments, "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(analysis.CLAIM, analysis.run, analysis.judge, *sizes, arguments=asked)
    error = capsys.readouterr().err
    assert stopped.value.code == code
    assert said in error
    assert "Traceback" not in error


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    from analyses import redundancy_shrinks as analysis

    (tmp_path / "a").write_text("")
    sizes = [getattr(analysis, size.upper()) for size in SIZES]
    with pytest.raises(SystemExit) as stopped:
        main(
            analysis.CLAIM, analysis.run, analysis.judge, *sizes,
            arguments=["--small", "--out", str(tmp_path / "a")],
        )  # fmt: skip
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        f"error: out must be a folder; got {tmp_path / 'a'}, which is a file.\n"
    )


def test_a_file_that_is_no_result_is_named(tmp_path, capsys):
    (tmp_path / "README.md").write_text(f"{BEGIN} <!-- end of verdicts -->")
    (tmp_path / RESULTS).mkdir()
    (tmp_path / RESULTS / "a.json").write_text('{"rows": []}')
    assert write_table([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / RESULTS / 'a.json'} must be the result of an analysis; got one "
        "without verdict. Run the analysis with --keep.\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_table_that_lacks_a_row_or_has_it_twice_is_refused(name):
    kept, analysis = of_path(FOLDER / RESULTS / f"{name}.json")
    rows = pd.DataFrame(kept["rows"])
    for table in (rows.iloc[1:], pd.concat([rows, rows.iloc[:1]])):
        with pytest.raises(ValueError, match=r"^table must have .*; got "):
            analysis.judge(table)


# what a row has beside what is judged: times, and controls that no part asks for
UNREAD = {
    "redundancy_shrinks": ("untrained_effective_rank", "untrained_n_dead",
        "projector_effective_rank", "projector_n_dead", "loss_effective_rank", "loss_n_dead"),
    "some_dimensions_hurt": ("full_score",),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_is_none_is_refused_by_every_judge_that_reads_it(name):
    """A mean or a median would pass over it, and be one of fewer seeds."""
    kept, analysis = of_path(FOLDER / RESULTS / f"{name}.json")
    rows = pd.DataFrame(kept["rows"])
    labels = [each for each in rows if rows[each].map(type).eq(str).any()]
    unread = {*labels, "seed", "width", "drop", "step", *UNREAD.get(name, ())}
    measured = [each for each in rows if each not in unread and not each.endswith("_seconds")]
    assert len(measured) > 1
    for column in measured:
        for value in (np.nan, np.inf):
            table = rows.astype({column: float})
            table.loc[table[column].last_valid_index(), column] = value
            with pytest.raises(ValueError, match=rf"^table must have a finite {column} in every"):
                analysis.judge(table)


KINDS = {
    "mask_suppresses_nuisance": ("family",),
    "metamask_beats_baselines": ("budget", "family"),
    "redundancy_shrinks": ("kind",),
    "risk_bound_orders": ("family",),
    "second_order_matters": ("way",),
    "some_dimensions_hurt": ("family", "basis", "reader", "drop"),
    "wider_is_not_better": ("width",),
}
OPTIONAL = {"both, own choice", "weight 0.1"}  # the same training as another without a search


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_of_run_that_a_table_lacks_is_named(name):
    kept, analysis = of_path(FOLDER / RESULTS / f"{name}.json")
    rows = pd.DataFrame(kept["rows"])
    labels = list(KINDS[name])
    for kind, _ in rows.groupby(labels):
        without = rows[~(rows[labels] == list(kind)).all(axis=1)]
        told = ", ".join(map(str, kind))
        if told in OPTIONAL:
            analysis.judge(without)
            continue
        words = rf"^table must have the {', '.join(labels)} {told}; got only "
        with pytest.raises(ValueError, match=words):
            analysis.judge(without)


def test_what_is_optional_may_be_missing_and_what_is_unknown_may_not_count():
    kept, analysis = of_path(METAMASK)
    rows = pd.DataFrame(kept["rows"])
    untimed = analysis.judge(rows[rows["budget"] != "seconds"])
    assert "At equal seconds" not in {part.claim for part in untimed.parts}
    kept, analysis = of_path(BOUND)
    rows = pd.DataFrame(kept["rows"])
    other = rows[rows["family"] == "joint"].assign(family="tenth")
    with pytest.raises(ValueError, match=r"^table must have no family but simclr.*; got tenth\.$"):
        analysis.judge(pd.concat([rows, other]))
    kept, analysis = of_path(FOLDER / RESULTS / "second_order_matters.json")
    trained = pd.DataFrame(kept["rows"]).query("way != 'exact' or step.isna()")
    with pytest.raises(ValueError, match=r"^table must have .*; got no"):
        analysis.judge(trained)
    with pytest.raises(ValueError, match=r"^table must have .*; got no"):
        analysis.judge(trained.drop(columns="step"))


def test_ways_that_all_tie_are_in_no_order():
    kept, analysis = of_path(BOUND)
    rows = pd.DataFrame(kept["rows"]).assign(nce=1.0)
    assert analysis.judge(rows).parts[0].effect == 0.0


def test_the_random_mask_is_the_control_of_what_the_mask_learned():
    """A contrast that a mask which never learned has too says nothing of learning."""
    kept, analysis = of_path(BOUND)
    rows = pd.DataFrame(kept["rows"])
    by_claim = {part.claim: part for part in analysis.judge(rows).parts}
    whats = {"class_variance": "less variance within classes", "cross_entropy": "a smaller risk"}
    for name, what in whats.items():
        contrast = rows.assign(contrast=rows[f"permuted_{name}"] - rows[name])
        means = contrast.groupby("family")["contrast"].mean()
        learned = means[["first-order", "exact", "lookahead"]].mean()
        what = "has " + what.removesuffix(" within classes")
        ours, control, less = (part for claim, part in by_claim.items() if what in claim)
        assert ours.effect == pytest.approx(learned)
        assert control.effect == pytest.approx(means["random mask"])
        assert less.effect == pytest.approx(learned - means["random mask"])
        assert "asked afterwards" in control.claim
        assert less.claim.endswith("by more than the random one (asked afterwards)")
        for way in ("first-order", "exact", "lookahead"):
            assert f"{way} {means[way]:+.4f} [" in ours.because
    means = rows.groupby("family")["lower"].mean()
    learned = means[["first-order", "exact", "lookahead"]].mean()
    (bound,) = (
        part
        for claim, part in by_claim.items()
        if "lower bound is larger with a learned mask" in claim
    )
    assert bound.effect == pytest.approx(learned - means["both"])
    assert "Methods with a smaller lower bound have a smaller risk (asked afterwards)" in by_claim


def test_the_added_loss_is_asked_against_simclr_where_it_acts():
    """A projector that its diagonal term alone collapses is no measure of what the loss does."""
    kept, analysis = of_path(FOLDER / RESULTS / "redundancy_shrinks.json")
    rows = pd.DataFrame(kept["rows"])
    (part,) = (
        each for each in analysis.judge(rows).parts if "leaves as it was drawn" in each.claim
    )
    means = rows.groupby("kind")["loss_redundancy"].mean()
    assert part.effect == pytest.approx(means["simclr"] - means["loss added"])
    assert part.claim.endswith("(asked afterwards)")


def test_what_nothing_cost_is_not_judged():
    """Where no dimension was confirmed its cost is 0 by construction, with no interval."""
    kept, analysis = of_path(FOLDER / RESULTS / "some_dimensions_hurt.json")
    rows = pd.DataFrame(kept["rows"])
    verdict = analysis.judge(rows)
    assert not [part for part in verdict.parts if "cost" in part.claim]
    assert "ridge confirmed none in any run, so that no cost can be judged." in verdict.because
    one = (rows["seed"] == 0) & (rows["family"] == "both") & (rows["basis"] == "axes")
    rows.loc[one, "n_harmful"], rows.loc[one, "harmful_importance"] = 1, -0.03
    verdict = analysis.judge(rows)
    (part,) = (part for part in verdict.parts if "cost" in part.claim)
    assert part.claim == "What dimensions that are confirmed as harmful cost"
    assert part.effect == pytest.approx(0.03 / 15)
    assert "Of principal directions ridge confirmed none" in verdict.because


def test_medium_without_a_search_asks_for_it(tmp_path):
    study = Study.medium()
    analysis = Analysis(tmp_path / "a.py", "a > b", None, None, {"medium": study})
    with pytest.raises(FileNotFoundError, match=r"search must be done first; got no .*search.json"):
        analysis.of_size("medium")


def test_what_is_not_reproduced_is_named_with_exit_code_3(tmp_path, capsys, monkeypatch):
    """A changed number is caught; the same one is not; other seeds are not compared."""
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
        sizes = Study.small(), Study.medium(), Study.natural(), Study.paper()
        asked = [*arguments, "--out", str(tmp_path / "o")]
        with pytest.raises(SystemExit) as stopped:
            main("x > 0", run, judge, *sizes, arguments=asked)
        return stopped.value.code

    assert code("--small", "--keep") == 0
    assert (tmp_path / EXPECTED / "a.json").is_file()
    assert code("--small") == 0
    value[0] = 0.2
    assert code("--small") == 3
    assert "x > 0: +0.2100 is not within 0.0173 (3 standard errors) of +0.1100." in (
        capsys.readouterr().err
    )
    assert code("--small", "--seeds", "2") == 0
    assert "compared with nothing: " in capsys.readouterr().err
    assert code("--small", "--seeds", "1") == 0
    result = json.loads((tmp_path / "o" / "a-small.json").read_text(), parse_constant=pytest.fail)
    assert result["verdict"]["ci_low"] is None
    assert Judgement.from_dict(result["verdict"]).ci_high == np.inf


@pytest.mark.slow
def test_the_paper_goes_on_from_where_its_minutes_ended(tmp_path, capsys, monkeypatch):
    """Eight steps of the official configuration, ResNet-18, on a CPU, in two chunks."""
    script = tmp_path / "a.py"
    script.write_text("")
    monkeypatch.setattr(sys.modules[__name__], "__file__", str(script))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(24) % 10, name="cifar10", split="train")
    few = {"epochs": 0, "steps": 8, "schedule": "step", "batch_size": 8, "redundancy_width": 16}
    few |= {"hidden": 16, "contrastive_width": 16, "trace_every": 1}
    splits = dict.fromkeys(("train", "validation", "test"), images)
    rung = []

    def note(record):
        if record["step"] == 3 and not rung:
            rung.append(True)
            signal.raise_signal(signal.SIGALRM)  # as when the minutes are over

    def trainer(*given, **options):
        return train(*given, sink=note, **options)

    paper = replace(Study.paper(**few), seeds=(0,), data=splits, trainer=trainer)

    def weights(checkpoint, images, device):
        total = sum(float(each.double().sum()) for each in checkpoint.network.values())
        return {"step": checkpoint.step, "total": total}

    def run(study):
        return study.table(study.runs("exact", hypergradient="finite_difference"), weights)

    def judge(table):
        return judged("x > 0", table["step"], smallest_effect=0.01, unit="x")

    def called(folder):
        asked = ["--paper", "--quiet", "--out", str(folder)]
        sizes = Study.small(), Study.medium(), Study.natural(), paper
        with pytest.raises(SystemExit) as stopped:
            main("x > 0", run, judge, *sizes, arguments=asked)
        return stopped.value.code

    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert called(parts) == 1
    assert "stopped; what is done is kept, and the same command goes on." in capsys.readouterr().err
    (kept,) = parts.rglob("checkpoint.pt")
    assert 3 <= load_checkpoint(kept).step < 8
    assert called(parts) == called(whole) == 0
    rows = [json.loads((each / "a-paper.json").read_text())["rows"][0] for each in (parts, whole)]
    assert rows[0]["step"] == 8
    assert rows[0]["total"] == rows[1]["total"]


def test_on_another_machine_seeds_are_drawn_anew(tmp_path):
    """What a rerun with other seeds would give is reproduced; another number is not."""
    rng = np.random.default_rng(0)

    def result(level, spread, processor, n_seeds=5):
        x = level + spread * rng.standard_normal(n_seeds)
        verdict = judged("x > 0", x, smallest_effect=0.01, unit="x")
        rows = [{"seed": seed, "level": value} for seed, value in enumerate(10 + x)]
        return {"verdict": verdict.to_dict(), "environment": {"processor": processor}, "rows": rows}

    pairs = [(result(0.1, 0.01, "a"), result(0.1, 0.01, "b")) for _ in range(400)]
    assert sum(bool(disagreements(*pair)) for pair in pairs) <= 4  # 0.27 % is 1.1
    strict = [bool(disagreements(kept, {**now, **place_of(kept)})) for kept, now in pairs]
    assert sum(strict) > 20  # 3 standard errors of one mean of five are crossed much more often
    kept = result(0.1, 0.01, "a")
    for other in (result(0.3, 0.01, "b"), result(0.1, 1.0, "b")):
        assert disagreements(kept, other)
    moved = result(0.1, 0.01, "b")
    for row in moved["rows"]:
        row["level"] *= 2
    (said,) = disagreements(kept, moved)
    assert said.startswith("level: +20.")


METAMASK, BOUND = (
    FOLDER / RESULTS / f"{name}.json" for name in ("metamask_beats_baselines", "risk_bound_orders")
)
ELSEWHERE = {"processor": "another"}


def again(path, *, change=lambda row: row, elsewhere=False, one_machine=True):
    """What is kept, and what a rerun with other rows would give."""
    kept, analysis = of_path(path)
    if one_machine:
        kept.pop("further_environments", None)
    rows = [new for row in kept["rows"] if (new := change(dict(row))) is not None]
    verdict = analysis.judged(pd.DataFrame(rows), "medium")
    now = {**kept, "rows": rows, "verdict": verdict.to_dict()}
    if elsewhere:
        now["environment"] = {**kept["environment"], **ELSEWHERE}
    return kept, now


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_kept_agrees_with_itself(path, elsewhere):
    kept = json.loads(path.read_text())
    place = {**kept["environment"], **(ELSEWHERE if elsewhere else {})}
    assert disagreements(kept, {**kept, "environment": place}) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_verdict_that_turns_is_not_reproduced_on_any_machine(elsewhere):
    """The effect is as near as two samples of seeds are; the answer is another."""
    first, second = (
        judged("a > b", differences, smallest_effect=0.01, unit="x").to_dict()
        for differences in ([0.02, 0.03, 0.04], [0.01, 0.02, 0.03])
    )
    place = {"environment": {}}, {"environment": ELSEWHERE if elsewhere else {}}
    kept, now = ({"verdict": each, "rows": []} for each in (first, second))
    said = disagreements(kept | place[0], now | place[1])
    assert said == ["a > b: the answer is undecided, and holds is kept."]
    assert disagreements(now | place[0], kept | place[1]) == [
        "a > b: the answer is holds, and undecided is kept."
    ]


def test_a_part_that_turns_is_not_reproduced_here_and_only_its_opposite_elsewhere():
    answers = {"holds": [0.2, 0.3, 0.4], "undecided": [-0.3, 0.3, 0.4], "fails": [-0.5, -0.4, -0.3]}

    def result(answer, place):
        part = judged("part", answers[answer], smallest_effect=0.01, unit="x")
        assert part.answer == answer
        verdict = judged("a", answers["holds"], smallest_effect=0.01, unit="x", parts=[part])
        return {"verdict": verdict.to_dict(), "environment": {"processor": place}, "rows": []}

    def said(before, after, place):
        found = disagreements(result(before, "here"), result(after, place))
        return [each for each in found if "answer" in each]

    opposite = "part: the answer is fails, and holds is kept."
    assert said("holds", "fails", "here") == said("holds", "fails", "there") == [opposite]
    assert said("fails", "holds", "there")
    assert said("holds", "undecided", "here")
    assert said("holds", "undecided", "there") == said("undecided", "fails", "there") == []


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("exchanged", [("first-order", "simclr"), ("simclr", "barlow-twins")])
def test_two_families_whose_labels_are_exchanged_are_caught(exchanged, elsewhere):
    """The mean over all rows of a seed is what it was."""
    turned = dict([exchanged, exchanged[::-1]])

    def change(row):
        if row["budget"] == "official trial step":
            return row
        return {**row, "family": turned.get(row["family"], row["family"])}

    kept, now = again(METAMASK, change=change, elsewhere=elsewhere)
    said = disagreements(kept, now)
    for family in turned:
        assert any(f" of family {family}, budget seconds:" in each for each in said)
    assert not any("family exact" in each for each in said)


@pytest.mark.parametrize("label", ["basis", "reader", "drop", "way", "width", "kind"])
def test_rows_are_compared_by_every_label_not_only_by_family(label):
    (path,) = (
        path for path in KEPT if path.parent.name == RESULTS and label in path.read_text()
        and any(label in row for row in json.loads(path.read_text())["rows"])
    )  # fmt: skip
    kept = json.loads(path.read_text())
    names = list(dict.fromkeys(row[label] for row in kept["rows"]))
    turned = dict(zip(names, reversed(names), strict=True))
    rows = [{**row, label: turned[row[label]]} for row in kept["rows"]]
    said = disagreements(kept, {**kept, "rows": rows})
    assert any(f"{label} {names[0]}" in each for each in said)


def test_what_only_one_of_two_results_has_is_named():
    """A column, a kind, and a number that is none in the other."""
    kept, now = again(BOUND)
    for row in now["rows"]:
        del row["nce"]
        row["new"] = 1.0
    assert disagreements(kept, now) == [
        "nce: the column is kept, and was not measured.",
        "new: the column was measured, and is not kept.",
    ]
    kept, now = again(BOUND)
    now["rows"] = [row for row in now["rows"] if row["family"] != "joint"]
    assert disagreements(kept, now) == [
        "family joint: of seeds none, and of seeds 0, 1, 2, 3, 4 are kept."
    ]
    for one, other in ((0, 1), (1, 0)):
        results = again(BOUND)
        results[one]["rows"][0]["nce"] = None
        (said,) = disagreements(*results)
        assert said.startswith("nce of family simclr: "), other
        assert "nan" in said


def test_rows_of_several_machines_are_compared_as_those_of_another():
    """A kept result does not say which row is of which machine."""

    def change(row):  # 5 standard errors: too many for a bit for bit rerun, few for other seeds
        return {**row, "ridge": row["ridge"] + 0.004} if row["family"] == "both" else row

    kept, now = again(METAMASK, change=change)
    assert any(each.startswith("ridge of family both") for each in disagreements(kept, now))
    kept, now = again(METAMASK, change=change, one_machine=False)
    assert kept["further_environments"]
    assert disagreements(kept, now) == []


def test_seeds_that_agree_by_chance_do_not_make_another_machine_differ():
    """Accuracies of few images tie: no spread in either; the column's other kinds show one."""

    def result(place, tied, others):
        verdict = judged("a", [0.2, 0.3, 0.4], smallest_effect=0.01, unit="x").to_dict()
        columns = {"tied": [tied] * 3, "other": others}
        rows = [
            {"family": family, "seed": seed, "knn": value}
            for family, values in columns.items()
            for seed, value in enumerate(values)
        ]
        return {"verdict": verdict, "environment": {"processor": place}, "rows": rows}

    kept = result("here", 0.80, [0.80, 0.81, 0.82])
    assert disagreements(kept, result("there", 0.81, [0.79, 0.81, 0.83])) == []
    assert disagreements(kept, result("here", 0.81, [0.80, 0.81, 0.82]))
    (said,) = disagreements(kept, result("there", 0.40, [0.79, 0.81, 0.83]))
    assert said.startswith("knn of family tied: +0.4000 is not within")


def test_agreement_is_said_as_far_as_it_was_tested():
    path = Path("a.json")
    assert _agreement(path, same_machine=True).startswith(
        "reproduces a.json, on a processor and versions"
    )
    elsewhere = _agreement(path, same_machine=False)
    assert elsewhere.startswith("agrees with a.json, as far as another processor or other versions")
    assert "reproduces" not in elsewhere


def place_of(result):
    return {"environment": result["environment"]}


def test_sizes_may_be_changed():
    study = Study.small("digits+hue:0.8", steps=3)
    assert (study.data, study.config.steps) == ("digits+hue:0.8", 3)
    assert replace(study, seeds=(1,)).seeds == (1,)
