"""Verdicts: one answer a question, with the numbers it rests on and the rule that gave it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dimlab.result import Verdict


def verdicts_of(results: Mapping[str, Any]) -> list[Verdict]:
    """Return what the results' modules answer, in order; each class of results counts once."""
    found: dict[str, Any] = {}
    for result in results.values():
        for each in (result, *getattr(result, "parts", dict)().values()):
            found.setdefault(type(each).__name__, each)
    answers: list[Verdict] = []
    for result in found.values():
        verdict = getattr(sys.modules[type(result).__module__], "verdict", None)
        answer = None if verdict is None else verdict(result)
        answers += [] if answer is None else [answer]
    return answers
