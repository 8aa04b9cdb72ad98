"""Folders of images and .npz files of the user's own."""

import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from dimlab import datasets
from dimlab.datasets import load_images
from dimlab.images import SPLITS
from tests.datasets.files import assert_official_splits, splits_of, write_png


def write_classes(root, rng, n_images=10, classes=("ant", "bee")):
    """PNGs of 32 px; {class: [pixels, ...]} in the order of their names."""
    written = {}
    for class_name in classes:
        pixels = rng.integers(0, 256, (n_images, 32, 32, 3)).astype(np.uint8)
        written[class_name] = list(pixels)
        for number, image in enumerate(pixels):
            write_png(root / class_name / f"{number:02d}.png", image)
    return written


def chw(pixels):
    return np.stack(pixels).transpose(0, 3, 1, 2)


def test_a_folder_is_read_back_in_disjoint_stratified_parts(tmp_path, rng):
    written = write_classes(tmp_path, rng)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").touch()
    splits = splits_of(datasets.image_folder, data_dir=tmp_path)
    assert [len(images) for images in splits.values()] == [14, 2, 4]
    rows = {image.tobytes(): i for i, image in enumerate(chw(written["ant"] + written["bee"]))}
    found = [rows[image.tobytes()] for images in splits.values() for image in images.images]
    assert sorted(found) == list(range(20))
    for split, images in splits.items():
        assert images.labels.tolist() == [rows[image.tobytes()] // 10 for image in images.images]
        assert (images.class_names, images.folder) == (("ant", "bee"), str(tmp_path))
        again = load_images("image-folder", split, data_dir=images.folder)
        np.testing.assert_array_equal(again.images, images.images)


@pytest.mark.parametrize("validation", [None, "validation", "val"])
def test_official_folders_are_the_splits(tmp_path, rng, validation):
    train = write_classes(tmp_path / "train", rng)
    test = write_classes(tmp_path / "test", rng, n_images=3, classes=["bee"])
    splits = {"test": datasets.image_folder("test", data_dir=tmp_path)}
    np.testing.assert_array_equal(splits["test"].images, chw(test["bee"]))
    assert splits["test"].labels.tolist() == [1, 1, 1]
    if validation:
        held = write_classes(tmp_path / validation, rng, n_images=2)
        images = datasets.image_folder("validation", data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(held["ant"] + held["bee"]))
        images = datasets.image_folder("train", data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(train["ant"] + train["bee"]))
    else:
        splits = splits_of(datasets.image_folder, data_dir=tmp_path)
        official = chw(train["ant"] + train["bee"]), np.repeat([0, 1], 10)
        assert_official_splits(splits, official, (chw(test["bee"]), [1, 1, 1]))


def test_folders_of_splits_may_be_called_as_in_tables_and_classes_as_anything(tmp_path, rng):
    train = write_classes(tmp_path / "Training", rng)
    test = write_classes(tmp_path / "testing", rng, n_images=3)
    held = write_classes(tmp_path / "eval", rng, n_images=2)
    for split, written in (("train", train), ("validation", held), ("test", test)):
        images = datasets.image_folder(split, data_dir=tmp_path)
        np.testing.assert_array_equal(images.images, chw(written["ant"] + written["bee"]))
    write_classes(tmp_path / "classes", rng, classes=["valid", "eval", "training"])
    images = datasets.image_folder("test", data_dir=tmp_path / "classes")
    assert images.class_names == ("eval", "training", "valid")


@pytest.mark.parametrize("is_wide", [True, False])
def test_an_image_is_cropped_to_its_centre_and_resized(tmp_path, rng, is_wide):
    pixels = rng.integers(0, 256, (40, 100, 3)).astype(np.uint8)
    upright = pixels if is_wide else pixels.swapaxes(0, 1)
    for name in "ab":
        for number in range(2):
            write_png(tmp_path / name / f"{number}.png", upright)
    images = datasets.image_folder("test", data_dir=tmp_path, image_size=16)
    assert images.images.shape == (2, 3, 16, 16)
    # by hand: 100 x 40 becomes 40 x 16, of which the middle 16 columns stay
    short = Image.fromarray(pixels).resize((40, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(short, float)[:, 12:28].transpose(2, 0, 1)
    for image in images.images:
        read = image if is_wide else image.swapaxes(1, 2)
        np.testing.assert_allclose(read, expected, atol=1.01)  # rounding between the two axes


def test_every_8_bit_mode_becomes_rgb_without_a_warning(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 7, np.uint8))
    palette = grey.convert("P")
    palette.info["transparency"] = bytes(4)
    for number, image in enumerate([grey, grey.convert("RGBA"), grey.convert("LA"), palette]):
        (tmp_path / "a").mkdir(exist_ok=True)
        image.save(tmp_path / "a" / f"{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in SPLITS:
            images = datasets.image_folder(split, data_dir=tmp_path, image_size=4)
            np.testing.assert_array_equal(images.images, 7)


def empty_class(root):
    (root / "cat").mkdir()


def no_class(root):
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def truncated(root):
    path = root / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:1500])


def no_image(root):
    (root / "bee" / "03.png").write_bytes(b"<html>404</html>")


def deep(root):
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(root / "bee" / "03.png")


def folder_in_class(root):
    (root / "bee" / "more").mkdir()


def link_to_itself(root):
    (root / "cat").symlink_to(root)


def link_to_itself_through_another(root):
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "in").symlink_to(root / "cat")
    (root / "cat").symlink_to(root.parent / "outside")


