"""The table of layouts and the rules of choice, on keys and shapes alone: no weights are stored."""

import re

import pytest
import torch

from dimlab.io.assumptions import settled
from dimlab.io.blueprints import Blueprint, blueprint_at, vit_at, vit_prefixes
from dimlab.io.inspecting import find_mask
from dimlab.io.layouts import BRANCHES, ROLES, SPELLINGS, branch_of, layouts, role_of
from dimlab.io.matching import find_encoder
from dimlab.io.places import Wanted
from dimlab.io.refusing import trained
from dimlab.io.unpickle import Opened
from dimlab.training.encoders import BUILT

RESNET18 = Blueprint("resnet18", stem="imagenet")


def weights(blueprint=RESNET18, prefix="", value=1.0, spelling=SPELLINGS[0]):
    """Tensors of the right shapes that take no memory."""
    spell = spelling.of
    return {
        f"{prefix}{spell(key)}": torch.full((1,) * len(shape), value).expand(shape)
        for key, shape in blueprint.shapes().items()
    }


def found_in(tensors, *containers, **options):
    wanted = Wanted(**options)
    return settled(find_encoder(Opened("torch", tensors, {}, ("", *containers)), wanted), wanted)


def test_every_row_of_the_table_says_why():
    assert len({each.name for each in layouts()}) == len(layouts())
    for each in layouts():
        assert re.fullmatch(r"\w.*[^.]\.", each.why)
        re.compile(each.prefix)
    words = [word for each in BRANCHES.values() for word in each]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("prefix", "container", "layout"),
    [
        ("", "", "bare"),
        ("backbone.", "", "bare"),
        ("module.", "", "ddp"),
        ("model.module.backbone.", "model", "ddp"),
        ("state_dict.", "state_dict", "container"),
        ("net.", "net", "container"),
        ("encoder.", "encoder", "container"),
        ("state_dict.module.encoder_q.", "state_dict", "moco"),
        ("online_encoder.net.", "", "moco"),
        ("teacher.module.backbone.", "teacher", "dino"),
        ("student.backbone.", "student", "dino"),
        ("model_ema.module.", "model_ema", "ema"),
        ("ema_model.", "", "ema"),
        ("classy_state_dict.base_model.model.trunk._feature_blocks.",
         "classy_state_dict.base_model.model.trunk", "vissl"),
        ("some.unknown_place.", "", "other"),
    ],
)  # fmt: skip
def test_a_prefix_has_its_layout(prefix, container, layout):
    match = found_in(weights(prefix=prefix), *filter(None, [container]))
    assert (match.layout.name, match.container) == (layout, container)
    assert match.place.is_whole
    assert "120 of 120 keys of resnet18" in match.why
    assert match.layout.why in match.why


@pytest.mark.parametrize("number", range(len(SPELLINGS)))
def test_every_spelling_is_told_from_the_others(number):
    spelling = SPELLINGS[number]
    blueprint = Blueprint("resnet18", stem="imagenet" if spelling.pools else "cifar")
    match = found_in(weights(blueprint, "backbone.", spelling=spelling))
    assert match.place.spelling is spelling
    assert match.place.is_whole
    assert match.blueprint.stem_relu == spelling.stem_relu


@pytest.mark.parametrize("name", [each for each in BUILT if each != "convnet"])
@pytest.mark.parametrize(("stem", "channels"), [("cifar", 1), ("imagenet", 3)])
def test_depth_stem_and_channels_are_told_by_the_shapes(name, stem, channels):
    blueprint = Blueprint(name, channels, stem)
    assert found_in(weights(blueprint, "module.")).blueprint == blueprint


def test_the_width_of_a_convnet_is_told_by_the_shapes():
    blueprint = Blueprint("convnet", 1, width=64)
    assert found_in(weights(blueprint)).blueprint == blueprint
    # the three convolutions of a bottleneck have a convnet's names, and other shapes
    assert found_in(weights(Blueprint("resnet50", stem="cifar"))).blueprint.name == "resnet50"
    assert blueprint_at("convnet", {}, {}).width == 128


