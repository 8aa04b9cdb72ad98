"""What each reader predicts of every test sample, with all dimensions and without each group."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dimlab.kernels.downdate import (
    first_largest,
    group_logits,
    leave_out_losses,
    leave_out_predictions,
    log_losses,
    refuse_ill_conditioned,
    resolved_group_logits,
    single_removal_factors,
    tied_within,
)
from dimlab.readers import LinearReader, fit_logistic, fit_ridge
from dimlab.representation import Representation

_CALIBRATED = 10_000  # train rows, at most, that the ridge's temperature is fitted on
_LONG = 10.0  # seconds that are foretold

Progress = Callable[[int, int], None]
Parts = list[np.ndarray] | None  # groups of dimensions; None: each dimension alone


class Split(NamedTuple):
    """Features (N, D), class indices (N,), and what the features were rounded to (their dtype)."""

    features: np.ndarray
    codes: np.ndarray
    precision: str | None = None


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Predictions and losses of N test samples, as indices into the train split's classes.

    Parameters
    ----------
    full : ndarray of shape (N,), int64
        Predicted class index with all dimensions.
    ablated : ndarray of shape (N, G), int64
        Predicted class index without each group.
    full_loss : ndarray of shape (N,)
        Negative log-probability of the sample's class, in nats.
    ablated_loss : ndarray of shape (N, G)
        The same without each group.
    certified_share : float or None
        kNN: share of (sample, group) pairs settled without a look beyond the candidates.
    """

    full: np.ndarray
    ablated: np.ndarray
    full_loss: np.ndarray
    ablated_loss: np.ndarray
    certified_share: float | None = None


