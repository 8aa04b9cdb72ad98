"""A package that adds a data set, a checkpoint layout, a reader and a probe, used everywhere."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from dimlab import ablate, encode, examine
from dimlab.datasets import load_images
from dimlab.io.layouts import layouts
from dimlab.io.weights import load_encoder
from dimlab.probes import probe_named

ACME = '''
"""Everything that another package can add to dimlab."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from dimlab.images import ImageSet
from dimlab.io.layouts import Layout
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, Verdict, per, scalar

NEEDS = ({"labels", "train"},)


def stripes(split, folder):
    count = {"train": 60, "validation": 12, "test": 40}[split]
    labels = np.arange(count) % 2
    noise = np.random.default_rng(count).integers(0, 90, (count, 1, 8, 8))
    return ImageSet((noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels, name="x")


class Net(nn.Module):
    n_dimensions = 4

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 4)

    def forward(self, images):
        return self.first(images.flatten(1))


def build(shapes):
    return Net() if any(key.endswith("first.weight") for key in shapes) else None


NET = Layout("acme", "Acme keeps its network under acme.", r"acme[.]", build=build)


class NearestMean:
    def fit(self, features, target):
        if len(features) == 13:
            raise ValueError("a mistake of Acme's reader")
        self.means = np.array([features[target == c].mean(axis=0) for c in np.unique(target)])
        return self

    def predict(self, features):
        return -((features[:, None] - self.means) ** 2).sum(axis=2)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cohesion(Result):
    """How close the samples lie in each dimension."""

    n_test: int = scalar("Number of samples.")
    spread: np.ndarray = per("dimension", "Standard deviation of each dimension.")


def verdict(result):
    return Verdict("Is it tight?", "no", "As said.", "Yes: where any is.")


def cohere(train: Representation, test: Representation, *, share: float = 0.5) -> Cohesion:
    """Measure how close the samples lie.

    Parameters
    ----------
    train, test : Representation
        Splits.
    share : float, default=0.5
        Share of the samples, at most 1.
    """
    if share > 1:
        raise Refusal(f"share must be <= 1; got {share}.")
    if share < 0 or len(train) == 13:
        raise ValueError("a mistake of Acme's probe")
    return Cohesion(n_test=len(test), spread=test.features.std(axis=0))
'''
ENTRIES = """
[dimlab.datasets]
stripes = acme:stripes
[dimlab.weights]
net = acme:NET
[dimlab.readers]
nearest = acme:NearestMean
[dimlab.probes]
cohere = acme:cohere
"""
NET = ("acme.pth", "--data", "stripes", "--quiet")


@pytest.fixture
def found(dimlab):
    """Run a command that succeeds, with ``--json``; return what it prints."""

    def call(*arguments):
        code, out, err = dimlab(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def acme(installed, tmp_path):
    """Install the package, and write a checkpoint in its layout."""
    installed("acme", ACME, ENTRIES)
    layouts.cache_clear()
    weights = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) / 8
    state = {"acme.first.weight": weights, "acme.first.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "acme.pth")
    yield tmp_path
    layouts.cache_clear()


def splits_of(folder):
    """Train and test of its data set, encoded with its checkpoint."""
    encoder = load_encoder(folder / "acme.pth")
    return [encode(encoder, load_images("stripes", split)) for split in ("train", "test")]


def test_all_of_it_works_in_python(acme):
    train, test = splits_of(acme)
    assert (train.features.shape, test.features.shape) == ((60, 4), (40, 4))
    found = ablate(train, test, reader="nearest")
    assert (found.reader, found.full_score) == ("NearestMean", 1.0)
    np.testing.assert_array_equal(probe_named("cohere")(train, test).spread, test.features.std(0))
    results = examine(train, test, reader="nearest", n_permutations=5)
    assert {"ablation", "cohesion"} <= set(results)


def test_all_of_it_works_in_the_shell(acme, dimlab, found):
    ablated = found("ablate", *NET, "--reader", "nearest")
    assert (ablated["reader"], ablated["full_score"]) == ("NearestMean", 1.0)
    assert found("cohere", *NET)["n_test"] == 40
    assert found("inspect", "acme.pth")["layout"] == "acme"
    assert dimlab("encode", *NET, "--split", "test")[0] == 0
    code, _, err = dimlab("ablate", *NET, "--reader", "nearer")
    assert (code, "'logistic', 'nearest'; got 'nearer'" in err) == (2, True)


@pytest.mark.slow
def test_all_of_it_is_in_the_report(acme, dimlab):
    code, out, err = dimlab("report", *NET, "--reader", "nearest", "--permutations", 5)
    assert (code, "caution" in err) == (0, False), err
    assert "- Is it tight? no. As said." in out
    page = (acme / "report" / "report.html").read_text()
    assert "Is it tight?" in page
    assert json.loads((acme / "report" / "ablation.json").read_text())["reader"] == "NearestMean"
    assert len(pd.read_csv(acme / "report" / "cohesion.csv")) == 4


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (("cohere", *NET, "--share", 2), 2, "share must be <= 1; got 2.0."),
        (("cohere", *NET, "--share", -1), 1, "ValueError: a mistake of Acme's probe (the traceb"),
        (("ablate", *NET, "--reader", "nearest", "--max-train", 13), 1, "a mistake of Acme's read"),
    ],
)
def test_what_it_refuses_is_a_sentence_and_its_mistakes_are_in_a_log(
    acme, dimlab, command, code, sentence
):
    found, out, err = dimlab(*command)
    assert (out, len(err.splitlines())) == ("", 1)
    assert (found, sentence in err, "internal error" in err) == (code, True, code == 1)


@pytest.mark.slow
def test_its_mistakes_are_sentences_of_a_report_and_in_a_log(acme, dimlab):
    small = ("--max-train", 13, "--reader", "nearest", "--permutations", 5)
    code, out, err = dimlab("report", *NET, *small)
    said = ["internal error, ValueError: a mistake of Acme's reader (the traceback is in "]
    assert (code, said[0] in err.splitlines()[-1], "Open report" in out) == (1, True, True)
    page = (acme / "report" / "report.html").read_text()
    assert "<li>cohere failed: internal error, ValueError: a mistake of Acme&#39;s probe" in page
    assert (acme / "report" / "correlation.csv").is_file()


def test_an_entry_point_that_cannot_be_imported_is_named(installed, dimlab):
    installed("gone", "", "[dimlab.probes]\ncohere = gone:nothing\n")
    code, _, err = dimlab("cohere", "a.npz")
    sentence = "entry point cohere of dimlab.probes must be importable; got AttributeError"
    assert (code, sentence in err) == (2, True)
