"""One answer a dimension: keep, redundant, dead, harmful, nuisance or undecided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dimlab.probes.ablate import Ablation
from dimlab.probes.ablate_retrieval import RetrievalAblation
from dimlab.probes.attribute import Attribution
from dimlab.probes.confirm_harmful import HarmfulDimensions
from dimlab.probes.find_redundancy import Redundancy
from dimlab.probes.profile import Profile
from dimlab.refusals import Refusal, WrongType
from dimlab.result import ABSENT, Result, column, entries, entry, per, scalar
from dimlab.targets import CLASSES, NAMES, NEIGHBOURHOOD, SCORES, VIEW_RETRIEVAL, score_in_words

DEAD, HARMFUL, NUISANCE, REDUNDANT = "dead", "harmful", "nuisance", "redundant"
KEEP, UNDECIDED = "keep", "undecided"
OF_CLASSES = NAMES[CLASSES]
ANSWERS = (DEAD, HARMFUL, NUISANCE, REDUNDANT, KEEP, UNDECIDED)  # in the order of the rules
_READ = (Ablation, RetrievalAblation, HarmfulDimensions, Redundancy, Profile, Attribution)
_N_NAMED = 6  # dimensions of a group that an answer names

KindT = TypeVar("KindT", bound=Result)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class DimensionTable(Result):
    """One answer a dimension, and the number that decided it.

    References
    ----------
    Those of the probes whose results `dimension_table` reads.

    Examples
    --------
    >>> table = DimensionTable(
    ...     kind=np.array(["keep", "redundant", "undecided"]), about=np.array(["", "0", ""]),
    ...     decided_by=np.array(["importance", "adjusted R^2", "importance"]),
    ...     value=np.array([0.2, 0.99, 0.001]), read=("ablation", "redundancy"),
    ... )
    >>> table.to_frame()["answer"].tolist(), table.summary()["n_keep"], len(table)
    (['keep', 'redundant with 0', 'undecided'], 1, 3)
    >>> table.dimensions_of("redundant").tolist()
    [1]
    """

    NAME = "answers"
    HEADLINE = ("n_dimensions", *(f"n_{kind}" for kind in ANSWERS))
    DIMENSIONS = (
        ("answer", "answer", "keep, redundant with ..., dead, harmful, nuisance or undecided"),
        ("decided_by", "decided_by", "what decided the answer"),
        ("value", "value", "the number that decided it"),
    )

    def _leading(self) -> Any:
        """Return the table with dead and harmful dimensions first, and undecided ones last."""
        rank = [ANSWERS.index(kind) for kind in self.kind]
        return self.to_frame().iloc[np.argsort(rank, kind="stable")]

    n_dimensions = entry(len, doc="D, the number of dimensions.")
    dimension = column(lambda self: np.arange(len(self)), doc="Index of each dimension.")
    kind: np.ndarray = per(
        "dimension",
        "`dead`, `harmful`, `nuisance`, `redundant`, `keep` or `undecided`: the first whose rule "
        "applies.",
        column=False,
    )
    about: np.ndarray = per(
        "dimension",
        "What the answer is about: the dimensions that one repeats, or is removed with; the factor "
        "that it carries; empty: nothing more.",
        column=False,
    )

    @column
    def answer(self) -> list[str]:
        """The answer in words, as `redundant with 3, 10`."""
        joined = {REDUNDANT: " with ", HARMFUL: " with ", NUISANCE: ": ", KEEP: ", stands for "}
        said = [
            f"{kind}{joined[kind]}{about}" if about else str(kind)
            for kind, about in zip(self.kind, self.about, strict=True)
        ]
        tasks = [""] * len(said) if self.needed_for is None else self.needed_for
        return [
            f"{each}, needed for {task}" if task and kind == KEEP else each
            for each, kind, task in zip(said, self.kind, tasks, strict=True)
        ]

    decided_by: np.ndarray = per("dimension", "Name of the number that decided.")
    value: np.ndarray = per("dimension", "That number; NaN where nothing was measured.")
    outlier: np.ndarray | None = per(
        "dimension",
        "Whether the dimension dominates the cosine similarity (`profile`).",
        default=None,
    )
    needed_for: np.ndarray | None = per(
        "dimension",
        "What the dimension is needed for (q <= 0.05), such as `real values, retrieval`; empty: "
        "nothing that was measured. None where the only task is classes.",
        default=None,
    )
    read: tuple[str, ...] = scalar("Names of the results that the answers rest on.")
    basis: str = scalar("Basis of the dimensions.", default="axes")

    @entries
    def counts(self) -> dict[str, Any]:
        """Number of dimensions of each answer, by ``n_<answer>``, and their lists."""
        numbers = {f"n_{kind}": int((self.kind == kind).sum()) for kind in ANSWERS}
        return numbers | {kind: self.dimensions_of(kind) for kind in ANSWERS[:-1]}

    @entry
    def outliers(self) -> Any:
        """Dimensions that dominate the cosine similarity; absent where no profile was read."""
        return ABSENT if self.outlier is None else np.flatnonzero(self.outlier).tolist()

    @entries
    def needs(self) -> dict[str, list[int]]:
        """Dimensions that are needed for each task, by ``needed_for_<task>``."""
        found: dict[str, list[int]] = {}
        for d, tasks in enumerate([] if self.needed_for is None else self.needed_for):
            for task in filter(None, tasks.split(", ")):
                found.setdefault(f"needed_for_{task.replace(' ', '_')}", []).append(d)
        return found

    def __len__(self) -> int:
        return len(self.kind)

    def dimensions_of(self, kind: str) -> np.ndarray:
        """Return the dimensions with an answer.

        Parameters
        ----------
        kind : {"dead", "harmful", "nuisance", "redundant", "keep", "undecided"}
            The answer.

        Returns
        -------
        ndarray of shape (n,), int
            Ascending.
        """
        return np.flatnonzero(self.kind == kind)


def dimension_table(*given: Any) -> DimensionTable:
    """Give every dimension one answer, from results that were measured.

    Parameters
    ----------
    *given : Ablation, RetrievalAblation, HarmfulDimensions, Redundancy, Profile, Attribution
        Results of one representation, in any order, at least one; or a mapping such as `examine`
        returns, which may hold others that are not read.

    Returns
    -------
    DimensionTable
        For each dimension the first answer whose rule applies:

        - ``dead``: it does not vary (`find_redundancy`, `profile`, `ablate`);
        - ``harmful``: its removal is confirmed to help, on samples that did not choose it
          (q <= 0.05 of `confirm_harmful`), or on queries that did not (`ablate_retrieval`);
        - ``nuisance: <factor>``: it carries a factor, given the label and all other factors, at
          least as much as the label (`attribute`);
        - ``redundant with ...``: another dimension of its group explains the group better; or the
          others together explain it (adjusted R^2 of at least 0.9), and the subset that keeps the
          variance does without it (`find_redundancy`);
        - ``keep``: a reader is worse without it (q <= 0.05 of `ablate`), or queries find less
          (`ablate_retrieval`), ``needed for`` real values, several labels, view retrieval or
          retrieval where that was read; ``stands for ...``: of a redundant group it explains the
          others best;
        - ``undecided``: none of these is shown. That is no evidence that it is dispensable.

        Beside it, whether it is an outlier (`profile`).

    Raises
    ------
    TypeError
        If something given is no result.
    ValueError
        If there is no result to read, two are of one class, or they are of different
        representations.

    References
    ----------
    Those of the probes.

    Examples
    --------
    >>> from dimlab import Representation, ablate, find_redundancy
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(300) % 2
    >>> features = rng.normal(size=(300, 3)) + 2 * np.outer(labels, [0, 1, 0])
    >>> split = Representation(np.column_stack([features, -features[:, 1]]), labels=labels)
    >>> table = dimension_table(ablate(split, split, reader="ridge"), find_redundancy(split))
    >>> table.to_frame()["answer"].tolist()
    ['undecided', 'keep, stands for 3', 'undecided', 'redundant with 1']
    """
    results = _read(given)
    found = {type(each): each for each in results}
    n_dimensions = _size(results)
    kinds = np.full(n_dimensions, UNDECIDED, dtype=object)
    abouts = np.full(n_dimensions, "", dtype=object)
    names = np.full(n_dimensions, "", dtype=object)
    values = np.full(n_dimensions, np.nan)

    def decide(d: int, kind: str, name: str, value: float, about: str = "") -> None:
        if kinds[d] == UNDECIDED:
            kinds[d], abouts[d], names[d], values[d] = kind, about, name, value

    ablation, redundancy = _only(found, Ablation), _only(found, Redundancy)
    profiled = _only(found, Profile)
    for d in _dead(ablation, redundancy, profiled):
        decide(d, DEAD, "variance", 0.0)
    retrieval = _only(found, RetrievalAblation)
    for harmful in (_only(found, HarmfulDimensions), retrieval):
        for d, value, about in _harmful(harmful):
            decide(d, HARMFUL, "q-value of the confirmed harm", value, about)
    for d, value, about in _nuisances(_only(found, Attribution)):
        decide(d, NUISANCE, "effect of the factor, given the label", value, about)
    for d, kind, value, about in _redundant(redundancy, kinds == UNDECIDED):
        decide(d, kind, "adjusted R^2 on the other dimensions", value, about)
    measured = [each for each in (ablation, retrieval) if each is not None]
    # neighbours change without any dimension that varies, which says that none is needed
    told = [each for each in measured if each.score != NEIGHBOURHOOD]
    tasks = [_task(each) for each in told]
    needed_for = np.full(n_dimensions, "", dtype=object)
    for each, task in zip(told, tasks, strict=True):
        for d in sorted({int(d) for group in each.needed for d in each.groups[group]}):
            needed_for[d] += f", {task}" if needed_for[d] else task
    for kind, read in ((KEEP, told), (UNDECIDED, measured)):
        for each in read:
            for group in each.needed if kind == KEEP else range(len(each)):
                for d in each.groups[group]:
                    about = f"{score_in_words(each.score)} lost without it"
                    decide(int(d), kind, about, float(each.importance[group]))
    return DimensionTable(
        kind=kinds.astype(np.str_),
        about=abouts.astype(np.str_),
        decided_by=names.astype(np.str_),
        value=values,
        read=tuple(_name(each) for each in results),
        outlier=None if profiled is None else profiled.outlier,
        needed_for=needed_for.astype(np.str_) if set(tasks) - {OF_CLASSES} else None,
        basis=_basis(results),
    )


def answers_of(results: Mapping[str, Any]) -> DimensionTable | None:
    """Return the answers of a report: of each class the first result on the axes; None: of none."""
    first: dict[type, Any] = {}
    for each in results.values():
        if isinstance(each, _READ) and each.basis == "axes":
            first.setdefault(type(each), each)
    largest = max(map(_size_of, first.values()), default=0)  # of several encoders one is meant
    chosen = [each for each in first.values() if _size_of(each) == largest]
    return dimension_table(*chosen) if chosen else None


def _read(given: tuple[Any, ...]) -> list[Any]:
    """Return the results to read among those given, each class once."""
    flat: list[Any] = []
    for each in given:
        flat += each.values() if isinstance(each, Mapping) else [each]
    for each in flat:
        if not isinstance(each, Result):
            raise WrongType(
                "dimension_table takes results, such as those of ablate and find_redundancy, or "
                f"the mapping that examine returns; got {type(each).__name__}."
            )
    chosen = [each for each in flat if isinstance(each, _READ)]
    if not chosen:
        named = ", ".join(type(each).__name__ for each in flat) or "none"
        raise Refusal(
            "dimension_table needs a result of ablate, ablate_retrieval, confirm_harmful, "
            f"find_redundancy, profile or attribute; got {named}."
        )
    classes = [type(each) for each in chosen]
    if len(set(classes)) < len(classes):
        twice = next(kind.__name__ for kind in classes if classes.count(kind) > 1)
        raise Refusal(f"results must be one of each class; got several of {twice}.")
    return chosen


def _only(found: Mapping[type, Any], kind: type[KindT]) -> KindT | None:
    result: KindT | None = found.get(kind)
    return result


def _name(result: Result) -> str:
    return type(result).__name__


def _basis(results: list[Any]) -> str:
    """Return the basis that all results are in."""
    bases = {_name(each): each.basis for each in results}
    if len(set(bases.values())) > 1:
        raise Refusal(f"results must be in one basis; got {bases}.")
    return str(next(iter(bases.values())))


def _size(results: list[Any]) -> int:
    """Return D, which all results must share."""
    sizes = {_name(each): _size_of(each) for each in results}
    if len(set(sizes.values())) > 1:
        raise Refusal(f"results must be of the same dimensions; got {sizes}.")
    return next(iter(sizes.values()))


def _size_of(result: Any) -> int:
    """Return D of a result; results of 0.6 show it by their groups alone."""
    groups = getattr(result, "groups", ())
    known = int(result.summary().get("n_dimensions") or 0)
    return max(known, *(int(group.max(initial=-1)) + 1 for group in groups), 0)


def _task(result: Ablation | RetrievalAblation) -> str:
    """Name what a result says that dimensions are needed for."""
    if isinstance(result, RetrievalAblation):
        return "retrieval"
    if result.score == VIEW_RETRIEVAL:
        return score_in_words(result.score)
    return next(NAMES[kind] for kind, scores in SCORES.items() if result.score in scores)


def _listed(dimensions: Any) -> str:
    """Name dimensions, the first few of many."""
    some = ", ".join(str(d) for d in dimensions[:_N_NAMED])
    return some + (f" and {len(dimensions) - _N_NAMED} more" if len(dimensions) > _N_NAMED else "")


def _dead(
    ablation: Ablation | None, redundancy: Redundancy | None, profiled: Profile | None
) -> list[int]:
    dead = set() if ablation is None else set(ablation.constant.tolist())
    for each in (redundancy, profiled):
        dead |= set() if each is None else set(np.flatnonzero(each.dead).tolist())
    return sorted(dead)


def _harmful(
    harmful: HarmfulDimensions | RetrievalAblation | None,
) -> Iterator[tuple[int, float, str]]:
    if harmful is None:
        return
    for group in harmful.confirmed:
        members = harmful.groups[group]
        for d in members:
            about = _listed([other for other in members if other != d])
            yield int(d), float(harmful.q_aggregated[group]), about


def _nuisances(attribution: Attribution | None) -> Iterator[tuple[int, float, str]]:
    if attribution is None:
        return
    for d, word in enumerate(attribution.verdicts()):
        if word == NUISANCE:
            factor = int(attribution.leading[d])
            yield d, float(attribution.effect[d, factor]), attribution.factors[factor]


def _redundant(
    redundancy: Redundancy | None, is_open: np.ndarray
) -> Iterator[tuple[int, str, float, str]]:
    """Dimensions of groups, of which one is kept, and those that the others together explain."""
    if redundancy is None:
        return
    explained = redundancy.adjusted_r_squared
    for members in redundancy.groups:
        eligible = members[is_open[members]]
        if len(members) == 1 or len(eligible) == 0:
            continue
        kept = _representative(redundancy, eligible)
        for d in eligible:
            others = [kept, *(other for other in members if other not in (d, kept))]
            kind, about = (KEEP, others[1:]) if d == kept else (REDUNDANT, others)
            yield int(d), kind, float(explained[d]), _listed(about)
    alone = ~np.isin(np.arange(len(redundancy)), redundancy.subset) & redundancy.is_redundant
    for d in np.flatnonzero(alone):
        yield int(d), REDUNDANT, float(explained[d]), "the others together"


def _representative(redundancy: Redundancy, members: np.ndarray) -> int:
    """Return the member of a group that explains it best; in older results, the first pivot."""
    if redundancy.explains_group is None:
        return int(redundancy.order[np.isin(redundancy.order, members)][0])
    return int(members[redundancy.explains_group[members].round(9).argmax()])
