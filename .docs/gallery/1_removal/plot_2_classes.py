"""
Which class needs which dimension?
==================================

A dimension that hardly changes the accuracy may still decide one class. The features here are 13
chemical measurements of 178 wines from three growers; the class is the grower.
"""

import numpy as np
from sklearn.datasets import load_wine

import dimlab

wine = load_wine()
order = np.random.default_rng(0).permutation(len(wine.target))
features, labels = wine.data[order], wine.target[order]
train = features[:89], labels[:89]
test = features[89:], labels[89:]
ablation = dimlab.ablate(train, test, reader="ridge")

# %%
# Each row is a class, and each column a dimension. Blue: accuracy within the class that is lost
# without the dimension. Red: accuracy that is gained. Only what is decided has a colour: there are
# about 30 test wines of each class, and one wine more or less is no evidence. If nothing is
# decided, the figure is a sentence.

dimlab.plot_ablation_per_class(ablation)

# %%
# The names of the dimensions with the largest change in any class, decided or not, and the least
# q-value over the classes:

largest = np.abs(ablation.per_class).max(axis=1)
for dimension in np.argsort(-largest)[:3]:
    q_value = ablation.per_class_q[dimension].min()
    print(wine.feature_names[dimension], ablation.per_class[dimension].round(2), f"q {q_value:.2g}")
