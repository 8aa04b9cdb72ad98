"""Runs of a study: trained once, measured once, kept, and spread over processes."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from dimlab.datasets import load_images
from dimlab.images import SPLITS, ImageSet
from dimlab.io.files import replacing
from dimlab.processes import current_world, wait_for_all
from dimlab.training.augment import VERSION as AUGMENTATION
from dimlab.training.checkpoint import Checkpoint, load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.step import VERSION as TRAINING
from study.families import FAMILIES
from study.rows import measure_name, read_rows

if TYPE_CHECKING:
    from pandas import DataFrame

Images = Callable[[str], ImageSet]
Data = str | Images | Mapping[str, ImageSet]
Row = dict[str, Any]
Measure = Callable[[Any, Images, str], "Row | list[Row]"]
Trainer = Callable[..., Checkpoint]

EQUAL = 0.1  # seconds a step that differ by no more than this share are taken to be the same
SECONDS = ("train_seconds", "measure_seconds")
_TRAINERS: WeakKeyDictionary[Trainer, str] = WeakKeyDictionary()  # names that live with them


class OutOfTime(InterruptedError):
    """The minutes are over; the message says how many runs are done, and how to go on."""


class Stopped(KeyboardInterrupt):
    """A signal came, or the minutes are over."""


@dataclass(frozen=True)
class Run:
    """One training of ``config`` on the data set ``data``; ``labels`` are columns of its rows.

    ``random_mask`` is the standard deviation of the logits of a mask that is drawn once and never
    moves.
    """

    config: TrainConfig
    data: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    random_mask: float = 0.0

    @property
    def key(self) -> str:
        """Return the name of its folder: equal for equal trainings."""
        versions = {"augmentation": AUGMENTATION, "training": TRAINING}
        config = self.config.to_dict()
        if config["meta_every"] == 1:  # runs from before there was this field keep their names
            del config["meta_every"]
        return _hash([config, self.data, self.random_mask, versions])


@dataclass(frozen=True)
class Study:
    """Where, on what and how long a claim is tested.

    ``data`` names a data set as `load_images` takes it, or gives images of one's own by the name of
    the split, as a function or a mapping. ``chosen`` holds the fields that the search chose, by
    family. ``folder`` keeps every run, for every script that asks for the same one. Each of the
    ``n_jobs`` processes trains with one thread; no run begins after ``time.monotonic()`` passes
    ``until``. ``trainer`` stands in the place of `dimlab.train`; another process does not find what
    it trained. ``called`` names the data in keys and results, where the name that loads it does not
    say what it is. With ``rows``, a file of finished runs (see `study.rows`), tables are made of it
    and nothing is trained.
    """

    data: Data
    config: TrainConfig
    seeds: Sequence[int]
    size: str = "small"
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Path = Path("runs")
    n_jobs: int = 1
    until: float = float("inf")
    device: str = "cpu"
    data_dir: Path | None = None
    trainer: Trainer | None = None
    quiet: bool = True
    called: str = ""
    rows: Path | None = None

    @classmethod
    def small(cls, data: str = "digits", **changes: Any) -> Study:
        """Return the study of the test suite: three seeds, some seconds, always undecided."""
        config = replace(TrainConfig.small(), steps=40, batch_size=64, trace_every=10)
        return cls(data, replace(config, **changes), (0, 1, 2), n_jobs=2)

    @classmethod
    def medium(cls, data: str = "fashion-mnist", **changes: Any) -> Study:
        """Return the study of the table: the small convnet, five seeds, 1,000 steps of 128."""
        config = replace(
            TrainConfig.medium(), batch_size=128, checkpoint_every=1000, trace_every=20
        )
        return cls(data, replace(config, **changes), tuple(range(5)), "medium", n_jobs=2)

    @classmethod
    def natural(cls, planted: str = "", **changes: Any) -> Study:
        """Return the study on natural images: CIFAR-10, the convnet with D = 256, 4,000 steps.

        ``planted`` is a factor to plant, as `load_images` takes it behind the data set's name.
        """
        config = replace(
            TrainConfig.medium(), n_dimensions=256, steps=4000, batch_size=128,
            checkpoint_every=400, keep_checkpoints=True, trace_every=40,
        )  # fmt: skip
        return cls(
            f"npz{planted}", replace(config, **changes), tuple(range(5)), "natural",
            called=f"cifar10-jpeg{planted}",
        )  # fmt: skip

    @classmethod
    def paper(cls, data: str = "cifar10", **changes: Any) -> Study:
        """Return the study at the paper's size, for GPUs: ResNet-18, 800 epochs, five seeds."""
        # validation is read by what measures, not along training
        config = replace(TrainConfig.official(), validate_every=0)
        return cls(data, replace(config, **changes), tuple(range(5)), "paper")

    @cached_property
    def data_name(self) -> str:
        """Return the name of the data set; one made of their content for images of one's own."""
        if self.called or isinstance(self.data, str):
            return self.called or str(self.data)
        splits = {split: self.images(split) for split in SPLITS}
        return f"given-{_hash({name: content_hash(each) for name, each in splits.items()})[:12]}"

    @cached_property
    def n_steps(self) -> int:
        """Return the steps of a run of the configuration on the training images."""
        config = self.config  # images are loaded only where they are needed
        return config.n_steps(len(self.images("train"))) if config.epochs else config.steps

    def images(self, split: str) -> ImageSet:
        """Load a split of the data."""
        if isinstance(self.data, str):
            return load_images(self.data, split, data_dir=self.data_dir)
        return self.data(split) if callable(self.data) else self.data[split]

    def with_search(self, path: str | Path) -> Study:
        """Return the study with what the search chose for each family, from its file."""
        from study.search import read_search

        return replace(self, chosen=read_search(Path(path)))

    def runs(
        self, family: str, *, labels: Mapping[str, Any] | None = None, **changes: Any
    ) -> list[Run]:
        """Return one run a seed of a family, with what the search chose and ``changes`` to it."""
        known = FAMILIES[family]
        choice = self.chosen.get(known.like or known.name, {})
        choice = {
            name: each for name, each in choice.items() if name in TrainConfig.__annotations__
        }
        config = replace(self.config, **{**choice, **known.fixed, **changes})
        spread = self.chosen.get("exact", {}).get("mask_spread", 1.0) if known.random_mask else 0.0
        return [
            Run(
                replace(config, seed=seed), self.data_name,
                {"family": family, **(labels or {}), "seed": seed}, spread,
            )
            for seed in self.seeds
        ]  # fmt: skip

    def steps_at_equal_seconds(self, family: str, *, reference: str = "both") -> int | None:
        """Return how many steps of a family take the reference's seconds; None without a search.

        Where that is within a tenth of the study's own steps, it is these: no timing is better.
        """
        own, other = (
            self.chosen.get(FAMILIES[each].like or each, {}).get("seconds_per_step")
            for each in (family, reference)
        )
        if own is None or other is None:
            return None
        if abs(other / own - 1) <= EQUAL:
            return self.n_steps
        return max(1, round(self.n_steps * other / own))

    def table(self, runs: Sequence[Run], measure: Measure, *, along: bool = False) -> DataFrame:
        """Train and measure what is not kept yet, and return one row (or several) a run.

        ``measure(checkpoint, images, device)`` returns a dict of plain values or a list of them;
        ``images`` is a function of the split's name. With ``along`` it gets the list of checkpoints
        that a run kept on its way instead (``keep_checkpoints``). Its rows are kept under its name
        and a hash of the file that it is written in, so that after an edit it measures again.

        Columns: the run's labels, ``step_seconds`` (median of the recorded steps),
        ``train_seconds`` and ``measure_seconds`` (each row's share; 0 where an earlier row is of
        the same run), then what was measured. ``attrs["environments"]`` lists where runs were made.
        """
        from joblib import Parallel, delayed

        from dimlab.terminal import progress

        if self.rows is not None:
            return self._of_finished(runs, measure_name(measure))
        written_in = "".join(inspect.findsource(measure)[0])
        name = f"{measure.__name__}-{_hash(written_in)[:8]}.json"
        place = self._place()
        folders = [self._folder(run, place) for run in runs]
        jobs = {
            folder: run
            for run, folder in zip(runs, folders, strict=True)
            if _kept(folder / name) is None
        }
        n_runs = len(set(folders))  # two labels may ask for the same one

        def in_time() -> Iterator[Any]:
            for run in jobs.values():
                if time.monotonic() > self.until:
                    return
                yield delayed(_trained_and_measured)(self, run, place, measure, name, along)

        with progress(f"{len(jobs)} of {n_runs} runs", quiet=self.quiet) as advance:
            done = 0
            pool = Parallel(
                n_jobs=self.n_jobs,
                return_as="generator_unordered",
                pre_dispatch="1*n_jobs",
                batch_size=1,
            )
            for _ in pool(in_time()):
                done += 1
                advance(done, len(jobs))
        if done < len(jobs):
            raise OutOfTime(
                f"{n_runs - len(jobs) + done} of {n_runs} runs are done and kept in "
                f"{self.folder}; the same command goes on."
            )
        return _table(runs, folders, [
            _kept(folder / name) or {"rows": [], "environment": {}} for folder in folders
        ])  # fmt: skip

    def _of_finished(self, runs: Sequence[Run], measured: str) -> DataFrame:
        """Return the table of runs that are finished and measured in ``rows``."""
        assert self.rows is not None
        finished = read_rows(self.rows)
        keys = [run.key for run in runs]
        kept = [finished.get(key, {"measures": {}}) for key in keys]
        missing = {
            key for key, each in zip(keys, kept, strict=True) if measured not in each["measures"]
        }
        if missing:
            raise OutOfTime(
                f"{len(set(keys) - missing)} of {len(set(keys))} runs are finished in {self.rows}; "
                "python -m study.natural, in analyses/, makes the others."
            )
        return _table(
            runs, keys,
            [{"rows": each["measures"][measured], "environment": each["environment"]}
             for each in kept],
        )  # fmt: skip

    def _place(self) -> tuple[str, ...]:
        """Return what is not the default of a machine, as a part of the names of runs."""
        place = [self.device.partition(":")[0]] if self.device != "cpu" else []
        if self.data_dir is not None and isinstance(self.data, str):
            # what lies there may change, in any split: validation chooses
            place += [content_hash(self.images(split)) for split in SPLITS]
        if self.trainer is not None:
            place.append(_TRAINERS.setdefault(self.trainer, uuid.uuid4().hex))
        return tuple(place)

    def _folder(self, run: Run, place: tuple[str, ...]) -> Path:
        return self.folder / (_hash([run.key, *place]) if place else run.key)


