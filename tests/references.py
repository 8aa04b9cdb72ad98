"""Slow textbook versions, written from the definitions: loops and dense solves."""

from __future__ import annotations

import numpy as np

# Readers and ablation ------------------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine similarity of two float64 vectors; 0 if either is zero; exact scaling first."""
    if not a.any() or not b.any():
        return 0.0
    a = np.ldexp(a, -int(np.frexp(np.abs(a).max())[1]))
    b = np.ldexp(b, -int(np.frexp(np.abs(b).max())[1]))
    return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))


def nearest(bank: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest bank rows of one query and their similarities, to 10 decimals."""
    bank, query = bank.astype(np.float64), query.astype(np.float64)
    similarity = np.round([cosine(query, row) for row in bank], 10)
    order = sorted(range(len(bank)), key=lambda row: (-similarity[row], row))[:k]
    return np.array(order), similarity[order]


def knn_class(
    bank: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, temperature: float
) -> int:
    """Let the k nearest rows of one query vote."""
    rows, similarity = nearest(bank, query, k)
    votes: dict[int, float] = {}
    for row, s in zip(rows, similarity, strict=True):
        vote = np.exp((s - similarity[0]) / temperature)
        votes[int(labels[row])] = votes.get(int(labels[row]), 0.0) + vote
    largest = max(votes.values())
    return min(c for c, v in votes.items() if np.round(v / largest, 10) == 1.0)


def knn_share(
    bank: np.ndarray, labels: np.ndarray, query: np.ndarray, k: int, temperature: float, own: int
) -> float:
    """Share of the votes of the k nearest rows that class ``own`` gets."""
    rows, similarity = nearest(bank, query, k)
    votes = np.exp((similarity - similarity[0]) / temperature)
    return float(votes[labels[rows] == own].sum() / votes.sum())


def knn_ablation(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    groups: list[np.ndarray],
    *,
    k: int,
    temperature: float = 1.0,
) -> np.ndarray:
    """Predicted class of every query without each group, (N, G): by removing the columns."""
    predicted = np.empty((len(queries), len(groups)), dtype=np.int64)
    for g, group in enumerate(groups):
        kept = np.setdiff1d(np.arange(bank.shape[1]), group)
        for i, query in enumerate(queries):
            predicted[i, g] = knn_class(bank[:, kept], labels, query[kept], k, temperature)
    return predicted


def ridge_logits(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float
) -> np.ndarray:
    """Ridge by a dense solve on standardised columns, constant ones dropped; (N_test, K)."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    varies = np.array([len(set(column)) > 1 for column in train.T], dtype=bool)
    train, test = train[:, varies], test[:, varies]
    mean = train.mean(axis=0)
    deviation = np.sqrt(((train - mean) ** 2).mean(axis=0))
    z, z_test = (train - mean) / deviation, (test - mean) / deviation
    one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    centred = one_hot - one_hot.mean(axis=0)
    # Augmented least squares: no normal equations, so no squared condition number.
    rows = np.sqrt(penalty * len(z)) * np.eye(z.shape[1])
    stacked = np.vstack([z, rows])
    targets = np.vstack([centred, np.zeros((z.shape[1], one_hot.shape[1]))])
    weights = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    return z_test @ weights + one_hot.mean(axis=0)


def paired_score_bounds(b: int, c: int, n: int, z: float) -> tuple[float, float]:
    """Tango's interval from its definition: maximise the trinomial likelihood, invert the test.

    Under difference t the discordant cells are (q + t, q); q maximises
    b log(q + t) + c log(q) + (n - b - c) log(1 - 2q - t) by golden-section search.
    """
    from scipy.optimize import brentq, minimize_scalar

    def cell(t: float) -> float:
        low, high = max(0.0, -t), (1 - t) / 2

        def loss(q: float) -> float:
            terms = ((b, q + t), (c, q), (n - b - c, 1 - 2 * q - t))
            return -sum(m * np.log(max(p, 1e-300)) for m, p in terms if m)

        fine = {"xatol": 1e-13}
        inner = minimize_scalar(loss, bounds=(low, high), method="bounded", options=fine)
        return min((inner.x, low, high), key=loss)

    def excess(t: float) -> float:
        q = cell(t)
        variance = n * (2 * q + t - t**2)
        return (b - c - n * t) ** 2 - z**2 * variance

    middle = (b - c) / n
    edge = 1 - 1e-9
    low = -1.0 if b - c == -n else brentq(excess, -edge, middle - 1e-9, xtol=1e-12)
    high = 1.0 if b - c == n else brentq(excess, middle + 1e-9, edge, xtol=1e-12)
    return low, high


# --- losses ------------------------------------------------------------


def nt_xent(z_a, z_b, temperature):
    """SimCLR eq. 1 by loops: every row against its partner and all other rows."""
    z = np.concatenate([z_a, z_b])
    n = len(z_a)

    def similarity(i, j):
        return z[i] @ z[j] / (np.linalg.norm(z[i]) * np.linalg.norm(z[j])) / temperature

    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [np.exp(similarity(i, j)) for j in range(2 * n) if j != i]
        total -= np.log(np.exp(similarity(i, partner)) / sum(others))
    return float(total / (2 * n))


def barlow_twins(z_a, z_b, off_diagonal_weight):
    """Barlow Twins eq. 1-2 by loops, with BatchNorm's biased variance and eps."""
    n, p = z_a.shape

    def standardised(z, i):
        centred = z[:, i] - z[:, i].mean()
        return centred / np.sqrt(np.mean(centred**2) + 1e-5)

    total = 0.0
    for i in range(p):
        for j in range(p):
            c = sum(standardised(z_a, i) * standardised(z_b, j)) / n
            total += (1 - c) ** 2 if i == j else off_diagonal_weight * c**2
    return float(total)
