"""Supervised networks beside self-supervised ones of the same width, by the same probes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab import attribute, compare, confirm_harmful, encode, evaluate, random_masks
from dimlab.figures.house import BLUE, GREY, ORANGE
from dimlab.images import ImageSet
from dimlab.representation import Representation
from figures.networks import SUPERVISED, supervised, trained
from figures.place import NotYet, Place
from study.sweep import one_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Supervised and self-supervised networks of 64 dimensions"
N_TRAIN, N_TEST = 20_000, 5_000
FAMILIES = {"simclr": "SimCLR", "barlow-twins": "Barlow Twins", "both": "SimCLR + Barlow Twins",
            "lookahead": "MetaMask (lookahead)"}  # fmt: skip
STATISTICS = ("effective_rank", "mean_redundancy")


def with_nuisances(images: ImageSet) -> ImageSet:
    """Add what every photograph has and no class needs: light, contrast, warmth, saturation."""
    pixels = np.asarray(images.images).astype(np.float32) / 255
    grey = pixels.mean(axis=1)
    factors = {
        "brightness": grey.mean(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)),
        "warmth": (pixels[:, 0] - pixels[:, 2]).mean(axis=(1, 2)),
        "saturation": np.ptp(pixels, axis=1).mean(axis=(1, 2)),
    }
    return replace(images, factors=factors)


def described(train: Representation, test: Representation) -> dict[str, Any]:
    """Read, ablate and attribute one network's features."""
    read = evaluate(train, test, readers=("knn", "ridge"))
    row: dict[str, Any] = {}
    for place, reader in enumerate(("knn", "ridge")):
        row[reader] = float(read.accuracy[place])
    for reader in ("knn", "ridge"):
        harmful = confirm_harmful(train, test, reader=reader)
        row[f"n_harmful_{reader}"] = len(harmful.confirmed)
    masks = random_masks(train, test, reader="ridge", drop=(0.1,), n_masks=200)
    row |= {
        "gain": float(masks.gain[0]),
        "gain_low": float(masks.ci_low[0]),
        "gain_high": float(masks.ci_high[0]),
    }
    found = attribute(train, test, erased=None, n_permutations=200)
    row["nuisance"] = [None if np.isnan(each) else float(each) for each in found.nuisance_score]
    row["n_nuisance"] = int(np.sum(np.array(found.verdicts()) == "nuisance"))
    row["n_dead"] = int(found.dead.sum())
    return row


def measure(place: Place) -> dict[str, Any]:
    """Describe every network that is there; the supervised ones must be."""
    if place.encoders is None:
        raise NotYet("needs --encoders, the folder with the supervised networks.")
    with one_thread("cpu"):
        splits = [
            with_nuisances(place.some(split, most))
            for split, most in (("train", N_TRAIN), ("test", N_TEST))
        ]
        networks, left = trained(place, FAMILIES)
        features: dict[str, list[Representation]] = {
            name: [encode(network, images) for images in splits]
            for name, network in networks.items()
        }
        for name, file in SUPERVISED.items():
            module = supervised(place.encoders / file)
            features[name] = [encode(module, images, normalisation="imagenet") for images in splits]
        rows = [{"network": name, "supervised": name in SUPERVISED, **described(*sides)}
                for name, sides in features.items()]  # fmt: skip
        found = compare({name: test for name, (_, test) in features.items()})
    for row, number in zip(rows, range(len(found.names)), strict=True):
        assert row["network"] == found.names[number]
        for name in STATISTICS:
            at = number, found.statistics.index(name)
            row[name] = [
                float(each[at])
                for each in (found.corrected, found.corrected_low, found.corrected_high)
            ]
    return {"n_train": len(splits[0]), "n_test": len(splits[1]), "left": left, "rows": rows}


