"""Verdicts over seeds: does a claim hold, fail, or is it undecided."""

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
class Verdict:
    """An answer to a claim, with the effect that it rests on.

    Parameters
    ----------
    claim : str
        What was claimed, so that a positive effect speaks for it.
    answer : str
        ``holds``, ``fails`` or ``undecided``.
    effect : float
        Mean over seeds of the paired differences.
    ci_low, ci_high : float
        Student's 95 % interval over seeds; infinite for one seed.
    smallest_effect : float
        Smallest effect of interest, stated before the runs.
    unit : str
        Of the effect.
    differences : tuple of float
        One a seed.
    n_needed : int or None
        For ``undecided``: seeds that would decide it if mean and spread stayed; None where even
        10,000 would not.
    because : str
        What else the answer rests on: the control, how things were chosen.
    parts : tuple of Verdict
        Other questions that the same runs answer.

    Examples
    --------
    >>> judged("a > b", [0.02, 0.03, 0.025], smallest_effect=0.01, unit="accuracy").answer
    'holds'
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
    parts: tuple[Verdict, ...] = ()

    @property
    def n_seeds(self) -> int:
        """Number of seeds."""
        return len(self.differences)

    @property
    def standard_error(self) -> float:
        """Standard error of the effect over seeds; NaN for one seed."""
        if self.n_seeds < 2:
            return float("nan")
        return float(np.std(self.differences, ddof=1) / np.sqrt(self.n_seeds))

    def never_decided(self) -> Verdict:
        """Return the same numbers without an answer: what a run of the small size may say.

        Returns
        -------
        Verdict
            ``undecided``, its parts too.
        """
        parts = tuple(part.never_decided() for part in self.parts)
        return replace(self, answer="undecided", n_needed=None, parts=parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON.

        Returns
        -------
        dict
            One entry a field; bounds that are infinite are None.
        """
        bounds = {
            name: value if np.isfinite(value) else None
            for name, value in (("ci_low", self.ci_low), ("ci_high", self.ci_high))
        }
        return {**asdict(self), **bounds, "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Verdict:
        """Build a verdict from what `to_dict` gave.

        Parameters
        ----------
        values : dict
            As read from JSON.

        Returns
        -------
        Verdict
            The same one.

        Examples
        --------
        >>> verdict = judged("a > b", [0.0, 0.1], smallest_effect=0.01, unit="accuracy")
        >>> Verdict.from_dict(verdict.to_dict()) == verdict
        True
        """
        parts = tuple(cls.from_dict(part) for part in values["parts"])
        infinite = {"ci_low": -np.inf, "ci_high": np.inf}
        bounds = {name: most for name, most in infinite.items() if values[name] is None}
        return cls(
            **{**values, **bounds, "differences": tuple(values["differences"]), "parts": parts}
        )

    def summary(self) -> str:
        """Return the answer in one line.

        Returns
        -------
        str
            Answer, effect, interval, seeds.
        """
        needed = ""
        if self.answer == "undecided" and self.n_needed is not None:
            needed = f"; {self.n_needed} seeds would decide it"
        return (
            f"{self.answer}: {self.effect:+.4f} [{self.ci_low:+.4f}, {self.ci_high:+.4f}] "
            f"{self.unit}, {self.n_seeds} seeds, smallest effect of interest "
            f"{self.smallest_effect:g}{needed}"
        )


def judged(
    claim: str,
    differences: Sequence[float],
    *,
    smallest_effect: float,
    unit: str,
    because: str = "",
    parts: Sequence[Verdict] = (),
) -> Verdict:
    """Judge a claim by paired differences, one a seed, positive where they speak for it.

    Parameters
    ----------
    claim : str
        What was claimed.
    differences : sequence of float
        One a seed.
    smallest_effect : float
        Smallest effect of interest, > 0.
    unit : str
        Of the differences.
    because : str, default=""
        What else the answer rests on.
    parts : sequence of Verdict, default=()
        Other questions that the same runs answer.

    Returns
    -------
    Verdict
        ``holds``: Student's 95 % interval lies above 0 and the mean is at least the smallest
        effect. ``fails``: the interval lies below the smallest effect. Else ``undecided``. What is
        nearer to a border than a millionth of the smallest effect is taken to lie on it.

    Raises
    ------
    ValueError
        If there are no differences, one is not finite, or the smallest effect is not > 0.

    References
    ----------
    Lakens, "Equivalence tests", Social Psychological and Personality Science 8, 2017.

    Examples
    --------
    >>> judged("a > b", [0.001, -0.001, 0.0], smallest_effect=0.01, unit="accuracy").answer
    'fails'
    >>> judged("a > b", [0.1, -0.05, 0.02], smallest_effect=0.01, unit="accuracy").answer
    'undecided'
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"differences must be finite numbers, at least one; got {differences}.")
    if not smallest_effect > 0:
        raise ValueError(f"smallest_effect must be > 0; got {smallest_effect}.")
    effect = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else float("inf")
    half = _half_width(spread, len(values))
    answer = _answer(effect, half, smallest_effect)
    needed = _needed(effect, spread, smallest_effect) if answer == "undecided" else None
    return Verdict(
        claim, answer, effect, effect - half, effect + half, smallest_effect, unit,
        tuple(values.tolist()), needed, because, tuple(parts),
    )  # fmt: skip


def paired(
    table: DataFrame, column: str, better: Any, worse: Any, *, label: str = "family"
) -> list[float]:
    """Subtract one kind of run from another, seed by seed.

    Parameters
    ----------
    table : DataFrame
        With the columns ``seed``, ``label`` and ``column``; one row a kind and seed.
    column : str
        What was measured.
    better, worse : str or number
        Values of ``label``: what is claimed to be greater, and what it is compared with.
    label : str, default="family"
        Column that tells kinds apart.

    Returns
    -------
    list of float
        ``better - worse``, one a seed, in their order.

    Raises
    ------
    ValueError
        If the two do not have the same seeds, once each.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"family": ["a", "b"] * 2, "seed": [0, 0, 1, 1], "knn": [0.5, 0.25, 0.75, 0.25]}
    >>> paired(pd.DataFrame(rows), "knn", "a", "b")
    [0.25, 0.5]
    """
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

    Parameters
    ----------
    table : DataFrame
        With the columns ``seed``, ``labels`` and ``measured``.
    *labels : str
        Columns that tell kinds of rows apart.
    kinds : iterable of value or tuple, optional
        Kinds that must be there: a value of the label, or a tuple of one a label.
    measured : sequence of str, optional
        Columns that the judge reads: finite in every row.
    further : bool, default=True
        Whether there may be kinds that are not among ``kinds``.

    Raises
    ------
    ValueError
        If a column is missing, a row is missing or there more than once, a kind is missing or
        there without being known, or a number is not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> whole = pd.DataFrame({"family": ["a", "b"] * 2, "seed": [0, 0, 1, 1], "knn": 0.5})
    >>> check_whole(whole, "family", kinds=["a", "b"], measured=["knn"])
    >>> check_whole(whole.iloc[:3], "family")
    Traceback (most recent call last):
    ValueError: table must have every family once for each seed; got 0 rows of b with seed 1.
    >>> check_whole(whole, "family", kinds=["a", "c"])
    Traceback (most recent call last):
    ValueError: table must have the family c; got only a; b.
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
    """Return a measured value as a number.

    Parameters
    ----------
    value : object
        As it stands in a row.

    Returns
    -------
    float
        NaN for None and for words.

    Examples
    --------
    >>> number_or_nan(1), number_or_nan(None)
    (1.0, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def best_of(table: DataFrame, column: str, families: Sequence[str]) -> tuple[str, str]:
    """Choose the family of the largest mean, and say how clearly.

    Parameters
    ----------
    table : DataFrame
        With the columns ``seed``, ``family`` and ``column``.
    column : str
        What the choice rests on: measured on validation.
    families : sequence of str
        At least two to choose from.

    Returns
    -------
    best : str
        The family.
    words : str
        By how much it leads the next one, with the standard error over seeds.

    Raises
    ------
    ValueError
        If a family is not there, or a number is not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"family": ["a", "b"] * 2, "seed": [0, 0, 1, 1], "knn": [0.5, 0.25, 0.75, 0.25]}
    >>> best_of(pd.DataFrame(rows), "knn", ["a", "b"])
    ('a', '+0.3750 above b, standard error 0.1250 over seeds')
    """
    # a mean would pass over what is not a number
    check_whole(table[table["family"].isin(families)], "family", kinds=families, measured=[column])
    # families that tie stand in their order, however rows were rounded
    means = table.groupby("family")[column].mean()[list(families)].round(6)
    best, second = means.sort_values(ascending=False, kind="stable").index[:2]
    lead = np.array(paired(table, column, best, second))
    error = lead.std(ddof=1) / np.sqrt(len(lead)) if len(lead) > 1 else float("nan")
    return best, (
        f"{round(lead.mean(), 4) + 0.0:+.4f} above {second}, standard error {error:.4f} over seeds"
    )


def _half_width(spread: float, n_seeds: int) -> float:
    from scipy.stats import t

    if n_seeds < 2:
        return float("inf")
    return float(t.ppf(0.5 + _LEVEL / 2, n_seeds - 1) * spread / np.sqrt(n_seeds))


@cache
def _half_widths() -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of seeds, and half the interval of each at a spread of 1."""
    from scipy.stats import t

    counts = np.arange(2, _MOST_SEEDS + 1)
    return counts, t.ppf(0.5 + _LEVEL / 2, counts - 1) / np.sqrt(counts)


def _answer(effect: float, half: float, smallest_effect: float) -> str:
    if _holds(effect, half, smallest_effect):
        return "holds"
    return "fails" if _fails(effect, half, smallest_effect) else "undecided"


def _holds(effect: float, half: Any, smallest_effect: float) -> Any:
    low = np.round((effect - half) / smallest_effect, _PLACES)
    return (low > 0) & (np.round(effect / smallest_effect, _PLACES) >= 1)


def _fails(effect: float, half: Any, smallest_effect: float) -> Any:
    return np.round((effect + half) / smallest_effect, _PLACES) < 1


def _needed(effect: float, spread: float, smallest_effect: float) -> int | None:
    if not np.isfinite(spread):
        return None
    counts, halves = _half_widths()
    halves = halves * spread
    holds = _holds(effect, halves, smallest_effect)
    decided = counts[holds | _fails(effect, halves, smallest_effect)]
    return int(decided[0]) if len(decided) else None
