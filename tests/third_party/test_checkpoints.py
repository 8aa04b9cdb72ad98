"""Files that timm, torchvision, lightly and Lightning write themselves, loaded and compared.

Runs where they can be imported; features must be those of the module that was saved, to 1e-5.
"""

import argparse
import copy

import pytest
import torch
from torch import nn

from dimlab.io.files import Misnamed
from dimlab.io.inspecting import inspect_file
from dimlab.io.weights import load_encoder
from tests.third_party import of_transformers  # noqa: F401 - adds its cases
from tests.third_party.cases import CASES, others_warn, package

pytestmark = others_warn
CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(autouse=True)
def keeps_global_state():
    """These packages draw from the global generator when they build a module."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def torchvision():
    return package("torchvision.models")


@pytest.fixture
def timm():
    return package("timm")


@pytest.fixture
def lightly():
    package("torchvision")
    return package("lightly.models")


def moved(module, size, channels=3):
    """The module in evaluation mode, its BatchNorm moved by images; and other images."""
    torch.manual_seed(1)
    module.train()
    with torch.no_grad():
        module(torch.rand(4, channels, size, size))
    return module.eval(), torch.rand(3, channels, size, size)


def features(module, images):
    with torch.no_grad():
        return module(images).flatten(1)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"]
)
def test_torchvision_with_its_classifier(torchvision, tmp_path, name):
    module, images = moved(getattr(torchvision, name)(weights=None), 64)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth")
    module.fc = nn.Identity()
    assert loaded.inspection.facts["layout"] == "bare"
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


def test_torchvision_in_a_sequential_that_was_compiled_in_ddp(torchvision, tmp_path):
    module, images = moved(torchvision.resnet18(weights=None), 64)
    sequential = nn.Sequential(*list(module.children())[:-1])
    weights = {f"module._orig_mod.backbone.{k}": v for k, v in sequential.state_dict().items()}
    torch.save({"epoch": 3, "model": weights}, tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth")
    assert loaded.inspection.facts["layout"] == "ddp"
    expected = features(sequential, images)
    torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_timm_resnets(timm, tmp_path, name):
    module, images = moved(timm.create_model(name, num_classes=0), 64)
    import safetensors.torch

    safetensors.torch.save_file(module.state_dict(), tmp_path / "model.safetensors")
    loaded = load_encoder(tmp_path / "model.safetensors")
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


def test_timm_builds_what_dimlab_does_not_know(timm, tmp_path):
    module, images = moved(timm.create_model("resnet26", num_classes=0, in_chans=1), 64, 1)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"must hold every weight of resnet"):
        load_encoder(tmp_path / "a.pth")
    loaded = load_encoder(tmp_path / "a.pth", encoder="timm:resnet26")
    assert loaded.n_dimensions == 2048
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 224), ("vit_small_patch16_224", 96), ("vit_small_patch14_dinov2", 98),
     ("vit_small_patch14_reg4_dinov2", 98)],
)  # fmt: skip
@pytest.mark.parametrize("named", [False, True])
def test_timm_vits_are_told_by_their_shapes(timm, tmp_path, name, size, named):
    module = timm.create_model(name, num_classes=0, img_size=size).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.02 * torch.randn_like(each))
    weights = {f"backbone.{key}": each for key, each in module.state_dict().items()}
    torch.save({"teacher": weights, "student": {k: v + 1 for k, v in weights.items()}},
               tmp_path / "dino.pth")  # fmt: skip
    loaded = load_encoder(tmp_path / "dino.pth", encoder=f"timm:{name}" if named else None)
    assert loaded.inspection.facts["prefix"] == "backbone."
    assert loaded.inspection.facts["branch"] == "teacher"
    images = torch.rand(2, 3, size, size)
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


def test_an_untrained_vit_is_refused(timm, tmp_path):
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="must hold trained weights"):
        load_encoder(tmp_path / "a.pth")
    assert load_encoder(tmp_path / "a.pth", allow_untrained=True).n_dimensions == 192


def test_timm_without_a_file_and_without_weights_says_so(timm, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"timm:resnet18 must have weights that timm can fetch"):
        load_encoder("timm:resnet18")
    with pytest.warns(UserWarning, match=r"timm:resnet18 has random weights"):
        loaded = load_encoder("timm:resnet18", allow_untrained=True)
    assert loaded.n_dimensions == 512
    assert loaded.inspection.facts["trained"] == "no"
    with pytest.raises(ValueError, match="encoder must be a model of timm; got 'timm:resnet999'"):
        load_encoder("timm:resnet999")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pool": "pooler"}, "pool must be cls or mean for timm:vit_tiny_patch16_224"),
        ({"stem": "cifar"}, "stem must be left out for timm:vit_tiny_patch16_224"),
        ({"encoder": "resnet18"}, "checkpoint must hold resnet18; got 150 tensors"),
        ({"encoder_option": {"foo": 3}}, "takes; got TypeError: .* argument 'foo'"),
        ({"encoder_option": {"num_heads": 5}}, "takes; got AssertionError: dim should be div"),
        ({"image_size": 65}, r"images must be of a size that timm:vit_t.* got 65 x 65"),
    ],
)
def test_what_a_person_says_wrongly_of_a_vit_is_a_misuse(timm, tmp_path, given, sentence):
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(Misnamed, match=sentence):
        load_encoder(tmp_path / "a.pth", allow_untrained=True, **given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"encoder_option": {"num_heads": 3}}, r"encoder_option must be left out for x, whose con"),
        ({"allow_partial": ["a"]}, "allow_partial must be left out for x, which another package"),
        ({"pool": "projection"}, "pool must be cls, mean or pooler for x"),
        ({"image_size": 7}, "which fails on one of 7 x 7"),
    ],
)
def test_what_a_person_says_wrongly_of_a_folder_is_a_misuse(tmp_path, given, sentence):
    package("transformers")
    next(each for each in CASES if each.name == "folder of ViTModel").make(tmp_path / "x")
    with pytest.raises(Misnamed, match=sentence):
        load_encoder(tmp_path / "x", **given)


@pytest.mark.parametrize("given", [{"encoder": "resnet50"}, {"stem": "cifar"}, {"branch": "ema"}])
def test_what_timm_builds_by_name_takes_no_word_of_files(timm, given):
    with pytest.raises(Misnamed, match="must be left out for timm:resnet18, which timm builds"):
        load_encoder("timm:resnet18", **given)


def lightly_resnet(lightly, name="resnet-18"):
    return lightly.ResNetGenerator(name)


def test_lightly_by_name_keeps_the_stem_relu(lightly, tmp_path):
    module, images = moved(lightly_resnet(lightly), 32)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in module.state_dict().items()}},
               tmp_path / "a.ckpt")  # fmt: skip
    loaded = load_encoder(tmp_path / "a.ckpt")
    module.linear = nn.Identity()
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


@pytest.mark.parametrize("name", ["resnet-18", "resnet-34", "resnet-50"])
def test_lightly_in_a_sequential_loses_the_stem_relu(lightly, tmp_path, name):
    children = list(lightly_resnet(lightly, name).children())[:-1]
    module, images = moved(nn.Sequential(*children, nn.AdaptiveAvgPool2d(1)), 32)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in module.state_dict().items()}},
               tmp_path / "a.ckpt")  # fmt: skip
    loaded = load_encoder(tmp_path / "a.ckpt")
    assert "no stem ReLU" in loaded.inspection.facts["encoder"]
    torch.testing.assert_close(features(loaded.module, images), features(module, images), **CLOSE)


def module_of(lightning, lightly, kind):
    """SimCLR, MoCo or DINO as lightly's examples have them."""
    from lightly.models.modules import DINOProjectionHead, SimCLRProjectionHead

    class Example(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            children = list(lightly_resnet(lightly).children())[:-1]
            backbone = nn.Sequential(*children, nn.AdaptiveAvgPool2d(1))
            if kind == "dino":
                self.student_backbone, self.student_head = backbone, DINOProjectionHead(512)
                self.teacher_backbone = copy.deepcopy(backbone)
            else:
                self.backbone = backbone
                self.projection_head = SimCLRProjectionHead(512, 64, 32)
            if kind == "moco":
                self.backbone_momentum = copy.deepcopy(backbone)

        def training_step(self, batch, batch_idx):
            loss = 0.0
            for name, each in self.named_children():
                if "backbone" in name:
                    scale = 0.5 if "momentum" in name or "teacher" in name else 1.0
                    loss = loss + scale * each(batch).square().mean()
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

    return Example()


@pytest.mark.parametrize(
    ("kind", "taken", "other"),
    [("simclr", "backbone", None), ("moco", "backbone", "backbone_momentum"),
     ("dino", "teacher_backbone", "student_backbone")],
)  # fmt: skip
def test_a_checkpoint_of_the_lightning_trainer(lightly, tmp_path, kind, taken, other):
    lightning = package("pytorch_lightning")
    torch.manual_seed(2)
    module = module_of(lightning, lightly, kind)
    loader = torch.utils.data.DataLoader(torch.rand(8, 3, 32, 32), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded, images = load_encoder(tmp_path / "last.ckpt"), torch.rand(3, 3, 32, 32)
    expected = features(getattr(module.eval(), taken), images)
    torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)
    facts = loaded.inspection.facts
    assert facts["versions"]["pytorch-lightning_version"] == lightning.__version__
    roles = set(loaded.inspection.to_frame()["role"])
    assert {"encoder", "optimiser"} <= roles
    if other:
        assert f"state_dict.{other}." in facts["copies_not_taken"]
        loaded = load_encoder(tmp_path / "last.ckpt", branch=other)
        expected = features(getattr(module, other), images)
        torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)


