"""Arithmetic of the risk bound: terms of the sample and of the population, and their intervals."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dimlab.kernels.means import drawn_counts
from dimlab.kernels.paired import proportion_interval
from dimlab.mask import DimensionMask
from dimlab.readers.base import Progress
from dimlab.refusals import Refusal
from dimlab.representation import Representation
from dimlab.targets import class_labels

if TYPE_CHECKING:
    from dimlab.kernels.left_out import LeftOutTerms
    from dimlab.kernels.risk import RiskTerms

PROVED = ("cross_entropy", "nce_limit", "jensen_gap", "view_variance", "gap", "gap_bound")
AGREEMENT = "view_agreement"
FIXED = (*PROVED, "class_variance", "between_share", "mean_cross_entropy", "width", AGREEMENT)
SWEPT = ("nce", "lower", "middle", "upper")
_SIGNED = ("cross_entropy", "nce_limit", "mean_cross_entropy", *SWEPT)  # the rest is >= 0
_SHARES = ("between_share", AGREEMENT)
_ALIKE = 1e-12  # variance of unit rows below which they are equal but for rounding
_ROUNDING = 1e-9  # of 1 / temperature, or of 1
_LIMITS = (1e-6, 1e6)  # of the temperature: beyond, squares of exponents leave float64's range
_TAILS = (0.025, 0.975)
_FEWEST = 0.5  # rows or clusters of a class beside one, at least, in the scale of intervals
_SQUARES = ("within", "total", "view_within")


def check_classes(codes: np.ndarray, clusters: np.ndarray | None) -> None:
    """Refuse classes of which each is in one cluster: nothing is left to compare a row with."""
    units = np.arange(len(codes)) if clusters is None else clusters
    pairs = np.unique(np.column_stack([codes, units]), axis=0)
    if np.bincount(pairs[:, 0]).max() < 2:
        what = "sample" if clusters is None else "cluster"
        raise Refusal(
            f"labels must have a class of at least two {what}s; got one {what} of every class. The "
            f"population's risk needs class means without the {what} that is compared with them."
        )


def checked_numbers(n_negatives: int | Sequence[int]) -> list[int]:
    """Numbers of negatives, each once, ascending."""
    given = n_negatives if isinstance(n_negatives, Sequence | np.ndarray) else [n_negatives]
    try:
        numbers = sorted({operator.index(each) for each in given})
    except TypeError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise Refusal(
            f"n_negatives must be an integer >= 1, or at least one of them; got {n_negatives!r}."
        )
    return numbers


def check_settings(temperature: float, n_bootstrap: int, seed: int) -> None:
    low, high = _LIMITS
    if not low <= temperature <= high:
        raise Refusal(f"temperature must lie in [{low:g}, {high:g}]; got {temperature}.")
    for name, value, least in (("n_bootstrap", n_bootstrap, 2), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise Refusal(f"{name} must be an integer >= {least}; got {value!r}.")


def labelled_views(representation: Representation) -> tuple[np.ndarray, np.ndarray]:
    """Return views (V, N, D) and class indices from 0, (N,)."""
    labels = class_labels(representation.labels, "bound_risk")
    views = representation.views
    if views is None or len(views) < 2:
        raise Refusal(
            "bound_risk needs two views of each sample: encode(..., n_views=2), or build the "
            "Representation with views=(V, N, D), V >= 2."
        )
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise Refusal(
            f"labels must have at least 2 classes; got class {classes[0]} alone. With one class "
            "there is no risk to bound."
        )
    return views, codes


def masks_of(mask: DimensionMask | None, n_dimensions: int, seed: int) -> dict[str, np.ndarray]:
    """Weights of each mask, their largest 1: what normalising undoes is undone exactly."""
    weights = {"none": np.ones(n_dimensions)}
    if mask is None:
        return weights
    if len(mask) != n_dimensions:
        raise Refusal(f"mask must have {n_dimensions} weights to match features; got {len(mask)}.")
    permuted = mask.permuted(np.random.default_rng(seed))
    controls = {"constant": mask.constant(), "permuted": permuted, "inverted": mask.inverted()}
    for name, each in {"learned": mask, **controls}.items():
        weights[name] = each.weights / (each.weights.max() or 1.0)
    return weights


def measure(
    split: tuple[np.ndarray, np.ndarray],
    masks: dict[str, np.ndarray],
    numbers: list[int],
    temperature: float,
    clusters: np.ndarray | None,
    seed: int,
    device: str,
    progress: Progress | None,
) -> list[tuple[RiskTerms, LeftOutTerms]]:
    """Terms of the sample and of the population under each mask; equal masks are measured once."""
    from dimlab.kernels.left_out import left_out_terms
    from dimlab.kernels.risk import risk_terms, scaled_units

    views, codes = split
    distinct = {each.tobytes(): each for each in masks.values()}
    found: dict[bytes, tuple[RiskTerms, LeftOutTerms]] = {}

    def report(done: int) -> None:
        if progress is not None:
            progress(len(found) * len(codes) + done, len(distinct) * len(codes))

    for key, each in distinct.items():
        first, second = (scaled_units(view, each, temperature) for view in views[:2])
        rng = np.random.default_rng([seed, 2])
        terms = risk_terms(first, second, codes, numbers, rng, device=device, progress=report)
        found[key] = terms, left_out_terms(first, second, codes, clusters)
    return [found[each.tobytes()] for each in masks.values()]


def draws_of(
    found: list[tuple[RiskTerms, LeftOutTerms]],
    numbers: list[int],
    temperature: float,
    codes: np.ndarray,
    clusters: np.ndarray | None,
    n_bootstrap: int,
    seed: int,
) -> np.ndarray:
    """Terms of the population (R, T, 1 + B): estimated, and moved by draws of rows or clusters."""
    units = np.arange(len(codes)) if clusters is None else clusters
    n_units, n_classes = int(units.max()) + 1, int(codes.max()) + 1
    draws = drawn_counts(np.random.default_rng([seed, 1]), n_bootstrap, n_units).T
    moves = np.column_stack([np.zeros(len(codes)), (draws - 1)[units]]) / len(codes)
    in_class = len(np.unique(units * n_classes + codes)) / n_classes
    moves *= np.sqrt(in_class / max(in_class - 1, _FEWEST))
    columns = []
    for own, left in found:
        moved = {name: value + left.influence[name] @ moves for name, value in left.values.items()}
        negatives = own.negatives - own.negatives.mean(axis=1, keepdims=True)
        start = own.log_negatives + left.values["log_mean"] - own.log_mean
        terms = replace(
            own,
            **{name: np.maximum(moved.pop(name), 0.0) for name in _SQUARES},
            **moved,
            log_negatives=start[:, None] + negatives @ moves,
        )
        columns.append(columns_of(terms, numbers, temperature))
    return np.stack(columns)


def permuted_risks(
    features: np.ndarray,
    codes: np.ndarray,
    mask: DimensionMask | None,
    temperature: float,
    n_permuted: int,
    seed: int,
) -> np.ndarray:
    """V and CE_p under permuted masks, (2, P); P is 0 without a mask."""
    from dimlab.kernels.risk import class_risk, scaled_units

    if mask is None:
        return np.empty((2, 0))
    rng = np.random.default_rng([seed, 3])
    found = [
        class_risk(scaled_units(features, mask.permuted(rng).weights, temperature), codes)
        for _ in range(n_permuted)
    ]
    return np.array(found).T


def columns_of(terms: RiskTerms, numbers: list[int], temperature: float) -> np.ndarray:
    """Terms in order of ``RiskBound.terms``, (T,) of the sample or (T, 1 + B) of draws."""
    deviation = np.sqrt(terms.within / temperature)  # |f| sqrt(V)
    half = terms.within / (2 * temperature)  # |f|^2 V / 2
    cross_entropy = terms.log_prior - terms.own
    limit = terms.log_mean - terms.pair
    jensen = terms.log_mean - terms.log_prior
    fixed = {
        "cross_entropy": cross_entropy,
        "nce_limit": limit,
        "jensen_gap": jensen,
        "view_variance": terms.view_within,
        "gap": np.abs(limit - cross_entropy - jensen),
        "gap_bound": np.sqrt(terms.view_within / temperature),
        "class_variance": terms.within,
        "between_share": _between_share(terms, temperature),
        "mean_cross_entropy": terms.log_uniform + np.log(terms.n_classes) - terms.own,
        "width": 2 * deviation + half,
        AGREEMENT: terms.agreement,
    }
    nce = terms.log_negatives - terms.pair
    priors = np.log(np.array(numbers) / terms.n_classes)
    middle = np.add.outer(priors, fixed["mean_cross_entropy"])
    swept = (nce, nce - deviation - half, middle, nce + deviation)
    return np.concatenate([[fixed[name] for name in FIXED], *swept])


def _between_share(terms: RiskTerms, temperature: float) -> np.ndarray:
    """Share of the total variance that lies between classes; NaN where rounding is all there is."""
    varies = terms.total * temperature > _ALIKE
    return np.where(varies, 1 - terms.within / np.where(varies, terms.total, 1.0), np.nan)


def rounding_of(temperature: float) -> float:
    """Return the rounding, in nats, of terms whose exponents reach 1 / temperature."""
    return _ROUNDING * max(1.0, 1 / temperature)


def refuse_impossible(name: str, value: dict[str, float], temperature: float) -> None:
    """Raise where the inequality that is proved fails by more than rounding."""
    slack = rounding_of(temperature)
    if value["jensen_gap"] >= -slack and value["gap"] <= value["gap_bound"] + slack:
        return
    raise ArithmeticError(
        f"bound_risk: J = {value['jensen_gap']:.3g} must be >= 0 and the gap {value['gap']:.6g} at "
        f"most {value['gap_bound']:.6g} with mask {name!r}. This is a theorem, so dimlab is wrong: "
        "please report it."
    )


def intervals_of(
    columns: np.ndarray,
    terms: tuple[str, ...],
    learned: int | None,
    left_out: list[LeftOutTerms],
    clusters: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Values, differences and their intervals from columns (R, T, 1 + B)."""
    lowest = np.where(np.isin(terms, _SIGNED), -np.inf, 0.0)
    highest = np.where(np.isin(terms, _SHARES), 1.0, np.inf)
    low, high = (np.clip(each, lowest, highest) for each in _moved_quantiles(columns))
    agreement = terms.index(AGREEMENT)
    for row, each in enumerate(left_out):
        ids = None if clusters is None else np.unique(clusters[each.kept], return_inverse=True)[1]
        low[row, agreement], high[row, agreement] = proportion_interval(each.agree[each.kept], ids)
    found = {"values": np.clip(columns[:, :, 0], lowest, highest), "ci_low": low, "ci_high": high}
    unknown = np.full_like(columns, np.nan)
    for name, apart in {
        "difference": columns - columns[:1],
        "learned": unknown if learned is None else columns[learned] - columns,
    }.items():
        found[name] = apart[:, :, 0]
        found[f"{name}_low"], found[f"{name}_high"] = _moved_quantiles(apart)
    found["learned_difference"] = found.pop("learned")
    return found


def _moved_quantiles(columns: np.ndarray) -> np.ndarray:
    """Quantiles over draws, moved so that the draws' mean is the estimate, (2, R, T)."""
    value, draws = columns[:, :, 0], columns[:, :, 1:]
    bias = np.where((draws == value[:, :, None]).all(axis=2), 0.0, draws.mean(axis=2) - value)
    low, high = np.quantile(draws, _TAILS, axis=2) - bias
    # rounding, and draws that a few rows move, never leave the estimate outside
    return np.stack([np.fmin(low, value), np.fmax(high, value)])
