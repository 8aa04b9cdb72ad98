"""Figure 1(a) of the paper: features as strips of colour, and what dimensions share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab import Representation, correlate, decompose, encode
from dimlab.figures.redundancy import plot_representation
from figures.networks import narrow_runs
from figures.place import Place
from study.sweep import one_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Features as strips of colour, and their correlations (after Figure 1a)"
N_TEST, N_SHOWN, N_CLASSES = 5_000, 60, 10
FAMILIES = {"simclr": "SimCLR", "both": "SimCLR + Barlow Twins"}


def measure(place: Place) -> dict[str, Any]:
    """Encode the same test images with both networks."""
    rows = []
    with one_thread("cpu"):
        images = place.some("test", N_TEST)
        labels = np.asarray(images.labels)
        of_class = [np.flatnonzero(labels == each) for each in range(N_CLASSES)]
        shown = np.concatenate([each[: N_SHOWN // N_CLASSES] for each in of_class])
        for family, name in FAMILIES.items():
            features = encode(place.checkpoint(narrow_runs(family)[0]), images)
            found = correlate(features, n_draws=2)
            values = features.features[shown]
            deviation = values.std(axis=0)
            values = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
            matrix = 100 * np.abs(np.nan_to_num(found.matrix))[np.ix_(found.order, found.order)]
            rows.append({
                "network": name, "labels": labels[shown].tolist(),
                "features": np.round(10 * values).astype(int).tolist(),
                "correlation": np.round(matrix).astype(int).tolist(),
                "redundancy": float(np.nanmean(found.redundancy)),
                "effective_rank": float(decompose(features).effective_rank),
            })  # fmt: skip
    return {"n_test": len(images), "rows": rows}


def draw(kept: dict[str, Any], figure: Figure) -> None:
    """Draw strips on the left and absolute correlations on the right, a row a network."""
    axes = figure.subplots(len(kept["rows"]), 2, width_ratios=(2, 1))
    for (left, right), row in zip(axes, kept["rows"], strict=True):
        features = np.array(row["features"], dtype=np.float64)
        plot_representation(
            Representation(features, labels=np.array(row["labels"])), n_rows=N_SHOWN, ax=left
        )
        left.set_title(row["network"], loc="left")
        left.set_ylabel("images, by class")
        mesh = right.imshow(np.array(row["correlation"]) / 100, vmin=0, vmax=1, cmap="viridis")
        right.set_title("absolute correlation", loc="left", fontsize="small")
        figure.colorbar(mesh, ax=right)


def caption(kept: dict[str, Any]) -> list[str]:
    """Say what is claimed, what is seen, and what would change the conclusion."""
    first, second = kept["rows"]
    less = first["redundancy"] - second["redundancy"]
    return [
        "with redundancy reduction dimensions are decoupled: colours differ more, and dimensions "
        "are less similar within a batch.",
        "Mean squared correlation of a dimension with the others, over "
        f"{kept['n_test']:,} test images: "
        + ", ".join(f"{row['network']} {row['redundancy']:.3f} (effective rank "
                    f"{row['effective_rank']:.1f} of {len(row['correlation'])})"
                    for row in kept["rows"])
        + f". The added loss {'lowers' if less > 0 else 'raises'} it by {abs(less):.3f}; the "
        "smallest effect of interest is 0.02. Three neighbouring dimensions are red, green and "
        "blue, and which are neighbours is arbitrary: the strips are an illustration, the numbers "
        "are the evidence. One seed, 64 dimensions, CIFAR-10 (JPEG copy).",
        "a difference of at least 0.02 in five seeds (`redundancy_shrinks.py --natural`), or a "
        "larger weight of the redundancy loss, which is shown there too.",
    ]  # fmt: skip
