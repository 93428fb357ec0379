"""How good is a name? Judged on held-out texts, with no API call.

A *judge* is a matrix S (n_labels, n_texts): how well each label fits each held-out text. Three ship:
the encoder that made the embeddings (it flatters every label alike), BM25 (only shared words count) and
LSA (a small semantic space of the corpus itself, which never saw the encoder). A *metric* compares a row of
S with the feature's activations: detection AUROC (the embedding score of Paulo et al. 2024, "delphi"),
Spearman correlation with the activation, F1 of the label as a keyword query. 0.5 AUROC is what a label
that says nothing gets, against random texts; against texts chosen for being near the feature's it gets
less, so read every figure beside that of shuffled labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import snowballstemmer
import torch
from scipy import sparse
from scipy.stats import rankdata
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import normalize

WORD = r"(?u)\b\w\w+\b"


class DetectionSet(NamedTuple):
    """The held-out texts that a label has to tell apart: rows per feature, −1 pads.

    Attributes:
        features: (L,) their numbers. active: (L, A) activating texts by falling activation, thinned evenly
        to A. random, near: inactive texts at random, and those nearest to any of 32 texts of
        the active half.
    """

    features: np.ndarray
    active: np.ndarray
    random: np.ndarray
    near: np.ndarray


def draw_detection_set(
    table: sparse.csr_matrix, embeddings: np.ndarray, *, n_active: int = 200, n_random: int = 1000, n_near: int = 50,
    seed: int = 0,
) -> DetectionSet:  # fmt: skip
    """Choose the texts: up to n_active activating ones, and per feature n_random and at least n_near inactive ones.

    Args:
        table: held-out activations (n, d_sae). embeddings: the same texts', (n, d), unit norm.
    """
    n, d_sae = table.shape
    rng, csc = np.random.default_rng(seed), table.tocsc(copy=True)
    texts = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    csc.eliminate_zeros()
    count = np.diff(csc.indptr)
    features = np.flatnonzero((count > 0) & (count < n))
    feature = np.repeat(np.arange(d_sae), count)
    order = csc.indices[np.lexsort((csc.indices, -csc.data, feature))]  # by feature, then falling activation
    width = np.minimum(count[features], n_active)
    step = np.arange(max(width.max(initial=1), 1))
    place = csc.indptr[features][:, None] + (step * (count[features] / np.maximum(width, 1))[:, None]).astype(
        int
    )
    held = step < width[:, None]
    active = np.where(held, order[np.minimum(place, max(len(order) - 1, 0))], -1)

    random = np.full((len(features), min(n_random, n)), -1)
    near = np.full((len(features), min(max(n_near, (active.shape[1] + 1) // 2), n)), -1)
    for start in range(0, len(features), 256):  # blocks of features bound the memory
        block = slice(start, start + 256)
        off = csc[:, features[block]].toarray().T == 0
        key = np.where(off, rng.random(off.shape, dtype=np.float32), -1)
        random[block] = _best(key, random.shape[1])
        closest = np.empty(
            off.shape, dtype=np.float32
        )  # cosine with the nearest of the feature's active half
        for part in range(0, len(off), 8):
            here = slice(start + part, min(start + part + 8, start + len(off)))
            spread = (np.arange(32) / 32 * ((width[here, None] + 1) // 2)).astype(
                int
            )  # 32 of the half, evenly
            top = np.take_along_axis(active[here], spread, 1)
            cosine = texts[torch.from_numpy(top)].flatten(0, 1) @ texts.T
            closest[part : part + 8] = cosine.view(*top.shape, -1).amax(1).numpy()
        found = _best(np.where(off, closest, -np.inf), near.shape[1])
        near[block] = np.where(
            np.arange(found.shape[1]) < np.maximum(n_near, (width[block, None] + 1) // 2), found, -1
        )
    return DetectionSet(features, active, random, near)


def _best(key: np.ndarray, n: int) -> np.ndarray:
    """Columns of the n largest keys per row, best first; −1 where a key is negative infinity or −1."""
    part = np.argpartition(-key, min(n, key.shape[1]) - 1, axis=1)[:, :n]
    values = np.take_along_axis(key, part, 1)
    order = np.argsort(-values, axis=1)
    part, values = np.take_along_axis(part, order, 1), np.take_along_axis(values, order, 1)
    return np.where(values > -1, part, -1)


class Lexicon:
    """Texts as stem counts (English Snowball stems, n_texts × n_stems), for BM25 and keyword queries."""

    def __init__(self, texts: list[str]) -> None:
        self.words = CountVectorizer(token_pattern=WORD, stop_words="english")
        try:
            counts = self.words.fit_transform(texts)
        except ValueError as error:
            raise ValueError("these texts hold no word to look for (stop words only)") from error
        stems = snowballstemmer.stemmer("english").stemWords(self.words.get_feature_names_out().tolist())
        self.place = {s: i for i, s in enumerate(dict.fromkeys(stems))}
        self.fold = sparse.csr_matrix(
            (np.ones(len(stems)), (range(len(stems)), [self.place[s] for s in stems]))
        )
        self.counts: sparse.csr_matrix = (counts @ self.fold).tocsr()

    def queries(self, strings: list[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Strings as stem indicators (n_strings, n_stems), and how many different stems each has in all."""
        analyse, stem = self.words.build_analyzer(), snowballstemmer.stemmer("english")
        stems = [set(stem.stemWords(analyse(s))) for s in strings]
        pairs = [(i, self.place[s]) for i, found in enumerate(stems) for s in found if s in self.place]
        rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
        matrix = sparse.csr_matrix(
            (np.ones(len(rows)), (rows, columns)), shape=(len(strings), len(self.place))
        )
        return matrix, np.array([len(s) for s in stems])

    def bm25(self, labels: list[str], k1: float = 1.5, b: float = 0.75) -> np.ndarray:
        """BM25 of every label on every text (Robertson & Zaragoza 2009, eq. 3.15): (n_labels, n_texts)."""
        tf, length = self.counts.tocsr().astype(np.float64), np.asarray(self.counts.sum(1)).ravel()
        df = np.diff(tf.tocsc().indptr)
        idf = np.log1p((len(length) - df + 0.5) / (df + 0.5))
        norm = k1 * (1 - b + b * length / max(length.mean(), 1e-9))
        tf.data = tf.data * (k1 + 1) / (tf.data + np.repeat(norm, np.diff(tf.indptr)))
        return np.asarray((self.queries(labels)[0].multiply(idf) @ tf.T).todense(), dtype=np.float32)

    def contains(self, terms: pd.Series) -> np.ndarray:
        """(n_labels, n_texts) bool: does a text hold all stems of any term? terms: lists of strings."""
        flat = [(i, t) for i, ts in enumerate(terms) for t in ts]
        if not flat:
            return np.zeros((len(terms), self.counts.shape[0]), dtype=bool)
        query, size = self.queries([t for _, t in flat])
        found = (
            np.asarray((query @ (self.counts > 0).T.astype(np.float64)).todense())
            >= np.maximum(size, 1)[:, None]
        )
        owner = sparse.csr_matrix(
            (np.ones(len(flat)), ([i for i, _ in flat], range(len(flat)))), shape=(len(terms), len(flat))
        )
        return (owner @ found.astype(np.float64)) > 0

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


