"""Closed forms without a group equal an honest solve without its columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.kernels.downdate import (
    first_largest,
    greedy_order,
    log_losses,
    nested_logits,
    refuse_ill_conditioned,
    removed_weights,
    single_removal_factors,
    solve_ridge,
)


def honest(z, y, z_test, group, penalty):
    """Solve the smaller ridge by augmented least squares."""
    kept = np.setdiff1d(np.arange(z.shape[1]), group)
    stacked = np.vstack([z[:, kept], np.sqrt(penalty * len(z)) * np.eye(len(kept))])
    targets = np.vstack([y, np.zeros((len(kept), y.shape[1]))])
    return z_test[:, kept] @ np.linalg.lstsq(stacked, targets, rcond=None)[0]


def solved(z, y, *, penalty):
    return solve_ridge(z.T @ z, z.T @ y, len(z), penalty=penalty)


def world(rng, n, d, kind):
    z = rng.normal(size=(n, d))
    if kind == "collinear":
        z[:, d // 2 :] = z[:, : d - d // 2] + 1e-3 * rng.normal(size=(n, d - d // 2))
    if kind == "duplicated":
        z[:, 1] = z[:, 0]
    if kind == "constant":
        z[:, 1] = 0.0
    y = rng.normal(size=(n, 3))
    return z - z.mean(0), y - y.mean(0), rng.normal(size=(11, d))


@pytest.mark.parametrize("kind", ["random", "collinear", "duplicated"])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 50)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_each_dimension_and_group_equals_an_honest_solve(kind, n, d, penalty):
    z, y, z_test = world(np.random.default_rng(0), n, d, kind)
    system = solved(z, y, penalty=penalty)
    refuse_ill_conditioned(system, penalty)
    logits = z_test @ system.weights
    np.testing.assert_allclose(logits, honest(z, y, z_test, [], penalty), atol=1e-9)
    u = single_removal_factors(system, z_test)
    for d_ in range(d):
        each = logits - np.outer(u[:, d_], system.weights[d_])
        np.testing.assert_allclose(each, honest(z, y, z_test, [d_], penalty), atol=1e-8)
    groups = [np.array([0, 1, 5]), np.arange(d - 1), np.arange(d)]
    for group in groups:
        each = logits - z_test @ removed_weights(system, group)
        np.testing.assert_allclose(each, honest(z, y, z_test, group, penalty), atol=1e-8)


@pytest.mark.parametrize("kind", ["random", "collinear", "duplicated", "constant"])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (20, 30)])
def test_nested_logits_equal_honest_solves(kind, n, d):
    rng = np.random.default_rng(3)
    z, y, z_test = world(rng, n, d, kind)
    system = solved(z, y, penalty=1e-2)
    order = rng.permutation(d)
    for n_kept, logits in enumerate(nested_logits(z_test, system, order)):
        expected = honest(z, y, z_test, order[n_kept:], 1e-2)
        np.testing.assert_allclose(logits, expected, atol=1e-9)
    assert n_kept == d


def objective(z, y, kept, penalty):
    """The penalised train loss at its minimum."""
    fitted = honest(z, y, z, np.setdiff1d(np.arange(z.shape[1]), kept), penalty)
    return (y * (y - fitted)).sum()


@pytest.mark.parametrize("backward", [True, False])
def test_greedy_orders_equal_a_search_that_solves_every_candidate(backward):
    z, y, _ = world(np.random.default_rng(4), 40, 7, "collinear")
    system = solved(z, y, penalty=1e-2)
    kept = list(range(7)) if backward else []
    expected = []
    for _ in range(7):
        candidates = [d for d in range(7) if (d in kept) == backward]
        losses = [
            objective(z, y, [k for k in kept if k != d] if backward else [*kept, d], 1e-2)
            for d in candidates
        ]
        expected.append(candidates[int(np.argmin(losses))])
        kept = [k for k in kept if k != expected[-1]] if backward else [*kept, expected[-1]]
    np.testing.assert_array_equal(greedy_order(system, backward=backward), expected)


def test_removal_matters_here():
    """Negative control: the smaller solve is far from the frozen one."""
    z, y, z_test = world(np.random.default_rng(0), 60, 8, "collinear")
    system = solved(z, y, penalty=1e-3)
    frozen = z_test @ system.weights - np.outer(z_test[:, 0], system.weights[0])
    assert np.abs(frozen - honest(z, y, z_test, [0], 1e-3)).max() > 0.01


def test_a_zero_column_has_exactly_no_effect():
    z, y, z_test = world(np.random.default_rng(1), 40, 6, "constant")
    z_test[:, 1] = 0.0
    system = solved(z, y, penalty=1e-3)
    np.testing.assert_array_equal(system.weights[1], 0.0)
    u = single_removal_factors(system, z_test)
    np.testing.assert_array_equal(np.outer(u[:, 1], system.weights[1]), 0.0)
    np.testing.assert_allclose(system.weights, solve_without(z, y, 1), atol=1e-12)


def solve_without(z, y, column):
    kept = np.delete(np.arange(z.shape[1]), column)
    weights = np.zeros((z.shape[1], y.shape[1]))
    weights[kept] = solved(z[:, kept], y, penalty=1e-3).weights
    return weights


def test_the_accepted_condition_numbers_keep_eight_digits():
    """Duplicated columns at the smallest penalty that is let through."""
    rng = np.random.default_rng(2)
    z = np.repeat(rng.normal(size=(200, 10)), 2, axis=1)
    z -= z.mean(0)
    y = rng.normal(size=(200, 2))
    penalty = 20 / 3e8
    system = solved(z, y, penalty=penalty)
    refuse_ill_conditioned(system, penalty)
    assert system.condition > 1e7
    logits = z @ system.weights
    u = single_removal_factors(system, z)
    without = logits - np.outer(u[:, 0], system.weights[0])
    np.testing.assert_allclose(without, honest(z, y, z, [0], penalty), atol=1e-8)


def test_an_ill_conditioned_system_is_refused():
    rng = np.random.default_rng(2)
    z = np.repeat(rng.normal(size=(200, 10)), 2, axis=1)
    system = solved(z, rng.normal(size=(200, 2)), penalty=1e-13)
    with pytest.raises(ValueError, match=r"^penalty must be at least .* spoils .*; got 1e-13\.$"):
        refuse_ill_conditioned(system, 1e-13)
    barely = solved(z, rng.normal(size=(200, 2)), penalty=20 / 3e9)
    assert 1e8 < barely.condition < 1e9  # ten times what is accepted above
    with pytest.raises(ValueError, match=r"^penalty must be at least"):
        refuse_ill_conditioned(barely, 20 / 3e9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n_classes=st.integers(1, 6))
def test_first_largest_is_argmax_with_ties_to_the_lower_class(seed, n_classes):
    scores = np.random.default_rng(seed).integers(0, 3, size=(n_classes, 5, 4)).astype(float)
    np.testing.assert_array_equal(first_largest(scores), scores.argmax(axis=0))


def test_log_loss_by_hand_and_without_overflow():
    # Two classes, logits 0 and log 3: probabilities 1/4 and 3/4.
    scores = np.array([[0.0, 0.0], [np.log(3), np.log(3)]])
    np.testing.assert_allclose(log_losses(scores, np.array([0, 1])), [np.log(4), np.log(4 / 3)])
    np.testing.assert_allclose(log_losses(np.array([[1e4], [0.0]]), np.array([1])), [1e4])
