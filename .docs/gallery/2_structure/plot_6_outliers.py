"""
Two outliers dominate the cosine similarity
===========================================

Two dimensions of the digits are made outliers: one is moved far from zero, another is enlarged.
Cosine similarities then measure mostly these two dimensions, and hardly the other 62.
"""

from sklearn.datasets import load_digits

import dimlab

features, labels = load_digits(return_X_y=True)
features[:, 10] += 60
features[:, 43] *= 12
found = dimlab.profile(features)

# %%
# Each dot is a dimension. Its height is its share of the cosine similarity, and its distance from
# the left is how many standard deviations its mean lies from zero. Dots beyond a dashed line are
# outliers. The dotted line is the share of each dimension if all were alike.

found.plot()

# %%
# Hubness is the skewness of how often a sample is among the nearest neighbours of others. The last
# column says what it is without each dimension.

columns = ["dimension", "share", "mean_over_deviation", "hubness_without"]
found.to_frame().loc[found.outliers, columns]
