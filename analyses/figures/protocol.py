"""How much of a gain the official protocol makes by itself: the best epoch on test, not the last.

The official code reads kNN on the test split after every epoch and reports the best one. Here the
same runs are read in both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dimlab.figures.house import BLUE, FACTORS, GREY, ORANGE
from dimlab.training.checkpoint import load_checkpoint
from figures.networks import FAMILIES, narrow_runs
from figures.place import NotYet, Place
from study.natural import curve
from study.rows import read_rows
from study.sweep import one_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "The official protocol beside the honest one, on the same runs"
_COLOURS = (BLUE, ORANGE, *FACTORS[1:3], GREY)


def measure(place: Place) -> dict[str, Any]:
    """Read every finished run of 64 dimensions along its training."""
    finished = read_rows(place.results / "natural/rows.jsonl")
    rows: list[dict[str, Any]] = []
    left = 0
    for family in FAMILIES:
        for run in narrow_runs(family):
            known = finished.get(run.key, {}).get("measures", {}).get("natural.curve")
            try:
                points = known or _read(place, run)
            except NotYet:
                left += 1
                continue
            kept = [{name: each[name] for name in ("at", "validation", "test")} for each in points]
            rows.append({"family": family, "seed": run.config.seed, "points": kept})
    if not rows:
        raise NotYet("needs one of the runs of 64 dimensions; python -m study.natural makes them.")
    return {"rows": rows, "left": left}


def _read(place: Place, run: Any) -> list[dict[str, Any]]:
    place.checkpoint(run)
    paths = sorted((place.runs / run.key).glob("checkpoint-*.pt"))
    if not paths:
        raise NotYet(f"needs the checkpoints of {run.key} along its training.")
    with one_thread("cpu"):
        return curve([load_checkpoint(path) for path in paths], place.images, "cpu")


def readings(row: dict[str, Any]) -> dict[str, float]:
    """Return test accuracy at the last step, at the best on validation, and at the best on test."""
    points = row["points"]
    return {
        "last": points[-1]["test"],
        "validation": max(points, key=lambda each: each["validation"])["test"],
        "best": max(each["test"] for each in points),
    }


def draw(kept: dict[str, Any], figure: Figure) -> None:
    """Draw accuracy on test along training; a ring is what the official protocol reports."""
    ax = figure.subplots()
    named = set()
    for row in kept["rows"]:
        colour = _COLOURS[FAMILIES.index(row["family"])]
        label = None if row["family"] in named else row["family"]
        named.add(row["family"])
        steps, test = ([each[name] for each in row["points"]] for name in ("at", "test"))
        ax.plot(steps, test, "-", color=colour, lw=1.5, label=label)
        place = test.index(max(test))
        ax.plot(steps[place], test[place], "o", ms=9, mfc="none", color=colour)
        ax.plot(steps[-1], test[-1], ".", color=colour)
    ax.set_xlabel("training step")
    ax.set_ylabel("kNN accuracy on test")
    ax.legend(frameon=False, fontsize="small")
    ax.set_title("Ring: the best on test; dot: the last step", loc="left")


def table(kept: dict[str, Any]) -> list[str]:
    """Return the numbers as lines of a Markdown table."""
    lines = [
        "| family | seed | last step | best on validation | best on test | gain of the protocol |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in kept["rows"]:
        read = readings(row)
        lines.append(
            f"| {row['family']} | {row['seed']} | {read['last']:.4f} | {read['validation']:.4f} | "
            f"{read['best']:.4f} | {read['best'] - read['last']:+.4f} |"
        )
    return lines


def caption(kept: dict[str, Any]) -> list[str]:
    """Say what is claimed, what is seen, and what would change the conclusion."""
    gains = [each["best"] - each["last"] for each in map(readings, kept["rows"])]
    left = f" Runs that are not finished: {kept['left']}." if kept["left"] else ""
    runs = "one run" if len(gains) == 1 else f"{len(gains)} runs"
    return [
        "some methods are better than others by kNN accuracy on test. The official code reads it "
        "after every epoch and keeps the best.",
        f"Over {runs} the best of {len(kept['rows'][0]['points'])} readings on test is "
        f"{sum(gains) / len(gains):+.4f} above the last step on average, at most "
        f"{max(gains):+.4f}. `official` has the official hyper-parameters at 4,000 steps of 128 "
        "images; the others have this study's defaults. All read masked where a mask is learned, "
        f"64 dimensions, CIFAR-10 (JPEG copy), 10,000 training images vote.{left}",
        "a larger gain with readings at each of 800 epochs, on runs whose accuracy does not grow "
        "to the end: the more readings, the more the best one is above the last.",
    ]
