"""Whatever is in a file, it is read or refused in one sentence that names it: 2,000 files a format.

Files are damaged at random (fixed seeds), see `damage`. A case is lost where the reader raises
anything else, warns, hangs, or takes memory that the file does not account for.
"""

import os
import resource
import signal
import warnings
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dimlab.cli.inputs import Unreadable
from tests.io.damage import damaged
from tests.io.formats import FORMATS

FAST = int(os.environ.get("DIMLAB_FUZZ_CASES", "100"))
SLOW = 2000
SECONDS = 10  # a case
MEGABYTES = 400  # a format
REFUSALS = (ValueError, TypeError, FileNotFoundError, Unreadable)


class Hung(BaseException):
    """Not an Exception: no reader may catch it."""


@contextmanager
def limited():
    def ring(number, frame):
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(form, path, file):
    """What becomes of a case: "valid", "refused", or why it is lost."""
    try:
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("error")
            # What was read in another way than it may have been meant is said, and no loss.
            for said in (
                "left out, ",
                "assumed: ",
                "holds numbers as text, ",
                "are taken as one.",
                "are taken as two. ",
            ):
                warnings.filterwarnings("ignore", f".*{said}", UserWarning)
            form.read(path)
    except REFUSALS as error:
        said, names = str(error), (path.name, file.name, *form.called)
        if any(name in said for name in names) and "\n" not in said and said.endswith((".", ")")):
            return "refused"
        return f"{type(error).__name__}: {said[:200]!r}"
    except (Exception, Hung) as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return "valid"


def tried(name, folder, n_cases, *, seed=0):
    """Outcomes of damaged files of a format, counted."""
    form = FORMATS[name]
    path = form.make(folder)
    files = [path / each for each in form.damaged] or [path]
    contents = [each.read_bytes() for each in files]
    before = {each for each in folder.rglob("*")}
    form.read(path)  # control
    counts = Counter()
    for case in range(n_cases):
        rng = np.random.default_rng([seed, case])
        chosen = case % len(files)
        files[chosen].write_bytes(damaged(contents[chosen], rng))
        counts[outcome(form, path, files[chosen])] += 1
        files[chosen].write_bytes(contents[chosen])
    assert {each for each in folder.rglob("*")} == before  # nothing is left behind
    return counts


def lost(counts):
    return {why: n for why, n in counts.items() if why not in ("valid", "refused")}


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(name, in_memory):
    folder = in_memory / name
    folder.mkdir()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = tried(name, folder, FAST)
    assert lost(counts) == {}
    assert counts["refused"] > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < MEGABYTES * 1024


@pytest.mark.long
def test_2000_damaged_files_of_each_format_are_read_or_refused(in_memory):
    rows = []
    for name in FORMATS:
        folder = in_memory / f"{name} {SLOW}"
        folder.mkdir()
        counts = tried(name, folder, SLOW, seed=1)
        rows.append((name, counts["valid"], counts["refused"], lost(counts)))
    print(f"\n{'format':28}{'tried':>7}{'valid':>7}{'refused':>9}{'lost':>6}")
    for name, valid, refused, why in rows:
        print(f"{name:28}{SLOW:7}{valid:7}{refused:9}{sum(why.values()):6}")
    assert [(name, why) for name, _, _, why in rows if why] == []


@pytest.mark.parametrize("name", FORMATS)
def test_noise_is_refused(name, in_memory):
    form = FORMATS[name]
    folder = in_memory / f"{name} noise"
    folder.mkdir()
    path = form.make(folder)
    file = path / form.damaged[0] if form.damaged else path
    whole = file.read_bytes()

    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 64), st.binary(max_size=200), st.booleans())
    def noisy(kept, noise, has_end):
        file.write_bytes(whole[:kept] + noise + (whole[-kept:] if has_end else b""))
        found = outcome(form, path, file)
        assert found in ("valid", "refused")

    noisy()
