"""Better names from the same parts: candidates from six sources, chosen by what they detect.

A pool of the corpus's words and two-word phrases is embedded once. Each *labeller* ranks the pool for every
feature at once, as a matrix (n_features, n_candidates):

- `ctfidf`: class-based TF-IDF of the feature's top texts (Grootendorst 2022);
- `log_odds`: log-odds of the top texts against near texts that do not activate (Monroe et al. 2008);
- `decoder`: cosine of the candidate with the feature's decoder row;
- `self_activation`: what the SAE's encoder answers when it is given the candidate as if it were a text;
- `centroid`, `contrast`: cosine with the mean of its texts, and with that mean less the near texts' mean.

`simple_labels` turns a matrix into labels. `combined` takes the best few of each source and keeps the one to
three that best tell active from inactive *training* texts, near ones included. Nothing here sees a held-out text.
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

from saelib.interpret import Vectors
from saelib.saes import SAE
from saelib.scoring import Exam, set_exam

TOKEN = r"(?u)[^\W\d_][\w'’\-]*\w|[.,;:!?()\"]"  # punctuation is a token, so that no phrase runs across it


@dataclass(frozen=True)
class Pool:
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


def candidate_pool(texts: list[str], vectors: Vectors, min_texts: int = 3, max_terms: int = 30_000) -> Pool:
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
        raise ValueError(f"no term stands in {min_texts} or more of these {len(texts)} texts: lower min_texts")
    kept = np.sort(kept[np.argsort(-np.diff(counts.indptr)[kept], kind="stable")[:max_terms]])
    stem, names = snowballstemmer.stemmer("english"), names[kept]
    first, last = ([t.split(" ")[i].removesuffix("'s") for t in names] for i in (0, -1))
    stems = pd.factorize(np.array(stem.stemWords(first + last), dtype=object))[0].reshape(2, -1).T
    return Pool(names, vectors(list(names)), counts[:, kept].tocsr().astype(np.float32), stems)


@torch.no_grad()
def decoder(sae: SAE, pool: Pool, features: np.ndarray) -> np.ndarray:
    """Cosine of (candidate − mean) with each feature's decoder row."""
    z = torch.from_numpy(pool.vectors).to(sae.mean.device) - sae.mean
    return (torch.nn.functional.normalize(z, dim=1) @ sae.W_dec[features].T).T.cpu().numpy()


@torch.no_grad()
def self_activation(sae: SAE, pool: Pool, features: np.ndarray) -> np.ndarray:
    """Pre-activation of each feature on the candidate as a text."""
    return sae.pre_acts(torch.from_numpy(pool.vectors).to(sae.mean.device))[:, features].T.cpu().numpy()


def membership(rows: np.ndarray, n_texts: int) -> sparse.csr_matrix:
    """Rows of texts per feature (L, n), −1 pads, as an indicator matrix (L, n_texts)."""
    feature, rank = np.nonzero(rows >= 0)
    ones = np.ones(len(feature), np.float32)
    return sparse.csr_matrix((ones, (feature, rows[feature, rank])), shape=(len(rows), n_texts))


def ctfidf(rows: np.ndarray, pool: Pool) -> np.ndarray:
    """c-TF-IDF of each feature's texts `rows` (n_features, n)."""
    tf = (membership(rows, pool.counts.shape[0]) @ pool.counts).toarray()
    words = tf.sum(1)
    idf = np.log1p(words.mean() / np.maximum(tf.sum(0), 1))
    return tf / np.maximum(words, 1)[:, None] * idf


def log_odds(rows: np.ndarray, near: np.ndarray, pool: Pool, prior: float = 0.05) -> np.ndarray:
    """z-score of the log-odds of a feature's texts against near inactive ones, symmetric prior."""
    a, b = ((membership(r, pool.counts.shape[0]) @ pool.counts).toarray() + prior for r in (rows, near))
    odds = [np.log(x / (x.sum(1, keepdims=True) - x)) for x in (a, b)]
    return (odds[0] - odds[1]) / np.sqrt(1 / a + 1 / b)


def centroid(rows: np.ndarray, embeddings: np.ndarray, pool: Pool, against: np.ndarray | None = None) -> np.ndarray:
    """Cosine with the mean embedding of each feature's texts, less that of the texts `against`."""
    means = [normalize(normalize(membership(r, len(embeddings)), "l1") @ embeddings) for r in (rows, against) if r is not None]
    direction = means[0] if against is None else normalize(means[0] - means[1])
    return (direction @ pool.vectors.T).astype(np.float32)


