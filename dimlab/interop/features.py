"""Features without a model: files that other tools wrote become representations."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.containers import naming
from dimlab.factor_table import FILE, ROW
from dimlab.interop.arrays import (
    TABLES,
    TORCH,
    numbers_and_text,
    plain,
    read_arrays,
    shapes_of,
)
from dimlab.interop.classes import FILES, LABELS, class_ids, is_file_of_labels, text_of, with_labels
from dimlab.representation import FORMAT, Representation, map_safetensors

FEATURES = (
    "features", "feature", "feats", "feat", "embeddings", "embedding", "emb", "representations",
    "representation", "latents", "latent", "activations", "hidden", "x", "h", "z",
)  # fmt: skip
NUMBERS = (ROW, "index", "idx", "id", "unnamed: 0")
SPLITS = {"train": "train", "val": "validation", "valid": "validation"}
SPLITS |= {"validation": "validation", "test": "test"}
_SPLIT = re.compile(
    r"^(?:(?P<before>train|valid|validation|val|test)[_.\-/](?P<rest>.+)"
    r"|(?P<start>.+)[_.\-/](?P<after>train|valid|validation|val|test))$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FeatureLayout:
    """What a file of features holds, and under which names.

    Parameters
    ----------
    split : str
        ``train``, ``validation``, ``test``, or empty where the file names none.
    features : str
        Name of the array (N, D).
    shape : tuple of int
        N and D.
    labels, views : str or None
        Names of the arrays of class ids or names, and of views.
    factors : dict of str to str
        Names of factors, and of their arrays.
    left_out : tuple of str
        Arrays that are none of these.
    """

    split: str
    features: str
    shape: tuple[int, int]
    labels: str | None
    views: str | None
    factors: dict[str, str]
    left_out: tuple[str, ...]

    def in_words(self) -> str:
        """Say it in a sentence."""
        n_samples, n_dimensions = self.shape
        parts = [f"features {n_samples} x {n_dimensions}{_under(self.features)}"]
        parts += [f"labels{_under(self.labels)}"] if self.labels is not None else ["no labels"]
        parts += [f"views{_under(self.views)}"] if self.views is not None else []
        parts += [f"factors {', '.join(self.factors)}"] if self.factors else []
        parts += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return (f"{self.split}: " if self.split else "") + "; ".join(parts)


def load_features(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    features: str | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Representation:
    """Read features, and what stands beside them, from a file that any tool wrote.

    Parameters
    ----------
    path : path
        ``.npz``, ``.npy``, ``.safetensors``, ``.csv``, ``.tsv``, ``.parquet`` or a torch file of
        tensors in plain containers.
    split : {"train", "validation", "test"}, optional
        Which split of a file that holds several (``train_features``, ``X_test``, nested
        containers, or a column ``split`` of a table).
    features : str, optional
        Name of the array (N, D), where it is none of the usual ones. Of a table with columns
        ``name_0, name_1, ...`` the name before the numbers.
    labels : str or path, optional
        Name of the array of class ids or class names; or another file: ``.npy`` or any of the above
        by row, or a table by its column ``file`` or ``row``, or by row where it has neither
        (``labels.csv:species`` names the column).

    Returns
    -------
    Representation
        Floating features are kept, others cast to float32. Class names become ids in alphabetical
        order; ``meta["class_names"]`` keeps them. Every other array of N values is a factor, a
        column of file names the factor ``file``. ``views`` may be (V, N, D) or (N, V, D).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, which array holds the features is not plain, labels are no classes,
        the split is not there or not named where there are several, or a value is NaN or infinite.
    TypeError
        If the features are no real numbers.

    Warns
    -----
    UserWarning
        If arrays of the file are left out, because they do not fit the features.

    Notes
    -----
    No code in a file is ever run: Python objects are refused.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "embeddings.npz"
    ...     np.savez(path, emb=np.eye(3), y=np.array(["cat", "dog", "cat"]), site=[0, 0, 1])
    ...     split = load_features(path)
    >>> split.labels.tolist(), split.meta["class_names"], split.factors["site"].tolist()
    ([0, 1, 0], ['cat', 'dog'], [0, 0, 1])
    """
    path = Path(path)
    if split is not None and split not in SPLITS.values():
        raise ValueError(f"split must be train, validation or test; got {split!r}.")
    found = part_of(path, split, features=features, labels=labels)
    if split is not None and found.meta.get("split", split) != split:
        raise ValueError(f"split must be {found.meta['split']} for {path.name}; got {split!r}.")
    return found


def part_of(
    path: str | os.PathLike[str],
    split: str | None,
    *,
    features: str | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Representation:
    """Read a split of a file of features, or all of a file that holds one split only.

    Parameters
    ----------
    path, features, labels : path, str and str or path
        As in `load_features`.
    split : str or None
        Which split of several.

    Returns
    -------
    Representation
        ``meta["split"]`` says which, where the file does.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        As `load_features`, but not for the one split of another name.
    TypeError
        As `load_features`.
    """
    path, other_file = Path(path), is_file_of_labels(labels)
    if path.suffix == ".safetensors" and path.is_file() and _is_own(path):
        found = Representation.load(path)
        if features is not None or (labels is not None and not other_file):
            raise ValueError(
                f"features and labels must be left out for {path.name}, which dimlab wrote; got a "
                "name of an array."
            )
    else:
        with naming(path):
            found = _chosen(path, split, features, None if other_file else labels)
    return with_labels(found, os.fspath(labels)) if labels is not None and other_file else found


def splits_of(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Say which splits a file of features names.

    Parameters
    ----------
    path : path
        As in `load_features`.

    Returns
    -------
    tuple of str
        Among ``train``, ``validation`` and ``test``; empty where it names none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file() and _is_own(path):
        own = Representation.load(path).meta.get("split")
        return (str(own),) if own else ()
    return tuple(name for name in _by_split(numbers_and_text(path)) if name)


def identify_features(path: str | os.PathLike[str]) -> tuple[FeatureLayout, ...]:
    """Say what a file of features holds.

    Parameters
    ----------
    path : path
        Any file.

    Returns
    -------
    tuple of FeatureLayout
        One for each split; empty for a file that holds no features.
    """
    path = Path(path)
    try:
        parts = _by_split(numbers_and_text(path))
        return tuple(_layout(path, split, part, None, None) for split, part in parts.items())
    except (ValueError, TypeError, OSError):
        return ()


def holds_features(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of features; what is none may be a checkpoint.

    Parameters
    ----------
    path : path
        Any file. Tables and numpy files always are; torch files and safetensors by what they hold.

    Returns
    -------
    bool
        False for a file that is not there or cannot be read, unless its ending tells.

    Examples
    --------
    >>> holds_features("test.npz"), holds_features("checkpoint.pt")
    (True, False)
    """
    path = Path(path)
    if path.suffix in (".npz", ".npy", *TABLES):
        return True
    if path.suffix == ".safetensors":
        try:
            names = list(map_safetensors(path)[0])
        except (ValueError, OSError):
            return True  # whoever reads it says what is wrong
        return not any(plain(name) in ("weight", "bias") for name in names)
    if path.suffix not in TORCH or not path.is_file():
        return False
    try:
        from dimlab.training.checkpoint import has_format, read_torch_file

        if has_format(read_torch_file(path)):
            return False  # dimlab's own checkpoint
    except (ValueError, OSError):
        return False
    arrays = read_arrays(path)
    if any(plain(name) in ("weight", "bias") for name in arrays):
        return False
    return len(identify_features(path)) > 0


