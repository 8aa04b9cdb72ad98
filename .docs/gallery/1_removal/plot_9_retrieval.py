"""
Retrieval without each dimension
================================

Queries look for documents by cosine similarity. A dimension that is noise in the queries pushes the
right documents down in every ranking. Each dimension is removed from queries and corpus, the corpus
is ranked again, and rankings are scored by nDCG.
"""

import numpy as np

import dimlab

rng = np.random.default_rng(0)
corpus = rng.normal(size=(1000, 24)) * np.linspace(2, 0.5, 24)
queries = corpus[:300] + 0.9 * rng.normal(size=(300, 24))
queries[:, 20] = 8 * rng.normal(size=300)
relevance = np.column_stack([np.arange(300), np.arange(300)])  # query row, corpus row
found = dimlab.ablate_retrieval(corpus, queries, relevance, score="ndcg@10")

# %%
# Each dot is a dimension; above the line, queries find less without it, and below the line they
# find more. Bars are 95 % intervals over queries. Coloured dots have a q-value of at most 0.05.

found.plot()

# %%
# How many dimensions are enough? The lines keep the most important dimensions, as measured on other
# queries, the first ones, the leading principal axes, or random ones. Bars are 95 % intervals of
# what is lost against all dimensions, the dashed line.

dimlab.plot_retrieval_ablation_truncation(found)

# %%
# The dimension of noise is confirmed as harmful on queries that did not choose it.

found.summary()["confirmed"], found.summary()["enough"]
