"""Redundancy: which dimensions are sums of others, copies or dead, and how few would do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.cuts import held_out
from dimlab.given import RowsLike, as_rows
from dimlab.kernels import collinearity
from dimlab.kernels.correlation import correlation_of
from dimlab.moments import N_BLOCKS
from dimlab.probes._moments import Deal, OfRows, Rows, documented_of_rows
from dimlab.probes._reading import ReaderLike
from dimlab.probes._redundancy import by_chance, copies, explained, pivots, stability
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.readers.base import Progress, name_of
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Verdict, column, detail, entries, entry, per, scalar
from dimlab.targets import class_labels

NEEDS: tuple[set[str], ...] = (set(),)
_EXPLAINED = 0.9  # adjusted R^2 from which the others stand for a dimension
_MANY = 0.1  # share of the dimensions that vary, above which redundancy is the answer
_SHOWN = 12  # dimensions in a sentence


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Redundancy(OfRows):
    """What each of D dimensions repeats of the others.

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

    EFFECT = ("r_squared",)
    DIMENSIONS = (
        ("r_squared", "r_squared", "R² on the other dimensions"),
        ("adjusted_r_squared", "adjusted_r_squared", "the same, adjusted for chance"),
        ("group", "group", "redundant group"),
        ("group_size", "group_size", "dimensions in the group"),
        ("dead", "dead", "does not vary"),
    )

    n_samples: int = scalar("N, the number of samples.")
    n_dimensions = entry(len, doc="D, the number of dimensions.")
    dimension = column(lambda self: np.arange(len(self)), doc="Index of each dimension.")
    variance_inflation_factor: np.ndarray = per(
        "dimension",
        "1 / (1 - R^2); infinite where the dimension is a sum of others, NaN where it is dead.",
    )
    r_squared: np.ndarray = per(
        "dimension",
        "Share of the dimension's variance that the others explain linearly. Even independent "
        "dimensions have (D - 1) / (N - 1) on average.",
    )
    adjusted_r_squared: np.ndarray = per(
        "dimension",
        "1 - (1 - R^2) (N - 1) / (N - D): 0 on average for independent dimensions.",
    )
    group: np.ndarray = per(
        "dimension",
        "Group of each dimension: average linkage of correlations, cut at `cut`. Groups are "
        "numbered in order of their lowest dimension; a dead dimension is alone.",
    )
    group_stability: np.ndarray = per(
        "group",
        "For each of the G groups, the mean Jaccard overlap with its best match in random halves "
        "of the samples. NaN where halves could not be made.",
    )

    @column
    def of_group(self) -> dict[str, np.ndarray]:
        """Size and stability of each dimension's group, and what the dimension is."""
        return {
            "group_size": np.bincount(self.group)[self.group],
            "group_stability": self.group_stability[self.group],
            "redundant": self.is_redundant,
            "duplicate": self.is_duplicate,
        }

    explains_group: np.ndarray | None = per(
        "dimension",
        "Mean squared correlation with the other dimensions of the group; 0 where it is alone.",
        column=False,
        default=None,
    )
    dead: np.ndarray = per("dimension", "Whether the dimension does not vary.")
    mean: np.ndarray = per("dimension", "Mean of each dimension: the constant, for a dead one.")
    order: np.ndarray = per(
        "dimension",
        "Dimensions by pivoted QR: each time the one of which those before explain least.",
        column=False,
    )
    kept_variance: np.ndarray = per(
        "dimension",
        "Share of the total variance that the first 1, 2, ... of `order` explain linearly.",
        column=False,
    )
    kept_accuracy: np.ndarray | None = per(
        "dimension",
        "Accuracy of a reader of the first 1, 2, ... of `order`, fitted on one half of the samples "
        "and scored on the other. NaN where it was not evaluated.",
        column=False,
    )

    @column
    def choice(self) -> dict[str, np.ndarray]:
        """Columns ``pivot``, the place in ``order`` from 1, and ``in_subset``."""
        pivot = np.empty(len(self), dtype=np.int64)
        pivot[self.order] = np.arange(1, len(self) + 1)
        return {"pivot": pivot, "in_subset": np.isin(np.arange(len(self)), self.subset)}

    @entries
    def medians(self) -> dict[str, float]:
        """Medians over the dimensions that vary, by ``median_<name>``."""
        names = ("r_squared", "adjusted_r_squared", "variance_inflation_factor")
        return {
            f"median_{name}": float(np.median(getattr(self, name)[~self.dead])) for name in names
        }

    variance_inflation_null: float = scalar(
        "Median variance inflation factor of as many independent dimensions. NaN where N <= D."
    )
    r_squared_null: float = scalar(
        "95 % quantile of the largest R^2 of as many independent dimensions. NaN where N >= 20 D, "
        "so that it was not needed, or N <= D."
    )
    shared_null: float = scalar(
        "95 % quantile of the number of independent dimensions that would share a group at the "
        "cut asked for. NaN where N >= 20 D."
    )
    null_law: str = scalar("How these quantiles were found; empty where they were not.", default="")
    duplicates: tuple[np.ndarray, ...] = detail(
        "Groups of affine copies, each of shape (n,): absolute correlations within are at least "
        "1 - 1e-6, or as near to 1 as rounding to the precision of storage leaves copies. Of a "
        "chain, whose ends are no copies of each other, its pairs."
    )
    chains: tuple[np.ndarray, ...] = detail(
        "Groups of dimensions, each of shape (n,), that are linked by copies although not all of "
        "them are copies."
    )
    weakest: np.ndarray = per("chain", "For each of the C chains, the least absolute correlation.")

    @entries
    def counts(self) -> dict[str, Any]:
        """Numbers and lists of redundant, collinear, dead and duplicate dimensions, and chains."""
        return {
            "n_redundant": int(self.is_redundant.sum()),
            "redundant_dimensions": np.flatnonzero(self.is_redundant),
            "n_collinear": int(np.isinf(self.variance_inflation_factor).sum()),
            "n_dead": int(self.dead.sum()),
            "dead_dimensions": np.flatnonzero(self.dead),
            "n_duplicate": int(self.is_duplicate.sum()),
            "duplicates": self.duplicates,
            "chains": [
                {"dimensions": members, "weakest": weakest}
                for members, weakest in zip(self.chains, self.weakest, strict=True)
            ],
        }

    @entries
    def shared(self) -> dict[str, Any]:
        """Number of groups, and those of two dimensions or more, largest first."""
        found = [group for group in self.groups if len(group) > 1]
        return {
            "n_groups": len(self.groups),
            "n_shared_groups": len(found),
            "shared_groups": sorted(found, key=len, reverse=True),
        }

    cut: float = scalar(
        "Mean absolute correlation down to which groups were merged: the one asked for, or, with "
        "N < 20 D or clusters, the 95 % quantile of the largest of independent dimensions if that "
        "is larger."
    )
    stability: float = scalar("Mean adjusted Rand index of all groups with those of random halves.")

    @entry
    def subset_keeps(self) -> str:
        """What the subset keeps."""
        kept = "variance" if not self.reader else f"accuracy of a {self.reader} reader"
        return f"{self.keep:g} of the {kept}"

    n_subset = entry(lambda self: len(self.subset), doc="Dimensions in the subset.")
    subset: np.ndarray = scalar("The shortest beginning of `order` that keeps it, shape (n,).")
    keep: float = detail(
        "Share of the variance (or of the reader's full accuracy) that `subset` keeps."
    )
    reader: str = detail("Name of the reader; empty: the subset keeps variance.")

    def __len__(self) -> int:
        return len(self.group)

    @property
    def groups(self) -> tuple[np.ndarray, ...]:
        """Dimensions of each group, each of shape (n,), int, as `ablate` takes them."""
        return tuple(collinearity.groups_of(self.group))

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


