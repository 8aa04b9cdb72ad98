"""Every format that dimlab reads: how to make a small file of it, and how it is read and used."""

from __future__ import annotations

import gzip
import importlib.util
import io
import pickle
import tarfile
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.numpy import save_file

from dimlab import datasets, report
from dimlab.cli.options import Groups
from dimlab.datasets import formats, official
from dimlab.io.features import load_features
from dimlab.io.tables import join_factors
from dimlab.mask import MaskTrace
from dimlab.moments import Moments
from dimlab.probes._reading import checked_groups
from dimlab.representation import Representation
from dimlab.result_file import load_result, save_result
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import untrained

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(6, 3)).astype(np.float32)
LABELS = np.arange(6) % 2
CAMERAS = np.array(list("abcabc"))
SPLIT = Representation(
    FEATURES,
    labels=LABELS,
    factors={"hue": FEATURES[:, 0].astype(float), "camera": CAMERAS},
    periods={"hue": 6.28},
    views=RNG.normal(size=(2, 6, 3)).astype(np.float32),
    view_factors={"angle": RNG.normal(size=(2, 6))},
    meta={"source": "fuzz", "mask": [0.1, 0.2, 0.3]},
)
TRACE = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5, 0.5], [0.1, 0.9, 0.4]]), np.ones(2))
TABLE = pd.DataFrame({"row": range(6), "angle": np.linspace(0, 1, 6), "camera": CAMERAS})


@dataclass(frozen=True)
class Format:
    """A kind of file; ``read`` also uses what it gets, and refuses in a sentence."""

    make: object  # of a folder; returns the path to hand to `read`
    read: object
    damaged: tuple = ()  # files under that path which are damaged; itself where it is a file
    called: tuple = ()  # what a refusal may call it, besides its name


def representation_is_sane(found):
    assert np.isfinite(found.features).all()
    assert found.features.ndim == 2
    assert found.labels is None or found.labels.shape == (len(found),)
    assert all(each.shape == (len(found),) for each in found.factors.values())
    if found.views is not None:
        assert found.views.shape[1:] == found.features.shape
        found.per_view()
    found.take([0]).select([0])


def images_are_sane(found):
    assert np.asarray(found.images).dtype == np.uint8
    assert len(found.images) == len(found.labels) > 0
    assert 0 <= found.labels.min() <= found.labels.max() < found.n_classes


def read_representation(path):
    representation_is_sane(Representation.load(path))


def trained():
    config = TrainConfig(
        n_dimensions=4, hidden=4, contrastive_width=4, redundancy_width=4, steps=2
    )  # fmt: skip
    return untrained(config, datasets.digits("validation", image_size=8))


def make_checkpoint(folder):
    return trained().save(folder / "checkpoint.pt")


def make_weights(folder):
    path = folder / "weights.safetensors"
    save_file({name: each.numpy() for name, each in trained().network.items()}, path)
    return path


def read_checkpoint(path):
    checkpoint = load_checkpoint(path)
    checkpoint.summary()
    checkpoint.to_frame()
    assert len(checkpoint.mask) == len(checkpoint.mask_logits)
    assert all(each.shape for each in checkpoint.network.values() if each.ndim)
    size = checkpoint.data["shape"]
    if max(size) < 50:
        with torch.inference_mode():
            checkpoint.encoder()(torch.zeros(1, *size))


def read_trace(path):
    found = MaskTrace.load(path)
    assert np.isfinite(found.weights).all()
    found.summary()
    found.to_frame()


def read_moments(path):
    found = Moments.load(path)
    assert np.isfinite(found.mean).all()
    assert found.covariance.shape == (found.n_dimensions, found.n_dimensions)


def make_report(folder):
    report.write_report(folder, {"trace": TRACE}, provenance={"seed": 0})
    return folder


