"""Where arithmetic runs and what it may hold, refused in one sentence where that is not there."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dimlab.refusals import Refusal

_CGROUPS = (  # limit, usage, and what is given back on demand: of version 2, then of version 1
    ("memory.max", "memory.current", "inactive_file "),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file "),
)
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_NO_LIMIT = 1 << 60  # what version 1 writes where there is none


def check_device(device: str) -> None:
    """Refuse a device that is not ``cpu``, ``cuda`` or ``cuda:N``, or not there."""
    name = str(device)  # a torch.device too
    if name in ("cpu", "cpu:0"):  # the usual case costs no import
        return
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise Refusal(f"device must be cpu, cuda or cuda:N; got {name!r}.")
    import torch

    n_there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= n_there:
        there = {0: "no GPU", 1: "1 GPU"}.get(n_there, f"{n_there} GPUs")
        raise Refusal(
            f"device must be there; got {name!r}, and torch sees {there}. Pass --device cpu."
        )


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps the holes between blocks of tensors."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library has no such call, and no need
            ctypes.CDLL(None).malloc_trim(0)


def check_budget(memory: float | None) -> None:
    """Refuse a budget in GB that is not positive and finite; None is no budget."""
    if memory is not None and not (math.isfinite(memory) and memory > 0):
        raise Refusal(f"memory must be > 0 and finite; got {memory:g}.")


def hold(
    n_bytes: float,
    probe: str,
    sizes: str,
    remedy: str,
    *,
    memory: float | None = None,
    device: str = "cpu",
) -> float | None:
    """Refuse what must be held at once and does not fit; return what is left of a budget in GB.

    ``sizes`` says in words what it grows with, ``remedy`` what to pass instead.
    """
    if memory is not None and n_bytes > memory * 1e9:
        raise Refusal(
            f"memory must be at least {n_bytes / 1e9:.2g} GB for {sizes}; got {memory:g}. {remedy}"
        )
    free = available_bytes(device)
    if free is not None and n_bytes > free:
        raise MemoryError(
            f"{probe} must hold about {_gb(n_bytes)} at once for {sizes}; {_gb(free)} are free. "
            f"{remedy}"
        )
    return None if memory is None else memory - n_bytes / 1e9


def available_bytes(device: str = "cpu") -> int | None:
    """Return what a process may still take: the least that machine, container and limits leave.

    None where nothing is known, as on other systems than Linux.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0]) if torch.cuda.is_available() else None
    known = [*_of_machine(), *_of_container(), *_of_process()]
    return max(0, min(known)) if known else None


def _of_machine() -> Iterator[int]:
    """Give the memory that the machine has available."""
    yield from (1024 * each for each in _numbers(_PROC / "meminfo", "MemAvailable:"))


def _of_container() -> Iterator[int]:
    """Give what the limits of control groups, of version 2 and 1, leave."""
    own = next((line[3:] for line in _lines(_PROC / "self/cgroup") if line.startswith("0::")), "")
    for limit, usage, unused in _CGROUPS:
        for folder in dict.fromkeys((_CGROUP / own.strip("/ "), _CGROUP)):
            most, used = (_numbers(folder / name, "") for name in (limit, usage))
            if most and used and most[0] < _NO_LIMIT:
                stat = (folder / limit).parent / "memory.stat"
                cached = sum(_numbers(stat, unused))  # files that were read are given back
                yield most[0] - max(0, used[0] - cached)


def _of_process() -> Iterator[int]:
    """Give what the process's own limit leaves."""
    if sys.platform != "linux":
        return
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        used = _numbers(_PROC / "self/status", "VmSize:")
        yield from (most - 1024 * each for each in used)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _numbers(path: Path, key: str) -> list[int]:
    """Return the first number behind a key, of each line that starts with it and has one."""
    words = [line.removeprefix(key).split() for line in _lines(path) if line.startswith(key)]
    return [int(each[0]) for each in words if each and each[0].isdecimal()]


def _gb(count: float) -> str:
    """Write a number of bytes with two digits, and no powers of ten."""
    short = f"{count / 1e9:.2g}"
    return f"{float(short):,.0f} GB" if count >= 99.5e9 else f"{short} GB"
