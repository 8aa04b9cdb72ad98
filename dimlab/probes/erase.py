"""Erasure: what a reader of a factor, and the task, lose when the factor is taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from dimlab.basis import KINDS, fit_basis
from dimlab.clusters import cluster_ids
from dimlab.given import RepresentationLike, as_representations
from dimlab.probes._erasing import (
    DIMENSIONS,
    DIRECTIONS,
    RANDOM_DIMENSIONS,
    RANDOM_DIRECTIONS,
    Readings,
    by_effect,
    in_common_units,
    jobs_of,
    of_heads,
    of_sweep,
    targets_of,
)
from dimlab.probes._reading import (
    AXES,
    SETTINGS,
    How,
    ReaderLike,
    Reads,
    Task,
    basis_of,
    check_choice,
    check_least,
    coded,
    reads,
)
from dimlab.readers.linear import check_penalty
from dimlab.refusals import Refusal
from dimlab.result import Verdict, column, detail, entries, entry, per, scalar
from dimlab.targets import score_in_words, score_of

NEEDS: tuple[set[str], ...] = ({"labels", "train", "factors"},)
_READABLE = 0.01  # R^2 of a factor that a reader finds at all


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Erasure(Reads):
    """What remains of a factor and of the task after each of W ways of removal, on S splits.

    The ways are ``nothing``, then by the factor's ``dimensions``, as many ``random dimensions``,
    its ``directions`` in a fitted basis, as many ``random directions``, ``LEACE`` (all that a
    linear reader of train finds) and ``LEACE given label`` (all that it finds within classes).

    References
    ----------
    Tango, Statistics in Medicine 17, 1998; those of `erase`, which measures it.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> labels, size = np.arange(200) % 2, rng.normal(size=200)
    >>> features = rng.normal(size=(200, 3)) + np.outer(size, [3, 0, 0])
    >>> features += np.outer(labels, [0, 4, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> erasure = erase(split, split, factor="size", n_random=3)
    >>> frame = erasure.to_frame().set_index("way")
    >>> frame["factor_r_squared"].round(1)[["nothing", "dimensions", "LEACE"]].tolist()
    [0.9, 0.0, 0.0]
    >>> erasure.summary()["in_words"][0][:34], list(erasure.tables())
    ('Without 1 dimension (test) R^2 of ', ['sweep'])
    """

    ROWS = "split and way"
    HEADLINE = ("factor", "kind", "reader", "directions_of", "n_random")

    factor: str = scalar("The factor.")
    kind: str = scalar("`continuous`, `periodic` or `categorical`.")
    basis: str = scalar("Basis of the directions.", key="directions_of")
    n_test: tuple[int, ...] = scalar("Samples of each split.")  # type: ignore[assignment] # of each split
    n_random: int = scalar("Draws of the random ways.")
    score: str = scalar("What the task reader is scored by.", default="accuracy")
    dimensions: np.ndarray = scalar(
        "Dimensions that were named, of largest effect on train first, shape (n,)."
    )
    directions: np.ndarray = scalar("The same of directions, shape (n,).")
    ways: tuple[str, ...] = detail("Names of the W ways.")
    n_removed: np.ndarray = per("way", "Number of dimensions or directions that were removed.")
    splits: tuple[str, ...] = detail("`test`, and `in distribution` where one was given.")
    factor_r_squared: np.ndarray = per(
        "way",
        "R^2 of a ridge reader of the factor, clipped at 0; of random ways the mean over draws.",
        shape="(W, S)",
    )
    factor_r_squared_given_label: np.ndarray = per(
        "way", "The same of features and factor without class means.", shape="(W, S)"
    )
    accuracy: np.ndarray = per(
        "way",
        "Accuracy, or `score`, of a task reader fitted again on train after the removal.",
        shape="(W, S)",
    )
    factor_lost: np.ndarray = per(
        "way",
        "Fall of the factor's R^2 against `nothing`, with 95 % bounds: bootstrap over test "
        "samples, of random ways the central 95 % of the draws; `nothing` has none.",
        shape="(W, S, 3)",
    )
    given_label_lost: np.ndarray = per("way", "The same given the label.", shape="(W, S, 3)")
    accuracy_change: np.ndarray = per(
        "way",
        "Rise of it against `nothing`, with 95 % bounds: Tango's of accuracies, else Student's; "
        "of random ways the central 95 % of the draws.",
        shape="(W, S, 3)",
    )
    sweep: Mapping[str, np.ndarray] = detail(
        "One entry a (way, size, split), each of shape (n,): `way, n_removed, split, "
        "factor_r_squared, given_label_r_squared`, and the score by its name. Empty unless the "
        "task reader is ridge."
    )

    @column
    def rows(self) -> dict[str, Any]:
        """One row a (split, way): R^2 and the score, with what they lose and win."""
        columns: dict[str, Any] = {
            "split": np.repeat(self.splits, len(self.ways)),
            "way": np.tile(self.ways, len(self.splits)),
            "n_removed": np.tile(self.n_removed, len(self.splits)),
        }
        given = self.factor_r_squared_given_label
        for value, read, change, changed in (
            ("factor_r_squared", self.factor_r_squared, "factor_lost", self.factor_lost),
            ("given_label_r_squared", given, "given_label_lost", self.given_label_lost),
            (self.score, self.accuracy, f"{self.score}_change", self.accuracy_change),
        ):
            columns[value] = read.T.ravel()
            for end, each in zip(("", "_low", "_high"), np.moveaxis(changed, 2, 0), strict=True):
                columns[change + end] = each.T.ravel()
        return columns

    @entries
    def by_split(self) -> dict[str, Any]:
        """Entry ``splits``: by split and way R^2 and the score, and their changes with bounds."""
        named = {
            "factor_r_squared": self.factor_r_squared, "factor_lost": self.factor_lost,
            self.score: self.accuracy, f"{self.score}_change": self.accuracy_change,
        }  # fmt: skip
        return {
            "splits": {
                split: {
                    way: {name: each[w, s] for name, each in named.items()}
                    for w, way in enumerate(self.ways)
                }
                for s, split in enumerate(self.splits)
            }
        }

    @entry
    def in_words(self) -> list[str]:
        """Sentences that say what follows."""
        sentences, words = [], score_in_words(self.score)
        for way, control in ((DIMENSIONS, RANDOM_DIMENSIONS), (DIRECTIONS, RANDOM_DIRECTIONS)):
            if way not in self.ways:
                sentences.append(
                    f"No {way} carry more of {self.factor} than of the label on train: none "
                    "removed."
                )
                continue
            w, c = self.ways.index(way), self.ways.index(control)
            removed = _counted(self.n_removed[w], way)
            for s, split in enumerate(self.splits):
                lost, change = self.factor_lost[w, s], self.accuracy_change[w, s]
                sentences.append(
                    f"Without {removed} ({split}) R^2 of {self.factor} falls by {lost[0]:.3f} "
                    f"[{lost[1]:.3f}, {lost[2]:.3f}] (random ones "
                    f"{self.factor_lost[c, s, 0]:.3f}), {words} changes by {change[0]:+.4f} "
                    f"[{change[1]:+.4f}, {change[2]:+.4f}] (random ones "
                    f"{self.accuracy_change[c, s, 0]:+.4f})."
                )
        for s, split in enumerate(self.splits):
            if self.factor_r_squared[0, s] < _READABLE:
                sentences.append(
                    f"A linear reader of train tells {self.factor} from no features of {split} "
                    "(R^2 below 0.01 before any removal): what falls by removal says nothing."
                )
        return sentences

    def tables(self) -> dict[str, Any]:
        """Return the sweep over the number of dimensions and directions removed.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``sweep``, empty where the task reader is not ridge.
        """
        import pandas as pd

        return {"sweep": pd.DataFrame(dict(self.sweep))}


def _counted(n: int, way: str) -> str:
    """Write a number of dimensions or directions."""
    return f"{n} {way.removesuffix('s') if n == 1 else way}"


def verdict(erasure: Erasure) -> Verdict:
    """Say whether taking the factor out helps the task on test."""
    way = next((each for each in (DIRECTIONS, DIMENSIONS) if each in erasure.ways), None)
    words = score_in_words(erasure.score)
    rule = (
        f"Yes: the interval of the change of {words} on test lies above 0; no: below; else "
        "undecided."
    )
    question = f"Does taking {erasure.factor} out help the task on test?"
    if way is None:
        text = f"No dimension or direction carries more of {erasure.factor} than of the label."
        return Verdict(question, "undecided", text, rule)
    place = erasure.ways.index(way)
    change, lost = erasure.accuracy_change[place, 0], erasure.factor_lost[place, 0]
    answer = "yes" if change[1] > 0 else "no" if change[2] < 0 else "undecided"
    return Verdict(
        question,
        answer,
        f"Without {_counted(erasure.n_removed[place], way)} {words} changes by {change[0]:+.4f} "
        f"[{change[1]:+.4f}, {change[2]:+.4f}] and R^2 of {erasure.factor} falls by {lost[0]:.3f} "
        f"[{lost[1]:.3f}, {lost[2]:.3f}].",
        rule,
        good="",  # the same answer speaks for the removal and against the representation
    )


@reads
def erase(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    factor: str,
    in_distribution: RepresentationLike | None = None,
    n_removed: int | None = None,
    basis: str = "pca",
    reader: ReaderLike = "ridge",
    n_random: int = 20,
    n_bootstrap: int = 1000,
    **how: Unpack[How],
) -> Erasure:
    """Take a factor out of the features in three ways and measure what is lost, and what gained.

    Parameters
    ----------
    train : Representation
        Labelled rows with the factor, on which everything is chosen and fitted.
    test : Representation
        Labelled rows of the same D dimensions with the factor, on which everything is judged. The
        factor may depend on the label in another way than it does in train.
    factor : str
        Its name.
    in_distribution : Representation, optional
        Held-out samples like train, to be judged beside ``test``.
    n_removed : int, optional
        Dimensions, and directions, to remove: those of largest effect on train. By default all for
        which the effect of the factor is at least 0.01, at least that of the label, and found with
        q <= 0.05 (F test).
    basis : {"pca", "whiten", "varimax", "ica"}, default="pca"
        Directions to choose from, fitted on train.
    reader : str or object, default="ridge"
        Task reader, as in `ablate`, fitted again after each removal.
    penalty : float, default=1e-3
        Ridge, and the reader of the factor: > 0.
    clusters : str, ndarray of shape (N_test,), or pair of ndarray, optional
        Which rows belong together: a factor that every split has, values of the test rows, or of
        train and test rows; with ``in_distribution`` a factor. By default rows are independent.
    n_random : int, default=20
        Draws of as many random dimensions and directions, >= 1.
    n_bootstrap : int, default=1000
        Samples of the bootstrap, >= 1.

    Returns
    -------
    Erasure
        Three ways beside each other, and beside as many random dimensions and directions.

    Raises
    ------
    ValueError
        If labels are missing, D or the basis differs, a split lacks the factor or has it in another
        kind, the factor follows from the label, clusters are arrays beside ``in_distribution``, a
        name is unknown, or a number is out of its range, or the device is not there.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    The factor's targets are its value (continuous), cosine and sine (periodic) or one column a
    category. Its reader is ridge, fitted again behind every removal; *given label* it is fitted and
    judged on features and targets without class means, so it cannot read the factor off the label.
    R^2 is one minus squared error over variance on the judged split, and clipped at 0.

    LEACE [1]_ is the smallest linear change after which no linear reader of train does better than
    a constant: the upper bound of what linear removal can do, and it takes along what of the label
    goes with the factor. *Given label* uses moments within classes, and leaves that.

    The task reader is scored as in `evaluate`: by accuracy, by R^2 of labels that are real values,
    and by mean average precision of several labels a sample. Given such a label, features and
    targets are residuals of a regression on it within each split: of a spline of each real value,
    or a column a label.

    Bounds condition on train and on what was chosen there. With clusters, folds and bootstrap
    samples hold whole clusters, Tango's interval has the variance between them, and the factor is
    tested on means of train clusters unless it varies within them.

    References
    ----------
    .. [1] Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023.

    Examples
    --------
    >>> from dimlab import Representation
    >>> rng = np.random.default_rng(0)
    >>> labels, size = np.arange(300) % 2, rng.normal(size=300)
    >>> features = rng.normal(size=(300, 4)) + np.outer(size, [3, 0, 0, 0])
    >>> features += np.outer(labels, [0, 3, 0, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> result = erase(split, split, factor="size")
    >>> result.dimensions.tolist()
    [0]
    >>> bool(result.factor_lost[1, 0, 0] > 0.8)
    True
    """
    splits = as_representations(train=train, test=test, in_distribution=in_distribution)
    train, test, in_distribution = splits["train"], splits["test"], splits.get("in_distribution")
    penalty, clusters = how.get("penalty", SETTINGS["penalty"]), how.get("clusters")
    check_penalty(penalty)
    if not isinstance(reader, str):  # an object has its own
        how["penalty"] = SETTINGS["penalty"]
    check_choice("basis", basis, KINDS)
    check_least(1, n_random=n_random, n_bootstrap=n_bootstrap)
    check_least(0, seed=how.get("seed"))
    if n_removed is not None and not 1 <= n_removed < train.n_dimensions:
        raise Refusal(
            f"n_removed must lie in 1..{train.n_dimensions - 1}, to leave a dimension; got "
            f"{n_removed}."
        )
    judged = {"test": test}
    if in_distribution is not None:
        if not (clusters is None or isinstance(clusters, str)):
            raise Refusal(
                "clusters must name a factor of every split where in_distribution is given; got "
                "arrays. Add them to factors= of each Representation."
            )
        judged["in distribution"] = in_distribution
    task = Task.of("erase", train, test, reader, **how)
    task = task.holding(33 * train.features.size + 26 * test.features.size)
    train, judged = in_common_units(train, judged)
    kind, targets = targets_of({"train": train, **judged}, factor)
    kind_of_target = how.get("target_kind")
    sides = [coded(train, split, "erase", kind_of_target)[2] for split in judged.values()]
    ids = [task.test.clusters]
    if in_distribution is not None:
        ids.append(cluster_ids(in_distribution, clusters if isinstance(clusters, str) else None))
    seed = task.run.seed
    rng = np.random.default_rng(seed)
    in_train, target, score = task.train.clusters, task.train.target, score_of(None, task.kind)
    orders = {DIMENSIONS: by_effect(train, target, factor, n_removed, in_train, rng)}
    space = fit_basis(train, basis, seed=seed) if basis_of(train) == AXES else None
    if space is not None:
        orders[DIRECTIONS] = by_effect(space.apply(train), target, factor, n_removed, in_train, rng)
    task = task.aside(task.train._replace(features=train.features), sides[0])
    sampled = [(side, targets[name]) for name, side in zip(judged, sides, strict=True)]
    readings = Readings(task, targets["train"], sampled, space, penalty, score)
    pools = {
        DIMENSIONS: train.n_dimensions,
        DIRECTIONS: 0 if space is None else space.directions.shape[1],
    }
    jobs = jobs_of(orders, pools, n_random, readings.in_closed_form, rng)
    taken = []
    for done, job in enumerate(jobs):
        taken.append(readings.fit_behind(job))
        if (progress := how.get("progress")) is not None:
            progress(done + 1, len(jobs))
    done_jobs = list(zip(jobs, taken, readings.read(), strict=True))
    none = np.array([], dtype=np.int64)
    named = basis if space is not None else basis_of(train)
    return Erasure(
        **{**task.said, "basis": named, "n_test": tuple(map(len, judged.values()))},
        factor=factor,
        kind=kind,
        score=score,
        dimensions=orders[DIMENSIONS].chosen,
        directions=orders[DIRECTIONS].chosen if space is not None else none,
        splits=tuple(judged),
        **of_heads([each for each in done_jobs if not each[0].of_sweep], ids, n_bootstrap, rng),
        sweep=of_sweep([each for each in done_jobs if each[0].of_sweep], list(judged), score),
        n_random=n_random,
    )
