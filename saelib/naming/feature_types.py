"""What is a feature about: a concept, a theme, a word, a spelling, a surface form, or nearly everything?

A keyword can only name the first few. The others are recognised here, so that a reader is told "words with meta-" or
"many digits" where a label would mislead.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.preprocessing import normalize

from saelib.naming.candidates import CandidateTerms, membership
from saelib.naming.scoring import DetectionSet, auroc

SURFACE = (
    "long",
    "digits",
    "capitals",
    "other scripts or accents",
    "parentheses",
    "quotation marks",
    "commas",
)


def surface_statistics(texts: list[str]) -> np.ndarray:
    """(len(SURFACE), n) float32: log length, and shares of characters that are digits, capitals, non-ASCII, …"""

    def row(text: str) -> list[float]:
        n = max(len(text), 1)
        counts = (
            sum(map(test, text))
            for test in (str.isdigit, str.isupper, lambda c: c.isalpha() and not c.isascii())
        )
        marks = (sum(text.count(c) for c in chars) for chars in ("()", "\"“”«»'‘’", ","))
        return [np.log1p(len(text)), *(c / n for c in counts), *(c / n for c in marks)]

    return np.array([row(t) for t in texts], dtype=np.float32).T


def format_features(exam: DetectionSet, statistics: np.ndarray) -> pd.DataFrame:
    """For each feature the surface statistic that best tells its texts from near ones: `format`, `format_auroc`."""
    scores = []
    for statistic in statistics:  # a handful, not features
        judge = np.broadcast_to(statistic, (len(exam.features), len(statistic)))
        scores.append(auroc(judge, exam, exam.near).auroc.to_numpy())
    scores = np.nan_to_num(np.stack(scores), nan=0.5)
    best = np.abs(scores - 0.5).argmax(0)
    value = scores[best, np.arange(scores.shape[1])]
    names = [
        SURFACE[b] if v > 0.5 else f"few {SURFACE[b]}" if SURFACE[b] != "long" else "short"
        for b, v in zip(best, value, strict=True)
    ]
    return pd.DataFrame(
        {"format": names, "format_auroc": np.abs(value - 0.5) + 0.5},
        index=pd.Index(exam.features, name="feature"),
    )


def spelling_features(
    features: np.ndarray, rows: np.ndarray, near: np.ndarray, pool: CandidateTerms, *, sizes: tuple[int, ...] = (4, 5, 3),
    min_share: float = 0.6, max_near: float = 0.15, max_corpus: float = 0.05,
) -> pd.Series:  # fmt: skip
    """Features whose texts share the start of words and not a meaning: index feature → 'words with "meta-"'.

    A prefix counts when it is rare (at most `max_corpus` of all texts hold a word with it), `min_share` of the top
    texts (rows, (L, n)) and at most `max_near` of the near inactive ones hold one, in four different words at least
    that are unlike one another (mean cosine < 0.5), none of which stands in over half of these texts.
    """
    single = np.array([" " not in t for t in pool.terms])
    words, on = pool.terms[single], (pool.counts[:, single] > 0).astype(np.float32)
    vectors, stems, found = pool.vectors[single], pool.stems[single, 0], {}
    for size in sizes:
        code, prefixes = pd.factorize(pd.Series(words).str[:size])
        group = sparse.csr_matrix((np.ones(len(words), np.float32), (range(len(words)), code)))
        holds = ((on @ group) > 0).astype(np.float32)
        share = [(normalize(membership(r, on.shape[0]), "l1") @ holds).toarray() for r in (rows, near)]
        rare = np.asarray(holds.mean(0)).ravel() <= max_corpus
        good = (share[0] >= min_share) & (share[1] <= max_near) & rare & ((rows >= 0).sum(1) >= 5)[:, None]
        for f, p in zip(*np.nonzero(good), strict=True):  # few: the rare features that pass
            texts = rows[f][rows[f] >= 0]
            used = np.flatnonzero((np.asarray(on[texts].sum(0)).ravel() > 0) & (code == p))
            most = pd.Series(np.asarray(on[texts][:, used].sum(0)).ravel()).groupby(stems[used]).sum()
            v, n = vectors[used], len(used)
            if (
                len(most) >= 4
                and most.max() <= 0.5 * share[0][f, p] * len(texts)
                and (np.sum(v @ v.T) - n) / (n * (n - 1)) < 0.5
            ):
                found.setdefault(int(features[f]), f'words with "{prefixes[p]}-"')
    return pd.Series(found, name="spelling", dtype=object)


def feature_kinds(
    scores: pd.DataFrame, density: pd.Series, formats: pd.DataFrame, spelling: pd.Series
) -> pd.DataFrame:
    """What a feature is about: `kind` and `note`.

    dense (active on over a tenth of the texts), spelling, format (a surface statistic beats the label against near
    texts and is ≥ 0.85), words (the label's words tell the texts from near ones better than its meaning does), theme
    (the other way round: detection ≥ 0.9 by a label whose words hardly stand in the texts, BM25 < 0.55), concept (both).
    """
    frame = pd.DataFrame({"kind": "concept", "note": ""}, index=scores.index)
    frame.loc[(scores.auroc >= 0.9) & (scores.auroc_bm25 < 0.55), "kind"] = "theme"
    frame.loc[scores.auroc_near_bm25 > scores.auroc_near, "kind"] = "words"
    formats = formats.reindex(scores.index)
    is_format = (formats.format_auroc >= 0.85) & (formats.format_auroc > scores.auroc_near.fillna(0))
    frame.loc[is_format, ["kind", "note"]] = np.c_[
        np.full(is_format.sum(), "format"), formats.format[is_format]
    ]
    spelled = frame.index.intersection(spelling.index)
    frame.loc[spelled, "kind"], frame.loc[spelled, "note"] = "spelling", spelling[spelled]
    frame.loc[density.reindex(scores.index) > 0.1, "kind"] = "dense"
    return frame
