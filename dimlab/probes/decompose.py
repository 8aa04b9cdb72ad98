"""Spectrum: how many dimensions a representation really fills, by every definition in use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.given import RowsLike, as_rows
from dimlab.kernels import spectra
from dimlab.kernels.jackknife import Scale
from dimlab.kernels.reliability import AMPLE, caution_of_tails, doubtful_statistics
from dimlab.moments import N_BLOCKS, Moments
from dimlab.probes import _moments, _ranks
from dimlab.readers.base import Progress
from dimlab.representation import Representation
from dimlab.result import Verdict, column, detail, entries, entry, per, scalar

NEEDS: tuple[set[str], ...] = (set(),)
_COLLAPSED = 0.1  # effective rank as a share of the dimensions
_FITTED = (11, 100)  # ranks of the power law, where there are as many
_FEWEST_FITTED = 5
_DIRECT = 4e9  # N D min(N, D) up to which the singular values come from the rows themselves
_SCALES = {
    **_moments.RANKS,
    "condition_number": Scale(lowest=1.0),
    "power_law_exponent": Scale(),
}
_NUMBERS = (
    *("effective_rank", "entropy", "participation_ratio", "stable_rank"),
    *("numerical_rank", "condition_number", "power_law_exponent", "lidar"),
)
_UNKNOWN = (float("nan"), float("nan"))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Spectrum(_moments.OfRows):
    """Singular values of N samples in D dimensions, and what is read off them.

    Examples
    --------
    >>> rows = np.vstack([np.diag([2.0, 1.0, 1.0]), -np.diag([2.0, 1.0, 1.0])])
    >>> spectrum = decompose(Representation(rows))
    >>> (spectrum.singular_values**2).round(6).tolist(), round(spectrum.participation_ratio, 6)
    ([8.0, 2.0, 2.0], 2.0)
    >>> (6 * spectrum.variance_share).round(6).tolist(), spectrum.summary()["numerical_rank"]
    ([4.0, 1.0, 1.0], 3)
    >>> spectrum.statistics()["statistic"][:2].tolist(), list(spectrum.tables())
    (['effective_rank', 'entropy'], ['statistics'])
    >>> spectrum.to_frame()["cumulative_share"].round(2).tolist()
    [0.67, 0.83, 1.0]
    """

    TABLES = (("statistics", "statistics"),)

    n_samples: int = scalar("N, the number of samples.")
    n_dimensions: int = scalar("D, the number of dimensions.")
    centred: bool = scalar("Whether each dimension's mean was subtracted first.")
    component = column(
        lambda self: np.arange(1, len(self.singular_values) + 1), doc="Number of each, from 1."
    )
    singular_values: np.ndarray = per(
        "component",
        "Singular values, descending; exactly 0 where rounding hides the value.",
        shape="(min(N, D),) or (D,)",
        column="singular_value",
    )

    @column
    def variance_share(self) -> np.ndarray:
        """Share of the summed squares in each component, in [0, 1], shape (R,)."""
        energy = (self.singular_values / self.singular_values[0]) ** 2
        return energy / energy.sum()

    cumulative_share = column(
        lambda self: np.cumsum(self.variance_share), doc="Of the first 1, 2, ... components."
    )
    effective_rank: float = detail(
        "Exponential of the entropy of the normalised singular values (Roy and Vetterli)."
    )
    entropy: float = detail("That entropy, in nats.")
    participation_ratio: float = detail("(sum s^2)^2 / sum s^4.")
    stable_rank: float = detail("sum s^2 / max s^2.")
    numerical_rank: int = detail("Singular values that are not 0 beyond rounding.")
    condition_number: float = detail("Largest over smallest; infinite below full rank.")
    power_law_exponent: float = detail(
        "Fit of s^2 against rank^-exponent over `power_law_range`; NaN where fewer than five ranks "
        "are positive."
    )
    lidar: float | None = detail("LiDAR of the views, where there are any.")
    corrected: dict[str, float] = detail(
        "The numbers above without the bias that falls as 1 / N, by name: the jackknife's "
        "estimates."
    )
    corrected_intervals: dict[str, tuple[float, float]] = detail(
        "95 % jackknife intervals of the corrected numbers, by name. NaN where a number is not "
        "finite or there are too few samples."
    )

    @entries
    def numbers(self) -> dict[str, Any]:
        """Each statistic, with its corrected value and the interval of that where there is one."""
        found: dict[str, Any] = {}
        for name, value, corrected, bounds in self._statistics():
            found[name] = value
            if bounds is not None:
                known = bool(np.isfinite(bounds).all())
                found[f"{name}_corrected"] = corrected if known else None
                found[f"{name}_corrected_interval"] = bounds if known else None
        return found

    power_law_range: tuple[int, int] = scalar("First and last rank of the fit, from 1.")
    power_law_r_squared: float = scalar("R^2 of that fit.")

    @entry
    def definition(self) -> str:
        """How the effective rank is defined."""
        kind = "centred" if self.centred else "uncentred"
        return f"effective rank: exponential of the entropy of {kind} singular values."

    intervals = entry(
        lambda self: (
            f"{_moments.in_blocks(self.clustered, self.n_blocks)}, of the corrected values: "
            "without the bias that falls as 1/N."
        ),
        doc="What the intervals are over.",
    )
    kurtosis: float = scalar(
        "Mean kurtosis of the dimensions, as far as it shows between blocks: 3 for Gaussian rows. "
        "NaN for a single block."
    )
    doubtful: tuple[str, ...] = scalar(
        "Names of the statistics whose interval may cover less than 95 %."
    )
    n_blocks: int = detail("Blocks of the jackknife.")

    def _statistics(self) -> Iterator[tuple[str, float, float, tuple[float, float] | None]]:
        """Give name, value, corrected value and the interval of that, of each statistic."""
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None:
                bounds = self.corrected_intervals.get(name)
                yield name, value, self.corrected.get(name, np.nan), bounds

    def statistics(self) -> Any:
        """Return one row a statistic.

        Returns
        -------
        pandas.DataFrame
            ``statistic, value``; ``corrected, corrected_low, corrected_high``: the value without
            its bias, and the 95 % interval of that; ``doubtful``: whether it may cover less.
        """
        import pandas as pd

        rows = [
            (name, float(value), corrected, *(bounds or _UNKNOWN), name in self.doubtful)
            for name, value, corrected, bounds in self._statistics()
        ]
        columns = ["statistic", "value", "corrected", "corrected_low", "corrected_high", "doubtful"]
        return pd.DataFrame(rows, columns=columns)


def verdict(spectrum: Spectrum) -> Verdict:
    """Say whether the features are collapsed."""
    limit = _COLLAPSED * spectrum.n_dimensions
    low, high = spectrum.corrected_intervals["effective_rank"]
    known = bool(np.isfinite([low, high]).all())
    value = spectrum.corrected["effective_rank"] if known else spectrum.effective_rank
    low, high = (low, high) if known else (value, value)
    text = f"Effective rank {spectrum.effective_rank:.1f} of {spectrum.n_dimensions} dimensions"
    if known:
        text += f"; without the bias of few samples {value:.1f} [{low:.1f}, {high:.1f}]"
    if "effective_rank" in spectrum.doubtful:
        text += f" (doubtful: {spectrum.caution.rstrip('.')})"
    return Verdict(
        "Are the features collapsed?",
        "yes" if high < limit else "no" if low >= limit else "undecided",
        f"{text}.",
        "Yes: the interval of the effective rank, without the bias of few samples, lies below a "
        f"tenth of the dimensions ({limit:g}); no: at or above it; else undecided.",
    )


@_moments.documented_of_rows
def decompose(
    representation: RowsLike,
    *,
    centred: bool = False,
    fit_range: tuple[int, int] | None = None,
    n_blocks: int = N_BLOCKS,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Spectrum:
    """Singular values of the features, ranks, decay, and LiDAR of the views, with intervals.

    Parameters
    ----------
    representation : Representation, array or Moments
        N >= 2 samples of D dimensions, or their moments, from however many files or processes.
    centred : bool, default=False
        Subtract each dimension's mean first. Without it the mean is a direction like others, as in
        RankMe.
    fit_range : tuple of int, optional
        First and last rank of the power law, from 1; by default 11 to 100, or as many of them as
        there are.
    n_blocks : int, default=20
        Blocks of the jackknife, >= 1; 1: no intervals. Ignored for moments, which have theirs.

    Returns
    -------
    Spectrum
        The values.

    Raises
    ------
    ValueError
        If there are fewer than two samples, all features are zero (or constant, if centred), a
        number is out of its range, moments are those of pairs of views, clusters do not fit the
        rows or are given for moments, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Warns
    -----
    UserWarning
        If N <= D: no rank can exceed N then, and all are biased downwards.

    Notes
    -----
    Where there are few rows, they are decomposed directly. Otherwise their D x D moments are, which
    lose singular values below 1e-6 of the largest in rounding. Values that are lost are given as 0.

    Effective rank [1]_, RankMe [2]_, exponent of alpha-ReQ [3]_, LiDAR [4]_: covariance of the
    samples' means, whitened by that of views around them plus 1e-4 on its diagonal; 1e-7 is added
    to the shares of the eigenvalues. ``effective_rank`` offers the definitions that others publish.

    Intervals: delete-a-block jackknife on a scale where the bias falls as 1 / N (entropy,
    reciprocals). In simulations they cover the truth in 0.90 to 1.00 of the cases, but for the
    statistics named in ``doubtful``: all ranks where N < 8 D, or where tails are heavy (kurtosis
    above 3.8 and N below 250 times the kurtosis: down to 0.76 there); the stable rank and the
    condition number where the largest or the smallest singular value is not told apart from its
    neighbour; the exponent where N is below 30 D times a third of the kurtosis, or the fitted
    values (or the lower half of them) hardly fall.

    References
    ----------
    .. [1] Roy & Vetterli, "The effective rank", EUSIPCO 2007.
    .. [2] Garrido et al., "RankMe", ICML 2023.
    .. [3] Agrawal et al., "alpha-ReQ", NeurIPS 2022.
    .. [4] Thilak et al., "LiDAR", ICLR 2024.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, _ = np.linalg.qr(rng.normal(size=(200, 6)))
    >>> spectrum = decompose(Representation(q * [8.0, 4.0, 2.0, 1.0, 0.5, 0.25]))
    >>> round(spectrum.effective_rank, 2), spectrum.numerical_rank
    (3.69, 6)
    """
    representation = as_rows(representation)
    deal = _moments.Deal(n_blocks, clusters, seed, device, progress)
    rows = _moments.Rows.of(representation, "decompose", deal, matrices=40, fewest_blocks=1)
    moments, views, found = rows.moments, None, None
    n, n_dimensions = moments.n, moments.n_dimensions
    if isinstance(representation, Representation):
        views = representation.views
    if rows.arrays and rows.arrays[0].size * min(rows.arrays[0].shape) <= _DIRECT:
        values = _ranks.singular_values_of_rows(rows.arrays[0], centred, moments.eps)
    else:
        values = _ranks.singular_values_of(moments, centred)
    ranks = _fitted_ranks(values, fit_range)
    numbers, exponent_fit = _statistics(values, ranks)
    corrected, intervals = _corrected(moments, centred, ranks)
    if views is not None and len(views) > 1:
        found = _ranks.lidar_with_interval(views, deal, rows.ids)
        if found is None:
            warnings.warn(f"LiDAR is left out: {_ranks.ALIKE}", UserWarning, stacklevel=2)
        else:
            corrected["lidar"] = float(found.corrected[0])
            intervals["lidar"] = float(found.low[0]), float(found.high[0])
    caution = _moments.caution_of_rank(n, n_dimensions)
    if caution:
        warnings.warn(caution, UserWarning, stacklevel=2)
    return Spectrum(
        singular_values=values,
        centred=centred,
        **numbers,
        entropy=float(np.log(numbers["effective_rank"])),
        numerical_rank=int((values > 0).sum()),
        power_law_r_squared=exponent_fit,
        power_law_range=ranks or (0, 0),
        lidar=None if found is None else float(found.value[0]),
        corrected=corrected,
        corrected_intervals=intervals,
        n_samples=n,
        n_dimensions=n_dimensions,
        n_blocks=int((moments.counts > 0).sum()),
        kurtosis=rows.kurtosis,
        doubtful=doubtful_statistics(
            values,
            n_rows=rows.n_units,
            n_dimensions=n_dimensions,
            kurtosis=rows.kurtosis,
            fitted=ranks,
        ),
        caution=caution or _caution_of_intervals(rows),
        **rows.said,
    )


def _caution_of_intervals(rows: _moments.Rows) -> str:
    """Say why intervals of ranks may cover less than 95 %; empty where they are known to hold."""
    few, clustered = "", rows.ids is not None
    if rows.n_units < AMPLE * rows.moments.n_dimensions:
        few = (
            f"{rows.n_units} {'clusters' if clustered else 'samples'} are less than {AMPLE} D: "
            "ranks are biased downwards, and the intervals may cover less than 95 %."
        )
    return " ".join(filter(None, [few, caution_of_tails(rows.kurtosis, rows.n_units, clustered)]))


def _fitted_ranks(values: np.ndarray, fit_range: tuple[int, int] | None) -> tuple[int, int] | None:
    """Ranks of the power law; None where there are too few."""
    n_positive = int((values > 0).sum())
    if fit_range is not None:
        spectra.power_law(values, fit_range)  # says what is wrong
        return fit_range
    first, last = _FITTED[0], min(_FITTED[1], n_positive)
    if last - first + 1 < _FEWEST_FITTED:
        first, last = 1, n_positive
    return (first, last) if last - first + 1 >= _FEWEST_FITTED else None


def _statistics(values: np.ndarray, ranks: tuple[int, int] | None) -> tuple[dict[str, Any], float]:
    """Return the statistics by name, and R^2 of the power law's fit."""
    exponent, r_squared = np.nan, np.nan
    if ranks is not None and values[ranks[1] - 1] > 0:
        exponent, r_squared = spectra.power_law(values, ranks)
    numbers: dict[str, Any] = {
        "effective_rank": spectra.entropy_rank(values),
        "participation_ratio": spectra.participation_ratio(values),
        "stable_rank": spectra.stable_rank(values),
        "condition_number": spectra.condition_number(values),
        "power_law_exponent": exponent,
    }
    return numbers, r_squared


def _corrected(
    moments: Moments, centred: bool, ranks: tuple[int, int] | None
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Jackknife of every statistic, on the moments alone, so that all come from one formula."""

    def numbers(each: Moments) -> np.ndarray:
        found, _ = _statistics(_ranks.singular_values_of(each, centred), ranks)
        return np.array([found[name] for name in _SCALES])

    d = moments.n_dimensions
    scales = [
        _moments.bounded(scale, d) if name in _moments.RANKS else scale
        for name, scale in _SCALES.items()
    ]
    _, corrected, low, high = _moments.estimates(moments, numbers, scales)
    values = dict(zip(_SCALES, corrected.tolist(), strict=True))
    intervals = dict(zip(_SCALES, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    # one scale for both, and one bound
    values["entropy"] = float(np.log(values["effective_rank"]))
    bounds = np.log(intervals["effective_rank"])
    intervals["entropy"] = (float(bounds[0]), float(bounds[1]))
    return values, intervals