def test_a_smaller_encoder_inside_a_larger_one_is_not_whole():
    large = weights(Blueprint("resnet34", stem="imagenet"))
    best = found_in(large, encoder="resnet18").place
    assert not best.missing
    assert not best.mismatched
    assert "layer1.2.conv1.weight" in best.inside
    assert not best.is_whole


def test_what_lies_outside_the_encoder_s_parts_is_no_matter():
    beside = ("fc.weight", "queue", "head.0.bias", "projector.bn.weight", "optimizer.state.0")
    match = found_in(weights() | {key: torch.ones(2) for key in beside})
    assert match.place.is_whole
    assert match.unexpected == ()


def test_old_files_without_counts_of_batches_are_whole():
    tensors = {k: each for k, each in weights().items() if not k.endswith("num_batches_tracked")}
    assert found_in(tensors).place.is_whole


@pytest.mark.parametrize(
    ("taken", "left"),
    [("teacher", "student"), ("encoder_q", "encoder_k"), ("online_encoder", "target_encoder"),
     ("backbone", "backbone_momentum"), ("ema", "model"), ("backbone", "resnet_simsiam_.backbone")],
)  # fmt: skip
def test_of_two_branches_the_rule_takes_the_one_that_is_evaluated(taken, left):
    both = weights(prefix=f"{left}.", value=2.0) | weights(prefix=f"{taken}.")
    match = found_in(both)
    assert match.place.prefix == f"{taken}."
    assert match.copies == (f"{left}.",)
    assert "by the rule: the branch that its authors evaluate" in match.why
    asked = found_in(both, branch=left)
    assert asked.place.prefix == f"{left}."
    assert "as asked for" in asked.why


def test_a_damaged_branch_is_not_replaced_by_another():
    both = weights(prefix="encoder_q.") | weights(prefix="encoder_k.", value=2.0)
    both["encoder_q.conv1.wieght"] = both.pop("encoder_q.conv1.weight")
    match = found_in(both)
    assert match.place.prefix == "encoder_q."
    assert match.place.missing == ("conv1.weight",)


def test_equal_copies_are_aliases():
    both = weights(prefix="backbone.") | weights(prefix="simsiam.backbone.")
    match = found_in(both)
    assert match.place.prefix == "backbone."
    assert set(match.aliases) == {key for key in both if key.startswith("simsiam.")}
    assert "Equal copies stand under 'simsiam.backbone.'" in match.why


def test_two_encoders_are_refused_with_the_flag_that_chooses():
    both = weights(prefix="left.") | weights(prefix="right.", value=2.0)
    sentence = r"branch must say which .* 'left' or 'right'; got none\. .*\(--branch right\)"
    match = found_in(both)
    assert re.match(sentence, match.doubt)
    assert match.choices == (
        "resnet18 under 'left.' (120 of 120 keys)", "resnet18 under 'right.' (120 of 120 keys)",
    )  # fmt: skip
    chosen = found_in(both, branch="right")
    assert (chosen.place.prefix, chosen.doubt) == ("right.", None)


def test_an_encoder_that_two_depths_explain_equally_must_be_named():
    few = {k: each for k, each in weights().items() if k.startswith(("conv1", "bn1"))}
    exact = found_in(few, encoder="resnet18")
    assert len(exact.place.missing) > 90
    with pytest.raises(ValueError, match=r"got 2 tensors, which are not called .* are: a, b"):
        found_in({"a": torch.ones(2), "b": torch.ones(3)})


def test_compiled_modules_are_read_wherever_the_word_stands():
    tensors = {f"module.{k.replace('layer1.', 'layer1._orig_mod.')}": v
               for k, v in weights().items()}  # fmt: skip
    assert found_in(tensors).place.is_whole
    assert found_in(weights(prefix="_orig_mod.module.")).layout.name == "ddp"


