"""Linear maps that remove directions from features, and ridge readers of what remains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.effects import Label
from dimlab.kernels.rounding import eps_of, spread_floor

_ELEMENTS = 1 << 23  # of centred rows at once
_RANK = 1e-10  # smaller shares of the largest eigenvalue or singular value are rounding
_TIED = 1e-9  # lead of a class that is rounding once what told it from others is out
_GONE = 1e-7  # smaller shares of a dimension's deviation before the map are rounding


@dataclass(frozen=True, eq=False)
class Removal:
    """A linear map that removes a few directions: A = I - left @ right.T."""

    left: np.ndarray  # (D, R); a centred row x loses left @ (right.T @ x)
    right: np.ndarray  # (D, R)

    @property
    def matrix(self) -> np.ndarray:
        """A, (D, D)."""
        return np.eye(len(self.left)) - self.left @ self.right.T

    @property
    def rank(self) -> int:
        """Number of removed directions: the trace of a projection is its rank."""
        return round(float((self.left * self.right).sum()))

    @property
    def largest(self) -> float:
        """Upper bound of the entries of A."""
        rows = (float(np.linalg.norm(each, axis=1).max()) for each in (self.left, self.right))
        return 1.0 + float(np.prod(list(rows)))

    def of_rows(self, centred: np.ndarray) -> np.ndarray:
        """Remove the directions from centred rows (N, D)."""
        return centred - (centred @ self.right) @ self.left.T

    def of_gram(self, gram: np.ndarray) -> np.ndarray:
        """Return A @ gram @ A.T for a symmetric gram (D, D), in D^2 R operations."""
        turned = gram @ self.right
        half = (turned - self.left @ (self.right.T @ turned) / 2) @ self.left.T
        return gram - half - half.T

    def of_columns(self, columns: np.ndarray, *, transposed: bool = False) -> np.ndarray:
        """Return A @ columns, or A.T @ columns, for columns (D, T)."""
        left, right = (self.right, self.left) if transposed else (self.left, self.right)
        return columns - left @ (right.T @ columns)


def without_directions(directions: np.ndarray, back: np.ndarray, chosen: np.ndarray) -> Removal:
    """Map that takes a basis's chosen scores to their mean and leaves the others."""
    # Scores are features @ directions (D, R); ``back`` is the pseudo-inverse (R, D). An orthogonal
    # projection where the directions are orthonormal, else an oblique one.
    return Removal(back[chosen].T, directions[:, chosen])


def least_squares_eraser(covariance: np.ndarray, cross: np.ndarray) -> Removal:
    """LEACE: the map of least change after which no linear reader finds a concept."""
    # Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, theorem
    # 4.3: A = I - W^+ P W with W the whitening matrix and P the projection onto the span of W
    # cross, for the covariance (D, D) and the covariance (D, T) with the concept.
    # the same map in units in which every dimension has variance 1: no scale hides a direction
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0))
    unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    covariance, cross = unit[:, None] * covariance * unit, unit[:, None] * cross
    size = np.linalg.norm(cross, axis=0)
    cross = cross / np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _RANK * max(float(values[-1]), 1e-300)
    root = np.sqrt(values[kept])
    whiten = (vectors[:, kept] / root) @ vectors[:, kept].T
    colour = (vectors[:, kept] * root) @ vectors[:, kept].T
    left, size, _ = np.linalg.svd(whiten @ cross, full_matrices=False)
    span = left[:, size > _RANK * max(float(size.max(initial=0.0)), 1e-300)]
    return Removal(deviation[:, None] * (colour @ span), unit[:, None] * (whiten @ span))


