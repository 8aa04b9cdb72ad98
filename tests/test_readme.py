"""The README's promises: its set-up lines, its Python, its tour with pictures, its numbers."""

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dimlab
from dimlab.result import load_result

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / ".assets"
README = (ROOT / "README.md").read_text()
WORDS = " ".join(README.split())

_spec = importlib.util.spec_from_file_location("readme_pictures", ASSETS / "make.py")
pictures = importlib.util.module_from_spec(_spec)
sys.modules["readme_pictures"] = pictures  # a dataclass looks its module up
_spec.loader.exec_module(pictures)
TOUR, LONG = pictures.RUNS


def test_the_two_set_up_commands_stand_on_lines_of_their_own():
    lines = README.splitlines()
    assert "pip install -e . && dimlab demo" in lines
    assert 'pip install -e ".[dev]" && pytest' in lines
    first = lines.index("pip install -e . && dimlab demo")
    assert lines[first - 1] == "python3 -m venv .venv && . .venv/bin/activate"


def test_its_python_uses_public_names_and_its_commands_exist():
    from dimlab.cli import COMMANDS

    for block in python_blocks():
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "dimlab":
                assert node.module == "dimlab"
                assert {alias.name for alias in node.names} <= set(dimlab.__all__)
    shell = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    used = set(re.findall(r"\bdimlab ([a-z-]+)", shell))
    assert {"demo", "train", "ablate"} <= used <= set(COMMANDS)


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_its_python_runs_as_it_stands_block_after_block(tmp_path):
    """Later blocks use what earlier ones made; the encoders are trained for 20 steps only."""
    short = (
        "import dataclasses, dimlab\n"
        "_few = dataclasses.replace(dimlab.TrainConfig.small(), steps=20, trace_every=2)\n"
        "dimlab.TrainConfig.small = classmethod(lambda cls: _few)\n"
    )
    (tmp_path / "tour").mkdir()
    (tmp_path / "readme.py").write_text("\n".join([short, *python_blocks()]))
    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") > 20  # what it prints


# Pictures and the commands that made them ------------------------------------------------------


def test_pictures_are_what_dimlab_draws_from_their_results_and_made_by_these_commands():
    assert list(pictures.stale(README)) == []


def test_pictures_are_light_and_three_to_six_belong_to_the_tour():
    shown = pictures.pictures_of(TOUR, README)
    assert 3 <= len(shown) <= 6
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size < 150_000, path


def test_the_tour_is_read_off_the_readme_in_order():
    steps = pictures.steps_of(TOUR, README)
    assert steps[0].startswith("dimlab train --data digits")
    assert all(step.startswith(("dimlab ", "#!python\n")) for step in steps)
    assert not any("#" in step for step in steps if step.startswith("dimlab"))
    assert [step.split()[1] for step in pictures.steps_of(LONG, README)] == [
        "train", "attribute", "erase", "erase",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "sentences"),
    [
        (
            "dimlab train --data digits+hue:0.8", "dimlab train --data digits+hue:0.9",
            {"tour was made by other commands than the README's."},
        ),
        (
            "features[:1200]", "features[:1100]",
            {"tour was made by other commands than the README's."},
        ),
        (
            "dimlab erase runs/hue/checkpoint.pt", "dimlab erase runs/hue/checkpoint.pt --remove 3",
            {"hue was made by other commands than the README's."},
        ),
        ("# no colour jitter", "# another remark", set()),
        (
            "(.assets/tour/report.png)", "(.assets/x.svg)",
            {".assets/x.svg is made by no run.", "tour/report.png is shown nowhere."},
        ),
        (
            "(.assets/tour/report.png)", "(.assets/tour/report.png) ![b](.assets/tour/b.svg)",
            {"tour/b.svg is not there."},
        ),
    ],
)  # fmt: skip
def test_other_commands_and_other_pictures_are_stale(old, new, sentences):
    assert old in README
    assert set(pictures.stale_commands(README.replace(old, new))) == sentences


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda ax: ax.set_xlabel("other words"), "text: "),
        (lambda ax: ax.collections[0].set_color("#123456"), "style: "),
        (lambda ax: ax.set_ylim(-1, 1), "text: "),
        (lambda ax: ax.collections[0].remove(), "style: "),
        (lambda ax: ax.set_position([0.2, 0.2, 0.7, 0.7]), "places: moved by up to "),
    ],
)
def test_another_drawing_makes_its_pictures_stale(monkeypatch, changed, sentence):
    from dimlab import figures

    drawn = figures.plot_attribution

    def otherwise(result, *, ax=None):
        changed(drawn(result, ax=ax))
        return ax

    otherwise.__doc__ = drawn.__doc__
    monkeypatch.setattr(figures, "plot_attribution", otherwise)
    found = list(pictures.stale_drawings(README))
    assert found
    assert all(each.startswith("tour/attribute.svg: ") for each in found)
    assert any(sentence in each for each in found)


