"""Tables that people read first, for the results of each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dimlab.targets import score_in_words
from dimlab.terminal import (
    console,
    intervals,
    print_rows,
    print_sentences,
    print_table,
    with_bounds,
)

_AT_AN_END = 8  # rows of a table that shows the largest and the smallest


def first_rows(result: Any) -> None:
    """Print the table of any result."""
    print_rows(result, type(result).__name__)


def rows(title: str, **order: Any) -> Callable[[Any], None]:
    """Print a result's table under a title."""
    return lambda result: print_rows(result, title, **order)


def extremes(result: Any, count: int = 10) -> None:
    """Print the needed and the harmful groups of an ablation, and the lowest undecided ones."""
    frame = result.to_frame().drop(columns="group")
    rough = frame.pop("log_loss_unreliable") if "log_loss_unreliable" in frame else None
    short = {"p_value": "p", "q_value": "q", "log_loss_importance": "log_loss_lost"}
    frame = frame.rename(columns=short | {"log_loss_p_value": "its_p", "alone_score": "alone"})
    if rough is not None and rough.any():
        frame["rough"] = np.where(rough, "yes", "")
    bounds = ("ci_low", "ci_high", "fcr_low", "fcr_high")
    formats = dict.fromkeys(("importance", *bounds, "log_loss_lost"), "+.4f")
    formats |= {"score": ".4f", "alone": ".4f", "p": ".2g", "q": ".2g", "its_p": ".2g"}
    sample = f" ({result.sample})" if result.sample else ""
    unit = "groups" if "dimension" not in frame else "dimensions"
    unit = unit if unit == "groups" or result.basis == "axes" else f"{result.basis} directions"
    found = frame.drop(columns=list(bounds[:2])) if "fcr_low" in frame else frame
    rest = frame.drop(columns=[name for name in bounds[2:] if name in frame])
    lowest = result.undecided
    all_shown = len(result.needed) > 0 or len(lowest) <= count
    highest = lowest[:0] if all_shown else lowest[::-1]
    said = [
        f"No {unit} {what} at q <= 0.05{sample}."
        for rows, what in ((result.needed, "are needed"), (result.harmful, "are harmful"))
        if len(rows) == 0
    ]
    if "rough" in frame:
        said.append("rough: fewer than 20 rows differ in log-loss, or they are very skewed.")
    for sentence in said:
        console().print(sentence)
    for rows, name, shown in (
        (result.needed, f"most needed {unit}, q <= 0.05", found),
        (result.harmful, f"most harmful {unit}, q <= 0.05", found),
        (lowest, "lowest estimates, undecided", rest),
        (highest, "highest estimates, undecided", rest),
    ):
        if len(rows):
            some = shown.iloc[rows[:count]]
            print_table(some, title=f"\n{len(some)} {name}{sample}", formats=formats)
    console().print()


def curve(result: Any) -> None:
    """Print points of a cumulative ablation."""
    score = score_in_words(result.score).capitalize()
    print_rows(result, f"{score} while dimensions are removed, {result.order_name}")


def retrieval(result: Any) -> None:
    """Print the largest and smallest importances, and what fewer dimensions find."""
    frame = result.to_frame().drop(columns=["group", "fcr_low", "fcr_high", "selected_share"])
    frame["rough"] = np.where(frame.pop("unreliable"), "yes", "")
    short = {"p_value": "p", "q_value": "q", "q_aggregated": "q of harm"}
    frame = frame.iloc[np.argsort(-frame["importance"], kind="stable")].rename(columns=short)
    formats = dict.fromkeys(("importance", "ci_low", "ci_high"), "+.4f")
    formats |= {"score": ".4f", "p": ".2g", "q": ".2g", "q of harm": ".2g"}
    sample = f" ({result.sample})" if result.sample else ""
    shown = {"Most needed first": frame}
    if len(frame) > 2 * _AT_AN_END:
        shown = {"Most needed first": frame[:_AT_AN_END]}
        shown["\nMost harmful first"] = frame[: -_AT_AN_END - 1 : -1]
    for title, some in shown.items():
        print_table(some, title=f"{title}{sample}", formats=formats)
    kept = result.truncation()
    if kept is not None:
        by_order = kept.pivot(index="n_kept", columns="order", values="score")
        by_order = by_order[list(dict.fromkeys(kept["order"]))].reset_index()
        formats = dict.fromkeys(by_order.columns[1:], ".4f")
        print_table(by_order, title=f"\n{result.score} by dimensions kept", formats=formats)
        print_sentences(
            f"{order}: {n_kept} dimensions keep the loss within {result.margin:g} (95 % interval)."
            for order, n_kept in result.enough.items()
        )


