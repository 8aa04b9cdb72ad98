"""Verdicts: one answer a question, with the numbers it rests on and the rule that gave it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dimlab.result import Verdict

if TYPE_CHECKING:
    from dimlab.probes.confirm_harmful import HarmfulDimensions
    from dimlab.probes.erase import Erasure


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
        "Erasure": _helped,
    }
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
