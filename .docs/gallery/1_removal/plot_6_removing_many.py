"""
How many dimensions can be removed?
===================================

Dimensions leave one after the other, and the classifier is fitted again each time. The order
matters: worst first, best first, or random. The features are the 64 pixels of scikit-learn's
digits.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import dimlab

features, labels = load_digits(return_X_y=True)
train = features[:1200], labels[:1200]
test = features[1200:], labels[1200:]
orders = ("worst-first", "random", "best-first")
curves = {name: dimlab.ablate_cumulatively(train, test, order=name, margin=0.02) for name in orders}

# %%
# From left to right more and more dimensions are missing. The curve stays flat for as long as
# the dimensions that leave are dispensable. If it falls much earlier in the right panel than in the
# left one, a few dimensions do most of the work. The band is a 95 % confidence interval. Both
# orders are found on the train split, so the test accuracy is not selected.

_, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
for ax, (name, curve) in zip(axes, curves.items(), strict=True):
    curve.plot(ax=ax)
    ax.set_title(name, loc="left")

# %%
# A number of dimensions is called dispensable where the whole interval stays within two points of
# the accuracy with all dimensions. How many are, in words:

print(curves["worst-first"].summary()["dispensable"])
