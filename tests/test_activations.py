"""Views of the sparse table of activations, against brute force."""

import numpy as np
from scipy import sparse

from saelib.activations import activation_quantiles, co_activation


def test_quantiles_and_co_activation_by_brute_force():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(80, 6)), 0) * (rng.random((80, 6)) < 0.5)
    dense[:, 5] = 0
    table = sparse.csr_matrix(dense)
    got = activation_quantiles(table, (0.25, 0.5, 1.0))
    for f in range(5):
        values = dense[:, f][dense[:, f] > 0]
        np.testing.assert_allclose(got[f], np.quantile(values, (0.25, 0.5, 1.0), method="inverted_cdf"))
    assert np.isnan(got[5]).all()
    both = co_activation(table).toarray()
    for i in range(6):
        for j in range(6):
            assert both[i, j] == (0 if i == j else ((dense[:, i] > 0) & (dense[:, j] > 0)).sum())
