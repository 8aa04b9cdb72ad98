"""Results are written, printed and held against gates, in this order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dimlab.result import numbers_of
from dimlab.terminal import print_summary
from dimlab.text import visible


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
    as_json = values["as_json"]
    if not as_json:
        show(result)
    summary = numbers_of(result)
    if files and not as_json:
        print(visible(" ".join(map(str, ("wrote", *files.values())))))
    left = summary if as_json else {k: each for k, each in summary.items() if k not in shown}
    print_summary(left, as_json=as_json)
    for gate in values["fail_if"] or []:
        gate.check(summary)
