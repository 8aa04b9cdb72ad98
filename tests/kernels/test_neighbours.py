"""Exact neighbours, equal to brute force for every query and every group, and their votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.kernels.neighbours import count_votes, decide, find_neighbours, vote
from dimlab.kernels.rows import Groups, Rows, divide_by_power_of_two
from tests import references


def search(train, test, groups=None, **settings):
    train, test = Rows.of(train, "cpu"), Rows.of(test, "cpu")
    removed = Groups.of(groups, train.n_dimensions, train.device)
    blocks = list(find_neighbours(train, test, removed, **settings))
    rows = torch.cat([block.rows for block in blocks]).numpy()
    return rows, torch.cat([block.similarities for block in blocks]).numpy(), blocks


def brute_force(train, test, groups, k):
    """The reference's rule on whole matrices: float64, rounded, stable order."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    rows = np.empty((len(test), len(groups), k), dtype=np.int64)
    similarities = np.empty(rows.shape)
    for g, group in enumerate(groups):
        kept = np.setdiff1d(np.arange(train.shape[1]), group)
        x, q = scaled(train[:, kept]), scaled(test[:, kept])
        norms = np.sqrt((q**2).sum(1))[:, None] * np.sqrt((x**2).sum(1))
        s = np.divide(q @ x.T, norms, out=np.zeros_like(norms), where=norms > 0)
        s = np.round(s, 10)
        rows[:, g] = np.argsort(-s, axis=1, kind="stable")[:, :k]
        similarities[:, g] = np.take_along_axis(s, rows[:, g], axis=1)
    return rows, similarities


def scaled(x):
    if x.shape[1] == 0:
        return x
    exponent = np.frexp(np.abs(x).max(axis=1, keepdims=True))[1]
    return np.ldexp(x, -exponent)


def singles(d):
    return [np.array([i]) for i in range(d)]


def plant(kind, rng, n, d):
    x = rng.normal(size=(n, d))
    match kind:
        case "relu":
            return np.maximum(x - 0.5, 0)
        case "integers":
            return rng.integers(-1, 2, size=(n, d)).astype(float)
        case "one-hot":
            return np.eye(d)[rng.integers(0, d, n)]
        case "dominant":
            x[:, 3] *= 1e6
        case "constant column":
            x[:, 2] = 3.0
        case "rank two":
            return rng.normal(size=(n, 2)) @ np.random.default_rng(1).normal(size=(2, d))
        case "zero rows":
            x[::3] = 0
        case "equal rows":
            return np.random.default_rng(1).normal(size=(7, d))[rng.integers(0, 7, n)]
        case "collapsed":
            return 3 + 1e-3 * x
        case "sharp column":
            x[:, 1] *= rng.choice([0.0, 30.0], size=n, p=[0.9, 0.1])
    return x


KINDS = [
    "gaussian",
    "relu",
    "integers",
    "one-hot",
    "dominant",
    "constant column",
    "rank two",
    "zero rows",
    "equal rows",
    "collapsed",
    "sharp column",
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_candidates", "block"), [(5, 3), (12, None), (None, None)])
def test_every_query_and_dimension_equals_brute_force(kind, dtype, n_candidates, block):
    rng = np.random.default_rng(0)
    train, test = (plant(kind, rng, n, 9).astype(dtype) for n in (160, 21))
    rows, similarities, _ = search(train, test, k=4, n_candidates=n_candidates, block=block)
    expected_rows, expected = brute_force(train, test, singles(9), 4)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarities, expected, atol=2e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_equals_brute_force(kind):
    rng = np.random.default_rng(2)
    train, test = (plant(kind, rng, n, 9) for n in (150, 17))
    groups = [np.array(g, int) for g in ([], [0, 3], [1], [2, 3, 4, 5, 6, 7], range(9), [8, 1])]
    rows, similarities, _ = search(train, test, groups, k=3, n_candidates=6)
    expected_rows, expected = brute_force(train, test, groups, 3)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarities, expected, atol=2e-10)