def validation(result: Any) -> None:
    """Print what each measure finds of what was planted, and what it claims that is not there."""
    frame = result.to_frame().rename(columns={"reseeding": "reseeded"})
    recall = frame[["recall", "recall_low", "recall_high"]].to_numpy()
    for name, shares in (("found, %", recall), ("false, %", result.false_claims[:, :3])):
        percent = dict(zip(("value", "low", "high"), 100 * shares.T, strict=True))
        frame[name] = with_bounds(frame.assign(**percent), "value", "low", "high", ".0f")
    frame["at most"] = 100 * result.false_claims[:, 3]
    for name, form in (("at most", ".3g"), ("area", ".3f"), ("reseeded", ".3f")):
        frame[name] = ["" if np.isnan(each) else f"{each:{form}}" for each in frame[name]]
    names = ["measure", "found, %", "false, %", "at most", "verdict", "area", "reseeded"]
    print_table(frame[names], title="Measures where the truth was planted")
    said = [
        "found: share of what was planted that is claimed, with its 95 % interval.",
        "false: share of the worlds of noise in which anything is claimed; where something is "
        "promised of single dimensions alone, the share of these. Beside it what it may be.",
        "area: 1 where all that was planted scores highest, 0.5 by chance.",
        "reseeded: how far scores move with the seed, over their standard deviation.",
    ]
    if result.contrast.any():
        name = result.measure[int(result.contrast.argmax())]
        said.append(f"{name}: no claim of dimlab, and known to fail; it stands for contrast.")
    print_sentences(said)


def evaluation(result: Any) -> None:
    """Print accuracies; of several seeds their means."""
    formats = dict.fromkeys(("accuracy", "ci_low", "ci_high", "lowest", "highest"), ".4f")
    if hasattr(result, "over_seeds"):
        print_table(result.over_seeds(), title="Accuracy, mean over seeds", formats=formats)
    else:
        print_table(result.to_frame(), title="Accuracy", formats=formats)


def correlation(result: Any) -> None:
    """Print the strongest correlations."""
    title = f"Strongest {result.kind} correlations"
    print_table(result.top_pairs(10), title=title, formats={"correlation": "+.4f"})
    if result.caution:
        print(result.caution)


def spectrum(result: Any) -> None:
    """Print ranks with their intervals."""
    shown = intervals(result.statistics())[["statistic", "value", "corrected", "doubtful"]]
    print_table(shown, title="Spectrum", formats={"value": ".4g"})
    if result.doubtful:
        print("Doubtful: the interval may cover less than 95 %. " + result.caution.strip())


def redundancy(result: Any) -> None:
    """Print the most redundant dimensions."""
    order = ["dead", "r_squared"]
    names = {"dimension": "dimension", "r_squared": "R2", "variance_inflation_factor": "VIF"}
    names |= {"redundant": "redundant", "dead": "dead", "group": "group"}
    print_rows(result, "Most redundant first", names=names, by=order, ascending=[True, False])
    if np.isfinite(result.variance_inflation_null):
        print(
            "Median variance inflation factor of as many independent dimensions: "
            f"{result.variance_inflation_null:.4g}."
        )


def profile(result: Any) -> None:
    """Print the dimensions of the largest shares of the cosine similarity."""
    short = {"mean_over_deviation": "mean / sd", "hubness_without": "hubness without"}
    frame = intervals(result.to_frame(), share=".3f").rename(columns=short)
    order = np.argsort(-result.share, kind="stable")[:12]
    formats = dict.fromkeys(("mean / sd", "kurtosis", "sparsity", "cosine"), ".3g")
    formats["hubness without"] = ".2f"
    title = "Largest shares of the cosine similarity first"
    sample = f" ({result.sample})" if result.sample else ""
    print_table(frame.iloc[order], title=title + sample, formats=formats)


def suspects(result: Any) -> None:
    """Print the accuracy without each suspect and those before it."""
    if len(result):
        shown = intervals(result.to_frame(), gain="+.4f").rename(columns={"association_q": "q"})
        formats = {"association": ".3f", "q": ".2g", "score": ".4f"}
        print_table(
            shown, title="Accuracy without each direction and those before it", formats=formats
        )


