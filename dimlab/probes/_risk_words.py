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


def sentences_of(bound: RiskBound) -> list[str]:
    """Sentences that say whether anything got smaller under the mask, and next to what."""
    held = ", ".join(
        f"{mask} {int(each.sum())}" for mask, each in zip(bound.masks, bound.held, strict=True)
    )
    sentences = [
        f"Inferred form: lower <= middle <= upper held at this many of {len(bound.n_negatives)} "
        f"numbers of negatives, by mask: {held}."
    ]
    if "learned" not in bound.masks:
        return [*sentences, "No mask was given, so there is nothing to compare."]
    largest = int(bound.n_negatives[-1])
    last = np.flatnonzero(np.array(bound.terms) == "nce")[-1]
    columns = {bound.terms.index(term): words for term, words in _WORDS.items()}
    columns[last] = f"The contrastive loss L_NCE({largest})"
    moves = {}
    for column, words in columns.items():
        move, sentence = _move(bound, column, words)
        moves[bound.terms[column]] = move
        sentences.append(sentence)
    sentences += [
        _against(bound, control, term)
        for control in ("constant", "inverted")
        for term in ("class_variance", "cross_entropy")
    ]
    sentences += [_among_permuted(bound, term) for term in ("class_variance", "cross_entropy")]
    return [*sentences, _conclusion(bound, moves)]


def _among_permuted(bound: RiskBound, term: str) -> str:
    """Say where the learned mask stands among masks of the same weights that know nothing."""
    draws = bound.permuted_variance if term == "class_variance" else bound.permuted_cross_entropy
    learned = bound.of(term, bound.in_sample)[bound.masks.index("learned")]
    return (
        f"{'V' if term == 'class_variance' else 'CE_p'} under the learned mask is lower than under "
        f"{int((draws > learned).sum())} of {len(draws)} masks of the same weights on random "
        f"dimensions (p = {bound.p_value(term):.2g})."
    )


def _direction(low: float, high: float) -> str:
    if high < 0:
        return "fell"
    if low > 0:
        return "rose"
    return "did not change" if low == high == 0 else "neither rose nor fell beyond its interval"


def _move(bound: RiskBound, column: int, words: str) -> tuple[str, str]:
    """Which way a term went under the learned mask, and the sentence."""
    learned = bound.masks.index("learned")
    low, high = bound.difference_low[learned, column], bound.difference_high[learned, column]
    move = _direction(low, high)
    return move, (
        f"{words} {move} under the mask: {bound.values[0, column]:.4g} without, "
        f"{bound.values[learned, column]:.4g} with it, difference "
        f"{bound.difference[learned, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
    )


def _against(bound: RiskBound, control: str, term: str) -> str:
    """Say how the learned mask compares with a control."""
    row, column = bound.masks.index(control), bound.terms.index(term)
    low, high = bound.learned_low[row, column], bound.learned_high[row, column]
    words = {
        "fell": "is lower than",
        "rose": "is higher than",
        "did not change": "equals that",
    }.get(_direction(low, high), "cannot be told from that")
    return (
        f"{'V' if term == 'class_variance' else 'CE_p'} under the learned mask {words} under the "
        f"{control} one: {bound.learned_difference[row, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
    )


def _conclusion(bound: RiskBound, moves: dict[str, str]) -> str:
    """Say in one sentence whether a tighter bound, and a smaller risk, came of the mask."""
    if moves["class_variance"] != "fell":
        return "So the inferred bounds are not shown to be tighter under the mask."
    column = bound.terms.index("class_variance")
    rows = [bound.masks.index(control) for control in ("constant", "inverted")]
    special = bool((bound.learned_high[rows, column] < 0).all())
    special = special and bound.p_value("class_variance") <= _SIGNIFICANT
    text = "So the inferred bounds are tighter under the mask"
    text += ", more so than under the controls" if special else ", but not more so than under all"
    text += "" if special else " controls"
    if moves["nce"] == "rose":
        text += "; the loss that they are drawn around rose"
    if moves["cross_entropy"] == "fell":
        return text + "; and the risk itself fell."
    return text + "; but they bound another risk, and that is not shown to be smaller."
