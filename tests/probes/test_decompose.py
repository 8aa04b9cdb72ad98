"""Spectrum: closed forms, every published definition, intervals, degenerate input."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.kernels.jackknife import Scale, jackknife, jackknife_deviations
from dimlab.kernels.moments import deal
from dimlab.kernels.reliability import RANKS, block_kurtosis, doubtful_statistics
from dimlab.kernels.spectra import DEFINITIONS, entropy_rank, participation_ratio
from dimlab.moments import Moments
from dimlab.probes._ranks import effective_rank, lidar
from dimlab.probes.decompose import decompose
from dimlab.representation import Representation
from tests import references, worlds


def orthonormal(rng, n, d):
    return np.linalg.qr(rng.normal(size=(n, d)))[0]


def with_values(values, n=300, seed=0, dtype="f8"):
    """Features of known singular values in directions of no axis."""
    rng = np.random.default_rng(seed)
    d = len(values)
    return (orthonormal(rng, n, d) * values @ worlds.random_rotation(rng, d)).astype(dtype)


# Closed forms --------------------------------------------------------------------------------


def test_known_singular_values_are_found_and_rank_3_69():
    values = np.array([8, 4, 2, 1, 0.5, 0.25])
    features = with_values(values)
    spectrum = decompose(Representation(features))
    np.testing.assert_allclose(spectrum.singular_values, values, rtol=1e-12)
    assert round(spectrum.effective_rank, 2) == 3.69
    assert round(effective_rank(features), 2) == 3.69
    np.testing.assert_allclose(np.exp(spectrum.entropy), spectrum.effective_rank)
    np.testing.assert_allclose(spectrum.stable_rank, 85.3125 / 64)
    np.testing.assert_allclose(spectrum.condition_number, 32)
    assert spectrum.numerical_rank == 6
    np.testing.assert_allclose(spectrum.variance_share, values**2 / 85.3125, rtol=1e-12)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_orthonormal_columns_have_as_many(definition):
    rng = np.random.default_rng(1)
    q = orthonormal(rng, 400, 7)
    features = np.vstack([q, -q])  # centred, so that centring changes nothing
    added = DEFINITIONS[definition][2]
    np.testing.assert_allclose(
        effective_rank(features, definition=definition), 7, rtol=100 * added + 1e-12
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("k", [1, 5, 8])
@pytest.mark.parametrize("streamed", [False, True])
def test_data_of_rank_k_are_never_above_k(dtype, k, streamed):
    rng = np.random.default_rng(2)
    features = (rng.normal(size=(1000, k)) @ rng.normal(size=(k, 64))).astype(dtype)
    source = Moments.of(features.astype("f8")) if streamed else Representation(features)
    if streamed and dtype == "f4":
        source = Moments.of(rng.normal(size=(1000, k)) @ rng.normal(size=(k, 64)))
    spectrum = decompose(source)
    assert spectrum.numerical_rank == k
    assert 1 <= spectrum.effective_rank <= k * (1 + 1e-12)
    assert spectrum.participation_ratio <= k * (1 + 1e-12)
    assert spectrum.condition_number == np.inf
    if not streamed:
        assert effective_rank(features, definition="roy-vetterli") <= k * (1 + 1e-12)


def test_a_planted_power_law_is_found():
    values = np.arange(1, 81) ** -0.6
    spectrum = decompose(Representation(with_values(values, n=900)))
    np.testing.assert_allclose(spectrum.power_law_exponent, 1.2, rtol=1e-9)
    np.testing.assert_allclose(spectrum.power_law_r_squared, 1, rtol=1e-9)
    assert spectrum.power_law_range == (11, 80)
    other = decompose(Representation(with_values(values, n=900)), fit_range=(2, 6))
    assert other.power_law_range == (2, 6)


def test_lidar_counts_directions_in_which_samples_differ_more_than_views():
    rng = np.random.default_rng(3)
    samples = np.zeros((3000, 10))
    samples[:, :4] = rng.normal(size=(3000, 4))
    views = samples + 0.1 * rng.normal(size=(2, 3000, 10))
    assert lidar(views) == pytest.approx(4, abs=0.4)
    noise = rng.normal(size=(2, 3000, 10))  # negative control: no direction is better than others
    assert lidar(noise) > 9.5


# Laws ----------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2.0**-30, 0.37, 5e4]))
def test_rotation_and_scale_change_no_rank(seed, scale):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(80, 6)) * np.arange(1, 7) + 1
    turned = scale * features @ worlds.random_rotation(rng, 6)
    plain, other = decompose(Representation(features)), decompose(Representation(turned))
    for name in ("effective_rank", "participation_ratio", "stable_rank", "condition_number"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), rtol=1e-9)
        np.testing.assert_allclose(
            other.corrected_intervals[name], plain.corrected_intervals[name], rtol=1e-6
        )
    for definition in DEFINITIONS:
        expected = effective_rank(features, definition=definition)
        np.testing.assert_allclose(
            effective_rank(turned, definition=definition), expected, rtol=1e-9
        )


def test_centring_takes_off_the_mean_direction():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(500, 5)) + 100
    loud = decompose(Representation(features))
    quiet = decompose(Representation(features), centred=True)
    assert loud.stable_rank < 1.01
    assert quiet.stable_rank > 4
    np.testing.assert_allclose(
        quiet.singular_values, np.linalg.svd(features - features.mean(0), compute_uv=False)
    )
    np.testing.assert_allclose(
        decompose(Moments.of(features), centred=True).singular_values, quiet.singular_values
    )


# Oracles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_every_definition_is_its_formula_written_out(definition):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(90, 12)) * np.arange(1, 13) + 2
    expected = references.published_effective_rank(features, definition)
    np.testing.assert_allclose(effective_rank(features, definition=definition), expected)


def test_the_definitions_differ():
    rng = np.random.default_rng(6)
    features = rng.normal(size=(300, 40)) * np.arange(1, 41) ** -0.5 + 0.5
    found = {name: effective_rank(features, definition=name) for name in DEFINITIONS}
    assert found["roy-vetterli"] < found["rankme"] < found["stable-pretraining"]
    assert found["covariance"] == found["ssrlib"] < 0.7 * found["centred"]


def test_lidar_is_its_definition_in_loops():
    rng = np.random.default_rng(7)
    views = rng.normal(size=(3, 40, 5)) + rng.normal(size=(40, 5)) * [3, 2, 1, 1, 0.1]
    np.testing.assert_allclose(lidar(views), references.lidar(views, 1e-4, 1e-7), rtol=1e-9)
    spectrum = decompose(Representation(views[0], views=views))
    np.testing.assert_allclose(spectrum.lidar, lidar(views), rtol=1e-9)
    low, high = spectrum.corrected_intervals["lidar"]
    assert 1 <= low < high


def test_the_interval_of_lidar_leaves_the_samples_of_each_block_out():
    rng = np.random.default_rng(17)
    views = rng.normal(size=(3, 60, 5)) + rng.normal(size=(60, 5)) * [3, 2, 1, 1, 0.1]
    blocks = deal(0, 60, 20, 0)
    without = [references.lidar(views[:, blocks != block], 1e-4, 1e-7) for block in range(20)]
    full, scale = np.array([lidar(views)]), Scale(lowest=1.0, highest=5.0)
    expected = jackknife(full, np.array(without)[:, None], np.bincount(blocks), scale)
    spectrum = decompose(Representation(views[0], views=views))
    found = (spectrum.corrected["lidar"], *spectrum.corrected_intervals["lidar"])
    np.testing.assert_allclose(found, np.ravel(expected[1:]), rtol=1e-7)


# Streams -------------------------------------------------------------------------------------


def test_moments_and_rows_agree():
    rng = np.random.default_rng(8)
    features = rng.normal(size=(700, 20)) * np.arange(1, 21) + 3
    whole = decompose(Representation(features))
    streamed = decompose(Moments.of(np.array_split(features, 9)))
    np.testing.assert_allclose(streamed.singular_values, whole.singular_values, rtol=1e-10)
    for name in ("effective_rank", "participation_ratio", "stable_rank", "power_law_exponent"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), rtol=1e-9)
        np.testing.assert_allclose(
            streamed.corrected_intervals[name], whole.corrected_intervals[name], rtol=1e-9
        )
    merged = decompose(Moments.of(features[:100]).merge(Moments.of(features[100:])))
    np.testing.assert_allclose(merged.effective_rank, whole.effective_rank, rtol=1e-10)


def test_many_rows_go_through_moments(monkeypatch):
    monkeypatch.setattr("dimlab.probes.decompose._DIRECT", 0)
    values = np.array([8, 4, 2, 1, 0.5, 0.25])
    spectrum = decompose(Representation(with_values(values)))
    np.testing.assert_allclose(spectrum.singular_values, values, rtol=1e-10)


# Intervals -----------------------------------------------------------------------------------


def test_intervals_cover_the_value_of_the_population():
    scales = np.arange(1, 17) ** -0.5
    truth = {
        "effective_rank": entropy_rank(scales),
        "participation_ratio": (scales**2).sum() ** 2 / (scales**4).sum(),
        "stable_rank": (scales**2).sum() / scales.max() ** 2,
    }
    covered = dict.fromkeys(truth, 0)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        spectrum = decompose(Representation(rng.normal(size=(600, 16)) * scales), seed=seed)
        for name, value in truth.items():
            low, high = spectrum.corrected_intervals[name]
            covered[name] += low <= value <= high
    assert min(covered.values()) >= 87  # 95 - 3.7 standard errors
    assert max(covered.values()) <= 100


def test_corrected_ranks_lack_the_bias_of_few_samples():
    """On average they are near the population's, where the plain ones are below it."""
    scales = np.arange(1, 17) ** -0.5
    truth = {
        "effective_rank": entropy_rank(scales),
        "participation_ratio": (scales**2).sum() ** 2 / (scales**4).sum(),
    }
    plain, corrected = dict.fromkeys(truth, 0.0), dict.fromkeys(truth, 0.0)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        spectrum = decompose(Representation(rng.normal(size=(200, 16)) * scales), seed=seed)
        for name, value in truth.items():
            plain[name] += getattr(spectrum, name) / value / 60 - 1 / 60
            corrected[name] += spectrum.corrected[name] / value / 60 - 1 / 60
    for name in truth:
        assert plain[name] < -0.008
        assert abs(corrected[name]) < 0.006


