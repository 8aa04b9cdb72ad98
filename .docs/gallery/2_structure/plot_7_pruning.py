"""
A smaller representation, and what it loses
===========================================

The digits have pixels that are always black, and three copies of others are added. `prune` drops
the constant dimensions and the copies, and then as many of the rest as can be shown to cost at most
5 % of accuracy on held-out digits.
"""

import numpy as np
from sklearn.datasets import load_digits

import dimlab

features, labels = load_digits(return_X_y=True)
features = np.column_stack([features, 2 * features[:, [20, 28, 36]]])
train, test = (features[::2], labels[::2]), (features[1::2], labels[1::2])
found = dimlab.prune(train, test, drop_dead=True, drop_duplicates=True, max_loss=0.05)

# %%
# The dot is the accuracy that is lost on held-out digits, and the bar its 95 % interval. The whole
# interval lies left of the dashed line, the largest loss that was asked for.

found.plot()

# %%
# Each dimension that is dropped has a reason.

found.to_frame()["why"].replace("", "kept").value_counts()

# %%
# The layer stands behind an encoder in the place of a selection of columns. Its output is the
# smaller representation.

layer, smaller = found.module(), found.apply(test)
print(layer, smaller.features.shape)
