"""Orders in which groups of dimensions are removed, made from the train split alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dimlab.cuts import held_out, n_classes_kept
from dimlab.probes._reading import Reading
from dimlab.readers.base import Split
from dimlab.refusals import Refusal

ORDERS = ("worst-first", "best-first", "random", "greedy-backward", "greedy-forward")
_HELD_OUT = 0.2
_MOST_HELD_OUT = 10_000
_DECIMALS = 10  # of what is put in order


def orders_of_removal(
    order: str | Sequence[int] | np.ndarray,
    bank: Split,
    groups: list[np.ndarray],
    reading: Reading,
    n_random: int,
    rng: np.random.Generator,
    clusters: np.ndarray | None,
) -> tuple[list[np.ndarray], int]:
    """Permutations of the groups, first removed first; classes too small to rank them by."""
    n_groups = len(groups)
    if not isinstance(order, str):
        given = np.asarray(order)
        if given.shape != (n_groups,) or not np.array_equal(np.sort(given), np.arange(n_groups)):
            raise Refusal(
                f"order must be a permutation of the {n_groups} groups; got {in_short(given)}."
            )
        return [given.astype(np.int64)], 0
    if order not in ORDERS:
        raise Refusal(
            f"order must be one of {', '.join(map(repr, ORDERS))}, or an array; got {order!r}."
        )
    if order == "random":
        return [rng.permutation(n_groups) for _ in range(n_random)], 0
    if order.startswith("greedy"):
        if not hasattr(reading.reader, "greedy_order") or any(len(group) > 1 for group in groups):
            raise Refusal(
                f"order={order!r} must go with reader='ridge' and single dimensions; got reader="
                f"{reading.name!r} and {n_groups} groups."
            )
        found = reading.fit(bank).greedy_order(backward=order == "greedy-backward")
        found = found if order == "greedy-backward" else found[::-1]
        mine = np.array([int(group[0]) for group in groups])
        rank = {dimension: position for position, dimension in enumerate(mine.tolist())}
        return [np.array([rank[d] for d in found.tolist() if d in rank])], 0
    importance, n_kept = _importance_on_train(bank, groups, reading, rng, clusters)
    importance = importance.round(_DECIMALS)  # copies are equal, whatever the rounding
    ranked = np.argsort(importance if order == "worst-first" else -importance, kind="stable")
    return [ranked], n_kept


def in_short(values: np.ndarray) -> str:
    """Show the first few of an array."""
    shown = ", ".join(map(str, np.ravel(values)[:8].tolist()))
    return f"[{shown}{', ...' if values.size > 8 else ''}]"


def _importance_on_train(
    bank: Split,
    groups: list[np.ndarray],
    reading: Reading,
    rng: np.random.Generator,
    clusters: np.ndarray | None,
) -> tuple[np.ndarray, int]:
    """Log-loss that each group saves on rows held out of train: a finer ranking than accuracy's."""
    features, codes, precision = bank
    share = min(_HELD_OUT, _MOST_HELD_OUT / len(codes))
    judged = held_out(codes, share, rng.permutation(len(codes)), clusters=clusters)
    if not judged.any():
        raise Refusal(
            "train must have classes of at least 2 rows, or clusters, to rank dimensions; got "
            "none. Pass an array as order."
        )
    fit, judge = (Split(features[rows], codes[rows], precision) for rows in (~judged, judged))
    outcomes = reading.outcomes(fit, judge, groups)
    lost = outcomes.ablated_loss - outcomes.full_loss[:, None]
    return lost.mean(axis=0), n_classes_kept(codes, judged)