@pytest.mark.parametrize(
    ("draw", "doubtful"),
    [
        ("gaussian", set()),
        ("equal", {"condition_number", "power_law_exponent", "stable_rank"}),
        ("student", {*RANKS, "condition_number", "power_law_exponent"}),
        ("lognormal", {*RANKS, "condition_number", "power_law_exponent"}),
    ],
)
def test_intervals_that_are_known_to_fail_are_marked(draw, doubtful):
    rng, scales = np.random.default_rng(20), np.arange(1, 9.0) ** -1.5
    rows = {
        "gaussian": lambda: rng.normal(size=(3000, 8)) * scales,
        "equal": lambda: rng.normal(size=(3000, 8)),
        "student": lambda: rng.standard_t(3, size=(3000, 8)) * scales,
        "lognormal": lambda: rng.lognormal(size=(3000, 8)) * scales,
    }
    spectrum = decompose(Representation(rows[draw]()))
    assert set(spectrum.doubtful) >= doubtful
    assert doubtful or not spectrum.doubtful
    assert ("Tails are heavy" in spectrum.caution) == (draw in ("student", "lognormal"))
    assert spectrum.summary()["doubtful"] == list(spectrum.doubtful)


def test_whole_clusters_go_to_the_blocks_and_widen_intervals():
    rng = np.random.default_rng(21)
    once = rng.normal(size=(60, 8)) * np.arange(1, 9.0) ** -1
    copied = np.repeat(once, 9, axis=0)
    views = np.stack([copied, copied + 0.1 * rng.normal(size=copied.shape)])
    patient = np.repeat(np.arange(60), 9)
    world = Representation(copied, views=views, factors={"patient": patient})
    found = decompose(world, clusters="patient")
    apart = decompose(world)
    single = decompose(Representation(once))
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        width, narrow = (np.ptp(each.corrected_intervals[name]) for each in (found, apart))
        assert width > 1.5 * narrow
    np.testing.assert_allclose(  # copies of a row say no more than the row
        np.ptp(found.corrected_intervals["effective_rank"]),
        np.ptp(single.corrected_intervals["effective_rank"]), rtol=0.5,
    )  # fmt: skip
    assert "blocks of clusters" in found.summary()["intervals"]
    again = decompose(world, clusters=patient)
    assert again.corrected_intervals == found.corrected_intervals
    with pytest.raises(ValueError, match=r"^clusters must be left out for moments"):
        decompose(Moments.of(copied), clusters=patient)