def verdict(redundancy: Redundancy) -> Verdict:
    """Say whether dimensions are redundant."""
    n_alive = int((~redundancy.dead).sum())
    found, dead = np.flatnonzero(redundancy.is_redundant), np.flatnonzero(redundancy.dead)
    by_groups = bool(redundancy.caution)
    many = len(found) > _MANY * n_alive
    chance = np.nan_to_num(redundancy.shared_null)
    text = f"{len(found)} of {n_alive} dimensions that vary share a group of |r| >= "
    text += f"{redundancy.cut:.3g}"
    text += "" if by_groups else " or are explained by the others (adjusted R^2 >= 0.9)"
    text += f": {_listed(found)}." if len(found) and not many else "."
    if chance:
        text += f" The limit is as high as chance reaches with {redundancy.n_samples} samples."
    text += f" {len(dead)} {'is' if len(dead) == 1 else 'are'} dead" + (
        f": {_listed(dead)}." if len(dead) else "."
    )
    if by_groups:
        text += f" By groups alone: {redundancy.caution}"
    return Verdict(
        "Are dimensions redundant?",
        "yes" if many else "undecided" if chance > _MANY * n_alive else "no",
        text,
        "Yes: more than a tenth of the dimensions that vary share a group or have an adjusted R^2 "
        "of at least 0.9, above what chance gives; undecided: fewer do, but with so few samples "
        "more than a tenth of independent dimensions would correlate as strongly as was asked; "
        "else no.",
        tuple(found.tolist()),
    )


