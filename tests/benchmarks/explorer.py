"""Milliseconds of the explorer's steps at 10,000 x 512, without drawing, drawn, and in a browser.

Run by hand: ``python tests/benchmarks/explorer.py [steps browser]``. Torch's threads wait for each
other, so a machine that is busy with other things shows much larger numbers: look at the load.
"""

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dimlab import Representation, explore
from dimlab._explore import Explorer

N, D, N_CLASSES, N_STEPS = 10_000, 512, 10, 20
CELLS = [
    """\
from dimlab import Representation, explore
train, test = (Representation.load(f"{name}.safetensors") for name in ("train", "test"))""",
    "view = explore(train, test)\nview",
]
SPECTRUM = "() => document.querySelector('.dimlab-explore .spectrum').innerHTML"


def splits():
    rng = np.random.default_rng(0)
    means = np.random.default_rng(1).normal(size=(N_CLASSES, D)) * 0.15
    labels = np.arange(N) % N_CLASSES
    for _ in range(2):
        features = np.maximum(rng.normal(size=(N, D)) + means[labels], 0)
        yield Representation(features.astype("f4"), labels=labels)


def show(name, seconds):
    milliseconds = 1e3 * np.asarray(seconds)
    print(
        f"{name}: median {np.median(milliseconds):.0f} ms, largest {milliseconds.max():.0f} ms "
        f"({len(milliseconds)} steps; load {os.getloadavg()[0]:.1f})",
        flush=True,
    )


def timed(function):
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


def steps(train, test):
    spent, explorer = timed(lambda: Explorer(train, test))
    show("Explorer(train, test)", [spent])

    def step(removed):
        explorer.remove(removed)
        return timed(explorer.state)[0]

    rng = np.random.default_rng(2)
    show("a step of 1, without drawing", [step(range(n)) for n in range(1, N_STEPS + 1)])
    jumps = [rng.permutation(D)[:n] for n in rng.integers(1, D, size=N_STEPS)]
    show("a jump to a random mask, without drawing", [step(removed) for removed in jumps])
    explorer.remove([])
    spent, accuracy = timed(explorer.exact_knn)
    show(f"exact kNN of all {D} ({accuracy:.4f})", [spent])
    explorer.remove(range(D // 2))
    stale, (spent, accuracy) = explorer.state().knn_accuracy, timed(explorer.exact_knn)
    show(f"exact kNN of {D // 2} ({accuracy:.4f}; candidates of all said {stale:.4f})", [spent])
    spent, chosen = timed(explorer.choose_candidates)
    explorer.use_candidates(chosen)
    explorer.remove(range(D // 2 + 5))
    near, accuracy = explorer.state().knn_accuracy, explorer.exact_knn()
    show(f"new candidates (5 more removed: they say {near:.4f}, exact {accuracy:.4f})", [spent])

    spent, view = timed(lambda: explore(train, test))
    show("explore(train, test), its ridge ablation included", [spent])
    view.wait()

    def move(n):
        view.n_removed = n

    show("a step of 1, drawn", [timed(lambda n=n: move(n))[0] for n in range(1, N_STEPS + 1)])
    view.wait()
    paused = []
    for n in rng.integers(1, D, size=N_STEPS):
        time.sleep(0.6)  # the exact search runs by now, and is cancelled
        paused.append(timed(lambda n=n: move(n))[0])
    show("a jump while the exact search runs, drawn", paused)
    view.close()


def browser(train, test):
    """From the key to the pictures on screen, in JupyterLab; Playwright's own time included."""
    path = Path(__file__).parents[1] / "test_explore_in_browser.py"
    spec = importlib.util.spec_from_file_location("in_browser", path)
    lab = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lab)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train.save(folder / "train.safetensors")
        test.save(folder / "test.safetensors")
        lab.write_notebook(folder, CELLS)
        with lab.jupyter_lab(folder) as (address, token), lab.browser_page(folder) as page:
            lab.run_notebook(page, address, token, CELLS)
            handle = page.get_by_role("slider")
            for title, pause in (("one after the other", 0.0), ("while the search runs", 0.6)):
                seconds = []
                for _ in range(N_STEPS):
                    time.sleep(pause)
                    before = page.evaluate(SPECTRUM)
                    started = time.perf_counter()
                    handle.press("ArrowRight")
                    page.wait_for_function(f"before => ({SPECTRUM})() !== before", arg=before)
                    seconds.append(time.perf_counter() - started)
                show(f"a step on screen, {title}", seconds)
                lab.wait_for_exact(page)
                time.sleep(3)


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["steps", "browser"]
    both = list(splits())
    for each in (steps, browser):
        if each.__name__ in chosen:
            each(*both)
