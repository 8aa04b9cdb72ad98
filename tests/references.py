"""Slow textbook versions, written from the definitions: loops and dense solves."""

from __future__ import annotations

import copy
import math
from typing import TypedDict

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
#
# The official MetaMask step, transcribed from a description of its code (each `#n` below is the
# pitfall of that number in the description). Not from dimlab.training, and not in its manner: live
# modules, deep copies, .backward(), torch's own SGD.


def vicreg(z_a, z_b, invariance_weight, variance_weight, covariance_weight):
    """VICReg by loops, with the halves, the eps and the B - 1 of the authors' code."""
    n, p = z_a.shape
    invariance = sum((z_a[i, d] - z_b[i, d]) ** 2 for i in range(n) for d in range(p)) / (n * p)
    variance = covariance = 0.0
    for z in (z_a, z_b):
        mean = [sum(z[i, d] for i in range(n)) / n for d in range(p)]
        for d in range(p):
            for e in range(p):
                products = ((z[i, d] - mean[d]) * (z[i, e] - mean[e]) for i in range(n))
                c = sum(products) / (n - 1)
                if d == e:
                    variance += max(0.0, 1 - np.sqrt(c + 1e-4)) / p / 2
                else:
                    covariance += c**2 / p
    return float(
        invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    )


