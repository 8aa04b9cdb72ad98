"""Readers fitted in one call, as tests compare them: class ids and accuracies, not scores."""

from __future__ import annotations

import numpy as np

from dimlab.readers import KNN, Logistic, Ridge
from dimlab.readers.base import Run, class_codes


class Fitted:
    """A fitted reader whose ``predict`` gives class ids; the rest is the reader's own."""

    def __init__(self, reader):
        self.reader = reader

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def predict(self, features):
        return self.reader.classify(features)

    def logits(self, features):
        return self.reader.predict(features)

    def accuracy(self, features, labels):
        predicted = self.predict(features)
        class_codes(np.asarray(labels), self.classes)
        return float((predicted == labels).mean())

    @property
    def penalty(self):
        return getattr(self.reader, "used_penalty", self.reader.penalty)


def fit_knn(features, labels, *, k=5, temperature=1.0):
    return Fitted(KNN(k, temperature).fit(features, labels))


def fit_ridge(features, labels, precision=None, *, penalty=1e-3):
    return Fitted(Ridge(penalty, run=Run(precision=precision)).fit(features, labels))


def fit_logistic(features, labels, precision=None, *, penalty=None, seed=0):
    return Fitted(Logistic(penalty, run=Run(precision=precision, seed=seed)).fit(features, labels))
