"""Commands that train, encode and judge a run as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimlab.cli.app import app
from dimlab.cli.options import (
    AllowPartial,
    AllowUntrained,
    ArrayName,
    AsJson,
    Branch,
    Data,
    DataDir,
    Device,
    EncoderName,
    FailIf,
    Format,
    K,
    LabelsOf,
    LayoutName,
    MaxQueries,
    MaxTrain,
    Out,
    Quiet,
    Seed,
    Source,
    Stem,
    TrainFeatures,
    TrustPickle,
    as_folder,
)
from dimlab.cli.recording import keep_record, recording
from dimlab.sources import (
    Loading,
    check_drawn,
    drawn,
    encode_with,
    is_own,
    load_data,
    mask_of,
    normalisation_note,
    read_checkpoint,
    reading,
    said_on_stderr,
)
from dimlab.terminal import (
    console,
    presented,
    print_summary,
    print_table,
    progress,
    training_progress,
)
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.baselines import BaselineComparison
    from dimlab.moments import Moments
    from dimlab.probes.evaluate import Evaluation
    from dimlab.representation import Representation
    from dimlab.training.config import TrainConfig


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Data set to train on; digits by default, or that of a resumed run."
        ),
    ] = None,
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
    steps: Annotated[
        int | None, typer.Option(help="Training steps; of more epochs at most so many.")
    ] = None,
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
        str,
        typer.Option(
            help="small, medium or official: where the other fields start; by default small for "
            "digits, else medium."
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder; runs/... by default.", callback=as_folder),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the folder's checkpoint, if there is one, with its configuration.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older run.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files into the run folder.")
    ] = False,
    device: Device = "cpu",
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of all randomness; the preset's by default.")
    ] = None,
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
    chosen = {name: value for name, value in chosen.items() if value is not None}
    known = data or "digits"
    usual = "small" if known.partition("+")[0] == "digits" else "medium"  # whatever is planted
    start = _preset(preset or usual)
    chosen = (_read_toml(config) if config is not None else {}) | chosen  # flags win
    settings = _changed(start, chosen)
    name = f"{known}-{settings.encoder}-{settings.method}-seed{settings.seed}"
    folder = _run_folder(out, name, overwrite or resume)
    before = folder / "checkpoint.pt"
    earlier = read_checkpoint(before) if resume and before.exists() else None
    if earlier is not None:
        settings = _changed(start if preset else earlier.config, chosen)
        if data is None:
            known, recorded = earlier.data["name"], earlier.data["folder"]
            data_dir = data_dir or (Path(recorded) if recorded else None)
    images = load_data(known, "train", data_dir)
    n_channels, note = images.images.shape[1], ""
    if settings.normalisation == "imagenet" and n_channels != 3 and "normalisation" not in chosen:
        settings = _changed(settings, {"normalisation": "none"})
        note = (
            "assumed: normalisation none, as imagenet, the preset's, is of three channels and the "
            f"images have {n_channels}"
        )
    validation = load_data(known, "validation", data_dir) if settings.validate_every else None
    with joined(device) as (world, place), ExitStack() as stack:
        if note and world.rank == 0 and not quiet:
            print(note, file=sys.stderr)
        sinks = [
            stack.enter_context(
                training_progress(
                    settings.n_steps(len(images)),
                    settings.batch_size,
                    quiet=quiet or world.rank > 0,
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
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the .safetensors files.", callback=as_folder),
    ] = Path("."),
    split: Annotated[
        list[str] | None, typer.Option("--split", help="train, validation, test; repeatable.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="encoder, projector-contrastive or projector-redundancy.")
    ] = "encoder",
    views: Annotated[int, typer.Option("--views", help="Augmented views of every image.")] = 0,
    encoder: EncoderName = None,
    stem: Stem = None,
    layout: LayoutName = None,
    branch: Branch = None,
    normalisation: Annotated[
        str | None,
        typer.Option(help="Of another tool's encoder: none or imagenet; none by default."),
    ] = None,
    allow_partial: AllowPartial = None,
    allow_untrained: AllowUntrained = False,
    trust_pickle: TrustPickle = False,
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

    Checkpoints of other tools need --data; the options from --encoder on are for them. Example:
    dimlab encode checkpoint.pt --views 2 --out features
    """
    from dimlab.encode import encode as encode_images
    from dimlab.encode import encode_moments
    from dimlab.interop.features import holds_features
    from dimlab.io.matching import check_names
    from dimlab.io.unpickle import open_weights
    from dimlab.io.weights import load_encoder
    from dimlab.training.distributed import joined

    check_names(encoder, stem, layout)  # misuses, where what does not fit is a failure
    if moments and views not in (0, 2):
        raise ValueError(f"views must be 0 or 2 with --moments; got {views}.")
    if source.is_dir():
        with reading():
            open_weights(source)  # says what a folder is instead
    if not is_own(source):
        with reading():
            is_features = source.is_file() and holds_features(source)
        if is_features:
            raise ValueError(f"checkpoint must hold an encoder; got features, {source.name}.")
        data = _data_for_others(source.name, layer, moments, data)
        with reading(), said_on_stderr():
            loaded = load_encoder(
                source, encoder=encoder, stem=stem, layout=layout, branch=branch,
                allow_partial=allow_partial or (), allow_untrained=allow_untrained,
                trust_pickle=trust_pickle,
            )  # fmt: skip
        say(loaded.inspection.facts["why"])
        note = normalisation_note(loaded, source, normalisation)
        if note is not None and not quiet:
            say(note)
        out.mkdir(parents=True, exist_ok=True)
        for name in split or ["train", "test"]:
            loading = Loading(data, data_dir, device=device, seed=seed)
            images = load_data(data, name, data_dir)
            found = encode_with(
                loaded, images, views=views, normalisation=normalisation, seed=seed,
                device=device, quiet=quiet,
            )  # fmt: skip
            loading.encoded[data, name] = str(data_dir or "")
            _keep(found, out, name, loading, source)
        return
    checkpoint = read_checkpoint(source)
    out.mkdir(parents=True, exist_ok=True)
    with joined(device) as (world, place):
        for name in split or ["train", "test"]:
            loading = Loading(data, data_dir, device=device, seed=seed)
            images = loading.images(checkpoint, name)
            with progress(f"encoding {name}", quiet=quiet or world.rank > 0) as advance:
                settings: dict[str, Any] = {"layer": layer, "seed": seed}
                settings |= {"device": place, "progress": advance}
                encoded: Any = (
                    encode_moments(checkpoint, images, views=views > 0, **settings)
                    if moments
                    else encode_images(checkpoint, images, n_views=views, **settings)
                )
            if world.rank == 0:
                _keep(encoded, out, name, loading, source)


