"""
One answer a dimension
======================

Several analyses of the same features say different things about a dimension. ``dimension_table``
joins them to one answer, and names the number that decided. Here the truth is planted: the class is
in dimensions 0 to 3, dimension 4 repeats dimension 0, dimensions 5 and 6 carry the scanner, and
dimension 7 is dead. Dimensions 8 to 11 are noise.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(1600) % 4
scanner = rng.choice(["A", "B"], size=1600)
features = rng.normal(size=(1600, 12))
features[:, :4] += 2 * (labels[:, None] == np.arange(4))
features[:, 4] = 2 * features[:, 0] + 0.05 * rng.normal(size=1600)
features[:, 5:7] += 3 * (scanner == "B")[:, None]
features[:, 7] = 1.0
train, test = (features[:800], labels[:800]), (features[800:], labels[800:])

# %%
# Each analysis takes arrays. Factors, such as the scanner, come with a ``Representation``.

both = dimlab.Representation(features, labels=labels, factors={"scanner": scanner})
answers = dimlab.dimension_table(
    dimlab.ablate(train, test, reader="ridge", score="log_loss"),
    dimlab.confirm_harmful(train, test, reader="ridge"),
    dimlab.find_redundancy(features),
    dimlab.attribute(both[:800], both[800:], n_permutations=200, erased=None),
)

# %%
# One cell a dimension. On white cells nothing is shown: that is no leave to drop the dimension.

answers.plot()

# %%
# The number that decided each answer:

answers.to_frame()
