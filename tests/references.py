"""Slow textbook versions, written from the definitions: loops and dense solves."""

from __future__ import annotations

import copy

import numpy as np
import torch

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


# Training ------------------------------------------------------------------------------------


def official_nt_xent(z0: torch.Tensor, z1: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent as the official MetaMask code has it: logits in four blocks, 1e9 off the diagonal."""
    z0, z1 = (z / z.norm(dim=1, keepdim=True) for z in (z0, z1))
    n = len(z0)
    far = torch.eye(n, dtype=z0.dtype, device=z0.device) * 1e9
    blocks = {
        (i, j): a @ b.T / temperature
        for i, a in enumerate((z0, z1))
        for j, b in enumerate((z0, z1))
    }
    losses = []
    for own, other in ((0, 1), (1, 0)):
        logits = torch.cat([blocks[own, other], blocks[own, own] - far], dim=1)
        rows = torch.arange(n, device=z0.device)
        losses.append((torch.logsumexp(logits, dim=1) - logits[rows, rows]).mean())
    return (losses[0] + losses[1]) / 2


def official_barlow(y0: torch.Tensor, y1: torch.Tensor, off_diagonal_weight: float) -> torch.Tensor:
    """Redundancy reduction as the official MetaMask code has it: unbiased std, divided by B."""
    y0, y1 = ((y - y.mean(0)) / y.std(0) for y in (y0, y1))
    c = y0.T @ y1 / len(y0)
    difference = (c - torch.eye(len(c), dtype=c.dtype, device=c.device)) ** 2
    weight = torch.full_like(c, off_diagonal_weight).fill_diagonal_(1.0)
    return (difference * weight).sum()


def official_step(
    network: torch.nn.ModuleDict,
    mask_logits: torch.Tensor,
    state: dict[str, dict[str, torch.Tensor]],
    views: tuple[torch.Tensor, torch.Tensor],
    *,
    learning_rate: float = 1e-3,
    mask_learning_rate: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    contrastive_weight: float = 10.0,
    off_diagonal_weight: float = 5e-3,
    temperature: float = 0.07,
    radius: float = 1e-2,
) -> dict[str, torch.Tensor]:
    """One iteration of the official training step, line by line from the description of it.

    ``network`` (encoder, contrastive, redundancy; training mode), ``mask_logits`` and the momentum
    buffers in ``state`` are moved in place. Returns the parts of the mask's gradient.
    """
    buffers = state.setdefault("network", {})

    def both_heads(net, logits):
        """Every official forward pass runs both heads, whichever loss is wanted."""
        mask = torch.sigmoid(logits)
        out = []
        for view in views:
            h = net["encoder"](view) * mask
            out.append((net["redundancy"](h), net["contrastive"](h)))
        return [pair[0] for pair in out], [pair[1] for pair in out]

    def sgd(named, gradients, held, rate):
        """Take a step of SGD with momentum and weight decay, as torch has it."""
        for name, p in named:
            if gradients.get(name) is None:
                continue
            d = gradients[name] + weight_decay * p.detach()
            held[name] = d.clone() if name not in held else momentum * held[name] + d
            p.data = p.data - rate * held[name]

    def gradients_of(loss, net):
        named = dict(net.named_parameters())
        found = torch.autograd.grad(
            loss, list(named.values()), allow_unused=True, retain_graph=True
        )
        return dict(zip(named, found, strict=True))

    # regular step; its gradient of the mask is thrown away
    y, z = both_heads(network, mask_logits)
    loss = official_barlow(*y, off_diagonal_weight)
    loss = loss + contrastive_weight * official_nt_xent(*z, temperature)
    sgd(network.named_parameters(), gradients_of(loss, network), buffers, learning_rate)

    # virtual step into a copy, from the updated weights, on the same views
    _, z = both_heads(network, mask_logits)
    first = gradients_of(official_nt_xent(*z, temperature), network)
    virtual = copy.deepcopy(network)
    held = {name: buffer.clone() for name, buffer in buffers.items()}
    sgd(virtual.named_parameters(), first, held, learning_rate)
    logits = mask_logits.detach().clone().requires_grad_()
    _, z = both_heads(virtual, logits)
    trial_loss = official_nt_xent(*z, temperature)
    direct = torch.autograd.grad(trial_loss, logits, retain_graph=True)[0]
    v = {name: g for name, g in gradients_of(trial_loss, virtual).items() if g is not None}

    # Hessian-vector product by a central difference around the main model's weights
    length = torch.sqrt(sum((g**2).sum() for g in v.values()))
    step = radius / length
    sides = []
    for sign in (1.0, -1.0):
        for (name, p), (_, main) in zip(
            virtual.named_parameters(), network.named_parameters(), strict=True
        ):
            p.data = main.detach() + (sign * step * v[name] if name in v else 0.0)
        _, z = both_heads(virtual, logits)
        sides.append(torch.autograd.grad(official_nt_xent(*z, temperature), logits)[0])
    product = (sides[0] - sides[1]) / (2 * step)
    gradient = direct - learning_rate * product
    total = gradient + weight_decay * mask_logits
    mask_buffers = state.setdefault("mask", {})
    mask_buffers["mask"] = (
        momentum * mask_buffers["mask"] + total if mask_buffers else total.clone()
    )
    mask_logits.sub_(mask_learning_rate * mask_buffers["mask"])
    return {"gradient": gradient, "direct": direct, "product": product}
