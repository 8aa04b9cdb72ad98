"""The command that runs every probe and writes one page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dimlab.cli.derive import INPUT, OUTPUT, Option, TyperCommand, command_of
from dimlab.cli.gates import GateMet
from dimlab.cli.inputs import Inputs, mask_of, reading
from dimlab.cli.options import FILES, FORMAT, INPUTS, JSON, OUT, PIXELS, QUIET, measured_by
from dimlab.cli.probing import cautions, inputs_of
from dimlab.cli.recording import files_of, names_of, recording, stems_of
from dimlab.cli.together import measuring, remove_parts
from dimlab.refusals import Refusal
from dimlab.result import name_of
from dimlab.result_file import load_result
from dimlab.terminal import console, print_summary, progress
from dimlab.text import say


def report(name: str, text: str) -> TyperCommand:
    """Make ``dimlab report``."""
    from dimlab._examine import examine

    inputs = (
        *("train", "array", "labels", "on", "by_order"),
        *("data", "data_dir", *PIXELS, "max_queries", "max_train"),
    )
    files = replace(
        FILES, help="Checkpoints, test features, or the folder of a report to be drawn again (or "
        "of any results to be checked).",
    )  # fmt: skip
    check = Option("check", "--check", bool, "Compare the hashes and versions recorded in the "
                   "folder FILE with those here.", False, OUTPUT)  # fmt: skip
    measured = Option(
        "measured", "--result", list[Path], "Result of another command to put on the page, such as "
        "ablate-retrieval.result.npz; repeatable.", None, INPUT,
    )  # fmt: skip
    options = (
        files, *(INPUTS[each] for each in inputs), measured, *measured_by(examine),
        replace(OUT, default=Path("report"), help="Folder of the report."), FORMAT, JSON, check,
        QUIET,
    )  # fmt: skip
    return command_of(name, _report, options, text)


def _report(values: dict[str, Any]) -> None:
    from dimlab.report import redraw_report, write_report

    sources, out = values["sources"], values["out"]
    if values["check"]:
        return _check(sources, values["as_json"])
    if sources[0].is_dir():
        with reading():
            page = redraw_report(sources[0], out=out, figure_format=values["figure_format"])
        console().print(f"Open {page} (drawn again, nothing measured).")
        return
    names, headline = names_of(sources), []
    inputs = inputs_of(values)
    results = _measured(values["measured"] or [])
    tested: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    not_measured: dict[str, str] = {}
    failed: list[Exception] = []
    files = files_of(inputs, sources)
    with measuring("report", inputs.device, out, inputs, files) as (world, place):
        inputs = replace(inputs, device=place)
        for name, stem, source in zip(names, stems_of(names), sources, strict=True):
            found, train, tested[name] = _examined(inputs, source, values)
            splits |= {f"test, {name}": tested[name]}
            splits |= {} if train is None else {f"train, {name}": train}
            prefix = f"{stem}-" if len(sources) > 1 else ""
            results |= {f"{prefix}{key}": each for key, each in found.items() if key not in results}
            of_which = f"{name}: " if len(sources) > 1 else ""
            failed += found.failed.values()
            not_measured |= {
                f"{prefix}{key}": of_which + each for key, each in found.not_measured.items()
            }
        if len(sources) > 1:
            results = _compared(tested, inputs) | results
            headline = [f"Verdicts and the table of dimensions are of {names[0]} alone."]
    if world.rank > 0:
        return
    page = write_report(
        out,
        results,
        title=f"dimlab report: {', '.join(names)}",
        headline=headline,
        not_measured=not_measured,
        provenance=recording(inputs, sources, splits)(),
        figure_format=values["figure_format"],
    )
    remove_parts(out, "report")
    _print_answers(page, headline, results, values["as_json"])
    for mistake in failed:  # the page says it of the probe
        raise mistake


def _measured(paths: list[Path]) -> dict[str, Any]:
    """Load results of other commands, in the place of those that would be measured."""
    with reading():
        loaded = [load_result(path) for path in paths]
    return {name_of(type(each)): each for each in loaded}


def _compared(tested: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Compare several test splits, where they can be compared."""
    from dimlab.probes.compare import compare

    try:
        return {"comparison": compare(tested, seed=inputs.seed, device=inputs.device)}
    except ValueError as error:  # the other results stand
        say(f"dimlab report: the comparison is left out: {error}")
        return {}


def _print_answers(page: Path, headline: list[str], results: dict[str, Any], as_json: bool) -> None:
    """Print the answer of each dimension, the verdicts, and where the page is."""
    from dimlab.answers import answers_of
    from dimlab.report import kinds_of, verdicts_of

    verdicts, answers = verdicts_of(results), answers_of(results)
    if as_json:
        said = {} if answers is None else {"answers": answers.summary()}
        listed = [vars(each) for each in verdicts]
        print_summary({"report": str(page), **said, "verdicts": listed}, as_json=True)
        return
    for sentence in headline:
        console().print(sentence)
    if answers is not None:
        for kind, members in kinds_of(answers).items():
            console().print(f"{kind}: {members}")
    for verdict in verdicts:
        console().print(f"- {verdict.question} {verdict.answer}. {verdict.because}")
    console().print(f"Open {page} (numbers beside it as CSV and JSON).")


def _examined(inputs: Inputs, source: Path, values: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return all results of a checkpoint, or of features, and the splits they are of."""
    from dimlab._examine import examine

    train, test = inputs.pair(
        source, values["max_queries"], max_train=values["max_train"], views=2, labelled=False
    )
    trace = held_out = None
    if inputs.is_own(source):
        checkpoint = inputs.checkpoint(source)
        held_out = inputs.representation(source, "validation")
        trace = checkpoint.trace if checkpoint.has_mask else None
    own = {each: values[each] for each in ("reader", "n_permutations")}
    with cautions("report"):
        results = examine(
            train, test, in_distribution=held_out, trace=trace, mask=mask_of(test), **own,
            seed=inputs.seed, device=inputs.device,
            working=lambda text: progress(text, quiet=inputs.quiet),
        )  # fmt: skip
    return results, train, test


def _check(folders: list[Path], as_json: bool) -> None:
    """Say of each record whether its hashes and versions are the same here."""
    from dimlab.report.provenance import check_provenance, records_in

    if len(folders) != 1 or folders[0].is_file():
        raise Refusal(f"check must have one folder of a report; got {' '.join(map(str, folders))}.")
    with reading():
        found = {name: check_provenance(path) for name, path in records_in(folders[0]).items()}
    failed = [f"{folders[0] / n} {e['answer']}" for n, e in found.items() if not e["reproducible"]]
    if as_json:
        several = {"reproducible": not failed, "results": found}
        print_summary(several if len(found) > 1 else next(iter(found.values())), as_json=True)
    else:
        for name, each in found.items():
            console().print(f"{folders[0] / name} {each['answer']}")
            console().print(f"Run again: {each['command']}", soft_wrap=True)
    if failed:
        raise GateMet(" ".join(failed))
