"""Behind attribution: p- and q-values, mutual information, and what is known from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dimlab.kernels.correlation import standardised
from dimlab.kernels.permutation import permutation_p_values
from dimlab.mask import MaskTrace
from dimlab.probes._factors import Factors
from dimlab.probes._reading import AXES, basis_of
from dimlab.probes.ablate import Ablation
from dimlab.processes import shared
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Result, detail, per

SIGNIFICANT = 0.05
FLOOR = 0.01  # effect of a factor, or of the label, that a dimension is said to carry
UNDECIDED = "undecided"
MEASURED = (
    *("effect", "p_value", "q_value"),
    *("partial_effect", "partial_p_value", "partial_q_value"),
)
DECIMALS = 10  # of effects that are put in order
N_INFORMATIVE, INFORMATIVE_ROWS = 10, 5000  # pairs of a factor, and samples, for mutual information
_PERMUTATIONS = 100  # of which the statistics are kept together
_LAST_RECORDS = 10  # of a trace, whose gradient shares are averaged


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Judged(Result):
    """What (D, F) effects, given the label and given all other factors, say of dimensions."""

    label_effect: np.ndarray
    factors: tuple[str, ...] = detail("Names of the factors.")
    kinds: tuple[str, ...] = detail("`continuous`, `periodic` or `categorical`, for each factor.")
    effect: np.ndarray = per(
        "dimension",
        "Share of a dimension's squared error, given the label, that the factor takes off out of "
        "fold; in [0, 1]. NaN where the factor is not identifiable or the dimension does not vary "
        "within classes.",
        shape="(D, F)",
    )
    partial_effect: np.ndarray = per(
        "dimension",
        "The same given the label and all other identifiable factors; NaN too where the factor is "
        "not identifiable beside them.",
        shape="(D, F)",
    )
    p_value: np.ndarray = per("dimension", "Within-class permutation p-values.", shape="(D, F)")
    q_value: np.ndarray = per(
        "dimension",
        "q-values over all of them (Benjamini-Hochberg), in which a pair without an effect out of "
        "fold counts as p = 1.",
        shape="(D, F)",
    )
    partial_p_value: np.ndarray = per(
        "dimension", "p-values of the partial effects (Freedman and Lane).", shape="(D, F)"
    )
    partial_q_value: np.ndarray = per("dimension", "q-values over all of these.", shape="(D, F)")
    nuisance_score: np.ndarray = per(
        "dimension", "Largest effect of any factor; NaN where there is none.", column=False
    )
    identifiable: np.ndarray = per(
        "factor", "Whether the factor varies by itself, given the label."
    )
    separate: np.ndarray = per("factor", "The same given the label and the other factors.")
    left_given_label: np.ndarray = per(
        "factor", "Share of the factor's variance that the label leaves."
    )
    left_given_others: np.ndarray = per(
        "factor", "Share that the label and all other identifiable factors leave."
    )
    shared: np.ndarray = per(
        "factor",
        "Share of each factor's variance within classes that another one explains.",
        shape="(F, F)",
    )
    n_columns: np.ndarray = per(
        "factor",
        "Columns of each factor: 4 of a continuous one with at least 5 different values.",
    )
    dead: np.ndarray = per("dimension", "Dimensions that do not vary within classes.", column=False)
    smallest_p_value: np.ndarray = per(
        "factor",
        "What the p-values of the factor's effects cannot fall below, however large the effect: it "
        "is large where few units can change places.",
    )
    mutual_information: np.ndarray = per(
        "dimension",
        "Nats between dimension and factor, *not* given the label, by nearest neighbours among at "
        "most 5,000 samples (an angle cut open at 0); only for the ten dimensions of the largest "
        "effect of each factor, NaN for the rest.",
        shape="(D, F)",
    )
    n_clusters: int

    @property
    def found(self) -> np.ndarray:
        """Whether a factor's effect is at least 0.01 with q <= 0.05, (D, F) bool."""
        with np.errstate(invalid="ignore"):
            return (self.q_value <= SIGNIFICANT) & (self.effect >= FLOOR)

    @property
    def own(self) -> np.ndarray:
        """Whether that holds of the partial effect too: a factor carried by itself, (D, F) bool."""
        with np.errstate(invalid="ignore"):
            beside = (self.partial_q_value <= SIGNIFICANT) & (self.partial_effect >= FLOOR)
        return self.found & beside

    @property
    def leading(self) -> np.ndarray:
        """Factor of largest effect on each dimension, (D,) int, its own ones first; -1: none."""
        known = ~np.isnan(self.effect)
        ranked = np.where(known, self.effect, -1.0) + 2.0 * self.found + 4.0 * self.own
        best = ranked.round(DECIMALS).argmax(axis=1) if self.factors else 0
        return np.where(known.any(axis=1), best, -1)

    @property
    def flagged(self) -> np.ndarray:
        """Whether the dimension carries some factor by itself, (D,) bool: see ``own``."""
        return np.asarray(self.own.any(axis=1))

    @property
    def determined(self) -> tuple[str, ...]:
        """Factors that vary, but hardly within classes: nothing tells them from the label."""
        chosen = ~self.identifiable & (self.n_columns > 0)
        return tuple(np.array(self.factors, dtype=object)[chosen])

    def beside(self, factor: int) -> str:
        """Name the other factor that explains most of one, within classes; empty: none."""
        others = np.where(self.identifiable, self.shared[factor], 0.0)
        others[factor] = 0.0
        return self.factors[int(others.argmax())] if others.any() else ""

    def words(self) -> np.ndarray:
        """Say in a word what stands between each dimension and factor.

        Returns
        -------
        ndarray of shape (D, F) of str
            ``own`` (the dimension carries the factor beside all others), ``through <other factor>``
            (found only as far as it follows another one that the dimension carries), ``undecided``
            (found, but nothing tells it from other factors) or empty: not found.
        """
        own, found = self.own, self.found
        words = np.where(own, "own", np.where(found, UNDECIDED, "")).astype(object)
        for d, f in np.argwhere(found & ~own & own.any(axis=1, keepdims=True) & self.separate):
            passed_on = np.where(own[d], self.shared[f] * self.effect[d], -1.0)
            words[d, f] = f"through {self.factors[int(passed_on.argmax())]}"
        return words

    def verdicts(self) -> list[str]:
        """Say in a word what each dimension carries.

        Returns
        -------
        list of str
            ``dead``; ``nuisance`` (some factor has an effect of at least 0.01 with q <= 0.05, given
            the label and given all other factors too, and at least the label's effect); ``mixed``
            (the same, below the label's); ``undecided`` (factors are found, but cannot be told from
            each other; or the label is, and a factor that it determines cannot be told from it);
            ``label`` (nothing is found but a label effect above 0.01); or ``neither``.
        """
        flagged, found = self.flagged, np.asarray(self.found.any(axis=1))
        words: list[str] = []
        leading = np.take_along_axis(self.effect, np.maximum(self.leading, 0)[:, None], axis=1)
        for d in range(len(self.label_effect)):
            label = self.label_effect[d]
            if self.dead[d]:
                words.append("dead")
            elif flagged[d]:
                words.append("nuisance" if leading[d, 0] >= label else "mixed")
            elif found[d] or (label > FLOOR and self.determined):
                words.append(UNDECIDED)
            else:
                words.append("label" if label > FLOOR else "neither")
        return words


