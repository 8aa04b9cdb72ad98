"""The command line: each command loads, encodes, probes and presents."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from dimlab.sources import (
    Loading,
    Unreadable,
    load_data,
    names_of,
    read_checkpoint,
    reading,
)
from dimlab.terminal import (
    console,
    finish,
    print_extremes,
    print_rows,
    print_summary,
    print_table,
    progress,
    training_progress,
    with_bounds,
)

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.representation import Representation
    from dimlab.training.config import TrainConfig

DONE, FAILED, MISUSED = 0, 1, 2
_CTRL_C = 130
_BOOLEANS = {"true": True, "false": False}

app = typer.Typer(
    name="dimlab",
    help="Look inside self-supervised representations one dimension at a time.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of dimlab train.")]
Data = Annotated[
    str | None, typer.Option("--data", help="Data set; the checkpoint's own by default.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder (or file) of the data set.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for CSV, JSON and figure.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option("--device", help="Where to compute: cpu, cuda, cuda:1.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all randomness.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
K = Annotated[int, typer.Option("--k", help="Neighbours of the kNN reader.")]
Probed = Annotated[
    Path, typer.Argument(metavar="FILE", help="A checkpoint, or test features (.safetensors).")
]
TrainFeatures = Annotated[
    Path | None, typer.Option("--train", help="Train features, when FILE holds features.")
]
Reader = Annotated[str, typer.Option(help="knn, ridge or logistic.")]
Masked = Annotated[bool, typer.Option("--masked", help="Multiply by the learned mask.")]
Temperature = Annotated[float, typer.Option(help="Temperature of the kNN votes.")]
Penalty = Annotated[float, typer.Option(help="Ridge penalty, times N_train.")]
MaxQueries = Annotated[
    int | None, typer.Option(help="Test samples to use, drawn at random; all by default.")
]
GroupsOf = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="JSON file of lists of dimensions (or of one id each), or 'redundant': those that "
        "dimlab redundancy finds on train ('redundant:0.9' for another cut).",
    ),
]
BasisName = Annotated[
    str | None, typer.Option("--basis", help="pca, whiten, varimax or ica, fitted on train.")
]
Measured = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="A checkpoint; features; or moments. Several files of features or moments are parts "
        "of one.",
    ),
]
Split = Annotated[str, typer.Option(help="Split of the checkpoint's data to measure.")]
FittedOn = Annotated[
    Path | None, typer.Option("--train", help="Train features, which --basis is fitted on.")
]
Views = Annotated[int, typer.Option("--views", help="Augmented views to encode of every image.")]
SaveMoments = Annotated[
    Path | None,
    typer.Option("--save-moments", help="Keep the moments (.safetensors), to merge later."),
]
Memory = Annotated[float | None, typer.Option("--memory", help="GB that the kNN search may take.")]


def run() -> None:
    """Run the command line: one sentence on stderr and exit code 1 or 2 on errors."""
    arguments = [each for each in sys.argv[1:] if each != "--debug"]
    command = next((each for each in arguments if not each.startswith("-")), "")
    prefix = f"dimlab {command}".strip()
    try:
        code = app(arguments, standalone_mode=False) or DONE
        if code == _CTRL_C:  # typer turns Ctrl-C into a code of its own
            raise KeyboardInterrupt
        sys.exit(code)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        sentence, code = _explain(error)
        print(f"{prefix}: {sentence}", file=sys.stderr)
        sys.exit(code)


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", FAILED
    if isinstance(error, Unreadable):
        return str(error), FAILED
    if hasattr(error, "format_message"):  # what typer raises: unknown flag, value of the wrong type
        return f"{error.format_message()} See --help.", MISUSED
    if isinstance(error, (ValueError, TypeError, FileNotFoundError)):
        return str(error), MISUSED
    if isinstance(error, OSError):
        if error.filename is None:
            return str(error), FAILED
        return f"{error.filename}: {error.strerror or error}.", FAILED
    if isinstance(error, MemoryError):
        return "out of memory.", FAILED
    return f"internal error, {type(error).__name__}: {error} (--debug shows where).", FAILED


@app.command()
def train(
    data: Annotated[str, typer.Option("--data", help="Data set to train on.")] = "digits",
    data_dir: DataDir = None,
    encoder: Annotated[
        str | None, typer.Option(help="convnet, resnet18, resnet34 or resnet50.")
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="First layers of a ResNet: cifar or imagenet.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="metamask, simclr+barlow-twins, simclr or barlow-twins.")
    ] = None,
    hypergradient: Annotated[
        str | None,
        typer.Option(help="exact, lookahead, finite_difference, first_order, joint or none."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate of the network.")] = None,
    mask_learning_rate: Annotated[float | None, typer.Option(help="Peak rate of the mask.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float64.")] = None,
    validate_every: Annotated[
        int | None, typer.Option(help="Epochs between kNN evaluations of the validation split.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other field of TrainConfig, as name=value; repeatable."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of TrainConfig fields; flags win.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="small, medium or official: where the other fields start.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; runs/... by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint, if there is one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into the run folder.")
    ] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train MetaMask (or a baseline) and write checkpoint.pt and metrics.jsonl.

    Under torchrun (torchrun --nproc-per-node 2 -m dimlab train ...) the processes share each batch.
    Example: dimlab train --data fashion-mnist --encoder convnet --steps 400
    """
    from dimlab.training.distributed import joined
    from dimlab.training.loop import train as train_run

    chosen: dict[str, Any] = {
        **{"encoder": encoder, "stem": stem, "method": method, "hypergradient": hypergradient},
        **{"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate},
        **{"mask_learning_rate": mask_learning_rate, "precision": precision},
        **{"validate_every": validate_every, "seed": seed, **_fields(fields or [])},
    }
    settings = _config(preset or ("small" if data == "digits" else "medium"), config, chosen)
    name = f"{data}-{settings.encoder}-{settings.method}-seed{seed}"
    folder = _run_folder(out, name, overwrite or resume)
    before = folder / "checkpoint.pt"
    earlier = read_checkpoint(before) if resume and before.exists() else None
    images = load_data(data, "train", data_dir)
    validation = load_data(data, "validation", data_dir) if settings.validate_every else None
    with joined(device) as (world, place), ExitStack() as stack:
        sinks = [
            stack.enter_context(
                training_progress(
                    settings.steps, settings.batch_size, quiet=quiet or world.rank > 0
                )
            )
        ]
        if tensorboard and world.rank == 0:
            sinks.append(stack.enter_context(_tensorboard(folder)))
        checkpoint = train_run(
            settings, images, validation=validation, out=folder, resume=earlier,
            sink=lambda record: _tell(sinks, record), device=place,
        )  # fmt: skip
        is_first = world.rank == 0
    if is_first:
        print_summary({**checkpoint.summary(), "checkpoint": str(before)}, as_json=as_json)


@app.command()
def encode(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for the .safetensors files.")] = Path(
        "."
    ),
    split: Annotated[
        list[str] | None, typer.Option("--split", help="train, validation, test; repeatable.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="encoder, projector-contrastive or projector-redundancy.")
    ] = "encoder",
    views: Annotated[int, typer.Option("--views", help="Augmented views of every image.")] = 0,
    moments: Annotated[
        bool,
        typer.Option("--moments", help="Store moments only (of two views with --views 2)."),
    ] = False,
    data: Data = None,
    data_dir: DataDir = None,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Encode splits of the checkpoint's data set into <split>.safetensors files.

    Example: dimlab encode checkpoint.pt --views 2 --out features
    """
    from dimlab.encode import encode as encode_images
    from dimlab.encode import encode_moments
    from dimlab.training.distributed import joined

    if moments and views not in (0, 2):
        raise ValueError(f"views must be 0 or 2 with --moments; got {views}.")
    checkpoint = read_checkpoint(source)
    out.mkdir(parents=True, exist_ok=True)
    with joined(device) as (world, place):
        for name in split or ["train", "test"]:
            images = Loading(data, data_dir).images(checkpoint, name)
            with progress(f"encoding {name}", quiet=quiet or world.rank > 0) as advance:
                settings: dict[str, Any] = {"layer": layer, "seed": seed}
                settings |= {"device": place, "progress": advance}
                encoded: Any = (
                    encode_moments(checkpoint, images, views=views > 0, **settings)
                    if moments
                    else encode_images(checkpoint, images, n_views=views, **settings)
                )
            if world.rank == 0:
                print(encoded.save(out / f"{name}{'-moments' if moments else ''}.safetensors"))


@app.command()
def evaluate(
    sources: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT...", help="One checkpoint, or one a seed.")
    ],
    readers: Annotated[
        str, typer.Option(help="Readers, separated by commas: knn, ridge, logistic.")
    ] = "knn,ridge",
    k: K = 5,
    max_queries: Annotated[
        int | None, typer.Option(help="Test images to use, the first ones; all by default.")
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Compare readers of raw pixels, the untrained and the trained encoder, masked and unmasked.

    View retrieval is the share of test images whose second augmented view lies nearest to their own
    first view among all. Example: dimlab evaluate runs/a/checkpoint.pt runs/b/checkpoint.pt
    """
    from dimlab.baselines import evaluate_baselines

    checkpoints = [read_checkpoint(source) for source in sources]
    loading = Loading(data, data_dir)
    train_images = loading.images(checkpoints[0], "train")
    test_images = _first(loading.images(checkpoints[0], "test"), max_queries)
    with progress("evaluating", quiet=quiet) as advance:
        result = evaluate_baselines(
            checkpoints, train_images, test_images, readers=readers.split(","), k=k, seed=seed,
            device=device, progress=advance,
        )  # fmt: skip
    if not as_json:
        means = dict.fromkeys(("accuracy", "lowest", "highest"), ".4f")
        print_table(result.over_seeds(), title="Accuracy, mean over seeds", formats=means)
    finish(result, "evaluate", out, as_json=as_json)


@app.command()
def ablate(
    source: Probed,
    train_features: TrainFeatures = None,
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
    memory: Memory = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Remove each dimension, or group, in turn and score a reader of the rest.

    The test split is ablated against the train split. Example: dimlab ablate checkpoint.pt
    """
    from dimlab.probes.ablate import ablate as ablate_dimensions

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    train, test = loading.pair(source, max_queries)
    with progress("ablating", quiet=quiet) as advance:
        result = ablate_dimensions(
            train, test, reader=reader, refit=refit, fill=fill, score=score,
            groups=_groups(groups, train), k=k, temperature=temperature, penalty=penalty,
            seed=seed, device=device, memory=memory, progress=advance,
        )  # fmt: skip
    if not as_json:
        print_extremes(result)
    finish(result, "ablate", out, as_json=as_json)


@app.command("random-masks")
def random_masks(
    source: Probed,
    train_features: TrainFeatures = None,
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
    memory: Memory = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Score random masks; judge the best on samples that did not choose it.

    Example: dimlab random-masks checkpoint.pt --drop 0.1,0.5
    """
    from dimlab.probes.random_masks import random_masks as score_random_masks

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    train, test = loading.pair(source, max_queries)
    with progress("masking", quiet=quiet) as advance:
        result = score_random_masks(
            train, test, reader=reader, drop=_numbers("drop", drop), n_masks=n_masks, k=k,
            temperature=temperature, penalty=penalty, seed=seed, device=device, memory=memory,
            progress=advance,
        )  # fmt: skip
    if not as_json:
        print_rows(result, "Random masks, one row a share removed")
    finish(result, "random-masks", out, as_json=as_json)


@app.command("cumulate")
def ablate_cumulatively(
    source: Probed,
    train_features: TrainFeatures = None,
    order: Annotated[
        str,
        typer.Option(
            help="worst-first, best-first, random, greedy-backward, greedy-forward, or a list of "
            "groups separated by commas."
        ),
    ] = "worst-first",
    reader: Reader = "ridge",
    n_points: Annotated[int | None, typer.Option(help="Points of the curve.")] = None,
    groups: GroupsOf = None,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    memory: Memory = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Remove dimensions one after the other and score a reader of the rest each time.

    Example: dimlab cumulate checkpoint.pt --order best-first
    """
    from dimlab.probes.ablate_cumulatively import ORDERS
    from dimlab.probes.ablate_cumulatively import ablate_cumulatively as cumulate

    given = order in ORDERS or not order.replace(",", "").replace(" ", "").isdigit()
    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    train, test = loading.pair(source, max_queries)
    with progress("removing", quiet=quiet) as advance:
        result = cumulate(
            train, test, order=order if given else [int(d) for d in order.split(",")],
            reader=reader, groups=_groups(groups, train), k=k, temperature=temperature,
            penalty=penalty, n_points=n_points, seed=seed, device=device, memory=memory,
            progress=advance,
        )  # fmt: skip
    if not as_json:
        print_rows(result, f"Accuracy while dimensions leave, {result.order_name}")
    finish(result, "cumulate", out, as_json=as_json)


@app.command("confirm")
def confirm_harmful(
    source: Probed,
    train_features: TrainFeatures = None,
    reader: Reader = "knn",
    n_splits: Annotated[int, typer.Option(help="Random halvings of the test samples.")] = 20,
    groups: GroupsOf = None,
    basis: BasisName = None,
    masked: Masked = False,
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    max_queries: MaxQueries = None,
    memory: Memory = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Find dimensions that hurt a reader, confirmed on samples that did not choose them.

    Example: dimlab confirm checkpoint.pt --basis pca
    """
    from dimlab.probes.confirm_harmful import confirm_harmful as confirm

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    train, test = loading.pair(source, max_queries)
    with progress("confirming", quiet=quiet) as advance:
        result = confirm(
            train, test, reader=reader, groups=_groups(groups, train), k=k,
            temperature=temperature, penalty=penalty, n_splits=n_splits, seed=seed,
            device=device, memory=memory, progress=advance,
        )  # fmt: skip
    if not as_json:
        print_rows(result, "Most harmful first", by=["q_value", "importance"])
    finish(result, "confirm", out, as_json=as_json)


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
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
    device: Device = "cpu",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Correlate dimensions between two views, or with each other: diagonal, redundancy, null.

    Example: dimlab correlate checkpoint.pt --out correlation
    """
    from dimlab.atomic import replacing
    from dimlab.probes.correlate import correlate as correlate_dimensions

    loading = Loading(data, data_dir, masked, basis, train_features, device, seed, quiet)
    views = 0 if within else views
    with loading.measured(
        sources, split, views=views, pairs=not within, save_moments=save_moments
    ) as (measured, is_first):
        with _cautions("correlate"), progress("drawing the null", quiet=quiet) as advance:
            result = correlate_dimensions(
                measured, within=within, n_draws=draws, seed=seed, device=device, progress=advance
            )
        if not is_first:
            return
        if not as_json:
            title = f"Strongest {result.kind} correlations"
            print_table(result.top_pairs(10), title=title, formats={"correlation": "+.4f"})
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            with replacing(out / "correlate.npy") as temporary, temporary.open("wb") as file:
                np.save(file, result.matrix)
        finish(result, "correlate", out, as_json=as_json)


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
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
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
        with _cautions("decompose"), progress("decomposing", quiet=quiet) as advance:
            result = decompose_features(
                measured, centred=centred, seed=seed, device=device, progress=advance
            )
        if not is_first:
            return
        if not as_json:
            numbers = dict.fromkeys(("value", "ci_low", "ci_high"), ".4g")
            print_table(result.statistics(), title="Spectrum", formats=numbers)
        finish(result, "decompose", out, as_json=as_json)


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
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
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
        with progress("halving", quiet=quiet) as advance:
            result = find(
                measured, cut=cut, keep=keep, reader=reader, seed=seed, device=device,
                progress=advance,
            )  # fmt: skip
        if not is_first:
            return
        if not as_json:
            order = ["dead", "r_squared"]
            print_rows(result, "Most redundant first", by=order, ascending=[True, False])
        finish(result, "redundancy", out, as_json=as_json)


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
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    as_json: AsJson = False,
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
    found = {}
    for name, source in zip(names, sources, strict=True):
        representation = loading.features(source, split, views=views)
        # each in a basis of its own: a shared one would not fit other axes
        found[name] = loading.in_basis(representation, [representation])[0]
    with _cautions("compare"), progress("comparing", quiet=quiet) as advance:
        result = compare_representations(
            found, reference=reference, seed=seed, device=device, progress=advance
        )
    if not as_json:
        frame = result.to_frame().dropna(subset=["value"])
        value = with_bounds(frame, "value", "ci_low", "ci_high")
        difference = with_bounds(frame, "difference", "difference_low", "difference_high")
        shown = frame[["representation", "statistic"]].assign(value=value, difference=difference)
        print_table(shown, title=f"Statistics, and differences to {result.reference}")
        numbers = dict.fromkeys(("cka", "cka_biased", "procrustes"), ".4f")
        print_table(result.similarities(), title="\nSimilarity", formats=numbers)
    finish(result, "compare", out, as_json=as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train on digits, encode, ablate, find redundancy and write a report, in about a minute.

    Nothing is canned: the numbers come from this run.
    """
    from dimlab.demo import run_demo

    shown = console()
    headline = run_demo(
        out, seed, training=lambda *sizes: training_progress(*sizes, quiet=quiet),
        working=lambda text: progress(text, quiet=quiet),
    )  # fmt: skip
    for sentence in headline:
        shown.print(f"- {sentence}")
    shown.print(f"Open {out / 'report.html'} (numbers beside it as CSV and JSON).")
    shown.print(f"Next: dimlab ablate {out / 'checkpoint.pt'} --reader ridge")


def _config(preset: str, path: Path | None, chosen: dict[str, Any]) -> TrainConfig:
    from dimlab.training.config import TrainConfig

    presets = {
        "small": TrainConfig.small,
        "medium": TrainConfig.medium,
        "official": TrainConfig.official,
    }
    if preset not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}; got {preset!r}.")
    values = presets[preset]().to_dict()
    if path is not None:
        values |= _read_toml(path)
    return TrainConfig.from_dict(
        values | {name: value for name, value in chosen.items() if value is not None}
    )


def _fields(pairs: list[str]) -> dict[str, Any]:
    """Read name=value pairs; the value's type is that of the configuration's field."""
    from dimlab.training.config import TrainConfig

    kinds = {"int": int, "float": float, "str": str}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        kind = TrainConfig.__annotations__.get(name)
        if not equals or kind is None:
            raise ValueError(f"set must be FIELD=VALUE with a field of TrainConfig; got {pair!r}.")
        try:
            values[name] = _BOOLEANS[text] if kind == "bool" else kinds.get(kind, str)(text)
        except (KeyError, ValueError):
            raise ValueError(f"{name} must be {kind}; got {text!r}.") from None
    return values


def _tell(sinks: list[Any], record: dict[str, Any]) -> None:
    for sink in sinks:
        sink(record)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Any]:
    """Give a sink that writes every number of a record into event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard must be installed for --tensorboard; got no such package. "
            'Run pip install "dimlab[tensorboard]".'
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    with SummaryWriter(str(folder)) as writer:

        def write(record: dict[str, Any]) -> None:
            for name, value in record.items():
                if name != "step":
                    writer.add_scalar(name, value, record["step"])

        yield write


def _read_toml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"config must be a TOML file; got {path}, which is not there.")
    if sys.version_info < (3, 11):
        raise ValueError("config must be left out before Python 3.11, which reads TOML; use flags.")
    import tomllib

    with reading():
        return tomllib.loads(path.read_text(encoding="utf-8"))


def _run_folder(out: Path | None, name: str, overwrite: bool) -> Path:
    folder = out or Path("runs") / name
    if (folder / "checkpoint.pt").exists() and not overwrite:
        raise ValueError(
            f"out must be a folder without a checkpoint.pt; got {folder}. "
            "Pass --overwrite or another --out."
        )
    return folder


def _first(images: ImageSet, count: int | None) -> ImageSet:
    if count is not None and count < 1:
        raise ValueError(f"max-queries must be >= 1; got {count}.")
    return images if count is None else images.take(range(min(count, len(images))))


@contextmanager
def _cautions(command: str) -> Iterator[None]:
    """Show warnings of a probe as sentences on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        print(f"dimlab {command}: caution: {each.message}", file=sys.stderr)


def _groups(text: str | None, train: Representation) -> Any:
    """Read groups of dimensions: none, the redundant ones of train, or those of a JSON file."""
    if text is None:
        return None
    kind, _, cut = text.partition(":")
    if kind == "redundant":
        from dimlab.probes.find_redundancy import find_redundancy

        chosen: dict[str, Any] = {"cut": _numbers("groups", cut)[0]} if cut else {}
        return list(find_redundancy(train, **chosen).groups)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(
            f"groups must be 'redundant' or a JSON file; got {text}, which is not there."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Unreadable(f"{path} must hold JSON; got {error}.") from error
    if not isinstance(found, list):
        raise Unreadable(f"{path} must hold a list of groups; got {type(found).__name__}.")
    ids = bool(found) and all(isinstance(each, int) for each in found)
    return np.array(found) if ids else found


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} must be numbers separated by commas; got {text!r}.") from None
