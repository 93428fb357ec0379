"""A search that a person steers: a query's features turned up, down or off, and the ranking follows.

An SAE writes a query as x = base + Σ_i f_i d_i + e with d_i = W_dec,i / scale and e what no feature says. An
edit moves activations from f_i to f'_i and keeps e, then makes the length 1 again:

    x' = u / ‖u‖,     u = x̂' + e = x + Σ_i (f'_i − f_i) d_i

so that without a change the query is what it was, and a text's new score splits into parts:

    x'·y − x·y = Σ_i (f'_i − f_i) d_i·y / ‖u‖ + (1/‖u‖ − 1) x·y

Texts are searched by exact products, or, beyond 10^5 of them, by an index (`make_index`). That features steer
a search is shown in O'Neill et al. 2024 (arXiv 2408.00657).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from saelib.checks import number, whole
from saelib.sae import SAE


class Index(Protocol):
    """What finds neighbours: faiss's indices do, and so does any object with this method."""

    def search(self, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]: ...


class Hits(NamedTuple):
    """Rows of the texts found, best first, and their scores (cosines)."""

    rows: np.ndarray
    scores: np.ndarray


class Edited(NamedTuple):
    """An edited query: `x` (d_in,) unit; `change` index feature, f' − f; `length`, ‖u‖ before normalising."""

    x: np.ndarray
    change: pd.Series
    length: float


def _query(x: np.ndarray, d_in: int) -> np.ndarray:
    """One embedding (d_in,) that points somewhere, or a ValueError."""
    x = np.asarray(x)
    if x.shape != (d_in,) or not np.isfinite(x).all() or not x.any():
        raise ValueError(f"a query is one embedding ({d_in},), finite and not zero")
    return x


@torch.no_grad()
def query_features(sae: SAE, x: np.ndarray) -> pd.Series:
    """A query's active features, strongest first: index feature, values f_i; x (d_in,)."""
    acts = sae.encode(torch.from_numpy(np.asarray(x, np.float32)[None]).to(sae.mean.device))[0].cpu().numpy()
    on = np.flatnonzero(acts)
    return pd.Series(acts[on], index=pd.Index(on, name="feature")).sort_values(ascending=False, kind="stable")


@torch.no_grad()
def edit(sae: SAE, x: np.ndarray, levels: Mapping[int, float]) -> Edited:
    """Set some of a query's features to new activations, keep everything else.

    Args:
        x: (d_in,) unit. levels: feature → f'_i; 0 turns it off. A feature not named stays as it is.

    Raises:
        ValueError: a feature that the SAE does not have, a level that is not a finite number ≥ 0, or a query
        that is zero or NaN.
    """
    x = _query(x, sae.d_in)
    features = np.array(
        [whole(f"a feature (0 to {sae.d_sae - 1})", f, 0, sae.d_sae - 1) for f in levels], dtype=np.int64
    )
    wanted = np.array(
        [number("an activation (at least 0)", v, zero=True) for v in levels.values()], dtype=np.float64
    )
    now = query_features(sae, x)
    change = wanted - now.reindex(features, fill_value=0.0).to_numpy(np.float64)
    d = sae.W_dec[torch.from_numpy(features).to(sae.W_dec.device)].cpu().numpy() / float(sae.scale)
    u = np.asarray(x, np.float64) + change @ d
    length = float(np.linalg.norm(u))
    return Edited((u / length).astype(np.float32), pd.Series(change, index=features), length)


def typical(table: sparse.csr_matrix, quantile: float = 0.9) -> np.ndarray:
    """How active a feature is where it is strong: a quantile of its activations, (d_sae,); 0 where dead.

    Raises:
        ValueError: a quantile outside 0..1.
    """
    quantile, csc = number("quantile", quantile, 1, zero=True), table.tocsc()
    if not csc.nnz:
        return np.zeros(csc.shape[1], csc.dtype)
    n = np.diff(csc.indptr)
    order = np.lexsort((csc.data, np.repeat(np.arange(len(n)), n)))
    at = csc.indptr[:-1] + np.ceil(quantile * (n - 1)).astype(np.int64).clip(0)
    return np.where(n > 0, csc.data[order][np.minimum(at, len(order) - 1)], 0.0)


