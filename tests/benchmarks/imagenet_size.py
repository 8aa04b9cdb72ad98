"""Seconds and anonymous memory of every probe on mapped features of the size of ImageNet's.

Run by hand: ``python tests/benchmarks/imagenet_size.py [--train 200000] [--test 10000]
[--dimensions 768] [--classes 1000] [--folder DIR] [PROBE ...]``. The whole size is ``--train
1281167 --test 50000 --dimensions 2048`` and needs 11 GB of disk. The features are seeded, and
written once into the folder. Each probe is a process of its own, which maps them; RssAnon, the
memory that is not a mapped file, is sampled from outside every 20 ms, beside what it was before
the probe began. "Products" are CPU seconds of the bare matrix products that a probe cannot do
without, float32 for a search and float64 for a linear reader, timed in the same process on a share
of the rows and scaled; the ratio is of CPU seconds. kNN reads the first ``--queries`` test rows.
"""

import argparse
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
ROWS = 20_000  # written, and multiplied, together


def write(path, n_rows, n_dimensions, n_classes, seed):
    """Features with a nuisance, an exact copy and a constant, in a mapped file."""
    from dimlab import Representation

    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).standard_normal((n_classes, n_dimensions), dtype="f4") * 0.3
    labels = rng.permutation(np.arange(n_rows) % n_classes)
    scratch = path.with_suffix(".npy")
    features = np.lib.format.open_memmap(scratch, "w+", "f4", (n_rows, n_dimensions))
    nuisance = rng.normal(size=n_rows)
    for start in range(0, n_rows, ROWS):
        part = slice(start, min(n_rows, start + ROWS))
        block = rng.standard_normal((part.stop - start, n_dimensions), dtype="f4")
        block += means[labels[part]]
        block[:, 0] += nuisance[part]
        block[:, 1], block[:, 2] = block[:, 3], 1.0
        features[part] = block
    features.flush()
    split = Representation(features, labels=labels, factors={"nuisance": nuisance})
    split.save(path)
    del features, split
    scratch.unlink()


def products(train, n_rows, other, dtype):
    """CPU seconds of the product of all train rows (N, D) with a matrix (D, K)."""
    import torch

    n_timed = min(len(train), n_rows)
    part = torch.from_numpy(np.array(train.features[:n_timed])).to(dtype)
    other = torch.randn(train.n_dimensions, other, dtype=dtype)
    part @ other
    began = time.process_time()
    part @ other
    return (time.process_time() - began) * len(train) / n_timed


def pairs_of(split):
    """The rows as two views, the second with noise."""
    from dimlab import Representation

    noise = np.random.default_rng(5).standard_normal(split.shape, dtype="f4")
    views = np.stack([split.features, split.features + noise])
    return Representation(split.features, labels=split.labels, views=views)


def cases(arguments):
    """What is run for each probe: the call, and the columns of its bare products."""
    from dimlab import (
        ablate,
        ablate_cumulatively,
        attribute,
        bound_risk,
        compare,
        confirm_harmful,
        correlate,
        decompose,
        erase,
        evaluate,
        find_redundancy,
        random_masks,
    )

    few, d = slice(0, arguments.queries), arguments.dimensions
    return {
        "decompose": (lambda a, b: decompose(a), d),
        "correlate": (lambda a, b: correlate(a), d),
        "find_redundancy": (lambda a, b: find_redundancy(a), d),
        "compare": (lambda a, b: compare({"train": a, "test": b}), d),
        "bound_risk": (lambda a, b: bound_risk(pairs_of(b[:5000])), d),
        "attribute": (lambda a, b: attribute(a, b), d),
        "ablate ridge": (lambda a, b: ablate(a, b, reader="ridge"), d),
        "ablate frozen": (lambda a, b: ablate(a, b, reader="ridge", refit=False), d),
        "ablate logistic": (lambda a, b: ablate(a, b, reader="logistic"), d),
        "ablate knn": (lambda a, b: ablate(a, b[few], reader="knn"), arguments.queries),
        "evaluate ridge": (lambda a, b: evaluate(a, b, readers=["ridge"]), d),
        "evaluate logistic": (lambda a, b: evaluate(a, b, readers=["logistic"]), d),
        "evaluate knn": (lambda a, b: evaluate(a, b[few], readers=["knn"]), arguments.queries),
        "confirm_harmful": (lambda a, b: confirm_harmful(a, b, reader="ridge"), d),
        "random_masks": (lambda a, b: random_masks(a, b, n_masks=20), d),
        "ablate_cumulatively": (lambda a, b: ablate_cumulatively(a, b, reader="ridge"), d),
        "erase": (lambda a, b: erase(a, b, factor="nuisance"), d),
    }


def child(name, arguments):
    """Run one probe small, so that everything is imported, then whole; print its seconds."""
    import torch

    from dimlab import Representation

    warnings.simplefilter("ignore")
    train, test = (Representation.load(arguments.folder / each) for each in names(arguments))
    call, columns = cases(arguments)[name]
    enough = slice(0, 20 * arguments.classes)
    small = list(range(8))
    call(train[enough].select(small), test[enough].select(small))
    print("ready", flush=True)
    sys.stdin.readline()
    wall, cpu = time.perf_counter(), time.process_time()
    call(train, test)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    dtype = torch.float32 if "knn" in name else torch.float64
    print(wall, cpu, products(train, ROWS, columns, dtype), flush=True)


def anonymous(pid):
    """Bytes of a process that are no mapped file; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon")), 0)


def measured(name, argv):
    """Seconds, those of the CPU, bare ones, and anonymous bytes of a probe in its own process."""
    with subprocess.Popen(
        [sys.executable, __file__, "--child", name, *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        said = process.stdout.readline()
        before, peak = anonymous(process.pid), 0
        done = threading.Event()

        def watch():
            nonlocal peak
            while not done.is_set():
                peak = max(peak, anonymous(process.pid))
                time.sleep(0.02)

        if said.strip() == "ready":
            watcher = threading.Thread(target=watch)
            watcher.start()
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
            done.set()
            watcher.join()
        errors = process.stderr.read().strip().splitlines()
    if process.returncode:
        return errors[-1] if errors else f"exit {process.returncode}"
    return *map(float, said.split()), before, peak


def names(arguments):
    """Files of both splits."""
    kind = f"{arguments.dimensions}-{arguments.classes}"
    return [
        f"train-{arguments.train}-{kind}.safetensors",
        f"test-{arguments.test}-{kind}.safetensors",
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probes", nargs="*")
    parser.add_argument("--train", type=int, default=200_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/imagenet-size"))
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    both = zip(names(arguments), (arguments.train, arguments.test), strict=True)
    for seed, (name, n_rows) in enumerate(both):
        if not (arguments.folder / name).exists():
            write(
                arguments.folder / name, n_rows, arguments.dimensions, arguments.classes, seed + 1
            )
    heads = ("seconds", "CPU s", "products", "ratio", "GB before", "GB peak")
    print(f"{'probe':22}" + "".join(f"{head:>10}" for head in heads))
    for name in cases(arguments):
        if arguments.probes and not {name, name.split()[0]} & set(arguments.probes):
            continue
        found = measured(name, [x for x in sys.argv[1:] if x not in arguments.probes])
        if isinstance(found, str):
            print(f"{name:22} {found}", flush=True)
            continue
        seconds, cpu, bare, before, peak = found
        cells = (seconds, cpu, bare, cpu / bare, before / 1e9, peak / 1e9)
        print(f"{name:22}" + "".join(f"{cell:10.2f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
