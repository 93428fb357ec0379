"""Candidates: noun phrases of a small corpus, the two sources against a loop, and the choice among them."""

import numpy as np
import pytest
import torch
from scipy import sparse

from saelib.activations import EncodedTexts, top_texts
from saelib.encoder import EmbeddingCache, load_independent
from saelib.naming.candidates import TokenStream, candidate_terms, ctfidf, noun_phrases, self_activation
from saelib.naming.pipeline import choose, name_parts
from saelib.naming.scoring import draw_detection_set
from saelib.naming.selection import Evidence, Weights, best_of_source, choose_terms
from saelib.sae import make_sae

ANIMALS, PLACES = ("otter", "heron", "badger", "viper"), ("harbour", "desert", "village", "glacier")
TEXTS = [f"the {a} was seen in the {p} on day {i}" for i in range(8) for a in ANIMALS for p in PLACES]


@pytest.fixture
def planted(words):
    """Features that are active exactly where an animal (0–3) or a place (4–7) stands; feature 8 is dead."""
    x = words.encode(TEXTS)
    dense = np.array([[w in t for w in (*ANIMALS, *PLACES)] + [False] for t in TEXTS], np.float32)
    dense *= 1 + np.random.default_rng(0).random(dense.shape)
    sae = make_sae("topk", 48, 9, 2)
    sae.fit_normalizer(torch.from_numpy(x))
    train = EncodedTexts(sparse.csr_matrix(dense), TEXTS, x, np.array(["all"] * len(TEXTS)))
    return sae, train, EmbeddingCache(words.encode), load_independent(TEXTS, words.encode)


def phrases(texts, **kwargs):
    return noun_phrases(TokenStream(texts), len(texts), **kwargs)


def test_names_keep_their_parts_and_verbs_are_no_names():
    texts = [
        "The war was fought in New Hampshire, and the war was long.",
        "A village in New Hampshire is located near the river.",
        "The river of New Hampshire was fought for in the war.",
        "It is located near the village, but they haven't seen the river; noooo, wow!",
        "The village was located near a river and haven't you fought, noooo, wow!",
        "A battle of the war was fought near the village: they haven't, noooo, wow!",
    ]
    terms, counts, noun = phrases(texts)
    assert {"war", "river", "village", "new hampshire"} <= set(terms)
    assert not {
        "hampshire",
        "new",
        "fought",
        "located",
        "near",
        "war fought",
        "haven't",
        "noooo",
        "wow",
    } & set(terms)
    war = list(terms).index("war")
    assert counts[:, war].toarray().ravel().tolist() == [2, 0, 1, 0, 0, 1]
    assert noun[war] > 0.6


def test_phrases_hold_together_and_do_not_cross_a_comma():
    texts = ["The red fox, the grey wolf and the den of the red fox's cubs."] * 3 + ["a rare lynx"]
    terms, counts, _ = phrases(texts)
    assert {"red fox", "grey wolf"} <= set(terms)
    assert not {"fox", "fox grey", "the", "the red", "rare", "lynx", "fox's"} & set(terms)
    assert counts[:, list(terms).index("red fox")].toarray().ravel().tolist() == [2, 2, 2, 0]


def test_a_title_is_a_name_whatever_its_words():
    texts = ["They were running to it."] * 4
    assert "running" not in phrases(texts, min_noun=0.5)[0]
    assert "running" in phrases(texts, min_noun=0.5, titles={"running"})[0]


def test_no_term_is_an_error_that_says_what_to_do(planted):
    _, train, vectors, independent = planted
    rows, _ = top_texts(train.table, 40)
    with pytest.raises(ValueError, match="lower min_texts"):
        candidate_terms(TEXTS, rows, vectors, independent, min_texts=1000)


def test_sources_against_a_loop(planted):
    sae, train, vectors, independent = planted
    sets = draw_detection_set(train.table, train.embeddings)
    rows = top_texts(train.table, 20)[0][sets.features]
    pool = candidate_terms(TEXTS, rows, vectors, independent)
    j = list(pool.terms).index("otter")
    wanted = sae.pre_acts(torch.from_numpy(vectors(["otter"])))[0, :8].detach()
    np.testing.assert_allclose(self_activation(sae, pool, sets.features)[:, j], wanted, atol=1e-3)
    tf = pool.counts[rows[0]].toarray().sum(0)
    all_tf = np.stack([pool.counts[r].toarray().sum(0) for r in rows])
    wanted = tf / tf.sum() * np.log1p(all_tf.sum(1).mean() / np.maximum(all_tf.sum(0), 1))
    found = ctfidf(rows, pool)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-5)
    assert best_of_source(found, pool, sets.features).terms[0][0] == "otter"


