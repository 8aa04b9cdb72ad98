"""What the commands of dimlab's own probes add to the signatures of their functions."""

from __future__ import annotations

import inspect
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.cli import showing
from dimlab.cli.derive import INPUT, Option
from dimlab.cli.factors import asked_in
from dimlab.cli.inputs import mask_of
from dimlab.cli.options import DATA, FILES, known_reader
from dimlab.cli.probing import (
    FEATURES,
    SAMPLES,
    TABLE,
    Call,
    Measured,
    Special,
    cautions,
    measure_parts,
)
from dimlab.cli.samples import drawn, sampled
from dimlab.cli.traces import read_trace
from dimlab.refusals import Refusal
from dimlab.targets import UNLABELLED, VIEW_RETRIEVAL
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.representation import Representation


def _correlate(call: Call) -> Measured:
    within = call.values["within"]
    return measure_parts(call, views=0 if within else None, pairs=not within)


def _redundancy(call: Call) -> Measured:
    return measure_parts(call, stacked=call.values["views"] > 0)


def _bound(call: Call) -> Measured:
    values = call.values
    call.inputs.check_data(call.sources, values["split"])
    views = call.inputs.representation(call.sources[0], values["split"], views=2)
    views = sampled(views, values["max_queries"], seed=call.inputs.seed)
    return call.probe(views, mask=mask_of(views)), {values["split"]: views}


def _evaluate(call: Call) -> Measured:
    """Evaluate features, or runs beside raw pixels and untrained weights."""
    sources = call.sources
    others = [source for source in sources if not call.inputs.is_own(source)]
    if not others:
        return _evaluate_runs(call)
    if len(sources) > 1:
        raise Refusal(
            "files must be checkpoints of dimlab train where there are several; got "
            f"{others[0].name} among them. Evaluate it alone."
        )
    train, test = call.pair(views=2)
    return call.probe(train, test, mask=mask_of(test)), {"train": train, "test": test}


def _evaluate_runs(call: Call) -> Measured:
    """Evaluate runs of dimlab beside raw pixels and untrained weights."""
    from dimlab.baselines import evaluate_baselines

    known = inspect.signature(evaluate_baselines).parameters
    usual = inspect.signature(call.function).parameters
    given = {"train": call.inputs.train, "factors": call.values["table"]}
    given |= {
        name: each for name, each in call.arguments.items()
        if name not in known and each != usual[name].default
    }  # fmt: skip
    for name, value in given.items():
        if value is not None:
            raise Refusal(f"{name} must be left out for a checkpoint; got {value}.")
    checkpoints = [call.inputs.checkpoint(source) for source in call.sources]
    images = {}
    for split, count in (("test", "max_queries"), ("train", "max_train")):
        images[split] = each = call.inputs.images(checkpoints[0], split)
        n_wanted = call.values[count]
        if n_wanted is not None and n_wanted < len(each):
            rows = drawn(len(each), n_wanted, each.labels, seed=call.inputs.seed)
            images[split] = each.take(rows)
    chosen = {name: each for name, each in call.arguments.items() if name in known}
    with call.at_work("evaluating") as advance:
        result = evaluate_baselines(
            checkpoints, images["train"], images["test"], progress=advance, **chosen
        )
    return result, {}


def _held_out(call: Call) -> Representation | None:
    """Return held-out samples like train: named, or a checkpoint's validation split."""
    named = call.values["in_distribution"]
    if named is None and not call.inputs.is_own(call.sources[0]):
        return None
    held_out = call.inputs.representation(named or call.sources[0], "validation")
    return asked_in(call.inputs, call.values).joined("validation", held_out)


def _erase(call: Call) -> Measured:
    from dimlab.probes._factors import notes_of

    factor = call.values["factor"]
    train, test = call.pair()
    held_out = _held_out(call)
    note = notes_of(test).get(factor)
    if note is not None:
        say(f"dimlab erase: caution: {factor} is {note}")
    result = call.probe(train, test, in_distribution=held_out)
    return result, {"train": train, "test": test}


