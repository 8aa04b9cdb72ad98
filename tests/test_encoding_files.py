"""Image files become features: what cannot be read is counted, a killed run goes on."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dimlab import _scratch, datasets
from dimlab._encode import encode, encode_moments
from dimlab.moments import Moments
from dimlab.representation import Representation
from dimlab.training.checkpoint import Checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train, untrained
from tests.datasets.files import write_png

TINY = replace(TrainConfig.small(), n_dimensions=16, steps=2, batch_size=8)


@pytest.fixture
def folder(tmp_path, rng):
    """Forty images of two classes."""
    for name in ("ant", "bee"):
        for i in range(20):
            pixels = rng.integers(0, 256, (10, 12, 3)).astype(np.uint8)
            write_png(tmp_path / "data" / name / f"{i:02d}.png", pixels)
    return tmp_path / "data"


def files_of(folder, **more):
    return datasets.image_folder(
        "train", data_dir=folder, image_size=8, resize=8, workers=0, **more
    )


@pytest.fixture
def module():
    with torch.random.fork_rng():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


def test_features_of_files_are_those_of_their_pixels(folder, module):
    images = files_of(folder)
    found = encode(module, images)
    pixels = torch.from_numpy(np.asarray(images.images)).float() / 255
    with torch.no_grad():
        np.testing.assert_allclose(found.features, module(pixels).numpy(), atol=1e-6)
    assert found.meta["transform"].startswith("image size 8 (as asked), resize 8, centre crop")


def test_images_that_cannot_be_read_are_counted_and_left_out(folder, module):
    whole = encode(module, files_of(folder))
    bad = [2, 11]
    files = whole.factors["file"][bad]
    (folder / files[0]).write_bytes(b"")
    content = (folder / files[1]).read_bytes()
    (folder / files[1]).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{files[0]} must be a whole image .*skip_bad=True"):
        encode(module, files_of(folder))
    with pytest.warns(UserWarning, match=rf"^2 of 28 images could not be read .* {files[0]} must"):
        found = encode(module, files_of(folder, skip_bad=True), batch_size=5)
    kept = np.setdiff1d(np.arange(28), bad)
    np.testing.assert_allclose(found.features, whole.features[kept], atol=1e-6)
    assert found.factors["file"].tolist() == whole.factors["file"][kept].tolist()
    np.testing.assert_array_equal(found.labels, whole.labels[kept])
    assert found.meta["left_out"] == bad
    checkpoint = untrained(TINY, files_of(folder))
    with pytest.warns(UserWarning, match="^2 of 28 images could not be read"):
        moments = encode_moments(checkpoint, files_of(folder, skip_bad=True), n_blocks=2)
    with pytest.warns(UserWarning, match="^2 of 28 images"):
        features = encode(checkpoint, files_of(folder, skip_bad=True)).features
    assert moments.n == 26
    np.testing.assert_allclose(moments.mean[0], features.mean(axis=0), atol=1e-5)
    assert isinstance(moments, Moments)


def test_a_file_that_is_not_there_is_said_to_be_not_there(folder, module):
    images = files_of(folder)
    gone = images.factors["file"][3]
    (folder / gone).unlink()
    assert len(images.images_hash) == 64
    with pytest.raises(
        ValueError, match=rf"^{gone} must be an existing image file; got no such file\."
    ):
        encode(module, images)


def killed_at(call, rows):
    """Run a call in a process that is killed when it has done as many rows."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
        try:
            call(lambda done, _: done >= rows and os.kill(os.getpid(), signal.SIGKILL))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_a_killed_encoding_goes_on_at_the_last_whole_shard(folder, module, tmp_path, monkeypatch):
    monkeypatch.setattr(_scratch, "SHARD", 8)
    scratch = tmp_path / "scratch"
    (folder / files_of(folder).factors["file"][1]).write_bytes(b"")  # before the kill

    def call(progress=None, network=module, seed=0):
        images = files_of(folder, skip_bad=True)
        return encode(
            network, images, batch_size=4, n_views=2, seed=seed, scratch=scratch, progress=progress
        )

    killed_at(call, 20)  # sixteen are on the disk, four are not
    done = []
    with pytest.warns(UserWarning, match="^1 of 28 images could not be read"):
        found = call(lambda now, _: done.append(now))
    assert done == [20, 24, 28]
    with pytest.warns(UserWarning, match="^1 of 28"):
        expected = encode(module, files_of(folder, skip_bad=True), batch_size=4, n_views=2)
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.views, expected.views)
    assert found.meta == expected.meta
    module[1].bias.data += 1
    for other in ({"seed": 1}, {"network": module}):
        done.clear()
        with pytest.warns(UserWarning, match="^1 of 28"):
            call(lambda now, _: done.append(now), **other)
        assert done[0] == 4  # other inputs begin anew


