"""Runs of a study: trained once, kept, resumed, the same for any number of processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimlab import TrainConfig
from dimlab.images import SPLITS, ImageSet
from dimlab.training.loop import train
from study import FAMILIES, OutOfTime, Study, tried_configurations
from study.search import vary, write_varied

CONFIG = replace(TrainConfig.small(), steps=2, batch_size=16, n_dimensions=8, hidden=16)


def measure(checkpoint, images, device):
    return {"step": checkpoint.step, "mask": float(np.std(checkpoint.mask.weights))}


@pytest.fixture
def study(tmp_path):
    return Study("digits", CONFIG, (0, 1), folder=tmp_path)


def test_a_run_is_trained_once_and_its_row_is_kept(study):
    taken = []

    def counted(config, images, **options):
        taken.append(config.seed)
        return train(config, images, **options)

    study = replace(study, trainer=counted)
    first = study.table(study.runs("simclr"), measure)
    again = study.table(study.runs("simclr", labels={"width": 3}), measure)
    assert taken == [0, 1]
    assert first.to_dict("list") == again.drop(columns="width").to_dict("list")
    assert first[["family", "seed", "step"]].values.tolist() == [["simclr", 0, 2], ["simclr", 1, 2]]


def test_a_row_is_measured_again_where_the_file_of_its_measure_has_changed(study, tmp_path):
    """A constant behind a helper changes the rows, as the measure's own lines do."""
    script = tmp_path / "measuring.py"

    def limits(limit):
        script.write_text(
            f"LIMIT = {limit}\ndef helped():\n    return LIMIT\n"
            "def limited(checkpoint, images, device):\n"
            "    taken.append(device)\n    return {'limit': helped()}\n"
        )
        space = {"taken": taken}
        exec(compile(script.read_text(), script, "exec"), space)
        return study.table(study.runs("simclr"), space["limited"])["limit"].tolist()

    taken = []
    assert (limits(3), limits(3), limits(14)) == ([3, 3], [3, 3], [14, 14])
    assert taken == ["cpu"] * 4


def test_images_of_another_folder_are_another_run_by_their_content(study, tmp_path):
    """The same path with other images is another run, in this process and the next."""
    path = tmp_path / "images.npz"

    def seen(seed, **changes):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
        split = np.repeat(["train", "test"], 20)
        np.savez(path, images=pixels, labels=np.arange(40) % 2, split=split)
        given = replace(study, data="npz", data_dir=path, seeds=(0,), **changes)
        return given.table(given.runs("simclr"), first_pixels)["mean"].tolist()

    first = seen(0)
    assert seen(1) != first
    assert seen(0) == first
    run = study.runs("simclr")[0]
    places = [replace(study, device=device)._place() for device in ("cpu", "cuda", "cuda:1")]
    assert places[0] != places[1] == places[2]
    assert study._folder(run, places[0]) != study._folder(run, places[1])


@pytest.mark.parametrize("changed", SPLITS)
def test_other_images_of_any_split_are_another_run(changed, study, tmp_path):
    """Of validation too, which is neither trained on nor tested, and chooses."""
    path = tmp_path / "images.npz"

    def seen(value):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
        split = np.repeat(SPLITS, 20)
        pixels[split == changed] = value
        np.savez(path, images=pixels, labels=np.arange(60) % 2, split=split)
        given = replace(study, data="npz", data_dir=path, seeds=(0,))
        return given.table(given.runs("simclr"), means_by_split)[changed].tolist()

    assert (seen(0), seen(1)) == ([0.0], [1.0])


def means_by_split(checkpoint, images, device):
    return {split: float(images(split).images.mean()) for split in SPLITS}


def first_pixels(checkpoint, images, device):
    return {"mean": float(images("train").images[:4].mean())}


def planted(seed):
    def images(split):
        rng = np.random.default_rng([seed, len(split)])
        pixels = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
        return ImageSet(pixels, np.arange(40) % 2, name="planted", split=split)

    return images


def test_images_of_one_s_own_may_be_given(study):
    """As a function of the split or a mapping; other images are other runs."""
    means = []
    for data in (planted(0), planted(1), {each: planted(0)(each) for each in SPLITS}):
        given = replace(study, data=data, seeds=range(2))
        table = given.table(given.runs("simclr"), first_pixels)
        assert table["seed"].tolist() == [0, 1]
        expected = float(given.images("train").images[:4].mean())
        assert table["mean"].tolist() == [expected, expected]
        means.append(expected)
        assert given.data_name.startswith("given-")
    assert means[0] != means[1]
    assert means[0] == means[2]


def test_what_another_trainer_made_is_no_run_of_this_one(study):
    """Planted trainers have no source that tells them apart: what they made ends with them."""

    def trainer_of(mask):
        def trained(config, images, **options):
            done = train(config, images, **options)
            logits = done.mask_logits * 0 + torch.linspace(-mask, mask, len(done.mask_logits))
            done = replace(done, mask_logits=logits)
            done.save(options["out"] / "checkpoint.pt")
            return done

        return trained

    spreads = []
    for mask in (1.0, 3.0):
        given = replace(study, trainer=trainer_of(mask), seeds=(0,))
        spreads += given.table(given.runs("joint"), measure)["mask"].tolist()
    assert spreads[1] > 1.5 * spreads[0]


def test_a_run_of_two_rows_counts_its_seconds_once(study):
    twice = [run for width in (1, 2) for run in study.runs("simclr", labels={"width": width})]
    table = study.table(twice, measure)
    assert (table["train_seconds"] > 0).tolist() == [True, True, False, False]
    (environment,) = table.attrs["environments"]
    assert {"processor", "torch", "dimlab"} <= set(environment)


