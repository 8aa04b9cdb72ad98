"""The command that tells it all in one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    ArrayName,
    AsJson,
    Data,
    DataDir,
    Device,
    Format,
    LabelsOf,
    MaxQueries,
    MaxTrain,
    Quiet,
    Reader,
    Seed,
    TrainFeatures,
    as_folder,
    cautions,
)
from dimlab.cli.recording import recording
from dimlab.sources import Loading, is_own, mask_of, names_of, read_checkpoint, reading, stems_of
from dimlab.terminal import GateMet, console, print_summary, progress
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.report.provenance import Reproducibility

_MARKS = {
    "same": "same", "other": "other", "gone": "no", "changed": "changed", "unknown": "not known",
    "note": "note",
}  # fmt: skip


@app.command()
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Checkpoints, test features, or the folder of a report to be drawn again (or "
            "of any results to be checked).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    reader: Reader = "ridge",
    permutations: Annotated[int, typer.Option(help="Permutations of factors.")] = 1000,
    figure_format: Format = "svg",
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
    data: Data = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Say whether what is in the folder FILE can be reproduced here."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run every probe and write one HTML page: verdicts, numbers, figures, all dimensions.

    Example: dimlab report checkpoint.pt --out report
    """
    from dimlab.report import redraw_report, write_report

    if check:
        return _check(sources, as_json)
    as_folder(out)
    if sources[0].is_dir():
        with reading():
            page = redraw_report(sources[0], out=out, figure_format=figure_format)
        console().print(f"Open {page} (drawn again, nothing measured).")
        return
    names, headline = names_of(sources), []
    loading = Loading(
        data, data_dir, False, None, train_features, device, seed, quiet, array, labels
    )
    results: dict[str, Any] = {}
    tested: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    for name, stem, source in zip(names, stems_of(names), sources, strict=True):
        found, train, tested[name] = _examined(
            loading, source, reader, permutations, (max_queries, max_train)
        )
        splits |= {f"test, {name}": tested[name]} | (
            {} if train is None else {f"train, {name}": train}
        )
        prefix = f"{stem}-" if len(sources) > 1 else ""
        results |= {f"{prefix}{key}": each for key, each in found.items()}
    if len(sources) > 1:
        from dimlab.probes.compare import compare

        try:
            results = {"comparison": compare(tested, seed=seed, device=device), **results}
        except ValueError as error:  # the other results stand
            say(f"dimlab report: the comparison is left out: {error}")
        headline = [f"Verdicts and the table of dimensions are of {names[0]} alone."]
    page = write_report(
        out,
        results,
        title=f"dimlab report: {', '.join(names)}",
        headline=headline,
        provenance=recording(loading, sources, splits)(),
        figure_format=figure_format,
    )
    from dimlab.report.verdicts import verdicts_of

    verdicts = verdicts_of(results)
    if as_json:
        print_summary(
            {"report": str(page), "verdicts": [vars(each) for each in verdicts]}, as_json=True
        )
        return
    for sentence in headline:
        console().print(sentence)
    for verdict in verdicts:
        console().print(f"- {verdict.question} {verdict.answer}. {verdict.because}")
    console().print(f"Open {page} (numbers beside it as CSV and JSON).")


def _examined(
    loading: Loading,
    source: Path,
    reader: str,
    permutations: int,
    at_most: tuple[int | None, int | None],
) -> tuple[dict[str, Any], Any, Any]:
    """All results of a checkpoint, or of features, and the splits they are of."""
    from dimlab.examine import examine

    max_queries, max_train = at_most
    train, test = loading.pair(source, max_queries, max_train=max_train, views=2, labelled=False)
    trace = held_out = None
    if is_own(source):
        checkpoint = read_checkpoint(source)
        held_out = loading.features(source, "validation")
        trace = checkpoint.trace if checkpoint.has_mask else None
    with cautions("report"):
        results = examine(
            train, test, in_distribution=held_out, trace=trace, mask=mask_of(test), reader=reader,
            n_permutations=permutations, seed=loading.seed, device=loading.device,
            working=lambda text: progress(text, quiet=loading.quiet),
        )  # fmt: skip
    return results, train, test


def _check(folders: list[Path], as_json: bool) -> None:
    """Say whether results can be reproduced here: for each record the answer, then its points."""
    from dimlab.report.provenance import check_provenance, records_in

    if len(folders) != 1 or folders[0].is_file():
        raise ValueError(
            f"check must have one folder of a report; got {' '.join(map(str, folders))}."
        )
    folder = folders[0]
    with reading():
        found = {name: check_provenance(path) for name, path in records_in(folder).items()}
    if as_json:
        print_summary(_joined(found), as_json=True)
    else:
        for name, each in found.items():
            _print_check(folder / name, each)
    cannot = [f"{folder / name} {each.answer}" for name, each in found.items() if not each.can]
    if cannot:
        raise GateMet(" ".join(cannot))


def _print_check(what: Path, found: Reproducibility) -> None:
    show = console()
    show.print(f"{what} {found.answer}")
    for point in found.points:
        show.print(f"- {point.name}: {_MARKS[point.state]}, {point.text}")
    if found.command:
        show.print(f"Run again: {found.command}", soft_wrap=True)


def _joined(found: Mapping[str, Reproducibility]) -> dict[str, Any]:
    """One record as it is; of several whether all can be reproduced, and each by its name."""
    summaries = {name or "report": each.summary() for name, each in found.items()}
    if len(summaries) == 1:
        return next(iter(summaries.values()))
    return {"reproducible": all(each.can for each in found.values()), "results": summaries}
