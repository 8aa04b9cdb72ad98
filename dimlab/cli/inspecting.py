"""The command that says what a file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dimlab.cli.app import app
from dimlab.cli.options import AsJson
from dimlab.sources import reading, said_on_stderr
from dimlab.terminal import console, print_table

EncoderName = Annotated[
    str | None,
    typer.Option("--encoder", help="resnet18, resnet34, resnet50, convnet or timm:NAME."),
]
Stem = Annotated[str | None, typer.Option("--stem", help="Of a ResNet: cifar or imagenet.")]
LayoutName = Annotated[
    str | None, typer.Option("--layout", help="How the file is laid out, where it is not plain.")
]
Branch = Annotated[
    str | None,
    typer.Option("--branch", help="Which copy: teacher, student, ema, online, momentum."),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Run code that the file asks for. Know its author.")
]


@app.command()
def inspect(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Weights or features.")],
    encoder: EncoderName = None,
    stem: Stem = None,
    layout: LayoutName = None,
    branch: Branch = None,
    trust_pickle: TrustPickle = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a file is: layout, prefix and why, what matches the encoder, the mask.

    Example: dimlab inspect moco_v2_800ep.pth.tar
    """
    from dimlab.interop.inspecting import inspect_file

    with reading(), said_on_stderr():
        found = inspect_file(
            source, encoder=encoder, stem=stem, layout=layout, branch=branch,
            trust_pickle=trust_pickle,
        )  # fmt: skip
    summary = found.summary()
    if as_json:
        frame = found.to_frame().to_dict("records") if tensors else None
        print(json.dumps(summary | ({"tensors": frame} if tensors else {}), indent=2))
        return
    for name, value in summary.items():
        if value in (None, [], {}, ""):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        console().print(f"{name.replace('_', ' ')}: {text}", markup=False, highlight=False)
    if tensors:
        print_table(found.to_frame(), title="Tensors", formats={})
