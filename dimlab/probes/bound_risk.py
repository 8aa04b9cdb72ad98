"""Risk bound: a classification risk between bounds made of the contrastive loss, with a mask."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.mask import DimensionMask
from dimlab.probes._outcomes import Progress
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.representation import Representation

if TYPE_CHECKING:
    from dimlab.kernels.risk import RiskTerms

PROVED = ("cross_entropy", "nce_limit", "jensen_gap", "view_variance", "gap", "gap_bound")
FIXED = (*PROVED, "class_variance", "between_share", "mean_cross_entropy", "width")
AGREEMENT = "view_agreement"
SWEPT = ("nce", "lower", "middle", "upper")
_SIGNED = ("cross_entropy", "nce_limit", "mean_cross_entropy", *SWEPT)  # the rest is >= 0
_SHARES = ("between_share", AGREEMENT)
_BALANCED = 0.1  # relative distance of a class share from 1 / K
_ROUNDING = 1e-9  # of 1 / temperature, or of 1
_TAILS = (0.025, 0.975)
_LIMITS = (1e-6, 1e6)  # of the temperature: beyond, squares of exponents leave float64's range
INFERRED = (
    "The bounds lower <= middle <= upper are the form inferred for the paper (after Wang et al., "
    "2022, theorem 4.2), not its verbatim theorem; their O(M^-1/2) term is dropped, so a small M "
    "may leave them without contradicting anything."
)
_INTERVALS = (
    "Intervals: 95 %, bootstrap over samples, the same draws for every mask, moved so that the "
    "draws' mean is the value measured; they are of what other samples of this size would give."
)


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
        ``between_share`` (of the total variance, NaN where all samples are equal),
        ``mean_cross_entropy``, ``width`` (upper - lower); and M times each of ``nce``, ``lower``,
        ``middle`` and ``upper``. Last ``view_agreement``. Variances are of unit rows over the
        temperature, shares in [0, 1], the rest in nats.
    term_negatives : ndarray of shape (T,), int64
        Number of negatives of each column; 0 where there are none.
    values, ci_low, ci_high : ndarray of shape (R, T)
        Terms with 95 % intervals.
    difference, difference_low, difference_high : ndarray of shape (R, T)
        Value less that of ``"none"``, paired over draws of samples.
    learned_difference, learned_low, learned_high : ndarray of shape (R, T)
        Value of ``"learned"`` less that of each mask, paired; NaN without a mask.
    dimension_variance : ndarray of shape (R, D)
        What each dimension contributes to ``class_variance``.
    class_shares : ndarray of shape (K,)
        Share of the samples in each class.
    n_samples, n_views, n_bootstrap : int
        N, V (the first two are used), and draws.
    temperature : float
        What inner products are divided by.
    basis, sample : str
        Basis of the features, and which samples they are of; empty: all.
    """

    masks: tuple[str, ...]
    n_negatives: np.ndarray
    terms: tuple[str, ...]
    term_negatives: np.ndarray
    values: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    difference: np.ndarray
    difference_low: np.ndarray
    difference_high: np.ndarray
    learned_difference: np.ndarray
    learned_low: np.ndarray
    learned_high: np.ndarray
    dimension_variance: np.ndarray
    class_shares: np.ndarray
    n_samples: int
    n_views: int
    n_bootstrap: int
    temperature: float
    basis: str
    sample: str

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
            ci_high, difference, difference_low, difference_high``, where ``inferred`` marks terms
            of the form that is not the paper's own theorem; ``dimensions``, one row a mask and
            dimension: ``mask, dimension, class_variance``; and with a mask ``controls``, the
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
        kinds = ("ci_low", "ci_high", "difference", "difference_low", "difference_high")
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
            Sizes; ``risk``, the cross-entropies of every mask side by side; ``terms`` (nested:
            mask, then term); ``held`` (mask, then numbers of negatives at which the inferred form
            held); ``proved``, ``inferred``, ``assumption`` and ``intervals``, a sentence each; and
            ``verdict``, a list of sentences.
        """
        fixed = [term for term in self.terms if term not in SWEPT]
        values = {term: dict(zip(self.masks, self.of(term), strict=True)) for term in fixed}
        return {
            "n_samples": self.n_samples,
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
            "held": {
                mask: self.n_negatives[held].tolist()
                for mask, held in zip(self.masks, self.held, strict=True)
            },
            "proved": "On this sample |NCE_inf - CE_p - J| <= |f| sqrt(V+) held for every mask, as "
            "it must: gap against gap_bound.",
            "inferred": INFERRED,
            "assumption": self._assumption(),
            "intervals": _INTERVALS,
            "verdict": _verdict(self),
        }

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
        If labels or a second view are missing, there is one class only, the mask has another
        number of dimensions, or a number is out of its range.
    ArithmeticError
        If the inequality that is proved fails by more than rounding: an error of this program.

    Notes
    -----
    Rows are masked and divided by their norm (a row of zeros stays one: nothing below needs norm 1,
    only norms of at most 1) and by sqrt(temperature), so ``|f| <= 1 / sqrt(temperature)``.

    Proved, with class shares p_k, class means mu_k of f, means E over samples and j over all N::

        CE_p    = -E f.mu_y + E log sum_k p_k exp(f.mu_k)
        NCE_inf = -E f.f+   + E log mean_j exp(f.f_j)
        J       = E log mean_j exp(f.f_j) - E log sum_k p_k exp(f.mu_k)  >= 0
        |NCE_inf - CE_p - J| <= |f| sqrt(V+),   V+ = E |f+ - mu_y|^2

    Inferred [1]_, with V = E |f - mu_y|^2, M negatives drawn from all f_j for each anchor, with
    replacement (a smaller M takes the first of them), and the O(M^-1/2) term dropped::

        L_NCE(M) = -E f.f+ + E log sum_m exp(f.f_m),   L_CE = -E f.mu_y + E log sum_k exp(f.mu_k)
        L_NCE(M) - sqrt(V) - V/2  <=  L_CE + log(M/K)  <=  L_NCE(M) + sqrt(V)

    This is not the paper's [2]_ verbatim theorem, which was not available. It may fail on a sample;
    that is reported, never raised. It assumes equally likely classes, and labels that both views
    share. Masked and unmasked bounds bound different risks: look at ``cross_entropy`` too.

    At low temperatures an anchor's product with itself, which the proof needs, rules NCE_inf and J.

    Intervals: class means, shares and the mean over j are those of each draw of samples; a class
    that was not drawn is left out, of K too. Negatives are drawn once: their anchors are reweighted
    exactly, they themselves to first order. View agreement keeps its class means. A draw repeats
    samples, which lowers V by about K/N of itself once more than the sample does and doubles an
    anchor's product with itself; so the draws are moved to have the measured value as their mean
    before their 2.5 and 97.5 % quantiles are taken.

    References
    ----------
    .. [1] Wang et al., "Chaos is a ladder", ICLR 2022, theorem 4.2.
    .. [2] Li et al., "MetaMask", NeurIPS 2022, theorem 5.1.

    Examples
    --------
    >>> views = np.repeat([[[1.0, 0.0], [0.0, 1.0]]], 2, axis=0)  # two classes, a point each
    >>> split = Representation(views[0], labels=np.array([0, 1]), views=views)
    >>> bound = bound_risk(split, n_negatives=[64])
    >>> bound.of("width").tolist(), bound.of("cross_entropy").round(4).tolist()
    ([0.0], [-0.3799])
    """
    from dimlab.kernels.risk import draw_multiplicities, draw_negatives, risk_terms, scaled_units

    numbers = _checked_numbers(n_negatives)
    _check_settings(temperature, n_bootstrap, seed)
    codes, views = _labelled_views(representation)
    masks = _masks(mask, representation.n_dimensions, seed)
    draws = draw_multiplicities(len(codes), n_bootstrap, np.random.default_rng([seed, 1]))
    weights = np.column_stack([np.ones_like(codes), draws])
    distinct = {each.tobytes(): each for each in masks.values()}
    found: dict[bytes, RiskTerms] = {}
    for index, (key, each) in enumerate(distinct.items()):

        def report(done: int, before: int = index * len(codes)) -> None:
            if progress is not None:
                progress(before + done, len(distinct) * len(codes))

        anchors, positives = (scaled_units(view, each, temperature) for view in views[:2])
        rng = np.random.default_rng([seed, 2])
        found[key] = risk_terms(
            anchors, positives, codes, weights, numbers, rng, device=device, progress=report
        )
    kernels = [found[each.tobytes()] for each in masks.values()]
    columns = [_columns(each, numbers, temperature) for each in kernels]
    for name, each_columns in zip(masks, columns, strict=True):
        _refuse_impossible(name, {key: value[0] for key, value in each_columns}, temperature)
    terms = tuple(name for name, _ in columns[0])
    return RiskBound(
        masks=tuple(masks),
        n_negatives=np.array(numbers),
        terms=terms,
        term_negatives=np.array([n for n in _numbers_of(numbers)]),
        **_intervals(terms, tuple(masks), np.array([[v for _, v in each] for each in columns])),
        dimension_variance=np.stack([each.within_dimensions for each in kernels]),
        class_shares=np.bincount(codes) / len(codes),
        n_samples=len(codes),
        n_views=len(views),
        n_bootstrap=n_bootstrap,
        temperature=float(temperature),
        basis=basis_of(representation),
        sample=sample_of(representation),
    )