@dataclass(frozen=True, eq=False)
class RidgeMoments:
    """What a ridge reader of features behind any linear map needs to know of the train rows."""

    mean: np.ndarray  # (D,) of the features
    gram: np.ndarray  # (D, D) products of the centred features
    cross: np.ndarray  # (D, T) products of the centred features with the centred targets
    target_mean: np.ndarray  # (T,) of the targets
    n_samples: int  # N
    precision: str = "float64"  # what the features were rounded to

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        targets: np.ndarray,
        precision: str | None = None,
        *,
        codes: np.ndarray | None = None,
        within: Label | None = None,
    ) -> RidgeMoments:
        """Add up the moments of features (N, D) and targets (N, T), in float64."""
        # With class indices ``codes`` (N,) there is a further target a class, whether a row is of
        # it; these N x K numbers are never held. ``within``: less what a label explains of both.
        mean, target_mean = features.mean(axis=0, dtype=np.float64), targets.mean(axis=0)
        of_class = np.zeros((1, 0))
        if codes is not None:
            shares = np.bincount(codes) / len(codes)
            of_class, target_mean = np.eye(len(shares)), np.concatenate([target_mean, shares])
        fits = []
        if within is not None:
            fits = [within.fit(each) for each in (features, targets)]
            mean, target_mean = np.zeros_like(mean), np.zeros_like(target_mean)
        gram = np.zeros((features.shape[1],) * 2)
        cross = np.zeros((features.shape[1], len(target_mean)))
        for rows in blocks(len(features), _ELEMENTS // max(features.shape[1], len(target_mean))):
            of_features, of_targets = mean, target_mean
            if within is not None:
                of_features, of_targets = (within.fitted(each, rows) for each in fits)
            own = of_class[codes[rows]] if codes is not None else np.zeros((len(targets[rows]), 0))
            centred = features[rows].astype(np.float64) - of_features
            gram += centred.T @ centred
            cross += centred.T @ (np.hstack([targets[rows], own]) - of_targets)
        precision = precision or features.dtype.name
        return cls(mean, gram, cross, target_mean, len(features), precision)

    def left_by(
        self, map_: Removal | None, gram: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measure the deviation (D,) of every dimension behind a map, and whether it varies."""
        if gram is None:
            gram = self.gram if map_ is None else map_.of_gram(self.gram)
        before = np.sqrt(np.maximum(self.gram.diagonal(), 0) / self.n_samples)
        deviation = np.sqrt(np.maximum(gram.diagonal(), 0) / self.n_samples)
        floor = spread_floor(np.abs(self.mean), eps_of(self.precision))
        alive = deviation > np.maximum(_GONE * before, floor)
        if map_ is not None:  # what never varied may hold the rounding of a map, and no more
            least = spread_floor(map_.largest * before.max(initial=0.0), eps_of("float64"))
            alive &= (before > floor) | (deviation > least)
        return deviation, alive

    def rows_behind(self, features: np.ndarray, map_: Removal | np.ndarray | None) -> np.ndarray:
        """Return rows (N, D) behind a map; dimensions that are not kept are at their mean."""
        if map_ is None:
            return features
        if isinstance(map_, np.ndarray):  # kept dimensions
            left = np.tile(self.mean, (len(features), 1))
            left[:, map_] = features[:, map_]
            return left
        mapped = map_.of_rows(features - self.mean) + self.mean
        gone = ~self.left_by(map_)[1]  # what is left of them is the rounding of the map
        mapped[:, gone] = self.mean[gone]
        return mapped

    def weights_behind(self, map_: Removal | np.ndarray | None, penalty: float) -> np.ndarray:
        """Weights (D, T), on centred features before the map, of a ridge fitted behind it."""
        # ``map_`` may also be the dimensions that are kept, the others set to their mean. Equal to
        # fitting the ridge on mapped features; a dimension without variance behind the map counts
        # as 0.
        if isinstance(map_, np.ndarray):  # kept dimensions
            weights = np.zeros_like(self.cross)
            part = RidgeMoments(
                self.mean[map_],
                self.gram[np.ix_(map_, map_)],
                self.cross[map_],
                self.target_mean,
                self.n_samples,
                self.precision,
            )
            weights[map_] = part.weights_behind(None, penalty)
            return weights
        gram, cross = self.gram, self.cross
        if map_ is not None:
            gram, cross = map_.of_gram(gram), map_.of_columns(cross)
        deviation, alive = self.left_by(map_, gram)
        scale = np.zeros_like(deviation)
        scale[alive] = 1 / deviation[alive]
        system = scale[:, None] * gram * scale
        system[np.diag_indices_from(system)] += penalty * self.n_samples
        # numpy's own solver: scipy's threads and numpy's would wait for each other
        weights = scale[:, None] * np.linalg.solve(system, scale[:, None] * cross)
        return weights if map_ is None else map_.of_columns(weights, transposed=True)


def first_of_tied(scores: np.ndarray) -> np.ndarray:
    """Place of the largest score (..., K), of those that lead by rounding alone the first."""
    first: np.ndarray = (scores >= scores.max(axis=-1, keepdims=True) - _TIED).argmax(axis=-1)
    return first
