"""What is not loaded, though its keys fit: foreign networks, other numbers, nothing trained."""

import json
import math
import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from dimlab.io.assumptions import settled
from dimlab.io.blueprints import Blueprint
from dimlab.io.inspecting import inspect_file
from dimlab.io.layouts import OPTIONAL, REMEDIES, looks_like, remedy_of
from dimlab.io.matching import find_encoder
from dimlab.io.places import Wanted
from dimlab.io.refusing import refusal
from dimlab.io.unpickle import Opened
from dimlab.io.weights import load_encoder
from dimlab.training.encoders import build_encoder

CIFAR = Blueprint("resnet18", stem="cifar")
NAMED = {"encoder": "convnet"}
LIGHTNING = {"pytorch-lightning_version": "2.1.0", "epoch": 3, "global_step": 9}


def weights(blueprint, prefix="", value=1.5):
    """Tensors of the right names and shapes that take no memory."""
    return {
        f"{prefix}{key}": torch.full((1,) * len(shape), value).expand(shape)
        for key, shape in blueprint.shapes().items()
    }


def verdict(tensors, *containers, allow_partial=(), allow_untrained=False, **options):
    match = matched(Opened("torch", tensors, {}, ("", *containers)), **options)
    return refusal("a.pth", match, allow_partial, allow_untrained)


def matched(opened, **options):
    wanted = Wanted(**options)
    return settled(find_encoder(opened, wanted), wanted)


def said(payload, path, **options):
    """The one sentence that inspecting says and loading raises."""
    torch.save(payload, path)
    with pytest.raises(ValueError, match=r"^[^\n]*\.$") as refused:
        load_encoder(path, **options)
    inspection = inspect_file(path, **options)
    assert inspection.kind == "checkpoint"
    assert inspection.facts["loads"] == str(refused.value)
    return str(refused.value)


@pytest.fixture(scope="module")
def module():
    """A ResNet-18 whose running statistics have moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = build_encoder("resnet18", stem="cifar").train()
        found(torch.rand(4, 3, 8, 8))
    return found.eval()


@pytest.fixture(scope="module")
def small():
    """A convnet whose running statistics have moved: where the encoder is named, as good."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = build_encoder("convnet", n_dimensions=8).train()
        found(torch.rand(4, 3, 8, 8))
    return found.eval()


