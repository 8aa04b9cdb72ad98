"""Attribution: what every dimension carries beside the label, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimlab.kernels.correlation import CONSTANT
from dimlab.kernels.effects import (
    expand,
    orthonormal,
    out_of_fold_errors,
    permutation_p_values,
    without_class_means,
)
from dimlab.probes._outcomes import Progress, labelled
from dimlab.probes._reading import basis_of, plain, sample_of
from dimlab.representation import Representation

_IDENTIFIABLE = 0.01  # share of a factor's variance that must be left given the label
_SIGNIFICANT = 0.05
_N_NAMED = 10


@dataclass(frozen=True, eq=False)
class Attribution:
    """Effects of F factors and of the label on D dimensions.

    Parameters
    ----------
    factors : tuple of str
        Names of the factors.
    kinds : tuple of str
        ``continuous``, ``periodic`` or ``categorical``, for each factor.
    effect : ndarray of shape (D, F)
        Share of a dimension's squared error, given the label, that the factor takes off out of
        fold; in [0, 1]. NaN where the factor is not identifiable or the dimension does not vary
        within classes.
    label_effect : ndarray of shape (D,)
        The same of the label, given all factors that are identifiable.
    p_value, q_value : ndarray of shape (D, F)
        Within-class permutation p-values, and q-values over all of them (Benjamini-Hochberg).
    nuisance_score : ndarray of shape (D,)
        Largest effect of any factor; NaN where there is none.
    identifiable : ndarray of shape (F,), bool
        Whether the factor varies by itself, given the label.
    left_given_label : ndarray of shape (F,)
        Share of the factor's variance that the label leaves.
    dead : ndarray of shape (D,), bool
        Dimensions that do not vary within classes.
    n_samples, n_permutations : int
        N of test, and permutations.
    basis, sample : str
        Basis of the dimensions; which part of the test split was used, empty: all of it.
    """

    factors: tuple[str, ...]
    kinds: tuple[str, ...]
    effect: np.ndarray
    label_effect: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    nuisance_score: np.ndarray
    identifiable: np.ndarray
    left_given_label: np.ndarray
    dead: np.ndarray
    n_samples: int
    n_permutations: int
    basis: str = "axes"
    sample: str = ""

    def __len__(self) -> int:
        return len(self.label_effect)

    @property
    def leading(self) -> np.ndarray:
        """Factor of the largest effect on each dimension, (D,) int; -1: none."""
        known = ~np.isnan(self.effect)
        best = np.where(known, self.effect, -1.0).argmax(axis=1) if self.factors else 0
        return np.where(known.any(axis=1), best, -1)

    @property
    def flagged(self) -> np.ndarray:
        """Whether some factor has q <= 0.05 and an effect above 0 on the dimension, (D,) bool."""
        with np.errstate(invalid="ignore"):
            return np.any((self.q_value <= _SIGNIFICANT) & (self.effect > 0), axis=1)

    def verdicts(self) -> list[str]:
        """Say in a word what each dimension carries.

        Returns
        -------
        list of str
            ``dead``, ``nuisance`` (a factor's effect is flagged and at least the label's),
            ``mixed`` (flagged, below the label's), ``label`` (not flagged, label effect above
            0.01) or ``neither``.
        """
        flagged, found = self.flagged, []
        for d in range(len(self)):
            label, nuisance = self.label_effect[d], self.nuisance_score[d]
            if self.dead[d]:
                found.append("dead")
            elif flagged[d]:
                found.append("nuisance" if nuisance >= label else "mixed")
            else:
                found.append("label" if label > _IDENTIFIABLE else "neither")
        return found

    def to_frame(self) -> Any:
        """Return one row a dimension.

        Returns
        -------
        pandas.DataFrame
            ``dimension, leading_factor`` (empty: none), ``nuisance_score, p_value, q_value`` (of
            the leading factor), ``label_effect, verdict``.
        """
        import pandas as pd

        rows, leading = np.arange(len(self)), self.leading
        names = np.array([*self.factors, ""])
        of_leading = {}
        for name in ("p_value", "q_value"):
            values = np.column_stack([getattr(self, name), np.full(len(self), np.nan)])
            of_leading[name] = values[rows, leading]
        return pd.DataFrame(
            {
                "dimension": rows,
                "leading_factor": names[leading],
                "nuisance_score": self.nuisance_score,
                **of_leading,
                "label_effect": self.label_effect,
                "verdict": self.verdicts(),
            }
        )

    def tables(self) -> dict[str, Any]:
        """Return what stands beside the frame, by name.

        Returns
        -------
        dict of str to pandas.DataFrame
            ``effects``: one row a dimension and factor, with ``effect, p_value, q_value``.
        """
        import pandas as pd

        n_factors = len(self.factors)
        frame = pd.DataFrame(
            {
                "dimension": np.repeat(np.arange(len(self)), n_factors),
                "factor": np.tile(self.factors, len(self)) if n_factors else [],
                "effect": self.effect.ravel(),
                "p_value": self.p_value.ravel(),
                "q_value": self.q_value.ravel(),
            }
        )
        return {"effects": frame}

    def summary(self) -> dict[str, Any]:
        """Return the main numbers, ready for JSON.

        Returns
        -------
        dict
            Sizes, for each factor its kind, whether it is identifiable, how many dimensions it is
            flagged on and its largest effect; the dimensions of the largest nuisance score; counts
            of verdicts.
        """
        verdicts = self.verdicts()
        order = np.argsort(-np.nan_to_num(self.nuisance_score, nan=-1.0), kind="stable")
        each = {}
        for f, name in enumerate(self.factors):
            known = self.effect[:, f][~np.isnan(self.effect[:, f])]
            significant = np.nan_to_num(self.q_value[:, f], nan=1.0) <= _SIGNIFICANT
            each[name] = {
                "kind": self.kinds[f],
                "identifiable": bool(self.identifiable[f]),
                "left_given_label": float(self.left_given_label[f]),
                "n_flagged": int((significant & (self.effect[:, f] > 0)).sum()),
                "largest_effect": plain(known.max()) if len(known) else None,
            }
        return {
            "n_test": self.n_samples,
            "n_dimensions": len(self),
            "basis": self.basis,
            **({"sample": self.sample} if self.sample else {}),
            "n_permutations": self.n_permutations,
            "factors": each,
            "most_nuisance": [int(d) for d in order[:_N_NAMED] if self.flagged[d]],
            "verdicts": {word: verdicts.count(word) for word in dict.fromkeys(verdicts)},
            "effect": "share of squared error, given the label, that the factor takes off out of "
            "fold.",
        }


def attribute(
    train: Representation,
    test: Representation,
    *,
    factors: Sequence[str] | None = None,
    n_folds: int = 5,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attribution:
    """Measure what every factor explains of every dimension of ``test``, given the label.

    Parameters
    ----------
    train, test : Representation
        Labelled splits of the same D dimensions. Effects are estimated on ``test``, whose factors
        count; ``train`` is what readers and erasers are fitted on.
    factors : sequence of str, optional
        Factors of ``test`` to look at; all of them by default. Floating ones are continuous
        (periodic where the representation names a period), others categorical.
    n_folds : int, default=5
        Folds of the out-of-fold errors, balanced within classes, >= 2.
    n_permutations : int, default=1000
        Permutations of each factor within classes, >= 1.
    seed : int, default=0
        Deals folds and draws permutations.
    progress : callable, optional
        Called as ``progress(done, total)`` over permutations of all factors.

    Returns
    -------
    Attribution
        Effects with p- and q-values.

    Raises
    ------
    ValueError
        If labels are missing, D differs, the splits are in different bases, a factor is unknown or
        there is none, a number is out of its range, or there are too few samples.

    Notes
    -----
    ``effect = 1 - RSS(h ~ label + phi) / RSS(h ~ label)``, both out of fold, clipped at 0, where
    the label is one intercept a class and phi a natural cubic spline of 4 degrees of freedom, two
    harmonics, or one column a category. So a factor that merely follows the label explains nothing.
    A factor of whose phi the label leaves less than 1 % of the variance is not identifiable.

    P-values: the F statistic of phi given the label against permutations within classes [1]_, the
    same for all dimensions, whose studentised nulls are pooled. q-values over all dimensions and
    factors [2]_.

    References
    ----------
    .. [1] Winkler et al., "Permutation inference for the general linear model", NeuroImage 2014.
    .. [2] Benjamini and Hochberg, JRSS B 57, 1995.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(300) % 3
    >>> size = rng.normal(size=300)
    >>> features = rng.normal(size=(300, 3))
    >>> features += np.outer(labels, [0, 3, 0]) + np.outer(size, [2, 0, 0])
    >>> split = Representation(features, labels=labels, factors={"size": size})
    >>> attribute(split, split, n_permutations=99).verdicts()
    ['nuisance', 'label', 'neither']
    """
    from scipy.stats import false_discovery_control

    _, labels = labelled(train, test, "attribute")
    if basis_of(train) != basis_of(test):
        raise ValueError(
            f"test must be in the basis of train, {basis_of(train)}; got {basis_of(test)}. Apply "
            "the same Basis to both."
        )
    names = _names(test, factors)
    for name, value, least in (("n_folds", n_folds, 2), ("n_permutations", n_permutations, 1)):
        if value < least:
            raise ValueError(f"{name} must be >= {least}; got {value}.")
    codes = np.unique(labels, return_inverse=True)[1]
    columns = [expand(test.factors[name], test.periods.get(name)) for name in names]
    left = np.array([_left_given_label(each, codes) for each in columns])
    identifiable = left >= _IDENTIFIABLE
    widest = codes.max() + 1 + sum(each.shape[1] for each in columns)
    if len(test) < n_folds or len(test) * (1 - 1 / n_folds) <= widest + 1:
        raise ValueError(
            f"attribute needs more than {int((widest + 1) / (1 - 1 / n_folds))} samples for "
            f"{len(names)} factors and {codes.max() + 1} classes; got {len(test)}."
        )
    rng = np.random.default_rng(seed)
    folds = _folds(codes, n_folds, rng)
    features = test.features.astype(np.float64)
    features -= features.mean(axis=0)
    within = without_class_means(features, codes)
    spread = np.sqrt(np.einsum("nd,nd->d", within, within) / len(within))
    dead = spread <= CONSTANT * np.maximum(np.abs(test.features).max(axis=0), 1e-300)
    within[:, dead] = 0.0
    intercepts = np.eye(codes.max() + 1)[codes]
    alone = _or_nan(out_of_fold_errors(features, intercepts, folds), dead)
    effect = np.full((len(dead), len(names)), np.nan)
    p_value = np.full_like(effect, np.nan)
    for f in np.flatnonzero(identifiable):
        scaled = _scaled(columns[f])
        error = out_of_fold_errors(features, np.hstack([intercepts, scaled]), folds)
        effect[:, f] = np.clip(1 - error / alone, 0, 1)
        p_value[:, f] = permutation_p_values(
            within,
            orthonormal(without_class_means(scaled, codes)),
            codes,
            n_permutations,
            rng,
            _part_of(progress, int(identifiable[:f].sum()), int(identifiable.sum())),
        )
    known = ~np.isnan(p_value)
    q_value = np.full_like(p_value, np.nan)
    if known.any():
        q_value[known] = false_discovery_control(p_value[known])
    return Attribution(
        factors=names,
        kinds=tuple(_kind(test, name) for name in names),
        effect=effect,
        label_effect=_label_effect(
            features, intercepts, [columns[f] for f in np.flatnonzero(identifiable)], folds, dead
        ),
        p_value=p_value,
        q_value=q_value,
        nuisance_score=_largest(effect),
        identifiable=identifiable,
        left_given_label=left,
        dead=dead,
        n_samples=len(test),
        n_permutations=n_permutations,
        basis=basis_of(test),
        sample=sample_of(test),
    )


def _names(test: Representation, factors: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(test.factors) if factors is None else tuple(factors)
    if not names:
        raise ValueError(
            "attribute needs factors: build the Representation with factors={name: (N,)}, or "
            "encode views and pass per_view()."
        )
    for name in names:
        if name not in test.factors:
            known = ", ".join(map(repr, test.factors))
            raise ValueError(f"factors must be among {known}; got {name!r}.")
    return names


def _kind(test: Representation, name: str) -> str:
    if test.factors[name].dtype.kind != "f":
        return "categorical"
    return "periodic" if name in test.periods else "continuous"


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Centre and scale columns: those that do not vary are left out."""
    centred = columns - columns.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    varies = size > CONSTANT * np.sqrt(len(columns)) * np.maximum(
        np.abs(columns).max(axis=0), 1e-300
    )
    return centred[:, varies] / size[varies] * np.sqrt(len(columns))


