"""Readers without one column at a time: certified predictions, and losses by a power series."""

import numpy as np
import pytest

from dimlab.kernels import rank_one
from dimlab.kernels.downdate import first_largest, log_losses, tied_within
from dimlab.kernels.rank_one import leave_out_losses, leave_out_predictions


def one_by_one(logits, u, v, truth):
    """Predictions and losses (N, D) with every logit formed."""
    slack = tied_within(logits)
    without = [(logits - np.outer(u[:, d], v[d])).T for d in range(u.shape[1])]
    return (
        np.stack([first_largest(each, slack) for each in without], axis=1),
        np.stack([log_losses(each, truth) for each in without], axis=1),
    )


def check(logits, u, v, truth, *, atol=1e-12):
    predicted, losses = one_by_one(logits, u, v, truth)
    np.testing.assert_array_equal(leave_out_predictions(logits, u, v), predicted)
    np.testing.assert_allclose(leave_out_losses(logits, u, v, truth), losses, atol=atol)


@pytest.mark.parametrize("cached", [1, 50, 1 << 17])
@pytest.mark.parametrize("n_classes", [1, 2, 3, 9, 10, 40])
@pytest.mark.parametrize("tied", [True, False])
def test_scores_without_each_dimension_are_those_of_its_logits(
    monkeypatch, cached, n_classes, tied
):
    rng = np.random.default_rng(3)
    shapes = (17, n_classes), (17, 10), (10, n_classes)
    logits, u, v = (rng.normal(size=size) for size in shapes)
    if tied:  # small integers: many equal logits
        logits, u, v = (np.rint(each) for each in (logits, u, v))
    monkeypatch.setattr(rank_one, "CACHED", cached)
    monkeypatch.setattr(rank_one, "_ELEMENTS", cached)
    check(logits, u, v, rng.integers(0, n_classes, 17))


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.5, 3.0, 100.0])
def test_a_thousand_classes_by_the_polynomial_and_beyond_its_reach(scale):
    rng = np.random.default_rng(4)
    logits, u = 3 * rng.normal(size=(30, 1000)), rng.normal(size=(30, 40))
    v = scale * rng.normal(size=(40, 1000)) * rng.uniform(0.01, 1, size=(40, 1))
    check(logits, u, v, rng.integers(0, 1000, 30), atol=1e-11)


def test_leads_of_zero_copies_of_rows_and_of_classes_and_classes_without_rows():
    rng = np.random.default_rng(5)
    logits = np.repeat(rng.integers(0, 2, size=(12, 15)), 2, axis=1).astype(float)
    u = np.repeat(rng.integers(-1, 2, size=(6, 8)), 2, axis=0).astype(float)
    v = np.repeat(rng.integers(-1, 2, size=(8, 15)), 2, axis=1).astype(float)
    check(logits, u, v, np.zeros(12, dtype=int))


@pytest.mark.parametrize("n_classes", [3, 300])
def test_what_changes_nothing_has_a_difference_of_exactly_zero(n_classes):
    rng = np.random.default_rng(6)
    logits, u = rng.normal(size=(9, n_classes)), rng.normal(size=(9, 4))
    v = 0.1 * rng.normal(size=(4, n_classes))
    u[:, :2], v[2] = 0.0, 0.0
    truth = rng.integers(0, n_classes, 9)
    loss = leave_out_losses(logits, u, v, truth)
    np.testing.assert_allclose(loss[:, 0], log_losses(logits.T, truth))
    np.testing.assert_array_equal(loss[:, 1:3], loss[:, [0, 0]])
    assert (loss[:, 3] != loss[:, 0]).all()


@pytest.mark.parametrize("n_terms", rank_one._TERMS)
@pytest.mark.parametrize("unlikely", [0.0, -30.0])
def test_the_polynomial_is_as_good_as_its_limit_says(n_terms, unlikely):
    """Probabilities at both ends of the range; nearly all at the upper one is the worst case."""
    logits, v = np.array([[unlikely, 0.0]]), np.array([[-1.0, 1.0]])
    rounding = 4e-16 * np.exp(2 * rank_one._limit(n_terms))
    for z in np.array([0.999, 1.001, 3.0]) * rank_one._limit(n_terms):  # within, and beyond
        loss = rank_one._expanded(logits, np.array([[z]]), v, np.array([1]), n_terms)
        right = np.log1p(np.exp(unlikely + 2 * z))
        np.testing.assert_allclose(loss, [[right]], rtol=0, atol=4e-15 + rounding)


def test_almost_no_pair_needs_all_classes(monkeypatch):
    """Logits of a thousand classes whose leads are those of a reader: few are compared with all."""
    rng = np.random.default_rng(7)
    logits, u = rng.normal(size=(200, 1000)), rng.normal(size=(200, 50))
    v = 0.05 * rng.normal(size=(50, 1000))
    looked_at = []

    def counted(scores, slack=None):
        looked_at.append(scores.shape)
        return first_largest(scores, slack)

    monkeypatch.setattr(rank_one, "first_largest", counted)
    leave_out_predictions(logits, u, v)
    n_whole = sum(n for k, n in looked_at[1:] if k == 1000)
    assert n_whole < 0.1 * u.size


def test_a_lead_is_lost_to_the_whole_change_of_the_difference_and_ties_go_to_the_lower_class():
    """The logits 1 and 0 lose 0.6 and gain 0.6; 0 and 1 both become 0.5."""
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    weights = np.array([[0.6, -0.6], [-0.5, 0.5]])
    predicted = leave_out_predictions(logits, np.ones((2, 2)), weights)
    np.testing.assert_array_equal(predicted, [[1, 0], [1, 0]])


def test_losses_of_huge_logits_do_not_overflow():
    logits, u, v = np.array([[0.0, 5.0]]), np.array([[2e4, 1.0]]), np.array([[-1.0, 1.0], [0, 0]])
    # without dimension 0 the logits are 20,000 and -19,995
    loss = leave_out_losses(logits, u, v, np.array([1]))
    np.testing.assert_allclose(loss, [[39_995.0, np.log1p(np.exp(-5))]])
