"""The command that grades dimlab's measures where the truth was planted."""

from __future__ import annotations

from typing import Any

from dimlab.cli import showing
from dimlab.cli.derive import TyperCommand, command_of
from dimlab.cli.inputs import Inputs
from dimlab.cli.options import OUTPUTS, SEED, measured_by
from dimlab.cli.presenting import as_given, present, say_next
from dimlab.cli.recording import recording
from dimlab.terminal import progress

_CHANGES = {
    "seed": {"help": SEED.help},
    "probes": {"help": "Probe of dimlab to grade, repeatable; by default all."},
}


def _options() -> list[Any]:
    from dimlab._validate import validate as function

    own = measured_by(function, _CHANGES, leave_out=("planted",))
    return [*own, *OUTPUTS]


def validate(name: str, text: str) -> TyperCommand:
    """Make ``dimlab validate``."""
    return command_of(name, _validate, _options(), text)


def _validate(values: dict[str, Any]) -> None:
    from dimlab._validate import HOLDS
    from dimlab._validate import validate as function

    chosen = {each: values[each] for each in ("n_samples", "n_dimensions", "n_worlds", "seed")}
    with progress("grading", quiet=values["quiet"]) as advance:
        result = function(probes=values["probes"] or None, **chosen, progress=advance)
    present(
        result, "validate", values, show=showing.validation, shown=("failing",),
        record=recording(Inputs(seed=values["seed"]), []),
    )  # fmt: skip
    if values["as_json"]:
        return
    if all(each == HOLDS for each in result.failing.values()):
        say_next("report FILE --train TRAIN", "runs every probe on features of your own.")
        return
    more = {**values, "n_worlds": 5 * values["n_worlds"], "out": None}
    given = " ".join(as_given([each for each in _options() if each.name != "figure_format"], more))
    say_next(f"validate {given}", "draws more worlds, which makes the intervals shorter.")