def _left_given_label(columns: np.ndarray, codes: np.ndarray) -> float:
    """Share of the columns' variance within classes."""
    scaled = _scaled(columns)
    if scaled.shape[1] == 0:
        return 0.0
    left = without_class_means(scaled, codes)
    return float((left**2).sum() / (scaled**2).sum())


def _folds(codes: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Deal the samples of every class to folds in turn, in random order."""
    folds = np.empty(len(codes), dtype=np.int64)
    shuffled = rng.permutation(len(codes))
    order = shuffled[np.argsort(codes[shuffled], kind="stable")]
    folds[order] = np.arange(len(codes)) % n_folds
    return folds


def _or_nan(errors: np.ndarray, dead: np.ndarray) -> np.ndarray:
    return np.where(dead | (errors <= 0), np.nan, errors)


def _label_effect(
    features: np.ndarray,
    intercepts: np.ndarray,
    columns: list[np.ndarray],
    folds: np.ndarray,
    dead: np.ndarray,
) -> np.ndarray:
    """Share of squared error, given all factors, that the label takes off."""
    others = [np.ones((len(features), 1)), *map(_scaled, columns)]
    without = _or_nan(out_of_fold_errors(features, np.hstack(others), folds), dead)
    both = out_of_fold_errors(features, np.hstack([intercepts, *others[1:]]), folds)
    return np.clip(1 - both / without, 0, 1)


def _largest(effect: np.ndarray) -> np.ndarray:
    """Largest of each row that is not NaN; NaN where all are."""
    best = np.where(np.isnan(effect), -np.inf, effect).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def _part_of(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda done, total: progress(place * total + done, count * total)
