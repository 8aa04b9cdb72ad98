"""
Confirm harmful dimensions on new samples
=========================================

The dimension with the lowest importance always looks harmful, because it was selected for being
lowest. ``confirm_harmful`` selects on one half of the test samples and tests on the other half.
Here two of twelve dimensions are harmful by construction: they agree with the class in the train
split only, as a background does that changes with the place where the pictures were taken.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
labels = np.arange(1200) % 2
features = rng.normal(size=(1200, 12))
features[:, :4] += labels[:, None]  # four dimensions that always know the class
misleading = np.outer(labels, [1.2, 1.0])  # two that know it in the train split
misleading[600:] *= -1  # and say the opposite in the test split
features[:, 10:] += misleading
train = features[:600], labels[:600]
test = features[600:], labels[600:]
harmful = dimlab.confirm_harmful(train, test, reader="ridge")

# %%
# The horizontal axis is the importance: dimensions to the left of zero hurt. The vertical axis is
# the q-value on the samples that did not select the dimension: the lower a point, the stronger the
# evidence. Coloured points are confirmed. Dimensions 10 and 11 were planted.

harmful.plot()
