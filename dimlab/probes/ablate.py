"""Ablation: what a reader loses when a dimension is removed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike, cluster_ids_of_pair
from dimlab.kernels.clustered import paired_test
from dimlab.kernels.collinearity import redundant_groups
from dimlab.kernels.means import FEW_DIFFERENCES, FEWEST_DRAWS, LARGEST_SKEWNESS, RESOLVED
from dimlab.memory import Shapes, foresee
from dimlab.probes._importance import (
    N_BLOCKS,
    SIGNIFICANT,
    alone_scores,
    changes,
    measure,
    spread_over_train,
)
from dimlab.probes._outcomes import Outcomes, Progress, Split
from dimlab.probes._reading import (
    GroupsLike,
    Reading,
    basis_of,
    caution_of,
    check_choice,
    checked_groups,
    coded,
    sample_of,
    singles,
)
from dimlab.readers import Standardiser
from dimlab.representation import Representation

SCORES = ("accuracy", "balanced_accuracy", "log_loss")
RESAMPLES = ("test", "train")
_N_LOOKED_AT = 1_000
_N_NAMED = 10
_DECIMALS = 10  # of what is put in order: equal ones stay in the order of the call


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a reader of the features loses without each dimension, or each group of dimensions.

    Parameters
    ----------
    reader, score : str
        Which reader, and what it was scored by.
    refit : bool
        Whether the reader was fitted again without each group.
    fill : str or None
        What replaced the group in a frozen reader: ``"mean"`` or ``"zero"``.
    full_score : float
        Score with all dimensions: an accuracy in [0, 1], or nats.
    scores : ndarray of shape (G,)
        Score without each group.
    importance : ndarray of shape (G,)
        What is lost without the group: positive, it is needed; negative, the reader is better off
        without it. ``full_score - scores``; for log-loss, where less is better, the reverse.
    ci_low, ci_high : ndarray of shape (G,)
        95 % interval of the importance, given ``train`` and the reader: test samples vary, no
        other thing. With ``resample="train"`` train splits of this size vary too.
    p_value, q_value : ndarray of shape (G,)
        Two-sided, and adjusted after Benjamini and Hochberg over the groups of this call.
    per_class : ndarray of shape (G, K)
        Importance among the test samples of each class; NaN for a class that test lacks.
    groups : tuple of ndarray of shape (n,), int
        Dimensions of each of the G groups.
    classes : ndarray of shape (K,), int
        Class ids of train, ascending.
    constant : ndarray of shape (n,), int
        Dimensions that do not vary on train. The linear readers ignore them.
    n_train, n_test, n_dimensions : int
        Sizes.
    basis : str
        Basis that the dimensions belong to; ``"axes"`` where none was fitted.
    sample : str
        Which part of the test split was used; empty: all of it.
    log_loss_importance, log_loss_p_value : ndarray of shape (G,)
        How far the log-loss rises without the group, in nats, and its two-sided p-value: a measure
        with more power than accuracy for small effects. Not adjusted over groups.
    hidden_groups : tuple of ndarray of shape (n,), int
        Groups of redundant dimensions (mean absolute correlation of at least 0.9 on train) that are
        needed while none of their dimensions is, each removed alone. Looked for only where single
        dimensions are ablated; for kNN on at most 1,000 test samples.
    certified_share : float or None
        kNN: share of (sample, group) pairs settled without a look beyond the candidates.
    fcr_low, fcr_high : ndarray of shape (G,) or None
        Interval beside the R groups with q <= 0.05, of level 1 - 0.05 R / G: chosen because they
        stand out, they need a wider one. NaN for the other groups.
    log_loss_unreliable : ndarray of shape (G,), bool, or None
        Where fewer than 20 test rows (or clusters) differ in log-loss, or the differences have a
        skewness beyond 3: intervals and p-values of the log-loss are rough there.
    alone_score : ndarray of shape (G,) or None
        Score of a reader fitted on the group alone.
    resample : str
        What varies in the intervals: ``"test"``, or ``"train"`` for both splits.
    n_clusters : int
        Clusters of test rows; 0 where rows are independent.
    n_bootstrap : int
        Bootstrap samples of the log-loss.
    caution : str
        What keeps the numbers from meaning what they usually do; empty if nothing.

    References
    ----------
    Those of `ablate`, which measures it.

    Examples
    --------
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

    reader: str
    refit: bool
    fill: str | None
    score: str
    full_score: float
    scores: np.ndarray
    importance: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    per_class: np.ndarray
    groups: tuple[np.ndarray, ...]
    classes: np.ndarray
    constant: np.ndarray
    n_train: int
    n_test: int
    n_dimensions: int
    log_loss_importance: np.ndarray
    log_loss_p_value: np.ndarray
    basis: str = "axes"
    sample: str = ""
    hidden_groups: tuple[np.ndarray, ...] = ()
    certified_share: float | None = None
    fcr_low: np.ndarray | None = None
    fcr_high: np.ndarray | None = None
    log_loss_unreliable: np.ndarray | None = None
    alone_score: np.ndarray | None = None
    resample: str = "test"
    n_clusters: int = 0
    n_bootstrap: int = 0
    caution: str = ""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def needed(self) -> np.ndarray:
        """Groups with q <= 0.05 and positive importance, most important first; (n,) int."""
        order = np.argsort(-self.importance.round(_DECIMALS), kind="stable")
        return order[(self.q_value[order] <= SIGNIFICANT) & (self.importance[order] > 0)]

    @property
    def harmful(self) -> np.ndarray:
        """Groups with q <= 0.05 and negative importance, most harmful first; (n,) int."""
        order = np.argsort(self.importance.round(_DECIMALS), kind="stable")
        return order[(self.q_value[order] <= SIGNIFICANT) & (self.importance[order] < 0)]

    @property
    def undecided(self) -> np.ndarray:
        """Groups with q > 0.05, by importance, lowest first; (n,) int."""
        order = np.argsort(self.importance.round(_DECIMALS), kind="stable")
        return order[self.q_value[order] > SIGNIFICANT]

    def to_frame(self) -> Any:
        """Return one row a group, in the order of the call.

        Returns
        -------
        pandas.DataFrame
            ``group``; ``dimension``, or ``dimensions`` (separated by spaces) if some group has not
            exactly one; ``score, importance, ci_low, ci_high, p_value, q_value, fcr_low, fcr_high,
            log_loss_importance, log_loss_p_value, log_loss_unreliable``, and ``alone_score`` where
            it was asked for.
        """
        import pandas as pd

        single = all(len(group) == 1 for group in self.groups)
        columns: dict[str, Any] = {"group": np.arange(len(self))}
        if single:
            columns["dimension"] = np.array([int(group[0]) for group in self.groups])
        else:
            columns["dimensions"] = [" ".join(map(str, group.tolist())) for group in self.groups]
        columns["score"] = self.scores
        for name in (
            "importance",
            "ci_low",
            "ci_high",
            "p_value",
            "q_value",
            "fcr_low",
            "fcr_high",
            "log_loss_importance",
            "log_loss_p_value",
            "log_loss_unreliable",
            "alone_score",
        ):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done (``reader``, ``refit``, ``fill``, ``score``), sizes, ``full_score``,
            ``n_needed`` and ``n_harmful`` (q <= 0.05), up to ten of these, the most important first
            (``most_needed``, ``most_harmful``: lists of dimensions), up to ten undecided groups of
            the lowest and of the highest importance (``lowest_undecided``, ``highest_undecided``),
            ``certified_share``, ``constant_dimensions``, ``basis``, what intervals and p-values
            mean, cautions and, where redundancy hides what a group does, ``hidden_groups`` and a
            warning.
        """
        lowest = [g for g in self.undecided[:_N_NAMED] if self.importance[g] < 0]
        highest = [g for g in self.undecided[::-1][:_N_NAMED] if self.importance[g] > 0]
        rough = 0 if self.log_loss_unreliable is None else int(self.log_loss_unreliable.sum())
        warning = {
            "hidden_groups": [group.tolist() for group in self.hidden_groups],
            "warning": "Redundant dimensions stand in for each other: these groups are needed, "
            "none of their dimensions is. Ablate groups.",
        }
        return {
            "reader": self.reader,
            "refit": self.refit,
            "fill": self.fill,
            "score": self.score,
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_dimensions": self.n_dimensions,
            "n_groups": len(self),
            "full_score": self.full_score,
            "n_needed": len(self.needed),
            "n_harmful": len(self.harmful),
            "most_needed": [self.groups[g].tolist() for g in self.needed[:_N_NAMED]],
            "most_harmful": [self.groups[g].tolist() for g in self.harmful[:_N_NAMED]],
            "lowest_undecided": [self.groups[g].tolist() for g in lowest],
            "highest_undecided": [self.groups[g].tolist() for g in highest],
            "certified_share": self.certified_share,
            "constant_dimensions": self.constant.tolist(),
            **({"n_clusters": self.n_clusters} if self.n_clusters else {}),
            "intervals": self._what_varies(),
            "p_values": self._what_tests(),
            "n_log_loss_unreliable": rough,
            **({"caution": self.caution} if self.caution else {}),
            **(warning if self.hidden_groups else {}),
        }

    def _what_varies(self) -> str:
        rows = "test samples"
        if self.n_clusters:
            rows = f"clusters of test samples ({self.n_clusters})"
        if self.resample == "test":
            return f"95 %, over {rows}, given the train split and the fitted reader."
        return (
            f"95 %, over {rows} and over train splits of this size, by a jackknife over at most "
            f"{N_BLOCKS} blocks of train."
        )

    def _what_tests(self) -> str:
        said = {
            "accuracy": "Exact: McNemar's test; with clusters, signs of whole clusters flipped.",
            "balanced_accuracy": "The larger of that of flipped signs and that of the interval.",
            "log_loss": "Those that the bootstrap-t intervals invert; "
            f"below {2 * RESOLVED / (self.n_bootstrap + 1):.2g} Student's t goes on for the draws."
            if self.n_bootstrap >= FEWEST_DRAWS
            else "Student's t.",
        }[self.score]
        if self.resample == "train":
            said = "Student's t, one degree of freedom fewer than blocks of train."
        return (
            f"{said} A log-loss is unreliable where fewer than {FEW_DIFFERENCES} rows differ or "
            f"the skewness is beyond {LARGEST_SKEWNESS:g}."
        )


