import numpy as np
import pytest

from dimlab.mask import DimensionMask, MaskTrace


def test_controls_keep_what_they_promise(rng):
    mask = DimensionMask(rng.random(9))
    np.testing.assert_allclose(mask.inverted().inverted().weights, mask.weights)
    np.testing.assert_allclose(mask.constant().weights, mask.weights.mean())
    np.testing.assert_array_equal(np.sort(mask.permuted(rng).weights), np.sort(mask.weights))


def test_a_mask_cannot_be_changed():
    given = np.ones(3)
    mask = DimensionMask(given)
    given[0] = 0
    assert mask.weights[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        mask.weights[0] = 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0]], r"weights must have shape \(D,\)"),
        ([], r"weights must have shape \(D,\)"),
        ([0.5, 1.5], r"weights must lie in \[0, 1\]; got 1.5 at dimension 1"),
        ([np.nan], r"weights must lie in \[0, 1\]; got nan at dimension 0"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        DimensionMask(np.array(weights))


def test_trace_by_hand():
    trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.1, 0.7]]))
    np.testing.assert_allclose(trace.spread, [0, 0.3])
    np.testing.assert_allclose(trace.travelled, [0.4, 0.2])
    frame = trace.to_frame()
    assert frame[["step", "dimension"]].to_numpy().tolist() == [[0, 0], [0, 1], [10, 0], [10, 1]]
    np.testing.assert_allclose(frame["weight"], [0.5, 0.5, 0.1, 0.7])
    summary = trace.summary()
    assert summary["moved"] is True
    assert summary["largest_change"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": np.array([1, 1])}, "steps must be a strictly increasing vector"),
        ({"weights": np.zeros((3, 2))}, r"weights must have shape \(2, D\); got \(3, 2\)"),
        ({"direct_norm": np.zeros(3)}, r"direct_norm must have shape \(2,\); got \(3,\)"),
        ({"gradient_share": np.zeros((2, 3))}, r"gradient_share must have shape \(2, 2\)"),
        ({"weights": np.full((2, 2), np.nan)}, "weights must be finite"),
    ],
)
def test_bad_traces_are_refused(fields, message):
    good = {"steps": np.array([0, 1]), "weights": np.zeros((2, 2))}
    with pytest.raises(ValueError, match=message):
        MaskTrace(**{**good, **fields})