def _data_for_others(name: str, layer: str, moments: bool, data: str | None) -> str:
    """Refuse what only a checkpoint of dimlab's can be asked for, and give the data set."""
    if layer != "encoder":
        raise ValueError(
            f"layer must be encoder for a checkpoint of another tool, as {name} is; got {layer!r}."
        )
    if moments:
        raise ValueError(
            f"moments must be left out for a checkpoint of another tool, as {name} is; got "
            "--moments. Encode it, then dimlab decompose FEATURES --save-moments."
        )
    if data is None:
        raise ValueError(
            f"data must name what {name} shall encode, as only dimlab's own checkpoints know it; "
            "got nothing. Pass --data."
        )
    return data


def _keep(
    encoded: Representation | Moments, out: Path, split: str, loading: Loading, source: Path
) -> None:
    """Save what was encoded, and where it is from; no old record stays beside new features."""
    from dimlab.report.provenance import RECORD
    from dimlab.representation import Representation

    ending = "" if isinstance(encoded, Representation) else "-moments"
    path = out / f"{split}{ending}.safetensors"
    path.with_name(f"{path.stem}{RECORD}").unlink(missing_ok=True)
    print(encoded.save(path))
    keep_record(recording(loading, [source], {split: encoded}, split=split)(), path)


@app.command()
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="A checkpoint, or one a seed; or test features."),
    ],
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    readers: Annotated[
        str, typer.Option(help="Readers, separated by commas: knn, ridge, logistic.")
    ] = "knn,ridge",
    k: K = 5,
    max_queries: MaxQueries = None,
    max_train: MaxTrain = None,
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
    """Compare readers of raw pixels, the untrained and the trained encoder, masked and unmasked.

    Of features, and of other tools' encoders with --data, those alone are read. View retrieval is
    the share of test images whose second augmented view lies nearest to their own first view among
    all. Example: dimlab evaluate runs/a/checkpoint.pt runs/b/checkpoint.pt
    """
    loading = Loading(
        data, data_dir, False, None, train_features, device, seed, quiet, array, labels
    )
    settings: dict[str, Any] = {"readers": readers.split(","), "k": k, "seed": seed}
    settings |= {"device": device}
    others = [source for source in sources if not is_own(source)]
    result: Any
    splits: dict[str, Any] = {}
    if others:
        if len(sources) > 1:
            raise ValueError(
                "files must be checkpoints of dimlab train where there are several; got "
                f"{others[0].name} among them. Evaluate it alone."
            )
        result, splits = _read_features(loading, sources[0], (max_queries, max_train), settings)
    else:
        result = _read_checkpoints(loading, sources, (max_queries, max_train), settings)
    with presented(
        result,
        "evaluate",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, sources, splits),
    ) as for_people:
        if for_people:
            numbers = ("accuracy", "ci_low", "ci_high", "lowest", "highest")
            means = dict.fromkeys(numbers, ".4f")
            if others:
                print_table(result.to_frame(), title="Accuracy", formats=means)
            else:
                print_table(result.over_seeds(), title="Accuracy, mean over seeds", formats=means)


