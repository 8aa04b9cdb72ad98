"""Readers of frozen features: nearest neighbours, ridge and multinomial logistic regression."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from dimlab.cuts import held_out
from dimlab.kernels.downdate import RidgeSystem, first_largest, log_losses, solve_ridge
from dimlab.kernels.rounding import eps_of, spread_floor

_INVERSE_PENALTIES = 10.0 ** np.arange(-4, 3)
_HELD_OUT = 0.2
_TOLERANCE = 1e-5
_TINY = 1e-140  # a spread whose square float64 does not hold well
_MAX_ITERATIONS = 2000


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Mean and biased standard deviation of each column of a train split.

    Parameters
    ----------
    mean, scale : ndarray of shape (D,), float64
        ``scale`` is 0 where the column is constant; such a column counts as all zero everywhere.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, precision: str | None = None) -> Standardiser:
        """Measure the columns of features (N, D), stored in a precision: by default their own."""
        eps = eps_of(precision or np.asarray(features).dtype.name)
        features = np.asarray(features, dtype=np.float64)
        mean = features.mean(axis=0)
        scale = features.std(axis=0)
        low, high = features.min(axis=0), features.max(axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        tiny = np.flatnonzero(scale < _TINY)
        if len(tiny):  # their squares are lost, unless what varies is made larger first
            centred = features[:, tiny] - mean[tiny]
            largest = np.abs(centred).max(axis=0)
            varies = (largest > 0) & (features[:, tiny].max(axis=0) > features[:, tiny].min(axis=0))
            tiny, centred, largest = tiny[varies], centred[:, varies], largest[varies]
            scale[tiny] = largest * np.sqrt(np.mean((centred / largest) ** 2, axis=0))
        scale[(low == high) | (scale <= spread_floor(size, eps))] = 0.0
        return cls(mean, scale)

    @property
    def constant(self) -> np.ndarray:
        """Dimensions that do not vary, ascending."""
        return np.flatnonzero(self.scale == 0)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardise features (N, D) in float64."""
        centred = np.asarray(features, dtype=np.float64) - self.mean
        return np.divide(centred, self.scale, out=np.zeros_like(centred), where=self.scale > 0)


@dataclass(frozen=True, eq=False)
class KnnReader:
    """A vote of the k nearest train rows; build it with ``fit_knn``.

    Parameters
    ----------
    features : ndarray of shape (N, D)
        Train rows.
    labels : ndarray of shape (N,), int
        Class id of each row.
    k : int
        Number of voters.
    temperature : float
        A vote is ``exp((s - s_max) / temperature)``.
    device : str
        Where the search runs.
    """

    features: np.ndarray
    labels: np.ndarray
    k: int
    temperature: float
    device: str = "cpu"

    @property
    def classes(self) -> np.ndarray:
        """Class ids, ascending."""
        return np.unique(self.labels)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the predicted class id of each row, shape (N,), int64."""
        import torch

        from dimlab.kernels.neighbours import count_votes, decide, find_neighbours
        from dimlab.kernels.rows import Groups, Rows

        _check_width(features, self.features.shape[1])
        bank, queries = Rows.of(self.features, self.device), Rows.of(features, self.device)
        nothing = Groups.of([np.array([], dtype=int)], bank.n_dimensions, bank.device)
        classes, codes = np.unique(self.labels, return_inverse=True)
        voters = torch.from_numpy(codes).to(bank.device)
        predicted = []
        for found in find_neighbours(bank, queries, nothing, k=self.k):
            totals = count_votes(
                voters[found.rows[:, 0]],
                found.similarities[:, 0],
                n_classes=len(classes),
                temperature=self.temperature,
            )
            predicted.append(decide(totals).cpu().numpy())
        return classes[np.concatenate(predicted)]

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of rows whose class is predicted, in [0, 1]."""
        return _accuracy(self.predict(features), labels, self.classes)


@dataclass(frozen=True, eq=False)
class LinearReader:
    """A linear map of standardised features; build it with ``fit_ridge`` or ``fit_logistic``.

    Parameters
    ----------
    classes : ndarray of shape (K,), int
        Class ids, ascending.
    standardise : Standardiser
        Means and scales of the train split.
    weights : ndarray of shape (D, K)
        Coefficients of the standardised features; exactly 0 for constant dimensions.
    intercept : ndarray of shape (K,)
        Added to every row's logits.
    penalty : float
        What it was fitted with, as in ``fit_ridge`` and ``fit_logistic``.
    system : RidgeSystem, optional
        The ridge's inverse.
    """

    classes: np.ndarray
    standardise: Standardiser
    weights: np.ndarray
    intercept: np.ndarray
    penalty: float
    system: RidgeSystem | None = field(default=None, repr=False)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the class scores of each row, shape (N, K), float64."""
        _check_width(features, len(self.weights))
        return self.standardise(features) @ self.weights + self.intercept

    @property
    def solved(self) -> RidgeSystem:
        """The ridge's system."""
        if self.system is None:
            raise ValueError("solved needs a ridge reader: build it with fit_ridge.")
        return self.system

    def select(self, dimensions: np.ndarray) -> LinearReader:
        """Return the reader of these dimensions only, its weights unchanged."""
        kept = Standardiser(self.standardise.mean[dimensions], self.standardise.scale[dimensions])
        return LinearReader(
            self.classes, kept, self.weights[dimensions], self.intercept, self.penalty
        )

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the predicted class id of each row, shape (N,), int64; ties to the lower id."""
        return self.classes[first_largest(self.logits(features).T)]

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of rows whose class is predicted, in [0, 1]."""
        return _accuracy(self.predict(features), labels, self.classes)


