"""Checkpoints of other tools: one fixture a layout, all of the encoder or a sentence."""

import argparse
import collections
import json
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dimlab._encode import encode_loader
from dimlab.datasets import digits
from dimlab.io.inspecting import inspect_file
from dimlab.io.unpickle import open_weights
from dimlab.io.weights import load_encoder
from dimlab.representation import Representation
from dimlab.training.config import TrainConfig
from dimlab.training.encoders import build_encoder
from dimlab.training.loop import untrained


class Raising:
    """What raises when it is unpickled, or asked for its weights."""

    def __init__(self, error, *, late=False):
        self.error, self.late = error, late

    def __reduce__(self):
        return (_raising_later if self.late else _raised), (self.error,)


def _raised(error):
    raise error


def _raising_later(error):
    module = torch.nn.Module()
    module.state_dict = lambda: _raised(error)
    return module


def fresh(name, **options):
    with torch.random.fork_rng():
        return build_encoder(name, **options)


def encoder_of(seed, **options):
    """A ResNet-18 whose running statistics have moved, and its features of some images."""
    generator = torch.Generator().manual_seed(seed)
    module = fresh("resnet18", **options)
    with torch.no_grad():
        for each in module.state_dict().values():
            if each.is_floating_point():
                noise = torch.randn(each.shape, generator=generator)
                each.copy_(0.03 * noise if each.ndim == 4 else 1 + 0.1 * noise.abs())
            else:
                each.fill_(7)
    return module.eval()


@pytest.fixture(scope="module")
def source():
    return encoder_of(0, stem="imagenet")


@pytest.fixture(scope="module")
def other():
    return encoder_of(1, stem="imagenet")


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def under(prefix, weights):
    return {f"{prefix}{key}": each for key, each in weights.items()}


def small_network(module):
    """A convnet as dimlab's networks have it: the projectors beside it tell whose it is."""
    projector = {"contrastive.0.weight": torch.zeros(2, module.n_dimensions)}
    return {"state_dict": under("encoder.", module.state_dict()) | projector}


HEADS = {
    "projection_head.layers.0.weight": torch.ones(8, 512),
    "prototypes.weight": torch.ones(4, 8),
}
LIGHTNING = {
    "pytorch-lightning_version": "2.5.0", "epoch": 3, "global_step": 9,
    "hyper_parameters": {"k": 1},
    "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
}  # fmt: skip


def numbered(weights, layer1, shortcut=False):
    first = {"conv1": "0", "bn1": "1"} | {f"layer{n}": str(layer1 + n - 1) for n in (1, 2, 3, 4)}
    found = {}
    for key, each in weights.items():
        head, rest = key.split(".", 1)
        rest = rest.replace("downsample", "shortcut") if shortcut else rest
        found[f"{first[head]}.{rest}"] = each
    return found


def layouts(source, other):
    """What the tools write: (payload, layout, prefix in it, options of load_encoder)."""
    w, o = source.state_dict(), other.state_dict()
    classifier = {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}
    return {
        "bare torchvision": (w | classifier, "bare", "", {}),
        "ddp": ({"epoch": 1, "model": under("module.", w) | under("module.fc.", HEADS)},
                "ddp", "module.", {}),
        "ddp backbone": ({"model": under("module.backbone.", w)}, "ddp", "module.backbone.", {}),
        "lightly": (LIGHTNING | {"state_dict": under("backbone.", numbered(w, 4)) | HEADS},
                    "lightning", "backbone.", {}),
        "solo-learn": (LIGHTNING | {"state_dict": under("backbone.", w) | HEADS}, "lightning",
                       "backbone.", {}),
        "solo-learn old": (LIGHTNING | {"state_dict": under("encoder.", w)}, "lightning",
                           "encoder.", {}),
        "moco": ({"arch": "resnet18", "state_dict": under("module.encoder_q.", w)
                  | under("module.encoder_k.", o) | {"module.queue": torch.ones(8, 4)}},
                 "moco", "module.encoder_q.", {}),
        "moco, the other": ({"state_dict": under("module.encoder_q.", o)
                             | under("module.encoder_k.", w)},
                            "moco", "module.encoder_k.", {"branch": "momentum"}),
        "dino": ({"teacher": under("module.backbone.", w), "student": under("module.backbone.", o)},
                 "dino", "module.backbone.", {}),
        "dino student": ({"teacher": under("backbone.", o), "student": under("backbone.", w)},
                         "dino", "backbone.", {"branch": "student"}),
        "vissl": ({"classy_state_dict": {"base_model": {"model": {
            "trunk": under("_feature_blocks.", w), "heads": {"0.clf.weight": torch.ones(2, 2)}}}}},
            "vissl", "_feature_blocks.", {}),
        "openmmlab": ({"meta": {"mmcls_version": "1.0"}, "state_dict": under("backbone.", w)
                       | {"neck.fc.weight": torch.ones(2, 2), "head.fc.weight": torch.ones(2, 2)}},
                      "openmmlab", "backbone.", {}),
        "compiled": ({"model": under("_orig_mod.", w)}, "container", "", {}),
        "ema": ({"model": o, "model_ema": under("module.", w)}, "ema", "module.", {}),
        "plain container": ({"state_dict": w}, "container", "", {}),
    }  # fmt: skip


