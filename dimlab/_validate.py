"""Validation: what every measure finds, and claims wrongly, where the truth was planted."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from dimlab._claims import SIGNIFICANT, STUDIES, Claims, Study
from dimlab.kernels.paired import proportion_interval, student_tail
from dimlab.planted import KINDS, PlantedWorld, planted_world
from dimlab.probes._importance import adjusted
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.result import Result, Verdict, column, entry, per, scalar

HOLDS, FALSE, MISSES, UNDECIDED = "holds", "too many false claims", "misses most", "undecided"
_HALF = 0.5  # of what is planted, that a measure is to find
_N_RESEEDED = 2  # worlds that are measured again with another seed
_FEWEST = 10  # scores that have a spread to compare with
_PLANTED, _NOISE = range(2)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Validation(Result):
    """How much of what was planted each measure finds, and how much it claims that is not there.

    References
    ----------
    Those of `validate`, which makes it.

    Examples
    --------
    >>> found = validate(probes=["find_redundancy"], n_worlds=3, n_dimensions=16)
    >>> found.measure[1], found.verdicts()[1], found.recall.tolist()
    ('find_redundancy: duplicates', 'undecided', [1.0, 1.0, 1.0, 1.0])
    >>> found.false_claims[1].round(2).tolist()  # the share, its interval, and the level
    [0.0, 0.0, 0.56, 0.0]
    """

    HEADLINE = ("n_measures", "n_holding", "n_worlds", "n_samples", "n_dimensions")

    n_worlds: int = scalar("Worlds with planted dimensions, and as many of noise, a measure.")
    n_samples: int = scalar("Samples of each split of a world.")
    n_dimensions: int = scalar("Dimensions of a world.")
    measure: tuple[str, ...] = per("measure", "What was measured, and what it claims.")
    planted: tuple[str, ...] = per("measure", "What the worlds have: kinds of `planted_world`.")
    verdict = column(
        lambda self: self.verdicts(),
        doc="`holds`, `too many false claims`, `misses most` or `undecided`.",
    )
    recall: np.ndarray = per(
        "measure",
        "Share of what was planted that is claimed. Of scores alone: that is among as many highest "
        "scores as dimensions were planted.",
    )
    recall_low: np.ndarray = per("measure", "Lower end of its 95 % interval over worlds.")
    recall_high: np.ndarray = per("measure", "Upper end of it.")
    area: np.ndarray = per(
        "measure",
        "Probability that something planted has a higher score than something that is not: the "
        "area under the ROC curve, the mean over worlds. 0.5 is chance.",
    )
    false_discoveries: np.ndarray = per(
        "measure", "Share of the claims in planted worlds that are false."
    )
    false_discoveries_low: np.ndarray = per("measure", "Lower end of its 95 % interval.")
    false_discoveries_high: np.ndarray = per("measure", "Upper end of it.")
    false_draws: np.ndarray = per(
        "measure", "Share of the worlds of noise in which anything is claimed."
    )
    false_draws_low: np.ndarray = per("measure", "Lower end of its 95 % interval.")
    false_draws_high: np.ndarray = per("measure", "Upper end of it.")
    level_of_draws: np.ndarray = per(
        "measure",
        "What both shares, of false discoveries and of worlds of noise, are to be at most; NaN: "
        "nothing is promised.",
    )
    false_units: np.ndarray = per(
        "measure",
        "Share of p-values <= 0.05 in worlds of noise; without p-values, share of the dimensions, "
        "or of whatever else is judged, that are claimed there.",
    )
    false_units_low: np.ndarray = per("measure", "Lower end of its 95 % interval.")
    false_units_high: np.ndarray = per("measure", "Upper end of it.")
    level_of_units: np.ndarray = per("measure", "What that share is to be at most, likewise.")
    q_excess: np.ndarray = per(
        "measure",
        "q-value that a share lies above its level (Benjamini and Hochberg over measures, "
        "Bonferroni over the shares of one); NaN where nothing is promised.",
    )
    reseeding: np.ndarray = per(
        "measure",
        "How far scores move when only the seed of the measure changes, over their standard "
        "deviation over dimensions. 0: not at all. NaN of fewer than ten scores.",
    )
    claims_changed: np.ndarray = per("measure", "Share of the claims that change with the seed.")
    contrast: np.ndarray = per(
        "measure", "Whether it is no claim of dimlab's, and stands there to be seen to fail."
    )

    @property
    def false_claims(self) -> np.ndarray:
        """The share of false claims that is promised to be small, (M, 4): with bounds and level.

        Of worlds of noise; of units where a claim promises something of single units only.
        """
        worlds = ~np.isnan(self.level_of_draws) | np.isnan(self.level_of_units)
        chosen = {True: "draws", False: "units"}
        named = [
            [f"false_{of}", f"false_{of}_low", f"false_{of}_high", f"level_of_{of}"]
            for of in map(chosen.get, worlds.tolist())
        ]
        return np.array([[getattr(self, n)[m] for n in names] for m, names in enumerate(named)])

    @entry
    def n_measures(self) -> int:
        """Measures, without those that are to be seen to fail."""
        return int((~self.contrast).sum())

    @entry
    def n_holding(self) -> int:
        """Measures that find at least half, and claim no more than they may."""
        return len(self._of(HOLDS))

    @entry
    def failing(self) -> dict[str, str]:
        """Measures that do not hold, or of which too little is known, with the reason."""
        said = zip(self.measure, self.verdicts(), self.contrast, strict=True)
        return {name: verdict for name, verdict, out in said if verdict != HOLDS and not out}

    def verdicts(self) -> list[str]:
        """Say of each measure whether it holds.

        Returns
        -------
        list of str
            ``too many false claims``: ``q_excess`` <= 0.05. Else ``misses most``: the interval of
            the recall lies below 0.5; ``holds``: above; ``undecided``: it holds 0.5.
        """
        with np.errstate(invalid="ignore"):
            chosen = [self.q_excess <= SIGNIFICANT, self.recall_high < _HALF,
                      self.recall_low > _HALF]  # fmt: skip
        return np.select(chosen, [FALSE, MISSES, HOLDS], UNDECIDED).tolist()

    def _of(self, verdict: str) -> list[str]:
        said = zip(self.measure, self.verdicts(), self.contrast, strict=True)
        return [name for name, given, out in said if given == verdict and not out]

    def __len__(self) -> int:
        return len(self.measure)


def verdict(result: Validation) -> Verdict:
    """Say whether all measures hold."""
    failing, open_ = [*result._of(FALSE), *result._of(MISSES)], result._of(UNDECIDED)
    because = f"{result.n_holding} of {result.n_measures} hold"
    because += f"; these do not: {', '.join(failing)}" if failing else ""
    because += f"; undecided: {', '.join(open_)}" if open_ else ""
    return Verdict(
        "Do the measures find what is there, and claim nothing else?",
        "no" if failing else "undecided" if open_ else "yes",
        f"{because}.",
        "yes: each finds at least half of what was planted, and none exceeds its level of false "
        "claims (q > 0.05); undecided: the interval of some recall holds 0.5.",
        good="yes",
    )


def validate(
    measures: Mapping[str, Callable[..., Any]] | None = None,
    *,
    planted: str = "needed",
    probes: Sequence[str] | None = None,
    n_samples: int = 300,
    n_dimensions: int = 24,
    n_worlds: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Grade measures where the truth is known: dimlab's own, and any other.

    Parameters
    ----------
    measures : mapping of str to callable, optional
        Measures of your own. ``measure(train, test)`` returns one score a dimension, (D,) floats,
        larger for what is looked for, or one decision, (D,) bool, which may be wrong in 5 % of the
        worlds of noise. Where it has an argument ``seed``, it gets one. Both splits are
        `Representation`.
    planted : str, default="needed"
        What your measures look for: a kind of `planted_world`.
    probes : sequence of str, optional
        Probes of dimlab to grade; by default all, or none where measures of your own are given.
    n_samples : int, default=300
        Samples of each split of a world, >= 100; at least twice the dimensions.
    n_dimensions : int, default=24
        Dimensions of a world, >= 16.
    n_worlds : int, default=10
        Worlds with something planted, and as many of noise, >= 2.
    seed : int, default=0
        Seed of the worlds and of the measures.
    progress : callable, optional
        Called with (worlds measured, worlds in all).

    Returns
    -------
    Validation
        Recall, false claims beside their level, and the noise of reseeding, of each measure.

    Raises
    ------
    ValueError
        If a number is out of range, a probe or a kind is unknown, or a measure does not return one
        number or boolean a dimension.

    Notes
    -----
    A world of noise has the same labels, factor and views, and features that depend on none of
    them. All claims there are false. A claim that rests on q-values, or on the null of a maximum,
    is to be made in at most 5 % of these worlds; rules without chance, such as dead dimensions, in
    none; an interval of 95 % is to lie above the truth for 2.5 % of the units. Intervals of shares
    are Wilson's, divided by the design effect of worlds. Excess is tested exactly for worlds, and
    by Student's t over worlds for other shares.

    References
    ----------
    .. [1] Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
    .. [2] Benjamini and Hochberg, JRSS B 57, 1995.

    Examples
    --------
    >>> def difference_of_means(train, test):
    ...     means = [test.features[test.labels == k].mean(axis=0) for k in range(4)]
    ...     return np.var(means, axis=0)
    >>> found = validate({"means": difference_of_means}, n_worlds=5)
    >>> found.measure, found.recall.tolist(), found.area.round(2).tolist()
    (('means',), [1.0], [1.0])
    """
    least = {"n_samples": (n_samples, max(100, 2 * n_dimensions)), "n_dimensions":
             (n_dimensions, 16), "n_worlds": (n_worlds, 2), "seed": (seed, 0)}  # fmt: skip
    for name, (value, smallest) in least.items():
        if value < smallest:
            raise Refusal(f"{name} must be >= {smallest}; got {value}.")
    known = list(dict.fromkeys(study.probe for study in STUDIES))
    chosen = (known if not measures else []) if probes is None else list(probes)
    for name in chosen:
        if name not in known:
            raise Refusal(f"probes must be some of {', '.join(known)}; got {name!r}.")
    if planted not in KINDS:
        raise Refusal(f"planted must be one of {', '.join(KINDS)}; got {planted!r}.")
    studies = [study for study in STUDIES if study.probe in chosen]
    studies += [_yours(name, each, planted) for name, each in (measures or {}).items()]
    if not studies:
        raise Refusal("measures or probes must name something to grade; got nothing.")
    rows: list[dict[str, Any]] = []
    done, n_all = count(1), len(studies) * (2 * n_worlds + _N_RESEEDED)

    def advance() -> None:
        if progress is not None:
            progress(next(done), n_all)

    for study in studies:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # small worlds on purpose
            rows += _graded(study, n_worlds, (n_samples, n_dimensions), seed, advance)
    columns: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    columns |= {key: tuple(columns[key].tolist()) for key in ("measure", "planted")}
    columns["q_excess"] = adjusted(columns["q_excess"])
    return Validation(n_worlds=n_worlds, n_samples=n_samples, n_dimensions=n_dimensions, **columns)


