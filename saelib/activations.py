"""The one table everything else is a view of: texts × features, sparse.

`activation_table` encodes a store once; top texts, densities and domain make-up are read off the
CSR/CSC arrays without a Python loop over texts or features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from saelib.checks import one_each, whole
from saelib.sae import SAE, as_embeddings, finite
from saelib.store import EmbeddingStore, row_numbers

ENOUGH = 80_000  # texts that names and examples are drawn from: naming them stays under 2 GB


@torch.no_grad()
def activation_table(
    sae: SAE, data: EmbeddingStore | np.ndarray, rows: np.ndarray | None = None, batch_size: int = 2048
) -> sparse.csr_matrix:
    """Feature activations of (some rows of) a store or an array: CSR (n, d_sae), float32.

    Raises:
        ValueError: the SAE's d_in is not the data's; what are no embeddings, NaN or infinity.
    """
    is_store, batch_size = isinstance(data, EmbeddingStore), whole("batch_size", batch_size)
    data = data if is_store else as_embeddings(data, "data")
    d_in = data.d_in if is_store else data.shape[1]
    if d_in != sae.d_in:
        raise ValueError(f"the SAE takes d_in {sae.d_in}, the data has {d_in}: another encoder wrote it")
    rows = row_numbers(rows, len(data))
    if not len(rows):
        raise ValueError("no rows to encode")
    device, counts, n = sae.W_enc.device, [], 0
    values, columns = np.empty(0, np.float32), np.empty(0, np.int32)
    for start in range(0, len(rows), batch_size):
        here = rows[start : start + batch_size]
        x = torch.from_numpy(data.embeddings(here)) if is_store else finite(data[here], "given")
        acts = sae.encode(x.to(device))
        block = sparse.csr_matrix(acts.cpu().numpy())
        counts.append(np.diff(block.indptr))
        if n + block.nnz > len(values):  # they grow in place, to what all rows are expected to need
            room = int(1.05 * (n + block.nnz) * len(rows) / (start + len(here)))
            values.resize(room, refcheck=False)
            columns.resize(room, refcheck=False)
        values[n : n + block.nnz], columns[n : n + block.nnz] = block.data, block.indices
        n += block.nnz
    values.resize(n, refcheck=False)
    columns.resize(n, refcheck=False)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])
    return sparse.csr_matrix((values, columns, indptr), shape=(len(rows), sae.d_sae))


def top_texts(table: sparse.csr_matrix, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The n strongest texts of every feature: (rows, activations), both (d_sae, n).

    Sorted by falling activation, ties by row; −1 and 0 where a feature has fewer texts.
    """
    csc = table.tocsc()
    feature = np.repeat(np.arange(csc.shape[1]), np.diff(csc.indptr))
    order = np.lexsort((csc.indices, -csc.data, feature))
    rank = np.arange(len(order)) - np.repeat(csc.indptr[:-1], np.diff(csc.indptr))
    keep = rank < n
    rows = np.full((csc.shape[1], n), -1, dtype=np.int64)
    acts = np.zeros((csc.shape[1], n), dtype=np.float32)
    rows[feature[keep], rank[keep]] = csc.indices[order[keep]]
    acts[feature[keep], rank[keep]] = csc.data[order[keep]]
    return rows, acts


def feature_stats(table: sparse.csr_matrix, domains: np.ndarray | None = None) -> pd.DataFrame:
    """Per feature: density (share of texts), max and mean activation, and, with domains, the domain
    most over-represented among its activation (top_domain) and that domain's share of it.

    Raises:
        ValueError: as many domains as the table has rows are needed; a missing one is "all".
    """
    n = np.diff(table.tocsc().indptr)
    total = np.asarray(table.sum(0)).ravel()
    frame = pd.DataFrame({
        "n_texts": n,
        "density": n / table.shape[0],
        "max": table.max(0).toarray().ravel(),
        "mean_active": total / np.maximum(n, 1),
    })  # fmt: skip
    if domains is not None:
        one_each("domains", domains, table.shape[0])
        domains = pd.Series(np.asarray(domains, dtype=object)).fillna("all").astype(str)
        names, codes = np.unique(domains.to_numpy(object), return_inverse=True)
        member = sparse.csr_matrix((np.ones(len(codes), np.float32), (codes, np.arange(len(codes)))))
        mass = (member @ table).toarray()  # (domains, F)
        share = mass / np.maximum(mass.sum(0), 1e-9)
        lift = share / (np.bincount(codes) / len(codes))[:, None]
        best = lift.argmax(0)
        frame["top_domain"] = np.where(n > 0, names[best], "")
        frame["top_domain_share"] = share[best, np.arange(len(n))]
    frame.index.name = "feature"
    return frame


def co_activation(table: sparse.csr_matrix) -> sparse.coo_matrix:
    """On how many texts each pair of features is active together: (d_sae, d_sae), without the diagonal."""
    on = (table > 0).astype(np.float32)
    both = (on.T @ on).tocoo()
    pairs = both.row != both.col
    return sparse.coo_matrix(
        (both.data[pairs].astype(np.int64), (both.row[pairs], both.col[pairs])), shape=both.shape
    )


class EncodedTexts(NamedTuple):
    """Rows of a store as an SAE sees them: activations (n, d_sae), texts, embeddings (n, d_in), domains,
    titles where there are any, and which rows these are."""

    table: sparse.csr_matrix
    texts: list[str]
    embeddings: np.ndarray
    domains: np.ndarray
    titles: list[str] | None = None
    rows: np.ndarray | None = None


def read_texts(
    sae: SAE, store: EmbeddingStore, rows: np.ndarray | None = None, most: int | None = ENOUGH
) -> EncodedTexts:
    """Activations, texts, embeddings and domains of some rows of a store (all when None).

    Args:
        most: of more rows than this a seeded sample is read, in their order, and a line printed that says so;
            None reads all. Names and examples need no more, and 1,000,000 embeddings are 1.5 GB.
    """
    rows = row_numbers(rows, len(store))
    if most is not None and len(rows) > whole("most", most):
        print(f"a sample of {most:,} of {len(rows):,} texts is read; read_texts(…, most=None) reads all")
        rows = rows[np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))]
    table, frame = activation_table(sae, store, rows), store.read_frame(rows)
    return EncodedTexts(
        table,
        frame.text.tolist(),
        store.embeddings(rows),
        frame.domain.to_numpy(),
        frame["title"].tolist() if "title" in frame else None,
        rows,
    )
