"""The hypergradient against numerical differentiation and against double backward."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from dimlab.training.encoders import build_encoder, build_projector
from dimlab.training.hypergradient import exact_hypergradient, without_running_statistics
from dimlab.training.losses import nt_xent_loss

LEARNING_RATE = 0.3


class World:
    """A small network in float64, BatchNorm included; smooth unless a ReLU encoder is asked for."""

    def __init__(self, seed=0, encoder=None):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = encoder or nn.Sequential(
                nn.Conv2d(1, 4, 3, 2, 1),
                nn.BatchNorm2d(4),
                nn.Softplus(),
                nn.Conv2d(4, 6, 3, 2, 1),
                nn.BatchNorm2d(6),
                nn.Tanh(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            self.head = nn.Sequential(
                nn.Linear(6, 8),
                nn.BatchNorm1d(8),
                nn.Softplus(),
                nn.Linear(8, 5),
                nn.BatchNorm1d(5),
            )
            self.encoder.double().train()
            self.head.double().train()
            self.s = torch.randn(6, dtype=torch.float64)
            self.views = tuple(torch.randn(7, 1, 8, 8, dtype=torch.float64) for _ in range(2))

    def encode(self, weights, images):
        return functional_call(self.encoder, weights, (images,))

    def head_loss(self, weights, h_a, h_b, s):
        z_a, z_b = (functional_call(self.head, weights, (h * s.sigmoid(),)) for h in (h_a, h_b))
        return nt_xent_loss(z_a, z_b, temperature=0.5)

    def loss(self, encoder, head, s):
        return self.head_loss(
            head, self.encode(encoder, self.views[0]), self.encode(encoder, self.views[1]), s
        )

    @property
    def weights(self):
        return dict(self.encoder.named_parameters()), dict(self.head.named_parameters())

    def outer_loss(self, s, create_graph=False):
        """L(theta - lr grad L(theta, s), s), the definition, by plain autograd."""
        encoder, head = self.weights
        both = [*encoder.values(), *head.values()]
        gradient = torch.autograd.grad(self.loss(encoder, head, s), both, create_graph=create_graph)
        moved = [p - LEARNING_RATE * g for p, g in zip(both, gradient, strict=True)]
        return self.loss(
            dict(zip(encoder, moved, strict=False)),
            dict(zip(head, moved[len(encoder) :], strict=True)),
            s,
        )

    def hypergradient(self, learning_rate=LEARNING_RATE):
        with without_running_statistics(self.encoder, self.head):
            return exact_hypergradient(
                self.encode, self.head_loss, *self.weights, self.s, self.views,
                learning_rate=learning_rate,
            )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_hypergradient_equals_numerical_differentiation(seed):
    world, step = World(seed), 1e-5
    numerical = torch.zeros(6, dtype=torch.float64)
    for d in range(6):
        bump = torch.zeros(6, dtype=torch.float64)
        bump[d] = step
        up, down = world.outer_loss(world.s + bump), world.outer_loss(world.s - bump)
        numerical[d] = (up - down).detach() / (2 * step)
    exact = world.hypergradient()
    assert exact.second_order.norm() > 1e-3 * exact.direct.norm()  # there is something to get wrong
    torch.testing.assert_close(exact.total, numerical, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("relu", [False, True])
def test_hypergradient_equals_double_backward(relu):
    encoder = None
    if relu:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            encoder = nn.Sequential(build_encoder("convnet", in_channels=1, n_dimensions=8))
            encoder.append(nn.Linear(8, 6))
    world = World(1, encoder)
    s = world.s.clone().requires_grad_()
    reference = torch.autograd.grad(world.outer_loss(s, create_graph=True), s)[0]
    torch.testing.assert_close(world.hypergradient().total, reference, rtol=1e-9, atol=1e-12)


def test_without_a_trial_step_only_the_direct_part_is_left():
    world = World(2)
    s = world.s.clone().requires_grad_()
    expected = torch.autograd.grad(world.loss(*world.weights, s), s)[0]
    exact = world.hypergradient(learning_rate=0.0)
    torch.testing.assert_close(exact.direct, expected)
    assert exact.second_order.abs().max().item() == 0.0


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


def test_virtual_forwards_leave_network_and_statistics_alone():
    world = World(3)
    before = {
        name: value.clone()
        for part in (world.encoder, world.head)
        for name, value in part.state_dict().items()
    }
    world.hypergradient()
    after = {
        name: value
        for part in (world.encoder, world.head)
        for name, value in part.state_dict().items()
    }
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    norms = [m for m in world.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)
    # negative control: an ordinary forward does move them
    world.encoder(world.views[0])
    assert not torch.equal(world.encoder.state_dict()["1.running_mean"], before["1.running_mean"])


def test_statistics_are_tracked_again_after_an_error():
    norm = nn.BatchNorm1d(3)

    def fail():
        with without_running_statistics(norm):
            assert not norm.track_running_stats
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert norm.track_running_stats


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate must be >= 0; got -1"):
        World().hypergradient(learning_rate=-1)
