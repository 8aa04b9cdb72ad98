"""The search: a choice for each family, on the validation split, once.

At the medium size eight configurations a family are trained to the end, in one seed. At the natural
size `N_FIRST` of them are trained for a quarter of the steps, and the best two of these to the end
in two seeds, whatever the family. The better mean is the choice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab._encode import encode
from dimlab.io.files import replacing
from dimlab.probes.evaluate import evaluate
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.step import Record
from study.families import FAMILIES, FIELDS, Family, tried_configurations
from study.rows import read_rows
from study.sweep import AUGMENTATION, Images, OutOfTime, Run, Study, one_thread

SEED = 1000  # of the search's runs; no study uses it
# what `--vary` changes, after the search: the values, and the families that have the knob
VARIED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trial_step": (("plain", "optimiser"), ("first-order", "exact")),
}
VARIED_SEEDS = (1000, 1001, 1002)
N_FIRST, N_BEST, FIRST_SHARE = 6, 2, 4  # of the natural size: tried, kept on, the share's inverse
BEST_SEEDS = (1000, 1001)
TIMED = "seconds-per-step"  # key of the line that has them, among finished runs
_ROUNDS, _TIMED = 5, 12  # of the timing: alternating rounds, steps in each


def validated(checkpoint: Checkpoint, images: Images, device: str) -> dict[str, Any]:
    """Measure what a choice rests on: validation accuracy, masked where a mask is learned."""
    train, held = (
        encode(checkpoint, images(split), device=device) for split in ("train", "validation")
    )
    if checkpoint.has_mask:
        train, held = train.masked(checkpoint.mask), held.masked(checkpoint.mask)
    accuracy = evaluate(train, held, readers=("knn", "ridge"), device=device).accuracy
    return {
        "accuracy": float(accuracy[0]),
        "ridge": float(accuracy[1]),
        "mask_spread": float(np.std(checkpoint.mask_logits.double().numpy())),  # of the logits
    }


def search(study: Study, families: Sequence[str]) -> dict[str, Any]:
    """Try every family's configurations and choose the best on validation.

    The result has, by family, ``chosen`` (fields that were drawn), ``accuracy``, ``mask_spread``,
    ``seconds_per_step`` (measured side by side, alternating, one thread), and ``tried``, all that
    were tried with their accuracies. The study's seeds and choices are not used.
    """
    runs = []
    for family in families:
        for place, config in enumerate(tried_configurations(FAMILIES[family], study.config)):
            labels = {"family": family, "place": place}
            runs.append(Run(replace(config, seed=SEED), study.data_name, labels))
    table = study.table(runs, validated)
    found: dict[str, Any] = {}
    for family, rows in table.groupby("family", sort=False):
        tried = [
            _drawn(FAMILIES[str(family)], runs[place])
            | {name: float(rows.loc[place, name]) for name in ("accuracy", "ridge", "mask_spread")}
            for place in rows.index
        ]
        best = max(tried, key=lambda each: each["accuracy"])
        chosen = {name: best[name] for name in _drawn(FAMILIES[str(family)], runs[0])}
        found[str(family)] = {
            "chosen": chosen, "accuracy": best["accuracy"], "mask_spread": best["mask_spread"],
            "tried": tried,
        }  # fmt: skip
    for family, seconds in seconds_per_step(
        study, {name: each["chosen"] for name, each in found.items()}
    ).items():
        found[family]["seconds_per_step"] = seconds
    return found


def halving(study: Study, family: str) -> tuple[list[Run], dict[str, Any] | None]:
    """Return the runs of a family's search at the natural size, and its result when all are there.

    The runs are those that the finished ones in ``study.rows`` lead to: first six for a quarter of
    the steps, then those of the best two. The result is as `search` gives it, and has ``again``:
    for each of the two what was drawn, and the mean over seeds.
    """
    known = FAMILIES[family]
    tried = tried_configurations(known, study.config)[:N_FIRST]
    tried = [replace(each, keep_checkpoints=False) for each in tried]
    few = study.config.steps // FIRST_SHARE
    first = [
        _searched(study, family, place, replace(each, steps=few, seed=SEED))
        for place, each in enumerate(tried)
    ]
    measured = _measured(study, first)
    if measured is None:
        return first, None
    order = sorted(range(N_FIRST), key=lambda place: -measured[place]["accuracy"])  # stable
    best = sorted(order[:N_BEST])
    runs = [
        _searched(study, family, place, replace(tried[place], seed=seed))
        for seed in BEST_SEEDS
        for place in best
    ]
    again = _measured(study, runs)
    if again is None:
        return [*first, *runs], None
    means = [
        _drawn(known, runs[number])
        | {name: float(np.mean([each[name] for each in again[number::N_BEST]]))
           for name in ("accuracy", "ridge", "mask_spread")}
        for number in range(N_BEST)
    ]  # fmt: skip
    winner = max(means, key=lambda each: each["accuracy"])
    return [*first, *runs], {
        "chosen": {name: winner[name] for name in _drawn(known, first[0])},
        "accuracy": winner["accuracy"], "mask_spread": winner["mask_spread"],
        "tried": [_drawn(known, run) | each for run, each in zip(first, measured, strict=True)],
        "again": means,
    }  # fmt: skip


def _searched(study: Study, family: str, place: int, config: TrainConfig) -> Run:
    labels = {"family": family, "place": place, "seed": config.seed}
    return Run(config, study.data_name, labels)


def _measured(study: Study, runs: Sequence[Run]) -> list[dict[str, float]] | None:
    """Return what the finished runs' validation gave; None as long as one is missing."""
    try:
        table = study.table(runs, validated)
    except OutOfTime:
        return None
    names = ["accuracy", "ridge", "mask_spread"]
    return [{name: float(row[name]) for name in names} for row in table[names].to_dict("records")]