def _attribute(call: Call) -> Measured:
    """Attribute dimensions, in a basis if one is asked for; the factor is erased on the axes."""
    from dimlab.probes.ablate import ablate
    from dimlab.probes.erase import erase

    values, seed = call.values, call.inputs.seed
    source, chosen = call.sources[0], values["erase"]
    how: dict[str, Any] = {"seed": seed, "target_kind": call.arguments["target_kind"]}
    on_axes = replace(call, inputs=replace(call.inputs, basis=None))
    train, test = on_axes.pair(views=values["views"])
    if chosen not in ("leading", "none"):  # before anything long
        for name, each in (("train", train), ("test", test)):
            if chosen not in each.factors:
                raise Refusal(f"erase must name a factor of {name}; got {chosen!r}.")
    held_out = _held_out(on_axes)
    bank, queries = call.inputs.in_basis(train, [train, test])
    ablation = trace = None
    if values["reader"] != "none":
        with call.at_work("ablating") as advance:
            ablation = ablate(
                bank, queries, reader=values["reader"], device=call.inputs.device,
                progress=advance, **how,
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
                train, test, factor=factor, in_distribution=held_out, progress=advance, **how
            )
        result = replace(result, erasure=erasure)
    return result, {"train": train, "test": test}


def _follow(call: Call) -> Measured:
    """Follow a mask, and link it to what dimensions do if its last checkpoint is dimlab's."""
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


def _retrieval(call: Call) -> Measured:
    """Join relevance judgements to a corpus and queries, and measure those that were drawn."""
    from dimlab.io.relevance import read_relevance, rows_of_ids

    values, path, seed = call.values, call.values["relevance"], call.inputs.seed
    if len(call.sources) != 2:
        raise Refusal(
            f"files must be features of a corpus and of queries; got {len(call.sources)}."
        )
    judged = call.inputs.table(path, read_relevance)
    corpus, queries = (call.inputs.representation(each) for each in call.sources)
    with cautions(call.name):
        relevance = rows_of_ids(judged, corpus, queries, path)
    asked = np.unique(relevance[relevance[:, 2] > 0, 0])
    if values["max_queries"] is not None and values["max_queries"] < len(asked):
        kept = asked[drawn(len(asked), values["max_queries"], seed=seed)]
        relevance = relevance[np.isin(relevance[:, 0], kept)]
        note = f"{len(kept)} of {len(asked)} queries, drawn with seed {seed}"
        queries = queries._trusted(meta={**queries.meta, "sample": note})
    corpus, queries = call.inputs.in_basis(corpus, [corpus, queries])
    return call.probe(corpus, queries, relevance), {"corpus": corpus, "queries": queries}


def _prune(call: Call) -> Measured:
    """Choose what is kept, and write the smaller features of both splits beside the result."""
    values = call.values
    train, test = call.inputs.pair(
        call.sources[0], values["max_queries"], max_train=values["max_train"], labelled=False
    )
    result = call.probe(train, test)
    if values["out"] is not None:
        values["out"].mkdir(parents=True, exist_ok=True)
        for name, split in (("train", train), ("test", test)):
            written = result.apply(split).save(values["out"] / f"pruned-{name}.safetensors")
            if not call.inputs.quiet:
                say(f"wrote {written}")
    return result, {"train": train, "test": test}


def _weights(result: Any) -> bytes:
    from safetensors.numpy import save

    return save({"weight": result.matrix.astype(np.float32)})


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _ablate(call: Call) -> Measured:
    """Ablate test; scores that need no labels take files without any."""
    score = call.values["score"]
    train, test = call.pair(
        views=2 if score == VIEW_RETRIEVAL else 0, labelled=score not in UNLABELLED
    )
    return call.probe(train, test), {"train": train, "test": test}


