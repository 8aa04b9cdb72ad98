"""Terms of a risk bound, of the sample itself, in blocks of rows.

The drawn negatives stay what they are when the sample they come from changes. That is counted to
first order: by how much more than its equal share of its anchor's sum each negative holds, times
the change of its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dimlab.kernels.blocks import blocks

_ELEMENTS = 1 << 22  # elements of a temporary array; float64: 32 MiB


@dataclass(frozen=True, eq=False)
class RiskTerms:
    """Means over samples, in nats where they are logarithms: of shape () or, of W draws, (W,)."""

    pair: np.ndarray  # E f.f+ of anchors f and positives f+
    own: np.ndarray  # E f.mu_y, mu_y the mean anchor of the own class
    log_mean: np.ndarray  # E log mean_j exp(f.f_j), j over all anchors, the own one included
    log_prior: np.ndarray  # E log sum_k p_k exp(f.mu_k), p_k the share of class k
    log_uniform: np.ndarray  # E log of the plain mean of exp(f.mu_k) over the classes
    within: np.ndarray  # E |f - mu_y|^2
    total: np.ndarray  # E |f - E f|^2
    view_within: np.ndarray  # E |f+ - mu_y|^2
    n_classes: np.ndarray
    # (M,) or (M, W): E log sum of exp(f.f_j) over the drawn negatives, one a number of negatives
    log_negatives: np.ndarray
    # share of samples whose anchor and positive have the largest product with the same class mean;
    # the means are those of the sample itself
    agreement: np.ndarray
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
    n_negatives: Sequence[int],
    rng: np.random.Generator,
    *,
    device: str = "cpu",
    block: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> RiskTerms:
    """Compute the terms of a risk bound; numbers of negatives ascend."""
    f, g, labels = (
        torch.from_numpy(np.ascontiguousarray(each)).to(device)
        for each in (anchors, positives, codes)
    )
    n, counts = len(f), torch.bincount(labels).double()
    centres = f.new_zeros(len(counts), f.shape[1]).index_add_(0, labels, f) / counts[:, None]
    log_shares = torch.log(counts / n)
    sums = f.new_zeros(4)  # log_mean, log_prior, log_uniform, agreement
    losses, shares = f.new_empty(n, len(n_negatives)), f.new_zeros(len(n_negatives), n)
    for rows in blocks(n, block or _ELEMENTS // max(n, n_negatives[-1])):
        drawn = draw_negatives(rows.stop - rows.start, n, n_negatives[-1], rng)
        places = torch.from_numpy(drawn).to(f.device)
        products, logits = f[rows] @ f.T, f[rows] @ centres.T
        losses[rows] = _log_sums(products, places, n_negatives, shares)
        same = logits.argmax(1) == (g[rows] @ centres.T).argmax(1)
        logs = (products, logits + log_shares, logits)
        sums += torch.stack([*(torch.logsumexp(each, 1).sum() for each in logs), same.sum()])
        if progress is not None:
            progress(rows.stop)
    own, middle = centres[labels], f.mean(0)
    within = (f - own).square().sum() / n
    sums /= n
    found = {
        "pair": (f * g).sum() / n,
        "own": counts @ centres.square().sum(1) / n,
        "log_mean": sums[0] - np.log(n),
        "log_prior": sums[1],
        "log_uniform": sums[2] - np.log(len(counts)),
        "within": within,
        "total": within + counts @ (centres - middle).square().sum(1) / n,
        "view_within": (g - own).square().sum() / n,
        "log_negatives": losses.mean(0),
        "agreement": sums[3],
        "n_classes": torch.tensor(len(counts)),
        "negatives": losses.T + shares,
    }
    return RiskTerms(**{name: value.cpu().numpy() for name, value in found.items()})


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
