"""Where the browser looks things up: features by words, meaning and filters, the texts of a feature by band,
near texts."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import numpy as np
import pandas as pd

from saelib.browser import atlas
from saelib.browser.view import FeatureView, folded
from saelib.files import kept
from saelib.naming.language import stem

SORTS = {
    "trust": None, "density": "density", "max": "max", "mean": "mean_active", "label": "label", "id": "id",
}  # fmt: skip
ALIKE = 0.3  # a name less similar to a phrase than this (centred cosine) is not found by its meaning


class Keep(NamedTuple):
    """Which features are listed: of a domain and a kind ("" for all), of a family (−1 for all), with trust
    and density in a range, dead ones too, those with a note. Density as log10; without a trust a feature
    passes only the whole range."""

    domain: str = ""
    kind: str = ""
    trust: tuple[float, float] = (0.0, 1.0)
    density: tuple[float, float] = (-9.0, 0.0)
    dead: bool = False
    noted: tuple[int, ...] | None = None
    family: int = -1

    def mask(self, view: FeatureView) -> np.ndarray:
        """Of every feature, whether it is kept (d_sae,)."""
        every, stats = range(view.sae.d_sae), view.stats
        density = np.log10(stats.density.clip(lower=1e-9)).to_numpy()
        kept = (density >= self.density[0] - 1e-6) & (density <= self.density[1] + 1e-6)
        if self.dead:
            kept |= stats.n_texts.to_numpy() == 0
        else:
            kept &= stats.n_texts.to_numpy() > 0
        if self.domain:
            kept &= (stats.top_domain == self.domain).to_numpy()
        if self.kind:
            kept &= (view.names.get("kind", pd.Series(dtype=str)).reindex(every) == self.kind).to_numpy()
        if self.trust != (0.0, 1.0):
            kept &= view.trusts.between(self.trust[0] - 1e-6, self.trust[1] + 1e-6).to_numpy()
        if self.noted is not None:
            kept &= np.isin(every, list(self.noted))
        if self.family >= 0:
            kept &= np.isin(every, view.members(self.family))
        return kept


def word_pattern(word: str) -> str:
    """A regular expression for a word, its other endings, and (from four letters on) what begins with it.

    "galaxy" finds galaxies, "war" finds wars and neither award nor warm. Scripts without spaces between
    words are searched as they stand.
    """
    if not word.isascii():
        return re.escape(word)
    root = re.sub("i$", "(?:i|y)", re.escape(stem(word, "english")))
    start = re.escape(word) + (r"\w*" if len(word) > 3 else "")
    return rf"(?<!\w)(?:{start}|{root}(?:s|es|e|ed|er|ers|ing|ic|al)?)(?!\w)"


def word_hits(view: FeatureView, query: str) -> np.ndarray:
    """Of every feature 2 where its name or keywords have all words of a query, else 1 where a fifth of its
    strongest texts have them, else 0: (d_sae,)."""
    words = folded(query).split()
    patterns = [(word[: max(len(word) - 3, 2)], re.compile(word_pattern(word))) for word in words]
    has = lambda text: all(start in text and p.search(text) for start, p in patterns)
    named = np.array([has(name) for name in view.names_to_search])
    rows, texts = view.texts_to_search
    hit = np.zeros(len(view.texts) + 1, dtype=bool)  # the last one stands for "no text"
    hit[rows] = [has(text) for text in texts]
    in_texts = hit[view.rows].sum(1) >= np.maximum((view.rows >= 0).sum(1) / 5, 2)
    return np.where(named, 2, in_texts.astype(int))


def find(
    view: FeatureView, query: str = "", *, by_meaning: bool = False, sort: str = "density",
    reverse: bool = False, within: tuple[int, ...] | None = None, keep: Keep = Keep(),
) -> np.ndarray:  # fmt: skip
    """Features that match a query, in the order asked for.

    Args:
        query: words of the name, the keywords or the strongest texts (names come first); or, with
            `by_meaning`, any text: then the order is by `similarity`, and what is not alike is left out.
        sort: a key of `SORTS`; "trust" is detection where no trust is known. Scores fall, labels and ids
            rise, `reverse` turns it round, absent scores come last.
        within: only these features (a lasso on the map), None for all.

    Raises:
        ValueError: an unknown order, or by_meaning without an encoder.
    """
    if sort not in SORTS:
        raise ValueError(f"sort must be one of {', '.join(SORTS)}, not {sort!r}")
    kept = keep.mask(view)
    if within is not None:
        kept &= np.isin(np.arange(len(kept)), list(within))
    features, query = np.flatnonzero(kept), query.strip()
    if query and by_meaning:
        score = similarity(view, query)[features]
        order = np.argsort(-score, kind="stable")
        return features[order[score[order] >= ALIKE]]
    if sort in ("id", "label"):
        key = features if sort == "id" else [view.labels[f].lower() for f in features]
        order = np.argsort(key, kind="stable")
        order = order[::-1] if reverse else order
    else:
        known = view.stats[SORTS[sort]] if sort != "trust" else view.trusts
        key = known.reindex(features).to_numpy(float)
        order = np.argsort(key if reverse else -key, kind="stable")
    features = features[order]
    if query:
        hits = word_hits(view, query)[features]
        features = np.concatenate([features[hits == 2], features[hits == 1]])
    return features


def first_shown(view: FeatureView, features: np.ndarray) -> int:
    """The feature of a list that is shown before one is picked: the first with a name."""
    return int(next((f for f in features if view.named[f]), features[0] if len(features) else 0))


def similarity(view: FeatureView, query: str) -> np.ndarray:
    """Of every feature, the cosine of its name with a phrase, both centred on the mean of all names, so that
    no name is near to everything: (d_sae,)."""
    named = view.named if view.named.any() else np.ones(view.sae.d_sae, dtype=bool)
    vectors = np.nan_to_num(label_vectors(view))
    mean = vectors[named].mean(0)
    centred, x = vectors - mean, np.nan_to_num(view.encode([query])[0]) - mean
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(x)
    return np.where(named, centred @ x / np.maximum(norms, 1e-9), -1.0)


def label_vectors(view: FeatureView) -> np.ndarray:
    """Embeddings of all labels (d_sae, d_in), computed once and kept in the view's folder;
    made anew where the file is damaged."""
    content = "\n".join([getattr(view.encoder, "fingerprint", ""), *view.labels]).encode("utf-8", "replace")
    name = f"labels-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    if view.vectors is None or view.vectors[0] != name:
        file = view.folder / name if view.folder else None
        shape = (view.sae.d_sae, view.sae.d_in)
        vectors = kept(file, shape, lambda: view.encode([text or "?" for text in view.labels]))
        view.vectors = (name, vectors)
    return view.vectors[1]


def by_weight(view: FeatureView) -> np.ndarray:
    """Named features, those first whose names a map should write: well named and frequent."""
    weight = np.nan_to_num(view.trusts.to_numpy()) + view.stats.density.to_numpy()
    order = np.argsort(-weight, kind="stable")
    return order[view.named[order]]


def landmarks(view: FeatureView) -> np.ndarray:
    """Features whose names are written on the picture of the map, none over another."""
    live = by_weight(view)
    letters = np.array([min(len(view.labels[f]), 26) for f in live])
    return live[atlas.apart(view.xy[live], letters, -np.arange(len(live)))]


def nearest(view: FeatureView, x: np.ndarray, n: int = 5, but: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The n corpus texts nearest to an embedding (rows, cosines), equal ones once, without the text `but`."""
    cosine, (first, _) = view.embeddings @ x, view.same
    there = first == np.arange(len(first))
    if but >= 0:
        there[first[but]] = False
    return _largest(np.where(there, cosine, -2), min(n, int(there.sum())))


