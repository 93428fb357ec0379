"""Where the browser looks things up: features by words or meaning, the texts of a feature by band, near
texts."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from saelib.browser import atlas
from saelib.browser.view import FeatureView
from saelib.files import array_bytes, write

NO_NAME = ("unnamed", "(no label)", "(dead)")
SORTS = {
    "trust": None, "density": "density", "max": "max", "mean": "mean_active", "label": "label", "id": "id",
}  # fmt: skip


def find(
    view: FeatureView, query: str = "", *, by_meaning: bool = False, sort: str = "trust",
    hide_dead: bool = True, reverse: bool = False, within: tuple[int, ...] | None = None,
) -> np.ndarray:  # fmt: skip
    """Features that match a query, in the order asked for.

    Args:
        query: a word in the label or a keyword; or, with `by_meaning`, any text: then the order is by
            similarity to the labels.
        sort: a key of `SORTS`; "trust" is detection where no trust is known. Scores fall, labels and ids
            rise, `reverse` turns it round, absent scores come last.
        within: only these features (a lasso on the map), None for all.

    Raises:
        ValueError: an unknown order, or by_meaning without an encoder.
    """
    if sort not in SORTS:
        raise ValueError(f"sort must be one of {', '.join(SORTS)}, not {sort!r}")
    features = np.arange(view.sae.d_sae) if within is None else np.unique(np.asarray(within, dtype=int))
    if hide_dead:
        features = features[view.stats.n_texts.to_numpy()[features] > 0]
    query = query.strip().lower()
    if query and by_meaning:
        cosine = label_vectors(view)[features] @ view.encode([query])[0]
        return features[np.argsort(-cosine, kind="stable")]
    if query:
        features = np.array([f for f in features if query in view.search_text[f]], dtype=int)
    if sort == "id":
        return features[::-1] if reverse else features
    if sort == "label":
        order = np.argsort([view.labels[f].lower() for f in features], kind="stable")
        return features[order[::-1] if reverse else order]
    known = view.stats[SORTS[sort]] if sort != "trust" else view.trusts
    key = known.reindex(features).to_numpy(float)
    return features[np.argsort(key if reverse else -key, kind="stable")]


def label_vectors(view: FeatureView) -> np.ndarray:
    """Embeddings of all labels (d_sae, d_in), computed once and kept in the view's folder."""
    content = "\n".join([getattr(view.encoder, "fingerprint", ""), *view.labels]).encode("utf-8", "replace")
    name = f"labels-{hashlib.sha256(content).hexdigest()[:16]}.npy"
    if view.vectors is None or view.vectors[0] != name:
        file = view.folder / name if view.folder else None
        if file and file.exists():
            vectors = np.load(file, allow_pickle=False)
        else:
            vectors = view.encode([text or "?" for text in view.labels])
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                write(file, array_bytes(vectors))
        view.vectors = (name, vectors)
    return view.vectors[1]


def landmarks(view: FeatureView) -> np.ndarray:
    """Features whose names are written on the map: well named, frequent, none over another."""
    live = find(view)
    live = live[[view.labels[f] not in NO_NAME for f in live]] if len(live) else live
    weight = np.nan_to_num(view.trusts.to_numpy()[live]) + view.stats.density.to_numpy()[live]
    letters = np.array([min(len(view.labels[f]), 26) for f in live])
    return live[atlas.apart(view.xy[live], letters, weight)]


def nearest(view: FeatureView, x: np.ndarray, n: int = 5, but: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """The n corpus texts nearest to an embedding (rows, cosines), without the row `but`."""
    cosine = view.embeddings @ x
    if but >= 0:
        cosine[but] = -2
    return _largest(cosine, min(n, len(cosine) - (but >= 0)))


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
        columns `row`, `act`, by falling activation (near misses: by falling similarity).
    """
    column = view.table[:, feature]
    order = np.argsort(-column.data, kind="stable")
    rows, acts = column.indices[order], column.data[order]
    part = slice(page * size, (page + 1) * size)
    if band == "strongest" or not len(rows):
        some = slice(0, 0) if band != "strongest" else part
        return pd.DataFrame({"row": rows[some], "act": acts[some]}), len(rows)
    if band == "near misses":
        score = view.embeddings @ view.embeddings[rows[:10]].mean(0)
        score[rows] = -2
        best = _largest(score, min(50, len(score) - len(rows)))[0]
        return pd.DataFrame({"row": best[part], "act": 0.0}), len(best)
    quarter = np.array_split(np.arange(10, max(len(rows), 10)), 4)[BANDS.index(band) - 1]
    some = np.sort(np.random.default_rng(feature).permutation(quarter)[part])
    return pd.DataFrame({"row": rows[some], "act": acts[some]}), len(quarter)
