"""Groups of dimensions that say the same; the rest is tested through `find_redundancy`."""

import numpy as np

from dimlab.kernels.collinearity import groups_of, redundant_groups


def test_dimensions_that_are_multiples_of_each_other_are_one_group():
    x = np.array([[0.0, 0.0, 1.0], [1.0, -2.0, 0.0], [2.0, -4.0, 1.0], [3.0, -6.0, 0.0]])
    assert [group.tolist() for group in redundant_groups(x)] == [[0, 1], [2]]
    assert [group.tolist() for group in groups_of(np.array([7, 3, 7]))] == [[0, 2], [1]]
