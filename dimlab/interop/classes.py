"""Classes of samples: ids of names, labels from other files, the same ids in every split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimlab.interop.arrays import ENDINGS, text_of
from dimlab.names import one_spelling, spelled
from dimlab.representation import Representation
from dimlab.tables import ending_of

LABELS = ("labels", "label", "targets", "target", "y", "classes", "class", "class_id")


def aligned(*splits: Representation) -> list[Representation]:
    """Give the same class the same id in each split, where classes have names.

    Parameters
    ----------
    *splits : Representation
        Their ``meta["class_names"]`` are compared.

    Returns
    -------
    list of Representation
        Ids follow the alphabetical order of all names.

    Raises
    ------
    ValueError
        If some have class names and others have labels without.

    Warns
    -----
    UserWarning
        If names look alike, within a split or in two.

    Examples
    --------
    >>> train = Representation(np.eye(2), labels=[0, 1], meta={"class_names": ["cat", "dog"]})
    >>> test = Representation(np.eye(2), labels=[0, 0], meta={"class_names": ["dog"]})
    >>> [each.labels.tolist() for each in aligned(train, test)]
    [[0, 1], [1, 1]]
    """
    named = [each.meta.get("class_names") for each in splits if each.labels is not None]
    if all(names is None for names in named) or all(names == named[0] for names in named):
        return list(splits)
    known = [names for names in named if names is not None]
    if len(known) < len(named):
        raise ValueError(
            "labels must be class names in all files, or class ids in all; got both kinds."
        )
    every = np.array([name for each in known for name in each])
    whole = np.unique(
        one_spelling(np.tile(every, 2), "class_names")
    )  # categories, not names of rows
    names = [str(each) for each in whole]
    return [
        each
        if each.labels is None
        else replace(
            each,
            labels=np.searchsorted(whole, spelled(np.array(each.meta["class_names"])))[each.labels],
            meta={**each.meta, "class_names": names},
        )
        for each in splits
    ]


def is_file_of_labels(labels: str | os.PathLike[str] | None) -> bool:
    """Say whether labels name another file, rather than an array."""
    if labels is None:
        return False
    name = os.fspath(labels)
    return Path(name).is_file() or ending_of(Path(name.rsplit(":", 1)[0])) in ENDINGS


def class_ids(
    values: np.ndarray, every: list[np.ndarray], name: str
) -> tuple[np.ndarray, list[str] | None]:
    """Turn labels of any kind into class ids.

    Parameters
    ----------
    values : ndarray of shape (N,), (N, 1) or (N, K)
        Ids, names of classes, or one-hot rows.
    every : list of ndarray
        Labels of all splits, whose names are counted together.
    name : str
        Where they stand.

    Returns
    -------
    ids : ndarray of shape (N,), integer
        Of names in alphabetical order.
    names : list of str or None
        Of the classes, where they have any.

    Raises
    ------
    ValueError
        If there is none for a row, one is no whole number or more than int64 holds, or rows of
        several are not one-hot.

    Warns
    -----
    UserWarning
        If names of classes look alike.
    """
    if values.dtype.kind in "US":
        whole = one_spelling(np.concatenate([text_of(each) for each in every]), name)
        names = np.unique(whole)
        return np.searchsorted(names, spelled(text_of(values))), [str(each) for each in names]
    if values.ndim == 2 and values.shape[1] > 1:
        if not np.isin(values, (0, 1)).all() or not (values.sum(axis=1) == 1).all():
            raise ValueError(
                f"labels must be one class a sample; got {name!r} of shape {values.shape}, which "
                "is not one-hot."
            )
        return values.argmax(axis=1), None
    flat = values.reshape(-1) if values.shape == (len(values), 1) else values
    if flat.dtype.kind == "f":
        return _whole(flat, name), None
    if flat.dtype.kind == "u" and flat.size and flat.max() > np.iinfo(np.int64).max:
        raise ValueError(f"labels must be < 2**63; got {flat.max()} in {name!r}.")
    return flat.astype(np.int64) if flat.dtype.kind in "bu" else flat, None


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    """Class ids of whole floats."""
    gone = np.flatnonzero(np.isnan(values))
    if len(gone):
        raise ValueError(
            f"labels must be there for every row; got none in row {gone[0]} of {name!r}."
        )
    fits = np.isfinite(values).all() and bool((np.abs(values) < 2.0**63).all())
    whole = values.astype(np.int64) if fits else None
    if whole is None or not (whole == values).all():
        raise ValueError(
            f"labels must be class ids or class names; got numbers with fractions in {name!r}. "
            "A continuous target is a factor: rename it, or name the labels."
        )
    return whole
