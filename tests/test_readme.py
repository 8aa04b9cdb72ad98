"""What the README and the pages promise: set-up lines, Python, pictures, numbers, definitions."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import dimlab
from dimlab.result_file import load_result
from tests.pages import ASSETS, PYTHON, ROOT, TEXT, make

README = TEXT["README.md"]
WORDS = {page: " ".join(text.split()) for page, text in TEXT.items()}
SHORT = """
import dataclasses, dimlab, json, sys
few = dataclasses.replace(dimlab.TrainConfig.small(), steps=20, trace_every=2)
dimlab.TrainConfig.small = classmethod(lambda cls: few)
for page, blocks in json.load(sys.stdin).items():
    exec(compile("\\n".join(blocks), page, "exec"), {})
"""


def test_the_two_set_up_commands_stand_on_lines_of_their_own():
    lines = README.splitlines()
    assert "pip install -e . && dimlab demo" in lines
    assert 'pip install -e ".[dev]" && pytest' in lines
    first = lines.index("pip install -e . && dimlab demo")
    assert lines[first - 1] == "python3 -m venv .venv && . .venv/bin/activate"


def test_the_readme_is_one_page_and_begins_with_your_own_features():
    assert len(README.split()) <= 900
    assert README.count("![") == 1
    assert README.index("## Your own features") < README.index("## A checkpoint")
    assert len(re.findall(r"^\| .*\?.* \| `dimlab ", README, re.M)) == 10


def test_links_between_pages_lead_somewhere():
    texts = {**TEXT, ".github/CONTRIBUTING.md": (ROOT / ".github/CONTRIBUTING.md").read_text()}
    made = {".docs/examples", ".docs/notebooks"}  # when the site is built
    for page, text in texts.items():
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            target = (ROOT / page).parent / link
            if not link.startswith("https://") and not any(
                target.resolve().is_relative_to(ROOT / each) for each in made
            ):
                assert target.exists(), f"{page}: {link}"


@pytest.mark.parametrize("page", [page for page in TEXT if PYTHON[page]])
def test_python_uses_public_names(page):
    public = {"dimlab.datasets", "dimlab.readers", "dimlab.training.losses"}
    for block in PYTHON[page]:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "dimlab":
                names = {alias.name for alias in node.names}
                assert names <= set(dimlab.__all__) or node.module in public, names


@pytest.mark.slow
def test_python_runs_as_it_stands_page_after_page(tmp_path):
    """Each page by itself; the encoders are trained for 20 steps only."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT], cwd=tmp_path, input=json.dumps(PYTHON), text=True,
        capture_output=True, check=False, env={**os.environ, "MPLBACKEND": "agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") > 60  # what it prints


# Pictures and the commands that made them ------------------------------------------------------


def test_pictures_are_what_dimlab_draws_from_their_results_and_made_by_these_commands():
    assert list(make.stale(TEXT)) == []


def test_pictures_are_light():
    for path in ASSETS.rglob("*.[sp][vn]g"):
        assert path.stat().st_size < 150_000, path


@pytest.mark.parametrize(
    ("page", "old", "new", "sentences"),
    [
        (
            ".docs/tour.md", "--reader ridge --score log_loss", "--reader knn",
            ["tour was made by other commands than those of .docs/tour.md."],
        ),
        (
            "README.md", '"train.npz", features=features[:1200]', '"train.npz", features=features',
            ["report was made by other commands than those of README.md."],
        ),
        (
            ".docs/guide/confounded.md", "--factor hue --out", "--factor hue --remove 3 --out",
            ["hue was made by other commands than those of .docs/guide/confounded.md."],
        ),
        (".docs/tour.md", "dimlab demo --out tour", "dimlab demo --out tour  # a remark", []),
        (
            ".docs/tour.md", "(../.assets/tour/report.png)", "(../.assets/tour/x.svg)",
            ["tour/report.png is shown nowhere.", "tour/x.svg is not there."],
        ),
    ],
)  # fmt: skip
def test_other_commands_and_other_pictures_are_stale(page, old, new, sentences):
    assert old in TEXT[page]
    changed = {**TEXT, page: TEXT[page].replace(old, new)}
    assert list(make.stale_commands(changed)) == sentences


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda ax: ax.set_xlabel("other words"), "text: "),
        (lambda ax: ax.collections[0].set_color("#123456"), "colour: "),
        (lambda ax: ax.set_position([0.2, 0.2, 0.7, 0.7]), "drawing: "),
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
    monkeypatch.setattr(make, "RUNS", [run for run in make.RUNS if run.folder == "tour"])
    found = list(make.stale_drawings(TEXT))
    assert any(each.startswith(f"tour/attribution.svg: {sentence}") for each in found)
    assert all(each.startswith("tour/attribution.svg: ") for each in found)


