"""Risk bound: a classification risk between bounds made of the contrastive loss, with a mask."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.clusters import cluster_ids, warning_of_copies
from dimlab.kernels.paired import proportion_interval
from dimlab.mask import DimensionMask
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.representation import Representation

if TYPE_CHECKING:
    from dimlab.kernels.left_out import LeftOutTerms
    from dimlab.kernels.risk import RiskTerms

PROVED = ("cross_entropy", "nce_limit", "jensen_gap", "view_variance", "gap", "gap_bound")
AGREEMENT = "view_agreement"
FIXED = (*PROVED, "class_variance", "between_share", "mean_cross_entropy", "width", AGREEMENT)
SWEPT = ("nce", "lower", "middle", "upper")
_SIGNED = ("cross_entropy", "nce_limit", "mean_cross_entropy", *SWEPT)  # the rest is >= 0
_SHARES = ("between_share", AGREEMENT)
_BALANCED = 0.1  # relative distance of a class share from 1 / K
_ALIKE = 1e-12  # variance of unit rows below which they are equal but for rounding
_ROUNDING = 1e-9  # of 1 / temperature, or of 1
_SIGNIFICANT = 0.05
_TAILS = (0.025, 0.975)
_FEWEST = 0.5  # rows or clusters of a class beside one, at least, in the scale of intervals
_SQUARES = ("within", "total", "view_within")
_LIMITS = (1e-6, 1e6)  # of the temperature: beyond, squares of exponents leave float64's range
INFERRED = (
    "The bounds lower <= middle <= upper are the form inferred for the paper (after Wang et al., "
    "2022, theorem 4.2), not its verbatim theorem; their O(M^-1/2) term is dropped, so a small M "
    "may leave them without contradicting anything."
)
_INTERVALS = (
    "Values and 95 % intervals speak of the population that the rows are drawn from, its classes "
    "in their shares of the sample, and of its own class means: here a row, or its cluster, is "
    "left out of the means that it is compared with. Bootstrap over rows or clusters, the same "
    "draws for every mask. View agreement alone is that of the class means of this sample."
)

_WORDS = {
    "class_variance": "The class variance V",
    "width": "The width of the inferred bounds, a function of V alone,",
    "cross_entropy": "The risk itself, CE_p,",
    "mean_cross_entropy": "The risk with equal shares, L_CE,",
}


@dataclass(frozen=True, eq=False)
class RiskBound:
    """Terms of a risk bound under a mask and its controls: R masks, T terms, M numbers.

    Parameters
    ----------
    masks : tuple of str
        ``"none"`` and, where a mask is given, ``"learned"``, ``"constant"``, ``"permuted"`` and
        ``"inverted"``.
    n_negatives : ndarray of shape (M,), int64
        Numbers of negatives, ascending.
    terms : tuple of str
        Name of each of the T columns below. Proved on the sample: ``cross_entropy`` (CE_p),
        ``nce_limit`` (NCE_inf), ``jensen_gap`` (J), ``view_variance`` (V+), ``gap`` and
        ``gap_bound``, the two sides of the inequality. Inferred form: ``class_variance`` (V),
        ``between_share`` (of the total variance; NaN where all samples are equal),
        ``mean_cross_entropy``, ``width`` (upper - lower). ``view_agreement``: share of samples
        whose two views the mean classifier puts into the same class. Then, M times each, ``nce``,
        ``lower``, ``middle`` and ``upper``. Variances are of unit rows over the temperature, shares
        in [0, 1], the rest in nats.
    term_negatives : ndarray of shape (T,), int64
        Number of negatives of each column; 0 where there are none.
    values, ci_low, ci_high : ndarray of shape (R, T)
        Estimates for the population, with 95 % intervals: class means leave the row out.
    in_sample : ndarray of shape (R, T)
        The terms of the sample itself, of which the inequality is proved.
    difference, difference_low, difference_high : ndarray of shape (R, T)
        Value less that of ``"none"``, paired over draws of samples.
    learned_difference, learned_low, learned_high : ndarray of shape (R, T)
        Value of ``"learned"`` less that of each mask, paired; NaN without a mask.
    dimension_variance : ndarray of shape (R, D)
        What each dimension contributes to ``class_variance``.
    permuted_variance, permuted_cross_entropy : ndarray of shape (P,)
        V and CE_p of the sample under the mask's weights on randomly chosen dimensions, P times:
        the null of a mask that knows nothing. Empty without a mask.
    class_shares : ndarray of shape (K,)
        Share of the samples in each class.
    n_samples, n_views, n_bootstrap : int
        N, V (the first two are used), and draws.
    n_clusters, n_estimated : int
        Clusters that inference rests on, N where rows are independent; and rows that estimates are
        means over, which leave out a class that one row, or one cluster, is all of.
    temperature : float
        What inner products are divided by.
    basis, sample, caution : str
        Basis of the features; which samples they are of, empty: all; what is wrong with them, such
        as many copies, empty: nothing that was seen.

    References
    ----------
    Those of `bound_risk`, which measures it.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    >>> split = Representation(rows, labels=np.array([0, 0, 1, 1]), views=np.stack([rows, rows]))
    >>> bound = bound_risk(split, mask=DimensionMask(np.array([1.0, 0.0])), n_negatives=[64])
    >>> bound.of("class_variance")[:2].round(6).tolist(), bound.masks[:2]
    ([0.2, 0.25], ('none', 'learned'))
    >>> bound.of("class_variance", bound.in_sample)[:2].round(6).tolist()
    [0.1, 0.125]
    >>> bound.held[0].tolist(), bound.balanced, bound.p_value("class_variance") > 0.05
    ([True], True, True)
    >>> list(bound.tables()), bound.to_frame()["n_negatives"].unique().tolist()
    (['terms', 'dimensions', 'controls'], [64])
    >>> bound.summary()["assumption"][:32]
    'met: classes are equally likely '
    """

    masks: tuple[str, ...]
    n_negatives: np.ndarray
    terms: tuple[str, ...]
    term_negatives: np.ndarray
    values: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    in_sample: np.ndarray
    difference: np.ndarray
    difference_low: np.ndarray
    difference_high: np.ndarray
    learned_difference: np.ndarray
    learned_low: np.ndarray
    learned_high: np.ndarray
    dimension_variance: np.ndarray
    permuted_variance: np.ndarray
    permuted_cross_entropy: np.ndarray
    class_shares: np.ndarray
    n_samples: int
    n_views: int
    n_bootstrap: int
    n_clusters: int
    n_estimated: int
    temperature: float
    basis: str
    sample: str
    caution: str = ""

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
            raise ValueError(f"term must be one of {known}; got {term!r}.")
        found = (self.values if values is None else values)[:, columns]
        return found if term in SWEPT else found[:, 0]

    @property
    def held(self) -> np.ndarray:
        """Whether lower <= middle <= upper, to within rounding, shape (R, M)."""
        lower, middle, upper = (self.of(term) for term in SWEPT[1:])
        slack = _slack(self.temperature)
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
        known = {
            "class_variance": self.permuted_variance,
            "cross_entropy": self.permuted_cross_entropy,
        }
        if term not in known:
            raise ValueError(f"term must be one of {', '.join(map(repr, known))}; got {term!r}.")
        if "learned" not in self.masks:
            return float("nan")
        learned = self.of(term, self.in_sample)[self.masks.index("learned")]
        return float((1 + (known[term] <= learned).sum()) / (1 + len(known[term])))

    @property
    def balanced(self) -> bool:
        """Whether every class share lies within 10 % of 1 / K, as the inferred form assumes."""
        apart = np.abs(self.class_shares * len(self.class_shares) - 1)
        return bool(apart.max() <= _BALANCED + 1e-9)

    def to_frame(self) -> Any:
        """Return one row a (mask, n_negatives): the inferred form, not the paper's own theorem.

        Returns
        -------
        pandas.DataFrame
            ``mask, n_negatives``; ``nce, lower, middle, upper, width``, each with ``_ci_low`` and
            ``_ci_high``, in nats; ``held``.
        """
        import pandas as pd

        n_masks, n_numbers = len(self.masks), len(self.n_negatives)
        columns: dict[str, Any] = {
            "mask": np.repeat(self.masks, n_numbers),
            "n_negatives": np.tile(self.n_negatives, n_masks),
        }
        for term in (*SWEPT, "width"):
            for ending in ("", "_ci_low", "_ci_high"):
                found = self.of(term, getattr(self, ending[1:] or "values"))
                columns[term + ending] = np.repeat(found, n_numbers) if found.ndim == 1 else (
                    found.ravel()
                )  # fmt: skip
        columns["held"] = self.held.ravel()
        return pd.DataFrame(columns)

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``terms``, one row a mask and term: ``mask, term, n_negatives, inferred, value, ci_low,
            ci_high, difference, difference_low, difference_high, in_sample``, where ``inferred``
            marks terms of the form that is not the paper's own theorem; ``dimensions``, one row a
            mask and dimension: ``mask, dimension, class_variance``; with a mask ``controls``, the
            learned mask less each other: ``mask, term, n_negatives, difference, difference_low,
            difference_high``.
        """
        import pandas as pd

        n_masks, n_dimensions = self.dimension_variance.shape
        numbers = pd.array(self.term_negatives, dtype="Int64")
        numbers[self.term_negatives == 0] = pd.NA
        keys: dict[str, Any] = {
            "mask": np.repeat(self.masks, len(self.terms)),
            "term": np.tile(self.terms, n_masks),
            "n_negatives": pd.concat([pd.Series(numbers)] * n_masks, ignore_index=True),
        }
        kinds = (
            "ci_low", "ci_high", "difference", "difference_low", "difference_high", "in_sample",
        )  # fmt: skip
        terms = keys | {"inferred": ~np.isin(keys["term"], [*PROVED, AGREEMENT])}
        terms |= {"value": self.values.ravel()}
        tables = {
            "terms": pd.DataFrame(terms | {kind: getattr(self, kind).ravel() for kind in kinds}),
            "dimensions": pd.DataFrame(
                {
                    "mask": np.repeat(self.masks, n_dimensions),
                    "dimension": np.tile(np.arange(n_dimensions), n_masks),
                    "class_variance": self.dimension_variance.ravel(),
                }
            ),
        }
        if "learned" in self.masks:
            controls = pd.DataFrame(
                keys
                | {
                    "difference": self.learned_difference.ravel(),
                    "difference_low": self.learned_low.ravel(),
                    "difference_high": self.learned_high.ravel(),
                }
            )
            tables["controls"] = controls[controls["mask"] != "learned"].reset_index(drop=True)
        return tables

    def summary(self) -> dict[str, Any]:
        """Return the main numbers and what they say, ready for JSON.

        Returns
        -------
        dict
            Sizes; ``in_sample``, the terms of the inequality that is proved (nested: mask, then
            term); ``risk``, the cross-entropies of every mask side by side; ``terms`` (nested:
            mask, then term); ``permuted``, p-values of the learned mask among permuted ones;
            ``held`` (mask, then numbers of negatives at which the inferred form held); ``proved``,
            ``inferred``, ``assumption`` and ``intervals``, a sentence each; and
            ``verdict``, a list of sentences.
        """
        fixed = [term for term in self.terms if term not in SWEPT]
        values = {term: dict(zip(self.masks, self.of(term), strict=True)) for term in fixed}
        return {
            "n_samples": self.n_samples,
            "n_clusters": self.n_clusters,
            "n_estimated": self.n_estimated,
            "n_dimensions": self.dimension_variance.shape[1],
            "n_classes": len(self.class_shares),
            "n_views": self.n_views,
            "temperature": self.temperature,
            "n_bootstrap": self.n_bootstrap,
            "n_negatives": self.n_negatives.tolist(),
            "basis": self.basis,
            "sample": self.sample,
            "risk": {
                term: {mask: plain(value) for mask, value in values[term].items()}
                for term in ("cross_entropy", "mean_cross_entropy")
            },
            "terms": {
                mask: {term: plain(values[term][mask]) for term in fixed} for mask in self.masks
            },
            "in_sample": {
                mask: {term: plain(self.of(term, self.in_sample)[row]) for term in PROVED}
                for row, mask in enumerate(self.masks)
            },
            "permuted": {
                "n": len(self.permuted_variance),
                **{
                    f"p_{term}": plain(self.p_value(term))
                    for term in ("class_variance", "cross_entropy")
                },
            },
            "held": {
                mask: self.n_negatives[held].tolist()
                for mask, held in zip(self.masks, self.held, strict=True)
            },
            "proved": "On this sample |NCE_inf - CE_p - J| <= |f| sqrt(V+) held for every mask, as "
            "it must: gap against gap_bound, in_sample.",
            "inferred": INFERRED,
            "assumption": self._assumption(),
            "intervals": _INTERVALS + self._left_out(),
            **({"caution": self.caution} if self.caution else {}),
            "verdict": _verdict(self),
        }

    def _left_out(self) -> str:
        missing = self.n_samples - self.n_estimated
        if not missing:
            return ""
        return (
            f" {missing} of {self.n_samples} rows are left out: one row, or cluster, is all of "
            "their class."
        )

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


