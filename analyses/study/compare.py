"""Whether a result reproduces the one that is kept: answers, means and spreads over seeds.

The claim's answer must be the kept one. Compared further are the answers and effects of the parts
and, of each measured column, the values of every kind of row over seeds; a kind is what the labels
say: family, budget, width, reader and so on. A kind or a column that only one of the two has is a
disagreement, and so is a number where the other has none.

With the processor and the packages that made all kept rows, a training repeats bit for bit: every
part must have its kept answer, a mean must lie within 3 of its standard errors over seeds, and a
standard deviation within a factor of 3. Elsewhere rounding differs, and training amplifies it
until a seed says no more than another seed would. Then a part disagrees only where it turned from
holds to fails or back; means and spreads are those of two samples, compared by Welch's t
(Biometrika 34, 1947) and by F at the level of 3 standard errors of a normal variable (0.27 %),
shared among all comparisons. Where neither side has any spread, that of the column's
other kinds is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from study.judgement import Judgement, number_or_nan

_ERRORS = 3  # standard errors over seeds within which a mean is reproduced
_RARE = 0.0027  # how often a normal variable is further from its mean than that
_ROUNDING = 1e-6
_NUMBERED = ("width", "drop", "step")  # numbers that tell kinds of rows apart: nothing measured
_SECONDS = "_seconds"  # how the names of times end, which are nowhere the same


def disagreements(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one sentence for each answer, kind of row or number that is not reproduced.

    Both are as `Analysis.result` gives them, of the same size, seeds and data.
    """
    before, after = (_all_parts(Judgement.from_dict(each["verdict"])) for each in (kept, now))
    strict = alike(kept, now)
    asked, answered = ({each.claim: each for each in side[1:]} for side in (before, after))
    said = [
        f"{claim}: the question "
        + ("is kept, and was not asked." if claim in asked else "was asked, and is not kept.")
        for claim in {**asked, **answered}
        if claim not in asked or claim not in answered
    ]
    questions = [(before[0], after[0])]
    questions += [(old, answered[claim]) for claim, old in asked.items() if claim in answered]
    said += [
        f"{old.claim}: the answer is {new.answer}, and {old.answer} is kept."
        for place, (old, new) in enumerate(questions)
        if _turned(old.answer, new.answer, strictly=place == 0 or strict)
    ]
    compared = [
        _Pair(old.claim, np.array(old.differences), np.array(new.differences))
        for old, new in questions
    ]
    levels, unmatched = _levels(kept["rows"], now["rows"])
    compared += levels
    level = None if strict else _RARE / len(compared)
    for pair in compared:
        said += [f"{pair.name}: {words}" for words in _unlike(pair, level)]
    return said + unmatched


@dataclass(frozen=True)
class _Pair:
    """What is compared: a value a seed, kept and measured now; the spread that its like have."""

    name: str
    before: np.ndarray
    after: np.ndarray
    usual: float = 0.0


def _turned(before: str, after: str, *, strictly: bool) -> bool:
    """Return whether an answer is another; not strictly: whether it is the opposite one."""
    return before != after if strictly else {before, after} == {"holds", "fails"}


def alike(kept: dict[str, Any], now: dict[str, Any]) -> bool:
    """Return whether rounding is the same in all rows: threads do not matter, a run has one."""
    names = {"threads", "dimlab", "matplotlib"}
    # rows do not say which of several machines made them
    places = [
        {name: value for name, value in place.items() if name not in names}
        for each in (kept, now)
        for place in (each["environment"], *each.get("further_environments", []))
    ]
    return all(place == places[0] for place in places)


