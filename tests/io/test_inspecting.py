"""What a file is said to be: every kind that dimlab writes, roles of tensors, and why it loads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.datasets import digits
from dimlab.io.inspecting import inspect_file
from dimlab.io.layouts import ROLES
from dimlab.io.weights import load_encoder
from dimlab.mask import MaskTrace
from dimlab.moments import Moments
from dimlab.report import write_report
from dimlab.representation import Representation
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import build_encoder
from dimlab.training.loop import train, untrained

TINY = replace(TrainConfig.small(), n_dimensions=16, steps=2, batch_size=8)


@pytest.fixture(scope="module")
def checkpoint():
    return train(TINY, digits("train", image_size=8).take(range(16)))


@pytest.fixture
def small():
    """A convnet whose running statistics have moved."""
    with torch.random.fork_rng(devices=[]):
        module = build_encoder("convnet", in_channels=1, n_dimensions=16)
    for each in module.buffers():
        each.add_(1)
    return module.eval()


def test_a_checkpoint_of_dimlab(checkpoint, tmp_path):
    facts = inspect_file(checkpoint.save(tmp_path / "checkpoint.pt")).facts
    assert (facts["layout"], facts["encoder"]) == ("dimlab", "convnet (1 channel)")
    assert (facts["loads"], facts["trained"]) == ("yes", "yes")
    assert (facts["method"], facts["step"], facts["normalisation"]) == ("metamask", 2, "none")
    assert facts["trace"] == f"{len(checkpoint.trace)} records of 16 weights"
    assert (facts["mask"]["kind"], facts["mask"]["n"]) == ("logits", 16)
    assert facts["versions"] == {} or "dimlab" in facts["versions"]
    start = untrained(TINY, digits("train", image_size=8))
    facts = inspect_file(start.save(tmp_path / "start.pt")).facts
    assert facts["trained"] == "no"
    assert "must hold trained weights" in facts["loads"]


def test_a_record_of_images_without_channels_names_no_encoder(checkpoint, tmp_path):
    """Found by damaged files: an encoder for 0 channels was built, with a warning of torch's."""
    none = replace(checkpoint, data={**checkpoint.data, "shape": [0, 8, 8]})
    facts = inspect_file(none.save(tmp_path / "checkpoint.pt")).facts
    assert facts["encoder"] == "convnet (1 channel)"  # as the weights have it
    with pytest.raises(ValueError, match=r"^in_channels must be >= 1; got 0\.$"):
        build_encoder("convnet", in_channels=0)


def test_every_tensor_has_a_role(small, tmp_path):
    weights = small.state_dict()
    torch.save({
        "state_dict": {f"backbone.{key}": each for key, each in weights.items()}
        | {f"simsiam.backbone.{key}": each for key, each in weights.items()}
        | {"projector.0.weight": torch.ones(2, 2), "classifier.weight": torch.ones(2, 2),
           "auto_mask.mask": torch.zeros(16), "queue": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "pytorch-lightning_version": "2.6.6", "epoch": 4,
    }, tmp_path / "a.ckpt")  # fmt: skip
    inspection = inspect_file(tmp_path / "a.ckpt")
    frame = inspection.to_frame().set_index("key")
    assert frame["role"].value_counts().to_dict() == {
        "encoder": 18, "alias": 18, "projector": 1, "head": 1, "mask": 1, "other": 1,
        "optimiser": 1,
    }  # fmt: skip
    assert set(ROLES) == set(frame["role"])
    row = frame.loc["state_dict.simsiam.backbone.conv1.weight"]
    assert row.to_dict() == {
        "shape": "4 x 1 x 3 x 3", "dtype": "float32", "role": "alias", "matches": "conv1.weight",
    }  # fmt: skip
    facts = inspection.facts
    assert (facts["n_aliases"], facts["n_unexpected"], facts["epoch"]) == (18, 0, 4)
    assert facts["versions"] == {"pytorch-lightning_version": "2.6.6"}
    assert facts["bytes"] == (tmp_path / "a.ckpt").stat().st_size
    json.dumps(inspection.summary())


def test_what_cannot_be_loaded_is_described_with_the_reason(small, tmp_path):
    weights = small.state_dict()
    weights["conv2.weigth"] = weights.pop("conv2.weight")
    torch.save(weights, tmp_path / "a.pth")
    known = {"encoder": "convnet"}
    facts = inspect_file(tmp_path / "a.pth", **known).facts
    assert (facts["missing"], facts["n_unexpected"]) == (["conv2.weight"], 1)
    with pytest.raises(ValueError, match=r"closest: conv2\.weigth") as refused:
        load_encoder(tmp_path / "a.pth", **known)
    assert facts["loads"] == str(refused.value)
    known |= {"allow_partial": ["conv2"]}
    assert inspect_file(tmp_path / "a.pth", **known).facts["loads"] == "yes"


def test_what_dimlab_writes_besides(checkpoint, tmp_path, rng):
    def kind(path):
        found = inspect_file(path)
        json.dumps(found.summary())
        return found.kind, found.facts

    moments = Moments.of(rng.normal(size=(30, 4))).save(tmp_path / "m.safetensors")
    name, facts = kind(moments)
    assert (name, facts["n_samples"], facts["n_dimensions"]) == ("moments", 30, 4)
    trace = MaskTrace(np.arange(3), np.full((3, 4), 0.5))
    assert kind(trace.save(tmp_path / "t.npz"))[0] == "mask trace"
    write_report(tmp_path / "report", {"trace": trace}, provenance={})
    name, facts = kind(tmp_path / "report")
    assert (name, facts["results"]) == ("report folder", ["trace.result.npz"])
    assert kind(tmp_path / "report" / "trace.result.npz")[0] == "result"
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run" / "checkpoint.pt")
    assert kind(tmp_path / "run")[0] == "run folder"
    features = Representation(np.eye(3), labels=np.arange(3)).save(tmp_path / "f.safetensors")
    assert kind(features)[0] == "features"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="which is an empty folder"):
        inspect_file(tmp_path / "empty")


