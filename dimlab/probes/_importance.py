"""What a reader loses without each group, with intervals and p-values, from its outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.kernels.balanced import balanced_change, balanced_interval, balanced_test
from dimlab.kernels.means import StudentisedMeans
from dimlab.kernels.paired import cluster_sums, normal_quantile, paired_interval, paired_test
from dimlab.probes._reading import Reading, Rows
from dimlab.readers.base import Outcomes, Progress, Split

SIGNIFICANT = 0.05
N_BLOCKS = 20  # of train, left out in turn
_N_SIGN_FLIPS = 9_999
_LOSS_SEED = 20_131  # draws of their own: the other draws stay what they were

Interval = Callable[[float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Importance:
    """How much each group matters by one score, and how sure that is."""

    estimate: np.ndarray
    p_value: np.ndarray
    interval: Interval
    unreliable: np.ndarray

    def over_train(self, spread: np.ndarray, n_blocks: int) -> Importance:
        """Add the variation of train: standard errors (G,) from the blocks of train left out."""
        from scipy.stats import t

        def interval(level: float) -> tuple[np.ndarray, np.ndarray]:
            low, high = self.interval(level)
            width, z = float(t.ppf(0.5 + level / 2, n_blocks - 1)), normal_quantile(level)
            return (
                self.estimate - width * np.hypot((self.estimate - low) / z, spread),
                self.estimate + width * np.hypot((high - self.estimate) / z, spread),
            )

        low, high = interval(0.95)
        distance = np.where(self.estimate > 0, self.estimate - low, high - self.estimate)
        ratio = float(t.ppf(0.975, n_blocks - 1)) * np.abs(self.estimate) / distance
        p_value = np.minimum(1.0, 2 * t.sf(ratio, n_blocks - 1))
        return Importance(self.estimate, p_value, interval, self.unreliable)


def of_losses(
    outcomes: Outcomes,
    n_classes: int,
    clusters: np.ndarray | None,
    *,
    n_bootstrap: int,
    seed: int,
) -> Importance:
    """How far the log-loss rises without each group, in nats."""
    losses = outcomes.ablated_loss - outcomes.full_loss[:, None]
    ends = [(each.min(), each.max()) for each in (outcomes.full_loss, outcomes.ablated_loss)]
    # What a row could lose that nothing was seen to move: from certain to chance, at least.
    largest = max(float(np.ptp(ends)), float(np.log(max(2, n_classes))))
    rng = np.random.default_rng(seed)
    means = StudentisedMeans.of(losses, clusters, rng, n_bootstrap, scale=largest)
    return Importance(means.mean, means.p_value, means.interval, means.unreliable)


def of_accuracy(outcomes: Outcomes, truth: np.ndarray, clusters: np.ndarray | None) -> Importance:
    """How many more test samples are right with each group than without it."""
    change = changes(outcomes, truth)

    def interval(level: float) -> tuple[np.ndarray, np.ndarray]:
        return paired_interval(change, clusters, level=level)

    full, without = _accuracies(outcomes, truth)
    return Importance(
        full - without,
        paired_test(change, clusters),
        interval,
        np.zeros(change.shape[1], dtype=bool),
    )


def of_balanced_accuracy(
    outcomes: Outcomes, truth: np.ndarray, clusters: np.ndarray | None, *, seed: int
) -> Importance:
    """How many more are right with each group than without it, as the mean over classes."""
    change = changes(outcomes, truth)

    def interval(level: float) -> tuple[np.ndarray, np.ndarray]:
        return balanced_interval(change, truth, clusters, level=level)

    return Importance(
        balanced_change(change, truth),
        balanced_test(change, truth, clusters, np.random.default_rng(seed), _N_SIGN_FLIPS),
        interval,
        np.zeros(change.shape[1], dtype=bool),
    )


def changes(outcomes: Outcomes, truth: np.ndarray) -> np.ndarray:
    """1 where only the full reader is right, -1 where only the other is; (N, G) int8."""
    right = (outcomes.full == truth)[:, None].astype(np.int8)
    return right - (outcomes.ablated == truth[:, None])


def _accuracies(outcomes: Outcomes, truth: np.ndarray) -> tuple[float, np.ndarray]:
    full = float((outcomes.full == truth).mean())
    return full, (outcomes.ablated == truth[:, None]).mean(axis=0)


def full_score_of(outcomes: Outcomes, truth: np.ndarray, score: str) -> float:
    """Score with all dimensions."""
    if score == "log_loss":
        return float(outcomes.full_loss.mean())
    right = outcomes.full == truth
    return float(right.mean() if score == "accuracy" else balanced_change(right, truth))


def measure(
    outcomes: Outcomes,
    truth: np.ndarray,
    n_classes: int,
    score: str,
    *,
    n_bootstrap: int,
    seed: int,
    clusters: np.ndarray | None,
    over_train: Callable[[], tuple[np.ndarray, np.ndarray, int]] | None,
) -> dict[str, Any]:
    """Scores, importance, intervals and p-values from what happened to each test sample."""
    losses = of_losses(
        outcomes,
        n_classes,
        clusters,
        n_bootstrap=n_bootstrap,
        seed=seed if score == "log_loss" else _LOSS_SEED,
    )
    found = losses
    if score == "accuracy":
        found = of_accuracy(outcomes, truth, clusters)
    elif score == "balanced_accuracy":
        found = of_balanced_accuracy(outcomes, truth, clusters, seed=seed)
    if over_train is not None:
        of_accuracies, of_loss, n_blocks = over_train()
        losses = losses.over_train(of_loss, n_blocks)
        found = losses if score == "log_loss" else found.over_train(of_accuracies, n_blocks)
    full_score = full_score_of(outcomes, truth, score)
    if score == "accuracy":
        scores = _accuracies(outcomes, truth)[1]
    else:
        scores = full_score + (1 if score == "log_loss" else -1) * found.estimate
    low, high = found.interval(0.95)
    return {
        "full_score": full_score,
        "scores": scores,
        "importance": found.estimate,
        "ci_low": low,
        "ci_high": high,
        "p_value": found.p_value,
        "per_class": _per_class(outcomes, truth, n_classes, score),
        "log_loss_importance": losses.estimate,
        "log_loss_p_value": losses.p_value,
        "log_loss_unreliable": losses.unreliable,
        **_selected(found),
    }


def _selected(found: Importance) -> dict[str, np.ndarray]:
    """q-values, and intervals for the groups that these select."""
    from scipy.stats import false_discovery_control

    q_value = false_discovery_control(found.p_value)
    chosen = q_value <= SIGNIFICANT
    low, high = np.full((2, len(q_value)), np.nan)
    if chosen.any():
        bounds = found.interval(1 - SIGNIFICANT * chosen.mean())
        low[chosen], high[chosen] = bounds[0][chosen], bounds[1][chosen]
    return {"q_value": q_value, "fcr_low": low, "fcr_high": high}


def _per_class(outcomes: Outcomes, truth: np.ndarray, n_classes: int, score: str) -> np.ndarray:
    """Return the importance among the samples of each class, (G, K); NaN without samples."""
    per_class = np.full((outcomes.ablated.shape[1], n_classes), np.nan)
    for code in np.unique(truth):
        rows = truth == code
        if score == "log_loss":
            lost = outcomes.ablated_loss[rows] - outcomes.full_loss[rows, None]
        else:
            right = (outcomes.full[rows] == code)[:, None].astype(np.int8)
            lost = right - (outcomes.ablated[rows] == code)
        per_class[:, code] = lost.mean(axis=0)
    return per_class


def spread_over_train(
    reading: Reading,
    train: Split,
    test: Split,
    groups: Sequence[np.ndarray],
    rows: Rows,
    seed: int,
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Jackknife errors over train (G,) of accuracy and log-loss importances; number of blocks."""
    # The reader is fitted without each of 20 blocks of train rows, or of whole clusters. Blocks
    # have like shares of every class, and a class that a block would take away whole stays.
    # Accuracy counts rows: each fit flips some near a boundary, by chance, which the jackknife
    # would multiply by 19. What the test rows' sampling alone adds to the variance over fits is
    # taken off; the interval over test samples has it already.
    blocks = train_blocks(train.codes, rows.train, seed)
    n_blocks = int(blocks.max()) + 1
    estimates = []
    total = squares = np.zeros(1)
    for block in range(n_blocks):
        kept = blocks != block
        kept |= ~np.isin(train.codes, train.codes[kept])
        some = Split(train.features[kept], train.codes[kept], train.precision)
        found = reading.outcomes(some, test, groups)
        full, without = _accuracies(found, test.codes)
        lost = (found.ablated_loss - found.full_loss[:, None]).mean(axis=0)
        estimates.append((full - without, lost))
        change = cluster_sums(changes(found, test.codes), rows.test).astype(np.float32)
        total, squares = total + change, squares + change**2
        if progress is not None:
            progress(block + 1, n_blocks)
    around = np.array(estimates) - np.mean(estimates, axis=0)
    variance = (around**2).sum(axis=0)
    n_rows, n_units = len(test.codes), len(total)
    between_rows = (squares - total**2 / n_blocks).sum(axis=0, dtype=np.float64) / n_rows**2
    by_chance = (between_rows - variance[0] / n_units) * n_units / max(1, n_units - 1)
    variance[0] = np.maximum(variance[0] - by_chance, 0.0)
    spread = np.sqrt((n_blocks - 1) / n_blocks * variance)
    return spread[0], spread[1], n_blocks


def train_blocks(codes: np.ndarray, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """Assign train rows, or whole clusters, to at most 20 blocks of like size; (N,) int."""
    units = np.arange(len(codes)) if clusters is None else clusters
    first, of_row = np.unique(units, return_index=True, return_inverse=True)[1:]
    shuffled = np.random.default_rng([seed, 20]).permutation(len(first))
    # in order of class, of size, then of chance: each block gets every twentieth
    order = np.lexsort((shuffled, np.bincount(of_row), codes[first]))
    blocks = np.empty(len(first), dtype=np.int64)
    blocks[order] = np.arange(len(first)) % min(N_BLOCKS, len(first))
    return blocks[of_row.reshape(codes.shape)]


def alone_scores(
    reading: Reading, train: Split, test: Split, groups: Sequence[np.ndarray], score: str
) -> np.ndarray:
    """Score of a reader fitted on each group alone; (G,)."""
    scores = np.empty(len(groups))
    for place, group in enumerate(groups):
        sides = [
            each._replace(features=np.ascontiguousarray(each.features[:, group]))
            for each in (train, test)
        ]
        found = reading.outcomes(sides[0], sides[1], [])
        scores[place] = full_score_of(found, test.codes, score)
    return scores
