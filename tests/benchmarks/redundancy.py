"""Seconds and memory of redundancy's measures, beside the bare products, in one run.

Run by hand: ``python tests/benchmarks/redundancy.py [streamed correlate figure] [--rows 1000000]``.
``streamed`` writes a file of rows x 2,048 float32 features (200,000 rows: 1.6 GB) into a temporary
folder (TMPDIR), maps it and decomposes it; the baseline takes the same float64 symmetric products
of data that lie in memory already, before and after.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from scipy.linalg.blas import dsyrk

from dimlab import Representation
from dimlab.moments import Moments
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.report import write_result

D, CHUNK = 2048, 8192


def timed(function):
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


class Memory:
    """Peak of anonymous and of all resident memory while the block runs, in GB."""

    def __enter__(self):
        self.anonymous, self.total, self._stop = 0.0, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            sizes = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
            anonymous, total = (int(sizes[k].split()[0]) / 1e6 for k in ("RssAnon", "VmRSS"))
            self.anonymous, self.total = max(self.anonymous, anonymous), max(self.total, total)


def write_features(path, n_rows):
    """A safetensors file of correlated float32 features, written in pieces."""
    rng = np.random.default_rng(0)
    mixing = (rng.normal(size=(D, D)) * np.arange(1, D + 1) ** -0.5).astype("f4")
    noise = rng.normal(size=(CHUNK, D)).astype("f4") @ mixing + 1000
    tensor = {"dtype": "F32", "shape": [n_rows, D], "data_offsets": [0, n_rows * D * 4]}
    header = json.dumps({"features": tensor})
    header += " " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        for start in range(0, n_rows, CHUNK):
            size = min(CHUNK, n_rows - start)
            file.write(
                (noise[:size] * rng.uniform(0.9, 1.1, size=(size, 1)).astype("f4")).tobytes()
            )
    return noise


def products(block, n_rows):
    """The symmetric products of n_rows rows, in float64, nothing else."""
    total = np.zeros((D, D), order="F")
    for start in range(0, n_rows, CHUNK):
        total = dsyrk(1.0, block[: n_rows - start].T, beta=1.0, c=total, overwrite_c=1)
    return total


def streamed(n_rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.safetensors"
        block = write_features(path, n_rows).astype("f8")
        bare = [timed(lambda: products(block, n_rows))[0]]
        for blocks in (1, 20):
            with Memory() as memory:
                load, split = timed(lambda: Representation.load(path))
                spectrum, _ = timed(lambda b=blocks, s=split: decompose(s, n_blocks=b))
            seconds = load + spectrum
            print(
                f"moments and spectrum, {n_rows:,} x {D}, {blocks} blocks: {seconds:.1f} s (of "
                f"which opening and checking {load:.1f} s), anonymous memory "
                f"{memory.anonymous:.2f} GB, all {memory.total:.2f} GB", flush=True,
            )  # fmt: skip
            bare.append(timed(lambda: products(block, n_rows))[0])
            share = np.mean(bare) / seconds
            print(f"  bare products {np.mean(bare):.1f} s: {share:.0%} of their speed", flush=True)
        whole = Moments.of(split.features[:50_000], n_blocks=1).covariance
        parts = Moments.of(np.array_split(split.features[:50_000], 333), n_blocks=1).covariance
        print(f"  streamed against whole: {np.abs(parts - whole).max() / np.abs(whole).max():.1e}")


def correlations():
    rng = np.random.default_rng(0)
    for n, d in ((10_000, 512), (10_000, 2048)):
        x = rng.normal(size=(n, d)).astype("f4")
        views = np.stack([x, x + rng.normal(size=x.shape).astype("f4")])
        pair, alone = Representation(x, views=views), Representation(x)
        for name, function in (
            ("correlate, two views, without the null", lambda p=pair: correlate(p, n_draws=0)),
            ("correlate, two views, 20 draws", lambda p=pair: correlate(p, n_draws=20)),
            ("correlate, within, 20 draws", lambda a=alone: correlate(a, n_draws=20)),
            ("decompose", lambda a=alone: decompose(a)),
            ("find_redundancy", lambda a=alone: find_redundancy(a)),
        ):
            print(f"{name}, {n:,} x {d}: {timed(function)[0]:.2f} s", flush=True)


def figure():
    rng = np.random.default_rng(0)
    result = correlate(
        Representation(rng.normal(size=(3000, D)).astype("f4")), n_draws=0, n_blocks=2
    )
    with tempfile.TemporaryDirectory() as folder:
        write_result(folder, "warm", result)
        seconds, files = timed(lambda: write_result(folder, "correlate", result))
        size = os.path.getsize(files["svg"]) / 1e6
    print(f"correlation figure and tables, D = {D}: {seconds:.2f} s, figure {size:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["streamed", "correlate", "figure"])
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    for part in arguments.parts:
        {"streamed": lambda: streamed(arguments.rows), "correlate": correlations, "figure": figure}[
            part
        ]()
