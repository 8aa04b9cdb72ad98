"""Factors that the user's own table adds to what a command reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dimlab.cli.inputs import Inputs, reading
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab.representation import Representation


@dataclass(frozen=True)
class Asked:
    """The factors that the user asks for: those of a table, and those to be taken as continuous."""

    table: Any
    continuous: list[str]
    periods: dict[str, float]

    def joined(self, role: str, representation: Representation) -> Representation:
        """Join the factors of a table that has this split; for test, or a whole file, it must."""
        from dimlab.io.tables import as_continuous

        split = str(representation.meta.get("split") or ("" if role == "whole" else role))
        needed = role in ("test", "whole")
        has_table = self.table is not None and (needed or self.table.covers(representation, split))
        in_table = self.table.columns if has_table else []
        asked = dict.fromkeys([*self.continuous, *self.periods])
        mine = [name for name in asked if name not in in_table]
        known = [*in_table, *representation.factors]
        for name in mine if needed else ():
            if name not in known:
                listed = ", ".join(map(repr, known)) or "none"
                raise Refusal(f"continuous must name factors, one of {listed}; got {name!r}.")
        if has_table:
            with reading():
                representation = self.table.join(
                    representation,
                    split=split,
                    continuous=[name for name in asked if name in in_table],
                    periods={n: each for n, each in self.periods.items() if n in in_table},
                )
        return as_continuous(
            representation,
            [name for name in mine if name in representation.factors],
            {name: each for name, each in self.periods.items() if name in mine},
        )


def asked_in(inputs: Inputs, values: Mapping[str, Any]) -> Asked:
    """Read the table that ``--factors`` names."""
    from dimlab.io.tables import FactorTable

    table = None
    if values["table"] is not None:
        read = partial(FactorTable.read, on=values["on"], by_order=values["by_order"])
        with reading():
            table = inputs.table(values["table"], read)
    names = values["continuous"].split(",") if values["continuous"] else []
    return Asked(table, names, dict(values["period"] or []))
