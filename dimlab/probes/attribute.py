"""Attribution: what every dimension carries beside the label, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike, warning_of_copies
from dimlab.devices import hold
from dimlab.given import RepresentationLike, as_representations
from dimlab.mask import MaskTrace
from dimlab.probes._effects import (
    DECIMALS,
    INFORMATIVE_ROWS,
    MEASURED,
    N_INFORMATIVE,
    UNDECIDED,
    Judged,
    beside_of,
    descending,
    largest,
    mutual_information,
    p_values,
    q_values,
    said_of_factor,
)
from dimlab.probes._factors import Factors, centred_features, check_enough
from dimlab.probes._reading import basis_of, labelled, sample_of
from dimlab.probes.ablate import Ablation
from dimlab.probes.erase import Erasure, erase
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.result import Verdict, column, detail, entries, entry, per, scalar
from dimlab.targets import CLASSES, as_kind, kind_of

NEEDS: tuple[set[str], ...] = ({"labels", "factors", "train"},)
LEADING = "leading"
_N_NAMED = 10


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Attribution(Judged):
    """Effects of F factors and of the label on D dimensions.

    Examples
    --------
    >>> from dimlab import Representation
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

    EFFECT = "effect", "q_value"
    DIMENSIONS = (
        ("carries", "leading_factor", "factor of the largest effect"),
        ("nuisance_score", "nuisance_score", "largest effect of a factor, given label"),
        ("nuisance_q", "q_value", "q-value of that factor"),
        ("partial_effect", "partial_effect", "its effect, given all other factors too"),
        ("partial_q", "partial_q_value", "q-value of the partial effect"),
        ("label_effect", "label_effect", "effect of the label, given factors"),
        ("view_invariance", "view_invariance", "correlation of two views"),
        ("gradient_share", "gradient_share", "share of the contrastive gradient"),
        ("verdict", "verdict", "nuisance, mixed, label, undecided, neither or dead"),
    )
    TABLES = (("effects", "_every_effect"),)

    n_samples: int = scalar("N of test.", key="n_test")
    n_clusters: int = scalar(
        "Clusters of test that inference rests on; N where rows are independent."
    )
    n_dimensions = entry(len, doc="D, the number of dimensions.")
    basis: str = scalar("Basis of the dimensions.", default="axes")
    sample: str = scalar(
        "Which part of the test split was used; empty: all of it.", optional=True, default=""
    )
    n_permutations: int = scalar("Permutations.")

    @entry
    def leading_factor(self) -> str | None:
        """Factor of the largest sum of effects over the dimensions it is flagged on, if any."""
        total = np.where(self.own, self.effect, 0.0).sum(axis=0)
        return self.factors[int(total.round(DECIMALS).argmax())] if total.any() else None

    @column
    def of_leading(self) -> dict[str, Any]:
        """Dimension, its leading factor (empty: none), and the numbers of that factor."""
        rows, leading = np.arange(len(self)), self.leading
        beside = np.full(len(self), np.nan)
        return {
            "dimension": rows,
            "leading_factor": np.array([*self.factors, ""])[leading],
            "nuisance_score": self.nuisance_score,
            **{
                name: np.column_stack([getattr(self, name), beside])[rows, leading]
                for name in MEASURED
            },
        }

    label_effect: np.ndarray = per(
        "dimension", "The same of the label, given all factors that are identifiable."
    )
    view_invariance: np.ndarray | None = per(
        "dimension", "Correlation of the first two views of a sample.", default=None
    )
    gradient_share: np.ndarray | None = per(
        "dimension",
        "Share of the contrastive gradient that flows through the dimension, at the end of "
        "training.",
        default=None,
    )
    importance: np.ndarray | None = per(
        "dimension", "What a reader loses without the dimension.", default=None
    )
    mask_weight: np.ndarray | None = per("dimension", "The learned mask.", default=None)

    verdict = column(lambda self: self.verdicts(), doc="What each dimension carries, in a word.")

    @entries
    def of_factors(self) -> dict[str, Any]:
        """What each factor does, and what is noted of those left out; most nuisance; verdicts."""
        verdicts, order = self.verdicts(), descending(self.nuisance_score)
        words = self.words()
        return {
            "factors": {
                name: said_of_factor(self, f, words[:, f]) for f, name in enumerate(self.factors)
            },
            **({"notes": dict(self.notes)} if self.notes else {}),
            "most_nuisance": [int(d) for d in order[:_N_NAMED] if self.flagged[d]],
            "verdicts": {word: verdicts.count(word) for word in dict.fromkeys(verdicts)},
        }

    caution: str = scalar(
        "What is wrong with the rows, such as many copies; empty: nothing that was seen.",
        optional=True,
        default="",
    )

    @entries
    def meaning(self) -> dict[str, Any]:
        """What effects and mutual information are, and what erasure found."""
        return {
            "effect": "share of squared error, given the label, that the factor takes off out of "
            "fold; partial: given all other factors too.",
            "mutual_information": f"nats, not given the label, nearest neighbours, at most "
            f"{INFORMATIVE_ROWS:,} samples, the {N_INFORMATIVE} leading dimensions of each "
            "factor.",
            "erasure": None if self.erasure is None else self.erasure.summary(),
        }

    erasure: Erasure | None = detail("What the leading factor's removal does.", default=None)
    notes: dict[str, str] = detail(
        "By name of a factor of `test`: that it is left out, as it has more categories than half "
        "the samples; or that its whole numbers are taken as many categories.",
        default_factory=dict,
    )

    def __len__(self) -> int:
        return len(self.label_effect)

    def _every_effect(self) -> Any:
        """Frame of one row a dimension and factor."""
        import pandas as pd

        places = np.indices(self.effect.shape).reshape(2, -1)
        return pd.DataFrame(
            {
                "dimension": places[0],
                "factor": np.array(self.factors)[places[1]],
                **{name: getattr(self, name).ravel() for name in (*MEASURED, "mutual_information")},
                "word": self.words().ravel(),
            }
        )