def bound_risk(
    representation: Representation,
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
        Numbers M of negatives to sweep, each >= 1.
    temperature : float, default=1.0
        In [1e-6, 1e6]. Unit rows are divided by its root, and so all variances by itself.
    n_bootstrap : int, default=200
        Draws of samples for the intervals, >= 2.
    n_permuted : int, default=99
        Masks of the same weights on random dimensions, >= 1, among which the learned one is placed.
    clusters : str or ndarray of shape (N,), optional
        Which rows belong together: the name of a factor, or a value a row. They are drawn, and left
        out, as wholes.
    seed : int, default=0
        Draws samples, negatives (the same for all masks) and the permuted mask; >= 0.
    device : str, default="cpu"
        Where products are taken, in float64.
    progress : callable, optional
        Called as ``progress(done, total)`` over anchors of all masks.

    Returns
    -------
    RiskBound
        Terms, intervals, and differences to the unmasked ones.

    Raises
    ------
    ValueError
        If labels or a second view are missing, there is one class only, no class has two rows (of
        different clusters), the mask has another number
        of dimensions, or a number is out of its range, or the device is not there.
    ArithmeticError
        If the inequality that is proved fails by more than rounding: an error of this program.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    Rows are masked and divided by their norm (a row of zeros stays one: nothing below needs norm 1,
    only norms of at most 1) and by sqrt(temperature), so ``|f| <= 1 / sqrt(temperature)``.

    Proved, with class shares p_k, class means mu_k of f, means E over samples and j over all N::

        CE_p    = -E f.mu_y + E log sum_k p_k exp(f.mu_k)
        NCE_inf = -E f.f+   + E log mean_j exp(f.f_j)
        J       = E log mean_j exp(f.f_j) - E log sum_k p_k exp(f.mu_k)  >= 0
        |NCE_inf - CE_p - J| <= |f| sqrt(V+),   V+ = E |f+ - mu_y|^2

    CE_p is a cross-entropy with priors p_k less their entropy, so it may be negative.

    Inferred [1]_, with V = E |f - mu_y|^2, M negatives drawn from all f_j for each anchor, with
    replacement (a smaller M takes the first of them), and the O(M^-1/2) term dropped::

        L_NCE(M) = -E f.f+ + E log sum_m exp(f.f_m),   L_CE = -E f.mu_y + E log sum_k exp(f.mu_k)
        L_NCE(M) - |f| sqrt(V) - |f|^2 V/2  <=  L_CE + log(M/K)  <=  L_NCE(M) + |f| sqrt(V)

    where |f| is 1 over the root of the temperature: at 1 it is the form of [1]_. This is not the
    paper's [2]_ verbatim theorem, which was not available. It may fail on a sample; that is
    reported, never raised. It assumes equally likely classes, and labels that both views share.
    Masked and unmasked bounds bound different risks: look at ``cross_entropy`` too.

    At low temperatures an anchor's product with itself, which the proof needs, rules NCE_inf and J.

    The inequality is checked on the sample, in which every row helps to make the mean of its class,
    and meets itself among the f_j (``in_sample``). So V is K/N too small there, and an anchor's
    product with itself rules NCE_inf and J at low temperatures. ``values`` are estimates for the
    population with its own class means: a row, or its whole cluster, is left out of the means that
    it is compared with, which makes squared distances unbiased; the bias of logarithms of sums is
    taken off to first order. J may then be 0 where it is small, and the gap exceed its bound.

    Intervals: draws of rows or clusters move each row's influence on the estimates, the deviations
    enlarged by sqrt(n / (n - 1)), n the rows or clusters of a class; view agreement has Wilson's
    interval.

    References
    ----------
    .. [1] Wang et al., "Chaos is a ladder", ICLR 2022, theorem 4.2.
    .. [2] Li et al., "MetaMask", NeurIPS 2022, theorem 5.1.

    Examples
    --------
    >>> rows = np.eye(2)[[0, 0, 1, 1]]  # two classes, a point each
    >>> split = Representation(rows, labels=np.array([0, 0, 1, 1]), views=np.stack([rows, rows]))
    >>> bound = bound_risk(split, n_negatives=[64])
    >>> bound.of("width").tolist(), bound.of("cross_entropy").round(4).tolist()
    ([0.0], [-0.3799])
    """
    numbers = _checked_numbers(n_negatives)
    _check_settings(temperature, n_bootstrap, seed)
    if n_permuted < 1:
        raise ValueError(f"n_permuted must be >= 1; got {n_permuted}.")
    views, codes = _labelled_views(representation)
    foresee(
        "bound_risk",
        Shapes(0, len(codes), representation.n_dimensions, n_draws=n_bootstrap),
    )
    masks = _masks(mask, representation.n_dimensions, seed)
    ids = cluster_ids(representation, clusters)
    _check_classes(codes, ids)
    found = _measure(
        (views, codes), masks, numbers, temperature, ids, seed, device, progress
    )  # fmt: skip
    own = np.stack([_columns(each, numbers, temperature)[:, 0] for each, _ in found])
    terms = (*FIXED, *np.repeat(SWEPT, len(numbers)).tolist())
    for name, values in zip(masks, own, strict=True):
        _refuse_impossible(name, dict(zip(terms, values.tolist(), strict=True)), temperature)
    names = tuple(masks)
    permuted = _permuted(views[0], codes, mask, temperature, n_permuted, seed)
    n_units = len(codes) if ids is None else int(ids.max()) + 1
    return RiskBound(
        masks=names,
        n_negatives=np.array(numbers),
        terms=terms,
        term_negatives=np.array([0] * len(FIXED) + numbers * len(SWEPT)),
        **_intervals(
            _draws(found, numbers, temperature, codes, ids, n_bootstrap, seed), terms,
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


def _check_classes(codes: np.ndarray, clusters: np.ndarray | None) -> None:
    """Refuse classes of which each is in one cluster: nothing is left to compare a row with."""
    units = np.arange(len(codes)) if clusters is None else clusters
    pairs = np.unique(np.column_stack([codes, units]), axis=0)
    if np.bincount(pairs[:, 0]).max() < 2:
        what = "sample" if clusters is None else "cluster"
        raise ValueError(
            f"labels must have a class of at least two {what}s; got one {what} of every class. The "
            f"population's risk needs class means without the {what} that is compared with them."
        )


def _checked_numbers(n_negatives: int | Sequence[int]) -> list[int]:
    """Numbers of negatives, each once, ascending."""
    given = n_negatives if isinstance(n_negatives, Sequence | np.ndarray) else [n_negatives]
    try:
        numbers = sorted({operator.index(each) for each in given})
    except TypeError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise ValueError(
            f"n_negatives must be an integer >= 1, or at least one of them; got {n_negatives!r}."
        )
    return numbers


def _check_settings(temperature: float, n_bootstrap: int, seed: int) -> None:
    low, high = _LIMITS
    if not low <= temperature <= high:
        raise ValueError(f"temperature must lie in [{low:g}, {high:g}]; got {temperature}.")
    for name, value, least in (("n_bootstrap", n_bootstrap, 2), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}; got {value!r}.")


def _labelled_views(representation: Representation) -> tuple[np.ndarray, np.ndarray]:
    """Return views (V, N, D) and class indices from 0, (N,)."""
    if representation.labels is None:
        raise ValueError(
            "bound_risk needs labels: build the Representation with labels=(N,) class ids."
        )
    views = representation.views
    if views is None or len(views) < 2:
        raise ValueError(
            "bound_risk needs two views of each sample: encode(..., n_views=2), or build the "
            "Representation with views=(V, N, D), V >= 2."
        )
    classes, codes = np.unique(representation.labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"labels must have at least 2 classes; got class {classes[0]} alone. With one class "
            "there is no risk to bound."
        )
    return views, codes


def _masks(mask: DimensionMask | None, n_dimensions: int, seed: int) -> dict[str, np.ndarray]:
    """Weights of each mask, their largest 1: what normalising undoes is undone exactly."""
    weights = {"none": np.ones(n_dimensions)}
    if mask is None:
        return weights
    if len(mask) != n_dimensions:
        raise ValueError(
            f"mask must have {n_dimensions} weights to match features; got {len(mask)}."
        )
    permuted = mask.permuted(np.random.default_rng(seed))
    controls = {"constant": mask.constant(), "permuted": permuted, "inverted": mask.inverted()}
    for name, each in {"learned": mask, **controls}.items():
        weights[name] = each.weights / (each.weights.max() or 1.0)
    return weights


def _measure(
    split: tuple[np.ndarray, np.ndarray],
    masks: dict[str, np.ndarray],
    numbers: list[int],
    temperature: float,
    clusters: np.ndarray | None,
    seed: int,
    device: str,
    progress: Progress | None,
) -> list[tuple[RiskTerms, LeftOutTerms]]:
    """Terms of the sample and of the population under each mask; equal masks are measured once."""
    from dimlab.kernels.left_out import left_out_terms
    from dimlab.kernels.risk import risk_terms, scaled_units

    views, codes = split
    distinct = {each.tobytes(): each for each in masks.values()}
    once = np.ones((len(codes), 1))
    found: dict[bytes, tuple[RiskTerms, LeftOutTerms]] = {}

    def report(done: int) -> None:
        if progress is not None:
            progress(len(found) * len(codes) + done, len(distinct) * len(codes))

    for key, each in distinct.items():
        first, second = (scaled_units(view, each, temperature) for view in views[:2])
        rng = np.random.default_rng([seed, 2])
        terms = risk_terms(
            first, second, codes, once, numbers, rng, device=device, progress=report
        )  # fmt: skip
        found[key] = terms, left_out_terms(first, second, codes, clusters)
    return [found[each.tobytes()] for each in masks.values()]


def _draws(
    found: list[tuple[RiskTerms, LeftOutTerms]],
    numbers: list[int],
    temperature: float,
    codes: np.ndarray,
    clusters: np.ndarray | None,
    n_bootstrap: int,
    seed: int,
) -> np.ndarray:
    """Terms of the population (R, T, 1 + B): estimated, and moved by draws of rows or clusters."""
    from dimlab.kernels.risk import draw_multiplicities

    units = np.arange(len(codes)) if clusters is None else clusters
    n_units, n_classes = int(units.max()) + 1, int(codes.max()) + 1
    draws = draw_multiplicities(n_units, n_bootstrap, np.random.default_rng([seed, 1]))
    moves = np.column_stack([np.zeros(len(codes)), (draws - 1)[units]]) / len(codes)
    in_class = len(np.unique(units * n_classes + codes)) / n_classes
    moves *= np.sqrt(in_class / max(in_class - 1, _FEWEST))
    columns = []
    for own, left in found:
        moved = {name: value + left.influence[name] @ moves for name, value in left.values.items()}
        negatives = own.negatives - own.negatives.mean(axis=1, keepdims=True)
        start = own.log_negatives + left.values["log_mean"] - own.log_mean
        nothing = np.zeros(moves.shape[1])
        columns.append(
            _columns(
                replace(
                    own,
                    **{name: np.maximum(moved.pop(name), 0.0) for name in _SQUARES},
                    **moved,
                    log_negatives=start + negatives @ moves,
                    n_classes=own.n_classes + nothing.astype(np.int64),
                ),
                numbers,
                temperature,
            )
        )
    return np.stack(columns)


def _permuted(
    features: np.ndarray,
    codes: np.ndarray,
    mask: DimensionMask | None,
    temperature: float,
    n_permuted: int,
    seed: int,
) -> np.ndarray:
    """V and CE_p under permuted masks, (2, P); P is 0 without a mask."""
    from dimlab.kernels.risk import class_risk, scaled_units

    if mask is None:
        return np.empty((2, 0))
    rng = np.random.default_rng([seed, 3])
    found = [
        class_risk(scaled_units(features, mask.permuted(rng).weights, temperature), codes)
        for _ in range(n_permuted)
    ]
    return np.array(found).T


def _columns(terms: RiskTerms, numbers: list[int], temperature: float) -> np.ndarray:
    """Terms in order of ``RiskBound.terms``, (T, 1 + B): of the sample and of each draw."""
    deviation = np.sqrt(terms.within / temperature)  # |f| sqrt(V)
    half = terms.within / (2 * temperature)  # |f|^2 V / 2
    cross_entropy = terms.log_prior - terms.own
    limit = terms.log_mean - terms.pair
    jensen = terms.log_mean - terms.log_prior
    fixed = {
        "cross_entropy": cross_entropy,
        "nce_limit": limit,
        "jensen_gap": jensen,
        "view_variance": terms.view_within,
        "gap": np.abs(limit - cross_entropy - jensen),
        "gap_bound": np.sqrt(terms.view_within / temperature),
        "class_variance": terms.within,
        "between_share": _between_share(terms, temperature),
        "mean_cross_entropy": terms.log_uniform + np.log(terms.n_classes) - terms.own,
        "width": 2 * deviation + half,
        AGREEMENT: terms.agreement,
    }
    nce = terms.log_negatives - terms.pair
    middle = fixed["mean_cross_entropy"] + np.log(np.divide.outer(numbers, terms.n_classes))
    swept = (nce, nce - deviation - half, middle, nce + deviation)
    return np.concatenate([[fixed[name] for name in FIXED], *swept])


def _between_share(terms: RiskTerms, temperature: float) -> np.ndarray:
    """Share of the total variance that lies between classes; NaN where rounding is all there is."""
    varies = terms.total * temperature > _ALIKE
    share = np.full_like(terms.total, np.nan)
    share[varies] = 1 - terms.within[varies] / terms.total[varies]
    return share


def _slack(temperature: float) -> float:
    """Return the rounding, in nats, of terms whose exponents reach 1 / temperature."""
    return _ROUNDING * max(1.0, 1 / temperature)


def _refuse_impossible(name: str, value: dict[str, float], temperature: float) -> None:
    """Raise where the inequality that is proved fails by more than rounding."""
    slack = _slack(temperature)
    if value["jensen_gap"] >= -slack and value["gap"] <= value["gap_bound"] + slack:
        return
    raise ArithmeticError(
        f"bound_risk: J = {value['jensen_gap']:.3g} must be >= 0 and the gap {value['gap']:.6g} at "
        f"most {value['gap_bound']:.6g} with mask {name!r}. This is a theorem, so dimlab is wrong: "
        "please report it."
    )


def _intervals(
    columns: np.ndarray,
    terms: tuple[str, ...],
    learned: int | None,
    left_out: list[LeftOutTerms],
    clusters: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Values, differences and their intervals from columns (R, T, 1 + B)."""
    lowest = np.where(np.isin(terms, _SIGNED), -np.inf, 0.0)
    highest = np.where(np.isin(terms, _SHARES), 1.0, np.inf)
    low, high = (np.clip(each, lowest, highest) for each in _moved_quantiles(columns))
    agreement = terms.index(AGREEMENT)
    for row, each in enumerate(left_out):
        ids = None if clusters is None else np.unique(clusters[each.kept], return_inverse=True)[1]
        low[row, agreement], high[row, agreement] = proportion_interval(each.agree[each.kept], ids)
    to_none = columns - columns[:1]
    arrays = {
        "values": np.clip(columns[:, :, 0], lowest, highest),
        "ci_low": low,
        "ci_high": high,
        "difference": to_none[:, :, 0],
    }
    arrays["difference_low"], arrays["difference_high"] = _moved_quantiles(to_none)
    of_learned = (
        columns[learned] - columns if learned is not None else np.full_like(columns, np.nan)
    )
    arrays["learned_difference"] = of_learned[:, :, 0]
    arrays["learned_low"], arrays["learned_high"] = _moved_quantiles(of_learned)
    return arrays


def _moved_quantiles(columns: np.ndarray) -> np.ndarray:
    """Quantiles over draws, moved so that the draws' mean is the estimate, (2, R, T)."""
    value, draws = columns[:, :, 0], columns[:, :, 1:]
    bias = np.where((draws == value[:, :, None]).all(axis=2), 0.0, draws.mean(axis=2) - value)
    low, high = np.quantile(draws, _TAILS, axis=2) - bias
    # rounding, and draws that a few rows move, never leave the estimate outside
    return np.stack([np.fmin(low, value), np.fmax(high, value)])


def _verdict(bound: RiskBound) -> list[str]:
    """Sentences that say whether anything got smaller under the mask, and next to what."""
    held = ", ".join(
        f"{mask} {int(each.sum())}" for mask, each in zip(bound.masks, bound.held, strict=True)
    )
    sentences = [
        f"Inferred form: lower <= middle <= upper held at this many of {len(bound.n_negatives)} "
        f"numbers of negatives, by mask: {held}."
    ]
    if "learned" not in bound.masks:
        return [*sentences, "No mask was given, so there is nothing to compare."]
    largest = int(bound.n_negatives[-1])
    last = np.flatnonzero(np.array(bound.terms) == "nce")[-1]
    columns = {bound.terms.index(term): words for term, words in _WORDS.items()}
    columns[last] = f"The contrastive loss L_NCE({largest})"
    moves = {}
    for column, words in columns.items():
        move, sentence = _move(bound, column, words)
        moves[bound.terms[column]] = move
        sentences.append(sentence)
    sentences += [
        _against(bound, control, term)
        for control in ("constant", "inverted")
        for term in ("class_variance", "cross_entropy")
    ]
    sentences += [_among_permuted(bound, term) for term in ("class_variance", "cross_entropy")]
    return [*sentences, _conclusion(bound, moves)]


def _among_permuted(bound: RiskBound, term: str) -> str:
    """Say where the learned mask stands among masks of the same weights that know nothing."""
    draws = bound.permuted_variance if term == "class_variance" else bound.permuted_cross_entropy
    learned = bound.of(term, bound.in_sample)[bound.masks.index("learned")]
    return (
        f"{'V' if term == 'class_variance' else 'CE_p'} under the learned mask is lower than under "
        f"{int((draws > learned).sum())} of {len(draws)} masks of the same weights on random "
        f"dimensions (p = {bound.p_value(term):.2g})."
    )


def _direction(low: float, high: float) -> str:
    if high < 0:
        return "fell"
    if low > 0:
        return "rose"
    return "did not change" if low == high == 0 else "neither rose nor fell beyond its interval"


def _move(bound: RiskBound, column: int, words: str) -> tuple[str, str]:
    """Which way a term went under the learned mask, and the sentence."""
    learned = bound.masks.index("learned")
    low, high = bound.difference_low[learned, column], bound.difference_high[learned, column]
    move = _direction(low, high)
    return move, (
        f"{words} {move} under the mask: {bound.values[0, column]:.4g} without, "
        f"{bound.values[learned, column]:.4g} with it, difference "
        f"{bound.difference[learned, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
    )


def _against(bound: RiskBound, control: str, term: str) -> str:
    """Say how the learned mask compares with a control."""
    row, column = bound.masks.index(control), bound.terms.index(term)
    low, high = bound.learned_low[row, column], bound.learned_high[row, column]
    words = {
        "fell": "is lower than",
        "rose": "is higher than",
        "did not change": "equals that",
    }.get(_direction(low, high), "cannot be told from that")
    return (
        f"{'V' if term == 'class_variance' else 'CE_p'} under the learned mask {words} under the "
        f"{control} one: {bound.learned_difference[row, column]:+.3g} [{low:+.3g}, {high:+.3g}]."
    )


def _conclusion(bound: RiskBound, moves: dict[str, str]) -> str:
    """Say in one sentence whether a tighter bound, and a smaller risk, came of the mask."""
    if moves["class_variance"] != "fell":
        return "So the inferred bounds are not shown to be tighter under the mask."
    column = bound.terms.index("class_variance")
    rows = [bound.masks.index(control) for control in ("constant", "inverted")]
    special = bool((bound.learned_high[rows, column] < 0).all())
    special = special and bound.p_value("class_variance") <= _SIGNIFICANT
    text = "So the inferred bounds are tighter under the mask"
    text += ", more so than under the controls" if special else ", but not more so than under all"
    text += "" if special else " controls"
    if moves["nce"] == "rose":
        text += "; the loss that they are drawn around rose"
    if moves["cross_entropy"] == "fell":
        return text + "; and the risk itself fell."
    return text + "; but they bound another risk, and that is not shown to be smaller."
