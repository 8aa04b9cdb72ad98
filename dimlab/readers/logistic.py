"""Multinomial logistic regression with an L2 penalty; of several labels, one regression each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dimlab.cuts import held_out
from dimlab.kernels.downdate import log_losses
from dimlab.readers.base import Outcomes, checked_rows
from dimlab.readers.estimator import refit_each
from dimlab.readers.linear import Linear, Standardiser, check_penalty
from dimlab.targets import CLASSES, MULTILABEL

_INVERSE_PENALTIES = 10.0 ** np.arange(-4, 3)
_HELD_OUT = 0.2
_TOLERANCE = 1e-5
_MAX_ITERATIONS = 2000

Softmax = tuple[np.ndarray, np.ndarray]  # weights (D, K) and intercept (K,)


@dataclass(eq=False)
class Logistic(Linear):
    """Multinomial logistic regression on features that are standardised on train.

    Parameters
    ----------
    penalty : float, optional
        > 0; half of it times the squared weights is added to the summed loss, whatever the number
        of classes. By default chosen from 1e-2 .. 1e4 by the log-loss of a stratified fifth of the
        train rows held out.
    run : Run, optional
        Device, memory and seed; a probe sets them from its own arguments.

    Raises
    ------
    ValueError
        If the penalty is not positive.

    Notes
    -----
    The objective is ``sum_n log-loss_n + penalty / 2 * sum_dk weights_dk^2``; the intercept is not
    penalised. scikit-learn's ``LogisticRegression`` minimises the same with ``C = 1 / penalty`` for
    three classes or more. For two classes it penalises the difference of their weights, twice as
    much, so that ``C = 2 / penalty`` is the same there.

    Several labels a sample, a 0/1 matrix (N, T), are read one against the rest: a regression of two
    classes for each label, with one penalty for all; the scores are log-odds.

    A class with one sample is never held out, and a penalty of 1 is taken where every class has
    one. The reader is then fitted once more on all rows, with a warning where 2,000 iterations were
    not enough.

    References
    ----------
    Cox, "The regression analysis of binary sequences", JRSS B 20, 1958.

    Examples
    --------
    >>> reader = Logistic().fit(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> reader.classify(np.array([[-0.2], [0.3]]))
    array([0, 1])
    >>> reader.predict(np.array([[0.0]])).round(6) + 0
    array([[0., 0.]])
    >>> rows = np.array([[-0.2], [0.3]])
    >>> options = {"target": np.array([0, 1])}
    >>> reader.predict_filled(rows, [np.array([0])], fill="mean", **options).ablated.tolist()
    [[0], [0]]
    >>> reader.predict_without(rows, [np.array([0])], **options).ablated.tolist()
    [[0], [0]]
    >>> Logistic().chosen(np.array([[-1.0], [1.0]]), np.array([0, 1])).penalty
    1.0
    """

    HOLDS: ClassVar = 28, 0  # three standardised copies
    REFITS: ClassVar = False
    SLOW: ClassVar = True
    KINDS: ClassVar = (CLASSES, MULTILABEL)
    name: ClassVar = "logistic"

    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.penalty is not None:
            check_penalty(self.penalty)

    def _fit(self, features: np.ndarray, codes: np.ndarray, start: Softmax | None = None) -> None:
        """Minimise the penalised log-loss, from weights and intercept to start with."""
        self.standardise = Standardiser.fit(features, self.run.precision)
        standardised = self.standardise(features)
        self.used_penalty = self.penalty
        if self.used_penalty is None:
            rng = np.random.default_rng(self.run.seed)
            self.used_penalty = _choose_penalty(standardised, codes, rng)
        fit = _fit_softmax if codes.ndim == 1 else _fit_each
        (self.weights, self.intercept), settled = fit(standardised, codes, self.used_penalty, start)
        if not settled:
            warnings.warn(
                f"the logistic reader had not settled after {_MAX_ITERATIONS} iterations at "
                f"penalty {self.used_penalty:g}; a larger penalty settles.",
                UserWarning,
                stacklevel=2,
            )
        self.weights[self.standardise.constant] = 0.0

    def chosen(self, features: np.ndarray, target: np.ndarray) -> Logistic:
        """Choose the penalty on these rows.

        Parameters
        ----------
        features : ndarray of shape (N, D), floating
            Train rows.
        target : ndarray of shape (N,), int, or (N, T) of 0 and 1
            Their class ids, or labels.

        Returns
        -------
        Logistic
            Not fitted, with the penalty that ``fit`` would choose.

        Raises
        ------
        ValueError
            If the shapes differ or there are fewer than two classes.
        """
        if self.penalty is not None:
            return self
        features, _, codes = checked_rows(features, target)
        standardised = Standardiser.fit(features, self.run.precision)(features)
        penalty = _choose_penalty(standardised, codes, np.random.default_rng(self.run.seed))
        return Logistic(penalty, run=self.run)

    def _without(
        self, features: np.ndarray, groups: list[np.ndarray], truth: np.ndarray
    ) -> Outcomes:
        """Really fit again without each group, from the weights of the rest; the penalty stays."""
        logits = self._scores(features)
        without = self._refits(groups, features, logits)
        return Outcomes.of_scores(logits, without, truth, len(groups))

    def _refits(
        self, groups: list[np.ndarray], features: np.ndarray, logits: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Give the logits (N, K) of a reader fitted without each group, after saying how long."""

        def once() -> float:
            began = time.perf_counter()
            Logistic(self.used_penalty, run=self.run)._fit(*self._train)
            return time.perf_counter() - began

        def refitted(group: np.ndarray) -> np.ndarray:
            return self._refitted(group, features, logits)

        return refit_each(self.name, groups, refitted, once, self.run)

    def _values_without(self, features: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
        """Really fit the regression of each label again without each group."""
        logits = self._scores(features)
        refitted = self._refits([group for group in groups if len(group)], features, logits)
        return np.stack([next(refitted) if len(group) else logits for group in groups], axis=1)

    def _refitted(self, group: np.ndarray, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the logits (N, K) of a reader fitted without a group."""
        train, codes = self._train
        if np.isin(group, self.standardise.constant).all():
            return logits
        kept = np.setdiff1d(np.arange(features.shape[1]), group)
        if len(kept) == 0 and codes.ndim == 2:
            return np.tile(_log_odds(codes), (len(features), 1))
        if len(kept) == 0:
            return np.tile(np.log(np.bincount(codes) / len(codes)), (len(features), 1))
        reader = Logistic(self.used_penalty, run=self.run)
        reader._fit(train[:, kept], codes, (self.weights[kept], self.intercept))
        return reader._scores(features[:, kept])


def _choose_penalty(standardised: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> float:
    """Choose the penalty of least log-loss on a stratified fifth of the rows held out."""
    several = codes.ndim == 2
    strata = np.zeros(len(codes), dtype=np.int64) if several else codes
    judge = held_out(strata, _HELD_OUT, rng.permutation(len(codes)))
    if not judge.any():
        return 1.0
    losses, start = [], None
    for inverse in _INVERSE_PENALTIES:
        # held-out loss judges a penalty too weak to converge as it does the others
        fit = _fit_each if several else _fit_softmax
        start, _ = fit(standardised[~judge], codes[~judge], 1 / inverse, start)
        logits, truth = standardised[judge] @ start[0] + start[1], codes[judge]
        loss = np.logaddexp(0, (1 - 2 * truth) * logits) if several else log_losses(logits.T, truth)
        losses.append(loss.mean())
    return float(1 / _INVERSE_PENALTIES[int(np.argmin(losses))])


def _fit_each(
    standardised: np.ndarray, labels: np.ndarray, penalty: float, start: Softmax | None
) -> tuple[Softmax, bool]:
    """Fit labels (N, T), each alone: log-odds as weights (D, T) and intercept (T,)."""
    weights, intercept = np.zeros((standardised.shape[1], labels.shape[1])), _log_odds(labels)
    settled = True
    for label, codes in enumerate(labels.T):
        if codes.min() == codes.max():  # nothing to tell
            continue
        own = None
        if start is not None:
            halves = (each[..., [label, label]] * [-0.5, 0.5] for each in start)
            own = next(halves), next(halves)
        found, each_settled = _fit_softmax(standardised, codes, penalty, own)
        weights[:, label], intercept[label] = (each[..., 1] - each[..., 0] for each in found)
        settled &= each_settled
    return (weights, intercept), settled


def _log_odds(labels: np.ndarray) -> np.ndarray:
    """Log-odds (T,) of each label's share, smoothed after Laplace."""
    count = labels.sum(axis=0)
    return np.log((count + 1) / (len(labels) - count + 1))


def _fit_softmax(
    standardised: np.ndarray, codes: np.ndarray, penalty: float, start: Softmax | None
) -> tuple[Softmax, bool]:
    """Return weights (D, K) and intercept (K,) of least loss, and whether they settled."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    n_classes = int(codes.max()) + 1
    # scikit-learn keeps the difference w of two classes and penalises w^2; as weights -w / 2 and
    # w / 2 have it, their squares add up to half of that
    inverse = (2 if n_classes == 2 else 1) / penalty
    model = LogisticRegression(
        C=inverse, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS, warm_start=start is not None
    )
    if start is not None:
        weights, intercept = start
        if n_classes == 2:
            weights, intercept = weights[:, 1:] - weights[:, :1], intercept[1:] - intercept[:1]
        model.coef_, model.intercept_ = weights.T.copy(), intercept.copy()
        model.classes_ = np.arange(n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller says it in one sentence
        model.fit(standardised, codes)
    settled = bool(model.n_iter_.max() < _MAX_ITERATIONS)
    if n_classes == 2:
        half, offset = model.coef_.T / 2, model.intercept_ / 2
        return (np.hstack([-half, half]), np.concatenate([-offset, offset])), settled
    return (model.coef_.T.copy(), model.intercept_.copy()), settled
