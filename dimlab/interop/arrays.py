"""Containers of arrays, whoever wrote them: a file becomes named arrays, and no code of it runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dimlab import containers
from dimlab.containers import DAMAGED, check_text, map_safetensors, read_npz

TABLES = (".csv", ".tsv", ".parquet")
TORCH = (".pt", ".pth", ".ckpt", ".bin", ".tar")
ENDINGS = (".safetensors", ".npz", ".npy", *TABLES, *TORCH)
_NUMBERED = re.compile(r"^(.*?)[_.\-\[ ]?(\d{1,9})\]?$")
_FEWEST = 2  # numbered columns that make a matrix


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file under the names that they have there.

    Parameters
    ----------
    path : Path
        ``.npz``, ``.npy``, ``.safetensors`` (memory-mapped), a torch file of tensors in plain
        containers, or a table.

    Returns
    -------
    dict of str to ndarray
        Nested names are joined by dots. A lone array is called ``""``, the members of a list ``0``,
        ``1``, ... Numbered columns of a table, ``embedding_0, embedding_1, ...``, are one array
        (N, D) called ``embedding``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has another ending, cannot be read or holds anything but numbers and text.
    """
    if path.suffix not in ENDINGS:
        raise ValueError(f"features must be a file of {', '.join(ENDINGS)}; got {path.name!r}.")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing there"
        raise FileNotFoundError(f"features must be a file; got {path}, {what}.")
    if path.suffix == ".npz":
        return read_npz(path)[0]
    if path.suffix == ".npy":
        return {"": _read_npy(path)}
    if path.suffix == ".safetensors":
        return map_safetensors(path)[0]
    if path.suffix in TABLES:
        return gathered(read_table(path))
    from dimlab.training.checkpoint import read_torch_file

    return dict(_leaves(read_torch_file(path)))