def train_alone(root):
    (root / "train").mkdir()


def two_validations(root):
    for name in ("train", "test", "val", "validation"):
        (root / name).mkdir()


def unknown_class(root):
    for path in ("train/ant", "test/bee"):
        write_png(root / path / "0.png", np.zeros((32, 32, 3)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, "cat must hold at least one image; got none"),
        (no_class, "data must hold images, or one folder a class; got none"),
        (truncated, r"bee/03.png must be a whole image .*truncated"),
        (no_image, r"bee/03.png must be a whole image of 8 bits a channel; .*cannot identify"),
        (deep, r"bee/03.png must be a whole image of 8 bits a channel; .*mode I;16"),
        (folder_in_class, "bee must hold images, not folders; got 'more'"),
        (link_to_itself, "data/cat must not lead back to a folder above it; got a link"),
        (link_to_itself_through_another, "cat/in must not lead back to a folder above it"),
        (train_alone, r"must hold train and test, or .*; got train\. Pass data_dir='.*data/train'"),
        (two_validations, "one of validation and val at most; got test, train, val, validation"),
        (unknown_class, "test must hold classes of train only; got 'bee'"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path, rng, damage, message):
    root = tmp_path / "data"
    write_classes(root, rng)
    splits_of(datasets.image_folder, data_dir=root)  # control: whole before
    damage(root)
    with pytest.raises(ValueError, match=message):
        read_all(root)


def read_all(root):
    for images in splits_of(datasets.image_folder, data_dir=root).values():
        np.asarray(images.images)


def test_links_to_images_and_folders_are_followed(tmp_path, rng):
    write_classes(tmp_path / "data", rng)
    write_png(tmp_path / "elsewhere" / "0.png", np.zeros((32, 32, 3)))
    (tmp_path / "data" / "cow").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "bee" / "99.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for root in ("data", "link"):
        images = datasets.image_folder("train", data_dir=tmp_path / root)
        assert images.class_names == ("ant", "bee", "cow")


def test_a_folder_needs_a_size_of_one_or_more(tmp_path, rng):
    write_classes(tmp_path, rng, n_images=2)
    with pytest.raises(ValueError, match="image_size must be >= 1; got 0"):
        datasets.image_folder("train", data_dir=tmp_path, image_size=0)


def arrays_of(n_images=20, shape=(3, 4, 4), **more):
    images = np.arange(n_images * int(np.prod(shape))).reshape(n_images, *shape) % 256
    return {"images": images.astype(np.uint8), "labels": np.arange(n_images) % 2, **more}


def test_npz_is_read_back_with_its_factors(tmp_path):
    part = np.repeat(["train", "validation", "test"], [12, 5, 3])
    hue, site = np.linspace(0, 6, 20), np.array(["a", "b"] * 10)
    arrays = arrays_of(
        hue=hue, period_hue=2 * np.pi, site=site, split=part, class_names=["even", "odd"]
    )
    np.savez(tmp_path / "planted.npz", **arrays)
    for split in SPLITS:
        images = datasets.npz(split, data_dir=tmp_path / "planted.npz")
        np.testing.assert_array_equal(images.images, arrays["images"][part == split])
        np.testing.assert_array_equal(images.labels, arrays["labels"][part == split])
        np.testing.assert_array_equal(images.factors["hue"], hue[part == split])
        np.testing.assert_array_equal(images.factors["site"], site[part == split])
        assert set(images.factors) == {"hue", "site"}
        assert images.periods == {"hue": 2 * np.pi}
        assert (images.class_names, images.name) == (("even", "odd"), "npz")
        again = load_images("npz", split, data_dir=images.folder, image_size=2)
        assert again.labels_hash == images.labels_hash
        assert again.images.shape[1:] == (3, 2, 2)


@pytest.mark.parametrize("parts", [None, ["train", "test"]])
def test_npz_is_split_where_it_does_not_say_how(tmp_path, parts):
    more = {} if parts is None else {"split": np.repeat(parts, [15, 5])}
    np.savez(tmp_path / "a.npz", **arrays_of(row=np.arange(20), **more))
    splits = splits_of(datasets.npz, data_dir=tmp_path / "a.npz")
    rows = {split: images.factors["row"].tolist() for split, images in splits.items()}
    assert sorted(itertools.chain(*rows.values())) == list(range(20))
    if parts is not None:
        assert rows["test"] == [15, 16, 17, 18, 19]
    assert len(rows["validation"]) == 2


def test_npz_knows_the_words_for_splits_that_tables_know(tmp_path):
    words = np.repeat(["Training", "val", "TEST "], [12, 5, 3])
    np.savez(tmp_path / "a.npz", **arrays_of(row=np.arange(20), split=words))
    splits = splits_of(datasets.npz, data_dir=tmp_path / "a.npz")
    rows = [images.factors["row"].tolist() for images in splits.values()]
    assert rows == [[*range(12)], [*range(12, 17)], [17, 18, 19]]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((4, 5), None), ((4, 5, 3), (2, 0, 1)), ((3, 4, 5), (0, 1, 2)), ((4, 5, 1), (2, 0, 1))],
)
def test_npz_images_may_have_channels_last_or_none(tmp_path, shape, axes):
    arrays = arrays_of(shape=shape, split=["test"] * 20)
    np.savez(tmp_path / "a.npz", **arrays)
    images = datasets.npz("test", data_dir=tmp_path / "a.npz").images
    for image, original in zip(images, arrays["images"], strict=True):
        expected = original[None] if axes is None else original.transpose(axes)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": np.zeros((20, 4, 4))}, TypeError, "images must be uint8; got float64. Scale"),
        ({"images": np.zeros((20, 3, 4, 3), np.uint8)}, ValueError, "can be read either way"),
        ({"images": np.zeros((20, 2, 4, 4), np.uint8)}, ValueError, "C 1 or 3"),
        ({"labels": np.zeros(19, int)}, ValueError, r"\(20,\) to match images; got \(19,\)"),
        ({"box": np.zeros((20, 4))}, ValueError, r"factors\['box'\] must have shape \(20,\)"),
        ({"period_hue": np.ones(2)}, ValueError, r"period_hue must be one number; .*\(2,\)"),
        ({"period_hue": 1.0}, ValueError, "must name continuous factors; got 'hue'"),
        ({"split": ["test"] * 19}, ValueError, r"split must have shape \(20,\) .* got \(19,\)"),
        ({"split": ["dev"] * 20}, ValueError, "must hold train, validation or test; got 'dev'"),
        ({"split": np.arange(20)}, ValueError, "split must say train, validation or test for each"),
        ({"split": ["train"] * 20}, ValueError, "test must hold at least one image; got none"),
        ({"hue": [None] * 20}, ValueError, r"a.npz must be a complete .npz file.*Python objects"),
    ],
)
def test_npz_arrays_that_do_not_fit_are_refused(tmp_path, changes, error, message):
    np.savez(tmp_path / "a.npz", **arrays_of(**{}) | changes)
    with pytest.raises(error, match=message):
        datasets.npz("test", data_dir=tmp_path / "a.npz")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(200))
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "b.npy", np.zeros(3))
    for content in (whole[:-200], b"", b"PK", (tmp_path / "b.npy").read_bytes()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a.npz must be a complete .npz file of numbers"):
            datasets.npz("test", data_dir=tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(whole)
    assert len(datasets.npz("test", data_dir=tmp_path / "a.npz")) == 40


def test_npz_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="npz needs data_dir"):
        load_images("npz", "test")
    with pytest.raises(FileNotFoundError, match=r"data_dir must be an .npz file; got .*absent"):
        datasets.npz("test", data_dir=tmp_path / "absent.npz")
    np.savez(tmp_path / "a.npz", images=arrays_of()["images"])
    with pytest.raises(ValueError, match="must hold images and labels; got no labels"):
        datasets.npz("test", data_dir=tmp_path / "a.npz")
