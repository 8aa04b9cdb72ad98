"""
The best of many random masks
=============================

Try 200 random subsets of dimensions, and the best of them beats the full set. This is selection:
the best of many noisy scores is high by chance. Here the test samples are split in two. Masks are
selected on one half and judged on the other.
"""

from sklearn.datasets import load_digits

import dimlab

features, labels = load_digits(return_X_y=True)
train = features[:1200], labels[:1200]
test = features[1200:], labels[1200:]
scored = dimlab.random_masks(train, test, n_masks=200)

# %%
# Each column is a share of removed dimensions, and each grey point a mask. The vertical axis is the
# accuracy that is gained on all dimensions. The orange point is the mask that was best on one half
# of the test samples, scored on the other half. If its interval includes zero, the mask has not
# been shown to be better than no mask. The green line is what the best of as many masks reaches by
# chance.

scored.plot()

# %%
# The same comparison in numbers. ``naive_gain`` is the gain of the best mask where it is selected
# and judged on the same samples, and ``best_gain`` the gain on samples that did not select it.

scored.to_frame()[["drop", "naive_gain", "best_gain", "ci_low", "ci_high"]]
