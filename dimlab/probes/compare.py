"""Comparison: the same numbers of several representations, and how alike they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.kernels.correlation import (
    chance_of,
    dead_dimensions,
    effective_samples,
    off_diagonal_rms,
    permutation_of,
    redundancy_of,
    replicate_of,
    rooted,
)
from dimlab.kernels.jackknife import (
    corrected_interval,
    jackknife_deviations,
    jackknife_interval,
)
from dimlab.kernels.reliability import block_kurtosis, doubtful_statistics, is_heavy
from dimlab.kernels.rounding import spread_floor
from dimlab.kernels.similarity import (
    centred_products,
    hilbert_schmidt,
    matched_dimensions,
    nuclear_similarity,
)
from dimlab.kernels.spectra import entropy_rank, participation_ratio, stable_rank
from dimlab.memory import Shapes, foresee
from dimlab.moments import N_BLOCKS, Moments
from dimlab.pairing import BY_NAME, BY_ORDER, pair
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain
from dimlab.probes.decompose import SCALES, caution_of, replicates, singular_values_of
from dimlab.representation import Representation

STATISTICS = (
    "effective_rank",
    "participation_ratio",
    "stable_rank",
    "off_diagonal_rms",
    "mean_redundancy",
    "mean_diagonal",
)
_N_MATCHES = 39  # permutations of samples: the second largest is then a 95 % quantile
_MOST_MATCHED = 20_000  # samples that dimensions are matched on
_LEVEL = 0.95
_COLUMNS = (
    "values", "corrected", "corrected_low", "corrected_high", "difference", "difference_low",
    "difference_high", "doubtful", "difference_doubtful",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """S representations side by side; differences are to the reference.

    Parameters
    ----------
    names : tuple of str
        Of the representations.
    reference : str
        The one that the others are compared with.
    statistics : tuple of str
        Names of the M statistics. ``mean_diagonal`` is NaN without two views.
    values : ndarray of shape (S, M)
        Statistics of these samples. ``off_diagonal_rms`` is beyond chance, as in `correlate`.
    corrected, corrected_low, corrected_high : ndarray of shape (S, M)
        Statistics without the bias that falls as 1 / N, and 95 % jackknife intervals of these. The
        last three statistics have no such bias, so that they are the values themselves.
    difference, difference_low, difference_high : ndarray of shape (S, M)
        Corrected value less that of the reference, with 95 % intervals: paired over samples where
        ``paired``; NaN bounds for the reference itself.
    doubtful, difference_doubtful : ndarray of shape (S, M), bool
        Whether the interval of the corrected value, or of the difference, may cover less than 95 %,
        as in `decompose`.
    paired : ndarray of shape (S,), bool
        Whether the representation is of the same samples as the reference.
    n_samples, n_dimensions, n_dead : ndarray of shape (S,), int
        N, D, and dimensions that do not vary.
    cka, cka_biased, procrustes : ndarray of shape (S, S)
        Linear centred kernel alignment, debiased and plain; and the largest correlation that a
        rotation can reach. NaN where samples differ.
    partner : dict of str to ndarray of shape (D,), int
        For each representation of the reference's samples: the reference's dimension that each of
        its dimensions is matched with, one to one; -1: none.
    match : dict of str to ndarray of shape (D,)
        Absolute correlation of each dimension with its partner.
    match_null : dict of str to float
        95 % quantile, over permutations of the samples, of the largest correlation of any two
        dimensions: a match above it is beyond chance, whatever the number of dimensions.
    basis : tuple of str
        Basis of each representation.
    paired_by : tuple of str
        How the rows of each were paired with the reference's: ``row names``, ``order``, or empty
        for the reference and for other samples.
    clustered : bool
        Whether rows were taken to be independent between clusters only.

    References
    ----------
    Those of `compare`, which measures it.

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

    names: tuple[str, ...]
    reference: str
    statistics: tuple[str, ...]
    values: np.ndarray
    corrected: np.ndarray
    corrected_low: np.ndarray
    corrected_high: np.ndarray
    difference: np.ndarray
    difference_low: np.ndarray
    difference_high: np.ndarray
    doubtful: np.ndarray
    difference_doubtful: np.ndarray
    paired: np.ndarray
    n_samples: np.ndarray
    n_dimensions: np.ndarray
    n_dead: np.ndarray
    cka: np.ndarray
    cka_biased: np.ndarray
    procrustes: np.ndarray
    partner: dict[str, np.ndarray]
    match: dict[str, np.ndarray]
    match_null: dict[str, float]
    basis: tuple[str, ...]
    paired_by: tuple[str, ...] = ()
    clustered: bool = False

    def to_frame(self) -> Any:
        """Return one row a representation and statistic.

        Returns
        -------
        pandas.DataFrame
            ``representation, n_samples, n_dimensions, n_dead, statistic, value, corrected,
            corrected_low, corrected_high, difference, difference_low, difference_high, doubtful,
            difference_doubtful, paired``.
        """
        import pandas as pd

        n_statistics = len(self.statistics)
        columns: dict[str, Any] = {"representation": np.repeat(self.names, n_statistics)}
        for name in ("n_samples", "n_dimensions", "n_dead"):
            columns[name] = np.repeat(getattr(self, name), n_statistics)
        columns["statistic"] = np.tile(self.statistics, len(self.names))
        columns["value"] = self.values.ravel()
        for name in _COLUMNS[1:]:
            columns[name] = getattr(self, name).ravel()
        columns["paired"] = np.repeat(self.paired, n_statistics)
        return pd.DataFrame(columns)

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``similarities`` and ``matches``.
        """
        return {"similarities": self.similarities(), "matches": self.matches()}

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

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            ``reference``; under ``representations``, by name, statistics (with ``_corrected`` and
            its interval where they are biased), similarities with the reference, the mean match,
            and how many dimensions match beyond ``match_null``; and what the intervals mean.
        """
        base = self.names.index(self.reference)
        each: dict[str, Any] = {}
        for row, name in enumerate(self.names):
            numbers, bounds = dict(zip(self.statistics, self.values[row], strict=True)), {}
            for column, statistic in enumerate(self.statistics):
                key = f"{statistic}_corrected" if statistic in SCALES else statistic
                numbers[key] = self.corrected[row, column]
                pair = [float(x[row, column]) for x in (self.corrected_low, self.corrected_high)]
                bounds[f"{key}_interval"] = pair if np.isfinite(pair).all() else None
            numbers |= {
                kind: getattr(self, kind)[row, base] for kind in ("cka", "cka_biased", "procrustes")
            }
            if name in self.match:
                numbers["mean_match"] = np.nanmean(self.match[name])
                numbers["match_null"] = self.match_null[name]
            each[name] = {
                "n_samples": int(self.n_samples[row]),
                "n_dimensions": int(self.n_dimensions[row]),
                "n_dead": int(self.n_dead[row]),
                "basis": self.basis[row],
                "paired": bool(self.paired[row]),
                "paired_by": self.paired_by[row] or None if self.paired_by else None,
                **{kind: plain(number) for kind, number in numbers.items()},
                **bounds,
                "doubtful": np.array(self.statistics)[self.doubtful[row]].tolist(),
            }
            if name in self.match:
                beyond = self.match[name] > self.match_null[name]
                each[name]["n_matched_beyond_chance"] = int(beyond.sum())
        return {
            "reference": self.reference,
            "representations": each,
            "intervals": "95 %, jackknife over blocks of "
            + ("clusters" if self.clustered else "samples")
            + ", of values without the bias that falls as 1/N; differences are paired where the "
            "samples are the same.",
        }


