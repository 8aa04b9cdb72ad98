"""The command that tells it all in one page."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    ArrayName,
    Data,
    DataDir,
    Device,
    Format,
    LabelsOf,
    MaxQueries,
    Quiet,
    Reader,
    Seed,
    TrainFeatures,
)
from dimlab.sources import Loading, names_of, read_checkpoint, reading
from dimlab.terminal import console, progress

_SHOWN = ("numpy", "scipy", "sklearn", "torch", "matplotlib")


@app.command()
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Checkpoints, test features, or the folder of a report to be drawn again.",
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
    data: Data = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Run every probe and write one HTML page: verdicts, numbers, figures, all dimensions.

    Example: dimlab report checkpoint.pt --out report
    """
    from dimlab.report import redraw_report, write_report

    if sources[0].is_dir():
        with reading():
            page = redraw_report(sources[0], out=out, figure_format=figure_format)
        console().print(f"Open {page} (drawn again, nothing measured).")
        return
    names = names_of(sources)
    loading = Loading(
        data, data_dir, False, None, train_features, device, seed, quiet, array, labels
    )
    results: dict[str, Any] = {}
    tested = {}
    for name, source in zip(names, sources, strict=True):
        found, tested[name] = _examined(loading, source, reader, permutations, max_queries)
        prefix = f"{name}-" if len(sources) > 1 else ""
        results |= {f"{prefix}{key}": each for key, each in found.items()}
    if len(sources) > 1:
        from dimlab.probes.compare import compare

        results = {"comparison": compare(tested, seed=seed, device=device), **results}
    page = write_report(
        out,
        results,
        title=f"dimlab report: {', '.join(names)}",
        provenance=_provenance(sources, tested, seed, device),
        figure_format=figure_format,
    )
    from dimlab.report.verdicts import verdicts_of

    for verdict in verdicts_of(results):
        console().print(f"- {verdict.question} {verdict.answer}. {verdict.because}", markup=False)
    console().print(f"Open {page} (numbers beside it as CSV and JSON).")


def _examined(
    loading: Loading, source: Path, reader: str, permutations: int, max_queries: int | None
) -> tuple[dict[str, Any], Any]:
    """All results of a checkpoint, or of features, and the test split they are of."""
    from dimlab.examine import examine
    from dimlab.interop.features import holds_features
    from dimlab.mask import DimensionMask

    train, test = loading.pair(source, max_queries, views=2, labelled=False)
    trace = held_out = None
    if not holds_features(source):
        checkpoint = read_checkpoint(source)
        held_out = loading.features(source, "validation")
        trace = checkpoint.trace if checkpoint.has_mask else None
    weights = test.meta.get("mask")
    mask = None if weights is None else DimensionMask(np.array(weights))
    results = examine(
        train, test, in_distribution=held_out, trace=trace, mask=mask, reader=reader,
        n_permutations=permutations, seed=loading.seed, device=loading.device,
        working=lambda text: progress(text, quiet=loading.quiet),
    )  # fmt: skip
    return results, test


def _provenance(
    sources: list[Path], tested: dict[str, Any], seed: int, device: str
) -> dict[str, Any]:
    import importlib

    from dimlab import __version__

    versions = {name: importlib.import_module(name).__version__ for name in _SHOWN}
    hashes = {}
    for name, test in tested.items():
        digest = hashlib.sha256()
        for start in range(0, len(test), 4096):
            digest.update(np.ascontiguousarray(test.features[start : start + 4096]).tobytes())
        hashes[f"features of test, {name} (SHA-256)"] = digest.hexdigest()
    return {
        "command": " ".join(["dimlab", *sys.argv[1:]]),
        "files": ", ".join(map(str, sources)),
        **hashes,
        "seed": seed,
        "device": device,
        "dimlab": __version__,
        "python": platform.python_version(),
        **versions,
        "platform": sys.platform,
        "definitions": "docstrings of the probes (help(dimlab.ablate) and so on)",
    }
