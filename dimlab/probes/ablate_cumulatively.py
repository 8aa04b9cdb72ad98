"""Cumulative ablation: what a reader scores when more and more dimensions are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from dimlab.cuts import held_out, n_classes_kept
from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.paired import (
    design_effect,
    normal_quantile,
    paired_interval,
    proportion_interval,
    student_interval,
    tango_upper_bound,
)
from dimlab.probes._contributions import contributions_of, difference
from dimlab.probes._reading import (
    GroupsLike,
    How,
    ReaderLike,
    ReadsGroups,
    Task,
    check_least,
    reads,
)
from dimlab.processes import shared
from dimlab.refusals import Refusal
from dimlab.result import column, detail, entries, entry, per, scalar
from dimlab.targets import CLASSES, score_in_words, score_of

NEEDS: tuple[set[str], ...] = ({"labels", "train"},)
ORDERS = ("worst-first", "best-first", "random", "greedy-backward", "greedy-forward")
_HELD_OUT = 0.2
_MOST_HELD_OUT = 10_000
_DECIMALS = 10  # of what is put in order
_NAMED = 8  # entries of a wrong order that are shown
_LEVEL = 0.95
_N_POINTS = 33


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CumulativeAblation(ReadsGroups):
    """Scores of a reader while groups of dimensions are removed one after the other.

    References
    ----------
    Wilson, JASA 22, 1927; Tango, Statistics in Medicine 17, 1998; those of `ablate_cumulatively`.

    Examples
    --------
    >>> from dimlab import Representation
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> curve = ablate_cumulatively(split, split, order=[1, 0])
    >>> curve.to_frame()[["n_removed", "group", "accuracy"]].values.tolist()
    [[0.0, -1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 0.0, 0.5]]
    >>> curve.full_score, curve.n_dispensable, curve.summary()["best_score"]
    (1.0, 0, 1.0)
    >>> curve.summary()["dispensable"]
    'None is shown to be: ... beyond the margin of 0.01. That margin needs 381 test samples or more;
    here are 40.'
    """

    HEADLINE = ("reader", "order", "n_groups", "full_score", "n_dispensable")

    order_name: str = scalar("How the order was made.", key="order")
    order: np.ndarray = detail(
        "Groups in the order of their removal, shape (G,); of the first of several random orders."
    )
    n_orders: int = scalar("Orders that the scores are averaged over.")
    n_removed: np.ndarray = per("point", "Groups that are gone at each point.")

    @column
    def group(self) -> np.ndarray:
        """The group that left last; -1 at the start."""
        return np.where(self.n_removed > 0, self.order[self.n_removed - 1], -1)

    score: str = scalar("What the reader was scored by.", default="accuracy")
    scores: np.ndarray = per(
        "point", "Score; the mean over orders where there are several.", column=False
    )

    @column
    def named_scores(self) -> dict[str, np.ndarray]:
        """Column of the scores, with the name of the score."""
        return {self.score: self.scores}

    ci_low: np.ndarray = per(
        "point",
        "Lower end of the 95 % interval of the score (Wilson's of an accuracy); with several "
        "random orders, of the range that 95 % of the orders lie in.",
    )
    ci_high: np.ndarray = per("point", "Upper end of it.")
    loss: np.ndarray = per(
        "point",
        "Score that is lost against all dimensions, both read on the same test samples; of the "
        "first order.",
    )
    loss_low: np.ndarray = per("point", "Lower end of the 95 % interval of the loss.")
    loss_high: np.ndarray = per("point", "Upper end of it.")

    @entry
    def full_score(self) -> float:
        """Score with all dimensions."""
        return float(self.scores[0])

    @entry
    def best_score(self) -> float:
        """Largest score of all points: biased upwards."""
        return float(self.scores.max())

    @entry
    def n_removed_at_best(self) -> int:
        """How many groups are gone there."""
        return int(self.n_removed[self.scores.argmax()])

    margin: float = scalar("Largest loss of the score that counts as none.")

    @entry
    def n_dispensable(self) -> int:
        """Most groups gone where, as at all points before, the loss lies within the margin."""
        # the first failure ends the test, so that no adjustment for the number of points is due
        beyond = np.flatnonzero(self.loss_high[1:] > self.margin)
        return int(self.n_removed[-1 if len(beyond) == 0 else beyond[0]])

    n_test_needed: int = detail(
        "Test samples from which on the first loss could be shown to lie within the margin, if the "
        "samples that it changes stay as frequent; where they cost more than the margin, if it "
        "changes none."
    )

    @entries
    def needed(self) -> dict[str, int]:
        """The test samples needed, where nothing is shown to be dispensable."""
        return {} if self.n_dispensable else {"n_test_needed": self.n_test_needed}

    @entry
    def dispensable(self) -> str:
        """What is shown to be dispensable, in words."""
        count, named = self.n_dispensable, score_in_words(self.score)
        if count:
            place = int(np.flatnonzero(self.n_removed == count)[0])
            return (
                f"Without the first {count} of this order {named} falls by at most "
                f"{self.loss_high[place]:.4f} (95 % interval), within the margin of "
                f"{self.margin:g}; so it does at every point before."
            )
        first = int(self.n_removed[1])
        return (
            f"None is shown to be: without the first{f' {first}' if first > 1 else ''} of this "
            f"order {named} falls by {self.full_score - self.scores[1]:.4f}, and perhaps by "
            f"{self.loss_high[1]:.4f} (95 % interval), beyond the margin of {self.margin:g}. "
        ) + (
            f"That margin needs {self.n_test_needed} test samples or more; here are {self.n_test}."
            if self.n_test < self.n_test_needed
            else f"The {self.n_test} test samples could have shown a loss of 0."
        )

    n_classes_kept: int = detail(
        "Classes with one sample, or one cluster, that no order by importance was judged on.",
        default=0,
    )

    @entry
    def order_from(self) -> str:
        """Which samples chose the order."""
        said = "the train split alone; the test split only scores."
        if self.order_name == "given":
            said = "the caller; if the test split chose it, no loss here is to be believed."
        if self.n_classes_kept:
            said += f" {self.n_classes_kept} classes were too small to be judged by."
        return said


@reads
def ablate_cumulatively(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    order: str | Sequence[int] | np.ndarray,
    reader: ReaderLike = "ridge",
    groups: GroupsLike | None = None,
    margin: float = 0.01,
    n_points: int | None = None,
    n_random: int = 20,
    **how: Unpack[How],
) -> CumulativeAblation:
    """Remove dimensions one after the other, fit the reader again each time, and score it.

    Parameters
    ----------
    order : str or array of int of shape (G,)
        ``"worst-first"`` and ``"best-first"`` by importance, ``"random"``, ``"greedy-backward"``
        and ``"greedy-forward"`` (ridge, single dimensions), or a permutation of the groups.
    groups : sequence of index arrays, or ndarray of shape (D,) of int, optional
        Dimensions removed together, no dimension twice; by default each dimension alone.
    margin : float, default=0.01
        In (0, 1): the largest loss of the score that counts as none for ``n_dispensable``.
    n_points : int, optional
        Points of the curve, spread evenly from none to all removed, >= 2. By default all for
        ridge, at most 33 for readers that have no closed form here.
    n_random : int, default=20
        Random orders to average over, >= 1; ridge only, other readers take one.

    Returns
    -------
    CumulativeAblation
        The curve.

    Raises
    ------
    ValueError
        As `ablate`; if the order is unknown or no permutation of the groups, a greedy order is
        asked of another reader or with groups, a dimension is in two groups, the margin is not in
        (0, 1), or a count is too low.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    No order sees the test split. Importance is measured on a stratified fifth of train (at most
    10,000 rows) by a reader of the rest. The greedy orders follow the penalised train loss of the
    ridge: ``greedy-backward`` removes what raises it least; ``greedy-forward`` adds what lowers it
    most, and its last additions are removed first. All points of a ridge curve come from one
    Cholesky factor [1]_.

    The loss at each point compares the reader of what is left with the reader of all dimensions on
    the same test samples, by Tango's interval. ``n_dispensable`` asks for non-inferiority: an upper
    bound within the margin, point after point until the first that is not [2]_. A loss that is not
    significant is no evidence of none. With clusters, the interval has the variance between whole
    clusters, and the rows of train that rank the dimensions are whole clusters.

    References
    ----------
    .. [1] Golub and Van Loan, "Matrix Computations", 4th edition, section 4.2.
    .. [2] Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and
       preclinical assays: a-priori ordered hypotheses", in Biometrie in der chemisch-
       pharmazeutischen Industrie 6, 1995.

    Examples
    --------
    >>> from dimlab import Representation
    >>> features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> split = Representation(features, labels=np.array([0, 0, 1, 1]))
    >>> ablate_cumulatively(split, split, order=[1, 0]).scores.tolist()
    [1.0, 1.0, 0.5]
    """
    train, test = as_representations(train=train, test=test).values()
    task = Task.of("ablate_cumulatively", train, test, reader, refit=True, groups=groups, **how)
    dimensions, counts = np.unique(np.concatenate(task.groups), return_counts=True)
    if counts.max() > 1:
        raise Refusal(
            f"groups must not share dimensions when they are removed in turn; got dimension "
            f"{dimensions[counts > 1][0]} twice."
        )
    check_least(1, n_random=n_random)
    check_least(2, n_points=n_points)
    if not 0 < margin < 1:
        raise Refusal(f"margin must lie in (0, 1); got {margin:g}.")
    in_turn = hasattr(task.reader, "predict_in_turn")
    n_groups = len(task.groups)
    most = n_groups + 1 if in_turn else _N_POINTS
    n_shown = min(n_groups + 1, n_points or most)
    points = np.unique(np.rint(np.linspace(0, n_groups, n_shown)).astype(np.int64))
    task = task.holding((2 * n_random if in_turn else 25) * len(test) * len(points))
    orders, n_kept = _orders(order, task, n_random if in_turn else 1)
    score = score_of(None, task.kind)
    right = _right(task, orders, points, in_turn, score)  # (O, N, P)
    clusters, scores = task.test.clusters, right.mean(axis=1)
    if len(orders) > 1:
        low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    else:
        low, high = proportion_interval(right[0], clusters)
    lost = difference(right[0][:, :1], right[0])
    loss_low, loss_high = paired_interval(lost, clusters)
    return CumulativeAblation(
        **task.said,
        order_name=order if isinstance(order, str) else "given",
        order=orders[0],
        n_removed=points,
        score=score,
        scores=scores.mean(axis=0),
        ci_low=low,
        ci_high=high,
        loss=lost.mean(axis=0),
        loss_low=loss_low,
        loss_high=loss_high,
        margin=margin,
        n_test_needed=_rows_needed(lost[:, 1], clusters, margin),
        groups=tuple(task.groups),
        n_orders=len(orders),
        n_classes_kept=n_kept,
    )


def _rows_needed(lost: np.ndarray, clusters: np.ndarray | None, margin: float) -> int:
    """Rows from which on the upper bound of a loss can lie within the margin."""
    if lost.dtype.kind == "f":
        bounds = student_interval(lost, clusters)
        width, mean = float(np.ptp(bounds)) / 2 * np.sqrt(len(lost)), float(lost.mean())
        return max(1, int(np.ceil((width / (margin - (mean if mean < margin else 0.0))) ** 2)))
    worse, better = float((lost > 0).mean()), float((lost < 0).mean())
    if worse - better >= margin:
        worse = better = 0.0
    z = normal_quantile(_LEVEL)

    def within(n: int) -> bool:
        bound = tango_upper_bound(np.array(worse * n), np.array(better * n), n, z)
        return bool(bound <= margin)

    low, high = 0, 1
    while not within(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) else (middle, high)
    effect = 1.0 if clusters is None else float(design_effect(lost, clusters))
    return int(np.ceil(effect * high))


def _right(
    task: Task, orders: list[np.ndarray], points: np.ndarray, in_turn: bool, score: str
) -> np.ndarray:
    """Return what each row adds to the score, (orders, N, points); bool of accuracy."""
    features, truth, of_classes = task.test.features, task.test.target, task.kind == CLASSES
    right = np.empty((len(orders), len(truth), len(points)), dtype=bool if of_classes else float)
    fitted = task.fit()
    for index, order in enumerate(orders):
        ordered = [task.groups[group] for group in order]
        if in_turn:
            if of_classes:
                found = _in_turn(fitted.predict_in_turn, features, ordered, points)
                right[index] = found == truth[:, None]
            else:
                found = _in_turn(fitted.values_in_turn, features, ordered, points)
                right[index] = contributions_of(found, truth, score)
            if task.run.progress is not None:
                task.run.progress(index + 1, len(orders))
            continue
        gone = [np.sort(np.concatenate(ordered[:count])) for count in points if count > 0]
        right[index] = np.column_stack(task.judged(score, gone, fitted=fitted))
    return right


def _in_turn(
    read: Callable[..., np.ndarray],
    features: np.ndarray,
    ordered: list[np.ndarray],
    points: np.ndarray,
) -> np.ndarray:
    """Return what a reader says of each row at each point, (N, P) or (N, P, T)."""
    return shared(len(features), lambda rows: [read(features[rows], ordered, points)])[0]


def _orders(
    order: str | Sequence[int] | np.ndarray, task: Task, n_random: int
) -> tuple[list[np.ndarray], int]:
    """Permutations of the groups, first removed first; classes too small to rank them by."""
    n_groups = len(task.groups)
    if not isinstance(order, str):
        given = np.asarray(order)
        if given.shape != (n_groups,) or not np.array_equal(np.sort(given), np.arange(n_groups)):
            shown = ", ".join(map(str, np.ravel(given)[:_NAMED].tolist()))
            raise Refusal(
                f"order must be a permutation of the {n_groups} groups; got "
                f"[{shown}{', ...' if given.size > _NAMED else ''}]."
            )
        return [given.astype(np.int64)], 0
    if order not in ORDERS:
        raise Refusal(
            f"order must be one of {', '.join(map(repr, ORDERS))}, or an array; got {order!r}."
        )
    rng = np.random.default_rng(task.run.seed)
    if order == "random":
        return [rng.permutation(n_groups) for _ in range(n_random)], 0
    if order.startswith("greedy"):
        if not hasattr(task.reader, "greedy_order") or any(len(group) > 1 for group in task.groups):
            raise Refusal(
                f"order={order!r} must go with reader='ridge' and single dimensions; got reader="
                f"{task.reader.name!r} and {n_groups} groups."
            )
        found = task.fit().greedy_order(backward=order == "greedy-backward")
        found = found if order == "greedy-backward" else found[::-1]
        place = {int(group[0]): index for index, group in enumerate(task.groups)}
        return [np.array([place[d] for d in found.tolist() if d in place])], 0
    importance, n_kept = _importance_on_train(task, rng)
    importance = importance.round(_DECIMALS)  # copies are equal, whatever the rounding
    ranked = np.argsort(importance if order == "worst-first" else -importance, kind="stable")
    return [ranked], n_kept


def _importance_on_train(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Log-loss that each group saves on rows held out of train: a finer ranking than accuracy's."""
    # of another target the score that each group adds there
    train, n = task.train, len(task.train.target)
    share = min(_HELD_OUT, _MOST_HELD_OUT / n)
    judged = held_out(train.strata, share, rng.permutation(n), clusters=train.clusters)
    if not judged.any():
        raise Refusal(
            "train must have classes of at least 2 rows, or clusters, to rank dimensions; got "
            "none. Pass an array as order."
        )
    aside = task.aside(train.take(~judged), train.take(judged))
    if task.kind != CLASSES:
        found = aside.contributions(score_of(None, task.kind))
        return found.full.mean() - found.ablated.mean(axis=0), 0
    outcomes = aside.outcomes()
    lost = outcomes.ablated_loss - outcomes.full_loss[:, None]
    return lost.mean(axis=0), n_classes_kept(train.strata, judged)
