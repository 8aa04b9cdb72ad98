"""Profile: which dimensions stand out by their size, and what that does to neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.devices import check_budget, check_device, hold
from dimlab.given import RepresentationLike, as_representation
from dimlab.kernels.blocks import blocks
from dimlab.kernels.similarity import CosineShares
from dimlab.probes._reading import OfSample, basis_of, check_least, sample_of
from dimlab.readers.base import Progress
from dimlab.readers.linear import Standardiser
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Verdict, column, entry, per, scalar

NEEDS: tuple[set[str], ...] = (set(),)
_SHARE = 10.0  # times the mean share, from which on a dimension is an outlier
_DEVIATIONS = 5.0  # that a mean lies from 0, from which on it is
_ELEMENTS = 1 << 20
_N_NAMED = 12


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Profile(OfSample):
    """How large, sparse and heavy-tailed each dimension is, and what it does to neighbours.

    References
    ----------
    Those of `profile`, which measures it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = profile(rng.normal(size=(200, 30)) + np.eye(30)[3] * 9)
    >>> found.outliers.tolist(), bool(found.mean_over_deviation[3] > 8), len(found)
    ([3], True, 30)
    >>> found.to_frame()["outlier"].sum(), found.summary()["n_outliers"]
    (np.int64(1), 1)
    """

    EFFECT = ("share",)
    HEADLINE = ("n_samples", "n_dimensions", "n_outliers", "n_dead", "hubness", "mean_cosine")
    DIMENSIONS = (
        ("cosine_share", "share", "share of the cosine similarity"),
        ("mean_over_deviation", "mean_over_deviation", "mean over standard deviation"),
        ("outlier", "outlier", "outlier by its share or its mean"),
    )

    n_samples: int = scalar("Samples.")
    n_dimensions: int = scalar("D, the number of dimensions.")
    dimension = column(lambda self: np.arange(len(self)), doc="Index of each dimension.")
    outlier: np.ndarray = per(
        "dimension",
        "Whether the share is at least 10 / D, or the mean at least 5 standard deviations from 0.",
    )
    share: np.ndarray = per(
        "dimension",
        "Share of the cosine similarity: mean over rows of ``x_d^2 / |x|^2``; they add up to 1.",
    )
    share_low: np.ndarray = per("dimension", "Lower end of its 95 % interval over samples.")
    share_high: np.ndarray = per("dimension", "Upper end of it.")
    mean_over_deviation: np.ndarray = per(
        "dimension",
        "Mean over standard deviation; infinite for a constant other than 0, NaN for a constant 0.",
    )
    kurtosis: np.ndarray = per(
        "dimension", "Excess kurtosis, 0 for a normal distribution; NaN for a dead dimension."
    )
    sparsity: np.ndarray = per("dimension", "Share of the samples that have exactly 0.")
    cosine: np.ndarray = per(
        "dimension",
        "What the dimension adds to the mean cosine similarity of two different rows.",
    )
    hubness_without: np.ndarray = per(
        "dimension",
        "Skewness of the k-occurrence without the dimension; NaN where it was not measured.",
    )
    dead: np.ndarray = per("dimension", "Whether the dimension does not vary.")
    hubness: float = scalar(
        "Skewness of the k-occurrence, how often a row is among the k nearest of the others; 0 "
        "where all rows are so equally often, large where a few hubs are near to everything. NaN "
        "where it was not measured."
    )
    mean_cosine: float = scalar(
        "Mean cosine similarity of two different rows: near 0 for isotropic features, near 1 where "
        "all rows point the same way."
    )
    k: int = scalar("Neighbours that hubness counts.")
    n_rows: int = scalar("Rows, drawn at random, that hubness was measured among.")

    @entry
    def n_outliers(self) -> int:
        """Dimensions that are outliers."""
        return len(self.outliers)

    @entry
    def largest_shares(self) -> dict[str, float]:
        """Share of the cosine similarity of up to twelve outliers, by dimension."""
        return {str(d): float(self.share[d]) for d in self.outliers[:_N_NAMED]}

    @entry
    def n_dead(self) -> int:
        """Dimensions that do not vary."""
        return int(self.dead.sum())

    @entry
    def dead_dimensions(self) -> list[int]:
        """Dimensions that do not vary."""
        return np.flatnonzero(self.dead).tolist()

    @property
    def outliers(self) -> np.ndarray:
        """Outliers, the one of the largest share first; (n,) int."""
        order = np.argsort(-self.share, kind="stable")
        return order[self.outlier[order]]

    def __len__(self) -> int:
        return len(self.share)


def verdict(found: Profile) -> Verdict:
    """Say whether single dimensions dominate the cosine similarity."""
    outliers = found.outliers
    named = ", ".join(map(str, outliers[:_N_NAMED].tolist()))
    text = f"{len(outliers)} of {len(found)} dimensions are outliers"
    if len(outliers):
        total = float(found.share[outliers].sum())
        text += f" ({named}), and carry {total:.1%} of the cosine similarity"
    return Verdict(
        "Do single dimensions dominate the cosine similarity?",
        "yes" if len(outliers) else "no",
        f"{text}; mean cosine of two rows {found.mean_cosine:.3f}.",
        "Yes: some dimension has a share of at least 10 / D, or a mean of at least 5 standard "
        "deviations; else no.",
        tuple(sorted(outliers.tolist())),
    )


def profile(
    representation: RepresentationLike,
    *,
    k: int = 10,
    n_rows: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure what makes a dimension an outlier, and what it does to nearest neighbours.

    Parameters
    ----------
    representation : Representation, or array
        Features (N, D) of any array type, N >= 2; labels are not read.
    k : int, default=10
        Neighbours that hubness counts, >= 1; fewer where there are no more rows.
    n_rows : int, default=1000
        Rows that hubness is measured among, drawn at random, >= 0; 0 leaves hubness out.
    seed : int, default=0
        Draws these rows.
    device : str, default="cpu"
        Where neighbours are searched.
    memory : float, optional
        GB that the search may take beside the features. It changes the time, not the result.
    progress : callable, optional
        Called as ``progress(done, total)`` during the search.

    Returns
    -------
    Profile
        Shares of the cosine similarity, means, kurtosis, sparsity and hubness of each dimension.

    Raises
    ------
    ValueError
        If there are fewer than two rows, a number is too low, ``memory`` is too little, or the
        device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    Outliers, also called rogue dimensions [1]_: with a share of at least 10 / D, or a mean at least
    5 standard deviations from 0 (a constant other than 0 has infinitely many). A row of zeros has
    no direction, and counts in no share. The interval of a share is Student's over samples.

    The mean cosine similarity of two different rows is 0 for isotropic features [2]_. What a
    dimension adds to it is the mean over pairs of rows of ``x_d y_d / (|x| |y|)``.

    Hubness [3]_: the k-occurrence of a row is the number of other rows that have it among their k
    nearest by cosine similarity; its skewness measures how much a few rows, the hubs, are near to
    many. Without a dimension all rows are normalised again, and neighbours are exactly those of
    brute force. Its size depends on the number of rows.

    References
    ----------
    .. [1] Timkey and van Schijndel, "All bark and no bite: rogue dimensions in transformer language
       models obscure representational quality", EMNLP 2021.
    .. [2] Ethayarajh, "How contextual are contextualized word representations?", EMNLP 2019.
    .. [3] Radovanovic, Nanopoulos and Ivanovic, "Hubs in space: popular nearest neighbors in
       high-dimensional data", JMLR 11, 2010.

    Examples
    --------
    >>> features = np.array([[3.0, 0.0, 4.0], [-3.0, 0.0, 4.0], [3.0, 0.0, 4.0], [-3.0, 0.0, 4.0]])
    >>> found = profile(features)
    >>> found.share.round(2).tolist(), found.mean_over_deviation.tolist()
    ([0.36, 0.0, 0.64], [0.0, nan, inf])
    >>> found.outlier.tolist(), found.dead.tolist(), found.sparsity.tolist()
    ([False, False, True], [False, True, True], [0.0, 1.0, 0.0])
    """
    representation = as_representation(representation)
    check_least(1, k=k)
    check_least(0, n_rows=n_rows)
    check_budget(memory)
    check_device(device)
    n, n_dimensions = representation.shape
    if n < 2:
        raise Refusal(f"representation must have at least 2 rows; got {n}.")
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:n_rows])
    k = min(k, max(1, len(drawn) - 1))
    hold(
        8 * n_dimensions * (len(drawn) + 16),
        "profile",
        f"{len(drawn)} rows of {n_dimensions} dimensions",
        "Pass fewer rows for hubness (--rows).",
        memory=memory,
    )
    found = _of_columns(representation)
    hubness, without = np.nan, np.full(n_dimensions, np.nan)
    if len(drawn) > 2:
        skewness = hubness_without_each(
            representation.features[drawn], k, device=device, memory=memory, progress=progress
        )
        hubness, without = float(skewness[0]), skewness[1:]
    return Profile(
        basis=basis_of(representation),
        sample=sample_of(representation),
        n_samples=n,
        n_dimensions=n_dimensions,
        **found,
        hubness=hubness,
        hubness_without=without,
        k=k,
        n_rows=len(drawn),
    )


