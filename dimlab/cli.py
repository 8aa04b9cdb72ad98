"""The command line: each command loads, encodes, probes and presents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.probes.ablate import Ablation
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint
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
        "--groups", help="JSON file of lists of dimensions (or of one id each), or 'redundant'."
    ),
]
BasisName = Annotated[
    str | None, typer.Option("--basis", help="pca, whiten, varimax or ica, fitted on train.")
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
    if isinstance(error, _Unreadable):
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


class _Unreadable(Exception):
    """A file that is there but cannot be used: a failure, not a misuse."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _Unreadable(str(error)) from error


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
    from dimlab.terminal import training_progress
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
    earlier = _checkpoint(before) if resume and before.exists() else None
    images = _load(data, "train", data_dir)
    validation = _load(data, "validation", data_dir) if settings.validate_every else None
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
        _print_summary({**checkpoint.summary(), "checkpoint": str(before)}, as_json=as_json)


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
    from dimlab.terminal import progress
    from dimlab.training.distributed import joined

    checkpoint = _checkpoint(source)
    out.mkdir(parents=True, exist_ok=True)
    with joined(device) as (world, place):
        for name in split or ["train", "test"]:
            images = _split_of(checkpoint, name, data, data_dir)
            with progress(f"encoding {name}", quiet=quiet or world.rank > 0) as advance:
                representation = encode_images(
                    checkpoint, images, layer=layer, n_views=views, seed=seed, device=place,
                    progress=advance,
                )  # fmt: skip
            if world.rank == 0:
                print(representation.save(out / f"{name}.safetensors"))


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
    from dimlab.terminal import console, progress, table

    checkpoints = [_checkpoint(source) for source in sources]
    train_images = _split_of(checkpoints[0], "train", data, data_dir)
    test_images = _first(_split_of(checkpoints[0], "test", data, data_dir), max_queries)
    with progress("evaluating", quiet=quiet) as advance:
        result = evaluate_baselines(
            checkpoints, train_images, test_images, readers=readers.split(","), k=k, seed=seed,
            device=device, progress=advance,
        )  # fmt: skip
    if not as_json:
        means = dict.fromkeys(("accuracy", "lowest", "highest"), ".4f")
        console().print(
            table(result.over_seeds(), title="Accuracy, mean over seeds", formats=means)
        )
    _finish(result, "evaluate", out, as_json)


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
    from dimlab.terminal import progress

    train, test = _pair(
        source, train_features, data, data_dir, masked, device, quiet, basis, max_queries, seed
    )
    with progress("ablating", quiet=quiet) as advance:
        result = ablate_dimensions(
            train, test, reader=reader, refit=refit, fill=fill, score=score,
            groups=_groups(groups, train), k=k, temperature=temperature, penalty=penalty,
            seed=seed, device=device, memory=memory, progress=advance,
        )  # fmt: skip
    if not as_json:
        _print_extremes(result)
    _finish(result, "ablate", out, as_json)


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
    from dimlab.terminal import progress

    train, test = _pair(
        source, train_features, data, data_dir, masked, device, quiet, basis, max_queries, seed
    )
    with progress("masking", quiet=quiet) as advance:
        result = score_random_masks(
            train, test, reader=reader, drop=_numbers("drop", drop), n_masks=n_masks, k=k,
            temperature=temperature, penalty=penalty, seed=seed, device=device, memory=memory,
            progress=advance,
        )  # fmt: skip
    _print_rows(result, "Random masks, one row a share removed", as_json)
    _finish(result, "random-masks", out, as_json)


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
    from dimlab.terminal import progress

    given = order in ORDERS or not order.replace(",", "").replace(" ", "").isdigit()
    train, test = _pair(
        source, train_features, data, data_dir, masked, device, quiet, basis, max_queries, seed
    )
    with progress("removing", quiet=quiet) as advance:
        result = cumulate(
            train, test, order=order if given else [int(d) for d in order.split(",")],
            reader=reader, groups=_groups(groups, train), k=k, temperature=temperature,
            penalty=penalty, n_points=n_points, seed=seed, device=device, memory=memory,
            progress=advance,
        )  # fmt: skip
    _print_rows(result, f"Accuracy while dimensions leave, {result.order_name}", as_json)
    _finish(result, "cumulate", out, as_json)


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
    from dimlab.terminal import progress

    train, test = _pair(
        source, train_features, data, data_dir, masked, device, quiet, basis, max_queries, seed
    )
    with progress("confirming", quiet=quiet) as advance:
        result = confirm(
            train, test, reader=reader, groups=_groups(groups, train), k=k,
            temperature=temperature, penalty=penalty, n_splits=n_splits, seed=seed,
            device=device, memory=memory, progress=advance,
        )  # fmt: skip
    _print_rows(result, "Most harmful first", as_json, by=["q_value", "importance"])
    _finish(result, "confirm", out, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Train on digits, encode, ablate, follow the mask and write a report, in about a minute.

    Nothing is canned: the numbers come from this run.
    """
    from dimlab.demo import run_demo
    from dimlab.terminal import console, progress, training_progress

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

    with _reading():
        return tomllib.loads(path.read_text(encoding="utf-8"))


def _run_folder(out: Path | None, name: str, overwrite: bool) -> Path:
    folder = out or Path("runs") / name
    if (folder / "checkpoint.pt").exists() and not overwrite:
        raise ValueError(
            f"out must be a folder without a checkpoint.pt; got {folder}. "
            "Pass --overwrite or another --out."
        )
    return folder


def _load(name: str, split: str, data_dir: Path | None) -> ImageSet:
    from dimlab import datasets

    if name.replace("_", "-") not in datasets.NAMES:
        datasets.load_images(name, split)  # raises, with the known names
    with _reading():
        return datasets.load_images(name, split, data_dir=data_dir)


def _checkpoint(path: Path) -> Checkpoint:
    from dimlab.training.checkpoint import load_checkpoint

    with _reading():
        return load_checkpoint(path)


def _split_of(
    checkpoint: Checkpoint, split: str, data: str | None, data_dir: Path | None
) -> ImageSet:
    """Load a split of the checkpoint's own data set, known by its labels' hash, or of another."""
    recorded = checkpoint.data
    folder = data_dir or (Path(recorded["folder"]) if recorded["folder"] and not data else None)
    images = _load(data or recorded["name"], split, folder)
    if data is None:
        same = (
            images
            if split == recorded["split"]
            else _load(recorded["name"], recorded["split"], folder)
        )
        if same.labels_hash != recorded["labels_hash"]:
            raise _Unreadable(
                f"{recorded['name']} must be the data that the checkpoint was trained on; got "
                "labels with another hash. Point --data-dir to that copy, or pass --data."
            )
    return images


def _first(images: ImageSet, count: int | None) -> ImageSet:
    if count is not None and count < 1:
        raise ValueError(f"max-queries must be >= 1; got {count}.")
    return images if count is None else images.take(range(min(count, len(images))))


def _pair(
    source: Path,
    train_features: Path | None,
    data: str | None,
    data_dir: Path | None,
    masked: bool,
    device: str,
    quiet: bool,
    basis: str | None,
    max_queries: int | None,
    seed: int,
) -> tuple[Representation, Representation]:
    """Train and test features, in the basis asked for, test cut down to the samples asked for."""
    from dimlab.basis import KINDS, fit_basis

    if basis is not None and basis not in KINDS:  # before anything long
        raise ValueError(f"basis must be one of {', '.join(KINDS)}; got {basis!r}.")
    if max_queries is not None and max_queries < 1:
        raise ValueError(f"max-queries must be >= 1; got {max_queries}.")
    train, test = _features(source, train_features, data, data_dir, masked, device, quiet)
    if max_queries is not None and max_queries < len(test):
        rows = np.random.default_rng(seed).choice(len(test), max_queries, replace=False)
        note = f"{max_queries} of {len(test)} test samples, drawn with seed {seed}"
        test = test.take(np.sort(rows))
        test = replace(test, meta={**test.meta, "sample": note})
    if basis is None:
        return train, test
    fitted = fit_basis(train, basis, seed=seed)
    words = fitted.summary()
    print(
        f"basis {basis}: {words['n_directions']} directions ({words['n_dropped']} dropped, "
        f"{words['n_stable']} stable); {words['in_words']}.",
        file=sys.stderr,
    )
    return fitted.apply(train), fitted.apply(test)


def _features(
    source: Path,
    train_features: Path | None,
    data: str | None,
    data_dir: Path | None,
    masked: bool,
    device: str,
    quiet: bool,
) -> tuple[Representation, Representation]:
    """Train and test features: encoded from a checkpoint, or read from two files."""
    from dimlab.encode import encode as encode_images
    from dimlab.representation import Representation
    from dimlab.terminal import progress

    if source.suffix == ".safetensors":
        if train_features is None:
            raise ValueError(
                "train must name the train features; got nothing. Pass --train train.safetensors."
            )
        if masked:
            raise ValueError("masked must be left out for a file of features; got --masked.")
        with _reading():
            return Representation.load(train_features), Representation.load(source)
    checkpoint = _checkpoint(source)
    pair = []
    for split in ("train", "test"):
        images = _split_of(checkpoint, split, data, data_dir)
        with progress(f"encoding {split}", quiet=quiet) as advance:
            representation = encode_images(checkpoint, images, device=device, progress=advance)
        pair.append(representation.masked(checkpoint.mask) if masked else representation)
    return pair[0], pair[1]


def _groups(text: str | None, train: Representation) -> Any:
    """Read groups of dimensions: none, the redundant ones of train, or those of a JSON file."""
    if text is None:
        return None
    if text == "redundant":
        from dimlab.kernels.collinearity import redundant_groups

        return redundant_groups(train.features)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(
            f"groups must be 'redundant' or a JSON file; got {text}, which is not there."
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _Unreadable(f"{path} must hold JSON; got {error}.") from error
    if not isinstance(found, list):
        raise _Unreadable(f"{path} must hold a list of groups; got {type(found).__name__}.")
    ids = bool(found) and all(isinstance(each, int) for each in found)
    return np.array(found) if ids else found


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} must be numbers separated by commas; got {text!r}.") from None


def _print_rows(
    result: Any, title: str, as_json: bool, *, by: list[str] | None = None, count: int = 12
) -> None:
    """Print a result's table, or rows spread over it where it is long."""
    from dimlab.terminal import console, table

    if as_json:
        return
    frame = result.to_frame()
    if by is not None:
        frame = frame.sort_values(by, kind="stable").head(count)
    elif len(frame) > count:
        frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, count).round().astype(int))]
    numbers = dict.fromkeys(frame.select_dtypes("float").columns, ".4g")
    sample = result.summary().get("sample")
    console().print(table(frame, title=title + (f" ({sample})" if sample else ""), formats=numbers))


