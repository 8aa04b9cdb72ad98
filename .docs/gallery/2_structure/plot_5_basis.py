"""
A rotation hides what a dimension knows
=======================================

A rotation changes every dimension and no information. Here one direction knows the class, but the
features are rotated, so that each of the 16 dimensions has a small share of it. Every probe can
run on the principal components instead of the dimensions.
"""

import matplotlib.pyplot as plt
import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(1000) % 2
sources = rng.normal(size=(1000, 16)) * np.linspace(2, 0.5, 16)
sources[:, 0] += 4 * labels
rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
features = sources @ rotation
train = features[:500], labels[:500]
test = features[500:], labels[500:]
basis = dimlab.fit_basis(train, "pca")

# %%
# Left: each dimension is missed a little, or not at all. Right: the first principal component is
# needed, and the others are not. Statements about dimensions depend on the basis, and every result
# names the one that it was measured in.

_, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
dimlab.ablate(train, test, reader="ridge", score="log_loss").plot(ax=axes[0])
in_components = dimlab.ablate(
    basis.apply(train), basis.apply(test), reader="ridge", score="log_loss"
)
in_components.plot(ax=axes[1])
axes[0].set_title("dimensions", loc="left")
axes[1].set_title("principal components", loc="left")
