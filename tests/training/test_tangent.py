"""The replayed tangent against torch's forward mode, and the forward pass against the module's."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from dimlab.training._operations import without_running_statistics
from dimlab.training.encoders import build_encoder, vit
from dimlab.training.tangent import TangentProgram


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 5)
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        y = self.norm(self.layer(x.flatten(1)[:, :16]))
        return y if y.sum() > -1e9 else -y


class Mixed(nn.Module):
    """Layers with and without a rule, a shared one, a residual sum, perhaps a bare parameter."""

    def __init__(self, bare=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, affine=False, momentum=None)
        self.again = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(1.5)) if bare else 1.5

    def forward(self, x):
        x = torch.nn.functional.softplus(self.norm(self.conv(x)))
        x = x + self.again(torch.relu(self.again(x))) * self.scale
        return self.head(torch.tanh(self.pool(x)).mean((2, 3)))


class Tokens(nn.Module):
    """What others' ViTs are made of: a class token, learned positions, shapes, a split of three."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.proj = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.register_buffer("scale", torch.tensor(0.5))
        self.qkv, self.dropout = nn.Linear(8, 24), nn.Dropout(dropout)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        n, length, width = x.shape
        x = torch.cat([self.token.expand(n, -1, -1), x], 1)
        q, k, v = self.qkv(x).reshape(n, length + 1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.dropout(x + y.reshape(n, length + 1, width) * self.scale)[:, 0]


class Layers(nn.Module):
    """A ViT of torch's own layers, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True)

    def forward(self, x):
        return self.layer(self.proj(x).flatten(2).transpose(1, 2)).view(len(x), -1, 8).mean(1)


def small(name, stem="cifar"):
    return build_encoder(name, in_channels=1, stem=stem, n_dimensions=8)


MODULES = {
    "convnet": lambda: small("convnet"),
    "resnet18": lambda: small("resnet18"),
    "resnet50, imagenet stem": lambda: small("resnet50", "imagenet"),
    "untraceable": Untraceable,
    "mixed": Mixed,
    "bare parameter": lambda: Mixed(bare=True),
    "vit": lambda: vit(8, 2, 1, 4, depth=2),
    "tokens": Tokens,
    "layers": Layers,
    "smooth": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
}  # fmt: skip
HOLISTIC = {"untraceable", "layers"}
WITHOUT_NORM = {"vit", "tokens", "layers"}


def world(name, dtype=torch.float64, n_samples=5, side=12):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MODULES[name]().to(dtype).train()
        images = torch.randn(n_samples, 1, side, side, dtype=dtype)
        direction = {n: torch.randn_like(w) for n, w in module.named_parameters()}
    weights = {n: w.detach().clone().requires_grad_() for n, w in module.named_parameters()}
    return module, images, weights, direction


def reference(module, images, weights, direction):
    def features(w):
        return functional_call(module, w, (images,))

    plain = {name: weight.detach() for name, weight in weights.items()}
    # the fused kernels of attention have no forward mode
    with without_running_statistics(module), sdpa_kernel(SDPBackend.MATH):
        return jvp(features, (plain,), (direction,))[1]


@pytest.mark.parametrize("name", MODULES)
def test_tangent_equals_torchs_forward_mode(name):
    module, images, weights, direction = world(name)
    program = TangentProgram(module)
    assert (len(program._operations) == 1) == (name in HOLISTIC)
    expected = reference(module, images, weights, direction)
    _, tape = program.run(weights, images)
    for _ in range(2):  # a tape can be replayed
        torch.testing.assert_close(program.tangent(tape, direction), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["convnet", "smooth", "mixed"])
def test_tangent_equals_numerical_differentiation(name):
    module, images, weights, direction = world(name)
    program, step = TangentProgram(module), 1e-6
    sides = [
        program.run({n: w + sign * step * direction[n] for n, w in weights.items()}, images)[0]
        for sign in (1, -1)
    ]
    numerical = (sides[0] - sides[1]).detach() / (2 * step)
    tape = program.run(weights, images)[1]
    torch.testing.assert_close(program.tangent(tape, direction), numerical, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["convnet", "mixed"])
def test_directions_that_are_missing_are_zero(name):
    module, images, weights, direction = world(name)
    program = TangentProgram(module)
    tape = program.run(weights, images)[1]
    total = 0
    for key, value in direction.items():
        zeros = {n: torch.zeros_like(d) for n, d in direction.items()}
        one = program.tangent(tape, {key: value})
        torch.testing.assert_close(one, reference(module, images, weights, zeros | {key: value}))
        total = total + one
    torch.testing.assert_close(total, program.tangent(tape, direction))  # linear in the direction


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("update", [False, True])
def test_run_is_the_modules_own_forward_and_backward_bit_for_bit(name, update):
    module, images, weights, _ = world(name, torch.float32)
    other = copy.deepcopy(module)
    before = copy.deepcopy(module.state_dict())
    features, _ = TangentProgram(module).run(weights, images, update_statistics=update)
    expected = other(images)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    upstream = torch.linspace(-1, 1, features.numel()).view_as(features)
    ours = torch.autograd.grad(features, list(weights.values()), upstream)
    theirs = torch.autograd.grad(expected, list(other.parameters()), upstream)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0)
    wanted = other.state_dict() if update else before
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, wanted[key], rtol=0, atol=0)
    moved = any(not torch.equal(other.state_dict()[key], before[key]) for key in before)
    assert moved == (name not in WITHOUT_NORM)


def test_what_dropout_drew_is_drawn_again():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Tokens(0.5).double()
        images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
        direction = {n: torch.randn_like(w) for n, w in module.named_parameters()}
        weights = {n: w.detach().requires_grad_() for n, w in module.named_parameters()}
        program, state = TangentProgram(module), torch.get_rng_state()
        features, tape = program.run(weights, images)
        after = torch.get_rng_state()
        found = program.tangent(tape, direction)
        torch.testing.assert_close(torch.get_rng_state(), after, rtol=0, atol=0)
        torch.set_rng_state(state)
        expected = reference(module, images, weights, direction)
    assert (features == 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_tape_whose_weights_have_moved_is_refused():
    module, images, weights, direction = world("convnet")
    program = TangentProgram(module)
    copies = {name: weight.clone() for name, weight in weights.items()}
    tape, of_copies = (program.run(each, images)[1] for each in (weights, copies))
    before = program.tangent(of_copies, direction)
    torch.testing.assert_close(program.tangent(tape, direction), before, rtol=0, atol=0)
    with torch.no_grad():
        next(iter(weights.values())).add_(1.0)
    with pytest.raises(ValueError, match="tape must be replayed before its weights move"):
        program.tangent(tape, direction)
    torch.testing.assert_close(program.tangent(of_copies, direction), before, rtol=0, atol=0)


def test_batch_statistics_are_differentiated():
    # negative control: with the statistics held constant the tangent is another one
    module, images, weights, direction = world("smooth")
    program = TangentProgram(module)
    tape = program.run(weights, images)[1]
    frozen = copy.deepcopy(module)
    frozen(images)
    norm = frozen[1]
    x = module[0](images)
    norm.running_mean.copy_(x.mean((0, 2, 3)).detach())
    norm.running_var.copy_(x.var((0, 2, 3), correction=0).detach())
    held = reference(frozen.eval(), images, weights, direction)
    assert (program.tangent(tape, direction) - held).abs().max() > 1e-3


def test_channels_last_weights_give_channels_last_activations():
    module, images, weights, direction = world("convnet", torch.float32)
    weights = {
        n: w.detach().to(memory_format=torch.channels_last).requires_grad_() if w.ndim == 4 else w
        for n, w in weights.items()
    }
    program = TangentProgram(module)
    tape = program.run(weights, images)[1]
    expected = reference(module, images, weights, direction)
    torch.testing.assert_close(program.tangent(tape, direction), expected, rtol=1e-4, atol=1e-5)
    saved = tape.saved["conv2"][0]
    assert saved.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_autocast_is_close():
    module, images, weights, direction = world("convnet", torch.float32, n_samples=32)
    program = TangentProgram(module)
    expected = program.tangent(program.run(weights, images)[1], direction)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, tape = program.run(weights, images)
        assert tape.saved["conv2"][0].dtype == torch.bfloat16
        assert features.dtype == torch.float32  # their mean over pixels is no longer rounded
        found = program.tangent(tape, direction)
    assert 0 < (found.float() - expected).norm() < 0.05 * expected.norm()


def test_a_tape_that_remembers_nothing_and_a_direction_of_nothing_are_refused():
    module, images, weights, direction = world("convnet")
    program = TangentProgram(module)
    _, empty = program.run(weights, images, remember=False)
    with pytest.raises(ValueError, match="tape must be that of a pass with remember=True"):
        program.tangent(empty, direction)
    _, tape = program.run(weights, images)
    with pytest.raises(ValueError, match="direction must name a parameter of the module; got x"):
        program.tangent(tape, {"x": images})


def test_one_value_per_channel_is_refused():
    module, _, weights, _ = world("smooth")
    with pytest.raises(ValueError, match="batch must have more than one value per channel"):
        TangentProgram(module).run(weights, torch.zeros(1, 1, 2, 2, dtype=torch.float64))
