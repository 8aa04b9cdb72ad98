"""Commands that measure redundancy, spectra and what changed between representations."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    AsJson,
    BasisName,
    Data,
    DataDir,
    Device,
    FailIf,
    FittedOn,
    Format,
    Masked,
    Measured,
    Out,
    Quiet,
    SaveMoments,
    Seed,
    Split,
    Views,
    cautions,
)
from dimlab.cli.recording import recording
from dimlab.sources import Loading, names_of
from dimlab.terminal import (
    presented,
    print_rows,
    print_sentences,
    print_table,
    progress,
    with_bounds,
)

N_BLOCKS = 20  # as `dimlab.moments` has it, whose import would cost a start
Blocks = Annotated[
    int,
    typer.Option(
        "--blocks", help="Blocks of samples behind the intervals; memory grows with them."
    ),
]


@app.command()
def correlate(
    sources: Measured,
    within: Annotated[
        bool, typer.Option("--within", help="Correlate the features with themselves.")
    ] = False,
    draws: Annotated[int, typer.Option("--draws", help="Draws of the null; 0: none.")] = 200,
    views: Views = 2,
    split: Split = "test",
    basis: BasisName = None,
    train_features: FittedOn = None,
    masked: Masked = False,
    save_moments: SaveMoments = None,
    blocks: Blocks = N_BLOCKS,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    figure_format: Format = "svg",
    as_json: AsJson = False,
    fail_if: FailIf = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Correlate dimensions between two views, or with each other: diagonal, redundancy, null.

    Example: dimlab correlate checkpoint.pt --out correlation
    """
    from dimlab.probes.correlate import correlate as correlate_dimensions

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    views = 0 if within else views
    with loading.measured(
        sources, split, views=views, pairs=not within, save_moments=save_moments
    ) as (measured, is_first):
        with cautions("correlate"), progress("drawing the null", quiet=quiet) as advance:
            result = correlate_dimensions(
                measured,
                within=within,
                n_draws=draws,
                n_blocks=blocks,
                seed=seed,
                device=device,
                progress=advance,
            )
        if not is_first:
            return
        with presented(
            result,
            "correlate",
            out,
            as_json=as_json,
            fail_if=fail_if,
            figure_format=figure_format,
            beside=lambda: {".npy": _npy(result.matrix)},
            record=recording(loading, sources, {split: measured}),
        ) as for_people:
            if for_people:
                title = f"Strongest {result.kind} correlations"
                print_table(result.top_pairs(10), title=title, formats={"correlation": "+.4f"})
                if result.caution:
                    print(result.caution)


