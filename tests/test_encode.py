from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab._encode import encode, encode_loader, encode_moments, encode_pixels
from dimlab.baselines import evaluate_baselines
from dimlab.datasets import ImageSet, digits
from dimlab.moments import Moments
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train, untrained

TINY = replace(TrainConfig.small(), n_dimensions=16, steps=3, batch_size=16)


@pytest.fixture(scope="module")
def images():
    return digits("train").take(range(40))


@pytest.fixture(scope="module")
def checkpoint(images):
    return train(TINY, images)


def test_features_are_the_encoder_in_evaluation_mode(checkpoint, images):
    representation = encode(checkpoint, images)
    pixels = torch.from_numpy(np.array(images.images)).float() / 255
    with torch.no_grad():
        expected = checkpoint.encoder()(pixels).numpy()
    np.testing.assert_allclose(representation.features, expected, atol=1e-6)
    np.testing.assert_array_equal(representation.labels, images.labels)
    np.testing.assert_allclose(representation.meta["mask"], checkpoint.mask.weights)
    assert representation.meta["labels_hash"] == images.labels_hash


def test_views_do_not_depend_on_the_batch_size(checkpoint, images):
    whole = encode(checkpoint, images, n_views=2)
    parts = encode(checkpoint, images, n_views=2, batch_size=7)
    np.testing.assert_allclose(parts.views, whole.views, atol=1e-5)
    assert whole.views.shape == (2, 40, 16)
    assert whole.view_factors["crop_x"].shape == (2, 40)
    # two views of an image differ, and so do two seeds
    assert np.abs(whole.views[0] - whole.views[1]).max() > 1e-3
    assert (
        np.abs(encode(checkpoint, images, n_views=1, seed=1).views[0] - whole.views[0]).max() > 1e-3
    )


def test_every_source_sees_the_same_views(checkpoint, images):
    ours = encode(checkpoint, images, n_views=2)
    pixels = encode_pixels(images, TINY, n_views=2)
    for name, value in ours.view_factors.items():
        np.testing.assert_array_equal(pixels.view_factors[name], value)
    assert pixels.features.shape == (40, 784)


@pytest.mark.parametrize(
    ("layer", "width"), [("projector-contrastive", 64), ("projector-redundancy", 128)]
)
def test_projector_layers_take_masked_features(layer, width, checkpoint, images):
    representation = encode(checkpoint, images, layer=layer)
    assert representation.features.shape == (40, width)
    masked = encode(checkpoint, images).masked(checkpoint.mask).features
    projector = checkpoint.build_network().eval()[layer.removeprefix("projector-")]
    with torch.no_grad():
        expected = projector(torch.from_numpy(masked)).numpy()
    np.testing.assert_allclose(representation.features, expected, atol=1e-5)


def test_bad_input_is_refused(checkpoint, images, rng):
    with pytest.raises(ValueError, match="layer must be one of encoder, projector-contrastive"):
        encode(checkpoint, images, layer="logits")
    with pytest.raises(ValueError, match="n_views must be >= 0"):
        encode(checkpoint, images, n_views=-1)
    other = ImageSet(np.zeros((2, 3, 28, 28), np.uint8), np.array([0, 1]), name="x")
    with pytest.raises(ValueError, match=r"images must have shape \(N, 1, 28, 28\)"):
        encode(checkpoint, other)


def test_baselines_hold_every_source_and_seed(checkpoint, images):
    held_out = digits("test").take(range(30))
    seeds = [checkpoint, train(replace(TINY, seed=1), images)]
    result = evaluate_baselines(seeds, images, held_out, readers=["knn"])
    frame = result.to_frame()
    counts = frame.groupby("source")["seed"].nunique().to_dict()
    assert counts == {"raw pixels": 1, "untrained": 2, "trained": 2}
    means = result.over_seeds().set_index(["source", "reader", "mask"])
    of_seeds = frame[(frame["source"] == "trained") & (frame["mask"] == "learned")]
    knn = of_seeds[of_seeds["reader"] == "knn"]["accuracy"]
    row = means.loc[("trained", "knn", "learned")]
    assert row["accuracy"] == pytest.approx(knn.mean())
    assert row["lowest"] == knn.min()
    assert result.summary()["n_seeds"] == 2
    start = encode(untrained(TINY, images), held_out).features
    assert start.shape == (30, 16)


