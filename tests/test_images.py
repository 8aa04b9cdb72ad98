"""Images of one split keep what they are given, and refuse what does not fit."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from dimlab.images import ImageSet


def image_set(n_images=6, **changes):
    images = np.arange(n_images * 12, dtype=np.uint8).reshape(n_images, 3, 2, 2)
    labels = np.arange(n_images) % 3
    return ImageSet(images, labels, **{"name": "planted", **changes})


def test_an_image_set_keeps_what_it_is_given():
    factors = {"hue": np.linspace(0, 1, 6), "site": np.array(list("abcabc"))}
    images = image_set(factors=factors, periods={"hue": 1}, split="test", class_names=list("xyz"))
    assert (len(images), images.n_classes, images.name, images.folder) == (6, 3, "planted", "")
    assert (images.class_names, images.periods) == (("x", "y", "z"), {"hue": 1.0})
    assert images.labels.dtype == np.int64
    assert repr(images) == "ImageSet('planted', test, 6 images of 3 x 2 x 2, 3 classes)"
    assert image_set(factors=None, periods=None).factors == {}


def test_n_classes_counts_names_where_there_are_any():
    assert image_set().take([0]).n_classes == 1
    assert image_set(class_names=list("xyz")).take([0]).n_classes == 3


@pytest.mark.parametrize("rows", [[4, 1, 1], np.array([0, 1, 0, 0, 1, 0], bool)])
def test_take_takes_everything_that_belongs_to_an_image(rows):
    images = image_set(factors={"hue": np.arange(6.0)}, folder="/data", split="train")
    taken = images.take(rows)
    for name in ("images", "labels"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(images, name)[rows])
    np.testing.assert_array_equal(taken.factors["hue"], np.arange(6.0)[rows])
    assert (taken.folder, taken.split, taken.name) == ("/data", "train", "planted")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must be a list of at least one index"),
        ([0.5], "got float64 of shape"),
        (np.ones(5, bool), r"a mask of shape \(6,\); got bool of shape \(5,\)"),
        ([0, 6], r"rows must lie in \[0, 6\); got 0..6"),
        ([-1], r"rows must lie in \[0, 6\); got -1..-1"),
    ],
)
def test_take_refuses_rows_that_are_not_there(rows, message):
    with pytest.raises(ValueError, match=message):
        image_set().take(rows)


def test_the_hash_is_that_of_the_labels_and_nothing_else():
    images = image_set()
    by_hand = b"".join(int(n).to_bytes(8, "little") for n in (6, 0, 1, 2, 0, 1, 2))
    assert images.labels_hash == hashlib.sha256(by_hand).hexdigest()
    assert replace(images, images=255 - images.images).labels_hash == images.labels_hash
    assert replace(images, labels=np.int32([0, 1, 2, 0, 1, 2])).labels_hash == images.labels_hash
    assert replace(images, labels=images.labels[::-1]).labels_hash != images.labels_hash
    assert images.take(range(5)).labels_hash != images.labels_hash


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((6, 3, 2, 2))}, TypeError, "images must be uint8; got float64. Scale"),
        ({"images": np.zeros((6, 2, 2), np.uint8)}, ValueError, r"\(N, C, H, W\).*got \(6, 2, 2\)"),
        ({"images": np.zeros((6, 2, 2, 2), np.uint8)}, ValueError, r"1 or 3; got \(6, 2, 2, 2\)"),
        ({"images": np.zeros((0, 3, 2, 2), np.uint8)}, ValueError, r"N >= 1.*got \(0, 3, 2, 2\)"),
        ({"labels": np.zeros(5, int)}, ValueError, r"shape \(6,\) to match images; got \(5,\)\."),
        ({"labels": np.zeros(6)}, TypeError, "labels must be integers .*; got float64"),
        ({"labels": np.zeros(6, bool)}, TypeError, "labels must be integers .*; got bool"),
        ({"labels": np.arange(6) - 1}, ValueError, "labels must be >= 0; got -1"),
        ({"factors": {"hue": np.zeros(5)}}, ValueError, r"factors\['hue'\] must .* got \(5,\)"),
        ({"factors": {"hue": [None] * 6}}, TypeError, r"factors\['hue'\] must be .* got object"),
        ({"factors": {"hue": [0, 1, np.nan, 0, 0, 0]}}, ValueError, "finite; got nan in row 2"),
        ({"factors": {"hue": [0, 1, 0, 0, 0, np.inf]}}, ValueError, "finite; got inf in row 5"),
        ({"periods": {"hue": 1.0}}, ValueError, "must name continuous factors; got 'hue'"),
        ({"factors": {"a": range(6)}, "periods": {"a": 1}}, ValueError, "continuous .* got 'a'"),
        ({"factors": {"a": np.ones(6)}, "periods": {"a": 0}}, ValueError, r"\['a'\] must be > 0"),
        ({"class_names": ["x", "y"]}, ValueError, "class_names must name 3 classes .*; got 2"),
        ({"split": "val"}, ValueError, "split must be train, validation, test or ''; got 'val'"),
    ],
)
def test_an_image_set_refuses_what_does_not_fit(changes, error, message):
    with pytest.raises(error, match=message):
        replace(image_set(), **changes)
