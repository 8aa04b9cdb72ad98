"""Wall and CPU seconds of one and two threads, alone and beside four busy processes.

Run by hand: ``python tests/benchmarks/threads.py [NAME=VALUE ...]``; the assignments are set in the
environment of all runs, ``OMP_WAIT_POLICY=active`` for what other programs do. kNN ablation of
10,000 x 2,000 x 256 and a ridge ablation, each in a process of its own, three times in turns; the
table has the medians.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
BUSY = "while True: pass"
ROUNDS = 3


def child(reader):
    """Print wall and CPU seconds of one ablation."""
    import numpy as np

    from dimlab import Representation
    from dimlab.probes.ablate import ablate

    rng = np.random.default_rng(0)
    labels = np.arange(12_000) % 10
    means = rng.normal(size=(10, 256))[labels] * 0.15
    whole = Representation((rng.normal(size=means.shape) + means).astype("f4"), labels=labels)
    ablate(whole[:500], whole[:50], reader=reader)
    wall, cpu = time.perf_counter(), time.process_time()
    ablate(whole[:10_000], whole[10_000:], reader=reader)
    print(time.perf_counter() - wall, time.process_time() - cpu)


def measured(reader, threads, settings):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    given = os.environ | dict.fromkeys(names, str(threads)) | settings
    ran = subprocess.run(
        [sys.executable, __file__, "--child", reader],
        capture_output=True, text=True, cwd=ROOT, env=given, check=True,
    )  # fmt: skip
    return tuple(map(float, ran.stdout.split()))


def main(settings):
    print(f"{'reader':8}{'busy':>6}{'threads':>9}{'wall s':>9}{'CPU s':>9}")
    for n_busy in (0, 4):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_busy)]
        try:
            for reader in ("knn", "ridge"):
                found = {1: [], 2: []}
                for _ in range(ROUNDS):
                    for threads, each in found.items():
                        each.append(measured(reader, threads, settings))
                for threads, each in found.items():
                    wall, cpu = map(statistics.median, zip(*each, strict=True))
                    print(f"{reader:8}{n_busy:6}{threads:9}{wall:9.2f}{cpu:9.2f}", flush=True)
        finally:
            for process in busy:
                process.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main(dict(each.split("=", 1) for each in sys.argv[1:]))
