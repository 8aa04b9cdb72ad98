"""The explorer: its numbers are those of the public functions, its widget shows them."""

import base64
import json
import sys
import threading
import time

import numpy as np
import pytest
import torch

from dimlab import DimensionMask, ImageSet, Representation, ablate, attribute, decompose
from dimlab._explore import Explorer, background, explore, state
from dimlab._explore.words import parse_spans, spans_of
from dimlab.kernels import masking
from tests.reading import fit_knn, fit_ridge


def world(rng, n=300, n_dimensions=12, n_classes=4, strength=0.6):
    labels = np.arange(n) % n_classes
    means = np.random.default_rng(7).normal(size=(n_classes, n_dimensions)) * strength
    features = rng.normal(size=(n, n_dimensions)) + means[labels]
    return Representation(features.astype(np.float32), labels=labels)


def awkward(rng, n=200):
    """Zero rows, equal rows, a constant dimension, one of most of the energy, and ReLU's zeros."""
    features = np.maximum(world(rng, n).features, 0)
    features[:, 3] = 2.0
    features[:, 5] *= 1e7
    features[::17] = 0
    features[1::19] = features[1]
    return Representation(features, labels=np.arange(n) % 4)


def random_masks(rng, n_dimensions, n_masks):
    for size in rng.integers(1, n_dimensions + 1, size=n_masks):
        kept = np.zeros(n_dimensions, dtype=bool)
        kept[rng.permutation(n_dimensions)[:size]] = True
        yield kept


def cosines(queries, bank):
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(bank, axis=1)
    return np.divide(queries @ bank.T, norms, out=np.zeros(norms.shape), where=norms > 0)


def shown(view, name):
    """The accuracy that the widget shows, and how it says it was found."""
    return view.shown[name]["accuracy"], view.shown[name]["kind"]


@pytest.fixture
def splits(rng):
    return world(rng), world(rng, n=260)


@pytest.fixture
def opened(monkeypatch):
    """Open views whose exact search begins at once, and close them in the end."""
    monkeypatch.setattr(background, "_IDLE", 0.0)
    views = []

    def open_one(*arguments, **options):
        views.append(explore(*arguments, **options))
        return views[-1]

    yield open_one
    for view in views:
        view.close()
    assert not [t for t in threading.enumerate() if t.name == "dimlab-explore"]


