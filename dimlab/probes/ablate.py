"""Ablation: what a reader loses when a dimension is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.kernels.balanced import balanced_change, balanced_interval, balanced_test
from dimlab.kernels.clustered import paired_interval, paired_test
from dimlab.kernels.collinearity import redundant_groups
from dimlab.kernels.means import StudentisedMeans
from dimlab.memory import Shapes, foresee
from dimlab.probes._outcomes import Outcomes, Progress, Split
from dimlab.probes._reading import (
    GroupsLike,
    Reading,
    basis_of,
    check_choice,
    checked_groups,
    coded,
    sample_of,
    singles,
)
from dimlab.readers import Standardiser
from dimlab.representation import Representation

SCORES = ("accuracy", "balanced_accuracy", "log_loss")
_N_SIGN_FLIPS = 9_999
_LOSS_SEED = 20_131  # signs of their own: the other draws stay what they were
_SIGNIFICANT = 0.05
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
        other thing.
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

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def needed(self) -> np.ndarray:
        """Groups with q <= 0.05 and positive importance, most important first; (n,) int."""
        order = np.argsort(-self.importance.round(_DECIMALS), kind="stable")
        return order[(self.q_value[order] <= _SIGNIFICANT) & (self.importance[order] > 0)]

    @property
    def harmful(self) -> np.ndarray:
        """Groups with q <= 0.05 and negative importance, most harmful first; (n,) int."""
        order = np.argsort(self.importance.round(_DECIMALS), kind="stable")
        return order[(self.q_value[order] <= _SIGNIFICANT) & (self.importance[order] < 0)]

    def to_frame(self) -> Any:
        """Return one row a group, in the order of the call.

        Returns
        -------
        pandas.DataFrame
            ``group``; ``dimension``, or ``dimensions`` (separated by spaces) if some group has not
            exactly one; ``score, importance, ci_low, ci_high, p_value, q_value,
            log_loss_importance, log_loss_p_value``.
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
            "log_loss_importance",
            "log_loss_p_value",
        ):
            columns[name] = getattr(self, name)
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            What was done (``reader``, ``refit``, ``fill``, ``score``), sizes, ``full_score``,
            ``n_needed`` and ``n_harmful`` (q <= 0.05), up to ten groups of the largest and of the
            smallest importance (``most_needed``, ``most_harmful``: lists of dimensions, whatever
            their q), ``certified_share``, ``constant_dimensions``, ``basis``, what the intervals
            mean and, where redundancy hides what a group does, ``hidden_groups`` and a warning.
        """
        order = np.argsort(-self.importance.round(_DECIMALS), kind="stable")
        most_needed = [g for g in order[:_N_NAMED] if self.importance[g] > 0]
        most_harmful = [g for g in order[::-1][:_N_NAMED] if self.importance[g] < 0]
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
            "most_needed": [self.groups[g].tolist() for g in most_needed],
            "most_harmful": [self.groups[g].tolist() for g in most_harmful],
            "certified_share": self.certified_share,
            "constant_dimensions": self.constant.tolist(),
            "intervals": "95 %, over test samples, given the train split and the fitted reader.",
            **(warning if self.hidden_groups else {}),
        }


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
    n_bootstrap : int, default=1000
        Bootstrap samples for the intervals of scores other than accuracy, >= 1.
    seed : int, default=0
        Draws bootstrap samples, sign flips and the logistic reader's held-out rows.
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
        little, or rounding would spoil the ridge's closed form, or the device is not there.
    MemoryError
        If it would not fit into the memory that is free; the sentence says what would.

    Notes
    -----
    kNN: the group leaves both sides, which are normalised again; the result is exactly that of
    brute force. A group of all dimensions leaves rows of zeros: similarity 0 to everything.

    Accuracy: Tango's score interval [1]_ and the exact two-sided McNemar test [2]_. Other scores:
    percentiles of a paired bootstrap over test samples, and 9,999 sign flips. Balanced accuracy
    with no changed outcome, where the bootstrap has no width, takes the root of the summed squares
    of the classes' Tango bounds. q-values control the false discovery rate [3]_. Intervals and
    p-values condition on ``train`` and the fitted reader: another train split is not covered.

    References
    ----------
    .. [1] Tango, Statistics in Medicine 17, 1998.
    .. [2] McNemar, Psychometrika 12, 1947.
    .. [3] Benjamini and Hochberg, JRSS B 57, 1995.

    Examples
    --------
    >>> features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    >>> split = Representation(features, labels=np.array([0, 0, 1, 1]))
    >>> ablation = ablate(split, split, reader="knn", k=1)
    >>> ablation.full_score, ablation.importance.tolist()
    (1.0, [0.5, 0.0])
    """
    check_choice("score", score, SCORES)
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
    n_groups = train.n_dimensions if chosen is None else len(chosen)
    foresee(
        f"ablate {reading.in_memory}",
        Shapes(len(train), len(test), train.n_dimensions, n_groups, budget=memory),
        device=device if reader == "knn" else "cpu",
    )
    together = _worth_a_look(train, chosen, reading)
    apart = reading.reader == "knn" and len(test) > _N_LOOKED_AT
    parts = [chosen, *([together] if together and not apart else [])]
    found = reading.outcomes(bank, queries, parts, progress)
    truth = queries[1]
    measured = _measure(found[0], truth, len(classes), score, n_bootstrap, seed, None)
    hidden: tuple[np.ndarray, ...] = ()
    if together and apart:
        rows = np.random.default_rng(seed).choice(len(test), _N_LOOKED_AT, replace=False)
        some = reading.outcomes(bank, Split(queries.features[rows], truth[rows]), [together])[0]
        hidden = _hidden(some, together, truth[rows], measured)
    elif together:
        hidden = _hidden(found[1], together, truth, measured)
    return Ablation(
        reader=reader,
        refit=reading.refit,
        fill=reading.fill,
        score=score,
        **measured,
        groups=tuple(singles(train.n_dimensions) if chosen is None else chosen),
        classes=classes,
        constant=Standardiser.fit(train.features, train.precision).constant,
        n_train=len(train),
        n_test=len(test),
        n_dimensions=train.n_dimensions,
        basis=basis_of(train),
        sample=sample_of(test),
        hidden_groups=hidden,
        certified_share=found[0].certified_share,
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
    outcomes: Outcomes, groups: list[np.ndarray], truth: np.ndarray, measured: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """Find the groups that are needed although none of their dimensions is, each taken alone."""
    right = (outcomes.full == truth)[:, None].astype(np.int8)
    change = right - (outcomes.ablated == truth[:, None])
    p_value = paired_test(change) * len(groups)
    needed = (measured["q_value"] <= _SIGNIFICANT) & (measured["importance"] > 0)
    return tuple(
        group
        for group, p, gain in zip(groups, p_value, change.sum(axis=0), strict=True)
        if p <= _SIGNIFICANT and gain > 0 and not needed[group].any()
    )


def _measure(
    outcomes: Outcomes,
    truth: np.ndarray,
    n_classes: int,
    score: str,
    n_bootstrap: int,
    seed: int,
    clusters: np.ndarray | None,
) -> dict[str, Any]:
    """Scores, importance, intervals and p-values from what happened to each test sample."""
    from scipy.stats import false_discovery_control

    losses = outcomes.ablated_loss - outcomes.full_loss[:, None]
    largest = max(
        float(np.ptp([(x.min(), x.max()) for x in (outcomes.full_loss, outcomes.ablated_loss)])),
        np.log(max(2, n_classes)),
    )
    stream = seed if score == "log_loss" else _LOSS_SEED
    means = StudentisedMeans.of(
        losses, clusters, np.random.default_rng(stream), n_bootstrap, scale=largest
    )
    found: dict[str, Any] = {
        "log_loss_importance": means.mean,
        "log_loss_p_value": means.p_value,
    }
    if score == "log_loss":
        per_class = _per_class(losses, truth, n_classes)
        full_score = float(outcomes.full_loss.mean())
        low, high = means.interval()
        found |= {"importance": means.mean, "scores": full_score + means.mean}
        found |= {"p_value": means.p_value}
    else:
        right = (outcomes.full == truth).astype(np.int8)
        change = right[:, None] - (outcomes.ablated == truth[:, None])
        per_class = _per_class(change, truth, n_classes)
        if score == "accuracy":
            full_score = float(right.mean())
            scores = (outcomes.ablated == truth[:, None]).mean(axis=0)
            low, high = paired_interval(change, clusters)
            found |= {"scores": scores, "importance": full_score - scores}
            found |= {"p_value": paired_test(change, clusters)}
        else:
            full_score = float(balanced_change(right, truth))
            importance = balanced_change(change, truth)
            low, high = balanced_interval(change, truth, clusters)
            rng = np.random.default_rng(seed)
            found |= {"scores": full_score - importance, "importance": importance}
            found |= {"p_value": balanced_test(change, truth, clusters, rng, _N_SIGN_FLIPS)}
    return found | {
        "full_score": full_score,
        "ci_low": low,
        "ci_high": high,
        "q_value": false_discovery_control(found["p_value"]),
        "per_class": per_class,
    }


def _per_class(differences: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean difference among the samples of each class, (G, K); NaN for a class without any."""
    per_class = np.full((differences.shape[1], n_classes), np.nan)
    for code in np.unique(truth):
        per_class[:, code] = differences[truth == code].mean(axis=0)
    return per_class
