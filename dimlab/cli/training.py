"""Commands that train: a run, and the demo."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dimlab.cli.derive import OUTPUT, Option, TyperCommand, command_of, field_options, one_of
from dimlab.cli.inputs import Inputs, reading
from dimlab.cli.options import DEVICE, INPUTS, JSON, OUT, PIXELS, QUIET, SEED
from dimlab.cli.presenting import say_next
from dimlab.cli.together import together
from dimlab.refusals import Refusal
from dimlab.terminal import console, print_summary, progress, training_progress
from dimlab.training.config import TrainConfig

FIELDS = (  # of TrainConfig with an option of their own; what is not given is the preset's
    *("method", "encoder", "stem", "steps", "batch_size", "learning_rate", "hypergradient"),
    *("meta_every", "mask_learning_rate", "precision", "validate_every", "seed"),
)
_OPTIONS = (
    replace(INPUTS["data"], help="Data set to train on; digits by default, or that of a resumed "
            "run."),
    INPUTS["data_dir"],
    *(INPUTS[each] for each in PIXELS),
    *field_options(TrainConfig, FIELDS),
    Option("fields", "--set", list[str], "Any other field of TrainConfig, as name=value; "
           "repeatable.", metavar="FIELD=VALUE"),
    Option("config", "--config", Path, "TOML file of TrainConfig fields; options of the command "
           "line take precedence."),
    Option("preset", "--preset", str, "Where the other fields start: small, medium or official; "
           "by default small for digits, else medium.",
           read=one_of("preset", ("small", "medium", "official"))),
    replace(OUT, help="Folder of the run; runs/... by default."),
    Option("resume", "--resume", bool, "Continue from the folder's checkpoint, if there is one, "
           "with its configuration.", False, OUTPUT),
    Option("overwrite", "--overwrite", bool, "Replace an older run.", False, OUTPUT),
    Option("tensorboard", "--tensorboard", bool, "Write event files into the folder of the run.",
           False, OUTPUT),
    DEVICE, JSON, QUIET,
)  # fmt: skip


def train(name: str, text: str) -> TyperCommand:
    """Make ``dimlab train``."""
    return command_of(name, _train, _OPTIONS, text, task="How to train")


def demo(name: str, text: str) -> TyperCommand:
    """Make ``dimlab demo``."""
    out = replace(OUT, default=Path("demo"), help="Folder of the report.")
    return command_of(name, _demo, (out, SEED, QUIET), text)


def _train(values: dict[str, Any]) -> None:
    from dimlab.images import asked_of, fit, is_lazy
    from dimlab.training.loop import train as train_run
    from dimlab.training.run import fit_for

    chosen = {name: values[name] for name in FIELDS} | _fields(values["fields"] or [])
    chosen = {name: value for name, value in chosen.items() if value is not None}
    known, data_dir, quiet = values["data"] or "digits", values["data_dir"], values["quiet"]
    usual = "small" if known.partition("+")[0] == "digits" else "medium"  # whatever is planted
    start = getattr(TrainConfig, values["preset"] or usual)()
    chosen = (_read_toml(values["config"]) if values["config"] is not None else {}) | chosen
    settings = _changed(start, chosen)
    run = f"{known}-{settings.encoder}-{settings.method}-seed{settings.seed}"
    folder = _run_folder(values["out"], run, values["overwrite"] or values["resume"])
    before = folder / "checkpoint.pt"
    inputs = Inputs(quiet=quiet, **{each: values[each] for each in PIXELS})
    earlier = inputs.checkpoint(before) if values["resume"] and before.exists() else None
    if earlier is not None:
        settings = _changed(start if values["preset"] else earlier.config, chosen)
        if values["data"] is None:
            known, recorded = earlier.data["name"], earlier.data["folder"]
            data_dir = data_dir or (Path(recorded) if recorded else None)
    how = earlier.data.get("reading") if earlier is not None and values["data"] is None else None
    images = inputs.data_set(known, "train", data_dir, how)
    images = fit_for(settings, fit(images, inputs.asked()), earlier)
    assumed = (asked_of(images) if is_lazy(images) else inputs.asked()).in_words()
    settings, note = _for_channels(settings, images.images.shape[1], chosen)
    validation = None
    if settings.validate_every:
        validation = inputs.data_set(known, "validation", data_dir, how)
        validation = fit(validation, asked_of(images) if is_lazy(images) else inputs.asked())
    with together(values["device"]) as (world, place), ExitStack() as stack:
        quiet = quiet or world.rank > 0
        for each in (assumed and f"assumed: {assumed}", note):
            if each and not quiet:
                print(each, file=sys.stderr)
        n_steps = settings.n_steps(len(images))
        bar = training_progress(n_steps, settings.batch_size, quiet=quiet)
        sinks = [stack.enter_context(bar)]
        if values["tensorboard"] and world.rank == 0:
            sinks.append(stack.enter_context(_tensorboard(folder)))
        checkpoint = train_run(
            settings, images, validation=validation, out=folder, resume=earlier,
            sink=lambda record: _tell(sinks, record), device=place,
        )  # fmt: skip
        is_first = world.rank == 0
    if is_first:
        summary = {**checkpoint.summary(), "checkpoint": str(before)}
        print_summary(summary, as_json=values["as_json"])
        if not values["as_json"]:
            what = "runs every probe and writes one page."
            say_next(f"report {shlex.quote(str(before))}", what)


def _tell(sinks: list[Any], record: dict[str, Any]) -> None:
    for sink in sinks:
        sink(record)


def _for_channels(
    settings: TrainConfig, n_channels: int, chosen: dict[str, Any]
) -> tuple[TrainConfig, str]:
    """Leave out ImageNet's normalisation for images without three channels, with a note."""
    if settings.normalisation != "imagenet" or n_channels == 3 or "normalisation" in chosen:
        return settings, ""
    return _changed(settings, {"normalisation": "none"}), (
        "assumed: normalisation none, as imagenet, the preset's, is of three channels and the "
        f"images have {n_channels}"
    )


