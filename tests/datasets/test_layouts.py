"""Folders, tables, parquet and Arrow: each layout gives the same images, labels and splits."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, features
from pyarrow import parquet

from dimlab import datasets
from dimlab.datasets import load_images
from dimlab.datasets.objects import as_images
from dimlab.images import SPLITS, ImageFiles
from tests.datasets.files import splits_of, write_png

CIFAR = Path(__file__).resolve().parents[3] / "shared/data/cifar10"  # beside the checkout
NAMES = ("ant", "bee")


def picture(rng):
    return rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)


def write_tree(root, rng, paths):
    for path in paths:
        write_png(root / path, picture(rng))
    return root


def files_in(images):
    return images.factors["file"].tolist()


# Folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Train", "VAL"), ("TRAIN", "valid")])
def test_validation_stands_for_test_where_there_is_none(tmp_path, rng, train, val):
    paths = [f"{part}/{name}/{i}.png" for part in (train, val) for name in NAMES for i in range(8)]
    write_tree(tmp_path, rng, paths)
    with pytest.warns(UserWarning, match="assumed: the validation images are the test split"):
        found = {each: datasets.image_folder(each, data_dir=tmp_path) for each in SPLITS}
    assert {path.split("/")[0] for path in files_in(found["test"])} == {val}
    assert len(found["test"]) == 16
    cut = files_in(found["train"]) + files_in(found["validation"])
    assert sorted(cut) == sorted(path for path in paths if path.startswith(train))


def test_folders_in_classes_are_refused_and_both_remedies_work(tmp_path, rng):
    paths = [f"{a}/{b}/{i}.png" for a in ("cat", "dog") for b in ("big", "small") for i in "01234"]
    write_tree(tmp_path, rng, paths)
    with pytest.raises(ValueError, match=r"depth=2 \(--depth 2\) for classes such as cat/big"):
        datasets.image_folder("train", data_dir=tmp_path)
    two = datasets.image_folder("test", data_dir=tmp_path, depth=2)
    assert two.class_names == ("cat/big", "cat/small", "dog/big", "dog/small")
    assert [two.class_names[i] for i in two.labels] == [p.rpartition("/")[0] for p in files_in(two)]
    one = datasets.image_folder("test", data_dir=tmp_path, depth=1)
    assert one.class_names == ("cat", "dog")
    assert [one.class_names[i] for i in one.labels] == [p.split("/")[0] for p in files_in(one)]
    assert two.reading == {"depth": 2}
    again = load_images("image-folder", "test", data_dir=two.folder, **two.reading)
    assert again.labels_hash == two.labels_hash


@pytest.mark.parametrize("deep", [False, True])
def test_images_without_classes_have_no_labels(tmp_path, rng, deep):
    paths = [f"{'sub/' if deep else ''}{i:02d}.png" for i in range(20)]
    write_tree(tmp_path, rng, paths)
    splits = splits_of(datasets.image_folder, data_dir=tmp_path, depth=0 if deep else None)
    assert [len(each) for each in splits.values()] == [14, 2, 4]
    assert sorted(path for each in splits.values() for path in files_in(each)) == paths
    for each in splits.values():
        assert (each.labels, each.n_classes, each.class_names) == (None, 0, ())
    assert "no labels" in repr(splits["test"])


def test_images_beside_classes_are_left_out_with_a_word(tmp_path, rng):
    write_tree(tmp_path, rng, ["sheet.png", *(f"{name}/{i}.png" for name in NAMES for i in "012")])
    with pytest.warns(UserWarning, match=r"1 images beside folders of classes .* sheet\.png"):
        images = datasets.image_folder("train", data_dir=tmp_path)
    assert "sheet.png" not in files_in(images)
    with pytest.raises(ValueError, match="depth must be >= 0; got -1"):
        datasets.image_folder("train", data_dir=tmp_path, depth=-1)


def test_an_image_is_turned_as_its_camera_says(tmp_path, rng):
    upright = Image.fromarray(picture(rng)[:, :16])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    for name in NAMES:
        (tmp_path / name).mkdir()
        for i in range(2):
            turned = upright.transpose(Image.Transpose.ROTATE_90)
            turned.save(tmp_path / name / f"{i}.png", exif=exif)
    found = datasets.image_folder("test", data_dir=tmp_path, image_size=8).images[0]
    expected = np.asarray(upright.resize((8, 16), Image.Resampling.BILINEAR).crop((0, 4, 8, 12)))
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_cmyk_is_converted_as_pillow_does_and_an_alpha_channel_is_dropped(tmp_path, rng):
    (tmp_path / "a").mkdir()
    inks = Image.fromarray(picture(rng)).convert("CMYK")
    glass = Image.fromarray(rng.integers(0, 256, (32, 32, 4)).astype(np.uint8), "RGBA")
    inks.save(tmp_path / "a" / "0.tif")
    for number in (1, 2, 3):
        glass.save(tmp_path / "a" / f"{number}.png")
    images = datasets.image_folder("train", data_dir=tmp_path, image_size=32, depth=0)
    for name, found in zip(files_in(images), images.images[:], strict=True):
        expected = np.asarray((inks if name == "a/0.tif" else glass).convert("RGB"))
        np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_other_formats_are_read_by_plugins_or_named(tmp_path, rng):
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    images = datasets.image_folder("train", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"0.heic must be a whole image .*pip install pillow-heif"):
        images.images[0]
    misnamed = tmp_path / "photo.jpg"  # as telephones send them
    (tmp_path / "a" / "0.heic").rename(misnamed)
    with pytest.raises(ValueError, match=r"image 0 .*HEIF needs Pillow's plugin: pip install pil"):
        as_images([{"image": misnamed}]).images[0]
    misnamed.rename(tmp_path / "a" / "0.heic")
    if features.check("avif"):
        (tmp_path / "b").mkdir()
        for i in range(3):
            Image.fromarray(picture(rng)).save(tmp_path / "b" / f"{i}.avif")
        images = datasets.image_folder("train", data_dir=tmp_path)
        assert images.images[len(images) - 1].shape == (3, 32, 32)


# Tables of paths ----------------------------------------------------------------------------------


def write_table(folder, rng, text, name="photos.csv"):
    write_tree(folder, rng, [f"in/{i}.png" for i in range(6)])
    (folder / name).write_text(text)
    return folder / name


ROWS = [("in/0.png", "bee", "train"), ("in/1.png", "ant", "test"), ("in/2.png", "bee", "test")]


@pytest.mark.parametrize(("name", "mark"), [("photos.csv", ","), ("photos.tsv", "\t")])
@pytest.mark.parametrize("path", ["path", "filename", "Image"])
def test_a_table_names_images_labels_splits_and_factors(tmp_path, rng, name, mark, path):
    heads = mark.join([path, "label", "Split", "hue", "site", "code"])
    lines = [mark.join([*row, f"0.{i}", "ab"[i % 2], f"0{i}"]) for i, row in enumerate(ROWS)]
    table = write_table(tmp_path, rng, "\n".join([heads, *lines]), name)
    images = datasets.table("test", data_dir=table)
    assert (images.class_names, images.labels.tolist()) == (("ant", "bee"), [0, 1])
    assert images.factors["hue"].tolist() == [0.1, 0.2]
    assert images.factors["site"].tolist() == ["b", "a"]
    assert images.factors["code"].tolist() == ["01", "02"]  # zeros in front: names, not numbers
    expected = np.asarray(Image.open(tmp_path / "in" / "1.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.images[0], expected)
    again = load_images("csv", "test", data_dir=images.folder)
    assert again.labels_hash == images.labels_hash


def test_a_table_without_labels_or_splits(tmp_path, rng):
    lines = [f"in/{i}.png" for i in range(6)]
    table = write_table(tmp_path, rng, "\n".join(["path", *lines]))
    splits = splits_of(datasets.table, data_dir=table)
    assert sorted(path for each in splits.values() for path in files_in(each)) == lines
    assert all(each.labels is None for each in splits.values())


def test_whole_numbers_are_class_ids(tmp_path, rng):
    lines = [f"in/{i}.png,{2 * (i % 2)},{'train' if i < 3 else 'test'}" for i in range(6)]
    table = write_table(tmp_path, rng, "\n".join(["path,label,split", *lines]))
    images = datasets.table("test", data_dir=table)
    assert (images.labels.tolist(), images.class_names, images.n_classes) == ([2, 0, 2], (), 3)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("photo\nin/0.png", {}, r"must name an image in every row; .*image_column .*photo"),
        (
            "path,image\na,b",
            {},
            r"image_column .* must name one column of photos.csv, .*path, image",
        ),
        ("path,label\nin/0.png,", {}, "column 'label' must hold a label in every row; .* row 0"),
        ("path,label\n,cat", {}, "must name an image in every row; got a row without"),
        ("path", {}, "must name an image in every row"),
        ("path,split\nin/0.png,dev", {}, "split must hold train, validation or test; got 'dev'"),
        (
            "path\nin/0.png",
            {"label_column": "kind"},
            "label_column .* of photos.csv, path",
        ),
        ("path,label\nin/0.png,-1", {}, None),
    ],
)
def test_tables_that_do_not_say_enough_are_refused(tmp_path, rng, text, options, reason):
    table = write_table(tmp_path, rng, text)
    if reason is None:  # a name like any other
        assert datasets.table("train", data_dir=table).class_names == ("-1",)
        return
    with pytest.raises(ValueError, match=reason):
        datasets.table("train", data_dir=table, **options)


def test_the_columns_that_a_refusal_asks_for_are_taken(tmp_path, rng):
    text = "photo,kind\n" + "\n".join(f"in/{i}.png,{NAMES[i % 2]}" for i in range(6))
    table = write_table(tmp_path, rng, text)
    chosen = {"image_column": "photo", "label_column": "kind"}
    images = datasets.table("train", data_dir=table, **chosen)
    assert (images.class_names, images.reading) == (NAMES, chosen)
    for absent in (None, tmp_path / "absent.csv"):
        with pytest.raises((ValueError, FileNotFoundError), match="data_dir"):
            datasets.table("train", data_dir=absent)


# Parquet and Arrow --------------------------------------------------------------------------------


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def columns_of(rng, n, *, names=None, **more):
    pixels = [picture(rng) for _ in range(n)]
    columns = {
        "image": [{"bytes": encoded(each), "path": f"{i}.png"} for i, each in enumerate(pixels)],
        "label": [i % 2 for i in range(n)],
    }
    table = pa.table(columns | more)
    if names is not None:
        known = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        info = json.dumps({"info": {"features": known}}).encode()
        table = table.replace_schema_metadata({b"huggingface": info})
    return pixels, table


def write_stream(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_indexed(table, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_groups(table, path):
    parquet.write_table(table, path, row_group_size=3)


WRITERS = {"parquet": write_groups, "arrow": write_stream, "file.arrow": write_indexed}


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("in_folders", [False, True])
def test_shards_are_one_data_set_whose_splits_are_told_by_names(tmp_path, rng, ending, in_folders):
    expected, labels = [], []
    for split, sizes in (("train", (5, 4)), ("test", (7, 2))):
        for shard, n in enumerate(sizes):
            pixels, table = columns_of(rng, n, names=NAMES, site=["x"] * n)
            stem = f"{split}/data-{shard}" if in_folders else f"data/{split}-0000{shard}-of-00002"
            path = tmp_path / f"{stem}.{ending}"
            path.parent.mkdir(exist_ok=True)
            WRITERS[ending](table, path)
            if split == "test":
                expected += pixels
                labels += table["label"].to_pylist()
    (tmp_path / "cache-0.arrow").write_bytes(b"")  # what datasets keeps of computations
    images = datasets.huggingface("test", data_dir=tmp_path, image_size=32)
    assert (images.class_names, images.labels.tolist()) == (NAMES, labels)
    found = np.asarray(images.images)
    np.testing.assert_array_equal(found, np.stack(expected).transpose(0, 3, 1, 2))
    assert images.factors["site"].tolist() == ["x"] * 9
    some = images.take([8, 0, 6])  # in any order, over the limits of row groups and files
    np.testing.assert_array_equal(np.asarray(some.images), found[[8, 0, 6]])
    elsewhere = pickle.loads(pickle.dumps(some.images))  # as a worker that is not forked gets it
    np.testing.assert_array_equal(elsewhere[1:], found[[0, 6]])
    assert len(datasets.huggingface("train", data_dir=tmp_path)) == 7  # of 9, two validate
    assert images.take(range(9)).images_hash == images.images_hash != some.images_hash


def test_one_file_is_cut_into_splits(tmp_path, rng):
    _, table = columns_of(rng, 20)
    parquet.write_table(table, tmp_path / "all.parquet")
    for where in (tmp_path, tmp_path / "all.parquet"):
        splits = splits_of(datasets.huggingface, data_dir=where)
        assert [len(each) for each in splits.values()] == [14, 2, 4]


def test_labels_of_minus_one_are_none_and_text_names_classes(tmp_path, rng):
    _, table = columns_of(rng, 6)
    for labels, expected in (([-1] * 6, None), (["bee", "ant"] * 3, [1, 0])):
        changed = table.set_column(1, "label", pa.array(labels))
        parquet.write_table(changed, tmp_path / "train.parquet")
        images = datasets.huggingface("train", data_dir=tmp_path)
        found = images.labels if expected is None else images.labels[:2].tolist()
        assert found == expected or sorted(set(found)) == sorted(expected)


@pytest.mark.parametrize(
    ("more", "options", "reason", "remedy"),
    [
        (
            {"mask": [b"x"] * 6}, {}, r"image_column .* must be a column of images .* image, mask;",
            {"image_column": "image"},
        ),
        (
            {"target": [0, 1] * 3}, {}, "label_column .* must name one column .* label, target",
            {"label_column": "target"},
        ),
        (
            {}, {"label_column": "kind"}, r"label_column .* must be a column .* label; got 'kind'",
            {"label_column": "label"},
        ),
    ],
)  # fmt: skip
def test_columns_that_could_be_meant_are_asked_for(tmp_path, rng, more, options, reason, remedy):
    _, table = columns_of(rng, 6, **more)
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=reason):
        datasets.huggingface("train", data_dir=tmp_path, **options)
    assert len(datasets.huggingface("train", data_dir=tmp_path, **remedy)) == 4


def test_folders_that_are_no_one_data_set_are_refused(tmp_path, rng):
    _, table = columns_of(rng, 6)
    with pytest.raises(ValueError, match="must hold parquet or Arrow files; got none"):
        datasets.huggingface("train", data_dir=tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        parquet.write_table(table, tmp_path / name / "train.parquet")
    with pytest.raises(ValueError, match=r"must hold one data set; got train in a and b\."):
        datasets.huggingface("train", data_dir=tmp_path)
    assert len(datasets.huggingface("train", data_dir=tmp_path / "a")) == 4
    parquet.write_table(table, tmp_path / "a" / "more.parquet")
    with pytest.raises(ValueError, match=r"of splits, or of none; got more.parquet beside train"):
        datasets.huggingface("train", data_dir=tmp_path / "a")
    whole = (tmp_path / "b" / "train.parquet").read_bytes()
    (tmp_path / "b" / "train.parquet").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"train.parquet must be a complete .parquet file"):
        datasets.huggingface("train", data_dir=tmp_path / "b")


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"{CIFAR} is not there")
def test_cifar10_as_hugging_face_lays_it_out():
    images = datasets.huggingface("test", data_dir=CIFAR)
    assert (len(images), images.images.shape) == (10_000, (10_000, 3, 32, 32))
    assert np.bincount(images.labels).tolist() == [1000] * 10
    table = parquet.read_table(CIFAR / "test.parquet")
    for row in (0, 4999, 9999):
        content = table["img"][row].as_py()["bytes"]
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(images.images[row], expected)
    assert len(datasets.huggingface("validation", data_dir=CIFAR)) == 5000


# Objects ------------------------------------------------------------------------------------------


class Pairs:
    """A map-style data set, as torch's are."""

    def __init__(self, items, **more):
        self.items = items
        self.__dict__.update(more)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


