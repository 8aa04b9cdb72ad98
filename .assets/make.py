"""The pictures of the README and of the pages in ``.docs``, made by the commands that stand there.

    python .assets/make.py            run the commands of the README and the tour, replace pictures
    python .assets/make.py hue        the same for a longer run (Fashion-MNIST, three minutes)
    python .assets/make.py --draw     draw the pictures again from the results that are kept
    python .assets/make.py --check    say which pictures are stale; the exit code is 1 if any is

``.assets/tour/ablate.svg`` is the file ``tour/ablate.svg`` that the tour's commands wrote. Beside
the pictures lie the results they show and ``record.json`` with the commands, their seconds and the
versions. A picture is stale when its page names other commands, or when today's dimlab draws
another figure from the same result.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parent
ROOT = ASSETS.parent
TEMPLATE = ROOT / "dimlab" / "report" / "template.html"
PICTURE = re.compile(r"!\[[^\]]*\]\((?:\.\./)*\.assets/([^)\s]+)\)")
TOKEN = re.compile(r"#[0-9a-f]{6}|-?\d+\.?\d*(?:e-?\d+)?|[^\d#-]+|[#-]")
THREADS = 2  # another number of threads adds in another order, and training ends elsewhere
TOLERANCE = 0.5  # points by which another patch release of matplotlib may move things
PACKAGES = ("matplotlib", "seaborn", "numpy", "scipy", "scikit-learn", "torch", "kornia")


@dataclass(frozen=True)
class Run:
    """Commands of a page that begin with one of ``begins``, and the folder that they write."""

    folder: str
    page: str
    begins: tuple[str, ...] = ("",)
    kept: tuple[str, ...] = ("*.result.npz", "knn/*.result.npz", "*/verdicts.json")


OWN = ("#!python\nimport numpy", "dimlab report test.npz")
LONG = ("dimlab train ", "dimlab attribute runs/hue/", "dimlab erase ")
TOLD = (  # what the tour shows and tells
    *(f"{name}.result.npz" for name in ("attribution", "ablate", "correlation", "mask_evolution")),
    "verdicts.json",
)
RUNS = (
    Run("report", "README.md", OWN, kept=("verdicts.json",)),
    Run("tour", ".docs/tour.md", kept=TOLD),
    Run("hue", ".docs/guide/confounded.md", LONG),
)
QUICK = ("report", "tour")


def pages() -> dict[str, str]:
    """Read the README and the pages by their paths below the repository."""
    paths = [ROOT / "README.md", *sorted((ROOT / ".docs").rglob("*.md"))]
    left_out = {"_build", "examples", "generated", "notebooks"}  # made when the site is built
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if not left_out & set(path.parts)
    }


def steps_of(text: str) -> list[str]:
    """Read the steps of a page: lines of shell without comments, and blocks of Python."""
    steps = []
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", text, re.M | re.S):
        if language == "python":
            steps.append(f"#!python\n{block}")
        else:
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            steps += [re.split(r"\s+#", line)[0].strip() for line in lines]
    return [step for step in steps if step]


def steps_of_run(run: Run, text: dict[str, str]) -> list[str]:
    """Read the steps of a run off its page."""
    return [step for step in steps_of(text[run.page]) if step.startswith(run.begins)]


def pictures_of(run: Run, text: dict[str, str]) -> list[str]:
    """Read which pictures of a run the pages show, as paths below ``.assets``."""
    shown = {name for page in text.values() for name in PICTURE.findall(page)}
    return sorted(name for name in shown if name.startswith(f"{run.folder}/"))


def execute(steps: list[str], folder: Path) -> list[float]:
    """Run steps one after the other in a folder, as a reader of the page would; return seconds."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": str(THREADS)}
    environment["OMP_WAIT_POLICY"] = "passive"  # other processes may need the core meanwhile
    seconds = []
    for step in steps:
        python = step.removeprefix("#!python\n")
        command = ["bash", "-c", step] if python == step else [sys.executable, "-c", python]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds.append(round(time.perf_counter() - started, 1))
        print(f"{seconds[-1]:6.1f} s  {step.splitlines()[-1]}", flush=True)
        if done.returncode:
            raise RuntimeError(f"{step}\nexit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


def make(run: Run, text: dict[str, str], work: Path) -> None:
    """Run the commands in an empty folder; replace the pictures, the results and the record."""
    steps, target = steps_of_run(run, text), ASSETS / run.folder
    seconds = execute(steps, work)
    made = work / "runs" if (work / "runs" / run.folder).is_dir() else work
    shutil.rmtree(target, ignore_errors=True)
    for pattern in run.kept:
        for path in (made / run.folder).glob(pattern):
            kept = target / path.relative_to(made / run.folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)
    for name in pictures_of(run, text):
        if name.endswith(".svg"):
            shutil.copyfile(made / name, ASSETS / name)
        else:
            report = made / name.removesuffix(".png")
            page = report / "report.html" if report.is_dir() else report.with_suffix(".html")
            photograph(page, ASSETS / name)
    record = {"commands": steps, "seconds": seconds, "page": page_hash(), **surroundings()}
    (target / "record.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def surroundings() -> dict[str, Any]:
    """Name what training depends on: versions, processor, threads."""
    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.is_file() else []
    versions = {name: version(name) for name in PACKAGES}
    processor = names[0] if names else platform.processor()
    python = platform.python_version()
    return {"made_with": {"python": python, **versions, "processor": processor, "threads": THREADS}}


def page_hash() -> str:
    """Hash the template of the report, which pictures of a report show."""
    return hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()


def photograph(page: Path, picture: Path) -> None:
    """Take a picture of the top of a page with Chromium, in 256 colours."""
    from PIL import Image

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise RuntimeError(f"{picture.name} needs chromium; apt-get install chromium.")
    with tempfile.TemporaryDirectory() as profile:
        flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars"
        size = ["--window-size=1000,1230", f"--user-data-dir={profile}"]
        command = [chromium, *flags.split(), *size, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(256)
    few.save(picture, optimize=True)


def draw(run: Run, text: dict[str, str], folder: str) -> None:
    """Draw the figures of the results that a run kept and the pages show."""
    from dimlab.report import write_result
    from dimlab.result_file import load_result

    shown = tuple(Path(name).name for name in pictures_of(run, text))
    for path in (ASSETS / run.folder).glob("*.result.npz"):
        name = path.name.partition(".")[0]
        if any(each.startswith(name) for each in shown):
            write_result(folder, name, load_result(path))


def stale(text: dict[str, str]) -> Iterator[str]:
    """Say in a sentence what no longer is as the pages, or today's dimlab, have it."""
    yield from stale_commands(text)
    yield from stale_drawings(text)


def stale_commands(text: dict[str, str]) -> Iterator[str]:
    """Compare the commands and pictures of the pages with those that were made."""
    shown = {name for page in text.values() for name in PICTURE.findall(page)}
    there = {
        path.relative_to(ASSETS).as_posix()
        for path in ASSETS.glob("*/*")
        if path.suffix in (".svg", ".png")
    }
    yield from (f"{name} is shown nowhere." for name in sorted(there - shown))
    yield from (f"{name} is not there." for name in sorted(shown - there))
    for run in RUNS:
        record = json.loads((ASSETS / run.folder / "record.json").read_text())
        if steps_of_run(run, text) != record["commands"]:
            yield f"{run.folder} was made by other commands than those of {run.page}."


def stale_drawings(text: dict[str, str]) -> Iterator[str]:
    """Draw every picture of a kept result again, and compare."""
    for run in RUNS:
        record = json.loads((ASSETS / run.folder / "record.json").read_text())
        with tempfile.TemporaryDirectory() as again:
            draw(run, text, again)
            for name in pictures_of(run, text):
                new, old = Path(again, Path(name).name), ASSETS / name
                if name.endswith(".png"):
                    if record["page"] != page_hash():
                        yield f"{name} shows a page of another template."
                elif not new.is_file():
                    yield f"{name} is drawn from no result beside it."
                elif old.is_file():
                    found = difference(old.read_text(), new.read_text(), same_fonts(record, old))
                    yield from (f"{name}: {each}" for each in found)


def same_fonts(record: dict[str, Any], old: Path) -> bool:
    """Say whether coordinates can be compared: same minor release of matplotlib, its own font."""
    before, today = record["made_with"]["matplotlib"], version("matplotlib")
    return before.split(".")[:2] == today.split(".")[:2] and 'id="DejaVuSans' in old.read_text()


def difference(old: str, new: str, coordinates: bool) -> Iterator[str]:
    """Compare two drawings of matplotlib: texts, colours and, where asked for, coordinates."""
    for what, pattern in (("text", r"<!-- (.*?) -->"), ("colour", r"#[0-9a-f]{6}")):
        first, second = (set(re.findall(pattern, svg)) for svg in (old, new))
        if first != second:
            yield f"{what}: {sorted(first - second)} before, {sorted(second - first)} today."
    if coordinates:
        pairs = itertools.zip_longest(*(tokens(svg) for svg in (old, new)), fillvalue="nothing")
        for before, today in pairs:
            if not near(before, today):
                yield f"drawing: {before[:60]!r} before, {today[:60]!r} today."
                return


def tokens(svg: str) -> list[str]:
    """Split a drawing into numbers and what stands between; leave out names and the date."""
    drawing = re.sub(r'<metadata>.*?</metadata>|(id|href|clip-path)="[^"]*"', "", svg, flags=re.S)
    return TOKEN.findall(drawing)


def near(before: str, today: str) -> bool:
    """Compare two tokens: equal, or numbers within the tolerance."""
    if before == today:
        return True
    try:
        return math.isclose(float(before), float(today), rel_tol=0, abs_tol=TOLERANCE)
    except ValueError:
        return False


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [run.folder for run in RUNS]
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help=f"{', '.join(names)}; the quick ones"
    )
    parser.add_argument("--check", action="store_true", help="say what is stale, run nothing")
    parser.add_argument("--draw", action="store_true", help="draw from kept results, run nothing")
    asked = parser.parse_args()
    if unknown := set(asked.runs) - set(names):
        parser.error(f"run must be one of {', '.join(names)}; got {unknown.pop()!r}.")
    text = pages()
    if asked.check:
        found = list(stale(text))
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    for run in RUNS:
        with tempfile.TemporaryDirectory() as work:
            if asked.draw:
                draw(run, text, work)
                for name in pictures_of(run, text):
                    if name.endswith(".svg"):
                        shutil.copyfile(Path(work, Path(name).name), ASSETS / name)
            elif run.folder in (asked.runs or QUICK):
                make(run, text, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
