"""Attribution: what every dimension carries beside the label, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike, warning_of_copies
from dimlab.devices import hold
from dimlab.kernels.permutation import permutation_p_values
from dimlab.kernels.rounding import spread_floor
from dimlab.mask import MaskTrace
from dimlab.probes._factors import Factors, centred_features
from dimlab.probes._reading import AXES, basis_of, labelled, plain, sample_of
from dimlab.probes.ablate import Ablation
from dimlab.probes.erase import Erasure, erase
from dimlab.readers.base import Progress
from dimlab.representation import Representation

LEADING = "leading"
_SIGNIFICANT = 0.05
_FLOOR = 0.01  # effect of a factor, or of the label, that a dimension is said to carry
_TOLD_APART = "undecided"
_N_NAMED = 10
_DECIMALS = 10  # of effects that are put in order
_N_INFORMATIVE, _INFORMATIVE_ROWS = (
    10,
    5000,
)  # pairs of a factor, and samples, for mutual information
_GIVEN_LABEL = ("effect", "p_value", "q_value")
_MEASURED = (*_GIVEN_LABEL, *(f"partial_{name}" for name in _GIVEN_LABEL))
_LAST_RECORDS = 10  # of a trace, whose gradient shares are averaged


@dataclass(frozen=True, eq=False)
class Attribution:
    """Effects of F factors and of the label on D dimensions.

    Parameters
    ----------
    factors : tuple of str
        Names of the factors.
    kinds : tuple of str
        ``continuous``, ``periodic`` or ``categorical``, for each factor.
    effect : ndarray of shape (D, F)
        Share of a dimension's squared error, given the label, that the factor takes off out of
        fold; in [0, 1]. NaN where the factor is not identifiable or the dimension does not vary
        within classes.
    partial_effect : ndarray of shape (D, F)
        The same given the label and all other identifiable factors; NaN too where the factor is not
        identifiable beside them.
    label_effect : ndarray of shape (D,)
        The same of the label, given all factors that are identifiable.
    p_value, q_value : ndarray of shape (D, F)
        Within-class permutation p-values, and q-values over all of them (Benjamini-Hochberg), in
        which a pair without an effect out of fold counts as p = 1.
    partial_p_value, partial_q_value : ndarray of shape (D, F)
        The same of the partial effects (Freedman and Lane).
    nuisance_score : ndarray of shape (D,)
        Largest effect of any factor; NaN where there is none.
    identifiable, separate : ndarray of shape (F,), bool
        Whether the factor varies by itself, given the label; and given the other factors too.
    left_given_label, left_given_others : ndarray of shape (F,)
        Share of the factor's variance that the label leaves, and that the label and all other
        identifiable factors leave.
    shared : ndarray of shape (F, F)
        Share of each factor's variance within classes that another one explains.
    n_columns : ndarray of shape (F,), int
        Columns of each factor: 4 of a continuous one with at least 5 different values.
    smallest_p_value : ndarray of shape (F,)
        What the p-values of the factor's effects cannot fall below, however large the effect: it is
        large where few units can change places.
    dead : ndarray of shape (D,), bool
        Dimensions that do not vary within classes.
    mutual_information : ndarray of shape (D, F)
        Nats between dimension and factor, *not* given the label, by nearest neighbours among at
        most 5,000 samples (an angle cut open at 0); only for the ten dimensions of the largest
        effect of each factor, NaN for the rest.
    n_samples, n_permutations : int
        N of test, and permutations.
    n_clusters : int
        Clusters of test that inference rests on; N where rows are independent.
    view_invariance : ndarray of shape (D,), optional
        Correlation of the first two views of a sample.
    gradient_share : ndarray of shape (D,), optional
        Share of the contrastive gradient that flows through the dimension, at the end of training.
    importance : ndarray of shape (D,), optional
        What a reader loses without the dimension.
    mask_weight : ndarray of shape (D,), optional
        The learned mask.
    erasure : Erasure, optional
        What the leading factor's removal does.
    notes : dict of str to str
        By name of a factor of ``test``: that it is left out, as it has more categories than half
        the samples; or that its whole numbers are taken as many categories.
    caution : str
        What is wrong with the rows, such as many copies; empty: nothing that was seen.
    basis, sample : str
        Basis of the dimensions; which part of the test split was used, empty: all of it.

    References
    ----------
    Kraskov, Stoegbauer and Grassberger, "Estimating mutual information", Physical Review E 69,
    2004; those of `attribute`, which measures it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, size = np.arange(200) % 2, rng.normal(size=200)
    >>> features = rng.normal(size=(200, 2)) + np.outer(size, [2, 0]) + np.outer(labels, [0, 3])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribution = attribute(split, split, n_permutations=99)
    >>> attribution.leading_factor, attribution.leading.tolist(), attribution.flagged.tolist()
    ('size', [0, 0], [True, False])
    >>> attribution.verdicts(), (attribution.effect[:, 0] > 0.5).tolist()
    (['nuisance', 'label'], [True, False])
    >>> attribution.words().ravel().tolist(), attribution.found.ravel().tolist()
    (['own', ''], [True, False])
    >>> attribution.own.ravel().tolist(), attribution.determined, attribution.beside(0)
    ([True, False], (), '')
    >>> list(attribution.tables()), list(attribution.parts()), len(attribution.to_frame())
    (['effects'], ['erasure'], 2)
    >>> attribution.summary()["factors"]["size"]["n_flagged"]
    1
    """

    factors: tuple[str, ...]
    kinds: tuple[str, ...]
    effect: np.ndarray
    partial_effect: np.ndarray
    label_effect: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    partial_p_value: np.ndarray
    partial_q_value: np.ndarray
    nuisance_score: np.ndarray
    identifiable: np.ndarray
    separate: np.ndarray
    left_given_label: np.ndarray
    left_given_others: np.ndarray
    shared: np.ndarray
    n_columns: np.ndarray
    smallest_p_value: np.ndarray
    dead: np.ndarray
    mutual_information: np.ndarray
    n_samples: int
    n_permutations: int
    n_clusters: int
    view_invariance: np.ndarray | None = None
    gradient_share: np.ndarray | None = None
    importance: np.ndarray | None = None
    mask_weight: np.ndarray | None = None
    erasure: Erasure | None = None
    caution: str = ""
    basis: str = "axes"
    sample: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label_effect)

    @property
    def found(self) -> np.ndarray:
        """Whether a factor's effect is at least 0.01 with q <= 0.05, (D, F) bool."""
        with np.errstate(invalid="ignore"):
            return (self.q_value <= _SIGNIFICANT) & (self.effect >= _FLOOR)

    @property
    def own(self) -> np.ndarray:
        """Whether that holds of the partial effect too: a factor carried by itself, (D, F) bool."""
        with np.errstate(invalid="ignore"):
            beside = (self.partial_q_value <= _SIGNIFICANT) & (self.partial_effect >= _FLOOR)
        return self.found & beside

    @property
    def leading(self) -> np.ndarray:
        """Factor of the largest effect on each dimension, (D,) int; -1: none.

        The largest among those it carries by themselves; where there are none, among those found.
        """
        known = ~np.isnan(self.effect)
        ranked = np.where(known, self.effect, -1.0) + 2.0 * self.found + 4.0 * self.own
        best = ranked.round(_DECIMALS).argmax(axis=1) if self.factors else 0
        return np.where(known.any(axis=1), best, -1)

    @property
    def leading_factor(self) -> str | None:
        """Factor of the largest sum of effects over the dimensions it is flagged on, if any."""
        total = np.where(self.own, self.effect, 0.0).sum(axis=0)
        return self.factors[int(total.round(_DECIMALS).argmax())] if total.any() else None

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
        """Name the other factor that explains most of one, within classes.

        Parameters
        ----------
        factor : int
            Index of the factor.

        Returns
        -------
        str
            Empty if there is no other identifiable factor.
        """
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
        words = np.where(own, "own", np.where(found, _TOLD_APART, "")).astype(object)
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
        for d in range(len(self)):
            label = self.label_effect[d]
            if self.dead[d]:
                words.append("dead")
            elif flagged[d]:
                words.append("nuisance" if leading[d, 0] >= label else "mixed")
            elif found[d] or (label > _FLOOR and self.determined):
                words.append(_TOLD_APART)
            else:
                words.append("label" if label > _FLOOR else "neither")
        return words

    def to_frame(self) -> Any:
        """Return one row a dimension.

        Returns
        -------
        pandas.DataFrame
            ``dimension, leading_factor`` (empty: none), ``nuisance_score``, of the leading factor
            (see ``leading``) ``effect, p_value, q_value, partial_effect, partial_p_value,
            partial_q_value``, ``label_effect``; where they are known ``view_invariance,
            gradient_share, importance, mask_weight``; ``verdict``.
        """
        import pandas as pd

        rows, leading = np.arange(len(self)), self.leading
        names = np.array([*self.factors, ""])
        of_leading = {}
        for name in _MEASURED:
            values = np.column_stack([getattr(self, name), np.full(len(self), np.nan)])
            of_leading[name] = values[rows, leading]
        return pd.DataFrame(
            {
                "dimension": rows,
                "leading_factor": names[leading],
                "nuisance_score": self.nuisance_score,
                **of_leading,
                "label_effect": self.label_effect,
                **self._beside(),
                "verdict": self.verdicts(),
            }
        )

    def _beside(self) -> dict[str, np.ndarray]:
        """Collect what is known of each dimension from elsewhere."""
        names = ("view_invariance", "gradient_share", "importance", "mask_weight")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``effects``: one row a dimension and factor, with ``effect, p_value, q_value,
            partial_effect, partial_p_value, partial_q_value, mutual_information`` (nats, not given
            the label) and ``word``, see `words`.
        """
        import pandas as pd

        n_factors = len(self.factors)
        frame = pd.DataFrame(
            {
                "dimension": np.repeat(np.arange(len(self)), n_factors),
                "factor": np.tile(self.factors, len(self)) if n_factors else [],
                **{name: getattr(self, name).ravel() for name in _MEASURED},
                "mutual_information": self.mutual_information.ravel(),
                "word": self.words().ravel(),
            }
        )
        return {"effects": frame}

    def parts(self) -> dict[str, Any]:
        """Return the results within this one, by name.

        Returns
        -------
        dict of str to Erasure
            ``erasure``, where a factor was taken out.
        """
        return {} if self.erasure is None else {"erasure": self.erasure}

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Sizes, for each factor its kind, whether it is identifiable and if not why not, how many
            dimensions it is flagged on and on how many it is found through another one, its largest
            effects and mutual information; the leading factor, the dimensions of the largest
            nuisance score, counts of verdicts, and what erasure found;
            ``notes`` on factors that are left out or look continuous.
        """
        verdicts = self.verdicts()
        order = _descending(self.nuisance_score)
        own, words = self.own, self.words()
        each = {}
        for f, name in enumerate(self.factors):
            through = [word[8:] for word in words[:, f] if word.startswith("through ")]
            each[name] = {
                "kind": self.kinds[f],
                "n_columns": int(self.n_columns[f]),
                "identifiable": bool(self.identifiable[f]),
                "separate": bool(self.separate[f]),
                "reason": self._reason(f),
                "left_given_label": float(self.left_given_label[f]),
                "left_given_others": float(self.left_given_others[f]),
                "n_flagged": int(own[:, f].sum()),
                "n_through": {other: through.count(other) for other in dict.fromkeys(through)},
                "n_undecided": int((words[:, f] == _TOLD_APART).sum()),
                "largest_effect": plain(_largest(self.effect[:, f])),
                "largest_partial_effect": plain(_largest(self.partial_effect[:, f])),
                "largest_mutual_information": plain(_largest(self.mutual_information[:, f])),
                "smallest_p_value": plain(self.smallest_p_value[f]),
            }
        return {
            "n_test": self.n_samples,
            "n_clusters": self.n_clusters,
            "n_dimensions": len(self),
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            "n_permutations": self.n_permutations,
            "leading_factor": self.leading_factor,
            "factors": each,
            **({"notes": dict(self.notes)} if self.notes else {}),
            "most_nuisance": [int(d) for d in order[:_N_NAMED] if self.flagged[d]],
            "verdicts": {word: verdicts.count(word) for word in dict.fromkeys(verdicts)},
            **({"caution": self.caution} if self.caution else {}),
            "effect": "share of squared error, given the label, that the factor takes off out of "
            "fold; partial: given all other factors too.",
            "mutual_information": f"nats, not given the label, nearest neighbours, at most "
            f"{_INFORMATIVE_ROWS:,} samples, the {_N_INFORMATIVE} leading dimensions of each "
            "factor.",
            "erasure": None if self.erasure is None else self.erasure.summary(),
        }

    def _reason(self, f: int) -> str:
        """Say why a factor has no effects, or can have none with q <= 0.05; empty: it can."""
        if self.n_columns[f] == 0:
            return "it does not vary."
        if not self.identifiable[f]:
            return f"the label leaves {self.left_given_label[f]:.2%} of its variance."
        if not self.separate[f]:
            return (
                f"the label and the other factors, above all {self.beside(f)}, leave "
                f"{self.left_given_others[f]:.2%} of its variance: no partial effect."
            )
        if self.smallest_p_value[f] > _SIGNIFICANT:
            return (
                f"so few of the {self.n_clusters} clusters or rows can change places that no "
                f"p-value lies below {self.smallest_p_value[f]:.2g}."
            )
        known = ~np.isnan(self.effect[:, f])
        if np.isnan(self.p_value[known, f]).all():
            return "it varies on too few clusters or rows for a test."
        if np.isnan(self.partial_p_value[known, f]).all():
            return "too few clusters or rows for a test beside the other factors."
        return ""


