"""Data sets by name, and the same rows in every split, every time."""

import subprocess
import sys

import numpy as np
import pytest

from dimlab import datasets
from dimlab.datasets import load_images
from dimlab.datasets.splits import rows_of


def test_the_list_of_data_sets_is_the_functions():
    called = {name: name.replace("-", "_") for name in datasets.NAMES} | {"csv": "table"}
    assert sorted(called.values()) == datasets.__all__
    assert all(callable(getattr(datasets, each)) for each in datasets.__all__)


@pytest.mark.parametrize("name", ["image-folder", "image_folder"])
def test_a_name_may_have_hyphens_or_underscores(name):
    with pytest.raises(ValueError, match="image-folder needs data_dir"):
        load_images(name, "train")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cifar-10", "Did you mean cifar10"), ("imagenet", "got 'imagenet'"), ("ImageSet", "got")],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(ValueError, match=rf"one of cifar10, .*fashion-mnist, .*stl10; .*{hint}"):
        load_images(name, "train")


@pytest.mark.parametrize("name", datasets.NAMES)
def test_an_unknown_split_is_refused(name):
    with pytest.raises(ValueError, match="split must be train, validation or test; got 'val'"):
        load_images(name, "val")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "stl10", "image-folder"])
def test_a_folder_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_dir must be an existing folder; .*absent"):
        load_images(name, "train", data_dir=tmp_path / "absent")


def test_importing_costs_no_heavy_library():
    heavy = {"torch", "pandas", "scipy", "sklearn", "matplotlib", "pooch", "PIL", "rich"}
    code = f"import sys, dimlab.datasets; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def reference_split(labels, fraction, seed):
    """The written rule, one row at a time."""
    keys = np.random.PCG64(seed).random_raw(len(labels))
    held = []
    for label in set(labels):
        drawn = sorted((keys[row], row) for row in range(len(labels)) if labels[row] == label)
        n_rows = int(np.floor(fraction * len(drawn) + 0.5))
        if len(drawn) > 1:
            held += [row for _, row in drawn[: max(n_rows, 1)]]
    return sorted(held)


@pytest.mark.filterwarnings("ignore:.*classes with a single one")  # there is one, on purpose
@pytest.mark.parametrize("seed", range(5))
def test_the_split_is_the_written_rule(seed):
    labels = np.random.default_rng(seed).integers(0, 7, 200)
    labels[0] = 9  # a class of one image is never held out
    test = reference_split(labels, 0.2, seed=1)
    rest = np.setdiff1d(np.arange(200), test)
    validation = rest[reference_split(labels[rest], 0.1, seed=0)]
    np.testing.assert_array_equal(rows_of(labels, "test"), test)
    np.testing.assert_array_equal(rows_of(labels, "validation"), validation)
    np.testing.assert_array_equal(rows_of(labels, "train"), np.setdiff1d(rest, validation))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_it_is_said_that_a_split_lacks_the_classes_with_one_image(split):
    labels = np.append(np.arange(40) % 4, [4, 5])
    with pytest.warns(UserWarning, match=rf"^{split} has no image of .* \(2\): they stay in train"):
        rows = rows_of(labels, split)
    assert set(labels[rows]) == {0, 1, 2, 3}
    assert {4, 5} < set(labels[rows_of(labels, "train")])


def test_the_split_does_not_move_with_the_global_generator():
    state = np.random.get_state()  # noqa: NPY002 - the state that must not matter
    drawn = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 - moves that state
        drawn.append(rows_of(np.arange(100) % 4, "test"))
    np.random.set_state(state)  # noqa: NPY002 - other tests must not see it
    np.testing.assert_array_equal(*drawn)


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="validation must hold at least one image; got none of 3"):
        rows_of(np.arange(3), "validation")
