"""Why the official finite difference errs: ReLUs that change sign between its two points."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from dimlab.datasets import digits
from dimlab.training._operations import without_running_statistics
from dimlab.training.config import TrainConfig
from dimlab.training.hypergradient import (
    _moved,
    _trial_step,
    exact_hypergradient,
    finite_difference_hypergradient,
)
from dimlab.training.loop import trial_of, untrained

CONFIG = replace(TrainConfig.small(), batch_size=64, n_dimensions=32, hidden=64)
RADII = (1e-2, 1e-3, 1e-4, 1e-6)


def trial_in(precision, projector_bend=nn.ReLU):
    images = digits("train", image_size=8)
    config = replace(CONFIG, precision=precision)
    trial = trial_of(untrained(config, images), images)
    trial.objective.network["contrastive"][2] = projector_bend()
    return trial


def error(trial, radius):
    exact = exact_hypergradient(copy.copy(trial)).second_order
    found = finite_difference_hypergradient(copy.copy(trial), radius=radius).second_order
    return ((found - exact).norm() / exact.norm()).item()


def n_sign_changes(trial, radius):
    """ReLUs of the contrastive projector that are on at one of the two points only."""
    v = _trial_step(copy.copy(trial))[3]
    step = radius / torch.cat([each.flatten() for each in v.values()]).norm()
    on = []
    for sign in (1, -1):
        weights = _moved(trial.weights, v, sign * step)
        parts = {
            part: {
                name.removeprefix(f"{part}."): weight
                for name, weight in weights.items()
                if name.startswith(f"{part}.")
            }
            for part in ("encoder", "contrastive")
        }
        network, seen = trial.objective.network, []
        handle = network["contrastive"][1].register_forward_hook(
            lambda _, __, output, seen=seen: seen.append(output > 0)
        )
        for view in trial.inner_views:
            with torch.no_grad(), without_running_statistics(network):
                features = functional_call(network["encoder"], parts["encoder"], (view,))
                masked = features * trial.mask_logits.sigmoid()
                functional_call(network["contrastive"], parts["contrastive"], (masked,))
        handle.remove()
        on.append(torch.cat(seen))
    return int((on[0] != on[1]).sum())


def test_the_error_is_the_same_in_float64_so_that_it_is_no_rounding():
    single, double = (error(trial_in(precision), 1e-2) for precision in ("float32", "float64"))
    assert double > 0.3
    assert single == pytest.approx(double, rel=0.02)


def test_fewer_projector_relus_change_sign_at_a_smaller_radius_and_without_any_it_is_exact():
    """Not the error: the jump that one of them leaves is divided by the radius."""
    trial = trial_in("float64")
    changes = [n_sign_changes(trial, radius) for radius in RADII]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 5 * changes[1] > 0
    assert changes[-1] == 0
    errors = [error(trial, radius) for radius in RADII]
    assert errors[-1] < 1e-3
    assert max(errors[1:-1]) > errors[0] > 0.3


def test_with_a_smooth_projector_the_encoders_relus_alone_do_little():
    smooth, bent = (error(trial_in("float64", bend), 1e-2) for bend in (nn.Softplus, nn.ReLU))
    assert smooth < 0.1 * bent
