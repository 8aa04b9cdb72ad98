"""Commands in several processes: all of them measure, the first one speaks and writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from dimlab import __version__
from dimlab.cli.inputs import Inputs
from dimlab.processes import World, joined, sharing_in


@contextmanager
def together(device: str) -> Iterator[tuple[World, str]]:
    """Join the processes of ``torchrun``; all but the first are silent. Yield this one's device."""
    with ExitStack() as stack:
        world, place = stack.enter_context(joined(device))
        if world.rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield world, place


@contextmanager
def measuring(
    name: str, device: str, out: Path | None, inputs: Inputs, files: Sequence[Path]
) -> Iterator[tuple[World, str]]:
    """Measure together, and keep what is finished in the folder of ``--out`` until all is."""

    def parts() -> Path:
        # the same command, of the same files and version, goes on
        given = [__version__, sys.argv[1:], [inputs.digest(each) for each in files]]
        key = hashlib.sha256(json.dumps(given).encode()).hexdigest()
        return _parts(out or Path(), name) / key[:16]

    with together(device) as (world, place), sharing_in(world, None if out is None else parts):
        yield world, place


def remove_parts(out: Path | None, name: str) -> None:
    """Remove what was kept for a killed command, whose result now stands."""
    if out is not None:
        shutil.rmtree(_parts(out, name), ignore_errors=True)


def _parts(out: Path, name: str) -> Path:
    return out / f".{name}.parts"
