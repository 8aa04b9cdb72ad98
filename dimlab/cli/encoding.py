"""Commands of encoders: encode images, say what a file is, show where dimensions look."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.cli import showing
from dimlab.cli.derive import INPUT, Option, TyperCommand, command_of, heading_of, numbers_in
from dimlab.cli.inputs import Inputs
from dimlab.cli.options import (
    DATA,
    FAIL_IF,
    FILE,
    INPUTS,
    JSON,
    OUT,
    OUTPUTS,
    PIXELS,
    QUIET,
    known_split,
    measured_by,
)
from dimlab.cli.presenting import as_given, present, say_next
from dimlab.cli.probing import inputs_of
from dimlab.cli.recording import keep_record, recording
from dimlab.cli.together import together
from dimlab.refusals import Refusal
from dimlab.terminal import console, print_table, progress
from dimlab.text import in_words

if TYPE_CHECKING:
    from dimlab.moments import Moments
    from dimlab.representation import Representation

CHECKPOINT = replace(FILE, help="A checkpoint of dimlab train.", metavar="CHECKPOINT")
_WEIGHTS = (
    *("encoder", "stem", "layout", "branch", "pool", "encoder_option"),
    *("allow_partial", "allow_untrained", "trust_pickle"),
)
_NEXT = {  # what to do with a file, by the kind that inspect tells
    "features": ("report FILE", "runs every probe and writes one page."),
    "moments": ("decompose FILE", "shows how many dimensions are used."),
    "mask trace": ("follow FILE", "shows how the mask moved."),
    "own checkpoint": ("evaluate FILE", "measures how well classifiers read its features."),
    "checkpoint": ("encode FILE --data image-folder --data-dir FOLDER --normalisation NAME",
                   "writes the features of the images in FOLDER."),
}  # fmt: skip


def _about_weights() -> list[Option]:
    """Return the options by which files of other tools are read, as they come."""
    load = heading_of("dimlab.io.weights:load_encoder")  # help costs no torch
    found = {each.name: each for each in measured_by(load)}
    return [replace(found[each], panel=INPUT, read=None) for each in _WEIGHTS]


def encode(name: str, text: str) -> TyperCommand:
    """Make ``dimlab encode``."""
    split = Option("split", "--split", list[str], "Split: train, validation or test; repeatable. "
                   "Train and test by default.", None, INPUT,
                   read=lambda names: [known_split(each) for each in names])  # fmt: skip
    moments = Option("moments", "--moments", bool, "Store moments only (of two views with "
                     "--views 2).", False)  # fmt: skip
    own = measured_by(
        heading_of("dimlab._encode:encode"), {"n_views": {"name": "views"}},
        {"batch_size", "scratch", *PIXELS},
    )  # fmt: skip
    options = (
        FILE, *_about_weights(), *(INPUTS[each] for each in DATA.split()), split, *own, moments,
        replace(OUT, default=Path("."), help="Folder for the .safetensors files."), QUIET,
    )  # fmt: skip
    return command_of(name, _encode, options, text, task="What to encode")


def inspect(name: str, text: str) -> TyperCommand:
    """Make ``dimlab inspect``."""
    tensors = Option("tensors", "--tensors", bool, "List every tensor.", False)
    source = replace(FILE, help="Weights or features.")
    options = (source, *_about_weights(), tensors, OUT, JSON, FAIL_IF)
    return command_of(name, _inspect, options, text, task="What to show")


def locate(name: str, text: str) -> TyperCommand:
    """Make ``dimlab locate``."""
    dimensions = Option("dimensions", "--dimensions", str, "Dimensions, separated by commas; by "
                        "default the six that vary most.", read=_dimensions)  # fmt: skip
    looked_at = replace(
        INPUTS["max_queries"], help="Images to look among, the first ones; all by default."
    )
    inputs = (*(INPUTS[each] for each in DATA.split()), INPUTS["split"], looked_at)
    along = Option("along", "--along", Path, "Result of dimlab suspects, suspects.result.npz: look "
                   "along its directions instead of dimensions.")  # fmt: skip
    own = measured_by(heading_of("dimlab._locate:locate"), leave_out={"batch_size", "directions"})
    return command_of(name, _locate, (CHECKPOINT, *inputs, dimensions, along, *own, *OUTPUTS), text)


def _dimensions(text: str) -> list[int]:
    return numbers_in("dimensions", text, "int")


def _check_names(values: dict[str, Any]) -> None:
    """Refuse names that fit no file: a misuse, not a failure of the file."""
    from dimlab.io.weights import wanted_of

    wanted_of(values).check()


def _encode(values: dict[str, Any]) -> None:
    source, inputs = values["source"], replace(inputs_of(values), has_flags=True)
    _check_names(values)
    inputs.asked(values["normalisation"])  # refused before anything is opened
    if values["moments"] and values["views"] not in (0, 2):
        raise Refusal(f"views must be 0 or 2 with --moments; got {values['views']}.")
    kind = inputs.source(source, trust_pickle=values["trust_pickle"]).kind
    if kind not in ("checkpoint", "weights"):
        raise Refusal(f"checkpoint must hold an encoder; got {kind}, {source.name}.")
    if kind == "weights":
        _check_of_others(source.name, values)
    _encode_splits(inputs, values, is_own=kind == "checkpoint")


def _encode_splits(inputs: Inputs, values: dict[str, Any], *, is_own: bool) -> None:
    """Encode splits, in one process or several; a killed command goes on where it was."""
    from dimlab._encode import encode_moments
    from dimlab.images import is_lazy
    from dimlab.processes import wait_for_all

    source, out, chosen = values["source"], values["out"], values["normalisation"]
    out.mkdir(parents=True, exist_ok=True)
    with together(values["device"]) as (world, place):
        mine = replace(inputs, device=place, quiet=inputs.quiet or world.rank > 0)
        network: Any = (
            mine.checkpoint(source)
            if is_own
            else mine.encoder(source, normalisation=chosen, **_weights_in(values))
        )
        written: dict[str, str] = {}
        for name in values["split"] or ["train", "test"]:
            mine.encoded.clear()  # a record is of one split
            images = mine.images(network, name, normalisation=None if is_own else chosen)
            scratch = out / f".{name}.encoding" if is_lazy(images) else None
            if values["moments"]:
                with progress(f"encoding {name}", quiet=mine.quiet, unit="images") as advance:
                    encoded: Any = encode_moments(
                        network, images, views=values["views"] > 0, layer=values["layer"],
                        seed=values["seed"], device=place, progress=advance,
                    )  # fmt: skip
            else:
                encoded = mine.encode(
                    network, images, views=values["views"], layer=values["layer"],
                    normalisation=chosen, scratch=scratch,
                )  # fmt: skip
            if world.rank == 0:
                written[name] = shlex.quote(str(_keep(encoded, out, name, mine, source)))
            if scratch is not None:
                wait_for_all(world)
                shutil.rmtree(scratch, ignore_errors=True)
    if not mine.quiet:  # stdout has the paths alone
        last = [*written.values()][-1]
        step, why = f"decompose {last}", "shows how many dimensions are used."
        if {"train", "test"} <= {*written} and not values["moments"]:
            step = f"report {written['test']} --train {written['train']}"
            why = "runs every probe and writes one page."
        say_next(step, why, file=sys.stderr)


def _weights_in(values: dict[str, Any]) -> dict[str, Any]:
    lists = ("encoder_option", "allow_partial")
    return {each: values[each] for each in _WEIGHTS} | {e: values[e] or [] for e in lists}


def _check_of_others(name: str, values: dict[str, Any]) -> None:
    """Refuse what only a checkpoint of dimlab's can be asked for."""
    if values["layer"] != "encoder":
        raise Refusal(
            f"layer must be encoder for a checkpoint of another tool, as {name} is; got "
            f"{values['layer']!r}."
        )
    if values["moments"]:
        raise Refusal(
            f"moments must be left out for a checkpoint of another tool, as {name} is; got "
            "--moments. Encode it, then dimlab decompose FEATURES --save-moments."
        )