def test_an_encoder_as_it_is_has_no_reason(module):
    assert verdict(weights(CIFAR)) is None
    assert verdict(module.state_dict()) is None


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("layer5.0.conv1.weight", (512, 512, 3, 3)),
        ("conv2.weight", (64, 64, 3, 3)),
        ("attention.q.weight", (4, 4)),
        ("layer1.0.fc.weight", (4, 4)),  # a head stands beside an encoder, not in its blocks
        ("layer1.0.projector.weight", (4, 4)),
        ("conv1.weight_scale", (1,)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_what_the_encoder_has_no_place_for_is_named(key, shape, prefix):
    extra = {f"{prefix}{key}": torch.ones(shape)}
    reason = verdict(weights(CIFAR, prefix) | extra)
    assert f"{prefix}{key}, which resnet18 has no place for" in reason
    assert f"got 120 of 120 under {prefix!r}, 1 without a place in it" in reason


def test_what_there_is_no_place_for_may_be_allowed_by_name(small):
    extra = small.state_dict() | {"attention.q.weight": torch.ones(2, 2)}
    assert "attention.q.weight, which convnet has no place for" in verdict(extra, **NAMED)
    assert verdict(extra, **NAMED, allow_partial=["attention"]) is None


def test_a_part_of_another_network_is_never_proposed_to_be_left_out(module, tmp_path):
    """Its absence would make another network of it; what a person leaves out is said."""
    extra = module.state_dict() | {"attention.q.weight": torch.ones(2, 2)}
    assert "allow-partial" not in said(extra, tmp_path / "a.pth")
    heads = {"aux.weight": torch.ones(3, 512), "aux.bias": torch.ones(3)}
    assert "allow-partial" not in said(extra | heads, tmp_path / "b.pth")
    assert "pass --allow-partial aux." in said(module.state_dict() | heads, tmp_path / "c.pth")
    with pytest.warns(UserWarning, match=r"1 weights that resnet18 has no place for are left out"):
        load_encoder(tmp_path / "a.pth", allow_partial=["attention"])


def test_keys_of_a_resnet_with_other_widths_are_no_reason_to_name_one(tmp_path):
    """As the ResNet-20 of CIFAR, whose keys are those of resnet18 and of resnet34."""
    shapes = CIFAR.shapes()
    narrow = {k: torch.ones([max(n // 4, 1) for n in v]) for k, v in shapes.items() if len(v)}
    reason = said(narrow, tmp_path / "a.pth")
    assert "with other shapes, as conv1.weight of shape (16, 1, 1, 1)" in reason
    assert "call encode_loader(module, loader)" in reason


def test_what_lies_beside_the_prefix_is_another_module_s(small):
    tensors = {f"backbone.{key}": each for key, each in small.state_dict().items()}
    beside = {"attention.q.weight": torch.ones(4, 4), "backbone.fc.weight": torch.ones(2, 512)}
    assert verdict(tensors | beside, **NAMED) is None
    copy = {f"backbone.momentum_encoder.{key}": each for key, each in small.state_dict().items()}
    assert verdict(tensors | copy, **NAMED) is None


def test_a_resnet_with_squeeze_and_excitation_is_known(tmp_path):
    extra = {f"layer1.0.se.fc.{n}.weight": torch.ones(4, 4) for n in (0, 2)}
    reason = verdict(weights(CIFAR) | extra)
    assert "looks like a ResNet with squeeze-and-excitation" in reason
    assert "layer1.0.se.fc.0.weight, which resnet18 has no place for" in reason


class HomeMade(nn.Module):
    def __init__(self, widths, bias):
        super().__init__()
        for number, (n_in, n_out) in enumerate(pairwise(widths), start=1):
            setattr(self, f"conv{number}", nn.Conv2d(n_in, n_out, 3, bias=bias))
            setattr(self, f"bn{number}", nn.BatchNorm2d(n_out))


@pytest.mark.parametrize(
    ("widths", "bias", "named"),
    [
        ((3, 32, 64, 128), False, None),  # dimlab's convnet, by all that shows
        ((3, 32, 64, 128), True, "conv1.bias, which convnet has no place for"),
        ((3, 32, 64, 128, 256), False, "conv4.weight, which convnet has no place for"),
        ((3, 32, 64, 64), False, r"instead of"),
    ],
)
def test_a_home_made_network_does_not_pass_for_the_convnet(widths, bias, named, tmp_path):
    with torch.random.fork_rng(devices=[]):
        tensors = HomeMade(widths, bias).state_dict()
    tensors = {key: each + 1 if "running" in key else each for key, each in tensors.items()}
    if widths[-1] == widths[-2]:
        with pytest.raises(ValueError, match="got 18 tensors, which are not called"):
            verdict(tensors)
    else:
        assert "encoder must be named, as these are the shapes of" in verdict(tensors)
    reason = verdict(tensors, encoder="convnet")
    assert named is None if reason is None else named in reason


def test_the_convnet_of_a_dimlab_network_needs_no_name():
    network = weights(Blueprint("convnet", 1, width=16), "encoder.")
    assert verdict(network | {"contrastive.0.weight": torch.ones(2, 16)}) is None
    assert "encoder must be named" in verdict(network)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda each: each.to(torch.int8), "int8"),
        (lambda each: each > 0, "bool"),
        (lambda each: each.to(torch.complex64), "complex64"),
        (lambda each: each.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda each: each.to("meta"), r"a shape without values (meta)"),
        (lambda each: each.to_sparse(), "a sparse tensor"),
    ],
    ids=["int8", "bool", "complex", "fp8", "meta", "sparse"],
)
@pytest.mark.parametrize("every", [False, True])
def test_numbers_that_no_encoder_computes_with_are_named(small, tmp_path, change, fault, every):
    key = "conv2.weight"
    changed = {
        name: change(each) if name == key or (every and each.ndim == 4) else each
        for name, each in small.state_dict().items()
    }
    reason = said(changed, tmp_path / "a.pth", **NAMED)
    first = "conv1.weight" if every else key
    assert reason == (
        f"a.pth must hold dense weights of 16, 32 or 64 bit floating point; got {fault} in "
        f"{first}. Save them from the module that was trained, as floating point."
    )


@pytest.mark.filterwarnings("ignore:.*quantize")  # torch announces the end of such tensors
def test_quantised_weights_are_named(small, tmp_path):
    key = "conv2.weight"
    quantised = torch.quantize_per_tensor(small.state_dict()[key], 0.1, 0, torch.qint8)
    reason = said(small.state_dict() | {key: quantised}, tmp_path / "a.pth", **NAMED)
    assert f"got quantised numbers in {key}" in reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_is_read(small, dtype, tmp_path):
    torch.save({key: each.to(dtype) if each.is_floating_point() else each
                for key, each in small.state_dict().items()}, tmp_path / "a.pth")  # fmt: skip
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = load_encoder(tmp_path / "a.pth", **NAMED).module(images), small(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("conv1.weight", 1e300, "must hold weights within float32; got larger ones in conv1"),
        ("bn1.running_var", -1.0, "running variances >= 0; got a negative one in bn1.running_var"),
        ("bn1.bias", math.nan, "finite weights; got NaN or inf in bn1.bias"),
    ],
)
def test_values_that_make_no_features_are_named(key, value, sentence):
    tensors = weights(CIFAR)
    tensors[key] = torch.full(tensors[key].shape, value, dtype=torch.float64)
    assert sentence in verdict(tensors)


def test_one_count_of_batches_may_be_a_list(small, tmp_path):
    torch.save({key: each.reshape(1) if key.endswith(OPTIONAL) else each
                for key, each in small.state_dict().items()}, tmp_path / "a.pth")  # fmt: skip
    loaded = load_encoder(tmp_path / "a.pth", **NAMED)
    assert loaded.inspection.facts["n_matched"] == 18
    assert loaded.module.bn1.num_batches_tracked.shape == ()


def test_a_count_of_batches_is_no_sign_of_training(tmp_path):
    with torch.random.fork_rng(devices=[]):
        start = build_encoder("convnet").state_dict()
    counted = {key: each + 1 if key.endswith(OPTIONAL) else each for key, each in start.items()}
    reason = said(counted, tmp_path / "a.pth", **NAMED)
    assert "got normalisation layers that no image has moved" in reason
    assert load_encoder(tmp_path / "a.pth", **NAMED, allow_untrained=True).n_dimensions == 128


@pytest.mark.parametrize(
    ("zero", "first"),
    [
        (lambda key, each: True, "conv1.weight"),
        (lambda key, each: each.ndim == 4, "conv1.weight"),
        (lambda key, each: key == "conv2.weight", "conv2.weight"),
    ],
)
def test_zeros_are_no_trained_weights(zero, first, small):
    tensors = {
        key: each * 0 if zero(key, each) else each for key, each in small.state_dict().items()
    }
    assert f"must hold trained weights; got only zeros in {first}." in verdict(tensors, **NAMED)
    assert verdict(tensors, **NAMED, allow_untrained=True) is None


def test_variances_of_zero_are_no_trained_ones():
    tensors = weights(CIFAR)
    tensors |= {key: each * 0 for key, each in tensors.items() if key.endswith("running_var")}
    assert "normalisation layers that no image has moved" in verdict(tensors)


def test_a_name_that_two_tensors_have_is_refused(module, tmp_path):
    tensors = module.state_dict()
    torch.save({"state_dict": tensors, "state_dict.conv1.weight": tensors["conv1.weight"] + 1},
               tmp_path / "a.pth")  # fmt: skip
    for read in (load_encoder, inspect_file):
        with pytest.raises(ValueError, match=r"differently; got two called 'state_dict\.conv1\.we"):
            read(tmp_path / "a.pth")
    twice = weights(CIFAR) | {"_orig_mod.conv1.weight": torch.ones(64, 3, 3, 3)}
    reason = verdict(twice, allow_partial=["conv1.weight"])
    assert "each weight once; got conv1.weight and _orig_mod.conv1.weight" in reason


@pytest.mark.parametrize("word", ["_orig_mod.", "_fsdp_wrapped_module.",
                                  "_checkpoint_wrapped_module."])  # fmt: skip
def test_what_wraps_a_part_is_left_out_of_its_keys(word):
    inner = {k.replace("layer1.0.", f"layer1.{word}0.{word}"): v for k, v in weights(CIFAR).items()}
    assert verdict({f"model.{word}{key}": each for key, each in inner.items()}) is None


def test_counts_add_up(tmp_path):
    tensors = {key.replace("layer1.", "first."): each for key, each in weights(CIFAR).items()}
    reason = verdict(tensors)
    assert "got 96 of 120 under '', 24 missing, 24 without a place in it: none for" in reason
    old = {key: each for key, each in tensors.items() if not key.endswith(OPTIONAL)}
    assert "got 80 of 100 under '', 20 missing, 20 without a place in it: none" in verdict(old)


def test_a_whole_copy_beside_one_without_statistics_is_pointed_at():
    average = {key: each for key, each in weights(CIFAR, "ema.backbone.", 2.0).items()
               if "running" not in key and OPTIONAL not in key}  # fmt: skip
    both = weights(CIFAR, "state_dict.backbone.") | average
    reason = verdict(both, "state_dict", "ema")
    assert "The copy under 'state_dict.backbone' is whole: branch='online' (--branch online)" in (
        reason
    )
    assert verdict(both, "state_dict", "ema", branch="online") is None


def test_two_networks_by_their_state_dicts_are_online_and_target(small, tmp_path):
    both = {
        "online_network_state_dict": {f"encoder.{k}": v for k, v in small.state_dict().items()},
        "target_network_state_dict": {f"encoder.{k}": v + 1 for k, v in small.state_dict().items()},
    }
    torch.save(both, tmp_path / "a.pth")
    for branch, taken in ((None, "online"), ("online", "online"), ("target", "target")):
        facts = inspect_file(tmp_path / "a.pth", branch=branch, **NAMED).facts
        assert (facts["under"], facts["loads"]) == (f"{taken}_network_state_dict", "yes")


def test_of_two_encoders_inspecting_lists_both(small, tmp_path):
    both = {f"rgb.{key}": each for key, each in small.state_dict().items()}
    both |= {f"depth.{key}": each + 1 for key, each in small.state_dict().items()}
    assert "branch must say which of two encoders" in said(both, tmp_path / "a.pth", **NAMED)
    facts = inspect_file(tmp_path / "a.pth", **NAMED).facts
    assert facts["candidates"] == [
        "convnet under 'rgb.' (18 of 18 keys)", "convnet under 'depth.' (18 of 18 keys)",
    ]  # fmt: skip
    assert (facts["layout"], facts["prefix"], facts["n_matched"]) == ("other", "rgb.", 18)


def stepped(number_of_classes=2, **more):
    """A file of Lightning's with the parts of solo-learn's BaseMethod."""
    state = weights(CIFAR, "state_dict.backbone.")
    state["state_dict.classifier.weight"] = torch.ones(number_of_classes, 512)
    return state | {f"state_dict.{key}": each for key, each in more.items()}


PROJECTOR = {"projector.0.weight": torch.ones(4, 512)}


@pytest.mark.parametrize(
    ("tensors", "options", "stem"),
    [
        (stepped(**PROJECTOR), {}, None),
        (stepped(**PROJECTOR), {"stem": "cifar"}, "cifar"),
        (stepped(), {"stem": "solo-learn"}, "solo-learn"),
        (stepped(), {}, None),
        (stepped(), {"stem": "cifar"}, "cifar"),
        (weights(CIFAR, "state_dict.backbone."), {}, "cifar"),
        ({**weights(CIFAR, "state_dict.net.backbone."), **stepped()}, {"branch": "net"}, "cifar"),
    ],
)
def test_solo_learn_s_stem_is_told_or_asked_for(tensors, options, stem):
    opened = Opened("torch", tensors, LIGHTNING, ("", "state_dict"))
    match = matched(opened, **options)
    if stem is None:
        assert "stem must be named" in match.doubt
        assert "--stem solo-learn, --stem cifar" in refusal("a.pth", match)
        return
    assert (match.blueprint.stem, match.doubt) == (stem, None)
    assert any("pads by 1" in each for each in match.assumed) == ("stem" not in options)
    assert refusal("a.pth", match) is None


def test_solo_learn_s_features_are_its_own(module, tmp_path):
    """conv1 = Conv2d(3, 64, 3, stride=1, padding=2) and no max-pooling: solo/methods/base.py."""
    state = {f"backbone.{key}": each for key, each in module.state_dict().items()}
    state |= PROJECTOR | {"classifier.weight": torch.ones(10, 512)}
    torch.save({"state_dict": state, **LIGHTNING}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"Pass stem='solo-learn' or stem='cifar'"):
        load_encoder(tmp_path / "a.ckpt")
    loaded = load_encoder(tmp_path / "a.ckpt", stem="solo-learn")
    assert loaded.inspection.facts["encoder"] == "resnet18 (solo-learn stem, 3 channels)"
    assert not any("pads by" in each for each in loaded.assumed)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = nn.functional.conv2d(images, module.conv1.weight, padding=2)
        x = torch.relu(module.bn1(x))
        for layer in module.layers:
            x = layer(x)
        expected = x.mean((2, 3))
        torch.testing.assert_close(loaded.module(images), expected)
        assert (module(images) - expected).abs().max() > 1e-3  # control: what padding 1 gives


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"stem.0.weight": (96, 3, 4, 4), "stages.0.blocks.0.conv_dw.weight": (96, 1, 7, 7)},
         "a ConvNeXt"),
        ({"visual.conv1.weight": (768, 3, 16, 16),
          "visual.transformer.resblocks.0.attn.in_proj_weight": (4, 4)}, "a CLIP"),
        ({"features.0.weight": (64, 3, 3, 3), "classifier.0.weight": (4, 4)}, "a VGG or AlexNet"),
        ({"patch_embed.proj.weight": (192, 3, 2, 16, 16), "blocks.0.norm1.weight": (192,)},
         "a transformer of video"),
        ({"backbone.bottom_up.stem.conv1.norm.weight": (64,)}, "a ResNet of detectron2"),
        ({"patch_embed.proj.weight": (8, 3, 4, 4),
          "layers.0.blocks.0.attn.relative_position_bias_table": (9, 3)}, "a Swin transformer"),
        ({"features.0.0.weight": (8, 3, 4, 4),
          "features.1.0.attn.relative_position_bias_table": (9, 3)}, "a Swin transformer"),
        ({"embed.weight": (8, 3, 4, 4), "blocks.0.attn.relative_position_bias_table": (9, 3)},
         "a BEiT or EVA"),
        ({"vit.embeddings.patch_embeddings.projection.weight": (8, 3, 16, 16)},
         "a vision transformer of transformers"),
    ],
)  # fmt: skip
def test_families_that_are_not_built_are_said_by_name(tensors, words, tmp_path):
    payload = {key: torch.ones(shape) for key, shape in tensors.items()}
    torch.save(payload, tmp_path / "a.pth")
    remedy = remedy_of(words)
    sentence = rf"got what looks like {words}.*{re.escape(remedy)}"
    assert ("encode_loader" in remedy) != (words in REMEDIES)
    with pytest.raises(ValueError, match=sentence):
        load_encoder(tmp_path / "a.pth")
    assert words in inspect_file(tmp_path / "a.pth").facts["why"]


