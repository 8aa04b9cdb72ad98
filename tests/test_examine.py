"""Examination: what the data allow is measured; what they do not is a sentence in the page."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from dimlab import examine as examined
from dimlab import probes
from dimlab.probes import probe_named
from dimlab.report import verdicts_of, write_report
from dimlab.representation import Representation

UNLABELLED = {"correlation", "spectrum", "redundancy", "profile"}
OF_A_TASK = {"evaluation", "ablation", "masked_scores", "harmful", "suspects", *UNLABELLED}


def split(n=60, d=4, *, seed=0, labels=True, **parts):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 2
    features = rng.normal(size=(n, d))
    features[:, 0] += 3 * codes
    return Representation(features, labels=codes if labels else None, **parts)


def quietly(*splits, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return examined(*splits, n_permutations=19, **settings)


def test_a_probe_that_lacks_something_is_a_sentence_of_the_page(tmp_path):
    results = examined(split(), split(seed=1))
    assert set(results) == OF_A_TASK
    assert results.not_measured == {
        "attribute": "attribute needs factors of the test rows.",
        "follow": "follow needs the history of a learned mask.",
        "bound_risk": "bound_risk needs two views of each sample.",
    }
    page = write_report(tmp_path, results).read_text()
    assert "<li>bound_risk needs two views of each sample.</li>" in page


def test_row_names_are_no_factors_and_take_nothing_with_them():
    names = {"filename": np.array([f"image-{row}.png" for row in range(60)])}
    results = examined(split(factors=names), split(seed=1, factors=names))
    assert set(results) == OF_A_TASK
    assert results.not_measured["attribute"] == "attribute needs factors of the test rows."


@pytest.mark.parametrize(("n", "d"), [(60, 80), (40, 40)])
def test_fewer_samples_than_dimensions_take_nothing_with_them(n, d):
    results = quietly(split(n, d), split(n, d, seed=1))
    assert set(results) == OF_A_TASK


@pytest.mark.slow
def test_six_hundred_rows_of_512_dimensions_take_nothing_with_them():
    results = quietly(split(600, 512), split(600, 512, seed=1))
    assert set(results) == OF_A_TASK


def test_too_few_samples_for_a_factor_leave_attribution_out_and_say_why():
    kinds = {"kind": np.arange(24) // 2, "other": 7 * np.arange(24) % 11}
    with pytest.warns(UserWarning, match="attribute is left out: attribute needs more than"):
        results = examined(split(24, factors=kinds), split(24, seed=1, factors=kinds))
    assert set(results) == OF_A_TASK
    assert "samples for 2 factors and 2 classes; got 24." in results.not_measured["attribute"]


def test_without_labels_what_needs_a_task_is_named():
    results = quietly(split(labels=False), split(seed=1, labels=False))
    assert set(results) == UNLABELLED | {"ablation"}
    assert results["ablation"].score == "neighbourhood"
    assert results.not_measured["evaluate"] == "evaluate needs labels of both splits."
    views = np.stack([split(labels=False).features] * 2)
    seen = quietly(split(labels=False), split(labels=False, views=views))
    assert set(seen) == UNLABELLED | {"ablation"}
    assert seen["ablation"].score == "view_retrieval"


def test_a_mistake_in_a_probe_or_a_reader_takes_no_other_result_along(monkeypatch):
    class Broken:
        def fit(self, features, target):
            raise ValueError("a bug")

        predict = fit

    def broken(representation):
        raise np.linalg.LinAlgError("a bug")

    monkeypatch.setattr("dimlab.probes.decompose.decompose", broken)
    results = quietly(split(), split(seed=1), reader=Broken())
    assert set(results) == {"masked_scores", "correlation", "redundancy", "profile"}
    for name, kind in (("ablate", "ValueError"), ("decompose", "LinAlgError")):
        assert results.not_measured[name] == f"{name} failed: internal error, {kind}: a bug"
        assert type(results.failed[name]).__name__ == kind


def test_every_probe_says_what_it_needs():
    known = {"labels", "classes", "views", "factors", "trace", "train"}
    for name in probes.__all__:
        alternatives = sys.modules[probe_named(name).__module__].NEEDS
        assert alternatives, name
        assert all(each <= known for each in alternatives), name


# A probe of another package ------------------------------------------------------------------

COHERE = '''
"""Cohesion: how close the samples lie in each dimension."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimlab.representation import Representation
from dimlab.result import Result, Verdict, per, scalar

NEEDS = ({"labels"},)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cohesion(Result):
    """How close the samples lie."""

    n_samples: int = scalar("Number of samples.")
    spread: np.ndarray = per("dimension", "Standard deviation of each dimension.")


def verdict(result):
    tight = tuple(np.flatnonzero(result.spread < 0.1).tolist())
    return Verdict("Is it tight?", "yes" if tight else "no", "As said.", "Yes: any.", tight)


def cohere(representation: Representation, *, seed: int = 0) -> Cohesion:
    """Measure how close the samples lie."""
    return Cohesion(n_samples=len(representation), spread=representation.features.std(axis=0))
'''


@pytest.fixture
def outside(installed):
    """Install a package that adds a probe by an entry point."""
    installed("their_cohere", COHERE, "[dimlab.probes]\ncohere = their_cohere:cohere\n")


@pytest.mark.usefixtures("outside")
def test_a_probe_of_another_package_is_examined_reported_and_judged(tmp_path):
    results = examined(split(), split(seed=1))
    np.testing.assert_allclose(results["cohesion"].spread, split(seed=1).features.std(axis=0))
    assert [each.question for each in verdicts_of(results)][-1] == "Is it tight?"
    page = write_report(tmp_path / "report", results).read_text()
    assert "Is it tight?" in page
    table = pd.read_csv(tmp_path / "report" / "dimensions.csv")
    np.testing.assert_allclose(table["spread"], results["cohesion"].spread)
    assert "<dt>spread</dt><dd>Standard deviation of each dimension</dd>" in page
    assert (tmp_path / "report" / "cohesion.csv").read_text().startswith("spread\n")
    unlabelled = quietly(split(labels=False), split(seed=1, labels=False))
    assert unlabelled.not_measured["cohere"] == "cohere needs labels of both splits."
