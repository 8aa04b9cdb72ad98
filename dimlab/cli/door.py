"""The door: one application, its commands made when they are asked for, and exit codes."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
import tempfile
import traceback
from importlib.metadata import EntryPoint
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dimlab import __version__
from dimlab.cli.gates import GateMet
from dimlab.cli.inputs import Unreadable
from dimlab.outside import loaded
from dimlab.probes import outside_probes
from dimlab.processes import says_why
from dimlab.refusals import Damaged, Refusal
from dimlab.text import make_streams_readable, say

DONE, FAILED, MISUSED, GATED = 0, 1, 2, 3
_CTRL_C = 130
_OF_TYPER = re.compile(r"^Invalid value for '(.+?)': Input should be a valid (integer|number)\b.*")

# by panel: name, what makes the command (one of the CLI, or a probe), and what its help says
_PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Start here": {
        "demo": ("dimlab.cli.training:demo", """\
Train on digits with a planted nuisance, find it, remove it and write a report.

All numbers come from this run."""),
        "train": ("dimlab.cli.training:train", """\
Train MetaMask (or a baseline) and write checkpoint.pt and metrics.jsonl.

Under torchrun (torchrun --nproc-per-node 2 -m dimlab train ...) the processes share each batch.
Example: dimlab train --data fashion-mnist --encoder convnet --steps 400"""),
        "encode": ("dimlab.cli.encoding:encode", """\
Encode splits of the checkpoint's data set into <split>.safetensors files.

Checkpoints of other tools need --data. Example:
dimlab encode checkpoint.pt --views 2 --out features"""),
        "evaluate": ("dimlab.probes.evaluate:evaluate", """\
Compare readers of raw pixels, the untrained and the trained encoder, masked and unmasked.

Features, and encoders of other tools with --data, are evaluated alone. View retrieval is the
share of test images whose second augmented view lies nearest to their own first view among all.
Under torchrun the processes share the samples.
Example: dimlab evaluate runs/a/checkpoint.pt runs/b/checkpoint.pt"""),
        "validate": ("dimlab.cli.validating:validate", """\
Grade every measure on worlds in which it is known what each dimension is.

It needs no files, and takes less than a minute. Example: dimlab validate --n-worlds 50"""),
        "report": ("dimlab.cli.reporting:report", """\
Run every probe and write one HTML page with answers, figures and numbers.

Under torchrun the processes share the samples, and a killed command that is started again goes on
from what was finished. Example: dimlab report checkpoint.pt --out report"""),
        "inspect": ("dimlab.cli.encoding:inspect", """\
Describe a file: its layout, the encoder that fits its weights, and its mask.

Files that cannot be loaded are described too, with the reason.
Example: dimlab inspect moco_v2_800ep.pth.tar"""),
    },
    "Remove dimensions": {
        "ablate": ("dimlab.probes.ablate:ablate", """\
Remove each dimension, or group, in turn and score a reader of the rest.

The test split is ablated against the train split. Under torchrun the processes share the samples.
With --out a killed command that is started again goes on from what was finished.
Example: dimlab ablate checkpoint.pt"""),
        "confirm": ("dimlab.probes.confirm_harmful:confirm_harmful", """\
Find dimensions that hurt a reader, confirmed on samples that did not choose them.

Example: dimlab confirm checkpoint.pt --basis pca"""),
        "cumulate": ("dimlab.probes.ablate_cumulatively:ablate_cumulatively", """\
Remove dimensions one after the other and score a reader of the rest each time.

Example: dimlab cumulate checkpoint.pt --order best-first"""),
        "prune": ("dimlab._prune:prune", """\
Choose a smaller set of dimensions or directions, and bound on held-out samples what it loses.

With --out the smaller features of train and test, and the weights of a layer that makes them, are
written. Example: dimlab prune checkpoint.pt --drop-dead --drop-duplicates --max-loss 0.005"""),
        "random-masks": ("dimlab.probes.random_masks:random_masks", """\
Score random masks, and test the best one on samples that did not choose it.

Example: dimlab random-masks checkpoint.pt --drop 0.1,0.5"""),
        "ablate-retrieval": ("dimlab.probes.ablate_retrieval:ablate_retrieval", """\
Remove each dimension, or group, in turn and score the retrieval of relevant documents.

Harm is confirmed on held-out queries, and curves show what fewer dimensions find.
Example: dimlab ablate-retrieval corpus.npz queries.npz --relevance qrels.tsv"""),
    },
    "Measure redundancy": {
        "correlate": ("dimlab.probes.correlate:correlate", """\
Correlate dimensions between two views of each sample, or with each other.

Example: dimlab correlate checkpoint.pt --out correlation"""),
        "decompose": ("dimlab.probes.decompose:decompose", """\
Decompose features into singular values, and measure effective ranks with intervals.

Under torchrun the processes share the samples. Example: dimlab decompose part-*.safetensors"""),
        "redundancy": ("dimlab.probes.find_redundancy:find_redundancy", """\
Find dimensions that are dead, or copies or sums of others, and a subset without them.

With --views the augmented views are measured, each as a sample of its own.
Example: dimlab redundancy checkpoint.pt --cut 0.7"""),
        "profile": ("dimlab.probes.profile:profile", """\
Find outlier dimensions, by their share of the cosine similarity, and what they do to neighbours.

Example: dimlab profile embeddings.npz"""),
        "compare": ("dimlab.probes.compare:compare", """\
Compare representations: ranks, redundancy, similarity and matching dimensions.

