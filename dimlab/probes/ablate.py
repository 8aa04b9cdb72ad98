"""Ablation: what a reader loses when a dimension is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.given import RepresentationLike, as_representations
from dimlab.kernels.means import FEW_DIFFERENCES, FEWEST_DRAWS, LARGEST_SKEWNESS, RESOLVED
from dimlab.names import class_names_of
from dimlab.probes._importance import (
    N_BLOCKS,
    N_NAMED,
    SIGNIFICANT,
    Decided,
    alone_scores,
    measure,
    measure_contributions,
    needed_together,
)
from dimlab.probes._reading import (
    GroupsLike,
    How,
    ReaderLike,
    ReadsGroups,
    Task,
    check_choice,
    check_least,
    reads,
)
from dimlab.probes._unlabelled import measure_unlabelled, refuse_of_readers, unlabelled_task
from dimlab.readers.base import name_of
from dimlab.readers.linear import Standardiser
from dimlab.readers.ridge import Ridge
from dimlab.refusals import Refusal
from dimlab.result import ABSENT, Verdict, column, detail, entry, per, scalar
from dimlab.targets import (
    CLASSES,
    NEIGHBOURHOOD,
    UNLABELLED,
    VIEW_RETRIEVAL,
    score_in_words,
    score_of,
)

NEEDS: tuple[set[str], ...] = ({"labels", "train"}, {"views"}, {"train"})
RESAMPLES = ("test", "train")
_SHOWN = 12  # dimensions in a sentence


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Ablation(Decided, ReadsGroups):
    """What a reader of the features loses without each dimension, or each group of dimensions.

    References
    ----------
    Those of `ablate`, which measures it.

    Examples
    --------
    >>> from dimlab import Representation
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> ablation = ablate(split, split, reader="ridge")
    >>> ablation.full_score, ablation.needed.tolist(), ablation.harmful.tolist()
    (1.0, [0], [])
    >>> ablation.undecided.tolist()
    [1]
    >>> ablation.to_frame()["score"].round(2).tolist(), ablation.summary()["most_needed"]
    ([0.55, 1.0], [[0]])
    """

    EFFECT = "importance", "q_value"
    HEADLINE = ("reader", "score", "full_score", "n_groups", "n_needed", "n_harmful")
    DIMENSIONS = (
        ("importance", "importance", "accuracy lost without it"),
        ("importance_low", "ci_low", "95 % interval, low"),
        ("importance_high", "ci_high", "95 % interval, high"),
        ("importance_fcr_low", "fcr_low", "interval allowing for selection, low"),
        ("importance_fcr_high", "fcr_high", "interval allowing for selection, high"),
        ("importance_q", "q_value", "q-value of the importance"),
    )

    refit: bool = scalar("Whether the reader was fitted again without each group.")
    fill: str | None = scalar(
        "What replaced the group in a frozen reader: mean, zero, shuffle or noise."
    )
    score: str = scalar("What the reader was scored by.")

    full_score: float = scalar("Score with all dimensions: at most 1, or nats.")

    @column
    def group(self) -> dict[str, Any]:
        """Columns ``group`` and ``dimension``; ``dimensions`` where some group has several."""
        if all(len(group) == 1 for group in self.groups):
            named: dict[str, Any] = {"dimension": np.concatenate(self.groups)}
        else:
            named = {"dimensions": self._named()}
        return {"group": np.arange(len(self)), **named}

    scores: np.ndarray = per("group", "Score without each group.", column="score")
    importance: np.ndarray = per(
        "group",
        "What is lost without the group: positive, it is needed; negative, the reader is better "
        "off without it. `full_score - scores`; for log-loss, where less is better, the reverse.",
    )
    ci_low: np.ndarray = per(
        "group",
        "Lower end of the 95 % interval of the importance over test samples, given the train split "
        "and the reader; with `resample='train'` train splits of this size vary too.",
    )
    ci_high: np.ndarray = per("group", "Upper end of that interval.")
    p_value: np.ndarray = per("group", "Two-sided p-value of the importance.")
    q_value: np.ndarray = per(
        "group", "The same, adjusted after Benjamini and Hochberg over the groups of this call."
    )
    fcr_low: np.ndarray | None = per(
        "group",
        "Lower end of an interval of level 1 - 0.05 R / G beside the R groups with q <= 0.05, "
        "which allows for their selection; NaN for the other groups.",
        default=None,
    )
    fcr_high: np.ndarray | None = per("group", "Upper end of that interval.", default=None)
    log_loss_importance: np.ndarray | None = per(
        "group",
        "How far the log-loss rises without the group, in nats; None unless labels are classes.",
        default=None,
    )
    log_loss_p_value: np.ndarray | None = per(
        "group", "Its two-sided p-value, not adjusted over groups.", default=None
    )
    log_loss_unreliable: np.ndarray | None = per(
        "group",
        "Whether fewer than 20 test rows (or clusters) differ in log-loss or the differences have "
        "a skewness beyond 3, so that its interval and p-value are rough.",
        default=None,
    )
    alone_score: np.ndarray | None = per(
        "group", "Score of a reader fitted on the group alone.", default=None
    )
    per_class: np.ndarray = per(
        "group",
        "Importance among the test samples of each class; NaN for a class that test lacks.",
        shape="(G, K)",
    )
    per_class_q: np.ndarray | None = per(
        "group",
        "q-value of that importance, by McNemar's exact test within the class, adjusted over all "
        "groups and classes; NaN where nothing is tested: log-losses and rows in clusters.",
        shape="(G, K)",
        default=None,
    )
    classes: np.ndarray = per("K", "Class ids of train, ascending.")
    class_names: np.ndarray | None = per(
        "K", "Their names; the ids as text where no names are known.", default=None
    )
    constant: np.ndarray = detail(
        "Dimensions that do not vary on train, shape (n,). The linear readers ignore them."
    )

    @entry
    def n_needed(self) -> int:
        """Groups with q <= 0.05 and positive importance."""
        return len(self.needed)

    @entry
    def n_harmful(self) -> int:
        """Groups with q <= 0.05 and negative importance."""
        return len(self.harmful)

    @entry
    def most_needed(self) -> list[list[int]]:
        """Dimensions of up to ten needed groups, the most important first."""
        return self._dimensions_of(self.needed)

    @entry
    def most_harmful(self) -> list[list[int]]:
        """Dimensions of up to ten harmful groups, the most harmful first."""
        return self._dimensions_of(self.harmful)

    @entry
    def lowest_undecided(self) -> list[list[int]]:
        """Dimensions of up to ten undecided groups of the lowest negative estimates."""
        return self._dimensions_of(g for g in self.undecided[:N_NAMED] if self.importance[g] < 0)

    @entry
    def highest_undecided(self) -> list[list[int]]:
        """Dimensions of up to ten undecided groups of the highest positive estimates."""
        highest = self.undecided[::-1][:N_NAMED]
        return self._dimensions_of(g for g in highest if self.importance[g] > 0)

    certified_share: float | None = scalar(
        "kNN: share of (sample, group) pairs settled without a look beyond the candidates.",
        default=None,
    )

    @entry
    def constant_dimensions(self) -> list[int]:
        """Dimensions that do not vary on train."""
        return self.constant.tolist()

    n_clusters: int = scalar(
        "Clusters of test rows; 0 where rows are independent.", optional=True, default=0
    )
    resample: str = detail(
        "What varies in the intervals: `test`, or `train` for both splits.", default="test"
    )
    n_bootstrap: int = detail("Bootstrap samples of the log-loss.", default=0)

    @entry
    def intervals(self) -> str:
        """What the intervals are over."""
        rows = "test samples"
        if self.n_clusters:
            rows = f"clusters of test samples ({self.n_clusters})"
        if self.resample == "test":
            return f"95 %, over {rows}, given the train split and the fitted reader."
        return (
            f"95 %, over {rows} and over train splits of this size, by a jackknife over at most "
            f"{N_BLOCKS} blocks of train."
        )

    @entry
    def p_values(self) -> str:
        """Which tests the p-values are of."""
        said = {
            "accuracy": "Exact: McNemar's test; with clusters, signs of whole clusters flipped.",
            "balanced_accuracy": "The larger of that of flipped signs and that of the interval.",
        }.get(self.score, "Student's t.")
        if said == "Student's t." and self.n_bootstrap >= FEWEST_DRAWS:
            least = 2 * RESOLVED / (self.n_bootstrap + 1)
            said = (
                "Those that the bootstrap-t intervals invert; "
                f"below {least:.2g} Student's t goes on for the draws."
            )
        if self.resample == "train":
            said = "Student's t, one degree of freedom fewer than blocks of train."
        if self.log_loss_importance is None:
            return said
        return (
            f"{said} A log-loss is unreliable where fewer than {FEW_DIFFERENCES} rows differ or "
            f"the skewness is beyond {LARGEST_SKEWNESS:g}."
        )

    @entry
    def n_log_loss_unreliable(self) -> int:
        """Groups whose log-loss is unreliable."""
        return 0 if self.log_loss_unreliable is None else int(self.log_loss_unreliable.sum())

    hidden_groups: tuple[np.ndarray, ...] = scalar(
        "Groups of redundant dimensions (mean absolute correlation of at least 0.9 on train) that "
        "are needed while none of their dimensions is, each removed alone; each of shape (n,). "
        "Looked for only where single dimensions are ablated; for kNN on at most 1,000 test rows.",
        optional=True,
        default=(),
    )

    @entry
    def warning(self) -> Any:
        """What hidden groups mean; absent where there are none."""
        if not self.hidden_groups:
            return ABSENT
        return (
            "Redundant dimensions stand in for each other: these groups are needed, "
            "none of their dimensions is. Ablate groups."
        )


def verdict(ablation: Ablation) -> Verdict | None:
    """Say whether single dimensions, or groups, hurt the reader or are needed."""
    if ablation.score == NEIGHBOURHOOD:  # neighbours change without any: none is better or worse
        return None
    views = ablation.score == VIEW_RETRIEVAL
    what = score_in_words(VIEW_RETRIEVAL) if views else f"the {ablation.reader} reader"
    several = any(len(group) > 1 for group in ablation.groups)
    sides = {"needed": ablation.needed, "harmful": ablation.harmful}
    said = []
    for word, groups in sides.items():
        named = [" ".join(map(str, ablation.groups[g].tolist())) for g in groups[:_SHOWN]]
        listed = f" ({', '.join(named)}{', ...' * (len(groups) > _SHOWN)})" if named else ""
        said.append(f"{word}: {len(groups)}{listed}")
    decided, hurt = any(map(len, sides.values())), len(ablation.harmful) > 0
    return Verdict(
        f"Is {what} better without single dimensions?",
        "yes" if hurt else "no" if decided else "undecided",
        f"Of {len(ablation)} {'groups' if several else 'dimensions'}, {'; '.join(said)}; "
        f"undecided: {len(ablation.undecided)}.",
        "Yes: the score rises without some dimension (q <= 0.05), on the samples that showed it; "
        "no: none such, and it falls without some; undecided: neither is shown of any.",
        tuple(sorted({int(d) for g in ablation.harmful for d in ablation.groups[g]})),
    )


@reads
def ablate(
    train: RepresentationLike | None,
    test: RepresentationLike,
    *,
    reader: ReaderLike = "knn",
    refit: bool | None = None,
    fill: str | None = None,
    score: str | None = None,
    groups: GroupsLike | None = None,
    resample: str = "test",
    alone: bool = False,
    n_bootstrap: int = 1000,
    **how: Unpack[How],
) -> Ablation:
    """Score a reader of ``train`` on ``test`` without each dimension, or each group of them.

    Parameters
    ----------
    refit : bool, optional
        Fit again without the group (default for knn and ridge, whose answer is that of a real
        refit), or freeze the weights (default for logistic). kNN has nothing to freeze.
    fill : {"mean", "zero", "shuffle", "noise"}, optional
        What a frozen reader sees in place of the group: the train mean (the default); raw zero; the
        group's values of other test rows, in one order for all groups, drawn with ``seed``; or
        draws of a normal distribution with each dimension's mean and standard deviation on train.
        Zero is far from all that a dimension with a large mean ever is: its importance then tells
        of the fill.
    score : {"accuracy", "balanced_accuracy", "log_loss", "r2", "mean_average_precision", \
"mean_average_precision_micro", "view_retrieval", "neighbourhood"}, optional
        Score of the reader; by default accuracy for classes, R^2 for real values and mean average
        precision for several labels a sample. Balanced accuracy: mean over the classes of test of
        the share predicted. Log-loss, in nats: vote shares smoothed after Laplace for kNN; for
        ridge a softmax whose temperature minimises the log-loss of the leave-one-out logits of
        train (at most 10,000 rows of it). R^2: the mean over targets. Average precision: the mean
        over labels, or, micro, of all (row, label) pairs in one ranking. Two scores need no labels.
        View retrieval: how often the first view that is nearest to a second view, by cosine
        similarity among all test samples, is that of the same sample; ``train`` may be None.
        Neighbourhood: share of the k nearest train rows that stay the k nearest without the group.
    resample : {"test", "train"}, default="test"
        What the intervals let vary: the test samples, given this reader, or also the train split.
        ``"train"`` needs ``reader="ridge"`` and not balanced accuracy; it is conservative for
        accuracy, and fits the reader 20 times more.
    alone : bool, default=False
        Also score a reader of each group alone (``alone_score``): one fit a group.
    n_bootstrap : int, default=1000
        Bootstrap samples for scores other than accuracies, >= 1; fewer than 199 leave Student's t.

    Returns
    -------
    Ablation
        Scores, importance, intervals, p- and q-values of each group.

    Raises
    ------
    ValueError
        If labels are missing, the splits differ in D, a name is unknown, a number is out of its
        range, a group is empty or out of range, test has a class that train lacks, ``fill`` comes
        with a refit, ``refit=False`` with kNN, the splits are in different bases, ``memory`` is too
        little, or rounding would spoil the ridge's closed form, or the device is not there, or
        ``resample="train"`` comes with another reader than ridge or with balanced accuracy, or
        clusters do not fit the splits.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    kNN: the group leaves both sides, which are normalised again; the result is exactly that of
    brute force. A group of all dimensions leaves rows of zeros: similarity 0 to everything.

    Accuracy: Tango's score interval [1]_ and the exact two-sided McNemar test [2]_. Balanced
    accuracy: MOVER of the classes' Tango intervals [3]_, and the larger of the p-values of flipped
    signs and of that interval. Log-loss: bootstrap-t intervals [4]_ no shorter than Student's t,
    and the p-values that they invert. They test a mean of 0; flipped signs, studentised or not,
    would test symmetry, and call a rarely lost row harmful. A constant dimension has importance
    exactly 0; its interval is what so many unchanged rows still allow. q-values control the false
    discovery rate [5]_, FCR intervals [6]_ the share of chosen groups that are not covered.

    ``resample="test"``: intervals and p-values condition on ``train`` and the fitted reader.
    ``resample="train"``: they are of the mean importance over train splits of this size, on the
    population of ``test``. To the variance over test samples is added that of a jackknife which
    fits the reader without each of 20 blocks of train (for accuracy less what the sampling of test
    rows adds to it); quantiles are Student's with 19 degrees of freedom. A noise dimension has a
    mean slightly below 0, since it does harm.

    Clusters: rows are taken to be independent unless ``clusters`` says which belong together, as
    images of one patient, frames of one video or copies of a row do. Else intervals are too short
    and p-values too small. With clusters intervals use the variance between whole clusters [7]_ and
    tests flip or draw whole clusters. Below some 20 clusters they are wide, as they should be. Test
    rows that repeat another one exactly are counted, and more than 1 % of them is a warning.

    References
    ----------
    .. [1] Tango, Statistics in Medicine 17, 1998.
    .. [2] McNemar, Psychometrika 12, 1947.
    .. [3] Zou and Donner, Statistics in Medicine 27, 2008.
    .. [4] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.
    .. [5] Benjamini and Hochberg, JRSS B 57, 1995.
    .. [6] Benjamini and Yekutieli, JASA 100, 2005.
    .. [7] Obuchowski, Statistics in Medicine 17, 1998.

    Examples
    --------
    >>> from dimlab import Representation
    >>> features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> split = Representation(features, labels=np.array([0, 0, 1, 1]))
    >>> ablation = ablate(split, split, reader="knn", k=1)
    >>> ablation.full_score, ablation.importance.tolist()
    (1.0, [0.5, 0.0])
    """
    splits = as_representations(train=train, test=test)
    train, test = splits.get("train"), splits["test"]
    check_choice("resample", resample, RESAMPLES)
    if score in UNLABELLED:
        refuse_of_readers(
            score, reader="" if reader == "knn" else name_of(reader), refit=refit is False,
            fill=fill, resample="" if resample == "test" else resample, alone=alone,
            target_kind=how.pop("target_kind", None),
        )  # fmt: skip
        task = unlabelled_task(train, test, score, groups, **how)
        task = task.holding((36 if score == VIEW_RETRIEVAL else 68) * len(test) * len(task.groups))
        measured, share = measure_unlabelled(task, score, n_bootstrap)
        return _ablation(task, score, measured, certified_share=share, n_bootstrap=n_bootstrap)
    if train is None:
        raise Refusal("train must be given for a reader; got None.")
    if train.labels is None or test.labels is None:
        raise Refusal(
            "ablate needs labels: build the Representation with labels=(N,) class ids, or pass "
            "score='view_retrieval' or 'neighbourhood', which need none."
        )
    task = Task.of("ablate", train, test, reader, refit=refit, fill=fill, groups=groups, **how)
    score = score_of(score, task.kind)
    if resample == "train" and (
        not isinstance(task.reader, Ridge) or score == "balanced_accuracy"
    ):  # the readers fitted without a block would not be exact and fast
        raise Refusal(
            "resample must be 'test' unless reader is 'ridge', scored by another score than "
            f"'balanced_accuracy'; got 'train' with reader {task.reader.name!r}, {score}."
        )
    check_least(1, n_bootstrap=n_bootstrap)
    n_bytes = 92 if resample == "train" else 68
    task = task.holding(n_bytes * len(test) * len(task.groups))
    fitted, of_classes = task.fit(), task.kind == CLASSES
    found: Any = (
        task.outcomes(fitted=fitted) if of_classes else task.contributions(score, fitted=fitted)
    )
    together = [] if groups is not None else needed_together(task, fitted, train, score)
    del fitted  # and what it holds, before what it found is tested
    measured = (measure if of_classes else measure_contributions)(
        task, found, score, n_bootstrap=n_bootstrap, resample=resample
    )
    needed = (measured["q_value"] <= SIGNIFICANT) & (measured["importance"] > 0)
    return _ablation(
        task,
        score,
        measured,
        classes=task.classes,
        class_names=class_names_of(train.meta, task.classes),
        hidden_groups=tuple(group for group in together if not needed[group].any()),
        certified_share=found.certified_share,
        alone_score=alone_scores(task, score) if alone else None,
        resample=resample,
        n_bootstrap=n_bootstrap,
    )


def _ablation(task: Task, score: str, measured: dict[str, Any], **more: Any) -> Ablation:
    """Put together what was asked, and what was measured."""
    clusters, train = task.test.clusters, task.train
    return Ablation(
        **task.said,
        refit=task.refit,
        fill=task.fill,
        score=score,
        **measured,
        groups=tuple(task.groups),
        constant=Standardiser.fit(train.features, task.run.precision).constant,
        n_clusters=0 if clusters is None else int(clusters.max()) + 1,
        **{"classes": np.array([], dtype=np.int64), **more},
    )