def test_few_samples_have_no_interval_and_nothing_is_made_up():
    rng = np.random.default_rng(9)
    spectrum = decompose(Representation(rng.normal(size=(3, 2))))
    assert np.isnan(spectrum.corrected_intervals["effective_rank"]).all()
    summary = json.loads(json.dumps(spectrum.summary(), allow_nan=False))
    assert summary["effective_rank_corrected_interval"] is None
    assert summary["effective_rank_corrected"] is None
    assert summary["power_law_exponent"] is None
    many = Representation(rng.normal(size=(300, 4)))
    assert np.isnan(decompose(many, n_blocks=1).corrected_intervals["stable_rank"]).all()
    assert np.isfinite(decompose(many, n_blocks=2).corrected_intervals["stable_rank"]).all()


# Degenerate input ----------------------------------------------------------------------------


def test_too_few_samples_for_the_dimensions_are_warned_of():
    rng = np.random.default_rng(10)
    wide = rng.normal(size=(30, 40))
    with pytest.warns(UserWarning, match=r"^N = 30 samples do not exceed D = 40 dimensions"):
        spectrum = decompose(Representation(wide))
    assert spectrum.numerical_rank == 30
    assert "biased downwards" in spectrum.summary()["caution"]
    with pytest.warns(UserWarning, match="do not exceed"):
        effective_rank(wide)
    assert "less than 8 D" in decompose(Representation(wide[:, :10])).caution
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decompose(Representation(rng.normal(size=(90, 10)))).caution == ""