def draw(kept: dict[str, Any], figure: Figure) -> None:
    """Draw accuracy, effective rank, redundancy and nuisance scores, a row a network."""
    rows = kept["rows"]
    names = [row["network"] for row in rows]
    colours = [ORANGE if row["supervised"] else BLUE for row in rows]
    heights = np.arange(len(rows))
    axes = figure.subplots(1, 4, sharey=True)
    for row, height, colour in zip(rows, heights, colours, strict=True):
        axes[0].plot(row["knn"], height, "o", color=colour)
        axes[0].plot(row["ridge"], height, "s", color=colour, mfc="white")
        for ax, name in zip(axes[1:3], STATISTICS, strict=True):
            value, low, high = row[name]
            ax.plot([low, high], [height, height], color=colour, lw=1.8)
            ax.plot(value, height, "o", color=colour)
        scores = np.array([each for each in row["nuisance"] if each is not None])
        jitter = np.random.default_rng(0).uniform(-0.22, 0.22, len(scores))
        axes[3].scatter(scores, height + jitter, s=6, color=colour, alpha=0.5, lw=0)
        axes[3].plot(np.median(scores), height, "|", ms=16, mew=2, color="black")
    axes[0].set_yticks(heights, names)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    titles = (
        "kNN (dot)\nand ridge (square)",
        "effective rank\n(of 64)",
        "mean squared\ncorrelation",
        "nuisance score\nof each dimension",
    )
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, fontsize="small", loc="left")
        ax.grid(axis="x", lw=0.4, color=GREY, alpha=0.4)
    for ax, most in zip(axes, (1, 64, 1, 1), strict=True):
        ax.set_xlim(0, most)  # whole ranges: a narrow one would make little look like much
    axes[2].set_xlim(0, 1.3 * max(row["mean_redundancy"][2] for row in rows))
    axes[0].set_xlabel("accuracy")
    axes[3].set_xlabel("share of variance")


def table(kept: dict[str, Any]) -> list[str]:
    """Return the numbers as lines of a Markdown table."""
    head = ("network", "labels used", "kNN", "ridge", "effective rank", "mean squared correlation",
            "harmful (kNN, ridge)", "gain of the best mask", "median nuisance score",
            "nuisance dimensions", "dead")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for row in kept["rows"]:
        scores = [each for each in row["nuisance"] if each is not None]
        rank, redundancy = (
            f"{value:.{places}f} [{low:.{places}f}, {high:.{places}f}]"
            for (value, low, high), places in zip(
                (row[name] for name in STATISTICS), (1, 3), strict=True
            )
        )
        cells = (
            row["network"], "yes" if row["supervised"] else "no", f"{row['knn']:.3f}",
            f"{row['ridge']:.3f}", rank, redundancy,
            f"{row['n_harmful_knn']}, {row['n_harmful_ridge']}",
            f"{row['gain']:+.4f} [{row['gain_low']:+.4f}, {row['gain_high']:+.4f}]",
            f"{np.median(scores):.3f}", str(row["n_nuisance"]), str(row["n_dead"]),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def caption(kept: dict[str, Any]) -> list[str]:
    """Say what is claimed, what is seen, and what would change the conclusion."""
    rows = kept["rows"]

    def spans(name: str, supervised: bool, places: int) -> str:
        values = [row[name][0] if isinstance(row[name], list) else row[name]
                  for row in rows if row["supervised"] == supervised]  # fmt: skip
        low, high = min(values), max(values)
        return f"{low:.{places}f}" if low == high else f"{low:.{places}f} to {high:.{places}f}"

    def median(supervised: bool) -> str:
        values = [each for row in rows if row["supervised"] == supervised
                  for each in row["nuisance"] if each is not None]  # fmt: skip
        return f"{np.median(values):.3f}"

    n_harmful = sum(row["n_harmful_knn"] + row["n_harmful_ridge"] for row in rows)
    said = [
        f"{words} {spans(name, True, places)} supervised, {spans(name, False, places)} "
        "self-supervised"
        for name, words, places in (
            ("ridge", "ridge accuracy", 3), ("effective_rank", "effective rank", 1),
            ("mean_redundancy", "mean squared correlation", 3),
        )
    ]  # fmt: skip
    left = f" Not trained yet: {', '.join(kept['left'])}." if kept["left"] else ""
    return [
        "dimensions of self-supervised representations hold redundant and harmful information. It "
        "does not say what dimensions of supervised ones hold; that is the control asked for here.",
        f"{'; '.join(said)}; median nuisance score of a dimension {median(True)} supervised, "
        f"{median(False)} self-supervised. Harmful dimensions confirmed in all networks, by kNN "
        f"and by ridge together: {n_harmful}. {kept['n_train']:,} training and "
        f"{kept['n_test']:,} test images; intervals are over test images (95 %), one network "
        "each. Nuisances: brightness, contrast, warmth and saturation of the image, given its "
        "class. The supervised networks were trained by others on the original bitmaps of all "
        "50,000 training images; the self-supervised ones here, a convnet of three layers and "
        "4,000 steps on 45,000 images of the JPEG copy. Architecture and length of training "
        "differ beside the use of labels."
        + left,
        "self-supervised networks of the same architecture, trained for as long: if the difference "
        "of redundancy or nuisance scores disappeared there, labels would not be its cause.",
    ]  # fmt: skip
