"""What probes take in the place of a representation: arrays, tensors, tables, pairs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dimlab.columns import factor_of
from dimlab.moments import Moments
from dimlab.names import FEATURES, LABELS, one_spelling, spelled, word_of
from dimlab.refusals import Refusal
from dimlab.representation import Representation

# An array, a tensor or a DataFrame (N, D); a pair of one and labels (N,); named columns.
RepresentationLike = Any
RowsLike = Any  # the same, or moments: commands of such probes take several files


def as_representation(given: RepresentationLike, name: str = "representation") -> Representation:
    """Return a representation as it is, and make one of arrays, a pair or named columns."""
    if isinstance(given, Representation):
        return given
    if isinstance(given, Moments):
        raise Refusal(f"{name} must hold rows of features; got Moments.")
    if isinstance(given, tuple):
        if len(given) != 2:
            raise Refusal(
                f"{name} must be a pair of features (N, D) and labels (N,); got {len(given)} parts."
            )
        return Representation(given[0], labels=given[1])
    if isinstance(given, Mapping):
        return _of_columns(given, name)
    if hasattr(given, "column_names") and hasattr(given, "with_format"):  # of datasets
        return _of_columns(given.with_format("numpy")[:], name)
    return Representation(given)


def as_representations(**given: RepresentationLike | None) -> dict[str, Representation]:
    """Return the splits of one call that are there; the same class has the same id in each."""
    there = {
        name: as_representation(each, name) for name, each in given.items() if each is not None
    }
    return dict(zip(there, aligned(*there.values()), strict=True))


def as_rows(given: RowsLike) -> Representation | Moments:
    """Return what a probe takes that needs moments only."""
    return given if isinstance(given, Moments) else as_representation(given)


def aligned(*splits: Representation) -> list[Representation]:
    """Give the same class the same id in each split, where classes have names."""
    named = [each.meta.get("class_names") for each in splits if each.labels is not None]
    if all(names is None for names in named) or all(names == named[0] for names in named):
        return list(splits)
    known = [names for names in named if names is not None]
    if len(known) < len(named):
        raise Refusal(
            "labels must be class names in all splits, or class ids in all; got both kinds."
        )
    every = np.array([name for each in known for name in each])
    # twice: these are categories, not names of rows
    whole = np.unique(one_spelling(np.tile(every, 2), "class_names"))
    names = [str(each) for each in whole]
    return [
        each
        if each.labels is None
        else each._trusted(
            labels=np.searchsorted(whole, spelled(np.array(each.meta["class_names"])))[each.labels],
            meta={**each.meta, "class_names": names},
        )
        for each in splits
    ]


def _of_columns(columns: Mapping[str, Any], name: str) -> Representation:
    """Take the one matrix that is called as features are, the labels, and the rest as factors."""
    arrays = {key: _stacked(each) for key, each in columns.items()}
    matrices = [key for key, each in arrays.items() if each.ndim == 2 and each.dtype.kind == "f"]
    usual = [key for key in matrices if word_of(key) in FEATURES]
    chosen = usual if len(usual) == 1 else matrices
    if len(chosen) != 1:
        raise Refusal(
            f"{name} must have one column of features (N, D); got {sorted(columns)}, of which "
            f"{chosen or 'none'} could be. Pass a pair (features, labels)."
        )
    label = next((key for key in arrays if key.lower() in LABELS), None)
    beside = {
        key: factor_of(each, key)
        for key, each in arrays.items()
        if key != label and each.ndim == 1 and each.dtype.kind in "fiubU"
    }
    labels = None if label is None else arrays[label]
    return Representation(arrays[chosen[0]], labels=labels, factors=beside)


def _stacked(column: Any) -> np.ndarray:
    """Return a column as one array; a list of vectors or of text as a matrix or text."""
    array = np.asarray(column)
    if array.dtype.kind != "O" or array.ndim != 1:
        return array
    parts = array.tolist()
    if all(isinstance(each, str) for each in parts):
        return np.array(parts, dtype=np.str_)
    lengths = {np.shape(each) for each in parts}
    return np.stack(parts) if len(lengths) == 1 and lengths != {()} else array
