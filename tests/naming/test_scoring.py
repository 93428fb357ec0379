"""The judges against sklearn, scipy and hand counts; what a label means against planted answers."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, roc_auc_score

from saelib.activations import EncodedTexts
from saelib.naming import feature_types as kinds
from saelib.naming import pipeline as trust
from saelib.naming.candidates import candidate_terms
from saelib.naming.keybert import EmbeddingCache
from saelib.naming.scoring import (
    DetectionSet,
    Lexicon,
    auroc,
    draw_detection_set,
    lsa_space,
    score_labels,
    spearman,
)
from saelib.sae import make_sae


@pytest.fixture
def random_case():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    dense = np.maximum(x[:, :6] - 0.2, 0)
    dense[:, 5] = 0
    return x, dense, sparse.csr_matrix(dense)


def test_exam_holds_active_inactive_and_near_texts(random_case):
    x, dense, table = random_case
    exam = draw_detection_set(table, x, n_active=20, n_random=50, n_near=15)
    assert exam.features.tolist() == [0, 1, 2, 3, 4]
    for i, f in enumerate(exam.features):
        active = exam.active[i][exam.active[i] >= 0]
        assert (
            (np.diff(dense[active, f]) <= 0).all()
            and dense[active[0], f] == dense[:, f].max()
            and dense[active[-1], f] > 0
        )
        for rows in (exam.random[i], exam.near[i]):
            assert (rows >= 0).all() and len(set(rows)) == len(rows) and (dense[rows, f] == 0).all()
        off = np.flatnonzero(dense[:, f] == 0)
        closest = (x[active[:10]] @ x[off].T).max(0)
        assert set(exam.near[i]) == set(off[np.argsort(-closest)[:15]])


def test_auroc_bands_and_interval(random_case):
    x, dense, table = random_case
    exam = draw_detection_set(table, x, n_random=100)
    judge = np.random.default_rng(1).normal(size=(5, 400)).round(1).astype(np.float32)  # rounded: ties
    judge += 0.5 * dense.T[:5]
    got = auroc(judge, exam, exam.random, n_bootstrap=400)
    for i in range(5):
        active, negatives = exam.active[i][exam.active[i] >= 0], exam.random[i]

        def wanted(rows, i=i, negatives=negatives):
            return roc_auc_score([1] * len(rows) + [0] * len(negatives), judge[i, np.r_[rows, negatives]])

        half = active[: (len(active) + 1) // 2]
        assert abs(got.auroc[i] - wanted(half)) < 1e-6 and got.n[i] == len(half)
        rank = np.arange(len(active)) / len(active)
        assert abs(got.band_2[i] - wanted(active[(rank >= 0.25) & (rank < 0.5)])) < 1e-6
        assert got.low[i] < got.auroc[i] < got.high[i]
        spread = np.sqrt(got.auroc[i] * (1 - got.auroc[i]) / len(half))  # a bound on the standard error
        assert got.high[i] - got.low[i] < 4 * spread


def test_random_labels_score_one_half_under_every_judge():
    rng = np.random.default_rng(0)
    vocabulary = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(20) for j in range(20)]
    topics = rng.integers(0, 40, 3000)
    texts = [" ".join([vocabulary[t * 10 + i] for i in rng.integers(0, 10, 5)]) for t in topics]
    table = sparse.csr_matrix(
        (topics[:, None] == np.arange(40)[None]).astype(np.float32) * rng.random((3000, 40)) + 0
    )
    x = np.eye(40, dtype=np.float32)[topics] + 0.3 * rng.normal(size=(3000, 40)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    exam, lexicon, space = draw_detection_set(table, x), Lexicon(texts), lsa_space(texts)
    terms = [[vocabulary[t * 10 + i] for i in range(3)] for t in range(40)]
    right = pd.DataFrame({"label": [", ".join(t) for t in terms], "terms": terms}).rename_axis("feature")
    order = rng.permutation(40)
    wrong = pd.DataFrame(
        {"label": right.label.to_numpy()[order], "terms": right.terms.to_numpy()[order]}
    ).rename_axis("feature")
    for labels, near_to in ((right, 1.0), (wrong, 0.5)):
        judges = {"bm25": lexicon.bm25(list(labels.label)), "lsa": space(list(labels.label)) @ space(texts).T}
        got = score_labels(labels, judges, exam, table, lexicon)
        if near_to == 1.0:
            assert got.auroc.mean() > 0.8 and got.auroc_lsa.mean() > 0.95 and got.precision.mean() > 0.95
        else:
            assert (
                abs(got.auroc.mean() - 0.5) < 0.05
                and abs(got.auroc_lsa.mean() - 0.5) < 0.05
                and got.f1.mean() < 0.1
            )


def test_spearman_equals_scipy_with_zeros(random_case):
    x, dense, table = random_case
    judge = (x @ np.random.default_rng(1).normal(size=(16, 6))).T.astype(np.float32)
    got = spearman(judge, table)
    for f in range(5):
        assert abs(got[f] - spearmanr(judge[f], dense[:, f]).statistic) < 1e-6
    assert np.isnan(got[5])  # never active: no correlation


def test_lexicon_bm25_keywords_and_npmi_by_hand():
    texts = [
        "cats chase mice",
        "a cat sleeps",
        "dogs chase cats and cats",
        "the dog barked",
        "mice eat cheese",
    ]
    lexicon = Lexicon(texts)
    score = lexicon.bm25(["cat", "dog cheese", "zebra"])
    tf, length, mean = np.array([1, 1, 2, 0, 0]), np.array([3, 2, 4, 2, 3]), 14 / 5
    idf = np.log(1 + (5 - 3 + 0.5) / (3 + 0.5))
    np.testing.assert_allclose(
        score[0], idf * tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * length / mean)), rtol=1e-5
    )
    assert (score[1] > 0).tolist() == [False, False, True, True, True] and not score[2].any()
    found = lexicon.contains(pd.Series([["cat"], ["chase cats", "cheese"], ["zebra cat"], []]))
    assert found.tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 1], [0] * 5, [0] * 5]
    npmi = lexicon.npmi(pd.Series([["cat", "chase"], ["cat"], ["cat", "barking"]]))
    wanted = np.log(0.4 / (0.6 * 0.4)) / -np.log(0.4)
    assert abs(npmi[0] - wanted) < 1e-9 and np.isnan(npmi[1]) and npmi[2] < 0
    with pytest.raises(ValueError, match="no word"):
        Lexicon(["the of"])


def test_score_labels_f1_and_errors(random_case):
    x, dense, table = random_case
    texts = [("apple" if a else "pear") + f" tree{i % 7}" for i, a in enumerate(dense[:, 0] > 0)]
    labels = pd.DataFrame({"label": ["apple"], "terms": [["apple"]]}, index=pd.Index([0], name="feature"))
    judge = np.random.default_rng(0).random((1, 400)).astype(np.float32)
    got = score_labels(labels, {"encoder": judge}, draw_detection_set(table, x), table, Lexicon(texts))
    assert got.f1[0] == 1 == f1_score(dense[:, 0] > 0, ["apple" in t for t in texts])
    with pytest.raises(ValueError, match="labels, held-out texts"):
        score_labels(labels, {"encoder": judge[:, :5]}, draw_detection_set(table, x), table)


def test_abstention_keeps_its_promise_and_says_when_it_cannot():
    rng = np.random.default_rng(0)
    score = rng.random(2000)
    good = rng.random(2000) < score
    t = trust.abstention_threshold(score, good, 0.9)
    assert good[score >= t].mean() >= 0.9 and (score >= t).sum() > 200
    lower = np.sort(score[score < t])[-1]
    assert good[score >= lower].mean() < 0.9  # the lowest such
    assert trust.abstention_threshold(score, np.zeros(2000, bool)) == float("inf")
    assert trust.abstention_threshold(np.array([1.0, 1.0]), np.array([True, False]), 0.9) == float(
        "inf"
    )  # ties fall together


def test_spelling_and_format_features_are_found(words):
    starts = ["metaphor", "metallic", "metabolism", "meteor", "metric"]
    texts = [
        f"{starts[i % 5]} river{i % 3} 12345 {i}{i}" if i < 60 else f"quiet river{i % 3} stone"
        for i in range(300)
    ]
    x, vectors = words.encode(texts), EmbeddingCache(words.encode)
    active = np.zeros((300, 2), np.float32)
    active[:60, 0] = 1 + np.arange(60)
    active[60:100, 1] = 1
    table = sparse.csr_matrix(active)
    exam = draw_detection_set(table, x, n_random=100)
    found = kinds.spelling_features(
        exam.features,
        exam.active[:, :20],
        exam.near,
        candidate_terms(texts, vectors),
        sizes=(3,),
        max_corpus=0.3,
    )
    assert found.to_dict() == {0: 'words with "met-"'}
    formats = kinds.format_features(exam, kinds.surface_statistics(texts))
    assert formats.format[0] in ("digits", "long") and formats.format_auroc[0] > 0.95
    scores = pd.DataFrame(
        {
            "auroc": [0.9, 0.6],
            "auroc_near": [0.5, 0.9],
            "auroc_bm25": [0.5, 0.8],
            "auroc_near_bm25": [0.5, 0.95],
        }
    )
    found_kinds = kinds.feature_kinds(scores, pd.Series([0.02, 0.02]), formats, pd.Series(dtype=object))
    assert found_kinds.kind.tolist() == ["format", "words"]
    assert kinds.feature_kinds(scores, pd.Series([0.5, 0.02]), formats, found).kind.tolist() == [
        "dense",
        "words",
    ]


def test_stability_is_one_with_itself_and_low_with_another():
    sae, other = make_sae("topk", 16, 12, 2, seed=0), make_sae("topk", 16, 12, 2, seed=1)
    labels = pd.DataFrame({"terms": [[f"t{i}"] for i in range(12)]}).rename_axis("feature")
    vectors = np.eye(12, dtype=np.float32)
    same = trust.stability(sae, labels, vectors, sae, labels, vectors)
    assert (same.match == same.index).all() and same.shared.all() and np.allclose(same.cosine, 1, atol=1e-5)
    assert trust.stability(sae, labels, vectors, other, labels, vectors).cosine.mean() < 0.8


def test_known_concepts_are_recovered_and_named(words):
    concepts = np.array(["fish", "bird", "stone"] * 40)
    table = sparse.csr_matrix(
        (concepts[:, None] == np.array(["stone", "none", "bird", "fish"])[None]).astype(np.float32)
    )
    table[0, 2] = 5.0  # one mistake
    got = trust.concept_recovery(table, concepts, table, concepts)
    assert got.feature.to_dict() == {"bird": 2, "fish": 3, "stone": 0}
    assert got.f1["fish"] == 1 and got.auroc["stone"] == 1
    answer = f1_score(concepts == "bird", table[:, 2].toarray().ravel() > 0)
    assert abs(got.f1["bird"] - answer) < 1e-9
    assert abs(got.auroc["bird"] - roc_auc_score(concepts == "bird", table[:, 2].toarray().ravel())) < 1e-9
    labels = pd.DataFrame({"label": ["stones", "x", "feather"], "terms": [[], [], []]}, index=[0, 1, 2])
    said = trust.says_concept(got, labels, words.encode, Lexicon(["fish bird stone feather x"]))
    assert said.says.to_dict() == {"bird": False, "fish": False, "stone": True}
    with pytest.raises(ValueError, match="lower min_texts"):
        trust.concept_recovery(table, concepts, table, concepts, min_texts=100)


def test_exam_of_one_feature_and_of_none():
    x = np.eye(4, dtype=np.float32)
    assert isinstance(draw_detection_set(sparse.csr_matrix((4, 3), dtype=np.float32), x), DetectionSet)
    one = draw_detection_set(sparse.csr_matrix(np.array([[1.0], [0], [0], [0]], np.float32)), x)
    assert one.features.tolist() == [0] and set(one.near[0][one.near[0] >= 0]) == {1, 2, 3}
    assert torch.is_tensor(torch.from_numpy(one.active))


def test_name_features_end_to_end(words):
    """Planted concepts are named and shown; a feature that no held-out text activates has no score and still a row."""
    concepts = ["otter", "heron", "badger", "viper", "glacier", "harbour", "violin", "lantern"]
    texts = [
        f"{c} near {p} day{i}" for i in range(12) for c in concepts for p in ("river", "meadow", "street")
    ]
    x = words.encode(texts)
    dense = np.array([[c in t for c in concepts] for t in texts], np.float32) * (
        1 + np.random.default_rng(0).random((len(texts), 8))
    )
    sae = make_sae("topk", 48, 8, 2)
    sae.fit_normalizer(torch.from_numpy(x))
    where = np.random.default_rng(1).random(len(texts)) < 0.5

    def part(rows, dense=dense):
        return EncodedTexts(
            sparse.csr_matrix(dense[rows].astype(np.float32)),
            [texts[i] for i in np.flatnonzero(rows)],
            x[rows],
            np.array(["all"] * rows.sum()),
        )

    silent = dense.copy()
    silent[:, 7] = 0
    names = trust.name_features(sae, part(where), part(~where, silent), EmbeddingCache(words.encode))
    assert list(names.index) == list(range(8))
    for f, c in enumerate(concepts):
        assert c in names.label[f]
    assert (
        (names.auroc[:7] > 0.95).all() and np.isnan(names.auroc[7]) and np.isnan(names.term_scores[7]).all()
    )
    assert names.shown[:7].all() and trust.as_shown(names)[0] == names.label[0]
    assert [len(a) == len(b) for a, b in zip(names.terms, names.term_scores, strict=True)] == [True] * 8
    assert names.low.iloc[:7].le(names.auroc.iloc[:7]).all() and names.attrs["share_good"] >= 0.9
    assert (trust.as_shown(names.assign(shown=False)) == "unnamed").all()
    judged = trust.judge_all(
        {"mine": names},
        sae,
        part(where),
        part(~where, silent),
        EmbeddingCache(words.encode),
        second=words.encode,
    )
    table = trust.summary(judged)
    assert np.allclose(table.auroc_second.iloc[:3], table.auroc.iloc[:3]), (
        "the same encoder, asked as a second judge"
    )
    assert list(table.index) == [
        "mine",
        "nearest feature's label",
        "shuffled labels",
        "mean of the top texts",
    ]
    assert table.auroc["mine"] > 0.95 > table.auroc["shuffled labels"] + 0.2
