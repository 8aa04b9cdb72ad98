"""Planted truth on real images: a hue that an encoder picked up is found, named and taken out."""

from dataclasses import replace

import numpy as np
import pytest

from dimlab import TrainConfig, attribute, datasets, encode, erase, find_suspects, train
from dimlab.cuts import random_half
from dimlab.kernels.erasure import least_squares_eraser
from dimlab.readers import Ridge

pytestmark = pytest.mark.long
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


def test_suspects_take_the_hue_out_without_its_name(checkpoint):
    """The images worst read gain at least what they do where the hue is known, by LEACE."""
    bank = encode(checkpoint, datasets.load_images(DATA, "train"))
    queries = encode(checkpoint, datasets.load_images(DATA, "test"))
    found = find_suspects(bank, queries)
    assert found.confirmed
    assert found.n_suspects >= 2
    hue = queries.factors["hue"]
    off = np.abs(np.angle(np.exp(1j * (hue - 2 * np.pi * queries.labels / 10))))
    group = np.digitize(off, np.quantile(off, [0.25, 0.5, 0.75]))
    confirming = random_half(queries.labels, np.random.default_rng(0))

    def worst(*features):
        reader = Ridge().fit(features[0], bank.labels)
        right = reader.classify(features[1]) == queries.labels
        return min(right[confirming & (group == each)].mean() for each in range(4))

    angle = bank.factors["hue"]
    told = np.column_stack([np.cos(angle), np.sin(angle)])
    rows = bank.features.astype(np.float64) - bank.features.mean(axis=0)
    cross = rows.T @ (told - told.mean(axis=0)) / len(rows)
    known = least_squares_eraser(rows.T @ rows / len(rows), cross).matrix
    known_gone, without = (
        worst(*(each.features @ known.T for each in (bank, queries))),
        worst(found.remove(bank).features, found.remove(queries).features),
    )
    assert worst(bank.features, queries.features) < known_gone
    assert without > known_gone - 0.03
