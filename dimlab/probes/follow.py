"""Mask evolution: how the weights move while a mask learns, and what the final ones agree with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.mask import MaskTrace
from dimlab.probes._reading import AXES, plain
from dimlab.probes.ablate import Ablation
from dimlab.probes.attribute import Attribution
from dimlab.probes.find_redundancy import Redundancy

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
EXPECTED_SIGNS = {"importance": 1, "redundancy": -1, "nuisance": -1}
CONTROLS = ("constant", "random", "permuted", "inverted")
LEARNED = "learned"
_WORDS = {
    "importance": "ablation importance",
    "redundancy": "redundancy (R^2 on the other dimensions)",
    "nuisance": "nuisance attribution",
}
_CONSTANT = "all weights are equal"
_TAIL = 0.025
_FEWEST = 4  # dimensions: below, ranks say nothing and the width of the interval has no formula
_SLACK = 1e-12  # a draw that only reorders equal ranks must count as equal
_ELEMENTS = 1 << 21
_N_NAMED = 10


@dataclass(frozen=True)
class MaskLink:
    """Rank correlation over dimensions of one mask with one other measurement of them.

    Parameters
    ----------
    link : {"importance", "redundancy", "nuisance"}
        The measurement: ablation importance, R^2 on the other dimensions, or nuisance score.
    mask : {"learned", "constant", "random", "permuted", "inverted"}
        The final weights, or a control.
    correlation : float
        Spearman's, in [-1, 1]; the mean over draws for a random or permuted mask; NaN: undefined.
    ci_low, ci_high : float
        95 % interval for one mask; the central 95 % of the draws for a random or permuted one.
    p_value : float
        Two-sided, from permutations of the weights over dimensions; NaN where a row has draws.
    n_dimensions : int
        Dimensions for which the measurement exists.
    expected_sign : {1, -1}
        Sign that the claim of the paper asks of the learned mask.
    reason : str
        Why the correlation is undefined; empty where it is defined.
    """

    link: str
    mask: str
    correlation: float
    ci_low: float
    ci_high: float
    p_value: float
    n_dimensions: int
    expected_sign: int
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``agrees``, ``contradicts`` or ``undecided`` by the side of 0 that holds the interval.

        ``undefined`` where there is no correlation.
        """
        if self.reason:
            return "undefined"
        ends = sorted((self.expected_sign * self.ci_low, self.expected_sign * self.ci_high))
        if ends[0] > 0:
            return "agrees"
        return "contradicts" if ends[1] < 0 else "undecided"

    def in_words(self) -> str:
        """Say what was found in one sentence.

        Returns
        -------
        str
            With the numbers, or the reason why there are none.
        """
        name = _WORDS[self.link]
        if self.reason:
            return f"{name}: undefined, {self.reason}."
        side = "positive" if self.expected_sign > 0 else "negative"
        return (
            f"{name}: {self.verdict} (Spearman {self.correlation:+.2f}, 95 % interval "
            f"{self.ci_low:+.2f} to {self.ci_high:+.2f}, p = {self.p_value:.2g}, "
            f"{self.n_dimensions} dimensions; the claim expects a {side} one)."
        )


