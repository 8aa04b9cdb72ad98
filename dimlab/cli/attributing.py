"""Commands that ask what dimensions carry, where, and whether the mask knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
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
    K,
    LabelsOf,
    MaxQueries,
    MaxTrain,
    Out,
    Penalty,
    Probed,
    Quiet,
    Reader,
    Seed,
    Source,
    Split,
    Temperature,
    TrainFeatures,
    cautions,
    numbers_in,
)
from dimlab.cli.recording import recording
from dimlab.sources import (
    Loading,
    check_drawn,
    is_own,
    mask_of,
    read_checkpoint,
    read_trace,
    reading,
    sampled,
    sampled_train,
)
from dimlab.terminal import (
    presented,
    print_rows,
    print_sentences,
    print_table,
    progress,
    with_bounds,
)
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.factor_table import FactorTable
    from dimlab.representation import Representation

Table = Annotated[
    Path | None,
    typer.Option(
        "--factors", help="CSV or parquet of more factors, with a column row or file (and split)."
    ),
]
Continuous = Annotated[
    str | None,
    typer.Option(help="Factors of whole numbers that are continuous, separated by commas."),
]
Period = Annotated[
    list[str] | None,
    typer.Option("--period", help="Period of a factor that wraps, as angle=360; repeatable."),
]
InDistribution = Annotated[
    Path | None,
    typer.Option(
        "--in-distribution",
        help="Held-out features like train; a checkpoint's validation split by default.",
    ),
]
Directions = Annotated[
    str, typer.Option(help="Basis of the directions to remove: pca, whiten, varimax or ica.")
]


@app.command()
def attribute(
    source: Probed,
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    in_distribution: InDistribution = None,
    views: Annotated[
        int,
        typer.Option("--views", help="Attribute so many augmented views of every test image."),
    ] = 0,
    table: Table = None,
    continuous: Continuous = None,
    period: Period = None,
    only: Annotated[
        list[str] | None, typer.Option("--factor", help="Factors to look at; repeatable.")
    ] = None,
    permutations: Annotated[int, typer.Option(help="Permutations within classes.")] = 1000,
    erase: Annotated[
        str, typer.Option(help="Factor to take out: leading, none, or a name.")
    ] = "leading",
    reader: Annotated[
        str, typer.Option(help="Reader for ablation importance: ridge, knn, logistic or none.")
    ] = "ridge",
    basis: BasisName = None,
    max_queries: MaxQueries = None,
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
    """Say what each dimension carries beside the label, how sure that is, and what erasing it does.

    With --views the augmentation's parameters are factors too. Example:
    dimlab attribute checkpoint.pt --views 2 --factors scanners.csv
    """
    from dimlab.probes.ablate import ablate
    from dimlab.probes.attribute import LEADING
    from dimlab.probes.attribute import attribute as attribute_dimensions
    from dimlab.probes.erase import erase as erase_factor

    loading = Loading(
        data, data_dir, False, None, train_features, device, seed, quiet, array, labels
    )
    asked = _Asked.of(table, continuous, period)
    train, test = loading.pair(source, views=views, joined=asked.joined)
    if erase not in (LEADING, "none"):  # before anything long
        for name, each in (("train", train), ("test", test)):
            if erase not in each.factors:
                raise ValueError(f"erase must name a factor of {name}; got {erase!r}.")
    test = sampled(test, max_queries, seed=seed)  # rows of a table are those of all of test
    held_out = _held_out(loading, source, in_distribution, asked)
    turned = replace(loading, basis=basis)
    bank, queries = turned.in_basis(train, [train, test])
    ablation = None
    if reader != "none":
        with cautions("attribute"), progress("ablating", quiet=quiet) as advance:
            ablation = ablate(
                bank, queries, reader=reader, seed=seed,
                device=device, progress=advance,
            )  # fmt: skip
    trace = None
    if basis is None and is_own(source):
        trace = read_checkpoint(source).trace
    with progress("permuting", quiet=quiet) as advance:
        result = attribute_dimensions(
            bank, queries.per_view() if views else queries, factors=only, erased=None,
            n_permutations=permutations, ablation=ablation, trace=trace, seed=seed,
            progress=advance,
        )  # fmt: skip
    factor = result.leading_factor if erase == LEADING else None if erase == "none" else erase
    if factor is not None and erase == LEADING and factor not in train.factors:
        say(f"dimlab attribute: train has no {factor}: nothing is erased.")
        factor = None
    if factor is not None:
        with progress(f"erasing {factor}", quiet=quiet) as advance:
            erasure = erase_factor(
                train, test, factor=factor,
                in_distribution=held_out, seed=seed, progress=advance,
            )  # fmt: skip
        result = replace(result, erasure=erasure)
    with presented(
        result,
        "attribute",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        shown=["factors", "erasure"],
        record=recording(
            loading, [source], {"train": train, "test": test}, beside=[table, in_distribution]
        ),
    ) as for_people:
        if for_people:
            _print_attribution(result)
            if result.erasure is not None:
                _print_erasure(result.erasure)
                print_sentences(result.erasure.summary()["in_words"])


@app.command()
def erase(
    source: Probed,
    factor: Annotated[str, typer.Option(help="Factor to take out.")],
    train_features: TrainFeatures = None,
    array: ArrayName = None,
    labels: LabelsOf = None,
    in_distribution: InDistribution = None,
    table: Table = None,
    continuous: Continuous = None,
    period: Period = None,
    directions: Directions = "pca",
    remove: Annotated[
        int | None,
        typer.Option(help="Dimensions, and directions, to remove; by default those that carry it."),
    ] = None,
    reader: Reader = "ridge",
    k: K = 5,
    temperature: Temperature = 1.0,
    penalty: Penalty = 1e-3,
    random: Annotated[int, typer.Option(help="Draws of as many random ones.")] = 20,
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
    """Take a factor out by dimensions, by directions and by LEACE; measure factor and task.

    Example: dimlab erase checkpoint.pt --factor hue --directions varimax
    """
    from dimlab.probes._factors import notes_of
    from dimlab.probes.erase import erase as erase_factor

    loading = Loading(
        data, data_dir, False, None, train_features, device, seed, quiet, array, labels
    )
    asked = _Asked.of(table, continuous, period)
    train, test = loading.pair(source, joined=asked.joined)
    test = sampled(test, max_queries, seed=seed)
    train, test = sampled_train(train, test, max_train, seed=seed)
    held_out = _held_out(loading, source, in_distribution, asked)
    note = notes_of(test).get(factor)
    if note is not None:
        say(f"dimlab erase: caution: {factor} is {note}")
    with progress(f"erasing {factor}", quiet=quiet) as advance:
        result = erase_factor(
            train, test, factor=factor, in_distribution=held_out, n_removed=remove,
            basis=directions, reader=reader, k=k, temperature=temperature, penalty=penalty,
            n_random=random, seed=seed, device=device, progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "erase",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        shown=["splits", "in_words"],
        record=recording(
            loading, [source], {"train": train, "test": test}, beside=[table, in_distribution]
        ),
    ) as for_people:
        if for_people:
            _print_erasure(result)
            print_sentences(result.summary()["in_words"])


@app.command()
def locate(
    source: Source,
    dimensions: Annotated[
        str | None,
        typer.Option(help="Dimensions, separated by commas; by default the six that vary most."),
    ] = None,
    images: Annotated[int, typer.Option(help="Images of largest activation.")] = 6,
    patch: Annotated[int | None, typer.Option(help="Side of the covering square, pixels.")] = None,
    stride: Annotated[int | None, typer.Option(help="Step between squares, pixels.")] = None,
    fill: Annotated[str, typer.Option(help="What covers: mean or zero.")] = "mean",
    split: Split = "test",
    max_queries: Annotated[
        int | None, typer.Option(help="Images to look among, the first ones; all by default.")
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    figure_format: Format = "svg",
    as_json: AsJson = False,
    fail_if: FailIf = None,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Show which images drive a dimension, and where in them: occlusion and input gradient.

    Example: dimlab locate checkpoint.pt --dimensions 3,17 --out located
    """
    from dimlab.encode import encode
    from dimlab.locate import locate as locate_dimensions

    checkpoint = read_checkpoint(source)
    loading = Loading(data, data_dir, device=device)
    shown = loading.images(checkpoint, split)
    check_drawn("max-queries", max_queries)
    if max_queries is not None:
        shown = shown.take(range(min(max_queries, len(shown))))
    if dimensions is None:
        spread = encode(checkpoint, shown, device=device).features.std(axis=0)
        chosen = np.argsort(-spread, kind="stable")[:6].tolist()
    else:
        chosen = _whole("dimensions", dimensions)
    with progress("locating", quiet=quiet) as advance:
        result = locate_dimensions(
            checkpoint, shown, chosen, n_images=images, patch=patch, stride=stride, fill=fill,
            device=device, progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "locate",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        record=recording(loading, [source]),
    ) as for_people:
        if for_people:
            print_rows(result, "Images of largest activation", count=3 * len(chosen))