def _listed(dimensions: np.ndarray) -> str:
    shown = ", ".join(map(str, dimensions[:_SHOWN].tolist()))
    return shown if len(dimensions) <= _SHOWN else f"{shown} and {len(dimensions) - _SHOWN} more"


@documented_of_rows
def find_redundancy(
    representation: RowsLike,
    *,
    cut: float = 0.5,
    keep: float = 0.99,
    reader: ReaderLike | None = None,
    n_blocks: int = N_BLOCKS,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Redundancy:
    """Find dimensions that are dead, copies or sums of others, groups of them, and a subset.

    Parameters
    ----------
    representation : Representation, array or Moments
        N samples of D dimensions. Where N is not above the number of dimensions that vary, every
        R^2 would be 1: it is NaN then, and redundancy is judged by groups alone.
    cut : float, default=0.5
        Groups are merged while their mean absolute correlation is at least this, in (0, 1]; with
        few samples, at least what independent dimensions reach (see Notes).
    keep : float, default=0.99
        Share of the variance, or of the reader's accuracy, that the subset keeps, in (0, 1].
    reader : str or object, optional
        Keep the accuracy of this reader, as `ablate` takes it, instead of variance; needs labels.

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
        If what must be held does not fit into the memory that is free.

    Warns
    -----
    UserWarning
        If N is not above the number of dimensions that vary.

    Notes
    -----
    Variance inflation factors are the diagonal of the inverse correlation matrix [1]_, all from one
    eigendecomposition; a dimension with a component of more than 1e-8 in an eigenvector whose
    eigenvalue is <= D eps (largest eigenvalue) is a sum of others: R^2 = 1.

    With N < 20 D chance alone makes R^2 large: for independent Gaussian dimensions it follows the
    Beta distribution with (D - 1) / 2 and (N - D) / 2, of which the quantile at 1 - 0.05 / D is
    taken; where tails are heavy, or rows come in clusters, the null is the largest R^2 of 19
    permutations of every column.

    Groups: average linkage on ``1 - |r|``. With N < 20 D, chance makes correlations large too. So
    that independent dimensions form no group with a probability of 95 %, groups are then not merged
    below the 95 % quantile of their largest ``|r|``: the largest of 19 permutations of every column
    or, for moments and very many features, Bonferroni's bound on the Beta distribution of
    ``r^2``. The stability of groups [2]_ is that of random halves of the samples: with half the
    samples, groups that only just merged fall apart.

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
    representation = as_rows(representation)
    for name, value in (("cut", cut), ("keep", keep)):
        if not 0 < value <= 1:
            raise Refusal(f"{name} must lie in (0, 1]; got {value:g}.")
    rows = Rows.of(
        representation, "find_redundancy", Deal(n_blocks, clusters, seed, device), matrices=22
    )
    labels = representation.labels if isinstance(representation, Representation) else None
    if reader is not None and labels is None:
        what = "no labels" if rows.arrays else "moments"
        raise Refusal(f"reader must come with a Representation that has labels; got {what}.")
    labels = labels if reader is None else class_labels(labels, "reader")
    moments, live, dead = rows.moments, rows.live, rows.dead
    matrix = correlation_of(moments, dead)
    caution = ""
    if moments.n <= len(live):
        caution = (
            f"N = {moments.n} samples do not exceed the {len(live)} dimensions that vary: every "
            "R^2 would be 1, so redundancy is judged by groups alone. Use more samples."
        )
        warnings.warn(caution, UserWarning, stacklevel=2)
    chance = by_chance(rows, cut, seed)
    group = collinearity.group_ids(matrix, chance["cut"])
    agreement, of_groups = stability(rows, group, chance["cut"], seed, progress)
    duplicates, chains, weakest = copies(rows, matrix)
    order, kept_variance = pivots(rows)
    accuracy = None
    if isinstance(representation, Representation) and labels is not None and reader is not None:
        accuracy = _accuracies(representation, labels, order, reader, seed, rows.ids)
    return Redundancy(
        **explained(rows, matrix),
        **chance,
        group=group,
        explains_group=_shared_within(matrix, group),
        group_stability=of_groups,
        stability=agreement,
        dead=dead,
        mean=moments.mean[0],
        duplicates=duplicates,
        chains=chains,
        weakest=weakest,
        order=order,
        kept_variance=kept_variance,
        kept_accuracy=accuracy,
        keep=keep,
        subset=order[: _shortest(kept_variance if accuracy is None else accuracy, keep)],
        reader="" if reader is None else name_of(reader),
        n_samples=moments.n,
        caution=caution,
        **rows.said,
    )


def _shared_within(matrix: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean squared correlation (D,) of each dimension with the others of its group."""
    shared = np.zeros(len(group))
    for members in collinearity.groups_of(group):
        squares = matrix[np.ix_(members, members)] ** 2
        np.fill_diagonal(squares, 0.0)
        shared[members] = squares.sum(axis=0) / max(len(members) - 1, 1)
    return shared


def _shortest(kept: np.ndarray, keep: float) -> int:
    """Fewest leading dimensions that keep this share of what all of them have."""
    enough = kept >= keep * kept[-1] * (1 - 1e-12)
    return int(np.flatnonzero(enough)[0]) + 1


def _accuracies(
    representation: Representation,
    labels: np.ndarray,
    order: np.ndarray,
    reader: ReaderLike,
    seed: int,
    ids: np.ndarray | None,
) -> np.ndarray:
    """Accuracy of a reader of the first 1, 2, ... D dimensions, on samples it was not fitted on."""
    order_of_rows = np.random.default_rng(seed).permutation(len(labels))
    judged = held_out(labels, 0.5, order_of_rows, clusters=ids)
    if not judged.any():
        raise Refusal("labels must have a class of at least 2 samples for a reader; got none.")
    fit, judge = representation.take(~judged), representation.take(judged)
    curve = ablate_cumulatively(fit, judge, order=order[::-1], reader=reader, seed=seed)
    found = np.full(len(order), np.nan)
    n_kept = len(order) - curve.n_removed
    some = n_kept > 0
    found[n_kept[some] - 1] = curve.scores[some]
    return found