@pytest.mark.parametrize("kind", ["image", "array", "chw", "mapping"])
def test_data_sets_of_a_program_are_images(kind, rng):
    pixels = [picture(rng) for _ in range(4)]
    make = {
        "image": lambda each, i: (Image.fromarray(each), i % 2),
        "array": lambda each, i: (each, i % 2, "more"),
        "chw": lambda each, i: [each.transpose(2, 0, 1), i % 2],
        "mapping": lambda each, i: {"img": Image.fromarray(each), "fine_label": i % 2},
    }[kind]
    dataset = Pairs([make(each, i) for i, each in enumerate(pixels)])
    images = as_images(dataset)
    np.testing.assert_array_equal(np.asarray(images.images), np.stack(pixels).transpose(0, 3, 1, 2))
    assert images.labels.tolist() == [0, 1, 0, 1]
    assert as_images(images) is images
    loader = Pairs([], dataset=dataset, batch_sampler=None)
    assert as_images(loader).labels.tolist() == [0, 1, 0, 1]


def test_targets_and_class_names_are_taken_without_a_look_at_the_items():
    items = [(np.zeros((4, 4), np.uint8), None), None, None]
    images = as_images(Pairs(items, targets=[1, 0, 1], classes=NAMES))
    assert (images.labels.tolist(), images.class_names) == ([1, 0, 1], NAMES)
    assert as_images(Pairs([np.zeros((4, 4), np.uint8)])).labels is None


