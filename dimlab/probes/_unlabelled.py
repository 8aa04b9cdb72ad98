"""What dimensions do without labels: for finding a sample's other view, and for its neighbours."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from dimlab.kernels.paired import paired_interval, paired_test
from dimlab.probes._importance import Importance, tested_fields
from dimlab.probes._reading import GroupsLike, Task, check_least
from dimlab.processes import shared
from dimlab.readers import KNN
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.targets import VIEW_RETRIEVAL

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
    from dimlab.kernels.neighbours import find_with_and_without
    from dimlab.kernels.rows import Rows
    from dimlab.readers.knn import check_k

    k, run = task.reader.k, task.run
    check_k(k, len(task.train.features))
    bank = Rows.of(task.train.features, run.device)

    def searched(share: slice) -> list[np.ndarray]:
        queries = Rows.of(task.test.features[share], run.device)
        full = np.ones(len(queries))
        lost = np.empty((len(queries), n_groups), dtype=np.int8 if views else np.float64)
        n_certified = np.zeros(len(queries), dtype=np.int64)  # of a block, at its first row
        for whole, without in find_with_and_without(
            bank, queries, task.groups, k=k, memory=run.memory
        ):
            rows = slice(whole.start, whole.stop)
            if views:
                own = share.start + np.arange(rows.start, rows.stop)[:, None]
                found, left = (each.rows[..., 0].cpu().numpy() == own for each in (whole, without))
                full[rows] = found[:, 0]
                lost[rows] = found.astype(np.int8) - left
            else:
                same = (without.rows[..., :, None] == whole.rows[..., None, :]).sum((-1, -2))
                lost[rows] = 1 - same.cpu().numpy() / k
            n_certified[rows.start] = without.n_certified
            if run.progress is not None:
                run.progress(rows.stop, len(queries))
        return [full, lost, n_certified]

    full, lost, n_certified = shared(n_rows, searched)
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
    return measured, int(n_certified.sum()) / (n_rows * n_groups)
