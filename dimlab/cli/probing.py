"""Commands of probes, made from the functions of the probes and a few additions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimlab.cli import showing
from dimlab.cli.derive import Option, TyperCommand, command_of
from dimlab.cli.factors import asked_in
from dimlab.cli.gates import check_keys
from dimlab.cli.inputs import Inputs, warnings_to
from dimlab.cli.options import (
    DATA,
    DEVICE,
    FILE,
    FILES,
    INPUTS,
    OUTPUTS,
    PARTS,
    SEED,
    Groups,
    measured_by,
)
from dimlab.cli.presenting import present
from dimlab.cli.recording import files_of, names_of, recording
from dimlab.cli.samples import sampled
from dimlab.cli.together import measuring
from dimlab.cli.traces import read_trace
from dimlab.refusals import Refusal, WrongType
from dimlab.terminal import progress
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.representation import Representation

Measured = tuple[Any, Mapping[str, Any]]  # a result, and the representations that it is of
FEATURES = "array labels on by_order"  # names of options of the panel Input
SAMPLES = f"train {FEATURES} {DATA} max_queries max_train"
TABLE = "table continuous period"


@dataclass(frozen=True)
class Special:
    """What a probe's command adds to the signature of its function."""

    inputs: str = ""  # names of options of the panel Input, instead of those of its kind
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of derived options
    leave_out: tuple[str, ...] = ()  # arguments that the command sets itself
    more: tuple[Option, ...] = ()
    files: str = ""  # what several files are
    working: str = "measuring"
    measure: Callable[[Call], Measured] | None = None
    show: Callable[[Any], None] = showing.first_rows
    shown: tuple[str, ...] = ()  # entries of the summary that a table shows already
    beside: Callable[[Any], Mapping[str, bytes]] | None = None  # contents of further files