def test_what_is_no_data_set_is_refused():
    with pytest.raises(ValueError, match=r"images must be an ImageSet, or a data .*encode_loader"):
        as_images(iter([]))
    with pytest.raises(ValueError, match=r"got float32 of shape \(3, 4, 4\)\. Leave out the trans"):
        as_images(Pairs([np.zeros((3, 4, 4), np.float32)]))
    mixed = as_images(Pairs([np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.float32)]))
    with pytest.raises(ValueError, match=r"float32 of shape .* Pass a loader of such tensors"):
        mixed.images[1]
    splits = {"train": Pairs([np.zeros((4, 4), np.uint8)])}
    with pytest.raises(ValueError, match=r"got a dict of train\. Pass images\['train'\]"):
        as_images(splits)
    assert len(as_images(splits["train"])) == 1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["b", "a", "b"], [1, 0, 1]), ([2.0, 0.0, 1.0], [2, 0, 1]), ([-1, -1, -1], None)],
)
def test_labels_of_a_data_set_may_be_names_and_are_none_where_hidden(labels, expected):
    images = as_images(Pairs([(np.zeros((4, 4), np.uint8), each) for each in labels]))
    assert expected == (None if images.labels is None else images.labels.tolist())
    assert images.class_names == (("a", "b") if expected == [1, 0, 1] else ())


