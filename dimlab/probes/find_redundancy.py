"""Redundancy: which dimensions are sums of others, copies or dead, and how few would do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.cuts import held_out
from dimlab.kernels.collinearity import (
    correlation_noise,
    group_ids,
    groups_of,
    inflation_by_chance,
    largest_r_squared_by_chance,
    pairs_by_chance,
    pivot_order,
    relative_size,
    variance_inflation,
)
from dimlab.kernels.correlation import (
    chances_of,
    correlation_of,
    dead_dimensions,
    effective_samples,
    independent_correlations,
    permuted_correlations,
)
from dimlab.kernels.reliability import block_kurtosis, is_heavy
from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.memory import Shapes, foresee
from dimlab.moments import N_BLOCKS, Moments
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.decompose import refuse_clusters
from dimlab.representation import Representation

_COPY = 1e-6  # distance of |correlation| from 1 up to which dimensions are affine copies
_N_HALVINGS = 10
_EXPLAINED = 0.9  # adjusted R^2 from which the others stand for a dimension
_AMPLE = 20  # samples a dimension from which R^2 by chance is small
_N_NULL = 19  # permutations: the largest of so many is a 95 % quantile
_LEVEL = 0.95
_PERMUTED = 1e11  # products up to which rows are permuted: some 10 seconds


@dataclass(frozen=True, eq=False)
class Redundancy:
    """What each of D dimensions repeats of the others.

    Parameters
    ----------
    variance_inflation_factor : ndarray of shape (D,)
        1 / (1 - R^2); infinite where the dimension is a sum of others, NaN where it is dead.
    r_squared : ndarray of shape (D,)
        Share of the dimension's variance that the others explain linearly. Even independent
        dimensions have (D - 1) / (N - 1) on average.
    adjusted_r_squared : ndarray of shape (D,)
        1 - (1 - R^2) (N - 1) / (N - D): 0 on average for independent dimensions.
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
        Groups of affine copies: every |correlation| within is at least 1 - 1e-6, or as near to 1 as
        rounding to the precision of storage leaves copies. Of a chain, whose ends are no copies of
        each other, its pairs.
    chains : tuple of ndarray of shape (n,), int
        Groups of dimensions that are linked by copies although not all of them are copies.
    weakest : ndarray of shape (C,)
        For each of the C chains, the least |correlation| within.
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
    variance_inflation_null : float
        Median variance inflation factor of as many independent dimensions. NaN where N <= D.
    r_squared_null : float
        95 % quantile of the largest R^2 of as many independent dimensions. NaN where N >= 20 D, so
        that it was not needed, or N <= D.
    shared_null : float
        95 % quantile of the number of independent dimensions that share a group. NaN where
        N >= 20 D.
    null_law : str
        How both quantiles were found; empty where they were not.
    caution : str
        What could not be measured, and why; else empty.
    clustered : bool
        Whether rows were taken to be independent between clusters only.
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
    >>> found.is_redundant.tolist()  # groups, or explained by the others
    [True, False, False, True]
    >>> found.to_frame()["r_squared"].round(1).tolist(), found.summary()["n_subset"]
    ([1.0, 0.0, 0.0, 1.0], 3)
    """

    variance_inflation_factor: np.ndarray
    r_squared: np.ndarray
    adjusted_r_squared: np.ndarray
    group: np.ndarray
    cut: float
    group_stability: np.ndarray
    stability: float
    dead: np.ndarray
    mean: np.ndarray
    duplicates: tuple[np.ndarray, ...]
    chains: tuple[np.ndarray, ...]
    weakest: np.ndarray
    order: np.ndarray
    kept_variance: np.ndarray
    kept_accuracy: np.ndarray | None
    keep: float
    subset: np.ndarray
    reader: str
    n_samples: int
    variance_inflation_null: float
    r_squared_null: float
    shared_null: float
    null_law: str = ""
    caution: str = ""
    clustered: bool = False
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

    @property
    def is_redundant(self) -> np.ndarray:
        """Whether each dimension shares a group, or others explain it, (D,) bool.

        Explained: an adjusted R^2 of at least 0.9 that is, where ``r_squared_null`` is known, above
        it. A dead dimension is not redundant but dead.
        """
        shares = np.bincount(self.group)[self.group] > 1
        explained = self.adjusted_r_squared >= _EXPLAINED
        if np.isfinite(self.r_squared_null):
            explained &= self.r_squared > self.r_squared_null
        return ~self.dead & (shares | explained)

    def to_frame(self) -> Any:
        """Return one row a dimension.

        Returns
        -------
        pandas.DataFrame
            ``dimension, variance_inflation_factor, r_squared, adjusted_r_squared, group,
            group_size, group_stability, redundant, duplicate, dead, mean, pivot`` (place in
            ``order``, from 1), ``in_subset``.
        """
        import pandas as pd

        pivot = np.empty(len(self), dtype=np.int64)
        pivot[self.order] = np.arange(1, len(self) + 1)
        return pd.DataFrame(
            {
                "dimension": np.arange(len(self)),
                "variance_inflation_factor": self.variance_inflation_factor,
                "r_squared": self.r_squared,
                "adjusted_r_squared": self.adjusted_r_squared,
                "group": self.group,
                "group_size": np.bincount(self.group)[self.group],
                "group_stability": self.group_stability[self.group],
                "redundant": self.is_redundant,
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
            Sizes, counts and lists of dead, redundant, duplicate and collinear dimensions, median
            R^2, plain and adjusted, and variance inflation beside those of independent dimensions,
            groups of two or more with the cut and the stability, and the subset.
        """
        alive = ~self.dead
        shared = [group.tolist() for group in self.groups if len(group) > 1]
        kept = "variance" if not self.reader else f"accuracy of a {self.reader} reader"
        return {
            "n_samples": self.n_samples,
            "n_dimensions": len(self),
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            **{
                f"median_{name}": plain(float(np.median(getattr(self, name)[alive])))
                for name in ("r_squared", "adjusted_r_squared", "variance_inflation_factor")
            },
            "variance_inflation_null": plain(self.variance_inflation_null),
            "r_squared_null": plain(self.r_squared_null),
            "shared_null": plain(self.shared_null),
            "null_law": self.null_law,
            "n_redundant": int(self.is_redundant.sum()),
            "redundant_dimensions": np.flatnonzero(self.is_redundant).tolist(),
            "n_collinear": int(np.isinf(self.variance_inflation_factor).sum()),
            "n_dead": int(self.dead.sum()),
            "dead_dimensions": np.flatnonzero(self.dead).tolist(),
            "n_duplicate": int(self.is_duplicate.sum()),
            "duplicates": [members.tolist() for members in self.duplicates],
            "chains": [
                {"dimensions": members.tolist(), "weakest": float(weakest)}
                for members, weakest in zip(self.chains, self.weakest, strict=True)
            ],
            "n_groups": len(self.groups),
            "n_shared_groups": len(shared),
            "shared_groups": sorted(shared, key=len, reverse=True),
            "cut": self.cut,
            "stability": plain(self.stability),
            "subset_keeps": f"{self.keep:g} of the {kept}",
            "n_subset": len(self.subset),
            "subset": self.subset.tolist(),
            **({"caution": self.caution} if self.caution else {}),
        }


