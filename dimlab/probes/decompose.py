"""Spectrum: how many dimensions a representation really fills, by every definition in use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.kernels.correlation import dead_dimensions
from dimlab.kernels.jackknife import corrected_interval
from dimlab.kernels.reliability import AMPLE, block_kurtosis, caution_of_tails, doubtful_statistics
from dimlab.kernels.rounding import eigenvalue_floor
from dimlab.kernels.spectra import (
    DEFINITIONS,
    condition_number,
    discriminant_rank,
    entropy_rank,
    participation_ratio,
    power_law,
    stable_rank,
)
from dimlab.memory import Shapes, foresee
from dimlab.moments import N_BLOCKS, Moments
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.representation import Representation

_FITTED = (11, 100)  # ranks of the power law, where there are as many
_FEWEST_FITTED = 5
_DIRECT = 4e9  # N D min(N, D) up to which the singular values come from the rows themselves
_EPS = float(np.finfo(np.float64).eps)
_LIDAR_DELTA, _LIDAR_ADDED = 1e-4, 1e-7
_CHUNK = 1 << 22
_COLLAPSED = "the means of the samples' views are all the same."


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of N samples in D dimensions, and what is read off them.

    Parameters
    ----------
    singular_values : ndarray of shape (min(N, D),) or (D,)
        Descending. Exactly 0 where rounding hides the value.
    centred : bool
        Whether each dimension's mean was taken off first.
    effective_rank, entropy : float
        Exponential of the entropy of normalised singular values (Roy and Vetterli), and the
        entropy itself, in nats.
    participation_ratio, stable_rank : float
        (sum s^2)^2 / sum s^4, and sum s^2 / max s^2.
    numerical_rank : int
        Singular values that are not 0 beyond rounding.
    condition_number : float
        Largest over smallest; infinite below full rank.
    power_law_exponent, power_law_r_squared : float
        Fit of s^2 against rank^-exponent over ``power_law_range``; NaN where fewer than five ranks
        are positive.
    power_law_range : tuple of int
        First and last rank of the fit, from 1.
    lidar : float or None
        LiDAR of the views, where there are any.
    corrected : dict of str to float
        The numbers above without the bias that falls as 1 / N, by name: the jackknife's estimates.
    corrected_intervals : dict of str to tuple of float
        95 % jackknife intervals of the corrected numbers, by name. NaN where a number is not
        finite or there are too few samples.
    n_samples, n_dimensions, n_blocks : int
        N, D, and blocks of the jackknife.
    kurtosis : float
        Mean kurtosis of the dimensions, as far as it shows between blocks: 3 for Gaussian rows.
        NaN for a single block.
    doubtful : tuple of str
        Names of the statistics whose interval may cover less than 95 %.
    basis, sample : str
        Basis of the dimensions; which part of the split was used, empty: all of it.
    caution : str
        Why the numbers are biased or their intervals too short, where they are; else empty.
    clustered : bool
        Whether rows were taken to be independent between clusters only.

    References
    ----------
    Those of `decompose`, which measures it.

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

    singular_values: np.ndarray
    centred: bool
    effective_rank: float
    entropy: float
    participation_ratio: float
    stable_rank: float
    numerical_rank: int
    condition_number: float
    power_law_exponent: float
    power_law_r_squared: float
    power_law_range: tuple[int, int]
    lidar: float | None
    corrected: dict[str, float]
    corrected_intervals: dict[str, tuple[float, float]]
    n_samples: int
    n_dimensions: int
    n_blocks: int
    kurtosis: float
    doubtful: tuple[str, ...]
    basis: str = "axes"
    sample: str = ""
    caution: str = ""
    clustered: bool = False

    @property
    def variance_share(self) -> np.ndarray:
        """Share of the summed squares in each component, in [0, 1], shape (R,)."""
        energy = (self.singular_values / self.singular_values[0]) ** 2
        return energy / energy.sum()

    def to_frame(self) -> Any:
        """Return one row a component.

        Returns
        -------
        pandas.DataFrame
            ``component`` (from 1), ``singular_value``, ``variance_share``, ``cumulative_share``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "component": np.arange(1, len(self.singular_values) + 1),
                "singular_value": self.singular_values,
                "variance_share": self.variance_share,
                "cumulative_share": np.cumsum(self.variance_share),
            }
        )

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``statistics``.
        """
        return {"statistics": self.statistics()}

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
            (name, float(getattr(self, name)), self.corrected.get(name, np.nan),
             *self.corrected_intervals.get(name, _UNKNOWN), name in self.doubtful)
            for name in _NAMES
            if getattr(self, name) is not None
        ]  # fmt: skip
        columns = ["statistic", "value", "corrected", "corrected_low", "corrected_high", "doubtful"]
        return pd.DataFrame(rows, columns=columns)

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Every statistic with ``<name>_corrected`` and ``<name>_corrected_interval`` (None where
            there are none), sizes, the fit's range, ``definition`` and, where numbers are biased or
            intervals too short, ``caution``.
        """
        numbers: dict[str, Any] = {}
        for name in _NAMES:
            value = getattr(self, name)
            if value is None:
                continue
            numbers[name] = plain(value)
            bounds = self.corrected_intervals.get(name)
            if bounds is not None:
                known = bool(np.isfinite(bounds).all())
                numbers[f"{name}_corrected"] = plain(self.corrected[name]) if known else None
                numbers[f"{name}_corrected_interval"] = list(bounds) if known else None
        return {
            "n_samples": self.n_samples,
            "n_dimensions": self.n_dimensions,
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            "centred": self.centred,
            **numbers,
            "power_law_range": list(self.power_law_range),
            "power_law_r_squared": plain(self.power_law_r_squared),
            "definition": "effective rank: exponential of the entropy of "
            + ("centred" if self.centred else "uncentred")
            + " singular values.",
            "intervals": f"95 %, jackknife over {self.n_blocks} blocks of "
            f"{'clusters' if self.clustered else 'samples'}, of the "
            "corrected values: without the bias that falls as 1/N.",
            "kurtosis": plain(self.kurtosis),
            "doubtful": list(self.doubtful),
            **({"caution": self.caution} if self.caution else {}),
        }


