"""Figure 1(b) of the paper: accuracy against the width of Barlow Twins' projector."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

import wider_is_not_better as script
from dimlab.figures.runs import plot_projector_widths
from figures.place import Place
from study.search import with_rows
from study.sweep import OutOfTime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Accuracy against projector width (after Figure 1b)"
_COLUMNS = ["width", "seed", "validation", "test"]


def measure(place: Place) -> dict[str, Any]:
    """Take the kept rows of Fashion-MNIST, and those of CIFAR-10 that are finished."""
    kept = json.loads((place.results / "wider_is_not_better.json").read_text(encoding="utf-8"))
    tables = {kept["data"]: [{name: row[name] for name in _COLUMNS} for row in kept["rows"]]}
    left = 0
    try:
        study = with_rows(script.NATURAL, place.results / "natural/rows.jsonl")
        table = script.run(study)
        tables[study.data_name] = table[_COLUMNS].to_dict("records")
    except OutOfTime:
        left = len(script.WIDTHS["natural"]) * len(script.NATURAL.seeds)
    return {"tables": tables, "left": left, "augmentation": kept.get("augmentation", 1)}


def means(rows: list[dict[str, Any]]) -> pd.Series:
    """Return the mean accuracy on test by width."""
    return pd.DataFrame(rows).groupby("width")["test"].mean()


def draw(kept: dict[str, Any], figure: Figure) -> None:
    """Draw a panel a data set."""
    axes = figure.subplots(1, len(kept["tables"]), squeeze=False)[0]
    for ax, (data, rows) in zip(axes, kept["tables"].items(), strict=True):
        table = pd.DataFrame(rows).rename(columns={"test": "accuracy"})
        plot_projector_widths(table, ax=ax)
        ax.set_title(f"{data}, kNN on test", loc="left")


def caption(kept: dict[str, Any]) -> list[str]:
    """Say what is claimed, what is seen, and what would change the conclusion."""
    seen = []
    for data, rows in kept["tables"].items():
        found = means(rows)
        said = ", ".join(f"{width} {mean:.4f}" for width, mean in found.items())
        turn = "grows with the width up to the widest" if found.idxmax() == max(found.index) else (
            f"is largest at width {found.idxmax()}, and {found.max() - found.iloc[-1]:.4f} lower "
            "at the widest"
        )  # fmt: skip
        n_seeds = len({row["seed"] for row in rows})
        seen.append(f"On {data} ({n_seeds} seeds) accuracy {turn}: {said}.")
    left = (
        f" The {kept['left']} runs on CIFAR-10 (widths up to 4,096) are not finished."
        if kept["left"]
        else ""
    )
    return [
        "accuracy on CIFAR-10 depends on the width of Barlow Twins' projector. That it first "
        "rises and then falls is inferred from the text; the values are unknown.",
        " ".join(seen) + left,
        "a width beyond the widest shown at which accuracy falls by more than 0.01, on the same "
        "data and with the learning rate chosen again at that width.",
    ]
