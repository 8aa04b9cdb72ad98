"""
Does the mask know anything?
============================

A useful mask should weight dimensions up that a classifier needs, and weight redundant ones down.
Here a mask is planted that does so, and it is compared with control masks.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(1000) % 2
features = rng.normal(size=(1000, 40))
strength = np.linspace(0, 0.5, 40)  # how much of the class each dimension knows
features += strength * labels[:, None]
train = features[:500], labels[:500]
test = features[500:], labels[500:]
final = 0.3 + strength + 0.05 * rng.normal(size=40)
steps = np.arange(0, 101, 10)
weights = 0.5 + np.outer(steps / 100, final - 0.5)
evolution = dimlab.follow(
    dimlab.MaskTrace(steps, weights),
    ablation=dimlab.ablate(train, test, reader="ridge", score="log_loss"),
    redundancy=dimlab.find_redundancy(train),
)

# %%
# The horizontal axis is the rank correlation of the weights with each measurement. Orange is the
# learned mask with its 95 % confidence interval, and grey are the controls: random weights, the
# same weights on other dimensions, and the mask upside down. The mask knows something if the orange
# interval excludes zero on the side that the claim expects, and the grey ones do not.

dimlab.plot_mask_evolution_links(evolution)

# %%
# The planted mask agrees with the importance. It contradicts the claim about redundancy: dimensions
# that know the class are correlated with each other through it, and the mask gives them the highest
# weights.

evolution.links_frame()[["link", "mask", "correlation", "ci_low", "ci_high", "verdict"]]
