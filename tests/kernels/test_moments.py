"""Moments: streamed, merged and saved equal whole, wherever the data lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.kernels.moments import deal, deal_clusters
from dimlab.moments import Moments
from dimlab.representation import Representation


def rows(seed=0, n=5000, d=6, mean=1000.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + mean


def states_equal(a, b, tolerance=1e-10):
    np.testing.assert_array_equal(a.counts, b.counts)
    for name in ("means", "squares", "scatters"):
        x, y = getattr(a, name), getattr(b, name)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max())


def test_by_hand():
    """Rows (1, 0), (3, 2), (5, 1): mean (3, 1), deviations (-2, -1), (0, 1), (2, 0)."""
    moments = Moments.of(np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 1.0]]), n_blocks=1)
    np.testing.assert_array_equal(moments.mean, [[3.0, 1.0]])
    np.testing.assert_array_equal(moments.scatters[0], [[8.0, 2.0], [2.0, 2.0]])
    np.testing.assert_array_equal(moments.squares[0, 0], [8.0, 2.0])


def test_pairs_by_hand():
    """x deviates by -1, 0, 1 and y by 2, -1, -1: products -2, 0, -1."""
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[5.0], [2.0], [2.0]])
    moments = Moments.of((x, y), n_blocks=1)
    assert moments.has_views
    np.testing.assert_array_equal(moments.scatters[0], [[-3.0]])
    np.testing.assert_array_equal(moments.squares[0], [[2.0], [6.0]])


def test_pairs_are_rows_of_the_first_view_and_columns_of_the_second():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 300, 4))
    expected = (x - x.mean(0)).T @ (y - y.mean(0)) / 300
    np.testing.assert_allclose(Moments.of((x, y)).covariance, expected, atol=1e-12)
    assert np.abs(expected - expected.T).max() > 1e-3


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_blocks", [1, 20])
def test_the_covariance_is_numpys_far_from_zero(dtype, n_blocks):
    x = rows().astype(dtype)
    moments = Moments.of(x, n_blocks=n_blocks)
    expected = np.cov(x.astype("f8").T, bias=True)
    np.testing.assert_allclose(moments.covariance, expected, rtol=1e-10, atol=1e-10)
    # negative control: raw moments of float32 at mean 1000 lose most digits
    raw = (x.astype("f4").T @ x.astype("f4")) / len(x) - np.outer(x.mean(0), x.mean(0))
    assert np.abs(raw - expected).max() > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.integers(1, 25))
def test_streamed_equals_whole_for_any_batches(sizes, n_blocks):
    x = rows(n=sum(sizes))
    parts = np.split(x, np.cumsum(sizes)[:-1])
    states_equal(Moments.of(iter(parts), n_blocks=n_blocks), Moments.of(x, n_blocks=n_blocks))


def test_chunks_change_nothing(monkeypatch):
    x = rows(n=20_000)
    whole = Moments.of(x)
    monkeypatch.setattr("dimlab.kernels.moments._CHUNK", 1)  # chunks of 4,096 rows
    states_equal(Moments.of(x), whole)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("cuts", [(1000,), (1, 4000), (4096,)])
def test_merged_shards_have_the_moments_of_the_whole(views, cuts):
    x = rows()
    y = rows(1)
    source = (x, y) if views == 2 else x
    parts = [
        Moments.of((a, b) if views == 2 else a)
        for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True)
    ]
    states_equal(parts[0].merge(*parts[1:]).whole(), Moments.of(source).whole())


def test_shards_that_know_their_first_row_merge_to_the_same_blocks():
    x = rows()
    parts = [Moments.of(x[a:b], first_row=a) for a, b in ((0, 1234), (1234, 4500), (4500, 5000))]
    states_equal(parts[0].merge(*parts[1:]), Moments.of(x))


def test_without_each_block_are_the_moments_of_the_other_rows():
    x, y = rows(), rows(1)
    block = deal(0, len(x), 20, 0)
    for b, (single, pair) in enumerate(
        zip(Moments.of(x).without_each(), Moments.of((x, y)).without_each(), strict=True)
    ):
        kept = block != b
        states_equal(single, Moments.of(x[kept], n_blocks=1), 1e-9)
        states_equal(pair, Moments.of((x[kept], y[kept]), n_blocks=1), 1e-9)


def test_some_blocks_are_the_moments_of_their_rows():
    x, block = rows(), deal(0, 5000, 20, 0)
    kept = np.isin(block, [3, 7])
    states_equal(Moments.of(x)[[3, 7]].whole(), Moments.of(x[kept], n_blocks=1), 1e-9)


def test_rows_are_dealt_evenly_and_by_their_number_alone():
    whole = deal(0, 10_000, 20, 0)
    np.testing.assert_array_equal(deal(3000, 2000, 20, 0), whole[3000:5000])
    assert np.ptp(np.bincount(whole[:8192])) <= 2
    assert (deal(0, 10_000, 20, 1) != whole).any()


@pytest.mark.parametrize("views", [1, 2])
def test_the_products_of_torch_are_those_of_blas(views):
    source = (rows(), rows(1)) if views == 2 else rows()
    states_equal(Moments.of(source, device="cpu:0"), Moments.of(source), 1e-11)


def test_tensors_of_any_precision_are_rows():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    for each in (x, x.bfloat16(), x.double().requires_grad_()):
        moments = Moments.of([each[:20], each[20:]], n_blocks=1)
        expected = np.cov(each.detach().double().numpy().T, bias=True)
        np.testing.assert_allclose(moments.covariance, expected, rtol=1e-12)


def test_a_memory_mapped_file_is_read_in_chunks(tmp_path, monkeypatch):
    x = rows(n=9000).astype("f4")
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr("dimlab.kernels.moments._CHUNK", 1)
    states_equal(Moments.of(np.load(tmp_path / "x.npy", mmap_mode="r")), Moments.of(x))


def test_save_and_load(tmp_path):
    state = Moments.of(rows())
    path = state.save(tmp_path / "state.safetensors")
    states_equal(Moments.load(path), state, 0)


def test_progress_is_reported_to_the_end():
    seen = []
    Moments.of(rows(), progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (5000, 5000)


def test_bad_rows_are_refused(tmp_path):
    x = rows()
    holed = x.copy()
    holed[4321, 2] = np.nan
    with pytest.raises(ValueError, match=r"must be finite; got nan in dimension 2, row 4321\.$"):
        Moments.of(holed)
    holed[4321, 2] = np.inf
    with pytest.raises(ValueError, match=r"got inf in dimension 2, row 4321\.$"):
        Moments.of(iter([holed[:100], holed[100:]]))
    with pytest.raises(ValueError, match=r"^n_blocks must be >= 1; got 0\.$"):
        Moments.of(x, n_blocks=0)
    with pytest.raises(ValueError, match=r"^source must hold at least one row; got none\.$"):
        Moments.of(iter([]))
    with pytest.raises(ValueError, match=r"^rows must have shape \(n, D\) .*; got \(5,\)\.$"):
        Moments.of(np.zeros(5))
    with pytest.raises(ValueError, match=r"^batches must have shape \(2, 6\); got \(2, 3\)\.$"):
        Moments.of([x[:5], x[:2, :3]])
    with pytest.raises(ValueError, match=r"^batches must all hold one array, or two views; got 2"):
        Moments.of([x[:5], (x[:2], x[:2])])
    with pytest.raises(TypeError, match=r"^rows must be floating; got int64\.$"):
        Moments.of(np.ones((3, 2), dtype=int))
    with pytest.raises(TypeError, match=r"^source must be rows or an iterable of them; got int\.$"):
        Moments.of(3)
    with pytest.raises(ValueError, match=r"^moments must agree in blocks, views and dimensions"):
        Moments.of(x).merge(Moments.of(x[:, :2]))
    with pytest.raises(ValueError, match=r"^path must end in \.safetensors; got 'a\.npz'\.$"):
        Moments.of(x).save(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="no such file"):
        Moments.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"12345678900")
    with pytest.raises(ValueError, match=r"^bad\.safetensors must be a complete safetensors file"):
        Moments.load(tmp_path / "bad.safetensors")
    Representation(x).save(tmp_path / "features.safetensors")
    with pytest.raises(ValueError, match=r"^features\.safetensors must be a state of moments"):
        Moments.load(tmp_path / "features.safetensors")
    state = Moments.of(x)
    with pytest.raises(ValueError, match=r"^squares must have shape \(20, 1, 6\) to match means"):
        Moments(state.counts, state.means, state.squares[:, :, :2], state.scatters)
    with pytest.raises(ValueError, match=r"^means must have shape \(B, V, D\); got \(20, 6\)\.$"):
        Moments(state.counts, state.means[:, 0], state.squares, state.scatters)
    with pytest.raises(ValueError, match="with V of 1 or 2; got V=3"):
        Moments.empty(4, 3, 2)


@pytest.mark.parametrize("n_blocks", [1, 4])
def test_no_rows_have_no_mean(n_blocks):
    nothing = Moments.empty(n_blocks, 1, 2)
    for ask in (nothing.whole, lambda: nothing.mean, nothing[[0]].whole):
        with pytest.raises(ValueError, match=r"^moments must be of at least one row; got none\.$"):
            ask()


@pytest.mark.parametrize("value", [0.1, 1000.3, -7e5])
def test_what_does_not_vary_has_no_scatter_at_all(value):
    x = np.column_stack([np.full(200_000, value), np.random.default_rng(0).normal(size=200_000)])
    for n_blocks in (1, 20):
        moments = Moments.of(x, n_blocks=n_blocks)
        assert (moments.squares[:, 0, 0] == 0).all()
        np.testing.assert_allclose(moments.mean[0, 0], value, rtol=1e-15)


def test_a_stream_may_fill_one_buffer_again_and_again():
    x, buffer = rows(n=1000), np.empty((100, 6))

    def batches():
        for part in np.split(x, 10):
            buffer[:] = part
            yield buffer

    states_equal(Moments.of(batches()), Moments.of(x))


def test_a_dimension_that_one_block_alone_moves_is_still_without_it():
    x = rows(n=400)
    x[:, 2] = 0
    x[17, 2] = 1.5
    block = deal(0, 400, 20, 0)[17]
    without = list(Moments.of(x).without_each())
    assert without[block].squares[0, 0, 2] == 0
    assert (without[block].scatters[0, 2] == 0).all()
    assert all(each.squares[0, 0, 2] > 0 for b, each in enumerate(without) if b != block)


def test_what_rounding_leaves_of_a_dimension_that_one_block_moves_is_taken_off():
    rng = np.random.default_rng(5)
    block = deal(0, 60, 5, 0)
    x = np.tile(rng.normal(size=40) * 10.0 ** rng.integers(-2, 3, size=40), (60, 1))
    x[block == 2] += rng.normal(size=((block == 2).sum(), 40))
    moments = Moments.of(x, n_blocks=5)
    without = list(moments.without_each())[2]
    assert not without.squares.any()
    assert not without.scatters.any()


def test_states_of_no_rows_merge_and_kinds_do_not_mix(tmp_path):
    state = Moments.of(rows())
    states_equal(Moments.empty(20, 1, 6).merge(state), state)
    named = Moments(state.counts, state.means, state.squares, state.scatters, {"basis": "pca"})
    loaded = Moments.load(named.save(tmp_path / "pca.safetensors"))
    assert loaded.meta == {"basis": "pca"}
    assert loaded.merge(named).meta == {"basis": "pca"}
    with pytest.raises(ValueError, match=r"^moments must be of the same kind to merge"):
        loaded.merge(state)
    with pytest.raises(
        ValueError, match=r"at most 1e\+140 in size; got 1e\+200 in dimension 0, row"
    ):
        Moments.of(np.full((5, 2), 1e200) * [1, 0.1])
    with pytest.raises(ValueError, match=r"^source must be one array, or two views; got 0\.$"):
        Moments.of(())
    state.scatters[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="must hold finite moments"):
        Moments.load(state.save(tmp_path / "nan.safetensors"))


def test_rows_of_a_cluster_are_in_one_block(rng):
    clusters = rng.permutation(np.repeat(np.arange(30), rng.integers(1, 9, size=30)))
    blocks = deal_clusters(clusters, 7, 3)
    for cluster in range(30):
        assert len(set(blocks[clusters == cluster])) == 1
    of_clusters = np.bincount([blocks[clusters == cluster][0] for cluster in range(30)])
    assert of_clusters.max() - of_clusters.min() <= 1
    rows = rng.normal(size=(len(clusters), 3))
    whole = Moments.of(rows, n_blocks=7, seed=3, clusters=clusters)
    streamed = Moments.of(iter(np.array_split(rows, 5)), n_blocks=7, seed=3, clusters=clusters)
    np.testing.assert_array_equal(whole.counts, np.bincount(blocks, minlength=7))
    np.testing.assert_allclose(streamed.means, whole.means, atol=1e-12)
    for wrong in (clusters[:-1], np.append(clusters, 0)):
        with pytest.raises(ValueError, match=r"^clusters must have one id a row; got"):
            Moments.of(rows, clusters=wrong)
