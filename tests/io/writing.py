"""Named arrays in a file of any kind, as people save them."""

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file


def in_torch(array):
    return array.tolist() if array.dtype.kind in "UO" else torch.from_numpy(array)


def in_columns(arrays):
    """A data frame; a matrix is a column for each of its own, numbered from 0."""
    columns = {}
    for name, array in arrays.items():
        matrix = np.ndim(array) == 2
        columns |= {f"{name}_{d}": c for d, c in enumerate(array.T)} if matrix else {name: array}
    return pd.DataFrame(columns)


WRITERS = {
    ".npz": lambda path, arrays: np.savez(path, **arrays),
    ".npy": lambda path, arrays: np.save(path, *arrays.values()),
    ".pt": lambda path, arrays: torch.save({n: in_torch(a) for n, a in arrays.items()}, path),
    ".safetensors": lambda path, arrays: save_file(arrays, path),
    ".csv": lambda path, arrays: in_columns(arrays).to_csv(path, index=False),
    ".tsv": lambda path, arrays: in_columns(arrays).to_csv(path, index=False, sep="\t"),
    ".parquet": lambda path, arrays: in_columns(arrays).to_parquet(path),
    ".jsonl": lambda path, arrays: in_columns(arrays).to_json(path, orient="records", lines=True),
}


def save(path, **arrays):
    """Write arrays as the ending of the file says; return its path."""
    WRITERS[path.suffix](path, {name: np.asarray(each) for name, each in arrays.items()})
    return path
