"""Classes that are missing, alone or of one sample: an honest answer, and no accuracy of 1."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.erase import erase
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.random_masks import random_masks
from dimlab.representation import Representation

READ = {
    "ablate": ablate,
    "cumulate": lambda *pair, **more: ablate_cumulatively(*pair, order="worst-first", **more),
    "masks": lambda *pair, **more: random_masks(*pair, drop=[0.5], n_masks=5, **more),
    "confirm": lambda *pair, **more: confirm_harmful(*pair, n_splits=2, **more),
    "evaluate": lambda *pair, reader: evaluate(*pair, readers=[reader]),
    "erase": lambda *pair, **more: erase(*pair, factor="f", n_random=2, n_bootstrap=20, **more),
}
TWO = np.arange(40) % 2


def split(labels, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(labels), 4)) + np.outer(labels, [1, 0, 0, 0])
    return Representation(
        features, labels=np.asarray(labels), factors={"f": rng.normal(size=len(labels))}
    )


@pytest.mark.parametrize("reader", ["knn", "ridge", "logistic"])
@pytest.mark.parametrize("probe", READ.values(), ids=READ)
def test_train_of_one_class_is_refused_with_a_remedy(probe, reader):
    with pytest.raises(
        ValueError, match=r"^train must hold at least two classes, .*; got only class 1\. Fit it on"
    ):
        probe(split(np.ones(40, int)), split(TWO, 1), reader=reader)


@pytest.mark.parametrize("reader", ["knn", "ridge", "logistic"])
@pytest.mark.parametrize("probe", READ.values(), ids=READ)
def test_test_of_one_class_is_read_with_a_caution(probe, reader):
    with pytest.warns(UserWarning, match=r"^All test samples are of class 1: a reader that alw"):
        summary = probe(split(TWO), split(np.ones(40, int), 1), reader=reader).summary()
    assert "All test samples are of class 1: a reader that always answers it" in json.dumps(summary)
    assert "All test samples" not in json.dumps(
        probe(split(TWO), split(TWO, 1), reader=reader).summary()
    )


@pytest.mark.parametrize("reader", ["knn", "ridge", "logistic"])
@pytest.mark.parametrize("probe", READ.values(), ids=READ)
def test_a_class_with_one_sample_is_read_like_any_other(probe, reader):
    labels = np.append(TWO, 2)
    for test in (split(labels, 1), split(TWO, 1)):
        json.dumps(probe(split(labels), test, reader=reader).summary(), allow_nan=False)


def test_a_subset_is_judged_without_the_classes_of_one_sample():
    labels = np.append(TWO, [2, 3])
    found = find_redundancy(split(labels), reader="knn")
    json.dumps(found.summary(), allow_nan=False)
    with pytest.raises(ValueError, match=r"^labels must have a class of at least 2 samples"):
        find_redundancy(split(np.arange(40)), reader="knn")
