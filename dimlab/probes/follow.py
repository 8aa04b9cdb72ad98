"""Mask evolution: how the weights move while a mask learns, and what the final ones agree with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.mask import MaskTrace
from dimlab.probes._links import LEARNED, SLACK, MaskLink, linked
from dimlab.probes._reading import AXES
from dimlab.probes.ablate import Ablation
from dimlab.probes.attribute import Attribution
from dimlab.probes.find_redundancy import Redundancy
from dimlab.refusals import Refusal
from dimlab.result import Result, Verdict, column, detail, entries, entry, per, scalar

NEEDS: tuple[set[str], ...] = ({"trace"},)
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_LINKS = {"importance": "importance", "r_squared": "redundancy", "nuisance_score": "nuisance"}
_N_NAMED = 10


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MaskEvolution(Result):
    """How D mask weights moved over T recorded steps, and what the final ones go with.

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

    ROWS = "dimension"
    EFFECT = ("change",)
    DIMENSIONS = (("mask_weight", "last_weight", "final mask weight"),)
    TABLES = (("steps", "steps_frame"), ("links", "links_frame"))

    n_steps = entry(len, doc="T, the number of records.")
    n_dimensions = entry(lambda self: self.weights.shape[1], doc="D, the number of weights.")
    steps: np.ndarray = per("T", "Recorded training steps.")
    weights: np.ndarray = per("T", "Weights at each of them.", shape="(T, D)")
    quantiles: np.ndarray = per(
        "T",
        "Quantiles of the weights over dimensions at 0, 5, 25, 50, 75, 95 and 100 %.",
        shape="(T, 7)",
    )

    @column
    def ends(self) -> dict[str, np.ndarray]:
        """Columns ``dimension``, ``first_weight`` and ``last_weight``."""
        return {
            "dimension": np.arange(self.n_dimensions),
            "first_weight": self.weights[0],
            "last_weight": self.weights[-1],
        }

    change: np.ndarray = per("dimension", "Last weight minus the first.")
    path: np.ndarray = per(
        "dimension",
        "Sum of the absolute changes from record to record; what happened between two records is "
        "not in it.",
    )
    settled: np.ndarray = per(
        "dimension",
        "First recorded step from which on the weight stays within `tolerance` times the largest "
        "deviation of any weight from its final value. NaN for a mask that did not move.",
        column="settled_step",
    )

    @column
    def final_rank(self) -> np.ndarray:
        """Place of each dimension by final weight, 1 the largest, shape (D,); ties by index."""
        rank = np.empty(self.n_dimensions, dtype=np.int64)
        rank[np.argsort(-self.weights[-1], kind="stable")] = np.arange(1, self.n_dimensions + 1)
        return rank

    importance: np.ndarray | None = per(
        "dimension", "Ablation importance; NaN where a dimension has none.", default=None
    )
    r_squared: np.ndarray | None = per(
        "dimension", "R^2 on the other dimensions, likewise.", default=None
    )
    nuisance_score: np.ndarray | None = per("dimension", "Nuisance score, likewise.", default=None)
    rank_stability: np.ndarray = per(
        "T",
        "Kendall's tau-b of the weights at each record with the final ones, in [-1, 1]; NaN where "
        "either are all equal.",
    )
    entropy: np.ndarray = per(
        "T", "Entropy of the shares ``|w| / sum |w|``, in nats; NaN where all weights are 0."
    )
    direct_norm: np.ndarray | None = per(
        "T", "Norm of the direct part of the hypergradient, where recorded.", default=None
    )
    second_order_norm: np.ndarray | None = per("T", "Norm of the other part.", default=None)
    gradient_share: np.ndarray | None = per(
        "T",
        "Mean absolute gradient of the contrastive loss for each dimension, where recorded.",
        shape="(T, D)",
        default=None,
    )

    @entries
    def of_the_movement(self) -> dict[str, Any]:
        """How far the mask moved, and which weights most."""
        size, movers = np.abs(self.change), self.movers[:_N_NAMED]
        movers = movers[size[movers] > 0]
        return {
            "first_step": self.steps[0],
            "last_step": self.steps[-1],
            "moved": self.moved,
            "movement": self.movement(),
            "mean_change": size.mean(),
            "largest_change": size.max(),
            "std_weight": self.weights[-1].std(),
            "movers": movers,
            "movers_change": self.change[movers],
        }

    tolerance: float = scalar("Share of the largest deviation within which a weight has settled.")

    @entries
    def start_and_end(self) -> dict[str, Any]:
        """When the weights settled, and how even they were at the start and at the end."""
        ends = {
            f"{name}_{end}": getattr(self, name)[place]
            for name in ("entropy", "effective_number")
            for end, place in (("start", 0), ("end", -1))
        }
        return {"median_settled_step": np.median(self.settled) if self.moved else None, **ends}

    links: tuple[MaskLink, ...] = detail(
        "For each linked result: the learned mask, then the four controls.", default=()
    )

    @entries
    def of_links(self) -> dict[str, Any]:
        """The links by name and mask, and sentences on the learned mask."""
        nested: dict[str, dict[str, Any]] = {}
        for each in self.links:
            row = {name: value for name, value in each.row().items() if value != ""}
            nested.setdefault(row.pop("link"), {})[row.pop("mask")] = row
        learned = [each.in_words() for each in self.links if each.mask == LEARNED]
        return {
            "links": nested,
            "intervals": "95 %, bootstrap over dimensions, which are not independent samples where "
            "they are redundant; for random and permuted masks the central 95 % of draws.",
            "verdicts": learned or ["No other measurement was given to compare the mask with."],
        }

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def effective_number(self) -> np.ndarray:
        """Number of equal weights of the same entropy, ``exp(entropy)`` in [1, D], shape (T,)."""
        return np.exp(self.entropy)

    @property
    def movers(self) -> np.ndarray:
        """Dimensions by absolute change, largest first, shape (D,); equal ones by index."""
        return np.argsort(-np.abs(self.change), kind="stable")

    @property
    def moved(self) -> bool:
        """Whether any weight changed between two records."""
        return bool(self.path.max() > 0)

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict of the learned mask for each link."""
        return {link.link: link.verdict for link in self.links if link.mask == LEARNED}

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
        norms = ("direct_norm", "second_order_norm")
        for name in ("rank_stability", "entropy", "effective_number", *norms):
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

        return pd.DataFrame([each.row() for each in self.links], columns=MaskLink.COLUMNS)

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
        spread = self.weights[-1].std()
        if np.ptp(self.weights[-1]) == 0:
            return f"{found}, all alike: it prefers no dimension."
        return f"{found}; their standard deviation over dimensions ended at {spread:.2g}."


def verdict(evolution: MaskEvolution) -> Verdict | None:
    """Say whether the mask agrees with what dimensions do; nothing without other results."""
    if not evolution.links:
        return None
    words = evolution.verdicts
    decided = set(words.values()) & {"agrees", "contradicts"}
    answer = "yes" if decided == {"agrees"} and "undecided" not in words.values() else "undecided"
    answer = "no" if "contradicts" in decided else answer
    learned = [link for link in evolution.links if link.mask == "learned" and not link.reason]
    numbers = "; ".join(
        f"{link.link} {link.correlation:+.2f} [{link.ci_low:+.2f}, {link.ci_high:+.2f}], "
        f"{link.verdict}"
        for link in learned
    )
    return Verdict(
        "Does the mask agree with what dimensions do?",
        answer,
        f"Spearman correlation of the final weights: {numbers}." if learned else "Undefined.",
        "Yes: every link's interval lies on the side that the paper's claim expects (importance "
        "positive, redundancy and nuisance negative); no: one lies on the other side; else "
        "undecided.",
        good="yes",
    )


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
    dimensions mean something, hence rank correlations (Spearman's, ties at their mean rank;
    Kendall's tau-b [3]_ over time). Signs of raw masks are kept, except in the entropy, which takes
    absolute values.

    Intervals: Fisher's z of the correlation plus or minus Student's t (D - 2) times its standard
    deviation over resampled dimensions, ranked anew; z ends half the smallest step of the statistic
    short of that of 1, and a perfect order takes the standard error of [1]_. In simulations of
    bivariate normal pairs (D = 32, 64, 512; Pearson 0 to 0.9) they covered the true rank
    correlation in 94.8 to 96.6 % of the runs; with many ties or heavy tails in 94 to 97 %. Where
    dimensions are redundant, intervals are too short and p-values too small.

    p-values: (1 + draws at least as far from 0) / (1 + draws) with the weights permuted over the
    dimensions [2]_. Controls have values of the same distribution: one constant; *random*, drawn
    with replacement from the mask's; *permuted*, the mask's on random dimensions (the null);
    *inverted*, the mask's in reversed order, equal ones ordered at random. Random draws with all
    values equal are left out. Verdicts look at the interval of one link only.

    References
    ----------
    .. [1] Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
       Spearman correlations", Psychometrika 65, 2000.
    .. [2] Phipson and Smyth, "Permutation p-values should never be zero", SAGMB 9, 2010.
    .. [3] Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945.

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
        raise Refusal(f"trace must hold at least one weight; got shape {weights.shape}.")
    measured = _measured(weights.shape[1], ablation, redundancy, attribution)
    links = [
        row
        for name, values in measured.items()
        for row in linked(_LINKS[name], weights[-1], values, n_bootstrap, n_permutations, seed)
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
        **measured,
        direct_norm=trace.direct_norm,
        second_order_norm=trace.second_order_norm,
        gradient_share=trace.gradient_share,
    )


def _check_numbers(tolerance: float, n_bootstrap: int, n_permutations: int, seed: int) -> None:
    if not 0 <= tolerance < 1:
        raise Refusal(f"tolerance must lie in [0, 1); got {tolerance:g}.")
    least = {"n_bootstrap": (n_bootstrap, 2), "n_permutations": (n_permutations, 1)}
    for name, (value, minimum) in {**least, "seed": (seed, 0)}.items():
        if value < minimum:
            raise Refusal(f"{name} must be >= {minimum}; got {value}.")


def _measured(
    n_dimensions: int,
    ablation: Ablation | None,
    redundancy: Redundancy | None,
    attribution: Attribution | None,
) -> dict[str, np.ndarray]:
    """Read one number a dimension from each result that was given."""
    found = {}
    for name, result, number in (
        ("ablation", ablation, "importance"),
        ("redundancy", redundancy, "r_squared"),
        ("attribution", attribution, "nuisance_score"),
    ):
        if result is None:
            continue
        if result.basis != AXES:
            raise Refusal(
                f"{name} must be in the basis of the {AXES}, which a mask weighs; got "
                f"{result.basis}."
            )
        if result.n_dimensions != n_dimensions:
            raise Refusal(
                f"{name} must have {n_dimensions} dimensions to match trace; got "
                f"{result.n_dimensions}."
            )
        if isinstance(result, Ablation):
            found[number] = _importance(result)
        else:
            found[number] = np.where(result.dead, np.nan, getattr(result, number))
    return found


def _importance(ablation: Ablation) -> np.ndarray:
    """Read the importance by dimension, whatever the order of the groups."""
    dimensions = np.concatenate([np.asarray(group) for group in ablation.groups])
    wanted = np.arange(ablation.n_dimensions)
    if len(ablation.groups) != len(wanted) or not np.array_equal(np.sort(dimensions), wanted):
        raise Refusal(
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
    away = deviation > tolerance * largest * (1 + SLACK)
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
