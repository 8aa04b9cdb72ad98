"""Readers: probe classifiers that tell what a task finds in frozen features.

``__all__`` is the only list of them: a reader is a class with ``fit`` and ``predict``, and its name
here; ``reader="knn"`` is ``KNN``. `base` says what a reader must and may do.
"""

from __future__ import annotations

import numpy as np

from dimlab.readers.base import Outcomes as Outcomes
from dimlab.readers.base import Reader as Reader
from dimlab.readers.base import RemovesExactly as RemovesExactly
from dimlab.readers.base import as_reader as as_reader
from dimlab.readers.knn import KNN
from dimlab.readers.logistic import Logistic
from dimlab.readers.ridge import Ridge

__all__ = ["KNN", "Ridge", "Logistic"]  # noqa: RUF022 - in the order that messages list


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, *, penalty: float | None = None
) -> Logistic:
    """Fit `Logistic` to rows (N, D) and class ids (N,), as scripts of 0.6 call it."""
    return Logistic(penalty=penalty).fit(features, labels)