def said_of_factor(attribution: Judged, f: int, words: np.ndarray) -> dict[str, Any]:
    """Return what the summary says of one factor, whose (D,) words are given."""
    through = [word[8:] for word in words if word.startswith("through ")]

    def of(*names: str) -> dict[str, Any]:
        return {name: getattr(attribution, name)[f] for name in names}

    return {
        "kind": attribution.kinds[f],
        **of("n_columns", "identifiable", "separate"),
        "reason": _reason(attribution, f),
        **of("left_given_label", "left_given_others"),
        "n_flagged": int(attribution.own[:, f].sum()),
        "n_through": {other: through.count(other) for other in dict.fromkeys(through)},
        "n_undecided": int((words == UNDECIDED).sum()),
        **{
            f"largest_{name}": largest(getattr(attribution, name)[:, f])
            for name in ("effect", "partial_effect", "mutual_information")
        },
        **of("smallest_p_value"),
    }


def _reason(attribution: Judged, f: int) -> str:
    """Say why a factor has no effects, or can have none with q <= 0.05; empty: it can."""
    if attribution.n_columns[f] == 0:
        return "it does not vary."
    if not attribution.identifiable[f]:
        return f"the label leaves {attribution.left_given_label[f]:.2%} of its variance."
    if not attribution.separate[f]:
        return (
            f"the label and the other factors, above all {attribution.beside(f)}, leave "
            f"{attribution.left_given_others[f]:.2%} of its variance: no partial effect."
        )
    if attribution.smallest_p_value[f] > SIGNIFICANT:
        return (
            f"so few of the {attribution.n_clusters} clusters or rows can change places that no "
            f"p-value lies below {attribution.smallest_p_value[f]:.2g}."
        )
    known = ~np.isnan(attribution.effect[:, f])
    if np.isnan(attribution.p_value[known, f]).all():
        return "it varies on too few clusters or rows for a test."
    if np.isnan(attribution.partial_p_value[known, f]).all():
        return "too few clusters or rows for a test beside the other factors."
    return ""


