"""Killed, interrupted, out of disk or all at once: a file is the old one or a new one, and whole.

A child process imports everything once and forks. `python -m tests.test_interruptions FOLDER
PART=CASES ...` prints what became of each case, which the tests below judge.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from dimlab import report
from dimlab.cli import run
from dimlab.datasets import digits
from dimlab.io import files
from dimlab.mask import MaskTrace
from dimlab.moments import Moments
from dimlab.representation import Representation
from dimlab.result_file import load_result
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained

ROOT = Path(__file__).parent.parent
FAST, SLOW = 4, 60  # kills of each writer
TINY = TrainConfig(n_dimensions=4, hidden=4, contrastive_width=4, redundancy_width=4, steps=2)
STAGES = ("tempfile.TemporaryDirectory", "os.fsync", "os.replace", "os.rmdir")
PARTS = ("trace.csv", "trace.json", "trace.svg", "trace.result.npz")

pytestmark = [
    pytest.mark.slow,  # killed children
    pytest.mark.skipif(sys.platform != "linux", reason="forks, kills and limits files"),
]


# writers: each writes a version (a number) into a folder, and reads it back where it is whole


def write_representation(folder, version):
    Representation(np.full((500, 20), float(version))).save(folder / "a.safetensors")


def read_representation(folder):
    return set(np.unique(Representation.load(folder / "a.safetensors").features))


def write_moments(folder, version):
    moments = Moments.of(np.full((40, 20), float(version)), n_blocks=4)
    moments.save(folder / "moments.safetensors")


def read_moments(folder):
    return set(np.unique(Moments.load(folder / "moments.safetensors").mean))


def write_trace(folder, version):
    MaskTrace(np.arange(50), np.full((50, 20), float(version))).save(folder / "trace.npz")


def read_trace(folder):
    return set(np.unique(MaskTrace.load(folder / "trace.npz").weights))


CHECKPOINT = []


def write_checkpoint(folder, version):
    import dataclasses

    if not CHECKPOINT:
        CHECKPOINT.append(untrained(TINY, digits("validation", image_size=8)))
    dataclasses.replace(CHECKPOINT[0], step=version).save(folder / "checkpoint.pt")


def read_checkpoint(folder):
    return {load_checkpoint(folder / "checkpoint.pt").step}


def trace_of(version):
    return MaskTrace(np.arange(2), np.full((2, 300), float(version)))


def write_result(folder, version):
    drawn = f"<svg>{version}</svg>".encode() * 1000
    with mock.patch.object(report, "picture_of", return_value=drawn):
        report.write_report(folder, {"trace": trace_of(version)}, provenance={"seed": version})


def read_result(folder):
    """Versions of the files, each of which is whole."""
    found = load_result(folder / "trace.result.npz")
    table = (folder / "trace.csv").read_text().splitlines()
    assert len(table) == 601
    drawn = (folder / "trace.svg").read_text()
    assert drawn.count("<svg>") == drawn.count("</svg>") == 1000
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    summary = json.loads((folder / "trace.json").read_text())
    return {
        float(found.weights[0, 0]), float(table[-1].split(",")[-1]), summary["mean_weight"],
        float(drawn[5 : drawn.index("</svg>")]),
        float(json.loads((folder / "provenance.json").read_text())["seed"]),
    }  # fmt: skip


WRITERS = {
    "representation": (write_representation, read_representation),
    "moments": (write_moments, read_moments),
    "trace": (write_trace, read_trace),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "report": (write_result, read_result),
}


# the child


def forked(work, *arguments):
    """Do something in a process of its own; returns its id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        # whoever started the tests in the background has them ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            work(*arguments)
        except KeyboardInterrupt:
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return child


def ended(child, kind):
    """Send a signal until the process ends: Python loses an interrupt within a ``__del__``."""
    while True:
        os.kill(child, kind)
        for _ in range(100):
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(0.002)


def for_ever(write, folder):
    for version in range(2, 10**6):
        write(folder, version)


def left_over(folder):
    """Temporary folders and locks; anything else that is not an output is a mistake."""
    hidden = [each for each in folder.iterdir() if each.name.startswith(".")]
    assert all(each.name.endswith((".tmp", ".lock")) for each in hidden), hidden
    return hidden


def is_told(folder):
    """Whether files of two versions are refused as one report, or drawn again as those of one."""
    drawn = f"<svg>{load_result(folder / 'trace.result.npz').weights[0, 0]}</svg>".encode() * 1000
    try:
        with mock.patch.object(report, "picture_of", return_value=drawn):
            report.redraw_report(folder)
    except ValueError as error:
        return "Run dimlab report again" in str(error)
    return len(read_result(folder)) == 1