@app.command()
def follow(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="A checkpoint (its trace), several of one run, or a .npz of steps and weights.",
        ),
    ],
    key: Annotated[
        str | None, typer.Option(help="Where the mask stands in torch files of other programs.")
    ] = None,
    sigmoid: Annotated[bool, typer.Option("--sigmoid", help="It holds logits.")] = False,
    links: Annotated[
        bool,
        typer.Option(
            "--links/--no-links",
            help="Link the final weights to ridge importance, redundancy and nuisance.",
        ),
    ] = True,
    tolerance: Annotated[
        float, typer.Option(help="Share of the largest deviation within which a weight settled.")
    ] = 0.1,
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
    """Follow the mask while it learned, and link where it ended to what dimensions do.

    The links need checkpoints of dimlab and their data; they are of the last step.
    Example: dimlab follow checkpoint.pt --out followed
    """
    from dimlab.probes.follow import follow as follow_mask

    trace = read_trace(sources, key=key, sigmoid=sigmoid)
    linked: dict[str, Any] = {}
    loading = Loading(data, data_dir, device=device, seed=seed, quiet=quiet)
    if links and key is None and sources[-1].suffix != ".npz":
        last = max(sources, key=lambda path: read_checkpoint(path).step)
        linked = _linked(loading, last)
    result = follow_mask(trace, **linked, tolerance=tolerance, seed=seed)
    with presented(
        result,
        "follow",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        shown=["links", "verdicts"],
        record=recording(loading, sources),
    ) as for_people:
        if for_people:
            frame = result.to_frame().iloc[result.movers[:12]]
            short = {"first_weight": "first", "last_weight": "last", "settled_step": "settled"}
            short |= {"final_rank": "rank", "nuisance_score": "nuisance", "dimension": "dim"}
            print_table(
                frame.rename(columns=short), title="Largest movers",
                formats=dict.fromkeys(frame.rename(columns=short).columns[1:], ".3g"),
            )  # fmt: skip
            _print_links(result.tables()["links"])
            print_sentences(result.summary()["verdicts"])