def _levels(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> tuple[list[_Pair], list[str]]:
    """Pair what was measured, kind by kind and in the order of seeds, and say what has no pair."""
    sides = [rows for rows in (before, after) if rows and "seed" in rows[0]]
    names = [{name for row in rows for name in row} for rows in (before, after)]
    labels = [
        name
        for name in dict.fromkeys(name for rows in sides for row in rows for name in row)
        if name in _NUMBERED
        or any(isinstance(row.get(name), str) for rows in sides for row in rows)
    ]
    said = [
        f"{name}: the column "
        + (
            "is kept, and was not measured."
            if name in names[0]
            else "was measured, and is not kept."
        )
        for name in sorted(names[0] ^ names[1])
        if not name.endswith(_SECONDS)
    ]
    tables = [_by_kind(rows, labels) for rows in (before, after)]
    shared = []
    for kind in dict.fromkeys([*tables[0], *tables[1]]):
        seeds = [", ".join(map(str, sorted(table.get(kind, ())))) or "none" for table in tables]
        if seeds[0] == seeds[1]:
            shared.append(kind)
        else:
            said.append(f"{kind or 'rows'}: of seeds {seeds[1]}, and of seeds {seeds[0]} are kept.")
    pairs = []
    for name in sorted((names[0] & names[1]) - {"seed", *labels}):
        found = []
        for kind in () if name.endswith(_SECONDS) else shared:
            old, new = (
                np.array([table[kind][seed].get(name, np.nan) for seed in sorted(table[kind])])
                for table in tables
            )
            what = f"{name} of {kind}" if kind else name
            finite = np.isfinite(old)
            if (finite != np.isfinite(new)).any():
                said.append(f"{what}: {_listed(new)}, and {_listed(old)} is kept.")
            elif finite.any():
                found.append(_Pair(what, old[finite], new[finite]))
        # seeds that agree by chance, as accuracies may, do not show what another seed would give
        squares = [float(side.var()) for pair in found for side in (pair.before, pair.after)]
        usual = float(np.mean(squares)) ** 0.5 if squares else 0.0
        pairs += [replace(pair, usual=usual) for pair in found]
    return pairs, said


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _by_kind(
    rows: list[dict[str, Any]], labels: Sequence[str]
) -> dict[str, dict[int, dict[str, float]]]:
    """Collect rows by kind and seed; several of one are averaged, column by column."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        if "seed" in row:
            told = [
                f"{name} {value if isinstance(value, str) else format(value, 'g')}"
                for name in labels
                if (value := row.get(name)) is not None
            ]
            found.setdefault(", ".join(told), {}).setdefault(row["seed"], []).append(row)
    return {
        kind: {
            seed: {
                name: float(np.mean([number_or_nan(row.get(name)) for row in several]))
                for name in several[0]
                if name not in labels
            }
            for seed, several in by_seed.items()
        }
        for kind, by_seed in found.items()
    }


def _unlike(pair: _Pair, level: float | None) -> list[str]:
    """Say in which way two samples differ more than they may; None: they are of one machine."""
    from scipy.stats import f, t

    before, after = pair.before, pair.after
    if min(len(before), len(after)) < 2:
        gap = abs(after.mean() - before.mean())
        return [] if gap < _ROUNDING else [f"{after.mean():+.4f} is not {before.mean():+.4f}."]
    spreads = [float(side.std(ddof=1)) for side in (before, after)]
    squares = [spread**2 / len(side) for spread, side in zip(spreads, (before, after), strict=True)]
    if level is None:
        allowed, factor = _ERRORS * squares[0] ** 0.5, float(_ERRORS)
        rule = f"{_ERRORS} standard errors"
    else:
        terms = [
            square**2 / (len(side) - 1)
            for square, side in zip(squares, (before, after), strict=True)
        ]
        if max(spreads) > _ROUNDING:
            freedom, square = sum(squares) ** 2 / sum(terms), sum(squares)
        else:
            freedom = len(before) + len(after) - 2
            square = pair.usual**2 * (1 / len(before) + 1 / len(after))
        allowed = float(t.ppf(1 - level / 2, freedom)) * square**0.5
        factor = float(f.ppf(1 - level / 2, len(after) - 1, len(before) - 1)) ** 0.5
        rule = "Welch's t"
    said = []
    # a spread of nothing (an effect that is exactly 0, say) still leaves rounding
    if not abs(after.mean() - before.mean()) <= allowed + _ROUNDING:
        said.append(
            f"{after.mean():+.4f} is not within {allowed:.4f} ({rule}) of {before.mean():+.4f}."
        )
    # one that is exactly 0 says nothing of the other
    if min(spreads) > _ROUNDING and not 1 / factor <= spreads[1] / spreads[0] <= factor:
        said.append(
            f"the standard deviation over seeds, {spreads[1]:.4f}, is not within a factor of "
            f"{factor:.1f} of {spreads[0]:.4f}."
        )
    return said


def _all_parts(judgement: Judgement) -> list[Judgement]:
    return [judgement, *(each for part in judgement.parts for each in _all_parts(part))]
