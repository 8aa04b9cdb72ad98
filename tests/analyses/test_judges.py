"""Each analysis says 'holds' where its claim is true by construction, 'fails' where it is false."""

import numpy as np
import pytest

from analyses import (
    mask_suppresses_nuisance,
    metamask_beats_baselines,
    redundancy_shrinks,
    risk_bound_orders,
    second_order_matters,
    some_dimensions_hurt,
    wider_is_not_better,
)
from tests.analyses.planted import CONFIG, drawn, images_of, judged_in

# networks of a few steps have dead dimensions
pytestmark = pytest.mark.filterwarnings("ignore:.*do not vary and are left out")
D = 16
META = ("exact", "first_order", "lookahead")


def plain(split):
    """Classes differ in the first source; the other two say nothing."""
    _, labels, sources = drawn(split)
    sources[:, 0] = 0.3 + 0.4 * labels + 0.1 * (sources[:, 0] - 0.5)
    return images_of(sources, labels, split)


def random_sources(split):
    _, labels, sources = drawn(split)
    return images_of(sources, labels, split)


def one_hot(source, gain=1.0):
    """Weights of a dimension that reads one source."""
    return gain * np.eye(3)[source]


def in_pairs(*gains):
    """Weights and bias of D dimensions: (gain * source, gain * (1 - source)) of each, repeated.

    Of a pair one dimension is large where the other is small, so that normalising a row, as kNN
    does, loses nothing of it.
    """
    weights, bias = np.zeros((D, 3)), np.zeros(D)
    for place in range(0, D, 2):
        source = place // 2 % 3
        weights[place], weights[place + 1] = (
            one_hot(source, gains[source]),
            -one_hot(source, gains[source]),
        )
        bias[place + 1] = gains[source]
    return weights, bias


@pytest.mark.long
@pytest.mark.parametrize(("spread", "answer"), [(True, "holds"), (False, "fails")])
def test_redundancy_shrinks(spread, answer, tmp_path):
    def world(config, rng):
        reads = np.arange(D) % 3 if spread and "barlow" in config.method else np.zeros(D, int)
        weights = np.stack([one_hot(source) for source in reads])
        return weights + 0.02 * rng.random((D, 3)), np.zeros(D), None

    verdict = judged_in(redundancy_shrinks, world, random_sources, tmp_path)
    assert verdict.answer == answer
    # groups of 6, 5 and 5 dimensions: 30 + 20 + 20 of 240 pairs are equal, the others independent
    expected = 1 - 70 / 240 if spread else 0.0
    assert verdict.effect == pytest.approx(expected, abs=0.03)


@pytest.mark.long
@pytest.mark.parametrize(("best", "answer"), [(64, "holds"), (1024, "fails")])
def test_wider_is_not_better(best, answer, tmp_path):
    def world(config, rng):
        weights, bias = in_pairs(1.0 if config.redundancy_width == best else 0.05, 1.0, 1.0)
        return weights + 0.01 * rng.random((D, 3)), bias, None

    verdict = judged_in(wider_is_not_better, world, plain, tmp_path)
    assert verdict.answer == answer
    narrower, widest = (part.answer for part in verdict.parts)  # each less the narrowest
    if best == 64:
        assert "narrower widths 64 was chosen" in verdict.because
        assert (narrower, widest) == ("holds", "fails")
    else:
        assert (narrower, widest) == ("fails", "holds")
        assert verdict.ci_high < 0


@pytest.mark.long
def test_widths_that_win_with_some_seeds_and_lose_with_others_are_undecided(tmp_path):
    def world(config, rng):
        best = 64 if config.seed % 2 else 1024
        weights, bias = in_pairs(1.0 if config.redundancy_width == best else 0.05, 1.0, 1.0)
        return weights + 0.01 * rng.random((D, 3)), bias, None

    verdict = judged_in(wider_is_not_better, world, plain, tmp_path)
    assert verdict.answer == "undecided"
    assert verdict.n_needed > 5


@pytest.mark.long
@pytest.mark.parametrize(("harms", "answer"), [(True, "holds"), (False, "fails")])
def test_some_dimensions_hurt(harms, answer, tmp_path, monkeypatch):
    def images(split):
        rng, labels, sources = drawn(split, 800)
        sources[:, 0] = 0.3 + 0.2 * labels + 0.25 * (sources[:, 0] - 0.5)  # a weak truth
        told = rng.permutation(labels) if harms and split == "test" else labels
        sources[:, 2] = 0.3 + 0.4 * told + 0.1 * (sources[:, 2] - 0.5)  # strong, false on test
        return images_of(sources, labels, split)

    def world(config, rng):
        weights = np.stack([one_hot(2), *[one_hot(place % 2) for place in range(D - 1)]])
        weights[1:, :2] += 0.2 * rng.random((D - 1, 2))
        return weights, np.zeros(D), None

    monkeypatch.setattr(some_dimensions_hurt, "N_MASKS", {"ridge": 40, "knn": 4})
    verdict = judged_in(some_dimensions_hurt, world, images, tmp_path, seeds=3)
    assert verdict.answer == answer
    assert ("1.0 (axes, ridge)" in verdict.because) == harms  # the planted dimension is confirmed