A run trained with --set keep_checkpoints=true has one checkpoint a step to compare.
Example: dimlab compare runs/a/checkpoint.pt runs/b/checkpoint.pt"""),
    },
    "Find what dimensions carry": {
        "attribute": ("dimlab.probes.attribute:attribute", """\
Measure which factors each dimension carries beside the label, and erase the leading one.

With --views the augmented views of test are attributed, and the parameters of the augmentation
are factors too. Example: dimlab attribute checkpoint.pt --views 2 --factors scanners.csv"""),
        "erase": ("dimlab.probes.erase:erase", """\
Remove a factor by dimensions, by directions and by LEACE, and measure what is left of it.

Example: dimlab erase checkpoint.pt --factor hue --directions varimax"""),
        "suspects": ("dimlab.probes.find_suspects:find_suspects", """\
Find directions that mislead a reader on held-out samples, without a table of factors.

The test split must hold samples on which the shortcut fails.
Example: dimlab suspects checkpoint.pt --out suspects"""),
        "locate": ("dimlab.cli.encoding:locate", """\
Show the images that activate a dimension most, and where in them it responds.

Example: dimlab locate checkpoint.pt --dimensions 3,17 --out located"""),
        "follow": ("dimlab.probes.follow:follow", """\
Follow the mask during training, and compare its final weights with other measurements.

The comparison needs checkpoints of dimlab and their data; it is made at the last step.
Example: dimlab follow checkpoint.pt --out followed"""),
        "bound": ("dimlab.probes.bound_risk:bound_risk", """\
Measure the terms of two risk bounds: one that is proved, one inferred from the paper.

Features need two views of each sample. Whether the inferred form holds is reported.
Example: dimlab bound checkpoint.pt"""),
    },
}  # fmt: skip
OURS = {name: each for commands in _PANELS.values() for name, each in commands.items()}
COMMANDS = tuple(OURS)


def outside_commands() -> dict[str, EntryPoint]:
    """Return the probes of other packages by the names of their commands."""
    found = {name.replace("_", "-"): each for name, each in outside_probes().items()}
    return {name: each for name, each in found.items() if name not in OURS}


@functools.cache
def command(name: str) -> TyperCommand:
    """Return one of dimlab's commands; only what it needs is imported."""
    target, text = OURS[name]
    module, _, function = target.partition(":")
    made = getattr(importlib.import_module(module), function)
    if module.startswith("dimlab.cli"):
        return made(name, text)
    from dimlab.cli.probing import probe_command

    return probe_command(name, made, text)


def _made_outside(name: str, point: EntryPoint) -> TyperCommand:
    from dimlab.cli.probing import probe_command

    function = loaded(point)
    text = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return probe_command(name, function, text)


class _Door(TyperGroup):
    """Commands that are made when they are asked for, listed in panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *outside_commands()]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        if cmd_name in OURS:
            return command(cmd_name)
        point = outside_commands().get(cmd_name)
        return None if point is None else _made_outside(cmd_name, point)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for panel, commands in _PANELS.items():
            with formatter.section(panel):
                texts = [(name, text.partition("\n")[0]) for name, (_, text) in commands.items()]
                formatter.write_dl(texts)
        others = outside_commands()
        if others:
            with formatter.section("Probes of other packages"):
                formatter.write_dl([(name, each.value) for name, each in others.items()])


app = typer.Typer(
    name="dimlab",
    cls=_Door,
    help="Look inside self-supervised representations one dimension at a time.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"dimlab {__version__}")
        raise typer.Exit


@app.callback()
def _dimlab(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def run() -> None:
    """Run the command line: one sentence on stderr and exit code 1, 2 or 3 where it fails."""
    make_streams_readable()
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    if not arguments:
        arguments = ["--help"]
    named = next((each for each in arguments if not each.startswith("-")), "")
    prefix = f"dimlab {named}".strip()
    try:
        code = app(arguments, standalone_mode=False) or DONE
        if code == _CTRL_C:  # typer turns Ctrl-C into a code of its own
            raise KeyboardInterrupt
        sys.exit(code)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        sentence, code = _explain(error)
        if says_why():
            say(f"{prefix}: {sentence}")
        sys.exit(code)


def _explain(error: BaseException) -> tuple[str, int]:
    """Return what to say of an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", FAILED
    if hasattr(error, "format_message"):  # what typer raises: unknown flag, value of another type
        said = _OF_TYPER.sub(r"\1 must be a valid \2", error.format_message().rstrip("."))
        return f"{said}. See --help.", MISUSED
    codes = {GateMet: GATED, Unreadable: FAILED, Damaged: FAILED}
    codes |= {FileNotFoundError: MISUSED, Refusal: MISUSED}
    for kind, code in codes.items():
        if isinstance(error, kind):
            return str(error), code
    if isinstance(error, OSError):
        if error.filename is None:
            return str(error), FAILED
        return f"{error.filename}: {error.strerror or error}.", FAILED
    if isinstance(error, MemoryError):
        return str(error) or "out of memory.", FAILED
    name = type(error).__name__
    return f"internal error, {name}: {error} ({_logged(error)}).", FAILED


def _logged(error: BaseException) -> str:
    """Write the traceback into a file, and say where it is."""
    lines = [f"dimlab {__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n"]
    lines += traceback.format_exception(error)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="dimlab-", suffix=".log", delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as file:  # fmt: skip
            file.writelines(lines)
    except OSError:
        return "--debug shows the traceback"
    return f"the traceback is in {file.name}"