def _table(runs: Sequence[Run], same: Sequence[Any], kept: Sequence[dict[str, Any]]) -> DataFrame:
    """Put the rows of runs together; of two that are the same, the second took no time."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    environments: list[dict[str, Any]] = []
    for number, (run, each) in enumerate(zip(runs, kept, strict=True)):
        again = dict.fromkeys(SECONDS, 0.0) if same[number] in same[:number] else {}
        rows += [{**run.labels, **row, **again} for row in each["rows"]]
        if each["environment"] not in environments:
            environments.append(each["environment"])
    table = pd.DataFrame(rows)
    table.attrs["environments"] = environments
    return table


def _kept(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _trained_and_measured(
    study: Study, run: Run, place: tuple[str, ...], measure: Measure, name: str, along: bool
) -> None:
    """Take one run to its end, in a process of its own, or in all of ``torchrun``'s together."""
    world, folder = current_world(), study._folder(run, place)
    with one_thread(study.device):
        images = _images_of(study, place)
        checkpoint = trained(study, run, folder, images)
        given: Any = checkpoint
        if along:
            given = [load_checkpoint(path) for path in sorted(folder.glob("checkpoint-*.pt"))]
        started = time.monotonic()
        # every process measures, as `encode` shares the images among them all
        measured = measure(given, images, study.device)
        taken = time.monotonic() - started
        if world.rank == 0:
            _write(folder / name, checkpoint, measured, taken)
    wait_for_all(world)


