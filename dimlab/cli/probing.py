"""Commands of probes: each is made of the probe's function, and of little that it has beside."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.cli import showing
from dimlab.cli.derive import Option, TyperCommand, command_of
from dimlab.cli.gates import check_keys
from dimlab.cli.inputs import Inputs, mask_of, reading
from dimlab.cli.options import (
    DEVICE,
    FILE,
    INPUTS,
    OUTPUTS,
    PARTS,
    SEED,
    Groups,
    known_reader,
    measured_by,
)
from dimlab.cli.presenting import present
from dimlab.cli.recording import names_of, recording
from dimlab.cli.samples import drawn, sampled, sampled_train
from dimlab.cli.traces import read_trace
from dimlab.terminal import progress
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.representation import Representation

Measured = tuple[Any, Mapping[str, Any]]  # a result, and the representations that it is of
_SAMPLES = "train_features array labels on by_order data data_dir max_queries max_train"
_TABLE = "table continuous period"


@dataclass(frozen=True)
class Special:
    """What a probe's command has beside what its function's signature says."""

    inputs: str = ""  # names of options of the panel Input, instead of those of its kind
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of derived options
    leave_out: tuple[str, ...] = ()  # arguments that the command sets itself
    more: tuple[Option, ...] = ()
    many: bool = False  # several files
    working: str = "measuring"
    measure: Callable[[Call], Measured | None] | None = None
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

    def probe(self, *measured: Any, **more: Any) -> Any:
        """Call the probe on what was loaded."""
        arguments = {**self.arguments, **more}
        if isinstance(arguments.get("groups"), Groups):
            arguments["groups"] = arguments["groups"].among(measured[0])
        with self.at_work(self.working) as advance:
            if "progress" in inspect.signature(self.function).parameters:
                arguments["progress"] = advance
            return self.function(*measured, **arguments)

    @contextmanager
    def at_work(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """Show progress on stderr, and warnings as sentences behind it."""
        with cautions(self.name), progress(text, quiet=self.inputs.quiet) as advance:
            yield advance


@contextmanager
def cautions(command: str) -> Iterator[None]:
    """Show the warnings of a block as sentences on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        say(f"dimlab {command}: caution: {each.message}")


def inputs_of(values: Mapping[str, Any]) -> Inputs:
    """Return what loads the files, as the options of the panel Input say."""
    from dimlab.io.labels import is_file_of_labels

    names = {"train_features": "train"}
    known = ["data", "data_dir", "masked", "basis", "train_features", "array", "labels"]
    known += ["on", "by_order", "device", "seed", "quiet"]
    joined = values.get("table") or is_file_of_labels(values.get("labels"))
    for name, flag in (("on", "--on"), ("by_order", "--by-order")):
        if values.get(name) and not joined:
            raise ValueError(f"{flag} must come with --labels FILE or --factors FILE; got neither.")
    return Inputs(**{names.get(each, each): values[each] for each in known if each in values})


def probe_command(name: str, function: Callable[..., Any], text: str) -> TyperCommand:
    """Make the command of a probe, ours or anyone's."""
    special = SPECIAL.get(name, Special())
    leading = [
        each.name for each in inspect.signature(function).parameters.values()
        if each.kind is not each.KEYWORD_ONLY and each.default is each.empty
    ]  # fmt: skip
    measure, names = _kind(function, leading)
    own = measured_by(function, special.changes, {"in_distribution", *special.leave_out})
    inputs = [
        replace(INPUTS[each], **special.changes.get(each, {}))
        for each in (special.inputs or names).split()
    ]
    options = [*inputs, *own, *special.more]
    taken = {each.name for each in options}
    options += [each for each in (SEED, DEVICE) if each.name not in taken]
    many = special.many or measure in (_parts, _several)
    arguments = {each.name for each in own}
    result_type = _result_of(function)

    def run(values: dict[str, Any]) -> None:
        check_keys(values["fail_if"], result_type)
        sources = values["sources"] if many else [values["source"]]
        given = {each.name: values[each.name] for each in inputs}
        given |= {each: values[each] for each in ("seed", "device", "quiet")}
        call = Call(
            name, function, sources, inputs_of(given), values,
            {each: values[each] for each in arguments}, special.working,
        )  # fmt: skip
        measured = (special.measure or measure)(call)
        if measured is None:  # another process of several presents
            return
        result, splits = measured
        files = [values.get(each) for each in ("table", "in_distribution")]
        if isinstance(values.get("groups"), Groups):
            files.append(values["groups"].path)
        present(
            result, name, values,
            show=special.show, shown=special.shown, beside=special.beside,
            record=recording(call.inputs, sources, splits, beside=files),
        )  # fmt: skip

    return command_of(name, run, [PARTS if many else FILE, *options, *OUTPUTS], text)