@dataclass
class Call:
    """One call of a command: its files, what loads them, and the values of all options."""

    name: str
    function: Callable[..., Any]
    sources: list[Path]
    inputs: Inputs
    values: dict[str, Any]  # of all options by name
    arguments: dict[str, Any]  # those of the function
    working: str

    def pair(self, **how: Any) -> tuple[Representation, Representation]:
        """Load train and test, with the factors of the user's table."""
        return self.inputs.pair(
            self.sources[0], self.values["max_queries"], max_train=self.values.get("max_train"),
            joined=asked_in(self.inputs, self.values).joined, **how,
        )  # fmt: skip

    def probe(self, *measured: Any, **more: Any) -> Any:
        """Call the probe on what was loaded."""
        arguments = {**self.arguments, **more}
        if isinstance(arguments.get("groups"), Groups):
            arguments["groups"] = arguments["groups"].among(measured[0])
        with self.at_work(self.working) as advance:
            if "progress" in inspect.signature(self.function).parameters:
                arguments["progress"] = advance
            return self.function(*measured, **arguments)

    def on(self, device: str) -> Call:
        """Take the device of this process."""
        named = {"device": device} if "device" in self.arguments else {}
        inputs = replace(self.inputs, device=device)
        return replace(self, inputs=inputs, arguments=self.arguments | named)

    @contextmanager
    def at_work(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """Show progress on stderr, and warnings as sentences behind it."""
        with cautions(self.name), progress(text, quiet=self.inputs.quiet) as advance:
            yield advance


def cautions(command: str) -> AbstractContextManager[None]:
    """Show the warnings of a block as sentences on stderr."""
    return warnings_to(lambda text: say(f"dimlab {command}: caution: {text}"))


def inputs_of(values: Mapping[str, Any]) -> Inputs:
    """Return the inputs of a command, as the options of the panel Input say."""
    from dimlab.io.labels import is_file_of_labels

    joined = values.get("table") or is_file_of_labels(values.get("labels"))
    for name, flag in (("on", "--on"), ("by_order", "--by-order")):
        if values.get(name) and not joined:
            raise Refusal(f"{flag} must come with --labels FILE or --factors FILE; got neither.")
    return Inputs(**{e.name: values[e.name] for e in fields(Inputs) if e.name in values})


def probe_command(name: str, function: Callable[..., Any], text: str) -> TyperCommand:
    """Make the command of a probe, ours or anyone's."""
    from dimlab.cli.special import SPECIAL

    special = SPECIAL.get(name, Special())
    leading = [
        each.name for each in inspect.signature(function).parameters.values()
        if each.kind is not each.KEYWORD_ONLY and each.default is each.empty
    ]  # fmt: skip
    measure, names = special.measure, special.inputs
    if measure is None or not names:
        measure, names = _kind(function, leading)
    own = measured_by(function, special.changes, {"in_distribution", *special.leave_out})
    inputs = [
        replace(INPUTS[each], **special.changes.get(each, {}))
        for each in (special.inputs or names).split()
    ]
    options = [*inputs, *own, *special.more]
    taken = {each.name for each in options}
    options += [each for each in (SEED, DEVICE) if each.name not in taken]
    of_kinds: dict[Any, Option] = {measure_parts: PARTS, _several: FILES}
    file = of_kinds.get(measure, FILE)
    if special.files:
        file = replace(FILES, help=special.files)
    arguments = {each.name for each in own}
    result_type = _result_of(function)

    def run(values: dict[str, Any]) -> None:
        check_keys(values["fail_if"], result_type)
        sources = [values["source"]] if file is FILE else values["sources"]
        given = {each.name: values[each.name] for each in inputs}
        given |= {each: values[each] for each in ("seed", "device", "quiet")}
        call = Call(
            name, function, sources, inputs_of(given), values,
            {each: values[each] for each in arguments}, special.working,
        )  # fmt: skip
        beside = [values.get(each) for each in ("table", "in_distribution", "relevance")]
        groups = values.get("groups")
        if isinstance(groups, Groups) and groups.source is not None:
            call.inputs.tables[groups.source.path] = groups.source, None
            beside.append(groups.source.path)
        files = files_of(call.inputs, sources, beside)
        with measuring(name, values["device"], values["out"], call.inputs, files) as (world, place):
            result, splits = (special.measure or measure)(call.on(place))
        if world.rank == 0:
            present(
                result, name, values,
                show=special.show, shown=special.shown, beside=special.beside,
                record=recording(call.inputs, sources, splits, beside=beside),
            )  # fmt: skip

    return command_of(name, run, [file, *options, *OUTPUTS], text)


def _kind(function: Callable[..., Any], leading: list[str]) -> tuple[Callable[..., Any], str]:
    """Return the function that loads what a probe measures, and the names of its options."""
    if leading == ["train", "test"]:
        return _pair, f"{SAMPLES} basis masked {TABLE}"
    if leading == ["representations"]:
        return _several, f"{FEATURES} split views basis masked {DATA}"
    if leading == ["trace"]:
        return _trace, DATA
    if leading == ["representation"]:
        parts = f"{FEATURES} split views basis train masked {DATA}"
        if "RowsLike" in str(inspect.signature(function).parameters[leading[0]]):
            return measure_parts, f"{parts} save_moments"
        return _one, f"{parts} max_queries"
    raise WrongType(
        "probe must begin with train and test, representation, representations or trace; got "
        f"{', '.join(leading) or 'nothing'} in {function.__name__}."
    )


def _result_of(function: Callable[..., Any]) -> Any:
    """Return the class of a probe's results, where its annotation can be found."""
    named = inspect.signature(function).return_annotation
    return getattr(inspect.getmodule(function), named, None) if isinstance(named, str) else named


def _pair(call: Call) -> Measured:
    """Measure two splits."""
    train, test = call.pair()
    return call.probe(train, test), {"train": train, "test": test}


def measure_parts(call: Call, *, views: int | None = None, **how: Any) -> Measured:
    """Measure one representation, or the moments of its parts."""
    values = call.values
    measured = call.inputs.measured(
        call.sources, values["split"], views=values["views"] if views is None else views,
        save_moments=values["save_moments"], **how,
    )  # fmt: skip
    return call.probe(measured), {values["split"]: measured}


def _one(call: Call) -> Measured:
    """Measure one representation."""
    values = call.values
    call.inputs.check_data(call.sources, values["split"])
    found = call.inputs.representation(call.sources[0], values["split"], views=values["views"])
    found = sampled(found, values["max_queries"], seed=call.inputs.seed)
    return call.probe(found), {values["split"]: found}


def _several(call: Call) -> Measured:
    """Measure several representations beside each other."""
    values, found = call.values, {}
    names = names_of(call.sources)
    call.inputs.check_data(call.sources, values["split"])
    for name, source in zip(names, call.sources, strict=True):
        own = call.inputs.representation(source, values["split"], views=values["views"])
        # each in a basis of its own: a shared one would not fit other axes
        found[name] = call.inputs.in_basis(own, [own])[0]
    return call.probe(found), {f"{values['split']}, {name}": each for name, each in found.items()}


def _trace(call: Call) -> Measured:
    """Measure how a mask moved."""
    values = call.values
    key, sigmoid = values.get("key"), values.get("sigmoid", False)
    return call.probe(read_trace(call.inputs, call.sources, key=key, sigmoid=sigmoid)), {}
