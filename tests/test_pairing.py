"""Rows of two representations: paired by their names, by order without any, refused otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from dimlab.names import places_among
from dimlab.pairing import pair
from dimlab.representation import Representation

N = 40
RNG = np.random.default_rng(0)
FEATURES, ORDER = RNG.normal(size=(N, 3)), RNG.permutation(N)


def sides(ours, theirs, names=("file", "file")):
    """The same samples twice, the second time shuffled and under names of its own."""
    first = Representation(FEATURES, factors={names[0]: ours})
    second = Representation(FEATURES, factors={names[1]: theirs}).take(ORDER)
    return first, second


PLAIN = np.array([f"img_{row}" for row in range(N)])
NUMBERS = np.arange(N) + 7


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (PLAIN, PLAIN, ("file", "file")),
        (PLAIN, PLAIN, ("Image Path", "filename")),
        (PLAIN, np.char.add(PLAIN, " "), ("image_id", "image_id")),
        (np.char.add("\u00e9", PLAIN), np.char.add("e\u0301", PLAIN), ("name", "name")),
        (NUMBERS, NUMBERS, ("id", "id")),
        (NUMBERS, np.array([f"{row:04d}" for row in NUMBERS]), ("id", "id")),
        (NUMBERS, NUMBERS, ("Unnamed: 0", "Unnamed: 0")),
    ],
)
def test_rows_of_the_same_names_are_put_in_one_order(ours, theirs, names):
    first, second = sides(ours, theirs, names)
    ordered, how = pair(first, second)
    np.testing.assert_array_equal(ordered.features, first.features)
    assert how == "row names"
    back, _ = pair(second, first)
    np.testing.assert_array_equal(back.features, second.features)


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        (PLAIN, PLAIN, ("file", "id")),
        (PLAIN, PLAIN, ("caption", "caption")),
        (np.linspace(0, 1, N), np.linspace(0, 1, N), ("id", "id")),
        (np.arange(N) % 3, np.arange(N) % 3, ("name", "name")),
    ],
)
def test_rows_without_names_in_common_are_paired_in_their_order(ours, theirs, names):
    first, second = sides(ours, theirs, names)
    ordered, how = pair(first, second)
    np.testing.assert_array_equal(ordered.features, second.features)
    assert how == "order"


def test_names_that_repeat_alike_in_one_order_agree():
    first = Representation(FEATURES, factors={"file": np.repeat(PLAIN[:10], 4)})
    assert pair(first, replace(first, features=-FEATURES))[1] == "row names"


OTHERS = np.where(np.arange(N) == 5, "other", PLAIN)
TWICE = np.where(np.arange(N) == 5, "img_6", PLAIN)


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (OTHERS, "must be the same on both sides; got 1 of 40 in factor 'file' of a alone, such as "
                 "'img_5', and in b alone 'other'"),
        (TWICE, "must differ; got 'img_6' more than once in factor 'file' of b"),
    ],
)  # fmt: skip
def test_names_that_do_not_match_are_refused_and_the_remedy_works(theirs, sentence):
    first, second = sides(PLAIN, theirs)
    with pytest.raises(ValueError, match=sentence) as caught:
        pair(first, second, names=("a", "b"))
    assert "or take 'file' out of one side" in str(caught.value)
    assert pair(first, replace(second, factors={}))[1] == "order"


def test_other_numbers_of_rows_are_refused():
    first, second = sides(PLAIN, PLAIN)
    with pytest.raises(ValueError, match=r"^second must have the 40 rows of first; got 39\.$"):
        pair(first, second.take(np.arange(39)))


@pytest.mark.parametrize("own", [{}, {"view": np.arange(N) % 4, "sample": np.arange(N) % 5}])
def test_views_of_named_samples_are_paired_view_by_view(own, tmp_path):
    views = np.stack([FEATURES, -FEATURES])
    first = Representation(FEATURES, factors={**own, "file": PLAIN}, views=views)
    stacked = Representation.load(first.take(ORDER).per_view().save(tmp_path / "b.safetensors"))
    ordered, how = pair(first.per_view(), stacked)
    np.testing.assert_array_equal(ordered.features, first.per_view().features)
    assert how == "row names"


def test_values_of_numbers_do_not_join_two_names_of_one_side():
    assert places_among(np.array(["1", "01"]), np.array(["1", "001"])) is None
    assert places_among(np.array(["2", "01"]), np.array(["1", "002"])).tolist() == [1, 0]
    assert places_among(np.array(["3"]), np.array(["1", "2"])) is None
    assert places_among(np.array(["1", "01"]), np.array(["001"])) is None


def test_files_that_repeat_in_another_order_are_refused():
    first, second = sides(np.repeat(PLAIN[:10], 4), np.repeat(PLAIN[:10], 4))
    with pytest.raises(ValueError, match="must differ; got 'img_0' more than once"):
        pair(first, second)
