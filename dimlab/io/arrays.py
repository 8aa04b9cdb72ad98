"""Files of arrays from any tool, read as named arrays without running code from them."""

from __future__ import annotations

import glob
import mmap
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dimlab.columns import check_numbers_in_text
from dimlab.io.files import (
    as_arrays,
    in_folder,
    listed,
    mapped,
    open_tensors,
    read_npy,
    read_npz,
)
from dimlab.io.gathering import columns_of, gathered
from dimlab.io.harmless import read_objects
from dimlab.io.tables import ENDINGS as TABLES
from dimlab.io.tables import ending_of, read_table
from dimlab.names import FEATURES, LABELS, SPLIT_WORDS, split_of, splits_of_rows
from dimlab.refusals import Refusal

TORCH = (".pt", ".pth", ".ckpt", ".bin", ".tar")
HDF = (".h5", ".hdf5", ".h5ad")
ENDINGS = (".safetensors", ".npz", ".npy", *TABLES, *HDF, *TORCH)
_WORDS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_SPLIT = re.compile(
    rf"^(?:(?P<before>{_WORDS})[_.\-/](?P<rest>.+)|(?P<start>.+)[_.\-/](?P<after>{_WORDS}))$",
    re.IGNORECASE,
)
_SHARD = re.compile(
    r"^(.*?(?:[-_.]|rank|part|shard|chunk|gpu|worker|batch))\d+((?:[-_]of[-_](\d+))?)$",
    re.IGNORECASE,
)
FEWEST = 8  # named vectors that are samples; fewer are rather columns
_NO_SAMPLES = (*FEATURES, *LABELS, "weight", "bias", "running_mean", "running_var")
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")