def _kind(function: Callable[..., Any], leading: list[str]) -> tuple[Callable[..., Any], str]:
    """Return how what a probe measures is loaded, and the names of the options for that."""
    if leading == ["train", "test"]:
        return _pair, f"{_SAMPLES} basis masked {_TABLE}"
    if leading == ["representations"]:
        return _several, "split views basis masked data data_dir"
    if leading == ["trace"]:
        return _trace, "data data_dir"
    if leading == ["representation"]:
        parts = "split views basis train_features masked data data_dir"
        takes_moments = "Moments" in str(inspect.signature(function).parameters[leading[0]])
        return (
            (_parts, f"{parts} save_moments") if takes_moments else (_one, f"{parts} max_queries")
        )
    raise TypeError(
        "probe must begin with train and test, representation, representations or trace; got "
        f"{', '.join(leading) or 'nothing'} in {function.__name__}."
    )


def _result_of(function: Callable[..., Any]) -> Any:
    """Return the class of a probe's results, where its annotation can be found."""
    named = inspect.signature(function).return_annotation
    return getattr(inspect.getmodule(function), named, None) if isinstance(named, str) else named


def _pair(call: Call) -> Measured:
    """Measure two splits."""
    values = call.values
    train, test = call.inputs.pair(
        call.sources[0], values["max_queries"], max_train=values["max_train"],
        joined=asked_in(values).joined,
    )  # fmt: skip
    return call.probe(train, test), {"train": train, "test": test}


def _parts(call: Call, *, views: int | None = None, **how: Any) -> Measured | None:
    """Measure one representation, or the moments of its parts."""
    values = call.values
    with call.inputs.measured(
        call.sources, values["split"], views=values["views"] if views is None else views,
        save_moments=values["save_moments"], **how,
    ) as (measured, is_first):  # fmt: skip
        result = call.probe(measured)
    return (result, {values["split"]: measured}) if is_first else None


def _one(call: Call) -> Measured:
    """Measure one representation."""
    values = call.values
    call.inputs.check_data(call.sources)
    found = call.inputs.representation(call.sources[0], values["split"], views=values["views"])
    found = sampled(found, values["max_queries"], seed=call.inputs.seed)
    return call.probe(found), {values["split"]: found}


def _several(call: Call) -> Measured:
    """Measure several representations beside each other."""
    values, found = call.values, {}
    names = names_of(call.sources)
    call.inputs.check_data(call.sources)
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


@dataclass(frozen=True)
class Asked:
    """What the user's table of factors adds, read and checked once; no table adds nothing."""

    table: Any
    continuous: list[str]
    periods: dict[str, float]

    def joined(self, role: str, representation: Representation) -> Representation:
        """Join the factors where the table is of this split; test, or a whole, must have them.

        What the user calls continuous may stand in the table or among the factors there are.
        """
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
                raise ValueError(f"continuous must name factors, one of {listed}; got {name!r}.")
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


def asked_in(values: Mapping[str, Any]) -> Asked:
    """Read the table that ``--factors`` names."""
    from dimlab.io.tables import FactorTable

    table = None
    if values["table"] is not None:
        with reading():
            table = FactorTable.read(values["table"], on=values["on"], by_order=values["by_order"])
    names = values["continuous"].split(",") if values["continuous"] else []
    return Asked(table, names, dict(values["period"] or []))


def _correlate(call: Call) -> Measured | None:
    within = call.values["within"]
    return _parts(call, views=0 if within else None, pairs=not within)


def _redundancy(call: Call) -> Measured | None:
    return _parts(call, stacked=call.values["views"] > 0)


def _bound(call: Call) -> Measured:
    values = call.values
    call.inputs.check_data(call.sources)
    views = call.inputs.representation(call.sources[0], values["split"], views=2)
    views = sampled(views, values["max_queries"], seed=call.inputs.seed)
    return call.probe(views, mask=mask_of(views)), {values["split"]: views}


