"""What a reader loses without each group, with intervals and p-values, from its outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dimlab.kernels.balanced import balanced_change, balanced_interval, balanced_test
from dimlab.kernels.collinearity import redundant_groups
from dimlab.kernels.means import StudentisedMeans
from dimlab.kernels.paired import cluster_sums, normal_quantile, paired_interval, paired_test
from dimlab.probes._contributions import Contributions
from dimlab.probes._reading import Task
from dimlab.readers.base import Outcomes, Split
from dimlab.readers.linear import Linear
from dimlab.representation import Representation
from dimlab.targets import CLASSES

SIGNIFICANT = 0.05
N_BLOCKS = 20  # of train, left out in turn
N_NAMED = 10
_DECIMALS = 10  # of what is put in order: equal ones stay in the order of the call
_N_SIGN_FLIPS = 9_999
_N_LOOKED_AT = 1_000
_LOSS_SEED = 20_131  # draws of their own: the other draws stay what they were


class Decided:
    """Which groups are needed, harmful or undecided, by their importance and q-values."""

    groups: tuple[np.ndarray, ...]
    importance: np.ndarray
    q_value: np.ndarray

    @property
    def needed(self) -> np.ndarray:
        """Groups with q <= 0.05 and positive importance, most important first; (n,) int."""
        return self._in_order(-1, (self.q_value <= SIGNIFICANT) & (self.importance > 0))

    @property
    def harmful(self) -> np.ndarray:
        """Groups with q <= 0.05 and negative importance, most harmful first; (n,) int."""
        return self._in_order(1, (self.q_value <= SIGNIFICANT) & (self.importance < 0))

    @property
    def undecided(self) -> np.ndarray:
        """Groups with q > 0.05, by importance, lowest first; (n,) int."""
        return self._in_order(1, self.q_value > SIGNIFICANT)

    def _in_order(self, sign: int, chosen: np.ndarray) -> np.ndarray:
        """Return chosen groups by rising importance, or by falling one where the sign is -1."""
        order = np.argsort(sign * self.importance.round(_DECIMALS), kind="stable")
        return order[chosen[order]]

    def _dimensions_of(self, groups: Iterable[int]) -> list[list[int]]:
        """Name the dimensions of up to ten groups."""
        return [self.groups[group].tolist() for group in list(groups)[:N_NAMED]]


@dataclass(frozen=True, eq=False)
class Importance:
    """How much each group matters by one score, and how sure that is."""

    lost: np.ndarray  # (N, G) by each test row
    estimate: np.ndarray  # (G,) as the rest
    p_value: np.ndarray
    interval: Callable[..., tuple[np.ndarray, np.ndarray]]  # of a ``level``
    unreliable: np.ndarray

    @classmethod
    def of_means(
        cls,
        lost: np.ndarray,
        clusters: np.ndarray | None,
        rng: np.random.Generator,
        n_bootstrap: int,
        *,
        scale: float = 1.0,
    ) -> Importance:
        """Take what rows lose (N, G) to matter on average, with bootstrap-t inference."""
        means = StudentisedMeans.of(lost, clusters, rng, n_bootstrap, scale=scale)
        return cls(lost, means.mean, means.p_value, means.interval, means.unreliable)

    def over_train(self, spread: np.ndarray, n_blocks: int) -> Importance:
        """Add the variation of train: standard errors (G,) from the blocks of train left out."""
        from scipy.stats import t

        def interval(*, level: float) -> tuple[np.ndarray, np.ndarray]:
            low, high = self.interval(level=level)
            width, z = float(t.ppf(0.5 + level / 2, n_blocks - 1)), normal_quantile(level)
            return (
                self.estimate - width * np.hypot((self.estimate - low) / z, spread),
                self.estimate + width * np.hypot((high - self.estimate) / z, spread),
            )

        low, high = interval(level=0.95)
        distance = np.where(self.estimate > 0, self.estimate - low, high - self.estimate)
        ratio = float(t.ppf(0.975, n_blocks - 1)) * np.abs(self.estimate) / distance
        p_value = np.minimum(1.0, 2 * t.sf(ratio, n_blocks - 1))
        return replace(self, p_value=p_value, interval=interval)


def of_losses(task: Task, outcomes: Outcomes, n_bootstrap: int, seed: int) -> Importance:
    """How far the log-loss rises without each group, in nats."""
    lost = outcomes.ablated_loss - outcomes.full_loss[:, None]
    ends = [(each.min(), each.max()) for each in (outcomes.full_loss, outcomes.ablated_loss)]
    # What a row could lose that nothing was seen to move: from certain to chance, at least.
    largest = max(float(np.ptp(ends)), float(np.log(max(2, len(task.classes)))))
    rng = np.random.default_rng(seed)
    return Importance.of_means(lost, task.test.clusters, rng, n_bootstrap, scale=largest)


def of_contributions(task: Task, found: Contributions, n_bootstrap: int, seed: int) -> Importance:
    """How far a score of real values or rankings falls without each group."""
    lost = found.full[:, None] - found.ablated
    rng, largest = np.random.default_rng(seed), max(float(np.ptp(found.ablated)), 1.0)
    return Importance.of_means(lost, task.test.clusters, rng, n_bootstrap, scale=largest)


def of_rows_right(task: Task, outcomes: Outcomes, score: str) -> Importance:
    """How many more test samples are right with each group than without it."""
    truth, clusters = task.test.target, task.test.clusters
    change = changes(outcomes, truth)
    reliable = np.zeros(change.shape[1], dtype=bool)
    if score == "accuracy":
        estimate = full_score_of(outcomes, truth, score) - _accuracies(outcomes, truth)
        interval = partial(paired_interval, change, clusters)
        return Importance(change, estimate, paired_test(change, clusters), interval, reliable)
    rng = np.random.default_rng(task.run.seed)
    p_value = balanced_test(change, truth, clusters, rng, _N_SIGN_FLIPS)
    interval = partial(balanced_interval, change, truth, clusters)
    return Importance(change, balanced_change(change, truth), p_value, interval, reliable)


def changes(outcomes: Outcomes, truth: np.ndarray) -> np.ndarray:
    """1 where only the full reader is right, -1 where only the other is; (N, G) int8."""
    right = (outcomes.full == truth)[:, None].astype(np.int8)
    return right - (outcomes.ablated == truth[:, None])


def _accuracies(outcomes: Outcomes, truth: np.ndarray) -> np.ndarray:
    """Accuracy without each group; (G,)."""
    return np.mean(outcomes.ablated == truth[:, None], axis=0)


def full_score_of(outcomes: Outcomes, truth: np.ndarray, score: str) -> float:
    """Score with all dimensions."""
    if score == "log_loss":
        return float(outcomes.full_loss.mean())
    right = outcomes.full == truth
    return float(right.mean() if score == "accuracy" else balanced_change(right, truth))


def measure(
    task: Task, outcomes: Outcomes, score: str, *, n_bootstrap: int, resample: str
) -> dict[str, Any]:
    """Fields of `Ablation` for classes: scores, importance, intervals and p-values."""
    truth = task.test.target
    seed = task.run.seed if score == "log_loss" else _LOSS_SEED
    losses = of_losses(task, outcomes, n_bootstrap, seed)
    found = losses if score == "log_loss" else of_rows_right(task, outcomes, score)
    if resample == "train":
        of_accuracy, of_loss, n_blocks = spread_over_train(task)
        losses = losses.over_train(of_loss, n_blocks)
        found = losses if score == "log_loss" else found.over_train(of_accuracy, n_blocks)
    full_score = full_score_of(outcomes, truth, score)
    if score == "accuracy":
        scores = _accuracies(outcomes, truth)
    else:
        scores = full_score + (1 if score == "log_loss" else -1) * found.estimate
    per_class = np.full((len(scores), len(task.classes)), np.nan)
    tested = score != "log_loss" and task.test.clusters is None
    per_class_p = np.full_like(per_class, np.nan)
    for code in np.unique(truth):
        lost = found.lost[truth == code]
        per_class[:, code] = lost.mean(axis=0)
        if tested:
            per_class_p[:, code] = paired_test(lost)
    return {
        "full_score": full_score,
        "scores": scores,
        **tested_fields(found),
        "per_class": per_class,
        "per_class_q": adjusted(per_class_p),
        "log_loss_importance": losses.estimate,
        "log_loss_p_value": losses.p_value,
        "log_loss_unreliable": losses.unreliable,
    }


def measure_contributions(
    task: Task, found: Contributions, score: str, *, n_bootstrap: int, resample: str
) -> dict[str, Any]:
    """Fields of `Ablation` for real values and several labels a sample."""
    importance = of_contributions(task, found, n_bootstrap, task.run.seed)
    if resample == "train":
        importance = importance.over_train(*values_over_train(task, score))
    return {
        "full_score": float(found.full.mean()),
        "scores": found.full.mean() - importance.estimate,
        **tested_fields(importance),
        "per_class": np.empty((found.ablated.shape[1], 0)),
    }


def tested_fields(found: Importance) -> dict[str, Any]:
    """Importances with 95 % intervals, p-values, q-values, and FCR intervals of those found."""
    from scipy.stats import false_discovery_control

    low, high = found.interval(level=0.95)
    q_value = false_discovery_control(found.p_value)
    chosen = q_value <= SIGNIFICANT
    fcr_low, fcr_high = np.full((2, len(q_value)), np.nan)
    if chosen.any():
        bounds = found.interval(level=1 - SIGNIFICANT * chosen.mean())
        fcr_low[chosen], fcr_high[chosen] = bounds[0][chosen], bounds[1][chosen]
    return {
        "importance": found.estimate,
        "ci_low": low,
        "ci_high": high,
        "p_value": found.p_value,
        "q_value": q_value,
        "fcr_low": fcr_low,
        "fcr_high": fcr_high,
    }


def adjusted(p_value: np.ndarray) -> np.ndarray:
    """Adjust p-values after Benjamini and Hochberg over all that are known; NaN stays."""
    from scipy.stats import false_discovery_control

    q_value = np.full(p_value.shape, np.nan)
    known = ~np.isnan(p_value)
    if known.any():
        q_value[known] = false_discovery_control(p_value[known])
    return q_value


def spread_over_train(task: Task) -> tuple[np.ndarray, np.ndarray, int]:
    """Jackknife errors over train (G,) of accuracy and log-loss importances; number of blocks."""
    # The reader is fitted without each of 20 blocks of train rows, or of whole clusters. Blocks
    # have like shares of every class, and a class that a block would take away whole stays.
    # Accuracy counts rows: each fit flips some near a boundary, by chance, which the jackknife
    # would multiply by 19. What the test rows' sampling alone adds to the variance over fits is
    # taken off; the interval over test samples has it already.
    test = task.test
    estimates = []
    total = squares = np.zeros(1)
    for aside in _without_blocks(task):
        found = aside.outcomes()
        lost = (found.ablated_loss - found.full_loss[:, None]).mean(axis=0)
        full = full_score_of(found, test.target, "accuracy")
        estimates.append((full - _accuracies(found, test.target), lost))
        change = cluster_sums(changes(found, test.target), test.clusters).astype(np.float32)
        total, squares = total + change, squares + change**2
    n_blocks = len(estimates)
    variance = ((np.array(estimates) - np.mean(estimates, axis=0)) ** 2).sum(axis=0)
    n_rows, n_units = len(test.target), len(total)
    between_rows = (squares - total**2 / n_blocks).sum(axis=0, dtype=np.float64) / n_rows**2
    by_chance = (between_rows - variance[0] / n_units) * n_units / max(1, n_units - 1)
    variance[0] = np.maximum(variance[0] - by_chance, 0.0)
    spread = np.sqrt((n_blocks - 1) / n_blocks * variance)
    return spread[0], spread[1], n_blocks


def values_over_train(task: Task, score: str) -> tuple[np.ndarray, int]:
    """Jackknife errors over train (G,) of importances of another target; number of blocks."""
    found = (aside.contributions(score) for aside in _without_blocks(task))
    estimates = np.array([each.full.mean() - each.ablated.mean(axis=0) for each in found])
    n_blocks = len(estimates)
    variance = ((estimates - estimates.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt((n_blocks - 1) / n_blocks * variance), n_blocks


def _without_blocks(task: Task) -> Iterator[Task]:
    """Give the task without each block of train rows in turn; no class leaves train."""
    train = task.train
    blocks = train_blocks(train, task.run.seed)
    n_blocks, strata = int(blocks.max()) + 1, train.strata
    for block in range(n_blocks):
        kept = blocks != block
        kept |= ~np.isin(strata, strata[kept])
        yield task.aside(train.take(kept), task.test)
        if task.run.progress is not None:
            task.run.progress(block + 1, n_blocks)


def train_blocks(train: Split, seed: int) -> np.ndarray:
    """Assign train rows, or whole clusters, to at most 20 blocks of like size; (N,) int."""
    strata = train.strata
    units = np.arange(len(strata)) if train.clusters is None else train.clusters
    first, of_row = np.unique(units, return_index=True, return_inverse=True)[1:]
    shuffled = np.random.default_rng([seed, 20]).permutation(len(first))
    # in order of class, of size, then of chance: each block gets every twentieth
    order = np.lexsort((shuffled, np.bincount(of_row), strata[first]))
    blocks = np.empty(len(first), dtype=np.int64)
    blocks[order] = np.arange(len(first)) % min(N_BLOCKS, len(first))
    return blocks[of_row.reshape(strata.shape)]


def alone_scores(task: Task, score: str) -> np.ndarray:
    """Score of a reader fitted on each group alone; (G,)."""
    sides = ([each.columns(group) for each in (task.train, task.test)] for group in task.groups)
    if task.kind != CLASSES:
        rows = (task.aside(*both).contributions(score, []) for both in sides)
        return np.array([each.full.mean() for each in rows])
    losses = score == "log_loss"
    found = (task.aside(*both).outcomes([], losses=losses) for both in sides)
    return np.array([full_score_of(each, task.test.target, score) for each in found])


def needed_together(task: Task, fitted: Any, train: Representation, score: str) -> list[np.ndarray]:
    """Find the groups of redundant dimensions without which the score falls, among them all."""
    if task.refit and task.reader.SLOW:
        return []
    redundant = redundant_groups(train.features, precision=train.precision)
    groups = [group for group in redundant if len(group) > 1]
    if not groups:
        return []
    test = task.test
    if not isinstance(fitted, Linear) and len(test.target) > _N_LOOKED_AT:
        # a linear reader reads all rows in no time; of other readers a sample will do
        rng = np.random.default_rng(task.run.seed)
        test = test.take(rng.choice(len(test.target), _N_LOOKED_AT, replace=False))
    aside = task.aside(task.train, test)
    if task.kind != CLASSES:
        found = of_contributions(
            aside, aside.contributions(score, groups, fitted=fitted), 1, task.run.seed
        )
        p_value, lost = found.p_value, found.estimate
    else:
        outcomes = aside.outcomes(groups, fitted=fitted, losses=False)
        change = changes(outcomes, test.target)
        p_value = paired_test(change, test.clusters)
        lost = change.sum(axis=0)
    return [
        group
        for group, p, each in zip(groups, p_value, lost, strict=True)
        if p * len(groups) <= SIGNIFICANT and each > 0
    ]
