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


@pytest.fixture
def whole_trace(rng):
    parts = {"direct_norm": rng.random(3), "gradient_share": rng.random((3, 4))}
    return MaskTrace(np.array([0, 5, 9]), rng.random((3, 4)).astype(np.float32), **parts)


def test_masks_of_any_run_make_a_trace():
    masks = {20: DimensionMask(np.array([1.0, 0.0])), 0: np.array([-1.0, 2.0]), 3: [0.5, 0.5]}
    trace = MaskTrace.of_masks(masks)
    assert trace.steps.tolist() == [0, 3, 20]
    np.testing.assert_array_equal(trace.weights, [[-1, 2], [0.5, 0.5], [1, 0]])
    assert trace.direct_norm is None


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, r"^masks must hold at least one mask; got none\.$"),
        ({"last": np.ones(2)}, r"^masks must be keyed by integer steps; got 'last'\.$"),
        ({1.5: np.ones(2)}, r"^masks must be keyed by integer steps; got 1\.5\.$"),
        ({True: np.ones(2)}, r"^masks must be keyed by integer steps; got True\.$"),
        ({1: np.ones(3), 0: np.ones(2)}, r"^masks\[1\] must have shape \(2,\); got \(3,\)\.$"),
        ({0: np.ones((1, 2))}, r"^masks\[0\] must have shape \(D,\) with D >= 1; got \(1, 2\)\.$"),
        ({0: np.ones(0)}, r"^masks\[0\] must have shape \(D,\) with D >= 1; got \(0,\)\.$"),
        ({0: np.array([1, np.nan])}, r"^weights must be finite"),
    ],
)
def test_masks_that_make_no_trace_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        MaskTrace.of_masks(masks)


def test_a_saved_trace_comes_back(whole_trace, tmp_path):
    path = whole_trace.save(tmp_path / "trace.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["trace.npz"]
    loaded = MaskTrace.load(str(path))
    for name in ("steps", "weights", "direct_norm", "gradient_share"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(whole_trace, name))
        assert getattr(loaded, name).dtype == getattr(whole_trace, name).dtype
    assert loaded.second_order_norm is None
    before = path.read_bytes()
    assert whole_trace.save(path).read_bytes() == before


def test_files_of_others_are_read(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, steps=[0, 1], weights=[[1, 2], [3, 4]], note="of another tool")
    assert MaskTrace.load(path).weights.tolist() == [[1, 2], [3, 4]]


def test_every_cut_of_a_file_is_refused(whole_trace, tmp_path):
    path = whole_trace.save(tmp_path / "trace.npz")
    content = path.read_bytes()
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"^trace\.npz must be a complete \.npz file of"):
            MaskTrace.load(path)


def test_a_changed_byte_of_the_weights_is_noticed(whole_trace, tmp_path):
    path = whole_trace.save(tmp_path / "trace.npz")
    content = bytearray(path.read_bytes())
    content[content.index(whole_trace.weights.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"complete \.npz file .* got a damaged one.* \(Bad CRC"):
        MaskTrace.load(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"steps": [0]}, r"^t\.npz must hold steps and weights; got no weights\.$"),
        ({"other": [0]}, r"^t\.npz must hold .*; got no steps and no weights\.$"),
        ({"steps": [0.0], "weights": [[1]]}, r"^steps in t\.npz must be integers; got float64\.$"),
        ({"steps": [0], "weights": [["a"]]}, r"^weights in t\.npz must be numbers; got <U1\.$"),
        ({"steps": [0], "weights": np.array([[None]])}, r"^t\.npz must be .* Python objects"),
        ({"steps": [0, 0], "weights": np.ones((2, 2))}, r"^t\.npz: steps must be a strictly"),
    ],
)
def test_files_without_a_trace_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        MaskTrace.load(tmp_path / "t.npz")


def test_paths_that_cannot_be_are_refused(whole_trace, tmp_path):
    for act in (whole_trace.save, MaskTrace.load):
        with pytest.raises(ValueError, match=r"^path must end in \.npz; got 'trace\.pt'\.$"):
            act(tmp_path / "trace.pt")
    with pytest.raises(FileNotFoundError, match=r"^path must be an \.npz file; got .*not there\.$"):
        MaskTrace.load(tmp_path / "none.npz")


def test_a_trace_is_one_line_to_people_a_table_to_notebooks_and_draws_itself(whole_trace):
    assert repr(whole_trace).startswith("MaskTrace(last_step=9, largest_change=0.")
    assert "<table" in whole_trace._repr_html_()
    assert whole_trace.plot().get_xlabel()
