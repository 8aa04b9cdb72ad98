"""Thresholds of rounding follow the precision that features were stored in."""

import numpy as np
import pytest
import torch

from dimlab import ablate, correlate, decompose, find_redundancy
from dimlab.basis import fit_basis
from dimlab.kernels.collinearity import variance_inflation
from dimlab.kernels.rounding import eigenvalue_floor, eps_of, stored_precision
from dimlab.moments import Moments
from dimlab.readers.linear import Standardiser
from dimlab.representation import Representation
from tests.reading import fit_logistic, fit_ridge

STORED = {
    "float16": lambda x: x.astype(np.float16),
    "float16 in float32": lambda x: x.astype(np.float16).astype(np.float32),
    "float16 in float64": lambda x: x.astype(np.float16).astype(np.float64),
    "bfloat16 in float32": lambda x: torch.from_numpy(x).bfloat16().float().numpy(),
    "bfloat16 in float64": lambda x: torch.from_numpy(x).bfloat16().double().numpy(),
    "float32": lambda x: x.astype(np.float32),
    "float32 in float64": lambda x: x.astype(np.float32).astype(np.float64),
    "float64": lambda x: x,
}


@pytest.mark.parametrize("stored", STORED)
def test_the_stored_precision_is_found_and_kept(stored, rng, tmp_path):
    rows = Representation(STORED[stored](np.maximum(rng.normal(size=(300, 7)), 0)))
    precision = stored.split()[0]
    assert rows.precision == precision
    assert rows.eps == eps_of(precision)
    assert rows.take([0, 1]).select([2]).precision == precision
    assert Representation.load(rows.save(tmp_path / "a.safetensors")).precision == precision
    assert Moments.of(rows.features).precision == precision
    state = Moments.of(iter([rows.features[:9], rows.features[9:]]))
    assert Moments.load(state.save(tmp_path / "b.safetensors")).precision == precision
    assert fit_basis(rows, "pca").apply(rows).precision == precision


@pytest.mark.parametrize(
    "values", [np.arange(256.0), np.arange(-40.0, 40.0) / 8, np.zeros(9), np.arange(256.0) / 256]
)
def test_whole_and_short_numbers_are_not_taken_for_rounded_ones(values):
    for dtype in (np.float32, np.float64):
        assert stored_precision(values.astype(dtype)[:, None]) == np.dtype(dtype).name


def test_merged_moments_have_the_coarser_precision(rng):
    rows = rng.normal(size=(200, 3))
    half = Moments.of(rows.astype(np.float16).astype(np.float32))
    assert half.merge(Moments.of(rows)).precision == "float16"
    assert Moments.empty(20, 1, 3).merge(half).whole().precision == "float16"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"meta\['precision'\] must be one of float16.*'half'"):
        Representation(np.eye(2), meta={"precision": "half"})


@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("stored", STORED)
def test_rank_and_collinearity_do_not_depend_on_the_storage(stored, offset):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(800, 8)) @ rng.normal(size=(8, 48)) + offset
    low = Representation(STORED[stored](rows))
    assert decompose(low, centred=True).numerical_rank == 8
    assert decompose(Moments.of(low.features), centred=True).numerical_rank == 8
    assert decompose(low).numerical_rank == 8 + (offset > 0)
    assert np.isinf(find_redundancy(low).variance_inflation_factor).all()
    assert fit_basis(low, "pca", n_directions=8).n_dropped == 40
    full = Representation(STORED[stored](rng.normal(size=(800, 48)) + offset))
    assert decompose(full, centred=True).numerical_rank == 48
    assert np.isfinite(find_redundancy(full).variance_inflation_factor).all()


def test_the_floor_lies_above_the_rounding_noise_and_close_to_it(rng):
    for n, d in ((400, 40), (2000, 300)):
        rows = rng.normal(size=(n, d)) + 2
        noise = rows - rows.astype(np.float16)
        largest = np.linalg.eigvalsh(noise.T @ noise / n)[-1]
        floor = eigenvalue_floor(0.0, float((rows**2).mean(axis=0).max()), n, d, eps_of("float16"))
        assert largest < floor < 100 * largest


