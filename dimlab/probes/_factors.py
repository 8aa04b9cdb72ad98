"""Factors of a representation as columns beside its label: what attribution and erasure share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dimlab.kernels.effects import (
    effects_given_label,
    expand,
    orthonormal,
    without_class_means,
)
from dimlab.kernels.rounding import eps_of, spread_floor
from dimlab.representation import Representation
from dimlab.tables import notations_of

LEFT_OUT = "left out"
IDENTIFIABLE = 0.01  # share of a factor's variance that must be left given the label
_MANY = 20  # categories of whole numbers, beyond which they look continuous


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of N labelled samples; build it with ``Factors.of``.

    Parameters
    ----------
    names, kinds : tuple of str
        Of F factors; ``continuous``, ``periodic`` or ``categorical``.
    codes : ndarray of shape (N,), int
        Class indices from 0.
    samples : ndarray of shape (N,), int
        Which rows are views of one sample.
    values : tuple of F ndarray of shape (N,)
        The factors as they are.
    columns : tuple of F ndarray of shape (N, P_f)
        Basis functions: centred, orthogonal, of variance 1.
    left_given_label : ndarray of shape (F,)
        Share of the columns' variance within classes.
    notes : dict of str to str
        By name, that a factor is left out, or that its whole numbers are many categories.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    codes: np.ndarray
    samples: np.ndarray
    values: tuple[np.ndarray, ...]
    columns: tuple[np.ndarray, ...]
    left_given_label: np.ndarray
    notes: dict[str, str]

    @classmethod
    def of(
        cls, representation: Representation, labels: np.ndarray, factors: Sequence[str] | None
    ) -> Factors:
        """Expand the named factors, or all that do not merely number the samples."""
        notes = notes_of(representation)
        names = _names(representation, factors, notes)
        codes = np.unique(labels, return_inverse=True)[1]
        periods = representation.periods
        columns = tuple(
            _orthogonal(expand(representation.factors[name], periods.get(name))) for name in names
        )
        values = tuple(representation.factors[name] for name in names)
        left = [_left_given_label(each, codes) for each in columns]
        kinds = tuple(kind_of(representation, name) for name in names)
        samples = np.arange(len(representation))
        if representation.view_columns:
            sample = representation.factors[representation.view_columns[1]]
            samples = np.unique(sample, return_inverse=True)[1]
        return cls(names, kinds, codes, samples, values, columns, np.array(left), notes)

    @property
    def identifiable(self) -> np.ndarray:
        """Factors that vary by themselves, given the label, (F,) bool."""
        return self.left_given_label >= IDENTIFIABLE

    @property
    def has_views(self) -> bool:
        """Whether some sample has several rows."""
        return int(self.samples.max()) + 1 < len(self.samples)

    @property
    def n_columns(self) -> int:
        """Columns of the largest design: classes and all factors."""
        return int(self.codes.max()) + 1 + sum(each.shape[1] for each in self.columns)

    def is_of_samples(self, factor: int) -> bool:
        """Whether a factor is the same in all views of a sample, of which some have several."""
        if not self.has_views:
            return False
        first = np.unique(self.samples, return_index=True)[1]
        values = self.values[factor]
        return bool((values == values[first][self.samples]).all())

    def deal(self, n_folds: int, rng: np.random.Generator) -> np.ndarray:
        """Deal the samples of every class to folds in turn, in random order; views together."""
        first = np.unique(self.samples, return_index=True)[1]
        codes = self.codes[first]
        folds = np.empty(len(codes), dtype=np.int64)
        shuffled = rng.permutation(len(codes))
        order = shuffled[np.argsort(codes[shuffled], kind="stable")]
        folds[order] = np.arange(len(codes)) % n_folds
        return folds[self.samples]

    def effects(
        self, features: np.ndarray, within: np.ndarray, folds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Effect (D, F), NaN where not identifiable, and the label's own (D,)."""
        chosen = np.flatnonzero(self.identifiable)
        found, label_effect = effects_given_label(
            features, within, self.codes, [self.columns[f] for f in chosen], folds
        )
        effect = np.full((features.shape[1], len(self.names)), np.nan)
        effect[:, chosen] = found
        return effect, label_effect