def test_branches_by_name():
    assert [branch_of(each) for each in ("", "teacher.x.", "y.encoder_k.")] == [
        "online", "teacher", "momentum",
    ]  # fmt: skip


def test_vision_transformers_are_told_by_their_shapes():
    shapes = {
        "t.patch_embed.proj.weight": (384, 3, 14, 14), "t.pos_embed": (1, 1370, 384),
        "t.blocks.0.ls1.gamma": (384,),
    }  # fmt: skip
    assert vit_prefixes(shapes) == ["t."]
    vit = vit_at("t.", shapes)
    assert vit.name == "timm:vit_small_patch14_dinov2"
    options = dict(vit.options)
    assert (options["img_size"], options["num_heads"], options["depth"]) == (518, 6, 1)
    assert vit_prefixes({"x.patch_embed.proj.weight": (1, 1, 1, 1)}) == []


@pytest.mark.parametrize(
    ("count", "given", "has_no_class_position"),
    [(26, {}, False), (25, {}, True), (25, {"img_size": (56, 84)}, False),
     (24, {"img_size": (56, 84)}, True)],
)  # fmt: skip
def test_positions_of_a_vision_transformer_are_of_squares_unless_that_is_said(
    count, given, has_no_class_position
):
    shapes = {"patch_embed.proj.weight": (192, 3, 14, 14), "pos_embed": (1, count, 192),
              "cls_token": (1, 1, 192), "blocks.0.norm1.weight": (192,)}  # fmt: skip
    options = dict(vit_at("", shapes, None, given).options)
    assert options["img_size"] == given.get("img_size", 70)
    assert options["no_embed_class"] is has_no_class_position


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("optimizer_states.0.state.0.momentum_buffer", "optimiser"),
        ("optimizer.state.0.exp_avg", "optimiser"),
        ("state_dict.auto_mask.mask", "mask"),
        ("mask_logits", "mask"),
        ("state_dict.projector.0.weight", "projector"),
        ("model.module.bn.running_mean", "projector"),
        ("network.contrastive.0.weight", "projector"),
        ("state_dict.prototypes.weight", "head"),
        ("fc.weight", "head"),
        ("head.weight", "head"),
        ("state_dict.prediction_mlp.layers.0.weight", "head"),
        ("queue", "other"),
    ],
)
def test_names_tell_what_tensors_are_for(key, role):
    assert role_of(key) == role
    assert role in ROLES


@pytest.mark.parametrize(
    ("recorded", "start", "kind"),
    [({}, 0.05, "logits"), ({}, 0.95, "weights"),
     ({"hyper_parameters.disable_sigmoid": True}, 0.05, "weights"),
     ({"hyper_parameters.disable_sigmoid": False}, 0.95, "logits")],
)  # fmt: skip
def test_a_mask_holds_logits_or_weights(recorded, start, kind):
    values = torch.tensor([start, start + 0.2, start - 0.1])
    mask = find_mask(Opened("torch", {"state_dict.auto_mask.mask": values}, recorded))
    assert mask.kind == kind
    scale = max(values.abs().max(), 1) if values.min() >= 0 else values.abs().max()
    expected = values.sigmoid() if kind == "logits" else values.abs() / scale
    torch.testing.assert_close(torch.tensor(mask.mask().weights).float(), expected)
    assert mask.summary()["n"] == 3


def test_a_layer_that_no_image_has_moved_is_seen():
    two = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2))
    assert trained(two.state_dict()) == "no"
    two[1](torch.eye(2))
    assert trained(two.state_dict()) == "in part"
    two[0](torch.eye(2))
    assert trained(two.state_dict()) == "yes"
    norm = torch.nn.Sequential(torch.nn.LayerNorm(2))
    assert trained(norm.state_dict()) == "no"
    assert trained({k: each + 0.1 for k, each in norm.state_dict().items()}) == "yes"
    assert trained({"weight": torch.ones(2, 2)}) == "unknown"
