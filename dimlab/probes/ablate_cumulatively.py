"""Cumulative ablation: what a reader scores when more and more dimensions are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.cuts import held_out
from dimlab.kernels.downdate import (
    first_largest,
    greedy_order,
    nested_logits,
    refuse_ill_conditioned,
    tied_within,
)
from dimlab.kernels.paired import tango_interval, wilson_interval
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Progress, Split
from dimlab.probes._reading import (
    GroupsLike,
    Reading,
    basis_of,
    caution_of,
    checked_groups,
    coded,
    sample_of,
    singles,
)
from dimlab.readers import fit_ridge
from dimlab.representation import Representation

ORDERS = ("worst-first", "best-first", "random", "greedy-backward", "greedy-forward")
_HELD_OUT = 0.2
_MOST_HELD_OUT = 10_000
_N_POINTS = 33
_ROWS = 4096
_DECIMALS = 10  # of what is put in order


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
    loss_low, loss_high : ndarray of shape (P,)
        Tango's 95 % interval of what is lost against all dimensions; of the first order.
    groups : tuple of ndarray of shape (n,), int
        Dimensions of each of the G groups.
    n_orders, n_train, n_test, n_dimensions : int
        Sizes.
    basis : str
        Basis that the dimensions belong to.
    sample : str
        Which part of the test split was used; empty: all of it.
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
    (1.0, 1, 1.0)
    """

    reader: str
    order_name: str
    order: np.ndarray
    n_removed: np.ndarray
    scores: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    loss_low: np.ndarray
    loss_high: np.ndarray
    groups: tuple[np.ndarray, ...]
    n_orders: int
    n_train: int
    n_test: int
    n_dimensions: int
    basis: str = "axes"
    sample: str = ""
    caution: str = ""

    @property
    def full_score(self) -> float:
        """Accuracy with all dimensions."""
        return float(self.scores[0])

    @property
    def n_dispensable(self) -> int:
        """Most groups gone at a point where the loss may still be 0, all points before included."""
        beyond = np.flatnonzero(self.loss_low > 0)
        return int(self.n_removed[-1 if len(beyond) == 0 else beyond[0] - 1])

    def to_frame(self) -> Any:
        """Return one row a point.

        Returns
        -------
        pandas.DataFrame
            ``n_removed``, ``group`` (the one that left last; -1 at the start), ``accuracy``,
            ``ci_low``, ``ci_high``, ``loss_low``, ``loss_high``.
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
            (biased upwards: the best of many points), ``n_dispensable``, and where the order is
            from.
        """
        best = int(self.scores.argmax())
        return {
            "reader": self.reader,
            "order": self.order_name,
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            **({"caution": self.caution} if self.caution else {}),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_groups": len(self.groups),
            "n_orders": self.n_orders,
            "full_score": self.full_score,
            "best_score": float(self.scores[best]),
            "n_removed_at_best": int(self.n_removed[best]),
            "n_dispensable": self.n_dispensable,
            "order_from": "the train split alone; the test split only scores.",
        }


