"""What each probe claims of dimensions, and how it is looked at in planted worlds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dimlab.mask import DimensionMask, MaskTrace
from dimlab.planted import PlantedWorld
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.ablate_retrieval import ablate_retrieval
from dimlab.probes.attribute import attribute
from dimlab.probes.bound_risk import bound_risk
from dimlab.probes.compare import compare
from dimlab.probes.confirm_harmful import confirm_harmful
from dimlab.probes.correlate import correlate
from dimlab.probes.decompose import decompose
from dimlab.probes.erase import erase
from dimlab.probes.evaluate import evaluate
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.probes.find_suspects import find_suspects
from dimlab.probes.follow import follow
from dimlab.probes.profile import profile
from dimlab.probes.random_masks import random_masks

SIGNIFICANT = 0.05
_ONE_SIDED = 0.025  # that an interval of 95 % lies above the truth
_N_DRAWS = 199  # of bootstraps and permutations


class Claims(NamedTuple):
    """What a measure says of U units in one world: dimensions, or whatever it speaks of."""

    claimed: np.ndarray | None  # (U,) bool; None: the measure decides nothing
    score: np.ndarray  # (U,) larger: rather what is looked for
    truth: np.ndarray  # (U,) 1: planted, 0: certainly not, NaN: neither
    p_value: np.ndarray | None = None  # (U,) of each unit, not adjusted


Run = Callable[[PlantedWorld, int], "Claims | list[Claims]"]  # of a world, with a seed


@dataclass(frozen=True)
class Study:
    """One call of a probe, what it claims, and what that promises where nothing is planted."""

    probe: str
    names: str | tuple[str, ...]  # of the claims
    run: Run
    planted: Mapping[str, int]
    level: float = SIGNIFICANT  # share of worlds of noise with any claim; NaN: not promised
    each: float = np.nan  # share of the units of noise that are claimed, where it is promised
    target: str = "classes"
    noise: Mapping[str, int] = field(default_factory=dict)  # planted where nothing is to be found
    contrast: str = ""  # a name that is no claim of dimlab's, and known to fail


def _decided(world: PlantedWorld, kind: str, found: Any, q_value: np.ndarray) -> Claims:
    """Look at dimensions that are needed, or harmful, with q <= 0.05."""
    score = -found.importance if kind == "harmful" else found.importance
    truth = world.mask(kind).astype(float)
    if kind in world.planted and kind == "harmful":  # noise may do some harm too
        truth[~world.mask(kind) & ~world.mask("needed")] = np.nan
    return Claims((q_value <= SIGNIFICANT) & (score > 0), score, truth)


def _ablation(kind: str = "needed", **how: Any) -> Run:
    def run(world: PlantedWorld, seed: int) -> Claims:
        found = ablate(world.train, world.test, n_bootstrap=_N_DRAWS, seed=seed, **how)
        # without an effect R^2 still rises when a dimension of noise leaves the reader
        p_value = None if found.score == "r2" else found.p_value
        return _decided(world, kind, found, found.q_value)._replace(p_value=p_value)

    return run


def _confirmed(world: PlantedWorld, seed: int) -> Claims:
    found = confirm_harmful(world.train, world.test, reader="ridge", seed=seed)
    return _decided(world, "harmful", found, found.q_aggregated)


def _retrieval(world: PlantedWorld, seed: int) -> Claims:
    corpus, queries = np.asarray(world.test.views)
    relevance = np.repeat(np.arange(len(queries) // 2)[:, None], 2, axis=1)  # half: time
    found = ablate_retrieval(
        corpus, queries, relevance, truncate=[1], n_random=1, n_splits=2, n_bootstrap=_N_DRAWS,
        seed=seed,
    )  # fmt: skip
    return _decided(world, "shared", found, found.q_value)._replace(p_value=found.p_value)


def _masks(world: PlantedWorld, seed: int) -> list[Claims]:
    """Judge the best mask on samples that did not choose it, and on those that did."""
    found = random_masks(world.train, world.test, drop=(0.1, 0.25), n_masks=60, seed=seed)
    there = np.full(len(found.drop), float("harmful" in world.planted))
    return [
        Claims(found.q_value <= SIGNIFICANT, found.gain, there, found.p_value),
        Claims(found.naive_gain > 0, found.naive_gain, there),
    ]


def _dispensable(world: PlantedWorld, seed: int) -> Claims:
    """Remove noise first, then what is needed: from there on nothing may be dispensable."""
    needed = world.mask("needed")
    found = ablate_cumulatively(
        world.train, world.test, order=np.argsort(needed, kind="stable"), margin=0.05, seed=seed
    )
    n_removed = found.n_removed[1:]
    truth = (n_removed <= (~needed).sum()).astype(float)
    return Claims(n_removed <= found.n_dispensable, -found.loss[1:], truth)


def _above_chance(world: PlantedWorld, seed: int) -> Claims:
    rows = world.test._trusted(views=None)
    found = evaluate(world.train, rows, readers=("ridge", "knn"), seed=seed).to_frame()
    chance = np.bincount(np.asarray(world.test.labels)).max() / len(world.test)
    there = np.full(len(found), float("needed" in world.planted))
    return Claims(found["ci_low"].to_numpy() > chance, found["accuracy"].to_numpy(), there)


def _agreement(world: PlantedWorld, seed: int) -> Claims:
    found = correlate(world.test, n_draws=1, seed=seed)
    return Claims(found.diagonal_low > 0, found.diagonal, world.mask("shared").astype(float))


def _dependence(world: PlantedWorld, seed: int) -> Claims:
    found = correlate(world.test, within=True, n_draws=_N_DRAWS, seed=seed)
    beyond = found.off_diagonal_rms > found.null_band["off_diagonal_rms"][1]
    there = np.array([float("group" in world.planted)])
    return Claims(np.array([beyond]), np.array([found.off_diagonal_rms]), there)


def _lost_rank(world: PlantedWorld, seed: int) -> Claims:
    """Each of D directions, the largest first: whether it is missing."""
    found = decompose(world.test._trusted(views=None), centred=True, seed=seed)
    n_lost = sum(len(world.planted.get(kind, ())) // size for kind, size in
                 (("dead", 1), ("copy", 2), ("sum", 4)))  # fmt: skip
    place = np.arange(len(found.singular_values))
    missing = found.singular_values == 0
    return Claims(missing, -found.singular_values, (place >= len(place) - n_lost).astype(float))


def _redundant(world: PlantedWorld, seed: int) -> list[Claims]:
    """Look at what redundancy says of each dimension; copies are sums of others too."""
    found = find_redundancy(world.test, seed=seed)
    explained = np.nan_to_num(found.r_squared)
    claims = []
    for kind, wider, said, score in (
        ("dead", (), found.dead, found.dead),
        ("copy", (), found.is_duplicate, found.is_duplicate),
        ("sum", ("copy",), np.isinf(found.variance_inflation_factor), explained),
        ("group", ("copy", "sum"), found.is_redundant, explained),
    ):
        truth = world.mask(kind).astype(float)
        for other in wider:
            truth[world.mask(other)] = np.nan
        claims.append(Claims(said, np.asarray(score, dtype=float), truth))
    return claims


def _outliers(world: PlantedWorld, seed: int) -> Claims:
    found = profile(world.test, n_rows=0, seed=seed)
    score = np.abs(found.mean_over_deviation)
    return Claims(found.outlier, score, world.mask("outlier").astype(float))


def _nuisance(world: PlantedWorld, seed: int) -> Claims:
    found = attribute(world.train, world.test, erased=None, n_permutations=_N_DRAWS, seed=seed)
    column = found.factors.index("nuisance")
    truth = world.mask("nuisance").astype(float)
    return Claims(found.flagged, found.effect[:, column], truth, found.p_value[:, column])


def _erased(world: PlantedWorld, seed: int) -> Claims:
    found = erase(
        world.train, world.test, factor="nuisance", n_random=2, n_bootstrap=_N_DRAWS, seed=seed
    )
    named = [w for w, way in enumerate(found.ways) if way != "nothing" and "random" not in way]
    lost, low, _ = found.given_label_lost[named, 0].T
    return Claims(low > 0, lost, np.full(len(named), float("nuisance" in world.planted)))


def _any_weights(world: PlantedWorld) -> np.ndarray:
    """Draw weights of a mask for this world, the same ones for any seed of the measure."""
    rng = np.random.default_rng(np.asarray(world.test.labels)[:12])
    return rng.random(world.train.n_dimensions)


def _suspected(world: PlantedWorld, seed: int) -> Claims:
    found = find_suspects(world.train, world.test, seed=seed)
    truth = world.mask("shortcut").astype(float)
    return Claims((found.taken >= 0.5) & found.confirmed, found.taken, truth)


def _linked(world: PlantedWorld, seed: int) -> Claims:
    """Follow a mask whose weights go with the importance, or with nothing where nothing is."""
    ablation = ablate(world.train, world.test, reader="ridge", n_bootstrap=1)
    weights = _any_weights(world)
    if world.planted:
        weights = 0.5 * weights + 0.5 * (np.argsort(np.argsort(ablation.importance)) / len(weights))
    trace = MaskTrace(np.arange(2), np.stack([np.full(len(weights), 0.5), weights]))
    found = follow(trace, ablation=ablation, n_bootstrap=499, n_permutations=499, seed=seed)
    link = next(each for each in found.links if each.mask == "learned")
    claimed = np.array([link.verdict in ("agrees", "contradicts")])
    there = np.array([float(bool(world.planted))])
    return Claims(claimed, np.array([link.correlation]), there, np.array([link.p_value]))


def _bounded(world: PlantedWorld, seed: int) -> Claims:
    """Weigh dimensions by what they are, or at random, and compare with permuted weights."""
    weights = 0.4 * _any_weights(world) + 0.6 * world.mask("needed")
    found = bound_risk(
        world.test, mask=DimensionMask(weights), n_negatives=[16], n_bootstrap=2, seed=seed
    )
    p_value = np.array([found.p_value("cross_entropy")])
    there = np.array([float("needed" in world.planted)])
    return Claims(p_value <= SIGNIFICANT, -p_value, there, p_value)


def _compared(world: PlantedWorld, seed: int) -> Any:
    """Compare one view with the other, whose dimensions are in another order."""
    order = np.random.default_rng(len(world.planted)).permutation(world.train.n_dimensions)
    first, second = np.asarray(world.test.views)
    return compare({"one": first, "other": second[:, order]}, seed=seed), order


def _matched(world: PlantedWorld, seed: int) -> Claims:
    found, order = _compared(world, seed)
    match = found.match["other"]
    beyond = match > found.match_null["other"]
    truth = world.mask("shared")[order].astype(float)
    # a dimension that is matched with another one is not found
    beyond &= (found.partner["other"] == order) | (truth == 0)
    return Claims(beyond, match, truth)


def _different(world: PlantedWorld, seed: int) -> Claims:
    """Compare the rank of the features with that of other rows of noise."""
    found = compare(
        {"noise": np.asarray(world.test.views)[0],
         "features": world.test._trusted(views=None)}, seed=seed,
    )  # fmt: skip
    place = found.statistics.index("effective_rank")
    low, high = found.difference_low[1, place], found.difference_high[1, place]
    there = np.array([float("copy" in world.planted)])
    return Claims(np.array([(low > 0) | (high < 0)]), -found.difference[1, [place]], there)


_NEEDED, _NAIVE = {"needed": 4}, "largest score of random masks"
STUDIES = (
    Study("evaluate", "evaluate: above chance", _above_chance, _NEEDED, np.nan, _ONE_SIDED),
    Study("ablate", "ablate, ridge: needed", _ablation(reader="ridge"), _NEEDED),
    Study("ablate", "ablate, kNN: needed", _ablation(reader="knn"), _NEEDED),
    Study("ablate", "ablate, ridge: harmful", _ablation("harmful", reader="ridge"),
          {**_NEEDED, "harmful": 1}),
    Study("ablate", "ablate, real values: needed", _ablation(reader="ridge"), _NEEDED,
          target="values"),
    Study("ablate", "ablate, several labels: needed", _ablation(reader="ridge"), _NEEDED,
          target="labels"),
    Study("ablate", "ablate, view retrieval: needed",
          _ablation("shared", score="view_retrieval"), {"shared": 12}),
    Study("ablate_cumulatively", "ablate_cumulatively: dispensable", _dispensable, _NEEDED,
          noise=_NEEDED),
    Study("random_masks", ("random_masks: some mask helps", _NAIVE), _masks,
          {**_NEEDED, "harmful": 2}, contrast=_NAIVE),
    Study("confirm_harmful", "confirm_harmful: harmful", _confirmed, {**_NEEDED, "harmful": 1}),
    Study("ablate_retrieval", "ablate_retrieval: needed", _retrieval, {"shared": 12}),
    Study("correlate", "correlate: views agree", _agreement, {"shared": 4}, np.nan, _ONE_SIDED),
    Study("correlate", "correlate: dimensions depend", _dependence, {"group": 1}, _ONE_SIDED),
    Study("decompose", "decompose: rank lost", _lost_rank, {"dead": 1, "copy": 1, "sum": 1}, 0.0),
    Study("find_redundancy",
          tuple(f"find_redundancy: {name}" for name in
                ("dead", "duplicates", "sum of others", "shares a group")),
          _redundant, {"dead": 2, "copy": 2, "sum": 1, "group": 1}, 0.0),
    Study("profile", "profile: outlier", _outliers, {"outlier": 2}, 0.0),
    Study("attribute", "attribute: nuisance", _nuisance, {**_NEEDED, "nuisance": 3}),
    Study("erase", "erase: factor lost", _erased, {**_NEEDED, "nuisance": 3}, np.nan, _ONE_SIDED),
    Study("find_suspects", "find_suspects: shortcut", _suspected, {**_NEEDED, "shortcut": 1}),
    Study("follow", "follow: mask and importance", _linked, _NEEDED),
    Study("bound_risk", "bound_risk: mask beats permuted", _bounded, _NEEDED),
    Study("compare", "compare: same dimension", _matched, {"shared": 12}),
    Study("compare", "compare: ranks differ", _different, {"copy": 4}),
)  # fmt: skip