def _largest(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of the n largest, falling."""
    best = np.argpartition(-values, max(n - 1, 0))[:n]
    best = best[np.argsort(-values[best], kind="stable")]
    return best, values[best]


BANDS = ("strongest", "upper quarter", "second quarter", "third quarter", "lowest quarter", "near misses")


def band_texts(
    view: FeatureView, feature: int, band: str, page: int = 0, size: int = 10
) -> tuple[pd.DataFrame, int]:
    """A page of the texts of one band of `BANDS`, and how many texts the band has.

    "strongest" goes through all texts that activate the feature; the quarters are those of all but the ten
    strongest, in a random order of pages; "near misses" are the fifty texts nearest to the ten strongest
    that do not activate it.

    Returns:
        columns `row`, `act`, `times` (equal texts are shown once, as many times as they are there), by
        falling activation (near misses: by falling similarity).
    """
    column, (first, times) = view.table[:, feature], view.same
    order = np.argsort(-column.data, kind="stable")
    every, acts = column.indices[order], column.data[order]
    once = np.sort(np.unique(first[every], return_index=True)[1])
    rows, acts = every[once], acts[once]
    shown = lambda some, act: pd.DataFrame({"row": some, "act": act, "times": times[some]})
    part = slice(page * size, (page + 1) * size)
    if band == "strongest" or not len(rows):
        some = slice(0, 0) if band != "strongest" else part
        return shown(rows[some], acts[some]), len(rows)
    if band == "near misses":
        score = view.embeddings @ view.embeddings[rows[:10]].mean(0)
        score[first != np.arange(len(score))] = -2
        score[every] = -2
        best = _largest(score, min(50, int((score > -2).sum())))[0]
        return shown(best[part], 0.0), len(best)
    quarter = np.array_split(np.arange(10, max(len(rows), 10)), 4)[BANDS.index(band) - 1]
    some = np.sort(np.random.default_rng(feature).permutation(quarter)[part])
    return shown(rows[some], acts[some]), len(quarter)


def texts_with(
    view: FeatureView, features: list[int], page: int = 0, size: int = 10
) -> tuple[pd.DataFrame, int]:
    """A page of the texts that activate all of the features, and how many there are.

    Returns:
        columns `row`, `act` (the lowest of their activations over its maximum), falling, and `times`.
    """
    acts = view.by_text[:, features].toarray() / view.stats["max"].to_numpy()[features].clip(1e-9)
    least = acts.min(1)
    first, times = view.same
    rows = np.flatnonzero(least > 0)
    rows = rows[np.sort(np.unique(first[rows], return_index=True)[1])]
    order = rows[np.argsort(-least[rows], kind="stable")]
    some = order[page * size : (page + 1) * size]
    return pd.DataFrame({"row": some, "act": least[some], "times": times[some]}), len(rows)
