"""
Where in the image does a dimension look?
=========================================

A small encoder is trained on digits with a coloured background. For two of its dimensions we look
at the images with the highest activation, and at the parts of them that cause it.
"""

import dataclasses

import matplotlib.pyplot as plt

import dimlab
from dimlab import datasets

images = {
    split: dimlab.coloured(datasets.digits(split, image_size=16), correlation=correlation)
    for split, correlation in (("train", 0.8), ("test", 0))
}
config = dataclasses.replace(
    dimlab.TrainConfig.small(), method="simclr", steps=60, jitter=0, grey=0
)
checkpoint = dimlab.train(config, images["train"])
test = dimlab.encode(checkpoint, images["test"])
strongest = test.features.std(axis=0).argsort()[-2:]

# %%
# Each dimension has one row. Left: the images with the highest activation. Middle: the change when
# a patch of the image is covered. Right: the gradient. Look at the colours of the images first. If
# they share one hue while the digits differ, the dimension reads the background. The maps then show
# whether it looks there.

located = dimlab.locate(checkpoint, images["test"], strongest)
plt.figure(figsize=(8, 5))
located.plot(ax=plt.gca())