def fit_knn(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    k: int = 5,
    temperature: float = 1.0,
    device: str = "cpu",
) -> KnnReader:
    """Keep the train rows for a vote of nearest neighbours by cosine similarity.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        Train rows.
    labels : ndarray of shape (N,), int
        Their class ids.
    k : int, default=5
        Number of neighbours that vote, 1 <= k <= N.
    temperature : float, default=1.0
        > 0. Each votes ``exp((s - s_max) / temperature)``.
    device : str, default="cpu"
        Where the search runs.

    Returns
    -------
    KnnReader
        With ``predict`` and ``accuracy``.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two classes, k is not in 1 .. N, the temperature
        is not positive, or the device is not there.

    Notes
    -----
    Similarities of the float64 casts are compared after rounding to 10 decimals, equal ones in
    order of train row; a row of zeros has similarity 0 to everything. Votes are compared after
    rounding to 10 decimals of the largest; the lower class id wins.

    Examples
    --------
    >>> reader = fit_knn(np.eye(2), np.array([3, 8]), k=1)
    >>> reader.predict(np.array([[0.1, 1.0]]))
    array([8])
    """
    features, labels = _checked(features, labels)
    check_knn(k, temperature, len(features))
    return KnnReader(features, labels, k, temperature, device)


def fit_ridge(
    features: np.ndarray,
    labels: np.ndarray,
    precision: str | None = None,
    *,
    penalty: float = 1e-3,
) -> LinearReader:
    """Fit ridge regression of one-hot classes on standardised features.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        Train rows.
    labels : ndarray of shape (N,), int
        Their class ids.
    precision : {"float16", "bfloat16", "float32", "float64"}, optional
        What the features were rounded to; by default their own type. It decides which columns are
        constant: those whose standard deviation is at most ``max(1e-12, 2 eps)`` of their largest
        magnitude.
    penalty : float, default=1e-3
        > 0; ``penalty * N * I`` is added to the matrix of the normal equations.

    Returns
    -------
    LinearReader
        With ``logits``, ``predict`` and ``accuracy``.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two classes, or the penalty is not positive.

    Notes
    -----
    Everything is float64; standard deviations are biased; a column constant on train counts as
    all zero, on test too. Targets are centred, so the intercept is the share of each class and is
    not penalised.

    References
    ----------
    Hoerl and Kennard, "Ridge regression", Technometrics 1970.

    Examples
    --------
    >>> reader = fit_ridge(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> reader.predict(np.array([[-0.2], [0.3]]))
    array([0, 1])
    """
    features, labels = _checked(features, labels)
    check_penalty(penalty)
    classes, codes = np.unique(labels, return_inverse=True)
    standardise = Standardiser.fit(features, precision)
    targets = np.eye(len(classes))[codes]
    shares = targets.mean(axis=0)
    system = solve_ridge(standardise(features), targets - shares, penalty=penalty)
    return LinearReader(classes, standardise, system.weights, shares, penalty, system)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    precision: str | None = None,
    *,
    penalty: float | None = None,
    start: LinearReader | None = None,
    seed: int = 0,
) -> LinearReader:
    """Fit multinomial logistic regression with an L2 penalty on standardised features.

    Parameters
    ----------
    features : ndarray of shape (N, D), floating
        Train rows.
    labels : ndarray of shape (N,), int
        Their class ids.
    precision : {"float16", "bfloat16", "float32", "float64"}, optional
        As in `fit_ridge`.
    penalty : float, optional
        > 0; half of it times the squared weights is added to the summed loss, whatever the number
        of classes. By default chosen from 1e-2 .. 1e4 by the log-loss of a stratified fifth of the
        rows held out.
    start : LinearReader, optional
        A reader of the same dimensions and classes to start from.
    seed : int, default=0
        Draws the held-out rows.

    Returns
    -------
    LinearReader
        With ``logits``, ``predict`` and ``accuracy``.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two classes, or the penalty is not positive.

    Notes
    -----
    The objective is ``sum_n log-loss_n + penalty / 2 * sum_dk weights_dk^2``; the intercept is not
    penalised. scikit-learn's ``LogisticRegression`` minimises the same with ``C = 1 / penalty`` for
    three classes or more. For two classes it penalises the difference of their weights, twice as
    much, so that ``C = 2 / penalty`` is the same there.

    A class with one sample is never held out, and a penalty of 1 is taken where every class has
    one. The reader is then fitted once more on all rows, with a warning where 2,000 iterations were
    not enough.

    Examples
    --------
    >>> reader = fit_logistic(np.array([[-1.0], [1.0]]), np.array([0, 1]))
    >>> reader.predict(np.array([[-0.2], [0.3]]))
    array([0, 1])
    """
    features, labels = _checked(features, labels)
    classes, codes = np.unique(labels, return_inverse=True)
    standardise = Standardiser.fit(features, precision)
    standardised = standardise(features)
    if penalty is None:
        penalty = _choose_penalty(standardised, codes, np.random.default_rng(seed))
    check_penalty(penalty)
    (weights, intercept), settled = _fit_softmax(
        standardised,
        codes,
        penalty,
        None if start is None else (start.weights, start.intercept),
    )
    if not settled:
        warnings.warn(
            f"the logistic reader had not settled after {_MAX_ITERATIONS} iterations at penalty "
            f"{penalty:g}; a larger penalty settles.",
            UserWarning,
            stacklevel=2,
        )
    weights[standardise.constant] = 0.0
    return LinearReader(classes, standardise, weights, intercept, penalty)