def test_without_the_same_matplotlib_texts_and_colours_are_still_compared():
    svg = (ASSETS / "tour" / "attribution.svg").read_text()
    shifted = svg.replace('transform="translate(', 'transform="translate(1', 1)
    assert list(make.difference(svg, svg, True)) == []
    assert [each[:7] for each in make.difference(svg, shifted, True)] == ["drawing"]
    assert list(make.difference(svg, shifted, False)) == []
    for old, new in (("carries", "has"), ("#0072b2", "#0072b3")):
        assert list(make.difference(svg, svg.replace(old, new), False))
    path = ASSETS / "tour" / "attribution.svg"
    assert not make.same_fonts({"made_with": {"matplotlib": "0.1.2"}}, path)


# The numbers in the tour -----------------------------------------------------------------------


def results_in(folder):
    found = {path.name.partition(".")[0]: load_result(path) for path in folder.glob("*.result.npz")}
    for path in (*folder.glob("verdicts.json"), *folder.glob("*/verdicts.json")):
        found[path.parent.name] = json.loads(path.read_text())
    return found


@pytest.fixture(scope="module")
def kept():
    return results_in(ASSETS / "tour") | {"pixels": results_in(ASSETS)["report"]}


def erased(results, way, what, split="test"):
    erasure = results["attribution"].erasure
    return getattr(erasure, what)[erasure.ways.index(way), erasure.splits.index(split)]


def link(results, name):
    found = results["mask_evolution"].links
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


