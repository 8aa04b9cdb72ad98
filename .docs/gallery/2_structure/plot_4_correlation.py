"""
Which dimensions survive the augmentation?
==========================================

Self-supervised encoders see two augmented views of each image. A dimension that survives the
augmentation is correlated with itself across the views. A dimension that repeats others is
correlated with them. Here 24 dimensions are planted: the first twelve form three blocks, the next
eight are independent, and the last four differ between the views.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
shared = np.hstack([np.repeat(rng.normal(size=(1000, 3)), 4, axis=1), rng.normal(size=(1000, 12))])
shared[:, 20:] = 0  # what the views have in common of the last four dimensions: nothing
views = np.stack([shared + 0.6 * rng.normal(size=shared.shape) for _ in range(2)])
correlation = dimlab.correlate(dimlab.Representation(views[0], views=views))

# %%
# Rows are the dimensions of one view, and columns those of the other, sorted so that correlated
# dimensions are neighbours. Squares along the diagonal are groups of dimensions that say the same.
# A pale diagonal element is a dimension that changes with the augmentation.

correlation.plot()

# %%
# ``off_diagonal_rms`` is the root mean square off the diagonal. Compare it with the band that
# independent dimensions of this sample size would give.

low, high = correlation.null_band["off_diagonal_rms"]
print(f"{correlation.off_diagonal_rms:.3f}; independent dimensions: {low:.3f} to {high:.3f}")