def test_the_matrix_reference_is_the_loop_reference():
    rng = np.random.default_rng(3)
    train, test = plant("integers", rng, 40, 5), plant("integers", rng, 6, 5)
    rows, similarities = brute_force(train, test, singles(5), 4)
    for i, query in enumerate(test):
        for d in range(5):
            kept = np.arange(5) != d
            expected_rows, expected = references.nearest(train[:, kept], query[kept], 4)
            np.testing.assert_array_equal(rows[i, d], expected_rows)
            np.testing.assert_allclose(similarities[i, d], expected, atol=1e-10)


@pytest.mark.parametrize("k", [1, 59, 60])
def test_any_k_up_to_all_of_train(k):
    rng = np.random.default_rng(4)
    train, test = rng.normal(size=(60, 4)), rng.normal(size=(5, 4))
    rows, _, _ = search(train, test, k=k, n_candidates=k)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(4), k)[0])


def test_negative_similarities_are_compared_too():
    rng = np.random.default_rng(5)
    train, test = -np.abs(rng.normal(size=(200, 6))), np.abs(rng.normal(size=(9, 6)))
    rows, similarities, _ = search(train, test, k=3, n_candidates=3)
    assert similarities.max() < 0  # the world is what its name says
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(6), 3)[0])


def test_a_row_that_becomes_zero_is_similar_to_nothing():
    # Without dimension 0, query (1, 0) and row (2, 0) are zero: similarity 0, rows in order.
    train = np.array([[2.0, 0.0], [1.0, -1.0], [0.0, 1.0]])
    rows, similarities, _ = search(train, np.array([[1.0, 0.0], [1.0, 1.0]]), k=3)
    np.testing.assert_array_equal(rows[0, 0], [0, 1, 2])
    np.testing.assert_array_equal(similarities[0, 0], [0, 0, 0])
    np.testing.assert_array_equal(rows[1, 0], [2, 0, 1])
    np.testing.assert_array_equal(similarities[1, 0], [1, 0, -1])


def test_scales_from_the_edges_of_float64():
    rng = np.random.default_rng(6)
    train, test = rng.normal(size=(80, 6)), rng.normal(size=(9, 6))
    train[:, 2] *= 1e200
    test[:, 2] *= 1e200
    train[::2] *= 1e-120
    train[1] *= 1e100
    train[:, 4] *= 1e-180
    rows, similarities, _ = search(train, test, k=4, n_candidates=8)
    expected_rows, expected = brute_force(train, test, singles(6), 4)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarities, expected, atol=2e-10)


def test_subnormal_rows_are_scaled_exactly():
    rows = torch.tensor([[5e-324, 0.0], [1e308, -1e308], [0.0, 0.0]], dtype=torch.float64)
    scaled_rows = divide_by_power_of_two(rows)
    assert scaled_rows[0, 0] == 1.0
    assert 1 <= scaled_rows[1, 0] < 2
    assert scaled_rows[2].abs().sum() == 0


def test_the_bound_for_groups_counts_what_the_other_sign_gains():
    """Query and rows put 0.1 of their energy into dimension 2; the third row with the other sign.

    Similarities 0.70 + 0.10, 0.53 + 0.10 and 0.72 - 0.10: with dimension 2 the first row is
    nearest, without it the third, by 0.72 to 0.70 (over 0.9). The third is no candidate.
    """
    kept, c = np.sqrt(0.9), np.sqrt(0.1)
    angles = np.arccos(np.array([0.70, 0.53, 0.72]) / 0.9)
    train = np.stack([kept * np.cos(angles), kept * np.sin(angles), [c, c, -c]], axis=1)
    query = np.array([[kept, 0.0, c]])
    rows, similarities, blocks = search(train, query, [np.array([2])], k=1, n_candidates=2)
    np.testing.assert_array_equal(rows, [[[2]]])
    np.testing.assert_allclose(similarities, 0.8)
    assert blocks[0].n_certified == 0
    full, _, _ = search(train, query, [np.array([], int)], k=1, n_candidates=2)
    np.testing.assert_array_equal(full, [[[0]]])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_number_of_threads_does_not_matter(n_threads):
    rng = np.random.default_rng(12)
    train, test = (plant("relu", rng, n, 32).astype(np.float32) for n in (3000, 20))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        rows, _, _ = search(train, test, k=5)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(32), 5)[0])