def _is_own(path: Path) -> bool:
    return map_safetensors(path)[1].get("format") == FORMAT


def _under(name: str | None) -> str:
    return f" under {name!r}" if name else ""


def _by_split(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of each split; of a split without a name where none is named."""
    if "split" in arrays and arrays["split"].ndim == 1 and arrays["split"].dtype.kind == "U":
        parts = arrays["split"]
        rest = {name: array for name, array in arrays.items() if name != "split"}
        return {
            SPLITS.get(str(part).lower(), str(part)): {
                name: array[parts == part]
                for name, array in rest.items()
                if len(array) == len(parts)
            }
            for part in dict.fromkeys(parts.tolist())
        }
    found: dict[str, dict[str, np.ndarray]] = {}
    rest = {}
    for name, array in arrays.items():
        match = _SPLIT.match(name)
        if match:
            split = SPLITS[(match["before"] or match["after"]).lower()]
            found.setdefault(split, {})[match["rest"] or match["start"]] = array
        else:
            rest[name] = array
    if any(array.ndim == 2 for part in found.values() for array in part.values()):
        return found
    return {"": dict(arrays)}


def _chosen(
    path: Path,
    split: str | None,
    features: str | None,
    labels: str | os.PathLike[str] | None,
) -> Representation:
    parts = _by_split(numbers_and_text(path))
    if len(parts) == 1:
        name, part = next(iter(parts.items()))
    elif split not in parts:
        raise ValueError(
            f"split must be one of {', '.join(parts)} for {path.name}; got {split or 'none'}."
        )
    else:
        name, part = split, parts[split]
    layout = _layout(path, name, part, features, None if labels is None else os.fspath(labels))
    if layout.left_out:
        warnings.warn(
            f"{path.name}: left out, as they do not fit {layout.shape[0]} samples: "
            f"{shapes_of(part, layout.left_out)}.",
            UserWarning,
            stacklevel=3,
        )
    meta: dict[str, Any] = {"source": path.name}
    meta |= {"split": layout.split} if layout.split else {}
    classes = None
    if layout.labels is not None:
        # names of all splits together: a class that test lacks keeps its id
        every = [each[layout.labels] for each in parts.values() if layout.labels in each]
        classes, class_names = class_ids(part[layout.labels], every, layout.labels)
        meta |= {"class_names": class_names} if class_names is not None else {}
    return Representation(
        _matrix(part[layout.features], layout.features),
        labels=classes,
        factors={
            name: text_of(part[array]) for name, array in layout.factors.items()
        },
        views=None if layout.views is None else _views(part[layout.views], layout.shape),
        meta=meta,
    )  # fmt: skip


def _layout(
    path: Path,
    split: str,
    arrays: Mapping[str, np.ndarray],
    features: str | None,
    labels: str | None,
) -> FeatureLayout:
    """Tell which array is what."""
    chosen = _features_name(path, arrays, features)
    n_samples, n_dimensions = arrays[chosen].shape
    others = [name for name in arrays if name != chosen]
    if labels is not None:
        if labels not in others:
            raise ValueError(
                f"labels must be a file, or one of {shapes_of(arrays, others)}; got {labels!r}."
            )
        labelled: str | None = labels
    else:
        known = [
            name
            for word in LABELS
            for name in others
            if plain(name) == word and len(arrays[name]) == n_samples
        ]
        labelled = known[0] if known else None
        second = {"0": "1", "arr_0": "arr_1"}.get(chosen, "")  # (features, labels), without names
        if labelled is None and second in others and arrays[second].dtype.kind in "iuUS":
            labelled = second
    views, factors, left_out = None, {}, []
    for name in others:
        array, word = arrays[name], plain(name)
        if name == labelled:
            continue
        if word == "views" and _fits(array, (n_samples, n_dimensions)):
            views = name
        elif array.shape != (n_samples,):
            left_out.append(name)
        elif word in FILES and array.dtype.kind in "US":
            factors[FILE] = name
        elif word in NUMBERS and array.dtype.kind in "iu":
            continue  # a number of the row says nothing of the sample
        else:
            factors[name.rsplit(".", 1)[-1]] = name
    shape = int(n_samples), int(n_dimensions)
    return FeatureLayout(split, chosen, shape, labelled, views, factors, tuple(left_out))


def _features_name(path: Path, arrays: Mapping[str, np.ndarray], features: str | None) -> str:
    matrices = [
        name
        for name, array in arrays.items()
        if array.ndim == 2 and array.dtype.kind in "fiub" and array.size
    ]
    if features is not None:
        if features not in matrices:
            raise ValueError(
                f"features must be one of {shapes_of(arrays, matrices)}; got {features!r}."
            )
        return features
    named = [name for word in FEATURES for name in matrices if plain(name) == word]
    if named:
        return named[0]
    if len(matrices) == 1:
        return matrices[0]
    if not matrices:
        raise ValueError(
            f"{path.name} must hold features (N, D); got {shapes_of(arrays)}. Columns of a table "
            "are called embedding_0, embedding_1, ..."
        )
    raise ValueError(
        f"features must name one of the arrays of {path.name}, {shapes_of(arrays, matrices)}; got "
        "nothing."
    )


def _fits(array: np.ndarray, shape: tuple[int, int]) -> bool:
    return array.ndim == 3 and (
        array.shape[1:] == shape or (array.shape[0], array.shape[2]) == shape
    )


def _views(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(V, N, D), of that or of (N, V, D)."""
    array = array if array.shape[1:] == shape else np.moveaxis(array, 1, 0)
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def _matrix(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "f":
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
