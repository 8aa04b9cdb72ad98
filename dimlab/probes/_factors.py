"""Factors of a representation as columns beside its label: what attribution and erasure share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dimlab.clusters import cluster_ids
from dimlab.columns import notations_of
from dimlab.cuts import deal_folds
from dimlab.kernels.effects import (
    Effects,
    Label,
    class_means,
    effects,
    expand,
    orthonormal,
    varying,
    without_class_means,
)
from dimlab.kernels.rounding import spread_floor
from dimlab.names import FILES, NAMES, word_of
from dimlab.refusals import Refusal
from dimlab.representation import Representation

LEFT_OUT = "left out"
IDENTIFIABLE = 0.01  # share of a factor's variance that must be left given the label, and others
_BETWEEN = 0.1  # share of a factor's variance within clusters below which clusters are exchanged
_VARIES = 1e-6  # of a column's norm: less is rounding
_MANY = 20  # categories of whole numbers, beyond which they look continuous


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of N labelled samples; build it with ``Factors.of``."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]  # continuous, periodic or categorical
    label: Label
    clusters: np.ndarray | None  # (N,) ids from 0 of rows that belong together; None: independent
    values: tuple[np.ndarray, ...]  # (N,) each factor as it is
    columns: tuple[np.ndarray, ...]  # (N, P_f) basis functions: centred, orthogonal, of variance 1
    left_given_label: np.ndarray  # (F,) share of the columns' variance within classes
    left_given_others: np.ndarray  # (F,) of it what no other identifiable factor explains
    shared: np.ndarray  # (F, F) share of the variance within classes that another one explains
    notes: dict[str, str]  # by name: left out, or whole numbers that are many categories

    @classmethod
    def of(
        cls,
        representation: Representation,
        target: np.ndarray,
        factors: Sequence[str] | None,
        clusters: str | np.ndarray | None = None,
    ) -> Factors:
        """Expand the named factors, or all that do not merely number the samples."""
        notes = notes_of(representation)
        names = _names(representation, factors, notes, clusters)
        label = Label.of(target)
        periods = representation.periods
        columns = tuple(
            _orthogonal(expand(representation.factors[name], periods.get(name))) for name in names
        )
        values = tuple(representation.factors[name] for name in names)
        kinds = tuple(kind_of(representation, name) for name in names)
        if clusters is None and representation.view_columns:
            clusters = representation.view_columns[1]
        ids = cluster_ids(representation, clusters)
        left = _what_is_left(columns, label)
        return cls(names, kinds, label, ids, values, columns, *left, notes)

    @property
    def codes(self) -> np.ndarray:
        """Class indices from 0, (N,); zeros where the label is no class."""
        return self.label.codes

    @property
    def identifiable(self) -> np.ndarray:
        """Factors that vary by themselves, given the label, (F,) bool."""
        return self.left_given_label >= IDENTIFIABLE

    @property
    def separate(self) -> np.ndarray:
        """Factors that vary by themselves, given the label and the others, (F,) bool."""
        return self.identifiable & (self.left_given_others >= IDENTIFIABLE)

    @property
    def n_units(self) -> int:
        """Clusters, or rows where they are independent."""
        return len(self.codes) if self.clusters is None else int(self.clusters.max()) + 1

    @property
    def n_columns(self) -> int:
        """Columns of the largest design: the label and all factors."""
        return self.label.n_parameters + sum(each.shape[1] for each in self.columns)

    def deal(self, n_folds: int, rng: np.random.Generator) -> np.ndarray:
        """Deal rows, or whole clusters, to folds; classes with one sample are never held out."""
        return deal_folds(self.codes, n_folds, rng, clusters=self.clusters)

    def effects(self, features: np.ndarray, within: np.ndarray, folds: np.ndarray) -> Effects:
        """Effects of the factors, (D, F): NaN where they are not identifiable."""
        chosen = np.flatnonzero(self.identifiable)
        found = effects(
            features, within, self.label, [self.columns[f] for f in chosen], folds,
            [self.values[f] if self.kinds[f] == "continuous" else None for f in chosen],
        )  # fmt: skip
        given = np.full((2, features.shape[1], len(self.names)), np.nan)
        given[:, :, chosen] = found.given_label, found.given_all
        given[1, :, ~self.separate] = np.nan
        return Effects(given[0], given[1], found.of_label)

    def levels(self, within: np.ndarray) -> list[Level]:
        """Rows that the identifiable factors are tested on, from features without the label."""
        # Where rows belong together, a factor that is (nearly) constant in clusters is tested on
        # their means, which change places; any other one within cluster and class.
        chosen = np.flatnonzero(self.identifiable).tolist()
        columns = [self.label.without(self.columns[f]) for f in chosen]
        label = self.label.columns * np.sqrt(len(within))  # of variance 1, as the others
        if self.clusters is None:
            return [Level.of(within, label, columns, chosen, chosen, self.codes)]
        pairs = self.clusters * (int(self.codes.max()) + 1) + self.codes
        cells = np.unique(pairs, return_inverse=True)[1]
        inner = [without_class_means(each, cells) for each in columns]
        share = [(a**2).sum() / (b**2).sum() for a, b in zip(inner, columns, strict=True)]
        of_clusters = [f for f, each in zip(chosen, share, strict=True) if each < _BETWEEN]
        of_rows = [f for f in chosen if f not in of_clusters]
        first = np.unique(self.clusters, return_index=True)[1]
        codes = self.codes[first]
        if (codes[self.clusters] != self.codes).any():  # the label is taken off row by row
            codes = np.zeros_like(codes)
        means = [class_means(each, self.clusters) for each in (within, label, *columns)]
        features, given, *others = (without_class_means(each, codes) for each in means)
        inside = without_class_means(within, cells)
        inside[:, (inside**2).sum(axis=0) <= _VARIES**2 * (within**2).sum(axis=0)] = 0.0
        found = [
            Level.of(features, given, others, chosen, of_clusters, codes),
            Level.of(
                inside,
                without_class_means(label, cells),
                inner,
                chosen,
                of_rows,
                cells,
                self.clusters,
            ),
        ]
        return [each for each in found if each.factors]


@dataclass(frozen=True, eq=False)
class Level:
    """Rows on which T of the factors are tested; build it with ``Level.of``."""

    features: np.ndarray  # (n, D) without means of cells
    label: np.ndarray  # (n, C) covariates that vary here, orthonormal, likewise
    columns: list[np.ndarray]  # (n, R_f) of factors that vary here, orthonormal, likewise
    factors: list[int]  # those that are tested
    tested: list[int]  # their places in ``columns``
    cells: np.ndarray  # (n,) rows that share an intercept
    clusters: np.ndarray | None  # (n,) rows that change sign together; None: rows change places

    @classmethod
    def of(
        cls,
        features: np.ndarray,
        label: np.ndarray,
        columns: list[np.ndarray],
        of_columns: list[int],
        factors: list[int],
        cells: np.ndarray,
        clusters: np.ndarray | None = None,
    ) -> Level:
        """Leave out what does not vary here."""
        least = _VARIES * np.sqrt(len(cells))
        own = {f: orthonormal(each, least) for f, each in zip(of_columns, columns, strict=True)}
        varying = [f for f in own if own[f].shape[1]]
        mine = [f for f in factors if f in varying]
        tested = [varying.index(f) for f in mine]
        of_label = orthonormal(label, least)
        return cls(features, of_label, [own[f] for f in varying], mine, tested, cells, clusters)


def check_enough(known: Factors, n_folds: int, n_permutations: int, seed: int) -> None:
    """Refuse numbers out of their range, and fewer samples than the factors' columns need."""
    settings = (("n_folds", n_folds, 2), ("n_permutations", n_permutations, 1), ("seed", seed, 0))
    for name, value, least in settings:
        if value < least:
            raise Refusal(f"{name} must be >= {least}; got {value}.")
    if known.n_units < n_folds:
        what = "samples" if known.clusters is None else "clusters"
        raise Refusal(
            f"n_folds must be at most the number of {what}, {known.n_units}; got {n_folds}."
        )
    n = len(known.codes)
    if n * (1 - 1 / n_folds) <= known.n_columns + 1:
        of_label = "columns of the label" if known.label.columns.shape[1] else "classes"
        raise Refusal(
            f"attribute needs more than {int((known.n_columns + 1) / (1 - 1 / n_folds))} samples "
            f"for {len(known.names)} factors and {known.label.n_parameters} {of_label}; got {n}."
        )


