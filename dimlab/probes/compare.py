"""Comparison: the same numbers of several representations, and how alike they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.devices import hold
from dimlab.given import RepresentationLike, as_representation
from dimlab.kernels.correlation import permutation_of, standardised
from dimlab.kernels.similarity import (
    centred_products,
    hilbert_schmidt,
    matched_dimensions,
    nuclear_similarity,
)
from dimlab.moments import N_BLOCKS
from dimlab.pairing import BY_NAME, BY_ORDER, pair
from dimlab.probes._differences import COLUMNS, STATISTICS, differences, sampled
from dimlab.probes._moments import RANKS, Deal, caution_of_rank, documented_of_rows, in_blocks
from dimlab.probes._reading import basis_of
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, column, detail, entry, per, scalar

NEEDS: tuple[set[str], ...] = (set(),)
_N_MATCHES = 39  # permutations of samples: the second largest is then a 95 % quantile
_MOST_MATCHED = 20_000  # samples that dimensions are matched on
_LEVEL = 0.95


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison(Result):
    """S representations side by side in M statistics; differences are to the reference.

    Examples
    --------
    >>> features = np.random.default_rng(0).normal(size=(300, 2))
    >>> turned = Representation(features @ np.array([[0.6, 0.8], [-0.8, 0.6]]))
    >>> comparison = compare({"a": Representation(features), "b": turned})
    >>> comparison.similarities()[["cka", "procrustes"]].round(6).values.tolist()
    [[1.0, 1.0]]
    >>> comparison.matches()["match"].round(1).tolist()  # a rotation keeps no dimension
    [0.8, 0.8]
    >>> comparison.summary()["reference"], list(comparison.tables()), len(comparison.to_frame())
    ('a', ['similarities', 'matches'], 12)
    """

    ROWS = "representation and statistic"
    EFFECT = ("difference",)
    TABLES = (("similarities", "similarities"), ("matches", "matches"))

    names: tuple[str, ...] = detail("Names of the representations.")
    reference: str = scalar("The one that the others are compared with.")
    statistics: tuple[str, ...] = detail(
        "Names of the M statistics. `mean_diagonal` is NaN without two views."
    )
    values: np.ndarray = per(
        "representation",
        "Statistics of these samples. `off_diagonal_rms` is beyond chance, as in `correlate`.",
        shape="(S, M)",
    )
    corrected: np.ndarray = per(
        "representation",
        "Statistics without the bias that falls as 1 / N. The last three have no such bias, so "
        "that they are the values themselves.",
        shape="(S, M)",
    )
    corrected_low: np.ndarray = per(
        "representation", "Lower end of the 95 % jackknife interval of it.", shape="(S, M)"
    )
    corrected_high: np.ndarray = per("representation", "Upper end of it.", shape="(S, M)")
    difference: np.ndarray = per(
        "representation", "Corrected value minus that of the reference.", shape="(S, M)"
    )
    difference_low: np.ndarray = per(
        "representation",
        "Lower end of its 95 % interval: paired over samples where `paired`; NaN for the reference "
        "itself.",
        shape="(S, M)",
    )
    difference_high: np.ndarray = per("representation", "Upper end of it.", shape="(S, M)")
    doubtful: np.ndarray = per(
        "representation",
        "Whether the interval of the corrected value may cover less than 95 %, as in `decompose`.",
        shape="(S, M)",
    )
    difference_doubtful: np.ndarray = per(
        "representation", "The same of the difference.", shape="(S, M)"
    )
    paired: np.ndarray = per(
        "representation", "Whether it is of the same samples as the reference.", shape="(S,)"
    )
    n_samples: np.ndarray = per("representation", "N of each.", shape="(S,)")
    n_dimensions: np.ndarray = per("representation", "D of each.", shape="(S,)")
    n_dead: np.ndarray = per("representation", "Dimensions of each that do not vary.", shape="(S,)")
    cka: np.ndarray = per(
        "representation",
        "Linear centred kernel alignment, debiased; NaN where samples differ.",
        shape="(S, S)",
    )
    cka_biased: np.ndarray = per("representation", "The same, plain.", shape="(S, S)")
    procrustes: np.ndarray = per(
        "representation",
        "The largest correlation that a rotation can reach; NaN where samples differ.",
        shape="(S, S)",
    )
    partner: dict[str, np.ndarray] = detail(
        "For each representation of the reference's samples: the reference's dimension that each "
        "of its dimensions is matched with, one to one, shape (D,); -1: none."
    )
    match: dict[str, np.ndarray] = detail(
        "Absolute correlation of each dimension with its partner, shape (D,)."
    )
    match_null: dict[str, float] = detail(
        "95 % quantile, over permutations of the samples, of the largest correlation of any two "
        "dimensions: a match above it is beyond chance, whatever the number of dimensions."
    )
    basis: tuple[str, ...] = detail("Basis of each representation.")
    paired_by: tuple[str, ...] = detail(
        "How the rows of each were paired with the reference's: `row names`, `order`, or empty for "
        "the reference and for other samples.",
        default=(),
    )
    clustered: bool = detail(
        "Whether rows were taken to be independent between clusters only.", default=False
    )

    @column
    def rows(self) -> dict[str, Any]:
        """One row a representation and statistic."""
        m, n = len(self.statistics), len(self.names)
        return {
            "representation": np.repeat(self.names, m),
            **{
                name: np.repeat(getattr(self, name), m)
                for name in ("n_samples", "n_dimensions", "n_dead")
            },
            "statistic": np.tile(self.statistics, n),
            "value": self.values.ravel(),
            **{name: getattr(self, name).ravel() for name in COLUMNS[1:]},
            "paired": np.repeat(self.paired, m),
        }

    representations = entry(
        lambda self: {name: self._of(row, name) for row, name in enumerate(self.names)},
        doc="By name: sizes, statistics with intervals, similarities with the reference, matches.",
    )

    @entry
    def intervals(self) -> str:
        """What the intervals are over."""
        return (
            f"{in_blocks(self.clustered)}, of values without the bias that falls as 1/N; "
            "differences are paired where the samples are the same."
        )

    def _of(self, row: int, name: str) -> dict[str, Any]:
        """Return what the summary says of one representation."""
        base = self.names.index(self.reference)
        numbers, bounds = dict(zip(self.statistics, self.values[row], strict=True)), {}
        for place, statistic in enumerate(self.statistics):
            key = f"{statistic}_corrected" if statistic in RANKS else statistic
            numbers[key] = self.corrected[row, place]
            pair = [float(x[row, place]) for x in (self.corrected_low, self.corrected_high)]
            bounds[f"{key}_interval"] = pair if np.isfinite(pair).all() else None
        for kind in ("cka", "cka_biased", "procrustes"):
            numbers[kind] = getattr(self, kind)[row, base]
        beyond = {}
        if name in self.match:
            match, chance = self.match[name], self.match_null[name]
            numbers |= {"mean_match": np.nanmean(match), "match_null": chance}
            beyond = {"n_matched_beyond_chance": int((match > chance).sum())}
        return {
            "n_samples": self.n_samples[row],
            "n_dimensions": self.n_dimensions[row],
            "n_dead": self.n_dead[row],
            "basis": self.basis[row],
            "paired": self.paired[row],
            "paired_by": self.paired_by[row] or None if self.paired_by else None,
            **numbers,
            **bounds,
            "doubtful": np.array(self.statistics)[self.doubtful[row]],
            **beyond,
        }

    def similarities(self) -> Any:
        """Return one row a pair of representations.

        Returns
        -------
        pandas.DataFrame
            ``first, second, cka, cka_biased, procrustes``.
        """
        import pandas as pd

        rows, columns = np.triu_indices(len(self.names), 1)
        names = np.array(self.names)
        frame = {"first": names[rows], "second": names[columns]}
        for name in ("cka", "cka_biased", "procrustes"):
            frame[name] = getattr(self, name)[rows, columns]
        return pd.DataFrame(frame)

    def matches(self) -> Any:
        """Return one row a dimension of each representation matched with the reference.

        Returns
        -------
        pandas.DataFrame
            ``representation, dimension, partner, match, beyond_chance``.
        """
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "representation": name,
                    "dimension": np.arange(len(partner)),
                    "partner": partner,
                    "match": self.match[name],
                    "beyond_chance": self.match[name] > self.match_null[name],
                }
            )
            for name, partner in self.partner.items()
        ]
        columns = ["representation", "dimension", "partner", "match", "beyond_chance"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


@documented_of_rows
def compare(
    representations: Mapping[str, RepresentationLike],
    *,
    reference: str | None = None,
    n_blocks: int = N_BLOCKS,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Comparison:
    """Compare representations: ranks, redundancy, similarity, and which dimensions correspond.

    Parameters
    ----------
    representations : mapping of str to Representation or array
        Two or more, of the same samples where they are to be paired: several seeds or methods, or
        the checkpoints of one run.
    reference : str, optional
        What the others are compared with; the first by default.
    clusters : str or ndarray of shape (N,), optional
        Which rows belong together (name of a factor, or one value a row of the reference, which
        then stands for the same row of all): blocks are made of whole clusters, and the null of
        matching permutes them. By default rows are independent.

    Returns
    -------
    Comparison
        Tables.

    Raises
    ------
    ValueError
        If there are fewer than two, the reference is not among them, the rows of two with equally
        many have names that are not the same, a representation has fewer than four samples or
        does not vary, ``n_blocks`` < 2, clusters do not fit the rows, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Warns
    -----
    UserWarning
        If N <= D: ranks are biased downwards.

    Notes
    -----
    Samples are the same where N is equal and the rows have the same names, in any order (`pair`);
    without names, where labels are equal too (both or neither given), row by row. Ranks are of
    uncentred singular values, as in `decompose`; correlations are within the features, and
    ``mean_diagonal`` between the first two views.

    CKA [1]_ of linear kernels, debiased [2]_: the plain one nears 1 for any two representations
    with D well above N. Procrustes: nuclear norm of the cross-product over both Frobenius norms.
    Dimensions are matched so that their summed absolute correlation is largest, on at most 20,000
    samples drawn at random (all of them where there are clusters); ``match_null`` is the null of
    the maximum over dimensions [3]_.

    Differences: intervals recovered from those of both values [4]_, with the correlation of the
    jackknife's deviations where samples are the same.

    References
    ----------
    .. [1] Kornblith et al., "Similarity of neural network representations revisited", ICML 2019.
    .. [2] Song et al., "Feature selection via dependence maximization", JMLR 13, 2012.
    .. [3] Westfall and Young, "Resampling-Based Multiple Testing", 1993.
    .. [4] Zou, "Toward using confidence intervals to compare correlations", Psychological Methods
       12, 2007.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(300, 4))
    >>> shuffled = Representation(features[:, [2, 0, 3, 1]])
    >>> comparison = compare({"a": Representation(features), "b": shuffled})
    >>> comparison.partner["b"].tolist(), comparison.cka.round(6).tolist()
    ([2, 0, 3, 1], [[1.0, 1.0], [1.0, 1.0]])
    """
    representations = {
        name: as_representation(each, f"representations[{name!r}]")
        for name, each in representations.items()
    }
    names, base = _checked(representations, reference, n_blocks)
    splits, by_name = _paired(list(representations.values()), names, base)
    largest = max(splits, key=lambda split: split.n_dimensions)
    matrices = 16 * len(splits) * n_blocks * largest.n_dimensions**2
    hold(matrices, "compare", f"{n_blocks} blocks of moments", "Pass fewer (--blocks).")
    for name, split in zip(names, splits, strict=True):
        caution = caution_of_rank(*split.features.shape)
        if caution:
            warnings.warn(f"{name}: {caution}", UserWarning, stacklevel=2)
    n_steps, done = len(names) + len(names) * (len(names) + 1) // 2, 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, n_steps)

    ids = [cluster_ids(split, clusters) for split in splits]
    measured = []
    for split in splits:
        measured.append(sampled(split, Deal(n_blocks, clusters, seed, device)))
        step()
    same = _same(splits, by_name)
    return Comparison(
        names=names,
        reference=names[base],
        statistics=STATISTICS,
        **differences(measured, base, same[base]),
        paired=same[base],
        n_samples=np.array([len(each) for each in splits]),
        n_dimensions=np.array([each.n_dimensions for each in splits]),
        n_dead=np.array([each.n_dead for each in measured]),
        **_similarities(splits, same, step),
        **_matchings(splits, names, base, same[base], seed, ids[base]),
        basis=tuple(basis_of(each) for each in splits),
        paired_by=tuple(
            "" if each == base or not same[base, each] else BY_NAME if each in by_name else BY_ORDER
            for each in range(len(splits))
        ),
        clustered=any(each is not None for each in ids),
    )


def _checked(
    representations: Mapping[str, Representation], reference: str | None, n_blocks: int
) -> tuple[tuple[str, ...], int]:
    names = tuple(representations)
    if len(names) < 2:
        raise Refusal(f"representations must be two or more; got {len(names)}.")
    if reference is not None and reference not in names:
        raise Refusal(f"reference must be one of {', '.join(map(repr, names))}; got {reference!r}.")
    if n_blocks < 2:
        raise Refusal(f"n_blocks must be >= 2; got {n_blocks}.")
    for name, each in representations.items():
        if len(each) < 4:
            raise Refusal(f"compare needs at least 4 samples; got {len(each)} in {name!r}.")
    return names, names.index(reference) if reference is not None else 0


def _paired(
    splits: list[Representation], names: tuple[str, ...], base: int
) -> tuple[list[Representation], set[int]]:
    """Put rows in the order of the reference, or of the first of as many; which ones by name."""
    splits, by_name = list(splits), set()
    leaders: dict[int, int] = {}
    for place in (base, *range(base), *range(base + 1, len(splits))):
        leader = leaders.setdefault(len(splits[place]), place)
        if leader == place:
            continue
        pair_names = names[leader], names[place]
        splits[place], how = pair(splits[leader], splits[place], names=pair_names)
        if how == BY_NAME:
            by_name |= {leader, place}
    return splits, by_name


def _same(splits: list[Representation], by_name: set[int]) -> np.ndarray:
    """Whether two of S splits are of the same samples, (S, S): by row names, or by labels."""

    def is_same(i: int, j: int) -> bool:
        a, b = splits[i], splits[j]
        if len(a) != len(b) or (i in by_name and j in by_name):
            return len(a) == len(b)
        if a.labels is None or b.labels is None:
            return a.labels is None and b.labels is None
        return bool(np.array_equal(a.labels, b.labels))

    places = range(len(splits))
    return np.array([[is_same(i, j) for j in places] for i in places])


def _similarities(
    splits: list[Representation], same: np.ndarray, step: Callable[[], None]
) -> dict[str, Any]:
    """Return CKA, debiased and plain, and Procrustes of each pair, (S, S)."""
    found: dict[str, Any] = {
        kind: np.full(same.shape, np.nan) for kind in ("cka", "cka_biased", "procrustes")
    }
    for i in range(len(splits)):
        for j in range(i, len(splits)):
            if same[i, j]:
                parts = centred_products(splits[i].features, splits[j].features)
                values = (
                    hilbert_schmidt(*parts, debiased=True),
                    hilbert_schmidt(*parts, debiased=False),
                    1.0 if i == j else nuclear_similarity(*parts),
                )
                for table, value in zip(found.values(), values, strict=True):
                    table[i, j] = table[j, i] = value
            step()
    for kind in ("cka", "cka_biased"):
        sizes = np.diagonal(found[kind])
        sizes = np.sqrt(np.where(sizes > 0, sizes, np.nan))
        found[kind] /= np.outer(sizes, sizes)
    return found


def _matchings(
    splits: list[Representation],
    names: tuple[str, ...],
    base: int,
    paired: np.ndarray,
    seed: int,
    ids: np.ndarray | None,
) -> dict[str, Any]:
    """Dimensions matched with the reference's, and what chance gives."""
    rows: Any = slice(None)
    if ids is not None:  # rows of a cluster lie together
        rows = np.argsort(ids, kind="stable")
        ids = ids[rows]
    elif len(splits[base]) > _MOST_MATCHED:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(splits[base]), _MOST_MATCHED, replace=False))
    target = standardised(splits[base].features[rows], splits[base].eps)
    found: dict[str, Any] = {"partner": {}, "match": {}, "match_null": {}}
    for index, name in enumerate(names):
        if index == base or not paired[index]:
            continue
        mine = standardised(splits[index].features[rows], splits[index].eps)
        found["partner"][name], found["match"][name] = _matched(mine, target)
        rng = np.random.default_rng(seed)
        chance = [
            np.abs(mine.T @ target[permutation_of(len(target), ids, rng)]).max()
            for _ in range(_N_MATCHES)
        ]
        found["match_null"][name] = float(np.quantile(chance, _LEVEL, method="weibull"))
    return found


def _matched(mine: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    correlation = mine.T @ target
    partner = matched_dimensions(correlation)
    match = np.abs(correlation[np.arange(len(partner)), np.maximum(partner, 0)])
    return partner, np.where(partner < 0, np.nan, np.minimum(match, 1.0))
