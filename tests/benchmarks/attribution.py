"""Seconds and memory of attribution and erasure, beside the bare products, in one run.

Run by hand: ``python tests/benchmarks/attribution.py [--rows 60000] [--dimensions 512]``.
20 factors: 12 continuous, 4 periodic, 4 categorical. The baseline takes the float32 products of
1,000 permutations of their columns with the features, nothing else.
"""

import argparse
import time

import numpy as np
import torch

from dimlab import Representation, attribute, erase


def timed(function):
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


def split(rng, n, d):
    labels = np.arange(n) % 10
    factors = {f"c{i}": rng.normal(size=n) for i in range(12)}
    factors |= {f"p{i}": rng.uniform(0, 6, size=n) for i in range(4)}
    factors |= {f"k{i}": rng.integers(0, 5, size=n) for i in range(4)}
    features = rng.normal(size=(n, d)).astype("f4")
    features += rng.normal(size=(10, d)).astype("f4")[labels]
    features[:, :8] += factors["c0"].astype("f4")[:, None]
    periods = {f"p{i}": 6.0 for i in range(4)}
    return Representation(features, labels=labels, factors=factors, periods=periods)


def products(features, n_columns, n_permutations=1000, together=8):
    """Products of permuted columns with the features, several permutations at once."""
    kept = torch.from_numpy(features)
    moved = torch.randn(len(features), n_columns * together)
    for _ in range(n_permutations // together):
        moved.T @ kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dimensions", type=int, default=512)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    train, test = (split(rng, arguments.rows, arguments.dimensions) for _ in range(2))
    size = f"{arguments.rows:,} x {arguments.dimensions}"
    bare = [timed(lambda: products(test.features, 80))[0]]
    seconds, found = timed(lambda: attribute(train, test, erased=None))
    bare.append(timed(lambda: products(test.features, 80))[0])
    print(f"attribute, {size}, 20 factors, 1,000 permutations: {seconds:.1f} s")
    print(f"  bare products: {np.mean(bare):.1f} s, {np.mean(bare) / seconds:.0%} of it")
    print(f"  flagged: {found.summary()['factors']['c0']['n_flagged']} dimensions carry c0")
    seconds, result = timed(lambda: erase(train, test, factor="c0"))
    print(f"erase, {size}, ridge: {seconds:.1f} s, {len(result.dimensions)} dimensions")
