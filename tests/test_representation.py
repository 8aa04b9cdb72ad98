import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dimlab.representation as representation_module
from dimlab.basis import fit_basis
from dimlab.given import aligned
from dimlab.io.labels import with_labels
from dimlab.io.tables import join_factors
from dimlab.mask import DimensionMask
from dimlab.moments import Moments
from dimlab.representation import Representation


@pytest.fixture
def full(rng):
    return Representation(
        rng.normal(size=(6, 4)).astype(np.float32),
        labels=np.array([0, 1, 2, 0, 1, 2]),
        factors={"hue": rng.random(6), "site": np.array(list("abcabc")), "id": np.arange(6)},
        periods={"hue": 1.0},
        views=rng.normal(size=(2, 6, 4)).astype(np.float32),
        view_factors={"flip": rng.random((2, 6)) < 0.5, "crop_x": rng.random((2, 6))},
        meta={"source": "test", "mask": [0.1, 0.2, 0.3, 0.4]},
    )


def test_saved_and_loaded_is_the_same_and_memory_mapped(full, tmp_path):
    loaded = Representation.load(full.save(tmp_path / "r.safetensors"))
    assert not loaded.features.flags.writeable
    for name in ("features", "labels", "views"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(full, name))
        assert getattr(loaded, name).dtype == getattr(full, name).dtype
    for name in ("factors", "view_factors"):
        ours, theirs = getattr(full, name), getattr(loaded, name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_array_equal(theirs[key], value)
    assert loaded.periods == full.periods
    assert loaded.meta == full.meta


def test_safetensors_reads_what_we_write(full, tmp_path):
    from safetensors.numpy import load_file

    tensors = load_file(full.save(tmp_path / "r.safetensors"))
    np.testing.assert_array_equal(tensors["features"], full.features)


def test_we_read_what_safetensors_writes(tmp_path, rng):
    from safetensors.numpy import save_file

    features = rng.normal(size=(3, 2))
    save_file({"features": features, "labels": np.arange(3)}, tmp_path / "r.safetensors")
    loaded = Representation.load(tmp_path / "r.safetensors")
    np.testing.assert_array_equal(loaded.features, features)
    np.testing.assert_array_equal(loaded.labels, [0, 1, 2])


def test_half_precision_and_bfloat16_are_read_and_what_numpy_lacks_is_named(tmp_path):
    import torch
    from safetensors.torch import save_file

    features = torch.tensor([[1.5, -2.0], [0.25, 4.0]])
    path, labels = tmp_path / "r.safetensors", torch.tensor([1, 0], dtype=torch.int16)
    save_file({"features": features.half(), "labels": labels}, path)
    loaded = Representation.load(path)
    assert loaded.features.dtype == np.float32
    np.testing.assert_array_equal(loaded.features, features)
    np.testing.assert_array_equal(loaded.labels, [1, 0])
    save_file({"features": features.bfloat16()}, path)
    np.testing.assert_array_equal(Representation.load(path).features, features)
    save_file({"features": features.to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"types that numpy has, or bfloat16; got torch.float8"):
        Representation.load(path)


def test_select_and_take_keep_everything_aligned(full):
    chosen = full.select([3, 1])
    np.testing.assert_array_equal(chosen.features, full.features[:, [3, 1]])
    np.testing.assert_array_equal(chosen.views, full.views[:, :, [3, 1]])
    assert chosen.meta["mask"] == [0.4, 0.2]
    assert chosen.select([1]).meta["dimensions"] == [1]
    rows = full.take([5, 0])
    np.testing.assert_array_equal(rows.labels, [2, 0])
    np.testing.assert_array_equal(rows.factors["site"], ["c", "a"])
    np.testing.assert_array_equal(
        rows.view_factors["crop_x"], full.view_factors["crop_x"][:, [5, 0]]
    )


def test_a_representation_is_sliced_as_an_array_is_and_read_as_one(full):
    for rows in (slice(1, None, 2), [1, 3, 5], np.arange(6) % 2 == 1):
        part = full[rows]
        np.testing.assert_array_equal(part.features, full.features[1::2])
        np.testing.assert_array_equal(part.factors["site"], full.factors["site"][1::2])
    assert full.shape == (6, 4)
    np.testing.assert_array_equal(np.asarray(full, dtype=np.float64), full.features)
    assert np.asarray(full) is full.features
    with pytest.raises(ValueError, match="rows must be a list of at least one index"):
        full[6:]


def test_values_are_checked_once_where_they_enter(rng, monkeypatch, tmp_path):
    scanned = []
    check = representation_module.refuse_non_finite

    def counted(name, array):
        scanned.append(name)
        check(name, array)

    monkeypatch.setattr(representation_module, "refuse_non_finite", counted)
    rows = rng.normal(size=(40, 4)).astype(np.float32)
    full = Representation(rows, labels=np.arange(40) % 2, views=np.stack([rows, rows]))
    assert scanned == ["features", "views"]
    mask = DimensionMask(np.array([0.0, 0.5, 1.0, 0.25]))
    made = [full.take([1, 0]), full[:9], full.select([2, 0]), full.masked(mask), full.per_view()]
    made.append(fit_basis(full, "pca").apply(full))
    table = tmp_path / "table.csv"  # what it adds is checked, and nothing else
    table.write_text("kind,size\n" + "a,1\nb,2\n" * 20)
    made.append(join_factors(full, table, by_order=True, continuous=["size"], periods={"size": 3}))
    made.append(with_labels(full, f"{table}:kind", "features", by_order=True))
    made += aligned(made[-1], made[-1]._trusted(meta={"class_names": ["a", "c"]}))
    assert scanned == ["features", "views"]
    for each in made:  # and what they are made of would pass
        again = replace(each)
        assert dict(again.meta) == dict(each.meta)
        for name in ("features", "labels", "views"):
            ours, theirs = getattr(each, name), getattr(again, name)
            assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)
            np.testing.assert_array_equal(ours, theirs)


def test_masked_multiplies(full):
    mask = DimensionMask(np.array([0.0, 0.5, 1.0, 0.25]))
    expected = full.features * np.array([0, 0.5, 1, 0.25], np.float32)
    np.testing.assert_array_equal(full.masked(mask).features, expected)
    assert full.masked(mask).features.dtype == np.float32
    with pytest.raises(ValueError, match="mask must have 4 weights to match features; got 2"):
        full.masked(DimensionMask(np.ones(2)))


def test_per_view_stacks_and_remembers_the_sample(full):
    stacked = full.per_view()
    assert stacked.features.shape == (12, 4)
    np.testing.assert_array_equal(stacked.features[7], full.views[1, 1])
    np.testing.assert_array_equal(stacked.factors["sample"], np.tile(np.arange(6), 2))
    np.testing.assert_array_equal(stacked.factors["flip"], full.view_factors["flip"].ravel())
    np.testing.assert_array_equal(stacked.labels, np.tile(full.labels, 2))


GOOD = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": np.ones(3)}, ValueError, r"features must have shape \(N, D\)"),
        ({"features": np.ones((0, 2))}, ValueError, "both >= 1"),
        ({"features": np.ones((3, 2), int)}, TypeError, "features must be floating; got int64"),
        (
            {"features": np.array([[1.0, 2.0], [3.0, np.nan]])},
            ValueError,
            "features must be finite; got nan in dimension 1, row 1",
        ),
        ({"labels": np.zeros(4, int)}, ValueError, r"labels must have shape \(3,\) to match"),
        (
            {"labels": np.array([0, 1j, 0])},
            TypeError,
            r"labels must be integers .* or class names;",
        ),
        ({"labels": np.array([0, -1, 0])}, ValueError, "labels must be >= 0; got -1"),
        ({"factors": {"a": np.zeros(2)}}, ValueError, r"factors\['a'\] must have shape \(3,\)"),
        ({"factors": {"a": np.array([None] * 3)}}, TypeError, r"factors\['a'\] must be floating"),
        ({"factors": {"a": np.full(3, np.inf)}}, ValueError, r"factors\['a'\] must be finite"),
        (
            {"factors": {"a": np.array([2**64 - 1, 0, 1], np.uint64)}},
            ValueError,
            r"factors\['a'\] must be < 2\*\*63; got 18446744073709551615\. Pass it as text\.",
        ),
        ({"periods": {"b": 1.0}}, ValueError, "periods must name continuous factors; got 'b'"),
        (
            {"factors": {"a": np.zeros(3)}, "periods": {"a": 0}},
            ValueError,
            r"periods\['a'\] must be > 0",
        ),
        ({"views": np.ones((2, 3, 3))}, ValueError, r"views must have shape \(V, 3, 2\)"),
        ({"view_factors": {"a": np.ones((2, 3))}}, ValueError, "view_factors must come with views"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    features = arguments.get("features", GOOD)
    others = {name: value for name, value in arguments.items() if name != "features"}
    with pytest.raises(error, match=message):
        Representation(features, **others)


@pytest.mark.parametrize("dimensions", [[], [2], [-1], [0.5], np.ones(3, bool)])
def test_bad_selections_are_refused(dimensions):
    with pytest.raises(ValueError, match="dimensions must"):
        Representation(GOOD).select(dimensions)


@pytest.mark.parametrize("rows", [[], [3], [-1], [0.5], np.ones(2, bool), [[0]]])
def test_bad_rows_are_refused(rows):
    with pytest.raises(ValueError, match="rows must"):
        Representation(GOOD).take(rows)


def test_meta_that_json_cannot_hold_is_refused(tmp_path):
    bad = Representation(GOOD, meta={"mask": np.ones(2)})
    with pytest.raises(TypeError, match=r"meta must be serialisable as JSON; got: .*ndarray"):
        bad.save(tmp_path / "r.safetensors")
    assert not list(tmp_path.iterdir())


def test_per_view_needs_views():
    with pytest.raises(ValueError, match="per_view needs views"):
        Representation(GOOD).per_view()


def test_bad_files_are_refused(tmp_path):
    path = Representation(GOOD).save(tmp_path / "r.safetensors")
    whole = path.read_bytes()
    for length in (0, 5, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"r\.safetensors must be a complete safetensors file"):
            Representation.load(path)
    path.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    with pytest.raises(ValueError, match="must be a complete safetensors file"):
        Representation.load(path)
    with pytest.raises(FileNotFoundError, match="got no such file"):
        Representation.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"path must end in \.safetensors"):
        Representation(GOOD).save(tmp_path / "r.npz")
    from safetensors.numpy import save_file

    save_file({"other": GOOD}, path)
    with pytest.raises(ValueError, match="must hold a tensor named 'features'"):
        Representation.load(path)
    save_file({"features": GOOD}, path, metadata={"dimlab": "{"})
    with pytest.raises(ValueError, match="must hold a valid dimlab header"):
        Representation.load(path)


def test_a_npz_of_named_arrays_is_read_as_a_safetensors_file_is(tmp_path):
    rng = np.random.default_rng(0)
    full = Representation(
        rng.normal(size=(4, 3)).astype(np.float32), labels=np.array([0, 1, 1, 0]),
        factors={"hue": rng.normal(size=4), "camera": np.array(["a", "b", "b", "a"])},
        views=rng.normal(size=(2, 4, 3)), view_factors={"flip": np.zeros((2, 4), dtype=bool)},
    )  # fmt: skip
    names = {"features": full.features.astype(np.float16), "labels": full.labels}
    names |= {"views": full.views, "view_factor:flip": full.view_factors["flip"], "other": GOOD}
    names |= {f"factor:{name}": value for name, value in full.factors.items()}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "r.npz", **names)
        loaded = Representation.load(tmp_path / "r.npz")
        np.testing.assert_array_equal(loaded.features, full.features.astype(np.float16))
        assert loaded.features.dtype == np.float32
        np.testing.assert_array_equal(loaded.labels, full.labels)
        np.testing.assert_array_equal(loaded.views, full.views)
        assert set(loaded.factors) == {"hue", "camera"}
        for name, value in full.factors.items():
            np.testing.assert_array_equal(loaded.factors[name], value)
        np.testing.assert_array_equal(loaded.view_factors["flip"], full.view_factors["flip"])


