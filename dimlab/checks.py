"""Checks of the parts of a representation or an image set, made once where the parts enter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.rounding import PRECISIONS, stored_precision
from dimlab.names import one_spelling
from dimlab.refusals import Refusal, WrongType

_BLOCK = 1 << 22  # elements looked at together: memory-mapped features are never copied whole


def array_of(value: Any) -> np.ndarray:
    """Return the array that a tensor, a table of numbers or anything like them holds."""
    if not hasattr(value, "detach"):
        return np.asanyarray(value)
    tensor = value.detach().cpu()
    return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)


def floating(name: str, value: Any, *, ndim: int) -> np.ndarray:
    """Return a floating array of 2 or 3 dimensions as float32 or float64; integers are refused."""
    array = array_of(value)
    if array.ndim != ndim:
        shape = "(N, D)" if ndim == 2 else "(V, N, D)"
        raise Refusal(f"{name} must have shape {shape}; got {array.shape}.")
    if array.dtype.kind != "f":
        raise WrongType(
            f"{name} must be floating; got {array.dtype}. Cast with .astype('float32')."
        )
    if array.dtype in (np.float32, np.float64):
        return array
    wide = array.dtype.itemsize >= np.dtype(np.float64).itemsize  # in another order, or longer
    with np.errstate(over="ignore"):  # infinity is refused
        return array.astype(np.float64 if wide else np.float32)


def with_precision(meta: dict[str, Any], given: np.ndarray, features: np.ndarray) -> dict[str, Any]:
    """Record the type that features were rounded to, unless it is recorded or is their own."""
    precision = meta.pop("precision", None)
    if not precision:
        half = given.dtype == np.float16
        precision = given.dtype.name if half else stored_precision(features)
    if precision not in PRECISIONS:
        raise Refusal(
            f"meta['precision'] must be one of {', '.join(PRECISIONS)}; got {precision!r}."
        )
    return meta if precision == features.dtype.name else {**meta, "precision": precision}


def refuse_non_finite(name: str, array: np.ndarray) -> None:
    """Name the first NaN or infinity of an array (N, D)."""
    for part in blocks(len(array), _BLOCK // array.shape[1]):
        block = array[part]
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(block.sum()):  # one bad value would show; the sum takes a third the time
                continue
        finite = np.isfinite(block)
        if not finite.all():
            row, dimension = np.argwhere(~finite)[0]
            raise Refusal(
                f"{name} must be finite; got {block[row, dimension]} in dimension {dimension}, row "
                f"{part.start + row}."
            )


def named_classes(labels: Any) -> tuple[Any, list[str] | None]:
    """Return class ids and, of text, the names of the classes in alphabetical order."""
    array = array_of(labels)
    if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.ravel()):
        array = array.astype(np.str_)
    if array.dtype.kind == "b":
        return array.astype(np.int64), None
    if array.dtype.kind != "U" or array.ndim != 1:
        return array, None
    names, ids = np.unique(one_spelling(array, "labels"), return_inverse=True)
    return ids, names.tolist()


def labels_of(labels: Any, n_samples: int, *, of: str = "features") -> np.ndarray:
    """Return class ids (N,) as int64; they must be integers >= 0."""
    array = np.asarray(labels)
    if array.shape != (n_samples,):
        raise Refusal(f"labels must have shape ({n_samples},) to match {of}; got {array.shape}.")
    if array.dtype.kind not in "iu":
        raise WrongType(f"labels must be integers (class ids) or class names; got {array.dtype}.")
    if array.min() < 0:
        raise Refusal(f"labels must be >= 0; got {array.min()}.")
    if array.max() > np.iinfo(np.int64).max:
        raise Refusal(f"labels must be < 2**63; got {array.max()}.")
    return array.astype(np.int64)


def factors_of(
    factors: Any, shape: tuple[int, ...], what: str = "factors", *, of: str = "features"
) -> dict[str, np.ndarray]:
    """Return factors of one shape as float64, int64, bool or text."""
    checked = {}
    for name, value in dict(factors or {}).items():
        array = np.asarray(value)
        if array.shape != shape:
            raise Refusal(
                f"{what}[{name!r}] must have shape {shape} to match {of}; got {array.shape}."
            )
        if array.dtype.kind not in "fiubU":
            raise WrongType(
                f"{what}[{name!r}] must be floating, integer, bool or str; got {array.dtype}."
            )
        if array.dtype.kind == "f":
            array = array.astype(np.float64)
            if not np.isfinite(array).all():
                place = tuple(np.argwhere(~np.isfinite(array))[0])
                raise Refusal(
                    f"{what}[{name!r}] must be finite; got {array[place]} in row {place[-1]}."
                )
        elif array.dtype.kind in "iu":
            if array.size and array.max() > np.iinfo(np.int64).max:
                raise Refusal(
                    f"{what}[{name!r}] must be < 2**63; got {array.max()}. Pass it as text."
                )
            array = array.astype(np.int64)
        checked[name] = array
    return checked


def periods_of(periods: Any, factors: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return periods > 0 by name; each must belong to a continuous factor."""
    checked = {}
    for name, period in dict(periods or {}).items():
        try:
            checked[name] = float(period)
        except (TypeError, ValueError):
            raise Refusal(f"periods[{name!r}] must be a number; got {period!r}.") from None
    for name, period in checked.items():
        if all(np.asarray(each.get(name, "")).dtype.kind != "f" for each in factors):
            raise Refusal(f"periods must name continuous factors; got {name!r}.")
        if not (np.isfinite(period) and period > 0):
            raise Refusal(f"periods[{name!r}] must be > 0; got {period}.")
    return checked


def rows_of(rows: Any, n_samples: int) -> np.ndarray:
    """Return indices (n,) of samples, given as indices or as a mask (N,); at least one."""
    index = np.asarray(rows)
    if index.dtype == bool and index.shape == (n_samples,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise Refusal(
            f"rows must be a list of at least one index, or a mask of shape ({n_samples},); "
            f"got {index.dtype} of shape {index.shape}."
        )
    if index.min() < 0 or index.max() >= n_samples:
        raise Refusal(f"rows must lie in [0, {n_samples}); got {index.min()}..{index.max()}.")
    return index