def comparison(result: Any) -> None:
    """Print statistics with their differences, similarities, and how rows were paired."""
    frame = intervals(result.to_frame().dropna(subset=["value"]))
    names = ["representation", "statistic", "value", "corrected", "difference"]
    shown = frame[names].assign(doubtful=frame["difference_doubtful"])
    shown = shown.rename(columns={"representation": "of"})
    title = f"Statistics, and differences to {result.reference}"
    print_table(shown, title=title, formats={"value": ".4g"})
    numbers = dict.fromkeys(("cka", "cka_biased", "procrustes"), ".4f")
    similar = result.similarities()
    of_others = similar["cka"].isna() & similar["procrustes"].isna()
    if not of_others.all():
        print_table(similar[~of_others], title="\nSimilarity", formats=numbers)
    said = [
        f"{row.first} and {row.second} are not of the same samples: no similarity is measured."
        for row in similar[of_others].itertuples()
    ]
    said += [
        f"{name}: rows paired with those of {result.reference} by {how}."
        for name, how in zip(result.names, result.paired_by, strict=True)
        if how
    ]
    print_sentences(said)


def attribution(result: Any) -> None:
    """Print dimensions and factors, what was left out, and the erasure."""
    import pandas as pd

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
    listed = [
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
    print_table(pd.DataFrame(listed), title=f"\nFactors, of {len(result)} dimensions")
    sentences = [f"{name} is {note}" for name, note in result.notes.items()]
    sentences += [f"{name}: {each['reason']}" for name, each in factors.items() if each["reason"]]
    sentences += [f"Caution: {result.caution}"] if result.caution else []
    print_sentences(sentences)
    if result.erasure is not None:
        erasure(result.erasure)


def _or_empty(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def erasure(result: Any) -> None:
    """Print the ways to take a factor out, side by side."""
    kept = f"R2 of {result.factor}"
    score = result.score
    frame = intervals(result.to_frame(), factor_lost=".2f", **{f"{score}_change": "+.3f"})
    short = {"way": "without", "n_removed": "n", "factor_r_squared": kept, "factor_lost": "lost"}
    short |= {f"{score}_change": "change"}
    shown = frame[["split", *short, score]].rename(columns=short)
    title = f"\nTaking {result.factor} out: {result.reader} reader, {result.basis} directions"
    shown = shown.replace("in distribution", "in distr.")
    print_table(shown, title=title, formats={kept: ".3f", score: ".4f"})
    print_sentences(result.summary()["in_words"])


def evolution(result: Any) -> None:
    """Print the weights that moved most, and what the final ones go with."""
    short = {"first_weight": "first", "last_weight": "last", "settled_step": "settled"}
    short |= {"final_rank": "rank", "nuisance_score": "nuisance", "dimension": "dim"}
    frame = result.to_frame().iloc[result.movers[:12]].rename(columns=short)
    print_table(frame, title="Largest movers", formats=dict.fromkeys(frame.columns[1:], ".3g"))
    links = result.tables()["links"]
    if len(links):
        links = links.assign(
            correlation=with_bounds(links, "correlation", "ci_low", "ci_high", "+.2f"),
            p=["" if np.isnan(p) else f"{p:.2g}" for p in links["p_value"]],
            claim=links["expected_sign"].map({1: "positive", -1: "negative"}),
            verdict=links["verdict"].where(links["mask"] == "learned", ""),
        )
        names = ["link", "mask", "correlation", "p", "claim", "verdict"]
        print_table(links[names], title="\nFinal weights and what dimensions do (Spearman)")
    print_sentences(result.summary()["verdicts"])


def bound(result: Any) -> None:
    """Print the terms of the bound by mask, and the inferred form."""
    terms = result.tables()["terms"]
    shown: Any = None
    for mask in [name for name in ("none", "learned") if name in result.masks]:
        own = terms[(terms["mask"] == mask) & terms["n_negatives"].isna()].set_index("term")
        value = with_bounds(own, "value", "ci_low", "ci_high", ".3g")
        shown = own.assign(none=value)[["none"]] if shown is None else shown.assign(learned=value)
        if mask == "learned":
            change = with_bounds(own, "difference", "difference_low", "difference_high", "+.3g")
            shown = shown.assign(difference=change)
    print_table(shown.reset_index(), title="Terms by mask, with 95 % intervals")
    frame = result.to_frame()
    names = ["mask", "n_negatives", "lower", "middle", "upper", "held"]
    print_table(
        frame[names],
        title="\nInferred form: lower <= middle <= upper, nats",
        formats=dict.fromkeys(("lower", "middle", "upper"), ".3f"),
    )
    print_sentences(result.summary()["verdict"])