def _print_links(rows: Any) -> None:
    if not len(rows):
        return
    rows = rows.assign(
        correlation=with_bounds(rows, "correlation", "ci_low", "ci_high", "+.2f"),
        p=["" if np.isnan(p) else f"{p:.2g}" for p in rows["p_value"]],
        claim=rows["expected_sign"].map({1: "positive", -1: "negative"}),
        verdict=rows["verdict"].where(rows["mask"] == "learned", ""),
    )
    names = ["link", "mask", "correlation", "p", "claim", "verdict"]
    print_table(rows[names], title="\nFinal weights and what dimensions do (Spearman)")


@app.command("bound")
def bound_risk(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A checkpoint, or test features with two views."),
    ],
    negatives: Annotated[
        str, typer.Option(help="Numbers of negatives to sweep, separated by commas.")
    ] = "16,64,256,1024,4096",
    temperature: Annotated[float, typer.Option(help="Inner products are divided by it.")] = 1.0,
    bootstrap: Annotated[int, typer.Option(help="Draws for the intervals.")] = 200,
    split: Split = "test",
    max_queries: MaxQueries = None,
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
    """Measure the terms of a risk bound, masked and unmasked: one proved, one inferred from paper.

    Whether the inferred form held is reported, never forced. Example: dimlab bound checkpoint.pt
    """
    from dimlab.probes.bound_risk import bound_risk as measure_bound

    loading = Loading(data, data_dir, device=device, seed=seed, quiet=quiet)
    loading.check_data([source])
    views = sampled(loading.features(source, split, views=2), max_queries, seed=seed)
    with progress("bounding", quiet=quiet) as advance:
        result = measure_bound(
            views, mask=mask_of(views), n_negatives=_whole("negatives", negatives),
            temperature=temperature, n_bootstrap=bootstrap, seed=seed, device=device,
            progress=advance,
        )  # fmt: skip
    with presented(
        result,
        "bound",
        out,
        as_json=as_json,
        fail_if=fail_if,
        figure_format=figure_format,
        shown=["terms", "risk", "held", "verdict"],
        record=recording(loading, [source], {split: views}),
    ) as for_people:
        if for_people:
            _print_bound(result)
            print_sentences(result.summary()["verdict"])


