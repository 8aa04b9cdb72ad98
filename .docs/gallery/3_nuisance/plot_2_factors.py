"""
Which factor does a dimension carry?
====================================

Suppose that the scanner, the age of the patient and the position of the table are recorded for
each image. Which of them is in the features? Here dimensions 0 to 3 carry the scanner, 4 to 7 the
age, and none carries the position.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(800) % 2
scanner = rng.choice(["A", "B", "C"], size=800)
age, position = rng.normal(60, 10, size=800), rng.normal(size=800)
features = rng.normal(size=(800, 12))
features[:, :4] += 2 * (scanner == "B")[:, None]
features[:, 4:8] += (age[:, None] - 60) / 10
features[:, 8:] += labels[:, None]
factors = {"scanner": scanner, "age": age, "position": position}
both = dimlab.Representation(features, labels=labels, factors=factors)
attribution = dimlab.attribute(both[:400], both[400:], n_permutations=200, erased=None)

# %%
# Each row is a factor, and each column a dimension. The brighter the colour, the larger the share
# of the dimension's variance that the factor explains, given the label. A dot marks q ≤ 0.05. A
# dark row without dots is a factor that the features do not hold.

dimlab.plot_attribution_effects(attribution)

# %%
# The number of dimensions in which each factor is found at q ≤ 0.05:

found = (attribution.q_value <= 0.05).sum(axis=0)
dict(zip(attribution.factors, found.tolist(), strict=True))
