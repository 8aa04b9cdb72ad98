"""
Importance depends on the classifier
====================================

"Dimension 7 is important" is a statement about a classifier. Here three classifiers read the same
64 pixels of scikit-learn's digits: k nearest neighbours, ridge regression, and scikit-learn's
Gaussian naive Bayes. Any scikit-learn classifier may be passed as the reader.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.naive_bayes import GaussianNB

import dimlab

features, labels = load_digits(return_X_y=True)
train = features[:1200], labels[:1200]
test = features[1200:], labels[1200:]
readers = {"kNN": "knn", "ridge": "ridge", "naive Bayes": GaussianNB(var_smoothing=1e-2)}
importance = pd.DataFrame(
    {
        name: dimlab.ablate(train, test, reader=reader, score="log_loss").importance
        for name, reader in readers.items()
    }
)

# %%
# Each point is a dimension. If the classifiers agreed, the points would lie on a rising line. A
# point far to the right and near zero on the vertical axis is a dimension that ridge regression
# needs and the other classifier does not.

_, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for ax, other in zip(axes, ("kNN", "naive Bayes"), strict=True):
    ax.axhline(0, color="0.7", lw=0.8)
    ax.axvline(0, color="0.7", lw=0.8)
    ax.plot(importance["ridge"], importance[other], "o", ms=4, alpha=0.7)
    ax.set(xlabel="importance for ridge", ylabel=f"importance for {other}")

# %%
# The rank correlations say the same in numbers: 1 means that two classifiers order the dimensions
# alike.

importance.corr(method="spearman").round(2)
