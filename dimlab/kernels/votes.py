"""Votes of neighbours for classes."""

from __future__ import annotations

import torch
from torch import Tensor

_ELEMENTS = 1 << 22


def count_votes(
    classes: Tensor, similarities: Tensor, *, n_classes: int, temperature: float
) -> Tensor:
    """Sum the votes of k neighbours for each class.

    Parameters
    ----------
    classes : Tensor of shape (..., k), int64
        Class index of each neighbour, nearest first.
    similarities : Tensor of shape (..., k), float64
        Their similarities, descending.
    n_classes : int
        K.
    temperature : float
        > 0; a vote is ``exp((s - s_max) / temperature)``.

    Returns
    -------
    Tensor of shape (..., K), float64
        Sums in order of the neighbours.
    """
    votes = torch.exp((similarities - similarities[..., :1]) / temperature)
    totals = votes.new_zeros(*votes.shape[:-1], n_classes)
    for neighbour in range(votes.shape[-1]):
        part = slice(neighbour, neighbour + 1)
        totals.scatter_add_(-1, classes[..., part], votes[..., part])
    return totals


def decide(totals: Tensor) -> Tensor:
    """Return the class with the largest total, the lower index of those equal to 10 decimals of it.

    Parameters
    ----------
    totals : Tensor of shape (..., K), float64
        Summed votes.

    Returns
    -------
    Tensor of shape (...), int64
        Class indices.
    """
    shares = totals / totals.amax(-1, keepdim=True)
    return torch.round(shares, decimals=10).argmax(-1)


def vote(
    classes: Tensor, similarities: Tensor, truth: Tensor, *, n_classes: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Let the neighbours of B queries without each of G groups vote.

    Parameters
    ----------
    classes, similarities : Tensor of shape (B, G, k)
        Class indices and similarities of the neighbours.
    truth : Tensor of shape (B,), int64
        Class index of each query.
    n_classes, temperature
        As in ``count_votes``.

    Returns
    -------
    predicted : Tensor of shape (B, G), int64
    share : Tensor of shape (B, G), float64
        Share of the votes that the query's own class got.
    """
    n_queries, n_groups, k = classes.shape
    truth = truth.repeat_interleave(n_groups)
    classes, similarities = classes.reshape(-1, k), similarities.reshape(-1, k)
    predicted = torch.empty_like(truth)
    share = torch.empty(len(truth), dtype=torch.float64, device=truth.device)
    step = max(1, _ELEMENTS // max(k, n_classes))
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        totals = count_votes(
            classes[part], similarities[part], n_classes=n_classes, temperature=temperature
        )
        predicted[part] = decide(totals)
        own = totals.gather(1, truth[part].unsqueeze(1))[:, 0]
        share[part] = own / totals.sum(1)
    return predicted.view(n_queries, n_groups), share.view(n_queries, n_groups)