def family_levels(
    now: pd.Series, members: Iterable[int], strength: float, typical: np.ndarray
) -> dict[int, float]:
    """Levels that turn a whole family up or off: each member to `strength` of its typical activation.

    Divided by √n, so that a family of n nearly orthogonal members moves the query as far as one feature. A
    member that is more active already stays; strength 0 turns all members off.

    Raises:
        ValueError: a member without a typical activation, a strength that is not a finite number ≥ 0.
    """
    members = list(dict.fromkeys(whole("a member", i, 0, len(typical) - 1) for i in members))
    strength = number("strength", strength, zero=True)
    wanted = {i: strength * float(typical[i]) / np.sqrt(len(members)) for i in members}
    return {i: max(w, float(now.get(i, 0.0))) if strength > 0 else 0.0 for i, w in wanted.items()}


def allowed(table: sparse.csr_matrix, must: Iterable[int] = (), must_not: Iterable[int] = ()) -> np.ndarray:
    """Texts that have all features of `must` and none of `must_not`: (n,) bool.

    Raises:
        ValueError: a feature that the table does not have.
    """
    csc, fits = table.tocsc(), np.ones(table.shape[0], bool)
    for features, wanted in ((must, True), (must_not, False)):
        for i in (whole("a feature", f, 0, table.shape[1] - 1) for f in features):
            on = np.zeros(len(fits), bool)
            on[csc.indices[csc.indptr[i] : csc.indptr[i + 1]]] = True
            fits &= on == wanted
    return fits


def search(embeddings: np.ndarray, x: np.ndarray, n: int = 10, fits: np.ndarray | None = None) -> Hits:
    """The n texts with the highest cosine, by exact products: embeddings (N, d_in) unit, x (d_in,) unit.

    Equal scores come in the order of rows. Fewer than n texts where fewer fit.

    Raises:
        ValueError: a query that is zero or NaN, n under 1, `fits` that is not a bool for each text.
    """
    n, scores = whole("n", n), embeddings @ _query(x, embeddings.shape[1]).astype(embeddings.dtype)
    if fits is not None:
        fits = np.asarray(fits)
        if fits.dtype != bool or fits.shape != scores.shape:
            raise ValueError(f"fits must be {len(scores)} booleans, not {fits.dtype} of shape {fits.shape}")
        scores = np.where(fits, scores, -np.inf)
    n = min(n, len(scores) if fits is None else int(fits.sum()))
    rows = np.argpartition(-scores, n - 1)[:n] if 0 < n < len(scores) else np.arange(len(scores))
    rows = rows[np.lexsort((rows, -scores[rows]))][:n]
    return Hits(rows, scores[rows])


def why(edited: Edited, sae: SAE, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """Why texts y (n, d_in) rose or fell: their change of score, one part per feature that was changed.

    Returns:
        n rows: `before` (x·y), `after` (x'·y), a column per changed feature, `length` (normalising). The
        parts add up to after − before; each is computed from its own definition.
    """
    d = sae.W_dec.detach()[edited.change.index.tolist()].cpu().numpy() / float(sae.scale)
    parts = (y @ d.T) * edited.change.to_numpy() / edited.length
    before, after = y @ np.asarray(x), y @ edited.x
    frame = pd.DataFrame({"before": before, "after": after})
    frame[edited.change.index.tolist()] = parts
    return frame.assign(length=(1 / edited.length - 1) * before)


def make_index(embeddings: np.ndarray) -> Index:
    """For more texts than exact products suit: faiss's HNSW graph (Malkov and Yashunin 2016), approximate.

    Raises:
        ModuleNotFoundError: faiss is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "an index needs faiss: pip install faiss-cpu; below 100,000 texts `search` is exact and fast"
        ) from error
    index = faiss.IndexHNSWFlat(embeddings.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    index.add(np.ascontiguousarray(embeddings, dtype=np.float32))
    return index


def index_recall(index: Index, embeddings: np.ndarray, queries: np.ndarray, n: int = 10) -> float:
    """Share of the exact n nearest texts that the index finds, over queries (m, d_in)."""
    _, found = index.search(np.ascontiguousarray(queries, dtype=np.float32), n)
    exact = [search(embeddings, q, n).rows for q in queries]
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))
