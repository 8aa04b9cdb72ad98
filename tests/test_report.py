"""The report: verdicts with their rules, one table of dimensions, whole results drawn again."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from pathlib import Path

import html5lib
import numpy as np
import pandas as pd
import pytest

from dimlab._examine import examine
from dimlab.io.files import digest
from dimlab.mask import DimensionMask, MaskTrace
from dimlab.probes.ablate import ablate
from dimlab.probes.attribute import attribute
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.follow import follow
from dimlab.report import redraw_report, verdicts_of, write_report, write_result
from dimlab.report.dimensions import dimensions_of
from dimlab.representation import Representation
from dimlab.result_file import load_result, save_result

EVIL = "<script>alert('x')</script>"


def splits(n_dimensions=8, n=240, **meta):
    """Train and test with a nuisance whose name is hostile, and two views of test."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    found = []
    for _ in range(2):
        x = rng.normal(size=n)
        features = rng.normal(size=(n, n_dimensions)) + np.outer(
            labels, [2, 1] + [0] * (n_dimensions - 2)
        )
        features[:, 2] += 2 * x
        features[:, 3] = features[:, 2] + 0.1 * rng.normal(size=n)
        views = features + 0.3 * rng.normal(size=(2, *features.shape))
        found.append(Representation(features, labels=labels, factors={EVIL: x}, views=views))
    return found


@pytest.fixture(scope="module")
def results():
    train, test = splits()
    rng = np.random.default_rng(1)
    trace = MaskTrace(np.arange(3), rng.uniform(0.2, 0.8, size=(3, 8)))
    return examine(
        train, test, in_distribution=train, trace=trace, mask=DimensionMask(trace.weights[-1]),
        n_permutations=50,
    )  # fmt: skip


def test_a_factor_of_samples_is_taken_out_where_views_have_factors_too():
    train, test = splits()
    crops = np.random.default_rng(2).normal(size=(2, len(test)))
    with_views = examine(
        train, replace(test, view_factors={"crop": crops}), in_distribution=train, n_permutations=20
    )
    plain = examine(train, replace(test, views=None), in_distribution=train, n_permutations=20)
    assert with_views["attribution"].factors == (EVIL, "crop")
    same(with_views["attribution"].erasure, plain["attribution"].erasure)
    questions = [each.question for each in verdicts_of(with_views)]
    assert f"Does taking {EVIL} out help the task on test?" in questions


def same(first, second):
    """Whether two results hold the same values, arrays and results within them included."""
    if hasattr(first, "__dataclass_fields__"):
        assert type(first) is type(second)
        for each in fields(first):
            same(getattr(first, each.name), getattr(second, each.name))
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, (tuple, list)):
        assert type(first) is type(second)
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            same(a, b)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            same(first[key], second[key])
    else:
        assert first == second or (first != first and second != second)


def test_every_result_is_saved_whole_and_comes_back_equal(results, tmp_path):
    assert set(results) == {
        "evaluation", "ablation", "masked_scores", "harmful", "correlation", "spectrum",
        "redundancy", "profile", "attribution", "suspects", "mask_evolution", "risk_bound",
    }  # fmt: skip
    for name, result in results.items():
        path = save_result(tmp_path / f"{name}.result.npz", result)
        again = load_result(path)
        same(result, again)
        pd.testing.assert_frame_equal(again.to_frame(), result.to_frame())
        first = path.read_bytes()
        assert save_result(path, result).read_bytes() == first


def test_a_damaged_result_is_refused_and_no_code_is_run(results, tmp_path):
    path = save_result(tmp_path / "a.result.npz", results["spectrum"])
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"^a\.result\.npz must be a whole result"):
            load_result(path)
    for kind in ("os:system", "dimlab.probes.decompose:decompose", "dimlab.cli:run", "x"):
        tree = {"format": "dimlab-result-1", "result": {"class": kind, "fields": {}}}
        np.savez(path, tree=np.array(json.dumps(tree)))
        with pytest.raises(ValueError, match="must be a whole result"):
            load_result(path)
    with pytest.raises(FileNotFoundError, match=r"^result must be a file"):
        load_result(tmp_path / "none.result.npz")
    with pytest.raises(ValueError, match=r"^path must end in \.result\.npz; got 'a\.npz'\.$"):
        save_result(tmp_path / "a.npz", results["spectrum"])
    with pytest.raises(TypeError, match="result must hold arrays, numbers and text; got set"):
        save_result(path, replace(results["spectrum"], caution={1}))


