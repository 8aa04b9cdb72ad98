"""Terms of a risk bound, of a sample and of its bootstrap draws at once, in blocks of rows.

With E = exp(f f^T) in blocks of rows, the mean over j is E times the weights: one more product
serves all weightings. Exponents are taken from the anchor's product with itself, which no other
exceeds where all norms are equal, and which has weight wherever the anchor has.

The drawn negatives stay what they are in every draw. That the sample they come from changes is
counted to first order: by how much more than its equal share of its anchor's sum each negative
holds, times the change of its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dimlab.kernels.blocks import blocks
from dimlab.kernels.means import drawn_counts

_ELEMENTS = 1 << 22  # elements of a temporary array; float64: 32 MiB
_IN_CACHE = 1 << 19  # elements of an array that is gone over several times


@dataclass(frozen=True, eq=False)
class RiskTerms:
    """Means over samples under each of W weightings, in nats where they are logarithms."""

    pair: np.ndarray  # (W,) E f.f+ of anchors f and positives f+
    own: np.ndarray  # (W,) E f.mu_y, mu_y the mean anchor of the own class
    log_mean: np.ndarray  # (W,) E log mean_j exp(f.f_j), j over all anchors, the own one included
    log_prior: np.ndarray  # (W,) E log sum_k p_k exp(f.mu_k), p_k the share of class k
    # (W,) E log of the plain mean of exp(f.mu_k) over the classes that have weight
    log_uniform: np.ndarray
    within: np.ndarray  # (W,) E |f - mu_y|^2
    total: np.ndarray  # (W,) E |f - E f|^2
    view_within: np.ndarray  # (W,) E |f+ - mu_y|^2
    n_classes: np.ndarray  # (W,) int64 classes that have weight
    # (M, W) E log sum of exp(f.f_j) over the drawn negatives, one row a number of negatives
    log_negatives: np.ndarray
    # (W,) share of samples whose anchor and positive have the largest product with the same class
    # mean; the means are those of the sample itself
    agreement: np.ndarray
    # (D,) what each dimension contributes to ``within`` under the sample itself
    within_dimensions: np.ndarray
    # (M, N) what each sample contributes to ``log_negatives``, as an anchor and as a negative
    negatives: np.ndarray


def scaled_units(features: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
    """Mask rows (N, D) and scale them to the norm ``1 / sqrt(temperature)``; zeros stay zeros."""
    rows = features * np.asarray(weights, dtype=np.float64)
    # by a power of two, which is exact: squares neither overflow nor vanish
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows)[:, None] * temperature)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def class_risk(anchors: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Class variance and cross-entropy of the mean classifier of scaled anchors (N, D), alone."""
    from scipy.special import logsumexp

    shares = np.bincount(codes) / len(codes)
    means = np.eye(len(shares))[codes].T @ anchors / (shares[:, None] * len(codes))
    products = anchors @ means.T
    own = products[np.arange(len(codes)), codes].mean()
    squares = np.einsum("nd,nd->", anchors, anchors) / len(codes)
    within = squares - float(shares @ (means**2).sum(axis=1))
    return max(within, 0.0), float(logsumexp(products, axis=1, b=shares).mean() - own)