def _evaluate(call: Call) -> Measured:
    """Evaluate features, or runs beside raw pixels and fresh weights."""
    from dimlab.baselines import evaluate_baselines

    values, sources = call.values, call.sources
    others = [source for source in sources if not call.inputs.is_own(source)]
    if others:
        if len(sources) > 1:
            raise ValueError(
                "files must be checkpoints of dimlab train where there are several; got "
                f"{others[0].name} among them. Evaluate it alone."
            )
        train, test = call.inputs.pair(
            sources[0], values["max_queries"], max_train=values["max_train"], views=2,
            joined=asked_in(values).joined,
        )  # fmt: skip
        return call.probe(train, test, mask=mask_of(test)), {"train": train, "test": test}
    if call.inputs.train is not None:
        raise ValueError(f"train must be left out for a checkpoint; got {call.inputs.train}.")
    checkpoints = [call.inputs.checkpoint(source) for source in sources]
    counts = {"test": values["max_queries"], "train": values["max_train"]}
    images = {split: call.inputs.images(checkpoints[0], split) for split in counts}
    for split, count in counts.items():
        all_of = images[split]
        if count is not None and count < len(all_of):
            rows = drawn(len(all_of), count, all_of.labels, seed=call.inputs.seed)
            images[split] = all_of.take(rows)
    known = inspect.signature(evaluate_baselines).parameters
    chosen = {name: each for name, each in call.arguments.items() if name in known}
    with call.at_work("evaluating") as advance:
        result = evaluate_baselines(
            checkpoints, images["train"], images["test"], progress=advance, **chosen
        )
    return result, {}


def _held_out(call: Call, asked: Asked) -> Representation | None:
    """Return held-out samples like train: named, or a checkpoint's validation split."""
    named = call.values["in_distribution"]
    if named is None and not call.inputs.is_own(call.sources[0]):
        return None
    held_out = call.inputs.representation(named or call.sources[0], "validation")
    return asked.joined("validation", held_out)


def _erase(call: Call) -> Measured:
    from dimlab.probes._factors import notes_of

    values, seed = call.values, call.inputs.seed
    asked = asked_in(values)
    train, test = call.inputs.pair(call.sources[0], joined=asked.joined)
    test = sampled(test, values["max_queries"], seed=seed)
    train, test = sampled_train(train, test, values["max_train"], seed=seed)
    held_out = _held_out(call, asked)
    note = notes_of(test).get(values["factor"])
    if note is not None:
        say(f"dimlab erase: caution: {values['factor']} is {note}")
    result = call.probe(train, test, in_distribution=held_out)
    return result, {"train": train, "test": test}


def _attribute(call: Call) -> Measured:
    """Attribute dimensions, in a basis if one is asked for; the factor is erased on the axes."""
    from dimlab.probes.ablate import ablate
    from dimlab.probes.erase import erase

    values, seed = call.values, call.inputs.seed
    source, chosen = call.sources[0], values["erase"]
    asked = asked_in(values)
    on_axes = replace(call.inputs, basis=None)
    train, test = on_axes.pair(source, views=values["views"], joined=asked.joined)
    if chosen not in ("leading", "none"):  # before anything long
        for name, each in (("train", train), ("test", test)):
            if chosen not in each.factors:
                raise ValueError(f"erase must name a factor of {name}; got {chosen!r}.")
    test = sampled(test, values["max_queries"], seed=seed)  # rows of a table are those of all
    held_out = _held_out(replace(call, inputs=on_axes), asked)
    bank, queries = call.inputs.in_basis(train, [train, test])
    ablation = trace = None
    if values["reader"] != "none":
        with call.at_work("ablating") as advance:
            ablation = ablate(
                bank, queries, reader=values["reader"], seed=seed, device=call.inputs.device,
                progress=advance,
            )  # fmt: skip
    if call.inputs.basis is None and call.inputs.is_own(source):
        trace = call.inputs.checkpoint(source).trace
    rows = queries.per_view() if values["views"] else queries
    result = call.probe(bank, rows, erased=None, ablation=ablation, trace=trace)
    factor = {"leading": result.leading_factor, "none": None}.get(chosen, chosen)
    if factor is not None and factor not in train.factors:
        say(f"dimlab attribute: train has no {factor}: nothing is erased.")
        factor = None
    if factor is not None:
        with call.at_work(f"erasing {factor}") as advance:
            erasure = erase(
                train, test, factor=factor, in_distribution=held_out, seed=seed, progress=advance
            )
        result = replace(result, erasure=erasure)
    return result, {"train": train, "test": test}


