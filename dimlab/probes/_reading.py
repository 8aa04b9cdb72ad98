"""Which reader reads two splits, and how: what every ablating probe is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.clusters import ClustersLike, cluster_ids_of_pair, warning_of_copies
from dimlab.kernels.collinearity import groups_of
from dimlab.memory import check_budget
from dimlab.moments import Moments
from dimlab.probes._outcomes import (
    Outcomes,
    Parts,
    Progress,
    Split,
    knn_outcomes,
    labelled,
    logistic_outcomes,
    ridge_outcomes,
)
from dimlab.readers import check_classes, check_knn, check_penalty, class_codes
from dimlab.representation import Representation
from dimlab.text import plain as plain  # the probes' summaries take it from here

READERS = ("knn", "ridge", "logistic")
FILLS = ("mean", "zero")
AXES = "axes"

GroupsLike = Sequence[Sequence[int] | np.ndarray] | np.ndarray


@dataclass(frozen=True)
class Reading:
    """A reader and its settings; build it with ``Reading.of``, which checks them."""

    reader: str
    refit: bool
    fill: str | None
    k: int
    temperature: float
    penalty: float
    seed: int
    device: str
    memory: float | None

    @classmethod
    def of(
        cls,
        reader: str,
        *,
        refit: bool | None = None,
        fill: str | None = None,
        k: int = 5,
        temperature: float = 1.0,
        penalty: float = 1e-3,
        seed: int = 0,
        device: str = "cpu",
        memory: float | None = None,
    ) -> Reading:
        """Check the settings as far as that can be done without data."""
        check_choice("reader", reader, READERS)
        if fill is not None:
            check_choice("fill", fill, FILLS)
        if reader == "knn" and refit is False:
            raise ValueError(
                "refit must be True for reader 'knn', which has no weights; got False."
            )
        refit = reader != "logistic" if refit is None else bool(refit)
        if refit and fill is not None:
            raise ValueError(
                "fill must be left out where the reader is refitted (pass refit=False to freeze "
                f"it); got {fill!r}."
            )
        check_penalty(penalty)
        check_budget(memory)
        return cls(
            reader,
            refit,
            None if refit else fill or "mean",
            k,
            temperature,
            penalty,
            seed,
            device,
            memory,
        )

    @property
    def in_memory(self) -> str:
        """What memory goes by: the reader, and whether logistic regression is fitted again."""
        return "logistic refitted" if self.reader == "logistic" and self.refit else self.reader

    def outcomes(
        self, train: Split, test: Split, parts: list[Parts], progress: Progress | None = None
    ) -> list[Outcomes]:
        """Read ``test`` with everything and without each group, for several sets of groups."""
        check_knn(self.k if self.reader == "knn" else 1, self.temperature, len(train[0]))
        if self.reader == "knn":
            return knn_outcomes(
                train,
                test,
                parts,
                k=self.k,
                temperature=self.temperature,
                device=self.device,
                memory=self.memory,
                progress=progress,
            )
        if self.reader == "ridge":
            return ridge_outcomes(train, test, parts, penalty=self.penalty, fill=self.fill)
        return logistic_outcomes(
            train, test, parts, fill=self.fill, seed=self.seed, progress=progress
        )


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a name that is not among those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def coded(
    train: Representation, test: Representation, what: str
) -> tuple[np.ndarray, Split, Split]:
    """Return the classes of train, and both splits with labels as indices into them."""
    train_labels, test_labels = labelled(train, test, what)
    bases = basis_of(train), basis_of(test)
    if bases[0] != bases[1]:
        raise ValueError(
            f"test must be in the basis of train, {bases[0]}; got {bases[1]}. Apply the same Basis "
            "to both."
        )
    check_classes("train", train_labels)
    classes, codes = np.unique(train_labels, return_inverse=True)
    truth = class_codes(test_labels, classes)
    return (
        classes,
        Split(train.features, codes, train.precision),
        Split(test.features, truth, test.precision),
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """What the rows of two splits are, beside features and labels; build it with ``Rows.of``.

    Parameters
    ----------
    train, test : ndarray of int, or None
        Cluster of each row, ids from 0; None: rows are independent.
    said : dict
        What a result says of the test rows: ``sample``, ``clusters`` and ``caution``.
    """

    train: np.ndarray | None
    test: np.ndarray | None
    said: dict[str, Any]

    @classmethod
    def of(cls, train: Representation, test: Representation, clusters: ClustersLike) -> Rows:
        """Resolve clusters, count them, and warn of what keeps scores from meaning what they do."""
        train_ids, test_ids = cluster_ids_of_pair(train, test, clusters)
        sizes = None if test_ids is None else np.bincount(test_ids)
        counted = {} if sizes is None else {"n_clusters": len(sizes), "largest": int(sizes.max())}
        caution = caution_of(test, test_ids)
        if caution:
            warnings.warn(caution, UserWarning, stacklevel=3)
        said = {"sample": sample_of(test), "clusters": counted, "caution": caution}
        return cls(train_ids, test_ids, said)


def caution_of(test: Representation, clusters: np.ndarray | None) -> str:
    """Say what keeps the accuracy on test from meaning what it usually does; empty if nothing."""
    found = [] if (copies := warning_of_copies(test, clusters)) is None else [copies]
    if test.labels is not None and (test.labels == test.labels[0]).all():
        found.append(
            f"All test samples are of class {test.labels[0]}: a reader that always answers it has "
            "accuracy 1, so no score here shows what the features tell. Test on several classes."
        )
    return " ".join(found)


def said_of_rows(result: Any) -> dict[str, Any]:
    """Give the entries of a summary that say what is special about the test rows, if anything."""
    entries = {name: getattr(result, name) for name in ("sample", "clusters", "caution")}
    return {name: value for name, value in entries.items() if value}


def basis_of(representation: Representation | Moments) -> str:
    """Name the basis that a representation is in."""
    return str(representation.meta.get("basis", AXES))


def sample_of(test: Representation | Moments) -> str:
    """Say which part of the test split is used; empty where it is all of it."""
    return str(test.meta.get("sample", ""))


def checked_groups(groups: GroupsLike, n_dimensions: int) -> list[np.ndarray]:
    """Read groups given as index arrays, or as one group id a dimension."""
    if isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "iu":
        if len(groups) != n_dimensions:
            raise ValueError(
                f"groups must have one id for each of the {n_dimensions} dimensions, or be a list "
                f"of index arrays; got {len(groups)} ids."
            )
        return groups_of(groups)
    if len(groups) == 0:
        raise ValueError("groups must hold at least one group; got none.")
    checked = []
    for position, group in enumerate(groups):
        index = np.asarray(group)
        if index.ndim != 1 or len(index) == 0 or index.dtype.kind not in "iu":
            raise ValueError(
                f"groups[{position}] must be a list of at least one dimension; got {group!r}."
            )
        if index.min() < 0 or index.max() >= n_dimensions:
            raise ValueError(
                f"groups[{position}] must lie in [0, {n_dimensions}); got "
                f"{index.min()}..{index.max()}."
            )
        checked.append(np.unique(index).astype(np.int64))
    return checked


def singles(n_dimensions: int) -> list[np.ndarray]:
    """Every dimension as a group of its own."""
    return list(np.arange(n_dimensions)[:, None])
