"""Replace one fragment of a function, run the tests that should notice, and say whether they did.

`tests/mutations.py` holds the table. The working tree is never touched: every process has a copy
of the package and of the tests in a temporary folder, and puts the original text back after each
mutation.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

_LONGEST = 300  # seconds of one mutation: a loop that never ends is noticed as well
# What a misspelt mutation raises. A test that fails on it has not noticed a wrong formula.
_SLIPS = ("NameError", "UnboundLocalError", "SyntaxError", "IndentationError", "ImportError",
          "ModuleNotFoundError", "AttributeError")  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """One plausible slip.

    Parameters
    ----------
    file : str
        Path within the package.
    name : str
        Qualified name of the function, method, class or module constant that is changed.
    old, new : str
        Text that must occur exactly once in the source of ``name``, and what replaces it.
    tests : tuple of str
        Files or node ids of pytest, within ``tests/``, of which one must fail.
    explained : str, default=""
        Why no test can fail, for a mutation that changes nothing.
    """

    file: str
    name: str
    old: str
    new: str
    tests: tuple[str, ...]
    explained: str = ""

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file} {self.name}: {old!r} -> {new!r}"

    @property
    def key(self) -> str:
        """A hash of what is changed: it deals mutations to shares."""
        text = "\0".join((self.file, self.name, self.old, self.new))
        return hashlib.sha256(text.encode()).hexdigest()

    def applied(self, source: str) -> str:
        """Return the mutated source of the file; ``LookupError`` where the table is stale."""
        start, end = _span(source, self.name)
        part = source[start:end]
        if part.count(self.old) != 1:
            raise LookupError(f"{self} must match once; found {part.count(self.old)} times.")
        if self.old == self.new:
            raise LookupError(f"{self} must change something.")
        return source[:start] + part.replace(self.old, self.new) + source[end:]


@dataclass(frozen=True)
class Finding:
    """What became of a mutation: killed, survived, or an error that says nothing."""

    mutation: Mutation
    outcome: str
    reason: str
    seconds: float


def _span(source: str, name: str) -> tuple[int, int]:
    """Return where the definition of a qualified name starts and ends in the source."""
    nodes = _parsed(source)
    for part in name.split("."):
        node = next((each for each in nodes if part in _names(each)), None)
        if node is None:
            raise LookupError(f"there is no {name}.")
        nodes = getattr(node, "body", [])
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1]))
    return start, start + sum(map(len, lines[node.lineno - 1 : node.end_lineno]))


@cache
def _parsed(source: str) -> list[ast.stmt]:
    return ast.parse(source).body


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [each.id for each in targets if isinstance(each, ast.Name)]


def missing_tests(mutation: Mutation, tests: Path) -> list[str]:
    """Return the tests of a mutation that are not there; parameters are not looked at."""
    missing = []
    for test in mutation.tests:
        path, _, name = test.partition("::")
        file = tests / path
        wanted = name.split("[")[0].replace("::", ".")
        try:
            if name:
                _span(file.read_text(), wanted)
            elif not file.is_file():
                missing.append(test)
        except (LookupError, OSError):
            missing.append(test)
    return missing


def share_of(table: list[Mutation], share: str) -> list[Mutation]:
    """Return the K-th of N parts of the table, "K/N", dealt by the hash of what is changed."""
    k, n = map(int, share.split("/"))
    if not 1 <= k <= n:
        raise ValueError(f"share must be K/N with 1 <= K <= N; got {share}.")
    chosen = {each.key for each in sorted(table, key=lambda each: each.key)[k - 1 :: n]}
    return [each for each in table if each.key in chosen]


def _copy_of(root: Path, package: str, target: Path) -> Path:
    """Copy the package, the tests and pytest's settings; compiled files keep their times."""
    target.mkdir()
    wanted = shutil.ignore_patterns("*.npz", "*.svg", "*.png", "*.safetensors")
    for name in (package, "tests"):
        shutil.copytree(root / name, target / name, ignore=wanted)
    if (root / "pyproject.toml").is_file():
        shutil.copy2(root / "pyproject.toml", target)
    return target