def official_nt_xent(z_a: torch.Tensor, z_b: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent as meta-mask.py has it: two cross-entropies over (other view, own view - 1e9 eye)."""
    z_a = torch.nn.functional.normalize(z_a, dim=1)
    z_b = torch.nn.functional.normalize(z_b, dim=1)
    eye_mask = torch.eye(len(z_a)).to(z_a) * 1e9  # overflows in float16 (#14)
    logits_aa = z_a @ z_a.T / temperature - eye_mask
    logits_bb = z_b @ z_b.T / temperature - eye_mask
    logits_ab = z_a @ z_b.T / temperature
    logits_ba = z_b @ z_a.T / temperature
    labels = torch.arange(len(z_a), device=z_a.device)
    loss_a = torch.nn.functional.cross_entropy(torch.cat([logits_ab, logits_aa], dim=1), labels)
    loss_b = torch.nn.functional.cross_entropy(torch.cat([logits_ba, logits_bb], dim=1), labels)
    return (loss_a + loss_b) / 2


def official_barlow(
    z_a: torch.Tensor, z_b: torch.Tensor, off_diagonal_weight: float
) -> torch.Tensor:
    """Barlow Twins as loss.py has it: unbiased std, no eps, divided by B (#20)."""
    z_a_norm = (z_a - z_a.mean(0)) / z_a.std(0)
    z_b_norm = (z_b - z_b.mean(0)) / z_b.std(0)
    c = z_a_norm.T @ z_b_norm / len(z_a)
    itself = torch.eye(len(c), dtype=torch.bool, device=c.device)
    c_diff = (c - itself.to(c)) ** 2
    return torch.where(itself, c_diff, off_diagonal_weight * c_diff).sum()


class OfficialStep(TypedDict):
    """What one official iteration computed, without graph; the rest it moved in place."""

    gradient: torch.Tensor  # of the mask parameter: direct - learning_rate * product
    direct: torch.Tensor  # d loss_cl / d mask at the trial weights, these held fixed
    product: torch.Tensor | None  # d/d mask <d loss_cl / d weights, v>; None in first order
    loss_bl: torch.Tensor  # both losses of the regular step, unweighted
    loss_cl: torch.Tensor
    meta_loss: torch.Tensor  # loss_cl at the updated weights
    trial_loss: torch.Tensor  # loss_cl at the trial weights
    radius: float | None  # R = r / |v|; None where no finite difference is taken


def official_step(
    network: torch.nn.ModuleDict,
    mask_logits: torch.Tensor,
    state: dict[str, dict[str, torch.Tensor]],
    views: tuple[torch.Tensor, torch.Tensor],
    *,
    learning_rate: float = 1e-3,
    mask_learning_rate: float = 1e-3,
    momentum: float = 0.9,
    mask_momentum: float = 0.9,
    weight_decay: float = 5e-4,
    mask_weight_decay: float = 5e-4,
    contrastive_weight: float = 10.0,
    off_diagonal_weight: float = 5e-3,
    temperature: float = 0.07,
    radius: float = 1e-2,
    sigmoid: bool = True,
    second_order: bool = True,
    exact: bool = False,
) -> OfficialStep:
    """One iteration of the official training step: the regular step, then the meta step.

    ``network`` holds "encoder", "contrastive" and "redundancy", in training mode. ``state`` holds
    the momentum buffers {"network": {name: tensor}, "mask": {"mask": tensor}}, {} before the first
    step. Network, BatchNorm's buffers, mask and state move in place; gradients are cleared.
    ``exact`` replaces the finite difference by a double backward, at the same trial weights.
    """
    weights = dict(network.named_parameters())
    mask = mask_logits.detach().clone().requires_grad_()
    buffers = state.setdefault("network", {})
    mask_buffers = state.setdefault("mask", {})
    opt_a = _sgd(weights, buffers, learning_rate, momentum, weight_decay)
    opt_b = _sgd({"mask": mask}, mask_buffers, mask_learning_rate, mask_momentum, mask_weight_decay)

    def forward(net):
        """Both views through both heads, whichever loss is wanted; one masked feature each (#5)."""
        z_bl, z_cl = [], []
        for view in views:
            h = net["encoder"](view) * (torch.sigmoid(mask) if sigmoid else mask)
            z_bl.append(net["redundancy"](h))
            z_cl.append(net["contrastive"](h))
        return z_bl, z_cl

    def contrastive_loss(net):
        return official_nt_xent(*forward(net)[1], temperature)

    # 2.7, 1-2: the regular step. Its gradient of the mask is thrown away.
    opt_a.zero_grad()
    z_bl, z_cl = forward(network)
    loss_bl = official_barlow(*z_bl, off_diagonal_weight)
    loss_cl = official_nt_xent(*z_cl, temperature)
    (loss_bl + contrastive_weight * loss_cl).backward()
    opt_a.step()
    _keep(opt_a, weights, buffers)

    # 3a: loss_cl on the main model, whose BatchNorm statistics move a second time (#11); the
    # redundancy head gets no gradient (#27).
    opt_a.zero_grad()
    opt_b.zero_grad()
    meta_loss = contrastive_loss(network)
    gradients = dict(
        zip(
            weights,
            torch.autograd.grad(
                meta_loss, list(weights.values()), create_graph=exact, allow_unused=True
            ),
            strict=True,
        )
    )

    # 3b: the virtual step, written into a copy; decay and (a copy of the) momentum included (#2).
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for name, w_ in copied.named_parameters():
            if gradients[name] is None:
                continue  # left as they were copied
            d = gradients[name] + weight_decay * weights[name]
            buf = d if buffers.get(name) is None else momentum * buffers[name] + d
            w_.copy_(weights[name] - learning_rate * buf)

    # 3c: loss_cl on the copy.
    trial_loss = contrastive_loss(copied)
    trial_loss.backward()
    direct = mask.grad.clone()
    v = {name: w_.grad.clone() for name, w_ in copied.named_parameters() if w_.grad is not None}

    # 3d: the Hessian-vector product, over the gradients that are not None (#9).
    product = big_r = None
    if second_order and exact:
        inner = sum((gradients[name] * v[name]).sum() for name in v)
        product = torch.autograd.grad(inner, mask)[0]
    elif second_order:
        big_r = radius / torch.cat([each.flatten() for each in v.values()]).norm()
        sides = {}
        for sign in (+1, -1):
            with torch.no_grad():
                for name, w_ in copied.named_parameters():
                    w_.copy_(weights[name] + sign * big_r * v[name] if name in v else weights[name])
            sides[sign] = torch.autograd.grad(contrastive_loss(copied), mask)[0]
        product = (sides[+1] - sides[-1]) / (2 * big_r)

    # 3e-4: the mask's own step.
    gradient = direct if product is None else direct - learning_rate * product
    mask.grad = gradient.clone()
    opt_b.step()
    _keep(opt_b, {"mask": mask}, mask_buffers)
    with torch.no_grad():
        mask_logits.copy_(mask)
    opt_a.zero_grad()
    return {
        "gradient": gradient,
        "direct": direct,
        "product": product,
        "loss_bl": loss_bl.detach(),
        "loss_cl": loss_cl.detach(),
        "meta_loss": meta_loss.detach(),
        "trial_loss": trial_loss.detach(),
        "radius": None if big_r is None else big_r.item(),
    }


def _sgd(named, buffers, learning_rate, momentum, weight_decay):
    """torch's SGD over the named tensors, its momentum where ``buffers`` left it."""
    optimiser = torch.optim.SGD(
        named.values(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    for name, tensor in named.items():
        if buffers.get(name) is not None:
            optimiser.state[tensor]["momentum_buffer"] = buffers[name]
    return optimiser


def _keep(optimiser, named, buffers):
    """Read the momentum buffers back; without momentum there are none."""
    for name, tensor in named.items():
        if optimiser.state[tensor].get("momentum_buffer") is not None:
            buffers[name] = optimiser.state[tensor]["momentum_buffer"]


def published_effective_rank(features, definition):
    """Formulas as packages and papers publish them, from the definition of each."""
    x = features.astype(np.float64)
    if definition in ("centred", "covariance", "ssrlib", "reptrix"):
        x = x - x.mean(0)
    if definition in ("covariance", "ssrlib", "reptrix"):
        p = np.linalg.eigvalsh(np.cov(x.T))
    else:
        p = np.linalg.svd(x)[1]
    p = p / p.sum()
    p = p + {"rankme": 1e-7, "reptrix": 1e-7, "stable-pretraining": 1e-5}.get(definition, 0)
    return np.exp(-sum(each * np.log(each) for each in p))


def lidar(views, delta, added):
    """LiDAR (Thilak et al.): sample by sample, with a dense inverse root."""
    n_views, n_samples, d = views.shape
    means = views.mean(0)
    between, within = np.zeros((d, d)), np.zeros((d, d))
    for i in range(n_samples):
        gap = means[i] - means.mean(0)
        between += np.outer(gap, gap) / (n_samples - 1)
        for v in range(n_views):
            gap = views[v, i] - means[i]
            within += np.outer(gap, gap) / (n_samples * (n_views - 1))
    ratio = np.linalg.inv(within + delta * np.eye(d)) @ between  # the same eigenvalues
    p = np.linalg.eigvals(ratio).real
    p = p / p.sum() + added
    return np.exp(-(p * np.log(p)).sum())


def kernel_alignment(x, y, *, debiased):
    """Linear CKA from N x N kernels; debiased as Song et al. write it."""

    def criterion(k, m):
        n = len(k)
        if not debiased:
            centre = np.eye(n) - 1 / n
            return np.trace(k @ centre @ m @ centre)
        k, m = k - np.diag(np.diagonal(k)), m - np.diag(np.diagonal(m))
        one = np.ones(n)
        total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    a, b = x @ x.T, y @ y.T
    return criterion(a, b) / np.sqrt(criterion(a, a) * criterion(b, b))


def risk_bound_terms(anchors, positives, labels, negatives, n_negatives, temperature):
    """Terms of the risk bound by loops: rows normalised, over the root of the temperature.

    ``negatives`` (N, most) are indices of anchors; the sums take the first M of each row.
    """

    def unit(row):
        norm = np.sqrt(sum(float(x) ** 2 for x in row))
        return [float(x) / norm / np.sqrt(temperature) if norm > 0 else 0.0 for x in row]

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def apart(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    def mean(rows):
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    f, g = [unit(row) for row in anchors], [unit(row) for row in positives]
    n, classes = len(f), sorted(set(labels.tolist()))
    inside = {k: [f[i] for i in range(n) if labels[i] == k] for k in classes}
    mu = {k: mean(inside[k]) for k in classes}
    p = {k: len(inside[k]) / n for k in classes}
    total = dict.fromkeys(
        ["CE_p", "NCE_inf", "J", "V+", "V", "all", "CE_mu", "agree", "E f.(f+ - mu)"], 0.0
    )
    nce = dict.fromkeys(n_negatives, 0.0)
    everything = mean(f)
    for i in range(n):
        own = mu[labels[i]]
        log_mean = np.log(sum(np.exp(dot(f[i], f[j])) for j in range(n)) / n)
        log_prior = np.log(sum(p[k] * np.exp(dot(f[i], mu[k])) for k in classes))
        log_classes = np.log(sum(np.exp(dot(f[i], mu[k])) for k in classes))
        total["CE_p"] += (-dot(f[i], own) + log_prior) / n
        total["NCE_inf"] += (-dot(f[i], g[i]) + log_mean) / n
        total["J"] += (log_mean - log_prior) / n
        total["E f.(f+ - mu)"] += (dot(f[i], g[i]) - dot(f[i], own)) / n
        total["V+"] += apart(g[i], own) / n
        total["V"] += apart(f[i], own) / n
        total["all"] += apart(f[i], everything) / n
        total["CE_mu"] += (-dot(f[i], own) + log_classes) / n
        first, second = (max(classes, key=lambda k, v=v: dot(v, mu[k])) for v in (f[i], g[i]))
        total["agree"] += (first == second) / n
        for m in n_negatives:
            log_sum = np.log(sum(np.exp(dot(f[i], f[j])) for j in negatives[i][:m]))
            nce[m] += (-dot(f[i], g[i]) + log_sum) / n
    size = 1 / np.sqrt(temperature)  # |f|
    deviation, half = size * np.sqrt(total["V"]), size**2 * total["V"] / 2
    found = {
        "cross_entropy": total["CE_p"],
        "nce_limit": total["NCE_inf"],
        "jensen_gap": total["J"],
        "view_variance": total["V+"],
        "gap": abs(total["E f.(f+ - mu)"]),  # the logarithms cancel
        "gap_bound": np.sqrt(total["V+"] / temperature),
        "class_variance": total["V"],
        "between_share": (total["all"] - total["V"]) / total["all"],
        "mean_cross_entropy": total["CE_mu"],
        "width": 2 * deviation + half,
        "view_agreement": total["agree"],
    }
    for m in n_negatives:
        found["nce", m] = nce[m]
        found["lower", m] = nce[m] - deviation - half
        found["middle", m] = total["CE_mu"] + np.log(m / len(classes))
        found["upper", m] = nce[m] + deviation
    return found


def ndcg(ranking, grades, k):
    """Normalised discounted cumulated gain of a ranking of all documents, cut at k."""

    def gained(order):
        return sum(max(0, grades[row]) / math.log2(place + 2) for place, row in enumerate(order))

    best = sorted(range(len(grades)), key=lambda row: -grades[row])
    return gained(ranking[:k]) / gained(best[:k])


def recall(ranking, grades, k):
    """Share of the relevant documents among the first k."""
    relevant = {row for row, grade in enumerate(grades) if grade > 0}
    return len(relevant & set(ranking[:k])) / len(relevant)


def mrr(ranking, grades, k):
    """One over the rank of the first relevant document; 0 where it is not among the first k."""
    places = [place for place, row in enumerate(ranking[:k], 1) if grades[row] > 0]
    return 1 / places[0] if places else 0.0


def filled_with(fill, train, test, group, seed):
    """Test rows with something else in place of a group, by the words of the documentation."""
    own, filled, n = train[:, group], test.copy(), len(test)
    filled[:, group] = {
        "mean": own.mean(axis=0),
        "zero": 0.0,
        "shuffle": test[np.random.default_rng([seed, 31]).permutation(n)][:, group],
        "noise": np.random.default_rng([seed, 32, 0]).normal(
            train.mean(axis=0), train.std(axis=0), test.shape
        )[:, group],
    }[fill]
    return filled