def numbers_and_text(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file that hold numbers or text, one value or more a sample.

    Parameters
    ----------
    path : Path
        As in `read_arrays`.

    Returns
    -------
    dict of str to ndarray
        dimlab's own prefix ``factor:`` is left out of the names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        As `read_arrays`, or if there is no such array.
    """
    arrays = {
        name.removeprefix("factor:"): array
        for name, array in read_arrays(path).items()
        if array.dtype.kind in "fiubUS" and array.ndim
    }
    if not arrays:
        raise ValueError(f"{path.name} must hold arrays of numbers; got none.")
    return arrays


def plain(name: str) -> str:
    """Return the last part of a dotted name, in lower case."""
    return name.rsplit(".", 1)[-1].lower()


def _read_npy(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's about headers of Python 2
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            check_text(array)
            return array
    except DAMAGED as error:
        raise ValueError(
            f"{path.name} must be a complete .npy file of numbers or text; got a damaged one, or "
            "Python objects."
        ) from error


def read_table(path: Path) -> Any:
    """Read a table with a row of names on top.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.tsv`` or ``.parquet``.

    Returns
    -------
    pandas.DataFrame
        At least one row.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, is empty or names a column twice; parquet needs pyarrow.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a table; got nothing there.")
    try:
        frame = containers.read_table(path, missing=("", "nan", "NaN"))
    except ImportError as error:
        raise ValueError(
            f"{path.name} needs pyarrow to be read; got none. Run pip install "
            '"dimlab[parquet]", or write a .csv.'
        ) from error
    if len(frame) == 0:
        raise ValueError(f"{path.name} must have at least one row; got none.")
    return frame


def gathered(frame: Any) -> dict[str, np.ndarray]:
    """Columns of a table, numbered ones together as one array (N, D).

    Parameters
    ----------
    frame : pandas.DataFrame
        N rows.

    Returns
    -------
    dict of str to ndarray
        (N,) or (N, D), in the order of the numbers.

    Raises
    ------
    ValueError
        If numbers are missing or stand twice, or a row of a column of lists has another length.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"f_1": [2.0, 4.0], "f_0": [1.0, 3.0], "label": [0, 1]})
    >>> {name: array.tolist() for name, array in gathered(table).items()}
    {'f': [[1.0, 2.0], [3.0, 4.0]], 'label': [0, 1]}
    """
    families: dict[str, dict[int, str]] = {}
    arrays: dict[str, np.ndarray] = {}
    for column in frame.columns:
        found = _NUMBERED.match(column)
        if found and frame[column].dtype.kind in "fiu":
            family = families.setdefault(found[1], {})
            if int(found[2]) in family:
                raise ValueError(
                    f"columns must be numbered once each; got {family[int(found[2])]!r} and "
                    f"{column!r}."
                )
            family[int(found[2])] = column
    members = {
        column
        for family in families.values()
        if len(family) >= _FEWEST
        for column in family.values()
    }
    for name, family in families.items():
        if len(family) < _FEWEST:
            continue
        numbers = sorted(family)
        gap = next((n + 1 for n in numbers[:-1] if n + 1 not in family), None)
        if gap is not None or numbers[0] > 1:
            missing = f"{name}_{gap or 0}"
            raise ValueError(
                f"columns must be numbered without gaps; got {len(numbers)} of {name!r}, and none "
                f"for {missing}."
            )
        arrays[name.rstrip("_.-[ ")] = frame[[family[number] for number in numbers]].to_numpy()
    for column in frame.columns:
        if column not in members:
            arrays[column] = _column(frame[column])
    return arrays


def _column(column: Any) -> np.ndarray:
    """Values of a column; one of lists is a matrix."""
    values = column.to_numpy()
    if values.dtype != object:
        return values
    first = values[0]
    if isinstance(first, (list, tuple, np.ndarray)):
        lengths = {len(each) if isinstance(each, (list, tuple, np.ndarray)) else -1
                   for each in values}  # fmt: skip
        if len(lengths) != 1:
            raise ValueError(
                f"column {column.name!r} must hold lists of one length; got {len(lengths)} lengths."
            )
        try:
            return np.stack([np.asarray(each, dtype=np.float64) for each in values])
        except (ValueError, TypeError) as error:
            raise ValueError(f"column {column.name!r} must hold lists of numbers.") from error
    if column.isna().any():
        row = int(np.flatnonzero(column.isna().to_numpy())[0])
        raise ValueError(
            f"column {column.name!r} must have a value in each row; got none in row {row}."
        )
    return column.astype(str).to_numpy(dtype=np.str_)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Tensors, and lists of numbers or text, of nested containers by their dotted names."""
    import torch

    def under(name: Any) -> str:
        return f"{prefix}.{name}" if prefix else str(name)

    if isinstance(tree, torch.Tensor):
        if tree.layout is not torch.strided or tree.is_quantized:
            return
        plain = tree.detach()
        narrow = plain.dtype in (torch.bfloat16, torch.float16)
        yield prefix, (plain.float() if narrow else plain).resolve_conj().cpu().numpy()
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, under(name))
    elif isinstance(tree, (list, tuple)):
        if tree and all(isinstance(each, (str, int, float)) for each in tree):
            yield prefix, np.asarray(tree)
            return
        for name, value in enumerate(tree):
            yield from _leaves(value, under(name))


def shapes_of(arrays: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> str:
    """Write names and shapes of arrays for a sentence.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of a file.
    names : sequence of str, optional
        Which of them.

    Returns
    -------
    str
        The first eight.

    Examples
    --------
    >>> shapes_of({"x": np.ones((3, 2)), "y": np.ones(3)})
    "'x' (3, 2), 'y' (3,)"
    """
    chosen = list(arrays if names is None else names)
    listed = ", ".join(f"{name!r} {np.shape(arrays[name])}" for name in chosen[:8])
    return (listed or "nothing") + (f", ... ({len(chosen)} in all)" if len(chosen) > 8 else "")
