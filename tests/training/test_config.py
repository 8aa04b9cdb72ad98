from dataclasses import replace

import pytest

from dimlab.training.config import TrainConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "byol", "method must be one of metamask, simclr"),
        ("encoder", "vit", "encoder must be one of convnet, resnet18"),
        ("stem", "x", "stem must be one of cifar, imagenet"),
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


def test_official_sets_every_switch():
    official = TrainConfig.official()
    assert (official.hypergradient, official.trial_step) == ("finite_difference", "optimiser")
    assert (official.trial_loss, official.outer_loss) == ("contrastive", "contrastive")
    assert (official.meta_position, official.meta_batch) == ("after", "same")
    assert (official.masked_heads, official.mask) == ("both", "sigmoid")
    assert (official.barlow_statistics, official.meta_moves_statistics) == ("unbiased", True)
    assert (official.temperature, official.contrastive_weight) == (0.07, 10)
    assert (official.learning_rate, official.mask_learning_rate) == (1e-3, 1e-3)
    assert not official.stem_relu
