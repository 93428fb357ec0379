"""Views of the sparse table of activations, against brute force."""

import numpy as np
from scipy import sparse

from saelib.activations import co_activation


def test_co_activation_by_brute_force():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(80, 6)), 0) * (rng.random((80, 6)) < 0.5)
    both = co_activation(sparse.csr_matrix(dense)).toarray()
    for i in range(6):
        for j in range(6):
            assert both[i, j] == (0 if i == j else ((dense[:, i] > 0) & (dense[:, j] > 0)).sum())
