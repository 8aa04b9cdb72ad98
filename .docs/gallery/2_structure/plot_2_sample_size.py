"""
Ranks need samples
==================

Every effective rank is biased downwards if the samples are few, for any encoder. Here one
64-dimensional distribution is measured with 100 to 3,200 samples. Its effective rank is 64.
"""

import matplotlib.pyplot as plt
import numpy as np

import dimlab

features = np.random.default_rng(0).normal(size=(3200, 64))
sizes = [100, 200, 400, 800, 1600, 3200]
spectra = [dimlab.decompose(features[:size]) for size in sizes]
ranks = [spectrum.statistics().set_index("statistic").loc["effective_rank"] for spectrum in spectra]

# %%
# The blue points are the effective rank as it is usually computed. It rises with the number of
# samples, although the distribution is the same. The orange points are corrected for the bias that
# falls as 1/N. Compare checkpoints at the same number of samples, and prefer the corrected value.

_, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
ax.axhline(64, color="0.7", lw=1)
ax.plot(sizes, [rank["value"] for rank in ranks], "o-", color="#0072B2", label="measured")
ax.plot(sizes, [rank["corrected"] for rank in ranks], "o-", color="#D55E00", label="corrected")
ax.set(xscale="log", xlabel="samples", ylabel="effective rank", ylim=(40, 68))
ax.legend(frameon=False)
