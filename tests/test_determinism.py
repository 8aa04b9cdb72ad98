"""Probes give the same numbers for any thread count and block size, on a world of ties."""

import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest

from dimlab import DimensionMask, MaskTrace, Representation, probes

ROOT = Path(__file__).parent.parent
CLOSE = 1e-9  # of the largest number of an array, at least 1; another share of draws is farther

# what bounds the memory of a loop, and no more: never what a result is defined by
BLOCKS = {
    "dimlab.kernels.certificate": ("_ELEMENTS",),
    "dimlab.kernels.correlation": ("_ELEMENTS",),
    "dimlab.kernels.rank_one": ("_ELEMENTS", "CACHED"),
    "dimlab.kernels.permutation": ("_TOGETHER", "_ROWS"),
    "dimlab.kernels.erasure": ("_ELEMENTS",),
    "dimlab.kernels.left_out": ("_ELEMENTS",),
    "dimlab.kernels.masking": ("_BLOCK",),
    "dimlab.kernels.means": ("_ELEMENTS", "_ROWS"),
    "dimlab.kernels.moments": ("_CHUNK",),
    "dimlab.kernels.neighbours": ("_ELEMENTS", "_CACHED", "_FEW"),
    "dimlab.kernels.risk": ("_ELEMENTS",),
    "dimlab.kernels.rounding": ("_BLOCK", "_FIRST"),
    "dimlab.kernels.rows": ("_ELEMENTS",),
    "dimlab.kernels.similarity": ("_ELEMENTS",),
    "dimlab.readers.linear": ("ROWS", "_ELEMENTS"),
    "dimlab.probes._ranks": ("_CHUNK",),
    "dimlab.probes._erasing": ("_ELEMENTS",),
    "dimlab.probes._links": ("_ELEMENTS",),
    "dimlab.clusters": ("_BLOCK",),
    "dimlab.checks": ("_BLOCK",),
}
AT_ONCE = {"default": 1.0, "small": 3e-3, "odd": 3e-4}  # of those constants
MEMORY = {"default": None, "small": 0.02, "odd": 0.007}  # GB of a kNN search