def sources(sae: SAE, exam: Exam, embeddings: np.ndarray, pool: Pool) -> dict[str, np.ndarray]:
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


def _alike(ids: Tensor, pool: Pool) -> Tensor:
    """Which candidates of a feature are too alike to stand in one label: cosine ≥ 0.8 or a common stem; (F, C, C)."""
    v, stems = torch.from_numpy(pool.vectors)[ids], torch.from_numpy(pool.stems)[ids]  # (F, C, d), (F, C, 2)
    common = (stems[:, :, None, :, None] == stems[:, None, :, None, :]).flatten(3).any(3)
    return (torch.bmm(v, v.transpose(1, 2)) >= 0.8) | common


def simple_labels(scores: np.ndarray, pool: Pool, features: np.ndarray, n_terms: int = 3) -> pd.DataFrame:
    """One source alone: its best n_terms candidates that are unlike (cosine < 0.8, no common stem)."""
    ids = torch.from_numpy(best_terms(scores, 8 * n_terms))
    alike, free = _alike(ids, pool), torch.ones(ids.shape, dtype=torch.bool)
    f, picks = torch.arange(len(ids)), []
    for _ in range(min(n_terms, ids.shape[1])):
        first = free.float().argmax(1)
        picks.append(torch.where(free.any(1), ids[f, first], -1))
        free &= ~alike[f, first]
    return _frame(features, torch.stack(picks, 1).tolist(), pool.terms)


def _frame(features: np.ndarray, picks: list[list[int]], terms: np.ndarray) -> pd.DataFrame:
    chosen = [[str(terms[i]) for i in row if i >= 0] for row in picks]
    return pd.DataFrame({"label": [", ".join(t) for t in chosen], "terms": chosen}, index=pd.Index(features, name="feature"))


