"""The search: eight configurations a family, on the validation split, once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.atomic import replacing
from dimlab.encode import encode
from dimlab.mask import DimensionMask
from dimlab.probes.evaluate import evaluate
from dimlab.study.families import FAMILIES, FIELDS, Family, tried_configurations
from dimlab.study.sweep import AUGMENTATION, Images, Run, Study
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.step import Record

SEED = 1000  # of the search's runs; no study uses it
# what `--vary` changes, after the search: the values, and the families that have the knob
VARIED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "trial_step": (("plain", "optimiser"), ("first-order", "exact")),
}
VARIED_SEEDS = (1000, 1001, 1002)
_ROUNDS, _TIMED = 5, 12  # of the timing: alternating rounds, steps in each


def validated(checkpoint: Checkpoint, images: Images, device: str) -> dict[str, Any]:
    """Measure what a choice rests on: kNN on the validation split, masked where a mask is learned.

    Parameters
    ----------
    checkpoint : Checkpoint
        A run.
    images : callable
        Of the split's name.
    device : str
        Where to encode.

    Returns
    -------
    dict
        ``accuracy`` of kNN, ``ridge``, and ``mask_spread``: the standard deviation of the logits.
    """
    train, held = (
        encode(checkpoint, images(split), device=device) for split in ("train", "validation")
    )
    mask: DimensionMask | None = checkpoint.mask if checkpoint.has_mask else None
    used = (train, held) if mask is None else (train.masked(mask), held.masked(mask))
    accuracy = evaluate(*used, readers=("knn", "ridge"), device=device).accuracy
    return {
        "accuracy": float(accuracy[0]),
        "ridge": float(accuracy[1]),
        "mask_spread": float(np.std(checkpoint.mask_logits.double().numpy())),
    }


def search(study: Study, families: Sequence[str]) -> dict[str, Any]:
    """Try every family's configurations and choose the best on validation.

    Parameters
    ----------
    study : Study
        Data, steps, processes; its seeds and its choices are not looked at.
    families : sequence of str
        Of `FAMILIES`, those with knobs of their own.

    Returns
    -------
    dict
        By family: ``chosen`` (fields that were drawn), ``accuracy``, ``mask_spread``,
        ``seconds_per_step`` (measured side by side, alternating, one thread), and ``tried``, the
        list of all that were tried with their accuracies.

    Raises
    ------
    OutOfTime
        If the minutes are over; what is done is kept.
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
    for family, seconds in _seconds_per_step(study, found).items():
        found[family]["seconds_per_step"] = seconds
    return found


def vary(study: Study, knob: str) -> dict[str, Any]:
    """Change one knob of what the search chose, on validation: how much does it matter.

    Parameters
    ----------
    study : Study
        With ``chosen``; its seeds are not looked at.
    knob : str
        Of `VARIED`, which names its values and the families that have it.

    Returns
    -------
    dict
        ``values``, ``seeds``, ``accuracy`` (by family, a list of one number a seed for each value)
        and ``environment`` of the runs.

    Raises
    ------
    OutOfTime
        If the time is over; what is done is kept.
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

    return {
        FIELDS.get(knob, knob): getattr(run.config, FIELDS.get(knob, knob)) for knob in family.knobs
    }


def _seconds_per_step(study: Study, found: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a step, families alternating so that all feel the machine the same."""
    from dimlab.study.sweep import one_thread
    from dimlab.training.loop import train

    images = study.images("train")
    taken: dict[str, list[float]] = {family: [] for family in found}
    with one_thread(study.device):
        for _ in range(_ROUNDS):
            for family, each in found.items():
                config = replace(
                    study.config, **{**each["chosen"], **FAMILIES[family].fixed, "steps": _TIMED}
                )
                records: list[Record] = []
                train(config, images, device=study.device, sink=records.append)
                taken[family] += [record["seconds"] for record in records[2:]]
    return {family: float(np.median(seconds)) for family, seconds in taken.items()}


def read_search(path: Path) -> dict[str, dict[str, Any]]:
    """Read what a search chose.

    Parameters
    ----------
    path : Path
        ``search.json``.

    Returns
    -------
    dict of str to dict
        Fields of `TrainConfig` by family, with ``mask_spread`` and ``seconds_per_step``, as
        `Study` takes them.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
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
    """Write what a search tried and chose, beside what it knew of other families.

    Parameters
    ----------
    path : Path
        ``search.json``.
    study : Study
        What it was done on.
    found : dict
        As `search` returns.
    started : float
        ``time.monotonic()`` of the start.
    """
    from dimlab.report.provenance import environment

    known = json.loads(path.read_text(encoding="utf-8"))["families"] if path.is_file() else {}
    payload = {
        "data": study.data_name, "split": "validation", "seed": SEED, "steps": study.n_steps,
        "batch_size": study.config.batch_size, "seconds": round(time.monotonic() - started, 1),
        "augmentation": AUGMENTATION, "environment": environment(), "families": {**known, **found},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(payload, indent=1) + "\n", encoding="utf-8")


def write_varied(path: Path, knob: str, varied: dict[str, Any]) -> None:
    """Write what varying a knob gave, beside what the search chose.

    Parameters
    ----------
    path : Path
        ``search.json``, which is there.
    knob : str
        What was varied.
    varied : dict
        As `vary` returns.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    found["varied"] = {**found.get("varied", {}), knob: varied}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
