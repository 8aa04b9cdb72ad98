"""Seconds and memory of ablations beside their baselines, in one run.

Run by hand: ``python tests/benchmarks/ablation.py [knn ridge frozen wide bootstrap]``. The features
of a trained checkpoint are read from the folder in DIMLAB_FEATURES, written by
``dimlab encode checkpoint.pt --out FOLDER``; without it that input is left out.
"""

import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression

import dimlab.kernels.neighbours as search
from dimlab import Representation
from dimlab.kernels.balanced import balanced_interval, balanced_test
from dimlab.kernels.means import StudentisedMeans
from dimlab.kernels.rank_one import leave_out_predictions
from dimlab.probes.ablate import ablate
from dimlab.readers import Ridge
from dimlab.readers.linear import Standardiser

N_TRAIN, N_TEST, D, N_CLASSES = 60_000, 10_000, 512, 10
N_TIMED = 8  # dimensions for which brute force is timed
STAGES = {name: search for name in ("_search", "_best_candidates", "certify")}
STAGES |= {name: search._Others for name in ("look", "_search_again")}


def timed(function):
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


def show(name, **figures):
    cells = [f"{key} {value:.4g}" for key, value in figures.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name}: {', '.join(cells)}; peak of the process so far {peak:.2f} GB", flush=True)


@contextmanager
def stages():
    """Seconds spent in each stage of the search."""
    spent, originals = dict.fromkeys(STAGES, 0.0), {}

    def watched(name, function):
        def call(*arguments, **options):
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[name] += time.perf_counter() - started

        return call

    for name, owner in STAGES.items():
        originals[name] = getattr(owner, name)
        setattr(owner, name, watched(name, originals[name]))
    try:
        yield spent
    finally:
        for name, function in originals.items():
            setattr(STAGES[name], name, function)


def gaussian(rng, n):
    labels = np.arange(n) % N_CLASSES
    means = np.random.default_rng(1).normal(size=(N_CLASSES, D)) * 0.15
    return Representation((rng.normal(size=(n, D)) + means[labels]).astype("f4"), labels=labels)


def sparse(rng, n):
    dense = gaussian(rng, n)
    return Representation(np.maximum(dense.features - 1, 0), labels=dense.labels)


def trained(folder, split, n):
    """Features of a checkpoint; train is filled up to n rows with jittered copies of its first."""
    whole = Representation.load(Path(folder) / f"{split}.safetensors")
    rows = np.arange(n) % len(whole)
    jitter = np.random.default_rng(2).normal(1, 0.02, size=(max(0, n - len(whole)), D))
    features = np.array(whole.features[rows])
    features[len(whole) :] *= jitter
    return Representation(features, labels=whole.labels[rows])


def brute_force(train, test, dimension, k=5):
    """Fastest honest search without one dimension: float32, no ties settled."""
    kept = np.arange(D) != dimension
    x, q = (
        torch.nn.functional.normalize(torch.from_numpy(each.features[:, kept]))
        for each in (train, test)
    )
    for part in q.split(512):
        torch.topk(part @ x.T, k)


def knn():
    rng = np.random.default_rng(0)
    inputs = {
        "sparse ReLU": lambda: (sparse(rng, N_TRAIN), sparse(rng, N_TEST)),
        "Gaussian": lambda: (gaussian(rng, N_TRAIN), gaussian(rng, N_TEST)),
    }
    folder = os.environ.get("DIMLAB_FEATURES")
    if folder:
        inputs["trained checkpoint"] = lambda: (
            trained(folder, "train", N_TRAIN),
            trained(folder, "test", N_TEST),
        )
    for name, make in inputs.items():
        compare_knn(name, *make())