LAYOUT_NAMES = [
    "bare torchvision", "ddp", "ddp backbone", "lightly", "solo-learn", "solo-learn old", "moco",
    "moco, the other", "dino", "dino student", "vissl", "openmmlab", "compiled", "ema",
    "plain container",
]  # fmt: skip


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_every_layout_gives_the_same_features(name, source, other, images, tmp_path):
    every = layouts(source, other)
    assert list(every) == LAYOUT_NAMES
    payload, layout, prefix, options = every[name]
    torch.save(payload, tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth", **options)
    facts = loaded.inspection.facts
    assert (facts["layout"], facts["prefix"]) == (layout, prefix)
    counts = [facts[f"n_{each}"] for each in ("missing", "mismatched", "unexpected")]
    assert (facts["n_matched"], counts) == (len(source.state_dict()), [0, 0, 0])
    assert facts["trained"] == "yes"
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(images), source(images), rtol=0, atol=0)
    assert loaded.n_dimensions == 512
    frame = loaded.inspection.to_frame()
    assert (frame["role"] == "encoder").sum() == len(source.state_dict())


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_safetensors(prefix, source, images, tmp_path):
    save_file(under(prefix, source.state_dict()), tmp_path / "a.safetensors")
    loaded = load_encoder(tmp_path / "a.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(images), source(images), rtol=0, atol=0)


def test_the_official_metamask_checkpoint(images, tmp_path):
    """Sequential backbone without a stem ReLU, twice under two names, a copy of the trial step."""
    source, trial = (encoder_of(seed, stem="cifar", stem_relu=False) for seed in (0, 1))
    weights = numbered(source.state_dict(), 2, shortcut=True)
    mask = torch.linspace(-1, 1, 512)
    state = {
        **under("backbone.", weights),
        **under("resnet_simsiam.backbone.", weights),
        **under("resnet_simsiam_.backbone.", numbered(trial.state_dict(), 2, shortcut=True)),
        "auto_mask.mask": mask,
        "resnet_simsiam.projection_mlp.layers.0.weight": torch.ones(4, 512),
    }
    torch.save({"state_dict": state, "hyper_parameters": {"disable_sigmoid": False}} | LIGHTNING,
               tmp_path / "a.ckpt")  # fmt: skip
    loaded = load_encoder(tmp_path / "a.ckpt")
    facts = loaded.inspection.facts
    assert (facts["layout"], facts["prefix"]) == ("metamask", "backbone.")
    assert facts["n_aliases"] == len(source.state_dict())
    assert facts["n_unexpected"] == 0
    assert "no stem ReLU" in facts["encoder"]
    assert any("resnet_simsiam_" in each for each in facts["copies_not_taken"])
    with torch.inference_mode():
        torch.testing.assert_close(loaded.module(images), source(images), rtol=0, atol=0)
    np.testing.assert_allclose(loaded.mask.weights, mask.sigmoid().numpy(), atol=1e-7)


def test_dimlab_s_own_checkpoint(tmp_path):
    checkpoint = untrained(TrainConfig.small(), digits("validation", image_size=8))
    path = checkpoint.save(tmp_path / "checkpoint.pt")
    loaded = load_encoder(path, allow_untrained=True)
    assert loaded.inspection.facts["layout"] == "dimlab"
    pixels = torch.full((2, 1, 8, 8), 0.3)
    torch.testing.assert_close(loaded.module(pixels), checkpoint.encoder()(pixels), rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.mask.weights, 0.5)


def test_a_renamed_key_is_named(source, tmp_path):
    weights = dict(source.state_dict())
    weights["layer3.0.conv1.wieght"] = weights.pop("layer3.0.conv1.weight")
    torch.save({"state_dict": under("backbone.", weights)}, tmp_path / "a.pth")
    sentence = r"none for layer3.0.conv1.weight \(closest: state_dict.backbone.layer3.0.conv1.wi"
    with pytest.raises(ValueError, match=sentence):
        load_encoder(tmp_path / "a.pth")
    with pytest.raises(ValueError, match="got 119 of 120"):
        load_encoder(tmp_path / "a.pth", allow_partial=["layer2"])
    sentence = r"1 weights of resnet18 stay random, as allowed: layer3.0.conv1.weight\."
    beyond = r"1 weights that resnet18 has no place for are left out, as allowed: .*\.wieght\."
    with pytest.warns(UserWarning, match=sentence), pytest.warns(UserWarning, match=beyond):
        loaded = load_encoder(tmp_path / "a.pth", allow_partial=["layer3.0"])
    assert loaded.inspection.facts["n_missing"] == 1


def test_a_larger_encoder_is_not_read_as_a_smaller_one(tmp_path):
    large = fresh("resnet34", stem="imagenet")
    for each in large.buffers():
        each.add_(1)
    torch.save(large.state_dict(), tmp_path / "a.pth")
    assert "resnet34" in load_encoder(tmp_path / "a.pth").inspection.facts["encoder"]
    with pytest.raises(ValueError, match="which resnet18 has no place for"):
        load_encoder(tmp_path / "a.pth", encoder="resnet18")


def test_a_vision_transformer_is_recognised_and_needs_timm(tmp_path):
    weights = {
        "patch_embed.proj.weight": torch.ones(384, 3, 16, 16),
        "cls_token": torch.ones(1, 1, 384), "pos_embed": torch.ones(1, 197, 384),
        "blocks.0.norm1.weight": torch.ones(384),
    }  # fmt: skip
    torch.save({"teacher": under("backbone.", weights)}, tmp_path / "a.pth")
    sentence = r"vision transformer \(timm:vit_small_patch16_224\), which needs the package timm"
    with pytest.raises(ValueError, match=sentence):
        load_encoder(tmp_path / "a.pth")
    assert "vit_small_patch16_224" in inspect_file(tmp_path / "a.pth").facts["why"]


def test_code_in_a_file_is_run_only_on_request(source, tmp_path):
    payload = {"state_dict": source.state_dict(), "range": range(3)}
    torch.save(payload, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"asks for builtins.range, .*--trust-pickle"):
        load_encoder(tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="was trusted: code in it was run"):
        assert load_encoder(tmp_path / "a.ckpt", trust_pickle=True).n_dimensions == 512


def test_harmless_classes_of_official_files_need_no_trust(source, tmp_path):
    arguments = argparse.Namespace(lr=np.float64(0.5), epochs=np.int64(3), seen=np.bool_(True))
    arguments.output = Path("runs") / "a"
    state = collections.defaultdict(dict, {"momentum": np.arange(6.0).reshape(2, 3).T})
    payload = {"state_dict": source.state_dict(), "args": arguments, "state": state}
    torch.save(payload, tmp_path / "a.pth")
    assert load_encoder(tmp_path / "a.pth").n_dimensions == 512
    opened = open_weights(tmp_path / "a.pth")
    known = {"lr": 0.5, "epochs": 3, "seen": True, "output": "runs/a"}
    assert opened.values == {f"args.{name}": value for name, value in known.items()}
    np.testing.assert_array_equal(opened.tensors["state.momentum"], state["momentum"])
    records = np.zeros(2, dtype=[("a", "f4"), ("b", "O")])
    torch.save({"records": records}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"got a damaged one \(an array of \|V12\)"):
        open_weights(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layout": "vissl"}, "layout must be 'container' for this file; got 'vissl'"),
        ({"branch": "teacher"}, "branch must be one of online .*; got 'teacher'"),
        ({"stem": "cifar"}, r"conv1.weight of shape \(64, 3, 7, 7\) instead of \(64, 3, 3, 3\)"),
    ],
)
def test_names_that_do_not_fit(options, sentence, source, tmp_path):
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=sentence):
        load_encoder(tmp_path / "a.pth", **options)


