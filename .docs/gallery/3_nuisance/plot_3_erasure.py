"""
Remove a nuisance
=================

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
# The further left a mark, the less of the hue is left. The higher it is, the better the digits are
# read. The aim is the upper left corner: the hue is gone, and the digits are read better than
# before. The grey marks, which drop as many at random, show what chance does.

erasure.plot()

# %%
# The same in sentences:

for sentence in erasure.summary()["in_words"]:
    print(sentence)