def test_evidence_is_what_the_sum_of_vectors_shows(planted):
    """The worth of one term and of two, against sklearn and numpy on the same texts."""
    from sklearn.metrics import roc_auc_score

    _, train, vectors, independent = planted
    sets = draw_detection_set(train.table, train.embeddings, n_random=60, n_near=30)
    rows = top_texts(train.table, 20)[0][sets.features]
    pool = candidate_terms(TEXTS, rows, vectors, independent)
    ids = np.tile(np.arange(4), (8, 1))
    x = independent(TEXTS)
    weights = Weights(
        far=(0.3, 0.2), near=(0.1, 0.4), cosine=0.5, held=0, noun=0, each=0.2, rarest=0.1, common=0.3
    )
    evidence = Evidence(pool, ids, sets, rows, (train.embeddings, x), weights)
    one, two = evidence([]), evidence([torch.zeros(8, dtype=torch.long)])
    for f, columns, found in ((0, [1], one), (3, [2], one), (0, [0, 1], two), (5, [0, 3], two)):
        wanted, half = 0.0, sets.active[f][sets.active[f] >= 0]
        half = half[: (sets.active.shape[1] + 1) // 2]
        for terms, texts, far, near in zip(
            (pool.vectors, pool.independent), (train.embeddings, x), weights.far, weights.near, strict=True
        ):
            v = terms[ids[f, columns]].sum(0)
            for negatives, weight in ((sets.random[f], far), (sets.near[f], near)):
                both = np.r_[half, negatives[negatives >= 0]]
                wanted += weight * roc_auc_score(np.arange(len(both)) < len(half), (texts @ v)[both].round(5))
        wanted += 0.5 * (x[rows[f]] @ v / np.linalg.norm(v)).mean()
        own = rows[f][rows[f] >= 0]
        stand_in = [np.mean([pool.terms[i] in TEXTS[r].split() for r in own]) for i in ids[f, columns]]
        share = [np.mean([pool.terms[i] in t.split() for t in TEXTS]) for i in ids[f, columns]]
        wanted += 0.2 * min(stand_in) + 0.1 * np.log(min(share))
        wanted -= 0.3 * max(0, np.log(min(share) / 0.03))
        assert abs(float(found[f, columns[-1]]) - wanted) < 0.01


def test_planted_concepts_are_named_once_and_by_one_word(planted, words):
    sae, train, vectors, independent = planted
    words.seen.clear()
    names = choose(sae, train, vectors, independent)
    assert list(names.index) == list(range(8))
    assert names.label.tolist() == [*ANIMALS, *PLACES]
    assert choose(sae, train, vectors, independent).equals(names)
    with pytest.raises(ValueError, match="no feature is active"):
        choose(sae, train._replace(table=sparse.csr_matrix(train.table.shape)), vectors, independent)
    with pytest.raises(ValueError, match="one corpus"):
        choose(sae, train._replace(texts=TEXTS[:5]), vectors, independent)


def test_a_further_term_must_add_fit_and_not_repeat():
    """Three candidates: the second completes the first, the third is the first once more."""

    class Fixed:
        weights = Weights(gain=0.1, share=0)
        close = torch.ones(1, 3)
        clash = torch.tensor([[[True, False, True], [False, True, False], [True, False, True]]])

        def __init__(self, more):
            self.more = more

        def keep(self, columns):
            assert columns.tolist() == [[0, 1, 2]]  # best first

        def __call__(self, chosen):
            return torch.tensor([[9.0, 1 + self.more, 9.0]] if chosen else [[1.0, 0.9, 0.5]])

    assert choose_terms(Fixed(0.2)).tolist() == [[0, 1, -1]]
    assert choose_terms(Fixed(0.05)).tolist() == [[0, -1, -1]]


def test_two_topics_get_a_name_each(planted):
    sae, train, vectors, independent = planted
    both = sparse.csr_matrix(train.table[:, [0]] + train.table[:, [6]])
    rows = [[i for i, t in enumerate(TEXTS) if w in t][:6] for w in ("otter", "village")]
    import pandas as pd

    parts = pd.Series([rows], index=pd.Index([0], name="feature"))
    found = name_parts(parts, sae, train._replace(table=both), vectors, independent)
    assert found.label[0] == "otter · village" and found.terms[0] == ["otter", "village"]