def draw_multiplicities(n_samples: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Count (N, B) how often each of B bootstrap draws takes each sample."""
    return drawn_counts(rng, n_draws, n_samples).T


def draw_negatives(
    n_rows: int, n_samples: int, n_negatives: int, rng: np.random.Generator
) -> np.ndarray:
    """Negatives (n_rows, n_negatives) of the next anchors, drawn with replacement."""
    # Blocks one after the other draw what one call would; fewer negatives are the first ones.
    return rng.integers(n_samples, size=(n_rows, n_negatives))


def risk_terms(
    anchors: np.ndarray,
    positives: np.ndarray,
    codes: np.ndarray,
    weights: np.ndarray,
    n_negatives: Sequence[int],
    rng: np.random.Generator,
    *,
    device: str = "cpu",
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RiskTerms:
    """Compute the terms of a risk bound under several weightings (N, W) of the same samples."""
    # Columns of the weights sum to N. The first is of ones: the sample itself, measured; the others
    # are draws from it. Numbers of negatives ascend.
    f, g, labels, counts = (
        torch.from_numpy(np.ascontiguousarray(each)).to(device)
        for each in (anchors, positives, codes, weights.astype(np.float64))
    )
    sample = _Sample(f, g, labels, counts)
    n_samples, n_weightings = weights.shape
    sums = torch.zeros(3, n_weightings, dtype=torch.float64, device=sample.weights.device)
    losses = torch.empty(n_samples, len(n_negatives), dtype=torch.float64, device=sums.device)
    shares = torch.zeros(len(n_negatives), n_samples, dtype=torch.float64, device=sums.device)
    for rows in blocks(n_samples, block or _ELEMENTS // max(n_samples, n_negatives[-1])):
        drawn = draw_negatives(rows.stop - rows.start, n_samples, n_negatives[-1], rng)
        products = sample.anchors[rows] @ sample.sorted_anchors.T
        places = sample.position[torch.from_numpy(drawn).to(sums.device)]
        losses[rows] = _log_sums(products, places, n_negatives, shares)
        sums[1:] += _class_log_means(products, rows, sample)
        sums[0] += _log_means(products, rows, sample)
        if progress is not None:
            progress(rows.stop)
    arrays = _class_moments(sample)
    arrays |= dict(zip(("log_mean", "log_prior", "log_uniform"), sums / n_samples, strict=True))
    arrays["negatives"] = losses.T + shares[:, sample.position]
    moved = shares @ (sample.sorted_weights - sample.sorted_weights[:, :1])
    arrays["log_negatives"] = (losses.T @ sample.weights + moved) / n_samples
    return RiskTerms(**{name: value.cpu().numpy() for name, value in arrays.items()})


@dataclass(frozen=True, eq=False)
class _Sample:
    """Samples and weightings on a device, and the same in order of class."""

    anchors: Tensor
    positives: Tensor
    codes: Tensor
    weights: Tensor

    @cached_property
    def order(self) -> Tensor:
        return torch.argsort(self.codes, stable=True)

    @cached_property
    def position(self) -> Tensor:
        return torch.argsort(self.order)

    @cached_property
    def sorted_anchors(self) -> Tensor:
        return self.anchors[self.order]

    @cached_property
    def sorted_weights(self) -> Tensor:
        return self.weights[self.order]

    @cached_property
    def members(self) -> list[slice]:
        """Rows of each class in the sorted order."""
        ends = torch.bincount(self.codes).cumsum(0).tolist()
        return [slice(*each) for each in zip([0, *ends], ends, strict=False)]

    @cached_property
    def class_weights(self) -> Tensor:
        """Summed weight of each class, (K, W)."""
        return torch.stack([self.sorted_weights[rows].sum(0) for rows in self.members])

    @cached_property
    def averaging(self) -> Tensor:
        """Sorted weights over those of the class, (N, W): products with them are class means."""
        averaging = self.sorted_weights.clone()
        for rows, weight in zip(self.members, self.class_weights, strict=True):
            averaging[rows] /= weight.clamp_min(1.0)
        return averaging


def _log_sums(
    products: Tensor, drawn: Tensor, n_negatives: Sequence[int], shares: Tensor
) -> Tensor:
    """Log of the summed exponentials of the first drawn products of each row, (rows, M)."""
    # Adds to ``shares`` (M, N) each sample's share of those sums, less that of its number of draws.
    chosen = products.gather(1, drawn)
    bounds = zip([0, *n_negatives], n_negatives, strict=False)
    parts = [torch.logsumexp(chosen[:, start:stop], dim=1) for start, stop in bounds]
    logs = torch.logcumsumexp(torch.stack(parts, dim=1), dim=1)
    for column, n_drawn in enumerate(n_negatives):
        share = (chosen[:, :n_drawn] - logs[:, column, None]).exp_().sub_(1 / n_drawn)
        shares[column].index_add_(0, drawn[:, :n_drawn].reshape(-1), share.view(-1))
    return logs


def _log_means(products: Tensor, rows: slice, sample: _Sample) -> Tensor:
    """Sum over anchors of log mean_j exp(f.f_j), (W,); the products are used up."""
    largest = sample.anchors[rows].square().sum(1, keepdim=True)
    means = products.sub_(largest).exp_() @ sample.sorted_weights
    weights = sample.weights[rows]
    logs = torch.log(means / len(sample.codes)) + largest
    return (weights * torch.where(weights > 0, logs, 0.0)).sum(0)


def _class_log_means(products: Tensor, rows: slice, sample: _Sample) -> Tensor:
    """Sum over anchors the log of the mean of exp(f.mu_k), by shares and plain, (2, W)."""
    shares = (sample.class_weights / len(sample.codes))[:, None]
    n_classes, _, n_weightings = shares.shape
    sums = shares.new_zeros(2, n_weightings)
    step = min(max(1, _IN_CACHE // (n_classes * n_weightings)), len(products))
    room = shares.new_empty(n_classes, step, n_weightings)
    for some in blocks(len(products), step):
        part, weights = products[some], sample.weights[rows][some]
        logits = room[:, : len(part)]
        for logit, members in zip(logits, sample.members, strict=True):
            torch.matmul(part[:, members], sample.averaging[members], out=logit)
        logits.masked_fill_(shares == 0, -torch.inf)  # a class that was not drawn has no mean
        largest = logits.amax(0)
        logits.sub_(largest).exp_()
        plain = logits.sum(0) / (shares > 0).sum(0)
        for row, mean in enumerate((logits.mul_(shares).sum(0), plain)):
            sums[row] += (weights * (torch.log(mean) + largest)).sum(0)
    return sums


def _class_moments(sample: _Sample) -> dict[str, Tensor]:
    """Return what depends on class means alone; for the sample itself without cancellation."""
    f, g, n_samples = sample.sorted_anchors, sample.positives[sample.order], len(sample.codes)
    weights = sample.sorted_weights
    own, within, view_within = f.new_zeros(3, weights.shape[1])
    dimensions, first_means = f.new_zeros(f.shape[1]), []
    for rows in sample.members:
        weight, means = weights[rows], f[rows].T @ sample.averaging[rows]
        squares = weight.sum(0) * means.square().sum(0)
        own += squares
        within += f[rows].square().sum(1) @ weight - squares
        apart = g[rows].square().sum(1, keepdim=True) - 2 * g[rows] @ means
        view_within += (weight * apart).sum(0) + squares
        first_means.append(means[:, 0])
        dimensions += weight[:, 0] @ (f[rows] - means[:, 0]).square()
    centres = torch.stack(first_means)
    codes = sample.codes[sample.order]
    within[0] = dimensions.sum()
    view_within[0] = weights[:, 0] @ (g - centres[codes]).square().sum(1)
    middle = f.T @ weights / n_samples
    between = (n_samples * middle.square().sum(0)).neg_() + own
    between[0] = sample.class_weights[:, 0] @ (centres - middle[:, 0]).square().sum(1)
    agree = (f @ centres.T).argmax(1) == (g @ centres.T).argmax(1)
    within, between, view_within = (
        each.clamp_min(0.0) / n_samples for each in (within, between, view_within)
    )
    return {
        "pair": (f * g).sum(1) @ weights / n_samples,
        "own": own / n_samples,
        "within": within,
        "total": within + between,
        "view_within": view_within,
        "n_classes": (sample.class_weights > 0).sum(0),
        "agreement": agree.double() @ weights / n_samples,
        "within_dimensions": dimensions / n_samples,
    }