def judged(folder, write, read, counts):
    try:
        versions = read(folder)
        counts["survived"] += 1
        counts["mixed"] += len(versions) > 1
        counts["mixed and told"] += len(versions) > 1 and is_told(folder)
    except Exception as error:
        counts[f"lost: {type(error).__name__}: {error}"] += 1
    stale = left_over(folder)
    counts["left over"] += len(stale)
    for each in stale:
        for part in (*(each.iterdir() if each.is_dir() else ()), each):
            os.utime(part, (0, 0))
    write(folder, 1)
    counts["never cleaned"] += len(left_over(folder))


def killed(folder, n_cases):
    """Each writer, killed and interrupted at random moments, and at each of its steps."""
    rng = np.random.default_rng(0)
    for name, (write, read) in WRITERS.items():
        for kind in (signal.SIGKILL, signal.SIGINT):
            place = Path(tempfile.mkdtemp(dir=folder))
            write(place, 1)
            counts = Counter()
            for _ in range(n_cases):
                child = forked(for_ever, write, place)
                time.sleep(rng.uniform(0.002, 0.04))
                ended(child, kind)
                counts["tried"] += 1
                judged(place, write, read, counts)
            print(json.dumps([name, kind.name, counts]), flush=True)
        counts = Counter()
        for stage in STAGES:
            for after in (False, True):
                for call in (1, 4, 9) if name == "report" else (1,):
                    place = Path(tempfile.mkdtemp(dir=folder))
                    write(place, 1)
                    died = stopped_at(stage, after, call, write, place)
                    counts["tried"] += died
                    judged(place, write, read, counts)
        print(json.dumps([name, "steps", counts]), flush=True)


def stopped_at(stage, after, call, write, folder):
    """Whether a process that kills itself before or after a call came so far."""
    module, _, function = stage.rpartition(".")
    owner = {"tempfile": tempfile, "os": os, "pathlib.Path": Path}[module]
    real, left = getattr(owner, function), [call]

    def deadly(*arguments, **options):
        left[0] -= 1
        if left[0] == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*arguments, **options)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def patched():
        setattr(owner, function, deadly)
        write(folder, 2)

    return os.waitpid(forked(patched), 0)[1] == signal.SIGKILL


def full(folder, n_cases):
    """Each writer, where a file may have no more than so many bytes: the disk is full."""
    for name, (write, read) in WRITERS.items():
        place = Path(tempfile.mkdtemp(dir=folder))
        write(place, 1)
        largest = max(each.stat().st_size for each in place.iterdir())
        counts = Counter()
        for size in np.linspace(0, largest - 1, n_cases).astype(int):
            child = forked(refused, write, place, int(size))
            counts["tried"] += 1
            counts["said"] += os.waitpid(child, 0)[1] == 0
            counts["old"] += read(place) == {1}
            counts["left over"] += len(left_over(place))
        print(json.dumps([name, "disk", counts]), flush=True)


def refused(write, folder, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match=str(folder)):
        write(folder, 2)


