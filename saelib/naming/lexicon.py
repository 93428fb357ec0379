"""Texts as counts of word stems: the judges of a name that know nothing of meaning, only shared words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from saelib.encoder import WORD
from saelib.naming.language import ENGLISH, Language, as_language, stem

# log of the share of texts from which on a word is too common to name a feature: "process" in abstracts
# stands in its strongest texts by chance too
COMMON = float(np.log(0.03))


def check_terms(terms: Iterable[object]) -> None:
    """Raise ValueError for terms of names that are text: they would be read letter by letter."""
    if any(isinstance(of_name, str) for of_name in terms):
        raise ValueError("names.terms holds text, not lists (from a CSV?): keep names in parquet")


class Lexicon:
    """Texts as stem counts (Snowball stems, n_texts × n_stems), for BM25 and keyword queries."""

    def __init__(self, texts: list[str], language: Language = ENGLISH) -> None:
        language = as_language(language)
        self.words = CountVectorizer(token_pattern=WORD, stop_words=list(language.stop_words))
        self.stemmer = language.stemmer
        try:
            counts = self.words.fit_transform(texts)
        except ValueError as error:
            raise ValueError("these texts hold no word to look for (stop words only)") from error
        stems = [stem(word, self.stemmer) for word in self.words.get_feature_names_out().tolist()]
        self.place = {s: i for i, s in enumerate(dict.fromkeys(stems))}
        self.fold = sparse.csr_matrix(
            (np.ones(len(stems)), (range(len(stems)), [self.place[s] for s in stems]))
        )
        self.counts: sparse.csr_matrix = (counts @ self.fold).tocsr()

    def stems(self, strings: list[str]) -> list[set[str]]:
        """The different stems of each string, stop words apart."""
        check_terms([strings])
        analyse = self.words.build_analyzer()
        return [{stem(word, self.stemmer) for word in analyse(s)} for s in strings]

    def rarest(self, strings: list[str]) -> np.ndarray:
        """(n_strings,) how common the rarest stem of each string is: log of the share of texts that hold it.

        A stem that no text holds, or a string without any, counts as half a text.
        """
        n = self.counts.shape[0]
        query, size = self.queries(strings)
        common = np.log(np.bincount(self.counts.indices, minlength=self.counts.shape[1]) / n)
        found = np.zeros(len(strings))
        np.minimum.at(found, np.repeat(np.arange(len(strings)), np.diff(query.indptr)), common[query.indices])
        return np.where((np.diff(query.indptr) < size) | (size == 0), np.log(0.5 / n), found)

    def queries(self, strings: list[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Strings as stem indicators (n_strings, n_stems), and how many different stems each has in all."""
        stems = self.stems(strings)
        pairs = [(i, self.place[s]) for i, found in enumerate(stems) for s in found if s in self.place]
        rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
        matrix = sparse.csr_matrix(
            (np.ones(len(rows)), (rows, columns)), shape=(len(strings), len(self.place))
        )
        return matrix, np.array([len(s) for s in stems])

    def bm25(
        self, labels: list[str], k1: float = 1.5, b: float = 0.75
    ) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """BM25 (Robertson & Zaragoza 2009, eq. 3.15) as two matrices (n_labels, n_stems), (n_texts, n_stems).

        Their product is every label's score on every text.
        """
        weights, length = self.counts.astype(np.float64), np.asarray(self.counts.sum(1)).ravel()
        df = np.bincount(weights.indices, minlength=weights.shape[1])
        idf = np.log1p((len(length) - df + 0.5) / (df + 0.5))
        norm = k1 * (1 - b + b * length / max(length.mean(), 1e-9))
        weights.data *= (k1 + 1) / (weights.data + np.repeat(norm, np.diff(weights.indptr)))
        return sparse.csr_matrix(self.queries(labels)[0].multiply(idf)), weights

    def contains(self, terms: pd.Series) -> np.ndarray:
        """(n_labels, n_texts) bool: does a text hold all stems of any term? terms: lists of strings."""
        check_terms(terms)
        flat = [(i, t) for i, ts in enumerate(terms) for t in ts]
        query, size = self.queries([t for _, t in flat])
        holds, found = (self.counts > 0).T.tocsr(), np.zeros((len(terms), self.counts.shape[0]), dtype=bool)
        for start in range(0, len(flat), 64):  # blocks of terms bound the memory
            at = slice(start, start + 64)
            whole = (query[at] @ holds).toarray() >= np.maximum(size[at], 1)[:, None]
            for (i, _), texts in zip(flat[at], whole, strict=True):
                found[i] |= texts
        return found

    def npmi(self, terms: pd.Series) -> np.ndarray:
        """Mean normalised pointwise mutual information of a label's words (Bouma 2009); NaN for one word."""
        query, _ = self.queries([" ".join(ts) for ts in terms])
        used = np.unique(query.indices)
        on = (self.counts[:, used] > 0).astype(np.float64)
        joint, n = np.asarray((on.T @ on).todense()) / on.shape[0], on.shape[0]
        single, joint = np.diag(joint), np.clip(joint, 0.5 / n, 1 - 1e-9)
        value = np.log(joint / np.outer(single, single)) / -np.log(joint)
        np.fill_diagonal(value, 0)
        words = query[:, used].astype(np.float64)
        size = np.asarray(words.sum(1)).ravel()
        total = np.asarray(words.multiply(words @ value).sum(1)).ravel()
        return np.where(size > 1, total / np.maximum(size * (size - 1), 1), np.nan)
