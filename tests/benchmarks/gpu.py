"""What a lent GPU does in four minutes: images a second, ratios of steps, and kNN ablation.

Run by hand: ``python tests/benchmarks/gpu.py``, with ``--dry`` at a size that a CPU does in a
minute. Every part has a share of the minutes, measures as many rounds as fit, and prints its table
when it is done, so that a machine that goes away early leaves what was measured. With the
environment variable OUT, the tables are also written to that folder.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from dimlab import Representation, ablate
from dimlab.kernels.neighbours import find_with_and_without
from dimlab.kernels.rows import Rows
from dimlab.training.config import TrainConfig
from dimlab.training.step import Stepper
from tests.benchmarks.training_step import DEVICE, MODES, cycle, fresh, seconds, views_of

STEPS = [name for name in MODES if not name.startswith(("joint", "exact, before"))]
STEPS += ["lookahead, bfloat16", "lookahead, total outer loss, every 4th step, bfloat16"]


def changes_of(name):
    """Configuration of a mode, of those of the other benchmark or of their bfloat16 form."""
    if name in MODES:
        return MODES[name]
    return {**MODES[name.removesuffix(", bfloat16")], "precision": "bfloat16"}


def in_time(runs, minutes):
    """Median seconds of each, taken in turns for so many minutes; at least one round."""
    end = time.monotonic() + 60 * minutes
    taken = {}
    for name, run in runs.items():
        run()
        taken[name] = [seconds(run)]
    while time.monotonic() < end:
        for name, run in runs.items():
            taken[name].append(seconds(run))
    return {name: (float(np.median(each)), len(each)) for name, each in taken.items()}


def steps(dry, minutes):
    """ResNet-18 of the paper: seconds, ratio to the plain step, and images a second."""
    config = replace(TrainConfig.official(), epochs=0, steps=1)
    if dry:
        small = {"hidden": 64, "contrastive_width": 32, "redundancy_width": 64, "batch_size": 8}
        config = replace(config, encoder="convnet", n_dimensions=32, **small)
    views = views_of(config, 3, 32)
    runs = {}
    for name in STEPS:
        changed = replace(config, **changes_of(name))
        network, mask = fresh(changed, 3)
        stepper = Stepper(network, mask, changed)
        stepper.set_rates(0.01)
        runs[name] = partial(cycle, stepper, views)
    found = in_time(runs, minutes)
    plain = found["plain"][0]
    return [
        {"step": name, "seconds": took, "times_plain": took / plain,
         "images_per_second": config.batch_size / took, "rounds": rounds}
        for name, (took, rounds) in found.items()
    ]  # fmt: skip


def removals(dry, minutes):
    """Exact kNN without each dimension: ablation, and one search with all dimensions."""
    sizes = (2_000, 400, 32) if dry else (200_000, 10_000, 768)
    n_train, n_test, n_dimensions = sizes
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, n_train + n_test)
    features = rng.normal(size=(100, n_dimensions)).astype("f4")[labels] * 0.2
    features += rng.normal(size=features.shape).astype("f4")
    train = Representation(features[:n_train], labels=labels[:n_train])
    test = Representation(features[n_train:], labels=labels[n_train:])
    sides = [Rows.of(each.features, DEVICE) for each in (train, test)]

    def search():
        for _ in find_with_and_without(*sides, [], k=5):
            pass

    def removal():
        ablate(train, test, reader="knn", device=DEVICE)

    found = in_time({"search": search, "ablate": removal}, minutes)
    once = found["search"][0]
    return [
        {"knn": f"{name}, {n_train} x {n_test} x {n_dimensions}", "seconds": took,
         "times_search": took / once, "rounds": rounds}
        for name, (took, rounds) in found.items()
    ]  # fmt: skip


def show(name, rows):
    """Print a table, and keep it."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        said = (f"{each:.4g}" if isinstance(each, float) else str(each) for each in row.values())
        print("| " + " | ".join(said) + " |")
    print(flush=True)
    if "OUT" in os.environ:
        (Path(os.environ["OUT"]) / f"{name}.json").write_text(json.dumps(rows, indent=2))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry", action="store_true", help="a size for a CPU")
    parser.add_argument("--minutes", type=float, default=3.0, help="of measuring, in all")
    options = parser.parse_args(arguments)
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"{machine}, torch {torch.__version__}\n", flush=True)
    show("removals", removals(options.dry, options.minutes / 3))
    show("steps", steps(options.dry, 2 * options.minutes / 3))


if __name__ == "__main__":
    main()