def test_baselines_refuse_runs_that_differ_in_more_than_the_seed(checkpoint, images):
    with pytest.raises(ValueError, match="checkpoints must differ only in their seed"):
        evaluate_baselines(
            [checkpoint, replace(checkpoint, config=replace(TINY, steps=9))], images, images
        )
    with pytest.raises(ValueError, match="checkpoints must hold at least one"):
        evaluate_baselines([], images, images)


@pytest.mark.parametrize("layer", ["encoder", "projector-redundancy"])
@pytest.mark.parametrize("views", [False, True])
def test_moments_without_storing_features_are_those_of_the_features(
    checkpoint, images, layer, views
):
    seen = []
    found = encode_moments(
        checkpoint, images, layer=layer, views=views, batch_size=7, seed=3,
        progress=lambda *numbers: seen.append(numbers),
    )  # fmt: skip
    stored = encode(checkpoint, images, layer=layer, n_views=2, seed=3)
    expected = Moments.of(tuple(stored.views) if views else stored.features, seed=0)
    assert found.has_views == views
    assert seen[-1] == (40, 40)
    np.testing.assert_allclose(found.whole().scatters, expected.whole().scatters, atol=1e-4)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    with pytest.raises(ValueError, match=r"^layer must be one of"):
        encode_moments(checkpoint, images, layer="none")


def test_what_load_encoder_gives_is_encoded_as_its_checkpoint_is(images, tmp_path):
    from dimlab.io.weights import load_encoder

    colour = ImageSet(np.repeat(images.images, 3, axis=1), images.labels, name="grey")
    config = replace(TINY, normalisation="imagenet")
    checkpoint = train(config, colour)
    loaded = load_encoder(checkpoint.save(tmp_path / "checkpoint.pt"))
    ours = encode(checkpoint, colour, n_views=1)
    theirs = encode(loaded, colour, n_views=1)  # the normalisation that the file records
    np.testing.assert_allclose(theirs.features, ours.features, atol=1e-6)
    np.testing.assert_allclose(theirs.meta["mask"], ours.meta["mask"], atol=1e-6)
    assert theirs.views.shape == ours.views.shape
    module = checkpoint.encoder().train()
    named = encode(module, colour, normalisation="imagenet")
    np.testing.assert_allclose(named.features, ours.features, atol=1e-6)
    assert module.training
    assert np.abs(encode(module, colour).features - ours.features).max() > 1e-3
    for source in (checkpoint, loaded):
        with pytest.raises(ValueError, match="normalisation must be 'imagenet', which the checkpo"):
            encode(source, colour, normalisation="none")
    with pytest.raises(ValueError, match="layer must be 'encoder' for what is no checkpoint"):
        encode(module, colour, layer="projector-redundancy")
    with pytest.raises(ValueError, match="normalisation must be one of none, imagenet"):
        encode(module, colour, normalisation="unit")


def test_a_loader_s_labels_are_class_ids_or_refused(checkpoint):
    pixels = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    module = checkpoint.encoder()
    split = encode_loader(module, [(pixels, torch.tensor([3, 1]), torch.tensor([7, 8]))])
    assert split.labels.tolist() == [3, 1]
    for labels in ([0.5, 1.0], torch.zeros(2, 10), [{"box": 1}] * 2):
        with pytest.raises(
            ValueError, match="labels must be class ids or names, one a sample; got"
        ):
            encode_loader(module, [(pixels, labels)])
    conv = torch.nn.Identity()
    with pytest.raises(
        ValueError, match=r"features of shape \(B, D\); got \(2, 1, 28, 28\)\. Pass pool='mean'"
    ):
        encode_loader(conv, [pixels])
