"""Planted worlds: representations whose answers are known before anything is measured."""

from __future__ import annotations

import numpy as np
import pytest

from dimlab.representation import Representation

# of worlds with few values, or with patients whose rows are copies: the caution is meant
rows_repeat = pytest.mark.filterwarnings("ignore:.* repeat another row exactly")


def identity_world(
    rng: np.random.Generator, n: int = 400, n_factors: int = 4, n_classes: int = 4
) -> Representation:
    """One dimension a factor; the class is a function of dimension 0 alone.

    Dimension 0 is the class id, centred; the others are independent Gaussians.
    """
    factors = rng.normal(size=(n, n_factors))
    labels = np.arange(n) % n_classes
    factors[:, 0] = labels - (n_classes - 1) / 2
    return Representation(
        factors,
        labels=labels,
        factors={f"factor_{f}": factors[:, f] for f in range(n_factors)},
    )


def informative_world(
    rng: np.random.Generator, n: int = 400, n_dimensions: int = 6, informative: int = 2
) -> Representation:
    """Two balanced classes; only one dimension knows them, by its sign. The rest is noise.

    With that dimension a reader is (nearly) perfect; without it, every reader is at chance.
    """
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, n_dimensions))
    features[:, informative] = 12.0 * (2 * labels - 1)
    return Representation(features, labels=labels)


def useless_world(rng: np.random.Generator, n: int = 400, n_dimensions: int = 5) -> Representation:
    """Noise, and one constant dimension (the last): nothing depends on the class."""
    features = rng.normal(size=(n, n_dimensions))
    features[:, -1] = 3.0
    return Representation(features, labels=rng.permutation(np.arange(n) % 4))


def duplicated_world(rng: np.random.Generator, n: int = 400) -> Representation:
    """Every dimension twice, side by side: (0, 1), (2, 3), ... are equal.

    The pair (0, 1) alone knows the two classes: either member can go, not both.
    """
    once = informative_world(rng, n=n, n_dimensions=3, informative=0).features
    return Representation(np.repeat(once, 2, axis=1), labels=np.arange(n) % 2)


def confounded_world(
    rng: np.random.Generator, n: int = 400, correlation: float = 0.6
) -> Representation:
    """Dimension 0 reads the class, dimension 1 a nuisance factor that correlates with the class.

    ``factors["nuisance"]`` has the given correlation with the class sign; dimension 2 is noise.
    """
    sign = 2.0 * (np.arange(n) % 2) - 1.0
    nuisance = correlation * sign + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    noise = rng.normal(size=(n, 3))
    features = np.stack([sign, nuisance, np.zeros(n)], axis=1) + 0.1 * noise
    return Representation(
        features, labels=np.arange(n) % 2, factors={"nuisance": nuisance, "sign": sign}
    )


def random_rotation(rng: np.random.Generator, n_dimensions: int) -> np.ndarray:
    """Draw an orthogonal matrix (D, D)."""
    q, r = np.linalg.qr(rng.normal(size=(n_dimensions, n_dimensions)))
    return q * np.sign(np.diagonal(r))


def rotated_world(
    rng: np.random.Generator, n: int = 400, n_factors: int = 4
) -> tuple[Representation, Representation, np.ndarray]:
    """Return the identity world, the same times an orthogonal matrix, and that matrix."""
    world = identity_world(rng, n=n, n_factors=n_factors)
    rotation = random_rotation(rng, n_factors)
    rotated = Representation(world.features @ rotation, labels=world.labels)
    return world, rotated, rotation


