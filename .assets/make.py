"""The README's pictures: made by the README's own commands, and checked against them.

    python .assets/make.py                run the tour's commands, replace its pictures
    python .assets/make.py hue            the same for a longer run (Fashion-MNIST, three minutes)
    python .assets/make.py --check        say what is stale, running no command; exit code 1

The picture ``.assets/tour/ablate.svg`` is the file ``tour/ablate.svg`` that the commands wrote.
Beside the pictures lie the results that they show, whole, and ``record.json``: the commands, what
each took, and the versions. A picture is stale when the README names other commands, or when the
figure that today's dimlab draws from the result is another one.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
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

import numpy as np

ASSETS = Path(__file__).resolve().parent
README = ASSETS.parent / "README.md"
TEMPLATE = ASSETS.parent / "dimlab" / "report" / "template.html"
RECORD = "record.json"
KEPT = ("*.result.npz", "knn/*.result.npz", "*/verdicts.json")  # what its numbers are of
THREADS = 2  # another number sums in another order, and training ends elsewhere
TOLERANCE = 0.5  # points, of pictures 540 points wide: what a patch of matplotlib may move
PALETTE = 256  # colours of a picture of a page
PACKAGES = ("matplotlib", "seaborn", "numpy", "scipy", "scikit-learn", "torch", "kornia")


@dataclass(frozen=True)
class Run:
    """Commands of the README, and the folder that they write.

    Parameters
    ----------
    folder : str
        Below ``.assets``, and of the commands (or ``runs/<folder>``).
    section : str
        Its title.
    begins : tuple of str
        The commands that begin so; all of the section by default.
    """

    folder: str
    section: str
    begins: tuple[str, ...] = ("",)


RUNS = (
    Run("tour", "A five-minute tour"),
    Run(
        "hue",
        "What dimensions carry",
        ("dimlab train ", "dimlab attribute runs/hue/", "dimlab erase "),
    ),
)


def steps_of(run: Run, readme: str) -> list[str]:
    """Read the commands of a run: lines of shell, and whole blocks of Python.

    Parameters
    ----------
    run : Run
        Which.
    readme : str
        The README.

    Returns
    -------
    list of str
        Shell without its comments; Python as ``python -c '...'`` would take it, after a ``#!``.
    """
    found = re.search(rf"^## {re.escape(run.section)}\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    if found is None:
        raise ValueError(f"README must have a section {run.section!r}; got none.")
    steps = []
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", found[1], re.M | re.S):
        if language == "python":
            steps.append(f"#!python\n{block}")
            continue
        lines = block.replace("\\\n", " ").splitlines()
        steps += [" ".join(line.partition(" #")[0].split()) for line in lines]
    return [step for step in steps if step.startswith(run.begins) and step]


def pictures_of(run: Run, readme: str) -> list[str]:
    """Read which pictures of a run the README shows.

    Parameters
    ----------
    run : Run
        Which.
    readme : str
        The README.

    Returns
    -------
    list of str
        Paths below ``.assets``.
    """
    shown = re.findall(r"!\[[^\]]*\]\(\.assets/([^)\s]+)\)", readme)
    return sorted({path for path in shown if path.startswith(f"{run.folder}/")})


def execute(steps: list[str], folder: Path) -> list[float]:
    """Run commands one after the other, as a reader of the README would.

    Parameters
    ----------
    steps : list of str
        Of `steps_of`.
    folder : Path
        Where.

    Returns
    -------
    list of float
        Seconds of each.

    Raises
    ------
    RuntimeError
        If one fails, with the last lines that it printed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": str(THREADS)}
    environment["OMP_WAIT_POLICY"] = "passive"  # other processes may need the core meanwhile
    seconds = []
    for step in steps:
        python = step.removeprefix("#!python\n")
        command = ["bash", "-c", step] if python == step else [sys.executable, "-c", python]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds.append(round(time.perf_counter() - started, 1))
        print(f"{seconds[-1]:6.1f} s  {step.splitlines()[-1]}", flush=True)
        if done.returncode:
            raise RuntimeError(f"{step}\nexit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


def make(run: Run, readme: str, *, work: Path) -> None:
    """Run the commands and replace the pictures, the results and the record.

    Parameters
    ----------
    run : Run
        Which.
    readme : str
        The README.
    work : Path
        An empty folder to run them in.
    """
    steps, target = steps_of(run, readme), ASSETS / run.folder
    seconds = execute(steps, work)
    made = work / "runs" if (work / "runs" / run.folder).is_dir() else work
    before = target / "report.png"
    old_page = before.read_bytes() if before.is_file() else None
    shutil.rmtree(target, ignore_errors=True)
    for pattern in KEPT:
        for path in (made / run.folder).glob(pattern):
            kept = target / path.relative_to(made / run.folder)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)
    for name in pictures_of(run, readme):
        picture = ASSETS / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        if picture.suffix == ".svg":
            shutil.copyfile(made / name, picture)
        elif not photograph(made / name.removesuffix(".png") / "report.html", picture):
            print(f"no chromium: {name} stays as it was", file=sys.stderr)
            if old_page is not None:
                picture.write_bytes(old_page)
    record = {
        "commands": steps,
        "seconds": seconds,
        "page": template_hash() if (target / "report.png").is_file() else None,
        "made_with": surroundings(),
    }
    (target / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def surroundings() -> dict[str, Any]:
    """Name what training depends on: versions, processor, threads.

    Returns
    -------
    dict
        Ready for JSON.
    """
    import dimlab

    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.is_file() else []
    return {
        "python": platform.python_version(),
        "dimlab": dimlab.__version__,
        **{name: version(name) for name in PACKAGES},
        "processor": names[0] if names else platform.processor(),
        "threads": THREADS,
    }


def photograph(page: Path, picture: Path) -> bool:
    """Take a picture of the top of a page.

    Parameters
    ----------
    page : Path
        HTML.
    picture : Path
        PNG to be written.

    Returns
    -------
    bool
        False where there is no chromium.
    """
    from PIL import Image

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--disable-background-networking", f"--user-data-dir={profile}",
                "--window-size=1000,1230", f"--screenshot={picture}", page.as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(PALETTE)
    few.save(picture, optimize=True)
    return True


def template_hash() -> str:
    """Hash the template of the page, which a picture of the page shows.

    Returns
    -------
    str
        SHA-256.
    """
    return hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()


def stale(readme: str) -> Iterator[str]:
    """Compare pictures with the README's commands and with what dimlab draws today.

    Parameters
    ----------
    readme : str
        The README.

    Yields
    ------
    str
        A sentence on each thing that is stale.
    """
    yield from stale_commands(readme)
    yield from stale_drawings(readme)


def stale_commands(readme: str) -> Iterator[str]:
    """Compare what the README shows and runs with what was made.

    Parameters
    ----------
    readme : str
        The README.

    Yields
    ------
    str
        A sentence on each thing that is stale.
    """
    known = {name for run in RUNS for name in pictures_of(run, readme)}
    for name in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", readme):
        if name.removeprefix(".assets/") not in known:
            yield f"{name} is made by no run."
    for run in RUNS:
        folder = ASSETS / run.folder
        if not (folder / RECORD).is_file():
            yield f"{run.folder} was never made."
            continue
        if steps_of(run, readme) != json.loads((folder / RECORD).read_text())["commands"]:
            yield f"{run.folder} was made by other commands than the README's."
        there = {f"{run.folder}/{path.name}" for path in folder.iterdir()}
        for name in sorted(there - known):
            if name.endswith((".svg", ".png")):
                yield f"{name} is shown nowhere."
        for name in pictures_of(run, readme):
            if name not in there:
                yield f"{name} is not there."


def stale_drawings(readme: str) -> Iterator[str]:
    """Draw every picture of a result again, and compare.

    Parameters
    ----------
    readme : str
        The README.

    Yields
    ------
    str
        A sentence on each difference.
    """
    from dimlab.report import write_result
    from dimlab.result import load_result

    for run in RUNS:
        folder = ASSETS / run.folder
        names = [name for name in pictures_of(run, readme) if (ASSETS / name).is_file()]
        if not names or not (folder / RECORD).is_file():
            continue
        record = json.loads((folder / RECORD).read_text())
        with tempfile.TemporaryDirectory() as again:
            for path in folder.glob("*.result.npz"):
                stem = path.name.partition(".")[0]
                if any(f"{Path(name).stem}-".startswith(f"{stem}-") for name in names):
                    try:
                        write_result(again, stem, load_result(path))
                    except ValueError as error:
                        yield f"{run.folder}/{path.name} can be read no more: {error}"
            for name in names:
                drawn, path = Path(again, Path(name).name), ASSETS / name
                if path.suffix == ".png":
                    if record["page"] != template_hash():
                        yield f"{name} shows a page of another template."
                elif not drawn.is_file():
                    yield f"{name} is drawn of no result beside it."
                else:
                    old, new = (each.read_text(encoding="utf-8") for each in (path, drawn))
                    for each in differences(old, new, measured=comparable(old, new, record)):
                        yield f"{name}: {each}"


def comparable(old: str, new: str, record: dict[str, Any]) -> bool:
    """Say whether coordinates of two drawings may be compared.

    Parameters
    ----------
    old, new : str
        SVG of matplotlib.
    record : dict
        Of the old one.

    Returns
    -------
    bool
        False for another minor version of matplotlib, which may lay out otherwise, and for another
        font: seaborn's style takes Arial, where a machine has it, before matplotlib's own.
    """
    before, today = record["made_with"]["matplotlib"], version("matplotlib")
    return before.split(".")[:2] == today.split(".")[:2] and _fonts(old) == _fonts(new)


def differences(old: str, new: str, *, measured: bool = True) -> Iterator[str]:
    """Compare two drawings: texts exactly, colours, and places within a tolerance.

    Parameters
    ----------
    old, new : str
        SVG of matplotlib, which writes each text into a comment beside its glyphs.
    measured : bool, default=True
        Compare numbers of shapes and coordinates too.

    Yields
    ------
    str
        What differs, the first of each kind.
    """
    for what, pattern in (("text", r"<!-- (.*?) -->"), ("style", r'style="([^"]*)"')):
        first, second = (re.findall(pattern, svg, re.S) for svg in (old, new))
        if what == "style" and not measured:  # shapes may be cut otherwise, colours may not change
            first, second = (
                sorted(set(re.findall(r"#[0-9a-f]{6}", " ".join(each)))) for each in (first, second)
            )
        if first != second:
            lost = [each for each in first if each not in second]
            come = [each for each in second if each not in first]
            yield f"{what}: {lost[:3] or len(first)} before, {come[:3] or len(second)} today."
    if not measured:
        return
    first, second = _numbers(old), _numbers(new)
    if len(first) != len(second):
        yield f"coordinates: {len(first)} before, {len(second)} today."
    elif len(first) and (furthest := float(np.abs(first - second).max())) > TOLERANCE:
        yield f"places: moved by up to {furthest:.1f} points."
    pixels = [_pixels(svg) for svg in (old, new)]
    if [each.shape for each in pixels[0]] != [each.shape for each in pixels[1]]:
        yield "pixels: other sizes."
    elif any(np.abs(a - b).mean() > 1 for a, b in zip(*pixels, strict=True)):
        yield "pixels: other colours."


def _fonts(svg: str) -> set[str]:
    return set(re.findall(r'id="(\w+)-[0-9a-f]+" d="', svg))


def _numbers(svg: str) -> np.ndarray:
    places = re.findall(r'\s(?:d|x|y|width|height|transform|viewBox)="([^"]*)"', svg)
    return np.array(re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", " ".join(places)), dtype=float)


def _pixels(svg: str) -> list[np.ndarray]:
    from PIL import Image

    found = []
    for text in re.findall(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)", svg):
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            found.append(np.asarray(image.convert("RGBA"), dtype=float))
    return found


def main() -> int:
    """Do what the command line says.

    Returns
    -------
    int
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [run.folder for run in RUNS]
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{', '.join(names)}; the tour")
    parser.add_argument("--check", action="store_true", help="say what is stale, run nothing")
    asked = parser.parse_args()
    for name in asked.runs:
        if name not in names:
            parser.error(f"run must be one of {', '.join(names)}; got {name!r}.")
    readme = README.read_text(encoding="utf-8")
    if asked.check:
        found = list(stale(readme))
        for sentence in found:
            print(sentence)
        return 1 if found else 0
    for run in RUNS:
        if run.folder in (asked.runs or ["tour"]):
            with tempfile.TemporaryDirectory() as work:
                make(run, readme, work=Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
