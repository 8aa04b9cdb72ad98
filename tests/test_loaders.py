"""Any module and any loader: what comes out is the module's own output, whatever its shape."""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dimlab import TrainConfig, encode, encode_loader
from dimlab.datasets import huggingface
from dimlab.images import ImageSet
from dimlab.training.augment import normalised
from dimlab.training.loop import untrained

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"  # beside the checkout
N, D = 6, 4


class Tower(nn.Module):
    """Gives what vision towers give: tokens, a pooled vector, a map."""

    def forward(self, pixels):
        tokens = pixels.flatten(1)[:, : 5 * D].view(-1, 5, D)
        return tokens, tokens[:, 0] * 2


class Output(OrderedDict):
    """As transformers' ModelOutput: a mapping with attributes."""

    __getattr__ = OrderedDict.__getitem__


def output_of(pixels):
    tokens, pooled = Tower()(pixels)
    return Output(last_hidden_state=tokens, pooler_output=pooled)


def as_object(pixels):
    return SimpleNamespace(**output_of(pixels))


@pytest.fixture
def pixels():
    return torch.rand(N, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def check(split, expected):
    np.testing.assert_allclose(split.features, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("module", [output_of, as_object])
def test_a_part_of_the_output_is_selected_by_name(module, pixels):
    tokens, pooled = Tower()(pixels)
    check(encode_loader(module, [pixels], select="pooler_output"), pooled)
    check(encode_loader(module, [pixels], select=lambda found: found.pooler_output), pooled)
    split = encode_loader(module, [pixels], select="last_hidden_state", pool="cls")
    check(split, tokens[:, 0])
    with pytest.raises(ValueError, match=r"select must name .* 'pooler_output'; got 'nothing'"):
        encode_loader(module, [pixels], select="nothing")


def test_tuples_are_selected_by_place_and_a_lone_part_needs_no_name(pixels):
    tokens, pooled = Tower()(pixels)
    check(encode_loader(Tower(), [pixels], select=1), pooled)
    check(encode_loader(Tower(), [pixels], select=0, pool="patches"), tokens[:, 1:].mean(1))
    check(encode_loader(lambda batch: {"feats": pooled}, [pixels]), pooled)
    check(encode_loader(lambda batch: (pooled,), [pixels]), pooled)


def test_maps_and_tokens_are_pooled_as_asked(pixels):
    tokens, _ = Tower()(pixels)
    check(encode_loader(nn.Identity(), [pixels], pool="mean"), pixels.mean((2, 3)))
    last = pixels.permute(0, 2, 3, 1)
    check(encode_loader(nn.Identity(), [last], pool="mean-last"), pixels.mean((2, 3)))
    check(encode_loader(lambda batch: tokens, [pixels], pool="mean"), tokens.mean(1))
    one = pixels[:, :, :1, :1]
    check(encode_loader(nn.Identity(), [one]), one.flatten(1))
    with pytest.raises(ValueError, match="pool must be one of cls, mean, patches"):
        encode_loader(nn.Identity(), [pixels], pool="max")


def proposed(error):
    """The argument that a message proposes, evaluated as a reader would type it."""
    name, text = re.search(r"Pass (pool|select)=(.*?) to encode_loader", str(error)).groups()
    return name, eval(text, {"torch": torch})


@pytest.mark.parametrize(
    "module",
    [
        Tower(),
        output_of,
        nn.Identity(),
        lambda batch: batch.permute(0, 2, 3, 1),
        lambda batch: batch.flatten(2).mT,
        lambda batch: batch.flatten(2).permute(1, 0, 2),  # tokens (T, B, D)
        lambda batch: batch[..., None],
        lambda batch: batch.flatten(1).mean(1),
        lambda batch: list(batch.flatten(1)),
        lambda batch: ((batch, batch), {"pooled": batch.flatten(1)}),
        lambda batch: {"towers": {"text": batch[:, 0], "image": batch.flatten(1)}},
    ],
)
def test_what_an_error_proposes_works(module, pixels):
    """Each remedy in turn, until there are features: none may fail in another way."""
    ways = {}
    for _ in range(3):
        try:
            split = encode_loader(module, [pixels], **ways)
            break
        except ValueError as error:
            name, value = proposed(error)
            assert ways.get(name) != value
            ways[name] = value
    assert ways
    assert split.features.shape[0] == N
    assert split.features.ndim == 2


def test_a_lone_last_sample_that_is_squeezed_is_reshaped_as_proposed(pixels):
    def squeezed(batch):
        return batch.flatten(1).squeeze()

    with pytest.raises(ValueError, match=r"got \(48,\)\. Pass select=lambda") as caught:
        encode_loader(squeezed, [pixels, pixels[:1]])
    _, select = proposed(caught.value)
    split = encode_loader(squeezed, [pixels, pixels[:1]], select=select)
    np.testing.assert_array_equal(split.features[N], split.features[0])


@pytest.mark.parametrize(
    ("module", "ways", "sentence"),
    [
        (lambda batch: None, {}, r"got NoneType with no tensors\.$"),
        (lambda batch: batch.flatten(1).repeat(2, 1), {}, r"one row a sample.* \(12, 48\) for 6"),
        (lambda batch: torch.fft.fft(batch.flatten(1)), {}, "must give real features; got torch.c"),
        (nn.Flatten(), {"select": 0}, "select must be left out, or be a function, .* got 0"),
        (lambda batch: batch.flatten(1)[:, None], {"pool": "patches"}, r"for pool='patches'"),
        ("resnet18", {}, "module must be something to call; got str"),
    ],
)
def test_outputs_that_are_no_features_are_refused(module, ways, sentence, pixels):
    with pytest.raises(ValueError, match=sentence):
        encode_loader(module, [pixels], **ways)


def test_parts_of_parts_and_arrays(pixels):
    def nested(batch):
        return {"image": {"pooled": batch.flatten(1)}, "states": [batch, batch * 2]}

    check(encode_loader(nested, [pixels], select="image.pooled"), pixels.flatten(1))
    check(encode_loader(nested, [pixels], select="states.1", pool="mean"), 2 * pixels.mean((2, 3)))
    check(encode_loader(lambda batch: batch.flatten(1).numpy(), [pixels]), pixels.flatten(1))


def test_a_map_with_channels_last_is_not_taken_for_one_with_channels_first(pixels):
    last = pixels.permute(0, 2, 3, 1)  # (6, 4, 4, 3)
    with pytest.raises(ValueError, match=r"got \(6, 4, 4, 3\) for pool='mean'.*pool='mean-last'"):
        encode_loader(nn.Identity(), [last], pool="mean")


@pytest.mark.parametrize("names", [("img", "label"), ("pixel_values", "labels"), ("image", "y")])
def test_mappings_with_the_usual_keys(names, pixels):
    batch = dict(zip(names, (pixels, torch.arange(N)), strict=True)) | {"file": ["a"] * N}
    split = encode_loader(nn.Flatten(), [batch])
    check(split, pixels.flatten(1))
    assert split.labels.tolist() == list(range(N))
    assert encode_loader(nn.Flatten(), [{"img": pixels, "fine_label": [1] * N}]).labels[0] == 1


def test_keys_that_nobody_knows_are_named_and_the_remedy_works(pixels):
    batch = {"photo": pixels, "animal": torch.arange(N)}
    with pytest.raises(ValueError, match=r"got photo, animal\. Rename one, or yield pairs"):
        encode_loader(nn.Flatten(), [batch])
    pairs = [(each["photo"], each["animal"]) for each in [batch]]
    assert encode_loader(nn.Flatten(), pairs).labels.tolist() == list(range(N))


def test_tuples_of_any_length_and_lists_of_views(pixels):
    labels, flipped = torch.arange(N), pixels.flip(3)
    for batch in ((pixels, labels, torch.ones(N), ["a"] * N), [pixels, labels], (pixels, labels)):
        assert encode_loader(nn.Flatten(), [batch]).views is None
    for batch in (([pixels, flipped], labels, ["a"] * N), [pixels, flipped, labels]):
        split = encode_loader(nn.Flatten(), [batch])
        check(split, pixels.flatten(1))
        np.testing.assert_allclose(split.views[1], flipped.flatten(1).numpy())
        assert split.labels.tolist() == list(range(N))
    assert encode_loader(nn.Flatten(), [(pixels, flipped)]).views.shape == (2, N, 48)
    with pytest.raises(ValueError, match=r"must yield as many views in each batch; got 1 and 2"):
        encode_loader(nn.Flatten(), [(pixels, flipped), pixels])


def test_whole_numbers_are_scaled_and_half_precision_is_remembered(pixels):
    whole = (pixels * 255).round().to(torch.uint8)
    check(encode_loader(nn.Flatten(), [whole]), whole.flatten(1).float() / 255)
    last = whole.permute(0, 2, 3, 1)
    check(encode_loader(nn.Flatten(), [last]), whole.flatten(1).float() / 255)
    check(encode_loader(nn.Flatten(), [(whole.numpy(), [1] * N)]), whole.flatten(1).float() / 255)
    with torch.random.fork_rng(devices=[]):
        half = nn.Linear(48, D).bfloat16()
    split = encode_loader(nn.Sequential(nn.Flatten(), half), [pixels])
    assert (split.precision, split.features.dtype.name) == ("bfloat16", "float32")
    with torch.inference_mode():
        check(split, half(pixels.flatten(1).bfloat16()).float())


def test_labels_are_ids_or_names_and_inputs_without_other_targets_are_encoded(pixels):
    column = encode_loader(nn.Flatten(), [(pixels, torch.arange(N)[:, None])])  # as MedMNIST's
    assert column.labels.tolist() == list(range(N))
    named = encode_loader(nn.Flatten(), [(pixels, ["dog", "cat"] * 3)])
    assert (named.labels.tolist(), named.meta["class_names"]) == ([1, 0] * 3, ["cat", "dog"])
    many = torch.arange(2 * N).view(N, 2) % 3 % 2
    with pytest.raises(ValueError, match=r"got int64 of shape \(6, 2\) .*Leave them out"):
        encode_loader(nn.Flatten(), [(pixels, many)])
    assert encode_loader(nn.Flatten(), (each[0] for each in [(pixels, many)])).labels is None


def test_what_no_loader_yields_is_refused_with_what_works(pixels):
    samples = [(each, row) for row, each in enumerate(pixels)]
    with pytest.raises(ValueError, match=r"Let a loader make batches: torch\.utils\.data\.DataLoa"):
        encode_loader(nn.Flatten(), samples)
    loader = torch.utils.data.DataLoader(samples, batch_size=4, generator=torch.Generator())
    check(encode_loader(nn.Flatten(), loader), pixels.flatten(1))
    for batch in ([torch.arange(N), [pixels, pixels]], (torch.arange(N), pixels, torch.zeros(N))):
        with pytest.raises(ValueError, match=r"\(batch\[1:\] for batch in loader\)"):
            encode_loader(nn.Flatten(), [batch])
        check(encode_loader(nn.Flatten(), (each[1:] for each in [batch])), pixels.flatten(1))
    with pytest.raises(ValueError, match=r"list of 6 images of shape \(3, 4, 4\)\. Stack them"):
        encode_loader(nn.Flatten(), [{"image": list(pixels)}])
    for loader, sentence in (
        ([["a.jpg"]], "got str in list. Make tensors of images"),
        (None, "loader must yield batches; got NoneType"),
        ([pixels, pixels[..., :2]], "features of one width; got 24 and 48 dimensions"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encode_loader(nn.Flatten(), loader)


def test_views_as_mappings(pixels):
    """As stable-pretraining yields them, in a list or by name."""
    one, other = ({"image": each, "label": torch.arange(N)} for each in (pixels, pixels.flip(3)))
    for batch in ({"views": [one, other]}, {"student": one, "teacher": other}):
        split = encode_loader(nn.Flatten(), [batch])
        assert split.labels.tolist() == list(range(N))
        np.testing.assert_allclose(split.views[1], pixels.flip(3).flatten(1).numpy())


def test_the_normalisation_that_an_encoder_records_is_applied_to_uint8_and_assumed_else(pixels):
    images = ImageSet((pixels * 255).to(torch.uint8).numpy(), np.arange(N), name="noise")
    config = replace(TrainConfig.small(), normalisation="imagenet")
    checkpoint = untrained(config, images)
    whole = torch.from_numpy(np.array(images.images))
    expected = torch.from_numpy(encode(checkpoint, images).features)
    check(encode_loader(checkpoint, [whole]), expected)
    with pytest.warns(UserWarning, match=r"assumed: the loader's images are normalised .*imagenet"):
        split = encode_loader(checkpoint, [normalised(whole.float() / 255, "imagenet")])
    check(split, expected)
    assert split.meta["mask"] == encode(checkpoint, images).meta["mask"]


def test_what_a_module_was_given_stands_beside_its_own_error():
    with torch.random.fork_rng(devices=[]):
        module = nn.Linear(3, 2)
    with pytest.raises(RuntimeError) as caught:
        encode_loader(module, [torch.ones(2, 3, dtype=torch.int64)])
    assert caught.value.__notes__ == ["encode_loader called it with torch.int64 of shape (2, 3)."]


class Block(nn.Module):
    """A block of the CIFAR ResNets of He et al. (2016) with shortcuts that pad (option A)."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.pad = stride, (width - width_in) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        short = x[:, :, :: self.stride, :: self.stride]
        short = nn.functional.pad(short, (0, 0, 0, 0, self.pad, self.pad))
        return (y + short).relu()


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            width, stride = widths[stage], 1 if stage == 1 else 2
            blocks = [Block(widths[stage - 1], width, stride)]
            blocks += [Block(width, width, 1) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


@pytest.mark.long
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")
def test_an_architecture_of_one_s_own_is_built_loaded_and_encoded():
    """The file's authors give the architecture, the README of the data the accuracy."""
    path = SHARED / "encoders" / "resnet20-12fca82f.th"
    saved = torch.load(path, weights_only=True, map_location="cpu")
    with torch.random.fork_rng(devices=[]):
        network = ResNet20()
    weights = {key.removeprefix("module."): each for key, each in saved["state_dict"].items()}
    network.load_state_dict(weights)
    images = huggingface("test", data_dir=SHARED / "cifar10", image_size=32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def batches():
        for start in range(0, len(images), 500):
            rows = slice(start, start + 500)
            pixels = torch.from_numpy(images.images[rows]).float() / 255
            normal = (pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
            yield normal, torch.from_numpy(images.labels[rows])

    split = encode_loader(network, batches())
    with torch.inference_mode():
        answers = network.linear(torch.from_numpy(split.features)).argmax(1).numpy()
    assert (answers == split.labels).mean() == pytest.approx(0.8103, abs=1e-3)
    assert split.features.shape == (10_000, 64)


def test_a_loader_of_a_stream_does_not_know_its_length():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(2, 3), torch.tensor([0, 1]))] * 2)

    seen = []
    loader = torch.utils.data.DataLoader(Stream(), batch_size=None, generator=torch.Generator())
    split = encode_loader(nn.Identity(), loader, progress=lambda *done: seen.append(done))
    assert split.features.shape == (4, 3)
    assert seen == [(1, 0), (2, 0)]