@pytest.mark.parametrize("offset", [0.0, 6.0])
@pytest.mark.parametrize("stored", STORED)
def test_copies_are_found_whatever_the_storage(stored, offset):
    rng = np.random.default_rng(5)
    columns = rng.normal(size=(1500, 5)) + offset
    close = columns[:, 0] + 0.03 * rng.normal(size=1500)  # 1 - 4.5e-4: no copy
    columns = np.column_stack([columns, 1.7 * columns[:, 0], -0.3 * columns[:, 1] + 2, close])
    found = find_redundancy(Representation(STORED[stored](columns))).duplicates
    assert [group.tolist() for group in found] == [[0, 5], [1, 6]]


def softmax_split(seed, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    logits = 1.5 * np.random.default_rng(9).normal(size=(3, 8))[labels] + rng.normal(size=(300, 8))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Representation(shares.astype(dtype), labels=labels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["pca", "varimax"])
def test_a_direction_without_variance_is_constant_for_every_linear_reader(dtype, kind):
    train, test = softmax_split(1, dtype), softmax_split(2, dtype)
    basis = fit_basis(train, kind)
    train, test = basis.apply(train), basis.apply(test)
    for reader, refit in (("logistic", False), ("ridge", True), ("ridge", False)):
        ablation = ablate(train, test, reader=reader, refit=refit)
        np.testing.assert_array_equal(ablation.constant, [7])
        np.testing.assert_array_equal(ablation.importance[7], 0.0)
        np.testing.assert_array_equal(ablation.log_loss_importance[7], 0.0)
    with pytest.warns(UserWarning, match="1 of 8 dimensions do not vary"):
        assert np.flatnonzero(correlate(test, n_draws=2).dead).tolist() == [7]


@pytest.mark.parametrize("kind", ["pca", "varimax"])
def test_a_direction_without_variance_is_constant_however_small_its_mean(kind):
    """Rounding of large entries is large beside the mean of the direction that they cancel in."""
    rng = np.random.default_rng(4)
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    scores = rng.normal(size=(600, 6)) * [10, 10, 10, 10, 10, 0] + [0, 0, 0, 0, 0, 1e-3]
    labels = (scores[:, 0] > 0).astype(int)
    split = Representation((scores @ turned.T).astype(np.float32), labels=labels)
    basis = fit_basis(split.take(np.arange(300)), kind)
    train, test = (basis.apply(split.take(rows)) for rows in np.split(np.arange(600), 2))
    assert len(np.unique(train.features[:, 5])) == len(np.unique(test.features[:, 5])) == 1
    for reader, refit in (("logistic", False), ("ridge", False)):
        ablation = ablate(train, test, reader=reader, refit=refit)
        np.testing.assert_array_equal(ablation.constant, [5])
        np.testing.assert_array_equal(ablation.importance[5], 0.0)


def test_a_basis_keeps_test_rows_that_do_leave_the_train_rows_plane():
    train = softmax_split(1, np.float64)
    outside = Representation(np.eye(8)[:2] * [[1.0], [1.5]], labels=np.array([0, 1]))
    scores = fit_basis(train, "pca").apply(outside).features[:, 7]
    np.testing.assert_allclose(scores[1], 1.5 * scores[0], rtol=1e-9)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32", "float64"])
def test_one_rule_for_constant_in_every_place(precision, rng):
    """A spread just below the floor is constant and one just above it is not, everywhere."""
    labels = rng.integers(0, 2, 400)
    wave = np.where(rng.permutation(400) < 200, 1.0, -1.0)
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
    least = 3.0 * max(1e-12, 2 * eps[precision])
    for factor, dead in ((0.9, True), (1.1, False)):
        columns = np.column_stack([3.0 + factor * least * wave, rng.normal(size=400)])
        rows = Representation(columns, labels=labels, meta={"precision": precision})
        found = [
            Standardiser.fit(columns, precision).scale[0] == 0,
            fit_ridge(columns, labels, precision).weights[0].any() == 0,
            fit_logistic(columns, labels, precision, penalty=1.0).weights[0].any() == 0,
            0 in ablate(rows, rows, reader="ridge").constant,
            bool(find_redundancy(rows).dead[0]),
        ]
        assert found == [dead] * 5


def test_inflation_is_infinite_by_the_floor_that_is_given():
    correlation = np.array([[1.0, 0.9999], [0.9999, 1.0]])
    assert np.isfinite(variance_inflation(correlation)).all()
    assert np.isinf(variance_inflation(correlation, 2e-4)).all()