def test_damaged_files(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.pth must be a complete torch file"):
        load_encoder(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"b.pth must be a torch or safetensors file"):
        load_encoder(tmp_path / "b.pth")
    with pytest.raises(FileNotFoundError, match="checkpoint must be a file"):
        load_encoder(tmp_path / "c.pth")


def test_the_command_says_what_a_file_is(source, other, dimlab):
    payload, *_ = layouts(source, other)["moco"]
    torch.save(payload, "moco.pth.tar")
    code, out, _ = dimlab("inspect", "moco.pth.tar")
    assert code == 0
    assert "layout: moco" in out
    assert "n matched: 120" in out
    code, out, _ = dimlab("inspect", "moco.pth.tar", "--json", "--tensors")
    found = json.loads(out)
    assert (code, found["prefix"], found["branch"]) == (0, "module.encoder_q.", "online")
    assert len(found["tensors"]) == found["n_tensors"]
    torch.save({"weight": torch.ones(3, 3)}, "x.pt")
    code, out, _ = dimlab("inspect", "x.pt", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "tensors")
    code, _, err = dimlab("inspect", "nowhere.pt")
    assert (code, "checkpoint must be a file; got nowhere.pt" in err) == (2, True)


def test_images_are_encoded_and_probed_with_another_tool_s_encoder(dimlab):
    source = fresh("convnet", in_channels=1, n_dimensions=16)
    images = torch.from_numpy(digits("test").images).float() / 255
    source.train()(images)  # moves the running statistics
    torch.save(small_network(source), "a.pth")
    common = ("--data", "digits", "--quiet")
    code, out, err = dimlab("encode", "a.pth", *common, "--split", "test", "--views", 2)
    assert code == 0, err
    assert "of convnet stand under" in err
    split = Representation.load("test.safetensors")
    with torch.inference_mode():
        expected = source.eval()(images[:20]).numpy()
    np.testing.assert_allclose(split.features[:20], expected, rtol=1e-4, atol=1e-4)
    assert split.views.shape == (2, *split.features.shape)
    assert split.meta["prefix"] == "encoder."
    code, out, err = dimlab("decompose", "a.pth", *common, "--json")
    assert (code, json.loads(out)["n_dimensions"]) == (0, 16), err
    code, _, err = dimlab("decompose", "a.pth")
    assert (code, "data must name what a.pth shall encode" in err) == (2, True)
    torch.save(small_network(fresh("convnet")), "b.pth")
    code, _, err = dimlab("encode", "b.pth", *common)
    assert (code, "--allow-untrained" in err) == (1, True)


def test_any_module_and_any_loader():
    source = encoder_of(0, stem="cifar").train()
    pixels = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    rows = [(pixels[n], n % 2) for n in range(5)]
    loader = torch.utils.data.DataLoader(rows, batch_size=2, generator=torch.Generator())
    split = encode_loader(source, loader)
    assert source.training
    with torch.inference_mode():
        expected = source.eval()(pixels).numpy()
    np.testing.assert_allclose(split.features, expected, rtol=1e-3, atol=1e-3)
    assert split.labels.tolist() == [0, 1, 0, 1, 0]
    named = encode_loader(source, [{"pixel_values": pixels, "label": torch.zeros(5)}])
    np.testing.assert_allclose(named.features, expected, rtol=1e-3, atol=1e-3)
    assert encode_loader(source, [pixels]).labels is None
    for module, loader, sentence in (
        (source, [], "at least one batch"),
        (source, [{"a": 1}], "items must have one of the keys image, images, .*; got a"),
        (torch.nn.Identity(), [pixels], r"module must give features of shape \(B, D\); got \(5, 3"),
        (source, [pixels, (pixels, [0] * 5)], "labels in each batch or in none"),
    ):
        with pytest.raises(ValueError, match=sentence):
            encode_loader(module, loader)


ERRORS = (
    zlib.error("invalid\ndata"), MemoryError(), KeyError("a"), Exception("anything"),
    StopIteration(), OSError(5, "disk"),
)  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda each: type(each).__name__)
def test_a_trusted_file_whose_code_fails_is_refused_in_one_sentence(dimlab, tmp_path, error, late):
    torch.save({"a": Raising(error)} if not late else Raising(error, late=True), tmp_path / "a.pth")
    code, out, err = dimlab("inspect", "a.pth", "--trust-pickle")
    said = err.splitlines()
    assert (code, out) == (1, "")
    assert said[-1].startswith(
        "dimlab inspect: a.pth must be a complete torch file; got one whose pickle fails ("
    )
    assert all("was trusted: code in it was run" in each for each in said[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="whose pickle fails"):
            load_encoder(tmp_path / "a.pth", trust_pickle=True)


def test_a_zip_file_glued_behind_a_pickle_is_no_traceback(tmp_path):
    """`zipfile` finds an archive at the end of a file, torch one at its beginning."""
    args = {"weights": torch.ones(2), "args": argparse.Namespace(a=1)}
    torch.save(args, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("x/data.pkl", b"no pickle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"^a\.pth: checkpoint must hold an encoder"):
            load_encoder(tmp_path / "a.pth", trust_pickle=True)


@pytest.mark.slow
def test_containers_without_an_end_are_refused(dimlab, tmp_path):
    itself = {"w": torch.ones(2)}
    itself["itself"] = itself
    listed = [torch.ones(2)]
    listed.append(listed)
    deep = many = {"w": torch.ones(2)}
    for _ in range(60):  # 2 ** 60 members in a small file
        many = {"a": many, "b": many}
    for _ in range(220):
        deep = [deep]
    for payload in (itself, {"x": listed}, many, {"x": deep}):
        torch.save(payload, tmp_path / "a.pth")
        for command in (("inspect",), ("follow", "--key", "w"), ("ablate",)):
            code, out, err = dimlab(*command, "a.pth")
            assert (code, out, len(err.splitlines())) == (1, "", 1)
            assert err.endswith(
                "a.pth must hold at most 1048576 containers, at most 200 deep; got more, or one "
                "within itself.\n"
            )
    torch.save({"a": {"w": torch.ones(2)}, "shared": [itself["w"]] * 3}, tmp_path / "a.pth")
    assert dimlab("inspect", "a.pth")[0] == 0  # control


@pytest.fixture
def colour_and_grey(dimlab):
    """Trained-looking encoders of three channels and of one, beside a checkpoint of dimlab's."""
    for name, channels in (("colour", 3), ("grey", 1)):
        module = fresh("convnet", in_channels=channels, n_dimensions=8).train()
        module(torch.rand(4, channels, 28, 28, generator=torch.Generator().manual_seed(0)))
        torch.save(small_network(module), f"{name}.pth")
    small = digits("validation")
    checkpoint = untrained(TrainConfig.small(), small)
    moved = {
        key: each + 1 if each.is_floating_point() else each
        for key, each in checkpoint.network.items()
    }
    replace(checkpoint, network=moved).save("own.pt")
    return dimlab


NOTE = (
    "note: colour.pth does not record how pixels were normalised; they go in as they are, from 0 "
    "to 1 (none). For weights trained on ImageNet's normalised pixels: dimlab encode colour.pth "
    "--normalisation imagenet."
)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["encode", "colour.pth"], 1),  # of two splits
        (["encode", "colour.pth", "--quiet"], 0),
        (["encode", "colour.pth", "--normalisation", "imagenet"], 0),
        (["encode", "colour.pth", "--normalisation", "none"], 0),
        (["encode", "grey.pth"], 0),
        (["encode", "own.pt"], 0),
        (["ablate", "colour.pth", "--reader", "ridge"], 1),  # of train and test
        (["ablate", "colour.pth", "--reader", "ridge", "--quiet"], 0),
        (["decompose", "colour.pth", "--basis", "pca"], 1),
        (["decompose", "grey.pth"], 0),
        (["decompose", "own.pt"], 0),
        (["compare", "colour.pth", "grey.pth", "own.pt"], 1),
    ],
)
def test_a_normalisation_that_nobody_recorded_or_chose_is_said_once(
    colour_and_grey, arguments, count
):
    code, _, err = colour_and_grey(*arguments, "--data", "digits")
    assert code == 0, err
    assert err.splitlines().count(NOTE) == count
    assert err.count("normalis") == 3 * count  # and in no other words
    assert "Traceback" not in err


def test_the_note_is_right_about_what_was_used(colour_and_grey):
    features = {}
    for name, more in (("silent", ()), ("none", ("none",)), ("imagenet", ("imagenet",))):
        flags = ("--normalisation", *more) if more else ()
        arguments = ("encode", "colour.pth", "--data", "digits", "--split", "test", "--out", name)
        assert colour_and_grey(*arguments, *flags)[0] == 0
        features[name] = Representation.load(f"{name}/test.safetensors").features
    np.testing.assert_array_equal(features["silent"], features["none"])
    assert np.abs(features["silent"] - features["imagenet"]).max() > 1e-3