def _keep(
    encoded: Representation | Moments, out: Path, split: str, inputs: Inputs, source: Path
) -> Path:
    """Save what was encoded, and where it is from; no old record stays beside new features."""
    from dimlab.report.provenance import RECORD
    from dimlab.representation import Representation

    ending = "" if isinstance(encoded, Representation) else "-moments"
    path = out / f"{split}{ending}.safetensors"
    path.with_name(f"{path.stem}{RECORD}").unlink(missing_ok=True)
    print(encoded.save(path))
    keep_record(recording(inputs, [source], {split: encoded}, split=split)(), path)
    return path


def _inspect(values: dict[str, Any]) -> None:
    from dimlab.io.inspecting import inspect_file

    _check_names(values)
    with Inputs().reading():
        found = inspect_file(values["source"], **_weights_in(values))
    if values["tensors"] and values["as_json"]:
        listed = found.to_frame().to_dict("records")
        found = replace(found, facts={**found.facts, "tensors": listed})

    def show(result: Any) -> None:
        for name, value in result.summary().items():
            if value not in (None, [], {}, ""):
                console().print(f"{name.replace('_', ' ')}: {in_words(value)}")
        if values["tensors"]:
            print_table(result.to_frame(), title="Tensors")

    present(
        found, "inspect", values, show=show, shown=list(found.summary()),
        record=recording(Inputs(), [], beside=[values["source"]]),
    )  # fmt: skip
    kind = "own checkpoint" if found.facts.get("layout") == "dimlab" else found.kind
    if kind in _NEXT and found.facts.get("loads", "yes") == "yes" and not values["as_json"]:
        step, why = _NEXT[kind]
        given = shlex.join([str(values["source"]), *as_given(_about_weights(), values)])
        say_next(step.replace("FILE", given), why)


