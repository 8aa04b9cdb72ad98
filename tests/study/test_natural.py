"""The runs of the natural size: planned, made once, stopped and continued, kept as rows."""

import importlib
import io
import json
import shutil
import signal
import sys
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analyses.some_dimensions_hurt import histogram
from dimlab import TrainConfig
from dimlab.datasets import npz
from dimlab.io.files import locked
from study import FAMILIES, OutOfTime, Study, natural
from study.natural import Maker, main, plan
from study.rows import MOST_BYTES, add_row, measure_name, read_rows
from study.search import TIMED, halving, with_rows
from study.to_npz import convert

TINY = replace(
    TrainConfig.small(), steps=8, batch_size=16, n_dimensions=8, hidden=16, contrastive_width=8,
    redundancy_width=16, checkpoint_every=4, keep_checkpoints=True, trace_every=2,
)  # fmt: skip
SCRIPTS = [stage for stage in natural.ORDER if isinstance(stage, str)]


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "tiny.npz"
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    pixels = rng.integers(0, 120, (400, 3, 8, 8), dtype=np.uint8)
    pixels[:, 0] += (labels * 40).astype(np.uint8)[:, None, None]
    split = np.where(np.arange(400) < 300, "train", "test")
    np.savez(path, images=pixels, labels=labels, split=split)
    return path


def looked_at(checkpoint, images, device):
    return {"step": checkpoint.step, "mean": float(checkpoint.network["encoder.bn3.weight"].sum())}


@pytest.fixture
def script(monkeypatch):
    """A study of two families and one script: some seconds in the place of a day."""
    module = types.ModuleType("tiny_claim")
    module.NATURAL = Study.natural()
    module.run = lambda study: study.table(study.runs("simclr"), looked_at)
    monkeypatch.setitem(sys.modules, "tiny_claim", module)
    monkeypatch.setattr(natural, "GROUPS", (("simclr",), ("joint",)))
    monkeypatch.setattr(natural, "ORDER", (("simclr",), "tiny_claim", ("joint",)))
    monkeypatch.setattr(importlib.import_module("study.search"), "N_FIRST", 3)
    return module


def base(folder, images, **changes):
    config = replace(TINY, **changes)
    return replace(Study.natural(), config=config, seeds=(0, 1), data_dir=images, folder=folder)


