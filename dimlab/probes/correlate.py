"""Correlation of dimensions: what two views share in each, and what each repeats of the others."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.given import RowsLike, as_rows
from dimlab.kernels import correlation as kernel
from dimlab.kernels.collinearity import leaf_order
from dimlab.kernels.reliability import caution_of_tails
from dimlab.moments import N_BLOCKS, Moments
from dimlab.probes import _moments
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.result import ABSENT, column, detail, entries, entry, per, scalar

NEEDS: tuple[set[str], ...] = (set(),)
CROSS, WITHIN = "cross-view", "within-view"
_LEVEL = 0.95
_DECIMALS = 12  # of correlations that are put in order: equal ones go by index
_PERMUTED = 3e13  # products up to which rows are permuted: some 5 minutes on two cores


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Correlation(_moments.OfRows):
    """Correlation matrix of D dimensions, and what it says of each and of all.

    Examples
    --------
    >>> from dimlab import Representation
    >>> x = np.arange(8.0) - 3.5
    >>> correlation = correlate(Representation(np.column_stack([x, -x, x**2])), n_draws=0)
    >>> correlation.matrix.round(6).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> round(correlation.largest_entry, 6), correlation.to_frame()["partner"][:2].tolist()
    (1.0, [1, 0])
    >>> correlation.summary()["kind"], list(correlation.tables())
    ('within-view', ['top-pairs'])
    """

    TABLES = (("top-pairs", "_hundred_pairs"),)
    EFFECT = ("redundancy",)
    DIMENSIONS = ()  # others say of each dimension what it repeats, and how far its views agree

    kind: str = scalar(
        "`cross-view`: dimensions of one view with those of another; `within-view`: of the "
        "features with each other."
    )
    n_samples: int = scalar("N, the number of samples.")
    n_dimensions = entry(len, doc="D, the number of dimensions.")
    matrix: np.ndarray = per(
        "dimension",
        "Pearson correlations; cross-view: rows are the first view's dimensions. NaN in the rows "
        "and columns of dead dimensions.",
        shape="(D, D)",
    )
    dimension = column(lambda self: np.arange(len(self)), doc="Index of each dimension.")
    diagonal: np.ndarray = per(
        "dimension", "How well each dimension agrees between views (1 within)."
    )
    diagonal_low: np.ndarray = per("dimension", "Lower end of its 95 % jackknife interval.")
    diagonal_high: np.ndarray = per("dimension", "Upper end of that interval.")
    redundancy: np.ndarray = per(
        "dimension",
        "(mean_{j != d} C_dj^2 - 1/(N-1)) / (1 - 1/(N-1)): 0 on average without dependence "
        "whatever N and D, 1 for copies of one dimension.",
    )
    redundancy_low: np.ndarray = per("dimension", "Lower end of its 95 % jackknife interval.")
    redundancy_high: np.ndarray = per("dimension", "Upper end of that interval.")

    @column
    def strongest(self) -> dict[str, np.ndarray]:
        """Columns ``partner``, the dimension it correlates most with, or -1; and how much."""
        others = self.matrix.copy()
        np.fill_diagonal(others, np.nan)
        size = np.where(np.isnan(others), -1.0, np.abs(others))
        partner = size.round(_DECIMALS).argmax(axis=1)
        known = size.max(axis=1) >= 0
        return {
            "partner": np.where(known, partner, -1),
            "partner_correlation": others[np.arange(len(self)), partner],
        }

    dead: np.ndarray = per(
        "dimension",
        "Whether the dimension does not vary (in some view); such dimensions are left out of every "
        "aggregate.",
    )
    order: np.ndarray = per(
        "dimension", "Dimensions in cluster order, dead ones last.", column=False
    )
    off_diagonal_rms: float = scalar(
        "Root mean square correlation of different dimensions beyond chance: the root of "
        "max(0, mean C_jk^2 - 1/(N-1)), which is 0 on average without dependence."
    )
    off_diagonal_rms_interval: tuple[float, float] = scalar(
        "95 % jackknife interval of it: that of the mean, through the same root."
    )
    off_diagonal_rms_plain: float = scalar(
        "Root of mean C_jk^2 itself, which is 1 / sqrt(N - 1) without dependence."
    )
    mean_redundancy = entry(
        lambda self: self.redundancy[~self.dead].mean(), doc="Of the dimensions that vary."
    )
    largest_singular_value = entry(lambda self: self.singular_values[0], doc="Of the matrix.")

    @entry
    def largest_entry(self) -> float:
        """Largest absolute correlation of two different dimensions; NaN where there are none."""
        pairs = self.top_pairs(1)
        return float(abs(pairs["correlation"].iloc[0])) if len(pairs) else float("nan")

    @entry
    def mean_diagonal(self) -> Any:
        """Mean agreement between views of the dimensions that vary."""
        return self.diagonal[~self.dead].mean() if self.kind == CROSS else ABSENT

    singular_values: np.ndarray = per(
        "n", "Of the matrix of the n dimensions that are not dead, descending.", shape="(n,)"
    )
    null_band: dict[str, tuple[float, float]] = scalar(
        "What independence gives, by permutation: 95 % band of `off_diagonal_rms` (pointwise), and "
        "0 to the 95 % quantile of `largest_singular_value` and `largest_entry` (off the "
        "diagonal), which hold for all values at once. Empty where none was drawn."
    )
    null_law: str = scalar("How the null was drawn, or why not.")
    marchenko_pastur_edge: float | None = scalar(
        "Within-view: (1 + sqrt(D / (N - 1)))^2, the edge for independent dimensions without end."
    )
    n_dead = entry(lambda self: self.dead.sum(), doc="Number of dead dimensions.")
    dead_dimensions = entry(lambda self: np.flatnonzero(self.dead), doc="Which ones.")

    @entries
    def ten_pairs(self) -> dict[str, Any]:
        """The ten pairs that correlate most, each with its correlation."""
        return {"top_pairs": list(self.top_pairs(10).itertuples(index=False, name=None))}

    intervals = entry(
        lambda self: f"{_moments.in_blocks(self.clustered)}.", doc="What the intervals are over."
    )
    n_draws: int = detail("Draws of the null.")

    def __len__(self) -> int:
        return len(self.diagonal)

    def top_pairs(self, n: int = 10) -> Any:
        """Return the pairs of different dimensions that correlate most.

        Parameters
        ----------
        n : int, default=10
            Number of pairs, >= 1.

        Returns
        -------
        pandas.DataFrame
            ``first``, ``second``, ``correlation``, strongest first, dead dimensions left out.
            Within-view each pair once; cross-view ``first`` is of the first view.

        Raises
        ------
        ValueError
            If ``n`` < 1.

        Examples
        --------
        >>> from dimlab import Representation
        >>> x = np.arange(8.0) - 3.5
        >>> correlation = correlate(Representation(np.column_stack([x, -x, x**2])), n_draws=0)
        >>> correlation.top_pairs(1).round(6).values.tolist()
        [[0.0, 1.0, -1.0]]
        """
        import pandas as pd

        if n < 1:
            raise Refusal(f"n must be >= 1; got {n}.")
        size = np.abs(np.nan_to_num(self.matrix, nan=-1.0))
        size[np.isnan(self.matrix)] = -1.0
        np.fill_diagonal(size, -1.0)
        if self.kind == WITHIN:
            size[np.tril_indices(len(size))] = -1.0
        count = min(n, int((size >= 0).sum()))
        flat = size.ravel()
        if count == 0:
            return pd.DataFrame({"first": [], "second": [], "correlation": []})
        flat = flat.round(_DECIMALS)
        cut = np.partition(flat, flat.size - count)[flat.size - count]
        chosen = np.flatnonzero(flat >= cut)  # all ties: the first of them by index stay
        chosen = chosen[np.argsort(-flat[chosen], kind="stable")][:count]
        first, second = np.unravel_index(chosen, size.shape)
        return pd.DataFrame(
            {"first": first, "second": second, "correlation": self.matrix[first, second]}
        )

    def _hundred_pairs(self) -> Any:
        """Return the 100 pairs that correlate most."""
        return self.top_pairs(100)


@_moments.documented_of_rows
def correlate(
    representation: RowsLike,
    *,
    within: bool = False,
    n_draws: int = 200,
    n_blocks: int = N_BLOCKS,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Correlation:
    """Correlate the dimensions of two views, or of the features with each other.

    Parameters
    ----------
    representation : Representation, array or Moments
        N >= 3 samples. With two views or more, the first two are correlated; moments of pairs
        likewise. Without, the features with themselves.
    within : bool, default=False
        Correlate the features with themselves even where there are views.
    n_draws : int, default=200
        Draws of the null, >= 0; each costs a product of all rows.

    Returns
    -------
    Correlation
        The matrix and what is read off it.

    Raises
    ------
    ValueError
        If there are fewer than three samples, no dimension varies, a number is out of its range,
        ``within`` is asked of moments of pairs, clusters do not fit the rows or are given for
        moments, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Warns
    -----
    UserWarning
        If some dimensions do not vary: they are left out.

    Notes
    -----
    Means and deviations are biased statistics of each view, so identical views have a diagonal of 1
    (Barlow Twins [1]_ standardises like that; dividing by N - 1 in one place and N in another, as
    some code does, can never reach 1).

    Null, cross-view: the rows of one view are permuted. Within-view: every column is permuted
    independently. Beyond 3 x 10^13 products (N = 300,000 at D = 512) the law that permutations have
    at large N is drawn instead: Gaussian values with the same correlations within each view, or
    none. Moments hold no rows: within-view that law is drawn, cross-view there is no null. The edge
    of Marchenko and Pastur [2]_ is a reference for within-view matrices only.

    Rows in clusters: 1/(N-1), what chance adds to a squared correlation, becomes that of the
    number of independent rows that say as much (`kernels.correlation.effective_samples`).

    References
    ----------
    .. [1] Zbontar et al., "Barlow Twins", ICML 2021.
    .. [2] Marchenko and Pastur, "Distribution of eigenvalues for some sets of random matrices",
       1967.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(500, 3))
    >>> features[:, 2] = features[:, 0]
    >>> correlation = correlate(Representation(features))
    >>> correlation.top_pairs(1).values.tolist()
    [[0.0, 2.0, 1.0]]
    >>> correlation.redundancy.round(2).tolist()
    [0.5, -0.0, 0.5]
    """
    representation = as_rows(representation)
    if n_draws < 0:
        raise Refusal(f"n_draws must be >= 0; got {n_draws}.")
    deal = _moments.Deal(n_blocks, clusters, seed, device)
    rows = _moments.Rows.of(
        representation, "correlate", deal, matrices=17, pairs=not within, least=3
    )
    moments, live, dead = rows.moments, rows.live, rows.dead
    if dead.any():
        warnings.warn(
            f"{dead.sum()} of {len(dead)} dimensions do not vary and are left out.",
            UserWarning,
            stacklevel=2,
        )
    matrix, redundancy, beyond, _ = rows.dependence(moments)
    alive = matrix[np.ix_(live, live)]
    kind = CROSS if moments.has_views else WITHIN
    band, law = _null(rows, n_draws, seed, progress)
    edge = float((1 + np.sqrt(len(live) / (moments.n - 1))) ** 2)
    return Correlation(
        kind=kind,
        matrix=matrix,
        diagonal=np.diagonal(matrix).copy(),
        redundancy=redundancy,
        **_intervals(rows),
        off_diagonal_rms=float(kernel.rooted(beyond)),
        off_diagonal_rms_plain=kernel.off_diagonal_rms(alive),
        singular_values=np.linalg.svd(alive, compute_uv=False),
        null_band=band,
        marchenko_pastur_edge=edge if kind == WITHIN else None,
        dead=dead,
        order=np.concatenate([live[leaf_order(alive)], np.flatnonzero(dead)]),
        n_samples=moments.n,
        n_draws=n_draws if band else 0,
        null_law=law,
        caution=caution_of_tails(rows.kurtosis, rows.n_units, rows.ids is not None),
        **rows.said,
    )


def _intervals(rows: _moments.Rows) -> dict[str, Any]:
    """Jackknife intervals of each dimension's numbers and of the root mean square."""
    n = len(rows.dead)

    def numbers(each: Moments) -> np.ndarray:
        matrix, redundancy, beyond, gone = rows.dependence(each)
        found = np.concatenate([np.diagonal(matrix), redundancy, [beyond]])
        found[:-1][np.tile(gone, 2)] = np.nan  # what some block alone moves has no interval
        return found

    scales = [_moments.FISHER] * n + [_moments.PLAIN] * n + [_moments.ROOT]
    value, _, low, high = _moments.estimates(rows.moments, numbers, scales)
    same = value[:n] >= 1 - 1e-12
    return {
        "diagonal_low": np.where(same, 1.0, low[:n]),
        "diagonal_high": np.where(same, 1.0, high[:n]),
        "redundancy_low": low[n:-1],
        "redundancy_high": high[n:-1],
        "off_diagonal_rms_interval": (float(low[-1]), float(high[-1])),
    }


