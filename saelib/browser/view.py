"""What the browser knows, computed once, and where it looks things up: features by words or meaning, their texts by band.

Numbers only; `explain.py` takes texts apart, `views.py` turns both into HTML, `browser.py` into widgets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from saelib.activations import co_activation, feature_stats, top_texts
from saelib.encoder import Encoder
from saelib.sae import SAE


@dataclass
class FeatureView:
    """Everything the browser needs, computed once.

    Attributes:
        sae, texts, domains, embeddings (n, d_in). table: activations, CSC (n, d_sae). names: what `name_features`
        returned, or any frame with an index of features and a column `label`. stats: `feature_stats`.
        rows, acts: top texts (d_sae, 20). near, near_cosine; together, together_count: ten neighbours of each feature, by decoder
        row and by co-activation.
        xy: map of the features (d_sae, 2). encoder: None where no text can be embedded. folder: where slow results are kept.
    """

    sae: SAE
    texts: list[str]
    domains: np.ndarray
    embeddings: np.ndarray
    table: sparse.csc_matrix
    names: pd.DataFrame
    stats: pd.DataFrame
    rows: np.ndarray
    acts: np.ndarray
    near: np.ndarray
    near_cosine: np.ndarray
    together: np.ndarray
    together_count: np.ndarray
    xy: np.ndarray
    encoder: Encoder | None = None
    by_text: sparse.csr_matrix | None = None
    folder: Path | None = None
    cache: dict = field(default_factory=dict)

    def label(self, feature: int) -> str:
        """The label as it may be shown: "unnamed" where its score did not pass, "dead" where nothing activates."""
        return self.labels[feature]

    def score(self, feature: int, column: str = "auroc") -> float:
        """A number from the results, NaN where it is absent."""
        if column not in self.names or feature not in self.names.index:
            return float("nan")
        return float(self.names.at[feature, column])

    def terms(self, feature: int) -> list[tuple[str, float]]:
        """Keywords of a feature, each with its own detection score (NaN where it has none)."""
        if "terms" not in self.names or feature not in self.names.index:
            return []
        terms = list(self.names.at[feature, "terms"])
        scores = (
            list(self.names.at[feature, "term_scores"])
            if "term_scores" in self.names
            else [np.nan] * len(terms)
        )
        return [(str(t), float(s)) for t, s in zip(terms, scores, strict=True)]

    @property
    def labels(self) -> list[str]:
        """Of every feature."""
        if "labels" not in self.cache:
            every = range(self.sae.d_sae)
            label = self.names["label"].fillna("").astype(str).replace("", "unnamed")
            if "shown" in self.names:
                label = label.where(self.names["shown"].fillna(False).astype(bool), "unnamed")
            label = (
                label.reindex(every)
                .fillna("(no label)")
                .mask(self.stats.n_texts.reindex(every) == 0, "(dead)")
            )
            self.cache["labels"] = label.tolist()
        return self.cache["labels"]

    @property
    def base_rate(self) -> pd.Series:
        """Share of each domain in the corpus, most frequent first."""
        if "base rate" not in self.cache:
            self.cache["base rate"] = pd.Series(self.domains).value_counts(normalize=True)
        return self.cache["base rate"]


def make_view(
    sae: SAE, texts: list[str], domains: np.ndarray, embeddings: np.ndarray, table: sparse.csr_matrix, names: pd.DataFrame,
    encoder: Encoder | None = None, folder: Path | None = None,
) -> FeatureView:  # fmt: skip
    """Compute what the browser reads; the slow part (the map) is kept in `folder` when given.

    Raises:
        ValueError: table, texts, embeddings or SAE do not belong together.
    """
    if not table.shape == (len(texts), sae.d_sae) or len(embeddings) != len(texts):
        raise ValueError(
            f"the table is {table.shape}, for {len(texts)} texts, {len(embeddings)} embeddings and d_sae {sae.d_sae}"
        )
    rows, acts = top_texts(table, 20)
    W = sae.W_dec.detach().cpu()
    n_near = min(10, sae.d_sae - 1)
    near, near_cosine = [], []
    for start, part in zip(range(0, len(W), 2048), W.split(2048), strict=True):
        cosine = part @ W.T
        cosine[torch.arange(len(part)), torch.arange(start, start + len(part))] = -2
        best = cosine.topk(n_near, dim=1)
        near.append(best.indices.numpy())
        near_cosine.append(best.values.numpy())
    both = co_activation(table)
    feature, other, times = both.row, both.col, both.data
    order = np.lexsort((other, -times, feature))
    start = np.searchsorted(feature[order], np.arange(sae.d_sae))
    rank = np.arange(len(order)) - start[feature[order]]
    order, rank = order[rank < n_near], rank[rank < n_near]
    together, count = np.full((sae.d_sae, n_near), -1), np.zeros((sae.d_sae, n_near), dtype=int)
    together[feature[order], rank], count[feature[order], rank] = other[order], times[order]
    return FeatureView(
        sae, texts, np.asarray(domains), embeddings, table.tocsc(), names, feature_stats(table, domains), rows, acts,
        np.concatenate(near), np.concatenate(near_cosine), together, count, feature_map(sae, folder), encoder, table.tocsr(),
        Path(folder) if folder else None,
    )  # fmt: skip


def map_file(sae: SAE, folder: Path) -> Path:
    """Where the map of this SAE is kept: named after its decoder, so that another SAE does not get an old map."""
    return (
        Path(folder)
        / f"map-{hashlib.sha256(sae.W_dec.detach().cpu().numpy().tobytes()).hexdigest()[:16]}.npy"
    )


def feature_map(sae: SAE, folder: Path | None = None) -> np.ndarray:
    """Two dimensions of the decoder rows (d_sae, 2): UMAP where it is installed, else two principal components."""
    W = sae.W_dec.detach().cpu().numpy()
    file = map_file(sae, folder) if folder else None
    if file and file.exists():
        return np.load(file, allow_pickle=False)
    try:
        from umap import UMAP

        xy = UMAP(
            n_neighbors=min(15, len(W) - 1), min_dist=0.15, metric="cosine", random_state=0, n_jobs=1
        ).fit_transform(W)
    except ImportError:
        centred = W - W.mean(0)
        xy = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, xy.astype(np.float32), allow_pickle=False)
    return xy.astype(np.float32)


def check_feature(view: FeatureView, feature: object) -> int:
    """The number of a feature, or a ValueError that names the valid range."""
    try:
        number = int(feature)
    except (TypeError, ValueError):
        raise ValueError(
            f"{str(feature)[:40]!r} is not a feature: give a number from 0 to {view.sae.d_sae - 1}"
        ) from None
    if not 0 <= number < view.sae.d_sae:
        raise ValueError(f"there is no feature {number}: give a number from 0 to {view.sae.d_sae - 1}")
    return number


SORTS = {
    "label score": "auroc",
    "density": "density",
    "max": "max",
    "mean": "mean_active",
    "label": "label",
    "id": "id",
}


def find(
    view: FeatureView, query: str = "", by_meaning: bool = False, sort: str = "label score", hide_dead: bool = True,
    reverse: bool = False, within: tuple[int, ...] | None = None,
) -> np.ndarray:  # fmt: skip
    """Features that match a query, in the order asked for.

    Args:
        query: a word in the label or a keyword; or, with `by_meaning`, any text: then the order is by similarity to the labels.
        sort: a key of `SORTS`; scores fall, labels and ids rise, `reverse` turns it round, absent scores come last.
        within: only these features (a lasso on the map), None for all.

    Raises:
        ValueError: an unknown order, or by_meaning without an encoder.
    """
    if sort not in SORTS:
        raise ValueError(f"sort must be one of {', '.join(SORTS)}, not {sort!r}")
    features = np.arange(view.sae.d_sae) if within is None else np.unique(np.asarray(within, dtype=int))
    if hide_dead:
        features = features[view.stats.n_texts.to_numpy()[features] > 0]
    query = query.strip()
    if query and by_meaning:
        if view.encoder is None:
            raise ValueError("searching by meaning needs the encoder: pass encoder=… to make_view")
        cosine = label_vectors(view)[features] @ view.encoder.encode([query])[0]
        return features[np.argsort(-cosine, kind="stable")]
    if query:
        if "words" not in view.cache:
            terms = view.names["terms"].map(" ".join).to_dict() if "terms" in view.names else {}
            view.cache["words"] = [
                f"{label} {terms.get(f, '')}".lower() for f, label in enumerate(view.labels)
            ]
        features = np.array([f for f in features if query.lower() in view.cache["words"][f]], dtype=int)
    if sort in ("id", "label"):
        order = (
            features
            if sort == "id"
            else features[np.argsort([view.labels[f].lower() for f in features], kind="stable")]
        )
        return order[::-1] if reverse else order
    frame = view.names if sort == "label score" else view.stats
    key = (
        frame[SORTS[sort]].reindex(features).to_numpy(float)
        if SORTS[sort] in frame
        else np.full(len(features), np.nan)
    )
    return features[np.argsort(key if reverse else -key, kind="stable")]


def label_vectors(view: FeatureView) -> np.ndarray:
    """Embeddings of all labels (d_sae, d_in), computed once and kept in the view's folder."""
    if "label vectors" not in view.cache:
        print_ = hashlib.sha256(
            "\n".join([view.encoder.fingerprint, *view.labels]).encode("utf-8", "replace")
        ).hexdigest()[:16]
        file = view.folder / f"labels-{print_}.npy" if view.folder else None
        if file and file.exists():
            view.cache["label vectors"] = np.load(file, allow_pickle=False)
        else:
            view.cache["label vectors"] = view.encoder.encode([text or "?" for text in view.labels])
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, view.cache["label vectors"], allow_pickle=False)
    return view.cache["label vectors"]


