"""Confirmation: harm is chosen on one half and judged on the other."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from dimlab.cuts import random_half
from dimlab.kernels.paired import aggregate_p_values
from dimlab.probes.ablate import ablate
from dimlab.probes.confirm_harmful import _samples_needed, confirm_harmful, split_and_confirm
from dimlab.representation import Representation
from tests import worlds


def noisy(seed, n=600):
    """One faint useful dimension (2), and a loud useless one (5) that drowns it for kNN."""
    world = worlds.informative_world(np.random.default_rng(seed), n=n)
    return Representation(world.features * [1, 1, 0.03, 1, 1, 8], labels=world.labels)


def changes(rng, n, effects, discordant=0.02):
    """Outcomes whose discordant pairs favour leaving a group out by ``effects`` of all samples."""
    effects = np.asarray(effects)
    better, worse = (discordant + effects) / 2, (discordant - effects) / 2
    u = rng.random((n, len(effects)))
    return np.where(u < better, -1, np.where(u < better + worse, 1, 0)).astype(np.int8)


def test_a_loud_useless_dimension_is_confirmed_and_the_useful_are_not():
    found = confirm_harmful(noisy(0), noisy(1), reader="knn")
    assert found.confirmed[0] == 5  # plain noise hurts kNN too, less
    assert 2 not in found.confirmed
    assert found.importance[5] < -0.02
    assert found.selected_share[5] > 0.9
    assert found.q_aggregated[2] == 1.0
    assert found.selected_share[2] == 0.0
    # the full score and the importance are those of `ablate`
    ablation = ablate(noisy(0), noisy(1), reader="knn")
    np.testing.assert_allclose(found.importance, ablation.importance, atol=1e-12)
    assert found.full_score == ablation.full_score


def test_quantiles_are_aggregated_as_published_by_hand():
    # 20 runs, gamma_min 0.05: every share j / 20 may decide. p = 0.001 in ten runs, 1 in the rest:
    # the smallest of p_(j) / (j / 20) is 0.001 / 0.5 at j = 10, times 1 - log 0.05 = 3.9957
    p = np.ones((20, 2))
    p[:10, 0] = 0.001
    np.testing.assert_allclose(aggregate_p_values(p), [0.002 * (1 - np.log(0.05)), 1.0])


def test_one_lucky_run_in_forty_decides_nothing():
    p = np.ones((40, 1))
    p[0] = 1e-9
    assert aggregate_p_values(p)[0] == 1.0  # share 1/40 is below gamma_min: the second one counts
    p[1] = 1e-9
    assert aggregate_p_values(p)[0] < 1e-6


def test_without_harm_few_worlds_confirm_anything():
    rng = np.random.default_rng(2)
    truth = np.arange(1000) % 5
    false = 0
    for _ in range(100):
        change = changes(rng, 1000, np.zeros(32), discordant=0.05)
        false += (split_and_confirm(change, truth, rng, 20)[0] <= 0.05).any()
    assert false <= 5  # every confirmation here is false: the rate is that of any at all


def test_planted_harm_is_found_and_only_that():
    rng = np.random.default_rng(3)
    truth = np.arange(4000) % 5
    found = np.zeros(8)
    for _ in range(20):
        q, _ = split_and_confirm(changes(rng, 4000, [0.02] + [0.0] * 7, 0.04), truth, rng, 20)
        found += q <= 0.05
    assert found[0] >= 19
    assert found[1:].sum() <= 1


def test_splitting_and_confirming_is_its_definition_in_loops():
    """Chosen by one half, tested on the other, adjusted among the chosen, aggregated over runs."""
    rng = np.random.default_rng(8)
    truth, n_splits = np.arange(300) % 3, 4
    change = changes(rng, 300, [0.06, 0.05, 0.05, 0.04, 0.0, 0.0], 0.1)
    q, share = split_and_confirm(change, truth, np.random.default_rng(1), n_splits)

    def p_values(rows):
        pairs = [((each < 0).sum(), (each != 0).sum()) for each in change[rows].T]
        return np.array([binomtest(b, n, alternative="greater").pvalue for b, n in pairs])

    draws, runs, chosen = np.random.default_rng(1), [], []
    for half in [random_half(truth, draws) for _ in range(n_splits)]:
        for rows in (half, ~half):
            selected = np.flatnonzero(p_values(rows) <= 0.05)
            chosen.append(np.isin(np.arange(6), selected))
            runs.append(np.ones(6))
            p = p_values(~rows)[selected]
            for place, group in enumerate(selected):
                larger = [len(p) / (p <= each).sum() * each for each in p[p >= p[place]]]
                runs[-1][group] = min(larger)
    assert max(map(np.sum, chosen)) >= 3  # there is something to adjust for
    np.testing.assert_allclose(share, np.mean(chosen, axis=0))
    np.testing.assert_allclose(q, aggregate_p_values(np.array(runs)), rtol=1e-6)


def test_the_half_that_chooses_is_not_the_half_that_confirms():
    """Harm on the first half of the samples only, and halves fixed: chosen there, never confirmed.

    Negative control: judged on the samples that chose it, its p is tiny.
    """

    class Fixed:
        """Halves that are not random: classes hold either the first or the second samples."""

        def permutation(self, rows):
            return rows

        def random(self):
            return 0.0

    change = np.zeros((400, 1), dtype=np.int8)
    change[:100] = -1  # one class: its first half is rows 0-199
    q, share = split_and_confirm(change, np.zeros(400, int), Fixed(), 3)
    assert share[0] == 0.5  # chosen by one half of each split
    assert q[0] == 1.0
    change[200:300] = -1
    assert split_and_confirm(change, np.zeros(400, int), Fixed(), 3)[0][0] < 1e-9


def few(n, share_misread, seed=0):
    """Train and test of which a share is misread: its labels are another class's."""
    train, test = noisy(seed), noisy(seed + 1, n=n)
    labels = test.labels.copy()
    wrong = np.arange(n) < round(share_misread * n)
    labels[wrong] = 1 - labels[wrong]
    features = np.zeros((n, 6))
    features[:, 2] = (2 * test.labels - 1) * 12
    clean = Representation(train.features * [0, 0, 400, 0, 0, 0], labels=train.labels)
    return clean, Representation(features, labels=labels)