@pytest.mark.parametrize(
    ("features", "arguments", "message"),
    [
        (np.zeros((9, 3)), {}, r"^features must have an entry that is not zero; got none"),
        (np.full((9, 3), 4.0), {"centred": True}, r"^features must vary; got none"),
        (np.ones((1, 3)), {}, r"^decompose needs at least 2 samples; got 1\.$"),
        (np.eye(9)[:, :3], {"n_blocks": 0}, r"^n_blocks must be >= 1; got 0\.$"),
        (np.eye(9)[:, :3], {"fit_range": (2, 9)}, r"^fit_range must be two ranks in 1\.\.3"),
    ],
)
def test_undefined_spectra_raise(features, arguments, message):
    with pytest.raises(ValueError, match=message):
        decompose(Representation(features), **arguments)
    if "n_blocks" not in arguments and len(features) > 1 and "fit_range" not in arguments:
        with pytest.raises(ValueError, match=message):
            decompose(Moments.of(features), **arguments)


def test_bad_arguments_of_the_formulas_raise():
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    with pytest.raises(ValueError, match=r"^definition must be one of 'roy-vetterli', .*; got 'x'"):
        effective_rank(x[0], definition="x")
    with pytest.raises(ValueError, match=r"^effective_rank needs at least 2 samples; got 1\.$"):
        effective_rank(x[0, :1])
    with pytest.raises(ValueError, match="must vary"):
        effective_rank(np.ones((9, 2)), definition="covariance")
    with pytest.raises(ValueError, match=r"^views must have shape \(V, N, D\) with V, N >= 2; got"):
        lidar(x[0])
    with pytest.raises(ValueError, match=r"^delta must be > 0 and added >= 0; got 0 and 0\.1\.$"):
        lidar(x, delta=0, added=0.1)
    with pytest.raises(ValueError, match="moments of pairs of views"):
        decompose(Moments.of((x[0], x[1])))


# The value -----------------------------------------------------------------------------------


def test_frame_statistics_and_summary_agree():
    rng = np.random.default_rng(11)
    views = rng.normal(size=(2, 200, 6))
    spectrum = decompose(Representation(views[0], views=views))
    frame, statistics = spectrum.to_frame(), spectrum.statistics()
    np.testing.assert_array_equal(frame["singular_value"], spectrum.singular_values)
    np.testing.assert_allclose(frame["cumulative_share"].iloc[-1], 1)
    summary = json.loads(json.dumps(spectrum.summary(), allow_nan=False))
    for row in statistics.itertuples():
        np.testing.assert_allclose(row.value, summary[row.statistic])
        interval = summary.get(f"{row.statistic}_corrected_interval")
        if interval is not None:
            np.testing.assert_allclose([row.corrected_low, row.corrected_high], interval)
            np.testing.assert_allclose(row.corrected, summary[f"{row.statistic}_corrected"])
            assert row.corrected_low <= row.corrected <= row.corrected_high
        assert row.doubtful == (row.statistic in summary["doubtful"])
    assert list(statistics["statistic"])[-1] == "lidar"
    assert not any(name.startswith("numerical_rank_") for name in summary)  # a count of all rows
    assert "entropy of uncentred singular values" in summary["definition"]