def lsa_space(corpus: list[str], n_dims: int = 200, seed: int = 0) -> Callable[[list[str]], np.ndarray]:
    """The latent semantic space of `corpus` (Deerwester et al. 1990): a function from n strings to (n, n_dims) unit vectors."""
    tfidf = TfidfVectorizer(
        token_pattern=WORD, stop_words="english", sublinear_tf=True, min_df=2 if len(corpus) > 100 else 1
    )
    weights = tfidf.fit_transform(corpus)
    svd = TruncatedSVD(min(n_dims, min(weights.shape) - 1), random_state=seed).fit(weights)
    return lambda strings: normalize(svd.transform(tfidf.transform(strings))).astype(np.float32)


def auroc(
    judge: np.ndarray, exam: DetectionSet, negatives: np.ndarray, n_bootstrap: int = 0, seed: int = 0
) -> pd.DataFrame:
    """AUROC per feature, ties counted half; judge (L, n) has one row per feature of the exam.

    Returns:
        index feature: `auroc` of the more active half of the activating texts, `band_1` … `band_4` of their
        activation quartiles, strongest first, and with n_bootstrap `low`, `high`: a 95% interval by the Bayesian
        bootstrap (Rubin 1981) over positives and negatives; `n` positives in the half.
    """
    judge, generator = torch.from_numpy(np.ascontiguousarray(judge)), torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(exam.features), 128):
        block = slice(start, start + 128)
        pos, neg = (torch.from_numpy(r[block]) for r in (exam.active, negatives))
        s_pos, s_neg = (judge[block].gather(1, r.clamp_min(0)) for r in (pos, neg))
        on, off = pos >= 0, neg >= 0
        count, n_neg = on.sum(1), off.sum(1)
        ranked = s_neg.masked_fill(~off, torch.inf).sort(1).values.contiguous()
        below = torch.searchsorted(ranked, s_pos.contiguous())
        above = torch.minimum(torch.searchsorted(ranked, s_pos.contiguous(), right=True), n_neg[:, None])
        placed = (below + above) / (2 * n_neg[:, None])  # share of negatives under each positive
        rank = torch.arange(pos.shape[1])[None] / count[:, None]
        half = on & (torch.arange(pos.shape[1])[None] < (count[:, None] + 1) // 2)

        def mean(where: torch.Tensor, values: torch.Tensor = placed) -> np.ndarray:
            return ((values * where).sum(1) / where.sum(1)).numpy()

        part = {"auroc": mean(half)} | {
            f"band_{b + 1}": mean(on & (rank >= b / 4) & (rank < (b + 1) / 4)) for b in range(4)
        }
        if n_bootstrap:
            p = int(half.sum(1).max())
            w = torch.empty(len(pos), n_bootstrap, p).exponential_(generator=generator) * half[:, None, :p]
            v = (
                torch.empty(len(pos), n_bootstrap, s_neg.shape[1]).exponential_(generator=generator)
                * off[:, None]
            )
            won = (s_pos[:, :p, None] > s_neg[:, None]).float() + 0.5 * (s_pos[:, :p, None] == s_neg[:, None])
            draws = (torch.bmm(w / w.sum(2, keepdim=True), won) * (v / v.sum(2, keepdim=True))).sum(2)
            part["low"], part["high"] = torch.quantile(draws, torch.tensor([0.025, 0.975]), dim=1).numpy()
        parts.append(pd.DataFrame(part | {"n": half.sum(1).numpy()}))
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=["auroc", "n"])
    return frame.set_index(pd.Index(exam.features, name="feature"))


