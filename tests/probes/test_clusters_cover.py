"""Forty patients with ten rows each, and four copies of every row: coverage and null rates."""

from __future__ import annotations

import numpy as np
import pytest

from dimlab.mask import DimensionMask
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.evaluate import evaluate
from dimlab.probes.random_masks import random_masks
from dimlab.representation import Representation
from tests import worlds

pytestmark = [pytest.mark.long, worlds.rows_repeat]
SIGNAL = np.array([0.8, 0.6, 0.5, 0.4, 0.3, 0, 0, 0])
ORDER = np.arange(8)[::-1]
MASK = DimensionMask(np.array([1, 1, 1, 1, 0, 1, 1, 0.0]))


def patients(rng, n_patients, n_rows, shift=1.0):
    """Labels are a patient's; every patient has a shift of his own."""
    labels, ids = rng.integers(0, 2, n_patients), np.repeat(np.arange(n_patients), n_rows)
    own = shift * rng.normal(size=(n_patients, 8)) + np.outer(2 * labels - 1, SIGNAL)
    features = own[ids] + rng.normal(size=(len(ids), 8))
    return Representation(features, labels=labels[ids], factors={"patient": ids})


def copies(rng, n_rows, n_copies):
    once = patients(rng, n_rows, 1, shift=0.0)
    ids = np.repeat(np.arange(n_rows), n_copies)
    return Representation(once.features[ids], labels=once.labels[ids], factors={"patient": ids})


WORLDS = {
    "patients": (lambda rng: patients(rng, 40, 10), 1.0),
    "copies": (lambda rng: copies(rng, 150, 4), 0.0),
}


def covered(low, high, value):
    return (low <= value) & (value <= high)


@pytest.mark.parametrize(("draw", "shift"), WORLDS.values(), ids=WORLDS)
def test_intervals_cover_where_clusters_are_named_and_not_where_they_are_not(draw, shift):
    rng = np.random.default_rng(1)
    train = patients(rng, 100, 4)
    many = patients(rng, 10_000, 1, shift)
    curve = ablate_cumulatively(train, many, order=ORDER)
    lost = curve.scores[0] - curve.scores
    change = evaluate(train, many, mask=MASK, readers=["ridge"]).changes[1, 0]
    share = {}
    for clusters in ("patient", None):
        hits = []
        for _ in range(60):
            test = draw(rng)
            found = ablate_cumulatively(train, test, order=ORDER, clusters=clusters)
            read = evaluate(train, test, mask=MASK, readers=["ridge"], clusters=clusters)
            hits.append(
                [
                    covered(found.loss_low, found.loss_high, lost)[1:].mean(),
                    covered(found.ci_low, found.ci_high, curve.scores).mean(),
                    covered(*read.changes[1, 1:], change),
                ]
            )
        share[clusters] = np.mean(hits, axis=0)
    assert (share["patient"] >= [0.91, 0.9, 0.88]).all(), share
    assert (share[None] <= [0.88, 0.86, 0.92]).all(), share


@pytest.mark.parametrize(("draw", "shift"), WORLDS.values(), ids=WORLDS)
def test_by_chance_alone_nothing_is_found_where_clusters_are_named(draw, shift):
    """Labels change places between whole patients, so that no mask and no removal helps."""
    rng = np.random.default_rng(2)
    train = patients(rng, 100, 4)
    found = {clusters: np.zeros(3) for clusters in ("patient", None)}
    for seed in range(16):
        test = draw(rng)
        ids = test.factors["patient"]
        of_patient = rng.permutation(test.labels[np.unique(ids, return_index=True)[1]])
        test = Representation(test.features, labels=of_patient[ids], factors=test.factors)
        for clusters, counts in found.items():
            masks = random_masks(
                train, test, drop=[0.25, 0.5], n_masks=30, seed=seed, clusters=clusters
            )
            harmful = confirm_harmful(
                train, test, reader="ridge", n_splits=5, seed=seed, clusters=clusters
            )
            counts += [
                (masks.p_value <= 0.05).mean(),
                (masks.naive_gain_over_mean > masks.null_gain).mean(),
                len(harmful.confirmed) > 0,
            ]
    assert (found["patient"] <= [2.5, 2.5, 1]).all(), found
    assert (found[None][:2] >= [2, 5]).all(), found
