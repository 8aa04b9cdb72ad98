"""Judgements over seeds: does a claim hold, does it fail, or is it undecided.

The rule is that of equivalence tests (Lakens, Social Psychological and Personality Science 8,
2017), with Student's 95 % interval over seeds and a smallest effect of interest that is stated
before the runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

_LEVEL = 0.95
_MOST_SEEDS = 10_000
_PLACES = 6  # of the smallest effect: less is the noise of subtracting floats


@dataclass(frozen=True)
class Judgement:
    """An answer to a claim, and the effect that it rests on; a positive effect supports the claim.

    ``answer`` is ``holds``, ``fails`` or ``undecided``. ``effect`` is the mean of ``differences``,
    one a seed; the interval is infinite for one seed. ``n_needed`` is, if undecided, the number
    of seeds that would decide it if mean and spread stayed, or None where even 10,000 would not.
    ``parts`` are other questions that the same runs answer.
    """

    claim: str
    answer: str
    effect: float
    ci_low: float
    ci_high: float
    smallest_effect: float
    unit: str
    differences: tuple[float, ...]
    n_needed: int | None = None
    because: str = ""
    parts: tuple[Judgement, ...] = ()

    @property
    def n_seeds(self) -> int:
        """Return the number of seeds."""
        return len(self.differences)

    @property
    def standard_error(self) -> float:
        """Return the standard error of the effect over seeds; NaN for one seed."""
        if self.n_seeds < 2:
            return float("nan")
        return float(np.std(self.differences, ddof=1) / np.sqrt(self.n_seeds))

    def never_decided(self) -> Judgement:
        """Return the same numbers without an answer, as the small size gives no answers."""
        parts = tuple(part.never_decided() for part in self.parts)
        return replace(self, answer="undecided", n_needed=None, parts=parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; infinite bounds are None."""
        bounds = {
            name: value if np.isfinite(value) else None
            for name, value in (("ci_low", self.ci_low), ("ci_high", self.ci_high))
        }
        return {**asdict(self), **bounds, "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Judgement:
        """Build a judgement from what `to_dict` gave."""
        parts = tuple(cls.from_dict(part) for part in values["parts"])
        infinite = {"ci_low": -np.inf, "ci_high": np.inf}
        bounds = {name: most for name, most in infinite.items() if values[name] is None}
        return cls(
            **{**values, **bounds, "differences": tuple(values["differences"]), "parts": parts}
        )

    def summary(self) -> str:
        """Return answer, effect, interval and seeds in one line."""
        needed = ""
        if self.answer == "undecided" and self.n_needed is not None:
            needed = f"; {self.n_needed} seeds would decide it"
        return (
            f"{self.answer}: {self.effect:+.4f} [{self.ci_low:+.4f}, {self.ci_high:+.4f}] "
            f"{self.unit}, {self.n_seeds} seeds, smallest effect of interest "
            f"{self.smallest_effect:g}{needed}"
        )

    def in_words(self) -> str:
        """Return the claim, the answer, what it rests on, then a line or two for each part."""
        lines = [self.claim, f"  {self.summary()}"]
        if self.because:
            lines.append(f"  {self.because}")
        for part in self.parts:
            lines.append("  - " + part.in_words().replace("\n", "\n    "))
        return "\n".join(lines)


def judged(
    claim: str,
    differences: Sequence[float],
    *,
    smallest_effect: float,
    unit: str,
    because: str = "",
    parts: Sequence[Judgement] = (),
) -> Judgement:
    """Judge a claim by paired differences, one a seed, positive where they support it.

    ``holds``: the interval lies above 0 and the mean is at least the smallest effect. ``fails``:
    the interval lies below the smallest effect. What is nearer to a border than a millionth of the
    smallest effect is taken to lie on it.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers, at least one; got {differences}.")
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect must be > 0; got {smallest_effect}.")
    effect = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("inf")
    half = float(_half_widths(spread, np.array([len(values)]))[0])
    answer, needed = "undecided", None
    if _holds(effect, half, smallest_effect):
        answer = "holds"
    elif _fails(effect, half, smallest_effect):
        answer = "fails"
    else:
        needed = _needed(effect, spread, smallest_effect)
    return Judgement(
        claim, answer, effect, effect - half, effect + half, smallest_effect, unit,
        tuple(values.tolist()), needed, because, tuple(parts),
    )  # fmt: skip


def _holds(effect: float, half: Any, smallest_effect: float) -> Any:
    low = np.round((effect - half) / smallest_effect, _PLACES)
    return (low > 0) & (np.round(effect / smallest_effect, _PLACES) >= 1)


def _fails(effect: float, half: Any, smallest_effect: float) -> Any:
    return np.round((effect + half) / smallest_effect, _PLACES) < 1


def _needed(effect: float, spread: float, smallest_effect: float) -> int | None:
    """Return the smallest number of seeds that would decide, if mean and spread stayed."""
    if not np.isfinite(spread):
        return None
    counts = np.arange(2, _MOST_SEEDS + 1)
    halves = _half_widths(spread, counts)
    decided = _holds(effect, halves, smallest_effect) | _fails(effect, halves, smallest_effect)
    return int(counts[np.argmax(decided)]) if decided.any() else None


def _half_widths(spread: float, counts: np.ndarray) -> np.ndarray:
    """Return half the interval for each number of seeds; infinite where the spread is."""
    return _quantiles()[counts - 1] * spread / np.sqrt(counts)


@cache
def _quantiles() -> np.ndarray:
    """Return Student's quantile at 0, 1, 2, ... degrees of freedom; at 0, that of 1 stands in."""
    from scipy.stats import t

    return t.ppf(0.5 + _LEVEL / 2, np.maximum(np.arange(_MOST_SEEDS), 1))


def paired(
    table: DataFrame, column: str, better: Any, worse: Any, *, label: str = "family"
) -> list[float]:
    """Return ``column`` of one kind of run less that of another, seed by seed."""
    sides = [
        table[table[label] == value].set_index("seed")[column].sort_index()
        for value in (better, worse)
    ]
    seeds = [side.index.tolist() for side in sides]
    if seeds[0] != seeds[1] or len(set(seeds[0])) != len(seeds[0]):
        raise ValueError(
            f"table must have {better!r} and {worse!r} with the same seeds, once each; got "
            f"{seeds[0]} and {seeds[1]}."
        )
    return [float(value) for value in sides[0].to_numpy() - sides[1].to_numpy()]


def check_whole(
    table: DataFrame,
    *labels: str,
    kinds: Iterable[Any] = (),
    measured: Sequence[str] = (),
    further: bool = True,
) -> None:
    """Refuse a table that does not have every kind of run once for each of the same seeds.

    A kind is a value of the label, or a tuple of one for each label; those in ``kinds`` must be
    there, and no others unless ``further``. Columns in ``measured`` must be finite in every row.
    """
    missing = [name for name in (*labels, "seed", *measured) if name not in table.columns]
    if missing or len(table) == 0:
        what = f"no {' and no '.join(missing)}" if missing else "no rows"
        names = ", ".join((*labels, *measured))
        raise ValueError(f"table must have {names} and seed; got {what}.")
    names, given = ", ".join(labels), _kinds(table[list(labels)].itertuples(index=False))
    there, wanted = list(dict.fromkeys(given)), _kinds(kinds)
    if absent := [kind for kind in wanted if kind not in there]:
        raise ValueError(
            f"table must have the {names} {'; '.join(absent)}; got only {'; '.join(there)}."
        )
    if unknown := [kind for kind in there if not further and kind not in wanted]:
        raise ValueError(
            f"table must have no {names} but {'; '.join(wanted)}; got {'; '.join(unknown)}."
        )
    counts = Counter(zip(given, table["seed"], strict=True))
    for kind in there:
        for seed in table["seed"].unique():
            if (count := counts[kind, seed]) != 1:
                raise ValueError(
                    f"table must have every {names} once for each seed; got {count} "
                    f"rows of {kind} with seed {seed}."
                )
    for name in measured:
        values = np.array([number_or_nan(value) for value in table[name]])
        if not np.isfinite(values).all():
            place = int(np.argmin(np.isfinite(values)))
            raise ValueError(
                f"table must have a finite {name} in every row; got {values[place]} in that of "
                f"{given[place]} with seed {table['seed'].iloc[place]}."
            )


def _kinds(values: Iterable[Any]) -> list[str]:
    return [
        ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values
    ]


def number_or_nan(value: Any) -> float:
    """Return a measured value as a number; NaN for None and for words."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def best_of(table: DataFrame, column: str, families: Sequence[str]) -> tuple[str, str]:
    """Return the family with the largest mean, and by how much it leads the next one, in words."""
    # a mean would skip what is not a number
    check_whole(table[table["family"].isin(families)], "family", kinds=families, measured=[column])
    # families that tie stand in their order, however rows were rounded
    means = table.groupby("family")[column].mean()[list(families)].round(6)
    best, second = means.sort_values(ascending=False, kind="stable").index[:2]
    lead = np.array(paired(table, column, best, second))
    error = lead.std(ddof=1) / np.sqrt(len(lead)) if len(lead) > 1 else float("nan")
    return best, (
        f"{round(lead.mean(), 4) + 0.0:+.4f} above {second}, standard error {error:.4f} over seeds"
    )
