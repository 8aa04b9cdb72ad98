"""Gates: comparisons of numbers of a result with limits, for pipelines."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from dimlab.refusals import Refusal
from dimlab.result import Result

_SIGNS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


class GateMet(Exception):
    """A number of the result meets a gate."""


@dataclass(frozen=True)
class Gate:
    """A comparison of a number of a summary, named by a dotted key, with a limit."""

    key: str
    sign: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Gate:
        """Read ``KEY SIGN NUMBER``."""
        found = re.fullmatch(r"\s*(.*[^\s<>=!])\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*", text, re.DOTALL)
        try:
            limit = float(found[3]) if found else np.nan
        except ValueError:
            limit = np.nan
        if found is None or np.isnan(limit):
            raise Refusal(f"fail-if must be KEY > NUMBER (or >=, <, <=, ==, !=); got {text!r}.")
        return cls(found[1], found[2], limit)

    def check(self, summary: Mapping[str, Any]) -> None:
        """Raise `GateMet` where the number meets the gate, or is not defined (None, NaN)."""
        value = _named(summary, self.key, self.key)
        asked = f"{self.key} {self.sign} {self.limit:g}"
        if value is None or value != value:
            raise GateMet(
                f"gate not passed: {self.key} is not defined for this result (null in the JSON), "
                f"so that {asked} cannot be decided."
            )
        if not isinstance(value, Real):
            raise Refusal(f"fail-if must name a number; got {self.key!r}, which is not one.")
        if _SIGNS[self.sign](value, self.limit):
            raise GateMet(f"gate met: {self.key} is {value}, {self.sign} {self.limit:g}.")


def _named(value: Any, key: str, whole: str) -> Any:
    """Return what a dotted key names; names may have dots of their own."""
    if value is None:  # what lies within something undefined is not defined
        return None
    names = {str(name): name for name in value} if isinstance(value, Mapping) else {}
    if key in names:
        return value[names[key]]
    refusal = _unknown(whole, names)
    for name in names:
        if key.startswith(f"{name}."):
            try:
                return _named(value[names[name]], key.removeprefix(f"{name}."), whole)
            except Refusal as error:
                refusal = error
    raise refusal


def check_keys(gates: Sequence[Gate] | None, result: Any) -> None:
    """Refuse gates on entries that a result's class does not declare."""
    # what lies below an entry is known only when it is measured
    declared = isinstance(result, type) and issubclass(result, Result)
    names = result.keys() if declared else None
    if names is None:
        return
    for gate in gates or ():
        if not any(gate.key == name or gate.key.startswith(f"{name}.") for name in names):
            raise _unknown(gate.key, names)


def _unknown(key: str, known: Iterable[str]) -> Refusal:
    listed = ", ".join(known) or "nothing"
    return Refusal(f"fail-if must name a number of the JSON, one of {listed}; got {key!r}.")