def check_knn(k: int, temperature: float, n_rows: int) -> None:
    """Refuse a k outside 1 .. n_rows or a temperature that is not positive.

    Parameters
    ----------
    k, temperature : int, float
        What a kNN reader was asked to use.
    n_rows : int
        N, the number of train rows.

    Raises
    ------
    ValueError
        In one sentence.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n_rows:
        raise ValueError(f"k must be an integer in 1..{n_rows}, the number of train rows; got {k}.")
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be > 0; got {temperature:g}.")


def check_penalty(penalty: float) -> None:
    """Refuse a penalty that is not positive.

    Parameters
    ----------
    penalty : float
        What a linear reader was asked to use.

    Raises
    ------
    ValueError
        In one sentence.
    """
    if not (np.isfinite(penalty) and penalty > 0):
        raise ValueError(f"penalty must be > 0; got {penalty:g}.")


def check_classes(name: str, labels: np.ndarray) -> None:
    """Refuse train rows of one class, whose readers give one answer whatever the features.

    Parameters
    ----------
    name : str
        What the labels belong to.
    labels : ndarray of shape (N,), int
        Class ids of train.

    Raises
    ------
    ValueError
        In one sentence.
    """
    if labels.min() == labels.max():
        raise ValueError(
            f"{name} must hold at least two classes, or a reader has nothing to tell apart; got "
            f"only class {labels[0]}. Fit it on rows of all classes."
        )


def class_codes(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the index of each label among ascending class ids.

    Parameters
    ----------
    labels : ndarray of shape (N,), int
        Class ids.
    classes : ndarray of shape (K,), int
        Class ids that the train split has, ascending.

    Returns
    -------
    ndarray of shape (N,), int64
        Indices in 0 .. K-1.

    Raises
    ------
    ValueError
        If a label is not among the classes.
    """
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"test labels must be classes that train has; got class {unknown[0]}.")
    return codes


def _choose_penalty(standardised: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> float:
    judge = held_out(codes, _HELD_OUT, rng.permutation(len(codes)))
    if not judge.any():
        return 1.0
    losses, start = [], None
    for inverse in _INVERSE_PENALTIES:
        # held-out loss judges a penalty too weak to converge as it does the others
        start, _ = _fit_softmax(standardised[~judge], codes[~judge], 1 / inverse, start)
        logits = standardised[judge] @ start[0] + start[1]
        losses.append(log_losses(logits.T, codes[judge]).mean())
    return float(1 / _INVERSE_PENALTIES[int(np.argmin(losses))])


def _fit_softmax(
    standardised: np.ndarray,
    codes: np.ndarray,
    penalty: float,
    start: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[tuple[np.ndarray, np.ndarray], bool]:
    """Weights (D, K) and intercept (K,) of least penalised log-loss, and whether they settled."""
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


def _checked(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or features.size == 0 or features.dtype.kind != "f":
        raise ValueError(
            f"features must be floating with shape (N, D), both >= 1; got {features.dtype} "
            f"{features.shape}."
        )
    if labels.shape != (len(features),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape ({len(features)},) to match features; got "
            f"{labels.dtype} {labels.shape}."
        )
    check_classes("labels", labels)
    return features, labels.astype(np.int64)


def _check_width(features: np.ndarray, n_dimensions: int) -> None:
    if np.ndim(features) != 2 or np.shape(features)[1] != n_dimensions:
        raise ValueError(
            f"features must have shape (N, {n_dimensions}) as those of train; got "
            f"{np.shape(features)}."
        )


def _accuracy(predicted: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    labels = np.asarray(labels)
    if labels.shape != predicted.shape:
        raise ValueError(
            f"labels must have shape {predicted.shape} to match features; got {labels.shape}."
        )
    class_codes(labels, classes)
    return float((predicted == labels).mean())