def centred_features(
    representation: Representation, label: Label
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centred features, the same less what the label explains, and which are dead."""
    size = np.abs(representation.features).max(axis=0).astype(np.float64)
    # powers of two change no digit, and squares of what is left neither overflow nor vanish
    scale = np.exp2(-np.floor(np.log2(np.where(size > 0, size, 1.0))))
    features = representation.features * scale
    features -= features.mean(axis=0)
    within = label.without(features)
    spread = np.sqrt(np.einsum("nd,nd->d", within, within) / len(within))
    dead = spread <= spread_floor(size * scale, representation.eps)
    features[:, dead] = within[:, dead] = 0.0
    return features, within, dead


def kind_of(representation: Representation, name: str) -> str:
    """Say how a factor is treated."""
    if representation.factors[name].dtype.kind != "f":
        return "categorical"
    return "periodic" if name in representation.periods else "continuous"


def notes_of(representation: Representation) -> dict[str, str]:
    """Say which factors have too many categories to be looked at, or look continuous."""
    n_samples, notes = len(representation), {}
    if representation.view_columns:
        n_samples = len(np.unique(representation.factors[representation.view_columns[1]]))
    for name, values in representation.factors.items():
        if values.dtype.kind == "f" or name in representation.view_columns:
            continue
        n_categories, what, looks = len(np.unique(values)), "values", values.dtype.kind in "iu"
        if looks:
            what = "whole numbers"
        elif word_of(name) not in (*FILES, *NAMES) and notations_of(values) is not None:
            what, looks = "numbers that are text", True
        what = f"{n_categories} different {what}"
        remedy = " As floating numbers it is continuous (dimlab attribute --continuous {})."
        remedy = remedy.format(name) if looks else ""
        if n_categories > max(2, n_samples / 2):  # as names of samples have
            notes[name] = f"{LEFT_OUT}: {what} in {n_samples} samples.{remedy}"
        elif looks and n_categories > _MANY:
            notes[name] = f"taken as categories: {what}.{remedy}"
    return notes


def usable(representation: Representation) -> list[str]:
    """Factors that are looked at by default: all that have not a category for most samples."""
    notes = notes_of(representation)
    return [
        name
        for name in representation.factors
        if name not in representation.view_columns and not notes.get(name, "").startswith(LEFT_OUT)
    ]


def _names(
    representation: Representation,
    factors: Sequence[str] | None,
    notes: Mapping[str, str],
    clusters: str | np.ndarray | None,
) -> tuple[str, ...]:
    left_out = {name: note for name, note in notes.items() if note.startswith(LEFT_OUT)}
    known = [name for name in representation.factors if name not in representation.view_columns]
    of_rows = () if isinstance(clusters, np.ndarray) else (clusters,)
    named = [name for name in known if name not in left_out and name not in of_rows]
    if factors is not None:
        named = [factors] if isinstance(factors, str) else list(factors)
    if not named:
        listed = "".join(f" {name!r} is {note}" for name, note in left_out.items())
        raise Refusal(
            "attribute needs factors: build the Representation with factors={name: (N,)}, or "
            f"encode views and pass per_view().{listed}"
        )
    for name in named:
        if name not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise Refusal(f"factors must be among {listed}; got {name!r}.")
        if name in left_out:
            raise Refusal(
                "factors must have at most half as many categories as there are samples; got "
                f"{name!r}, {left_out[name].removeprefix(LEFT_OUT + ': ')}"
            )
    if len(set(named)) < len(named):
        raise Refusal(f"factors must be named once; got {', '.join(named)}.")
    return tuple(named)


def _orthogonal(columns: np.ndarray) -> np.ndarray:
    """Centre columns, make them orthogonal of variance 1; leave out what does not vary."""
    return orthonormal(varying(columns)) * np.sqrt(len(columns))


def _what_is_left(
    columns: Sequence[np.ndarray], label: Label
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``left_given_label``, ``left_given_others`` and ``shared`` of `Factors`."""
    total = np.array([(each**2).sum() for each in columns])
    total[total == 0] = 1.0
    inside = [label.without(each) for each in columns]
    left = np.array([(each**2).sum() for each in inside])
    chosen = np.flatnonzero(left >= IDENTIFIABLE * total)
    joint = orthonormal(np.hstack([columns[0][:, :0], *(inside[f] for f in chosen)]))
    own = {f: joint.T @ inside[f] for f in chosen}
    others, shared = np.zeros(len(columns)), np.zeros((len(columns), len(columns)))
    for f in chosen:
        beside = orthonormal(np.hstack([joint.T[:, :0], *(own[g] for g in chosen if g != f)]))
        others[f] = left[f] - ((beside.T @ own[f]) ** 2).sum()
        for g in chosen:
            shared[f, g] = ((orthonormal(own[g]).T @ own[f]) ** 2).sum() / left[f]
    return left / total, np.maximum(others, 0) / total, shared
