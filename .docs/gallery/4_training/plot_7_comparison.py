"""
Compare representations of the same samples
===========================================

Do two sets of features differ? The samples are the same, so the difference is estimated sample by
sample, and its interval is shorter than those of the two values. Here 32 sources are measured as
they are, rotated, and with correlated dimensions.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
sources = rng.normal(size=(1500, 32))
rotation, _ = np.linalg.qr(rng.normal(size=(32, 32)))
mixing = 0.6 * np.eye(32) + 0.4 * np.ones((32, 32)) / 8
comparison = dimlab.compare(
    {
        "sources": sources,
        "rotated": sources @ rotation,
        "correlated": sources @ mixing,
    }
)

# %%
# Each point is a value with its 95 % confidence interval. A rotation changes no rank.
# Correlation lowers it, because one direction then carries more than the others.

comparison.plot()

# %%
# Two similarities that ignore the order and the rotation of dimensions; 1 means the same features.

comparison.similarities()
