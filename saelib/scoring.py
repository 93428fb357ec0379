"""How good is a name? Detection on held-out texts, with no API call.

A label detects its feature when the texts that activate it are nearer to the label than those that
do not: AUROC of cos(label, text) over activating against inactive held-out texts, 0.5 for a name
that says nothing. The judge is the encoder that made the embeddings, which flatters every label
alike: read a score beside that of shuffled labels.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import roc_auc_score


def detection(
    labels: pd.Series,
    label_vectors: np.ndarray,
    table: sparse.csr_matrix,
    embeddings: np.ndarray,
    *,
    n_negatives: int = 1000,
    min_positives: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Score labels on texts that neither the SAE nor the labeller saw.

    Args:
        labels: index feature → label. label_vectors: (len(labels), d), unit norm.
        table: held-out activations (n, d_sae). embeddings: held-out, (n, d), unit norm.
        n_negatives: random inactive texts per feature. min_positives: fewer are not scored (NaN).

    Returns:
        index feature: `auroc` (the more active half of the activating texts against random
        inactive ones), `auroc_near` (against the inactive texts nearest to the activating ones'
        mean, as many as there are positives, at least 50), `n` positives.
    """
    rng = np.random.default_rng(seed)
    csc = table.tocsc(copy=True)
    csc.eliminate_zeros()
    similarity = label_vectors @ embeddings.T  # (L, n)
    n, records = table.shape[0], []
    for i, feature in enumerate(labels.index):
        span = slice(csc.indptr[feature], csc.indptr[feature + 1])
        rows, acts = csc.indices[span], csc.data[span]
        positives = rows[np.argsort(-acts)][: max((len(rows) + 1) // 2, 1)] if len(rows) else rows
        record = {"feature": feature, "auroc": np.nan, "auroc_near": np.nan, "n": len(positives)}
        if len(positives) >= min_positives and len(rows) < n:
            inactive = np.setdiff1d(np.arange(n), rows, assume_unique=True)
            chosen = rng.choice(inactive, min(n_negatives, len(inactive)), replace=False)
            nearness = embeddings[inactive] @ embeddings[positives].mean(0)
            near = inactive[np.argsort(-nearness)[: max(50, len(positives))]]
            for name, negatives in (("auroc", chosen), ("auroc_near", near)):
                truth = np.r_[np.ones(len(positives)), np.zeros(len(negatives))]
                record[name] = roc_auc_score(truth, similarity[i, np.r_[positives, negatives]])
        records.append(record)
    return pd.DataFrame(records).set_index("feature")
