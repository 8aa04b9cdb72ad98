from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.training.augment import Augmentation, derived_seed
from dimlab.training.config import TrainConfig


@pytest.mark.parametrize("n_channels", [1, 3])
def test_views_do_not_depend_on_how_the_batch_is_cut(n_channels, rng):
    images = torch.from_numpy(rng.random((11, n_channels, 12, 12), dtype=np.float32))
    augmentation = Augmentation(TrainConfig(), n_channels, (12, 12))
    drawn = augmentation.draw(11, seed=5)
    whole = augmentation.apply(images, drawn, slice(0, 11))
    cuts = [slice(0, 1), slice(1, 5), slice(5, 11)]
    parts = [augmentation.apply(images[rows], drawn, rows) for rows in cuts]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert not torch.allclose(whole, images, atol=0.05)


def test_same_seed_same_view_and_another_seed_another():
    augmentation = Augmentation(TrainConfig(), 1, (8, 8))
    first, again, other = (augmentation.draw(4, seed)["crop"]["src"] for seed in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_without_randomness_the_view_is_the_image(rng):
    config = replace(TrainConfig(), crop_scale=1.0, flip=0.0, jitter=0.0, grey=0.0)
    images = torch.from_numpy(rng.random((5, 3, 8, 8), dtype=np.float32))
    augmentation = Augmentation(config, 3, (8, 8))
    drawn = augmentation.draw(5, seed=0)
    factors = augmentation.factors(drawn)
    kept = factors["crop_scale"] == 1  # the aspect ratio is random still
    assert not factors["flip"].any()
    assert (factors["hue"] == 0).all()
    assert (factors["brightness"] == 1).all()
    view = augmentation.apply(images, drawn, slice(None))
    torch.testing.assert_close(view[kept], images[kept], atol=1e-5, rtol=0)


def test_factors_are_the_parameters_that_made_the_view(rng):
    config = replace(TrainConfig(), flip=0.5, jitter=0.0)
    images = torch.from_numpy(rng.random((16, 1, 10, 10), dtype=np.float32))
    augmentation = Augmentation(config, 1, (10, 10))
    drawn = augmentation.draw(16, seed=3)
    factors = augmentation.factors(drawn)
    view = augmentation.apply(images, drawn, slice(None))
    unflipped = augmentation.apply(
        images, {**drawn, "flip": {**drawn["flip"], "batch_prob": torch.zeros(16)}}, slice(None)
    )
    assert 0 < factors["flip"].sum() < 16
    for sample, flipped in enumerate(factors["flip"]):
        expected = unflipped[sample].flip(-1) if flipped else unflipped[sample]
        torch.testing.assert_close(view[sample], expected)
    assert (factors["crop_scale"] > 0.25).all()
    assert (factors["crop_scale"] <= 1).all()


def test_streams_of_one_seed_are_distinct_and_repeatable():
    seeds = {derived_seed(0, *path) for path in [(0,), (1,), (0, 0), (0, 1), (1, 0), (2, 5, 1)]}
    assert len(seeds) == 6
    assert derived_seed(7, 1, 2) == derived_seed(7, 1, 2)