def _follow(call: Call) -> Measured:
    """Follow a mask; where its last checkpoint is dimlab's, link it to what dimensions do."""
    values, sources = call.values, call.sources
    trace = read_trace(call.inputs, sources, key=values["key"], sigmoid=values["sigmoid"])
    linked: dict[str, Any] = {}
    if values["links"] and values["key"] is None and sources[-1].suffix != ".npz":
        last = max(sources, key=lambda path: call.inputs.checkpoint(path).step)
        linked = _links(call, last)
    return call.probe(trace, **linked), {}


def _links(call: Call, source: Path) -> dict[str, Any]:
    """Return ridge importance, redundancy and nuisance of a checkpoint's dimensions."""
    from dimlab.probes.ablate import ablate
    from dimlab.probes.attribute import attribute
    from dimlab.probes.find_redundancy import find_redundancy

    train, test = call.inputs.pair(source, views=2)
    seed = call.inputs.seed
    with call.at_work("linking") as advance:
        return {
            "ablation": ablate(train, test, reader="ridge", seed=seed),
            "redundancy": find_redundancy(test, seed=seed),
            "attribution": attribute(
                train, test.per_view(), n_permutations=1, erased=None, seed=seed, progress=advance
            ),
        }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


SPECIAL = {
    "ablate": Special(
        changes={"refit": {"flag": "--refit/--frozen"}}, working="ablating",
        show=showing.extremes,
    ),
    "random-masks": Special(
        working="masking", show=showing.rows("Random masks, one row for each share removed"),
    ),
    "cumulate": Special(
        changes={"order": {"default": "worst-first"}, "n_random": {"flag": "--random-orders"}},
        working="removing", show=showing.curve,
    ),
    "confirm": Special(
        changes={"refit": {"flag": "--refit/--frozen"}}, working="confirming",
        show=showing.rows("Smallest q-values first", by=["q_aggregated", "importance"]),
    ),
    "evaluate": Special(
        changes={"readers": {"default": "knn,ridge"}}, many=True,
        inputs=f"{_SAMPLES} {_TABLE}", working="evaluating", measure=_evaluate,
        show=showing.evaluation,
    ),
    "correlate": Special(
        changes={"views": {"default": 2}}, working="drawing the null", measure=_correlate,
        show=showing.correlation,
        beside=lambda result: {".npy": _npy(result.matrix)},
    ),
    "decompose": Special(working="decomposing", show=showing.spectrum),
    "redundancy": Special(
        changes={"reader": {"help": "Keep the accuracy of this reader instead of variance: knn, "
                            "ridge or logistic. It needs labels."}},
        working="halving", measure=_redundancy, show=showing.redundancy,
    ),
    "compare": Special(working="comparing", show=showing.comparison),
    "attribute": Special(
        inputs=f"train_features array labels on by_order in_distribution views {_TABLE} basis "
        "max_queries data data_dir",
        leave_out=("erased",),
        changes={"factors": {"flag": "--factor", "help": "Factors to look at; repeatable. All by "
                             "default."}},
        more=(
            Option("erase", "--erase", str, "Factor to take out: leading, none, or a name.",
                   "leading"),
            Option("reader", "--reader", str, "Reader for the ablation importance: ridge, knn, "
                   "logistic or none.", "ridge",
                   read=lambda name: name if name == "none" else known_reader(name)),
        ),
        working="permuting", measure=_attribute, show=showing.attribution,
        shown=("factors", "erasure"),
    ),
    "erase": Special(
        inputs=f"{_SAMPLES} in_distribution {_TABLE}",
        changes={
            "factor": {"help": "Factor to take out."},
            "basis": {"flag": "--directions", "help": "Basis of the directions to remove: pca, "
                      "whiten, varimax or ica."},
            "n_removed": {"flag": "--remove", "help": "Dimensions, and directions, to remove; by "
                          "default those that carry the factor."},
        },
        working="erasing", measure=_erase, show=showing.erasure, shown=("splits", "in_words"),
    ),
    "follow": Special(
        inputs="data data_dir", many=True, measure=_follow,
        more=(
            Option("key", "--key", str, "Where the mask stands in torch files of other programs."),
            Option("sigmoid", "--sigmoid", bool, "The mask there is kept as logits.", False),
            Option("links", "--links/--no-links", bool, "Link the final weights to ridge "
                   "importance, redundancy and nuisance.", True),
        ),
        working="following", show=showing.evolution, shown=("links", "verdicts"),
    ),
    "bound": Special(
        inputs="split max_queries data data_dir",
        changes={"temperature": {"help": "Inner products are divided by this number."}},
        working="bounding", measure=_bound, show=showing.bound,
        shown=("terms", "risk", "held", "verdict"),
    ),
}  # fmt: skip
