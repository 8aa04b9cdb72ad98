"""Is the trained encoder better than none? Checkpoints beside raw pixels and fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab._encode import encode, encode_pixels
from dimlab.probes.evaluate import Evaluation, evaluate
from dimlab.refusals import Refusal
from dimlab.result import Result, column, detail, entries
from dimlab.training.loop import untrained

if TYPE_CHECKING:
    import pandas as pd

    from dimlab.images import ImageSet
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint

SOURCES = ("raw pixels", "untrained", "trained")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BaselineComparison(Result):
    """Evaluations of raw pixels, of untrained and of trained encoders on the same images and views.

    Raises
    ------
    ValueError
        If the evaluations are of other numbers of test samples.

    References
    ----------
    Those of `evaluate`.

    Examples
    --------
    >>> import numpy as np
    >>> def retrieved(n_correct):
    ...     return Evaluation(
    ...         reader=("view-retrieval",), mask=("none",), n_correct=np.array([n_correct]),
    ...         n_test=100, n_train=500, n_dimensions=8,
    ...     )
    >>> comparison = BaselineComparison(
    ...     evaluations=(
    ...         ("raw pixels", 0, retrieved(20)),
    ...         ("untrained", 0, retrieved(40)),
    ...         ("trained", 0, retrieved(70)),
    ...         ("trained", 1, retrieved(90)),
    ...     )
    ... )
    >>> comparison.over_seeds()[["accuracy", "lowest", "highest"]].round(2).values.tolist()[-1]
    [0.8, 0.7, 0.9]
    >>> comparison.summary()["view_retrieval_ratio"], comparison.to_frame()["seed"].tolist()
    (2.0, [0, 0, 0, 1])
    """

    evaluations: tuple[tuple[str, int, Evaluation], ...] = detail(
        "Source (`raw pixels`, `untrained`, `trained`), seed of the run, and its evaluation."
    )

    def __post_init__(self) -> None:
        sizes = sorted({each.n_test for _, _, each in self.evaluations})
        if len(sizes) > 1:
            raise Refusal(
                "evaluations must be of the same test samples, or views are searched among other "
                f"numbers of candidates; got {', '.join(map(str, sizes))} samples."
            )

    @column
    def rows(self) -> dict[str, Any]:
        """One row a source, seed, reader and mask, with the columns of the evaluations."""
        import pandas as pd

        frames = []
        for source, seed, evaluation in self.evaluations:
            frame = evaluation.to_frame()
            frame.insert(0, "source", source)
            frame.insert(1, "seed", seed)
            frames.append(frame)
        return dict(pd.concat(frames, ignore_index=True).items())

    @entries
    def means(self) -> dict[str, Any]:
        """``<reader>, <source>``: mean accuracy without a mask; how much training helps retrieval.

        ``view_retrieval_ratio`` is the trained encoder's rate over the better one of raw pixels and
        the untrained encoder.
        """
        means = self.over_seeds()
        means = means[means["mask"] == "none"]
        found: dict[str, Any] = {
            f"{row.reader}, {row.source}": float(row.accuracy) for row in means.itertuples()
        }
        *others, trained = (found.get(f"view-retrieval, {each}", np.nan) for each in SOURCES)
        found["view_retrieval_ratio"] = trained / max(others) if max(others) > 0 else None
        found["n_seeds"] = int(means["n_seeds"].max())
        return found

    def over_seeds(self) -> pd.DataFrame:
        """Return mean and range over seeds, one row a source, reader and mask.

        Returns
        -------
        DataFrame
            ``source, mask, reader, accuracy, lowest, highest, n_seeds``.
        """
        import pandas as pd

        keys = ["source", "reader", "mask"]
        grouped = pd.DataFrame(self.rows).groupby(keys, sort=False)["accuracy"]
        return grouped.agg(
            accuracy="mean", lowest="min", highest="max", n_seeds="count"
        ).reset_index()


def evaluate_baselines(
    checkpoints: Sequence[Checkpoint],
    train_images: ImageSet,
    test_images: ImageSet,
    *,
    readers: Sequence[Any] = ("knn", "ridge"),
    k: int = 5,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> BaselineComparison:
    """Evaluate trained encoders beside raw pixels and the same encoders with their initial weights.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        Runs that differ in their seed, at least one.
    train_images, test_images : ImageSet
        Readers are fitted on the first and scored on the second.
    readers : sequence of str or object, default=("knn", "ridge")
        As in `evaluate`.
    k : int, default=5
        Neighbours of the kNN reader.
    seed : int, default=0
        Seed of the views and of the permuted control mask.
    device : str, default="cpu"
        Where to compute.
    progress : callable, optional
        Called with (sources done, sources in all).

    Returns
    -------
    BaselineComparison
        Two views of every test image are drawn once, the same for all sources.

    Raises
    ------
    ValueError
        If there is no checkpoint, or two differ in more than their seed; as `encode`, for images of
        another size; as `evaluate`, for readers, or the device is not there.

    References
    ----------
    Those of `evaluate`.

    Examples
    --------
    >>> from dimlab.datasets import digits
    >>> from dimlab.training.config import TrainConfig
    >>> images = digits("validation", image_size=8)
    >>> fit, judge = images.take(range(40)), images.take(range(40, 60))
    >>> comparison = evaluate_baselines([untrained(TrainConfig.small(), fit)], fit, judge)
    >>> frame = comparison.to_frame().query("mask == 'none'").set_index("source")
    >>> frame["accuracy"]["untrained"].tolist() == frame["accuracy"]["trained"].tolist()
    True
    """
    if not checkpoints:
        raise Refusal("checkpoints must hold at least one checkpoint; got none.")
    if len({replace(checkpoint.config, seed=0) for checkpoint in checkpoints}) > 1:
        raise Refusal("checkpoints must differ only in their seed; got other configurations.")
    runs: list[tuple[str, Checkpoint | None]] = [
        ("raw pixels", None),
        *(("untrained", each) for each in checkpoints),
        *(("trained", each) for each in checkpoints),
    ]
    found = []
    for done, (source, checkpoint) in enumerate(runs):
        represent: Callable[..., Representation]
        run_seed, mask = 0, None
        if checkpoint is None:
            represent = partial(encode_pixels, config=checkpoints[0].config, seed=seed)
        else:
            run_seed, encoder = checkpoint.config.seed, checkpoint
            if source == "untrained":
                encoder = untrained(checkpoint.config, train_images)
            elif checkpoint.has_mask:
                mask = checkpoint.mask
            represent = partial(encode, encoder, seed=seed, device=device)
        evaluation = evaluate(
            represent(images=train_images, n_views=0),
            represent(images=test_images, n_views=2),
            mask=mask,
            readers=tuple(readers),
            k=k,
            seed=seed,
            device=device,
        )
        found.append((source, run_seed, evaluation))
        if progress is not None:
            progress(done + 1, len(runs))
    return BaselineComparison(evaluations=tuple(found))