def _pytest(tree: Path, tests: list[str], *options: str) -> tuple[int, str, ElementTree.Element]:
    """Run tests in a tree; the exit code, the output and the report of every test."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    # only the plugins that are asked for: they take as long as a test
    quick = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
             "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""),
        *(f"--junitxml={report}", *options, *(f"tests/{test}" for test in tests)),
    ]
    with subprocess.Popen(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), **quick},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_LONGEST)
        finally:  # a test that hangs may have started processes of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    empty = ElementTree.Element("none")
    parsed = ElementTree.parse(report).getroot() if report.is_file() else empty
    return process.returncode, output, parsed


def _verdict(code: int, report: ElementTree.Element) -> tuple[str, str]:
    """Judge one run: only a test that failed has noticed the mutation."""
    if code == 0:
        return "survived", ""
    if code != 1:
        uncollected = "the tests could not be collected"
        reasons = {2: uncollected, 4: uncollected, 5: "no test ran"}
        return "error", reasons.get(code, f"pytest ended with {code}")
    for case in report.iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            message = failure.get("message", "")
            if "collection failure" in message:
                return "error", "the tests could not be collected"
            kind = re.search(r"^(?:failed on setup with \")?(?:[\w.]*\.)?(\w+):", message)
            if kind and kind[1] in _SLIPS:
                return "error", f"{case.get('name')}: {message[:200]}"
            return "killed", str(case.get("name"))
    return "error", "no test failed"


def judge(mutation: Mutation, tree: Path, package: str) -> Finding:
    """Apply one mutation to a tree, run its tests, and put the tree back as it was."""
    file = tree / package / mutation.file
    original, times = file.read_bytes(), file.stat()
    started = time.perf_counter()
    compiled = file.parent / "__pycache__"
    try:
        file.write_text(mutation.applied(original.decode()))
        # a mutation may leave size and second of a file as they were
        for each in compiled.glob(f"{file.stem}.*.pyc"):
            each.unlink()
        code, _, report = _pytest(tree, list(mutation.tests), "-x")
        outcome, reason = _verdict(code, report)
    except LookupError as error:
        outcome, reason = "error", str(error)
    except subprocess.TimeoutExpired:
        outcome, reason = "killed", f"no end within {_LONGEST} s"
    finally:
        for each in compiled.glob(f"{file.stem}.*.pyc"):
            each.unlink()
        file.write_bytes(original)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return Finding(mutation, outcome, reason, time.perf_counter() - started)


def run(table: list[Mutation], root: Path, package: str, jobs: int) -> list[Finding]:
    """Run a table: first its tests on the code as it is, then every mutation; prints as it goes."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        trees: queue.Queue[Path] = queue.Queue()
        first = _copy_of(root, package, Path(folder) / "0")
        tests = sorted({test for mutation in table for test in mutation.tests})
        together = ("-p", "xdist.plugin", "-n", str(jobs)) if jobs > 1 else ()
        code, output, _ = _pytest(first, tests, *together)
        if code != 0:
            print(output)
            raise SystemExit("The tests must pass before anything is changed; these do not.")
        trees.put(first)
        for job in range(1, jobs):
            trees.put(Path(shutil.copytree(first, Path(folder) / str(job))))

        def work(mutation: Mutation) -> Finding:
            tree = trees.get()
            try:
                found = judge(mutation, tree, package)
            finally:
                trees.put(tree)
            print(f"{found.outcome:8} {found.seconds:5.1f} s  {mutation}  {found.reason}",
                  flush=True)  # fmt: skip
            return found

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(work, table))


def summary(found: list[Finding]) -> tuple[str, bool]:
    """One sentence on all findings, and whether every survivor is explained and nothing failed."""
    counts = Counter(each.outcome for each in found)
    judged = counts["killed"] + counts["survived"]
    open_ = [each for each in found if each.outcome == "survived" and not each.mutation.explained]
    needless = [each for each in found if each.outcome == "killed" and each.mutation.explained]
    lines = [
        f"{counts['killed']} of {judged} killed ({counts['killed'] / max(judged, 1):.1%}), "
        f"{counts['survived'] - len(open_)} survived with an explanation, {len(open_)} without, "
        f"{counts['error']} errors.",
        *(f"survived: {each.mutation}" for each in open_),
        *(f"killed although explained: {each.mutation}" for each in needless),
        *(f"error: {each.mutation}: {each.reason}" for each in found if each.outcome == "error"),
    ]
    return "\n".join(lines), not (open_ or needless or counts["error"])


def main(table: list[Mutation], root: Path, package: str) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Which broken formulas do the tests notice?")
    parser.add_argument("--only", default="", help="mutations whose line contains this text")
    parser.add_argument("--share", default="1/1", metavar="K/N", help="the K-th of N parts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    chosen = [each for each in share_of(table, arguments.share) if arguments.only in str(each)]
    if not chosen:
        parser.error(f"no row of the table contains {arguments.only!r} in this share.")
    started = time.perf_counter()
    text, good = summary(run(chosen, root, package, arguments.jobs))
    print(f"{text}\n{time.perf_counter() - started:.0f} s")
    return 0 if good else 1