def p_values(
    known: Factors,
    within: np.ndarray,
    n_permutations: int,
    rng: np.random.Generator,
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
    """P-values given the label, and given all factors, (2, D, F); the least of each factor."""
    p_value = np.full((2, within.shape[1], len(known.names)), np.nan)
    smallest = np.full(len(known.names), np.nan)
    levels = known.levels(within)
    for place, level in enumerate(levels):
        found = permutation_p_values(
            level.features, level.columns, level.cells, n_permutations, rng,
            _part_of(progress, place, len(levels)), tested=level.tested, clusters=level.clusters,
            label=level.label, over=partial(shared, step=_PERMUTATIONS),
        )  # fmt: skip
        p_value[:, :, level.factors] = found.given_label, found.given_all
        smallest[level.factors] = found.smallest
    p_value[1, :, ~known.separate] = np.nan
    return p_value, smallest


def q_values(p_value: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """q-values over all pairs; one that explains nothing out of fold is none to be found."""
    from scipy.stats import false_discovery_control

    known = ~np.isnan(p_value)
    q_value = np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = false_discovery_control(np.where(effect > 0, p_value, 1.0)[known])
    return q_value


def mutual_information(
    test: Representation, known: Factors, effect: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Nats between each factor and the dimensions it has the largest effects on; else NaN."""
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    found = np.full_like(effect, np.nan)
    rows = np.arange(len(test))
    if len(rows) > INFORMATIVE_ROWS:
        rows = np.sort(rng.choice(rows, INFORMATIVE_ROWS, replace=False))
    if len(rows) < 10:  # the estimator asks for neighbours
        return found
    for f in range(len(known.names)):
        ranked = descending(effect[:, f])
        leading = ranked[:N_INFORMATIVE]
        leading = leading[~np.isnan(effect[leading, f])]
        if len(leading) == 0:
            continue
        columns = test.features[np.ix_(rows, leading)].astype(np.float64)
        values = known.values[f][rows]
        state = int(rng.integers(1 << 31))
        if known.kinds[f] == "categorical":
            codes = np.unique(values, return_inverse=True)[1]
            found[leading, f] = mutual_info_classif(columns, codes, random_state=state)
        else:
            values = values / (np.abs(values).max() or 1.0)  # squares neither overflow nor vanish
            found[leading, f] = mutual_info_regression(columns, values, random_state=state)
    return found


def beside_of(
    test: Representation, ablation: Ablation | None, trace: MaskTrace | None
) -> dict[str, Any]:
    """Collect what is known of the dimensions from elsewhere, checked to be of these."""
    n_dimensions, on_axes = test.n_dimensions, basis_of(test) == AXES
    found: dict[str, Any] = {"view_invariance": _view_invariance(test)}
    if ablation is not None:
        single = all(len(group) == 1 for group in ablation.groups)
        if (
            len(ablation.importance) != n_dimensions
            or not single
            or ablation.basis != basis_of(test)
        ):
            raise Refusal(
                f"ablation must have one group for each of the {n_dimensions} dimensions, in the "
                f"basis {basis_of(test)}; got {len(ablation.importance)} groups in the basis "
                f"{ablation.basis}."
            )
        found["importance"] = ablation.importance
    weights = test.meta.get("mask") if on_axes else None
    if trace is not None:
        if not on_axes or trace.weights.shape[1] != n_dimensions:
            raise Refusal(
                f"trace must be of the {n_dimensions} dimensions of test, on the axes; got "
                f"{trace.weights.shape[1]} weights, where test is in the basis {basis_of(test)}."
            )
        learned = trace.weights.min() < trace.weights.max()  # else there never was a mask
        weights = trace.weights[-1] if learned else None
        if trace.gradient_share is not None:
            last = trace.gradient_share[-_LAST_RECORDS:]
            total = last.sum(axis=1, keepdims=True)
            found["gradient_share"] = (last / np.where(total > 0, total, 1.0)).mean(axis=0)
    if weights is not None:
        found["mask_weight"] = np.array(weights, dtype=np.float64)
    return found


def _view_invariance(test: Representation) -> np.ndarray | None:
    """Correlation (D,) of two views of a sample; NaN for a dimension that does not vary."""
    if test.views is not None and len(test.views) > 1:
        first, second = test.views[0], test.views[1]
    elif test.view_columns:
        view, sample = (test.factors[name] for name in test.view_columns)
        ids = np.unique(view)[:2]
        halves = [np.flatnonzero(view == each) for each in ids]
        halves = [half[np.argsort(sample[half], kind="stable")] for half in halves]
        if len(halves) < 2 or not np.array_equal(sample[halves[0]], sample[halves[1]]):
            return None
        first, second = test.features[halves[0]], test.features[halves[1]]
    else:
        return None
    pair = [standardised(each, test.eps) for each in (first, second)]
    varies = pair[0].any(axis=0) & pair[1].any(axis=0)
    return np.where(varies, np.einsum("nd,nd->d", *pair), np.nan)


def descending(values: np.ndarray) -> np.ndarray:
    """Order of values, the largest first, NaN last; equal ones, to 10 decimals, by index."""
    return np.argsort(-np.nan_to_num(values, nan=-1.0).round(DECIMALS), kind="stable")


def largest(effect: np.ndarray) -> np.ndarray:
    """Largest of each row that is not NaN; NaN where all are."""
    best = np.where(np.isnan(effect), -np.inf, effect).max(axis=-1, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def _part_of(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, count * total)