@pytest.fixture(autouse=True)
def one_thread():
    """Worlds this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Arithmetic


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("make", [world, awkward])
def test_ridge_is_that_of_a_refit_on_the_kept_dimensions(seed, make):
    rng = np.random.default_rng(seed)
    train, test = make(rng), make(rng)
    explorer = Explorer(train, test, penalty=1e-2)
    for kept in random_masks(rng, train.n_dimensions, 6):
        explorer.remove(np.flatnonzero(~kept))
        found = explorer.state()
        some = test.select(kept)
        reader = fit_ridge(train.select(kept).features, train.labels, penalty=1e-2)
        assert found.ridge_accuracy == reader.accuracy(some.features, test.labels)
        right = reader.predict(some.features) == test.labels
        expected = [right[test.labels == c].mean() for c in range(4)]
        np.testing.assert_allclose(found.ridge_per_class, expected, atol=1e-12)


def test_ridge_of_noise_falls_back_on_the_shares_of_unequal_classes(rng):
    labels = np.repeat([0, 1, 2], [20, 250, 30])
    train, test = (Representation(rng.normal(size=(300, 5)), labels=labels) for _ in range(2))
    explorer = Explorer(train, test)
    explorer.remove([1, 3])
    assert explorer.state().ridge_accuracy == 250 / 300


def test_what_products_cannot_tell_from_zero_is_zero(rng):
    for _ in range(10):  # what rounding leaves has either sign
        rows = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 8))
        found = masking.masked_singular_values(rows.T @ rows, np.ones(8, dtype=bool), 50)
        np.testing.assert_array_equal(found[3:], 0)
        np.testing.assert_allclose(found[:3], np.linalg.svd(rows, compute_uv=False)[:3])


def test_spectrum_is_that_of_the_kept_features(rng):
    train, test = world(rng), world(rng, n=260)
    explorer = Explorer(train, test)
    for kept in random_masks(rng, 12, 10):
        explorer.remove(np.flatnonzero(~kept))
        found = explorer.state()
        values = np.linalg.svd(test.features[:, kept].astype(float), compute_uv=False)
        np.testing.assert_allclose(found.singular_values, values, rtol=1e-9)
        spectrum = decompose(test.select(kept))
        np.testing.assert_allclose(found.effective_rank, spectrum.effective_rank, rtol=1e-9)


def test_spectrum_of_fewer_rows_than_dimensions_and_of_nothing(rng):
    train, few = world(rng), world(rng, n=5)
    features = few.features.copy()
    features[:, 0] = 0
    explorer = Explorer(train, Representation(features * 1e30, labels=few.labels))
    values = np.linalg.svd(features.astype(float) * 1e30, compute_uv=False)
    np.testing.assert_allclose(explorer.state().singular_values, values, rtol=1e-6)
    explorer.remove(range(1, 12))
    assert np.isnan(explorer.state().effective_rank)


@pytest.mark.parametrize("make", [world, awkward])
def test_exact_knn_is_that_of_the_reader(rng, make):
    train, test = make(rng), make(rng)
    explorer = Explorer(train, test, k=3, temperature=0.1)
    for kept in random_masks(rng, 12, 6):
        explorer.remove(np.flatnonzero(~kept))
        reader = fit_knn(train.select(kept).features, train.labels, k=3, temperature=0.1)
        assert explorer.exact_knn() == reader.accuracy(test.select(kept).features, test.labels)


@pytest.mark.parametrize("make", [world, awkward])
def test_with_all_rows_as_candidates_their_votes_are_exact(rng, make):
    train, test = make(rng), make(rng)
    options = {"k": 5, "temperature": 1.0}
    votes = masking.CandidateVotes.of(
        train.features, train.labels, test.features, n_candidates=10_000, **options
    )
    for kept in random_masks(rng, 12, 12):
        reader = fit_knn(train.select(kept).features, train.labels, **options)
        expected = reader.predict(test.select(kept).features)
        np.testing.assert_array_equal(votes.predict(kept), expected)


def test_similarities_are_cosines_however_little_is_left(rng):
    train, test = awkward(rng), awkward(rng)
    votes = masking.CandidateVotes.of(
        train.features, train.labels, test.features, k=5, temperature=1.0, n_candidates=20
    )
    rows = votes.candidates.numpy()
    for kept in [np.arange(12) != 5, *random_masks(rng, 12, 20)]:
        q, x = (each.features[:, kept].astype(float) for each in (test, train))
        expected = np.take_along_axis(cosines(q, x), rows, axis=1)
        np.testing.assert_allclose(votes.similarities(kept).numpy(), expected, atol=1e-9)


def test_a_long_walk_ends_where_a_fresh_start_does(rng, splits):
    explorer = Explorer(*splits)
    kept = explorer.kept.copy()
    for dimension in rng.integers(0, 12, size=80):
        kept[dimension] ^= True
        if kept.any():
            explorer.remove(np.flatnonzero(~kept))
            walked = explorer.state()
    fresh = Explorer(*splits)
    fresh.remove(explorer.removed)
    expected = fresh.state()
    assert walked.ridge_accuracy == expected.ridge_accuracy
    assert walked.knn_accuracy == expected.knn_accuracy
    np.testing.assert_allclose(walked.singular_values, expected.singular_values, atol=1e-9)
    similarities = (each._votes.similarities(explorer.kept).numpy() for each in (explorer, fresh))
    np.testing.assert_allclose(*similarities, atol=1e-9)


def test_candidates_of_the_kept_dimensions_vote_nearly_exactly(rng):
    """Those of all dimensions know what the removed ones knew: the negative control."""
    train, test = (world(rng, n, 64, strength=0.25) for n in (2000, 500))
    explorer = Explorer(train, test, n_candidates=20)
    explorer.remove(range(40))
    exact, stale = explorer.exact_knn(), explorer.state().knn_accuracy
    explorer.use_candidates(explorer.choose_candidates())
    assert explorer.state().knn_accuracy == exact
    assert stale > exact + 0.04
    explorer.remove(range(44))
    fresh = Explorer(train, test, n_candidates=20)
    fresh.remove(range(44))
    exact = explorer.exact_knn()
    assert 2 * (explorer.state().knn_accuracy - exact) < fresh.state().knn_accuracy - exact


@pytest.mark.parametrize("method", ["exact_knn", "choose_candidates"])
@pytest.mark.parametrize("n_blocks", [0, 1, 2])
def test_a_cancelled_search_stops_at_the_next_block(rng, method, n_blocks):
    explorer = Explorer(world(rng), world(rng, n=5 * 256))
    asked = []

    def cancelled():
        asked.append(None)
        return len(asked) > n_blocks

    assert getattr(explorer, method)(cancelled) is None
    assert len(asked) == n_blocks + 1
    asked.clear()
    assert getattr(explorer, method)(lambda: bool(asked.append(None))) is not None
    assert len(asked) == 5


def test_many_rows_are_judged_by_a_sample_that_the_seed_draws(rng, splits, monkeypatch):
    monkeypatch.setattr(state, "_PRODUCTS", 100 * 64 * 12)
    train, test = splits
    drawn = [Explorer(train, test, seed=seed)._rows for seed in (0, 0, 1)]
    assert Explorer(train, test).state().n_knn_rows == 100
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    rows = drawn[0]
    reader = fit_knn(train.features, train.labels)
    expected = reader.accuracy(test.features[rows], test.labels[rows])
    assert Explorer(train, test).state().knn_accuracy == expected


# The widget


def test_the_widget_shows_what_the_functions_say(opened, splits):
    train, test = splits
    view = opened(train, test)
    view.n_removed = 5
    kept = np.ones(12, dtype=bool)
    kept[view.removed] = False
    importance = ablate(train, test, reader="ridge").importance
    assert importance[~kept].min() >= importance[kept].max()
    ridge = fit_ridge(train.select(kept).features, train.labels)
    expected = ridge.accuracy(test.select(kept).features, test.labels)
    assert shown(view, "ridge") == (expected, "exact refit")
    assert view.wait(60)
    knn = fit_knn(train.select(kept).features, train.labels)
    expected = knn.accuracy(test.select(kept).features, test.labels)
    assert shown(view, "knn") == (expected, "exact")
    assert view.exact_accuracy == expected
    np.testing.assert_array_equal(view.mask.weights, kept)
    assert view.shown["mask"] == kept.astype(int).tolist()
    assert view.shown["dimensions"][:5] == np.argsort(-importance, kind="stable")[:5].tolist()
    values = np.linalg.svd(test.select(kept).features.astype(float), compute_uv=False)
    np.testing.assert_allclose(view.shown["spectrum"], values, rtol=1e-9)
    assert repr(view) == "Exploration(7 of 12 kept)"


def test_candidates_are_marked_until_the_exact_answer_comes(opened, splits, monkeypatch):
    go = threading.Event()
    search = Explorer.exact_knn

    def waiting(self, cancelled):
        go.wait(60)
        return search(self, cancelled)

    monkeypatch.setattr(Explorer, "exact_knn", waiting)
    view = opened(*splits)
    view.n_removed = 4
    assert shown(view, "knn") == (view.state.knn_accuracy, "candidates only")
    assert view.shown["knn"]["rows"] == "260 of 260 test rows; the full search follows"
    go.set()
    assert view.wait(60)
    assert shown(view, "knn")[1] == "exact"


def test_a_change_cancels_the_search_and_two_never_run_at_once(opened, splits, monkeypatch):
    running, most, cancelled_ones = [], [], []

    def slow(self, cancelled):
        running.append(None)
        most.append(len(running))
        ends = time.monotonic() + 60 * (len(self.removed) < 6)
        while time.monotonic() < ends and not cancelled():
            time.sleep(0.001)
        cancelled_ones.append(cancelled())
        time.sleep(len(most) == 2)  # a block that goes on until after the next step is drawn
        running.pop()
        return 0.125  # even if it returns a number, a cancelled search posts nothing

    monkeypatch.setattr(Explorer, "exact_knn", slow)
    view = opened(*splits)
    for n in range(1, 7):
        while len(most) < n:
            time.sleep(0.001)
        view.n_removed = n
        if n < 6:
            assert shown(view, "knn")[1] == "candidates only"
    assert view.wait(60)
    assert shown(view, "knn") == (0.125, "exact")
    assert max(most) == 1
    assert cancelled_ones == [True] * 6 + [False]
    view.n_removed = 5
    assert shown(view, "knn")[1] == "candidates only"


def test_an_exact_answer_is_kept_for_its_mask(opened, splits):
    view = opened(*splits)
    view.n_removed = 3
    assert view.wait(60)
    known = shown(view, "knn")
    view.n_removed = 4
    view.n_removed = 3
    assert shown(view, "knn") == known == (known[0], "exact")


def test_what_goes_wrong_in_the_thread_is_shown(opened, splits, monkeypatch):
    def broken(self, cancelled):
        raise RuntimeError("no memory <left>")

    monkeypatch.setattr(Explorer, "exact_knn", broken)
    view = opened(*splits)
    assert view.wait(60)
    expected = "The exact kNN search failed: RuntimeError: no memory <left>"
    assert expected in view.message


def test_dimensions_are_removed_one_by_one(opened, splits):
    view = opened(*splits)
    view.n_removed = 2
    by_slider = set(view.removed.tolist())
    view.also_removed = "0-3, 11"
    assert set(view.removed.tolist()) == by_slider | {0, 1, 2, 3, 11}
    view.kept_anyway = "1, 2"
    assert set(view.removed.tolist()) == (by_slider | {0, 3, 11}) - {1, 2}
    view.also_removed = view.kept_anyway = ""

    first, last = int(view._sorted[0]), int(view._sorted[11])
    view.toggle(first)  # the slider had removed it
    assert view.kept_anyway == str(first)
    assert set(view.removed.tolist()) == by_slider - {first}
    view._handle_custom_msg({"toggle": last}, [])  # as a button sends it
    assert view.also_removed == str(last)
    assert view.dimension == last
    view.toggle(first)
    view.toggle(last)
    assert view.also_removed == view.kept_anyway == ""
    assert set(view.removed.tolist()) == by_slider


def test_the_last_dimension_stays(opened, splits):
    view = opened(*splits)
    view.n_removed = 600
    assert view.n_removed == 11
    before = view.removed.tolist()
    (left,) = set(range(12)) - set(before)
    view.toggle(left)
    assert "removed must leave at least one dimension; got all 12." in view.message
    assert view.removed.tolist() == before
    assert view.also_removed == ""
    view.n_removed = 10
    assert view.message == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3, x", "also removed must list dimensions and ranges, such as 3, 17, 40-60; got 'x'."),
        ("5-3", "also removed must list dimensions and ranges, such as 3, 17, 40-60; got '5-3'."),
        ("3, 12", "removed must lie in [0, 12); got 12."),
    ],
)
def test_a_field_that_cannot_be_read_is_said_and_changes_nothing(opened, splits, text, sentence):
    view = opened(*splits, removed=[4])
    view.also_removed = text
    assert sentence in view.message
    assert view.removed.tolist() == [4]
    view.toggle(0)
    assert sentence in view.message
    assert view.removed.tolist() == [4]


def test_orders(opened, rng):
    weights = np.linspace(0, 1, 12)[rng.permutation(12)]
    train, test = world(rng), world(rng)
    test = Representation(
        test.features,
        labels=test.labels,
        factors={"hue": test.features[:, 4] + rng.normal(size=300)},
        meta={"mask": weights.tolist()},
    )
    found = attribute(train, test, n_permutations=20, erased=None)
    view = opened(train, test, attribution=found, ablation=ablate(train, test, k=3))
    assert view.orders == ["importance (knn)", "redundancy", "nuisance", "mask weight"]
    view.n_removed = 1
    view.order = "nuisance"
    assert view.removed.tolist() == [4] == [int(found.nuisance_score.argmax())]
    view.order = "mask weight"
    assert view.removed.tolist() == [int(weights.argmax())]
    view.largest_first = False
    assert view.removed.tolist() == [int(weights.argmin())]
    assert view.shown["caption"] == "mask weight of each dimension, smallest first"
    view = opened(train, test, mask=DimensionMask(weights[::-1]))
    view.order = "mask weight"
    np.testing.assert_array_equal(view._sorted, np.argsort(-weights[::-1]))


def test_dead_dimensions_are_the_most_redundant(opened, rng):
    train, test = awkward(rng), awkward(rng)
    view = opened(train, test)
    view.order = "redundancy"
    assert view._sorted[0] == 3


def test_an_order_that_cannot_be_had_is_said(opened, rng):
    view = opened(world(rng, n=10), world(rng))
    view.order = "redundancy"
    assert "do not exceed the 12 dimensions that vary" in view.message
    assert view.shown["caption"] == "importance (ridge) of each dimension, largest first"
    with pytest.raises(ValueError, match=r"order must be one of \['importance \(ridge\)'"):
        view.order = "size"


def test_images_of_the_largest_activations(opened, splits):
    train, test = splits
    pixels = np.zeros((len(test), 1, 8, 8), dtype=np.uint8)
    images = ImageSet(pixels, test.labels, name="blank", class_names=["a<b", "b", "c", "d"])
    view = opened(train, test, images=images)
    view.dimension = 3
    first = test.features[:, 3].argmax()
    name = ["a<b", "b", "c", "d"][test.labels[first]]
    assert f"from the left: {name} ({test.features[first, 3]:.3g})," in view.tiles_text
    png = base64.b64decode(view.tiles.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG")
    assert opened(train, test).tiles == ""


@pytest.mark.parametrize("n_dimensions", [1, 12, 60])
def test_the_exported_code_reproduces_the_view(opened, rng, capsys, n_dimensions):
    train, test = (world(rng, n_dimensions=n_dimensions) for _ in range(2))
    view = opened(train, test, k=3, temperature=0.5, penalty=0.01)
    view.n_removed = n_dimensions // 2
    assert view.wait(60)
    assert view.shown["code"] == view.code
    names = {"train": train, "test": test}
    exec(view.code, names)
    again = names["view"]
    try:
        assert again.wait(60)
        assert names["scores"].accuracy.tolist() == [
            shown(view, "knn")[0],
            shown(view, "ridge")[0],
        ]
        np.testing.assert_allclose(
            names["spectrum"].effective_rank, view.state.effective_rank, rtol=1e-9
        )
        np.testing.assert_array_equal(again.removed, view.removed)
        assert [shown(again, n)[0] for n in ("knn", "ridge")] == [
            shown(view, n)[0] for n in ("knn", "ridge")
        ]
    finally:
        again.close()
    assert "effective rank" in capsys.readouterr().out
    assert max(map(len, view.code.splitlines())) <= 88


def test_it_is_shown_as_a_widget_and_closing_ends_its_thread(splits):
    view = explore(*splits)
    assert "application/vnd.jupyter.widget-view+json" in view._repr_mimebundle_()[0]
    view.close()  # while the search waits for idleness
    assert not [t for t in threading.enumerate() if t.name == "dimlab-explore"]
    assert view.comm is None
    view.close()


def test_many_classes_are_shown_by_their_largest_changes(opened, rng):
    view = opened(*(world(rng, n=400, n_classes=40, strength=2.0) for _ in range(2)))
    view.n_removed = 6
    change = view.state.ridge_per_class - view.full.ridge_per_class
    listed = view.shown["classes"]
    drawn = [int(each["name"]) for each in listed]
    assert len(drawn) == 16
    assert view.shown["n_classes"] == 40
    assert np.abs(change[drawn]).min() >= np.delete(np.abs(change), drawn).max()
    np.testing.assert_array_equal([each["change"] for each in listed], change[drawn])


def test_what_is_unknown_is_null_in_json(opened, rng):
    train, test = world(rng), world(rng)
    zeros = Representation(np.zeros_like(test.features), labels=test.labels)
    view = opened(train, zeros, mask=np.r_[np.nan, np.arange(11.0)])
    view.order = "mask weight"
    assert view.shown["rank"] == [None, None]
    assert view.shown["scores"][-1] is None
    json.dumps(view.shown, allow_nan=False)


def test_spans():
    assert parse_spans("x", " 3,17 , 4 - 6,") == {3, 4, 5, 6, 17}
    assert parse_spans("x", "") == set()
    assert spans_of([5, 3, 4, 17, 3]) == "3-5, 17"
    assert spans_of([]) == ""


# What is refused


def test_missing_anywidget(splits, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "dimlab._explore.widget", raising=False)
    with pytest.raises(ImportError, match=r'not installed\. Run pip install "dimlab\[notebooks\]'):
        explore(*splits)


def test_refusals(rng, splits):
    train, test = splits
    bare = Representation(test.features)
    ablation = ablate(train, test, reader="ridge", groups=[[0, 1], [2]])
    other = ablate(*(each.select(range(3)) for each in splits), reader="ridge")
    images = ImageSet(np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, int), name="blank")
    unknown = Representation(test.features, labels=test.labels + 1)
    copies = [each.select([0, 0, 1]) for each in splits]
    for arguments, options, sentence in [
        ((train, bare), {}, "explore needs labels: build the Representation with labels="),
        ((train, test.select([0, 1])), {}, "test must have 12 dimensions to match train; got 2"),
        ((train, unknown), {}, "test labels must be classes that train has; got class 4"),
        (splits, {"images": images}, "images must have 260 images to match test; got 3"),
        (splits, {"mask": np.ones(3)}, r"mask must have shape \(12,\) to match train; got \(3,\)"),
        (
            splits,
            {"ablation": ablation},
            "ablation must hold each of the 12 dimensions alone; got 2 groups of up to 2",
        ),
        (
            splits,
            {"ablation": other},
            "ablation must hold each of the 12 dimensions alone; got 3 groups of up to 1",
        ),
        (splits, {"redundancy": range(3)}, "redundancy must hold 12 dimensions to match train"),
        (splits, {"attribution": range(3)}, "attribution must hold 12 dimensions to match train"),
        (splits, {"removed": range(12)}, "removed must leave at least one dimension; got all 12"),
        (splits, {"removed": [12]}, r"removed must lie in \[0, 12\); got 12"),
        (splits, {"removed": [0.5]}, r"removed must be a list of dimensions; got \[0.5\]"),
        (splits, {"k": 301}, r"k must be an integer in 1..300"),
        (splits, {"temperature": 0.0}, "temperature must be > 0; got 0"),
        (splits, {"penalty": 0.0}, "penalty must be > 0; got 0"),
        (copies, {"penalty": 1e-12}, "penalty must be at least .* rounding spoils"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            explore(*arguments, **options)
    with pytest.raises(ValueError, match="n_candidates must be >= k, which is 5; got 4"):
        Explorer(train, test, n_candidates=4)
    assert not [t for t in threading.enumerate() if t.name == "dimlab-explore"]