@worlds.rows_repeat
@pytest.mark.parametrize(
    ("n", "share", "needed"),
    [(20, 0.5, 28), (20, 0.0, 280), (100, 0.05, 280), (20, 0.8, 0), (100, 0.2, 0), (1000, 0.02, 0)],
)
def test_too_few_misread_samples_leave_it_undecided_and_say_how_many_are_needed(n, share, needed):
    found = confirm_harmful(*few(n, share), reader="ridge")
    np.testing.assert_allclose(found.full_score, 1 - share)
    assert found.n_test_needed == found.summary()["n_test_needed"] == needed
    verdict = found.summary()["verdict"]
    start = f"undecided: at least {needed} samples are needed. Of the" if needed else "None of 6 is"
    assert verdict.startswith(start)


@pytest.mark.parametrize("n_misread", [10, 13, 14, 15, 20])
def test_the_samples_needed_are_those_at_which_mending_all_is_confirmed(n_misread):
    """Simulated halvings of rows of which some are misread, and of a removal that mends them."""
    change = np.zeros((400, 1), dtype=np.int8)
    change[:n_misread] = -1
    confirmed = [
        split_and_confirm(change, np.arange(400) % 2, np.random.default_rng(seed), 20)[0][0] <= 0.05
        for seed in range(10)
    ]
    assert any(confirmed) == (n_misread >= 14)
    assert all(confirmed) or n_misread <= 14
    needed = _samples_needed(np.arange(400) < n_misread, None)
    assert needed == max(401, np.ceil(400 * 14 / n_misread))


def test_copies_confirm_nothing_where_clusters_are_named():
    rng = np.random.default_rng(5)
    truth, ids = np.repeat(np.arange(60) % 2, 8), np.repeat(np.arange(60), 8)
    false = np.zeros(2)
    for _ in range(10):
        change = np.repeat(changes(rng, 60, np.zeros(12), discordant=0.5), 8, axis=0)
        for place, clusters in enumerate((None, ids)):
            false[place] += (split_and_confirm(change, truth, rng, 5, clusters)[0] <= 0.05).any()
    assert false[0] >= 5
    assert false[1] == 0


def test_with_a_cluster_for_each_row_the_test_is_mcnemars():
    truth = np.arange(300) % 3
    change = changes(np.random.default_rng(6), 300, [0.1, 0.0, -0.05], discordant=0.3)
    plain, _ = split_and_confirm(change, truth, Ordered(), 1)
    alone, _ = split_and_confirm(change, truth, Ordered(), 1, np.arange(300))
    np.testing.assert_allclose(alone, plain, rtol=1e-6)


class Ordered:
    """Halves that are not random: every other row of each class, with and without clusters."""

    def permutation(self, rows):
        if isinstance(rows, int):
            return np.arange(rows)
        return np.concatenate([rows[::2], rows[1::2]])

    def random(self):
        return 0.4


def test_groups_frame_and_summary():
    found = confirm_harmful(noisy(0), noisy(1), groups=[[0, 2], [5]], n_splits=4)
    frame = found.to_frame()
    assert frame["dimensions"].tolist() == ["0 2", "5"]
    assert frame["confirmed"].tolist() == [False, True]
    summary = json.loads(json.dumps(found.summary()))
    assert summary["confirmed"] == [[5]]
    assert summary["verdict"].startswith("1 of 2 confirmed")
    ids = confirm_harmful(noisy(0), noisy(1), groups=np.array([5, 9, 5, 7, 7, 1]), n_splits=4)
    assert [group.tolist() for group in ids.groups] == [[0, 2], [1], [3, 4], [5]]
    np.testing.assert_array_equal(ids.importance[[0, 3]], found.importance)
    nothing = confirm_harmful(noisy(0), noisy(1), groups=[[2]], n_splits=2).summary()
    assert nothing["verdict"].startswith("None of 1 is confirmed")
    ids = np.repeat(np.arange(300), 2)
    named = confirm_harmful(noisy(0), noisy(1), groups=[[5]], n_splits=2, clusters=ids).summary()
    assert named["clusters"] == {"n_clusters": 300, "largest": 2}


def test_the_same_seed_gives_the_same_answer():
    one, two = (confirm_harmful(noisy(0), noisy(1), n_splits=3, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.q_aggregated, two.q_aggregated)


def test_bad_arguments_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^n_splits must be >= 1; got 0\.$"):
        confirm_harmful(noisy(0), noisy(1), n_splits=0)
    with pytest.raises(
        ValueError, match=r"^groups must have one id for each of the 6 dim.*; got 2"
    ):
        confirm_harmful(noisy(0), noisy(1), groups=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"^confirm_harmful needs labels"):
        confirm_harmful(Representation(np.eye(6)), noisy(1))
