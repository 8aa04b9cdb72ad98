"""
Does the mask move during training?
===================================

MetaMask learns a weight for each dimension while the encoder is trained. ``follow`` describes
whether the weights changed, and how.
"""

import dataclasses

import matplotlib.pyplot as plt

import dimlab
from dimlab import datasets

config = dataclasses.replace(dimlab.TrainConfig.small(), steps=50, trace_every=2)
checkpoint = dimlab.train(config, datasets.digits("train", image_size=16))
evolution = dimlab.follow(checkpoint.trace)
print(evolution.movement())

# %%
# Left: one row for each dimension, the largest final weight on top. A row that keeps its colour
# has settled. Right: the spread of the weights over the steps. A ribbon that widens to the end
# says that the run was stopped while the mask was still changing.

_, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
evolution.plot(ax=axes[0])
dimlab.plot_mask_evolution_quantiles(evolution, ax=axes[1])