def verdict(attribution: Attribution) -> Verdict:
    """Say whether dimensions carry nuisance more than the label."""
    flagged, n = int(attribution.flagged.sum()), len(attribution)
    determined = attribution.determined
    words = attribution.verdicts()
    mostly, open_ = (
        [d for d, each in enumerate(words) if each == word] for word in ("nuisance", UNDECIDED)
    )
    leading = attribution.leading_factor
    text = (
        f"{flagged} of {n} dimensions carry a factor beside the label and all other factors "
        "(q <= 0.05, effect at least 0.01)"
    )
    if leading is not None:
        effect = attribution.effect[:, attribution.factors.index(leading)]
        text += (
            f", above all {leading} (up to {np.nanmax(effect):.1%} of a dimension's error); "
            f"{len(mostly)} carry more of one than of the label"
        )
    if determined:
        text += f"; the label determines {', '.join(determined)}, which cannot be told from it"
    if open_ and not determined:
        text += f"; {len(open_)} carry factors that cannot be told from each other"
    answer = "undecided" if determined or open_ else "no"
    notes = [f" {name} is {note}" for name, note in attribution.notes.items()]
    return Verdict(
        "Do dimensions carry nuisance more than the label?",
        "yes" if mostly else answer,
        text + "." + "".join(notes),
        "Yes: for some dimension a factor's effect given the label has q <= 0.05 and is at least "
        "0.01 and the label's own, and it is found given all other factors too. Undecided: the "
        "label determines a factor, or factors cannot be told from each other.",
        tuple(mostly),
    )


def attribute(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    factors: Sequence[str] | None = None,
    n_folds: int = 5,
    n_permutations: int = 1000,
    erased: str | None = LEADING,
    in_distribution: RepresentationLike | None = None,
    ablation: Ablation | None = None,
    trace: MaskTrace | None = None,
    clusters: ClustersLike = None,
    target_kind: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Measure what every factor explains of every dimension of ``test``, given the label.

    Parameters
    ----------
    train, test : Representation, or columns of a data set
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
    target_kind : {"classes", "values", "multilabel"}, optional
        What the labels are: classes, real values, or several labels a sample. By default integers,
        booleans and text are classes, floats real values, and a matrix of 0 and 1 several labels.
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
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    ``effect = 1 - RSS(h ~ label + phi) / RSS(h ~ label)``, both out of fold, clipped at 0, where
    the label is one intercept a class, a spline of each real value, or one column for each of
    several labels, and phi a restricted cubic spline with knots at the 5, 27.5, 50, 72.5 and 95 %
    quantiles, so of 4 columns (a factor of fewer than 5 different values has one column less than
    values), two harmonics, or one column a category. Splines are linear beyond the
    outer knots, and constant beyond the values that they were fitted to. A factor of whose phi the
    label (for ``partial_effect``: and the other factors) leaves less than 1 % of the variance is
    not identifiable.

    P-values: the F statistic of phi given the label against permutations within classes [1]_, the
    same for all dimensions, whose studentised nulls are pooled; for partial effects, and where the
    label is no class, the residuals of the model without the factor are permuted [2]_. q-values
    over all dimensions and factors [3]_; a pair whose effect out of fold is 0 is never found.

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
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(300) % 3
    >>> size = rng.normal(size=300)
    >>> features = rng.normal(size=(300, 3))
    >>> features += np.outer(labels, [0, 3, 0]) + np.outer(size, [2, 0, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribute(split, split, n_permutations=99).verdicts()
    ['nuisance', 'label', 'neither']
    """
    given = as_representations(train=train, test=test, in_distribution=in_distribution)
    train, test, in_distribution = given["train"], given["test"], given.get("in_distribution")
    of_train, labels = labelled(train, test, "attribute")
    labels = as_kind(labels, target_kind, np.unique(of_train))
    if basis_of(train) != basis_of(test):
        raise Refusal(
            f"test must be in the basis of train, {basis_of(train)}; got {basis_of(test)}. Apply "
            "the same Basis to both."
        )
    known = Factors.of(
        test,
        labels if kind_of(labels) == CLASSES else labels.reshape(len(labels), -1),
        factors,
        clusters[1] if isinstance(clusters, tuple) else clusters,
    )
    check_enough(known, n_folds, n_permutations, seed)
    n_units = known.n_units
    hold(34 * test.features.size, "attribute", f"{len(test):,} rows", "Pass fewer (--max-queries).")
    beside = beside_of(test, ablation, trace)
    rng = np.random.default_rng(seed)
    features, within, dead = centred_features(test, known.label)
    effects = known.effects(features, within, known.deal(n_folds, rng))
    p_value, smallest = p_values(known, within, n_permutations, rng, progress)
    q_value = [
        q_values(p, effect)
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
        nuisance_score=largest(effects.given_label),
        identifiable=known.identifiable,
        separate=known.separate,
        left_given_label=known.left_given_label,
        left_given_others=known.left_given_others,
        shared=known.shared,
        n_columns=np.array([each.shape[1] for each in known.columns]),
        smallest_p_value=smallest,
        dead=dead,
        mutual_information=mutual_information(test, known, effects.given_label, rng),
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
        train, test, factor=factor, in_distribution=in_distribution, target_kind=target_kind,
        clusters=of_test, seed=seed,
    )  # fmt: skip
    return replace(found, erasure=erasure)
