"""Scripts, languages and texts that English rules do not fit: whole words, or a sentence that says what to do."""

import re
import unicodedata

import numpy as np
import pytest
from scipy import sparse

from saelib.activations import EncodedTexts
from saelib.corpus import load_corpus
from saelib.encoder import EmbeddingCache
from saelib.naming import comparing
from saelib.naming.candidates import TokenStream
from saelib.naming.keybert import KeyBERTInterpreter
from saelib.naming.language import Language, check_spaced
from saelib.naming.lexicon import Lexicon
from saelib.naming.pipeline import name_features
from saelib.naming.spelling import content_words
from saelib.sae import make_sae

HINDI = "कल हमने दूरबीन और ग्रह पर बात की"
PERSIAN = "ستاره‌ها و سیاره‌ها"
CHINESE = "老师用望远镜来解释彗星的道理，大家都很喜欢这个故事。"


def named(texts, words, dense=None, **settings):
    """Names of two features, the even and the odd texts, on the texts themselves."""
    dense = np.eye(2)[np.arange(len(texts)) % 2] if dense is None else dense
    x, sae = words.encode(texts), make_sae("topk", words.d_in, 2, 1)
    part = EncodedTexts(sparse.csr_matrix(dense.astype(np.float32)), texts, x, np.array(["all"] * len(texts)))
    return name_features(sae, part, part, EmbeddingCache(words.encode), independent=words.encode, **settings)


@pytest.mark.parametrize("text", [HINDI, PERSIAN, "café à côté"])
def test_marks_and_joiners_belong_to_words(text, words):
    whole = set(text.split())
    assert whole <= set(TokenStream([text]).words)
    assert {w for w in whole if len(w) > 1} == set(Lexicon([text]).words.get_feature_names_out())
    assert {w for w in whole if len(w) > 1} <= set(content_words(text))
    label = KeyBERTInterpreter(words.encode).label(sparse.csr_matrix([[1.0]]), [text], words.encode([text]))
    assert set(label.terms[0]) <= whole | {f"{a} {b}" for a in whole for b in whole}


def test_decomposed_texts_are_composed():
    texts = ["Le télescope.", "Du pâté."]
    corpus = load_corpus([unicodedata.normalize("NFD", t) for t in texts])
    assert list(corpus["text"]) == texts


def test_a_script_without_spaces_is_said(words):
    with pytest.raises(ValueError, match="no spaces between words.*jieba"):
        named([CHINESE] * 40, words)
    with pytest.raises(ValueError, match="no spaces between words"):
        KeyBERTInterpreter(words.encode).label(
            sparse.csr_matrix(np.ones((2, 1))), [CHINESE] * 2, words.encode([CHINESE] * 2)
        )
    spaced = ["望远镜 和 彗星", "面条 和 豆腐"] * 20
    assert set(named(spaced, words).label) <= {
        "望远镜",
        "彗星",
        "面条",
        "豆腐",
        "望远镜, 彗星",
        "彗星, 望远镜",
        "面条, 豆腐",
        "豆腐, 面条",
    }


def test_a_tokenizer_says_where_words_end(words):
    """Chinese as it is written, and a tokenizer that knows the words it was made of (jieba's place)."""
    known = ["望远镜", "彗星", "面条", "豆腐", "我们", "昨天", "看见", "吃了", "很多"]
    cut = re.compile("|".join(known)).findall
    texts = [
        "昨天我们看见很多望远镜。",
        "我们昨天吃了很多面条。",
        "我们看见彗星和望远镜。",
        "昨天吃了豆腐和面条。",
    ] * 12
    chinese = Language(frozenset(known[4:]), tokenizer=cut)
    encode = lambda some: words.encode([" ".join(cut(text)) or "无" for text in some])
    table, x, sae = (
        sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(48) % 2]),
        encode(texts),
        make_sae("topk", 48, 2, 1),
    )
    part = EncodedTexts(table, texts, x, np.array(["all"] * 48))
    names = name_features(sae, part, part, EmbeddingCache(encode), independent=encode, language=chinese)
    assert names.terms[0][0] == "望远镜" and names.terms[1][0] == "面条"
    given = {"independent": encode, "language": chinese}
    judged = comparing.judge_all({"ours": names}, sae, part, part, EmbeddingCache(encode), **given)
    assert judged["ours"].ap_bm25.min() > 0.9 > judged["nearest feature's label"].ap_bm25.max()
    keywords = KeyBERTInterpreter(encode, language=chinese).label(table, texts, x)
    assert "望远镜" in keywords.label[0] and "面条" in keywords.label[1]
    assert {w for label in keywords.label for w in re.split(", | ", label)} <= set(known[:4])


