"""Explore a mask in a notebook: remove dimensions, see at once what readers and spectrum lose."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dimlab._explore.state import Explorer, MaskState
from dimlab.given import RepresentationLike, as_representations
from dimlab.images import ImageSet
from dimlab.mask import DimensionMask
from dimlab.probes.ablate import Ablation, ablate
from dimlab.probes.attribute import Attribution
from dimlab.probes.find_redundancy import Redundancy, find_redundancy
from dimlab.refusals import Refusal

if TYPE_CHECKING:
    from dimlab._explore.widget import Exploration, Scores

__all__ = ["Explorer", "MaskState", "explore"]


def explore(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    images: ImageSet | None = None,
    ablation: Ablation | None = None,
    redundancy: Redundancy | None = None,
    attribution: Attribution | None = None,
    mask: DimensionMask | np.ndarray | None = None,
    removed: Sequence[int] = (),
    k: int = 5,
    temperature: float = 1.0,
    penalty: float = 1e-3,
    seed: int = 0,
) -> Exploration:
    """Show a notebook widget that removes dimensions and follows what readers and spectrum lose.

    Parameters
    ----------
    train, test : Representation, or pair of features and labels
        Labelled splits of the same D dimensions.
    images : ImageSet, optional
        Images of the test rows, in their order: those of the largest activations are shown.
    ablation : Ablation, optional
        Importance of each single dimension; by default that of a ridge, measured here.
    redundancy : Redundancy, optional
        Of train; by default measured when that order is chosen.
    attribution : Attribution, optional
        Offers the order by nuisance score.
    mask : DimensionMask or ndarray of shape (D,), optional
        Offers the order by mask weight; by default ``test.meta["mask"]``, if there is one.
    removed : sequence of int, optional
        Dimensions removed at first.
    k, temperature, penalty : int, float and float, default=5, 1.0 and 1e-3
        As in `ablate`.
    seed : int, default=0
        Draws test rows where all would make a step slow; passed on to the probes.

    Returns
    -------
    Exploration
        Shown when it is a cell's last value. ``mask``, ``removed`` and ``code`` export the view;
        ``close()`` ends it.

    Raises
    ------
    ValueError
        If labels are missing, D differs, a result or the images are of another length, no dimension
        would be left, or a number is out of its range.
    ImportError
        If anywidget is not installed.

    Notes
    -----
    Ridge accuracy and spectrum are exact at every step. kNN votes among each test row's 64 nearest
    train rows until the exact accuracy takes its place; those were nearest in the dimensions of the
    last exact answer, so after a large change the number is optimistic.

    References
    ----------
    Roy & Vetterli, "The effective rank", EUSIPCO 2007, of the spectrum; those of `ablate` and
    `find_redundancy`, of the orders.

    Examples
    --------
    >>> from dimlab import Representation
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.cos(np.arange(40))])
    >>> split = Representation(features, labels=labels)
    >>> view = explore(split, split, removed=[1])  # in a notebook: the cell's last value
    >>> view.removed.tolist(), view.mask.weights.tolist()
    ([1], [1.0, 0.0])
    >>> view.explorer.state().ridge_accuracy
    1.0
    >>> view.close()
    """
    try:
        from dimlab._explore.widget import Exploration
    except ImportError as error:
        raise ImportError(
            "explore needs the package anywidget, which is not installed. Run pip install "
            '"dimlab[notebooks]".'
        ) from error
    train, test = as_representations(train=train, test=test).values()
    explorer = Explorer(train, test, k=k, temperature=temperature, penalty=penalty, seed=seed)
    if images is not None and len(images) != len(test):
        raise Refusal(f"images must have {len(test)} images to match test; got {len(images)}.")
    explorer.checked(removed)
    if mask is None and test.meta.get("mask") is not None:
        mask = np.asarray(test.meta["mask"], dtype=np.float64)
    weights = mask.weights if isinstance(mask, DimensionMask) else mask
    n_dimensions = train.n_dimensions
    groups = [] if ablation is None else [len(group) for group in ablation.groups]
    if ablation is not None and groups != [1] * n_dimensions:
        raise Refusal(
            f"ablation must hold each of the {n_dimensions} dimensions alone; got {len(groups)} "
            f"groups of up to {max(groups)}."
        )
    for name, value in (("redundancy", redundancy), ("attribution", attribution)):
        if value is not None and len(value) != n_dimensions:
            raise Refusal(
                f"{name} must hold {n_dimensions} dimensions to match train; got {len(value)}."
            )
    if weights is not None and np.shape(weights) != (n_dimensions,):
        raise Refusal(
            f"mask must have shape ({n_dimensions},) to match train; got {np.shape(weights)}."
        )

    def importance() -> tuple[np.ndarray, np.ndarray]:
        found = ablation
        if found is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of intervals, which are not shown
                found = ablate(train, test, reader="ridge", penalty=penalty, seed=seed)
        dimension = np.array([int(group[0]) for group in found.groups])
        scores, ties = np.empty(n_dimensions), np.empty(n_dimensions)
        scores[dimension], ties[dimension] = found.importance, found.log_loss_importance
        return scores, ties

    def repeated() -> tuple[np.ndarray, np.ndarray]:
        found = redundancy
        if found is None:
            with warnings.catch_warnings():  # the widget says it
                warnings.simplefilter("ignore", UserWarning)
                found = find_redundancy(train, seed=seed)
        if found.caution:
            raise Refusal(found.caution)
        scores = np.where(found.dead, 1.0, found.r_squared)  # a constant has nothing of its own
        return scores, np.zeros(n_dimensions)

    reader = "ridge" if ablation is None else ablation.reader
    orders: dict[str, Scores] = {f"importance ({reader})": importance, "redundancy": repeated}
    if attribution is not None:
        nuisance = attribution.nuisance_score
        orders["nuisance"] = lambda: (nuisance, np.zeros(n_dimensions))
    if weights is not None:
        known = np.asarray(weights, dtype=np.float64)
        orders["mask weight"] = lambda: (known, np.zeros(n_dimensions))
    return Exploration(explorer, orders, images, removed)
