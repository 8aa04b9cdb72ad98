"""One run a folder: a second one is refused before it touches anything, and a dead one blocks none.

`python -m tests.training.test_one_run_a_folder FOLDER CASES` starts runs at once in processes of
their own, again and again, and prints what became of them; the tests below judge that.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from dimlab.datasets import digits
from dimlab.io.files import locked
from dimlab.training import loop
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.loop import check_free, train
from tests.training.test_loop import TINY

ROOT = Path(__file__).parent.parent.parent
SHORT = replace(TINY, steps=4, batch_size=8, trace_every=1, checkpoint_every=2, n_dimensions=4)
SENTENCE = (
    "out must be a folder that no other run trains into; got {}, where one is at work. Stop that "
    "one, wait for it, or pass another --out."
)
N_AT_ONCE, N_STEPS = 4, 40
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, stops and kills")


def short_run(folder, seed, **options):
    images = digits("train").take(range(32))
    return train(replace(SHORT, seed=seed), images, out=folder, **options)


def contents(folder):
    """Of each file but locks, by name."""
    there = (each for each in sorted(folder.iterdir()) if not each.name.endswith(".lock"))
    return {each.name: each.read_bytes() for each in there}


def seeds_in(folder):
    """Seeds of the runs whose lines and checkpoints lie in a folder, and whether all is there."""
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in checkpoint.metrics]
    whole = [line["step"] for line in lines] == [1, 2, 3, 4] and checkpoint.step == 4
    return checkpoint.config.seed, whole and [line["loss"] for line in lines] == losses


# in this process


def test_a_folder_in_use_is_refused_and_untouched(tmp_path):
    short_run(tmp_path, 0)
    before = contents(tmp_path)
    with locked(tmp_path, "training"):
        for call in (lambda: short_run(tmp_path, 1), lambda: check_free(tmp_path)):
            with pytest.raises(OSError, match="other run") as refused:
                call()
            assert str(refused.value) == SENTENCE.format(tmp_path)
            assert contents(tmp_path) == before
    check_free(tmp_path)
    short_run(tmp_path, 1)
    assert seeds_in(tmp_path) == (1, True)


# runs of the command in processes of their own


def command(folder, *flags):
    return [
        sys.executable, "-m", "dimlab", "train", "--steps", str(N_STEPS), "--batch-size", "16",
        "--set", "checkpoint_every=1", "--quiet", "--out", str(folder), *flags,
    ]  # fmt: skip


@contextlib.contextmanager
def at_work(folder, *flags):
    """A run that has saved something, and then stands still."""
    process = subprocess.Popen(
        command(folder, *flags), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not (folder / "checkpoint.pt").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@linux
def test_a_second_command_is_refused_and_a_killed_run_goes_on_at_once(dimlab, tmp_path):
    folder = tmp_path / "run"
    counts = Counter()
    with at_work(folder) as process:
        time.sleep(0.1)  # until it really stands
        before = contents(folder)
        for flags in ((), ("--overwrite",), ("--resume",), ("--overwrite", "--tensorboard")):
            code, out, err = dimlab("train", "--out", folder, *flags)
            counts["tried"] += 1
            counts["refused"] += (code, out) == (1, "")
            counts["said"] += err == f"dimlab train: {SENTENCE.format(folder)}\n"
            counts["untouched"] += contents(folder) == before
        assert dict(counts) == dict.fromkeys(("tried", "refused", "said", "untouched"), 4)
        process.kill()
        process.wait()
    step = load_checkpoint(folder / "checkpoint.pt").step
    done = subprocess.run(
        command(folder, "--resume"), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, step < N_STEPS) == (0, True), done.stderr
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == load_checkpoint(folder / "checkpoint.pt").step == N_STEPS


@linux
@pytest.mark.slow
def test_under_torchrun_a_second_run_is_refused_and_every_process_ends(tmp_path):
    folder = tmp_path / "run"
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
    ]  # fmt: skip
    with at_work(folder):
        time.sleep(0.1)
        before = contents(folder)
        done = subprocess.run(
            [*launcher, *command(folder, "--overwrite")[1:]], cwd=ROOT, env=ENVIRONMENT,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 1
        assert f"dimlab train: {SENTENCE.format(folder)}\n" in done.stderr
        assert contents(folder) == before


# ranks that have met already, where the folder is taken meanwhile


def rank(number, folder, told):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2
    )
    try:
        short_run(folder / "run", 0)
        told.put((number, "trained"))
    except OSError as error:
        told.put((number, str(error)))
    finally:
        dist.destroy_process_group()


@linux
@pytest.mark.long
def test_where_rank_0_is_refused_all_ranks_end(tmp_path):
    context = multiprocessing.get_context("spawn")
    for is_taken in (True, False):
        place = tmp_path / str(is_taken)
        (place / "run").mkdir(parents=True)
        told = context.Queue()
        with contextlib.ExitStack() as stack:
            if is_taken:
                stack.enter_context(locked(place / "run", "training"))
            ranks = [context.Process(target=rank, args=(n, place, told)) for n in range(2)]
            for each in ranks:
                each.start()
            said = dict(told.get(timeout=100) for _ in ranks)
            for each in ranks:
                each.join(30)
            assert [each.exitcode for each in ranks] == [0, 0]
        if is_taken:
            assert said[0] == SENTENCE.format(place / "run")
            assert said[1].startswith("out must be a folder that rank 0 can begin in; got ")
            assert list((place / "run").iterdir()) == []
        else:
            assert said == {0: "trained", 1: "trained"}


# many at once


def started(folder, seed, barrier):
    """Begin with the others; whoever trains goes on after a step when all have begun."""
    barrier.wait(30)
    try:
        short_run(folder, seed, sink=lambda record: record["step"] > 1 or barrier.wait(30))
    except OSError as error:
        barrier.wait(30)
        os._exit(3 if str(error) == SENTENCE.format(folder) else 4)
    os._exit(0)


def together(place, n_cases, *, locked):
    """Start runs at once; one must win, and all that lies in the folder must be its own."""
    if not locked:
        loop.locked = lambda folder, what, refusal: contextlib.nullcontext()
    counts = Counter()
    for case in range(n_cases):
        folder = place / f"{'locked' if locked else 'control'}-{case}"
        barrier = multiprocessing.Barrier(N_AT_ONCE)
        children = []
        for seed in range(N_AT_ONCE):
            child = os.fork()
            if child == 0:
                try:
                    started(folder, seed, barrier)
                finally:
                    os._exit(9)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        counts["tried"] += 1
        counts["one trained"] += codes.count(0) == 1
        counts["the others refused"] += codes.count(3) == N_AT_ONCE - 1
        with contextlib.suppress(ValueError, OSError):
            seed, whole = seeds_in(folder)
            counts["all of one"] += whole and codes[seed] == 0
    print(json.dumps(counts), flush=True)


def killed(place, n_cases):
    """Kill a run at any moment; the next one may begin at once, and has nothing of it."""
    counts = Counter()
    for case in range(n_cases):
        barrier = multiprocessing.Barrier(1)
        child = os.fork()
        if child == 0:
            try:
                started(place / "killed", 0, barrier)
            finally:
                os._exit(9)
        time.sleep(0.004 * case)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts["tried"] += 1
        try:
            short_run(place / "killed", 1 + case)
            counts["survived"] += seeds_in(place / "killed") == (1 + case, True)
        except OSError as error:
            counts[f"lost: {error}"] += 1
    print(json.dumps(counts), flush=True)


@linux
@pytest.mark.long
def test_of_runs_that_start_at_once_one_trains_and_a_killed_one_blocks_nobody(tmp_path):
    n_cases = 8
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_one_run_a_folder", tmp_path, str(n_cases)],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"\n{done.stdout}")
    locked, after_kills, control = [json.loads(line) for line in done.stdout.splitlines()]
    names = ("tried", "one trained", "the others refused", "all of one")
    assert locked == dict.fromkeys(names, n_cases)
    assert after_kills == {"tried": n_cases, "survived": n_cases}
    assert control["one trained"] == 0  # without the lock all train, into each other
    assert control.get("all of one", 0) < control["tried"]


if __name__ == "__main__":
    from torch import set_num_threads

    set_num_threads(1)
    place, number = Path(sys.argv[1]), int(sys.argv[2])
    digits("train")
    together(place, number, locked=True)
    killed(place, number)
    together(place, number, locked=False)
