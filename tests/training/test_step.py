"""One step: the official one where asked, and what each mode and switch does to it."""

import copy
from dataclasses import replace

import pytest
import torch

from dimlab.datasets import digits
from dimlab.training.checkpoint import build_network
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import build_encoder, build_projector
from dimlab.training.hypergradient import Trial, exact_hypergradient
from dimlab.training.step import Stepper
from tests.references import official_step
from tests.training.test_hypergradient import World

N_DIMENSIONS = 16


def network_of(encoder_name="convnet", dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(
            encoder_name, in_channels=3, n_dimensions=N_DIMENSIONS, stem_relu=False
        )
        d = encoder.n_dimensions
        heads = {
            "contrastive": build_projector((d, 24, 12)),
            "redundancy": build_projector((d, 24, 24, 20)),
        }
        logits = 0.5 * torch.randn(d, dtype=dtype)
    network = torch.nn.ModuleDict({"encoder": encoder, **heads}).to(dtype).train()
    return network, logits


def batch(seed, size=12, side=8):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.rand(size, 3, side, side, dtype=torch.float64, generator=generator) for _ in range(2)
    )


@pytest.mark.parametrize("encoder", ["convnet", pytest.param("resnet18", marks=pytest.mark.long)])
def test_official_configuration_takes_the_official_step(encoder):
    ours, logits = network_of(encoder)
    theirs, their_logits = copy.deepcopy(ours), logits.clone()
    config = replace(TrainConfig.official(), batch_size=12, precision="float64")
    stepper, state = Stepper(ours, logits, config), {}
    for step in range(3):  # the second and third with momentum
        views = batch(step)
        record = stepper.take(views, lambda: None)
        expected = official_step(theirs, their_logits, state, views)
        torch.testing.assert_close(logits.grad, expected["gradient"], rtol=1e-9, atol=1e-12)
        assert record["second_order_norm"] > 1e-4 * record["direct_norm"]
        torch.testing.assert_close(logits, their_logits, rtol=1e-9, atol=1e-12)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-12)
    # four updates of BatchNorm's statistics a step, not two
    assert ours["encoder"].bn1.num_batches_tracked == 12


@pytest.mark.parametrize(
    "switch",
    [
        {"trial_loss": "total"},
        {"outer_loss": "total"},
        {"trial_step": "plain"},
        {"meta_position": "before", "meta_moves_statistics": False},
        {"meta_batch": "held-out"},
        {"masked_heads": "contrastive"},
        {"mask": "raw"},
        {"barlow_statistics": "biased"},
        {"meta_moves_statistics": False},
        {"hypergradient": "exact"},
        {"hypergradient": "first_order"},
        {"hypergradient": "lookahead"},
        {"hypergradient": "joint"},
        {"hypergradient": "none"},
        {"finite_difference_radius": 1e-4},
        {"nesterov": True},
        {"clip_norm": 1e-3},
        {"meta_every": 2},
    ],
)
def test_every_switch_changes_the_official_step(switch):
    """Negative control: a switch that did nothing would pass the test above."""
    config = replace(TrainConfig.official(), batch_size=12, precision="float64")
    states = []
    for settings in (config, replace(config, **switch)):
        network, logits = network_of()
        stepper = Stepper(network, logits, settings)
        for step in range(2):
            stepper.take(batch(step), lambda step=step: batch(step + 1), step=step)
        states.append(torch.cat([logits, *(v.flatten() for v in network.state_dict().values())]))
    assert (states[0] - states[1]).abs().max() > 1e-12


@pytest.mark.parametrize("trial_loss", ["contrastive", "total"])
def test_before_takes_the_hypergradient_at_the_weights_before_the_update(trial_loss):
    world = World(0, meta_position="before", trial_loss=trial_loss, learning_rate=0.3)
    trial = Trial(
        world.objective, world.weights, world.s, world.batches[0], world.batches[0], 0.3,
        inner_loss=trial_loss,
    )  # fmt: skip
    expected = exact_hypergradient(replace(trial, weights=copy.deepcopy(world.weights)))
    logits = world.s.clone()
    Stepper(world.network, logits, world.config).take(world.batches[0], lambda: None)
    torch.testing.assert_close(logits.grad, expected.total, rtol=1e-10, atol=1e-14)


def test_after_takes_it_at_the_weights_behind_the_update():
    world = World(0, learning_rate=0.3)
    logits = world.s.clone()
    Stepper(world.network, logits, world.config).take(world.batches[0], lambda: None)
    expected = exact_hypergradient(
        Trial(world.objective, world.weights, world.s, world.batches[0], world.batches[0], 0.3)
    )
    torch.testing.assert_close(logits.grad, expected.total, rtol=1e-10, atol=1e-14)