def redraw(folder):
    # figures of what is whole take long, and nothing more is read for them
    with mock.patch.object(report, "picture_of", return_value=b"<svg/>"):
        page = report.redraw_report(folder)
    assert page.read_text("utf-8").rstrip().endswith("</html>")


def read_table(path):
    representation_is_sane(join_factors(replace(SPLIT, factors={}, periods={}), path))


def make_images(folder):
    path = folder / "images.npz"
    images = RNG.integers(0, 256, (12, 4, 4, 3)).astype(np.uint8)
    split = np.array(["train", "test"] * 6)
    hue = RNG.random(12)
    np.savez_compressed(
        path, images=images, labels=np.arange(12) % 3, split=split, hue=hue, period_hue=1.0
    )
    return path


def idx(shape, packed):
    def make(folder):
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        content = header + RNG.integers(0, 256, shape).astype(np.uint8).tobytes()
        path = folder / ("a-ubyte.gz" if packed else "a-ubyte")
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    def read(path):
        assert formats.read_idx(path, shape).shape == shape

    return Format(make, read)


CIFAR = replace(official._CIFAR10, sizes={"train": 20, "test": 4})
BATCH, META = "cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"


def cifar_contents():
    pixels = RNG.integers(0, 256, (4, 3072)).astype(np.uint8)
    names = [f"{i}.png" for i in range(4)]
    batch = {"data": pixels, "labels": [0, 1, 0, 1], "filenames": names}
    meta = {"label_names": ["cat", "dog"], "num_vis": 3072}
    return {BATCH: pickle.dumps(batch, 2), META: pickle.dumps(meta, 2)}


def make_cifar(folder):
    for name, content in cifar_contents().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def make_tar(folder):
    path = folder / "cifar.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in cifar_contents().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read_tar(path):
    contents = formats.read_members(path, [BATCH, META])
    for name in (BATCH, META):
        formats.read_pickle(f"{path.name}/{name}", contents[name])


def make_stl(folder):
    (folder / "stl10_binary").mkdir()
    (folder / "stl10_binary/test_X.bin").write_bytes(RNG.bytes(3 * 96 * 96 * 3))
    (folder / "stl10_binary/test_y.bin").write_bytes(bytes([1, 2, 3]))
    (folder / "stl10_binary/class_names.txt").write_text("airplane\nbird\ncar\n")
    return folder


def read_stl(folder):
    with mock.patch.dict(official._STL10_SIZES, test=3):
        images_are_sane(datasets.stl10("test", data_dir=folder))


PICTURES = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm")


def make_pictures(folder):
    pixels = RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for ending in PICTURES:
            Image.fromarray(pixels).save(folder / name / f"1.{ending}")
        Image.fromarray(pixels).save(folder / name / "2.tif", compression="tiff_lzw")
    return folder


def features(ending):
    def make(folder):
        path = folder / f"features{ending}"
        numbered = {f"embedding_{d}": FEATURES[:, d] for d in range(3)}
        table = pd.DataFrame({**numbered, "label": LABELS, "camera": CAMERAS})
        {
            ".npz": lambda: np.savez(path, emb=FEATURES, y=CAMERAS, site=LABELS),
            ".npy": lambda: np.save(path, FEATURES),
            ".pt": lambda: torch.save(
                {"features": torch.from_numpy(FEATURES), "labels": torch.from_numpy(LABELS)}, path
            ),
            ".safetensors": lambda: save_file({"features": FEATURES, "labels": LABELS}, path),
            ".csv": lambda: table.to_csv(path, index=False),
            ".tsv": lambda: table.to_csv(path, sep="\t", index=False),
            ".parquet": lambda: table.to_parquet(path),
            ".arrow": lambda: write_arrow(path, table),
            ".h5": lambda: write_hdf(path, {"features": FEATURES, "labels": LABELS}),
            ".records.pt": lambda: torch.save(
                [{"id": name, "embedding": each} for name, each in enumerate(FEATURES)], path
            ),
        }[ending]()
        return path

    return Format(make, lambda path: representation_is_sane(load_features(path)))