def test_without_the_same_matplotlib_texts_and_colours_are_still_compared():
    svg = (ASSETS / "tour" / "attribute.svg").read_text()
    shifted = svg.replace('transform="translate(', 'transform="translate(1', 1)
    assert list(pictures.differences(svg, svg)) == []
    assert any("places" in each for each in pictures.differences(svg, shifted))
    assert list(pictures.differences(svg, shifted, measured=False)) == []
    other = svg.replace("carries most of", "carries")
    assert any("text" in each for each in pictures.differences(svg, other, measured=False))
    other = svg.replace("#0072b2", "#0072b3")
    assert any("style" in each for each in pictures.differences(svg, other, measured=False))
    record = {"made_with": {"matplotlib": "0.1.2"}}
    assert not pictures.comparable(svg, svg, record)


# The numbers in the tour -----------------------------------------------------------------------


def results_in(folder):
    found = {path.name.partition(".")[0]: load_result(path) for path in folder.glob("*.result.npz")}
    for path in folder.glob("*/verdicts.json"):
        found[path.parent.name] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def kept():
    return results_in(ASSETS / "tour")


def read(results, reader, *sources):
    means = results["evaluate"].over_seeds().set_index(["reader", "source", "mask"])["accuracy"]
    return [100 * means[reader, source, "none"] for source in sources]


def erased(results, way, what, split="test"):
    erasure = results["attribute"].erasure
    return getattr(erasure, what)[erasure.ways.index(way), erasure.splits.index(split)]


def link(results, name):
    found = results["follow"].links
    return next(each for each in found if (each.link, each.mask) == (name, "learned"))


def interval(results, name):
    return [getattr(link(results, name), each) for each in ("correlation", "ci_low", "ci_high")]


def crops(attribution):
    names = [name.startswith("crop") for name in attribution.factors]
    return 100 * np.nanmax(attribution.effect[:, names])


def answers(verdicts):
    return {each["question"]: each["answer"] for each in verdicts}


def repeated(verdicts):
    words = next(each["because"] for each in verdicts if "redundant" in each["question"])
    pattern = r"(\d+) of (\d+) dimensions that vary share a group .*?(\d+) are dead"
    return [int(number) for number in re.match(pattern, words).groups()]