def masked_auroc(candidates: Tensor, x: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """AUROC of cosine with each candidate: candidates (F, C, d), rows of x with −1 pads (F, P), (F, N) → (F, C)."""

    def similarity(rows: Tensor) -> Tensor:
        return torch.bmm(candidates, x[rows.clamp_min(0)].transpose(1, 2))

    pos, neg = similarity(positives), similarity(negatives).masked_fill((negatives < 0)[:, None], torch.inf).sort(2).values
    below = torch.searchsorted(neg.contiguous(), pos.contiguous()).float()
    valid = (positives >= 0)[:, None].float()
    n_neg = (negatives >= 0).sum(1).clamp_min(1)[:, None]
    return (below * valid).sum(2) / valid.sum(2).clamp_min(1) / n_neg


def combined(
    sae: SAE, table: sparse.csr_matrix, embeddings: np.ndarray, pool: Pool, vectors: Vectors,
    per_source: int = 12, n_terms: int = 3, weights: tuple[float, float, float] = (0.5, 0.3, 0.2),
    seed: int = 0, exam: Exam | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Label every live feature with one to three terms chosen on training texts.

    Terms are added greedily, from the four best first terms, by the weighted score of the mean of their vectors; the
    labels so found are then embedded as a reader sees them ("a, b, c"), and the best of them is kept.

    Args:
        table, embeddings: training activations (n, d_sae) and embeddings (n, d). pool: from the same texts.
        per_source: candidates taken from each labeller. weights: of AUROC against random texts, of AUROC against near
        texts, and of the words' own detection (the share of active texts that hold a term, less that of near ones).
        exam: the training texts to choose by; None takes `set_exam(table, embeddings, n_random=200, n_near=100)`.

    Returns:
        Index `feature`: `label`, `terms`, `train_auroc` (mean of the two AUROCs of the label on training texts).
    """
    if not table.shape[0] == len(embeddings) == pool.counts.shape[0]:
        raise ValueError(
            f"{table.shape[0]} activation rows, {len(embeddings)} embeddings and {pool.counts.shape[0]} texts in the pool: "
            "they must be of one corpus"
        )
    exam = exam or set_exam(table, embeddings, n_random=200, n_near=100, seed=seed)
    if not len(exam.features):
        raise ValueError("no feature is active on these texts: nothing to label")
    chosen = np.concatenate([best_terms(s, per_source) for s in sources(sae, exam, embeddings, pool).values()], 1)
    half = exam.active[:, : (exam.active.shape[1] + 1) // 2]
    found = []
    for rows in (half, exam.near):  # share of the texts that hold each candidate
        share = (normalize(membership(rows, len(embeddings)), "l1") @ (pool.counts > 0).astype(np.float32)).toarray()
        found.append(torch.from_numpy(np.take_along_axis(share, chosen, 1)))
    x = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    chosen, where = torch.from_numpy(chosen.astype(np.int64)), [torch.from_numpy(r) for r in (half, exam.random, exam.near)]
    sets: list[list[list[int]]] = []
    for start in range(0, len(chosen), 64):  # blocks of features, to bound memory
        block = slice(start, start + 64)
        sets += _term_sets(pool, chosen[block], x, [r[block] for r in where], [s[block] for s in found], n_terms, weights)
    strings = [[", ".join(str(pool.terms[chosen[f, j]]) for j in ids) for ids in labels] for f, labels in enumerate(sets)]
    vectors([s for labels in strings for s in labels])  # every distinct label in one call
    width, picks, scores = max(map(len, sets)), [], []
    for start in range(0, len(sets), 64):
        block = slice(start, start + 64)
        padded = [labels + [labels[0]] * (width - len(labels)) for labels in strings[block]]
        own = [labels + [labels[0]] * (width - len(labels)) for labels in sets[block]]
        far, near = _judge(torch.from_numpy(np.stack([vectors(p) for p in padded])), x, [r[block] for r in where])
        members = torch.tensor([[(ids + [-1] * n_terms)[:n_terms] for ids in labels] for labels in own])
        missed = [_missed(s[block], members) for s in found]
        total = weights[0] * far + weights[1] * near + weights[2] * (1 + missed[1] - missed[0]) / 2
        best = total.argmax(1)
        picks += [[int(chosen[start + i, j]) for j in own[i][b]] for i, b in enumerate(best.tolist())]
        scores += ((far + near) / 2).gather(1, best[:, None])[:, 0].tolist()
    return _frame(exam.features, picks, pool.terms).assign(train_auroc=scores)


def _judge(v: Tensor, x: Tensor, where: list[Tensor]) -> tuple[Tensor, Tensor]:
    v = torch.nn.functional.normalize(v, dim=2)
    return masked_auroc(v, x, where[0], where[1]), masked_auroc(v, x, where[0], where[2])


def _missed(share: Tensor, members: Tensor) -> Tensor:
    """Share of texts that hold none of a set's terms, were they independent: share (F, C), members (F, S, n) → (F, S)."""
    kept = torch.where(members >= 0, 1 - share.gather(1, members.clamp_min(0).flatten(1)).view(members.shape), 1)
    return kept.prod(2)


def _term_sets(
    pool: Pool, ids: Tensor, x: Tensor, where: list[Tensor], found: list[Tensor],
    n_terms: int, weights: tuple[float, float, float], n_starts: int = 4,
) -> list[list[list[int]]]:  # fmt: skip
    """Per feature the sets of candidates (columns of ids) met on the greedy way from each of the best first terms."""
    candidates, f, alike = torch.from_numpy(pool.vectors)[ids], torch.arange(len(ids)), _alike(ids, pool)
    blocked, sets = torch.zeros(ids.shape, dtype=torch.bool), [[] for _ in range(len(ids))]

    def score(total: Tensor | float, missed: list[Tensor]) -> Tensor:
        far, near = _judge(candidates + total, x, where)
        words = [m * (1 - s) for m, s in zip(missed, found, strict=True)]
        return weights[0] * far + weights[1] * near + weights[2] * (1 + words[1] - words[0]) / 2

    first = score(0.0, [torch.ones(len(ids), 1)] * 2)
    for _ in range(min(n_starts, ids.shape[1])):
        step = first.masked_fill(blocked, -torch.inf).argmax(1)
        blocked |= alike[f, step]
        total, taken, path = 0.0, torch.zeros_like(blocked), []
        missed = [torch.ones(len(ids), 1)] * 2
        for position in range(n_terms):
            if position:
                step = score(total, missed).masked_fill(taken, -torch.inf).argmax(1)
            total, taken = total + candidates[f, step][:, None], taken | alike[f, step]
            missed = [m * (1 - s[f, step][:, None]) for m, s in zip(missed, found, strict=True)]
            path.append(step)
        for i, row in enumerate(torch.stack(path, 1).tolist()):
            row = list(dict.fromkeys(row))  # a feature with few candidates may repeat one
            sets[i] += [row[: n + 1] for n in range(len(row)) if row[: n + 1] not in sets[i]]
    return sets
