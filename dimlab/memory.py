"""Whether a probe fits into memory, foreseen from shapes: said before anything is allocated."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dimlab.devices import check_device

_CGROUPS = (  # limit and usage: of version 2, then of version 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_NO_LIMIT = 1 << 60  # what version 1 writes where there is none
_MB = 1_000_000
_DIGITS = 2  # of a value that is proposed


@dataclass(frozen=True)
class Shapes:
    """Sizes that a probe's memory grows with.

    Parameters
    ----------
    n_train, n_test, n_dimensions : int
        N of both splits (a probe of one takes ``n_test``), and D.
    n_groups : int
        What is removed in turn, G; or columns of factors, or negatives.
    n_draws : int
        Masks, orders, permutations or representations.
    n_blocks : int
        Of moments.
    n_views : int
        V.
    budget : float or None
        GB that a search may take.
    """

    n_train: int = 0
    n_test: int = 0
    n_dimensions: int = 1
    n_groups: int = 0
    n_draws: int = 0
    n_blocks: int = 0
    n_views: int = 0
    budget: float | None = None

    @property
    def train(self) -> int:
        """Entries of the train features."""
        return self.n_train * self.n_dimensions

    @property
    def test(self) -> int:
        """Entries of the test features."""
        return self.n_test * self.n_dimensions

    @property
    def outcomes(self) -> int:
        """What happens to every test sample without every group."""
        return self.n_test * self.n_groups

    @property
    def square(self) -> int:
        """Entries of a matrix of dimensions."""
        return self.n_dimensions**2


# Bytes beside the features at the peak of each phase, as tests/benchmarks/memory.py measures it;
# constants are blocks of rows and what threads multiply in, which do not grow.
def _ridge_fit(s: Shapes) -> float:
    return 17 * s.train + 18 * _MB


def _search(s: Shapes, *, wide: bool = False) -> float:
    fixed = 1.65 * s.n_train * (8 * s.n_dimensions + 24)
    if wide:  # most of a row may leave: the rest is searched by itself
        fixed += 24 * s.train + 4 * s.n_train * (s.n_groups + s.n_dimensions)
    whole = fixed + 185 * _MB
    return whole if s.budget is None else min(whole, max(s.budget * 1e9, fixed))


_PEAKS: dict[str, tuple[Callable[[Shapes], float], ...]] = {
    "ablate knn": (lambda s: _search(s) + 50 * s.outcomes + 24 * s.square,),
    "ablate ridge": (
        lambda s: 20 * s.train + 56 * s.square + 171 * _MB,
        lambda s: 68 * s.outcomes + 100 * _MB,
    ),
    "ablate ridge resampled": (
        lambda s: 28 * s.train + 56 * s.square + 171 * _MB,
        lambda s: 92 * s.outcomes + 100 * _MB,
    ),
    "ablate logistic": (
        lambda s: 27.5 * s.train + 30 * s.square + 10 * _MB,
        lambda s: 88 * s.outcomes + 136 * _MB,
    ),
    "ablate logistic refitted": (lambda s: 19 * s.train + 50 * s.outcomes + 120 * _MB,),
    "ablate_cumulatively knn": (lambda s: _search(s, wide=True) + 25 * s.n_draws * s.outcomes,),
    "ablate_cumulatively ridge": (
        lambda s: _ridge_fit(s) + 8 * s.square,
        lambda s: 1.35 * s.n_draws * s.outcomes + 90 * _MB,
    ),
    "ablate_cumulatively ridge ranked": (
        lambda s: 13 * s.train + 180 * _MB,
        lambda s: 1.35 * s.n_draws * s.outcomes + 90 * _MB,
    ),
    "ablate_cumulatively logistic": (lambda s: 20 * s.train + 25 * s.outcomes + 45 * _MB,),
    # the peak of one size varied from 290 to 406 MB between runs
    "random_masks knn": (lambda s: _search(s, wide=True) + 25 * s.outcomes + 65 * _MB,),
    "random_masks ridge": (_ridge_fit, lambda s: 25 * s.outcomes + 175 * _MB),
    "random_masks logistic": (lambda s: 23 * s.train + 25 * s.outcomes + 30 * _MB,),
    "confirm_harmful knn": (lambda s: _search(s) + 36 * s.outcomes,),
    "confirm_harmful ridge": (_ridge_fit, lambda s: 36 * s.outcomes + 2 * _MB),
    "confirm_harmful logistic": (
        lambda s: 17 * s.train + 6 * _MB,
        lambda s: 36 * s.outcomes + 60 * _MB,
    ),
    "confirm_harmful logistic refitted": (lambda s: 19 * s.train + 36 * s.outcomes + 120 * _MB,),
    "correlate": (
        lambda s: 16.8 * s.n_blocks * s.square + min(8 * s.n_views * s.test, 134 * _MB),
        lambda s: (
            8 * (s.n_views + 1) * s.test * (s.n_draws > 0)
            + (8 * s.n_blocks + 56) * s.square
            + 20 * _MB
        ),
    ),
    "decompose": (lambda s: 22 * s.n_blocks * s.square,),
    "decompose views": (lambda s: 40 * s.n_blocks * s.square + 11 * s.test + 85 * _MB,),
    "find_redundancy": (
        lambda s: 22 * s.n_blocks * s.square + 20 * _MB,
        lambda s: 8 * s.n_blocks * s.square + 24 * min(s.test, 20 * s.square) + 20 * _MB,
    ),
    "find_redundancy reader": (
        lambda s: 22 * s.n_blocks * s.square + 20 * _MB,
        lambda s: 17 * s.test + 14 * s.n_blocks * s.square,
    ),
    "attribute": (
        lambda s: 34 * s.test + 20 * _MB,
        lambda s: (
            26 * s.test
            + 16 * min(s.n_draws * s.n_test * s.n_groups, 1 << 24)
            + 12 * s.n_dimensions * s.n_groups * s.n_draws
        ),
    ),
    "erase": (
        lambda s: 33 * s.train + 31 * _MB,
        lambda s: 17 * s.train + 26 * s.test,
    ),
    "bound_risk": (lambda s: 53 * s.test + 24 * s.n_test * s.n_draws + 120 * _MB,),
    "compare": (lambda s: min(32 * s.test, 160 * _MB) + 15.6 * s.n_draws * s.n_blocks * s.square,),
    "evaluate knn": (lambda s: (7.2 + 8 * s.n_draws) * s.train + 115 * _MB,),
    "evaluate ridge": (lambda s: (17 + 8 * s.n_draws) * s.train + 10 * _MB,),
    "evaluate logistic": (lambda s: (17.2 + 10 * s.n_draws) * s.train + 75 * _MB,),
    "encode": (lambda s: 4 * max(2, 1 + 2 * s.n_views) * s.test,),
}

_QUERIES = ("n_test", "--max-queries", "fewer test rows", 50)
_MORE_QUERIES = (*_QUERIES[:3], 100)
_TRAIN = ("n_train", "--max-train", "fewer train rows", 50)
# What a person can change, by probe: the shape, its flag, its name in Python, and the least of it.
_REMEDIES: dict[str, tuple[tuple[str, str, str, int], ...]] = {
    "ablate": (_QUERIES, _TRAIN),
    "ablate_cumulatively": (_QUERIES, ("n_groups", "--n-points", "n_points", 2), _TRAIN),
    "random_masks": (_QUERIES, ("n_masks", "--n-masks", "n_masks", 2), _TRAIN),
    "confirm_harmful": (_QUERIES, _TRAIN),
    "correlate": (("n_draws", "--draws", "n_draws", 0), ("n_blocks", "--blocks", "n_blocks", 2)),
    "decompose": (("n_blocks", "--blocks", "n_blocks", 2),),
    "find_redundancy": (("n_blocks", "--blocks", "n_blocks", 2),),
    "attribute": (("n_draws", "--permutations", "n_permutations", 99), _MORE_QUERIES),
    "erase": (_MORE_QUERIES, _TRAIN),
    "bound_risk": (_MORE_QUERIES,),
    "compare": (("n_blocks", "--blocks", "n_blocks", 2),),
    "evaluate": (_TRAIN,),
    "encode": (("n_views", "--views", "n_views", 0),),
}


def available_bytes(device: str = "cpu") -> int | None:
    """Memory that a process may still take.

    Parameters
    ----------
    device : str, default="cpu"
        ``cuda`` counts the memory of that device.

    Returns
    -------
    int or None
        The least of what the machine, the container (cgroup 1 or 2) and the process's own limit
        leave; None where nothing is known, as on other systems than Linux.

    Examples
    --------
    >>> free = available_bytes()
    >>> free is None or free > 0
    True
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0]) if torch.cuda.is_available() else None
    known = [*_of_machine(), *_of_container(), *_of_process()]
    return max(0, min(known)) if known else None


