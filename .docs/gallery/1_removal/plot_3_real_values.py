"""
Dimensions that predict a real value
====================================

Labels that are floats are real values. Ridge regression predicts them, and `ablate` says how far
its R² falls without each dimension. Here an age depends on three of sixteen dimensions; one of the
three has a copy, which can stand in for it.
"""

import numpy as np

from dimlab import ablate

rng = np.random.default_rng(0)


def split(n):
    """Dimension 0 matters most; 5 and its copy 6 stand in for each other."""
    features = rng.normal(size=(n, 16))
    features[:, 6] = features[:, 5] + 0.05 * rng.normal(size=n)
    age = 40 + 10 * features[:, 0] + 4 * features[:, 3] + 6 * features[:, 5]
    return features, age + 5 * rng.normal(size=n)


train, test = split(1000), split(500)
result = ablate(train, test, reader="ridge")

# %%
# Each dot is a dimension. The higher it lies, the more R² is lost without it. Bars are 95 %
# intervals over test samples, and coloured dots have a q-value of at most 0.05.

result.plot()

# %%
# Dimensions 5 and 6 share what they know, so that each alone can go. Removed together, they are
# missed.

groups = [[0], [3], [5], [6], [5, 6]]
together = ablate(train, test, reader="ridge", groups=groups)
together.to_frame()[["dimensions", "importance", "q_value"]]