def test_bad_npz_files_are_refused_and_run_no_code(tmp_path):
    path = tmp_path / "r.npz"
    with pytest.raises(
        FileNotFoundError, match=r"r\.npz must be an existing \.npz file; got no such"
    ):
        Representation.load(path)
    np.savez(path, other=GOOD)
    with pytest.raises(ValueError, match="must hold an array named 'features'; got \\['other'\\]"):
        Representation.load(path)
    np.savez(path, features=GOOD)
    whole = path.read_bytes()
    with (tmp_path / "one.npy").open("wb") as file:
        np.save(file, GOOD)
    alone = (tmp_path / "one.npy").read_bytes()
    for damaged in (b"", whole[:30], whole[:-1], alone):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"r\.npz must be a complete \.npz file of numbers"):
            Representation.load(path)

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(path, features=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        Representation.load(path)
    assert not (tmp_path / "exploded").exists()


def test_a_factor_of_samples_keeps_its_name_beside_one_of_views():
    hue = np.array([0.5, 1.5])
    representation = Representation(
        np.eye(2), factors={"hue": hue}, periods={"hue": 6.0}, views=np.zeros((2, 2, 2)),
        view_factors={"hue": np.zeros((2, 2))},
    )  # fmt: skip
    stacked = representation.per_view()
    np.testing.assert_array_equal(stacked.factors["hue"], np.tile(hue, 2))
    np.testing.assert_array_equal(stacked.factors["view_hue"], 0)
    assert stacked.periods == {"hue": 6.0}


def test_factors_of_the_user_s_keep_their_names_and_values_beside_those_of_views(tmp_path):
    own = {
        "view": np.array([7, 7, 9]), "sample": np.array([0.5, 1.5, 2.5]),
        "hue": np.array([3, 1, 2]), "view_hue": np.array(["a", "b", "c"]),
    }  # fmt: skip
    shift = np.arange(6.0).reshape(2, 3)
    representation = Representation(
        np.eye(3), factors=own, views=np.zeros((2, 3, 3)), periods={"hue": 9.0, "sample": 4.0},
        view_factors={"hue": shift},
    )  # fmt: skip
    saved = representation.per_view().save(tmp_path / "stacked.safetensors")
    for stacked in (representation.per_view(), Representation.load(saved)):
        for name, values in own.items():
            np.testing.assert_array_equal(stacked.factors[name], np.tile(values, 2))
        np.testing.assert_array_equal(stacked.factors["view_view_hue"], shift.ravel())
        assert stacked.periods == {"view_view_hue": 9.0, "sample": 4.0}
        view, sample = stacked.view_columns
        np.testing.assert_array_equal(stacked.factors[view], [0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(stacked.factors[sample], [0, 1, 2, 0, 1, 2])
    assert representation.view_columns == ()
    named = {"view": np.array([0, 0, 1]), "sample": np.array([0, 1, 0])}
    old = Representation(np.eye(3), factors=named, meta={"per_view": True})  # as 0.6.0 wrote it
    assert old.view_columns == ("view", "sample")


def test_what_is_made_of_a_representation_carries_its_precision_unread(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(6, 3))
    views = np.stack([rows, rows])
    stored = [Representation(rows.astype(kind), views=views) for kind in ("f2", "f4", "f8")]

    def read(features):
        raise AssertionError("the features were read again")

    monkeypatch.setattr("dimlab.checks.stored_precision", read)
    for split in stored:
        made = (split[:2], split.select([1]), split.masked(DimensionMask(np.ones(3))))
        assert {each.precision for each in made} == {split.precision}


def test_values_are_one_short_line_whatever_they_hold(rng):
    features = rng.normal(size=(3000, 50))
    whole = Representation(
        features.astype(np.float32), labels=np.arange(3000) % 3, factors={"a": features[:, 0]},
        views=np.stack([features, features]),
    )  # fmt: skip
    assert repr(whole) == (
        "Representation(3,000 samples of 50 dimensions, float32, 3 classes, 1 factor, 2 views)"
    )
    basis = fit_basis(features, "pca")
    turned = Representation(features, labels=features[:, 0])
    assert repr(basis.apply(turned)).endswith("float64, real values, pca basis)")
    assert repr(basis).startswith("Basis('pca', 50 directions of 50 dimensions, ")
    assert repr(DimensionMask(np.linspace(0, 1, 50))) == "DimensionMask(50 weights in [0, 1])"
    moments = Moments.of(whole)
    assert re.fullmatch(
        r"Moments\(3,000 samples of 50 dimensions, \d+ blocks, \w+\)", repr(moments)
    )
