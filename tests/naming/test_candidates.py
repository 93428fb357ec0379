"""The labellers: every matrix against a loop, the choice against sklearn's AUROC, and a planted concept found."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

from saelib.naming import candidates as labellers
from saelib.naming.keybert import EmbeddingCache
from saelib.naming.scoring import draw_detection_set
from saelib.naming.selection import Taste, combined, masked_auroc
from saelib.sae import make_sae

ANIMALS, PLACES = ("otter", "heron", "badger", "viper"), ("harbour", "desert", "village", "glacier")
TEXTS = [f"{a} seen near {p} on day{i}" for i in range(8) for a in ANIMALS for p in PLACES]


@pytest.fixture
def planted(words):
    """Features that are active exactly where an animal (0–3) or a place (4–7) stands; feature 8 is dead."""
    x = words.encode(TEXTS)
    dense = np.array([[w in t for w in (*ANIMALS, *PLACES)] + [False] for t in TEXTS], np.float32)
    dense *= 1 + np.random.default_rng(0).random(dense.shape)
    sae = make_sae("topk", 48, 9, 2)
    sae.fit_normalizer(torch.from_numpy(x))
    return sae, x, sparse.csr_matrix(dense), EmbeddingCache(words.encode)


def test_masked_auroc_equals_sklearn():
    g = torch.Generator().manual_seed(0)
    x, candidates = torch.randn(50, 6, generator=g), torch.randn(2, 3, 6, generator=g)
    positives = torch.tensor([[1, 2, 3, -1], [4, 5, -1, -1]])
    negatives = torch.tensor([[10, -1, 12, 13, 14], [20, 21, 22, -1, -1]])
    got = masked_auroc(candidates, x, positives, negatives)
    for f in range(2):
        p, n = positives[f][positives[f] >= 0], negatives[f][negatives[f] >= 0]
        for c in range(3):
            wanted = roc_auc_score([1] * len(p) + [0] * len(n), x[torch.cat([p, n])] @ candidates[f, c])
            assert abs(float(got[f, c]) - wanted) < 1e-6


def test_pool_holds_words_and_neighbouring_words_but_no_stop_word_nor_a_phrase_across_a_comma(words):
    texts = ["The red fox, grey wolf and the red fox's den"] * 3 + ["a rare lynx"]
    pool = labellers.candidate_terms(texts, EmbeddingCache(words.encode))
    assert {"red", "fox", "red fox", "grey wolf"} <= set(pool.terms)
    assert not {"fox grey", "the", "the red", "wolf red", "rare", "lynx"} & set(pool.terms)
    j = list(pool.terms).index("red fox")
    assert pool.counts[:, j].toarray().ravel().tolist() == [1, 1, 1, 0]
    with pytest.raises(ValueError, match="lower min_texts"):
        labellers.candidate_terms(texts, EmbeddingCache(words.encode), min_texts=10)


def test_matrices_against_a_loop(planted):
    sae, x, table, vectors = planted
    pool, exam = labellers.candidate_terms(TEXTS, vectors), draw_detection_set(table, x)
    found = labellers.sources(sae, exam, x, pool)
    assert all(m.shape == (8, len(pool.terms)) for m in found.values())
    j = list(pool.terms).index("otter")
    v = torch.from_numpy(vectors(["otter"]))[0]
    centred = (v - sae.mean) / (v - sae.mean).norm()
    np.testing.assert_allclose(found["decoder row"][:, j], (sae.W_dec[:8] @ centred).detach(), atol=1e-5)
    np.testing.assert_allclose(
        found["self-activation"][:, j], sae.pre_acts(v[None])[0, :8].detach(), atol=1e-3
    )
    mean = x[exam.active[0, : (exam.active.shape[1] + 1) // 2]].mean(0)
    assert abs(found["centroid"][0, j] - mean @ v.numpy() / np.linalg.norm(mean)) < 1e-5
    for name in ("c-TF-IDF", "log-odds"):
        assert pool.terms[found[name][:4].argmax(1)].tolist() == list(ANIMALS), name
    tf = pool.counts[exam.active[0, :20]].toarray().sum(0)
    tfs = np.stack([pool.counts[r[:20][r[:20] >= 0]].toarray().sum(0) for r in exam.active])
    wanted = tf / tf.sum() * np.log1p(tfs.sum(1).mean() / np.maximum(tfs.sum(0), 1))
    np.testing.assert_allclose(found["c-TF-IDF"][0], wanted, rtol=1e-5)


def test_simple_labels_leave_out_near_synonyms_and_common_stems(words):
    texts = ["running runner runs quick fox"] * 3
    pool = labellers.candidate_terms(texts, EmbeddingCache(words.encode))
    scores = np.array(
        [[{"running": 3.0, "runs": 2.9, "fox": 1.0, "quick": 0.5}.get(t, 0.0) for t in pool.terms]]
    )
    labels = labellers.simple_labels(scores, pool, np.array([7]))
    assert labels.terms[7] == ["running", "fox", "quick"] and labels.label[7] == "running, fox, quick"


def test_combined_names_planted_concepts_and_embeds_each_string_once(planted, words):
    sae, x, table, vectors = planted
    words.seen.clear()
    pool = labellers.candidate_terms(TEXTS, vectors)
    labels = combined(sae, table, x, pool, vectors)
    assert len(words.seen) == len(set(words.seen))
    assert list(labels.index) == list(range(8))
    for feature, word in enumerate((*ANIMALS, *PLACES)):
        assert word in labels.label[feature] and 1 <= len(labels.terms[feature]) <= 3
    assert (labels.train_auroc > 0.9).all()
    again = combined(sae, table, x, pool, vectors)
    assert again.equals(labels)
    with pytest.raises(ValueError, match="no feature is active"):
        combined(sae, sparse.csr_matrix(table.shape), x, pool, vectors)
    with pytest.raises(ValueError, match="one corpus"):
        combined(sae, table[:5], x[:5], pool, vectors)


def test_readable_terms_stand_in_the_texts_and_hold_alone(planted):
    """Left to AUROC alone a sum of odd terms may win; with taste, each term is in an active text and near the best alone."""
    sae, x, table, vectors = planted
    pool, exam = (
        labellers.candidate_terms(TEXTS, vectors),
        draw_detection_set(table, x, n_random=200, n_near=100),
    )
    rows = [torch.from_numpy(r) for r in (exam.active[:, : (exam.active.shape[1] + 1) // 2], exam.random)]
    alone = masked_auroc(torch.from_numpy(pool.vectors)[None].expand(8, -1, -1), torch.from_numpy(x), *rows)
    place = {t: i for i, t in enumerate(pool.terms)}
    for f, terms in combined(sae, table, x, pool, vectors, taste=Taste(slack=0.05)).terms.items():
        held = pool.counts[exam.active[f][exam.active[f] >= 0]][:, [place[t] for t in terms]].toarray().max(0)
        assert (held > 0).all(), "a term that no active text holds"
        assert min(float(alone[f, place[t]]) for t in terms) > float(alone[f].max()) - 0.2
    short = combined(sae, table, x, pool, vectors, taste=Taste(cost=1.0))
    assert (short.terms.str.len() == 1).all(), "each further term must pay for itself"