def attribute(
    train: Representation,
    test: Representation,
    *,
    factors: Sequence[str] | None = None,
    n_folds: int = 5,
    n_permutations: int = 1000,
    erased: str | None = LEADING,
    in_distribution: Representation | None = None,
    ablation: Ablation | None = None,
    trace: MaskTrace | None = None,
    clusters: ClustersLike = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Measure what every factor explains of every dimension of ``test``, given the label.

    Parameters
    ----------
    train, test : Representation
        Labelled splits of the same D dimensions. Effects are estimated on ``test``, whose factors
        count: pass ``per_view()`` of encoded views to have augmentation parameters among them.
        ``train`` is what erasers and their readers are fitted on.
    factors : sequence of str, optional
        Factors of ``test`` to look at; by default all but those with more categories than half the
        samples (file names, times), which ``notes`` names. Floating ones are continuous (periodic
        where the representation names a period), others categorical.
    n_folds : int, default=5
        Folds of the out-of-fold errors, balanced within classes, >= 2.
    n_permutations : int, default=1000
        Permutations of the factors within classes, >= 1.
    erased : str or None, default="leading"
        Factor whose removal is tried out with `erase` and its defaults: by default that of the
        largest flagged effects, if there is one and both splits have it, one row a sample; None:
        none.
    in_distribution : Representation, optional
        Held-out samples like train, for `erase`.
    ablation : Ablation, optional
        Importances to stand beside the effects.
    trace : MaskTrace, optional
        Mask weights and gradient shares to stand beside them; without it mask weights are those in
        ``test.meta``.
    clusters : str, ndarray of shape (N,), or pair of ndarray, optional
        Which rows of ``test`` belong together (images of a patient, frames of a video, copies): the
        name of a factor, or a value a row; of a pair for train and test the second counts. By
        default the views of a sample, after ``per_view()``, and else none.
    seed : int, default=0
        Deals folds and draws permutations.
    progress : callable, optional
        Called as ``progress(done, total)`` over permutations.

    Returns
    -------
    Attribution
        Effects with p- and q-values.

    Raises
    ------
    ValueError
        If labels are missing, D differs, the splits are in different bases, a factor is unknown,
        named twice or there is none, a number is out of its range, there are too few samples, or
        an ablation or a trace is of other dimensions.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    ``effect = 1 - RSS(h ~ label + phi) / RSS(h ~ label)``, both out of fold, clipped at 0, where
    the label is one intercept a class and phi a restricted cubic spline with knots at the 5, 27.5,
    50, 72.5 and 95 % quantiles, so of 4 columns (a factor of fewer than 5 different values has one
    column less than values), two harmonics, or one column a category. Splines are linear beyond the
    outer knots, and constant beyond the values that they were fitted to. So a factor that merely
    follows the label explains nothing. A factor of whose phi the label leaves less than 1 % of the
    variance is not identifiable.

    ``partial_effect`` is the same beside the label and all other identifiable factors: a factor
    that merely follows another one explains nothing more. Where all these leave less than 1 % of
    its variance it is NaN.

    P-values: the F statistic of phi given the label against permutations within classes [1]_, the
    same for all dimensions, whose studentised nulls are pooled; for partial effects the residuals
    of the model without the factor are permuted [2]_. q-values over all dimensions and factors
    [3]_; a pair whose effect out of fold is 0 is never found. The label's effect is given the
    identifiable factors: the others are functions of it.

    Clusters share a fold. A factor of whose variance less than a tenth lies within clusters is
    tested on their means: clusters change places, among those of equal label where labels are
    constant in clusters; otherwise the label is taken off before. Any other factor is tested within
    cluster and class [4]_, where each cluster's part changes sign as a whole, so that rows of a
    cluster may depend on each other in any way, as frames of a video do. ``smallest_p_value`` says
    what few clusters cannot show.

    References
    ----------
    .. [1] Winkler et al., "Permutation inference for the general linear model", NeuroImage 2014.
    .. [2] Freedman and Lane, "A nonstochastic interpretation of reported significance levels",
       Journal of Business and Economic Statistics 1, 1983.
    .. [3] Benjamini and Hochberg, JRSS B 57, 1995.
    .. [4] Winkler et al., "Multi-level block permutation", NeuroImage 123, 2015.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(300) % 3
    >>> size = rng.normal(size=300)
    >>> features = rng.normal(size=(300, 3))
    >>> features += np.outer(labels, [0, 3, 0]) + np.outer(size, [2, 0, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribute(split, split, n_permutations=99).verdicts()
    ['nuisance', 'label', 'neither']
    """
    _, labels = labelled(train, test, "attribute")
    if basis_of(train) != basis_of(test):
        raise ValueError(
            f"test must be in the basis of train, {basis_of(train)}; got {basis_of(test)}. Apply "
            "the same Basis to both."
        )
    known = Factors.of(
        test, labels, factors, clusters[1] if isinstance(clusters, tuple) else clusters
    )
    settings = (("n_folds", n_folds, 2), ("n_permutations", n_permutations, 1), ("seed", seed, 0))
    for name, value, least in settings:
        if value < least:
            raise ValueError(f"{name} must be >= {least}; got {value}.")
    n_units = known.n_units
    if n_units < n_folds:
        what = "samples" if known.clusters is None else "clusters"
        raise ValueError(f"n_folds must be at most the number of {what}, {n_units}; got {n_folds}.")
    if len(test) * (1 - 1 / n_folds) <= known.n_columns + 1:
        raise ValueError(
            f"attribute needs more than {int((known.n_columns + 1) / (1 - 1 / n_folds))} samples "
            f"for {len(known.names)} factors and {known.codes.max() + 1} classes; got {len(test)}."
        )
    hold(34 * test.features.size, "attribute", f"{len(test):,} rows", "Pass fewer (--max-queries).")
    beside = _beside(test, ablation, trace)
    rng = np.random.default_rng(seed)
    features, within, dead = centred_features(test, known.codes)
    effects = known.effects(features, within, known.deal(n_folds, rng))
    p_value, smallest = _p_values(known, within, n_permutations, rng, progress)
    q_value = [
        _q_values(p, effect)
        for p, effect in zip(p_value, (effects.given_label, effects.given_all), strict=True)
    ]
    found = Attribution(
        factors=known.names,
        kinds=known.kinds,
        effect=effects.given_label,
        partial_effect=effects.given_all,
        label_effect=effects.of_label,
        p_value=p_value[0],
        q_value=q_value[0],
        partial_p_value=p_value[1],
        partial_q_value=q_value[1],
        nuisance_score=_largest(effects.given_label),
        identifiable=known.identifiable,
        separate=known.separate,
        left_given_label=known.left_given_label,
        left_given_others=known.left_given_others,
        shared=known.shared,
        n_columns=np.array([each.shape[1] for each in known.columns]),
        smallest_p_value=smallest,
        dead=dead,
        mutual_information=_mutual_information(test, known, effects.given_label, rng),
        n_samples=len(test),
        n_permutations=n_permutations,
        n_clusters=n_units,
        **beside,
        caution=warning_of_copies(test, known.clusters) or "",
        basis=basis_of(test),
        sample=sample_of(test),
        notes=known.notes,
    )
    factor = found.leading_factor if erased == LEADING else erased
    if factor is None:
        return found
    if erased == LEADING and (factor not in train.factors or test.meta.get("per_view")):
        return found
    of_test = clusters
    splits = [train] if in_distribution is None else [train, in_distribution]
    if isinstance(clusters, str) and any(clusters not in each.factors for each in splits):
        of_test = test.factors[clusters]
    erasure = erase(
        train, test, factor=factor, in_distribution=in_distribution, clusters=of_test, seed=seed
    )
    return replace(found, erasure=erasure)


def _p_values(
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
        )  # fmt: skip
        p_value[:, :, level.factors] = found.given_label, found.given_all
        smallest[level.factors] = found.smallest
    p_value[1, :, ~known.separate] = np.nan
    return p_value, smallest


def _q_values(p_value: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """q-values over all pairs; one that explains nothing out of fold is none to be found."""
    from scipy.stats import false_discovery_control

    known = ~np.isnan(p_value)
    q_value = np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = false_discovery_control(np.where(effect > 0, p_value, 1.0)[known])
    return q_value


def _mutual_information(
    test: Representation, known: Factors, effect: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Nats between each factor and the dimensions it has the largest effects on; else NaN."""
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    found = np.full_like(effect, np.nan)
    rows = np.arange(len(test))
    if len(rows) > _INFORMATIVE_ROWS:
        rows = np.sort(rng.choice(rows, _INFORMATIVE_ROWS, replace=False))
    if len(rows) < 10:  # the estimator asks for neighbours
        return found
    for f in range(len(known.names)):
        ranked = _descending(effect[:, f])
        leading = ranked[:_N_INFORMATIVE]
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


def _beside(
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
            raise ValueError(
                f"ablation must have one group for each of the {n_dimensions} dimensions, in the "
                f"basis {basis_of(test)}; got {len(ablation.importance)} groups in the basis "
                f"{ablation.basis}."
            )
        found["importance"] = ablation.importance
    weights = test.meta.get("mask") if on_axes else None
    if trace is not None:
        if not on_axes or trace.weights.shape[1] != n_dimensions:
            raise ValueError(
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
    pair = [
        each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (first, second)
    ]
    product = np.einsum("nd,nd->d", *pair)
    norms = [np.sqrt(np.einsum("nd,nd->d", each, each)) for each in pair]
    least = [
        np.sqrt(len(each)) * spread_floor(np.abs(each).max(axis=0), test.eps)
        for each in (first, second)
    ]
    varies = (norms[0] > least[0]) & (norms[1] > least[1])
    return np.where(varies, product / np.where(varies, norms[0] * norms[1], 1.0), np.nan)


def _descending(values: np.ndarray) -> np.ndarray:
    """Order of values, the largest first, NaN last; equal ones, to 10 decimals, by index."""
    return np.argsort(-np.nan_to_num(values, nan=-1.0).round(_DECIMALS), kind="stable")


def _largest(effect: np.ndarray) -> np.ndarray:
    """Largest of each row that is not NaN; NaN where all are."""
    best = np.where(np.isnan(effect), -np.inf, effect).max(axis=-1, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def _part_of(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, count * total)
