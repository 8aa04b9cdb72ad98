"""Containers of arrays, whoever wrote them: a file becomes named arrays, and no code of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dimlab.columns import NOT_THERE, check_numbers_in_text, values_of
from dimlab.io.files import read_npy, read_npz, read_safetensors
from dimlab.io.tables import ENDINGS as TABLES
from dimlab.io.tables import ending_of, read_table
from dimlab.names import SPLIT_WORDS, split_of, splits_of_rows
from dimlab.refusals import Refusal

TORCH = (".pt", ".pth", ".ckpt", ".bin", ".tar")
ENDINGS = (".safetensors", ".npz", ".npy", *TABLES, *TORCH)
FEATURES = (
    "features", "feature", "feats", "feat", "embeddings", "embedding", "emb", "representations",
    "representation", "latents", "latent", "activations", "hidden", "x", "h", "z",
)  # fmt: skip
_WORDS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_SPLIT = re.compile(
    rf"^(?:(?P<before>{_WORDS})[_.\-/](?P<rest>.+)|(?P<start>.+)[_.\-/](?P<after>{_WORDS}))$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(.*?)[_.\-\[ ]?(\d{1,9})\]?$")
_FEWEST = 2  # numbered columns that make a matrix
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")


class Arrays(dict[str, np.ndarray]):
    """Arrays by their names, and why others of the same file are none."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        unusable: Mapping[str, str] | None = None,
        broken: Mapping[str, tuple[int, str]] | None = None,
        aside: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(arrays)
        self.aside = dict(aside or {})
        self.unusable = dict(unusable or {})
        self.broken = dict(broken or {})

    def check(self, name: str) -> None:
        """Refuse to use what cannot be used."""
        if name in self:
            return
        if name in self.broken:
            raise Refusal(self.broken[name][1])
        if name in self.unusable:
            raise Refusal(self.unusable[name])

    def without(self, word: str) -> Arrays:
        """Leave out what is called so, in letters of any size."""
        kept = {name: array for name, array in self.items() if name.lower() != word}
        unusable = {name: each for name, each in self.unusable.items() if name.lower() != word}
        return Arrays(kept, unusable, self.broken, self.aside)

    def like(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return other arrays of the same file."""
        return Arrays(arrays, self.unusable, self.broken, self.aside)


def read_arrays(path: Path, file: BinaryIO | None = None) -> Arrays:
    """Read the arrays of a file under the names that they have there."""
    ending = ending_of(path)
    if ending in _PACKED and ending_of(path.with_suffix("")) in TABLES:
        raise Refusal(f"features must be a file that is not packed; got {path.name}. Unpack it.")
    if ending not in ENDINGS:
        raise Refusal(f"features must be a file of {', '.join(ENDINGS)}; got {path.name!r}.")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing there"
        raise FileNotFoundError(f"features must be a file; got {path}, {what}.")
    if ending == ".npz":
        return Arrays(read_npz(path, file))
    if ending == ".npy":
        return Arrays({"": read_npy(path, file)})
    if ending == ".safetensors":
        return Arrays(read_safetensors(path)[0])
    if ending in TABLES:
        return gathered(read_rows(path, file))
    from dimlab.io.unpickle import read_torch, read_torch_file

    return arrays_in(read_torch_file(path) if file is None else read_torch(path, file))


def arrays_in(payload: Any) -> Arrays:
    """Name the tensors, and lists of numbers or text, in nested containers."""
    leaves = dict(_leaves(_put_together(payload)))
    arrays = {name: each for name, each in leaves.items() if not isinstance(each, str)}
    return Arrays(arrays, {name: each for name, each in leaves.items() if isinstance(each, str)})


def numbers_and_text_in(path: Path, read: Arrays) -> Arrays:
    """Keep what holds numbers or text of the arrays that were read from a file."""
    arrays = {}
    for name, array in read.items():
        if array.ndim and array.dtype.kind in "fiubUS":
            name = name.removeprefix("factor:")
            try:
                check_numbers_in_text(text_of(array).reshape(-1), repr(name))
            except ValueError as error:
                read.unusable[name] = str(error)
                continue
            arrays[name] = array
        elif array.ndim:
            read.unusable[name] = f"{name!r} must hold real numbers or text; got {array.dtype}."
    if not arrays and not read.unusable and not read.broken:
        raise Refusal(f"{path.name} must hold arrays of numbers; got none.")
    return read.like(arrays)


def by_split(
    arrays: Arrays, *, vectors: bool = False, features: str | None = None
) -> dict[str, Arrays]:
    """Tell the arrays of each split apart, by a column ``split`` or by their names."""
    column = split_column(arrays)
    if column is not None:
        parts = column[1]
        rest = {name: array for name, array in arrays.items() if name != column[0]}
        return {
            str(part): arrays.like(
                {
                    name: array[parts == part]
                    for name, array in rest.items()
                    if len(array) == len(parts)
                }
            )
            for part in dict.fromkeys(parts.tolist())
        }
    found: dict[str, Arrays] = {}
    whole: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        known = of_split(name)
        if known is None:
            whole[name] = array
            continue
        part = found.setdefault(known[0], arrays.like({}))
        if known[1] in part:
            raise Refusal(
                f"arrays must be named once for each split; got two called {known[1]!r} of "
                f"{known[0]}, one of them {name!r}. Rename one."
            )
        part[known[1]] = array
    if vectors:
        sizes = {len(each) for part in found.values() for each in part.values()}
        return _with_whole(found, whole, sizes) or {"": arrays}
    if features in whole:
        return {"": arrays}
    return _of_matrices(arrays, found, whole)


def of_split(name: str) -> tuple[str, str] | None:
    """Read a split off the name of an array."""
    match = _SPLIT.match(name)
    if match is None:
        return None
    split = split_of(match["before"] or match["after"])
    return split, match["rest"] or match["start"]


def _of_matrices(
    arrays: Arrays, found: dict[str, Arrays], whole: dict[str, np.ndarray]
) -> dict[str, Arrays]:
    """Parts of a file of features; what names no split is of the one split there is, or of none."""
    named = {
        split: [name for name, array in part.items() if array.ndim == 2]
        for split, part in found.items()
    }
    matrices = [name for names in named.values() for name in names]
    others = [name for name, array in whole.items() if array.ndim == 2]
    usual = [name for name in matrices if plain(name) in FEATURES]
    beside = [name for name in others if plain(name) in FEATURES]
    several = sum(map(bool, named.values())) > 1
    if not matrices or (others and not usual and (beside or not several)):
        return {"": arrays}  # as features beside logits_val
    if beside and not several:
        raise Refusal(
            f"features must all name their split, or none; got {usual[0]!r} of "
            f"{next(iter(found))} beside {beside[0]!r}. Rename {beside[0]!r} or take it out."
        )
    found = {split: part for split, part in found.items() if named[split]}
    sizes = {len(part[name]) for part in found.values() for name in part if part[name].ndim == 2}
    return _with_whole(found, whole, sizes)


def _with_whole(
    found: dict[str, Arrays], whole: Mapping[str, np.ndarray], sizes: set[int]
) -> dict[str, Arrays]:
    """Add what names no split to the one there is, and note it aside in several."""
    for name, array in whole.items():
        if len(array) not in sizes:
            continue  # nothing of samples
        for part in found.values():
            if len(found) == 1:
                part.setdefault(name, array)
            else:
                part.aside[name] = f"{name!r} must name its split, as other arrays do; got none."
    return found


def split_column(arrays: Arrays) -> tuple[str, np.ndarray] | None:
    """Find the column that says of each row which split it is of."""
    for each, sentence in arrays.unusable.items():
        if each.lower() == "split":
            raise Refusal(sentence)
    name = next((each for each in arrays if each.lower() == "split"), None)
    if name is None:
        return None
    column = text_of(arrays[name])
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    return name, splits_of_rows(column, name)


def plain(name: str) -> str:
    """Return the last part of a dotted name, in lower case."""
    return name.rsplit(".", 1)[-1].lower()


def text_of(array: np.ndarray) -> np.ndarray:
    """Return text as text, bytes decoded; other arrays as they are."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def read_rows(path: Path, file: BinaryIO | None = None) -> Any:
    """Read a table with at least one row as a DataFrame; of parquet with the index of pandas."""
    frame = read_table(path, file, index=True)
    if len(frame) == 0:
        raise Refusal(f"{path.name} must have at least one row; got none.")
    return frame


def gathered(frame: Any) -> Arrays:
    """Columns of a table, numbered ones together as one array (N, D)."""
    found = Arrays({})
    members: set[str] = set()
    for name, family in _families(frame).items():
        short = name.rstrip("_.-[ ")
        try:
            found[short] = _matrix(frame, name, family)
            members |= {column for _, column in family}
        except ValueError as error:
            found.broken[short] = len(family), str(error)
    rest = columns_of(frame, [each for each in frame.columns if each not in members])
    return Arrays({**found, **rest}, rest.unusable, found.broken)


def columns_of(frame: Any, names: Sequence[str]) -> Arrays:
    """Columns of a table as arrays, each by itself."""
    found = Arrays({})
    for name, kind in frame.attrs.get("unread", {}).items():
        found.unusable[name] = f"column {name!r} must hold numbers or text; got {kind[:40]}."
    for name in names:
        try:
            found[name] = _column(frame[name])
        except ValueError as error:
            found.unusable[name] = str(error)
    return found


def _families(frame: Any) -> dict[str, list[tuple[int, str]]]:
    """Numbered columns by their common name: numbers, or what is called as features are."""
    families: dict[str, list[tuple[int, str]]] = {}
    for column in frame.columns:
        found = _NUMBERED.match(column)
        if found:
            families.setdefault(found[1], []).append((int(found[2]), column))
    return {
        name: family
        for name, family in families.items()
        if len(family) >= _FEWEST
        and (
            plain(name).rstrip("_.-[ ") in FEATURES
            or any(_is_number(frame[column]) for _, column in family)
        )
    }


def _is_number(column: Any) -> bool:
    return column.dtype.kind in "fiu"


def _matrix(frame: Any, name: str, family: list[tuple[int, str]]) -> np.ndarray:
    """One array (N, D) of numbered columns, from 0 or 1 without gaps."""
    known = dict(family)
    if len(known) < len(family):
        number = next(each for each, column in family if known[each] != column)
        first = next(column for each, column in family if each == number)
        raise Refusal(f"columns must be numbered once each; got {first!r} and {known[number]!r}.")
    numbers = sorted(known)
    if numbers[0] > 1:
        raise Refusal(f"columns must be numbered from 0 or 1; got {name!r} from {numbers[0]} on.")
    gap = next((n + 1 for n in numbers[:-1] if n + 1 not in known), None)
    if gap is not None:
        raise Refusal(
            f"columns must be numbered without gaps; got {len(numbers)} of {name!r}, and none for "
            f"{name}_{gap}."
        )
    columns = [known[number] for number in numbers]
    if all(frame[each].dtype.kind == "b" for each in columns):
        return np.asarray(frame[columns].to_numpy(dtype=bool))
    read = {each: frame[each] for each in columns}
    odd = [each for each in columns if not isinstance(read[each].dtype, np.dtype)]
    odd += [each for each in columns if each not in odd and not _is_number(read[each])]
    if not odd:
        return np.asarray(frame[columns].to_numpy())
    for each in odd:
        read[each] = _numeric(read[each])
    return np.stack([np.asarray(read[each]) for each in columns], axis=1)


def _numeric(column: Any) -> np.ndarray:
    """Numbers of a column of pandas' own types, or of Python's; what is none is named."""
    import pandas as pd

    if _is_number(column):  # nullable
        whole = column.dtype.kind != "f" and not column.isna().any()
        kind = np.int64 if whole and column.dtype.kind == "i" else np.uint64 if whole else None
        narrow = (
            np.float32 if column.dtype.itemsize == 4 and column.dtype.kind == "f" else np.float64
        )
        return np.asarray(
            column.to_numpy(dtype=kind) if whole else column.to_numpy(dtype=narrow, na_value=np.nan)
        )
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna().to_numpy() | (column.dtype.kind in "bM")
    if not wrong.any():
        return np.asarray(numbers.to_numpy(dtype=np.float64))
    row = int(np.flatnonzero(wrong)[0])
    value = column.iloc[row]
    said = f"got {str(value)[:40]!r} in column {column.name!r}, row {row}"
    if column.isna().iloc[row] or str(value).strip().lower() in NOT_THERE:
        raise Refusal(f"features must be finite; {said}.")
    points = " Write them as 1000.5." if re.fullmatch(r"[-+\d., ]+", str(value)) else ""
    raise Refusal(f"features must be numbers; {said}.{points}")


def _column(column: Any) -> np.ndarray:
    """Values of a column; one of lists is a matrix."""
    if not isinstance(column.dtype, np.dtype) and _is_number(column):
        return _numeric(column)
    first = column.iloc[0] if len(column) else None
    if isinstance(first, (list, tuple, np.ndarray)) and column.notna().all():
        return _stacked(column.to_numpy(), column.name)
    return values_of(column)


def _stacked(values: np.ndarray, name: Any) -> np.ndarray:
    """Stack lists of numbers of one length."""
    lengths = {len(each) if isinstance(each, (list, tuple, np.ndarray)) else -1 for each in values}
    if len(lengths) != 1:
        raise Refusal(f"column {name!r} must hold lists of one length; got {len(lengths)} lengths.")
    try:
        return np.stack([np.asarray(each, dtype=np.float64) for each in values])
    except (ValueError, TypeError) as error:
        raise Refusal(f"column {name!r} must hold lists of numbers.") from error


def _put_together(tree: Any) -> Any:
    """Make one tensor of a list of batches (N_i, D), as a loop over a loader leaves it."""
    import torch

    if not isinstance(tree, list) or len(tree) < _FEWEST:
        return tree
    if not all(isinstance(each, torch.Tensor) and each.ndim == 2 for each in tree):
        return tree
    if any(each.layout is not torch.strided or each.is_quantized for each in tree):
        return tree
    if len({(each.dtype, each.shape[1], each.is_meta) for each in tree}) > 1:
        return tree
    return torch.cat([each.detach().cpu() for each in tree])


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray | str]]:
    """Tensors, and lists of numbers or text, of nested containers by their dotted names."""
    import torch

    def under(name: Any) -> str:
        return f"{prefix}.{name}" if prefix else str(name)

    if isinstance(tree, torch.Tensor):
        if tree.layout is not torch.strided or tree.is_quantized or tree.is_meta:
            kind = "quantised" if tree.is_quantized else "meta" if tree.is_meta else "sparse"
            yield prefix, f"{prefix!r} must be a tensor of plain values; got a {kind} one."
            return
        plain = tree.detach()
        narrow = plain.is_floating_point() and plain.dtype not in (torch.float32, torch.float64)
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
    """Write names and shapes of arrays for a sentence."""
    chosen = list(arrays if names is None else names)
    listed = ", ".join(f"{name!r} {np.shape(arrays[name])}" for name in chosen[:8])
    return (listed or "nothing") + (f", ... ({len(chosen)} in all)" if len(chosen) > 8 else "")
