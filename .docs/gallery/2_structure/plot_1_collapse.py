"""
A healthy and a collapsed spectrum
==================================

Both representations have 64 dimensions. In the first, all directions are used alike. In the
second, eight directions carry everything, and the 64 dimensions are sums of them with a little
noise. Looking at single dimensions does not show the difference; the singular values do.
"""

import matplotlib.pyplot as plt
import numpy as np

import dimlab

rng = np.random.default_rng(0)
healthy = rng.normal(size=(2000, 64))
collapsed = rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 64))
collapsed += 0.01 * rng.normal(size=collapsed.shape)
spectra = {
    "healthy": dimlab.decompose(healthy),
    "collapsed": dimlab.decompose(collapsed),
}

# %%
# Both axes are logarithmic. A flat curve means that all directions are used alike. In the right
# panel the values drop by two orders of magnitude after the eighth: the other 56 directions hold
# noise. The effective rank counts the directions that are used.

_, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, (name, spectrum) in zip(axes, spectra.items(), strict=True):
    spectrum.plot(ax=ax)
    ax.set_title(name, loc="left")

# %%
# The numerical rank counts values that differ from rounding, so it is 64 in both cases. The
# effective rank tells them apart.

for name, spectrum in spectra.items():
    print(f"{name}: {spectrum.numerical_rank} and {spectrum.effective_rank:.1f}")
