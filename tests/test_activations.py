"""Views of the sparse table of activations, against brute force."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from synthetic import gaussian

from saelib.activations import activation_table, co_activation, feature_stats, read_texts
from saelib.sae import make_sae
from saelib.store import EmbeddingStore


def test_co_activation_by_brute_force():
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(80, 6)), 0) * (rng.random((80, 6)) < 0.5)
    both = co_activation(sparse.csr_matrix(dense)).toarray()
    for i in range(6):
        for j in range(6):
            assert both[i, j] == (0 if i == j else ((dense[:, i] > 0) & (dense[:, j] > 0)).sum())


def test_the_table_is_what_the_sae_says_block_by_block():
    x, sae = gaussian(70, 16).numpy(), make_sae("topk", 16, 32, 4)
    rows = np.array([3, 69, 3, 10, 0])
    dense = sae.encode(gaussian(70, 16)).detach().numpy()
    for wanted, size in ((None, 16), (None, 70), (rows, 2)):
        table = activation_table(sae, x, wanted, batch_size=size)
        assert table.dtype == np.float32 and table.has_sorted_indices
        np.testing.assert_allclose(
            table.toarray(), dense if wanted is None else dense[rows], rtol=1e-5, atol=1e-6
        )
        assert table.nnz == (table.toarray() > 0).sum()
    with pytest.raises(ValueError, match="no rows"):
        activation_table(sae, x, np.array([], dtype=int))


def test_a_large_corpus_is_sampled_and_says_so(tmp_path, words, rows, capsys):
    titled = [row | {"title": f"t{i}"} if i < 300 else row for i, row in enumerate(rows)]
    store = EmbeddingStore.extract(tmp_path, titled, words, shard_rows=128, progress=False)
    sae = make_sae("topk", store.d_in, 32, 4)
    whole, part = read_texts(sae, store), read_texts(sae, store, most=100)
    assert capsys.readouterr().out.count("sample of 100 of 700") == 1, (
        "one sentence, and only where it is true"
    )
    assert len(whole.texts) == 700 and len(part.texts) == len(part.titles) == part.table.shape[0] == 100
    assert (np.diff(part.rows) > 0).all()
    for i, row in enumerate(part.rows):
        assert part.texts[i] == rows[row]["text"] and part.domains[i] == rows[row]["domain"]
        assert part.titles[i] == titled[row].get("title", "")
    np.testing.assert_array_equal(part.embeddings, whole.embeddings[part.rows])
    np.testing.assert_allclose(part.table.toarray(), whole.table[part.rows].toarray(), rtol=1e-5)
    some = np.array([400, 2, 699, 2])  # any order, whether the frame is in memory or not
    for _ in range(2):
        assert store.read_frame(some).text.tolist() == [rows[i]["text"] for i in some]
        store.frame  # noqa: B018


def test_embeddings_in_any_form_and_domains_with_gaps():
    x, sae = gaussian(70, 16), make_sae("topk", 16, 32, 4)
    table = activation_table(sae, x.numpy())
    for form in (x, x.double().numpy(), pd.DataFrame(x.numpy()), x.tolist()):
        assert (activation_table(sae, form) != table).nnz == 0
    x[5, 5] = torch.nan
    for wrong, said in ((lambda: activation_table(sae, x), "NaN"), (lambda: activation_table(sae, x[:4], batch_size=0), "batch_size"), (lambda: feature_stats(table, ["a"]), "1 domains for 70")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            wrong()
    gaps, whole = [None, np.nan, "b", 7] * 17 + ["b"] * 2, ["all", "all", "b", "7"] * 17 + ["b"] * 2
    assert feature_stats(table, gaps).equals(feature_stats(table, whole))
