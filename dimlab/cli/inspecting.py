"""The command that says what a file is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    AllowPartial,
    AllowUntrained,
    AsJson,
    Branch,
    EncoderName,
    FailIf,
    LayoutName,
    Out,
    Stem,
    TrustPickle,
)
from dimlab.cli.recording import recording
from dimlab.sources import Loading, reading, said_on_stderr
from dimlab.terminal import console, presented, print_table


@app.command()
def inspect(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Weights or features.")],
    encoder: EncoderName = None,
    stem: Stem = None,
    layout: LayoutName = None,
    branch: Branch = None,
    allow_partial: AllowPartial = None,
    allow_untrained: AllowUntrained = False,
    trust_pickle: TrustPickle = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    out: Out = None,
    as_json: AsJson = False,
    fail_if: FailIf = None,
) -> None:
    """Say what a file is: layout, prefix and why, what matches the encoder, the mask.

    It says so of files that cannot be loaded too, and why they cannot.

    Example: dimlab inspect moco_v2_800ep.pth.tar
    """
    from dimlab.io.inspecting import inspect_file
    from dimlab.io.matching import check_names

    check_names(encoder, stem, layout)  # misuses, where what does not fit is a failure
    with reading(), said_on_stderr():
        found = inspect_file(
            source, encoder=encoder, stem=stem, layout=layout, branch=branch,
            allow_partial=allow_partial or [], allow_untrained=allow_untrained,
            trust_pickle=trust_pickle,
        )  # fmt: skip
    summary = found.summary()
    if tensors and as_json:
        rows = found.to_frame().to_dict("records")
        found = replace(found, facts={**found.facts, "tensors": rows})
    with presented(
        found, "inspect", out, as_json=as_json, fail_if=fail_if, shown=list(summary),
        record=recording(Loading(), [], beside=[source]),
    ) as for_people:  # fmt: skip
        if for_people:
            for name, value in summary.items():
                if value not in (None, [], {}, ""):
                    line = f"{name.replace('_', ' ')}: {_in_words(value)}"
                    console().print(line)
            if tensors:
                print_table(found.to_frame(), title="Tensors", formats={})


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
