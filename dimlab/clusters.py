"""Clusters: rows that belong together, such as the images of one patient or copies of a row."""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeAlias

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.refusals import Refusal
from dimlab.representation import Representation

ClustersLike: TypeAlias = "str | np.ndarray | tuple[np.ndarray | None, np.ndarray] | None"

_MANY_COPIES = 0.01  # share of test rows that repeat another one, above which a warning is due
_BLOCK = 1 << 22  # elements looked at together


def cluster_ids(
    representation: Representation, clusters: str | np.ndarray | None
) -> np.ndarray | None:
    """Cluster ids (N,) from 0 by a factor or values; None where every row is its own."""
    if clusters is None:
        return None
    if isinstance(clusters, str):
        if clusters not in representation.factors:
            known = ", ".join(map(repr, representation.factors)) or "none"
            raise Refusal(
                f"clusters must name a factor of every split, one of {known}; got {clusters!r}."
            )
        values = representation.factors[clusters]
    else:
        values = np.asarray(clusters)
    if values.shape != (len(representation),):
        raise Refusal(
            f"clusters must have shape ({len(representation)},) to match features; got "
            f"{values.shape}."
        )
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise Refusal("clusters must have no missing values; got NaN.")
    _, first, codes = np.unique(values, return_index=True, return_inverse=True)
    if len(first) == 1:
        raise Refusal(
            "clusters must tell at least two clusters apart; got one for all rows. Leave clusters "
            "out if the rows are independent."
        )
    if len(first) == len(values):
        return None
    return np.argsort(np.argsort(first))[codes.reshape(values.shape)].astype(np.int64)


def cluster_ids_of_pair(
    train: Representation, test: Representation, clusters: ClustersLike
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cluster ids of a train and of a test split; one array is that of test."""
    if isinstance(clusters, tuple):
        if len(clusters) != 2:
            raise Refusal(
                "clusters must be a pair of arrays, for train and for test; got a tuple of "
                f"{len(clusters)}."
            )
        return cluster_ids(train, clusters[0]), cluster_ids(test, clusters[1])
    if isinstance(clusters, str):
        return cluster_ids(train, clusters), cluster_ids(test, clusters)
    return None, cluster_ids(test, clusters)


def n_repeated_rows(features: np.ndarray) -> int:
    """Count the rows of (N, D) features that repeat an earlier row exactly."""
    seen: set[bytes] = set()
    for part in blocks(len(features), _BLOCK // features.shape[1]):
        rows = np.ascontiguousarray(features[part] + 0.0)  # -0.0 becomes 0.0
        seen.update(blake2b(row, digest_size=16).digest() for row in rows)
    return len(features) - len(seen)


def warning_of_copies(test: Representation, test_ids: np.ndarray | None) -> str | None:
    """Say that more than 1 % of the test rows are copies, which would count as evidence."""
    if test_ids is not None:
        return None
    n_copies = n_repeated_rows(test.features)
    if n_copies <= _MANY_COPIES * len(test):
        return None
    return (
        f"{n_copies:,} of {len(test):,} test rows repeat another row exactly, so intervals and "
        "p-values may be too small. If rows belong together, say which with clusters= "
        "(--clusters)."
    )
