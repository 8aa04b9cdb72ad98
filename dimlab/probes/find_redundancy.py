"""Redundancy: which dimensions are sums of others, copies or dead, and how few would do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.cuts import held_out
from dimlab.kernels.collinearity import (
    correlation_floor,
    group_ids,
    groups_of,
    pivot_order,
    variance_inflation,
)
from dimlab.kernels.correlation import correlation_of, dead_dimensions
from dimlab.kernels.moments import N_BLOCKS, Moments
from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.representation import Representation

_COPY = 1 - 1e-6  # |correlation| from which one dimension is an affine copy of another
_N_HALVINGS = 10


@dataclass(frozen=True, eq=False)
class Redundancy:
    """What each of D dimensions repeats of the others.

    Parameters
    ----------
    variance_inflation_factor : ndarray of shape (D,)
        1 / (1 - R^2); infinite where the dimension is a sum of others, NaN where it is dead.
    r_squared : ndarray of shape (D,)
        Share of the dimension's variance that the others explain linearly.
    group : ndarray of shape (D,), int
        Group of each dimension: average linkage of |correlation|, cut at ``cut``. Groups are
        numbered in order of their lowest dimension; a dead dimension is alone.
    cut : float
        Mean |correlation| down to which groups were merged.
    group_stability : ndarray of shape (G,)
        For each of the G groups, the mean Jaccard overlap with its best match in random halves of
        the samples. NaN where halves could not be made.
    stability : float
        Mean adjusted Rand index of all groups with those of random halves.
    dead : ndarray of shape (D,), bool
        Dimensions that do not vary.
    mean : ndarray of shape (D,)
        Mean of each dimension: the constant, for a dead one.
    duplicates : tuple of ndarray of shape (n,), int
        Groups of affine copies: every |correlation| within is at least 1 - 1e-6.
    order : ndarray of shape (D,), int
        Dimensions by pivoted QR: each time the one of which those before explain least.
    kept_variance : ndarray of shape (D,)
        Share of the total variance that the first 1, 2, ... of ``order`` explain linearly.
    kept_accuracy : ndarray of shape (D,) or None
        Accuracy of a reader of the first 1, 2, ... of ``order``, fitted on one half of the samples
        and scored on the other. NaN where it was not evaluated.
    keep : float
        Share of the variance (or of the reader's full accuracy) that ``subset`` keeps.
    subset : ndarray of shape (n,), int
        The shortest beginning of ``order`` that keeps it.
    reader : str
        The reader; empty: the subset keeps variance.
    n_samples : int
        N.
    basis, sample : str
        Basis of the dimensions; which part of the split was used, empty: all of it.

    References
    ----------
    Those of `find_redundancy`, which finds it.

    Examples
    --------
    >>> features = np.random.default_rng(0).normal(size=(200, 4))
    >>> features[:, 3] = 1 - 2 * features[:, 0]  # a copy in other units
    >>> found = find_redundancy(Representation(features))
    >>> [group.tolist() for group in found.groups], found.is_duplicate.tolist()
    ([[0, 3], [1], [2]], [True, False, False, True])
    >>> found.to_frame()["r_squared"].round(1).tolist(), found.summary()["n_subset"]
    ([1.0, 0.0, 0.0, 1.0], 3)
    """

    variance_inflation_factor: np.ndarray
    r_squared: np.ndarray
    group: np.ndarray
    cut: float
    group_stability: np.ndarray
    stability: float
    dead: np.ndarray
    mean: np.ndarray
    duplicates: tuple[np.ndarray, ...]
    order: np.ndarray
    kept_variance: np.ndarray
    kept_accuracy: np.ndarray | None
    keep: float
    subset: np.ndarray
    reader: str
    n_samples: int
    basis: str = "axes"
    sample: str = ""

    def __len__(self) -> int:
        return len(self.group)

    @property
    def groups(self) -> tuple[np.ndarray, ...]:
        """Dimensions of each group, each of shape (n,), int, as `ablate` takes them."""
        return tuple(groups_of(self.group))

    @property
    def is_duplicate(self) -> np.ndarray:
        """Whether each dimension has an affine copy, (D,) bool."""
        found = np.zeros(len(self), dtype=bool)
        for members in self.duplicates:
            found[members] = True
        return found

    def to_frame(self) -> Any:
        """Return one row a dimension.

        Returns
        -------
        pandas.DataFrame
            ``dimension, variance_inflation_factor, r_squared, group, group_size, group_stability,
            duplicate, dead, mean, pivot`` (place in ``order``, from 1), ``in_subset``.
        """
        import pandas as pd

        pivot = np.empty(len(self), dtype=np.int64)
        pivot[self.order] = np.arange(1, len(self) + 1)
        return pd.DataFrame(
            {
                "dimension": np.arange(len(self)),
                "variance_inflation_factor": self.variance_inflation_factor,
                "r_squared": self.r_squared,
                "group": self.group,
                "group_size": np.bincount(self.group)[self.group],
                "group_stability": self.group_stability[self.group],
                "duplicate": self.is_duplicate,
                "dead": self.dead,
                "mean": self.mean,
                "pivot": pivot,
                "in_subset": np.isin(np.arange(len(self)), self.subset),
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Sizes, counts and lists of dead, duplicate and collinear dimensions, median R^2, groups
            of two or more with the cut and the stability, and the subset.
        """
        alive = ~self.dead
        shared = [group.tolist() for group in self.groups if len(group) > 1]
        kept = "variance" if not self.reader else f"accuracy of a {self.reader} reader"
        return {
            "n_samples": self.n_samples,
            "n_dimensions": len(self),
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            "median_r_squared": float(np.median(self.r_squared[alive])) if alive.any() else None,
            "n_collinear": int(np.isinf(self.variance_inflation_factor).sum()),
            "n_dead": int(self.dead.sum()),
            "dead_dimensions": np.flatnonzero(self.dead).tolist(),
            "n_duplicate": int(self.is_duplicate.sum()),
            "duplicates": [members.tolist() for members in self.duplicates],
            "n_groups": len(self.groups),
            "n_shared_groups": len(shared),
            "shared_groups": sorted(shared, key=len, reverse=True),
            "cut": self.cut,
            "stability": plain(self.stability),
            "subset_keeps": f"{self.keep:g} of the {kept}",
            "n_subset": len(self.subset),
            "subset": self.subset.tolist(),
        }


def find_redundancy(
    representation: Representation | Moments,
    *,
    cut: float = 0.5,
    keep: float = 0.99,
    reader: str | None = None,
    n_blocks: int = N_BLOCKS,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Redundancy:
    """Find dimensions that are dead, copies or sums of others, groups of them, and a subset.

    Parameters
    ----------
    representation : Representation or Moments
        N > D samples of D dimensions.
    cut : float, default=0.5
        Groups are merged while the mean |correlation| between them is at least this, in (0, 1].
    keep : float, default=0.99
        Share of the variance, or of the reader's accuracy, that the subset keeps, in (0, 1].
    reader : {"ridge", "knn", "logistic"}, optional
        Keep this reader's accuracy instead of variance; needs labels.
    n_blocks : int, default=20
        Blocks of samples that halves are made of, >= 2; ignored for moments, which have theirs.
    seed : int, default=0
        Deals samples and draws halves.
    device : str, default="cpu"
        Where the moments are taken.
    progress : callable, optional
        Called as ``progress(done, total)`` over the halves.

    Returns
    -------
    Redundancy
        Numbers of every dimension, groups, subset.

    Raises
    ------
    ValueError
        If N is not above the number of dimensions that vary (every R^2 would be 1), none varies, a
        number is out of its range, a reader is asked of moments or without labels, or moments are
        those of pairs of views, or the device is not there.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    Variance inflation factors are the diagonal of the inverse correlation matrix [1]_, all from one
    eigendecomposition; a dimension with a component of more than 1e-8 in an eigenvector whose
    eigenvalue is <= D eps (largest eigenvalue) is a sum of others: R^2 = 1.

    Groups: average linkage on 1 - |correlation|. Their stability [2]_ is that of random halves of
    the samples: with half the samples, groups that only just merged fall apart.

    Subset: pivots of a QR factorisation [3]_ of the centred features, a greedy choice: a smaller
    subset may exist. For a reader the samples are halved at random (within classes): one half is
    read, the other scores.

    References
    ----------
    .. [1] Belsley, Kuh and Welsch, "Regression Diagnostics", 1980.
    .. [2] Hennig, "Cluster-wise assessment of cluster stability", 2007.
    .. [3] Golub and Van Loan, "Matrix Computations", 4th edition, section 5.5.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(500, 4))
    >>> features[:, 3] = features[:, 0] + features[:, 1]
    >>> found = find_redundancy(Representation(features))
    >>> np.isinf(found.variance_inflation_factor).tolist()
    [True, True, False, True]
    >>> len(found.subset)
    3
    """
    for name, value in (("cut", cut), ("keep", keep)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must lie in (0, 1]; got {value:g}.")
    if n_blocks < 2:
        raise ValueError(f"n_blocks must be >= 2; got {n_blocks}.")
    known = None if isinstance(representation, Moments) else representation
    if reader is not None and (known is None or known.labels is None):
        raise ValueError(
            "reader must come with a Representation that has labels; got "
            + ("moments." if known is None else "no labels.")
        )
    if known is not None:
        foresee(
            "find_redundancy" if reader is None else "find_redundancy reader",
            Shapes(0, len(known), known.n_dimensions, n_blocks=n_blocks),
        )
    moments = _moments_of(representation, n_blocks, seed, device)
    dead = dead_dimensions(moments)
    live = np.flatnonzero(~dead)
    _refuse(moments.n, live)
    matrix = correlation_of(moments, dead)
    alive = matrix[np.ix_(live, live)]
    factor, share = np.full(len(dead), np.nan), np.full(len(dead), np.nan)
    largest = float(np.linalg.eigvalsh(alive)[-1])
    factor[live] = variance_inflation(alive, correlation_floor(moments, live, largest))
    share[live] = 1 - 1 / factor[live]
    group = group_ids(matrix, cut)
    stability, of_groups = _stability(moments, dead, group, cut, seed, progress)
    order, kept_variance = _pivots(moments, live)
    accuracy = None
    if known is not None and known.labels is not None and reader is not None:
        accuracy = _accuracies(known, known.labels, order, reader, seed)
    kept = kept_variance if accuracy is None else accuracy
    return Redundancy(
        variance_inflation_factor=factor,
        r_squared=share,
        group=group,
        cut=cut,
        group_stability=of_groups,
        stability=stability,
        dead=dead,
        mean=moments.mean[0],
        duplicates=_copies(matrix, live),
        order=order,
        kept_variance=kept_variance,
        kept_accuracy=accuracy,
        keep=keep,
        subset=order[: _shortest(kept, keep)],
        reader=reader or "",
        n_samples=moments.n,
        basis=basis_of(representation),
        sample=sample_of(representation),
    )


def _moments_of(
    representation: Representation | Moments, n_blocks: int, seed: int, device: str
) -> Moments:
    if not isinstance(representation, Moments):
        return Moments.of(
            representation.features,
            n_blocks=n_blocks,
            seed=seed,
            device=device,
            precision=representation.precision,
        )
    if representation.has_views:
        raise ValueError(
            "representation must be moments of single rows; got moments of pairs of views. "
            "Accumulate one view."
        )
    return representation


def _refuse(n_samples: int, live: np.ndarray) -> None:
    if len(live) == 0:
        raise ValueError("representation must vary in some dimension; got only constant ones.")
    if n_samples <= len(live):
        raise ValueError(
            f"representation must have more samples than its {len(live)} dimensions that vary, or "
            f"every R^2 is 1; got {n_samples}."
        )


def _copies(matrix: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find groups of dimensions that are affine copies of each other."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    same = csr_array(np.abs(matrix[np.ix_(live, live)]) >= _COPY)
    ids = connected_components(same, directed=False)[1]
    return tuple(live[members] for members in groups_of(ids) if len(members) > 1)


def _pivots(moments: Moments, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pivot order of all dimensions, dead ones last, and the variance explained so far."""
    covariance = moments.covariance[np.ix_(live, live)]
    size = float((np.diagonal(covariance) + moments.mean[0, live] ** 2).max())
    floor = eigenvalue_floor(0.0, size, moments.n, len(live), moments.eps)
    order, share = pivot_order(covariance, floor)
    dead = np.setdiff1d(np.arange(moments.n_dimensions), live)
    return np.concatenate([live[order], dead]), np.concatenate([share, np.ones(len(dead))])


def _shortest(kept: np.ndarray, keep: float) -> int:
    """Fewest leading dimensions that keep this share of what all of them have."""
    enough = kept >= keep * kept[-1] * (1 - 1e-12)
    return int(np.flatnonzero(enough)[0]) + 1


def _accuracies(
    representation: Representation, labels: np.ndarray, order: np.ndarray, reader: str, seed: int
) -> np.ndarray:
    """Accuracy of a reader of the first 1, 2, ... D dimensions, on samples it was not fitted on."""
    order_of_rows = np.random.default_rng(seed).permutation(len(labels))
    judged = held_out(labels, 0.5, order_of_rows)
    if not judged.any():
        raise ValueError("labels must have a class of at least 2 samples for a reader; got none.")
    fit, judge = representation.take(~judged), representation.take(judged)
    curve = ablate_cumulatively(fit, judge, order=order[::-1], reader=reader, seed=seed)
    found = np.full(len(order), np.nan)
    n_kept = len(order) - curve.n_removed
    some = n_kept > 0
    found[n_kept[some] - 1] = curve.scores[some]
    return found


def _stability(
    moments: Moments,
    dead: np.ndarray,
    group: np.ndarray,
    cut: float,
    seed: int,
    progress: Progress | None,
) -> tuple[float, np.ndarray]:
    """Agreement of the groups with those of random halves of the samples, in all and by group."""
    from sklearn.metrics import adjusted_rand_score

    members = groups_of(group)
    overlaps, scores = np.zeros(len(members)), []
    for done, half in enumerate(_halves(moments, seed)):
        other = group_ids(correlation_of(half, dead), cut)
        scores.append(adjusted_rand_score(group, other))
        overlaps += [_best_overlap(each, other) for each in members]
        if progress is not None:
            progress(done + 1, 2 * _N_HALVINGS)
    if not scores:
        return float("nan"), np.full(len(members), np.nan)
    return float(np.mean(scores)), overlaps / len(scores)


def _halves(moments: Moments, seed: int) -> Iterator[Moments]:
    """Moments of random halves of the blocks; none where there are too few blocks or samples."""
    occupied = np.flatnonzero(moments.counts)
    if len(occupied) < 2 or moments.n < 6:
        return
    rng = np.random.default_rng(seed)
    for _ in range(_N_HALVINGS):
        shuffled = rng.permutation(occupied)
        for chosen in np.array_split(shuffled, 2):
            yield moments.of_blocks(chosen)


def _best_overlap(members: np.ndarray, other: np.ndarray) -> float:
    """Largest Jaccard index of a group with any group of another grouping."""
    inside = np.bincount(other[members], minlength=other.max() + 1)
    sizes = np.bincount(other, minlength=other.max() + 1)
    return float((inside / (len(members) + sizes - inside)).max())
