"""Losses of two batches of projections, each a function of arrays."""

import torch
from torch import Tensor
from torch.nn import functional

from dimlab.refusals import Refusal
from dimlab.training.distributed import Batch

__all__ = ["barlow_twins_loss", "cross_correlation", "nt_xent_loss", "vicreg_loss"]

BATCH_NORM_EPS = 1e-5  # the authors of Barlow Twins standardise with BatchNorm


def cross_correlation(z_a: Tensor, z_b: Tensor, *, unbiased: bool = False) -> Tensor:
    """Cross-correlation matrix of two batches of projections.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.
    unbiased : bool, default=False
        Whether to take the statistics of the official MetaMask code; see the notes.

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
    Standard deviations are biased and carry BatchNorm's eps of 1e-5, as in the code of [1]_:
    identical views have a diagonal of 1 up to eps, and a collapsed projection gives 0 up to
    rounding, not NaN. With ``unbiased``, as in the code of [2]_, the deviation is unbiased, has no
    eps, and the sum is still divided by B: every entry is (B - 1) / B times Pearson's correlation.
    A collapsed projection then has a row or column of NaN or infinity (its mean may round away
    from it). That is kept: the loss is not finite, which stops a run, where a 0 would pass for a
    decorrelated dimension.

    References
    ----------
    .. [1] Zbontar et al., "Barlow Twins", ICML 2021.
    .. [2] Li et al., "MetaMask", NeurIPS 2022.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> cross_correlation(z, z.flip(1), unbiased=True).round(decimals=4) + 0
    tensor([[0.0000, 0.7500],
            [0.7500, 0.0000]])
    """
    return _correlation(z_a, z_b, unbiased, Batch(len(z_a)))


def barlow_twins_loss(
    z_a: Tensor, z_b: Tensor, *, off_diagonal_weight: float = 5e-3, unbiased: bool = False
) -> Tensor:
    """Redundancy-reduction loss of two batches of projections.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.
    off_diagonal_weight : float, default=5e-3
        Weight of the redundancy term (lambda in [1]_), >= 0.
    unbiased : bool, default=False
        Which standard deviations; see `cross_correlation`.

    Returns
    -------
    Tensor of shape ()
        sum_i (1 - C_ii)^2 + off_diagonal_weight * sum_{i != j} C_ij^2.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), B < 2, or the weight is not >= 0.

    Notes
    -----
    Identical, decorrelated views have a loss of 0 up to eps; with ``unbiased`` the least value is
    P / B^2, since no C_ii passes (B - 1) / B.

    References
    ----------
    .. [1] Zbontar et al., "Barlow Twins", ICML 2021, eq. 1-2.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(barlow_twins_loss(z, z).item(), 4)
    0.0
    >>> round(barlow_twins_loss(z, z, unbiased=True).item(), 4)
    0.125
    """
    _check_weights(off_diagonal_weight=off_diagonal_weight)
    invariance, redundancy = barlow_twins_terms(z_a, z_b, unbiased=unbiased)
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
    return nt_xent_share(z_a, z_b, temperature, Batch(len(z_a)))


def vicreg_loss(
    z_a: Tensor,
    z_b: Tensor,
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
) -> Tensor:
    """Variance-invariance-covariance regularisation of two batches of projections.

    Parameters
    ----------
    z_a, z_b : Tensor of shape (B, P), floating
        Projections of two views; row i of each belongs to the same sample. B >= 2.
    invariance_weight, variance_weight, covariance_weight : float
        lambda, mu and nu of [1]_, >= 0.

    Returns
    -------
    Tensor of shape ()
        ``lambda * s + mu * v + nu * c``: s the mean square of z_a - z_b over all entries; v the
        mean over dimensions of max(0, 1 - sqrt(var + 1e-4)), averaged over the views; c the sum
        over i != j of Cov_ij^2 / P, summed over the views. Variances are divided by B - 1.

    Raises
    ------
    ValueError
        If the shapes differ, are not (B, P), B < 2, or a weight is not >= 0.

    Notes
    -----
    The conventions are those of the authors' code, and of lightly. The authors' text sums s over
    dimensions, P times as much, and adds up v over the views, twice as much; solo-learn adds up v
    too. Two collapsed views have the loss 0.99 * mu: the root of 1e-4 is 0.01.

    References
    ----------
    .. [1] Bardes, Ponce & LeCun, "VICReg", ICLR 2022, eq. 1-6.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> vicreg_loss(z, z).item()
    0.0
    >>> vicreg_loss(0 * z, 0 * z).item()
    24.75
    """
    _check_pair(z_a, z_b, Batch(len(z_a)))
    _check_weights(
        invariance_weight=invariance_weight,
        variance_weight=variance_weight,
        covariance_weight=covariance_weight,
    )
    invariance = (z_a - z_b).square().mean()
    variance, covariance = z_a.new_zeros(()), z_a.new_zeros(())
    for z in (z_a, z_b):
        centred = z - z.mean(0)
        matrix = centred.T @ centred / (len(z) - 1)  # (P, P)
        spread = (matrix.diagonal() + 1e-4).sqrt()
        variance = variance + torch.relu(1 - spread).mean() / 2
        # the diagonal goes before the sum: it would swallow small covariances
        off_diagonal = matrix - matrix.diagonal().diag()
        covariance = covariance + off_diagonal.square().sum() / z.shape[1]
    return (
        invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    )