def _read_features(
    loading: Loading,
    source: Path,
    at_most: tuple[int | None, int | None],
    settings: dict[str, Any],
) -> tuple[Evaluation, dict[str, Representation]]:
    """Evaluate what a file holds or another tool's encoder makes, and say what was read."""
    from dimlab.probes.evaluate import evaluate as evaluate_features

    train, test = loading.pair(source, at_most[0], max_train=at_most[1], views=2)
    with progress("evaluating", quiet=loading.quiet) as advance:
        result = evaluate_features(train, test, mask=mask_of(test), progress=advance, **settings)
    return result, {"train": train, "test": test}


def _read_checkpoints(
    loading: Loading,
    sources: list[Path],
    at_most: tuple[int | None, int | None],
    settings: dict[str, Any],
) -> BaselineComparison:
    """Evaluate runs beside raw pixels and fresh weights."""
    from dimlab.baselines import evaluate_baselines

    for name, count in zip(("max-queries", "max-train"), at_most, strict=True):
        check_drawn(name, count)
    if loading.train is not None:
        raise ValueError(f"train must be left out for a checkpoint; got {loading.train}.")
    checkpoints = [read_checkpoint(source) for source in sources]
    images = [loading.images(checkpoints[0], split) for split in ("test", "train")]
    test_images, train_images = (
        each if count is None or count >= len(each)
        else each.take(drawn(len(each), count, each.labels, seed=loading.seed))
        for each, count in zip(images, at_most, strict=True)
    )  # fmt: skip
    with progress("evaluating", quiet=loading.quiet) as advance:
        return evaluate_baselines(
            checkpoints, train_images, test_images, progress=advance, **settings
        )


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the report.", callback=as_folder)
    ] = Path("demo"),
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


_BOOLEANS = {"true": True, "false": False}


def _preset(name: str) -> TrainConfig:
    from dimlab.training.config import TrainConfig

    presets = {
        "small": TrainConfig.small,
        "medium": TrainConfig.medium,
        "official": TrainConfig.official,
    }
    if name not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}; got {name!r}.")
    return presets[name]()


def _changed(start: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    return type(start).from_dict(start.to_dict() | values)


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
        raise ValueError("config must be left out before Python 3.11, which reads TOML; use flags.")
    import tomllib

    with reading():
        return tomllib.loads(path.read_text(encoding="utf-8"))


def _run_folder(out: Path | None, name: str, overwrite: bool) -> Path:
    from dimlab.training.loop import check_free

    folder = out or Path("runs") / name
    check_free(folder)  # first: whoever is told of --overwrite would use it
    if (folder / "checkpoint.pt").exists() and not overwrite:
        raise ValueError(
            f"out must be a folder without a checkpoint.pt; got {folder}. "
            "Pass --overwrite or another --out."
        )
    return folder
