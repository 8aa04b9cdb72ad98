"""Pruning: a smaller representation, and a bound of what it loses on samples held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.basis import fit_basis
from dimlab.given import RepresentationLike, as_representation, as_representations
from dimlab.probes._reading import OfSample, ReaderLike, sample_of
from dimlab.probes.ablate import ablate
from dimlab.probes.ablate_cumulatively import ablate_cumulatively
from dimlab.probes.find_redundancy import find_redundancy
from dimlab.readers.base import Progress, name_of
from dimlab.readers.linear import Standardiser
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.result import Verdict, column, detail, entry, per, scalar
from dimlab.targets import score_in_words

if TYPE_CHECKING:
    from torch import nn

_MARGIN = 0.01  # of the verdict, where no largest loss was asked for


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pruning(OfSample):
    """Which dimensions are kept, or which directions, and what a reader of them loses.

    References
    ----------
    Those of `prune`, which makes it.

    Examples
    --------
    >>> labels = np.arange(40) % 2
    >>> features = np.column_stack([2.0 * labels - 1, np.ones(40), np.cos(np.arange(40))])
    >>> found = prune((features, labels), (features, labels), drop_dead=True)
    >>> found.kept.tolist(), found.summary()["n_kept"], found.to_frame()["why"].tolist()
    ([0, 2], 2, ['', 'dead', ''])
    >>> found.apply(features).shape, found.module().weight.shape
    ((40, 2), torch.Size([2, 3]))
    """

    HEADLINE = ("n_dimensions", "n_kept", "full_score", "loss", "loss_high")

    n_dimensions: int = scalar("D, the number of dimensions before.")
    rotated: bool = scalar("Whether principal axes are kept in the place of dimensions.")
    matrix: np.ndarray = detail("Maps rows of D dimensions to those that are kept, (d, D).")
    dimension = column(lambda self: np.arange(self.n_dimensions), doc="Index of each dimension.")
    why: np.ndarray = per(
        "dimension",
        "Why the dimension is dropped: dead, copy of ..., dispensable, not named; empty: it is "
        "kept, or rotated.",
    )

    @entry
    def n_kept(self) -> int:
        """Dimensions, or directions, that are kept."""
        return len(self.matrix)

    reader: str = scalar("Name of the reader that measured the loss.")
    n_test: int = scalar("Test rows that measured it.")
    scored_by: str = scalar("What the reader was scored by.", default="accuracy")
    full_score: float = scalar("Score with everything; NaN without labels.")
    score: float = scalar("Score with what is kept.")
    loss: float = scalar("Score that is lost.")
    loss_low: float = scalar("Lower end of its 95 % interval over test samples.")
    loss_high: float = scalar("Upper end of it: the bound of what is lost.")
    max_loss: float | None = scalar("Largest loss that was asked for.", optional=True, default=None)

    @property
    def kept(self) -> np.ndarray:
        """Dimensions that are kept, ascending; (d,) int. All of them where axes are rotated."""
        return np.flatnonzero(self.why == "")

    def apply(self, representation: RepresentationLike) -> Representation:
        """Return a representation with what is kept alone.

        Parameters
        ----------
        representation : Representation, or array
            Of the D dimensions before.

        Returns
        -------
        Representation
            Features (N, d) and views; labels and factors stay.

        Raises
        ------
        ValueError
            If it has another number of dimensions.
        """
        given = as_representation(representation)
        if given.n_dimensions != self.n_dimensions:
            raise Refusal(
                f"representation must have {self.n_dimensions} dimensions; got "
                f"{given.n_dimensions}."
            )
        if not self.rotated:
            return given.select(self.kept)

        def turned(rows: np.ndarray) -> np.ndarray:
            return (rows.astype(np.float64) @ self.matrix.T).astype(rows.dtype)

        views = None if given.views is None else np.stack([turned(each) for each in given.views])
        meta = {**given.meta, "basis": "pca"}
        return given._trusted(features=turned(given.features), views=views, meta=meta)

    def module(self) -> nn.Linear:
        """Return a layer to put behind the encoder: features (..., D) to those kept, (..., d).

        Returns
        -------
        torch.nn.Linear
            Without a bias, its weights frozen.
        """
        import torch

        rows, columns = self.matrix.shape
        layer = torch.nn.utils.skip_init(torch.nn.Linear, columns, rows, bias=False)
        layer.weight.data = torch.from_numpy(self.matrix.astype(np.float32))
        return layer.requires_grad_(False)


def verdict(found: Pruning) -> Verdict | None:
    """Say whether the smaller representation is as good, within the largest loss."""
    if np.isnan(found.loss):
        return None
    margin = _MARGIN if found.max_loss is None else found.max_loss
    words = score_in_words(found.scored_by)
    answer = "no" if found.loss_high <= margin else "yes" if found.loss_low > 0 else "undecided"
    return Verdict(
        f"Does the smaller representation lose {words}?",
        answer,
        f"{found.n_kept} of {found.n_dimensions} kept: {words} {found.score:.4f}, before "
        f"{found.full_score:.4f}; loss at most {found.loss_high:.4f} (95 % interval, "
        f"{found.n_test} test samples, {found.reader} reader).",
        f"No: the interval of the loss lies within {margin:g}; yes: it lies above 0; else "
        "undecided.",
    )


def prune(
    train: RepresentationLike,
    test: RepresentationLike,
    *,
    keep: Sequence[int] | None = None,
    drop_dead: bool = False,
    drop_duplicates: bool = False,
    max_loss: float | None = None,
    directions: int | None = None,
    reader: ReaderLike = "ridge",
    target_kind: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Pruning:
    """Choose a smaller set of dimensions on train, and bound on test what it loses.

    Parameters
    ----------
    train : Representation, or pair of features and labels
        Rows that choose the dimensions, and that the reader is fitted on: features (N_train, D).
    test : Representation, or pair of features and labels
        Held-out rows of the same D dimensions, that the loss is measured on. Without labels in
        both, no loss is measured.
    keep : sequence of int, optional
        Dimensions to keep.
    drop_dead : bool, default=False
        Drop dimensions that do not vary on train.
    drop_duplicates : bool, default=False
        Of dimensions that are copies of each other keep the first.
    max_loss : float, optional
        In (0, 1): drop also as many as can be shown to cost at most this much of the score.
    directions : int, optional
        Keep this many principal axes of train, the largest variance first, in the place of
        dimensions, >= 1.
    reader : str or object, default="ridge"
        As in `ablate`.
    target_kind : {"classes", "values", "multilabel"}, optional
        What the labels are: classes, real values, or several labels a sample. By default integers,
        booleans and text are classes, floats real values, and a matrix of 0 and 1 several labels.
    seed : int, default=0
        As in `ablate`.
    progress : callable, optional
        Called as ``progress(done, total)`` during the long part.

    Returns
    -------
    Pruning
        What is kept, and the score that is lost: accuracy, R^2 of real values, mean average
        precision of several labels a sample; `Pruning.apply` and `Pruning.module` carry it
        out.

    Raises
    ------
    ValueError
        If nothing is asked for, directions come with another way to choose, a dimension is out of
        range, nothing would be left, ``max_loss`` comes without labels, or as `ablate`.

    Notes
    -----
    Dead dimensions and copies are found on train. ``max_loss`` removes dimensions in the order
    ``"worst-first"`` of `ablate_cumulatively`, which train alone decides, and as many as its test
    of non-inferiority allows on test. Principal axes are not centred. The loss compares the reader
    fitted again on what is kept with the reader of everything, on test: by Tango's interval [1]_ of
    accuracies, and Student's t interval of other scores.

    References
    ----------
    .. [1] Tango, Statistics in Medicine 17, 1998.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 2, 1200)
    >>> features = rng.normal(size=(1200, 4)) + np.outer(labels, [6, 0, 0, 0])
    >>> found = prune((features[:600], labels[:600]), (features[600:], labels[600:]), max_loss=0.02)
    >>> found.kept.tolist(), found.loss_high <= 0.02
    ([0], True)
    """
    train, test = as_representations(train=train, test=test).values()
    chosen = keep is not None or drop_dead or drop_duplicates or max_loss is not None
    if chosen == (directions is not None):
        raise Refusal(
            "keep, drop_dead, drop_duplicates and max_loss must say what is dropped, or directions "
            f"alone; got {'both' if chosen else 'none of them'}."
        )
    labelled = train.labels is not None and test.labels is not None
    if max_loss is not None and not labelled:
        raise Refusal("max_loss must come with labels of train and test; got none.")
    how: dict[str, Any] = {"reader": reader, "target_kind": target_kind, "seed": seed}
    n_dimensions = train.n_dimensions
    why = np.full(n_dimensions, "", dtype=object)
    whole = np.eye(n_dimensions)
    pair = train, test
    if directions is not None:
        basis = fit_basis(train, "pca", seed=seed)
        whole = basis.directions.T
        if not 1 <= directions <= len(whole):
            raise Refusal(f"directions must lie in 1..{len(whole)}; got {directions}.")
        kept, pair = np.arange(directions), (basis.apply(train), basis.apply(test))
    else:
        _mark(why, train, keep, drop_dead, drop_duplicates, seed)
        kept = np.flatnonzero(why == "")
        if len(kept) == 0:
            raise Refusal("keep must leave at least one dimension; got none.")
        if max_loss is not None and len(kept) > 1:
            curve = ablate_cumulatively(
                train.select(kept), test.select(kept), order="worst-first", margin=max_loss,
                progress=progress, **how,
            )  # fmt: skip
            # a reader of nothing is no reader, whatever it loses
            gone = kept[curve.order[: min(curve.n_dispensable, len(kept) - 1)]]
            why[gone] = "dispensable"
            kept = np.flatnonzero(why == "")
    dropped = np.setdiff1d(np.arange(len(whole)), kept)
    names = ("full_score", "score", "loss", "loss_low", "loss_high")
    measured: dict[str, Any] = dict.fromkeys(names, np.nan)
    scored_by = "accuracy"
    if labelled:
        # where nothing is dropped nothing changes, and any group gives the full score
        lost = ablate(*pair, groups=[dropped if len(dropped) else kept], n_bootstrap=1, **how)
        change = lost.scores[0], lost.importance[0], lost.ci_low[0], lost.ci_high[0]
        if len(dropped) == 0:
            change = lost.full_score, 0.0, 0.0, 0.0
        scored_by = lost.score
        measured = dict(zip(names, map(float, (lost.full_score, *change)), strict=True))
    return Pruning(
        sample=sample_of(test),
        n_dimensions=n_dimensions,
        rotated=directions is not None,
        matrix=whole[kept],
        why=why.astype(np.str_),
        reader=name_of(reader),
        n_test=len(test),
        max_loss=max_loss,
        scored_by=scored_by,
        **measured,
    )


def _mark(
    why: np.ndarray, train: Representation, keep: Sequence[int] | None, drop_dead: bool,
    drop_duplicates: bool, seed: int,
) -> None:  # fmt: skip
    """Write why each dimension is dropped: the first reason counts."""
    n_dimensions = len(why)
    if keep is not None:
        named = np.asarray(keep)
        if named.ndim != 1 or named.dtype.kind not in "iu" or len(named) == 0:
            raise Refusal(f"keep must be at least one whole number; got {list(keep)}.")
        if named.min() < 0 or named.max() >= n_dimensions:
            raise Refusal(
                f"keep must lie in [0, {n_dimensions}); got {named.min()}..{named.max()}."
            )
        why[np.setdiff1d(np.arange(n_dimensions), named)] = "not named"

    def mark(dimension: int, reason: str) -> None:
        why[dimension] = why[dimension] or reason

    if drop_dead:
        for d in Standardiser.fit(train.features, train.precision).constant:
            mark(int(d), "dead")
    if drop_duplicates:
        for members in find_redundancy(train, n_blocks=2, seed=seed).duplicates:
            living = [int(d) for d in np.sort(members) if not why[d]]
            for d in living[1:]:
                mark(d, f"copy of {living[0]}")
