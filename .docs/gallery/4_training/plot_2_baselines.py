"""
Better than pixels, better than an untrained encoder?
=====================================================

An accuracy means little by itself. ``evaluate_baselines`` reads raw pixels, the encoder before
training and the encoder after it with the same classifiers.
"""

import dataclasses

import dimlab
from dimlab import datasets

train, test = (datasets.digits(split, image_size=16) for split in ("train", "test"))
config = dataclasses.replace(dimlab.TrainConfig.small(), steps=50)
checkpoint = dimlab.train(config, train)
comparison = dimlab.evaluate_baselines([checkpoint], train, test)

# %%
# Each group of rows is a classifier. Compare the trained encoder with the other two: if their
# intervals overlap, the training has not been shown to help. "View retrieval" asks whether the
# second view of an image lies nearest to its first view, which is what the training optimises. Rows
# named after a mask show the features through the mask that was learned, and through control masks.

comparison.plot()

# %%
# The accuracies without a mask:

unmasked = comparison.over_seeds().query("mask == 'none'")
unmasked.pivot(index="reader", columns="source", values="accuracy")