_NAMES = (
    "effective_rank",
    "entropy",
    "participation_ratio",
    "stable_rank",
    "numerical_rank",
    "condition_number",
    "power_law_exponent",
    "lidar",
)
_SAMPLED = (
    "effective_rank",
    "participation_ratio",
    "stable_rank",
    "condition_number",
    "power_law_exponent",
)
# Where the bias falls as 1 / N, so that the jackknife corrects it.
SCALES = {"effective_rank": "log", "participation_ratio": "reciprocal", "stable_rank": "reciprocal"}
_UNKNOWN = (float("nan"), float("nan"))


def decompose(
    representation: Representation | Moments,
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
    representation : Representation or Moments
        N >= 2 samples of D dimensions, or their moments, from however many files or processes.
    centred : bool, default=False
        Take each dimension's mean off first. Without it the mean is a direction like others, as in
        RankMe.
    fit_range : tuple of int, optional
        First and last rank of the power law, from 1; by default 11 to 100, or as many of them as
        there are.
    n_blocks : int, default=20
        Blocks of the jackknife, >= 1; 1: no intervals. Ignored for moments, which have theirs.
    clusters : str or ndarray of shape (N,), optional
        Which rows belong together (name of a factor, or one value a row): blocks are made of whole
        clusters. By default rows are independent.
    seed : int, default=0
        Deals samples to blocks.
    device : str, default="cpu"
        Where products are taken.
    progress : callable, optional
        Called as ``progress(done, total)``.

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
        If it would not fit into the memory that is free; the sentence says what would.

    Warns
    -----
    UserWarning
        If N <= D: no rank can exceed N then, and all are biased downwards.

    Notes
    -----
    Few enough rows are decomposed directly; else the eigenvalues of D x D moments are, whose small
    values drown in rounding earlier (below 1e-6 of the largest). Values that rounding hides are 0.

    Effective rank [1]_, RankMe [2]_, exponent of alpha-ReQ [3]_, LiDAR [4]_: covariance of the
    samples' means, whitened by that of views around them plus 1e-4 on its diagonal; 1e-7 is added
    to the shares of the eigenvalues. ``effective_rank`` offers the definitions that others publish.

    Intervals: delete-a-block jackknife, for the value at N without end; on the scale of the entropy
    for the effective rank, of reciprocals for the participation ratio and the stable rank. They are
    those of the ``corrected`` values, which lack the bias that falls as 1 / N. In simulations they
    cover the truth in 0.90 to 1.00 of the cases, but for the statistics named in ``doubtful``: all
    ranks where N < 8 D, or where tails are heavy (kurtosis above 3.8 and N below 250 times the
    kurtosis: down to 0.76 there); the stable rank and the condition number where the largest or the
    smallest singular value is not told apart from its neighbour; the exponent where N is below 30 D
    times a third of the kurtosis, or the fitted values hardly fall.

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
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be >= 1; got {n_blocks}.")
    lidar, values, ids = None, None, None
    if isinstance(representation, Moments):
        refuse_clusters(clusters)
        moments = _one_view(representation)
    else:
        features = representation.features
        _enough(len(features), "decompose")
        views = representation.views is not None and len(representation.views) > 1
        foresee(
            "decompose views" if views else "decompose",
            Shapes(0, len(features), features.shape[1], n_blocks=n_blocks),
        )
        ids = cluster_ids(representation, clusters)
        moments = Moments.of(
            features,
            n_blocks=n_blocks,
            seed=seed,
            clusters=ids,
            device=device,
            precision=representation.precision,
            progress=progress,
        )
        if features.size * min(features.shape) <= _DIRECT:
            values = _of_rows(features, centred, representation.eps)
        if representation.views is not None and len(representation.views) > 1:
            lidar = _lidar_with_interval(representation.views, n_blocks, seed, ids)
            if lidar is None:
                warnings.warn(f"LiDAR is left out: {_COLLAPSED}", UserWarning, stacklevel=2)
    n = moments.n
    _enough(n, "decompose")
    if values is None:
        values = singular_values_of(moments, centred)
    ranks = _fitted_ranks(values, fit_range)
    numbers, exponent_fit = _statistics(values, ranks)
    corrected, intervals = _corrected(moments, centred, ranks)
    if lidar is not None:
        corrected["lidar"], intervals["lidar"] = lidar[1], lidar[2:]
    caution = caution_of(n, moments.n_dimensions)
    if caution:
        warnings.warn(caution, UserWarning, stacklevel=2)
    n_units = n if ids is None else int(ids.max()) + 1
    kurtosis = block_kurtosis(moments)
    doubtful = doubtful_statistics(
        values, n_rows=n_units, n_dimensions=moments.n_dimensions, kurtosis=kurtosis, fitted=ranks
    )
    return Spectrum(
        singular_values=values,
        centred=centred,
        **numbers,
        entropy=float(np.log(numbers["effective_rank"])),
        numerical_rank=int((values > 0).sum()),
        power_law_r_squared=exponent_fit,
        power_law_range=ranks or (0, 0),
        lidar=None if lidar is None else lidar[0],
        corrected=corrected,
        corrected_intervals=intervals,
        n_samples=n,
        n_dimensions=moments.n_dimensions,
        n_blocks=int((moments.counts > 0).sum()),
        kurtosis=kurtosis,
        doubtful=doubtful,
        basis=basis_of(representation),
        sample=sample_of(representation),
        caution=caution
        or caution_of_intervals(n_units, moments.n_dimensions, kurtosis, ids is not None),
        clustered=ids is not None,
    )


def effective_rank(features: np.ndarray, *, definition: str = "rankme") -> float:
    """Effective rank of features, by any definition that is published under that name or RankMe's.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        N >= 2 rows.
    definition : str, default="rankme"
        ``"roy-vetterli"``: exponential of the entropy of normalised singular values [1]_.
        ``"rankme"``: the same with 1e-7 added to each share [2]_. ``"stable-pretraining"``: with
        1e-5, which can exceed the rank (the package's later releases centre first).
        ``"centred"``: of singular values of centred columns. ``"covariance"`` and ``"ssrlib"``: of
        the eigenvalues of their covariance. ``"reptrix"``: the same with 1e-7 added.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        If the definition is unknown, the shape is not (N, D), N < 2, a value is not finite, or all
        features are zero (constant, where centred).
    TypeError
        If the features are not floating.

    Warns
    -----
    UserWarning
        If N <= D.

    References
    ----------
    .. [1] Roy & Vetterli, "The effective rank", EUSIPCO 2007.
    .. [2] Garrido et al., "RankMe", ICML 2023.

    Examples
    --------
    >>> rows = np.vstack([np.eye(3), -np.eye(3)])
    >>> round(effective_rank(rows, definition="covariance"), 6)
    3.0
    """
    if definition not in DEFINITIONS:
        raise ValueError(
            f"definition must be one of {', '.join(map(repr, DEFINITIONS))}; got {definition!r}."
        )
    known = features if isinstance(features, Representation) else Representation(features)
    rows = known.features
    _enough(len(rows), "effective_rank")
    caution = caution_of(*rows.shape)
    if caution:
        warnings.warn(caution, UserWarning, stacklevel=2)
    centred, power, added = DEFINITIONS[definition]
    return entropy_rank(_of_rows(rows, centred, known.eps) ** power, added=added)


def lidar(views: np.ndarray, *, delta: float = 1e-4, added: float = 1e-7) -> float:
    """LiDAR of views: effective rank of what tells samples apart, beside what tells views apart.

    Parameters
    ----------
    views : ndarray of shape (V, N, D), floating
        V >= 2 encodings of each of N >= 2 samples.
    delta : float, default=1e-4
        Added to the diagonal of the covariance within samples, > 0.
    added : float, default=1e-7
        Added to the shares of the eigenvalues, >= 0.

    Returns
    -------
    float
        At least 1.

    Raises
    ------
    ValueError
        If the shape is not (V, N, D) with V, N >= 2, a number is out of its range, or the samples'
        means do not differ.

    Notes
    -----
    Between: covariance of the samples' means, over N - 1. Within: of the views around them, over
    N (V - 1), plus ``delta``. No sample's views need be many, but with V = 2 the covariance within
    has at most N degrees of freedom: N should well exceed D.

    References
    ----------
    .. [1] Thilak et al., "LiDAR", ICLR 2024.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> samples = rng.normal(size=(2000, 5))
    >>> views = samples + 0.1 * rng.normal(size=(2, 2000, 5))
    >>> round(lidar(views), 1)
    5.0
    """
    views = np.asarray(views)
    if views.ndim != 3 or len(views) < 2 or views.shape[1] < 2:
        raise ValueError(f"views must have shape (V, N, D) with V, N >= 2; got {views.shape}.")
    if not delta > 0 or not added >= 0:
        raise ValueError(f"delta must be > 0 and added >= 0; got {delta} and {added}.")
    between, within = _view_moments(views, 1, 0)
    found = _lidar(between.whole(), within[0], len(views), delta, added)
    if found is None:
        raise ValueError(f"views must differ between samples; got others: {_COLLAPSED}")
    return found


def _enough(n_samples: int, what: str) -> None:
    if n_samples < 2:
        raise ValueError(f"{what} needs at least 2 samples; got {n_samples}.")


def _one_view(moments: Moments) -> Moments:
    if moments.has_views:
        raise ValueError(
            "representation must be moments of single rows for a spectrum; got moments of pairs of "
            "views. Accumulate one view."
        )
    return moments


def caution_of(n_samples: int, n_dimensions: int) -> str:
    """Say why ranks of so few samples are biased; empty where they are not.

    Parameters
    ----------
    n_samples, n_dimensions : int
        N and D.

    Returns
    -------
    str
        One or two sentences.
    """
    if n_samples > n_dimensions:
        return ""
    return (
        f"N = {n_samples} samples do not exceed D = {n_dimensions} dimensions: no rank can exceed "
        "N, and every rank here is biased downwards. Use more samples."
    )


def caution_of_intervals(n_rows: int, n_dimensions: int, kurtosis: float, clustered: bool) -> str:
    """Say why intervals of ranks may cover less than 95 %; empty where they are known to hold.

    Parameters
    ----------
    n_rows, n_dimensions : int
        Rows, or clusters of them; and D.
    kurtosis : float
        Mean kurtosis of the dimensions.
    clustered : bool
        Whether it is clusters.

    Returns
    -------
    str
        One or two sentences.
    """
    found = []
    if n_rows < AMPLE * n_dimensions:
        found.append(
            f"{n_rows} {'clusters' if clustered else 'samples'} are less than {AMPLE} D: ranks are "
            "biased downwards, and the intervals may cover less than 95 %."
        )
    found.append(caution_of_tails(kurtosis, n_rows, clustered))
    return " ".join(filter(None, found))


def refuse_clusters(clusters: object) -> None:
    """Refuse clusters beside moments, whose blocks are dealt already."""
    if clusters is not None:
        raise ValueError(
            "clusters must be left out for moments, whose rows are dealt to blocks already; got "
            "some. Give the rows, or clusters= to Moments.of."
        )


def _of_rows(features: np.ndarray, centred: bool, eps: float) -> np.ndarray:
    """Singular values (min(N, D),) of the rows themselves; 0 below what rounding hides."""
    largest = float(np.abs(features).max())
    rows = features.astype(np.float64) / (largest or 1.0)  # squares neither overflow nor vanish
    n, d = rows.shape
    squares = np.einsum("nd,nd->d", rows, rows)
    if centred:
        rows -= rows[0].copy()  # what does not vary is exactly 0 from here on
        rows -= rows.mean(axis=0)
    values = np.linalg.svd(rows, compute_uv=False)
    floor = eigenvalue_floor(float(values[0]) ** 2 / n, float(squares.max()) / n, n, d, eps)
    hidden = float(np.sqrt(n * floor))
    if centred:
        hidden = max(hidden, 8 * _EPS * float(np.sqrt(squares.sum())))  # the rounding of means
    return _not_all_zero(np.where(values > hidden, largest * values, 0.0), centred)


def singular_values_of(moments: Moments, centred: bool) -> np.ndarray:
    """Singular values of the rows from their moments.

    Parameters
    ----------
    moments : Moments
        Of single rows.
    centred : bool
        Of the rows less their mean.

    Returns
    -------
    ndarray of shape (D,)
        Descending; 0 where rounding hides them.

    Raises
    ------
    ValueError
        If all are zero.
    """
    whole = moments.whole()
    gram, mean = whole.scatters[0], whole.means[0, 0]
    scale = float((np.diagonal(gram) + whole.n * mean**2).max())
    if not centred:
        gram = gram + whole.n * np.outer(mean, mean)
    values = np.linalg.eigvalsh(gram)[::-1]
    n_dimensions = len(mean)
    if values[0] <= 64 * n_dimensions * _EPS**2 * scale:
        return _not_all_zero(np.zeros_like(values), centred)
    n = whole.n
    floor = eigenvalue_floor(float(values[0]) / n, scale / n, n, n_dimensions, moments.eps)
    return np.sqrt(np.where(values > n * floor, values, 0.0))


def _not_all_zero(values: np.ndarray, centred: bool) -> np.ndarray:
    if values.any():
        return values
    what = "vary" if centred else "have an entry that is not zero"
    raise ValueError(f"features must {what}; got none, whose ranks are undefined.")


def _fitted_ranks(values: np.ndarray, fit_range: tuple[int, int] | None) -> tuple[int, int] | None:
    """Ranks of the power law; None where there are too few."""
    n_positive = int((values > 0).sum())
    if fit_range is not None:
        power_law(values, fit_range)  # says what is wrong
        return fit_range
    first, last = _FITTED[0], min(_FITTED[1], n_positive)
    if last - first + 1 < _FEWEST_FITTED:
        first, last = 1, n_positive
    return (first, last) if last - first + 1 >= _FEWEST_FITTED else None


def _statistics(
    values: np.ndarray, ranks: tuple[int, int] | None
) -> tuple[dict[str, float], float]:
    exponent, r_squared = np.nan, np.nan
    if ranks is not None and values[ranks[1] - 1] > 0:
        exponent, r_squared = power_law(values, ranks)
    numbers = {
        "effective_rank": entropy_rank(values),
        "participation_ratio": participation_ratio(values),
        "stable_rank": stable_rank(values),
        "condition_number": condition_number(values),
        "power_law_exponent": exponent,
    }
    return numbers, r_squared


def _corrected(
    moments: Moments, centred: bool, ranks: tuple[int, int] | None
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Jackknife of every statistic, on the moments alone, so that all come from one formula."""
    counts, full, without = replicates(
        moments, lambda each: _resampled(singular_values_of(each, centred), ranks)
    )
    values, intervals = {}, {}
    for place, name in enumerate(_SAMPLED):
        value, low, high = corrected_interval(
            full[place : place + 1],
            without[:, place : place + 1],
            counts,
            scale=SCALES.get(name, "identity"),
            lowest=-np.inf if name == "power_law_exponent" else 1.0,
            highest=moments.n_dimensions if name in SCALES else np.inf,
        )
        values[name], intervals[name] = float(value[0]), (float(low[0]), float(high[0]))
    # one scale for both, and one bound
    values["entropy"] = float(np.log(values["effective_rank"]))
    bounds = np.log(intervals["effective_rank"])
    intervals["entropy"] = (float(bounds[0]), float(bounds[1]))
    return values, intervals


def replicates(
    moments: Moments, statistics: Callable[[Moments], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics of all samples and without each block of them.

    Parameters
    ----------
    moments : Moments
        In blocks.
    statistics : callable
        From moments of one block to (S,) numbers; a ``ValueError`` says that they are undefined.

    Returns
    -------
    counts : ndarray of shape (B,)
        Samples in each block.
    full : ndarray of shape (S,)
        Of all samples.
    without : ndarray of shape (B, S)
        NaN where there are fewer than two blocks, too few samples, or numbers are undefined.
    """
    counts = moments.counts[moments.counts > 0]
    full = statistics(moments.whole())
    unknown = np.full((max(2, len(counts)), len(full)), np.nan)
    if len(counts) < 2 or moments.n - counts.max() < 3:
        return np.ones(len(unknown)), full, unknown
    try:
        return counts, full, np.stack([statistics(each) for each in moments.without_each()])
    except ValueError:  # without some block nothing varies
        return counts, full, unknown


def _resampled(values: np.ndarray, ranks: tuple[int, int] | None) -> np.ndarray:
    numbers = _statistics(values, ranks)[0]
    return np.array([numbers[name] for name in _SAMPLED])


def _view_moments(
    views: np.ndarray, n_blocks: int, seed: int, ids: np.ndarray | None = None
) -> tuple[Moments, np.ndarray]:
    """Moments of the samples' means, and summed squares (B, D, D) of the views around them."""
    _, n_samples, n_dimensions = views.shape
    step = max(1, _CHUNK // n_dimensions)
    slices = [slice(start, start + step) for start in range(0, n_samples, step)]

    def means(part: slice) -> np.ndarray:
        return views[:, part].mean(axis=0, dtype=np.float64)

    between = Moments.of(
        (means(part) for part in slices), n_blocks=n_blocks, seed=seed, clusters=ids
    )
    within = np.zeros((n_blocks, n_dimensions, n_dimensions))
    for view in views:
        around = Moments.of(
            (view[part].astype(np.float64) - means(part) for part in slices),
            n_blocks=n_blocks,
            seed=seed,
            clusters=ids,
        )
        mean = around.means[:, 0]
        within += around.scatters
        within += np.einsum("b,bi,bj->bij", around.counts, mean, mean)
    return between, within


def _lidar(
    between: Moments, within: np.ndarray, n_views: int, delta: float, added: float
) -> float | None:
    """LiDAR from moments of one block and squares (D, D); None where samples do not differ."""
    if dead_dimensions(between).all():
        return None
    n = between.n
    return discriminant_rank(
        within / (n * (n_views - 1)), between.scatters[0] / (n - 1), added=added, delta=delta
    )


def _lidar_with_interval(
    views: np.ndarray, n_blocks: int, seed: int, ids: np.ndarray | None
) -> tuple[float, float, float, float] | None:
    """LiDAR, its corrected value and the interval of that; None where samples do not differ."""
    between, within = _view_moments(views, n_blocks, seed, ids)
    total = within.sum(axis=0)
    full = _lidar(between.whole(), total, len(views), _LIDAR_DELTA, _LIDAR_ADDED)
    if full is None:
        return None
    occupied = np.flatnonzero(between.counts)
    counts = between.counts[occupied]
    if len(counts) < 2 or between.n - counts.max() < 3:
        return full, np.nan, *_UNKNOWN
    without = []
    for block, mean in zip(occupied, between.without_each(), strict=True):
        value = _lidar(mean, total - within[block], len(views), _LIDAR_DELTA, _LIDAR_ADDED)
        without.append(np.nan if value is None else value)
    corrected, low, high = corrected_interval(
        np.array([full]), np.array(without)[:, None], counts, lowest=1.0,
        highest=between.n_dimensions,
    )  # fmt: skip
    return full, float(corrected[0]), float(low[0]), float(high[0])