def _print_bound(result: Any) -> None:
    terms = result.tables()["terms"]
    shown: Any = None
    for mask in [name for name in ("none", "learned") if name in result.masks]:
        own = terms[(terms["mask"] == mask) & terms["n_negatives"].isna()]
        own = own.set_index("term")
        value = with_bounds(own, "value", "ci_low", "ci_high", ".3g")
        shown = own.assign(none=value)[["none"]] if shown is None else shown.assign(learned=value)
        if mask == "learned":
            change = with_bounds(own, "difference", "difference_low", "difference_high", "+.3g")
            shown = shown.assign(difference=change)
    print_table(shown.reset_index(), title="Terms by mask, with 95 % intervals")
    frame = result.to_frame()
    names = ["mask", "n_negatives", "lower", "middle", "upper", "held"]
    print_table(
        frame[names].assign(held=np.where(frame["held"], "yes", "no")),
        title="\nInferred form: lower <= middle <= upper, nats",
        formats=dict.fromkeys(("lower", "middle", "upper"), ".3f"),
    )


def _linked(loading: Loading, source: Path) -> dict[str, Any]:
    """Ridge importance, redundancy and nuisance of a checkpoint's dimensions."""
    from dimlab.probes.ablate import ablate
    from dimlab.probes.attribute import attribute as attribute_dimensions
    from dimlab.probes.find_redundancy import find_redundancy

    train, test = loading.pair(source, views=2)
    with cautions("follow"), progress("linking", quiet=loading.quiet) as advance:
        return {
            "ablation": ablate(train, test, reader="ridge", seed=loading.seed),
            "redundancy": find_redundancy(test, seed=loading.seed),
            "attribution": attribute_dimensions(
                train, test.per_view(), n_permutations=1, erased=None, seed=loading.seed,
                progress=advance,
            ),
        }  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What the user's table is to add, read and checked once; no table: nothing."""

    table: FactorTable | None
    continuous: list[str]
    periods: dict[str, float]

    @classmethod
    def of(cls, path: Path | None, continuous: str | None, period: list[str] | None) -> _Asked:
        from dimlab.factor_table import FactorTable

        names = continuous.split(",") if continuous else []
        periods = {}
        for each in period or []:
            name, equals, text = each.partition("=")
            if not equals:
                raise ValueError(f"period must be COLUMN=NUMBER; got {each!r}.")
            periods[name] = numbers_in("period", text)[0]
            if not 0 < periods[name] < np.inf:
                raise ValueError(f"period must be a number > 0; got {text}.")
        table = None
        if path is not None:
            with reading():
                table = FactorTable.read(path)
        return cls(table, names, periods)

    def joined(self, role: str, representation: Representation) -> Representation:
        """Join the factors, where the table is of this split; test, or a whole, must have them.

        What the user calls continuous may stand in the table or among the factors there are.
        """
        from dimlab.factor_table import as_continuous

        split = str(representation.meta.get("split") or ("" if role == "whole" else role))
        needed = role in ("test", "whole")
        has_table = self.table is not None and (needed or self.table.covers(representation, split))
        in_table = self.table.columns if self.table is not None and has_table else []
        asked = dict.fromkeys([*self.continuous, *self.periods])
        mine = [name for name in asked if name not in in_table]
        known = [*in_table, *representation.factors]
        for name in mine if needed else ():
            if name not in known:
                listed = ", ".join(map(repr, known)) or "none"
                raise ValueError(f"continuous must name factors, one of {listed}; got {name!r}.")
        if self.table is not None and has_table:
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


