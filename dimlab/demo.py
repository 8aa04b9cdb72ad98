"""The demo: digits from images to report, with every number measured in the run itself."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dimlab._encode import encode
from dimlab.baselines import BaselineComparison, evaluate_baselines
from dimlab.datasets import digits
from dimlab.mask import MaskTrace
from dimlab.probes.ablate import Ablation, ablate
from dimlab.probes.attribute import Attribution, attribute
from dimlab.probes.bound_risk import RiskBound, bound_risk
from dimlab.probes.correlate import Correlation, correlate
from dimlab.probes.decompose import Spectrum, decompose
from dimlab.probes.find_redundancy import Redundancy, find_redundancy
from dimlab.probes.follow import MaskEvolution, follow
from dimlab.report import write_report
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train

Training = Callable[[int, int], AbstractContextManager[Callable[[dict[str, Any]], None]]]
Working = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def run_demo(folder: Path, seed: int, *, training: Training, working: Working) -> list[str]:
    """Train on digits, evaluate, run the probes, and write the report; return its headline."""
    # ``training`` and ``working`` make the context managers that show progress
    started = time.perf_counter()
    config = replace(TrainConfig.small(), seed=seed)
    images, held_out = digits("train"), digits("test")
    with training(config.steps, config.batch_size) as sink:
        checkpoint = train(config, images, out=folder, sink=sink)
    with working("evaluating") as advance:
        comparison = evaluate_baselines([checkpoint], images, held_out, seed=seed, progress=advance)
    bank, queries = encode(checkpoint, images), encode(checkpoint, held_out, n_views=2, seed=seed)
    bank.save(folder / "train.safetensors")
    queries.save(folder / "test.safetensors")
    ablations = {}
    for reader in ("knn", "ridge"):
        with working(f"ablating, {reader} reader") as advance:
            ablations[reader] = ablate(bank, queries, reader=reader, seed=seed, progress=advance)
    with working("correlating") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summaries name dead dimensions
        correlation = correlate(queries, seed=seed, progress=advance)
        spectrum = decompose(queries, seed=seed)
        redundancy = find_redundancy(queries, seed=seed)
    with working("attributing") as advance:
        attribution = attribute(
            bank, queries.per_view(), n_permutations=200, ablation=ablations["ridge"],
            trace=checkpoint.trace, seed=seed, progress=advance,
        )  # fmt: skip
    evolution = follow(
        checkpoint.trace, ablation=ablations["ridge"], redundancy=redundancy,
        attribution=attribution, seed=seed,
    )  # fmt: skip
    with working("bounding the risk") as advance:
        bound = bound_risk(queries, mask=checkpoint.mask, seed=seed, progress=advance)
    headline = _headline(comparison, ablations, checkpoint.trace)
    headline.append(_redundant(correlation, spectrum, redundancy))
    headline += [_carried(attribution), _known(evolution), _bounded(bound)]
    write_report(
        folder,
        {
            "evaluation": comparison,
            "ablation_knn": ablations["knn"],
            "ablation_ridge": ablations["ridge"],
            "correlation": correlation,
            "spectrum": spectrum,
            "redundancy": redundancy,
            "attribution": attribution,
            "mask_evolution": evolution,
            "risk_bound": bound,
            "training": checkpoint,
        },
        title="dimlab demo: MetaMask on digits",
        headline=headline,
        provenance={
            "command": "dimlab demo",
            "seed": seed,
            "data": f"{images!r}, {held_out!r}",
            "labels_hash": images.labels_hash,
            **checkpoint.versions,
            "platform": sys.platform,
            "elapsed_seconds": round(time.perf_counter() - started, 1),
        },
    )
    return headline


def _redundant(correlation: Correlation, spectrum: Spectrum, redundancy: Redundancy) -> str:
    chance = correlation.null_band["off_diagonal_rms"][1]
    shared = [group for group in redundancy.groups if len(group) > 1]
    return (
        f"Dimensions repeat each other: correlations between views have an off-diagonal rms of "
        f"{correlation.off_diagonal_rms:.2f} (independent views: at most {chance:.2f}), the "
        f"effective rank is {spectrum.effective_rank:.1f} of {spectrum.n_dimensions}, and "
        f"{sum(map(len, shared))} dimensions stand in {len(shared)} redundant groups."
    )


def _carried(attribution: Attribution) -> str:
    """Say what the views' crops and jitter leave in the features."""
    flagged = int(attribution.flagged.sum())
    if attribution.leading_factor is None:
        return "No parameter of the augmentation is found in any dimension of the views."
    factor = attribution.factors.index(attribution.leading_factor)
    top = int(np.nanargmax(attribution.effect[:, factor]))
    return (
        f"{flagged} of {len(attribution)} dimensions carry a parameter of the augmentation beside "
        f"the label (q <= 0.05), above all {attribution.leading_factor}: up to "
        f"{attribution.effect[top, factor]:.1%} of a dimension's error (dimension {top})."
    )


def _known(evolution: MaskEvolution) -> str:
    """Say whether the mask ended where the paper's claims say it should."""
    parts = [f"{name}: {verdict}" for name, verdict in evolution.verdicts.items()]
    return f"Does the mask know? Against what the claims expect, {'; '.join(parts)}."


def _bounded(bound: RiskBound) -> str:
    """Say whether class variance, and the risk itself, fell under the mask."""
    masks = bound.masks.index("none"), bound.masks.index("learned")
    variance, risk = bound.of("class_variance"), bound.of("cross_entropy")
    return (
        f"Under the mask the class variance goes from {variance[masks[0]]:.4f} to "
        f"{variance[masks[1]]:.4f} (less tightens the inferred bound), and the risk itself from "
        f"{risk[masks[0]]:.4f} to {risk[masks[1]]:.4f} nats."
    )


def _headline(
    comparison: BaselineComparison, ablations: dict[str, Ablation], trace: MaskTrace
) -> list[str]:
    means = comparison.over_seeds().set_index(["source", "reader", "mask"])["accuracy"]
    sentences = [
        f"kNN reads {means['trained', 'knn', 'none']:.1%} of the test digits from the trained "
        f"features ({means['trained', 'knn', 'learned']:.1%} with the learned mask), "
        f"{means['untrained', 'knn', 'none']:.1%} from the untrained encoder and "
        f"{means['raw pixels', 'knn', 'none']:.1%} from raw pixels.",
        "The second view of a test digit is nearest to its first view for "
        f"{means['trained', 'view-retrieval', 'none']:.1%} of the digits; "
        f"untrained {means['untrained', 'view-retrieval', 'none']:.1%}, "
        f"raw pixels {means['raw pixels', 'view-retrieval', 'none']:.1%}.",
    ]
    for reader, ablation in ablations.items():
        summary = ablation.summary()
        sentences.append(
            f"Leaving one dimension out, {reader} reader: of {summary['n_dimensions']} dimensions "
            f"{summary['n_needed']} are needed and {summary['n_harmful']} harmful at q <= 0.05 "
            f"(estimates of importance from {ablation.importance.min():+.4f} to "
            f"{ablation.importance.max():+.4f})."
        )
    moved = trace.summary()
    sentences.append(
        f"The mask moved: its weights end between {moved['min_weight']:.2f} and "
        f"{moved['max_weight']:.2f}, standard deviation {moved['std_weight']:.3f}."
        if moved["moved"]
        else "The mask did not move."
    )
    return sentences