@dataclass(frozen=True, eq=False)
class MaskEvolution:
    """How D mask weights moved over T recorded steps, and what the final ones go with.

    Parameters
    ----------
    steps : ndarray of shape (T,), int
        Recorded training steps.
    weights : ndarray of shape (T, D), float64
        Weights at each of them.
    quantiles : ndarray of shape (T, 7)
        Quantiles of the weights over dimensions at 0, 5, 25, 50, 75, 95 and 100 %.
    change : ndarray of shape (D,)
        Last weight less the first.
    path : ndarray of shape (D,)
        Sum of the absolute changes from record to record; what happened between two records is
        not in it.
    settled : ndarray of shape (D,)
        First recorded step from which on the weight stays within ``tolerance`` times the largest
        deviation of any weight from its final value. NaN for a mask that did not move.
    rank_stability : ndarray of shape (T,)
        Kendall's tau-b of the weights at each record with the final ones, in [-1, 1]; NaN where
        either are all equal.
    entropy : ndarray of shape (T,)
        Entropy of the shares |w| / sum |w|, in nats; NaN where all weights are 0.
    tolerance : float
        See ``settled``.
    links : tuple of MaskLink
        For each linked result: the learned mask, then the four controls.
    importance, r_squared, nuisance_score : ndarray of shape (D,) or None
        The linked quantities; NaN where a dimension has none.
    direct_norm, second_order_norm : ndarray of shape (T,) or None
        Norms of the two parts of the hypergradient, where recorded.
    gradient_share : ndarray of shape (T, D) or None
        Mean absolute gradient of the contrastive loss for each dimension, where recorded.

    References
    ----------
    Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945; those of `follow`,
    which measures it.

    Examples
    --------
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5, 0.5], [1.0, 0.5, 0.0]]))
    >>> evolution = follow(trace)
    >>> evolution.moved, evolution.movers.tolist(), evolution.final_rank.tolist()
    (True, [0, 2, 1], [1, 2, 3])
    >>> evolution.effective_number.round(2).tolist(), evolution.n_dimensions
    ([3.0, 1.89], 3)
    >>> evolution.movement()[:50]
    'The mask moved: between steps 0 and 10 its weights'
    >>> evolution.to_frame()["change"].tolist(), evolution.steps_frame()["q50"].tolist()
    ([0.5, 0.0, -0.5], [0.5, 0.5])
    >>> list(evolution.tables()), len(evolution.links_frame()), evolution.verdicts
    (['steps', 'links'], 0, {})
    >>> evolution.summary()["largest_change"]
    0.5
    """

    steps: np.ndarray
    weights: np.ndarray
    quantiles: np.ndarray
    change: np.ndarray
    path: np.ndarray
    settled: np.ndarray
    rank_stability: np.ndarray
    entropy: np.ndarray
    tolerance: float
    links: tuple[MaskLink, ...] = ()
    importance: np.ndarray | None = None
    r_squared: np.ndarray | None = None
    nuisance_score: np.ndarray | None = None
    direct_norm: np.ndarray | None = None
    second_order_norm: np.ndarray | None = None
    gradient_share: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def n_dimensions(self) -> int:
        """Number of weights, D."""
        return self.weights.shape[1]

    @property
    def effective_number(self) -> np.ndarray:
        """Number of equal weights of the same entropy, ``exp(entropy)`` in [1, D], shape (T,)."""
        return np.exp(self.entropy)

    @property
    def movers(self) -> np.ndarray:
        """Dimensions by absolute change, largest first, shape (D,); equal ones by index."""
        return np.argsort(-np.abs(self.change), kind="stable")

    @property
    def final_rank(self) -> np.ndarray:
        """Place of each dimension by final weight, 1 the largest, shape (D,); ties by index."""
        rank = np.empty(self.n_dimensions, dtype=np.int64)
        rank[np.argsort(-self.weights[-1], kind="stable")] = np.arange(1, self.n_dimensions + 1)
        return rank

    @property
    def moved(self) -> bool:
        """Whether any weight changed between two records."""
        return bool(self.path.max() > 0)

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict of the learned mask for each link."""
        return {link.link: link.verdict for link in self.links if link.mask == LEARNED}

    def to_frame(self) -> Any:
        """Return one row a dimension.

        Returns
        -------
        pandas.DataFrame
            ``dimension, first_weight, last_weight, change, path, settled_step, final_rank`` (1 the
            largest weight) and, where linked, ``importance, r_squared, nuisance_score``.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "dimension": np.arange(self.n_dimensions),
            "first_weight": self.weights[0],
            "last_weight": self.weights[-1],
            "change": self.change,
            "path": self.path,
            "settled_step": self.settled,
            "final_rank": self.final_rank,
        }
        for name in ("importance", "r_squared", "nuisance_score"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``steps`` and ``links``.
        """
        return {"steps": self.steps_frame(), "links": self.links_frame()}

    def steps_frame(self) -> Any:
        """Return one row a recorded step.

        Returns
        -------
        pandas.DataFrame
            ``step, mean_weight, std_weight``, the quantiles ``q0, q5, q25, q50, q75, q95, q100``,
            ``rank_stability, entropy, effective_number`` and, where recorded, ``direct_norm,
            second_order_norm``.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "step": self.steps,
            "mean_weight": self.weights.mean(axis=1),
            "std_weight": self.weights.std(axis=1),
        }
        for place, share in enumerate(QUANTILES):
            columns[f"q{100 * share:g}"] = self.quantiles[:, place]
        for name in ("rank_stability", "entropy", "effective_number"):
            columns[name] = getattr(self, name)
        for name in ("direct_norm", "second_order_norm"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def links_frame(self) -> Any:
        """Return one row a link and mask.

        Returns
        -------
        pandas.DataFrame
            ``link, mask, correlation, ci_low, ci_high, p_value, n_dimensions, expected_sign,
            verdict, reason``; no rows where nothing was linked.
        """
        import pandas as pd

        names = [*MaskLink.__dataclass_fields__]
        names.insert(names.index("reason"), "verdict")
        return pd.DataFrame(
            [[getattr(link, name) for name in names] for link in self.links], columns=names
        )

    def movement(self) -> str:
        """Say how far the mask moved, or that it did not, in one sentence.

        Returns
        -------
        str
            The sentence.
        """
        first, last = int(self.steps[0]), int(self.steps[-1])
        if len(self) == 1:
            return f"Nothing can be said of movement: there is one record, of step {first}."
        when = f"between steps {first} and {last}"
        if not self.moved:
            return f"The mask did not move: no weight changed {when}."
        size, top = np.abs(self.change), int(self.movers[0])
        if size[top] == 0:
            return f"The mask moved {when}, but every weight ended where it began."
        found = (
            f"The mask moved: {when} its weights changed by {size.mean():.2g} on average and by "
            f"{size[top]:.2g} at most (dimension {top})"
        )
        if np.ptp(self.weights[-1]) == 0:
            return f"{found}, all alike: it prefers no dimension."
        return f"{found}; their standard deviation over dimensions ended at {self._std:.2g}."

    @property
    def _std(self) -> float:
        return float(self.weights[-1].std())

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Sizes, ``moved``, ``movement`` (a sentence), ``mean_change`` and ``largest_change``
            (absolute), ``std_weight`` (at the end), ``movers`` (at most ten),
            the median ``settled_step``,
            entropy and effective number at the start and at the end, ``links`` (nested: link, then
            mask), ``verdicts`` (a list of sentences) and what the intervals mean.
        """
        size = np.abs(self.change)
        movers = self.movers[:_N_NAMED]
        movers = movers[size[movers] > 0]
        links: dict[str, dict[str, Any]] = {}
        for each in self.links:
            numbers = ("correlation", "ci_low", "ci_high", "p_value")
            links.setdefault(each.link, {})[each.mask] = {
                **{name: plain(getattr(each, name)) for name in numbers},
                "n_dimensions": each.n_dimensions,
                "expected_sign": each.expected_sign,
                "verdict": each.verdict,
                **({"reason": each.reason} if each.reason else {}),
            }
        learned = [each.in_words() for each in self.links if each.mask == LEARNED]
        return {
            "n_steps": len(self),
            "n_dimensions": self.n_dimensions,
            "first_step": int(self.steps[0]),
            "last_step": int(self.steps[-1]),
            "moved": self.moved,
            "movement": self.movement(),
            "mean_change": float(size.mean()),
            "largest_change": float(size.max()),
            "std_weight": self._std,
            "movers": movers.tolist(),
            "movers_change": self.change[movers].tolist(),
            "tolerance": self.tolerance,
            "median_settled_step": float(np.median(self.settled)) if self.moved else None,
            "entropy_start": plain(self.entropy[0]),
            "entropy_end": plain(self.entropy[-1]),
            "effective_number_start": plain(self.effective_number[0]),
            "effective_number_end": plain(self.effective_number[-1]),
            "links": links,
            "intervals": "95 %, bootstrap over dimensions, which are not independent samples where "
            "they are redundant; for random and permuted masks the central 95 % of draws.",
            "verdicts": learned or ["No other measurement was given to compare the mask with."],
        }


def follow(
    trace: MaskTrace,
    *,
    ablation: Ablation | None = None,
    redundancy: Redundancy | None = None,
    attribution: Attribution | None = None,
    tolerance: float = 0.1,
    n_bootstrap: int = 2000,
    n_permutations: int = 10000,
    seed: int = 0,
) -> MaskEvolution:
    """Measure how a mask moved, and whether it ended where other measurements say it should.

    Parameters
    ----------
    trace : MaskTrace
        D weights at T >= 1 steps, of any run: see `MaskTrace.of_masks`.
    ablation : Ablation, optional
        Of the same dimensions, each alone. Claim: the mask weighs up what is needed.
    redundancy : Redundancy, optional
        Its R^2 is compared. Claim: the mask weighs down what the others hold already.
    attribution : Attribution, optional
        Its nuisance score is compared. Claim: the mask weighs down what carries nuisance.
    tolerance : float, default=0.1
        Share of the largest deviation within which a weight has settled, in [0, 1).
    n_bootstrap : int, default=2000
        Bootstrap samples of dimensions for the intervals, >= 2.
    n_permutations : int, default=10000
        Permutations for p-values, and draws of random and permuted masks, >= 1.
    seed : int, default=0
        Draws both, >= 0.

    Returns
    -------
    MaskEvolution
        Numbers of every record and every dimension, and the links.

    Raises
    ------
    ValueError
        If the trace has no record or no dimension, a result is of other dimensions or in a basis
        other than the axes, the ablation is not of single dimensions, or a number is out of its
        range.

    Notes
    -----
    Both losses are blind to the common scale of the weights: only their differences between
    dimensions mean something, hence rank correlations (Spearman's, ties at their mean rank). Signs
    of raw masks are kept, except in the entropy, which takes absolute values.

    Intervals: Fisher's z of the correlation plus or minus Student's t (D - 2) times its standard
    deviation over resampled dimensions, ranked anew; z ends half the smallest step of the statistic
    short of that of 1, and a perfect order takes the standard error of [1]_. In simulations of
    bivariate normal pairs (D = 32, 64, 512; Pearson 0 to 0.9) they covered the true rank
    correlation in 94.8 to 96.6 % of the runs; with many ties or heavy tails in 94 to 97 %.
    Dimensions are no independent samples where they are redundant: copies count as evidence
    several times over, and intervals are then too short, p-values too small.

    p-values: (1 + draws at least as far from 0) / (1 + draws) with the weights permuted over the
    dimensions [2]_. Controls have values of the same distribution: one constant; *random*, drawn
    with replacement from the mask's; *permuted*, the mask's on random dimensions (the null);
    *inverted*, the mask's in reversed order, equal ones ordered at random. Random draws with all
    values equal are left out. Verdicts look at the interval only, each link by itself: no
    adjustment is made for three of them.

    References
    ----------
    .. [1] Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
       Spearman correlations", Psychometrika 65, 2000.
    .. [2] Phipson and Smyth, "Permutation p-values should never be zero", SAGMB 9, 2010.

    Examples
    --------
    >>> weights = [[0.5, 0.5, 0.5], [0.7, 0.5, 0.4], [0.9, 0.5, 0.4]]
    >>> evolution = follow(MaskTrace(np.array([0, 10, 20]), np.array(weights)))
    >>> evolution.movers.tolist(), evolution.settled.tolist()
    ([0, 2, 1], [20.0, 0.0, 10.0])
    """
    _check_numbers(tolerance, n_bootstrap, n_permutations, seed)
    weights = np.asarray(trace.weights, dtype=np.float64)
    if weights.size == 0:
        raise ValueError(f"trace must hold at least one weight; got shape {weights.shape}.")
    measured = _measured(weights.shape[1], ablation, redundancy, attribution)
    links = [
        row
        for name, values in measured.items()
        for row in _linked(name, weights[-1], values, n_bootstrap, n_permutations, seed)
    ]
    return MaskEvolution(
        steps=np.asarray(trace.steps),
        weights=weights,
        quantiles=np.quantile(weights, QUANTILES, axis=1).T,
        change=weights[-1] - weights[0],
        path=np.abs(np.diff(weights, axis=0)).sum(axis=0),
        settled=_settled(np.asarray(trace.steps), weights, tolerance),
        rank_stability=_rank_stability(weights),
        entropy=_entropy(weights),
        tolerance=tolerance,
        links=tuple(links),
        importance=measured.get("importance"),
        r_squared=measured.get("redundancy"),
        nuisance_score=measured.get("nuisance"),
        direct_norm=trace.direct_norm,
        second_order_norm=trace.second_order_norm,
        gradient_share=trace.gradient_share,
    )


def _check_numbers(tolerance: float, n_bootstrap: int, n_permutations: int, seed: int) -> None:
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must lie in [0, 1); got {tolerance:g}.")
    least = {"n_bootstrap": (n_bootstrap, 2), "n_permutations": (n_permutations, 1)}
    for name, (value, minimum) in {**least, "seed": (seed, 0)}.items():
        if value < minimum:
            raise ValueError(f"{name} must be >= {minimum}; got {value}.")


def _measured(
    n_dimensions: int,
    ablation: Ablation | None,
    redundancy: Redundancy | None,
    attribution: Attribution | None,
) -> dict[str, np.ndarray]:
    """Read one number a dimension from each result that was given."""
    found = {}
    if ablation is not None:
        _check_result("ablation", ablation, ablation.n_dimensions, n_dimensions)
        found["importance"] = _importance(ablation)
    if redundancy is not None:
        _check_result("redundancy", redundancy, len(redundancy), n_dimensions)
        found["redundancy"] = np.where(redundancy.dead, np.nan, redundancy.r_squared)
    if attribution is not None:
        _check_result("attribution", attribution, len(attribution), n_dimensions)
        found["nuisance"] = np.where(attribution.dead, np.nan, attribution.nuisance_score)
    return found


def _check_result(name: str, result: Any, n_dimensions: int, wanted: int) -> None:
    if result.basis != AXES:
        raise ValueError(
            f"{name} must be in the basis of the {AXES}, which a mask weighs; got {result.basis}."
        )
    if n_dimensions != wanted:
        raise ValueError(
            f"{name} must have {wanted} dimensions to match trace; got {n_dimensions}."
        )


def _importance(ablation: Ablation) -> np.ndarray:
    """Read the importance by dimension, whatever the order of the groups."""
    dimensions = np.concatenate([np.asarray(group) for group in ablation.groups])
    wanted = np.arange(ablation.n_dimensions)
    if len(ablation.groups) != len(wanted) or not np.array_equal(np.sort(dimensions), wanted):
        raise ValueError(
            "ablation must be of every single dimension; got "
            f"{len(ablation.groups)} groups of {len(wanted)} dimensions. Call ablate without "
            "groups."
        )
    found = np.empty(len(wanted))
    found[dimensions] = ablation.importance
    return found


def _settled(steps: np.ndarray, weights: np.ndarray, tolerance: float) -> np.ndarray:
    deviation = np.abs(weights - weights[-1])
    largest = deviation.max()
    if largest == 0:
        return np.full(weights.shape[1], np.nan)
    away = deviation > tolerance * largest * (1 + _SLACK)
    # the last record is never away; argmax of the reversed rows finds the last that is
    last_away = len(steps) - 1 - away[::-1].argmax(axis=0)
    return steps[np.where(away.any(axis=0), last_away + 1, 0)].astype(np.float64)


def _rank_stability(weights: np.ndarray) -> np.ndarray:
    from scipy.stats import kendalltau

    final, found = weights[-1], np.full(len(weights), np.nan)
    # the p-value is not used; its exact form is slow, and its other form needs three dimensions
    method = "asymptotic" if len(final) > 2 else "auto"
    if np.ptp(final) > 0:
        for place in np.flatnonzero(np.ptp(weights, axis=1) > 0):
            found[place] = kendalltau(weights[place], final, method=method).statistic
    return found


def _entropy(weights: np.ndarray) -> np.ndarray:
    from scipy.special import entr

    sizes = np.abs(weights)
    total = sizes.sum(axis=1, keepdims=True)
    shares = np.divide(sizes, total, out=np.full_like(sizes, np.nan), where=total > 0)
    return entr(shares).sum(axis=1)


def _linked(
    name: str,
    weights: np.ndarray,
    values: np.ndarray,
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> list[MaskLink]:
    """One measurement against the learned mask and its controls."""
    known = np.flatnonzero(np.isfinite(values))
    # in an order of their own, so that the draws do not depend on how dimensions are numbered
    known = known[np.lexsort((values[known], weights[known]))]
    mine, other = weights[known], values[known]
    reason = _undefined(name, mine, other)
    nothing = (np.nan, np.nan, np.nan, np.nan)
    # draws of its own: they do not depend on what else was linked
    streams = [np.random.default_rng([seed, use]) for use in range(4)]
    rows = {mask: nothing for mask in (LEARNED, *CONTROLS)}
    reasons = {mask: reason for mask in rows}
    reasons["constant"] = reason or _CONSTANT
    if not reason:
        null = _correlations_with(other, _permutations(mine, n_permutations, streams[0]))
        random = _correlations_with(other, _redraws(mine, n_permutations, streams[1]))
        counts = _resamples(len(mine), n_bootstrap, streams[2])
        for mask, each in ((LEARNED, mine), ("inverted", _inverted(mine, streams[3]))):
            correlation = float(_spearman(each, other, np.ones((1, len(mine))))[0])
            p_value = (1 + np.sum(np.abs(null) >= abs(correlation) - _SLACK)) / (1 + len(null))
            interval = _interval(correlation, _spearman(each, other, counts), len(mine))
            rows[mask] = (correlation, *interval, float(p_value))
        if len(random) == 0:
            reasons["random"] = "no draw had weights that differ"
        rows["random"], rows["permuted"] = (*_band(random), np.nan), (*_band(null), np.nan)
    return [
        MaskLink(
            name,
            mask,
            *numbers,
            n_dimensions=len(known),
            expected_sign=EXPECTED_SIGNS[name],
            reason=reasons[mask],
        )
        for mask, numbers in rows.items()
    ]


def _undefined(name: str, mine: np.ndarray, other: np.ndarray) -> str:
    """Say why there is no correlation; empty: there is one."""
    if len(mine) < _FEWEST:
        return f"{len(mine)} dimensions have a number, and it takes {_FEWEST}"
    if mine[0] == mine[-1]:
        return _CONSTANT
    return f"{_WORDS[name]} is the same for all dimensions" if np.ptp(other) == 0 else ""


def _inverted(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give the largest of ascending weights to the first, and so on; equal ones in random order."""
    order = np.lexsort((rng.random(len(weights)), weights))
    found = np.empty_like(weights)
    found[order] = weights[::-1]
    return found


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(values) - (len(values) + 1) / 2


def _permutations(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> Iterator[Any]:
    """Centred ranks of permuted weights, in blocks of rows."""
    ranks = _centred_ranks(weights)
    for size in _block_sizes(n_draws, len(ranks)):
        yield rng.permuted(np.broadcast_to(ranks, (size, len(ranks))), axis=1)


def _redraws(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> Iterator[Any]:
    """Centred ranks of values drawn with replacement from the weights, in blocks of rows."""
    level = np.unique(weights, return_inverse=True)[1]
    n_levels = level[-1] + 1  # the weights ascend
    for size in _block_sizes(n_draws, len(level)):
        drawn = level[rng.integers(len(level), size=(size, len(level)))]
        cells = drawn + n_levels * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * n_levels).reshape(size, n_levels)
        # the mean rank of the equal values, less that of all
        middle = np.cumsum(counts, axis=1) - (counts - 1) / 2 - (len(level) + 1) / 2
        yield np.take_along_axis(middle, drawn, axis=1)


def _resamples(n: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each dimension is in each bootstrap sample, (n_draws, n)."""
    shares = np.full(n, 1 / n)
    return np.concatenate(
        [
            rng.multinomial(n, shares, size=size).astype(np.int32)
            for size in _block_sizes(n_draws, n)
        ]
    )


def _block_sizes(n_draws: int, n: int) -> list[int]:
    step = max(1, _ELEMENTS // n)
    return [min(step, n_draws - start) for start in range(0, n_draws, step)]


def _correlations_with(other: np.ndarray, blocks: Iterator[np.ndarray]) -> np.ndarray:
    """Spearman's correlation of rows of centred ranks with one vector; constant rows left out."""
    target = _centred_ranks(other)
    target /= np.linalg.norm(target)
    found = []
    for ranks in blocks:
        norms = np.sqrt(np.einsum("ij,ij->i", ranks, ranks))
        found.append((ranks @ target)[norms > 0] / norms[norms > 0])
    return np.concatenate(found)


def _spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation where each dimension is there so many times, a row a resample.

    Rows in which either is constant are left out.
    """
    found = []
    step = max(1, _ELEMENTS // len(first))
    for start in range(0, len(counts), step):
        some = counts[start : start + step].astype(np.float64)
        a, b = _weighted_ranks(first, some), _weighted_ranks(second, some)
        weighted = some * a
        squares = np.einsum("ij,ij->i", weighted, a) * np.einsum("ij,ij,ij->i", some, b, b)
        there = squares > 0
        found.append(np.einsum("ij,ij->i", weighted, b)[there] / np.sqrt(squares[there]))
    return np.clip(np.concatenate(found), -1, 1)


def _weighted_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Centred mean ranks of values of which each is there so many times."""
    order = np.argsort(values, kind="stable")
    is_first = np.diff(values[order], prepend=np.nan) != 0
    of_level = np.add.reduceat(counts[:, order], np.flatnonzero(is_first), axis=1)
    middle = np.cumsum(of_level, axis=1) - (of_level - 1) / 2
    level = np.empty(len(order), dtype=np.int64)
    level[order] = np.cumsum(is_first) - 1
    return middle[:, level] - (counts.sum(axis=1, keepdims=True) + 1) / 2


def _interval(correlation: float, resampled: np.ndarray, n: int) -> tuple[float, float]:
    """Fisher's z and its standard error over resamples, back on the scale of the correlation."""
    from scipy.stats import t

    end = 1 - 6 / (n**3 - n)  # half a step short of 1: a swap of neighbours costs 12 / (n^3 - n)
    z = np.arctanh(np.clip(resampled, -end, end))
    error = float(z.std(ddof=1)) if len(z) > 1 else 0.0
    if error <= _SLACK:  # a perfect order: every resample has it too
        error = float(np.sqrt((1 + correlation**2 / 2) / (n - 3)))
    middle = np.arctanh(np.clip(correlation, -end, end))
    reach = float(t.ppf(1 - _TAIL, n - 2)) * error
    low, high = np.tanh([middle - reach, middle + reach])
    return min(float(low), correlation), max(float(high), correlation)


def _band(draws: np.ndarray) -> tuple[float, float, float]:
    """Mean and central 95 % of draws."""
    if len(draws) == 0:
        return (np.nan, np.nan, np.nan)
    low, high = np.quantile(draws, [_TAIL, 1 - _TAIL])
    return float(draws.mean()), float(low), float(high)