def compare_knn(name, train, test):
    half = range(N_TIMED // 2)
    one = [timed(lambda d=d: brute_force(train, test, d))[0] for d in half]
    with stages() as spent:
        ours, result = timed(lambda: ablate(train, test, reader="knn"))
    one += [timed(lambda d=d: brute_force(train, test, d))[0] for d in half]
    brute = float(np.mean(one)) * D
    show(
        f"kNN, {name}", seconds=ours, brute_force=brute, times=brute / ours,
        certified=result.certified_share, **spent,
    )  # fmt: skip


def ridge():
    rng = np.random.default_rng(0)
    train, test = gaussian(rng, N_TRAIN), gaussian(rng, N_TEST)
    alone = list(np.arange(D)[:, None])

    def refitted():
        reader = Ridge().fit(train.features, train.labels)
        return reader.predict_without(test.features, alone, target=test.labels)

    ours, _ = timed(refitted)
    whole, _ = timed(lambda: ablate(train, test, reader="ridge"))

    def honest():
        standardise = Standardiser.fit(train.features)
        z, z_test = standardise(train.features), standardise(test.features)
        y = np.eye(N_CLASSES)[train.labels]
        y -= y.mean(0)
        gram, moments = z.T @ z + 1e-3 * N_TRAIN * np.eye(D), z.T @ y
        for d in range(D):
            kept = np.arange(D) != d
            weights = cho_solve(cho_factor(gram[np.ix_(kept, kept)]), moments[kept])
            (z_test[:, kept] @ weights).argmax(1)

    theirs, _ = timed(honest)
    show("ridge refit", seconds=ours, with_inference=whole, cholesky=theirs, times=theirs / ours)


def frozen():
    rng = np.random.default_rng(0)
    train, test = gaussian(rng, N_TEST), gaussian(rng, N_TEST)
    model = LogisticRegression(max_iter=50).fit(train.features[:2000], train.labels[:2000])
    theirs, _ = timed(
        lambda: permutation_importance(model, test.features, test.labels, n_repeats=1)
    )
    reader = Ridge().fit(train.features, train.labels)
    alone = list(np.arange(D)[:, None])

    def scores():
        columns = reader.standardise(test.features)
        predicted = leave_out_predictions(reader.predict(test.features), columns, reader.weights)
        return (predicted == test.labels[:, None]).mean(axis=0)

    ours, _ = timed(scores)

    def filled():
        fitted = Ridge().fit(train.features, train.labels)
        return fitted.predict_filled(test.features, alone, fill="mean", target=test.labels)

    whole, _ = timed(filled)
    show(
        "frozen linear, accuracy of a fitted reader", seconds=ours, sklearn=theirs,
        times=theirs / ours, with_fit_and_log_loss=whole,
    )  # fmt: skip


def wide():
    rng = np.random.default_rng(0)
    labels = np.arange(50_000) % N_CLASSES
    features = rng.normal(size=(50_000, 2048)).astype("f4")
    train = Representation(features, labels=labels)
    test = Representation(features[:N_TEST] + 1, labels=labels[:N_TEST])
    for refit in (True, False):
        for name, split in (("10,000", test), ("50,000", train)):
            ours, _ = timed(lambda r=refit, t=split: ablate(train, t, reader="ridge", refit=r))
            show(f"ridge, 2048 x 50,000 train, {name} test rows, refit {refit}", seconds=ours)


def bootstrap():
    rng = np.random.default_rng(0)
    change = rng.choice([-1, 0, 1], p=[0.03, 0.94, 0.03], size=(N_TEST, D)).astype(np.int8)
    differences, labels = change * rng.exponential(size=change.shape), np.arange(N_TEST) % N_CLASSES

    def studentised():
        means = StudentisedMeans.of(differences, None, rng, 1000)
        return means.p_value, means.interval()

    seconds, _ = timed(studentised)
    show("bootstrap-t, 1,000 resamples x 512", seconds=seconds)
    interval, _ = timed(lambda: balanced_interval(change, labels))
    test, _ = timed(lambda: balanced_test(change, labels, None, rng, 9_999))
    show("balanced accuracy x 512", interval=interval, test=test)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["knn", "ridge", "frozen", "wide", "bootstrap"]
    for chosen in wanted:
        {"knn": knn, "ridge": ridge, "frozen": frozen, "wide": wide, "bootstrap": bootstrap}[
            chosen
        ]()