def test_stop_words_and_stems_of_a_language(words):
    texts = [f"wir haben noch mehr {w} gesehen" for w in ("Planeten", "Kometen")] * 20
    german = Language(frozenset(["wir", "haben", "noch", "mehr", "gesehen"]), "german")
    assert named(texts, words, language=german).label.tolist() == ["planeten", "kometen"]
    assert {"noch", "haben"} & set(TokenStream(texts).words[TokenStream(texts).content])
    assert Lexicon(["ein Haus", "die Häuser"], german).queries(["haus"])[1].tolist() == [1]
    table, x = sparse.csr_matrix(np.eye(2)[np.arange(40) % 2]), words.encode(texts)
    assert KeyBERTInterpreter(words.encode, language=german).label(table, texts, x).label.tolist() == [
        "planeten",
        "kometen",
    ]


def test_texts_without_words_and_rare_words(words):
    for texts in ([f"{i} {i + 7}" for i in range(120)], ["to be or not to be"] * 120):
        with pytest.raises(ValueError, match="no words but numbers and stop words"):
            named(texts, words)
    tags = [a + b for a in ("oak", "pine", "steel", "linen", "clay", "glass", "brass", "wool", "cedar", "jute") for b in ("lamp", "stool", "bowl", "rug", "chest", "vase", "hook", "shelf", "tray", "bench")]  # fmt: skip
    labels = named(tags, words).terms
    assert all(set(terms) and set(terms) <= set(tags) for terms in labels)


def test_features_that_nothing_tells_apart(words):
    texts = [f"a lamp and a bowl number {i}" for i in range(40)]
    with pytest.raises(ValueError, match="too few held-out texts"):
        named(texts, words, np.ones((40, 2)))
    sae, x = make_sae("topk", words.d_in, 2, 1), words.encode(texts)
    part = EncodedTexts(
        sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(40) % 2]), texts, x, np.array(["all"] * 40)
    )
    everywhere = part._replace(table=sparse.csr_matrix(np.ones((40, 2), np.float32)))
    with pytest.raises(ValueError, match="every active feature is active on all"):
        name_features(sae, everywhere, part, EmbeddingCache(words.encode), independent=words.encode)
    silent = part._replace(table=sparse.csr_matrix((40, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="no feature is active on some of the 40 held-out texts"):
        name_features(sae, part, silent, EmbeddingCache(words.encode), independent=words.encode)


def test_texts_without_a_concept_are_left_out():
    table, concepts = (
        sparse.csr_matrix(np.eye(2)[np.arange(40) % 2]),
        np.array(["fish", None] * 20, dtype=object),
    )
    found = comparing.concept_recovery(table, concepts, table, concepts)
    assert found.index.tolist() == ["fish"] and found.f1.tolist() == [1.0]


@pytest.mark.parametrize("text", ["味道很好，服务周到，推荐大家。", "ﾎﾝﾎｼﾊﾟﾝｻｶﾅ", "𠀀𠀁𠀂𠀃𠀄𠀅𠀆", "ꦲꦤꦕꦫꦏꦲꦤ"])
def test_clauses_are_no_words(text):
    with pytest.raises(ValueError, match="no spaces between words"):
        check_spaced([text] * 20)


@pytest.mark.parametrize(
    "language", ["german", None, Language(stop_words="english"), Language(stemmer="klingon")]
)
def test_what_is_no_language(words, language):
    with pytest.raises(ValueError, match="language_for|stemmer must be"):
        named(["a lamp", "a bowl"] * 20, words, language=language)
    with pytest.raises(ValueError, match="language_for|stemmer must be"):
        KeyBERTInterpreter(words.encode, language=language)
