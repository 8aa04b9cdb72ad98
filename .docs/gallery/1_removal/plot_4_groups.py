"""
Copies hide each other
======================

If two dimensions hold the same information, neither of them is missed alone. Here the class is
known to dimensions 0 and 1, which are nearly copies, and to nothing else. The other four
dimensions are noise. Removing single dimensions therefore finds nothing, and removing the group
finds everything.
"""

import matplotlib.pyplot as plt
import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(600) % 2
features = rng.normal(size=(600, 6))
features[:, 0] = 3 * labels + rng.normal(size=600)
features[:, 1] = features[:, 0] + 0.01 * rng.normal(size=600)
train = features[:300], labels[:300]
test = features[300:], labels[300:]

# %%
# ``find_redundancy`` names groups of correlated dimensions, and ``ablate`` removes each group as
# one.

groups = dimlab.find_redundancy(train).groups
single = dimlab.ablate(train, test, reader="ridge")
together = dimlab.ablate(train, test, reader="ridge", groups=groups)
print("groups:", [group.tolist() for group in groups])

# %%
# Left: single dimensions; all intervals include zero. Right: the same dimensions in groups. The
# group of the two copies is far above zero, because without both of them the classifier guesses.

_, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
single.plot(ax=axes[0])
together.plot(ax=axes[1])
axes[0].set_title("one dimension at a time", loc="left")
axes[1].set_title("one group at a time", loc="left")