def _of_columns(representation: Representation) -> dict[str, Any]:
    """Measure columns and shares of the cosine similarity, in blocks of rows."""
    from scipy.stats import t

    from dimlab.kernels.rows import Rows

    features = representation.features
    n, n_dimensions = features.shape
    columns = Standardiser.fit(features, representation.precision)
    fourth, zeros = np.zeros((2, n_dimensions))
    for part in blocks(n, _ELEMENTS // n_dimensions):
        fourth += np.square(np.square(columns(features[part]))).sum(axis=0)
        zeros += (features[part] == 0).sum(axis=0)
    dead = columns.scale == 0
    n_directed, share, spread, direction = CosineShares.of(Rows.of(features, "cpu"))
    half = float(t.ppf(0.975, max(1, n_directed - 1))) * spread / np.sqrt(max(1, n_directed - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = columns.mean / columns.scale
    # pairs of different rows: all pairs, less each row with itself
    n_pairs = max(1, n_directed * (n_directed - 1))
    cosine = (direction**2 - n_directed * share) / n_pairs
    by_mean = (np.abs(ratio) >= _DEVIATIONS) & (columns.mean != 0)
    return {
        "outlier": (share >= _SHARE / n_dimensions) | by_mean,
        "share": share,
        "share_low": np.maximum(share - half, 0),
        "share_high": np.minimum(share + half, 1),
        "mean_over_deviation": ratio,
        "kurtosis": np.where(dead, np.nan, fourth / n - 3),
        "sparsity": zeros / n,
        "cosine": cosine,
        "dead": dead,
        "mean_cosine": float(cosine.sum()),
    }


def hubness_without_each(
    features: np.ndarray,
    k: int,
    *,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Skewness of the k-occurrence with all dimensions, and without each, (1 + D,)."""
    from dimlab.kernels.neighbours import find_with_and_without
    from dimlab.kernels.rows import Rows

    rows = Rows.of(features, device)
    n, n_dimensions = features.shape
    counts = np.zeros((1 + n_dimensions, n), dtype=np.int64)
    for found in find_with_and_without(rows, rows, None, k=k + 1, memory=memory):
        for first, block in zip((0, 1), found, strict=True):
            near = block.rows.cpu().numpy()  # (B, G, k + 1)
            own = np.arange(block.start, block.stop)[:, None, None]
            # the row itself goes last, or else the farthest of more than k equal ones
            others = np.take_along_axis(near, np.argsort(near == own, -1, kind="stable"), -1)
            for group in range(near.shape[1]):
                named = others[:, group, :k].ravel()
                counts[first + group] += np.bincount(named, minlength=n)
        if progress is not None:
            progress(found[0].stop, n)
    around = counts - counts.mean(axis=1, keepdims=True)
    spread = np.sqrt((around**2).mean(axis=1))
    third = (around**3).mean(axis=1)
    return np.divide(third, spread**3, out=np.zeros(len(counts)), where=spread > 0)