@app.command()
def decompose(
    sources: Measured,
    centred: Annotated[
        bool, typer.Option("--centred", help="Take each dimension's mean off first.")
    ] = False,
    views: Views = 0,
    split: Split = "test",
    basis: BasisName = None,
    train_features: FittedOn = None,
    masked: Masked = False,
    save_moments: SaveMoments = None,
    blocks: Blocks = N_BLOCKS,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    figure_format: Format = "svg",
    as_json: AsJson = False,
    fail_if: FailIf = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Decompose features: singular values, effective ranks, decay, LiDAR of views, intervals.

    Under torchrun the processes share the samples. Example: dimlab decompose part-*.safetensors
    """
    from dimlab.probes.decompose import decompose as decompose_features

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    with loading.measured(sources, split, views=views, save_moments=save_moments) as (
        measured,
        is_first,
    ):
        with cautions("decompose"), progress("decomposing", quiet=quiet) as advance:
            result = decompose_features(
                measured,
                centred=centred,
                n_blocks=blocks,
                seed=seed,
                device=device,
                progress=advance,
            )
        if not is_first:
            return
        with presented(
            result,
            "decompose",
            out,
            as_json=as_json,
            fail_if=fail_if,
            figure_format=figure_format,
            record=recording(loading, sources, {split: measured}),
        ) as for_people:
            if for_people:
                frame = result.statistics()
                shown = frame[["statistic", "value"]].assign(
                    corrected=with_bounds(frame, "corrected", "corrected_low", "corrected_high"),
                    doubtful=frame["doubtful"].map({True: "doubtful", False: ""}),
                )
                print_table(shown, title="Spectrum", formats={"value": ".4g"})
                if result.doubtful:
                    print(
                        "Doubtful: the interval may cover less than 95 %. " + result.caution.strip()
                    )


@app.command("redundancy")
def find_redundancy(
    sources: Measured,
    cut: Annotated[
        float, typer.Option(help="Mean |correlation| down to which groups are merged.")
    ] = 0.5,
    keep: Annotated[
        float, typer.Option(help="Share of variance (or accuracy) that the subset keeps.")
    ] = 0.99,
    reader: Annotated[
        str | None, typer.Option(help="Keep the accuracy of this reader: knn, ridge, logistic.")
    ] = None,
    views: Annotated[
        int, typer.Option("--views", help="Measure so many augmented views of every image instead.")
    ] = 0,
    split: Split = "test",
    basis: BasisName = None,
    train_features: FittedOn = None,
    masked: Masked = False,
    save_moments: SaveMoments = None,
    blocks: Blocks = N_BLOCKS,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    figure_format: Format = "svg",
    as_json: AsJson = False,
    fail_if: FailIf = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Find dimensions that are dead, copies or sums of others, groups of them, and a subset.

    Example: dimlab redundancy checkpoint.pt --cut 0.7
    """
    from dimlab.probes.find_redundancy import find_redundancy as find

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    with loading.measured(
        sources, split, views=views, stacked=views > 0, save_moments=save_moments
    ) as (measured, is_first):
        with cautions("redundancy"), progress("halving", quiet=quiet) as advance:
            result = find(
                measured, cut=cut, keep=keep, reader=reader, n_blocks=blocks, seed=seed,
                device=device, progress=advance,
            )  # fmt: skip
        if not is_first:
            return
        with presented(
            result,
            "redundancy",
            out,
            as_json=as_json,
            fail_if=fail_if,
            figure_format=figure_format,
            record=recording(loading, sources, {split: measured}),
        ) as for_people:
            if for_people:
                order = ["dead", "r_squared"]
                print_rows(result, "Most redundant first", by=order, ascending=[True, False])
                if np.isfinite(result.variance_inflation_null):
                    print(
                        "Median variance inflation factor of as many independent dimensions: "
                        f"{result.variance_inflation_null:.4g}."
                    )


@app.command()
def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Checkpoints, or features of the same samples."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="Name of the one to compare with; the first by default.")
    ] = None,
    views: Views = 0,
    split: Split = "test",
    basis: BasisName = None,
    masked: Masked = False,
    blocks: Blocks = N_BLOCKS,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    figure_format: Format = "svg",
    as_json: AsJson = False,
    fail_if: FailIf = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Compare representations: ranks and redundancy, similarity, dimensions that correspond.

    A run trained with --set keep_checkpoints=true has one checkpoint a step to compare.
    Example: dimlab compare runs/a/checkpoint.pt runs/b/checkpoint.pt
    """
    from dimlab.probes.compare import compare as compare_representations

    names = names_of(sources)
    loading = Loading(data, data_dir, masked, basis, None, device, seed, quiet)
    loading.check_data(sources)
    found = {}
    for name, source in zip(names, sources, strict=True):
        representation = loading.features(source, split, views=views)
        # each in a basis of its own: a shared one would not fit other axes
        found[name] = loading.in_basis(representation, [representation])[0]
    with cautions("compare"), progress("comparing", quiet=quiet) as advance:
        result = compare_representations(
            found, reference=reference, n_blocks=blocks, seed=seed, device=device, progress=advance
        )
    with presented(
        result,
        "compare",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(
            loading, sources, {f"{split}, {name}": each for name, each in found.items()}
        ),
    ) as for_people:
        if for_people:
            frame = result.to_frame().dropna(subset=["value"])
            shown = frame[["representation", "statistic", "value"]].assign(
                corrected=with_bounds(frame, "corrected", "corrected_low", "corrected_high"),
                difference=with_bounds(frame, "difference", "difference_low", "difference_high"),
                doubtful=frame["difference_doubtful"].map({True: "doubtful", False: ""}),
            )
            title = f"Statistics, and differences to {result.reference}"
            print_table(shown, title=title, formats={"value": ".4g"})
            numbers = dict.fromkeys(("cka", "cka_biased", "procrustes"), ".4f")
            print_table(result.similarities(), title="\nSimilarity", formats=numbers)
            print_sentences(
                f"{name}: rows paired with those of {result.reference} by {how}."
                for name, how in zip(result.names, result.paired_by, strict=True)
                if how
            )


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
