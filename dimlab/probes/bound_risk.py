"""Risk bound: a classification risk between bounds made of the contrastive loss, with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import cluster_ids, warning_of_copies
from dimlab.devices import hold
from dimlab.given import RepresentationLike, as_representation
from dimlab.mask import DimensionMask
from dimlab.probes._moments import documented_of_rows
from dimlab.probes._reading import basis_of, sample_of
from dimlab.probes._risk import (
    AGREEMENT,
    FIXED,
    PROVED,
    SWEPT,
    check_classes,
    check_settings,
    checked_numbers,
    columns_of,
    draws_of,
    intervals_of,
    labelled_views,
    masks_of,
    measure,
    permuted_risks,
    refuse_impossible,
    rounding_of,
)
from dimlab.probes._risk_words import INFERRED, INTERVALS, sentences_of
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.result import Result, Verdict, column, detail, entries, entry, per, scalar

NEEDS: tuple[set[str], ...] = ({"classes", "views"},)
_COMPARED = ("class_variance", "cross_entropy")
_BALANCED = 0.1  # relative distance of a class share from 1 / K


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RiskBound(Result):
    """Terms of a risk bound under a mask and its controls: R masks, T terms, M numbers.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    >>> split = Representation(rows, labels=np.array([0, 0, 1, 1]), views=np.stack([rows, rows]))
    >>> bound = bound_risk(split, mask=DimensionMask(np.array([1.0, 0.0])), n_negatives=[64])
    >>> bound.of("class_variance")[:2].round(6).tolist(), bound.masks[:2]
    ([0.2, 0.25], ('none', 'learned'))
    >>> bound.held[0].tolist(), bound.balanced, bound.p_value("class_variance") > 0.05
    ([True], True, True)
    >>> list(bound.tables()), bound.to_frame()["n_negatives"].unique().tolist()
    (['terms', 'dimensions', 'controls'], [64])
    >>> bound.summary()["assumption"][:32]
    'met: classes are equally likely '
    """

    ROWS = "mask and number of negatives"
    TABLES = (("terms", "_terms"), ("dimensions", "_dimensions"), ("controls", "_controls"))

    masks: tuple[str, ...] = detail(
        "`none` and, where a mask is given, `learned`, `constant`, `permuted` and `inverted`."
    )
    n_samples: int = scalar("N, the number of samples.")
    n_clusters: int = scalar("Clusters that inference rests on, N where rows are independent.")
    n_estimated: int = scalar(
        "Rows that estimates are means over, which leave out a class that one row, or one cluster, "
        "is all of."
    )
    n_dimensions = entry(
        lambda self: self.dimension_variance.shape[1], doc="D, the number of dimensions."
    )
    n_classes = entry(lambda self: len(self.class_shares), doc="K, the number of classes.")
    n_views: int = scalar("Views of each sample, of which the first two are used.")
    temperature: float = scalar("What inner products are divided by.")
    n_bootstrap: int = scalar("Draws of samples.")
    n_negatives: np.ndarray = scalar("Numbers of negatives, ascending, shape (M,).")
    basis: str = scalar("Basis of the features.")
    sample: str = scalar("Which part of the split was used; empty: all of it.")
    terms: tuple[str, ...] = detail(
        "Name of each of the T columns below. Proved on the sample: `cross_entropy` (CE_p), "
        "`nce_limit` (NCE_inf), `jensen_gap` (J), `view_variance` (V+), `gap` and `gap_bound`, the "
        "two sides of the inequality. Inferred form: `class_variance` (V), `between_share` (of the "
        "total variance; NaN where all samples are equal), `mean_cross_entropy`, `width` (upper - "
        "lower). `view_agreement`: share of samples whose two views the mean classifier puts into "
        "the same class. Then, M times each, `nce`, `lower`, `middle` and `upper`. Variances are "
        "of unit rows over the temperature, shares in [0, 1], the rest in nats."
    )
    term_negatives: np.ndarray = per(
        "term", "Number of negatives of each column; 0 where there are none."
    )
    values: np.ndarray = per(
        "mask",
        "Estimates for the population: class means leave the row out.",
        shape="(R, T)",
    )
    ci_low: np.ndarray = per("mask", "Lower end of their 95 % interval.", shape="(R, T)")
    ci_high: np.ndarray = per("mask", "Upper end of it.", shape="(R, T)")
    in_sample: np.ndarray = per(
        "mask",
        "The terms of the sample itself, of which the inequality is proved.",
        shape="(R, T)",
    )
    difference: np.ndarray = per(
        "mask", "Value minus that of `none`, paired over draws of samples.", shape="(R, T)"
    )
    difference_low: np.ndarray = per("mask", "Lower end of its 95 % interval.", shape="(R, T)")
    difference_high: np.ndarray = per("mask", "Upper end of it.", shape="(R, T)")
    learned_difference: np.ndarray = per(
        "mask",
        "Value of `learned` minus that of each mask, paired; NaN without a mask.",
        shape="(R, T)",
    )
    learned_low: np.ndarray = per("mask", "Lower end of its 95 % interval.", shape="(R, T)")
    learned_high: np.ndarray = per("mask", "Upper end of it.", shape="(R, T)")
    dimension_variance: np.ndarray = per(
        "mask", "What each dimension contributes to `class_variance`.", shape="(R, D)"
    )
    permuted_variance: np.ndarray = per(
        "P",
        "V of the sample under the mask's weights on randomly chosen dimensions, P times: the null "
        "of a mask that knows nothing. Empty without a mask.",
    )
    permuted_cross_entropy: np.ndarray = per("P", "CE_p of the sample under the same masks.")
    class_shares: np.ndarray = per("K", "Share of the samples in each class.")

    @column
    def rows(self) -> dict[str, Any]:
        """One row a (mask, n_negatives): the inferred form, not the paper's own theorem."""
        shape = (len(self.masks), len(self.n_negatives))
        columns: dict[str, Any] = {
            "mask": np.repeat(self.masks, shape[1]),
            "n_negatives": np.tile(self.n_negatives, shape[0]),
        }
        for term in (*SWEPT, "width"):
            for ending, values in (("", "values"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high")):
                found = self.of(term, getattr(self, values)).reshape(shape[0], -1)
                columns[term + ending] = np.broadcast_to(found, shape).ravel()
        return {**columns, "held": self.held.ravel()}

    @entries
    def by_mask(self) -> dict[str, Any]:
        """Terms of every mask side by side, and the numbers at which the inferred form held."""
        fixed = [term for term in self.terms if term not in SWEPT]
        values = {term: dict(zip(self.masks, self.of(term), strict=True)) for term in fixed}
        return {
            "risk": {term: values[term] for term in ("cross_entropy", "mean_cross_entropy")},
            "terms": {mask: {term: values[term][mask] for term in fixed} for mask in self.masks},
            "in_sample": {
                mask: {term: self.of(term, self.in_sample)[row] for term in PROVED}
                for row, mask in enumerate(self.masks)
            },
            "permuted": {
                "n": len(self.permuted_variance),
                **{f"p_{term}": self.p_value(term) for term in _COMPARED},
            },
            "held": {
                mask: self.n_negatives[held]
                for mask, held in zip(self.masks, self.held, strict=True)
            },
        }

    @entries
    def what_it_means(self) -> dict[str, str]:
        """What is proved, what is inferred, what is assumed, and what the intervals speak of."""
        missing = self.n_samples - self.n_estimated
        left_out = (
            f" {missing} of {self.n_samples} rows are left out: one row, or cluster, is all of "
            "their class."
        )
        return {
            "proved": "On this sample |NCE_inf - CE_p - J| <= |f| sqrt(V+) held for every mask, as "
            "it must: gap against gap_bound, in_sample.",
            "inferred": INFERRED,
            "assumption": self._assumption(),
            "intervals": INTERVALS + (left_out if missing else ""),
        }

    caution: str = scalar(
        "What is wrong with the samples, such as many copies; empty: nothing that was seen.",
        optional=True,
        default="",
    )

    verdict = entry(sentences_of, doc="Whether anything got smaller under the mask.")

    def of(self, term: str, values: np.ndarray | None = None) -> np.ndarray:
        """Return a term by its name.

        Parameters
        ----------
        term : str
            One of ``terms``.
        values : ndarray of shape (R, T), optional
            Where to look it up, as ``ci_low``; ``values`` by default.

        Returns
        -------
        ndarray of shape (R, M), or (R,) where the term has no number of negatives
            One row a mask.

        Raises
        ------
        ValueError
            If there is no such term.
        """
        columns = np.flatnonzero(np.array(self.terms) == term)
        if len(columns) == 0:
            known = ", ".join(map(repr, dict.fromkeys(self.terms)))
            raise Refusal(f"term must be one of {known}; got {term!r}.")
        found = (self.values if values is None else values)[:, columns]
        return found if term in SWEPT else found[:, 0]

    @property
    def held(self) -> np.ndarray:
        """Whether lower <= middle <= upper, to within rounding, shape (R, M)."""
        lower, middle, upper = (self.of(term) for term in SWEPT[1:])
        slack = rounding_of(self.temperature)
        return (lower <= middle + slack) & (middle <= upper + slack)

    def p_value(self, term: str) -> float:
        """Return how often a permuted mask has as small a value as the learned one.

        Parameters
        ----------
        term : {"class_variance", "cross_entropy"}
            Which value.

        Returns
        -------
        float
            ``(1 + permuted masks at or below) / (1 + permuted masks)``; NaN without a mask.

        Raises
        ------
        ValueError
            If the term is another one.
        """
        known = dict(
            zip(_COMPARED, (self.permuted_variance, self.permuted_cross_entropy), strict=True)
        )
        if term not in known:
            raise Refusal(f"term must be one of {', '.join(map(repr, known))}; got {term!r}.")
        if "learned" not in self.masks:
            return float("nan")
        learned = self.of(term, self.in_sample)[self.masks.index("learned")]
        return float((1 + (known[term] <= learned).sum()) / (1 + len(known[term])))

    @property
    def balanced(self) -> bool:
        """Whether every class share lies within 10 % of 1 / K, as the inferred form assumes."""
        apart = np.abs(self.class_shares * len(self.class_shares) - 1)
        return bool(apart.max() <= _BALANCED + 1e-9)

    def _by_term(self, **columns: np.ndarray) -> Any:
        """Frame of one row a mask and term; terms without a number of negatives have NA there."""
        import pandas as pd

        n_masks = len(self.masks)
        numbers = pd.Series(np.tile(self.term_negatives, n_masks), dtype="Int64")
        return pd.DataFrame(
            {
                "mask": np.repeat(self.masks, len(self.terms)),
                "term": np.tile(self.terms, n_masks),
                "n_negatives": numbers.mask(numbers == 0),
                **{name: values.ravel() for name, values in columns.items()},
            }
        )

    def _terms(self) -> Any:
        """Frame of all values; ``inferred`` marks what is not of the paper's own theorem."""
        inferred = ~np.isin(self.terms, [*PROVED, AGREEMENT])
        names = ("ci_low", "ci_high", "difference", "difference_low", "difference_high")
        return self._by_term(
            inferred=np.tile(inferred, len(self.masks)),
            value=self.values,
            **{name: getattr(self, name) for name in (*names, "in_sample")},
        )

    def _dimensions(self) -> Any:
        """Frame of one row a mask and dimension."""
        import pandas as pd

        places = np.indices(self.dimension_variance.shape).reshape(2, -1)
        names = np.array(self.masks)[places[0]]
        variance = self.dimension_variance.ravel()
        return pd.DataFrame({"mask": names, "dimension": places[1], "class_variance": variance})

    def _controls(self) -> Any:
        """Frame of the learned mask less each other; None without a mask."""
        if "learned" not in self.masks:
            return None
        frame = self._by_term(
            difference=self.learned_difference,
            difference_low=self.learned_low,
            difference_high=self.learned_high,
        )
        return frame[frame["mask"] != "learned"].reset_index(drop=True)

    def _assumption(self) -> str:
        low, high = self.class_shares.min(), self.class_shares.max()
        found = f"class shares run from {low:.3g} to {high:.3g}, 1/K is "
        found += f"{1 / len(self.class_shares):.3g}"
        state = "met" if self.balanced else "not met"
        agreement = self.of(AGREEMENT)[0]
        return (
            f"{state}: classes are equally likely ({found}). Labels shared by both views cannot be "
            f"checked from features; the mean classifier puts both into one class in "
            f"{agreement:.1%} of samples."
        )


def verdict(bound: RiskBound) -> Verdict | None:
    """Say whether the mask lowers the risk; nothing to say without a mask."""
    if "learned" not in bound.masks:
        return None
    place = bound.masks.index("learned")
    numbers = {}
    for term in _COMPARED:
        kinds = (bound.difference, bound.difference_low, bound.difference_high)
        numbers[term] = [float(bound.of(term, each)[place]) for each in kinds]
    risk, variance = numbers["cross_entropy"], numbers["class_variance"]
    return Verdict(
        "Does the mask lower the risk that the bound is about?",
        "yes" if risk[2] < 0 else "no" if risk[1] > 0 else "undecided",
        f"Under the mask the risk changes by {risk[0]:+.4f} [{risk[1]:+.4f}, {risk[2]:+.4f}] nats, "
        f"the class variance, which the inferred bound is made of, by {variance[0]:+.4f} "
        f"[{variance[1]:+.4f}, {variance[2]:+.4f}].",
        "Yes: the interval of the change of the mean classifier's cross-entropy lies below 0; no: "
        "above; else undecided. A tighter bound alone decides nothing.",
        good="yes",
    )


@documented_of_rows
def bound_risk(
    representation: RepresentationLike,
    *,
    mask: DimensionMask | None = None,
    n_negatives: int | Sequence[int] = (16, 64, 256, 1024, 4096),
    temperature: float = 1.0,
    n_bootstrap: int = 200,
    n_permuted: int = 99,
    clusters: str | np.ndarray | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> RiskBound:
    """Bound the cross-entropy of a mean classifier by the contrastive loss, masked and unmasked.

    Parameters
    ----------
    representation : Representation
        With labels and two views of each sample: the first view f is the anchor, the second f+ its
        positive. The features themselves are not used.
    mask : DimensionMask, optional
        Multiplies the views. Its controls: the mean weight everywhere (which normalising undoes:
        the same as no mask), the weights on other dimensions, and one minus the weights.
    n_negatives : int or sequence of int, default=(16, 64, 256, 1024, 4096)
        Numbers M of negatives, each >= 1.
    temperature : float, default=1.0
        In [1e-6, 1e6]. Unit rows are divided by its root, and so all variances by itself.
    n_bootstrap : int, default=200
        Draws of samples for the intervals, >= 2.
    n_permuted : int, default=99
        Masks of the same weights on random dimensions, >= 1, among which the learned one is placed.

    Returns
    -------
    RiskBound
        Terms, intervals, and differences to the unmasked ones.

    Raises
    ------
    ValueError
        If labels or a second view are missing, there is one class only, no class has two rows (of
        different clusters), the mask has another number of dimensions, a number is out of its
        range, or the device is not there.
    ArithmeticError
        If the inequality that is proved fails by more than rounding: an error of this program.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    Rows are masked, divided by their norm (a row of zeros stays one) and by sqrt(temperature).

    Proved, with class shares p_k, class means mu_k of f, means E over samples and j over all N::

        CE_p    = -E f.mu_y + E log sum_k p_k exp(f.mu_k)
        NCE_inf = -E f.f+   + E log mean_j exp(f.f_j)
        J       = E log mean_j exp(f.f_j) - E log sum_k p_k exp(f.mu_k)  >= 0
        |NCE_inf - CE_p - J| <= |f| sqrt(V+),   V+ = E |f+ - mu_y|^2

    CE_p is a cross-entropy with priors p_k less their entropy, so it may be negative.

    Inferred [1]_, with ``V = E |f - mu_y|^2``, M negatives drawn from all f_j for each anchor, with
    replacement (a smaller M takes the first of them), and the O(M^-1/2) term dropped::

        L_NCE(M) = -E f.f+ + E log sum_m exp(f.f_m),   L_CE = -E f.mu_y + E log sum_k exp(f.mu_k)
        L_NCE(M) - |f| sqrt(V) - |f|^2 V/2  <=  L_CE + log(M/K)  <=  L_NCE(M) + |f| sqrt(V)

    where ``|f|`` is 1 over the root of the temperature: at 1 it is the form of [1]_. This is not
    the paper's [2]_ verbatim theorem, which was not available. It assumes equally likely classes,
    and labels that both views share; where it fails on a sample, that is reported. Masked and
    unmasked bounds bound different risks: look at ``cross_entropy`` too.

    In the sample (``in_sample``) every row helps to make the mean of its class and meets itself
    among the f_j: V is K/N too small, and at low temperatures the anchor itself rules NCE_inf and
    J. In ``values``, estimates for the population, a row, or its whole cluster, is left out of the
    means that it is compared with, and the bias of logarithms of sums is taken off to first order;
    the gap may then exceed its bound.

    Intervals: draws of rows or clusters move each row's influence on the estimates, the deviations
    enlarged by sqrt(n / (n - 1)), n the rows or clusters of a class; view agreement has Wilson's
    interval.

    References
    ----------
    .. [1] Wang et al., "Chaos is a ladder", ICLR 2022, theorem 4.2.
    .. [2] Li et al., "MetaMask", NeurIPS 2022, theorem 5.1.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rows = np.eye(2)[[0, 0, 1, 1]]  # two classes, a point each
    >>> split = Representation(rows, labels=np.array([0, 0, 1, 1]), views=np.stack([rows, rows]))
    >>> bound = bound_risk(split, n_negatives=[64])
    >>> bound.of("width").tolist(), bound.of("cross_entropy").round(4).tolist()
    ([0.0], [-0.3799])
    """
    representation = as_representation(representation)
    numbers = checked_numbers(n_negatives)
    check_settings(temperature, n_bootstrap, seed)
    if n_permuted < 1:
        raise Refusal(f"n_permuted must be >= 1; got {n_permuted}.")
    views, codes = labelled_views(representation)
    rows = 53 * representation.features.size + 24 * len(codes) * n_bootstrap
    hold(rows, "bound_risk", f"{len(codes):,} rows", "Pass fewer (--max-queries).")
    masks = masks_of(mask, representation.n_dimensions, seed)
    ids = cluster_ids(representation, clusters)
    check_classes(codes, ids)
    found = measure((views, codes), masks, numbers, temperature, ids, seed, device, progress)
    own = np.stack([columns_of(each, numbers, temperature) for each, _ in found])
    terms = (*FIXED, *np.repeat(SWEPT, len(numbers)).tolist())
    for name, values in zip(masks, own, strict=True):
        refuse_impossible(name, dict(zip(terms, values.tolist(), strict=True)), temperature)
    names = tuple(masks)
    permuted = permuted_risks(views[0], codes, mask, temperature, n_permuted, seed)
    n_units = len(codes) if ids is None else int(ids.max()) + 1
    return RiskBound(
        masks=names,
        n_negatives=np.array(numbers),
        terms=terms,
        term_negatives=np.array([0] * len(FIXED) + numbers * len(SWEPT)),
        **intervals_of(
            draws_of(found, numbers, temperature, codes, ids, n_bootstrap, seed), terms,
            names.index("learned") if mask is not None else None, [each for _, each in found], ids,
        ),
        in_sample=own,
        dimension_variance=np.stack([each.within_dimensions for _, each in found]),
        permuted_variance=permuted[0],
        permuted_cross_entropy=permuted[1],
        class_shares=np.bincount(codes) / len(codes),
        n_samples=len(codes),
        n_views=len(views),
        n_bootstrap=n_bootstrap,
        n_clusters=n_units,
        n_estimated=int(found[0][1].kept.sum()),
        temperature=float(temperature),
        basis=basis_of(representation),
        sample=sample_of(representation),
        caution=warning_of_copies(representation, ids) or "",
    )  # fmt: skip