def _directions_in(path: Path) -> np.ndarray:
    """Read the directions of suspects; a result without any is refused."""
    from dimlab.probes.find_suspects import Suspects
    from dimlab.result_file import load_result

    found = load_result(path)
    if not isinstance(found, Suspects) or not len(found):
        what = "one that found none" if isinstance(found, Suspects) else type(found).__name__
        raise Refusal(f"along must be a result of dimlab suspects with directions; got {what}.")
    return found.directions


def _locate(values: dict[str, Any]) -> None:
    from dimlab._encode import encode as encode_images
    from dimlab._locate import locate as locate_dimensions

    source, device, count = values["source"], values["device"], values["max_queries"]
    inputs = inputs_of(values)
    directions = None if values["along"] is None else _directions_in(values["along"])
    checkpoint = inputs.checkpoint(source)
    images = inputs.images(checkpoint, values["split"])
    if count is not None:
        images = images.take(range(min(count, len(images))))
    chosen = values["dimensions"]
    if chosen is None and directions is not None:
        chosen = list(range(min(6, directions.shape[1])))
    elif chosen is None:
        spread = encode_images(checkpoint, images, device=device).features.std(axis=0)
        chosen = np.argsort(-spread, kind="stable")[:6].tolist()
    own = ("n_images", "patch", "stride", "fill")
    with progress("locating", quiet=values["quiet"]) as advance:
        result = locate_dimensions(
            checkpoint, images, chosen, directions=directions, device=device, progress=advance,
            **{each: values[each] for each in own},
        )  # fmt: skip
    present(
        result, "locate", values, record=recording(inputs, [source]),
        show=showing.rows("Images of largest activation", count=3 * len(chosen)),
        shown=("dimensions",),
    )  # fmt: skip
