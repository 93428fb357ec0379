"""The activation table, the reference labels against a direct transcription, and the label judge."""

import math

import numpy as np
import pytest
from keybert import KeyBERT
from keybert.backend import BaseEmbedder
from scipy import sparse

from saelib.activations import activation_table, feature_stats, top_texts
from saelib.naming.keybert import KeyBERTInterpreter
from saelib.sae import make_sae

TEXTS = [
    f"{a} {b} are {c} of the {d}"
    for a in ("rats", "planets", "sonatas") for b in ("small", "distant", "famous") for c in ("animals", "bodies", "works")
    for d in ("night", "region", "century")
]  # fmt: skip


def dense_example(n=81, f=6, seed=0):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, f)) < 0.3, rng.random((n, f)), 0).astype(np.float32)
    dense[:, -1] = 0  # a dead feature
    return dense


def test_top_texts_and_stats_against_a_loop():
    dense = dense_example()
    rows, acts = top_texts(sparse.csr_matrix(dense), 5)
    stats = feature_stats(sparse.csr_matrix(dense), np.array(["a", "b", "c"] * 27))
    for f in range(6):
        order = [i for i in np.argsort(-dense[:, f], kind="stable") if dense[i, f] > 0][:5]
        assert list(rows[f][rows[f] >= 0]) == order and np.allclose(acts[f][: len(order)], dense[order, f])
        assert np.isclose(stats.density[f], (dense[:, f] > 0).mean()) and np.isclose(
            stats["max"][f], dense[:, f].max()
        )
    mass = [dense[i::3, 0].sum() for i in range(3)]
    assert stats.top_domain[0] == "abc"[int(np.argmax(mass))] and np.isclose(
        stats.top_domain_share[0], max(mass) / sum(mass)
    )


def test_activation_table_is_what_the_sae_says(words):
    x, sae = words.encode(TEXTS), make_sae("topk", 48, 30, 3)
    import torch

    table = activation_table(sae, x, batch_size=10)
    np.testing.assert_allclose(table.toarray(), sae.encode(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="d_in 48.*has 16"):
        activation_table(sae, x[:, :16])


def transcription(encode, texts, embeddings, rows):
    """The reference procedure for one feature, written straight down: everything embedded again."""

    class Backend(BaseEmbedder):
        def embed(self, documents, verbose=False):
            return encode(list(documents))

    total, count = {}, {}
    for r in rows:
        pairs = KeyBERT(model=Backend()).extract_keywords(
            texts[r], keyphrase_ngram_range=(1, 1), stop_words="english", top_n=5
        )
        kept = []
        for word, score in sorted(pairs, key=lambda p: -p[1]):
            if all(float(encode([word])[0] @ encode([k])[0]) < 0.9 for k, _ in kept):
                kept.append((word, score))
        terms = list(kept)
        for i in range(len(kept)):
            for j in range(i + 1, len(kept)):
                phrase = f"{kept[i][0]} {kept[j][0]}"
                cosine = float(encode([phrase])[0] @ embeddings[r])
                if cosine >= 0.4:
                    terms.append((phrase, cosine))
        for term, score in terms:
            total[term], count[term] = total.get(term, 0) + score, count.get(term, 0) + 1
    ranked = sorted(total, key=lambda t: -total[t] / count[t] * math.log(1 + count[t]))
    groups, used = [], set()
    for t in ranked:
        if t in used:
            continue
        group = [
            u for u in ranked if u not in used and (u == t or float(encode([u])[0] @ encode([t])[0]) >= 0.8)
        ]
        used |= set(group)
        s, n = sum(total[u] for u in group), sum(count[u] for u in group)
        groups.append((t, s / n * math.log(1 + n)))
    return sorted(groups, key=lambda g: -g[1])[:3]


def test_reference_labels_equal_a_direct_transcription(words):
    x, table = words.encode(TEXTS), sparse.csr_matrix(dense_example())
    words.seen.clear()
    labels = KeyBERTInterpreter(words.encode).label(table, TEXTS, x)
    assert len(words.seen) == len(set(words.seen)), "a candidate was embedded twice"
    assert list(labels.index) == [0, 1, 2, 3, 4]
    for f in labels.index:
        wanted = transcription(words.encode, TEXTS, x, labels.top_rows[f])
        assert labels.terms[f] == [t for t, _ in wanted]
        np.testing.assert_allclose(labels.scores[f], [s for _, s in wanted], atol=1e-4)


def test_interpreter_bad_and_odd_input(words):
    stop = ["the of and", "is to be"]
    labels = KeyBERTInterpreter(words.encode).label(
        sparse.csr_matrix(np.eye(2, dtype=np.float32)), stop, words.encode(stop)
    )
    assert list(labels.label) == ["", ""]
    with pytest.raises(ValueError, match="one corpus"):
        KeyBERTInterpreter(words.encode).label(sparse.csr_matrix((3, 2)), stop, words.encode(stop))
    with pytest.raises(ValueError, match="no feature is active"):
        KeyBERTInterpreter(words.encode).label(sparse.csr_matrix((2, 2)), stop, words.encode(stop))
    with pytest.raises(ValueError, match="n_texts"):
        KeyBERTInterpreter(words.encode, n_texts=0)