BANDS = ("strongest", "upper quarter", "second quarter", "third quarter", "lowest quarter", "near misses")


def band_texts(
    view: FeatureView, feature: int, band: str, page: int = 0, size: int = 10, seed: int = 0
) -> tuple[pd.DataFrame, int]:
    """A page of the texts of one band of `BANDS`, and how many texts the band has.

    "strongest" goes through all texts that activate the feature; the quarters are those of all but the ten strongest, in a
    random order of pages; "near misses" are the fifty texts nearest to the ten strongest that do not activate it.

    Returns:
        columns `row`, `act`, by falling activation (near misses: by falling similarity).
    """
    column = view.table[:, feature]
    order = np.argsort(-column.data, kind="stable")
    rows, acts = column.indices[order], column.data[order]
    part = slice(page * size, (page + 1) * size)
    if band == "near misses":
        if not len(rows):
            return pd.DataFrame({"row": [], "act": []}), 0
        score = view.embeddings @ view.embeddings[rows[:10]].mean(0)
        score[rows] = -2
        n = min(50, len(score) - len(rows))
        best = np.argpartition(-score, max(n - 1, 0))[:n]
        best = best[np.argsort(-score[best], kind="stable")]
        return pd.DataFrame({"row": best[part], "act": 0.0}), n
    if band == "strongest":
        return pd.DataFrame({"row": rows[part], "act": acts[part]}), len(rows)
    quarter = np.array_split(np.arange(10, max(len(rows), 10)), 4)[BANDS.index(band) - 1]
    some = np.sort(np.random.default_rng(seed + feature).permutation(quarter)[part])
    return pd.DataFrame({"row": rows[some], "act": acts[some]}), len(quarter)


def example_rows(view: FeatureView, feature: int) -> pd.DataFrame:
    """Texts to show (`row`, `act`, `band`): the ten strongest, five from each quarter of the rest, five near misses."""
    parts = [
        band_texts(view, feature, band, size=10 if band == "strongest" else 5)[0].assign(band=band)
        for band in BANDS
    ]
    return pd.concat([part for part in parts if len(part)] or parts[:1])