def _yours(name: str, measure: Callable[..., Any], planted: str) -> Study:
    """Make a study of a measure from outside."""
    takes_seed = "seed" in inspect.signature(measure).parameters

    def run(world: PlantedWorld, seed: int) -> Claims:
        given = {"seed": seed} if takes_seed else {}
        found = np.asarray(measure(world.train, world.test, **given))
        d = world.train.n_dimensions
        if found.shape != (d,) or found.dtype.kind not in "biuf":
            raise Refusal(
                f"measures must return one number or boolean a dimension, ({d},); got "
                f"{found.dtype} of shape {found.shape} from {name!r}."
            )
        truth = world.mask(planted).astype(float)
        if planted == "harmful" and world.planted:  # noise may do some harm too
            truth[~world.mask(planted) & ~world.mask("needed")] = np.nan
        score = np.nan_to_num(found.astype(float), nan=-np.inf)
        return Claims(found if found.dtype == bool else None, score, truth)

    return Study("", name, run, {"needed": 4, planted: 4 if planted == "needed" else 2})


def _graded(
    study: Study, n_worlds: int, size: tuple[int, int], seed: int, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """Look at the claims of one study in planted worlds and in worlds of noise: a row a claim."""

    def looked(kind: int, draw: int, again: int = 0) -> list[Claims]:
        own = np.random.SeedSequence([seed, kind, draw]).generate_state(2)
        world = planted_world(
            study.noise if kind == _NOISE else study.planted, n_samples=size[0],
            n_dimensions=size[1], target=study.target, seed=int(own[0]),
        )  # fmt: skip
        found = study.run(world, int(own[1]) + again)
        advance()
        return [found] if isinstance(found, Claims) else found

    planted, noise = ([looked(kind, draw) for draw in range(n_worlds)] for kind in range(2))
    again = [looked(_PLANTED, draw, again=1) for draw in range(_N_RESEEDED)]
    names = (study.names,) if isinstance(study.names, str) else study.names
    counted = ", ".join(f"{n} {kind}" for kind, n in study.planted.items())
    of_all = {"planted": f"{counted}, {study.target}".removesuffix(", classes")}
    return [
        {
            "measure": name,
            **of_all,
            **_row(study, *([each[c] for each in worlds] for worlds in (planted, noise, again))),
            "contrast": name == study.contrast,
        }
        for c, name in enumerate(names)
    ]


def _row(
    study: Study, planted: list[Claims], noise: list[Claims], again: list[Claims]
) -> dict[str, Any]:
    """Count what one claim finds and claims wrongly; ``again``: other seeds, the first worlds."""
    wrong = [(of.truth == 0)[_claimed(of) & ~np.isnan(of.truth)] for of in planted]
    any_claim = [np.array([_claimed(of)[of.truth == 0].any()]) for of in noise]
    said = [_claimed(of) if of.p_value is None else of.p_value <= SIGNIFICANT for of in noise]
    units = [one[of.truth == 0] for one, of in zip(said, noise, strict=True)]
    judged = {"discoveries": wrong, "draws": any_claim, "units": units}
    level, each = study.level, study.each
    if noise[0].p_value is not None:
        each = SIGNIFICANT
    if noise[0].claimed is None:  # scores alone decide nothing
        judged, level, each = {name: [] for name in judged}, np.nan, np.nan
    tests = [
        _excess(draws, at_most)
        for draws, at_most in zip(judged.values(), (level, level, each), strict=True)
        if not np.isnan(at_most)
    ]
    shares = {"recall": _share([_claimed(of)[of.truth == 1] for of in planted])}
    shares |= {f"false_{name}": _share(draws) for name, draws in judged.items()}
    pairs = list(zip(planted, again, strict=False))
    return {
        **{
            f"{name}{end}": value
            for name, share in shares.items()
            for end, value in zip(("", "_low", "_high"), share, strict=True)
        },
        "area": _mean([_area(of) for of in planted]),
        "level_of_draws": level,
        "level_of_units": each,
        "q_excess": min(1.0, len(tests) * min(tests)) if tests else np.nan,
        "reseeding": _mean([_movement(one.score, two.score) for one, two in pairs]),
        "claims_changed": _mean([np.mean(_claimed(one) != _claimed(two)) for one, two in pairs]),
    }


def _claimed(found: Claims) -> np.ndarray:
    """Return what is claimed; of scores alone as many highest ones as were planted."""
    if found.claimed is not None:
        return np.asarray(found.claimed, dtype=bool)
    score = np.where(np.isnan(found.truth), -np.inf, found.score)
    highest = np.argsort(-score, kind="stable")[: int((found.truth == 1).sum())]
    return np.isin(np.arange(len(score)), highest)


def _mean(values: Sequence[float]) -> float:
    known = [each for each in values if not np.isnan(each)]
    return float(np.mean(known)) if known else np.nan


def _area(found: Claims) -> float:
    """Area under the ROC curve; NaN where all units are alike."""
    from scipy.stats import mannwhitneyu

    there, absent = found.score[found.truth == 1], found.score[found.truth == 0]
    if len(there) == 0 or len(absent) == 0:
        return np.nan
    return float(mannwhitneyu(there, absent).statistic / (len(there) * len(absent)))


def _movement(first: np.ndarray, second: np.ndarray) -> float:
    """Root mean square movement of scores of two seeds, each, over their standard deviation."""
    known = np.isfinite(first) & np.isfinite(second)
    spread = np.std(first[known]) if known.sum() >= _FEWEST else 0.0
    if spread == 0:
        return np.nan
    return float(np.sqrt(np.mean((first - second)[known] ** 2) / 2) / spread)


def _units(draws: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return all outcomes, and the worlds that they are from, unless each world has one."""
    outcomes = np.concatenate([np.zeros(0, bool), *draws]).astype(bool)
    worlds = np.repeat(np.arange(len(draws)), [len(each) for each in draws])
    return outcomes, worlds if len(outcomes) > len(np.unique(worlds)) else None


def _share(draws: Sequence[np.ndarray]) -> list[float]:
    """Return a share with its interval over worlds; NaN where there is nothing to count."""
    outcomes, worlds = _units(draws)
    if len(outcomes) == 0:
        return [np.nan] * 3
    return [float(each) for each in (outcomes.mean(), *proportion_interval(outcomes, worlds))]


def _excess(draws: Sequence[np.ndarray], level: float) -> float:
    """One-sided p-value that a share is at most its level; 1 where there is nothing to count."""
    from scipy.stats import binom

    outcomes, worlds = _units(draws)
    if len(outcomes) == 0 or outcomes.mean() <= level:
        return 1.0
    if worlds is None:
        return float(binom.sf(outcomes.sum() - 1, len(outcomes), level))
    return float(student_tail(outcomes - level, worlds))
