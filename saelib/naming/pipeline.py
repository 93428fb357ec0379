"""When to believe a name: the whole way from texts to judged names, abstention, stability across SAEs, known concepts.

`scoring.py` measures one label; this module says what the measurements mean for a reader: which features are
shown as "unnamed", whether the same name comes back with another seed, and whether a concept that is known to be in the
corpus was found and named.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.stats import rankdata
from sklearn.preprocessing import normalize

from saelib.activations import EncodedTexts, top_texts
from saelib.naming.candidates import candidate_terms, membership
from saelib.naming.feature_types import feature_kinds, format_features, spelling_features, surface_statistics
from saelib.naming.keybert import EmbeddingCache
from saelib.naming.scoring import DetectionSet, Lexicon, auroc, draw_detection_set, lsa_space, score_labels
from saelib.naming.selection import combined
from saelib.sae import SAE

Encode = Callable[[list[str]], np.ndarray]  # n strings → (n, d)


def abstention_threshold(score: np.ndarray, good: np.ndarray, share: float = 0.95) -> float:
    """The lowest training score at which `share` of all features with that score or more are good.

    Args:
        score: what is known when labelling, e.g. `train_auroc`. good: bool, e.g. held-out detection ≥ 0.9.

    Returns:
        The threshold, infinity when none keeps the promise. Calibrate on some features, check on others.
    """
    known = np.isfinite(score)
    score, good = np.asarray(score)[known], np.asarray(good)[known]
    order = np.argsort(-score, kind="stable")
    right = np.cumsum(good[order]) / np.arange(1, len(order) + 1)
    last = np.r_[np.diff(score[order]) != 0, True]  # equal scores stand or fall together
    keep = np.flatnonzero((right >= share) & last) if len(order) else []
    return float(score[order][keep[-1]]) if len(keep) else float("inf")


@torch.no_grad()
def stability(
    sae: SAE, labels: pd.DataFrame, vectors: np.ndarray,
    other: SAE, other_labels: pd.DataFrame, other_vectors: np.ndarray, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Does the same name come back in another SAE of the same encoder (another seed, corpus half or d_sae)?

    Each labelled feature is matched to the labelled feature of `other` with the nearest decoder row.

    Returns:
        index feature: `match`, `cosine` of the two rows, `label_cosine` of the two labels' vectors, `shared`
        (bool: a word in common), and `chance`: label_cosine with a random label of the other.
    """
    a, b = sae.W_dec[labels.index.tolist()], other.W_dec[other_labels.index.tolist()]
    cosine, best = (a @ b.T.to(a.device)).cpu().max(1)
    best = best.numpy()
    split = [[set(" ".join(ts).split()) for ts in frame.terms] for frame in (labels, other_labels)]
    shuffled = np.random.default_rng(seed).integers(0, len(other_labels), len(labels))
    return pd.DataFrame({
        "match": other_labels.index.to_numpy()[best],
        "cosine": cosine.numpy(),
        "label_cosine": (vectors * other_vectors[best]).sum(1),
        "shared": [bool(words & split[1][j]) for words, j in zip(split[0], best, strict=True)],
        "chance": (vectors * other_vectors[shuffled]).sum(1),
    }, index=labels.index)  # fmt: skip


def concept_recovery(
    train: sparse.csr_matrix,
    train_concepts: np.ndarray,
    test: sparse.csr_matrix,
    test_concepts: np.ndarray,
    min_texts: int = 10,
) -> pd.DataFrame:
    """For each known concept the feature that answers to it, chosen by F1 on training texts, measured on held-out ones.

    Args:
        train, test: activations (n, d_sae). train_concepts, test_concepts: a concept's name per text.
        min_texts: concepts with fewer training texts (or without a held-out one) are left out.

    Returns:
        index concept: `feature`, `f1` ("active" as an answer), `auroc` of its activation, `n` held-out texts.
    """
    names, n_train = np.unique(train_concepts, return_counts=True)
    names = np.array(
        [c for c, n in zip(names, n_train, strict=True) if n >= min_texts and (test_concepts == c).any()],
        dtype=object,
    )
    if not len(names):
        raise ValueError(f"no concept has {min_texts} training texts and a held-out one: lower min_texts")

    def f1(table: sparse.csr_matrix, concepts: np.ndarray) -> np.ndarray:
        place = pd.Index(names).get_indexer(concepts)
        member = sparse.csr_matrix(
            (np.ones((place >= 0).sum()), (place[place >= 0], np.flatnonzero(place >= 0))),
            (len(names), len(place)),
        )
        on = (table > 0).astype(np.float64)
        said = np.asarray(on.sum(0)).ravel()
        return 2 * (member @ on).toarray() / np.maximum(np.asarray(member.sum(1)) + said[None], 1)

    best = f1(train, train_concepts).argmax(1)
    here = np.asarray(test_concepts)[None] == names[:, None]
    ranks = rankdata(test[:, best].toarray().T, axis=1)
    n = here.sum(1)
    area = ((ranks * here).sum(1) - n * (n + 1) / 2) / np.maximum(n * (here.shape[1] - n), 1)
    held = f1(test, test_concepts)[np.arange(len(names)), best]
    return pd.DataFrame(
        {"feature": best, "f1": held, "auroc": area, "n": n}, index=pd.Index(names, name="concept")
    )