def test_images_without_labels_are_trained_on_and_found_again(tmp_path, rng):
    for i in range(30):
        write_png(tmp_path / "flat" / f"{i:02d}.png", rng.integers(0, 256, (8, 8, 3)))
    images = files_of(tmp_path / "flat")
    path = train(TINY, images).save(tmp_path / "checkpoint.pt")
    found = Checkpoint.load(path)
    assert (images.labels, found.data["n_classes"]) == (None, 0)
    assert encode(found, images).labels is None


def test_training_goes_on_over_bad_images_only_where_that_is_asked_for(folder):
    images = files_of(folder, skip_bad=True)
    (folder / images.factors["file"][0]).write_bytes(b"")
    with pytest.warns(UserWarning, match="Another image takes its place"):
        assert train(TINY, images).step == 2
    with pytest.raises(ValueError, match=r"must be a whole image .*--skip-bad"):
        train(replace(TINY, steps=6), files_of(folder))


def test_what_is_assumed_of_both_splits_is_said_once(folder, tmp_path, dimlab):
    for name, part in (("ant", "train"), ("bee", "train"), ("ant", "val"), ("bee", "val")):
        (folder / part).mkdir(exist_ok=True)
        for each in sorted((folder / name).glob(f"{int(part == 'val')}*.png")):
            (folder / part / name).mkdir(exist_ok=True)
            each.rename(folder / part / name / each.name)
    for name in ("ant", "bee"):
        (folder / name).rmdir()
    images = datasets.image_folder("test", data_dir=folder, image_size=8, workers=0)
    untrained(TINY, images).save(tmp_path / "a.pt")
    flags = ("--data", "image-folder", "--data-dir", "data", "--workers", "0")
    code, _, err = dimlab("encode", "a.pt", *flags, "--out", "o")
    assert (code, err.count("assumed: the validation images are the test split")) == (0, 1), err


def test_a_bad_image_fails_and_a_missing_option_is_a_misuse(folder, tmp_path, dimlab):
    untrained(TINY, files_of(folder)).save(tmp_path / "a.pt")
    command = ("encode", "a.pt", "--data", "image-folder")
    code, _, err = dimlab(*command)
    assert (code, "image-folder needs data_dir" in err) == (2, True), err
    code, _, err = dimlab(*command, "--data-dir", "absent", "--crop", "middle")
    assert (code, "crop must be one of 'centre', 'squash'; got 'middle'" in err) == (2, True), err
    (folder / "ant" / "01.png").write_bytes(b"")
    command = (*command, "--data-dir", "data", "--workers", "0")
    code, _, err = dimlab(*command)
    assert (code, "Pass skip_bad=True (--skip-bad)" in err) == (1, True), err
    assert dimlab(*command, "--skip-bad")[0] == 0


def test_levels_of_0_are_what_a_user_says(folder, tmp_path, dimlab):
    untrained(TINY, files_of(folder)).save(tmp_path / "a.pt")
    command = ("encode", "a.pt", "--data", "image-folder", "--data-dir", "data", "--split", "test")
    for depth, n_classes in (("1", 2), ("0", 0)):
        code, _, err = dimlab(*command, "--depth", depth, "--workers", "0")
        assert code == 0, err
        found = Representation.load(tmp_path / "test.safetensors")
        assert len(found.meta.get("class_names", ())) == n_classes
        assert (found.labels is not None) == (n_classes > 0)
    code, _, err = dimlab("ablate", *command[1:-2], "--depth", "0", "--reader", "ridge")
    assert (code, "Or encode a.pt with dimlab encode, and pass --labels" in err) == (2, True), err
    rows = [f"{file},{file[:3]}" for file in found.factors["file"]]
    (tmp_path / "y.csv").write_text("\n".join(["file,kind", *rows]))
    features = ("test.safetensors", "--train", "test.safetensors", "--labels", "y.csv:kind")
    code, _, err = dimlab("ablate", *features, "--on", "file", "--reader", "ridge", "--quiet")
    assert code == 0, err
