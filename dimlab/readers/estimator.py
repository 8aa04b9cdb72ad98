"""Readers that are not of this package, and scikit-learn estimators: copies are really fitted.

Slow and right: the fast paths are tested against them.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dimlab.kernels.blocks import blocks
from dimlab.kernels.downdate import first_largest
from dimlab.processes import n_processes_here
from dimlab.readers.base import Outcomes, Run, class_codes, name_of
from dimlab.readers.linear import ROWS, Standardiser
from dimlab.refusals import Refusal, WrongType
from dimlab.targets import NAMES, VALUES, kind_of

_WORTH_PROCESSES = 5.0  # seconds of refits from which on they are shared among processes
_LEAST = 1e-12  # probability that an estimator's 0 counts as


class Estimator:
    """A scikit-learn estimator as a reader: a classifier's scores are log-probabilities."""

    # from `predict_proba`, else a softmax of `decision_function`, else the predicted classes alone,
    # smoothed after Laplace, which is said

    def __init__(self, model: Any, seed: int) -> None:
        from sklearn.base import clone, is_classifier, is_regressor

        self.name = name_of(model)
        self.regresses = is_regressor(model)
        if not (is_classifier(model) or self.regresses):
            raise WrongType(f"reader must be a classifier or a regressor; got {self.name}.")
        self.model = clone(model)
        # of a pipeline's steps too: the same classifier each time, whatever was drawn before
        unset = [name for name, value in self.model.get_params().items() if value is None]
        states = [name for name in unset if name.split("__")[-1] == "random_state"]
        self.model.set_params(**dict.fromkeys(states, seed))

    def fit(self, features: np.ndarray, target: np.ndarray) -> Estimator:
        """Fit a clone on features (N, D), as they are, and class ids (N,) or a target (N, T)."""
        from sklearn.base import clone

        fitted = copy.copy(self)
        single = self.regresses and target.ndim == 2 and target.shape[1] == 1
        fitted.model = clone(self.model).fit(features, target[:, 0] if single else target)
        if not self.regresses and not any(
            hasattr(fitted.model, each) for each in ("predict_proba", "decision_function")
        ):
            warnings.warn(
                f"{self.name} has neither predict_proba nor decision_function: log-losses are of "
                "its predictions alone, smoothed.",
                UserWarning,
                stacklevel=2,
            )
        return fitted

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return scores (N, K), or predictions (N, T), of features (N, D)."""
        model = self.model
        if self.regresses:
            return np.asarray(model.predict(features), dtype=np.float64).reshape(len(features), -1)
        if isinstance(getattr(model, "classes_", None), list):  # a class or none for each label
            shares = model.predict_proba(features)
            return np.column_stack([each[:, -1] for each in shares])
        if hasattr(model, "predict_proba"):
            return np.log(np.maximum(model.predict_proba(features), _LEAST))
        if hasattr(model, "decision_function"):
            scores = np.asarray(model.decision_function(features), dtype=np.float64)
            return scores if scores.ndim == 2 else np.column_stack([np.zeros_like(scores), scores])
        predicted = model.predict(features)
        if predicted.ndim == 2:
            return np.asarray(predicted, dtype=np.float64)
        named = predicted[:, None] == model.classes_
        return np.log((named + 1.0) / (1 + named.shape[1]))


class AnyReader:
    """A reader of anybody's, of which copies are fitted; what it cannot do fast is done slowly."""

    HOLDS = 16, 0  # the model's own copies
    REFITS = FREEZES = True

    classes: np.ndarray
    _train: tuple[np.ndarray, np.ndarray]
    _fitted: Any
    _seconds: float  # that one fit took

    def __init__(self, reader: Any, run: Run) -> None:
        self.reader = Estimator(reader, run.seed) if hasattr(reader, "get_params") else reader
        self.name = name_of(reader)
        self.run = run
        self.SLOW = not hasattr(reader, "predict_without")

    def fit(self, features: np.ndarray, target: np.ndarray) -> AnyReader:
        """Fit a copy on features (N, D) and a target, and remember how long it took."""
        self._check_target(target)
        fitted = copy.copy(self)
        if target.ndim == 2:
            fitted.classes, codes = np.array([], dtype=np.int64), target
        else:
            fitted.classes, codes = np.unique(target, return_inverse=True)
        fitted._train = features, codes
        began = time.perf_counter()
        fitted._fitted = _fitted(self.reader, features, codes)
        fitted._seconds = time.perf_counter() - began
        return fitted

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the scores (N, K) that the copy gives."""
        return np.asarray(self._fitted.predict(features))

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Return the predicted class id (N,) of features (N, D)."""
        return self.classes[first_largest(self.predict(features).T)]

    def predict_without(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, target: np.ndarray
    ) -> Outcomes:
        """Read features (N, D) of known classes (N,) without each group, in its own way if any."""
        truth = class_codes(target, self.classes)
        if hasattr(self._fitted, "predict_without"):
            found: Outcomes = self._fitted.predict_without(features, groups, target=truth)
            return found
        refit = _Refit(self.reader, self._train, features)
        without = refit_each(
            self.name, groups, refit, lambda: self._seconds, self.run, together=True
        )
        return Outcomes.of_scores(self.predict(features), without, truth, len(groups))

    def values_without(self, features: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
        """Return predictions (N, G, T) without each group, in its own way if any."""
        if hasattr(self._fitted, "values_without"):
            return np.asarray(self._fitted.values_without(features, groups))
        removed = [group for group in groups if len(group)]  # without nothing it is this copy
        refit = _Refit(self.reader, self._train, features)
        seconds = self._seconds
        refitted = refit_each(self.name, removed, refit, lambda: seconds, self.run, together=True)
        without = iter(list(refitted))
        return np.stack(
            [next(without) if len(group) else self.predict(features) for group in groups], axis=1
        )

    def values_filled(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, fill: str
    ) -> np.ndarray:
        """Return predictions (N, G, T) with something else in place of each group."""
        filled = self._filled(features, groups, fill)
        return np.stack([self.predict(each) for each in filled], axis=1)

    def _filled(
        self, features: np.ndarray, groups: Sequence[np.ndarray], fill: str
    ) -> Iterator[np.ndarray]:
        """Give features with something else in place of each group in turn."""
        columns, seed = Standardiser.fit(self._train[0], self.run.precision), self.run.seed
        instead = np.empty(features.shape)
        for rows in blocks(len(features), ROWS):
            instead[rows] = columns.stand_in(fill, features, rows, seed)
        for group in groups:
            changed = features.copy()
            changed[:, group] = instead[:, group]
            yield changed

    def _check_target(self, target: np.ndarray) -> None:
        """Refuse a classifier of real values and a regressor of classes."""
        regresses = getattr(self.reader, "regresses", None)
        kind = kind_of(np.asarray(target))
        if regresses is not None and regresses != (kind == VALUES):
            wanted = "regressor" if kind == VALUES else "classifier"
            raise Refusal(
                f"reader must be a {wanted} for labels that are {NAMES[kind]}; got {self.name}."
            )

    def predict_filled(
        self, features: np.ndarray, groups: Sequence[np.ndarray], *, fill: str, target: np.ndarray
    ) -> Outcomes:
        """Read them with something else in place of each group, in its own way if any."""
        truth = class_codes(target, self.classes)
        if hasattr(self._fitted, "predict_filled"):
            found: Outcomes = self._fitted.predict_filled(features, groups, fill=fill, target=truth)
            return found
        without = (self.predict(each) for each in self._filled(features, groups, fill))
        return Outcomes.of_scores(self.predict(features), without, truth, len(groups))

    def __getattr__(self, name: str) -> Any:
        """Find the other methods that the reader, or its fitted copy, may have."""
        if name.startswith("_") or name == "reader":  # asked for while a copy is made
            raise AttributeError(name)
        return getattr(vars(self).get("_fitted", self.reader), name)


class _Refit:
    """Fits a copy of a reader without a group, and scores the rest of other rows: (N, K)."""

    def __init__(
        self, reader: Any, train: tuple[np.ndarray, np.ndarray], features: np.ndarray
    ) -> None:
        self.reader, self.train, self.features = reader, train, features

    def __call__(self, group: np.ndarray) -> np.ndarray:
        train, codes = self.train
        kept = np.setdiff1d(np.arange(train.shape[1]), group)
        if len(kept) == 0:  # nothing to read: the shares of the classes
            if codes.ndim == 2:
                return np.tile(codes.mean(axis=0), (len(self.features), 1))
            return np.tile(np.log(np.bincount(codes) / len(codes)), (len(self.features), 1))
        fitted = _fitted(self.reader, np.ascontiguousarray(train[:, kept]), codes)
        return np.asarray(fitted.predict(np.ascontiguousarray(self.features[:, kept])))


def _fitted(reader: Any, features: np.ndarray, codes: np.ndarray) -> Any:
    """Fit a copy of a reader."""
    return copy.deepcopy(reader).fit(features, codes)


def refit_each(
    name: str,
    groups: Sequence[np.ndarray],
    refit: Callable[[np.ndarray], np.ndarray],
    once: Callable[[], float],
    run: Run,
    *,
    together: bool = False,
) -> Iterator[np.ndarray]:
    """Give the scores (N, K) of a refit without each group, after saying what it will take."""
    # `once` returns the seconds of one fit; `together`: processes share many of them
    from joblib import Parallel, cpu_count, delayed

    if len(groups) == 0:
        return
    seconds = once() * len(groups)
    n_cores = max(1, cpu_count() // n_processes_here())
    n_jobs = min(n_cores, len(groups)) if together and seconds > _WORTH_PROCESSES else 1
    print(f"{len(groups)} {name} refits, at most about {seconds / n_jobs:.0f} s.", file=sys.stderr)
    scores = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(refit)(g) for g in groups)
    for done, each in enumerate(scores, start=1):
        yield each
        if run.progress is not None:
            run.progress(done, len(groups))