@pytest.mark.parametrize("label", [0.5, np.ones(3), {"box": 1}])
def test_targets_that_are_no_classes_are_refused(label):
    """They were cut to whole numbers."""
    with pytest.raises(ValueError, match="labels must be class ids or names, one a sample; got"):
        as_images(Pairs([(np.zeros((4, 4), np.uint8), label)] * 2))


def test_targets_that_a_data_set_changes_are_read_off_its_items():
    pixels = np.zeros((4, 4), np.uint8)
    dataset = Pairs([(pixels, 2), (pixels, 0)], targets=[0, 2], target_transform=lambda y: 2 - y)
    assert as_images(dataset).labels.tolist() == [2, 0]


# Reading once -------------------------------------------------------------------------------------


def test_a_file_of_several_splits_is_read_once(tmp_path, monkeypatch):
    from dimlab.datasets import own

    path, read = tmp_path / "a.npz", []
    np.savez(path, images=np.zeros((20, 4, 4), np.uint8), labels=np.arange(20) % 2)
    whole = own.read_npz
    monkeypatch.setattr(own, "read_npz", lambda each: read.append(each) or whole(each))
    for _ in range(2):
        splits_of(datasets.npz, data_dir=path)
    assert read == [path]
    np.savez(path, images=np.ones((20, 4, 4), np.uint8), labels=np.arange(20) % 2)
    assert datasets.npz("test", data_dir=path).images.min() == 1  # it has changed
    assert read == [path, path]


