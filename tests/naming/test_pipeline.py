"""The whole way from texts to judged names, labellers side by side, and corpora that are nothing like Wikipedia."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import f1_score, roc_auc_score

from saelib.activations import EncodedTexts
from saelib.encoder import EmbeddingCache
from saelib.naming import comparing
from saelib.naming.lexicon import Lexicon
from saelib.naming.pipeline import as_shown, choose, name_features
from saelib.sae import make_sae

CONCEPTS = ["otter", "heron", "badger", "viper", "glacier", "harbour", "violin", "lantern"]


@pytest.fixture
def planted(words):
    """Training and held-out texts, each feature active where its concept stands; the last is silent on held-out ones."""
    places = ("river", "meadow", "street")
    texts = [f"the {c} near the {p} on day {i}" for i in range(12) for c in CONCEPTS for p in places]
    x, rng = words.encode(texts), np.random.default_rng(0)
    dense = np.array([[c in t for c in CONCEPTS] for t in texts], np.float32) * (
        1 + rng.random((len(texts), 8))
    )
    sae = make_sae("topk", 48, 8, 2)
    sae.fit_normalizer(torch.from_numpy(x))
    where = np.random.default_rng(1).random(len(texts)) < 0.5
    silent = dense.copy()
    silent[:, 7] = 0

    def part(rows, dense):
        chosen = [texts[i] for i in np.flatnonzero(rows)]
        table = sparse.csr_matrix(dense[rows].astype(np.float32))
        return EncodedTexts(table, chosen, x[rows], np.array(["all"] * rows.sum()))

    return sae, part(where, dense), part(~where, silent), EmbeddingCache(words.encode)


def test_name_features_end_to_end(planted, words):
    sae, train, test, vectors = planted
    names = name_features(sae, train, test, vectors, independent=words.encode, second=words.encode)
    assert names.label.tolist() == CONCEPTS
    live = names.iloc[:7]
    assert (live.auroc > 0.95).all() and (live.ap > 0.9).all() and (live.f1 == 1).all()
    assert np.allclose(live.auroc_second, live.auroc) and np.allclose(live.ap_independent, live.ap, atol=0.05)
    assert (live.low < live.auroc).all() and (live.auroc <= live.high).all()
    assert np.isnan(names.auroc[7]) and np.isnan(names.ap[7]) and np.isnan(names.term_scores[7]).all()
    assert [len(t) == len(s) for t, s in zip(names.terms, names.term_scores, strict=True)] == [True] * 8
    assert names.trust.between(0, 1).all() and (as_shown(names.assign(shown=False)) == "unnamed").all()
    columns = {
        "kind",
        "note",
        "parts",
        "trust",
        "shown",
        "density",
        "top_rows",
        "n",
        "auroc_centroid",
        "ap_centroid",
    }
    assert columns | {"auroc_near", "auroc_bm25", "ap_bm25", "auroc_lsa", "ap_lsa", "ap_q1", "ap_q4"} <= set(
        names
    )


def test_a_note_is_shown_in_the_names_place():
    names = pd.DataFrame({
        "label": ["gnss, gauss", "birds", "vat", "open"], "terms": [["gnss", "gauss"], ["birds"], ["vat"], ["open"]],
        "kind": ["spelling", "concept", "concept", "form"], "note": ["words beginning with g-", "", "", "texts that open"],
        "shown": [True, True, False, True],
    })  # fmt: skip
    assert as_shown(names).tolist() == ["words beginning with g-", "birds", "unnamed", "texts that open"]


def test_labellers_side_by_side(planted, words):
    sae, train, test, vectors = planted
    right = pd.DataFrame({"label": CONCEPTS, "terms": [[c] for c in CONCEPTS]}).rename_axis("feature")
    half = right.assign(label=right.label.where(right.index % 2 == 0, "river"))
    half["terms"] = [[t] for t in half.label]
    judged = comparing.judge_all(
        {"half": half, "right": right}, sae, train, test, vectors, independent=words.encode
    )
    without_words = ["mean of the top texts", "decoder row", "encoder row"]
    assert list(judged) == ["half", "right", "nearest feature's label", "shuffled labels", *without_words]
    table = comparing.summary(judged)
    assert table.ap["right"] > 0.9 > table.ap["half"] > table.ap["shuffled labels"]
    assert {"auroc", "auroc_near", "ap", "ap_bm25", "ap_lsa", "auroc_q1", "f1"} <= set(table)

    paired = comparing.paired_difference(judged["right"], judged["half"])
    found = paired.loc["ap"]
    assert found.n == 7 and np.isclose(found.difference, (judged["right"].ap - judged["half"].ap).mean())
    assert 0 <= found.low < found.difference < found.high and found.wins == (4 * 0.5 + 3) / 7
    clustered = comparing.paired_difference(
        judged["right"], judged["half"], ["ap"], clusters=pd.Series(right.index % 2, index=right.index)
    )
    assert (
        clustered.high.ap - clustered.low.ap > found.high - found.low
    )  # two clusters that disagree: little is known


def test_collision_counts_shared_names_and_ways_back(planted, words):
    _, _, test, vectors = planted
    names = pd.DataFrame({"label": CONCEPTS}).rename_axis("feature")
    found = comparing.collision(names, test.table, vectors, test.embeddings)
    assert found.unique_names == 1 and found.top_1 == 1 and found.mrr == 1 and found.n == 7
    names.loc[:3, "label"] = "otter"
    found = comparing.collision(names, test.table, vectors, test.embeddings)
    assert (
        found.unique_names == pytest.approx(3 / 7) and found.top_1 == pytest.approx(4 / 7) and found.mrr < 0.9
    )


def test_stability_is_one_with_itself_and_low_with_another():
    sae, other = make_sae("topk", 16, 12, 2, seed=0), make_sae("topk", 16, 12, 2, seed=1)
    names = pd.DataFrame({"terms": [[f"t{i}"] for i in range(12)]}).rename_axis("feature")
    vectors = np.eye(12, dtype=np.float32)
    same = comparing.stability(sae, names, vectors, sae, names, vectors)
    assert (same.match == same.index).all() and same.shared.all() and np.allclose(same.cosine, 1, atol=1e-5)
    assert comparing.stability(sae, names, vectors, other, names, vectors).cosine.mean() < 0.8


def test_known_concepts_are_recovered_and_named(words):
    concepts = np.array(["fish", "bird", "stone"] * 40)
    features = np.array(["stone", "none", "bird", "fish"])
    table = sparse.csr_matrix((concepts[:, None] == features[None]).astype(np.float32))
    table[0, 2] = 5.0  # one mistake
    got = comparing.concept_recovery(table, concepts, table, concepts)
    assert got.feature.to_dict() == {"bird": 2, "fish": 3, "stone": 0}
    assert got.f1["fish"] == 1 and got.auroc["stone"] == 1 and (got.n == 40).all()
    acts = table[:, 2].toarray().ravel()
    assert abs(got.f1["bird"] - f1_score(concepts == "bird", acts > 0)) < 1e-9
    assert abs(got.auroc["bird"] - roc_auc_score(concepts == "bird", acts)) < 1e-9
    names = pd.DataFrame({"label": ["stones", "x", "feather"], "terms": [[], [], []]}, index=[0, 1, 2])
    said = comparing.says_concept(got, names, words.encode, Lexicon(["fish bird stone feather x"]))
    assert said.says.to_dict() == {"bird": False, "fish": False, "stone": True}
    with pytest.raises(ValueError, match="lower min_texts"):
        comparing.concept_recovery(table, concepts, table, concepts, min_texts=100)


def dialogue(rng):
    """Lines of television talk: short, contracted, full of interjections; a topic in every other line."""
    opening = [
        "Oh, yeah,",
        "Well, you know,",
        "Hey!",
        "I don't know,",
        "Oy,",
        "You've got to be kidding.",
        "No, no, noooo!",
    ]
    topics = [["wedding", "bride", "groom", "church"], ["coffee", "waitress", "cups", "kitchen"], ["lawyer", "judge", "court", "trial"],
              ["baby", "crib", "diapers", "nurse"]]  # fmt: skip
    lines = []
    for _ in range(400):
        words = rng.choice(topics[rng.integers(4)], 2, replace=False)
        said = (
            f"I haven't seen the {words[0]} or the {words[1]}."
            if rng.random() < 0.5
            else "You haven't told me!"
        )
        lines.append(f"{rng.choice(opening)} {said}")
    return lines


def posts(rng):
    """Posts: handles, hashtags, links, emoji, numbers, lower case, half of them without a topic."""
    topics = [
        ["football", "goal", "league"],
        ["phone", "battery", "screen"],
        ["pizza", "cheese", "oven"],
        ["train", "delay", "station"],
    ]
    lines = []
    for i in range(400):
        a, b = rng.choice(topics[rng.integers(4)], 2, replace=False)
        said = f"the {a} and the {b} #{a} 😍" if rng.random() < 0.6 else "lol omg 😂😂 !!! so tiredddd"
        lines.append(f"@user{i % 9} {said} http://t.co/{i} {rng.integers(100)}")
    return lines


@pytest.mark.parametrize("corpus", [dialogue, posts])
def test_strangers_corpora_neither_crash_nor_show_all_or_nothing(corpus, words):
    """A small SAE on 400 lines: names hold no contraction, interjection or handle, and trust differs between them."""
    texts = corpus(np.random.default_rng(0))
    x, sae = words.encode(texts), make_sae("topk", 48, 24, 3)
    sae.fit_normalizer(torch.from_numpy(x))
    parts = [np.arange(len(texts)) % 4 != 0, np.arange(len(texts)) % 4 == 0]
    from saelib.activations import activation_table

    train, test = (
        EncodedTexts(
            activation_table(sae, x, np.flatnonzero(p)), [t for t, k in zip(texts, p, strict=True) if k], x[p],
            np.array(["all"] * p.sum()),
        )
        for p in parts
    )  # fmt: skip
    names = name_features(sae, train, test, EmbeddingCache(words.encode), independent=None)
    terms = {t for ts in names.terms for t in ts}
    assert not {
        t for t in terms if "'" in t or t in ("oy", "oh", "yeah", "hey", "noooo", "lol", "tiredddd", "haven")
    }
    assert (names.terms.str.len() >= 1).all() and names.trust.nunique() > 1
    assert 0 < names.shown.mean() < 1


def test_tables_of_another_sae_and_no_held_out_texts_are_refused(planted, words):
    sae, train, test, vectors = planted
    none = EncodedTexts(test.table[:0], [], test.embeddings[:0], test.domains[:0])
    wrong = [(make_sae("topk", 48, n, 2), train, test, f"the SAE {n}") for n in (7, 9)]
    wrong += [(sae, train, test._replace(table=test.table[:, :4]), "has 4 features")]
    wrong += [(sae, train, test._replace(texts=test.texts[:3]), "of one corpus")]
    wrong += [(sae, train, none, "0 held-out texts")]
    for *given, said in wrong:
        with pytest.raises(ValueError, match=said):
            name_features(*given, vectors, independent=words.encode)
    with pytest.raises(ValueError, match="or NaN"):
        name_features(sae, train, test, vectors, independent=lambda s: np.full((len(s), 2), np.nan))
    named = choose(sae, train._replace(titles=[None, np.nan] * len(train.texts)), vectors, words.encode)
    assert named.label.tolist() == CONCEPTS


@pytest.mark.parametrize("shown", ["False", 0.5, 1])
def test_a_verdict_is_true_or_false(shown):
    names = pd.DataFrame({"label": ["a", "b"], "terms": [["a"], ["b"]], "kind": "concept", "note": ""})
    assert as_shown(names.assign(shown=[True, np.nan])).tolist() == ["a", "unnamed"]
    with pytest.raises(ValueError, match="True or False"):
        as_shown(names.assign(shown=shown))


def test_nothing_to_compare_is_said(planted, words):
    sae, train, test, vectors = planted
    with pytest.raises(ValueError, match="no names to judge"):
        comparing.judge_all({}, sae, train, test, vectors)
    scores = pd.DataFrame({"auroc": [0.5, 1.0]})
    with pytest.raises(ValueError, match="no feature in common"):
        comparing.paired_difference(scores, scores.set_axis([5, 6]))
    table, concepts = sparse.csr_matrix(np.eye(2)[np.arange(40) % 2]), ["fish", None] * 20
    assert comparing.concept_recovery(table, concepts, table, concepts).f1.tolist() == [1.0]
