"""Every mode against numerical differentiation, double backward, and the other modes."""

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from dimlab.training._operations import without_running_statistics
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import build_encoder, build_projector, mask_weights, vit
from dimlab.training.hypergradient import (
    Hypergradient,
    Trial,
    exact_hypergradient,
    finite_difference_hypergradient,
    first_order_hypergradient,
)
from dimlab.training.losses import barlow_twins_loss, nt_xent_loss, vicreg_loss
from dimlab.training.objective import Objective
from dimlab.training.step import Stepper

CONFIG = TrainConfig(
    batch_size=7,
    temperature=0.5,
    contrastive_weight=0.7,
    redundancy_weight=0.3,
    precision="float64",
)
LEARNING_RATE = 0.3


def smooth_network(seed, relu=False):
    """Encoder and projectors in float64, BatchNorm everywhere; smooth unless relu."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bend = nn.ReLU if relu else nn.Softplus
        encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), bend(),
            nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU() if relu else nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        head = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), bend(), nn.Linear(8, 5), nn.BatchNorm1d(5)
        )
        other = nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), bend(), nn.Linear(9, 4), nn.BatchNorm1d(4)
        )
    parts = {"encoder": encoder, "contrastive": head, "redundancy": other}
    return nn.ModuleDict(parts).double().train()


class World:
    """A network, a mask and two batches; its losses written again, in plain autograd."""

    def __init__(self, seed=0, relu=False, encoder=None, **changes):
        self.config = replace(CONFIG, **changes)
        self.network = smooth_network(seed, relu)
        if encoder is not None:
            self.network["encoder"] = encoder
        generator = torch.Generator().manual_seed(seed)
        self.s = torch.randn(6, dtype=torch.float64, generator=generator)
        self.batches = [
            tuple(
                torch.randn(7, 1, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2)
            )
            for _ in range(4)
        ]
        self.objective = Objective(self.network, self.config)

    @property
    def weights(self):
        return {name: p.detach() for name, p in self.network.named_parameters()}

    def loss(self, weights, views, s, which):
        """The definition, independently of `Objective`."""
        config = self.config

        def run(part, x):
            mine = {
                name.removeprefix(part + "."): w
                for name, w in weights.items()
                if name.startswith(part)
            }
            with without_running_statistics(self.network[part]):
                return functional_call(self.network[part], mine, (x,))

        plain = [run("encoder", view) for view in views]
        masked = [h * mask_weights(s, config.mask) for h in plain]
        z = [run("contrastive", h) for h in masked]
        contrastive = nt_xent_loss(*z, temperature=config.temperature)
        if which == "contrastive":
            return contrastive
        y = [run("redundancy", h) for h in (masked if config.masked_heads == "both" else plain)]
        barlow = barlow_twins_loss(
            *y,
            off_diagonal_weight=config.off_diagonal_weight,
            unbiased=config.barlow_statistics == "unbiased",
        )
        return config.redundancy_weight * barlow + config.contrastive_weight * contrastive

    def outer_loss(self, s, inner, outer, drift=None, held_out=False, create_graph=False):
        """L_out(theta'(s), s), by plain autograd."""
        weights = {name: w.detach().requires_grad_() for name, w in self.weights.items()}
        found = torch.autograd.grad(
            self.loss(weights, self.batches[0], s, inner), list(weights.values()),
            create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
        moved = {
            name: w if g is None else w - LEARNING_RATE * (g + (drift[name] if drift else 0))
            for (name, w), g in zip(weights.items(), found, strict=True)
        }
        return self.loss(moved, self.batches[held_out], s, outer)

    def trial(self, inner="contrastive", outer="contrastive", drift=None, held_out=False, **more):
        return Trial(
            self.objective, self.weights, self.s, self.batches[0], self.batches[held_out],
            LEARNING_RATE, inner_loss=inner, outer_loss=outer, drift=drift, **more,
        )  # fmt: skip


def numerical_gradient(function, s, step=1e-5):
    gradient = torch.zeros_like(s)
    for d in range(len(s)):
        bump = torch.zeros_like(s)
        bump[d] = step
        gradient[d] = (function(s + bump) - function(s - bump)).detach() / (2 * step)
    return gradient


LOSSES = list(product(("contrastive", "total"), repeat=2))


@pytest.mark.parametrize(("inner", "outer"), LOSSES)
@pytest.mark.parametrize("variant", [{}, {"mask": "raw"}, {"masked_heads": "contrastive"}])
def test_exact_equals_numerical_differentiation(inner, outer, variant):
    world = World(0, **variant)
    exact = exact_hypergradient(world.trial(inner, outer))
    numerical = numerical_gradient(lambda s: world.outer_loss(s, inner, outer), world.s)
    # there is something to get wrong
    assert exact.second_order.norm() > 1e-3 * exact.direct.norm()
    torch.testing.assert_close(exact.total, numerical, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_exact_with_a_held_out_batch_and_a_drift(seed):
    world = World(seed, barlow_statistics="unbiased")
    generator = torch.Generator().manual_seed(seed)
    drift = {
        name: 0.1 * torch.randn(w.shape, dtype=w.dtype, generator=generator)
        for name, w in world.weights.items()
    }
    exact = exact_hypergradient(world.trial("total", "total", drift, True))
    numerical = numerical_gradient(
        lambda s: world.outer_loss(s, "total", "total", drift, True), world.s
    )
    torch.testing.assert_close(exact.total, numerical, rtol=1e-6, atol=1e-9)
    # negative control: neither the drift nor the other batch is ignored
    for other in (world.trial("total", "total", None, True), world.trial("total", "total", drift)):
        assert (exact_hypergradient(other).total - numerical).norm() > 1e-3 * numerical.norm()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("inner", "outer"), LOSSES)
def test_exact_equals_double_backward(inner, outer, relu):
    world = World(1, relu)
    s = world.s.clone().requires_grad_()
    reference = torch.autograd.grad(world.outer_loss(s, inner, outer, create_graph=True), s)[0]
    exact = exact_hypergradient(world.trial(inner, outer))
    torch.testing.assert_close(exact.total, reference, rtol=1e-9, atol=1e-12)


def a_vit():
    """A small vision transformer, smooth, of the D = 6 that these worlds have."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        encoder = nn.Sequential(vit(8, 2, 1, 4, depth=2), nn.Linear(8, 6))
        for weight in encoder.parameters():  # attention that looks at some patches more
            weight.data += 0.3 * torch.randn_like(weight)
    return encoder.double().train()


@pytest.mark.parametrize(("inner", "outer"), LOSSES[1:3])
def test_exact_through_a_vit_equals_double_backward(inner, outer):
    world = World(1, encoder=a_vit())
    s = world.s.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels are differentiable once
        loss = world.outer_loss(s, inner, outer, create_graph=True)
        reference = torch.autograd.grad(loss, s)[0]
    exact = exact_hypergradient(world.trial(inner, outer))
    assert exact.second_order.norm() > 1e-3 * exact.direct.norm()
    torch.testing.assert_close(exact.total, reference, rtol=1e-9, atol=1e-12)


def test_lookahead_through_a_vit_is_exact_from_the_step_that_was_taken():
    # of plain SGD the step that was taken is the trial step of the total loss
    world = World(
        4, encoder=a_vit(), hypergradient="lookahead", learning_rate=LEARNING_RATE, momentum=0.0,
        weight_decay=0.0,
    )  # fmt: skip
    first = exact_hypergradient(world.trial("total", "contrastive", held_out=True))
    logits = world.s.clone()
    stepper = Stepper(world.network, logits, world.config)
    stepper.set_rates(1.0)
    for step in range(2):
        stepper.take(world.batches[step], lambda: None, step=step)
    torch.testing.assert_close(logits.grad, first.total, rtol=1e-9, atol=1e-12)


def test_exact_equals_double_backward_for_a_loss_of_ones_own():
    world = World(2, contrastive=vicreg_loss)
    s = world.s.clone().requires_grad_()
    weights = {name: w.requires_grad_() for name, w in world.weights.items()}
    views = world.batches[0]

    def loss(w):
        features = world.objective.forward(w, views).features
        return world.objective.loss(w, features, s, "contrastive")

    live = {name: w for name, w in weights.items() if not name.startswith("redundancy")}
    gradient = torch.autograd.grad(loss(weights), list(live.values()), create_graph=True)
    moved = weights | {
        name: w - LEARNING_RATE * g for (name, w), g in zip(live.items(), gradient, strict=True)
    }
    reference = torch.autograd.grad(loss(moved), s)[0]
    exact = exact_hypergradient(world.trial())
    torch.testing.assert_close(exact.total, reference, rtol=1e-9, atol=1e-12)


def test_finite_difference_converges_to_exact_with_the_square_of_the_radius():
    world = World(0)
    exact = exact_hypergradient(world.trial())
    errors = []
    for radius in (4e-2, 2e-2, 1e-2):
        found = finite_difference_hypergradient(world.trial(), radius=radius)
        torch.testing.assert_close(found.direct, exact.direct)
        errors.append((found.second_order - exact.second_order).norm().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)
    close = finite_difference_hypergradient(world.trial(), radius=1e-4)
    torch.testing.assert_close(close.second_order, exact.second_order, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("inner", "outer"), LOSSES[1:3])
def test_the_finite_difference_is_of_the_inner_loss(inner, outer):
    trial = World(2).trial(inner, outer)
    exact = exact_hypergradient(trial).second_order
    found = finite_difference_hypergradient(trial, radius=1e-3).second_order
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=1e-2 * exact.abs().max().item())


def test_first_order_is_the_direct_part_of_exact():
    world = World(0)
    exact = exact_hypergradient(world.trial("total"))
    first = first_order_hypergradient(world.trial("total"))
    torch.testing.assert_close(first.total, exact.direct, rtol=0, atol=0)
    assert (first.total - exact.total).norm() > 1e-3 * exact.total.norm()


def test_a_pass_and_a_gradient_at_hand_change_nothing():
    world = World(3)
    weights = {name: w.requires_grad_() for name, w in world.weights.items()}
    passed = world.objective.forward(weights, world.batches[0])
    loss = world.objective.loss(weights, passed.features, world.s, "contrastive")
    gradient = world.objective.weight_gradients(loss, weights)
    shared = exact_hypergradient(world.trial(passed=passed, gradient=gradient))
    alone = exact_hypergradient(world.trial())
    torch.testing.assert_close(shared.total, alone.total, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("outer", ["contrastive", "total"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_lookahead_equals_numerical_differentiation_through_the_real_step(outer, nesterov):
    world = World(
        4, hypergradient="lookahead", outer_loss=outer, nesterov=nesterov, momentum=0.8,
        weight_decay=0.02, learning_rate=0.2, mask_learning_rate=0.0,
    )  # fmt: skip
    config, batches = world.config, world.batches
    logits = world.s.clone()
    stepper = Stepper(world.network, logits, config)
    for step in range(2):  # two steps fill the momentum buffer
        stepper.take(batches[step], lambda: None)
    network, state = copy.deepcopy(world.network), copy.deepcopy(stepper.optimiser.state_dict())
    stepper.take(batches[2], lambda: None)  # the step that is unrolled
    stepper.take(batches[3], lambda: None)  # and the batch that judges it

    def outer_loss(s):
        fresh = copy.deepcopy(network)
        optimiser = torch.optim.SGD(fresh.parameters(), lr=1.0)
        optimiser.load_state_dict(copy.deepcopy(state))
        world.network, parameters = fresh, dict(fresh.named_parameters())
        world.loss(parameters, batches[2], s, "total").backward()
        optimiser.step()
        return world.loss(parameters, batches[3], s, outer)

    numerical = numerical_gradient(outer_loss, world.s)
    torch.testing.assert_close(logits.grad, numerical, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(logits, world.s, rtol=0, atol=0)  # the mask rate is 0


@pytest.mark.parametrize("outer", ["contrastive", "total"])
def test_lookahead_judges_a_step_at_the_rate_and_the_mask_that_it_had(outer):
    """Both move between the step and the batch that judges it, as in every run."""
    world = World(
        4, hypergradient="lookahead", outer_loss=outer, momentum=0.8, learning_rate=0.2,
        mask_learning_rate=3.0,
    )  # fmt: skip
    batches, logits = world.batches, world.s.clone()
    stepper = Stepper(world.network, logits, world.config)
    for step in range(2):
        stepper.take(batches[step], lambda: None)
    network, state = copy.deepcopy(world.network), copy.deepcopy(stepper.optimiser.state_dict())
    stepper.set_rates(0.7)
    s_taken = logits.clone()
    stepper.take(batches[2], lambda: None)
    stepper.set_rates(0.3)
    s_judged = logits.clone()
    assert (s_judged - s_taken).abs().min() > 1e-3
    stepper.take(batches[3], lambda: None)

    def outer_loss(move):
        fresh = copy.deepcopy(network)
        optimiser = torch.optim.SGD(fresh.parameters(), lr=1.0)
        optimiser.load_state_dict(copy.deepcopy(state))
        optimiser.param_groups[0]["lr"] = 0.7 * 0.2
        world.network, parameters = fresh, dict(fresh.named_parameters())
        world.loss(parameters, batches[2], s_taken + move, "total").backward()
        optimiser.step()
        return world.loss(parameters, batches[3], s_judged + move, outer)

    numerical = numerical_gradient(outer_loss, torch.zeros_like(logits))
    torch.testing.assert_close(logits.grad, numerical, rtol=1e-6, atol=1e-9)


def test_lookahead_does_not_move_the_mask_before_a_step_can_be_judged():
    world = World(5, hypergradient="lookahead")
    logits = world.s.clone()
    stepper = Stepper(world.network, logits, world.config)
    record = stepper.take(world.batches[0], lambda: None)
    assert "direct_norm" not in record
    torch.testing.assert_close(logits, world.s, rtol=0, atol=0)
    record = stepper.take(world.batches[1], lambda: None)
    assert record["direct_norm"] > 0
    assert (logits - world.s).abs().max() > 0


def test_lookahead_refuses_a_step_that_clipping_changed():
    world = World(5, hypergradient="lookahead", clip_norm=1e-6)
    stepper = Stepper(world.network, world.s, world.config)
    with pytest.raises(ValueError, match="must unroll steps that clipping leaves alone; got a"):
        stepper.take(world.batches[0], lambda: None)


def test_a_raw_mask_has_no_gradient_along_itself():
    # the projector starts Linear -> BatchNorm: the loss cannot see a common scale (Euler)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder("convnet", in_channels=1, n_dimensions=8).double()
        head = build_projector((8, 16, 4)).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 1, 8, 8, dtype=torch.float64, generator=generator)
    mask = torch.rand(8, dtype=torch.float64, generator=generator).requires_grad_()
    z = head(encoder(images) * mask)
    loss = nt_xent_loss(z[:8], z[8:], temperature=0.5)
    gradient = torch.autograd.grad(loss, mask)[0]
    along = (gradient @ mask) / (gradient.norm() * mask.norm())
    assert gradient.norm() > 1e-6
    assert abs(along.item()) < 1e-2  # up to BatchNorm's eps


@pytest.mark.parametrize(
    "mode",
    [
        exact_hypergradient,
        first_order_hypergradient,
        lambda trial: finite_difference_hypergradient(trial, radius=0.01),
    ],
)
def test_virtual_forwards_leave_network_and_statistics_alone(mode):
    world = World(3)
    before = copy.deepcopy(world.network.state_dict())
    mode(world.trial("total", "total"))
    for name, value in world.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    # negative control: a forward that is meant to does move them
    mode(world.trial("total", "total", moves_statistics=True))
    after = world.network.state_dict()
    for name in ("encoder.1.running_mean", "contrastive.1.running_var", "redundancy.1.running_var"):
        assert not torch.equal(after[name], before[name])
    assert after["encoder.1.num_batches_tracked"] == before["encoder.1.num_batches_tracked"] + 2


def test_statistics_are_tracked_again_after_an_error():
    norm = nn.BatchNorm1d(3)

    def fail():
        with without_running_statistics(norm):
            assert not norm.track_running_stats
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert norm.track_running_stats


def test_the_cosine_of_the_two_parts():
    parts = torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])
    assert Hypergradient(*parts).cosine == pytest.approx(0.5**0.5)
    assert Hypergradient(parts[0], torch.zeros(2)).cosine == 0.0


def test_a_negative_rate_or_radius_is_refused():
    world = World()
    with pytest.raises(ValueError, match=r"learning_rate must be >= 0; got -1"):
        replace(world.trial(), learning_rate=-1)
    with pytest.raises(ValueError, match=r"radius must be > 0; got 0"):
        finite_difference_hypergradient(world.trial(), radius=0)
