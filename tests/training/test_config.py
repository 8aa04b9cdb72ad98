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
