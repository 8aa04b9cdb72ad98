"""What a risk bound says in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dimlab.probes.bound_risk import RiskBound

_SIGNIFICANT = 0.05
INFERRED = (
    "The bounds lower <= middle <= upper are the form inferred for the paper (after Wang et al., "
    "2022, theorem 4.2), not its verbatim theorem; their O(M^-1/2) term is dropped, so a small M "
    "may leave them without contradicting anything."
)
INTERVALS = (
    "Values and 95 % intervals speak of the population that the rows are drawn from, its classes "
    "in their shares of the sample, and of its own class means: here a row, or its cluster, is "
    "left out of the means that it is compared with. Bootstrap over rows or clusters, the same "
    "draws for every mask. View agreement alone is that of the class means of this sample."
)
_WORDS = {
    "class_variance": "The class variance V",
    "width": "The width of the inferred bounds, a function of V alone,",
    "cross_entropy": "The risk itself, CE_p,",
    "mean_cross_entropy": "The risk with equal shares, L_CE,",
}


_SHORT = {"class_variance": "V", "cross_entropy": "CE_p"}


def sentences_of(bound: RiskBound) -> list[str]:
    """Sentences that say whether anything got smaller under the mask, and next to what."""
    counts = zip(bound.masks, bound.held.sum(axis=1), strict=True)
    held = ", ".join(f"{mask} {count}" for mask, count in counts)
    sentences = [
        f"Inferred form: lower <= middle <= upper held at this many of {len(bound.n_negatives)} "
        f"numbers of negatives, by mask: {held}."
    ]
    if "learned" not in bound.masks:
        return [*sentences, "No mask was given, so there is nothing to compare."]
    learned, none = bound.masks.index("learned"), bound.masks.index("none")
    columns = {bound.terms.index(term): words for term, words in _WORDS.items()}
    last = np.flatnonzero(np.array(bound.terms) == "nce")[-1]
    columns[last] = f"The contrastive loss L_NCE({bound.n_negatives[-1]})"
    moves = {}
    for column, words in columns.items():
        low, high = bound.difference_low[learned, column], bound.difference_high[learned, column]
        moves[bound.terms[column]] = move = _direction(low, high)
        sentences.append(
            f"{words} {move} under the mask: {bound.values[none, column]:.4g} without, "
            f"{bound.values[learned, column]:.4g} with it, difference "
            f"{bound.difference[learned, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
        )
    sentences += [
        _against(bound, control, term) for control in ("constant", "inverted") for term in _SHORT
    ]
    draws = {
        "class_variance": bound.permuted_variance,
        "cross_entropy": bound.permuted_cross_entropy,
    }
    for term, values in draws.items():
        larger = values > bound.of(term, bound.in_sample)[learned]
        sentences.append(
            f"{_SHORT[term]} under the learned mask is lower than under {larger.sum()} of "
            f"{len(larger)} masks of the same weights on random dimensions (p = "
            f"{bound.p_value(term):.2g})."
        )
    return [*sentences, _conclusion(bound, moves)]


def _direction(low: float, high: float) -> str:
    """Say where an interval of a difference lies."""
    if high < 0:
        return "fell"
    if low > 0:
        return "rose"
    return "did not change" if low == high == 0 else "neither rose nor fell beyond its interval"


def _against(bound: RiskBound, control: str, term: str) -> str:
    """Say how the learned mask compares with a control."""
    row, column = bound.masks.index(control), bound.terms.index(term)
    low, high = bound.learned_low[row, column], bound.learned_high[row, column]
    words = {"fell": "is lower than", "rose": "is higher than", "did not change": "equals that"}
    return (
        f"{_SHORT[term]} under the learned mask "
        f"{words.get(_direction(low, high), 'cannot be told from that')} under the {control} one: "
        f"{bound.learned_difference[row, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
    )


def _conclusion(bound: RiskBound, moves: dict[str, str]) -> str:
    """Say in one sentence whether a tighter bound, and a smaller risk, came of the mask."""
    if moves["class_variance"] != "fell":
        return "So the inferred bounds are not shown to be tighter under the mask."
    rows = [bound.masks.index(control) for control in ("constant", "inverted")]
    lower = bound.learned_high[rows, bound.terms.index("class_variance")] < 0
    special = lower.all() and bound.p_value("class_variance") <= _SIGNIFICANT
    text = "So the inferred bounds are tighter under the mask, "
    text += (
        "more so than under the controls" if special else "but not more so than under all controls"
    )
    if moves["nce"] == "rose":
        text += "; the loss that they are drawn around rose"
    if moves["cross_entropy"] == "fell":
        return text + "; and the risk itself fell."
    return text + "; but they bound another risk, and that is not shown to be smaller."
