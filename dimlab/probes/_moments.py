"""What the probes of unlabelled rows share: moments in blocks, clusters, and the jackknife."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.moments import Moments
from dimlab.probes._reading import basis_of, sample_of
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, detail, scalar

ALL_CONSTANT = "representation must vary in some dimension; got only constant ones."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OfRows(Result):
    """What every result of one representation says of its rows."""

    basis: str = scalar("Basis of the dimensions.", default="axes")
    sample: str = scalar(
        "Which part of the split was used; empty: all of it.", optional=True, default=""
    )
    caution: str = scalar(
        "Why numbers are biased, missing or their intervals too short, where they are; else empty.",
        optional=True,
        default="",
    )
    clustered: bool = detail(
        "Whether rows were taken to be independent between clusters only.", default=False
    )


def ids_of(
    representation: Representation | Moments, clusters: str | np.ndarray | None
) -> np.ndarray | None:
    """Return the cluster (N,) of each row, None where rows are independent; refuse for moments."""
    if not isinstance(representation, Moments):
        return cluster_ids(representation, clusters)
    if clusters is not None:
        raise Refusal(
            "clusters must be left out for moments, whose rows are dealt to blocks already; got "
            "some. Give the rows, or clusters= to Moments.of."
        )
    return None


def moments_of(
    representation: Representation | Moments,
    *,
    n_blocks: int,
    seed: int,
    ids: np.ndarray | None,
    device: str,
    rows: tuple[np.ndarray, ...] = (),
    progress: Progress | None = None,
) -> Moments:
    """Return the moments of the features, or of ``rows``, a pair of views; moments as they are."""
    if isinstance(representation, Moments):
        return representation
    return Moments.of(
        representation.features if not rows else rows if len(rows) == 2 else rows[0],
        n_blocks=n_blocks,
        seed=seed,
        clusters=ids,
        device=device,
        precision=representation.precision,
        progress=progress,
    )


def refuse_pairs(representation: Representation | Moments, what: str = "") -> None:
    """Refuse moments of pairs of views where those of single rows are needed."""
    if isinstance(representation, Moments) and representation.has_views:
        raise Refusal(
            f"representation must be moments of single rows{what}; got moments of pairs of views. "
            "Accumulate one view."
        )


def refuse_few(n_samples: int, least: int, what: str) -> None:
    """Refuse fewer samples than a probe needs."""
    if n_samples < least:
        raise Refusal(f"{what} needs at least {least} samples; got {n_samples}.")


def n_units(moments: Moments, ids: np.ndarray | None) -> int:
    """Count the clusters, or the rows where they are independent."""
    return moments.n if ids is None else int(ids.max()) + 1


def said_of(representation: Representation | Moments, ids: np.ndarray | None) -> dict[str, Any]:
    """Return the fields of a result that say what its rows are."""
    return {
        "basis": basis_of(representation),
        "sample": sample_of(representation),
        "clustered": ids is not None,
    }


def in_blocks(clustered: bool) -> str:
    """Say what the jackknife leaves out in turn."""
    return f"95 %, jackknife over blocks of {'clusters' if clustered else 'samples'}"


def caution_of_rank(n_samples: int, n_dimensions: int) -> str:
    """Say why ranks of so few samples are biased; empty where they are not."""
    if n_samples > n_dimensions:
        return ""
    return (
        f"N = {n_samples} samples do not exceed D = {n_dimensions} dimensions: no rank can exceed "
        "N, and every rank here is biased downwards. Use more samples."
    )


def replicates(
    moments: Moments, statistics: Callable[[Moments], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counts (B,) of blocks, S statistics of all rows, and (B, S) without each block."""
    # NaN where there are fewer than two blocks or too few samples, or where the statistics are
    # undefined without some block, which they say by a `ValueError`.
    counts = moments.counts[moments.counts > 0]
    full = statistics(moments.whole())
    unknown = np.full((max(2, len(counts)), len(full)), np.nan)
    if len(counts) < 2 or moments.n - counts.max() < 3:
        return np.ones(len(unknown)), full, unknown
    try:
        return counts, full, np.stack([statistics(each) for each in moments.without_each()])
    except ValueError:  # without some block nothing varies
        return counts, full, unknown
