"""`dimlab train`: what it starts from, what it goes on with, and what it assumes."""

from dataclasses import replace

import pytest

from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig

SMALL = {"batch_size": 16, "n_dimensions": 8, "hidden": 8, "redundancy_width": 8}
FEW = ["--steps", 2, *(x for name, value in SMALL.items() for x in ("--set", f"{name}={value}"))]


def config_in(folder):
    return load_checkpoint(folder / "checkpoint.pt").config


def test_a_run_goes_on_with_its_own_configuration(dimlab, tmp_path):
    """Only what is said anew may contradict it: not the defaults, nor those of a preset."""
    changed = ["--hypergradient", "lookahead", "--set", "crop_scale=0.7", "--seed", 3]
    assert dimlab("train", "--data", "digits+hue:0.5", *FEW, *changed, "--out", "r")[0] == 0
    for again in ([], ["--data", "digits+hue:0.5"], ["--steps", 2, "--seed", 3]):
        code, _, err = dimlab("train", "--out", "r", "--resume", *again)
        assert (code, err) == (0, ""), again
    config = config_in(tmp_path / "r")
    assert (config.hypergradient, config.crop_scale, config.seed) == ("lookahead", 0.7, 3)
    assert load_checkpoint(tmp_path / "r" / "checkpoint.pt").data["name"] == "digits+hue:0.5"
    for other, said in (
        (["--hypergradient", "exact"], "hypergradient = 'lookahead' instead of 'exact'"),
        (["--preset", "medium"], "instead of"),
        (["--seed", 0], "seed = 3 instead of 0"),
    ):
        code, _, err = dimlab("train", "--out", "r", "--resume", *other)
        assert code == 2
        assert said in err
        assert "Go on with its own configuration, or begin another run in another folder." in err


def test_the_seed_is_the_presets_unless_it_is_said(dimlab, tmp_path):
    (tmp_path / "run.toml").write_text("seed = 5\n")
    for more, seed in (([], 0), (["--config", "run.toml"], 5), (["--seed", 2], 2)):
        assert dimlab("train", *FEW, *more, "--out", f"r{seed}")[0] == 0
        assert config_in(tmp_path / f"r{seed}").seed == seed


@pytest.mark.parametrize("said", [False, True])
def test_grey_images_are_trained_on_with_the_official_preset(said, dimlab, tmp_path):
    """Its normalisation is of three channels: left out and said, refused where it is asked for."""
    few = [*FEW, "--encoder", "convnet", "--set", "validate_every=0"]
    if said:
        few += ["--set", "normalisation=imagenet"]
    code, _, err = dimlab("train", "--preset", "official", *few, "--out", "r")
    if said:
        assert code == 2
        assert "normalisation must be 'none' for images without three channels" in err
        return
    assert (code, err) == (
        0,
        "assumed: normalisation none, as imagenet, the preset's, is of three channels and the "
        "images have 1\n",
    )
    expected = replace(
        TrainConfig.official(), encoder="convnet", normalisation="none", validate_every=0, steps=2,
        **SMALL,
    )  # fmt: skip
    assert config_in(tmp_path / "r") == expected
    assert dimlab("train", "--out", "r", "--resume", "--preset", "official", *few)[0] == 0
