"""Numbers that say how good an SAE is, all on held-out embeddings. Nothing here trains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saelib.saes import SAE


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
    return Evaluation(float(error / total), float(cosine / n), float(active / n), float((~fired).float().mean()))


def mean_max_cosine(found: Tensor, truth: Tensor) -> float:
    """Mean over the rows of `truth` (n, d) of the best cosine with a row of `found` (m, d)."""
    found, truth = torch.nn.functional.normalize(found, dim=1), torch.nn.functional.normalize(truth, dim=1)
    return float((truth @ found.T).max(1).values.mean())