def called(*arguments):
    sys.argv = ["dimlab", *map(str, arguments)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            run()
        except SystemExit as done:
            sys.stderr.flush()
            os._exit(int(done.code or 0))


def splits_in(folder):
    for name in ("train", "test"):
        rng = np.random.default_rng(len(name))
        labels = np.arange(40) % 2
        features = rng.normal(size=(40, 3)) + labels[:, None] * [2, 0, 0]
        Representation(features, labels=labels).save(folder / f"{name}.safetensors")
    return folder / "test.safetensors", "--train", folder / "train.safetensors"


def command(folder, n_cases):
    """The command line on a full disk: exit code 1, a sentence, and no file."""
    arguments = ("ablate", *splits_in(folder), "--reader", "ridge", "--out", folder / "out")
    for size in (0, 100, 1000):
        read, write = os.pipe()

        def limited(size=size, write=write):
            os.dup2(write, 2)
            sys.stderr = os.fdopen(2, "w")
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            called(*arguments)

        code = os.waitstatus_to_exitcode(os.waitpid(forked(limited), 0)[1])
        os.close(write)
        said = os.fdopen(read).read()
        there = sorted(each.name for each in (folder / "out").glob("*"))
        found = {"code": code, "said": said, "files": there}
        print(json.dumps(["ablate", "command", found]), flush=True)


def contents(folder):
    """Of each file, wherever the folder is."""
    own = os.fsencode(folder)
    return {each.name: each.read_bytes().replace(own, b"OUT") for each in folder.iterdir()}


def together(folder, n_cases):
    """Processes that write into one folder: commands, reports, and reports that do not wait."""
    splits = splits_in(folder)

    def ablate(out, version):
        called("ablate", *splits, "--reader", "ridge", "--penalty", version, "--out", out)

    def slowly(out, version):
        real, rng = os.replace, np.random.default_rng(os.getpid())
        os.replace = lambda *arguments: (time.sleep(rng.uniform(0, 0.01)), real(*arguments))[1]
        write_result(out, version)

    def without_waiting(out, version):
        files.locked = lambda folder, what: all_there() or contextlib.nullcontext()
        slowly(out, version)

    def all_there():
        if barrier is not None:
            barrier.wait(10)

    for name, work in (("ablate", ablate), ("report", slowly), ("control", without_waiting)):
        barrier = None
        alone, versions = [], (1, 2) if name == "ablate" else (1, 2, 3, 4)
        for version in versions:
            out = folder / f"{name}-{version}"
            os.waitpid(forked(work, out, version), 0)
            alone.append(contents(out))
        counts = Counter()
        for case in range(1 + n_cases // 20 if name == "ablate" else n_cases):
            out = folder / f"{name}-all-{case}"
            barrier = multiprocessing.Barrier(len(versions))
            children = [forked(work, out, version) for version in versions]
            codes = [os.waitpid(child, 0)[1] for child in children]
            found = contents(out)
            counts["tried"] += 1
            counts["done"] += codes == [0] * len(versions)
            counts["of one"] += found in alone
            counts["whole"] += all(any(found[each] == one[each] for one in alone) for each in found)
        print(json.dumps([name, "together", counts]), flush=True)


# the tests


def told(folder, **n_cases):
    """What the child says of each part, with so many cases."""
    parts = [f"{part}={n}" for part, n in n_cases.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_interruptions", folder, *parts],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"\n{done.stdout}")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def found(in_memory):
    folder = in_memory / "fast"
    folder.mkdir()
    return folder, told(folder, killed=FAST, full=4, command=1, together=4)


def check_kills(found, n_cases):
    assert len(found) == 3 * len(WRITERS)
    for name, kind, counts in found:
        assert not any(key.startswith("lost") for key in counts), (name, kind, counts)
        assert counts["never cleaned"] == 0, (name, kind, counts)
        assert counts["mixed"] == counts["mixed and told"], (name, kind, counts)
        assert counts["tried"] >= (n_cases if kind != "steps" else 8), (name, kind, counts)
        if kind == "steps":
            assert counts["left over"] > 0, name  # control: it was killed with work half done
            assert (counts["mixed"] > 0) == (name == "report"), name  # and so was this


def check_together(found):
    counts = {name: each for name, _, each in found}
    for name in ("ablate", "report"):
        one = counts[name]
        assert one["tried"] == one["done"] == one["of one"] == one["whole"] > 0, one
    assert counts["control"]["of one"] < counts["control"]["tried"]  # without the lock they mix
    assert counts["control"]["whole"] == counts["control"]["tried"]  # and yet each file is whole


def test_killed_or_interrupted_a_file_is_whole(found):
    check_kills([each for each in found[1] if each[1] in ("SIGKILL", "SIGINT", "steps")], FAST)


def test_on_a_full_disk_the_old_file_stands_and_nothing_is_left(found):
    refusals = [each for each in found[1] if each[1] == "disk"]
    assert len(refusals) == len(WRITERS)
    for name, _, counts in refusals:
        assert counts["tried"] == counts["said"] == counts["old"] == 4, (name, counts)
        assert counts["left over"] == 0, name


def test_on_a_full_disk_a_command_says_so_and_writes_nothing(found):
    folder, parts = found
    refusals = [each for _, kind, each in parts if kind == "command"]
    assert len(refusals) == 3
    for each in refusals:
        assert each["code"] == 1
        assert each["said"].startswith(f"dimlab ablate: {folder / 'out'}")
        assert each["said"].endswith(": File too large.\n")
        assert each["said"].count("\n") == 1
        assert each["files"] == []


def test_processes_that_write_into_one_folder_leave_the_files_of_one(found):
    check_together([each for each in found[1] if each[1] == "together"])


@pytest.mark.long
def test_killed_or_interrupted_a_file_is_whole_every_time(in_memory):
    check_kills(told(in_memory, killed=SLOW), SLOW)


@pytest.mark.long
def test_processes_that_write_into_one_folder_leave_the_files_of_one_every_time(in_memory):
    check_together(told(in_memory, together=12))


if __name__ == "__main__":
    for each in ("dimlab.figures", "dimlab.probes.ablate"):
        importlib.import_module(each)  # once, and not in each child

    for each in sys.argv[2:]:
        part, _, number = each.partition("=")
        {"killed": killed, "full": full, "command": command, "together": together}[part](
            Path(sys.argv[1]), int(number)
        )
