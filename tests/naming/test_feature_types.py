"""Kinds of features, each planted: an encoder that sees first letters, one that sees words, and SAEs with known directions."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch

from saelib.activations import EncodedTexts, activation_table
from saelib.naming.feature_types import coherence, feature_types, two_topics
from saelib.naming.spelling import abbreviations, carrying_words, numbers, word_notes
from saelib.sae import make_sae

LETTERS = np.array(list("abcdefghijklmnopqrtuvwxyz"))  # no s: only planted words begin with st-
STOPS = {"he", "was", "the", "it"}


def direction(key, d_in=512):
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
    v = np.random.default_rng(seed).normal(size=d_in)
    return v / np.linalg.norm(v)


def encoder(key_of):
    """Texts → unit sums of one direction per word; `key_of` says what of a word is seen, "" nothing."""

    def encode(texts):
        keys = [[k for w in t.lower().split() if (k := key_of(w))] for t in texts]
        x = np.array([sum((direction(k) for k in ks), 1e-9 * direction("")) for ks in keys])
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    return encode


see_letters, see_words = encoder(lambda w: w[:2]), encoder(lambda w: w)
see_meaning = encoder(lambda w: "" if w in STOPS or w[0].isdigit() else w)


def invented(n, start="", seed=0):
    rng = np.random.default_rng(seed)
    return [start + "".join(rng.choice(LETTERS, 6)) for _ in range(n)]


def plant(encode, keys, texts):
    """An SAE whose feature i is the sum of directions of keys[i], k 1, and what it makes of the texts."""
    sae = make_sae("topk", 512, len(keys) + 1, 1)
    with torch.no_grad():
        sae.W_enc.zero_()
        for i, key in enumerate(keys):
            sae.W_enc[:, i] = torch.from_numpy(sum(direction(k) for k in key) / len(key) ** 0.5)
        sae.b_enc[-1] = 0.2  # the last feature takes every text without a planted direction
    x = encode(texts)
    return sae, EncodedTexts(activation_table(sae, x), texts, x, np.zeros(len(texts)))


def kinds(encode, independent, keys, texts, **options):
    sae, train = plant(encode, keys, texts)
    names = pd.DataFrame({"label": "x"}, index=pd.Index(range(len(keys)), name="feature"))
    return feature_types(sae, encode, independent, train, names, **options)


def sentences(n, extra=(), seed=1, length=5):
    words = invented(n * length, seed=seed)
    return [" ".join([*words[length * i : length * (i + 1)], *extra[i : i + 1]]) for i in range(n)]


def test_words_with_the_same_first_letters_and_no_meaning_in_common_are_spelling():
    texts = sentences(30, invented(30, "st")) + sentences(400, seed=2)
    found = kinds(see_letters, see_meaning, [["st"]], texts)
    assert found.loc[0, ["kind", "note"]].tolist() == ["spelling", "words beginning with st-"]
    assert found.coherence[0] < 0.2


def test_a_feature_that_the_independent_encoder_finds_coherent_is_not_asked():
    texts = sentences(30, [f"heron heron heron {w}" for w in invented(30, "st")]) + sentences(400, seed=2)
    assert kinds(see_letters, see_meaning, [["st"]], texts).kind[0] == "concept"
    assert kinds(see_letters, see_meaning, [["st"]], texts, coherent=1.0).kind[0] == "spelling"


def note_of(words, independent=see_meaning):
    """What is said of carrying words, among a thousand others."""
    return word_notes({0: [*sentences(200), *words]}, {0: [(w, 1.0) for w in words]}, independent).get(0)


def test_letters_count_only_in_most_texts_over_stems_and_without_a_common_meaning():
    planted = invented(12, "st")
    assert note_of(planted) == ("spelling", "words beginning with st-")
    assert note_of([w[::-1] for w in planted]) == ("spelling", "words ending in -ts")
    assert note_of(planted, encoder(lambda w: "animal")) is None
    assert note_of(["connect", "connected", "connecting", "connects", "connection", "connections"]) is None
    assert note_of(["heron"] * 7 + planted[:5]) is None  # one word in most texts, a few alike beside it
    assert note_of(["heron"] * 2 + planted[:5]) is not None


def test_a_shared_word_is_a_concept_and_words_that_share_nothing_are_not_called_spelling():
    animals = invented(5, seed=5)
    texts = (
        sentences(30, ["heron"] * 30, length=2)
        + sentences(30, animals * 6, seed=3, length=2)
        + sentences(400, seed=2)
    )
    found = kinds(see_words, see_meaning, [["heron"], animals], texts)
    assert found.kind.tolist() == ["concept", "concept"]
    assert found.coherence[0] > 0.37 > found.coherence[1]  # the second was asked, and had nothing to say


def test_numbers_are_form_with_their_range():
    tens = [str(20 + i % 3) for i in range(30)]
    texts = sentences(30, tens) + sentences(400, seed=2)
    see_tens = encoder(lambda w: w[0] + "?" if w[0].isdigit() else w)
    found = kinds(see_tens, see_meaning, [["2?"]], texts)
    assert found.loc[0, ["kind", "note"]].tolist() == ["form", "numbers between 20 and 22"]


def test_an_opening_is_form_where_it_tells_texts_apart_better_than_their_meaning():
    plain = sentences(430, length=3)
    texts = [f"he was {t}" for t in plain[:30]] + plain[30:]
    found = kinds(see_words, see_meaning, [["he", "was"]], texts)
    assert found.loc[0, ["kind", "note"]].tolist() == ["form", "texts that open with “he was”"]
    meant = [f"he was {t} heron heron" for t in plain[:30]] + plain[30:]
    assert kinds(see_words, see_meaning, [["he", "was"]], meant, coherent=1.0).kind[0] == "concept"


def test_two_topics_come_back_as_their_rows_and_one_topic_with_two_sides_does_not():
    boxing, bridge = ["boxing ring glove"] * 12, ["bridge river span"] * 9
    texts = [f"{t} {s}" for t, s in zip(boxing + bridge, sentences(21, length=1), strict=True)] + sentences(
        400, seed=2
    )
    found = kinds(see_words, see_meaning, [["boxing", "bridge"]], texts)
    assert found.kind[0] == "two topics" and found.note[0] == ""
    larger, smaller = map(set, found.parts[0])
    assert larger <= set(range(12)) and smaller <= set(range(12, 21))
    assert len(larger) + len(smaller) == 20
    sides = see_words([f"{t} sport sport sport" for t in boxing + bridge])
    assert two_topics(np.arange(21), sides, sides) == []
    other = see_words(boxing + bridge)
    assert len(two_topics(np.arange(21), other, other)) == 2
    assert two_topics(np.arange(21), other, sides) == []  # both encoders have to see it


def test_dense_goes_before_everything():
    texts = sentences(60, invented(60, "st")) + sentences(400, seed=2)
    found = kinds(see_letters, see_meaning, [["st"]], texts)
    assert found.loc[0, ["kind", "note"]].tolist() == ["dense", "active on 13% of the texts"]


def test_the_carrying_word_alone_is_the_one_whose_loss_costs_most():
    planted = invented(20, "st")
    texts = sentences(20, planted)
    sae, _ = plant(see_letters, [["st"]], texts)
    found = carrying_words(sae, see_letters, {0: texts, 1: []})
    assert [w for w, _ in found[0]] == planted and found[1] == []
    for text, (word, answer) in zip(texts, found[0], strict=True):
        without = [" ".join(w for w in text.split() if w != left) for left in text.split()]
        after = sae.pre_acts(torch.from_numpy(see_letters(without)))[:, 0]
        assert text.split()[int(after.argmin())] == word
        assert answer == pytest.approx(
            float(sae.pre_acts(torch.from_numpy(see_letters([word])))[0, 0].detach())
        )


def test_a_feature_with_few_or_no_texts_is_a_concept():
    found = kinds(
        see_letters,
        see_meaning,
        [["st"], ["nowhere"]],
        sentences(3, invented(3, "st")) + sentences(400, seed=2),
    )
    assert found.kind.tolist() == ["concept", "concept"] and found.parts.tolist() == [[], []]


def test_coherence_against_a_loop():
    x = np.random.default_rng(0).normal(size=(4, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rest = [x.sum(0) - v for v in x]
    wanted = np.mean([v @ r / np.linalg.norm(r) for v, r in zip(x, rest, strict=True)])
    assert coherence(np.concatenate([x, np.zeros((3, 8))])[None])[0] == pytest.approx(wanted)


@pytest.mark.parametrize(("words", "wanted"), [
    (["1914", "1918", "mid-1940s", "1939", "1945", "war"], "years between 1914 and 1945"),
    (["23Na", "22", "28", "171", "26th", "19"], "numbers between 19 and 28"),
    (["3", "1,000", "50", "90,000", "7"], "numbers"),
    (["3", "one", "two", "three", "four"], ""),
    (["12", "13"], ""),
])  # fmt: skip
def test_numbers(words, wanted):
    assert numbers(words) == wanted


def test_abbreviations():
    assert abbreviations(["CCP", "CCD", "CCP", "PCD", "cells"]) == "abbreviations such as CCP, CCD, PCD"
    assert abbreviations(["CCP", "CCP", "CCP", "CCP", "CCP"]) == ""  # one of them: a name
    assert abbreviations(["CCP", "CCD", "PCD", "party", "cells"]) == ""