def test_joint_descends_the_regular_loss():
    world = World(0, hypergradient="joint")
    s = world.s.clone().requires_grad_()
    expected = torch.autograd.grad(world.loss(world.weights, world.batches[0], s, "total"), s)[0]
    logits = world.s.clone()
    Stepper(world.network, logits, world.config).take(world.batches[0], lambda: None)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "changes",
    [
        {"hypergradient": "exact"},
        {"hypergradient": "first_order", "meta_position": "before"},
        {"hypergradient": "finite_difference", "trial_step": "optimiser"},
        {"hypergradient": "joint"},
        {"hypergradient": "lookahead"},
        {"hypergradient": "lookahead", "outer_loss": "total"},
    ],
)
def test_every_third_step_moves_the_mask_and_the_others_are_those_of_a_frozen_one(changes):
    """Six steps, put together from steps without a mask's move and steps with one."""
    settings = {"momentum": 0.8, "mask_learning_rate": 3.0, **changes}
    world = World(4, **settings, meta_every=3)
    other, logits, expected = copy.deepcopy(world.network), world.s.clone(), world.s.clone()
    stepper = Stepper(world.network, logits, world.config)
    every = Stepper(other, expected, replace(world.config, meta_every=1))
    frozen = Stepper(other, expected, replace(world.config, meta_every=1, hypergradient="none"))
    judged = settings["hypergradient"] == "lookahead"
    for step in range(6):
        views = world.batches[step % len(world.batches)]
        before = logits.clone()
        record = stepper.take(views, lambda: None, step=step)
        moves = step % 3 == 2
        unrolled = moves or (judged and step % 3 == 1)
        reference, last = (every, frozen) if unrolled else (frozen, every)
        reference.optimiser.load_state_dict(copy.deepcopy(last.optimiser.state_dict()))
        if not moves:
            every._taken = None
        reference.take(views, lambda: None)
        last.optimiser.load_state_dict(copy.deepcopy(reference.optimiser.state_dict()))
        assert bool((logits != before).any()) == moves
        assert ("direct_norm" in record) == (step >= 2)  # that of the last move
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)
        for name, value in other.state_dict().items():
            torch.testing.assert_close(world.network.state_dict()[name], value, rtol=0, atol=0)


def test_none_leaves_the_mask_where_it_is():
    world = World(0, hypergradient="none")
    logits = world.s.clone()
    record = Stepper(world.network, logits, world.config).take(world.batches[0], lambda: None)
    torch.testing.assert_close(logits, world.s, rtol=0, atol=0)
    assert "direct_norm" not in record


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take(nesterov):
    world = World(
        1, trial_step="optimiser", hypergradient="first_order", nesterov=nesterov,
        momentum=0.8, weight_decay=0.1, learning_rate=0.2, trial_loss="total",
    )  # fmt: skip
    logits = world.s.clone()
    stepper = Stepper(world.network, logits, world.config)
    stepper.take(world.batches[0], lambda: None)
    network, state = copy.deepcopy(world.network), copy.deepcopy(stepper.optimiser.state_dict())
    s = world.s.clone().requires_grad_()
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    optimiser.load_state_dict(state)
    world.network = network
    world.loss(dict(network.named_parameters()), world.batches[0], s, "total").backward()
    optimiser.step()
    loss = world.loss(dict(network.named_parameters()), world.batches[0], s, "contrastive")
    expected = torch.autograd.grad(loss, s)[0]
    torch.testing.assert_close(logits.grad, expected, rtol=1e-10, atol=1e-14)


def test_clipping_bounds_the_gradient_and_says_how_long_it_was():
    world = World(2, hypergradient="none", clip_norm=1e-3, momentum=0.0, weight_decay=0.0)
    before = {name: w.clone() for name, w in world.weights.items()}
    stepper = Stepper(world.network, world.s, world.config)
    stepper.set_rates(1 / world.config.learning_rate)
    record = stepper.take(world.batches[0], lambda: None)
    moved = torch.cat([(before[name] - w).flatten() for name, w in world.weights.items()])
    assert record["gradient_norm"] > 1e-3
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-5)


def test_gradient_share_is_the_mean_absolute_gradient_of_each_dimension():
    world = World(3)
    features = [
        h.detach().requires_grad_()
        for h in world.objective.forward(world.weights, world.batches[0]).features
    ]
    loss = world.objective.loss(world.weights, features, world.s, "contrastive")
    expected = torch.cat(torch.autograd.grad(loss, features)).abs().mean(0)
    stepper = Stepper(world.network, world.s, world.config)
    record = stepper.take(world.batches[0], lambda: None, traced=True)
    torch.testing.assert_close(record["gradient_share"], expected)


def test_a_record_holds_both_scaled_rates_and_the_spread_of_the_weights():
    world = World(3, hypergradient="none", learning_rate=0.2, mask_learning_rate=0.5)
    stepper = Stepper(world.network, world.s, world.config)
    stepper.set_rates(0.25)
    record = stepper.take(world.batches[0], lambda: None)
    assert (record["learning_rate"], record["mask_learning_rate"]) == (0.05, 0.125)
    weights = world.s.sigmoid().numpy()
    assert record["mask_std"] == pytest.approx(weights.std())
    assert record["mask_mean"] == pytest.approx(weights.mean())


def test_a_loss_that_is_not_finite_moves_nothing():
    world = World(4)
    before = {name: w.clone() for name, w in world.weights.items()}
    views = tuple(view * float("nan") for view in world.batches[0])
    with pytest.raises(FloatingPointError, match="loss must stay finite; got nan"):
        Stepper(world.network, world.s, world.config).take(views, lambda: None)
    for name, weight in world.weights.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("position", ["after", "before"])
def test_bfloat16_stays_close_to_float32(position):
    config = replace(TrainConfig.medium(), batch_size=128, n_dimensions=32, learning_rate=0.1)
    pixels = torch.from_numpy(digits("train").images[:128]).float() / 255
    generator = torch.Generator().manual_seed(0)
    views = tuple(pixels + 0.3 * torch.rand(pixels.shape, generator=generator) for _ in range(2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config, 1).train()
    logits = torch.zeros(32)
    warm = Stepper(network, logits, config)
    for _ in range(15):  # at the start a step changes everything, and every rounding with it
        warm.take(views, lambda: None)
    found = {}
    for precision in ("float32", "bfloat16"):
        settings = replace(config, precision=precision, meta_position=position, learning_rate=0.01)
        s = logits.clone()
        Stepper(copy.deepcopy(network), s, settings).take(views, lambda: None)
        found[precision] = s.grad
    error = (found["float32"] - found["bfloat16"]).norm() / found["float32"].norm()
    assert 0 < error < 0.2
    assert torch.nn.functional.cosine_similarity(*found.values(), dim=0) > 0.98