def says_concept(concepts: pd.DataFrame, labels: pd.DataFrame, encode, lexicon: Lexicon) -> pd.DataFrame:  # noqa: ANN001
    """Does the feature's label say the concept's name? `label`, `says` (a stem in common), `rank` of the name among
    all concepts' names by cosine with the label (1 is best)."""
    found = labels.label.reindex(concepts.feature).fillna("").to_numpy()
    names = concepts.index.to_numpy().astype(str)
    similarity = encode([f or "?" for f in found]) @ encode(list(names)).T
    own = similarity[np.arange(len(names)), np.arange(len(names))]
    a, b = (lexicon.queries(list(strings))[0] for strings in (found, names))
    return pd.DataFrame(
        {
            "label": found,
            "says": np.asarray(a.multiply(b).sum(1)).ravel() > 0,
            "rank": (similarity > own[:, None]).sum(1) + 1,
        },
        index=concepts.index,
    )


def top_rows(table: sparse.csr_matrix, n: int = 10) -> pd.Series:
    """index feature → list of its n strongest rows, for live features."""
    rows, _ = top_texts(table, n)
    live = np.flatnonzero(rows[:, 0] >= 0)
    return pd.Series(
        [[int(r) for r in rows[f] if r >= 0] for f in live], index=pd.Index(live, name="feature")
    )


def label_judges(
    labels: list[str],
    test: EncodedTexts,
    vectors: EmbeddingCache,
    lexicon: Lexicon,
    spaces: dict[str, tuple[Encode, np.ndarray]],
) -> dict[str, np.ndarray]:
    """How well each label fits each held-out text, (n_labels, n_texts), by the encoder, BM25, and other `spaces`.

    Args:
        spaces: name → (a function from strings to vectors, the held-out texts' unit vectors).
    """
    judges = {"encoder": vectors(labels) @ test.embeddings.T, "bm25": lexicon.bm25(labels)}
    return judges | {name: normalize(encode(labels)) @ texts.T for name, (encode, texts) in spaces.items()}


def text_spaces(
    train: EncodedTexts, test: EncodedTexts, second: Encode | None = None
) -> dict[str, tuple[Encode, np.ndarray]]:
    """The judges' spaces beside the encoder's: LSA of the training texts, and a second encoder when there is one."""
    spaces = {"lsa": lsa_space(train.texts)} | ({"second": second} if second else {})
    return {name: (encode, normalize(encode(test.texts))) for name, encode in spaces.items()}