def labelled(
    train: Representation, test: Representation, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of two splits of the same dimensions, or say what is missing.

    Parameters
    ----------
    train, test : Representation
        The splits.
    what : str
        The function that asks.

    Returns
    -------
    tuple of ndarray
        Labels of train and of test.

    Raises
    ------
    ValueError
        If D differs or a split has no labels.
    """
    if train.n_dimensions != test.n_dimensions:
        raise ValueError(
            f"test must have {train.n_dimensions} dimensions to match train; got "
            f"{test.n_dimensions}."
        )
    if train.labels is None or test.labels is None:
        raise ValueError(
            f"{what} needs labels: build the Representation with labels=(N,) class ids."
        )
    return train.labels, test.labels


def knn_outcomes(
    train: Split,
    test: Split,
    parts: list[Parts],
    *,
    k: int,
    temperature: float,
    device: str,
    memory: float | None,
    progress: Progress | None,
) -> list[Outcomes]:
    """Let nearest neighbours vote, without each group of each part."""
    import torch

    from dimlab.kernels.neighbours import find_neighbours_without, vote
    from dimlab.kernels.rows import Groups, Rows

    bank, queries = Rows.of(train[0], device), Rows.of(test[0], device)
    classes = torch.from_numpy(train[1]).to(bank.device)
    truth = torch.from_numpy(test[1]).to(bank.device)
    n_classes = int(train[1].max()) + 1
    nothing = [np.array([], dtype=np.int64)]
    removed = [Groups.of(each, bank.n_dimensions, bank.device) for each in (nothing, *parts)]
    block = _block_within(memory, len(bank), bank.n_dimensions, max(map(len, removed)), k)
    predicted = [np.empty((len(queries), len(each)), dtype=np.int64) for each in removed]
    losses = [np.empty(each.shape) for each in predicted]
    n_certified = np.zeros(len(removed), dtype=np.int64)
    began = time.perf_counter()
    for blocks in find_neighbours_without(bank, queries, removed, k=k, block=block):
        part = slice(blocks[0].start, blocks[0].stop)
        if 0 < part.start == part.stop - part.start:  # the first block prepares the bank as well
            _foretell(time.perf_counter() - began, part.start, bank, queries, removed, k)
        began = time.perf_counter() if part.start == 0 else began
        for index, found in enumerate(blocks):
            winners, share = vote(
                classes[found.rows],
                found.similarities,
                truth[part],
                n_classes=n_classes,
                temperature=temperature,
            )
            predicted[index][part] = winners.cpu().numpy()
            losses[index][part] = -np.log((share.cpu().numpy() * k + 1) / (k + n_classes))
            n_certified[index] += found.n_certified
        if progress is not None:
            progress(part.stop, len(queries))
    return [
        Outcomes(
            predicted[0][:, 0], ablated, losses[0][:, 0], loss, float(certified / ablated.size)
        )
        for ablated, loss, certified in zip(
            predicted[1:], losses[1:], n_certified[1:].tolist(), strict=True
        )
    ]


def _foretell(
    seconds: float, n_done: int, bank: Any, queries: Any, removed: list[Any], k: int
) -> None:
    """Say on stderr what a long search will take, judged by its second block."""
    from dimlab.kernels.neighbours import bytes_of_search

    whole = seconds / n_done * len(queries)
    if whole < _LONG:
        return
    fixed, each = bytes_of_search(len(bank), bank.n_dimensions, max(map(len, removed)), k)
    print(
        f"kNN, {len(queries):,} test x {len(bank):,} train rows without each of "
        f"{sum(map(len, removed)) - 1:,} groups: about {whole:.0f} s and "
        f"{(fixed + n_done * each) / 1e9:.1f} GB beside the features.",
        file=sys.stderr,
    )


def _block_within(
    memory: float | None, n_bank: int, n_dimensions: int, n_groups: int, k: int
) -> int | None:
    """Return how many queries to work on together to stay within a budget in GB."""
    from dimlab.kernels.neighbours import bytes_of_search

    if memory is None:
        return None
    fixed, each = bytes_of_search(n_bank, n_dimensions, n_groups, k)
    if fixed + each > memory * 1e9:
        raise ValueError(
            f"memory must be at least {(fixed + each) / 1e9:.2g} GB for {n_bank} train rows of "
            f"{n_dimensions} dimensions; got {memory:g}. Ablate fewer train rows."
        )
    return min(256, int((memory * 1e9 - fixed) // each))


def ridge_outcomes(
    train: Split, test: Split, parts: list[Parts], *, penalty: float, fill: str | None
) -> list[Outcomes]:
    """Ridge, solved again without each group (``fill=None``), or frozen."""
    reader = fit_ridge(*train, penalty=penalty)
    temperature = _ridge_temperature(reader, train)
    logits = reader.logits(test[0])
    return [_ridge_without(reader, test, logits, groups, fill, temperature) for groups in parts]


def logistic_outcomes(
    train: Split,
    test: Split,
    parts: list[Parts],
    *,
    fill: str | None,
    seed: int,
    progress: Progress | None,
) -> list[Outcomes]:
    """Logistic regression, fitted again without each group (``fill=None``), or frozen."""
    reader = fit_logistic(*train, seed=seed)
    logits = reader.logits(test[0])
    found = []
    for groups in parts:
        if fill is not None:
            found.append(_frozen(reader, test, logits, groups, fill, 1.0))
            continue
        n_groups = test[0].shape[1] if groups is None else len(groups)
        without = _refitted_logits(reader, train, test[0], logits, groups, progress)
        found.append(_collect(logits, without, test[1], n_groups, 1.0))
    return found


def _collect(
    logits: np.ndarray,
    parts: Iterator[tuple[slice, np.ndarray]],
    truth: np.ndarray,
    n_groups: int,
    temperature: float,
) -> Outcomes:
    """Predictions and calibrated losses of logits that come class first, in blocks of groups."""
    ablated = np.empty((len(logits), n_groups), dtype=np.int64)
    loss, slack = np.empty(ablated.shape), tied_within(logits)
    for part, without in parts:
        ablated[:, part] = first_largest(without, slack[:, None])
        loss[:, part] = log_losses(without / temperature, truth)
    full_loss = log_losses(logits.T / temperature, truth)
    return Outcomes(first_largest(logits.T, slack), ablated, full_loss, loss)


def _ridge_without(
    reader: LinearReader,
    test: Split,
    logits: np.ndarray,
    groups: Parts,
    fill: str | None,
    temperature: float,
) -> Outcomes:
    """Ridge without each group: solved again, or frozen with a fill."""
    if fill is not None:
        return _frozen(reader, test, logits, groups, fill, temperature)
    system, columns = reader.solved, reader.standardise(test[0])
    refuse_ill_conditioned(system, reader.penalty)
    if groups is None:
        u = single_removal_factors(columns, system)
        return _collect_singles(logits, u, reader.weights, test[1], temperature)
    parts = resolved_group_logits(logits, columns, system, groups)
    return _collect(logits, parts, test[1], len(groups), temperature)


def _frozen(
    reader: LinearReader,
    test: Split,
    logits: np.ndarray,
    groups: Parts,
    fill: str,
    temperature: float,
) -> Outcomes:
    columns = reader.standardise(test[0])
    if fill == "zero":
        columns -= reader.standardise(np.zeros((1, columns.shape[1])))
    if groups is None:
        return _collect_singles(logits, columns, reader.weights, test[1], temperature)
    parts = group_logits(logits, ((columns[:, group], reader.weights[group]) for group in groups))
    return _collect(logits, parts, test[1], len(groups), temperature)


def _collect_singles(
    logits: np.ndarray, u: np.ndarray, v: np.ndarray, truth: np.ndarray, temperature: float
) -> Outcomes:
    """Predictions and calibrated losses of ``logits - u_d v_d`` for each dimension d."""
    calibrated, weights = logits / temperature, v / temperature
    # by the same arithmetic as the rest: what changes nothing has a difference of exactly 0
    full_loss = leave_out_losses(
        calibrated, np.zeros((len(u), 1)), np.zeros((1, v.shape[1])), truth
    )
    return Outcomes(
        first_largest(logits.T, tied_within(logits)),
        leave_out_predictions(logits, u, v),
        full_loss[:, 0],
        leave_out_losses(calibrated, u, weights, truth),
    )


def _refitted_logits(
    reader: LinearReader,
    train: Split,
    features: np.ndarray,
    logits: np.ndarray,
    groups: Parts,
    progress: Progress | None,
) -> Iterator[tuple[slice, np.ndarray]]:
    n_dimensions = features.shape[1]
    each = [np.array([d]) for d in range(n_dimensions)] if groups is None else groups
    began = time.perf_counter()
    fit_logistic(*train, penalty=reader.penalty)
    seconds = (time.perf_counter() - began) * len(each)
    print(
        f"ablate: {len(each)} logistic refits, at most about {seconds:.0f} s.",
        file=sys.stderr,
    )
    for index, group in enumerate(each):
        yield slice(index, index + 1), _refit(reader, train, features, logits, group)
        if progress is not None:
            progress(index + 1, len(each))


def _refit(
    reader: LinearReader,
    train: Split,
    features: np.ndarray,
    logits: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    if np.isin(group, reader.standardise.constant).all():
        return logits.T[:, :, None]
    kept = np.setdiff1d(np.arange(features.shape[1]), group)
    if len(kept) == 0:
        shares = np.bincount(train[1]) / len(train[1])
        return np.log(shares)[:, None, None] + np.zeros((1, len(features), 1))
    start = reader.select(kept)
    refitted = fit_logistic(
        train.features[:, kept], train.codes, train.precision, penalty=reader.penalty, start=start
    )
    return refitted.logits(features[:, kept]).T[:, :, None]


def _ridge_temperature(reader: LinearReader, train: Split) -> float:
    """Temperature of the softmax that minimises the log-loss of leave-one-out train logits."""
    from scipy.optimize import minimize_scalar

    n_rows = len(train[0])
    rows = slice(None, None, -(-n_rows // _CALIBRATED))  # one number needs no more
    columns, codes = reader.standardise(train[0][rows]), train[1][rows]
    leverage = np.einsum("nd,nd->n", columns @ reader.solved.inverse, columns) + 1 / n_rows
    targets = np.eye(len(reader.classes))[codes]
    residual = targets - columns @ reader.weights - reader.intercept
    held_out = targets - residual / np.maximum(1 - leverage, 1e-6)[:, None]

    def loss(log_temperature: float) -> float:
        return float(log_losses(held_out.T / np.exp(log_temperature), codes).mean())

    found = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
    return float(np.exp(found.x))
