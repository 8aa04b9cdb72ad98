"""Verdicts: one answer a question, with the numbers it rests on and the rule that gave it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.result import Verdict

if TYPE_CHECKING:
    from dimlab.probes.attribute import Attribution
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.erase import Erasure
    from dimlab.probes.follow import MaskEvolution


def verdicts_of(results: Mapping[str, Any]) -> list[Verdict]:
    """Answer what the results can answer, in a fixed order.

    Parameters
    ----------
    results : mapping of str to result
        By any names; each class counts once, the first of it.

    Returns
    -------
    list of Verdict
        One for each question whose results are there.
    """
    found: dict[str, Any] = {}
    for result in results.values():
        for each in (result, *getattr(result, "parts", dict)().values()):
            found.setdefault(type(each).__name__, each)
    answers: list[Verdict] = []
    others: dict[str, Callable[[Any], Verdict | None]] = {
        "HarmfulDimensions": _harmful,
        "Attribution": _confounded,
        "Erasure": _helped,
    }
    others["MaskEvolution"] = _knows
    for name, result in found.items():
        verdict = getattr(sys.modules[type(result).__module__], "verdict", others.get(name))
        answer = None if verdict is None else verdict(result)
        answers += [] if answer is None else [answer]
    return answers


def _harmful(harmful: HarmfulDimensions) -> Verdict:
    confirmed = [harmful.groups[group].tolist() for group in harmful.confirmed]
    named = ", ".join(" ".join(map(str, group)) for group in confirmed[:12])
    text = (
        f"{len(confirmed)} of {len(harmful)} confirmed ({harmful.reader} reader, accuracy "
        f"{harmful.full_score:.4f} with all)" + (f": {named}." if confirmed else ".")
    )
    undecided = not confirmed and harmful.n_test_needed > 0
    return Verdict(
        "Are dimensions harmful, confirmed on samples that did not choose them?",
        "yes" if confirmed else "undecided" if undecided else "no",
        " ".join(
            filter(None, [harmful.summary()["verdict"] if undecided else text, harmful.caution])
        ),
        "Yes: the removal of some dimension helps with q <= 0.05 on held-out halves; undecided: so "
        "few samples are misread that none could; else no, which does not show that none is.",
    )


def _confounded(attribution: Attribution) -> Verdict:
    flagged, n = int(attribution.flagged.sum()), len(attribution)
    determined = attribution.determined
    words = attribution.summary()["verdicts"]
    more = words.get("nuisance", 0)
    leading = attribution.leading_factor
    text = (
        f"{flagged} of {n} dimensions carry a factor beside the label and all other factors "
        "(q <= 0.05, effect at least 0.01)"
    )
    if leading is not None:
        effect = attribution.effect[:, attribution.factors.index(leading)]
        text += (
            f", above all {leading} (up to {np.nanmax(effect):.1%} of a dimension's error); "
            f"{more} carry more of one than of the label"
        )
    if determined:
        text += f"; the label determines {', '.join(determined)}, which cannot be told from it"
    if words.get("undecided") and not determined:
        text += f"; {words['undecided']} carry factors that cannot be told from each other"
    answer = "undecided" if determined or words.get("undecided") else "no"
    notes = [f" {name} is {note}" for name, note in attribution.notes.items()]
    return Verdict(
        "Do dimensions carry nuisance more than the label?",
        "yes" if more else answer,
        text + "." + "".join(notes),
        "Yes: for some dimension a factor's effect given the label has q <= 0.05 and is at least "
        "0.01 and the label's own, and it is found given all other factors too. Undecided: the "
        "label determines a factor, or factors cannot be told from each other.",
    )


def _helped(erasure: Erasure) -> Verdict:
    way = next((each for each in ("directions", "dimensions") if each in erasure.ways), None)
    rule = (
        "Yes: the interval of the change of accuracy on test lies above 0; no: below; else "
        "undecided."
    )
    question = f"Does taking {erasure.factor} out help the task on test?"
    if way is None:
        text = f"No dimension or direction carries more of {erasure.factor} than of the label."
        return Verdict(question, "undecided", text, rule)
    place = erasure.ways.index(way)
    change, lost = erasure.accuracy_change[place, 0], erasure.factor_lost[place, 0]
    answer = "yes" if change[1] > 0 else "no" if change[2] < 0 else "undecided"
    return Verdict(
        question,
        answer,
        f"Without {erasure.n_removed[place]} {way} accuracy changes by {change[0]:+.4f} "
        f"[{change[1]:+.4f}, {change[2]:+.4f}] and R^2 of {erasure.factor} falls by {lost[0]:.3f} "
        f"[{lost[1]:.3f}, {lost[2]:.3f}].",
        rule,
    )


def _knows(evolution: MaskEvolution) -> Verdict | None:
    if not evolution.links:
        return None
    words = evolution.verdicts
    decided = set(words.values()) & {"agrees", "contradicts"}
    answer = "yes" if decided == {"agrees"} and "undecided" not in words.values() else "undecided"
    answer = "no" if "contradicts" in decided else answer
    learned = [link for link in evolution.links if link.mask == "learned" and not link.reason]
    numbers = "; ".join(
        f"{link.link} {link.correlation:+.2f} [{link.ci_low:+.2f}, {link.ci_high:+.2f}], "
        f"{link.verdict}"
        for link in learned
    )
    return Verdict(
        "Does the mask agree with what dimensions do?",
        answer,
        f"Spearman correlation of the final weights: {numbers}." if learned else "Undefined.",
        "Yes: every link's interval lies on the side that the paper's claim expects (importance "
        "positive, redundancy and nuisance negative); no: one lies on the other side; else "
        "undecided.",
    )
