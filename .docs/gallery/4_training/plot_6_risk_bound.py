"""
What the contrastive loss says about classification
===================================================

The theory of contrastive learning bounds the cross-entropy of a simple classifier by the
contrastive loss. The bounds lie closer together where samples of a class lie closer together. The
features are two views of the pixels of scikit-learn's digits.
"""

import dimlab
from dimlab import datasets

config = dimlab.TrainConfig.small()
images = datasets.digits("test", image_size=8)
views = dimlab.encode_pixels(images, config, n_views=2)
bound = dimlab.bound_risk(views, n_negatives=(16, 64, 256, 1024), n_bootstrap=50)

# %%
# The line is the cross-entropy, and the band lies between its lower and upper bound. The wider the
# band, the less the contrastive loss says about the classification. Its width depends on the
# spread within classes, so it hardly changes with the number of negatives.

bound.plot()
