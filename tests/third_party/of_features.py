"""Files of features, as the packages that people use write them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

N, D = 60, 5
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
NAMES = [f"img{row:03}.png" for row in range(N)]
CLASSES = [("cat", "dog", "owl")[row % 3] for row in range(N)]
LABELS = np.arange(N) % 3
FILES: list["FeatureCase"] = []


@dataclass(frozen=True)
class FeatureCase:
    """A row of the table: a file of features, and what becomes of it."""

    name: str
    package: str  # that writes it
    make: Callable[[Path], Path]
    flags: dict[str, Any] = field(default_factory=dict)
    assumes: str = ""  # words of what is assumed
    refuses: str = ""  # words of the refusal; "": it loads
    labels: bool = True

    @property
    def versions(self) -> str:
        """The package with the version that is installed."""
        return f"{self.package} {version(self.package)}"


def file(name: str, package: str, **how: Any) -> Callable[[Any], Any]:
    """Add a row: the function below writes its file into a folder, and returns its path."""

    def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        FILES.append(FeatureCase(name, package, make, **how))
        return make

    return add


def objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def records(vectors: Any) -> dict[str, dict[str, Any]]:
    rows = zip(NAMES, vectors, CLASSES, strict=True)
    return {name: {"embedding": each, "label": kind} for name, each, kind in rows}


# torch --------------------------------------------------------------------------------------------


def of_torch(name: str, payload: Callable[[Any], Any], **how: Any) -> None:
    """A file that torch.save writes of what a script has at hand."""

    def make(folder: Path) -> Path:
        import torch

        torch.save(payload(torch.from_numpy(FEATURES)), folder / "a.pt")
        return folder / "a.pt"

    FILES.append(FeatureCase(name, "torch", make, **how))


of_torch(
    "arrays of numpy, text as objects",
    lambda _: {"features": FEATURES, "labels": objects(CLASSES), "names": objects(NAMES)},
)
of_torch("half precision", lambda t: {"features": t.bfloat16(), "labels": LABELS.tolist()})
of_torch("a pair of tensors", lambda t: (t, LABELS))
of_torch(
    "batches of pairs",
    lambda t: [(t[at : at + 16], LABELS[at : at + 16]) for at in range(0, N, 16)],
)
of_torch("pairs of a vector and a label", lambda t: list(zip(t, LABELS.tolist(), strict=True)))
of_torch("records", lambda t: [{"file": name, **each} for name, each in records(t).items()])
of_torch("records by name", lambda t: records(t))
of_torch(
    "vectors by name",
    lambda t: dict(zip(NAMES, t, strict=True)),
    labels=False,
    assumes="each of its 60 vectors is a sample, and its name a factor 'file'",
)
of_torch(
    "splits",
    lambda t: {"train": {"x": t, "y": LABELS}, "test": {"x": t, "y": LABELS}},
    flags={"split": "test"},
)
of_torch("a sparse tensor", lambda t: {"features": t.to_sparse()}, refuses="got a sparse one")


@file(
    "one vector a file",
    "torch",
    labels=False,
    assumes="each of the 60 files is a sample, and its name a factor 'file'",
)
def _vectors(folder: Path) -> Path:
    import torch

    for name, each in zip(NAMES, torch.from_numpy(FEATURES), strict=True):
        torch.save(each.clone(), folder / f"{name}.pt")
    return folder / "*.pt"


@file("a DCP folder", "torch", refuses="dcp_to_torch_save")
def _dcp(folder: Path) -> Path:
    import torch
    from torch.distributed import checkpoint

    checkpoint.save({"x": torch.from_numpy(FEATURES)}, checkpoint_id=folder / "dcp", no_dist=True)
    return folder / "dcp"


# numpy --------------------------------------------------------------------------------------------


@file("arrays without names", "numpy")
def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", FEATURES, LABELS)
    return folder / "a.npz"


@file("a pickled dictionary in .npy", "numpy")
def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", {"features": FEATURES, "labels": CLASSES}, allow_pickle=True)
    return folder / "a.npy"


@file("four shards, by a pattern", "numpy", labels=False)
def _shards(folder: Path) -> Path:
    for number, part in enumerate(np.split(FEATURES, 4)):
        np.save(folder / f"features-{number}.npy", part)
    return folder / "features-*.npy"


@file("text without a line of names", "numpy", refuses="must name its columns in its first line")
def _text(folder: Path) -> Path:
    np.savetxt(folder / "a.csv", FEATURES, delimiter=",")
    return folder / "a.csv"


# h5py and AnnData ---------------------------------------------------------------------------------


def of_hdf(name: str, write: Callable[[Any], None], **how: Any) -> None:
    """An HDF5 file."""

    def make(folder: Path) -> Path:
        import h5py

        with h5py.File(folder / "a.h5", "w") as tree:
            write(tree)
        return folder / "a.h5"

    FILES.append(FeatureCase(name, "h5py", make, **how))


def _datasets(tree: Any) -> None:
    tree["features"], tree["labels"] = FEATURES, np.array(CLASSES, dtype="S")


def _groups(tree: Any) -> None:
    for name, each, kind in zip(NAMES, FEATURES, CLASSES, strict=True):
        group = tree.create_group(name)
        group["embedding"] = each
        group.attrs["label"] = kind


def _named(tree: Any) -> None:
    for name, each in zip(NAMES, FEATURES, strict=True):
        tree[name] = each


of_hdf("data sets", _datasets)
of_hdf("one group a sample, labels as attributes", _groups)
of_hdf("one data set a sample", _named, labels=False, assumes="each of its 60 vectors is a sample")


def of_anndata(name: str, parts: Callable[[], dict[str, Any]], **how: Any) -> None:
    """An .h5ad file, whose labels are a column of obs."""

    def make(folder: Path) -> Path:
        import anndata
        import pandas as pd

        anndata.settings.allow_write_nullable_strings = True
        obs = pd.DataFrame({"kind": pd.Categorical(CLASSES), "site": ["a", "b"] * 30}, index=NAMES)
        anndata.AnnData(obs=obs, **parts()).write_h5ad(folder / "a.h5ad")
        return folder / "a.h5ad"

    flags = {"labels": "obs.kind"} | how.pop("flags", {})
    FILES.append(FeatureCase(name, "anndata", make, flags, **how))


def _sparse() -> Any:
    import scipy.sparse

    return scipy.sparse.csr_matrix(np.abs(FEATURES))


def _frame() -> Any:
    import pandas as pd

    return pd.DataFrame(FEATURES, index=NAMES).add_prefix("d")


of_anndata("X", lambda: {"X": FEATURES})
of_anndata("obsm beside a sparse X", lambda: {"X": _sparse(), "obsm": {"X_model": FEATURES}})
of_anndata("a table in obsm", lambda: {"obsm": {"X_model": _frame()}})
of_anndata("a sparse X alone", lambda: {"X": _sparse()}, refuses="must be a dense matrix")
of_anndata(
    "two in obsm",
    lambda: {"obsm": {"X_model": FEATURES, "X_pca": FEATURES[:, :2]}},
    refuses="--features NAME",
)
of_anndata(
    "two in obsm, named",
    lambda: {"obsm": {"X_model": FEATURES, "X_pca": FEATURES[:, :2]}},
    flags={"features": "obsm.X_model"},
)


# tables -------------------------------------------------------------------------------------------


def of_pandas(name: str, ending: str, columns: Callable[[], dict[str, Any]], **how: Any) -> None:
    """A table of pandas."""

    def make(folder: Path) -> Path:
        import pandas as pd

        frame, path = pd.DataFrame({**columns(), "label": CLASSES}), folder / f"a.{ending}"
        if ending == "jsonl":
            frame.to_json(path, orient="records", lines=True)
        else:
            getattr(frame, f"to_{ending}")(path, index=False)
        return path

    FILES.append(FeatureCase(name, "pandas", make, **how))


of_pandas(".csv, numbered columns", "csv", lambda: {f"f{d}": FEATURES[:, d] for d in range(D)})
of_pandas(".csv, lists as text", "csv", lambda: {"embedding": FEATURES.tolist()})
of_pandas(".csv, arrays as text", "csv", lambda: {"embedding": list(FEATURES)})
of_pandas(".jsonl, lists", "jsonl", lambda: {"embedding": FEATURES.tolist()})
of_pandas(".parquet, lists", "parquet", lambda: {"embedding": list(FEATURES)})


@file("lines of vectors in .jsonl", "numpy", labels=False)
def _lines(folder: Path) -> Path:
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, FEATURES.tolist())))
    return folder / "a.jsonl"


def of_datasets(name: str, write: Callable[[Any, Path], Any], **how: Any) -> None:
    """What a data set of Hugging Face writes, with the names of its classes."""

    def make(folder: Path) -> Path:
        import datasets

        datasets.disable_progress_bars()
        columns = {"embedding": FEATURES.tolist(), "label": LABELS.tolist()}
        made = datasets.Dataset.from_dict(columns).cast_column(
            "label", datasets.ClassLabel(names=["cat", "dog", "owl"])
        )
        write(made, folder / "a")
        return folder / "a"

    FILES.append(FeatureCase(name, "datasets", make, **how))


def _in_splits(made: Any, path: Path) -> None:
    import datasets

    datasets.DatasetDict(train=made, test=made).save_to_disk(path)


of_datasets("save_to_disk, in parts", lambda made, path: made.save_to_disk(path, num_shards=3))
of_datasets("save_to_disk of a DatasetDict", _in_splits, flags={"split": "test"})