def equicorrelated_world(
    rng: np.random.Generator, n: int = 400, n_dimensions: int = 8, correlation: float = 0.5
) -> Representation:
    """Gaussian dimensions that all have the same correlation with each other.

    Correlation matrix: eigenvalues 1 + (D - 1) r once and 1 - r for the rest; the inverse has
    (1 + (D - 2) r) / ((1 - r) (1 + (D - 1) r)) on its diagonal.
    """
    shared, own = rng.normal(size=(n, 1)), rng.normal(size=(n, n_dimensions))
    return Representation(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


def grouped_world(
    rng: np.random.Generator, n: int = 1000, n_dimensions: int = 128
) -> tuple[Representation, np.ndarray]:
    """Groups of 2 to 6 dimensions among single ones, in random order; and the true group ids.

    Within a group the correlations are 0.7 to 0.95, between groups up to 0.3 (a factor that all
    share), signs are random.
    """
    ids: list[int] = []
    while len(ids) < n_dimensions // 2:
        ids += [max(ids, default=-1) + 1] * int(rng.integers(2, 7))
    ids = ids[: n_dimensions // 2]
    ids += list(range(max(ids) + 1, max(ids) + 1 + n_dimensions - len(ids)))
    group = np.array(ids)
    common = np.sqrt(rng.uniform(0, 0.3, size=group.max() + 1))  # share of the common factor
    within = rng.uniform(0.7, 0.95, size=group.max() + 1)
    everyone = rng.normal(size=(n, 1))
    factors = common * everyone + np.sqrt(1 - common**2) * rng.normal(size=(n, len(common)))
    loading = np.sqrt(within[group])
    alone = np.bincount(group)[group] == 1
    loading[alone] = 1.0
    noise = np.sqrt(1 - loading**2) * rng.normal(size=(n, len(group)))
    features = loading * factors[:, group] + noise
    order = rng.permutation(len(group))
    signs = rng.choice([-1.0, 1.0], size=len(group))
    scale = np.exp(rng.normal(size=len(group)))
    return Representation((features * signs * scale)[:, order]), group[order]


def rotated_sources_world(
    rng: np.random.Generator, n: int = 2000, gaussian: bool = False
) -> tuple[Representation, np.ndarray]:
    """12 independent sources, rotated, and the plane (12, 2) of the two that carry a nuisance each.

    Sources are Laplace with variances 12, 11, ..., 1, the nuisance ones with the variances 6 and
    5; half of that is the factor's. ``gaussian``: all Gaussian with variance 1, so that no
    direction can be told from another. The class moves the first source.
    """
    draw = rng.normal if gaussian else lambda size: rng.laplace(size=size) / np.sqrt(2)
    labels = np.arange(n) % 2
    sources, factors = draw(size=(n, 12)), draw(size=(n, 2))
    sources[:, 6:8] = np.sqrt(0.5) * (sources[:, 6:8] + factors)
    if not gaussian:
        sources *= np.sqrt(np.arange(12, 0, -1))
        sources[:, 0] += labels
    rotation = random_rotation(rng, 12)
    named = {"x": factors[:, 0], "y": factors[:, 1]}
    return Representation(sources @ rotation, labels=labels, factors=named), rotation[6:8].T


# Of confounded_dimensions_world, by what they carry.
SIGNAL, NUISANCE, DUPLICATE, NOISE, DEAD = (
    slice(0, 8), slice(8, 16), slice(16, 32), slice(32, 60), slice(60, 64),
)  # fmt: skip


def confounded_dimensions_world(
    rng: np.random.Generator, correlation: float, n: int = 2000, clean: bool = False
) -> Representation:
    """64 dimensions: 8 signal, 8 nuisance, 16 duplicates, 28 noise, 4 dead; 5 unequal classes.

    The classes have shares 0.4, 0.3, 0.15, 0.1 and 0.05. ``factors["nuisance"]`` has the given
    correlation with the class's score; a nuisance dimension has a partial R-squared with it, given
    the class, of 0.05 to 0.30. Duplicates are copies of signal dimensions, two each, with
    correlation 0.9 to 1. ``clean``: the nuisance dimensions are noise.
    """
    labels = rng.choice(5, size=n, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    score = labels - labels.mean()
    score = score / score.std()
    nuisance = correlation * score + np.sqrt(1 - correlation**2) * rng.normal(size=n)
    features = rng.normal(size=(n, 64))
    signal = 1.5 * score[:, None] * rng.choice([-1, 1], size=8) + features[:, SIGNAL]
    features[:, SIGNAL] = signal
    if not clean:
        # what the class leaves of the nuisance factor has variance 1 - correlation^2
        share = np.linspace(0.05, 0.30, 8)
        slope = np.sqrt(share / (1 - share) / (1 - correlation**2))
        features[:, NUISANCE] += slope * nuisance[:, None]
    copied = np.repeat(signal, 2, axis=1)
    copied = (copied - copied.mean(axis=0)) / copied.std(axis=0)
    closeness = np.linspace(0.95, 0.999, 16)  # two copies of one then correlate by 0.9 and more
    features[:, DUPLICATE] = closeness * copied + np.sqrt(1 - closeness**2) * features[:, DUPLICATE]
    features[:, DEAD] = [0.0, 1.0, -2.0, 1e3]
    return Representation(features, labels=labels, factors={"nuisance": nuisance})
