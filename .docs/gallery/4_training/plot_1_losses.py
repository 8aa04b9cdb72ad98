"""
Watch a training run
====================

A small encoder is trained on scikit-learn's digits with the losses of SimCLR and Barlow Twins. It
never sees a label.
"""

import dataclasses

import matplotlib.pyplot as plt

import dimlab
from dimlab import datasets

config = dataclasses.replace(dimlab.TrainConfig.small(), method="simclr+barlow-twins", steps=50)
checkpoint = dimlab.train(config, datasets.digits("train", image_size=16))

# %%
# Each loss term is divided by its first value. Training lowers their weighted sum, so a single
# term may rise if its weight is small.

checkpoint.plot()

# %%
# The features of 64 test images, sorted by class. Each row is an image, and the colours are its
# dimensions. If the rows change where the class changes, the encoder tells the digits apart.

test = dimlab.encode(checkpoint, datasets.digits("test", image_size=16))
plt.figure(figsize=(8, 4))
dimlab.plot_representation(test)
