"""The dimensional mask and its history over training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimlab.io.files import naming, read_npz, replacing
from dimlab.refusals import Refusal
from dimlab.result import Result

_LARGEST = 1e15  # of a weight: float32 holds the sums of its squares


@dataclass(frozen=True, eq=False)
class DimensionMask:
    """One weight a dimension, shared by all samples.

    Parameters
    ----------
    weights : ndarray of shape (D,), floating
        Weights in [0, 1]: the sigmoid of the learned logits, or a raw mask. Kept as read-only
        float64.

    Raises
    ------
    ValueError
        If the weights are not a vector, are empty, not finite, or leave [0, 1].

    References
    ----------
    .. [1] Li et al., "MetaMask: Revisiting Dimensional Confounder for Self-Supervised Learning",
       NeurIPS 2022.

    Examples
    --------
    >>> logits = np.array([-1.0, 0.0, 1.0])
    >>> mask = DimensionMask(1 / (1 + np.exp(-logits)))
    >>> mask.weights.round(2), mask.constant().weights, mask.inverted().weights.round(2)
    (array([0.27, 0.5 , 0.73]), array([0.5, 0.5, 0.5]), array([0.73, 0.5 , 0.27]))
    >>> sorted(mask.permuted(np.random.default_rng(0)).weights.round(2).tolist())
    [0.27, 0.5, 0.73]
    """

    weights: np.ndarray

    def __post_init__(self) -> None:
        weights = np.array(self.weights, dtype=np.float64)
        if weights.ndim != 1 or weights.size == 0:
            raise Refusal(f"weights must have shape (D,) with D >= 1; got {weights.shape}.")
        outside = np.flatnonzero(~((weights >= 0) & (weights <= 1)))
        if outside.size:
            first = int(outside[0])
            raise Refusal(
                f"weights must lie in [0, 1]; got {weights[first]:g} at dimension {first}."
            )
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        """Return one line: how many weights there are, and where they lie."""
        low, high = self.weights.min(), self.weights.max()
        return f"DimensionMask({len(self):,} weights in [{low:.4g}, {high:.4g}])"

    def constant(self) -> DimensionMask:
        """Return the control with the mean weight everywhere: no dimension is preferred.

        Returns
        -------
        DimensionMask
            Of D weights.
        """
        return DimensionMask(np.full(len(self), self.weights.mean()))

    def inverted(self) -> DimensionMask:
        """Return the control ``1 - weights``: it prefers what this mask turns down.

        Returns
        -------
        DimensionMask
            Of D weights.
        """
        return DimensionMask(1.0 - self.weights)

    def permuted(self, rng: np.random.Generator) -> DimensionMask:
        """Return the control with the same weights on randomly chosen dimensions.

        Parameters
        ----------
        rng : numpy.random.Generator
            Chooses them; it moves on.

        Returns
        -------
        DimensionMask
            Of the same D weights.
        """
        return DimensionMask(rng.permutation(self.weights))


@dataclass(frozen=True, eq=False, repr=False)
class MaskTrace(Result):
    """The mask weights over training, with the norms of the hypergradient's two parts.

    Parameters
    ----------
    steps : ndarray of shape (T,), integer
        Training steps after which the weights were recorded, strictly increasing.
    weights : ndarray of shape (T, D), floating
        Recorded mask weights. A raw (not sigmoid) mask may leave [0, 1].
    direct_norm, second_order_norm : ndarray of shape (T,), floating, optional
        Norms of the direct and of the second-order part of the hypergradient with respect to the
        logits, at the recorded step (0 where no meta step was taken).
    gradient_share : ndarray of shape (T, D), floating, optional
        Mean absolute gradient of the contrastive loss with respect to each feature dimension.

    Raises
    ------
    ValueError
        If the shapes do not fit, the steps do not increase, or a value is not finite or beyond 1e15
        in size.

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022: the hypergradient's two parts.

    Examples
    --------
    >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> len(trace), trace.spread.tolist(), trace.travelled.tolist()
    (2, [0.0, 0.25], [0.25, 0.25])
    >>> trace.to_frame()["weight"].tolist()
    [0.5, 0.5, 0.25, 0.75]
    >>> trace.summary()["largest_change"], trace.summary()["moved"]
    (0.25, True)
    >>> trace
    MaskTrace(last_step=10, largest_change=0.25, moved=True)
    """

    HEADLINE = ("last_step", "largest_change", "moved")

    steps: np.ndarray
    weights: np.ndarray
    direct_norm: np.ndarray | None = None
    second_order_norm: np.ndarray | None = None
    gradient_share: np.ndarray | None = None

    def __post_init__(self) -> None:
        steps = np.asarray(self.steps)
        weights = np.asarray(self.weights)
        weights = weights.astype(np.float32) if weights.dtype == np.float16 else weights
        if steps.ndim != 1 or (len(steps) > 1 and not (np.diff(steps) > 0).all()):
            raise Refusal(f"steps must be a strictly increasing vector; got shape {steps.shape}.")
        if weights.ndim != 2 or len(weights) != len(steps):
            raise Refusal(f"weights must have shape ({len(steps)}, D); got {weights.shape}.")
        expected = {
            "direct_norm": steps.shape,
            "second_order_norm": steps.shape,
            "gradient_share": weights.shape,
        }
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "weights", weights)
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise Refusal(f"{name} must have shape {shape}; got {np.shape(value)}.")
        for name in ("weights", *expected):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                raise Refusal(f"{name} must be finite; got a NaN or an infinity.")
            if value is not None and np.size(value) and np.abs(value).max() > _LARGEST:
                raise Refusal(f"{name} must be at most {_LARGEST:g} in size; got more.")

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of_masks(cls, masks: Mapping[int, DimensionMask | np.ndarray]) -> MaskTrace:
        """Make a trace of the masks of any sequence of checkpoints.

        Parameters
        ----------
        masks : mapping of int to DimensionMask or ndarray of shape (D,)
            Training step to the weights then, in any order; raw weights may leave [0, 1].

        Returns
        -------
        MaskTrace
            One record a step, ascending.

        Raises
        ------
        ValueError
            If there is no mask, a step is not an integer, the masks are not vectors of one length
            D >= 1, or a weight is not finite.

        Examples
        --------
        >>> trace = MaskTrace.of_masks({100: np.array([0.9, 0.1]), 0: np.array([0.5, 0.5])})
        >>> trace.steps.tolist(), trace.travelled.tolist()
        ([0, 100], [0.4, 0.4])
        """
        if not masks:
            raise Refusal("masks must hold at least one mask; got none.")
        for step in masks:
            if isinstance(step, bool) or not isinstance(step, int | np.integer):
                raise Refusal(f"masks must be keyed by integer steps; got {step!r}.")
        rows: list[np.ndarray] = []
        for step in sorted(masks):
            mask = masks[step]
            row = np.asarray(
                mask.weights if isinstance(mask, DimensionMask) else mask, dtype=np.float64
            )
            wanted = rows[0].shape if rows else "(D,) with D >= 1"
            if row.ndim != 1 or row.size == 0 or (rows and row.shape != wanted):
                raise Refusal(f"masks[{step}] must have shape {wanted}; got {row.shape}.")
            rows.append(row)
        return cls(np.array(sorted(masks), dtype=np.int64), np.stack(rows))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the arrays to an ``.npz`` file.

        Parameters
        ----------
        path : path
            Must end in ``.npz``. Written to a temporary file first, then renamed.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        ValueError
            If the name has another ending.

        Examples
        --------
        >>> import tempfile
        >>> trace = MaskTrace(np.array([0, 10]), np.array([[0.5, 0.5], [0.25, 0.75]]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     MaskTrace.load(trace.save(Path(folder) / "trace.npz")).weights[-1]
        array([0.25, 0.75])
        """
        path = _npz_path(path)
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{name: value for name, value in arrays.items() if value is not None})
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MaskTrace:
        """Read a trace from an ``.npz`` file; no pickle is ever run.

        Parameters
        ----------
        path : path
            A file written by `save`, or any with ``steps`` (T,) and ``weights`` (T, D) and, if
            there are any, ``direct_norm``, ``second_order_norm`` and ``gradient_share``.

        Returns
        -------
        MaskTrace
            The arrays as stored.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the name has another ending, the file is damaged or lacks ``steps`` or ``weights``,
            an array is not of numbers (steps: of integers), or the arrays make no trace.
        """
        path = _npz_path(path)
        if not path.is_file():
            raise FileNotFoundError(f"path must be an .npz file; got {path}, which is not there.")
        return trace_in(path, read_npz(path))

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of the weights over dimensions at each recorded step, shape (T,)."""
        return self.weights.std(axis=1)

    @property
    def travelled(self) -> np.ndarray:
        """Absolute change of each weight from the first to the last record, shape (D,)."""
        return np.abs(self.weights[-1] - self.weights[0])

    def to_frame(self) -> Any:
        """Return one row a (step, dimension): ``step, dimension, weight``.

        Returns
        -------
        pandas.DataFrame
            T * D rows.
        """
        import pandas as pd

        n_steps, n_dimensions = self.weights.shape
        return pd.DataFrame(
            {
                "step": np.repeat(self.steps, n_dimensions),
                "dimension": np.tile(np.arange(n_dimensions), n_steps),
                "weight": self.weights.ravel(),
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return how far the mask moved, or that it did not.

        Returns
        -------
        dict
            ``n_steps``, ``first_step``, ``last_step``, ``mean_weight``, ``std_weight``,
            ``min_weight``, ``max_weight`` (at the last record), ``largest_change``, ``moved``
            (bool: some weight changed).
        """
        last = self.weights[-1]
        return {
            "n_steps": len(self),
            "first_step": int(self.steps[0]),
            "last_step": int(self.steps[-1]),
            "mean_weight": float(last.mean()),
            "std_weight": float(last.std()),
            "min_weight": float(last.min()),
            "max_weight": float(last.max()),
            "largest_change": float(self.travelled.max()),
            "moved": bool(self.travelled.max() > 0),
        }


def _npz_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix != ".npz":
        raise Refusal(f"path must end in .npz; got {path.name!r}.")
    return path


def trace_in(path: Path, found: Mapping[str, np.ndarray]) -> MaskTrace:
    """Return the trace that was saved in a file, given its arrays."""
    arrays = {name: found[name] for name in MaskTrace.__dataclass_fields__ if name in found}
    missing = [name for name in ("steps", "weights") if name not in arrays]
    if missing:
        raise Refusal(
            f"{path.name} must hold steps and weights; got no {' and no '.join(missing)}."
        )
    for name, array in arrays.items():
        kinds, what = ("iu", "integers") if name == "steps" else ("iuf", "numbers")
        if array.dtype.kind not in kinds:
            raise Refusal(f"{name} in {path.name} must be {what}; got {array.dtype}.")
    with naming(path):
        return MaskTrace(**arrays)