def spearman(judge: np.ndarray, table: sparse.csr_matrix) -> np.ndarray:
    """Simulation: rank correlation of judge (L, n) with activations (n, L), zeros included: (L,)."""
    out = []
    for start in range(0, len(judge), 256):
        a = rankdata(judge[start : start + 256], axis=1)
        b = rankdata(table[:, start : start + 256].toarray().T, axis=1)
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
        out.append(np.divide((a * b).sum(1), norm, out=np.full(len(a), np.nan), where=norm > 0))
    return np.concatenate(out) if out else np.array([])


def keyword_f1(found: np.ndarray, table: sparse.csr_matrix) -> pd.DataFrame:
    """precision, recall, F1 of "the text holds a keyword" (L, n) for "the feature is active" (n, L)."""
    active = table.T.tocsr() > 0
    hit = np.asarray(active.multiply(found).sum(1), dtype=float).ravel()
    said, true = found.sum(1), np.asarray(active.sum(1), dtype=float).ravel()
    precision, recall = hit / np.maximum(said, 1), hit / np.maximum(true, 1)
    return pd.DataFrame(
        {"precision": precision, "recall": recall, "f1": 2 * hit / np.maximum(said + true, 1)}
    )


def score_labels(
    labels: pd.DataFrame,
    judges: dict[str, np.ndarray],
    exam: DetectionSet,
    table: sparse.csr_matrix,
    lexicon: Lexicon | None = None,
    min_positives: int = 5,
    n_bootstrap: int = 0,
) -> pd.DataFrame:
    """Every metric for every label.

    Args:
        labels: index feature, columns `label`, `terms`. judges: name → (len(labels), n_texts); the first one
        gives the plain column names. table: held-out activations (n, d_sae). lexicon: of the held-out texts.

    Returns:
        index feature: `auroc`, `auroc_near` (NaN under `min_positives` texts), `n`, bands, `spearman`; the same two for
        each further judge as `auroc_NAME`, `auroc_near_NAME`; with a lexicon `precision`, `recall`, `f1`, `npmi`.
    """
    at = labels.index.get_indexer(exam.features)
    exam = DetectionSet(*(part[at >= 0] for part in (exam.features, exam.active, exam.random, exam.near)))
    at, frame = at[at >= 0], None
    for name, judge in judges.items():
        if judge.shape != (len(labels), table.shape[0]):
            raise ValueError(
                f"judge {name!r} is {judge.shape}, not {(len(labels), table.shape[0])}: (labels, held-out texts)"
            )
        far = auroc(judge[at], exam, exam.random, n_bootstrap if frame is None else 0)
        near = auroc(judge[at], exam, exam.near).auroc
        if frame is None:
            frame = far.assign(auroc_near=near, spearman=spearman(judge[at], table[:, exam.features]))
        else:
            frame[f"auroc_{name}"], frame[f"auroc_near_{name}"] = far.auroc, near
    few = frame.n < min_positives
    frame.loc[few, [c for c in frame if c.startswith(("auroc", "near", "band", "low", "high"))]] = np.nan
    if lexicon is not None:
        terms = labels.terms.iloc[at]
        frame[["precision", "recall", "f1"]] = keyword_f1(
            lexicon.contains(terms), table[:, exam.features]
        ).to_numpy()
        frame["npmi"] = lexicon.npmi(terms)
    return frame.reindex(labels.index)


def detection(
    labels: pd.Series,
    label_vectors: np.ndarray,
    table: sparse.csr_matrix,
    embeddings: np.ndarray,
    *,
    min_positives: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Detection by the encoder alone, on texts that neither the SAE nor the labeller saw.

    Args:
        labels: index feature → label. label_vectors: (len(labels), d), unit norm.
        table: held-out activations (n, d_sae). embeddings: held-out, (n, d), unit norm.

    Returns:
        index feature: `auroc` (the more active half of the activating texts against 1,000 random inactive ones),
        `auroc_near` (against the inactive ones nearest to them, at least 50), `n` positives; NaN under `min_positives`.
    """
    exam = draw_detection_set(table, embeddings, seed=seed)
    frame = pd.DataFrame({"label": labels, "terms": [[x] for x in labels]}, index=labels.index)
    judge = (label_vectors @ embeddings.T).astype(np.float32)
    return score_labels(frame, {"encoder": judge}, exam, table, min_positives=min_positives)[
        ["auroc", "auroc_near", "n"]
    ]
