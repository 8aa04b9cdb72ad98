"""Votes of neighbours."""

from __future__ import annotations

import numpy as np
import torch

from dimlab.kernels.neighbours import count_votes, decide, vote


def test_votes_by_hand():
    # Similarities 1, 1 - log 2, 1 - log 4 at temperature 1: votes 1, 1/2, 1/4.
    similarities = torch.tensor([[1.0, 1 - np.log(2), 1 - np.log(4)]], dtype=torch.float64)
    totals = count_votes(torch.tensor([[2, 0, 0]]), similarities, n_classes=3, temperature=1.0)
    np.testing.assert_allclose(totals, [[0.75, 0.0, 1.0]])
    # At half the temperature they are squared: 1, 1/4, 1/16.
    totals = count_votes(torch.tensor([[2, 0, 0]]), similarities, n_classes=3, temperature=0.5)
    np.testing.assert_allclose(totals, [[0.3125, 0.0, 1.0]])


def test_equal_totals_go_to_the_lower_class():
    totals = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    np.testing.assert_array_equal(decide(totals), [1])
    exact = torch.tensor([[2.0, 2.0 + 1e-11], [2.0, 2.0 + 1e-8]], dtype=torch.float64)
    np.testing.assert_array_equal(decide(exact), [0, 1])


def test_a_tiny_temperature_leaves_the_nearest_alone():
    similarities = torch.tensor([[0.9, 0.8, 0.8]], dtype=torch.float64)
    totals = count_votes(torch.tensor([[1, 0, 0]]), similarities, n_classes=2, temperature=1e-4)
    np.testing.assert_array_equal(decide(totals), [1])
    totals = count_votes(torch.tensor([[1, 0, 0]]), similarities, n_classes=2, temperature=10.0)
    np.testing.assert_array_equal(decide(totals), [0])


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    classes = torch.from_numpy(rng.integers(0, 4, size=(6, 5, 3)))
    similarities = torch.from_numpy(-np.sort(rng.random((6, 5, 3)), axis=2))
    truth = torch.from_numpy(rng.integers(0, 4, size=6))
    whole = vote(classes, similarities, truth, n_classes=4, temperature=0.1)
    monkeypatch.setattr("dimlab.kernels.neighbours._ELEMENTS", 8)
    blocked = vote(classes, similarities, truth, n_classes=4, temperature=0.1)
    for a, b in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(a, b)
    totals = count_votes(classes[2, 3], similarities[2, 3], n_classes=4, temperature=0.1)
    np.testing.assert_allclose(whole[1][2, 3], totals[truth[2]] / totals.sum())
