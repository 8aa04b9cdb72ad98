"""Planted truth on real images: a hue that an encoder picked up is found, named and taken out."""

from dataclasses import replace

import numpy as np
import pytest

from dimlab import TrainConfig, attribute, datasets, encode, erase, train

pytestmark = pytest.mark.slow
DATA = "fashion-mnist+hue:0.8"
SIX_DECOYS = ("crop_x", "crop_y", "crop_scale", "brightness", "number", "category")


@pytest.fixture(scope="module")
def checkpoint():
    try:
        images = datasets.load_images(DATA, "train")
    except (FileNotFoundError, OSError):
        pytest.skip("Fashion-MNIST is not there: apt-get install dataset-fashion-mnist")
    config = replace(
        TrainConfig.medium(), method="simclr", n_dimensions=64, batch_size=128, steps=400,
        jitter=0.0, grey=0.0,
    )  # fmt: skip
    return train(config, images)


def test_hue_leads_the_decoys_and_its_directions_take_it_out(checkpoint):
    rng = np.random.default_rng(0)
    images = datasets.load_images(DATA, "test")
    decoys = {"number": rng.normal(size=len(images)), "category": rng.integers(0, 5, len(images))}
    images = replace(images, factors={**images.factors, **decoys})
    # brightness was never varied in training; views vary it here, to be a decoy
    jittered = replace(checkpoint, config=replace(checkpoint.config, jitter=0.8))
    bank = encode(checkpoint, datasets.load_images(DATA, "train"))
    queries = encode(jittered, images, n_views=2)
    held_out = encode(checkpoint, datasets.load_images(DATA, "validation"))

    found = attribute(bank, queries.per_view(), n_permutations=50)
    assert set(SIX_DECOYS) <= set(found.factors)
    assert found.leading_factor == "hue"
    hue = found.factors.index("hue")
    typical = np.median(np.nan_to_num(found.effect), axis=0)  # NaN: the same in all views
    print({name: round(float(typical[f]), 4) for f, name in enumerate(found.factors)})
    assert (found.leading == hue).mean() > 0.5
    for decoy in SIX_DECOYS:
        assert typical[found.factors.index(decoy)] < typical[hue] / 2
    for chance in ("number", "category"):
        assert np.nanmax(found.effect[:, found.factors.index(chance)]) < 0.01

    result = erase(bank, queries, factor="hue", in_distribution=held_out)
    frame = result.to_frame().set_index(["split", "way"])
    assert frame.loc[("test", "nothing"), "factor_r_squared"] > 0.99
    named, random = (frame.loc[("test", way)] for way in ("directions", "random directions"))
    assert named["factor_lost_low"] >= 0.3
    assert named["factor_lost"] > random["factor_lost"] + 0.2
    assert named["accuracy_change_low"] < named["accuracy_change"] < named["accuracy_change_high"]
    assert frame.loc[("test", "LEACE"), "factor_r_squared"] < 0.01
    for sentence in result.summary()["in_words"]:
        print(sentence)