SPECIAL = {
    "ablate": Special(
        changes={"refit": {"flag": "--refit/--frozen"}}, working="ablating", measure=_ablate,
        show=showing.extremes,
    ),
    "random-masks": Special(
        working="masking", show=showing.rows(
            "Random masks, one row for each share removed",
            names={"drop": "drop", "best_gain": "gain", "ci_low": "low", "ci_high": "high",
                   "q_value": "q", "mean_score": "mean score"},
        ),
    ),
    "cumulate": Special(
        changes={"order": {"default": "worst-first"}, "n_random": {"flag": "--random-orders"}},
        working="removing", show=showing.curve,
    ),
    "confirm": Special(
        changes={"refit": {"flag": "--refit/--frozen"}}, working="confirming",
        show=showing.rows(
            "Smallest q-values first", by=["q_aggregated", "importance"],
            names={"dimensions": "dimensions", "importance": "importance", "q_aggregated": "q",
                   "confirmed": "confirmed", "selected_share": "selected"},
        ),
    ),
    "ablate-retrieval": Special(
        inputs="array basis max_queries",
        files="Features of the corpus, then features of the queries.",
        changes={
            "score": {"help": "What is scored: ndcg@k, recall@k or mrr@k, with any k."},
            "groups": {"help": "JSON file of lists of dimensions (or of one id each), or "
                       "'redundant': those that dimlab redundancy finds on the corpus."},
            "truncate": {"help": "Numbers of dimensions to keep on the curves of truncation; "
                         "powers of two by default."},
            "max_queries": {"help": "Queries to use, drawn at random; all by default."},
            "clusters": {"help": "Factor that says which queries belong together."},
            "n_random": {"flag": "--random-orders"},
        },
        more=(
            Option("relevance", "--relevance", Path, "Relevance judgements: TREC qrels, or .tsv, "
                   ".csv or .jsonl of query, document and grade.", ..., INPUT),
        ),
        working="searching", measure=_retrieval, show=showing.retrieval, shown=("enough",),
    ),
    "prune": Special(
        inputs=f"{SAMPLES}", working="choosing", measure=_prune, show=showing.first_rows,
        changes={
            "keep": {"help": "Dimensions to keep, separated by commas."},
            "directions": {"flag": "--keep-directions"},
            "reader": {"default": "ridge", "help": "Probe classifier that measures the loss: knn, "
                       "ridge or logistic."},
        },
        beside=lambda result: {"-layer.safetensors": _weights(result)},
    ),
    "evaluate": Special(
        changes={"readers": {"default": "knn,ridge"}}, files=str(FILES.help),
        inputs=f"{SAMPLES} {TABLE}", working="evaluating", measure=_evaluate,
        show=showing.evaluation, shown=("accuracy",),
    ),
    "correlate": Special(
        changes={"views": {"default": 2}}, working="drawing the null", measure=_correlate,
        show=showing.correlation, shown=("caution",),
        beside=lambda result: {".npy": _npy(result.matrix)},
    ),
    "decompose": Special(
        working="decomposing", show=showing.spectrum, shown=("caution",)
    ),
    "redundancy": Special(
        changes={"reader": {"help": "Keep the accuracy of this reader instead of variance: knn, "
                            "ridge or logistic. It needs labels."}},
        working="halving", measure=_redundancy, show=showing.redundancy, shown=("caution",),
    ),
    "profile": Special(
        changes={
            "n_rows": {"help": "Rows that hubness is measured among, drawn at random; 0: none."},
            "k": {"help": "Neighbours that hubness counts."},
        },
        working="searching", show=showing.profile, shown=("largest_shares",),
    ),
    "compare": Special(
        working="comparing", show=showing.comparison, shown=("representations",),
    ),
    "attribute": Special(
        inputs=f"train array labels on by_order in_distribution views {TABLE} basis "
        f"max_queries {DATA}",
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
    "suspects": Special(working="removing", show=showing.suspects),
    "erase": Special(
        inputs=f"{SAMPLES} in_distribution {TABLE}",
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
        inputs=DATA, measure=_follow,
        files="A checkpoint, several checkpoints of one run, or an .npz of steps and weights.",
        more=(
            Option("key", "--key", str, "Where the mask stands in torch files of other programs."),
            Option("sigmoid", "--sigmoid", bool, "The mask there is kept as logits.", False),
            Option("links", "--links/--no-links", bool, "Link the final weights to ridge "
                   "importance, redundancy and nuisance.", True),
        ),
        working="following", show=showing.evolution, shown=("links", "verdicts"),
    ),
    "bound": Special(
        inputs=f"{FEATURES} split max_queries {DATA}",
        changes={"temperature": {"help": "Inner products are divided by this number."}},
        working="bounding", measure=_bound, show=showing.bound,
        shown=("terms", "risk", "held", "verdict"),
    ),
}  # fmt: skip