def test_what_is_done_stays_where_the_minutes_are_over(study):
    with pytest.raises(OutOfTime, match=r"^0 of 2 runs are done and kept in .*; the same command"):
        replace(study, until=0.0).table(study.runs("simclr"), measure)
    study.table(study.runs("simclr")[:1], measure)
    with pytest.raises(OutOfTime, match=r"^1 of 2 runs"):
        replace(study, until=0.0).table(study.runs("simclr"), measure)


def test_two_families_with_one_configuration_are_one_run(study):
    keys = {run.key for run in study.runs("simclr")}
    assert {run.key for run in study.runs("simclr", learning_rate=0.15)} == keys
    assert not {run.key for run in study.runs("simclr", learning_rate=0.2)} & keys
    assert not {run.key for run in study.runs("both")} & keys


@pytest.mark.parametrize("version", ["AUGMENTATION", "TRAINING"])
def test_runs_of_another_version_are_other_runs(version, study, monkeypatch):
    keys = {run.key for run in study.runs("simclr")}
    monkeypatch.setattr(sys.modules["study.sweep"], version, 99)
    assert not {run.key for run in study.runs("simclr")} & keys


def test_a_random_mask_is_drawn_once_and_never_moves(study):
    chosen = {"exact": {"mask_spread": 2.0}}
    runs = replace(study, chosen=chosen).runs("random mask")
    assert runs[0].random_mask == 2.0
    table = study.table(runs, measure)
    assert (table["mask"] > 0.05).all()
    assert table["mask"].nunique() == 2
    still = study.table(study.runs("frozen mask"), measure)
    assert (still["mask"] == 0).all()


def test_equal_seconds_are_steps_by_the_seconds_of_a_step(study):
    chosen = {"simclr": {"seconds_per_step": 0.1}, "both": {"seconds_per_step": 0.35}}
    assert replace(study, chosen=chosen).steps_at_equal_seconds("simclr") == 7
    assert replace(study, chosen=chosen).steps_at_equal_seconds("exact") is None
    assert study.steps_at_equal_seconds("simclr") is None


@pytest.mark.slow
def test_processes_change_nothing(study, tmp_path):
    alone = study.table(study.runs("both"), measure)
    two = replace(study, folder=tmp_path / "two", n_jobs=2)
    together = two.table(two.runs("both"), measure)
    seconds = ["step_seconds", "train_seconds", "measure_seconds"]
    assert alone.drop(columns=seconds).equals(together.drop(columns=seconds))


def test_families_draw_the_same_shared_numbers():
    tried = {
        name: tried_configurations(family, CONFIG)
        for name, family in FAMILIES.items()
        if family.knobs
    }
    assert {len(each) for each in tried.values()} == {8}
    for place in range(8):
        assert len({each[place].learning_rate for each in tried.values()}) == 1
    masked = [tried[name] for name in ("joint", "first-order", "exact", "lookahead")]
    assert len({tuple(config.mask_learning_rate for config in each) for each in masked}) == 1
    for each in tried.values():
        assert len({json.dumps(config.to_dict()) for config in each}) == 8


def test_a_family_without_knobs_is_not_searched():
    with pytest.raises(ValueError, match=r"^family must have knobs; got 'frozen mask'"):
        tried_configurations(FAMILIES["frozen mask"], CONFIG)


@pytest.mark.long
def test_under_torchrun_processes_share_each_run(tmp_path):
    """Two processes, one script: both train and measure, rank 0 alone writes and prints."""
    script = Path(__file__).parents[2] / "analyses" / "redundancy_shrinks.py"
    launchers = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
                "--standalone"],
    }  # fmt: skip
    rows = []
    for out, launcher in launchers.items():
        done = subprocess.run(
            [*launcher, script, "--small", "--seeds", "1", "--json", "--out", out], cwd=tmp_path,
            capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows.append(json.loads(done.stdout)["rows"])
    # rounding grows over 40 steps of float32 (three in float64 are compared in tests/training), so
    # what both must share is what has not been trained
    kinds = [[(row["kind"], row["seed"]) for row in each] for each in rows]
    assert kinds[0] == kinds[1]
    for one, two in zip(*rows, strict=True):
        assert one["untrained_redundancy"] == pytest.approx(two["untrained_redundancy"], rel=1e-4)
        assert one["redundancy"] == pytest.approx(two["redundancy"], abs=0.1)


def test_a_knob_is_varied_around_what_the_search_chose(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["study.search"], "VARIED_SEEDS", (5, 6))
    chosen = {"exact": {"learning_rate": 0.01}, "first-order": {"learning_rate": 0.02}}
    study = replace(study, data=planted(0), chosen=chosen, config=replace(CONFIG, steps=1))
    taken = []

    def counted(config, images, **options):
        taken.append((config.hypergradient, config.learning_rate, config.trial_step, config.seed))
        return train(config, images, **options)

    found = vary(replace(study, trainer=counted), "trial_step")
    assert taken == [
        (mode, rate, step, seed)
        for mode, rate in (("first_order", 0.02), ("exact", 0.01))
        for step in ("plain", "optimiser")
        for seed in (5, 6)
    ]
    assert found["values"] == ["plain", "optimiser"]
    assert {name: np.shape(each) for name, each in found["accuracy"].items()} == {
        "first-order": (2, 2), "exact": (2, 2),
    }  # fmt: skip
    path = tmp_path / "search.json"
    path.write_text(json.dumps({"families": {"a": 1}}))
    write_varied(path, "trial_step", found)
    written = json.loads(path.read_text())
    assert (written["families"], written["varied"]) == ({"a": 1}, {"trial_step": found})
