"""Candidates for names: a pool of the corpus's own words, ranked by six sources for every feature at once.

A pool of the corpus's words and two-word phrases is embedded once. Each *labeller* ranks the pool for every
feature at once, as a matrix (n_features, n_candidates):

- `ctfidf`: class-based TF-IDF of the feature's top texts (Grootendorst 2022);
- `log_odds`: log-odds of the top texts against near texts that do not activate (Monroe et al. 2008);
- `decoder`: cosine of the candidate with the feature's decoder row;
- `self_activation`: what the SAE's encoder answers when it is given the candidate as if it were a text;
- `centroid`, `contrast`: cosine with the mean of its texts, and with that mean less the near texts' mean.

`simple_labels` turns one matrix into labels; `choosing.py` chooses from all six. Nothing here sees a held-out text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import snowballstemmer
import torch
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.preprocessing import normalize
from torch import Tensor

from saelib.naming.keybert import EmbeddingCache
from saelib.naming.scoring import DetectionSet
from saelib.sae import SAE

TOKEN = r"(?u)[^\W\d_][\w'’\-]*\w|[.,;:!?()\"]"  # punctuation is a token, so that no phrase runs across it


@dataclass(frozen=True)
class CandidateTerms:
    """Candidate terms of a corpus.

    Attributes:
        terms: n_candidates strings. vectors: (n_candidates, d) unit norm.
        counts: (n_texts, n_candidates) CSR, how often each term stands in each text.
        stems: (n_candidates, 2) numbers of its words' stems; terms that share one are not shown together.
    """

    terms: np.ndarray
    vectors: np.ndarray
    counts: sparse.csr_matrix
    stems: np.ndarray


def candidate_terms(
    texts: list[str], vectors: EmbeddingCache, min_texts: int = 3, max_terms: int = 30_000
) -> CandidateTerms:
    """Words, and phrases of two neighbouring words, that stand in `min_texts` texts; no stop words.

    Raises:
        ValueError: no term does.
    """
    counter = CountVectorizer(ngram_range=(1, 2), min_df=min_texts, token_pattern=TOKEN)
    try:
        counts = counter.fit_transform(texts).tocsc()
    except ValueError:
        counts, names = sparse.csc_matrix((len(texts), 0)), np.array([], dtype=object)
    else:
        names = counter.get_feature_names_out()
    fit = [all(w not in ENGLISH_STOP_WORDS and len(w) > 1 for w in term.split(" ")) for term in names]
    kept = np.flatnonzero(fit)
    if not len(kept):
        raise ValueError(
            f"no term stands in {min_texts} or more of these {len(texts)} texts: lower min_texts"
        )
    kept = np.sort(kept[np.argsort(-np.diff(counts.indptr)[kept], kind="stable")[:max_terms]])
    stem, names = snowballstemmer.stemmer("english"), names[kept]
    first, last = ([t.split(" ")[i].removesuffix("'s") for t in names] for i in (0, -1))
    stems = pd.factorize(np.array(stem.stemWords(first + last), dtype=object))[0].reshape(2, -1).T
    return CandidateTerms(names, vectors(list(names)), counts[:, kept].tocsr().astype(np.float32), stems)


@torch.no_grad()
def decoder(sae: SAE, pool: CandidateTerms, features: np.ndarray) -> np.ndarray:
    """Cosine of (candidate − mean) with each feature's decoder row."""
    z = torch.from_numpy(pool.vectors).to(sae.mean.device) - sae.mean
    return (torch.nn.functional.normalize(z, dim=1) @ sae.W_dec[features].T).T.cpu().numpy()


@torch.no_grad()
def self_activation(sae: SAE, pool: CandidateTerms, features: np.ndarray) -> np.ndarray:
    """Pre-activation of each feature on the candidate as a text."""
    return sae.pre_acts(torch.from_numpy(pool.vectors).to(sae.mean.device))[:, features].T.cpu().numpy()


def membership(rows: np.ndarray, n_texts: int) -> sparse.csr_matrix:
    """Rows of texts per feature (L, n), −1 pads, as an indicator matrix (L, n_texts)."""
    feature, rank = np.nonzero(rows >= 0)
    ones = np.ones(len(feature), np.float32)
    return sparse.csr_matrix((ones, (feature, rows[feature, rank])), shape=(len(rows), n_texts))


