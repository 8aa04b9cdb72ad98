"""
Which dimensions carry the hue?
===============================

The digits are shown on a coloured background. In the train split the hue follows the digit; in the
test split it does not. The features are the pixels, three for each place of an image of 8 × 8.
"""

import matplotlib.pyplot as plt
import numpy as np

import dimlab
from dimlab import datasets

images = {
    "train": dimlab.coloured(datasets.digits("train", image_size=8), correlation=0.8),
    "test": dimlab.coloured(datasets.digits("test", image_size=8), correlation=0),
}
_, axes = plt.subplots(2, 1, figsize=(7, 1.9), layout="constrained")
for ax, (split, shown) in zip(axes, images.items(), strict=True):
    some = shown.labels.argsort(kind="stable")[:: len(shown.labels) // 30]
    ax.imshow(np.hstack(shown.images[some].transpose(0, 2, 3, 1)))
    ax.set_ylabel(split)
    ax.set(xticks=[], yticks=[])

# %%
# ``attribute`` measures the share of each dimension's variance that the hue explains for images of
# the same digit, so that the agreement of hue and digit does not count.

config = dimlab.TrainConfig.small()
pixels = {split: dimlab.encode_pixels(each, config) for split, each in images.items()}
attribution = dimlab.attribute(pixels["train"], pixels["test"], n_permutations=200, erased=None)

# %%
# Each point is a dimension. The vertical axis is the effect of the hue, and the horizontal axis
# that of the digit. Points above the dotted line carry more of the hue than of the digit.

attribution.plot()
