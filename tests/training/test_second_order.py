"""The second-order part at a checkpoint: what training itself does there, and an oracle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dimlab.datasets import digits
from dimlab.training import step as stepping
from dimlab.training.checkpoint import load_checkpoint
from dimlab.training.config import TrainConfig
from dimlab.training.hypergradient import exact_hypergradient
from dimlab.training.loop import train, trial_of, untrained
from dimlab.training.second_order import second_order_at

CONFIG = replace(
    TrainConfig.small(), steps=4, batch_size=16, n_dimensions=8, hidden=16, contrastive_width=8,
    redundancy_width=8, precision="float64", keep_checkpoints=True, checkpoint_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return digits("train", image_size=8).take(range(64))


def test_the_trial_is_the_one_that_the_next_step_takes(images, tmp_path, monkeypatch):
    """With the trial step before the update, training meets just these weights, views and rate."""
    config = replace(CONFIG, meta_position="before")
    met = []

    def watched(trial):
        found = exact_hypergradient(trial)
        met.append((trial.learning_rate, found.direct, found.second_order))
        return found

    monkeypatch.setattr(stepping, "exact_hypergradient", watched)
    train(config, images, out=tmp_path)
    for step, (rate, direct, second_order) in enumerate(met):
        trial = trial_of(load_checkpoint(tmp_path / f"checkpoint-{step:07d}.pt"), images)
        found = exact_hypergradient(trial)
        assert trial.learning_rate == rate
        torch.testing.assert_close(found.direct, direct, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.second_order, second_order, rtol=1e-9, atol=1e-12)
    assert len(met) == 4


def test_numbers_by_hand(images):
    start = untrained(CONFIG, images)
    exact = exact_hypergradient(trial_of(start, images))
    direct, second = exact.direct.numpy(), exact.second_order.numpy()
    found = second_order_at(start, images, radius=1e-6)
    norm = np.linalg.norm
    whole = direct + second
    cosine = whole @ direct / norm(whole) / norm(direct)
    assert found.share == pytest.approx(norm(second) / norm(direct))
    assert found.cosine == pytest.approx(second @ direct / norm(second) / norm(direct))
    assert found.turn == pytest.approx(np.sqrt(1 - cosine**2))
    # the share grows with the learning rate, the rest of it is the same
    other = second_order_at(untrained(replace(CONFIG, learning_rate=0.015), images), images)
    assert other.share != pytest.approx(found.share, rel=0.01)


def test_the_finite_difference_errs_less_and_less_as_its_radius_shrinks(images):
    start = untrained(CONFIG, images)
    errors = [second_order_at(start, images, radius=radius).error for radius in (1e-2, 1e-4, 1e-6)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "simclr"}, r"^method must be 'metamask'; got 'simclr'\.$"),
        ({}, r"^checkpoint must be one before the last step, 4; got step 4\."),
    ],
)
def test_where_there_is_none_it_says_so(changes, sentence, images):
    start = replace(untrained(replace(CONFIG, **changes), images), step=4)
    with pytest.raises(ValueError, match=sentence):
        second_order_at(start, images)


def test_a_radius_of_nothing_is_refused(images):
    with pytest.raises(ValueError, match=r"^radius must be > 0; got 0\.0\.$"):
        second_order_at(untrained(CONFIG, images), images, radius=0.0)