def old_lightning(torchvision, path, parameters):
    module, images = moved(torchvision.resnet18(weights=None), 64)
    weights = {f"encoder.{key}": each for key, each in module.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": parameters,
                "pytorch-lightning_version": "1.5.10"}, path)  # fmt: skip
    module.fc = nn.Identity()
    return features(module, images), images


def test_a_namespace_of_hyper_parameters_is_harmless(torchvision, tmp_path):
    path = tmp_path / "old.ckpt"
    expected, images = old_lightning(torchvision, path, argparse.Namespace(lr=0.1))
    loaded = load_encoder(path)
    assert loaded.inspection.facts["layout"] == "lightning"
    torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)


def test_hyper_parameters_of_omegaconf_ask_for_trust(torchvision, tmp_path):
    omegaconf = package("omegaconf")
    parameters = omegaconf.OmegaConf.create({"lr": 0.1, "data": {"name": "cifar10"}})
    path = tmp_path / "old.ckpt"
    expected, images = old_lightning(torchvision, path, parameters)
    for read in (load_encoder, inspect_file):
        with pytest.raises(ValueError, match=r"asks for .*--trust-pickle"):
            read(path)
    with pytest.warns(UserWarning, match="was trusted: code in it was run"):
        loaded = load_encoder(path, trust_pickle=True)
    torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)