def test_groups_of_a_resnext_are_seen():
    tensors = weights(Blueprint("resnet50", stem="imagenet"))
    for key in [each for each in tensors if each.endswith("conv2.weight")]:
        n_out, n_in, *_ = tensors[key].shape
        tensors[key] = torch.ones(1, 1, 1, 1).expand(n_out, n_in // 32, 3, 3)
    assert "looks like a ResNeXt of 32 groups" in verdict(tensors)
    assert looks_like({"a": (1,)}) is None


def test_a_sequential_without_max_pooling_is_loaded(module, tmp_path):
    """As leftthomas/SimCLR and its heirs build theirs: f of all children but pooling and fc."""
    children = [each for name, each in module.named_children() if name != "maxpool"]
    f = nn.Sequential(*children)
    state = {f"f.{key}": each for key, each in f.state_dict().items()}
    torch.save(state | {"g.0.weight": torch.ones(4, 512)}, tmp_path / "a.pth")
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = f(images).mean((2, 3))
        torch.testing.assert_close(load_encoder(tmp_path / "a.pth").module(images), expected)


@pytest.mark.filterwarnings("ignore:.*was trusted")  # it was, and that is said
def test_a_trusted_module_in_a_dict_is_read(small, tmp_path):
    torch.save({"model": small, "epoch": 1}, tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth", trust_pickle=True, **NAMED)
    assert (loaded.inspection.facts["under"], loaded.inspection.facts["epoch"]) == ("model", 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # files of it remain
def test_a_torchscript_program_is_called_one(dimlab, tmp_path):
    with torch.random.fork_rng(devices=[]):
        traced = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(traced, tmp_path / "a.pt")
    for more in ((), ("--trust-pickle",)):
        code, out, err = dimlab("inspect", "a.pt", *more)
        assert (code, out) == (1, "")
        assert "got a TorchScript program. Save its weights: torch.save(torch.jit.load(" in err


def test_a_checkpoint_in_parts_says_how_it_becomes_one(dimlab, tmp_path):
    (tmp_path / "shards").mkdir()
    for number in (1, 2):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({"w": torch.ones(2)}, tmp_path / "shards" / name)
    for command in (("inspect",), ("encode", "--data", "digits")):
        code, _, err = dimlab(*command, "shards")
        assert code == 1
        assert "a folder with 2 parts of one, as pytorch_model-00001-of-00002.bin. Load it" in err
    (tmp_path / "empty").mkdir()
    code, _, err = dimlab("encode", "empty", "--data", "digits")
    assert (code, "got empty, which is an empty folder" in err) == (2, True)


@pytest.mark.parametrize("command", ["inspect", "encode"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--encoder", "foo"), "encoder must be one of convnet, resnet18"),
        (
            ("--stem", "foo"),
            "stem must be one of cifar, cifar-maxpool, imagenet, imagenet-unpooled, solo-learn; g",
        ),
        (("--stem", "cifar"), "stem must be left out for convnet, which is built without it"),
        (("--pool", "cls"), "pool must be left out for convnet, which pools in one way"),
        (("--layout", "foo"), "layout must be one of dimlab"),
        (("--layout", "vissl"), "layout must be 'bare' for this file; got 'vissl'"),
        (("--branch", "teacher"), "branch must be one of online (no prefix); got 'teacher'"),
        (("--allow-partial", "nosuch"), "allow_partial must name keys of convnet, or what they"),
    ],
)
def test_a_flag_that_is_wrong_is_a_misuse_and_named(command, options, sentence, small, dimlab):
    torch.save(small.state_dict(), "a.pth")
    more = ("--data", "digits") if command == "encode" else ()
    code, out, err = dimlab(command, "a.pth", *more, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"dimlab {command}: {sentence}")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--layer", "projector-contrastive"), "layer must be encoder for a checkpoint of another"),
        (("--moments",), "moments must be left out for a checkpoint of another tool, as a.pth is"),
    ],
)
def test_encoding_says_which_option_another_tool_s_file_rules_out(options, sentence, dimlab):
    torch.save({"a.weight": torch.ones(2, 2)}, "a.pth")
    code, _, err = dimlab("encode", "a.pth", "--data", "digits", *options)
    assert code == 2
    assert sentence in err
    code, _, err = dimlab("encode", "a.pth")
    assert (code, "data must name what a.pth shall encode" in err) == (2, True)


def test_meta_tensors_are_a_failure_of_the_file_on_the_command_line(small, dimlab):
    torch.save({key: each.to("meta") for key, each in small.state_dict().items()}, "a.pth")
    code, out, _ = dimlab("inspect", "a.pth", "--json", "--encoder", "convnet")
    assert (code, "a shape without values" in json.loads(out)["loads"]) == (0, True)
    code, _, err = dimlab("encode", "a.pth", "--data", "digits", "--encoder", "convnet")
    assert code == 1, err
    assert len(err.splitlines()) == 1