def test_the_page_is_valid_small_harmless_and_repeatable(results, tmp_path):
    results = {name: results[name] for name in ("ablation", "attribution", "redundancy")}
    provenance = {"seed": 0, "command": EVIL}
    page = write_report(tmp_path / "a", results, title=EVIL, provenance=provenance)
    text = page.read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(text)  # raises where the standard is not kept
    assert EVIL not in text
    assert text.count("<script>") == 1  # the table's own
    for word in ("http:", "https:", "@import", "url(", 'src="/', "stylesheet"):
        assert word not in text
    # a phone gets a picture of its own, and every picture says how to read it
    assert text.count("<picture>") == text.count('media="(max-width: 34rem)"')
    assert text.count("<picture>") == text.count("<figcaption>How to read it: ") > 2
    assert json.loads((tmp_path / "a" / "ablation.json").read_text())["n_dimensions"] == 8
    assert len((tmp_path / "a" / "ablation.csv").read_text().splitlines()) == 9
    changed = write_report(tmp_path / "b", results, title=EVIL, provenance={"seed": 1})
    assert changed.read_text().split("<footer>")[0] == text.split("<footer>")[0]
    assert names_in(tmp_path / "a") == names_in(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        if path.name not in ("report.html", "provenance.json", "report.json"):
            assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_a_report_is_drawn_again_from_what_it_kept(results, tmp_path):
    page = write_report(tmp_path / "a", results, headline=["one"], provenance={"seed": 0})
    again = redraw_report(tmp_path / "a", out=tmp_path / "b")
    assert again.read_text() == page.read_text()
    redraw_report(tmp_path / "b", figure_format="png")
    assert (tmp_path / "b" / "ablation.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileNotFoundError, match=r"^folder must hold a report of dimlab"):
        redraw_report(tmp_path)
    (tmp_path / "b" / "report.json").write_text("{")
    with pytest.raises(ValueError, match="must be whole; got a damaged file"):
        redraw_report(tmp_path / "b")


def names_in(folder):
    return {each.name for each in folder.iterdir()}


@pytest.mark.slow
def test_what_an_older_report_wrote_leaves_unless_it_is_somebody_elses(results, tmp_path):
    folder, alone = tmp_path / "a", tmp_path / "b"
    write_report(folder, results)
    old = names_in(folder)
    fewer = {"spectrum": results["spectrum"]}
    write_report(alone, fewer)
    (folder / "ablation.csv").write_text("changed by hand")
    (folder / "mine.svg").write_text("mine")
    write_result(folder, "redundancy", results["redundancy"], provenance={"seed": 0})
    kept = {name for name in names_in(folder) if name.startswith("redundancy")}
    write_report(folder, fewer)
    assert names_in(folder) == names_in(alone) | {"ablation.csv", "mine.svg"} | kept
    assert len(old - names_in(folder)) > 10  # control
    for name in names_in(alone):
        assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
    write_report(folder, results)  # and back
    assert names_in(folder) == old | {"mine.svg", "redundancy.provenance.json"}


def test_a_list_of_files_that_is_not_dimlabs_removes_nothing(tmp_path):
    class Numbers:
        def to_frame(self):
            return pd.DataFrame({"value": [1.0]})

        def summary(self):
            return {"n": 1}

    fewer, folder = {"numbers": Numbers()}, tmp_path / "a"
    write_report(folder, fewer)
    (tmp_path / "outside.csv").write_bytes(b"outside")
    (folder / "mine.csv").write_bytes(b"mine")
    before, path = names_in(folder), folder / "report.json"
    for listed in (
        None, [], {}, "a", {"../outside.csv": digest(b"outside")}, {"mine.csv": digest(b"other")},
        {"": digest(b"")}, {"mine.csv": 1}, [["mine.csv", "a"]], {".": digest(b"")},
    ):  # fmt: skip
        path.write_text(json.dumps(json.loads(path.read_text()) | {"files": listed}))
        write_report(folder, fewer)
        assert (names_in(folder), names_in(tmp_path)) == (before, {"a", "outside.csv"}), listed


def test_drawn_again_in_place_nothing_leaves(results, tmp_path):
    class Other(type(results["spectrum"])):  # none of dimlab's own: not kept whole
        pass

    other = Other(**vars(results["spectrum"]))
    write_report(tmp_path, {"spectrum": results["spectrum"], "other": other})
    before = names_in(tmp_path)
    assert "other.result.npz" not in before
    redraw_report(tmp_path, figure_format="png")
    assert before < names_in(tmp_path)
    assert "other.csv" in before
    write_report(tmp_path, {"trace": results["mask_evolution"]})  # it knows of all of them
    assert {name.partition(".")[0] for name in names_in(tmp_path)}.isdisjoint({"other", "spectrum"})


@pytest.mark.parametrize(
    ("kind", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_figures_come_in_the_format_asked_for(results, tmp_path, kind, magic):
    files = write_result(tmp_path / "a", "spectrum", results["spectrum"], figure_format=kind)
    assert files[kind].read_bytes().startswith(magic)
    first = files[kind].read_bytes()
    again = write_result(tmp_path / "b", "spectrum", results["spectrum"], figure_format=kind)
    assert again[kind].read_bytes() == first


def test_an_unknown_format_is_refused_before_anything_is_written(results, tmp_path):
    for call in (write_report, write_result):
        arguments = ({"a": results["spectrum"]},) if call is write_report else (
            "a", results["spectrum"],
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"^format must be one of svg, png, pdf; got 'gif'\.$"):
            call(tmp_path / "x", *arguments, figure_format="gif")
    assert not (tmp_path / "x").exists()


def test_the_table_joins_what_each_result_says_of_a_dimension(results):
    frame, titles = dimensions_of(results)
    assert list(titles) == list(frame.columns)
    np.testing.assert_array_equal(frame["dimension"], np.arange(8))
    np.testing.assert_array_equal(frame["importance"], results["ablation"].importance)
    np.testing.assert_array_equal(frame["r_squared"], results["redundancy"].r_squared)
    np.testing.assert_array_equal(frame["mask_weight"], results["mask_evolution"].weights[-1])
    assert frame["carries"][2] == EVIL
    assert frame["verdict"][2] == "nuisance"
    empty, none = dimensions_of({"spectrum": results["spectrum"]})
    assert len(empty) == 0
    assert none == {}


# Verdicts ------------------------------------------------------------------------------------


def answer(verdicts, start):
    return next(each.answer for each in verdicts if each.question.startswith(start))


def test_verdicts_follow_their_rules(results):
    verdicts = verdicts_of(results)
    first = [each.question.split()[0] for each in verdicts]
    assert first == ["Is", *["Are"] * 3, *["Do"] * 2, *["Does"] * 4]
    assert answer(verdicts, "Are the features") == "no"
    assert answer(verdicts, "Do dimensions carry") == "yes"
    for each in verdicts:
        assert each.answer in ("yes", "no", "undecided")
        assert each.rule.startswith("Yes: ")
        assert any(char.isdigit() for char in each.because) or "Undefined" in each.because


def test_collapse_is_called_so():
    rng = np.random.default_rng(2)
    direction = rng.normal(size=(1, 64))
    flat = rng.normal(size=(600, 1)) @ direction + 1e-3 * rng.normal(size=(600, 64))
    assert verdicts_of({"a": decompose(Representation(flat))})[0].answer == "yes"
    whole = Representation(rng.normal(size=(600, 64)))
    assert verdicts_of({"a": decompose(whole)})[0].answer == "no"
    spectrum = decompose(whole)
    bounds = {**spectrum.corrected_intervals, "effective_rank": (5.0, 7.0)}
    near = replace(
        spectrum,
        corrected={**spectrum.corrected, "effective_rank": 6.0},
        corrected_intervals=bounds,
    )
    assert verdicts_of({"a": near})[0].answer == "undecided"


def test_redundancy_is_called_so():
    rng = np.random.default_rng(3)
    free = rng.normal(size=(500, 20))
    copies = np.hstack([free, free + 0.1 * rng.normal(size=free.shape)])
    for features, expected in ((free, "no"), (copies, "yes")):
        found = find_redundancy(Representation(features))
        assert verdicts_of({"r": found})[0].answer == expected


def test_a_mask_that_is_contradicted_does_not_agree(results):
    evolution = results["mask_evolution"]
    learned = [each for each in evolution.links if each.mask == "learned"]

    def with_bounds(bounds):
        links = [
            replace(each, ci_low=each.expected_sign * low, ci_high=each.expected_sign * high)
            for each, (low, high) in zip(learned, bounds, strict=True)
        ]
        return verdicts_of({"m": replace(evolution, links=tuple(links))})[0].answer

    yes, no, open_ = (0.2, 0.5), (-0.5, -0.2), (-0.1, 0.3)
    assert with_bounds([yes, yes, yes]) == "yes"
    assert with_bounds([yes, yes, open_]) == "undecided"
    assert with_bounds([yes, no, open_]) == "no"


def test_the_risk_decides_and_not_the_bound(results):
    bound = results["risk_bound"]
    column, row = bound.terms.index("cross_entropy"), bound.masks.index("learned")

    def with_risk(low, high):
        lows, highs = bound.difference_low.copy(), bound.difference_high.copy()
        lows[row, column], highs[row, column] = low, high
        changed = replace(bound, difference_low=lows, difference_high=highs)
        return verdicts_of({"b": changed})[0].answer

    assert [with_risk(-2, -1), with_risk(-1, 1), with_risk(1, 2)] == ["yes", "undecided", "no"]


@pytest.mark.slow
def test_a_page_of_2048_dimensions_stays_small(tmp_path):
    rng = np.random.default_rng(4)
    train, test = splits(2048, n=2400)
    trace = MaskTrace(np.arange(60), rng.uniform(size=(60, 2048)))
    found = {
        "ablation": ablate(train, test, reader="ridge", n_bootstrap=2),
        "correlation": correlate(test, n_draws=0, n_blocks=2),
        "spectrum": decompose(replace(test, views=None), n_blocks=2),
        "redundancy": find_redundancy(test, n_blocks=2),
        "attribution": attribute(train, test, n_permutations=2, erased=None),
        "mask_evolution": follow(trace, n_permutations=50, n_bootstrap=50),
    }
    page = write_report(tmp_path, found)
    assert page.stat().st_size < 5e6
    assert page.read_text().count("<tr><td") == 2048


@pytest.fixture
def python_random_restored():
    """Playwright draws from Python's own generator."""
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.mark.slow
@pytest.mark.usefixtures("python_random_restored")
def test_the_table_sorts_and_filters_in_a_browser(results, tmp_path):
    from playwright import sync_api  # its first import draws from Python's random

    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    page_path = write_report(tmp_path, results)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=flags)
        page = browser.new_page()
        problems, requests = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_path.as_uri())
        first = "#dimensions tbody tr:not([hidden])"
        heads = page.eval_on_selector_all(
            "#dimensions th", "all => all.map(each => each.innerText)"
        )
        place = [each.strip() for each in heads].index("importance")
        values = f"rows => rows.map(row => Number(row.cells[{place}].textContent))"
        button = page.locator("#dimensions th", has_text="importance").first.locator("button")
        button.press("Enter")  # by keyboard
        assert page.eval_on_selector_all(first, values) == sorted(
            page.eval_on_selector_all(first, values)
        )
        button.press("Enter")
        falling = page.eval_on_selector_all(first, values)
        assert falling == sorted(falling, reverse=True)
        assert page.locator("[aria-sort]").count() == 1
        page.fill("#filter", "nuisance")
        frame, _ = dimensions_of(results)
        expected = int((frame["verdict"] == "nuisance").sum())
        assert page.inner_text("#count") == f"{expected} of 8 rows"
        assert problems == []
        assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
        browser.close()


def test_a_page_is_made_though_every_factor_is_left_out():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 2)), np.arange(60) % 2
    names = {"file": np.array([f"{row}.png" for row in range(60)])}
    split = Representation(features, labels=labels, factors=names)
    assert "attribution" not in examine(split, split)
    split = replace(split, factors={**names, "age": rng.permutation(60)})
    with pytest.warns(UserWarning, match="nothing is attributed: age is left out: 60 different"):
        assert "attribution" not in examine(split, split)
