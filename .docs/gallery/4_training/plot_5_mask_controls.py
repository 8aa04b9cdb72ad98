"""
Does a classifier read better through the mask?
===============================================

A mask changes the distances between samples, and therefore what a nearest-neighbour classifier
reads. To know whether this mask helps, compare it with the same weights on other dimensions.
"""

import dataclasses

import dimlab
from dimlab import datasets

config = dataclasses.replace(dimlab.TrainConfig.small(), steps=50)
train, test = (datasets.digits(split, image_size=16) for split in ("train", "test"))
checkpoint = dimlab.train(config, train)
evaluation = dimlab.evaluate(
    dimlab.encode(checkpoint, train), dimlab.encode(checkpoint, test),
    mask=checkpoint.mask, readers=["knn", "ridge"],
)  # fmt: skip

# %%
# Look at "learned" beside "none", and then beside "permuted". If permuted weights do as well, any
# mask with such weights would do. Ridge regression standardises every dimension, so a mask without
# zeros cannot change its accuracy.

evaluation.plot()
