"""What an encoder that is a stranger to the embeddings says of families: do members mean alike, and is a
parent silent where a child speaks of the parent's subject (absorption, Chanin et al. 2024, arXiv 2409.14507)?
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse


def centres(rows: np.ndarray, meaning: np.ndarray) -> np.ndarray:
    """Unit mean of each feature's strongest texts: rows (d_sae, n) with −1 pads → (d_sae, d); 0 for none."""
    mean = (meaning[rows] * (rows >= 0)[:, :, None]).sum(1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)


def coherence(rows: np.ndarray, members: pd.DataFrame, meaning: np.ndarray) -> pd.Series:
    """Mean cosine of two members' centres, index family; NaN where fewer than two members are active.

    Args:
        rows: (d_sae, n), of `top_texts`. members: of `find_families`. meaning: (n_texts, d) unit vectors of
            the other encoder.
    """
    centre, live = centres(rows, meaning), rows[:, 0] >= 0

    def alike(features: pd.Series) -> float:
        own = centre[features[live[features]]]
        n = len(own)
        return float((np.square(own.sum(0)).sum() - n) / (n * (n - 1))) if n > 1 else np.nan

    return members.groupby("family").feature.agg(alike)


def absorption(
    table: sparse.csr_matrix, members: pd.DataFrame, rows: np.ndarray, meaning: np.ndarray
) -> pd.DataFrame:
    """How often a parent is silent on its child's texts although they are about the parent.

    A text is about the parent when its cosine with the parent's centre is at least the median of that of the
    texts on which the parent is active.

    Args:
        table: activations (n_texts, d_sae). The rest as in `coherence`.

    Returns:
        One row per pair of a parent and a child: `parent`, `child`, `n` (the child's texts), `silent` (share
        of them without the parent), `absorbed` (share of them without the parent and about it), and
        `chance` (of all texts without the parent, the share about it, times `silent`: what `absorbed` would
        be if the child's texts were any). A parent without a text has no centre: NaN.
    """
    pairs = members[members.parent >= 0].drop_duplicates(["parent", "feature"])
    centre, csc, records = centres(rows, meaning), table.tocsc(), []
    for parent, children in pairs.groupby("parent").feature:
        on = np.zeros(table.shape[0], bool)
        on[csc.indices[csc.indptr[parent] : csc.indptr[parent + 1]]] = True
        cosine = meaning @ centre[parent]
        about = cosine >= np.median(cosine[on]) if on.any() else np.full(len(on), np.nan)
        chance = about[~on].mean()
        for child in children:
            texts = csc.indices[csc.indptr[child] : csc.indptr[child + 1]]
            silent = ~on[texts]
            absorbed = (silent * about[texts]).mean()
            records.append((parent, child, len(texts), silent.mean(), absorbed, chance * silent.mean()))
    return pd.DataFrame(records, columns=["parent", "child", "n", "silent", "absorbed", "chance"])