def test_pixels_are_decoded_when_they_are_asked_for(tmp_path, rng, monkeypatch):
    from dimlab import images as module

    write_tree(tmp_path, rng, [f"{name}/{i}.png" for name in NAMES for i in range(10)])
    read, decode = [], module.decode
    monkeypatch.setattr(module, "decode", lambda *each: read.append(each[1]) or decode(*each))
    images = datasets.image_folder("train", data_dir=tmp_path)
    assert isinstance(images.images, ImageFiles)
    assert read == []
    images.take([3, 5]).images[1]
    assert read == files_in(images)[5:6]
    assert images.images.dtype == np.uint8
    with pytest.raises(ValueError, match="workers must be >= 0; got -1"):
        datasets.image_folder("train", data_dir=tmp_path, workers=-1)


def test_a_table_is_read_once_and_again_where_it_has_changed(tmp_path, rng, monkeypatch):
    import pandas as pd

    rows = [",".join(row) for row in ROWS]
    path = write_table(tmp_path, rng, "\n".join(["path,label,split", *rows]))
    calls, read = [], pd.read_csv
    monkeypatch.setattr(pd, "read_csv", lambda *a, **k: calls.append(a) or read(*a, **k))
    sizes = [len(datasets.table(split, data_dir=path)) for split in ("train", "test")]
    assert (sizes, len(calls)) == ([1, 2], 1)
    path.write_text("\n".join(["path,label,split", *rows[:2]]))
    assert (len(datasets.table("test", data_dir=path)), len(calls)) == (1, 2)