@pytest.mark.long
@pytest.mark.parametrize(("masks", "answer"), [(True, "holds"), (False, "fails")])
def test_metamask_beats_baselines(masks, answer, tmp_path):
    noisy = np.arange(D) // 2 % 3 > 0

    def world(config, rng):
        weights, bias = in_pairs(0.05 if masks else 0.3, 1.0, 1.0)
        learned = masks and config.method == "metamask" and config.hypergradient in META
        learned = learned and config.steps >= CONFIG.steps  # not in half of them
        logits = np.where(noisy, -4.0, 4.0) if learned else 0.1 * rng.normal(size=D)
        return weights + 0.02 * rng.random((D, 3)), bias, logits

    taken = {"simclr": 1, "barlow-twins": 1, "both": 1, "joint": 1}
    taken |= dict.fromkeys(("first-order", "exact", "lookahead"), 2)
    chosen = {family: {"seconds_per_step": seconds} for family, seconds in taken.items()}
    verdict = judged_in(metamask_beats_baselines, world, plain, tmp_path, chosen=chosen)
    assert verdict.answer == answer
    answers = {part.claim: part.answer for part in verdict.parts}
    assert verdict.parts[0].claim == "At equal seconds"  # where none has learned its mask yet
    assert verdict.parts[0].answer != "holds"
    assert verdict.parts[0].effect < 0.02
    untimed = judged_in(metamask_beats_baselines, world, plain, tmp_path, seeds=2)
    assert "At equal seconds" not in {part.claim for part in untimed.parts}
    assert (
        answers["Masking helps kNN: the learned mask against none on the same features"] == answer
    )
    assert answers["Read by ridge"] == "fails"  # a reader that relearns every scale


@pytest.mark.long
@pytest.mark.parametrize(("masks", "answer"), [(True, "holds"), (False, "fails")])
def test_second_order_matters(masks, answer, tmp_path):
    noisy = np.arange(D) // 2 % 3 > 0

    def world(config, rng):
        weights, bias = in_pairs(0.05 if masks else 0.3, 1.0, 1.0)
        learned = masks and config.hypergradient == "exact"
        logits = np.where(noisy, -4.0, 4.0) if learned else 0.1 * rng.normal(size=D)
        return weights + 0.02 * rng.random((D, 3)), bias, logits

    verdict = judged_in(second_order_matters, world, plain, tmp_path)
    assert verdict.answer == answer
    assert "(step 0), " in verdict.parts[0].because
    assert np.isfinite([part.effect for part in verdict.parts]).all()


@pytest.mark.long
@pytest.mark.parametrize(("falls", "answer"), [(True, "holds"), (False, "fails")])
def test_mask_suppresses_nuisance(falls, answer, tmp_path):
    size = 128

    def images(split):
        _, labels, sources = drawn(split)
        sources[:, 0] = 0.2 + 0.4 * labels + 0.2 * sources[:, 0]
        return images_of(sources, labels, split, tint=sources[:, 2])

    def world(config, rng):
        share = rng.permutation(np.linspace(0, 1, size))
        weights = np.outer(1 - share, np.eye(3)[1]) + np.outer(share, np.eye(3)[2])
        logits = -3 * share if falls and config.hypergradient in META else rng.normal(size=size)
        return weights, np.zeros(size), logits

    verdict = judged_in(mask_suppresses_nuisance, world, images, tmp_path, n_dimensions=size)
    assert verdict.answer == answer
    answers = {part.claim: part.answer for part in verdict.parts}
    assert answers["A jointly trained mask does so too (control)"] == "fails"


@pytest.mark.long
@pytest.mark.parametrize(("orders", "answer"), [(True, "holds"), (False, "fails")])
def test_risk_bound_orders(orders, answer, tmp_path):
    """True: noise that views do not share raises bound and risk. False: a constant hides all."""
    kinds = ["simclr", "barlow-twins", "simclr+barlow-twins", "none", "joint", *META]

    def images(split):
        _, labels, sources = drawn(split)
        sources[:, 0] = 0.2 + 0.3 * labels
        sources[:, 1] = 0.5 - 0.3 * labels
        sources[:, 2] = 0.5
        return images_of(sources, labels, split)

    def world(config, rng):
        kind = config.hypergradient if config.method == "metamask" else config.method
        rank = kinds.index(kind) + 0.3 * rng.random()
        noise = 2.0 if orders else 12.0
        noise *= rank / len(kinds) if orders else 1.0
        weights, bias = np.zeros((D, 3)), np.zeros(D)
        weights[:2] = one_hot(0), one_hot(1)
        weights[2], bias[2] = one_hot(2, noise), -0.5 * noise  # brightness, as a view has it
        weights[3], bias[3] = one_hot(2, -noise), 0.5 * noise
        bias[4] = 0.0 if orders else 3.0 * rank / len(kinds)
        return weights, bias, None

    verdict = judged_in(risk_bound_orders, world, images, tmp_path)
    assert verdict.answer == answer
    assert (verdict.effect > 0.8) == orders
