"""Suspects: directions that a reader relies on and that do not hold on held-out samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from dimlab.cuts import random_half
from dimlab.given import RepresentationLike, as_representation, as_representations
from dimlab.kernels.blocks import blocks
from dimlab.kernels.effects import Label, class_sums, orthonormal, without_class_means
from dimlab.kernels.erasure import Removal, RidgeMoments, first_of_tied
from dimlab.kernels.paired import paired_interval, paired_test_one_sided
from dimlab.probes._reading import How, ReaderLike, Reads, Task, basis_of, check_least, reads
from dimlab.readers.base import Split
from dimlab.readers.ridge import Ridge
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Verdict, column, detail, entry, per, scalar
from dimlab.targets import CLASSES, NAMES

NEEDS: tuple[set[str], ...] = ({"classes", "train"},)
_LEVEL = 0.05
_LEAST = 5  # misread rows: if all were mended, McNemar's one-sided p would be 1 / 32
_RANK = 1e-10  # smaller shares of the largest eigenvalue are rounding
_GONE = 1e-12  # of an axis that lies in the span of directions
_ELEMENTS = 1 << 22
_N_NAMED, _MOST = 5, 0.8  # dimensions of a direction, and the share of it that they make


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Suspects(Reads):
    """S directions along which misread samples differ, in the order in which they are removed.

    References
    ----------
    Those of `find_suspects`, which finds them.

    Examples
    --------
    >>> from dimlab import planted_world
    >>> world = planted_world({"needed": 4, "shortcut": 1}, n_samples=1000, n_dimensions=8)
    >>> found = find_suspects(world.train, world.test)
    >>> found.confirmed, found.n_suspects, found.to_frame()["dimensions"].tolist()
    (True, 1, ['5'])
    >>> world.planted["shortcut"].tolist(), found.taken.round(1).tolist()
    ([5], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    >>> found.remove(world.test).shape
    (1000, 8)
    """

    HEADLINE = ("reader", "n_suspects", "confirmed", "full_score", "score_without")

    full_score: float = scalar("Accuracy with all directions, on the samples that confirm.")
    p_value: float = scalar(
        "One-sided p-value that the removal of all suspects together helps on the samples that "
        "confirm; 1 where there is none."
    )

    @entry
    def n_suspects(self) -> int:
        """S, the directions that were chosen."""
        return len(self)

    @entry
    def confirmed(self) -> bool:
        """Whether the removal of all suspects is confirmed to help (p <= 0.05)."""
        return bool(self.p_value <= _LEVEL)

    @entry
    def score_without(self) -> float:
        """Accuracy without the suspects if they are confirmed, and else with them."""
        return float(self.score[-1]) if self.confirmed else self.full_score

    @column
    def of_suspects(self) -> dict[str, Any]:
        """Number of each suspect, and the few dimensions that most of the direction consists of."""
        named = []
        for weights in np.square(self.directions).T:
            order = np.argsort(-weights, kind="stable")
            n_most = int((np.cumsum(weights[order]) < _MOST).sum()) + 1
            named.append(" ".join(map(str, order[: min(n_most, _N_NAMED)].tolist())))
        return {"suspect": np.arange(len(self)), "dimensions": named}

    association: np.ndarray = per(
        "suspect",
        "Correlation within classes of the activation along the direction with the predicted "
        "class, on samples that did not find it.",
    )
    association_q: np.ndarray = per("suspect", "q-value of it, among all directions tried.")
    score: np.ndarray = per(
        "suspect",
        "Accuracy without the direction and those before it, on the samples that confirm.",
    )
    gain: np.ndarray = per("suspect", "That accuracy less the one with all directions.")
    gain_low: np.ndarray = per("suspect", "Lower end of its 95 % interval.")
    gain_high: np.ndarray = per("suspect", "Upper end of it.")
    n_tried: int = scalar("Directions that were tried.")
    n_differ: int = scalar("Of these, along how many misread samples differ (q <= 0.05).")
    n_misread: int = scalar("Misread samples of test.")
    part_sizes: tuple[int, int, int] = scalar(
        "Samples of test that found the directions, chose among them, and confirmed them."
    )
    n_test_needed: int = scalar(
        "Where so few samples are misread that nothing could be confirmed: the samples that it "
        "takes, at the same share of misread ones. 0 elsewhere.",
        default=0,
    )
    directions: np.ndarray = detail("Orthonormal directions, shape (D, S).")
    centre: np.ndarray = detail("Mean of train, shape (D,).")
    taken: np.ndarray = detail(
        "Share of each dimension that goes with the suspects, in units of its standard deviation: "
        "1 where the axis lies in their span, shape (D,)."
    )

    def __len__(self) -> int:
        return self.directions.shape[1]

    def remove(
        self, representation: RepresentationLike, n_suspects: int | None = None
    ) -> Representation:
        """Project suspects out of a representation.

        Parameters
        ----------
        representation : Representation or array
            Features of the D dimensions that the suspects were found in.
        n_suspects : int, optional
            How many suspects to remove, from the first on, in [0, S]; by default all if they are
            confirmed, and else none.

        Returns
        -------
        Representation
            In float64: every sample has the train mean's activation along the removed directions.
            Views and what is known of the samples stay.

        Raises
        ------
        ValueError
            If the representation has other dimensions or is in another basis, or ``n_suspects``
            is out of range.
        """
        given = as_representation(representation)
        if given.n_dimensions != len(self.centre) or basis_of(given) != self.basis:
            raise Refusal(
                f"representation must have {len(self.centre)} dimensions in the basis "
                f"{self.basis}, as those that the suspects were found in; got "
                f"{given.n_dimensions} in the basis {basis_of(given)}."
            )
        count = len(self) * self.confirmed if n_suspects is None else n_suspects
        if not 0 <= count <= len(self):
            raise Refusal(f"n_suspects must lie in [0, {len(self)}]; got {n_suspects}.")
        removed = self.directions[:, :count]
        gone = np.square(removed).sum(axis=1) > 1 - _GONE  # but for rounding

        def behind(features: np.ndarray) -> np.ndarray:
            mapped = Removal(removed, removed).of_rows(features - self.centre) + self.centre
            mapped[:, gone] = self.centre[gone]
            return mapped

        views = None if given.views is None else np.stack([behind(view) for view in given.views])
        return replace(given, features=behind(given.features), views=views)


def verdict(suspects: Suspects) -> Verdict:
    """Say whether the reader relies on what does not hold on test."""
    n = len(suspects)
    if suspects.confirmed:
        text = (
            f"Without {n} {'directions' if n > 1 else 'direction'}, along which misread samples "
            f"differ from others of their class, the accuracy of the {suspects.reader} reader "
            f"rises from {suspects.full_score:.4f} to {suspects.score_without:.4f} "
            f"({suspects.gain[-1]:+.4f} [{suspects.gain_low[-1]:+.4f}, "
            f"{suspects.gain_high[-1]:+.4f}]) on {suspects.part_sizes[2]:,} samples that did "
            "not choose them."
        )
    elif suspects.n_test_needed:
        text = (
            f"Too few samples are misread ({suspects.n_misread} of {sum(suspects.part_sizes):,}); "
            f"about {suspects.n_test_needed:,} test samples are needed."
        )
    else:
        text = (
            f"Misread samples differ along {suspects.n_differ} of {suspects.n_tried} directions, "
            f"and no removal is confirmed to help the {suspects.reader} reader."
        )
    return Verdict(
        "Does the reader rely on directions that do not hold on the test samples?",
        "yes" if suspects.confirmed else "undecided" if suspects.n_test_needed else "no",
        " ".join(filter(None, [text, suspects.caution])),
        "Yes: the removal of directions that one part of test found, and another chose, helps on "
        "the rest (p <= 0.05); undecided: too few samples are misread for that; else no.",
        tuple(np.flatnonzero(suspects.confirmed & (suspects.taken >= 0.5)).tolist()),
    )


@reads
def find_suspects(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    reader: ReaderLike = "ridge",
    max_directions: int = 8,
    **how: Unpack[How],
) -> Suspects:
    """Find directions that mislead a reader on held-out samples, without a table of factors.

    Parameters
    ----------
    max_directions : int, default=8
        Directions to try at most, >= 1.

    Returns
    -------
    Suspects
        Directions in the order of their removal, with the accuracy without them.

    Raises
    ------
    ValueError
        As `ablate`, if labels are no classes, or ``max_directions`` is not positive.
    MemoryError
        If what must be held does not fit into the memory that is free.

    Notes
    -----
    A reader that learned a shortcut on train, such as the hue of the background, misreads the test
    samples on which the shortcut points to another class. Within a class, the activations of
    misread samples then differ from those of the others. They also do so without any shortcut,
    along directions that tell similar classes apart. What tells the two apart is the removal of the
    direction: it helps in the first case and costs accuracy in the second.

    ``test`` is cut into three parts of a quarter, a quarter and a half, which keep the classes (and
    clusters, if given) together. The first part *finds* directions: those of the largest canonical
    correlation, within the true class, of the features with the class that the reader predicts. The
    second part tests each of them (within-class correlation, one-sided, Benjamini-Hochberg), and
    *chooses*: among those with q <= 0.05, the one whose removal raises the accuracy of the reader,
    fitted again on train, most is removed, and then the next, as long as the accuracy rises. The
    third part *confirms* that the removal of all of them together helps: one test, one-sided
    (McNemar's, or sign flips of whole clusters), so that the probability of a confirmation where no
    removal helps is at most 0.05, whatever was tried before.

    The test samples must contain some on which the shortcut fails: where it holds as often as on
    train, its removal costs accuracy, and where it misleads all samples of a class alike, nothing
    tells them apart; neither is found. A direction is removed as LEACE [1]_
    does: for linear readers nothing else is lost. Errors as a signal of unknown subgroups are due
    to [2]_ and [3]_.

    References
    ----------
    .. [1] Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023.
    .. [2] Liu et al., "Just train twice: improving group robustness without training group
       information", ICML 2021.
    .. [3] Eyuboglu et al., "Domino: discovering systematic errors with cross-modal embeddings",
       ICLR 2022.

    Examples
    --------
    >>> from dimlab import planted_world
    >>> world = planted_world({"needed": 4, "shortcut": 1}, n_samples=1000, n_dimensions=8)
    >>> found = find_suspects(world.train, world.test)
    >>> found.full_score < found.score_without, np.abs(found.directions[:, 0]).argmax().item()
    (True, 5)
    """
    train, test = as_representations(train=train, test=test).values()
    check_least(1, max_directions=max_directions)
    task = Task.of("find_suspects", train, test, reader, **how)
    if task.kind != CLASSES:
        raise Refusal(f"find_suspects needs labels that are classes; got {NAMES[task.kind]}.")
    task = task.holding(8 * test.n_dimensions * (2 * len(test) + 4 * test.n_dimensions))
    rng = np.random.default_rng(task.run.seed)
    finding, choosing, confirming = _parts(task.test, rng)
    behind = _Behind(task)
    first = behind.predicted(np.empty((train.n_dimensions, 0)))
    right = first == task.test.target
    said: dict[str, Any] = {
        **task.said,
        "centre": behind.joint.mean,
        "full_score": float(right[confirming].mean()),
        "n_misread": int((~right).sum()),
        "part_sizes": (int(finding.sum()), int(choosing.sum()), int(confirming.sum())),
    }
    needed = _samples_needed(~right, (choosing, confirming), task.test.clusters)
    tried = _Tried.of(task.test, first, finding, behind.within, 0 if needed else max_directions)
    association, q_value = tried.tested(task.test, first, choosing)
    chosen = _chosen(behind, right, choosing, tried.patterns, np.flatnonzero(q_value <= _LEVEL))
    steps = [right, *(step for _, step in chosen)]
    places = [place for place, _ in chosen]
    clusters = None if task.test.clusters is None else task.test.clusters[confirming]
    gained = [step[confirming].astype(np.int8) - right[confirming] for step in steps[1:]]
    bounds = np.reshape([paired_interval(each, clusters) for each in gained], (-1, 2))
    p_value = 1.0 if not gained else float(paired_test_one_sided(gained[-1], clusters))
    directions = _in_order(tried.patterns[:, places])
    return Suspects(
        **said,
        p_value=p_value,
        association=association[places],
        association_q=q_value[places],
        score=np.array([step[confirming].mean() for step in steps[1:]]),
        gain=np.array([each.mean() for each in gained]),
        gain_low=bounds[:, 0],
        gain_high=bounds[:, 1],
        n_tried=tried.patterns.shape[1],
        n_differ=int((q_value <= _LEVEL).sum()),
        n_test_needed=needed,
        directions=directions,
        taken=_taken(directions, behind.joint.left_by(None)[0]),
    )


def _parts(test: Split, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut test into a quarter that finds, a quarter that chooses and a half that confirms."""
    confirming = random_half(test.target, rng, clusters=test.clusters)
    rest = np.flatnonzero(~confirming)
    clusters = None if test.clusters is None else test.clusters[rest]
    finding = np.zeros(len(confirming), dtype=bool)
    finding[rest[random_half(test.target[rest], rng, clusters=clusters)]] = True
    return finding, ~finding & ~confirming, confirming


def _samples_needed(
    misread: np.ndarray, parts: tuple[np.ndarray, ...], clusters: np.ndarray | None
) -> int:
    """Find from how many samples on enough are misread in each part; 0 where enough are."""
    ids = np.arange(len(misread)) if clusters is None else clusters
    fewest = min(len(np.unique(ids[misread & part])) for part in parts)
    return 0 if fewest >= _LEAST else int(np.ceil(len(misread) * _LEAST / max(1, fewest)))


class _Behind:
    """The reader, fitted again on train behind the removal of directions."""

    def __init__(self, task: Task) -> None:
        features, codes, precision = task.train.features, task.train.target, task.run.precision
        nothing = np.empty((len(features), 0))
        self.within = RidgeMoments.of(features, nothing, precision, within=Label.of(codes))
        self.joint = RidgeMoments.of(features, nothing, precision, codes=codes)
        self.task = task.settled()

    def predicted(self, patterns: np.ndarray) -> np.ndarray:
        """Predict the class (N_test,) of the test rows without the span of patterns (D, P)."""
        directions = _in_order(patterns)
        removal = Removal(directions, directions) if patterns.shape[1] else None
        train, test = self.task.train, self.task.test
        if not isinstance(self.task.reader, Ridge):
            mapped = train._replace(features=self.joint.rows_behind(train.features, removal))
            fitted = self.task.aside(mapped, mapped).fit()
            return fitted.classify(self.joint.rows_behind(test.features, removal))
        weights = self.joint.weights_behind(removal, self.task.reader.penalty)
        found = np.empty(len(test.target), dtype=np.int64)
        for rows in blocks(len(found), _ELEMENTS // max(weights.shape)):
            scores = (test.features[rows].astype(np.float64) - self.joint.mean) @ weights
            scores += self.joint.target_mean
            found[rows] = first_of_tied(scores)
        return found


@dataclass(frozen=True, eq=False)
class _Tried:
    """Directions along which the predicted class goes with the features within the true class."""

    patterns: np.ndarray  # (D, P): what of the features goes along with each
    functionals: np.ndarray  # (D, P): what reads it
    loadings: np.ndarray  # (P, K) of the predicted class

    @classmethod
    def of(
        cls, test: Split, predicted: np.ndarray, rows: np.ndarray, within: RidgeMoments, most: int
    ) -> _Tried:
        """Find them on some rows of test, with the covariance within the classes of train."""
        deviation, alive = within.left_by(None)
        unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=alive)
        deviation = np.where(alive, deviation, 0.0)
        values, vectors = np.linalg.eigh(unit[:, None] * within.gram * unit / within.n_samples)
        kept = values > _RANK * max(float(values[-1]), 1e-300)
        root, vectors = np.sqrt(values[kept]), vectors[:, kept]
        features = test.features[rows].astype(np.float64)
        centred = without_class_means(
            features, np.unique(test.target[rows], return_inverse=True)[1]
        )
        cross = class_sums(centred, predicted[rows], int(predicted.max()) + 1).T / len(features)
        left, size, right = np.linalg.svd(
            (vectors / root).T @ (unit[:, None] * cross), full_matrices=False
        )
        some = (size > _RANK * max(float(size.max(initial=0.0)), 1e-300))[:most]
        left, right = left[:, :most][:, some], right[:most][some]
        return cls(
            deviation[:, None] * ((vectors * root) @ left),
            unit[:, None] * ((vectors / root) @ left),
            right,
        )

    def tested(
        self, test: Split, predicted: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Correlate activations with the predicted class on other rows; values and q-values."""
        from scipy.stats import false_discovery_control

        if not self.patterns.shape[1]:
            return np.empty(0), np.empty(0)
        codes = np.unique(test.target[rows], return_inverse=True)[1]
        activations = without_class_means(test.features[rows] @ self.functionals, codes)
        answers = without_class_means(self.loadings.T[predicted[rows]], codes)
        products = activations * answers
        spread = np.sqrt((activations**2).mean(axis=0) * (answers**2).mean(axis=0))
        correlation = np.divide(
            products.mean(axis=0), spread, out=np.zeros_like(spread), where=spread > 0
        )
        clusters = None if test.clusters is None else test.clusters[rows]
        p_value = paired_test_one_sided(products, clusters)
        return correlation, false_discovery_control(np.where(spread > 0, p_value, 1.0))


def _chosen(
    behind: _Behind,
    right: np.ndarray,
    rows: np.ndarray,
    patterns: np.ndarray,
    places: np.ndarray,
) -> list[tuple[int, np.ndarray]]:
    """Choose patterns one after the other: the place of each, and which rows are right then."""
    test, progress = behind.task.test, behind.task.run.progress
    found: list[tuple[int, np.ndarray]] = []
    left, done, before = places.tolist(), 0, right
    total = len(left) * (len(left) + 1) // 2
    while left:
        steps = {}
        for place in left:
            own = [*(each for each, _ in found), place]
            steps[place] = behind.predicted(patterns[:, own]) == test.target
            done += 1
            if progress is not None:
                progress(done, total)
        best = max(left, key=lambda place: (steps[place][rows].sum(), -place))
        if steps[best][rows].sum() <= before[rows].sum():
            break
        before = steps[best]
        found.append((best, before))
        left.remove(best)
    if progress is not None and done < total:
        progress(total, total)
    return found


def _in_order(patterns: np.ndarray) -> np.ndarray:
    """Orthonormal directions (D, P), the first p of which span the first p patterns (D, P)."""
    directions = np.linalg.qr(patterns / np.linalg.norm(patterns, axis=0))[0]
    directions[~patterns.any(axis=1)] = 0.0  # not the rounding that a reader would enlarge
    largest = np.abs(directions).argmax(axis=0)
    return directions * np.where(directions[largest, np.arange(len(largest))] < 0, -1.0, 1.0)


def _taken(directions: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Share (D,) of each axis that lies in the span of directions, in units of the deviations."""
    unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return np.square(orthonormal(unit[:, None] * directions)).sum(axis=1)