@pytest.mark.parametrize("world", ["gaussian", "relu", "collapsed"])
def test_a_large_train_set_passes_through_every_tier(world):
    rng = np.random.default_rng(7)
    train, test = (plant(world, rng, n, 16).astype(np.float32) for n in (6000, 8))
    rows, _, blocks = search(train, test, k=5)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(16), 5)[0])
    looked_at = sum(block.n_looked_at for block in blocks)
    assert 0 < looked_at < 8 * 16 * 6000  # some rows are looked at, not all


@pytest.mark.parametrize("share", [1e-5, 3e-8, 1e-8, 1e-9])
@pytest.mark.parametrize("train_too", [False, True])
def test_what_is_left_of_a_query_beside_a_huge_dimension_is_still_compared(share, train_too):
    """Dimension 0 holds all of a query but this share: 1 less its energy would be rounding."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        train, test = (rng.normal(size=(n, 6)) for n in (200, 20))
        train, test = (x / np.linalg.norm(x[:, 1:], axis=1, keepdims=True) for x in (train, test))
        test *= share
        test[:, 0] = 1
        train *= share if train_too else 1
        train[:, 0] = 1 if train_too else rng.uniform(-share, share, size=len(train))
        # a norm of 49 times its own reciprocal is not 1
        test, train = (x * rng.integers(1, 100, size=(len(x), 1)) for x in (test, train))
        rows, _, _ = search(train, test, k=4, n_candidates=8)
        np.testing.assert_array_equal(rows, brute_force(train, test, singles(6), 4)[0])


@pytest.mark.parametrize("groups", [None, [np.array([1])]])
@pytest.mark.parametrize("elements", [1 << 22, 3])  # train is measured whole, or row by row
def test_the_bound_counts_the_energy_that_leaves_the_rows(groups, elements, monkeypatch):
    """Similarities 0.65, 0.652 and 0.8; the first row has 0.36 of its energy in dimension 1.

    Without that dimension its similarity is 0.65 / 0.8 > 0.8, though it is no candidate.
    """
    monkeypatch.setattr("dimlab.kernels.certificate._ELEMENTS", elements)
    cosines, gone = np.array([0.65, 0.652, 0.8]), np.array([0.6, 0.0, 0.0])
    rest = np.sqrt(1 - cosines**2 - gone**2)
    train, query = np.stack([cosines, gone, rest], axis=1), np.array([[1.0, 0.0, 0.0]])
    rows, similarities, _ = search(train, query, groups, k=1, n_candidates=2)
    np.testing.assert_array_equal(rows[0, -1 if groups else 1], [0])
    np.testing.assert_allclose(similarities[0, -1 if groups else 1], 0.8125, atol=1e-9)


def test_similarities_closer_than_float32_can_tell_are_ordered_by_float64():
    """A few test have 60 rows within 1e-7; for most of them float32 is enough."""
    nothing, n_certified = [np.array([], dtype=int)], 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        train, test = rng.normal(size=(300, 12)), rng.normal(size=(7, 12))
        for start, q in zip((0, 60, 120), test, strict=False):
            q = q / np.linalg.norm(q)
            across = rng.normal(size=(60, 12))
            across -= np.outer(across @ q, q)
            across /= np.linalg.norm(across, axis=1, keepdims=True)
            cosines = (0.99 + rng.uniform(-1e-7, 1e-7, size=60))[:, None]
            train[start : start + 60] = cosines * q + np.sqrt(1 - cosines**2) * across
        rows, _, blocks = search(train, test, nothing, k=4, n_candidates=5)
        np.testing.assert_array_equal(rows, brute_force(train, test, nothing, 4)[0])
        n_certified += sum(block.n_certified for block in blocks)
    assert 8 * 3 <= n_certified < 8 * 7  # the search was in float32


def test_a_dominant_dimension_is_searched_on_its_own():
    rng = np.random.default_rng(8)
    train, test = (plant("dominant", rng, n, 8).astype(np.float32) for n in (4000, 6))
    rows, _, blocks = search(train, test, k=5)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(8), 5)[0])
    # At least its own ablation, once a query: the rest of the rows is nothing beside it.
    assert sum(block.n_searched for block in blocks) >= 6


def test_identical_rows_by_the_thousand_are_taken_in_order():
    train = np.tile(np.array([[1.0, 2.0, 2.0]]), (3000, 1))
    rows, _, _ = search(train, np.array([[2.0, 2.0, 1.0]]), k=3)
    np.testing.assert_array_equal(rows, np.tile([0, 1, 2], (1, 3, 1)))


def test_low_float32_precision_is_not_trusted():
    rng = np.random.default_rng(9)
    train, test = (plant("relu", rng, n, 12).astype(np.float32) for n in (500, 9))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        rows, _, _ = search(train, test, k=5)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(12), 5)[0])


def test_without_the_certificate_candidates_alone_are_wrong():
    """Negative control: the worlds above do need rows beyond the candidates."""
    rng = np.random.default_rng(0)
    train, test = (plant("relu", rng, n, 9) for n in (160, 21))
    candidates = brute_force(train, test, [np.array([], int)], 5)[0][:, 0]
    expected = brute_force(train, test, singles(9), 4)[0]
    inside = (expected[..., None] == candidates[:, None, None, :]).any(-1).all(-1)
    assert inside.mean() < 0.9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-60, 60))
def test_powers_of_two_change_nothing(seed, exponent):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(40, 5)), rng.normal(size=(4, 5))
    rows, similarities, _ = search(train, test, k=3, n_candidates=5)
    rescaled = search(train * 2.0**exponent, test * 2.0**-exponent, k=3, n_candidates=5)
    np.testing.assert_array_equal(rows, rescaled[0])
    np.testing.assert_array_equal(similarities, rescaled[1])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 50),
    d=st.integers(1, 7),
    levels=st.integers(1, 3),
    data=st.data(),
)
def test_tied_small_integers_equal_brute_force(seed, n, d, levels, data):
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, n))
    m = data.draw(st.integers(k, n))
    train = rng.integers(-levels, levels + 1, size=(n, d)).astype(np.float32)
    test = rng.integers(-levels, levels + 1, size=(5, d)).astype(np.float32)
    rows, _, _ = search(train, test, k=k, n_candidates=m, block=2)
    np.testing.assert_array_equal(rows, brute_force(train, test, singles(d), k)[0])


@pytest.mark.parametrize("k", [0, 2**19 + 1])
def test_k_out_of_range_is_refused(k):
    train = Rows.of(np.ones((2**19 + 5, 1), np.float32), "cpu")
    groups = Groups.of(None, 1, train.device)
    with pytest.raises(ValueError, match=r"^k must lie in 1\.\.524288; got \d+\.$"):
        next(find_neighbours(train, train, groups, k=k))


@pytest.mark.long
def test_a_long_random_walk_over_worlds():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        d = int(rng.integers(4, 40))
        train, test = (plant(kind, rng, n, d).astype(np.float32) for n in (3000, 12))
        rows, _, _ = search(train, test, k=5, n_candidates=int(rng.integers(5, 80)))
        np.testing.assert_array_equal(rows, brute_force(train, test, singles(d), 5)[0])


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