def ctfidf(rows: np.ndarray, pool: CandidateTerms) -> np.ndarray:
    """c-TF-IDF of each feature's texts `rows` (n_features, n)."""
    tf = (membership(rows, pool.counts.shape[0]) @ pool.counts).toarray()
    words = tf.sum(1)
    idf = np.log1p(words.mean() / np.maximum(tf.sum(0), 1))
    return tf / np.maximum(words, 1)[:, None] * idf


def log_odds(rows: np.ndarray, near: np.ndarray, pool: CandidateTerms, prior: float = 0.05) -> np.ndarray:
    """z-score of the log-odds of a feature's texts against near inactive ones, symmetric prior."""
    a, b = ((membership(r, pool.counts.shape[0]) @ pool.counts).toarray() + prior for r in (rows, near))
    odds = [np.log(x / (x.sum(1, keepdims=True) - x)) for x in (a, b)]
    return (odds[0] - odds[1]) / np.sqrt(1 / a + 1 / b)


def centroid(
    rows: np.ndarray, embeddings: np.ndarray, pool: CandidateTerms, against: np.ndarray | None = None
) -> np.ndarray:
    """Cosine with the mean embedding of each feature's texts, less that of the texts `against`."""
    means = [
        normalize(normalize(membership(r, len(embeddings)), "l1") @ embeddings)
        for r in (rows, against)
        if r is not None
    ]
    direction = means[0] if against is None else normalize(means[0] - means[1])
    return (direction @ pool.vectors.T).astype(np.float32)


def sources(
    sae: SAE, exam: DetectionSet, embeddings: np.ndarray, pool: CandidateTerms
) -> dict[str, np.ndarray]:
    """All six matrices (n_features, n_candidates) for the features of a training exam."""
    top, half = exam.active[:, :20], exam.active[:, : (exam.active.shape[1] + 1) // 2]
    return {
        "c-TF-IDF": ctfidf(top, pool),
        "log-odds": log_odds(top, exam.near, pool),
        "decoder row": decoder(sae, pool, exam.features),
        "self-activation": self_activation(sae, pool, exam.features),
        "centroid": centroid(half, embeddings, pool),
        "contrast": centroid(half, embeddings, pool, exam.near),
    }


def best_terms(scores: np.ndarray, n: int) -> np.ndarray:
    """The n best candidates of each feature, (n_features, n), best first."""
    n = min(n, scores.shape[1])
    part = np.argpartition(-scores, n - 1, axis=1)[:, :n]
    return np.take_along_axis(part, np.argsort(-np.take_along_axis(scores, part, 1), axis=1), 1)


def alike(ids: Tensor, pool: CandidateTerms) -> Tensor:
    """Which candidates of a feature are too alike to stand in one label: cosine ≥ 0.8 or a common stem; (F, C, C)."""
    v, stems = torch.from_numpy(pool.vectors)[ids], torch.from_numpy(pool.stems)[ids]  # (F, C, d), (F, C, 2)
    common = (stems[:, :, None, :, None] == stems[:, None, :, None, :]).flatten(3).any(3)
    return (torch.bmm(v, v.transpose(1, 2)) >= 0.8) | common


def simple_labels(
    scores: np.ndarray, pool: CandidateTerms, features: np.ndarray, n_terms: int = 3
) -> pd.DataFrame:
    """One source alone: its best n_terms candidates that are unlike (cosine < 0.8, no common stem)."""
    ids = torch.from_numpy(best_terms(scores, 8 * n_terms))
    unlike, free = ~alike(ids, pool), torch.ones(ids.shape, dtype=torch.bool)
    f, picks = torch.arange(len(ids)), []
    for _ in range(min(n_terms, ids.shape[1])):
        first = free.float().argmax(1)
        picks.append(torch.where(free.any(1), ids[f, first], -1))
        free &= unlike[f, first]
    return label_frame(features, torch.stack(picks, 1).tolist(), pool.terms)


def label_frame(features: np.ndarray, picks: list[list[int]], terms: np.ndarray) -> pd.DataFrame:
    """Numbers of terms per feature (−1 pads) as `label` and `terms`."""
    chosen = [[str(terms[i]) for i in row if i >= 0] for row in picks]
    return pd.DataFrame(
        {"label": [", ".join(t) for t in chosen], "terms": chosen}, index=pd.Index(features, name="feature")
    )
