"""Cumulative ablation: what a reader scores when more and more dimensions are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike
from dimlab.kernels.paired import (
    design_effect,
    normal_quantile,
    paired_interval,
    proportion_interval,
    tango_upper_bound,
)
from dimlab.probes._orders import orders_of_removal
from dimlab.probes._reading import (
    GroupsLike,
    ReaderLike,
    Reading,
    Rows,
    basis_of,
    checked_groups,
    coded,
    documented,
    said_of_rows,
)
from dimlab.readers.base import Progress, Split
from dimlab.representation import Representation

_LEVEL = 0.95
_N_POINTS = 33


@dataclass(frozen=True, eq=False)
class CumulativeAblation:
    """Accuracy of a reader after 0, 1, 2, ... groups have been removed, one after the other.

    Parameters
    ----------
    reader, order_name : str
        Which reader, and how the order was made.
    order : ndarray of shape (G,), int
        Groups in the order of their removal; of the first of several random orders.
    n_removed : ndarray of shape (P,), int
        Groups that are gone at each point.
    scores : ndarray of shape (P,)
        Accuracy in [0, 1]; the mean over orders where there are several.
    ci_low, ci_high : ndarray of shape (P,)
        Wilson's 95 % interval of the accuracy. With several random orders: the range that 95 % of
        the orders lie in.
    loss, loss_low, loss_high : ndarray of shape (P,)
        Accuracy that is lost against all dimensions, both read on the same test samples, with
        Tango's 95 % interval; of the first order.
    margin : float
        Largest loss of accuracy that counts as none.
    n_test_needed : int
        Test samples from which on the first loss could be shown to lie within the margin, if the
        samples that it changes stay as frequent; where they cost more than the margin, if it
        changes none.
    groups : tuple of ndarray of shape (n,), int
        Dimensions of each of the G groups.
    n_orders, n_train, n_test, n_dimensions : int
        Sizes.
    n_classes_kept : int
        Classes with one sample, or one cluster, that no order by importance was judged on.
    basis : str
        Basis that the dimensions belong to.
    sample : str
        Which part of the test split was used; empty: all of it.
    clusters : mapping of str to int
        ``n_clusters`` and the size of the ``largest``, of test rows; empty: rows are independent.
    caution : str
        What keeps the scores from meaning what they usually do; empty: nothing.

    References
    ----------
    Wilson, JASA 22, 1927; Tango, Statistics in Medicine 17, 1998; those of `ablate_cumulatively`.

    Examples
    --------
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

    reader: str
    order_name: str
    order: np.ndarray
    n_removed: np.ndarray
    scores: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    loss: np.ndarray
    loss_low: np.ndarray
    loss_high: np.ndarray
    margin: float
    n_test_needed: int
    groups: tuple[np.ndarray, ...]
    n_orders: int
    n_train: int
    n_test: int
    n_dimensions: int
    n_classes_kept: int = 0
    basis: str = "axes"
    sample: str = ""
    clusters: Mapping[str, int] = field(default_factory=dict)
    caution: str = ""

    @property
    def full_score(self) -> float:
        """Accuracy with all dimensions."""
        return float(self.scores[0])

    @property
    def n_dispensable(self) -> int:
        """Most groups gone at a point where, as at all before, the loss lies within the margin.

        Points are tested in their order and the first failure ends it, so that no adjustment for
        their number is due.
        """
        beyond = np.flatnonzero(self.loss_high[1:] > self.margin)
        return int(self.n_removed[-1 if len(beyond) == 0 else beyond[0]])

    def to_frame(self) -> Any:
        """Return one row a point.

        Returns
        -------
        pandas.DataFrame
            ``n_removed``, ``group`` (the one that left last; -1 at the start), ``accuracy``,
            ``ci_low``, ``ci_high``, ``loss``, ``loss_low``, ``loss_high``.
        """
        import pandas as pd

        last = np.where(self.n_removed > 0, self.order[self.n_removed - 1], -1)
        return pd.DataFrame(
            {
                "n_removed": self.n_removed,
                "group": last,
                "accuracy": self.scores,
                "ci_low": self.ci_low,
                "ci_high": self.ci_high,
                "loss": self.loss,
                "loss_low": self.loss_low,
                "loss_high": self.loss_high,
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done, sizes, ``full_score``, ``best_score`` and how many were gone there
            (biased upwards: the best of many points), ``margin``, ``n_dispensable`` with a
            sentence (``dispensable``), ``n_test_needed`` where it is 0, and where the order is
            from.
        """
        best = int(self.scores.argmax())
        return {
            "reader": self.reader,
            "order": self.order_name,
            "basis": self.basis,
            **said_of_rows(self),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_groups": len(self.groups),
            "n_orders": self.n_orders,
            "full_score": self.full_score,
            "best_score": float(self.scores[best]),
            "n_removed_at_best": int(self.n_removed[best]),
            "margin": self.margin,
            "n_dispensable": self.n_dispensable,
            **({} if self.n_dispensable else {"n_test_needed": self.n_test_needed}),
            "dispensable": self._in_words(),
            "order_from": (
                "the caller; if the test split chose it, no loss here is to be believed."
                if self.order_name == "given"
                else "the train split alone; the test split only scores."
            )
            + (
                f" {self.n_classes_kept} classes were too small to be judged by."
                if self.n_classes_kept
                else ""
            ),
        }

    def _in_words(self) -> str:
        count = self.n_dispensable
        if count:
            place = int(np.flatnonzero(self.n_removed == count)[0])
            return (
                f"Without the first {count} of this order accuracy falls by at most "
                f"{self.loss_high[place]:.4f} (95 % interval), within the margin of "
                f"{self.margin:g}; so it does at every point before."
            )
        first = int(self.n_removed[1])
        return (
            f"None is shown to be: without the first{f' {first}' if first > 1 else ''} of this "
            f"order accuracy falls by {self.full_score - self.scores[1]:.4f}, and perhaps by "
            f"{self.loss_high[1]:.4f} (95 % interval), beyond the margin of {self.margin:g}. "
        ) + (
            f"That margin needs {self.n_test_needed} test samples or more; here are {self.n_test}."
            if self.n_test < self.n_test_needed
            else f"The {self.n_test} test samples could have shown a loss of 0."
        )


@documented
def ablate_cumulatively(
    train: Representation,
    test: Representation,
    *,
    order: str | Sequence[int] | np.ndarray,
    reader: ReaderLike = "ridge",
    groups: GroupsLike | None = None,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    clusters: ClustersLike = None,
    margin: float = 0.01,
    n_points: int | None = None,
    n_random: int = 20,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
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
        In (0, 1): the largest loss of accuracy that counts as none for ``n_dispensable``.
    n_points : int, optional
        Points of the curve, spread evenly from none to all removed, >= 2. By default all for
        ridge, at most 33 for readers that have no closed form here.
    n_random : int, default=20
        Random orders to average over, >= 1; ridge only, other readers take one.
    seed : int, default=0
        Draws random orders and the rows held out.

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
        If it would not fit into the memory that is free; the sentence says what would.

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
    >>> features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> split = Representation(features, labels=np.array([0, 0, 1, 1]))
    >>> ablate_cumulatively(split, split, order=[1, 0]).scores.tolist()
    [1.0, 1.0, 0.5]
    """
    reading = Reading.of(
        reader, refit=True, k=k, temperature=temperature, penalty=penalty, seed=seed,
        device=device, memory=memory,
    )  # fmt: skip
    _, bank, queries = coded(train, test, "ablate_cumulatively")
    chosen = _disjoint(checked_groups(groups, train.n_dimensions))
    for name, value, least in (("n_random", n_random, 1), ("n_points", n_points, 2)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be >= {least}; got {value}.")
    if not 0 < margin < 1:
        raise ValueError(f"margin must lie in (0, 1); got {margin:g}.")
    rows = Rows.of(train, test, clusters)
    rng = np.random.default_rng(seed)
    name = order if isinstance(order, str) else "given"
    in_turn = hasattr(reading.reader, "predict_in_turn")
    points = _points(len(chosen), n_points, None if in_turn else _N_POINTS)
    n_orders = n_random if in_turn else 1
    n_bytes = (2 * n_orders if in_turn else 25) * len(test) * len(points)
    reading = reading.within("ablate_cumulatively", train, n_bytes)
    orders, n_kept = orders_of_removal(order, bank, chosen, reading, n_orders, rng, rows.train)
    right = _right(reading, bank, queries, chosen, orders, points, progress)  # (O, N, P)
    scores = right.mean(axis=1)
    if len(orders) > 1:
        low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    else:
        low, high = proportion_interval(right[0], rows.test)
    lost = right[0][:, :1].astype(np.int8) - right[0]
    loss_low, loss_high = paired_interval(lost, rows.test)
    return CumulativeAblation(
        reader=reading.name,
        order_name=name,
        order=orders[0],
        n_removed=points,
        scores=scores.mean(axis=0),
        ci_low=low,
        ci_high=high,
        loss=lost.mean(axis=0),
        loss_low=loss_low,
        loss_high=loss_high,
        margin=margin,
        n_test_needed=_rows_needed(lost[:, 1], rows.test, margin),
        groups=tuple(chosen),
        n_orders=len(orders),
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        n_classes_kept=n_kept,
        basis=basis_of(train),
        **rows.said,
    )


def _rows_needed(lost: np.ndarray, clusters: np.ndarray | None, margin: float) -> int:
    """Rows from which on Tango's upper bound of a loss can lie within the margin."""
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


def _disjoint(groups: list[np.ndarray]) -> list[np.ndarray]:
    dimensions, counts = np.unique(np.concatenate(groups), return_counts=True)
    if counts.max() > 1:
        twice = dimensions[counts > 1][0]
        raise ValueError(
            f"groups must not share dimensions when they are removed in turn; got dimension "
            f"{twice} twice."
        )
    return groups


def _points(n_groups: int, n_points: int | None, most: int | None) -> np.ndarray:
    count = min(n_groups + 1, n_points or most or n_groups + 1)
    return np.unique(np.rint(np.linspace(0, n_groups, count)).astype(np.int64))


def _right(
    reading: Reading,
    bank: Split,
    queries: Split,
    groups: list[np.ndarray],
    orders: list[np.ndarray],
    points: np.ndarray,
    progress: Progress | None,
) -> np.ndarray:
    """Whether each test sample is read rightly, (orders, N, points) bool."""
    right = np.empty((len(orders), len(queries.codes), len(points)), dtype=bool)
    fitted, truth = reading.fit(bank), queries.codes[:, None]
    for index, order in enumerate(orders):
        ordered = [groups[group] for group in order]
        if hasattr(fitted, "predict_in_turn"):
            right[index] = fitted.predict_in_turn(queries.features, ordered, points) == truth
            if progress is not None:
                progress(index + 1, len(orders))
            continue
        gone = [np.sort(np.concatenate(ordered[:count])) for count in points if count > 0]
        outcomes = reading.outcomes(bank, queries, gone, progress, fitted=fitted)
        right[index, :, 0] = outcomes.full == queries.codes
        right[index, :, 1:] = outcomes.ablated == truth
    return right
