"""Losses of two batches of projections, each a function of arrays."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["barlow_twins_loss", "cross_correlation", "nt_xent_loss"]

BATCH_NORM_EPS = 1e-5  # the authors of Barlow Twins standardise with BatchNorm


def cross_correlation(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Cross-correlation matrix of two batches of projections.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.

    Returns
    -------
    Tensor of shape (P, P)
        Entry (i, j) correlates dimension i of the first view with dimension j of the second.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), or B < 2.

    Notes
    -----
    Standard deviations are biased and carry BatchNorm's eps of 1e-5: identical views have a
    diagonal of 1 up to eps, and a collapsed projection gives 0, not NaN. The official MetaMask code
    takes the unbiased deviation and divides by B, so that its diagonal cannot exceed (B - 1) / B.
    """
    _check_pair(z_a, z_b)
    standardised = [
        (z - z.mean(0)) / (z.var(0, correction=0) + BATCH_NORM_EPS).sqrt() for z in (z_a, z_b)
    ]
    return standardised[0].T @ standardised[1] / len(z_a)


def barlow_twins_terms(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor]:
    """Invariance and redundancy term of the Barlow Twins loss, unweighted.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views, B >= 2.

    Returns
    -------
    tuple of Tensor of shape ()
        sum_i (1 - C_ii)^2 and sum_{i != j} C_ij^2.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), or B < 2.
    """
    correlation = cross_correlation(z_a, z_b)
    on_diagonal = correlation.diagonal()
    invariance = (on_diagonal - 1).square().sum()
    redundancy = correlation.square().sum() - on_diagonal.square().sum()
    return invariance, redundancy


def barlow_twins_loss(z_a: Tensor, z_b: Tensor, *, off_diagonal_weight: float = 5e-3) -> Tensor:
    """Redundancy-reduction loss of two batches of projections.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.
    off_diagonal_weight : float, default=5e-3
        Weight of the redundancy term (lambda in [1]_), >= 0.

    Returns
    -------
    Tensor of shape ()
        sum_i (1 - C_ii)^2 + off_diagonal_weight * sum_{i != j} C_ij^2.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), or B < 2.

    References
    ----------
    .. [1] Zbontar et al., "Barlow Twins", ICML 2021, eq. 1-2.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow_twins_loss(z, z).item(), 4)
    0.0
    """
    invariance, redundancy = barlow_twins_terms(z_a, z_b)
    return invariance + off_diagonal_weight * redundancy


def nt_xent_loss(z_a: Tensor, z_b: Tensor, *, temperature: float) -> Tensor:
    """Normalised-temperature cross-entropy of SimCLR: one positive, 2B - 2 negatives a row.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.
    temperature : float
        Divides the cosine similarities (tau in [1]_), > 0.

    Returns
    -------
    Tensor of shape ()
        Mean over the 2B rows, in nats.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), B < 2, or the temperature is not positive.

    Notes
    -----
    A row that is all zero has similarity 0 to everything. For B orthogonal pairs the value is
    -log(e^(1/tau) / (e^(1/tau) + 2 (B - 1))).

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020, eq. 1.

    Examples
    --------
    >>> round(nt_xent_loss(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
    0.5514
    """
    _check_pair(z_a, z_b)
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0; got {temperature}.")
    z = functional.normalize(torch.cat([z_a, z_b]), dim=1)
    similarities = z @ z.T / temperature  # (2B, 2B)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # -inf, not a large number: 1e9 overflows in half precision
    similarities = similarities.masked_fill(itself, float("-inf"))
    partner = torch.arange(len(z), device=z.device).roll(len(z_a))
    return functional.cross_entropy(similarities, partner)


def _check_pair(z_a: Tensor, z_b: Tensor) -> None:
    if z_a.ndim != 2 or z_a.shape != z_b.shape or len(z_a) < 2:
        raise ValueError(
            "z_a and z_b must both have shape (B, P) with B >= 2; "
            f"got {tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )
