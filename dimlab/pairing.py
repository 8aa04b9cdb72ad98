"""Two representations of the same samples are paired: by the names of their rows, else by order."""

from __future__ import annotations

import numpy as np

from dimlab.names import COUNTS, FILE, FILES, NAMES, places_among, spelled, word_of
from dimlab.refusals import Refusal
from dimlab.representation import Representation

BY_NAME, BY_ORDER = "row names", "order"
_SHOWN = 3  # names in a sentence


def pair(
    first: Representation,
    second: Representation,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> tuple[Representation, str]:
    """Put the rows of the second representation in the order of the first; also say by what."""
    # The first factor of names that both have decides: names of files before others, numbers of
    # rows last. One that repeats its values on both sides is a category, unless it is called as
    # files are.
    if len(first) != len(second):
        raise Refusal(
            f"{names[1]} must have the {len(first)} rows of {names[0]}; got {len(second)}."
        )
    ours, theirs = row_names(first), row_names(second)
    for word in (each for each in ours if each in theirs):
        (factor, wanted), (_, found) = ours[word], theirs[word]
        if np.array_equal(spelled(wanted), spelled(found)):
            return second, BY_NAME
        twice = [_first_repeated(each) for each in (wanted, found)]
        if None not in twice and word != FILE:
            continue  # a category
        for side, name in zip(names, twice, strict=True):
            if name is not None:
                raise Refusal(
                    f"names of rows must differ; got {name!r} more than once in factor "
                    f"{factor!r} of {side}. {_remedy(factor)}"
                )
        rows = places_among(wanted, found)
        if rows is None:
            raise Refusal(_mismatch(factor, wanted, found, names))
        return second.take(rows), BY_NAME
    return second, BY_ORDER


def row_names(representation: Representation) -> dict[str, tuple[str, np.ndarray]]:
    """Factors whose names mark them as row names, file names first: word to factor, values."""
    # Rows of `Representation.per_view` are named by sample and view together.
    of_views = representation.view_columns
    usual = {word: place for place, word in enumerate((FILE, *NAMES, *COUNTS))}
    found: dict[str, tuple[str, np.ndarray]] = {}
    for name, values in representation.factors.items():
        word = FILE if word_of(name) in FILES else word_of(name)
        if word not in usual or values.dtype.kind not in "iuU" or name in of_views:
            continue
        if of_views:
            view = representation.factors[of_views[0]].astype(np.str_)
            values = np.char.add(np.char.add(spelled(values), ", view "), view)
        found.setdefault(word, (name, values))
    return dict(sorted(found.items(), key=lambda each: usual[each[0]]))


def _first_repeated(names: np.ndarray) -> str | None:
    different, counts = np.unique(spelled(names), return_counts=True)
    return None if len(different) == len(names) else str(different[counts > 1][0])


def _mismatch(factor: str, wanted: np.ndarray, found: np.ndarray, names: tuple[str, str]) -> str:
    lost = [np.setdiff1d(spelled(a), spelled(b)) for a, b in ((wanted, found), (found, wanted))]
    shown = [", ".join(map(repr, each[:_SHOWN].tolist())) for each in lost]
    return (
        f"names of rows must be the same on both sides; got {len(lost[0])} of {len(wanted)} in "
        f"factor {factor!r} of {names[0]} alone, such as {shown[0]}, and in {names[1]} alone "
        f"{shown[1]}. {_remedy(factor)}"
    )


def _remedy(factor: str) -> str:
    return (
        f"Name the rows alike; or take {factor!r} out of one side, and rows are paired in their "
        "order."
    )