def centred_features(
    representation: Representation, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features in units of their own, centred; the same without class means; which are dead.

    Nothing that is measured of a dimension depends on its unit.
    """
    size = np.abs(representation.features).max(axis=0).astype(np.float64)
    # powers of two change no digit, and squares of what is left neither overflow nor vanish
    scale = np.exp2(-np.floor(np.log2(np.where(size > 0, size, 1.0))))
    features = representation.features * scale
    features -= features.mean(axis=0)
    within = without_class_means(features, codes)
    spread = np.sqrt(np.einsum("nd,nd->d", within, within) / len(within))
    dead = spread <= spread_floor(size * scale, representation.eps)
    features[:, dead] = within[:, dead] = 0.0
    return features, within, dead


def mean_of_each_sample(rows: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Mean of the rows of each sample, in the order of sample ids from 0."""
    order = np.argsort(samples, kind="stable")
    counts = np.bincount(samples)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.add.reduceat(rows[order], starts, axis=0) / counts[:, None]


def kind_of(representation: Representation, name: str) -> str:
    """Say how a factor is treated."""
    if representation.factors[name].dtype.kind != "f":
        return "categorical"
    return "periodic" if name in representation.periods else "continuous"


def notes_of(representation: Representation) -> dict[str, str]:
    """Say which factors have too many categories to be looked at, or look continuous.

    Numbers are never left out, nor taken as many categories, without a sentence.
    """
    n_samples, notes = len(representation), {}
    if representation.view_columns:
        n_samples = len(np.unique(representation.factors[representation.view_columns[1]]))
    for name, values in representation.factors.items():
        if values.dtype.kind == "f" or name in representation.view_columns:
            continue
        n_categories, what, looks = len(np.unique(values)), "values", values.dtype.kind in "iu"
        if looks:
            what = "whole numbers"
        elif notations_of(values) is not None:
            what, looks = "numbers that are text", True
        what = f"{n_categories} different {what}"
        remedy = f" As floating numbers it is continuous (--continuous {name})." if looks else ""
        if n_categories > max(2, n_samples / 2):  # as names of samples have
            notes[name] = f"{LEFT_OUT}: {what} in {n_samples} samples.{remedy}"
        elif looks and n_categories > _MANY:
            notes[name] = f"taken as categories: {what}.{remedy}"
    return notes


def _names(
    representation: Representation, factors: Sequence[str] | None, notes: Mapping[str, str]
) -> tuple[str, ...]:
    left_out = {name: note for name, note in notes.items() if note.startswith(LEFT_OUT)}
    known = [name for name in representation.factors if name not in representation.view_columns]
    named = [name for name in known if name not in left_out]
    if factors is not None:
        named = [factors] if isinstance(factors, str) else list(factors)
    if not named:
        listed = "".join(f" {name!r} is {note}" for name, note in left_out.items())
        raise ValueError(
            "attribute needs factors: build the Representation with factors={name: (N,)}, or "
            f"encode views and pass per_view().{listed}"
        )
    for name in named:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise ValueError(f"factors must be among {listed}; got {name!r}.")
        if name in left_out:
            raise ValueError(
                "factors must have at most half as many categories as there are samples; got "
                f"{name!r}, {left_out[name].removeprefix(LEFT_OUT + ': ')}"
            )
    if len(set(named)) < len(named):
        raise ValueError(f"factors must be named once; got {', '.join(named)}.")
    return tuple(named)


def _orthogonal(columns: np.ndarray) -> np.ndarray:
    """Centre columns, make them orthogonal of variance 1; leave out what does not vary."""
    centred = columns - columns.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    largest = np.maximum(np.abs(columns).max(axis=0, initial=0.0), 1e-300)
    varies = size > np.sqrt(len(columns)) * spread_floor(largest, eps_of("float64"))
    return orthonormal(centred[:, varies] / size[varies]) * np.sqrt(len(columns))


def _left_given_label(columns: np.ndarray, codes: np.ndarray) -> float:
    """Share of the columns' variance within classes."""
    if columns.shape[1] == 0:
        return 0.0
    left = without_class_means(columns, codes)
    return float((left**2).sum() / (columns**2).sum())