def write_arrow(path, frame):
    import pyarrow as pa

    table = pa.Table.from_pandas(frame)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_hdf(path, arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")


FORMATS = {
    "representation.safetensors": Format(
        lambda folder: SPLIT.save(folder / "split.safetensors"), read_representation
    ),
    "representation.npz": Format(
        lambda folder: saved_npz(
            folder / "split.npz",
            {"features": FEATURES, "labels": LABELS, "factor:camera": CAMERAS},
        ),
        read_representation,
    ),
    "checkpoint.pt": Format(
        make_checkpoint,
        read_checkpoint,
        called=("network must fit the configuration",),
    ),
    "mask trace.npz": Format(lambda folder: TRACE.save(folder / "trace.npz"), read_trace),
    "moments.safetensors": Format(
        lambda folder: Moments.of(FEATURES.astype(float), n_blocks=2).save(
            folder / "moments.safetensors"
        ),
        read_moments,
    ),
    "result.npz": Format(
        lambda folder: save_result(folder / "trace.result.npz", TRACE), load_result
    ),
    "report folder": Format(
        make_report, redraw, ("report.json", "provenance.json", "trace.result.npz")
    ),
    "factors.csv": Format(
        lambda folder: (TABLE.to_csv(folder / "t.csv", index=False), folder / "t.csv")[1],
        read_table,
    ),
    "images.npz": Format(
        make_images, lambda path: images_are_sane(datasets.npz("train", data_dir=path))
    ),
    "IDX": idx((5, 4, 4), packed=False),
    "IDX.gz": idx((5, 4, 4), packed=True),
    "CIFAR-10 folder": Format(
        make_cifar,
        lambda folder: images_are_sane(official._cifar(CIFAR, "test", folder)),
        (BATCH, BATCH, META),
        called=("cifar-10-batches-py",),
    ),
    "CIFAR-10 tar.gz": Format(make_tar, read_tar),
    "STL-10 folder": Format(
        make_stl,
        read_stl,
        ("stl10_binary/test_y.bin", "stl10_binary/class_names.txt", "stl10_binary/test_X.bin"),
        called=("stl10_binary",),
    ),
    "image folder": Format(
        make_pictures,
        lambda folder: images_are_sane(
            datasets.image_folder("train", data_dir=folder, image_size=4)
        ),
        (*(f"ant/1.{ending}" for ending in PICTURES), "bee/2.tif"),
    ),
    "groups.json": Format(
        lambda folder: written(folder / "groups.json", b"[[0, 2], [1]]"),
        lambda path: checked_groups(Groups.of(str(path)).source.value, 3),
        called=("groups",),
    ),
    **{f"features{ending}": features(ending) for ending in (".npz", ".npy", ".pt", ".safetensors")},
    **{f"features{ending}": features(ending) for ending in (".csv", ".tsv", ".records.pt")},
}


def saved_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


if importlib.util.find_spec("dimlab.io.weights"):
    from dimlab.io.weights import load_encoder

    def read_weights(path):
        found = load_encoder(path, allow_untrained=True)
        assert all(np.isfinite(each.numpy()).all() for each in found.module.state_dict().values())

    NAMED = ("network must fit the configuration",)
    FORMATS["weights.pt"] = Format(make_checkpoint, read_weights, called=NAMED)
    FORMATS["weights.safetensors"] = Format(make_weights, read_weights, called=NAMED)

if importlib.util.find_spec("pyarrow"):
    FORMATS["features.parquet"] = features(".parquet")
    FORMATS["features.arrow"] = features(".arrow")
    FORMATS["factors.parquet"] = Format(
        lambda folder: (TABLE.to_parquet(folder / "t.parquet"), folder / "t.parquet")[1],
        read_table,
    )

if importlib.util.find_spec("h5py"):
    FORMATS["features.h5"] = features(".h5")
