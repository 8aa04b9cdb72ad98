"""The demo: a nuisance that is known in advance, found, removed and reported, all in one run."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab._encode import encode
from dimlab._examine import examine
from dimlab.answers import ANSWERS, DimensionTable, dimension_table
from dimlab.datasets import digits
from dimlab.planted import coloured
from dimlab.probes.attribute import Attribution
from dimlab.probes.erase import Erasure
from dimlab.probes.follow import MaskEvolution
from dimlab.report import write_report
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train

Training = Callable[[int, int], AbstractContextManager[Callable[[dict[str, Any]], None]]]
Working = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

CORRELATION = 0.8  # of the hue with the digit, in the train split
STEPS = 200


def run_demo(folder: Path, seed: int, *, training: Training, working: Working) -> list[str]:
    """Train on digits with a planted hue, examine the features, report; return the headline."""
    # ``training`` and ``working`` make the context managers that show progress
    started = time.perf_counter()
    # colour jitter would teach the encoder to ignore the hue
    config = replace(TrainConfig.small(), seed=seed, steps=STEPS, jitter=0.0)
    images = coloured(digits("train"), correlation=CORRELATION)
    like_train = coloured(digits("validation"), correlation=CORRELATION)
    test = coloured(digits("test"), correlation=0.0)
    with training(config.steps, config.batch_size) as sink:
        checkpoint = train(config, images, out=folder, sink=sink)
    with working("encoding"):
        bank, held_out = encode(checkpoint, images), encode(checkpoint, like_train)
        queries = encode(checkpoint, test, n_views=2, seed=seed)
    bank.save(folder / "train.safetensors")
    queries.save(folder / "test.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page says what was not measured
        results = examine(
            bank, queries, in_distribution=held_out, trace=checkpoint.trace, mask=checkpoint.mask,
            n_permutations=200, seed=seed, working=working,
        )  # fmt: skip
    headline = headline_of(results)
    with working("writing the report"):
        write_report(
            folder,
            {"attribution": results["attribution"], **results, "training": checkpoint},
            title="dimlab demo: digits on a coloured background",
            headline=headline,
            not_measured=results.not_measured,
            provenance={
                "command": "dimlab demo",
                "seed": seed,
                "data": f"{images!r}, {like_train!r}, {test!r}",
                "labels_hash": images.labels_hash,
                **checkpoint.versions,
                "platform": sys.platform,
                "elapsed_seconds": round(time.perf_counter() - started, 1),
            },
        )
    return headline


def headline_of(results: Mapping[str, Any]) -> list[str]:
    """Tell the story of the hue in sentences, as it went in this run."""
    attribution: Attribution = results["attribution"]
    erasure = attribution.erasure
    told = [] if erasure is None else [_planted(erasure)]
    told.append(_found(attribution))
    told += [] if erasure is None else [_removed(erasure)]
    return [*told, _answered(dimension_table(results)), _learned(results["mask_evolution"])]


def _planted(erasure: Erasure) -> str:
    accuracy = dict(
        zip(erasure.splits, erasure.accuracy[erasure.ways.index("nothing")], strict=True)
    )
    return (
        "The problem, known in advance: the digits stand on a coloured background, whose hue "
        "follows the digit in the train split and nothing in the test split. A probe classifier "
        f"({erasure.reader} regression) of the trained features reads "
        f"{accuracy['in distribution']:.0%} of new digits coloured like those of train, but "
        f"{accuracy['test']:.0%} of the test digits."
    )


def _found(attribution: Attribution) -> str:
    """Say which dimensions carry the hue, and how little the crops leave beside it."""
    if attribution.leading_factor is None:
        return "Found: no dimension is shown to carry a factor beside the label."
    factor = attribution.factors.index(attribution.leading_factor)
    crops = [name.startswith("crop") for name in attribution.factors]
    return (
        f"Found: {int(attribution.flagged.sum())} of {len(attribution)} dimensions carry "
        f"{attribution.leading_factor} beside the label (q <= 0.05), and for "
        f"{attribution.verdicts().count('nuisance')} it explains more than the label does: up to "
        f"{np.nanmax(attribution.effect[:, factor]):.0%} of a dimension's variance given the label "
        f"(parameters of the crops: at most {np.nanmax(attribution.effect[:, crops]):.0%})."
    )


def _removed(erasure: Erasure) -> str:
    """Say what is left of the factor without its directions, and what the task gains."""
    whole, without = (erasure.ways.index(way) for way in ("nothing", "directions"))
    control = erasure.ways.index("random directions")
    change, low, high = erasure.accuracy_change[without, 0]
    return (
        f"Removed: without {len(erasure.directions)} principal directions the R^2 of "
        f"{erasure.factor} falls from {erasure.factor_r_squared[whole, 0]:.2f} to "
        f"{erasure.factor_r_squared[without, 0]:.2f}, and the classifier reads "
        f"{erasure.accuracy[without, 0]:.0%} of the test digits, {100 * change:+.1f} percentage "
        f"points [{100 * low:+.1f}, {100 * high:+.1f}]. As many random directions change it by "
        f"{100 * erasure.accuracy_change[control, 0, 0]:+.1f}."
    )


def _answered(table: DimensionTable) -> str:
    counts = {kind: len(table.dimensions_of(kind)) for kind in ANSWERS}
    given = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"One answer for each of the {len(table)} dimensions: {given}."


def _learned(evolution: MaskEvolution) -> str:
    """Say how far the mask moved, and whether it ended where the paper's claims say it should."""
    if not evolution.moved:
        return "The learned mask did not move."
    final = evolution.weights[-1]
    parts = [f"{name}: {verdict}" for name, verdict in evolution.verdicts.items()]
    return (
        f"The learned mask moved (weights from {final.min():.2f} to {final.max():.2f}). Does it "
        f"know? Against what the paper's claims expect, {'; '.join(parts)}."
    )
