"""The metrics against sklearn, scipy and hand counts; the judges against planted answers; metrics that must fail."""

import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from saelib.encoder import load_independent, lsa_space
from saelib.naming.lexicon import Lexicon
from saelib.naming.scoring import (
    auroc,
    auroc_interval,
    average_precision,
    draw_detection_set,
    metric_sanity,
    products,
    score_judge,
    score_names,
    spearman,
)


@pytest.fixture
def random_case():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    dense = np.maximum(x[:, :6] - 0.2, 0)
    dense[:, 5] = 0
    return x, dense, sparse.csr_matrix(dense)


def test_detection_set_holds_active_inactive_and_near_texts(random_case):
    x, dense, table = random_case
    sets = draw_detection_set(table, x, n_active=20, n_random=50, n_near=15)
    assert sets.features.tolist() == [0, 1, 2, 3, 4]
    for i, f in enumerate(sets.features):
        active = sets.active[i][sets.active[i] >= 0]
        assert (np.diff(dense[active, f]) <= 0).all() and dense[active[0], f] == dense[:, f].max()
        for rows in (sets.random[i], sets.near[i]):
            assert (rows >= 0).all() and len(set(rows)) == len(rows) and (dense[rows, f] == 0).all()
        off = np.flatnonzero(dense[:, f] == 0)
        closest = (x[active[:10]] @ x[off].T).max(0)
        assert set(sets.near[i]) == set(off[np.argsort(-closest)[:15]])


def test_detection_set_of_one_feature_and_of_none():
    x = np.eye(4, dtype=np.float32)
    assert not len(draw_detection_set(sparse.csr_matrix((4, 3), dtype=np.float32), x).features)
    one = draw_detection_set(sparse.csr_matrix(np.array([[1.0], [0], [0], [0]], np.float32)), x)
    assert one.features.tolist() == [0] and set(one.near[0][one.near[0] >= 0]) == {1, 2, 3}
    assert set(one.random[0][one.random[0] >= 0]) == {1, 2, 3}


def test_auroc_and_average_precision_equal_scipy_and_sklearn_with_ties_and_gaps():
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(0.5, 1, (7, 12)).round(1), rng.normal(0, 1, (7, 40)).round(1)
    positives[0, 5:], negatives[1, 9:], positives[2] = np.nan, np.nan, np.nan
    found, precision = (
        m(torch.from_numpy(positives), torch.from_numpy(negatives)) for m in (auroc, average_precision)
    )
    u = mannwhitneyu(positives, negatives, axis=1, nan_policy="omit").statistic
    n = (~np.isnan(positives)).sum(1) * (~np.isnan(negatives)).sum(1)
    np.testing.assert_allclose(found, u / np.where(n, n, np.nan), atol=1e-6)
    for i in (0, 1, 3, 6):
        p, q = (row[~np.isnan(row)] for row in (positives[i], negatives[i]))
        wanted = average_precision_score(np.r_[np.ones(len(p)), np.zeros(len(q))], np.r_[p, q])
        assert abs(float(precision[i]) - wanted) < 1e-6
    assert np.isnan(precision[2])