@pytest.mark.parametrize("value", [0.1, 5.0, 1000.3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_constants_have_no_centred_rank(value, dtype):
    constant = np.full((1000, 3), value, dtype=dtype)
    for definition in ("centred", "covariance"):
        with pytest.raises(ValueError, match="must vary"):
            effective_rank(constant, definition=definition)
    for source in (Representation(constant), Moments.of(constant)):
        with pytest.raises(ValueError, match="must vary"):
            decompose(source, centred=True)


def test_collapsed_views_have_no_lidar():
    rng = np.random.default_rng(12)
    with pytest.raises(ValueError, match=r"^views must differ between samples"):
        lidar(np.full((2, 300, 4), 0.3))
    with pytest.warns(UserWarning, match=r"^LiDAR is left out: the means of the samples' views"):
        spectrum = decompose(Representation(rng.normal(size=(300, 6)), views=np.ones((2, 300, 6))))
    assert spectrum.lidar is None
    assert "lidar" not in spectrum.summary()


def test_intervals_of_ranks_stay_possible():
    q = orthonormal(np.random.default_rng(13), 2000, 8)
    spectrum = decompose(Representation(q))
    for name in ("effective_rank", "participation_ratio", "stable_rank"):
        low, high = spectrum.corrected_intervals[name]
        assert 1 <= low <= high <= 8
    low, high = spectrum.corrected_intervals["condition_number"]
    assert 1 <= low <= high


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_extreme_scales_change_no_rank(scale):
    features = np.random.default_rng(14).normal(size=(90, 5)) * np.arange(1, 6)
    plain, other = decompose(Representation(features)), decompose(Representation(scale * features))
    np.testing.assert_allclose(other.effective_rank, plain.effective_rank, rtol=1e-9)
    np.testing.assert_allclose(other.singular_values, scale * plain.singular_values, rtol=1e-9)
    np.testing.assert_allclose(effective_rank(scale**1.8 * features), effective_rank(features))


@pytest.mark.parametrize(("draw", "kurtosis"), [("gaussian", 3), ("laplace", 6), ("coins", 1)])
def test_the_kurtosis_is_that_of_the_values(draw, kurtosis):
    rng = np.random.default_rng(23)
    rows = {
        "gaussian": lambda size: rng.normal(size=size),
        "laplace": lambda size: rng.laplace(size=size),
        "coins": lambda size: rng.choice([-1.0, 1.0], size=size),
    }[draw]((200, 200))
    rows += 5  # about the mean
    found = [block_kurtosis(Moments.of(rows, n_blocks=n)) for n in (20, 200)]
    np.testing.assert_allclose(found, kurtosis, rtol=0.15)
    assert np.isnan(block_kurtosis(Moments.of(rows, n_blocks=1)))


def test_a_flat_spectrum_has_no_exponent_to_trust():
    """Samples of equal values fall by chance; the law is trusted where they fall further."""
    names = dict(n_rows=4000, n_dimensions=40, kurtosis=3.0, fitted=(11, 40))
    fallen = np.log(1.02) * np.arange(40)
    assert "power_law_exponent" in doubtful_statistics(np.exp(-fallen / 4), **names)
    assert "power_law_exponent" not in doubtful_statistics(np.exp(-2 * fallen), **names)
    plateau = np.exp(-np.where(np.arange(40) < 15, 10 * fallen, 9.6 * fallen[15] + 0.4 * fallen))
    assert "power_law_exponent" in doubtful_statistics(plateau, **names)


def test_participation_ratios_are_corrected_on_the_scale_of_reciprocals():
    rng = np.random.default_rng(24)
    rows = rng.normal(size=(40, 6)) * np.arange(1, 7)
    found = decompose(Representation(rows), n_blocks=5)
    block = deal(0, 40, 5, 0)

    def ratio(x):
        return participation_ratio(np.linalg.svd(x, compute_uv=False))

    without = np.array([[1 / ratio(rows[block != b])] for b in range(5)])
    expected, _ = jackknife_deviations(np.array([1 / ratio(rows)]), without, np.bincount(block))
    np.testing.assert_allclose(found.corrected["participation_ratio"], 1 / expected[0])


def test_entropy_is_the_logarithm_of_the_effective_rank_corrected_too():
    found = decompose(Representation(with_values(np.arange(1, 7.0), n=90)))
    for name in ("corrected", "corrected_intervals"):
        values = getattr(found, name)
        np.testing.assert_allclose(values["entropy"], np.log(values["effective_rank"]))
