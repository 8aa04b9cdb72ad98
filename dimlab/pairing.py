"""Two representations of the same samples are paired: by the names of their rows, else by order."""

from __future__ import annotations

import numpy as np

from dimlab.names import COUNTS, FILE, FILES, NAMES, places_among, spelled, word_of
from dimlab.representation import Representation

BY_NAME, BY_ORDER = "row names", "order"
_SHOWN = 3  # names in a sentence


def pair(
    first: Representation,
    second: Representation,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> tuple[Representation, str]:
    """Put the rows of one representation in the order of another.

    Parameters
    ----------
    first, second : Representation
        N rows each. A factor names the rows if it is no floating one and is called ``file``,
        ``path``, ``image_id``, ``id``, ``name``, ``index`` or alike: the first such factor that
        both have decides, names of files before others and numbers of rows last. One that repeats
        its values on both sides is a category, unless it is called as files are.
    names : tuple of str, default=("first", "second")
        What the two are called in a refusal.

    Returns
    -------
    second : Representation
        With its rows in the order of ``first``.
    how : str
        ``row names``, or ``order`` where the two have no names in common.

    Raises
    ------
    ValueError
        If the numbers of rows differ, names are not the same on both sides, or one stands twice.

    Examples
    --------
    >>> a = Representation(np.array([[1.0], [2.0]]), factors={"file": np.array(["x", "y"])})
    >>> b = Representation(np.array([[2.5], [1.5]]), factors={"file": np.array(["y", "x"])})
    >>> ordered, how = pair(a, b)
    >>> ordered.features.ravel().tolist(), how
    ([1.5, 2.5], 'row names')
    """
    if len(first) != len(second):
        raise ValueError(
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
                raise ValueError(
                    f"names of rows must differ; got {name!r} more than once in factor "
                    f"{factor!r} of {side}. {_remedy(factor)}"
                )
        rows = places_among(wanted, found)
        if rows is None:
            raise ValueError(_mismatch(factor, wanted, found, names))
        return second.take(rows), BY_NAME
    return second, BY_ORDER


def row_names(representation: Representation) -> dict[str, tuple[str, np.ndarray]]:
    """Find the factors that are called as names of rows are.

    Parameters
    ----------
    representation : Representation
        N rows; those of `Representation.per_view` are named by sample and view together.

    Returns
    -------
    dict of str to tuple of str and ndarray of shape (N,)
        Under the plain word, the factor's own name and its values, names of files first.

    Examples
    --------
    >>> named = {"id": np.arange(2), "path": np.array(["a", "b"])}
    >>> split = Representation(np.eye(2), factors=named)
    >>> {word: name for word, (name, _) in row_names(split).items()}
    {'file': 'path', 'id': 'id'}
    """
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
