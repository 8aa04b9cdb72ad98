"""Which dimensions of a split say the same."""

from __future__ import annotations

import numpy as np


def redundant_groups(features: np.ndarray, *, cut: float = 0.9) -> list[np.ndarray]:
    """Group dimensions that are strongly correlated with each other.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        Rows of one split.
    cut : float, default=0.9
        Groups are merged while the mean absolute correlation between them is at least this.

    Returns
    -------
    list of ndarray of int
        Every dimension stands in one group; groups in order of their lowest dimension. A dimension
        that does not vary is a group of its own.

    Notes
    -----
    Average linkage on the distance 1 - |Pearson correlation|.

    Examples
    --------
    >>> x = np.array([[0.0, 0.0, 1.0], [1.0, -2.0, 0.0], [2.0, -4.0, 1.0], [3.0, -6.0, 0.0]])
    >>> [group.tolist() for group in redundant_groups(x)]
    [[0, 1], [2]]
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=0)
    varies = norms > len(features) ** 0.5 * 1e-12 * np.abs(features).max(axis=0)
    unit = np.divide(centred, norms, out=np.zeros_like(centred), where=varies)
    n_dimensions = features.shape[1]
    if n_dimensions == 1:
        return [np.array([0])]
    distance = np.clip(1 - np.abs(unit.T @ unit), 0, 1)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    ids = fcluster(tree, t=1 - cut, criterion="distance")
    return groups_of(ids)


def groups_of(ids: np.ndarray) -> list[np.ndarray]:
    """Turn one group id a dimension into index arrays, in order of their lowest dimension.

    Parameters
    ----------
    ids : ndarray of shape (D,), int
        Any integers; equal ones belong together.

    Returns
    -------
    list of ndarray of int
        Dimensions of each group, ascending.

    Examples
    --------
    >>> [group.tolist() for group in groups_of(np.array([7, 3, 7]))]
    [[0, 2], [1]]
    """
    first: dict[int, list[int]] = {}
    for dimension, group in enumerate(ids.tolist()):
        first.setdefault(group, []).append(dimension)
    return [np.array(members) for members in first.values()]
