"""What dimensions do without labels: for finding a sample's other view, and for its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.kernels.paired import paired_interval, paired_test
from dimlab.probes._importance import Importance, tested_fields
from dimlab.probes._reading import GroupsLike, Task, check_least
from dimlab.readers import KNN
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.targets import VIEW_RETRIEVAL

if TYPE_CHECKING:
    from dimlab.kernels.neighbours import NeighbourBlock

_N_CLASSES = 2  # of labels that nothing reads


def unlabelled_task(
    train: Representation | None,
    test: Representation,
    score: str,
    groups: GroupsLike | None,
    *,
    k: int = 5,
    **how: Any,
) -> Task:
    """Return the search that a score asks for: of other views, or of neighbours in train."""
    if score == VIEW_RETRIEVAL:
        if test.views is None or len(test.views) < 2 or len(test) < 2:
            raise Refusal(
                "score='view_retrieval' needs two views of each of at least two samples of test: "
                "encode(..., n_views=2), or build the Representation with views=(V, N, D)."
            )
        sides = [test._trusted(features=view, views=None) for view in test.views[:2]]
        k = 1
    elif train is None:
        raise Refusal("score='neighbourhood' needs train, where neighbours are looked for.")
    else:
        sides = [train, test]
    # a task has labels; these are read by nothing
    bank, queries = (
        each._trusted(labels=np.arange(len(each)) % _N_CLASSES, meta=_without_names(each))
        for each in sides
    )
    return Task.of("ablate", bank, queries, KNN(k), groups=groups, **how)


def _without_names(representation: Representation) -> dict[str, Any]:
    return {key: each for key, each in representation.meta.items() if key != "class_names"}


def refuse_of_readers(score: str, **given: Any) -> None:
    """Refuse arguments of readers beside a score that has none."""
    there = [name for name, value in given.items() if value]
    if there:
        raise Refusal(
            f"{there[0]} must be left out for score={score!r}, which compares rows by cosine "
            f"similarity; got {given[there[0]]!r}."
        )


def measure_unlabelled(
    task: Task, score: str, n_bootstrap: int
) -> tuple[dict[str, Any], float | None]:
    """Fields of `Ablation`, and the share of pairs that were settled by certificates."""
    check_least(1, n_bootstrap=n_bootstrap)
    views, clusters = score == VIEW_RETRIEVAL, task.test.clusters
    n_rows, n_groups = len(task.test.features), len(task.groups)
    full = np.ones(n_rows)
    lost = np.empty((n_rows, n_groups), dtype=np.int8 if views else np.float64)
    n_certified = 0
    for whole, without in _searched(task):
        rows = slice(whole.start, whole.stop)
        if views:
            own = np.arange(rows.start, rows.stop)[:, None]
            found, left = (each.rows[..., 0].cpu().numpy() == own for each in (whole, without))
            full[rows] = found[:, 0]
            lost[rows] = found.astype(np.int8) - left
        else:
            shared = (without.rows[..., :, None] == whole.rows[..., None, :]).sum((-1, -2))
            lost[rows] = 1 - shared.cpu().numpy() / whole.rows.shape[-1]
        n_certified += without.n_certified
        if task.run.progress is not None:
            task.run.progress(rows.stop, n_rows)
    if views:
        reliable = np.zeros(n_groups, dtype=bool)
        interval = partial(paired_interval, lost, clusters)
        importance = Importance(
            lost, lost.mean(axis=0), paired_test(lost, clusters), interval, reliable
        )
    else:
        rng = np.random.default_rng(task.run.seed)
        importance = Importance.of_means(lost, clusters, rng, n_bootstrap)
    measured = {
        "full_score": float(full.mean()),
        "scores": full.mean() - importance.estimate,
        **tested_fields(importance),
        "per_class": np.empty((n_groups, 0)),
    }
    return measured, n_certified / (n_rows * n_groups)


def _searched(task: Task) -> Iterator[tuple[NeighbourBlock, ...]]:
    """Give blocks of neighbours with all dimensions, and without each group, from one search."""
    from dimlab.kernels.neighbours import find_with_and_without
    from dimlab.kernels.rows import Rows
    from dimlab.readers.knn import check_k

    check_k(task.reader.k, len(task.train.features))
    bank, queries = (Rows.of(each.features, task.run.device) for each in (task.train, task.test))
    return find_with_and_without(
        bank, queries, task.groups, k=task.reader.k, memory=task.run.memory
    )
