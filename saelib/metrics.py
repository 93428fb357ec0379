"""Numbers that say how good an SAE is, all on held-out embeddings. Nothing here trains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler
from torch import Tensor

from saelib.sae import SAE


class Evaluation(NamedTuple):
    """fvu: ‖x − x̂‖² / ‖x − mean‖², sums over the set (0 perfect, 1 no better than the mean);
    cosine: mean of cos(x, x̂); l0: mean number of active features; dead: share of features that are
    active on none of these embeddings."""

    fvu: float
    cosine: float
    l0: float
    dead: float


@torch.no_grad()
def evaluate(sae: SAE, x: Tensor, batch_size: int = 2048) -> Evaluation:
    """Evaluate on raw embeddings x (n, d_in)."""
    mean = x.mean(0)
    error = total = cosine = active = 0.0
    fired = torch.zeros(sae.d_sae, dtype=torch.bool, device=x.device)
    for chunk in x.split(batch_size):
        acts = sae.encode(chunk)
        x_hat = sae.decode(acts)
        error += (chunk - x_hat).square().sum(dtype=torch.float64)
        total += (chunk - mean).square().sum(dtype=torch.float64)
        cosine += torch.nn.functional.cosine_similarity(chunk, x_hat).sum(dtype=torch.float64)
        active += (acts > 0).sum(dtype=torch.float64)
        fired |= (acts > 0).any(0)
    n = len(x)
    return Evaluation(
        float(error / total), float(cosine / n), float(active / n), float((~fired).float().mean())
    )


def mean_max_cosine(found: Tensor, truth: Tensor) -> float:
    """Mean over the rows of `truth` (n, d) of the best cosine with a row of `found` (m, d)."""
    found, truth = torch.nn.functional.normalize(found, dim=1), torch.nn.functional.normalize(truth, dim=1)
    return float((truth @ found.T).max(1).values.mean())


@torch.no_grad()
def neighbour_recall(x: Tensor, x_hat: Tensor, k: int = 10) -> float:
    """Share of each embedding's k nearest neighbours (cosine, within the set) that its reconstruction still has.

    What a search over reconstructions would find of what a search over embeddings finds; x, x_hat (n, d).

    Raises:
        ValueError: fewer than k + 1 rows.
    """
    if len(x) <= k:
        raise ValueError(f"{k} neighbours need more than {len(x)} embeddings: lower k")
    found = []
    for v in (x, x_hat):
        v = torch.nn.functional.normalize(v, dim=1)
        found.append(torch.cat([
            (part @ v.T).scatter(1, torch.arange(start, start + len(part), device=v.device)[:, None], -2).topk(k, dim=1).indices
            for start, part in zip(range(0, len(v), 1024), v.split(1024), strict=True)
        ]))  # fmt: skip
    same = found[0][:, :, None] == found[1][:, None, :]
    return float(same.any(2).float().mean())


def probe_accuracy(
    train: np.ndarray | sparse.csr_matrix,
    y_train: np.ndarray,
    test: np.ndarray | sparse.csr_matrix,
    y_test: np.ndarray,
) -> float:
    """Held-out accuracy of a logistic regression from features or embeddings (n, d) to domains (n,)."""
    scaler = MaxAbsScaler().fit(train)
    probe = LogisticRegression(C=10, max_iter=300).fit(scaler.transform(train), y_train)
    return float(probe.score(scaler.transform(test), y_test))
