"""Name every feature by keyword extraction, with no API call: the KeyBERT interpreter.

For each feature, its top texts; for each text, KeyBERT's keywords (Grootendorst 2020), near-synonyms
merged, two-word candidates added where they fit the text; over the texts, terms ranked by
S/N · log(1 + N) and grouped. Every distinct word and phrase is embedded once for the whole run; the
texts' embeddings come from the store. How good a name is, is measured in `scoring.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from keybert import KeyBERT
from keybert.backend import BaseEmbedder
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from saelib.activations import top_texts
from saelib.checks import whole
from saelib.encoder import WORD, EmbeddingCache, Encode
from saelib.naming.language import ENGLISH, Language, as_language, check_spaced


class _Backend(BaseEmbedder):
    def __init__(self, vectors: EmbeddingCache) -> None:
        super().__init__()
        self.vectors = vectors

    def embed(self, documents: list[str], verbose: bool = False) -> np.ndarray:  # noqa: ARG002
        return self.vectors(list(documents))


@dataclass(frozen=True)
class KeyBERTInterpreter:
    """The reference procedure's thresholds, and the encoder that embeds candidates.

    Attributes:
        encode: list of strings → (n, d) unit vectors, e.g. `encoder.encode`.
        n_texts: top texts per feature. n_keywords: KeyBERT keywords per text.
        merge_at: words of one text this similar are one. phrase_at: a two-word phrase joins at this
        cosine to its text. group_at: terms of one feature this similar are one. n_terms: shown.
        language: stop words of the texts' language.
    """

    encode: Encode
    n_texts: int = 10
    n_keywords: int = 5
    merge_at: float = 0.9
    phrase_at: float = 0.4
    group_at: float = 0.8
    n_terms: int = 3
    language: Language = ENGLISH

    def __post_init__(self) -> None:
        for name in ("n_texts", "n_keywords", "n_terms"):
            whole(name, getattr(self, name))
        as_language(self.language)

    def label(self, table: sparse.csr_matrix, texts: list[str], embeddings: np.ndarray) -> pd.DataFrame:
        """Label every live feature.

        Args:
            table: activations (n, d_sae). texts: the n texts. embeddings: theirs, (n, d).

        Returns:
            One row per live feature, index `feature`: `label` (terms joined by ", "), `terms`,
            `scores` (lists), `top_rows` (list of text rows). A feature whose texts hold no keyword
            has the label "".

        Raises:
            ValueError: table, texts and embeddings are not of one length, or no feature is live.
        """
        if not table.shape[0] == len(texts) == len(embeddings):
            raise ValueError(
                f"{table.shape[0]} activation rows, {len(texts)} texts and {len(embeddings)} embeddings: "
                "they must be of one corpus"
            )
        texts = self.language.spaced(texts)
        check_spaced(texts)
        rows, _ = top_texts(table, self.n_texts)
        live = np.flatnonzero(rows[:, 0] >= 0)
        if not len(live):
            raise ValueError("no feature is active on these texts: nothing to label")
        distinct = np.unique(rows[live][rows[live] >= 0])
        vectors = EmbeddingCache(self.encode)
        terms_of = dict(
            zip(
                distinct,
                self.text_terms([texts[r] for r in distinct], embeddings[distinct], vectors),
                strict=True,
            )
        )
        records = []
        for feature in live:
            used = [int(r) for r in rows[feature] if r >= 0]
            ranked = self.aggregate([terms_of[r] for r in used], vectors)[: self.n_terms]
            terms, scores = [t for t, _ in ranked], [s for _, s in ranked]
            records.append(
                {
                    "feature": int(feature),
                    "label": ", ".join(terms),
                    "terms": terms,
                    "scores": scores,
                    "top_rows": used,
                }
            )
        return pd.DataFrame(records).set_index("feature")

    def text_terms(
        self, texts: list[str], embeddings: np.ndarray, vectors: EmbeddingCache
    ) -> list[list[tuple[str, float]]]:
        """For each text its (term, cosine) list: keywords, merged, and phrases that fit."""
        counter = CountVectorizer(token_pattern=WORD, stop_words=list(self.language.stop_words))
        try:
            words = counter.fit(texts).get_feature_names_out()
        except ValueError:  # an empty vocabulary: nothing but stop words
            return [[] for _ in texts]
        found = KeyBERT(model=_Backend(vectors)).extract_keywords(
            texts, vectorizer=clone(counter), top_n=self.n_keywords,
            doc_embeddings=embeddings, word_embeddings=vectors(list(words)),
        )  # fmt: skip
        found = [found] if len(texts) == 1 else found  # KeyBERT gives a flat list for one document
        kept = [self._merge(keywords, vectors) for keywords in found]
        pairs = [[f"{a} {b}" for (a, _), (b, _) in combinations(words, 2)] for words in kept]
        if any(pairs):
            vectors([phrase for phrases in pairs for phrase in phrases])  # all of them in one call
        for words, phrases, embedding in zip(kept, pairs, embeddings, strict=True):
            if phrases:
                cosines = vectors(phrases) @ embedding
                words += [(p, float(c)) for p, c in zip(phrases, cosines, strict=True) if c >= self.phrase_at]
        return kept

    def _merge(self, keywords: list[tuple[str, float]], vectors: EmbeddingCache) -> list[tuple[str, float]]:
        """Keep the best of words whose cosine is ≥ merge_at, in score order."""
        kept: list[tuple[str, float]] = []
        for word, score in sorted(keywords, key=lambda pair: -pair[1]):
            if not kept or (vectors([w for w, _ in kept]) @ vectors([word])[0]).max() < self.merge_at:
                kept.append((word, float(score)))
        return kept

    def aggregate(
        self, per_text: list[list[tuple[str, float]]], vectors: EmbeddingCache
    ) -> list[tuple[str, float]]:
        """Over a feature's texts: score = S/N · log(1 + N), similar terms grouped greedily."""
        total, count = defaultdict(float), defaultdict(int)
        for terms in per_text:
            for term, score in terms:
                total[term] += score
                count[term] += 1

        def score(s: float, n: int) -> float:
            return s / n * math.log1p(n)

        order = sorted(total, key=lambda t: -score(total[t], count[t]))
        if not order:
            return []
        similar = (lambda v: v @ v.T)(vectors(order)) >= self.group_at
        free, groups = np.ones(len(order), dtype=bool), []
        for i, term in enumerate(order):
            if free[i]:
                members = [order[j] for j in np.flatnonzero(similar[i] & free | (np.arange(len(order)) == i))]
                free[similar[i]] = False
                groups.append((term, score(sum(total[m] for m in members), sum(count[m] for m in members))))
        return sorted(groups, key=lambda pair: -pair[1])
