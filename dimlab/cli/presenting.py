"""Results are written, printed and held against gates, in this order."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from dimlab.cli.derive import Option
from dimlab.cli.options import INPUTS
from dimlab.cli.together import remove_parts
from dimlab.result import numbers_of, verdict_of
from dimlab.terminal import console, print_summary
from dimlab.text import visible

_PASSED_ON = (
    *("train", "array", "labels", "on", "by_order", "data", "data_dir", "basis", "table"),
    *("continuous", "period", "max_queries"),
)
_FITTED = ("ablate", "attribute", "confirm", "cumulate", "erase", "evaluate")
_WEIGHTS = (".pt", ".pth", ".ckpt")  # a checkpoint knows its data
_REPORT = "report FILE", "runs every probe and writes one page."
NEXT = {  # what to do after a command, and why
    "ablate": ("confirm FILE", "tests harmful dimensions on samples that did not choose them."),
    "confirm": ("cumulate FILE", "shows how many dimensions can be removed."),
    "cumulate": ("redundancy FILE", "shows which dimensions repeat others."),
    "random-masks": ("confirm FILE", "tests single dimensions."),
    "ablate-retrieval": ("redundancy CORPUS", "shows which dimensions repeat others."),
    "correlate": ("redundancy FILE", "groups dimensions that repeat each other."),
    "decompose": ("redundancy FILE", "shows which dimensions are dead or repeat others."),
    "redundancy": ("ablate FILE --groups redundant", "removes each group as a whole."),
    "compare": _REPORT,
    "prune": _REPORT,
    "profile": ("redundancy FILE", "shows which dimensions are dead or repeat others."),
    "attribute": ("erase FILE --factor NAME", "removes a factor and measures what is lost."),
    "erase": _REPORT,
    "suspects": _REPORT,
    "evaluate": ("ablate FILE", "removes each dimension in turn."),
    "locate": ("attribute FILE", "tests which factors a dimension carries."),
    "follow": ("evaluate FILE", "compares the learned mask with controls."),
    "bound": _REPORT,
}


def present(
    result: Any,
    name: str,
    values: Mapping[str, Any],
    *,
    show: Callable[[Any], None],
    shown: Sequence[str] = (),
    beside: Callable[[Any], Mapping[str, bytes]] | None = None,
    record: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Write a result into the folder of ``--out``, print it, and check the gates."""
    # Files are whole before the first line is printed, which a closed pipe may refuse. `shown`:
    # entries of the summary that `show` prints; `beside`: further files by their endings; `record`:
    # where the result is from.
    from dimlab.report import write_result

    files: Mapping[str, Any] = {}
    if values["out"] is not None:
        files = write_result(
            values["out"], name, result, figure_format=values.get("figure_format", "svg"),
            beside=None if beside is None else beside(result),
            provenance=None if record is None else record(),
        )  # fmt: skip
        remove_parts(values["out"], name)
    as_json = values["as_json"]
    if not as_json:
        answer = verdict_of(result)
        if answer is not None:
            console().print(f"{answer.question} {answer.answer}. {answer.because}\n")
        show(result)
    summary = numbers_of(result)
    if files and not as_json:
        print(visible(" ".join(map(str, ("wrote", *files.values())))))
    left = summary if as_json else {k: each for k, each in summary.items() if k not in shown}
    print_summary(left, as_json=as_json)
    if not as_json and name in NEXT:
        step, why = NEXT[name]
        following, named = step.split()[:2]
        sources = values.get("sources") or [values["source"]]
        given = _given(values, following, sources[:1] if named == "CORPUS" else sources)
        say_next(step.replace(named, given, 1), why)
    for gate in values["fail_if"] or []:
        gate.check(summary)


def _given(values: Mapping[str, Any], following: str, sources: Sequence[Any]) -> str:
    """Write the files and the input options that were given, so that the next command has them."""
    from dimlab.cli import command

    known = {flag for each in command(following).params for flag in each.opts}
    sources = list(map(str, sources))
    passed = (INPUTS[name] for name in _PASSED_ON)
    options = as_given([each for each in passed if each.flag in known], values)
    whole = shlex.join([*sources, *options])
    knows_train = values.get("train") or values.get("data") or sources[0].endswith(_WEIGHTS)
    return whole if knows_train or following not in _FITTED else f"{whole} --train TRAIN"


def as_given(options: Sequence[Option], values: Mapping[str, Any]) -> list[str]:
    """Write options as they were given; those that have their default are left out."""
    given: list[str] = []
    for option in options:
        value = values.get(option.name)
        if value not in (None, option.default, []):
            for each in value if isinstance(value, list) else [value]:
                text = f"{each[0]}={each[1]:g}" if isinstance(each, tuple) else str(each)
                given += [option.flag] if option.type is bool else [option.flag, text]
    return given


def say_next(step: str, why: str, *, file: TextIO | None = None) -> None:
    """Print the command that comes next, as one line to be copied, and why."""
    print(f"\nNext: dimlab {visible(step)}\nIt {visible(why)}", file=file)