# what the README says; the numbers in it; how far they may lie from that on another machine, whose
# training differs in its last bits and so in all that follows
CLAIMS = [
    (
        "A ridge reader finds {:.0f} % of the test digits in raw pixels, {:.0f} % behind the "
        "untrained encoder and {:.0f} % behind the trained one",
        lambda r: read(r, "ridge", "raw pixels", "untrained", "trained"), 8,
    ),
    (
        "finds an image by its second view more often ({:.0f} %; untrained {:.0f} %)",
        lambda r: read(r, "view-retrieval", "trained", "untrained"), 10,
    ),
    (
        "All {} carry hue beside the label (q ≤ 0.05), and {} lie above the dotted line",
        lambda r: [r["attribute"].flagged.sum(), r["attribute"].verdicts().count("nuisance")], 8,
    ),
    (
        "No parameter of the crops explains more than {:.0f} % of any",
        lambda r: [np.ceil(crops(r["attribute"]))], 15,
    ),
    (
        "Without {} principal directions (orange) R² of hue falls from {:.2f} to {:.2f}",
        lambda r: [
            len(r["attribute"].erasure.directions), erased(r, "nothing", "factor_r_squared"),
            erased(r, "directions", "factor_r_squared"),
        ], [4, 0.05, 0.1],
    ),
    (
        "accuracy rises by {:.2f} [{:.2f}, {:.2f}]",
        lambda r: erased(r, "directions", "accuracy_change"), 0.08,
    ),
    (
        "Without the {} dimensions (blue) R² is still {:.2f}, and accuracy falls by {:.2f}.",
        lambda r: [
            len(r["attribute"].erasure.dimensions), erased(r, "dimensions", "factor_r_squared"),
            -erased(r, "dimensions", "accuracy_change")[0],
        ], [8, 0.6, 0.15],
    ),
    (
        "Of {} directions {} are needed and {} harmful at q ≤ 0.05; the three worst, "
        "{}, {} and {},",
        lambda r: [
            len(r["ablate"].importance), len(r["ablate"].needed), len(r["ablate"].harmful),
            *r["ablate"].harmful[:3],
        ], [0, 8, 4, 64, 64, 64],
    ),
    (
        "look at `off_diagonal_rms`, {:.2f}, where independent ones would give at most {:.2f}",
        lambda r: [
            r["correlate"].off_diagonal_rms, r["correlate"].null_band["off_diagonal_rms"][1],
        ], 0.1,
    ),
    (
        "The weights did move (standard deviation {:.2f}).",
        lambda r: [r["follow"].weights[-1].std()], 0.06,
    ),
    ("as claimed ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "redundancy"), 0.35),
    ("no visible link ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "importance"), 0.35),
    ("but barely ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "nuisance"), 0.45),
    (
        "{} of the {} pixels that vary repeat others, {} are dead, none is confirmed as harmful.",
        lambda r: repeated(r["pixels"]), 0,
    ),
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim[0][:40] for claim in CLAIMS])
def test_numbers_in_the_tour_are_those_of_its_results(kept, claim):
    text, numbers, _ = claim
    assert text.format(*numbers(kept)) in WORDS


def test_what_the_tour_says_follows_from_its_results(kept):
    check_what_the_tour_says(kept)


def check_what_the_tour_says(results):
    pixels, untrained, trained = read(results, "ridge", "raw pixels", "untrained", "trained")
    assert trained < untrained < pixels  # "Training made it worse for digits"
    first, second = read(results, "view-retrieval", "trained", "untrained")
    assert first > 1.5 * second
    assert results["attribute"].leading_factor == "hue"  # "hue is everywhere"
    assert results["attribute"].flagged.mean() > 0.9
    assert erased(results, "directions", "factor_r_squared") < 0.1
    assert erased(results, "directions", "accuracy_change")[1] > 0  # "accuracy rises"
    assert abs(erased(results, "random directions", "accuracy_change")[0]) < 0.06  # "little"
    assert erased(results, "random directions", "factor_r_squared") > 0.8
    assert erased(results, "dimensions", "accuracy_change")[2] < 0  # "accuracy falls"
    held_out = erased(results, "directions", "accuracy_change", "in distribution")
    assert held_out[0] < 0.02  # "gains nothing"
    carrying = set(results["attribute"].erasure.directions.tolist())
    assert set(results["ablate"].harmful[:3].tolist()) <= carrying  # "among those that carry hue"
    assert results["ablate"].basis == results["attribute"].erasure.basis == "pca"
    correlation = results["correlate"]
    assert correlation.off_diagonal_rms > 3 * correlation.null_band["off_diagonal_rms"][1]
    assert results["follow"].moved
    assert link(results, "redundancy").correlation < 0
    assert link(results, "nuisance").correlation < 0
    assert link(results, "importance").verdict != "agrees"  # "no visible link"
    found = answers(results["report"])
    assert found["Does taking hue out help the task on test?"] == "yes"
    assert found["Does the mask agree with what dimensions do?"] == "undecided"
    confirmed = "Are dimensions harmful, confirmed on samples that did not choose them?"
    assert found[confirmed] == answers(results["pixels"])[confirmed] == "no"


def test_the_table_of_the_coloured_fashion_images_is_that_of_its_results():
    """With the kNN column, from ``erase --reader knn``, and what stands before the table."""
    ridge = load_result(ASSETS / "hue" / "erase.result.npz")
    knn = load_result(ASSETS / "hue" / "knn" / "erase.result.npz")
    named = {
        "nothing": "nothing",
        "dimensions": f"the {len(ridge.dimensions)} dimensions that carry more hue than label",
        "random dimensions": "as many random dimensions",
        "directions": f"the {len(ridge.directions)} principal directions that do",
        "random directions": "as many random directions",
        "LEACE": "LEACE",
    }
    for way, name in named.items():
        w = ridge.ways.index(way)
        cells = [name, f"{ridge.factor_r_squared[w, 0]:.3f}"]
        for result, split in ((ridge, 0), (ridge, 1), (knn, 0)):
            change = result.accuracy_change[w, split]
            if way == "nothing":
                cells.append(f"{result.accuracy[w, split]:.3f}")
            elif "random" in way:
                cells.append(f"{change[0]:+.3f}")
            else:
                cells.append("{:+.3f} [{:+.3f}, {:+.3f}]".format(*change))
        assert f"| {' | '.join(cells)} |" in README.replace("**", "")
    found = load_result(ASSETS / "hue" / "attribute.result.npz")
    hue = found.effect[:, found.factors.index("hue")]
    crop = [name.startswith("crop") for name in found.factors]
    assert f"hue explains {hue.max():.2f} of one dimension's error given the label" in WORDS
    assert (hue > found.effect[:, crop].max(axis=1)).all()  # "than any crop parameter in every ..."
    assert f"a reader finds it with R² {ridge.factor_r_squared[0, 0]:.3f}" in WORDS
    first, second = np.argsort(-found.nuisance_score)[:2]
    assert f"--dimensions {first},{second}" in README


@pytest.mark.slow
def test_the_tour_runs_and_says_the_same_again(tmp_path):
    seconds = pictures.execute(pictures.steps_of(TOUR, README), tmp_path)
    assert sum(seconds) < 300
    results = results_in(tmp_path / "tour")
    check_what_the_tour_says(results)
    for text, numbers, tolerance in CLAIMS:
        said = numbers(results_in(ASSETS / "tour"))
        distance = np.abs(np.subtract(numbers(results), said))
        assert (distance <= np.broadcast_to(tolerance, distance.shape)).all(), text
    record = json.loads((ASSETS / "tour" / pictures.RECORD).read_text())
    if record["made_with"] != pictures.surroundings():
        return  # training is the same to the bit on one machine with one set of versions only
    for name in pictures.pictures_of(TOUR, README):
        if name.endswith(".svg"):
            new, old = (folder / name for folder in (tmp_path, ASSETS))
            assert list(pictures.differences(old.read_text(), new.read_text())) == [], name


def test_a_failing_command_of_the_tour_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"dimlab ablate none.pt\nexit code 2\ndimlab ablate: "):
        pictures.execute(["dimlab ablate none.pt"], tmp_path)


@pytest.mark.slow
def test_pictures_dot_py_is_a_command_with_an_exit_code(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, ASSETS / "make.py", *arguments], capture_output=True, text=True,
            check=False, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    found = call("--check")
    assert (found.returncode, found.stdout) == (0, "")
    assert call("nothing").returncode == 2


# The table of definitions ----------------------------------------------------------------------


def definitions():
    table = README.partition("## What each number is\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def test_every_defined_number_is_one_of_the_result_that_is_named():
    import dimlab.probes

    rows = definitions()
    assert len(rows) > 25
    named = set()
    for names, _, _, where in rows:
        assert re.fullmatch(r"`\w+`(, `\w+`)*", where), where
        for each in re.findall(r"\w+", where):
            function = getattr(dimlab, each)
            named.add(function.__name__)
            known = inspect.getdoc(function)
            result = inspect.signature(function).return_annotation
            if hasattr(dimlab, str(result)):
                kind = getattr(dimlab, result)
                known += " ".join([inspect.getdoc(kind), *dir(kind)])
            for name in re.findall(r"`([\w-]+)`", names):
                assert re.search(rf"\b{name}\b", known), f"{name} is nowhere in {each}"
    assert named >= set(dimlab.probes.__all__) - {"ablate_cumulatively"}
