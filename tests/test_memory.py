"""What must be held and does not fit is refused before it is taken; a budget is kept."""

import importlib
import re
import resource
from pathlib import Path

import numpy as np
import pytest

import dimlab.cli
from dimlab import Representation, devices, probes
from dimlab.devices import available_bytes, hold
from tests.benchmarks.memory import BUDGET, BUDGETED, SIZES, measured

COMMANDS = {
    "ablate_retrieval": "ablate-retrieval",
    "ablate_cumulatively": "cumulate", "bound_risk": "bound", "confirm_harmful": "confirm",
    "find_redundancy": "redundancy", "find_suspects": "suspects", "random_masks": "random-masks",
}  # fmt: skip

FIRST = ("ablate knn", "ablate ridge")  # the others are left to .ci/full


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 6))
    views = features + rng.normal(size=(2, 60, 6))
    return Representation(features, labels=labels, views=views, factors={"x": rng.normal(size=60)})


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(devices, "available_bytes", lambda device="cpu": 100)


def call_of(name, split):
    probe = getattr(importlib.import_module(f"dimlab.probes.{name}"), name)
    if name == "compare":
        return lambda: probe({"a": split, "b": split})
    if name == "ablate_retrieval":
        return lambda: probe(split, split, [[0, 0]])
    if name in ("bound_risk", "correlate", "decompose", "find_redundancy", "profile"):
        return lambda: probe(split)
    extra = {"erase": {"factor": "x"}, "ablate_cumulatively": {"order": "worst-first"}}
    return lambda: probe(split, split, **extra.get(name, {}))


def flags_of(command):
    return {flag for each in dimlab.cli.command(command).params for flag in each.opts}


@pytest.mark.parametrize("name", [name for name in probes.__all__ if name != "follow"])
def test_every_probe_refuses_what_does_not_fit_with_a_flag_that_is_there(name, split, no_memory):
    with pytest.raises(MemoryError) as caught:
        call_of(name, split)()
    said = re.fullmatch(
        rf"{name} must hold about .* GB at once for .*; 1e-07 GB are free\. Pass fewer.*\((.*)\)\.",
        str(caught.value),
    )
    assert set(said[1].split(", ")) <= flags_of(COMMANDS.get(name, name))


@pytest.mark.parametrize("reader", ["knn", "logistic"])
@pytest.mark.parametrize(
    "name", ["ablate", "ablate_cumulatively", "confirm_harmful", "random_masks"]
)
def test_every_reader_is_refused(name, reader, split, no_memory):
    probe = getattr(importlib.import_module(f"dimlab.probes.{name}"), name)
    extra = {"order": "random"} if name == "ablate_cumulatively" else {}
    with pytest.raises(MemoryError, match="must hold about"):
        probe(split, split, reader=reader, **extra)


def test_encode_is_refused_after_its_first_batch(monkeypatch):
    from dimlab import TrainConfig, encode
    from dimlab.datasets import digits
    from dimlab.training.loop import untrained

    monkeypatch.setattr(devices, "available_bytes", lambda device="cpu": 10_000)
    images = digits("validation", image_size=8).take(range(6))
    checkpoint = untrained(TrainConfig.small(), images)
    with pytest.raises(MemoryError, match=r"^encode must hold .* 6 x 64 .* Pass fewer --views\."):
        encode(checkpoint, images, n_views=20)
    assert encode(checkpoint, images, n_views=2).views is not None


def test_a_budget_is_what_the_probe_may_take_beside_its_inputs():
    options = {"memory": 0.5}
    np.testing.assert_allclose(hold(2e8, "ablate", "7 rows", "Pass fewer.", **options), 0.3)
    with pytest.raises(ValueError, match=r"^memory must be at least 2 GB for 7 rows; got 0\.5\."):
        hold(2e9, "ablate", "7 rows", "Pass fewer.", **options)
    assert hold(1, "ablate", "7 rows", "Pass fewer.") is None


def test_sizes_are_written_without_powers_of_ten(monkeypatch):
    monkeypatch.setattr(devices, "available_bytes", lambda device="cpu": 10**9)
    with pytest.raises(MemoryError, match=r"hold about 790 GB at once for 7 rows; 1 GB are free"):
        hold(7.9e11, "decompose", "7 rows", "")
    with pytest.raises(MemoryError, match="hold about 79,000 GB at once"):
        hold(7.9e13, "decompose", "7 rows", "")


def test_what_fits_is_not_refused_and_what_is_unknown_neither(monkeypatch):
    for free in (10**9, None):
        monkeypatch.setattr(devices, "available_bytes", lambda device="cpu", free=free: free)
        hold(10**9, "ablate", "7 rows", "")


def test_the_command_line_says_it_in_one_sentence_and_exits_with_1(
    dimlab, split, tmp_path, no_memory
):
    split.save(tmp_path / "a.safetensors")
    code, out, err = dimlab("ablate", "a.safetensors", "--train", "a.safetensors", "--quiet")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("dimlab ablate: ablate must hold about")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Folders in the place of /proc and /sys/fs/cgroup."""
    proc, group = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    group.mkdir()
    monkeypatch.setattr(devices, "_PROC", proc)
    monkeypatch.setattr(devices, "_CGROUP", group)
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    return proc, group


def test_nothing_known_refuses_nothing(machine):
    assert available_bytes() is None


def test_free_memory_is_the_least_of_machine_container_and_process(machine, monkeypatch):
    proc, group = machine
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_bytes() == 8000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert available_bytes() == 8000 * 1024
    (group / "memory.max").write_text("5000000\n")
    (group / "memory.current").write_text("3000000\n")
    (group / "memory.stat").write_text("anon 2500000\ninactive_file 500000\n")
    assert available_bytes() == 2_500_000
    (proc / "self" / "cgroup").write_text("0::/mine\n")
    (group / "mine").mkdir()
    (group / "mine" / "memory.max").write_text("2000000\n")
    (group / "mine" / "memory.current").write_text("1500000\n")
    assert available_bytes() == 500_000
    (proc / "self" / "status").write_text("VmSize:\t 100 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (400_000, resource.RLIM_INFINITY))
    assert available_bytes() == 400_000 - 102_400
    (group / "mine" / "memory.current").write_text("9000000\n")
    assert available_bytes() == 0


def test_the_first_version_of_containers_is_read_as_well(machine):
    _, group = machine
    (group / "memory").mkdir()
    (group / "memory" / "memory.limit_in_bytes").write_text("7000000")
    (group / "memory" / "memory.usage_in_bytes").write_text("4000000")
    (group / "memory" / "memory.stat").write_text("total_inactive_file 1000000\n")
    assert available_bytes() == 4_000_000
    (group / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert available_bytes() is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=() if each in FIRST else pytest.mark.long)
        for each in SIZES
        if each.split()[0] in BUDGETED
    ],
)
def test_the_peak_stays_within_the_inputs_and_the_budget(name):
    """Give or take 50 MB: freed blocks are used again or not, as the allocator has it."""
    assert measured(name, SIZES[name][0], BUDGET) <= BUDGET * 1e9 + 50_000_000


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="nothing says what is held")
def test_freed_blocks_between_others_go_back_to_the_system():
    """Glibc keeps such holes for ever: over many batches of images they are gigabytes."""

    def held():
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", text)[1])

    blocks = [np.ones(4000) for _ in range(4000)]  # 128 MB in blocks that are no maps of their own
    kept = blocks[::100]
    del blocks
    before = held()
    devices.give_back()
    assert held() < before - 64_000
    assert len(kept) == 40