def find_redundancy(
    representation: Representation | Moments,
    *,
    cut: float = 0.5,
    keep: float = 0.99,
    reader: str | None = None,
    n_blocks: int = N_BLOCKS,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Redundancy:
    """Find dimensions that are dead, copies or sums of others, groups of them, and a subset.

    Parameters
    ----------
    representation : Representation or Moments
        N samples of D dimensions. Where N is not above the number of dimensions that vary, every
        R^2 would be 1: it is NaN then, and redundancy is judged by groups alone.
    cut : float, default=0.5
        Groups are merged while the mean |correlation| between them is at least this, in (0, 1].
    keep : float, default=0.99
        Share of the variance, or of the reader's accuracy, that the subset keeps, in (0, 1].
    reader : {"ridge", "knn", "logistic"}, optional
        Keep this reader's accuracy instead of variance; needs labels.
    n_blocks : int, default=20
        Blocks of samples that halves are made of, >= 2; ignored for moments, which have theirs.
    clusters : str or ndarray of shape (N,), optional
        Which rows belong together (name of a factor, or one value a row): halves and the null are
        made of whole clusters, and R^2 is adjusted for as many rows as they are worth. By default
        rows are independent.
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
        If no dimension varies, a number is out of its range, a reader is asked of moments or
        without labels, moments are those of pairs of views, clusters do not fit the rows or are
        given for moments, or the device is not there.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Warns
    -----
    UserWarning
        If N is not above the number of dimensions that vary.

    Notes
    -----
    Variance inflation factors are the diagonal of the inverse correlation matrix [1]_, all from one
    eigendecomposition; a dimension with a component of more than 1e-8 in an eigenvector whose
    eigenvalue is <= D eps (largest eigenvalue) is a sum of others: R^2 = 1.

    With N < 20 D chance alone makes R^2 large. ``r_squared_null`` says how large: for independent
    Gaussian dimensions R^2 follows the Beta distribution with (D - 1) / 2 and (N - D) / 2, of which
    the quantile at 1 - 0.05 / D is taken; where tails are heavy, or rows come in clusters, it is
    the largest R^2 of 19 permutations of every column.

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
    ids = None if known is None else cluster_ids(known, clusters)
    if known is None:
        refuse_clusters(clusters)
    moments = _moments_of(representation, n_blocks, seed, ids, device)
    dead = dead_dimensions(moments)
    live = np.flatnonzero(~dead)
    if len(live) == 0:
        raise ValueError("representation must vary in some dimension; got only constant ones.")
    matrix = correlation_of(moments, dead)
    explained = _explained(moments, matrix, live, known, ids)
    caution = ""
    if moments.n <= len(live):
        caution = (
            f"N = {moments.n} samples do not exceed the {len(live)} dimensions that vary: every "
            "R^2 would be 1, so redundancy is judged by groups alone. Use more samples."
        )
        warnings.warn(caution, UserWarning, stacklevel=2)
    group = group_ids(matrix, cut)
    stability, of_groups = _stability(moments, dead, group, cut, seed, progress)
    chance = _by_chance(moments, live, known, ids, cut, seed)
    duplicates, chains, weakest = _copies(matrix, live, moments)
    order, kept_variance = _pivots(moments, live)
    accuracy = None
    if known is not None and known.labels is not None and reader is not None:
        accuracy = _accuracies(known, known.labels, order, reader, seed, ids)
    kept = kept_variance if accuracy is None else accuracy
    return Redundancy(
        **explained,
        group=group,
        cut=cut,
        group_stability=of_groups,
        stability=stability,
        dead=dead,
        mean=moments.mean[0],
        duplicates=duplicates,
        chains=chains,
        weakest=weakest,
        order=order,
        kept_variance=kept_variance,
        kept_accuracy=accuracy,
        keep=keep,
        subset=order[: _shortest(kept, keep)],
        reader=reader or "",
        n_samples=moments.n,
        **chance,
        caution=caution,
        clustered=ids is not None,
        basis=basis_of(representation),
        sample=sample_of(representation),
    )


def _moments_of(
    representation: Representation | Moments,
    n_blocks: int,
    seed: int,
    ids: np.ndarray | None,
    device: str,
) -> Moments:
    if not isinstance(representation, Moments):
        return Moments.of(
            representation.features,
            n_blocks=n_blocks,
            seed=seed,
            clusters=ids,
            device=device,
            precision=representation.precision,
        )
    if representation.has_views:
        raise ValueError(
            "representation must be moments of single rows; got moments of pairs of views. "
            "Accumulate one view."
        )
    return representation


def _explained(
    moments: Moments,
    matrix: np.ndarray,
    live: np.ndarray,
    known: Representation | None,
    ids: np.ndarray | None,
) -> dict[str, Any]:
    """Say what the others explain of every dimension; NaN where rows are too few."""
    names = ("variance_inflation_factor", "r_squared", "adjusted_r_squared")
    factor, share, adjusted = (np.full(len(matrix), np.nan) for _ in names)
    n_live, n_rows = len(live), np.full(len(live), float(moments.n))
    if known is not None and ids is not None:
        n_rows = 1 + 1 / chances_of(live, effective_samples((known.features,), ids))
    if moments.n > n_live:
        alive = matrix[np.ix_(live, live)]
        factor[live] = variance_inflation(alive, correlation_noise(moments, live))
        share[live] = 1 - 1 / factor[live]
        free = np.where(n_rows > n_live, n_rows - n_live, np.nan)
        adjusted[live] = 1 - (1 - share[live]) * (n_rows - 1) / free
    typical = float(np.median(n_rows))
    found = dict(zip(names, (factor, share, adjusted), strict=True))
    return {**found, "variance_inflation_null": inflation_by_chance(typical, n_live)}


def _by_chance(
    moments: Moments,
    live: np.ndarray,
    known: Representation | None,
    ids: np.ndarray | None,
    cut: float,
    seed: int,
) -> dict[str, Any]:
    """Say what R^2 and groups would be of independent dimensions, where rows are few."""
    n, d = moments.n, len(live)
    few = n < _AMPLE * d if ids is None else True
    if d < 2 or not few:
        return {"r_squared_null": np.nan, "shared_null": np.nan, "null_law": ""}
    rng = np.random.default_rng(seed)
    kurtosis = block_kurtosis(moments)
    odd = ids is not None or is_heavy(kurtosis, n)
    draws: Iterable[np.ndarray] = ()
    r_squared = largest_r_squared_by_chance(n, d)
    law = "the Beta distribution of R^2 of independent Gaussian dimensions"
    if known is not None and odd and 2.0 * _N_NULL * n * d**2 <= _PERMUTED:
        draws = permuted_correlations((known.features[:, live],), _N_NULL, rng, ids)
        law = f"{_N_NULL} independent permutations of every column"
        law += ", whole clusters at a time" if ids is not None else ""
    elif pairs_by_chance(n, d, cut) > 1 - _LEVEL:
        draws = independent_correlations(n, d, _N_NULL, rng)
    found, shared = [], [0.0]
    for matrix in draws:
        groups = np.bincount(group_ids(matrix, cut))
        shared.append(float(groups[groups > 1].sum()))
        if odd and n > d:
            found.append(float((1 - 1 / variance_inflation(matrix)).max()))
    if found:
        r_squared = max(found)
    return {"r_squared_null": r_squared, "shared_null": max(shared), "null_law": law}


def _copies(
    matrix: np.ndarray, live: np.ndarray, moments: Moments
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
    """Find groups of affine copies, and chains of them with the least correlation within."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    size = np.abs(matrix[np.ix_(live, live)])
    # Rounding to the storage precision adds up to eps^2 / 12 of a column's mean square to its
    # variance, which takes half as much off the correlation of two copies.
    noise = moments.eps**2 / 12 * relative_size(moments, live)
    same = size >= 1 - np.maximum(_COPY, noise[:, None] + noise)
    ids = connected_components(csr_array(same), directed=False)[1]
    copies, chains, weakest = [], [], []
    for members in (each for each in groups_of(ids) if len(each) > 1):
        inside = np.ix_(members, members)
        if same[inside].all():
            copies.append(live[members])
            continue
        first, second = np.nonzero(np.triu(same[inside], 1))
        copies += list(live[np.column_stack([members[first], members[second]])])
        chains.append(live[members])
        weakest.append(float(size[inside].min()))
    return tuple(copies), tuple(chains), np.array(weakest)


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
    representation: Representation,
    labels: np.ndarray,
    order: np.ndarray,
    reader: str,
    seed: int,
    ids: np.ndarray | None,
) -> np.ndarray:
    """Accuracy of a reader of the first 1, 2, ... D dimensions, on samples it was not fitted on."""
    order_of_rows = np.random.default_rng(seed).permutation(len(labels))
    judged = held_out(labels, 0.5, order_of_rows, clusters=ids)
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
