"""Images in parquet and Arrow files, as Hugging Face data sets are published and saved."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.columns import factor_of, values_of
from dimlab.datasets.splits import official_part, part_of
from dimlab.datasets.tables import LABELS, classes_of, column_named, given
from dimlab.images import SPLITS, ImageFiles, ImageSet
from dimlab.io.files import DAMAGED, Misnamed, json_of, listed, reason_of
from dimlab.names import split_of, word_of
from dimlab.refusals import Refusal

_HELD = 1 << 28  # bytes of a parquet file's row groups that a process keeps


def huggingface(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None,
    image_size: int | None = None,
    resize: int | None = None,
    crop: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
) -> ImageSet:
    """Images in parquet or Arrow files, as Hugging Face data sets are published and saved.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which images.
    data_dir : path
        A ``.parquet`` or ``.arrow`` file, or a folder of them, as ``save_to_disk`` or the hub lay
        them out. Splits are told by the beginning of the files' names, or by their folder.
    image_size, resize, crop, workers, skip_bad
        As in `image_folder`.
    image_column : str, optional
        The column of images; by default the only one that holds bytes.
    label_column : str, optional
        The column of class ids or names; by default the only ClassLabel, else the one called label.

    Returns
    -------
    ImageSet
        Three channels, decoded when they are needed. Class names are those that the files record;
        columns of numbers and text are factors.

    Raises
    ------
    ValueError
        If the split is unknown or empty, no column or several could be meant, a file is damaged, or
        a number is out of range; when it is decoded, if an image cannot be read.
    FileNotFoundError
        If there is no such file or folder.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import io, tempfile
    >>> import pyarrow as pa, pyarrow.parquet as pq
    >>> from PIL import Image
    >>> Image.new("RGB", (8, 8), "red").save(png := io.BytesIO(), "png")
    >>> columns = {"image": [{"bytes": png.getvalue(), "path": "a.png"}] * 3, "label": [1, 0, 1]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table(columns), f"{folder}/train-00000-of-00001.parquet")
    ...     pq.write_table(pa.table(columns), f"{folder}/test-00000-of-00001.parquet")
    ...     images = huggingface("test", data_dir=folder, image_size=4)
    ...     pixels = images.images[0]
    >>> images, images.labels.tolist(), pixels[:, 0, 0].tolist()
    (ImageSet('huggingface', test, 3 images of 3 x 4 x 4, 2 classes), [1, 0, 1], [255, 0, 0])
    """
    official_part(split)
    if data_dir is None:
        raise Misnamed("huggingface needs data_dir: pass a folder of parquet or Arrow files.")
    root = Path(data_dir).expanduser().absolute()
    by_split = _files_by_split(root)
    part, paths = zip(*[(p, f) for p, files in by_split.items() for f in files], strict=True)
    shards = [_Shard.of(path) for path in paths]
    first = shards[0]
    odd = [each.path for each in shards if each.kinds != first.kinds]
    if odd:
        raise Refusal(
            f"{odd[0]} must have the columns of {first.path.name}; got others. Name one data set "
            "with --data-dir."
        )
    column = ArrowImages(list(paths), _image_column(first, image_column), [s.n for s in shards])
    label = _label_column(first, label_column)
    labels, class_names = _labels_in(shards, label)
    plain = [name for name, kind in first.kinds.items() if kind == "plain" and name != label]
    values = {name: _joined(shards, name) for name in plain}
    names = np.array([f"{root.name}, image {row}" for row in range(sum(column.lengths))])
    whole = ImageSet(
        ImageFiles.of(
            column, names, image_size=image_size, resize=resize, crop=crop, workers=workers,
            skip_bad=skip_bad,
        ),
        labels,
        factors={name: factor_of(each, name) for name, each in values.items() if each is not None},
        name="huggingface",
        folder=str(root),
        class_names=class_names,
        reading=given(image_column=image_column, label_column=label_column),
    )  # fmt: skip
    return part_of(whole, split, None if "" in part else np.repeat(part, column.lengths))


def _files_by_split(root: Path) -> dict[str, list[Path]]:
    """Return the files of each split, train first; of "" where no name says a split."""
    if not root.exists():
        raise FileNotFoundError(f"data_dir must be a folder or file; got {str(root)!r}.")
    found = [root] if root.is_file() else sorted(root.rglob("*"))
    found = [
        each
        for each in found
        if each.suffix in (".parquet", ".arrow")
        and not each.name.startswith(("cache-", "."))  # what datasets keeps of computations
    ]
    if not found:
        raise Refusal(f"{root} must hold parquet or Arrow files; got none.")
    by_split: dict[str, list[Path]] = {}
    for each in found:
        by_split.setdefault(_split_named(each, root), []).append(each)
    unnamed = by_split.pop("", [])
    if unnamed and by_split:
        raise Refusal(
            f"{root} must hold files of splits, or of none; got {unnamed[0].name} beside "
            f"{next(iter(by_split.values()))[0].name}. Name one of them with --data-dir."
        )
    for part, files in by_split.items():
        if len({each.parent for each in files}) > 1:
            raise Refusal(
                f"{root} must hold one data set; got {part} in {files[0].parent.name} and "
                f"{files[-1].parent.name}. Name one folder with --data-dir."
            )
    if unnamed:
        return {"": unnamed}
    return {part: by_split[part] for part in ("train", "test", "validation") if part in by_split}


def _split_named(path: Path, root: Path) -> str:
    """Return the split that a file's name begins with, or that a folder above it has."""
    first = re.split(r"[-_.]", path.name)[0]
    folders = () if path == root else path.relative_to(root).parts[-2::-1]
    words = [split_of(each) for each in (first, *folders)]
    return next((word for word in words if word in SPLITS), "")