class Arrays(dict[str, np.ndarray]):
    """Arrays by name, and the reasons why other entries of the file cannot be used."""

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        unusable: Mapping[str, str] | None = None,
        broken: Mapping[str, str] | None = None,
        assumed: str = "",
    ) -> None:
        super().__init__(arrays)
        self.unusable = dict(unusable or {})
        self.broken = dict(broken or {})  # numbered columns that make no matrix
        self.assumed = assumed  # what the file does not say itself

    def check(self, name: str) -> None:
        """Refuse to use what cannot be used."""
        sentence = self.broken.get(name) or self.unusable.get(name)
        if name not in self and sentence:
            raise Refusal(sentence)

    def like(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return other arrays of the same file."""
        return Arrays(arrays, self.unusable, self.broken, self.assumed)

    def without(self, word: str) -> Arrays:
        """Leave out what is called so, in letters of any size."""
        kept = self.like({name: array for name, array in self.items() if name.lower() != word})
        kept.unusable = {n: each for n, each in self.unusable.items() if n.lower() != word}
        return kept


def files_of(path: Path) -> dict[Path, str]:
    """Return the files that a name means, with the split that each is of: one, or its shards."""
    if ending_of(path) in _PACKED and ending_of(path.with_suffix("")) in TABLES:
        raise Refusal(f"features must be a file that is not packed; got {path.name}. Unpack it.")
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file() and glob.has_magic(str(path)):
        found = [Path(each) for each in sorted(glob.glob(str(path)), key=_by_number)]
        if not found:
            raise FileNotFoundError(f"features must be files; got {path}, which none is called.")
        if len({ending_of(each) for each in found}) > 1:
            raise Refusal(f"shards must be files of one kind; got {listed(found)}.")
    else:
        found = [path]
    if ending_of(found[0]) not in ENDINGS:
        raise Refusal(f"features must be a file of {', '.join(ENDINGS)}; got {path.name!r}.")
    if not found[0].is_file():
        raise FileNotFoundError(f"features must be a file; got {path}, which is not there.")
    return dict.fromkeys(found, "")


def _of_folder(path: Path) -> dict[Path, str]:
    """Return the Arrow files of a data set of Hugging Face, as its save_to_disk writes them."""
    folders = {"": path} | {split_of(each.name): each for each in path.iterdir() if each.is_dir()}
    found = {
        file: split
        for split, folder in folders.items()
        for file in sorted(folder.glob("data-*.arrow"), key=_by_number)
    }
    if not found:
        raise Refusal(
            "features must be a file, or a folder that save_to_disk of datasets wrote; got "
            f"{in_folder(path)}"
        )
    return found


def _by_number(name: str | Path) -> list[Any]:
    """Sort 2 before 10."""
    parts = re.split(r"(\d+)", str(name))
    return [int(each) if place % 2 else each for place, each in enumerate(parts)]


def remark_on_shards(path: Path) -> str | None:
    """Say of a file that it looks like one shard of several."""
    match = _SHARD.match(path.stem)
    if match is None or not path.is_file():
        return None
    pattern = f"{glob.escape(match[1])}*{match[2]}{path.suffix}"
    alike = [each for each in path.parent.glob(pattern) if _SHARD.match(each.stem)]
    n_files = max(len(alike), int(match[3] or 1))
    if n_files < 2:
        return None
    return (
        f"{path.name} is one of {n_files} files that are numbered alike, and is read alone. "
        f"'{path.with_name(pattern)}' names them all."
    )


def read_arrays(path: Path) -> tuple[Arrays, list[mmap.mmap | bytes]]:
    """Read the arrays of a file, or of its shards; also their bytes, for a hash."""
    parts, content = [], []
    files = files_of(path)
    for each, split in files.items():
        if each != path and _is_own(each):
            raise Refusal(
                f"shards must be files of other tools; got {each.name}, which dimlab wrote. Name "
                "such files one by one."
            )
        with each.open("rb") as file:
            parts.append((split, read_file(each, file)))
            content.append(mapped(file))
    found = _of_vectors([each.stem for each in files], [arrays for _, arrays in parts])
    return found or together(path, parts), content


def _of_vectors(names: Sequence[str], parts: Sequence[Arrays]) -> Arrays | None:
    """Make one matrix of files that hold a vector each, and single values beside it perhaps."""
    vectors = [[name for name, array in each.items() if array.ndim] for each in parts]
    if len(parts) < FEWEST or any(len(each) != 1 or each != vectors[0] for each in vectors):
        return None
    chosen = vectors[0][0]
    if any(
        each.keys() != parts[0].keys()
        or each[chosen].dtype.kind != "f"
        or each[chosen].shape != parts[0][chosen].shape
        for each in parts
    ):
        return None
    found = Arrays({name: np.stack([each[name] for each in parts]) for name in parts[0]})
    if found[chosen].ndim != 2:
        return None
    found["file"] = np.array(names)
    found.assumed = f"each of the {len(parts)} files is a sample, and its name a factor 'file'"
    return found


def _is_own(path: Path) -> bool:
    """Whether dimlab wrote a file of tensors."""
    return ending_of(path) == ".safetensors" and "format" in open_tensors(path)[1]


def read_file(path: Path, file: BinaryIO) -> Arrays:
    """Read the arrays of one open file."""
    ending = ending_of(path)
    found: Any = None
    if ending == ".npz":
        found = read_npz(path, file, read_objects)
        if all(isinstance(each, np.ndarray) for each in found.values()):
            return Arrays(found)
    elif ending == ".npy":
        found = read_npy(path, file, read_objects)
        if isinstance(found, np.ndarray):
            return Arrays({"": found})
    if ending == ".safetensors":
        return Arrays(as_arrays(path, open_tensors(path)[0]))
    if ending in TABLES:
        return in_table(read_rows(path, file))
    if ending in HDF:
        from dimlab.io.hdf import read_hdf

        return read_hdf(path, file)
    from dimlab.io.nested import arrays_in
    from dimlab.io.unpickle import read_torch

    return arrays_in(path, read_torch(path, file) if found is None else found)


def together(path: Path, parts: Sequence[tuple[str, Arrays]]) -> Arrays:
    """Put shards one behind the other; arrays of a split are called by its name."""
    splits: dict[str, list[Arrays]] = {}
    for split, arrays in parts:
        splits.setdefault(split, []).append(arrays)
    whole = Arrays({}, parts[0][1].unusable, parts[0][1].broken, parts[0][1].assumed)
    for split, shards in splits.items():
        for name in dict.fromkeys(name for shard in shards for name in shard):
            called = f"{split}.{name}" if split else name
            there = [shard[name] for shard in shards if name in shard]
            if len(shards) == 1:
                whole[called] = there[0]
                continue
            shapes = {each.shape[1:] if each.ndim else None for each in there}
            if len(there) < len(shards) or len(shapes) > 1 or None in shapes:
                raise Refusal(
                    f"shards of {path.name} must hold the same arrays, in rows; got another for "
                    f"{name!r}."
                )
            whole[called] = np.concatenate(there)
    return whole


def read_rows(path: Path, file: BinaryIO) -> Any:
    """Read an open table of at least one row as a DataFrame; of parquet with pandas' index."""
    frame = read_table(path, file, index=True)
    if len(frame) == 0:
        raise Refusal(f"{path.name} must have at least one row; got none.")
    return frame


def in_table(frame: Any, *, apart: bool = False) -> Arrays:
    """Columns of a table; numbered ones are together one array (N, D), or each ``apart``."""
    families, broken = ({}, {}) if apart else gathered(frame)
    members = {column for family, _ in families.values() for column in family}
    columns, unusable = columns_of(frame, [each for each in frame.columns if each not in members])
    found = {name: matrix for name, (_, matrix) in families.items()}
    return Arrays({**found, **columns}, unusable, broken)


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


def of_named_vectors(found: Arrays) -> Arrays:
    """Make one matrix of a file that maps the name of each sample to its vector."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in found.items():
        first, _, rest = name.partition(".")
        split = first if rest and first.lower() in SPLIT_WORDS else ""
        groups.setdefault(split, {})[rest if split else name] = array
    for vectors in groups.values():
        shapes = {each.shape for each in vectors.values()}
        size = next(iter(shapes)) if len(shapes) == 1 else ()
        if len(vectors) < FEWEST or len(size) != 1 or size[0] < 2:
            return found
        if any(plain(name) in _NO_SAMPLES for name in vectors):
            return found
        if any(each.dtype.kind != "f" for each in vectors.values()):
            return found
    made = found.like({})
    for split, vectors in groups.items():
        prefix = f"{split}." if split else ""
        made[f"{prefix}features"] = np.stack(list(vectors.values()))
        made[f"{prefix}file"] = np.array(list(vectors))
    if made:
        n_samples = sum(map(len, groups.values()))
        made.assumed = f"each of its {n_samples} vectors is a sample, and its name a factor 'file'"
    return made


def by_split(
    arrays: Arrays, *, vectors: bool = False, features: str | None = None
) -> dict[str, Arrays]:
    """Tell the arrays of each split apart, by a column ``split`` or by their names."""
    column = split_column(arrays)
    if column is not None:
        name, parts = column
        rest = {n: each for n, each in arrays.items() if n != name and len(each) == len(parts)}
        return {
            str(part): arrays.like({n: each[parts == part] for n, each in rest.items()})
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
    if not vectors:
        found = {split: part for split, part in found.items() if _matrices_in(part)}
    if not found or features in whole:
        return {"": arrays}
    if not vectors:
        named = [name for part in found.values() for name in _matrices_in(part) if is_usual(name)]
        others = _matrices_in(whole)
        beside = [name for name in others if is_usual(name)]
        if not named and (beside or (others and len(found) == 1)):
            return {"": arrays}  # as features beside logits_val
        if named and beside:
            raise Refusal(
                f"features must all name their split, or none; got {named[0]!r} of "
                f"{next(iter(found))} beside {beside[0]!r}. Rename {beside[0]!r} or take it out."
            )
    sizes = {len(each) for part in found.values() for each in part.values()}
    for name, array in whole.items():
        for part in found.values() if len(array) in sizes else ():
            if len(found) == 1:
                part.setdefault(name, array)
            else:
                part.unusable[f"{name} of no split"] = (
                    f"{name!r} must name its split, as other arrays do; got none."
                )
    return found


def _matrices_in(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, array in arrays.items() if array.ndim == 2]


def of_split(name: str) -> tuple[str, str] | None:
    """Read a split off the name of an array."""
    match = _SPLIT.match(name)
    if match is None:
        return None
    split = split_of(match["before"] or match["after"])
    return split, match["rest"] or match["start"]


def split_column(arrays: Arrays) -> tuple[str, np.ndarray] | None:
    """Find the column that says of each row which split it is of."""
    for name in (*arrays.unusable, *arrays):
        if name.lower() == "split":
            arrays.check(name)
            return name, splits_of_rows(flat_text(arrays[name]), name)
    return None


def plain(name: str) -> str:
    """Return the last part of a dotted name, in lower case."""
    return name.rsplit(".", 1)[-1].lower()


def is_usual(name: str) -> bool:
    """Whether an array is called as features are."""
    return plain(name) in FEATURES or name.startswith("obsm.")


def text_of(array: np.ndarray) -> np.ndarray:
    """Return text as text, bytes decoded; other arrays as they are."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def flat_text(array: np.ndarray) -> np.ndarray:
    """Return text as text, and a single column as a vector."""
    return text_of(array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array)


def shapes_of(arrays: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> str:
    """Write names and shapes of arrays for a sentence."""
    shown = (
        f"{name!r} {np.shape(arrays[name])}".removeprefix("'' ")
        for name in (arrays if names is None else names)
    )
    return listed(shown) or "nothing"