def _write(path: Path, checkpoint: Checkpoint, measured: Row | list[Row], seconds: float) -> None:
    from dimlab.report.provenance import environment

    taken = [record["seconds"] for record in checkpoint.metrics]
    step = float(np.median(taken)) if taken else 0.0
    rows = timed_rows(measured, step, step * checkpoint.step, seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"environment": environment(), "rows": rows}
    with replacing(path) as whole:
        whole.write_text(json.dumps(kept, default=float), encoding="utf-8")


def timed_rows(measured: Row | list[Row], step: float, train: float, measure: float) -> list[Row]:
    """Put seconds before what was measured: of a step, and each row's share of the rest."""
    rows = measured if isinstance(measured, list) else [measured]
    share = max(len(rows), 1)
    times = {
        "step_seconds": step, "train_seconds": train / share, "measure_seconds": measure / share
    }  # fmt: skip
    return [{**times, **each} for each in rows]


def trained(study: Study, run: Run, folder: Path, images: Images) -> Checkpoint:
    """Return the checkpoint at the end of a run, which is trained from where it stands."""
    from dimlab.training.loop import train, untrained

    path = folder / "checkpoint.pt"
    kept = load_checkpoint(path) if path.is_file() else None
    if kept is not None and kept.step == run.config.n_steps(kept.data["n_images"]):
        return kept
    if kept is None and run.random_mask:
        kept = untrained(run.config, images("train"))
        drawn = np.random.default_rng([run.config.seed, 7]).normal(size=len(kept.mask_logits))
        logits = kept.mask_logits.new_tensor(run.random_mask * drawn)
        kept = replace(kept, mask_logits=logits)
    trainer = study.trainer or train
    return trainer(run.config, images("train"), out=folder, resume=kept, device=study.device)


