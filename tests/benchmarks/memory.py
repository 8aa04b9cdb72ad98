"""Measured peaks of memory, beside the features, of every probe, within a budget where it has one.

Run by hand: ``python tests/benchmarks/memory.py [NAME ...]``. Each case is a process of its own,
which runs the probe small, so that everything is imported, and then as named; Linux alone says what
a process's peak was since it was last asked.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
# blocks that threads multiply in count; passive: whoever waits leaves the core to other processes
THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
BUDGET = 0.5  # GB
BUDGETED = ("ablate", "ablate_cumulatively", "random_masks", "confirm_harmful")
SIZES = {  # train rows, test rows, dimensions
    "ablate knn": [(20_000, 2_000, 256), (60_000, 1_000, 512)],
    "ablate knn groups": [(20_000, 2_000, 256)],
    "ablate ridge": [(20_000, 10_000, 256), (40_000, 10_000, 512)],
    "ablate ridge groups": [(20_000, 10_000, 256)],
    "ablate ridge resampled": [(20_000, 5_000, 128), (40_000, 10_000, 256)],
    "ablate frozen log_loss": [(20_000, 10_000, 256)],
    "ablate logistic": [(20_000, 10_000, 256), (40_000, 20_000, 128)],
    "ablate_cumulatively ridge": [(20_000, 10_000, 256), (40_000, 10_000, 512)],
    "ablate_cumulatively random": [(20_000, 10_000, 256)],
    "ablate_cumulatively worst": [(20_000, 10_000, 256)],
    "ablate_cumulatively knn": [(20_000, 2_000, 128)],
    "ablate_retrieval": [(20_000, 2_000, 256), (60_000, 1_000, 512)],
    "profile": [(20_000, 0, 512), (10_000, 0, 1024)],
    "random_masks ridge": [(20_000, 10_000, 256), (40_000, 20_000, 128)],
    "random_masks knn": [(20_000, 1_000, 128)],
    "confirm_harmful ridge": [(20_000, 10_000, 256), (40_000, 20_000, 256)],
    "confirm_harmful knn": [(20_000, 2_000, 256)],
    "correlate": [(20_000, 0, 512), (10_000, 0, 1024)],
    "correlate within": [(20_000, 0, 512), (10_000, 0, 1024)],
    "decompose": [(20_000, 0, 512), (10_000, 0, 1024)],
    "decompose views": [(20_000, 0, 512), (10_000, 0, 1024)],
    "find_redundancy": [(20_000, 0, 512), (10_000, 0, 1024)],
    "find_redundancy ridge": [(20_000, 0, 256)],
    "attribute": [(0, 20_000, 256), (0, 40_000, 512)],
    "erase": [(20_000, 5_000, 256), (40_000, 10_000, 512)],
    "bound_risk": [(0, 10_000, 256), (0, 20_000, 512)],
    "compare": [(0, 10_000, 256), (0, 10_000, 1024)],
    "evaluate": [(20_000, 5_000, 256), (60_000, 5_000, 512)],
    "evaluate mask": [(10_000, 2_500, 256), (20_000, 5_000, 256)],
    "evaluate knn": [(40_000, 2_000, 256), (60_000, 2_000, 512)],
    "evaluate ridge": [(40_000, 10_000, 256), (60_000, 10_000, 512)],
    "evaluate ridge mask": [(40_000, 10_000, 256)],
    "ablate logistic refit groups": [(60_000, 10_000, 64), (40_000, 10_000, 128)],
    "ablate_cumulatively logistic": [(60_000, 10_000, 64), (40_000, 10_000, 128)],
    "random_masks logistic": [(60_000, 10_000, 64), (40_000, 10_000, 128)],
    "confirm_harmful logistic": [(60_000, 10_000, 64), (40_000, 10_000, 128)],
}


def split(rng, n, d, views):
    from dimlab import Representation

    labels = np.arange(n) % 10
    features = rng.standard_normal((n, d), dtype="f4")
    features += rng.standard_normal((10, d), dtype="f4")[labels] / 4
    pair = None
    if views:
        pair = np.stack([features, features])
        pair += rng.standard_normal(pair.shape, dtype="f4")
    factors = {"a": rng.normal(size=n), "b": rng.integers(0, 4, n)}
    features[:, 0] += factors["a"]
    return Representation(features, labels=labels, views=pair, factors=factors)


def run(name, train, test, budget=None):
    """Run a probe on these splits, and return nothing."""
    from dimlab import DimensionMask, probes

    probe, _, way = name.partition(" ")
    call = getattr(__import__(f"dimlab.probes.{probe}", fromlist=[probe]), probe)
    assert probe in probes.__all__
    d = (test or train).n_dimensions
    reader = {"reader": next((each for each in ("knn", "ridge", "logistic") if each in way), None)}
    if reader["reader"] is None:
        reader = {}
    if "groups" in way:
        reader["groups"] = [list(range(g, g + 4)) for g in range(0, d, 4)]
    if "refit" in way:  # each is a fit of some seconds; more of them take no more memory
        reader |= {"refit": True, "groups": reader["groups"][:3]}
    if "resampled" in way:
        reader["resample"] = "train"
    if probe == "ablate" and "frozen" in way:
        reader |= {"reader": "ridge", "refit": False, "score": "log_loss", "n_bootstrap": 200}
    slow = reader.get("reader") == "logistic"
    if budget is not None:
        reader["memory"] = budget
    if probe == "evaluate":
        masks = {"mask": DimensionMask(np.linspace(0, 1, d))} if "mask" in way else {}
        only = {"readers": [reader["reader"]]} if reader else {}
        call(train, test, **only, **masks)
    elif probe == "ablate_cumulatively":
        if slow:
            reader["n_points"] = 3
        order = "random" if "random" in way else "worst-first" if "worst" in way else np.arange(d)
        call(train, test, order=order, **reader)
    elif probe == "random_masks":
        # kNN searches once a mask: with fewer of them the peak is the same, sooner
        call(train, test, n_masks=2 if slow else 10 if "knn" in way else 50, **reader)
    elif probe in ("ablate", "confirm_harmful"):
        call(train, test, **reader)
    elif probe == "ablate_retrieval":
        same = np.arange(len(test))
        call(train, test, np.column_stack([same, same]), **reader)
    elif probe == "erase":
        call(train, test, factor="a", n_bootstrap=100)
    elif probe == "attribute":
        call(test, test, n_permutations=50, erased=None)
    elif probe == "bound_risk":
        call(test, n_bootstrap=50, n_permuted=19)
    elif probe == "compare":
        call({"a": test, "b": test})
    elif probe == "correlate":
        call(train, within="within" in way, n_draws=5)
    else:
        call(train, **reader)


def peak_of(name, n_train, n_test, d, budget=None):
    """Peak bytes beside the features, in this process."""
    import warnings

    from dimlab.readers import logistic

    logistic._MAX_ITERATIONS = 12  # more of them take no more memory: ten steps are remembered
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    views = name.split()[0] in ("correlate", "bound_risk", "compare") or "views" in name
    small = [split(rng, 300 if n else 0, 12, views) if n else None for n in (n_train, n_test)]
    run(name, *small)
    splits = [split(rng, n, d, views) if n else None for n in (n_train, n_test)]
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    run(name, *splits, budget)
    return status("VmHWM") - before


def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measured(name, size, budget=None):
    """Peak bytes of a case, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, __file__, "--case", name, *map(str, (*size, budget or 0))],
        capture_output=True, text=True, cwd=ROOT, check=True, env={**os.environ, **THREADS},
    )  # fmt: skip
    return int(ran.stdout)


def main(names):
    print(f"{'case':28} {'train':>8} {'test':>8} {'D':>6} {'GB':>7}")
    for name, sizes in SIZES.items():
        for size in sizes if not names or name in names or name.split()[0] in names else ():
            peak = measured(name, size)
            print(
                f"{name:28} {size[0]:8,} {size[1]:8,} {size[2]:6,} {peak / 1e9:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        *sizes, budget = sys.argv[3:]
        print(peak_of(sys.argv[2], *map(int, sizes), float(budget) or None))
    else:
        main(sys.argv[1:])
