"""A data set of another package: found by its name, in Python and in the shell."""

import subprocess
import sys

import numpy as np
import pytest

from dimlab import load_checkpoint
from dimlab.datasets import check_name, load_images

MODULE = """
import numpy as np
from dimlab.images import ImageSet

def striped_squares(split, folder):
    count = {"train": 40, "validation": 8, "test": 12}[split]
    labels = np.arange(count) % 2
    pixels = np.zeros((count, 1, 8, 8), np.uint8)
    pixels[labels == 1, :, ::2] = 200
    return ImageSet(pixels, labels, name="mine", split=split)

def wrong(split, folder):
    return np.zeros(3)
"""
ENTRIES = "[dimlab.datasets]\nstriped_squares = outside:striped_squares\nwrong = outside:wrong\n"


@pytest.fixture
def outside(installed):
    """A package that is installed in a folder of its own."""
    return installed("outside", MODULE, ENTRIES)


def test_it_is_loaded_by_name_resized_and_planted(outside, tmp_path):
    images = load_images("striped-squares", "test", data_dir=tmp_path)
    assert repr(images) == "ImageSet('striped-squares', test, 12 images of 1 x 8 x 8, 2 classes)"
    assert images.folder == str(tmp_path)
    large = load_images("striped_squares", "train", image_size=16)
    assert large.images.shape == (40, 1, 16, 16)
    assert "hue" in load_images("striped-squares+hue:0.8", "train").factors
    with pytest.raises(ValueError, match="split must be train, validation or test; got 'val'"):
        load_images("striped-squares", "val")


def test_it_stands_among_the_names_and_must_return_images(outside):
    with pytest.raises(ValueError, match=r"one of cifar10, .*striped-squares.*Did you mean strip"):
        check_name("striped-square")
    with pytest.raises(TypeError, match=r"^outside:wrong must return an ImageSet of"):
        load_images("wrong", "test")


@pytest.mark.slow
def test_the_shell_trains_on_it_and_the_checkpoint_finds_it_again(outside, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(outside), prepend=":")
    out = tmp_path / "run"
    command = (
        "-m dimlab train --data striped-squares --steps 2 --batch-size 8 --quiet --out".split()
    )
    done = subprocess.run([sys.executable, *command, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = load_checkpoint(out / "checkpoint.pt").data
    assert (data["name"], data["n_images"]) == ("striped-squares", 40)
    again = load_images(data["name"], "train", data_dir=data["folder"])
    assert again.labels_hash == data["labels_hash"]
    np.testing.assert_array_equal(np.bincount(again.labels), [20, 20])