def _null(
    rows: _moments.Rows, n_draws: int, seed: int, progress: Progress | None
) -> tuple[dict[str, tuple[float, float]], str]:
    """Band of three numbers under independence, and how it was drawn."""
    moments, live, ids = rows.moments, rows.live, rows.ids
    if n_draws == 0:
        return {}, "none drawn: n_draws is 0"
    if len(live) < 2:
        return {}, "none drawn: there is one dimension"
    rng, chance = np.random.default_rng(seed), kernel.chance_of(live, rows.n_effective)
    whole = len(live) == moments.n_dimensions  # then no copy of what may be a whole file
    views = tuple(each if whole else each[:, live] for each in rows.arrays)
    long = ids is None and 2.0 * n_draws * moments.n * len(live) ** 2 > _PERMUTED
    if views and not long:
        draws = kernel.permuted_correlations(views, n_draws, rng, ids)
        law = (
            f"{n_draws} permutations of the rows of one view"
            if moments.has_views
            else f"{n_draws} independent permutations of every column"
        ) + (", whole clusters at a time" if ids is not None else "")
    elif not moments.has_views:
        draws = kernel.independent_correlations(moments.n, len(live), n_draws, rng)
        law = f"{n_draws} draws of independent Gaussian columns, the law of permutations at large N"
    elif views:
        none = np.zeros(len(live), dtype=bool)
        a, b = (kernel.correlation_of(Moments.of(each, n_blocks=1), none) for each in views)
        draws = kernel.gaussian_correlations((a, b), moments.n, n_draws, rng)
        law = f"{n_draws} draws of independent Gaussian views, the law of permutations at large N"
    else:
        return {}, "none drawn: moments of pairs hold no rows to permute"
    found = np.empty((n_draws, 3))
    for draw, matrix in enumerate(draws):
        rms = kernel.rooted(kernel.off_diagonal_rms(matrix) ** 2 - chance)
        singular = kernel.largest_singular_value(matrix)
        np.fill_diagonal(matrix, 0.0)
        found[draw] = rms, singular, np.abs(matrix).max()
        if progress is not None:
            progress(draw + 1, n_draws)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(found[:, 0], [tail, 1 - tail], method="weibull")
    top = np.quantile(found[:, 1:], _LEVEL, axis=0, method="weibull")
    return {
        "off_diagonal_rms": (float(low), float(high)),
        "largest_singular_value": (0.0, float(top[0])),
        "largest_entry": (0.0, float(top[1])),
    }, law