def test_the_ending_does_not_matter_but_the_content_does(small, tmp_path):
    from safetensors.torch import save_file

    save_file(small.state_dict(), tmp_path / "a.pth")
    assert inspect_file(tmp_path / "a.pth").facts["container"] == "safetensors"
    torch.save(small.state_dict(), tmp_path / "b.weights")
    assert load_encoder(tmp_path / "b.weights", encoder="convnet").n_dimensions == 16
    torch.save(small.state_dict(), tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    assert load_encoder(tmp_path / "c.pth", encoder="convnet").n_dimensions == 16
    (tmp_path / "d.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(ValueError, match=r"d\.mat must be a torch or safetensors file"):
        inspect_file(tmp_path / "d.mat")


def test_the_command_exits_as_it_should(small, dimlab, tmp_path):
    torch.save(small.state_dict(), tmp_path / "a.pth")
    code, out, err = dimlab("inspect", "a.pth", "--encoder", "convnet")
    assert (code, err) == (0, "")
    assert "loads: yes" in out
    code, _, err = dimlab("inspect", "a.pth", "--encoder", "resnet18", "--fail-if", "n_missing > 0")
    assert code == 3
    assert "gate met: n_missing is" in err
    for arguments, expected, sentence in (
        (("nowhere.pth",), 2, "which is not there"),
        (("cut.pth",), 1, "cut.pth must be a complete torch file"),
        (("a.pth", "--nothing"), 2, "No such option"),
    ):
        (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:900])
        code, _, err = dimlab("inspect", *arguments)
        assert code == expected, err
        assert sentence in err


def test_out_writes_what_it_says_and_a_row_a_tensor(small, dimlab, tmp_path):
    import pandas as pd

    torch.save(small.state_dict(), tmp_path / "a.pth")
    code, out, err = dimlab("inspect", "a.pth", "--out", "o", "--fail-if", "n_missing > 0")
    assert (code, err) == (0, "")
    said = dimlab("inspect", "a.pth")[1]
    assert out == said + ("wrote o/inspect.csv o/inspect.json o/inspect.provenance.json\n")
    table = pd.read_csv(tmp_path / "o" / "inspect.csv", keep_default_na=False)
    assert list(table["key"]) == list(small.state_dict())
    assert set(table["role"]) == {"encoder"}
    found = json.loads((tmp_path / "o" / "inspect.json").read_text())
    assert found == json.loads(dimlab("inspect", "a.pth", "--json")[1])
    code, out, _ = dimlab("inspect", "a.pth", "--json", "--tensors", "--out", "o")
    assert [row["key"] for row in json.loads(out)["tensors"]] == list(table["key"])
    code, _, err = dimlab("inspect", "a.pth", "--out", "met", "--fail-if", "n_matched > 0")
    assert (code, (tmp_path / "met" / "inspect.json").is_file()) == (3, True)
