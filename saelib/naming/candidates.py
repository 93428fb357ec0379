"""Candidates for names: the corpus' own words and phrases that read as the name of something.

The training texts become one stream of tokens. A word, a pair or a triple of neighbours is a *term* when it
stands in enough texts, is whole ("new hampshire", never "hampshire" or "central nervous"), holds together,
and is used like a noun. No tagger is needed: what stands before and after a word all over the corpus tells
a noun ("the war", "war of") from a verb or a participle ("was fought", "fought the"). Which of its terms
suit a feature is asked of two sources, as matrices (n_features, n_terms):

- `self_activation`: what the SAE answers when it is given the term as if it were a text;
- `ctfidf`: class-based TF-IDF of the feature's strongest texts (Grootendorst 2022, arXiv 2203.05794).

Nothing here sees a held-out text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from saelib.encoder import MARKS, Encode
from saelib.naming.language import ENGLISH, Language, as_language, check_spaced, stem
from saelib.naming.lexicon import Lexicon
from saelib.sae import SAE

TOKEN = re.compile(
    rf"'s\b|[^\W\d_](?:(?!'s\b)[\w'\-{MARKS}])*|\d+|[^\w\s{MARKS}]"
)  # punctuation is a token: no phrase runs across it
NO_STOP = set("system systems computer fire bill interest mill mine detail bottom cry move name".split())
LEADS_TO_NOUN = set(
    "the a an of in for by with from between its his her their our my your this these those some all "
    "many most each every into on at and or such other as through against within 's about using "
    "including".split()
)
LEADS_TO_VERB = set(
    "is are was were be been being has have had to not can could may might will would should must do "
    "does did he she it they we i you who which that also often usually sometimes commonly generally "
    "then never always".split()
)
DETERMINER = set("the a an its his her their this these those my your our it them him us me that".split())
NO_NAMES = set(
    "ah aha ahem aw boo bye duh eh er gee ha hah haha hello hey hi hm hmm huh hurray lol mm mmm nah "
    "nope oh oi ok okay oops ouch ow oy phew psst ugh uh um whoa wow yeah yep yo yuck gonna wanna "
    "gotta kinda dunno near like just really known called named used based including various several "
    "different certain particular et al ie eg etc".split()
)
CONTRACTION = re.compile(r"(n't|'ve|'re|'ll|'d|'m|s'|in')$|([^i])\2\2")  # or a letter thrice: "noooo"


@dataclass(frozen=True)
class CandidateTerms:
    """Candidate terms of a corpus.

    Attributes:
        terms: n_terms strings. counts: (n_texts, n_terms) CSR, how often each stands in each text.
        noun: (n_terms,) in 0..1, how much each is used like the head of a noun phrase.
        rarest: (n_terms,) log of the share of texts that hold each one's rarest word.
        vectors, independent: (n_terms, d) unit norm, by the encoder and by the independent one.
        stems: (n_terms, 2) numbers of its first and last word's stems; terms sharing one are never in one
        name.
    """

    terms: np.ndarray
    counts: sparse.csr_matrix
    noun: np.ndarray
    rarest: np.ndarray
    vectors: np.ndarray
    independent: np.ndarray
    stems: np.ndarray


class TokenStream:
    """The texts as one row of token numbers, with what is known of each word from its neighbours.

    Attributes:
        words: distinct tokens. ids, text: (n_tokens,) which token, of which text; each text ends in a full
        stop.
        content: (n_words,) bool, neither punctuation nor number nor stop word. noun: (n_words,) in 0..1.
    """

    def __init__(self, texts: list[str], stop_words: Collection[str] = ENGLISH.stop_words) -> None:
        stop_words = set(stop_words) - NO_STOP
        number: dict[str, int] = {}  # of each distinct token, in order of appearance
        found = [
            np.array([number.setdefault(w, len(number)) for w in (*TOKEN.findall(t), ".")])
            for t in (t.lower().replace("’", "'") for t in texts)
        ]
        self.text = np.repeat(np.arange(len(texts)), [len(f) for f in found])
        self.ids = np.concatenate(found)
        self.words, n = np.array(list(number)), len(number)
        self.content = np.array([
            w[0].isalpha() and len(w) > 1 and w not in stop_words for w in self.words
        ])  # fmt: skip
        before, after = np.r_[self.ids[-1:], self.ids[:-1]], np.r_[self.ids[1:], self.ids[:1]]
        noun, verb, determiner = (
            np.array([w in group for w in self.words]) for group in (LEADS_TO_NOUN, LEADS_TO_VERB, DETERMINER)
        )
        noun, verb = (np.bincount(self.ids, group[before], n) for group in (noun, verb))
        verb = verb + 2 * np.bincount(self.ids, determiner[after], n)
        self.noun = (noun + 1) / (noun + verb + 1.5)


def noun_phrases(
    stream: TokenStream,
    n_texts: int,
    min_texts: int = 3,
    titles: set[str] = frozenset(),
    min_noun: float = 0.25,
    any_word: bool = False,
) -> tuple[np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Terms of one to three words: (terms, counts (n_texts, n_terms), noun (n_terms,)).

    A term is left out when one and the same content word stands beside it in more than half of its
    occurrences (it is part of a longer name), when its last word is not used like a noun, when a phrase's
    words meet hardly more often than by chance (normalised pointwise mutual information under 0.15; Bouma
    2009), and when it is a contraction or an interjection. What is a title in the corpus is a name,
    whatever its words. `any_word` keeps every single word.
    """
    ids, text, n_words = stream.ids, stream.text, len(stream.words)
    name = np.array([w not in NO_NAMES and not CONTRACTION.search(w) for w in stream.words])
    fit, total, parts = stream.content & name, len(ids), []
    single = np.bincount(ids, minlength=n_words)
    part = fit & (stream.noun >= min_noun)  # a verb that always stands beside a name is no part of it
    inside = fit | (stream.words == "of")  # of a triple: "gulf of mexico"
    for n in (1, 2, 3):
        start = np.arange(total - n + 1)
        ok = fit[ids[start]] & fit[ids[start + n - 1]] & (text[start] == text[start + n - 1])
        start = start[ok & inside[ids[start + 1]]] if n == 3 else start[ok]
        code = ids[start].astype(np.int64)
        for j in range(1, n):
            code = code * n_words + ids[start + j]
        term, code = pd.factorize(code)
        counts = sparse.csr_matrix(
            (np.ones(len(term), np.float32), (text[start], term)), (n_texts, len(code))
        )
        common = np.flatnonzero(np.bincount(counts.indices, minlength=len(code)) >= min_texts)
        words = np.stack([code // n_words ** (n - 1 - j) % n_words for j in range(n)], 1)[common]
        strings = np.array([" ".join(w) for w in stream.words[words]], dtype=object)
        occurs = np.bincount(term, minlength=len(code))[common]
        titled = np.array([s in titles for s in strings], dtype=bool)
        beside = _beside(stream, part, start - 1, term) | _beside(stream, part, start + n, term)
        longer = beside[common] & ~titled
        followed = np.bincount(term, stream.content[ids[(start + n) % total]], len(code))[common] / occurs
        noun = np.where(titled, 1.0, stream.noun[words[:, -1]] * (1 - 0.7 * followed))
        npmi = (
            np.log(occurs / total / np.prod(single[words] / total, axis=1))
            / -np.log(occurs / total)
            / max(n - 1, 1)
        )
        adverb = np.array([s.split()[0].endswith("ly") and n > 1 for s in strings], dtype=bool)
        kept = ~longer & (noun >= min_noun) & ((n == 1) | (npmi >= 0.15)) & (~adverb | titled)
        kept |= any_word & (n == 1)  # the last resort of odd corpora
        parts.append((strings[kept], counts[:, common[kept]], noun[kept]))
    terms, counts, noun = zip(*parts, strict=True)
    return np.concatenate(terms), sparse.hstack(counts, format="csr"), np.concatenate(noun)


def _beside(stream: TokenStream, part: np.ndarray, place: np.ndarray, term: np.ndarray) -> np.ndarray:
    """(n_terms,) bool: one word of `part` stands at `place` in more than half of a term's occurrences."""
    neighbour = stream.ids[place % len(stream.ids)]
    pairs = pd.DataFrame({"term": term, "word": neighbour})[part[neighbour]]
    most = pairs.groupby(["term", "word"]).size().groupby("term").max()
    n = np.bincount(term)
    return most.reindex(np.arange(len(n)), fill_value=0).to_numpy() > n / 2


def candidate_terms(
    texts: list[str], rows: np.ndarray, encode: Encode, independent: Encode, titles: list[str] | None = None,
    min_texts: int | None = None, language: Language = ENGLISH,
) -> CandidateTerms:  # fmt: skip
    """The noun phrases that stand in two of the strongest texts of some feature (in one where it has few).

    Args:
        texts: the training texts. rows: (n_features, n) their strongest ones per feature, −1 pads.
        encode, independent: n strings → (n, d) unit vectors. titles: of the texts, where the corpus has any.
        min_texts: texts that a term stands in; None: 3, and fewer, or any word, where that leaves none.

    Raises:
        ValueError: no term does, the script has no spaces, or `language` is no `Language`.
    """
    language = as_language(language)
    check_spaced(texts)
    titled = {t.lower() for t in titles or () if isinstance(t, str)}
    stream = TokenStream(texts, language.stop_words)
    tries = ((3, False), (3, True), (2, False), (1, False), (1, True))
    for least_texts, any_word in tries if min_texts is None else ((min_texts, False),):
        terms, counts, noun = noun_phrases(stream, len(texts), least_texts, titled, any_word=any_word)
        member = membership(rows, len(texts)) @ (counts > 0).astype(np.float32)
        least = np.minimum(min(2, least_texts), ((rows >= 0).sum(1) + 9) // 10)
        member.data *= member.data >= np.repeat(least, np.diff(member.indptr))
        kept = np.flatnonzero(np.asarray(member.max(0).todense()).ravel())
        if len(kept):
            break
    else:
        raise ValueError(
            f"no term stands in {least_texts} or more of these {len(texts)} texts: "
            + ("they hold no words but numbers and stop words" if min_texts is None else "lower min_texts")
        )
    terms = terms[kept]
    ends = [stem(t.split(" ")[i], language.stemmer) for i in (0, -1) for t in terms]
    stems = pd.factorize(np.array(ends, dtype=object))[0].reshape(2, -1).T
    strings = list(terms)
    rarest = Lexicon(texts, language).rarest(strings)
    both = encode(strings), independent(strings)
    return CandidateTerms(terms, counts[:, kept], noun[kept], rarest, *both, stems)


def membership(rows: np.ndarray, n_texts: int) -> sparse.csr_matrix:
    """Rows of texts per feature (L, n), −1 pads, as an indicator matrix (L, n_texts)."""
    feature, rank = np.nonzero(rows >= 0)
    ones = np.ones(len(feature), np.float32)
    return sparse.csr_matrix((ones, (feature, rows[feature, rank])), shape=(len(rows), n_texts))


@torch.no_grad()
def self_activation(sae: SAE, pool: CandidateTerms, features: np.ndarray) -> np.ndarray:
    """Pre-activation of each feature on each term as a text: (len(features), n_terms)."""
    return sae.pre_acts(torch.from_numpy(pool.vectors).to(sae.mean.device))[:, features].T.cpu().numpy()


def ctfidf(rows: np.ndarray, pool: CandidateTerms) -> np.ndarray:
    """c-TF-IDF of each feature's texts `rows` (n_features, n): (n_features, n_terms)."""
    tf = (membership(rows, pool.counts.shape[0]) @ pool.counts).toarray()
    words = tf.sum(1)
    idf = np.log1p(words.mean() / np.maximum(tf.sum(0), 1))
    return tf / np.maximum(words, 1)[:, None] * idf


def best_terms(scores: np.ndarray, n: int) -> np.ndarray:
    """The n best candidates of each feature, (n_features, n), best first."""
    n = min(n, scores.shape[1])
    part = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    return np.take_along_axis(part, np.argsort(-np.take_along_axis(scores, part, 1), axis=1), 1)