def test_score_judge_by_quartile_against_sklearn(random_case):
    x, dense, table = random_case
    sets = draw_detection_set(table, x, n_random=0)
    of_names = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    got, scores = score_judge((of_names, x), sets, table, full=True), of_names @ x.T
    for f in range(5):
        order = np.argsort(-dense[:, f], kind="stable")[: (dense[:, f] > 0).sum()]
        off = np.flatnonzero(dense[:, f] == 0)

        def wanted(metric, rows, negatives=off, f=f):
            return metric([1] * len(rows) + [0] * len(negatives), scores[f, np.r_[rows, negatives]])

        rank = np.arange(len(order)) / len(order)
        second = order[(rank >= 0.25) & (rank < 0.5)]
        assert abs(got.auroc[f] - wanted(roc_auc_score, order[: (len(order) + 1) // 2])) < 1e-6
        assert abs(got.ap[f] - wanted(average_precision_score, order)) < 1e-6
        assert abs(got.auroc_q2[f] - wanted(roc_auc_score, second)) < 1e-6
        assert abs(got.ap_q2[f] - wanted(average_precision_score, second)) < 1e-6
        assert abs(got.spearman[f] - spearmanr(scores[f], dense[:, f]).statistic) < 1e-6
        near = sets.near[f][sets.near[f] >= 0]
        assert abs(got.auroc_near[f] - wanted(roc_auc_score, order[: (len(order) + 1) // 2], near)) < 1e-6


def test_spearman_of_a_silent_feature_is_nan():
    assert np.isnan(spearman(np.random.default_rng(0).random((1, 20)), np.zeros((1, 20))))[0]


def test_interval_has_a_width_at_separation_and_covers():
    low, high = auroc_interval(np.array([1.0, 1.0, np.nan]), np.array([5, 50, 5]), np.array([1000] * 3))
    assert high[0] == 1 and 0.4 < low[0] < 0.9 < low[1] < 1 and np.isnan(low[2])
    rng, inside, truth = np.random.default_rng(0), 0, 0.8413447  # two normals, sqrt(2) apart
    for _ in range(300):
        p, q = rng.normal(2**0.5, 1, 15), rng.normal(0, 1, 100)
        low, high = auroc_interval(np.array([(p[:, None] > q).mean()]), np.array([15]), np.array([100]))
        inside += low[0] <= truth <= high[0]
    assert 0.92 <= inside / 300 <= 1


def topics_case():
    rng = np.random.default_rng(0)
    vocabulary = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(20) for j in range(20)]
    topics = rng.integers(0, 40, 3000)
    texts = [" ".join([vocabulary[t * 10 + i] for i in rng.integers(0, 10, 5)]) for t in topics]
    table = sparse.csr_matrix(
        (topics[:, None] == np.arange(40)[None]).astype(np.float32) * rng.random((3000, 40))
    )
    x = np.eye(40, dtype=np.float32)[topics] + 0.3 * rng.normal(size=(3000, 40)).astype(np.float32)
    terms = [[vocabulary[t * 10 + i] for i in range(3)] for t in range(40)]
    names = pd.DataFrame({"label": [", ".join(t) for t in terms], "terms": terms}).rename_axis("feature")
    return texts, table, x / np.linalg.norm(x, axis=1, keepdims=True), names


def test_random_names_score_chance_under_every_judge():
    texts, table, x, right = topics_case()
    wrong = right.iloc[np.random.default_rng(0).permutation(40)].set_index(right.index)
    sets, lexicon, space = draw_detection_set(table, x, n_random=0), Lexicon(texts), lsa_space(texts)
    of_texts = space(texts)
    for names, good in ((right, True), (wrong, False)):
        judges = {"bm25": lexicon.bm25(list(names.label)), "lsa": (space(list(names.label)), of_texts)}
        got = score_names(names, judges, sets, table, lexicon)
        if good:
            assert got.auroc.mean() > 0.8 and got.auroc_lsa.mean() > 0.95 and got.precision.mean() > 0.95
            assert got.ap_lsa.mean() > 0.8
        else:
            assert abs(got.auroc.mean() - 0.5) < 0.05 and abs(got.auroc_lsa.mean() - 0.5) < 0.1
            assert got.f1.mean() < 0.1 and got.ap_lsa.mean() < 0.1


def test_metrics_that_can_fail_notice_and_auroc_and_recall_do_not():
    texts, table, x, names = topics_case()
    judge = (np.eye(40, dtype=np.float32), x)
    found = metric_sanity(judge, names.index.to_numpy(), table)
    assert (found.loc[["average precision", "F1"], ["notices_dropped", "notices_added"]] > 0.9).all(axis=None)
    assert found.notices_dropped["AUROC"] < 0.5 and found.notices_dropped["recall"] < 0.6
    assert found.added["average precision"] < 0.7 * found.true["average precision"]


def test_lexicon_bm25_keywords_and_npmi_by_hand():
    texts = [
        "cats chase mice",
        "a cat sleeps",
        "dogs chase cats and cats",
        "the dog barked",
        "mice eat cheese",
    ]
    lexicon = Lexicon(texts)
    score = products(lexicon.bm25(["cat", "dog cheese", "zebra"]))
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


def test_score_names_f1_few_texts_and_errors(random_case):
    x, dense, table = random_case
    texts = [("apple" if a else "pear") + f" tree{i % 7}" for i, a in enumerate(dense[:, 0] > 0)]
    names = pd.DataFrame({"label": ["apple"], "terms": [["apple"]]}, index=pd.Index([0], name="feature"))
    judge = (np.random.default_rng(0).random((1, 16)).astype(np.float32), x)
    sets = draw_detection_set(table, x)
    got = score_names(names, {"encoder": judge}, sets, table, Lexicon(texts))
    assert got.f1[0] == 1 == f1_score(dense[:, 0] > 0, ["apple" in t for t in texts])
    few = score_names(names, {"encoder": judge}, sets, table, Lexicon(texts), min_texts=1000)
    assert few[["auroc", "ap", "low", "f1"]].isna().all(axis=None) and few.n[0] == (dense[:, 0] > 0).sum()
    with pytest.raises(ValueError, match="a row for each name and one for each held-out text"):
        score_names(names, {"encoder": (judge[0], x[:5])}, sets, table)
    with pytest.raises(ValueError, match="has two names"):
        score_names(pd.concat([names, names]), {}, sets, table)
    with pytest.raises(ValueError, match="text, not lists"):
        score_names(names.assign(terms="apple"), {"encoder": judge}, sets, table, Lexicon(texts))


def test_independent_encoder_is_centred_and_falls_back_to_lsa(words, monkeypatch):
    texts = [f"the {a} of the {b}" for a in ("otter", "river", "violin") for b in ("sea", "hill", "town")] * 3
    own = load_independent(texts, words.encode)
    assert np.abs(own(texts).mean(0)).max() < 0.1 and np.allclose(
        np.linalg.norm(own(texts), axis=1), 1, atol=1e-5
    )
    monkeypatch.setitem(sys.modules, "wordllama", None)
    lsa = load_independent(texts)
    assert lsa.name == "lsa" and lsa(["otter"]).shape[0] == 1


def test_wordllama_does_not_make_other_libraries_talk(monkeypatch):
    pytest.importorskip("wordllama")
    for name in [n for n in sys.modules if n.split(".")[0] == "wordllama"]:
        monkeypatch.delitem(sys.modules, name)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    load_independent(["one text", "two texts"])
    assert root.handlers == [] and root.level == logging.WARNING


def test_wordllama_knows_meaning_offline():
    pytest.importorskip("wordllama")
    corpus = ["The cat slept.", "A dog barked.", "Taxes rose.", "The bank lent money."] * 5
    independent = load_independent(corpus)
    assert not independent([""]).any()  # nothing known: no meaning, not the mean's
    v = independent(["kitten", "cat", "money"])
    assert v[0] @ v[1] > v[0] @ v[2] + 0.2