@dataclass(frozen=True)
class _Shard:
    """A parquet or Arrow file: its columns by what they hold, and what Hugging Face recorded."""

    path: Path
    n: int  # rows
    kinds: dict[str, str]  # by column: image, plain or other
    features: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> _Shard:
        """Read the schema of a file."""
        with _reading(path):
            if path.suffix == ".parquet":
                import pyarrow.parquet as parquet

                file = parquet.ParquetFile(path)
                schema, n_rows = file.schema_arrow, file.metadata.num_rows
            else:
                table = _arrow_table(path)
                schema, n_rows = table.schema, table.num_rows
            features = _features(schema, path)
        kinds = {each.name: _kind(each.type, features.get(each.name)) for each in schema}
        return cls(path, n_rows, kinds, features)

    def column(self, name: str) -> Any:
        """Return a column as pandas' series."""
        with _reading(self.path):
            if self.path.suffix == ".parquet":
                import pyarrow.parquet as parquet

                found = parquet.read_table(self.path, columns=[name])[name]
            else:
                found = _arrow_table(self.path)[name]
            found.validate(full=True)  # text need not be UTF-8
            return found.to_pandas()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises of a damaged file, or its absence, into one sentence."""
    try:
        from pyarrow import ArrowException
    except ModuleNotFoundError as error:
        raise ImportError(
            f'pyarrow must be installed to read {path.name}: pip install "dimlab[parquet]".'
        ) from error
    try:
        yield
    except (ArrowException, *DAMAGED) as error:  # not all of Arrow's are ValueErrors
        raise Refusal(
            f"{path.name} must be a complete {path.suffix} file; got a damaged one "
            f"({reason_of(error)})."
        ) from error


def _arrow_table(path: Path) -> Any:
    """Map an Arrow file, a stream as Hugging Face writes it or a file with an index."""
    import pyarrow as pa

    mapped = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(mapped).read_all()
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_file(mapped).read_all()


def _features(schema: Any, path: Path) -> Mapping[str, Any]:
    """Return what Hugging Face recorded of the columns, in the file or beside it."""
    recorded = (schema.metadata or {}).get(b"huggingface")
    beside = path.parent / "dataset_info.json"
    if recorded:
        return dict(json_of(recorded)["info"]["features"])
    return dict(json_of(beside.read_bytes())["features"]) if beside.is_file() else {}


def _kind(arrow_type: Any, feature: Any) -> str:
    """Say what a column holds: images (bytes, or bytes and path), numbers or text, or else."""
    import pyarrow.types as types

    recorded = feature.get("_type") if isinstance(feature, Mapping) else None
    inner = {each.name for each in arrow_type} if types.is_struct(arrow_type) else set()
    binary = types.is_binary(arrow_type) or types.is_large_binary(arrow_type)
    if recorded == "Image" or "bytes" in inner or binary:
        return "image"
    plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_string)
    return "plain" if any(each(arrow_type) for each in plain) else "other"


def _image_column(shard: _Shard, asked: str | None) -> str:
    there = [name for name, kind in shard.kinds.items() if kind == "image"]
    if len(there) == 1 and asked is None:
        return there[0]
    if asked not in there:
        raise Misnamed(
            f"image_column (--image-column) must be a column of images of {shard.path.name}, "
            f"{listed(there) or 'which has none'}; got {asked or 'nothing'}."
        )
    return str(asked)


def _label_column(shard: _Shard, asked: str | None) -> str | None:
    recorded = [name for name in shard.kinds if _class_names(shard, name) is not None]
    plain = [name for name, kind in shard.kinds.items() if kind == "plain"]
    usual = [word_of(name) for name in recorded] or LABELS
    return column_named(shard.path.name, plain, asked, usual, "label_column")


def _class_names(shard: _Shard, name: str | None) -> list[str] | None:
    feature = shard.features.get(name or "")
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return None
    return [str(each) for each in feature.get("names") or ()]


def _labels_in(
    shards: Sequence[_Shard], label: str | None
) -> tuple[np.ndarray | None, Sequence[str]]:
    """Return class ids and class names; ids of -1 alone mean that nobody knows them."""
    if label is None:
        return None, ()
    values = _joined(shards, label)
    if values is None:
        raise Refusal(f"column {label!r} must hold a label in every row; got gaps.")
    if values.dtype.kind == "i" and (values == -1).all():
        return None, ()
    labels, names = classes_of(values, label)
    return labels, _class_names(shards[0], label) or names


def _joined(shards: Sequence[_Shard], name: str) -> np.ndarray | None:
    """Return the values of a column of all shards; None where some are missing."""
    import pandas as pd

    column = pd.concat([shard.column(name) for shard in shards], ignore_index=True)
    return None if column.isna().any() else values_of(column.rename(name))


@dataclass
class ArrowImages:
    """The images of a column, whose files are opened when they are read, once a process."""

    paths: Sequence[Path]
    column: str
    lengths: Sequence[int]
    parts: dict[Any, Any] = field(default_factory=dict)  # what is open, or was read last

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "parts": {}}  # another process opens the files itself

    def __getitem__(self, row: int) -> Any:
        stops = np.cumsum(self.lengths)
        file = int(np.searchsorted(stops, row, side="right"))
        path, before = self.paths[file], int(stops[file]) - self.lengths[file]
        chunk, place = self._chunk(path, row - before)
        value = chunk[place].as_py()
        if isinstance(value, dict):
            name = value.get("path")
            value = value.get("bytes") or (name and str(path.parent / name))
        return value if value is not None else b""

    def _chunk(self, path: Path, row: int) -> tuple[Any, int]:
        """Return a part of the column, and the place of a row of the file in it."""
        if path.suffix == ".arrow":
            if path not in self.parts:
                self.parts[path] = _arrow_table(path)[self.column]
            return self.parts[path], row
        import pyarrow.parquet as parquet

        if path not in self.parts:
            self.parts[path] = parquet.ParquetFile(path, memory_map=True)
        file, group = self.parts[path], 0
        while row >= (n_rows := file.metadata.row_group(group).num_rows):
            row, group = row - n_rows, group + 1
        key = path, group
        if key not in self.parts:
            read = file.read_row_group(group, columns=[self.column])[self.column]
            held = [each for each in self.parts if isinstance(each, tuple)]
            while held and sum(self.parts[e].nbytes for e in held) + read.nbytes > _HELD:
                del self.parts[held.pop(0)]
            self.parts[key] = read
        return self.parts[key], row