def _of_machine() -> Iterator[int]:
    yield from _kilobytes(_PROC / "meminfo", "MemAvailable")


def _of_container() -> Iterator[int]:
    own = ""
    try:
        for line in (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::"):
                own = line[3:].strip("/ ")
    except OSError:
        pass
    for limit, usage in _CGROUPS:
        for folder in dict.fromkeys((_CGROUP / own, _CGROUP)):
            try:
                most = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
            except (OSError, ValueError):  # not there, or "max"
                continue
            if most < _NO_LIMIT:
                # files that were read lie in the cache, which is given back
                cached = sum(_numbers(folder / limit.rpartition("/")[0] / "memory.stat"))
                yield most - max(0, used - cached)


def _of_process() -> Iterator[int]:
    if sys.platform != "linux":
        return
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        yield from (most - used for used in _kilobytes(_PROC / "self" / "status", "VmSize"))


def _kilobytes(path: Path, key: str) -> Iterator[int]:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{key}:"):
                yield 1024 * int(line.split()[1])
    except OSError:
        return


def _numbers(path: Path) -> Iterator[int]:
    """Bytes of files in the cache that no one uses now, as a container counts them."""
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                yield int(value)
                return
    except (OSError, ValueError):
        return


def bytes_needed(case: str, shapes: Shapes) -> int:
    """Foretell the peak of a probe beside its features.

    Parameters
    ----------
    case : str
        Probe, reader and way, as ``"ablate ridge"``.
    shapes : Shapes
        Sizes.

    Returns
    -------
    int
        Bytes; measured ones are between 2/3 of it and a tenth more, give or take 50 MB that the
        allocator decides about.

    Examples
    --------
    >>> bytes_needed("ablate ridge", Shapes(60_000, 10_000, 512, 512)) // 10**6
    800
    """
    return int(max(phase(shapes) for phase in _PEAKS[case]))


def foresee(case: str, shapes: Shapes, *, device: str = "cpu") -> None:
    """Refuse a probe that does not fit into memory, before it takes any.

    Parameters
    ----------
    case : str
        Probe, reader and way, as ``"ablate ridge"``.
    shapes : Shapes
        Sizes.
    device : str, default="cpu"
        Where the largest part lies.

    Raises
    ------
    ValueError
        If the device is not there.
    MemoryError
        With the bytes needed and free, and what to pass for it to fit.

    Examples
    --------
    >>> foresee("ablate ridge", Shapes(100, 100, 8, 8))
    """
    check_device(device)
    free = available_bytes(device)
    needed = bytes_needed(case, shapes)
    if free is None or needed <= free:
        return
    probe = case.split()[0]
    raise MemoryError(
        f"{probe} needs about {_gb(needed)} for {_in_words(shapes)}; {_gb(free)} are free. "
        f"{_remedy(case, shapes, free)}"
    )


def check_budget(memory: float | None) -> None:
    """Refuse a budget that is none.

    Parameters
    ----------
    memory : float or None
        GB; None: what is needed.

    Raises
    ------
    ValueError
        If it is not > 0 and finite.

    Examples
    --------
    >>> check_budget(2.5)
    """
    if memory is not None and not (math.isfinite(memory) and memory > 0):
        raise ValueError(f"memory must be > 0 and finite; got {memory:g}.")


def _gb(count: float) -> str:
    """Two digits, and no powers of ten."""
    short = f"{count / 1e9:.2g}"
    return f"{float(short):,.0f} GB" if count >= 99.5e9 else f"{short} GB"


def _in_words(shapes: Shapes) -> str:
    rows = [
        f"{count:,} x {shapes.n_dimensions:,} {name}"
        for name, count in (("train", shapes.n_train), ("test", shapes.n_test))
        if count
    ]
    if not shapes.n_train:
        rows = [f"{shapes.n_test:,} x {shapes.n_dimensions:,}"]
    return " and ".join(rows) + " values"


def _remedy(case: str, shapes: Shapes, free: int) -> str:
    """Say which flag fits, and with which value."""
    for name, flag, plain, least in _REMEDIES[case.split()[0]]:
        field = "n_groups" if name == "n_masks" else name
        value = getattr(shapes, field)
        unit = max(1, shapes.n_draws) if name == "n_masks" else 1
        if name == "n_test" and case == "attribute":  # rows are views
            unit = max(1, shapes.n_views)
        found = _largest(case, shapes, field, value, free)
        if found is None or found // unit < least or found >= value:
            continue
        return f"Pass {flag} {found // unit} ({plain} in Python)."
    few = replace(shapes, n_train=min(shapes.n_train, 2), n_test=min(shapes.n_test, 2))
    if bytes_needed(case, few) <= free:
        return "Pass fewer rows."
    found = _largest(case, few, "n_dimensions", shapes.n_dimensions, free)
    most = f", at most {found:,}" if found else ""
    return (
        f"Pass fewer dimensions{most} (Representation.select in Python): fewer rows would not do."
    )


def _largest(case: str, shapes: Shapes, field: str, value: int, free: int) -> int | None:
    """Find the largest value of a shape that fits, with two digits; None: none does."""

    def fits(count: int) -> bool:
        return bytes_needed(case, replace(shapes, **{field: count})) <= free

    if not fits(0):
        return None
    low, high = 0, value
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    unit = 10 ** max(0, len(str(low)) - _DIGITS)
    return low // unit * unit