def _held_out(
    loading: Loading, source: Path, in_distribution: Path | None, asked: _Asked
) -> Representation | None:
    """Held-out samples like train: named, or a checkpoint's validation split."""
    if in_distribution is None and not is_own(source):
        return None
    held_out = loading.features(in_distribution or source, "validation")
    return asked.joined("validation", held_out)


def _print_attribution(result: Any) -> None:
    frame = result.to_frame().sort_values("nuisance_score", ascending=False, kind="stable")
    short = {"dimension": "dim", "leading_factor": "carries", "q_value": "q"}
    short |= {"partial_effect": "alone", "partial_q_value": "q alone"}
    short |= {"label_effect": "label", "view_invariance": "views"}
    short |= {"gradient_share": "gradient", "mask_weight": "mask"}
    formats = dict.fromkeys(("effect", "alone", "label"), ".3g")
    formats |= dict.fromkeys(("views", "mask"), ".3f")
    formats |= {"q": ".2g", "q alone": ".2g", "gradient": ".4f", "importance": "+.4f"}
    title = "Most nuisance first" + (f" ({result.sample})" if result.sample else "")
    left_out = ["nuisance_score", "p_value", "partial_p_value"]
    shown = frame.head(12).drop(columns=left_out).rename(columns=short)
    print_table(shown, title=title, formats=formats)
    print_sentences(["alone: the effect given the label and all other factors."])
    factors = result.summary()["factors"]
    rows = [
        {
            "factor": name,
            "kind": each["kind"],
            "identifiable": "yes" if each["separate"] else "no",
            "flagged on": each["n_flagged"],
            "through others on": sum(each["n_through"].values()),
            "largest effect": _or_empty(each["largest_effect"]),
            "largest nats": _or_empty(each["largest_mutual_information"]),
        }
        for name, each in factors.items()
    ]
    print_table(_frame(rows), title=f"\nFactors, of {len(result)} dimensions")
    sentences = [f"{name} is {note}" for name, note in result.notes.items()]
    sentences += [f"{name}: {each['reason']}" for name, each in factors.items() if each["reason"]]
    sentences += [f"Caution: {result.caution}"] if result.caution else []
    print_sentences(sentences)


def _print_erasure(result: Any) -> None:
    frame = result.to_frame()
    lost = with_bounds(frame, "factor_lost", "factor_lost_low", "factor_lost_high", ".2f")
    change = with_bounds(
        frame, "accuracy_change", "accuracy_change_low", "accuracy_change_high", "+.3f"
    )
    kept = f"R2 of {result.factor}"
    shown = frame[["split", "way", "n_removed"]].rename(
        columns={"way": "without", "n_removed": "n"}
    )
    shown = shown.assign(**{kept: frame["factor_r_squared"], "lost": lost})
    shown = shown.assign(accuracy=frame["accuracy"], change=change).replace(
        "in distribution", "in distr."
    )
    title = f"\nTaking {result.factor} out: {result.reader} reader, {result.basis} directions"
    print_table(shown, title=title, formats={kept: ".3f", "accuracy": ".4f"})


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)


def _or_empty(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _whole(name: str, text: str) -> list[int]:
    numbers = numbers_in(name, text)
    for number in numbers:
        if not np.isfinite(number) or number != int(number):
            raise ValueError(f"{name} must be whole numbers separated by commas; got {text!r}.")
    return [int(number) for number in numbers]
