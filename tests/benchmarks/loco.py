"""Power and level of leave-one-out importance: hidimstat's LOCO and ``ablate`` on the same worlds.

Run by hand: ``python tests/benchmarks/loco.py [WORLDS]`` (25 by default, some two minutes);
hidimstat is skipped where it is not installed. Each world is a regression, ``y = X b + e``, with
columns that are correlated with their neighbours and with 5 coefficients of 20 that are not 0; half
of its rows are train. Its two-class version asks whether y is above its median. A method rejects
where its p-value is at most 0.05 and the importance is positive; hidimstat's t-test is one-sided by
itself. Power is the share of rejections among the 5 columns, level among the other 15.

The p-value of hidimstat 0.4.0 tests whether the residuals of the fit without the column have a
positive mean, not whether the loss rises: its power is its level. Beside it stands the textbook
form, a t-test of each test row's rise in squared error (Lei et al., "Distribution-free predictive
inference for regression", JASA 113, 2018), which reads y itself and not only its class.
"""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec

import numpy as np
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss

from dimlab import Representation, ablate

D, N_SIGNALS, CORRELATION = 20, 5, 0.5
LEVEL = 0.05


def world(rng, n, effect):
    """Train and test halves of one regression world."""
    distance = np.abs(np.subtract.outer(np.arange(D), np.arange(D)))
    root = np.linalg.cholesky(CORRELATION**distance)
    x = rng.normal(size=(n, D)) @ root.T
    coefficients = np.zeros(D)
    coefficients[:: D // N_SIGNALS] = effect
    y = x @ coefficients + rng.normal(size=n)
    return (x[: n // 2], y[: n // 2]), (x[n // 2 :], y[n // 2 :]), coefficients != 0


def classes(train, test):
    """Whether y is above the median of train."""
    middle = np.median(train[1])
    return [(x, (y > middle).astype(int)) for x, y in (train, test)]


def hidimstat_p_values(estimator, method, loss, train, test):
    from hidimstat import LOCO

    fitted = estimator.fit(*train)
    loco = LOCO(fitted, method=method, loss=loss)
    loco.fit(*train)
    loco.importance(*test)
    return loco.pvalues_


def textbook_p_values(train, test):
    full = (test[1] - Ridge(1.0).fit(*train).predict(test[0])) ** 2
    rises = []
    for column in range(D):
        x, x_test = (np.delete(x, column, 1) for x in (train[0], test[0]))
        rises.append((test[1] - Ridge(1.0).fit(x, train[1]).predict(x_test)) ** 2 - full)
    return ttest_1samp(rises, 0, axis=1, alternative="greater").pvalue


def ours(train, test, **options):
    found = ablate(
        *(Representation(x, labels=y) for x, y in (train, test)), reader="ridge", **options
    )
    return np.where(found.importance > 0, found.p_value, 1.0)


def methods(with_theirs):
    def both(function, *arguments):
        return lambda train, test: function(*arguments, *classes(train, test))

    found = {
        "textbook LOCO, regression": textbook_p_values,
        "ablate, accuracy": lambda a, b: ours(*classes(a, b)),
        "ablate, log-loss": lambda a, b: ours(*classes(a, b), score="log_loss"),
        "ablate, log-loss, train varies": lambda a, b: ours(
            *classes(a, b), score="log_loss", resample="train", n_bootstrap=1
        ),
    }
    if with_theirs:
        found = {
            "hidimstat LOCO, regression": lambda a, b: hidimstat_p_values(
                Ridge(1.0), "predict", squared, a, b
            ),
            "hidimstat LOCO, log-loss": both(
                hidimstat_p_values, LogisticRegression(), "predict_proba", log_loss
            ),
        } | found
    return found


def squared(truth, predicted):
    return np.mean((truth - predicted) ** 2)


def compare(n_worlds):
    with_theirs = find_spec("hidimstat") is not None
    if not with_theirs:
        print("hidimstat is not installed: its rows are left out")
    warnings.simplefilter("ignore")
    print(f"{'rows':>5} {'effect':>6}  {'method':32} {'power':>6} {'level':>6}")
    for n, effect in ((400, 0.2), (1000, 0.2), (1000, 0.4)):
        rejected = {name: [] for name in methods(with_theirs)}
        for seed in range(n_worlds):
            train, test, signal = world(np.random.default_rng([seed, n]), n, effect)
            for name, method in methods(with_theirs).items():
                p = method(train, test)
                rejected[name].append([(p[s] <= LEVEL).mean() for s in (signal, ~signal)])
        for name, shares in rejected.items():
            power, level = np.mean(shares, axis=0)
            print(f"{n:5} {effect:6}  {name:32} {power:6.3f} {level:6.3f}", flush=True)


if __name__ == "__main__":
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