def name_features(
    sae: SAE, train: EncodedTexts, test: EncodedTexts, vectors: EmbeddingCache, *, good: float = 0.9, share: float = 0.95, seed: int = 0,
    second: Encode | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The whole way: candidates, combined labels, judges, abstention, kinds. What the notebooks and the browser read.

    Args:
        train: texts to choose labels by. test: held-out texts to judge them on. vectors: the encoder's cache.
        good, share: at least `share` of the labels shown are to have a detection of `good` or more. The threshold on
        `train_auroc` is calibrated on one random half of the features; the other half is the check.
        second: another encoder, e.g. model2vec's `encode`: one more judge, the columns `auroc_second` and `auroc_near_second`.

    Returns:
        index feature (live ones): `label`, `terms`, `term_scores` (detection of each by itself),
        `shown` (False: to be read as "unnamed"), `kind`, `note`,
        `train_auroc`, every column of `score_labels` (encoder, BM25 and LSA as judges), `density`, `top_rows` (of
        train), `half` ("calibration" or "check"). `.attrs` has `threshold` and, on the check half, `share_shown` and
        `share_good` of those shown.
    """
    pool = candidate_terms(train.texts, vectors)
    exam = draw_detection_set(train.table, train.embeddings, n_random=200, n_near=100, seed=seed)
    labels = combined(sae, train.table, train.embeddings, pool, vectors, exam=exam)
    lexicon = Lexicon(test.texts)
    judges = label_judges(list(labels.label), test, vectors, lexicon, text_spaces(train, test, second))
    held_out = draw_detection_set(test.table, test.embeddings, seed=seed)
    scores = score_labels(labels, judges, held_out, test.table, lexicon, n_bootstrap=200)
    place = pd.Index(held_out.features).get_indexer(labels.index)  # −1: active on no held-out text
    at = np.repeat(place, labels.terms.str.len())  # each term by itself
    alone = DetectionSet(*(part[at] for part in held_out))
    flat = [t for terms in labels.terms for t in terms]
    single = (
        auroc(vectors(flat) @ test.embeddings.T, alone, alone.random).auroc.where(at >= 0).to_numpy().round(3)
    )
    labels["term_scores"] = np.split(single, np.cumsum(labels.terms.str.len())[:-1])
    density = pd.Series(np.diff(train.table.tocsc().indptr) / train.table.shape[0])[labels.index]
    spelled = spelling_features(exam.features, exam.active[:, :20], exam.near, pool)
    formats = format_features(exam, surface_statistics(train.texts))
    frame = labels.join(scores).join(feature_kinds(scores, density, formats, spelled)).assign(density=density)
    frame["top_rows"] = top_rows(train.table)

    half = np.random.default_rng(seed).random(len(frame)) < 0.5
    known, is_good = frame.auroc.notna().to_numpy(), (frame.auroc >= good).to_numpy()
    threshold = abstention_threshold(frame.train_auroc[half & known].to_numpy(), is_good[half & known], share)
    frame["shown"] = (frame.train_auroc >= threshold).to_numpy()
    frame["half"] = np.where(half, "calibration", "check")
    check = ~half & known
    shown = frame.shown[check]
    frame.attrs = {
        "threshold": threshold,
        "share_shown": float(shown.mean()) if check.any() else float("nan"),
        "share_good": float(is_good[check][shown].mean()) if shown.any() else float("nan"),
    }
    return frame


def as_shown(names: pd.DataFrame) -> pd.Series:
    """The label as a reader is to see it: "unnamed" where its score is too low, the note for spelling and format."""
    label = names.label.where(names.shown.astype(bool), "unnamed")
    return label.mask(names.note.fillna("") != "", names.kind + ": " + names.note.fillna(""))


def judge_all(
    label_sets: dict[str, pd.DataFrame], sae: SAE, train: EncodedTexts, test: EncodedTexts, vectors: EmbeddingCache, seed: int = 0,
    second: Encode | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Several labellers side by side on the same held-out texts, with the scale to read them by.

    Args:
        label_sets: name → labels (index feature, `label`, `terms`); the last one is also dealt out wrongly.
        second: another encoder, one more judge.

    Returns:
        name → `score_labels`, with the encoder, BM25 and LSA as judges; then "nearest feature's label" and "shuffled
        labels" of the last set, and "mean of the top texts" (the encoder alone; no words: the ceiling).
    """
    last = list(label_sets.values())[-1]
    W = sae.W_dec[last.index.tolist()].detach()
    order = {"nearest feature's label": (W @ W.T).fill_diagonal_(-1).argmax(1).cpu().numpy()}
    order["shuffled labels"] = np.random.default_rng(seed).permutation(len(last))
    wrong = {name: last[["label", "terms"]].iloc[o].set_index(last.index) for name, o in order.items()}
    lexicon, exam, out = Lexicon(test.texts), draw_detection_set(test.table, test.embeddings, seed=seed), {}
    spaces = text_spaces(train, test, second)
    for name, labels in (label_sets | wrong).items():
        labels = labels[labels.label != ""]
        judges = label_judges(list(labels.label), test, vectors, lexicon, spaces)
        out[name] = score_labels(labels, judges, exam, test.table, lexicon)
    rows, _ = top_texts(train.table, 10)
    centre = normalize(membership(rows[last.index], len(train.texts)) @ train.embeddings)
    judge = {"encoder": (centre @ test.embeddings.T).astype(np.float32)}
    out["mean of the top texts"] = score_labels(last[["label", "terms"]], judge, exam, test.table)
    return out


def summary(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One line per labeller: means over features, and the median and 10th percentile of `auroc`."""
    columns = [
        "auroc_near",
        "auroc_bm25",
        "auroc_near_bm25",
        "auroc_lsa",
        "auroc_near_lsa",
        "auroc_second",
        "auroc_near_second",
        "spearman",
        "f1",
        "npmi",
    ]
    lines = {}
    for name, frame in scores.items():
        first = {
            "auroc": frame.auroc.mean(),
            "median": frame.auroc.median(),
            "p10": frame.auroc.quantile(0.1),
        }
        lines[name] = first | {c: frame[c].mean() for c in columns if c in frame}
    return pd.DataFrame(lines).T
