"""Checkpoints: nothing lost on the way to disk, nothing executed on the way back."""

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.datasets import digits
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train


@pytest.fixture(scope="module")
def checkpoint():
    config = replace(TrainConfig.small(), n_dimensions=16, steps=2, batch_size=16)
    return train(config, digits("train").take(range(64)))


def test_a_saved_checkpoint_comes_back_whole(checkpoint, tmp_path):
    loaded = load_checkpoint(checkpoint.save(tmp_path / "checkpoint.pt"))
    assert loaded.config == checkpoint.config
    assert loaded.data == checkpoint.data
    assert loaded.step == checkpoint.step
    assert loaded.metrics == checkpoint.metrics
    assert loaded.versions == checkpoint.versions
    for name, value in checkpoint.network.items():
        torch.testing.assert_close(loaded.network[name], value, rtol=0, atol=0)
    for name in ("steps", "weights", "direct_norm", "second_order_norm"):
        np.testing.assert_array_equal(getattr(loaded.trace, name), getattr(checkpoint.trace, name))
    assert (
        loaded.optimisers["mask"]["state"].keys() == checkpoint.optimisers["mask"]["state"].keys()
    )


def test_the_file_loads_with_weights_only(checkpoint, tmp_path):
    payload = torch.load(checkpoint.save(tmp_path / "checkpoint.pt"), weights_only=True)
    assert payload["format"] == 1
    assert json.loads(payload["config"])["method"] == "metamask"


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_pickle_is_refused_and_never_executed(nested, checkpoint, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    payload = Hostile(canary)
    torch.save({"format": 1, "network": payload} if nested else payload, path)
    with pytest.raises(ValueError, match="must hold only tensors and plain containers"):
        load_checkpoint(path)
    assert not canary.exists()
    # negative control: the file is live
    pickle.loads(pickle.dumps(payload))
    assert canary.exists()


def test_a_bare_hostile_pickle_is_refused(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pt"
    path.write_bytes(pickle.dumps(Hostile(canary)))
    with pytest.raises(ValueError, match=r"hostile\.pt must"):
        load_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, checkpoint, tmp_path):
    path = checkpoint.save(tmp_path / "checkpoint.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"checkpoint\.pt must"):
        load_checkpoint(path)


def test_other_files_are_refused(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint must be a file; got"):
        load_checkpoint(tmp_path / "nowhere.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="must be a checkpoint written by dimlab train"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save({"format": 99}, tmp_path / "newer.pt")
    with pytest.raises(ValueError, match="must have format 1; got 99"):
        load_checkpoint(tmp_path / "newer.pt")
    torch.save({"format": 1, "data": "{}"}, tmp_path / "half.pt")
    with pytest.raises(ValueError, match="must be a complete dimlab checkpoint"):
        load_checkpoint(tmp_path / "half.pt")


def test_weights_that_do_not_fit_are_refused(checkpoint):
    broken = replace(checkpoint, network={"encoder.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="network must fit the configuration 'convnet'"):
        broken.build_network()


def test_a_failed_write_leaves_the_old_checkpoint(checkpoint, tmp_path):
    path = checkpoint.save(tmp_path / "checkpoint.pt")
    before = path.read_bytes()
    unwritable = replace(checkpoint, data={"name": object()})
    with pytest.raises(TypeError):
        unwritable.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_raw_mask_outside_the_unit_interval_is_rescaled(checkpoint):
    raw = replace(
        checkpoint,
        config=replace(checkpoint.config, mask="raw"),
        mask_logits=torch.tensor([2.0, -1.0, 0.5, 0.0]),
    )
    np.testing.assert_allclose(raw.mask.weights, [1, 0.5, 0.25, 0])


def test_summary_says_whether_the_mask_moved(checkpoint):
    assert checkpoint.summary()["mask_moved"] is True
    assert len(checkpoint.to_frame()) == len(checkpoint.metrics)
