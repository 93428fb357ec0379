"""What is a feature about: a concept, two topics, a spelling, a form, or nearly everything?

A keyword can name the first two only. The others are recognised here, so that a reader is told "words
beginning with st-" or "texts that open with “it is”" where a name would mislead. One question decides:
does an *independent* encoder, which had no part in the embeddings, find the strongest texts alike? If so,
the feature is about a meaning. If not, something else holds them together: the words that carry it
(`spelling.py`), or the way the texts are written.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from saelib.activations import EncodedTexts, top_texts
from saelib.encoder import Encode
from saelib.naming.spelling import carrying_words, word_notes
from saelib.sae import SAE

MARKS = {
    "a question mark": r"\?",
    "an exclamation mark": "!",
    "quotation marks": '["“”«»„]',
    "parentheses": r"\(",
}


def feature_types(
    sae: SAE,
    encode: Encode,
    independent: Encode,
    train: EncodedTexts,
    names: pd.DataFrame,
    coherent: float = 0.37,
) -> pd.DataFrame:
    """The kind of every named feature, and what to say of it.

    - dense: active on over a tenth of the texts;
    - spelling: the words that carry it begin or end with the same letters and mean different things;
    - form: these words are numbers or abbreviations; or the texts share an opening, a function word, a mark
      or a length that tells them from near inactive texts better than their meaning does;
    - two topics: the strongest texts fall into two groups (`two_topics`);
    - concept: everything else.

    Args:
        encode: the encoder that made the embeddings; through a cache, most words cost nothing.
        independent: another encoder, its vectors centred on the corpus.
        names: index feature.
        coherent: with at least this `coherence` of its 12 strongest texts, a feature is not asked for
            spelling or form.

    Returns:
        index as `names`: `kind`; `note`, a phrase for the reader ("" for concept and two topics); `parts`,
        for two topics two lists of rows of `train`, the larger first, else an empty list; `coherence`.
    """
    features = names.index.to_numpy()
    density = np.diff(train.table.tocsc().indptr)[features] / train.table.shape[0]
    rows = top_texts(train.table, 20)[0][features]
    used, place = np.unique(rows, return_inverse=True)  # the first may be −1: no text
    vectors = np.asarray(independent([train.texts[i] for i in used]))[place.reshape(rows.shape)]
    vectors[rows < 0] = 0
    held_together = coherence(vectors[:, :12])
    frame = pd.DataFrame({"kind": "concept", "note": ""}, index=names.index)
    frame["parts"], frame["coherence"] = [[] for _ in features], held_together

    asked = np.flatnonzero((held_together < coherent) & ((rows >= 0).sum(1) >= 5))
    strongest = {features[i]: [train.texts[r] for r in rows[i, :12] if r >= 0] for i in asked}
    notes = shared_form(train, features[asked], rows[asked], independent)
    notes |= word_notes(strongest, carrying_words(sae, encode, strongest), independent)
    for i in np.flatnonzero(density > 0.1):
        notes[features[i]] = ("dense", f"active on {density[i]:.0%} of the texts")
    for i, feature in enumerate(features):
        if feature in notes:
            frame.loc[feature, ["kind", "note"]] = notes[feature]
        elif parts := two_topics(rows[i], vectors[i], train.embeddings[rows[i]]):
            frame.at[feature, "kind"], frame.at[feature, "parts"] = "two topics", parts
    return frame


def coherence(vectors: np.ndarray) -> np.ndarray:
    """Mean cosine of each text with the sum of the others: (F, n, d), zeros where no text is → (F,)."""
    rest = vectors.sum(1, keepdims=True) - vectors
    cosine = (rest * vectors).sum(2) / np.maximum(np.linalg.norm(rest, axis=2), 1e-9)
    return cosine.sum(1) / np.maximum(vectors.any(2).sum(1), 1)


def form_tokens(text: str) -> list[str]:
    """How a text is written, in phrases: its first one to three words, function words, marks and length."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    openings = [f"texts that open with “{' '.join(words[:n])}”" for n in (1, 2, 3) if len(words) > n]
    function = [f"texts with the word “{w}”" for w in set(words) & ENGLISH_STOP_WORDS]
    marks = [f"texts with {mark}" for mark, pattern in MARKS.items() if re.search(pattern, text)]
    if len(words) <= 5 or len(words) > 40:
        marks.append("texts of at most five words" if len(words) <= 5 else "texts of over 40 words")
    return openings + function + marks


