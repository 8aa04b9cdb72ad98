"""
Which dimensions does a classifier need?
========================================

Each dimension is removed in turn, the classifier is fitted again without it, and its log-loss on
test samples is compared with that of all dimensions.
The features are pixels of scikit-learn's digits; pixels that are nearly always empty are left out.
"""

from sklearn.datasets import load_digits

import dimlab

features, labels = load_digits(return_X_y=True)
features = features[:, features.std(axis=0) > 1]
train = features[:1200], labels[:1200]
test = features[1200:], labels[1200:]
ablation = dimlab.ablate(train, test, reader="ridge", score="log_loss")

# %%
# Every point is a dimension, and the most important ones are on the left. The vertical line is the
# 95 % confidence interval over test samples. Above zero the classifier is worse without the
# dimension; below zero it is better without it. Coloured points have q ≤ 0.05, and grey ones are
# undecided.

ablation.plot()

# %%
# The same numbers as a table. ``importance`` is the log-loss without the dimension less the
# log-loss with it.

columns = ["dimension", "importance", "ci_low", "ci_high", "q_value"]
ablation.to_frame().sort_values("importance", ascending=False)[columns].head()