def awkward(rng, n, d):
    """Few classes, one rare; ReLU zeros, whole numbers, copies of rows and columns, a dead one."""
    labels = rng.choice(3, size=n, p=[0.5, 0.4, 0.1])
    labels[:9] = np.arange(9) % 3
    size, angle = rng.normal(size=n), rng.uniform(0, 6, size=n)
    kind = rng.integers(0, 4, size=n)
    signal = rng.normal(size=(n, d)) + 0.3 * rng.normal(size=(3, d))[labels]
    signal[:, 1] += size
    signal[:, 2] += np.cos(angle)
    signal[:, 3] += kind
    signal[:, 4] = np.rint(signal[:, 4])
    signal[:, 5] = labels == 2
    signal[:, 6] = signal[:, 1]
    signal[:, 7] = 2 * signal[:, 2]
    signal[:, 8] = 0.0
    signal[:, 9] = -0.25
    signal[:, 10] = signal[:, 11] + signal[:, 12]
    signal[n // 2 :: 7] = signal[3]  # the same sample again, whatever its label
    views = signal + 0.3 * rng.normal(size=(2, n, d))
    views[:, :, 8] = 0.0
    views[1, ::5] = views[0, ::5]
    relu = [np.maximum(each, 0).astype(np.float32) for each in (signal, views)]
    factors = {"size": size, "angle": angle, "kind": kind}
    view_factors = {"strength": rng.normal(size=(2, n)), "flip": rng.integers(0, 2, size=(2, n))}
    return Representation(
        relu[0], labels=labels, factors=factors, views=relu[1], view_factors=view_factors,
        periods={"angle": 6.0},
    )  # fmt: skip


def worlds(n, d):
    rng = np.random.default_rng(7)
    train, test = awkward(rng, n, d), awkward(rng, n - 98, d)  # numbers that no block divides
    steps = np.arange(12) * 10
    weights = 1 / (1 + np.exp(-np.outer(steps / 40, np.rint(2 * rng.normal(size=d)) / 2)))
    return train, test, MaskTrace(steps, weights)


def runs(n, d, memory):
    """Every probe by name, as something to call; several where readers differ."""
    train, test, trace = worlds(n, d)
    mask = DimensionMask(trace.weights[-1])
    knn = {"memory": memory}
    groups = [[0], [1, 6], [2, 7, 8], [3, 4, 5, 9], list(range(10, 20))]
    single = {"n_draws": 20}
    call = {name: getattr(__import__(f"dimlab.probes.{name}", fromlist=[name]), name)
            for name in probes.__all__}  # fmt: skip
    found = {
        "ablate knn": lambda: call["ablate"](train, test, **knn),
        "ablate knn groups": lambda: call["ablate"](train, test, groups=groups, k=1, **knn),
        "ablate ridge": lambda: call["ablate"](train, test, reader="ridge"),
        "ablate ridge groups": lambda: call["ablate"](
            train, test, reader="ridge", groups=groups, score="balanced_accuracy"
        ),
        "ablate frozen": lambda: call["ablate"](
            train, test, reader="ridge", refit=False, fill="zero", score="log_loss"
        ),
        "ablate logistic": lambda: call["ablate"](train, test, reader="logistic"),
        "ablate_cumulatively greedy": lambda: call["ablate_cumulatively"](
            train, test, order="greedy-backward"
        ),
        "ablate_cumulatively forward": lambda: call["ablate_cumulatively"](
            train, test, order="greedy-forward"
        ),
        "ablate_cumulatively worst": lambda: call["ablate_cumulatively"](
            train, test, order="worst-first"
        ),
        "ablate_cumulatively random": lambda: call["ablate_cumulatively"](
            train, test, order="random", n_random=5
        ),
        "ablate_cumulatively knn": lambda: call["ablate_cumulatively"](
            train, test, order="best-first", reader="knn", **knn
        ),
        "ablate_retrieval": lambda: call["ablate_retrieval"](
            train, test, np.argwhere(test.labels[:, None] == train.labels), n_bootstrap=199, **knn
        ),
        "ablate_retrieval groups": lambda: call["ablate_retrieval"](
            train, test, np.argwhere(test.labels[:, None] == train.labels), score="mrr@3",
            groups=groups, n_splits=3, truncate=[], **knn
        ),
        "attribute": lambda: call["attribute"](train, test, n_permutations=200),
        "attribute views": lambda: call["attribute"](
            train, test.per_view(), n_permutations=60, erased=None
        ),
        "bound_risk": lambda: call["bound_risk"](
            test, mask=mask, n_negatives=(16, 64), n_bootstrap=40, n_permuted=9
        ),
        "compare": lambda: call["compare"]({"a": train, "b": train.masked(mask)}),
        "confirm_harmful knn": lambda: call["confirm_harmful"](train, test, n_splits=5, **knn),
        "confirm_harmful ridge": lambda: call["confirm_harmful"](
            train, test, reader="ridge", n_splits=5
        ),
        "correlate": lambda: call["correlate"](test, **single),
        "correlate within": lambda: call["correlate"](test, within=True, **single),
        "decompose": lambda: call["decompose"](test),
        "decompose centred": lambda: call["decompose"](train, centred=True),
        "erase": lambda: call["erase"](train, test, factor="size", n_random=5, n_bootstrap=100),
        "erase knn varimax": lambda: call["erase"](
            train, test, factor="kind", basis="varimax", reader="knn", n_random=3, n_bootstrap=100
        ),
        "evaluate": lambda: call["evaluate"](train, test, mask=mask),
        "find_redundancy": lambda: call["find_redundancy"](test),
        "find_redundancy reader": lambda: call["find_redundancy"](test, reader="ridge"),
        "find_suspects": lambda: call["find_suspects"](train, test),
        "follow": lambda: call["follow"](
            trace,
            ablation=call["ablate"](train, test, reader="ridge"),
            redundancy=call["find_redundancy"](test),
            n_bootstrap=300,
            n_permutations=500,
        ),
        "profile": lambda: call["profile"](test, n_rows=300, **knn),
        "random_masks ridge": lambda: call["random_masks"](train, test, n_masks=20),
        "random_masks knn": lambda: call["random_masks"](
            train, test, reader="knn", n_masks=6, **knn
        ),
    }  # fmt: skip
    assert {name.split()[0] for name in found} == set(probes.__all__)
    return found


def flat(value, path=""):
    """Yield the numbers and texts of a result, with where they stand."""
    if is_dataclass(value):
        for each in fields(value):
            yield from flat(getattr(value, each.name), f"{path}.{each.name}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from flat(each, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from flat(each, f"{path}[{index}]")
    else:
        yield path, value


def measure(threads, blocks, n, d, out):
    """Run in a process of its own: every probe, into a file."""
    import torch

    torch.set_num_threads(int(threads))
    for module, names in BLOCKS.items():
        for name in names:
            whole = getattr(importlib.import_module(module), name)
            setattr(importlib.import_module(module), name, max(1, int(whole * AT_ONCE[blocks])))
    found = {}
    for name, run in runs(int(n), int(d), MEMORY[blocks]).items():
        result = run()
        found[name] = dict(flat(result)) | dict(flat(result.summary(), "summary"))
    Path(out).write_bytes(pickle.dumps(found))


def measured_by(threads, blocks, n, d, folder):
    out = folder / f"{threads}-{blocks}.pickle"
    several = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    several["OMP_WAIT_POLICY"] = "passive"  # more threads than cores: no spinning
    ran = subprocess.run(
        [sys.executable, __file__, str(threads), blocks, str(n), str(d), str(out)],
        cwd=ROOT, env={**os.environ, **several, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return pickle.loads(out.read_bytes())


def apart(mine, other):
    """How far two results are apart where they should agree; infinite for what differs."""
    worst = {}
    for path, first in mine.items():
        a, b = np.asarray(first), np.asarray(other[path])
        if a.dtype.kind == "f" and a.shape == b.shape:
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            if same.all():
                continue
            with np.errstate(invalid="ignore"):  # of an infinity and a number
                both = np.where(same, 0.0, a - b)
            scale = max(1.0, np.abs(a[np.isfinite(a)]).max(initial=0.0))
            distance = np.abs(both).max() / scale
            worst[path] = np.inf if np.isnan(distance) else float(distance)
        elif a.dtype != b.dtype or a.shape != b.shape or not (a == b).all():
            worst[path] = np.inf
    return worst


def assert_agree(mine, other):
    assert mine.keys() == other.keys()
    far = {
        f"{name}{path}": distance
        for name, numbers in mine.items()
        for path, distance in apart(numbers, other[name]).items()
        if distance > CLOSE
    }
    assert not far


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "d", "others"),
    [
        (597, 24, [(2, "default"), (3, "small"), (1, "odd")]),
        (1500, 72, [(2, "default")]),
    ],
)
def test_no_thread_count_and_no_block_size_changes_a_probe(n, d, others, tmp_path):
    one = measured_by(1, "default", n, d, tmp_path)
    for threads, blocks in others:
        assert_agree(one, measured_by(threads, blocks, n, d, tmp_path))


def test_every_constant_of_a_block_is_where_the_table_says():
    for module, names in BLOCKS.items():
        assert set(names) <= set(vars(importlib.import_module(module))), module


def test_the_comparison_can_fail():
    a = {"x": np.array([1.0, 2.0]), "rank": np.array([1, 2])}
    assert apart(a, a | {"x": np.array([1.0, 2.0 + 4e-9])})["x"] == pytest.approx(2e-9)
    assert apart(a, a | {"rank": np.array([2, 1])}) == {"rank": np.inf}
    assert apart(a, a | {"x": np.array([1.0, np.nan])}) == {"x": np.inf}


if __name__ == "__main__":
    measure(*sys.argv[1:])
