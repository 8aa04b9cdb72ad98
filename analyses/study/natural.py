"""Make the runs of the natural size, the most informative first, and keep a row of each.

``python -m study.natural --data-dir cifar10.npz --minutes 45``, in ``analyses/``, trains what
``results/natural/rows.jsonl`` does not have, with one thread. It stops after the minutes, at
SIGTERM and at Ctrl-C. A training that is stopped saves itself, and the same command continues it.
Two processes with the same folder and the same file share the runs.

A run is measured once, when its training ends, by every script that asks for it. Its row has all
numbers that the judges read:

- ``search.validated``: kNN and ridge on validation, spread of the mask's logits.
- ``metamask_beats_baselines.measure``: kNN on validation, and on test masked, unmasked and under
  permuted weights; ridge; logistic regression; spread of the mask.
- ``redundancy_shrinks.measure``: redundancy, effective rank and dead dimensions of the features, of
  both projectors, and of the untrained network.
- ``risk_bound_orders.measure``: the terms of the bounds, whether they held, and under permuted
  weights.
- ``some_dimensions_hurt.measure``: for each basis, reader and rate the gains of random masks, their
  histogram, and what was confirmed as harmful.
- ``second_order_matters.measure`` and ``measure_along``: kNN masked and unmasked; parts of the
  hypergradient at ten checkpoints.
- ``wider_is_not_better.measure``: kNN on validation and test.
- ``mask_suppresses_nuisance.measure``: correlations of weights with nuisance and label, and kNN.
- ``natural.curve``: kNN on validation and on test along training, for the official protocol (the
  best epoch on test) beside the last step, and for how the curve goes on.
- ``natural.portrait``: mask weight, redundancy and deviation of every dimension; along training the
  spread of the mask, the norms of the hypergradient's parts and the losses.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab._encode import encode
from dimlab.datasets import load_images
from dimlab.images import SPLITS, ImageSet
from dimlab.io.files import locked
from dimlab.probes.correlate import correlate
from dimlab.probes.evaluate import evaluate
from dimlab.text import make_streams_readable
from dimlab.training.checkpoint import Checkpoint, load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import TrainingStopped
from study.families import FAMILIES
from study.rows import add_row, measure_name, read_rows
from study.search import TIMED, halving, seconds_per_step, validated, with_rows
from study.sweep import (
    Images,
    Measure,
    Row,
    Run,
    Study,
    content_hash,
    one_thread,
    stopping,
    timed_rows,
    trained,
)

if TYPE_CHECKING:
    from pandas import DataFrame

ROWS = Path(__file__).resolve().parents[1] / "results/natural/rows.jsonl"
GROUPS = (("simclr", "barlow-twins", "both"), ("joint", "first-order", "exact", "lookahead"))
# what is made first; a name of a script stands for the runs that no script before it asks for
ORDER = (
    GROUPS[0],  # its search, then its runs
    "some_dimensions_hurt",
    "redundancy_shrinks",
    "figures.networks",  # 64 dimensions, as wide as the supervised ones
    GROUPS[1],
    "risk_bound_orders",  # every family as it was chosen
    "second_order_matters",
    "metamask_beats_baselines",  # equal seconds, and the official trial step
    "wider_is_not_better",
    "mask_suppresses_nuisance",
)
_AGAIN = 30.0  # seconds until a process that finds nothing to begin looks again
_TAKEN = "another process is at this run"
_BANK = 10_000  # training images that vote along training
_PIECES = 10  # points along training


@dataclass(frozen=True)
class Planned:
    """A run, the study that it belongs to, and by name what is to be measured on it."""

    rank: int
    run: Run
    study: Study
    measures: dict[str, tuple[Measure, bool]]


@dataclass(frozen=True)
class _Planning(Study):
    """A study that notes what a script asks for, and trains nothing."""

    ready: frozenset[str] = frozenset()
    waiting: set[str] = field(default_factory=set)
    asked: list[tuple[Run, Measure, bool]] = field(default_factory=list)

    def runs(
        self, family: str, *, labels: Mapping[str, Any] | None = None, **changes: Any
    ) -> list[Run]:
        """Return the runs of a family; those of one that is not chosen yet are to wait."""
        runs = super().runs(family, labels=labels, **changes)
        if family not in self.ready:
            self.waiting.update(run.key for run in runs)
        return runs

    def table(self, runs: Any, measure: Measure, *, along: bool = False) -> DataFrame:
        """Note the runs and how they are measured."""
        import pandas as pd

        self.asked.extend((run, measure, along) for run in runs)
        return pd.DataFrame()


def plan(base: Study, path: Path) -> list[Planned]:
    """Return the runs that can be named by now, finished or not, in the order of `ORDER`.

    ``base`` has what a script's own study does not say: configuration, seeds and folder of images.
    """
    found: dict[str, Planned] = {}
    searched = with_rows(base, path)

    def add(rank: int, study: Study, asked: list[tuple[Run, Measure, bool]]) -> None:
        for run, measure, along in asked:
            first = found.setdefault(run.key, Planned(rank, run, study, {}))
            first.measures[measure_name(measure)] = measure, along

    for rank, stage in enumerate(ORDER):
        if isinstance(stage, tuple):
            for family in stage:
                runs = halving(searched, family)[0]
                add(rank, searched, [(run, validated, False) for run in runs])
            continue
        script: Any = importlib.import_module(str(stage))
        own = {name: getattr(script.NATURAL, name) for name in ("data", "called", "size")}
        study = replace(searched, **own)
        values = {each.name: getattr(study, each.name) for each in fields(Study)}
        noted = _Planning(**values, ready=_ready(study))
        script.run(noted)
        asked = [each for each in noted.asked if each[0].key not in noted.waiting]
        if stage == "risk_bound_orders":  # every family as it was chosen: described in full
            runs = [run for run, *_ in asked]
            asked += [(run, portrait, False) for run in runs]
            asked += [(run, curve, True) for run in runs]
        add(rank, study, asked)

    def turn(each: Planned) -> tuple[int, bool, int]:
        config = each.run.config
        # a search tries every family for a few steps before it trains any to the end
        return each.rank, each.study.config.steps == config.steps, config.seed

    return sorted(found.values(), key=turn)  # stable


def _ready(study: Study) -> frozenset[str]:
    """Return the families whose runs can be named: those of a group when all of it is chosen."""
    chosen = [group for group in GROUPS if set(group) <= set(study.chosen)]
    ready = {family for group in chosen for family in group}
    # a random mask is as spread as that of exact
    ready |= {
        name
        for name, known in FAMILIES.items()
        if known.like in ready and (not known.random_mask or "exact" in ready)
    }
    return frozenset(ready)


def portrait(checkpoint: Checkpoint, images: Images, device: str) -> Row:
    """Return what every dimension is like, and what moved along training."""
    test = encode(checkpoint, images("test"), device=device)
    redundancy = correlate(test, within=True, n_draws=2).redundancy
    metrics, trace = checkpoint.metrics, checkpoint.trace
    places = np.unique(np.linspace(0, len(metrics) - 1, _PIECES).round().astype(int))
    along: Row = {"at": [metrics[place]["step"] for place in places]}
    for name in ("contrastive", "invariance", "redundancy"):
        if name in metrics[0]:
            along[f"{name}_loss"] = _short([metrics[place][name] for place in places])
    if checkpoint.has_mask:
        along["mask_std"] = _short(trace.weights[1:][places].std(axis=1))
        for name in ("direct_norm", "second_order_norm"):
            along[name] = _short([metrics[place].get(name, 0.0) for place in places])
    return {
        **along,
        "redundancy": _short(redundancy),
        "deviation": _short(test.features.std(axis=0)),
        "mask": _short(checkpoint.mask.weights) if checkpoint.has_mask else None,
    }


def _short(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def curve(checkpoints: list[Checkpoint], images: Images, device: str) -> list[Row]:
    """Return kNN on validation and test along training, masked where the mask varies."""
    train = images("train")
    few = train.take(np.sort(np.random.default_rng(0).permutation(len(train))[:_BANK]))
    rows = []
    for checkpoint in checkpoints:
        bank, *others = (
            encode(checkpoint, each, device=device)
            for each in (few, images("validation"), images("test"))
        )
        if checkpoint.has_mask and np.ptp(checkpoint.mask.weights) > 0:
            bank, *others = (each.masked(checkpoint.mask) for each in (bank, *others))
        accuracy = [
            float(evaluate(bank, each, readers=("knn",), device=device).accuracy[0])
            for each in others
        ]
        rows.append({"at": checkpoint.step, "validation": accuracy[0], "test": accuracy[1]})
    return rows


def finish(planned: Planned, path: Path, images: Images, fingerprint: str) -> None:
    """Train a run from where it stands, measure it, and add its row."""
    from dimlab.report.provenance import environment

    run, study = planned.run, planned.study
    folder = study.folder / run.key
    begun = _step_of(folder / "checkpoint.pt")
    started = time.process_time()
    checkpoint = trained(study, run, folder, images)
    steps = checkpoint.step - begun
    step = (time.process_time() - started) / steps if steps else _recorded(checkpoint)
    measures, spent = {}, 0.0
    for name, (measure, along) in planned.measures.items():
        started = time.process_time()
        given: Any = checkpoint
        if along:
            given = [load_checkpoint(each) for each in sorted(folder.glob("checkpoint-*.pt"))]
        measured = measure(given, images, study.device)
        taken = time.process_time() - started
        spent += taken
        measures[name] = timed_rows(measured, step, step * checkpoint.step, taken)
    default = TrainConfig().to_dict()
    config = {name: value for name, value in run.config.to_dict().items() if value != default[name]}
    add_row(path, {
        "key": run.key, "labels": run.labels, "seed": run.config.seed, "config": config,
        "random_mask": run.random_mask, "data": run.data, "images": fingerprint,
        "seconds": {"train": round(step * checkpoint.step, 1), "measure": round(spent, 1)},
        "versions": checkpoint.versions, "environment": environment(), "measures": measures,
    })  # fmt: skip
    for each in folder.glob("checkpoint-*.pt"):  # those on the way are measured; the last stays
        each.unlink()


def _step_of(path: Path) -> int:
    return load_checkpoint(path).step if path.is_file() else 0


def _recorded(checkpoint: Checkpoint) -> float:
    return float(np.median([record["seconds"] for record in checkpoint.metrics]))


class Maker:
    """One process that makes runs until none is left, or it is stopped."""

    def __init__(self, base: Study, path: Path, *, only_idle: bool = False) -> None:
        self.base, self.path, self.only_idle = base, path, only_idle
        self.loaded: dict[tuple[str, str], ImageSet] = {}

    def make(self) -> int:
        """Make what is missing, one run after the other; return how many were made."""
        made = 0
        while True:
            finished = read_rows(self.path)
            planned = plan(self.base, self.path)
            left = [each for each in planned if each.run.key not in finished]
            untimed = TIMED not in finished and set(sum(GROUPS, ())) <= set(
                with_rows(self.base, self.path).chosen
            )
            if not left and not untimed:
                return made
            self._wait_until_idle()
            if (untimed and self._alone(self._time)) or any(
                self._alone(self._finish, each) for each in left
            ):
                made += 1
            else:  # another process is at all of them
                time.sleep(_AGAIN)

    def _wait_until_idle(self) -> None:
        while self.only_idle and os.getloadavg()[0] > (os.cpu_count() or 1) - 0.5:
            time.sleep(_AGAIN)

    def _alone(self, do: Any, *given: Any) -> bool:
        """Do what no other process is doing; return whether it was done here."""
        name = given[0].run.key if given else TIMED
        folder = self.base.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder, "making", refusal=_TAKEN):
                if name in read_rows(self.path):
                    return False
                do(*given)
        except OSError as error:
            if str(error) != _TAKEN:
                raise
            return False
        return True

    def _finish(self, planned: Planned) -> None:
        run = planned.run
        labels = ", ".join(f"{name} {value}" for name, value in run.labels.items())
        say(f"{run.key} {labels}, {run.config.steps} steps, {run.data}")
        started = time.monotonic()
        finish(planned, self.path, self._images(planned.study), self._fingerprint(planned.study))
        say(f"{run.key} finished after {(time.monotonic() - started) / 60:.1f} minutes")

    def _time(self) -> None:
        study = with_rows(self.base, self.path)
        taken = seconds_per_step(study, study.chosen)
        add_row(self.path, {"key": TIMED, TIMED.replace("-", "_"): taken})

    def _images(self, study: Study) -> Images:
        def load(split: str) -> ImageSet:
            place = str(study.data), split
            if place not in self.loaded:
                self.loaded[place] = load_images(place[0], split, data_dir=study.data_dir)
            return self.loaded[place]

        return load

    def _fingerprint(self, study: Study) -> str:
        """Return a hash of the images, which must be those of the finished runs."""
        images = self._images(study)
        parts = "".join(content_hash(images(split)) for split in SPLITS)
        here = hashlib.sha256(parts.encode()).hexdigest()[:16]
        there = {row["images"] for row in read_rows(self.path).values()
                 if row.get("data") == study.data_name}  # fmt: skip
        if there - {here}:
            raise ValueError(
                f"data-dir must hold the images of the finished runs ({', '.join(there)}); got "
                f"others ({here}). Convert them again as analyses/natural.md says."
            )
        return here


def say(words: str) -> None:
    """Write a line of the log, with the time."""
    print(time.strftime("%Y-%m-%d %H:%M:%S"), words, flush=True)


def main(arguments: list[str], base: Study | None = None) -> int:
    """Make runs, or list them; return 0 if none is left, 1 if stopped, 2 if the input is wrong."""
    words = (__doc__ or "").partition("\n\nA run is")[0]
    parser = argparse.ArgumentParser(prog="python -m study.natural", description=words)
    parser.add_argument("--data-dir", type=Path, help="the .npz file of CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("runs/natural"), help="for checkpoints")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of finished runs")
    parser.add_argument("--minutes", type=float, default=45.0, help="stop after so many")
    parser.add_argument("--only-idle", action="store_true",
                        help="begin a run only when a core is free")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what is finished and what is left")
    asked = parser.parse_args(arguments)
    make_streams_readable()
    base = replace(base or Study.natural(), data_dir=asked.data_dir, folder=asked.out)
    if asked.list:
        finished = read_rows(asked.rows)
        for each in plan(base, asked.rows):
            done = "finished" if each.run.key in finished else "left"
            labels = ", ".join(f"{name} {value}" for name, value in each.run.labels.items())
            print(each.run.key, done, each.run.config.steps, labels, *each.measures)
        return 0
    try:
        if not asked.minutes > 0:
            raise ValueError(f"minutes must be > 0; got {asked.minutes:g}.")
        if asked.data_dir is None:
            raise ValueError("data-dir must be the .npz file of CIFAR-10; got none.")
        with stopping(asked.minutes), one_thread("cpu"):
            made = Maker(base, asked.rows, only_idle=asked.only_idle).make()
    except (TrainingStopped, KeyboardInterrupt):
        print("stopped; what is done is kept, and the same command goes on.", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
    say(f"{made} runs made; none is left.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
