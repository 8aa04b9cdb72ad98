"""
Remove a nuisance by directions, not by dimensions
==================================================

Knowing which dimensions carry the hue does not mean that dropping them helps. ``erase`` removes it
in several ways: it drops the dimensions that carry it, drops the principal components that carry
it, or applies LEACE, a projection after which no linear classifier finds the factor. Each way is
compared with dropping as many at random.
"""

import dimlab
from dimlab import datasets

config = dimlab.TrainConfig.small()
pixels = {
    split: dimlab.encode_pixels(
        dimlab.coloured(datasets.digits(split, image_size=8), correlation=correlation), config
    )
    for split, correlation in (("train", 0.8), ("test", 0))
}
erasure = dimlab.erase(pixels["train"], pixels["test"], factor="hue")

# %%
# One row a way of removal. Orange: what a classifier still finds of the hue; the further left, the
# less. Blue: how often the digit is read; the further right, the better. The aim is a row in which
# orange is far left and blue lies right of its dotted line, where nothing is removed. Compare each
# way with as many random dimensions or directions.

erasure.plot()

# %%
# The same step by step: from left to right 1, 2, 4, ... of the dimensions or directions that carry
# most of the hue are removed.

dimlab.plot_erasure_sweep(erasure)

# %%
# The same in sentences:

for sentence in erasure.summary()["in_words"]:
    print(sentence)