@pytest.mark.slow
def test_runs_are_made_in_order_once_and_never_again(script, images, tmp_path):
    rows, study = tmp_path / "kept" / "rows.jsonl", base(tmp_path / "runs", images)
    assert [each.run.labels["family"] for each in plan(study, rows)] == ["simclr"] * 3 + [
        "joint"
    ] * 3
    # three tried and two again in two seeds for each family, two seeds of the script, the timing
    assert Maker(study, rows).make() == 2 * 7 + 2 + 1
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    families = [row["labels"]["family"] for row in kept[:-1]]
    assert families == ["simclr"] * 9 + ["joint"] * 7
    assert kept[-1]["key"] == TIMED
    assert [len(line) < MOST_BYTES for line in rows.read_text().splitlines()] == [True] * 17
    assert {row["images"] for row in kept[:-1]} == {kept[0]["images"]}
    assert [row["config"].get("steps") for row in kept[:3]] == [2, 2, 2]
    assert kept[7]["seconds"]["train"] >= 0
    shutil.rmtree(study.folder)
    assert Maker(study, rows).make() == 0
    table = script.run(with_rows(study, rows))
    assert table[["seed", "step"]].values.tolist() == [[0, 8], [1, 8]]
    assert table.attrs["environments"] == [kept[0]["environment"]]
    with pytest.raises(OutOfTime, match=r"^0 of 2 runs are finished in .*; python -m study"):
        script.run(replace(with_rows(study, rows), seeds=(3, 4)))


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on_to_the_same_numbers(script, images, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"

    def called(folder, minutes):
        """One run of 400 steps of simclr is left to make."""
        arguments = ["--data-dir", images, "--out", folder, "--rows", rows, "--minutes", minutes]
        return main([str(each) for each in arguments], base(folder, images, steps=400))

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    codes = [called(parts, 0.015)]
    (stopped,) = parts.glob("*/checkpoint.pt")
    first = natural.load_checkpoint(stopped).step
    assert codes == [1]
    assert 0 < first < 100
    assert not rows.exists()
    assert "stopped; what is done is kept, and the same command goes on." in capsys.readouterr().err
    key = stopped.parent.name
    for folder in (parts, whole):
        study = base(folder, images, steps=400)
        (planned,) = [each for each in plan(study, rows) if each.run.key == key]
        maker = Maker(study, tmp_path / f"{folder.name}.jsonl")
        assert maker._alone(maker._finish, planned)
    numbers = [
        read_rows(tmp_path / f"{name}.jsonl")[key]["measures"]["search.validated"][0]
        for name in ("parts", "whole")
    ]
    timed = {"step_seconds", "train_seconds", "measure_seconds"}
    assert numbers[0].keys() == numbers[1].keys() > timed
    assert all(numbers[0][name] == numbers[1][name] for name in numbers[0].keys() - timed)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_run_that_another_process_makes_is_left_to_it(script, images, tmp_path):
    rows, study = tmp_path / "rows.jsonl", base(tmp_path / "runs", images)
    first, second = plan(study, rows)[:2]
    (study.folder / first.run.key).mkdir(parents=True)
    maker = Maker(study, rows)
    with locked(study.folder / first.run.key, "making"):
        assert not maker._alone(maker._finish, first)
        assert maker._alone(maker._finish, second)
    assert list(read_rows(rows)) == [second.run.key]
    assert not maker._alone(maker._finish, second)  # finished meanwhile


def test_other_images_are_refused(script, images, tmp_path, capsys):
    rows, study = tmp_path / "rows.jsonl", base(tmp_path / "runs", images)
    add_row(rows, {"key": "a", "data": "cifar10-jpeg", "images": "others"})
    arguments = ["--data-dir", str(images), "--out", str(tmp_path / "runs"), "--rows", str(rows)]
    assert main(arguments, study) == 2
    assert "error: data-dir must hold the images of the finished runs" in capsys.readouterr().err
    assert main(arguments[2:], study) == 2
    assert main([*arguments, "--minutes", "0"], study) == 2
    assert "error: minutes must be > 0; got 0." in capsys.readouterr().err


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Rows of the whole search at the real size, as if the larger learning rate were better."""
    path, study = tmp_path_factory.mktemp("searched") / "rows.jsonl", Study.natural()
    while True:
        finished = read_rows(path)
        left = [each for each in plan(study, path) if "search.validated" in each.measures]
        left = [each.run for each in left if each.run.key not in finished]
        for run in left:
            row = {"accuracy": run.config.learning_rate, "ridge": 0.5, "mask_spread": 2.0}
            measures = {"search.validated": [row]}
            add_row(path, {"key": run.key, "environment": {}, "measures": measures})
        if not left:
            seconds = dict.fromkeys(FAMILIES, 0.3) | {"exact": 0.9, "lookahead": 0.32}
            add_row(path, {"key": TIMED, "seconds_per_step": seconds})
            return path


def test_a_choice_takes_six_short_runs_and_two_long_ones_in_two_seeds(searched):
    for family, known in FAMILIES.items():
        if not known.knobs:
            continue
        runs, found = halving(replace(Study.natural(), rows=searched), family)
        assert [run.config.steps for run in runs] == [1000] * 6 + [4000] * 4
        assert [run.config.seed for run in runs] == [1000] * 7 + [1000, 1001, 1001]
        rates = [run.config.learning_rate for run in runs]
        assert sorted(rates[6:]) == sorted(2 * sorted(rates[:6])[-2:])
        assert found["chosen"]["learning_rate"] == found["accuracy"] == max(rates)
        assert [len(found[name]) for name in ("tried", "again")] == [6, 2]
    chosen = with_rows(Study.natural(), searched).chosen
    assert set(chosen) == {name for name, known in FAMILIES.items() if known.knobs}
    assert chosen["exact"]["seconds_per_step"] == 0.9


def test_every_row_is_measured_by_every_script_that_asks_for_its_run(searched):
    """Nothing that a judge reads can be missing when all rows are there."""
    planned = {each.run.key: each for each in plan(Study.natural(), searched)}
    asked = []

    def table(self, runs, measure, *, along=False):
        asked.extend((run, measure_name(measure)) for run in runs)
        return pd.DataFrame()

    for name in SCRIPTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Study, "table", table)
            script = importlib.import_module(name)
            patch.undo()
            study = with_rows(script.NATURAL, searched)
            patch.setattr(Study, "table", table)
            script.run(study)
    assert len(asked) > 200
    for run, measure in asked:
        assert measure in planned[run.key].measures, (run, measure)
        assert planned[run.key].run.config == run.config
    whole = [each for each in planned.values() if "natural.portrait" in each.measures]
    assert all("natural.curve" in each.measures for each in whole)
    assert len(whole) == 9 * 5
    assert {each.run.config.seed for each in whole} == set(range(5))
    # lookahead costs what the reference does within a tenth: the same run counts
    few = [run for run, _ in asked if run.labels.get("budget") == "seconds"]
    assert {run.labels["family"]: run.config.steps for run in few}["exact"] == 1333
    assert {run.labels["family"]: run.config.steps for run in few}["lookahead"] == 4000


def test_what_is_most_informative_comes_first(searched, tmp_path):
    ranks = [each.rank for each in plan(Study.natural(), searched)]
    assert ranks == sorted(ranks)
    steps = [each.run.config.steps for each in plan(Study.natural(), searched) if each.rank == 0]
    assert steps == [1000] * 18 + [4000] * 12  # every family is tried before one is trained long
    before = plan(Study.natural(), tmp_path / "none.jsonl")
    before = [each for each in before if each.run.config.n_dimensions == 256]
    assert len(before) == 7 * 6  # of a family that has no choice yet nothing else can be named
    assert {each.run.config.steps for each in before} == {1000}


def test_a_line_is_whole_and_its_own(tmp_path):
    path = tmp_path / "results" / "rows.jsonl"
    add_row(path, {"key": "a", "x": np.float32(1) / 3, "bad": [float("nan"), np.inf], "n": 2})
    assert path.read_text() == '{"key": "a", "x": 0.33333334, "bad": [null, null], "n": 2}\n'
    with pytest.raises(ValueError, match=r"^key must be one of no finished run; got a"):
        add_row(path, {"key": "a"})
    with pytest.raises(ValueError, match=r"^a row must have at most 20,000 bytes; got 2"):
        add_row(path, {"key": "b", "x": "." * MOST_BYTES})
    add_row(path, {"key": "b"})
    assert list(read_rows(path)) == ["a", "b"]
    assert [each.name for each in path.parent.iterdir()] == ["rows.jsonl"]


def test_parquet_files_become_one_that_npz_reads(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)

    def encoded(image):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        return {"bytes": stream.getvalue(), "path": None}

    for name, rows in (("train", range(40)), ("test", range(40, 60))):
        table = {"img": [encoded(pixels[row]) for row in rows], "label": [row % 10 for row in rows]}
        pd.DataFrame(table).to_parquet(tmp_path / f"{name}.parquet")
    out = convert(tmp_path, tmp_path / "cifar10.npz")
    test = npz("test", data_dir=out)
    assert np.array_equal(test.images, pixels[40:].transpose(0, 3, 1, 2))
    assert test.labels.tolist() == [row % 10 for row in range(40, 60)]
    assert test.class_names[3] == "cat"
    assert len(npz("train", data_dir=out)) + len(npz("validation", data_dir=out)) == 40


def test_a_histogram_is_the_first_bin_and_counts():
    assert histogram(np.array([0.5, 0.501, 0.5014, 0.503])) == [500, 1, 2, 0, 1]
    assert histogram(np.array([0.123])) == [123, 1]
