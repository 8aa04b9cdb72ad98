"""Features without a model: files that other tools wrote become representations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.columns import factor_of
from dimlab.io.arrays import (
    FEWEST,
    Arrays,
    by_split,
    files_of,
    is_usual,
    numbers_and_text_in,
    of_named_vectors,
    of_split,
    plain,
    read_arrays,
    remark_on_shards,
    shapes_of,
    text_of,
)
from dimlab.io.files import Misnamed, naming, read_safetensors
from dimlab.io.labels import is_file_of_labels, label_values, usual_labels, with_labels
from dimlab.io.tables import ENDINGS as TABLES
from dimlab.io.tables import ending_of
from dimlab.names import FILES, LABELS, SPLIT_WORDS, word_of
from dimlab.refusals import Refusal
from dimlab.representation import FORMAT, Representation, representation_in

_SAID = 3  # sentences on what is left out


@dataclass(frozen=True)
class FeatureLayout:
    """What a file of features holds, and under which names."""

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
    on: str | None = None,
    by_order: bool = False,
) -> Representation:
    """Read features, and what stands beside them, from a file that any tool wrote.

    Parameters
    ----------
    path : path
        ``.npz``, ``.npy``, ``.safetensors``, ``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``, ``.h5``,
        ``.h5ad`` or a torch file of tensors and arrays in plain containers; a folder that
        ``save_to_disk`` of datasets wrote; or a pattern of shards, such as ``features-*.npy``.
    split : {"train", "validation", "test"}, optional
        Which split of a file that holds several (``train_features``, ``X_test``, nested
        containers, or a column ``split`` of a table).
    features : str, optional
        Name of the array (N, D), where it is none of the usual ones. Of a table with columns
        ``name_0, name_1, ...`` the name before the numbers.
    labels : str or path, optional
        Name of the array of class ids or class names; or another file, any of the above
        (``labels.csv:species`` names the column).
    on : str, optional
        The key that another file's labels are joined by: a column there, and an array here. By
        default it is ``filename``, ``file`` or ``image_id``, the first that both have, else a
        column ``row`` there, which counts the samples from 0.
    by_order : bool, default=False
        Whether the rows of the other file are in the order of the samples. Labels that are alone in
        their file have nothing but their order, and need no flag.

    Returns
    -------
    Representation
        Floating features are kept, others cast to float32. Class names become ids in alphabetical
        order; ``meta["class_names"]`` keeps them. Every other array of N values is a factor.
        ``views`` may be (V, N, D) or (N, V, D).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, which array holds the features is not plain, labels are no classes,
        the split is not there or not named where there are several, a value is NaN or infinite, or
        another file of labels has no key, or not one row for each sample.
    TypeError
        If the features are no real numbers.

    Warns
    -----
    UserWarning
        If arrays of the file are left out, because they do not fit the features or cannot be read,
        if the file is one of several shards, or if what its arrays are is assumed.

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
    if split is not None and split not in SPLIT_WORDS.values():
        raise Refusal(f"split must be train, validation or test; got {split!r}.")
    if (on is not None or by_order) and not is_file_of_labels(labels):
        raise Refusal(
            f"on and by_order must come with labels of another file; got labels={labels!r}."
        )
    remark = remark_on_shards(path)
    if remark is not None:
        _warn(remark)
    file = FeatureFile.read(path)
    found = file.part(split, features=features, labels=labels, on=on, by_order=by_order)
    if split is not None and found.meta.get("split", split) != split:
        raise Refusal(f"split must be {found.meta['split']} for {path.name}; got {split!r}.")
    return found


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """A file of features that has been read: its arrays, or what dimlab itself wrote."""

    path: Path
    arrays: Arrays
    own: Representation | None = None

    @classmethod
    def read(cls, path: Path) -> FeatureFile:
        """Read a file of any of the formats."""
        if list(files_of(path)) == [path] and ending_of(path) == ".safetensors":
            arrays, metadata = read_safetensors(path)
            return cls.of(path, Arrays(arrays), metadata)
        return cls.of(path, read_arrays(path)[0])

    @classmethod
    def of(
        cls, path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None
    ) -> FeatureFile:
        """Take what was read from a file."""
        usable, metadata = numbers_and_text_in(path, arrays), metadata or {}
        if metadata.get("format") == FORMAT:
            return cls(path, usable, representation_in(path, arrays, metadata))
        by_name = ending_of(path) in (".npz", ".safetensors")
        return cls(path, of_named_vectors(usable) if by_name else usable)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the file names."""
        if self.own is not None:
            known = self.own.meta.get("split")
            return (str(known),) if known else ()
        return tuple(name for name in by_split(self.arrays) if name)

    def part(
        self,
        split: str | None,
        *,
        features: str | None = None,
        labels: str | os.PathLike[str] | None = None,
        on: str | None = None,
        by_order: bool = False,
        read: Callable[[Path], Arrays] | None = None,
    ) -> Representation:
        """Return a split, or all of a file that holds one split only; ``read`` as `with_labels`."""
        other_file = os.fspath(labels) if labels and is_file_of_labels(labels) else None
        own_labels = None if labels is None or other_file else os.fspath(labels)
        if self.own is None:
            with naming(self.path):
                found = self._chosen(split, features, own_labels)
        elif features is None and own_labels is None:
            found = self.own
        else:
            raise Misnamed(
                f"features and labels must be left out for {self.path.name}, which dimlab wrote; "
                "got a name of an array."
            )
        if other_file is None:
            return found
        return with_labels(found, other_file, self.path.name, on=on, by_order=by_order, read=read)

    def layouts(self) -> tuple[FeatureLayout, ...]:
        """Say what each split holds; nothing where it is not plain."""
        parts = by_split(self.arrays)
        with naming(self.path):
            if any(_usual_name(part) is None for part in parts.values()):
                return ()
            return tuple(_layout(self.path, *each, None, None) for each in parts.items())

    def _chosen(
        self, split: str | None, features: str | None, labels: str | None
    ) -> Representation:
        """Return the representation of a split."""
        path, parts = self.path, by_split(self.arrays, features=features)
        whole = None if features is None else of_split(features)
        if whole is not None and split is None and whole[0] in parts:
            split = whole[0]
        name = next(iter(parts)) if len(parts) == 1 else split
        if name is None or name not in parts:
            raise Refusal(
                f"split must be one of {', '.join(parts)} for {path.name}; got {split or 'none'}."
            )
        part = parts[name]
        if whole is not None and whole[0] == name and features not in part:
            features = whole[1]  # the file calls it so
        layout = _layout(path, name, part, features, labels)
        _say_what_is_left_out(path, part, layout)
        meta: dict[str, Any] = {"source": path.name}
        meta |= {"split": layout.split} if layout.split else {}
        classes = None
        if layout.labels is not None:
            # names of all splits together: a class that test lacks keeps its id
            every = [each[layout.labels] for each in parts.values() if layout.labels in each]
            classes, class_names = label_values(part[layout.labels], every, layout.labels)
            meta |= {"class_names": class_names} if class_names is not None else {}
        return Representation(
            _floating(part[layout.features]),
            labels=classes,
            factors={name: _factor(name, part[array]) for name, array in layout.factors.items()},
            views=None if layout.views is None else _views(part[layout.views], layout.shape),
            meta=meta,
        )


def _under(name: str | None) -> str:
    return f" under {name!r}" if name else ""


def _factor(name: str, array: np.ndarray) -> np.ndarray:
    """Values of a factor; names of files are text, though they be numbers."""
    if word_of(name) in FILES and array.dtype.kind in "iu":
        return array.astype(np.str_)
    return factor_of(text_of(array), name)


def _say_what_is_left_out(path: Path, part: Arrays, layout: FeatureLayout) -> None:
    """Warn, in a sentence each."""
    n_samples = layout.shape[0]
    there = [name for name in layout.left_out if name in part]
    gaps = [name for name in there if part[name].shape == (n_samples,)]
    other = [name for name in there if name not in gaps]
    matrices = [name for name in other if part[name].ndim > 1 and len(part[name]) == n_samples]
    other = [name for name in other if name not in matrices]
    said = [f"they do not fit {n_samples} samples: {shapes_of(part, other)}."] if other else []
    if matrices:
        said.append(f"other arrays are the features: {shapes_of(part, matrices)}.")
    said += [f"{name!r} must be finite; got NaN or infinity." for name in gaps]
    said += [part.unusable[name] for name in layout.left_out if name not in part]
    if part.assumed:
        _warn(f"{path.name}: assumed: {part.assumed}.")
    for sentence in said[:_SAID]:
        _warn(f"{path.name}: left out, as {sentence}")
    if len(said) > _SAID:
        _warn(f"{path.name}: left out, {len(said) - _SAID} more that cannot be read.")


def _warn(sentence: str) -> None:
    warnings.warn(sentence, UserWarning, stacklevel=2)


def _layout(
    path: Path, split: str, arrays: Arrays, features: str | None, labels: str | None
) -> FeatureLayout:
    """Tell which array is what."""
    chosen = _features_name(path, arrays, features)
    n_samples, n_dimensions = shape = arrays[chosen].shape
    others = [name for name in arrays if name != chosen]
    labelled = _labels_name(arrays, others, chosen, labels)
    views, factors, left_out = None, {}, []
    for name in others:
        array = arrays[name]
        if name == labelled:
            continue
        turned = array.ndim == 3 and shape in (array.shape[1:], (array.shape[0], array.shape[2]))
        if plain(name) == "views" and turned:
            views = name
        elif array.shape == (n_samples,) and (array.dtype.kind != "f" or np.isfinite(array).all()):
            factors[name.rsplit(".", 1)[-1]] = name
        else:
            left_out.append(name)
    left_out += [name for name in arrays.unusable if name not in arrays]
    size = int(n_samples), int(n_dimensions)
    return FeatureLayout(split, chosen, size, labelled, views, factors, tuple(left_out))


def _labels_name(arrays: Arrays, others: list[str], chosen: str, labels: str | None) -> str | None:
    """Name of the array of labels: as it was said, or one of the usual ones."""
    if labels is not None:
        arrays.check(labels)
        if labels not in others:
            raise Misnamed(
                f"labels must be a file, or one of {shapes_of(arrays, others)}; got {labels!r}."
            )
        return labels
    rest = arrays.like({name: arrays[name] for name in others})
    usual = usual_labels(rest, len(arrays[chosen]))
    second = {"0": "1", "arr_0": "arr_1"}.get(chosen, "")  # (features, labels), without names
    if usual is None and second in others and arrays[second].dtype.kind in "iuUS":
        return second
    return usual


def _features_name(path: Path, arrays: Arrays, features: str | None) -> str:
    """Name of the array of features: as it was said, or the one that is plain."""
    matrices = _matrices(arrays)
    if features is not None:
        arrays.check(features)
        if features not in matrices:
            known = f"one of {shapes_of(arrays, matrices)}" if matrices else "an array (N, D)"
            raise Misnamed(f"features must be {known}; got {features!r}.")
        return features
    usual = _usual_name(arrays)
    if usual is not None:
        return usual
    for name in arrays.unusable if not arrays else ():
        arrays.check(name)
    if not matrices:
        is_table = ending_of(path) in TABLES
        called = " Columns of a table are called embedding_0, embedding_1, ..." if is_table else ""
        left = "".join(f" Left out: {each}" for each in list(arrays.unusable.values())[:1])
        if [each.ndim for each in arrays.values()] == [1]:
            called += (
                " Vectors of one sample each are named together by a pattern in quotation marks, "
                f"such as '{path.with_name('*' + path.suffix)}'."
            )
        called += _to_pool(arrays)
        raise Refusal(
            f"{path.name} must hold features (N, D); got {shapes_of(arrays)}.{left}{called}"
        )
    raise Refusal(
        f"features must name one of the arrays of {path.name}, {shapes_of(arrays, matrices)}; got "
        f"nothing. Pass features=NAME (--features NAME).{_to_pool(arrays)}"
    )


def _to_pool(arrays: Arrays) -> str:
    """Say what to do with one array a sample where their shapes differ."""
    shapes = [each.shape for each in arrays.values() if each.dtype.kind == "f" and each.ndim]
    ragged = len(shapes) >= FEWEST and len({*shapes}) > 1
    return " Samples need vectors of one length: pool each of them first." if ragged else ""


def _matrices(arrays: Arrays) -> list[str]:
    return [
        name
        for name, array in arrays.items()
        if array.ndim == 2 and array.dtype.kind in "fiub" and array.size
    ]


def _usual_name(arrays: Arrays) -> str | None:
    """Return the name of the one array that is called as features are, or is the only one."""
    # one-hot labels, or labels in a column of their own, are no features
    matrices = [name for name in _matrices(arrays) if plain(name) not in LABELS]
    named = [name for name in (*matrices, *arrays.broken, *arrays.unusable) if is_usual(name)]
    if named:
        arrays.check(named[0])
        return named[0] if len(named) == 1 else None
    for name, array in arrays.items() if not matrices else ():
        if is_usual(name) and array.ndim > 2 and array.dtype.kind in "fiub":
            raise Refusal(
                f"features must have shape (N, D); got {name!r} of shape {array.shape}. Pool or "
                "flatten them first."
            )
    for name in arrays.broken:
        arrays.check(name)
    return matrices[0] if len(matrices) == 1 else None


def _views(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(V, N, D), of that or of (N, V, D)."""
    return _floating(array if array.shape[1:] == shape else np.moveaxis(array, 1, 0))


def _floating(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array if array.dtype.kind == "f" else array.astype(np.float32)