# what the pages say; the numbers in it; how far they may lie from that with another number of
# threads or on another machine, whose training differs in its last bits and so in all that follows
CLAIMS = [
    (
        "reads {:.0f} % of new digits coloured like those of the train split, and {:.0f} % of the "
        "test digits",
        lambda r: [
            100 * erased(r, "nothing", "accuracy", split) for split in ("in distribution", "test")
        ], 8,
    ),
    (
        "Of {} dimensions {} carry hue beside the label (q ≤ 0.05), and {} lie above the dotted",
        lambda r: [
            len(r["attribution"]), r["attribution"].flagged.sum(),
            r["attribution"].verdicts().count("nuisance"),
        ], [0, 8, 16],
    ),
    (
        "No parameter of the crops explains more than {:.0f} % of any",
        lambda r: [np.ceil(crops(r["attribution"]))], 15,
    ),
    (
        "Without its {} principal directions the R² of the hue falls from {:.2f} to {:.2f}",
        lambda r: [
            len(r["attribution"].erasure.directions), erased(r, "nothing", "factor_r_squared"),
            erased(r, "directions", "factor_r_squared"),
        ], [4, 0.05, 0.15],
    ),
    (
        "accuracy rises by {:.2f} [{:.2f}, {:.2f}]",
        lambda r: erased(r, "directions", "accuracy_change"), 0.08,
    ),
    (
        "Without its {} dimensions the R² is still {:.2f}, and nothing is gained",
        lambda r: [
            len(r["attribution"].erasure.dimensions), erased(r, "dimensions", "factor_r_squared"),
        ], [16, 0.3],
    ),
    (
        "nothing is gained: accuracy changes by {:+.2f} [{:+.2f}, {:+.2f}]",
        lambda r: erased(r, "dimensions", "accuracy_change"), 0.15,
    ),
    (
        "gains nothing: accuracy changes by {:+.2f} [{:+.2f}, {:+.2f}]",
        lambda r: erased(r, "directions", "accuracy_change", "in distribution"), 0.1,
    ),
    (
        "Of {} directions {} are needed and {} are harmful at q ≤ 0.05; the two worst, {} and {},",
        lambda r: [
            len(r["ablate"].importance), len(r["ablate"].needed), len(r["ablate"].harmful),
            *r["ablate"].harmful[:2],
        ], [0, 8, 3, 64, 64],
    ),
    (
        "`off_diagonal_rms` is {:.2f}, where independent ones would give at most {:.2f}",
        lambda r: [
            r["correlation"].off_diagonal_rms, r["correlation"].null_band["off_diagonal_rms"][1],
        ], 0.1,
    ),
    (
        "The weights did move (standard deviation {:.2f}).",
        lambda r: [r["mask_evolution"].weights[-1].std()], 0.06,
    ),
    ("as claimed ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "redundancy"), 0.35),
    ("interval includes 0 ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "nuisance"), 0.45),
    ("no visible link ({:+.2f} [{:+.2f}, {:+.2f}])", lambda r: interval(r, "importance"), 0.35),
    (
        "{} of the {} dimensions that vary repeat others, that {} are dead, and that none is",
        lambda r: repeated(r["pixels"]), 0,
    ),
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=[claim[0][:40] for claim in CLAIMS])
def test_numbers_in_the_tour_are_those_of_its_results(kept, claim):
    text, numbers, _ = claim
    assert text.format(*numbers(kept)) in WORDS["README.md"] + WORDS[".docs/tour.md"]


def test_what_the_tour_says_follows_from_its_results(kept):
    check_what_the_tour_says(kept)


def check_what_the_tour_says(results):
    alike = erased(results, "nothing", "accuracy", "in distribution")
    assert alike - erased(results, "nothing", "accuracy") > 0.2  # "what does it rely on?"
    assert results["attribution"].leading_factor == "hue"
    assert results["attribution"].flagged.mean() > 0.85  # "nearly everywhere"
    assert erased(results, "directions", "factor_r_squared") < 0.2
    assert erased(results, "directions", "accuracy_change")[1] > 0  # "accuracy rises"
    assert abs(erased(results, "random directions", "accuracy_change")[0]) < 0.06  # "little"
    assert erased(results, "random directions", "factor_r_squared") > 0.8
    assert erased(results, "dimensions", "accuracy_change")[1] < 0  # "nothing is gained"
    held_out = erased(results, "directions", "accuracy_change", "in distribution")
    assert held_out[1] <= 0  # "gains nothing"
    carrying = set(results["attribution"].erasure.directions.tolist())
    assert set(results["ablate"].harmful[:2].tolist()) <= carrying
    assert results["ablate"].basis == results["attribution"].erasure.basis == "pca"
    correlation = results["correlation"]
    assert correlation.off_diagonal_rms > 3 * correlation.null_band["off_diagonal_rms"][1]
    assert results["mask_evolution"].moved
    assert link(results, "redundancy").correlation < 0
    assert link(results, "importance").verdict != "agrees"  # "no visible link"
    found = answers(results["tour"])
    assert found["Does taking hue out help the task on test?"] == "yes"
    assert found["Does the mask agree with what dimensions do?"] == "undecided"
    confirmed = "Are dimensions harmful, confirmed on samples that did not choose them?"
    assert found[confirmed] == answers(results["pixels"])[confirmed] == "no"


def test_the_table_of_the_coloured_fashion_images_is_that_of_its_results():
    """With the kNN column, from ``erase --reader knn``, and what stands before the table."""
    page, words = (each[".docs/guide/confounded.md"] for each in (TEXT, WORDS))
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
        assert f"| {' | '.join(cells)} |" in page.replace("**", "")
    found = load_result(ASSETS / "hue" / "attribute.result.npz")
    hue = found.effect[:, found.factors.index("hue")]
    crop = [name.startswith("crop") for name in found.factors]
    assert f"hue explains {hue.max():.2f} of one dimension's variance given the label" in " ".join(
        page.split()
    )
    assert (hue > found.effect[:, crop].max(axis=1)).all()  # "than any crop parameter in every ..."
    assert f"a reader finds it with R² {ridge.factor_r_squared[0, 0]:.3f}" in words
    first, second = np.argsort(-found.nuisance_score)[:2]
    assert f"--dimensions {first},{second}" in page


@pytest.mark.slow
def test_the_tour_and_the_readme_run_and_say_the_same_again(tmp_path):
    own, tour, _ = make.RUNS
    make.execute(make.steps_of_run(own, TEXT), tmp_path)
    assert sum(make.execute(make.steps_of_run(tour, TEXT), tmp_path)) < 300
    results = results_in(tmp_path / "tour") | {"pixels": results_in(tmp_path)["report"]}
    check_what_the_tour_says(results)
    said = results_in(ASSETS / "tour") | {"pixels": results_in(ASSETS)["report"]}
    for text, numbers, tolerance in CLAIMS:
        distance = np.abs(np.subtract(numbers(results), numbers(said)))
        assert (distance <= np.broadcast_to(tolerance, distance.shape)).all(), text
    record = json.loads((ASSETS / "tour" / "record.json").read_text())
    if record["made_with"] != make.surroundings()["made_with"]:
        return  # training is the same to the bit on one machine with one set of versions only
    for name in make.pictures_of(tour, TEXT):
        if name.endswith(".svg"):
            new, old = (folder / name for folder in (tmp_path, ASSETS))
            assert list(make.difference(old.read_text(), new.read_text(), True)) == [], name


@pytest.mark.slow
def test_a_failing_command_of_the_tour_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"dimlab ablate none.pt\nexit code 2\ndimlab ablate: "):
        make.execute(["dimlab ablate none.pt"], tmp_path)


@pytest.mark.slow
def test_make_is_a_command_with_an_exit_code(tmp_path):
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
    lines = TEXT[".docs/glossary.md"].splitlines()
    rows = [line.strip("|").split(" | ") for line in lines if line.startswith("| `")]
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