def with_rows(study: Study, path: Path) -> Study:
    """Return the study of finished runs, with the choice of each family whose search is there."""
    # what is planted is not searched: one choice for all
    study = replace(study, rows=path)
    plain = replace(study, called=study.data_name.partition("+")[0])
    seconds = read_rows(path).get(TIMED, {}).get("seconds_per_step", {})
    chosen = {}
    for family, known in FAMILIES.items():
        found = halving(plain, family)[1] if known.knobs else None
        if found is not None:
            timed = {"seconds_per_step": seconds[family]} if family in seconds else {}
            chosen[family] = {**found["chosen"], "mask_spread": found["mask_spread"], **timed}
    return replace(study, chosen=chosen)


def vary(study: Study, knob: str) -> dict[str, Any]:
    """Change one knob of `VARIED` around what the search chose, and measure on validation.

    The result has ``values``, ``seeds``, ``accuracy`` (by family, for each value a list of one
    number a seed) and the ``environment`` of the runs. The study's seeds are not used.
    """
    values, families = VARIED[knob]
    study = replace(study, seeds=VARIED_SEEDS)
    runs = [
        run
        for family in families
        for value in values
        for run in study.runs(family, labels={"value": value}, **{knob: value})
    ]
    table = study.table(runs, validated)
    return {
        "values": list(values),
        "seeds": list(study.seeds),
        "accuracy": {
            str(family): [
                rows[rows["value"] == value].sort_values("seed")["accuracy"].tolist()
                for value in values
            ]
            for family, rows in table.groupby("family", sort=False)
        },
        "environment": table.attrs["environments"][0],
    }


def _drawn(family: Family, run: Run) -> dict[str, Any]:
    names = [FIELDS.get(knob, knob) for knob in family.knobs]
    return {name: getattr(run.config, name) for name in names}


def seconds_per_step(study: Study, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the median seconds of a step (CPU time on a CPU), families alternating."""
    from dimlab.training.loop import train

    images = study.images("train")
    taken: dict[str, list[float]] = {family: [] for family in chosen}
    clock = time.process_time if study.device == "cpu" else time.perf_counter
    with one_thread(study.device):
        for _ in range(_ROUNDS):
            for family, each in chosen.items():
                drawn = {n: v for n, v in each.items() if n in TrainConfig.__annotations__}
                config = replace(
                    study.config, **{**drawn, **FAMILIES[family].fixed, "steps": _TIMED}
                )
                ends: list[float] = []

                def note(_: Record, ends: list[float] = ends) -> None:
                    ends.append(clock())

                train(config, images, device=study.device, sink=note)
                taken[family] += np.diff(ends[1:]).tolist()
    return {family: float(np.median(seconds)) for family, seconds in taken.items()}


def read_search(path: Path) -> dict[str, dict[str, Any]]:
    """Read what a search chose, by family, as `Study` takes it."""
    if not path.is_file():
        raise FileNotFoundError(f"search must be done first; got no {path}. Run with --search.")
    found = json.loads(path.read_text(encoding="utf-8"))["families"]
    return {
        family: {
            **each["chosen"],
            "mask_spread": each["mask_spread"],
            "seconds_per_step": each["seconds_per_step"],
        }
        for family, each in found.items()
    }


def write_search(path: Path, study: Study, found: dict[str, Any], *, started: float) -> None:
    """Write what a search tried and chose since ``started``, beside what other searches found."""
    from dimlab.report.provenance import environment

    known = json.loads(path.read_text(encoding="utf-8"))["families"] if path.is_file() else {}
    payload = {
        "data": study.data_name, "split": "validation", "seed": SEED, "steps": study.n_steps,
        "batch_size": study.config.batch_size, "seconds": round(time.monotonic() - started, 1),
        "augmentation": AUGMENTATION, "environment": environment(), "families": {**known, **found},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, payload)


def write_varied(path: Path, knob: str, varied: dict[str, Any]) -> None:
    """Write what `vary` returned into ``search.json``."""
    found = json.loads(path.read_text(encoding="utf-8"))
    found["varied"] = {**found.get("varied", {}), knob: varied}
    _replace(path, found)


def _replace(path: Path, payload: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")