def ablate(
    train: Representation,
    test: Representation,
    *,
    reader: str = "knn",
    refit: bool | None = None,
    fill: str | None = None,
    score: str = "accuracy",
    groups: GroupsLike | None = None,
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    resample: str = "test",
    clusters: ClustersLike = None,
    alone: bool = False,
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    memory: float | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Score a reader of ``train`` on ``test`` without each dimension, or each group of them.

    Parameters
    ----------
    train, test : Representation
        Labelled splits of the same D dimensions. The reader is fitted on ``train`` alone.
    reader : {"knn", "ridge", "logistic"}, default="knn"
        Votes of the k nearest train rows by cosine similarity; ridge regression of one-hot
        classes; multinomial logistic regression. The last two standardise the features on train.
    refit : bool, optional
        Fit again without the group (default for knn and ridge, whose answer is that of a real
        refit), or freeze the weights (default for logistic). kNN has nothing to freeze.
    fill : {"mean", "zero"}, optional
        What a frozen reader sees in place of the group: the train mean (the default) or raw zero.
    score : {"accuracy", "balanced_accuracy", "log_loss"}, default="accuracy"
        Balanced: mean over the classes of test of the share predicted. Log-loss, in nats: vote
        shares smoothed after Laplace for kNN; for ridge a softmax whose temperature minimises the
        log-loss of the leave-one-out logits of train (at most 10,000 rows of it).
    groups : sequence of index arrays, or ndarray of shape (D,) of int, optional
        Dimensions removed together, or one group id a dimension; by default each dimension alone.
    k : int, default=5
        kNN: neighbours that vote, 1 <= k <= N_train.
    temperature : float, default=1.0
        kNN: > 0; a vote is ``exp((s - s_max) / temperature)``.
    penalty : float, default=1e-3
        Ridge: > 0; ``penalty * N_train * I`` is added.
    resample : {"test", "train"}, default="test"
        What the intervals let vary: the test samples, given this reader, or also the train split.
        ``"train"`` needs ``reader="ridge"`` and accuracy or log-loss; it is conservative for
        accuracy, and fits the reader 20 times more.
    clusters : str, ndarray of shape (N_test,), or pair of ndarray, optional
        Rows that belong together: a factor's name that both splits have, one value a test row, or
        values of train and of test. By default rows are independent.
    alone : bool, default=False
        Also score a reader of each group alone (``alone_score``): one fit a group.
    n_bootstrap : int, default=1000
        Bootstrap samples for the log-loss, >= 1; fewer than 199 leave Student's t.
    seed : int, default=0
        Draws bootstrap samples, sign flips, blocks of train and the logistic reader's held-out
        rows.
    device : str, default="cpu"
        Where kNN searches.
    memory : float, optional
        GB that kNN's search may take beside the features; it changes the time, not the result.
    progress : callable, optional
        Called as ``progress(done, total)`` during the long part.

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
        If it would not fit into the memory that is free; the sentence says what would.

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
    >>> features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> split = Representation(features, labels=np.array([0, 0, 1, 1]))
    >>> ablation = ablate(split, split, reader="knn", k=1)
    >>> ablation.full_score, ablation.importance.tolist()
    (1.0, [0.5, 0.0])
    """
    check_choice("score", score, SCORES)
    _check_resample(resample, reader, score)
    reading = Reading.of(
        reader,
        refit=refit,
        fill=fill,
        k=k,
        temperature=temperature,
        penalty=penalty,
        seed=seed,
        device=device,
        memory=memory,
    )
    classes, bank, queries = coded(train, test, "ablate")
    chosen = None if groups is None else checked_groups(groups, train.n_dimensions)
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be >= 1; got {n_bootstrap}.")
    ids = cluster_ids_of_pair(train, test, clusters)
    test_ids = ids[1]
    n_groups = train.n_dimensions if chosen is None else len(chosen)
    foresee(
        f"ablate {reading.in_memory}{' resampled' if resample == 'train' else ''}",
        Shapes(len(train), len(test), train.n_dimensions, n_groups, budget=memory),
        device=device if reader == "knn" else "cpu",
    )
    together = _worth_a_look(train, chosen, reading)
    apart = reading.reader == "knn" and len(test) > _N_LOOKED_AT
    parts = [chosen, *([together] if together and not apart else [])]
    found = reading.outcomes(bank, queries, parts, progress)
    truth = queries.codes

    def over_train() -> tuple[np.ndarray, np.ndarray, int]:
        return spread_over_train(reading, bank, queries, chosen, ids, seed, progress)

    measured = measure(
        found[0],
        truth,
        len(classes),
        score,
        n_bootstrap=n_bootstrap,
        seed=seed,
        clusters=test_ids,
        over_train=over_train if resample == "train" else None,
    )
    hidden: tuple[np.ndarray, ...] = ()
    if together and apart:
        rows = np.random.default_rng(seed).choice(len(test), _N_LOOKED_AT, replace=False)
        some = reading.outcomes(bank, Split(queries.features[rows], truth[rows]), [together])[0]
        known = None if test_ids is None else test_ids[rows]
        hidden = _hidden(some, together, truth[rows], known, measured)
    elif together:
        hidden = _hidden(found[1], together, truth, test_ids, measured)
    caution = caution_of(test, test_ids)
    if caution:
        warnings.warn(caution, UserWarning, stacklevel=2)
    removed = tuple(singles(train.n_dimensions) if chosen is None else chosen)
    return Ablation(
        reader=reader,
        refit=reading.refit,
        fill=reading.fill,
        score=score,
        **measured,
        groups=removed,
        classes=classes,
        constant=Standardiser.fit(train.features, train.precision).constant,
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        basis=basis_of(train),
        sample=sample_of(test),
        hidden_groups=hidden,
        certified_share=found[0].certified_share,
        alone_score=alone_scores(reading, bank, queries, removed, score) if alone else None,
        resample=resample,
        n_clusters=0 if test_ids is None else len(np.unique(test_ids)),
        n_bootstrap=n_bootstrap,
        caution=caution,
    )


def _check_resample(resample: str, reader: str, score: str) -> None:
    """Refuse to vary train where the readers fitted without a block would not be exact and fast."""
    check_choice("resample", resample, RESAMPLES)
    if resample == "train" and (reader != "ridge" or score == "balanced_accuracy"):
        raise ValueError(
            "resample must be 'test' unless reader is 'ridge' and score is 'accuracy' or "
            f"'log_loss'; got 'train' with reader {reader!r} and score {score!r}."
        )


def _worth_a_look(
    train: Representation, chosen: list[np.ndarray] | None, reading: Reading
) -> list[np.ndarray]:
    """Find the groups whose members may stand in for each other, each taken alone."""
    if chosen is not None or (reading.reader == "logistic" and reading.refit):
        return []
    return [
        group
        for group in redundant_groups(train.features, precision=train.precision)
        if len(group) > 1
    ]


def _hidden(
    outcomes: Outcomes,
    groups: list[np.ndarray],
    truth: np.ndarray,
    clusters: np.ndarray | None,
    measured: dict[str, Any],
) -> tuple[np.ndarray, ...]:
    """Find the groups that are needed although none of their dimensions is, each taken alone."""
    change = changes(outcomes, truth)
    p_value = paired_test(change, clusters) * len(groups)
    needed = (measured["q_value"] <= SIGNIFICANT) & (measured["importance"] > 0)
    return tuple(
        group
        for group, p, gain in zip(groups, p_value, change.sum(axis=0), strict=True)
        if p <= SIGNIFICANT and gain > 0 and not needed[group].any()
    )
