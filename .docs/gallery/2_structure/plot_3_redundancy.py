"""
Dimensions that repeat others
=============================

Thirty dimensions are made of ten sources: each source appears in three dimensions with some noise,
and one of the 30 dimensions is constant. ``find_redundancy`` asks how much of each dimension the
others explain, and which dimensions form groups.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
sources = rng.normal(size=(1500, 10))
features = np.repeat(sources, 3, axis=1) + 0.3 * rng.normal(size=(1500, 30))
features[:, 29] = 1.0
redundancy = dimlab.find_redundancy(features)

# %%
# One dot a dimension: how much of it the others explain, from the most redundant dimension to the
# least. Near 1 a dimension adds nothing of its own. Orange dimensions are redundant.

redundancy.plot()

# %%
# How few would do? The line is the share of the whole variance that the first few dimensions keep
# if they are chosen well. Ten dimensions keep most of it, because there are ten sources.

dimlab.plot_redundancy_subset(redundancy)

# %%
# The groups that were found; three neighbours come from one source. Dimension 29 is dead.

print([group.tolist() for group in redundancy.groups])
print("dead:", np.flatnonzero(redundancy.dead).tolist())