def shared_form(
    train: EncodedTexts, features: np.ndarray, rows: np.ndarray, independent: Encode, n_near: int = 50
) -> dict[int, tuple[str, str]]:
    """Feature → ("form", the phrase of `form_tokens`) that its texts share and near inactive ones do not.

    Near are the n_near inactive texts closest to the mean of `rows` (F, n). The phrase holds for 60% of the
    feature's texts, 40 points more than of the near ones, and for at most 10% of all features' near ones (20%
    for an opening); and it tells the two apart better (AUROC) than the independent cosine with the feature's
    other texts does.
    """
    if not len(features):
        return {}
    csc, near, rows = train.table.tocsc(), [], [r[r >= 0] for r in rows]
    for feature, own in zip(features, rows, strict=True):
        cosine = train.embeddings @ train.embeddings[own].mean(0)
        cosine[csc.indices[csc.indptr[feature] : csc.indptr[feature + 1]]] = -np.inf
        closest = np.argpartition(-cosine, min(n_near, len(cosine) - 1))[:n_near]
        near.append(closest[np.isfinite(cosine[closest])])
    used = np.unique(np.concatenate(rows + near))
    texts, notes = [train.texts[i] for i in used], {}
    counter = CountVectorizer(analyzer=form_tokens, binary=True, dtype=np.float32)
    holds, vectors = counter.fit_transform(texts), independent(texts)
    phrases = counter.get_feature_names_out()
    common = np.asarray(holds[np.searchsorted(used, np.concatenate(near))].mean(0)).ravel()
    rare = common <= np.where([" open with " in p for p in phrases], 0.2, 0.1)
    for feature, own, other in zip(features, rows, near, strict=True):
        own, other = np.searchsorted(used, own), np.searchsorted(used, other)
        share, by_chance = (np.asarray(holds[r].mean(0)).ravel() for r in (own, other))
        gain = np.where(rare & (share >= 0.6), share - by_chance, 0)
        total = vectors[own].sum(0)
        rest = total - vectors[own]
        meant = (rest * vectors[own]).sum(1) / np.linalg.norm(rest, axis=1)
        by_meaning = np.mean(meant[:, None] > vectors[other] @ total / np.linalg.norm(total))
        if gain.max() >= 0.4 and (1 + gain.max()) / 2 > by_meaning:
            notes[int(feature)] = (
                "form",
                phrases[gain.argmax()],
            )  # of equals the longest
    return notes


def two_topics(rows: np.ndarray, vectors: np.ndarray, embeddings: np.ndarray) -> list[list[int]]:
    """The two groups, by 2-means, that a feature's texts `rows` (n,) fall into, or [] if they do not.

    Each has four texts or more; `vectors`, of the independent encoder, are alike within (mean cosine ≥ 0.2);
    and by both encoders texts of different groups are at most 0.56 times as alike as those of the looser one.
    """
    rows, vectors, embeddings = (x[rows >= 0] for x in (rows, vectors, embeddings))
    if len(rows) < 8:
        return []
    centred = vectors - vectors.mean(0)
    second = np.linalg.eigh(centred @ centred.T)[1][:, -1] > 0  # 2-means starts from the main axis
    for _ in range(10):
        n = np.array([(~second).sum(), second.sum()])
        if n.min() < 4:
            return []
        centres = np.stack([vectors[~second].mean(0), vectors[second].mean(0)], 1)
        second = np.argmax(vectors @ centres / np.linalg.norm(centres, axis=0), axis=1) == 1
    for space, least in ((vectors, 0.2), (embeddings, 0.0)):
        cosine = space @ space.T
        within = min((np.array([cosine[np.ix_(g, g)].sum() for g in (~second, second)]) - n) / (n * (n - 1)))
        if within < least or cosine[np.ix_(second, ~second)].mean() > 0.56 * within:
            return []
    return sorted([rows[~second].tolist(), rows[second].tolist()], key=len, reverse=True)