def _print_extremes(result: Ablation, count: int = 10) -> None:
    from dimlab.terminal import console, table

    frame = result.to_frame()
    frame = frame.drop(columns="group").sort_values("importance", ascending=False, kind="stable")
    short = {"p_value": "p", "q_value": "q", "log_loss_importance": "log_loss_lost"}
    frame = frame.rename(columns=short | {"log_loss_p_value": "its_p"})
    formats = dict.fromkeys(("importance", "ci_low", "ci_high", "log_loss_lost"), "+.4f")
    formats |= {"score": ".4f", "p": ".2g", "q": ".2g", "its_p": ".2g"}
    sample = f" ({result.sample})" if result.sample else ""
    unit = "dimensions" if "dimension" in frame else "groups"
    shown, count = console(), min(count, len(frame))
    helpful, harmful = frame.head(count), frame.iloc[::-1].head(count)
    title = f"{count} most helpful {unit}{sample}"
    shown.print(table(helpful, title=title, formats=formats))
    title = f"\n{count} most harmful {unit}{sample}"
    shown.print(table(harmful, title=title, formats=formats))


def _finish(result: Any, name: str, out: Path | None, as_json: bool) -> None:
    if out is not None:
        from dimlab.report import write_result

        files = write_result(out, name, result)
        if not as_json:
            print("wrote", *files.values())
    _print_summary(result.summary(), as_json=as_json)


def _print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    from dimlab.report import in_words
    from dimlab.terminal import console

    if as_json:
        print(json.dumps(summary, indent=2))
        return
    shown = console()
    for key, value in summary.items():
        shown.print(f"[bold]{key}[/bold]  {escape(in_words(value))}")
