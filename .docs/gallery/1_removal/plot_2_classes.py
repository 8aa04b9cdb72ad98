"""
Some dimensions serve a single class
====================================

A dimension that hardly changes the accuracy may still decide one class. Here each of the dimensions
0, 1 and 2 knows one of four classes, and seven others are noise. Nothing marks the last class: it
is what the other three are not.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(1200) % 4
features = rng.normal(size=(1200, 10))
features[:, :3] += 3 * (labels[:, None] == np.arange(3))
train = features[:600], labels[:600]
test = features[600:], labels[600:]
ablation = dimlab.ablate(train, test, reader="ridge")

# %%
# Each row is a class, and each column a dimension that matters to some class. Blue: accuracy within
# the class that is lost without the dimension. Red: accuracy that is gained. Grey: undecided, as a
# sample more or less is no evidence. The last class needs all three dimensions.

dimlab.plot_ablation_per_class(ablation)

# %%
# The same numbers, one row a dimension and one column a class:

ablation.per_class[:3].round(2)
