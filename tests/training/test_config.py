from dataclasses import replace

import pytest

from dimlab.training.config import TrainConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "byol", "method must be one of metamask, simclr"),
        ("encoder", "vit", "encoder must be one of convnet, resnet18"),
        ("stem", "x", "stem must be one of cifar, imagenet"),
        ("initialisation", "x", "initialisation must be one of kaiming, torch"),
        ("epochs", -1, "epochs must be >= 0; got -1"),
        ("mask", "x", "mask must be one of sigmoid, raw"),
        ("steps", 0, "steps must be >= 1; got 0"),
        ("steps", 1.5, "steps must be int; got 1.5"),
        ("seed", True, "seed must be int; got True"),
        ("learning_rate", 0, "learning_rate must be > 0; got 0"),
        ("learning_rate", float("nan"), "learning_rate must be finite; got nan"),
        ("momentum", 1.0, r"momentum must lie in \[0, 1\); got 1.0"),
        ("crop_scale", 0.0, r"crop_scale must lie in \(0, 1\]; got 0.0"),
        ("flip", 1.1, r"flip must lie in \[0, 1\]; got 1.1"),
        ("n_dimensions", 6, "n_dimensions must be a multiple of 4; got 6"),
        ("batch_size", 1, "batch_size must be >= 2; got 1"),
        ("warmup_steps", 10**6, "warmup_steps must be < steps"),
        ("hypergradient", "second", "hypergradient must be one of exact, lookahead"),
        ("trial_loss", "x", "trial_loss must be one of contrastive, total"),
        ("optimiser", "lion", "optimiser must be one of sgd, adamw"),
        ("precision", "fp8", "precision must be one of float32, bfloat16, float64"),
        ("nesterov", 1, "nesterov must be bool; got 1"),
        ("contrastive", "infonce", "contrastive must be a function or one of barlow_twins_loss"),
        ("contrastive", "cross_correlation", "contrastive must be a function or one of"),
        ("finite_difference_radius", 0, "finite_difference_radius must be > 0; got 0"),
        ("validate_every", -1, "validate_every must be >= 0; got -1"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(TrainConfig(), **{field: value})


def test_json_and_back():
    config = replace(TrainConfig.small(), seed=3)
    import json

    assert TrainConfig.from_dict(json.loads(config.to_json())) == config


def test_an_unknown_field_is_refused():
    with pytest.raises(
        ValueError, match="config must have only the fields of TrainConfig; got 'lr'"
    ):
        TrainConfig.from_dict({"lr": 1})


def test_presets_differ_where_they_say():
    assert TrainConfig.small().flip == 0
    assert TrainConfig.medium() == TrainConfig()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nesterov": True, "momentum": 0.0}, "nesterov must have a momentum > 0"),
        ({"hypergradient": "lookahead", "optimiser": "adamw"}, "must have optimiser='sgd'"),
        (
            {"meta_moves_statistics": True, "meta_position": "before"},
            "meta_moves_statistics must be False with meta_position='before'",
        ),
    ],
)
def test_fields_that_exclude_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)


def test_a_loss_of_ones_own_is_named_in_json():
    import json

    from dimlab.training.losses import vicreg_loss

    assert json.loads(TrainConfig(contrastive=vicreg_loss).to_json())["contrastive"] == (
        "vicreg_loss"
    )

    def mine(z_a, z_b):
        return (z_a - z_b).square().mean()

    values = json.loads(TrainConfig(contrastive=mine).to_json())
    assert values["contrastive"].startswith("custom:")
    assert values["contrastive"].endswith(".mine")
    read = TrainConfig.from_dict(values)  # a checkpoint with it can be read, its loss is a name
    assert read.contrastive == values["contrastive"]


# hyper-parameters and switches of the official code, as its files give them (CIFAR-10)
OFFICIAL = {
    "method": "metamask", "encoder": "resnet18", "stem": "cifar", "stem_relu": False,
    "initialisation": "torch", "hidden": 2048, "contrastive_width": 256, "redundancy_width": 2048,
    "steps": 0, "epochs": 800, "batch_size": 512, "seed": 1,
    "contrastive": "nt_xent_loss", "temperature": 0.07, "contrastive_weight": 10.0,
    "redundancy_weight": 1.0, "off_diagonal_weight": 5e-3, "barlow_statistics": "unbiased",
    "optimiser": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "nesterov": False,
    "weight_decay": 5e-4, "clip_norm": 0.0, "warmup_steps": 0, "schedule": "epoch",
    "hypergradient": "finite_difference", "finite_difference_radius": 1e-2,
    "trial_loss": "contrastive", "outer_loss": "contrastive", "trial_step": "optimiser",
    "meta_position": "after", "meta_batch": "same", "meta_every": 1, "masked_heads": "both",
    "meta_moves_statistics": True,
    "mask": "sigmoid", "mask_learning_rate": 1e-3, "mask_momentum": 0.9, "mask_weight_decay": 5e-4,
    "crop_scale": 0.08, "flip": 0.5, "jitter": 0.8, "jitter_strength": 0.4, "grey": 0.2,
    "normalisation": "imagenet", "precision": "float32", "validate_every": 1, "validation_bank": 0,
}  # fmt: skip


def test_official_is_the_official_code_in_every_field():
    """What it has no counterpart of is named as such in the docstring."""
    found = TrainConfig.official().to_dict()
    differing = {name: found[name] for name in OFFICIAL if found[name] != OFFICIAL[name]}
    assert differing == {}
    without = sorted(set(found) - set(OFFICIAL))
    assert without == ["checkpoint_every", "keep_checkpoints", "n_dimensions", "trace_every"]
    listed = TrainConfig.official.__doc__.partition("These differences")[2]
    assert all(f"``{name}``" in listed for name in without)


def test_every_known_difference_from_the_official_code_is_listed():
    """In the words of what differs: images, evaluation, randomness, augmentation, network."""
    listed = " ".join(TrainConfig.official.__doc__.partition("These differences")[2].split())
    for words in (
        "50,000 training images (97 steps an epoch)", "45,000 are trained on (87 steps an epoch)",
        "test is read by no training", "features of the epoch before",
        "reports the best epoch on test", "drawn by other generators", "8-bit images",
        "the order of the four colour operations", "two prediction heads", "subtracts 1e9",
    ):  # fmt: skip
        assert words in listed, words
    official = TrainConfig.official()
    assert [official.n_steps(n) / 800 for n in (50_000, 45_000)] == [97, 87]


def test_steps_and_epochs_are_limits_of_which_the_first_ends_the_run():
    config = TrainConfig(steps=0, epochs=3, batch_size=10)
    assert [config.n_steps(n) for n in (10, 19, 100)] == [3, 3, 30]
    assert replace(config, steps=7).n_steps(100) == 7
    assert replace(config, steps=7).n_steps(20) == 6
    assert TrainConfig(steps=7).n_steps(20) == 7
    with pytest.raises(ValueError, match=r"^steps must be >= 1; got 0\. With steps=0, epochs must"):
        TrainConfig(steps=0)


def test_a_configuration_of_before_these_fields_means_what_it_meant():
    old = TrainConfig.medium().to_dict()
    for name in ("initialisation", "epochs", "validation_bank"):
        del old[name]
    read = TrainConfig.from_dict(old)
    assert read == TrainConfig.medium()
    assert (read.initialisation, read.epochs, read.validation_bank) == ("kaiming", 0, 10_000)