@pytest.mark.parametrize("low_resolution", [True, False])
def test_a_checkpoint_of_stable_pretraining(torchvision, tmp_path, monkeypatch, low_resolution):
    """Its own module, backbone and trainer callbacks write the file."""
    monkeypatch.setenv("HOME", str(tmp_path))  # it keeps notes of every run there
    spt = package("stable_pretraining")
    lightning = package("lightning")
    from stable_pretraining.backbone import from_torchvision

    def forward(self, batch, stage):
        found = {"embedding": self.backbone(batch["image"])}
        return found | {"loss": self.projector(found["embedding"]).square().mean()}

    torch.manual_seed(3)
    backbone = from_torchvision("resnet18", low_resolution=low_resolution)
    backbone.fc = nn.Identity()
    projector = nn.Sequential(nn.Linear(512, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
    optim = {"optimizer": {"type": "SGD", "lr": 0.01}, "interval": "epoch"}
    module = spt.Module(backbone=backbone, projector=projector, forward=forward, optim=optim)
    rows = [{"image": each} for each in torch.rand(8, 3, 32, 32)]
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=4))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded, images = load_encoder(tmp_path / "last.ckpt"), torch.rand(3, 3, 32, 32)
    expected = features(backbone.eval(), images)
    torch.testing.assert_close(features(loaded.module, images), expected, **CLOSE)
    stem = "cifar" if low_resolution else "imagenet"
    assert f"resnet18 ({stem} stem" in loaded.inspection.facts["encoder"]