def ablate_cumulatively(
    train: Representation,
    test: Representation,
    *,
    order: str | Sequence[int] | np.ndarray,
    reader: str = "ridge",
    groups: GroupsLike | None = None,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
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
    train, test : Representation
        Labelled splits of the same D dimensions.
    order : str or array of int of shape (G,)
        ``"worst-first"`` and ``"best-first"`` by importance, ``"random"``, ``"greedy-backward"``
        and ``"greedy-forward"`` (ridge, single dimensions), or a permutation of the groups.
    reader : {"ridge", "knn", "logistic"}, default="ridge"
        Fitted again at every point.
    groups : sequence of index arrays, or ndarray of shape (D,) of int, optional
        Dimensions removed together, no dimension twice; by default each dimension alone.
    k, temperature, penalty, device, memory
        As in `ablate`.
    n_points : int, optional
        Points of the curve, spread evenly from none to all removed, >= 2. By default all for
        ridge, at most 33 for readers that have no closed form here.
    n_random : int, default=20
        Random orders to average over, >= 1; ridge only, other readers take one.
    seed : int, default=0
        Draws random orders and the rows held out.
    progress : callable, optional
        Called as ``progress(done, total)`` over points or orders.

    Returns
    -------
    CumulativeAblation
        The curve.

    Raises
    ------
    ValueError
        As `ablate`; if the order is unknown or no permutation of the groups, a greedy order is
        asked of another reader or with groups, a dimension is in two groups, or a count is too low.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    No order sees the test split. Importance is measured on a stratified fifth of train (at most
    10,000 rows) by a reader of the rest. The greedy orders follow the penalised train loss of the
    ridge: ``greedy-backward`` removes what raises it least; ``greedy-forward`` adds what lowers it
    most, and its last additions are removed first. All points of a ridge curve come from one
    Cholesky factor [1]_.

    References
    ----------
    .. [1] Golub and Van Loan, "Matrix Computations", 4th edition, section 4.2.

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
    chosen = singles(train.n_dimensions)
    if groups is not None:
        chosen = _disjoint(checked_groups(groups, train.n_dimensions))
    for name, value, least in (("n_random", n_random, 1), ("n_points", n_points, 2)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be >= {least}; got {value}.")
    rng = np.random.default_rng(seed)
    name = order if isinstance(order, str) else "given"
    points = _points(len(chosen), n_points, None if reader == "ridge" else _N_POINTS)
    n_orders = n_random if reader == "ridge" else 1
    ranked = " ranked" if reader == "ridge" and name in ("worst-first", "best-first") else ""
    foresee(
        f"ablate_cumulatively {reader}{ranked}",
        Shapes(
            len(train), len(test), train.n_dimensions, len(points),
            n_orders if name == "random" else 1, budget=memory,
        ),
        device=device if reader == "knn" else "cpu",
    )  # fmt: skip
    orders = _orders(order, bank, chosen, reading, n_orders, rng)
    right = _right(reading, bank, queries, chosen, orders, points, progress)  # (O, N, P)
    counts = right.sum(axis=1)
    low, high = wilson_interval(counts[0], len(test))
    if len(orders) > 1:
        low, high = np.quantile(counts / len(test), [0.025, 0.975], axis=0)
    worse = (right[0][:, :1] & ~right[0]).sum(axis=0)
    better = (~right[0][:, :1] & right[0]).sum(axis=0)
    loss_low, loss_high = tango_interval(worse, better, len(test))
    return CumulativeAblation(
        reader=reader,
        order_name=name,
        order=orders[0],
        n_removed=points,
        scores=counts.mean(axis=0) / len(test),
        ci_low=low,
        ci_high=high,
        loss_low=loss_low,
        loss_high=loss_high,
        groups=tuple(chosen),
        n_orders=len(orders),
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        basis=basis_of(train),
        sample=sample_of(test),
        caution=caution_of(test, None),
    )


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


def _orders(
    order: str | Sequence[int] | np.ndarray,
    bank: Split,
    groups: list[np.ndarray],
    reading: Reading,
    n_random: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return permutations of the groups, first removed first."""
    n_groups = len(groups)
    if not isinstance(order, str):
        given = np.asarray(order)
        if given.shape != (n_groups,) or not np.array_equal(np.sort(given), np.arange(n_groups)):
            raise ValueError(
                f"order must be a permutation of the {n_groups} groups; got {in_short(given)}."
            )
        return [given.astype(np.int64)]
    if order not in ORDERS:
        raise ValueError(
            f"order must be one of {', '.join(map(repr, ORDERS))}, or an array; got {order!r}."
        )
    if order == "random":
        return [rng.permutation(n_groups) for _ in range(n_random)]
    if order.startswith("greedy"):
        if reading.reader != "ridge" or any(len(group) > 1 for group in groups):
            raise ValueError(
                f"order={order!r} must go with reader='ridge' and single dimensions; got reader="
                f"{reading.reader!r} and {n_groups} groups."
            )
        system = fit_ridge(*bank, penalty=reading.penalty).solved
        refuse_ill_conditioned(system, reading.penalty)
        found = greedy_order(system, backward=order == "greedy-backward")
        found = found if order == "greedy-backward" else found[::-1]
        mine = np.array([int(group[0]) for group in groups])
        rank = {dimension: position for position, dimension in enumerate(mine.tolist())}
        return [np.array([rank[d] for d in found.tolist() if d in rank])]
    importance = _importance_on_train(bank, groups, reading, rng)
    importance = importance.round(_DECIMALS)  # copies are equal, whatever the rounding
    return [np.argsort(importance if order == "worst-first" else -importance, kind="stable")]


def in_short(values: np.ndarray) -> str:
    """Show the first few of an array."""
    shown = ", ".join(map(str, np.ravel(values)[:8].tolist()))
    return f"[{shown}{', ...' if values.size > 8 else ''}]"


def _importance_on_train(
    bank: Split, groups: list[np.ndarray], reading: Reading, rng: np.random.Generator
) -> np.ndarray:
    """Log-loss that each group saves on rows held out of train: a finer ranking than accuracy's."""
    features, codes, precision = bank
    share = min(_HELD_OUT, _MOST_HELD_OUT / len(codes))
    judged = held_out(codes, share, rng.permutation(len(codes)))
    if not judged.any():
        raise ValueError(
            "train must have classes of at least 2 rows to rank dimensions; got none. Pass an "
            "array as order."
        )
    fit, judge = (Split(features[rows], codes[rows], precision) for rows in (~judged, judged))
    outcomes = reading.outcomes(fit, judge, [groups])[0]
    return (outcomes.ablated_loss - outcomes.full_loss[:, None]).mean(axis=0)


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
    right = np.empty((len(orders), len(queries[1]), len(points)), dtype=bool)
    for index, order in enumerate(orders):
        if reading.reader == "ridge":
            right[index] = _ridge_curve(reading, bank, queries, groups, order, points)
            if progress is not None:
                progress(index + 1, len(orders))
            continue
        gone = [
            np.sort(np.concatenate([groups[g] for g in order[:count]]))
            for count in points
            if count > 0
        ]
        outcomes = reading.outcomes(bank, queries, [gone], progress)[0]
        right[index, :, 0] = outcomes.full == queries[1]
        right[index, :, 1:] = outcomes.ablated == queries[1][:, None]
    return right


def _ridge_curve(
    reading: Reading,
    bank: Split,
    queries: Split,
    groups: list[np.ndarray],
    order: np.ndarray,
    points: np.ndarray,
) -> np.ndarray:
    """Whether each test sample is read rightly at each point, (N, P) bool."""
    reader = fit_ridge(*bank, penalty=reading.penalty)
    refuse_ill_conditioned(reader.solved, reading.penalty)
    never = np.setdiff1d(np.arange(bank[0].shape[1]), np.concatenate(groups))
    kept_order = np.concatenate([never, *(groups[g] for g in order[::-1])])
    sizes = np.array([len(groups[g]) for g in order])
    n_gone = np.concatenate([[0], np.cumsum(sizes)])[points]
    wanted = {int(len(kept_order) - gone): p for p, gone in enumerate(n_gone)}
    right = np.empty((len(queries[1]), len(points)), dtype=bool)
    for rows in _blocks(len(right)):
        columns = reader.standardise(queries[0][rows])
        slack = tied_within(reader.logits(queries[0][rows]))
        for n_kept, logits in enumerate(nested_logits(columns, reader.solved, kept_order)):
            if n_kept in wanted:
                predicted = first_largest((logits + reader.intercept).T, slack)
                right[rows, wanted[n_kept]] = predicted == queries[1][rows]
    return right


def _blocks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, _ROWS):
        yield slice(start, min(start + _ROWS, n_rows))