def _demo(values: dict[str, Any]) -> None:
    from dimlab.demo import run_demo

    shown, out, quiet = console(), values["out"], values["quiet"]
    headline = run_demo(
        out, values["seed"], training=lambda *sizes: training_progress(*sizes, quiet=quiet),
        working=lambda text: progress(text, quiet=quiet),
    )  # fmt: skip
    for sentence in headline:
        shown.print(f"- {sentence}")
    shown.print(f"Open {out / 'report.html'} (numbers beside it as CSV and JSON).")
    shown.print(
        "Next, features of your own: save arrays `features` (samples x dimensions) and `labels` "
        "with np.savez as train.npz and test.npz; any other array of N values, such as a scanner "
        "or an age, is looked for as a nuisance. Then: dimlab report test.npz --train train.npz"
    )


def _changed(start: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    return type(start).from_dict(start.to_dict() | values)


def _fields(pairs: list[str]) -> dict[str, Any]:
    """Read name=value pairs; the value's type is that of the configuration's field."""
    kinds = {"int": int, "float": float, "str": str}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        kind = TrainConfig.__annotations__.get(name)
        if not equals or kind is None:
            raise Refusal(f"set must be FIELD=VALUE with a field of TrainConfig; got {pair!r}.")
        try:
            booleans = {"true": True, "false": False}
            values[name] = booleans[text] if kind == "bool" else kinds.get(kind, str)(text)
        except (KeyError, ValueError):
            raise Refusal(f"{name} must be {kind}; got {text!r}.") from None
    return values


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Any]:
    """Give a sink that writes every number of a record into event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise Refusal(
            "tensorboard must be installed for --tensorboard; got no such package. "
            'Run pip install "dimlab[tensorboard]".'
        ) from error
    writers: list[Any] = []
    with ExitStack() as stack:

        def write(record: dict[str, Any]) -> None:
            if not writers:  # only now: the folder may be another run's
                writers.append(stack.enter_context(SummaryWriter(str(folder))))
            for name, value in record.items():
                if name != "step":
                    writers[0].add_scalar(name, value, record["step"])

        yield write


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"config must be a TOML file; got {path}, which is not there.")
    if sys.version_info < (3, 11):
        raise Refusal("config must be left out before Python 3.11, which reads TOML; use flags.")
    import tomllib

    with reading():
        return tomllib.loads(path.read_text(encoding="utf-8"))


def _run_folder(out: Path | None, name: str, overwrite: bool) -> Path:
    from dimlab.training.loop import check_free

    folder = out or Path("runs") / name
    check_free(folder)  # first: whoever is told of --overwrite would use it
    if (folder / "checkpoint.pt").exists() and not overwrite:
        raise Refusal(
            f"out must be a folder without a checkpoint.pt; got {folder}. "
            "Pass --overwrite or another --out."
        )
    return folder