@lru_cache(maxsize=8)
def _loaded(data: str, split: str, data_dir: Path | None, place: tuple[str, ...]) -> ImageSet:
    return load_images(data, split, data_dir=data_dir)


def _images_of(study: Study, place: tuple[str, ...]) -> Images:
    """Return images by split, loaded once a process and content: ``place`` says what lies there."""
    if not isinstance(study.data, str):
        return lru_cache(maxsize=None)(study.images)
    data, folder = study.data, study.data_dir
    return lambda split: _loaded(data, split, folder, place)


def content_hash(images: ImageSet) -> str:
    """Return a hash of everything of a split that a training or a measurement can see."""
    digest = hashlib.sha256()
    parts = {"images": images.images, "labels": images.labels, **images.factors}
    for name, values in parts.items():
        rows = np.asarray(values)
        digest.update(f"{name} {rows.shape} {rows.dtype}".encode())
        digest.update(
            np.ascontiguousarray(rows).tobytes()
            if rows.dtype != object
            else repr(rows.tolist()).encode()
        )
    return digest.hexdigest()[:16]


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Make a CPU run's numbers the same for any number of processes."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    # numpy's and scikit-learn's threads too: beside another process they wait for each other
    with threadpool_limits(1 if device == "cpu" else None):
        if device == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def stopping(minutes: float) -> Iterator[None]:
    """Stop after the minutes as a signal does; a training takes the signal and saves itself."""

    def stop(*_: Any) -> None:
        raise Stopped

    def over(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