def barlow_twins_terms(
    z_a: Tensor, z_b: Tensor, *, unbiased: bool = False, batch: Batch | None = None
) -> tuple[Tensor, Tensor]:
    """Return this rank's shares of sum_i (1 - C_ii)^2 and of sum_{i != j} C_ij^2."""
    batch = batch or Batch(len(z_a))
    correlation = _correlation(z_a, z_b, unbiased, batch)
    on_diagonal = correlation.diagonal()
    invariance = (on_diagonal - 1).square().sum()
    redundancy = correlation.square().sum() - on_diagonal.square().sum()
    return invariance / batch.world.size, redundancy / batch.world.size


def _correlation(z_a: Tensor, z_b: Tensor, unbiased: bool, batch: Batch) -> Tensor:
    """Return the (P, P) cross-correlation of the whole batch, the same on every rank."""
    _check_pair(z_a, z_b, batch)
    standardised = []
    for z in (z_a, z_b):
        centred = z - batch.mean(z)
        variance = batch.variance(z, centred, correction=1 if unbiased else 0)
        standardised.append(centred / (variance + (0 if unbiased else BATCH_NORM_EPS)).sqrt())
    return batch.sum(standardised[0].T @ standardised[1]) / batch.n_samples


def nt_xent_share(z_a: Tensor, z_b: Tensor, temperature: float, batch: Batch) -> Tensor:
    """Return this rank's share of NT-Xent: its own 2b rows against the 2B rows of all ranks."""
    _check_pair(z_a, z_b, batch)
    if not temperature > 0:
        raise Refusal(f"temperature must be > 0; got {temperature}.")
    mine = functional.normalize(torch.cat([z_a, z_b]), dim=1)  # (2b, P)
    pairs = batch.gather(torch.stack(mine.chunk(2), dim=1))  # (B, 2, P)
    similarities = mine @ torch.cat(pairs.unbind(1)).T / temperature  # (2b, 2B)
    everybody = torch.arange(2 * batch.n_samples, device=mine.device)
    first, second = everybody.chunk(2)
    itself = torch.cat([first[batch.rows], second[batch.rows]])
    partner = torch.cat([second[batch.rows], first[batch.rows]])
    # -inf, not a large number: 1e9 overflows in half precision
    similarities = similarities.masked_fill(everybody == itself[:, None], float("-inf"))
    return functional.cross_entropy(similarities, partner, reduction="sum") / len(everybody)


def _check_pair(z_a: Tensor, z_b: Tensor, batch: Batch) -> None:
    n_rows = batch.rows.stop - batch.rows.start
    if z_a.ndim != 2 or z_a.shape != z_b.shape or len(z_a) != n_rows or batch.n_samples < 2:
        wanted = "B" if batch.world.size == 1 else f"{n_rows} of B = {batch.n_samples}"
        raise Refusal(
            f"z_a and z_b must both have shape ({wanted}, P) with B >= 2; "
            f"got {tuple(z_a.shape)} and {tuple(z_b.shape)}."
        )


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not weight >= 0:
            raise Refusal(f"{name} must be >= 0; got {weight}.")