def compare(
    representations: Mapping[str, Representation],
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
    representations : mapping of str to Representation
        Two or more, of the same samples where they are to be paired: several seeds or methods, or
        the checkpoints of one run.
    reference : str, optional
        What the others are compared with; the first by default.
    n_blocks : int, default=20
        Blocks of the jackknife, >= 2.
    clusters : str or ndarray of shape (N,), optional
        Which rows belong together (name of a factor, or one value a row of the reference, which
        then stands for the same row of all): blocks are made of whole clusters, and the null of
        matching permutes them. By default rows are independent.
    seed : int, default=0
        Deals samples to blocks, permutes them for the null of matching.
    device : str, default="cpu"
        Where moments are taken.
    progress : callable, optional
        Called as ``progress(done, total)`` over representations and pairs.

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
        If it would not fit into the memory that is free; the sentence says what would.

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
    Dimensions are matched one to one so that their summed absolute correlation is largest; chance
    alone gives matches above 0. ``match_null`` is the null of the maximum over dimensions [3]_, so
    that in 95 % of the comparisons no unrelated dimension lies above it. At most 20,000 samples,
    drawn at random, are matched on (all of them where there are clusters).

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
    names, base = _checked(representations, reference, n_blocks)
    splits, by_name = _paired(list(representations.values()), names, base)
    largest = max(splits, key=lambda split: split.n_dimensions)
    foresee(
        "compare",
        Shapes(0, len(largest), largest.n_dimensions, n_draws=len(splits), n_blocks=n_blocks),
    )
    for name, split in zip(names, splits, strict=True):
        caution = caution_of(*split.features.shape)
        if caution:
            warnings.warn(f"{name}: {caution}", UserWarning, stacklevel=2)
    n_steps, done = len(names) + len(names) * (len(names) + 1) // 2, 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, n_steps)

    ids = [cluster_ids(split, clusters) for split in splits]
    sampled = []
    for split, own_ids in zip(splits, ids, strict=True):
        sampled.append(_sampled(split, own_ids, n_blocks, seed, device))
        step()
    same = np.array(
        [
            [(i in by_name and j in by_name and len(a) == len(b)) or _same_samples(a, b)
             for j, b in enumerate(splits)]
            for i, a in enumerate(splits)
        ]
    )  # fmt: skip
    similar: dict[str, Any] = {
        kind: np.full(same.shape, np.nan) for kind in ("cka", "cka_biased", "procrustes")
    }
    own: dict[int, tuple[float, float]] = {}
    for i in range(len(splits)):
        for j in range(i, len(splits)):
            if same[i, j]:
                _fill(similar, own, splits, i, j)
            step()
    _normalise(similar, own)
    columns: dict[str, Any] = _tables(sampled, base, same[base])
    matching: dict[str, Any] = _matchings(splits, names, base, same[base], seed, ids[base])
    return Comparison(
        names=names,
        reference=names[base],
        statistics=STATISTICS,
        **columns,
        paired=same[base],
        n_samples=np.array([len(each) for each in splits]),
        n_dimensions=np.array([each.n_dimensions for each in splits]),
        n_dead=np.array([each.n_dead for each in sampled]),
        **similar,
        **matching,
        basis=tuple(basis_of(each) for each in splits),
        paired_by=tuple(
            "" if each == base or not same[base, each] else BY_NAME if each in by_name else BY_ORDER
            for each in range(len(splits))
        ),
        clustered=any(each is not None for each in ids),
    )


class _Sampled(NamedTuple):
    """Statistics of one representation: (M,) arrays, deviations (B, M)."""

    values: np.ndarray
    corrected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    deviations: np.ndarray  # their products summed over blocks: covariances
    doubtful: np.ndarray
    n_dead: int


def _checked(
    representations: Mapping[str, Representation], reference: str | None, n_blocks: int
) -> tuple[tuple[str, ...], int]:
    names = tuple(representations)
    if len(names) < 2:
        raise ValueError(f"representations must be two or more; got {len(names)}.")
    if reference is not None and reference not in names:
        raise ValueError(
            f"reference must be one of {', '.join(map(repr, names))}; got {reference!r}."
        )
    if n_blocks < 2:
        raise ValueError(f"n_blocks must be >= 2; got {n_blocks}.")
    for name, each in representations.items():
        if len(each) < 4:
            raise ValueError(f"compare needs at least 4 samples; got {len(each)} in {name!r}.")
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


def _same_samples(a: Representation, b: Representation) -> bool:
    if len(a) != len(b) or (a.labels is None) != (b.labels is None):
        return False
    if a.labels is None or b.labels is None:
        return True
    return bool(np.array_equal(a.labels, b.labels))


def _sampled(
    split: Representation, ids: np.ndarray | None, n_blocks: int, seed: int, device: str
) -> _Sampled:
    """Statistics of one representation, with intervals."""
    rows = split.features
    moments_of = partial(
        Moments.of, n_blocks=n_blocks, seed=seed, clusters=ids, device=device,
        precision=split.precision,
    )  # fmt: skip
    moments = moments_of(rows)
    dead = dead_dimensions(moments)
    live = np.flatnonzero(~dead)
    if len(live) == 0:
        raise ValueError("representations must vary in some dimension; got a constant one.")
    n_effective = moments.n if ids is None else effective_samples((rows,), ids)

    def numbers(each: Moments) -> np.ndarray:
        values = singular_values_of(each, centred=False)
        matrix, _ = replicate_of(each, dead)
        left = n_effective * (each.n / moments.n)
        beyond = off_diagonal_rms(matrix[np.ix_(live, live)]) ** 2 - chance_of(live, left)
        redundancy = redundancy_of(matrix, live, left)[live].mean()
        ranks = (entropy_rank(values), participation_ratio(values), stable_rank(values))
        return np.array([*ranks, beyond, redundancy])

    counts, full, without = replicates(moments, numbers)
    agreement, agreements = np.array([np.nan]), np.full((len(counts), 1), np.nan)
    if split.views is not None and len(split.views) > 1:
        pairs = moments_of((split.views[0], split.views[1]))
        varying = np.flatnonzero(~dead_dimensions(pairs))
        _, agreement, agreements = replicates(
            pairs, lambda each: np.array([_mean_diagonal(each, varying)])
        )
    n_units = moments.n if ids is None else int(ids.max()) + 1
    kurtosis = block_kurtosis(moments)
    doubtful: tuple[str, ...] = STATISTICS
    if not is_heavy(kurtosis, n_units):
        doubtful = doubtful_statistics(
            singular_values_of(moments, centred=False),
            n_rows=n_units,
            n_dimensions=moments.n_dimensions,
            kurtosis=kurtosis,
        )
    values, corrected, low, high, deviations = _with_intervals(
        np.concatenate([full, agreement]),
        np.concatenate([without, agreements], axis=1),
        counts,
        moments.n_dimensions,
    )
    marked = np.isin(STATISTICS, doubtful)
    return _Sampled(values, corrected, low, high, deviations, marked, int(dead.sum()))


def _with_intervals(
    full: np.ndarray, without: np.ndarray, counts: np.ndarray, n_dimensions: int
) -> tuple[np.ndarray, ...]:
    """Values, corrected ones, their intervals as the probes give them, and deviations (B, M)."""
    values, corrected = full.copy(), full.copy()
    low, high = jackknife_interval(full, without, counts, corrected=False)
    deviations = jackknife_deviations(full, without, counts)[1]
    for column, name in enumerate(STATISTICS):
        one = slice(column, column + 1)
        if name in SCALES:
            corrected[one], low[one], high[one] = corrected_interval(
                full[one], without[:, one], counts, scale=SCALES[name], lowest=1.0,
                highest=n_dimensions,
            )  # fmt: skip
        elif name == "off_diagonal_rms":
            for each in (values, corrected, low, high):
                each[column] = rooted(each[column])
    return values, corrected, low, high, deviations


def _mean_diagonal(pairs: Moments, varying: np.ndarray) -> float:
    """Mean correlation of each dimension that varies with itself in the other view."""
    norms = np.sqrt(pairs.squares[0][:, varying])
    products = np.diagonal(pairs.scatters[0])[varying]
    if len(varying) == 0:
        return float("nan")
    sizes = norms.prod(axis=0)  # 0 where some block alone varied: no agreement is left
    return float(np.divide(products, sizes, out=np.zeros_like(sizes), where=sizes > 0).mean())


def _tables(sampled: list[_Sampled], base: int, paired: np.ndarray) -> dict[str, np.ndarray]:
    """Values, intervals and differences to the reference, each (S, M)."""
    rows = []
    reference = sampled[base]
    for index, each in enumerate(sampled):
        correlation = np.zeros(len(STATISTICS))
        if paired[index]:
            sizes = [np.sqrt((x.deviations**2).sum(axis=0)) for x in (each, reference)]
            products = (each.deviations * reference.deviations).sum(axis=0)
            sizes = sizes[0] * sizes[1]
            correlation = np.divide(products, sizes, out=correlation, where=sizes > 0)
        difference = each.corrected - reference.corrected
        low, high = _difference_interval(each, reference, np.clip(correlation, -1, 1))
        if index == base:
            low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
        bounds = (each.corrected, each.low, each.high)
        either = each.doubtful | (reference.doubtful & (index != base))
        rows.append((each.values, *bounds, difference, low, high, each.doubtful, either))
    return dict(zip(_COLUMNS, map(np.stack, zip(*rows, strict=True)), strict=True))


def _difference_interval(
    one: _Sampled, other: _Sampled, correlation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval (M,) of a difference from those of both values, which need not be symmetric.

    Where both are symmetric, this is Zou's. Errors that go together are on the same side of their
    values, so that the share of them that does is taken off on that side.
    """
    difference = one.corrected - other.corrected
    shared = np.abs(correlation)

    def width(mine: np.ndarray, same: np.ndarray, opposite: np.ndarray) -> np.ndarray:
        apart = mine**2 + opposite**2
        together = np.where(correlation > 0, mine - same, mine + opposite) ** 2
        return np.sqrt((1 - shared) * apart + shared * together)

    with np.errstate(invalid="ignore"):
        own = one.corrected - one.low, one.high - one.corrected
        theirs = other.corrected - other.low, other.high - other.corrected
        below, above = width(own[0], *theirs), width(own[1], *theirs[::-1])
    return difference - below, difference + above


def _fill(
    similar: dict[str, np.ndarray],
    own: dict[int, tuple[float, float]],
    splits: list[Representation],
    i: int,
    j: int,
) -> None:
    """Similarities of one pair, CKA not yet normalised."""
    parts = centred_products(splits[i].features, splits[j].features)
    debiased = hilbert_schmidt(*parts, debiased=True)
    plain = hilbert_schmidt(*parts, debiased=False)
    if i == j:
        own[i] = debiased, plain
    likeness = 1.0 if i == j else nuclear_similarity(*parts)
    for kind, value in (("cka", debiased), ("cka_biased", plain), ("procrustes", likeness)):
        similar[kind][i, j] = similar[kind][j, i] = value


def _normalise(similar: dict[str, np.ndarray], own: dict[int, tuple[float, float]]) -> None:
    for place, kind in enumerate(("cka", "cka_biased")):
        sizes = np.array([own[i][place] for i in range(len(own))])
        sizes = np.sqrt(np.where(sizes > 0, sizes, np.nan))
        similar[kind] /= np.outer(sizes, sizes)


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
    target = _unit(splits[base].features[rows], splits[base].eps)
    found: dict[str, Any] = {"partner": {}, "match": {}, "match_null": {}}
    for index, name in enumerate(names):
        if index == base or not paired[index]:
            continue
        mine = _unit(splits[index].features[rows], splits[index].eps)
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


def _unit(features: np.ndarray, eps: float) -> np.ndarray:
    """Columns of mean 0 and norm 1; those that do not vary are zero."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=0)
    least = spread_floor(np.abs(features).max(axis=0).astype(np.float64), eps)
    varies = norms > np.sqrt(len(features)) * least
    return np.divide(centred, norms, out=np.zeros_like(centred), where=varies)
