"""Commands that remove dimensions and read what is left."""

from __future__ import annotations

from typing import Annotated

import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    ArrayName,
    AsJson,
    BasisName,
    Data,
    DataDir,
    Device,
    FailIf,
    Format,
    GroupsOf,
    K,
    LabelsOf,
    Masked,
    MaxQueries,
    MaxTrain,
    Memory,
    Out,
    Penalty,
    Probed,
    Quiet,
    Reader,
    Seed,
    Temperature,
    TrainFeatures,
    cautions,
    groups_in,
    numbers_in,
)
from dimlab.cli.recording import recording
from dimlab.sources import Loading
from dimlab.terminal import presented, print_extremes, print_rows, progress


@app.command()
def ablate(
    source: Probed,
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    reader: Reader = "knn",
    refit: Annotated[
        bool | None, typer.Option("--refit/--frozen", help="Fit the reader again without it.")
    ] = None,
    fill: Annotated[str | None, typer.Option(help="Frozen readers: mean or zero.")] = None,
    score: Annotated[
        str, typer.Option(help="accuracy, balanced_accuracy or log_loss.")
    ] = "accuracy",
    groups: GroupsOf = None,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
    memory: Memory = None,
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
    """Remove each dimension, or group, in turn and score a reader of the rest.

    The test split is ablated against the train split. Example: dimlab ablate checkpoint.pt
    """
    from dimlab.probes.ablate import ablate as ablate_dimensions

    loading = Loading(
        data, data_dir, masked, basis, train_features, device, seed, quiet, array, labels
    )
    train, test = loading.pair(source, max_queries, max_train=max_train)
    with cautions("ablate"), progress("ablating", quiet=quiet) as advance:
        result = ablate_dimensions(
            train, test, reader=reader, refit=refit, fill=fill, score=score,
            groups=groups_in(groups, train), k=k, temperature=temperature, penalty=penalty,
            seed=seed, device=device, memory=memory, progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "ablate",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, [source], {"train": train, "test": test}, beside=[groups]),
    ) as for_people:
        if for_people:
            print_extremes(result)


@app.command("random-masks")
def random_masks(
    source: Probed,
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    reader: Reader = "ridge",
    drop: Annotated[
        str, typer.Option(help="Shares of the dimensions to remove, separated by commas.")
    ] = "0.1,0.25,0.5,0.75",
    n_masks: Annotated[int, typer.Option(help="Masks of each share.")] = 500,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
    memory: Memory = None,
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
    """Score random masks; judge the best on samples that did not choose it.

    Example: dimlab random-masks checkpoint.pt --drop 0.1,0.5
    """
    from dimlab.probes.random_masks import random_masks as score_random_masks

    loading = Loading(
        data, data_dir, masked, basis, train_features, device, seed, quiet, array, labels
    )
    train, test = loading.pair(source, max_queries, max_train=max_train)
    with progress("masking", quiet=quiet) as advance:
        result = score_random_masks(
            train, test, reader=reader, drop=numbers_in("drop", drop), n_masks=n_masks, k=k,
            temperature=temperature, penalty=penalty, seed=seed, device=device, memory=memory,
            progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "random-masks",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, [source], {"train": train, "test": test}),
    ) as for_people:
        if for_people:
            print_rows(result, "Random masks, one row a share removed")


@app.command("cumulate")
def ablate_cumulatively(
    source: Probed,
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    order: Annotated[
        str,
        typer.Option(
            help="worst-first, best-first, random, greedy-backward, greedy-forward, or a list of "
            "groups separated by commas."
        ),
    ] = "worst-first",
    reader: Reader = "ridge",
    n_points: Annotated[int | None, typer.Option(help="Points of the curve.")] = None,
    margin: Annotated[
        float, typer.Option(help="Largest loss of accuracy that counts as none.")
    ] = 0.01,
    groups: GroupsOf = None,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
    memory: Memory = None,
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
    """Remove dimensions one after the other and score a reader of the rest each time.

    Example: dimlab cumulate checkpoint.pt --order best-first
    """
    from dimlab.probes._orders import ORDERS
    from dimlab.probes.ablate_cumulatively import ablate_cumulatively as cumulate

    given = order in ORDERS or not order.replace(",", "").replace(" ", "").isdigit()
    loading = Loading(
        data, data_dir, masked, basis, train_features, device, seed, quiet, array, labels
    )
    train, test = loading.pair(source, max_queries, max_train=max_train)
    with progress("removing", quiet=quiet) as advance:
        result = cumulate(
            train, test, order=order if given else [int(d) for d in order.split(",")],
            reader=reader, groups=groups_in(groups, train), k=k, temperature=temperature,
            penalty=penalty, n_points=n_points, margin=margin, seed=seed, device=device,
            memory=memory, progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "cumulate",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, [source], {"train": train, "test": test}, beside=[groups]),
    ) as for_people:
        if for_people:
            print_rows(result, f"Accuracy while dimensions leave, {result.order_name}")


@app.command("confirm")
def confirm_harmful(
    source: Probed,
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    reader: Reader = "knn",
    n_splits: Annotated[int, typer.Option(help="Random halvings of the test samples.")] = 20,
    groups: GroupsOf = None,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
    memory: Memory = None,
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
    """Find dimensions that hurt a reader, confirmed on samples that did not choose them.

    Example: dimlab confirm checkpoint.pt --basis pca
    """
    from dimlab.probes.confirm_harmful import confirm_harmful as confirm

    loading = Loading(
        data, data_dir, masked, basis, train_features, device, seed, quiet, array, labels
    )
    train, test = loading.pair(source, max_queries, max_train=max_train)
    with progress("confirming", quiet=quiet) as advance:
        result = confirm(
            train, test, reader=reader, groups=groups_in(groups, train), k=k,
            temperature=temperature, penalty=penalty, n_splits=n_splits, seed=seed,
            device=device, memory=memory, progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "confirm",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, [source], {"train": train, "test": test}, beside=[groups]),
    ) as for_people:
        if for_people:
            print_rows(result, "Smallest q-values first", by=["q_aggregated", "importance"])
